//! Label matchers, as Alertmanager reads them: `severity=~"critical|page"`.
//!
//! Since 0.27 Alertmanager has two syntaxes. What the older one understands means what it meant before; only the rest is
//! read in the newer one, which also allows any label name in quotes.

use std::collections::BTreeMap;
use std::fmt;

use regex::Regex;

use crate::re2;

/// The labels of an alert; a label that is absent counts as empty.
pub type LabelSet = BTreeMap<String, String>;

#[derive(Debug, Clone)]
pub struct Matcher {
    pub name: String,
    value: String,
    negative: bool,
    regex: Option<Regex>,
}

impl Matcher {
    pub fn equal(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: value.to_owned(), negative: false, regex: None }
    }

    pub fn regex(name: &str, value: &str) -> Result<Self, String> {
        Self::new(name, "=~", value.to_owned())
    }

    fn new(name: &str, operator: &str, value: String) -> Result<Self, String> {
        let regex = operator.ends_with('~').then(|| re2::anchored(&value)).transpose();
        let regex = regex.map_err(|error| format!("the expression {value:?}: {error}"))?;
        Ok(Self { name: name.to_owned(), value, negative: operator.starts_with('!'), regex })
    }

    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.accepts(labels.get(&self.name).map_or("", String::as_str))
    }

    /// Whether it matches an alert whose label has this value.
    pub fn accepts(&self, value: &str) -> bool {
        let same = match &self.regex {
            Some(regex) => regex.is_match(value),
            None => self.value == value,
        };
        same != self.negative
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match (self.negative, self.regex.is_some()) {
            (false, false) => "=",
            (true, false) => "!=",
            (false, true) => "=~",
            (true, true) => "!~",
        };
        write!(f, "{}{operator}{:?}", self.name, self.value)
    }
}

/// Reads a text with any number of matchers, separated by commas.
pub fn parse(text: &str) -> Result<Vec<Matcher>, String> {
    classic(text).or_else(|error| Quoted { rest: text }.matchers().ok_or(error))
}

const BLANKS: [char; 5] = ['\t', '\n', '\x0c', '\r', ' '];

/// The older syntax.
fn classic(text: &str) -> Result<Vec<Matcher>, String> {
    let text = text.strip_prefix('{').unwrap_or(text);
    let text = text.strip_suffix('}').unwrap_or(text);
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        match c {
            ',' if !quoted => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            '"' if escaped => escaped = false,
            '"' => quoted = !quoted,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
        part.push(c);
    }
    if !part.trim().is_empty() {
        parts.push(part.trim().to_owned());
    }
    parts.iter().map(|part| classic_one(part)).collect()
}

fn classic_one(text: &str) -> Result<Matcher, String> {
    let malformed = || format!("found {text:?}, expected a matcher such as severity=\"critical\"");
    let rest = text.trim_start_matches(BLANKS);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(malformed());
    }
    let (operator, rest) = operator(rest.trim_start_matches(BLANKS)).ok_or_else(malformed)?;
    let value = rest.trim_matches(BLANKS);
    let (value, quoted) = value.strip_prefix('"').map_or((value, false), |value| (value, true));
    let (mut unescaped, mut open, mut chars) = (String::new(), quoted, value.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                None => unescaped.push('\\'),
                Some('n') => unescaped.push('\n'),
                Some(c @ ('"' | '\\')) => unescaped.push(c),
                Some(c) => unescaped.extend(['\\', c]),
            },
            '"' if open && chars.as_str().is_empty() => open = false,
            '"' => return Err(malformed()),
            c => unescaped.push(c),
        }
    }
    if open { Err(malformed()) } else { Matcher::new(name, operator, unescaped) }
}

fn operator(text: &str) -> Option<(&'static str, &str)> {
    ["=~", "!~", "!=", "="].into_iter().find_map(|operator| Some((operator, text.strip_prefix(operator)?)))
}

/// The newer syntax.
struct Quoted<'a> {
    rest: &'a str,
}

