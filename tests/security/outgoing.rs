//! Every way out, with every credential: Prometheus and Alertmanager themselves, alone and behind what is in front of them.

use std::process::Output;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use prompt_rollback::alertmanager::client::{Alertmanagers, OwnAlert};
use prompt_rollback::config::{Config, LoadedConfig};
use prompt_rollback::prometheus::client::Prometheus as Client;
use prompt_rollback_testkit::between::{Gateway, Head, WebProxy};
use prompt_rollback_testkit::lying_target::LyingTarget;
use prompt_rollback_testkit::slack::Slack;
use prompt_rollback_testkit::tls::Authority;
use prompt_rollback_testkit::{Alertmanager, Dir, Prometheus};

use super::kit::{Files, program};
use crate::common::{Receiver, Redis, SOON, eventually, settings_of};

/// What is tried, the section, its settings, and what is expected.
type Row<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, &'a str);

/// Of `s3cret-of-alerts`, by bcrypt.
const HASH: &str = "$2b$04$AAZt0lSRE7rZ9VX5vYTmBuEYZTzC490N1iGg1cFJobzmJHzf.0i0i";
const PASSWORD: &str = "s3cret-of-alerts";
const TOKEN: &str = "t0ken-of-a-tenant";
const ROUTES: &str = "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Prometheus,
    Alertmanager,
}

impl Server {
    const ALL: [Self; 2] = [Self::Prometheus, Self::Alertmanager];

    fn section(self) -> &'static str {
        match self {
            Self::Prometheus => "PROMETHEUS",
            Self::Alertmanager => "ALERTMANAGER",
        }
    }

    /// The variables of the config, with the keys of the section.
    fn env(self, url: &str, keys: &[(&str, &str)]) -> Vec<(String, String)> {
        let section = self.section();
        let address = if self == Self::Prometheus { "URL" } else { "URLS" };
        let all = [(address, url)].into_iter().chain(keys.iter().copied());
        all.map(|(key, value)| (format!("PROMPT_ROLLBACK_{section}__{key}"), value.to_owned())).collect()
    }

    /// Does what the receiver does with this server.
    async fn used(self, config: &Config) -> Result<(), String> {
        match self {
            Self::Prometheus => {
                let client = Client::new(&config.prometheus).map_err(|error| error.to_string())?.ok_or("no url")?;
                client.alert_rules().await.map_err(|error| error.to_string())?;
                let one = client.instant("vector(1)").await.map_err(|error| error.to_string())?;
                if one.len() == 1 { Ok(()) } else { Err(format!("{one:?}")) }
            }
            Self::Alertmanager => {
                let client = Alertmanagers::new(&config.alertmanager).map_err(|error| error.to_string())?;
                let (_, sent) = client.post_each(&alert()).next().await.ok_or("no url")?;
                sent.map_err(|error| error.to_string())?;
                let known = client.fingerprints("prompt", "p").await.map_err(|error| error.to_string())?;
                if known.len() == 1 { Ok(()) } else { Err(format!("{known:?}")) }
            }
        }
    }
}

