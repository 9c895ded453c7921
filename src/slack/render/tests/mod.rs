//! Snapshots of every message, and properties of all messages.

mod hostile;
mod outage;
mod report;
mod truth;
mod valid;

use std::time::Duration;

use super::*;
use crate::decision::alert::AlertRecord;
use crate::decision::finding::{Check, Finding, Verdict};
use crate::decision::incident::Never;
use crate::decision::note::{Note, NoteKind};
use crate::decision::phase::{Objection, ObjectionKind, Pending};
use crate::decision::split::CanaryEnd;
use crate::decision::verification::{Instances, Traffic, Verification};
use crate::decision::{
    Action, Canary, CanaryPause, CommitId, Guard, Held, Incident, IncidentId, MarkKind, Operator, Phase, PhaseKind,
    Plan, Policy, PromptName, Question, RollbackFailure, Severity, Switch, SwitchMode, Timestamp, TrafficSplit,
    VersionName,
};
use crate::deployed::{Deployment, Other};

const MENTION: &str = "<!subteam^S012AB3CD>";
/// 2026-11-21T00:38:12.689Z
const NOW: Timestamp = Timestamp(1_795_221_492_689);

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn version(name: &str) -> VersionName {
    VersionName::parse(name).expect("a version")
}

fn alert(name: &str, severity: Severity, action: Action) -> AlertRecord {
    AlertRecord {
        fingerprint: format!("{name}-1"),
        alertname: name.to_owned(),
        severity,
        action,
        decider: "on-call".to_owned(),
        time_limit: Duration::from_secs(300),
        firing: true,
        starts_at: Some(NOW.minus(Duration::from_millis(2_400))),
        first_seen: NOW,
        last_seen: NOW,
        listed: false,
        absent_since: None,
        summary: "Error rate of customer-support v2.1.0 is 7.3%".to_owned(),
        description: "More than 5 % of requests failed, over five minutes or, beyond doubt, over the last one."
            .to_owned(),
        value: "7.3%".to_owned(),
        verify: String::new(),
        runbook_url: "https://runbooks.example/prompt-errors".to_owned(),
        measure: Default::default(),
        dashboard_url: "https://grafana.example/d/prompts?var-prompt=customer-support&from=now-1h".to_owned(),
        generator_url: "http://prometheus.example:9090/graph?g0.expr=up&g0.tab=1".to_owned(),
        group_labels: Default::default(),
        alertmanager_url: "http://alertmanager.example:9093".to_owned(),
    }
}

/// Waits for on-call to decide about v2.1.0, with the target v2.0.9.
fn waiting() -> Incident {
    let id = IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned());
    let prompt = PromptName::parse("customer-support").expect("a name");
    let mut incident = Incident {
        target: Some(version("v2.0.9")),
        choices: vec![version("v2.0.9")],
        phase: Phase::AwaitingDecision(Question::until(after(300))),
        severity: Severity::High,
        action: Action::Page,
        time_limit: Duration::from_secs(300),
        question_number: 1,
        alerts: vec![alert("PromptErrorRateHigh", Severity::High, Action::Page)],
        ..Incident::new(id, prompt, version("v2.1.0"), "on-call".to_owned(), NOW)
    };
    let opened = "PromptErrorRateHigh (high): Error rate of customer-support v2.1.0 is 7.3%";
    incident.note(NOW, NoteKind::Opened, opened);
    incident
}

fn critical() -> Incident {
    let alert = alert("PromptErrorRateCritical", Severity::Critical, Action::Rollback);
    Incident { severity: Severity::Critical, action: Action::Rollback, alerts: vec![alert], ..waiting() }
}

fn switched(mode: SwitchMode, operator: &str) -> Incident {
    let (from, to) = (version("v2.1.0"), version("v2.0.9"));
    let mut incident = if mode == SwitchMode::Auto { critical() } else { waiting() };
    incident.note(NOW, NoteKind::Switched, format!("{operator} rolled {from} back to {to}: PromptErrorRate"));
    Incident {
        phase: Phase::Verifying { until: after(300) },
        switch: Some(switch(from, to, mode, operator)),
        ..incident
    }
}

