//! Incidents that coordinate many prompts, as the API shows and decides them.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Context;
use super::reply::{Failure, Reply, json, no_incident};
use super::views::time;
use crate::coordinate;
use crate::decision::mass::{Bulk, Member, shared};
use crate::decision::{IncidentId, Operator, PhaseKind, Severity};
use crate::store::mass::Coordinated;
use crate::store::rfc3339;

type Result<T> = std::result::Result<T, Failure>;

/// Members shown at most; all are kept.
const MEMBERS: usize = 1_000;

/// In a list: the fields of an incident, and what there is besides.
pub fn row(found: &Coordinated) -> Value {
    let (mass, members) = (&found.mass, &found.members);
    let waiting = members.iter().filter(|member| member.waits()).count();
    let shared = shared(members).into_iter();
    let shared: Vec<Value> =
        shared.map(|(label, value, n)| json!({ "label": label, "value": value, "prompts": n })).collect();
    json!({
        "id": mass.id.0,
        "kind": "mass",
        "prompt": Value::Null,
        "version": Value::Null,
        "target": Value::Null,
        "phase": mass.phase(members).as_str(),
        "severity": Severity::Critical.as_str(),
        "action": "rollback",
        "decider": mass.decider,
        "opened_at": rfc3339(mass.opened_at),
        "updated_at": rfc3339(mass.updated_at),
        "closed_at": time(mass.closed_at),
        "deadline": Value::Null,
        "guard": Value::Null,
        "flip": Value::Null,
        "summary": format!("{} prompts fail together, {waiting} wait for a decision", members.len()),
        "prompts": members.len(),
        "waiting": waiting,
        "shared": shared,
        "hold": mass.hold.as_ref().map(|hold| json!({ "by": hold.by.as_str(), "at": rfc3339(hold.at) })),
        "carrying_out": mass.order.as_ref().map(|order| json!({
            "decision": order.what.as_str(), "by": order.by.as_str(), "at": rfc3339(order.at),
        })),
        "choices": mass.choices(members).into_iter().map(word).collect::<Vec<_>>(),
    })
}

/// A decision in the words of the API.
fn word(bulk: Bulk) -> &'static str {
    match bulk {
        Bulk::RollBack => "approve",
        Bulk::Hold => "dismiss",
        Bulk::Undo => "undo",
        Bulk::Release => "release",
    }
}

fn member(member: &Member) -> Value {
    let failed = member.done.as_ref().filter(|done| done.failed).map(|done| done.text.as_str());
    let labels: serde_json::Map<String, Value> =
        member.shares.pairs().map(|(label, value)| (label.to_owned(), Value::from(value))).collect();
    json!({
        "incident": member.incident.0,
        "prompt": member.prompt.as_str(),
        "version": member.version.as_str(),
        "target": member.target.as_ref().map(ToString::to_string),
        "phase": member.phase.as_str(),
        "began": rfc3339(member.began),
        "flipped_before": member.before,
        "held_back": member.hold,
        "labels": labels,
        "failed": member.objection.as_deref().or(failed),
    })
}

pub async fn incident(context: &Context, id: &IncidentId) -> Result<Reply> {
    let found = context.engine.store.mass(id).await?.ok_or_else(|| no_incident(id))?;
    let mut view = row(&found);
    let notes = found.mass.notes.iter();
    view["events"] = notes.map(|n| json!({ "at": rfc3339(n.at), "kind": n.kind.as_str(), "text": n.text })).collect();
    // who waits comes first, where not all fit
    let mut members: Vec<&Member> = found.members.iter().collect();
    members.sort_by_key(|member| !member.waits());
    view["members"] = members.into_iter().take(MEMBERS).map(self::member).collect();
    view["alerts"] = json!([]);
    Ok(json(StatusCode::OK, &view))
}

/// Writes the decision down; the prompts follow one after the other. `None`: a decision that is for one prompt only.
pub async fn decide(context: &Context, id: &IncidentId, bulk: Option<Bulk>, operator: &Operator) -> Result<Reply> {
    let Some(bulk) = bulk else {
        context.engine.store.mass(id).await?.ok_or_else(|| no_incident(id))?;
        let message = "decision: expected approve, dismiss, undo or release: this is about many prompts";
        return Err(Failure::bad_request(message));
    };
    let decided = coordinate::decide(&context.engine, id, bulk, operator, None, None).await?;
    let found = decided.ok_or_else(|| no_incident(id))??;
    let meant = |member: &&Member| match &found.mass.order {
        Some(order) => member.is_due(order),
        None => member.waits(),
    };
    let answer = json!({
        "success": true,
        "incident": id.0,
        "decision": word(bulk),
        "phase": PhaseKind::as_str(found.mass.phase(&found.members)),
        "prompts": found.members.iter().filter(meant).count(),
        "timestamp": rfc3339(found.mass.updated_at),
    });
    Ok(json(StatusCode::OK, &answer))
}
