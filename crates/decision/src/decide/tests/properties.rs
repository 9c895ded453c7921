//! Properties of any history: random events about a few versions, with time in between. Each decision is checked by
//! [`invariants`](super::invariants) as it is applied.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const VERSIONS: [&str; 5] = ["v0", "v1", "v2", "v3", "v4"];

#[derive(Debug, Clone)]
pub(super) enum Step {
    Pass(u64),
    Deliver(Vec<Alert>),
    Roll {
        target: Option<usize>,
        from: Option<usize>,
        gradual: Option<Plan>,
        force: bool,
    },
    Register {
        version: usize,
        known_good: bool,
    },
    Mark {
        version: usize,
        kind: MarkKind,
        in_thread: bool,
    },
    AskWhenOld(bool),
    Activate {
        version: usize,
        share: TrafficShare,
        force: bool,
    },
    /// Someone SETs the key directly. If nobody looks, the next event is the first to notice.
    Set {
        version: usize,
        seen: bool,
    },
    Adopt(Option<usize>, bool),
    SetValue {
        value: Vec<u8>,
        seen: bool,
    },
    Delete,
    TrafficSplit(usize, usize),
    Choose {
        latest: bool,
        choice: Choice,
        target: Option<usize>,
        force: bool,
        /// How many questions ago it was asked what this answers, if the click tells.
        back: Option<u32>,
    },
    List(Vec<Alert>),
    Undeliverable,
    /// The latest incident is put on hold together with others, or the hold ends.
    Hold(bool),
    /// The budget may have room again for the latest incident.
    Resume,
    /// An incident is woken whether or not something is due; `early`: after a jump of Redis' clock.
    Wake {
        latest: bool,
        early: bool,
    },
    /// A reload removes a decider, or brings it back.
    Deciders(bool),
    Pause(bool),
    DryRun(bool),
    Spent(u32),
    /// A reload turns automatic rollbacks off, or on again.
    Automatic(bool),
    /// A person puts all prompts on hold because of an outage, or ends that.
    HoldAll(bool),
    /// Whether rollback targets pass the team's own test.
    Precheck(bool),
    /// Which of Prometheus and the team's own test are configured.
    Ask {
        prometheus: bool,
        precheck: bool,
        requery: bool,
    },
    Days(u64),
    Tidy,
    Restore(usize),
    Archive {
        on: bool,
        works: bool,
    },
    Says(Option<Verdict>, bool),
    /// One of the latest answers of workers arrives late, or again, perhaps with another verdict.
    Late {
        back: usize,
        verdict: Option<Verdict>,
    },
    /// Whether some servers keep serving the version that was rolled back.
    Follow(bool),
    /// What the analysis of canaries measures.
    Looks(bool, super::world::Looks),
    Steer(Steer),
    Measures(Result<SoakMeasurement, String>),
    Clock(i64),
    /// Redis fails over, and the new master lacks this many commits.
    Failover(usize),
}

fn version() -> impl Strategy<Value = usize> {
    0..VERSIONS.len()
}

fn one_alert() -> impl Strategy<Value = Alert> {
    let row = prop_oneof![
        3 => Just((Severity::Critical, Action::Rollback)),
        2 => Just((Severity::High, Action::Page)),
        1 => Just((Severity::High, Action::Recommend)),
        1 => Just((Severity::Medium, Action::Observe)),
        1 => Just((Severity::Critical, Action::Page)),
        1 => Just((Severity::High, Action::Observe)),
        1 => Just((Severity::Medium, Action::Page)),
    ];
    let decider = prop::option::weighted(0.3, Just("product-pm"));
    // how long ago it began, if it says so
    let ago = prop::option::of(prop_oneof![0..20_i64, 0..600_i64, Just(-60), Just(30 * 86_400)]);
    // how long ago it ended, if it has ended and says so
    let ended = prop::option::of(0..600_i64);
    (version(), 0..4_u8, row, prop::bool::weighted(0.3), 1..90_u64, (ago, ended), decider).prop_map(
        |(version, name, (severity, action), over, limit, (ago, ended), decider)| {
            let alert =
                world::firing(&format!("Row{name}"), VERSIONS[version], severity, action).within(minutes(limit));
            let alert = decider.into_iter().fold(alert, Alert::decided_by);
            let alert = Alert { starts_at: ago.map(|ago| Timestamp(-1_000 * ago)), ..alert };
            let ends_at = ended.map(|ended| Timestamp(-1_000 * ago.map_or(ended, |ago| ago.min(ended))));
            if over { Alert { ends_at, ..alert.resolved() } } else { alert }
        },
    )
}

