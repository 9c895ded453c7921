//! The requirements of a soak, and how people learn of its end.

use super::*;

/// v1 is known-good; v2 went live just now, and there is a Prometheus.
fn released() -> World {
    let mut world = World::new();
    world.mark_known_good("v1");
    world.activate("v1", false);
    world.policy.verify = true;
    world.release("v2");
    world
}

fn measured(requests: u64, failed: u64) -> Result<SoakMeasurement, String> {
    Ok(SoakMeasurement { requests, failed, exceeded: None })
}

fn by(world: &World, version: &str) -> Option<Earned> {
    world.state.version(&v(version)).expect("a version").known_good.map(|good| good.by)
}

/// Log entries about versions that have soaked.
fn told(world: &World) -> Vec<String> {
    let soaked = world.log.iter().filter(|entry| entry.event == LogEvent::Soaked);
    soaked.map(|entry| format!("{}: {}", entry.to.as_deref().unwrap_or_default(), entry.reason)).collect()
}

/// What the soak of v2 is missing, as text for people.
fn wants(world: &World) -> String {
    let soak = world.state.version(&v("v2")).and_then(|record| record.soak.clone()).expect("a soak");
    soak.watch.and_then(|watch| watch.last).unwrap_or_default()
}

#[test]
fn evidence_makes_a_version_known_good_after_its_soak() {
    let mut world = released();
    world.measures = measured(20, 0);
    world.pass(hours(1) - seconds(1));
    assert_eq!(by(&world, "v2"), None);
    world.pass(seconds(1));
    assert_eq!(by(&world, "v2"), Some(Earned::Evidence));
    let expected = "v2: known-good: served for 1 h; Prometheus measured at least 20 requests, and no error threshold was exceeded while it measured";
    assert_eq!(told(&world), [expected]);
}

#[test]
fn without_traffic_a_soak_ends_by_time_only_at_the_limit() {
    let mut world = released();
    world.measures = measured(19, 0);
    world.pass(hours(24) - seconds(1));
    assert_eq!(by(&world, "v2"), None);
    assert_eq!(wants(&world), "19 of 20 requests measured");
    world.release("v3");
    assert_eq!(world.alert(critical("v3")), "rolled_back alert");
    assert_eq!(world.served(), "v1", "v2 is not known-good");

    let mut world = released();
    world.measures = measured(19, 0);
    world.pass(hours(24));
    assert_eq!(by(&world, "v2"), Some(Earned::Time));
    assert_eq!(told(&world), ["v2: known-good by time only: served for 1 d, and 19 of 20 requests measured"]);
    world.release("v3");
    assert_eq!(world.alert(critical("v3")), "rolled_back alert");
    assert_eq!(world.served(), "v2");
}

#[test]
fn evidence_that_comes_after_the_soak_is_taken_within_a_minute_at_first() {
    let mut world = released();
    world.measures = measured(3, 0);
    world.pass(minutes(62));
    world.measures = measured(25, 0);
    world.pass(minutes(1));
    assert_eq!(by(&world, "v2"), Some(Earned::Evidence));
}

#[test]
fn a_soak_waits_for_prometheus_up_to_the_limit() {
    let mut world = released();
    world.measures = Err("prometheus: no answer".to_owned());
    world.pass(hours(23));
    assert_eq!((by(&world, "v2"), wants(&world).as_str()), (None, "prometheus: no answer"));
    world.pass(hours(1));
    assert_eq!(by(&world, "v2"), Some(Earned::Time));
    assert_eq!(told(&world), ["v2: known-good by time only: served for 1 d, and prometheus: no answer"]);
}

#[test]
fn without_a_prometheus_time_alone_counts_and_that_is_said() {
    let mut world = released();
    world.policy.verify = false;
    world.pass(hours(1));
    assert_eq!(by(&world, "v2"), Some(Earned::Time));
    let expected = "v2: known-good by time only: served for 1 h, and no Prometheus is configured";
    assert_eq!(told(&world), [expected]);
}

#[test]
fn the_thresholds_are_those_of_the_rows_and_not_that_of_recovery() {
    for (failed, good) in [(15, true), (20, true), (21, false)] {
        let mut world = released();
        world.measures = measured(1_000, failed); // recovery requires less than 1 %
        world.pass(hours(1));
        assert_eq!(by(&world, "v2").is_some(), good, "{failed} of 1000");
    }
}

