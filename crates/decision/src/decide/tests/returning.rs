//! Versions that someone keeps putting back after their rollback.

use super::*;

/// A controller gives a rolled-back version a share first, then all.
#[test]
fn returns_by_way_of_a_canary_count() {
    let mut world = World::with_a_fresh_release();
    let mut rolled_back = 0;
    for minute in 0..15 {
        let fires = critical("v2").named(&format!("Outbreak{minute}")).starting(world.now);
        rolled_back += usize::from(world.alert(fires.clone()) == "rolled_back alert");
        world.alert(fires.resolved());
        world.pass(seconds(30));
        if world.served() == "v1" {
            world.share("v2", TrafficShare::Percent(10), true);
            world.activate("v2", true);
        }
        world.pass(seconds(90));
    }
    assert!(rolled_back <= 1 + Policy::RETURNS, "{rolled_back} rollbacks in 30 minutes");
}

#[test]
fn returns_by_undo_count() {
    let mut world = World::with_a_fresh_release();
    let mut rolled_back = 0;
    for minute in 0..15 {
        let fires = critical("v2").named(&format!("Outbreak{minute}")).starting(world.now);
        rolled_back += usize::from(world.alert(fires.clone()) == "rolled_back alert");
        world.pass(seconds(30));
        if world.served() == "v1" {
            world.choose(Choice::Undo);
        }
        world.alert(fires.resolved());
        world.pass(seconds(90));
    }
    assert!(rolled_back <= 1 + Policy::RETURNS, "{rolled_back} rollbacks in 30 minutes");
}
