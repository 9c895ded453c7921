//! Stored records: the JSON of a prompt's state and of an incident.
//!
//! Additions only: a field once written keeps its name and meaning. A new required field, a new word in an
//! enumeration or a changed meaning raises [`SCHEMA`], and receivers that are older leave such records alone.
//! Fields that this version does not know survive a rewrite.
//!
//! An open incident is kept once, in its prompt's state; its own key says where. Once it is closed its record is there.

use serde::de::Error as _;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

use crate::decision::alert::{AlertRecord, Shares};
use crate::decision::flip::{Flip, FlipMode, WouldFlip};
use crate::decision::guards::{Guard, Held};
use crate::decision::incident::{Incident, Never};
use crate::decision::names::{CommitId, IncidentId};
use crate::decision::note::{Note, NoteKind};
use crate::decision::phase::{Objection, Pending, PhaseKind, Recheck};
use crate::decision::serving::{ActivatedBy, Lapsed, Serving};
use crate::decision::soak::{Earned, Fled, KnownGood, Soak, Watch};
use crate::decision::split::{Canary, CanaryEnd, Pause, Plan, Split, Waiting};
use crate::decision::state::{
    Archived, Ended, Mark, MarkKind, PromptState, Quarantine, Return, Stray, Suppressed, VersionRecord,
};
use crate::decision::verification::{Check, Finding, Instances, Traffic, Verdict, Verification};
use crate::decision::{Action, Evidence, Operator, PromptName, Severity, Timestamp, VersionName};

pub use unknown::Unknown;

use stage::Before;

/// The record schema that this receiver writes. It reads this one and older ones.
pub const SCHEMA: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("damaged record: {0}")]
    Damaged(#[from] serde_json::Error),
    #[error("schema {0}")]
    Newer(u32),
}

pub fn read_state(json: &str) -> Result<(PromptState, Unknown), Unreadable> {
    let (State(state), unknown) = read(json)?;
    Ok((state, unknown))
}

pub fn write_state(state: &PromptState, unknown: &Unknown) -> String {
    write(StateRef(state), unknown)
}

/// The schema of what says where an incident is kept: receivers that do not know it leave the incident alone.
const ELSEWHERE: u32 = 2;

/// An incident's schema stands in its record; that of others beside theirs.
#[derive(Deserialize)]
struct Marked {
    schema: Option<u32>,
}

/// What stands at the key of an open incident.
#[derive(Serialize, Deserialize)]
struct Elsewhere {
    schema: u32,
    #[serde(with = "prompt_name")]
    kept_by: PromptName,
}

/// What an incident's own key holds.
#[derive(Debug)]
pub enum Stored {
    /// Its record: it is closed, or was written last by a receiver that keeps open ones here as well.
    Here(Box<Incident>, Unknown),
    /// It is open, and kept in the state of this prompt.
    Elsewhere(PromptName),
}

pub fn read_stored(json: &str) -> Result<Stored, Unreadable> {
    match serde_json::from_str(json)? {
        Marked { schema: Some(ELSEWHERE) } => {
            let record: Elsewhere = serde_json::from_str(json).map_err(|_| Unreadable::Newer(ELSEWHERE))?;
            Ok(Stored::Elsewhere(record.kept_by))
        }
        Marked { schema: Some(newer) } if newer > SCHEMA => Err(Unreadable::Newer(newer)),
        Marked { .. } => read(json).map(|(incident::Own(incident), unknown)| Stored::Here(Box::new(incident), unknown)),
    }
}

pub fn read_incident(json: &str) -> Result<(Incident, Unknown), Unreadable> {
    match read_stored(json)? {
        Stored::Here(incident, unknown) => Ok((*incident, unknown)),
        Stored::Elsewhere(_) => Err(Unreadable::Newer(ELSEWHERE)),
    }
}

/// What stands at the key of an open incident of this prompt.
pub fn write_elsewhere(prompt: &PromptName) -> String {
    write(Elsewhere { schema: ELSEWHERE, kept_by: prompt.clone() }, &Unknown::default())
}

pub fn write_incident(incident: &Incident, unknown: &Unknown) -> String {
    let mut text = write(incident::Ref(incident), unknown);
    text.insert_str(1, &format!("\"schema\":{SCHEMA},"));
    text
}

fn read<'de, T: Deserialize<'de>>(json: &'de str) -> Result<(T, Unknown), Unreadable> {
    // serde takes a list for an object, and `[]` for an empty record
    if !json.trim_start().starts_with('{') {
        return Err(Unreadable::Damaged(serde_json::Error::custom("no object")));
    }
    let mut ignored = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let record = serde_ignored::deserialize(&mut deserializer, |path| ignored.push(unknown::steps(&path)))?;
    ignored.retain(|steps| !unknown::is_schema(steps));
    deserializer.end()?;
    // only a record with strange fields pays for keeping them
    let unknown =
        if ignored.is_empty() { Unknown::default() } else { Unknown::new(&serde_json::from_str(json)?, &ignored) };
    Ok((record, unknown))
}

