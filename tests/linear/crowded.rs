//! Decisions about a prompt with increasing numbers of versions and incidents, open and closed. Few prompts have more
//! than ten of each.

use prompt_rollback::decision::alert::AlertRecord;
use prompt_rollback::decision::decide::{Active, Snapshot};
use prompt_rollback::decision::note::NoteKind;
use prompt_rollback::decision::phase::{Phase, Question, RollbackFailure};
use prompt_rollback::decision::{
    Activation, Adopt, Choice, CommitId, Decide, Event, Incident, IncidentId, Mark, MarkKind, Marking, Operator,
    Policy, PromptName, PromptState, Register, Rollback, Switch, SwitchMode, Timestamp, TrafficShare, decide,
};
use prompt_rollback::store::record::{self, Unknown};
use prompt_rollback_testkit::{least, linear};

use crate::{alert, alerts, delivery, now, shipped, snapshot, version};

fn ago(seconds: i64) -> Timestamp {
    Timestamp(now().0 - 1_000 * seconds)
}

fn id(n: usize) -> IncidentId {
    IncidentId(format!("C{n:025}"))
}

fn operator() -> Operator {
    Operator::recorded("ci")
}

/// `v2` serves, `v1` is known-good, and there are `many` more versions: some known-good, some marked as bad, all with
/// content. Each has had an incident, and most of them are open.
fn crowded(many: usize) -> PromptState {
    let mut state = shipped();
    for n in 0..many {
        let name = version(&format!("c{n}"));
        let record = state.version_entry(&name, ago(80_000));
        record.registered = true;
        record.last_active = Some(ago(70_000 - n as i64));
        record.has_content = true;
        match n % 4 {
            0 | 1 => record.trust(ago(60_000)),
            2 => {
                record.mark = Some(Mark {
                    kind: MarkKind::Bad,
                    at: ago(n as i64),
                    operator: operator(),
                    reason: "lacks a fix".to_owned(),
                });
            }
            _ => {}
        }
        let prompt = PromptName::parse("p").expect("a name");
        let mut incident = Incident::new(id(n), prompt, name.clone(), "on-call".to_owned(), ago(600));
        let switch = |to: &str| Switch {
            commit: CommitId(format!("commit-{n}")),
            at: ago(500),
            decided_at: None,
            from: name.clone(),
            to: version(to),
            mode: SwitchMode::Approved,
            operator: operator(),
            verification: None,
        };
        let one = alerts(&delivery(1, |_| alert(n, "firing", "p", name.as_str()))).remove(0);
        incident.alerts.push(AlertRecord::new(&one, ago(600)));
        incident.note(ago(600), NoteKind::Opened, "it fails");
        incident.target = Some(version("v1"));
        incident.phase = match n % 5 {
            0 => Phase::AwaitingDecision(Question::until(Timestamp(now().0 + 60_000))),
            1 => Phase::Investigating { until: Timestamp(now().0 + 60_000) },
            2 => {
                incident.switch = Some(switch("v2"));
                Phase::Verifying { until: Timestamp(now().0 + 60_000) }
            }
            3 => {
                incident.switch = Some(switch("v2"));
                Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered }
            }
            _ => {
                incident.closed_at = Some(ago(60));
                Phase::Resolved
            }
        };
        state.incidents.push(incident);
    }
    state
}

fn decided(what: &str, policy: &Policy, given: impl Fn(usize) -> (Snapshot, Event)) {
    linear(what, 16, |many| {
        let (snapshot, event) = given(many);
        let decision = decide(policy, &snapshot, &event, now());
        assert!(decision.commit.is_some(), "{what}: {:?}", decision.answer);
        least(|| decide(policy, &snapshot, &event, now()))
    });
}

type Given = fn(usize) -> Event;

