//! Tables for a terminal.

use crate::visible::is_hidden;

/// The text of an empty cell.
const NOTHING: &str = "-";
const BOLD_YELLOW: &str = "\x1b[1;33m";
const RESET: &str = "\x1b[0m";

/// Makes text safe for a terminal: names, reasons and summaries are external, and a hidden character could redraw the
/// screen or reverse the line.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// An RFC 3339 time in UTC to the second: `2026-11-21 00:38:12Z`.
pub fn time(rfc3339: &str) -> String {
    let seconds = rfc3339.split_once('.').map_or(rfc3339.trim_end_matches('Z'), |(seconds, _)| seconds);
    clean(&format!("{}Z", seconds.replacen('T', " ", 1)))
}

#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    warn: bool,
}

impl Cell {
    pub fn new(text: &str) -> Self {
        Self { text: clean(text), warn: false }
    }

    pub fn maybe(text: Option<&str>) -> Self {
        Self::new(text.unwrap_or(NOTHING))
    }

    pub fn time(rfc3339: Option<&str>) -> Self {
        Self::maybe(rfc3339.map(time).as_deref())
    }

    /// Marks a value that a reader should not miss.
    pub fn warning(text: &str) -> Self {
        Self { warn: true, ..Self::new(text) }
    }
}

/// Rows below their headings, two spaces apart; `color` marks the warnings.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[Cell; N]], color: bool) -> String {
    let mut widths = headings.map(width);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(&cell.text));
        }
    }
    let headings = headings.map(Cell::new);
    let mut out = String::new();
    for row in std::iter::once(&headings).chain(rows) {
        for (at, (cell, widest)) in row.iter().zip(widths).enumerate() {
            let (on, off) = if color && cell.warn { (BOLD_YELLOW, RESET) } else { ("", "") };
            let gap = if at + 1 < N { widest - width(&cell.text) + 2 } else { 0 };
            out.push_str(&format!("{on}{}{off}{:gap$}", cell.text, ""));
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

/// Columns of a terminal: none for combining characters and joiners, two for East Asian scripts and for emoji.
fn width(text: &str) -> usize {
    let columns = |c: char| match u32::from(c) {
        0x300..=0x36f | 0x200c | 0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xa960..=0xa97f
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff01..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f680..=0x1f6ff
        | 0x1f900..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    };
    text.chars().map(columns).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_and_without_colour() {
        let rows = [
            [Cell::new("a"), Cell::warning("none"), Cell::new("x")],
            [Cell::new("longer"), Cell::maybe(None), Cell::new("")],
        ];
        assert_eq!(table(["P", "Q", "R"], &rows, false), "P       Q     R\na       none  x\nlonger  -\n");
        assert_eq!(
            table(["P", "Q", "R"], &rows, true),
            "P       Q     R\na       \x1b[1;33mnone\x1b[0m  x\nlonger  -\n"
        );
    }

    #[test]
    fn names_in_any_script_take_their_columns() {
        for (name, columns) in
            [("refund", 6), ("Gr\u{fc}\u{df}e", 5), ("u\u{308}", 1), ("返金 v2", 7), ("환불", 4), ("ﾃｽﾄ", 3), ("🤖", 2)]
        {
            assert_eq!(width(name), columns, "{name}");
        }
        let rows = [[Cell::new("返金"), Cell::new("v1")], [Cell::new("p"), Cell::new("v2")]];
        assert_eq!(table(["P", "V"], &rows, false), "P     V\n返金  v1\np     v2\n");
    }

    #[test]
    fn what_others_wrote_cannot_move_the_cursor() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{9b}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(clean("v1\u{202e}2v \u{2028}e\u{2066}"), "v1\u{fffd}2v \u{fffd}e\u{fffd}");
    }

    #[test]
    fn times_are_shown_to_the_second() {
        for text in ["2026-11-21T00:38:12.689Z", "2026-11-21T00:38:12Z"] {
            assert_eq!(time(text), "2026-11-21 00:38:12Z");
        }
    }
}
