//! The guards, and the incidents that they hold.

use super::*;
use crate::rehearse;

/// Creates the state in which `guard` holds.
pub(super) fn put(world: &mut World, guard: Guard) {
    match guard {
        Guard::Paused => world.paused = Some("dana: launch".to_owned()),
        Guard::DryRun => world.policy.dry_run = true,
        Guard::ForeignValue => world.set_value(b"{oops}"),
        Guard::KeyDeleted => world.active = Active::Absent,
        Guard::NoKnownGood => world.state.version_mut(&v("v1")).expect("v1").known_good = None,
        Guard::TargetUnhealthy => assert_eq!(world.alert(high("v1")), "ignored not_active"),
        Guard::Cooldown => {
            // v2 becomes a version that a rollback activated
            world.release("v3");
            let back = Rollback { target: Some(v("v2")), ..rollback() };
            assert!(matches!(world.roll_back(back), Answer::Changed { unchanged: false, .. }));
        }
        Guard::Budget => world.recent_auto = world.policy.max_auto_rollbacks,
        Guard::KeepsReturning => {
            let once = Return { at: world.now, operator: Operator::recorded("argocd") };
            world.state.version_mut(&v("v2")).expect("v2").returns = vec![once; Policy::RETURNS];
        }
        Guard::PredatesActivation => unreachable!("the alert says it"),
        Guard::ServedLong => world.policy.ask_when_active_for_longer_than = Some(minutes(5)),
        Guard::Unconfirmed => unreachable!("known only after Prometheus was asked"),
    }
}

/// The guards that depend only on the snapshot.
fn at_once() -> impl DoubleEndedIterator<Item = Guard> {
    let others = [Guard::PredatesActivation, Guard::Unconfirmed];
    Guard::ALL.into_iter().filter(move |guard| !others.contains(guard))
}

fn rollback() -> Rollback {
    Rollback { force: true, ..world::rollback() }
}

#[test]
fn each_guard_holds_the_rollback_and_asks_the_fallback_decider() {
    for guard in at_once() {
        let mut world = World::with_a_fresh_release();
        world.policy.fallback_decider = "the-night-shift".to_owned();
        put(&mut world, guard);
        let switches = world.rollbacks().len();
        assert_eq!(world.alert(critical("v2")), format!("held {}", guard.as_str()));
        let key = (!matches!(guard, Guard::ForeignValue | Guard::KeyDeleted)).then(|| v("v2"));
        assert_eq!((world.active.version().cloned(), world.rollbacks().len()), (key, switches), "{guard:?}");
        let incident = world.latest();
        assert_eq!(incident.phase.kind(), PhaseKind::AwaitingDecision, "{guard:?}");
        assert_eq!(incident.held.as_ref().map(|h| h.guard), Some(guard));
        assert_eq!(incident.decider, "the-night-shift", "{guard:?}");
        assert_eq!(incident.deadline(), Some(world.now.plus(minutes(2))), "{guard:?}");
        assert_eq!(world.notes(NoteKind::Held), 1, "the thread says which guard and why");
        assert!(!world.would_write(&[critical("v2")]), "{guard:?}: a repeat asks for nothing new");
        assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
    }
}

#[test]
fn the_first_guard_in_the_list_is_the_one_that_is_named() {
    for first in at_once() {
        let mut world = World::with_a_fresh_release();
        for guard in at_once().rev().filter(|g| *g >= first) {
            put(&mut world, guard);
        }
        assert_eq!(world.alert(critical("v2")), format!("held {}", first.as_str()));
    }
}

