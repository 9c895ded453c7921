//! Canaries.

use super::super::super::split::TrafficSplit;
use super::*;

fn canary_plan() -> TrafficShare {
    TrafficShare::Canary(Policy::default().canary.usual.plan)
}

fn says(world: &mut World, verdict: Verdict, text: &str) {
    world.says = Some(Finding::new(verdict, text));
}

fn plan() -> TrafficShare {
    TrafficShare::Canary(Policy::default().canary.usual.plan)
}

/// v1 is known-good and serves; v2 is registered.
fn world() -> World {
    let mut world = World::new();
    world.release("v1");
    world.pass(hours(2));
    world.register("v2");
    world
}

fn begun() -> World {
    let mut world = world();
    let answer = world.share("v2", plan(), false);
    assert!(matches!(answer, Answer::Shared { percent: 1, .. }), "{answer:?}");
    world
}

fn percent(world: &World) -> Option<u8> {
    world.state.split().map(|split| split.percent())
}

fn active(world: &World) -> &str {
    world.active.version().map_or("nothing", VersionName::as_str)
}

fn refused(answer: &Answer) -> RefusalCode {
    match answer {
        Answer::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn it_is_promoted_step_by_step() {
    let mut world = begun();
    assert_eq!((percent(&world), active(&world)), (Some(1), "v1"));
    assert_eq!(world.state.served(), [v("v1"), v("v2")], "both have traffic");
    for expected in [5, 25] {
        world.pass(minutes(10));
        assert_eq!((percent(&world), active(&world)), (Some(expected), "v1"));
    }
    world.pass(minutes(10));
    assert_eq!((percent(&world), active(&world)), (None, "v2"));
    assert!(world.routing.is_empty());
    let end = world.state.canary.as_ref().and_then(|canary| canary.end.clone()).expect("an end");
    assert!(end.promoted);
    assert_eq!(world.state.target(Some(&v("v2")), &world.policy, world.now), Some(&v("v1")));
    world.pass(hours(1));
    let record = world.state.version(&v("v2")).expect("v2");
    assert!(record.known_good(&world.policy, world.now).is_some(), "it soaks from its promotion on");
}

#[test]
fn a_high_or_critical_alert_ends_it_at_once_whatever_the_guards_say() {
    for alert in [critical("v2"), high("v2"), recommend("v2")] {
        let mut world = begun();
        world.pass(minutes(20));
        world.recent_auto = 100; // no budget
        world.state.version_mut(&v("v1")).expect("v1").known_good = None; // not known-good
        world.state.version_mut(&v("v1")).expect("v1").soak = None;
        let before = world.log.len();
        assert_eq!(world.alert(alert), "rolled_back alert");
        assert_eq!((percent(&world), active(&world)), (None, "v1"));
        assert_eq!(world.log.len(), before + 1);
        assert_eq!(world.phase(), PhaseKind::Verifying);
        let end = world.state.canary.as_ref().and_then(|canary| canary.end.clone()).expect("an end");
        assert!(!end.promoted && end.text.starts_with("stopped at 25 %"), "{end:?}");
        assert_eq!(refused(&world.share("v2", plan(), false)), RefusalCode::NeedsForce, "quarantined");
        assert!(matches!(world.share("v2", plan(), true), Answer::Shared { .. }));
    }
}

#[test]
fn switched_off_automation_stops_no_canary() {
    for (paused, dry_run, reason) in [(Some("by dana".to_owned()), false, "held paused"), (None, true, "held dry_run")]
    {
        let mut world = begun();
        (world.paused, world.policy.dry_run) = (paused, dry_run);
        assert_eq!(world.alert(critical("v2")), reason);
        assert_eq!(percent(&world), Some(1));
        assert_eq!(world.latest().target, Some(v("v1")));
        assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }), "a person may");
        assert_eq!((percent(&world), active(&world)), (None, "v1"));
    }
}

#[test]
fn a_medium_alert_is_observed_and_does_not_stop_it() {
    let mut world = begun();
    assert_eq!(world.alert(medium("v2")), "incident_opened observe");
    world.pass(minutes(10));
    assert_eq!(percent(&world), Some(5));
}