#[allow(clippy::expect_used, reason = "our records hold strings, numbers and lists: these always serialize")]
fn write<T: Serialize>(record: T, unknown: &Unknown) -> String {
    if unknown.is_nothing() {
        // room for most records, which would else be moved with each doubling
        let mut text = Vec::with_capacity(4 << 10);
        serde_json::to_writer(&mut text, &record).expect("a record serializes");
        return String::from_utf8(text).expect("JSON is UTF-8");
    }
    let mut json = serde_json::to_value(&record).expect("a record serializes");
    unknown.put_into(&mut json);
    json.to_string()
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_none_of(value: &u64) -> bool {
    *value == 0
}

fn is_empty(value: &usize) -> bool {
    *value == 0
}

/// Text form and back, for the words and names of the decision core.
macro_rules! as_text {
    ($($module:ident: $type:ty, $write:expr, $read:expr;)*) => {$(
        mod $module {
            use super::*;
            pub fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> &str = $write;
                serializer.serialize_str(write(value))
            }
            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                let read: fn(&str) -> Option<$type> = $read;
                read(&text).ok_or_else(|| D::Error::custom(concat!("not a ", stringify!($module))))
            }
            as_container!($type, self::serialize, self::deserialize);
        }
    )*};
}

/// `option` and `list` forms of a type that is (de)serialized by functions.
macro_rules! as_container {
    ($type:ty, $serialize:expr, $deserialize:expr) => {
        pub struct Ref<'a>(pub &'a $type);
        impl Serialize for Ref<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $serialize(self.0, serializer)
            }
        }
        pub struct Own(pub $type);
        impl<'de> Deserialize<'de> for Own {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $deserialize(deserializer).map(Own)
            }
        }
        #[allow(dead_code, reason = "not every type is optional somewhere")]
        pub mod option {
            use super::*;
            pub fn serialize<S: Serializer>(value: &Option<$type>, serializer: S) -> Result<S::Ok, S::Error> {
                value.as_ref().map(Ref).serialize(serializer)
            }
            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<$type>, D::Error> {
                Ok(Option::<Own>::deserialize(deserializer)?.map(|own| own.0))
            }
        }
        #[allow(dead_code, reason = "not every type is listed somewhere")]
        pub mod list {
            use super::*;
            pub fn serialize<S: Serializer>(values: &[$type], serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(&Ref(value))?;
                }
                list.end()
            }
            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<$type>, D::Error> {
                Ok(Vec::<Own>::deserialize(deserializer)?.into_iter().map(|own| own.0).collect())
            }
        }
    };
}

/// The containers of a type with a remote definition.
macro_rules! containers {
    ($($module:ident: $type:ty, $remote:ident;)*) => {$(
        mod $module {
            use super::*;
            as_container!($type, super::$remote::serialize, super::$remote::deserialize);
        }
    )*};
}

as_text! {
    prompt_name: PromptName, |n| n.as_str(), |t| PromptName::parse(t).ok();
    version_name: VersionName, |n| n.as_str(), |t| VersionName::parse(t).ok();
    operator: Operator, |o| o.as_str(), |t| Some(Operator::recorded(t));
    incident_id: IncidentId, |id| &id.0, |t| Some(IncidentId(t.to_owned()));
    commit_id: CommitId, |id| &id.0, |t| Some(CommitId(t.to_owned()));
    severity: Severity, |s| s.as_str(), |t| Severity::parse(t);
    action: Action, |a| a.as_str(), |t| Action::parse(t);
    phase: PhaseKind, |p| p.as_str(), |t| PhaseKind::ALL.into_iter().find(|p| p.as_str() == t);
    guard: Guard, |g| g.as_str(), |t| Guard::ALL.into_iter().find(|g| g.as_str() == t);
    flip_mode: FlipMode, |m| m.as_str(), |t| FlipMode::ALL.into_iter().find(|m| m.as_str() == t);
    verdict: Verdict, |v| v.as_str(), |t| Verdict::ALL.into_iter().find(|v| v.as_str() == t);
    note_kind: NoteKind, |k| k.as_str(), |t| NoteKind::ALL.into_iter().find(|k| k.as_str() == t);
    mark_kind: MarkKind, |k| k.as_str(), |t| MarkKind::ALL.into_iter().find(|k| k.as_str() == t);
    activated_by: ActivatedBy, |b| b.as_str(), |t| ActivatedBy::ALL.into_iter().find(|b| b.as_str() == t);
}

containers! {
    serving: Serving, ServingRecord;
    version_record: VersionRecord, Version;
    known_good: KnownGood, KnownGoodRecord;
    watch: Watch, WatchRecord;
    fled: Fled, FledRecord;
    archived: Archived, ArchivedRecord;
    mark: Mark, MarkRecord;
    never: Never, NeverRecord;
    quarantine: Quarantine, QuarantineRecord;
    stray: Stray, StrayRecord;
    returned: Return, ReturnRecord;
    recheck: Recheck, RecheckRecord;
    suppressed: Suppressed, SuppressedRecord;
    lapsed: Lapsed, LapsedRecord;
    ended: Ended, EndedRecord;
    incident: Incident, IncidentRecord;
    held: Held, HeldRecord;
    flip: Flip, FlipRecord;
    alert: AlertRecord, Alert;
    note: Note, NoteRecord;
    pending: Pending, PendingRecord;
    verification: Verification, VerificationRecord;
    check: Check, CheckRecord;
    objection: Objection, ObjectionRecord;
    would: WouldFlip, WouldFlipRecord;
    traffic: Traffic, TrafficRecord;
    plan: Plan, PlanRecord;
    split: Split, SplitRecord;
    canary: Canary, CanaryRecord;
    canary_end: CanaryEnd, CanaryEndRecord;
    waiting: Waiting, WaitingRecord;
    pause: Pause, PauseRecord;
    evidence: Evidence, EvidenceRecord;
}

