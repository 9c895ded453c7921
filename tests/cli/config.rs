//! `check` and `serve` with valid and invalid configs, and with servers that are reachable or not.

use serde_json::json;

use super::stub::{Stub, fails, free_address, program, stdout, succeeds};

#[test]
fn check_reads_the_config() {
    succeeds(&program(&["check"]).output().unwrap(), "config: ok\n");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/prompt-rollback.toml");
    succeeds(&program(&["check"]).env("PROMPT_ROLLBACK_CONFIG", shipped).output().unwrap(), "config: ok\n");
    let renamed = "environment variable PROMPT_ROLLBACK_GRADUAL__STAGE_HOLD: gradual.stage_hold is deprecated, use gradual.hold \
                   (PROMPT_ROLLBACK_GRADUAL__HOLD)";
    let earlier = |args: &[&str]| program(args).env("PROMPT_ROLLBACK_GRADUAL__STAGE_HOLD", "5m").output().unwrap();
    succeeds(&earlier(&["check"]), &format!("config: ok\nwarning: {renamed}\n"));
    let json: serde_json::Value = serde_json::from_str(&stdout(&earlier(&["check", "--output", "json"]))).unwrap();
    assert_eq!(json["warnings"], json!([renamed]));
    for command in ["check", "serve"] {
        let output = program(&[command, "--config", shipped])
            .env("PROMPT_ROLLBACK_SERVER__LISTEN", "0.0.0.0:8000")
            .env("PROMPT_ROLLBACK_GUARDS__COOLDOWN", "soon")
            .output()
            .unwrap();
        fails(
            &output,
            2,
            &format!(
                "error: environment variable PROMPT_ROLLBACK_GUARDS__COOLDOWN: guards.cooldown: found \"soon\", expected a duration such as \"30s\", \"5m\" or \"1h30m\"\n\
             error: {shipped}: server.webhook_token: found nothing, expected a token, because server.listen 0.0.0.0:8000 is not a loopback address\n\
             error: {shipped}: server.api_token: found nothing, expected a token, because server.listen 0.0.0.0:8000 is not a loopback address\n"
            ),
        );
        let output = program(&[command, "--config", "/nonexistent.toml"]).output().unwrap();
        fails(
            &output,
            2,
            "error: /nonexistent.toml: cannot read the config file: No such file or directory (os error 2)\n",
        );
        let output = program(&[command])
            .env("PROMPT_ROLLBACK_REDIS__MODE", "cluster")
            .env("PROMPT_ROLLBACK_REDIS__NODES", "a:1")
            .env("PROMPT_ROLLBACK_REDIS__NAMESPACE", "prompts")
            .output()
            .unwrap();
        fails(
            &output,
            2,
            "error: environment variable PROMPT_ROLLBACK_REDIS__NAMESPACE: redis.namespace: found \"prompts\", expected letters, digits and ._:/- with exactly one {…} that is not empty, such as \"{prompts}\"\n",
        );
    }
}

#[test]
fn check_warns_of_approvers_that_are_no_ids_of_slack() {
    let variable = "PROMPT_ROLLBACK_DECIDERS__ON_CALL__APPROVERS";
    let check = |args: &[&str]| program(args).env(variable, "U012AB3CD,W1,S012AB3CD,maya,C012AB3CD").output().unwrap();
    let warning = |found: &str| {
        format!(
            "environment variable {variable}: deciders.on-call.approvers: found \"{found}\", which lets nobody decide, \
             expected ids of Slack, of users (U012AB3CD) or user groups (S012AB3CD)"
        )
    };
    let warnings = [warning("maya"), warning("C012AB3CD")];
    succeeds(&check(&["check"]), &format!("config: ok\nwarning: {}\nwarning: {}\n", warnings[0], warnings[1]));
    let json: serde_json::Value = serde_json::from_str(&stdout(&check(&["check", "--output", "json"]))).unwrap();
    assert_eq!(json["warnings"], json!(warnings));
}

