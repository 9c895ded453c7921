//! `check --connect`: tests whether the receiver could send everything that it may have to send.

use std::collections::BTreeSet;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::AUTHORIZATION;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use slack_morphism::prelude::{SlackApiAppsConnectionOpenRequest, ValueStruct};

use super::answers::{Channel, Nothing};
use super::call::{capped, within};
use super::{Slack, SlackError, is_id, name_of};
use crate::config::Config;
use crate::http_client::innermost;

/// The scopes in `config/slack-manifest.yaml`; a test compares them.
pub(super) const SCOPES: [&str; 7] = [
    "channels:history",
    "channels:read",
    "chat:write",
    "files:write",
    "groups:history",
    "groups:read",
    "usergroups:read",
];

/// An answer to `auth.test` is short.
const MAX_BODY: usize = 1 << 20;

/// Name, whether the test passed, and details.
type ProbeResult = (String, bool, String);

/// The owner of a token.
#[derive(Deserialize)]
struct Identity {
    ok: bool,
    error: Option<String>,
    team: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
struct Info {
    channel: Channel,
}

impl Slack {
    /// Tests the token, its scopes, the channels and user groups of the config, and the token of Socket Mode. Posts
    /// nothing.
    pub async fn probe(&self, config: &Config) -> Vec<ProbeResult> {
        let mut findings = Vec::new();
        let mut add = |name: &str, ok: bool, detail: String| findings.push((format!("slack {name}"), ok, detail));
        match within("auth.test", self.auth_test()).await {
            Ok((identity, scopes)) => {
                add("token", true, identity);
                let (ok, detail) = judge_scopes(scopes.as_deref());
                add("scopes", ok, detail);
                for (channel, ok, detail) in self.probe_channels(config).await {
                    add(&format!("channel {channel}"), ok, detail);
                }
                for (group, ok, detail) in self.probe_groups(config).await {
                    add(&format!("user group {group}"), ok, detail);
                }
            }
            Err(error) => add("token", false, error.to_string()),
        }
        if let Some(app) = &self.app {
            // without connecting: Slack would send clicks to a connection that handles none
            let opened = app.post("apps.connections.open", &SlackApiAppsConnectionOpenRequest::new()).await;
            match opened {
                Ok(Nothing {}) => add("app token", true, "Socket Mode may connect".to_owned()),
                Err(error) => add("app token", false, error.to_string()),
            }
        } else if config.slack.signing_secret.is_none() {
            add(
                "clicks",
                false,
                "neither slack.signing_secret nor slack.app_token is set: no one can decide".to_owned(),
            );
        }
        findings
    }

    /// The bot's identity, and the token's scopes. Without the library, because Slack lists the scopes in a header that
    /// the library drops.
    async fn auth_test(&self) -> Result<(String, Option<String>), SlackError> {
        const METHOD: &str = "auth.test";
        let failed = |error: &(dyn std::error::Error + 'static)| SlackError::retry(METHOD, innermost(error));
        let token = self.bot.token.token_value.value();
        let request = Request::post(format!("{}/{METHOD}", self.bot.url))
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::<Bytes>::default())
            .map_err(|error| failed(&error))?;
        let client = legacy::Client::builder(TokioExecutor::new()).build(capped(&self.bot.connector));
        let response = client.request(request).await.map_err(|error| failed(&error))?;
        let status = response.status().as_u16();
        let scopes = response.headers().get("x-oauth-scopes").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body =
            Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|error| failed(error.as_ref()))?;
        let Ok(identity) = serde_json::from_slice::<Identity>(&body.to_bytes()) else {
            return Err(SlackError::retry(METHOD, format!("HTTP status {status}, and the answer is not from Slack")));
        };
        if !identity.ok {
            return Err(SlackError::from_code(METHOD, &identity.error.unwrap_or_default()));
        }
        let of = |name: Option<String>| name.unwrap_or_else(|| "?".to_owned());
        Ok((format!("{} in {}", of(identity.user), of(identity.team)), scopes))
    }

    async fn probe_channels(&self, config: &Config) -> Vec<ProbeResult> {
        let of_deciders = config.deciders.values().filter_map(|decider| decider.channel.as_deref());
        let wanted: BTreeSet<&str> = of_deciders.chain([config.slack.incident_channel.as_str()]).collect();
        let names: Vec<&str> =
            wanted.iter().filter(|channel| !is_id(channel)).map(|channel| name_of(channel)).collect();
        let listed = if names.is_empty() { Ok(Vec::new()) } else { self.list_channels(&names).await };
        let mut findings = Vec::new();
        for channel in wanted {
            let found = if is_id(channel) {
                let info = self.bot.get("conversations.info", &[("channel", Some(channel))]).await;
                info.map(|Info { channel }| Some(channel))
            } else {
                let named = |found: &Vec<Channel>| found.iter().find(|found| found.name == name_of(channel)).cloned();
                listed.as_ref().map(named).map_err(Clone::clone)
            };
            let (ok, detail) = match found {
                Err(error) => (false, error.to_string()),
                Ok(None) => {
                    (false, "no channel has that name, or it is private and the app is not a member".to_owned())
                }
                Ok(Some(found)) if found.is_archived => (false, "it is archived".to_owned()),
                Ok(Some(found)) if !found.is_member => {
                    (false, "the app is not a member: type /invite @ and the app's name in the channel".to_owned())
                }
                Ok(Some(found)) => (true, format!("joined ({})", found.id)),
            };
            findings.push((channel.to_owned(), ok, detail));
        }
        findings
    }

    async fn probe_groups(&self, config: &Config) -> Vec<ProbeResult> {
        let approvers = config.deciders.values().flat_map(|decider| &decider.approvers);
        let groups: BTreeSet<&String> = approvers.filter(|approver| approver.starts_with('S')).collect();
        let mut findings = Vec::new();
        for group in groups {
            let (ok, detail) = match self.group_members(group).await {
                Err(error) => (false, error.to_string()),
                Ok(members) if members.is_empty() => (true, "it has no members".to_owned()),
                Ok(members) => (true, format!("members: {}", members.len())),
            };
            findings.push((group.clone(), ok, detail));
        }
        findings
    }
}

fn judge_scopes(granted: Option<&str>) -> (bool, String) {
    let Some(granted) = granted else { return (true, "Slack did not name them".to_owned()) };
    let granted: Vec<&str> = granted.split(',').map(str::trim).collect();
    let missing: Vec<&str> = SCOPES.into_iter().filter(|scope| !granted.contains(scope)).collect();
    if missing.is_empty() {
        (true, "all granted".to_owned())
    } else {
        (false, format!("missing: {}; add them to the app and install it again", missing.join(", ")))
    }
}
