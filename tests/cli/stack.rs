//! `check --alertmanager-config` and `--prometheus-config`, on the shipped files and on those of others.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use prompt_rollback_testkit::Dir;
use serde_json::Value;

use super::stub::{fails, program, stdout};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub(super) fn check(arguments: &[&str], file: &Path) -> Output {
    let file = file.to_str().expect("UTF-8");
    program(&[&["check"], arguments, &[file]].concat()).output().expect("runs")
}

/// The lines of the table whose result is not `ok`.
fn complaints(output: &Output) -> Vec<String> {
    let text = stdout(output);
    let table = text.split("\n\n").next().unwrap_or_default();
    let lines = table.lines().skip(2);
    lines.filter(|line| line.contains("  FAIL ") || line.contains("  warning ")).map(str::to_owned).collect()
}

/// Someone's own file; whatever it says, it pages with `pager`.
pub(super) fn written(dir: &Dir, name: &str, text: &str) -> PathBuf {
    dir.write(name, text).expect("written")
}

pub(super) const RECEIVERS: &str = "receivers:
  - name: default
  - name: pager
    pagerduty_configs:
      - routing_key: hunter2
";

/// Files of people who have run Alertmanager for a while.
fn files() -> Vec<(&'static str, String)> {
    let kube = "global:
  resolve_timeout: 5m
inhibit_rules:
- source_matchers: ['severity = critical']
  target_matchers: ['severity =~ warning|info']
  equal: [namespace, alertname]
- source_matchers: ['alertname = InfoInhibitor']
  target_matchers: ['severity = info']
  equal: [namespace]
- target_matchers: ['alertname = InfoInhibitor']
route:
  group_by: ['namespace']
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 12h
  receiver: 'null'
  routes:
  - receiver: 'null'
    matchers: ['alertname = \"Watchdog\"']
  - receiver: pager
    matchers: ['severity = \"critical\"']
receivers:
- name: 'null'
- name: pager
  pagerduty_configs: [{routing_key: hunter2}]
templates: ['/etc/alertmanager/config/*.tmpl']
";
    let bare = format!("route:\n  receiver: pager\n{RECEIVERS}");
    let old = format!(
        "route:
  receiver: default
  routes:

    # everything of importance
    - match_re: {{severity: critical|high}}
      group_by: ['...']
      receiver: pager
      continue: true
    - match:
        severity: medium
      receiver: default
inhibit_rules:
  - source_match:
      severity: critical
    target_match_re:
      severity: high|medium
    equal: [cluster]
  - source_matchers:
      - severity=critical
    target_matchers:
      - severity=~high|medium
{RECEIVERS}"
    );
    let ours = |own: &str| {
        format!(
            "route:
  receiver: pager
  routes:
    - matchers: ['prompt=~\".+\"']
      receiver: rollback
      continue: true
      active_time_intervals: [office]
    - receiver: pager
time_intervals:
  - name: office
    time_intervals: [{{weekdays: ['monday:friday']}}]
{RECEIVERS}  - name: rollback
    webhook_configs:
{own}
"
        )
    };
    let careless = ours(
        "      - url: https://rollback.example.com/prefix/webhooks/alertmanager
        send_resolved: no  # noise
        max_alerts: 20
        http_config:
          proxy_url: http://proxy:3128",
    );
    let short = ours("      - url: 'http://receiver:8000/webhooks/alertmanager'");
    let redirected = ours(
        "      - http_config: {follow_redirects: false, authorization: {credentials: hunter2}}
        max_alerts: 7
        url: http://receiver:8000/webhooks/alertmanager",
    );
    let taken = format!(
        "{RECEIVERS}  - name: prompt-rollback\n    webhook_configs: [{{url: 'http://receiver:8000/webhook'}}]\nroute: # all of it\n    # who\n    receiver: pager\n    routes:\n        # nothing yet\n        - receiver: prompt-rollback\n          matchers: ['prompt!=\"\"']"
    );
    // a pager whose name begins with that of our receiver, and one with exactly that name
    let other = "  - name: rollback\n    webhook_configs:\n      - url: http://receiver:8000/webhooks/alertmanager\n";
    let prefixed = bare.replace("pager\n", "prompt-rollback-oncall\n") + other;
    let namesake = bare.replace("pager\n", "prompt-rollback\n");
    // drills must not page, and the usual name for that is taken
    let drilled = format!(
        "route:\n  receiver: prompt-rollback-drill\n  routes:\n  - receiver: prompt-rollback-drill\n{}",
        RECEIVERS.replace("pager\n", "prompt-rollback-drill\n").replace("  - name: default\n", "")
    );
    let unended = bare.trim_end().to_owned();
    let windows = bare.replace('\n', "\r\n");
    // one webhook, twice in the file, and a secret in its last line
    let anchored = "route:
  receiver: pager
receivers:
  - name: pager
    pagerduty_configs:
      - routing_key: hunter2
  - name: rollback
    webhook_configs: &ours
      - url: http://user:hunter2@receiver:8000/webhooks/alertmanager
        max_alerts: 1
  - name: again
    webhook_configs: *ours
  - name: last
    webhook_configs:
      - url: http://user:hunter2@receiver:8000/webhooks/alertmanager";
    // one receiver for us and for people
    let mixed = format!(
        "route:
  receiver: default
  routes:
    - matchers: ['prompt=~\".+\"']
      receiver: both
{RECEIVERS}  - name: both
    slack_configs: [{{api_url: 'http://hunter2', channel: '#noise'}}]
    webhook_configs:
      - url: http://receiver:8000/webhooks/alertmanager
        http_config: ~ # none
"
    );
    let empty = |routes: &str| format!("route:\n  receiver: pager\n  {routes}\n{RECEIVERS}");
    let marked = format!(
        "route: &root\n  receiver: pager\n  routes: &routes\n  - receiver: default\n    matchers: ['severity=medium']\n{}\
         inhibit_rules:\n- source_matchers: ['severity=critical']\n  target_matchers: []\n  equal: [cluster]\n",
        RECEIVERS.replace("receivers:", "receivers: &all")
    );
    let all = [
        ("mixed", mixed),
        ("routes without a value", empty("routes:")),
        ("routes of null", empty("\"routes\": null # none yet")),
        ("routes of an empty list", empty("routes: []")),
        ("marked", marked),
        ("kube-prometheus-stack", kube.to_owned()),
        ("bare", bare),
        ("old syntax", old),
        ("careless", careless.clone()),
        ("short", short),
        ("redirected", redirected),
        ("taken", taken),
        ("a pager named like our receiver and more", prefixed),
        ("a pager with the name of our receiver", namesake),
        ("a pager with the name of our receiver of drills", drilled),
        ("without a line break at the end", unended),
        ("line breaks of Windows", windows),
        ("careless, with line breaks of Windows", careless.replace('\n', "\r\n")),
        ("anchored", anchored.to_owned()),
        ("shipped", std::fs::read_to_string(format!("{ROOT}/config/alertmanager.yml")).expect("shipped")),
    ];
    all.to_vec()
}

