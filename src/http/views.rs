//! Converts types of the core to those of the API.

use crate::api;
use crate::decision::alert::AlertRecord;
use crate::decision::finding::Check;
use crate::decision::incident::Incident;
use crate::decision::note::Note;
use crate::decision::serving::Lapsed;
use crate::decision::{
    Canary, Policy, PromptName, PromptState, Snapshot, Timestamp, TrafficSplit, VersionName, VersionRecord,
};
use crate::deployed::{Deployed, Other, WITHIN};
use crate::figures::{Known, Signal};
use crate::store::{LoggedChange, rfc3339};

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(rfc3339)
}

fn text(value: Option<&impl ToString>) -> Option<String> {
    value.map(ToString::to_string)
}

/// When the current soak ends, if it has not ended.
pub fn soak_ends(record: &VersionRecord, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    record.soak.as_ref().map(|soak| soak.from.plus(policy.soak)).filter(|at| *at > now)
}

/// When time alone makes it known-good, if the soak needs evidence.
pub fn soak_limit(record: &VersionRecord, policy: &Policy) -> Option<Timestamp> {
    record.soak.as_ref().filter(|soak| soak.wants_evidence(policy)).map(|soak| soak.from.plus(policy.soak_limit))
}

/// Why no version is active although one was.
pub fn fault(snapshot: &Snapshot) -> Option<String> {
    snapshot.state.lapsed.as_ref().filter(|_| snapshot.active.version().is_none()).map(Lapsed::fault)
}

/// A prompt in a list.
pub fn prompt_row(snapshot: &Snapshot, policy: &Policy, now: Timestamp) -> api::PromptSummary {
    let state = &snapshot.state;
    let active = snapshot.active.version();
    let record = active.and_then(|v| state.version(v));
    let good = record.and_then(|record| record.known_good(policy, now));
    api::PromptSummary {
        prompt: snapshot.prompt.to_string(),
        active: text(active),
        active_fault: fault(snapshot),
        rollback_target: text(state.target(active, policy, now)),
        activated_at: time(state.serving.as_ref().map(|s| s.since)),
        known_good: good.is_some(),
        known_good_by: good.map(|good| good.by.to_string()),
        soak_ends_at: time(record.and_then(|r| soak_ends(r, policy, now))),
        soak_limit_at: time(record.and_then(|r| soak_limit(r, policy))),
        paused: snapshot.paused.is_some(),
        canary: state.running_canary().map(canary),
        open_incidents: state.open_incidents().map(|i| i.id.to_string()).collect(),
        coverage: None,
    }
}

/// What the rules can judge of the active version.
pub fn coverage(known: &Known, prompt: &str, active: Option<&str>) -> Option<api::CoverageView> {
    let Known::Since(_, figures) = known else { return None };
    let version = figures.of(prompt, active?)?;
    let [errors, p99, quality] =
        Signal::ALL.map(|signal| version.of(signal).coverage.map(|one| one.as_str().to_owned()));
    let is_known = errors.is_some() || p99.is_some() || quality.is_some();
    is_known.then_some(api::CoverageView { errors, p99, quality })
}

pub fn prompt(snapshot: &Snapshot, policy: &Policy, deployed: &Deployed, now: Timestamp) -> api::PromptView {
    let state = &snapshot.state;
    let active = snapshot.active.version();
    let routing = snapshot.routing.iter().map(|(version, percent)| (version.clone(), percent.parse().ok()));
    api::PromptView {
        prompt: snapshot.prompt.to_string(),
        active: text(active),
        active_fault: fault(snapshot),
        routing: (!snapshot.routing.is_empty()).then(|| routing.collect()),
        in_service: in_service(state, deployed),
        also_changed: api::AlsoChanged {
            within_seconds: WITHIN.as_secs(),
            prompts: deployed.others.iter().map(other_change).collect(),
            more: deployed.more,
            at_least: deployed.at_least,
        },
        rollback_target: text(state.target(active, policy, now)),
        paused: snapshot.paused.is_some(),
        canary: state.canary.as_ref().map(canary),
        versions: state.versions.iter().map(|record| version(record, active, policy, now)).collect(),
        incidents: state.open_incidents().map(incident_row).collect(),
        coverage: None,
    }
}

fn version(record: &VersionRecord, active: Option<&VersionName>, policy: &Policy, now: Timestamp) -> api::VersionView {
    let good = record.known_good(policy, now);
    let quarantine = record.quarantine.as_ref().filter(|_| record.soaked(policy, now).is_none());
    api::VersionView {
        version: record.version.to_string(),
        registered_at: Some(rfc3339(record.known_since)),
        first_activated_at: time(record.first_active),
        last_active_at: time(record.last_active),
        active: active == Some(&record.version),
        known_good: good.is_some(),
        known_good_at: time(good.map(|good| good.at)),
        known_good_by: good.map(|good| good.by.to_string()),
        soak_ends_at: time(soak_ends(record, policy, now)),
        soak_limit_at: time(soak_limit(record, policy)),
        soak_note: record.soak.as_ref().and_then(|soak| soak.watch.as_ref()?.last.clone()),
        left_at: time(record.fled.as_ref().map(|fled| fled.at)),
        left_with_incident: text(record.fled.as_ref().map(|fled| &fled.incident)),
        quarantined_at: time(quarantine.map(|quarantine| quarantine.at)),
        mark: record.mark.as_ref().map(|mark| api::MarkView {
            kind: mark.kind.to_string(),
            at: rfc3339(mark.at),
            operator: mark.operator.to_string(),
            reason: mark.reason.clone(),
        }),
        contact: record.contact.clone(),
        staged_at: time(record.staged_at),
        has_content: record.has_content,
        archived_at: time(record.archived.as_ref().map(|archived| archived.at)),
        archive_fault: record.archived.as_ref().and_then(|archived| archived.fault.clone()),
    }
}

