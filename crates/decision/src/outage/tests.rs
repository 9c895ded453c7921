use super::*;
use crate::alert::AlertRecord;
use crate::guards::Held;
use crate::ids::CommitId;
use crate::phase::{Phase, Question};
use crate::severity::{Action, Severity};
use crate::switch::Switch;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn incident(name: &str, phase: Phase) -> Incident {
    let prompt = PromptName::parse(name).expect("a prompt");
    let version = VersionName::parse("v2").expect("a version");
    let new = Incident::new(IncidentId(name.to_uppercase()), prompt, version, "on-call".to_owned(), NOW);
    let held = Some(Held { guard: Guard::Budget, detail: String::new() });
    Incident { phase, held, outage: true, ..new }
}

fn asked() -> Phase {
    Phase::AwaitingDecision(Question::default())
}

fn member(name: &str, phase: PhaseKind) -> Member {
    Member { phase, ..Member::new(&incident(name, asked()), false, NOW) }
}

fn switched(name: &str, phase: PhaseKind) -> Member {
    Member { before: true, ..member(name, phase) }
}

fn on(name: &str, provider: &str, model: &str) -> Member {
    let group_labels = GroupLabels { model: model.to_owned(), provider: provider.to_owned(), group: String::new() };
    Member { group_labels, ..member(name, PhaseKind::AwaitingDecision) }
}

fn outage() -> Outage {
    Outage::open(IncidentId("M".to_owned()), &Policy::default(), NOW)
}

#[test]
fn automation_is_tried_again_after_a_while_whatever_the_clock_does() {
    let every = Duration::from_secs(15);
    let tried = |at| Member { tried: at, ..member("a", PhaseKind::AwaitingDecision) };
    for (at, rested) in [(None, true), (Some(NOW), false), (Some(NOW.minus(every)), true), (Some(later(3_600)), true)] {
        assert_eq!(tried(at).has_rested(every, NOW), rested, "{at:?}");
    }
}

#[test]
fn the_fallback_decider_takes_over_from_one_that_is_no_longer_configured() {
    let mut outage = outage();
    let before = outage.clone();
    let mut policy = Policy { deciders: vec!["on-call".to_owned(), "sre".to_owned()], ..Policy::default() };
    policy.fallback_decider = "sre".to_owned();
    outage.reassign(&policy, later(1));
    assert_eq!(outage, before, "still configured");
    policy.deciders.retain(|name| name != "on-call");
    for _ in 0..2 {
        outage.reassign(&policy, later(2));
        assert_eq!((outage.decider.as_str(), outage.question_number), ("sre", before.question_number + 1));
        let note = outage.notes.last().expect("a note");
        assert_eq!((note.kind, note.text.as_str()), (NoteKind::Asked, "on-call is no longer configured: sre decides"));
    }
}

#[test]
fn the_choices_are_what_can_be_done_now() {
    use OutageAction::{Hold, Release, RollBack, Undo};
    let (waits, verifying) = (member("a", PhaseKind::AwaitingDecision), member("b", PhaseKind::Verifying));
    let (before, undone) = (switched("c", PhaseKind::Recovered), switched("d", PhaseKind::Dismissed));
    let rows: [(&[&Member], bool, &[OutageAction]); 6] = [
        (&[&waits], false, &[RollBack, Hold]),
        (&[&waits], true, &[RollBack, Release]),
        (&[&waits, &before], false, &[RollBack, Undo, Hold]),
        (&[&verifying], false, &[]),
        (&[&verifying, &before], false, &[Undo]),
        (&[&verifying, &undone], true, &[Release]),
    ];
    for (members, held, expected) in rows {
        let members: Vec<_> = members.iter().map(|member| (*member).clone()).collect();
        let hold = held.then(|| super::OutageHold { by: Operator::recorded("maya"), at: NOW });
        let outage = Outage { hold, ..outage() };
        assert_eq!(outage.choices(&members), expected, "{members:?}");
        let busy = Outage {
            execution: Some(Execution { what: RollBack, by: Operator::recorded("maya"), at: NOW }),
            ..outage.clone()
        };
        assert_eq!(busy.choices(&members), [], "one order at a time");
        assert_eq!(Outage { closed_at: Some(NOW), ..outage }.choices(&members), []);
    }
}

