//! The lines that someone's Alertmanager lacks: the routes and the receiver of `config/alertmanager.yml`, for their names.

use super::alerts::OurAlert;
use super::edits::Edits;
use super::routing::{Review, is_ours};
use super::webhooks::SHORTEST_TIMEOUT;
use crate::alertmanager::config::{AlertmanagerFile, Authorization, WEBHOOK_PATH, WebhookEntry, global_http};
use crate::alertmanager::matchers::LabelSet;
use crate::alertmanager::payload::DRILL_LABEL;
use crate::config::Config;
use crate::decision::Severity;
use crate::yaml::{YamlError, YamlNode};

const SHIPPED: &str = include_str!("../../../config/alertmanager.yml");
/// The name of our receiver there.
const NAME: &str = "prompt-rollback";

/// The name of the receiver that pages a person there.
const PAGER: &str = "pager";
/// The words for `medium` there, which are those of the default config.
const MEDIUM: &str = "medium|info";
/// Keys of an `http_config` that need not be copied from `global`, because our webhook sets its own values.
const OWN_KEYS: [&str; 6] =
    ["follow_redirects", "authorization", "basic_auth", "bearer_token", "bearer_token_file", "oauth2"];

/// The changes of the file that make our alerts arrive.
pub fn missing(text: &str, node: &YamlNode<'_>, review: &Review<'_>) -> Result<Edits, YamlError> {
    let mut edits = Edits::new(text);
    let global = global_http(node)?;
    if review.needs_routes() {
        add_routes(&mut edits, node, review, global.as_ref())?;
    }
    for (receiver, node) in review.file.receivers.iter().zip(node.list("receivers")?) {
        for (webhook, node) in receiver.webhooks.iter().zip(node.list("webhook_configs")?) {
            if webhook.is_ours() {
                mend_webhook(&mut edits, &node, webhook, global.as_ref())?;
                if review.lacks_certificate(webhook) {
                    add_certificate(&mut edits, &format!("{} (line {})", webhook.path, webhook.line));
                }
            }
        }
    }
    for (rule, node) in review.file.inhibit_rules.iter().zip(node.list("inhibit_rules")?) {
        exclude(&mut edits, &node, &review.inhibited(rule), &review.config.labels.prompt)?;
    }
    Ok(edits)
}

/// A whole file, for a receiver at this URL: the shipped one, with comments only where there is something to fill in.
pub fn whole(config: &Config, url: &str) -> String {
    let indented = |lines: Vec<String>, by: &str| lines.iter().map(|line| format!("{by}{line}\n")).collect::<String>();
    let (_, to_fill_in) = SHIPPED.split_once("\n  # Pages a person.").unwrap_or_default();
    format!(
        "route:\n{}  routes:\n{}\nreceivers:\n{}\n  # Pages a person.{to_fill_in}",
        indented(part("\nroute:\n", "\n  routes:\n"), "  "),
        indented(routes(config, NAME, PAGER), "    "),
        indented(receiver_at(url, NAME), "  "),
    )
}

/// Our routes before the file's own, and our receiver if there is none.
fn add_routes(
    edits: &mut Edits,
    node: &YamlNode<'_>,
    review: &Review<'_>,
    global: Option<&YamlNode<'_>>,
) -> Result<(), YamlError> {
    let (file, config) = (&review.file, review.config);
    // the routes for us must not lead to a receiver that notifies people as well
    let existing = file.receivers.iter().find(|receiver| is_ours(receiver) && !receiver.notifies);
    let mut receivers = Vec::new();
    let name = if let Some(existing) = existing {
        existing.name.clone()
    } else {
        let name = free(file, NAME);
        receivers.extend(receiver(config, review.receiver_url, &name));
        if let Some(global) = global {
            let mut keys = global.entries()?.into_iter().map(|(key, _)| key);
            if keys.any(|key| !OWN_KEYS.contains(&key)) {
                let line = global.line();
                edits.by_hand.push(format!(
                    "Add to http_config of the receiver {name} what it needs of global.http_config (line {line}), which it replaces"
                ));
            }
        }
        if review.wants_certificate() {
            add_certificate(edits, &format!("the receiver {name}"));
        }
        name
    };
    let mut routes = routes(config, &name, &pager(review));
    if review.drills_notify() {
        // the file's own routes follow, and a drill must not reach them
        let silent = file.receivers.iter().find(|receiver| !receiver.notifies && !is_ours(receiver));
        let silent = silent.map(|receiver| receiver.name.clone());
        let silent = silent.unwrap_or_else(|| {
            let name = free(file, &format!("{NAME}-drill"));
            receivers.push(format!("- name: {name}"));
            name
        });
        routes.extend([format!("- matchers: ['{DRILL_LABEL}!=\"\"']"), format!("  receiver: {}", quoted(&silent))]);
    }
    if let Some(route) = node.get("route")? {
        match route.get("routes")? {
            Some(list) if !list.is_empty() => edits.add_items(&list, &routes),
            _ => edits.put(&route, "routes", &routes)?,
        }
    }
    if let Some(list) = node.get("receivers")?.filter(|_| !receivers.is_empty()) {
        edits.add_items(&list, &receivers);
    }
    Ok(())
}

