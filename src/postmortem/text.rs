//! External texts in Markdown, shown literally: no markup, no HTML, no line ends.

use std::time::Duration;

use crate::decision::Timestamp;
use crate::visible::{is_hidden, misleads};

/// Longest text of one alert, note or entry.
const MAX_TEXT: usize = 400;
const MAX_URL: usize = 500;

/// One line of bounded length without anything that Markdown or HTML would read as markup.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len().min(2 * MAX_TEXT));
    for c in one_line(text, MAX_TEXT).chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '$' => safe.extend(['\\', c]),
            c => safe.push(c),
        }
    }
    safe
}

/// Literal text of bounded length, for expressions: more readable than [`escaped`].
pub fn code(text: &str) -> String {
    let text = one_line(text, MAX_TEXT);
    let wait_for_replicas = "`".repeat(longest_run(&text, '`') + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    if text.is_empty() { "–".to_owned() } else { format!("{wait_for_replicas}{pad}{text}{pad}{wait_for_replicas}") }
}

/// The longest run of `of`.
pub fn longest_run(text: &str, of: char) -> usize {
    text.split(|c| c != of).map(str::len).max().unwrap_or_default()
}

/// White space and control characters become single spaces; invisible characters and those that turn the direction of
/// writing are removed.
fn one_line(text: &str, most: usize) -> String {
    let (mut line, mut length, mut gap) = (String::new(), 0, false);
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = !line.is_empty();
            continue;
        }
        if is_hidden(c) {
            continue;
        }
        if length + usize::from(gap) >= most {
            line.push('…');
            break;
        }
        if std::mem::take(&mut gap) {
            line.push(' ');
            length += 1;
        }
        line.push(c);
        length += 1;
    }
    line
}

/// A link, if the address is plainly an address.
pub fn link(url: &str) -> Option<String> {
    let has_scheme = url.starts_with("http://") || url.starts_with("https://");
    let plain = |c: char| c.is_ascii_graphic() && !"<>\"`\\|^{}".contains(c);
    (has_scheme && !misleads(url) && url.len() <= MAX_URL && url.chars().all(plain)).then(|| format!("<{url}>"))
}

/// `2026-11-21 00:38:12.689Z`
pub fn moment(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(moment) => moment.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string(),
        Err(_) => "at an impossible time".to_owned(),
    }
}

/// How long something took, in its two largest units; seconds of short times in tenths.
pub fn took(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |large: u64, unit: &str, small: u64, units: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {units}"),
    };
    match seconds {
        0..60 => format!("{:.1} s", duration.as_millis() as f64 / 1e3),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

/// A count with thousands separators: `12,345`. `None` if the number is not a count.
pub fn count(number: f64) -> Option<String> {
    if !(0.0..1e15).contains(&number) {
        return None;
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        let text = "<script>alert(1)</script> `x` **b** [a](http://b) a|b # $x$ \\ &amp;\n\n- \u{202e}item\0";
        let expected = "&lt;script&gt;alert(1)&lt;/script&gt; \\`x\\` \\*\\*b\\*\\* \\[a\\](http://b) a\\|b \\# \\$x\\$ \\\\ &amp;amp; - item";
        assert_eq!(escaped(text), expected);
    }

    #[test]
    fn text_cannot_end_a_code_span_early() {
        let shown = ["a_b{c=\"d\"}", "a``b`", "`", "a\n\n# b", ""].map(code);
        assert_eq!(shown, ["`a_b{c=\"d\"}`", "``` a``b` ```", "`` ` ``", "`a # b`", "–"]);
    }

    #[test]
    fn a_text_has_a_bounded_length() {
        let text = escaped(&"<x> ".repeat(25_000));
        assert!(text.ends_with('…') && text.len() < 10 * MAX_TEXT, "{} bytes", text.len());
        assert_eq!(escaped(&"é".repeat(MAX_TEXT)), "é".repeat(MAX_TEXT), "what fits is whole");
    }

    #[test]
    fn only_plain_addresses_become_links() {
        assert_eq!(link("https://a.example/x?y=1&z=(2)").as_deref(), Some("<https://a.example/x?y=1&z=(2)>"));
        for url in [
            "javascript:alert(1)",
            "https://a> <script>",
            "https://a b",
            "",
            "https://a/`x`",
            "ftp://a",
            "https://a@b",
            "https://u:p@a/",
        ] {
            assert_eq!(link(url), None, "{url}");
        }
        assert_eq!(link(&format!("https://{}", "a".repeat(MAX_URL))), None);
    }

    #[test]
    fn durations_have_seconds() {
        let said = [0, 2_449, 59_999, 60_000, 192_000, 3_600_000, 5_430_000, 90_000_000];
        assert_eq!(
            said.map(|ms| took(Duration::from_millis(ms))),
            ["0.0 s", "2.4 s", "60.0 s", "1 min", "3 min 12 s", "1 h", "1 h 30 min", "1 d 1 h"]
        );
    }

    #[test]
    fn moments_and_counts_are_readable() {
        assert_eq!(moment(Timestamp(1_795_221_492_689)), "2026-11-21 00:38:12.689Z");
        assert_eq!(moment(Timestamp(i64::MAX)), "at an impossible time");
        let counts = [0.0, 999.4, 1_234.0, 1_234_567.0].map(|number| count(number).unwrap());
        assert_eq!(counts, ["0", "999", "1,234", "1,234,567"]);
        assert_eq!([f64::NAN, f64::INFINITY, -1.0].map(count), [None, None, None]);
    }
}
