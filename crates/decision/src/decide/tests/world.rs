//! A model of the stored state of one prompt: applies each commit, runs the wake-ups, and checks the invariants.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::super::super::policy::{CanaryPolicies, CanaryPolicy};
use super::ledger::Ledger;
use super::*;

mod failover;

#[derive(Clone)]
pub(super) struct World {
    pub policy: Policy,
    pub now: Timestamp,
    pub active: Active,
    pub routing: Vec<(String, String)>,
    pub state: PromptState,
    pub paused: Option<String>,
    pub recent_auto: u32,
    pub outage_hold: Option<String>,
    /// Every incident ever written, as the store keeps them.
    pub incidents: BTreeMap<IncidentId, Incident>,
    pub log: Vec<LogEntry>,
    pub wakes: BTreeMap<IncidentId, Timestamp>,
    pub contents: BTreeMap<VersionName, String>,
    /// The files in the archive; `None`: it fails.
    pub files: Option<BTreeMap<VersionName, String>>,
    /// The archive's files while it fails.
    pub unplugged: BTreeMap<VersionName, String>,
    /// Prometheus' answer to every question; `None`: the worker that asks is dead.
    pub says: Option<Finding>,
    /// How long a dead worker keeps a task.
    pub lease: Duration,
    pub blame: Option<String>,
    pub precheck: Option<String>,
    pub traffic: Option<Traffic>,
    /// Prometheus' measurement of a version that soaks.
    pub measures: Result<SoakMeasurement, String>,
    /// The measurements at the end of a canary's stage.
    pub looks: Looks,
    /// The last heartbeat of the alert path.
    pub heartbeat: Option<Heartbeat>,
    /// How far the clock of Prometheus is ahead of Redis', in milliseconds.
    pub prometheus_ahead: i64,
    /// Whether a receiver runs while Redis' clock jumps: it then waits as if there had been no jump.
    pub sees_jumps: bool,
    jumps: Vec<(Timestamp, Duration)>,
    /// The last wake-up of an incident.
    woken: Option<(IncidentId, Timestamp)>,
    canary_wake: Option<Timestamp>,
    soak_wake: Option<Timestamp>,
    pub ledger: Ledger,
    /// The latest answers of workers, also those that never arrived: one may come late, or twice.
    pub answers: VecDeque<Event>,
    /// How many commits the store holds: a failover loses the latest.
    pub revision: usize,
    past: VecDeque<Rc<failover::Before>>,
    ids: u64,
    commits: u64,
}

/// The measurements at the end of a canary's stage.
#[derive(Debug, Clone)]
pub struct Looks {
    /// Whether the worker asks at all.
    pub asks: bool,
    /// Heartbeats arrive.
    pub alive: bool,
    pub compared: Option<Result<Compared, String>>,
}

impl World {
    /// An unknown prompt.
    pub fn new() -> Self {
        Self {
            // by time alone, unless a test says otherwise
            policy: Policy {
                canary: CanaryPolicies {
                    usual: CanaryPolicy { analysis: false, ..CanaryPolicy::default() },
                    ..CanaryPolicies::default()
                },
                ..Policy::default()
            },
            now: Timestamp(1_800_000_000_000),
            active: Active::Absent,
            routing: Vec::new(),
            state: PromptState::default(),
            paused: None,
            recent_auto: 0,
            outage_hold: None,
            incidents: BTreeMap::new(),
            log: Vec::new(),
            wakes: BTreeMap::new(),
            contents: BTreeMap::new(),
            files: Some(BTreeMap::new()),
            unplugged: BTreeMap::new(),
            says: Some(Finding::new(Verdict::NoData, "no data yet")),
            lease: seconds(1),
            blame: None,
            precheck: None,
            traffic: Some(Traffic { target: 2_000, following: 3, ..Traffic::default() }),
            measures: Ok(SoakMeasurement { requests: 1_000, failed: 0, exceeded: None }),
            looks: Looks { asks: true, alive: true, compared: None },
            heartbeat: None,
            prometheus_ahead: 0,
            sees_jumps: false,
            jumps: Vec::new(),
            woken: None,
            canary_wake: None,
            soak_wake: None,
            ledger: Ledger::default(),
            answers: VecDeque::new(),
            revision: 0,
            past: VecDeque::new(),
            ids: 0,
            commits: 0,
        }
    }

