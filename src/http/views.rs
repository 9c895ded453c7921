//! The JSON shapes of the API. All times are RFC 3339 in UTC; what is absent is null.

use serde_json::{Value, json};

use crate::decision::alert::AlertRecord;
use crate::decision::incident::Incident;
use crate::decision::serving::Lapsed;
use crate::decision::{
    Canary, Failure, Operator, Policy, PromptState, Snapshot, Split, Timestamp, VersionName, VersionRecord,
};
use crate::deployed::{Deployed, WITHIN};
use crate::store::{LoggedChange, rfc3339};

pub(super) fn time(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::String(rfc3339(at)))
}

fn name(version: Option<&VersionName>) -> Value {
    version.map_or(Value::Null, |v| Value::String(v.to_string()))
}

/// When the soak under way ends, if it is not over.
pub fn soak_ends(record: &VersionRecord, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    record.soak.as_ref().map(|soak| soak.from.plus(policy.soak)).filter(|at| *at > now)
}

/// When it counts by time alone, if it wants evidence.
pub fn soak_limit(record: &VersionRecord, policy: &Policy) -> Option<Timestamp> {
    record.soak.as_ref().filter(|soak| soak.wants_evidence(policy)).map(|soak| soak.from.plus(policy.soak_limit))
}

/// What was found when Prometheus was last asked.
fn soak_note(record: &VersionRecord) -> Option<&str> {
    record.soak.as_ref()?.watch.as_ref()?.last.as_deref()
}

/// Why nothing is active although something was.
fn fault(snapshot: &Snapshot) -> Option<String> {
    snapshot.state.lapsed.as_ref().filter(|_| snapshot.active.version().is_none()).map(Lapsed::fault)
}