#[test]
fn check_warns_of_a_mention_that_notifies_nobody() {
    let variable = "PROMPT_ROLLBACK_DECIDERS__ON_CALL__MENTION";
    let check = |mention: &str| program(&["check"]).env(variable, mention).output().unwrap();
    for mention in ["<!here>", "on-call: <@U012AB3CD>", "<!subteam^S012AB3CD|@on-call>", ""] {
        succeeds(&check(mention), "config: ok\n");
    }
    for mention in ["@on-call", "U012AB3CD", "<@maya>", "<@S012AB3CD>", "<!subteam^on-call>"] {
        let warning = format!(
            "environment variable {variable}: deciders.on-call.mention: found \"{mention}\", which notifies nobody, \
             expected ids of Slack, such as <@U012AB3CD> or <!subteam^S012AB3CD>, or <!here>"
        );
        succeeds(&check(mention), &format!("config: ok\nwarning: {warning}\n"));
    }
}

#[test]
fn check_warns_of_deciders_for_whom_nobody_may_click() {
    let gone = free_address();
    let warned = |bot_token: &str| -> Vec<String> {
        let mut check = program(&["check", "--connect"]);
        check.env("PROMPT_ROLLBACK_REDIS__URL", format!("redis://{gone}"));
        check.env("PROMPT_ROLLBACK_SLACK__API_URL", format!("http://{gone}"));
        check.env("PROMPT_ROLLBACK_SLACK__BOT_TOKEN", bot_token);
        check.env("PROMPT_ROLLBACK_DECIDERS__ON_CALL__APPROVERS", "U012AB3CD");
        let text = stdout(&check.output().unwrap());
        let lines = text.lines().filter(|line| line.starts_with("decider "));
        lines.map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(warned("xoxb-1"), ["decider product-pm warning"]);
    assert!(warned("").is_empty(), "without Slack, people decide elsewhere");
}

#[test]
fn check_connects_to_prometheus_and_each_alertmanager() {
    let good = Stub::start(&[
        ("GET /-/ready", 200, json!("Prometheus Server is Ready.")),
        ("GET /api/v1/status/buildinfo", 200, json!({"status": "success", "data": {"version": "2.42.0"}})),
        (
            "POST /api/v1/query",
            200,
            json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "1"]}]}}),
        ),
        (
            "GET /api/v1/status/flags",
            200,
            json!({"status": "success", "data": {"rules.alert.resend-delay": "1m", "rules.alert.for-grace-period": "10m"}}),
        ),
        ("GET /api/v2/status", 200, json!({"versionInfo": {"version": "0.25.0"}})),
    ]);
    let other =
        Stub::start(&[("GET /-/ready", 200, json!("ok")), ("GET /api/v2/status", 200, json!({"status": "up"}))]);
    let gone = free_address();
    let output = program(&["check", "--connect"])
        .env("HTTP_PROXY", "socks5://proxy:1080")
        .env("PROMPT_ROLLBACK_PROMETHEUS__URL", good.url())
        .env("PROMPT_ROLLBACK_ALERTMANAGER__URLS", format!("{},{},http://{gone}", good.url(), other.url()))
        .env("PROMPT_ROLLBACK_REDIS__URL", format!("redis://{}", free_address()))
        .output()
        .unwrap();
    let text = stdout(&output);
    let line = |name: &str, detail: &str| {
        let found = text.lines().find(|line| line.starts_with(name) && line.contains(detail));
        found.unwrap_or_else(|| panic!("{name} {detail} in {text}")).split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("config: ok\n"), "{text}");
    assert_eq!(line("prometheus", &format!("{} is ready, version 2.42.0", good.url())), "ok");
    assert!(text.contains(&format!("{} answers queries", good.url())), "{text}");
    for flag in ["resend-delay=1m: expected at most 5s", "for-grace-period=10m: expected at most 10s"] {
        let warned = format!("{} has --rules.alert.{flag}", good.url());
        assert!(text.lines().any(|line| line.contains("warning") && line.contains(&warned)), "{text}");
    }
    assert!(
        text.contains("the environment variable HTTP_PROXY does not name a proxy: expected http://HOST:PORT"),
        "{text}"
    );
    assert_eq!(line("alertmanager", &format!("{} is ready, version 0.25.0", good.url())), "ok");
    assert_eq!(line("alertmanager", &format!("{} answers, but is not alertmanager", other.url())), "FAIL");
    assert_eq!(line("alertmanager", &format!("cannot reach http://{gone}: Connection refused (os error 111)")), "FAIL");
}