#[test]
fn the_lines_that_check_prints_make_it_green() {
    let dir = Dir::new("stack").expect("a folder");
    written(&dir, "webhook_token", "hunter2hunter2\n");
    for (name, text) in files() {
        let file = written(&dir, "alertmanager.yml", &text);
        let before = check(&["--alertmanager-config"], &file);
        let found = complaints(&before);
        assert!(!found.is_empty(), "{name} is fine: {}", stdout(&before));
        if name == "shipped" {
            // its pager notifies nobody, which no line of ours can mend
            assert_eq!(before.status.code(), Some(0), "{name}: {found:#?}");
            assert!(!stdout(&before).contains("+++"), "{}", stdout(&before));
            assert!(found.iter().all(|line| line.contains("notifies a person")), "{found:#?}");
            continue;
        }
        assert_eq!(before.status.code(), Some(1), "{name}: {found:#?}");
        let printed = written(&dir, "printed", &stdout(&before));
        assert!(!stdout(&before).contains("hunter2"), "{name}: a secret is printed: {}", stdout(&before));
        let patched = Command::new("patch").arg(&file).arg("-i").arg(printed).output().expect("patch");
        assert!(patched.status.success(), "{name}: {}\n{}", stdout(&patched), stdout(&before));
        let valid = Command::new("amtool").arg("check-config").arg(&file).output().expect("amtool");
        let text = std::fs::read_to_string(&file).expect("patched");
        assert!(valid.status.success(), "{name}: {}\n{text}", String::from_utf8_lossy(&valid.stderr));
        let after = check(&["--alertmanager-config"], &file);
        assert_eq!((after.status.code(), complaints(&after)), (Some(0), Vec::new()), "{name}:\n{text}");
        assert!(!stdout(&after).contains("+++"), "{name}: {}", stdout(&after));
    }
}

