//! The part of the config that the rules read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::names::PromptName;
use super::plan::Plan;
use super::severity::Severity;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a version must serve, with nothing against it, to become known-good.
    pub soak: Duration,
    /// With Prometheus: how many requests must be measured during the soak.
    pub soak_requests: u64,
    /// After this time a version becomes known-good by time alone, however few its requests.
    pub soak_limit: Duration,
    /// `guards.mode = "dry-run"`: no automatic rollbacks, everything else as usual.
    pub dry_run: bool,
    /// How many prompts may be rolled back automatically within [`Policy::budget_window`]; 0 = never automatic.
    pub max_auto_rollbacks: u32,
    pub budget_window: Duration,
    /// How long a version that a rollback activated is not rolled back automatically.
    pub cooldown: Duration,
    /// A version that has served for longer is not rolled back automatically; `None`: no limit.
    pub ask_when_active_for_longer_than: Option<Duration>,
    /// Who decides if the alert names no valid decider.
    pub fallback_decider: String,
    /// The names that `decider` may have besides `system`.
    pub deciders: Vec<String>,
    /// Other names for severities, for example `warning` → high. Case does not matter.
    pub severity_aliases: BTreeMap<String, Severity>,
    /// A resolved incident that fires again within this time is reopened.
    pub reopen_within: Duration,
    /// An alert that was not repeated for this long has ended: an inhibited one never sends `resolved`.
    pub alert_resolve_timeout: Duration,
    /// How long after a switch its outcome must be known, if enough is measured.
    pub verification_deadline: Duration,
    /// How long after a switch the checks continue if too little is measured.
    pub verification_max: Duration,
    /// Whether a person's rollback waits for Prometheus' answer, or for the team's precheck.
    pub confirm: bool,
    /// Whether an automatic rollback waits for Prometheus' answer: `guards.confirm = "requery"`.
    pub requery: bool,
    /// Whether rollbacks are verified: a Prometheus is configured.
    pub verify: bool,
    pub verify_every: Duration,
    /// After this many checks, the interval is [`Policy::VERIFY_SLOWLY`].
    pub verify_fast_checks: u32,
    /// How many healthy checks in a row confirm recovery.
    pub verify_healthy: u32,
    /// The stages of a gradual rollback whose request names none.
    pub gradual: Plan,
    pub canary: CanaryPolicies,
    pub gates: GatePolicy,
    /// How many of the newest known-good versions keep their content in Redis.
    pub hot_versions: usize,
    /// Whether older content moves to an archive.
    pub archive: bool,
    /// How long content that nothing needs is kept after its last use.
    pub keep: Duration,
}

impl Policy {
    /// The severity that a word of an alert means.
    pub fn severity(&self, word: &str) -> Option<Severity> {
        let exact = Severity::parse(word).or_else(|| self.severity_aliases.get(word).copied());
        exact.or_else(|| {
            let word = word.to_lowercase();
            let alias = || self.severity_aliases.iter().find(|(alias, _)| alias.to_lowercase() == word);
            Severity::parse(&word).or_else(|| alias().map(|(_, severity)| *severity))
        })
    }

    /// How long no alert must fire before an incident counts as resolved, because alerts flap.
    pub const QUIET: Duration = Duration::from_secs(60);
    /// A second rollback without a version, this soon after another, is a double click or a race.
    pub const RECENT_ROLLBACK: Duration = Duration::from_secs(60);
    /// How long a person has to decide once an observation has ended: as for a recommendation.
    pub const AFTER_OBSERVING: Duration = Duration::from_secs(30 * 60);
    /// How often a missed deadline is escalated, including the first time.
    pub const ESCALATIONS: u32 = 4;
    /// The shortest time between two escalations of one incident.
    pub const ESCALATE_EVERY: Duration = Duration::from_secs(5 * 60);
    /// A version that one operator reactivates this often after rollbacks, within the window, is no longer rolled back
    /// automatically.
    pub const RETURNS: usize = 3;
    pub const RETURN_WINDOW: Duration = Duration::from_secs(3_600);
    /// Remembered returns, by whomever.
    pub const MAX_RETURNS: usize = 16;
    /// After this time, an alert that began before its version was activated acts automatically, if no Prometheus can
    /// be asked about the requests since.
    pub const PREDATES: Duration = Duration::from_secs(5 * 60);
    /// A version may have traffic before it is registered or SET, but hardly longer than this.
    pub const KNOWN_LATE: Duration = Duration::from_secs(24 * 3_600);
    /// How often Prometheus is asked about these requests.
    pub const RECHECK_EVERY: Duration = Duration::from_secs(10);
    /// How long a rollback waits for Prometheus. This also covers a worker that died.
    pub const CONFIRM: Duration = Duration::from_secs(10);
    /// A time this far in the future was written before Redis' clock went back. A new master's clock always differs a
    /// little.
    pub const CLOCK_STEP: Duration = Duration::from_secs(5);
    pub const VERIFY_SLOWLY: Duration = Duration::from_secs(30);
    /// The alert path works if its last heartbeat is no older than this.
    pub const HEARTBEAT: Duration = Duration::from_secs(5 * 60);
    /// A question about a waiting canary is withdrawn after this time; the canary keeps waiting.
    pub const CANARY_QUESTION: Duration = Duration::from_secs(24 * 3_600);
    /// How many requests to the new version a canary's stage needs.
    pub const CANARY_REQUESTS: u64 = 20;
    /// The default of the staging gate.
    pub const STAGED: Duration = Duration::from_secs(24 * 3_600);
    /// How long a new version is watched closely.
    pub const FIRST_HOUR: Duration = Duration::from_secs(3_600);
    /// Versions in a prompt's state; beyond that, those that were unused for longest are forgotten.
    pub const MAX_VERSIONS: usize = 64;
    /// Versions offered as rollback targets.
    pub const MAX_CHOICES: usize = 10;
    /// Alerts in one incident; a version with more firing alerts is bad enough.
    pub const MAX_ALERTS: usize = 64;
    /// Bytes of the descriptions and links of the alerts of one incident.
    pub const MAX_ALERT_DETAILS: usize = 64 << 10;
    /// Notes in one incident; beyond that, the oldest except the first are dropped.
    pub const MAX_NOTES: usize = 100;
    /// Remembered alerts on versions without traffic.
    pub const MAX_INACTIVE_ALERTS: usize = 64;
    /// Of these, alerts on versions that never had traffic.
    pub const MAX_UNKNOWN_INACTIVE_ALERTS: usize = 16;
    /// Fingerprints that a dismissal keeps silent.
    pub const MAX_SILENCES: usize = 128;
    /// Alerts remembered as ended.
    pub const MAX_ENDED: usize = 64;
    /// Versions that may have traffic while `active` holds none.
    pub const MAX_LAPSED: usize = 8;

