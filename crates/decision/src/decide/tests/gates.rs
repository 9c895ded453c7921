//! Promotion gates.

use super::*;
use crate::gates;
use crate::policy::GatePolicy;
use crate::verification::Evidence;

fn world(gates: GatePolicy) -> World {
    let mut world = World::new();
    world.release("v1");
    world.pass(hours(2));
    world.policy.gates = gates;
    world.register("v2");
    world
}

fn evidence(world: &mut World, passed: bool) {
    let against = world.state.replaced_by(&v("v2")).cloned();
    let evidence = Evidence { at: world.now, against, passed, text: "success 99.00 % of 1000 requests".to_owned() };
    world.happens(&Event::Measured { version: v("v2"), evidence });
}

fn closed(answer: Answer) -> String {
    match answer {
        Answer::Refused(refusal) if refusal.code == RefusalCode::GateClosed => refusal.message,
        other => panic!("no gate is closed: {other:?}"),
    }
}

fn canary() -> TrafficShare {
    TrafficShare::Canary(Policy::default().canary.usual.plan)
}

#[test]
fn all_are_open_where_none_is_on() {
    let mut world = world(GatePolicy::default());
    assert!(matches!(world.activate("v2", false), Answer::Changed { .. }));
}

#[test]
fn staging_comes_before_any_traffic() {
    let on = GatePolicy { staging: Some(hours(24)), ..GatePolicy::default() };
    let mut world = world(on);
    assert!(closed(world.share("v2", canary(), false)).contains("staged_at"));
    let staged = Register { staged_at: Some(world.now.minus(hours(23))), ..world::registration("v2") };
    world.happens(&Event::Register(staged));
    assert!(closed(world.share("v2", canary(), false)).contains("23 h"));
    assert!(closed(world.activate("v2", false)).contains("23 h"));
    world.pass(hours(1));
    assert!(matches!(world.share("v2", canary(), false), Answer::Shared { .. }));
}

#[test]
fn an_ab_test_comes_before_all_traffic_and_must_be_fresh() {
    let mut world = world(GatePolicy { ab_test: true, ..GatePolicy::default() });
    assert!(closed(world.activate("v2", false)).contains("not measured"));
    assert!(matches!(world.share("v2", canary(), false), Answer::Shared { .. }), "a share is how it is measured");
    evidence(&mut world, false);
    assert!(closed(world.activate("v2", false)).contains("success 99.00 %"));
    evidence(&mut world, true);
    world.pass(minutes(5));
    assert!(closed(world.activate("v2", false)).contains("too old"));
    evidence(&mut world, true);
    assert!(matches!(world.activate("v2", false), Answer::Changed { .. }));
}

#[test]
fn an_ab_test_is_about_the_version_that_is_replaced() {
    let mut world = world(GatePolicy { ab_test: true, ..GatePolicy::default() });
    world.share("v2", canary(), false);
    evidence(&mut world, true);
    world.share("v2", TrafficShare::Percent(0), false);
    world.policy.gates.ab_test = false;
    world.register("v3");
    world.activate("v3", false);
    world.policy.gates.ab_test = true;
    assert!(closed(world.activate("v2", false)).contains("measured against v1, which it would not replace: success"));
    assert!(matches!(world.share("v2", canary(), false), Answer::Shared { .. }));
    world.state.version_mut(&v("v2")).and_then(|record| record.evidence.as_mut()).expect("evidence").against = None;
    assert!(matches!(world.activate("v2", false), Answer::Changed { .. }), "the previous release did not record it");
}

#[test]
fn a_canary_waits_in_front_of_a_closed_gate_and_goes_on_by_itself() {
    let mut world = world(GatePolicy { ab_test: true, first_hour: Some(hours(1)), ..GatePolicy::default() });
    world.share("v2", canary(), false);
    world.pass(minutes(35));
    let split = world.state.split().cloned().expect("a split");
    assert_eq!(split.percent(), 25, "the stages before are free");
    assert!(split.paused.as_ref().is_some_and(|why| why.starts_with("gate ab_test: not measured")), "{split:?}");
    evidence(&mut world, true);
    world.pass(minutes(2));
    let waits = |world: &World| world.state.split().and_then(|split| split.paused.clone()).unwrap_or_default();
    assert!(waits(&world).starts_with("gate first_hour"), "{}", waits(&world));
    world.pass(minutes(22));
    evidence(&mut world, true);
    world.pass(minutes(2));
    assert!(world.state.split().is_none());
    assert_eq!(world.active.version(), Some(&v("v2")));
}

