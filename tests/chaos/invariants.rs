//! Properties that must hold once all faults are over, seen from the outside: Redis' keys, the API, Slack.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::clients::Accepted;
use crate::history::{Entry, text};

/// One prompt.
#[derive(Debug, Clone, Default)]
pub struct PromptFacts {
    pub active: Option<String>,
    pub routing: BTreeMap<String, u8>,
    pub log: Vec<Entry>,
}

/// A message in Slack that belongs to an incident, by its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub incident: String,
    /// `root`, `overview`, `reply-3`.
    pub what: String,
    pub channel: String,
    pub ts: String,
    /// The root, for a reply.
    pub thread: Option<String>,
}

/// Everything that was found.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub prompts: BTreeMap<String, PromptFacts>,
    /// As the API returns them.
    pub incidents: Vec<Value>,
    pub accepted: Vec<Accepted>,
    /// Prompts with a single critical alert.
    pub once: Vec<String>,
    /// Redis TIME, in milliseconds.
    pub now: i64,
    /// Wake-ups, and when they are due.
    pub due: Vec<(String, i64)>,
    pub leased: Vec<String>,
    pub dead_letters: Vec<String>,
    /// Pending Slack updates.
    pub unsent: Vec<String>,
    /// The counters of open incidents, by phase.
    pub phases: BTreeMap<String, i64>,
    /// Sorted by Slack's `ts`.
    pub told: Vec<Told>,
    /// Found while time passed.
    pub late: Vec<String>,
    /// Acknowledged changes may be lost.
    pub lossy: bool,
    /// Messages may be posted twice: a worker was stopped for longer than a lease, or a failover lost its progress, for
    /// which no replica is waited for.
    pub may_double: bool,
    /// The incident of a message may be lost: the half-minute wait for a replica was skipped.
    pub may_orphan: bool,
}

/// How long a wake-up may wait: one lease, and the steps in which time moves.
pub const LATE_MS: i64 = 30_000 + 10_000;

/// Describes each violation. `lost`: acknowledged changes that are gone, if that is allowed.
pub fn broken(facts: &Facts, lost: &mut Vec<String>) -> Vec<String> {
    let mut broken = facts.late.clone();
    for (prompt, found) in &facts.prompts {
        served_as_logged(prompt, found, &mut broken);
        steps_taken_once(prompt, found, &mut broken);
    }
    switches_are_entries(facts, &mut broken);
    accepted_is_done(facts, lost, &mut broken);
    nothing_is_left(facts, &mut broken);
    told_once_and_in_order(facts, lost, &mut broken);
    broken
}

/// Messages that were posted more than once.
pub fn doubled(facts: &Facts) -> usize {
    let different: BTreeSet<_> = facts.told.iter().map(|told| (&told.incident, &told.what)).collect();
    facts.told.len() - different.len()
}

/// The percentage on `to` in an entry of a split.
fn percent(entry: &Entry) -> Option<u8> {
    entry.reason.split_once(" % on ")?.0.parse().ok()
}

/// `active` and `routing` match the log, and each entry begins where the previous one ended.
fn served_as_logged(prompt: &str, found: &PromptFacts, broken: &mut Vec<String>) {
    let mut serves: Option<String> = None;
    let mut shares = BTreeMap::new();
    for (at, entry) in found.log.iter().enumerate() {
        let split = matches!(entry.event.as_str(), "gradual" | "canary");
        let goes_on = shares.is_empty() && !split;
        if goes_on && serves.as_ref().is_some_and(|serves| *serves != entry.from) {
            broken.push(format!("{prompt}: entry {at} leaves {}, but {serves:?} was served", entry.from));
        }
        match percent(entry).filter(|_| split) {
            Some(percent) => {
                shares = BTreeMap::from([(entry.from.clone(), 100 - percent), (entry.to.clone(), percent)]);
                // a tie goes to the rollback target: for a canary, that is the old version
                let arrived = percent > 50 || (percent == 50 && entry.event == "gradual");
                serves = Some(if arrived { entry.to.clone() } else { entry.from.clone() });
            }
            None => {
                shares.clear();
                serves = Some(entry.to.clone());
            }
        }
    }
    if serves != found.active {
        broken.push(format!("{prompt}: {:?} is active, the log says {serves:?}", found.active));
    }
    if shares != found.routing {
        broken.push(format!("{prompt}: routing is {:?}, the log says {shares:?}", found.routing));
    }
}

