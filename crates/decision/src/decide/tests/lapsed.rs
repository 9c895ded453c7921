//! `active` was deleted, or holds a value that is not a version: open incidents stay open, and nothing happens without
//! a person.

use super::world::rollback;
use super::*;

/// A change of the key, the guard that follows, and the text for people.
fn faults() -> [(Active, &'static str, &'static str); 2] {
    let foreign = Active::read(Some(b"{oops}\n"));
    [
        (Active::Absent, "key_deleted", "the key active was deleted"),
        (foreign, "foreign_value", "the key active holds \"{oops}\\n\", which is not a version"),
    ]
}

#[test]
fn what_surrounds_a_version_in_the_key_is_not_part_of_it() {
    for value in ["v2", "v2\n", "v2\r\n", " v2 ", "\tv2\0"] {
        let mut world = World::with_a_fresh_release();
        world.alert(high("v2"));
        world.set_value(value.as_bytes());
        assert_eq!(world.look().commit, None, "{value:?} is v2");
        assert_eq!(world.phase(), PhaseKind::AwaitingDecision, "{value:?}");
        assert_eq!(world.alert(critical("v2")), "rolled_back alert", "{value:?}");
        assert_eq!(world.served(), "v1");
    }
    for value in ["", "\n", "v2 v3", "\"v2\"", "v{2}", "\u{feff}v2"] {
        assert!(matches!(Active::read(Some(value.as_bytes())), Active::Foreign(_)), "{value:?}");
    }
    let long = Active::read(Some(&[b'x'; 5_000]));
    assert!(matches!(&long, Active::Foreign(text) if text.len() == 64), "{long:?}");
    assert!(matches!(Active::read(Some(&[0xff, 0xfe])), Active::Foreign(_)));
}

#[test]
fn what_is_delivered_replaces_what_is_remembered_of_the_same_alert() {
    let mut world = World::with_a_fresh_release();
    let slow = |severity, action| world::firing("Slow", "v1", severity, action);
    assert_eq!(world.alert(slow(Severity::Medium, Action::Page)), "ignored not_active");
    world.set_value(b"{oops}");
    let delivery = [critical("v1"), slow(Severity::High, Action::Observe)];
    assert_eq!(world.deliver(&delivery), ["held foreign_value", "incident_updated joined"]);
    let record = &world.latest().alerts[1];
    assert_eq!((record.severity, record.action), (Severity::High, Action::Observe));
    assert_eq!(world.deliver(&delivery), ["duplicate duplicate", "duplicate duplicate"]);
}

#[test]
fn an_escalated_alert_is_remembered_before_its_version_counts_as_served() {
    let mut world = World::with_a_fresh_release();
    let row = |severity, action| world::firing("Row", "v1", severity, action);
    world.set_value(b"{oops}");
    assert_eq!(world.alert(row(Severity::High, Action::Page)), "ignored not_active");
    assert_eq!(world.alert(row(Severity::Critical, Action::Rollback)), "ignored not_active");
    world.alert(world::firing("Other", "v1", Severity::Critical, Action::Page));
    assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::ForeignValue));
}

#[test]
fn an_alert_on_a_rolled_back_version_changes_no_verification() {
    let mut world = World::with_a_fresh_release();
    world.mark_known_good("v0");
    world.policy.verify = true;
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    let first = world.latest().id.clone();
    world.set_value(b"{oops}");
    world.look();
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate", "no evidence that it serves");
    world.alert(world::firing("Another", "v2", Severity::Critical, Action::Rollback));
    assert_eq!(world.incidents[&first].phase.kind(), PhaseKind::Verifying);
    assert_ne!(world.latest().id, first);
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. } | Answer::Confirming { .. }));
    assert!(!world.is_quarantined("v1"));
}

#[test]
fn an_open_question_stays_open_and_is_asked_anew_with_what_the_key_holds() {
    for (active, guard, fault) in faults() {
        let mut world = World::with_a_fresh_release();
        world.paused = Some("dana".to_owned());
        world.alert(critical("v2"));
        world.paused = None;
        let ask = world.latest().question_number;
        world.active = active;
        world.look();
        let incident = world.latest();
        assert_eq!(incident.phase.kind(), PhaseKind::AwaitingDecision);
        assert_eq!(incident.held.as_ref().map(|held| held.guard.as_str()), Some(guard));
        assert_eq!(incident.question_number, ask + 1, "the question has changed");
        assert!(incident.deadline().is_some());
        let told = incident.notes.last().expect("a note");
        assert!(told.kind == NoteKind::Held && told.text.starts_with(fault), "{told:?}");
        assert_eq!(world.look().commit, None, "told once");
        assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }), "the question can be answered");
        assert_eq!((world.served(), world.phase()), ("v1", PhaseKind::Verifying));
        assert_eq!(world.rollbacks(), ["v2>v1"]);
        assert!(world.is_quarantined("v2") && world.state.lapsed.is_none());
    }
}

