//! A reload of the config that removes a decider.

use super::*;

fn percent(world: &World) -> Option<u8> {
    world.state.split().map(|split| split.percent())
}

fn says(world: &mut World, verdict: Verdict, text: &str) {
    world.says = Some(Finding::new(verdict, text));
}

/// A config reload removes a decider; the alert of a version without traffic repeats.
#[test]
fn a_removed_decider_lets_no_alert_on_a_version_without_traffic_act() {
    // shipped: v3 serves instead of v2
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.paused = Some("dana".to_owned());
    let alert = critical("v2").decided_by("product-pm");
    world.alert(alert);
    world.release("v3");
    assert_eq!(world.served(), "v3");
    world.paused = None;
    world.policy.deciders.retain(|name| name != "product-pm");
    let said = world.alert(critical("v2").decided_by("on-call"));
    assert_eq!(world.served(), "v3", "{said}: v2 has no traffic");
}

#[test]
fn a_removed_decider_ends_no_page() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    says(&mut world, Verdict::Unhealthy, "error ratio 7.00 %");
    world.alert(critical("v2").decided_by("product-pm"));
    world.pass(minutes(6));
    assert_eq!((world.phase(), world.served()), (PhaseKind::Escalated, "v1"));
    world.policy.deciders.retain(|name| name != "product-pm");
    let said = world.alert(critical("v2").decided_by("on-call"));
    assert!(world.latest().pages(), "{said}: {:?} {:?}", world.phase(), world.rollbacks());
}

/// F1c. The repeat of an alert whose decider was removed is no news.
#[test]
fn a_removed_decider_leaves_an_investigation_alone() {
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2").decided_by("product-pm"));
    world.choose(Choice::Investigate);
    world.paused = None;
    assert_eq!(world.clone().alert(critical("v2").decided_by("product-pm")), "duplicate duplicate");
    world.policy.deciders.retain(|name| name != "product-pm");
    let said = world.alert(critical("v2").decided_by("on-call"));
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::Investigating), "{said}");
}

#[test]
fn a_removed_decider_hurries_no_gradual_rollback() {
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2").decided_by("product-pm"));
    assert!(matches!(world.choose(Choice::ApproveGradual), Answer::Shared { percent: 25, .. }));
    world.paused = None;
    assert_eq!(world.clone().alert(critical("v2").decided_by("product-pm")), "duplicate duplicate");
    world.policy.deciders.retain(|name| name != "product-pm");
    let said = world.alert(critical("v2").decided_by("on-call"));
    assert_eq!(percent(&world), Some(25), "{said}");
}

/// A config reload removes the decider who was asked.
#[test]
fn a_question_to_a_decider_that_was_removed_goes_to_another_one() {
    let removed = |world: &mut World| {
        world.policy.fallback_decider = "on-call".to_owned();
        world.policy.deciders.retain(|name| name != "sre");
    };
    let begun = || {
        let mut world = World::with_a_fresh_release();
        world.policy.deciders.push("sre".to_owned());
        world.policy.fallback_decider = "sre".to_owned();
        world
    };
    // a held critical, whose own decider is the system
    let mut world = begun();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    assert_eq!(world.latest().decider, "sre");
    removed(&mut world);
    world.alert(critical("v2"));
    world.pass(minutes(30));
    assert!(world.latest().pages());
    assert_eq!(world.latest().decider, "on-call", "held");
    // a rollback that did not help, whose alert no longer matters
    let mut world = begun();
    world.escalate();
    removed(&mut world);
    world.alert(critical("v2"));
    world.pass(minutes(30));
    assert!(world.latest().pages());
    assert_eq!(world.latest().decider, "on-call", "escalated");
}

#[test]
fn another_alert_gives_no_question_back_to_a_removed_decider() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2").decided_by("product-pm"));
    world.policy.deciders.retain(|name| name != "product-pm");
    world.alert(medium("v2"));
    assert_eq!(world.latest().decider, "on-call");
    let asked = world.latest().question_number;
    world.alert(medium("v2").named("Other"));
    assert_eq!((world.latest().decider.as_str(), world.latest().question_number), ("on-call", asked));
}