    /// v1 has soaked; v2 replaced it ten minutes ago.
    pub fn with_a_fresh_release() -> Self {
        let mut world = Self::new();
        world.release("v1");
        world.pass(hours(2));
        world.release("v2");
        world.pass(minutes(10));
        world
    }

    /// v2 is rolled back to v1, which fails too; v0 is known-good as well.
    pub fn escalate(&mut self) {
        self.policy.verify = true;
        self.mark_known_good("v0");
        self.says = Some(Finding::new(Verdict::Unhealthy, "error ratio 7.00 %"));
        self.alert(critical("v2"));
        self.pass(minutes(6));
        assert_eq!((self.phase(), self.served()), (PhaseKind::Escalated, "v1"));
    }

    pub fn snapshot(&self, event: &Event) -> Snapshot {
        let many = match event {
            Event::Alerts(alerts) => alerts.len(),
            Event::Rollback(_) | Event::Activate(_) | Event::Promotion(_) => 1,
            _ => 0,
        } + 2;
        let fresh = |n: usize| IncidentId(format!("incident-{:06}", self.ids as usize + n));
        Snapshot {
            prompt: PromptName::parse("customer-support").expect("a prompt name"),
            active: self.active.clone(),
            routing: self.routing.clone(),
            state: self.state.clone(),
            paused: self.paused.clone(),
            recent_auto: self.recent_auto,
            outage_hold: self.outage_hold.clone(),
            incident: match event {
                Event::Decide(click) => self.incidents.get(&click.incident).cloned(),
                Event::Mark(Marking { incident: Some(id), .. }) => self.incidents.get(id).cloned(),
                _ => None,
            },
            content: match event {
                Event::Register(request) => self.contents.get(&request.version).cloned(),
                Event::ArchiveReport(ArchiveReport::Archived { version, .. } | ArchiveReport::Gone { version }) => {
                    self.contents.get(version).cloned()
                }
                _ => None,
            },
            commit: CommitId(format!("commit-{:06}", self.commits)),
            fresh_ids: (0..many).map(fresh).collect(),
        }
    }

    /// How many answers of workers are remembered.
    pub const ANSWERS: usize = 8;

    fn remember_answer(&mut self, event: &Event) {
        let answers =
            matches!(event, Event::Confirmed(_) | Event::Rechecked { .. } | Event::Checked(_) | Event::Stepped(_));
        if answers || matches!(event, Event::Promotion(_) | Event::Soak(_)) {
            self.answers.truncate(Self::ANSWERS - 1);
            self.answers.push_front(event.clone());
        }
    }

    /// Decides about `event` and commits.
    pub fn happens(&mut self, event: &Event) -> Decision {
        let snapshot = self.snapshot(event);
        self.ids += snapshot.fresh_ids.len() as u64;
        self.commits += 1;
        let decision = decide(&self.policy, &snapshot, event, self.now);
        invariants::of_one_decision(&self.policy, &snapshot, event, &decision, self.now);
        if let Some(commit) = &decision.commit {
            self.remember(commit);
            self.apply(commit);
            self.ledger.take(&self.policy, &snapshot, event, commit);
            self.whoever_is_paged_may_decide();
            self.what_is_offered_is_what_an_approval_takes();
        }
        decision
    }

    /// Buttons name a version; an approval through the API need not, and leads to the same one.
    fn what_is_offered_is_what_an_approval_takes(&self) {
        let asks = |incident: &&Incident| incident.awaits_decision() || incident.gradual().is_some();
        for incident in self.state.open_incidents().filter(asks) {
            let click = Event::Decide(Decide {
                incident: incident.id.clone(),
                choice: Choice::Approve,
                operator: Operator::recorded("dana"),
                target: None,
                force: true,
                question_number: None,
            });
            let taken = match decide(&self.policy, &self.snapshot(&click), &click, self.now).answer {
                Answer::Changed { to, .. } | Answer::Confirming { to, .. } => Some(to),
                Answer::Refused(refusal) if refusal.code == RefusalCode::NoKnownGood => None,
                Answer::Refused(_) => continue, // another change of the traffic came first, or the content is archived
                other => panic!("an approval is answered by {other:?}"),
            };
            assert_eq!(incident.choices.first(), taken.as_ref(), "the first choice: {incident:?}");
            assert_eq!(offered(incident), taken.as_ref(), "the first button: {incident:?}");
        }
    }

