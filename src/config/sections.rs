//! The sections of the config: each key with its type, how it is read, and its default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderMap;
use secrecy::{ExposeSecret, SecretString};

use super::http_target::{HttpTarget, headers};
use super::patterns::{allows, allows_all};
use super::reader::ConfigReader;
use super::redis_url::{RedisIdentity, RedisUrl};
use super::value::{Network, Ratio, Weekly};
use super::words::{Confirm, GuardMode, LogFormat, LogLevel, RedisMode, Role};
use crate::decision::{PromptName, Severity};
use crate::events::Kind;
use crate::tls::{ServerFiles, ServerTls};

/// Declares a section of the config: each key with its type, how it is read, and its default in the syntax of the
/// environment.
macro_rules! section {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty = $how:ident($($default:literal)?),)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }

        impl $name {
            pub(super) fn read(r: &mut ConfigReader<'_>, section: &str) -> Self {
                Self { $($field: r.$how(&format!("{section}.{}", stringify!($field)) $(, $default)?),)* }
            }
        }
    };
}

section! {
    /// The HTTP server.
    pub struct ServerConfig {
        pub listen: SocketAddr = get_fixed("127.0.0.1:8000"),
        /// Bearer token of the Alertmanager webhook; `None` only on a loopback address.
        pub webhook_token: Option<SecretString> = token(),
        /// Bearer token of `/api`; `None` only on a loopback address.
        pub api_token: Option<SecretString> = token(),
        /// Largest request body, in bytes; a larger one is answered with 413.
        pub max_body_bytes: usize = get("16MiB"),
        /// Memory for the bodies and responses of all requests together, besides a little for each.
        pub max_buffered_bytes: usize = get("18MiB"),
        /// Longest time for one request, below the 5 s promised to Alertmanager.
        pub request_timeout: Duration = get("4s"),
        /// Longest time that a shutdown takes.
        pub shutdown_timeout: Duration = get("10s"),
        /// Most concurrent connections.
        pub max_connections: u32 = get("1024"),
        /// PEM files of the server's certificate, with intermediate certificates, and of its key; `None`: plain HTTP.
        pub tls_cert_file: Option<PathBuf> = get_path(),
        pub tls_key_file: Option<PathBuf> = get_path(),
        /// PEM file of the authority that signs clients' certificates; the webhook then requires one.
        pub tls_client_ca_file: Option<PathBuf> = get_path(),
        /// The TLS settings from these files.
        pub tls: Option<ServerTls> = later(),
    }
}

impl ServerConfig {
    pub(super) fn tls_files(&self) -> Option<ServerFiles> {
        let (cert, key) = self.tls_cert_file.clone().zip(self.tls_key_file.clone())?;
        Some(ServerFiles { cert, key, client_ca: self.tls_client_ca_file.clone() })
    }
}

section! {
    /// A sender that may send alerts about some prompts.
    pub struct SourceConfig {
        /// `None` is an error in the config.
        pub token: Option<SecretString> = token(),
        /// Names of prompts, not encoded, in which `*` matches any characters.
        pub allowed_prompts: Vec<String> = get(""),
    }
}

impl SourceConfig {
    pub fn allows(&self, prompt: &PromptName) -> bool {
        allows(&self.allowed_prompts, prompt)
    }

    /// Whether it may send alerts about every prompt.
    pub fn allows_all(&self) -> bool {
        allows_all(&self.allowed_prompts)
    }
}

section! {
    /// An API token with a name.
    pub struct TokenConfig {
        /// `None` is an error in the config.
        pub token: Option<SecretString> = token(),
        pub roles: Vec<Role> = get(""),
        /// Names of prompts, in which `*` matches any characters.
        pub prompts: Vec<String> = get("*"),
    }
}

section! {
    /// A reverse proxy that signs people in.
    pub struct ProxyConfig {
        /// Its addresses. Only requests from these may name a person; empty: there is no such proxy.
        pub addresses: Vec<Network> = get(""),
        /// The names in the header `Host` of its requests.
        pub hosts: Vec<String> = get(""),
        /// The header that names the person.
        pub user_header: String = get("X-Forwarded-User"),
        /// The roles of every person whom the proxy names.
        pub roles: Vec<Role> = get("read"),
        /// Names of prompts, in which `*` matches any characters.
        pub prompts: Vec<String> = get("*"),
    }
}

section! {
    /// The page for people.
    pub struct PageConfig {
        pub enabled: bool = get("true"),
        /// The address of the page if it is not served at `server.listen`; `None`: it is.
        pub listen: Option<SocketAddr> = get_fixed(""),
        /// How long a sign-in lasts.
        pub session: Duration = get("12h"),
        /// Limit for open pages that receive live updates; 0: none.
        pub max_streams: u32 = get("500"),
    }
}