#[test]
fn each_fault_of_a_route_tree_is_named_with_its_place() {
    let dir = Dir::new("stack").expect("a folder");
    let found = |name: &str| {
        let text = files().into_iter().find(|(one, _)| *one == name).expect(name).1;
        complaints(&check(&["--alertmanager-config"], &written(&dir, "alertmanager.yml", &text))).join("\n")
    };
    for (file, expected) in [
        (
            "kube-prometheus-stack",
            "PromptErrorRateCritical      FAIL     reaches pager after 30s, every 12h (route.routes[1], line 20): expected a receiver whose webhook has the path /webhooks/alertmanager",
        ),
        (
            "kube-prometheus-stack",
            "PromptRollbackHeartbeat      FAIL     reaches null after 30s, every 12h (route, line 11)",
        ),
        (
            "old syntax",
            "inhibit_rules[0]             FAIL     line 14: inhibits PromptErrorRateHigh, PromptErrorRateNewVersion, PromptQualityDropHigh and",
        ),
        ("old syntax", "while an alert with severity=\"critical\" and the same cluster fires"),
        ("old syntax", "inhibit_rules[1]"),
        ("careless", "group_wait: found 30s, expected 0s: each second of delay means more bad responses"),
        ("careless", "group_interval: found 5m, expected at most 10s"),
        (
            "careless",
            "repeat_interval: found 4h, expected at most 5m: the receiver retries a rollback that a guard held at each repeat",
        ),
        (
            "careless",
            "group_by: expected prompt and version in it: in a group with an alert of another prompt, it waits for group_interval",
        ),
        ("careless", "active_time_intervals: found office, expected none: a muted alert is not delivered"),
        ("careless", "receivers[2].webhook_configs[0].send_resolved: found false, expected true"),
        ("careless", "receivers[2].webhook_configs[0].max_alerts: found 20, expected 0"),
        ("careless", "receivers[2].webhook_configs[0].http_config.follow_redirects: found true, expected false"),
        (
            "careless",
            "receivers[2].webhook_configs[0].http_config.authorization: found nothing, which fits only a receiver without server.webhook_token",
        ),
        ("careless", "PromptRollbackDrill          FAIL"),
        ("careless", "expected no receiver that notifies a person: a drill is not an emergency"),
    ] {
        let found = found(file);
        assert!(found.contains(expected), "{expected}\nis not in\n{found}");
    }
    // one route for all severities
    let text =
        "route: {receiver: ours, group_by: [prompt, version], group_wait: 0s, group_interval: 10s, repeat_interval: 1m}
receivers: [{name: ours, webhook_configs: [{url: 'http://x/webhooks/alertmanager'}], email_configs: [{to: a@b}]}]
";
    let output = check(&["--alertmanager-config"], &written(&dir, "alertmanager.yml", text));
    let critical =
        complaints(&output).into_iter().find(|line| line.contains("PromptErrorRateCritical")).expect("critical");
    let expected =
        "group_by: expected severity in it: in a group with PromptErrorRateHigh, it waits for group_interval";
    assert!(critical.contains(expected), "{critical}");
    // an empty list groups as the route above does
    let text = "route:
  receiver: ours
  group_by: ['...']
  group_wait: 0s
  group_interval: 10s
  repeat_interval: 1m
  routes: [{matchers: ['severity=critical'], group_by: []}]
receivers: [{name: ours, webhook_configs: [{url: 'http://x/webhooks/alertmanager'}], email_configs: [{to: a@b}]}]
";
    let output = check(&["--alertmanager-config"], &written(&dir, "alertmanager.yml", text));
    assert!(!stdout(&output).contains("group_by: expected"), "{}", stdout(&output));
    // kube-prometheus-stack's own rules match none of our severities
    assert!(!found("kube-prometheus-stack").contains("inhibit_rules"));
}

#[test]
fn the_token_is_compared_and_never_shown() {
    let dir = Dir::new("stack").expect("a folder");
    let file = |authorization: &str| {
        let text = format!(
            "route: {{receiver: ours}}\nreceivers:\n- name: ours\n  webhook_configs:\n  - url: http://x/webhooks/alertmanager\n    timeout: 3s\n    http_config:\n      {authorization}\n"
        );
        let file = written(&dir, "alertmanager.yml", &text);
        let output = program(&["check", "--alertmanager-config", file.to_str().expect("UTF-8")])
            .env("PROMPT_ROLLBACK_SERVER__WEBHOOK_TOKEN", "hunter2hunter2")
            .output()
            .expect("runs");
        assert!(!stdout(&output).contains("hunter"), "{}", stdout(&output));
        complaints(&output).into_iter().find(|line| line.contains("receiver ours")).expect("the receiver")
    };
    written(&dir, "right", "hunter2hunter2\n");
    written(&dir, "wrong", "hunter3hunter3\n");
    let wrong = "expected the value of server.webhook_token, so the receiver would answer 401";
    for (authorization, expected) in [
        ("authorization: {credentials_file: right}", ""),
        ("authorization: {type: bearer, credentials: hunter2hunter2}", ""),
        ("bearer_token: hunter2hunter2", ""),
        ("authorization: {credentials_file: on-another-machine}", "on-another-machine does not exist here: put a copy"),
        ("authorization: {credentials_file: wrong}", wrong),
        ("bearer_token: hunter3hunter3", wrong),
        ("basic_auth: {username: a, password: hunter2}", "found basic_auth, expected a bearer token"),
        ("authorization: {type: Basic, credentials: hunter2}", "found an authorization of another type than Bearer"),
        ("proxy_url: http://proxy", "authorization: found nothing, expected the bearer token server.webhook_token"),
    ] {
        let found = file(authorization);
        assert!(found.contains("timeout: found 3s, expected at least 5s"), "{found}");
        assert_eq!(found.contains("authorization"), !expected.is_empty(), "{authorization}: {found}");
        assert!(found.contains(expected), "{authorization}: {found}");
    }
}

