//! An incident undoes or continues only its own switch.

use super::*;

#[test]
fn an_old_undo_does_nothing_where_the_target_serves_for_another_reason() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.alert(critical("v2").resolved());
    let undo = world.click(Choice::Undo);
    world.pass(minutes(10));
    assert_eq!(world.phase(), PhaseKind::Unverified);
    world.release("v3");
    world.pass(hours(24 * 14));
    world.activate("v1", true); // by chance the target of the rollback two weeks ago
    assert_eq!(world::refusal(&world.happens(&undo).answer), RefusalCode::Moved);
    assert_eq!(world.served(), "v1");
    assert!(world.is_quarantined("v2"));
}

/// v2 was rolled back to v1, which is being verified, and gets a canary again.
fn tried_again() -> World {
    let mut world = World::with_a_fresh_release();
    world.policy.verify = true;
    world.alert(critical("v2"));
    world.alert(critical("v2").resolved());
    world.pass(seconds(20));
    let canary = TrafficShare::Canary(Policy::default().canary.usual.plan);
    assert!(matches!(world.share("v2", canary, true), Answer::Shared { .. }));
    world
}

#[test]
fn a_retried_version_gets_an_incident_of_its_own() {
    let mut world = tried_again();
    world.pass(seconds(20));
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!((world.served(), world.incidents.len()), ("v1", 2));
    assert!(world.routing.is_empty(), "the canary is over");
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
}

#[test]
fn approving_an_escalation_undoes_only_its_own_switch() {
    let mut world = World::with_a_fresh_release();
    world.escalate();
    let approve = world.click(Choice::Approve);
    let canary = TrafficShare::Canary(Policy::default().canary.usual.plan);
    assert!(matches!(world.share("v2", canary, true), Answer::Shared { .. }));
    assert_eq!(world::refusal(&world.happens(&approve).answer), RefusalCode::Moved);
    assert_eq!(world.served(), "v1");
}

#[test]
fn an_old_record_can_be_undone_while_its_target_serves() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    let id = world.latest().id.clone();
    // as it was written before switches named their commit
    world.state.moved_by = CommitId::default();
    let forget = |incident: &mut Incident| incident.switch.as_mut().expect("a switch").commit = CommitId::default();
    world.state.incidents.iter_mut().for_each(forget);
    forget(world.incidents.get_mut(&id).expect("the incident"));
    assert!(matches!(world.choose(Choice::Undo), Answer::Changed { .. }));
    assert_eq!(world.served(), "v2");
}

#[test]
fn a_deleted_key_moves_no_traffic_so_that_a_rollback_can_still_be_undone() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    let undo = world.click(Choice::Undo);
    world.active = Active::Absent;
    world.look();
    assert!(matches!(world.happens(&undo).answer, Answer::Changed { .. }));
    assert_eq!(world.served(), "v2");
}
