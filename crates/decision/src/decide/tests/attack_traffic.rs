//! What is claimed of a version, and what moves traffic, where several alerts, guards and incidents meet.

use super::analysis::{begun as analysed, compared, harmful};
use super::*;

fn says(world: &mut World, verdict: Verdict, text: &str) {
    world.says = Some(Finding::new(verdict, text));
}

fn held(world: &World) -> Option<Guard> {
    world.latest().held.as_ref().map(|held| held.guard)
}

fn percent(world: &World) -> Option<u8> {
    world.state.split().map(|split| split.percent())
}

fn plan() -> TrafficShare {
    TrafficShare::Canary(Policy::default().canary.usual.plan)
}

/// v2 is being rolled back to v1, step by step.
fn gradual() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    says(&mut world, Verdict::Healthy, "error ratio 0.10 %");
    world.alert(high("v2"));
    assert!(matches!(world.choose(Choice::ApproveGradual), Answer::Shared { percent: 25, .. }));
    world
}

fn go_on(world: &mut World, incident: &IncidentId) {
    let (incident, operator, choice) = (incident.clone(), Operator::recorded("dana"), Choice::ApproveGradual);
    let click = Decide { incident, choice, operator, target: None, force: false, question_number: None };
    let answer = world.happens(&Event::Decide(click)).answer;
    assert!(matches!(answer, Answer::Shared { percent: 50, .. }), "{answer:?}");
}

/// v2 was rolled back a moment ago, and Prometheus is asked how v1 does.
fn rolled_back() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    world
}

/// v2 was rolled back and activated again with force. Its alert began before that, and another guard holds it as well.
fn held_by_two(first: fn(&mut World)) -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(critical("v2").starting(world.now));
    world.pass(minutes(10));
    first(&mut world);
    world.activate("v2", true);
    world.pass(minutes(2));
    world
}

#[test]
fn the_next_guard_is_reported_when_the_first_is_gone() {
    let paused: fn(&mut World) = |world| world.paused = Some("dana".to_owned());
    let budget: fn(&mut World) = |world| world.recent_auto = 100;
    for (first, guard) in [(paused, Guard::Paused), (budget, Guard::Budget)] {
        let mut world = held_by_two(first);
        assert_eq!(held(&world), Some(guard));
        (world.paused, world.recent_auto) = (None, 0);
        says(&mut world, Verdict::Unhealthy, "error ratio 7.00 %");
        match guard {
            Guard::Paused => assert_eq!(world.alert(critical("v2")), "duplicate duplicate"),
            _ => drop(world.happens(&Event::Resume { incident: world.latest().id.clone() })),
        }
        assert_eq!(held(&world), Some(Guard::PredatesActivation));
        assert!(!world.would_write(&[critical("v2")]), "once");
        world.pass(seconds(15));
        assert_eq!((world.served(), world.phase()), ("v1", PhaseKind::Verifying), "{guard:?}");
    }
}

#[test]
fn a_high_alert_ends_a_canary_whatever_else_fires() {
    let page = || world::firing("Slow", "v2", Severity::Medium, Action::Page);
    let orders = [vec![page(), recommend("v2")], vec![recommend("v2"), page()]];
    for split in [false, true] {
        for order in &orders {
            let mut world = World::new();
            world.release("v1");
            world.pass(hours(2));
            world.register("v2");
            world.share("v2", plan(), false);
            match split {
                true => order.iter().for_each(|alert| drop(world.alert(alert.clone()))),
                false => drop(world.deliver(order)),
            }
            assert_eq!((percent(&world), world.served()), (None, "v1"), "{split} {order:?}");
        }
    }
}

#[test]
fn the_severity_of_an_incident_is_that_of_its_worst_alert() {
    let mut world = World::with_a_fresh_release();
    world.alert(world::firing("Slow", "v2", Severity::Medium, Action::Page));
    world.alert(recommend("v2"));
    assert_eq!((world.latest().severity, world.latest().action), (Severity::High, Action::Page));
}

#[test]
fn a_gradual_rollback_keeps_its_pace_while_paused() {
    for dry_run in [false, true] {
        let mut world = gradual();
        (world.paused, world.policy.dry_run) = ((!dry_run).then(|| "dana".to_owned()), dry_run);
        let guard = if dry_run { "held dry_run" } else { "held paused" };
        assert_eq!(world.alert(critical("v2")), guard);
        assert_eq!(percent(&world), Some(25));
        assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
        world.pass(minutes(10));
        assert_eq!(percent(&world), Some(50), "as was promised");
        (world.paused, world.policy.dry_run) = (None, false);
        assert_eq!(world.alert(critical("v2")), "rolled_back alert");
        assert_eq!((percent(&world), world.served()), (None, "v1"));
    }
}

