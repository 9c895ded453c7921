//! Who may decide.

use secrecy::ExposeSecret;

use crate::config::forms::{is_address, is_plain_name, is_slack_id, mentions_somebody};
use crate::config::reader::ConfigReader;
use crate::config::{Config, Decider};

const IDS: &str = "ids of Slack, of users (U012AB3CD) or user groups (S012AB3CD)";
const MENTION: &str = "ids of Slack, such as <@U012AB3CD> or <!subteam^S012AB3CD>, or <!here>";

impl Config {
    pub(super) fn validate_deciders(&self, r: &mut ConfigReader<'_>) {
        for (name, decider) in &self.deciders {
            let key = format!("deciders.{name}");
            let length = decider.mention.as_ref().map_or(0, String::len);
            if length > Decider::MAX_MENTION {
                let most = Decider::MAX_MENTION;
                let text = format!("found {length} bytes, expected at most {most}: mention a user group instead");
                r.problem(&format!("{key}.mention"), text);
            }
            if let Some(mention) = decider.mention.as_deref().filter(|mention| !mentions_somebody(mention)) {
                let text = format!("found {mention:?}, which notifies nobody, expected {MENTION}");
                r.warn(&format!("{key}.mention"), text);
            }
            for approver in &decider.approvers {
                let is_word = !approver.is_empty() && approver.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let approvers = format!("{key}.approvers");
                r.check(&approvers, is_word, IDS);
                if is_word && !is_slack_id(approver) {
                    r.warn(&approvers, format!("found {approver:?}, which lets nobody decide, expected {IDS}"));
                }
            }
            let url = r.source_of(&format!("{key}.approvers_url"));
            let fits = decider.approvers_url.as_ref().is_none_or(|url| is_address(url.expose_secret()));
            r.check(&url, fits, "http://host:port/… or https://…, without credentials");
            if name == "system" {
                r.problem(&key, "\"system\" is the receiver itself and cannot be configured".into());
            } else if !is_plain_name(name) {
                r.problem(&key, format!("found the name {name:?}, expected 1 to 64 letters, digits, _ and -"));
            }
        }
        let known = self.deciders.contains_key(&self.guards.fallback_decider);
        let names: Vec<&str> = self.deciders.keys().map(String::as_str).collect();
        r.check("guards.fallback_decider", known, &format!("one of {}", names.join(", ")));
    }
}