    fn whoever_is_paged_may_decide(&self) {
        for paging in self.state.open_incidents().filter(|incident| incident.pages()) {
            let refused = |choice| {
                let click = Event::Decide(Decide {
                    incident: paging.id.clone(),
                    choice,
                    operator: Operator::recorded("dana"),
                    target: None,
                    force: true,
                    question_number: None,
                });
                let decision = decide(&self.policy, &self.snapshot(&click), &click, self.now);
                matches!(decision.answer, Answer::Refused(_))
            };
            // a paused gradual rollback ends with one of its versions
            let choices = [Choice::Dismiss, Choice::Approve, Choice::Undo];
            assert!(!choices.into_iter().all(refused), "no person can end this page: {paging:?}");
        }
    }

    fn apply(&mut self, commit: &Commit) {
        self.state = commit.state.clone();
        if let Some(active) = &commit.active {
            self.active = Active::Version(active.clone());
        }
        match &commit.routing {
            Routing::Keep => {}
            Routing::Drop => self.routing.clear(),
            Routing::Set(group_labels) => {
                self.routing = group_labels.iter().map(|(v, p)| (v.to_string(), p.to_string())).collect()
            }
        }
        if let Some(at) = commit.canary.wake {
            self.canary_wake = Some(self.canary_wake.map_or(at, |before| before.min(at)));
        }
        if let Some(at) = commit.soak {
            self.soak_wake = Some(self.soak_wake.map_or(at, |before| before.min(at)));
        }
        for write in &commit.incidents {
            self.incidents.insert(write.incident.id.clone(), write.incident.clone());
        }
        for wake in &commit.wakes {
            // like ZADD LT: a wake-up only moves earlier
            let at = self.wakes.entry(wake.incident.clone()).or_insert(wake.at);
            *at = wake.at.min(*at);
        }
        for (version, content) in &commit.content {
            match content {
                Some(content) => self.contents.insert(version.clone(), content.clone()),
                None => self.contents.remove(version),
            };
        }
        self.log.extend(commit.log.iter().cloned());
    }

