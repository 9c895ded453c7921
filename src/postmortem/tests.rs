//! Drafts for every way in which an incident can end.

use std::time::Duration;

use pulldown_cmark::{Event, Options, Parser, Tag};

use super::*;
use crate::decision::alert::AlertRecord;
use crate::decision::note::NoteKind;
use crate::decision::{
    Action, CommitId, Guard, Held, IncidentId, Operator, Phase, PromptName, Question, RollbackFailure, Severity,
    Switch, SwitchMode, VersionName,
};

/// 2026-11-21T00:38:12.689Z
const NOW: Timestamp = Timestamp(1_795_221_492_689);
const ID: &str = "01KAJ4B8N4GZQ6V9C2M7T5R3XW";

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn before(seconds: u64) -> Timestamp {
    NOW.minus(Duration::from_secs(seconds))
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
        decider: if action == Action::Rollback { "system" } else { "on-call" }.to_owned(),
        time_limit: action.default_time_limit(),
        firing: false,
        starts_at: Some(NOW.minus(Duration::from_millis(2_400))),
        first_seen: NOW,
        last_seen: NOW,
        listed: false,
        absent_since: None,
        summary: "Error rate of customer-support v2.1.0 is 7.3%".to_owned(),
        description: "More than 5 % of requests failed.".to_owned(),
        value: "7.3%".to_owned(),
        verify: String::new(),
        runbook_url: "https://runbooks.example/prompt-errors".to_owned(),
        measure: Default::default(),
        dashboard_url: "https://grafana.example/d/prompts?var-prompt=customer-support&from=now-1h".to_owned(),
        generator_url: String::new(),
        alertmanager_url: String::new(),
        group_labels: Default::default(),
    }
}

/// Opened by `alert`, undecided.
fn opened(alert: AlertRecord) -> Incident {
    let prompt = PromptName::parse("customer-support").expect("a name");
    let mut incident = Incident {
        target: Some(version("v2.0.9")),
        choices: vec![version("v2.0.9")],
        phase: Phase::AwaitingDecision(Question::until(NOW.plus(alert.time_limit))),
        severity: alert.severity,
        action: alert.action,
        time_limit: alert.time_limit,
        question_number: 1,
        alerts: vec![alert],
        ..Incident::new(IncidentId(ID.to_owned()), prompt, version("v2.1.0"), "on-call".to_owned(), NOW)
    };
    let text = format!("{} ({}): {}", incident.alerts[0].alertname, incident.severity, incident.alerts[0].summary);
    incident.note(NOW, NoteKind::Opened, text);
    incident
}

fn switch(incident: &mut Incident, at: Timestamp, mode: SwitchMode, operator: &str) {
    let (from, to) = (version("v2.1.0"), version("v2.0.9"));
    incident.note(at, NoteKind::Switched, format!("{operator} rolled {from} back to {to}: PromptErrorRate"));
    incident.switch = Some(Switch {
        commit: CommitId::default(),
        at,
        decided_at: None,
        from,
        to,
        mode,
        operator: Operator::recorded(operator),
        verification: None,
    });
    incident.phase = Phase::Verifying { until: at };
}

/// Another version replaced `from`.
fn ship(incident: &mut Incident, at: Timestamp, from: &str, to: &str) {
    incident.note(at, NoteKind::Checked, format!("Omar replaced {from} with {to}: checking whether that helped"));
    incident.switch = Some(Switch {
        commit: CommitId::default(),
        at,
        decided_at: None,
        from: version(from),
        to: version(to),
        mode: SwitchMode::Shipped,
        operator: Operator::recorded("Omar"),
        verification: None,
    });
}

fn recovered() -> Incident {
    let mut incident = opened(alert("PromptErrorRateCritical", Severity::Critical, Action::Rollback));
    switch(&mut incident, NOW, SwitchMode::Auto, "system");
    incident.close(Phase::Recovered, after(40), "v2.0.9 is healthy");
    incident
}