section! {
    /// Where the state is stored.
    pub struct RedisConfig {
        pub url: RedisUrl = get_fixed_hidden("redis://127.0.0.1:6379"),
        /// ACL user; `None`: the user of the URL, or the default user.
        pub username: Option<String> = get(""),
        pub password: Option<SecretString> = secret(),
        /// PEM file of the authority that signed Redis' certificate; `None`: the public authorities that are compiled in.
        pub tls_ca_file: Option<PathBuf> = get_path(),
        /// The content of that file.
        pub tls_ca: Option<Vec<u8>> = later(),
        /// PEM files of the certificate that Redis asks for, and of its key.
        pub tls_cert_file: Option<PathBuf> = get_path(),
        pub tls_key_file: Option<PathBuf> = get_path(),
        /// The contents of these files.
        pub tls_identity: Option<RedisIdentity> = later(),
        pub mode: RedisMode = get_fixed("standalone"),
        /// The master's name in Sentinel.
        pub sentinel_master: String = get_fixed(""),
        /// The sentinels' own user.
        pub sentinel_username: Option<String> = get(""),
        pub sentinel_password: Option<SecretString> = secret(),
        /// `host:port` of the sentinels or of some cluster nodes.
        pub nodes: Vec<String> = get(""),
        /// The prefix of every key; its `{…}` keeps all keys in one cluster slot.
        pub namespace: String = get_fixed("{prompts}"),
        /// How many replicas must have a commit before it is answered; 0: none.
        pub min_replicas_acked: u32 = get("0"),
        /// How long to wait for those replicas.
        pub wait_timeout: Duration = get("1s"),
        /// Whether a receiver of the previous release runs beside this one, and must understand each record.
        pub readable_by_previous: bool = get("false"),
    }
}

section! {
    pub struct PrometheusConfig {
        /// Base URL without a trailing slash; `None`: no Prometheus.
        pub url: Option<String> = maybe_url(""),
        pub http: HttpTarget = http_target("2s"),
    }
}

section! {
    pub struct AlertmanagerConfig {
        /// Base URLs without a trailing slash; each gets the receiver's own alerts.
        pub urls: Vec<String> = base_urls(""),
        pub http: HttpTarget = http_target("5s"),
        /// Labels that our own alerts carry besides their own, for routes that look for them.
        pub labels: BTreeMap<String, String> = get_table(""),
    }
}

section! {
    /// How alerts are parsed.
    pub struct Labels {
        /// Name of the label that holds the prompt.
        pub prompt: String = get("prompt"),
        /// Name of the label that holds the version.
        pub version: String = get("version"),
        /// Labels by which series differ if several Prometheus servers measured the same prompt server, besides the well-known ones.
        pub replicas: Vec<String> = get(""),
        /// Other names for the three severities. Case does not matter.
        pub severity_aliases: BTreeMap<String, Severity> = get_table("warning=high,info=medium"),
    }
}

section! {
    pub struct SlackConfig {
        pub bot_token: Option<SecretString> = token(),
        pub signing_secret: Option<SecretString> = token(),
        /// App-level token for Socket Mode.
        pub app_token: Option<SecretString> = token(),
        /// Base URL without a trailing slash.
        pub api_url: String = base_url("https://slack.com/api"),
        /// As [`HttpTarget::proxy_url`].
        pub proxy_url: Option<SecretString> = secret(),
        pub incident_channel: String = get("#incidents"),
        /// Clicks count only from this workspace; `None`: from any that has the app.
        pub team_id: Option<String> = get(""),
        /// Clicks count only in messages of this app; `None`: the app of `app_token`, if that is set.
        pub app_id: Option<String> = get(""),
    }
}

impl SlackConfig {
    /// The app whose clicks count, if it is known: an app-level token contains it (`xapp-1-A012AB3CD-…`).
    pub fn expected_app(&self) -> Option<&str> {
        let of_token = || self.app_token.as_ref()?.expose_secret().split('-').nth(2).filter(|id| id.starts_with('A'));
        self.app_id.as_deref().or_else(of_token)
    }
}

section! {
    /// A program that is notified of events.
    pub struct WebhookConfig {
        /// May contain a secret, as for chat and workflow services. `None` is an error in the config, here and below.
        pub url: Option<SecretString> = token(),
        /// Signs each event.
        pub secret: Option<SecretString> = secret(),
        /// The events that it gets; empty: all.
        pub events: Vec<Kind> = get(""),
    }
}

impl WebhookConfig {
    pub fn wants(&self, kind: Kind) -> bool {
        self.events.is_empty() || self.events.contains(&kind)
    }
}

section! {
    /// People who may decide.
    #[derive(Default)]
    pub struct Decider {
        /// Where they are asked; `None`: in `slack.incident_channel`.
        pub channel: Option<String> = get(""),
        /// Their mention, such as `<!subteam^S012AB3CD>`.
        pub mention: Option<String> = get(""),
        /// Slack ids of users and user groups; empty, without `approvers_url`: no one may decide in Slack.
        pub approvers: Vec<String> = get(""),
        /// URL of the team's schedule: a GET returns the Slack ids of the people on call, who may decide too. May hold a secret.
        pub approvers_url: Option<SecretString> = token(),
    }
}

