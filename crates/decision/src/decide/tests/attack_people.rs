//! What people decided stands, whoever and whatever else comes in between.

use super::*;

fn decided(world: &mut World, incident: &IncidentId, choice: Choice, target: Option<&str>) -> Answer {
    let (incident, operator) = (incident.clone(), Operator::recorded("dana"));
    let click = Decide { incident, choice, operator, target: target.map(v), force: false, question_number: None };
    world.happens(&Event::Decide(click)).answer
}

fn says(world: &mut World, verdict: Verdict, text: &str) {
    world.says = Some(Finding::new(verdict, text));
}

/// As severe as [`high`], sooner due, and somebody else's.
fn for_others(version: &str) -> Alert {
    high(version).named("Latency").decided_by("product-pm").within(minutes(1))
}

/// v1 is known-good, v2 has the first percent of a canary, and Prometheus is asked before a person's rollback.
fn canary() -> World {
    let mut world = World::new();
    world.release("v1");
    world.pass(hours(2));
    world.register("v2");
    world.policy.confirm = true;
    let plan = TrafficShare::Canary(Policy::default().canary.usual.plan);
    assert!(matches!(world.share("v2", plan, false), Answer::Shared { percent: 1, .. }));
    world
}

fn percent(world: &World) -> Option<u8> {
    world.state.split().map(|split| split.percent())
}

#[test]
fn an_investigated_incident_keeps_its_decider() {
    for choice in [Choice::Investigate, Choice::Approve, Choice::ApproveGradual] {
        let mut world = World::with_a_fresh_release();
        (world.policy.confirm, world.says) = (choice == Choice::Approve, None);
        world.alert(high("v2"));
        world.choose(choice);
        assert_eq!(world.alert(for_others("v2")), "incident_updated joined");
        assert_eq!(world.latest().decider, "on-call", "{choice:?}");
    }
}

#[test]
fn an_investigated_observation_keeps_its_decider() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    world.choose(Choice::Investigate);
    let worse = world::firing("Slow", "v2", Severity::High, Action::Observe).decided_by("product-pm");
    assert_eq!(world.alert(worse), "incident_updated joined");
    assert_eq!((world.phase(), world.latest().decider.as_str()), (PhaseKind::Investigating, "on-call"));
}

#[test]
fn the_approver_may_approve_again_after_an_alert_joined() {
    let mut world = World::with_a_fresh_release();
    world.policy.confirm = true;
    says(&mut world, Verdict::Healthy, "error ratio 0.10 %");
    world.alert(high("v2"));
    world.choose(Choice::Approve);
    world.alert(for_others("v2"));
    world.pass(seconds(1));
    assert!(world.latest().objection().is_some());
    assert_eq!(world.latest().decider, "on-call");
}

#[test]
fn a_joining_alert_leaves_an_approved_canary_end_waiting() {
    let mut world = canary();
    world.paused = Some("dana".to_owned());
    assert_eq!(world.alert(critical("v2")), "held paused");
    assert!(matches!(world.choose(Choice::Approve), Answer::Confirming { .. }));
    assert_eq!(world.alert(medium("v2")), "incident_updated joined");
    assert_eq!(world.phase(), PhaseKind::Confirming);
    world.pass(seconds(1));
    assert_eq!((percent(&world), world.served(), world.phase()), (None, "v1", PhaseKind::Verifying));
}

#[test]
fn a_held_canary_keeps_its_investigator() {
    let mut world = canary();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.choose(Choice::Investigate);
    world.alert(medium("v2"));
    assert_eq!(world.phase(), PhaseKind::Investigating);
}

#[test]
fn a_critical_leaves_the_target_that_a_person_named_for_a_canary() {
    let mut world = canary();
    world.mark_known_good("v0");
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    let id = world.latest().id.clone();
    assert!(matches!(decided(&mut world, &id, Choice::Approve, Some("v0")), Answer::Confirming { .. }));
    world.paused = None;
    assert_eq!(world.alert(critical("v2").named("Timeouts")), "rolled_back alert");
    assert_eq!((percent(&world), world.served()), (None, "v0"));
    assert_eq!(world.latest().switch.as_ref().map(|switch| switch.mode), Some(SwitchMode::Approved));
}

#[test]
fn a_canary_goes_no_further_while_its_approved_end_waits_for_an_answer() {
    let mut world = canary();
    world.says = None;
    world.alert(medium("v2"));
    world.pass(minutes(10) - seconds(3));
    assert!(matches!(world.choose(Choice::Approve), Answer::Confirming { .. }));
    world.pass(seconds(6));
    assert_eq!(percent(&world), Some(1));
    world.pass(seconds(5));
    assert_eq!((percent(&world), world.served()), (None, "v1"));
}

#[test]
fn an_undo_of_the_end_of_a_canary_gives_back_its_share_and_no_more() {
    let mut world = canary();
    world.pass(minutes(10));
    assert_eq!(percent(&world), Some(5));
    assert_eq!(world.alert(high("v2")), "rolled_back alert");
    assert!(world.state.running_canary().is_none());
    let answer = world.choose(Choice::Undo);
    assert!(matches!(answer, Answer::Shared { percent: 5, .. }), "{answer:?}");
    assert_eq!((percent(&world), world.served(), world.phase()), (Some(5), "v1", PhaseKind::Dismissed));
    assert!(!world.is_quarantined("v2"));
    assert_eq!(world.alert(high("v2")), "ignored dismissed");
    world.pass(minutes(10));
    assert_eq!(percent(&world), Some(25), "its stages go on, each in full");
}