fn log() -> Vec<DeploymentEntry> {
    let entry = |at, event: &str, from: &str, to: &str, operator: &str, reason: &str| DeploymentEntry {
        at,
        event: event.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        operator: operator.to_owned(),
        reason: reason.to_owned(),
        incident: String::new(),
    };
    vec![
        DeploymentEntry {
            incident: ID.to_owned(),
            ..entry(NOW, "rollback", "v2.1.0", "v2.0.9", "system", "PromptErrorRate")
        },
        entry(before(1_800), "activate", "v2.0.9", "v2.1.0", "maya", "new refund policy"),
        entry(before(86_400), "activate", "v2.0.8", "v2.0.9", "maya", ""),
    ]
}

#[test]
fn that_a_version_has_soaked_is_not_how_it_came_into_service() {
    let incident = recovered();
    let mut with = log();
    with.push(DeploymentEntry {
        at: before(600),
        event: "soaked".to_owned(),
        to: "v2.1.0".to_owned(),
        operator: "system".to_owned(),
        reason: "known-good by time only: served for 20 min".to_owned(),
        ..DeploymentEntry::default()
    });
    assert_eq!(draft(&facts(&incident, &with)), draft(&facts(&incident, &log())));
}

fn samples() -> Samples {
    let at = |i: i64| NOW.0 - 60_000 + i * 5_000;
    Samples {
        expression: "prompt_version:error_ratio:rate1m{prompt=\"customer-support\"}".to_owned(),
        label: "error ratio".to_owned(),
        unit: Unit::Ratio,
        threshold: Some(0.05),
        step_ms: 5_000,
        bad: SampleSeries::new("v2.1.0", (0..13).map(|i| (at(i), if i < 10 { 0.003 } else { 0.0731 }))),
        good: Some(SampleSeries::new("v2.0.9", (13..24).map(|i| (at(i), 0.002)))),
        first_bad_at: Some(NOW.0 - 9_500),
        bad_responses: Some(1_234.0),
        switched_at: NOW.0,
        is_shipped: false,
    }
}

fn facts<'a>(incident: &'a Incident, log: &'a [DeploymentEntry]) -> PostmortemFacts<'a> {
    PostmortemFacts {
        incident,
        log,
        samples: None,
        unmeasured: None,
        contact: None,
        verification: None,
        verification_deadline: Duration::from_secs(300),
        bad_content: None,
        good_content: None,
    }
}

/// The draft, with only the beginning of its picture.
fn drafted(facts: &PostmortemFacts<'_>) -> String {
    let text = draft(facts);
    assert_eq!(text, draft(facts), "the same facts make the same text");
    match text.split_once("\n[picture]: ") {
        Some((text, picture)) => {
            let start = "data:image/svg+xml;charset=utf-8,%3Csvg%20width=%22800%22%20";
            assert!(picture.starts_with(start) && picture.ends_with("%3C/svg%3E\n"), "{picture}");
            format!("{text}\n[picture]: …\n")
        }
        None => text,
    }
}

#[test]
fn an_automatic_rollback_that_helped() {
    let (incident, log, samples) = (recovered(), log(), samples());
    let facts = PostmortemFacts {
        samples: Some(&samples),
        verification: Some(Verified {
            checks: 4,
            healthy_in_a_row: 2,
            finding: "v2.0.9: 0.2 % of 412 requests failed".to_owned(),
            still_served_by: vec!["prompt-server-3:9000".to_owned()],
            recovered_at: Some(after(38)),
        }),
        bad_content: Some("You help customers.\nRefund everything.\n"),
        good_content: Some("You help customers.\nRefund what the policy allows.\n"),
        ..facts(&incident, &log)
    };
    insta::assert_snapshot!(drafted(&facts));
}