fn alert() -> OwnAlert {
    OwnAlert {
        labels: [("alertname", "PromptRollbackDrill"), ("prompt", "p")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        annotations: Vec::new(),
        starts_at: "2026-11-21T00:38:12Z".to_owned(),
        ends_at: "2036-11-21T00:38:12Z".to_owned(),
    }
}

/// The same program in three ways: open, below a path, and as `docs/security.md` recommends with TLS besides.
struct Servers {
    _prometheus: Vec<Prometheus>,
    _alertmanager: Vec<Alertmanager>,
    open: String,
    below: String,
    locked: String,
}

impl Servers {
    fn start(server: Server, files: &Files) -> Result<Self> {
        let web = format!(
            "basic_auth_users:\n  alerts: {HASH}\ntls_server_config:\n  cert_file: {}\n  key_file: {}\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {}\n",
            files.path("server"),
            files.path("server-key"),
            files.path("ca"),
        );
        let ways: [(&[(&str, &str)], &str); 3] =
            [(&[], ""), (&[], "--web.route-prefix=/base"), (&[("web.yml", web.as_str())], "--web.config.file=web.yml")];
        let (mut prometheus, mut alertmanager, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for (written, flag) in ways {
            let flags = if flag.is_empty() { None } else { Some(flag) };
            match server {
                Server::Prometheus => {
                    let mut builder = Prometheus::builder("global: {}\n");
                    builder = written.iter().fold(builder, |builder, (name, text)| builder.file(*name, *text));
                    prometheus.push(flags.into_iter().fold(builder, |builder, flag| builder.flag(flag)).start()?);
                    addresses.extend(prometheus.last().map(Prometheus::addr));
                }
                Server::Alertmanager => {
                    let mut builder = Alertmanager::builder(ROUTES);
                    builder = written.iter().fold(builder, |builder, (name, text)| builder.file(*name, *text));
                    alertmanager.push(flags.into_iter().fold(builder, |builder, flag| builder.flag(flag)).start()?);
                    addresses.extend(alertmanager.last().map(Alertmanager::addr));
                }
            }
        }
        let [open, below, locked] = &addresses[..] else { anyhow::bail!("{addresses:?}") };
        Ok(Self {
            _prometheus: prometheus,
            _alertmanager: alertmanager,
            open: format!("http://{open}"),
            below: format!("http://{below}"),
            locked: format!("https://localhost:{}", locked.rsplit(':').next().context("a port")?),
        })
    }
}

/// What Mimir and hosted services ask for: a token and the id of a tenant. They have no `/-/ready`.
fn of_tenant(head: &Head) -> Option<u16> {
    if head.target() == "/-/ready" {
        return Some(404);
    }
    let token = head.header("authorization").is_some_and(|value| value == format!("Bearer {TOKEN}"));
    let tenant = head.header("x-scope-orgid") == Some("team-a|team-b");
    (!token).then_some(401).or((!tenant).then_some(403))
}

async fn checked(env: &[(String, String)], redis: &Redis, more: &[(&str, &str)]) -> Result<Output> {
    let url = redis.receiver_url();
    let mut all: Vec<(&str, &str)> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    all.push(("PROMPT_ROLLBACK_REDIS__URL", &url));
    all.extend(more);
    program(&["check", "--connect"], &all).await
}

/// The line of the first check of a server: its result and what was found.
fn line(server: Server, output: &Output) -> Result<(bool, String)> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = server.section().to_lowercase();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&name)).collect();
    ensure!(!lines.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok((lines.iter().all(|line| !line.contains("  FAIL  ")), lines.join("\n")))
}