#[test]
fn a_rehearsal_lists_every_guard_that_holds() {
    let mut world = World::with_a_fresh_release();
    // these exclude others: a fault of the key, no target, and a version that a rollback has just activated
    let others = [Guard::ForeignValue, Guard::KeyDeleted, Guard::NoKnownGood, Guard::ServedLong];
    let expected: Vec<Guard> = at_once().filter(|guard| !others.contains(guard)).collect();
    expected.iter().rev().for_each(|guard| put(&mut world, *guard));
    let event = Event::Alerts(vec![critical("v2")]);
    let told = rehearse(&world.policy, &world.snapshot(&event), &critical("v2"), world.now);
    let guards: Vec<Guard> = told.guards.iter().map(|holding| holding.held.guard).collect();
    assert_eq!(guards, expected);
    let left = |of: Guard| told.guards.iter().find(|holding| holding.held.guard == of).and_then(|holding| holding.left);
    assert!(left(Guard::Cooldown).is_some_and(|left| left <= world.policy.cooldown), "{told:?}");
    assert_eq!(left(Guard::Paused), None, "only a person ends it");
}

#[test]
fn a_held_critical_acts_on_its_next_repeat_once_the_guard_is_gone() {
    for guard in [Guard::Paused, Guard::DryRun, Guard::NoKnownGood, Guard::TargetUnhealthy, Guard::Budget] {
        let mut world = World::with_a_fresh_release();
        put(&mut world, guard);
        world.alert(critical("v2"));
        match guard {
            Guard::Paused => world.paused = None,
            Guard::DryRun => world.policy.dry_run = false,
            Guard::NoKnownGood => drop(world.mark_known_good("v1")),
            Guard::TargetUnhealthy => drop(world.alert(high("v1").resolved())),
            _ => world.recent_auto = 0,
        }
        assert_eq!(world.alert(critical("v2")), "rolled_back alert", "{guard:?}");
        let incident = world.latest();
        assert_eq!((world.served(), incident.phase.kind(), incident.held.clone()), ("v1", PhaseKind::Verifying, None));
        assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
        assert_eq!(world.incidents.len(), 1);
    }
}

#[test]
fn a_held_critical_waits_for_the_person_who_investigates() {
    let mut world = World::with_a_fresh_release();
    put(&mut world, Guard::Paused);
    world.alert(critical("v2"));
    world.choose(Choice::Investigate);
    world.paused = None;
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
    assert_eq!(world.alert(high("v2")), "incident_updated joined", "a lesser alert is no reason to act either");
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::Investigating));
    assert_eq!(world.alert(critical("v2").named("LatencyCritical")), "rolled_back alert", "a new critical is");
}

#[test]
fn a_lesser_alert_that_lets_a_held_critical_act_reports_the_rollback() {
    let mut world = World::with_a_fresh_release();
    put(&mut world, Guard::Paused);
    world.alert(critical("v2"));
    world.paused = None;
    assert_eq!(world.alert(high("v2")), "rolled_back alert");
    assert_eq!(world.rollbacks(), ["v2>v1"]);
}

#[test]
fn a_held_critical_that_ended_acts_no_more() {
    let mut world = World::with_a_fresh_release();
    put(&mut world, Guard::Paused);
    world.deliver(&[critical("v2"), high("v2")]);
    world.alert(critical("v2").resolved());
    world.paused = None;
    assert_eq!(world.alert(high("v2")), "duplicate duplicate");
    assert_eq!(world.served(), "v2");
}

#[test]
fn a_dry_run_remembers_the_first_rollback_that_it_kept_from_happening() {
    let mut world = World::with_a_fresh_release();
    world.policy.dry_run = true;
    assert_eq!(world.alert(critical("v2")), "held dry_run");
    let dry_run = world.latest().dry_run.clone().expect("a rehearsed rollback");
    assert_eq!((dry_run.at, dry_run.from, dry_run.to), (world.now, v("v2"), v("v1")));
    assert_eq!(dry_run.trigger, world.latest().alerts[0].alertname);
    let first = dry_run.at;
    world.pass(minutes(3));
    world.alert(critical("v2").named("LatencyCritical"));
    world.choose(Choice::Approve);
    assert_eq!(world.latest().dry_run.as_ref().map(|dry_run| dry_run.at), Some(first), "kept when a person does it");
}

