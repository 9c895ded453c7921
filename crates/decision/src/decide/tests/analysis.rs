//! A canary advances only when the measurements allow it.

use std::mem;

use proptest::prelude::*;

use super::super::super::policy::CanaryPolicy;
use super::super::super::split::TrafficSplit;
use super::promises::config;
use super::world::Looks;
use super::*;

pub(super) fn compared(requests: u64, no_worse: bool) -> Compared {
    Compared { requests, harm: None, no_worse, text: "success 99.00 % of 1000 requests".to_owned() }
}

pub(super) fn harmful() -> Compared {
    Compared { harm: Some("success 90.00 %".to_owned()), ..compared(1_000, false) }
}

/// v1 is known-good; v2 begins its canary, with analysis and a Prometheus.
pub(super) fn begun() -> World {
    let mut world = World::new();
    world.release("v1");
    world.pass(hours(2));
    world.register("v2");
    (world.policy.canary.usual.analysis, world.policy.verify) = (true, true);
    world.looks.compared = Some(Ok(compared(1_000, true)));
    world.share("v2", TrafficShare::Canary(Policy::default().canary.usual.plan), false);
    world
}

pub(super) fn percent(world: &World) -> Option<u8> {
    world.state.split().map(TrafficSplit::percent)
}

pub(super) fn waits(world: &World) -> &str {
    world.state.split().and_then(|split| split.paused.as_deref()).unwrap_or("does not wait")
}

pub(super) fn questions(world: &World) -> usize {
    world.incidents.len()
}

#[test]
fn it_goes_on_while_all_speaks_for_it() {
    let mut world = begun();
    for expected in [Some(5), Some(25), None] {
        world.pass(minutes(10));
        assert_eq!(percent(&world), expected, "{}", waits(&world));
    }
    assert_eq!(world.active.version(), Some(&v("v2")));
    assert_eq!(questions(&world), 0);
    assert!(world.state.canary.as_ref().is_some_and(|canary| !canary.by_time));
}

#[test]
fn the_settings_of_its_own_prompt_hold_and_no_other_prompt_s() {
    for (prompt, moves) in [("customer-support", true), ("another", false)] {
        let mut world = begun();
        world.looks.compared = None;
        let own = CanaryPolicy { analysis: false, ..world.policy.canary.usual.clone() };
        world.policy.canary.prompts.insert(PromptName::parse(prompt).unwrap(), own);
        world.pass(minutes(10));
        assert_eq!(percent(&world) == Some(5), moves, "{prompt}: {}", waits(&world));
        assert_eq!(world.state.canary.as_ref().is_some_and(|canary| canary.by_time), moves, "{prompt}");
    }
}