#[test]
fn a_person_who_approved_late() {
    let mut incident = opened(alert("PromptErrorRateHigh", Severity::High, Action::Page));
    incident.note(after(300), NoteKind::Escalated, "nobody decided within 5 min");
    incident.escalations = 1;
    switch(&mut incident, after(422), SwitchMode::Approved, "Maya");
    incident.decided_by = Some(Operator::recorded("Maya"));
    incident.close(Phase::Unverified, after(722), "no traffic on v2.0.9");
    let log = log();
    let facts = PostmortemFacts { bad_content: Some("Be brief.\n"), ..facts(&incident, &log[1..]) };
    insta::assert_snapshot!(drafted(&facts));
}

#[test]
fn a_rollback_that_did_not_help_and_was_held_first() {
    let mut incident = opened(alert("PromptErrorRateCritical", Severity::Critical, Action::Rollback));
    let held = Held { guard: Guard::Paused, detail: "automation is paused (by Bo: provider outage)".to_owned() };
    incident.note(NOW, NoteKind::Held, format!("held (paused): {}", held.detail));
    incident.held = Some(held);
    incident.note(after(30), NoteKind::Decided, "Maya is investigating");
    switch(&mut incident, after(90), SwitchMode::Approved, "Maya");
    incident.phase = Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered };
    incident.note(after(390), NoteKind::Escalated, "the error rate of v2.0.9 is 9.1 % after the rollback");
    incident.escalations = 1;
    let mut log = log();
    log.insert(
        0,
        DeploymentEntry {
            at: after(200),
            event: "external".to_owned(),
            to: "v2.0.9".to_owned(),
            ..DeploymentEntry::default()
        },
    );
    let samples = samples();
    insta::assert_snapshot!(drafted(&PostmortemFacts { samples: Some(&samples), ..facts(&incident, &log[..1]) }));
}

#[test]
fn a_rollback_by_hand_without_alerts_and_samples() {
    let mut incident = Incident { alerts: Vec::new(), notes: Vec::new(), escalations: 0, ..recovered() };
    incident.note(NOW, NoteKind::Opened, "bo requested a rollback: too many refusals");
    incident.closed_at = None;
    switch(&mut incident, NOW, SwitchMode::Manual, "bo");
    incident.decided_by = Some(Operator::recorded("bo"));
    insta::assert_snapshot!(drafted(&facts(&incident, &[])));
}

/// Each of `expected` is in the text, and nothing of `never`.
fn assert_says(text: &str, expected: &[&str], never: &[&str]) {
    for one in expected {
        assert!(text.contains(one), "{one}\n{text}");
    }
    for one in never {
        assert!(!text.contains(one), "{one}\n{text}");
    }
}

#[test]
fn a_fix_after_a_rollback_does_not_hide_the_rollback() {
    let mut incident = opened(alert("PromptErrorRateCritical", Severity::Critical, Action::Rollback));
    switch(&mut incident, after(1), SwitchMode::Auto, "system");
    incident.note(after(301), NoteKind::Escalated, "v2.0.9 is unhealthy");
    incident.escalations = 1;
    ship(&mut incident, after(900), "v2.0.9", "v2.1.1");
    incident.close(Phase::Recovered, after(960), "v2.1.1 is healthy");
    let (log, mut samples) = (log(), samples());
    samples.bad = SampleSeries::new("v2.0.9", [(after(600).0, 0.09)]);
    let text = drafted(&PostmortemFacts { samples: Some(&samples), ..facts(&incident, &log) });
    assert_says(
        &text,
        &[
            "`customer-support` was rolled back at 2026-11-21 00:38:13.689Z (system rolled v2.1.0 back to v2.0.9: \
             PromptErrorRate); Omar then replaced `v2.0.9` with `v2.1.1` at 2026-11-21 00:53:12.689Z. It recovered",
            "- `v2.1.0` was in service for 30 min 1 s before the rollback.\n",
            "- Bad responses of `v2.0.9` between",
            "of both versions around the replacement]",
            "1.0 s of 2 min since the alert: met |\n\
             | rolled back | 2026-11-21 00:38:13.689Z | 0.0 s | – |\n\
             | replaced | 2026-11-21 00:53:12.689Z | 14 min 59 s | – |\n",
            "| 1 min of 5 min since the replacement: met |",
            "A replacement followed the rollback: Omar replaced `v2.0.9` with `v2.1.1`.",
            "No guard held the automatic rollback.",
            "## After the replacement\n\nNo measurements after the replacement were stored.",
        ],
        &["was not rolled back", "instead of rolling it back", "before it was replaced", "Guards were not checked"],
    );
}

