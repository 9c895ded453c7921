use super::*;
use crate::config::Config;
use crate::decision::AlertRecord;

#[test]
fn a_version_is_healthy_again_only_by_the_measure_of_each_of_its_alerts() {
    let (prompt, version) = (PromptName::parse("p").expect("a name"), VersionName::parse("v2").expect("a version"));
    let id = crate::decision::IncidentId("I".to_owned());
    let alert = |verify: &str| {
        let mut alert = serde_json::json!({
            "fingerprint": "f", "alertname": "Row", "severity": "high", "action": "page", "decider": "on-call",
            "time_limit": 300_000, "firing": true, "first_seen": 0, "last_seen": 0,
        });
        alert["verify"] = verify.into();
        serde_json::from_value(alert).expect("an alert")
    };
    let mut incident = Incident::new(id, prompt, version, "on-call".to_owned(), Timestamp(0));
    let found = |incident: &Incident| {
        let verified = vec![Finding::new(Verdict::Healthy, "quality is back")];
        let errors = Finding::new(Verdict::Unhealthy, "error ratio 12.00 %");
        let finding = all_measures(incident, verified, errors, true);
        (finding.verdict, finding.text)
    };
    incident.alerts = vec![alert("quality")];
    assert_eq!(found(&incident), (Verdict::Healthy, "quality is back (error ratio 12.00 %)".to_owned()));
    incident.alerts.push(alert(""));
    assert_eq!(found(&incident), (Verdict::Unhealthy, "quality is back; error ratio 12.00 %".to_owned()));
}

#[test]
fn a_stricter_rule_lowers_the_limit_but_not_to_what_nothing_can_prove() {
    let incident = |metric: &str, threshold: &str| {
        let alert = serde_json::json!({
            "fingerprint": "f", "alertname": "Row", "severity": "high", "action": "page", "decider": "on-call",
            "time_limit": 300_000, "firing": true, "first_seen": 0, "last_seen": 0,
        });
        let mut alert: AlertRecord = serde_json::from_value(alert).expect("an alert");
        alert.measure = Measure { metric: metric.to_owned(), threshold: threshold.to_owned(), ..Measure::default() };
        let (prompt, version) = (PromptName::parse("p").expect("a name"), VersionName::parse("v2").expect("v2"));
        let id = crate::decision::IncidentId("I".to_owned());
        Incident { alerts: vec![alert], ..Incident::new(id, prompt, version, "on-call".to_owned(), Timestamp(0)) }
    };
    let limit = |metric, threshold| healthy_below(&incident(metric, threshold));
    let errors = "prompt_version:request_errors:ratio_rate5m";
    for (threshold, expected) in [("0.005", 0.005), ("0.05", 0.01), ("", 0.01), ("0", 0.01), ("-1", 0.01)] {
        assert_eq!(limit(errors, threshold), expected, "{threshold}");
    }
    assert_eq!(limit("prompt_version:quality_score:drop_ratio", "0.001"), 0.01);
}

/// Two alerts may be about two prompts, and their senders may not trust each other.
#[test]
fn an_expression_that_would_answer_for_another_is_asked_by_itself() {
    let evil = r#"vector(1)), "prompt_rollback_asked", "1", "", "") or label_replace((vector(1)"#;
    let all = ["vector(0)", evil, "a{b=\"c\"} # all of it", "vector(1)"].map(str::to_owned);
    assert_eq!(batches(&all), [vec![all[0].clone(), all[3].clone()], vec![all[1].clone()], vec![all[2].clone()]]);
    let many: Vec<_> = (0..70).map(|number| format!("vector({number})")).collect();
    assert_eq!(batches(&many).iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 6]);
    assert!(
        together(&["vector(0)", "vector(1)"])
            .ends_with(r#"label_replace((vector(1)), "prompt_rollback_asked", "1", "", "")"#)
    );
}

#[test]
fn every_shipped_rule_names_its_metric_unit_and_threshold() {
    let rules = include_str!("../../../alert-rules/alerts.yml");
    let mut metrics = Vec::new();
    for rule in rules.split("- alert: ").skip(1) {
        let field = |name: &str| {
            let line = rule.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
            line.map(|value| value.trim_matches('\'').to_owned()).unwrap_or_default()
        };
        let [metric, label, unit, threshold] = ["metric", "metric_label", "unit", "threshold"].map(field);
        assert!(
            rules.contains(&format!("- record: {metric}\n")) || metric.contains("drop") || metric.contains("growth")
        );
        let found = Metric::of(&Measure { metric, label: label.clone(), unit, threshold, ..Measure::default() });
        assert_eq!((found.label, found.threshold.is_some()), (label, true), "{rule}");
        metrics.push((found.series.is_some(), found.unit));
    }
    let of = |kind| metrics.iter().filter(|metric| **metric == kind).count();
    assert_eq!([(false, Unit::Ratio), (true, Unit::Ratio), (true, Unit::Number)].map(of), [3, 3, 3]);
}