/// A change that removes the knowledge, and the canary's reason to wait.
type Unknown = (fn(&mut World), &'static str);

#[test]
fn what_is_not_known_holds_it_and_people_are_asked_once() {
    let nothing: [Unknown; 7] = [
        (|world| world.looks.compared = Some(Ok(compared(19, true))), "19 of 20 requests of v2 in this stage"),
        (|world| world.looks.compared = Some(Err("prometheus: no answer".to_owned())), "prometheus: no answer"),
        (|world| world.looks.compared = None, "Prometheus was not queried"),
        (
            |world| (world.heartbeat, world.looks.alive) = (None, false),
            "no heartbeat of the alert path has arrived yet",
        ),
        (
            |world| {
                world.heartbeat = Heartbeat::after(None, world.now, world.prometheus_time());
                world.looks.alive = false;
            },
            "the last heartbeat of the alert path arrived",
        ),
        (
            |world| {
                let ahead = |at: Timestamp| at.plus(hours(72));
                let (heard_at, evaluated_at) = (ahead(world.now), ahead(world.prometheus_time()));
                world.heartbeat = Heartbeat::after(None, heard_at, evaluated_at);
                world.looks.alive = false;
            },
            "no heartbeat of the alert path has arrived since Redis' clock went back",
        ),
        (|world| world.prometheus_ahead = -864_000_000, "rules were evaluated for 0 s of 10 min of this stage"),
    ];
    for (unknown, expected) in nothing {
        let mut world = begun();
        unknown(&mut world);
        world.pass(minutes(69));
        assert_eq!((percent(&world), questions(&world)), (Some(1), 0), "{}", waits(&world));
        assert!(waits(&world).contains(expected), "{expected}: {}", waits(&world));
        world.pass(minutes(2));
        assert_eq!(questions(&world), 1, "after canary.hold_limit");
        assert!(world.latest().summary().contains(expected), "{}", world.latest().summary());
        world.pass(hours(12));
        assert_eq!((percent(&world), questions(&world)), (Some(1), 1), "once");
        assert!(!world.latest().pages());
        let mut dismissed = world.clone();
        dismissed.choose(Choice::Dismiss);
        dismissed.pass(hours(12));
        assert_eq!((percent(&dismissed), questions(&dismissed)), (Some(1), 1), "nor again once it is dismissed");
        world.looks = Looks { asks: true, alive: true, compared: Some(Ok(compared(20, true))) };
        world.prometheus_ahead = 0;
        // without heartbeats, the stage has not been watched
        for _ in 0..11 {
            if percent(&world) == Some(1) {
                world.pass(minutes(1));
            }
        }
        assert_eq!((percent(&world), world.latest().phase.kind()), (Some(5), PhaseKind::Resolved), "{}", waits(&world));
    }
}

#[test]
fn a_gap_of_the_heartbeat_lengthens_the_stage_by_as_much() {
    let mut world = begun();
    for (alive, passes) in [(true, 4), (false, 10), (true, 5)] {
        world.looks.alive = alive;
        world.pass(minutes(passes));
        assert_eq!(percent(&world), Some(1));
    }
    assert!(waits(&world).contains("rules were evaluated for 9 min of 10 min"), "{}", waits(&world));
    world.pass(minutes(1));
    assert_eq!(percent(&world), Some(5), "{}", waits(&world));
}

#[test]
fn many_gaps_are_remembered_within_bounds() {
    let at = |minute: u64| Timestamp(0).plus(minutes(minute));
    let mut last = None;
    for n in 0..100 {
        last = Heartbeat::after(last, at(10 * n), at(10 * n));
    }
    let last = last.expect("a heartbeat");
    assert_eq!((last.gaps.len(), last.gaps[0].0, last.gaps[19].1), (20, at(0), at(990)));
    assert_eq!(Heartbeat::after(Some(last.clone()), at(991), at(990)), None, "a repeat");
    let earlier = Heartbeat::after(Some(last), at(992), at(900)).expect("Prometheus' clock was put right");
    assert_eq!(
        (earlier.evaluated_at, earlier.gaps),
        (at(900), vec![(at(0), at(900))]),
        "nothing is known of the time before"
    );
}

#[test]
fn harm_holds_it_and_people_are_asked_at_once() {
    let mut world = begun();
    world.looks.compared = Some(Ok(harmful()));
    world.looks.alive = false; // harm stops it anyway
    world.pass(minutes(10));
    assert_eq!((percent(&world), questions(&world)), (Some(1), 1));
    assert!(world.latest().summary().contains("v2 is worse: success 90.00 %"), "{}", world.latest().summary());
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. } | Answer::Confirming { .. }));
    world.pass(minutes(1));
    assert_eq!((percent(&world), world.active.version()), (None, Some(&v("v1"))));
}

#[test]
fn people_are_asked_about_harm_beside_an_incident_without_question() {
    for (version, incidents) in [("v1", 2), ("v2", 1)] {
        let mut world = begun();
        world.alert(medium(version));
        assert_eq!(world.phase(), PhaseKind::Observing);
        world.looks.compared = Some(Ok(harmful()));
        world.pass(minutes(10));
        assert_eq!((percent(&world), questions(&world)), (Some(1), incidents), "one open incident for a version");
        let asked = world.incidents.values().filter(|incident| incident.phase.kind() == PhaseKind::AwaitingDecision);
        let asked: Vec<_> = asked.collect();
        assert!(asked.len() == 1 && asked[0].notes.iter().any(|note| note.text.contains("v2 is worse")), "{asked:?}");
        world.pass(minutes(10));
        assert_eq!(questions(&world), incidents, "once");
    }
}

