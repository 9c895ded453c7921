//! The rows of the decision tree for alerts.

use proptest::prelude::*;

use super::super::alerts::by_version;
use super::super::answer::AlertOutcome;
use super::*;
use crate::AlertRecord;

#[test]
fn a_critical_alert_on_the_active_version_rolls_back_once() {
    let mut world = World::with_a_fresh_release();
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!(world.served(), "v1");
    assert_eq!(world.phase(), PhaseKind::Verifying);
    for _ in 0..3 {
        world.pass(seconds(5));
        assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
    }
    assert_eq!(world.rollbacks(), ["v2>v1"]);
    assert_eq!(world.incidents.len(), 1);
}

#[test]
fn a_rollback_reports_what_it_did_to_everyone() {
    let mut world = World::with_a_fresh_release();
    world.routing = vec![("v1".to_owned(), "10".to_owned()), ("v2".to_owned(), "90".to_owned())];
    let commit = world.happens(&Event::Alerts(vec![critical("v2")])).commit.expect("a switch");
    let entry = &commit.log[0];
    assert_eq!((entry.event, entry.operator.as_str()), (LogEvent::Rollback, "system"));
    assert_eq!(entry.reason, "ErrorRateCritical: ErrorRateCritical on v2");
    let incident = world.latest();
    assert_eq!(entry.incident.as_ref(), Some(&incident.id));
    let switch = incident.switch.as_ref().expect("a switch");
    assert_eq!(
        (switch.at, switch.mode, switch.from.as_str(), switch.to.as_str()),
        (world.now, SwitchMode::Auto, "v2", "v1")
    );
    assert_eq!(incident.deadline(), Some(world.now.plus(world.policy.verification_deadline)));
    assert_eq!(commit.changes[0].to.as_deref(), Some("v1"));
    assert_eq!(commit.routing, Routing::Drop, "a split of traffic ends with the rollback");
    let [served] = &commit.served[..] else { panic!("one version serves") };
    assert_eq!((&served.version, &served.previous), (&v("v1"), &None), "the quarantined version is no target");
    assert!(served.new_since < world.now.minus(hours(2)), "a rollback does not make v1 young again");
    assert_eq!(commit.automatic.map(|a| (a.max, a.window)), Some((5, minutes(5))));
}

#[test]
fn page_recommend_and_observe_ask_as_the_table_says() {
    let rows = [
        (high("v2"), "incident_opened page", PhaseKind::AwaitingDecision, minutes(5), "on-call"),
        (high("v2").within(minutes(10)), "incident_opened page", PhaseKind::AwaitingDecision, minutes(10), "on-call"),
        (
            recommend("v2").decided_by("product-pm"),
            "incident_opened recommend",
            PhaseKind::AwaitingDecision,
            minutes(30),
            "product-pm",
        ),
        (medium("v2"), "incident_opened observe", PhaseKind::Observing, hours(1), "on-call"),
    ];
    for (alert, outcome, phase, limit, decider) in rows {
        let mut world = World::with_a_fresh_release();
        assert_eq!(world.alert(alert.clone()), outcome);
        assert_eq!(world.served(), "v2", "{outcome}: a person decides");
        let incident = world.latest();
        assert_eq!((incident.phase.kind(), incident.deadline()), (phase, Some(world.now.plus(limit))), "{outcome}");
        assert_eq!((incident.decider.as_str(), incident.target.clone()), (decider, Some(v("v1"))));
        assert_eq!(incident.question_number, u32::from(phase == PhaseKind::AwaitingDecision), "{outcome}");
        assert_eq!(world.alert(alert), "duplicate duplicate");
    }
}

#[test]
fn a_duplicate_writes_nothing() {
    for alert in [critical("v2"), high("v2"), recommend("v2"), medium("v2")] {
        let mut world = World::with_a_fresh_release();
        world.alert(alert.clone());
        assert!(!world.would_write(std::slice::from_ref(&alert)), "{alert:?}");
        world.now = world.now.plus(seconds(45));
        assert!(!world.would_write(&[alert]));
    }
}