/// Rows: where, keys of the config, and what is said if it fails. Each row is tried with both servers: by what the
/// receiver does, and by `check --connect`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_credential_opens_what_asks_for_it_and_no_other_does() -> Result<()> {
    let (files, authority) = Files::new()?;
    files.pair("client", &authority.client("receiver")?)?;
    let stranger = Authority::new()?;
    files.write("other-ca", stranger.pem())?;
    files.pair("other", &stranger.client("receiver")?)?;
    files.0.write("password", PASSWORD)?;
    files.0.write("token", format!("{TOKEN}\n"))?;
    let in_folder = |name: &str| files.0.path().join(name).display().to_string();
    let [ca, cert, key] = ["ca", "client", "client-key"].map(|name| files.path(name));
    let [other_ca, other, other_key] = ["other-ca", "other", "other-key"].map(|name| files.path(name));
    let [password_file, token_file] = ["password", "token"].map(in_folder);
    let [ca, cert, key, other_ca, other, other_key, password_file, token_file] =
        [&ca, &cert, &key, &other_ca, &other, &other_key, &password_file, &token_file].map(String::as_str);
    let redis = Redis::start()?;
    let (proxy, asking, refusing) = (WebProxy::start()?, WebProxy::with_login("me", "s3cret")?, WebProxy::refusing()?);
    let (through, refused) = (proxy.url(), refusing.url());
    let asks = format!("http://me:s3cret@{}", asking.addr());
    let stranger_asks = format!("http://me:wr0ng@{}", asking.addr());
    let [through, refused, asks, stranger_asks] = [&through, &refused, &asks, &stranger_asks].map(String::as_str);

    let (trusts, user, password) = (("TLS_CA_FILE", ca), ("USERNAME", "alerts"), ("PASSWORD", PASSWORD));
    let (cert_key, key_key) = (("TLS_CERT_FILE", cert), ("TLS_KEY_FILE", key));
    let tenant = ("HEADERS", "X-Scope-OrgID=team-a%7Cteam-b");
    for server in Server::ALL {
        let servers = Servers::start(server, &files)?;
        let [open, below, locked] = [&servers.open, &servers.below, &servers.locked].map(String::as_str);
        let gateway = Gateway::start(open.trim_start_matches("http://"), of_tenant)?.url();
        let (prefixed, slow) = (format!("{below}/base"), LyingTarget::hanging()?.url());
        let [gateway, prefixed, slow] = [&gateway, &prefixed, &slow].map(String::as_str);
        let rows: Vec<Row<'_>> = vec![
            ("nothing", open, vec![], ""),
            ("a path", prefixed, vec![], ""),
            ("no path", below, vec![], "404"),
            ("all of web.config.file", locked, vec![trusts, cert_key, key_key, user, password], ""),
            (
                "a password from a file",
                locked,
                vec![trusts, cert_key, key_key, user, ("PASSWORD_FILE", password_file)],
                "",
            ),
            ("the authorities of the system", locked, vec![cert_key, key_key, user, password], "certificate"),
            (
                "another authority",
                locked,
                vec![("TLS_CA_FILE", other_ca), cert_key, key_key, user, password],
                "certificate",
            ),
            ("no certificate", locked, vec![trusts, user, password], "ertificate"),
            (
                "a certificate of another authority",
                locked,
                vec![trusts, ("TLS_CERT_FILE", other), ("TLS_KEY_FILE", other_key), user, password],
                "ertificate",
            ),
            ("no password", locked, vec![trusts, cert_key, key_key], "401"),
            ("a wrong password", locked, vec![trusts, cert_key, key_key, user, ("PASSWORD", "wr0ng")], "401"),
            ("token and tenant", gateway, vec![("BEARER_TOKEN", TOKEN), tenant], ""),
            ("a token from a file", gateway, vec![("BEARER_TOKEN_FILE", token_file), tenant], ""),
            (
                "a token as a header",
                gateway,
                vec![("HEADERS", "authorization=Bearer%20t0ken-of-a-tenant,x-scope-orgid=team-a|team-b")],
                "",
            ),
            ("no token", gateway, vec![tenant], "401"),
            ("a wrong token", gateway, vec![("BEARER_TOKEN", "wr0ng"), tenant], "401"),
            ("no tenant", gateway, vec![("BEARER_TOKEN", TOKEN)], "403"),
            ("a proxy", open, vec![("PROXY_URL", through)], ""),
            ("a proxy and a path", prefixed, vec![("PROXY_URL", through)], ""),
            (
                "a tunnel through a proxy",
                locked,
                vec![("PROXY_URL", through), trusts, cert_key, key_key, user, password],
                "",
            ),
            ("a proxy with a login", open, vec![("PROXY_URL", asks)], ""),
            (
                "a tunnel through a proxy with a login",
                locked,
                vec![("PROXY_URL", asks), trusts, cert_key, key_key, user, password],
                "",
            ),
            ("a wrong login for the proxy", open, vec![("PROXY_URL", stranger_asks)], "407"),
            (
                "a wrong login for the tunnel",
                locked,
                vec![("PROXY_URL", stranger_asks), trusts, cert_key, key_key, user, password],
                "refuses the login (407)",
            ),
            (
                "a proxy that leads nowhere",
                locked,
                vec![("PROXY_URL", refused), trusts, cert_key, key_key, user, password],
                "refuses to connect to this server",
            ),
            ("a proxy that is away", open, vec![("PROXY_URL", "http://127.0.0.1:1")], "the proxy http://127.0.0.1:1 "),
            ("no answer in time", slow, vec![("TIMEOUT", "300ms")], "within 300 ms"),
        ];
        for (name, url, keys, expected) in rows {
            let env = server.env(url, &keys);
            let config = Config::load(None, env.iter().cloned()).with_context(|| name.to_owned())?;
            let used = server.used(&config).await;
            let (fine, detail) = line(server, &checked(&env, &redis, &[]).await?)?;
            let place = format!("{server:?} with {name}: {used:?}\n{detail}");
            ensure!(used.is_ok() == expected.is_empty() && fine == expected.is_empty(), "{place}");
            if let Err(error) = used {
                ensure!(error.contains(expected) && detail.contains(expected), "{expected:?} is not said: {place}");
            }
            for secret in ["s3cret", TOKEN, "wr0ng"] {
                ensure!(!place.contains(secret) && !format!("{config:?}").contains(secret), "{secret}: {place}");
            }
            if keys.iter().any(|(key, value)| *key == "PROXY_URL" && expected.is_empty() && *value == through) {
                ensure!(detail.contains(&format!("through the proxy {through}")), "{place}");
            }
            if url == gateway && expected.is_empty() {
                ensure!(detail.contains("answers (it has no /-/ready), version "), "{place}");
            }
        }
        // encrypted servers are reached by tunnels, and their credentials stay inside
        let seen = proxy.seen();
        let tunnel = format!("CONNECT localhost:{}", locked.rsplit(':').next().unwrap_or_default());
        ensure!(seen.iter().any(|head| head.line.starts_with(&tunnel)), "{seen:?}");
        ensure!(seen.iter().any(|head| head.target().starts_with(&format!("{open}/"))), "{seen:?}");
        let leaks = |head: &&Head| head.line.starts_with("CONNECT") && head.header("authorization").is_some();
        ensure!(!seen.iter().any(|head| leaks(&head)), "{seen:?}");
    }
    Ok(())
}

