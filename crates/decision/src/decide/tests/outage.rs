//! One prompt's part in an outage.

use super::*;

fn says(world: &mut World, verdict: Verdict, text: &str) {
    world.says = Some(Finding::new(verdict, text));
}

/// v2 is held by the budget.
fn held() -> World {
    let mut world = World::with_a_fresh_release();
    world.recent_auto = 5;
    assert_eq!(world.alert(critical("v2")), "held budget");
    world
}

fn hold(world: &mut World, by: Option<&str>) -> Decision {
    let incident = world.latest().id.clone();
    world.happens(&Event::Hold { incident, by: by.map(Operator::recorded) })
}

fn resume(world: &mut World) -> Answer {
    let incident = world.latest().id.clone();
    world.happens(&Event::Resume { incident }).answer
}

fn reports(decision: &Decision) -> bool {
    decision.commit.as_ref().is_some_and(|commit| commit.incidents.iter().any(|write| write.coordinate))
}

#[test]
fn only_what_the_budget_holds_is_part_of_an_outage() {
    assert!(held().latest().outage);
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    assert!(!world.latest().outage, "paused is one prompt's matter");
    world.paused = None;
    world.recent_auto = 5;
    world.alert(critical("v2").named("LatencyCritical"));
    assert!(world.latest().outage, "it is held by the budget now");
    let mut world = World::with_a_fresh_release();
    world.policy.max_auto_rollbacks = 0;
    world.alert(critical("v2"));
    assert!(!world.latest().outage, "nothing is ever automatic, so nothing has tripped");
}

#[test]
fn it_reports_what_its_coordinating_incident_shows_and_nothing_else() {
    let mut world = World::with_a_fresh_release();
    world.recent_auto = 5;
    let opened = world.happens(&Event::Alerts(vec![critical("v2")]));
    assert!(reports(&opened));
    let joined = world.happens(&Event::Alerts(vec![high("v2")]));
    assert!(joined.commit.is_some() && !reports(&joined), "another alert changes nothing that is shown");
    assert!(reports(&hold(&mut world, Some("maya"))));
    assert!(reports(&hold(&mut world, None)));
    let click = world.click(Choice::Approve);
    assert!(reports(&world.happens(&click)));
    let mut alone = World::with_a_fresh_release();
    assert!(!reports(&alone.happens(&Event::Alerts(vec![critical("v2")]))));
}

#[test]
fn what_is_held_back_neither_acts_nor_escalates() {
    let mut world = held();
    hold(&mut world, Some("maya"));
    world.pass(hours(1));
    let incident = world.latest();
    assert_eq!(
        (incident.phase.kind(), incident.deadline(), incident.escalations),
        (PhaseKind::AwaitingDecision, None, 0)
    );
    world.recent_auto = 0;
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate", "not on a repeat");
    assert_eq!(world.alert(critical("v2").named("LatencyCritical")), "held budget", "nor on news");
    assert_eq!(world.alert(high("v2")), "incident_updated joined");
    world.alert(critical("v2").resolved());
    world.alert(critical("v2").named("LatencyCritical").resolved());
    assert_eq!(world.alert(high("v2").named("Other")), "incident_updated joined");
    assert_eq!((resume(&mut world), world.latest().deadline(), world.served()), (Answer::Noted, None, "v2"));
}

#[test]
fn hold_ends_a_page_and_its_release_restarts_the_clock() {
    let mut world = held();
    world.pass(minutes(2));
    assert!(world.latest().pages());
    hold(&mut world, Some("maya"));
    assert!(!world.latest().pages(), "no one is paged during the hold");
    world.pass(hours(1));
    hold(&mut world, None);
    assert_eq!(world.latest().deadline(), Some(world.now.plus(minutes(2))));
    assert!(!world.latest().pages());
    world.pass(minutes(2));
    assert!(world.latest().pages(), "no one decided");
}

#[test]
fn a_repeated_hold_writes_once() {
    let mut world = held();
    assert!(hold(&mut world, Some("maya")).commit.is_some());
    assert!(hold(&mut world, Some("maya")).commit.is_none());
    assert!(hold(&mut world, None).commit.is_some());
    assert!(hold(&mut world, None).commit.is_none());
    world.choose(Choice::Investigate);
    assert!(hold(&mut world, Some("maya")).commit.is_none());
    let mut alone = World::with_a_fresh_release();
    alone.alert(high("v2"));
    assert!(hold(&mut alone, Some("maya")).commit.is_none(), "no part of a mass incident");
}

#[test]
fn what_is_held_back_can_be_rolled_back_by_a_person() {
    let mut world = held();
    hold(&mut world, Some("maya"));
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!((world.served(), world.latest().hold()), ("v1", None));
}

