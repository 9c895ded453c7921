//! Snapshots of each page, and properties of all pages.

mod hostile;

use std::time::Duration;

use tokio::time::Instant;

use super::actions::StillOff;
use super::incident::{IncidentPage, Picture};
use super::incidents::{Incidents, Listed};
use super::login::SignIn;
use super::overview::{Automation, Filter, ListRequest, OpenIncident, Overview, Row};
use super::problem::ErrorPage;
use super::prompt::PromptPage;
use super::rollouts::{RolloutRow, Rollouts};
use super::*;
use crate::api;
use crate::decision::alert::AlertRecord;
use crate::decision::finding::{Check, Finding, Verdict};
use crate::decision::incident::Never;
use crate::decision::note::NoteKind;
use crate::decision::outage::{Member, Outage, OutageHold};
use crate::decision::phase::{Objection, ObjectionKind};
use crate::decision::verification::{Instances, Traffic, Verification};
use crate::decision::{
    Action, Canary, CanaryPause, CommitId, Guard, Held, HoldingGuard, Incident, IncidentId, Operator, Outcome,
    OutcomeReason, Phase, Plan, Policy, PromptName, Question, Rehearsed, Severity, Switch, SwitchMode, Timestamp,
    TrafficSplit, VersionName,
};
use crate::deployed::{Deployed, DeploymentEntry, Other};
use crate::figures::{Figures, Known, POINTS, Signal};
use crate::page::parts::Tone;

/// 2026-11-21T00:38:12.689Z
const NOW: Timestamp = Timestamp(1_795_221_492_689);
const ID: &str = "01KAJ4B8N4GZQ6V9C2M7T5R3XW";

fn before(seconds: u64) -> Timestamp {
    NOW.minus(Duration::from_secs(seconds))
}

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn name(text: &str) -> PromptName {
    PromptName::parse(text).expect("a name")
}

fn version(text: &str) -> VersionName {
    VersionName::parse(text).expect("a version")
}

