//! The config as users write it: every key, every source, every mistake.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use prompt_rollback::config::{
    Config, ConfigError, Confirm, GuardMode, LoadedConfig, LogFormat, LogLevel, RedisMode, Role, Weekly,
};
use prompt_rollback::decision::{Policy, PromptName, Severity};
use prompt_rollback::events::Kind;
use prompt_rollback_testkit::Dir;
use secrecy::ExposeSecret;

/// A directory of its own for each test: they run at the same time.
fn dir(test: &str) -> Dir {
    Dir::new(test).expect("a directory")
}

fn load(test: &str, toml: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load_in(&dir(test), toml, env)
}

fn load_in(dir: &Dir, toml: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let path = dir.write("test.toml", toml).expect("written");
    Config::load(Some(&path), owned(env))
}

fn owned(env: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    env.iter().map(|(name, value)| (name.to_string(), value.to_string()))
}

/// Each problem as a line, without the directory of the file.
fn problems(test: &str, toml: &str, env: &[(&str, &str)]) -> Vec<String> {
    let dir = dir(test);
    let error = load_in(&dir, toml, env).expect_err("a problem");
    error
        .problems
        .iter()
        .map(|problem| problem.to_string().replace(&format!("{}/", dir.path().display()), ""))
        .collect()
}

fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/config/prompt-rollback.toml"))
}

#[test]
fn the_shipped_file_holds_exactly_the_defaults() {
    let config = Config::load(Some(shipped()), owned(&[])).unwrap();
    assert_eq!(format!("{config:#?}"), format!("{:#?}", Config::default()));
}

#[test]
fn the_shipped_file_holds_every_key_and_says_what_it_does() {
    let text = std::fs::read_to_string(shipped()).unwrap();
    let mut section = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.trim_start_matches("# ").split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        {
            found.insert(format!("{section}.{key}"));
        }
    }
    found.retain(|key| !key.starts_with("labels.severity_aliases."));
    found.insert("labels.severity_aliases".to_owned());
    assert_eq!(found, Config::keys().into_iter().collect());
}

#[test]
fn secrets_in_the_shipped_file_are_uncommentable() {
    let text = std::fs::read_to_string(shipped()).unwrap();
    let uncommented: String = text
        .lines()
        .map(|line| if line.starts_with("# ") && line.contains(" = \"\"") { &line[2..] } else { line })
        .filter(|line| !line.starts_with("url_file"))
        .flat_map(|line| [line, "\n"])
        .collect();
    load("uncommented", &uncommented, &[]).unwrap();
}

#[test]
fn the_environment_beats_the_file() {
    let config = load(
        "env-beats-file",
        "[server]\nlisten = \"127.0.0.1:1\"\nmax_body_bytes = 5\n[redis]\nnodes = [\"a:1\"]",
        &[
            ("PROMPT_ROLLBACK_SERVER__LISTEN", "127.0.0.1:2"),
            ("PROMPT_ROLLBACK_REDIS__NODES", "b:2, c:3,"),
            ("PROMPT_ROLLBACK_REDIS__TLS_CA_FILE", ""),
            ("PROMPT_ROLLBACK_LABELS__SEVERITY_ALIASES", "p1=critical, p2 = high"),
            ("PROMPT_ROLLBACK_GUARDS__MODE", "dry-run"),
            ("PROMPT_ROLLBACK_GUARDS__COOLDOWN", "1h30m"),
            ("PROMPT_ROLLBACK_GUARDS__MAX_AUTO_ROLLBACKS", "0"),
            ("PROMPT_ROLLBACK_GRADUAL__STAGES", "50,0"),
            ("PROMPT_ROLLBACK_LOG__FORMAT", "json"),
            ("PROMPT_ROLLBACK_REPORT__WEEKLY", "sun 23:05"),
        ],
    )
    .unwrap();
    assert_eq!(config.server.listen.port(), 2);
    assert_eq!(config.server.max_body_bytes, 5);
    assert_eq!(config.redis.nodes, ["b:2", "c:3"]);
    assert_eq!(config.labels.severity_aliases.get("p1"), Some(&Severity::Critical));
    assert_eq!(config.labels.severity_aliases.len(), 2);
    assert_eq!(config.guards.mode, GuardMode::DryRun);
    assert_eq!(config.guards.cooldown, Duration::from_secs(5400));
    assert_eq!(config.guards.max_auto_rollbacks, 0);
    assert_eq!(config.gradual.stages, [50, 0]);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.report.weekly, Some(Weekly { day: 6, hour: 23, minute: 5 }));
}