#[test]
fn too_many_failures_begin_the_soak_anew_and_never_count_by_time() {
    let mut world = released();
    world.measures = measured(10, 4); // a quiet night, in which no rule has enough requests
    world.pass(hours(48));
    assert_eq!((by(&world, "v2"), wants(&world).as_str()), (None, "soak restarted: 4 of 10 requests failed"));
    world.measures = measured(30, 0);
    world.pass(hours(1));
    assert_eq!(by(&world, "v2"), Some(Earned::Evidence), "within an hour of the last failure");
}

#[test]
fn a_threshold_that_was_exceeded_begins_the_soak_anew_from_that_moment() {
    let mut world = released();
    world.pass(hours(1) - seconds(1));
    world.measures = Ok(SoakMeasurement { requests: 900, failed: 9, exceeded: Some(minutes(20)) });
    world.pass(seconds(1));
    assert_eq!(
        (by(&world, "v2"), wants(&world).as_str()),
        (None, "soak restarted: an alert fired or an error threshold was exceeded 20 min ago")
    );
    world.measures = Ok(SoakMeasurement { requests: 900, failed: 9, exceeded: Some(hours(1)) }); // the same moment
    world.pass(minutes(41));
    assert_eq!(by(&world, "v2"), Some(Earned::Evidence));
}

#[test]
fn what_was_exceeded_before_the_soak_began_does_not_count() {
    let mut world = released();
    world.measures = Ok(SoakMeasurement { requests: 900, failed: 0, exceeded: Some(hours(1) + seconds(1)) });
    world.pass(hours(1));
    assert_eq!(by(&world, "v2"), Some(Earned::Evidence));
}

#[test]
fn an_answer_about_an_earlier_soak_says_nothing_of_the_present_one() {
    let mut world = released();
    let from = world.now;
    world.pass(minutes(30));
    world.alert(high("v2"));
    world.alert(high("v2").resolved());
    world.pass(minutes(2)); // the incident is resolved, and the soak restarted
    world.step_clock(3_600); // no worker has checked yet
    let look = |from| Event::Soak(SoakLook { version: v("v2"), from, measured: Some(measured(5_000, 0)) });
    assert_eq!(world.happens(&look(from)).commit, None);
    assert_eq!(by(&world, "v2"), None);
    let present = world.state.version(&v("v2")).and_then(|record| record.soak.as_ref()).expect("a soak").from;
    world.happens(&look(present));
    assert_eq!(by(&world, "v2"), Some(Earned::Evidence));
}

#[test]
fn a_soak_that_an_older_receiver_began_ends_by_time() {
    let mut world = released();
    let record = world.state.version_mut(&v("v2")).expect("v2");
    record.soak.as_mut().expect("a soak").watch = None;
    world.step_clock(3_600);
    assert!(world.is_known_good("v2"), "as it was before the upgrade");
    world.look();
    assert_eq!(by(&world, "v2"), Some(Earned::Time));
}

#[test]
fn a_soak_from_an_older_receiver_wants_evidence() {
    let mut world = released();
    world.pass(minutes(10));
    let record = world.state.version_mut(&v("v2")).expect("v2");
    record.soak.as_mut().expect("a soak").watch = None;
    world.look();
    world.measures = measured(0, 0);
    world.pass(hours(1));
    assert_eq!(by(&world, "v2"), None);
}

#[test]
fn a_version_set_while_no_receiver_ran_soaks_from_when_it_is_seen() {
    let mut world = released();
    world.policy.verify = false;
    world.set_active("v3");
    world.step_clock(5 * 3_600); // no worker checks
    world.look();
    world.pass(hours(1) - seconds(1));
    assert!(!world.is_known_good("v3"));
    world.pass(seconds(1));
    assert!(world.is_known_good("v3"));
    assert_eq!(told(&world).len(), 2, "and v2, which served until then as far as anybody knows: {:?}", told(&world));
}

#[test]
fn a_clock_that_goes_back_takes_less_than_five_minutes_from_a_soak() {
    for back in [1, 60, 40 * 60, 3_600, 365 * 86_400] {
        for passed in [0, 4, 31, 44] {
            let mut world = released();
            world.pass(minutes(passed) + seconds(10));
            world.step_clock(-back);
            world.pass(minutes(60 - passed) - seconds(11));
            assert_eq!(by(&world, "v2"), None, "{back} s after {passed} min: no sooner for it");
            world.pass(minutes(5) + Policy::CLOCK_STEP);
            assert_eq!(by(&world, "v2"), Some(Earned::Evidence), "{back} s after {passed} min");
        }
    }
}