/// Texts from outside: each is `with` what the field is about.
#[derive(Clone, Copy)]
struct Texts(&'static str);

impl Texts {
    fn of(self, what: &str) -> String {
        format!("{}{what}", self.0)
    }
}

const PLAIN: Texts = Texts("");

fn viewer() -> Viewer {
    Viewer {
        name: "dana".to_owned(),
        may_deploy: true,
        may_decide: true,
        sees_all: true,
        csrf: Some("c5rf-t0ken".to_owned()),
        signs_out: true,
    }
}

fn reader() -> Viewer {
    Viewer { may_deploy: false, may_decide: false, ..viewer() }
}

fn alert(texts: Texts) -> AlertRecord {
    AlertRecord {
        fingerprint: texts.of("f1"),
        alertname: texts.of("PromptErrorRateCritical"),
        severity: Severity::Critical,
        action: Action::Rollback,
        decider: texts.of("on-call"),
        time_limit: Duration::from_secs(120),
        firing: true,
        starts_at: Some(before(60)),
        first_seen: before(58),
        last_seen: NOW,
        listed: false,
        absent_since: None,
        summary: texts.of("Error rate of support/triage v2 is 7.3 %"),
        description: texts.of("More than 5 % of requests failed."),
        value: texts.of("7.3 %"),
        verify: String::new(),
        measure: crate::decision::Measure {
            metric: "prompt_version:request_errors:ratio_rate5m".to_owned(),
            label: texts.of("error ratio"),
            unit: "ratio".to_owned(),
            threshold: texts.of("0.05"),
            reference: texts.of("0.4 %"),
        },
        runbook_url: texts.of("https://runbooks.example/prompt-errors"),
        dashboard_url: "https://grafana.example/d/prompts?from=now-1h&to=now".to_owned(),
        generator_url: "javascript:alert(1)".to_owned(),
        alertmanager_url: String::new(),
        group_labels: crate::decision::labels::GroupLabels::default(),
    }
}

fn question() -> Phase {
    Phase::AwaitingDecision(Question { deadline: Some(after(300)), ..Question::default() })
}

/// Waits for a decision, held by a guard.
fn awaiting(texts: Texts) -> Incident {
    let id = IncidentId(ID.to_owned());
    let mut incident = Incident::new(id, name("support/triage"), version("v2"), texts.of("on-call"), before(58));
    incident.alerts = vec![alert(texts)];
    incident.severity = Severity::Critical;
    incident.action = Action::Rollback;
    incident.target = Some(version("v1"));
    incident.choices = vec![version("v1"), version("v0")];
    incident.never = vec![Never {
        version: version("v1.5"),
        operator: Operator::recorded(texts.of("maya")),
        reason: texts.of("leaks"),
    }];
    incident.held = Some(Held { guard: Guard::Cooldown, detail: texts.of("v2 was activated by a rollback 3 min ago") });
    incident.note(before(58), NoteKind::Opened, texts.of("PromptErrorRateCritical fired"));
    incident.note(before(58), NoteKind::Held, texts.of("held by the cooldown"));
    incident.question_number = 3;
    incident.phase = question();
    incident
}

fn switch(texts: Texts) -> Switch {
    let mut verification = Verification::starting(before(40), Duration::from_secs(5));
    verification.checks = 4;
    verification.last =
        Some(Check { at: before(5), finding: Finding::new(Verdict::Healthy, texts.of("error ratio 0.20 %")) });
    verification.traffic = Some(Traffic {
        target: 1_200,
        failures: 3,
        bad: 12,
        bad_last_seen: Some(before(38)),
        following: 9,
        still: Instances::of(vec![texts.of("server-7")]),
        ..Traffic::default()
    });
    Switch {
        commit: CommitId::default(),
        at: before(40),
        decided_at: None,
        from: version("v2"),
        to: version("v1"),
        mode: SwitchMode::Approved,
        operator: Operator::recorded(texts.of("dana (U0DANA)")),
        verification: Some(verification),
    }
}

fn split(texts: Texts) -> TrafficSplit {
    TrafficSplit {
        leaving: version("v2"),
        arriving: version("v3"),
        plan: Plan { stages: vec![5, 25, 100], holds: vec![Duration::from_secs(600)], limit: None },
        began: before(900),
        stage: 1,
        since: before(300),
        next: Some(after(300)),
        check: None,
        operator: Operator::recorded(texts.of("ci (deploy)")),
        reason: texts.of("requested"),
        paused: None,
        last: Some(Check {
            at: before(30),
            finding: Finding::new(Verdict::Healthy, texts.of("no worse: 3 of 400 failed")),
        }),
        is_rollback: false,
    }
}

fn canary(texts: Texts) -> Canary {
    Canary::new(IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XX".to_owned()), split(texts), before(900), false)
}

fn entry(texts: Texts) -> DeploymentEntry {
    DeploymentEntry {
        at: before(40),
        event: "rollback".to_owned(),
        from: texts.of("v2"),
        to: texts.of("v1"),
        operator: texts.of("dana (U0DANA)"),
        reason: texts.of("approved"),
        incident: ID.to_owned(),
    }
}

fn figures(texts: Texts) -> Known {
    let mut figures = Figures::default();
    figures.fault = Some(texts.of("Prometheus returned a partial answer: a store is away"));
    let bad = figures.entry(&name("support/triage"), "v2");
    (bad.requests, bad.servers) = (Some(812.0), Some(3.0));
    bad.of_mut(Signal::Errors).now = Some(0.073);
    bad.of_mut(Signal::Errors).line =
        (0..POINTS).map(|at| if at == 3 { f64::NAN } else { at as f64 / 400.0 }).collect();
    bad.of_mut(Signal::P99).now = Some(2.4);
    bad.of_mut(Signal::P99).baseline = Some(1.2);
    bad.of_mut(Signal::Quality).now = Some(0.7);
    bad.of_mut(Signal::Quality).baseline = Some(0.9);
    figures.entry(&name("support/triage"), "v1").servers = Some(1.0);
    figures.entry(&name("calm"), "v1").requests = Some(4.0);
    Known::Since(Instant::now(), std::sync::Arc::new(figures))
}

fn rows(texts: Texts) -> Vec<Row> {
    let urgent = Row {
        prompt: "support/triage".to_owned(),
        active: Some("v2".to_owned()),
        since: Some(before(3_600)),
        event: Some("activate".to_owned()),
        operator: Some(texts.of("ci (deploy)")),
        shares: vec![("v2".to_owned(), 100)],
        automation: Automation::Held(HoldingGuard {
            held: Held { guard: Guard::Cooldown, detail: texts.of("v2 was activated by a rollback 3 min ago") },
            left: Some(Duration::from_secs(720)),
        }),
        incidents: vec![incidents::line(&awaiting(texts))],
        ..Row::default()
    };
    let rolling = Row {
        prompt: "rolling".to_owned(),
        active: Some("v2".to_owned()),
        since: Some(before(90_000)),
        event: Some("rollback".to_owned()),
        operator: Some("system".to_owned()),
        is_known_good: true,
        shares: vec![("v2".to_owned(), 75), ("v3".to_owned(), 25)],
        rollout: Some(texts.of("Canary: 25 % on v3")),
        automation: Automation::Armed { target: Some("v1".to_owned()), asks_first: true },
        ..Row::default()
    };
    let calm = Row {
        prompt: "calm".to_owned(),
        active: Some("v1".to_owned()),
        shares: vec![("v1".to_owned(), 100)],
        automation: Automation::Paused(texts.of("by maya: launch")),
        ..Row::default()
    };
    let broken = Row { prompt: "broken".to_owned(), fault: Some(texts.of("cannot be read")), ..Row::default() };
    let other = Row { automation: Automation::Other(texts.of("join an open incident")), ..broken.clone() };
    let unused = Row { prompt: "unused".to_owned(), automation: Automation::NothingServed, ..Row::default() };
    vec![urgent, rolling, calm, broken, other, unused]
}

fn overview_of(texts: Texts, viewer: &Viewer) -> String {
    let (search, group) = (texts.of("tri"), texts.of("support"));
    let groups = [(texts.of("support"), 12), ("search".to_owned(), 3)];
    let (paused, known) = (texts.of("by maya: launch"), figures(texts));
    let view = Overview {
        now: NOW,
        choice: ListRequest { search: &search, filter: Filter::Open, group: &group, page: 2 },
        rows: rows(texts),
        found: 212,
        total: 10_000,
        pages: 3,
        counts: [212, 1, 2, 1, 1],
        groups: groups.to_vec(),
        paused_for_all: Some(&paused),
        is_dry_run: true,
        asks_by_age: false,
        outage: Some(ID),
        is_partial: true,
        age: None,
        known: &known,
    };
    overview::overview(&view, viewer)
}

fn nothing(total: usize, known: &Known) -> Overview<'_> {
    Overview {
        now: NOW,
        choice: ListRequest { page: 1, ..ListRequest::default() },
        rows: Vec::new(),
        found: 0,
        total,
        pages: 1,
        counts: [0; 5],
        groups: Vec::new(),
        paused_for_all: None,
        is_dry_run: false,
        asks_by_age: false,
        outage: None,
        is_partial: false,
        age: None,
        known,
    }
}

fn empty_overview(total: usize, known: &Known) -> String {
    overview::overview(&nothing(total, known), &viewer())
}

/// Nothing is committed when such a hold ends or begins, or when the lines of the last hour have been read.
#[test]
fn a_page_looks_again_when_something_comes_without_news() {
    let held = |guard| Automation::Held(HoldingGuard { held: Held { guard, detail: "held".to_owned() }, left: None });
    let mut partial = Figures::default();
    partial.lines_awaited = true;
    let lines = Known::Since(Instant::now(), std::sync::Arc::new(partial));
    let armed = Automation::Armed { target: Some("v1".to_owned()), asks_first: false };
    for (automation, asks_by_age, known, again) in [
        (held(Guard::Budget), false, figures(PLAIN), Some(60)),
        (held(Guard::KeepsReturning), false, figures(PLAIN), Some(60)),
        (held(Guard::Cooldown), false, figures(PLAIN), None),
        (armed.clone(), false, figures(PLAIN), None),
        (armed.clone(), true, figures(PLAIN), Some(60)),
        (held(Guard::Budget), false, Known::Awaited, Some(2)),
        (armed, false, lines.clone(), Some(2)),
    ] {
        let row = Row { prompt: "p".to_owned(), automation, ..Row::default() };
        let view = Overview { rows: vec![row], asks_by_age, ..nothing(1, &known) };
        let page = overview::overview(&view, &viewer());
        let found = page.split_once("data-again=\"").and_then(|(_, rest)| rest.split('"').next()?.parse::<u16>().ok());
        assert_eq!(found, again, "{view:?}");
    }
    let gradual = phases(PLAIN).into_iter().find(|(phase, _)| *phase == "rolling_back").expect("a gradual rollback").1;
    let view = Rollouts { rollouts: vec![RolloutRow::Gradual(&gradual)], left_out: 0, age: None, known: &lines };
    assert!(rollouts::rollouts(&view, &viewer()).contains("data-again=\"2\""));
}

/// The script then looks again if its news is younger.
#[test]
fn a_page_says_how_old_the_order_of_the_prompts_is() {
    let known = Known::NotMeasured;
    for (age, said) in [(None, None), (Some(Duration::from_millis(700)), Some("data-age=\"701\""))] {
        let overview = overview::overview(&Overview { age, ..nothing(1, &known) }, &viewer());
        let view = Rollouts { rollouts: Vec::new(), left_out: 0, age, known: &known };
        for page in [overview, rollouts::rollouts(&view, &viewer())] {
            let found = page.split_once("<body").and_then(|(_, rest)| rest.split('>').next()).unwrap_or_default();
            assert_eq!(found.contains("data-age"), said.is_some(), "{found}");
            assert!(found.contains(said.unwrap_or_default()), "{found}");
        }
    }
}

fn rehearsed(texts: Texts) -> Rehearsed {
    let held = Held { guard: Guard::Cooldown, detail: texts.of("v2 was activated by a rollback 3 min ago") };
    let guards = vec![HoldingGuard { held, left: Some(Duration::from_secs(720)) }];
    Rehearsed {
        guards,
        text: texts.of("be held by the guard cooldown"),
        ..Rehearsed::ignored(OutcomeReason::NotActive)
    }
}

fn incident_of(incident: &Incident, texts: Texts, draft: Option<&str>, viewer: &Viewer) -> String {
    let (log, rehearsed, why) =
        ([entry(texts)], rehearsed(texts), texts.of("The receiver draws it after it has checked the rollback."));
    let other = Other {
        prompt: "support/answer".to_owned(),
        at: before(1_200).0,
        event: "activate".to_owned(),
        from: texts.of("v8"),
        to: texts.of("v9"),
        operator: texts.of("ci"),
        same_group: true,
    };
    let deployed = Deployed { others: vec![other], more: 2, at_least: true, ..Deployed::default() };
    let picture = if incident.phase.is_open() { Picture::Missing(&why) } else { Picture::Drawn(7) };
    let view = IncidentPage {
        now: NOW,
        incident,
        is_split: false,
        rehearsed: incident.phase.is_open().then_some(&rehearsed),
        is_paused: incident.phase.is_open().then_some(false),
        still_off: None,
        asks_by_age: false,
        log: &log,
        deployed: &deployed,
        related: &["support/answer".to_owned()],
        picture,
        draft,
    };
    incident::incident(&view, viewer)
}

fn phases(texts: Texts) -> Vec<(&'static str, Incident)> {
    let with = |phase: Phase| Incident { phase, ..awaiting(texts) };
    let switched = |phase: Phase| Incident { switch: Some(switch(texts)), held: None, ..with(phase) };
    let objected = Question {
        objection: Some(Objection { kind: ObjectionKind::Changed, to: None, text: texts.of("healthy again") }),
        ..Question::until(after(60))
    };
    let missed = Question { overdue: true, ..Question::until(after(300)) };
    let overdue = Incident { escalations: 2, ..with(Phase::AwaitingDecision(missed)) };
    vec![
        ("awaiting", awaiting(texts)),
        ("objected", with(Phase::AwaitingDecision(objected))),
        ("overdue", overdue),
        (
            "observing",
            Incident { action: Action::Observe, held: None, ..with(Phase::Observing { until: Some(after(60)) }) },
        ),
        ("investigating", with(Phase::Investigating { until: after(60) })),
        (
            "rolling_back",
            with(Phase::RollingBack(TrafficSplit {
                leaving: version("v2"),
                arriving: version("v1"),
                paused: Some(texts.of("abort_query")),
                is_rollback: true,
                ..split(texts)
            })),
        ),
        ("verifying", switched(Phase::Verifying { until: after(120) })),
        (
            "recovered",
            Incident {
                closed_at: Some(NOW),
                decided_by: Some(Operator::recorded(texts.of("dana (U0DANA)"))),
                ..switched(Phase::Recovered)
            },
        ),
        ("dismissed", Incident { closed_at: Some(NOW), ..with(Phase::Dismissed) }),
    ]
}

fn prompt_of(texts: Texts, viewer: &Viewer, is_asked: bool) -> String {
    let versions = vec![
        api::VersionView {
            version: "v1".to_owned(),
            known_good: true,
            known_good_by: Some("evidence".to_owned()),
            known_good_at: Some("2026-11-20T00:00:00Z".to_owned()),
            contact: Some(texts.of("#team-support")),
            ..api::VersionView::default()
        },
        api::VersionView {
            version: "v2".to_owned(),
            active: true,
            soak_ends_at: Some("2026-11-21T01:00:00Z".to_owned()),
            soak_note: Some(texts.of("3 of 20 requests")),
            mark: Some(api::MarkView {
                kind: "bad".to_owned(),
                at: "2026-11-20T00:00:00Z".to_owned(),
                operator: texts.of("maya"),
                reason: texts.of("leaks names"),
            }),
            quarantined_at: Some("2026-11-20T00:00:00Z".to_owned()),
            archive_fault: Some(texts.of("disk full")),
            ..api::VersionView::default()
        },
    ];
    let view = api::PromptView {
        prompt: "support/triage".to_owned(),
        // a name that is none has no button
        active: Some("v2".to_owned()),
        active_fault: Some(texts.of("the key active was deleted")),
        rollback_target: Some("v1".to_owned()),
        in_service: vec![api::DeploymentView {
            version: texts.of("v2"),
            percent: 100,
            since: Some("2026-11-20T23:38:12Z".to_owned()),
            operator: Some(texts.of("ci (deploy)")),
            event: Some("activate".to_owned()),
        }],
        also_changed: api::AlsoChanged {
            prompts: vec![api::OtherChange {
                prompt: texts.of("support/answer"),
                event: texts.of("canary"),
                to: Some(texts.of("v9")),
                operator: texts.of("ci"),
                at: texts.of("soon"),
                ..api::OtherChange::default()
            }],
            more: 3,
            at_least: true,
            ..api::AlsoChanged::default()
        },
        versions,
        ..api::PromptView::default()
    };
    let explained = api::ExplainView {
        rules: "shipped".to_owned(),
        rules_fault: Some(texts.of("the rules of Prometheus were not read within 500ms")),
        dismissed: 1,
        alerts: vec![api::ForeseenAlertView {
            alert: texts.of("PromptErrorRateCritical"),
            version: texts.of("v2"),
            percent: 100,
            severity: Some(texts.of("critical")),
            action: Some(texts.of("rollback")),
            remarks: vec![texts.of("severity is a template")],
            outcome: texts.of("held"),
            reason: texts.of("cooldown"),
            text: texts.of("be held by the guard cooldown"),
            target: Some(api::ForeseenTargetView {
                version: texts.of("v1"),
                known_good_at: Some("2026-05-20T00:00:00Z".to_owned()),
                known_good_by: Some("evidence".to_owned()),
            }),
            guards: vec![api::ForeseenGuardView {
                reason: texts.of("cooldown"),
                detail: texts.of("v2 was activated by a rollback 3 min ago"),
                left_seconds: Some(720),
            }],
            decider: Some(texts.of("on-call")),
            deadline_at: Some("2026-11-21T00:40:12Z".to_owned()),
            ..api::ForeseenAlertView::default()
        }],
        left_out: 2,
        ..api::ExplainView::default()
    };
    let asked = awaiting(texts);
    let open = [&asked];
    let page = PromptPage {
        prompt: &name("support/triage"),
        view: &view,
        incidents: if is_asked { &open } else { &[] },
        automation: &Automation::Paused(texts.of("by maya: launch")),
        is_paused: true,
        still_off: None,
        asks_by_age: false,
        canary: Some(&canary(texts)),
        explained: Some(&explained),
        log: &[entry(texts)],
        has_more: true,
        known: &figures(texts),
    };
    prompt::prompt(&page, viewer)
}

fn rollouts_of(texts: Texts, viewer: &Viewer) -> String {
    let (canary, prompt) = (canary(texts), name("rolling"));
    let paused = Canary {
        pause: Some(CanaryPause { at: NOW, operator: Operator::recorded(texts.of("maya")) }),
        by_time: true,
        ..canary.clone()
    };
    let gradual = phases(texts).into_iter().find(|(phase, _)| *phase == "rolling_back").expect("a gradual rollback").1;
    let rollouts =
        vec![RolloutRow::Canary(&prompt, &canary), RolloutRow::Canary(&prompt, &paused), RolloutRow::Gradual(&gradual)];
    rollouts::rollouts(&Rollouts { rollouts, left_out: 1, age: None, known: &figures(texts) }, viewer)
}

fn outage_of(texts: Texts, viewer: &Viewer) -> String {
    let policy = Policy { fallback_decider: texts.of("on-call"), ..Policy::default() };
    let mut outage = Outage::open(IncidentId(ID.to_owned()), &policy, before(60));
    outage.note(before(60), NoteKind::Opened, texts.of("6 prompts fail together"));
    outage.hold = Some(OutageHold { by: Operator::recorded(texts.of("dana")), at: NOW });
    let mut member = Member::new(&awaiting(texts), false, NOW);
    member.objection = Some(texts.of("healthy again"));
    outage::outage(&outage, &[member, Member::new(&awaiting(texts), true, NOW)], viewer)
}

fn list_of(texts: Texts, viewer: &Viewer) -> String {
    let incidents: Vec<Incident> = phases(texts).into_iter().map(|(_, incident)| incident).collect();
    let outage = Listed::Outage { id: ID.to_owned(), prompts: 6, waiting: 4, opened_at: before(60), closed_at: None };
    let rows = std::iter::once(outage).chain(incidents.iter().map(Listed::One)).collect();
    incidents::incidents(&Incidents { now: NOW, open_only: true, rows, next: Some(ID) }, viewer)
}

const DRAFT: &str =
    "# Post-mortem: support/triage v2\n\n## Summary\n\nIt recovered.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";

/// Every page.
fn pages(texts: Texts, viewer: &Viewer) -> Vec<(String, String)> {
    let mut pages: Vec<(String, String)> = phases(texts)
        .into_iter()
        .map(|(phase, incident)| {
            let draft = texts.of(DRAFT);
            let draft = (!incident.phase.is_open()).then_some(draft.as_str());
            (format!("incident_{phase}"), incident_of(&incident, texts, draft, viewer))
        })
        .collect();
    let fault = texts.of("This token is unknown.");
    let unavailable =
        ErrorPage { status: 503, code: "redis_unavailable", message: &texts.of("Redis: connection refused") };
    pages.extend(
        [
            ("overview", overview_of(texts, viewer)),
            ("overview_empty", empty_overview(0, &Known::NotMeasured)),
            ("overview_no_match", empty_overview(7, &Known::Awaited)),
            ("prompt", prompt_of(texts, viewer, false)),
            ("prompt_asked", prompt_of(texts, viewer, true)),
            ("rollouts", rollouts_of(texts, viewer)),
            (
                "rollouts_none",
                rollouts::rollouts(
                    &Rollouts { rollouts: Vec::new(), left_out: 0, age: None, known: &Known::NotMeasured },
                    viewer,
                ),
            ),
            ("outage", outage_of(texts, viewer)),
            ("incidents", list_of(texts, viewer)),
            (
                "sign_in",
                login::sign_in(&SignIn { fault: Some(&fault), name: &texts.of("maya"), next: &texts.of("/rollouts") }),
            ),
            ("problem", problem::problem(&unavailable)),
        ]
        .map(|(name, page)| (name.to_owned(), page)),
    );
    pages
}

/// One element on each line, without the hashes of files, which change with each edit.
fn readable(page: &str) -> String {
    let mut text = page.replace("><", ">\n<");
    for asset in [&*assets::CSS, &*assets::JS, &*assets::ICON] {
        text = text.replace(
            &asset.path(),
            &format!("/assets/page.HASH.{}", asset.content_type.split('/').next_back().unwrap_or_default()),
        );
    }
    text
}

#[test]
fn pages_look_as_before() {
    for (name, page) in pages(PLAIN, &viewer()) {
        insta::assert_snapshot!(name, readable(&page));
    }
}

#[test]
fn a_reader_sees_everything_but_buttons() {
    for ((name, own), (_, read)) in pages(PLAIN, &viewer()).into_iter().zip(pages(PLAIN, &reader())) {
        // signing out is no action
        let acts = |page: &str| page.matches("data-path=\"/api/").count();
        assert_eq!(acts(&read), 0, "{name}");
        let without = |page: &str| page.matches("<section").count() + page.matches("<td").count();
        assert_eq!(without(&own), without(&read), "{name}");
    }
    let with_buttons = pages(PLAIN, &viewer()).iter().filter(|(_, page)| page.contains("data-path=\"/api/")).count();
    assert!(with_buttons >= 10, "{with_buttons}");
}

#[test]
fn every_button_of_a_page_has_a_name_of_its_own() {
    for (name, page) in pages(PLAIN, &viewer()).into_iter().filter(|(name, _)| name.starts_with("incident_")) {
        let named: Vec<&str> = page
            .split("<button ")
            .skip(1)
            .filter_map(|rest| rest.split_once("</button>"))
            .map(|(button, _)| match button.split_once("aria-label=\"") {
                Some((_, rest)) => rest.split('"').next().unwrap_or_default(),
                None => button.rsplit('>').next().unwrap_or_default(),
            })
            .collect();
        let unique: std::collections::BTreeSet<&&str> = named.iter().collect();
        assert_eq!(unique.len(), named.len(), "{name}: {named:?}");
    }
}

#[test]
fn resuming_promises_only_what_then_happens() {
    let about = |still_off| {
        let button = actions::of_automation(Some(&name("p")), true, still_off, &viewer());
        button.into_string().split("data-text=\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
    };
    for (is_dry_run, is_paused, text) in [
        (false, false, "Critical alerts roll back automatically again."),
        (false, true, "Automatic rollbacks stay off: automation is paused for all prompts."),
        (true, true, "Automatic rollbacks stay off: guards.mode is dry-run."),
    ] {
        assert_eq!(about(StillOff::of(is_dry_run, is_paused)).as_deref(), Some(text));
    }
}

#[test]
fn no_gradual_rollback_is_offered_while_a_canary_runs() {
    for action in [Action::Page, Action::Observe] {
        let incident = Incident { action, ..awaiting(PLAIN) };
        for is_split in [false, true] {
            let offered = actions::of_incident(&incident, is_split, &viewer()).into_string();
            assert_eq!(offered.contains("approve_gradual"), !is_split, "{action:?}: {offered}");
            assert_eq!(offered.matches("class=\"act first\"").count(), 1, "{action:?}: {offered}");
        }
    }
}

#[test]
fn an_error_that_may_end_is_retried_without_scripts_too() {
    for (status, code, retries) in [(503, "timeout", true), (404, "not_found", false)] {
        let page = problem::problem(&ErrorPage { status, code, message: "no answer" });
        let refresh = "<noscript><meta http-equiv=\"refresh\" content=\"2\"></noscript>";
        for part in ["This page retries automatically.", refresh] {
            assert_eq!(page.contains(part), retries, "{part}: {page}");
        }
    }
}

#[test]
fn a_group_without_prompts_is_shown_as_chosen() {
    for groups in [vec![], vec![("search".to_owned(), 3)]] {
        let choice = ListRequest { group: "gone", page: 1, ..ListRequest::default() };
        let page = overview::overview(&Overview { choice, groups, ..nothing(3, &Known::NotMeasured) }, &viewer());
        assert!(page.contains("<option value=\"gone\" selected>gone/ (0)</option>"), "{page}");
    }
}

#[test]
fn of_a_prompt_that_cannot_be_read_nothing_is_claimed() {
    let row = Row { prompt: "p".to_owned(), fault: Some("p is broken".to_owned()), ..Row::default() };
    let page = overview::overview(&Overview { rows: vec![row], ..nothing(1, &Known::NotMeasured) }, &viewer());
    let body = page.split_once("<tbody>").expect("a table").1;
    assert!(body.contains("p is broken") && !body.contains("nothing"), "{body}");
    assert_eq!(body.matches("<span class=\"quiet\">not known</span>").count(), 2, "{body}");
}

#[test]
fn the_deadline_of_an_incident_to_come_is_no_moment() {
    for (incident, shown) in [(None, "Within 5 min<"), (Some(ID.to_owned()), "By <time datetime=")] {
        let deadline_at = Some("2026-11-21T00:43:12.689Z".to_owned());
        let alert = api::ForeseenAlertView { incident, deadline_at, ..api::ForeseenAlertView::default() };
        let at = "2026-11-21T00:38:12.689Z".to_owned();
        let view = api::ExplainView { at, alerts: vec![alert], ..api::ExplainView::default() };
        let page = explain::explained(&view).into_string();
        assert!(page.contains(shown), "{shown}: {page}");
    }
}

#[test]
fn an_incident_says_whether_guards_were_asked() {
    let mut requested = Incident { held: None, notes: Vec::new(), ..awaiting(PLAIN) };
    assert!(!requested.alerts.is_empty());
    for (action, said) in [(Action::Rollback, "No guard held it."), (Action::Page, "Guards were not checked")] {
        requested.alerts.iter_mut().for_each(|alert| alert.action = action);
        let shown = incident_of(&requested, PLAIN, None, &viewer());
        assert!(shown.contains(said), "{action:?}: {shown}");
    }
    requested.alerts.iter_mut().for_each(|alert| alert.action = Action::Rollback);
    requested.note(NOW, NoteKind::Opened, "ErrorRateCritical fires");
    requested.note(NOW, NoteKind::Held, "held by the guard paused");
    let shown = incident_of(&requested, PLAIN, None, &viewer());
    assert!(shown.contains("A guard held it for a time: see the timeline."), "{shown}");
    // a long timeline no longer shows that
    (0..Policy::MAX_NOTES).for_each(|n| requested.note(NOW, NoteKind::Alert, format!("repeat {n}")));
    let shown = incident_of(&requested, PLAIN, None, &viewer());
    assert!(shown.contains("No guard holds it. Its timeline lacks earlier entries"), "{shown}");
}

#[test]
fn a_version_that_was_replaced_was_not_rolled_back() {
    let replaced = Switch { from: version("v1"), to: version("v3"), mode: SwitchMode::Shipped, ..switch(PLAIN) };
    let incident = Incident { switch: Some(replaced), phase: Phase::Verifying { until: after(60) }, ..awaiting(PLAIN) };
    let shown = incident_of(&incident, PLAIN, None, &viewer());
    for expected in ["<dt>Replaced</dt><dd><code>v1</code> → <code>v3</code>", "After the replacement"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}

#[test]
fn a_value_fits_into_its_cell_however_large_it_is() {
    for (signal, huge, shown) in [
        (Signal::P99, 1e300, "1.0e300 s"),
        (Signal::P99, -1e300, "-1.0e303 ms"),
        (Signal::Errors, f64::MAX, "inf %"),
        (Signal::Quality, 123_456_789.0, "1.2e8"),
        (Signal::P99, 86_400.0, "86400.00 s"),
    ] {
        assert_eq!(parts::value(signal, huge), shown);
    }
}

#[test]
fn each_permission_has_its_own_buttons() {
    let decides = Viewer { may_deploy: false, ..viewer() };
    let deploys = Viewer { may_decide: false, ..viewer() };
    let page = rollouts_of(PLAIN, &decides);
    assert!(page.contains("/decide\"") && !page.contains("/canary\""), "{page}");
    let page = rollouts_of(PLAIN, &deploys);
    assert!(!page.contains("/decide\"") && page.contains("/canary\""), "{page}");
}

#[test]
fn every_page_has_landmarks_and_one_heading_and_nothing_inline() {
    for (name, page) in pages(PLAIN, &viewer()) {
        for once in
            ["<html lang=\"en\">", "<main id=\"main\"", "<h1", "<title>", "class=\"skip\"", "aria-live=\"polite\""]
        {
            assert_eq!(page.matches(once).count(), 1, "{name}: {once}");
        }
        for never in [" style=", "<style", " onclick=", "javascript:", "<iframe"] {
            assert!(!page.contains(never), "{name}: {never}");
        }
        assert_eq!(page.matches("<script").count(), 1, "{name}");
        assert!(page.contains("<script src=\"/assets/page."), "{name}");
        let ids: Vec<&str> = page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let unique: std::collections::BTreeSet<&&str> = ids.iter().collect();
        // the second canary of this page is the first one again
        assert!(unique.len() + usize::from(name == "rollouts") >= ids.len(), "{name}: {ids:?}");
        assert_eq!(
            page.matches("<table").count(),
            page.matches("<caption").count() + page.matches("class=\"draft\"").count(),
            "{name}"
        );
    }
}

#[test]
fn the_csrf_token_is_in_its_meta_tag_alone() {
    for (name, page) in pages(PLAIN, &viewer()) {
        let found = page.matches("c5rf-t0ken").count();
        let expected = usize::from(!["problem", "sign_in"].contains(&name.as_str()));
        assert_eq!(found, expected, "{name}");
        assert_eq!(page.matches("<meta name=\"csrf-token\" content=\"c5rf-t0ken\">").count(), expected, "{name}");
    }
}

#[test]
fn an_outcome_of_every_kind_has_a_tone() {
    assert_eq!(Tone::from(crate::figures::Rating::Watch).class(), "watch");
    assert_eq!(rehearsed(PLAIN).outcome, Outcome::Ignored);
    let line: OpenIncident = incidents::line(&awaiting(PLAIN));
    assert_eq!((line.tone, line.title), (Tone::Bad, "Decision needed"));
}