#[test]
fn an_automatic_rollback_that_is_being_confirmed_is_held_back_too() {
    let mut world = World::with_a_fresh_release();
    (world.policy.requery, world.says) = (true, None);
    world.recent_auto = 5;
    world.alert(critical("v2"));
    world.recent_auto = 0;
    world.alert(critical("v2"));
    assert_eq!(world.phase(), PhaseKind::Confirming);
    hold(&mut world, Some("maya"));
    world.says = Some(Finding::new(Verdict::Unhealthy, "30 % errors"));
    world.pass(minutes(10));
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::AwaitingDecision));
}

#[test]
fn the_budget_has_room_again_and_what_still_fires_acts_without_a_repeat() {
    let mut world = held();
    assert_eq!(resume(&mut world), Answer::Noted, "not yet");
    world.recent_auto = 4;
    let Answer::Changed { from, to, mode, .. } = resume(&mut world) else { panic!("it acts") };
    assert_eq!((from.as_deref(), to.as_str(), mode), (Some("v2"), "v1", Some(SwitchMode::Auto)));
    assert_eq!(resume(&mut world), Answer::Noted, "once");

    for spoil in [
        |world: &mut World| drop(world.alert(critical("v2").resolved())),
        |world: &mut World| drop(world.choose(Choice::Investigate)),
        |world: &mut World| world.paused = Some("dana".to_owned()),
        |world: &mut World| drop(world.choose(Choice::Dismiss)),
    ] {
        let mut world = held();
        spoil(&mut world);
        world.recent_auto = 0;
        assert_eq!((resume(&mut world), world.served()), (Answer::Noted, "v2"));
    }
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.paused = None;
    assert_eq!(resume(&mut world), Answer::Noted, "another guard held it");
}

#[test]
fn a_prompt_that_starts_to_fail_while_all_are_on_hold_is_held() {
    let mut world = World::with_a_fresh_release();
    world.outage_hold = Some("maya".to_owned());
    assert_eq!(world.alert(critical("v2")), "held budget", "although the budget has room");
    let incident = world.latest();
    let detail = incident.held.as_ref().map(|held| held.detail.as_str());
    assert_eq!((detail, incident.outage), (Some("maya has put all prompts on hold: provider outage"), true));
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
    assert_eq!((resume(&mut world), world.served()), (Answer::Noted, "v2"));
    hold(&mut world, Some("maya"));
    world.outage_hold = None;
    hold(&mut world, None);
    assert!(matches!(resume(&mut world), Answer::Changed { .. }));
    assert_eq!(world.served(), "v1");

    let mut off = World::with_a_fresh_release();
    (off.outage_hold, off.policy.max_auto_rollbacks) = (Some("maya".to_owned()), 0);
    assert_eq!(off.alert(critical("v2")), "held budget");
    let held = off.latest().held.clone().expect("held");
    assert!(held.detail.contains("off") && !off.latest().outage, "{held:?}");
}

/// The hold comes while Prometheus is asked.
#[test]
fn a_rollback_confirmed_after_all_were_put_on_hold_is_held() {
    let mut world = World::with_a_fresh_release();
    (world.policy.requery, world.says) = (true, None);
    world.alert(critical("v2"));
    assert_eq!(world.phase(), PhaseKind::Confirming);
    world.outage_hold = Some("maya".to_owned());
    world.says = Some(Finding::new(Verdict::Unhealthy, "30 % errors"));
    world.pass(minutes(1));
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::AwaitingDecision));
    assert!(world.latest().outage);
}

/// A hold ends, and the early alert is no longer checked.
#[test]
fn the_end_of_a_hold_goes_on_with_the_check_of_an_early_alert() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(critical("v2").starting(world.now));
    world.pass(minutes(10));
    world.recent_auto = 100;
    world.activate("v2", true);
    assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::Budget));
    world.recent_auto = 0;
    let incident = world.latest().id.clone();
    says(&mut world, Verdict::NoData, "nothing");
    world.happens(&Event::Resume { incident: incident.clone() });
    assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::PredatesActivation));
    assert!(world.latest().recheck().is_some());
    world.happens(&Event::Hold { incident: incident.clone(), by: Some(Operator::recorded("dana")) });
    world.happens(&Event::Hold { incident, by: None });
    assert!(world.latest().recheck().is_some(), "{:?}", world.latest().phase);
}

#[test]
fn an_undo_that_means_the_first_rollback_leaves_a_later_decision_alone() {
    let mut world = World::with_a_fresh_release();
    world.escalate(); // v2 → v1 did not help
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { to, .. } if to == v("v0")));
    let Event::Decide(click) = world.click(Choice::Undo) else { panic!("a click is a decision") };
    let answer = world.happens(&Event::Decide(Decide { target: Some(v("v2")), ..click })).answer;
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    assert_eq!(world.served(), "v0");
}

#[test]
fn what_was_held_while_automation_was_off_is_no_outage_after_a_reload() {
    let mut world = World::with_a_fresh_release();
    world.policy.max_auto_rollbacks = 0;
    assert_eq!(world.alert(critical("v2")), "held budget");
    world.policy.max_auto_rollbacks = 5;
    world.register("v9"); // any commit
    assert!(!world.latest().outage, "no other prompt was rolled back");
}