/// `global`: what an `http_config` of its own would replace.
fn mend_webhook(
    edits: &mut Edits,
    node: &YamlNode<'_>,
    webhook: &WebhookEntry,
    global: Option<&YamlNode<'_>>,
) -> Result<(), YamlError> {
    if !webhook.send_resolved {
        edits.set(node, "send_resolved", "true")?;
    }
    if webhook.max_alerts > 0 {
        edits.set(node, "max_alerts", "0")?;
    }
    if webhook.timeout.is_some_and(|timeout| timeout < SHORTEST_TIMEOUT) {
        edits.set(node, "timeout", "10s")?;
    }
    if let Some(payload) = node.get("payload")? {
        let why = "the receiver reads Alertmanager's own body";
        edits.by_hand.push(format!("Remove {} (line {}): {why}", payload.path, payload.line()));
    }
    let http = node.get("http_config")?;
    let replaced = global.filter(|global| http.is_none() && !global.is_empty());
    let http = http.filter(|http| !http.is_empty());
    let mut lines = Vec::new();
    if webhook.follow_redirects {
        match &http {
            Some(http) if http.get("follow_redirects")?.is_some() => edits.set(http, "follow_redirects", "false")?,
            _ => lines.push("follow_redirects: false".to_owned()),
        }
    }
    if webhook.authorization == Authorization::Nothing {
        let token = ["type: Bearer", "credentials_file: webhook_token"].map(str::to_owned);
        lines.extend(nested("authorization", &token));
    }
    match (http, replaced) {
        _ if lines.is_empty() => Ok(()),
        (Some(http), _) => edits.add_entries(&http, &lines),
        // its lines may hold secrets
        (None, Some(global)) => {
            let (path, line, of_global) = (&node.path, node.line(), global.line());
            let lines = nested("http_config", &lines).join("\n");
            edits.by_hand.push(format!(
                "Add to {path} (line {line}) these lines and everything else of global.http_config (line {of_global}), which they replace:\n{lines}"
            ));
            Ok(())
        }
        (None, None) => edits.put(node, "http_config", &lines),
    }
}

fn add_certificate(edits: &mut Edits, to: &str) {
    edits.by_hand.push(format!(
        "Add to http_config.tls_config of {to} a client certificate of server.tls_client_ca_file: cert_file and key_file"
    ));
}

/// Makes these alerts no targets of a rule.
fn exclude(edits: &mut Edits, rule: &YamlNode<'_>, alerts: &[&OurAlert], prompt: &str) -> Result<(), YamlError> {
    let mut matchers = Vec::new();
    if alerts.iter().any(|alert| alert.labels.contains_key(prompt)) {
        matchers.push(format!("'{prompt}=\"\"'"));
    }
    if alerts.iter().any(|alert| !alert.labels.contains_key(prompt)) {
        matchers.push("'alertname!~\"PromptRollback.*\"'".to_owned());
    }
    match rule.get("target_matchers")? {
        _ if matchers.is_empty() => Ok(()),
        Some(list) if !list.is_empty() => matchers.iter().try_for_each(|matcher| edits.add_text(&list, matcher)),
        _ if rule.key("target_matchers").is_some() => {
            let matchers: Vec<String> = matchers.iter().map(|matcher| format!("- {matcher}")).collect();
            edits.put(rule, "target_matchers", &matchers)
        }
        _ => edits.set(rule, "target_matchers", &format!("[{}]", matchers.join(", "))),
    }
}

/// A key with lines below it.
fn nested(key: &str, lines: &[String]) -> Vec<String> {
    std::iter::once(format!("{key}:")).chain(lines.iter().map(|line| format!("  {line}"))).collect()
}

/// A name that no receiver of the file has: this one, or one with a number.
fn free(file: &AlertmanagerFile, name: &str) -> String {
    let numbered = |number: u32| if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
    (1..).map(numbered).find(|name| file.receiver(name).is_none()).unwrap_or_default()
}

/// The receiver that gets critical alerts about other things now.
fn pager(review: &Review<'_>) -> String {
    let labels = [("alertname", "NodeDown"), ("severity", "critical")];
    let labels: LabelSet = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let file = &review.file;
    let notifies = |name: &&String| file.receiver(name).is_some_and(|it| it.notifies && !is_ours(it));
    let routed = file.routes(&labels).into_iter().map(|route| &route.receiver);
    let any = file.receivers.iter().map(|receiver| &receiver.name);
    routed.chain(any).find(notifies).unwrap_or(&file.route.receiver).clone()
}

