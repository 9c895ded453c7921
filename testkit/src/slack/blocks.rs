//! Slack's rules for Block Kit in messages and modals: what it rejects with `invalid_blocks`.
//!
//! Limits count characters, as Slack's schema does. If Slack's documentation is less precise than its behavior, the
//! stricter interpretation applies, so that what passes here passes in Slack.

use serde_json::{Map, Value};
use std::collections::HashSet;

/// Where blocks are shown, which determines how many are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Message,
    Modal,
}

/// Slack also rejects long messages by the sum of their blocks' texts. The limit is not documented; rejections were
/// seen from about 11,300 characters on, so this stays below.
pub(super) const MAX_TEXT_OF_ALL_BLOCKS: usize = 10_000;

const MAX_ACTION_ID: usize = 255;
const INTERACTIVE: [&str; 11] = [
    "button",
    "static_select",
    "overflow",
    "users_select",
    "conversations_select",
    "channels_select",
    "external_select",
    "datepicker",
    "timepicker",
    "radio_buttons",
    "checkboxes",
];

/// All problems, each with its place in Slack's notation. Empty: valid.
pub(super) fn problems(blocks: &[Value], surface: Surface) -> Vec<String> {
    let mut check = Check::default();
    let most = if surface == Surface::Message { 50 } else { 100 };
    if blocks.len() > most {
        check.say(format!("no more than {most} items allowed"), "/blocks");
    }
    for (index, block) in blocks.iter().enumerate() {
        check.block(block, surface, &format!("/blocks/{index}"));
    }
    check.problems
}

/// The characters of every text in the blocks together.
pub(super) fn text_length(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            let own = map.get("text").and_then(Value::as_str).map_or(0, |text| text.chars().count());
            own + map.values().map(text_length).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(text_length).sum(),
        _ => 0,
    }
}

#[derive(Debug, Default)]
struct Check {
    problems: Vec<String>,
    action_ids: HashSet<String>,
    block_ids: HashSet<String>,
}

/// The kinds of text object that a place accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Plain,
    Any,
}

impl Check {
    fn say(&mut self, problem: impl AsRef<str>, place: &str) {
        self.problems.push(format!("{} [json-pointer:{place}]", problem.as_ref()));
    }

    fn block(&mut self, block: &Value, surface: Surface, place: &str) {
        let Some(map) = self.object(block, place) else { return };
        let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
        if let Some(id) = self.string(map, "block_id", 255, place)
            && !self.block_ids.insert(id.to_owned())
        {
            self.say(format!("block_id \"{id}\" is used twice"), &format!("{place}/block_id"));
        }
        match kind {
            "divider" => self.only(map, &["type", "block_id"], place),
            "header" => {
                self.only(map, &["type", "block_id", "text"], place);
                self.text(map, "text", Text::Plain, 150, true, place);
            }
            "section" => self.section(map, place),
            "actions" => {
                self.only(map, &["type", "block_id", "elements"], place);
                for (element, place) in self.items(map, "elements", 25, place) {
                    self.interactive(element, &INTERACTIVE, &place);
                }
            }
            "context" => {
                self.only(map, &["type", "block_id", "elements"], place);
                for (element, place) in self.items(map, "elements", 10, place) {
                    match element["type"].as_str() {
                        Some("image") => self.image(element, false, &place),
                        _ => self.text_object(element, Text::Any, 3000, &place),
                    }
                }
            }
            "image" => self.image(block, true, place),
            "markdown" => {
                self.only(map, &["type", "block_id", "text"], place);
                self.required(map, "text", place);
                self.string(map, "text", 12_000, place);
            }
            "rich_text" => {
                self.only(map, &["type", "block_id", "elements"], place);
                self.items(map, "elements", usize::MAX, place);
            }
            "input" if surface == Surface::Modal => {
                self.text(map, "label", Text::Plain, 2000, true, place);
                self.text(map, "hint", Text::Plain, 2000, false, place);
                self.required(map, "element", place);
            }
            other => self.say(format!("unsupported type: {other}"), &format!("{place}/type")),
        }
    }

