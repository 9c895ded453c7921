//! The receiver's answers as the command line reads them; fields it does not show are left out, and
//! fields that an older receiver does not send are empty.

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Prompt {
    pub prompt: String,
    pub active: Option<String>,
    /// Why nothing is active although something was.
    pub active_fault: Option<String>,
    pub rollback_target: Option<String>,
    pub activated_at: Option<String>,
    /// Whether the active version is known-good.
    pub known_good: bool,
    pub known_good_by: Option<String>,
    /// When its soak is over, if nothing happens.
    pub soak_ends_at: Option<String>,
    /// When it is known-good by time alone, if nothing is measured before.
    pub soak_limit_at: Option<String>,
    pub paused: bool,
    pub open_incidents: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Prompts {
    pub prompts: Vec<Prompt>,
    pub next: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PromptDetail {
    pub prompt: String,
    pub active: Option<String>,
    /// Why nothing is active although something was.
    pub active_fault: Option<String>,
    /// Version to percent, while traffic is split.
    pub routing: Option<std::collections::BTreeMap<String, u8>>,
    /// Each version with traffic.
    pub in_service: Vec<Placed>,
    /// Other prompts, within the hour.
    pub also_changed: AlsoChanged,
    pub rollback_target: Option<String>,
    pub paused: bool,
    /// The last canary.
    pub canary: Option<Split>,
    pub versions: Vec<Version>,
    pub incidents: Vec<Incident>,
}

/// How a version came to serve.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Placed {
    pub version: String,
    pub percent: u8,
    pub since: Option<String>,
    pub operator: Option<String>,
    pub event: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AlsoChanged {
    pub prompts: Vec<OtherChange>,
    pub more: u64,
    pub at_least: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OtherChange {
    pub prompt: String,
    pub event: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub operator: String,
    pub at: String,
    pub same_group: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Version {
    pub version: String,
    pub registered_at: Option<String>,
    pub first_activated_at: Option<String>,
    pub last_active_at: Option<String>,
    pub active: bool,
    pub known_good: bool,
    pub known_good_by: Option<String>,
    pub soak_ends_at: Option<String>,
    pub soak_limit_at: Option<String>,
    /// What its soak was last found to want.
    pub soak_note: Option<String>,
    /// The incident that was open when it lost its traffic.
    pub left_with_incident: Option<String>,
    pub quarantined_at: Option<String>,
    pub mark: Option<Mark>,
    pub contact: Option<String>,
    pub staged_at: Option<String>,
    pub has_content: bool,
    /// Its text is in the archive.
    pub archived_at: Option<String>,
}

/// A person's word on a version.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Mark {
    pub kind: String,
    pub at: String,
    pub operator: String,
    pub reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Log {
    pub entries: Vec<LogEntry>,
    pub next: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogEntry {
    pub event: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub reason: Option<String>,
    pub operator: Option<String>,
    pub at: String,
    pub incident: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Incidents {
    pub incidents: Vec<Incident>,
    pub next: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Incident {
    pub id: String,
    /// Absent in one that coordinates many prompts.
    pub prompt: Option<String>,
    pub version: Option<String>,
    pub target: Option<String>,
    /// Versions that people marked as bad.
    pub marked_bad: Vec<MarkedBad>,
    pub phase: String,
    pub severity: String,
    pub action: String,
    pub decider: Option<String>,
    pub opened_at: String,
    pub closed_at: Option<String>,
    pub deadline: Option<String>,
    pub guard: Option<Guard>,
    pub summary: Option<String>,
    pub flip: Option<Flip>,
    /// How far a gradual rollback is.
    pub gradual: Option<Split>,
    pub alerts: Vec<serde_json::Value>,
    pub events: Vec<IncidentEvent>,
    /// Of one that coordinates many prompts.
    pub shared: Vec<SharedLabel>,
    pub hold: Option<HeldBack>,
    pub members: Vec<Member>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MarkedBad {
    pub version: String,
    pub operator: String,
    pub reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SharedLabel {
    pub label: String,
    pub value: String,
    pub prompts: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HeldBack {
    pub by: String,
    pub at: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Member {
    pub prompt: String,
    pub incident: String,
    pub version: String,
    pub target: Option<String>,
    pub phase: String,
    pub began: String,
    pub flipped_before: bool,
    pub failed: Option<String>,
}

/// Traffic that two versions share.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Split {
    pub from: String,
    pub to: String,
    /// On `to`, as all percents here.
    pub percent: u8,
    pub stages: Vec<u8>,
    pub next_stage_at: Option<String>,
    /// Why it does not go on.
    pub waits: Option<String>,
    /// Of a canary: `off` where its steps end by time alone.
    pub analysis: Option<String>,
    pub operator: String,
    pub end: Option<SplitEnd>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SplitEnd {
    pub at: String,
    pub promoted: bool,
    pub text: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Guard {
    pub reason: String,
    pub detail: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Flip {
    pub at: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub mode: Option<String>,
    pub operator: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct IncidentEvent {
    pub at: String,
    pub kind: String,
    pub text: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Registered {
    pub prompt: String,
    pub version: String,
    pub created: bool,
    pub known_good: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Marked {
    pub prompt: String,
    pub version: String,
    pub mark: String,
    pub unchanged: bool,
    /// What to do about it, if anything.
    pub message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Restored {
    pub prompt: String,
    pub version: String,
    pub restored: bool,
    pub unchanged: bool,
}

/// What a version has to show before it gets all traffic.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gates {
    pub prompt: String,
    pub version: String,
    pub replaces: Option<String>,
    pub gates: Vec<Gate>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gate {
    pub gate: String,
    pub on: bool,
    pub passed: bool,
    pub figures: String,
}

/// The answer to an activation or a rollback.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Flipped {
    pub success: bool,
    pub prompt: String,
    pub from_version: Option<String>,
    pub to_version: Option<String>,
    pub timestamp: Option<String>,
    pub incident: Option<String>,
    pub unchanged: bool,
    /// Of the traffic, on `to_version`, while it is shared.
    pub percent: Option<u8>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Decided {
    pub prompt: Option<String>,
    pub phase: Option<String>,
    pub from_version: Option<String>,
    pub to_version: Option<String>,
    /// How many prompts a decision about all of them is carried out on.
    pub prompts: Option<u64>,
    pub percent: Option<u8>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    pub changed: Vec<Change>,
    pub needs_restart: Vec<Change>,
}

/// A key of the config; its values are empty where they are secrets.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Change {
    pub key: String,
    pub from: Option<String>,
    pub to: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Paused {
    pub paused: bool,
    pub prompt: Option<String>,
    pub changed: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    pub since: String,
    pub until: String,
    pub dry_run: bool,
    pub total: Tally,
    pub triggers: Vec<Tally>,
    pub cases: Vec<Case>,
    /// Counted, but not among `cases`.
    pub left_out: u64,
    /// There were more incidents than were looked at.
    pub partial: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tally {
    pub trigger: String,
    pub right: u32,
    pub wrong: u32,
    pub unclear: u32,
    pub minutes_saved: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Case {
    pub incident: String,
    pub prompt: String,
    pub from: String,
    pub to: String,
    pub at: String,
    pub trigger: String,
    pub verdict: String,
    /// What happened instead.
    pub text: String,
    pub after_seconds: Option<u64>,
}
