//! People's answers to an incident.

use super::world::refusal;
use super::*;

#[test]
fn approving_rolls_back() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { mode: Some(SwitchMode::Approved), .. }));
    let incident = world.latest();
    assert_eq!(
        (incident.phase.kind(), incident.decided_by.as_ref().map(Operator::as_str)),
        (PhaseKind::Verifying, Some("dana"))
    );
    assert_eq!(world.rollbacks(), ["v2>v1"]);
    assert_eq!(refusal(&world.choose(Choice::Approve)), RefusalCode::AlreadyDecided, "a second click");
    assert_eq!(world.rollbacks().len(), 1);
}

#[test]
fn approving_can_name_another_target_under_the_rules_of_any_rollback() {
    let mut world = World::with_a_fresh_release();
    world.register("staged");
    world.alert(high("v2"));
    let approve = |world: &mut World, target: &str, force| {
        let incident = world.latest().id.clone();
        let (choice, operator, target) = (Choice::Approve, Operator::recorded("dana"), Some(v(target)));
        world.happens(&Event::Decide(Decide { incident, choice, operator, target, force, question_number: None }))
    };
    for (target, force, code) in [
        ("v99", true, RefusalCode::UnknownVersion),
        ("staged", false, RefusalCode::NeedsForce),
        ("v2", true, RefusalCode::Moved),
    ] {
        let decision = approve(&mut world, target, force);
        assert_eq!((refusal(&decision.answer), decision.commit), (code, None), "{target}");
    }
    approve(&mut world, "staged", true);
    assert_eq!(world.served(), "staged");
}

#[test]
fn approving_without_a_known_good_version_is_refused() {
    let mut world = World::new();
    world.release("v1");
    world.alert(high("v1"));
    assert_eq!(refusal(&world.choose(Choice::Approve)), RefusalCode::NoKnownGood);
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
}

#[test]
fn a_click_on_an_overtaken_incident_is_refused() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.set_active("v3");
    assert_eq!(refusal(&world.choose(Choice::Approve)), RefusalCode::AlreadyDecided);
    assert_eq!((world.served(), world.phase()), ("v3", PhaseKind::Superseded));
    assert_eq!(world.log.last().map(|e| e.event), Some(LogEvent::External));
}

#[test]
fn an_unknown_incident_is_not_found() {
    let mut world = World::with_a_fresh_release();
    let incident = IncidentId("gone".to_owned());
    let click = Event::Decide(Decide {
        incident,
        choice: Choice::Undo,
        operator: Operator::recorded("dana"),
        target: None,
        force: true,
        question_number: None,
    });
    let decision = world.happens(&click);
    assert_eq!((refusal(&decision.answer), decision.commit), (RefusalCode::UnknownIncident, None));
}

#[test]
fn investigating_stops_the_deadline_and_is_asked_about_again() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.pass(minutes(4));
    assert_eq!(world.choose(Choice::Investigate), Answer::Decided(PhaseKind::Investigating));
    world.pass(minutes(5) - seconds(1));
    assert_eq!((world.phase(), world.latest().escalations), (PhaseKind::Investigating, 0));
    world.pass(seconds(1));
    assert_eq!((world.phase(), world.notes(NoteKind::Asked)), (PhaseKind::AwaitingDecision, 1));
    assert_eq!(world.latest().escalations, 0, "asked again, not escalated");
}

#[test]
fn whoever_investigates_answered_so_escalation_begins_anew() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.pass(hours(2));
    assert_eq!(world.latest().escalations, Policy::ESCALATIONS);
    world.choose(Choice::Investigate);
    world.pass(hours(2));
    assert_eq!(world.latest().escalations, Policy::ESCALATIONS);
    assert_eq!(world.notes(NoteKind::Escalated), 2 * Policy::ESCALATIONS as usize);
}

#[test]
fn a_dismissed_alert_is_silent_until_it_resolves() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    for _ in 0..3 {
        world.pass(minutes(5));
        assert_eq!(world.alert(high("v2")), "ignored dismissed");
        assert!(!world.would_write(&[high("v2")]));
    }
    assert_eq!(world.alert(high("v2").resolved()), "resolved resolved");
    assert_eq!(world.alert(high("v2")), "incident_opened page");
    assert_eq!(world.incidents.len(), 2, "a dismissed incident is not reopened");
}

