//! Whether a rollback helped.

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

fn traffic(bad_last_seen: Option<Timestamp>, still: &[&str]) -> Option<Traffic> {
    let still = still.iter().map(|instance| (*instance).to_owned()).collect();
    Some(Traffic { target: 75, bad: 25, bad_last_seen, still })
}

#[test]
fn two_healthy_checks_in_a_row_are_a_recovery() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    world.pass(seconds(5));
    assert_eq!(world.phase(), PhaseKind::Verifying, "one is not enough");
    world.pass(seconds(5));
    assert_eq!(world.phase(), PhaseKind::Recovered);
    assert!(world.latest().notes.last().is_some_and(|note| note.text.contains("10 s after the flip: it is healthy")));
    // the alert fires on for as long as its window reaches back, and is known when it ends
    assert_eq!(world.alert(critical("v2")), "ignored not_active");
    assert_eq!(world.alert(critical("v2").resolved()), "resolved resolved");
    assert_eq!(world.phase(), PhaseKind::Recovered);
}

#[test]
fn users_were_served_well_from_the_first_healthy_check_in_a_row_unless_the_bad_version_was_seen_later() {
    let mut world = rolled_back();
    let flipped = world.now;
    let well = |world: &World| world.latest().verification().and_then(Verification::well_since);
    for verdict in [Verdict::Healthy, Verdict::Unhealthy, Verdict::Healthy] {
        says(&mut world, verdict);
        world.pass(seconds(5));
    }
    assert_eq!(well(&world), Some(flipped.plus(seconds(15))), "the first one did not last");
    world.traffic = traffic(Some(flipped.plus(seconds(17))), &[]);
    world.pass(seconds(15));
    assert_eq!(world.phase(), PhaseKind::Recovered);
    assert_eq!(well(&world), Some(flipped.plus(seconds(17))));
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
    // a person goes further back, without another question to Prometheus
    world.policy.confirm = true;
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!((world.served(), world.phase()), ("v0", PhaseKind::Verifying));
}

#[test]
fn without_any_data_nothing_is_called_recovered_or_failed() {
    for verdict in [Verdict::NoData, Verdict::Unknown] {
        let mut world = rolled_back();
        says(&mut world, verdict);
        world.pass(minutes(5));
        assert_eq!(world.phase(), PhaseKind::Unverified);
        assert!(world.wakes.is_empty(), "one page, and that was it");
    }
}

#[test]
fn a_dead_worker_does_not_hold_up_the_deadline() {
    let mut world = rolled_back();
    world.says = None;
    world.pass(minutes(5));
    assert_eq!(world.phase(), PhaseKind::Unverified);
}

#[test]
fn recovery_waits_until_the_bad_version_is_gone() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    for _ in 0..4 {
        world.traffic = traffic(Some(world.now), &[]);
        world.pass(seconds(5));
        assert_eq!(world.phase(), PhaseKind::Verifying, "served up to the last check");
    }
    let last_seen = world.now;
    world.traffic = traffic(Some(last_seen), &[]);
    world.pass(Policy::GONE);
    assert_eq!(world.phase(), PhaseKind::Recovered);
    let said = &world.latest().notes.last().expect("a note").text;
    assert!(said.contains("v2 was last seen 20 s after the flip"), "{said}");
}

#[test]
fn servers_that_do_not_follow_the_key_are_named_once_and_do_not_hold_up_recovery_for_ever() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Healthy);
    for _ in 0..12 {
        let since = world.now.since(world.latest().flip.as_ref().expect("a flip").at);
        world.traffic = traffic(Some(world.now), if since > Policy::PROPAGATED { &["pod-3", "pod-7"] } else { &[] });
        world.pass(seconds(5));
    }
    assert_eq!(world.phase(), PhaseKind::Recovered);
    let named = world.latest().notes.iter().filter(|note| note.text.contains("pod-3, pod-7")).count();
    assert_eq!(named, 2, "as a warning, and with the outcome");
    assert!(world.latest().verification().is_some_and(|v| v.stale));
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
fn a_check_of_an_earlier_flip_counts_for_nothing() {
    let mut world = rolled_back();
    let stale = Checked {
        incident: world.latest().id.clone(),
        flip: Timestamp(1),
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