#[test]
fn a_page_goes_on_whatever_the_key_holds() {
    for (active, ..) in faults() {
        let mut world = World::with_a_fresh_release();
        world.paused = Some("dana".to_owned());
        world.alert(critical("v2"));
        world.pass(minutes(2));
        assert!(world.latest().pages());
        world.active = active.clone();
        world.look();
        assert!(world.latest().pages(), "{active:?}");
        world.pass(hours(3));
        assert!(world.latest().pages(), "{active:?}: no one decided");
        assert_eq!(world.choose(Choice::Dismiss), Answer::Decided(PhaseKind::Dismissed));
    }
}

#[test]
fn a_critical_on_the_version_that_served_last_is_held_and_asked_about() {
    for (active, guard, _) in faults() {
        let mut world = World::with_a_fresh_release();
        world.active = active;
        assert_eq!(world.alert(critical("v2")), format!("held {guard}"));
        assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
        assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
        world.pass(minutes(2));
        assert!(world.latest().pages(), "no decision before the deadline");
        assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
        assert_eq!(world.served(), "v1");
    }
}

#[test]
fn both_sides_of_a_split_are_kept_and_the_split_moves_no_further() {
    for (active, guard, _) in faults() {
        let mut world = World::with_a_fresh_release();
        let canary = TrafficShare::Canary(world.policy.canary.usual.plan.clone());
        world.pass(hours(1));
        world.release("v3");
        assert!(matches!(world.share("v2", canary, true), Answer::Shared { .. }));
        world.active = active.clone();
        world.look();
        assert!(world.state.split().is_none());
        world.pass(hours(5));
        assert_eq!(world.active, active, "no automatic move");
        for version in ["v2", "v3"] {
            assert_eq!(world.alert(critical(version)), format!("held {guard}"), "{version}");
        }
        let deleted = active == Active::Absent;
        assert_eq!(
            world.alert(critical("v1")) == "ignored not_active",
            deleted,
            "an invalid value is never interpreted"
        );
    }
}

#[test]
fn a_gradual_rollback_stops_and_becomes_a_question() {
    for (active, ..) in faults() {
        let mut world = World::with_a_fresh_release();
        world.alert(high("v2"));
        assert!(matches!(world.choose(Choice::ApproveGradual), Answer::Shared { .. }));
        world.active = active;
        world.look();
        assert_eq!((world.phase(), world.state.split()), (PhaseKind::AwaitingDecision, None));
        assert_eq!(world::refusal(&world.choose(Choice::ApproveGradual)), RefusalCode::Moved, "what would it share?");
        assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
        assert_eq!(world.served(), "v1");
    }
}

#[test]
fn what_a_person_decided_before_is_asked_once_more() {
    for (active, _, fault) in faults() {
        let mut world = World::with_a_fresh_release();
        (world.policy.confirm, world.says) = (true, Some(Finding::new(Verdict::Unhealthy, "9 %")));
        world.alert(high("v2"));
        assert!(matches!(world.choose(Choice::Approve), Answer::Confirming { .. }));
        world.now = world.now.plus(seconds(1));
        world.active = active.clone();
        world.pass(seconds(5));
        assert_eq!(
            (world.phase(), &world.active),
            (PhaseKind::AwaitingDecision, &active),
            "nothing is overwritten unseen"
        );
        assert!(world.latest().notes.last().is_some_and(|note| note.text.contains(fault)));
        assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
        assert_eq!(world.served(), "v1");
    }
}

#[test]
fn a_prompt_that_was_retired_comes_to_rest_once_its_alerts_end() {
    for severity in [high("v2"), critical("v2")] {
        let mut world = World::with_a_fresh_release();
        world.paused = Some("dana".to_owned());
        world.alert(severity.clone());
        world.pass(minutes(10));
        assert!(world.latest().pages());
        world.active = Active::Absent;
        world.look();
        world.alert(severity.resolved());
        world.pass(minutes(2));
        assert_eq!(world.phase(), PhaseKind::Resolved);
        assert!(!world.latest().pages());
    }
}

