//! `init`: what it writes is valid, and its next steps lead to a green drill on real servers.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Dir, Port, Process, ProcessBuilder, Prometheus};

use super::stub::{fails, program, stderr, stdout};

const PROGRAM: &str = env!("CARGO_BIN_EXE_prompt-rollback");
const SECRETS: [&str; 4] = ["webhook_token", "api_token", "redis_password", "prompt_server_password"];
const ON_A_HOST: [&str; 10] = [
    "--platform",
    "systemd",
    "--redis-url",
    "redis://127.0.0.1:6379",
    "--prometheus-url",
    "http://127.0.0.1:9090",
    "--alertmanager-url",
    "http://127.0.0.1:9093",
    "--receiver-url",
    "http://127.0.0.1:8000",
];

/// Runs it with these flags, and with others instead of some.
fn init(dir: &Path, instead: &[(&str, &str)], more: &[&str]) -> Output {
    let mut arguments = vec!["init", "--dir", dir.to_str().expect("UTF-8")];
    for pair in ON_A_HOST.chunks(2) {
        let value = instead.iter().find(|(flag, _)| *flag == pair[0]).map_or(pair[1], |(_, value)| value);
        arguments.extend([pair[0], value]);
    }
    arguments.extend(more);
    program(&arguments).output().expect("runs")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).expect(name)
}

#[test]
fn without_a_terminal_a_missing_flag_is_an_error_that_names_it() {
    let dir = Dir::new("init").expect("a folder");
    let out = dir.path().join("out");
    let run = |more: &[&str]| {
        let arguments = [&["init", "--dir", out.to_str().expect("UTF-8")], more].concat();
        program(&arguments).output().expect("runs")
    };
    let all = "--platform, --redis-url, --prometheus-url, --alertmanager-url, --receiver-url";
    let rest = ": without a terminal, init asks no questions\n";
    fails(&run(&[]), 2, &format!("error: expected {all}{rest}"));
    fails(&run(&ON_A_HOST[..8]), 2, &format!("error: expected --receiver-url{rest}"));
    for (flag, value, expected) in [
        (
            "--redis-url",
            "redis://me:hunter2@redis:6379",
            "error: --redis-url: expected a URL without user and password",
        ),
        (
            "--redis-url",
            "redis:6379",
            "error: --redis-url: expected redis://HOST:PORT or rediss://HOST:PORT (TLS), or redis+unix",
        ),
        ("--prometheus-url", "prometheus:9090", "error: --prometheus-url: "),
        ("--alertmanager-url", "", "error: --alertmanager-url: expected http://HOST:PORT"),
        ("--alertmanager-url", "http://a:9093,http://u:hunter2@b:9093", "error: --alertmanager-url: expected http://"),
        (
            "--receiver-url",
            "http://0.0.0.0:8000",
            "error: --receiver-url: found 0.0.0.0, which is an address to listen on",
        ),
        ("--receiver-url", "receiver", "error: --receiver-url: expected http://HOST:PORT"),
    ] {
        let output = init(&out, &[(flag, value)], &[]);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{value}: {error}");
        assert!(error.starts_with(expected) && !error.contains("hunter2"), "{value}: {error}");
    }
    assert!(!out.exists(), "nothing was written");
    let file = dir.write("file", "").expect("written");
    let expected = format!("error: --dir: {} is a file, expected a folder\n", file.display());
    fails(&init(&file, &[], &[]), 2, &expected);
}

