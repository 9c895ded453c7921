//! After Redis' clock went back.

use super::*;

/// v3 was registered while Redis' clock was three days ahead.
fn registered_in_the_future() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.step_clock(3 * 24 * 3_600);
    world.register("v3");
    world.step_clock(-3 * 24 * 3_600);
    world
}

#[test]
fn after_a_clock_that_went_back_the_target_is_still_the_latest() {
    for verify in [false, true] {
        let mut world = World::new();
        world.policy.verify = verify;
        world.release("v0");
        world.pass(hours(2));
        assert!(world.is_known_good("v0"));
        world.step_clock(24 * 3_600);
        world.release("v1"); // v0 was last active tomorrow
        world.step_clock(-24 * 3_600);
        world.pass(hours(3));
        assert!(world.is_known_good("v1"));
        world.release("v2");
        world.pass(minutes(10));
        assert_eq!(world.alert(critical("v2")), "rolled_back alert");
        assert_eq!(world.served(), "v1", "not further back");
    }
}

#[test]
fn after_a_clock_that_went_back_an_early_alert_is_early() {
    let mut world = registered_in_the_future();
    world.alert(critical("v3").starting(world.now));
    world.pass(minutes(1));
    world.activate("v3", false);
    assert_eq!(world.served(), "v3", "{:?}", world.phase());
    assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::PredatesActivation));
    assert_eq!(world.alert(critical("v3").starting(world.now.minus(minutes(1)))), "duplicate duplicate");
    assert_eq!(world.served(), "v3");
}

#[test]
fn an_early_alert_delivered_after_a_step_back_is_held() {
    let mut world = registered_in_the_future();
    let began = world.now;
    world.pass(minutes(1));
    world.activate("v3", false);
    assert_eq!(world.alert(critical("v3").starting(began)), "held predates_activation");
}

#[test]
fn after_a_clock_that_went_back_a_canary_did_not_start_in_the_future() {
    let mut world = World::with_a_fresh_release();
    world.register("v3");
    world.share("v3", TrafficShare::Canary(Policy::default().canary.usual.plan), false);
    world.pass(minutes(5));
    world.step_clock(-3 * 3_600);
    world.look();
    let canary = world.state.running_canary().expect("a canary");
    // its versions are compared from then on
    assert!(canary.started <= canary.split.since && canary.split.since <= world.now, "{canary:?}");
}

#[test]
fn after_a_clock_that_went_back_a_promoted_canary_has_served_long() {
    let mut world = World::with_a_fresh_release();
    world.policy.ask_when_active_for_longer_than = Some(hours(12));
    world.register("v3");
    world.share("v3", TrafficShare::Canary(Policy::default().canary.usual.plan), false);
    world.set_active("v3");
    world.look(); // by hand, which ends the canary
    world.step_clock(-365 * 24 * 3_600);
    world.pass(hours(13));
    assert_eq!(world.alert(critical("v3")), "held served_long");
}
