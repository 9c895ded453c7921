//! The files, filled in with the answers.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hyper::Uri;
use sha2::{Digest, Sha256};

use super::questions::{Answers, host_ip};
use super::quoted;
use crate::cli::args::{InitArgs, Platform};
use crate::cli::stack::whole;
use crate::cli::terminal::CommandError;
use crate::config::{Config, bare, decode};

/// The shipped files that `init` fills in.
const USERS: &str = include_str!("../../../config/users.acl");
const UNIT: &str = include_str!("../../../packaging/deb/prompt-rollback.service");
const VALUES: &str = include_str!("../../../deploy/helm/values/init.yaml");

pub(super) const SECRETS: [&str; 4] = ["webhook_token", "api_token", "redis_password", "prompt_server_password"];
pub(super) const SECRET_MODE: u32 = 0o600;
pub(super) const MODE: u32 = 0o644;
/// For HTTPS, so for Slack.
const HTTPS: u16 = 443;

/// A file to write.
pub(super) struct OutputFile {
    pub name: &'static str,
    pub text: String,
}

/// The files that are there already. An error without --force.
pub(super) fn existing(args: &InitArgs) -> Result<Vec<&'static str>, CommandError> {
    let of_platform =
        ["prompt-rollback.toml", "prompt-rollback.service", "values.yaml", "users.acl", "alertmanager.yml"];
    if fs::metadata(&args.dir).is_ok_and(|found| !found.is_dir()) {
        return Err(CommandError::Misused(format!("--dir: {} is a file, expected a folder", args.dir.display())));
    }
    let names = SECRETS.into_iter().chain(of_platform);
    // a link that leads nowhere is there, too
    let found: Vec<&str> = names.filter(|name| args.dir.join(name).symlink_metadata().is_ok()).collect();
    if found.is_empty() || args.force {
        return Ok(found);
    }
    let dir = args.dir.display();
    Err(CommandError::Failed(format!(
        "{dir} already has {}; nothing was written. Choose another --dir, or overwrite them with --force, which keeps secrets",
        found.join(", ")
    )))
}