#[test]
fn what_another_guard_would_hold_is_not_rehearsed() {
    for guard in at_once().filter(|guard| *guard != Guard::DryRun) {
        let mut world = World::with_a_fresh_release();
        put(&mut world, guard);
        world.policy.dry_run = true;
        world.alert(critical("v2"));
        assert_eq!(world.latest().dry_run, None, "{guard:?}");
    }
}

#[test]
fn joining_a_held_incident_makes_no_click_stale() {
    let mut world = World::with_a_fresh_release();
    put(&mut world, Guard::Paused);
    world.alert(critical("v2"));
    let ask = world.latest().question_number;
    world.alert(high("v2"));
    world.alert(critical("v2").named("LatencyCritical"));
    assert_eq!(world.latest().question_number, ask, "the question is the same");
    world.paused = None;
    world.policy.dry_run = true;
    world.alert(critical("v2").named("ThirdCritical"));
    assert_eq!(world.latest().question_number, ask + 1, "it is held for another reason now");
}

#[test]
fn the_cooldown_ends_with_time_or_with_a_persons_activation() {
    let after_a_rollback = || {
        let mut world = World::new();
        for version in ["v0", "v1"] {
            world.release(version);
            world.pass(hours(2));
        }
        world.release("v2");
        assert_eq!(world.alert(critical("v2")), "rolled_back alert");
        world
    };
    let mut world = after_a_rollback();
    world.pass(minutes(30) - seconds(1));
    assert_eq!(world.alert(critical("v1")), "held cooldown");
    world.pass(seconds(1));
    assert_eq!(world.alert(critical("v1")), "rolled_back alert", "no earlier than after the cooldown");
    assert_eq!(world.rollbacks(), ["v2>v1", "v1>v0"]);

    let mut world = after_a_rollback();
    world.activate("v1", true);
    assert_eq!(world.alert(critical("v1")), "rolled_back alert", "a person stood behind v1");

    let mut world = after_a_rollback();
    world.release("v3");
    assert_eq!(world.alert(critical("v3")), "rolled_back alert", "v3 was put there by a person");

    let mut world = after_a_rollback();
    world.set_active("v3");
    assert_eq!(world.alert(critical("v3")), "rolled_back alert", "v3 was put there by CI");
}

#[test]
fn the_budget_counts_other_prompts_and_zero_means_never() {
    let mut world = World::with_a_fresh_release();
    world.recent_auto = 4;
    assert_eq!(world.alert(critical("v2")), "rolled_back alert", "the fifth is within the budget");
    let mut world = World::with_a_fresh_release();
    world.recent_auto = 5;
    assert_eq!(world.alert(critical("v2")), "held budget", "the sixth is not");
    let mut world = World::with_a_fresh_release();
    world.policy.max_auto_rollbacks = 0;
    assert_eq!(world.alert(critical("v2")), "held budget");
    assert!(world.latest().held.as_ref().unwrap().detail.contains("off"));
}

#[test]
fn an_alert_on_the_target_stops_counting_when_it_is_forgotten() {
    let mut world = World::with_a_fresh_release();
    put(&mut world, Guard::TargetUnhealthy);
    world.pass(world.policy.alert_resolve_timeout - seconds(1));
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    world.pass(seconds(1));
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
}

#[test]
fn the_guard_says_why_a_replaced_version_is_no_target() {
    let mut world = World::new();
    world.release("v1");
    world.pass(hours(2));
    world.alert(high("v1"));
    let incident = world.latest().id.clone();
    world.release("v2");
    assert_eq!(world.latest().phase.kind(), PhaseKind::Superseded);
    world.pass(minutes(5));
    world.alert(high("v1").resolved());
    assert_eq!(world.alert(critical("v2")), "held no_known_good");
    let detail = world.latest().held.as_ref().expect("held").detail.clone();
    let said = format!("v1 lost its traffic 5 min ago while incident {incident} was open");
    assert!(detail.contains(&said), "{detail}");
}