/// However many clusters record the series: several results would tell nothing.
#[test]
fn every_shipped_verify_aggregates_what_it_selects() {
    let rules = include_str!("../../../alert-rules/alerts.yml");
    let verify = |rule: &str| -> Option<String> {
        let lines = rule.split_once("verify: >-\n")?.1.lines();
        Some(lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n"))
    };
    let all: Vec<_> = rules.split("- alert: ").skip(1).filter_map(verify).collect();
    assert_eq!(all.len(), 6);
    for expression in all.iter().map(|expression| expression.replace(" by (prompt, version) ", "")) {
        let (mut aggregates, mut word) = (Vec::new(), String::new());
        for character in expression.chars() {
            match character {
                '(' => aggregates.push(["max", "sum"].contains(&word.as_str())),
                ')' => {
                    aggregates.pop();
                }
                '{' => assert!(aggregates.contains(&true), "{word} in {expression}"),
                _ => {}
            }
            if character.is_alphanumeric() || "_:".contains(character) {
                word.push(character);
            } else {
                word.clear();
            }
        }
        assert!(aggregates.is_empty(), "{expression}");
    }
}

#[test]
fn only_the_name_of_a_series_gets_into_a_query() {
    let of = |metric: &str| Metric::of(&Measure { metric: metric.to_owned(), ..Measure::default() });
    for metric in ["", "1a", "up{job=\"x\"} or vector(1) #", "a b", "a-b", "é"] {
        assert_eq!(of(metric), of(""), "{metric:?}");
    }
    let own = Measure { metric: "prompt_refusals:ratio".to_owned(), threshold: "NaN".to_owned(), ..Measure::default() };
    let found = Metric::of(&own);
    assert_eq!((found.label.as_str(), found.unit, found.threshold), ("prompt_refusals:ratio", Unit::Number, None));
}

/// The sender of an alert writes the expression, and the incident shows its result to anyone who may read it.
#[test]
fn what_a_verify_expression_found_is_not_repeated() {
    let one = |value: f64| {
        let labels = [("secret".to_owned(), "s3cret".to_owned())].into();
        Ok(vec![Series { labels, points: vec![(Timestamp(0), value)] }])
    };
    let text = |answer: &Result<Vec<Series>, PrometheusError>| read_verify("Row", answer).text;
    assert_eq!(text(&one(1.0)), "healthy by the verify expression of Row");
    for value in [48_151.0, f64::NAN, -1.0] {
        let other = text(&one(value));
        assert_eq!(other, "the verify expression of Row returns a value other than 1 or 0", "{value}");
    }
    let refused = |status| Err(PrometheusError::Refused { status, message: "many-to-many: s3cret".to_owned() });
    let found = text(&refused(StatusCode::UNPROCESSABLE_ENTITY));
    assert_eq!(found, "Prometheus rejected the verify expression of Row (422 Unprocessable Entity)");
    let parse = text(&refused(StatusCode::BAD_REQUEST));
    assert!(parse.contains("many-to-many"), "what does not parse is told: {parse}");
}

#[test]
fn requests_of_a_soak_count_once_for_each_pair_of_prometheus_servers() {
    let labels = Labels { replicas: vec!["monitor".to_owned()], ..Config::default().labels };
    let (prompt, version) = (PromptName::parse("p").expect("a prompt"), VersionName::parse("v1").expect("a version"));
    let query = soak(&labels, &prompt, &version, Duration::from_secs(3_600));
    let once = "sum(max without (replica, prometheus_replica, __replica__, rule_replica, receive_replica, job, monitor) (sum_over_time(";
    assert_eq!(query.matches(once).count(), 2, "{query}");
}

#[test]
fn a_post_mortem_has_the_worst_cluster_and_the_errors_of_all() {
    let labels = Config::default().labels;
    let (prompt, version) = (PromptName::parse("p").expect("a name"), VersionName::parse("v2").expect("a version"));
    let errors = errors_per_minute(&labels, &prompt, &version);
    assert!(errors.starts_with("sum by (prompt, version) (max without (replica, "), "{errors}");
    let own = Measure { metric: "prompt_refusals:ratio".to_owned(), ..Measure::default() };
    let drawn = [own, Measure::default()].map(|measure| Metric::of(&measure).expression(&labels, &prompt));
    assert_eq!(drawn[0], "max by (prompt, version) (prompt_refusals:ratio{prompt=~\"p\"})");
    assert!(drawn[1].starts_with("max by (prompt, version) (prompt_version:request_errors:increase1m{"), "{drawn:?}");
}

#[test]
fn the_cluster_where_a_version_fails_most_counts() {
    let (prompt, version) = (PromptName::parse("p").expect("a name"), VersionName::parse("v2").expect("a version"));
    let of = |cluster: &str, value: f64| {
        let labels = [("prompt", "p"), ("version", "v2"), ("cluster", cluster)];
        let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
        Series { labels, points: vec![(Timestamp(0), value)] }
    };
    for both in [[of("eu", 0.0), of("us", 0.4)], [of("eu", 0.4), of("us", 0.0)]] {
        assert_eq!(ratio_of(&Config::default().labels, &both, &prompt, &version), Some(0.4));
    }
}

#[test]
fn an_abort_query_that_returns_neither_1_nor_0_reports_nothing() {
    let of = |value: f64| {
        let series = Series { labels: [].into(), points: vec![(Timestamp(0), value)] };
        read_abort(&Ok(vec![series])).verdict
    };
    let expected = [Verdict::Unhealthy, Verdict::Healthy, Verdict::Unknown, Verdict::Unknown];
    assert_eq!([1.0, 0.0, 0.37, f64::NAN].map(of), expected);
}