#[test]
fn it_writes_a_small_config_and_secrets_for_one_user_only() {
    let dir = Dir::new("init").expect("a folder");
    let output = init(dir.path(), &[], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    let all = ["alertmanager.yml", "api_token", "prompt-rollback.service", "prompt-rollback.toml"];
    let rest = ["prompt_server_password", "redis_password", "users.acl", "webhook_token"];
    assert_eq!(names(dir.path()), [all, rest].concat());
    for name in names(dir.path()) {
        let mode = fs::metadata(dir.path().join(&name)).expect("metadata").permissions().mode() & 0o777;
        assert!(!SECRETS.contains(&name.as_str()) || mode == 0o600, "{name}: {mode:o}");
    }
    let secrets = SECRETS.map(|name| read(dir.path(), name));
    for (at, secret) in secrets.iter().enumerate() {
        assert!(secret.len() == 32 && !secrets[..at].contains(secret), "not random");
        for name in all.into_iter().chain(rest).filter(|name| !SECRETS.contains(name)) {
            assert!(!read(dir.path(), name).contains(secret), "{name} has a secret");
        }
        assert!(!told.contains(secret), "a secret is shown");
    }
    let config = read(dir.path(), "prompt-rollback.toml");
    assert!(config.contains("listen = \"127.0.0.1:8000\"") && config.lines().count() < 20, "{config}");
    let file = dir.path().join("prompt-rollback.toml");
    let checked = program(&["check", "--config", file.to_str().expect("UTF-8")]).output().expect("runs");
    assert_eq!((checked.status.code(), stdout(&checked).as_str()), (Some(0), "config: ok\n"), "{}", stderr(&checked));
    let file = dir.path().join("alertmanager.yml");
    let checked = Command::new("amtool").arg("check-config").arg(file).output().expect("amtool");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    // elsewhere, Alertmanager uses a name, and the receiver listens on all addresses
    let other = dir.path().join("other");
    let output =
        init(&other, &[("--receiver-url", "http://receiver:8000"), ("--alertmanager-url", "http://am:9093")], &[]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    assert!(read(&other, "prompt-rollback.toml").contains("listen = \"0.0.0.0:8000\""));
    assert!(read(&other, "alertmanager.yml").contains("url: http://receiver:8000/webhooks/alertmanager"));
    // and loopback does not lead from there to the receiver
    let output = init(&dir.path().join("third"), &[("--alertmanager-url", "http://am:9093")], &[]);
    let warning = "warning: http://127.0.0.1:8000 is the receiver only for programs on the same machine, but Alertmanager is at http://am:9093\n";
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), warning));
    // a warning that cannot be written stops nothing
    let fourth = dir.path().join("fourth");
    let arguments = ON_A_HOST.map(|one| if one == "http://127.0.0.1:9093" { "http://am:9093" } else { one });
    let arguments = [&["init", "--dir", fourth.to_str().expect("UTF-8")], &arguments[..]].concat();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = program(&arguments).stderr(writer).output().expect("runs");
    assert_eq!((output.status.code(), names(&fourth).is_empty()), (Some(0), false), "{}", stdout(&output));
}