#[test]
fn a_failed_rollback_of_a_retired_prompt_comes_to_rest() {
    for (active, ..) in faults() {
        let mut world = World::with_a_fresh_release();
        (world.policy.verify, world.says) = (true, Some(Finding::new(Verdict::Unhealthy, "9 %")));
        world.alert(critical("v2"));
        world.pass(minutes(6));
        assert_eq!(world.phase(), PhaseKind::Escalated);
        world.active = active;
        world.look();
        world.pass(hours(5));
        assert_eq!((world.phase(), world.latest().pages()), (PhaseKind::Escalated, true), "it may be a mistake");
        world.alert(critical("v1"));
        world.pass(hours(2));
        assert_eq!(
            world.incidents.values().next().map(|i| i.phase.kind()),
            Some(PhaseKind::Escalated),
            "v1 still fails"
        );
        world.alert(critical("v2").resolved());
        world.alert(critical("v1").resolved());
        world.pass(hours(14));
        assert!(world.incidents.values().all(|i| !i.phase.is_open() && !i.pages()), "{:?}", world.phase());
    }
}

#[test]
fn a_version_set_again_keeps_its_incident() {
    for (active, ..) in faults() {
        let mut world = World::with_a_fresh_release();
        world.active = active;
        world.alert(critical("v2"));
        world.set_value(b"v2\n");
        world.look();
        assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
        assert_eq!(world.alert(critical("v2")), "rolled_back alert", "no guard holds it");
        assert_eq!((world.served(), world.incidents.len()), ("v1", 1));
    }
}

#[test]
fn another_version_that_is_set_supersedes_the_incident() {
    for (active, ..) in faults() {
        let mut world = World::with_a_fresh_release();
        world.active = active;
        world.alert(critical("v2"));
        world.set_active("v3");
        world.look();
        assert_eq!((world.phase(), world.served()), (PhaseKind::Superseded, "v3"));
        assert_eq!(world.alert(critical("v2")), "ignored not_active");
    }
}

#[test]
fn a_manual_rollback_can_leave_or_restore_the_lapsed_version() {
    for (active, ..) in faults() {
        for (target, served) in [(None, "v1"), (Some("v2"), "v2")] {
            let mut world = World::with_a_fresh_release();
            world.active = active.clone();
            world.alert(critical("v2"));
            let request = Rollback { target: target.map(v), force: true, ..rollback() };
            assert!(matches!(world.roll_back(request), Answer::Changed { unchanged: false, .. }));
            assert_eq!(world.served(), served);
            assert_eq!(world.is_quarantined("v2"), served == "v1");
        }
        let mut world = World::with_a_fresh_release();
        world.active = active;
        world.look();
        let request = Rollback { from: Some(v("v2")), ..rollback() };
        assert!(matches!(world.roll_back(request), Answer::Changed { unchanged: false, .. }), "v2 was served");
        assert_eq!((world.served(), world.is_quarantined("v2")), ("v1", true));
    }
}

#[test]
fn while_nobody_knows_what_is_served_a_critical_says_so() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v1")); // fired before, when another version was served
    world.set_value(b"\"v7\"");
    assert_eq!(world.alert(high("v7")), "ignored unknown_version", "only a critical");
    assert_eq!(world.alert(critical("v7")), "held foreign_value");
    assert!(matches!(world.choose(Choice::Approve), Answer::Changed { .. }));
    assert_eq!((world.served(), world.is_quarantined("v7")), ("v1", true));

    let mut world = World::with_a_fresh_release();
    world.alert(critical("v1"));
    world.set_value(b"?");
    assert_eq!(world.alert(critical("v1")), "ignored not_active", "it fired already when v2 was served");

    let mut world = World::new();
    world.set_value(b"\"v7\"");
    assert_eq!(world.alert(critical("v7")), "held foreign_value", "even for an unknown prompt");

    let mut world = World::with_a_fresh_release();
    world.set_value(b"?");
    for n in 0..100 {
        world.alert(critical(&format!("x{n}")));
    }
    assert!(world.state.lapsed.as_ref().is_some_and(|lapsed| lapsed.versions.len() <= Policy::MAX_LAPSED));
    assert_eq!(world.alert(critical("x99")), "ignored unknown_version");
}

