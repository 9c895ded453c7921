//! Invariants of every decision, whatever led to it. Checked by all tests and by the properties.

use std::collections::BTreeSet;

use super::*;
use crate::{TrafficSplit, rehearse};

pub(super) fn of_one_decision(policy: &Policy, before: &Snapshot, event: &Event, decision: &Decision, now: Timestamp) {
    a_rehearsal_foretells(policy, before, event, decision, now);
    an_answer_to_an_earlier_question_is_refused(before, event, decision);
    let Some(commit) = &decision.commit else {
        let done = matches!(&decision.answer, Answer::Changed { unchanged: false, .. })
            || matches!(&decision.answer, Answer::Alerts(outcomes) if outcomes.iter().any(|o| o.outcome == Outcome::RolledBack));
        assert!(!done, "claims a change without a commit: {decision:?}");
        return;
    };
    changes_are_logged(before, commit);
    traffic_is_as_the_state_says(before, commit);
    automatic_rollbacks_are_allowed(policy, before, event, commit, now);
    incidents_are_consistent(commit);
    what_is_marked_bad_is_left_alone(policy, before, event, commit, now);
    limits_hold(commit);
    texts_are_kept(policy, before, commit, now);
    trust_is_consistent(commit);
    what_is_needed_is_known(before, commit);
    trust_is_lost_for_a_reason(policy, before, commit, now);
    records_say_it_all(commit);
    whoever_was_asked_may_answer(before, commit);
    alerts_and_sets_end_no_page(before, event, commit);
    nothing_is_overwritten_unseen(before, event, commit);
    an_early_wake_up_escalates_nothing(before, event, commit);
    for write in &commit.incidents {
        let known = before.state.incidents.iter().chain(&before.incident).find(|i| i.id == write.incident.id);
        assert_eq!(write.was, known.map(|i| i.phase.kind()), "the previous phase is recorded");
    }
    for wake in &commit.wakes {
        assert!(
            commit.incidents.iter().any(|w| w.incident.id == wake.incident),
            "a wake-up belongs to a written incident"
        );
    }
    if let Answer::Refused(_) = decision.answer {
        let ours = commit.log.iter().any(|e| e.event.is_change() && e.event != LogEvent::External);
        assert!(!ours && commit.active.is_none() && commit.content.is_empty(), "a refusal leaves something behind");
    }
}

/// A rehearsal of a delivered alert says what was decided, where the rollback goes, and which guard held it.
fn a_rehearsal_foretells(policy: &Policy, before: &Snapshot, event: &Event, decision: &Decision, now: Timestamp) {
    let (Event::Alerts(alerts), Answer::Alerts(outcomes)) = (event, &decision.answer) else { return };
    let ([alert], [outcome]) = (alerts.as_slice(), outcomes.as_slice()) else { return };
    let told = rehearse(policy, before, alert, now);
    assert_eq!((told.outcome, told.reason), (outcome.outcome, outcome.reason), "{told:?}");
    let target = told.target.as_ref().map(|target| &target.version);
    let written = decision.commit.iter().flat_map(|commit| &commit.incidents).map(|write| &write.incident);
    let incident = written.chain(&before.state.incidents).find(|i| Some(&i.id) == outcome.incident.as_ref());
    match (outcome.outcome, outcome.reason) {
        (Outcome::RolledBack, _) => {
            let serving = decision.commit.as_ref().and_then(|commit| commit.state.serving.as_ref());
            assert_eq!(target, serving.map(|serving| &serving.version), "{told:?}");
            assert_eq!(told.guards, [], "{told:?}");
        }
        (Outcome::Held, OutcomeReason::Guard(guard)) => {
            assert_eq!(told.guards.first().map(|holding| holding.held.guard), Some(guard), "{told:?}");
            assert_eq!(target, incident.and_then(|incident| incident.target.as_ref()), "{told:?}");
        }
        _ => assert_eq!(target, incident.and_then(|incident| incident.target.as_ref()), "{told:?}"),
    }
}

/// Until somebody else is asked.
fn whoever_was_asked_may_answer(before: &Snapshot, commit: &Commit) {
    for was in before.state.open_incidents().filter(|i| i.question_number > 0 && i.phase.kind() != PhaseKind::Observing)
    {
        let Some(is) = commit.state.open_incidents().find(|i| i.id == was.id) else { continue };
        let waits = is.phase.is_undecided() || is.phase.kind() == PhaseKind::RollingBack;
        assert!(!waits || is.decider == was.decider || is.question_number > was.question_number, "{was:?} → {is:?}");
    }
}

