//! `init`: writes the files with which a receiver joins a Redis, a Prometheus and an Alertmanager that exist already.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use clap::ValueEnum;
use hyper::Uri;
use sha2::{Digest, Sha256};

use super::CommandError;
use super::args::{InitArgs, Platform};
use super::stack::whole;
use crate::config::{Config, bare, decode};

/// The shipped files that `init` fills in.
const USERS: &str = include_str!("../../config/users.acl");
const UNIT: &str = include_str!("../../packaging/deb/prompt-rollback.service");
const SYSTEM_USER: &str = include_str!("../../packaging/sysusers.d/prompt-rollback.conf");
const VALUES: &str = include_str!("../../deploy/helm/values/init.yaml");

const SECRETS: [&str; 4] = ["webhook_token", "api_token", "redis_password", "prompt_server_password"];
const SECRET_MODE: u32 = 0o600;
const MODE: u32 = 0o644;
/// For HTTPS, so for Slack.
const HTTPS: u16 = 443;

/// What the five questions ask for.
struct Answers {
    platform: Platform,
    redis: String,
    prometheus: String,
    alertmanagers: Vec<String>,
    receiver: ReceiverAddress,
}

/// Where Alertmanager reaches the receiver: `http://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ReceiverAddress {
    host: String,
    port: u16,
}

