//! How the text of a secret is read, wherever it is written.

/// The text without what got in by accident: blanks and line ends around it, and the mark that some editors put first.
pub(crate) fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// The text of a secret's file.
pub(crate) fn decode(bytes: &[u8]) -> Result<&str, &'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err("expected text in UTF-8, found UTF-16"),
        _ => std::str::from_utf8(bytes).map_err(|_| "expected text in UTF-8, found other bytes"),
    }
}

/// Why no header could carry this token; says nothing of what it is.
pub(crate) fn unfit(token: &str) -> Option<String> {
    let wrong = token.chars().find(|c| !c.is_ascii_graphic())?;
    let found = match wrong {
        c if c.is_control() => "a line break or control character",
        c if c.is_whitespace() => "a blank",
        _ => "a character that is not ASCII",
    };
    Some(format!("found {found} inside, expected one word of visible ASCII characters"))
}
