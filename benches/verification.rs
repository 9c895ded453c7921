//! How often the verdict about a rollback is wrong, and how long it takes: 1,000 simulated rollbacks for each case and
//! each scrape interval, through the production code that reads the counters and decides.
//!
//! `cargo bench --bench verification`
//!
//! Requests arrive at random (Poisson) at ten instances and fail at random. Fails if a target is missed.

use std::process::ExitCode;
use std::time::Duration;

use prompt_rollback::config::Config;
use prompt_rollback::decision::alert::{Alert, AlertStatus};
use prompt_rollback::decision::decide::{Active, Snapshot};
use prompt_rollback::decision::finding::{Finding, Verdict};
use prompt_rollback::decision::labels::GroupLabels;
use prompt_rollback::decision::phase::RollbackFailure;
use prompt_rollback::decision::{
    Action, Checked, CommitId, Event, Incident, IncidentId, PhaseKind, Policy, PromptName, PromptState, Severity,
    Timestamp, Trigger, VersionName, decide,
};
use prompt_rollback::prometheus::client::Series;
use prompt_rollback::prometheus::exposure::{Recorded, judge};

const RUNS: u64 = 1_000;
const START: i64 = 1_800_000_000_000;
const EVALUATED: i64 = 5;
const BEFORE: i64 = 300;

/// A simulated rollback.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// Requests per second of all instances together.
    rate: f64,
    instances: usize,
    /// The failure ratio of the version rolled back to.
    fails: f64,
    /// How many instances keep the bad version.
    stuck: usize,
    /// The bad version's share of the requests before the rollback, and where it is kept: below 1 for a canary.
    share: f64,
    away: bool,
}

const USUAL: Case =
    Case { name: "healthy (0.2 %)", rate: 20.0, instances: 10, fails: 0.002, stuck: 0, share: 1.0, away: false };
const CASES: [Case; 9] = [
    USUAL,
    Case { name: "fails 2 %, twice the limit", fails: 0.02, ..USUAL },
    Case { name: "fails 5 %", fails: 0.05, ..USUAL },
    Case { name: "one of ten does not follow", stuck: 1, ..USUAL },
    Case { name: "0.5 requests a second", rate: 0.5, instances: 3, fails: 0.0, ..USUAL },
    Case { name: "Prometheus is away", away: true, ..USUAL },
    Case { name: "a canary of 5 %", share: 0.05, ..USUAL },
    Case { name: "a canary of 5 %, one of ten goes on splitting", share: 0.05, stuck: 1, ..USUAL },
    Case { name: "a canary of 1 %, one of ten goes on splitting", rate: 10.0, share: 0.01, stuck: 1, ..USUAL },
];

/// xorshift64*: the same seed always gives the same runs.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The number of arrivals in a second.
    fn poisson(&mut self, rate: f64) -> u32 {
        let (limit, mut product, mut count) = ((-rate).exp(), self.roll(), 0);
        while product > limit {
            product *= self.roll();
            count += 1;
        }
        count
    }
}

/// One instance's counters of one version, and what Prometheus has recorded of them.
#[derive(Default)]
struct Counter {
    requests: f64,
    failures: f64,
    /// Requests, failures and when, at the latest scrape.
    scraped: Option<(f64, f64, i64)>,
    recorded: [Vec<(Timestamp, f64)>; 3],
}

struct Fleet {
    case: Case,
    scrape: i64,
    /// By instance: the bad version's and the other's.
    counters: Vec<[Counter; 2]>,
    /// When each instance is scraped within the interval.
    phases: Vec<i64>,
    dice: Dice,
    second: i64,
}

impl Fleet {
    fn new(case: Case, scrape: i64, seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let phases = (0..case.instances).map(|_| (dice.roll() * scrape as f64) as i64).collect();
        let counters = (0..case.instances).map(|_| <[Counter; 2]>::default()).collect();
        Self { case, scrape, counters, phases, dice, second: -BEFORE }
    }