#[test]
fn a_clock_that_goes_forward_brings_no_evidence() {
    let mut world = released();
    world.measures = measured(5, 0);
    world.step_clock(3_600);
    world.pass(hours(22));
    assert_eq!(by(&world, "v2"), None);
    world.measures = measured(20, 0);
    world.pass(minutes(10));
    assert_eq!(by(&world, "v2"), Some(Earned::Evidence));
}

#[test]
fn a_redeployed_version_soaks_out_of_its_quarantine() {
    for marked in [false, true] {
        let mut world = released();
        world.alert(critical("v2"));
        world.alert(critical("v2").resolved());
        if marked {
            world.mark_known_good("v2");
        }
        world.set_active("v2");
        world.look();
        assert!(world.is_quarantined("v2"));
        world.pass(hours(1));
        assert!(!world.is_quarantined("v2"), "marked: {marked}");
        assert_eq!(by(&world, "v2"), Some(if marked { Earned::Mark } else { Earned::Evidence }));
        assert!(told(&world)[0].ends_with("; it is no longer quarantined"), "{:?}", told(&world));
        world.release("v3");
        assert_eq!(world.alert(critical("v3")), "rolled_back alert");
        assert_eq!(world.served(), "v2", "a target like any other");
    }
}

#[test]
fn no_soak_while_the_rollback_has_not_helped() {
    let mut world = World::new();
    world.release("v1");
    world.register("v2");
    world.mark_known_good("v1");
    world.release("v2");
    world.policy.verify = true;
    world.state.version_mut(&v("v1")).expect("v1").known_good = None;
    let forced = Rollback { target: Some(v("v1")), force: true, ..world::rollback() };
    assert!(matches!(world.roll_back(forced), Answer::Changed { .. }));
    world.says = Some(Finding::new(Verdict::Unhealthy, "9 % fail"));
    world.pass(minutes(10));
    assert_eq!(world.phase(), PhaseKind::Escalated);
    world.pass(hours(30));
    assert_eq!(by(&world, "v1"), None);
    world.choose(Choice::Dismiss);
    world.pass(hours(1));
    assert_eq!(by(&world, "v1"), Some(Earned::Evidence));
}

#[test]
fn a_version_served_again_soaks_from_then_on() {
    let mut world = released();
    world.policy.verify = false;
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    world.activate("v1", false);
    world.pass(world.policy.alert_resolve_timeout + hours(1));
    world.activate("v2", false);
    assert!(!world.is_known_good("v2"), "it has served for a second");
    world.pass(hours(1));
    assert_eq!(by(&world, "v2"), Some(Earned::Time));
}

#[test]
fn a_soak_does_not_begin_before_the_incident_ends() {
    let mut world = released();
    world.policy.verify = false;
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    world.alert(medium("v2"));
    world.alert(medium("v2").resolved());
    world.step_clock(24 * 3_600); // no receiver ran
    world.pass(seconds(1));
    assert_eq!(world.phase(), PhaseKind::Resolved);
    assert!(!world.is_known_good("v2"), "its incident was open until now");
}

#[test]
fn a_soak_begins_when_the_dismissed_alert_is_forgotten() {
    let mut world = released();
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    world.pass(world.policy.alert_resolve_timeout + hours(1));
    assert_eq!(by(&world, "v2"), Some(Earned::Evidence));
}

#[test]
fn the_soak_of_a_base_is_suspended_while_its_canary_has_the_larger_share() {
    for percent in [40, 60] {
        let mut world = World::with_a_fresh_release();
        world.pass(minutes(20));
        world.register("v3");
        world.share("v3", TrafficShare::Percent(percent), false);
        world.pass(minutes(10));
        world.share("v3", TrafficShare::Percent(0), false);
        let lost = if percent > 50 { 10 } else { 0 };
        world.pass(minutes(19 + lost));
        assert!(!world.is_known_good("v2"), "{percent} %: 59 minutes with the larger share");
        world.pass(minutes(1));
        assert!(world.is_known_good("v2"), "{percent} %");
    }
}

#[test]
fn a_suspended_soak_ends_with_an_alert_on_the_base() {
    let mut world = World::with_a_fresh_release();
    world.pass(minutes(40));
    world.register("v3");
    world.share("v3", TrafficShare::Percent(60), false);
    world.alert(medium("v2"));
    world.alert(medium("v2").resolved());
    world.pass(minutes(2));
    world.share("v3", TrafficShare::Percent(0), false);
    world.pass(minutes(59));
    assert!(!world.is_known_good("v2"));
    world.pass(minutes(1));
    assert!(world.is_known_good("v2"));
}