/// Who is paged is paged until somebody decides, or the alert ends. A SET of the key is no decision.
fn alerts_and_sets_end_no_page(before: &Snapshot, event: &Event, commit: &Commit) {
    let own = |entry: &LogEntry| entry.event.is_change() && entry.event != LogEvent::External;
    let ended = |alert: &Alert| alert.status == AlertStatus::Resolved;
    match event {
        Event::Alerts(alerts) if alerts.iter().any(ended) => return,
        Event::Alerts(_) | Event::CheckDrift if !commit.log.iter().any(own) => {}
        _ => return,
    }
    let serving = commit.state.serving.as_ref().map(|serving| &serving.version);
    for was in before.state.open_incidents().filter(|incident| incident.pages()) {
        // put back by hand, it is in service as any version, and its alerts are heard anew
        let put_back = serving == Some(&was.version) && was.subject() != &was.version;
        // a canary that waits is no failure, and its question ends with it
        if put_back || was.asks_about_canary() {
            continue;
        }
        let mut about = commit.state.open_incidents().filter(|i| i.id == was.id || i.version == was.version);
        assert!(about.any(Incident::pages), "{was:?} → {:?}", commit.incidents);
    }
}

/// A deadline that has passed only by a jump of the clock ends no wait for people.
fn an_early_wake_up_escalates_nothing(before: &Snapshot, event: &Event, commit: &Commit) {
    let Event::Timer { incident, early: true } = event else { return };
    let Some(was) = before.state.open_incidents().find(|i| i.id == *incident) else { return };
    let is = commit.incidents.iter().map(|write| &write.incident).find(|i| i.id == *incident);
    let moved = commit.log.iter().any(|entry| entry.event == LogEvent::External);
    if let Some(is) = is.filter(|_| !moved) {
        assert!(is.escalations <= was.escalations, "{was:?} → {is:?}");
    }
}

/// Whoever answers what is no longer asked, reads the question again.
fn an_answer_to_an_earlier_question_is_refused(before: &Snapshot, event: &Event, decision: &Decision) {
    let Event::Decide(click) = event else { return };
    let incident = before.state.incidents.iter().chain(&before.incident).find(|i| i.id == click.incident);
    if incident.is_some_and(|i| click.question_number.is_some_and(|number| number < i.question_number)) {
        assert!(matches!(decision.answer, Answer::Refused(_)), "{click:?}: {:?}", decision.answer);
    }
}

/// A decision that is the first to notice that `active` holds no version leaves it as it is, unless it is forced or names
/// what is to be served.
fn nothing_is_overwritten_unseen(before: &Snapshot, event: &Event, commit: &Commit) {
    let noticed = commit.log.iter().any(|entry| entry.event == LogEvent::External);
    let allowed = match event {
        Event::Rollback(request) => request.force,
        Event::Decide(click) => click.force,
        Event::Activate(_) | Event::Adopt(_) => true,
        _ => false,
    };
    if noticed && before.active.version().is_none() && !allowed {
        assert_eq!(commit.active, None, "overwritten unseen: {event:?}");
    }
}

/// Whoever reads the records knows what was known.
fn records_say_it_all(commit: &Commit) {
    // an escalation in a record is read as a page, because the previous release recorded no pages
    let as_read = |incident: &Incident| {
        let paged = incident.paged || incident.notes.iter().any(|note| note.kind == NoteKind::Escalated);
        Incident { paged, ..incident.clone() }
    };
    let mut state = commit.state.clone();
    state.incidents.iter_mut().for_each(|incident| *incident = as_read(incident));
    let written = serde_json::to_string(&commit.state).expect("a state serializes");
    assert_eq!(serde_json::from_str::<PromptState>(&written).expect(&written), state, "{written}");
    for incident in commit.incidents.iter().map(|write| &write.incident) {
        let written = serde_json::to_string(incident).expect("an incident serializes");
        assert_eq!(serde_json::from_str::<Incident>(&written).expect(&written), as_read(incident), "{written}");
    }
}