#[test]
fn a_variable_of_one_entry_adds_it_to_the_table() {
    let toml = "[alertmanager.labels]\ncluster = \"eu\"\nnamespace = \"mine\"\n";
    let label = ("PROMPT_ROLLBACK_ALERTMANAGER__LABELS__NAMESPACE", "prompts");
    let labels = |toml, env: &[_]| format!("{:?}", load("one-entry", toml, env).unwrap().alertmanager.labels);
    assert_eq!(labels(toml, &[label]), r#"{"cluster": "eu", "namespace": "prompts"}"#);
    assert_eq!(labels("", &[label]), r#"{"namespace": "prompts"}"#);
    let all = ("PROMPT_ROLLBACK_ALERTMANAGER__LABELS", "team=ml");
    assert_eq!(labels(toml, &[all, label]), r#"{"namespace": "prompts", "team": "ml"}"#);

    let alias = "PROMPT_ROLLBACK_LABELS__SEVERITY_ALIASES__P1";
    let aliases = load("one-alias", "", &[(alias, "critical")]).unwrap().labels.severity_aliases;
    assert_eq!((aliases.len(), aliases.get("p1")), (3, Some(&Severity::Critical)), "the defaults stay");
    assert_eq!(
        problems("bad-one-alias", "", &[(alias, "urgent")]),
        [format!(
            "environment variable {alias}: labels.severity_aliases.p1: found \"urgent\", expected one of \"critical\", \"high\", \"medium\""
        )]
    );
}

#[test]
fn variables_of_others_are_left_alone() {
    let config = Config::load(
        None,
        owned(&[
            ("PROMPT_ROLLBACK_PORT", "tcp://10.0.0.1:8000"),
            ("PROMPT_ROLLBACK_SERVICE_HOST", "10.0.0.1"),
            ("PROMPT_ROLLBACK_URL", "http://x"),
            ("HOME", "/"),
        ]),
    )
    .unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8000");
}

#[test]
fn a_dot_in_a_quoted_name_is_no_level() {
    let text = "[deciders.\"on.call\"]\nchannel = \"#ops\"\n[server]\n\"listen.on\" = 1\n";
    let path = Path::new("/etc/prompt-rollback.toml");
    let errors = Config::parse(text, Some(path), std::iter::empty()).expect_err("two mistakes").to_string();
    let lines: Vec<&str> = errors.lines().collect();
    let name =
        r#"/etc/prompt-rollback.toml:2: deciders."on.call": found the name "\"on.call\"", expected 1 to 64 letters"#;
    let key = r#"/etc/prompt-rollback.toml:4: server."listen.on": unknown key, [server] has "#;
    assert!(lines.len() == 2 && lines[0].starts_with(name) && lines[1].starts_with(key), "{errors}");
}

#[test]
fn deciders_come_from_file_and_environment() {
    let config = load(
        "deciders",
        "[deciders.on-call]\nchannel = \"#ops\"\n[deciders.ml_team]\napprovers = [\"U1\", \"S2\"]\n[deciders.empty]\n",
        &[
            ("PROMPT_ROLLBACK_DECIDERS__ON_CALL__MENTION", "<!here>"),
            ("PROMPT_ROLLBACK_DECIDERS__ML_TEAM__CHANNEL", "#ml"),
            ("PROMPT_ROLLBACK_DECIDERS__LEGAL_DESK__APPROVERS", "U7,U8"),
            ("PROMPT_ROLLBACK_GUARDS__FALLBACK_DECIDER", "legal-desk"),
        ],
    )
    .unwrap();
    let names: Vec<&str> = config.deciders.keys().map(String::as_str).collect();
    assert_eq!(names, ["empty", "legal-desk", "ml_team", "on-call", "product-pm"]);
    assert_eq!(config.deciders["on-call"].channel.as_deref(), Some("#ops"));
    assert_eq!(config.deciders["on-call"].mention.as_deref(), Some("<!here>"));
    assert_eq!(config.deciders["ml_team"].channel.as_deref(), Some("#ml"));
    assert_eq!(config.deciders["ml_team"].approvers, ["U1", "S2"]);
    assert_eq!(config.deciders["legal-desk"].approvers, ["U7", "U8"]);
}

#[test]
fn a_prompt_may_have_canary_settings_of_its_own() {
    let text = "[canary]\nhold = \"20m\"\nquery = \"up\"\n\
        [canary.prompts.\"billing/refunds.v2\"]\nstages = [10, 100]\nmargin = 3\nanalysis = \"off\"\n\
        [canary.prompts.support]\nhold = \"5m\"\n[canary.prompts.'a \"b\" \\ हिन्दी ❤\u{fe0f}']\nmargin = 7\n";
    let config = load("canary-prompts", text, &[("PROMPT_ROLLBACK_CANARY__PROMPTS__SUPPORT__QUERY", "")]).unwrap();
    let of = |prompt: &str| config.canary.of(&PromptName::parse(prompt).unwrap()).clone();
    let minutes = |minutes: u64| vec![Duration::from_secs(60 * minutes)];
    let usual = of("any-other");
    assert_eq!(usual, config.canary.usual);
    assert_eq!((&usual.plan.stages, usual.margin, usual.analysis), (&vec![1, 5, 25, 100], 1, true));
    assert_eq!((usual.plan.holds, usual.query.as_deref()), (minutes(20), Some("up")));
    let refunds = of("billing/refunds.v2");
    assert_eq!((&refunds.plan.stages, refunds.margin, refunds.analysis), (&vec![10, 100], 3, false));
    assert_eq!((refunds.plan.holds, refunds.query.as_deref()), (minutes(20), Some("up")));
    let quoted = PromptName::of("a \"b\" \\ हिन्दी ❤\u{fe0f}").unwrap();
    assert_eq!(config.canary.of(&quoted).margin, 7, "TOML's quotes are no part of a name");
    let support = of("support");
    assert_eq!((&support.plan.stages, support.margin, support.analysis), (&vec![1, 5, 25, 100], 1, true));
    assert_eq!((support.plan.holds, support.query), (minutes(5), None));
}

#[test]
fn what_is_wrong_in_the_canary_settings_of_a_prompt_is_named() {
    for (text, key, expected) in [
        (
            "[canary.prompts.p]\nmargin = 0",
            "canary.prompts.p.margin",
            "found 0, expected from 1 to 50 percentage points",
        ),
        ("[canary.prompts.p]\nhold = \"0s\"", "canary.prompts.p.hold", "expected a duration longer than 0"),
        ("[canary.prompts.p]\nstages = [5]", "canary.prompts.p.stages", "expected rising percentages"),
        ("[canary.prompts.p]\nholds = \"1m\"", "canary.prompts.p.holds", "unknown key"),
        ("[canary.prompts.\"a%2fb\"]\nmargin = 2", "canary.prompts.\"a%2fb\"", "expected a prompt name"),
        ("[canary.prompts]\nmargin = 2", "canary.prompts.margin", "unknown key, [canary] has"),
    ] {
        let error = load("canary-prompt", text, &[]).expect_err(text);
        assert_eq!(error.problems.len(), 1, "{error}");
        assert_eq!(error.problems[0].key, key, "{error}");
        assert!(error.problems[0].message.contains(expected), "{error}");
    }
    load("no-canary-prompt", "[canary.prompts]\n", &[]).expect("an empty table sets nothing");
}

#[test]
fn a_mention_that_fits_no_message_is_refused() {
    let mention = |length: usize| format!("[deciders.on-call]\nmention = \"{}\"\n", "@".repeat(length));
    assert!(load("mention", &mention(500), &[]).is_ok());
    let problem = "deciders.on-call.mention: found 501 bytes, expected at most 500: mention a user group instead";
    assert_eq!(problems("long-mention", &mention(501), &[]), [format!("test.toml:2: {problem}")]);
}

#[test]
fn severity_aliases_of_the_file_replace_the_default_ones() {
    let config = load("aliases", "[labels.severity_aliases]\n\"sev 1\" = \"critical\"", &[]).unwrap();
    assert_eq!(
        config.labels.severity_aliases.into_iter().collect::<Vec<_>>(),
        [("sev 1".to_owned(), Severity::Critical)]
    );
    let config = load("no-aliases", "[labels]\nseverity_aliases = {}", &[]).unwrap();
    assert!(config.labels.severity_aliases.is_empty());
    assert_eq!(
        problems("bad-alias", "[labels.severity_aliases]\nwarning = \"urgent\"", &[]),
        [
            "test.toml:2: labels.severity_aliases.warning: found \"urgent\", expected one of \"critical\", \"high\", \"medium\""
        ]
    );
    let aliases =
        "[labels.severity_aliases]\np1 = \"critical\"\nP1 = \"high\"\nhigh = \"medium\"\n\" \" = \"medium\"\n";
    assert_eq!(
        problems("same-alias", aliases, &[]),
        [
            "test.toml:5: labels.severity_aliases.\" \": found the name \" \", expected a word",
            "test.toml:4: labels.severity_aliases.high: found \"medium\", expected \"high\" as for \"high\": case does not matter",
            "test.toml:2: labels.severity_aliases.p1: found \"critical\", expected \"high\" as for \"P1\": case does not matter",
        ]
    );
    let variable = [("PROMPT_ROLLBACK_LABELS__SEVERITY_ALIASES", "p1=critical,P1=high")];
    assert_eq!(
        problems("same-alias-in-env", "", &variable),
        [
            "environment variable PROMPT_ROLLBACK_LABELS__SEVERITY_ALIASES: labels.severity_aliases: found \"critical\", expected \"high\" as for \"P1\": case does not matter"
        ]
    );
    let same = "[labels.severity_aliases]\np1 = \"critical\"\nP1 = \"critical\"\nCRITICAL = \"critical\"\n";
    assert_eq!(load("same-meaning", same, &[]).unwrap().labels.severity_aliases.len(), 3);
}

#[test]
fn secrets_come_from_files_beside_the_config() {
    let dir = dir("secret-files");
    dir.write("webhook", "webhook-s3cret\r\n").unwrap();
    let other = dir.write("password", "from env\n").unwrap();
    let path = dir.write(
        "test.toml",
        "[server]\nlisten = \"0.0.0.0:8000\"\nwebhook_token_file = \"webhook\"\napi_token = \"api-t0ken\"\n[redis]\npassword = \"of file\"",
    ).unwrap();
    let env = [("PROMPT_ROLLBACK_REDIS__PASSWORD_FILE", other.to_str().unwrap())];
    let config = Config::load(Some(&path), owned(&env)).unwrap();
    assert_eq!(config.server.webhook_token.as_ref().unwrap().expose_secret(), "webhook-s3cret");
    assert_eq!(config.server.api_token.as_ref().unwrap().expose_secret(), "api-t0ken");
    assert_eq!(config.redis.password.as_ref().unwrap().expose_secret(), "from env");
}

#[test]
fn debug_shows_no_secret() {
    let config = load(
        "debug",
        "[server]\nwebhook_token = \"hunter2\"\napi_token = \"hunter2\"\n[slack]\nbot_token = \"hunter2\"\n\
         signing_secret = \"hunter2\"\napp_token = \"hunter2\"\n[redis]\nurl = \"redis://u:hunter2@h:1\"",
        &[],
    )
    .unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("redis://***@h:1"), "{shown}");
    assert_eq!(config.redis.url.expose(), "redis://u:hunter2@h:1");
}

#[test]
fn a_redis_url_may_come_from_a_file() {
    let dir = dir("url-file");
    dir.write("url", "rediss://u:p@redis.example:6380\n").unwrap();
    let path = dir.write("test.toml", "[redis]\nurl_file = \"url\"").unwrap();
    let config = Config::load(Some(&path), owned(&[])).unwrap();
    assert_eq!(config.redis.url.expose(), "rediss://u:p@redis.example:6380");
    dir.write("url", "memcached://u:p@redis.example").unwrap();
    let error = Config::load(Some(&path), owned(&[])).unwrap_err().to_string();
    assert!(error.contains("test.toml:2: redis.url_file: ") && !error.contains("u:p@"), "{error}");
}

#[test]
fn secret_files_that_do_not_serve_are_named() {
    let dir = dir("bad-secret-files");
    let empty = dir.write("empty", "\n").unwrap();
    let two_lines = dir.write("two", "a\nb\n").unwrap();
    let path = dir.write(
        "test.toml",
        format!(
            "[server]\nwebhook_token_file = {empty:?}\napi_token_file = {two_lines:?}\n[redis]\npassword_file = \"/nonexistent/p\"\n\
             [slack]\nbot_token = \"hunter2\"\nbot_token_file = \"x\"\napp_token = 7"
        ),
    ).unwrap();
    let error = Config::load(Some(&path), owned(&[])).unwrap_err().to_string();
    let file = path.display();
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            format!(
                "{file}:2: server.webhook_token_file: found {empty:?}, expected a file that holds the secret, but that file is empty"
            ),
            format!(
                "{file}:3: server.api_token_file: found a line break or control character inside, expected one line of text"
            ),
            format!(
                "{file}:5: redis.password_file: cannot read /nonexistent/p: No such file or directory (os error 2)"
            ),
            format!(
                "{file}:8: slack.bot_token_file: found \"x\", expected only one of slack.bot_token and slack.bot_token_file"
            ),
            format!("{file}:9: slack.app_token: found a value that is not shown here, expected a string"),
        ]
    );
}

/// Each secret, and whether a header carries it.
const SECRETS: [(&str, bool); 10] = [
    ("prometheus.bearer_token", true),
    ("alertmanager.bearer_token", true),
    ("server.webhook_token", true),
    ("server.api_token", true),
    ("slack.bot_token", true),
    ("slack.signing_secret", true),
    ("slack.app_token", true),
    ("redis.password", false),
    ("redis.sentinel_password", false),
    ("redis.url", false),
];

fn secret_of(config: &Config, key: &str) -> String {
    let secret = match key {
        "server.webhook_token" => &config.server.webhook_token,
        "server.api_token" => &config.server.api_token,
        "slack.bot_token" => &config.slack.bot_token,
        "slack.signing_secret" => &config.slack.signing_secret,
        "slack.app_token" => &config.slack.app_token,
        "prometheus.bearer_token" => &config.prometheus.http.bearer_token,
        "alertmanager.bearer_token" => &config.alertmanager.http.bearer_token,
        "redis.password" => &config.redis.password,
        "redis.sentinel_password" => &config.redis.sentinel_password,
        _ => return config.redis.url.expose().to_owned(),
    };
    secret.as_ref().expect("a secret").expose_secret().to_owned()
}

/// The secret as a file, as a variable and in the config file itself.
fn everywhere(test: &str, key: &str, secret: &[u8]) -> Vec<Result<Config, ConfigError>> {
    let dir = dir(test);
    let (section, name) = key.split_once('.').unwrap();
    std::fs::write(dir.path().join("secret"), secret).unwrap();
    let mut results = vec![(format!("[{section}]\n{name}_file = \"secret\""), None)];
    if let Ok(text) = std::str::from_utf8(secret) {
        let variable = format!("PROMPT_ROLLBACK_{}", key.to_uppercase().replace('.', "__"));
        results.push((String::new(), Some((variable, text.to_owned()))));
        results.push((format!("[{section}]\n{name} = {}", toml::Value::from(text)), None));
    }
    let load =
        |(toml, env): (String, Option<_>)| Config::load(Some(&dir.write("test.toml", &toml).unwrap()), env.into_iter());
    results.into_iter().map(load).collect()
}

