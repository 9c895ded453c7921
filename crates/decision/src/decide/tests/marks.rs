//! Marks: versions that people declared bad or good.

use super::*;
use world::{marking, refusal};

/// v0 and v1 have soaked; v2 replaced v1 ten minutes ago.
fn world() -> World {
    let mut world = World::new();
    for version in ["v0", "v1"] {
        world.release(version);
        world.pass(hours(2));
    }
    world.release("v2");
    world.pass(minutes(10));
    world
}

fn in_thread(world: &World, version: &str, kind: MarkKind) -> Event {
    Event::Mark(Marking { incident: Some(world.latest().id.clone()), ..marking(version, kind) })
}

fn previous(decision: &Decision) -> Option<&str> {
    let commit = decision.commit.as_ref().expect("a commit");
    commit.served[0].previous.as_ref().map(VersionName::as_str)
}

fn why(answer: &Answer) -> &str {
    match answer {
        Answer::Refused(refusal) => &refusal.message,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_bad_mark_ends_known_good_in_the_same_commit() {
    let mut world = world();
    let decision = world.happens(&Event::Mark(marking("v1", MarkKind::Bad)));
    let marked = Marked { kind: MarkKind::Bad, unchanged: false, percent: 0, target: Some(v("v0")) };
    assert_eq!(decision.answer, Answer::Marked(marked));
    assert_eq!(previous(&decision), Some("v0"));
    assert!(!world.is_known_good("v1") && world.is_known_good("v0"), "nothing but v1 loses it");
    let mark = world.state.version(&v("v1")).and_then(|record| record.mark.clone()).expect("a mark");
    assert_eq!((mark.kind, mark.at, mark.operator.as_str()), (MarkKind::Bad, world.now, "dana"));
    assert_eq!(mark.reason, "changed output schema");
    let entry = world.log.last().expect("an entry");
    assert_eq!((entry.event, entry.to.as_deref()), (LogEvent::MarkBad, Some("v1")));
    assert_eq!((entry.operator.as_str(), entry.reason.as_str()), ("dana", "changed output schema"));
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!(world.served(), "v0");
}

#[test]
fn without_another_target_a_bad_mark_holds_the_rollback() {
    let mut world = World::with_a_fresh_release();
    world.mark("v1", MarkKind::Bad);
    assert_eq!(world.alert(critical("v2")), "held no_known_good");
    assert_eq!((world.served(), &world.latest().target, &world.latest().choices), ("v2", &None, &vec![]));
}

#[test]
fn a_bad_version_needs_force_and_the_refusal_says_why() {
    for force in [false, true] {
        let named: [fn(&mut World, bool) -> Answer; 4] = [
            |world, force| world.roll_back(Rollback { target: Some(v("v1")), force, ..world::rollback() }),
            |world, force| world.activate("v1", force),
            |world, force| world.share("v1", TrafficShare::Percent(5), force),
            |world, force| {
                world.alert(high("v2"));
                let Event::Decide(click) = world.click(Choice::Approve) else { unreachable!() };
                world.happens(&Event::Decide(Decide { target: Some(v("v1")), force, ..click })).answer
            },
        ];
        for (at, name) in named.into_iter().enumerate() {
            let mut world = world();
            world.mark("v1", MarkKind::Bad);
            let answer = name(&mut world, force);
            if force {
                assert!(matches!(answer, Answer::Changed { .. } | Answer::Shared { .. }), "{at}: {answer:?}");
                let mark = world.state.marked_bad(&v("v1"));
                assert!(mark.is_some(), "{at}: serving it once does not take the mark back");
            } else {
                assert_eq!(refusal(&answer), RefusalCode::NeedsForce, "{at}");
                assert!(why(&answer).contains("marked as bad by dana (changed output schema)"), "{}", why(&answer));
                assert_eq!(world.served(), "v2", "{at}");
            }
        }
    }
}

#[test]
fn marking_the_active_version_rolls_nothing_back() {
    let mut world = world();
    let answer = world.mark("v2", MarkKind::Bad);
    let marked = Marked { kind: MarkKind::Bad, unchanged: false, percent: 100, target: Some(v("v1")) };
    assert_eq!((answer, world.served()), (Answer::Marked(marked), "v2"));
    world.pass(hours(3));
    assert!(!world.is_known_good("v2"), "it does not soak");
    assert_eq!(world.state.version(&v("v2")).and_then(|record| record.soaks_at(&world.policy)), None);
    assert!(matches!(world.activate("v2", false), Answer::Changed { unchanged: true, .. }), "it serves already");
    world.release("v3");
    assert_eq!(world.alert(critical("v3")), "rolled_back alert");
    assert_eq!(world.served(), "v1", "not back to v2");
}

#[test]
fn the_same_mark_for_the_same_reason_changes_nothing() {
    for kind in MarkKind::ALL {
        let mut world = world();
        world.mark("v1", kind);
        let again = Event::Mark(Marking { operator: Operator::recorded("mia"), ..marking("v1", kind) });
        let decision = world.happens(&again);
        assert!(matches!(&decision.answer, Answer::Marked(marked) if marked.unchanged), "{decision:?}");
        assert_eq!(decision.commit, None, "{kind:?}");
        let other = Event::Mark(Marking { reason: "leaks a name".to_owned(), ..marking("v1", kind) });
        world.happens(&other);
        let mark = world.state.version(&v("v1")).and_then(|record| record.mark.as_ref()).expect("a mark");
        assert_eq!(mark.reason, "leaks a name", "another reason replaces it");
    }
}

#[test]
fn a_good_mark_lifts_a_bad_mark_and_a_quarantine() {
    let mut world = world();
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert!(world.is_quarantined("v2"));
    world.mark("v2", MarkKind::Bad);
    world.mark("v2", MarkKind::Good);
    assert!(world.is_known_good("v2") && !world.is_quarantined("v2"));
    assert!(
        world.state.version(&v("v2")).and_then(|record| record.known_good).is_some_and(|good| good.by == Earned::Mark)
    );
    assert_eq!(world.state.marked_bad(&v("v2")), None);
    world.register("v3");
    world.mark("v3", MarkKind::Good);
    assert!(world.is_known_good("v3"), "it need not have served");
    let events: Vec<_> = world.log.iter().rev().take(3).map(|entry| entry.event).collect();
    assert_eq!(events, [LogEvent::MarkGood, LogEvent::MarkGood, LogEvent::MarkBad]);
}

#[test]
fn a_rollback_ends_what_a_good_mark_gave_until_it_is_given_again() {
    let mut world = world();
    world.mark("v2", MarkKind::Good);
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert!(!world.is_known_good("v2") && world.is_quarantined("v2"));
    let answer = world.mark("v2", MarkKind::Good);
    assert!(matches!(answer, Answer::Marked(Marked { unchanged: false, .. })), "{answer:?}");
    assert!(world.is_known_good("v2") && !world.is_quarantined("v2"));
}

#[test]
fn registering_a_bad_version_as_known_good_does_not_lift_the_mark() {
    let mut world = world();
    world.mark("v1", MarkKind::Bad);
    assert_eq!(world.mark_known_good("v1"), Answer::Registered { created: false, known_good: false });
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!(world.served(), "v0");
}

#[test]
fn an_import_neither_serves_nor_trusts_a_bad_version() {
    let adopt =
        |version: &str| Adopt { version: Some(v(version)), known_good: true, operator: Operator::recorded("ci") };
    let mut world = world();
    world.mark("v2", MarkKind::Bad);
    let answer = world.happens(&Event::Adopt(adopt("v2"))).answer;
    assert!(matches!(&answer, Answer::Adopted(Adoption::Skipped(why)) if why.contains("marked as bad")), "{answer:?}");
    world.active = Active::Absent;
    let answer = world.happens(&Event::Adopt(adopt("v2"))).answer;
    assert!(matches!(&answer, Answer::Adopted(Adoption::Skipped(why)) if why.contains("marked as bad")), "{answer:?}");
    assert_eq!(world.active, Active::Absent);
}

#[test]
fn what_is_unknown_cannot_be_marked() {
    let mut empty = World::new();
    assert_eq!(refusal(&empty.mark("v1", MarkKind::Bad)), RefusalCode::UnknownPrompt);
    let mut world = world();
    assert_eq!(refusal(&world.mark("v9", MarkKind::Good)), RefusalCode::UnknownVersion);
}

#[test]
fn an_open_question_follows_a_mark_and_is_asked_anew() {
    let mut world = world();
    world.alert(high("v2"));
    let asked = world.click(Choice::Approve);
    let Event::Decide(asked) = asked else { unreachable!() };
    let ask = world.latest().question_number;
    assert_eq!(world.latest().target, Some(v("v1")));
    world.mark("v1", MarkKind::Bad);
    let incident = world.latest();
    assert_eq!(
        (&incident.target, &incident.choices, incident.question_number),
        (&Some(v("v0")), &vec![v("v0")], ask + 1)
    );
    let last = incident.notes.last().expect("a note");
    let text = "dana marked v1 as bad: changed output schema: a rollback would go to v0 now";
    assert_eq!((last.kind, last.text.as_str()), (NoteKind::Asked, text));
    let never: Vec<_> = incident.never.iter().map(|never| (never.version.as_str(), never.operator.as_str())).collect();
    assert_eq!(never, [("v1", "dana")]);
    let stale = Decide { question_number: Some(ask), target: Some(v("v1")), ..asked.clone() };
    assert_eq!(refusal(&world.happens(&Event::Decide(stale)).answer), RefusalCode::Stale);
    world.mark("v1", MarkKind::Good);
    let incident = world.latest();
    assert_eq!((&incident.target, incident.question_number, incident.never.len()), (&Some(v("v1")), ask + 2, 0));
    let fresh = Decide { question_number: Some(ask + 2), target: Some(v("v1")), ..asked };
    assert!(matches!(world.happens(&Event::Decide(fresh)).answer, Answer::Changed { .. }));
    assert_eq!(world.served(), "v1");
}

#[test]
fn a_mark_that_leaves_the_target_as_it_is_makes_no_click_stale() {
    let mut world = world();
    world.alert(high("v2"));
    let ask = world.latest().question_number;
    world.mark("v0", MarkKind::Bad);
    let incident = world.latest();
    assert_eq!((&incident.target, &incident.choices, incident.question_number), (&Some(v("v1")), &vec![v("v1")], ask));
    world.mark("v2", MarkKind::Bad);
    let incident = world.latest();
    assert_eq!((incident.question_number, incident.notes.last().map(|note| note.kind)), (ask, Some(NoteKind::Marked)));
    assert!(incident.is_marked_bad(&v("v2")));
}

#[test]
fn a_pending_rollback_avoids_a_target_marked_meanwhile() {
    let waits = |requery: bool| {
        let mut world = world();
        (world.policy.confirm, world.policy.verify, world.policy.requery) = (true, true, requery);
        world.says = None;
        world
    };
    let unhealthy = |world: &mut World| {
        world.says = Some(Finding::new(Verdict::Unhealthy, "error ratio 9 %"));
        world.pass(seconds(2));
    };
    // the alert asks to leave v2, whatever the target
    let mut world = waits(true);
    assert_eq!(world.alert(critical("v2")), "held confirming");
    world.mark("v1", MarkKind::Bad);
    assert_eq!(world.phase(), PhaseKind::Confirming);
    unhealthy(&mut world);
    assert_eq!((world.served(), world.phase()), ("v0", PhaseKind::Verifying));
    // a person named v1, and has not chosen another target
    let mut world = waits(false);
    world.alert(high("v2"));
    assert!(matches!(world.choose(Choice::Approve), Answer::Confirming { .. }));
    let ask = world.latest().question_number;
    world.mark("v1", MarkKind::Bad);
    unhealthy(&mut world);
    let incident = world.latest();
    assert_eq!(
        (world.served(), incident.phase.kind(), &incident.target),
        ("v2", PhaseKind::AwaitingDecision, &Some(v("v0")))
    );
    assert!(incident.question_number > ask && incident.pending().is_none());
    world.says = Some(Finding::new(Verdict::Unhealthy, "error ratio 9 %"));
    world.choose(Choice::Approve);
    world.pass(seconds(2));
    assert_eq!(world.served(), "v0", "asked again, it can be approved");
    // no other target: a guard holds, and a person can answer
    let mut world = waits(true);
    world.mark("v0", MarkKind::Bad);
    world.alert(critical("v2"));
    world.mark("v1", MarkKind::Bad);
    let incident = world.latest();
    assert_eq!(incident.held.as_ref().map(|held| held.guard), Some(Guard::NoKnownGood));
    assert_eq!((incident.phase.kind(), world.served()), (PhaseKind::AwaitingDecision, "v2"));
    assert!(incident.deadline().is_some());
}

#[test]
fn a_bad_mark_on_its_target_pauses_a_gradual_rollback() {
    let mut world = world();
    world.alert(high("v2"));
    world.choose(Choice::ApproveGradual);
    assert_eq!(world.phase(), PhaseKind::RollingBack);
    world.mark("v1", MarkKind::Bad);
    assert!(world.latest().is_stuck() && world.latest().pages(), "{:?}", world.latest());
    let percent = world.state.percent(&v("v1"));
    assert_eq!(world.alert(critical("v2")), "held target_unhealthy");
    world.pass(hours(2));
    assert_eq!(world.state.percent(&v("v1")), percent, "no further automatically");
    for choice in [Choice::ApproveGradual, Choice::Approve] {
        let Event::Decide(click) = world.click(choice) else { unreachable!() };
        let click = Decide { target: (choice == Choice::Approve).then(|| v("v1")), ..click };
        let answer = world.happens(&Event::Decide(click.clone())).answer;
        assert_eq!(refusal(&answer), RefusalCode::NeedsForce, "{choice:?}");
    }
    let Event::Decide(click) = world.click(Choice::ApproveGradual) else { unreachable!() };
    let answer = world.happens(&Event::Decide(Decide { force: true, ..click })).answer;
    assert!(matches!(answer, Answer::Shared { percent: 50, .. }), "{answer:?}");
    world.mark("v2", MarkKind::Bad);
    assert_eq!(refusal(&world.choose(Choice::Undo)), RefusalCode::NeedsForce, "nor back to the other side");
}

#[test]
fn bad_marks_hold_a_canary_and_exclude_its_base() {
    let mut world = world();
    world.register("v3");
    world.share("v3", TrafficShare::Canary(Policy::default().canary.usual.plan), false);
    world.mark("v3", MarkKind::Bad);
    world.pass(hours(2));
    assert_eq!(world.state.percent(&v("v3")), 1);
    let paused = world.state.running_canary().and_then(|canary| canary.split.paused.clone());
    assert!(paused.is_some_and(|why| why.contains("marked as bad")));
    assert_eq!(refusal(&world.share("v3", TrafficShare::Percent(50), false)), RefusalCode::NeedsForce);
    assert!(
        matches!(world.share("v3", TrafficShare::Percent(0), false), Answer::Changed { .. }),
        "less is always allowed"
    );

    let mut world = super::marks::world();
    world.register("v3");
    world.share("v3", TrafficShare::Percent(50), false);
    world.mark("v2", MarkKind::Bad);
    assert_eq!(
        refusal(&world.share("v3", TrafficShare::Percent(0), false)),
        RefusalCode::NeedsForce,
        "v2 would get all"
    );
    assert_eq!(world.alert(critical("v3")), "rolled_back alert");
    assert_eq!((world.served(), world.state.split().is_none()), ("v1", true));
}

#[test]
fn an_undo_does_not_bring_back_what_was_marked_bad_since() {
    let mut world = world();
    world.alert(critical("v2"));
    let click = in_thread(&world, "v2", MarkKind::Bad);
    world.happens(&click);
    assert!(world.latest().is_marked_bad(&v("v2")));
    assert_eq!(world.latest().notes.last().map(|note| note.kind), Some(NoteKind::Marked));
    assert_eq!(refusal(&world.choose(Choice::Undo)), RefusalCode::NeedsForce);
    let Event::Decide(undo) = world.click(Choice::Undo) else { unreachable!() };
    world.happens(&Event::Decide(Decide { force: true, ..undo }));
    assert_eq!((world.served(), world.is_known_good("v2")), ("v2", false), "served, and not trusted more than before");
}

#[test]
fn a_mark_in_the_thread_of_a_closed_incident_is_told_there() {
    let mut world = world();
    world.alert(critical("v2"));
    world.pass(hours(1));
    assert!(!world.phase().is_open());
    let click = in_thread(&world, "v2", MarkKind::Bad);
    let decision = world.happens(&click);
    let written = &decision.commit.as_ref().expect("a commit").incidents;
    assert_eq!(written.len(), 1);
    let incident = world.latest();
    assert_eq!(
        incident.notes.last().map(|note| note.text.as_str()),
        Some("dana marked v2 as bad: changed output schema")
    );
    assert!(incident.is_marked_bad(&v("v2")) && !incident.phase.is_open());
    assert!(world.state.incidents.iter().all(|open| open.id != incident.id), "it stays closed");
}

#[test]
fn a_mark_is_the_last_to_be_forgotten() {
    let mut world = world();
    world.mark("v0", MarkKind::Bad);
    for n in 0..2 * Policy::MAX_VERSIONS {
        world.release(&format!("ci-{n}"));
    }
    assert!(world.state.marked_bad(&v("v0")).is_some());
    assert!(world.state.version(&v("ci-0")).is_none());
}

#[test]
fn a_bad_mark_on_an_approved_target_leaves_the_page_on() {
    let mut world = World::with_a_fresh_release();
    (world.policy.verify, world.policy.confirm) = (true, true);
    world.mark_known_good("v0");
    world.paused = Some("dana".to_owned());
    world.alert(critical("v2"));
    world.pass(minutes(5));
    world.says = None;
    world.choose(Choice::Approve);
    assert!(world.latest().pages());
    world.mark("v1", MarkKind::Bad);
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
    assert!(world.latest().pages(), "nothing has been decided");
}

#[test]
fn an_approval_that_names_nothing_never_goes_to_the_version_in_trouble() {
    let mut world = World::with_a_fresh_release();
    world.escalate(); // v2 → v1, which fails too; v0 is known-good
    world.mark("v2", MarkKind::Good);
    assert_eq!(world.latest().choices, [v("v0")]);
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!(world.served(), "v0");
}

#[test]
fn a_trusted_version_whose_critical_fires_on_is_no_automatic_target() {
    let mut world = World::with_a_fresh_release();
    world.escalate();
    world.mark("v2", MarkKind::Good);
    world.pass(world.policy.cooldown);
    let said = world.alert(critical("v1").starting(world.now));
    assert_eq!(world.served(), "v0", "{said}: the critical on v2 fires on");
}