fn changes_are_logged(before: &Snapshot, commit: &Commit) {
    let changes: Vec<_> = commit.log.iter().filter(|e| e.event.is_change()).collect();
    let own: Vec<_> = changes.iter().filter(|e| e.event != LogEvent::External).collect();
    match &commit.active {
        Some(active) => {
            assert_eq!(own.len(), 1, "one switch, one log entry");
            let shared = matches!(own[0].event, LogEvent::Gradual | LogEvent::Canary);
            assert!(shared || own[0].to.as_deref() == Some(active.as_str()));
            assert_eq!(commit.state.serving.as_ref().map(|s| &s.version), Some(active));
            assert_ne!(before.active.version(), Some(active), "a switch to what is served already");
        }
        None => {
            let moved = commit.routing != Routing::Keep;
            assert!(own.is_empty() || (own.len() == 1 && moved), "a log entry without a change");
            assert_eq!(commit.state.serving.as_ref().map(|s| &s.version), before.active.version());
        }
    }
    assert_eq!(changes.len(), commit.changes.len(), "every change is published");
    let served: Vec<_> = commit.served.iter().map(|s| s.version.clone()).collect();
    assert_eq!(served, commit.state.served());
}

/// The keys for prompt servers match the state.
fn traffic_is_as_the_state_says(before: &Snapshot, commit: &Commit) {
    let active = commit.active.as_ref().or(before.active.version());
    let splits = commit.state.incidents.iter().filter_map(|i| i.gradual());
    let splits: Vec<_> = splits.chain(commit.state.running_canary().map(|canary| &canary.split)).collect();
    assert!(splits.len() <= 1, "two splits at once");
    for incident in &commit.state.incidents {
        assert_eq!(incident.gradual().is_some(), incident.phase.kind() == PhaseKind::RollingBack, "{incident:?}");
    }
    let Some(split) = splits.first() else {
        let shared = before.state.split().is_some() && !before.routing.is_empty();
        assert!(!shared || commit.routing == Routing::Drop, "a split is left behind");
        return;
    };
    assert_eq!(active, Some(split.major()));
    assert_ne!(split.leaving, split.arriving);
    assert!((1..100).contains(&split.percent()), "{split:?}");
    match &commit.routing {
        Routing::Set(shares) => {
            assert_eq!(*shares, split.routing());
            assert_eq!(shares.iter().map(|(_, percent)| u32::from(*percent)).sum::<u32>(), 100);
        }
        Routing::Keep => assert_eq!(before.state.split().map(TrafficSplit::routing), Some(split.routing())),
        Routing::Drop => panic!("a split without shares"),
    }
}

