use super::*;
use crate::decision::{
    CommitId, IncidentId, Operator, Plan, PromptName, Question, Timestamp, TrafficSplit, VersionName,
};
use crate::store::VersionSeries;

#[test]
fn names_are_those_of_the_contract() {
    let metrics = Metrics::new();
    metrics.rollback(SwitchMode::Auto, true);
    let series = VersionSeries {
        prompt: PromptName::of("Support bot").unwrap(),
        version: "v2".to_owned(),
        previous: "v1".to_owned(),
        activated: Timestamp(1_500),
    };
    let mut text = String::new();
    metrics.encode(&mut text).unwrap();
    ScrapeData { series: vec![series], dropped: 3, ..ScrapeData::default() }.encode(&mut text).unwrap();
    text.push_str(Metrics::END);
    for line in [
        r#"prompt_rollback_rollbacks_total{mode="auto",result="ok"} 1"#,
        r#"prompt_rollback_rollbacks_total{mode="manual",result="failed"} 0"#,
        r#"prompt_rollback_active_version_info{prompt="Support bot",version="v2",previous="v1"} 1"#,
        r#"prompt_rollback_active_version_activated_timestamp_seconds{prompt="Support bot",version="v2"} 1.5"#,
        r#"prompt_rollback_incidents{phase="awaiting_decision"} 0"#,
        "prompt_rollback_active_version_dropped 3",
        "# EOF",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[test]
fn one_delivery_cannot_make_the_truncated_alerts_of_others_invisible() {
    let metrics = Metrics::new();
    for (count, all) in [(u64::MAX, 1_000_000), (1 << 63, 2_000_000), (3, 2_000_003)] {
        metrics.truncated(count);
        let mut text = String::new();
        metrics.encode(&mut text).unwrap();
        let line = format!("prompt_rollback_truncated_alerts_total {all}");
        assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
    }
}

#[test]
fn each_decision_about_an_alert_counts_once() {
    let version = VersionName::parse("v2").unwrap();
    let prompt = PromptName::parse("p").unwrap();
    let alert = serde_json::json!({
        "fingerprint": "f", "alertname": "Row", "severity": "high", "action": "page", "decider": "on-call",
        "time_limit": 300_000, "firing": true, "first_seen": 0, "last_seen": 0,
    });
    let open = Incident {
        severity: Severity::High,
        alerts: vec![serde_json::from_value(alert).unwrap()],
        phase: Phase::AwaitingDecision(Question::default()),
        ..Incident::new(IncidentId("I".to_owned()), prompt, version.clone(), "on-call".to_owned(), Timestamp(0))
    };
    let (other, operator) = (VersionName::parse("v1").unwrap(), Operator::SYSTEM);
    let plan = Plan { stages: vec![50, 100], holds: Vec::new(), limit: None };
    let versions = (version.clone(), other.clone());
    let split = TrafficSplit::begin(true, versions, plan, operator.clone(), String::new(), Timestamp(1));
    let gradual = Incident { phase: Phase::RollingBack(split), ..open.clone() };
    let switch = Switch {
        commit: CommitId::default(),
        at: Timestamp(1),
        decided_at: None,
        from: version,
        to: other,
        mode: SwitchMode::Approved,
        operator,
        verification: None,
    };
    let verifying = Incident { phase: Phase::Verifying { until: Timestamp(2) }, switch: Some(switch), ..open.clone() };
    let dismissed = Incident { phase: Phase::Dismissed, ..open.clone() };
    let escalated = Incident { escalations: 1, ..open.clone() };
    let unasked = |incident: &Incident| Incident { alerts: Vec::new(), ..incident.clone() };
    let (no_alert, unasked) = (unasked(&open), unasked(&verifying));
    for (what, before, after, met, missed) in [
        ("opened", None, &open, 0, 0),
        ("approved", Some(&open), &verifying, 1, 0),
        ("approved gradually", Some(&open), &gradual, 1, 0),
        ("the last stage", Some(&gradual), &verifying, 0, 0),
        ("dismissed", Some(&open), &dismissed, 1, 0),
        ("nobody decided", Some(&open), &escalated, 0, 1),
        ("somebody did at last", Some(&escalated), &verifying, 0, 0),
        ("a person rolled back without an alert", None, &unasked, 0, 0),
        ("the same, once Prometheus had answered", Some(&no_alert), &unasked, 0, 0),
    ] {
        let metrics = Metrics::new();
        metrics.decision_deadline(before, after);
        let count =
            |result| metrics.decision_deadlines.get_or_create(&DeadlineLabels { result, severity: "high" }).get();
        assert_eq!((count("met"), count("missed")), (met, missed), "{what}");
    }
}

#[test]
fn renamed_metrics_have_the_same_values_under_both_names() {
    let metrics = Metrics::new();
    metrics.alert_to_rollback(Duration::from_secs(7));
    metrics.decision_deadlines.get_or_create(&DeadlineLabels { result: "missed", severity: "high" }).inc_by(3);
    let slack = (Target::FIRST.name(), Duration::from_millis(2_500));
    let webhook = ("webhook.audit", Duration::from_secs(9));
    let stored = ScrapeData { dead_letters: 4, notification_lag: vec![slack, webhook], ..ScrapeData::default() };
    let mut text = String::new();
    metrics.encode(&mut text).unwrap();
    stored.encode(&mut text).unwrap();
    let samples = |name: &str| -> Vec<String> {
        let rest = |line: &str| Some(line.strip_prefix("prompt_rollback_")?.strip_prefix(name)?.to_owned());
        text.lines().filter_map(rest).collect()
    };
    for (name, earlier) in RENAMED {
        let (now, before) = (samples(name), samples(earlier));
        assert_eq!(now, before, "{name}");
        assert!(now.iter().any(|sample| !sample.ends_with(" 0")), "{name}: {now:?}");
    }
    assert_eq!(samples("slack_lag_seconds"), [" 2.5"]);
    assert_eq!(samples("notification_lag_seconds{target=\"slack\"}"), [" 2.5"]);
    assert_eq!(text.matches("Deprecated: ").count(), RENAMED.len() + 1);
}
