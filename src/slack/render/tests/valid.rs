//! What Slack requires of a message, and what prompt-rollback guarantees: external text mentions no one and becomes no
//! link.

use serde_json::Value;

use super::super::{Message, plain};

/// All problems of `message`; only `mention` may mention someone.
pub fn problems(message: &Message, mention: Option<&str>) -> Vec<String> {
    let mut check = MessageCheck { mention, found: Vec::new(), action_ids: Vec::new() };
    check.size("text", &message.text, 4_000);
    check.mrkdwn("text", &message.text, Words::Any);
    let plain = plain(message);
    check.size("plain", &plain, 4_000);
    check.mrkdwn("plain", &plain, Words::Any);
    let blocks = serde_json::to_value(&message.blocks).expect("blocks are JSON");
    let blocks = blocks.as_array().expect("a list");
    check.count("blocks", blocks, 50);
    for block in blocks {
        check.block(block);
    }
    // not documented; rejections were seen above 11,000
    if total(&Value::from(blocks.clone())) > 10_000 {
        check.say("too much text in all blocks together");
    }
    check.found
}

fn total(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.iter().map(total).sum(),
        Value::Object(map) => {
            map.iter().filter(|(key, value)| *key == "text" || !value.is_string()).map(|(_, value)| total(value)).sum()
        }
        _ => 0,
    }
}

#[derive(PartialEq)]
enum Words {
    /// Only text of prompt-rollback itself.
    Ours,
    Any,
}

struct MessageCheck<'a> {
    mention: Option<&'a str>,
    found: Vec<String>,
    action_ids: Vec<String>,
}