#[test]
fn an_alert_on_the_present_version_goes_back_to_another_one() {
    let mut world = World::new();
    world.release("v0");
    world.pass(hours(2));
    world.release("v1");
    world.pass(hours(2));
    world.register("v2");
    world.share("v2", plan(), false);
    assert_eq!(world.alert(high("v1")), "incident_opened page");
    assert_eq!(percent(&world), Some(1), "a person decides");
    assert_eq!(world.alert(critical("v1")), "rolled_back alert");
    assert_eq!((percent(&world), active(&world)), (None, "v0"));
    assert!(world.state.running_canary().is_none());
}

#[test]
fn what_may_not_begin() {
    let mut world = world();
    assert_eq!(refused(&world.share("v9", plan(), false)), RefusalCode::UnknownVersion);
    assert_eq!(refused(&world.share("v1", plan(), false)), RefusalCode::Moved, "all traffic already");
    assert_eq!(refused(&world.share("v2", TrafficShare::Percent(0), false)), RefusalCode::Moved, "no canary to end");
    for percent in [101, 255] {
        assert_eq!(refused(&world.share("v2", TrafficShare::Percent(percent), false)), RefusalCode::BadStages);
    }
    world.share("v2", plan(), false);
    world.register("v3");
    let before = world.state.split().cloned();
    assert_eq!(refused(&world.share("v3", plan(), false)), RefusalCode::SplitUnderWay);
    assert_eq!(refused(&world.share("v2", plan(), false)), RefusalCode::SplitUnderWay, "the second operator");
    assert_eq!(world.state.split().cloned(), before);
    let mut empty = World::new();
    empty.register("v1");
    assert_eq!(refused(&empty.share("v1", plan(), false)), RefusalCode::Moved, "nothing shares with it");
}

#[test]
fn people_may_end_it_either_way_or_hold_it() {
    let mut world = begun();
    assert!(matches!(world.share("v2", TrafficShare::Percent(60), false), Answer::Shared { percent: 60, .. }));
    assert_eq!(active(&world), "v2", "the larger share");
    world.pass(hours(24));
    assert_eq!(percent(&world), Some(60), "until someone changes it");
    let mut back = world.clone();
    assert!(matches!(back.share("v2", TrafficShare::Percent(0), false), Answer::Changed { .. }));
    assert_eq!((percent(&back), active(&back)), (None, "v1"));
    assert!(back.state.version(&v("v2")).is_some_and(|v| v.quarantine.is_none()), "no quarantine");
    let mut other = world.clone();
    assert!(matches!(other.activate("v1", false), Answer::Changed { unchanged: false, .. }));
    assert_eq!((percent(&other), active(&other)), (None, "v1"));
    assert!(matches!(world.activate("v2", false), Answer::Changed { unchanged: false, .. }));
    assert_eq!((percent(&world), active(&world)), (None, "v2"));
    assert!(world.state.canary.as_ref().is_some_and(|canary| canary.end.as_ref().is_some_and(|end| end.promoted)));
}

#[test]
fn a_rollback_that_names_nothing_takes_the_new_version_back() {
    let mut world = begun();
    let answer = world.roll_back(world::rollback());
    assert!(
        matches!(&answer, Answer::Changed { from: Some(from), to, .. } if from == "v2" && *to == v("v1")),
        "{answer:?}"
    );
    assert_eq!((percent(&world), active(&world)), (None, "v1"));
}

#[test]
fn what_someone_sets_outside_ends_it() {
    let mut world = begun();
    world.set_active("v2");
    world.look();
    assert_eq!((percent(&world), active(&world), world.routing.len()), (None, "v2", 0));
    let mut world = begun();
    world.routing = vec![("v1".to_owned(), "50".to_owned()), ("v2".to_owned(), "50".to_owned())];
    world.look();
    assert_eq!((percent(&world), active(&world), world.routing.len()), (None, "v1", 0), "an external split is dropped");
}

fn paused(world: &World) -> String {
    world.state.split().and_then(|split| split.paused.clone()).expect("paused, with the reason")
}

