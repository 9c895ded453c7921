//! External texts and addresses, shown to people: nothing in them may look like something else, reverse the line or act
//! as a terminal command.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use tracing_subscriber::fmt::MakeWriter;

use crate::decision::PromptName;

/// An invisible character that may have an effect: control characters (U+009B begins a terminal's escape sequences like
/// ESC), line and paragraph separators, characters that turn the direction of writing, and invisible ones. The joiners
/// of emoji and of Persian are allowed.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Replaces each hidden character with `\u` and its number, as in JSON: JSON stays JSON with the same meaning. Line
/// ends, tabs and sequences that only set a color stay, because log lines contain them.
pub fn escape_hidden(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if c == '\x1b' { color(rest).unwrap_or(0) } else { 0 };
        if length > 0 {
            shown.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match c {
            '\n' | '\t' => shown.push(c),
            c if is_hidden(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(shown, "\\u{unit:04x}");
                }
            }
            c => shown.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(shown)
}

/// The name of a prompt, on one line. Invisible characters, and those that would end a code span, are replaced by
/// `\u` and their number. Most names need no change.
pub fn shown(prompt: &PromptName) -> Cow<'_, str> {
    let name = prompt.name();
    if matches!(name, Cow::Borrowed(_)) {
        return name; // letters, digits and . _ / -
    }
    let mut shown = String::with_capacity(name.len() + 16);
    let mut rest = name.chars().peekable();
    let mut after_text = false;
    while let Some(c) = rest.next() {
        let is_gap = c == ' ' && after_text && rest.peek().is_some_and(|next| !next.is_whitespace());
        if is_gap || !(c == '\\' || c == '`' || c.is_whitespace() || is_hidden(c)) {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
        after_text = c != ' ';
    }
    Cow::Owned(shown)
}

/// Like [`shown`], from the encoded form of a name. Other texts stay as they are.
pub fn shown_name(encoded: &str) -> Cow<'_, str> {
    match PromptName::parse(encoded) {
        Ok(prompt) if encoded.contains('%') => Cow::Owned(shown(&prompt).into_owned()),
        _ => Cow::Borrowed(encoded),
    }
}

/// The length of a sequence that only sets a color, at the start of `text`.
fn color(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\x1b[")?;
    let end = numbers.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    numbers[end..].starts_with('m').then_some(2 + end + 1)
}

/// Whether an address misleads: it names a user before the host (`https://bank.example@evil.example`), or may be read
/// so, so it does not lead where it seems to. `url` has a scheme.
pub fn misleads(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    // browsers read a backslash as a slash, other programs do not
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains(['@', '\\']) || authority.contains("%40")
}

/// A writer of log lines without hidden characters: each event is written at once, and its only line end is its last
/// character.
#[derive(Debug, Clone, Copy)]
pub struct LogLines<W>(pub W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for LogLines<W> {
    type Writer = LogLines<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLines(self.0.make_writer())
    }
}

impl<W: Write> Write for LogLines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let line = escape_hidden(line);
        let line = if line.contains(['\n', '\t']) {
            line.replace('\n', "\\n").replace('\t', "\\t")
        } else {
            line.into_owned()
        };
        self.0.write_all(format!("{line}{end}").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that Unicode calls controls, formats or line separators, except those that emoji and scripts need.
    const HIDDEN: [char; 22] = [
        '\0',
        '\x07',
        '\x1b',
        '\r',
        '\x7f',
        '\u{85}',
        '\u{9b}',
        '\u{9d}',
        '\u{ad}',
        '\u{61c}',
        '\u{200b}',
        '\u{200e}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2066}',
        '\u{2069}',
        '\u{feff}',
        '\u{fff9}',
        '\u{e0001}',
        '\u{e007f}',
    ];

    #[test]
    fn hidden_characters_are_escaped_and_others_unchanged() {
        for hidden in HIDDEN {
            assert!(is_hidden(hidden), "{:?}", hidden.escape_unicode().to_string());
            let shown = escape_hidden(&format!("a{hidden}b")).into_owned();
            assert!(shown.starts_with("a\\u") && shown.ends_with('b') && !shown.chars().any(is_hidden), "{shown:?}");
        }
        for plain in ["", "v2 → v1", "Grüße, 世界", "👩\u{200d}💻", "می\u{200c}خواهم", "a\tb\nc\n"] {
            assert!(matches!(escape_hidden(plain), text if text == plain), "{plain}");
        }
        assert_eq!(escape_hidden("\x1b[1;33mno\x1b[0m"), "\x1b[1;33mno\x1b[0m", "our colours");
        for sequence in ["\x1b[2J", "\x1b]0;title\x07", "\x1b[", "\x1b", "\x1b[1;", "\x1b[31;x", "\u{9b}31m"] {
            assert!(!escape_hidden(sequence).contains(['\x1b', '\u{9b}', '\x07']), "{sequence:?}");
        }
    }

    #[test]
    fn nothing_in_a_prompts_name_is_invisible() {
        let of = |name: &str| shown(&PromptName::of(name).expect(name)).into_owned();
        for plain in ["team/refund.v2", "Support bot: v2@eu", "Grüße, 世界", "<!channel>", "100% _x_ *y*"] {
            assert_eq!(of(plain), plain);
        }
        for (name, expected) in [
            (" a", "\\u0020a"),
            ("a ", "a\\u0020"),
            ("a  b", "a\\u0020\\u0020b"),
            ("a\nb\tc", "a\\u000ab\\u0009c"),
            ("\x1b[31mred", "\\u001b[31mred"),
            ("v\u{202e}1\u{200b}", "v\\u202e1\\u200b"),
            ("a\u{a0}b", "a\\u00a0b"),
            ("a\\u0020", "a\\u005cu0020"),
            ("a`b`", "a\\u0060b\\u0060"),
        ] {
            assert_eq!(of(name), expected, "{name:?}");
        }
        assert_eq!(shown_name("Support%20bot"), "Support bot");
        for other in ["p", "a%2fb", "100 %", "%"] {
            assert_eq!(shown_name(other), other);
        }
    }

    #[test]
    fn json_stays_json_of_the_same_meaning() {
        let value = serde_json::json!({ "a": HIDDEN.iter().collect::<String>() });
        let shown = escape_hidden(&format!("{value:#}\n")).into_owned();
        assert!(!shown.chars().any(|c| is_hidden(c) && c != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn a_log_line_is_one_line() {
        let mut written = Vec::new();
        let event = "ERROR refused: a\nERROR forged\r\u{2028}\u{9b}2J\u{202e}\n";
        assert_eq!(LogLines(&mut written).write(event.as_bytes()).unwrap(), event.len());
        let text = String::from_utf8(written).unwrap();
        assert_eq!(text, "ERROR refused: a\\nERROR forged\\u000d\\u2028\\u009b2J\\u202e\n");
        let mut written = Vec::new();
        LogLines(&mut written).write_all(b"\xff\xfe\n").unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), "\u{fffd}\u{fffd}\n");
    }

    #[test]
    fn addresses_that_begin_with_another_name_mislead() {
        for url in [
            "https://bank.example@evil.example",
            "https://user:pass@host.example/x",
            "https://bank.example%40evil.example/",
            "https://bank.example\\@evil.example",
            "http://@evil.example",
        ] {
            assert!(misleads(url), "{url}");
        }
        for url in ["https://a.example/@maya", "https://a.example?x=a@b", "https://a.example#a@b", "http://[::1]:9090/"]
        {
            assert!(!misleads(url), "{url}");
        }
    }
}