#[test]
fn what_gets_around_a_secret_by_accident_is_left_out() {
    for (key, _) in SECRETS {
        let secret = if key == "redis.url" { "redis://:s3cret@h:1" } else { "s3cret" };
        for (before, after) in [
            ("", "\n"),
            ("", "\r\n"),
            ("", " "),
            ("", "\n\n"),
            ("\t", " \r"),
            ("\u{feff}", ""),
            ("\u{feff} ", "\u{a0}\n"),
        ] {
            for config in everywhere("around", key, format!("{before}{secret}{after}").as_bytes()) {
                assert_eq!(secret_of(&config.unwrap(), key), secret, "{key}: {before:?} {after:?}");
            }
        }
    }
}

#[test]
fn a_secret_that_cannot_work_is_refused_by_its_key_and_not_shown() {
    for (key, in_header) in SECRETS {
        for blank in ["\n", " ", "\u{feff}", " \r\n"] {
            for found in everywhere("blank", key, blank.as_bytes()) {
                let error = found.expect_err(key).to_string();
                let expected =
                    error.contains("expected a file that holds the secret") || error.contains("found only blanks");
                assert!(error.contains(key) && expected, "{key}: {error}");
            }
        }
        for (inside, what) in [
            ("\n", "a line break or control character"),
            ("\0", "a line break or control character"),
            ("\u{7f}", "a line break or control character"),
            (" ", "a blank"),
            ("\u{a0}", "a blank"),
            ("\u{200b}", "a character that is not ASCII"),
            ("\u{e9}", "a character that is not ASCII"),
        ] {
            let secret = format!("hunter2{inside}hunter3");
            for (way, found) in everywhere("inside", key, secret.as_bytes()).into_iter().enumerate() {
                if way == 1 && inside == "\0" {
                    continue; // no variable can hold it
                }
                if !in_header && !inside.contains(char::is_control) {
                    // Redis has such passwords; in a URL its own parser decides
                    assert!(key == "redis.url" || secret_of(&found.unwrap(), key) == secret, "{key}: {inside:?}");
                    continue;
                }
                let error = found.expect_err(key).to_string();
                assert!(error.contains(key) && error.contains(", expected "), "{key}: {inside:?}: {error}");
                assert!(
                    key == "redis.url" || error.contains(&format!("found {what} inside")),
                    "{key}: {inside:?}: {error}"
                );
                assert!(!error.contains("hunter"), "{key}: {inside:?}: {error}");
            }
        }
        for (bytes, found) in
            [(&b"\xff\xfes\x003\0"[..], "UTF-16"), (b"\xfe\xff\x00s\x003", "UTF-16"), (b"s\xe9cret", "other bytes")]
        {
            let error = everywhere("bytes", key, bytes).remove(0).expect_err(key).to_string();
            assert!(error.contains(&format!("{key}_file: cannot read ")), "{error}");
            assert!(error.contains(&format!("expected text in UTF-8, found {found}")), "{error}");
        }
    }
}

#[test]
fn a_variable_with_one_underscore_too_few_is_refused() {
    let kubernetes = [("PROMPT_ROLLBACK_PORT", "tcp://10.0.0.1:80"), ("PROMPT_ROLLBACK_SERVICE_HOST", "10.0.0.1")];
    assert!(load("services", "", &kubernetes).is_ok());
    assert_eq!(
        problems("underscore", "", &[("PROMPT_ROLLBACK_GUARDS_MODE", "dry-run")]),
        [
            "environment variable PROMPT_ROLLBACK_GUARDS_MODE: guards.mode: expected the name PROMPT_ROLLBACK_GUARDS__MODE, with two underscores after the section"
        ]
    );
}

#[test]
fn a_secret_in_an_address_is_not_shown() {
    for url in [
        "prom:hunter2@h:9090",
        "//u:hunter2@h",
        "https://h/?token=hunter2",
        "https://h/#hunter2",
        "http://u:hunter2@h",
        "http://u:hunter2#x@h",
        "http://u:hunter2?x@h",
        "http://u@v:hunter2#x@h",
        "u:hunter2?://x@h",
        "https://h/?user=a@b&token=hunter2",
    ] {
        let found = problems("secret", &format!("[prometheus]\nurl = {url:?}\n"), &[]);
        assert!(found.len() == 1 && !found[0].contains("hunter2") && found[0].contains("prometheus.url"), "{found:?}");
    }
}

#[test]
fn all_mistakes_are_reported_together() {
    assert_eq!(
        problems(
            "together",
            "[server]\nlisten = \"localhost\"\nmax_connections = \"many\"\n[guards]\nmax_auto_rollbacks = \"5\"\ncooldown = 30\n\
             mode = \"off\"\nbudget = 3\n[redis]\nurl = \"http://u:hunter2@x\"\n[webhook]\nport = 1\n",
            &[("PROMPT_ROLLBACK_REGISTRY__SOAK", "one hour"), ("PROMPT_ROLLBACK_REGISTRY__SOAKS", "1h")],
        ),
        [
            "test.toml:2: server.listen: found \"localhost\", expected an IP address and a port such as \"127.0.0.1:8000\"",
            "test.toml:3: server.max_connections: found \"many\", expected a whole number from 0 to 4294967295",
            "test.toml:10: redis.url: found a value that is not shown here, expected redis://[user:password@]host:port, rediss://… (TLS) or redis+unix:///path",
            "environment variable PROMPT_ROLLBACK_REGISTRY__SOAK: registry.soak: found \"one hour\", expected a duration such as \"30s\", \"5m\" or \"1h30m\"",
            "test.toml:7: guards.mode: found \"off\", expected one of \"armed\", \"dry-run\"",
            "test.toml:5: guards.max_auto_rollbacks: found \"5\", expected a whole number from 0 to 4294967295",
            "test.toml:6: guards.cooldown: found 30, expected a duration such as \"30s\", \"5m\" or \"1h30m\"",
            "test.toml:8: guards.budget: unknown key, [guards] has ask_when_active_for_longer_than, confirm, cooldown, fallback_decider, max_auto_rollbacks, max_auto_rollbacks_window, mode",
            "test.toml:12: webhook.port: unknown section, expected one of alertmanager, canary, deciders, gates, gradual, guards, incidents, labels, log, metrics, page, prometheus, proxy, redis, registry, report, retention, server, slack, tracing, verification",
            "environment variable PROMPT_ROLLBACK_REGISTRY__SOAKS: registry.soaks: unknown key, [registry] has precheck_url, soak, soak_limit, soak_requests",
        ]
    );
}

#[test]
fn an_unreadable_or_malformed_config_file_is_an_error() {
    let error = Config::load(Some(Path::new("/nonexistent/c.toml")), owned(&[])).unwrap_err().to_string();
    assert_eq!(error, "/nonexistent/c.toml: cannot read the config file: No such file or directory (os error 2)");
    let found = problems("syntax", "[server]\nlisten = \n", &[]);
    assert!(found[0].starts_with("test.toml:2: "), "{found:?}");
    let found = problems("twice", "[server]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n", &[]);
    assert!(found[0].starts_with("test.toml:3: ") && found[0].contains("duplicate"), "{found:?}");
    assert_eq!(problems("no-table", "server = 5", &[]), ["test.toml:1: server: found 5, expected a table"]);
    assert_eq!(
        problems("table", "[log.level]\nx = 1", &[]),
        ["test.toml:2: log.level.x: unknown key, [log] has format, level"]
    );
    load("empty-section", "[server]\n[deciders]\n", &[]).unwrap();
}

#[test]
fn tokens_are_required_off_loopback() {
    assert_eq!(
        problems(
            "open",
            "[server]\nlisten = \"0.0.0.0:8000\"\nwebhook_token = \"\"",
            &[("PROMPT_ROLLBACK_SERVER__API_TOKEN", "long-enough")]
        ),
        [
            "test.toml:3: server.webhook_token: found \"\", expected a token, because server.listen 0.0.0.0:8000 is not a loopback address"
        ]
    );
    for listen in ["127.0.0.1:8000", "127.9.9.9:1", "[::1]:8000"] {
        load("loopback", &format!("[server]\nlisten = \"{listen}\""), &[]).unwrap();
    }
    for listen in ["0.0.0.0:8000", "[::]:8000", "10.0.0.1:8000"] {
        assert_eq!(problems("exposed", &format!("[server]\nlisten = \"{listen}\""), &[]).len(), 2, "{listen}");
    }
}

#[test]
fn tokens_that_can_be_guessed_or_are_the_same_are_refused_off_loopback() {
    let of = |listen: &str, webhook: &str, api: &str| {
        format!("[server]\nlisten = \"{listen}\"\nwebhook_token = \"{webhook}\"\napi_token = \"{api}\"\n")
    };
    let because = "because server.listen 0.0.0.0:8000 is not a loopback address";
    let short = |key: &str| format!("{key}: can be guessed: expected at least 8 characters, {because}");
    assert_eq!(
        problems("short", &of("0.0.0.0:8000", "x", "1234567"), &[]),
        [
            format!("test.toml:4: {}", short("server.api_token")),
            format!("test.toml:3: {}", short("server.webhook_token"))
        ]
    );
    assert_eq!(
        problems("twins", &of("0.0.0.0:8000", "the-same-token", "the-same-token"), &[]),
        ["test.toml:4: server.api_token: is the same as server.webhook_token: expected a different token for each"]
    );
    load("fine", &of("0.0.0.0:8000", "12345678", "12345679"), &[]).unwrap();
    // only programs of this machine reach these
    load("loopback", &of("127.0.0.1:8000", "x", "x"), &[]).unwrap();
}

