//! The API: rollback, register, activate.

use super::world::{refusal, registration};
use super::*;

fn to(version: &str) -> Rollback {
    Rollback { target: Some(v(version)), ..world::rollback() }
}

fn from(version: &str) -> Rollback {
    Rollback { from: Some(v(version)), ..world::rollback() }
}

/// from, to, and whether nothing had to be changed
fn changed(answer: &Answer) -> (Option<&str>, &str, bool) {
    match answer {
        Answer::Changed { from, to, unchanged, .. } => (from.as_deref(), to.as_str(), *unchanged),
        other => panic!("expected a change, got {other:?}"),
    }
}

#[test]
fn a_person_rolls_back_to_the_newest_known_good_version() {
    let mut world = World::with_a_fresh_release();
    let answer = world.roll_back(world::rollback());
    assert_eq!(changed(&answer), (Some("v2"), "v1", false));
    assert_eq!((world.served(), world.phase()), ("v1", PhaseKind::Verifying));
    assert!(world.is_quarantined("v2"));
    let entry = world.log.last().unwrap();
    assert_eq!(
        (entry.event, entry.operator.as_str(), entry.reason.as_str()),
        (LogEvent::Rollback, "dana", "bad answers")
    );
    assert_eq!(entry.incident.as_ref(), Some(&world.latest().id));
    assert_eq!(world.latest().switch.as_ref().map(|f| f.mode), Some(SwitchMode::Manual));
}

#[test]
fn a_persons_rollback_takes_over_the_open_incident() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.roll_back(world::rollback());
    assert_eq!((world.incidents.len(), world.phase()), (1, PhaseKind::Verifying));
    assert_eq!(world.latest().decided_by.as_ref().map(Operator::as_str), Some("dana"));
    assert_eq!(world.alert(high("v2")), "duplicate duplicate");
}

#[test]
fn rolling_back_to_what_is_served_changes_nothing() {
    let mut world = World::with_a_fresh_release();
    let before = world.log.len();
    assert_eq!(changed(&world.roll_back(to("v2"))), (Some("v2"), "v2", true));
    assert_eq!(changed(&world.roll_back(Rollback { from: Some(v("v1")), ..to("v2") })), (Some("v2"), "v2", true));
    assert_eq!((world.log.len(), world.incidents.len()), (before, 0));
}

#[test]
fn refusals_name_their_reason_and_leave_nothing_behind() {
    let rows = [
        (to("v99"), RefusalCode::UnknownVersion),
        (Rollback { force: true, ..to("v99") }, RefusalCode::UnknownVersion),
        (from("v1"), RefusalCode::Moved),
        (Rollback { from: Some(v("v0")), ..to("v1") }, RefusalCode::Moved),
        (to("staged"), RefusalCode::NeedsForce),
    ];
    for (request, code) in rows {
        let mut world = World::with_a_fresh_release();
        world.register("staged");
        let decision = world.happens(&Event::Rollback(request.clone()));
        assert_eq!(refusal(&decision.answer), code, "{request:?}");
        assert_eq!(decision.commit, None, "{request:?}");
    }
}

#[test]
fn an_unknown_prompt_is_not_found_and_not_created() {
    let mut world = World::new();
    let requests = [
        Event::Rollback(to("v1")),
        Event::Rollback(world::rollback()),
        Event::Activate(Activation {
            version: v("v1"),
            share: TrafficShare::All,
            operator: Operator::recorded("dana"),
            force: true,
            reason: None,
        }),
    ];
    for event in requests {
        let decision = world.happens(&event);
        assert_eq!(refusal(&decision.answer), RefusalCode::UnknownPrompt);
        assert!(refusal(&decision.answer).is_not_found());
        assert_eq!(decision.commit, None);
    }
}

#[test]
fn without_a_known_good_version_a_person_must_name_one() {
    let mut world = World::new();
    world.release("v1");
    world.pass(minutes(5));
    world.release("v2");
    assert_eq!(refusal(&world.roll_back(world::rollback())), RefusalCode::NoKnownGood);
    assert_eq!(refusal(&world.roll_back(to("v1"))), RefusalCode::NeedsForce);
    assert_eq!(changed(&world.roll_back(Rollback { force: true, ..to("v1") })).1, "v1");
}

#[test]
fn a_second_rollback_within_a_minute_must_name_a_version() {
    let mut world = World::new();
    for version in ["v0", "v1", "v2"] {
        world.release(version);
        world.pass(hours(2));
    }
    world.roll_back(world::rollback());
    world.pass(seconds(59));
    assert_eq!(refusal(&world.roll_back(world::rollback())), RefusalCode::RecentlyRolledBack);
    assert_eq!(world.served(), "v1", "a double click goes one step, not two");
    world.pass(seconds(1));
    assert_eq!(changed(&world.roll_back(world::rollback())), (Some("v1"), "v0", false));
    world.release("v3");
    assert_eq!(changed(&world.roll_back(from("v3"))), (Some("v3"), "v0", false), "naming from is clear enough");
    assert!(changed(&world.roll_back(to("v0"))).2, "so is naming the target");
}