#[test]
fn a_fix_instead_of_a_rollback_is_a_replacement() {
    let mut incident = opened(alert("PromptErrorRateHigh", Severity::High, Action::Page));
    ship(&mut incident, after(200), "v2.1.0", "v2.1.1");
    let log = log();
    let text = drafted(&facts(&incident, &log[1..]));
    assert_says(
        &text,
        &[
            "`customer-support` was not rolled back: Omar replaced `v2.1.0` with `v2.1.1` at",
            "- `v2.1.0` was in service for 33 min 20 s before it was replaced.\n",
            "| replaced | 2026-11-21 00:41:32.689Z |",
            "Omar replaced the version instead of rolling it back.",
        ],
        &["| rolled back |", "before the rollback"],
    );
    incident.phase = Phase::Escalated { until: None, reason: RollbackFailure::NotFollowed };
    assert_says(&draft(&facts(&incident, &log[1..])), &["until they follow the replacement."], &[]);
    // it is unknown when the version in trouble lost its traffic
    ship(&mut incident, after(300), "v2.1.1", "v2.1.2");
    assert_says(&draft(&facts(&incident, &log[1..])), &["replaced `v2.1.1` with `v2.1.2`"], &["was in service for"]);
}

#[test]
fn without_a_first_bad_sample_nothing_is_said_to_follow_it() {
    let mut incident = opened(alert("PromptErrorRateCritical", Severity::Critical, Action::Rollback));
    switch(&mut incident, after(3_600), SwitchMode::Approved, "Maya");
    let samples = Samples { first_bad_at: None, bad_responses: None, ..samples() };
    let text = draft(&PostmortemFacts { samples: Some(&samples), ..facts(&incident, &[]) });
    assert_says(&text, &["is unknown: the measurements do not show the first one"], &["between the first bad sample"]);
}

#[test]
fn a_question_about_a_canary_has_neither_alerts_nor_a_person_who_began() {
    let mut incident = opened(alert("PromptErrorRateHigh", Severity::High, Action::Page));
    (incident.alerts, incident.action) = (Vec::new(), Action::Recommend);
    incident.close(Phase::Resolved, after(60), "the canary goes on");
    let expected = ["None: a canary waited for a decision.", "The question about the canary ended."];
    assert_says(&draft(&facts(&incident, &[])), &expected, &["a person started", "The alerts resolved"]);
}

#[test]
fn a_second_rollback_does_not_delay_the_first() {
    let mut incident = opened(alert("PromptErrorRateCritical", Severity::Critical, Action::Rollback));
    switch(&mut incident, after(1), SwitchMode::Auto, "system");
    switch(&mut incident, after(900), SwitchMode::Approved, "Maya");
    let second = incident.switch.as_mut().expect("a switch");
    (second.from, second.to) = (version("v2.0.9"), version("v2.0.8"));
    let log = log();
    let rows = "1.0 s of 2 min since the alert: met |\n\
                | rolled back | 2026-11-21 00:38:13.689Z | 0.0 s | – |\n\
                | rolled back again | 2026-11-21 00:53:12.689Z | 14 min 59 s | – |\n";
    let said = "was in service for 30 min 1 s before the rollback.\n";
    assert_says(&draft(&facts(&incident, &log)), &[rows, said, "from `v2.0.9` to `v2.0.8` after Maya approved"], &[]);
    // the version in trouble is served again, and people are asked
    incident.switch = None;
    incident.phase = Phase::AwaitingDecision(Question::until(after(2_000)));
    let said = "was rolled back at 2026-11-21 00:38:13.689Z (system rolled v2.1.0 back to v2.0.9: PromptErrorRate).";
    assert_says(&draft(&facts(&incident, &log)), &[said], &["was not rolled back", "Nothing was rolled back"]);
}