    /// Lets time pass until `second` after the switch.
    fn pass(&mut self, second: i64) {
        let each = self.case.rate / self.case.instances as f64;
        while self.second < second {
            self.second += 1;
            let now = self.second;
            for (place, counters) in self.counters.iter_mut().enumerate() {
                let follows = now > 1 && place >= self.case.stuck;
                let requests = self.dice.poisson(each);
                for _ in 0..requests {
                    let is_bad = !follows && (self.case.share >= 1.0 || self.dice.roll() < self.case.share);
                    let fails = if is_bad { 0.3 } else { self.case.fails };
                    let served = &mut counters[usize::from(!is_bad)];
                    served.requests += 1.0;
                    served.failures += f64::from(u8::from(self.dice.roll() < fails));
                }
                for counter in counters {
                    if (now - self.phases[place]).rem_euclid(self.scrape) == 0 {
                        counter.scraped = Some((counter.requests, counter.failures, now));
                    }
                    if let Some((requests, failures, at)) = counter.scraped.filter(|_| now.rem_euclid(EVALUATED) == 0) {
                        let values = [requests, failures, (START + at * 1_000) as f64 / 1e3];
                        for (points, value) in counter.recorded.iter_mut().zip(values) {
                            points.push((Timestamp(START + now * 1_000), value));
                        }
                    }
                }
            }
        }
    }

    fn series(&self) -> Vec<Series> {
        let names = ["requests:sum", "request_errors:sum", "requests:timestamp_seconds"];
        let mut all = Vec::new();
        for (place, counters) in self.counters.iter().enumerate() {
            for (version, counter) in ["v2", "v1"].into_iter().zip(counters) {
                for (name, points) in names.into_iter().zip(&counter.recorded) {
                    let labels = [
                        ("__name__".to_owned(), format!("prompt_version_instance:{name}")),
                        ("prompt".to_owned(), "p".to_owned()),
                        ("version".to_owned(), version.to_owned()),
                        ("instance".to_owned(), format!("pod-{place}")),
                    ];
                    all.push(Series { labels: labels.into(), points: points.clone() });
                }
            }
        }
        all
    }
}

/// A prompt as the store would keep it.
struct Prompt {
    policy: Policy,
    state: PromptState,
    active: VersionName,
    last: Option<Incident>,
    commits: u64,
}

impl Prompt {
    fn happens(&mut self, event: &Event, now: Timestamp) {
        self.commits += 1;
        let snapshot = Snapshot {
            prompt: name(),
            active: Active::Version(self.active.clone()),
            routing: Vec::new(),
            state: self.state.clone(),
            paused: None,
            recent_auto: 0,
            outage_hold: None,
            incident: self.last.clone(),
            content: None,
            commit: CommitId(self.commits.to_string()),
            fresh_ids: (0..4).map(|place| IncidentId(format!("{}-{place}", self.commits))).collect(),
        };
        let Some(commit) = decide(&self.policy, &snapshot, event, now).commit else { return };
        self.state = commit.state;
        self.active = commit.active.unwrap_or_else(|| self.active.clone());
        self.last = commit.incidents.into_iter().map(|write| write.incident).next_back().or(self.last.take());
    }
}

fn name() -> PromptName {
    PromptName::parse("p").expect("a prompt")
}

fn version(name: &str) -> VersionName {
    VersionName::parse(name).expect("a version")
}

/// v2 serves, v1 did before; a critical alert has just rolled v2 back.
fn rolled_back() -> Prompt {
    let policy = Policy { verify: true, ..Policy::default() };
    let mut prompt = Prompt { policy, state: PromptState::default(), active: version("v1"), last: None, commits: 0 };
    let ago = |hours: i64| Timestamp(START - hours * 3_600_000);
    prompt.happens(&Event::CheckDrift, ago(60));
    prompt.state.version_mut(&version("v1")).expect("v1").trust(ago(59));
    prompt.active = version("v2");
    prompt.happens(&Event::CheckDrift, ago(1));
    let trigger = Trigger {
        severity: Severity::Critical,
        action: Action::Rollback,
        decider: Trigger::SYSTEM.to_owned(),
        time_limit: Duration::from_secs(120),
        remarks: Vec::new(),
    };
    let alert = Alert {
        fingerprint: "f".to_owned(),
        alertname: "PromptErrorRateCritical".to_owned(),
        prompt: name(),
        version: version("v2"),
        status: AlertStatus::Firing,
        trigger,
        starts_at: Some(Timestamp(START)),
        ends_at: None,
        summary: String::new(),
        description: String::new(),
        value: String::new(),
        verify: String::new(),
        runbook_url: String::new(),
        measure: Default::default(),
        dashboard_url: String::new(),
        generator_url: String::new(),
        alertmanager_url: String::new(),
        group_labels: GroupLabels::default(),
    };
    prompt.happens(&Event::Alerts(vec![alert]), Timestamp(START));
    prompt
}