#[test]
fn an_alert_joins_the_question_and_ends_the_canary() {
    let mut world = begun();
    world.looks.compared = Some(Ok(harmful()));
    world.pass(minutes(10));
    assert_eq!(world.alert(high("v2")), "rolled_back alert");
    assert_eq!((percent(&world), world.active.version(), questions(&world)), (None, Some(&v("v1")), 1));
    assert_eq!(world.phase(), PhaseKind::Verifying);
}

#[test]
fn all_traffic_wants_proof_that_it_is_no_worse() {
    let mut world = begun();
    world.looks.compared = Some(Ok(compared(1_000, false)));
    world.pass(minutes(50));
    assert_eq!(percent(&world), Some(25), "stages below are free");
    assert!(waits(&world).contains("success 99.00 %"), "{}", waits(&world));
    world.looks.compared = Some(Ok(compared(1_000, true)));
    world.pass(minutes(1));
    assert_eq!(world.active.version(), Some(&v("v2")));
}

#[test]
fn any_open_incident_holds_it() {
    let mut world = begun();
    world.alert(medium("v2"));
    world.pass(minutes(30));
    assert_eq!(percent(&world), Some(1));
    assert!(waits(&world).contains("is open"), "{}", waits(&world));
    world.choose(Choice::Dismiss);
    world.pass(minutes(1));
    assert_eq!(percent(&world), Some(5));
}

#[test]
fn without_a_prometheus_the_heartbeat_is_enough() {
    let mut world = begun();
    world.policy.verify = false;
    world.looks.compared = None;
    world.pass(minutes(10));
    assert_eq!(percent(&world), Some(5));
    world.looks.alive = false;
    world.pass(minutes(30));
    assert_eq!(percent(&world), Some(5));
}

#[test]
fn time_alone_says_so() {
    let mut world = begun();
    world.policy.canary.usual.analysis = false;
    world.looks = Looks { asks: true, alive: false, compared: None };
    world.pass(minutes(10));
    assert_eq!(percent(&world), Some(5));
    assert!(world.state.canary.as_ref().is_some_and(|canary| canary.by_time));
}

#[test]
fn people_steer_it() {
    let refused = |answer: &Answer| match answer {
        Answer::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    };
    let mut world = begun();
    assert!(matches!(world.steer(Steer::Pause), Answer::Shared { percent: 1, .. }));
    world.pass(hours(5));
    assert_eq!((percent(&world), waits(&world), questions(&world)), (Some(1), "paused by dana", 0));
    world.steer(Steer::Resume);
    world.pass(minutes(1));
    assert_eq!(percent(&world), Some(5), "the time of its stage was over long ago");
    world.looks.compared = Some(Ok(harmful()));
    assert!(matches!(world.steer(Steer::Skip), Answer::Shared { percent: 25, .. }), "whatever was measured");
    let mut promoted = world.clone();
    assert!(matches!(promoted.steer(Steer::Promote), Answer::Changed { .. }));
    assert_eq!((percent(&promoted), promoted.active.version()), (None, Some(&v("v2"))));
    assert_eq!(refused(&promoted.steer(Steer::Skip)), RefusalCode::Moved);
    let mut skipped = world.clone();
    assert!(matches!(skipped.steer(Steer::Skip), Answer::Changed { .. }), "the last step is all traffic");
    world.steer(Steer::Hold);
    world.pass(hours(5));
    assert_eq!((percent(&world), questions(&world)), (Some(25), 0), "its share stays");
    for steer in [Steer::Pause, Steer::Resume, Steer::Skip, Steer::Hold] {
        assert_eq!(refused(&world.steer(steer)), RefusalCode::NoNextStage);
    }
    assert!(matches!(world.steer(Steer::Abort), Answer::Changed { .. }));
    assert_eq!((percent(&world), world.active.version()), (None, Some(&v("v1"))));
    assert!(world.state.version(&v("v2")).is_some_and(|v| v.quarantine.is_none()), "no quarantine");
}

