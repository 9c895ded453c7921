//! The consequences of a readable input: decisions, writes, and messages to people.

use std::collections::BTreeSet;
use std::time::Duration;

use prompt_rollback::alertmanager::payload::{Delivered, parse};
use prompt_rollback::decision::alert::Alert;
use prompt_rollback::decision::decide::Active;
use prompt_rollback::decision::finding::{Finding, Verdict};
use prompt_rollback::decision::outage::{Member, Outage};
use prompt_rollback::decision::soak::Soak;
use prompt_rollback::decision::verification::Traffic;
use prompt_rollback::decision::{
    ActivatedBy, Checked, Choice, CommitId, Confirmed, Decide, Event, Incident, IncidentId, MarkKind, Marking,
    Operator, Promotion, PromptState, Serving, Snapshot, Stepped, TrafficSplit, VersionName, VersionRecord, decide,
    in_service, rehearse,
};
use prompt_rollback::postmortem::{PostmortemFacts, draft};
use prompt_rollback::slack::render::{
    Message, OutageMessage, View, call, canary, notice, outage_overview, outage_reply, outage_root, overview, plain,
    reply, root,
};
use prompt_rollback::store::record::{self, Unknown};

use serde_json::json;

use super::{CONFIG, NOW, POLICY, prompt, version};

/// Slack's limit.
const MAX_BLOCKS: usize = 50;

/// An alert about the served version, which has a rollback target.
pub fn alert(alert: &Alert) {
    let mut good = VersionRecord::new(version("v0"), NOW.minus(Duration::from_secs(86_400)));
    good.soak = Some(Soak { from: good.known_since, watch: None });
    let bad = VersionRecord::new(alert.version.clone(), NOW);
    let serving = Some(Serving { version: bad.version.clone(), since: NOW, by: ActivatedBy::External });
    let before = PromptState { serving, versions: vec![good, bad], ..PromptState::default() };
    let Some(after) = happens(&before, &Event::Alerts(vec![alert.clone()])) else { return };
    let written = record::write(&after, &Unknown::default());
    assert_eq!(record::read::<PromptState>(&written).expect("what we write").0, after, "{written}");
    // all of it is slow, and need not be repeated for each
    if alert.summary.len().is_multiple_of(4) {
        after.incidents.iter().for_each(incident);
    }
}

/// Many events on a prompt with this record.
pub fn state(state: &PromptState) {
    let name = state.serving.as_ref().map_or_else(|| version("v1"), |serving| serving.version.clone());
    let id = state.incidents.first().map_or_else(|| IncidentId("01J".to_owned()), |incident| incident.id.clone());
    let finding = Finding::new(Verdict::Healthy, "error ratio 0.1 %");
    let switch = state.incidents.first().and_then(|incident| incident.switch.as_ref()).map_or(NOW, |switch| switch.at);
    let asked = state.incidents.first().and_then(|incident| incident.pending()).map_or(NOW, |pending| pending.at);
    let stage = |split: Option<&TrafficSplit>| split.map_or(NOW, |split| split.since);
    let decide = |choice| {
        Event::Decide(Decide {
            incident: id.clone(),
            choice,
            operator: Operator::recorded("maya"),
            target: None,
            force: true,
            question_number: None,
        })
    };
    let mark = |kind| {
        let (reason, operator) = ("leaks a name".to_owned(), Operator::recorded("maya"));
        Event::Mark(Marking { version: name.clone(), kind, reason, operator, incident: Some(id.clone()) })
    };
    let events = [
        Event::CheckDrift,
        Event::Timer { incident: id.clone(), early: false },
        Event::Listed { incident: id.clone(), fingerprints: BTreeSet::new() },
        Event::Alerts(vec![firing(&name)]),
        decide(Choice::Approve),
        decide(Choice::Undo),
        mark(MarkKind::Bad),
        mark(MarkKind::Good),
        Event::Confirmed(Confirmed {
            incident: id.clone(),
            at: asked,
            finding: finding.clone(),
            blame: None,
            precheck: None,
        }),
        Event::Checked(Checked {
            incident: id.clone(),
            switched_at: switch,
            number: 0,
            finding: finding.clone(),
            traffic: Some(Traffic { target: 30, bad: 1, ..Traffic::default() }),
            blame: None,
        }),
        Event::Stepped(Stepped {
            incident: id.clone(),
            since: stage(state.incidents.first().and_then(|incident| incident.gradual())),
            finding,
        }),
        Event::Promotion(Promotion { since: stage(state.canary.as_ref().map(|canary| &canary.split)), look: None }),
    ];
    // one after another would be slow: the record selects one
    let record = record::write(state, &Unknown::default());
    let first = record.bytes().fold(0, |sum, byte| (sum * 31 + usize::from(byte)) % 1_009);
    for event in events.iter().cycle().skip(first).step_by(3).take(2) {
        if let Some(after) = happens(state, event) {
            let written = record::write(&after, &Unknown::default());
            assert_eq!(record::read::<PromptState>(&written).expect("what we write").0, after, "{written}");
        }
    }
    if first.is_multiple_of(4) {
        rehearse(&POLICY, &snapshot(state), &firing(&name), NOW);
        in_service(&POLICY, &snapshot(state), NOW);
        state.incidents.iter().for_each(incident);
    }
    if let Some(one) = &state.canary {
        fits(&canary(&prompt("p"), one));
    }
}

