//! The effects of time on an incident.

use super::*;

#[test]
fn all_alerts_over_for_a_minute_resolves() {
    for alert in [high("v2"), recommend("v2"), medium("v2")] {
        let mut world = World::with_a_fresh_release();
        world.alert(alert.clone());
        world.pass(minutes(1));
        assert_eq!(world.alert(alert.resolved()), "resolved resolved");
        world.pass(Policy::QUIET - seconds(1));
        assert!(world.phase().is_open(), "alerts flap");
        world.pass(seconds(1));
        assert_eq!((world.phase(), world.latest().closed_at), (PhaseKind::Resolved, Some(world.now)));
    }
}

#[test]
fn an_investigated_incident_resolves_too() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.choose(Choice::Investigate);
    world.alert(high("v2").resolved());
    world.pass(Policy::QUIET);
    assert_eq!(world.phase(), PhaseKind::Resolved);
}

#[test]
fn after_the_clock_went_back_nothing_is_late_by_more_than_its_own_wait() {
    let due = |world: &mut World| {
        let incident = world.latest().id.clone();
        world.happens(&Event::Timer { incident, early: false });
    };
    let step_back = |world: &mut World| {
        world.now = world.now.minus(hours(1));
        due(world); // the wake-up runs everything that waits
    };
    let pass = |world: &mut World, time: Duration| {
        world.now = world.now.plus(time);
        due(world);
    };
    // a question
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.pass(minutes(4));
    step_back(&mut world);
    pass(&mut world, minutes(5) - seconds(1));
    assert_eq!(world.latest().escalations, 0, "never early");
    pass(&mut world, seconds(1));
    assert_eq!(world.latest().escalations, 1);
    // an observation
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    step_back(&mut world);
    pass(&mut world, hours(1));
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
    // an alert that resolved
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.alert(high("v2").resolved());
    step_back(&mut world);
    pass(&mut world, Policy::QUIET);
    assert_eq!(world.phase(), PhaseKind::Resolved);
    // the checks of a rollback, and their end
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(critical("v2"));
    step_back(&mut world);
    let next = world.latest().verification().map(|verification| verification.next);
    assert_eq!(next, Some(world.now.plus(world.policy.verify_every)));
    let end = world.policy.verification_deadline;
    pass(&mut world, end);
    assert!(world.latest().verification().is_some_and(|verification| verification.late));
    pass(&mut world, minutes(55));
    assert_eq!(world.phase(), PhaseKind::Unverified);
    // another event comes before the wake-up
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.now = world.now.minus(hours(1));
    world.alert(medium("v2"));
    pass(&mut world, minutes(5));
    assert_eq!(world.latest().escalations, 1);
}

#[test]
fn a_new_firing_within_the_minute_keeps_the_incident_and_its_question() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    let (ask, deadline) = (world.latest().question_number, world.latest().deadline());
    world.alert(high("v2").resolved());
    world.pass(seconds(59));
    assert_eq!(world.alert(high("v2")), "incident_updated firing_again");
    world.pass(minutes(2));
    let incident = world.latest();
    assert_eq!(
        (incident.phase.kind(), incident.question_number, incident.deadline()),
        (PhaseKind::AwaitingDecision, ask, deadline)
    );
    assert_eq!(incident.quiet_since, None);
}

#[test]
fn firing_again_within_an_hour_reopens_the_same_incident() {
    let resolved = || {
        let mut world = World::with_a_fresh_release();
        world.alert(high("v2"));
        world.alert(high("v2").resolved());
        world.pass(Policy::QUIET);
        world
    };
    let mut world = resolved();
    let ask = world.latest().question_number;
    world.pass(hours(1) - seconds(1));
    assert_eq!(world.alert(high("v2")), "incident_updated reopened");
    assert_eq!((world.incidents.len(), world.phase()), (1, PhaseKind::AwaitingDecision));
    let incident = world.latest();
    assert_eq!(
        (incident.question_number, incident.deadline()),
        (ask + 1, Some(world.now.plus(minutes(5)))),
        "asked again"
    );

    let mut world = resolved();
    world.pass(hours(1));
    assert_eq!(world.alert(high("v2")), "incident_opened page");
    assert_eq!(world.incidents.len(), 2);
}

#[test]
fn another_alert_reopens_too_and_a_critical_then_acts() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    world.alert(medium("v2").resolved());
    world.pass(minutes(10));
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!((world.incidents.len(), world.phase()), (1, PhaseKind::Verifying));
}