#[test]
fn a_source_has_its_own_token_and_prompts_that_it_may_report_on() {
    let sources = "[server]\nlisten = \"0.0.0.0:8000\"\napi_token = \"api-token\"\n[sources.team-a]\n\
                   token = \"token-of-a\"\nallowed_prompts = [\"team-a/*\", \"search\"]\n";
    let env = [
        ("PROMPT_ROLLBACK_SOURCES__TEAM_B__TOKEN", "token-of-b"),
        ("PROMPT_ROLLBACK_SOURCES__TEAM_B__ALLOWED_PROMPTS", "team-b/*,team-*-shared"),
    ];
    let config = load("sources", sources, &env).expect("no webhook token is needed");
    let names: Vec<&String> = config.sources.keys().collect();
    assert_eq!(names, ["team-a", "team-b"]);
    let may = |source: &str, prompt: &str| config.sources[source].allows(&PromptName::parse(prompt).unwrap());
    assert!(may("team-a", "team-a/x/y") && may("team-a", "search") && may("team-b", "team-a-b-shared"));
    assert!(!may("team-a", "team-b/x") && !may("team-b", "team-shared") && !may("team-b", "team-b"));

    let of = |lines: &str| problems("bad-source", &format!("[sources.a]\n{lines}"), &[]);
    assert_eq!(of("allowed_prompts = [\"*\"]").len(), 1, "no token, on loopback, too");
    for wrong in ["", "allowed_prompts = []", "allowed_prompts = [\"a%20b\"]", "allowed_prompts = [\"a\\nb\"]"] {
        let found = of(&format!("token = \"t\"\n{wrong}"));
        assert!(found.len() == 1 && found[0].contains("sources.a.allowed_prompts"), "{wrong}: {found:?}");
    }
    let twin = "[server]\nwebhook_token = \"t\"\n[sources.a]\ntoken = \"t\"\nallowed_prompts = [\"*\"]";
    let found = problems("twin", twin, &[]);
    assert!(found.len() == 1 && found[0].contains("sources.a.token: is the same as server.webhook_token"), "{found:?}");
    let unknown = of("token = \"t\"\nallowed_prompts = [\"*\"]\nallowed = 1");
    assert!(unknown.len() == 1 && unknown[0].contains("[sources.a] has allowed_prompts, token"), "{unknown:?}");
}

#[test]
fn a_named_token_has_roles_and_prompts_and_a_name_of_its_own() {
    let tokens = "[server]\nlisten = \"0.0.0.0:8000\"\nwebhook_token = \"webhook-token\"\n[tokens.ci]\ntoken = \"token-of-ci\"\n\
                  roles = [\"deploy\"]\nprompts = [\"team-a/*\"]\n[tokens.ops]\ntoken = \"token-of-ops\"\nroles = [\"decide\", \"admin\"]\n";
    let config = load("tokens", tokens, &[]).expect("no other API token is needed");
    assert_eq!(
        (config.tokens["ci"].roles.as_slice(), config.tokens["ops"].prompts.as_slice()),
        (&[Role::Deploy][..], &["*".to_owned()][..])
    );
    let env = [("PROMPT_ROLLBACK_TOKENS__CI__TOKEN", "x"), ("PROMPT_ROLLBACK_TOKENS__CI__ROLES", "read,deploy")];
    assert_eq!(load("token-env", "", &env).unwrap().tokens["ci"].roles, [Role::Read, Role::Deploy]);

    let of = |lines: &str| problems("bad-token", lines, &[]);
    for (lines, key) in [
        ("[tokens.a]\nroles = [\"read\"]", "tokens.a.token"),
        ("[tokens.a]\ntoken = \"t\"", "tokens.a.roles"),
        ("[tokens.a]\ntoken = \"t\"\nroles = []", "tokens.a.roles"),
        ("[tokens.a]\ntoken = \"t\"\nroles = [\"root\"]", "tokens.a.roles"),
        ("[tokens.a]\ntoken = \"t\"\nroles = [\"read\"]\nprompts = []", "tokens.a.prompts"),
        ("[tokens.system]\ntoken = \"t\"\nroles = [\"read\"]", "tokens.system"),
        ("[tokens.proxy]\ntoken = \"t\"\nroles = [\"read\"]", "tokens.proxy"),
        ("[tokens.api]\ntoken = \"t\"\nroles = [\"read\"]", "tokens.api"),
        ("[server]\napi_token = \"t\"\n[tokens.a]\ntoken = \"t\"\nroles = [\"read\"]", "tokens.a.token"),
        ("[proxy]\naddresses = [\"proxy.example\"]", "proxy.addresses"),
        ("[proxy]\naddresses = [\"10.0.0.0/33\"]", "proxy.addresses"),
        ("[proxy]\naddresses = [\"10.0.0.1\"]\nhosts = [\"x\"]", "proxy.addresses"),
        ("[server]\napi_token = \"t\"\n[proxy]\naddresses = [\"10.0.0.1\"]", "proxy.hosts"),
        ("[proxy]\nuser_header = \"authorization\"", "proxy.user_header"),
        ("[proxy]\nuser_header = \"a b\"", "proxy.user_header"),
        ("[page]\nsession = \"500ms\"", "page.session"),
        ("[page]\nlisten = \"127.0.0.1:8000\"", "page.listen"),
        ("[page]\nlisten = \"0.0.0.0:8001\"", "server.api_token"),
        ("[deciders.on-call]\napprovers_url = \"schedule.example\"", "deciders.on-call.approvers_url"),
    ] {
        let found = of(lines);
        assert!(found.len() == 1 && found[0].contains(&format!("{key}: ")), "{lines}: {found:?}");
    }
}

#[test]
fn a_webhook_has_an_address_a_secret_and_perhaps_some_events() {
    const SECRET: &str = "secret = \"0123456789abcdef\"";
    let toml = format!(
        "[webhooks.teams]\nurl = \"https://flows.example/run?sig=hidden\"\n{SECRET}\n\
         events = [\"rollback.done\", \"io.prompt-rollback.incident.opened\"]\n"
    );
    let env = [
        ("PROMPT_ROLLBACK_WEBHOOKS__AUDIT_LOG__URL", "http://127.0.0.1:9"),
        ("PROMPT_ROLLBACK_WEBHOOKS__AUDIT_LOG__SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="),
    ];
    let config = load("webhooks", &toml, &env).expect("valid");
    let names: Vec<&String> = config.webhooks.keys().collect();
    assert_eq!(names, ["audit-log", "teams"]);
    let wants = |name: &str, kind: Kind| config.webhooks[name].wants(kind);
    assert!(wants("teams", Kind::RollbackDone) && wants("teams", Kind::IncidentOpened));
    assert!(!wants("teams", Kind::IncidentClosed));
    assert!(Kind::ALL.into_iter().all(|kind| wants("audit-log", kind)), "all by default");
    let shown = format!("{config:?}");
    assert!(!shown.contains("hidden") && !shown.contains("0123456789abcdef"), "{shown}");

    let of = |lines: &str| problems("bad-webhook", &format!("[webhooks.a]\n{lines}"), &[]);
    let url = "url = \"https://a.example/hook\"";
    for (lines, key) in [
        (SECRET.to_owned(), "webhooks.a.url"),
        (format!("{SECRET}\nurl = \"a.example\""), "webhooks.a.url"),
        (format!("{SECRET}\nurl = \"ftp://hidden.example\""), "webhooks.a.url"),
        (format!("{SECRET}\nurl = \"https://me:hidden@a.example\""), "webhooks.a.url"),
        (format!("{SECRET}\nurl = \"https://a.example/hid den\""), "webhooks.a.url"),
        (url.to_owned(), "webhooks.a.secret"),
        (format!("{url}\nsecret = \"hidden\""), "webhooks.a.secret"),
        (format!("{url}\nsecret = \"whsec_hidden, and no base64\""), "webhooks.a.secret"),
        (format!("{url}\nsecret = \"whsec_aGlkZGVu\""), "webhooks.a.secret"),
        (format!("{url}\nsecret_file = \"/nonexistent\""), "webhooks.a.secret_file"),
        (format!("{url}\n{SECRET}\nevents = [\"incident.oponed\"]"), "webhooks.a.events"),
        (format!("{url}\n{SECRET}\nevents = \"rollback.done\""), "webhooks.a.events"),
        (format!("{url}\n{SECRET}\nevent = []"), "webhooks.a.event"),
    ] {
        let found = of(&lines);
        assert!(found.len() == 1 && found[0].contains(&format!("{key}: ")), "{lines}: {found:?}");
        assert!(!found[0].contains("hidden"), "{found:?}");
    }
    let unknown = of(&format!("{url}\n{SECRET}\nevents = [\"incident.oponed\"]"));
    assert!(unknown[0].contains("one of version.activated") && unknown[0].contains("incident.opened"), "{unknown:?}");
    let name = problems("bad-name", &format!("[webhooks.\"a b\"]\n{url}\n{SECRET}"), &[]);
    assert!(name.len() == 1 && name[0].contains("1 to 64 letters"), "{name:?}");
}

/// Invalid values of the right type, each refused for its own key.
#[test]
fn clicks_must_come_from_the_app_of_the_app_token_or_the_named_one() {
    let of = |slack: &str| {
        let config = load("app-of-token", &format!("[slack]\nbot_token = \"xoxb-1\"\n{slack}"), &[]).unwrap();
        config.slack.expected_app().map(str::to_owned)
    };
    assert_eq!(of("app_token = \"xapp-1-A012AB3CD-456-abc\"").as_deref(), Some("A012AB3CD"));
    assert_eq!(of("app_token = \"xapp-1-A012AB3CD-456-abc\"\napp_id = \"A0OTHER\"").as_deref(), Some("A0OTHER"));
    assert_eq!(of("app_id = \"A0OTHER\"").as_deref(), Some("A0OTHER"));
    for unknown in ["", "app_token = \"xapp-1\"", "app_token = \"xapp-1-456-abc\""] {
        assert_eq!(of(unknown), None, "{unknown}");
    }
}

