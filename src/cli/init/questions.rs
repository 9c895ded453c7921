//! The five questions, and what their answers must be.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::ValueEnum;
use hyper::Uri;

use super::quoted;
use crate::cli::args::{InitArgs, Platform};
use crate::cli::table;
use crate::cli::terminal::CommandError;
use crate::config::Config;

/// What the five questions ask for.
pub(super) struct Answers {
    pub platform: Platform,
    pub redis: String,
    pub prometheus: String,
    pub alertmanagers: Vec<String>,
    pub receiver: ReceiverAddress,
}

/// Where Alertmanager reaches the receiver: `http://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReceiverAddress {
    pub host: String,
    pub port: u16,
}

impl ReceiverAddress {
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.port)
    }

    /// On a loopback address if Alertmanager uses one, and on all addresses otherwise.
    pub fn listen(&self) -> SocketAddr {
        let any = match host_ip(&self.host) {
            Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            _ => Ipv4Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(loopback(&self.host).unwrap_or(any), self.port)
    }

    /// Release and namespace, by the name that the chart gives its Service.
    pub fn service(&self) -> Option<(&str, &str)> {
        let mut labels = self.host.split('.');
        let (name, namespace) = (labels.next()?, labels.next()?);
        // the chart changes other names
        let fits = name.contains("prompt-rollback") && name.len() <= 50 && !name.starts_with(|c: char| c.is_numeric());
        let valid = is_dns_label(name) && is_dns_label(namespace);
        (labels.next() == Some("svc") && fits && valid && self.port == 8000).then_some((name, namespace))
    }
}

pub(super) fn ask(args: &InitArgs) -> Result<Answers, CommandError> {
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
        // stderr may be closed
        let _ = writeln!(
            io::stderr(),
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
            Err(why) => writeln!(screen, "{}", table::clean(&why)).map_err(failed)?,
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

pub(super) fn address(text: &str, platform: Platform) -> Result<ReceiverAddress, String> {
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
            "expected http://NAME.NAMESPACE.svc:8000 with a NAME that begins with a lower-case letter, contains prompt-rollback and \
             has at most 50 characters: {why}"
        ));
    }
    Ok(found)
}

/// Whether Kubernetes allows this name of a Service or a namespace.
fn is_dns_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends_well = !text.starts_with('-') && !text.ends_with('-');
    (1..=63).contains(&text.len()) && ends_well && text.chars().all(allowed)
}

pub(super) fn host_ip(host: &str) -> Option<IpAddr> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        for url in [
            "http://receiver:8000",
            "http://prompt-rollback.prompts.svc:80",
            "http://other.prompts.svc:8000",
            "http://2-prompt-rollback.prompts.svc:8000",
            "http://Prompt-rollback.prompts.svc:8000",
            "http://prompt-rollback-.prompts.svc:8000",
            "http://prompt-rollback..svc:8000",
            "http://prompt-rollback.team_a.svc:8000",
            // the next steps are commands for a shell
            "http://prompt-rollback.$(id).svc:8000",
        ] {
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
}
