//! A version that people moved away from is no automatic target, and an alert on one target does not prevent a rollback
//! to another.

use super::*;

fn says(world: &mut World, verdict: Verdict, text: &str) {
    world.says = Some(Finding::new(verdict, text));
}

/// v0 and v1 are known-good, v1 serves.
fn two_good() -> World {
    let mut world = World::new();
    world.mark_known_good("v0");
    world.release("v0");
    world.pass(minutes(1));
    world.release("v1");
    world.pass(hours(2));
    world
}

/// v2 has replaced v1 and soaked too.
fn three_good() -> World {
    let mut world = two_good();
    world.release("v2");
    world.pass(hours(2));
    world
}

fn fled(world: &World, version: &str) -> bool {
    world.state.version(&v(version)).expect("a version").fled.is_some()
}

fn served_metrics(world: &mut World) -> Vec<(String, Option<String>)> {
    world.alert(medium("v1").named("AnyNews"));
    let commit = world.happens(&Event::Register(world::registration("any"))).commit.expect("a commit");
    commit.served.iter().map(|s| (s.version.to_string(), s.previous.as_ref().map(ToString::to_string))).collect()
}

#[test]
fn a_version_replaced_during_its_incident_is_no_target() {
    type Way = (&'static str, fn(&mut World));
    let ways: [Way; 6] = [
        ("a hotfix is activated", |world| world.release("v3")),
        ("the key is SET manually", |world| {
            world.set_active("v3");
            world.look();
        }),
        ("the key is deleted", |world| {
            world.active = Active::Absent;
            world.look();
            world.set_active("v3");
            world.look();
        }),
        ("the key holds no version", |world| {
            world.active = Active::Foreign("{oops}".to_owned());
            world.look();
            world.set_active("v3");
            world.look();
        }),
        ("a canary is given all traffic", |world| {
            world.register("v3");
            world.share("v3", TrafficShare::Percent(10), false);
            world.activate("v3", false);
        }),
        ("it is SET aside while a canary runs", |world| {
            world.register("v4");
            world.share("v4", TrafficShare::Percent(10), false);
            world.set_active("v3");
            world.look();
        }),
    ];
    let alerts: [fn(&str) -> Alert; 3] = [medium, high, critical];
    for (way, leave) in ways {
        for alert in alerts {
            let mut world = three_good();
            world.policy.dry_run = true; // so that a critical stays undecided
            world.alert(alert("v2"));
            let incident = world.latest().id.clone();
            leave(&mut world);
            world.policy.dry_run = false;
            let record = world.state.version(&v("v2")).expect("v2").clone();
            assert_eq!(record.fled.as_ref().map(|fled| &fled.incident), Some(&incident), "{way}");
            assert!(!world.is_known_good("v2"), "{way}");
            world.alert(alert("v2").resolved()); // because it has no traffic
            world.pass(minutes(5));
            assert_eq!(world.alert(critical("v3")), "rolled_back alert", "{way}");
            assert_eq!(world.served(), "v1", "{way}: not back to v2");
        }
    }
}

#[test]
fn a_canary_stopped_during_its_incident_is_no_target() {
    let mut world = three_good();
    world.register("v3");
    world.share("v3", TrafficShare::Percent(60), false);
    world.pass(hours(2));
    assert!(world.is_known_good("v3"));
    world.alert(medium("v3"));
    world.share("v3", TrafficShare::Percent(0), false);
    assert_eq!((fled(&world, "v3"), world.is_known_good("v3")), (true, false));
    assert_eq!((fled(&world, "v2"), world.is_known_good("v2")), (false, true));
}

#[test]
fn whoever_is_not_fled_from_keeps_its_trust() {
    // replaced without a problem, replaced after the incident was decided, and replaced while a rollback to it is being
    // verified
    let mut world = three_good();
    world.release("v3");
    assert!(world.is_known_good("v2") && !fled(&world, "v2"));

    let mut world = three_good();
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    world.release("v3");
    assert!(world.is_known_good("v2") && !fled(&world, "v2"), "a person said that it is fine");

    let mut world = three_good();
    world.policy.verify = true;
    world.release("v3");
    assert_eq!(world.alert(critical("v3")), "rolled_back alert");
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::Verifying));
    world.release("v4");
    assert!(world.is_known_good("v2") && !fled(&world, "v2"), "nothing contradicts v2");
}