#[test]
fn duplicates_may_differ_in_wording_between_alertmanagers() {
    let mut world = World::with_a_fresh_release();
    world.alert(Alert { starts_at: Some(world.now), ..critical("v2") });
    let other = Alert {
        starts_at: Some(world.now.minus(seconds(3))),
        value: "7.1 %".to_owned(),
        generator_url: "http://prometheus-b/graph".to_owned(),
        ..critical("v2")
    };
    assert!(!world.would_write(&[other]));
}

#[test]
fn a_long_firing_alert_is_remembered_as_heard_but_rarely() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.pass(world.policy.refresh_after() - seconds(1));
    assert!(!world.would_write(&[high("v2")]));
    world.pass(seconds(1));
    assert_eq!(world.alert(high("v2")), "duplicate duplicate");
    assert_eq!(world.latest().alerts[0].last_seen, world.now);
}

#[test]
fn an_alert_on_a_version_without_traffic_does_nothing() {
    let mut world = World::with_a_fresh_release();
    assert_eq!(world.alert(critical("v1")), "ignored not_active");
    assert_eq!(world.served(), "v2");
    assert_eq!(world.state.inactive_alerts.len(), 1, "but v1 is no healthy target now");
    assert!(!world.would_write(&[critical("v1")]));
    assert_eq!(world.alert(critical("v1").resolved()), "resolved resolved");
    assert!(world.state.inactive_alerts.is_empty());
}

#[test]
fn what_fires_on_a_version_that_gets_traffic_is_asked_about_at_once() {
    for version in ["v1", "v99"] {
        let mut world = World::with_a_fresh_release();
        assert!(world.alert(high(version)).starts_with("ignored"));
        world.register(version);
        world.activate(version, false);
        assert!(world.state.inactive_alerts.is_empty());
        let incident = world.latest();
        assert_eq!((incident.version.as_str(), incident.phase.kind()), (version, PhaseKind::AwaitingDecision));
        assert_eq!(world.alert(high(version)), "duplicate duplicate", "{version}");
    }
}

#[test]
fn an_alert_on_an_unheard_of_prompt_leaves_no_trace() {
    let mut nobody = World::new();
    assert!(!nobody.would_write(&[critical("v2")]));
    assert_eq!(nobody.alert(critical("v2")), "ignored unknown_version");
    let mut world = World::with_a_fresh_release();
    assert_eq!(world.alert(critical("2")), "ignored unknown_version", "a label that does not fit v2");
    assert_eq!(world.alert(critical("v1")), "ignored not_active", "one without traffic");
    let mut world = World::with_a_fresh_release();
    assert_eq!(world.alert(critical("v99").resolved()), "ignored unknown_alert");
}

#[test]
fn alerts_on_unserved_versions_displace_no_others() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v1"));
    for n in 0..200 {
        world.alert(critical(&format!("x{n}")));
    }
    let inactive_alerts = &world.state.inactive_alerts;
    assert_eq!(inactive_alerts.len(), 1 + Policy::MAX_UNKNOWN_INACTIVE_ALERTS);
    assert!(inactive_alerts.iter().any(|inactive| inactive.version == v("v1")));
}

#[test]
fn known_alerts_stay_duplicates_after_a_rollback() {
    let mut world = World::with_a_fresh_release();
    world.deliver(&[critical("v2"), high("v2")]);
    assert_eq!(world.alert(critical("v2")), "duplicate duplicate");
    assert_eq!(world.alert(high("v2")), "duplicate duplicate");
    assert_eq!(world.alert(recommend("v2")), "ignored not_active", "news, but about a version out of service");
    assert_eq!(world.phase(), PhaseKind::Verifying);
}