/// As Alertmanager sends them: one status for each fingerprint.
pub(super) fn delivery() -> impl Strategy<Value = Vec<Alert>> {
    prop::collection::vec(one_alert(), 1..6).prop_map(|mut alerts| {
        let mut seen = BTreeSet::new();
        alerts.retain(|alert| seen.insert(alert.fingerprint.clone()));
        alerts
    })
}

/// Times in [`delivery`] are relative to now.
pub(super) fn at(alerts: &[Alert], now: Timestamp) -> Vec<Alert> {
    let absolute = |ago: Option<Timestamp>| ago.map(|ago| Timestamp(now.0 + ago.0));
    let at = |alert: &Alert| Alert {
        starts_at: absolute(alert.starts_at),
        ends_at: absolute(alert.ends_at),
        ..alert.clone()
    };
    alerts.iter().map(at).collect()
}

/// Values that shells, scripts and people write: mostly no version, and sometimes one with white space around it.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let pad = || prop::sample::select(vec!["", "\n", "\r\n", " ", "\0"]);
    let padded = (pad(), version(), pad()).prop_map(|(before, n, behind)| format!("{before}{}{behind}", VERSIONS[n]));
    let odd = prop::sample::select(vec!["", "\n", "{}", "\"v2\"", "v1 v2", "latest\u{a0}"]).prop_map(str::to_owned);
    prop_oneof![padded, odd].prop_map(String::into_bytes)
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        Just(Choice::Approve),
        Just(Choice::ApproveGradual),
        Just(Choice::Investigate),
        Just(Choice::Dismiss),
        Just(Choice::Undo)
    ]
}

/// The usual plan, or a request's own.
fn gradual() -> impl Strategy<Value = Plan> {
    let own = |left: &[u8], holds: &[Duration]| Plan::gradual(left, holds.to_vec()).expect("a plan");
    prop_oneof![
        2 => Just(Policy::default().gradual),
        1 => Just(own(&[0], &[minutes(1)])),
        1 => Just(own(&[90, 0], &[seconds(1), hours(1)])),
        1 => Just(own(&[50, 49, 1, 0], &[minutes(2)])),
    ]
}

fn staged() -> impl Strategy<Value = Plan> {
    let own = |stages: &[u8], holds: &[Duration]| Plan::canary(stages, holds.to_vec()).expect("a plan");
    let patient = Plan { limit: Some(minutes(20)), ..own(&[1, 99, 100], &[hours(1), seconds(1)]) };
    prop_oneof![
        3 => Just(Policy::default().canary.usual.plan),
        1 => Just(own(&[100], &[minutes(1)])),
        1 => Just(own(&[50, 60, 100], &[minutes(2)])),
        1 => Just(patient),
    ]
}

fn share() -> impl Strategy<Value = TrafficShare> {
    prop_oneof![
        3 => Just(TrafficShare::All),
        2 => staged().prop_map(TrafficShare::Canary),
        1 => prop::sample::select(vec![0, 30, 50, 80, 101]).prop_map(TrafficShare::Percent),
    ]
}