#[test]
fn an_undo_of_the_end_of_a_canary_leaves_it_paused() {
    let mut world = canary();
    world.pass(minutes(10));
    world.steer(Steer::Pause);
    assert_eq!(world.alert(high("v2")), "rolled_back alert");
    assert!(matches!(world.choose(Choice::Undo), Answer::Shared { percent: 5, .. }));
    world.pass(hours(2));
    assert_eq!(percent(&world), Some(5));
    world.steer(Steer::Resume);
    world.pass(minutes(1));
    assert_eq!(percent(&world), Some(25));
}

#[test]
fn undo_of_a_canary_end_waits_for_a_valid_key() {
    let mut world = canary();
    world.alert(high("v2"));
    world.active = Active::Absent;
    world.look();
    assert_eq!(world::refusal(&world.choose(Choice::Undo)), RefusalCode::Moved);
}

#[test]
fn a_dismissed_alert_of_a_sender_whose_clock_is_ahead_stays_silent() {
    let mut world = World::with_a_fresh_release();
    let ahead = high("v2").starting(world.now.plus(seconds(40)));
    world.alert(ahead.clone());
    world.choose(Choice::Dismiss);
    world.pass(minutes(2));
    assert_eq!(world.alert(ahead.clone()), "ignored dismissed");
    let anew = ahead.starting(world.now.minus(seconds(5)));
    assert_eq!(world.alert(anew), "incident_opened page");
}

#[test]
fn a_new_alert_ends_no_page_of_a_rollback_that_did_not_help() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(high("v2"));
    world.release("v3");
    let id = world.latest().id.clone();
    says(&mut world, Verdict::Unhealthy, "error ratio 7.00 %");
    world.pass(minutes(6));
    assert_eq!(world.phase(), PhaseKind::Escalated);
    let Event::Decide(click) = world.click(Choice::Approve) else { panic!("a click") };
    world.happens(&Event::Decide(Decide { target: Some(v("v2")), force: true, ..click }));
    world.pass(minutes(6));
    assert!(world.incidents[&id].pages(), "nor did going back");
    world.alert(high("v2").named("Latency"));
    assert!(world.incidents[&id].pages(), "{:?}", world.incidents[&id]);
}

#[test]
fn a_rollback_to_a_version_that_has_a_share_leads_from_the_other_one() {
    let to = |version: &str, force| Rollback { target: Some(v(version)), force, ..world::rollback() };
    let mut world = canary();
    assert_eq!(world::refusal(&world.roll_back(to("v2", false))), RefusalCode::NeedsForce, "it has 1 %");
    assert_eq!(percent(&world), Some(1));
    assert!(matches!(world.roll_back(to("v2", true)), Answer::Changed { unchanged: false, .. }));
    assert_eq!((percent(&world), world.served()), (None, "v2"));

    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.choose(Choice::ApproveGradual);
    assert_eq!(world::refusal(&world.roll_back(to("v2", false))), RefusalCode::NeedsForce, "it loses its traffic");
    assert!(matches!(world.roll_back(to("v1", false)), Answer::Changed { unchanged: false, .. }));
    assert_eq!((percent(&world), world.served()), (None, "v1"));
}

/// A button names the version that it leads to.
#[test]
fn a_button_ends_a_canary_whose_base_has_not_soaked() {
    for named in [None, Some("v1")] {
        let mut world = World::new();
        world.release("v1");
        world.pass(minutes(5));
        world.register("v2");
        world.share("v2", TrafficShare::Percent(10), false);
        world.paused = Some("dana".to_owned());
        world.alert(critical("v2"));
        assert_eq!(world.latest().target, Some(v("v1")));
        let (id, mut rolled) = (world.latest().id.clone(), world.clone());
        let answer = decided(&mut world, &id, Choice::Approve, named);
        assert!(matches!(answer, Answer::Changed { .. }), "{named:?}: {answer:?}");
        let target = named.map(v);
        let answer = rolled.roll_back(Rollback { target, ..world::rollback() });
        assert!(matches!(answer, Answer::Changed { .. }), "{named:?}: {answer:?}");
        assert_eq!((world.served(), rolled.served()), ("v1", "v1"));
    }
}

#[test]
fn an_open_question_offers_a_version_that_somebody_vouches_for_meanwhile() {
    let mut world = World::new();
    world.release("v1");
    world.pass(minutes(5));
    world.release("v2");
    world.alert(high("v2"));
    let (asked, offered) = (world.latest().question_number, world.latest().target.clone());
    assert_eq!(offered, None);
    world.mark_known_good("v1");
    assert_eq!((world.latest().target.as_ref(), world.latest().choices.as_slice()), (Some(&v("v1")), &[v("v1")][..]));
    assert_eq!(world.latest().question_number, asked + 1);
}

#[test]
fn a_canary_question_is_not_answered_by_looks_healthy() {
    let mut world = super::analysis::begun();
    world.policy.confirm = true;
    says(&mut world, Verdict::Healthy, "error ratio 0.90 %");
    world.looks.compared = Some(Ok(super::analysis::harmful()));
    world.pass(minutes(10));
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }), "its figures are known");
    assert_eq!((percent(&world), world.served()), (None, "v1"));
}

#[test]
fn an_undo_of_a_canarys_rollback_restores_its_share_and_no_more() {
    let mut world = canary();
    world.policy.confirm = false;
    world.mark_known_good("v0");
    world.paused = Some("dana".to_owned());
    assert_eq!(world.alert(critical("v2")), "held paused");
    let id = world.latest().id.clone();
    let answer = decided(&mut world, &id, Choice::Approve, Some("v0"));
    assert!(matches!(answer, Answer::Changed { .. }), "{answer:?}");
    assert_eq!((percent(&world), world.served()), (None, "v0"));
    let answer = world.choose(Choice::Undo);
    assert!(matches!(answer, Answer::Shared { percent: 1, .. }), "{answer:?}");
    assert_eq!((percent(&world), world.served()), (Some(1), "v1"));
}