#[test]
fn check_sends_each_webhook_a_signed_event_and_shows_no_secret() {
    let taking = Stub::start(&[("POST /hook?sig=hidden", 202, json!(null))]);
    let refusing = Stub::start(&[("POST /hook?sig=hidden", 401, json!("hidden"))]);
    let gone = free_address();
    let mut check = program(&["check", "--connect"]);
    check.env("PROMPT_ROLLBACK_REDIS__URL", format!("redis://{}", free_address()));
    for (name, url) in [("TAKING", taking.url()), ("REFUSING", refusing.url()), ("GONE", format!("http://{gone}"))] {
        check.env(format!("PROMPT_ROLLBACK_WEBHOOKS__{name}__URL"), format!("{url}/hook?sig=hidden"));
        check.env(format!("PROMPT_ROLLBACK_WEBHOOKS__{name}__SECRET"), "hidden, and 16 bytes long");
    }
    let output = check.output().unwrap();
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for (name, result, detail) in [
        ("webhook taking", "ok", format!("{} accepts signed events", taking.url())),
        ("webhook refusing", "FAIL", format!("{}: answered 401 Unauthorized", refusing.url())),
        ("webhook gone", "FAIL", format!("cannot reach http://{gone}: Connection refused")),
    ] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        assert_eq!(line.split_whitespace().nth(2), Some(result), "{line}");
        assert!(line.contains(&detail), "{line}");
    }
    assert!(!text.contains("hidden"), "{text}");
    let seen = taking.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].content_type.as_deref(), Some("application/cloudevents+json; charset=utf-8"));
    let event: serde_json::Value = serde_json::from_str(&seen[0].body).unwrap();
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("io.prompt-rollback.ping")));
}

#[test]
fn check_reads_the_schedule_of_each_decider_and_shows_no_secret() {
    let stub = Stub::start(&[
        ("GET /two?key=hidden", 200, json!(["U012AB3CD", "W9"])),
        ("GET /none?key=hidden", 200, json!([])),
        ("GET /names?key=hidden", 200, json!(["maya"])),
    ]);
    let gone = free_address();
    let mut check = program(&["check", "--connect"]);
    check.env("PROMPT_ROLLBACK_REDIS__URL", format!("redis://{}", free_address()));
    for (decider, url) in [
        ("TWO", format!("{}/two?key=hidden", stub.url())),
        ("NONE", format!("{}/none?key=hidden", stub.url())),
        ("NAMES", format!("{}/names?key=hidden", stub.url())),
        ("REFUSED", format!("{}/refused?key=hidden", stub.url())),
        ("ON_CALL", format!("http://{gone}/on-call?key=hidden")),
    ] {
        check.env(format!("PROMPT_ROLLBACK_DECIDERS__{decider}__APPROVERS_URL"), url);
    }
    let output = check.output().unwrap();
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for (name, result, detail) in [
        ("decider two schedule", "ok", "2 on call"),
        ("decider none schedule", "warning", "0 on call: only `approvers` may decide now"),
        ("decider names schedule", "FAIL", "expected a JSON list of at most 100 Slack user ids"),
        ("decider refused schedule", "FAIL", "answered 404 Not Found, expected 200"),
        ("decider on-call schedule", "FAIL", "Connection refused"),
    ] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
        assert_eq!(line.split_whitespace().nth(3), Some(result), "{line}");
        assert!(line.contains(detail), "{line}");
    }
    assert!(!text.contains("product-pm") && !text.contains("hidden"), "{text}");
}

#[test]
fn check_tries_the_archive_and_leaves_nothing_there() {
    let root = std::env::temp_dir().join(format!("prompt-rollback-check-{}", std::process::id()));
    std::fs::create_dir(&root).unwrap();
    for (path, result, detail) in [
        (root.clone(), "ok", "can be written to".to_owned()),
        (root.join("missing"), "FAIL", format!("{}: No such file or directory", root.join("missing").display())),
    ] {
        let output = program(&["check", "--connect"])
            .env("PROMPT_ROLLBACK_RETENTION__ARCHIVE", &path)
            .env("PROMPT_ROLLBACK_REDIS__URL", format!("redis://{}", free_address()))
            .output()
            .unwrap();
        let text = stdout(&output);
        let line = text.lines().find(|line| line.starts_with("archive ")).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(line.split_whitespace().nth(1), Some(result), "{text}");
        assert!(line.contains(&detail), "{line}");
    }
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
    std::fs::remove_dir(&root).unwrap();
}
