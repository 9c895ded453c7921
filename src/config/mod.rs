//! The config: a TOML file, environment variables, and a default for every key.
//!
//! `config/prompt-rollback.toml` shows every key with its default. Each key is also the environment variable
//! `PROMPT_ROLLBACK_SECTION__KEY`, which overrides the file. Secrets never appear in `Debug`.

use std::collections::BTreeMap;
use std::path::Path;

mod canary;
mod duration;
mod error;
mod files;
mod forms;
mod http_target;
mod key;
mod patterns;
mod reader;
mod redis_url;
mod secret;
mod sections;
mod settings;
mod shown;
mod target;
mod validate;
mod value;
mod values;
mod words;

pub use duration::{DurationError, format_prometheus_duration, parse_prometheus_duration};
pub use error::{ConfigError, ConfigProblem, Origin};
pub(crate) use files::{MAX_FILE, read_file};
pub(crate) use forms::is_server;
pub use http_target::HttpTarget;
pub use patterns::{allows, allows_all};
pub use reader::RenamedKey;
pub use redis_url::{RedisIdentity, RedisUrl};
pub(crate) use secret::{bare, decode, unfit};
pub use sections::{
    AlertmanagerConfig, Decider, GatesConfig, GradualConfig, GuardsConfig, IncidentsConfig, Labels, LogConfig,
    MetricsConfig, PageConfig, PrometheusConfig, ProxyConfig, RedisConfig, RegistryConfig, ReportConfig,
    RetentionConfig, ServerConfig, SlackConfig, SourceConfig, TokenConfig, TracingConfig, VerificationConfig,
    WebhookConfig,
};
pub use settings::{ConfigSources, LoadedConfig, Reread};
pub use value::{Network, Ratio, Weekly};
pub use values::ConfigChange;
pub use words::{Confirm, GuardMode, LogFormat, LogLevel, RedisMode, Role};

use crate::decision::{CanaryPolicies, Plan, Policy};
use canary::read_canary;
use key::ENV_PREFIX;
use reader::{ConfigFindings, ConfigReader};

/// All settings of the receiver.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: ServerConfig,
    /// Additional senders of alerts, by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// API tokens besides `server.api_token`, by name.
    pub tokens: BTreeMap<String, TokenConfig>,
    pub proxy: ProxyConfig,
    pub page: PageConfig,
    pub redis: RedisConfig,
    pub prometheus: PrometheusConfig,
    pub alertmanager: AlertmanagerConfig,
    pub labels: Labels,
    pub slack: SlackConfig,
    /// Additional notification targets, by name.
    pub webhooks: BTreeMap<String, WebhookConfig>,
    /// Who may decide, by the value of the alert's `decider` label; `on-call` and `product-pm` always exist.
    pub deciders: BTreeMap<String, Decider>,
    pub registry: RegistryConfig,
    pub guards: GuardsConfig,
    pub incidents: IncidentsConfig,
    pub verification: VerificationConfig,
    pub gradual: GradualConfig,
    pub canary: CanaryPolicies,
    pub gates: GatesConfig,
    pub retention: RetentionConfig,
    pub report: ReportConfig,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
    pub tracing: TracingConfig,
}

impl Default for Config {
    #[allow(clippy::expect_used, reason = "without a file or variables only our own defaults are read")]
    fn default() -> Self {
        Self::load(None, std::iter::empty()).expect("defaults are valid")
    }
}

