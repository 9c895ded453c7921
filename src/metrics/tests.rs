use super::*;
use crate::decision::{PromptName, Timestamp};
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
