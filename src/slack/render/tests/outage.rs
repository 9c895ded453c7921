//! One root for many prompts: what it shows, and that it fits whatever they are called.

use super::super::{MassView, Message, mass_overview, mass_reply, mass_root};
use super::valid::problems;
use super::*;
use crate::decision::alert::GroupLabels;
use crate::decision::outage::{Done, Execution, Hold, Member, Outage, OutageAction};

const CALL: Option<&str> = Some(MENTION);

fn mass() -> Outage {
    Outage::open(IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned()), &Policy::default(), after(0))
}

fn member(prompt: &str, phase: PhaseKind) -> Member {
    let incident =
        Incident { phase: in_phase(phase), prompt: PromptName::parse(prompt).expect("a prompt"), ..waiting() };
    let shares = GroupLabels { provider: "acme".to_owned(), model: "acme-1".to_owned(), group: String::new() };
    Member { shares, ..Member::new(&incident, false, after(1)) }
}

fn some() -> Vec<Member> {
    let before = |name| Member { before: true, ..member(name, PhaseKind::Verifying) };
    vec![before("search"), member("refunds", PhaseKind::AwaitingDecision), member("returns", PhaseKind::Confirming)]
}

fn root(mass: &Outage, members: &[Member]) -> Message {
    mass_root(&MassView { mass, members, mention: CALL })
}

#[test]
fn each_state_is_shown() {
    let hold = Some(Hold { by: Operator::recorded("maya"), at: after(9) });
    let order = Some(Execution { what: OutageAction::RollBack, by: Operator::recorded("maya"), at: after(9) });
    let over: Vec<_> = some().into_iter().map(|m| Member { phase: PhaseKind::Recovered, ..m }).collect();
    for (name, mass, members) in [
        ("mass_root", mass(), some()),
        ("mass_root_held", Outage { hold, ..mass() }, some()),
        ("mass_root_carried_out", Outage { order, ..mass() }, some()),
        ("mass_root_over", Outage { closed_at: Some(after(60)), ..mass() }, over),
    ] {
        snapshot(name, &root(&mass, &members));
    }
    let (mass, members) = (mass(), some());
    let view = MassView { mass: &mass, members: &members, mention: CALL };
    snapshot("mass_overview", &mass_overview(&view, Some("https://slack.example/archives/C1/p1")));
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
                let done = Done { order: after(1), failed: true, text: text.clone() };
                let shares =
                    GroupLabels { model: text.clone(), provider: format!("{text}{}", n % 40), group: text.clone() };
                let mut member = Member { done: Some(done), shares, ..member(&name, phase) };
                if long {
                    (member.version, member.target) = (version("v").expect("a version"), version("w"));
                }
                member
            })
            .collect();
        let mut mass = Outage { hold: Some(Hold { by: Operator::recorded(text.clone()), at: after(1) }), ..mass() };
        mass.note(after(2), NoteKind::Asked, text.clone());
        let view = MassView { mass: &mass, members: &members, mention: CALL };
        let note = mass.notes.last().expect("a note");
        for message in [mass_root(&view), mass_overview(&view, None), mass_reply(&view, note)] {
            assert_eq!(problems(&message, CALL), Vec::<String>::new(), "long: {long}");
        }
        let said = said(&mass_root(&view));
        assert!(said.contains("more that wait") && said.contains("and 470 more"), "the rest is counted: {said}");
    }
}

#[test]
fn people_are_called_only_while_something_waits_and_is_not_held() {
    let calls = |mass: &Outage, members: &[Member]| said(&root(mass, members)).contains("subteam");
    let hold = Some(Hold { by: Operator::recorded("maya"), at: after(9) });
    assert!(calls(&mass(), &some()));
    assert!(!calls(&Outage { hold, ..mass() }, &some()));
    assert!(!calls(&mass(), &some()[..1]));
    assert!(!calls(&Outage { closed_at: Some(after(9)), ..mass() }, &some()));
}

#[test]
fn a_row_whose_rollback_is_being_confirmed_or_leads_nowhere_has_no_button() {
    let nowhere = Member { target: None, ..member("lost", PhaseKind::AwaitingDecision) };
    let blocks = serde_json::to_string(&root(&mass(), &[nowhere, member("asked", PhaseKind::Confirming)]).blocks);
    let blocks = blocks.expect("blocks are JSON");
    assert!(!blocks.contains("approve.") && blocks.contains("no other known-good version"), "{blocks}");
}