    /// How long after an alert's `resolved` a `firing` of the same outbreak is a late copy. Alertmanager retries a
    /// delivery for one `group_interval`, five minutes by default.
    pub const LATE_COPY: Duration = Duration::from_secs(5 * 60);

    /// An alert that Alertmanager does not list for this long has ended: after a restart, Prometheus sends it again
    /// within a minute.
    pub const ABSENT: Duration = Duration::from_secs(90);

    /// How long the content of a version that never became known-good stays in Redis after its last use.
    pub const UNPROVED_TEXT: Duration = Duration::from_secs(30 * 24 * 3_600);
    /// How long restored content stays in Redis.
    pub const RESTORED_TEXT: Duration = Duration::from_secs(7 * 24 * 3_600);

    /// How often the "last seen" of a repeated alert is updated: rarely, so that a duplicate writes nothing.
    pub fn refresh_after(&self) -> Duration {
        self.alert_resolve_timeout / 4
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            soak: Duration::from_secs(3_600),
            soak_requests: 20,
            soak_limit: Duration::from_secs(24 * 3_600),
            dry_run: false,
            max_auto_rollbacks: 5,
            budget_window: Duration::from_secs(300),
            cooldown: Duration::from_secs(1_800),
            ask_when_active_for_longer_than: None,
            fallback_decider: "on-call".to_owned(),
            deciders: vec!["on-call".to_owned(), "product-pm".to_owned()],
            severity_aliases: BTreeMap::from([
                ("warning".to_owned(), Severity::High),
                ("info".to_owned(), Severity::Medium),
            ]),
            reopen_within: Duration::from_secs(3_600),
            alert_resolve_timeout: Duration::from_secs(6 * 3_600),
            verification_deadline: Duration::from_secs(300),
            verification_max: Duration::from_secs(3_600),
            confirm: false,
            requery: false,
            verify: false,
            verify_every: Duration::from_secs(5),
            verify_fast_checks: 12,
            verify_healthy: 2,
            gradual: Plan { stages: vec![25, 50, 75, 100], holds: vec![Duration::from_secs(600)], limit: None },
            canary: CanaryPolicies::default(),
            gates: GatePolicy::default(),
            hot_versions: 3,
            archive: false,
            keep: Duration::from_secs(180 * 24 * 3_600),
        }
    }
}

/// How canaries advance: the default, and the settings of individual prompts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CanaryPolicies {
    pub usual: CanaryPolicy,
    pub prompts: BTreeMap<PromptName, CanaryPolicy>,
}

impl CanaryPolicies {
    pub fn of(&self, prompt: &PromptName) -> &CanaryPolicy {
        self.prompts.get(prompt).unwrap_or(&self.usual)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryPolicy {
    /// The stages, if the request names none.
    pub plan: Plan,
    /// Whether a stage ends only if the measurements allow it; otherwise by time alone.
    pub analysis: bool,
    /// How long a stage may lack evidence before people are asked, once per stage.
    pub hold_limit: Duration,
    /// By how many percentage points the failure ratio may be higher for a version that is no worse.
    pub margin: u8,
    /// PromQL with `$prompt`, `$version`, `$base` and `$since`, 1 = no worse; `None`: errors, quality and p99 are enough.
    pub query: Option<String>,
}

impl Default for CanaryPolicy {
    fn default() -> Self {
        Self {
            plan: Plan { stages: vec![1, 5, 25, 100], holds: vec![Duration::from_secs(600)], limit: None },
            analysis: true,
            hold_limit: Duration::from_secs(3_600),
            margin: 1,
            query: None,
        }
    }
}

/// The gates that are enabled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatePolicy {
    /// The required time in staging before any traffic.
    pub staging: Option<Duration>,
    /// Before all traffic: significantly better than the version that it replaces, and no worse in quality and p99.
    pub ab_test: bool,
    /// The required time with a share of the traffic before all of it.
    pub first_hour: Option<Duration>,
}

impl GatePolicy {
    pub fn any(&self) -> bool {
        self.staging.is_some() || self.ab_test || self.first_hour.is_some()
    }
}
