//! The events of decisions, without a store.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::decision::decide::Active;
use crate::decision::event::{Activation, Decide, Marking, Register, Rollback, TrafficShare};
use crate::decision::{
    Action, Alert, AlertStatus, CommitId, IncidentId, MarkKind, Phase, Plan, PromptName, PromptState, Routing,
    Severity, Trigger, VersionName, decide,
};

/// A prompt, and the events of its commits.
struct World {
    policy: Policy,
    snapshot: Snapshot,
    now: Timestamp,
    commits: usize,
    /// The events of the last commit.
    last: Vec<Value>,
    all: Vec<Value>,
}

fn version(name: &str) -> VersionName {
    VersionName::parse(name).expect("a version")
}

impl World {
    /// With the rollback target `v1`, the active version `v2`, and the registered version `v3`.
    fn new() -> Self {
        let snapshot = Snapshot {
            prompt: PromptName::parse("p").expect("a name"),
            active: Active::Absent,
            routing: Vec::new(),
            state: PromptState::default(),
            paused: None,
            recent_auto: 0,
            outage_hold: None,
            incident: None,
            content: None,
            commit: CommitId(String::new()),
            fresh_ids: Vec::new(),
        };
        let policy = Policy::default();
        let now = Timestamp(1_763_717_000_000);
        let mut world = Self { policy, snapshot, now, commits: 0, last: Vec::new(), all: Vec::new() };
        for name in ["v1", "v2", "v3"] {
            let known_good = name == "v1";
            let of = Register { version: version(name), content: None, contact: None, staged_at: None, known_good };
            world.happens(&Event::Register(of));
            if name != "v3" {
                world.activates(name, TrafficShare::All);
            }
        }
        world
    }

    /// Decides and commits; returns the kinds of the events.
    fn happens(&mut self, event: &Event) -> Vec<String> {
        self.commits += 1;
        self.now = self.now.plus(Duration::from_secs(1));
        self.snapshot.commit = CommitId(format!("C{}", self.commits));
        self.snapshot.fresh_ids = (0..4).map(|n| IncidentId(format!("I{}-{n}", self.commits))).collect();
        let decision = decide(&self.policy, &self.snapshot, event, self.now);
        let Some(commit) = decision.commit else {
            self.last.clear();
            return Vec::new();
        };
        self.commits_as(event, &decision.answer, commit)
    }

    fn commits_as(&mut self, event: &Event, answer: &Answer, commit: Commit) -> Vec<String> {
        let happened = Happened {
            source: "/prompt-rollback/n",
            policy: &self.policy,
            event,
            answer,
            before: &self.snapshot,
            commit: &commit,
            now: self.now,
            trace: None,
        };
        let made = of(&happened);
        check(&happened, &made);
        self.last = made.iter().map(|body| serde_json::from_str(body).expect("JSON")).collect();
        self.all.extend(self.last.iter().cloned());
        match &commit.routing {
            Routing::Keep => {}
            Routing::Drop => self.snapshot.routing.clear(),
            Routing::Set(group_labels) => {
                self.snapshot.routing =
                    group_labels.iter().map(|(of, share)| (of.to_string(), share.to_string())).collect();
            }
        }
        if let Some(active) = commit.active {
            self.snapshot.active = Active::Version(active);
        }
        self.snapshot.state = commit.state;
        self.kinds()
    }

    fn kinds(&self) -> Vec<String> {
        self.last
            .iter()
            .map(|event| event["type"].as_str().unwrap_or_default()[Kind::PREFIX.len()..].to_owned())
            .collect()
    }

    fn activates(&mut self, name: &str, share: TrafficShare) -> Vec<String> {
        let operator = Operator::recorded("mia");
        let of = Activation { version: version(name), share, operator, force: true, reason: Some("tried".to_owned()) };
        self.happens(&Event::Activate(of))
    }

    fn fires(&mut self, name: &str, severity: Severity, action: Action, status: AlertStatus) -> Vec<String> {
        let trigger = Trigger {
            severity,
            action,
            decider: "on-call".to_owned(),
            time_limit: Duration::from_secs(120),
            remarks: Vec::new(),
        };
        let starts_at = Some(self.now.plus(Duration::from_millis(500))); // half a second before it arrives
        self.happens(&Event::Alerts(vec![Alert {
            fingerprint: format!("{name} {severity}"),
            alertname: "PromptErrorRate".to_owned(),
            prompt: self.snapshot.prompt.clone(),
            version: version(name),
            status,
            trigger,
            starts_at,
            ends_at: None,
            summary: format!("{name} fails"),
            description: String::new(),
            value: String::new(),
            verify: String::new(),
            runbook_url: String::new(),
            measure: Default::default(),
            dashboard_url: String::new(),
            generator_url: String::new(),
            alertmanager_url: String::new(),
            group_labels: Default::default(),
        }]))
    }

