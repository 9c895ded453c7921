//! Rules that types cannot express: about single values, and about combinations.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN};
use secrecy::{ExposeSecret, SecretString};

use super::forms::{
    is_address, is_base_url, is_host_and_port, is_label_name, is_namespace, is_plain_name, is_proxy, is_strong,
};
use super::http_target::headers;
use super::reader::ConfigReader;
use super::target::{PROXY, client_tls, validate_target};
use super::values::same;
use super::{Config, Confirm, RedisIdentity, RedisMode};
use crate::decision::{Operator, Plan, Severity};
use crate::tls::File;

mod deciders;

const LONGER_THAN_0: &str = "a duration longer than 0";
/// How long a stage may last.
pub(super) const HOLD: &str = "a duration longer than 0 and at most 30d";
/// The shortest token that anyone who reaches the server may try to guess.
const MIN_TOKEN: usize = 8;

impl Config {
    /// Also reads the certificates.
    pub(super) fn validate(&mut self, r: &mut ConfigReader<'_>) {
        self.validate_server(r);
        self.validate_tls(r);
        self.validate_redis(r);
        self.validate_urls(r);
        let https = |url: &String| url.starts_with("https:");
        let encrypted = self.prometheus.url.iter().any(https);
        validate_target("prometheus", "prometheus.url", encrypted, &mut self.prometheus.http, r);
        let encrypted = self.alertmanager.urls.iter().any(https);
        validate_target("alertmanager", "alertmanager.urls", encrypted, &mut self.alertmanager.http, r);
        let key = r.source_of("slack.proxy_url");
        r.check(&key, self.slack.proxy_url.as_ref().is_none_or(is_proxy), PROXY);
        self.validate_webhooks(r);
        self.validate_tracing(r);
        self.validate_names(r);
        self.validate_times(r);
        self.validate_steps(r);
    }

    fn validate_server(&self, r: &mut ConfigReader<'_>) {
        let server = &self.server;
        let listeners = [("server.listen", Some(server.listen)), ("page.listen", self.page.listen)];
        let open = listeners
            .into_iter()
            .find_map(|(key, address)| Some((key, address?)).filter(|(_, a)| !a.ip().is_loopback()));
        let because = open.map(|(key, address)| format!("because {key} {address} is not a loopback address"));
        if let Some(because) = &because {
            let webhook =
                server.webhook_token.is_some() || !self.sources.is_empty() || server.listen.ip().is_loopback();
            let api = server.api_token.is_some() || !self.tokens.is_empty();
            for (key, given) in [("webhook_token", webhook), ("api_token", api)] {
                let key = format!("server.{key}");
                r.check(&key, given || r.has_problem(&format!("{key}_file")), &format!("a token, {because}"));
            }
        }
        for (name, source) in &self.sources {
            let key = format!("sources.{name}");
            if !is_plain_name(name) {
                r.problem(&key, format!("found the name {name:?}, expected 1 to 64 letters, digits, _ and -"));
            }
            let token = format!("{key}.token");
            let given = source.token.is_some() || r.has_problem(&format!("{token}_file"));
            r.check(&token, given, "a token: it identifies the source");
            check_patterns(r, &format!("{key}.allowed_prompts"), &source.allowed_prompts);
        }
        self.validate_callers(r);
        self.validate_tokens(r, because.as_deref());
        r.check("server.max_body_bytes", server.max_body_bytes > 0, "at least 1 byte");
        r.check("server.max_connections", server.max_connections > 0, "at least 1");
        r.check("server.shutdown_timeout", !server.shutdown_timeout.is_zero(), "more than 0");
        let differs = |one: Option<SocketAddr>, other| one.is_none_or(|one| one.port() == 0 || Some(one) != other);
        r.check(
            "metrics.listen",
            differs(self.metrics.listen, Some(server.listen)),
            "another address than server.listen",
        );
        let other = differs(self.page.listen, Some(server.listen)) && differs(self.page.listen, self.metrics.listen);
        r.check("page.listen", other, "another address than server.listen and metrics.listen");
        let fits = !server.request_timeout.is_zero() && server.request_timeout < Duration::from_secs(5);
        r.check("server.request_timeout", fits, "more than 0 and less than 5s");
    }