#[test]
fn another_alert_joins_and_the_strongest_action_wins() {
    let mut world = World::with_a_fresh_release();
    world.alert(medium("v2").decided_by("product-pm"));
    assert_eq!(world.phase(), PhaseKind::Observing);
    world.pass(minutes(1));
    assert_eq!(world.alert(recommend("v2").decided_by("product-pm")), "incident_updated joined");
    let incident = world.latest();
    assert_eq!((incident.phase.kind(), incident.action), (PhaseKind::AwaitingDecision, Action::Recommend));
    assert_eq!((incident.decider.as_str(), incident.deadline()), ("product-pm", Some(world.now.plus(minutes(30)))));
    world.pass(minutes(1));
    assert_eq!(world.alert(high("v2")), "incident_updated joined");
    let incident = world.latest();
    assert_eq!((incident.action, incident.decider.as_str()), (Action::Page, "on-call"));
    assert_eq!(incident.deadline(), Some(world.now.plus(minutes(5))));
    assert_eq!(incident.question_number, 2, "the question has changed");
    world.pass(minutes(1));
    assert_eq!(world.alert(critical("v2")), "rolled_back alert");
    assert_eq!((world.incidents.len(), world.phase()), (1, PhaseKind::Verifying));
}

#[test]
fn a_weaker_alert_joins_without_changing_the_question() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    let (ask, deadline) = (world.latest().question_number, world.latest().deadline());
    world.pass(minutes(1));
    assert_eq!(world.alert(medium("v2")), "incident_updated joined");
    assert_eq!(world.alert(high("v2").named("Latency").within(minutes(10))), "incident_updated joined");
    let incident = world.latest();
    assert_eq!((incident.question_number, incident.deadline(), incident.action), (ask, deadline, Action::Page));
}

#[test]
fn another_target_is_another_question() {
    let mut world = World::new();
    world.release("v1");
    world.release("v2");
    world.alert(high("v2"));
    let ask = world.latest().question_number;
    assert_eq!(world.latest().target, None);
    world.mark_known_good("v1");
    world.alert(high("v2").named("Latency"));
    assert_eq!((world.latest().target.clone(), world.latest().question_number), (Some(v("v1")), ask + 1));
}

#[test]
fn a_deadline_only_moves_earlier() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2").within(minutes(10)));
    let began = world.now;
    world.pass(minutes(1));
    world.alert(high("v2").named("Latency").within(minutes(2)));
    assert_eq!(world.latest().deadline(), Some(began.plus(minutes(3))));
    world.alert(high("v2").named("Third").within(minutes(30)));
    assert_eq!(world.latest().deadline(), Some(began.plus(minutes(3))));
}

#[test]
fn the_same_alert_with_a_stronger_action_is_worse_not_a_duplicate() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    let worse = Alert { fingerprint: high("v2").fingerprint, ..critical("v2") };
    assert_eq!(world.alert(worse), "rolled_back alert");
    assert_eq!(world.latest().alerts.len(), 1);
}

#[test]
fn a_critical_alert_acts_in_every_phase() {
    for phase in [PhaseKind::Observing, PhaseKind::AwaitingDecision, PhaseKind::Investigating] {
        let mut world = World::with_a_fresh_release();
        world.alert(if phase == PhaseKind::Observing { medium("v2") } else { high("v2") });
        if phase == PhaseKind::Investigating {
            world.choose(Choice::Investigate);
        }
        assert_eq!(world.phase(), phase);
        assert_eq!(world.alert(critical("v2")), "rolled_back alert", "{phase}");
        assert_eq!((world.served(), world.incidents.len()), ("v1", 1));
    }
}

#[test]
fn an_investigation_is_interrupted_only_by_something_worse() {
    let mut world = World::with_a_fresh_release();
    world.alert(recommend("v2"));
    world.choose(Choice::Investigate);
    let ask = world.latest().question_number;
    assert_eq!(world.alert(recommend("v2").named("Tone")), "incident_updated joined");
    assert_eq!((world.phase(), world.latest().question_number), (PhaseKind::Investigating, ask));
    assert_eq!(world.alert(high("v2")), "incident_updated joined");
    assert_eq!((world.phase(), world.latest().question_number), (PhaseKind::AwaitingDecision, ask + 1));
}