#[test]
fn an_automatic_rollback_counts_as_recent_too() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.pass(seconds(10));
    assert_eq!(refusal(&world.roll_back(world::rollback())), RefusalCode::RecentlyRolledBack);
    assert_eq!(refusal(&world.roll_back(from("v2"))), RefusalCode::Moved);
    let as_wanted = Rollback { from: Some(v("v2")), ..to("v1") };
    assert!(changed(&world.roll_back(as_wanted)).2, "the target is already active");
}

#[test]
fn a_quarantined_target_needs_force_and_is_trusted_again_then() {
    let mut world = World::with_a_fresh_release();
    world.roll_back(world::rollback());
    assert_eq!(refusal(&world.roll_back(to("v2"))), RefusalCode::NeedsForce);
    assert_eq!(changed(&world.roll_back(Rollback { force: true, ..to("v2") })), (Some("v1"), "v2", false));
    assert!(!world.is_quarantined("v2") && world.is_quarantined("v1"));
    assert_eq!(world.incidents.values().next().unwrap().phase.kind(), PhaseKind::Superseded);
}

#[test]
fn an_older_known_good_version_needs_no_force() {
    let mut world = World::new();
    for version in ["v0", "v1", "v2"] {
        world.release(version);
        world.pass(hours(2));
    }
    assert_eq!(changed(&world.roll_back(to("v0"))), (Some("v2"), "v0", false));
}

#[test]
fn registering_answers_created_same_or_differs() {
    let mut world = World::new();
    let full = Register {
        content: Some("You are kind.".to_owned()),
        contact: Some("#support".to_owned()),
        staged_at: Some(Timestamp(7)),
        ..registration("v1")
    };
    let first = world.happens(&Event::Register(full.clone())).answer;
    assert_eq!(first, Answer::Registered { created: true, known_good: false });
    let again = world.happens(&Event::Register(full.clone()));
    assert_eq!(again, Decision { answer: Answer::Registered { created: false, known_good: false }, commit: None });
    let less = world.happens(&Event::Register(registration("v1")));
    assert_eq!(less, again, "what is not said does not differ");
    let others = [
        Register { content: Some("You are rude.".to_owned()), ..full.clone() },
        Register { contact: Some("#sales".to_owned()), ..full.clone() },
        Register { staged_at: Some(Timestamp(8)), ..full },
    ];
    for other in others {
        let decision = world.happens(&Event::Register(Register { known_good: true, ..other }));
        assert_eq!(refusal(&decision.answer), RefusalCode::Differs);
        assert_eq!(decision.commit, None, "a refused mark marks nothing");
    }
    assert_eq!(world.contents[&v("v1")], "You are kind.");
    assert!(!world.is_known_good("v1"));
}

#[test]
fn registering_serves_nothing() {
    let mut world = World::with_a_fresh_release();
    world.mark_known_good("v3");
    assert_eq!(world.served(), "v2");
    assert_eq!(world.changes().len(), 2, "two activations, nothing else");
}

#[test]
fn activating_serves_a_known_version_and_logs_it() {
    let mut world = World::with_a_fresh_release();
    world.register("v3");
    assert_eq!(changed(&world.activate("v3", false)), (Some("v2"), "v3", false));
    let entry = world.log.last().unwrap();
    assert_eq!((entry.event, entry.from.as_deref(), entry.to.as_deref()), (LogEvent::Activate, Some("v2"), Some("v3")));
    let record = world.state.version(&v("v3")).unwrap();
    assert_eq!((record.first_active, record.last_active), (Some(world.now), Some(world.now)));
    assert_eq!(changed(&world.activate("v3", false)), (Some("v3"), "v3", true));
    assert_eq!(world.changes().len(), 3);
    assert_eq!(refusal(&world.activate("v99", true)), RefusalCode::UnknownVersion);
}

#[test]
fn activating_another_version_supersedes_the_open_incident() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.release("v3");
    assert_eq!(world.phase(), PhaseKind::Superseded);
    world.pass(hours(1));
    assert_eq!(world.latest().escalations, 0, "the question is closed");
}

#[test]
fn only_so_many_versions_are_kept_and_those_in_use_always() {
    let mut world = World::new();
    for version in ["v0", "v1", "v2"] {
        world.release(version);
        world.pass(hours(2));
    }
    world.release("v3");
    world.alert(critical("v3"));
    for n in 0..200 {
        let content = Some(format!("text {n}"));
        world.happens(&Event::Register(Register { content, ..registration(&format!("ci-{n}")) }));
    }
    assert_eq!(world.state.versions.len(), Policy::MAX_VERSIONS);
    for kept in ["v0", "v1", "v2", "v3", "ci-199"] {
        assert!(world.state.version(&v(kept)).is_some(), "{kept} is a target, served, in an incident, or new");
    }
    assert!(world.is_quarantined("v3"), "a busy CI lifts no quarantine");
    let texts: Vec<_> = world.contents.keys().filter(|name| world.state.version(name).is_none()).collect();
    assert_eq!(texts, Vec::<&VersionName>::new(), "the text goes with its version");
    assert_eq!(world.contents.len(), world.state.versions.iter().filter(|v| v.has_content).count());
}
