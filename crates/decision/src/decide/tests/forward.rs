//! Fix forward: another version is activated while an incident is open.

use super::*;

/// A critical on v2 waits for a person, who is paged, and v3 is shipped instead.
fn shipped() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.pass(minutes(3));
    assert!(world.latest().pages());
    world.release("v3");
    world
}

fn says(world: &mut World, verdict: Verdict) {
    world.says = Some(Finding::new(verdict, "error ratio 7.00 %"));
}

#[test]
fn a_fix_that_is_shipped_is_verified_like_a_rollback() {
    let mut world = shipped();
    let incident = world.latest();
    assert_eq!((incident.phase.kind(), incident.subject().as_str()), (PhaseKind::Verifying, "v3"));
    assert!(incident.pages() && incident.is_shipped());
    says(&mut world, Verdict::Healthy);
    world.pass(minutes(1));
    assert_eq!(world.phase(), PhaseKind::Recovered);
    assert!(!world.latest().pages());
}

#[test]
fn a_page_about_a_shipped_fix_can_be_decided_before_its_deadline() {
    let world = shipped();
    let mut back = world.clone();
    assert!(matches!(back.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!((back.served(), back.latest().pages()), ("v1", false));
    let mut enough = world.clone();
    assert_eq!(enough.choose(Choice::Dismiss), Answer::Decided(PhaseKind::Dismissed));
    assert_eq!((enough.served(), enough.latest().pages()), ("v3", false));
}

#[test]
fn an_answer_about_the_version_that_a_fix_replaced_is_stale() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.pass(minutes(3));
    let Event::Decide(click) = world.click(Choice::Approve) else { panic!("a click") };
    let click = Event::Decide(Decide { question_number: Some(world.latest().question_number), ..click });
    world.release("v3");
    assert_eq!(world::refusal(&world.happens(&click).answer), RefusalCode::Stale);
    assert_eq!(world.served(), "v3");
}

#[test]
fn a_fix_that_does_not_help_escalates() {
    for verdict in [Verdict::Unhealthy, Verdict::NoData] {
        let mut world = shipped();
        says(&mut world, verdict);
        world.pass(minutes(6));
        assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Escalated, true), "{verdict:?}");
        assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }), "{verdict:?}");
        assert_eq!(world.served(), "v1");
    }
}

#[test]
fn shipping_is_no_rollback_that_could_be_undone() {
    let mut world = shipped();
    assert_eq!(world::refusal(&world.choose(Choice::Undo)), RefusalCode::AlreadyDecided);
    assert!(world.rollbacks().is_empty());
    assert!(!world.is_quarantined("v2"));
}

#[test]
fn a_version_set_from_outside_inherits_the_incident() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(high("v2"));
    world.set_active("v3");
    world.look();
    let first = world.latest().id.clone();
    assert_eq!(world.incidents[&first].subject().as_str(), "v3");
    world.pass(minutes(1));
    world.alert(critical("v3"));
    assert_eq!(world.served(), "v1");
    assert_eq!(world.incidents[&first].phase.kind(), PhaseKind::Superseded, "the rollback is verified by its own");
    assert_eq!(world.phase(), PhaseKind::Verifying);
}

#[test]
fn another_version_closes_what_cannot_be_verified() {
    for (verify, ends) in [(false, false), (true, true)] {
        let mut world = World::with_a_fresh_release();
        world.policy.verify = verify;
        world.alert(high("v2"));
        if ends {
            world.alert(high("v2").resolved());
        }
        world.release("v3");
        assert_eq!(world.phase(), PhaseKind::Superseded, "{verify} {ends}");
    }
}

/// v3 replaced v2, people were paged before, and there is no Prometheus.
fn shipped_without_prometheus() -> World {
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.pass(minutes(3));
    assert!(world.latest().pages());
    world.set_active("v3");
    world.look();
    world
}

#[test]
fn without_prometheus_a_page_goes_on_with_what_was_shipped() {
    let mut world = shipped_without_prometheus();
    assert_eq!((world.phase(), world.latest().subject().as_str()), (PhaseKind::Verifying, "v3"));
    assert!(world.latest().pages());
    world.alert(critical("v2").resolved()); // because it has no traffic
    world.pass(minutes(5));
    assert_eq!((world.phase(), world.latest().failure()), (PhaseKind::Escalated, Some(RollbackFailure::NotRecovered)));
    world.pass(hours(48));
    assert_eq!((world.incidents.len(), world.latest().pages()), (1, true));
    let mut back = world.clone();
    assert!(matches!(back.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!((back.served(), back.latest().pages()), ("v1", false));
    assert_eq!(world.choose(Choice::Dismiss), Answer::Decided(PhaseKind::Dismissed));
    assert_eq!((world.served(), world.latest().pages()), ("v3", false));
}

#[test]
fn without_prometheus_a_page_goes_on_through_several_versions() {
    let mut world = shipped_without_prometheus();
    for version in ["v4", "v5"] {
        world.pass(minutes(10));
        world.release(version);
        assert_eq!((world.phase(), world.latest().subject().as_str()), (PhaseKind::Verifying, version));
        assert!(world.latest().pages(), "{version}");
    }
    assert_eq!(world.incidents.len(), 1);
    world.release("v2"); // its alert fires on
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::AwaitingDecision, true));
}