/// The receiver's verdict, and how many seconds after the switch.
fn verdict(case: Case, scrape: i64, seed: u64) -> (&'static str, i64) {
    let labels = Config::default().labels;
    let (mut prompt, mut fleet) = (rolled_back(), Fleet::new(case, scrape, seed));
    loop {
        let incident = prompt.last.clone().expect("an incident");
        let now = match incident.phase.kind() {
            PhaseKind::Verifying => incident.next_wake(&prompt.policy).expect("a wake-up"),
            phase => {
                let said = match (phase, incident.failure()) {
                    (PhaseKind::Recovered, _) => "recovered",
                    (PhaseKind::Escalated, Some(RollbackFailure::NotFollowed)) => "not_followed",
                    (PhaseKind::Escalated, _) => "not_recovered",
                    _ => "unverified",
                };
                return (said, (incident.updated_at.0 - START) / 1_000);
            }
        };
        let (switch, verification) =
            (incident.switch.clone().expect("a switch"), incident.verification().expect("checks").clone());
        if verification.next <= now {
            fleet.pass((now.0 - START) / 1_000);
            let (traffic, finding) = if case.away {
                (None, Finding::new(Verdict::Unknown, "away"))
            } else {
                let recorded = Recorded::new(&labels, fleet.series());
                let counters = recorded.of(&labels, &name());
                let traffic = counters.since(switch.at, &switch.from, &switch.to);
                let finding = judge(traffic.as_ref(), counters.limit(0.01, switch.at, &switch.to), switch.at);
                (traffic, finding)
            };
            let (incident, number) = (incident.id.clone(), verification.checks);
            prompt.happens(
                &Event::Checked(Checked { incident, switched_at: switch.at, number, finding, traffic, blame: None }),
                now,
            );
        } else {
            prompt.happens(&Event::Timer { incident: incident.id.clone(), early: false }, now);
        }
    }
}

fn percentile(sorted: &[i64], percent: usize) -> i64 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn main() -> ExitCode {
    println!("| case | scraped every | the receiver says | median | p90 | at most | |\n|---|---|---|---|---|---|---|");
    let mut all_met = true;
    for case in CASES {
        for scrape in [5, 15, 60] {
            let told: Vec<_> = (1..=RUNS).map(|seed| verdict(case, scrape, seed)).collect();
            let count = |said: &str| told.iter().filter(|(what, _)| *what == said).count();
            let mut seconds: Vec<_> = told.iter().map(|(_, after)| *after).collect();
            seconds.sort_unstable();
            let all = ["recovered", "not_recovered", "not_followed", "unverified"];
            let counts: Vec<_> =
                all.iter().filter(|what| count(what) > 0).map(|what| format!("{} {what}", count(what))).collect();
            let (middle, late) = (percentile(&seconds, 50), percentile(&seconds, 90));
            let well = case.fails < 0.01 && case.stuck == 0;
            let (wrong, most) =
                if well { (count("not_recovered") + count("not_followed"), 10) } else { (count("recovered"), 1) };
            let what = if well { "false pages" } else { "false recoveries" };
            all_met &= wrong <= most;
            let met = if wrong <= most { "met" } else { "MISSED" };
            let (name, counts) = (case.name, counts.join(", "));
            println!("| {name} | {scrape} s | {counts} | {middle} s | {late} s | {most} {what} | {met} |");
        }
    }
    if all_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