#[test]
fn nothing_is_overwritten_without_force_and_secrets_never() {
    let dir = Dir::new("init").expect("a folder");
    dir.write("prompt-rollback.toml", "# mine\n").expect("written");
    let output = init(dir.path(), &[], &[]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let expected =
        "already has prompt-rollback.toml; nothing was written. Choose another --dir, or overwrite them with --force";
    assert!(error.contains(expected), "{error}");
    assert_eq!((names(dir.path()).len(), read(dir.path(), "prompt-rollback.toml").as_str()), (1, "# mine\n"));

    assert_eq!(init(dir.path(), &[], &["--force"]).status.code(), Some(0));
    let written = |name: &str| read(dir.path(), name);
    assert!(written("prompt-rollback.toml").contains("[redis]"));
    let before = SECRETS.map(written);
    let (acl, mode) = (written("users.acl"), dir.path().join("api_token"));
    assert_eq!(init(dir.path(), &[("--redis-url", "redis://redis:6379")], &["--force"]).status.code(), Some(0));
    assert_eq!((SECRETS.map(written), written("users.acl")), (before, acl), "the same secrets");
    assert!(written("prompt-rollback.toml").contains("redis://redis:6379"));
    // a secret that somebody has emptied
    fs::write(mode, "\n").expect("written");
    let output = init(dir.path(), &[], &["--force"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("api_token: expected a secret of at least 16 characters"), "{}", stderr(&output));
}

#[test]
fn the_next_steps_name_the_files_for_every_folder() {
    let dir = Dir::new("init").expect("a folder");
    let arguments = [&["init", "--dir", "out"], &ON_A_HOST[..]].concat();
    let output = program(&arguments).current_dir(dir.path()).output().expect("runs");
    let (told, out) = (stdout(&output), fs::canonicalize(dir.path().join("out")).expect("written"));
    for (before, name) in [("--config ", "prompt-rollback.toml"), ("_TOKEN_FILE=", "api_token")] {
        assert!(told.contains(&format!("{before}{}", out.join(name).display())), "{told}");
    }
}

#[test]
fn on_a_terminal_it_asks_five_questions_and_repeats_unclear_ones() {
    let dir = Dir::new("init").expect("a folder");
    let out = dir.path().join("out");
    let command = format!("{PROGRAM} init --dir {}", out.display());
    let run = |answers: &str| {
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script (Debian: bsdutils)");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(answers.as_bytes()).expect("answered");
        drop(stdin);
        child.wait_with_output().expect("an end")
    };
    let output = run("\nredis\nredis://redis:6379\n\nhttp://am-1:9093, http://am-2:9093\nhttp://receiver:8000\n");
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let questions = told.lines().filter(|line| line.contains('?')).count();
    assert_eq!(questions, 6, "one of five is asked again: {told}");
    assert!(told.contains("expected redis://") && told.contains("Wrote "), "{told}");
    let config = read(&out, "prompt-rollback.toml");
    for line in [
        "listen = \"0.0.0.0:8000\"",
        "url = \"redis://redis:6379\"",
        "url = \"http://127.0.0.1:9090\"",
        "urls = [\"http://am-1:9093\", \"http://am-2:9093\"]",
    ] {
        assert!(config.lines().any(|one| one == line), "{line}: {config}");
    }
}

#[test]
fn the_chart_takes_the_values_for_kubernetes() {
    let dir = Dir::new("init").expect("a folder");
    let instead = [
        ("--platform", "kubernetes"),
        ("--redis-url", "rediss://prompts.redis.example.com:6380"),
        ("--prometheus-url", "http://prometheus-operated.monitoring:9090"),
        ("--alertmanager-url", "http://am-0.monitoring:9093,http://am-1.monitoring:9093"),
        ("--receiver-url", "http://prompt-rollback.prompts.svc:8000"),
    ];
    let output = init(dir.path(), &instead, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(
        told.contains("helm upgrade --install prompt-rollback deploy/helm/prompt-rollback --namespace prompts"),
        "{told}"
    );
    // from the namespace of the receiver, so that a short name such as `redis` means the same
    for command in ["kubectl create namespace prompts\n", "| kubectl -n prompts run redis-users "] {
        let at = told.find(command).unwrap_or_else(|| panic!("{command}: {told}"));
        assert!(at < told.find("\n2. ").expect("step 2"), "{command}: {told}");
    }
    assert_eq!(told.matches("kubectl create namespace").count(), 1, "{told}");
    assert!(!told.contains("kubectl run"), "{told}");
    // the operator gives Alertmanager the token as it is in the Secret, and a header cannot hold a line feed, with which
    // earlier releases ended the file
    dir.write("webhook_token", read(dir.path(), "webhook_token") + "\n").expect("written");
    let create = told.lines().find(|line| line.contains("create secret generic")).expect("step 2");
    let kubectl = r#"kubectl() { for word; do [[ $word != *webhook_token* ]] || cat "${word##*=}"; done; }"#;
    assert_eq!(paste(&[kubectl, create]).expect("runs"), read(dir.path(), "webhook_token").trim_end());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let helm = Command::new(root.join("target/tools/bin/helm"))
        .args(["template", "prompt-rollback", "deploy/helm/prompt-rollback", "--namespace", "prompts", "--values"])
        .arg(dir.path().join("values.yaml"))
        .current_dir(root)
        .output()
        .expect("helm: run scripts/install-deps test");
    let rendered = String::from_utf8_lossy(&helm.stdout);
    assert!(helm.status.success(), "{}", String::from_utf8_lossy(&helm.stderr));
    for text in [
        "value: \"rediss://prompts.redis.example.com:6380\"",
        "value: \"http://am-0.monitoring:9093,http://am-1.monitoring:9093\"",
        "/run/secrets/prompt-rollback/redis_password",
        "port: 6380",
        "kubernetes.io/metadata.name: monitoring",
    ] {
        assert!(rendered.contains(text), "{text}: {rendered}");
    }
    // the Service is where Alertmanager looks for it
    assert!(rendered.contains("url: http://prompt-rollback.prompts.svc:8000/webhooks/alertmanager"), "{rendered}");
    assert!(read(dir.path(), "alertmanager.yml").contains("url: http://prompt-rollback.prompts.svc:8000/webhooks/"));
}

fn spawn(program: &str, dir: &Path, port: &Port, arguments: &[String]) -> Result<Process> {
    let number = port.number();
    let answers = || TcpStream::connect(("127.0.0.1", number)).is_ok();
    ProcessBuilder::new(program, dir).without_env("PROMPT_ROLLBACK_").args(arguments).spawn_until(answers)
}

/// Runs commands as a person would paste them.
fn paste(commands: &[&str]) -> Result<String> {
    let own = Path::new(PROGRAM).parent().context("a folder")?;
    let path = format!("{}:{}", own.display(), std::env::var("PATH").unwrap_or_default());
    let script = commands.join("\n");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .env("PATH", path)
        .env("USER", "ana")
        .stdin(Stdio::null())
        .output()?;
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{script}\n{told}{error}", output.status);
    Ok(told.into_owned())
}

#[test]
fn its_next_steps_lead_to_a_green_check_and_a_green_drill() -> Result<()> {
    let dir = Dir::new("init")?;
    let [redis_port, alertmanager_port, receiver_port] = [Port::claim(), Port::claim(), Port::claim()];
    let here = dir.path().display();
    let options = format!("--port {} --bind 127.0.0.1 --appendonly yes --dir {here}", redis_port.number());
    let options: Vec<String> = options.split(' ').map(str::to_owned).collect();
    let _redis = spawn("redis-server", dir.path(), &redis_port, &options)?;
    let prometheus = Prometheus::builder("{}").start()?;
    let out = dir.path().join("out");
    let [redis_url, alertmanager_url, receiver_url] = [
        format!("redis://{}", redis_port.addr()),
        format!("http://{}", alertmanager_port.addr()),
        format!("http://{}", receiver_port.addr()),
    ];
    let prometheus_url = prometheus.url();
    let instead = [
        ("--redis-url", redis_url.as_str()),
        ("--prometheus-url", &prometheus_url),
        ("--alertmanager-url", &alertmanager_url),
        ("--receiver-url", &receiver_url),
    ];
    let output = init(&out, &instead, &[]);
    ensure!(output.status.success(), "{}", stderr(&output));
    let told = stdout(&output);
    let commands: Vec<&str> = told.lines().filter(|line| line.starts_with("     ")).map(str::trim).collect();
    let of = |part: &str| commands.iter().copied().find(|line| line.contains(part)).with_context(|| told.clone());

    paste(&[of("ACL SETUSER")?])?;
    let arguments = [
        format!("--config.file={}", out.join("alertmanager.yml").display()),
        format!("--storage.path={}", dir.path().join("data").display()),
        format!("--web.listen-address={}", alertmanager_port.addr()),
        format!("--web.external-url={alertmanager_url}"),
        "--cluster.listen-address=".to_owned(),
    ];
    let _alertmanager = spawn("prometheus-alertmanager", dir.path(), &alertmanager_port, &arguments)?;
    let checked = paste(&[of("--connect")?])?;
    ensure!(checked.contains("config: ok") && !checked.contains("FAIL"), "{checked}");
    ensure!(checked.contains("redis permissions") && checked.contains(&prometheus_url), "{checked}");

    let config = out.join("prompt-rollback.toml").display().to_string();
    let arguments = ["serve".to_owned(), "--config".to_owned(), config];
    let _receiver = spawn(PROGRAM, dir.path(), &receiver_port, &arguments)?;
    let own = out.join("alertmanager.yml").display().to_string();
    let check = of("--alertmanager-config")?;
    let merged = check.replace("/etc/prometheus/alertmanager.yml", &own);
    let merged = paste(&[&format!("{merged} || true")])?;
    ensure!(!merged.contains("@@"), "the routes need no line more: {merged}");
    // and somebody who has a config gets it by the same commands
    let theirs = dir.write(
        "theirs.yml",
        "route:\n  receiver: mail\nreceivers:\n  - name: mail\n    webhook_configs: [{url: 'http://mail'}]\n",
    )?;
    let theirs = theirs.display().to_string();
    let commands = [of("sudo install -m 0640")?, check, of("sudo patch ")?];
    let commands = commands.map(|line| line.replace("/etc/prometheus/alertmanager.yml", &theirs));
    let commands = commands.map(|line| line.replace("/etc/prometheus/", &format!("{here}/")));
    let sudo = "sudo() { \"$@\"; }; install() { command install \"${@:1:2}\" \"${@:5}\"; }; set +o pipefail";
    let patched = paste(&[sudo, &commands[0], &commands[1], &commands[2]])?;
    ensure!(patched.contains("patching file"), "{patched}");
    let patched = fs::read_to_string(&theirs)?;
    ensure!(patched.contains(&format!("url: {receiver_url}/webhooks/alertmanager")), "{patched}");
    ensure!(
        patched.contains("credentials_file: webhook_token") && dir.path().join("webhook_token").exists(),
        "{patched}"
    );
    let drilled = paste(&[of("export PROMPT_ROLLBACK_URL")?, of(" register ")?, of(" drill ")?])?;
    ensure!(drilled.contains("the test alert arrived end to end"), "{drilled}");
    Ok(())
}