/// The new state, if something was decided.
pub fn happens(state: &PromptState, event: &Event) -> Option<PromptState> {
    let commit = decide(&POLICY, &snapshot(state), event, NOW).commit?;
    Some(commit.state)
}

fn snapshot(state: &PromptState) -> Snapshot {
    Snapshot {
        prompt: prompt("p"),
        active: state.serving.as_ref().map_or(Active::Absent, |serving| Active::Version(serving.version.clone())),
        routing: Vec::new(),
        state: state.clone(),
        paused: None,
        recent_auto: 0,
        outage_hold: None,
        incident: state.incidents.first().cloned(),
        content: None,
        commit: CommitId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned()),
        fresh_ids: vec![IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XX".to_owned())], // not an incident of the corpus
    }
}

fn firing(version: &VersionName) -> Alert {
    let labels = json!({"alertname": "A", "prompt": "p", "version": version.as_str(), "severity": "critical"});
    let body = json!({"alerts": [{"status": "firing", "fingerprint": "f", "labels": labels}]}).to_string();
    match parse(body.as_bytes(), &CONFIG.labels, &POLICY).expect("a delivery").alerts.remove(0) {
        Delivered::Alert(alert) => *alert,
        other => panic!("{other:?}"),
    }
}

/// All messages about an incident.
pub fn incident(incident: &Incident) {
    let view = View { incident, mention: Some("<!subteam^S1>"), deployed: None };
    fits(&root(&view));
    fits(&overview(&view, None));
    fits(&notice(&view, None));
    for note in incident.notes.iter().take(3) {
        fits(&reply(&view, note, &[]));
        fits(&call(&view, note, None));
    }
    draft(&PostmortemFacts {
        incident,
        log: &[],
        samples: None,
        unmeasured: None,
        verification: None,
        verification_deadline: CONFIG.verification.deadline,
        contact: None,
        bad_content: None,
        good_content: None,
    });
}

pub fn outage(outage: &Outage, members: &[Member]) {
    let view = OutageMessage { outage, members, mention: None };
    fits(&outage_root(&view));
    fits(&outage_overview(&view, None));
    outage.notes.iter().take(3).for_each(|note| fits(&outage_reply(&view, note)));
}

fn fits(message: &Message) {
    assert!((1..=MAX_BLOCKS).contains(&message.blocks.len()), "{} blocks", message.blocks.len());
    assert!(!message.text.is_empty() && plain(message).chars().count() <= 4_000);
}