/// Each stage of a split starts once, in order.
fn steps_taken_once(prompt: &str, found: &PromptFacts, broken: &mut Vec<String>) {
    let mut last: BTreeMap<&str, u8> = BTreeMap::new();
    for entry in found.log.iter().filter(|entry| matches!(entry.event.as_str(), "gradual" | "canary")) {
        let Some(percent) = percent(entry) else {
            broken.push(format!("{prompt}: a stage without a percent: {entry:?}"));
            continue;
        };
        if let Some(before) = last.insert(&entry.operator, percent).filter(|before| *before >= percent) {
            broken.push(format!("{prompt}: a stage of {percent} % after one of {before} % ({})", entry.operator));
        }
    }
}

/// Each rollback in the log is the switch of its incident, and vice versa.
fn switches_are_entries(facts: &Facts, broken: &mut Vec<String>) {
    let mut entries: BTreeMap<(String, String), Vec<&Entry>> = BTreeMap::new();
    for (prompt, found) in &facts.prompts {
        for entry in found.log.iter().filter(|entry| entry.event == "rollback" && !entry.incident.is_empty()) {
            entries.entry((prompt.clone(), entry.incident.clone())).or_default().push(entry);
        }
    }
    for incident in &facts.incidents {
        let (id, prompt) = (text(&incident["id"]), text(&incident["prompt"]));
        let logged = entries.remove(&(prompt.clone(), id.clone())).unwrap_or_default();
        let switch = &incident["flip"];
        match (switch.is_null(), logged.as_slice()) {
            (true, []) => {}
            (false, [entry]) => {
                let same = entry.from == text(&switch["from"]) && entry.to == text(&switch["to"]);
                if !same || entry.operator != text(&switch["operator"]) {
                    broken.push(format!("{prompt}: the switch of {id} is not the one in the log: {switch} {entry:?}"));
                }
            }
            (_, logged) => {
                broken.push(format!("{prompt}: {} entries for the switch of {id}: {switch} {logged:?}", logged.len()))
            }
        }
    }
    for ((prompt, incident), logged) in entries {
        broken.push(format!("{prompt}: a rollback of no incident ({incident}): {logged:?}"));
    }
}

/// An alert that was answered with 200 had its effect, once.
fn accepted_is_done(facts: &Facts, lost: &mut Vec<String>, broken: &mut Vec<String>) {
    for accepted in &facts.accepted {
        let Some(found) = facts.prompts.get(&accepted.prompt) else { continue };
        let Some(incident) = accepted.incident.as_ref().filter(|_| accepted.outcome == "rolled_back") else { continue };
        if !found.log.iter().any(|entry| entry.event == "rollback" && entry.incident == *incident) {
            let what =
                format!("{}: the rollback of {incident} was answered 200 and is not in the log", accepted.prompt);
            if facts.lossy { lost.push(what) } else { broken.push(what) }
        }
    }
    for prompt in &facts.once {
        let found = facts.prompts.get(prompt).cloned().unwrap_or_default();
        let switches = found.log.iter().filter(|entry| entry.event == "rollback").count();
        if switches != 1 || found.active.as_deref() != Some("v1") {
            broken.push(format!("{prompt}: {switches} rollbacks, {:?} is active: {:?}", found.active, found.log));
        }
        let accepted = facts.accepted.iter().filter(|accepted| accepted.prompt == *prompt);
        let did = accepted.filter(|accepted| accepted.outcome == "rolled_back").count();
        if did > 1 && !facts.lossy {
            broken.push(format!("{prompt}: {did} alerts were told that they rolled it back"));
        }
    }
}

/// No wake-up is lost, and none is left over.
fn nothing_is_left(facts: &Facts, broken: &mut Vec<String>) {
    if !facts.leased.is_empty() {
        broken.push(format!("left in leased: {:?}", facts.leased));
    }
    if !facts.dead_letters.is_empty() {
        broken.push(format!("left among the dead letters: {:?}", facts.dead_letters));
    }
    if !facts.unsent.is_empty() {
        broken.push(format!("left in unsent: {:?}", facts.unsent));
    }
    for (member, at) in &facts.due {
        if *at <= facts.now - LATE_MS {
            broken.push(format!("left in due: {member}, for {} ms", facts.now - at));
        }
    }
    let mut open: BTreeMap<String, i64> = BTreeMap::new();
    for incident in facts.incidents.iter().filter(|incident| incident["closed_at"].is_null()) {
        *open.entry(text(&incident["phase"])).or_default() += 1;
        let wanted = format!("{}|act", text(&incident["id"]));
        let wakes = facts.due.iter().find(|(member, _)| *member == wanted).map(|(_, at)| *at);
        for deadline in [&incident["deadline"], &incident["gradual"]["next_stage_at"]] {
            let Some(deadline) = millis(deadline) else { continue };
            if wakes.is_none_or(|wakes| wakes > deadline) {
                broken.push(format!("no wake-up for {wanted}, due at {deadline}: {wakes:?}"));
            }
        }
    }
    let counted: BTreeMap<_, _> = facts.phases.iter().filter(|(_, n)| **n != 0).collect();
    if counted != open.iter().collect() {
        broken.push(format!("open incidents are counted as {counted:?}, and are {open:?}"));
    }
}