    /// The holders of named tokens, and the people whom a proxy signs in.
    fn validate_callers(&self, r: &mut ConfigReader<'_>) {
        for (name, token) in &self.tokens {
            let key = format!("tokens.{name}");
            if !is_plain_name(name) {
                r.problem(&key, format!("found the name {name:?}, expected 1 to 64 letters, digits, _ and -"));
            } else if Operator::is_reserved(name) || [Operator::API, Operator::PROXY].contains(&name.as_str()) {
                r.problem(
                    &key,
                    format!("found the name {name:?}, which prompt-rollback uses itself: expected another"),
                );
            }
            let given = token.token.is_some() || r.has_problem(&format!("{key}.token_file"));
            r.check(&format!("{key}.token"), given, "a token");
            r.check(&format!("{key}.roles"), !token.roles.is_empty(), ROLES);
            check_patterns(r, &format!("{key}.prompts"), &token.prompts);
        }
        let header = self.proxy.user_header.parse::<HeaderName>();
        let free = header.is_ok_and(|name| ![AUTHORIZATION, COOKIE, HOST, ORIGIN].contains(&name));
        r.check("proxy.user_header", free, "the name of a header in which the proxy names the person");
        r.check("proxy.roles", !self.proxy.roles.is_empty(), ROLES);
        check_patterns(r, "proxy.prompts", &self.proxy.prompts);
        let proxied = !self.proxy.addresses.is_empty();
        let known = !proxied || self.server.api_token.is_some() || !self.tokens.is_empty();
        r.check(
            "proxy.addresses",
            known,
            "server.api_token or a [tokens.NAME] as well: without one, no request needs the proxy",
        );
        let named = !proxied || !self.proxy.hosts.is_empty();
        r.check(
            "proxy.hosts",
            named,
            "the names in the header Host of the proxy's requests, such as [\"rollback.example\"]",
        );
        r.check("page.session", self.page.session >= Duration::from_secs(1), "at least 1s");
    }

    /// `because`: why other machines reach the receiver, if they do.
    fn validate_tokens(&self, r: &mut ConfigReader<'_>, because: Option<&str>) {
        let of_server = [("webhook_token", &self.server.webhook_token), ("api_token", &self.server.api_token)];
        let of_server = of_server.into_iter().map(|(key, token)| (format!("server.{key}"), token));
        let of_sources = self.sources.iter().map(|(name, source)| (format!("sources.{name}.token"), &source.token));
        let named = self.tokens.iter().map(|(name, token)| (format!("tokens.{name}.token"), &token.token));
        let mut tokens: Vec<(String, &SecretString)> =
            of_server.chain(of_sources).chain(named).filter_map(|(key, token)| Some((key, token.as_ref()?))).collect();
        while let Some((key, token)) = tokens.pop() {
            if let Some(because) = because.filter(|_| token.expose_secret().len() < MIN_TOKEN) {
                r.problem(&key, format!("can be guessed: expected at least {MIN_TOKEN} characters, {because}"));
            }
            // who sends a request is identified by the token alone, whatever the address
            let tells_apart = |other: &str| [&key, other].iter().any(|key| !key.starts_with("server."));
            let twin = tokens.iter().find(|(other, it)| same(it, token) && (because.is_some() || tells_apart(other)));
            if let Some((other, _)) = twin {
                r.problem(&key, format!("is the same as {other}: expected a different token for each"));
            }
        }
    }

    fn validate_tls(&mut self, r: &mut ConfigReader<'_>) {
        let server = &mut self.server;
        let both = server.tls_cert_file.is_some() == server.tls_key_file.is_some();
        r.check(
            "server.tls_cert_file",
            both || server.tls_cert_file.is_some(),
            "the certificate of server.tls_key_file",
        );
        r.check("server.tls_key_file", both || server.tls_key_file.is_some(), "the key of server.tls_cert_file");
        let encrypted = server.tls_client_ca_file.is_none() || server.tls_cert_file.is_some();
        r.check("server.tls_client_ca_file", encrypted, "server.tls_cert_file to be set as well");
        let key = |file| match file {
            File::Cert => "server.tls_cert_file",
            File::Key => "server.tls_key_file",
            File::ClientCa | File::Ca => "server.tls_client_ca_file",
        };
        match server.tls_files().map(|files| files.load(|file, path| r.content(key(file), path))).transpose() {
            Ok(tls) => server.tls = tls,
            Err(error) => r.problem(key(error.file), error.message),
        }
    }

