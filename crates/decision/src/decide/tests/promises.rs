//! Promises about every history: it ends in an action, a question or a page.
//!
//! P2 and P5, about known-good versions, are checked with each decision; see [`invariants`](super::invariants).

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::ledger::have_traffic;
use super::properties::{Step, a_world, at, delivery, step, step_or_jump, take};
use super::*;

/// The number of histories is PROPTEST_CASES, from a random seed; by default `cases`, which are always the same.
pub(super) fn config(cases: u32) -> ProptestConfig {
    let (failure_persistence, max_shrink_iters) = (None, 4_000);
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig { failure_persistence, max_shrink_iters, ..ProptestConfig::default() },
        None => ProptestConfig {
            cases,
            rng_seed: RngSeed::Fixed(12),
            failure_persistence,
            max_shrink_iters,
            ..ProptestConfig::default()
        },
    }
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step_or_jump(), 1..60)
}

/// The alerts that fire now, as in Alertmanager: by fingerprint, with the time of the last delivery. Times are those that
/// have really passed, whatever Redis' clock shows.
#[derive(Default, Clone)]
struct Firing {
    alerts: BTreeMap<(VersionName, String), (Alert, Duration)>,
    /// Fingerprints that Alertmanager has listed.
    listed: BTreeSet<String>,
    /// Of these, those that its latest list lacks, and since when.
    absent: BTreeMap<String, Duration>,
}

/// The alerts that fire, as the store knows them: with how many commits it held after each step.
struct Heard(Vec<(usize, Firing)>);

impl Heard {
    fn from(world: &World) -> Self {
        Self(vec![(world.revision, Firing::default())])
    }

    /// What fires after `world` has taken `step`. What a failover has lost was not heard.
    fn take(&mut self, step: &Step, world: &World) -> &Firing {
        if matches!(step, Step::Failover(_)) {
            self.0.retain(|(revision, _)| *revision <= world.revision);
        }
        let mut firing = self.0.last().map(|(_, firing)| firing.clone()).unwrap_or_default();
        firing.take(step, world);
        self.0.push((world.revision, firing));
        self.now()
    }

    fn now(&self) -> &Firing {
        &self.0[self.0.len() - 1].1
    }
}

impl Firing {
    /// Updates it after `world` has taken `step`.
    fn take(&mut self, step: &Step, world: &World) {
        match step {
            Step::Deliver(alerts) => self.deliver(alerts, world),
            Step::List(alerts) => {
                self.list(alerts.iter().map(|alert| alert.fingerprint.clone()).collect(), world.ledger.elapsed)
            }
            _ => {}
        }
    }

    /// What Alertmanager no longer lists has ended, although it has sent no `resolved`.
    fn list(&mut self, listed: BTreeSet<String>, now: Duration) {
        let firing: BTreeSet<String> = self.alerts.keys().map(|(_, fingerprint)| fingerprint.clone()).collect();
        self.absent.retain(|fingerprint, _| firing.contains(fingerprint) && !listed.contains(fingerprint));
        for fingerprint in self.listed.intersection(&firing).filter(|fingerprint| !listed.contains(*fingerprint)) {
            self.absent.entry(fingerprint.clone()).or_insert(now);
        }
        self.listed.extend(listed);
        let over = |fingerprint: &String| self.absent.get(fingerprint).is_some_and(|at| now - *at >= Policy::ABSENT);
        self.alerts.retain(|(_, fingerprint), _| !over(fingerprint));
    }

    fn deliver(&mut self, alerts: &[Alert], world: &World) {
        for alert in &at(alerts, world.now) {
            self.absent.remove(&alert.fingerprint);
            let key = (alert.version.clone(), alert.fingerprint.clone());
            // a copy that arrived after its end
            let over = world.state.ended.iter().any(|ended| {
                let later = |began| ended.starts_at == Some(began) || ended.ends_at.is_some_and(|end| began < end);
                (&ended.version, &ended.fingerprint) == (&key.0, &key.1) && alert.began(world.now).is_some_and(later)
            });
            let known = self.alerts.get(&key).and_then(|(known, _)| known.began(world.now));
            // the end of an earlier outbreak
            let earlier = known.zip(alert.ended(world.now)).is_some_and(|(began, end)| end <= began);
            match alert.status {
                AlertStatus::Resolved if earlier => {}
                AlertStatus::Firing if !over => drop(self.alerts.insert(key, (alert.clone(), world.ledger.elapsed))),
                AlertStatus::Firing => {}
                AlertStatus::Resolved => drop(self.alerts.remove(&key)),
            }
        }
    }