#[test]
fn a_canary_that_the_system_ended() {
    let mut incident = opened(alert("PromptErrorRateNewVersion", Severity::High, Action::Page));
    switch(&mut incident, after(1), SwitchMode::Auto, "system");
    let stage = |seconds, percent| DeploymentEntry {
        at: before(seconds),
        event: "canary".to_owned(),
        from: "v2.0.9".to_owned(),
        to: "v2.1.0".to_owned(),
        operator: "maya".to_owned(),
        reason: format!("{percent} % on v2.1.0: canary"),
        incident: String::new(),
    };
    let mut log = log();
    log.splice(1..2, [stage(600, 25), stage(3_600, 5)]); // the latest first
    assert_says(
        &drafted(&facts(&incident, &log)),
        &[
            "- `v2.1.0` was in service for 1 h before the rollback.\n",
            "The system ended the canary, as for any alert of severity high or critical.",
            "It ended a canary: only `paused`, `dry_run` and `predates_activation` apply, and they passed.",
            "deployment log: canary v2.0.9 → v2.1.0 by maya (5 % on v2.1.0: canary)",
            "deployment log: canary v2.0.9 → v2.1.0 by maya (25 % on v2.1.0: canary)",
        ],
        &["as the alert requested", "`budget`"],
    );
    // a canary that got all traffic is a version like any other
    log.insert(1, DeploymentEntry { event: "activate".to_owned(), ..stage(60, 100) });
    let promoted = draft(&facts(&incident, &log));
    assert_says(&promoted, &["in service for 1 h", "as the alert requested", "`budget`"], &["ended the canary"]);
}

#[test]
fn an_incident_that_was_dismissed() {
    let mut incident = opened(alert("PromptQualityDrop", Severity::Medium, Action::Observe));
    incident.target = None;
    incident.decided_by = Some(Operator::recorded("Maya"));
    incident.close(Phase::Dismissed, after(100), "Maya dismissed this");
    insta::assert_snapshot!(drafted(&facts(&incident, &[])));
}

const HOSTILE: &str = "</code><script>alert(1)</script> `x` | # [a](javascript:b) ![c](d)\n\n# A heading\n```\n- item\n$x$ ~~y~~ <https://a.example> | b\n";

#[test]
fn texts_from_elsewhere_stay_texts() {
    let mut incident = recovered();
    incident.decider = HOSTILE.to_owned();
    let AlertRecord { alertname, summary, runbook_url, measure, .. } = &mut incident.alerts[0];
    for text in [alertname, summary, runbook_url, &mut measure.reference] {
        *text = HOSTILE.to_owned();
    }
    if let Some(switch) = &mut incident.switch {
        switch.operator = Operator::recorded(HOSTILE);
        switch.mode = SwitchMode::Manual;
    }
    incident.note(after(50), NoteKind::Held, HOSTILE);
    let log = [DeploymentEntry {
        at: after(1),
        event: HOSTILE.to_owned(),
        from: HOSTILE.to_owned(),
        to: HOSTILE.to_owned(),
        operator: HOSTILE.to_owned(),
        reason: HOSTILE.to_owned(),
        incident: HOSTILE.to_owned(),
    }];
    let samples = Samples {
        expression: HOSTILE.to_owned(),
        label: HOSTILE.to_owned(),
        bad: SampleSeries::new(HOSTILE, [(NOW.0, f64::NAN)]),
        ..samples()
    };
    let facts = PostmortemFacts {
        samples: Some(&samples),
        verification: Some(Verified {
            finding: HOSTILE.to_owned(),
            still_served_by: vec![HOSTILE.to_owned()],
            ..Verified::default()
        }),
        bad_content: Some(HOSTILE),
        good_content: Some(""),
        ..facts(&incident, &log)
    };
    let text = drafted(&facts);
    insta::assert_snapshot!(text);
    let (mut headings, mut rows, mut links, mut images, mut blocks) = (0, 0, Vec::new(), 0, 0);
    for event in Parser::new_ext(&text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_MATH) {
        match event {
            Event::Start(Tag::Heading { .. }) => headings += 1,
            Event::Start(Tag::TableRow) => rows += 1,
            Event::Start(Tag::Link { dest_url, .. }) => links.push(dest_url),
            Event::Start(Tag::Image { .. }) => images += 1,
            Event::Start(Tag::CodeBlock(_)) => blocks += 1,
            Event::Html(_) | Event::InlineHtml(_) | Event::InlineMath(_) => panic!("{event:?}"),
            _ => {}
        }
    }
    assert_eq!((headings, rows, images, blocks), (10, 6, 1, 1));
    assert_eq!(links.len(), 1, "{links:?}");
    assert!(links[0].starts_with("https://grafana.example/"));
}