#[test]
fn a_high_alert_on_a_gradual_target_asks_its_own_decider() {
    let mut world = gradual();
    let id = world.latest().id.clone();
    assert_eq!(world.alert(high("v1")), "incident_opened page");
    assert!(world.incidents[&id].is_stuck() && world.incidents[&id].pages());
    assert_eq!((world.latest().version.as_str(), world.phase()), ("v1", PhaseKind::AwaitingDecision));
    world.pass(minutes(60));
    assert_eq!(percent(&world), Some(25), "never forward");
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    let mut ended = world.clone();
    ended.alert(high("v1").resolved());
    assert_eq!(ended.alert(critical("v2")), "rolled_back alert");
    // whoever lets it go on has seen the alert
    go_on(&mut world, &id);
    assert_eq!(world.alert(high("v1")), "duplicate duplicate");
    assert!(!world.incidents[&id].is_stuck());
}

#[test]
fn a_repeat_does_not_stop_a_gradual_rollback_that_a_person_let_go_on() {
    let mut world = gradual();
    let id = world.latest().id.clone();
    world.alert(critical("v1"));
    assert!(world.latest().is_stuck());
    go_on(&mut world, &id);
    assert_eq!(world.alert(critical("v1")), "duplicate duplicate");
    assert_eq!((percent(&world), world.latest().is_stuck()), (Some(50), false));
    world.alert(critical("v1").named("Timeouts"));
    assert!(world.latest().is_stuck(), "another one is news");
}

#[test]
fn a_medium_alert_on_a_gradual_target_is_only_observed() {
    let mut world = gradual();
    let id = world.latest().id.clone();
    assert_eq!(world.alert(medium("v1")), "incident_opened observe");
    assert!(!world.incidents[&id].is_stuck());
    world.pass(minutes(10));
    assert_eq!(percent(&world), Some(50));
}

#[test]
fn a_canary_promoted_over_an_open_incident_is_verified() {
    let mut world = World::with_a_fresh_release();
    (world.policy.verify, world.paused) = (true, Some("dana".to_owned()));
    world.register("v3");
    world.share("v3", plan(), false);
    assert_eq!(world.alert(critical("v2")), "held paused");
    world.pass(minutes(3));
    assert!(world.latest().pages());
    assert!(matches!(world.steer(Steer::Promote), Answer::Changed { .. }));
    assert_eq!((world.phase(), world.latest().subject().as_str()), (PhaseKind::Verifying, "v3"));
    assert!(world.latest().pages(), "v3 is not verified yet");
    says(&mut world, Verdict::Healthy, "error ratio 0.10 %");
    world.pass(minutes(1));
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Recovered, false));
}

#[test]
fn stopping_a_canary_without_figures_blames_it_for_nothing() {
    for (found, trusted) in [(compared(3, true), true), (harmful(), false)] {
        let mut world = analysed();
        world.mark_known_good("v2");
        world.looks.compared = Some(Ok(found));
        world.pass(minutes(75));
        assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
        assert!(matches!(world.steer(Steer::Abort), Answer::Changed { .. }));
        assert_eq!(world.is_known_good("v2"), trusted);
    }
}

#[test]
fn whoever_switched_automation_off_is_asked_about_a_canary_that_harms() {
    let mut world = analysed();
    world.paused = Some("dana".to_owned());
    world.looks.compared = Some(Ok(compared(3, true)));
    world.pass(hours(3));
    assert_eq!(world.incidents.len(), 0, "they know that it waits");
    world.looks.compared = Some(Ok(harmful()));
    world.pass(minutes(1));
    assert_eq!((percent(&world), world.phase()), (Some(1), PhaseKind::AwaitingDecision));
    assert!(world.latest().summary().contains("v2 is worse"), "{}", world.latest().summary());
}

#[test]
fn the_end_of_an_alert_is_heard_by_every_incident_on_its_version() {
    let mut world = rolled_back();
    let first = world.latest().id.clone();
    assert!(matches!(world.share("v2", plan(), true), Answer::Shared { .. }));
    let second = world.latest().id.clone();
    assert_ne!(first, second, "the retry has an incident of its own");
    world.alert(critical("v2").resolved());
    world.pass(minutes(2));
    assert_eq!(world.incidents[&second].phase.kind(), PhaseKind::Resolved);
    says(&mut world, Verdict::Healthy, "error ratio 0.10 %");
    world.pass(minutes(2));
    assert_eq!(world.incidents[&first].phase.kind(), PhaseKind::Recovered);
    assert_eq!(world.incidents[&second].phase.kind(), PhaseKind::Resolved, "nothing fires again");
}

#[test]
fn nothing_is_recovered_while_an_alert_fires_on_the_target() {
    let mut world = rolled_back();
    let id = world.latest().id.clone();
    says(&mut world, Verdict::Healthy, "error ratio 0.10 %");
    assert_eq!(world.alert(recommend("v1")), "incident_opened recommend");
    world.pass(minutes(10));
    assert_eq!(world.incidents[&id].phase.kind(), PhaseKind::Verifying);
    let told = world.incidents[&id].notes.iter().any(|note| note.text.contains("QualityDropHigh fires on v1"));
    assert!(told, "{:?}", world.incidents[&id].notes);
    assert!(!world.incidents[&id].pages(), "the other incident asks");
    world.alert(recommend("v1").resolved());
    world.pass(seconds(30));
    assert_eq!(world.incidents[&id].phase.kind(), PhaseKind::Recovered);
}