fn automatic_rollbacks_are_allowed(policy: &Policy, before: &Snapshot, event: &Event, commit: &Commit, now: Timestamp) {
    let system = commit.log.iter().any(|e| e.event == LogEvent::Rollback && e.operator == Operator::SYSTEM);
    // the end of a canary, or of a gradual rollback after a critical alert, is no decision to roll back
    let split = before.state.split().filter(|_| commit.automatic.is_none());
    assert_eq!(
        system && split.is_none(),
        commit.automatic.is_some(),
        "the budget counts exactly the automatic rollbacks"
    );
    if !system {
        return;
    }
    let entry = commit.log.iter().find(|e| e.event == LogEvent::Rollback).expect("an entry");
    let bad = &v(entry.from.as_deref().expect("only a served version can be rolled back"));
    assert!(before.paused.is_none(), "automation is paused");
    assert!(before.active.version().is_some(), "the served version is unknown");
    if let Some(split) = split {
        let target = entry.to.as_deref().map(v).expect("a target");
        assert!(before.state.marked_bad(&target).is_none(), "{target} is marked as bad: {entry:?}");
        assert!(split.has(bad) && *split.other(bad) == target, "{entry:?}");
        return;
    }
    match event {
        Event::Alerts(alerts) => {
            assert!(!policy.requery, "Prometheus was not asked");
            let named = alerts.iter().any(|a| a.status == AlertStatus::Firing && a.version == *bad);
            assert!(named, "no alert names {bad}");
        }
        Event::Confirmed(confirmed) => {
            let found = (confirmed.finding.verdict, &confirmed.blame);
            assert!(asks_nobody(before, &confirmed.incident) || found == (Verdict::Unhealthy, &None), "{found:?}");
        }
        Event::Timer { incident, .. } => {
            let patient = !policy.verify && rechecks(before, incident);
            assert!(patient || asks_nobody(before, incident), "no alert, no answer: {incident}");
        }
        Event::Rechecked { incident, finding, .. } => {
            assert!(rechecks(before, incident) && !policy.requery, "{incident}");
            assert!(matches!(finding.verdict, Verdict::Unhealthy | Verdict::Unknown), "{finding:?}");
        }
        Event::Resume { incident } => {
            let incident = before.state.incidents.iter().find(|i| i.id == *incident).expect("an open incident");
            assert!(!policy.requery && incident.is_firing() && incident.hold().is_none(), "{incident:?}");
        }
        other => panic!("switched without an alert: {other:?}"),
    }
    assert!(before.paused.is_none() && !policy.dry_run && before.outage_hold.is_none());
    assert!(before.recent_auto < policy.max_auto_rollbacks);
    let served_for = before.state.serving.as_ref().filter(|s| s.version == *bad).map(|s| now.since(s.since));
    let longest = policy.ask_when_active_for_longer_than.unwrap_or(Duration::MAX);
    assert!(served_for.is_none_or(|served| served <= longest), "{bad} has served for {served_for:?}");
    let target = &v(entry.to.as_deref().expect("a rollback has a target"));
    assert_ne!(target, bad);
    let record = before.state.version(target).expect("a target is known before");
    assert!(record.marked_bad().is_none(), "{target} is marked as bad");
    // a split that a person started may complete, against all advice if they insist
    let chosen = before.state.split().is_some_and(|split| split.leaving == *bad && split.arriving == *target);
    assert!(chosen || record.is_target(policy, now), "{target} is quarantined, or not known-good");
    assert!(
        commit.state.version(bad).is_some_and(|r| r.quarantine.is_some()),
        "the rolled-back version is quarantined"
    );
}

/// No version is forgotten that has traffic or may get it by itself, or that an open incident is about.
fn what_is_needed_is_known(before: &Snapshot, commit: &Commit) {
    let state = &commit.state;
    let mut needed = super::ledger::have_traffic(state);
    for incident in state.open_incidents() {
        needed.extend([incident.version.clone(), incident.subject().clone()]);
        needed.extend(incident.pending().map(|pending| pending.to.clone()));
        // the record of a rollback that is only checked keeps what was offered before it
        let asks = incident.awaits_decision() || incident.gradual().is_some();
        needed.extend(incident.choices.iter().filter(|_| asks).cloned());
    }
    for version in &needed {
        let forgotten = before.state.version(version).is_some() && state.version(version).is_none();
        assert!(!forgotten, "{version} is forgotten");
    }
}

/// A version that people moved away from is not trusted; only a served version, with nothing against it, soaks.
fn trust_is_consistent(commit: &Commit) {
    for record in &commit.state.versions {
        let trusted = record.known_good.or(record.quarantine.as_ref().and_then(|quarantine| quarantine.known_good));
        assert!(record.fled.is_none() || trusted.is_none(), "{record:?}");
        let Some(soak) = &record.soak else { continue };
        assert_eq!(commit.state.serving.as_ref().map(|s| &s.version), Some(&record.version));
        assert!(record.must_soak() && soak.watch.is_some(), "{record:?}");
        assert!(!commit.state.is_in_trouble(&record.version), "it soaks while an incident is open");
    }
}