/// A part of the shipped file, without comments and with the indentation of its first line removed.
fn part(from: &str, to: &str) -> Vec<String> {
    let (_, rest) = SHIPPED.split_once(from).unwrap_or_default();
    let (part, _) = rest.split_once(to).unwrap_or((rest, ""));
    let lines = part.lines().filter(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let columns = lines.clone().next().map_or(0, |line| line.len() - line.trim_start().len());
    lines.map(|line| line.get(columns..).unwrap_or_default().to_owned()).collect()
}

/// The shipped routes.
fn routes(config: &Config, receiver: &str, pager: &str) -> Vec<String> {
    let labels = &config.labels;
    // the words for a severity, and their case, as the receiver understands them
    let critical = words(config, Severity::Critical);
    let (is_critical, is_lesser) = match critical.as_slice() {
        [one] => (format!("severity=\"{one}\""), format!("severity!=\"{one}\"")),
        many => (format!("severity=~\"(?i:{})\"", many.join("|")), format!("severity!~\"(?i:{})\"", many.join("|"))),
    };
    let medium = match words(config, Severity::Medium).join("|") {
        shipped if shipped == MEDIUM => shipped,
        words => format!("(?i:{words})"),
    };
    let pairs = [
        ("'severity=\"critical\"'", quoted(&is_critical)),
        ("'severity!=\"critical\"'", quoted(&is_lesser)),
        (MEDIUM, medium.replace('\'', "''")),
        ("'prompt=~\".+\"', 'version=~", format!("'{}=~\".+\"', '{}=~", labels.prompt, labels.version)),
        ("group_by: [prompt, version", format!("group_by: [{}, {}", labels.prompt, labels.version)),
    ];
    let adapt = |line: &String| match line.trim() {
        "receiver: pager" => format!("  receiver: {}", quoted(pager)),
        "receiver: prompt-rollback" => format!("  receiver: {}", quoted(receiver)),
        _ => pairs.iter().fold(line.clone(), |line, (from, to)| line.replace(from, to)),
    };
    part("\n  routes:\n", "\n# No inhibit_rules").iter().map(adapt).collect()
}

/// A text in YAML.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let other = ["false", "n", "no", "null", "off", "on", "true", "y", "yes"].contains(&text.to_lowercase().as_str());
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(plain) && !other;
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

/// The names of a severity, its own first, as an expression of Alertmanager needs them.
fn words(config: &Config, severity: Severity) -> Vec<String> {
    let aliases =
        config.labels.severity_aliases.iter().filter(|(_, of)| **of == severity).map(|(alias, _)| alias.as_str());
    let all = std::iter::once(severity.as_str())
        .chain(aliases.filter(|alias| !alias.eq_ignore_ascii_case(severity.as_str())));
    // a backslash in the value of a matcher is doubled
    all.map(|word| regex::escape(word).replace('\\', "\\\\").replace('"', "\\\"")).collect()
}

/// The shipped receiver, at this URL or, without it, at the address of this config as far as that is known.
fn receiver(config: &Config, url: Option<&str>, name: &str) -> Vec<String> {
    if let Some(url) = url {
        return receiver_at(url, name);
    }
    let listen = config.server.listen;
    let scheme = if config.server.tls.is_some() { "https" } else { "http" };
    let host = if listen.ip().is_unspecified() { "receiver".to_owned() } else { listen.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    receiver_at(&format!("{scheme}://{host}:{}", listen.port()), name)
}

fn receiver_at(url: &str, name: &str) -> Vec<String> {
    let pairs = [
        ("name: prompt-rollback", format!("name: {}", quoted(name))),
        ("http://receiver:8000/webhooks/alertmanager", url_in_yaml(&format!("{url}{WEBHOOK_PATH}"))),
    ];
    let adapt = |line: &String| pairs.iter().fold(line.clone(), |line, (from, to)| line.replace(from, to));
    part("\nreceivers:\n", "\n  # Pages a person.").iter().map(adapt).collect()
}

/// A URL in YAML. A bracket of an IPv6 address, for example, is no beginning of a list there.
fn url_in_yaml(url: &str) -> String {
    let plain = url.chars().all(|c| c.is_ascii_alphanumeric() || "-._~:/[]%".contains(c));
    if plain { url.to_owned() } else { format!("'{}'", url.replace('\'', "''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_those_of_the_shipped_file_with_names_of_the_config() {
        let mut config = Config::default();
        let shipped = |text: &str| SHIPPED.lines().filter(|line| line.trim() == text).count();
        for line in routes(&config, NAME, "pager").iter().chain(&receiver(&config, None, NAME)) {
            let line = line.trim().replace("127.0.0.1", "receiver");
            assert!(shipped(&line) > 0, "{line}");
        }
        config.labels.prompt = "prompt_name".to_owned();
        config.labels.severity_aliases.insert("P1".to_owned(), Severity::Critical);
        config.labels.severity_aliases.insert("sev \"3\"".to_owned(), Severity::Medium);
        let routes = routes(&config, "it's ours", "on call").join("\n");
        for expected in [
            "'prompt_name=~\".+\"', 'version=~\".+\"', 'severity=~\"(?i:critical|P1)\"'",
            "'severity!~\"(?i:critical|P1)\"'",
            r#"'severity!~"(?i:medium|info|sev \"3\")"'"#,
            "receiver: 'it''s ours'",
            "receiver: 'on call'",
            "group_by: [prompt_name, version, severity, action]",
        ] {
            assert!(routes.contains(expected), "{expected}: {routes}");
        }
        assert!(!routes.contains("prompt=~") && !routes.contains("pager"), "{routes}");
    }
}