impl MessageCheck<'_> {
    fn say(&mut self, problem: impl Into<String>) {
        self.found.push(problem.into());
    }

    fn block(&mut self, block: &Value) {
        match block["type"].as_str() {
            Some("header") => self.object("header", &block["text"], 150, true),
            Some("section") => {
                if block.get("text").is_none() && block.get("fields").is_none() {
                    self.say("a section without text");
                }
                if let Some(text) = block.get("text") {
                    self.object("section", text, 3_000, false);
                }
                if let Some(fields) = block.get("fields") {
                    let fields = fields.as_array().expect("a list");
                    self.count("fields", fields, 10);
                    fields.iter().for_each(|field| self.object("field", field, 2_000, false));
                }
            }
            Some("context") => {
                let elements = block["elements"].as_array().expect("a list");
                self.count("context", elements, 10);
                elements.iter().for_each(|element| self.object("context", element, 3_000, false));
            }
            Some("actions") => {
                let elements = block["elements"].as_array().expect("a list");
                self.count("actions", elements, 25);
                elements.iter().for_each(|element| self.element(element));
            }
            other => self.say(format!("unexpected block {other:?}")),
        }
    }

    fn element(&mut self, element: &Value) {
        let id = element["action_id"].as_str().unwrap_or_default().to_owned();
        self.size("action_id", &id, 255);
        if self.action_ids.contains(&id) {
            self.say(format!("action_id {id} twice"));
        }
        self.action_ids.push(id);
        match element["type"].as_str() {
            Some("button") => {
                self.object("button", &element["text"], 75, true);
                self.string("button value", &element["value"], 2_000);
                if !matches!(element["style"].as_str(), None | Some("primary" | "danger")) {
                    self.say("unknown style");
                }
            }
            Some("static_select") => {
                self.object("placeholder", &element["placeholder"], 150, true);
                let lists = match element["option_groups"].as_array() {
                    None => vec![&element["options"]],
                    Some(groups) => {
                        self.count("option groups", groups, 100);
                        groups.iter().for_each(|group| self.object("group", &group["label"], 75, true));
                        groups.iter().map(|group| &group["options"]).collect()
                    }
                };
                for options in lists {
                    let options = options.as_array().expect("a list");
                    self.count("options", options, 100);
                    for option in options {
                        self.object("option", &option["text"], 75, true);
                        self.string("option value", &option["value"], 150);
                    }
                }
            }
            other => self.say(format!("unexpected element {other:?}")),
        }
        if let Some(confirm) = element.get("confirm") {
            for (part, most) in [("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)] {
                self.object(part, &confirm[part], most, true);
            }
        }
    }

    fn object(&mut self, place: &str, object: &Value, most: usize, plain_only: bool) {
        self.string(place, &object["text"], most);
        let text = object["text"].as_str().unwrap_or_default();
        match object["type"].as_str() {
            Some("plain_text") => {
                if object["emoji"] != false {
                    self.say(format!("{place}: emoji codes are read"));
                }
            }
            Some("mrkdwn") if !plain_only => {
                if object["verbatim"] != true {
                    self.say(format!("{place}: Slack may link names on its own"));
                }
                self.mrkdwn(place, text, Words::Ours);
            }
            other => self.say(format!("{place}: {other:?} does not belong here")),
        }
    }

    fn string(&mut self, place: &str, text: &Value, most: usize) {
        match text.as_str() {
            Some(text) => self.size(place, text, most),
            None => self.say(format!("{place}: no text")),
        }
    }

    fn size(&mut self, place: &str, text: &str, most: usize) {
        // as Slack counts in the worst case
        let length: usize = text.chars().map(char::len_utf16).sum();
        if text.trim().is_empty() || length > most {
            self.say(format!("{place}: {length} characters, expected 1 to {most}"));
        }
    }

    fn count(&mut self, place: &str, items: &[Value], most: usize) {
        if items.is_empty() || items.len() > most {
            self.say(format!("{place}: {} items, expected 1 to {most}", items.len()));
        }
    }

    /// Parses as Slack does: `<…>` is control, everything else is text.
    fn mrkdwn(&mut self, place: &str, text: &str, words: Words) {
        let text = match self.mention {
            Some(mention) => text.replace(mention, "MENTION"),
            None => text.to_owned(),
        };
        let mut rest = text.as_str();
        let mut said = String::new();
        while let Some(start) = rest.find('<') {
            said.push_str(&rest[..start]);
            let Some(length) = rest[start..].find('>') else { return self.say(format!("{place}: an open <")) };
            let token = &rest[start + 1..start + length];
            if !is_date(token) && !is_link(token) {
                self.say(format!("{place}: <{token}> is control"));
            }
            rest = &rest[start + length + 1..];
        }
        said.push_str(rest);
        if said.contains('>') {
            self.say(format!("{place}: a bare >"));
        }
        for (at, _) in said.match_indices('&') {
            if !["&amp;", "&lt;", "&gt;"].iter().any(|entity| said[at..].starts_with(entity)) {
                self.say(format!("{place}: a bare &"));
            }
        }
        if words == Words::Ours {
            let outside: String = said.split('`').step_by(2).collect();
            if said.matches('`').count() % 2 == 1 || outside.contains(['_', '~', '@', '#', ':', '<']) {
                self.say(format!("{place}: not our words: {outside}"));
            }
        }
    }
}

fn is_date(token: &str) -> bool {
    let Some(rest) = token.strip_prefix("!date^") else { return false };
    let Some((seconds, rest)) = rest.split_once('^') else { return false };
    seconds.parse::<i64>().is_ok() && rest.starts_with("{date_short_pretty} {time_secs}|")
}

/// A link to the web, labelled by prompt-rollback.
fn is_link(token: &str) -> bool {
    let Some((url, label)) = token.split_once('|') else { return false };
    let labels = ["Runbook", "Dashboard", "Alertmanager", "Query", "Decide in the thread", "Go to the thread"];
    let scheme = url.to_ascii_lowercase();
    (scheme.starts_with("http://") || scheme.starts_with("https://"))
        && url.bytes().all(|b| b.is_ascii_graphic())
        && labels.contains(&label)
}