#[test]
fn an_escalation_names_the_last_bad_figures() {
    let mut world = rolled_back();
    says(&mut world, Verdict::Unhealthy, "error ratio 7.00 %");
    world.pass(seconds(5));
    says(&mut world, Verdict::Unknown, "prometheus: no answer");
    world.pass(minutes(5));
    assert_eq!(world.phase(), PhaseKind::Escalated);
    let said = &world.latest().notes.last().expect("a note").text;
    assert!(said.contains("error ratio 7.00 %; the last check: prometheus: no answer"), "{said}");
}

#[test]
fn servers_on_the_bad_version_page_whatever_others_serve() {
    let ways: [fn(&mut World); 2] = [
        |world| world.release("v3"),
        |world| {
            let to = Rollback { target: Some(v("v0")), ..world::rollback() };
            assert!(matches!(world.roll_back(to), Answer::Changed { .. }));
        },
    ];
    for change in ways {
        let mut world = rolled_back();
        world.mark_known_good("v0");
        let id = world.latest().id.clone();
        says(&mut world, Verdict::Healthy, "error ratio 0.10 %");
        let still = Traffic { still: Instances::of(vec!["pod-3".to_owned()]), following: 2, ..Traffic::default() };
        world.traffic = Some(still);
        world.pass(minutes(5));
        assert_eq!(world.incidents[&id].failure(), Some(RollbackFailure::NotFollowed));
        change(&mut world);
        world.pass(minutes(20));
        assert_eq!(world.incidents[&id].failure(), Some(RollbackFailure::NotFollowed), "pod-3 serves v2 still");
        assert!(world.incidents[&id].pages());
        world.traffic = Some(Traffic { target: 2_000, following: 3, ..Traffic::default() });
        world.pass(minutes(2));
        assert_eq!(world.incidents[&id].phase.kind(), PhaseKind::Recovered);
    }
}

#[test]
fn what_was_measured_of_the_first_target_says_nothing_of_the_next() {
    let mut world = rolled_back();
    let id = world.latest().id.clone();
    says(&mut world, Verdict::Healthy, "error ratio 0.10 %");
    world.traffic =
        Some(Traffic { still: Instances::of(vec!["pod-3".to_owned()]), following: 2, ..Traffic::default() });
    world.pass(minutes(5));
    assert_eq!(world.incidents[&id].failure(), Some(RollbackFailure::NotFollowed));
    let switch = world.incidents[&id].switch.clone().expect("a switch");
    let check = Checked {
        incident: id.clone(),
        switched_at: switch.at,
        number: switch.verification.as_ref().map_or(0, |verification| verification.checks),
        finding: Finding::new(Verdict::Healthy, "error ratio 0.10 %"),
        traffic: Some(Traffic { target: 2_000, following: 3, ..Traffic::default() }),
        blame: None,
    };
    world.register("v3");
    world.set_active("v3");
    world.look();
    world.happens(&Event::Checked(check.clone()));
    assert_ne!(world.incidents[&id].phase.kind(), PhaseKind::Recovered, "it was about v1");
    let number = world.incidents[&id].verification().map_or(0, |verification| verification.checks);
    world.happens(&Event::Checked(Checked { number, ..check }));
    assert_ne!(world.incidents[&id].phase.kind(), PhaseKind::Recovered, "two checks in a row are wanted");
}

#[test]
fn an_unlisted_alert_on_the_target_holds_nothing() {
    let mut world = World::with_a_fresh_release();
    assert!(world.alert(medium("v1")).starts_with("ignored"));
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    let lists = |world: &mut World, alerts: &[Alert]| {
        let fingerprints = alerts.iter().map(|alert| alert.fingerprint.clone()).collect();
        let incident = world.latest().id.clone();
        world.happens(&Event::Listed { incident, fingerprints })
    };
    lists(&mut world, &[critical("v2"), medium("v1")]);
    lists(&mut world, &[critical("v2")]);
    world.pass(Policy::ABSENT - seconds(1));
    lists(&mut world, &[critical("v2")]);
    assert_eq!(
        world.alert(critical("v2")),
        "duplicate duplicate",
        "a restarted Alertmanager knows nothing for a while"
    );
    world.pass(seconds(1));
    lists(&mut world, &[critical("v2")]);
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
}

#[test]
fn an_alert_that_is_delivered_between_two_lists_without_it_has_not_ended() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    let incident = world.latest().id.clone();
    let lists = |world: &mut World, alerts: &[Alert]| {
        let fingerprints = alerts.iter().map(|alert| alert.fingerprint.clone()).collect();
        world.happens(&Event::Listed { incident: incident.clone(), fingerprints });
    };
    lists(&mut world, &[high("v2")]);
    for _ in 0..4 {
        lists(&mut world, &[]);
        world.pass(seconds(45));
        assert_eq!(world.alert(high("v2")), "duplicate duplicate");
        world.pass(seconds(15));
    }
    assert!(world.latest().is_firing());
}
