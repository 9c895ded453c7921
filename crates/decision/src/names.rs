//! Names that may become part of a Redis key. Nothing else may.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A prompt, by the encoded form of its name, which has at most 128 bytes. `A-Z a-z 0-9 . _ / -` stand for themselves, in
/// front only letters and digits. Every other byte of the name's UTF-8 is `%` and two upper-case hexadecimal digits.
/// Names and encoded forms correspond one to one, and most names are their own encoded form.
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

    /// From the encoded form, as keys and records have it. Any other spelling is refused: no two mean one prompt.
    pub fn parse(encoded: &str) -> Result<Self, InvalidName> {
        encoded.to_owned().try_into()
    }

    /// The prompt of this name, as the label of an alert or a metric has it.
    pub fn of(name: &str) -> Result<Self, InvalidName> {
        if is_name(name, Self::MAX, PROMPT_MARKS) {
            return Ok(Self(name.to_owned()));
        }
        match encode(name) {
            _ if name.is_empty() => Err(EMPTY),
            Some(encoded) => Ok(Self(encoded)),
            None => Err(TOO_LONG),
        }
    }

    /// From what a person or a program wrote: the name or its encoded form. A text in which each `%` begins an escape is
    /// taken for the encoded form.
    pub fn written(text: &str) -> Result<Self, InvalidName> {
        let mut escapes = text.split('%').skip(1).peekable();
        let is_escape = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
        if escapes.peek().is_some() && escapes.all(is_escape) { Self::parse(text) } else { Self::of(text) }
    }

    /// The encoded form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name itself. It may hold any characters.
    pub fn name(&self) -> Cow<'_, str> {
        match self.0.contains('%') {
            // only the encoded form of a text gets this far
            true => decode(&self.0).map_or(Cow::Borrowed(self.0.as_str()), Cow::Owned),
            false => Cow::Borrowed(&self.0),
        }
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

/// What else than a letter or digit a prompt's name may hold unencoded, except in front.
const PROMPT_MARKS: &[u8] = b"._/-";

const EMPTY: InvalidName = InvalidName("expected a prompt name, found nothing");
const TOO_LONG: InvalidName = InvalidName(
    "expected a prompt name of at most 128 bytes, where each byte of a character other than A-Z a-z 0-9 . _ / - counts as 3",
);
const NOT_ENCODED: InvalidName = InvalidName(
    "expected a prompt name, or its encoded form with upper-case digits, in which only a % and characters other than A-Z a-z 0-9 . _ / - are encoded",
);

impl TryFrom<String> for PromptName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        if is_name(&text, Self::MAX, PROMPT_MARKS) {
            return Ok(Self(text));
        }
        match text.len() {
            0 => return Err(EMPTY),
            1..=Self::MAX => {}
            _ => return Err(TOO_LONG),
        }
        let canonical = decode(&text).and_then(|name| encode(&name)).is_some_and(|encoded| encoded == text);
        if canonical { Ok(Self(text)) } else { Err(NOT_ENCODED) }
    }
}

/// None if it would be too long.
fn encode(name: &str) -> Option<String> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(name.len().min(PromptName::MAX) * 3);
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || at > 0 && PROMPT_MARKS.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
        if encoded.len() > PromptName::MAX {
            return None;
        }
    }
    Some(encoded)
}