mod unknown;

pub mod mass;
mod stage; // below the macros that it uses

/// Milliseconds since the Unix epoch.
mod at {
    use super::*;
    pub fn serialize<S: Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(value.0)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp)
    }
    as_container!(Timestamp, self::serialize, self::deserialize);
}

/// Milliseconds.
mod millis {
    use super::*;
    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
    as_container!(Duration, self::serialize, self::deserialize);
}

mod millis_list {
    use super::*;
    pub fn serialize<S: Serializer>(values: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<u64>::deserialize(deserializer)?.into_iter().map(Duration::from_millis).collect())
    }
}

/// Routing adds up to a hundred.
fn percents<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let percents = Vec::<u8>::deserialize(deserializer)?;
    if percents.iter().any(|percent| *percent > 100) {
        Err(D::Error::custom("more than 100 percent"))
    } else {
        Ok(percents)
    }
}

struct StateRef<'a>(&'a PromptState);
impl Serialize for StateRef<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StateRecord::serialize(self.0, serializer)
    }
}
struct State(PromptState);
impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StateRecord::deserialize(deserializer).map(State)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PromptState")]
struct StateRecord {
    #[serde(with = "serving::option", default, skip_serializing_if = "Option::is_none")]
    serving: Option<Serving>,
    #[serde(with = "version_record::list", default, skip_serializing_if = "Vec::is_empty")]
    versions: Vec<VersionRecord>,
    #[serde(with = "commit_id", default, skip_serializing_if = "stage::is_unknown")]
    moved_by: CommitId,
    #[serde(with = "incident::list", default, skip_serializing_if = "Vec::is_empty")]
    incidents: Vec<Incident>,
    #[serde(with = "stray::list", default, skip_serializing_if = "Vec::is_empty")]
    strays: Vec<Stray>,
    #[serde(with = "suppressed::list", default, skip_serializing_if = "Vec::is_empty")]
    suppressed: Vec<Suppressed>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    last_rollback: Option<Timestamp>,
    #[serde(with = "canary::option", default, skip_serializing_if = "Option::is_none")]
    canary: Option<Canary>,
    #[serde(with = "lapsed::option", default, skip_serializing_if = "Option::is_none")]
    lapsed: Option<Lapsed>,
    #[serde(with = "ended::list", default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<Ended>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Lapsed")]
struct LapsedRecord {
    #[serde(with = "at")]
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holds: Option<String>,
    #[serde(with = "version_name::list", default, skip_serializing_if = "Vec::is_empty")]
    versions: Vec<VersionName>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ended")]
struct EndedRecord {
    #[serde(with = "version_name")]
    version: VersionName,
    fingerprint: String,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    starts_at: Option<Timestamp>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    ends_at: Option<Timestamp>,
    #[serde(with = "at")]
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Serving")]
struct ServingRecord {
    #[serde(with = "version_name")]
    version: VersionName,
    #[serde(with = "at")]
    since: Timestamp,
    #[serde(with = "activated_by")]
    by: ActivatedBy,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "VersionRecord")]
struct Version {
    #[serde(with = "version_name")]
    version: VersionName,
    #[serde(with = "at")]
    known_since: Timestamp,
    #[serde(default, skip_serializing_if = "is_false")]
    registered: bool,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    first_active: Option<Timestamp>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    last_active: Option<Timestamp>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    traffic_since: Option<Timestamp>,
    #[serde(with = "returned::list", default, skip_serializing_if = "Vec::is_empty")]
    returns: Vec<Return>,
    #[serde(getter = "soak_from", with = "at::option", default, skip_serializing_if = "Option::is_none")]
    soak_from: Option<Timestamp>,
    #[serde(getter = "soak_watch", with = "watch::option", default, skip_serializing_if = "Option::is_none")]
    soak_watch: Option<Watch>,
    #[serde(with = "known_good::option", default, skip_serializing_if = "Option::is_none")]
    known_good: Option<KnownGood>,
    #[serde(with = "fled::option", default, skip_serializing_if = "Option::is_none")]
    fled: Option<Fled>,
    #[serde(with = "quarantine::option", default, skip_serializing_if = "Option::is_none")]
    quarantine: Option<Quarantine>,
    #[serde(with = "mark::option", default, skip_serializing_if = "Option::is_none")]
    mark: Option<Mark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contact: Option<String>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    staged_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_false")]
    has_content: bool,
    #[serde(with = "evidence::option", default, skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    evidence_asked: Option<Timestamp>,
    #[serde(with = "archived::option", default, skip_serializing_if = "Option::is_none")]
    archived: Option<Archived>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    restored_at: Option<Timestamp>,
}

fn soak_from(record: &VersionRecord) -> Option<Timestamp> {
    record.soak.as_ref().map(|soak| soak.from)
}

fn soak_watch(record: &VersionRecord) -> Option<Watch> {
    record.soak.as_ref()?.watch.clone()
}

/// An older receiver writes when a soak began, and keeps how this one watched the soak before.
impl From<Version> for VersionRecord {
    fn from(record: Version) -> Self {
        Self {
            version: record.version,
            known_since: record.known_since,
            registered: record.registered,
            first_active: record.first_active,
            last_active: record.last_active,
            traffic_since: record.traffic_since,
            returns: record.returns,
            soak: record.soak_from.map(|from| Soak { from, watch: record.soak_watch }),
            known_good: record.known_good,
            // an older receiver may have trusted it since
            fled: record.fled.filter(|_| record.known_good.is_none()),
            quarantine: record.quarantine,
            contact: record.contact,
            staged_at: record.staged_at,
            has_content: record.has_content,
            evidence: record.evidence,
            evidence_asked: record.evidence_asked,
            archived: record.archived,
            restored_at: record.restored_at,
            mark: record.mark,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Mark")]
struct MarkRecord {
    #[serde(with = "mark_kind")]
    kind: MarkKind,
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "operator")]
    operator: Operator,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Archived")]
struct ArchivedRecord {
    #[serde(with = "at")]
    at: Timestamp,
    bytes: u64,
    checksum: u64,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    wanted: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    lost: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Evidence")]
struct EvidenceRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(default, skip_serializing_if = "is_false")]
    passed: bool,
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "KnownGood")]
struct KnownGoodRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(getter = "is_marked", default, skip_serializing_if = "is_false")]
    marked: bool,
    #[serde(getter = "has_evidence", default, skip_serializing_if = "is_false")]
    evidence: bool,
}