#[test]
fn an_invalid_file_is_named_with_line_field_and_what_was_expected() {
    let dir = Dir::new("stack").expect("a folder");
    let route = "route: {receiver: a}\nreceivers: [{name: a}]\n";
    for (flag, text, expected) in [
        ("--alertmanager-config", "", "line 1: the file: expected the key route"),
        ("--alertmanager-config", "route:\n  receiver: [a]\n", "line 2: route.receiver: found a list, expected a text"),
        (
            "--alertmanager-config",
            "route:\n  receiver: b\n",
            "line 2: route.receiver: found \"b\", expected the name of a receiver in `receivers`",
        ),
        (
            "--alertmanager-config",
            "route: {receiver: a, group_wait: soon}\nreceivers: [{name: a}]\n",
            "line 1: route.group_wait: found \"soon\", expected a duration such as 30s or 5m",
        ),
        (
            "--alertmanager-config",
            "receivers: [{name: a}]\nroute:\n  receiver: a\n  routes:\n  - matchers:\n    - severity=~\"(\"\n",
            "line 6: route.routes[0].matchers[0]: the expression \"(\": ",
        ),
        (
            "--alertmanager-config",
            &format!("{route}inhibit_rules:\n- target_matchers: [severity]\n"),
            "line 4: inhibit_rules[0].target_matchers[0]: found \"severity\", expected a matcher such as severity=\"critical\"",
        ),
        (
            "--alertmanager-config",
            &format!("{route}inhibit_rules: hunter2\n"),
            "line 3: inhibit_rules: found a text, expected a list",
        ),
        (
            "--alertmanager-config",
            "route: {receiver: a}\nreceivers:\n- name: a\n  slack_configs: https://hooks.example.com/hunter2\n",
            "line 4: receivers[0].slack_configs: found a text, expected a list",
        ),
        (
            "--alertmanager-config",
            "route: {receiver: a}\nreceivers:\n- name: a\n  webhook_configs:\n  - url: http://x\n    http_config:\n      authorization: Bearer hunter2\n",
            "line 7: receivers[0].webhook_configs[0].http_config.authorization: found a text, expected a table",
        ),
        ("--alertmanager-config", "a: 'b\nc: d\n", "invalid YAML: "),
        (
            "--prometheus-config",
            "global:\n  scrape_interval: 5\n",
            "line 2: global.scrape_interval: found \"5\", expected a duration such as 5s",
        ),
        ("--prometheus-config", "scrape_configs:\n- {}\n", "line 2: scrape_configs[0]: expected the key job_name"),
    ] {
        let file = written(&dir, "file.yml", text);
        let output = check(&[flag], &file);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}: {error}{}", stdout(&output));
        assert!(error.starts_with(&format!("error: {}: line ", file.display())), "{error}");
        assert!(error.contains(expected), "{expected}\nis not in\n{error}");
        assert!(!error.contains("hunter2"), "a secret is printed: {error}");
    }
    let output = program(&["check", "--alertmanager-config", "/nonexistent.yml"]).output().expect("runs");
    fails(&output, 2, "error: cannot read /nonexistent.yml: No such file or directory (os error 2)\n");
}

