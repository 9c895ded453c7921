//! The weekly message about a dry run.

use super::text::{Markup, escape, fit};
use super::{Message, aside, header, others, ours};
use crate::report::{Case, DryRunReport, Tally};
use crate::visible::shown;
use crate::wording::took;

/// The report command shows all of them; a message must stay readable.
const TRIGGERS: usize = 10;
const CASES: usize = 10;
/// Longest line; all lines of a section stay below Slack's limit of 3,000.
const LINE: usize = 250;

pub fn report(report: &DryRunReport) -> Message {
    let total = report.total();
    let many = total.right + total.wrong + total.unclear;
    let least = if report.partial { "at least " } else { "" };
    let title = match many {
        0 if report.partial => "Dry run: too many incidents this week to read them all".to_owned(),
        0 => "Dry run: nothing would have been rolled back this week".to_owned(),
        1 => format!("Dry run: {least}1 rollback would have happened this week"),
        many => format!("Dry run: {least}{many} rollbacks would have happened this week"),
    };
    let mut blocks = vec![header(&title)];
    blocks.push(ours(Markup::words("From ").date(report.since).and(" to ").date(report.until).and(".")));
    let mut rows: Vec<(&String, &Tally)> = report.triggers.iter().collect();
    rows.sort_by_key(|(name, tally)| (std::cmp::Reverse(tally.right + tally.wrong + tally.unclear), *name));
    blocks.extend(others(lines(rows.iter().map(|(name, tally)| said(name, tally)), TRIGGERS, 0)));
    blocks.extend(others(lines(report.cases.iter().map(line), CASES, report.left_out)));
    blocks.extend(aside(vec![Markup::words("To list all of them, run ").code("prompt-rollback report --since 7d")]));
    let text = if many == 0 { title } else { format!("{title}. {}", said("All alerts", &total)) };
    Message { text: escape(&text), blocks }
}

/// At most `most` lines, and how many more there are, with those that are `left_out` of `all`.
fn lines(all: impl ExactSizeIterator<Item = String>, most: usize, left_out: usize) -> String {
    let more = all.len().saturating_sub(most) + left_out;
    let mut text: Vec<String> = all.take(most).map(|line| fit(&line, LINE)).collect();
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    text.join("\n")
}

fn said(name: &str, tally: &Tally) -> String {
    let Tally { right, wrong, unclear, .. } = tally;
    let saved = match tally.minutes_saved() {
        0 => String::new(),
        minutes => format!("; {minutes} min earlier than people"),
    };
    format!("{name}: {right} right, {wrong} wrong, {unclear} unclear{saved}")
}

fn line(case: &Case) -> String {
    let after = case.after.map(|after| format!(", {} later", took(after))).unwrap_or_default();
    format!(
        "{}: {} {} → {}: {}{after} ({})",
        case.verdict().as_str(),
        shown(&case.prompt),
        case.dry_run.from,
        case.dry_run.to,
        case.instead.words(),
        case.dry_run.trigger
    )
}