fn is_marked(good: &KnownGood) -> bool {
    good.by == Earned::Mark
}

fn has_evidence(good: &KnownGood) -> bool {
    good.by == Earned::Evidence
}

/// Older receivers knew marks, and time.
impl From<KnownGoodRecord> for KnownGood {
    fn from(KnownGoodRecord { at, marked, evidence }: KnownGoodRecord) -> Self {
        let by = match (marked, evidence) {
            (true, _) => Earned::Mark,
            (false, true) => Earned::Evidence,
            (false, false) => Earned::Time,
        };
        Self { at, by }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Watch")]
struct WatchRecord {
    #[serde(with = "at")]
    seen: Timestamp,
    #[serde(with = "at")]
    next: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Fled")]
struct FledRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "incident_id")]
    incident: IncidentId,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Quarantine")]
struct QuarantineRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "incident_id::option", default, skip_serializing_if = "Option::is_none")]
    incident: Option<IncidentId>,
    #[serde(with = "known_good::option", default, skip_serializing_if = "Option::is_none")]
    known_good: Option<KnownGood>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Stray")]
struct StrayRecord {
    #[serde(with = "version_name")]
    version: VersionName,
    /// What the version before reads.
    #[serde(getter = "stage::fingerprint")]
    fingerprint: String,
    #[serde(getter = "stage::alertname")]
    alertname: String,
    #[serde(getter = "stage::severity_of", with = "severity")]
    severity: Severity,
    #[serde(getter = "stage::last_seen", with = "at")]
    last_seen: Timestamp,
    #[serde(getter = "stage::whole", with = "alert::option", default)]
    alert: Option<AlertRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Recheck")]
struct RecheckRecord {
    #[serde(with = "at")]
    since: Timestamp,
    #[serde(with = "at")]
    next: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Return")]
struct ReturnRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "operator")]
    operator: Operator,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Suppressed")]
