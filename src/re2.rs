//! Regular expressions as Alertmanager and Prometheus read them: Go's syntax (RE2), anchored at both ends.

use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

/// Compiles an expression as these programs do. They put it between `^(?:` and `)$` as text.
pub fn anchored(expression: &str) -> Result<Regex, String> {
    let rust = Translation::of(&format!("^(?:{expression})$"))?;
    Regex::new(&rust).map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

/// Go's `\d`, `\s`, `\w` and `\b` mean ASCII, and some characters are special in only one of the two syntaxes.
struct Translation<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
}

impl Translation<'_> {
    fn of(expression: &str) -> Result<String, String> {
        let mut translation = Translation { rest: expression.chars().peekable(), out: String::new() };
        while let Some(c) = translation.rest.next() {
            match c {
                '\\' => translation.escape(false)?,
                '[' => translation.class()?,
                '{' => translation.braces(),
                '(' => translation.group()?,
                c => translation.out.push(c),
            }
        }
        Ok(translation.out)
    }

    fn ahead(&self) -> String {
        self.rest.clone().take(32).collect()
    }

    fn skip(&mut self, count: usize) {
        self.rest.by_ref().take(count).for_each(drop);
    }

    fn literal(&mut self, c: char) {
        self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }

    /// After a backslash.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(c) = self.rest.next() else { return Err("a backslash at the end".to_owned()) };
        match c {
            'd' => self.out.push_str("[0-9]"),
            'D' => self.out.push_str("[^0-9]"),
            'w' => self.out.push_str("[0-9A-Za-z_]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            's' => self.out.push_str(r"[\t\n\f\r ]"),
            'S' => self.out.push_str(r"[^\t\n\f\r ]"),
            'b' if !in_class => self.out.push_str(r"(?-u:\b)"),
            'Q' if !in_class => {
                while self.rest.peek().is_some() && !self.ahead().starts_with("\\E") {
                    let c = self.rest.next().unwrap_or_default();
                    self.literal(c);
                }
                self.skip(2);
            }
            'A' | 'z' if !in_class => self.out.extend(['\\', c]),
            'a' | 'f' | 'n' | 'r' | 't' | 'v' => self.out.extend(['\\', c]),
            'x' | 'p' | 'P' => {
                self.out.extend(['\\', c]);
                let braces = self.ahead().strip_prefix('{').and_then(|rest| rest.find('}')).map_or(0, |end| end + 2);
                self.out.extend(self.rest.by_ref().take(braces));
            }
            '0'..='7' => {
                let more = self.ahead().chars().take(2).take_while(|c| ('0'..='7').contains(c)).count();
                if c != '0' && more == 0 {
                    return Err(format!("\\{c}: Go has no back-references"));
                }
                let digits: String = std::iter::once(c).chain(self.rest.by_ref().take(more)).collect();
                self.out.push_str(&format!("\\x{{{:x}}}", u32::from_str_radix(&digits, 8).unwrap_or_default()));
            }
            c if c.is_ascii_punctuation() || c == ' ' => self.literal(c),
            c => return Err(format!("\\{c} is not supported")),
        }
        Ok(())
    }

    /// After `[`.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            match self.rest.next() {
                None => return Err("missing ]".to_owned()),
                Some(']') if !first => break,
                Some('\\') => self.escape(true)?,
                Some('[') => {
                    let ahead = self.ahead();
                    match ahead.strip_prefix(':').and_then(|rest| rest.split_once(":]")) {
                        Some((name, _)) => {
                            self.out.push_str(&format!("[:{name}:]"));
                            self.skip(name.chars().count() + 3);
                        }
                        None => self.out.push_str("\\["),
                    }
                }
                // two of them would be an operator
                Some('-') if self.out.ends_with('-') => self.out.push_str("\\-"),
                Some('-') => self.out.push('-'),
                Some(c) => self.literal(c),
            }
            first = false;
        }
        self.out.push(']');
        Ok(())
    }

    /// After `{`: a count, or the character itself.
    fn braces(&mut self) {
        let ahead = self.ahead();
        let count = ahead.split_once('}').map(|(count, _)| count).filter(|count| {
            let (least, most) = count.split_once(',').unwrap_or((count, ""));
            !least.is_empty() && [least, most].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
        });
        match count {
            Some(count) => {
                self.out.push_str(&format!("{{{count}}}"));
                self.skip(count.len() + 1);
            }
            None => self.out.push_str("\\{"),
        }
    }

    /// After `(`.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        let ahead = self.ahead();
        let Some(flags) = ahead.strip_prefix('?') else { return Ok(()) };
        let flags = flags.split([':', ')', '<']).next().unwrap_or_default();
        match flags.chars().find(|flag| !"imsUP-".contains(*flag)) {
            Some(flag) => Err(format!("(?{flag} is not supported")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        for (expression, matching, others) in [
            ("a|b", &["a", "b"][..], &["ab", "xa", "b\n"][..]),
            ("", &[""], &["a"]),
            ("a)|(?:b", &["a", "ax", "b", "xb"], &["c"]), // text between ^(?: and )$
            (r"\d+", &["12"], &["١٢", ""]),
            (r"\w", &["a", "_"], &["ä", "-"]),
            (r"\s\S", &[" x", "\tä"], &["\u{a0}x", "  "]),
            (r"\bab\b.*", &["ab", "abä"], &["abc"]),
            (r"[[a]&&b]", &["[&&b]", "a&&b]"], &["b", "a"]),
            (r"[a&&b]", &["a", "&", "b"], &[]),
            (r"[^\w-]", &["ä", " "], &["-", "a"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[[:alpha:]_]+", &["ab_"], &["a:"]),
            ("a{2}b{,3}{x}", &["aab{,3}{x}"], &["aabbb"]),
            (r"\Qa.b\E+", &["a.b", "a.bb"], &["axb"]),
            (r"\<\-\.\_", &["<-._"], &["a"]),
            (r"\x41\101\0", &["AA\0"], &["A"]),
            ("(?i)STRASSE|ß", &["strasse", "ẞ"], &["ss"]),
            (r"\p{Greek}+\pL", &["αβγ"], &["abc"]),
            (".", &["ä"], &["\n", ""]),
            ("(?s).", &["\n"], &[""]),
        ] {
            let regex = anchored(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
            for text in matching {
                assert!(regex.is_match(text), "{expression} must match {text:?}: {regex}");
            }
            for text in others {
                assert!(!regex.is_match(text), "{expression} must not match {text:?}: {regex}");
            }
        }
    }

    #[test]
    fn expressions_that_go_refuses_are_refused() {
        for expression in ["(", "a**(", "[a", r"\1", r"\y", "(?x)a", "(?=a)", r"a\", "(?P<1a>x)", "a{2}{3}("] {
            assert!(anchored(expression).is_err(), "{expression}");
        }
    }
}