/// Enough, too little, bad, or no answer.
fn measures() -> impl Strategy<Value = Result<SoakMeasurement, String>> {
    let exceeded = prop::option::weighted(0.2, (0..8_000_u64).prop_map(seconds));
    let measured = (prop::sample::select(vec![0, 3, 19, 20, 5_000_u64]), 0..4_u64, exceeded)
        .prop_map(|(requests, failed, exceeded)| SoakMeasurement { requests: requests.max(failed), failed, exceeded });
    prop_oneof![4 => measured.prop_map(Ok), 1 => Just(Err("prometheus: no answer".to_owned()))]
}

fn clock() -> impl Strategy<Value = i64> {
    prop_oneof![-30..30_i64, -8_000..8_000_i64, Just(-365 * 86_400), Just(86_400)]
}

/// Like `step`, with a Redis whose clock jumps sometimes.
pub(super) fn step_or_jump() -> impl Strategy<Value = Step> {
    prop_oneof![40 => step(), 1 => clock().prop_map(Step::Clock)]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let some_version = || prop::option::of(version());
    prop_oneof![
        6 => prop_oneof![0..120_u64, 0..8_000_u64, 0..90_000_u64].prop_map(Step::Pass),
        10 => delivery().prop_map(Step::Deliver),
        2 => (some_version(), some_version(), prop::option::of(gradual()), any::<bool>())
            .prop_map(|(target, from, gradual, force)| Step::Roll { target, from, gradual, force }),
        2 => (version(), any::<bool>()).prop_map(|(version, known_good)| Step::Register { version, known_good }),
        3 => (version(), share(), any::<bool>()).prop_map(|(version, share, force)| Step::Activate { version, share, force }),
        3 => (version(), prop::sample::select(MarkKind::ALL.to_vec()), any::<bool>())
            .prop_map(|(version, kind, in_thread)| Step::Mark { version, kind, in_thread }),
        1 => any::<bool>().prop_map(Step::AskWhenOld),
        3 => (version(), any::<bool>()).prop_map(|(version, seen)| Step::Set { version, seen }),
        1 => (some_version(), any::<bool>()).prop_map(|(version, known_good)| Step::Adopt(version, known_good)),
        2 => (value(), any::<bool>()).prop_map(|(value, seen)| Step::SetValue { value, seen }),
        1 => Just(Step::Delete),
        1 => (version(), version()).prop_map(|(a, b)| Step::TrafficSplit(a, b)),
        4 => (prop::bool::weighted(0.8), choice(), some_version(), any::<bool>(), prop::option::of(0..3_u32))
            .prop_map(|(latest, choice, target, force, back)| Step::Choose { latest, choice, target, force, back }),
        2 => delivery().prop_map(Step::List),
        1 => Just(Step::Undeliverable),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => Just(Step::Resume),
        2 => (prop::bool::weighted(0.8), any::<bool>()).prop_map(|(latest, early)| Step::Wake { latest, early }),
        1 => any::<bool>().prop_map(Step::Deciders),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => any::<bool>().prop_map(Step::DryRun),
        1 => (0..8_u32).prop_map(Step::Spent),
        1 => prop::bool::weighted(0.7).prop_map(Step::Automatic),
        1 => any::<bool>().prop_map(Step::HoldAll),
        1 => any::<bool>().prop_map(Step::Precheck),
        1 => any::<bool>().prop_map(Step::Follow),
        2 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(prometheus, precheck, requery)| Step::Ask { prometheus, precheck, requery }),
        1 => prop_oneof![0..20_u64, 170..190_u64].prop_map(Step::Days),
        6 => Just(Step::Tidy),
        1 => version().prop_map(Step::Restore),
        1 => (prop::bool::weighted(0.8), prop::bool::weighted(0.8)).prop_map(|(on, works)| Step::Archive { on, works }),
        2 => measures().prop_map(Step::Measures),
        2 => (any::<bool>(), super::analysis::looks()).prop_map(|(on, looks)| Step::Looks(on, looks)),
        2 => prop::sample::select(Steer::ALL.to_vec()).prop_map(Step::Steer),
        1 => (1..=World::LOST).prop_map(Step::Failover),
        3 => (0..World::ANSWERS, prop::option::of(prop::sample::select(Verdict::ALL.to_vec())))
            .prop_map(|(back, verdict)| Step::Late { back, verdict }),
        3 => (prop::option::weighted(0.8, prop::sample::select(Verdict::ALL.to_vec())), prop::bool::weighted(0.2))
            .prop_map(|(verdict, blame)| Step::Says(verdict, blame)),
    ]
}