struct SuppressedRecord {
    #[serde(with = "version_name")]
    version: VersionName,
    fingerprint: String,
    #[serde(with = "severity")]
    severity: Severity,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    dismissed_at: Option<Timestamp>,
    #[serde(with = "at")]
    since: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Never")]
struct NeverRecord {
    #[serde(with = "version_name")]
    version: VersionName,
    #[serde(with = "operator")]
    operator: Operator,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Incident")]
struct IncidentRecord {
    #[serde(with = "incident_id")]
    id: IncidentId,
    #[serde(with = "prompt_name")]
    prompt: PromptName,
    #[serde(with = "version_name")]
    version: VersionName,
    #[serde(with = "version_name::option", default, skip_serializing_if = "Option::is_none")]
    target: Option<VersionName>,
    #[serde(with = "version_name::list", default, skip_serializing_if = "Vec::is_empty")]
    choices: Vec<VersionName>,
    #[serde(with = "never::list", default, skip_serializing_if = "Vec::is_empty")]
    never: Vec<Never>,
    #[serde(getter = "stage::kind", with = "phase")]
    phase: PhaseKind,
    #[serde(with = "at")]
    opened_at: Timestamp,
    #[serde(with = "at")]
    updated_at: Timestamp,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    closed_at: Option<Timestamp>,
    #[serde(with = "severity")]
    severity: Severity,
    #[serde(with = "action")]
    action: Action,
    decider: String,
    #[serde(with = "millis")]
    time_limit: Duration,
    #[serde(getter = "Incident::deadline", with = "at::option", default, skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    quiet_since: Option<Timestamp>,
    #[serde(with = "held::option", default, skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    confirmed_at: Option<Timestamp>,
    #[serde(with = "flip::option", default, skip_serializing_if = "Option::is_none")]
    flip: Option<Flip>,
    #[serde(with = "would::option", default, skip_serializing_if = "Option::is_none")]
    would: Option<WouldFlip>,
    #[serde(
        getter = "stage::successor",
        with = "version_name::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    successor: Option<VersionName>,
    #[serde(getter = "stage::gradual", with = "split::option", default, skip_serializing_if = "Option::is_none")]
    gradual: Option<Split>,
    #[serde(getter = "stage::pending", with = "pending::option", default, skip_serializing_if = "Option::is_none")]
    pending: Option<Pending>,
    #[serde(getter = "stage::is_not_followed", default, skip_serializing_if = "is_false")]
    not_followed: bool,
    #[serde(getter = "stage::before", default, skip_serializing_if = "Option::is_none")]
    before: Option<Before>,
    #[serde(getter = "stage::objection", with = "objection::option", default, skip_serializing_if = "Option::is_none")]
    objection: Option<Objection>,
    #[serde(
        getter = "stage::verification",
        with = "verification::option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    verification: Option<Verification>,
    #[serde(with = "operator::option", default, skip_serializing_if = "Option::is_none")]
    decided_by: Option<Operator>,
    #[serde(default, skip_serializing_if = "is_zero")]
    ask: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    escalations: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    paged: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    unheard: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    mass: bool,
    #[serde(getter = "stage::recheck", with = "recheck::option", default, skip_serializing_if = "Option::is_none")]
    recheck: Option<Recheck>,
    #[serde(getter = "stage::hold", with = "operator::option", default, skip_serializing_if = "Option::is_none")]
    hold: Option<Operator>,
    #[serde(with = "alert::list", default, skip_serializing_if = "Vec::is_empty")]
    alerts: Vec<AlertRecord>,
    #[serde(with = "note::list", default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<Note>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Held")]
struct HeldRecord {
    #[serde(with = "guard")]
    guard: Guard,
    detail: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Flip")]
struct FlipRecord {
    #[serde(with = "commit_id", default, skip_serializing_if = "stage::is_unknown")]
    commit: CommitId,
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    decided_at: Option<Timestamp>,
    #[serde(with = "version_name")]
    from: VersionName,
    #[serde(with = "version_name")]
    to: VersionName,
    #[serde(with = "flip_mode")]
    mode: FlipMode,
    #[serde(with = "operator")]
    operator: Operator,
    /// Stands beside the flip.
    #[serde(skip)]
    verification: Option<Verification>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "WouldFlip")]
struct WouldFlipRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "version_name")]
    from: VersionName,
    #[serde(with = "version_name")]
    to: VersionName,
    trigger: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Pending")]
struct PendingRecord {
    #[serde(with = "flip_mode")]
    by: FlipMode,
    #[serde(with = "version_name")]
    from: VersionName,
    #[serde(with = "version_name")]
    to: VersionName,
    #[serde(with = "operator")]
    operator: Operator,
    reason: String,
    #[serde(with = "plan::option", default, skip_serializing_if = "Option::is_none")]
    gradual: Option<Plan>,
    #[serde(default, skip_serializing_if = "is_false")]
    sure: bool,
    #[serde(with = "at")]
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Objection")]
struct ObjectionRecord {
    #[serde(default, skip_serializing_if = "is_false")]
    baseline: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    text_missing: bool,
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Plan")]
struct PlanRecord {
    #[serde(deserialize_with = "percents")]
    stages: Vec<u8>,
    #[serde(with = "millis_list", default, skip_serializing_if = "Vec::is_empty")]
    holds: Vec<Duration>,
    #[serde(with = "millis::option", default, skip_serializing_if = "Option::is_none")]
    limit: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Split")]
struct SplitRecord {
    #[serde(with = "version_name")]
    leaving: VersionName,
    #[serde(with = "version_name")]
    arriving: VersionName,
    #[serde(with = "PlanRecord")]
    plan: Plan,
    #[serde(with = "at", default)]
    began: Timestamp,
    #[serde(default, skip_serializing_if = "is_zero")]
    stage: u32,
    #[serde(with = "at")]
    since: Timestamp,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    next: Option<Timestamp>,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    check: Option<Timestamp>,
    #[serde(with = "operator")]
    operator: Operator,
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused: Option<String>,
    #[serde(with = "check::option", default, skip_serializing_if = "Option::is_none")]
    last: Option<Check>,
    #[serde(rename = "tie_to_arriving", default, skip_serializing_if = "is_false")]
    is_rollback: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Canary")]
struct CanaryRecord {
    #[serde(with = "incident_id")]
    id: IncidentId,
    #[serde(with = "SplitRecord")]
    split: Split,
    #[serde(with = "at")]
    started: Timestamp,
    #[serde(with = "waiting::option", default, skip_serializing_if = "Option::is_none")]
    waiting: Option<Waiting>,
    #[serde(with = "pause::option", default, skip_serializing_if = "Option::is_none")]
    pause: Option<Pause>,
    #[serde(default, skip_serializing_if = "is_false")]
    by_time: bool,
    #[serde(with = "canary_end::option", default, skip_serializing_if = "Option::is_none")]
    end: Option<CanaryEnd>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Waiting")]
struct WaitingRecord {
    #[serde(with = "at")]
    since: Timestamp,
    #[serde(with = "incident_id::option", default, skip_serializing_if = "Option::is_none")]
    asked: Option<IncidentId>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Pause")]
struct PauseRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "operator")]
    operator: Operator,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CanaryEnd")]
struct CanaryEndRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(default, skip_serializing_if = "is_false")]
    promoted: bool,
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Verification")]
struct VerificationRecord {
    #[serde(default, skip_serializing_if = "is_zero")]
    checks: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    healthy: u32,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    healthy_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_zero")]
    unhealthy: u32,
    #[serde(with = "at")]
    next: Timestamp,
    #[serde(with = "check::option", default, skip_serializing_if = "Option::is_none")]
    last: Option<Check>,
    #[serde(with = "traffic::option", default, skip_serializing_if = "Option::is_none")]
    traffic: Option<Traffic>,
    #[serde(default, skip_serializing_if = "is_false")]
    late: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    stale: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    blamed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Check")]
struct CheckRecord {
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "FindingRecord")]
    finding: Finding,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Finding")]
struct FindingRecord {
    #[serde(with = "verdict")]
    verdict: Verdict,
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Traffic")]
struct TrafficRecord {
    target: u64,
    #[serde(default, skip_serializing_if = "is_none_of")]
    failures: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    uncounted: bool,
    bad: u64,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    bad_last_seen: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "is_none_of")]
    bad_percent: u64,
    #[serde(default, skip_serializing_if = "is_empty")]
    following: usize,
    #[serde(with = "instances", default, skip_serializing_if = "Instances::is_empty")]
    still: Instances,
    #[serde(with = "instances", default, skip_serializing_if = "Instances::is_empty")]
    unknown: Instances,
}

/// The names; with a number after them where there are more. The version before wrote at most ten names.
mod instances {
    use super::{Deserialize, Deserializer, Instances, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Item {
        Name(String),
        All(usize),
    }

    pub fn serialize<S: Serializer>(instances: &Instances, serializer: S) -> Result<S::Ok, S::Error> {
        let names = instances.names.iter().cloned().map(Item::Name);
        let more = (instances.count > instances.names.len()).then_some(Item::All(instances.count));
        serializer.collect_seq(names.chain(more))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instances, D::Error> {
        let mut instances = Instances::default();
        for item in Vec::<Item>::deserialize(deserializer)? {
            match item {
                Item::Name(name) => instances.names.push(name),
                Item::All(count) => instances.count = count,
            }
        }
        instances.count = instances.count.max(instances.names.len());
        Ok(instances)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AlertRecord")]
struct Alert {
    fingerprint: String,
    alertname: String,
    #[serde(with = "severity")]
    severity: Severity,
    #[serde(with = "action")]
    action: Action,
    decider: String,
    #[serde(with = "millis")]
    time_limit: Duration,
    firing: bool,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    starts_at: Option<Timestamp>,
    #[serde(with = "at")]
    first_seen: Timestamp,
    #[serde(with = "at")]
    last_seen: Timestamp,
    #[serde(default, skip_serializing_if = "is_false")]
    listed: bool,
    #[serde(with = "at::option", default, skip_serializing_if = "Option::is_none")]
    absent_since: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    summary: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    value: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    verify: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    runbook_url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    dashboard_url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    generator_url: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    alertmanager_url: String,
    #[serde(with = "mass::SharesRecord", default, skip_serializing_if = "Shares::is_empty")]
    shares: Shares,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Note")]
struct NoteRecord {
    seq: u32,
    #[serde(with = "at")]
    at: Timestamp,
    #[serde(with = "note_kind")]
    kind: NoteKind,
    text: String,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const STATE: &str = r#"{"serving":{"version":"v2","since":5,"by":"external"},"versions":[{"version":"v2","known_since":5,"first_active":5,"soak_from":5}],"incidents":[{"id":"01","prompt":"p","version":"v2","phase":"verifying","opened_at":1,"updated_at":2,"severity":"critical","action":"rollback","decider":"on-call","time_limit":120000,"deadline":2,"alerts":[{"fingerprint":"f","alertname":"A","severity":"critical","action":"rollback","decider":"system","time_limit":120000,"firing":true,"first_seen":1,"last_seen":1}],"notes":[{"seq":0,"at":1,"kind":"opened","text":"A"}]}]}"#;

    #[test]
    fn a_record_survives_reading_and_writing_to_the_byte() {
        let (state, unknown) = read_state(STATE).unwrap();
        assert_eq!(unknown, Unknown::default());
        assert_eq!(write_state(&state, &unknown), STATE);
    }

    #[test]
    fn what_older_receivers_wrote_of_soaks_and_trust_is_read() {
        let old = r#"{"versions":[
            {"version":"v1","known_since":5,"soak_from":7},
            {"version":"v2","known_since":5,"known_good":{"at":6}},
            {"version":"v3","known_since":5,"known_good":{"at":6,"marked":true}},
            {"version":"v4","known_since":5,"soak_watch":{"seen":8,"next":9}},
            {"version":"v5","known_since":5,"known_good":{"at":9},"fled":{"at":8,"incident":"01"}}]}"#;
        let (state, _) = read_state(old).unwrap();
        let [soaks, by_time, marked, ended, trusted] = state.versions.as_slice() else { panic!("five versions") };
        assert_eq!(soaks.soak, Some(Soak { from: Timestamp(7), watch: None }));
        assert_eq!(by_time.known_good.map(|good| good.by), Some(Earned::Time));
        assert_eq!(marked.known_good.map(|good| good.by), Some(Earned::Mark));
        assert_eq!(ended.soak, None, "an older receiver ended it");
        assert_eq!(trusted.fled, None, "an older receiver trusted it since");
    }

    #[test]
    fn how_a_version_came_to_be_trusted_or_not_survives() {
        let now = r#"{"versions":[{"version":"v1","known_since":5,"soak_from":5,"soak_watch":{"seen":6,"next":7,"last":"3 of 20"}},{"version":"v2","known_since":5,"known_good":{"at":6,"evidence":true}},{"version":"v3","known_since":5,"fled":{"at":6,"incident":"01"}}]}"#;
        let (state, unknown) = read_state(now).unwrap();
        assert_eq!(unknown, Unknown::default());
        assert_eq!(write_state(&state, &unknown), now);
    }

    #[test]
    fn a_key_without_a_version_and_alerts_that_ended_are_kept() {
        let later = r#""lapsed":{"since":7,"holds":"{oops}","versions":["v2"]},"ended":[{"version":"v2","fingerprint":"f","starts_at":1,"ends_at":2,"at":3}]"#;
        let text = STATE.replacen(r#""serving":{"version":"v2","since":5,"by":"external"},"#, "", 1);
        let text = format!("{},{later}}}", &text[..text.len() - 1]);
        let (state, unknown) = read_state(&text).unwrap();
        assert_eq!(write_state(&state, &unknown), text);
        let lapsed = state.lapsed.unwrap();
        assert_eq!((lapsed.since, lapsed.holds.as_deref(), lapsed.versions.len()), (Timestamp(7), Some("{oops}"), 1));
        assert_eq!(state.ended[0].ends_at, Some(Timestamp(2)));
        // a record of before
        let (state, _) = read_state(STATE).unwrap();
        assert_eq!((state.lapsed, state.ended), (None, vec![]));
    }

    #[test]
    fn a_mark_is_kept_and_a_record_from_before_marks_has_none() {
        let (before, _) = read_state(STATE).unwrap();
        assert!(before.versions[0].mark.is_none() && before.incidents[0].never.is_empty());
        let mark = r#""mark":{"kind":"bad","at":7,"operator":"dana","reason":"leaks a name"},"#;
        let never = r#""never":[{"version":"v1","operator":"dana","reason":"leaks a name"}],"#;
        let marked = STATE
            .replace(r#""soak_from":5"#, &format!(r#""soak_from":5,{}"#, mark.trim_end_matches(',')))
            .replace(r#""phase":"verifying","#, &format!(r#"{never}"phase":"verifying","#));
        let (state, unknown) = read_state(&marked).unwrap();
        assert_eq!(
            state.versions[0].marked_bad().map(Mark::to_string).unwrap(),
            "marked as bad by dana (leaks a name)"
        );
        assert_eq!(state.incidents[0].never[0].reason, "leaks a name");
        assert_eq!(write_state(&state, &unknown), marked);
        assert!(read_state(&marked.replace(r#""kind":"bad""#, r#""kind":"ugly""#)).is_err());
    }

    #[test]
    fn fields_of_a_later_receiver_survive_a_rewrite_at_every_level() {
        let later = STATE
            .replacen('{', r#"{"colour":"blue","#, 1)
            .replace(r#""fingerprint":"f","#, r#""fingerprint":"f","model":{"name":"m"},"#);
        let (mut state, unknown) = read_state(&later).unwrap();
        state.incidents[0].notes.clear();
        state.incidents[0].alerts[0].summary = "new".to_owned();
        state.serving = None;
        let written: Value = serde_json::from_str(&write_state(&state, &unknown)).unwrap();
        assert_eq!(written["colour"], "blue");
        assert_eq!(written["incidents"][0]["alerts"][0]["model"]["name"], "m");
        assert_eq!(written["incidents"][0]["alerts"][0]["summary"], "new");
        assert!(written.get("serving").is_none(), "a field emptied on purpose does not come back");
        assert!(written["incidents"][0].get("notes").is_none());
    }

    #[test]
    fn a_field_that_is_known_elsewhere_survives_where_it_is_not() {
        let later = STATE
            .replacen('{', r#"{"fault":"disk","paused":{"by":"mia"},"#, 1)
            .replace(r#""fingerprint":"f","#, r#""fingerprint":"f","healthy":7,"#);
        let (state, unknown) = read_state(&later).unwrap();
        let written: Value = serde_json::from_str(&write_state(&state, &unknown)).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(&later).unwrap());
    }

    #[test]
    fn of_two_items_with_one_name_each_keeps_its_own() {
        let strays = r#"{"strays":[
            {"version":"v1","fingerprint":"f","alertname":"A","severity":"high","last_seen":1,"colour":"blue"},
            {"version":"v2","fingerprint":"f","alertname":"A","severity":"high","last_seen":1,"shape":"round"},
            {"version":"v2","fingerprint":"f","alertname":"B","severity":"high","last_seen":1,"size":5}]}"#;
        let (mut state, unknown) = read_state(strays).unwrap();
        let mut expected: Value = serde_json::from_str(strays).unwrap();
        let written = |state: &PromptState| {
            let mut written: Value = serde_json::from_str(&write_state(state, &unknown)).unwrap();
            for stray in written["strays"].as_array_mut().unwrap() {
                stray.as_object_mut().unwrap().remove("alert"); // which the version before did not write
            }
            written
        };
        assert_eq!(written(&state), expected);
        // what names other items, but is not understood here, names nothing
        let named = r#"{"versions":[{"version":"v1","known_since":1,"id":"01","fingerprint":"f","seq":1}]}"#;
        let (versions, kept) = read_state(named).unwrap();
        let named_again: Value = serde_json::from_str(&write_state(&versions, &kept)).unwrap();
        assert_eq!(named_again, serde_json::from_str::<Value>(named).unwrap());
        state.strays.remove(0);
        expected["strays"].as_array_mut().unwrap().remove(0);
        assert_eq!(written(&state), expected);
    }

    /// Records as the version before wrote them, when an incident's phase was only a name.
    #[test]
    fn a_phase_of_the_version_before_is_read_with_what_stands_beside_it() {
        let pending = r#""pending":{"by":"approved","from":"v2","to":"v1","operator":"maya","reason":"A","at":7}"#;
        let gradual = r#""gradual":{"leaving":"v2","arriving":"v1","plan":{"stages":[25,100],"holds":[600000]},"since":7,"operator":"maya","reason":"A","tie_to_arriving":true}"#;
        let read = |phase: &str, beside: &str| {
            let record = STATE.replace("verifying", phase).replace(r#""deadline":2"#, beside);
            read_state(&record).unwrap().0.incidents.remove(0)
        };
        let confirming = read("confirming", &format!(r#""deadline":9,{pending}"#));
        assert_eq!(confirming.pending().map(|pending| pending.operator.as_str()), Some("maya"));
        assert_eq!(confirming.deadline(), Some(Timestamp(9)));
        let rolling = read("rolling_back", gradual);
        assert_eq!(rolling.gradual().map(|split| (split.percent(), split.began)), Some((25, Timestamp(7))));
        let held = read("awaiting_decision", r#""hold":"maya","objection":{"baseline":true,"text":"it fails"}"#);
        assert_eq!(
            (held.hold().map(Operator::as_str), held.objection().map(|o| o.baseline)),
            (Some("maya"), Some(true))
        );
        // what is missing makes it a question to people, which can be answered
        for phase in ["confirming", "rolling_back"] {
            let asked = read(phase, r#""deadline":9"#);
            assert_eq!((asked.phase.kind(), asked.deadline()), (PhaseKind::AwaitingDecision, Some(Timestamp(9))));
        }
        let superseded = read("superseded", r#""closed_at":9,"successor":"v3""#);
        assert!(matches!(superseded.phase, crate::decision::Phase::Superseded { by: Some(by) } if by.as_str() == "v3"));
        let escalated = STATE.replace("\"opened\"", "\"escalated\"");
        assert!(read_state(&escalated).unwrap().0.incidents[0].paged, "whoever was paged is told of the end");
    }

    #[test]
    fn what_belongs_to_a_phase_survives_reading_and_writing() {
        let (mut state, unknown) = read_state(STATE).unwrap();
        let (from, to) = (VersionName::parse("v2").unwrap(), VersionName::parse("v1").unwrap());
        let (operator, reason, by) = (Operator::recorded("maya"), "A".to_owned(), FlipMode::Approved);
        let pending = Pending { by, from, to, operator, reason, gradual: None, sure: false, at: Timestamp(7) };
        let question = crate::decision::Question {
            deadline: Some(Timestamp(9)),
            recheck: Some(Recheck { since: Timestamp(3), next: Timestamp(4) }),
            hold: Some(Operator::recorded("bo")),
            objection: Some(Objection { baseline: false, text_missing: false, text: "why".to_owned() }),
        };
        let incident = &mut state.incidents[0];
        incident.phase = crate::decision::Phase::AwaitingDecision(question);
        let asked = state.clone();
        state.incidents[0].confirm(pending, Timestamp(17));
        for state in [asked, state] {
            assert_eq!(read_state(&write_state(&state, &unknown)).unwrap().0, state);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_and_never_a_panic() {
        for end in 0..STATE.len() {
            assert!(read_state(&STATE[..end]).is_err());
        }
        for (from, to) in [("\"v2\"", "\"v{2\""), ("verifying", "flying"), (":5", ":\"5\""), ("[", "{")] {
            assert!(read_state(&STATE.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(read_state("{}").is_ok());
        assert!(read_state("[]").is_err());
        for (percent, damaged) in [(100, false), (101, true)] {
            let split =
                r#"{"leaving":"v1","arriving":"v2","plan":{"stages":[5,%]},"since":5,"operator":"mia","reason":""}"#;
            let state =
                format!(r#"{{"canary":{{"id":"01","split":{split},"started":5}}}}"#).replace('%', &percent.to_string());
            assert_eq!(read_state(&state).is_err(), damaged, "{state}");
        }
    }
}