fn switch(from: VersionName, to: VersionName, mode: SwitchMode, operator: &str) -> Switch {
    let (commit, operator) = (CommitId::default(), Operator::recorded(operator));
    Switch { commit, at: NOW, decided_at: None, from, to, mode, operator, verification: None }
}

fn asked(deadline: Option<Timestamp>) -> Phase {
    Phase::AwaitingDecision(Question { deadline, ..Question::default() })
}

fn overdue_until(deadline: Option<Timestamp>) -> Phase {
    Phase::AwaitingDecision(Question { deadline, overdue: true, ..Question::default() })
}

/// The phase with its data.
fn in_phase(kind: PhaseKind) -> Phase {
    match kind {
        PhaseKind::Confirming => confirming().phase,
        PhaseKind::Observing => Phase::Observing { until: Some(after(300)) },
        PhaseKind::AwaitingDecision => waiting().phase,
        PhaseKind::Investigating => Phase::Investigating { until: after(300) },
        PhaseKind::RollingBack => rolling_back(None).phase,
        PhaseKind::Verifying => Phase::Verifying { until: after(300) },
        PhaseKind::Escalated => Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered },
        PhaseKind::Recovered => Phase::Recovered,
        PhaseKind::Unverified => Phase::Unverified,
        PhaseKind::Dismissed => Phase::Dismissed,
        PhaseKind::Resolved => Phase::Resolved,
        PhaseKind::Superseded => Phase::Superseded { by: None },
    }
}

fn closed(mut incident: Incident, phase: Phase, text: &str) -> Incident {
    incident.close(phase, after(240), text);
    incident
}

/// Each state that an incident can be in.
fn states() -> Vec<(&'static str, Incident)> {
    let choices: Vec<_> = ["v2.0.9", "v2.0.8", "v1.9.0"].map(version).into();
    let mut investigating = Incident { phase: in_phase(PhaseKind::Investigating), ..waiting() };
    investigating.note(after(20), NoteKind::Decided, "Maya is investigating");
    let mut escalated = Incident {
        phase: Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered },
        choices: choices.clone(),
        ..switched(SwitchMode::Auto, "system")
    };
    escalated.note(after(240), NoteKind::Escalated, "the error rate of v2.0.9 is 9.1% after the rollback");
    let held = Held { guard: Guard::Paused, detail: "automation is paused (Maya: provider outage)".to_owned() };
    let several = ["PromptErrorRateHigh", "PromptQualityDrop", "PromptLatencyP99Elevated", "PromptErrorRateNewVersion"];
    let mut several = several.map(|name| alert(name, Severity::Medium, Action::Observe)).to_vec();
    several[0].firing = false;
    several[1].value = "11.2%".to_owned();
    several[1].measure.reference = "0.82".to_owned();
    let overdue = Incident { escalations: 1, phase: overdue_until(Some(after(600))), ..waiting() };
    let superseded = in_phase(PhaseKind::Superseded);
    let auto = || switched(SwitchMode::Auto, "system");
    vec![
        (
            "observing",
            Incident {
                phase: in_phase(PhaseKind::Observing),
                severity: Severity::Medium,
                alerts: several,
                ..waiting()
            },
        ),
        ("awaiting", waiting()),
        ("awaiting_with_choices", Incident { choices, decider: "product-pm".to_owned(), ..waiting() }),
        ("awaiting_held", Incident { held: Some(held), ..critical() }),
        ("awaiting_without_target", Incident { target: None, choices: Vec::new(), ..waiting() }),
        (
            "overdue_for_good",
            Incident { escalations: Policy::ESCALATIONS, phase: overdue_until(None), ..overdue.clone() },
        ),
        ("overdue", overdue),
        ("investigating", investigating),
        ("rolling_back", rolling_back(None)),
        ("rolling_back_paused", rolling_back(Some("v2.0.9 is unhealthy: error ratio 4.00 %"))),
        ("verifying_auto", auto()),
        ("verifying_approved", switched(SwitchMode::Approved, "Maya")),
        ("verifying_manual", Incident { alerts: Vec::new(), ..switched(SwitchMode::Manual, "deploy-bot") }),
        ("escalated", escalated),
        ("recovered", closed(auto(), Phase::Recovered, "3 checks in a row were healthy")),
        ("unverified", closed(auto(), Phase::Unverified, "no metrics said by the deadline whether it helped")),
        ("undone", closed(auto(), Phase::Dismissed, "Maya undid the rollback: v2.1.0 is served again")),
        ("dismissed", closed(waiting(), Phase::Dismissed, "Maya dismissed this")),
        ("resolved", closed(waiting(), Phase::Resolved, "all alerts resolved before a decision was made")),
        ("confirming", confirming()),
        ("awaiting_objected", objected()),
        ("verifying_checked", checked()),
        ("superseded", closed(waiting(), superseded, "v2.1.0 no longer has traffic")),
    ]
}

