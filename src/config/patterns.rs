//! Patterns of prompts' names.

use crate::decision::PromptName;

/// Whether a pattern matches the prompt's name.
pub fn allows(patterns: &[String], prompt: &PromptName) -> bool {
    patterns.iter().any(|pattern| glob(pattern, &prompt.name()))
}

/// Whether the patterns match every name.
pub fn allows_all(patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| pattern == "*")
}

/// Whether `text` matches `pattern`, in which `*` matches any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(before) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    // at the first match, which leaves the most room for the rest
    for piece in pieces {
        let Some(at) = text.find(piece) else { return false };
        text = &text[at + piece.len()..];
    }
    text.ends_with(last)
}