/// P2: a version stops being known-good only by a rollback away from it, or by losing traffic with an undecided or
/// firing incident.
fn trust_is_lost_for_a_reason(policy: &Policy, before: &Snapshot, commit: &Commit, now: Timestamp) {
    for was in before.state.versions.iter().filter(|record| record.known_good(policy, now).is_some()) {
        let Some(is) = commit.state.version(&was.version) else { continue }; // forgotten as a whole
        if is.known_good(policy, now).is_some() {
            continue;
        }
        let rolled_back = is.quarantine.as_ref().is_some_and(|quarantine| quarantine.at == now)
            && commit
                .log
                .iter()
                .any(|e| e.event == LogEvent::Rollback && e.from.as_deref() == Some(was.version.as_str()));
        // it may have lost it externally, and got it back at once
        let moved = commit.log.iter().any(|entry| entry.event == LogEvent::External);
        let keeps = commit.state.served().contains(&was.version) && !moved;
        // without a version in the key, prompt servers keep their version
        let unclear = before.state.lapsed.is_some() || commit.state.lapsed.is_some();
        // an external SET that this commit notices gave it the traffic that it loses here
        let to_it = |e: &LogEntry| e.event == LogEvent::External && e.to.as_deref() == Some(was.version.as_str());
        let had_traffic = before.state.served().contains(&was.version) || commit.log.iter().any(to_it);
        let lost_traffic = (had_traffic || unclear) && !keeps;
        let left = is.fled.as_ref().filter(|fled| fled.at == now && lost_traffic);
        // an incident that this commit opens counts if it was opened by an alert
        let known = |id: &IncidentId| {
            let write = commit.incidents.iter().find(|write| write.incident.id == *id);
            write.is_some_and(|write| write.was.is_some() || write.incident.is_firing())
        };
        // or its alert already fired, and is handled in the same commit
        let inactive = before.state.inactive_alerts.iter().any(|inactive| inactive.version == was.version);
        let undecided = left.is_some_and(|fled| known(&fled.incident) || inactive);
        let by_mark = |e: &LogEntry| e.event == LogEvent::MarkBad && e.to.as_deref() == Some(was.version.as_str());
        let marked = commit.log.iter().any(by_mark);
        assert!(
            rolled_back || undecided || marked,
            "P2: {} lost its trust for no reason: {was:?} → {is:?}",
            was.version
        );
    }
}

/// Its alert began before the version's activation, and still fires.
fn rechecks(before: &Snapshot, incident: &IncidentId) -> bool {
    let waits = before.state.incidents.iter().find(|i| i.id == *incident);
    waits.is_some_and(|i| i.is_firing() && i.recheck().is_some())
}

/// The pending rollback was decided, and only waited for content.
fn asks_nobody(before: &Snapshot, incident: &IncidentId) -> bool {
    let waited = before.state.incidents.iter().find(|i| i.id == *incident);
    waited.and_then(|i| i.pending()).is_some_and(|pending| pending.skip_confirmation)
}

/// No automatic rollback goes to it, no question offers it, no canary promotes it, and no person activates it without
/// force.
fn what_is_marked_bad_is_left_alone(
    policy: &Policy,
    before: &Snapshot,
    event: &Event,
    commit: &Commit,
    now: Timestamp,
) {
    let is_bad = |version: &VersionName| commit.state.marked_bad(version).is_some();
    // external changes are noticed in the same commit
    let moved = commit.log.iter().any(|entry| entry.event == LogEvent::External);
    if let (Event::Mark(marking), false) = (event, moved) {
        let good = |state: &PromptState, version: &VersionName| {
            state.version(version).is_some_and(|record| record.known_good(policy, now).is_some())
        };
        for record in before.state.versions.iter().filter(|record| record.version != marking.version) {
            let lost = good(&before.state, &record.version) && !good(&commit.state, &record.version);
            assert!(!lost, "{} is known-good no more: {marking:?}", record.version);
        }
    }
    for served in &commit.served {
        assert!(!served.previous.as_ref().is_some_and(is_bad), "{served:?}");
    }
    for incident in commit.state.open_incidents() {
        // a target that a person chose is no offer
        let offered = incident.choices.iter().chain(incident.target.iter().filter(|_| incident.phase.is_undecided()));
        let bad: Vec<_> = offered.filter(|version| is_bad(version)).collect();
        assert!(bad.is_empty(), "{bad:?} offered by {incident:?}");
        let named =
            [Some(&incident.version), incident.switch.as_ref().map(|switch| &switch.from)].into_iter().flatten();
        for version in named {
            assert_eq!(incident.is_marked_bad(version), is_bad(version), "{version} in {incident:?}");
        }
    }
    for version in commit.state.served().iter().filter(|version| before.state.marked_bad(version).is_some()) {
        let forced = match event {
            Event::Rollback(request) => request.force,
            Event::Activate(request) => request.force,
            Event::Decide(click) => click.force,
            Event::Steer(request) => request.force,
            _ => false,
        };
        // forced earlier, and completed only now
        let asked = before.state.open_incidents().any(|incident| {
            incident.pending().is_some_and(|pending| pending.to == *version && pending.by != SwitchMode::Auto)
                || incident.gradual().is_some_and(|split| split.arriving == *version)
        });
        let set = commit.log.iter().any(|entry| entry.event == LogEvent::External);
        let more = commit.state.percent(version) > before.state.percent(version);
        assert!(!more || forced || asked || set, "{version} is marked as bad and gets more traffic: {event:?}");
    }
}