/// Maya approved a gradual rollback, which is at its second stage.
fn rolling_back(paused: Option<&str>) -> Incident {
    let mut split = TrafficSplit {
        leaving: version("v2.1.0"),
        arriving: version("v2.0.9"),
        plan: Policy::default().gradual,
        began: NOW,
        stage: 0,
        since: NOW,
        next: None,
        check: None,
        operator: Operator::recorded("Maya"),
        reason: "Error rate".to_owned(),
        paused: None,
        last: Some(Check { at: after(60), finding: Finding::new(Verdict::Healthy, "error ratio 0.20 %") }),
        is_rollback: true,
    };
    split.enter(1, after(600));
    if let Some(why) = paused {
        (split.paused, split.next, split.check) = (Some(why.to_owned()), None, None);
    }
    let mut incident = Incident { phase: Phase::RollingBack(split), ..waiting() };
    incident.note(
        NOW,
        NoteKind::Decided,
        "Maya started a gradual rollback from v2.1.0 to v2.0.9: 75 %, 50 %, 25 %, 0 % left",
    );
    incident
}

#[test]
fn canaries() {
    let prompt = PromptName::parse("customer-support").expect("a prompt");
    let running = |plan: Plan| {
        let split = rolling_back(None).gradual().cloned().expect("a split");
        let (leaving, arriving) = (version("v2.0.9"), version("v2.1.0"));
        let mut split = TrafficSplit { leaving, arriving, plan, is_rollback: false, last: None, ..split };
        split.enter(0, NOW);
        Canary::new(IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned()), split, NOW, false)
    };
    let plan = Policy::default().canary.usual.plan;
    let ended = |promoted: bool, text: &str| Some(CanaryEnd { at: after(900), promoted, text: text.to_owned() });
    let mut waits = running(plan.clone());
    waits.split.paused = Some("the A/B test is not significant".to_owned());
    let mut paused = running(plan.clone());
    paused.pause = Some(CanaryPause { at: NOW, operator: Operator::recorded("Maya") });
    (paused.split.paused, paused.split.next) = (Some("paused by Maya".to_owned()), None);
    let hostile = "<!channel> <https://evil.example|ok> *bold*";
    for (state, canary) in [
        ("running", running(plan.clone())),
        ("by_time", Canary { by_time: true, ..running(plan.clone()) }),
        ("paused", paused),
        ("waits", waits),
        ("fixed", running(Plan::fixed(30).expect("a share"))),
        ("finished", Canary { end: ended(true, "v2.1.0 has all traffic"), ..running(plan.clone()) }),
        ("stopped", Canary { end: ended(false, &format!("stopped at 1 %: {hostile}")), ..running(plan) }),
    ] {
        snapshot(&format!("canary_{state}"), &super::canary(&prompt, &canary));
    }
}