#[test]
fn each_change_of_the_shipped_prometheus_config_for_the_worse_is_found() {
    let dir = Dir::new("stack").expect("a folder");
    std::fs::create_dir(dir.path().join("rules")).expect("a folder");
    for file in std::fs::read_dir(format!("{ROOT}/alert-rules")).expect("rules").flatten() {
        std::fs::copy(file.path(), dir.path().join("rules").join(file.file_name())).expect("copied");
    }
    let shipped = std::fs::read_to_string(format!("{ROOT}/config/prometheus.yml")).expect("shipped");
    let found = |text: &str| {
        let file = written(&dir, "prometheus.yml", text);
        let output = check(&["--prometheus-config"], &file);
        assert_ne!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        complaints(&output)
    };
    assert_eq!(found(&shipped), Vec::<String>::new());
    // one glob for all of them
    let (before, rest) = shipped.split_once("rule_files:").expect("rule files");
    let (_, after) = rest.split_once("\n# A target can export").expect("what follows");
    assert_eq!(
        found(&format!("{before}rule_files: ['rules/*.yml']\n# A target can export{after}")),
        Vec::<String>::new()
    );
    for (from, to, expected) in [
        ("scrape_interval: 5s", "scrape_interval: 30s", "job prompt-servers"),
        (
            "global:",
            "global:\n  convert_classic_histograms_to_nhcb: true",
            "convert_classic_histograms_to_nhcb: found true, expected false, or always_scrape_classic_histograms: true",
        ),
        ("scrape_interval: 5s", "scrape_interval: 30s", "scrape_interval: found 30s, expected at most 15s"),
        ("scrape_interval: 5s", "scrape_interval: 10s", "scrape_interval: found 10s, expected 5s"),
        (
            "evaluation_interval: 5s",
            "evaluation_interval: 1m",
            "evaluation_interval: found 1m, expected at most 15s, better 5s: the alerts of prompt_rollback_",
        ),
        (
            "honor_labels: true\n    sample_limit: 20000",
            "sample_limit: 20000",
            "honor_labels: found false, expected true",
        ),
        (
            "honor_labels: true\n    sample_limit: 20000",
            "sample_limit: 20000\n    relabel_configs: [{action: labelmap, regex: __meta_kubernetes_pod_label_(.+)}]",
            "its targets can have a label prompt and version",
        ),
        (
            "honor_labels: true\n    sample_limit: 20000",
            "sample_limit: 20000\n    relabel_configs: [{source_labels: [__meta_kubernetes_pod_label_app_kubernetes_io_version], target_label: version}]",
            "its targets can have a label version",
        ),
        (
            "honor_labels: true\n    sample_limit: 20000",
            "sample_limit: 20000\n    relabel_configs:\n    - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}\n    - {source_labels: [pod], regex: '.*-(v[0-9]+)-.*', target_label: version}",
            "its targets can have a label version",
        ),
        (
            "    # Enough for 20,000",
            "    relabel_configs: [{source_labels: [__meta_kubernetes_service_label_app], regex: (.+), target_label: job}]\n    # Enough for 20,000",
            "relabeling changes the label job: the rules read the metrics with job=\"prompt-rollback\"",
        ),
        (
            "regex: prompt_(info|requests_total|(request_duration_seconds|quality_score)(_.*)?)|gen_ai_(client_",
            "regex: genai_(client_",
            "no job looks like that of prompt servers",
        ),
        ("job_name: prompt-rollback", "job_name: receivers", "expected a job prompt-rollback for the receivers"),
        ("  - rules/native.yml\n", "", "neither native.yml nor otel.yml"),
        (
            "  - rules/alerts.yml\n",
            "",
            "alert-rules/alerts.yml: rule_files loads no file with the group prompt_rollback_critical",
        ),
        ("  - rules/self.yml\n", "", "alert-rules/self.yml: rule_files loads no file"),
        ("  alertmanagers:\n", "  somethings:\n", "alerting.alertmanagers: found none"),
        ("    # replica: a", "    replica: a\n    severity: page", "external_labels.severity: expected another name"),
        ("    # replica: a", "    version: '3'", "external_labels.version: expected another name: every alert"),
        (
            "regex: runbooks_url|replica",
            "regex: runbooks_url|version",
            "alert_relabel_configs change the label version of PromptErrorRateCritical",
        ),
        (
            "    - static_configs:\n        # List every",
            "    - alert_relabel_configs: [{action: labeldrop, regex: version}]\n      static_configs:\n        # List every",
            "FAIL    start it with --rules.alert.resend-delay=5s and --rules.alert.for-grace-period=10s: alert_relabel_configs change the label version",
        ),
        (
            "    - static_configs:\n        # List every",
            "    - static_configs: []\n    - alert_relabel_configs: [{action: labeldrop, regex: version}]\n      static_configs:\n        # List every",
            "for alerting.alertmanagers[1], alert_relabel_configs change the label version",
        ),
        (
            "      - source_labels: [prompt]\n",
            "      - {action: labeldrop, regex: 'outcome|version'}\n      - source_labels: [prompt]\n",
            "metric_relabel_configs change the label version and outcome of prompt_requests_total",
        ),
        (
            "      - source_labels: [prompt]\n",
            "      - {source_labels: [pod], target_label: gen_ai_prompt_version}\n      - source_labels: [prompt]\n",
            "metric_relabel_configs change the label gen_ai_prompt_version of gen_ai_client_operation_duration_seconds_count",
        ),
        (
            "      - source_labels: [prompt]\n",
            "      - {source_labels: [__name__], regex: '.*_bucket', action: drop}\n      - source_labels: [prompt]\n",
            "metric_relabel_configs drop prompt_request_duration_seconds_bucket: no latency is measured",
        ),
        (
            "  evaluation_interval: 5s",
            "  evaluation_interval: 5s\n  rule_query_offset: 1m",
            "global.rule_query_offset: found 1m, expected at most 15s",
        ),
        (
            "    # Enough for 20,000",
            "    relabel_configs: [{target_label: job, replacement: receivers}]\n    # Enough for 20,000",
            "relabeling changes the label job: the rules read the metrics with job=\"prompt-rollback\"",
        ),
        (
            "regex: runbooks_url|replica",
            "regex: nothing\n    - {source_labels: [action], regex: rollback, action: drop}",
            "alert_relabel_configs drop PromptErrorRateCritical",
        ),
    ] {
        assert!(shipped.contains(from), "{from}");
        let found = found(&shipped.replace(from, to)).join("\n");
        assert!(found.contains(expected), "{expected}\nis not in\n{found}");
    }
    for rules in ["/etc/prometheus/rules/main-0/*.yaml", "../elsewhere/alerts.yml"] {
        let text = format!("{before}rule_files: ['{rules}']\n# A target can export{after}");
        let found = found(&text);
        assert!(found.len() == 1 && found[0].contains("is not on this machine"), "{found:?}");
    }
    for harmless in [
        "{source_labels: [prompt_name], target_label: prompt}",
        "{source_labels: [prompt], regex: '|billing', action: keep}",
        "{action: labeldrop, regex: user_id}",
        "{source_labels: [version], target_label: release}",
    ] {
        let text = shipped.replace(
            "      - source_labels: [prompt]\n",
            &format!("      - {harmless}\n      - source_labels: [prompt]\n"),
        );
        assert_eq!(found(&text), Vec::<String>::new(), "{harmless}");
    }
    let by_operator = shipped.replace(
        "job_name: prompt-rollback\n",
        "job_name: serviceMonitor/prompts/prompt-rollback/0\n    relabel_configs: [{source_labels: [__meta_kubernetes_service_name], target_label: job}]\n",
    );
    assert_eq!(found(&by_operator), Vec::<String>::new());
    let rules = dir.path().join("rules/alerts.yml");
    let alerts = std::fs::read_to_string(&rules).expect("rules");
    let late = alerts
        .replace("  - name: prompt_rollback_critical\n", "  - name: prompt_rollback_critical\n    query_offset: 1m\n");
    std::fs::write(&rules, late).expect("written");
    let late = found(&shipped).join("\n");
    assert!(
        late.contains("query_offset of the group prompt_rollback_critical: found 1m, expected at most 15s"),
        "{late}"
    );
    std::fs::write(&rules, alerts).expect("written");
    let replica = shipped.replace("    # replica: a", "    replica: a");
    assert_eq!(found(&replica), Vec::<String>::new());
    let kept = found(&replica.replace("runbooks_url|replica", "runbooks_url")).join("\n");
    assert!(kept.contains("external_labels.replica: expected alert_relabel_configs to drop it"), "{kept}");
}