/// Names of `.test` lead nowhere but through the proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxies_of_the_environment_lead_to_other_machines_only() -> Result<()> {
    let (files, authority) = Files::new()?;
    files.pair("client", &authority.client("receiver")?)?;
    let [ca, cert, key] = ["ca", "client", "client-key"].map(|name| files.path(name));
    let (redis, proxy) = (Redis::start()?, WebProxy::start()?);
    let url = proxy.url();
    let url = url.as_str();
    for server in Server::ALL {
        let servers = Servers::start(server, &files)?;
        let port = servers.open.rsplit(':').next().context("a port")?;
        let elsewhere = format!("http://server.corp.test:{port}");
        let sent = |seen: &[Head]| seen.iter().filter(|head| head.target().starts_with(&elsewhere)).count();
        let (elsewhere, open) = (elsewhere.as_str(), servers.open.as_str());
        for (name, variables, target, proxied) in [
            ("HTTP_PROXY", vec![("HTTP_PROXY", url)], elsewhere, true),
            ("http_proxy", vec![("http_proxy", url)], elsewhere, true),
            ("ALL_PROXY", vec![("ALL_PROXY", url)], elsewhere, true),
            ("NO_PROXY for others", vec![("HTTP_PROXY", url), ("NO_PROXY", "internal,10.0.0.0/8")], elsewhere, true),
            ("this machine", vec![("HTTP_PROXY", url)], open, false),
        ] {
            let before = sent(&proxy.seen());
            let output = checked(&server.env(target, &[]), &redis, &variables).await?;
            let (fine, detail) = line(server, &output)?;
            ensure!(fine && detail.contains("through the proxy") == proxied, "{name}: {detail}");
            ensure!((sent(&proxy.seen()) > before) == proxied, "{name}: {:?}", proxy.seen());
        }
        let around = [("NO_PROXY", "corp.test"), ("HTTP_PROXY", url)];
        let off: [(&str, &str); 2] = [("PROXY_URL", "off"), ("TIMEOUT", "1s")];
        for (name, variables, keys) in
            [("NO_PROXY", &around[..], &off[1..]), ("proxy_url = off", &around[1..], &off[..])]
        {
            let before = sent(&proxy.seen());
            let (fine, detail) = line(server, &checked(&server.env(elsewhere, keys), &redis, variables).await?)?;
            ensure!(!fine && !detail.contains("the proxy"), "{name}: {detail}");
            ensure!(sent(&proxy.seen()) == before, "{name}");
        }
        let encrypted = servers.locked.replace("localhost", "server.corp.test");
        let tunnel = format!("CONNECT {} ", encrypted.trim_start_matches("https://"));
        let opened = |seen: &[Head]| seen.iter().filter(|head| head.line.starts_with(&tunnel)).count();
        let keys = [
            ("TLS_CA_FILE", ca.as_str()),
            ("TLS_CERT_FILE", &cert),
            ("TLS_KEY_FILE", &key),
            ("USERNAME", "alerts"),
            ("PASSWORD", PASSWORD),
            ("TIMEOUT", "2s"),
        ];
        for (name, proxied) in
            [("HTTPS_PROXY", true), ("https_proxy", true), ("ALL_PROXY", true), ("HTTP_PROXY", false)]
        {
            let before = opened(&proxy.seen());
            let output = checked(&server.env(&encrypted, &keys), &redis, &[(name, url)]).await?;
            let (fine, detail) = line(server, &output)?;
            ensure!(fine == proxied && detail.contains("the proxy") == proxied, "{name}: {detail}");
            ensure!((opened(&proxy.seen()) > before) == proxied, "{name}: {:?}", proxy.seen());
        }
    }
    Ok(())
}