/// The secrets of this folder: those that exist, and new ones.
pub(super) fn secrets(dir: &Path) -> Result<[String; 4], CommandError> {
    let mut secrets = [const { String::new() }; 4];
    for (name, secret) in SECRETS.iter().zip(&mut secrets) {
        let path = dir.join(name);
        *secret = match fs::read(&path) {
            Ok(bytes) => {
                let text = decode(&bytes).map(bare).map_err(str::to_owned);
                let text = text.and_then(|text| match crate::config::unfit(text) {
                    None if text.len() < 16 => Err("expected a secret of at least 16 characters".to_owned()),
                    None => Ok(text.to_owned()),
                    Some(why) => Err(why),
                });
                text.map_err(|why| CommandError::Failed(format!("{}: {why}", path.display())))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => new_secret()?,
            Err(error) => return Err(CommandError::Failed(format!("cannot read {}: {error}", path.display()))),
        };
    }
    Ok(secrets)
}

fn new_secret() -> Result<String, CommandError> {
    let mut bytes = [0; 16];
    let random = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    random.map_err(|_| CommandError::Failed("the system has no random numbers".to_owned()))?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn outputs(answers: &Answers, secrets: &[String; 4]) -> Vec<OutputFile> {
    let [_, _, redis_password, prompt_server_password] = secrets;
    let users = USERS
        .replace("RECEIVER_PASSWORD_SHA256", &hex(&Sha256::digest(redis_password)))
        .replace("PROMPT_SERVER_PASSWORD_SHA256", &hex(&Sha256::digest(prompt_server_password)));
    let users = if database(&answers.redis) == "0" { users } else { with_select(&users) };
    let url = answers.receiver.url();
    let alertmanager = format!(
        "# The routes and the receiver of prompt-rollback at {url}, by `prompt-rollback init`. The file webhook_token belongs\n\
         # beside this file. If your Alertmanager has a config already, do not replace it: see docs/your-stack/alertmanager.md.\n\n{}",
        whole(&Config::default(), &url)
    );
    let mut outputs = vec![
        OutputFile { name: "users.acl", text: users },
        OutputFile { name: "alertmanager.yml", text: alertmanager },
    ];
    outputs.extend(match answers.platform {
        Platform::Systemd => vec![
            OutputFile { name: "prompt-rollback.toml", text: config(answers) },
            OutputFile { name: "prompt-rollback.service", text: UNIT.to_owned() },
        ],
        Platform::Kubernetes => vec![OutputFile { name: "values.yaml", text: values(answers) }],
    });
    outputs
}

fn config(answers: &Answers) -> String {
    let Answers { redis, prometheus, alertmanagers, receiver, .. } = answers;
    format!(
        "# Every other key keeps its default: config/prompt-rollback.toml has them all. Paths are relative to this file.\n\
         [server]\nlisten = \"{}\"\nwebhook_token_file = \"webhook_token\"\napi_token_file = \"api_token\"\n\n\
         [redis]\nurl = {}\nusername = \"receiver\"\npassword_file = \"redis_password\"\n\n\
         [prometheus]\nurl = {}\n\n[alertmanager]\nurls = [{}]\n",
        receiver.listen(),
        quoted(redis),
        quoted(prometheus),
        list(alertmanagers),
    )
}

fn values(answers: &Answers) -> String {
    let Answers { redis, prometheus, alertmanagers, .. } = answers;
    let all = [redis, prometheus].into_iter().chain(alertmanagers);
    let mut ports: Vec<u16> = all.filter_map(|url| port(url)).chain([HTTPS]).collect();
    let mut seen = Vec::new();
    ports.retain(|port| {
        !seen.contains(port) && {
            seen.push(*port);
            true
        }
    });
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let clients = std::iter::once(prometheus).chain(alertmanagers);
    let namespaces: BTreeSet<String> = clients.filter_map(|url| namespace(url)).collect();
    let line =
        |name: &str| format!("    - namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}\n");
    let admitted = match namespaces.len() {
        0 => line("monitoring"),
        _ => namespaces.iter().map(|name| line(&quoted(name))).collect(),
    };
    VALUES
        .replace("\"redis://redis:6379\"", &quoted(redis))
        .replace("\"http://prometheus-operated.monitoring:9090\"", &quoted(prometheus))
        .replace("\"http://alertmanager-operated.monitoring:9093\"", &list(alertmanagers))
        .replace("6379, 9090, 9093, 443", &ports.join(", "))
        .replace(&line("monitoring"), &admitted)
}

fn port(url: &str) -> Option<u16> {
    let (scheme, _) = url.split_once("://")?;
    let usual = match scheme {
        "redis" | "rediss" => 6379,
        "redis+unix" => return None,
        "http" => 80,
        _ => HTTPS,
    };
    let uri: Uri = url.parse().ok()?;
    Some(uri.port_u16().unwrap_or(usual))
}

/// The number of the database in a URL of Redis, as written.
fn database(url: &str) -> &str {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let written = if url.starts_with("redis+unix:") {
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        query.split('&').find_map(|pair| pair.strip_prefix("db="))
    } else {
        rest.split('?').next().and_then(|rest| rest.split_once('/')).map(|(_, path)| path)
    };
    written.filter(|number| !number.is_empty()).unwrap_or("0")
}

/// The users without a permission for SELECT see only database 0.
fn with_select(users: &str) -> String {
    let line = |line: &str| if line.contains(" +select") { format!("{line}\n") } else { format!("{line} +select\n") };
    users.lines().map(line).collect()
}

/// The namespace of a host in a cluster: SERVICE.NAMESPACE or POD-0.SERVICE.NAMESPACE, which `.svc` may follow.
fn namespace(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host()?;
    let labels: Vec<&str> = host.split('.').collect();
    let ends_with_number =
        |label: &str| label.rsplit_once('-').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
    let of_pod = labels.first().is_some_and(|pod| ends_with_number(pod));
    let found = match labels.iter().position(|label| *label == "svc") {
        Some(at) => labels.get(at.checked_sub(1)?)?,
        None if labels.len() == 2 => labels.get(1)?,
        None if labels.len() == 3 && of_pod => labels.get(2)?,
        None => return None,
    };
    let is_name = found.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && host_ip(host).is_none();
    is_name.then(|| (*found).to_owned())
}

fn list(texts: &[String]) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")
}

/// Replaces a file that exists, instead of writing through a link or into a file that others can read.
pub(super) fn write(path: &Path, text: &str, mode: u32) -> Result<(), CommandError> {
    let failed = |error: io::Error| CommandError::Failed(format!("cannot write {}: {error}", path.display()));
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path).map_err(failed)?;
    }
    let file: io::Result<File> = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::super::questions::address;
    use super::*;

    fn answers(platform: Platform, receiver: &str) -> Answers {
        Answers {
            platform,
            redis: "rediss://redis.example.com:6380".to_owned(),
            prometheus: "https://prometheus.example.com".to_owned(),
            alertmanagers: vec!["http://a:9093".to_owned(), "http://b:9093".to_owned()],
            receiver: address(receiver, platform).expect("an address"),
        }
    }

    #[test]
    fn the_users_may_select_another_database() {
        for (url, number) in [
            ("redis://redis:6379", "0"),
            ("redis://redis:6379/", "0"),
            ("redis://redis:6379/0?protocol=resp3", "0"),
            ("rediss://redis/3", "3"),
            ("redis+unix:///run/redis.sock", "0"),
            ("redis+unix:///run/redis.sock?db=2", "2"),
        ] {
            assert_eq!(database(url), number, "{url}");
        }
        let secrets = ["a", "b", "c", "d"].map(str::to_owned);
        let mut answers = answers(Platform::Systemd, "http://receiver:8000");
        for (url, lines) in [("redis://h:6379", 1), ("redis://h:6379/3", 3)] {
            url.clone_into(&mut answers.redis);
            let outputs = outputs(&answers, &secrets);
            let users = outputs.iter().find(|output| output.name == "users.acl").expect("users");
            assert_eq!(users.text.lines().filter(|line| line.matches(" +select").count() == 1).count(), lines, "{url}");
        }
    }

    #[test]
    fn namespaces_are_read_from_names_of_services() {
        for (url, expected) in [
            ("http://prometheus-operated.monitoring:9090", Some("monitoring")),
            ("http://prometheus.observability.svc:9090", Some("observability")),
            ("http://alertmanager-main-0.alertmanager-operated.obs:9093", Some("obs")),
            ("http://alertmanager-main-0.alertmanager-operated.obs.svc.cluster.local:9093", Some("obs")),
            ("http://prometheus:9090", None),
            ("http://prometheus.example.com", None),
            ("http://10.0.0.7:9090", None),
        ] {
            assert_eq!(namespace(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn the_files_are_the_shipped_ones_with_the_answers_filled_in() {
        let secrets = ["a", "b", "c", "d"].map(str::to_owned);
        let all = |platform, url| outputs(&answers(platform, url), &secrets);
        let text = |outputs: &[OutputFile], name: &str| {
            outputs.iter().find(|output| output.name == name).map(|output| output.text.clone()).expect(name)
        };
        let host = all(Platform::Systemd, "http://receiver:8000");
        let config = text(&host, "prompt-rollback.toml");
        assert!(config.lines().filter(|line| line.contains(" = ")).count() <= 10, "{config}");
        assert!(config.contains("urls = [\"http://a:9093\", \"http://b:9093\"]"), "{config}");
        assert_eq!(text(&host, "prompt-rollback.service"), UNIT);
        let users = text(&host, "users.acl");
        assert_eq!(users.lines().count(), USERS.lines().count());
        assert!(users.contains(&hex(&Sha256::digest("c"))) && !users.contains("PASSWORD"), "{users}");
        let alertmanager = text(&host, "alertmanager.yml");
        assert!(alertmanager.contains("url: http://receiver:8000/webhooks/alertmanager"), "{alertmanager}");
        assert_eq!(alertmanager.matches("- matchers:").count(), 6, "{alertmanager}");

        let pod = all(Platform::Kubernetes, "http://prompt-rollback.prompts.svc:8000");
        let values = text(&pod, "values.yaml");
        for line in [
            "  url: \"rediss://redis.example.com:6380\"",
            "  url: \"https://prometheus.example.com\"",
            "  urls: [\"http://a:9093\", \"http://b:9093\"]",
            "  egressPorts: [6380, 443, 9093]",
            "    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}",
        ] {
            assert!(values.lines().any(|one| one == line), "{line}: {values}");
        }
        assert_eq!(pod.len(), 3);
        let mut elsewhere = answers(Platform::Kubernetes, "http://prompt-rollback.prompts.svc:8000");
        elsewhere.prometheus = "http://prometheus.obs:9090".to_owned();
        elsewhere.alertmanagers =
            vec!["http://am-0.am.alerts:9093".to_owned(), "http://am-1.am.alerts:9093".to_owned()];
        let values = super::values(&elsewhere);
        for name in ["alerts", "obs"] {
            let line =
                format!("    - namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: \"{name}\"}}}}\n");
            assert_eq!(values.matches(&line).count(), 1, "{values}");
        }
        assert!(!values.contains("monitoring"), "{values}");
    }
}
