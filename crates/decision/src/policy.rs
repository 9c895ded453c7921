//! What the operator of the receiver decided beforehand: the part of the config that rules read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::names::PromptName;
use super::plan::Plan;
use super::severity::Severity;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long a version must serve, with nothing against it, to become known-good.
    pub soak: Duration,
    /// Where there is a Prometheus: so many requests must be measured meanwhile.
    pub soak_requests: u64,
    /// After so long a version counts by time alone, however few they are.
    pub soak_limit: Duration,
    /// `guards.mode = "dry-run"`: everything but the automatic rollback.
    pub dry_run: bool,
    /// How many prompts may be rolled back automatically within [`Policy::budget_window`]; 0 = never automatic.
    pub max_auto_rollbacks: u32,
    pub budget_window: Duration,
    /// For how long a version that a rollback put there is not rolled back automatically.
    pub cooldown: Duration,
    /// A version that has served for longer is not rolled back automatically; `None`: however long.
    pub ask_when_active_for_longer_than: Option<Duration>,
    /// Who decides where the alert names nobody who can.
    pub fallback_decider: String,
    /// The names that `decider` may take besides `system`.
    pub deciders: Vec<String>,
    /// Severity labels of other houses, e.g. `warning` → high.
    pub severity_aliases: BTreeMap<String, Severity>,
    /// A resolved incident that fires again within this time is reopened.
    pub reopen_within: Duration,
    /// An alert that was not repeated for this long is over (an inhibited one never says so).
    pub alert_resolve_timeout: Duration,
    /// How long after a switch its outcome must be known, if enough is measured.
    pub verification_deadline: Duration,
    /// How long after a switch it is checked where less is measured.
    pub verification_max: Duration,
    /// A rollback that a person asks for waits until Prometheus (or the precheck) was asked.
    pub confirm: bool,
    /// So does an automatic one: `guards.confirm = "requery"`.
    pub requery: bool,
    /// Rollbacks are checked: there is a Prometheus to ask.
    pub verify: bool,
    pub verify_every: Duration,
    /// After so many checks they come at [`Policy::VERIFY_SLOWLY`].
    pub verify_fast_checks: u32,
    /// So many healthy checks in a row prove recovery.
    pub verify_healthy: u32,
    /// Gradual rollbacks, where the request names no stages.
    pub gradual: Plan,
    pub canary: CanaryPolicies,
    pub gates: GatePolicy,
    /// So many of the newest known-good versions keep their texts in Redis.
    pub hot_versions: usize,
    /// Older texts go to an archive.
    pub archive: bool,
    /// A text that nothing needs is kept for so long after its last use.
    pub keep: Duration,
}

