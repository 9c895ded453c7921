//! Verification of rollbacks.

use super::*;

/// v2 was rolled back to v1 a moment ago.
fn rolled_back() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    world
}

fn says(world: &mut World, verdict: Verdict) {
    world.says = Some(Finding::new(verdict, format!("it is {}", verdict.as_str())));
}

/// Two instances follow; `still` and `unknown` do not.
fn traffic(bad_last_seen: Option<Timestamp>, still: &[&str], unknown: &[&str]) -> Option<Traffic> {
    let named = |names: &[&str]| Instances::of(names.iter().map(|name| (*name).to_owned()).collect());
    let (still, unknown) = (named(still), named(unknown));
    Some(Traffic { target: 75, bad: 25, bad_last_seen, following: 2, still, unknown, ..Traffic::default() })
}

#[test]
fn two_healthy_checks_in_a_row_are_a_recovery() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.pass(seconds(5));
    assert_eq!(world.phase(), PhaseKind::Verifying, "one is not enough");
    world.pass(seconds(5));
    assert_eq!(world.phase(), PhaseKind::Recovered);
    assert!(world.latest().notes.last().is_some_and(|note| note.text.contains("10 s after the switch: it is healthy")));
    // the alert keeps firing for the length of its window; its end is received
    assert_eq!(world.alert(critical("v2")), "ignored not_active");
    assert_eq!(world.alert(critical("v2").resolved()), "resolved resolved");
    assert_eq!(world.phase(), PhaseKind::Recovered);
}

#[test]
fn recovery_dates_from_the_first_healthy_check_in_a_row() {
    let mut world = rolled_back();
    let switched = world.now;
    let well = |world: &World| world.latest().verification().and_then(Verification::well_since);
    for verdict in [Verdict::Healthy, Verdict::Unhealthy, Verdict::Healthy] {
        says(&mut world, verdict);
        world.pass(seconds(5));
    }
    assert_eq!(well(&world), Some(switched.plus(seconds(15))), "the first one did not last");
    world.traffic = traffic(Some(switched.plus(seconds(17))), &[], &[]);
    world.pass(seconds(15));
    assert_eq!(world.phase(), PhaseKind::Recovered);
    assert_eq!(well(&world), Some(switched.plus(seconds(17))));
}

#[test]
fn a_relapse_counts_from_the_start() {
    let mut world = rolled_back();
    for verdict in [Verdict::Healthy, Verdict::Unhealthy, Verdict::Healthy, Verdict::NoData, Verdict::Healthy] {
        says(&mut world, verdict);
        world.pass(seconds(5));
    }
    assert_eq!(world.phase(), PhaseKind::Verifying);
}

#[test]
fn a_receiver_without_prometheus_delays_no_recovery() {
    let mut world = rolled_back();
    for verdict in [Verdict::Healthy, Verdict::Unknown, Verdict::Unknown, Verdict::Healthy] {
        assert_eq!(world.phase(), PhaseKind::Verifying);
        says(&mut world, verdict);
        world.pass(seconds(5));
    }
    assert_eq!(world.phase(), PhaseKind::Recovered);
}

#[test]
fn checks_become_rare_after_the_first_dozen() {
    let mut world = rolled_back();
    world.pass(seconds(60));
    let checks = |world: &World| world.latest().verification().map(|v| v.checks);
    assert_eq!(checks(&world), Some(12));
    world.pass(seconds(59));
    assert_eq!(checks(&world), Some(13));
}

#[test]
fn what_is_not_proved_healthy_by_the_deadline_is_a_critical_incident() {
    let mut world = World::new();
    for version in ["v0", "v1"] {
        world.release(version);
        world.pass(hours(2));
    }
    world.release("v2");
    world.policy.verify = true;
    world.alert(Alert { trigger: critical("v2").trigger, ..critical("v2") });
    let contact = Some("@maya".to_owned());
    world.state.versions.iter_mut().filter(|r| r.version == v("v2")).for_each(|r| r.contact = contact.clone());
    says(&mut world, Verdict::Unhealthy);
    world.pass(minutes(5));
    let incident = world.latest();
    assert_eq!((incident.phase.kind(), incident.severity), (PhaseKind::Escalated, Severity::Critical));
    assert!(incident.pages());
    assert_eq!(incident.choices, [v("v0")], "neither the bad one nor the one that did not help");
    let said = &incident.notes.last().expect("a note").text;
    assert!(said.contains("it is unhealthy") && said.contains("@maya"), "{said}");
    // a person goes further back, without asking Prometheus again
    world.policy.confirm = true;
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!((world.served(), world.phase()), ("v0", PhaseKind::Verifying));
}