/// Since when, and by whom, each version has traffic. If the log does not reach back that far, the state knows since
/// when it has served most of the traffic.
fn in_service(state: &PromptState, deployed: &Deployed) -> Vec<api::DeploymentView> {
    let row = |version: &VersionName| {
        let placed = deployed.in_service.iter().find(|placed| placed.version == version.as_str());
        let placed = placed.filter(|placed| placed.since.is_some());
        let serving = state.serving.as_ref().filter(|serving| serving.version == *version);
        api::DeploymentView {
            version: version.to_string(),
            percent: state.percent(version),
            since: time(placed.and_then(|placed| placed.since()).or(serving.map(|serving| serving.since))),
            operator: placed.map(|placed| placed.operator.clone()),
            event: placed.map(|placed| placed.event.clone()),
        }
    };
    state.served().iter().map(row).collect()
}

fn other_change(other: &Other) -> api::OtherChange {
    let version = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    api::OtherChange {
        prompt: other.prompt.clone(),
        event: other.event.clone(),
        from: version(&other.from),
        to: version(&other.to),
        operator: other.operator.clone(),
        at: rfc3339(Timestamp(other.at)),
        same_group: other.same_group,
    }
}

fn split(split: &TrafficSplit) -> api::SplitView {
    api::SplitView {
        from: split.leaving.to_string(),
        to: split.arriving.to_string(),
        percent: split.percent(),
        stages: split.plan.stages.clone(),
        hold_seconds: split.plan.holds.iter().map(std::time::Duration::as_secs).collect(),
        stage: split.stage,
        stage_since: rfc3339(split.since),
        next_stage_at: time(split.next),
        waits: split.paused.clone(),
        last_check: split.last.as_ref().map(check),
        operator: split.operator.to_string(),
    }
}

fn canary(canary: &Canary) -> api::CanaryView {
    api::CanaryView {
        split: split(&canary.split),
        started_at: rfc3339(canary.started),
        hold_limit_seconds: canary.split.plan.limit.map(|limit| limit.as_secs()),
        analysis: Some(if canary.by_time { "off" } else { "on" }.to_owned()),
        paused_by: text(canary.pause.as_ref().filter(|_| canary.end.is_none()).map(|pause| &pause.operator)),
        question: text(canary.waiting.as_ref().and_then(|waiting| waiting.asked.as_ref())),
        end: canary.end.as_ref().map(|end| api::CanaryEndView {
            at: rfc3339(end.at),
            promoted: end.promoted,
            text: end.text.clone(),
        }),
    }
}

fn check(check: &Check) -> api::CheckView {
    let finding = &check.finding;
    api::CheckView { at: rfc3339(check.at), verdict: finding.verdict.to_string(), text: finding.text.clone() }
}

pub fn log_entry(prompt: &PromptName, entry: &LoggedChange) -> api::LogEntryView {
    let field = |name: &str| {
        let text = entry.fields.iter().find(|(field, _)| field == name).map(|(_, text)| text);
        text.filter(|text| !text.is_empty()).cloned()
    };
    api::LogEntryView {
        prompt: prompt.to_string(),
        id: entry.id.clone(),
        event: field("event"),
        from: field("from"),
        to: field("to"),
        reason: field("reason"),
        operator: field("operator"),
        at: field("at"),
        incident: field("incident"),
    }
}

