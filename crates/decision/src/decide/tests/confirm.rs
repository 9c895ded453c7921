//! Rollbacks that wait for Prometheus.

use super::world::refusal;
use super::*;

fn asking() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.confirm = true;
    world.policy.verify = true;
    world
}

fn finding(verdict: Verdict) -> Option<Finding> {
    Some(Finding::new(verdict, "error ratio 7.00 %"))
}

#[test]
fn a_persons_rollback_is_confirmed_first() {
    for verdict in [Verdict::Unhealthy, Verdict::NoData, Verdict::Unknown] {
        let mut world = asking();
        world.says = finding(verdict);
        world.alert(high("v2"));
        assert!(matches!(world.choose(Choice::Approve), Answer::Confirming { .. }));
        assert_eq!((world.phase(), world.served()), (PhaseKind::Confirming, "v2"));
        let decided = world.now;
        world.pass(seconds(2));
        assert_eq!((world.phase(), world.served()), (PhaseKind::Verifying, "v1"), "{verdict:?}");
        assert_eq!(world.latest().switch.as_ref().and_then(|switch| switch.decided_at), Some(decided));
        assert_eq!(world.latest().decided_by.as_ref().map(Operator::as_str), Some("dana"));
        assert_eq!(world.latest().switch.as_ref().map(|switch| switch.mode), Some(SwitchMode::Approved));
    }
}

#[test]
fn a_version_that_looks_healthy_again_is_asked_about_once_more() {
    let mut world = asking();
    world.says = finding(Verdict::Healthy);
    world.alert(high("v2"));
    let ask = world.latest().question_number;
    world.choose(Choice::Approve);
    world.pass(seconds(0));
    assert_eq!((world.phase(), world.served()), (PhaseKind::AwaitingDecision, "v2"));
    assert_eq!(world.latest().question_number, ask + 1, "an earlier button is stale");
    let objection = world.latest().objection();
    assert!(
        matches!(objection, Some(Objection { kind: ObjectionKind::Changed, text, .. }) if text.contains("error ratio 7.00 %")),
        "{objection:?}"
    );
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }), "the second approval overrules it");
    assert_eq!(world.served(), "v1");
    assert_eq!(world.latest().objection(), None);
}

#[test]
fn an_overtaken_second_rollback_leaves_the_first_verifying() {
    let mut world = asking();
    world.mark_known_good("v0");
    world.roll_back(Rollback { force: true, ..world::rollback() });
    world.share("v2", TrafficShare::Canary(Policy::default().canary.usual.plan), true);
    let asked = world.roll_back(Rollback { target: Some(v("v0")), ..world::rollback() });
    assert!(matches!(asked, Answer::Confirming { .. }), "{asked:?}");
    world.routing.clear(); // someone ends the canary manually
    world.pass(seconds(12));
    let phases: Vec<_> = world.incidents.values().map(|incident| incident.phase.kind()).collect();
    assert_eq!((phases, world.served()), (vec![PhaseKind::Verifying, PhaseKind::Superseded], "v1"));
    world.pass(minutes(60));
    assert!(world.incidents.values().all(|incident| !incident.phase.is_open()), "{:?}", world.incidents);
}

#[test]
fn force_is_not_confirmed() {
    let mut world = asking();
    world.says = finding(Verdict::Healthy);
    assert!(matches!(world.roll_back(Rollback { force: true, ..world::rollback() }), Answer::Changed { .. }));
}

#[test]
fn a_rollback_without_an_alert_is_confirmed_and_closes() {
    let mut world = asking();
    world.says = finding(Verdict::Healthy);
    assert!(matches!(world.roll_back(world::rollback()), Answer::Confirming { .. }));
    assert_eq!(refusal(&world.roll_back(world::rollback())), RefusalCode::AlreadyDecided, "while it is being asked");
    world.pass(seconds(1));
    assert_eq!((world.phase(), world.served()), (PhaseKind::AwaitingDecision, "v2"));
    world.pass(Policy::QUIET);
    assert_eq!(world.phase(), PhaseKind::Resolved);

    world.roll_back(world::rollback());
    world.pass(seconds(1));
    assert!(matches!(world.roll_back(world::rollback()), Answer::Changed { .. }), "the second approval overrules it");
}

#[test]
fn a_target_that_fails_its_baseline_test_is_asked_about_once_more() {
    let mut world = asking();
    world.says = finding(Verdict::Unhealthy);
    world.precheck = Some("answered 500".to_owned());
    world.alert(high("v2"));
    world.choose(Choice::Approve);
    world.pass(seconds(0));
    assert_eq!(world.served(), "v2");
    let objection = world.latest().objection();
    assert!(
        matches!(objection, Some(Objection { kind: ObjectionKind::TargetFails, text, .. }) if text.contains("answered 500")),
        "{objection:?}"
    );
}

#[test]
fn a_critical_does_not_wait_for_a_pending_approval() {
    let mut world = asking();
    world.alert(high("v2"));
    world.choose(Choice::Approve);
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    world.pass(seconds(1));
    assert_eq!(world.rollbacks(), ["v2>v1"]);
}