#[test]
fn what_is_said_about_another_stage_is_stale() {
    let mut world = begun();
    let id = world.state.running_canary().expect("a canary").id.clone();
    world.pass(minutes(10));
    for about in [(id.clone(), 0), (IncidentId("another".to_owned()), 1)] {
        let operator = Operator::recorded("dana");
        let steering = Steering { steer: Steer::Skip, about: Some(about), operator, force: false, reason: None };
        let answer = world.happens(&Event::Steer(steering)).answer;
        assert!(matches!(&answer, Answer::Refused(refusal) if refusal.code == RefusalCode::Stale), "{answer:?}");
    }
    assert_eq!(percent(&world), Some(5));
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Clock(i64),
    Looks(Looks),
    Alert(bool),
    Decide(Choice),
    Steer(Steer),
}

/// Enough, too little, bad, no answer, or no worker that asks.
pub(super) fn looks() -> impl Strategy<Value = Looks> {
    let answer = prop_oneof![
        4 => Just(Some(Ok(compared(1_000, true)))),
        1 => Just(Some(Ok(compared(20, false)))),
        1 => Just(Some(Ok(compared(3, true)))),
        1 => Just(Some(Ok(harmful()))),
        1 => Just(Some(Err("partial answer".to_owned()))),
        1 => Just(None),
    ];
    (prop::bool::weighted(0.9), prop::bool::weighted(0.9), answer).prop_map(|(asks, alive, compared)| Looks {
        asks,
        alive,
        compared,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..1_500_u64).prop_map(Step::Pass),
        3 => prop_oneof![Just(600), Just(-600), -700..700_i64].prop_map(Step::Clock),
        5 => looks().prop_map(Step::Looks),
        1 => any::<bool>().prop_map(Step::Alert),
        1 => prop::sample::select(vec![Choice::Dismiss, Choice::Investigate]).prop_map(Step::Decide),
        1 => prop::sample::select(vec![Steer::Pause, Steer::Resume, Steer::Skip]).prop_map(Step::Steer),
    ]
}

proptest! {
    #![proptest_config(config(256))]

    /// Answers never come, are partial or late, and Redis' clock jumps: no stage ends automatically before its time, or
    /// without the required knowledge. While no receiver runs, the clock of Prometheus alone must reveal a jump ahead.
    #[test]
    fn no_stage_ends_early_or_blind(
        steps in prop::collection::vec(step(), 1..60),
        with_prometheus in any::<bool>(),
        sees_jumps in any::<bool>(),
    ) {
        let mut world = begun();
        (world.policy.verify, world.sees_jumps) = (with_prometheus, sees_jumps);
        let mut entered = world.prometheus_time();
        // for how long heartbeats arrived in this stage, with short gaps, and the time since the last one
        let (mut alive, mut dead) = (Duration::ZERO, Duration::ZERO);
        let mut back = Duration::ZERO; // a heartbeat seems younger by this much
        for step in steps {
            let before = world.state.running_canary().map(|canary| (canary.id.clone(), canary.split.stage));
            let by_person = matches!(step, Step::Steer(Steer::Skip));
            match step {
                // as the receiver: due work is done within a minute
                Step::Pass(n) => {
                    match world.looks.alive {
                        true if dead <= Policy::HEARTBEAT => alive += mem::take(&mut dead) + seconds(n),
                        true => (alive, dead) = (alive + seconds(n), Duration::ZERO),
                        false => dead += seconds(n),
                    }
                    world.pass(seconds(n));
                }
                Step::Clock(by) if by < 0 && !sees_jumps => {}
                Step::Clock(by) => {
                    back += seconds((-by).max(0).unsigned_abs());
                    world.step_clock(by);
                }
                Step::Looks(looks) => world.looks = looks,
                Step::Alert(high_on_old) => drop(world.alert(if high_on_old { high("v1") } else { medium("v2") })),
                Step::Decide(choice) if !world.incidents.is_empty() => drop(world.choose(choice)),
                Step::Decide(_) => {}
                Step::Steer(steer) => drop(world.steer(steer)),
            }
            let Some((_, stage)) = before else { break };
            let promoted = world.state.canary.as_ref().is_some_and(|c| c.end.as_ref().is_some_and(|end| end.promoted));
            let now = world.state.running_canary().map_or(stage + u32::from(promoted), |canary| canary.split.stage);
            if now == stage {
                continue;
            }
            if !by_person {
                let stages = now - stage;
                let passed = world.prometheus_time().since(entered);
                prop_assert!(passed >= minutes(10) * stages, "{stages} stages in {passed:?}");
                prop_assert!(alive + back >= minutes(10) * stages, "{stages} stages, {alive:?} with heartbeats");
                // within a step of at most 25 minutes the stage may have ended before the last heartbeat was too old
                let heard = world.heartbeat.as_ref().expect("a heartbeat").evaluated_at;
                let silent = world.prometheus_time().since(heard);
                prop_assert!(world.looks.asks && (world.looks.alive || silent <= Policy::HEARTBEAT + minutes(25) + back));
                if with_prometheus {
                    let found = world.looks.compared.clone().expect("asked").expect("answered");
                    prop_assert!(found.harm.is_none() && found.requests >= 20, "{found:?}");
                    prop_assert!(!promoted || found.no_worse, "{found:?}");
                }
            }
            alive = if by_person { Duration::ZERO } else { alive.saturating_sub(minutes(10) * (now - stage)) };
            // the last stage began no earlier than the previous one could end
            entered = world.prometheus_time().min(entered.plus(if by_person { Duration::MAX } else { minutes(10) * (now - stage) }));
        }
    }
}