    /// Lets time pass, and runs every due wake-up at its time.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        self.ledger.elapsed += time;
        if self.looks.alive {
            let next = Heartbeat::after(self.heartbeat.clone(), self.now, self.prometheus_time());
            self.heartbeat = next.or(self.heartbeat.take());
        }
        while let Some(at) = self.first_wake().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.ledger.ahead = end.since(self.now);
            if self.canary_wake == Some(at) {
                self.run_canary();
            } else if self.soak_wake == Some(at) {
                self.run_soaks();
            } else {
                self.run_incident(at);
            }
        }
        self.ledger.ahead = Duration::ZERO;
        self.now = end;
        self.beat();
    }

    /// Jumps to a later time: no receiver ran in between.
    pub fn jump_to(&mut self, at: Timestamp) {
        self.ledger.elapsed += at.since(self.now);
        self.now = at;
    }

    /// Lets Redis' clock jump. Workers that see it go back at once run everything that waits for minutes.
    pub fn step_clock(&mut self, seconds: i64) {
        let by = Duration::from_secs(seconds.unsigned_abs());
        self.prometheus_ahead -= seconds * 1_000;
        if seconds >= 0 {
            self.ledger.elapsed += by; // indistinguishable from time
            self.now = self.now.plus(by);
            self.jumps.push((self.now, by));
            return;
        }
        self.now = self.now.minus(by);
        self.replicate(); // no failover loses what workers then make due
        // a step back first cancels an earlier jump ahead
        let mut left = by;
        for (_, jump) in self.jumps.iter_mut().rev() {
            let taken = left.min(*jump);
            (left, *jump) = (left - taken, *jump - taken);
        }
        let now = self.now;
        self.wakes.values_mut().chain(&mut self.soak_wake).for_each(|at| *at = now.min(*at));
    }

    fn first_wake(&self) -> Option<Timestamp> {
        self.wakes.values().copied().chain(self.canary_wake).chain(self.soak_wake).min()
    }

    /// When the stage of the canary really ends, if a jump that the receiver saw is all that ended it.
    fn stage_still_lasts(&self) -> Option<Timestamp> {
        let split = self.state.running_canary().map(|canary| &canary.split).filter(|_| self.sees_jumps)?;
        let jumps = self.jumps.iter().filter(|(at, _)| split.since < *at).map(|(_, by)| *by);
        let over = split.wake()?.plus(jumps.sum());
        (over > self.now).then_some(over)
    }

    fn run_canary(&mut self) {
        if let Some(over) = self.stage_still_lasts() {
            self.canary_wake = Some(over);
            return;
        }
        self.canary_wake = Some(self.now.plus(self.lease));
        self.beat();
        let since = self.state.running_canary().map(|canary| canary.split.since);
        if let Some(since) = since.filter(|_| self.looks.asks) {
            let look = Some(Look { heartbeat: self.heartbeat.clone(), compared: self.looks.compared.clone() });
            let answer = Event::Promotion(Promotion { since, look });
            self.remember_answer(&answer);
            self.happens(&answer);
        }
        // a worker that never answers loses its lease
        let next =
            self.state.next_wake().map(|at| if self.looks.asks { at } else { at.max(self.now.plus(minutes(1))) });
        assert!(next.is_none_or(|next| next > self.now), "the canary wakes again and again");
        self.canary_wake = next;
    }

    /// If heartbeats arrive, they do so every minute while time passes.
    fn beat(&mut self) {
        let now = self.prometheus_time();
        if let Some(last) = self.heartbeat.as_mut().filter(|_| self.looks.alive) {
            (last.heard_at, last.evaluated_at) = (self.now, now);
        }
    }

    pub fn prometheus_time(&self) -> Timestamp {
        Timestamp(self.now.0 + self.prometheus_ahead)
    }

    pub fn steer(&mut self, steer: Steer) -> Answer {
        let steering =
            Steering { steer, about: None, operator: Operator::recorded("dana"), force: false, reason: None };
        self.happens(&Event::Steer(steering)).answer
    }

    fn run_soaks(&mut self) {
        self.soak_wake = Some(self.now.plus(self.lease));
        let (policy, now) = (self.policy.clone(), self.now);
        let due = self.state.versions.iter().filter_map(|record| {
            let soak = record.soak.as_ref().filter(|s| s.watch.as_ref().is_some_and(|watch| watch.next <= now))?;
            let asks = policy.verify && soak.is_over(&policy, now);
            let measured = asks.then(|| self.measures.clone());
            Some(Event::Soak(SoakLook { version: record.version.clone(), from: soak.from, measured }))
        });
        let due: Vec<_> = due.collect();
        self.look();
        for event in &due {
            self.remember_answer(event);
            self.happens(event);
        }
        let next = self.state.soak_wake(&self.policy);
        assert!(next.is_none_or(|next| next > self.now), "the soaks wake again and again");
        self.soak_wake = next;
    }

    fn run_incident(&mut self, at: Timestamp) {
        let Some(id) = self.wakes.iter().find(|(_, wake)| **wake == at).map(|(id, _)| id.clone()) else { return };
        // if a failover loses the end of this task, another worker takes it when the lease is over
        let lease = self.now.plus(self.lease);
        self.wakes.insert(id.clone(), lease);
        let waited = self.waits_for_an_answer(&id);
        self.ask_prometheus(&id);
        self.happens(&Event::Timer { incident: id.clone(), early: false });
        let asks_now = !waited && self.waits_for_an_answer(&id);
        let mut next = self.state.incidents.iter().find(|i| i.id == id).and_then(|i| i.next_wake(&self.policy));
        if self.says.is_none() {
            next = next.map(|next| next.max(self.now.plus(self.lease))); // another worker takes it later
        }
        // a clock that went back is noticed by the first wake-up, and work that is due by then comes with the second
        let before = self.woken.replace((id.clone(), self.now));
        let again = before.is_some_and(|before| before == (id.clone(), self.now));
        let rests = asks_now || !again || next.is_none_or(|next| next > self.now);
        assert!(rests, "{id} wakes again and again at {:?}", self.now);
        // without more to do, it stays due only if its last commit made it due
        if let Some(next) = next.or(self.wakes.remove(&id).filter(|at| *at != lease)) {
            self.wakes.insert(id, next);
        }
    }

    fn waits_for_an_answer(&self, id: &IncidentId) -> bool {
        self.state.incidents.iter().any(|i| i.id == *id && i.pending().is_some())
    }

    /// Does everything that the worker does about due content.
    pub fn tidy(&mut self) {
        let due = rules::chores(&self.state, &self.policy, self.now);
        for version in due.restore {
            self.bring_back(&version);
        }
        for version in due.forget {
            self.happens(&Event::ArchiveReport(ArchiveReport::Expired { version: version.clone() }));
            let archived = self.is_archived(version.as_str());
            if let Some(files) = self.files.as_mut().filter(|_| !archived) {
                files.remove(&version);
            }
        }
        for version in due.archive {
            let Some(text) = self.contents.get(&version).cloned() else {
                self.happens(&Event::ArchiveReport(ArchiveReport::Gone { version }));
                continue;
            };
            if let Some(files) = &mut self.files {
                files.insert(version.clone(), text.clone());
                self.happens(&Event::ArchiveReport(ArchiveReport::Archived { version, text }));
            }
        }
    }

    fn bring_back(&mut self, version: &VersionName) {
        let missing = |why: &str, lost| ArchiveReport::Missing { version: version.clone(), why: why.to_owned(), lost };
        let kept = match &self.files {
            None => missing("no such directory", false),
            Some(files) => match files.get(version) {
                None => missing("its file is missing", true),
                Some(text) => ArchiveReport::Found { version: version.clone(), text: text.clone() },
            },
        };
        self.happens(&Event::ArchiveReport(kept));
    }

    /// What the worker does before a wake-up.
    fn ask_prometheus(&mut self, id: &IncidentId) {
        let waits = self.state.incidents.iter().find(|i| i.id == *id && i.phase.kind() == PhaseKind::Confirming);
        let waits_for = waits.and_then(|incident| incident.pending()).map(|pending| pending.to.clone());
        if let Some(to) = waits_for.filter(|to| self.says.is_some() && self.is_archived(to.as_str())) {
            self.bring_back(&to);
        }
        let Some(answer) = self.answer_about(id) else { return };
        self.remember_answer(&answer);
        if self.says.is_some() {
            self.happens(&answer);
        }
    }

    /// Prometheus' answer to what is due for the incident.
    fn answer_about(&self, id: &IncidentId) -> Option<Event> {
        let finding = self.says.clone().unwrap_or_else(|| Finding::new(Verdict::Unknown, "no answer"));
        let incident = self.state.incidents.iter().find(|i| i.id == *id)?;
        if self.policy.verify && incident.recheck().is_some_and(|recheck| recheck.next <= self.now) {
            let since = incident.recheck().map(|recheck| recheck.since).unwrap_or_default();
            return Some(Event::Rechecked { incident: id.clone(), since, finding });
        }
        match (&incident.pending(), &incident.switch, &incident.verification()) {
            (Some(pending), ..) if incident.phase.kind() == PhaseKind::Confirming => {
                Some(Event::Confirmed(Confirmed {
                    incident: id.clone(),
                    at: pending.at,
                    finding,
                    blame: self.blame.clone(),
                    precheck: self.precheck.clone(),
                }))
            }
            _ if incident.phase.kind() == PhaseKind::RollingBack => match &incident.gradual() {
                Some(split) if self.policy.verify && split.wake().is_some_and(|at| at <= self.now) => {
                    Some(Event::Stepped(Stepped { incident: id.clone(), since: split.since, finding }))
                }
                _ => None,
            },
            (_, Some(switch), Some(verification)) if incident.is_checked() && verification.next <= self.now => {
                let (incident, switch, number) = (id.clone(), switch.at, verification.checks);
                let (traffic, blame) = (self.traffic.clone(), self.blame.clone());
                Some(Event::Checked(Checked { incident, switched_at: switch, number, finding, traffic, blame }))
            }
            _ => None,
        }
    }

    /// Delivers `alerts` together; returns the outcome and reason of each.
    pub fn deliver(&mut self, alerts: &[Alert]) -> Vec<String> {
        match self.happens(&Event::Alerts(alerts.to_vec())).answer {
            Answer::Alerts(outcomes) => {
                outcomes.iter().map(|o| format!("{} {}", o.outcome.as_str(), o.reason)).collect()
            }
            other => panic!("alerts are answered one by one, not by {other:?}"),
        }
    }

    /// Delivers one alert.
    pub fn alert(&mut self, alert: Alert) -> String {
        self.deliver(&[alert]).remove(0)
    }

    /// Whether delivering `alerts` would write anything.
    pub fn would_write(&self, alerts: &[Alert]) -> bool {
        let event = Event::Alerts(alerts.to_vec());
        decide(&self.policy, &self.snapshot(&event), &event, self.now).commit.is_some()
    }

    /// Registers `version` and activates it.
    pub fn release(&mut self, version: &str) {
        self.register(version);
        let answer = self.activate(version, false);
        assert!(matches!(answer, Answer::Changed { .. }), "{answer:?}");
    }

    pub fn register(&mut self, version: &str) -> Answer {
        self.happens(&Event::Register(registration(version))).answer
    }

    pub fn mark_known_good(&mut self, version: &str) -> Answer {
        self.happens(&Event::Register(Register { known_good: true, ..registration(version) })).answer
    }

    /// dana marks `version`.
    pub fn mark(&mut self, version: &str, kind: MarkKind) -> Answer {
        self.happens(&Event::Mark(marking(version, kind))).answer
    }

    pub fn activate(&mut self, version: &str, force: bool) -> Answer {
        self.share(version, TrafficShare::All, force)
    }

    pub fn share(&mut self, version: &str, share: TrafficShare, force: bool) -> Answer {
        self.activation(Activation {
            version: v(version),
            share,
            operator: Operator::recorded("dana"),
            force,
            reason: None,
        })
    }

    pub fn activation(&mut self, activation: Activation) -> Answer {
        self.happens(&Event::Activate(activation)).answer
    }

    pub fn roll_back(&mut self, request: Rollback) -> Answer {
        self.happens(&Event::Rollback(request)).answer
    }

    /// dana's answer to the latest incident.
    pub fn click(&self, choice: Choice) -> Event {
        let incident = self.latest().id.clone();
        Event::Decide(Decide {
            incident,
            choice,
            operator: Operator::recorded("dana"),
            target: None,
            force: false,
            question_number: None,
        })
    }

    pub fn choose(&mut self, choice: Choice) -> Answer {
        let click = self.click(choice);
        self.happens(&click).answer
    }

    /// Someone SETs the key directly.
    pub fn set_active(&mut self, version: &str) {
        self.active = Active::Version(v(version));
    }

    /// Someone SETs the key to these bytes.
    pub fn set_value(&mut self, value: &[u8]) {
        self.active = Active::read(Some(value));
    }

    pub fn look(&mut self) -> Decision {
        self.happens(&Event::CheckDrift)
    }

    pub fn served(&self) -> &str {
        self.active.version().expect("something is served").as_str()
    }

    /// The incident opened last.
    pub fn latest(&self) -> &Incident {
        self.incidents.values().next_back().expect("an incident")
    }

    pub fn phase(&self) -> PhaseKind {
        self.latest().phase.kind()
    }

    pub fn is_known_good(&self, version: &str) -> bool {
        let record = self.state.version(&v(version)).expect("a known version");
        record.known_good(&self.policy, self.now).is_some()
    }

    pub fn is_archived(&self, version: &str) -> bool {
        self.state.version(&v(version)).is_some_and(|record| record.archived.is_some())
    }

    /// Registers `version` with content, and activates it.
    pub fn release_text(&mut self, version: &str) {
        self.register_text(version);
        assert!(matches!(self.activate(version, false), Answer::Changed { .. }));
    }

    pub fn register_text(&mut self, version: &str) -> Answer {
        let content = Some(format!("text of {version}"));
        self.happens(&Event::Register(Register { content, ..registration(version) })).answer
    }

    pub fn is_quarantined(&self, version: &str) -> bool {
        self.state.version(&v(version)).expect("a known version").quarantine.is_some()
    }

    /// Log entries that changed the active version.
    pub fn changes(&self) -> Vec<&LogEntry> {
        self.log.iter().filter(|entry| entry.event.is_change()).collect()
    }

    /// Log entries of rollbacks, as `from>to`.
    pub fn rollbacks(&self) -> Vec<String> {
        let rollbacks = self.log.iter().filter(|e| e.event == LogEvent::Rollback);
        rollbacks.map(|e| format!("{}>{}", e.from.as_deref().unwrap_or("-"), e.to.as_deref().unwrap_or("-"))).collect()
    }

    pub fn notes(&self, kind: NoteKind) -> usize {
        self.latest().notes.iter().filter(|n| n.kind == kind).count()
    }
}