fn incidents_are_consistent(commit: &Commit) {
    let mut troubled = BTreeSet::new();
    for incident in commit.state.open_incidents() {
        // after a rollback, a version may get traffic again, and be in trouble again
        let about = (&incident.version, incident.subject());
        assert!(troubled.insert(about), "two open incidents on {}", incident.version);
        // an incident lasts as long as the traffic that it is about
        let kept = |lapsed: &Lapsed| lapsed.versions.contains(incident.subject());
        let served = commit.state.served().contains(incident.subject());
        assert!(served || commit.state.lapsed.as_ref().is_some_and(kept), "{:?} {incident:?}", commit.state.lapsed);
        assert!(incident.closed_at.is_none());
    }
    for write in &commit.incidents {
        assert_eq!(write.incident.closed_at.is_none(), write.incident.phase.is_open());
        let seqs: Vec<_> = write.incident.notes.iter().map(|n| n.seq).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "notes are numbered upwards");
        if write.incident.phase.is_open() {
            let stored = commit.state.incidents.iter().find(|i| i.id == write.incident.id);
            assert_eq!(stored, Some(&write.incident), "state and incident record agree");
        }
    }
}

/// No content is dropped that anything needs, or that exists nowhere else; no version is served without its content.
fn texts_are_kept(policy: &Policy, before: &Snapshot, commit: &Commit, now: Timestamp) {
    let needed = rules::needed(&commit.state, policy, now);
    let is_target = |version| {
        let served = commit.state.served();
        served.contains(version) || served.iter().any(|s| commit.state.target(Some(s), policy, now) == Some(version))
    };
    for (version, text) in &commit.content {
        let Some(record) = commit.state.version(version) else { continue }; // forgotten as a whole
        if text.is_some() {
            assert!(record.has_content && record.archived.is_none());
            continue;
        }
        assert!(!needed.contains(&version) && !is_target(version), "the content of {version} is needed");
        match &record.archived {
            Some(archived) => assert!(before.content.as_ref().is_some_and(|text| archived.is_of(text))),
            None => assert!(now.since(record.last_use()) >= policy.keep, "{version} is dropped early"),
        }
    }
    let lost = |version: &VersionName| {
        let is = |state: &PromptState| {
            let record = state.version(version);
            record
                .is_some_and(|record| record.has_content && record.archived.as_ref().is_some_and(|a| a.fault.is_none()))
        };
        is(&commit.state) && is(&before.state)
    };
    let arriving = commit.state.served().into_iter().filter(|version| !before.state.served().contains(version));
    for version in arriving {
        // a SET of the key gave it the traffic that our split takes away
        let set = before.active.version() == Some(&version);
        let ours = commit.active.as_ref() == Some(&version) || (matches!(commit.routing, Routing::Set(_)) && !set);
        assert!(!ours || !lost(&version), "{version} is served, and its text is in the archive");
    }
    for record in commit.state.versions.iter().filter(|record| record.archived.is_some()) {
        assert!(record.has_content, "an archived version has a text");
    }
}

fn limits_hold(commit: &Commit) {
    let state = &commit.state;
    assert!(state.versions.len() <= Policy::MAX_VERSIONS, "{} versions", state.versions.len());
    assert!(state.inactive_alerts.len() <= Policy::MAX_INACTIVE_ALERTS);
    assert!(state.silences.len() <= Policy::MAX_SILENCES);
    assert!(state.ended.len() <= Policy::MAX_ENDED);
    assert!(state.lapsed.is_none() || state.serving.is_none(), "active holds a version, and none");
    for incident in &state.incidents {
        assert!(incident.alerts.len() <= Policy::MAX_ALERTS);
        assert!(incident.notes.len() <= Policy::MAX_NOTES);
        assert!(incident.escalations <= Policy::ESCALATIONS);
    }
    let names: BTreeSet<_> = state.versions.iter().map(|v| &v.version).collect();
    assert_eq!(names.len(), state.versions.len(), "a version is listed once");
}