#[test]
fn a_dead_worker_delays_a_rollback_but_does_not_lose_it() {
    let mut world = asking();
    world.says = None;
    world.alert(high("v2"));
    world.choose(Choice::Approve);
    world.pass(Policy::CONFIRM);
    assert_eq!((world.phase(), world.served()), (PhaseKind::Verifying, "v1"));
}

#[test]
fn a_late_answer_changes_nothing() {
    let mut world = asking();
    world.alert(high("v2"));
    world.choose(Choice::Approve);
    let at = world.now;
    world.choose(Choice::Dismiss);
    let incident = world.latest().id.clone();
    let late = Confirmed { incident, at, finding: Finding::new(Verdict::Unhealthy, ""), blame: None, precheck: None };
    assert_eq!(world.happens(&Event::Confirmed(late)).commit, None);
    assert_eq!((world.phase(), world.served()), (PhaseKind::Dismissed, "v2"));
}

#[test]
fn requery_asks_before_an_automatic_rollback() {
    let mut world = asking();
    world.policy.requery = true;
    world.says = finding(Verdict::Unhealthy);
    assert_eq!(world.alert(critical("v2")), "held confirming");
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
    assert_eq!(world.served(), "v2");
    world.pass(seconds(0));
    assert_eq!((world.phase(), world.served()), (PhaseKind::Verifying, "v1"));
    assert_eq!(world.latest().switch.as_ref().map(|switch| switch.mode), Some(SwitchMode::Auto));
}

#[test]
fn what_requery_does_not_confirm_is_for_a_person() {
    for (verdict, blame, guard) in [
        (Verdict::Healthy, None, Guard::Unconfirmed),
        (Verdict::NoData, None, Guard::Unconfirmed),
        (Verdict::Unknown, None, Guard::Unconfirmed),
        (Verdict::Unhealthy, Some("v1 fails too"), Guard::TargetUnhealthy),
    ] {
        let mut world = asking();
        world.policy.requery = true;
        world.says = finding(verdict);
        world.blame = blame.map(str::to_owned);
        world.alert(critical("v2"));
        world.pass(seconds(0));
        assert_eq!((world.phase(), world.served()), (PhaseKind::AwaitingDecision, "v2"), "{verdict:?}");
        assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(guard));
    }
}

#[test]
fn pause_stops_an_automatic_rollback_that_is_being_confirmed() {
    let mut world = asking();
    world.policy.requery = true;
    world.says = finding(Verdict::Unhealthy);
    world.alert(critical("v2"));
    world.paused = Some("dana".to_owned());
    world.pass(seconds(1));
    assert_eq!(world.served(), "v2");
    assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::Paused));
}

#[test]
fn an_answer_to_an_earlier_question_counts_for_nothing() {
    let mut world = asking();
    world.alert(high("v2"));
    world.choose(Choice::Approve);
    let pending = world.latest().pending().expect("it waits").clone();
    let late = Confirmed {
        incident: world.latest().id.clone(),
        at: pending.at.minus(seconds(30)),
        finding: finding(Verdict::Healthy).expect("a finding"),
        blame: None,
        precheck: None,
    };
    assert_eq!(world.happens(&Event::Confirmed(late)).commit, None);
    assert_eq!(world.latest().pending(), Some(&pending));
}

#[test]
fn a_clock_that_went_back_puts_no_answer_off() {
    let mut world = World::with_a_fresh_release();
    world.policy.requery = true;
    world.says = None; // the worker that asks is dead
    world.alert(critical("v2"));
    assert_eq!(world.phase(), PhaseKind::Confirming);
    world.step_clock(-86_400);
    world.pass(minutes(1));
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
}

#[test]
fn a_request_during_a_verification_returns_to_it_after_a_restart() {
    let record = r#"{"id":"01","prompt":"p","version":"v2","target":"v1","phase":"confirming","opened_at":1,"updated_at":3,"severity":"high","action":"page","decider":"on-call","time_limit":60000,"deadline":9,"flip":{"commit":"c","at":2,"from":"v0","to":"v2","mode":"approved","operator":"dana"},"pending":{"by":"manual","from":"v2","to":"v1","operator":"dana","reason":"r","at":3},"before":{"phase":"verifying","deadline":400},"verification":{"next":5}}"#;
    let incident: Incident = serde_json::from_str(record).unwrap();
    let crate::Phase::Confirming(confirming) = &incident.phase else { panic!("{incident:?}") };
    assert_eq!(confirming.before, crate::Phase::Verifying { until: Timestamp(400) });
    assert_eq!(serde_json::to_string(&incident).unwrap(), record);
}

#[test]
fn a_confirmed_rollback_waits_for_the_content_of_its_target() {
    let mut world = World::new();
    (world.policy.archive, world.policy.hot_versions) = (true, 1);
    for version in ["v0", "v1"] {
        world.release_text(version);
        world.pass(hours(2));
    }
    world.release_text("v2");
    world.pass(minutes(10));
    (world.policy.verify, world.policy.requery) = (true, true);
    world.tidy();
    assert!(world.is_archived("v0") && !world.is_archived("v1"));
    world.says = None;
    world.alert(critical("v2"));
    world.alert(high("v1"));
    world.says = finding(Verdict::Unhealthy);
    world.pass(seconds(2));
    assert_eq!((world.served(), world.is_archived("v0")), ("v0", false));
    assert_eq!(world.rollbacks(), ["v2>v0"]);
}