    fn validate_redis(&mut self, r: &mut ConfigReader<'_>) {
        let redis = &mut self.redis;
        let one_password = redis.password.is_none() || !redis.url.has_password();
        r.check("redis.url", one_password, "a URL without a password, because redis.password is set as well");
        let files = (&redis.tls_ca_file, &redis.tls_cert_file, &redis.tls_key_file);
        // the library reads the files itself: here they are only tested
        if client_tls("redis", "redis.url", redis.url.is_tls(), files, r).is_some() {
            let mut read = |key, path: &Option<PathBuf>| path.as_deref().and_then(|path| r.content(key, path).ok());
            redis.tls_ca = read("redis.tls_ca_file", files.0);
            let identity = read("redis.tls_cert_file", files.1).zip(read("redis.tls_key_file", files.2));
            redis.tls_identity = identity.map(|(cert, key)| RedisIdentity { cert, key: key.into() });
        }
        r.check(
            "redis.namespace",
            is_namespace(&redis.namespace),
            "letters, digits and ._:/- with exactly one {…} that is not empty, such as \"{prompts}\"",
        );
        let sentinel = redis.mode == RedisMode::Sentinel;
        r.check(
            "redis.sentinel_master",
            !sentinel || !redis.sentinel_master.is_empty(),
            "the master's name in Sentinel",
        );
        let reached_by_tcp = redis.mode == RedisMode::Standalone || redis.url.is_tcp();
        r.check("redis.url", reached_by_tcp, "redis://… or rediss://…: the master is found on the network");
        let one_database = redis.mode != RedisMode::Cluster || redis.url.database() == 0;
        r.check("redis.url", one_database, "no database number: a cluster has only one");
        let wants_nodes = redis.mode != RedisMode::Standalone;
        let good_nodes = redis.nodes.iter().all(|node| is_host_and_port(node));
        r.check("redis.nodes", good_nodes && !(wants_nodes && redis.nodes.is_empty()), "a list of \"host:port\"");
        let fits = !redis.wait_timeout.is_zero() && redis.wait_timeout < self.server.request_timeout;
        r.check("redis.wait_timeout", fits, "more than 0 and less than server.request_timeout");
    }

    fn validate_urls(&self, r: &mut ConfigReader<'_>) {
        const EXPECTED: &str = "http://host:port or https://…, without credentials and query";
        r.check("prometheus.url", self.prometheus.url.as_deref().is_none_or(is_base_url), EXPECTED);
        r.check("alertmanager.urls", self.alertmanager.urls.iter().all(|url| is_base_url(url)), EXPECTED);
        let alertmanager = &self.alertmanager;
        let of_alerts = [&self.labels.prompt, &self.labels.version];
        let fits = |(name, value): (&String, &String)| {
            is_label_name(name)
                && !value.is_empty()
                && !OWN_LABELS.contains(&name.as_str())
                && !of_alerts.contains(&name)
        };
        r.check(
            "alertmanager.labels",
            alertmanager.labels.iter().all(fits),
            "label names with values; not the labels that the alerts have already, such as alertname and severity",
        );
        r.check("registry.precheck_url", self.registry.precheck_url.as_deref().is_none_or(is_base_url), EXPECTED);
        r.check("slack.api_url", is_base_url(&self.slack.api_url), EXPECTED);
        let can_ask = self.guards.confirm == Confirm::Alert || self.prometheus.url.is_some();
        r.check("guards.confirm", can_ask, "\"alert\", or prometheus.url to be set for \"requery\"");
    }

    fn validate_webhooks(&self, r: &mut ConfigReader<'_>) {
        const URL: &str = "http://host:port/… or https://…, without credentials";
        const SECRET: &str = "at least 16 characters, or whsec_ and at least 16 bytes in base64";
        for (name, webhook) in &self.webhooks {
            let section = format!("webhooks.{name}");
            if !is_plain_name(name) {
                r.problem(&section, format!("found the name {name:?}, expected 1 to 64 letters, digits, _ and -"));
            }
            let given = [("url", &webhook.url, URL), ("secret", &webhook.secret, SECRET)];
            for (key, value, expected) in given {
                let key = r.source_of(&format!("{section}.{key}"));
                let fits = |value: &SecretString| match expected {
                    URL => is_address(value.expose_secret()),
                    _ => is_strong(value.expose_secret()),
                };
                let known = value.as_ref().is_some_and(fits);
                r.check(&key, known, expected);
            }
        }
    }

    fn validate_tracing(&self, r: &mut ConfigReader<'_>) {
        const ENDPOINT: &str = "tracing.otlp_endpoint";
        let endpoint = self.tracing.otlp_endpoint.as_deref();
        r.check(
            ENDPOINT,
            endpoint.is_none_or(is_base_url),
            "http://host:4318 or https://…, without credentials and query",
        );
        if let Some(problem) = unsupported(endpoint, cfg!(feature = "otlp"))
            && !r.has_problem(ENDPOINT)
        {
            r.problem(ENDPOINT, problem);
        }
        let given = self.tracing.otlp_headers.as_ref().is_none_or(|text| headers(text.expose_secret()).is_some());
        let key = r.source_of("tracing.otlp_headers");
        r.check(&key, given, "headers such as \"authorization=Bearer%20TOKEN,x-tenant=team-a\"");
    }