impl Decider {
    /// Longest mention, in bytes: more would not fit beside the rest of a message.
    pub const MAX_MENTION: usize = 500;
}

section! {
    pub struct RegistryConfig {
        /// How long a version must serve, with nothing against it, to become known-good.
        pub soak: Duration = get("1h"),
        /// With Prometheus: how many requests must be measured during the soak.
        pub soak_requests: u32 = get("20"),
        /// After this time a version becomes known-good by time alone.
        pub soak_limit: Duration = get("24h"),
        /// The team's own test of a version, before people roll back to it.
        pub precheck_url: Option<String> = get(""),
    }
}

section! {
    /// What may hold an automatic rollback.
    pub struct GuardsConfig {
        pub mode: GuardMode = get("armed"),
        pub confirm: Confirm = get("alert"),
        /// Who decides if an alert names no valid decider.
        pub fallback_decider: String = get("on-call"),
        /// Most prompts rolled back automatically within the window below; 0: never automatic, but for the end of a canary.
        pub max_auto_rollbacks: u32 = get("5"),
        pub max_auto_rollbacks_window: Duration = get("5m"),
        /// A version that a rollback made active is not rolled back automatically for this long.
        pub cooldown: Duration = get("30m"),
        /// A version that has served for longer is not rolled back automatically; `None`: no limit.
        pub ask_when_active_for_longer_than: Option<Duration> = get("off"),
    }
}

section! {
    pub struct IncidentsConfig {
        /// A resolved incident reopens if its alert fires again within this time; 0: never.
        pub reopen_within: Duration = get("1h"),
        /// An alert that is not repeated for this long counts as ended.
        pub alert_resolve_timeout: Duration = get("6h"),
    }
}

section! {
    /// How a rollback is verified.
    pub struct VerificationConfig {
        pub every: Duration = get("5s"),
        /// Checks at this interval; later ones are further apart.
        pub fast_checks: u32 = get("12"),
        pub healthy_in_a_row: u32 = get("2"),
        /// How long after a rollback people are paged if the measurements are bad, or an instance does not follow.
        pub deadline: Duration = get("5m"),
        /// How long after a rollback it becomes unverified if too little is measured.
        pub max: Duration = get("1h"),
    }
}

section! {
    /// A gradual rollback.
    pub struct GradualConfig {
        /// The percentage left on the bad version in each stage; falling to 0.
        pub stages: Vec<u8> = get("75,50,25,0"),
        /// How long each stage is held.
        pub hold: Duration = get("10m"),
        /// PromQL with `$prompt` and `$version`, 1 = stop; `None`: by the target's error ratio.
        pub abort_query: Option<String> = get(""),
    }
}

section! {
    /// The requirements for a new version before it gets traffic.
    pub struct GatesConfig {
        pub staging: bool = get("false"),
        /// The required time in staging.
        pub staged_for: Duration = get("24h"),
        pub ab_test: bool = get("false"),
        /// Whether a first hour with a share of the traffic is required.
        pub first_hour: bool = get("false"),
    }
}

section! {
    pub struct RetentionConfig {
        /// How many versions of a prompt keep their content in Redis.
        pub hot_versions: u32 = get("3"),
        /// The directory for older content; `None`: it stays in Redis.
        pub archive: Option<PathBuf> = get_path(),
        /// How long content is kept after its last use.
        pub keep: Duration = get("180d"),
    }
}

section! {
    /// The report of a dry run.
    pub struct ReportConfig {
        /// When it is posted to `slack.incident_channel`; `None`: never.
        pub weekly: Option<Weekly> = get("mon 09:00"),
    }
}

section! {
    pub struct MetricsConfig {
        /// The address of `/metrics` if it is not served at `server.listen`; `None`: it is.
        pub listen: Option<SocketAddr> = get_fixed(""),
        /// Prompts with version series of their own, those with the latest activity first.
        pub max_prompts: u32 = get("20000"),
    }
}

section! {
    pub struct LogConfig {
        pub format: LogFormat = get_fixed("text"),
        pub level: LogLevel = get("info"),
    }
}

section! {
    /// Where spans are exported to.
    pub struct TracingConfig {
        /// Base URL of a collector that takes OTLP over HTTP; `None`: nowhere.
        pub otlp_endpoint: Option<String> = get_fixed(""),
        /// Sent with each export, as `NAME=VALUE,NAME=VALUE`.
        pub otlp_headers: Option<SecretString> = secret(),
        /// Share of the traces that begin here which is exported, from 0 to 1.
        pub sample_ratio: Ratio = get_fixed("1.0"),
    }
}

impl TracingConfig {
    /// Where spans are posted, below the endpoint.
    pub const PATH: &str = "/v1/traces";

    /// `otlp_headers`, as a valid config has them.
    pub fn headers(&self) -> HeaderMap {
        self.otlp_headers.as_ref().and_then(|text| headers(text.expose_secret())).unwrap_or_default()
    }
}
