//! The root for many prompts: its content, and that it fits whatever they are called.

use super::super::{Message, OutageMessage, outage_overview, outage_reply, outage_root};
use super::valid::problems;
use super::*;
use crate::decision::labels::GroupLabels;
use crate::decision::outage::{Done, Execution, Member, Outage, OutageAction, OutageHold};

const CALL: Option<&str> = Some(MENTION);

fn outage() -> Outage {
    Outage::open(IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned()), &Policy::default(), after(0))
}

fn member(prompt: &str, phase: PhaseKind) -> Member {
    let incident =
        Incident { phase: in_phase(phase), prompt: PromptName::parse(prompt).expect("a prompt"), ..waiting() };
    let group_labels = GroupLabels { provider: "acme".to_owned(), model: "acme-1".to_owned(), group: String::new() };
    Member { group_labels, ..Member::new(&incident, false, after(1)) }
}

fn some() -> Vec<Member> {
    let before = |name| Member { before: true, ..member(name, PhaseKind::Verifying) };
    vec![before("search"), member("refunds", PhaseKind::AwaitingDecision), member("returns", PhaseKind::Confirming)]
}

fn root(outage: &Outage, members: &[Member]) -> Message {
    outage_root(&OutageMessage { outage, members, mention: CALL })
}

#[test]
fn each_state_is_shown() {
    let hold = Some(OutageHold { by: Operator::recorded("maya"), at: after(9) });
    let execution = Some(Execution { what: OutageAction::RollBack, by: Operator::recorded("maya"), at: after(9) });
    let over: Vec<_> = some().into_iter().map(|m| Member { phase: PhaseKind::Recovered, ..m }).collect();
    for (name, outage, members) in [
        ("outage_root", outage(), some()),
        ("outage_root_held", Outage { hold, ..outage() }, some()),
        ("outage_root_carried_out", Outage { execution, ..outage() }, some()),
        ("outage_root_over", Outage { closed_at: Some(after(60)), ..outage() }, over),
    ] {
        snapshot(name, &root(&outage, &members));
    }
    let (outage, members) = (outage(), some());
    let view = OutageMessage { outage: &outage, members: &members, mention: CALL };
    snapshot("outage_overview", &outage_overview(&view, Some("https://slack.example/archives/C1/p1")));
}

#[test]
fn a_thousand_prompts_with_the_longest_names_and_hostile_texts_fit() {
    let text = "<!channel> `*_~ & <https://evil.example|here> ".repeat(60);
    let version = |c: &str| Some(VersionName::parse(&c.repeat(64)).expect("a version"));
    for long in [false, true] {
        let members: Vec<_> = (0..1_000)
            .map(|n| {
                let name = if long { format!("{n:04}{}", "x".repeat(124)) } else { format!("p-{n}") };
                let phase = [PhaseKind::AwaitingDecision, PhaseKind::Recovered][n % 2];
                let done = Done { execution: after(1), failed: true, text: text.clone() };
                let group_labels =
                    GroupLabels { model: text.clone(), provider: format!("{text}{}", n % 40), group: text.clone() };
                let mut member = Member { done: Some(done), group_labels, ..member(&name, phase) };
                if long {
                    (member.version, member.target) = (version("v").expect("a version"), version("w"));
                }
                member
            })
            .collect();
        let mut outage =
            Outage { hold: Some(OutageHold { by: Operator::recorded(text.clone()), at: after(1) }), ..outage() };
        outage.note(after(2), NoteKind::Asked, text.clone());
        let view = OutageMessage { outage: &outage, members: &members, mention: CALL };
        let note = outage.notes.last().expect("a note");
        for message in [outage_root(&view), outage_overview(&view, None), outage_reply(&view, note)] {
            assert_eq!(problems(&message, CALL), Vec::<String>::new(), "long: {long}");
        }
        let said = said(&outage_root(&view));
        assert!(said.contains("more waiting") && said.contains("and 470 more"), "the rest is counted: {said}");
    }
}

#[test]
fn people_are_called_only_while_something_waits_and_is_not_held() {
    let calls = |outage: &Outage, members: &[Member]| said(&root(outage, members)).contains("subteam");
    let hold = Some(OutageHold { by: Operator::recorded("maya"), at: after(9) });
    assert!(calls(&outage(), &some()));
    assert!(!calls(&Outage { hold, ..outage() }, &some()));
    for (what, expected) in [(OutageAction::RollBack, false), (OutageAction::Undo, true)] {
        let execution = Some(Execution { what, by: Operator::recorded("maya"), at: after(9) });
        assert_eq!(calls(&Outage { execution, ..outage() }, &some()), expected, "{what:?}");
    }
    let execution = Some(Execution { what: OutageAction::RollBack, by: Operator::recorded("maya"), at: after(9) });
    let late = Member { joined: after(10), ..member("late", PhaseKind::AwaitingDecision) };
    assert!(calls(&Outage { execution, ..outage() }, &[some(), vec![late]].concat()), "it joined after the click");
    assert!(!calls(&outage(), &some()[..1]));
    assert!(!calls(&Outage { closed_at: Some(after(9)), ..outage() }, &some()));
}

#[test]
fn an_overview_asks_for_a_decision_only_while_one_is_open() {
    let link = |outage: &Outage, members: &[Member]| {
        let message = outage_overview(&OutageMessage { outage, members, mention: CALL }, Some("https://slack.example"));
        said(&message).split("slack.example|").nth(1).and_then(|rest| rest.split('>').next()).map(str::to_owned)
    };
    assert_eq!(link(&outage(), &some()).as_deref(), Some("Decide in the thread"));
    assert_eq!(link(&outage(), &some()[..1]).as_deref(), Some("Go to the thread"));
    assert_eq!(link(&Outage { closed_at: Some(after(9)), ..outage() }, &some()).as_deref(), Some("Go to the thread"));
}

#[test]
fn a_row_without_a_possible_rollback_has_no_button() {
    let nowhere = Member { target: None, ..member("lost", PhaseKind::AwaitingDecision) };
    let blocks = serde_json::to_string(&root(&outage(), &[nowhere, member("asked", PhaseKind::Confirming)]).blocks);
    let blocks = blocks.expect("blocks are JSON");
    assert!(!blocks.contains("approve.") && blocks.contains("no other known-good version"), "{blocks}");
}
