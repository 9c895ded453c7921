//! Checks whether a history is linearizable: each request must appear to happen at one moment between its start and its
//! answer, with the answer that a single, sequential prompt gives at that moment.
//!
//! The search is that of Wing and Gong, with Lowe's memoization. The model's state is little more than a position in
//! the deployment log: only the log's next entry explains a change of the active version, all entries must be
//! explained, and a request without a known outcome may explain one at any time after its start. So this also shows
//! that log entries are switches, and switches are log entries.

use std::collections::{BTreeSet, HashSet};

use prompt_rollback::decision::Policy;

use crate::history::{Call, Entry, Got, Op};

/// After this many steps the history is undecided, which counts as a failure.
const STEPS: usize = 2_000_000;

/// The versions that were shipped before the history.
#[derive(Debug, Clone)]
pub struct Start {
    pub active: String,
    pub good: BTreeSet<String>,
    /// Sorted by last activity, the most recent last.
    pub recency: Vec<String>,
}

/// The state after the first entries of the log.
#[derive(Debug, Clone)]
struct After {
    active: String,
    quarantined: BTreeSet<String>,
    good: BTreeSet<String>,
    /// Versions that were known-good when they were rolled back: an undo trusts them again.
    were_good: BTreeSet<String>,
    recency: Vec<String>,
    rolled_back: bool,
}

