//! Encodes names of prompts for Redis keys. `tests/fixtures/names.json` of the repository has test vectors.

use std::fmt;

/// Longest encoded name, in bytes.
const LONGEST: usize = 128;

/// The encoded form of a prompt's name, which its Redis keys contain. [`Reader::start`](crate::Reader::start) expects it.
///
/// Percent-encodes each byte that is not one of `A-Z a-z 0-9 . _ / -`, and a first byte that is not a letter or digit. A
/// name without such bytes is returned unchanged. Different names have different encoded forms. Do not encode a name
/// twice. In metrics, the label `prompt` holds the name itself.
///
/// ```
/// use prompt_rollback_reader::key_of;
///
/// assert_eq!(key_of("Support bot: v2@eu")?, "Support%20bot%3A%20v2%40eu");
/// assert_eq!(key_of("team/refund.v2")?, "team/refund.v2");
/// assert_eq!(key_of("100%")?, "100%25");
/// # Ok::<(), prompt_rollback_reader::InvalidPromptName>(())
/// ```
///
/// # Errors
/// When the name is empty, or its encoded form is longer than 128 bytes.
pub fn key_of(name: &str) -> Result<String, InvalidPromptName> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if name.is_empty() {
        return Err(InvalidPromptName { encoded: 0 });
    }
    let mut encoded = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || at > 0 && b"._/-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    if encoded.len() > LONGEST {
        return Err(InvalidPromptName { encoded: encoded.len() });
    }
    Ok(encoded)
}

/// Why a prompt cannot have this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPromptName {
    /// Bytes of its encoded form.
    encoded: usize,
}

impl fmt::Display for InvalidPromptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encoded {
            0 => f.write_str("expected the name of a prompt, found an empty text"),
            encoded => write!(f, "expected a name of at most {LONGEST} bytes in its encoded form, found {encoded}"),
        }
    }
}

impl std::error::Error for InvalidPromptName {}