#[test]
fn a_dismissal_silences_only_its_own_alerts() {
    let dismissed = || {
        let mut world = World::with_a_fresh_release();
        world.alert(high("v2"));
        world.choose(Choice::Dismiss);
        world
    };
    let worse = Alert { fingerprint: high("v2").fingerprint, ..critical("v2") };
    assert_eq!(dismissed().alert(worse), "rolled_back alert");
    assert_eq!(dismissed().alert(recommend("v2")), "incident_opened recommend");
    let mut world = dismissed();
    world.release("v3");
    let other = Alert { fingerprint: high("v2").fingerprint, ..high("v3") };
    assert_eq!(world.alert(other), "incident_opened page");
}

#[test]
fn dismissing_the_same_alert_once_worse_raises_what_is_silent() {
    let mut world = World::with_a_fresh_release();
    let worse = world::firing("ErrorRateHigh", "v2", Severity::Critical, Action::Page);
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    assert_eq!(world.alert(worse.clone()), "incident_opened page");
    world.choose(Choice::Dismiss);
    assert_eq!(world.alert(worse), "ignored dismissed");
    assert_eq!(world.state.silences.len(), 1);
}

#[test]
fn a_dismissal_does_not_silence_what_had_ended_already() {
    let mut world = World::with_a_fresh_release();
    world.deliver(&[high("v2"), recommend("v2")]);
    world.alert(recommend("v2").resolved());
    world.choose(Choice::Dismiss);
    assert_eq!(world.alert(recommend("v2")), "incident_opened recommend");
}

#[test]
fn a_dismissed_alert_that_stopped_without_a_word_is_heard_again_later() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.choose(Choice::Dismiss);
    for _ in 0..6 {
        world.pass(hours(4));
        assert_eq!(world.alert(high("v2")), "ignored dismissed", "it still repeats");
    }
    world.pass(world.policy.alert_resolve_timeout); // silenced in Alertmanager: a `resolved` never came
    assert_eq!(world.alert(high("v2")), "incident_opened page");
    assert!(world.state.silences.is_empty(), "and the dismissal is forgotten");
}

#[test]
fn dismissing_is_for_what_nobody_decided_yet() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    assert_eq!(refusal(&world.choose(Choice::Dismiss)), RefusalCode::AlreadyDecided);
    assert_eq!(refusal(&world.choose(Choice::Investigate)), RefusalCode::AlreadyDecided);
    assert_eq!(world.phase(), PhaseKind::Verifying);
}

#[test]
fn undoing_serves_the_version_again_and_trusts_it_as_before() {
    let mut world = World::with_a_fresh_release();
    world.pass(hours(1));
    assert!(world.is_known_good("v2"));
    world.alert(critical("v2"));
    world.pass(minutes(1));
    assert!(matches!(world.choose(Choice::Undo), Answer::Changed { unchanged: false, mode: None, .. }));
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::Dismissed));
    assert!(world.is_known_good("v2") && !world.is_quarantined("v2"));
    assert_eq!(world.log.last().map(|e| e.event), Some(LogEvent::Activate));
    assert_eq!(world.alert(critical("v2")), "ignored dismissed", "the alerts of that incident are silent");
    assert_eq!(world.alert(critical("v2").named("LatencyCritical")), "rolled_back alert", "others are not");
    assert_eq!(world.rollbacks(), ["v2>v1", "v2>v1"]);
}

#[test]
fn undo_does_not_make_an_unsoaked_version_good() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.choose(Choice::Undo);
    assert!(!world.is_known_good("v2"));
    world.pass(hours(2));
    assert!(!world.is_known_good("v2"), "its alert fires on");
    world.alert(critical("v2").resolved());
    world.pass(hours(1));
    assert!(world.is_known_good("v2"), "it soaks once nothing fires");
}

#[test]
fn undo_works_until_traffic_moves_on() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.pass(hours(3));
    assert_eq!(world.phase(), PhaseKind::Unverified);
    world.register("v4"); // any write: closed incidents leave the prompt's state
    assert!(world.state.incidents.is_empty());
    assert!(matches!(world.choose(Choice::Undo), Answer::Changed { .. }));
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::Dismissed));
    assert_eq!(refusal(&world.choose(Choice::Undo)), RefusalCode::AlreadyDecided, "once");

    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.pass(hours(3));
    world.release("v3");
    assert_eq!(refusal(&world.choose(Choice::Undo)), RefusalCode::Moved);
    assert_eq!(world.served(), "v3");
}