/// An incident in a list.
pub fn incident_row(incident: &Incident) -> api::IncidentView {
    let marked_bad = incident.never.iter().map(|never| api::MarkedBad {
        version: never.version.to_string(),
        operator: never.operator.to_string(),
        reason: never.reason.clone(),
    });
    api::IncidentView {
        id: incident.id.to_string(),
        prompt: incident.prompt.to_string(),
        version: incident.version.to_string(),
        target: text(incident.target.as_ref()),
        marked_bad: marked_bad.collect(),
        phase: incident.phase.to_string(),
        severity: incident.severity.to_string(),
        action: incident.action.to_string(),
        decider: incident.decider.clone(),
        opened_at: rfc3339(incident.opened_at),
        updated_at: rfc3339(incident.updated_at),
        closed_at: time(incident.closed_at),
        deadline: time(incident.deadline()),
        objection: incident.objection().map(|objection| objection.text.clone()),
        reason: text(incident.failure().as_ref()),
        verification: incident.verification().map(|verification| api::VerificationView {
            checks: verification.checks,
            last: verification.last.as_ref().map(check),
            traffic: verification.traffic.as_ref().map(|traffic| api::TrafficView {
                target_requests: traffic.target,
                target_failures: traffic.failures,
                bad_requests: traffic.bad,
                bad_last_seen_at: time(traffic.bad_last_seen),
                bad_percent: traffic.bad_percent,
                following: traffic.following,
                still_serving: traffic.still.names.clone(),
                unknown: traffic.unknown.names.clone(),
            }),
        }),
        guard: incident
            .held
            .as_ref()
            .map(|held| api::GuardView { reason: held.guard.to_string(), detail: held.detail.clone() }),
        gradual: incident.gradual().map(split),
        summary: incident.summary().to_owned(),
        decided_by: text(incident.decided_by.as_ref()),
        switch: incident.switch.as_ref().map(|switch| api::SwitchView {
            at: rfc3339(switch.at),
            from: switch.from.to_string(),
            to: switch.to.to_string(),
            mode: switch.mode.to_string(),
            operator: switch.operator.to_string(),
        }),
        events: None,
        alerts: None,
    }
}

/// An incident with its history.
pub fn incident(incident: &Incident) -> api::IncidentView {
    api::IncidentView {
        events: Some(incident.notes.iter().map(event).collect()),
        alerts: Some(incident.alerts.iter().map(alert).collect()),
        ..incident_row(incident)
    }
}

pub(super) fn event(note: &Note) -> api::IncidentEvent {
    api::IncidentEvent { at: rfc3339(note.at), kind: note.kind.to_string(), text: note.text.clone() }
}

fn alert(alert: &AlertRecord) -> api::AlertView {
    api::AlertView {
        fingerprint: alert.fingerprint.clone(),
        alertname: alert.alertname.clone(),
        severity: alert.severity.to_string(),
        action: alert.action.to_string(),
        decider: alert.decider.clone(),
        time_limit_seconds: alert.time_limit.as_secs(),
        firing: alert.firing,
        starts_at: time(alert.starts_at),
        first_seen_at: rfc3339(alert.first_seen),
        last_seen_at: rfc3339(alert.last_seen),
        summary: alert.summary.clone(),
        description: alert.description.clone(),
        value: alert.value.clone(),
        verify: alert.verify.clone(),
        runbook_url: alert.runbook_url.clone(),
        dashboard_url: alert.dashboard_url.clone(),
        generator_url: alert.generator_url.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decision::decide::Active;
    use crate::decision::{CommitId, PromptName};
    use crate::deployed::Deployment;
    use crate::store::record::read;

    /// Records, and the answers of the previous release for some of them: line number and answers.
    const STATES: &str = include_str!("../../tests/store/written.jsonl");
    const ANSWERS: &str = include_str!("../../tests/fixtures/answers.jsonl");

    const NOW: Timestamp = Timestamp(1_800_010_000_000);

    fn snapshot(state: PromptState) -> Snapshot {
        let active = state.serving.as_ref().map_or(Active::Absent, |serving| Active::Version(serving.version.clone()));
        let routing = state.split().map(TrafficSplit::routing).unwrap_or_default();
        Snapshot {
            prompt: PromptName::parse("team/search").unwrap(),
            active,
            routing: routing.iter().map(|(version, percent)| (version.to_string(), percent.to_string())).collect(),
            state,
            paused: None,
            recent_auto: 0,
            outage_hold: None,
            incident: None,
            content: None,
            commit: CommitId::default(),
            fresh_ids: Vec::new(),
        }
    }

    /// Each version serves since a time that the log holds, and another prompt changed shortly before.
    fn deployed(state: &PromptState) -> Deployed {
        let placed = |version: &VersionName| Deployment {
            version: version.to_string(),
            since: Some(7),
            event: "activate".to_owned(),
            operator: "ci".to_owned(),
        };
        let other =
            Other { prompt: "q".to_owned(), event: "external".to_owned(), to: "v2".to_owned(), ..Other::default() };
        Deployed {
            in_service: state.served().iter().map(placed).collect(),
            others: vec![other],
            more: 2,
            at_least: true,
        }
    }

    #[test]
    fn answers_are_those_of_the_version_before() {
        let policy = Policy { verify: true, ..Policy::default() };
        for line in ANSWERS.lines() {
            let before: Value = serde_json::from_str(line).expect("JSON");
            let at = before["line"].as_u64().and_then(|at| usize::try_from(at).ok()).expect("a number");
            let (state, _) = read::<PromptState>(STATES.lines().nth(at).expect("a state")).expect("a state");
            let (snapshot, deployed) = (snapshot(state.clone()), deployed(&state));
            let now = json!({
                "line": at,
                "row": prompt_row(&snapshot, &policy, NOW),
                "prompt": prompt(&snapshot, &policy, &deployed, NOW),
                "incidents": state.incidents.iter().map(incident).collect::<Vec<_>>(),
            });
            assert_eq!(now, before, "{now}");
        }
    }
}