impl ReceiverAddress {
    fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// On a loopback address if Alertmanager uses one, and on all addresses otherwise.
    fn listen(&self) -> SocketAddr {
        let any = match host_ip(&self.host) {
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(loopback(&self.host).unwrap_or(any), self.port)
    }

    /// Release and namespace, by the name that the chart gives its Service.
    fn service(&self) -> Option<(&str, &str)> {
        let mut labels = self.host.split('.');
        let found = (labels.next()?, labels.next()?);
        // the chart cuts longer names
        let fits = found.0.contains("prompt-rollback") && found.0.len() <= 50;
        (labels.next() == Some("svc") && fits && self.port == 8000).then_some(found)
    }
}

/// A file to write.
struct OutputFile {
    name: &'static str,
    text: String,
}

/// Asks what no flag says, writes the files, and returns the next steps.
pub fn run(args: &InitArgs) -> Result<String, CommandError> {
    let answers = ask(args)?;
    let existing = existing(args)?;
    let secrets = secrets(&args.dir)?;
    let outputs = outputs(&answers, &secrets);
    let create = |error: io::Error| CommandError::Failed(format!("cannot create {}: {error}", args.dir.display()));
    fs::create_dir_all(&args.dir).map_err(create)?;
    let mut written = Vec::new();
    for (name, secret) in SECRETS.iter().zip(&secrets) {
        if !existing.contains(name) {
            write(&args.dir.join(name), &format!("{secret}\n"), SECRET_MODE)?;
            written.push(*name);
        }
    }
    for output in &outputs {
        write(&args.dir.join(output.name), &output.text, MODE)?;
        written.push(output.name);
    }
    Ok(format!("Wrote {} to {}.\n{}", written.join(", "), args.dir.display(), steps(&answers, &args.dir)))
}

fn ask(args: &InitArgs) -> Result<Answers, CommandError> {
    let given = [
        ("--platform", args.platform.is_some()),
        ("--redis-url", args.redis_url.is_some()),
        ("--prometheus-url", args.prometheus_url.is_some()),
        ("--alertmanager-url", args.alertmanager_url.is_some()),
        ("--receiver-url", args.receiver_url.is_some()),
    ];
    let missing: Vec<&str> = given.iter().filter(|(_, is_given)| !is_given).map(|(flag, _)| *flag).collect();
    if !missing.is_empty() && !io::stdin().is_terminal() {
        let missing = missing.join(", ");
        return Err(CommandError::Misused(format!("expected {missing}: without a terminal, init asks no questions")));
    }
    let platform = match args.platform {
        Some(platform) => platform,
        None => question("What runs the receiver, systemd or kubernetes?", "systemd", platform)?,
    };
    let in_cluster = platform == Platform::Kubernetes;
    let usual = |on_host: &'static str, in_pod: &'static str| if in_cluster { in_pod } else { on_host };
    let redis = answer(
        args.redis_url.as_deref(),
        "--redis-url",
        "At which URL does the receiver reach Redis? Without user and password.",
        usual("redis://127.0.0.1:6379", "redis://redis:6379"),
        |text| redis_url(text, platform),
    )?;
    let prometheus = answer(
        args.prometheus_url.as_deref(),
        "--prometheus-url",
        "At which URL does the receiver reach Prometheus?",
        usual("http://127.0.0.1:9090", "http://prometheus-operated.monitoring:9090"),
        |text| base_url("prometheus.url", "prometheus", "url", text),
    )?;
    let alertmanagers = answer(
        args.alertmanager_url.as_ref().map(|urls| urls.join(",")).as_deref(),
        "--alertmanager-url",
        "At which URL does the receiver reach Alertmanager? With several, name each, comma-separated.",
        usual("http://127.0.0.1:9093", "http://alertmanager-operated.monitoring:9093"),
        alertmanager_urls,
    )?;
    let near = alertmanagers.iter().all(|url| is_near(url));
    let suggested = match platform {
        Platform::Kubernetes => "http://prompt-rollback.prompts.svc:8000".to_owned(),
        Platform::Systemd if near => "http://127.0.0.1:8000".to_owned(),
        Platform::Systemd => format!("http://{}:8000", host_name().unwrap_or_else(|| "receiver".to_owned())),
    };
    let receiver = answer(
        args.receiver_url.as_deref(),
        "--receiver-url",
        "At which URL does Alertmanager reach the receiver? 127.0.0.1 only if both run on one machine, outside of containers.",
        &suggested,
        |text| address(text, platform),
    )?;
    if loopback(&receiver.host).is_some() && !near {
        eprintln!(
            "warning: {} is the receiver only for programs on the same machine, but Alertmanager is at {}",
            receiver.url(),
            alertmanagers.join(", ")
        );
    }
    Ok(Answers { platform, redis, prometheus, alertmanagers, receiver })
}

/// The value of a flag, or what a person answers.
fn answer<T>(
    given: Option<&str>,
    flag: &str,
    text: &str,
    usual: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, CommandError> {
    match given {
        Some(given) => read(given).map_err(|why| CommandError::Misused(format!("{flag}: {why}"))),
        None => question(text, usual, read),
    }
}

/// Asks until the answer is valid. No answer means the usual one.
fn question<T>(text: &str, usual: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, CommandError> {
    let failed = |error: io::Error| CommandError::Failed(format!("cannot ask: {error}"));
    loop {
        let mut screen = io::stderr().lock();
        write!(screen, "{text}\n[{usual}] ").and_then(|()| screen.flush()).map_err(failed)?;
        let mut line = String::new();
        if io::stdin().read_line(&mut line).map_err(failed)? == 0 {
            return Err(CommandError::Failed(
                "the input has ended before the last question; nothing was written".to_owned(),
            ));
        }
        let line = line.trim();
        match read(if line.is_empty() { usual } else { line }) {
            Ok(value) => return Ok(value),
            Err(why) => writeln!(screen, "{}", super::table::clean(&why)).map_err(failed)?,
        }
    }
}

fn platform(text: &str) -> Result<Platform, String> {
    Platform::from_str(text, true).map_err(|_| format!("found {text:?}, expected systemd or kubernetes"))
}

/// What is wrong with this value of a key, in the words of the config.
fn problem(key: &str, config: &str) -> Option<String> {
    let error = Config::parse(config, None, std::iter::empty()).err()?;
    error.problems.into_iter().find(|problem| problem.key == key).map(|problem| problem.message)
}

fn visible(text: &str) -> Result<(), String> {
    let fits = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    if fits { Ok(()) } else { Err("expected a URL of visible ASCII characters".to_owned()) }
}

fn redis_url(text: &str, platform: Platform) -> Result<String, String> {
    if text.split('/').nth(2).is_some_and(|authority| authority.contains('@')) {
        // not quoted: it may hold a password
        return Err("expected a URL without user and password: init creates the users and their passwords".to_owned());
    }
    let socket =
        if platform == Platform::Systemd { ", or redis+unix:///PATH" } else { "; a pod has no socket of Redis" };
    let expected = || format!("expected redis://HOST:PORT or rediss://HOST:PORT (TLS){socket}");
    if visible(text).is_err() || platform == Platform::Kubernetes && text.starts_with("redis+unix:") {
        return Err(expected());
    }
    match problem("redis.url", &format!("[redis]\nurl = {}\n", quoted(text))) {
        None => Ok(text.to_owned()),
        // its own words speak of users and passwords
        Some(_) => Err(expected()),
    }
}

fn base_url(key: &str, section: &str, name: &str, text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected http://HOST:PORT or https://…, without user, password and query";
    if text.contains('@') || text.is_empty() {
        return Err(EXPECTED.to_owned());
    }
    visible(text)?;
    let list = name == "urls";
    let value = if list { format!("[{}]", quoted(text)) } else { quoted(text) };
    match problem(key, &format!("[{section}]\n{name} = {value}\n")) {
        None => Ok(text.trim_end_matches('/').to_owned()),
        Some(why) => Err(why),
    }
}

fn alertmanager_urls(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(|url| base_url("alertmanager.urls", "alertmanager", "urls", url.trim())).collect()
}

fn address(text: &str, platform: Platform) -> Result<ReceiverAddress, String> {
    let uri: Option<Uri> = text.parse().ok();
    let plain = uri.as_ref().filter(|uri| {
        let bare = uri.path() == "/" && uri.query().is_none() && !text.contains('@');
        bare && uri.scheme_str() == Some("http")
    });
    let found = plain.and_then(|uri| Some(ReceiverAddress { host: uri.host()?.to_owned(), port: uri.port_u16()? }));
    let found = found.filter(|address| address.port > 0 && !address.host.is_empty());
    let found = found.ok_or("expected http://HOST:PORT; docs/operations.md explains how to add TLS afterwards")?;
    if host_ip(&found.host).is_some_and(|ip| ip.is_unspecified()) {
        return Err(format!("found {}, which is an address to listen on: expected the receiver's name", found.host));
    }
    if platform == Platform::Systemd && found.port < 1024 {
        return Err(format!(
            "found the port {}, expected at least 1024: the service runs without privileges",
            found.port
        ));
    }
    if platform == Platform::Kubernetes && found.service().is_none() {
        let why = "the chart's Service has the port 8000 and the name of the release";
        return Err(format!(
            "expected http://NAME.NAMESPACE.svc:8000 with a NAME of at most 50 characters that contains prompt-rollback: {why}"
        ));
    }
    Ok(found)
}

fn host_ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The loopback address that a host stands for, if it is one.
fn loopback(host: &str) -> Option<IpAddr> {
    if host.eq_ignore_ascii_case("localhost") {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    host_ip(host).filter(IpAddr::is_loopback)
}

fn is_near(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    uri.as_ref().and_then(Uri::host).is_some_and(|host| loopback(host).is_some())
}

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    fits.then(|| name.to_owned())
}

/// The files that are there already. An error without --force.
fn existing(args: &InitArgs) -> Result<Vec<&'static str>, CommandError> {
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
fn secrets(dir: &Path) -> Result<[String; 4], CommandError> {
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

fn outputs(answers: &Answers, secrets: &[String; 4]) -> Vec<OutputFile> {
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

/// A string in TOML, and in YAML.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn list(texts: &[String]) -> String {
    texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ")
}

/// Replaces a file that exists, instead of writing through a link or into a file that others can read.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CommandError> {
    let failed = |error: io::Error| CommandError::Failed(format!("cannot write {}: {error}", path.display()));
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path).map_err(failed)?;
    }
    let file: io::Result<File> = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

fn steps(answers: &Answers, dir: &Path) -> String {
    let dir = shell(&dir.display().to_string());
    let redis = match answers.redis.strip_prefix("redis+unix://") {
        Some(socket) => format!("-s {}", shell(socket.split('?').next().unwrap_or_default())),
        None => format!("-u {}", shell(&answers.redis)),
    };
    let (load, login) = match answers.platform {
        Platform::Systemd => (
            format!(
                "grep -v '^user default' {dir}/users.acl | while read -r _ rules; do (set -f; redis-cli {redis} ACL SETUSER $rules); done"
            ),
            "read -rsp 'password: ' REDISCLI_AUTH; export REDISCLI_AUTH   # then the line above, with redis-cli --user ADMIN"
                .to_owned(),
        ),
        // from a pod, which reaches Redis by the address that the receiver uses
        Platform::Kubernetes => {
            let users = format!("sed -n '/^user default/d; s/^user /ACL SETUSER /p' {dir}/users.acl");
            let run = format!(
                "kubectl run redis-users --rm -i --quiet --restart=Never --image=redis:8 -- redis-cli {redis}"
            );
            let login = format!(
                "read -rsp 'password: ' p; (printf 'AUTH ADMIN %s\\n' \"$p\"; {users}) | {run}"
            );
            (format!("{users} | {run}"), login)
        }
    };
    let mut users = format!(
        "1. Redis: load the two users. Add their lines from users.acl to Redis' ACL file or, if it has none, to redis.conf itself.\n\
         \x20  A new `aclfile` makes Redis ignore `requirepass`. After a restart of Redis, run `check --connect` again (see below):\n\n\
         \x20    {load}\n\n\
         \x20  If Redis answers `ERR Protocol error: unauthenticated multibulk length`, log in as an administrator, here ADMIN:\n\n\
         \x20    {login}\n",
    );
    if answers.redis.starts_with("rediss:") {
        users.push_str(
            "\n   If a private CA has signed Redis' certificate, give redis-cli --cacert FILE, and set redis.tls_ca_file.\n",
        );
    }
    if !answers.redis.starts_with("redis+unix:") {
        users.push_str(
            "\n   With Sentinel or Cluster, load the users on every node, give `receiver` +role and, with Cluster, also +cluster|nodes,\n\
             \x20  and set the keys that docs/operations.md names.\n",
        );
    }
    let url = answers.receiver.url();
    let rest = match answers.platform {
        Platform::Systemd => {
            let system_user = SYSTEM_USER.lines().find(|line| line.starts_with("u ")).unwrap_or_default();
            let local = format!("http://127.0.0.1:{}", answers.receiver.port);
            let of_socket = "     sudo usermod -aG redis prompt-rollback   # the group of Redis' socket\n";
            let socket = if answers.redis.starts_with("redis+unix:") { of_socket } else { "" };
            let quoted_url = shell(&url);
            let own = if answers.receiver.listen().ip().is_loopback() { url.as_str() } else { local.as_str() };
            format!(
                "2. Check the config, every connection and every permission:\n\n\
                 \x20    prompt-rollback check --config {dir}/prompt-rollback.toml --connect\n\n\
                 3. Start the receiver, which listens at {}. With the Debian package, omit the first three commands:\n\n\
                 \x20    echo '{system_user}' | sudo systemd-sysusers -\n\
                 \x20    sudo install -m 0644 -D -t /etc/systemd/system {dir}/prompt-rollback.service && sudo install -D -t /usr/bin \"$(command -v prompt-rollback)\"\n\
                 \x20    sudo install -d -m 0750 -g prompt-rollback /etc/prompt-rollback\n\
                 \x20    (cd {dir} && sudo install -m 0600 -o prompt-rollback -t /etc/prompt-rollback prompt-rollback.toml webhook_token api_token redis_password)\n\
                 {socket}\x20    sudo systemctl enable --now prompt-rollback\n\n\
                 4. Prometheus: start it with --rules.alert.resend-delay=5s and --rules.alert.for-grace-period=10s, load alert-rules/,\n\
                 \x20  and scrape the receiver and your prompt servers: docs/your-stack/plain-hosts.md\n\n\
                 5. Alertmanager reaches the receiver at {url}. The first command puts the token beside Alertmanager's config,\n\
                 \x20  which is /etc/prometheus/alertmanager.yml in Debian; the second prints the missing lines, and the third adds them.\n\
                 \x20  If you have no config yet, use {dir}/alertmanager.yml. Then reload Alertmanager:\n\n\
                 \x20    sudo install -m 0640 -g prometheus {dir}/webhook_token /etc/prometheus/webhook_token\n\
                 \x20    prompt-rollback check --config {dir}/prompt-rollback.toml --receiver-url {quoted_url} --alertmanager-config /etc/prometheus/alertmanager.yml | tee {dir}/findings\n\
                 \x20    sudo patch /etc/prometheus/alertmanager.yml {dir}/findings\n\n\
                 6. Run a drill:\n\n\
                 \x20    export PROMPT_ROLLBACK_URL={own} PROMPT_ROLLBACK_TOKEN_FILE={dir}/api_token\n\
                 \x20    prompt-rollback register customer-support v1.9.0 --known-good --first\n\
                 \x20    prompt-rollback drill customer-support\n\n\
                 Prompt servers log in to Redis as prompt-server, with the password in {dir}/prompt_server_password.\n",
                answers.receiver.listen(),
            )
        }
        Platform::Kubernetes => {
            let (release, namespace) = answers.receiver.service().unwrap_or(("prompt-rollback", "prompts"));
            let exec = format!("kubectl -n {namespace} exec deploy/{release} -- prompt-rollback");
            format!(
                "2. Create the Secret from these files:\n\n\
                 \x20    kubectl create namespace {namespace}\n\
                 \x20    (cd {dir} && kubectl -n {namespace} create secret generic prompt-rollback --from-file=webhook_token --from-file=api_token --from-file=redis_password)\n\n\
                 3. In a checkout of the repository, with image.repository and operator.labels set in values.yaml:\n\n\
                 \x20    helm upgrade --install {release} deploy/helm/prompt-rollback --namespace {namespace} --values {dir}/values.yaml\n\
                 \x20    {exec} check --config /etc/prompt-rollback/prompt-rollback.toml --connect\n\n\
                 4. Prometheus: set --rules.alert.resend-delay=5s and --rules.alert.for-grace-period=10s. Alertmanager reaches the\n\
                 \x20  receiver at {url}. With the Prometheus operator, the chart has added the routes:\n\
                 \x20  docs/your-stack/kubernetes.md explains the flags, the routes and the namespace trap. Otherwise merge\n\
                 \x20  {dir}/alertmanager.yml into yours.\n\n\
                 5. Run a drill:\n\n\
                 \x20    {exec} register customer-support v1.9.0 --known-good --first --operator \"$USER\"\n\
                 \x20    {exec} drill customer-support --operator \"$USER\"\n\n\
                 Prompt servers log in to Redis as prompt-server, with the password in {dir}/prompt_server_password.\n"
            )
        }
    };
    format!("\n{users}\n{rest}")
}

/// A word of a shell.
fn shell(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/:._-+=,@".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
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
    fn alertmanagers_address_of_the_receiver_decides_where_it_listens() {
        for (url, listen) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://localhost:8001/", "127.0.0.1:8001"),
            ("http://[::1]:8000", "[::1]:8000"),
            ("http://receiver:8000", "0.0.0.0:8000"),
            ("http://10.0.0.7:8080", "0.0.0.0:8080"),
            ("http://[2001:db8::7]:8000", "[::]:8000"),
        ] {
            let address = address(url, Platform::Systemd).expect(url);
            assert_eq!(address.listen().to_string(), listen, "{url}");
        }
        for url in [
            "",
            "receiver:8000",
            "http://receiver",
            "https://receiver:8000",
            "http://a:1/x",
            "http://u:p@a:1",
            "http://a:0",
        ] {
            let why = address(url, Platform::Systemd).expect_err(url);
            assert!(why.contains("expected http://HOST:PORT") && !why.contains("u:p"), "{url}: {why}");
        }
        let why = address("http://10.0.0.7:80", Platform::Systemd).expect_err("the service has no privileges");
        assert!(why.contains("at least 1024"), "{why}");
        let why = address("http://0.0.0.0:8000", Platform::Systemd).expect_err("it is no address of a peer");
        assert!(why.contains("an address to listen on"), "{why}");
        let cluster = |url| address(url, Platform::Kubernetes);
        let found = cluster("http://my-prompt-rollback.team-a.svc.cluster.local:8000").expect("a Service");
        assert_eq!(found.service(), Some(("my-prompt-rollback", "team-a")));
        for url in ["http://receiver:8000", "http://prompt-rollback.prompts.svc:80", "http://other.prompts.svc:8000"] {
            assert!(cluster(url).is_err(), "{url}");
        }
    }

    #[test]
    fn urls_are_judged_as_the_config_judges_them_and_no_password_is_repeated() {
        for (url, fits_pods) in [("rediss://redis:6380", true), ("redis+unix:///run/redis.sock", false)] {
            assert_eq!(redis_url(url, Platform::Systemd).as_deref(), Ok(url));
            assert_eq!(redis_url(url, Platform::Kubernetes).is_ok(), fits_pods, "{url}");
        }
        for url in ["", "redis:6379", "http://redis:6379", "redis://user:hunter2@redis:6379", "redis+unix://"] {
            for platform in [Platform::Systemd, Platform::Kubernetes] {
                let why = redis_url(url, platform).expect_err(url);
                assert!(why.starts_with("expected ") && !why.contains("hunter2"), "{url}: {why}");
                assert!(!why.contains("user:"), "{url}: {why}");
            }
        }
        assert_eq!(alertmanager_urls("http://a:9093, https://b/am/").unwrap(), ["http://a:9093", "https://b/am"]);
        for urls in ["", "http://a:9093,", "a:9093", "http://a:9093?x=1", "http://u:hunter2@a:9093"] {
            let why = alertmanager_urls(urls).expect_err(urls);
            assert!(why.contains("expected http://") && !why.contains("hunter2"), "{urls}: {why}");
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