#[test]
fn no_canary_moves_forward_while_automation_is_off() {
    for (off, dry_run) in [(Some("by dana".to_owned()), false), (None, true)] {
        let mut world = begun();
        (world.paused, world.policy.dry_run) = (off, dry_run);
        world.pass(hours(24));
        assert_eq!((percent(&world), active(&world)), (Some(1), "v1"));
        assert!(paused(&world).contains(if dry_run { "dry run" } else { "by dana" }));
        (world.paused, world.policy.dry_run) = (None, false);
        world.pass(TrafficSplit::CHECK_EVERY);
        assert_eq!(percent(&world), Some(5), "it continues when automation is on again");
    }
}

#[test]
fn no_canary_moves_forward_while_a_serious_incident_waits_for_a_decision() {
    let mut world = begun();
    assert_eq!(world.alert(high("v1")), "incident_opened page");
    world.pass(hours(3));
    assert_eq!(percent(&world), Some(1), "on its base");
    assert!(paused(&world).contains("waits for a decision"));
    world.choose(Choice::Dismiss);
    world.pass(TrafficSplit::CHECK_EVERY);
    assert_eq!(percent(&world), Some(5));

    let mut world = begun();
    world.paused = Some("by dana".to_owned());
    assert_eq!(world.alert(critical("v2")), "held paused");
    world.paused = None;
    world.choose(Choice::Investigate);
    world.pass(minutes(1));
    assert_eq!(percent(&world), Some(1), "on the new version, held and then investigated");
}

#[test]
fn alerts_on_both_sides_of_a_canary_switch_once() {
    for swapped in [false, true] {
        let mut world = begun();
        world.mark_known_good("v0");
        let mut alerts = [critical("v1"), high("v2")];
        if swapped {
            alerts.reverse();
        }
        let before = world.log.len();
        world.deliver(&alerts);
        assert_eq!((percent(&world), active(&world)), (None, "v0"));
        assert_eq!(world.log.len(), before + 1, "one change of traffic");
    }
}

#[test]
fn the_failed_version_is_no_target_of_the_next_question() {
    let mut world = World::with_a_fresh_release();
    world.mark_known_good("v0");
    world.alert(high("v2"));
    world.alert(critical("v1")); // v1 is skipped
    world.share("v0", plan(), false);
    assert_eq!(world.alert(critical("v0")), "rolled_back alert");
    let on_v2 = world.state.open_incidents().find(|incident| incident.version == v("v2")).expect("a question");
    assert_eq!(on_v2.target, Some(v("v1")));
}

#[test]
fn a_base_is_rolled_back_to_a_known_good_healthy_canary() {
    let returns = || {
        let mut world = World::with_a_fresh_release();
        world.share("v1", TrafficShare::Percent(50), false);
        world.pass(minutes(5));
        world
    };
    let mut world = returns();
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!((active(&world), percent(&world)), ("v1", None));
    let mut world = returns();
    world.alert(medium("v1"));
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    let mut world = returns();
    assert_eq!(world.deliver(&[critical("v2"), high("v1")]), ["held target_unhealthy", "rolled_back alert"]);
    assert_eq!((active(&world), percent(&world)), ("v2", None), "the canary failed");
    assert!(world.state.inactive_alerts.iter().all(|inactive| inactive.version == v("v1")));
}

#[test]
fn a_high_alert_ends_a_canary_on_which_many_others_fire() {
    let mut world = begun();
    let row = |n| world::firing(&format!("Row{n}"), "v2", Severity::Medium, Action::Page);
    world.deliver(&(0..Policy::MAX_ALERTS).map(row).collect::<Vec<_>>());
    assert_eq!(world.alert(recommend("v2")), "rolled_back alert");
    assert_eq!(percent(&world), None);
}

/// An alert ends a page about another version.
#[test]
fn the_end_of_a_canary_ends_no_page_about_its_base() {
    let mut world = World::with_a_fresh_release();
    world.escalate();
    let id = world.latest().id.clone();
    world.alert(critical("v2").resolved());
    assert!(matches!(world.share("v2", canary_plan(), true), Answer::Shared { .. }));
    world.pass(minutes(1));
    assert!(world.incidents[&id].pages());
    assert_eq!(world.alert(critical("v2").starting(world.now)), "rolled_back alert");
    assert_eq!(world.served(), "v1");
    assert!(world.state.open_incidents().any(Incident::pages), "v1 fails still: {:?}", world.incidents[&id].phase);
}

