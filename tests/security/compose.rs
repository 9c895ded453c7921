//! Which containers of docker-compose.yml can reach each other, and what they run in a shell.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::Dir;

use super::dockerfile::{file, root};

/// The parts of a block that is indented by two spaces more than its heading: each name, and the lines below it.
fn block(text: &str, heading: &str) -> BTreeMap<String, Vec<String>> {
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = String::new();
    for line in lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
        match line.strip_prefix("  ").filter(|rest| !rest.starts_with([' ', '#'])) {
            Some(name) => {
                last = name.trim_end_matches(':').to_owned();
                found.insert(last.clone(), Vec::new());
            }
            None => found.entry(last.clone()).or_default().push(line.trim().to_owned()),
        }
    }
    found.remove("");
    found
}

#[test]
fn only_who_must_speak_to_each_other_share_a_network() -> Result<()> {
    let text = file("docker-compose.yml")?;
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (service, lines) in block(&text, "services:") {
        let networks = lines.iter().find_map(|line| line.strip_prefix("networks: [")?.strip_suffix(']'));
        let networks = networks.with_context(|| format!("{service} is in the default network, with all others"))?;
        for network in networks.split(", ") {
            members.entry(network.to_owned()).or_default().push(service.clone());
        }
    }
    let mut pairs = BTreeSet::new();
    for services in members.values() {
        for (at, one) in services.iter().enumerate() {
            pairs.extend(services[at + 1..].iter().map(|other| format!("{one} {other}")));
        }
    }
    let expected = [
        "alertmanager prometheus",
        "alertmanager receiver",
        "first-version receiver",
        "grafana prometheus",
        "prometheus prompt-server",
        "prometheus receiver",
        "prompt-server redis",
        "receiver redis",
    ];
    assert_eq!(pairs, expected.map(str::to_owned).into());

    let networks = block(&text, "networks:");
    assert_eq!(networks.keys().collect::<Vec<_>>(), members.keys().collect::<Vec<_>>());
    for (network, services) in members.iter().filter(|(_, services)| services.iter().any(|one| one == "redis")) {
        let internal = networks[network].iter().any(|line| line == "internal: true");
        assert!(internal, "{network}: nothing outside reaches {services:?}, or is reached by it");
    }
    Ok(())
}

/// The lines from the one after `first` to the one that starts with `end`.
fn between(lines: &[String], first: &str, end: &str) -> Vec<String> {
    let lines = lines.iter().skip_while(|line| *line != first).skip(1);
    lines.take_while(|line| !line.starts_with(end)).cloned().collect()
}

#[test]
fn the_shells_trim_secrets_as_the_receiver_does() -> Result<()> {
    const SECRET: &str = "s3 cr@e/t?#%";
    const HASH: &str = "633879c732e18d2d0626fa4f09bf35993a09bf3514ae308d2fab4b63c8bbe6ad";
    const IN_A_URL: &str = "s3%20cr%40e%2Ft%3F%23%25";
    let text = file("docker-compose.yml")?;
    let trim = text.lines().find_map(|line| line.strip_prefix("  TRIM: '")?.strip_suffix('\''));
    let trim = trim.context("TRIM")?.replace("$$", "$");
    let services = block(&text, "services:");
    let redis = between(&services["redis"], "- |", "secrets:").join("\n");
    let health_check = between(&services["redis"], "test: >-", "interval:").join(" ");
    let server = between(&services["prompt-server"], "- |", "secrets:").join("\n");

    let dir = Dir::new("shells")?;
    for (name, prints) in [
        ("redis-server", "cat \"$3\""),
        ("redis-cli", "echo \"$REDISCLI_AUTH\""),
        ("python", "[ \"$1\" != -c ] || exec python3 \"$@\"\necho \"$REDIS_URL\""),
    ] {
        let program = dir.write(format!("bin/{name}"), format!("#!/bin/sh\n{prints}\n"))?;
        fs::set_permissions(program, PermissionsExt::from_mode(0o755))?;
    }
    let here = dir.path().display().to_string();
    let path = format!("{here}/bin:{}", std::env::var("PATH")?);
    let run = |script: &str| -> Result<String> {
        let script = script.replace("$$", "$").replace("/tmp/users.acl", &format!("{here}/users.acl"));
        let script = script.replace("/etc/redis/users.acl", &root().join("config/users.acl").display().to_string());
        let script = script.replace("/run/secrets", &format!("{here}/secrets"));
        let mut shell = Command::new("sh");
        shell.args(["-euc", &script]).env("PATH", &path).env("TRIM", &trim).env("LC_CTYPE", "C.UTF-8");
        let output = shell.output()?;
        ensure!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    for (before, after) in
        [("", ""), ("", "\n"), (" \t", " \r\n"), ("\u{feff}", "\r\n"), ("\n \u{feff} ", "\u{feff} \n\n")]
    {
        let secret = format!("{before}{SECRET}{after}");
        for name in ["redis_receiver_password", "redis_prompt_server_password"] {
            dir.write(format!("secrets/{name}"), &secret)?;
        }
        let users = run(&redis)?;
        assert_eq!(users.matches(&format!("#{HASH} ")).count(), 2, "{secret:?}: {users}");
        assert_eq!(run(&health_check)?, format!("{SECRET}\n"), "{secret:?}");
        assert_eq!(run(&server)?, format!("redis://prompt-server:{IN_A_URL}@redis:6379\n"), "{secret:?}");
    }
    Ok(())
}
