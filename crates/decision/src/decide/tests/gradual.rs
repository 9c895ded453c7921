//! Gradual rollbacks.

use super::*;

fn world() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.says = Some(Finding::new(Verdict::Healthy, "error ratio 0.10 %"));
    world
}

/// dana approves a gradual rollback.
fn begun() -> World {
    let mut world = world();
    world.alert(high("v2"));
    let answer = world.choose(Choice::ApproveGradual);
    assert!(matches!(answer, Answer::Shared { percent: 25, .. }), "{answer:?}");
    world
}

fn of_v2() -> Rollback {
    Rollback { from: Some(v("v2")), ..world::rollback() }
}

/// `v1 25, v2 75 > v2`: the shares, and the value of `active`.
fn traffic(world: &World) -> String {
    let shares: Vec<_> = world.routing.iter().map(|(version, percent)| format!("{version} {percent}")).collect();
    format!("{} > {}", shares.join(", "), world.active.version().map_or("nothing", VersionName::as_str))
}

#[test]
fn it_goes_on_by_itself_and_is_verified_at_the_end() {
    let mut world = begun();
    assert_eq!((traffic(&world).as_str(), world.phase()), ("v1 25, v2 75 > v2", PhaseKind::RollingBack));
    world.pass(minutes(10));
    assert_eq!(traffic(&world), "v1 50, v2 50 > v1", "a tie: the rollback target");
    world.pass(minutes(10));
    assert_eq!(traffic(&world), "v1 75, v2 25 > v1");
    world.pass(minutes(9));
    assert_eq!(traffic(&world), "v1 75, v2 25 > v1");
    world.pass(minutes(1));
    assert_eq!((traffic(&world).as_str(), world.phase()), (" > v1", PhaseKind::Verifying));
    let incident = world.latest();
    let switch = incident.switch.as_ref().expect("a switch");
    assert_eq!((switch.mode, switch.from.as_str(), switch.to.as_str()), (SwitchMode::Gradual, "v2", "v1"));
    assert!(incident.gradual().is_none());
    assert!(world.state.version(&v("v2")).is_some_and(|v| v.quarantine.is_some()));
    let events: Vec<_> = world.changes().iter().map(|entry| entry.event).collect();
    assert_eq!(
        events[2..],
        [LogEvent::Gradual, LogEvent::Gradual, LogEvent::Gradual, LogEvent::Rollback],
        "each step is logged"
    );
    world.pass(minutes(2));
    assert_eq!(world.phase(), PhaseKind::Recovered);
}

#[test]
fn progress_adds_no_replies() {
    let mut world = begun();
    let notes = world.latest().notes.len();
    world.pass(minutes(25));
    assert_eq!(world.latest().notes.len(), notes);
}