#[test]
fn a_target_that_did_not_help_and_is_replaced_was_fled_from() {
    let mut world = three_good();
    world.policy.verify = true;
    world.release("v3");
    world.says = Some(Finding::new(Verdict::Unhealthy, "9 % fail"));
    world.alert(critical("v3"));
    world.pass(minutes(10));
    assert_eq!(world.phase(), PhaseKind::Escalated);
    world.release("v4");
    assert!(fled(&world, "v2") && !world.is_known_good("v2"));
}

#[test]
fn a_failing_gradual_target_that_is_undone_is_no_target() {
    for fails in [false, true] {
        let mut world = three_good();
        let plan = Some(Policy::default().gradual);
        world.release("v3");
        assert!(matches!(world.roll_back(Rollback { gradual: plan, ..world::rollback() }), Answer::Shared { .. }));
        world.pass(minutes(1));
        if fails {
            assert_eq!(world.alert(critical("v2")), "incident_updated target_unhealthy");
        }
        assert!(matches!(world.choose(Choice::Undo), Answer::Changed { .. }));
        assert_eq!((world.served(), fled(&world, "v2"), world.is_known_good("v2")), ("v3", fails, !fails));
    }
}

#[test]
fn a_person_may_go_back_to_it_with_force_and_hears_why_it_needs_that() {
    let mut world = three_good();
    world.alert(high("v2"));
    let incident = world.latest().id.clone();
    world.release("v3");
    world.pass(minutes(7));
    world.alert(high("v2").resolved());
    let back = |force| Rollback { target: Some(v("v2")), force, ..world::rollback() };
    match world.roll_back(back(false)) {
        Answer::Refused(refusal) => {
            assert_eq!(refusal.code, RefusalCode::NeedsForce);
            let said = format!("v2 lost its traffic 7 min ago while incident {incident} was open");
            assert!(refusal.message.starts_with(&said), "{}", refusal.message);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(world.roll_back(back(true)), Answer::Changed { .. }));
    assert_eq!((world.served(), fled(&world, "v2")), ("v2", true), "until it has soaked again");
    world.pass(hours(1));
    assert!(world.is_known_good("v2") && !fled(&world, "v2"));
    let told = world.log.iter().rfind(|entry| entry.event == LogEvent::Soaked).expect("an entry").reason.clone();
    assert!(
        told.ends_with(&format!(
            "; it can be a rollback target again, although its traffic was moved away while incident {incident}"
        )),
        "{told}"
    );
}

#[test]
fn a_mark_makes_it_a_target_again() {
    let mut world = three_good();
    world.alert(high("v2"));
    world.release("v3");
    world.alert(high("v2").resolved());
    world.mark_known_good("v2");
    assert!(!fled(&world, "v2"));
    assert_eq!(world.alert(critical("v3")), "rolled_back alert");
    assert_eq!(world.served(), "v2");
}

#[test]
fn undo_restores_no_trust_that_was_lost_since() {
    let mut world = three_good();
    world.alert(critical("v2"));
    let rollback = world.latest().id.clone();
    world.set_active("v2");
    world.look();
    world.alert(high("v2"));
    world.set_active("v1");
    world.look();
    assert!(fled(&world, "v2"));
    let undo = Decide {
        incident: rollback,
        choice: Choice::Undo,
        operator: Operator::recorded("dana"),
        target: None,
        force: false,
        question_number: None,
    };
    world.happens(&Event::Decide(undo));
    assert!(!world.is_known_good("v2"));
}

#[test]
fn a_critical_skips_a_target_on_which_an_alert_fires() {
    for alert in [medium("v1"), high("v1"), critical("v1")] {
        let mut world = two_good();
        world.release("v2");
        let name = alert.alertname.clone();
        assert_eq!(world.alert(alert), "ignored not_active");
        assert_eq!(world.alert(critical("v2")), "rolled_back alert", "{name}");
        assert_eq!(world.served(), "v0");
        let said = format!("{name} fires on v1: v0 is the rollback target instead");
        assert!(world.latest().notes.iter().any(|note| note.text == said), "{:?}", world.latest().notes);
    }
}

#[test]
fn where_alerts_fire_on_all_targets_it_is_held_with_the_newest_one_named() {
    let mut world = two_good();
    world.release("v2");
    world.deliver(&[medium("v0"), medium("v1")]);
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    let incident = world.latest();
    assert_eq!(incident.target, Some(v("v1")));
    assert!(incident.held.as_ref().expect("held").detail.contains("fires on v1 too"));
    assert_eq!(incident.notes.iter().filter(|note| note.text.contains("instead")).count(), 0);
}

#[test]
fn question_metrics_and_manual_rollback_name_one_target() {
    let mut world = two_good();
    world.release("v2");
    world.alert(high("v1"));
    world.alert(high("v2"));
    assert_eq!(world.latest().target, Some(v("v0")));
    assert_eq!(world.latest().choices, [v("v0"), v("v1")], "v1 may still be chosen");
    assert_eq!(served_metrics(&mut world), [("v2".to_owned(), Some("v0".to_owned()))]);
    assert_eq!(world.state.target(Some(&v("v2")), &world.policy, world.now), Some(&v("v0")));
    let mut other = world.clone();
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { to, .. } if to == v("v0")));
    assert!(matches!(other.roll_back(world::rollback()), Answer::Changed { to, .. } if to == v("v0")));
}