#[test]
fn a_paused_gradual_rollback_pages_on_with_what_was_shipped() {
    for verify in [true, false] {
        let mut world = World::with_a_fresh_release();
        world.policy.verify = true;
        world.says = Some(Finding::new(Verdict::Unhealthy, "error ratio 7.00 %"));
        let gradual = Some(Policy::default().gradual);
        let answer = world.roll_back(Rollback { gradual, from: Some(v("v2")), ..world::rollback() });
        assert!(matches!(answer, Answer::Shared { .. }), "{answer:?}");
        world.pass(minutes(2));
        assert!(world.latest().is_stuck() && world.latest().pages());
        world.policy.verify = verify;
        world.set_active("v3");
        world.look();
        assert_eq!((world.phase(), world.latest().subject().as_str()), (PhaseKind::Verifying, "v3"), "{verify}");
        assert!(world.latest().pages(), "{verify}");
        world.pass(minutes(6));
        assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Escalated, true), "{verify}");
        assert_eq!(world.choose(Choice::Dismiss), Answer::Decided(PhaseKind::Dismissed));
        assert!(!world.latest().pages(), "{verify}");
    }
}

#[test]
fn returning_to_the_firing_version_escalates_in_time() {
    let mut world = shipped();
    says(&mut world, Verdict::NoData);
    world.pass(minutes(6));
    assert_eq!(world.phase(), PhaseKind::Escalated);
    let Event::Decide(click) = world.click(Choice::Approve) else { panic!("a click") };
    world.happens(&Event::Decide(Decide { target: Some(v("v2")), force: true, ..click }));
    assert_eq!((world.served(), world.phase()), ("v2", PhaseKind::Verifying));
    world.pass(minutes(5));
    assert_eq!((world.phase(), world.latest().failure()), (PhaseKind::Escalated, Some(RollbackFailure::NotRecovered)));
    assert!(world.latest().pages());
}

#[test]
fn a_canary_hinders_no_rollback_of_the_firing_version() {
    for worse in [false, true] {
        let mut world = shipped();
        says(&mut world, Verdict::NoData);
        world.pass(minutes(6));
        let Event::Decide(click) = world.click(Choice::Approve) else { panic!("a click") };
        world.happens(&Event::Decide(Decide { target: Some(v("v2")), force: true, ..click }));
        world.register("v4");
        let canary = world.share("v4", TrafficShare::Canary(Policy::default().canary.usual.plan), false);
        assert!(matches!(canary, Answer::Shared { .. }), "{canary:?}");
        if worse {
            world.alert(critical("v2").named("Other"));
            assert_eq!(world.phase(), PhaseKind::AwaitingDecision, "held, because automation is paused");
        } else {
            world.pass(minutes(5));
            assert_eq!(world.phase(), PhaseKind::Escalated);
        }
        assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }), "{worse}");
        assert_eq!(world.served(), "v1");
    }
}

#[test]
fn a_version_that_returns_as_a_canary_keeps_one_incident() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    let still = Instances::of(vec!["pod-3".to_owned()]);
    world.traffic = Some(Traffic { target: 2_000, following: 2, still, ..Traffic::default() });
    world.alert(critical("v2"));
    world.pass(minutes(6));
    assert_eq!(world.latest().failure(), Some(RollbackFailure::NotFollowed));
    world.share("v2", TrafficShare::Percent(10), true);
    world.set_active("v2");
    world.look();
    assert_eq!(world.state.open_incidents().filter(|incident| incident.version == v("v2")).count(), 1);
}

#[test]
fn a_page_about_servers_that_do_not_follow_a_fix_ends_with_them() {
    for paged in [true, false] {
        let mut world = if paged { shipped() } else { World::with_a_fresh_release() };
        if !paged {
            world.policy.verify = true;
            world.alert(high("v2"));
            world.release("v3");
        }
        assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, paged));
        let still = Instances::of(vec!["pod-3".to_owned()]);
        world.traffic = Some(Traffic { target: 2_000, following: 2, still, ..Traffic::default() });
        says(&mut world, Verdict::NoData);
        world.pass(minutes(6));
        assert_eq!(world.latest().failure(), Some(RollbackFailure::NotFollowed));
        assert!(world.latest().pages());
        world.traffic = Some(Traffic { target: 2_000, following: 3, ..Traffic::default() });
        world.pass(minutes(2));
        assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, paged));
    }
}

#[test]
fn a_page_goes_on_beside_a_rollback_that_a_person_made_before() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    assert!(matches!(world.roll_back(world::rollback()), Answer::Changed { .. }));
    world.set_value(b"{}");
    world.look();
    world.alert(critical("v2"));
    world.pass(minutes(3));
    assert!(world.latest().pages());
    world.set_active("v1");
    world.look();
    assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, true));
    assert_eq!(world.state.open_incidents().count(), 1);
}

#[test]
fn a_key_that_goes_to_a_fix_and_back_pages_on() {
    let mut world = shipped();
    assert!(world.latest().pages());
    world.pass(seconds(30));
    world.set_active("v2");
    world.look();
    assert_eq!((world.incidents.len(), world.phase(), world.latest().pages()), (1, PhaseKind::AwaitingDecision, true));
    assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::Paused));
    world.paused = None;
    world.pass(minutes(10));
    assert_eq!(world.alert(critical("v2").starting(world.now)), "rolled_back alert");
}

#[test]
fn a_fix_that_is_shipped_after_a_decision_pages_nobody() {
    for choice in [Choice::Approve, Choice::Investigate] {
        let mut world = World::with_a_fresh_release();
        world.policy.verify = true;
        world.alert(high("v2"));
        world.pass(minutes(6));
        assert!(world.latest().pages());
        world.choose(choice);
        assert!(!world.latest().pages(), "{choice:?}");
        world.pass(minutes(1));
        world.release("v3");
        assert_eq!((world.phase(), world.latest().subject().as_str()), (PhaseKind::Verifying, "v3"));
        assert!(!world.latest().pages(), "{choice:?}: the page had ended");
        world.pass(minutes(10));
        assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Verifying, false), "too little traffic");
    }
}