/// The version of the first button.
fn offered(incident: &Incident) -> Option<&VersionName> {
    if let Some(split) = incident.gradual() {
        return Some(&split.arriving).filter(|to| !incident.is_marked_bad(to)).or(incident.choices.first());
    }
    let mut ways = incident.target.iter().chain(&incident.choices);
    ways.find(|to| *to != incident.subject() && **to != incident.version)
}

pub(super) fn registration(version: &str) -> Register {
    Register { version: v(version), content: None, contact: None, staged_at: None, known_good: false }
}

pub(super) fn marking(version: &str, kind: MarkKind) -> Marking {
    let (reason, operator) = ("changed output schema".to_owned(), Operator::recorded("dana"));
    Marking { version: v(version), kind, reason, operator, incident: None }
}

/// dana requests a rollback to the previous version.
pub(super) fn rollback() -> Rollback {
    Rollback {
        target: None,
        from: None,
        reason: "bad answers".to_owned(),
        operator: Operator::recorded("dana"),
        force: false,
        gradual: None,
    }
}

pub(super) fn refusal(answer: &Answer) -> RefusalCode {
    match answer {
        Answer::Refused(refusal) => refusal.code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

pub(super) fn firing(name: &str, version: &str, severity: Severity, action: Action) -> Alert {
    let labels =
        TriggerLabels { severity: Some(severity.as_str()), action: Some(action.as_str()), ..TriggerLabels::default() };
    Alert {
        fingerprint: format!("{name}@{version}"),
        alertname: name.to_owned(),
        prompt: PromptName::parse("customer-support").expect("a prompt name"),
        version: v(version),
        status: AlertStatus::Firing,
        trigger: Trigger::read(labels, &Policy::default()),
        starts_at: None,
        ends_at: None,
        summary: format!("{name} on {version}"),
        description: String::new(),
        value: String::new(),
        verify: String::new(),
        runbook_url: String::new(),
        measure: Default::default(),
        dashboard_url: String::new(),
        generator_url: String::new(),
        alertmanager_url: String::new(),
        group_labels: Default::default(),
    }
}

pub(super) fn critical(version: &str) -> Alert {
    firing("ErrorRateCritical", version, Severity::Critical, Action::Rollback)
}

pub(super) fn high(version: &str) -> Alert {
    firing("ErrorRateHigh", version, Severity::High, Action::Page)
}

pub(super) fn recommend(version: &str) -> Alert {
    firing("QualityDropHigh", version, Severity::High, Action::Recommend)
}

pub(super) fn medium(version: &str) -> Alert {
    firing("QualityDrop", version, Severity::Medium, Action::Observe)
}

impl Alert {
    pub(super) fn named(self, name: &str) -> Self {
        Self { fingerprint: format!("{name}@{}", self.version), alertname: name.to_owned(), ..self }
    }

    pub(super) fn resolved(self) -> Self {
        Self { status: AlertStatus::Resolved, ..self }
    }

    /// Its start, as the sender reports it.
    pub(super) fn starting(self, at: Timestamp) -> Self {
        Self { starts_at: Some(at), ..self }
    }

    /// Its end, as the sender reports it.
    pub(super) fn ended_at(self, at: Timestamp) -> Self {
        Self { ends_at: Some(at), ..self.resolved() }
    }

    pub(super) fn within(mut self, limit: Duration) -> Self {
        self.trigger.time_limit = limit;
        self
    }

    pub(super) fn decided_by(mut self, decider: &str) -> Self {
        self.trigger.decider = decider.to_owned();
        self
    }
}