#[test]
fn too_little_traffic_is_checked_for_an_hour_without_a_page() {
    for verdict in [Verdict::NoData, Verdict::Unknown] {
        let mut world = rolled_back();
        says(&mut world, verdict);
        world.pass(minutes(59));
        assert_eq!(world.phase(), PhaseKind::Verifying);
        assert!(!world.latest().paged && !world.latest().pages());
        assert!(said(&world, "not verified 5 min after the switch: it is "), "{:?}", world.latest().notes);
        world.pass(minutes(1));
        assert_eq!(world.phase(), PhaseKind::Unverified);
        assert!(world.wakes.is_empty(), "one page, and that was it");
    }
}

#[test]
fn late_evidence_recovers_or_escalates_at_once() {
    for (verdict, phase) in [(Verdict::Healthy, PhaseKind::Recovered), (Verdict::Unhealthy, PhaseKind::Escalated)] {
        let mut world = rolled_back();
        says(&mut world, Verdict::NoData);
        world.pass(minutes(20));
        says(&mut world, verdict);
        world.pass(minutes(2));
        assert_eq!(world.phase(), phase);
    }
}

#[test]
fn one_healthy_check_is_neither_recovery_nor_failure() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.pass(seconds(5));
    says(&mut world, Verdict::Unknown);
    world.pass(minutes(55));
    assert_eq!(world.phase(), PhaseKind::Verifying);
    assert!(!world.latest().pages());
    world.pass(minutes(5));
    assert_eq!(world.phase(), PhaseKind::Unverified);
}

#[test]
fn measured_harm_escalates_without_newer_figures() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Unhealthy);
    world.pass(seconds(5));
    says(&mut world, Verdict::NoData);
    world.pass(minutes(5));
    assert_eq!((world.phase(), world.latest().failure()), (PhaseKind::Escalated, Some(RollbackFailure::NotRecovered)));
}

#[test]
fn a_dead_worker_does_not_hold_up_the_end() {
    let mut world = rolled_back();
    world.says = None;
    world.pass(minutes(60));
    assert_eq!(world.phase(), PhaseKind::Unverified);
}

#[test]
fn recovery_waits_until_each_instance_is_known_to_follow() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.traffic = traffic(Some(world.now), &[], &["pod-7"]);
    world.pass(minutes(30));
    assert_eq!(world.phase(), PhaseKind::Verifying);
    assert!(said(&world, "2 of 3 instances follow, unknown: pod-7"), "{:?}", world.latest().notes);
    assert!(!world.latest().pages());
    let last_seen = world.latest().switch.as_ref().expect("a switch").at.plus(seconds(20));
    world.traffic = traffic(Some(last_seen), &[], &[]);
    world.pass(seconds(30));
    assert_eq!(world.phase(), PhaseKind::Recovered);
    assert!(
        said(&world, "2 of 2 instances follow; v2 was last seen 20 s after the switch"),
        "{:?}",
        world.latest().notes
    );
}

#[test]
fn without_counters_nothing_is_recovered() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.traffic = None;
    world.pass(minutes(60));
    assert_eq!(world.phase(), PhaseKind::Unverified);
}

#[test]
fn servers_that_do_not_follow_are_named_and_paged() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.traffic = traffic(Some(world.now), &["pod-3", "pod-7"], &[]);
    world.pass(seconds(290));
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, false));
    world.pass(seconds(10));
    assert_eq!((world.phase(), world.latest().failure()), (PhaseKind::Escalated, Some(RollbackFailure::NotFollowed)));
    assert!(world.latest().pages());
    let named = world.latest().notes.iter().filter(|note| note.text.contains("pod-3, pod-7")).count();
    assert_eq!(named, 2, "as a warning, and with the page");
    // the checks continue, however long
    world.pass(hours(3));
    assert!(world.latest().pages());
    world.traffic = traffic(Some(world.now), &[], &[]);
    world.pass(seconds(30));
    assert_eq!(world.phase(), PhaseKind::Recovered);
    assert!(!world.latest().pages());
}