impl Config {
    /// Reads the file, if there is one, and the variables that begin with `PROMPT_ROLLBACK_`.
    ///
    /// All errors are reported together: unknown keys, wrong types, invalid values, and secret files that cannot be
    /// read.
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Ok(LoadedConfig::load(path, env)?.config)
    }

    /// Like [`Config::load`], from a text that counts as the file at `path`.
    pub fn parse(
        text: &str,
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Ok(Self::read_from(ConfigReader::new(path, text, env))?.0)
    }

    fn read_from(mut reader: ConfigReader<'_>) -> Result<(Self, ConfigFindings), ConfigError> {
        if !reader.is_readable() {
            reader.finish()?;
            unreachable!("an unreadable file is a problem");
        }
        let mut config = Self::read(&mut reader);
        config.validate(&mut reader);
        Ok((config, reader.finish()?))
    }

    /// The part that the rules read.
    pub fn policy(&self) -> Policy {
        Policy {
            soak: self.registry.soak,
            soak_requests: u64::from(self.registry.soak_requests),
            soak_limit: self.registry.soak_limit,
            dry_run: self.guards.mode == GuardMode::DryRun,
            max_auto_rollbacks: self.guards.max_auto_rollbacks,
            budget_window: self.guards.max_auto_rollbacks_window,
            cooldown: self.guards.cooldown,
            ask_when_active_for_longer_than: self.guards.ask_when_active_for_longer_than,
            fallback_decider: self.guards.fallback_decider.clone(),
            deciders: self.deciders.keys().cloned().collect(),
            severity_aliases: self.labels.severity_aliases.clone(),
            reopen_within: self.incidents.reopen_within,
            alert_resolve_timeout: self.incidents.alert_resolve_timeout,
            verification_deadline: self.verification.deadline,
            verification_max: self.verification.max,
            confirm: self.prometheus.url.is_some() || self.registry.precheck_url.is_some(),
            requery: self.guards.confirm == Confirm::Requery,
            verify: self.prometheus.url.is_some(),
            verify_every: self.verification.every,
            verify_fast_checks: self.verification.fast_checks,
            verify_healthy: self.verification.healthy_in_a_row,
            gradual: Plan {
                stages: self.gradual.stages.iter().map(|left| 100u8.saturating_sub(*left)).collect(),
                holds: vec![self.gradual.hold],
                limit: None,
            },
            gates: crate::decision::GatePolicy {
                staging: self.gates.staging.then_some(self.gates.staged_for),
                ab_test: self.gates.ab_test,
                first_hour: self.gates.first_hour.then_some(Policy::FIRST_HOUR),
            },
            canary: self.canary.clone(),
            hot_versions: self.retention.hot_versions as usize,
            archive: self.retention.archive.is_some(),
            keep: self.retention.keep,
        }
    }

    /// All dotted keys.
    pub fn keys() -> Vec<String> {
        let mut reader = ConfigReader::new(None, "", std::iter::empty());
        Self::read(&mut reader);
        reader.known_keys().map(str::to_owned).collect()
    }

    /// The keys that a running receiver cannot change.
    pub fn keys_that_need_a_restart() -> Vec<String> {
        let mut reader = ConfigReader::new(None, "", std::iter::empty());
        Self::read(&mut reader);
        reader.values.fixed_keys().map(str::to_owned).collect()
    }

    fn read(r: &mut ConfigReader<'_>) -> Self {
        let deciders = r.names("deciders", &["on-call", "product-pm"]);
        r.values.set("deciders", &deciders);
        let sources = r.names("sources", &[]);
        r.values.set("sources", &sources);
        let tokens = r.names("tokens", &[]);
        r.values.set("tokens", &tokens);
        let webhooks = r.names("webhooks", &[]);
        r.values.set("webhooks", &webhooks);
        Self {
            server: ServerConfig::read(r, "server"),
            sources: sources
                .into_iter()
                .map(|name| (name.clone(), SourceConfig::read(r, &format!("sources.{name}"))))
                .collect(),
            tokens: tokens
                .into_iter()
                .map(|name| (name.clone(), TokenConfig::read(r, &format!("tokens.{name}"))))
                .collect(),
            proxy: ProxyConfig::read(r, "proxy"),
            page: PageConfig::read(r, "page"),
            redis: RedisConfig::read(r, "redis"),
            prometheus: PrometheusConfig::read(r, "prometheus"),
            alertmanager: AlertmanagerConfig::read(r, "alertmanager"),
            labels: Labels::read(r, "labels"),
            slack: SlackConfig::read(r, "slack"),
            webhooks: webhooks
                .into_iter()
                .map(|name| (name.clone(), WebhookConfig::read(r, &format!("webhooks.{name}"))))
                .collect(),
            deciders: deciders
                .into_iter()
                .map(|name| (name.clone(), Decider::read(r, &format!("deciders.{name}"))))
                .collect(),
            registry: RegistryConfig::read(r, "registry"),
            guards: GuardsConfig::read(r, "guards"),
            incidents: IncidentsConfig::read(r, "incidents"),
            verification: VerificationConfig::read(r, "verification"),
            gradual: GradualConfig::read(r, "gradual"),
            canary: read_canary(r),
            gates: GatesConfig::read(r, "gates"),
            retention: RetentionConfig::read(r, "retention"),
            report: ReportConfig::read(r, "report"),
            metrics: MetricsConfig::read(r, "metrics"),
            log: LogConfig::read(r, "log"),
            tracing: TracingConfig::read(r, "tracing"),
        }
    }
}

/// The environment for [`Config::load`]. Text that is not Unicode contains replacement characters, so that it is
/// reported for its key.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
}