#[test]
fn an_open_question_follows_the_alerts_on_its_targets() {
    let mut world = two_good();
    world.release("v2");
    world.alert(high("v2"));
    let ask = world.latest().question_number;
    assert_eq!(world.latest().target, Some(v("v1")));
    world.alert(medium("v1"));
    assert_eq!((world.latest().target.clone(), world.latest().question_number), (Some(v("v0")), ask + 1));
    assert!(!world.would_write(&[medium("v1")]), "a repeat says nothing new");
    world.alert(medium("v1").resolved());
    assert_eq!((world.latest().target.clone(), world.latest().question_number), (Some(v("v1")), ask + 2));
    assert_eq!(world.latest().notes.last().expect("a note").text, "v1 is the rollback target now");
}

/// What was measured as bad is no target.
#[test]
fn a_target_measured_as_bad_and_replaced_is_no_target() {
    let mut world = World::new();
    world.mark_known_good("v0");
    world.release("v1");
    world.pass(hours(2));
    world.release("v2");
    world.policy.verify = true;
    says(&mut world, Verdict::Unhealthy, "9 % fail");
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    world.pass(minutes(4));
    assert_eq!((world.served(), world.phase()), ("v1", PhaseKind::Verifying));
    world.release("v3");
    world.pass(minutes(1));
    world.alert(critical("v3"));
    assert_eq!(world.served(), "v0", "v1 was measured to fail");
}

#[test]
fn a_critical_skips_a_target_whose_dismissed_alert_fires_on() {
    let mut world = two_good();
    world.alert(high("v1"));
    world.choose(Choice::Dismiss);
    world.release("v2");
    assert_eq!(world.alert(high("v1")), "ignored dismissed");
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!(world.served(), "v0");
}

#[test]
fn a_critical_skips_a_target_that_was_undone_and_still_fires() {
    let mut world = three_good();
    world.alert(critical("v2"));
    world.choose(Choice::Undo);
    world.release("v3");
    assert_eq!(world.alert(critical("v3")), "rolled_back alert");
    assert_eq!(world.served(), "v1");
}

#[test]
fn a_failing_version_that_was_set_and_replaced_unseen_is_fled_from() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v1"));
    world.set_active("v1");
    world.activate("v2", true);
    assert_eq!((world.served(), fled(&world, "v1"), world.is_known_good("v1")), ("v2", true, false));
}
