//! What people who are paged may choose is true now, and the same everywhere: button and API lead to one version.

use super::*;

fn says(world: &mut World, verdict: Verdict, text: &str) {
    world.says = Some(Finding::new(verdict, text));
}

#[test]
fn an_escalation_follows_the_alerts_on_its_targets() {
    let mut world = World::with_a_fresh_release();
    world.mark_known_good("v9");
    world.pass(seconds(1));
    world.escalate();
    assert_eq!(world.latest().choices, [v("v0"), v("v9")]);
    let number = world.latest().question_number;
    assert_eq!(world.alert(critical("v0")), "ignored not_active");
    assert_eq!(world.latest().choices, [v("v9"), v("v0")], "an alert fires on v0");
    assert!(world.latest().question_number > number, "an answer to the question before means v0");
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!(world.served(), "v9");
}

#[test]
fn an_escalation_offers_the_version_that_an_approval_takes() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.mark_known_good("v0");
    says(&mut world, Verdict::NoData, "too few requests");
    world.alert(critical("v2"));
    world.pass(minutes(1));
    world.release("v3"); // nothing is known against v1
    says(&mut world, Verdict::Unhealthy, "error ratio 7.00 %");
    world.pass(minutes(6));
    assert_eq!((world.phase(), world.served()), (PhaseKind::Escalated, "v3"));
    assert_eq!(world.latest().choices, [v("v1"), v("v0")]);
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!(world.served(), "v1");
}

#[test]
fn what_replaces_an_unfollowed_rollback_is_its_target() {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.mark_known_good("v0");
    let still = Instances::of(vec!["pod-3".to_owned()]);
    world.traffic = Some(Traffic { target: 2_000, following: 2, still, ..Traffic::default() });
    says(&mut world, Verdict::Unhealthy, "error ratio 7.00 %");
    world.alert(critical("v2"));
    world.pass(minutes(6));
    assert_eq!(world.latest().failure(), Some(RollbackFailure::NotFollowed));
    world.release("v3");
    world.mark("v1", MarkKind::Bad);
    world.traffic = Some(Traffic { target: 2_000, following: 3, ..Traffic::default() });
    world.pass(minutes(10));
    let incident = world.latest();
    assert_eq!(incident.failure(), Some(RollbackFailure::NotRecovered), "v3 fails too");
    // as the first button does
    let mut ways = incident.target.iter().chain(&incident.choices);
    let way = ways.find(|to| *to != incident.subject() && **to != incident.version);
    assert_eq!(way, Some(&v("v0")), "v1 is marked as bad");
}

/// An incident on the target ends with its traffic, whatever its share was.
#[test]
fn an_undo_of_a_gradual_rollback_is_the_same_at_every_stage() {
    for stage in [0, 1] {
        let mut world = World::with_a_fresh_release();
        world.policy.verify = true;
        let gradual = Some(world.policy.gradual.clone());
        world.roll_back(Rollback { gradual, ..world::rollback() });
        let rollback = world.latest().id.clone();
        world.pass(minutes(10) * stage);
        assert_eq!(world.alert(high("v1")), "incident_opened page");
        let on_target = world.latest().id.clone();
        let Event::Decide(undo) = world.click(Choice::Undo) else { unreachable!("a click is a decision") };
        let answer = world.happens(&Event::Decide(Decide { incident: rollback, ..undo })).answer;
        assert!(matches!(answer, Answer::Changed { .. }), "{answer:?}");
        assert_eq!(world.served(), "v2");
        assert_eq!(world.incidents[&on_target].phase.kind(), PhaseKind::Superseded, "stage {stage}");
    }
}
