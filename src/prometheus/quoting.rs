//! Prompts' names inside a query. A label has the name itself, not its encoded form, so it may hold any characters.

use std::fmt::Write as _;

use crate::decision::PromptName;

/// The name inside a string of PromQL, in double or in single quotes: nothing in it ends the string, and nothing is left
/// that a template would replace. Most names need no change.
pub fn in_string(prompt: &PromptName) -> String {
    let mut text = String::new();
    for c in prompt.name().chars() {
        match c {
            c if is_plain(c) || " .:@#&+,;=!?~*^()[]{}|<>".contains(c) => text.push(c),
            c if u32::from(c) > 0xffff => push(&mut text, format_args!("\\U{:08x}", u32::from(c))),
            c => push(&mut text, format_args!("\\u{:04x}", u32::from(c))),
        }
    }
    text
}

/// The name inside a string of PromQL that is a regular expression: it matches only itself.
pub fn in_pattern(prompt: &PromptName) -> String {
    text_in_pattern(&prompt.name())
}

/// Any text inside a string of PromQL that is a regular expression: it matches only itself.
pub fn text_in_pattern(all: &str) -> String {
    let mut text = String::new();
    for c in all.chars() {
        match c {
            '.' => text.push_str("[.]"),
            c if is_plain(c) || " :@,".contains(c) => text.push(c),
            // the string's backslash, and the number in the expression
            c => push(&mut text, format_args!("\\\\x{{{:x}}}", u32::from(c))),
        }
    }
    text
}

/// Without a meaning in strings and in regular expressions.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_/-%".contains(c)
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_inside_its_string_and_matches_only_itself() {
        for (name, string, pattern) in [
            ("team/refund.v2", "team/refund.v2", "team/refund[.]v2"),
            ("Support bot: v2@eu", "Support bot: v2@eu", "Support bot: v2@eu"),
            ("100%", "100%", "100%"),
            (r#"a"} or vector(1) #"#, r"a\u0022} or vector(1) #", r"a\\x{22}\\x{7d} or vector\\x{28}1\\x{29} \\x{23}"),
            (r"a\b'c`d", r"a\u005cb\u0027c\u0060d", r"a\\x{5c}b\\x{27}c\\x{60}d"),
            (".*|x", ".*|x", r"[.]\\x{2a}\\x{7c}x"),
            ("$version\n", r"\u0024version\u000a", r"\\x{24}version\\x{a}"),
            ("ü🙂\u{fffd}", r"\u00fc\U0001f642\ufffd", r"\\x{fc}\\x{1f642}\\x{fffd}"),
        ] {
            let prompt = PromptName::of(name).expect(name);
            assert_eq!((in_string(&prompt).as_str(), in_pattern(&prompt).as_str()), (string, pattern));
        }
    }
}
