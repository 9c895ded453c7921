//! Names that may become part of a Redis key. Nothing else may.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A prompt: `[A-Za-z0-9][A-Za-z0-9._/-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PromptName(String);

/// A version: `[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct VersionName(String);

/// The text is not a valid name. The message says what was expected, but never quotes the text, which may be hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidName(&'static str);

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidName {}

impl PromptName {
    pub const MAX: usize = 128;

    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        text.to_owned().try_into()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl VersionName {
    pub const MAX: usize = 64;

    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        text.to_owned().try_into()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PromptName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        if is_name(&text, Self::MAX, b"._/-") {
            Ok(Self(text))
        } else {
            Err(InvalidName("expected a prompt name: a letter or digit, then up to 127 of A-Z a-z 0-9 . _ / -"))
        }
    }
}

impl TryFrom<String> for VersionName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        if is_name(&text, Self::MAX, b"._:+-") {
            Ok(Self(text))
        } else {
            Err(InvalidName("expected a version: a letter or digit, then up to 63 of A-Z a-z 0-9 . _ : + -"))
        }
    }
}

/// Removes ASCII whitespace and NUL around a value, which a shell may add (`echo v2 | redis-cli -x SET …`).
pub fn trimmed(bytes: &[u8]) -> &[u8] {
    let pads = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0);
    let Some(start) = bytes.iter().position(|byte| !pads(byte)) else { return &[] };
    let end = bytes.iter().rposition(|byte| !pads(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

fn is_name(text: &str, max: usize, marks: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= max
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || marks.contains(b))
}

impl fmt::Display for PromptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surrounds_a_value_is_trimmed_and_nothing_inside_it() {
        for padded in ["v2", "v2\n", "\r\nv2\r\n", "v2\0", " \t\u{b}\u{c}v2 \0\0"] {
            assert_eq!(trimmed(padded.as_bytes()), b"v2", "{padded:?}");
        }
        for kept in ["v 2", "\"v2\"", "v2\u{a0}", "\u{feff}v2"] {
            assert_eq!(trimmed(kept.as_bytes()), kept.as_bytes(), "{kept:?}");
        }
        for nothing in ["", "\n", "\0\r \t"] {
            assert_eq!(trimmed(nothing.as_bytes()), b"", "{nothing:?}");
        }
    }

    #[test]
    fn names_keep_to_their_alphabet_and_length() {
        for good in ["a", "customer-support", "team/refund.v2_x", &"a".repeat(128)] {
            assert!(PromptName::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["", "-a", "/a", "a b", "a{b}", "a\r\n", "a\0", "a:b", "ä", "🙂", &"a".repeat(129), &"a".repeat(20_000)]
        {
            assert!(PromptName::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["1", "v1.9.0", "2026-11-21T00:38+b", "v1:a_b", &"a".repeat(64)] {
            assert!(VersionName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".1", "v1/2", "v 1", "v{1}", &"a".repeat(65)] {
            assert!(VersionName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