#[test]
fn guards_bind_only_the_system() {
    for guard in at_once().filter(|guard| *guard != Guard::NoKnownGood) {
        let mut world = World::with_a_fresh_release();
        put(&mut world, guard);
        world.alert(critical("v2"));
        let id = world.latest().id.clone();
        assert!(matches!(world.choose(Choice::Approve), Answer::Changed { unchanged: false, .. }), "{guard:?}");
        assert_eq!(world.served(), "v1");
        assert_eq!(world.incidents[&id].switch.as_ref().map(|f| f.mode), Some(SwitchMode::Approved));
    }
}

#[test]
fn a_version_that_has_served_for_long_is_not_rolled_back_by_itself() {
    let after = |days: u64, more: u64| {
        let mut world = World::with_a_fresh_release();
        world.policy.ask_when_active_for_longer_than = Some(hours(7 * 24));
        let served = world.state.serving.as_ref().map(|serving| world.now.since(serving.since)).unwrap_or_default();
        world.pass(hours(24 * days) - served + seconds(more));
        world
    };
    assert_eq!(after(7, 0).alert(critical("v2")), "rolled_back alert", "not longer than that");
    let mut world = after(7, 1);
    assert_eq!(world.alert(critical("v2")), "held served_long");
    let mut world = after(21, 5);
    assert_eq!(world.alert(critical("v2")), "held served_long");
    let held = world.latest().held.clone().expect("a guard");
    assert_eq!(held.detail, "v2 has served for 21 days; nothing about the prompt has changed");
    let note = world.latest().notes.iter().find(|note| note.kind == NoteKind::Held).expect("the thread says so");
    assert_eq!(note.text, "held (served_long): v2 has served for 21 days; nothing about the prompt has changed");
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }), "a person may");
    let mut world = after(21, 5);
    world.policy.ask_when_active_for_longer_than = None;
    assert_eq!(world.alert(critical("v2")), "rolled_back alert", "off");
}

#[test]
fn a_canary_does_not_make_the_version_beside_it_younger() {
    let beside = |percent: u8| {
        let mut world = World::with_a_fresh_release();
        world.policy.ask_when_active_for_longer_than = Some(hours(7 * 24));
        world.pass(hours(21 * 24));
        world.register("v3");
        world.share("v3", TrafficShare::Percent(percent), false);
        world
    };
    for percent in [5, 80] {
        let mut world = beside(percent);
        assert_eq!(world.alert(critical("v2")), "held served_long", "beside {percent} %");
        let detail = world.latest().held.clone().expect("a guard").detail;
        assert_eq!(detail, "v2 has served for 21 days; the only other change is v3");
    }
    let mut world = beside(5);
    world.share("v3", TrafficShare::Percent(0), false);
    assert_eq!(world.alert(critical("v2")), "held served_long", "the canary was taken back");
    let mut world = beside(5);
    assert_eq!(world.alert(critical("v3")), "rolled_back alert", "the canary itself is young");
    assert_eq!(world.alert(critical("v2")), "held served_long", "its alert ended the canary");
    let mut world = beside(80);
    world.pass(hours(8 * 24));
    world.activate("v3", false);
    assert_eq!(world.alert(critical("v3")), "held served_long", "as the larger share, then alone");
}

#[test]
fn a_clock_step_back_changes_no_age_and_no_cooldown() {
    let mut old = World::with_a_fresh_release();
    old.policy.ask_when_active_for_longer_than = Some(hours(12));
    old.step_clock(-365 * 86_400);
    old.look();
    old.pass(hours(13));
    assert_eq!(old.alert(critical("v2")), "held served_long");
    let mut put_back = World::with_a_fresh_release();
    put_back.mark_known_good("v0");
    put_back.alert(critical("v2"));
    put_back.step_clock(-365 * 86_400);
    put_back.pass(put_back.policy.cooldown + minutes(1));
    assert_eq!(put_back.alert(critical("v1")), "rolled_back alert");
}
