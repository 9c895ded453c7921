//! How a version earns to be a rollback's target, and loses it.

use super::*;

/// v1 went live just now.
fn released() -> World {
    let mut world = World::new();
    world.release("v1");
    world
}

#[test]
fn a_version_is_known_good_once_it_has_soaked_and_not_a_second_before() {
    let mut world = released();
    world.pass(hours(1) - seconds(1));
    assert!(!world.is_known_good("v1"));
    world.pass(seconds(1));
    assert!(world.is_known_good("v1"));
}

#[test]
fn a_version_replaced_before_it_soaked_is_no_target() {
    for (soaked, outcome) in [(minutes(59) + seconds(59), "held no_known_good"), (hours(1), "rolled_back alert")] {
        let mut world = released();
        world.pass(soaked);
        world.release("v2");
        world.pass(hours(10)); // out of service no clock runs
        assert_eq!(world.alert(critical("v2")), outcome);
    }
}

#[test]
fn the_soak_clock_starts_anew_when_a_version_is_served_again() {
    let mut world = released();
    world.pass(minutes(40));
    world.release("v2");
    world.pass(minutes(1));
    world.activate("v1", false);
    world.pass(minutes(59));
    assert!(!world.is_known_good("v1"), "40 + 59 minutes, but not in one piece");
    world.pass(minutes(1));
    assert!(world.is_known_good("v1"));
}

#[test]
fn an_incident_stops_the_clock() {
    let mut world = released();
    world.pass(minutes(30));
    world.alert(medium("v1"));
    world.pass(hours(5));
    assert!(world.phase().is_open());
    assert!(!world.is_known_good("v1"));
}

#[test]
fn an_incident_after_the_soak_takes_nothing_away() {
    let mut world = released();
    world.pass(hours(1));
    world.alert(high("v1"));
    assert!(world.is_known_good("v1"));
}

#[test]
fn a_resolved_or_dismissed_incident_restarts_the_clock() {
    for dismissed in [false, true] {
        let mut world = released();
        world.pass(minutes(50));
        world.alert(high("v1"));
        if dismissed {
            world.choose(Choice::Dismiss);
            assert_eq!(world.phase(), Phase::Dismissed);
        } else {
            world.alert(high("v1").resolved());
            world.pass(Policy::QUIET);
            assert_eq!(world.phase(), Phase::Resolved);
        }
        world.pass(hours(1) - seconds(1));
        assert!(!world.is_known_good("v1"), "dismissed: {dismissed}");
        world.pass(seconds(1));
        assert!(world.is_known_good("v1"), "dismissed: {dismissed}");
    }
}

#[test]
fn a_reopened_incident_stops_the_clock_again() {
    let mut world = released();
    world.alert(high("v1"));
    world.alert(high("v1").resolved());
    world.pass(minutes(30));
    assert_eq!(world.phase(), Phase::Resolved);
    assert_eq!(world.alert(high("v1")), "incident_updated reopened");
    world.pass(hours(3));
    assert!(!world.is_known_good("v1"));
}

#[test]
fn a_mark_makes_a_version_known_good_at_once() {
    let mut world = released();
    assert_eq!(world.mark_known_good("v1"), Answer::Registered { created: false, known_good: true });
    world.release("v2");
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    let marked = world.state.version(&v("v1")).unwrap().known_good.unwrap();
    assert!(marked.marked);
}

#[test]
fn the_target_is_the_most_recently_active_known_good_version() {
    let mut world = released();
    for version in ["v2", "v3"] {
        world.pass(hours(2));
        world.release(version);
    }
    world.pass(hours(2));
    world.activate("v1", false);
    world.pass(minutes(1));
    world.release("v4");
    assert_eq!(world.alert(critical("v4")), "rolled_back alert");
    assert_eq!(world.served(), "v1");
    world.pass(hours(1));
    assert_eq!(world.alert(critical("v1")), "rolled_back alert");
    assert_eq!(world.served(), "v3", "v4 is quarantined and was never good");
}

#[test]
fn a_version_marked_but_never_served_comes_after_all_that_were() {
    let mut world = released();
    world.pass(hours(2));
    world.mark_known_good("v1.5");
    world.release("v2");
    world.alert(critical("v2"));
    assert_eq!(world.served(), "v1");
}

#[test]
fn a_rolled_back_version_is_quarantined_even_if_it_was_known_good() {
    let mut world = released();
    world.pass(hours(2));
    world.release("v2");
    world.pass(hours(2));
    assert!(world.is_known_good("v2"));
    world.alert(critical("v2"));
    assert!(world.is_quarantined("v2"));
    world.pass(hours(1));
    assert_eq!(world.alert(critical("v1")), "held no_known_good", "never back to what was just rolled back");
    world.mark_known_good("v2");
    assert_eq!(world.alert(critical("v1")), "duplicate duplicate", "a mark does not lift the quarantine");
    assert_eq!(world.served(), "v1");
}

#[test]
fn only_a_forced_activation_lifts_the_quarantine_and_then_it_must_soak_again() {
    let mut world = World::with_a_fresh_release();
    world.pass(hours(1));
    assert!(world.is_known_good("v2"), "what it was before does not count");
    world.alert(critical("v2"));
    assert_eq!(world::refusal(&world.activate("v2", false)), RefusalCode::NeedsForce);
    assert_eq!(world.served(), "v1");
    assert!(matches!(world.activate("v2", true), Answer::Changed { unchanged: false, .. }));
    assert!(!world.is_quarantined("v2") && !world.is_known_good("v2"));
    world.pass(hours(1));
    assert!(world.is_known_good("v2"));
}

#[test]
fn a_quarantined_version_that_ci_sets_again_stays_quarantined_until_a_person_activates_it() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.set_active("v2");
    world.look();
    world.pass(hours(2));
    assert!(world.is_quarantined("v2"));
    assert_eq!(world::refusal(&world.activate("v2", false)), RefusalCode::NeedsForce);
    assert!(matches!(world.activate("v2", true), Answer::Changed { unchanged: true, .. }));
    assert!(!world.is_quarantined("v2"));
}