impl After {
    /// The possible rollback targets, the first choice first.
    fn targets(&self) -> impl Iterator<Item = &String> {
        self.recency.iter().rev().filter(|version| {
            **version != self.active && self.good.contains(*version) && !self.quarantined.contains(*version)
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    /// How many entries of the log are explained.
    log: usize,
    paused: bool,
    /// A rollback activated the served version, and no person has confirmed it since.
    by_rollback: bool,
}

struct Search<'a> {
    ops: &'a [Op],
    log: &'a [Entry],
    after: Vec<After>,
    seen: HashSet<(Vec<u64>, State)>,
    steps: usize,
    /// The best explanation so far, for the report.
    best: (usize, Vec<usize>, State),
}

/// `Err` explains the failure.
pub fn linearizable(start: &Start, ops: &[Op], log: &[Entry]) -> Result<(), String> {
    let after = replay(start, ops, log)?;
    let begun = State { log: 0, paused: false, by_rollback: false };
    let mut search = Search { ops, log, after, seen: HashSet::new(), steps: 0, best: (0, Vec::new(), begun.clone()) };
    let mut done = vec![0u64; ops.len().div_ceil(64)];
    if search.go(&mut done, &mut Vec::new(), begun) {
        return Ok(());
    }
    let (_, order, state) = &search.best;
    let why = if search.steps >= STEPS { "undecided" } else { "not linearizable" };
    let mut text = format!("{why}; at most this is explained, in this order, which ends in {state:?}:\n");
    let line = |op: &Op| format!("  {:>9} … {:>9} {} {:?} -> {:?}\n", op.start, op.end, op.client, op.call, op.got);
    text.extend(order.iter().map(|index| line(&ops[*index])));
    text.push_str("these are left:\n");
    text.extend((0..ops.len()).filter(|index| !order.contains(index)).map(|index| line(&ops[index])));
    text.push_str("the log:\n");
    text.extend(log.iter().enumerate().map(|(at, entry)| format!("  {at} {entry:?}\n")));
    Err(text)
}

/// The state after each entry of the log. An entry must begin where the previous one ended.
fn replay(start: &Start, ops: &[Op], log: &[Entry]) -> Result<Vec<After>, String> {
    let mut now = After {
        active: start.active.clone(),
        quarantined: BTreeSet::new(),
        good: start.good.clone(),
        were_good: BTreeSet::new(),
        recency: start.recency.clone(),
        rolled_back: false,
    };
    let mut all = vec![now.clone()];
    for (at, entry) in log.iter().enumerate() {
        if entry.from != now.active {
            return Err(format!("entry {at} leaves {}, but {} was active: {log:#?}", entry.from, now.active));
        }
        let undone = ops.iter().any(|op| op.call == Call::Undo { operator: entry.operator.clone() });
        match entry.event.as_str() {
            "rollback" => {
                if now.good.remove(&entry.from) {
                    now.were_good.insert(entry.from.clone());
                }
                now.quarantined.insert(entry.from.clone());
                now.rolled_back = true;
            }
            "activate" => {
                if now.were_good.remove(&entry.to) && undone {
                    now.good.insert(entry.to.clone());
                }
            }
            other => return Err(format!("entry {at} is {other}: no request explains it")),
        }
        now.quarantined.remove(&entry.to);
        now.recency.retain(|version| *version != entry.from && *version != entry.to);
        now.recency.extend([entry.from.clone(), entry.to.clone()]);
        now.active.clone_from(&entry.to);
        all.push(now.clone());
    }
    Ok(all)
}

impl Search<'_> {
    fn go(&mut self, done: &mut Vec<u64>, order: &mut Vec<usize>, state: State) -> bool {
        let is_done = |done: &[u64], index: usize| done[index / 64] & (1 << (index % 64)) != 0;
        let left = |done: &[u64]| {
            let open = (0..self.ops.len()).filter(|index| !is_done(done, *index));
            open.collect::<Vec<_>>()
        };
        let open = left(done);
        if open.iter().all(|index| self.ops[*index].got == Got::Unknown) && state.log == self.log.len() {
            return true;
        }
        self.steps += 1;
        if self.steps >= STEPS || !self.seen.insert((done.clone(), state.clone())) {
            return false;
        }
        let explained = order.len() + state.log;
        if explained > self.best.0 {
            self.best = (explained, order.clone(), state.clone());
        }
        let first_end = open.iter().map(|index| self.ops[*index].end).min().unwrap_or(u64::MAX);
        let candidates: Vec<usize> = open.into_iter().filter(|index| self.ops[*index].start <= first_end).collect();
        let steps: Vec<(usize, Vec<State>)> =
            candidates.iter().map(|index| (*index, self.next(&self.ops[*index], &state))).collect();
        // a request that changes nothing and fits now may as well be first
        let still = steps.iter().find(|(index, next)| self.ops[*index].got != Got::Unknown && *next == [state.clone()]);
        let still = still.cloned().map(|step| vec![step]);
        for (index, next) in still.unwrap_or(steps) {
            for state in next {
                done[index / 64] |= 1 << (index % 64);
                order.push(index);
                if self.go(done, order, state) {
                    return true;
                }
                order.pop();
                done[index / 64] &= !(1 << (index % 64));
            }
        }
        self.by_itself(&state).is_some_and(|state| self.go(done, order, state))
    }

    /// Without a Prometheus, an alert from before its version's activation rolls the version back once it has fired
    /// long enough: no request triggers that switch.
    fn by_itself(&self, state: &State) -> Option<State> {
        let entry = self.log.get(state.log)?;
        let activated = self.log[..state.log].last().filter(|before| before.event == "activate")?;
        let moment = |entry: &Entry| entry.at.parse::<jiff::Timestamp>().ok();
        let fired_for = moment(entry)?.duration_since(moment(activated)?).unsigned_abs();
        let heard = |op: &Op| matches!(&op.call, Call::Critical { version } if *version == entry.from);
        let call = Call::Critical { version: entry.from.clone() };
        let alert = self.ops.iter().find(|op| heard(op)).filter(|_| fired_for >= Policy::PREDATES)?;
        self.takes_entry(&Op { call, end: u64::MAX, ..alert.clone() }, state)
    }

    /// Whether `version` was activated although an alert on it had been received: people are asked about that alert
    /// first.
    fn predates(&self, version: &str, op: &Op, state: &State) -> bool {
        let activated = self.log[..state.log].last().is_some_and(|entry| entry.event == "activate");
        let same = |call: &Call| matches!(call, Call::Critical { version: other } if other == version);
        activated && self.ops.iter().any(|other| other != op && same(&other.call) && other.start <= op.end)
    }

    /// The states that `op` may lead to, if it can have happened in `state` with its answer.
    fn next(&self, op: &Op, state: &State) -> Vec<State> {
        match &op.got {
            // a request without a change needs no place in the order
            Got::Unknown => {
                let mut next = Vec::new();
                match &op.call {
                    Call::Pause => next.push(State { paused: true, ..state.clone() }),
                    Call::Resume => next.push(State { paused: false, ..state.clone() }),
                    Call::Activate { version, .. } if self.after[state.log].active == *version => {
                        next.push(State { by_rollback: false, ..state.clone() });
                    }
                    _ => next.extend(self.takes_entry(op, state)),
                }
                if matches!(op.call, Call::Activate { .. }) {
                    next.extend(self.takes_entry(op, state));
                }
                next.retain(|next| next != state);
                next
            }
            got => self.known(op, got, state).into_iter().collect(),
        }
    }

    fn known(&self, op: &Op, got: &Got, state: &State) -> Option<State> {
        let after = &self.after[state.log];
        let same = |holds: bool| holds.then(|| state.clone());
        match (&op.call, got) {
            (Call::Pause, Got::Switched { changed }) => {
                (*changed != state.paused).then(|| State { paused: true, ..state.clone() })
            }
            (Call::Resume, Got::Switched { changed }) => {
                (*changed == state.paused).then(|| State { paused: false, ..state.clone() })
            }
            (Call::Look, Got::Seen { active, quarantined, paused }) => same(
                active.as_ref() == Some(&after.active) && *quarantined == after.quarantined && *paused == state.paused,
            ),
            (call, Got::Changed { from, to, incident }) => {
                let entry = self.log.get(state.log)?;
                // an alert's answer does not name the target
                let told = from.as_ref() == Some(&entry.from)
                    && (*to == entry.to || (to.is_empty() && matches!(call, Call::Critical { .. })))
                    && incident.as_ref().is_none_or(|incident| *incident == entry.incident);
                if told { self.takes_entry(op, state) } else { None }
            }
            (Call::Rollback { .. }, Got::Unchanged { active }) => same(*active == after.active),
            (Call::Activate { .. }, Got::Unchanged { active }) => {
                (*active == after.active).then(|| State { by_rollback: false, ..state.clone() })
            }
            (Call::Critical { version }, Got::Noted { outcome, reason }) => {
                let serves = *version == after.active;
                let clean = after.targets().any(|target| !self.was_alerted(target, op));
                let predates = serves && self.predates(version, op, state);
                let must_roll_back = serves && !state.paused && !state.by_rollback && clean && !predates;
                let ill = !clean && after.targets().next().is_some();
                same(match (outcome.as_str(), reason.as_str()) {
                    ("held", "paused") => serves && state.paused,
                    ("held", "no_known_good") => serves && !state.paused && !clean,
                    ("held", "target_unhealthy") => serves && !state.paused && ill,
                    ("held", "cooldown") => serves && !state.paused && state.by_rollback,
                    ("held", "predates_activation") => predates && !state.paused,
                    ("ignored", "not_active") => !serves,
                    ("ignored", "dismissed") => self.was_silenced(op),
                    ("duplicate" | "incident_updated", _) => !must_roll_back,
                    _ => false,
                })
            }
            (Call::Rollback { from, target, .. }, Got::Refused(code)) => same(match code.as_str() {
                "moved" => from.as_ref().is_some_and(|from| *from != after.active),
                "recently_rolled_back" => after.rolled_back && from.is_none() && target.is_none(),
                "no_known_good" => after.targets().all(|target| self.was_alerted(target, op)),
                // it may have lost its traffic while an incident was open
                "needs_force" => target.as_ref().is_some_and(|target| {
                    after.quarantined.contains(target) || !after.good.contains(target) || self.was_alerted(target, op)
                }),
                _ => false,
            }),
            (Call::Activate { version, force, .. }, Got::Refused(code)) => {
                same(code == "needs_force" && !force && after.quarantined.contains(version))
            }
            (Call::Undo { .. } | Call::Approve { .. } | Call::Dismiss, Got::Refused(code)) => same(matches!(
                code.as_str(),
                "moved" | "already_decided" | "stale" | "unknown_incident" | "no_known_good"
            )),
            (Call::Dismiss, Got::Done) => same(true),
            _ => None,
        }
    }

    /// Whether `call` explains the log's next entry, and the state afterwards.
    fn takes_entry(&self, op: &Op, state: &State) -> Option<State> {
        let call = &op.call;
        let entry = self.log.get(state.log)?;
        let after = &self.after[state.log];
        let rollback = entry.event == "rollback";
        // a version with a firing alert, or one that people moved away from with an incident open, is skipped
        let mut passed = after.targets().take_while(|target| **target != entry.to);
        let to_target =
            after.targets().any(|target| *target == entry.to) && passed.all(|over| self.was_alerted(over, op));
        let explains = match call {
            Call::Critical { version } => {
                rollback
                    && entry.operator == "system"
                    && entry.from == *version
                    && to_target
                    && !state.paused
                    && !state.by_rollback
            }
            Call::Rollback { from, target, operator } => {
                let allowed = |target: &String| after.good.contains(target) && !after.quarantined.contains(target);
                rollback
                    && entry.operator == *operator
                    && from.as_ref().is_none_or(|from| *from == entry.from)
                    && target.as_ref().map_or(to_target, |target| *target == entry.to && allowed(target))
            }
            Call::Approve { operator } => rollback && entry.operator == *operator && to_target,
            Call::Activate { version, force, operator } => {
                !rollback
                    && entry.operator == *operator
                    && entry.to == *version
                    && (*force || !after.quarantined.contains(version))
            }
            Call::Undo { operator } => !rollback && entry.operator == *operator,
            Call::Pause | Call::Resume | Call::Dismiss | Call::Look => false,
        };
        explains.then(|| State { log: state.log + 1, by_rollback: rollback, ..state.clone() })
    }

    /// Whether an alert on `target` may be remembered when `op` ends.
    fn was_alerted(&self, target: &str, op: &Op) -> bool {
        let on_target = |call: &Call| matches!(call, Call::Critical { version } if version == target);
        self.ops.iter().any(|other| on_target(&other.call) && other.start <= op.end)
    }

    /// Whether a person may have silenced the firing alert when `op` ends.
    fn was_silenced(&self, op: &Op) -> bool {
        let silences = |call: &Call| matches!(call, Call::Dismiss | Call::Undo { .. });
        self.ops.iter().any(|other| silences(&other.call) && other.start <= op.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Start {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        Start {
            active: "v3".to_owned(),
            good: names(&["v1", "v2"]).into_iter().collect(),
            recency: names(&["v1", "v2", "v3"]),
        }
    }

    fn op(start: u64, end: u64, call: Call, got: Got) -> Op {
        Op { client: "c".to_owned(), call, start, end, got }
    }

    fn critical() -> Call {
        Call::Critical { version: "v3".to_owned() }
    }

    fn activate(version: &str, operator: &str, force: bool) -> Call {
        Call::Activate { version: version.to_owned(), force, operator: operator.to_owned() }
    }

    fn changed(from: &str, to: &str, incident: &str) -> Got {
        let incident = (!incident.is_empty()).then(|| incident.to_owned());
        Got::Changed { from: Some(from.to_owned()), to: to.to_owned(), incident }
    }

    fn noted(outcome: &str, reason: &str) -> Got {
        Got::Noted { outcome: outcome.to_owned(), reason: reason.to_owned() }
    }

    fn seen(active: &str, quarantined: &[&str], paused: bool) -> Got {
        let quarantined = quarantined.iter().map(|version| (*version).to_owned()).collect();
        Got::Seen { active: Some(active.to_owned()), quarantined, paused }
    }

    fn entry(event: &str, from: &str, to: &str, operator: &str, incident: &str) -> Entry {
        let [event, from, to, operator, incident] = [event, from, to, operator, incident].map(str::to_owned);
        Entry { event, from, to, operator, incident, reason: String::new(), at: String::new() }
    }

    fn switch() -> Entry {
        entry("rollback", "v3", "v2", "system", "I1")
    }

    #[track_caller]
    fn accepts(ops: &[Op], log: &[Entry]) {
        linearizable(&start(), ops, log).unwrap_or_else(|why| panic!("{why}"));
    }

    #[track_caller]
    fn rejects(ops: &[Op], log: &[Entry]) {
        assert!(linearizable(&start(), ops, log).is_err());
    }

    #[test]
    fn concurrent_requests_may_have_happened_in_any_order() {
        let ops = [
            op(0, 10, critical(), noted("duplicate", "duplicate")),
            op(1, 9, critical(), changed("v3", "v2", "I1")),
            op(2, 8, Call::Look, seen("v3", &[], false)),
        ];
        accepts(&ops, &[switch()]);
    }

    #[test]
    fn a_reader_that_sees_the_past_is_not_linearizable() {
        let ops = [op(0, 1, critical(), changed("v3", "v2", "I1")), op(2, 3, Call::Look, seen("v3", &[], false))];
        rejects(&ops, &[switch()]);
        accepts(&[ops[0].clone(), op(0, 3, Call::Look, seen("v3", &[], false))], &[switch()]);
        rejects(&[ops[0].clone(), op(2, 3, Call::Look, seen("v2", &[], false))], &[switch()]);
        accepts(&[ops[0].clone(), op(2, 3, Call::Look, seen("v2", &["v3"], false))], &[switch()]);
    }

    #[test]
    fn a_switch_without_a_request_or_a_log_entry_is_rejected() {
        rejects(&[], &[switch()]);
        rejects(&[op(0, 1, critical(), changed("v3", "v2", "I1"))], &[]);
        rejects(&[op(0, 1, critical(), changed("v3", "v2", "I1"))], &[entry("rollback", "v3", "v2", "system", "I2")]);
        // to a version that is no automatic target
        rejects(&[op(0, 1, critical(), changed("v3", "v1", "I1"))], &[entry("rollback", "v3", "v1", "system", "I1")]);
        // the second one leaves a version that no longer has traffic
        rejects(&[op(0, 1, critical(), changed("v3", "v2", "I1"))], &[switch(), switch()]);
    }

    #[test]
    fn one_request_explains_one_switch() {
        let log = [switch(), entry("activate", "v2", "v3", "mia", ""), switch()];
        let again = op(2, 3, activate("v3", "mia", true), changed("v2", "v3", ""));
        let first = op(0, 1, critical(), changed("v3", "v2", "I1"));
        rejects(&[first.clone(), again.clone()], &log);
        accepts(&[first.clone(), again.clone(), op(4, 5, critical(), changed("v3", "v2", "I1"))], &log);
        accepts(&[first, again, op(4, u64::MAX, critical(), Got::Unknown)], &log);
    }

    #[test]
    fn an_alert_older_than_the_activation_acts_alone_after_five_minutes() {
        let at = |entry: Entry, at: &str| Entry { at: format!("2026-11-28T13:{at}Z"), ..entry };
        let heard = op(0, 1, critical(), changed("v3", "v2", "I1"));
        let again = op(2, 3, activate("v3", "mia", true), changed("v2", "v3", ""));
        let waits = op(4, 5, critical(), noted("duplicate", "duplicate"));
        let log = |switched: &str| {
            [at(switch(), "00:00"), at(entry("activate", "v2", "v3", "mia", ""), "00:10"), at(switch(), switched)]
        };
        let ops = [heard.clone(), again.clone(), waits];
        accepts(&ops, &log("05:10"));
        accepts(&ops, &log("05:10")[..2]);
        rejects(&ops, &log("05:09"));
        let pause = op(6, 7, Call::Pause, Got::Switched { changed: true });
        let look = op(8, 9, Call::Look, seen("v3", &[], true));
        rejects(&[&ops[..], &[pause, look]].concat(), &log("05:10"));
        // no alert on it was received
        let other = op(0, 1, Call::Critical { version: "v1".to_owned() }, noted("ignored", "not_active"));
        rejects(
            &[other, op(2, 3, activate("v2", "mia", true), changed("v3", "v2", ""))],
            &[
                at(entry("activate", "v3", "v2", "mia", ""), "00:10"),
                at(entry("rollback", "v2", "v1", "system", "I1"), "05:10"),
            ],
        );
    }

    #[test]
    fn an_unanswered_request_took_effect_never_or_after_it_was_sent() {
        let lost = op(5, u64::MAX, critical(), Got::Unknown);
        accepts(std::slice::from_ref(&lost), &[]);
        accepts(std::slice::from_ref(&lost), &[switch()]);
        let after = |start| op(start, start + 1, Call::Look, seen("v2", &["v3"], false));
        accepts(&[lost.clone(), after(9)], &[switch()]);
        rejects(&[lost, after(1)], &[switch()]);
    }

    #[test]
    fn an_acknowledged_alert_that_should_have_rolled_back_is_rejected() {
        rejects(&[op(0, 1, critical(), noted("duplicate", "duplicate"))], &[]);
        rejects(&[op(0, 1, critical(), noted("ignored", "not_active"))], &[]);
        rejects(&[op(0, 1, critical(), noted("held", "paused"))], &[]);
        let pause = op(0, 1, Call::Pause, Got::Switched { changed: true });
        accepts(&[pause.clone(), op(2, 3, critical(), noted("held", "paused"))], &[]);
        // after pause has answered, there are no automatic switches
        rejects(&[pause.clone(), op(2, 3, critical(), changed("v3", "v2", "I1"))], &[switch()]);
        let resume = op(4, 5, Call::Resume, Got::Switched { changed: true });
        let late = op(6, 7, critical(), changed("v3", "v2", "I1"));
        accepts(&[pause.clone(), resume, late], &[switch()]);
        rejects(&[pause, op(2, 3, Call::Pause, Got::Switched { changed: true })], &[]);
    }

    #[test]
    fn quarantine_is_lifted_by_force_only() {
        let switched = op(0, 1, critical(), changed("v3", "v2", "I1"));
        let back = |force| op(2, 3, activate("v3", "mia", force), changed("v2", "v3", ""));
        let log = [switch(), entry("activate", "v2", "v3", "mia", "")];
        accepts(&[switched.clone(), back(true)], &log);
        rejects(&[switched.clone(), back(false)], &log);
        let refused = op(2, 3, activate("v3", "mia", false), Got::Refused("needs_force".to_owned()));
        accepts(&[switched.clone(), refused.clone()], &[switch()]);
        rejects(&[refused], &[]);
        let moved = Call::Rollback { from: Some("v2".to_owned()), target: None, operator: "al".to_owned() };
        rejects(&[switched, op(2, 3, moved, Got::Refused("moved".to_owned()))], &[switch()]);
    }
}
