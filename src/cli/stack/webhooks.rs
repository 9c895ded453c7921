//! What someone's Alertmanager sends to our webhook, and with which token.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::faults::Faults;
use super::routing::Review;
use crate::alertmanager::config::{Address, Authorization, Receiver, WebhookEntry};
use crate::cli::check::Probe;
use crate::config::{bare, format_prometheus_duration as written};
use crate::store::Level;

/// A webhook must wait longer than the receiver takes.
pub(super) const SHORTEST_TIMEOUT: Duration = Duration::from_secs(5);

impl Review<'_> {
    pub fn receiver(&self, receiver: &Receiver) -> Probe {
        let mut faults = Faults::default();
        for webhook in receiver.webhooks.iter().filter(|webhook| webhook.is_ours()) {
            self.webhook(webhook, &mut faults);
        }
        faults.probe(format!("alertmanager receiver {}", receiver.name), format!("line {}", receiver.line))
    }

    fn webhook(&self, webhook: &WebhookEntry, faults: &mut Faults) {
        let key = |key: &str| format!("{}.{key}", webhook.path);
        if !webhook.send_resolved {
            let why = "otherwise the receiver never learns that an alert has ended";
            faults.setting(Level::Problem, &key("send_resolved"), "false", "true", why);
        }
        if webhook.max_alerts > 0 {
            let why = "the receiver never gets the alerts beyond it";
            faults.setting(Level::Problem, &key("max_alerts"), webhook.max_alerts, "0", why);
        }
        if webhook.has_payload {
            let why = "the receiver reads Alertmanager's own body";
            faults.setting(Level::Problem, &key("payload"), "a body", "none", why);
        }
        if let Some(timeout) = webhook.timeout.filter(|timeout| *timeout < SHORTEST_TIMEOUT) {
            let why = "an answer may take that long";
            faults.setting(Level::Problem, &key("timeout"), written(timeout), "at least 5s", why);
        }
        if webhook.follow_redirects {
            let why = "a redirect turns the POST into a GET, and its 200 counts as delivered";
            faults.setting(Level::Warning, &key("http_config.follow_redirects"), "true", "false", why);
        }
        let plain = matches!(&webhook.address, Address::Url(url) if url.starts_with("http://"));
        if self.config.server.tls.is_some() && plain {
            faults.setting(Level::Problem, &key("url"), "http://…", "https://…", "server.tls_cert_file is set");
        }
        if self.lacks_certificate(webhook) {
            let (expected, why) = ("one of server.tls_client_ca_file", "the receiver would answer 403");
            let key = key("http_config.tls_config");
            faults.setting(Level::Problem, &key, "no client certificate", expected, why);
        }
        if let Some((level, text)) = self.authorization(&webhook.authorization) {
            faults.add(level, format!("{}: {text}", key("http_config.authorization")));
        }
    }

    /// Whether the receiver refuses webhooks without a client certificate.
    pub fn wants_certificate(&self) -> bool {
        self.config.server.tls_client_ca_file.is_some()
    }

    pub fn lacks_certificate(&self, webhook: &WebhookEntry) -> bool {
        self.wants_certificate() && !webhook.has_client_certificate
    }

    fn authorization(&self, found: &Authorization) -> Option<(Level, String)> {
        let server = &self.config.server;
        let sources = self.config.sources.values().filter_map(|source| source.token.as_ref());
        let tokens: Vec<&str> = server.webhook_token.iter().chain(sources).map(|token| token.expose_secret()).collect();
        let compared = |given: &str, of: &str| {
            let fits = tokens.is_empty() || tokens.contains(&bare(given));
            let expected = "expected the value of server.webhook_token, so the receiver would answer 401";
            (!fits).then(|| (Level::Problem, format!("found another token{of}, {expected}")))
        };
        match found {
            Authorization::Nothing if tokens.is_empty() => Some((
                Level::Warning,
                "found nothing, which fits only a receiver without server.webhook_token".to_owned(),
            )),
            Authorization::Nothing => {
                Some((Level::Problem, "found nothing, expected the bearer token server.webhook_token".to_owned()))
            }
            Authorization::Other(other) => Some((Level::Problem, format!("found {other}, expected a bearer token"))),
            Authorization::Token(token) => compared(token, ""),
            Authorization::TokenFile(file) => {
                let path = self.path.parent().unwrap_or(Path::new("")).join(file);
                match fs::read_to_string(&path) {
                    Ok(content) => compared(&content, &format!(" in {file}")),
                    // this check may run on another machine
                    Err(error) if error.kind() == ErrorKind::NotFound && !self.token_is_there => {
                        let path = path.display();
                        Some((
                            Level::Warning,
                            format!(
                                "{path} does not exist here: put a copy of the token there that Alertmanager can read"
                            ),
                        ))
                    }
                    // or as another user
                    Err(_) => None,
                }
            }
        }
    }
}
