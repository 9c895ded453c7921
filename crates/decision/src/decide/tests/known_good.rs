//! How a version becomes a rollback target, and stops being one.

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
        world.pass(hours(10)); // without traffic, no time counts
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
            assert_eq!(world.phase(), PhaseKind::Dismissed);
            world.pass(hours(2));
            assert!(!world.is_known_good("v1"), "the dismissed alert fires on");
            world.alert(high("v1").resolved());
        } else {
            world.alert(high("v1").resolved());
            world.pass(Policy::QUIET);
            assert_eq!(world.phase(), PhaseKind::Resolved);
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
    assert_eq!(world.phase(), PhaseKind::Resolved);
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
    assert_eq!(world.state.version(&v("v1")).unwrap().known_good.map(|good| good.by), Some(Earned::Mark));
}

#[test]
fn a_mark_counts_for_more_than_time_alone() {
    let mut world = released();
    world.pass(hours(1));
    let by = |world: &World| world.state.version(&v("v1")).unwrap().known_good.map(|good| good.by);
    assert_eq!(by(&world), Some(Earned::Time));
    world.mark_known_good("v1");
    assert_eq!(by(&world), Some(Earned::Mark));
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
    assert_eq!(
        world.alert(critical("v1")),
        "held no_known_good",
        "never back to the version that was just rolled back"
    );
    world.mark_known_good("v2");
    assert_eq!(world.alert(critical("v1")), "duplicate duplicate", "a mark does not lift the quarantine");
    assert_eq!(world.served(), "v1");
}

#[test]
fn only_force_lifts_a_quarantine_and_the_soak_restarts() {
    let mut world = World::with_a_fresh_release();
    world.pass(hours(1));
    assert!(world.is_known_good("v2"), "what it was before does not count");
    world.alert(critical("v2"));
    world.alert(critical("v2").resolved());
    assert_eq!(world::refusal(&world.activate("v2", false)), RefusalCode::NeedsForce);
    assert_eq!(world.served(), "v1");
    assert!(matches!(world.activate("v2", true), Answer::Changed { unchanged: false, .. }));
    assert!(!world.is_quarantined("v2") && !world.is_known_good("v2"));
    world.pass(hours(1));
    assert!(world.is_known_good("v2"));
}

#[test]
fn a_quarantined_version_set_by_ci_stays_quarantined() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.alert(critical("v2").resolved());
    world.set_active("v2");
    world.look();
    world.pass(hours(1) - seconds(1));
    assert!(world.is_quarantined("v2"));
    assert_eq!(world::refusal(&world.activate("v2", false)), RefusalCode::NeedsForce);
    assert!(matches!(world.activate("v2", true), Answer::Changed { unchanged: true, .. }));
    assert!(!world.is_quarantined("v2"));
}

/// v1 has soaked for this long, and is the base of v2's canary.
fn base_of_a_canary(soaked: Duration) -> World {
    let mut world = released();
    world.pass(soaked);
    world.register("v2");
    let canary = TrafficShare::Canary(Policy::default().canary.usual.plan);
    assert!(matches!(world.share("v2", canary, false), Answer::Shared { .. }));
    world.pass(minutes(5));
    world
}

fn each_end_of_a_canary() -> [fn(&mut World); 4] {
    [
        |world| drop(world.share("v2", TrafficShare::Percent(0), false)),
        |world| drop(world.activate("v1", false)),
        |world| drop(world.alert(high("v2"))),
        |world| {
            world.routing.clear();
            world.look();
        },
    ]
}

#[test]
fn the_end_of_a_canary_takes_nothing_from_its_base() {
    for (number, end) in each_end_of_a_canary().into_iter().enumerate() {
        let mut world = base_of_a_canary(hours(2));
        end(&mut world);
        assert_eq!(world.served(), "v1");
        assert!(world.is_known_good("v1"), "end {number}");

        let mut world = base_of_a_canary(minutes(50));
        end(&mut world);
        world.pass(minutes(5) - seconds(1));
        assert!(!world.is_known_good("v1"), "end {number}: a second too early");
        world.pass(seconds(1));
        assert!(world.is_known_good("v1"), "end {number}: the soak went on");
    }
}

#[test]
fn the_end_of_a_canary_starts_no_cooldown_for_its_base() {
    let mut world = base_of_a_canary(hours(2));
    world.mark_known_good("v0");
    assert_eq!(world.alert(high("v2")), "rolled_back alert");
    world.pass(minutes(5));
    assert_eq!(world.alert(critical("v1")), "rolled_back alert");
    assert_eq!(world.served(), "v0");
}

#[test]
fn undoing_a_gradual_rollback_takes_nothing_from_its_target() {
    let mut world = World::with_a_fresh_release();
    let plan = Some(Policy::default().gradual);
    assert!(matches!(world.roll_back(Rollback { gradual: plan, ..world::rollback() }), Answer::Shared { .. }));
    world.pass(minutes(5));
    assert!(matches!(world.choose(Choice::Undo), Answer::Changed { .. }));
    assert_eq!(world.served(), "v2");
    assert!(world.is_known_good("v1"));
}

#[test]
fn a_canary_with_the_smaller_share_does_not_soak() {
    let mut world = released();
    world.pass(hours(2));
    world.register("v2");
    assert!(matches!(world.share("v2", TrafficShare::Percent(1), false), Answer::Shared { .. }));
    world.alert(medium("v2"));
    world.alert(medium("v2").resolved());
    world.pass(hours(5));
    assert!(!world.is_known_good("v2"));
    assert!(matches!(world.share("v2", TrafficShare::Percent(60), false), Answer::Shared { .. }));
    world.pass(hours(1));
    assert!(world.is_known_good("v2"), "it serves most of the traffic now");
    assert!(world.is_known_good("v1"));
}

#[test]
fn a_forgotten_dismissed_alert_only_delays_the_soak() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    let (alert_resolve_timeout, soak) = (world.policy.alert_resolve_timeout, world.policy.soak);
    world.pass(alert_resolve_timeout + soak); // nothing happens meanwhile, so nothing is committed
    world.release("v3");
    assert!(world.is_known_good("v2"));
    assert_eq!(world.alert(critical("v3")), "rolled_back alert");
    assert_eq!(world.served(), "v2");

    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    world.pass(alert_resolve_timeout + soak - seconds(1));
    world.release("v3");
    assert!(!world.is_known_good("v2"), "a second too early");
}
