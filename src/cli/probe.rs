//! `check --connect`: are Redis, Slack, schedules of deciders, webhooks and the collector of spans there and fit, and which prompts
//! could not be rolled back?

use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::Full;
use hyper::Request;
use hyper::header::CONTENT_TYPE;

use super::check::{Probe, StoreReport};
use crate::config::{self, Config};
use crate::decision::{Needs, Policy, Timestamp};
use crate::events;
use crate::http::prompt_row;
use crate::http_client::Outgoing;
use crate::notify::slack::Schedule;
use crate::notify::webhook::client::{Untaken, WebhookClient};
use crate::reconciler::archive::files::ArchiveDirectory;
use crate::slack::client::Slack;
use crate::store::{Clock, Level, SelfTestResult, Store, StoreError, fresh_ulid};
use crate::visible::shown;

/// For one request to the collector.
const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(5);

/// Tests Slack, if it is configured: token, scopes, channels and user groups.
pub async fn probe_slack(config: &Config) -> Vec<Probe> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Slack::new(&config.slack) {
        Ok(None) => Vec::new(),
        Ok(Some(slack)) => {
            let probed = slack.probe(config).await.into_iter();
            probed.map(|(name, ok, detail)| Probe::new(name, ok, detail)).collect()
        }
        Err(error) => vec![Probe::new("slack", false, error.to_string())],
    }
}

/// Deciders without approvers: Slack asks them, but no one may answer there.
pub fn probe_deciders(config: &Config) -> Vec<Probe> {
    let nobody = |decider: &config::Decider| decider.approvers.is_empty() && decider.approvers_url.is_none();
    let asked = config.deciders.iter().filter(|(_, decider)| config.slack.bot_token.is_some() && nobody(decider));
    let detail = "approvers is empty and approvers_url is not set: nobody can decide in Slack";
    asked
        .map(|(name, _)| Probe { name: format!("decider {name}"), level: Level::Warning, detail: detail.to_owned() })
        .collect()
}

/// Reads who is on call from the schedule of each decider that has one.
pub async fn probe_schedules(config: &Config) -> Vec<Probe> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = async |(name, decider): (&String, &config::Decider)| {
        let on_call = match Schedule::of(name, decider).transpose()? {
            Ok(schedule) => schedule.read().await,
            Err(error) => Err(error),
        };
        let (level, detail) = match on_call {
            Ok(people) if people.is_empty() => {
                (Level::Warning, "0 on call: only `approvers` may decide now".to_owned())
            }
            Ok(people) => (Level::Ok, format!("{} on call", people.len())),
            Err(error) => (Level::Problem, error),
        };
        Some(Probe { name: format!("decider {name} schedule"), level, detail })
    };
    join_all(config.deciders.iter().map(read)).await.into_iter().flatten().collect()
}

/// Sends each webhook a signed test event, of the type `io.prompt-rollback.ping`.
pub async fn probe_webhooks(config: &Config) -> Vec<Probe> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (now, source) = (jiff::Timestamp::now(), events::source(&config.redis.namespace));
    let probe = async |(name, webhook): (&String, &config::WebhookConfig)| {
        let id = fresh_ulid(Timestamp(now.as_millisecond()));
        let body = events::ping(&source, &id, Timestamp(now.as_millisecond()));
        let tried = match WebhookClient::new(webhook) {
            Ok(client) => match client.send(&id, &body, now.as_second()).await {
                Ok(()) => Ok(format!("{} accepts signed events", client.shown())),
                // the error names the address itself
                Err(error @ Untaken::Unreachable(_)) => Err(error.to_string()),
                Err(error) => Err(format!("{}: {error}", client.shown())),
            },
            Err(error) => Err(error),
        };
        Probe::new(format!("webhook {name}"), tried.is_ok(), tried.unwrap_or_else(|error| error))
    };
    join_all(config.webhooks.iter().map(probe)).await
}