#[test]
fn an_undo_without_a_rollback_is_refused() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    assert_eq!(refusal(&world.choose(Choice::Undo)), RefusalCode::AlreadyDecided);
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::AwaitingDecision));
}

impl Alert {
    fn began_at(self, at: Timestamp) -> Self {
        Self { starts_at: Some(at), ..self }
    }
}

#[test]
fn an_outbreak_that_began_after_the_dismissal_is_heard() {
    let mut world = World::with_a_fresh_release();
    let began = world.now;
    world.alert(high("v2").began_at(began));
    world.choose(Choice::Dismiss);
    world.pass(minutes(3));
    // the second Alertmanager of a cluster sends another startsAt of the same outbreak
    assert_eq!(world.alert(high("v2").began_at(began.plus(seconds(2)).minus(seconds(2)))), "ignored dismissed");
    assert_eq!(world.alert(high("v2")), "ignored dismissed", "without startsAt");
    assert_eq!(world.alert(high("v2").began_at(Timestamp(-1))), "ignored dismissed", "0001-01-01");
    assert_eq!(world.alert(high("v2").began_at(world.now.plus(hours(1)))), "ignored dismissed", "in the future");
    world.pass(hours(2)); // its `resolved` was lost
    assert_eq!(world.alert(high("v2").began_at(world.now.minus(minutes(1)))), "incident_opened page");
}

#[test]
fn an_undo_silences_only_what_fires_on() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.pass(hours(1));
    assert!(!world.phase().is_open());
    assert_eq!(world.alert(critical("v2").resolved()), "resolved resolved");
    world.choose(Choice::Undo);
    assert_eq!(world.served(), "v2");
    world.pass(hours(3));
    assert_eq!(world.alert(critical("v2")), "rolled_back alert", "a new outbreak");
}

#[test]
fn servers_that_do_not_follow_are_no_reason_to_leave_the_healthy_target() {
    for choice in [Choice::Approve, Choice::ApproveGradual] {
        let mut world = World::with_a_fresh_release();
        world.policy.verify = true;
        world.mark_known_good("v0");
        world.says = Some(Finding::new(Verdict::Healthy, "error ratio 0.10 %"));
        let still = Instances::of(vec!["pod-3".to_owned()]);
        world.traffic = Some(Traffic { target: 2_000, following: 2, still, ..Traffic::default() });
        world.alert(critical("v2"));
        world.pass(minutes(6));
        assert_eq!(world.latest().failure(), Some(RollbackFailure::NotFollowed));
        let refused = world.choose(choice);
        assert!(
            matches!(&refused, Answer::Refused(refusal) if refusal.message.contains("POST /api/rollback")),
            "{refused:?}"
        );
        assert_eq!((world.served(), world.latest().pages()), ("v1", true), "pod-3 serves v2");
        assert!(world.is_known_good("v1"));
    }
}

#[test]
fn undo_activates_the_version_that_its_button_names_or_none() {
    let mut world = World::with_a_fresh_release();
    world.escalate();
    let Event::Decide(click) = world.click(Choice::Undo) else { panic!("a click") };
    let undo = Event::Decide(Decide { target: Some(v("v2")), ..click });
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }), "from v1 to v0");
    assert_eq!(refusal(&world.happens(&undo).answer), RefusalCode::Stale);
    assert_eq!(world.served(), "v0");
    assert!(matches!(world.choose(Choice::Undo), Answer::Changed { .. }));
    assert_eq!(world.served(), "v1");
}

#[test]
fn a_canary_in_between_is_named_as_a_change_of_the_traffic() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    let undo = world.click(Choice::Undo);
    world.register("v3");
    world.share("v3", TrafficShare::Percent(10), false);
    world.share("v3", TrafficShare::Percent(0), false);
    let refused = world.happens(&undo).answer;
    assert_eq!(refusal(&refused), RefusalCode::Moved);
    assert!(
        matches!(&refused, Answer::Refused(refusal) if refusal.message.contains("prompt-rollback activate")),
        "{refused:?}"
    );
}