/// Maya approved; Prometheus is being asked.
fn confirming() -> Incident {
    let (from, to) = (version("v2.1.0"), version("v2.0.9"));
    let pending = Pending {
        gradual: None,
        by: SwitchMode::Approved,
        from,
        to,
        operator: Operator::recorded("Maya"),
        reason: "Error rate".to_owned(),
        skip_confirmation: false,
        at: NOW,
    };
    let mut incident = waiting();
    incident.confirm(pending, after(10));
    incident
}

fn objected() -> Incident {
    let text = "v2.1.0 looks healthy again: error ratio 0.20 %".to_owned();
    let objection = Some(Objection { kind: ObjectionKind::Changed, to: None, text });
    let question = Question { objection, ..Question::until(after(300)) };
    Incident { phase: Phase::AwaitingDecision(question), ..waiting() }
}

fn checked() -> Incident {
    let mut incident = switched(SwitchMode::Auto, "system");
    let finding = Finding::new(Verdict::Healthy, "error ratio 0.20 %");
    let traffic = Traffic {
        target: 75,
        bad: 3,
        bad_last_seen: Some(after(4)),
        following: 9,
        unknown: Instances::of(vec!["pod-7".to_owned()]),
        ..Traffic::default()
    };
    let verification = Some(Verification {
        checks: 1,
        healthy: 1,
        next: after(10),
        last: Some(Check { at: after(5), finding }),
        traffic: Some(traffic),
        ..Verification::starting(after(0), Duration::from_secs(5))
    });
    if let Some(switch) = &mut incident.switch {
        switch.verification = verification;
    }
    incident
}

fn note(kind: NoteKind) -> Note {
    let text = match kind {
        NoteKind::Opened => "PromptErrorRateHigh (high): Error rate of customer-support v2.1.0 is 7.3%",
        NoteKind::Alert => "got worse: PromptErrorRateCritical (critical): Error rate is 12.1%",
        NoteKind::Held => "held (paused): automation is paused (Maya: provider outage)",
        NoteKind::Switched => "Maya rolled v2.1.0 back to v2.0.9: Error rate of customer-support v2.1.0 is 7.3%",
        NoteKind::Decided => "Maya is investigating",
        NoteKind::Marked => "Maya marked v2.0.8 as bad: answers without the safety fix",
        NoteKind::Asked => "still firing after the observation period: a person must decide",
        NoteKind::Checked => "Maya requested a rollback from v2.1.0 to v2.0.9: asking Prometheus first",
        NoteKind::Escalated => "no decision before the deadline (escalation 1 of 4)",
        NoteKind::Reopened => "the alert fires again: the incident is open again",
        NoteKind::Closed => "Maya dismissed this",
    };
    Note { seq: 1, at: NOW, kind, text: text.to_owned() }
}

const LOG: [LogLine<'static>; 6] = [LogLine {
    at: "2026-11-20T23:55:01.004Z",
    event: "activate",
    from: "v2.0.9",
    to: "v2.1.0",
    operator: "deploy-bot",
    reason: "activated",
}; 6];

/// What a reader sees, then each block on a line.
fn shown(message: &Message) -> String {
    let blocks: Vec<_> = message.blocks.iter().map(|block| serde_json::to_string(block).unwrap()).collect();
    format!("{}\n\n{}\n\n{}", message.text, plain(message), blocks.join("\n"))
}

fn snapshot(name: &str, message: &Message) {
    assert_eq!(valid::problems(message, Some(MENTION)), Vec::<String>::new(), "{name}");
    insta::assert_snapshot!(name, shown(message));
}

fn said(message: &Message) -> String {
    serde_json::to_string(&message.blocks).unwrap()
}

fn view(incident: &Incident) -> View<'_> {
    View { incident, mention: Some(MENTION), deployed: None }
}

#[test]
fn roots() {
    for (state, incident) in states() {
        snapshot(&format!("root_{state}"), &root(&view(&incident)));
    }
}