/// Sends an export without spans to the collector, if one is configured.
pub async fn probe_collector(config: &Config) -> Option<Probe> {
    let endpoint = config.tracing.otlp_endpoint.as_deref()?.trim_end_matches('/');
    let tried = async {
        let http = Outgoing::new(endpoint.parse()?, COLLECTOR_TIMEOUT).map_err(|error| error.to_string())?;
        let request = Request::post(config::TracingConfig::PATH).header(CONTENT_TYPE, "application/x-protobuf");
        let mut request = request.body(Full::default()).map_err(|error| error.to_string())?;
        request.headers_mut().extend(config.tracing.headers());
        match http.answered(request).await.map_err(|error| error.to_string())? {
            (status, _) if status.is_success() => Ok(format!("{endpoint} accepts spans")),
            (status, _) => Err(format!("{endpoint} answered {status}")),
        }
    };
    let result: Result<String, String> = tried.await;
    Some(Probe::new("otlp collector", result.is_ok(), result.unwrap_or_else(|error| error)))
}

/// Tests whether content can be archived, if `retention.archive` is set.
pub fn probe_archive(config: &Config) -> Option<Probe> {
    let root = config.retention.archive.as_deref()?;
    let probed = ArchiveDirectory::new(root).probe();
    let ok = probed.is_ok();
    let detail = match probed {
        Ok(()) => format!("{} can be written to", root.display()),
        Err(error) => format!("content cannot be archived: {error}"),
    };
    Some(Probe::new("archive", ok, detail))
}

/// Tests Redis as a receiver would, for `check --connect`.
pub async fn probe(config: &Config) -> StoreReport {
    let mut report = StoreReport::default();
    if let Err(error) = probe_into(config, &mut report).await {
        report.probes.push(Probe::new("redis", false, error.to_string()));
    }
    report
}

async fn probe_into(config: &Config, report: &mut StoreReport) -> Result<(), StoreError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = Store::new(&config.redis, Clock::default())?;
    let mut add = |name: &str, ok: bool, detail: String| {
        report.probes.push(Probe::new(format!("redis {name}"), ok, detail));
    };
    store.ping().await?;
    if let Some(master) = store.located() {
        add("master", true, master);
    }
    match store.server_version().await? {
        None => add("reachable", true, "version unknown (INFO is not permitted)".to_owned()),
        Some(version) => {
            let old = version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|m| m < 7);
            let hint = if old { ": 7.0 or newer is needed" } else { "" };
            add("reachable", !old, format!("version {version}{hint}"));
        }
    }
    let findings = store.selftest().await?.findings.into_iter();
    report.probes.extend(findings.map(|SelfTestResult { name, level, detail }| {
        let name = format!("redis {name}");
        Probe { name, level, detail }
    }));
    read_prompts(&store, &config.policy(), report).await
}

/// Which prompts have no rollback target, and which have a record that cannot be read. By name.
async fn read_prompts(store: &Store, policy: &Policy, report: &mut StoreReport) -> Result<(), StoreError> {
    let mut unreadable = Vec::new();
    let mut behind = None;
    loop {
        let page = store.known(behind.as_deref()).await?;
        for prompt in page.items {
            let row = match store.load(&prompt, policy.budget_window, Needs::default()).await {
                Ok(loaded) => prompt_row(&loaded.snapshot, policy, loaded.now),
                Err(error @ (StoreError::Broken { .. } | StoreError::NewerRecord { .. })) => {
                    unreadable.push(format!("{}: {error}", shown(&prompt)));
                    continue;
                }
                Err(_) => continue,
            };
            if row.rollback_target.is_none() {
                report.without_target.push(row);
            }
        }
        if page.next.is_none() {
            break;
        }
        behind = page.next;
    }
    if let Some(first) = unreadable.first() {
        let detail = format!("{} cannot be read, such as that of {first}", unreadable.len());
        report.probes.push(Probe { name: "redis records".to_owned(), level: Level::Warning, detail });
    }
    Ok(())
}