/// A prompt in the list.
pub fn prompt_row(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> Value {
    let state = &snapshot.state;
    let active = snapshot.active.version();
    let record = active.and_then(|v| state.version(v));
    let good = record.and_then(|record| record.known_good(policy, now));
    let open: Vec<_> = state.open_incidents().map(|i| i.id.0.as_str()).collect();
    json!({
        "prompt": snapshot.prompt.as_str(),
        "active": name(active),
        "active_fault": fault(snapshot),
        "rollback_target": name(state.target(active, policy, now)),
        "activated_at": time(state.serving.as_ref().map(|s| s.since)),
        "known_good": good.is_some(),
        "known_good_by": good.map(|good| good.by.as_str()),
        "soak_ends_at": time(record.and_then(|r| soak_ends(r, policy, now))),
        "soak_limit_at": time(record.and_then(|r| soak_limit(r, policy))),
        "paused": snapshot.paused.is_some(),
        "canary": state.running_canary().map(canary),
        "open_incidents": open,
    })
}

pub fn prompt(snapshot: &Snapshot, policy: &Policy, deployed: &Deployed, now: Timestamp) -> Value {
    let state = &snapshot.state;
    let active = snapshot.active.version();
    let versions: Vec<Value> = state
        .versions
        .iter()
        .map(|v| {
            let good = v.known_good(policy, now);
            json!({
                "version": v.version.as_str(),
                "registered_at": rfc3339(v.known_since),
                "first_activated_at": time(v.first_active),
                "last_active_at": time(v.last_active),
                "active": active == Some(&v.version),
                "known_good": good.is_some(),
                "known_good_at": time(good.map(|g| g.at)),
                "known_good_by": good.map(|g| g.by.as_str()),
                "soak_ends_at": time(soak_ends(v, policy, now)),
                "soak_limit_at": time(soak_limit(v, policy)),
                "soak_note": soak_note(v),
                "left_at": time(v.fled.as_ref().map(|fled| fled.at)),
                "left_with_incident": v.fled.as_ref().map(|fled| fled.incident.0.as_str()),
                "quarantined_at": time(v.quarantine.as_ref().filter(|_| v.soaked(policy, now).is_none()).map(|q| q.at)),
                "mark": v.mark.as_ref().map(|mark| json!({
                    "kind": mark.kind.as_str(),
                    "at": rfc3339(mark.at),
                    "operator": mark.operator.as_str(),
                    "reason": mark.reason,
                })),
                "contact": v.contact,
                "staged_at": time(v.staged_at),
                "has_content": v.has_content,
                "archived_at": time(v.archived.as_ref().map(|archived| archived.at)),
                "archive_fault": v.archived.as_ref().and_then(|archived| archived.fault.as_deref()),
            })
        })
        .collect();
    let routing: serde_json::Map<String, Value> = snapshot
        .routing
        .iter()
        .map(|(v, percent)| (v.clone(), percent.parse::<u8>().map_or(Value::Null, Value::from)))
        .collect();
    json!({
        "prompt": snapshot.prompt.as_str(),
        "active": name(active),
        "active_fault": fault(snapshot),
        "routing": if routing.is_empty() { Value::Null } else { Value::Object(routing) },
        "in_service": in_service(state, deployed),
        "also_changed": also_changed(deployed),
        "rollback_target": name(state.target(active, policy, now)),
        "paused": snapshot.paused.is_some(),
        "canary": state.canary.as_ref().map(canary),
        "versions": versions,
        "incidents": state.open_incidents().map(incident_row).collect::<Vec<_>>(),
    })
}

/// Since when each version with traffic serves, and who put it there. The log may not reach back so far; then the state
/// knows since when it serves most of the traffic.
fn in_service(state: &PromptState, deployed: &Deployed) -> Vec<Value> {
    let served = state.served();
    let row = |version: &VersionName| {
        let placed = deployed.in_service.iter().find(|placed| placed.version == version.as_str());
        let placed = placed.filter(|placed| placed.since.is_some());
        let serving = state.serving.as_ref().filter(|serving| serving.version == *version);
        json!({
            "version": version.as_str(),
            "percent": state.percent(version),
            "since": time(placed.and_then(|placed| placed.since()).or(serving.map(|serving| serving.since))),
            "operator": placed.map(|placed| placed.operator.as_str()),
            "event": placed.map(|placed| placed.event.as_str()),
        })
    };
    served.iter().map(row).collect()
}

/// What else changed shortly before: those of the same group first.
fn also_changed(deployed: &Deployed) -> Value {
    let row = |other: &crate::deployed::Other| {
        let version = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        json!({
            "prompt": other.prompt,
            "event": other.event,
            "from": version(&other.from),
            "to": version(&other.to),
            "operator": other.operator,
            "at": rfc3339(Timestamp(other.at)),
            "same_group": other.same_group,
        })
    };
    json!({
        "within_seconds": WITHIN.as_secs(),
        "prompts": deployed.others.iter().map(row).collect::<Vec<_>>(),
        "more": deployed.more,
        "at_least": deployed.at_least,
    })
}

fn split(split: &Split) -> Value {
    json!({
        "from": split.leaving.as_str(),
        "to": split.arriving.as_str(),
        "percent": split.percent(),
        "stages": split.plan.stages,
        "hold_seconds": split.plan.holds.iter().map(std::time::Duration::as_secs).collect::<Vec<_>>(),
        "stage": split.stage,
        "stage_since": rfc3339(split.since),
        "next_stage_at": time(split.next),
        "waits": split.paused,
        "last_check": split.last.as_ref().map(|check| json!({
            "at": rfc3339(check.at), "verdict": check.finding.verdict.as_str(), "text": check.finding.text,
        })),
        "operator": split.operator.as_str(),
    })
}

/// `end` is null while it is under way.
fn canary(canary: &Canary) -> Value {
    let mut view = split(&canary.split);
    view["started_at"] = rfc3339(canary.started).into();
    view["hold_limit_seconds"] = canary.split.plan.limit.map(|limit| limit.as_secs()).into();
    view["analysis"] = if canary.by_time { "off" } else { "on" }.into();
    view["paused_by"] = canary.pause.as_ref().map(|pause| pause.operator.as_str()).into();
    view["question"] =
        canary.waiting.as_ref().and_then(|waiting| waiting.asked.as_ref()).map(|id| id.0.as_str()).into();
    view["end"] = canary
        .end
        .as_ref()
        .map_or(Value::Null, |end| json!({ "at": rfc3339(end.at), "promoted": end.promoted, "text": end.text }));
    view
}

pub fn log_entry(entry: &LoggedChange) -> Value {
    let field = |name: &str| {
        let text = entry.fields.iter().find(|(field, _)| field == name).map(|(_, text)| text.as_str());
        text.filter(|text| !text.is_empty())
    };
    json!({
        "id": entry.id,
        "event": field("event"),
        "from": field("from"),
        "to": field("to"),
        "reason": field("reason"),
        "operator": field("operator"),
        "at": field("at"),
        "incident": field("incident"),
    })
}

/// An incident in a list.
pub fn incident_row(incident: &Incident) -> Value {
    json!({
        "id": incident.id.0,
        "prompt": incident.prompt.as_str(),
        "version": incident.version.as_str(),
        "target": name(incident.target.as_ref()),
        "marked_bad": incident.never.iter().map(|never| json!({
            "version": never.version.as_str(), "operator": never.operator.as_str(), "reason": never.reason,
        })).collect::<Vec<_>>(),
        "phase": incident.phase.as_str(),
        "severity": incident.severity.as_str(),
        "action": incident.action.as_str(),
        "decider": incident.decider,
        "opened_at": rfc3339(incident.opened_at),
        "updated_at": rfc3339(incident.updated_at),
        "closed_at": time(incident.closed_at),
        "deadline": time(incident.deadline()),
        "objection": incident.objection().map(|objection| objection.text.as_str()),
        "reason": incident.failure().map(Failure::as_str),
        "verification": incident.verification().map(|v| json!({
            "checks": v.checks,
            "last": v.last.as_ref().map(|check| json!({
                "at": rfc3339(check.at), "verdict": check.finding.verdict.as_str(), "text": check.finding.text,
            })),
            "traffic": v.traffic.as_ref().map(|traffic| json!({
                "target_requests": traffic.target,
                "target_failures": traffic.failures,
                "bad_requests": traffic.bad,
                "bad_last_seen_at": time(traffic.bad_last_seen),
                "bad_percent": traffic.bad_percent,
                "following": traffic.following,
                "still_serving": traffic.still.names,
                "unknown": traffic.unknown.names,
            })),
        })),
        "guard": incident.held.as_ref().map(|held| json!({ "reason": held.guard.as_str(), "detail": held.detail })),
        "gradual": incident.gradual().map(split),
        "summary": incident.summary(),
        "decided_by": incident.decided_by.as_ref().map(Operator::as_str),
        "flip": incident.flip.as_ref().map(|flip| json!({
            "at": rfc3339(flip.at),
            "from": flip.from.as_str(),
            "to": flip.to.as_str(),
            "mode": flip.mode.as_str(),
            "operator": flip.operator.as_str(),
        })),
    })
}

/// An incident with all that happened to it.
pub fn incident(incident: &Incident) -> Value {
    let mut view = incident_row(incident);
    let events = incident
        .notes
        .iter()
        .map(|note| json!({ "at": rfc3339(note.at), "kind": note.kind.as_str(), "text": note.text }));
    view["events"] = events.collect();
    view["alerts"] = incident.alerts.iter().map(alert).collect();
    view
}

fn alert(alert: &AlertRecord) -> Value {
    json!({
        "fingerprint": alert.fingerprint,
        "alertname": alert.alertname,
        "severity": alert.severity.as_str(),
        "action": alert.action.as_str(),
        "decider": alert.decider,
        "time_limit_seconds": alert.time_limit.as_secs(),
        "firing": alert.firing,
        "starts_at": time(alert.starts_at),
        "first_seen_at": rfc3339(alert.first_seen),
        "last_seen_at": rfc3339(alert.last_seen),
        "summary": alert.summary,
        "description": alert.description,
        "value": alert.value,
        "verify": alert.verify,
        "runbook_url": alert.runbook_url,
        "dashboard_url": alert.dashboard_url,
        "generator_url": alert.generator_url,
    })
}