impl Policy {
    /// No new firing for this long before an incident counts as resolved: alerts flap.
    pub const QUIET: Duration = Duration::from_secs(60);
    /// A second rollback that names no version this soon after another is a double click or a race.
    pub const RECENT_ROLLBACK: Duration = Duration::from_secs(60);
    /// How long a person has to decide once an observation has ended: that of a recommendation.
    pub const AFTER_OBSERVING: Duration = Duration::from_secs(30 * 60);
    /// How often a missed deadline is escalated, the first time included.
    pub const ESCALATIONS: u32 = 4;
    /// At least this long between two escalations of one incident.
    pub const ESCALATE_EVERY: Duration = Duration::from_secs(5 * 60);
    /// A version that the same hand puts back so often after a rollback, within the window, is not rolled back any more
    /// without a person.
    pub const RETURNS: usize = 3;
    pub const RETURN_WINDOW: Duration = Duration::from_secs(3_600);
    /// An alert that began before its version was activated acts by itself after so long, if nobody can be asked about the
    /// requests since.
    pub const PREDATES: Duration = Duration::from_secs(5 * 60);
    /// A version may have traffic before it is registered or SET, but hardly for longer.
    pub const KNOWN_LATE: Duration = Duration::from_secs(24 * 3_600);
    /// How often Prometheus is asked about these requests.
    pub const RECHECK_EVERY: Duration = Duration::from_secs(10);
    /// How long a rollback waits for Prometheus. A worker that died meanwhile is noticed by it.
    pub const CONFIRM: Duration = Duration::from_secs(10);
    /// What lies ahead by so much was written before Redis' clock went back; a new master's may always differ by a little.
    pub const CLOCK_STEP: Duration = Duration::from_secs(5);
    pub const VERIFY_SLOWLY: Duration = Duration::from_secs(30);
    /// The alert path works if its last heartbeat came no longer ago.
    pub const HEARTBEAT: Duration = Duration::from_secs(5 * 60);
    /// What people were asked about a canary that waits is withdrawn after so long: it waits on.
    pub const CANARY_QUESTION: Duration = Duration::from_secs(24 * 3_600);
    /// So many requests of the new version a stage of a canary wants.
    pub const CANARY_REQUESTS: u64 = 20;
    /// What the staging gate wants by default.
    pub const STAGED: Duration = Duration::from_secs(24 * 3_600);
    /// How long a new version is watched closely.
    pub const FIRST_HOUR: Duration = Duration::from_secs(3_600);
    /// Versions kept in a prompt's state; beyond, the ones longest out of use are forgotten.
    pub const MAX_VERSIONS: usize = 64;
    /// Versions offered to go back to.
    pub const MAX_CHOICES: usize = 10;
    /// Alerts kept in one incident; a version with more firing is bad enough.
    pub const MAX_ALERTS: usize = 64;
    /// Notes kept in one incident; beyond, the oldest but the first are dropped.
    pub const MAX_NOTES: usize = 100;
    /// Firing alerts remembered of versions without traffic.
    pub const MAX_INACTIVE_ALERTS: usize = 64;
    /// So many of these of versions that have never had any.
    pub const MAX_UNKNOWN_INACTIVE_ALERTS: usize = 16;
    /// Fingerprints that a dismissal keeps silent.
    pub const MAX_SUPPRESSED: usize = 128;
    /// Alerts remembered as ended.
    pub const MAX_ENDED: usize = 64;
    /// Versions that may have traffic while `active` holds none.
    pub const MAX_LAPSED: usize = 8;

    /// For so long after an alert's `resolved` a `firing` of the same outbreak is a late copy. Alertmanager tries a delivery
    /// again for one `group_interval`, by default five minutes.
    pub const LATE_COPY: Duration = Duration::from_secs(5 * 60);

    /// An alert that Alertmanager does not list for this long has ended: a restarted one is told again within a minute.
    pub const ABSENT: Duration = Duration::from_secs(90);

    /// The text of a version that never became known-good stays at hand for so long after its last use.
    pub const UNPROVED_TEXT: Duration = Duration::from_secs(30 * 24 * 3_600);
    /// So does one that was brought back from the archive.
    pub const RESTORED_TEXT: Duration = Duration::from_secs(7 * 24 * 3_600);

    /// Refresh the "last seen" of a repeated alert only this rarely: a duplicate costs no write.
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

/// How canaries go on: of most prompts, and of those that have settings of their own.
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
    /// Where the request names no stages.
    pub plan: Plan,
    /// It goes on only when what was measured speaks for it; otherwise by time alone.
    pub analysis: bool,
    /// After so long without enough evidence people are asked, once in each stage.
    pub hold_limit: Duration,
    /// By so many percentage points more of the requests may fail with a version that is no worse.
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

/// Which gates are on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatePolicy {
    /// So long in staging before any traffic.
    pub staging: Option<Duration>,
    /// Significantly better than the version that it replaces, and no worse in quality and p99, before all traffic.
    pub ab_test: bool,
    /// So long with a share of the traffic before all of it.
    pub first_hour: Option<Duration>,
}

impl GatePolicy {
    pub fn any(&self) -> bool {
        self.staging.is_some() || self.ab_test || self.first_hour.is_some()
    }
}
