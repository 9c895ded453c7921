//! The stored records of an incident that coordinates many prompts. Every field is always written, so that what a later
//! receiver adds is all that a rewrite has to keep.

use super::*;
use crate::decision::alert::Shares;
use crate::decision::mass::{Bulk, Done, Hold, Mass, Member, Order};

pub fn read_mass(json: &str) -> Result<(Mass, Unknown), Unreadable> {
    let (whole::Own(mass), unknown) = read(json)?;
    Ok((mass, unknown))
}

pub fn write_mass(mass: &Mass, unknown: &Unknown) -> String {
    write(whole::Ref(mass), unknown)
}

pub fn read_member(json: &str) -> Result<(Member, Unknown), Unreadable> {
    let (member::Own(member), unknown) = read(json)?;
    Ok((member, unknown))
}

pub fn write_member(member: &Member, unknown: &Unknown) -> String {
    write(member::Ref(member), unknown)
}

as_text! {
    bulk: Bulk, |b| b.as_str(), |t| Bulk::ALL.into_iter().find(|b| b.as_str() == t);
}

containers! {
    whole: Mass, MassRecord;
    member: Member, MemberRecord;
    hold: Hold, HoldRecord;
    order: Order, OrderRecord;
    done: Done, DoneRecord;
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Shares")]
pub(super) struct SharesRecord {
    model: String,
    provider: String,
    group: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Mass")]
struct MassRecord {
    #[serde(with = "incident_id")]
    id: IncidentId,
    decider: String,
    #[serde(with = "at")]
    opened_at: Timestamp,
    #[serde(with = "at")]
    updated_at: Timestamp,
    #[serde(with = "at::option")]
    closed_at: Option<Timestamp>,
    #[serde(with = "hold::option")]
    hold: Option<Hold>,
    #[serde(with = "order::option")]
    order: Option<Order>,
    resumed: bool,
    ask: u32,
    #[serde(with = "note::list")]
    notes: Vec<Note>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Hold")]
struct HoldRecord {
    #[serde(with = "operator")]
    by: Operator,
    #[serde(with = "at")]
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Order")]
struct OrderRecord {
    #[serde(with = "bulk")]
    what: Bulk,
    #[serde(with = "operator")]
    by: Operator,
    #[serde(with = "at")]
    at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Done")]
struct DoneRecord {
    #[serde(with = "at")]
    order: Timestamp,
    failed: bool,
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Member")]
struct MemberRecord {
    #[serde(with = "incident_id")]
    incident: IncidentId,
    #[serde(with = "prompt_name")]
    prompt: PromptName,
    #[serde(with = "version_name")]
    version: VersionName,
    #[serde(with = "version_name::option")]
    target: Option<VersionName>,
    #[serde(with = "phase")]
    phase: PhaseKind,
    ask: u32,
    #[serde(with = "at")]
    began: Timestamp,
    #[serde(with = "at")]
    joined: Timestamp,
    before: bool,
    hold: bool,
    objection: Option<String>,
    #[serde(with = "SharesRecord")]
    shares: Shares,
    #[serde(with = "asked")]
    asked: Option<(Timestamp, u32)>,
    #[serde(with = "done::option")]
    done: Option<Done>,
    #[serde(with = "at::option")]
    tried: Option<Timestamp>,
}

/// Milliseconds and the question.
mod asked {
    use super::*;
    pub fn serialize<S: Serializer>(value: &Option<(Timestamp, u32)>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(|(at, ask)| (at.0, ask)).serialize(serializer)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(Timestamp, u32)>, D::Error> {
        Ok(Option::<(i64, u32)>::deserialize(deserializer)?.map(|(at, ask)| (Timestamp(at), ask)))
    }
}