#[test]
fn harm_is_asked_about_although_people_were_asked_for_lack_of_figures() {
    for way in ["open", "investigated", "dismissed", "withdrawn"] {
        let mut world = begun();
        world.looks.compared = Some(Ok(compared(19, true)));
        world.pass(minutes(75));
        assert_eq!(questions(&world), 1);
        match way {
            "investigated" => drop(world.choose(Choice::Investigate)),
            "dismissed" => drop(world.choose(Choice::Dismiss)),
            "withdrawn" => world.pass(hours(25)),
            _ => {}
        }
        world.looks.compared = Some(Ok(harmful()));
        world.pass(minutes(2));
        let open: Vec<_> = world.state.open_incidents().collect();
        assert_eq!(open.len(), 1, "{way}");
        assert!(open[0].summary().contains("v2 is worse"), "{way}: {}", open[0].summary());
        world.looks.compared = Some(Ok(compared(19, true)));
        world.pass(hours(2));
        world.looks.compared = Some(Ok(harmful()));
        world.pass(hours(2));
        assert_eq!(questions(&world), 2, "{way}: once");
    }
}

#[test]
fn a_question_about_harm_stays_for_a_day_after_an_investigation_too() {
    let mut world = begun();
    world.looks.compared = Some(Ok(harmful()));
    world.pass(minutes(11));
    world.choose(Choice::Investigate);
    world.pass(hours(24));
    assert_eq!((questions(&world), world.phase()), (1, PhaseKind::AwaitingDecision), "asked again");
    world.pass(hours(23));
    assert!(world.latest().phase.is_open() && !world.latest().pages());
    world.pass(hours(1));
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Resolved, false));
}

#[test]
fn a_question_about_harm_outlives_a_medium_alert() {
    for alert_first in [true, false] {
        let mut world = begun();
        if alert_first {
            world.alert(medium("v2"));
        }
        world.looks.compared = Some(Ok(harmful()));
        world.pass(minutes(10));
        if !alert_first {
            world.alert(medium("v2"));
        }
        assert_eq!((world.phase(), questions(&world)), (PhaseKind::AwaitingDecision, 1));
        world.alert(medium("v2").resolved());
        world.pass(minutes(3));
        assert_eq!(percent(&world), Some(1));
        let asks = world.state.open_incidents().any(|i| i.phase.kind() == PhaseKind::AwaitingDecision);
        assert!(asks, "{alert_first}: no question is open about {:?}", waits(&world));
    }
}

#[test]
fn an_alert_reopens_no_question_about_a_canary() {
    let mut world = begun();
    world.looks.compared = Some(Ok(compared(19, true)));
    world.pass(hours(4));
    assert_eq!(questions(&world), 1);
    world.looks.compared = Some(Ok(compared(1_000, true)));
    world.pass(minutes(1));
    assert_eq!((percent(&world), world.phase()), (Some(5), PhaseKind::Resolved));
    assert_eq!(world.alert(medium("v2")), "incident_opened observe");
    assert_eq!(world.latest().deadline(), Some(world.now.plus(hours(1))));
}