#[test]
fn a_reopened_incident_does_not_show_the_guard_of_before() {
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.alert(critical("v2").resolved());
    world.pass(Policy::QUIET);
    world.alert(high("v2"));
    assert_eq!((world.phase(), world.latest().held.clone()), (PhaseKind::AwaitingDecision, None));
}

#[test]
fn the_observe_clock_goes_on_through_a_resolve() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    let end = world.now.plus(hours(1));
    world.pass(minutes(10));
    world.alert(medium("v2").resolved());
    world.pass(minutes(10));
    assert_eq!(world.phase(), PhaseKind::Resolved);
    world.alert(medium("v2"));
    assert_eq!((world.phase(), world.latest().deadline()), (PhaseKind::Observing, Some(end)));
}

#[test]
fn a_reopened_observation_whose_time_is_over_asks_at_once() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    world.pass(minutes(50));
    world.alert(medium("v2").resolved());
    world.pass(minutes(30));
    world.alert(medium("v2"));
    world.pass(seconds(0));
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
}

#[test]
fn still_firing_at_the_end_of_the_observation_asks_a_person() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    world.pass(hours(1) - seconds(1));
    assert_eq!(world.phase(), PhaseKind::Observing);
    world.pass(seconds(1));
    let incident = world.latest();
    assert_eq!((incident.phase.kind(), incident.question_number), (PhaseKind::AwaitingDecision, 1));
    assert_eq!(incident.deadline(), Some(world.now.plus(Policy::AFTER_OBSERVING)));
    assert_eq!(incident.escalations, 0);
}

#[test]
fn an_observation_that_ends_while_quiet_resolves() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    world.pass(hours(1) - seconds(30));
    world.alert(medium("v2").resolved());
    world.pass(minutes(1));
    assert_eq!((world.phase(), world.latest().question_number), (PhaseKind::Resolved, 0));
}

#[test]
fn a_missed_deadline_escalates_a_bounded_number_of_times() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2").within(minutes(2)));
    world.pass(minutes(2) - seconds(1));
    assert_eq!(world.latest().escalations, 0);
    world.pass(seconds(1));
    assert_eq!(world.latest().escalations, 1);
    world.pass(Policy::ESCALATE_EVERY - seconds(1));
    assert_eq!(world.latest().escalations, 1, "not more often than every five minutes");
    world.pass(seconds(1));
    assert_eq!(world.latest().escalations, 2);
    world.pass(hours(3));
    assert_eq!((world.latest().escalations, world.notes(NoteKind::Escalated)), (4, 4));
    assert_eq!((world.phase(), world.latest().deadline()), (PhaseKind::AwaitingDecision, None), "open, but silent");
}

#[test]
fn after_the_last_escalation_only_a_new_question_starts_over() {
    let mut world = World::with_a_fresh_release();
    world.alert(recommend("v2"));
    world.pass(hours(4));
    assert_eq!(world.latest().deadline(), None);
    world.alert(recommend("v2").named("Tone"));
    assert_eq!(world.latest().deadline(), None, "more of the same");
    world.alert(high("v2"));
    assert_eq!(world.latest().deadline(), Some(world.now.plus(minutes(5))), "worse");
    world.pass(hours(2));
    assert_eq!((world.latest().escalations, world.notes(NoteKind::Escalated)), (4, 7), "it was and stays overdue");
}

#[test]
fn only_the_question_whose_deadline_passed_is_overdue() {
    let mut world = World::with_a_fresh_release();
    world.alert(recommend("v2"));
    assert!(!world.latest().is_overdue());
    world.pass(hours(1));
    assert!(world.latest().is_overdue());
    world.alert(high("v2").decided_by("product-pm"));
    assert!(world.latest().pages() && !world.latest().is_overdue(), "asked again: the page goes on");
    world.pass(minutes(5));
    assert!(world.latest().is_overdue());
    world.policy.deciders.retain(|name| name != "product-pm");
    world.alert(high("v2").decided_by("on-call"));
    assert!(!world.latest().is_overdue(), "another decider is asked");
}

#[test]
fn an_alert_that_is_never_heard_of_again_is_forgotten() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.pass(world.policy.alert_resolve_timeout - seconds(1));
    assert!(world.latest().is_firing());
    world.pass(seconds(1) + Policy::QUIET);
    assert_eq!(world.phase(), PhaseKind::Resolved);
    assert!(world.latest().notes.iter().any(|n| n.text.contains("not sent by Alertmanager")));
}

