//! Steering a canary, and the question about a waiting one.

use super::super::super::phase::{Phase, Question};
use super::super::super::plan::Plan;
use super::analysis::{begun, compared, harmful, percent, questions, waits};
use super::*;

fn refused(answer: &Answer) -> RefusalCode {
    match answer {
        Answer::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

fn promotion(world: &World) -> Promotion {
    let since = world.state.split().expect("a canary").since;
    Promotion { since, look: Some(Look { heartbeat: world.heartbeat.clone(), compared: world.looks.compared.clone() }) }
}

#[test]
fn a_stage_ends_by_its_own_time_and_findings() {
    for analysis in [true, false] {
        let mut world = begun();
        world.policy.canary.usual.analysis = analysis;
        let first = promotion(&world);
        world.pass(minutes(5));
        world.happens(&Event::Promotion(promotion(&world)));
        assert_eq!(percent(&world), Some(1), "before its time");
        world.pass(minutes(5));
        assert_eq!(percent(&world), Some(5));
        world.looks.asks = false;
        world.pass(minutes(10));
        world.happens(&Event::Promotion(first));
        assert_eq!(percent(&world), Some(5), "the answer is about the first step");
        world.happens(&Event::Promotion(promotion(&world)));
        assert_eq!(percent(&world), Some(25), "{}", waits(&world));
    }
}

#[test]
fn each_stage_asks_anew_and_a_question_closes_after_a_day() {
    let mut world = begun();
    world.looks.compared = Some(Ok(compared(3, true)));
    world.pass(minutes(71));
    assert_eq!((percent(&world), questions(&world)), (Some(1), 1));
    world.looks.compared = Some(Ok(compared(1_000, true)));
    world.pass(minutes(1));
    assert_eq!((percent(&world), world.phase()), (Some(5), PhaseKind::Resolved));
    world.looks.compared = Some(Ok(compared(3, true)));
    world.pass(minutes(69));
    assert_eq!(questions(&world), 1, "the new step has its own hour");
    world.pass(minutes(2));
    assert_eq!((questions(&world), world.phase()), (2, PhaseKind::AwaitingDecision));
    world.pass(hours(25));
    assert_eq!((questions(&world), world.phase(), percent(&world)), (2, PhaseKind::Resolved, Some(5)));
    assert!(world.incidents.values().all(|incident| incident.escalations == 0), "no one is paged");
}

#[test]
fn the_request_says_how_long_its_canary_waits_before_people_are_asked() {
    let mut world = begun();
    world.steer(Steer::Abort);
    let plan = Plan { limit: Some(hours(3)), ..world.policy.canary.usual.plan.clone() };
    world.share("v2", TrafficShare::Canary(plan), false);
    world.looks.compared = Some(Ok(compared(3, true)));
    world.pass(minutes(180));
    assert_eq!(questions(&world), 0);
    world.pass(minutes(12));
    assert_eq!(questions(&world), 1);
}

#[test]
fn an_open_question_holds_the_canary() {
    let mut joined = begun();
    joined.looks.compared = Some(Ok(harmful()));
    joined.pass(minutes(10));
    joined.alert(medium("v2"));
    assert_eq!(questions(&joined), 1, "it joins");
    let mut other = begun();
    let waiting = Phase::AwaitingDecision(Question::until(other.now.plus(hours(48))));
    let (prompt, id) = (PromptName::parse("customer-support").unwrap(), IncidentId("another".to_owned()));
    let incident = Incident { phase: waiting, ..Incident::new(id, prompt, v("v1"), "on-call".to_owned(), other.now) };
    other.state.incidents.push(incident);
    for mut world in [joined, other] {
        world.looks.compared = Some(Ok(compared(1_000, true)));
        world.pass(minutes(30));
        assert_eq!(percent(&world), Some(1));
        assert!(waits(&world).contains("incident"), "{}", waits(&world));
    }
}

#[test]
fn a_bad_mark_wants_force_on_either_side() {
    for (marked, steers) in [("v1", &[Steer::Abort][..]), ("v2", &[Steer::Skip, Steer::Promote])] {
        for steer in steers {
            let mut world = begun();
            world.mark(marked, MarkKind::Bad);
            assert_eq!(refused(&world.steer(*steer)), RefusalCode::NeedsForce, "{marked} {steer:?}");
            assert_eq!(percent(&world), Some(1));
            let (operator, reason) = (Operator::recorded("dana"), Some("known".to_owned()));
            let forced = Steering { steer: *steer, about: None, operator, force: true, reason };
            let answer = world.happens(&Event::Steer(forced)).answer;
            assert!(matches!(answer, Answer::Changed { .. } | Answer::Shared { .. }), "{answer:?}");
        }
    }
}

#[test]
fn a_gate_in_front_of_all_traffic_is_asked_in_every_step_that_ends_in_it() {
    let mut world = begun();
    world.policy.gates.ab_test = true;
    assert_eq!(refused(&world.steer(Steer::Promote)), RefusalCode::GateClosed);
    assert!(matches!(world.steer(Steer::Skip), Answer::Shared { percent: 5, .. }), "less than all traffic");
}

#[test]
fn hold_withdraws_the_question() {
    let mut world = begun();
    world.looks.compared = Some(Ok(harmful()));
    world.pass(minutes(10));
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
    world.steer(Steer::Hold);
    assert_eq!((world.phase(), percent(&world)), (PhaseKind::Resolved, Some(1)));
}

#[test]
fn a_short_pause_makes_no_step_shorter() {
    let mut world = begun();
    world.policy.canary.usual.analysis = false;
    world.pass(minutes(2));
    world.steer(Steer::Pause);
    world.pass(minutes(2));
    world.steer(Steer::Resume);
    world.pass(minutes(5));
    assert_eq!(percent(&world), Some(1));
    world.pass(minutes(1));
    assert_eq!(percent(&world), Some(5));
}

#[test]
fn an_aborted_canary_leaves_its_base_served_since_before() {
    let mut world = begun();
    let since = |world: &World| world.state.serving.as_ref().map(|serving| serving.since);
    let before = since(&world);
    world.pass(minutes(5));
    world.steer(Steer::Abort);
    assert_eq!((percent(&world), since(&world)), (None, before));
}
