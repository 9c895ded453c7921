//! Reads the YAML files of other programs. Each value knows its line, for errors and for edits.
//!
//! Scalars stay text: Alertmanager and Prometheus decide by field what `yes`, `5` or `~` means, and so do the readers here.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// Larger files, and files whose aliases expand to more values, are refused.
const MAX_BYTES: usize = 4 << 20;
const MAX_NODES: usize = 200_000;
const MAX_DEPTH: usize = 64;
/// Beyond this column, a value with an anchor counts as one in flow style.
const MAX_COLUMN: usize = 1_000;
/// Keys whose values Alertmanager joins, if a table and the one that it merges have both.
const JOINED: [&str; 9] = [
    "matchers",
    "match",
    "match_re",
    "source_matchers",
    "source_match",
    "source_match_re",
    "target_matchers",
    "target_match",
    "target_match_re",
];

/// What is wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct YamlError {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// Where a value begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// In characters, from 0.
    pub column: usize,
}

/// A value of the file.
#[derive(Debug, Clone)]
pub struct Yaml {
    pub start: Position,
    pub end: Position,
    /// Whether it is written in `[…]` or `{…}`.
    pub flow: bool,
    content: YamlContent,
    /// The number of values in it.
    size: usize,
}

/// Keys with their values.
type Entries = Vec<(Rc<Yaml>, Rc<Yaml>)>;

#[derive(Debug, Clone)]
enum YamlContent {
    Scalar { text: String, plain: bool },
    List(Vec<Rc<Yaml>>),
    Table(Entries),
}

impl Yaml {
    /// Reads the first document of a file; an empty file is an empty table.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        if text.len() > MAX_BYTES {
            return Err(YamlError { line: 1, message: format!("expected at most {MAX_BYTES} bytes") });
        }
        let lines = text.split('\n').collect();
        let mut reader = YamlReader { parser: Parser::new_from_str(text), lines, anchors: HashMap::new(), nodes: 0 };
        loop {
            match reader.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::StreamEnd | Event::DocumentEnd, span) => {
                    return Ok(Self::new(span, span, false, YamlContent::Table(Vec::new())));
                }
                (event, span) => return reader.node(event, span, 0, false).map(|node| (*node).clone()),
            }
        }
    }

    fn new(start: Span, end: Span, flow: bool, content: YamlContent) -> Self {
        let size = 1 + match &content {
            YamlContent::Scalar { .. } => 0,
            YamlContent::List(items) => items.iter().map(|item| item.size).sum(),
            YamlContent::Table(entries) => entries.iter().map(|(_, value)| 1 + value.size).sum(),
        };
        let place = |mark: saphyr_parser::Marker| Position { line: mark.line(), column: mark.col() };
        Self { start: place(start.start), end: place(end.end), flow, content, size }
    }

    fn is_null(&self) -> bool {
        let null = |text: &str| matches!(text, "" | "~" | "null" | "Null" | "NULL");
        matches!(&self.content, YamlContent::Scalar { text, plain: true } if null(text))
    }

    fn kind(&self) -> &'static str {
        match &self.content {
            _ if self.is_null() => "nothing",
            YamlContent::Scalar { .. } => "a text",
            YamlContent::List(_) => "a list",
            YamlContent::Table(_) => "a table",
        }
    }

    fn shown(&self) -> String {
        match &self.content {
            _ if self.is_null() => self.kind().to_owned(),
            YamlContent::Scalar { text, .. } if text.chars().count() > 60 => {
                format!("{:?}…", text.chars().take(60).collect::<String>())
            }
            YamlContent::Scalar { text, .. } => format!("{text:?}"),
            _ => self.kind().to_owned(),
        }
    }
}

struct YamlReader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    lines: Vec<&'a str>,
    anchors: HashMap<usize, Rc<Yaml>>,
    nodes: usize,
}