#[test]
fn overviews() {
    let thread = "https://example.slack.com/archives/C024BE91L/p1795221492689000";
    for (state, incident) in states() {
        let message = overview(&view(&incident), Some(thread));
        snapshot(&format!("overview_{state}"), &message);
        assert!(!said(&message).contains(r#""type":"actions""#), "{state}");
    }
}

#[test]
fn replies() {
    let incidents = [("", waiting()), ("_late", switched(SwitchMode::Approved, "Maya"))];
    for (when, incident) in &incidents {
        for kind in NoteKind::ALL {
            snapshot(&format!("reply_{}{when}", kind.as_str()), &reply(&view(incident), &note(kind), &LOG));
        }
    }
}

#[test]
fn every_phase_has_a_snapshot() {
    for phase in PhaseKind::ALL {
        assert!(states().iter().any(|(_, incident)| incident.phase.kind() == phase), "{phase}");
    }
}

#[test]
fn buttons_go_once_decided_and_undo_stays_for_what_was_done() {
    let ids = |incident: &Incident| {
        let blocks = serde_json::to_value(root(&view(incident)).blocks).unwrap();
        let actions = blocks.as_array().unwrap().iter().find(|b| b["type"] == "actions").cloned().unwrap_or_default();
        let elements = actions["elements"].as_array().cloned().unwrap_or_default();
        elements.iter().map(|e| e["action_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    for (state, incident) in states() {
        let expected = match state {
            "observing" | "awaiting" | "awaiting_objected" | "awaiting_held" | "overdue" | "overdue_for_good" => {
                "approve approve_gradual investigate dismiss mark"
            }
            "awaiting_with_choices" => "approve approve_gradual investigate dismiss other_version mark",
            "awaiting_without_target" => "investigate dismiss mark",
            "investigating" => "approve approve_gradual dismiss mark",
            "rolling_back" => "approve undo mark",
            "rolling_back_paused" => "approve_gradual approve undo mark",
            "verifying_auto" | "verifying_checked" | "verifying_approved" | "verifying_manual" | "recovered"
            | "unverified" => "undo mark",
            "escalated" => "approve dismiss other_version undo mark",
            "undone" | "dismissed" | "resolved" | "superseded" | "confirming" => "",
            other => panic!("{other}"),
        };
        assert_eq!(ids(&incident), expected, "{state}");
    }
}

/// The options of the menu of marks, as the versions in each group.
fn marks_of(incident: &Incident) -> (Vec<String>, Vec<String>) {
    let blocks = serde_json::to_value(root(&view(incident)).blocks).unwrap();
    let actions = blocks.as_array().unwrap().iter().find(|b| b["type"] == "actions").unwrap();
    let menu = actions["elements"].as_array().unwrap().iter().find(|e| e["action_id"] == "mark").unwrap();
    let mut found = (Vec::new(), Vec::new());
    for option in menu["option_groups"].as_array().unwrap().iter().flat_map(|g| g["options"].as_array().unwrap()) {
        let (kind, button) = read_mark(option["value"].as_str().unwrap()).unwrap();
        assert_eq!(Some(option["text"]["text"].as_str().unwrap()), button.to.as_ref().map(VersionName::as_str));
        assert_eq!((&button.incident, button.question_number), (&incident.id, incident.question_number));
        match kind {
            MarkKind::Bad => found.0.extend(button.to.map(|to| to.to_string())),
            MarkKind::Good => found.1.extend(button.to.map(|to| to.to_string())),
        }
    }
    found
}

fn never(name: &str) -> Never {
    let reason = "answers without the safety fix".to_owned();
    Never { version: version(name), operator: Operator::recorded("Maya"), reason }
}

#[test]
fn what_is_marked_bad_is_not_offered_again_but_may_be_trusted() {
    let choices: Vec<_> = ["v2.0.9", "v2.0.8"].map(version).into();
    let incident = Incident { choices, ..waiting() };
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(marks_of(&incident), (owned(&["v2.1.0", "v2.0.9", "v2.0.8"]), owned(&["v2.1.0"])));
    let marked = Incident { never: vec![never("v2.1.0"), never("v2.0.7")], ..incident };
    assert_eq!(marks_of(&marked), (owned(&["v2.0.9", "v2.0.8"]), owned(&["v2.1.0", "v2.0.7"])));
    let text = plain(&root(&view(&marked)));
    assert!(
        text.contains(
            "Not offered as a rollback target: v2.1.0 (marked as bad by Maya: answers without the safety fix)"
        ),
        "{text}"
    );
}

#[test]
fn no_button_leads_to_what_is_marked_bad() {
    let ids = |incident: &Incident| said(&root(&view(incident)));
    let undo = Incident { never: vec![never("v2.1.0")], ..switched(SwitchMode::Auto, "system") };
    assert!(!ids(&undo).contains("\"undo\"") && ids(&undo).contains("\"mark\""), "{}", ids(&undo));
    let onward = Incident { never: vec![never("v2.0.9")], ..rolling_back(Some("v2.0.9 is marked as bad")) };
    assert!(!ids(&onward).contains("\"approve\"") && !ids(&onward).contains("\"approve_gradual\""));
    assert!(ids(&onward).contains("\"undo\""));
    let back = Incident { never: vec![never("v2.1.0")], ..rolling_back(None) };
    assert!(ids(&back).contains("\"approve\"") && !ids(&back).contains("\"undo\""));
}

#[test]
fn a_paused_rollback_may_go_to_another_version() {
    let choices: Vec<_> = ["v2.0.9", "v2.0.8"].map(version).into();
    let offered = |paused| said(&root(&view(&Incident { choices: choices.clone(), ..rolling_back(paused) })));
    let paused = offered(Some("PromptErrorRateCritical fires on v2.0.9"));
    assert_eq!(paused.matches("\"other_version\"").count(), 1, "{paused}");
    assert!(!offered(None).contains("\"other_version\""), "it goes on by itself");
}

#[test]
fn a_mark_reads_back_only_as_it_was_written() {
    let names = ["v1", &"v".repeat(64)];
    for name in names {
        let incident = Incident { version: version(name), question_number: u32::MAX, ..waiting() };
        for option in marks_of(&incident).0 {
            assert!(names.contains(&option.as_str()) || option == "v2.0.9");
        }
    }
    let good = "good:01KAJ4B8N4GZQ6V9C2M7T5R3XW|1|v1|";
    assert!(read_mark(good).is_some());
    for bad in [
        "01KAJ4B8N4GZQ6V9C2M7T5R3XW|1|v1|",
        "ugly:01KAJ4B8N4GZQ6V9C2M7T5R3XW|1|v1|",
        &good.replace("|v1|", "||"),
        &format!("{good}v2"),
        "bad:",
        "",
    ] {
        assert_eq!(read_mark(bad), None, "{bad}");
    }
}

/// Two versions shared the traffic, and two prompts of the group had changed.
fn deployed() -> Deployed {
    let placed = |name: &str, before: u64, event: &str, operator: &str| Deployment {
        version: name.to_owned(),
        since: Some(NOW.minus(Duration::from_secs(before)).0),
        event: event.to_owned(),
        operator: operator.to_owned(),
    };
    let other = |prompt: &str, before: u64, event: &str, operator: &str, same_group: bool| Other {
        prompt: prompt.to_owned(),
        at: NOW.minus(Duration::from_secs(before)).0,
        event: event.to_owned(),
        from: "v3".to_owned(),
        to: "v4".to_owned(),
        operator: operator.to_owned(),
        same_group,
    };
    Deployed {
        in_service: vec![placed("v2.0.9", 21 * 86_400, "external", "external"), placed("v2.1.0", 600, "canary", "ci")],
        others: vec![
            other("search", 720, "activate", "ci", true),
            other("team/greeting", 60, "rollback", "system", false),
            other("billing", 30, "external", "external", false),
        ],
        more: 2,
        at_least: false,
    }
}

#[test]
fn the_root_tells_who_put_the_versions_there_and_what_else_had_changed() {
    let (incident, deployed) = (waiting(), deployed());
    let message = root(&View { deployed: Some(&deployed), ..view(&incident) });
    snapshot("root_deployed", &message);
    let text = plain(&message);
    for part in ["`search` `v3` → `v4`, by `ci`, 12 min before (same group)", "2 more prompts", "since <!date^"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(root(&View { deployed: Some(&Deployed::default()), ..view(&incident) }), root(&view(&incident)));
}

#[test]
fn what_is_not_urgent_goes_step_by_step_first() {
    let first = |action: Action| {
        let blocks = serde_json::to_value(root(&view(&Incident { action, ..waiting() })).blocks).unwrap();
        let actions = blocks.as_array().unwrap().iter().find(|b| b["type"] == "actions").cloned().unwrap();
        (actions["elements"][0]["action_id"].clone(), actions["elements"][0]["style"].clone())
    };
    assert_eq!(first(Action::Observe), ("approve_gradual".into(), "primary".into()));
    assert_eq!(first(Action::Page), ("approve".into(), "primary".into()));
}

#[test]
fn a_failed_rollback_shows_the_way_from_the_active_version() {
    let (_, incident) = states().into_iter().find(|(state, _)| *state == "escalated").unwrap();
    let blocks = serde_json::to_value(root(&view(&incident)).blocks).unwrap();
    let actions = blocks.as_array().unwrap().iter().find(|b| b["type"] == "actions").unwrap();
    let button = |i: usize| Button::decode(actions["elements"][i]["value"].as_str().unwrap()).unwrap();
    assert_eq!((button(0).from, button(0).to), (Some(version("v2.0.9")), Some(version("v2.0.8"))));
    assert_eq!((button(3).from, button(3).to), (Some(version("v2.0.9")), Some(version("v2.1.0"))));
    let text = actions["elements"][0]["confirm"]["text"]["text"].as_str().unwrap();
    assert!(text.contains("v2.0.9") && text.contains("v2.0.8"), "{text}");
}

#[test]
fn people_are_called_only_while_they_have_to_decide() {
    let calls = |message: &Message| said(message).contains(MENTION);
    for (state, incident) in states() {
        let waits = ["awaiting", "overdue", "escalated", "rolling_back_paused"].iter().any(|w| state.starts_with(w));
        assert_eq!(calls(&root(&view(&incident))), waits, "{state}");
        assert_eq!(calls(&overview(&view(&incident), None)), incident.pages(), "{state}");
        let last = |kind| Note { seq: 9, ..note(kind) };
        assert_eq!(calls(&reply(&view(&incident), &last(NoteKind::Escalated), &[])), waits, "{state}");
        assert_eq!(calls_channel(&incident, &last(NoteKind::Escalated)), waits, "{state}");
        assert!(!calls(&reply(&view(&incident), &last(NoteKind::Alert), &[])), "{state}");
        assert!(!calls_channel(&incident, &last(NoteKind::Asked)), "{state}");
    }
}

#[test]
fn of_several_calls_that_are_told_late_only_the_last_one_calls() {
    let mut incident = Incident { escalations: 2, ..waiting() };
    for times in 1..=2 {
        incident.note(after(300 * times), NoteKind::Escalated, format!("escalation {times} of 4"));
    }
    incident.note(after(601), NoteKind::Alert, "PromptErrorRateHigh has ended");
    let calling: Vec<_> = incident.notes.iter().filter(|note| calls_channel(&incident, note)).map(|n| n.seq).collect();
    assert_eq!(calling, [2]);
    let replies: Vec<_> = incident.notes.iter().map(|note| reply(&view(&incident), note, &[])).collect();
    assert_eq!(
        replies.iter().map(|reply| said(reply).contains(MENTION)).collect::<Vec<_>>(),
        [false, false, true, false]
    );
}

#[test]
fn a_call_leads_to_the_thread_and_has_no_buttons() {
    let incident = Incident { escalations: 1, ..waiting() };
    let thread = "https://example.slack.com/archives/C024BE91L/p1795221492689000";
    let message = call(&view(&incident), &note(NoteKind::Escalated), Some(thread));
    snapshot("call", &message);
    assert!(!said(&message).contains(r#""type":"actions""#));
    let nobody = View { mention: None, ..view(&incident) };
    let message = said(&call(&nobody, &note(NoteKind::Escalated), None));
    assert!(message.contains("customer-support") && !message.contains("<!subteam"), "{message}");
}

#[test]
fn an_investigation_starts_with_links_and_the_last_five_changes() {
    let message = said(&reply(&view(&waiting()), &note(NoteKind::Decided), &LOG));
    assert_eq!(message.matches("by deploy-bot").count(), 5);
    assert!(message.contains("<https://runbooks.example/prompt-errors|Runbook>"), "{message}");
    assert!(message.contains("&amp;from=now-1h|Dashboard>"), "{message}");
}

#[test]
fn a_button_comes_back_as_it_went() {
    let long = |c: char| version(&c.to_string().repeat(VersionName::MAX));
    for (from, to) in [(None, None), (Some(version("v1:a+b")), Some(version("2"))), (Some(long('a')), None)] {
        let button = Button { incident: waiting().id, from, to, question_number: u32::MAX };
        assert_eq!(Button::decode(&button.encode()), Some(button));
    }
    // an option's value can hold one long name
    let button =
        Button { incident: waiting().id, from: Some(long('a')), to: Some(long('b')), question_number: u32::MAX };
    assert!(button.encode().len() <= 150);
    assert_eq!(Button::decode(&button.encode()), Some(Button { from: None, ..button }));
}

#[test]
fn a_forged_button_value_is_rejected() {
    let good =
        Button { incident: waiting().id, from: Some(version("v2")), to: Some(version("v1")), question_number: 7 }
            .encode();
    assert!(Button::decode(&good).is_some());
    for (old, new) in [
        ("|7|", "|07|"),
        ("|7|", "|+7|"),
        ("|7|", "|99999999999|"),
        ("|v2", "|v2|"),
        ("v1", "v 1"),
        ("01K", "01k"),
        ("01K", "*"),
    ] {
        assert_eq!(Button::decode(&good.replacen(old, new, 1)), None, "{old} as {new}");
    }
    for text in ["", "|", "|||", "||||", "01KAJ4B8N4GZQ6V9C2M7T5R3XW"] {
        assert_eq!(Button::decode(text), None, "{text}");
    }
}

#[test]
fn only_what_leads_to_the_web_becomes_a_link() {
    for good in ["http://a", "HTTPS://a.example/b?c=d&e=%22#f", "http://[::1]:9090/", "https://a.example/ä b|c>"] {
        assert!(text::LinkAddress::parse(good).is_some(), "{good}");
    }
    let long = format!("https://a.example/{}", "x".repeat(2_000));
    for bad in [
        "",
        "javascript:alert(1)",
        "//a.example",
        "/runbook",
        "https://",
        "https:///x",
        "see http://a",
        "https://a.example/…",
        "ftp://a",
        &long,
    ] {
        assert!(text::LinkAddress::parse(bad).is_none(), "{bad}");
    }
}

#[test]
fn durations_are_told_to_the_second_where_seconds_count() {
    let told: Vec<_> = [0, 2_449, 9_999, 42_900, 72_000, 3_599_000, 7_260_000]
        .map(|ms| crate::wording::took(Duration::from_millis(ms)))
        .into();
    assert_eq!(told, ["0.0 s", "2.4 s", "10.0 s", "42 s", "1 min 12 s", "59 min 59 s", "2 h"]);
}

#[test]
fn a_line_keeps_to_its_length_and_loses_only_what_nobody_sees() {
    assert_eq!(text::fit("  a\r\n\tb \u{0}c\u{202e}d  ", 50), "a b cd");
    assert_eq!(text::fit("abcdef", 4), "abc…");
    assert_eq!(text::fit("&&&&", 12), "&&…"); // each is &amp; for Slack
    assert_eq!(text::fit("🙂🙂", 4), "🙂…");
    assert_eq!(text::fit("\u{200b}\n", 4), "");
}