#[test]
fn an_investigation_goes_on_when_what_remains_becomes_as_bad_as_before() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2"));
    world.choose(Choice::Investigate);
    world.alert(recommend("v2"));
    world.alert(high("v2").resolved());
    world.alert(recommend("v2").named("Tone"));
    world.alert(high("v2").named("Latency"));
    assert_eq!(world.phase(), PhaseKind::Investigating);
}

#[test]
fn alerts_of_a_rolled_back_version_reopen_nothing() {
    let mut world = World::with_a_fresh_release();
    world.alert(critical("v2"));
    world.pass(minutes(1));
    world.alert(critical("v2").resolved());
    assert_eq!(world.alert(critical("v2")), "ignored not_active");
    world.pass(minutes(10));
    assert_eq!(world.phase(), PhaseKind::Unverified);
    assert_eq!(world.alert(critical("v2")), "ignored not_active");
    assert_eq!((world.served(), world.incidents.len()), ("v1", 1));
}

#[test]
fn what_was_not_understood_in_the_labels_is_said_in_the_incident() {
    let mut world = World::with_a_fresh_release();
    let labels = TriggerLabels { severity: Some("critical"), action: Some("explode"), ..TriggerLabels::default() };
    let odd = Alert { trigger: Trigger::read(labels, &world.policy), ..critical("v2") };
    assert_eq!(world.alert(odd), "incident_opened page");
    assert!(world.latest().notes[0].text.contains("unknown action \"explode\""), "{:?}", world.latest().notes);
}

#[test]
fn severities_are_read_in_any_case_and_by_their_aliases() {
    let mut policy = World::with_a_fresh_release().policy;
    policy
        .severity_aliases
        .extend([("P1", Severity::Critical), ("Übel", Severity::Medium)].map(|(a, s)| (a.to_owned(), s)));
    for (word, severity, understood) in [
        ("critical", Severity::Critical, true),
        ("CRITICAL", Severity::Critical, true),
        ("p1", Severity::Critical, true),
        ("P1", Severity::Critical, true),
        ("Warning", Severity::High, true),
        ("INFO", Severity::Medium, true),
        ("übel", Severity::Medium, true),
        ("P2", Severity::High, false),
        ("", Severity::High, false),
    ] {
        let trigger = Trigger::read(TriggerLabels { severity: Some(word), ..TriggerLabels::default() }, &policy);
        assert_eq!((trigger.severity, trigger.remarks.is_empty()), (severity, understood), "{word}");
    }
}

#[test]
fn incidents_keep_a_bounded_number_of_alerts_and_the_worst() {
    let mut world = World::with_a_fresh_release();
    world.policy.dry_run = true;
    let mut many: Vec<Alert> = (0..200).map(|n| high("v2").named(&format!("High{n}"))).collect();
    many.push(critical("v2"));
    assert_eq!(world.deliver(&many)[200], "held dry_run");
    assert_eq!(world.latest().alerts.len(), Policy::MAX_ALERTS);
    assert!(world.latest().alerts.iter().any(|a| a.action == Action::Rollback));
    assert!(!world.would_write(&many), "those that found no room are not news each time");
    let first = world.latest().notes[0].text.clone();
    for _ in 0..60 {
        world.alert(critical("v2").resolved());
        world.alert(critical("v2"));
    }
    assert_eq!(world.latest().notes.len(), Policy::MAX_NOTES);
    assert_eq!(world.latest().notes[0].text, first, "how it began is kept");
}

#[test]
fn unserved_unhealthy_versions_take_bounded_memory() {
    let mut world = World::with_a_fresh_release();
    world.register("v3");
    world.register("v4");
    let mut many = vec![high("v1")];
    many.extend((0..200).map(|n| high("v3").named(&format!("High{n}"))));
    many.push(high("v4"));
    world.deliver(&many);
    assert_eq!(world.state.inactive_alerts.len(), Policy::MAX_INACTIVE_ALERTS);
    for version in ["v1", "v3", "v4"] {
        assert!(world.state.inactive_alerts.iter().any(|s| s.version == v(version)), "{version}");
    }
    assert!(!world.would_write(&many));
}