#[test]
fn another_odd_value_is_told_again() {
    let mut world = World::with_a_fresh_release();
    world.active = Active::Absent;
    world.alert(critical("v2"));
    world.set_value(b"???");
    world.look();
    let incident = world.latest();
    assert!(incident.notes.last().is_some_and(|note| note.text.contains("holds \"???\"")), "{incident:?}");
    assert_eq!(incident.held.as_ref().map(|held| held.guard), Some(Guard::ForeignValue));
    world.active = Active::Absent;
    assert!(world.look().commit.is_some());
    assert_eq!(world.latest().held.as_ref().map(|held| held.guard), Some(Guard::KeyDeleted));
}

#[test]
fn a_version_soaks_no_further_while_the_key_holds_none() {
    let mut world = World::with_a_fresh_release();
    world.pass(minutes(40)); // ten minutes before the hour
    world.active = Active::Absent;
    world.look();
    world.pass(hours(2));
    assert!(!world.is_known_good("v2"));
    world.set_active("v2");
    world.look();
    world.pass(minutes(59));
    assert!(!world.is_known_good("v2"));
    world.pass(minutes(1));
    assert!(world.is_known_good("v2"));
}

#[test]
fn a_clock_step_back_hides_no_lapse_from_a_pending_rollback() {
    for gradual in [true, false] {
        let mut world = World::with_a_fresh_release();
        world.policy.confirm = true;
        let plan = gradual.then(|| world.policy.gradual.clone());
        world.roll_back(Rollback { gradual: plan, ..world::rollback() });
        assert_eq!(world.phase(), PhaseKind::Confirming);
        world.step_clock(-3_600);
        world.active = Active::Absent;
        world.look();
        assert_eq!(world.phase(), PhaseKind::AwaitingDecision, "gradual: {gradual}");
        world.pass(minutes(1));
        assert_eq!(world.active, Active::Absent, "nothing is overwritten unseen");
    }
}

#[test]
fn a_failing_version_that_may_serve_is_no_target() {
    let (page, critical) = (high("v1"), Alert { fingerprint: "another row".to_owned(), ..critical("v1") });
    for deliveries in [vec![vec![page.clone(), critical.clone()]], vec![vec![page], vec![critical]]] {
        let mut world = World::with_a_fresh_release();
        world.mark_known_good("v0");
        world.alert(super::critical("v2"));
        world.set_active("v2");
        world.look();
        world.set_value(b"");
        world.look();
        for delivery in deliveries {
            world.deliver(&delivery);
        }
        let on_v2 = world.state.open_incidents().find(|incident| incident.version == v("v2")).expect("an incident");
        assert_eq!(on_v2.target, Some(v("v0")), "{on_v2:#?}");
    }
}

#[test]
fn remembered_alerts_count_once_the_version_may_serve() {
    let (page, rollback) = (
        Alert { fingerprint: "another row".to_owned(), ..world::firing("Row", "v2", Severity::Critical, Action::Page) },
        critical("v2"),
    );
    let outcomes: Vec<_> = [vec![vec![page.clone(), rollback.clone()]], vec![vec![rollback.clone()], vec![page]]]
        .into_iter()
        .map(|deliveries| {
            let mut world = World::with_a_fresh_release();
            world.mark_known_good("v0");
            world.alert(rollback.clone());
            world.activate("v0", false);
            world.set_value(b"");
            world.look();
            for delivery in deliveries {
                world.deliver(&delivery);
            }
            let about = world.state.open_incidents().find(|i| i.version == v("v2") && i.subject() == &v("v2"));
            let about = about.expect("an incident");
            (about.phase.kind(), about.alerts.len(), about.held.as_ref().map(|held| held.guard))
        })
        .collect();
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0], (PhaseKind::AwaitingDecision, 2, Some(Guard::ForeignValue)));
}

#[test]
fn an_alert_that_was_forgotten_says_again_which_version_may_serve() {
    let mut world = World::with_a_fresh_release();
    world.mark_known_good("v0");
    world.alert(critical("v0"));
    world.set_value(b"");
    world.look();
    let mut soon = world.clone();
    soon.pass(hours(1));
    assert_eq!(soon.alert(critical("v0")), "ignored not_active", "it fired before the key was changed");
    world.pass(hours(6));
    assert_eq!(world.alert(critical("v0")), "held foreign_value");
}

#[test]
fn an_alert_repeated_after_long_excludes_its_version() {
    for order in [["v2", "v4"], ["v4", "v2"]] {
        let mut world = World::with_a_fresh_release();
        world.mark_known_good("v2");
        world.set_value(b"");
        world.look();
        world.alert(critical("v2"));
        world.alert(critical("v4"));
        world.pass(hours(24));
        world.deliver(&order.map(critical));
        let on_v4 = world.state.open_incidents().find(|incident| incident.version == v("v4")).expect("a question");
        assert_eq!(on_v4.target, Some(v("v1")), "{order:?}");
    }
}