#[test]
fn invalid_config_values_are_errors_that_name_their_key() {
    for (key, value) in [
        ("server.request_timeout", "\"5s\""),
        ("server.request_timeout", "\"0s\""),
        ("server.max_body_bytes", "0"),
        ("server.max_body_bytes", "\"16 megs\""),
        ("server.max_body_bytes", "-1"),
        ("server.max_connections", "0"),
        ("server.listen", "\"127.0.0.1\""),
        ("slack.team_id", "\"acme\""),
        ("slack.app_id", "\"T0123\""),
        ("redis.url", "\"redis://\""),
        ("redis.namespace", "\"\""),
        ("redis.namespace", "\"prompts\""),
        ("redis.namespace", "\"{}\""),
        ("redis.namespace", "\"{a}{b}\""),
        ("redis.namespace", "\"}a{\""),
        ("redis.namespace", "\"{a b}\""),
        ("redis.namespace", "\"{a\\n}\""),
        ("redis.namespace", "\"{a*}\""),
        ("redis.wait_timeout", "\"4s\""),
        ("redis.wait_timeout", "\"0s\""),
        ("redis.nodes", "[\"host\"]"),
        ("redis.nodes", "[\"host:0\"]"),
        ("redis.nodes", "[\"a:1,b:2\"]"),
        ("redis.nodes", "[\"redis://a:1\"]"),
        ("redis.nodes", "[1]"),
        ("redis.nodes", "\"host:1\""),
        ("redis.tls_ca_file", "\"ca.pem\""),
        ("redis.mode", "\"ha\""),
        ("prometheus.url", "\"prometheus:9090\""),
        ("prometheus.url", "\"ftp://prometheus\""),
        ("prometheus.url", "\"http://u:p@prometheus\""),
        ("prometheus.timeout", "\"0s\""),
        ("alertmanager.timeout", "\"5s1ms\""),
        ("prometheus.username", "\"a:b\""),
        ("prometheus.headers", "\"X-Scope-OrgID\""),
        ("prometheus.headers", "\"Content-Length=5\""),
        ("alertmanager.headers", "\"X-Scope-OrgID=a%0Ab\""),
        ("prometheus.proxy_url", "\"proxy:3128\""),
        ("prometheus.proxy_url", "\"socks5://proxy:1080\""),
        ("alertmanager.proxy_url", "\"https://proxy:3128\""),
        ("slack.proxy_url", "\"http://proxy:3128/path\""),
        ("alertmanager.urls", "[\"http://a\", \"b\"]"),
        ("alertmanager.urls", "\"http://a\""),
        ("alertmanager.labels", "\"team\""),
        ("alertmanager.labels", "{ alertname = \"other\" }"),
        ("alertmanager.labels", "{ team-a = \"search\" }"),
        ("alertmanager.labels", "{ team = \"\" }"),
        ("slack.api_url", "\"\""),
        ("slack.incident_channel", "\"\""),
        ("labels.prompt", "\"1prompt\""),
        ("labels.prompt", "\"\""),
        ("labels.version", "\"prompt\""),
        ("labels.severity_aliases", "1"),
        ("guards.fallback_decider", "\"system\""),
        ("guards.fallback_decider", "\"nobody\""),
        ("guards.confirm", "\"requery\""),
        ("guards.max_auto_rollbacks", "-1"),
        ("guards.max_auto_rollbacks", "1.5"),
        ("guards.max_auto_rollbacks_window", "\"0s\""),
        ("guards.cooldown", "\"-1m\""),
        ("guards.ask_when_active_for_longer_than", "\"59m\""),
        ("guards.ask_when_active_for_longer_than", "\"\""),
        ("guards.ask_when_active_for_longer_than", "7"),
        ("registry.soak", "\"0\""),
        ("registry.soak_limit", "\"59m\""),
        ("registry.soak_requests", "0"),
        ("registry.soak_requests", "-1"),
        ("incidents.alert_resolve_timeout", "\"0s\""),
        ("verification.every", "\"0s\""),
        ("verification.fast_checks", "0"),
        ("verification.healthy_in_a_row", "0"),
        ("verification.healthy_in_a_row", "13"),
        ("verification.deadline", "\"1s\""),
        ("verification.max", "\"4m\""),
        ("gradual.stages", "[]"),
        ("gradual.stages", "[75, 50]"),
        ("gradual.stages", "[100, 0]"),
        ("gradual.stages", "[25, 50, 0]"),
        ("gradual.stages", "[50, 50, 0]"),
        ("gradual.stages", "[101, 0]"),
        ("gradual.stages", "[20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]"),
        ("gradual.hold", "\"0s\""),
        ("gradual.hold", "\"31d\""),
        ("canary.stages", "[0, 100]"),
        ("canary.stages", "[5, 1, 100]"),
        ("canary.stages", "[5, 50]"),
        ("canary.stages", "[]"),
        ("canary.stages", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 100]"),
        ("canary.hold", "\"0s\""),
        ("canary.hold", "\"31d\""),
        ("canary.hold_limit", "\"0s\""),
        ("canary.hold_limit", "\"31d\""),
        ("canary.margin", "0"),
        ("canary.margin", "51"),
        ("canary.analysis", "\"maybe\""),
        ("retention.hot_versions", "1"),
        ("retention.keep", "\"0s\""),
        ("page.max_streams", "-1"),
        ("metrics.max_prompts", "\"all\""),
        ("metrics.listen", "\"localhost\""),
        ("metrics.listen", "\"127.0.0.1:8000\""),
        ("server.shutdown_timeout", "\"0s\""),
        ("log.level", "\"verbose\""),
        ("log.format", "true"),
        ("tracing.otlp_endpoint", "\"collector:4318\""),
        ("tracing.otlp_endpoint", "\"http://u:p@collector:4318\""),
        ("tracing.otlp_headers", "\"authorization\""),
        ("tracing.otlp_headers", "\"a b=c\""),
        ("tracing.otlp_headers", "\"a=%0A\""),
        ("tracing.sample_ratio", "1.5"),
        ("tracing.sample_ratio", "-1"),
        ("tracing.sample_ratio", "nan"),
        ("tracing.sample_ratio", "\"all\""),
        ("deciders.on-call.approvers", "\"U1\""),
    ] {
        let error = load("senseless", &format!("{key} = {value}"), &[]).expect_err(&format!("{key} = {value}"));
        assert!(
            error.problems.iter().any(|problem| problem.key == key && problem.message.contains(", expected ")),
            "{key} = {value}: {error}"
        );
    }
    for name in ["system", "\"a b\"", "\"\"", "-x"] {
        let error = load("decider-name", &format!("[deciders.{name}]\nchannel = \"#x\""), &[]).expect_err(name);
        assert_eq!(error.problems[0].key, format!("deciders.{name}"), "{error}");
    }
}

#[test]
fn two_passwords_and_missing_partners_are_refused() {
    let two = problems("two-passwords", "[redis]\nurl = \"redis://:a@h\"\npassword = \"b\"", &[]);
    assert_eq!(
        two,
        [
            "test.toml:2: redis.url: found a value that is not shown here, expected a URL without a password, because redis.password is set as well"
        ]
    );
    let sentinel = problems("sentinel", "[redis]\nmode = \"sentinel\"", &[]);
    assert_eq!(
        sentinel,
        [
            "test.toml: redis.sentinel_master: found nothing, expected the master's name in Sentinel",
            "test.toml: redis.nodes: found nothing, expected a list of \"host:port\"",
        ]
    );
    assert_eq!(
        problems("short-timeout", "[server]\nrequest_timeout = \"500ms\"", &[]),
        [
            "test.toml: redis.wait_timeout: found the default \"1s\", expected more than 0 and less than server.request_timeout"
        ]
    );
    let config =
        load("requery", "[guards]\nconfirm = \"requery\"\n[prometheus]\nurl = \"http://p:9090/\"", &[]).unwrap();
    assert_eq!((config.guards.confirm, config.prometheus.url.as_deref()), (Confirm::Requery, Some("http://p:9090")));
}

/// The sections that name a server which is called over HTTP, and its address there.
const TARGETS: [(&str, &str); 2] =
    [("prometheus", "url = \"https://p.test/base\""), ("alertmanager", "urls = [\"https://a.test/base\"]")];

#[test]
fn the_credentials_of_a_server_are_read_alike_for_each_and_never_shown() {
    for (section, url) in TARGETS {
        let headers = |lines: &str| {
            let config = load("credentials", &format!("[{section}]\n{url}\n{lines}"), &[]).unwrap();
            let target = if section == "prometheus" { &config.prometheus.http } else { &config.alertmanager.http };
            let headers = target.all_headers();
            let shown = format!("{config:?} {headers:?}");
            assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
            let mut all: Vec<String> = Vec::new();
            for (name, value) in &headers {
                all.push(format!("{name}: {}", value.to_str().unwrap()));
            }
            all
        };
        assert_eq!(headers(""), [""; 0]);
        assert_eq!(
            headers("username = \"u\"\npassword = \"hunter2\"\nheaders = \"X-Scope-OrgID=a%7Cb\""),
            ["x-scope-orgid: a|b", "authorization: Basic dTpodW50ZXIy"]
        );
        assert_eq!(headers("bearer_token = \"hunter2\""), ["authorization: Bearer hunter2"]);
        assert_eq!(headers("headers = \"Authorization=GenieKey%20hunter2\""), ["authorization: GenieKey hunter2"]);
        headers("proxy_url = \"http://me:hunter2@proxy:3128\"");
    }
}