#[test]
fn an_alert_that_repeats_is_never_forgotten() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    for _ in 0..12 {
        world.pass(hours(4));
        assert_eq!(world.alert(high("v2")), "duplicate duplicate");
    }
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
}

#[test]
fn without_metrics_a_rollback_ends_unverified() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.alert(critical("v2").resolved());
    world.pass(world.policy.verification_deadline - seconds(1));
    assert_eq!(world.phase(), PhaseKind::Verifying, "a resolved alert proves nothing");
    world.pass(seconds(1));
    assert_eq!(world.phase(), PhaseKind::Unverified);
}

#[test]
fn a_wake_up_too_many_or_of_a_closed_incident_does_nothing() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    let incident = world.latest().id.clone();
    assert_eq!(world.happens(&Event::Timer { incident: incident.clone(), early: false }).commit, None);
    world.choose(Choice::Dismiss);
    world.pass(hours(1));
    assert_eq!(world.happens(&Event::Timer { incident, early: false }).commit, None);
    assert_eq!(world.happens(&Event::Timer { incident: IncidentId("gone".to_owned()), early: false }).commit, None);
}

#[test]
fn time_alone_never_rolls_back() {
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.paused = None;
    world.pass(hours(5));
    assert_eq!(world.served(), "v2", "only an alert says that it is still bad");
}

#[test]
fn a_jump_ahead_that_was_seen_forgets_no_firing_alert() {
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.pass(minutes(5));
    let early = Event::Timer { incident: world.latest().id.clone(), early: true };
    for ahead in [hours(7), seconds(61)] {
        world.now = world.now.plus(ahead);
        world.happens(&early);
    }
    assert!(world.latest().is_firing() && world.latest().pages());
}

/// What is remembered lasts no longer because Redis' clock went back by a day.
#[test]
fn a_clock_that_goes_back_prolongs_nothing_that_is_remembered() {
    fn back(world: &mut World) {
        world.step_clock(-86_400);
        world.look();
    }
    let mut silence = World::with_a_fresh_release();
    silence.alert(high("v2").starting(silence.now.minus(hours(24))));
    silence.choose(Choice::Dismiss);
    back(&mut silence);
    silence.pass(hours(7));
    let anew = high("v2").starting(silence.now.minus(minutes(1)));
    assert_eq!(silence.alert(anew), "incident_opened page");

    let mut inactive = World::with_a_fresh_release();
    inactive.alert(medium("v1"));
    back(&mut inactive);
    inactive.pass(hours(8));
    assert_eq!(inactive.alert(critical("v2")), "rolled_back alert");

    let mut ended = World::with_a_fresh_release();
    let began = ended.now.minus(hours(24));
    ended.alert(high("v2").starting(began).ended_at(began.plus(seconds(30))));
    back(&mut ended);
    ended.pass(minutes(30));
    assert_eq!(ended.alert(high("v2").starting(began)), "incident_opened page", "no late copy");

    let mut canary = World::with_a_fresh_release();
    canary.register("v3");
    canary.share("v3", TrafficShare::Canary(Policy::default().canary.usual.plan), false);
    back(&mut canary);
    canary.pass(minutes(10));
    assert_eq!(canary.state.percent(&v("v3")), 5);

    let mut rolled_back = World::with_a_fresh_release();
    rolled_back.mark_known_good("v0");
    rolled_back.roll_back(world::rollback());
    back(&mut rolled_back);
    rolled_back.pass(minutes(2));
    assert!(matches!(rolled_back.roll_back(world::rollback()), Answer::Changed { .. }));

    let mut returned = World::with_a_fresh_release();
    let by_hand = Return { at: returned.now, operator: Operator::EXTERNAL };
    returned.state.version_mut(&v("v2")).expect("v2").returns = vec![by_hand; Policy::RETURNS];
    back(&mut returned);
    returned.pass(hours(2));
    assert_eq!(returned.alert(critical("v2")), "rolled_back alert");
}

#[test]
fn a_reopened_observation_lasts_no_longer_after_a_clock_went_back() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    world.alert(medium("v2").resolved());
    world.pass(minutes(2));
    assert_eq!(world.phase(), PhaseKind::Resolved);
    world.step_clock(-86_400);
    assert_eq!(world.alert(medium("v2")), "incident_updated reopened");
    let deadline = world.latest().deadline();
    assert!(deadline.is_some_and(|at| at <= world.now.plus(hours(1))), "{deadline:?}");
}