#[test]
fn of_two_people_one_decides_and_the_other_is_told() {
    let members = [member("a", PhaseKind::AwaitingDecision), switched("b", PhaseKind::Verifying)];
    for (first, second) in [
        (OutageAction::RollBack, OutageAction::Hold),
        (OutageAction::Hold, OutageAction::Hold),
        (OutageAction::Undo, OutageAction::RollBack),
    ] {
        let mut outage = outage();
        assert!(outage.decide(&members, first, &Operator::recorded("maya"), Some(0), later(1)).is_ok());
        for ask in [Some(0), None] {
            let before = outage.clone();
            let refusal = outage.decide(&members, second, &Operator::recorded("omar"), ask, later(2)).unwrap_err();
            assert!(refusal.message.contains("maya") || refusal.code == RefusalCode::Stale, "{refusal:?}");
            assert_eq!(outage, before, "a refusal leaves nothing behind");
        }
    }
}

#[test]
fn each_decision_that_makes_no_sense_says_why() {
    let waits = [member("a", PhaseKind::AwaitingDecision)];
    let over = [member("a", PhaseKind::Recovered)];
    let rows: [(&[Member], OutageAction, &str); 4] = [
        (&waits, OutageAction::Release, "the prompts are not on hold"),
        (&waits, OutageAction::Undo, "there is no earlier rollback"),
        (&over, OutageAction::RollBack, "no prompt is waiting"),
        (&over, OutageAction::Hold, "no prompt is waiting"),
    ];
    for (members, bulk, why) in rows {
        let refusal = outage().decide(members, bulk, &Operator::recorded("maya"), None, NOW).unwrap_err();
        assert!(refusal.message.contains(why), "{bulk:?}: {refusal:?}");
    }
    let mut closed = Outage { closed_at: Some(NOW), ..outage() };
    assert!(
        closed
            .decide(&waits, OutageAction::RollBack, &Operator::recorded("maya"), None, NOW)
            .unwrap_err()
            .message
            .contains("closed")
    );
}

#[test]
fn an_order_means_who_was_there_and_each_once() {
    let execution = Execution { what: OutageAction::RollBack, by: Operator::recorded("maya"), at: later(10) };
    let done = Some(Done { execution: execution.at, failed: false, text: String::new() });
    let rows = [
        (member("a", PhaseKind::AwaitingDecision), true, "waits"),
        (member("a", PhaseKind::Investigating), true, "under investigation, and the whole was decided"),
        (Member { joined: later(11), ..member("a", PhaseKind::AwaitingDecision) }, false, "joined after the click"),
        (
            Member { done: done.clone(), ..member("a", PhaseKind::AwaitingDecision) },
            false,
            "was asked for, and objected to",
        ),
        (member("a", PhaseKind::Verifying), false, "was decided before"),
        (
            Member { asked: Some((execution.at, 1)), ..member("a", PhaseKind::Verifying) },
            true,
            "begun, outcome unknown",
        ),
        (Member { asked: Some((later(5), 1)), ..member("a", PhaseKind::Verifying) }, false, "of an earlier order"),
        (switched("a", PhaseKind::Verifying), false, "was rolled back before"),
    ];
    for (member, due, why) in rows {
        assert_eq!(member.is_due(&execution), due, "{why}");
    }
    let execution = Execution { what: OutageAction::Undo, ..execution };
    for (member, due) in [
        (switched("a", PhaseKind::Verifying), true),
        (switched("a", PhaseKind::Recovered), true),
        (switched("a", PhaseKind::Dismissed), false),
        (switched("a", PhaseKind::Superseded), false),
        (member("a", PhaseKind::Verifying), false),
    ] {
        assert_eq!(member.is_due(&execution), due, "{member:?}");
    }
}

