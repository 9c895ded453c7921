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

/// Since when the metrics call `version` active.
fn new_since(world: &World, version: &str) -> Option<Timestamp> {
    world.state.version(&v(version)).and_then(VersionRecord::new_since)
}

#[test]
fn a_version_shipped_again_after_a_rollback_of_it_is_new() {
    for by_ci in [false, true] {
        let mut world = World::with_a_fresh_release();
        let first = new_since(&world, "v2");
        world.alert(critical("v2"));
        world.alert(critical("v2").resolved());
        world.pass(hours(3));
        assert_eq!(new_since(&world, "v2"), first);
        let commit = if by_ci {
            world.set_active("v2");
            world.look().commit
        } else {
            let activation = Activation {
                version: v("v2"),
                share: TrafficShare::All,
                operator: Operator::recorded("dana"),
                force: true,
                reason: None,
            };
            world.happens(&Event::Activate(activation)).commit
        };
        let served = commit.expect("v2 is served").served;
        assert_eq!((world.served(), served[0].new_since), ("v2", world.now), "by CI: {by_ci}");
        assert_eq!(new_since(&world, "v2"), Some(world.now));
        world.pass(hours(2));
        world.release("v3");
        world.activate("v2", true);
        assert_eq!(new_since(&world, "v2"), Some(world.now.minus(hours(2))), "v3 was no rollback of v2");
    }
}

#[test]
fn neither_an_undo_nor_a_rollback_to_it_makes_a_version_new() {
    let mut undone = World::with_a_fresh_release();
    let first = new_since(&undone, "v2");
    undone.alert(critical("v2"));
    let mut forced = undone.clone();
    undone.choose(Choice::Undo);
    assert_eq!((undone.served(), new_since(&undone, "v2")), ("v2", first));
    forced.roll_back(Rollback { target: Some(v("v2")), force: true, ..world::rollback() });
    assert_eq!((forced.served(), new_since(&forced, "v2")), ("v2", first));
}

#[test]
fn an_undo_keeps_since_when_a_fix_is_new() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.alert(critical("v2").resolved());
    world.pass(hours(3));
    world.activate("v2", true);
    let shipped = world.now;
    world.pass(minutes(10));
    world.alert(critical("v2"));
    assert_eq!(world.served(), "v1");
    world.pass(minutes(1));
    world.choose(Choice::Undo);
    assert_eq!((world.served(), new_since(&world, "v2")), ("v2", Some(shipped)));
}