#[test]
fn conflicting_or_incomplete_credentials_are_refused_by_their_key() {
    let http = |url: &str| url.replace("https", "http");
    for (section, url) in TARGETS {
        for (lines, key, expected) in [
            ("username = \"u\"", "password", "the password of"),
            ("password = \"hunter2\"", "username", "the user of"),
            ("username = \"u\"\npassword = \"x\"\nbearer_token = \"hunter2\"", "bearer_token", "no token, because"),
            ("bearer_token = \"x\"\nheaders = \"authorization=hunter2\"", "headers", "no header Authorization"),
            ("tls_key_file = \"key.pem\"", "tls_cert_file", "the certificate of"),
            ("tls_cert_file = \"cert.pem\"", "tls_key_file", "the key of"),
            ("tls_ca_file = \"/nonexistent/ca.pem\"", "tls_ca_file", "cannot read /nonexistent/ca.pem"),
            ("bearer_token_file = \"/nonexistent/token\"", "bearer_token_file", "cannot read /nonexistent/token"),
        ] {
            let found = problems("partners", &format!("[{section}]\n{url}\n{lines}"), &[]);
            let [problem] = found.as_slice() else { panic!("{lines}: {found:?}") };
            assert!(problem.contains(&format!("{section}.{key}: ")) && problem.contains(expected), "{problem}");
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        let plain = problems("plain", &format!("[{section}]\n{}\ntls_ca_file = \"/nonexistent\"", http(url)), &[]);
        assert!(
            plain[0].contains(&format!("{section}.tls_ca_file: ")) && plain[0].contains("to be https://…"),
            "{plain:?}"
        );
    }
    let redis = problems("redis-cert", "[redis]\nurl = \"redis://h\"\ntls_cert_file = \"/nonexistent\"", &[]);
    let expected = "redis.tls_key_file: found nothing, expected the key of redis.tls_cert_file";
    assert!(redis.iter().any(|problem| problem.contains(expected)), "{redis:?}");
    assert!(redis.iter().any(|problem| problem.contains("redis.url to be rediss://…")), "{redis:?}");
}

#[test]
fn what_is_found_on_the_network_is_reached_over_it() {
    let cluster = |rest: &str| format!("[redis]\nmode = \"cluster\"\nnodes = [\"a:1\"]\n{rest}");
    let config = load("cluster", &cluster(""), &[]).unwrap();
    assert_eq!(config.redis.mode, RedisMode::Cluster);
    assert_eq!(
        problems("cluster-unix", &cluster("url = \"redis+unix:///run/redis.sock\""), &[]),
        [
            "test.toml:4: redis.url: found a value that is not shown here, expected redis://… or rediss://…: the master is found on the network"
        ]
    );
    assert_eq!(
        problems("cluster-database", &cluster("url = \"redis://h/3\""), &[]),
        [
            "test.toml:4: redis.url: found a value that is not shown here, expected no database number: a cluster has only one"
        ]
    );
    // without a hash tag the keys of a namespace would be in different slots
    for namespace in ["prompts", "{}prompts"] {
        let error = load("cluster-tag", &cluster(&format!("namespace = \"{namespace}\"")), &[]).expect_err(namespace);
        assert!(error.to_string().contains("redis.namespace"), "{error}");
    }
}

#[test]
fn the_default_policy_is_that_of_the_default_config() {
    assert_eq!(Config::default().policy(), Policy::default());
}

/// Keys that rules read, each with a value other than its default. If that changes nothing alone, with another key.
const OF_RULES: [(&str, &str, &str); 24] = [
    ("prometheus.url", "http://prometheus:9090", ""),
    ("registry.soak", "2h", ""),
    ("registry.soak_requests", "21", ""),
    ("registry.soak_limit", "25h", ""),
    ("registry.precheck_url", "http://test", ""),
    ("guards.mode", "dry-run", ""),
    ("guards.confirm", "requery", "prometheus.url"),
    ("guards.fallback_decider", "product-pm", ""),
    ("guards.max_auto_rollbacks", "6", ""),
    ("guards.max_auto_rollbacks_window", "6m", ""),
    ("guards.cooldown", "31m", ""),
    ("guards.ask_when_active_for_longer_than", "7d", ""),
    ("incidents.reopen_within", "2h", ""),
    ("incidents.alert_resolve_timeout", "7h", ""),
    ("verification.every", "6s", ""),
    ("verification.fast_checks", "13", ""),
    ("verification.healthy_in_a_row", "3", ""),
    ("verification.deadline", "6m", ""),
    ("verification.max", "2h", ""),
    ("gates.staging", "true", ""),
    ("gates.staged_for", "25h", "gates.staging"),
    ("gates.ab_test", "true", ""),
    ("gates.first_hour", "true", ""),
    ("retention.hot_versions", "4", ""),
];

#[test]
fn each_key_that_rules_read_changes_the_policy() {
    let policy = |keys: &[(&str, &str)]| {
        let name = |key: &str| format!("PROMPT_ROLLBACK_{}", key.replace('.', "__").to_uppercase());
        let env = keys.iter().map(|(key, value)| (name(key), value.to_string()));
        Config::load(None, env).expect("a config").policy()
    };
    for (key, value, with) in OF_RULES {
        let other: Vec<_> =
            OF_RULES.iter().filter(|(key, ..)| *key == with).map(|(key, value, _)| (*key, *value)).collect();
        let both: Vec<_> = other.iter().copied().chain([(key, value)]).collect();
        assert_ne!(policy(&both), policy(&other), "{key}");
    }
    let sections = ["registry", "guards", "incidents", "verification", "gates"];
    let of_rules = |key: &str| sections.contains(&key.split('.').next().unwrap_or_default());
    let mut missing = Config::keys();
    missing.retain(|key| of_rules(key) && OF_RULES.iter().all(|(known, ..)| known != key));
    assert!(missing.is_empty(), "add them to the table: {missing:?}");
}

#[test]
fn the_age_guard_has_a_duration_or_is_off() {
    let load = |value: &str| load("age", "", &[("PROMPT_ROLLBACK_GUARDS__ASK_WHEN_ACTIVE_FOR_LONGER_THAN", value)]);
    assert_eq!(load("off").unwrap().policy().ask_when_active_for_longer_than, None);
    let week = Duration::from_secs(7 * 86_400);
    assert_eq!(load("7d").unwrap().policy().ask_when_active_for_longer_than, Some(week));
    let error = load("often").unwrap_err().to_string();
    assert!(error.contains("a duration such as \"12h\" or \"7d\", or \"off\""), "{error}");
}

#[test]
fn collector_headers_are_read_and_never_shown() {
    let given = "[tracing]\notlp_headers = \" authorization=Bearer%20hunter2 , x-tenant=team-a, \"\nsample_ratio = 1";
    let config = load("otlp-headers", given, &[]).unwrap();
    let headers = config.tracing.headers();
    assert_eq!(
        (headers.len(), &headers["authorization"], &headers["x-tenant"]),
        (2, &"Bearer hunter2".parse().unwrap(), &"team-a".parse().unwrap())
    );
    assert!(!format!("{config:?} {headers:?}").contains("hunter2"));
    let wrong = problems("otlp-headers-wrong", "[tracing]\notlp_headers = \"hunter2\"", &[]);
    assert!(
        wrong.len() == 1 && wrong[0].contains("tracing.otlp_headers: found a value that is not shown here"),
        "{wrong:?}"
    );
}

#[cfg(not(feature = "otlp"))]
#[test]
fn an_endpoint_for_spans_is_refused_by_a_binary_that_cannot_export() {
    let refused = problems("otlp-unsupported", "[tracing]\notlp_endpoint = \"http://collector:4318\"", &[]);
    assert!(refused.len() == 1, "{refused:?}");
    assert!(
        refused[0].contains("toml:2: tracing.otlp_endpoint: ") && refused[0].contains("the feature \"otlp\""),
        "{refused:?}"
    );
}

#[test]
fn the_weekly_report_has_a_day_and_a_time_or_is_off() {
    let load = |value: &str| load("weekly", "", &[("PROMPT_ROLLBACK_REPORT__WEEKLY", value)]);
    assert_eq!(load("off").unwrap().report.weekly, None);
    assert_eq!(load("mon 00:00").unwrap().report.weekly, Some(Weekly { day: 0, hour: 0, minute: 0 }));
    for wrong in
        ["mon", "9:00", "mon 9:00", "mon 24:00", "mon 09:60", "Mon 09:00", "mon 09:00 CET", "mon +9:00", "never"]
    {
        let error = load(wrong).unwrap_err().to_string();
        assert!(error.contains("such as \"mon 09:00\""), "{wrong}: {error}");
    }
}

/// Renamed keys: the key, its earlier name, and two values other than the default.
const RENAMED: [(&str, &str, &str, &str); 5] = [
    ("registry.precheck_url", "registry.baseline_url", "\"http://test\"", "\"http://other\""),
    ("guards.max_auto_rollbacks_window", "guards.max_auto_rollbacks_within", "\"6m\"", "\"7m\""),
    ("incidents.alert_resolve_timeout", "incidents.forget_after", "\"7h\"", "\"8h\""),
    ("verification.fast_checks", "verification.checks", "13", "14"),
    ("gradual.hold", "gradual.stage_hold", "\"5m\"", "\"6m\""),
];

/// The variable of a key, and a section with it.
fn variable(key: &str) -> String {
    format!("PROMPT_ROLLBACK_{}", key.replace('.', "__").to_uppercase())
}

fn in_file(key: &str, value: &str) -> String {
    let (section, name) = key.split_once('.').unwrap();
    format!("[{section}]\n{name} = {value}\n")
}

#[test]
fn a_renamed_key_is_accepted_under_its_earlier_name_with_a_warning() {
    let dir = dir("renamed");
    let path = dir.path().join("test.toml");
    let loaded = |toml: &str, env: &[(&str, &str)]| {
        dir.write("test.toml", toml).unwrap();
        let LoadedConfig { config, renamed, .. } = LoadedConfig::load(Some(&path), owned(env)).unwrap();
        (format!("{config:?}"), renamed.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let usual = format!("{:?}", Config::default());
    for (key, earlier, value, other) in RENAMED {
        let (variable, before) = (variable(key), variable(earlier));
        let text = value.trim_matches('"');
        let (expected, warnings) = loaded(&in_file(key, value), &[]);
        assert!(expected != usual && warnings.is_empty(), "{key}: {warnings:?}");
        let by_file = format!("{}:2: {earlier} is deprecated, use {key}", path.display());
        assert_eq!(loaded(&in_file(earlier, value), &[]), (expected.clone(), vec![by_file.clone()]));
        let by_env = format!("environment variable {before}: {earlier} is deprecated, use {key} ({variable})");
        assert_eq!(loaded("", &[(&before, text)]), (expected.clone(), vec![by_env.clone()]));
        // a variable beats the file, whichever name each of them uses
        assert_eq!(loaded(&in_file(key, other), &[(&before, text)]), (expected.clone(), vec![by_env]));
        assert_eq!(loaded(&in_file(earlier, other), &[(&variable, text)]), (expected, vec![by_file]));
    }
}

#[test]
fn a_renamed_key_under_both_names_is_an_error_that_names_both() {
    for (key, earlier, value, other) in RENAMED {
        let (section, name) = earlier.split_once('.').unwrap();
        let both = format!("{}{name} = {other}\n", in_file(key, value));
        let expected = format!("{earlier}: expected only {key}: {earlier} is its earlier name, and both are set");
        // all else that is wrong is reported as well
        let more = format!("{both}[log]\n{section} = 1\n");
        let unknown = format!("test.toml:5: log.{section}: unknown key, [log] has format, level");
        assert_eq!(problems("both-names", &more, &[]), [format!("test.toml:3: {expected}"), unknown]);
        let (variable, before) = (variable(key), variable(earlier));
        let env = [value, other].map(|value| value.trim_matches('"'));
        let env = [(variable.as_str(), env[0]), (before.as_str(), env[1])];
        assert_eq!(problems("both-variables", "", &env), [format!("environment variable {before}: {expected}")]);
    }
}

#[test]
fn a_wrong_value_under_an_earlier_name_is_found_by_it() {
    for (key, earlier, ..) in RENAMED {
        let found = problems("earlier-wrong", &in_file(earlier, "[]"), &[]);
        let [problem] = found.as_slice() else { panic!("{found:?}") };
        assert!(problem.starts_with(&format!("test.toml:2: {key}: found [], expected ")), "{problem}");
        assert!(problem.ends_with(&format!(" ({earlier} is the earlier name of this key)")), "{problem}");
    }
}

mod reread {
    use super::*;
    use prompt_rollback::config::{ConfigChange, LoadedConfig, Reread};

    /// A config file that is edited while its settings are in force.
    struct Edited {
        dir: Dir,
        settings: LoadedConfig,
    }

    impl Edited {
        fn new(test: &str, toml: &str) -> Self {
            let dir = dir(test);
            let path = dir.write("test.toml", toml).unwrap();
            let settings = LoadedConfig::load(Some(&path), owned(&[])).unwrap();
            Self { dir, settings }
        }

        fn try_edit(&self, toml: &str) -> Result<Reread, ConfigError> {
            self.dir.write("test.toml", toml).unwrap();
            self.settings.reread(self.settings.look())
        }

        /// Edits and reloads: what has changed, and what needs a restart.
        fn edit(&mut self, toml: &str) -> (Vec<String>, Vec<String>) {
            let reread = self.try_edit(toml).unwrap();
            self.settings = reread.settings;
            (lines(&reread.changed), lines(&reread.needs_restart))
        }

        /// Reloads the files that the config names, as the receiver does each second.
        fn follow(&mut self) -> Result<Vec<String>, ConfigError> {
            let reread = self.settings.reread(self.settings.source().look_at_files())?;
            self.settings = reread.settings;
            Ok(lines(&reread.changed))
        }

        fn api_token(&self) -> &str {
            self.settings.config.server.api_token.as_ref().map_or("", |token| token.expose_secret())
        }
    }

    fn lines(changes: &[ConfigChange]) -> Vec<String> {
        changes.iter().map(ConfigChange::to_string).collect()
    }

    #[test]
    fn what_changes_is_named_with_both_values_and_a_secret_without() {
        let mut edited = Edited::new(
            "changes",
            "[server]\napi_token = \"hunter2\"\n[guards]\nmode = \"armed\"\ncooldown = \"60m\"\n[deciders.team]\nchannel = \"#a\"\n\
             [labels.severity_aliases]\np1 = \"critical\"\n",
        );
        let (changed, restart) = edited.edit(
            "[server]\napi_token = \"hunter3\"\n[guards]\nmode = \"dry-run\"\ncooldown = \"1h\"\n[deciders.other]\napprovers = [\"U1\"]\n\
             [gradual]\nstages = [50, 0]\n",
        );
        assert_eq!(
            changed,
            [
                "deciders: \"on-call,product-pm,team\" → \"on-call,other,product-pm\"",
                "deciders.other.approvers: nothing → \"U1\"",
                "deciders.team.channel: \"#a\" → nothing",
                "gradual.stages: \"75,50,25,0\" → \"50,0\"",
                "guards.mode: \"armed\" → \"dry-run\"",
                "labels.severity_aliases: \"p1=critical\" → \"info=medium,warning=high\"",
                "server.api_token: changed",
            ]
        );
        assert_eq!(restart, [""; 0]);
        assert_eq!(edited.edit("# nothing but defaults\n").0.len(), 6);
        assert_eq!(edited.edit("\n").0, [""; 0], "a comment is no change");
    }

    #[test]
    fn a_change_of_any_key_is_seen_and_named_as_that_key() {
        let other = |key: &str| match key {
            "server.listen" => "\"127.0.0.1:9\"",
            "server.webhook_token" | "server.api_token" | "redis.password" | "redis.sentinel_password" => "\"s3cret\"",
            "slack.bot_token" | "slack.signing_secret" | "slack.app_token" => "\"s3cret\"",
            "server.max_body_bytes" => "\"1MiB\"",
            "server.max_buffered_bytes" => "\"32MiB\"",
            "server.shutdown_timeout" => "\"7s\"",
            "metrics.listen" => "\"127.0.0.1:9\"",
            "server.request_timeout" => "\"3s\"",
            "redis.url" => "\"redis://other\"",
            "redis.wait_timeout" => "\"2s\"",
            "redis.readable_by_previous" => "true",
            "redis.mode" => "\"sentinel\"\nnodes = [\"a:1\"]\nsentinel_master = \"m\"",
            "redis.nodes" => "[\"a:1\"]",
            "redis.namespace" => "\"{x}\"",
            "prometheus.url" | "registry.precheck_url" | "slack.api_url" => "\"http://other\"",
            "alertmanager.urls" => "[\"http://other\"]",
            "alertmanager.username" | "prometheus.username" => "\"other\"\npassword = \"s3cret\"",
            "alertmanager.password" | "prometheus.password" => "\"s3cret\"\nusername = \"other\"",
            "alertmanager.bearer_token" | "prometheus.bearer_token" => "\"s3cret\"",
            "alertmanager.headers" | "prometheus.headers" => "\"X-Scope-OrgID=s3cret\"",
            "alertmanager.proxy_url" | "prometheus.proxy_url" | "slack.proxy_url" => "\"http://me:s3cret@proxy:3128\"",
            "alertmanager.timeout" | "prometheus.timeout" => "\"4s\"",
            "slack.team_id" => "\"T1\"",
            "slack.app_id" => "\"A1\"",
            "labels.replicas" => "[\"monitor\"]",
            "labels.severity_aliases" => "{ p1 = \"critical\" }",
            "alertmanager.labels" => "{ team = \"search\" }",
            "guards.mode" => "\"dry-run\"",
            "guards.confirm" => "\"requery\"\n[prometheus]\nurl = \"http://p\"",
            "guards.fallback_decider" => "\"product-pm\"",
            "gradual.stages" => "[50, 0]",
            "canary.stages" => "[50, 100]",
            "canary.analysis" => "\"off\"",
            "canary.margin" => "3",
            "report.weekly" => "\"off\"",
            "guards.ask_when_active_for_longer_than" => "\"7d\"",
            "log.format" => "\"json\"",
            "log.level" => "\"debug\"",
            "gates.staging" | "gates.ab_test" | "gates.first_hour" => "true",
            "verification.fast_checks"
            | "verification.healthy_in_a_row"
            | "metrics.max_prompts"
            | "page.max_streams" => "7",
            "server.max_connections" | "redis.min_replicas_acked" | "guards.max_auto_rollbacks" => "7",
            "retention.hot_versions" => "7",
            key if key.ends_with(".approvers") => "[\"U1\"]",
            key if key.ends_with(".approvers_url") => "\"http://other/on-call\"",
            "proxy.addresses" => "[\"10.0.0.0/8\"]\nhosts = [\"rollback.example\"]\n[server]\napi_token = \"s3cret\"",
            "proxy.hosts" => "[\"rollback.example\"]",
            "proxy.roles" => "[\"decide\"]",
            "proxy.prompts" => "[\"team-a/*\"]",
            "page.enabled" => "false",
            "page.listen" => "\"127.0.0.1:8\"",
            "page.session" => "\"77s\"",
            "registry.soak_limit" => "\"48h\"",
            "registry.soak_requests" => "7",
            "registry.soak" | "guards.max_auto_rollbacks_window" | "guards.cooldown" => "\"77s\"",
            "incidents.reopen_within" | "incidents.alert_resolve_timeout" | "gates.staged_for" => "\"77s\"",
            "verification.every" | "verification.deadline" | "retention.keep" => "\"77s\"",
            "verification.max" => "\"48h\"",
            "tracing.otlp_endpoint" => "\"http://other\"",
            "tracing.otlp_headers" => "\"token=s3cret\"",
            "tracing.sample_ratio" => "0.5",
            "gradual.hold" | "canary.hold" | "canary.hold_limit" => "\"77s\"",
            _ => "\"other\"",
        };
        // each needs a file or another key, and has a test of its own
        let files = |key: &str| key.ends_with("_file");
        let unsupported = |key: &str| key == "tracing.otlp_endpoint" && !cfg!(feature = "otlp");
        for key in Config::keys().into_iter().filter(|key| !files(key) && !unsupported(key)) {
            let edited = Edited::new("any-key", "");
            let (section, name) = key.rsplit_once('.').unwrap();
            let reread = edited.try_edit(&format!("[{section}]\n{name} = {}\n", other(&key))).expect(&key);
            let of_key = |changes: &[ConfigChange]| changes.iter().any(|change| change.key == key);
            let needs_restart = Config::keys_that_need_a_restart().contains(&key);
            assert_eq!(of_key(&reread.changed), !needs_restart, "{key}: {reread:?}");
            assert_eq!(of_key(&reread.needs_restart), needs_restart, "{key}: {reread:?}");
            let text = format!("{:?}", reread.changed);
            assert!(!text.contains("s3cret") && !text.contains("redis://other"), "{text}");
        }
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named_as_long_as_it_is_written() {
        let mut edited = Edited::new("restart", "[redis]\nnamespace = \"{a}\"\n");
        let written = "[redis]\nnamespace = \"{b}\"\n[log]\nformat = \"json\"\n";
        let waits = ["log.format: \"text\" → \"json\"", "redis.namespace: \"{a}\" → \"{b}\""];
        let (changed, restart) = edited.edit(&format!("{written}[guards]\nmode = \"dry-run\"\n"));
        assert_eq!(
            (changed, restart),
            (vec!["guards.mode: \"armed\" → \"dry-run\"".to_owned()], waits.map(str::to_owned).to_vec())
        );
        assert_eq!(edited.settings.config.redis.namespace, "{a}");
        let (changed, restart) = edited.edit(&format!("{written}[registry]\nsoak = \"2h\"\n"));
        assert_eq!((changed.len(), restart), (2, waits.map(str::to_owned).to_vec()), "again");
        assert_eq!(edited.edit("[redis]\nnamespace = \"{a}\"\n").1, [""; 0], "taken back");
    }

    #[test]
    fn settings_of_another_redis_wait_for_the_restart_together() {
        let dir = dir("together");
        dir.write("old", "old-pass").unwrap();
        let own = "[redis]\nurl = \"redis://old\"\npassword_file = \"old\"\n[server]\napi_token = \"a\"\n";
        let path = dir.write("test.toml", own).unwrap();
        let mut edited = Edited { settings: LoadedConfig::load(Some(&path), owned(&[])).unwrap(), dir };
        let written = "[redis]\nurl = \"redis://new\"\npassword_file = \"new\"\nmin_replicas_acked = 1\n[server]\napi_token = \"b\"\n";
        assert!(edited.try_edit(written).is_err(), "no file holds the new password yet");
        edited.dir.write("new", "new-pass").unwrap();
        // the password of the old one is still needed
        let password =
            |edited: &Edited| edited.settings.config.redis.password.as_ref().unwrap().expose_secret().to_owned();
        let (changed, restart) = edited.edit(written);
        assert_eq!(changed, ["server.api_token: changed"]);
        let keys: Vec<_> = restart.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(keys, ["redis.min_replicas_acked", "redis.password", "redis.password_file", "redis.url"]);
        assert_eq!(password(&edited), "old-pass");
        edited.dir.write("old", "rotated").unwrap();
        assert_eq!(edited.follow().unwrap(), ["redis.password: changed"], "and it is followed");
        assert_eq!(
            (password(&edited).as_str(), edited.settings.config.redis.url.to_string().as_str()),
            ("rotated", "redis://old")
        );
    }

    #[test]
    fn the_login_in_a_redis_url_is_taken_over_and_its_address_is_not() {
        let dir = dir("login");
        dir.write("url", "redis://u:one@host:6379\n").unwrap();
        let path = dir.write("test.toml", "[redis]\nurl_file = \"url\"\n").unwrap();
        let mut edited = Edited { settings: LoadedConfig::load(Some(&path), owned(&[])).unwrap(), dir };
        edited.dir.write("url", "redis://u:two@host:6379\n").unwrap();
        assert_eq!(edited.follow().unwrap(), ["redis.url: changed"]);
        assert_eq!(edited.settings.config.redis.url.expose(), "redis://u:two@host:6379");
        edited.dir.write("url", "redis://u:three@other:6379\n").unwrap();
        assert_eq!(edited.follow().unwrap(), [""; 0]);
        let reread = edited.settings.reread(edited.settings.look()).unwrap();
        assert_eq!(lines(&reread.needs_restart), ["redis.url: \"redis://***@host:6379\" → \"redis://***@other:6379\""]);
        assert_eq!(reread.settings.config.redis.url.expose(), "redis://u:two@host:6379");
    }

    #[test]
    fn a_config_that_does_not_fit_what_stays_in_force_is_refused() {
        let public =
            "[server]\nlisten = \"0.0.0.0:8000\"\nwebhook_token = \"webhook-token\"\napi_token = \"api-token\"\n";
        let edited = Edited::new("mixed", public);
        // valid alone: but the address stays, and would be open to everyone
        let private = "[server]\nlisten = \"127.0.0.1:8000\"\n";
        Config::parse(private, None, owned(&[])).unwrap();
        let error = edited.try_edit(private).expect_err("open to everyone").to_string();
        for part in
            ["server.webhook_token", "server.api_token", "in force until a restart: server.listen: \"0.0.0.0:8000\""]
        {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_bad_edit_names_every_problem_and_no_secret() {
        let edited = Edited::new("bad-edit", "[server]\napi_token = \"hunter2\"\n");
        let bad = "[server]\napi_token = [\"hunter3\"]\n[guards]\nmode = \"off\"\ncooldwn = \"hunter2\"\n[slack\n";
        for (toml, problems) in [(bad, 1), (bad.trim_end_matches("[slack\n"), 3)] {
            let error = edited.try_edit(toml).expect_err("a problem");
            assert_eq!(error.problems.len(), problems, "{error}");
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
        let path = edited.dir.path().join("test.toml");
        std::fs::remove_file(&path).unwrap();
        let error = edited.settings.reread(edited.settings.look()).expect_err("no file").to_string();
        assert_eq!(
            error,
            format!("{}: cannot read the config file: No such file or directory (os error 2)", path.display())
        );
        assert!(!format!("{:?}", edited.settings).contains("hunter"));
    }

    #[test]
    fn a_file_is_followed_and_the_config_file_is_not() {
        let dir = dir("followed");
        dir.write("token", "one\n").unwrap();
        let path = dir.write("test.toml", "[server]\napi_token_file = \"token\"\n").unwrap();
        let mut edited = Edited { settings: LoadedConfig::load(Some(&path), owned(&[])).unwrap(), dir };
        assert_eq!(edited.follow().unwrap(), [""; 0]);
        edited.dir.write("test.toml", "[server]\napi_token_file = \"token\"\n[guards]\nmode = \"dry-run\"\n").unwrap();
        edited.dir.write("token", "two\n").unwrap();
        assert_eq!(edited.follow().unwrap(), ["server.api_token: changed"]);
        assert_eq!((edited.api_token(), edited.settings.config.guards.mode), ("two", GuardMode::Armed));
        for (content, why) in [("", "is empty"), ("a\nb", "line break")] {
            edited.dir.write("token", content).unwrap();
            let error = edited.follow().expect_err(content).to_string();
            assert!(error.contains("server.api_token_file") && error.contains(why), "{error}");
            assert_eq!(edited.api_token(), "two");
        }
        std::fs::remove_file(edited.dir.path().join("token")).unwrap();
        assert!(edited.follow().is_err());
        edited.dir.write("token", "three\n").unwrap();
        assert_eq!(edited.follow().unwrap(), ["server.api_token: changed"]);
        assert_eq!(edited.edit("[server]\napi_token_file = \"token\"\n[guards]\nmode = \"dry-run\"\n").0.len(), 1);
    }

    /// A volume of Kubernetes: `token` → `..data/token`, `..data` → a directory, and that link is replaced.
    #[test]
    fn a_directory_that_is_swapped_by_its_link_is_seen() {
        use std::os::unix::fs::symlink;
        let dir = dir("kubernetes");
        let at = |name: &str| dir.path().join(name);
        for (version, token) in [("v1", "one"), ("v2", "two")] {
            std::fs::create_dir_all(at(version)).unwrap();
            std::fs::write(at(version).join("token"), token).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/token", at("token")).unwrap();
        let path = dir.write("test.toml", "[server]\napi_token_file = \"token\"\n").unwrap();
        symlink("v2", at("..data_tmp")).unwrap();
        let (data, tmp) = (at("..data"), at("..data_tmp"));
        let mut edited = Edited { settings: LoadedConfig::load(Some(&path), owned(&[])).unwrap(), dir };
        assert_eq!(edited.api_token(), "one");
        std::fs::rename(tmp, data).unwrap();
        assert_eq!(edited.follow().unwrap(), ["server.api_token: changed"]);
        assert_eq!(edited.api_token(), "two");
    }

    #[test]
    fn a_file_that_was_just_written_is_known_as_such() {
        let edited = Edited::new("fresh", "");
        let written = |path: &str, age: u64| {
            let file = std::fs::File::options().append(true).open(edited.dir.path().join(path)).unwrap();
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        let minute = Duration::from_secs(60);
        written("test.toml", 0);
        assert!(edited.settings.was_written_within(minute));
        written("test.toml", 120);
        assert!(!edited.settings.was_written_within(minute));
        edited.dir.write("token", "a").unwrap();
        let settings = edited.try_edit("[server]\napi_token_file = \"token\"\n").unwrap().settings;
        written("test.toml", 120);
        assert!(settings.was_written_within(minute), "the token's file");
        written("token", 120);
        assert!(!settings.was_written_within(minute));
    }

    /// Like `--config <(…)`: a pipe that was read looks like an empty file.
    #[test]
    fn a_pipe_is_read_once() {
        let dir = dir("pipe");
        for name in ["test.toml", "token"] {
            assert!(std::process::Command::new("mkfifo").arg(dir.path().join(name)).status().unwrap().success());
        }
        let writer = |name: &str, text: &'static str| {
            let path = dir.path().join(name);
            std::thread::spawn(move || std::fs::write(path, text).unwrap())
        };
        let writers = [writer("test.toml", "[server]\napi_token_file = \"token\"\n"), writer("token", "one")];
        let settings = LoadedConfig::load(Some(&dir.path().join("test.toml")), owned(&[])).unwrap();
        for writer in writers {
            writer.join().unwrap();
        }
        let (found, looked) = std::sync::mpsc::channel();
        let again = settings.clone();
        std::thread::spawn(move || found.send((again.look(), again.source().look_at_files())));
        // opening it again would wait for a writer
        let (all, files) = looked.recv_timeout(Duration::from_secs(120)).expect("it is not opened again");
        assert_eq!(settings.source(), files);
        assert!(settings.reread(all).expect_err("a pipe").to_string().contains("it is a pipe"));
    }

    #[test]
    fn the_shipped_file_says_which_keys_need_a_restart() {
        let text = std::fs::read_to_string(shipped()).unwrap();
        let mut section = String::new();
        let mut marked = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                section = name.to_owned();
            } else if let Some((key, rest)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#'))
                && rest.contains("needs a restart")
            {
                marked.push(format!("{section}.{key}"));
            }
        }
        marked.sort();
        assert_eq!(marked, Config::keys_that_need_a_restart());
    }
}