#[test]
fn however_much_there_is_the_draft_is_bounded() {
    let long = HOSTILE.repeat(1_000);
    let mut incident = recovered();
    incident.alerts = vec![
        AlertRecord {
            summary: long.clone(),
            description: long.clone(),
            value: long.clone(),
            ..incident.alerts[0].clone()
        };
        64
    ];
    for second in 0..200 {
        incident.note(after(second), NoteKind::Alert, long.clone());
    }
    let entry = DeploymentEntry {
        at: after(10),
        event: long.clone(),
        from: long.clone(),
        to: long.clone(),
        operator: long.clone(),
        reason: long.clone(),
        ..DeploymentEntry::default()
    };
    let log = vec![entry; 1_000];
    let text = draft(&PostmortemFacts { bad_content: Some(&long), good_content: Some("x"), ..facts(&incident, &log) });
    assert!(text.len() < 600_000, "{} bytes", text.len());
}

#[test]
fn moments_out_of_order_make_no_nonsense() {
    let mut incident = recovered();
    incident.alerts[0].starts_at = Some(after(9)); // Prometheus' clock is ahead
    let table = steps::table(&facts(&incident, &[]));
    assert!(table.contains("| received | 2026-11-21 00:38:12.689Z | 9.0 s earlier |"), "{table}");
    incident.alerts[0].starts_at = Some(Timestamp(i64::MIN));
    incident.opened_at = Timestamp(i64::MAX);
    draft(&facts(&incident, &log()));
}

#[test]
fn the_time_that_prometheus_took_is_not_the_persons() {
    let mut incident = opened(alert("PromptErrorRateHigh", Severity::High, Action::Page));
    switch(&mut incident, after(302), SwitchMode::Approved, "Maya");
    incident.switch.as_mut().expect("a switch").decided_at = Some(after(299));
    let table = steps::table(&facts(&incident, &[]));
    assert!(table.contains("| 4 min 59 s of 5 min since the alert: met |"), "{table}");
    assert!(table.contains("| rolled back | 2026-11-21 00:43:14.689Z | 3.0 s |"), "{table}");
}

#[test]
fn it_says_whom_to_ask_and_why_nothing_was_measured() {
    let (incident, log) = (recovered(), log());
    let known = PostmortemFacts {
        contact: Some("#prompts <@maya>"),
        unmeasured: Some("Prometheus was unreachable"),
        ..facts(&incident, &log)
    };
    let text = draft(&known);
    let questions = text.split_once("## Questions").expect("the questions").1;
    assert!(questions.contains("Contact for `v2.1.0`: \\#prompts &lt;@maya&gt;\n"), "{questions}");
    assert!(text.contains("- Not measured: Prometheus was unreachable.\n"), "{text}");
}