/// The same answer with another finding.
fn with_finding(mut answer: Event, is: Finding) -> Event {
    match &mut answer {
        Event::Confirmed(Confirmed { finding, .. })
        | Event::Rechecked { finding, .. }
        | Event::Checked(Checked { finding, .. })
        | Event::Stepped(Stepped { finding, .. }) => *finding = is,
        _ => {}
    }
    answer
}

/// Takes one step, and returns its answers and commits.
pub(super) fn take(world: &mut World, step: &Step) -> Option<Decision> {
    let named = |n: &usize| v(VERSIONS[*n]);
    let operator = Operator::recorded("dana");
    let event = match step {
        Step::Pass(n) => {
            world.pass(seconds(*n));
            return None;
        }
        Step::Days(n) => {
            world.jump_to(world.now.plus(hours(24 * n))); // no receiver ran: due work is late
            return None;
        }
        Step::Tidy => {
            world.tidy();
            return None;
        }
        Step::Archive { on, works } => {
            world.policy.archive = *on;
            match (works, world.files.is_some()) {
                (true, false) => world.files = Some(std::mem::take(&mut world.unplugged)),
                (false, true) => world.unplugged = world.files.take().unwrap_or_default(),
                _ => {}
            }
            return None;
        }
        Step::Restore(n) => Event::Restore { version: named(n) },
        Step::Set { version, seen } => {
            world.set_active(VERSIONS[*version]);
            if !seen {
                return None;
            }
            Event::CheckDrift
        }
        Step::Adopt(version, known_good) => {
            Event::Adopt(Adopt { version: version.as_ref().map(named), known_good: *known_good, operator })
        }
        Step::SetValue { value, seen } => {
            world.set_value(value);
            if !seen {
                return None;
            }
            Event::CheckDrift
        }
        Step::Delete => {
            world.active = Active::Absent;
            return None;
        }
        Step::TrafficSplit(a, b) => {
            world.routing =
                vec![(VERSIONS[*a].to_owned(), "50".to_owned()), (VERSIONS[*b].to_owned(), "50".to_owned())];
            return None;
        }
        Step::Pause(on) => {
            world.paused = on.then(|| "dana".to_owned());
            return None;
        }
        Step::DryRun(on) => {
            world.policy.dry_run = *on;
            return None;
        }
        Step::Ask { prometheus, precheck, requery } => {
            let confirm = *prometheus || *precheck;
            (world.policy.confirm, world.policy.verify, world.policy.requery) = (confirm, *prometheus, *requery);
            return None;
        }
        Step::Measures(measures) => {
            world.measures = measures.clone();
            return None;
        }
        Step::Looks(on, looks) => {
            (world.policy.canary.usual.analysis, world.looks) = (*on, looks.clone());
            return None;
        }
        Step::Steer(steer) => {
            Event::Steer(Steering { steer: *steer, about: None, operator, force: false, reason: None })
        }
        Step::Clock(seconds) => {
            world.step_clock(*seconds);
            return None;
        }
        Step::Failover(lost) => {
            world.fail_over(*lost);
            return None;
        }
        Step::Says(verdict, blame) => {
            world.says = verdict.map(|verdict| Finding::new(verdict, "figures"));
            world.blame = blame.then(|| "all fail".to_owned());
            return None;
        }
        Step::Late { back, verdict } => {
            let answer = world.answers.get(*back)?.clone();
            verdict.map_or(answer.clone(), |verdict| with_finding(answer, Finding::new(verdict, "late figures")))
        }
        Step::Follow(all) => {
            let still = Instances::of(if *all { Vec::new() } else { vec!["pod-3".to_owned()] });
            world.traffic = Some(Traffic { target: 2_000, following: 2, still, ..Traffic::default() });
            return None;
        }
        Step::Spent(n) => {
            world.recent_auto = *n;
            return None;
        }
        Step::Automatic(on) => {
            world.policy.max_auto_rollbacks = if *on { Policy::default().max_auto_rollbacks } else { 0 };
            return None;
        }
        Step::HoldAll(on) => {
            world.outage_hold = on.then(|| "dana".to_owned());
            return None;
        }
        Step::Precheck(passes) => {
            world.precheck = (!passes).then(|| "answered 500".to_owned());
            return None;
        }
        Step::List(alerts) => Event::Listed {
            incident: world.incidents.keys().next_back()?.clone(),
            fingerprints: alerts.iter().map(|a| a.fingerprint.clone()).collect(),
        },
        Step::Undeliverable => {
            Event::Undeliverable { incident: world.incidents.keys().next_back()?.clone(), why: "archived".to_owned() }
        }
        Step::Hold(on) => {
            Event::Hold { incident: world.incidents.keys().next_back()?.clone(), by: on.then_some(operator) }
        }
        Step::Resume => Event::Resume { incident: world.incidents.keys().next_back()?.clone() },
        Step::Wake { latest, early } => {
            let mut ids = world.incidents.keys();
            let incident = if *latest { ids.next_back() } else { ids.next() }?.clone();
            Event::Timer { incident, early: *early }
        }
        Step::Deciders(all) => {
            world.policy.deciders = Policy::default().deciders;
            world.policy.deciders.truncate(if *all { 2 } else { 1 });
            return None;
        }
        Step::Deliver(alerts) => Event::Alerts(at(alerts, world.now)),
        Step::Roll { target, from, gradual, force } => Event::Rollback(Rollback {
            target: target.as_ref().map(named),
            from: from.as_ref().map(named),
            reason: "because".to_owned(),
            operator,
            force: *force,
            gradual: gradual.clone(),
        }),
        Step::Register { version, known_good } => {
            let content = Some(format!("text of {}", VERSIONS[*version]));
            Event::Register(Register { known_good: *known_good, content, ..world::registration(VERSIONS[*version]) })
        }
        Step::Mark { version, kind, in_thread } => {
            let incident = world.incidents.keys().next_back().filter(|_| *in_thread).cloned();
            Event::Mark(Marking { incident, ..world::marking(VERSIONS[*version], *kind) })
        }
        Step::AskWhenOld(on) => {
            world.policy.ask_when_active_for_longer_than = on.then_some(hours(12));
            return None;
        }
        Step::Activate { version, share, force } => Event::Activate(Activation {
            version: named(version),
            share: share.clone(),
            operator,
            force: *force,
            reason: None,
        }),
        Step::Choose { latest, choice, target, force, back } => {
            let mut incidents = world.incidents.values();
            let incident = if *latest { incidents.next_back() } else { incidents.next() }?;
            Event::Decide(Decide {
                incident: incident.id.clone(),
                choice: *choice,
                operator,
                target: target.as_ref().map(named),
                force: *force,
                question_number: back.map(|back| incident.question_number.saturating_sub(back)),
            })
        }
    };
    Some(world.happens(&event))
}