    /// Firing critical alerts that ask for a rollback and that no one dismissed.
    fn criticals(&self, world: &World) -> impl Iterator<Item = &Alert> {
        // a repeat is recorded only now and then
        let recent = |at: Duration| {
            world.ledger.elapsed - at + world.policy.refresh_after() < world.policy.alert_resolve_timeout
        };
        let all = self.alerts.values().filter(move |(_, at)| recent(*at)).map(|(alert, _)| alert);
        all.filter(|alert| alert.trigger.action == Action::Rollback)
    }
}

/// An approval as a click would send it. If nothing is offered, it names a version that a person may choose.
fn approval(world: &World, incident: &Incident, choice: Choice, target: Option<VersionName>) -> Option<Answer> {
    let mut world = world.clone();
    let (incident, force) = (incident.id.clone(), target.is_some());
    let click = Decide { incident, choice, operator: Operator::recorded("maya"), target, force, question_number: None };
    let answer = world.happens(&Event::Decide(click)).answer;
    // archived content is restored first, and the refusal says how
    let counts = match &answer {
        Answer::Refused(refusal) => refusal.code == RefusalCode::Archived,
        _ => true,
    };
    counts.then_some(answer)
}

/// Whether a person can end the question of `incident` by a rollback.
fn is_answerable(world: &World, incident: &Incident) -> bool {
    let approve = [Choice::Approve, Choice::ApproveGradual];
    if approve.into_iter().any(|choice| approval(world, incident, choice, None).is_some()) {
        return true;
    }
    // nothing is offered: any other version that has its content, or is known to have lost it
    let mut others = world.state.versions.iter().filter(|record| record.version != *incident.subject()).peekable();
    others.peek().is_none()
        || others.any(|record| approval(world, incident, Choice::Approve, Some(record.version.clone())).is_some())
}