#[test]
fn the_first_hour_wants_traffic_without_trouble() {
    let mut world = world(GatePolicy { first_hour: Some(hours(1)), ..GatePolicy::default() });
    assert!(closed(world.activate("v2", false)).contains("canary"));
    world.share("v2", TrafficShare::Percent(5), false);
    world.pass(hours(1));
    world.alert(medium("v2"));
    assert!(closed(world.activate("v2", false)).contains("incident"));
    world.choose(Choice::Dismiss);
    assert!(matches!(world.activate("v2", false), Answer::Changed { .. }));
}

#[test]
fn force_opens_a_gate_only_with_a_reason_which_is_logged() {
    let mut world = world(GatePolicy { ab_test: true, ..GatePolicy::default() });
    assert!(closed(world.activate("v2", true)).contains("reason"));
    let forced = Activation {
        version: v("v2"),
        share: TrafficShare::All,
        operator: Operator::recorded("dana"),
        force: true,
        reason: Some("hotfix of a leak".to_owned()),
    };
    assert!(matches!(world.activation(forced), Answer::Changed { .. }));
    let entry = world.log.last().expect("an entry");
    assert!(entry.reason.contains("gate ab_test overridden: hotfix of a leak"), "{entry:?}");
}

#[test]
fn what_is_known_good_has_shown_it_and_a_rollback_asks_no_gate() {
    let on = GatePolicy { staging: Some(hours(24)), ab_test: true, first_hour: Some(hours(1)) };
    let mut by_hand = world(GatePolicy::default());
    by_hand.activate("v2", false);
    by_hand.policy.gates = on.clone();
    assert!(matches!(by_hand.activate("v1", false), Answer::Changed { .. }), "v1 is known-good");
    let mut by_alert = world(GatePolicy::default());
    by_alert.activate("v2", false);
    by_alert.policy.gates = on;
    assert_eq!(by_alert.alert(critical("v2")), "rolled_back alert");
}

#[test]
fn figures_are_asked_for_once_and_told_for_each_gate() {
    let mut world = world(GatePolicy { ab_test: true, ..GatePolicy::default() });
    let ask = Event::AskGates { version: v("v2") };
    let commit = world.happens(&ask).commit.expect("asked");
    assert_eq!(commit.canary.wake, Some(world.now), "the worker brings them at once");
    assert!(world.happens(&ask).commit.is_none(), "they are on their way");
    assert_eq!(world.state.to_measure().count(), 1);
    world.now = world.now.plus(seconds(1));
    evidence(&mut world, true);
    assert_eq!((world.state.to_measure().count(), world.state.next_wake()), (0, None));
    let all = gates::gates(&world.policy, &world.state, &v("v2"), world.now);
    let told = all.each_ref().map(|gate| (gate.name.as_str(), gate.on, gate.passed));
    assert_eq!(told, [("staging", false, false), ("ab_test", true, true), ("first_hour", false, false)]);
    let unknown = world.happens(&Event::AskGates { version: v("v9") }).answer;
    assert!(matches!(unknown, Answer::Refused(refusal) if refusal.code == RefusalCode::UnknownVersion));
}

#[test]
fn an_hour_after_a_minute_of_traffic_is_no_hour_with_traffic() {
    let mut world = world(GatePolicy { first_hour: Some(hours(1)), ..GatePolicy::default() });
    world.share("v2", TrafficShare::Percent(1), false);
    world.pass(minutes(1));
    world.share("v2", TrafficShare::Percent(0), false);
    world.pass(hours(2));
    assert!(closed(world.activate("v2", false)).contains("no traffic"));
}