#[test]
fn once_all_servers_follow_the_target_has_five_minutes() {
    let mut world = rolled_back();
    says(&mut world, Verdict::NoData);
    world.traffic = traffic(Some(world.now), &["pod-3"], &[]);
    world.pass(minutes(10));
    world.traffic = traffic(Some(world.now), &[], &[]);
    world.pass(seconds(60));
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, false));
    assert!(said(&world, "no instance serves v2 any more"));
    says(&mut world, Verdict::Healthy);
    world.pass(minutes(2));
    assert_eq!(world.phase(), PhaseKind::Recovered);
}

#[test]
fn servers_that_follow_late_leave_the_target_its_full_time() {
    let mut world = rolled_back();
    says(&mut world, Verdict::NoData);
    world.pass(minutes(20));
    world.traffic = traffic(Some(world.now), &["pod-3"], &[]);
    world.pass(seconds(30));
    assert_eq!((world.latest().failure(), world.latest().pages()), (Some(RollbackFailure::NotFollowed), true));
    world.traffic = traffic(None, &[], &[]);
    world.pass(seconds(60));
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, false));
    let mut again = world.clone();
    again.traffic = traffic(Some(again.now), &["pod-3"], &[]);
    again.pass(seconds(60));
    assert_eq!(again.latest().failure(), Some(RollbackFailure::NotFollowed), "its deadline has passed long ago");
    world.pass(minutes(59));
    assert_eq!(world.phase(), PhaseKind::Verifying);
    assert!(!world.latest().pages());
    world.pass(minutes(1));
    assert_eq!(world.phase(), PhaseKind::Unverified, "an hour after the last server followed");
}

#[test]
fn an_answer_counts_once() {
    let mut world = rolled_back();
    let incident = world.latest().clone();
    let check = Checked {
        incident: incident.id.clone(),
        switched_at: incident.switch.as_ref().expect("a switch").at,
        number: 0,
        finding: Finding::new(Verdict::Healthy, "fine"),
        traffic: world.traffic.clone(),
        blame: None,
    };
    for _ in 0..3 {
        world.happens(&Event::Checked(check.clone()));
    }
    assert_eq!(world.latest().verification().map(|v| (v.checks, v.healthy)), Some((1, 1)));
    assert_eq!(world.phase(), PhaseKind::Verifying);
}

fn said(world: &World, text: &str) -> bool {
    world.latest().notes.iter().any(|note| note.text.contains(text))
}

#[test]
fn a_target_that_fails_too_is_said_once() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Unhealthy);
    world.blame = Some("v1 fails too: this looks like the provider".to_owned());
    world.pass(seconds(20));
    let said = world.latest().notes.iter().filter(|note| note.text.contains("the provider")).count();
    assert_eq!(said, 1);
}

#[test]
fn a_check_of_an_earlier_switch_counts_for_nothing() {
    let mut world = rolled_back();
    let stale = Checked {
        incident: world.latest().id.clone(),
        switched_at: Timestamp(1),
        number: 0,
        finding: Finding::new(Verdict::Healthy, ""),
        traffic: None,
        blame: None,
    };
    assert_eq!(world.happens(&Event::Checked(stale)).commit, None);
}

#[test]
fn another_version_is_checked_instead() {
    let mut world = rolled_back();
    world.pass(seconds(7));
    world.set_active("v3");
    world.look();
    assert_eq!((world.phase(), world.latest().subject().as_str()), (PhaseKind::Verifying, "v3"));
    world.says = Some(Finding::new(Verdict::Healthy, "error ratio 0.20 %"));
    world.pass(minutes(1));
    assert_eq!(world.phase(), PhaseKind::Recovered);
}

#[test]
fn a_check_that_knows_nothing_itself_is_no_recovery() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.traffic = traffic(None, &[], &["pod-7"]);
    world.pass(seconds(10));
    // it was healthy twice, and now every server follows, but whether it is healthy now is unknown
    says(&mut world, Verdict::Unknown);
    world.traffic = traffic(None, &[], &[]);
    world.pass(minutes(20));
    assert_eq!(world.phase(), PhaseKind::Verifying);
    // it is healthy, and every server followed earlier, but whether they do now is unknown
    says(&mut world, Verdict::Healthy);
    world.traffic = None;
    world.pass(minutes(2));
    assert_eq!(world.phase(), PhaseKind::Verifying);
    world.traffic = traffic(None, &[], &[]);
    world.pass(seconds(30));
    assert_eq!(world.phase(), PhaseKind::Recovered);
}

