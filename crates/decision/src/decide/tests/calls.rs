//! Which notes of an incident mention the decider: once for each question, and a page until someone decides.

use super::*;

fn asked(world: &World) -> usize {
    world.notes(NoteKind::Asked)
}

fn undeliverable(world: &mut World) -> Option<Commit> {
    let incident = world.latest().id.clone();
    world.happens(&Event::Undeliverable { incident, why: "#on-call takes no messages".to_owned() }).commit
}

#[test]
fn a_new_incident_is_told_by_its_root() {
    for alerts in [vec![high("v2")], vec![medium("v2"), high("v2")], vec![high("v2"), high("v2").named("Latency")]] {
        let mut world = World::with_a_fresh_release();
        world.deliver(&alerts);
        assert_eq!((world.phase(), asked(&world)), (PhaseKind::AwaitingDecision, 0));
    }
}

#[test]
fn a_question_that_comes_up_later_calls_once() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    world.alert(high("v2"));
    assert_eq!((world.phase(), asked(&world)), (PhaseKind::AwaitingDecision, 1), "it was observed");
    world.alert(high("v2"));
    world.alert(high("v2").named("Latency"));
    assert_eq!(asked(&world), 1, "more of the same");
    world.choose(Choice::Investigate);
    world.alert(high("v2").named("Timeouts"));
    assert_eq!(asked(&world), 1, "a person is investigating");
    world.pass(minutes(5));
    assert_eq!(asked(&world), 2, "the investigation's time is over");
}

#[test]
fn a_worse_alert_calls_again() {
    let mut world = World::with_a_fresh_release();
    world.alert(recommend("v2"));
    world.alert(high("v2"));
    assert_eq!(asked(&world), 1);
    let last = world.latest().notes.last().expect("a note");
    assert_eq!((last.kind, last.text.as_str()), (NoteKind::Asked, "the question has changed: check the message again"));
}

#[test]
fn where_a_note_calls_already_there_is_no_second_one() {
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    world.alert(medium("v2"));
    world.alert(critical("v2"));
    assert_eq!((world.phase(), world.notes(NoteKind::Held), asked(&world)), (PhaseKind::AwaitingDecision, 1, 0));

    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.alert(high("v2").resolved());
    world.pass(Policy::QUIET);
    world.alert(high("v2"));
    assert_eq!((world.phase(), world.notes(NoteKind::Reopened), asked(&world)), (PhaseKind::AwaitingDecision, 1, 0));
}

#[test]
fn a_page_goes_on_when_it_gets_worse() {
    let mut world = World::with_a_fresh_release();
    world.alert(recommend("v2"));
    world.pass(minutes(30));
    assert!(world.latest().pages());
    world.alert(high("v2"));
    assert!(world.latest().pages());
    world.choose(Choice::Dismiss);
    assert!(!world.latest().pages() && world.latest().paged);
}

#[test]
fn a_question_that_slack_does_not_take_pages_until_it_is_decided() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    let commit = undeliverable(&mut world).expect("a page");
    assert!(world.latest().pages());
    assert_eq!(commit.wakes.iter().map(|wake| wake.at).collect::<Vec<_>>(), [world.now], "at once");
    assert_eq!(world.notes(NoteKind::Escalated), 1);
    assert_eq!(undeliverable(&mut world), None, "once");
    let deadline = world.latest().deadline();
    assert_eq!(deadline, Some(world.now.plus(minutes(5))), "the deadline stays");
    world.choose(Choice::Investigate);
    assert!(!world.latest().pages(), "a person is investigating");
    world.pass(minutes(5));
    assert!(world.latest().pages(), "asked again, and still not to be seen");
    world.choose(Choice::Approve);
    assert!(!world.latest().pages());
    assert_eq!(undeliverable(&mut world), None, "the question is closed");
}

#[test]
fn an_observation_without_slack_pages_when_it_asks() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2"));
    undeliverable(&mut world).expect("a note");
    assert!(!world.latest().pages(), "there is no open question");
    world.pass(hours(1));
    assert!(world.latest().pages());
}