    fn rolls_back(&mut self, gradual: Option<Plan>) -> Vec<String> {
        let operator = Operator::recorded("mia");
        let reason = "tone".to_owned();
        self.happens(&Event::Rollback(Rollback { target: None, from: None, reason, operator, force: true, gradual }))
    }

    fn decides(&mut self, choice: Choice) -> Vec<String> {
        let Some(incident) = self.snapshot.state.incidents.last().map(|incident| incident.id.clone()) else {
            return Vec::new();
        };
        let operator = Operator::recorded("omar");
        self.happens(&Event::Decide(Decide {
            incident,
            choice,
            operator,
            target: None,
            force: true,
            question_number: None,
        }))
    }

    fn outside(&mut self, active: Active) -> Vec<String> {
        self.snapshot.active = active;
        self.happens(&Event::CheckDrift)
    }

    fn waits(&mut self, time: Duration) -> Vec<String> {
        self.now = self.now.plus(time);
        let Some(incident) = self.snapshot.state.incidents.last().map(|incident| incident.id.clone()) else {
            return Vec::new();
        };
        self.happens(&Event::Timer { incident, early: false })
    }

    fn data(&self, kind: &str) -> &Value {
        let found = self.last.iter().rfind(|event| event["type"] == format!("{}{kind}", Kind::PREFIX));
        &found.unwrap_or_else(|| panic!("{kind} in {:?}", self.last))["data"]
    }
}

/// Properties of the events of each commit: each entry of the log is one event, in the order of the log, and each note
/// that begins, escalates or ends an incident is one; ids begin with the commit's id, and differ.
fn check(happened: &Happened<'_>, made: &[String]) {
    let headings: Vec<Heading> = made.iter().map(|body| Heading::of(body).expect("a heading")).collect();
    for (index, heading) in headings.iter().enumerate() {
        assert_eq!(heading.id, format!("{}-{}", happened.before.commit.0, index + 1));
    }
    let events: Vec<Value> = made.iter().map(|body| serde_json::from_str(body).expect("JSON")).collect();
    let logged: Vec<_> = events.iter().filter(|event| event["data"]["event"].is_string()).collect();
    let log = &happened.commit.log;
    assert_eq!(logged.len(), log.len(), "{log:?}");
    for (event, entry) in logged.iter().zip(log) {
        let data = &event["data"];
        assert_eq!(
            (&data["event"], &data["operator"]),
            (&json!(entry.event.as_str()), &json!(entry.operator.as_str()))
        );
        assert_eq!((data["from"].as_str(), data["to"].as_str()), (entry.from.as_deref(), entry.to.as_deref()));
    }
    let count = |kind: Kind| headings.iter().filter(|heading| heading.kind() == Some(kind)).count();
    for (note, kind) in [
        (NoteKind::Opened, Kind::IncidentOpened),
        (NoteKind::Reopened, Kind::IncidentReopened),
        (NoteKind::Held, Kind::RollbackHeld),
        (NoteKind::Escalated, Kind::IncidentEscalated),
        (NoteKind::Closed, Kind::IncidentClosed),
    ] {
        let notes = happened.commit.incidents.iter().flat_map(|write| news(happened, &write.incident));
        assert_eq!(count(kind), notes.filter(|new| new.kind == note).count(), "{kind:?}: {made:?}");
    }
}

#[test]
fn a_gradual_rollback_begins_goes_on_and_is_done() {
    let mut world = World::new();
    let plan = Plan::gradual(&[50, 25, 0], vec![Duration::from_secs(60)]).expect("a plan");
    assert_eq!(world.rolls_back(Some(plan)), ["incident.opened", "decision.made", "rollback.started"]);
    assert_eq!(world.data("decision.made")["decision"], "rollback");
    let started = world.data("rollback.started");
    assert_eq!((&started["from"], &started["to"]), (&json!("v2"), &json!("v1")));
    assert_eq!(started["routing"], json!({"v1": 50, "v2": 50}));
    assert_eq!(world.waits(Duration::from_secs(60)), ["rollback.progressed"]);
    assert_eq!(world.data("rollback.progressed")["routing"], json!({"v1": 75, "v2": 25}));
    assert_eq!(world.waits(Duration::from_secs(60)), ["rollback.done"]);
    let done = world.data("rollback.done");
    assert_eq!((&done["mode"], &done["active"], &done["routing"]), (&json!("gradual"), &json!("v1"), &Value::Null));
}

