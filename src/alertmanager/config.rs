//! Someone's own `alertmanager.yml`: which receivers an alert reaches, what inhibits it, and what its webhooks send. Pure.
//!
//! Reads only what decides about alerts of prompts; `amtool check-config` checks the rest.

use std::time::Duration;

use super::matchers::{LabelSet, Matcher, parse};
use crate::config::parse_prometheus_duration;
use crate::yaml::{Yaml, YamlError, YamlNode};

/// The path of the webhook.
pub const WEBHOOK_PATH: &str = "/webhooks/alertmanager";

/// A file of Alertmanager.
#[derive(Debug)]
pub struct AlertmanagerFile {
    pub route: RouteNode,
    pub inhibit_rules: Vec<InhibitRule>,
    pub receivers: Vec<Receiver>,
}

/// A node of the route tree, with what it inherits.
#[derive(Debug, Clone)]
pub struct RouteNode {
    /// Such as `route.routes[2]`.
    pub path: String,
    pub line: usize,
    pub receiver: String,
    pub group_by: GroupBy,
    pub group_wait: Duration,
    pub group_interval: Duration,
    pub repeat_interval: Duration,
    /// Time intervals in which it sends nothing.
    pub muted_in: Vec<String>,
    /// Time intervals outside of which it sends nothing; empty: it always sends.
    pub active_in: Vec<String>,
    matchers: Vec<Matcher>,
    continues: bool,
    routes: Vec<RouteNode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupBy {
    All,
    Labels(Vec<String>),
}

impl GroupBy {
    pub fn separates(&self, label: &str) -> bool {
        match self {
            GroupBy::All => true,
            GroupBy::Labels(labels) => labels.iter().any(|one| one == label),
        }
    }
}

#[derive(Debug)]
pub struct InhibitRule {
    pub path: String,
    pub line: usize,
    pub source: Vec<Matcher>,
    pub target: Vec<Matcher>,
    /// Labels that must have the same value on both alerts.
    pub equal: Vec<String>,
}

#[derive(Debug)]
pub struct Receiver {
    pub name: String,
    pub line: usize,
    pub webhooks: Vec<WebhookEntry>,
    /// Whether it has an integration besides our webhook.
    pub notifies: bool,
}

#[derive(Debug)]
pub struct WebhookEntry {
    /// Such as `receivers[1].webhook_configs[0]`.
    pub path: String,
    pub line: usize,
    pub address: Address,
    pub send_resolved: bool,
    pub max_alerts: u64,
    /// The webhook's own timeout; `None`: only Alertmanager's deadline for a group applies.
    pub timeout: Option<Duration>,
    pub follow_redirects: bool,
    pub authorization: Authorization,
    pub has_client_certificate: bool,
    /// Whether it sets `payload`, which replaces Alertmanager's body.
    pub has_payload: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Url(String),
    /// The path of `url_file`, which only Alertmanager reads.
    File(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    Nothing,
    /// Another scheme than bearer tokens, such as `basic_auth`.
    Other(&'static str),
    Token(String),
    /// The file with the token, as written.
    TokenFile(String),
}

impl WebhookEntry {
    /// Whether this is our webhook. A proxy may add a path before it.
    pub fn is_ours(&self) -> bool {
        match &self.address {
            Address::Url(url) => url_path(url).ends_with(WEBHOOK_PATH),
            Address::File(_) => false,
        }
    }
}

/// The path of a URL, without query and fragment.
fn url_path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    path.split(['?', '#']).next().unwrap_or_default()
}

/// The `http_config` of the webhooks without one of their own, which replaces it as a whole.
pub fn global_http<'a>(file: &YamlNode<'a>) -> Result<Option<YamlNode<'a>>, YamlError> {
    Ok(file.get("global")?.map(|global| global.get("http_config")).transpose()?.flatten())
}