/// None if an escape is incomplete, or the bytes are no text.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(if byte == b'%' { digit()? << 4 | digit()? } else { byte });
    }
    String::from_utf8(bytes).ok()
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
    use proptest::prelude::*;
    use proptest::sample::select;

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
            for read in [PromptName::parse, PromptName::of, PromptName::written] {
                let prompt = read(good).unwrap_or_else(|error| panic!("{good}: {error}"));
                assert_eq!((prompt.as_str(), &*prompt.name()), (good, good));
            }
        }
        for bad in
            ["", "-a", "/a", "a b", "a{b}", "a\r\n", "a\0", "a:b", "ä", "🙂", &"a".repeat(129), &"a".repeat(20_000)]
        {
            assert!(PromptName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", &"a".repeat(129), &"ä".repeat(22), &" ".repeat(43), &"🙂".repeat(20_000)] {
            assert!(PromptName::of(bad).is_err() && PromptName::written(bad).is_err(), "{bad:?}");
        }
        for good in
            ["1", "v1.9.0", "2026-11-21T00:38+b", "v1:a_b", &"a".repeat(64), "9d2f04f1f0d6b9fbe2fe9a45f4c7a1c1d7a2e0b3"]
        {
            assert!(VersionName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".1", "v1/2", "v 1", "v{1}", &"a".repeat(65)] {
            assert!(VersionName::parse(bad).is_err(), "{bad:?}");
        }
    }

    fn any_name() -> impl Strategy<Value = String> {
        let hostile =
            select(vec!["{", "}", "%", " ", "\n", "\0", "/", ".", "\u{202e}", "ä", "🙂", "a", "Z", "9", "%20", "%2f"]);
        prop_oneof![any::<String>(), prop::collection::vec(hostile, 0..12).prop_map(|parts| parts.concat())]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_name_and_its_encoded_form_determine_each_other(name in any_name(), other in any_name()) {
            let Ok(prompt) = PromptName::of(&name) else {
                let needed: usize = name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { 1 } else { 3 }).sum();
                prop_assert!(name.is_empty() || needed > PromptName::MAX, "{:?}", name);
                return Ok(());
            };
            prop_assert_eq!(&*prompt.name(), &name);
            prop_assert_eq!(PromptName::parse(prompt.as_str()), Ok(prompt.clone()));
            prop_assert_eq!(PromptName::written(prompt.as_str()), Ok(prompt.clone()));
            if let Ok(other_prompt) = PromptName::of(&other) {
                prop_assert_eq!(other_prompt == prompt, other == name);
            }
            // the unencoded name means the same prompt, or is refused with a request to encode it
            prop_assert!(PromptName::written(&name).is_ok_and(|written| written == prompt) || name.contains('%'));
        }

        #[test]
        fn a_text_that_is_taken_for_an_encoded_form_is_the_only_one(text in prop_oneof![any_name(), "[%A-F0-9a-f2 /.-]{1,12}"]) {
            if let Ok(prompt) = PromptName::parse(&text) {
                prop_assert_eq!(prompt.as_str(), &text);
                prop_assert_eq!(PromptName::of(&prompt.name()), Ok(prompt));
            }
        }

        /// A key's slot is that of the text in its first braces.
        #[test]
        fn no_name_moves_a_key_out_of_the_slot_of_its_namespace(name in any_name()) {
            if let Ok(prompt) = PromptName::of(&name) {
                let text = prompt.as_str();
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-%".contains(&byte);
                prop_assert!(text.bytes().all(plain) && text.len() <= PromptName::MAX, "{:?}", text);
                prop_assert!(text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '%'), "{:?}", text);
                let key = format!("{{prompts}}:active:{prompt}");
                let (_, rest) = key.split_once('{').expect("the namespace has braces");
                prop_assert_eq!(rest.split_once('}').map(|(tag, _)| tag), Some("prompts"));
                prop_assert_eq!(key.matches(['{', '}']).count(), 2);
            }
        }
    }

    #[test]
    fn a_name_of_another_registry_has_one_encoded_form() {
        for (name, encoded) in [
            ("Support bot: v2@eu", "Support%20bot%3A%20v2%40eu"),
            ("100%", "100%25"),
            ("a%20b", "a%2520b"),
            ("-a", "%2Da"),
            ("..", "%2E."),
            ("{prompts}:active:x", "%7Bprompts%7D%3Aactive%3Ax"),
            ("Grüße", "Gr%C3%BC%C3%9Fe"),
            ("a\n\0", "a%0A%00"),
        ] {
            let prompt = PromptName::of(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((prompt.as_str(), &*prompt.name()), (encoded, name));
            assert_eq!(PromptName::parse(encoded).as_ref(), Ok(&prompt), "{encoded}");
            assert_eq!(PromptName::written(encoded).as_ref(), Ok(&prompt), "{encoded}");
        }
        // people may write either form, but no third one
        for name in ["Support bot: v2@eu", "100%", "-a", "Grüße", "50% off", "%", "%%"] {
            assert_eq!(PromptName::written(name), PromptName::of(name), "{name}");
        }
        for other in ["a%2fb", "a%2Fb", "a%41", "%2d", "a%20 b", "a%C3", "a%c3%bc", "%C3%BCb c"] {
            assert!(PromptName::parse(other).is_err() && PromptName::written(other).is_err(), "{other}");
        }
        for incomplete in ["a%", "a%2", "%G0", "a%2G"] {
            assert!(PromptName::parse(incomplete).is_err(), "{incomplete}");
        }
    }
}