#[test]
fn users_are_served_well_before_the_incident_is_closed_and_never_after() {
    let incident = recovered();
    let recovered = |at| {
        let verification = Some(Verified { recovered_at: Some(at), ..Verified::default() });
        PostmortemFacts { verification, ..facts(&incident, &[]) }.recovered_at()
    };
    assert_eq!(recovered(after(30)), Some(after(30)));
    assert_eq!(recovered(after(41)), Some(after(40)), "a clock that is ahead");
    let mut open = recovered_then(Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered });
    open.closed_at = None;
    let verification = Some(Verified { recovered_at: Some(after(30)), ..Verified::default() });
    assert_eq!(
        PostmortemFacts { verification, ..facts(&open, &[]) }.recovered_at(),
        None,
        "healthy once is no recovery"
    );
}

fn recovered_then(phase: Phase) -> Incident {
    Incident { phase, ..recovered() }
}

#[test]
fn a_limit_is_met_to_the_millisecond() {
    let mut incident = opened(alert("PromptErrorRateHigh", Severity::High, Action::Page));
    switch(&mut incident, after(300), SwitchMode::Approved, "Maya");
    assert!(steps::table(&facts(&incident, &[])).contains("| 5 min of 5 min since the alert: met |"));
    incident.notes.pop();
    switch(&mut incident, after(300).plus(Duration::from_millis(1)), SwitchMode::Approved, "Maya");
    assert!(steps::table(&facts(&incident, &[])).contains("| 5 min of 5 min since the alert: missed |"));
    // a person who investigates has answered
    incident.note(after(20), NoteKind::Decided, "Maya is investigating");
    let table = steps::table(&facts(&incident, &[]));
    assert!(table.contains("| 20.0 s of 5 min since the alert: met |") && table.contains("| under investigation |"));
}

#[test]
fn an_incident_on_hold_is_not_under_investigation() {
    let mut incident = opened(alert("PromptErrorRateCritical", Severity::Critical, Action::Rollback));
    incident.outage = true;
    incident.note(after(20), NoteKind::Decided, "Maya put this incident on hold with the other prompts");
    switch(&mut incident, after(300), SwitchMode::Approved, "Maya");
    let table = steps::table(&facts(&incident, &[]));
    assert!(table.contains("| first response |") && !table.contains("| under investigation |"), "{table}");
}

#[test]
fn a_gradual_rollback_that_a_fix_followed_was_decided_when_it_began() {
    let mut incident = opened(alert("PromptErrorRateHigh", Severity::High, Action::Page));
    incident.note(after(60), NoteKind::Decided, "Maya started a gradual rollback from v2.1.0 to v2.0.9");
    switch(&mut incident, after(1_860), SwitchMode::Gradual, "Maya");
    ship(&mut incident, after(3_000), "v2.0.9", "v2.1.1");
    let mut log = log();
    log[0] = DeploymentEntry { at: after(60), event: "gradual".to_owned(), ..log[0].clone() };
    let text = draft(&facts(&incident, &log));
    let decided = format!("| decided | {} |", text::moment(after(60)));
    assert_says(&text, &[&decided], &["| under investigation |"]);
}

#[test]
fn a_rollback_of_a_fix_is_not_when_the_first_version_left() {
    let mut incident = opened(alert("PromptErrorRateHigh", Severity::High, Action::Page));
    ship(&mut incident, after(200), "v2.1.0", "v2.1.1");
    incident.note(after(900), NoteKind::Switched, "Maya rolled v2.1.1 back to v2.0.9: PromptErrorRate");
    ship(&mut incident, after(3_000), "v2.0.9", "v2.1.2");
    let mut log = log();
    log[0] =
        DeploymentEntry { at: after(200), event: "activate".to_owned(), to: "v2.1.1".to_owned(), ..log[0].clone() };
    assert_says(&draft(&facts(&incident, &log)), &["was in service for 33 min"], &["was in service for 45 min"]);
}
