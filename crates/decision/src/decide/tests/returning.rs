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

/// A controller gives a rolled-back version the same share again and again.
#[test]
fn returns_as_a_canary_count() {
    let mut world = World::with_a_fresh_release();
    let (mut rolled_back, mut held) = (0, 0);
    for minute in 0..15 {
        let fires = critical("v2").named(&format!("Outbreak{minute}")).starting(world.now);
        let said = world.alert(fires.clone());
        rolled_back += usize::from(said == "rolled_back alert");
        held += usize::from(said == "held keeps_returning");
        world.alert(fires.resolved());
        world.pass(seconds(30));
        if world.state.running_canary().is_none() {
            world.share("v2", TrafficShare::Percent(10), true);
        }
        world.pass(seconds(30));
    }
    assert_eq!((rolled_back, held), (Policy::RETURNS, 15 - Policy::RETURNS));
    assert_eq!(world.incidents.len(), 1 + Policy::RETURNS, "one of them asks");
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
