//! The changes of a version in the prompt's content.

use similar::TextDiff;

use super::text::longest_run;
use crate::visible::is_hidden;

/// Larger contents are not compared: the time grows with the product of their sizes.
const MAX_BYTES: usize = 256 * 1_024;
const MAX_LINES: usize = 2_000;
/// Longest line shown.
const MAX_LINE: usize = 2_000;
/// Longest output, in bytes.
const MAX_SHOWN: usize = 40_000;
const CONTEXT: usize = 3;

/// A fenced block with the changes from `old` to `new`, or a sentence on why there is none. Each argument is a name and
/// a content.
pub fn diff(old: (&str, &str), new: (&str, &str)) -> String {
    let (old, new) = ((old.0, spelled_out(old.1)), (new.0, spelled_out(new.1)));
    if old.1 == new.1 {
        return format!("The contents of `{}` and `{}` are identical.\n", old.0, new.0);
    }
    if let Some((name, text)) = [&old, &new].into_iter().find(|(_, text)| is_too_large(text)) {
        let (bytes, lines) = (text.len(), text.lines().count());
        return format!("The content of `{name}` is too large to compare here: {bytes} bytes, {lines} lines.\n");
    }
    let changes = TextDiff::from_lines(&old.1, &new.1);
    let unified = changes.unified_diff().context_radius(CONTEXT).header(old.0, new.0).to_string();
    let mut shown = String::new();
    let mut lines = unified.lines();
    for line in &mut lines {
        if shown.len() + line.len().min(MAX_LINE) > MAX_SHOWN {
            shown.push_str("… more changes than fit here\n");
            break;
        }
        match line.char_indices().nth(MAX_LINE) {
            Some((end, _)) => shown.push_str(&format!("{}…\n", &line[..end])),
            None => shown.push_str(&format!("{line}\n")),
        }
    }
    let wait_for_replicas = "`".repeat(longest_run(&shown, '`').max(2) + 1);
    format!("{wait_for_replicas}diff\n{shown}{wait_for_replicas}\n")
}

fn is_too_large(text: &str) -> bool {
    text.len() > MAX_BYTES || text.lines().count() > MAX_LINES
}

/// Escapes characters that are invisible or end a line: they may be the cause of the incident.
fn spelled_out(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => visible.push(c),
            '\u{2028}' | '\u{2029}' => visible.extend(c.escape_unicode()),
            c if is_hidden(c) => visible.extend(c.escape_default()),
            c => visible.push(c),
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(old: &str, new: &str) -> String {
        diff(("v1", old), ("v2", new))
    }

    #[test]
    fn changed_lines_are_shown_with_what_surrounds_them() {
        let old = "You help customers.\nBe brief.\nNever guess.\n";
        insta::assert_snapshot!(changes(old, &old.replace("brief", "thorough")), @r"
        ```diff
        --- v1
        +++ v2
        @@ -1,3 +1,3 @@
         You help customers.
        -Be brief.
        +Be thorough.
         Never guess.
        ```
        ");
        assert_eq!(changes(old, old), "The contents of `v1` and `v2` are identical.\n");
    }

    #[test]
    fn a_text_can_not_leave_its_block() {
        let shown = changes("a\n", "````\n```\n<script>\n");
        assert!(shown.starts_with("`````diff\n") && shown.ends_with("\n`````\n"), "{shown}");
    }

    #[test]
    fn invisible_characters_are_escaped_in_the_diff() {
        let shown = changes("a b\n", "a\u{202e} \0b\r\n");
        assert!(shown.contains(r"+a\u{202e} \u{0}b\r"), "{shown}");
    }

    #[test]
    fn a_large_text_costs_little_and_is_cut() {
        let lines = |word: &str, n: usize| (0..n).map(|i| format!("{word} {i}\n")).collect::<String>();
        assert!(changes("a", &lines("x", 2_001)).contains("2001 lines"));
        assert!(changes("a", &"x".repeat(MAX_BYTES + 1)).contains("too large"));
        let shown = changes(&lines("word of the old one", 2_000), &lines("of the new", 2_000));
        assert!(shown.len() < MAX_SHOWN + 100 && shown.contains("… more changes than fit here"), "{}", shown.len());
        let shown = changes("a", &"é".repeat(100_000));
        assert!(shown.len() < 3 * MAX_LINE && shown.contains("é…"), "{}", shown.len());
    }
}