    fn validate_names(&self, r: &mut ConfigReader<'_>) {
        let labels = &self.labels;
        for (key, name) in [("labels.prompt", &labels.prompt), ("labels.version", &labels.version)] {
            r.check(key, is_label_name(name), "a label name: letters, digits and _, not beginning with a digit");
        }
        for name in &labels.replicas {
            r.check(
                "labels.replicas",
                is_label_name(name),
                "names of labels: letters, digits and _, not beginning with a digit",
            );
        }
        r.check("labels.version", labels.version != labels.prompt, "another label than labels.prompt");
        let mut words: BTreeMap<String, (&str, Severity)> =
            Severity::ALL.map(|it| (it.as_str().to_owned(), (it.as_str(), it))).into();
        for (alias, severity) in &labels.severity_aliases {
            let key = r.entry("labels.severity_aliases", alias);
            let (other, of_other) = *words.entry(alias.to_lowercase()).or_insert((alias, *severity));
            if alias.trim().is_empty() {
                r.problem(&key, format!("found the name {alias:?}, expected a word"));
            } else if of_other != *severity {
                let text =
                    format!("found \"{severity}\", expected \"{of_other}\" as for {other:?}: case does not matter");
                r.problem(&key, text);
            }
        }
        for (key, id, first) in [("slack.team_id", &self.slack.team_id, 'T'), ("slack.app_id", &self.slack.app_id, 'A')]
        {
            let fits =
                |id: &String| id.starts_with(first) && id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
            r.check(key, id.as_ref().is_none_or(fits), &format!("an id of Slack that begins with {first}, or \"\""));
        }
        r.check("slack.incident_channel", !self.slack.incident_channel.is_empty(), "a channel such as \"#incidents\"");
        self.validate_deciders(r);
    }

    fn validate_times(&self, r: &mut ConfigReader<'_>) {
        for (key, value) in [
            ("registry.soak", self.registry.soak),
            ("guards.max_auto_rollbacks_window", self.guards.max_auto_rollbacks_window),
            ("incidents.alert_resolve_timeout", self.incidents.alert_resolve_timeout),
            ("verification.every", self.verification.every),
            ("retention.keep", self.retention.keep),
        ] {
            r.check(key, !value.is_zero(), LONGER_THAN_0);
        }
        let longest = self.guards.ask_when_active_for_longer_than;
        let possible = longest.is_none_or(|longest| longest >= Duration::from_secs(3_600));
        r.check("guards.ask_when_active_for_longer_than", possible, "at least 1h, or \"off\"");
        let registry = &self.registry;
        r.check("registry.soak_limit", registry.soak_limit >= registry.soak, "at least registry.soak");
        r.check("registry.soak_requests", registry.soak_requests > 0, "at least 1");
        let verification = &self.verification;
        r.check("verification.deadline", verification.deadline >= verification.every, "at least verification.every");
        r.check("verification.max", verification.max >= verification.deadline, "at least verification.deadline");
        r.check("verification.fast_checks", verification.fast_checks > 0, "at least 1");
        let possible = (1..=verification.fast_checks).contains(&verification.healthy_in_a_row);
        r.check("verification.healthy_in_a_row", possible, "from 1 to verification.fast_checks");
    }

    fn validate_steps(&self, r: &mut ConfigReader<'_>) {
        let fine = Plan::gradual(&self.gradual.stages, vec![Plan::MAX_HOLD]).is_ok();
        r.check("gradual.stages", fine, "falling percentages below 100 that end with 0, at most 20 of them");
        r.check("gradual.hold", Plan::may_hold(self.gradual.hold), HOLD);
        r.check(
            "retention.hot_versions",
            self.retention.hot_versions >= 2,
            "at least 2: one to serve, one to go back to",
        );
    }
}

const ROLES: &str = "at least one of read, deploy, decide and admin";

/// Patterns of prompts' names.
fn check_patterns(r: &mut ConfigReader<'_>, key: &str, patterns: &[String]) {
    // an encoded name would match another prompt than the one that is meant
    let fine = |pattern: &String| !pattern.is_empty() && !pattern.contains(|c: char| c == '%' || c.is_control());
    let readable = !patterns.is_empty() && patterns.iter().all(fine);
    let expected =
        "a list of prompts' names, not encoded, in which * stands for any characters, such as [\"team-a/*\"]";
    r.check(key, readable, expected);
}

/// Why this binary can't export to `endpoint`, if it can't.
fn unsupported(endpoint: Option<&str>, otlp: bool) -> Option<String> {
    let why = "this prompt-rollback was built without the feature \"otlp\", which exports spans: use the container image, build it with \
               `cargo build --release --features otlp`, or remove the key";
    endpoint.filter(|_| !otlp).map(|_| why.to_owned())
}

/// Labels of the alerts that the receiver raises itself.
const OWN_LABELS: [&str; 10] = [
    "action",
    "alertname",
    "bad_version",
    "decider",
    "incident",
    "prompt",
    "prompt_rollback_drill",
    "severity",
    "time_limit",
    "version",
];

#[cfg(test)]
mod tests;