pub(super) fn a_world() -> World {
    let mut world = World::with_a_fresh_release();
    world.mark_known_good("v0");
    for version in VERSIONS {
        world.register_text(version);
    }
    (world.policy.archive, world.policy.hot_versions, world.lease) = (true, 2, seconds(15));
    world.replicate();
    world
}

proptest! {
    #![proptest_config(super::promises::config(256))]

    #[test]
    fn every_decision_keeps_the_invariants(steps in prop::collection::vec(step_or_jump(), 1..60)) {
        let mut world = a_world();
        for step in &steps {
            take(&mut world, step);
        }
    }

    /// With as many versions as are kept, each registration makes room for another one.
    #[test]
    fn no_version_is_forgotten_that_anything_needs(steps in prop::collection::vec(step_or_jump(), 1..30)) {
        let mut world = a_world();
        for n in VERSIONS.len()..Policy::MAX_VERSIONS {
            world.register(&format!("ci-{n}"));
        }
        for (n, step) in steps.iter().enumerate() {
            take(&mut world, step);
            world.register(&format!("next-{n}"));
        }
    }

    #[test]
    fn the_same_delivery_again_at_the_same_instant_writes_nothing(
        steps in prop::collection::vec(step_or_jump(), 0..40),
        delivery in delivery(),
    ) {
        let mut world = a_world();
        for step in &steps {
            take(&mut world, step);
        }
        let delivery = at(&delivery, world.now);
        let begins = |said: &[String], what: &str| said.iter().any(|said| said.starts_with(what));
        // after a rollback, alerts on the target are new, and alerts on the other version are remembered
        if begins(&world.deliver(&delivery), "rolled_back") {
            let next = world.deliver(&delivery);
            prop_assert!(!begins(&next, "rolled_back"), "{next:?}");
        }
        prop_assert!(!world.would_write(&delivery));
        let again = world.deliver(&delivery);
        prop_assert!(!begins(&again, "rolled_back") && !begins(&again, "incident"), "{again:?}");
    }

    #[test]
    fn a_replay_decides_the_same(steps in prop::collection::vec(step_or_jump(), 1..40)) {
        let (mut one, mut other) = (a_world(), a_world());
        for step in &steps {
            prop_assert_eq!(take(&mut one, step), take(&mut other, step));
        }
        prop_assert_eq!(one.state, other.state);
    }

    #[test]
    fn an_alert_moves_the_deadline_of_a_waiting_incident_only_earlier(
        steps in prop::collection::vec(step_or_jump(), 0..40),
        delivery in delivery(),
    ) {
        let mut world = a_world();
        for step in &steps {
            take(&mut world, step);
        }
        let delivery = at(&delivery, world.now);
        world.look();
        let waiting = |world: &World| -> Vec<Incident> {
            world.state.open_incidents().filter(|i| i.phase.kind() == PhaseKind::AwaitingDecision).cloned().collect()
        };
        let before = waiting(&world);
        world.deliver(&delivery);
        for was in before {
            let Some(is) = waiting(&world).into_iter().find(|i| i.id == was.id) else { continue };
            if let Some(deadline) = was.deadline() {
                prop_assert!(is.deadline().is_some_and(|d| d <= deadline), "{:?} > {deadline:?}", is.deadline());
            }
        }
    }

    #[test]
    fn every_waiting_incident_has_a_wake_up_or_nothing_left_to_say(steps in prop::collection::vec(step_or_jump(), 1..60)) {
        let mut world = a_world();
        for step in &steps {
            take(&mut world, step);
        }
        for incident in world.state.open_incidents() {
            let wanted = incident.next_wake(&world.policy);
            let planned = world.wakes.get(&incident.id).copied();
            // what a dead worker did not do, or what was lost of it, is done when its lease is over
            let grace = world.now.plus(world.lease);
            match wanted.map(|wanted| wanted.max(grace)) {
                Some(wanted) => prop_assert!(planned.is_some_and(|at| at <= wanted), "{planned:?} for {wanted:?}"),
                // pages until a person ends it
                None if incident.phase.kind() == PhaseKind::Escalated || incident.is_stuck() => {}
                None => prop_assert!(!incident.is_firing() && incident.alerts.is_empty(), "no wake-up: {incident:?}"),
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_wait_longer(
        steps in prop::collection::vec(step_or_jump(), 1..60),
        by in prop_oneof![0..5_u64, 5..7_200_u64, Just(86_400 * 365)],
    ) {
        let mut world = a_world();
        for step in &steps {
            take(&mut world, step);
        }
        world.look();
        let waits = |incident: &Incident, now: Timestamp| {
            let split = incident.gradual().map(|split| [split.next, split.check]);
            let ahead = [incident.deadline(), incident.verification().map(|verification| verification.next)];
            split.into_iter().flatten().chain(ahead).map(|at| at.map(|at| at.since(now))).collect::<Vec<_>>()
        };
        for before in world.state.open_incidents() {
            let mut after = before.clone();
            after.rewind(world.now);
            prop_assert_eq!(before, &after, "a clock that does not step changes nothing");
            // from when it was written, which is some time ago
            let checks = [before.gradual().map(|s| &s.last), before.verification().map(|v| &v.last)];
            let checks = checks.into_iter().flatten().flatten().map(|check| check.at);
            let (written, now) = (checks.fold(before.updated_at, Timestamp::max), world.now.minus(seconds(by)));
            after.rewind(now);
            let longest = waits(before, written);
            for (wait, most) in waits(&after, now).into_iter().zip(longest) {
                prop_assert!(wait <= most.map(|most| most + Policy::CLOCK_STEP), "{wait:?} was {most:?}: {after:?}");
            }
            let once = after.clone();
            after.rewind(now);
            prop_assert_eq!(once, after, "the same step counts once");
        }
    }

    #[test]
    fn every_text_is_in_one_place_and_what_is_needed_comes_back(steps in prop::collection::vec(step_or_jump(), 1..80)) {
        let mut world = a_world();
        // their files were deleted, and a failover has lost the commit that allowed it
        let mut gone: BTreeSet<VersionName> = BTreeSet::new();
        for step in &steps {
            take(&mut world, step);
            let files = world.files.as_ref().unwrap_or(&world.unplugged);
            let archived = world.state.versions.iter().filter(|record| record.archived.is_some());
            let without: BTreeSet<_> = archived.map(|r| &r.version).filter(|version| !files.contains_key(*version)).cloned().collect();
            match step {
                Step::Failover(_) => gone = without,
                _ => gone.retain(|version| without.contains(version)),
            }
            for record in world.state.versions.iter().filter(|r| r.has_content && !gone.contains(&r.version)) {
                let text = format!("text of {}", record.version);
                let place = if record.archived.is_some() { files } else { &world.contents };
                prop_assert_eq!(place.get(&record.version), Some(&text), "{:?}", record);
            }
        }
        take(&mut world, &Step::Archive { on: true, works: true });
        world.look();
        world.tidy();
        world.tidy(); // restored content may have taken another version's place
        let needed = rules::needed(&world.state, &world.policy, world.now);
        for version in needed {
            prop_assert!(!world.is_archived(version.as_str()) || gone.contains(version), "{version} is needed and archived");
        }
        let left = rules::chores(&world.state, &world.policy, world.now);
        prop_assert!(left.is_empty(), "{left:?}");
        let next = rules::next(&world.state, &world.policy, world.now);
        prop_assert!(next.is_none_or(|next| next > world.now), "the texts wake again and again");
    }

    #[test]
    fn no_open_incident_disappears_because_of_what_the_key_holds(
        steps in prop::collection::vec(step_or_jump(), 0..50),
        value in prop::option::of(value()),
        delivery in delivery(),
        rest in prop::collection::vec(prop_oneof![Just(0_u64), 0..600_u64, 0..90_000_u64], 0..6),
    ) {
        let mut world = a_world();
        for step in &steps {
            take(&mut world, step);
        }
        world.look();
        // a question about a canary ends with the canary
        let of_canary = |incident: &&Incident| incident.alerts.is_empty() && incident.switch.is_none() && incident.severity == Severity::Medium;
        let before: Vec<Incident> = world.state.open_incidents().filter(|incident| !of_canary(incident)).cloned().collect();
        let last: Vec<VersionName> = world.state.served();
        world.active = Active::read(value.as_deref());
        if world.active.version().is_some_and(|version| !last.contains(version)) {
            return Ok(()); // another version: the replaced one is superseded
        }
        let only_trimmed = world.active.version().is_some();
        let lapse_before = world.state.lapsed.clone();
        world.look();
        // people who know that the key holds no version may decide; a person who decided before is asked again
        let decided = world.state.open_incidents().filter_map(|i| i.pending()).any(|pending| pending.by != SwitchMode::Auto);
        prop_assert!(only_trimmed || !decided || world.state.lapsed == lapse_before, "{:?}", world.state);
        for was in &before {
            let now = world.state.open_incidents().find(|incident| incident.id == was.id);
            prop_assert!(now.is_some() || only_trimmed && last.len() > 1, "{was:?}");
            if let Some(now) = now.filter(|_| world.active.version().is_none()) {
                let asks = now.phase.kind() != PhaseKind::AwaitingDecision || now.is_held_back() || now.deadline().is_some() || now.pages();
                prop_assert!(asks && (now.pages() || !was.pages()), "{now:?}");
            }
        }
        // an alert on a version that served last has an open incident, or is silenced
        let said = world.deliver(&delivery);
        if world.active.version().is_none() {
            for (alert, said) in delivery.iter().zip(&said) {
                let fires = alert.status == AlertStatus::Firing && last.contains(&alert.version);
                prop_assert!(!fires || !said.contains("not_active"), "{said}: {alert:?}");
            }
            prop_assert_eq!(&world.active, &Active::read(value.as_deref()), "acted automatically");
        }
        // time alone causes no action
        let key = world.active.clone();
        for n in rest {
            world.pass(seconds(n));
        }
        prop_assert!(key.version().is_some() || decided || world.active == key, "{:?} became {:?}", key, world.active);
    }

    #[test]
    fn what_is_retired_comes_to_rest_when_its_alerts_end(steps in prop::collection::vec(step_or_jump(), 0..50)) {
        let mut world = a_world();
        for step in &steps {
            take(&mut world, step);
        }
        // a rollback that waits for Prometheus would write the key again
        world.pass(Policy::CONFIRM);
        world.look();
        world.active = Active::Absent;
        world.look();
        let firing: Vec<_> = world.state.open_incidents().flat_map(|i| i.alerts.iter().map(move |a| (i, a))).collect();
        let ends: Vec<Alert> = firing
            .into_iter()
            .map(|(incident, alert)| Alert {
                fingerprint: alert.fingerprint.clone(),
                ..world::high(incident.version.as_str()).resolved()
            })
            .collect();
        if !ends.is_empty() {
            world.deliver(&ends);
        }
        world.says = Some(Finding::new(Verdict::NoData, "nothing is served"));
        world.state.inactive_alerts.clear();
        world.pass(hours(48));
        let left: Vec<_> = world.state.open_incidents().collect();
        prop_assert!(left.iter().all(|incident| incident.hold().is_some()), "{left:?}");
    }

    #[test]
    fn a_refused_request_changes_nothing(steps in prop::collection::vec(step_or_jump(), 1..60)) {
        let mut world = a_world();
        for step in &steps {
            world.look();
            let before = (world.state.clone(), world.active.clone(), world.log.len());
            if let Some(Decision { answer: Answer::Refused(_), commit }) = take(&mut world, step) {
                let is_look = matches!(step, Step::Set { .. } | Step::SetValue { .. });
                prop_assert!(is_look || commit.is_none(), "{step:?} left {commit:?}");
                prop_assert_eq!(before, (world.state.clone(), world.active.clone(), world.log.len()));
            }
        }
    }
}

/// Many versions and alerts at once, which the small worlds above do not reach.
#[test]
fn limits_hold_under_a_flood() {
    let mut world = a_world();
    for n in 0..300 {
        let version = format!("ci-{n}");
        world.release(&version);
        let alerts: Vec<Alert> = (0..90).map(|a| high(&version).named(&format!("Row{a}"))).collect();
        world.deliver(&alerts);
        if n % 3 == 0 {
            world.choose(Choice::Dismiss);
        }
    }
    assert_eq!(world.state.versions.len(), Policy::MAX_VERSIONS);
}
