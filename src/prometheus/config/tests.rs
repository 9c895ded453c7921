use super::*;

fn labels(pairs: &[(&str, &str)]) -> LabelSet {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn alerts_leave_with_external_labels_and_relabeled() {
    let file = PrometheusFile::parse(
            "global: {external_labels: {cluster: eu, severity: none, replica: a}}\n\
             alerting:\n  alert_relabel_configs:\n  \
             - {action: labeldrop, regex: replica}\n  \
             - {source_labels: [severity], regex: critical, target_label: severity, replacement: P1}\n  \
             - {source_labels: [cluster, severity], separator: '/', target_label: where, regex: '(.*)/(.*)', replacement: '${2} in $1'}\n  \
             - {source_labels: [alertname], regex: Noise, action: drop}\n",
        )
        .expect("valid");
    let sent = file.sent(labels(&[("alertname", "A"), ("severity", "critical")]));
    let expected = [("alertname", "A"), ("cluster", "eu"), ("severity", "P1"), ("where", "P1 in eu")];
    assert_eq!(sent, Some(labels(&expected)));
    assert_eq!(file.sent(labels(&[("alertname", "Noise")])), None);
}

#[test]
fn jobs_are_read_with_what_they_inherit() {
    let file = PrometheusFile::parse(
        "global: {scrape_interval: 30s}\nscrape_configs:\n\
             - job_name: a\n  honor_labels: yes\n  scrape_interval: 5s\n  metric_relabel_configs:\n  \
             - {source_labels: [__name__], regex: 'prompt_.*', action: keep}\n\
             - job_name: b\n  static_configs: [{targets: [x], labels: {version: '1'}}]\n\
             - job_name: c\n  relabel_configs: [{action: labelmap, regex: __meta_kubernetes_pod_label_(.+)}]\n",
    )
    .expect("valid");
    let found: Vec<_> = file
        .jobs
        .iter()
        .map(|job| {
            (job.name.as_str(), job.line, job.interval.as_secs(), job.honor_labels, job.may_label_targets("version"))
        })
        .collect();
    assert_eq!(found, [("a", 3, 5, true, false), ("b", 8, 30, false, true), ("c", 10, 30, false, true)]);
    assert!(file.jobs[0].keeps("prompt_requests_total") && !file.jobs[0].keeps("up") && file.jobs[1].keeps("up"));
    assert_eq!(file.evaluation_interval, MINUTE);
    let wrong = "scrape_configs:\n- job_name: a\n  metric_relabel_configs:\n  - action: keeep\n";
    assert_eq!(
        PrometheusFile::parse(wrong).expect_err("no action").to_string(),
        "line 4: scrape_configs[0].metric_relabel_configs[0].action: found \"keeep\", expected an action of Prometheus, such as keep or replace"
    );
}