impl<'a> YamlReader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), YamlError> {
        let malformed = |line: usize, message: &str| YamlError { line: line.max(1), message: message.to_owned() };
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(malformed(error.marker().line(), &format!("invalid YAML: {}", error.info()))),
            None => Err(malformed(1, "invalid YAML: it ends too early")),
        }
    }

    /// Whether what begins here begins with a bracket or a brace. An anchor or a tag before it is part of the span.
    fn is_flow(&self, span: Span) -> bool {
        let end = span.end;
        // no person writes a list that far to the right, and looking there takes time
        if span.is_empty() || end.col() > MAX_COLUMN {
            return !span.is_empty();
        }
        let line = self.lines.get(end.line().saturating_sub(1)).copied().unwrap_or_default();
        end.col().checked_sub(1).and_then(|column| line.chars().nth(column)).is_some_and(|c| "[{".contains(c))
    }

    /// `flow`: whether it is inside of brackets or braces.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize, flow: bool) -> Result<Rc<Yaml>, YamlError> {
        let fail = |message: &str| Err(YamlError { line: span.start.line().max(1), message: message.to_owned() });
        if depth > MAX_DEPTH {
            return fail("expected fewer levels");
        }
        let (anchor, node) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return fail("an alias inside of what it names");
                };
                self.count(node.size, span)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, _) => {
                let content = YamlContent::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                (anchor, Yaml::new(span, span, false, content))
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                let flow = flow || self.is_flow(span);
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break end,
                        (event, span) => items.push(self.node(event, span, depth + 1, flow)?),
                    }
                };
                (anchor, Yaml::new(span, end, flow, YamlContent::List(items)))
            }
            Event::MappingStart(anchor, _) => {
                let mut entries = Entries::new();
                let flow = flow || self.is_flow(span);
                let end = loop {
                    let key = match self.next()? {
                        (Event::MappingEnd, end) => break end,
                        (event, span) => self.node(event, span, depth + 1, flow)?,
                    };
                    let (event, span) = self.next()?;
                    entries.push((key, self.node(event, span, depth + 1, flow)?));
                };
                (anchor, Yaml::new(span, end, flow, YamlContent::Table(merged(entries)?)))
            }
            _ => return fail("invalid YAML"),
        };
        self.count(1, span)?;
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, more: usize, span: Span) -> Result<(), YamlError> {
        self.nodes = self.nodes.saturating_add(more);
        match self.nodes {
            0..=MAX_NODES => Ok(()),
            _ => Err(YamlError { line: span.start.line(), message: format!("expected at most {MAX_NODES} values") }),
        }
    }
}

/// The entries of a table with those of its `<<`, which the table's own override. Refuses what Alertmanager reads in
/// another way: a `<<` after other keys overrides them there.
fn merged(entries: Entries) -> Result<Entries, YamlError> {
    let mut own = Entries::new();
    let mut inherited = Entries::new();
    let named = |entries: &Entries, key: &Yaml| {
        entries.iter().any(|(other, _)| scalar(other).is_some_and(|name| scalar(key) == Some(name)))
    };
    for (key, value) in entries {
        if scalar(&key) == Some("<<") {
            if !own.is_empty() || !inherited.is_empty() {
                let message =
                    "found << after other keys, expected it once, as the first key: elsewhere it overrides them";
                return Err(YamlError { line: key.start.line, message: message.to_owned() });
            }
            let tables = match &value.content {
                YamlContent::List(items) => items.clone(),
                _ => vec![value],
            };
            inherited.extend(tables.iter().flat_map(|table| match &table.content {
                YamlContent::Table(entries) => entries.clone(),
                _ => Vec::new(),
            }));
        } else if named(&own, &key) {
            let message = format!("found the key {} twice, expected it once", key.shown());
            return Err(YamlError { line: key.start.line, message });
        } else if scalar(&key).is_some_and(|name| JOINED.contains(&name)) && named(&inherited, &key) {
            let message = format!("found {} here and in <<, expected it in one of them: both would count", key.shown());
            return Err(YamlError { line: key.start.line, message });
        } else {
            own.push((key, value));
        }
    }
    for (key, value) in inherited {
        if !named(&own, &key) {
            own.push((key, value));
        }
    }
    Ok(own)
}