/// A canary goes on although people are paged about its base.
#[test]
fn a_canary_stays_while_people_are_paged_about_its_base() {
    let mut world = World::with_a_fresh_release();
    world.escalate();
    world.register("v3");
    assert!(matches!(world.share("v3", canary_plan(), false), Answer::Shared { .. }));
    world.pass(hours(1));
    assert_eq!(
        percent(&world),
        Some(1),
        "{} {:?}",
        world.served(),
        world.state.open_incidents().map(|i| i.phase.kind()).collect::<Vec<_>>()
    );
}

#[test]
fn a_canary_stays_while_a_shipped_version_is_paged_about() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.pass(minutes(3));
    world.release("v3");
    assert!(world.latest().pages());
    world.paused = None;
    says(&mut world, Verdict::Unhealthy, "error ratio 7 %");
    world.register("v4");
    assert!(matches!(world.share("v4", canary_plan(), false), Answer::Shared { .. }));
    world.pass(hours(1));
    assert_eq!(percent(&world), Some(1), "{}", world.served());
}

/// The age guard and a canary that was promoted a moment ago.
#[test]
fn a_canary_that_was_promoted_a_moment_ago_has_not_served_for_long() {
    let mut world = World::with_a_fresh_release();
    world.policy.ask_when_active_for_longer_than = Some(hours(24 * 7));
    world.register("v3");
    world.share("v3", TrafficShare::Percent(5), false);
    world.pass(hours(24 * 8));
    world.activate("v3", false);
    world.pass(minutes(1));
    let said = world.alert(critical("v3"));
    assert_eq!(said, "rolled_back alert", "{:?}", world.latest().held);
}

/// The end of a canary lifts the quarantine of its base.
#[test]
fn the_end_of_a_canary_lifts_no_quarantine_of_its_base() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2").starting(world.now));
    world.alert(critical("v2").resolved());
    world.set_active("v2");
    world.look();
    assert!(world.is_quarantined("v2"));
    world.register("v3");
    world.share("v3", canary_plan(), false);
    world.pass(minutes(1));
    assert_eq!(world.alert(high("v3").starting(world.now)), "rolled_back alert");
    assert_eq!(world.served(), "v2");
    assert!(world.is_quarantined("v2"), "nobody forced it, and it has not soaked");
}

/// A canary that begins with all traffic.
#[test]
fn a_canary_of_one_stage_is_an_activation() {
    let mut world = World::with_a_fresh_release();
    world.register("v3");
    let plan = crate::Plan::canary(&[100], vec![minutes(10)]).expect("a plan");
    let answer = world.share("v3", TrafficShare::Canary(plan), false);
    assert_eq!((percent(&world), world.served()), (None, "v3"), "{answer:?}");
}

/// F15b. A canary of one stage passes the gates in front of all traffic.
#[test]
fn a_canary_of_one_stage_wants_the_gates_of_all_traffic() {
    let mut world = World::with_a_fresh_release();
    world.policy.gates.ab_test = true;
    world.register("v3");
    assert_eq!(world::refusal(&world.activate("v3", false)), RefusalCode::GateClosed);
    let plan = crate::Plan::canary(&[100], vec![minutes(10)]).expect("a plan");
    assert_eq!(world::refusal(&world.share("v3", TrafficShare::Canary(plan), false)), RefusalCode::GateClosed);
}

// third batch

#[test]
fn a_base_is_not_rolled_back_to_a_canary_with_a_dismissed_alert() {
    let mut world = World::with_a_fresh_release();
    world.share("v1", TrafficShare::Percent(50), false);
    world.pass(minutes(5));
    world.alert(medium("v1"));
    world.choose(Choice::Dismiss);
    assert_eq!(world.alert(medium("v1")), "ignored dismissed");
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    assert_eq!(world.served(), "v2");
}