proptest! {
    #[test]
    fn a_delivery_is_grouped_as_by_a_search_for_each_version(
        given in prop::collection::vec((0..6_u8, any::<bool>()), 0..40),
    ) {
        let alert = |version: u8| world::firing("Row", &format!("v{version}"), Severity::High, Action::Page);
        let alerts: Vec<Alert> = given.iter().map(|(version, _)| alert(*version)).collect();
        let before = AlertOutcome::new(Outcome::Ignored, OutcomeReason::AlreadyResolved, None);
        let outcomes: Vec<_> = given.iter().map(|(_, handled)| handled.then(|| before.clone())).collect();
        let mut versions: Vec<&VersionName> = Vec::new();
        for (alert, outcome) in alerts.iter().zip(&outcomes) {
            if outcome.is_none() && !versions.contains(&&alert.version) {
                versions.push(&alert.version);
            }
        }
        let is_of = |version: &VersionName, place: usize| alerts[place].version == *version && outcomes[place].is_none();
        let places = |version: &VersionName| (0..alerts.len()).filter(|place| is_of(version, *place)).collect();
        let searched: Vec<(&VersionName, Vec<usize>)> = versions.into_iter().map(|v| (v, places(v))).collect();
        prop_assert_eq!(by_version(&alerts, &outcomes), searched);
    }
}

#[test]
fn a_repeat_asks_the_fallback_decider_once_the_first_is_removed() {
    let mut world = World::with_a_fresh_release();
    world.alert(high("v2").decided_by("product-pm"));
    let asked = world.latest().question_number;
    world.alert(high("v2").decided_by("on-call"));
    assert_eq!(world.latest().decider, "product-pm", "both may decide");
    world.policy.deciders = vec!["on-call".to_owned()];
    assert_eq!(world.alert(high("v2").decided_by("on-call")), "incident_updated joined");
    assert_eq!((world.latest().decider.as_str(), world.latest().question_number), ("on-call", asked + 1));
    assert_eq!(world.alert(high("v2").decided_by("on-call")), "duplicate duplicate");
}

/// The limit of a second observation.
#[test]
fn a_shorter_observation_counts_however_its_alert_arrives() {
    let long = medium("v2").within(minutes(60));
    let short = medium("v2").named("Other").within(minutes(10));
    let mut together = World::with_a_fresh_release();
    let mut split = together.clone();
    together.deliver(&[long.clone(), short.clone()]);
    split.alert(long);
    split.alert(short);
    together.pass(minutes(11));
    split.pass(minutes(11));
    assert_eq!(together.phase(), split.phase());
}

#[test]
fn alert_details_are_limited_and_the_worst_alerts_keep_theirs() {
    let long = |alert: Alert| Alert { description: "d".repeat(2_000), generator_url: "u".repeat(2_000), ..alert };
    let details = |alerts: &[AlertRecord]| -> Vec<usize> {
        alerts.iter().map(|record| record.description.len() + record.generator_url.len()).collect()
    };
    let mut world = World::with_a_fresh_release();
    world.paused = Some("dana".to_owned());
    let alerts: Vec<Alert> = (0..63).map(|n| long(high("v2").named(&format!("Row{n}")))).collect();
    world.deliver(&alerts);
    world.alert(long(critical("v2")));
    let incident = world.latest();
    let kept = details(&incident.alerts);
    assert_eq!((kept.len(), kept.last()), (64, Some(&4_000)), "the critical one keeps its details");
    assert!(kept.iter().sum::<usize>() <= Policy::MAX_ALERT_DETAILS && kept.iter().filter(|n| **n > 0).count() == 16);
    // of alerts on a version without traffic as well
    world.deliver(&alerts.into_iter().map(|alert| Alert { version: v("v1"), ..alert }).collect::<Vec<_>>());
    let inactive: Vec<AlertRecord> = world.state.inactive_alerts.iter().map(|one| one.alert.clone()).collect();
    assert!(inactive.len() > 16 && details(&inactive).iter().sum::<usize>() <= Policy::MAX_ALERT_DETAILS);
}