impl AlertmanagerFile {
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        Self::read(&YamlNode::root(&Yaml::parse(text)?))
    }

    pub fn read(file: &YamlNode<'_>) -> Result<Self, YamlError> {
        let Some(route) = file.get("route")? else { return Err(file.error("expected the key route")) };
        let global = global_http(file)?;
        let mut names = Names::default();
        let mut receivers = Vec::new();
        for node in file.list("receivers")? {
            let receiver = Receiver::read(&node, global.as_ref())?;
            if names.receivers.contains(&receiver.name) {
                return Err(node.error(&format!("found the name {:?} twice, expected it once", receiver.name)));
            }
            names.receivers.push(receiver.name.clone());
            receivers.push(receiver);
        }
        for key in ["time_intervals", "mute_time_intervals"] {
            for interval in file.list(key)? {
                names.intervals.extend(interval.text_of("name")?);
            }
        }
        let root = RouteNode {
            path: String::new(),
            line: 0,
            receiver: String::new(),
            group_by: GroupBy::Labels(Vec::new()),
            group_wait: Duration::from_secs(30),
            group_interval: Duration::from_secs(5 * 60),
            repeat_interval: Duration::from_secs(4 * 3_600),
            muted_in: Vec::new(),
            active_in: Vec::new(),
            matchers: Vec::new(),
            continues: false,
            routes: Vec::new(),
        };
        let root = root.child(&route, &names)?;
        if root.receiver.is_empty() {
            return Err(route.error("expected the key receiver"));
        }
        let restricts = |key: &str| match key {
            "continue" => root.continues,
            "mute_time_intervals" => !root.muted_in.is_empty(),
            "active_time_intervals" => !root.active_in.is_empty(),
            _ => !root.matchers.is_empty(),
        };
        for key in ["match", "match_re", "matchers", "continue", "mute_time_intervals", "active_time_intervals"] {
            // Alertmanager's dump of its own config has some of them, with empty values
            if let Some(node) = route.get(key)?.filter(|_| restricts(key)) {
                return Err(node.error("the root route must take every alert, so it cannot have this key"));
            }
        }
        let inhibit_rules = file.list("inhibit_rules")?;
        let inhibit_rules = inhibit_rules.iter().map(InhibitRule::read).collect::<Result<_, _>>()?;
        Ok(Self { route: root, inhibit_rules, receivers })
    }

    /// The routes that notify about an alert, in the order of the file.
    pub fn routes(&self, labels: &LabelSet) -> Vec<&RouteNode> {
        self.route.matching(labels)
    }

    pub fn receiver(&self, name: &str) -> Option<&Receiver> {
        self.receivers.iter().find(|receiver| receiver.name == name)
    }
}

/// The names that routes may use.
#[derive(Default)]
struct Names {
    receivers: Vec<String>,
    intervals: Vec<String>,
}

impl Names {
    fn check(node: Option<YamlNode<'_>>, known: &[String], what: &str) -> Result<(), YamlError> {
        let Some(node) = node else { return Ok(()) };
        let name = node.text()?;
        if known.iter().any(|one| one == name) { Ok(()) } else { Err(node.wrong(what)) }
    }
}

impl RouteNode {
    fn child(&self, node: &YamlNode<'_>, names: &Names) -> Result<RouteNode, YamlError> {
        let receiver = node.text_of("receiver")?.filter(|name| !name.is_empty());
        if receiver.is_some() {
            Names::check(node.get("receiver")?, &names.receivers, "the name of a receiver in `receivers`")?;
        }
        for key in ["mute_time_intervals", "active_time_intervals"] {
            for name in node.list(key)? {
                Names::check(Some(name), &names.intervals, "the name of an interval in `time_intervals`")?;
            }
        }
        let duration = |key, inherited| Ok(duration(node, key)?.unwrap_or(inherited));
        let group_by = match node.texts("group_by")? {
            // Alertmanager takes an empty list for none
            labels if labels.is_empty() => self.group_by.clone(),
            labels if labels.iter().any(|label| label == "...") => GroupBy::All,
            labels => GroupBy::Labels(labels),
        };
        let mut route = RouteNode {
            path: node.path.clone(),
            line: node.line(),
            receiver: receiver.unwrap_or(self.receiver.clone()),
            group_by,
            group_wait: duration("group_wait", self.group_wait)?,
            group_interval: duration("group_interval", self.group_interval)?,
            repeat_interval: duration("repeat_interval", self.repeat_interval)?,
            muted_in: node.texts("mute_time_intervals")?,
            active_in: node.texts("active_time_intervals")?,
            matchers: matchers(node, "match", "match_re", "matchers")?,
            continues: node.flag("continue")?.unwrap_or_default(),
            routes: Vec::new(),
        };
        for child in node.list("routes")? {
            let child = route.child(&child, names)?;
            route.routes.push(child);
        }
        Ok(route)
    }

    /// Whether it sends at any time of the day.
    pub fn is_always_on(&self) -> bool {
        self.muted_in.is_empty() && self.active_in.is_empty()
    }

    /// How often it really repeats: a group is looked at once in each `group_interval`.
    pub fn repeat(&self) -> Duration {
        self.repeat_interval.max(self.group_interval)
    }

    fn matching(&self, labels: &LabelSet) -> Vec<&RouteNode> {
        if !self.matchers.iter().all(|matcher| matcher.matches(labels)) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for route in &self.routes {
            let deeper = route.matching(labels);
            let ends = !deeper.is_empty() && !route.continues;
            found.extend(deeper);
            if ends {
                break;
            }
        }
        if found.is_empty() { vec![self] } else { found }
    }
}