proptest! {
    // each of these passes two days
    #![proptest_config(config(150))]

    /// P4, whether Alertmanager repeats what fires or its alerts are silenced. What pages says why: an alert fires, the
    /// rollback failed or is paused, or the key holds no version.
    #[test]
    fn every_history_comes_to_rest(
        history in history(),
        says in prop::option::of(prop::sample::select(Verdict::ALL.to_vec())),
        (repeat_interval, silenced) in (prop::sample::select(vec![hours(1), hours(4)]), any::<bool>()),
    ) {
        let mut world = a_world();
        let mut heard = Heard::from(&world);
        for step in &history {
            take(&mut world, step);
            heard.take(step, &world);
        }
        world.says = says.map(|verdict| Finding::new(verdict, "figures"));
        world.look();
        let known: BTreeSet<_> = world.state.open_incidents().map(|incident| incident.id.clone()).collect();
        let firing: Vec<_> = heard.now().alerts.values().map(|(alert, _)| alert.clone()).collect();
        // the longest time limit, then the deadline of the last question, then a day
        let rest = world.ledger.elapsed + hours(24 + 24);
        while world.ledger.elapsed < rest {
            world.pass(repeat_interval);
            if !firing.is_empty() && !silenced {
                world.deliver(&firing);
            }
        }
        // while Prometheus' clock is behind, each stage of a canary lasts that much longer, and asks a question of its own
        let is_due = |incident: &&Incident| known.contains(&incident.id) || world.now.since(incident.opened_at) > hours(25);
        for incident in world.state.open_incidents().filter(is_due) {
            prop_assert!(incident.pages() || incident.is_held_back(), "it waits in silence: {incident:?}");
            let failed = incident.failure().is_some() || incident.is_stuck() || world.state.lapsed.is_some();
            prop_assert!(incident.is_firing() || failed || incident.is_held_back(), "it pages for no reason: {incident:?}");
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    /// P1.
    #[test]
    fn a_firing_critical_ends_in_an_action_a_question_or_a_wait(history in history()) {
        let mut world = a_world();
        let mut heard = Heard::from(&world);
        for step in &history {
            take(&mut world, step);
            let firing = heard.take(step, &world);
            world.look();
            for alert in firing.criticals(&world) {
                if !have_traffic(&world.state).contains(&alert.version) {
                    continue;
                }
                let silenced = world.state.silences.iter().any(|s| s.fingerprint == alert.fingerprint && s.version == alert.version);
                let full = world.state.inactive_alerts.len() >= Policy::MAX_INACTIVE_ALERTS;
                if silenced || full {
                    continue; // a person has answered
                }
                let mut state = world.state.clone();
                let Some(incident) = state.open_incident_on(&alert.version) else {
                    // it is gaining traffic as the target of a gradual rollback, whose incident waits for a person
                    let gradual = world.state.open_incidents().any(|i| i.gradual().is_some_and(|split| split.has(&alert.version)));
                    // dismissed or undone, and silenced until now
                    let answered = world.incidents.values().any(|i| i.version == alert.version && i.phase == crate::Phase::Dismissed);
                    prop_assert!(gradual || answered, "no one is asked about {alert:?}\n{:?}", world.state);
                    continue;
                };
                let soon = incident.next_wake(&world.policy).is_some_and(|at| at <= world.now.plus(minutes(11)));
                let rolling = incident.gradual().is_some_and(|split| split.paused.is_none());
                // a person went back to the version in trouble, and learns in time that this does not help
                let checked = incident.is_checked() && incident.subject() == &alert.version;
                let waits = incident.pending().is_some() || rolling || checked;
                prop_assert!((waits && soon) || is_answerable(&world, incident), "no answer counts: {incident:?}");
            }
        }
    }

    /// P3.
    #[test]
    fn with_automation_off_nothing_moves_forward_by_itself(history in history()) {
        let mut world = a_world();
        for step in &history {
            // none of these steps turns automation off or on
            let by_itself = matches!(step, Step::Pass(_) | Step::Deliver(_) | Step::Days(_));
            if !(by_itself && (world.policy.dry_run || world.paused.is_some())) {
                take(&mut world, step);
                continue;
            }
            let before = world.clone();
            take(&mut world, step);
            let shares = |world: &World| world.state.running_canary().map(|c| (c.id.clone(), c.split.arriving.clone(), c.split.percent()));
            match (shares(&before), shares(&world)) {
                (Some((id, _, was)), Some((same, _, is))) if id == same => prop_assert!(is <= was, "{was} % → {is} %"),
                (Some((_, arriving, _)), None) if !before.state.open_incidents().any(|i| {
                    i.pending().is_some_and(|pending| pending.to == arriving && pending.by != SwitchMode::Auto)
                }) => prop_assert!(world.active.version() != Some(&arriving) || before.active.version() == Some(&arriving), "{arriving} was promoted"),
                _ => {}
            }
        }
    }

    /// P6.
    #[test]
    fn an_activation_is_rolled_back_automatically_at_most_once(history in history()) {
        let mut world = a_world();
        // with the place of the rollback in the log, from which a failover may remove it
        let mut seen: BTreeMap<(String, Timestamp), usize> = BTreeMap::new();
        for step in &history {
            world.now = world.now.plus(Duration::from_millis(1)); // an activation is identified by its time
            let before = world.state.versions.clone();
            let logged = world.log.len();
            take(&mut world, step);
            seen.retain(|_, place| *place < world.log.len());
            let own = |(_, entry): &(usize, &LogEntry)| entry.event == LogEvent::Rollback && entry.operator == Operator::SYSTEM;
            for (place, entry) in world.log.iter().enumerate().skip(logged).filter(own) {
                let from = entry.from.clone().expect("a version is rolled back");
                // more may have happened within one step of the history
                let since = before.iter().find(|record| record.version.as_str() == from).and_then(|record| record.traffic_since);
                if let Some(since) = since {
                    prop_assert!(seen.insert((from.clone(), since), place).is_none(), "{from} was rolled back twice since {since:?}");
                }
            }
        }
    }

    /// P7.
    #[test]
    fn a_silence_ends_with_its_outbreak(history in history(), later in 1..90_u64) {
        let mut world = a_world();
        for step in &history {
            take(&mut world, step);
            if let Step::Deliver(alerts) = step {
                for alert in alerts.iter().filter(|alert| alert.status == AlertStatus::Resolved) {
                    let silent = |s: &&crate::state::Silence| s.fingerprint == alert.fingerprint && s.version == alert.version;
                    // the end of an earlier outbreak does not end the silence of a later one
                    let later = |s: &crate::state::Silence| s.starts_at.is_some() && alert.ends_at.is_some();
                    prop_assert!(world.state.silences.iter().find(silent).is_none_or(later), "{alert:?} has ended");
                }
            }
        }
        world.look();
        let heard = |world: &World, alert: &Alert| {
            let mut world = world.clone();
            world.alert(alert.clone()) != "ignored dismissed"
        };
        for silent in world.state.silences.clone() {
            let again = Alert { fingerprint: silent.fingerprint.clone(), ..high(silent.version.as_str()) };
            let worse = Alert { fingerprint: silent.fingerprint.clone(), ..critical(silent.version.as_str()) };
            prop_assert!(silent.severity == Severity::Critical || heard(&world, &worse), "it has got worse: {silent:?}");
            let mut afterwards = world.clone();
            afterwards.jump_to(afterwards.now.max(silent.since).plus(minutes(later)));
            let same = Alert { starts_at: silent.starts_at, ..again.clone() };
            let lately = afterwards.now.since(silent.since) < afterwards.policy.alert_resolve_timeout;
            prop_assert!(!lately || silent.severity < Severity::High || !heard(&afterwards, &same), "it fires on: {silent:?}");
            let anew = Alert { starts_at: Some(Timestamp(afterwards.now.0 - 1)), ..again.clone() };
            prop_assert!(heard(&afterwards, &anew), "it began anew: {silent:?}");
            afterwards.jump_to(afterwards.now.plus(afterwards.policy.alert_resolve_timeout));
            prop_assert!(heard(&afterwards, &again), "it was not repeated for long: {silent:?}");
        }
    }

    /// A button names the version that it leads to; who decides by the API need not.
    #[test]
    fn a_button_is_refused_nothing_that_the_api_does(history in history()) {
        let mut world = a_world();
        for step in &history {
            take(&mut world, step);
        }
        world.look();
        // while the key holds no version, the button's target may be the version that prompt servers keep
        if world.snapshot(&Event::CheckDrift).active.version().is_none() {
            return Ok(());
        }
        for incident in world.state.open_incidents().filter(|incident| incident.phase.is_undecided()).cloned().collect::<Vec<_>>() {
            let way = incident.target.clone();
            let click = |target: Option<VersionName>| Decide {
                incident: incident.id.clone(),
                choice: Choice::Approve,
                operator: Operator::recorded("maya"),
                question_number: target.as_ref().map(|_| incident.question_number),
                target,
                force: false,
            };
            let answer = |click: Decide| world.clone().happens(&Event::Decide(click)).answer;
            // without a way there is no button
            let by_button = way.map(|way| answer(click(Some(way)))).filter(|answer| !matches!(answer, Answer::Refused(_)));
            let by_api = answer(click(None));
            prop_assert!(by_button.is_some() || matches!(by_api, Answer::Refused(_)), "{by_api:?}: {incident:?}");
        }
    }

    /// What people read of a held rollback is true as of its last repeat, and what the guard waits for is asked.
    #[test]
    fn a_repeat_tells_which_guard_holds_a_rollback_now(history in history()) {
        let mut world = a_world();
        for step in &history {
            take(&mut world, step);
        }
        world.look();
        let waits = |incident: &&Incident| {
            let held = incident.held.as_ref().is_some_and(|held| !held.guard.waits_for_news());
            held && incident.phase.kind() == PhaseKind::AwaitingDecision && incident.hold().is_none()
        };
        for incident in world.state.open_incidents().filter(waits).cloned().collect::<Vec<_>>() {
            let Some(strongest) = incident.strongest().filter(|alert| alert.action == Action::Rollback) else { continue };
            let repeat = strongest.to_alert(&incident.prompt, &incident.version);
            let mut later = world.clone();
            if later.alert(Alert { starts_at: strongest.starts_at, ..repeat }).starts_with("ignored") {
                continue; // silenced, or a late copy
            }
            let is_it = |i: &&Incident| i.id == incident.id && i.phase.kind() == PhaseKind::AwaitingDecision;
            let Some(is) = later.state.open_incidents().find(is_it).cloned() else { continue };
            let snapshot = later.snapshot(&Event::CheckDrift);
            let tx = super::super::Transaction::new(&later.policy, &snapshot, later.now);
            let guard = tx.guard(&incident.version).map(|held| held.guard);
            prop_assert_eq!(is.held.as_ref().map(|held| held.guard), guard, "{:?}", is);
            prop_assert!(guard != Some(Guard::PredatesActivation) || is.recheck().is_some(), "no check is scheduled: {is:?}");
        }
    }

    /// P8. The alerts of a delivery may also come one by one, in the order in which they are handled: what tells whether a
    /// target is healthy can't be heard later than acted upon.
    #[test]
    fn the_order_of_the_alerts_of_a_delivery_changes_nothing(
        history in prop::collection::vec(step(), 0..40),
        delivery in delivery(),
        seed in any::<u64>(),
    ) {
        let mut world = a_world();
        for step in &history {
            take(&mut world, step);
        }
        world.look();
        let mut delivery = at(&delivery, world.now);
        // the fingerprint of an alert is a hash of its labels: a repeat has the same
        for alert in &mut delivery {
            let open = world.state.open_incidents().filter(|i| i.version == alert.version).flat_map(|i| &i.alerts);
            let inactive = world.state.inactive_alerts.iter().filter(|s| s.version == alert.version).map(|s| &s.alert);
            if let Some(known) = open.chain(inactive).find(|known| known.fingerprint == alert.fingerprint) {
                alert.trigger = known.to_alert(&alert.prompt, &alert.version).trigger;
            }
        }
        // an alert without a start time acts at once; Alertmanager never adds one later
        let told_later = |alert: &Alert| {
            let known = world.state.open_incidents().filter(|i| i.version == alert.version).flat_map(|i| &i.alerts);
            alert.starts_at.is_some() && known.into_iter().any(|k| k.fingerprint == alert.fingerprint && k.starts_at.is_none())
        };
        if delivery.iter().any(told_later) {
            return Ok(());
        }
        let outcome = |world: &World, is_split: bool| {
            let phases: BTreeSet<String> = world
                .state
                .open_incidents()
                .map(|i| {
                    // while Prometheus is asked again, the earlier guard is kept for the answer
                    let held = i.held.as_ref().filter(|_| i.pending().is_none()).map(|held| held.guard);
                    // once the first alert has rolled the version back, the others are about an inactive version
                    let decider = Some(&i.decider).filter(|_| !is_split || i.switch.is_none());
                    format!("{} {} {decider:?} {held:?} {:?}", i.version, i.phase, i.target)
                })
                .collect();
            let good: BTreeSet<_> =
                world.state.versions.iter().filter(|r| r.known_good(&world.policy, world.now).is_some()).map(|r| r.version.clone()).collect();
            (world.active.clone(), world.routing.clone(), phases, good)
        };
        let mut once = world.clone();
        once.deliver(&delivery);
        let mut shuffled = delivery.clone();
        let mut random = seed;
        for at in (1..shuffled.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(at, (random >> 33) as usize % (at + 1));
        }
        let mut permuted = world.clone();
        permuted.deliver(&shuffled);
        prop_assert_eq!(outcome(&once, false), outcome(&permuted, false));
        let canary = world.state.running_canary().map(|canary| canary.split.clone());
        let first = |alert: &Alert| shuffled.iter().position(|other| other.version == alert.version);
        let mut one_by_one = shuffled.clone();
        one_by_one.sort_by_cached_key(|alert| {
            let version = &alert.version;
            let is_target = world.state.gradual_to(version).is_some();
            let is_base = canary.as_ref().is_some_and(|split| split.leaving == *version);
            (alert.status == AlertStatus::Firing, have_traffic(&world.state).contains(version), !is_target, !is_base, first(alert))
        });
        // what fires on a canary that its base may be rolled back to is heard together with what fires on the base
        let fires_on = |version: &VersionName| delivery.iter().any(|a| a.status == AlertStatus::Firing && a.version == *version);
        let is_target = |version: &VersionName| world.state.version(version).is_some_and(|record| record.is_target(&world.policy, world.now));
        if !canary.is_some_and(|split| fires_on(&split.leaving) && fires_on(&split.arriving) && is_target(&split.arriving)) {
            let mut split = world.clone();
            for alert in &one_by_one {
                split.deliver(std::slice::from_ref(alert));
            }
            prop_assert_eq!(outcome(&once, true), outcome(&split, true), "split");
        }
    }
}