#[test]
fn a_new_outbreak_whose_end_was_lost_is_asked_about_again() {
    let mut world = asking();
    world.policy.requery = true;
    world.says = finding(Verdict::Healthy);
    world.alert(critical("v2").starting(world.now.minus(seconds(10))));
    world.pass(seconds(11));
    assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::Unconfirmed));
    world.pass(hours(2));
    world.says = finding(Verdict::Unhealthy);
    world.alert(critical("v2").starting(world.now.minus(seconds(10))));
    world.pass(seconds(11));
    assert_eq!(world.served(), "v1");
}

/// An alert that ends while the content is being restored.
#[test]
fn what_resolved_while_the_content_was_restored_rolls_nothing_back() {
    let mut world = World::new();
    (world.policy.archive, world.policy.hot_versions) = (true, 1);
    world.release_text("v1");
    world.pass(hours(2));
    world.release_text("v2");
    world.pass(hours(2));
    world.release_text("v3");
    world.pass(hours(24 * 40));
    world.tidy();
    world.mark("v2", MarkKind::Bad);
    let archived = world.state.version_mut(&v("v1")).and_then(|record| record.archived.as_mut());
    archived.expect("its content is in the archive").wanted = None;
    assert!(world.is_archived("v1"));
    let said = world.alert(critical("v3").starting(world.now));
    assert_eq!(said, "held confirming");
    assert!(world.latest().is_firing());
    world.says = None; // the archive takes its time
    world.pass(seconds(2));
    assert_eq!(world.alert(critical("v3").ended_at(world.now)), "resolved resolved");
    assert!(!world.latest().is_firing() && world.latest().pending().is_some());
    world.says = Some(Finding::new(Verdict::NoData, "no data yet"));
    world.pass(seconds(20));
    assert_eq!(world.served(), "v3", "{:?}", world.phase());
}

#[test]
fn a_failed_test_of_one_target_overrules_nothing_for_another_one() {
    for explicit in [false, true] {
        let mut world = asking();
        world.mark_known_good("v0");
        world.says = finding(Verdict::Unhealthy);
        world.precheck = Some("answered 500".to_owned());
        world.alert(high("v2"));
        world.choose(Choice::Approve);
        world.pass(seconds(0));
        assert_eq!(world.latest().objection().map(|o| o.kind), Some(ObjectionKind::TargetFails));
        if !explicit {
            world.alert(high("v1")); // v0 is the target now
            assert_eq!(world.latest().objection(), None, "it was about v1");
        }
        let Event::Decide(click) = world.click(Choice::Approve) else { panic!("a click is a decision") };
        let target = explicit.then(|| v("v0"));
        let answer = world.happens(&Event::Decide(Decide { target, ..click })).answer;
        assert!(matches!(answer, Answer::Confirming { .. }), "v0 was never tested: {answer:?}");
    }
}

#[test]
fn a_second_approval_of_another_target_still_tests_that_target() {
    for explicit in [false, true] {
        let mut world = asking();
        world.mark_known_good("v0");
        world.says = finding(Verdict::Healthy);
        world.alert(high("v2"));
        world.choose(Choice::Approve);
        world.pass(seconds(0));
        assert_eq!(world.latest().objection().map(|o| o.kind), Some(ObjectionKind::Changed));
        if !explicit {
            world.alert(high("v1")); // v0 is the target now
        }
        let Event::Decide(click) = world.click(Choice::Approve) else { panic!("a click is a decision") };
        let target = explicit.then(|| v("v0"));
        let answer = world.happens(&Event::Decide(Decide { target, ..click })).answer;
        assert!(matches!(answer, Answer::Confirming { .. }), "v0 was never tested: {answer:?}");
    }
}

#[test]
fn a_rollback_that_is_being_confirmed_keeps_its_target() {
    let mut world = World::new();
    world.policy.confirm = true;
    for n in 0..12 {
        let (version, known_good) = (format!("good-{n}"), true);
        let content = Some(format!("text of {version}"));
        world.happens(&Event::Register(Register { known_good, content, ..world::registration(&version) }));
        world.pass(seconds(1));
    }
    world.release("v2");
    for n in world.state.versions.len()..Policy::MAX_VERSIONS {
        world.register(&format!("ci-{n}"));
    }
    world.alert(high("v2"));
    let Event::Decide(approve) = world.click(Choice::Approve) else { unreachable!("a click is a decision") };
    let target = Some(v("good-0")); // the oldest
    let answer = world.happens(&Event::Decide(Decide { target, ..approve })).answer;
    assert!(matches!(answer, Answer::Confirming { .. }), "{answer:?}");
    world.register("one-more");
    world.pass(seconds(15));
    assert_eq!(world.served(), "good-0");
    assert_eq!(world.contents.get(&v("good-0")).map(String::as_str), Some("text of good-0"));
}