pub fn millis(time: &Value) -> Option<i64> {
    time.as_str()?.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// Each incident has one thread, with each note once and in order.
fn told_once_and_in_order(facts: &Facts, lost: &mut Vec<String>, broken: &mut Vec<String>) {
    let doubles = facts.may_double || facts.lossy;
    let known: BTreeSet<String> = facts.incidents.iter().map(|incident| text(&incident["id"])).collect();
    let mut threads: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for told in facts.told.iter().filter(|told| !told.incident.starts_with('@')) {
        threads.entry(&told.incident).or_default().push(told);
    }
    for (incident, _) in threads.iter().filter(|(incident, _)| !known.contains(**incident)) {
        let what = format!("a thread without an incident: {incident}");
        if facts.lossy || facts.may_orphan { lost.push(what) } else { broken.push(what) }
    }
    for incident in &facts.incidents {
        let id = text(&incident["id"]);
        let all = threads.remove(id.as_str()).unwrap_or_default();
        let roots: Vec<_> = all.iter().filter(|told| told.what == "root").collect();
        if roots.is_empty() || (roots.len() > 1 && !doubles) {
            broken.push(format!("{id} ({}) has {} threads", text(&incident["prompt"]), roots.len()));
        }
        if all.iter().filter(|told| told.what == "overview").count() > 1 && !doubles {
            broken.push(format!("{id} has several overviews"));
        }
        let notes = incident["events"].as_array().map_or(0, Vec::len);
        let threads: Vec<(Vec<usize>, Vec<usize>)> = roots
            .iter()
            .map(|root| {
                let replies = all.iter().filter(|told| told.thread.as_ref() == Some(&root.ts));
                let said: Vec<usize> =
                    replies.filter_map(|told| told.what.strip_prefix("reply-")?.parse().ok()).collect();
                let missing = (1..notes).filter(|seq| !said.contains(seq)).collect();
                (said, missing)
            })
            .collect();
        // of two threads, if that is allowed, one continues
        let Some((said, missing)) = threads.into_iter().min_by_key(|(_, missing)| missing.len()) else { continue };
        let first = |n: &usize| said.iter().position(|said| said == n);
        let in_order = (1..notes).is_sorted_by_key(|n| first(&n));
        if !in_order || (!doubles && !said.is_sorted_by(|a, b| a < b)) {
            broken.push(format!("{id}: replies in the order {said:?}"));
        }
        if !missing.is_empty() {
            broken.push(format!("{id}: of {notes} notes these were not told: {missing:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(event: &str, from: &str, to: &str, operator: &str, incident: &str, reason: &str) -> Entry {
        let [event, from, to, operator, incident, reason] =
            [event, from, to, operator, incident, reason].map(str::to_owned);
        Entry { event, from, to, operator, incident, reason, at: String::new() }
    }

    fn told(what: &str, ts: &str) -> Told {
        let thread = what.starts_with("reply").then(|| "1".to_owned());
        Told { incident: "I1".to_owned(), what: what.to_owned(), channel: "C1".to_owned(), ts: ts.to_owned(), thread }
    }

    /// A valid world: one prompt that was rolled back and is being verified, one in a gradual rollback.
    fn good() -> Facts {
        let switched = PromptFacts {
            active: Some("v1".to_owned()),
            routing: BTreeMap::new(),
            log: vec![
                entry("activate", "", "v1", "mia", "", ""),
                entry("activate", "v1", "v2", "mia", "", ""),
                entry("rollback", "v2", "v1", "system", "I1", "v2 fails"),
            ],
        };
        let stepping = PromptFacts {
            active: Some("v1".to_owned()),
            routing: BTreeMap::from([("v1".to_owned(), 50), ("v2".to_owned(), 50)]),
            log: vec![
                entry("activate", "", "v2", "mia", "", ""),
                entry("gradual", "v2", "v1", "al", "I2", "25 % on v1: slow"),
                entry("gradual", "v2", "v1", "al", "I2", "50 % on v1: slow"),
            ],
        };
        Facts {
            prompts: BTreeMap::from([("once".to_owned(), switched), ("step".to_owned(), stepping)]),
            incidents: vec![json!({
                "id": "I1", "prompt": "once", "phase": "verifying", "closed_at": null,
                "deadline": "1970-01-01T00:02:00Z", "flip": {"from": "v2", "to": "v1", "operator": "system"},
                "events": [{}, {}, {}],
            })],
            accepted: vec![Accepted {
                prompt: "once".to_owned(),
                version: "v2".to_owned(),
                outcome: "rolled_back".to_owned(),
                incident: Some("I1".to_owned()),
            }],
            once: vec!["once".to_owned()],
            now: 60_000,
            due: vec![("I1|act".to_owned(), 120_000)],
            phases: BTreeMap::from([("verifying".to_owned(), 1), ("observing".to_owned(), 0)]),
            told: vec![told("root", "1"), told("overview", "2"), told("reply-1", "3"), told("reply-2", "4")],
            ..Facts::default()
        }
    }

    #[test]
    fn consistent_facts_violate_no_invariant() {
        assert_eq!(broken(&good(), &mut Vec::new()), Vec::<String>::new());
    }

    #[track_caller]
    fn breaks(what: &str, change: impl FnOnce(&mut Facts)) {
        let mut facts = good();
        change(&mut facts);
        let found = broken(&facts, &mut Vec::new());
        assert!(found.iter().any(|line| line.contains(what)), "{what}: {found:?}");
    }

    fn prompt<'a>(facts: &'a mut Facts, name: &str) -> &'a mut PromptFacts {
        facts.prompts.get_mut(name).expect("a prompt")
    }

    #[test]
    fn each_invariant_can_be_broken() {
        breaks("the log says", |facts| prompt(facts, "once").active = Some("v2".to_owned()));
        breaks("the log says", |facts| prompt(facts, "step").active = Some("v2".to_owned()));
        breaks("routing is", |facts| prompt(facts, "step").routing.clear());
        breaks("but Some(\"v1\") was served", |facts| prompt(facts, "once").log[1].from = "v7".to_owned());
        breaks("a stage of 25 % after one of 25 %", |facts| {
            let again = prompt(facts, "step").log[1].clone();
            prompt(facts, "step").log.insert(1, again);
        });
        breaks("0 entries for the switch of I1", |facts| drop(prompt(facts, "once").log.pop()));
        breaks("2 entries for the switch of I1", |facts| {
            let again = prompt(facts, "once").log[2].clone();
            prompt(facts, "once").log.push(again);
        });
        breaks("is not the one in the log", |facts| facts.incidents[0]["flip"]["operator"] = json!("mia"));
        breaks("a rollback of no incident (I9)", |facts| {
            let other = entry("rollback", "v1", "v3", "system", "I9", "");
            prompt(facts, "once").log.push(other);
        });
        breaks("was answered 200 and is not in the log", |facts| {
            facts.accepted[0].incident = Some("I7".to_owned());
        });
        breaks("once: 0 rollbacks", |facts| drop(prompt(facts, "once").log.pop()));
        breaks("2 alerts were told that they rolled it back", |facts| {
            let again = facts.accepted[0].clone();
            facts.accepted.push(again);
        });
        breaks("left in leased", |facts| facts.leased.push("I1|slack".to_owned()));
        breaks("left among the dead letters", |facts| facts.dead_letters.push("I1|act".to_owned()));
        breaks("left in unsent", |facts| facts.unsent.push("I1|slack".to_owned()));
        breaks("left in due", |facts| facts.due.push(("I9|slack".to_owned(), 0)));
        breaks("no wake-up for I1|act", |facts| facts.due.clear());
        breaks("no wake-up for I1|act", |facts| facts.due[0].1 = 120_001);
        breaks("open incidents are counted as", |facts| facts.phases.clear());
        breaks("late", |facts| facts.late.push("late".to_owned()));
        breaks("a thread without an incident", |facts| facts.told[0].incident = "I9".to_owned());
        breaks("has 0 threads", |facts| drop(facts.told.remove(0)));
        breaks("has 2 threads", |facts| facts.told.insert(0, told("root", "0")));
        breaks("several overviews", |facts| facts.told.push(told("overview", "5")));
        breaks("replies in the order [2, 1]", |facts| facts.told.swap(2, 3));
        breaks("replies in the order [1, 2, 2]", |facts| facts.told.push(told("reply-2", "5")));
        breaks("replies in the order [2, 1, 2]", |facts| {
            facts.may_double = true;
            facts.told.insert(2, told("reply-2", "2.5"));
        });
        breaks("these were not told: [2]", |facts| drop(facts.told.pop()));
    }
}