    fn section(&mut self, map: &Map<String, Value>, place: &str) {
        self.only(map, &["type", "block_id", "text", "fields", "accessory", "expand"], place);
        if map.get("text").is_none() && map.get("fields").is_none() {
            self.say("must define either `text` or `fields`", place);
        }
        self.text(map, "text", Text::Any, 3000, false, place);
        if map.contains_key("fields") {
            for (field, place) in self.items(map, "fields", 10, place) {
                self.text_object(field, Text::Any, 2000, &place);
            }
        }
        if let Some(accessory) = map.get("accessory") {
            let place = format!("{place}/accessory");
            match accessory["type"].as_str() {
                Some("image") => self.image(accessory, false, &place),
                _ => self.interactive(accessory, &INTERACTIVE, &place),
            }
        }
    }

    fn image(&mut self, value: &Value, is_block: bool, place: &str) {
        let Some(map) = self.object(value, place) else { return };
        let block_only: &[&str] = if is_block { &["block_id", "title"] } else { &[] };
        self.only(map, &[&["type", "image_url", "slack_file", "alt_text"], block_only].concat(), place);
        if map.contains_key("image_url") == map.contains_key("slack_file") {
            self.say("must define either `image_url` or `slack_file`", place);
        }
        self.string(map, "image_url", 3000, place);
        self.required(map, "alt_text", place);
        self.string(map, "alt_text", 2000, place);
        if is_block {
            self.text(map, "title", Text::Plain, 2000, false, place);
        }
    }

    fn interactive(&mut self, element: &Value, allowed: &[&str], place: &str) {
        let Some(map) = self.object(element, place) else { return };
        let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
        if !allowed.contains(&kind) {
            return self.say(format!("unsupported type: {kind}"), &format!("{place}/type"));
        }
        if let Some(id) = self.string(map, "action_id", MAX_ACTION_ID, place)
            && !self.action_ids.insert(id.to_owned())
        {
            self.say(format!("action_id \"{id}\" is used twice"), &format!("{place}/action_id"));
        }
        if let Some(confirm) = map.get("confirm") {
            self.confirm(confirm, &format!("{place}/confirm"));
        }
        match kind {
            "button" => {
                let fields = ["text", "url", "value", "style", "accessibility_label"];
                self.only(map, &[&["type", "action_id", "confirm"], &fields[..]].concat(), place);
                self.text(map, "text", Text::Plain, 75, true, place);
                self.string(map, "url", 3000, place);
                self.string(map, "value", 2000, place);
                self.string(map, "accessibility_label", 75, place);
                self.style(map, place);
            }
            "static_select" => {
                let fields = ["placeholder", "options", "option_groups", "initial_option", "focus_on_load"];
                self.only(map, &[&["type", "action_id", "confirm"], &fields[..]].concat(), place);
                self.select(map, place);
            }
            "overflow" => {
                self.only(map, &["type", "action_id", "confirm", "options"], place);
                for (option, place) in self.items(map, "options", 5, place) {
                    self.option(option, true, &place);
                }
            }
            _ => self.text(map, "placeholder", Text::Plain, 150, false, place),
        }
    }

    fn select(&mut self, map: &Map<String, Value>, place: &str) {
        self.text(map, "placeholder", Text::Plain, 150, false, place);
        if map.contains_key("options") == map.contains_key("option_groups") {
            self.say("must define either `options` or `option_groups`", place);
        }
        let mut known = Vec::new();
        if map.contains_key("options") {
            for (option, place) in self.items(map, "options", 100, place) {
                self.option(option, false, &place);
                known.push(option);
            }
        }
        if map.contains_key("option_groups") {
            for (group, place) in self.items(map, "option_groups", 100, place) {
                let Some(group) = self.object(group, &place) else { continue };
                self.text(group, "label", Text::Plain, 75, true, &place);
                for (option, place) in self.items(group, "options", 100, &place) {
                    self.option(option, false, &place);
                    known.push(option);
                }
            }
        }
        if let Some(initial) = map.get("initial_option")
            && !known.contains(&initial)
        {
            self.say("must be one of the options", &format!("{place}/initial_option"));
        }
    }

