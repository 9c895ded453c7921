//! The value of each key, and the differences between two readings of the config.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::value::Setting;

/// Characters of a value in one log line.
const LONGEST: usize = 200;

/// A key whose value differs in another reading of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    pub key: String,
    /// The old and the new value, in the syntax of the environment; `None` for a secret, and if a file has new
    /// contents.
    pub values: Option<(String, String)>,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((from, to)) => write!(f, "{}: {} → {}", self.key, QuotedValue(from), QuotedValue(to)),
            None => write!(f, "{}: changed", self.key),
        }
    }
}

struct QuotedValue<'a>(&'a str);

impl fmt::Display for QuotedValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let cut: String = self.0.chars().take(LONGEST).collect();
        write!(f, "{cut:?}{}", if cut.len() < self.0.len() { "…" } else { "" })
    }
}

#[derive(Debug, Clone, Default)]
struct Value {
    text: SecretString,
    /// The content of the file that the text names.
    content: SecretString,
    /// `None`: the text is a secret.
    shown: Option<String>,
    /// The part that needs a restart.
    fixed: Option<SecretString>,
}

impl Value {
    fn is(&self, other: &Self) -> bool {
        same(&self.text, &other.text) && same(&self.content, &other.content)
    }
}

/// The prefix of keys that wait for a restart together: the password of another Redis must not be tried on this one.
const TOGETHER: &str = "redis.";

/// The value of each key that was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Values(BTreeMap<String, Value>);

impl Values {
    pub fn set<T: Setting>(&mut self, key: &str, value: &T) {
        let value = Value { text: value.to_text().into(), shown: value.shown(), ..Value::default() };
        self.0.insert(key.to_owned(), value);
    }

    pub fn set_secret(&mut self, key: &str, text: String) {
        self.0.insert(key.to_owned(), Value { text: text.into(), ..Value::default() });
    }

    /// Sets a key that a running receiver cannot change.
    pub fn set_fixed<T: Setting>(&mut self, key: &str, value: &T) {
        self.set(key, value);
        self.0.entry(key.to_owned()).or_default().fixed = Some(value.fixed_part().into());
    }

    /// Adds the content of the file at the path that is the key's value.
    pub fn add_content(&mut self, key: &str, content: &[u8]) {
        self.0.entry(key.to_owned()).or_default().content = String::from_utf8_lossy(content).into_owned().into();
    }

    pub fn fixed_keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| value.fixed.is_some()).map(|(key, _)| key.as_str())
    }

    /// The current values of keys that must wait for a restart because `next` changes them.
    pub fn pins(&self, next: &Self) -> BTreeMap<String, SecretString> {
        let moved = |(key, value): &(&String, &Value)| {
            let other = next.0.get(*key).and_then(|other| other.fixed.as_ref());
            value.fixed.as_ref().zip(other).is_some_and(|(here, there)| !same(here, there))
        };
        let moved: BTreeSet<&String> = self.0.iter().filter(moved).map(|(key, _)| key).collect();
        let together = moved.iter().any(|key| key.starts_with(TOGETHER));
        let waits = |key: &String| moved.contains(key) || (together && key.starts_with(TOGETHER));
        let pins = self.0.iter().filter(|(key, _)| waits(key));
        pins.map(|(key, value)| (key.clone(), value.text.clone())).collect()
    }

    /// The changes in `next`, by key.
    pub fn changes(&self, next: &Self) -> Vec<ConfigChange> {
        let absent = Value { shown: Some(String::new()), ..Value::default() };
        let keys: BTreeSet<&String> = self.0.keys().chain(next.0.keys()).collect();
        keys.into_iter()
            .filter_map(|key| {
                let [from, to] = [self, next].map(|values| values.0.get(key).unwrap_or(&absent));
                let values = from.shown.clone().zip(to.shown.clone()).filter(|(from, to)| from != to);
                (!from.is(to)).then(|| ConfigChange { key: key.clone(), values })
            })
            .collect()
    }
}

/// Compares in constant time.
pub(super) fn same(a: &SecretString, b: &SecretString) -> bool {
    a.expose_secret().as_bytes().ct_eq(b.expose_secret().as_bytes()).into()
}