#[test]
fn a_target_that_fails_pauses_it_and_calls_people() {
    let mut world = begun();
    world.pass(minutes(10));
    world.says = Some(Finding::new(Verdict::Unhealthy, "error ratio 4.00 %"));
    world.pass(minutes(60));
    assert_eq!(traffic(&world), "v1 50, v2 50 > v1", "stays where it is");
    let incident = world.latest().clone();
    assert!(incident.is_stuck() && incident.pages());
    assert_eq!(incident.notes.last().map(|note| note.kind), Some(NoteKind::Escalated));
    assert!(incident.notes.last().is_some_and(|note| note.text.contains("error ratio 4.00 %")));

    let mut all = world.clone();
    assert!(matches!(all.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!((traffic(&all).as_str(), all.phase()), (" > v1", PhaseKind::Verifying), "all traffic now");

    let mut back = world.clone();
    assert!(matches!(back.choose(Choice::Undo), Answer::Changed { .. }));
    assert_eq!((traffic(&back).as_str(), back.phase()), (" > v2", PhaseKind::Dismissed));
    assert_eq!(back.alert(high("v2")), "ignored dismissed");

    assert!(matches!(world.choose(Choice::ApproveGradual), Answer::Shared { percent: 75, .. }), "go on");
    assert!(!world.latest().pages());
    world.says = Some(Finding::new(Verdict::Healthy, "error ratio 0.10 %"));
    world.pass(minutes(10));
    assert_eq!(traffic(&world), " > v1");
}

#[test]
fn without_an_answer_it_goes_on_towards_the_good_version() {
    for verdict in [Verdict::NoData, Verdict::Unknown] {
        let mut world = begun();
        world.says = Some(Finding::new(verdict, "nothing"));
        world.pass(minutes(31));
        assert_eq!(traffic(&world), " > v1", "{verdict:?}");
    }
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.choose(Choice::ApproveGradual);
    world.pass(minutes(31));
    assert_eq!(traffic(&world), " > v1", "there is no Prometheus to ask");
}

#[test]
fn an_answer_that_never_comes_holds_nothing_up_for_long() {
    let mut world = begun();
    world.says = None;
    world.pass(minutes(10));
    assert_eq!(traffic(&world), "v1 25, v2 75 > v2");
    world.pass(minutes(2));
    assert_eq!(traffic(&world), "v1 50, v2 50 > v1");
}

#[test]
fn an_outage_delays_a_stage_and_none_is_skipped() {
    let mut world = begun();
    world.now = world.now.plus(minutes(100)); // the workers are down
    assert_eq!(traffic(&world), "v1 25, v2 75 > v2");
    world.says = Some(Finding::new(Verdict::Healthy, "error ratio 0.10 %"));
    world.pass(seconds(2));
    assert_eq!(traffic(&world), "v1 50, v2 50 > v1", "one stage, not all that were missed");
    world.pass(minutes(9));
    assert_eq!(traffic(&world), "v1 50, v2 50 > v1", "held in full from when it began");
}

#[test]
fn a_critical_alert_on_the_bad_version_goes_all_the_way() {
    let mut world = begun();
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!((traffic(&world).as_str(), world.phase()), (" > v1", PhaseKind::Verifying));
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
}

#[test]
fn other_alerts_on_the_bad_version_join_and_change_nothing() {
    let mut world = begun();
    assert_eq!(world.alert(medium("v2").named("Other")), "incident_updated joined");
    assert_eq!((traffic(&world).as_str(), world.phase()), ("v1 25, v2 75 > v2", PhaseKind::RollingBack));
    let mut paused = begun();
    paused.paused = Some("by dana".to_owned());
    paused.alert(critical("v2"));
    assert_eq!(traffic(&paused), "v1 25, v2 75 > v2", "the kill switch holds automatic steps");
}

#[test]
fn a_critical_alert_on_the_target_stays_and_escalates() {
    let mut world = begun();
    assert_eq!(world.alert(critical("v1")), "incident_updated target_unhealthy");
    assert!(world.latest().is_stuck() && world.latest().pages());
    assert_eq!(world.alert(critical("v1")), "duplicate duplicate");
    world.pass(minutes(60));
    assert_eq!(traffic(&world), "v1 25, v2 75 > v2", "never forward");
    assert_eq!(world.alert(critical("v1").resolved()), "resolved resolved");
}

#[test]
fn a_critical_alert_on_the_bad_version_waits_for_a_target_that_fails_too() {
    for order in [[critical("v2"), critical("v1")], [critical("v1"), critical("v2")]] {
        let mut world = begun();
        let said = world.deliver(&order);
        let of = |version: &str| said[order.iter().position(|a| a.version == v(version)).unwrap()].as_str();
        assert_eq!((of("v2"), of("v1")), ("held target_unhealthy", "incident_updated target_unhealthy"));
        assert!(world.latest().is_stuck() && world.latest().pages());
        assert!(!world.would_write(&order));
        assert_eq!(traffic(&world), "v1 25, v2 75 > v2", "never forward");
        let next = if order[0].version == v("v1") { critical("v2") } else { high("v2") };
        let said = world.deliver(&[critical("v1").resolved(), next]);
        assert!(said[1] == "rolled_back alert" || said[1] == "incident_updated joined", "in any order: {said:?}");
        assert_eq!((traffic(&world).as_str(), world.latest().held.as_ref()), (" > v1", None));
    }
}

#[test]
fn a_critical_waits_where_the_gradual_target_is_bad() {
    let mut world = begun();
    world.says = Some(Finding::new(Verdict::Unhealthy, "errors 9 %"));
    world.pass(minutes(10));
    assert!(world.latest().is_stuck());
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
    assert_eq!(traffic(&world), "v1 25, v2 75 > v2");
    world.choose(Choice::ApproveGradual);
    assert_eq!((traffic(&world).as_str(), world.latest().held.as_ref()), ("v1 50, v2 50 > v1", None), "a person may");
}

#[test]
fn one_at_a_time() {
    let mut world = begun();
    let refused = |answer: Answer, code: RefusalCode| {
        assert!(matches!(&answer, Answer::Refused(refusal) if refusal.code == code), "{code:?}: {answer:?}");
    };
    let before = world.state.clone();
    refused(world.choose(Choice::ApproveGradual), RefusalCode::AlreadyDecided);
    refused(world.choose(Choice::Investigate), RefusalCode::AlreadyDecided);
    refused(world.choose(Choice::Dismiss), RefusalCode::AlreadyDecided);
    let plan = Policy::default().gradual;
    refused(world.roll_back(Rollback { gradual: Some(plan), ..of_v2() }), RefusalCode::SplitUnderWay);
    world.register("v3");
    let canary = TrafficShare::Canary(Policy::default().canary.usual.plan);
    refused(world.share("v3", canary, false), RefusalCode::SplitUnderWay);
    assert_eq!(before.split(), world.state.split());
    assert!(matches!(world.roll_back(of_v2()), Answer::Changed { .. }), "at once goes");
    assert_eq!(traffic(&world), " > v1");
}

#[test]
fn none_begins_while_another_only_waits_for_an_answer() {
    let mut world = world();
    world.policy.confirm = true;
    world.says = Some(Finding::new(Verdict::Unhealthy, "errors 9 %"));
    world.mark_known_good("v0");
    world.roll_back(of_v2());
    world.pass(minutes(5));
    assert_eq!((world.phase(), world.served()), (PhaseKind::Escalated, "v1"), "the rollback did not help");
    let click = world.click(Choice::ApproveGradual);
    let plan = Policy::default().gradual;
    let asked = world.roll_back(Rollback { gradual: Some(plan), ..world::rollback() });
    assert!(matches!(asked, Answer::Confirming { .. }), "{asked:?}");
    let refused = world.happens(&click).answer;
    assert!(matches!(&refused, Answer::Refused(refusal) if refusal.code == RefusalCode::SplitUnderWay), "{refused:?}");
    world.pass(seconds(2));
    assert_eq!(traffic(&world), "v0 25, v1 75 > v1");
}

#[test]
fn what_someone_sets_outside_ends_it() {
    let mut world = begun();
    world.set_active("v1");
    world.look();
    assert_eq!((traffic(&world).as_str(), world.phase()), (" > v1", PhaseKind::Verifying), "is v1 better?");
    let mut world = begun();
    world.routing.clear();
    world.look();
    assert_eq!((traffic(&world).as_str(), world.phase()), (" > v2", PhaseKind::AwaitingDecision), "asked again");
    let mut world = begun();
    world.release("v3");
    assert_eq!((traffic(&world).as_str(), world.phase()), (" > v3", PhaseKind::Verifying), "is v3 better?");
}

#[test]
fn it_is_confirmed_first_like_any_other() {
    let mut world = world();
    world.policy.confirm = true;
    world.alert(high("v2"));
    assert!(matches!(world.choose(Choice::ApproveGradual), Answer::Confirming { .. }));
    world.pass(seconds(1));
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision, "v2 is healthy: asked once more");
    assert!(matches!(world.choose(Choice::ApproveGradual), Answer::Shared { percent: 25, .. }));
    let mut world = self::world();
    world.policy.confirm = true;
    world.says = Some(Finding::new(Verdict::Unhealthy, "error ratio 4.00 %"));
    world.alert(high("v2"));
    world.choose(Choice::ApproveGradual);
    world.pass(seconds(1));
    assert_eq!((traffic(&world).as_str(), world.phase()), ("v1 25, v2 75 > v2", PhaseKind::RollingBack));
}

#[test]
fn whoever_wants_the_rest_at_once_waits_for_no_second_answer() {
    let mut world = begun();
    world.policy.confirm = true;
    let answer = world.roll_back(of_v2());
    assert!(matches!(answer, Answer::Changed { .. }), "{answer:?}");
    assert_eq!((traffic(&world).as_str(), world.phase()), (" > v1", PhaseKind::Verifying));
}

#[test]
fn stages_after_a_rollback_that_did_not_help_are_a_new_incident() {
    let mut world = world();
    world.escalate();
    let refused = world.choose(Choice::ApproveGradual);
    assert!(
        matches!(&refused, Answer::Refused(refusal) if refusal.code == RefusalCode::AlreadyDecided
        && refusal.message.contains("prompt-rollback rollback customer-support --gradual")),
        "{refused:?}"
    );
    assert!(world.latest().pages());
    let plan = Some(Policy::default().gradual);
    let begun = world.roll_back(Rollback { from: Some(v("v1")), gradual: plan, ..world::rollback() });
    assert!(matches!(begun, Answer::Shared { percent: 25, .. }), "{begun:?}");
    assert_eq!((world.latest().version.as_str(), world.phase()), ("v1", PhaseKind::RollingBack));
    world.says = Some(Finding::new(Verdict::Healthy, "error ratio 0.10 %"));
    let mut completed = world.clone();
    assert!(matches!(completed.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!(completed.served(), "v0");
    assert_eq!(world.alert(critical("v1")), "rolled_back alert");
    assert_eq!((world.served(), world.rollbacks()), ("v0", vec!["v2>v1".to_owned(), "v1>v0".to_owned()]));
}

#[test]
fn a_page_about_a_paused_rollback_goes_on_when_the_split_ends_outside() {
    for way in ["deleted", "no version", "no routing", "the target has all traffic"] {
        let mut world = world();
        world.says = Some(Finding::new(Verdict::Unhealthy, "error ratio 7.00 %"));
        world.paused = Some("dana".to_owned());
        world.alert(critical("v2"));
        world.choose(Choice::ApproveGradual);
        world.pass(minutes(2));
        assert!(world.latest().is_stuck() && world.latest().pages());
        match way {
            "deleted" => world.active = Active::Absent,
            "no version" => world.set_value(b"{}"),
            "no routing" => world.routing.clear(),
            _ => world.set_active("v1"),
        }
        world.look();
        let asked =
            if way == "the target has all traffic" { PhaseKind::Verifying } else { PhaseKind::AwaitingDecision };
        assert_eq!((world.phase(), world.latest().pages()), (asked, true), "{way}");
    }
}
