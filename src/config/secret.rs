//! Parses the text of a secret, wherever it is set.

/// Removes what was added by accident: white space and line ends around the text, and a byte order mark.
pub(crate) fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// Decodes the file of a secret.
pub(crate) fn decode(bytes: &[u8]) -> Result<&str, &'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err("expected text in UTF-8, found UTF-16"),
        _ => std::str::from_utf8(bytes).map_err(|_| "expected text in UTF-8, found other bytes"),
    }
}

/// Why no header can carry this token; does not reveal it.
pub(crate) fn unfit(token: &str) -> Option<String> {
    let wrong = token.chars().find(|c| !c.is_ascii_graphic())?;
    let found = match wrong {
        c if c.is_control() => "a line break or control character",
        c if c.is_whitespace() => "a blank",
        _ => "a character that is not ASCII",
    };
    Some(format!("found {found} inside, expected one word of visible ASCII characters"))
}