impl Quoted<'_> {
    fn matchers(&mut self) -> Option<Vec<Matcher>> {
        let mut matchers = Vec::new();
        let braces = self.take("{");
        while !self.peeks("}") && !self.at_end() {
            let name = self.word()?;
            let (operator, rest) = operator(self.rest.trim_start())?;
            self.rest = rest;
            let value = self.word()?;
            matchers.push(Matcher::new(&name, operator, value).ok()?);
            if !self.take(",") {
                break;
            }
        }
        (self.take("}") == braces && self.at_end()).then_some(matchers)
    }

    fn peeks(&self, token: &str) -> bool {
        self.rest.trim_start().starts_with(token)
    }

    fn at_end(&self) -> bool {
        self.rest.trim_start().is_empty()
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        rest.inspect(|rest| self.rest = rest).is_some()
    }

    /// A word, or a text in double quotes with Go's escapes.
    fn word(&mut self) -> Option<String> {
        let text = self.rest.trim_start();
        if !text.starts_with('"') {
            let reserved = |c: char| c.is_whitespace() || "{}!=~,\\\"'`".contains(c);
            let (word, rest) = text.split_at(text.find(reserved).unwrap_or(text.len()));
            self.rest = rest;
            return (!word.is_empty()).then(|| word.to_owned());
        }
        let (mut word, mut chars) = (String::new(), text[1..].chars());
        loop {
            match chars.next()? {
                '"' => break,
                '\n' => return None,
                '\\' => word.push(unescape(&mut chars)?),
                c => word.push(c),
            }
        }
        self.rest = chars.as_str();
        Some(word)
    }
}

/// The character of an escape of Go, after the backslash. One that would make the text invalid UTF-8 is refused.
fn unescape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let (digits, radix, first) = match chars.next()? {
        'a' => return Some('\x07'),
        'b' => return Some('\x08'),
        'f' => return Some('\x0c'),
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'v' => return Some('\x0b'),
        c @ ('\\' | '"') => return Some(c),
        'x' => (2, 16, None),
        'u' => (4, 16, None),
        'U' => (8, 16, None),
        c => (2, 8, Some(c)),
    };
    let digits: String = first.into_iter().chain(chars.take(digits)).collect();
    let is_byte = radix == 8 || digits.len() == 2;
    let code = u32::from_str_radix(&digits, radix).ok()?;
    char::from_u32(code).filter(|c| !is_byte || c.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(matchers) => matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error,
        }
    }

    #[test]
    fn the_older_syntax_comes_first() {
        for (text, expected) in [
            ("severity=critical", r#"severity="critical""#),
            (r#"{ a = "b" , c!~"d|e", }"#, r#"a="b" c!~"d|e""#),
            ("a=", r#"a="""#),
            ("a!=\"\"", r#"a!="""#),
            (r#"a="x,y",b=~z"#, r#"a="x,y" b=~"z""#),
            (r#"a="x\"y\\\d\n""#, r#"a="x\"y\\\\d\n""#),
            ("a=b c", r#"a="b c""#),
            ("a=ü", r#"a="ü""#),
            ("a=b}}{", r#"a="b}}{""#),
            ("{a=b", r#"a="b""#),
            ("", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn other_names_need_the_newer_syntax() {
        for (text, name, value) in [
            (r#""a b"="c""#, "a b", "c"),
            ("ü=~\"x.\"", "ü", "x."),
            (r#"{"a.b"!="\u00fc\t"}"#, "a.b", "ü\t"),
            ("🙂 = x,", "🙂", "x"),
        ] {
            let matchers = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((matchers.len(), matchers[0].name.as_str(), matchers[0].value.as_str()), (1, name, value));
        }
        for text in
            ["a", "=b", "a=\"b", "a=\"b\"c\"", "a=~\"(\"", "\"a\"=\"b\"\"", ",,", "{ü=b", "ü=\"\\xff\"", "ü=\"\\'\""]
        {
            assert!(parse(text).is_err(), "{text}: {}", shown(text));
        }
    }

    #[test]
    fn a_label_that_is_absent_counts_as_empty() {
        let labels = LabelSet::from([("a".to_owned(), "1".to_owned()), ("e".to_owned(), String::new())]);
        for (text, matches) in [
            ("b=\"\"", true),
            ("b!=\"\"", false),
            ("b=~\".*\"", true),
            ("b=~\".+\"", false),
            ("b!~\"x\"", true),
            ("e=\"\"", true),
            ("a!=\"\"", true),
            ("a=~\"1|2\"", true),
            ("a=~\"[2-9]\"", false),
        ] {
            assert_eq!(parse(text).expect(text)[0].matches(&labels), matches, "{text}");
        }
    }
}