#[test]
fn a_page_survives_the_deletion_of_the_key() {
    let mut world = World::with_a_fresh_release();
    world.policy.confirm = true;
    world.alert(high("v2"));
    world.pass(minutes(6));
    assert!(world.latest().pages());
    let mut unseen = world.clone();
    world.roll_back(world::rollback());
    world.active = Active::Absent;
    world.look();
    unseen.active = Active::Absent; // the request itself finds it deleted
    unseen.roll_back(Rollback { from: Some(v("v2")), ..world::rollback() });
    unseen.pass(seconds(15));
    for world in [world, unseen] {
        assert!(world.phase() == PhaseKind::AwaitingDecision && world.latest().pages(), "{:?}", world.latest());
    }
}

#[test]
fn the_first_request_after_a_deletion_asks_again() {
    let mut world = World::with_a_fresh_release();
    world.policy.confirm = true;
    world.active = Active::Absent;
    world.roll_back(Rollback { from: Some(v("v2")), ..world::rollback() });
    world.pass(seconds(15));
    assert_eq!(world.active, Active::Absent, "nothing is overwritten unseen");
    assert_eq!(world.phase(), PhaseKind::AwaitingDecision);
}

/// The key was deleted, and set to the same version again: no traffic has moved.
#[test]
fn a_key_that_is_deleted_and_set_again_moves_no_traffic() {
    let mut world = World::with_a_fresh_release();
    world.escalate();
    world.active = Active::Absent;
    world.look();
    world.set_active("v1");
    world.look();
    assert!(world.latest().pages());
    let mut undone = world.clone();
    assert!(matches!(undone.choose(Choice::Undo), Answer::Changed { .. }));
    let answer = world.choose(Choice::Approve);
    assert!(matches!(answer, Answer::Changed { .. }), "{answer:?}");
}

#[test]
fn an_alert_on_a_gradual_target_asks_once_the_key_is_lost() {
    for (key, guard, _) in faults() {
        let mut world = World::with_a_fresh_release();
        let gradual = Some(world.policy.gradual.clone());
        world.roll_back(Rollback { gradual, ..rollback() });
        world.alert(critical("v1"));
        assert_eq!(world.incidents.len(), 1, "it pauses the rollback");
        world.active = key;
        world.look();
        let asked = world.state.open_incidents().find(|incident| incident.version == v("v1")).expect("a question");
        assert_eq!(asked.held.as_ref().map(|held| held.guard.as_str()), Some(guard));
        assert_eq!(asked.phase.kind(), PhaseKind::AwaitingDecision);
    }
}

#[test]
fn a_decision_overwrites_nothing_that_nobody_could_see() {
    let decisions: [fn(&mut World) -> Answer; 3] = [
        |world| world.choose(Choice::Undo),
        |world| world.choose(Choice::Approve),
        |world| world.roll_back(Rollback { from: Some(v("v2")), ..rollback() }),
    ];
    for (active, _, fault) in faults() {
        for (decide, alert) in decisions.into_iter().zip([critical("v2"), high("v2"), high("v2")]) {
            let mut world = World::with_a_fresh_release();
            world.alert(alert);
            world.active = active.clone();
            match decide(&mut world) {
                Answer::Refused(refusal) => assert!(refusal.message.contains(fault), "{refusal:?}"),
                other => panic!("{other:?}"),
            }
            assert_eq!(world.active, active, "nothing is overwritten unseen");
            assert!(matches!(decide(&mut world), Answer::Changed { .. }), "whoever knows it decides again");
        }
    }
}

/// The first version takes the last free place, and the second one is unused for longest.
#[test]
fn both_versions_of_a_delivery_are_known_although_there_is_room_for_one() {
    let mut world = World::with_a_fresh_release();
    world.register_text("v4");
    for n in world.state.versions.len()..Policy::MAX_VERSIONS {
        world.register(&format!("ci-{n}"));
    }
    world.active = Active::Foreign(String::new());
    world.deliver(&[critical("v3"), critical("v4")]);
    let record = world.state.version(&v("v4")).expect("it is known");
    assert!(record.registered && record.has_content && world.contents.contains_key(&v("v4")), "{record:?}");
}