fn scalar(node: &Yaml) -> Option<&str> {
    match &node.content {
        YamlContent::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

/// A value with its path, such as `route.routes[2].matchers`.
#[derive(Debug, Clone)]
pub struct YamlNode<'a> {
    pub path: String,
    pub yaml: &'a Yaml,
    /// Where its key begins, in a table.
    pub key: Option<Position>,
}

impl<'a> YamlNode<'a> {
    pub fn root(yaml: &'a Yaml) -> Self {
        Self { path: String::new(), yaml, key: None }
    }

    pub fn line(&self) -> usize {
        self.key.unwrap_or(self.yaml.start).line
    }

    /// An error that names this value.
    pub fn wrong(&self, expected: &str) -> YamlError {
        self.error(&format!("found {}, expected {expected}", self.yaml.shown()))
    }

    /// The error about a wrong kind of value, without the value: a text in the place of a table or a list may be a secret.
    fn wrong_kind(&self, expected: &str) -> YamlError {
        self.error(&format!("found {}, expected {expected}", self.yaml.kind()))
    }

    pub fn error(&self, message: &str) -> YamlError {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        YamlError { line: self.line(), message: format!("{path}: {message}") }
    }

    /// The value of a key; `None` if it is absent or null.
    pub fn get(&self, key: &str) -> Result<Option<YamlNode<'a>>, YamlError> {
        Ok(self.entries()?.into_iter().find(|(name, _)| *name == key).map(|(_, node)| node))
    }

    /// Where a key begins, also one without a value.
    pub fn key(&self, key: &str) -> Option<Position> {
        match &self.yaml.content {
            YamlContent::Table(entries) => entries.iter().find(|(name, _)| scalar(name) == Some(key)),
            _ => None,
        }
        .map(|(name, _)| name.start)
    }

    /// Whether it is a list or a table without anything in it.
    pub fn is_empty(&self) -> bool {
        match &self.yaml.content {
            YamlContent::Scalar { .. } => false,
            YamlContent::List(items) => items.is_empty(),
            YamlContent::Table(entries) => entries.is_empty(),
        }
    }

    /// The keys with values.
    pub fn entries(&self) -> Result<Vec<(&'a str, YamlNode<'a>)>, YamlError> {
        let entries = match &self.yaml.content {
            YamlContent::Table(entries) => entries,
            _ if self.yaml.is_null() => return Ok(Vec::new()),
            _ => return Err(self.wrong_kind("a table")),
        };
        let mut found = Vec::new();
        for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
            let name = scalar(key).ok_or_else(|| self.error("expected texts as keys"))?;
            let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
            found.push((name, YamlNode { path, yaml: value.as_ref(), key: Some(key.start) }));
        }
        Ok(found)
    }

    /// The items of a list; none for null.
    pub fn items(&self) -> Result<Vec<YamlNode<'a>>, YamlError> {
        match &self.yaml.content {
            YamlContent::List(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(at, yaml)| YamlNode { path: format!("{}[{at}]", self.path), yaml: yaml.as_ref(), key: None })
                .collect()),
            _ if self.yaml.is_null() => Ok(Vec::new()),
            _ => Err(self.wrong_kind("a list")),
        }
    }

    /// The items of the list at `key`; none if it is absent.
    pub fn list(&self, key: &str) -> Result<Vec<YamlNode<'a>>, YamlError> {
        self.get(key)?.map_or_else(|| Ok(Vec::new()), |list| list.items())
    }

    pub fn text(&self) -> Result<&'a str, YamlError> {
        scalar(self.yaml).ok_or_else(|| self.wrong("a text"))
    }

    /// The text at `key`.
    pub fn text_of(&self, key: &str) -> Result<Option<String>, YamlError> {
        self.get(key)?.map(|value| value.text().map(str::to_owned)).transpose()
    }

    /// The texts in the list at `key`.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, YamlError> {
        self.list(key)?.iter().map(|item| item.text().map(str::to_owned)).collect()
    }

    /// The texts in the table at `key`.
    pub fn table(&self, key: &str) -> Result<Vec<(String, String)>, YamlError> {
        let Some(table) = self.get(key)? else { return Ok(Vec::new()) };
        table.entries()?.into_iter().map(|(name, value)| Ok((name.to_owned(), value.text()?.to_owned()))).collect()
    }

    /// What `read` makes of the text at `key`.
    pub fn read<T>(&self, key: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, YamlError> {
        let value = self.get(key)?;
        value.map(|value| read(value.text()?).ok_or_else(|| value.wrong(expected))).transpose()
    }

    /// The boolean at `key`, in the spellings of YAML 1.1.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, YamlError> {
        self.read(key, "true or false", |text| match text {
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