#[test]
fn what_others_set_and_people_mark_and_share_is_told() {
    let mut world = World::new();
    assert_eq!(world.activates("v3", TrafficShare::Percent(10)), ["canary.progressed"]);
    assert_eq!(world.data("canary.progressed")["routing"], json!({"v2": 90, "v3": 10}));
    assert_eq!(world.outside(Active::Version(version("v4"))), ["version.activated"]);
    let activated = world.data("version.activated");
    assert_eq!((&activated["event"], &activated["operator"]), (&json!("external"), &json!("external")));
    assert_eq!(activated["active"], "v4");
    assert_eq!(world.outside(Active::Absent), ["version.removed"]);
    assert_eq!(world.data("version.removed")["active"], Value::Null);
    assert_eq!(world.outside(Active::Foreign("no version".to_owned())), ["version.removed"]);
    // the next request notices what was set before it, in one commit
    for found in [Active::Absent, Active::Foreign("not a version".to_owned())] {
        world.snapshot.active = found;
        assert_eq!(world.activates("v3", TrafficShare::All), ["version.removed", "version.activated"]);
        assert_eq!(world.data("version.activated")["to"], "v3");
    }
    let (kind, operator) = (MarkKind::Bad, Operator::recorded("mia"));
    let mark = Marking { version: version("v3"), kind, reason: "tone".to_owned(), operator, incident: None };
    assert_eq!(world.happens(&Event::Mark(mark)), ["version.marked"]);
    assert_eq!(world.data("version.marked")["event"], "mark_bad");
}

#[test]
fn a_recovery_is_told_before_the_end_and_no_other_end_is_one() {
    let mut world = World::new();
    world.fires("v2", Severity::Critical, Action::Rollback, AlertStatus::Firing);
    assert_eq!(world.kinds(), ["incident.opened", "rollback.done"]);
    for (phase, expected) in
        [(Phase::Recovered, &["recovery.verified", "incident.closed"][..]), (Phase::Unverified, &["incident.closed"])]
    {
        let mut state = world.snapshot.state.clone();
        let incident = state.incidents.last_mut().expect("one");
        let was = Some(incident.phase.kind());
        incident.close(phase.clone(), world.now, "over");
        let write = IncidentWrite { incident: incident.clone(), was, coordinate: false };
        let commit = Commit { incidents: vec![write], state, ..empty(&world) };
        let mut after = World { snapshot: world.snapshot.clone(), all: Vec::new(), last: Vec::new(), ..World::new() };
        after.snapshot.commit = CommitId("C".to_owned());
        assert_eq!(after.commits_as(&Event::CheckDrift, &Answer::Noted, commit), expected);
        assert_eq!(after.data("incident.closed")["incident"]["phase"], phase.as_str());
    }
}

/// A commit that writes nothing.
fn empty(world: &World) -> Commit {
    Commit {
        state: world.snapshot.state.clone(),
        active: None,
        routing: Routing::Keep,
        incidents: Vec::new(),
        log: Vec::new(),
        changes: Vec::new(),
        wakes: Vec::new(),
        automatic: None,
        content: Vec::new(),
        served: Vec::new(),
        canary: Default::default(),
        chores: None,
        soak: None,
    }
}

#[test]
fn a_refused_decision_creates_no_decision_made_event() {
    let mut world = World::new();
    world.fires("v2", Severity::High, Action::Page, AlertStatus::Firing);
    assert_eq!(world.kinds(), ["incident.opened", "decision.requested"]);
    // the refusal is committed together with an external change
    world.snapshot.active = Active::Version(version("v9"));
    let kinds = world.decides(Choice::Approve);
    assert!(!kinds.is_empty() && !kinds.contains(&"decision.made".to_owned()), "{kinds:?}");
}

#[test]
fn each_log_entry_and_note_is_one_event_with_its_own_id() {
    for seed in 0..200_u64 {
        let mut random = seed;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut world = World::new();
        world.policy.dry_run = below(4) == 0;
        for _ in 0..40 {
            let name = ["v1", "v2", "v3"][below(3) as usize];
            let status = [AlertStatus::Firing, AlertStatus::Resolved][below(2) as usize];
            match below(9) {
                0 => drop(world.fires(name, Severity::Critical, Action::Rollback, status)),
                1 => drop(world.fires(name, Severity::High, Action::Page, status)),
                2 => drop(world.activates(name, TrafficShare::All)),
                3 => drop(world.activates(name, TrafficShare::Percent(below(100) as u8))),
                4 => drop(world.rolls_back(None)),
                5 => {
                    let plan = Plan::gradual(&[50, 0], vec![Duration::from_secs(60)]).expect("a plan");
                    world.rolls_back(Some(plan));
                }
                6 => {
                    let choices =
                        [Choice::Approve, Choice::ApproveGradual, Choice::Investigate, Choice::Dismiss, Choice::Undo];
                    world.decides(choices[below(5) as usize]);
                }
                7 => drop(world.waits(Duration::from_secs(30 + below(600)))),
                _ => {
                    let active = [Active::Absent, Active::Version(version(name)), Active::Foreign("?".to_owned())];
                    world.outside(active[below(3) as usize].clone());
                }
            }
        }
        let ids: BTreeSet<&str> = world.all.iter().filter_map(|event| event["id"].as_str()).collect();
        assert_eq!(ids.len(), world.all.len(), "seed {seed}");
        assert!(ids.len() > 4, "seed {seed}");
    }
}