#[test]
fn an_order_ends_when_nothing_is_left_and_names_what_failed() {
    let mut outage = outage();
    let mut members: Vec<_> = (0..15).map(|n| member(&format!("p{n:02}"), PhaseKind::AwaitingDecision)).collect();
    outage.decide(&members, OutageAction::RollBack, &Operator::recorded("maya"), None, later(1)).expect("decided");
    let ask = outage.question_number;
    for n in 0..15 {
        outage.finish_execution(&members, later(2));
        assert!(outage.execution.is_some(), "{n} are done");
        members[n].done = Some(Done { execution: later(1), failed: n > 1, text: format!("reason {n}") });
    }
    outage.finish_execution(&members, later(2));
    assert_eq!((outage.execution.clone(), outage.question_number), (None, ask + 1));
    let text = &outage.notes.last().expect("a note").text;
    for part in ["done for maya: 2 rolled back", "13 not: p02 (reason 2)", "p11 (reason 11)", "and 3 more"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert!(!text.contains("p12"), "bounded: {text}");
}

#[test]
fn it_closes_when_nothing_waits_or_is_being_verified() {
    for phase in PhaseKind::ALL {
        let mut outage = outage();
        outage.close_if_over(&[member("a", PhaseKind::Recovered), member("b", phase)], later(9));
        // a rollback that did not help is handled separately
        let over = !phase.is_open() || phase == PhaseKind::Escalated;
        assert_eq!(outage.closed_at.is_some(), over, "{phase}");
    }
    let execution = Some(Execution { what: OutageAction::Undo, by: Operator::recorded("maya"), at: NOW });
    let mut busy = Outage { execution, ..outage() };
    busy.close_if_over(&[switched("a", PhaseKind::Recovered)], later(9));
    assert!(busy.is_open());
}

#[test]
fn automation_goes_on_when_enough_rollbacks_have_left_the_window() {
    let policy = Policy { max_auto_rollbacks: 2, ..Policy::default() };
    let rows: [(&[u64], u64, Option<u64>); 6] = [
        (&[], 0, Some(0)),
        (&[0], 10, Some(10)),
        (&[0, 5], 10, Some(300)),
        (&[0, 5, 7], 10, Some(305)),
        (&[0, 5], 300, Some(300)),
        (&[0, 5], 299, Some(300)),
    ];
    for (automatic, now, expected) in rows {
        let automatic: Vec<_> = automatic.iter().map(|at| later(*at)).collect();
        assert_eq!(room_at(&automatic, &policy, later(now)), expected.map(later), "{automatic:?} at {now}");
    }
    let never = Policy { max_auto_rollbacks: 0, ..policy };
    assert_eq!(room_at(&[], &never, NOW), None);
}

#[test]
fn it_says_once_that_automation_goes_on_and_each_time_what_it_did() {
    let (mut outage, policy) = (outage(), Policy::default());
    outage.resume(&[], &policy, later(300));
    outage.resume(&["a".to_owned(), "b".to_owned()], &policy, later(301));
    outage.resume(&[], &policy, later(600));
    let said: Vec<_> = outage.notes.iter().skip(1).map(|note| note.text.as_str()).collect();
    assert_eq!(
        said,
        ["5 min have passed: automation resumes, at most 5 prompts in 5 min", "rolled back automatically: a, b"]
    );
}

#[test]
fn the_label_that_most_share_comes_first() {
    let members = [on("a", "openai", "x"), on("b", "openai", "y"), on("c", "openai", "y"), on("d", "", "z")];
    assert_eq!(shared(&members), [("provider", "openai", 3), ("model", "y", 2)]);
}

#[test]
fn a_member_shows_the_labels_of_its_worst_alert() {
    let record = |name: &str, severity, provider: &str, began: i64| AlertRecord {
        fingerprint: name.to_owned(),
        alertname: name.to_owned(),
        severity,
        action: Action::Page,
        decider: "on-call".to_owned(),
        time_limit: Duration::from_secs(60),
        firing: true,
        starts_at: Some(NOW.minus(Duration::from_secs(began.unsigned_abs()))),
        first_seen: NOW,
        last_seen: NOW,
        listed: false,
        absent_since: None,
        summary: String::new(),
        description: String::new(),
        value: String::new(),
        verify: String::new(),
        runbook_url: String::new(),
        measure: Default::default(),
        dashboard_url: String::new(),
        generator_url: String::new(),
        alertmanager_url: String::new(),
        group_labels: GroupLabels { provider: provider.to_owned(), ..GroupLabels::default() },
    };
    let mut incident = incident("a", asked());
    incident.alerts = vec![
        record("none", Severity::Critical, "", 10),
        record("weak", Severity::Medium, "other", 30),
        record("worst", Severity::High, "openai", 20),
    ];
    let member = Member::new(&incident, false, NOW);
    assert_eq!((member.group_labels.provider.as_str(), member.began), ("openai", NOW.minus(Duration::from_secs(30))));
}

#[test]
fn only_automatic_rollbacks_of_the_window_count_as_made_before() {
    let policy = Policy::default();
    let made = |mode, at: Timestamp| {
        let version = |name| VersionName::parse(name).expect("a version");
        let (from, to) = (version("v2"), version("v1"));
        let operator = Operator::recorded("x");
        let commit = CommitId::default();
        let switch = Switch { commit, at, from, to, mode, operator, decided_at: None, verification: None };
        rolled_back_before(
            &Incident { switch: Some(switch), ..incident("a", Phase::Verifying { until: NOW }) },
            NOW,
            &policy,
        )
    };
    let at = |mode, ago| made(mode, NOW.minus(Duration::from_secs(ago)));
    assert!(at(SwitchMode::Auto, 0) && at(SwitchMode::Auto, 299));
    assert!(made(SwitchMode::Auto, later(10_800)), "a moment ago, before the clock went back by three hours");
    assert!(!at(SwitchMode::Auto, 300) && !at(SwitchMode::Approved, 10) && !at(SwitchMode::Manual, 10));
    assert!(!rolled_back_before(&incident("a", asked()), NOW, &policy));
}

#[test]
fn a_member_follows_its_incident_and_keeps_what_it_knew() {
    let mut member = Member { tried: Some(NOW), asked: Some((NOW, 3)), ..switched("a", PhaseKind::AwaitingDecision) };
    let (before, mut incident) = (member.clone(), incident("a", Phase::Verifying { until: NOW }));
    incident.question_number = 7;
    member.follow(&incident);
    assert_eq!(member, Member { phase: PhaseKind::Verifying, question_number: 7, ..before });
}

#[test]
fn a_clock_that_goes_back_spends_the_budget_for_one_window() {
    let policy = Policy::default();
    let automatic: Vec<_> = (0..u64::from(policy.max_auto_rollbacks)).map(|n| later(86_400 + n)).collect();
    assert_eq!(room_at(&automatic, &policy, NOW), Some(NOW.plus(policy.budget_window)));
}

#[test]
fn an_undo_of_all_names_the_version_that_it_gives_back() {
    let execution = |what| Execution { what, by: Operator::recorded("maya"), at: NOW };
    let member = switched("a", PhaseKind::Verifying);
    let undo = member.decision(&execution(OutageAction::Undo), Some(3));
    assert_eq!((undo.choice, undo.question_number), (Choice::Undo, None));
    assert_eq!(undo.target, Some(member.version.clone()));
    let approve = member.decision(&execution(OutageAction::RollBack), Some(3));
    assert_eq!((approve.choice, approve.question_number, approve.target), (Choice::Approve, Some(3), None));
}