#[test]
fn alerts_are_relabeled_with_the_labels_that_they_have_in_prometheus() {
    let dir = Dir::new("stack").expect("a folder");
    std::fs::create_dir(dir.path().join("rules")).expect("a folder");
    for file in std::fs::read_dir(format!("{ROOT}/alert-rules")).expect("rules").flatten() {
        let rules = std::fs::read_to_string(file.path()).expect("rules");
        let critical = "  - name: prompt_rollback_critical\n";
        let rules = rules.replace(critical, &format!("{critical}    labels: {{env: staging}}\n"));
        std::fs::write(dir.path().join("rules").join(file.file_name()), rules).expect("written");
    }
    let shipped = std::fs::read_to_string(format!("{ROOT}/config/prometheus.yml")).expect("shipped");
    let found = |arguments: &[&str], relabeling: &str| {
        let text = shipped
            .replace("regex: runbooks_url|replica\n", &format!("regex: runbooks_url|replica\n    - {relabeling}\n"));
        assert_ne!(text, shipped);
        let file = written(&dir, "prometheus.yml", &text);
        complaints(&check(&[arguments, &["--prometheus-config"]].concat(), &file)).join("\n")
    };
    let dropped = found(&[], "{source_labels: [env], regex: staging, action: drop}");
    assert!(dropped.contains("alert_relabel_configs drop PromptErrorRateCritical"), "{dropped}");
    let everywhere = ["--alert-label", "namespace=prompts"];
    let kept = "{source_labels: [namespace], regex: prompts, action: keep}";
    assert!(found(&[], kept).contains("alert_relabel_configs drop PromptErrorRateCritical"));
    assert_eq!(found(&everywhere, kept), "");
    // labels that the receiver does not read, and alerts that it posts to Alertmanager itself
    assert_eq!(found(&everywhere, "{action: labeldrop, regex: env|namespace}"), "");
    assert_eq!(
        found(&[], "{source_labels: [alertname], regex: PromptRollbackEscalation|PromptRollbackDrill, action: drop}"),
        ""
    );
}