impl InhibitRule {
    fn read(node: &YamlNode<'_>) -> Result<Self, YamlError> {
        Ok(Self {
            path: node.path.clone(),
            line: node.line(),
            source: matchers(node, "source_match", "source_match_re", "source_matchers")?,
            target: matchers(node, "target_match", "target_match_re", "target_matchers")?,
            equal: node.texts("equal")?,
        })
    }
}

impl Receiver {
    fn read(node: &YamlNode<'_>, global: Option<&YamlNode<'_>>) -> Result<Self, YamlError> {
        let name = node.text_of("name")?.ok_or_else(|| node.error("expected the key name"))?;
        let webhooks = node.list("webhook_configs")?;
        let webhooks = webhooks.iter().map(|one| WebhookEntry::read(one, global)).collect::<Result<Vec<_>, _>>()?;
        let mut notifies = webhooks.iter().any(|webhook| !webhook.is_ours());
        for (key, value) in node.entries()? {
            notifies |= key.ends_with("_configs") && key != "webhook_configs" && !value.items()?.is_empty();
        }
        Ok(Self { name, line: node.line(), webhooks, notifies })
    }
}

impl WebhookEntry {
    fn read(node: &YamlNode<'_>, global: Option<&YamlNode<'_>>) -> Result<Self, YamlError> {
        let address = match (node.text_of("url")?, node.text_of("url_file")?) {
            (Some(url), _) => Address::Url(url),
            (None, Some(file)) => Address::File(file),
            (None, None) => return Err(node.error("expected the key url")),
        };
        let own = node.get("http_config")?;
        let http = own.as_ref().or(global);
        let tls = http.map(|http| http.get("tls_config")).transpose()?.flatten();
        let cert = |key| tls.as_ref().map_or(Ok(None), |tls| tls.text_of(key));
        let [cert, cert_file] = [cert("cert")?, cert("cert_file")?];
        Ok(Self {
            path: node.path.clone(),
            line: node.line(),
            address,
            send_resolved: node.flag("send_resolved")?.unwrap_or(true),
            max_alerts: node.read("max_alerts", "a number", |text| text.parse().ok())?.unwrap_or_default(),
            timeout: duration(node, "timeout")?.filter(|timeout| !timeout.is_zero()),
            follow_redirects: http.map(|http| http.flag("follow_redirects")).transpose()?.flatten().unwrap_or(true),
            authorization: http.map_or(Ok(Authorization::Nothing), Authorization::read)?,
            has_client_certificate: cert.or(cert_file).is_some_and(|cert| !cert.is_empty()),
            has_payload: node.get("payload")?.is_some(),
        })
    }
}

impl Authorization {
    /// Of an `http_config`.
    fn read(http: &YamlNode<'_>) -> Result<Self, YamlError> {
        for (key, other) in [("basic_auth", "basic_auth"), ("oauth2", "oauth2")] {
            if http.get(key)?.is_some() {
                return Ok(Self::Other(other));
            }
        }
        let (token, file) = match http.get("authorization")? {
            Some(own) => match own.text_of("type")? {
                Some(kind) if !kind.trim().eq_ignore_ascii_case("bearer") => {
                    return Ok(Self::Other("an authorization of another type than Bearer"));
                }
                _ => (own.text_of("credentials")?, own.text_of("credentials_file")?),
            },
            None => (http.text_of("bearer_token")?, http.text_of("bearer_token_file")?),
        };
        Ok(match (token, file) {
            (Some(token), _) => Self::Token(token),
            (None, Some(file)) => Self::TokenFile(file),
            (None, None) => Self::Nothing,
        })
    }
}

fn duration(node: &YamlNode<'_>, key: &str) -> Result<Option<Duration>, YamlError> {
    node.read(key, "a duration such as 30s or 5m", |text| parse_prometheus_duration(text).ok())
}

/// The matchers of a route or of one side of an inhibit rule, in the old and the new form.
fn matchers(node: &YamlNode<'_>, equal: &str, regex: &str, list: &str) -> Result<Vec<Matcher>, YamlError> {
    let mut found: Vec<Matcher> = node.table(equal)?.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
    if let Some(table) = node.get(regex)? {
        for (name, value) in table.entries()? {
            found.push(Matcher::regex(name, value.text()?).map_err(|error| value.error(&error))?);
        }
    }
    for item in node.list(list)? {
        found.extend(parse(item.text()?).map_err(|error| item.error(&error))?);
    }
    Ok(found)
}