#[test]
fn the_end_of_a_targets_alert_makes_no_old_measurement_a_recovery() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.alert(high("v1"));
    world.pass(seconds(20));
    says(&mut world, Verdict::Unknown);
    world.traffic = None;
    world.pass(minutes(2));
    world.alert(high("v1").resolved());
    world.pass(minutes(1));
    let rolled_back = world.state.incidents.iter().find(|incident| incident.version == v("v2"));
    assert!(rolled_back.is_some_and(|incident| incident.phase.kind() == PhaseKind::Verifying), "{rolled_back:?}");
}

#[test]
fn missing_data_ends_a_run_of_healthy_checks() {
    let both = |one, other| Finding::all(vec![Finding::new(one, "errors"), Finding::new(other, "quality")]).verdict;
    for (one, other, all) in [
        (Verdict::Unknown, Verdict::NoData, Verdict::NoData),
        (Verdict::Unknown, Verdict::Unhealthy, Verdict::Unhealthy),
        (Verdict::NoData, Verdict::Unhealthy, Verdict::Unhealthy),
        (Verdict::Healthy, Verdict::Unknown, Verdict::Unknown),
        (Verdict::Healthy, Verdict::Healthy, Verdict::Healthy),
    ] {
        assert_eq!((both(one, other), both(other, one)), (all, all), "{one:?} and {other:?}");
    }
}

#[test]
fn only_two_checks_that_see_every_server_follow_end_the_page() {
    for nothing in [traffic(None, &[], &["pod-3"]), Some(Traffic::default()), None] {
        let mut world = rolled_back();
        says(&mut world, Verdict::NoData);
        world.traffic = traffic(Some(world.now), &["pod-3"], &[]);
        world.pass(minutes(10));
        assert_eq!(world.latest().failure(), Some(RollbackFailure::NotFollowed));
        world.traffic = nothing.clone();
        world.pass(minutes(5));
        assert!(world.latest().pages(), "{nothing:?}");
        for _ in 0..2 {
            world.traffic = traffic(None, &[], &[]);
            world.pass(seconds(30));
            assert!(world.latest().pages(), "one check is not enough");
            world.traffic = traffic(None, &[], &["pod-3"]);
            world.pass(seconds(30));
        }
        world.traffic = traffic(None, &[], &[]);
        world.pass(seconds(60));
        assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, false), "{nothing:?}");
    }
}

#[test]
fn the_page_ends_when_the_servers_that_did_not_follow_have_gone() {
    let mut world = rolled_back();
    says(&mut world, Verdict::NoData);
    world.traffic = traffic(Some(world.now), &["pod-3"], &[]);
    world.pass(minutes(10));
    assert!(world.latest().pages());
    // no server of the prompt is left, or only one that has served nothing yet
    world.traffic = Some(Traffic { bad: 500, ..Traffic::default() });
    world.pass(seconds(30));
    assert!(world.latest().pages(), "one check is not enough");
    world.pass(seconds(30));
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, false));
    says(&mut world, Verdict::Healthy);
    world.pass(minutes(3));
    assert_eq!(world.phase(), PhaseKind::Verifying, "that nothing serves is no recovery");
}

#[test]
fn servers_are_not_paged_for_by_what_an_earlier_check_saw() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.traffic = traffic(Some(world.now), &["pod-3"], &[]);
    world.pass(seconds(50));
    let seen = world.latest().verification().and_then(|v| v.traffic_at).expect("a measurement");
    says(&mut world, Verdict::Unknown);
    world.traffic = None;
    world.pass(minutes(5));
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, false));
    let text = format!("2 of 3 instances follow, not: pod-3 (measured at {})", seen.time_of_day());
    assert!(said(&world, &text), "{:?}", world.latest().notes);
    // once it is measured again, it pages
    says(&mut world, Verdict::Healthy);
    world.traffic = traffic(Some(world.now), &["pod-3"], &[]);
    world.pass(seconds(30));
    assert_eq!(world.latest().failure(), Some(RollbackFailure::NotFollowed));
}