    fn option(&mut self, option: &Value, takes_url: bool, place: &str) {
        let Some(map) = self.object(option, place) else { return };
        let url: &[&str] = if takes_url { &["url"] } else { &[] };
        self.only(map, &[&["text", "value", "description"], url].concat(), place);
        self.text(map, "text", Text::Plain, 75, true, place);
        self.text(map, "description", Text::Plain, 75, false, place);
        self.required(map, "value", place);
        self.string(map, "value", 150, place);
        self.string(map, "url", 3000, place);
    }

    fn confirm(&mut self, confirm: &Value, place: &str) {
        let Some(map) = self.object(confirm, place) else { return };
        self.only(map, &["title", "text", "confirm", "deny", "style"], place);
        self.text(map, "title", Text::Plain, 100, true, place);
        self.text(map, "text", Text::Any, 300, true, place);
        self.text(map, "confirm", Text::Plain, 30, true, place);
        self.text(map, "deny", Text::Plain, 30, true, place);
        self.style(map, place);
    }

    fn style(&mut self, map: &Map<String, Value>, place: &str) {
        if let Some(style) = map.get("style")
            && style != "primary"
            && style != "danger"
        {
            self.say("must be one of primary, danger", &format!("{place}/style"));
        }
    }

    fn text(&mut self, map: &Map<String, Value>, key: &str, kinds: Text, most: usize, needed: bool, place: &str) {
        match map.get(key) {
            Some(text) => self.text_object(text, kinds, most, &format!("{place}/{key}")),
            None if needed => self.required(map, key, place),
            None => (),
        }
    }

    fn text_object(&mut self, value: &Value, kinds: Text, most: usize, place: &str) {
        let Some(map) = self.object(value, place) else { return };
        match map.get("type").and_then(Value::as_str) {
            Some("plain_text") => self.only(map, &["type", "text", "emoji"], place),
            Some("mrkdwn") if kinds == Text::Any => self.only(map, &["type", "text", "verbatim"], place),
            other => self.say(format!("unsupported type: {}", other.unwrap_or("none")), &format!("{place}/type")),
        }
        self.required(map, "text", place);
        self.string(map, "text", most, place);
    }

    /// The string under `key`, if present; reports a problem if it is not a string, empty or longer than `most`
    /// characters.
    fn string<'v>(&mut self, map: &'v Map<String, Value>, key: &str, most: usize, place: &str) -> Option<&'v str> {
        let place = format!("{place}/{key}");
        let Some(text) = map.get(key)?.as_str() else {
            self.say("must be a string", &place);
            return None;
        };
        let length = text.chars().count();
        if length == 0 {
            self.say("must be more than 0 characters", &place);
        }
        if length > most {
            self.say(format!("must be less than {} characters", most + 1), &place);
        }
        Some(text)
    }

    fn items<'v>(&mut self, map: &'v Map<String, Value>, key: &str, most: usize, at: &str) -> Vec<(&'v Value, String)> {
        let place = format!("{at}/{key}");
        let Some(items) = map.get(key).and_then(Value::as_array) else {
            self.say(format!("missing required field: {key}"), at);
            return Vec::new();
        };
        if items.is_empty() {
            self.say("no fewer than 1 items allowed", &place);
        }
        if items.len() > most {
            self.say(format!("no more than {most} items allowed"), &place);
        }
        items.iter().enumerate().map(|(index, item)| (item, format!("{place}/{index}"))).collect()
    }

    fn object<'v>(&mut self, value: &'v Value, place: &str) -> Option<&'v Map<String, Value>> {
        if value.is_object() {
            return value.as_object();
        }
        self.say("must be an object", place);
        None
    }

    fn required(&mut self, map: &Map<String, Value>, key: &str, place: &str) {
        if !map.contains_key(key) {
            self.say(format!("missing required field: {key}"), place);
        }
    }

    fn only(&mut self, map: &Map<String, Value>, known: &[&str], place: &str) {
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            self.say(format!("additional property: {key}"), place);
        }
    }
}