/// Events on a prompt with many incidents, the same for any number of them.
fn events() -> Vec<(&'static str, Given)> {
    vec![
        ("a critical alert on what serves", |_| Event::Alerts(alerts(&delivery(1, |n| alert(n, "firing", "p", "v2"))))),
        ("an alert on a version that may be gone back to", |_| {
            Event::Alerts(alerts(&delivery(1, |n| alert(n, "firing", "p", "v1"))))
        }),
        ("the end of an alert", |many| {
            let last = many - 1 - (many - 1) % 5;
            Event::Alerts(alerts(&delivery(1, |_| alert(last, "resolved", "p", &format!("c{last}")))))
        }),
        ("a dismissal", |many| decide_on(Choice::Dismiss, many)),
        ("a question that is investigated", |many| decide_on(Choice::Investigate, many)),
        ("another version is activated", |_| {
            let (share, operator, reason) = (TrafficShare::All, operator(), None);
            Event::Activate(Activation { version: version("v1"), share, operator, force: true, reason })
        }),
        ("a rollback by a person", |_| {
            let (target, from, reason) = (None, Some(version("v2")), "asked for".to_owned());
            Event::Rollback(Rollback { target, from, reason, operator: operator(), force: true, gradual: None })
        }),
        ("a version is registered", |_| {
            let (content, contact, staged_at, known_good) = (Some("text".to_owned()), None, None, true);
            Event::Register(Register { version: version("v3"), content, contact, staged_at, known_good })
        }),
        ("a version is marked as bad", |_| {
            let (kind, reason, operator, incident) = (MarkKind::Bad, "lacks a fix".to_owned(), operator(), None);
            Event::Mark(Marking { version: version("v1"), kind, reason, operator, incident })
        }),
        ("a version is marked as good", |_| {
            let (kind, reason, operator, incident) = (MarkKind::Good, "it is fine".to_owned(), operator(), None);
            Event::Mark(Marking { version: version("c3"), kind, reason, operator, incident })
        }),
        ("a deadline", |many| Event::Timer { incident: id(many - 1 - (many - 1) % 5), early: false }),
    ]
}

fn decide_on(choice: Choice, many: usize) -> Event {
    // a waiting question
    let incident = id(many - 1 - (many - 1) % 5);
    Event::Decide(Decide { incident, choice, operator: operator(), target: None, force: true, question_number: None })
}

#[test]
fn each_event_is_decided_on_beside_ever_more_incidents_and_versions() {
    let policy = Policy { archive: true, ..Policy::default() };
    for (what, event) in events() {
        let late = if what == "a deadline" { 120_000 } else { 0 };
        decided(what, &policy, |many| {
            let mut state = crowded(many);
            for incident in &mut state.incidents {
                if let Phase::AwaitingDecision(question) = &mut incident.phase {
                    question.deadline = question.deadline.map(|at| Timestamp(at.0 - late));
                }
            }
            (snapshot(state, 1), event(many))
        });
    }
}

#[test]
fn external_changes_are_noticed_beside_many_incidents_and_versions() {
    let policy = Policy::default();
    for (what, active) in [
        ("another version was set", Active::Version(version("v1"))),
        ("the key was deleted", Active::Absent),
        ("the key holds no version", Active::Foreign("no version at all".to_owned())),
    ] {
        decided(what, &policy, |many| {
            (Snapshot { active: active.clone(), ..snapshot(crowded(many), 1) }, Event::CheckDrift)
        });
    }
}

#[test]
fn a_prompt_that_was_never_seen_is_adopted_beside_ever_more_versions() {
    let policy = Policy::default();
    decided("a version is adopted", &policy, |many| {
        let state = PromptState { serving: None, incidents: Vec::new(), ..crowded(many) };
        let (version, known_good, operator) = (Some(version("v9")), true, operator());
        (snapshot(state, 1), Event::Adopt(Adopt { version, known_good, operator }))
    });
}

#[test]
fn a_record_of_ever_more_incidents_is_read_and_written() {
    let with_more = |many: usize, strange: bool| {
        let text = record::write(&crowded(many), &Unknown::default());
        // as a later receiver writes it
        if strange { text.replace("\"opened_at\":", "\"strange\":{\"a\":[1,2]},\"opened_at\":") } else { text }
    };
    for (what, strange) in [("a record", false), ("a record with fields of a later receiver", true)] {
        linear(&format!("{what} is read"), 32, |many| {
            let text = with_more(many, strange);
            least(|| record::read::<PromptState>(&text).expect("a record"))
        });
        linear(&format!("{what} is written"), 32, |many| {
            let (state, unknown) = record::read::<PromptState>(&with_more(many, strange)).expect("a record");
            least(|| record::write(&state, &unknown))
        });
    }
}
