//! The output of `report`.

use std::time::Duration;

use crate::api::{CaseView, DryRunReportView, TallyView};
use crate::cli::table::{Cell, table, time};
use crate::decision::time::spoken;
use crate::report::DryRunVerdict;
use crate::visible::shown_name;

pub fn report(report: &DryRunReportView, color: bool) -> String {
    let mut out = format!("{} to {}\n", time(&report.since), time(&report.until));
    if report.cases.is_empty() {
        out.push_str("nothing would have been rolled back\n");
        if !report.dry_run {
            out.push_str("hint: only guards.mode = \"dry-run\" is reported; this receiver rolls back automatically\n");
        }
        return out;
    }
    let count = |name: &str, tally: &TallyView| {
        [
            Cell::new(name),
            Cell::new(&tally.right.to_string()),
            if tally.wrong > 0 { Cell::warning(&tally.wrong.to_string()) } else { Cell::new("0") },
            Cell::new(&tally.unclear.to_string()),
            Cell::new(&format!("{} min", tally.minutes_saved)),
        ]
    };
    let mut rows: Vec<_> = report.triggers.iter().map(|row| count(&row.trigger, &row.tally)).collect();
    if rows.len() > 1 {
        rows.push(count("all", &report.total));
    }
    out.push('\n');
    out.push_str(&table(["TRIGGER", "RIGHT", "WRONG", "UNCLEAR", "SAVED"], &rows, color));
    out.push('\n');
    let rows: Vec<_> = report.cases.iter().map(row).collect();
    let headings = ["WOULD ROLL BACK AT", "PROMPT", "FROM", "TO", "TRIGGER", "VERDICT", "INSTEAD", "INCIDENT"];
    out.push_str(&table(headings, &rows, color));
    if report.left_out > 0 {
        out.push_str(&format!("… and {} more, which are counted above\n", report.left_out));
    }
    if report.partial {
        out.push_str("… there were too many incidents to read: use a shorter time with --since\n");
    }
    out
}

fn row(case: &CaseView) -> [Cell; 8] {
    let after = case.after_seconds.map(|s| format!(", {} later", spoken(Duration::from_secs(s)))).unwrap_or_default();
    [
        Cell::time(Some(&case.at)),
        Cell::new(&shown_name(&case.prompt)),
        Cell::new(&case.from),
        Cell::new(&case.to),
        Cell::new(&case.trigger),
        if case.verdict == DryRunVerdict::Wrong.as_str() {
            Cell::warning(&case.verdict)
        } else {
            Cell::new(&case.verdict)
        },
        Cell::new(&format!("{}{after}", case.text)),
        Cell::new(&case.incident),
    ]
}