/// Slack needs no key of the config for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxies_of_the_environment_lead_to_slack() -> Result<()> {
    let (redis, slack) = (Redis::start()?, Slack::builder().start()?);
    let (proxy, refusing) = (WebProxy::start()?, WebProxy::refusing()?);
    let over_http = slack.api_url().replace("127.0.0.1", "slack.corp.test");
    for (variable, proxy, api, expected, seen) in [
        ("HTTP_PROXY", &proxy, over_http.as_str(), "  ok  ", format!("POST {over_http}/auth.test ")),
        // the workspace speaks no TLS, so a proxy that refuses shows what it was asked for
        (
            "HTTPS_PROXY",
            &refusing,
            "https://slack.corp.test/api",
            "refuses to connect to this server",
            "CONNECT slack.corp.test:443 ".to_owned(),
        ),
    ] {
        let env = [("API_URL", api), ("BOT_TOKEN", slack.bot_token()), ("SIGNING_SECRET", slack.signing_secret())];
        let env = env.map(|(key, value)| (format!("PROMPT_ROLLBACK_SLACK__{key}"), value.to_owned()));
        let output = checked(&env, &redis, &[(variable, &proxy.url())]).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line =
            text.lines().find(|line| line.starts_with("slack token")).with_context(|| text.clone().into_owned())?;
        ensure!(line.contains(expected), "{variable}: {line}");
        ensure!(proxy.seen().iter().any(|head| head.line.starts_with(&seen)), "{variable}: {:?}", proxy.seen());
    }
    Ok(())
}

/// A running receiver asks Prometheus for its rules with the new token, without a reload.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_token_is_used_without_a_reload() -> Result<()> {
    let (prometheus, redis, dir) = (Prometheus::builder("global: {}\n").start()?, Redis::start()?, Dir::new("token")?);
    let valid = Arc::new(Mutex::new("Bearer first".to_owned()));
    let now = Arc::clone(&valid);
    let refuses = move |head: &Head| {
        let valid = now.lock().expect("no panic").clone();
        (head.header("authorization") != Some(valid.as_str())).then_some(401)
    };
    let gateway = Gateway::start(prometheus.addr(), refuses)?;
    dir.write("token", "first")?;
    let toml = format!("[prometheus]\nurl = \"{}\"\nbearer_token_file = \"token\"\n", gateway.url());
    let path = dir.write("prompt-rollback.toml", toml)?;
    let settings: LoadedConfig = settings_of(Some(&path), &redis.receiver_url(), &[]);
    let receiver = Receiver::start_with(&settings).await?;
    receiver.wait_ready(SOON).await?;
    prompt_rollback_testkit::prompts::ship(&receiver.http, "p").await?;
    let rules = async || {
        let text = receiver.http.get("/api/prompts/p/explain").await.ok()?.text();
        Some(text)
    };
    let asked = |token: &str| {
        let token = format!("Bearer {token}");
        gateway.seen().iter().any(|head| head.header("authorization") == Some(token.as_str()))
    };
    eventually("asked with the first token", SOON, async || {
        rules().await?;
        asked("first").then_some(())
    })
    .await?;
    *valid.lock().expect("no panic") = "Bearer second".to_owned();
    dir.write("token", "second\n")?;
    eventually("asked with the second token", SOON, async || {
        let text = rules().await?;
        (asked("second") && !text.contains("401")).then_some(())
    })
    .await
}