#[test]
fn routes_that_exist_are_not_added_again() {
    let dir = Dir::new("stack").expect("a folder");
    let shipped = std::fs::read_to_string(format!("{ROOT}/config/alertmanager.yml")).expect("shipped");
    let (before, rest) = shipped.split_once("        http_config:\n").expect("the webhook");
    let (_, after) = rest.split_once("credentials_file: webhook_token\n").expect("its token");
    // something that lines mend, beside a pager without an integration, which they do not
    let text = format!("{before}        http_config: {{}}\n{after}");
    let told = stdout(&check(&["--alertmanager-config"], &written(&dir, "alertmanager.yml", &text)));
    assert!(
        told.contains("+            credentials_file: webhook_token") && !told.contains("+    - matchers"),
        "{told}"
    );
}

#[test]
fn what_a_patch_cannot_change_is_told() {
    let dir = Dir::new("stack").expect("a folder");
    let text = "route: {receiver: ours, routes: [{receiver: ours}]}
receivers:
- {name: ours, webhook_configs: [{url: 'http://x/webhooks/alertmanager', send_resolved: false, http_config: {}}]}
";
    let output = check(&["--alertmanager-config"], &written(&dir, "alertmanager.yml", text));
    let text = stdout(&output);
    assert!(!text.contains("+++"), "{text}");
    for expected in [
        "\nAdd to route.routes (line 1), which is in flow style:\n- matchers: ['alertname=\"PromptRollbackHeartbeat\"']\n",
        "\nSet receivers[0].webhook_configs[0].send_resolved (line 3) to true\n",
        "\nReplace http_config of receivers[0].webhook_configs[0] (line 3) by:\nhttp_config:\n  follow_redirects: false\n  authorization:\n",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    // half by hand, half as a patch
    let text = format!("route: {{receiver: pager}}\n{RECEIVERS}");
    let output = check(&["--alertmanager-config"], &written(&dir, "alertmanager.yml", &text));
    let text = stdout(&output);
    for expected in ["\n+  - name: prompt-rollback\n", "\nAdd to route (line 1), which is in flow style:\nroutes:\n"] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    let text = "route: {receiver: ours}
receivers:
- name: ours
  webhook_configs:
  - url: http://x/webhooks/alertmanager
    payload: {a: b}
";
    let output = check(&["--alertmanager-config"], &written(&dir, "alertmanager.yml", text));
    let text = stdout(&output);
    for expected in
        ["payload: found a body, expected none", "\nRemove receivers[0].webhook_configs[0].payload (line 6)"]
    {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
}

#[test]
fn the_lines_have_the_address_that_was_given() {
    let dir = Dir::new("stack").expect("a folder");
    let file = written(&dir, "alertmanager.yml", &format!("route:\n  receiver: pager\n{RECEIVERS}"));
    for (url, expected) in [
        ("https://rollback.example.com/x/", "+      - url: https://rollback.example.com/x/webhooks/alertmanager\n"),
        ("http://[::1]:8000", "+      - url: http://[::1]:8000/webhooks/alertmanager\n"),
    ] {
        let text = stdout(&check(&["--receiver-url", url, "--alertmanager-config"], &file));
        assert!(text.contains(expected), "{text}");
    }
}

/// The operator's routes match a label that it adds to alerts.
#[test]
fn alerts_have_the_labels_that_were_given_and_those_of_the_loaded_rules() {
    let dir = Dir::new("stack").expect("a folder");
    let alertmanager = "route:
  receiver: pager
  routes:
    - matchers: ['namespace=\"prompts\"', 'prompt=~\".+\"']
      receiver: ours
      continue: true
      group_by: ['...']
      group_wait: 0s
      group_interval: 10s
      repeat_interval: 1m
    - matchers: ['prompt=~\".+\"']
      receiver: pager
receivers:
  - name: pager
    pagerduty_configs: [{routing_key: abc}]
  - name: ours
    webhook_configs: [{url: 'http://x/webhooks/alertmanager'}]
";
    let alertmanager = written(&dir, "alertmanager.yml", alertmanager);
    let rules = std::fs::read_to_string(format!("{ROOT}/alert-rules/alerts.yml")).expect("rules");
    let rules: String = rules
        .lines()
        .map(|line| {
            if line.starts_with("  - name: ") {
                format!("{line}\n    labels: {{namespace: prompts}}\n")
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    written(&dir, "alerts.yml", &rules);
    let prometheus = written(&dir, "prometheus.yml", "rule_files: [alerts.yml]\n");
    let prometheus = prometheus.to_str().expect("UTF-8");
    let arrives = |arguments: &[&str]| {
        let text = stdout(&check(&[arguments, &["--alertmanager-config"]].concat(), &alertmanager));
        let of = |name: &str| text.lines().any(|line| line.contains(name) && line.contains("  ok  ")).to_string();
        ["PromptErrorRateCritical", "PromptRollbackDrill"].map(|name| of(&format!("alertmanager {name} ")))
    };
    assert_eq!(arrives(&[]), ["false", "false"]);
    assert_eq!(arrives(&["--prometheus-config", prometheus]), ["true", "false"]);
    assert_eq!(arrives(&["--alert-label", "namespace=other"]), ["false", "false"]);
    let output = check(&["--alert-label", "namespace=prompts", "--alertmanager-config"], &alertmanager);
    let found = complaints(&output);
    assert!(!found.iter().any(|line| line.contains("PromptErrorRate")), "{found:#?}");
    assert!(!found.iter().any(|line| line.contains("PromptRollbackDrill") && line.contains("FAIL")), "{found:#?}");
    let output = check(&["--alert-label", "namespace", "--alertmanager-config"], &alertmanager);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_pager_that_is_muted_at_night_is_no_pager_at_night() {
    let dir = Dir::new("stack").expect("a folder");
    let shipped = std::fs::read_to_string(format!("{ROOT}/config/alertmanager.yml")).expect("shipped");
    written(&dir, "webhook_token", "hunter2hunter2\n");
    let pages = shipped.replace("  - name: pager\n", "  - name: pager\n    pagerduty_configs: [{routing_key: abc}]\n");
    let file = written(&dir, "alertmanager.yml", &pages);
    assert_eq!(complaints(&check(&["--alertmanager-config"], &file)), Vec::<String>::new());
    let muted = pages.replace("      receiver: pager\n", "      receiver: pager\n      mute_time_intervals: [night]\n");
    let night =
        "time_intervals: [{name: night, time_intervals: [{times: [{start_time: '00:00', end_time: '06:00'}]}]}]\n";
    let file = written(&dir, "alertmanager.yml", &format!("{night}{muted}"));
    let output = check(&["--alertmanager-config"], &file);
    assert!(!stdout(&output).contains("+++"), "it is on purpose: {}", stdout(&output));
    let found = complaints(&output).join("\n");
    for expected in [
        "expected a receiver that notifies a person at any time: each route to one has mute_time_intervals",
        "of them reach no receiver that notifies a person at any time, such as",
    ] {
        assert!(found.contains(expected), "{expected}\nis not in\n{found}");
    }
}

/// A shop that calls critical alerts P1: its Prometheus renames them, and its Alertmanager routes by that word.
#[test]
fn both_files_are_read_together_with_the_words_of_the_shop() {
    let dir = Dir::new("stack").expect("a folder");
    let prometheus = "global: {external_labels: {cluster: eu}}\nalerting:\n  alertmanagers: [{static_configs: []}]\n  alert_relabel_configs:\n  - {source_labels: [severity], regex: critical, target_label: severity, replacement: P1}\n";
    let prometheus = written(&dir, "prometheus.yml", prometheus);
    let alertmanager =
        "route:\n  receiver: default\n  routes:\n  - {matchers: [severity=P1, cluster=eu], receiver: pager}\n";
    let alertmanager = written(&dir, "alertmanager.yml", &format!("{alertmanager}{RECEIVERS}"));
    let toml =
        "[labels.severity_aliases]\np1 = \"critical\"\np3 = \"medium\"\n[alertmanager.labels]\ncluster = \"us\"\n";
    let toml = written(&dir, "prompt-rollback.toml", toml);
    let path = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
    let (toml, prometheus, alertmanager) = (path(&toml), path(&prometheus), path(&alertmanager));
    let arguments =
        ["check", "--config", &toml, "--alertmanager-config", &alertmanager, "--prometheus-config", &prometheus];
    let output = program(&arguments).output().expect("runs");
    let text = stdout(&output);
    for expected in [
        "PromptErrorRateCritical      FAIL     reaches pager after 30s, every 4h (route.routes[0], line 4)",
        "PromptErrorRateHigh          FAIL     reaches default",
        "external_labels.cluster: differs from alertmanager.labels.cluster of the receiver",
        "+  - matchers: ['prompt=~\".+\"', 'version=~\".+\"', 'severity=~\"(?i:critical|p1)\"']",
        "+  - matchers: ['prompt=~\".+\"', 'version=~\".+\"', 'severity!~\"(?i:medium|p3)\"',",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    let output = program(&[&arguments[..], &["--output", "json"]].concat()).output().expect("runs");
    let json: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let critical = &json["alertmanager"]["alerts"][0];
    assert_eq!(critical["labels"]["severity"], "P1");
    assert_eq!(critical["labels"]["cluster"], "eu");
    assert_eq!(critical["receivers"][0]["receiver"], "pager");
    assert_eq!(critical["receivers"][0]["group_wait"], "30s");
    assert!(json["alertmanager"]["patch"].as_str().expect("a patch").contains("@@"));
    assert!(json["probes"].as_array().expect("probes").iter().any(|probe| probe["ok"] == false));
}
