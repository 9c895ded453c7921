//! Reads the incidents for a report.

use std::time::Duration;

use crate::decision::Timestamp;
use crate::engine::Engine;
use crate::report::DryRunReport;
use crate::store::StoreError;

/// Incidents in memory at once.
const PAGE: usize = 100;
/// Incidents read at most.
const MAX: usize = 10_000;
/// How long an incident may have been open before the dry run prevents a rollback in it.
const EARLIER: Duration = Duration::from_secs(30 * 24 * 3_600);

/// What a dry run would have done since then: of the incidents opened since, or not long before, and of those that are
/// still open.
pub async fn report(engine: &Engine, since: Timestamp, until: Timestamp) -> Result<DryRunReport, StoreError> {
    let mut report = DryRunReport::new(since, until);
    let from = since.minus(EARLIER);
    for open_only in [false, true] {
        let (mut cursor, mut seen) = (None, 0);
        loop {
            let page = engine.store.incidents(cursor.as_deref(), PAGE, open_only).await?;
            seen += page.items.len();
            for incident in &page.items {
                // the open incidents that the first round did not reach
                if (incident.opened_at < from) == open_only {
                    report.add(incident);
                }
            }
            // the latest come first
            let enough = !open_only && page.items.last().is_some_and(|last| last.opened_at < from);
            match page.next {
                Some(next) if !enough && seen < MAX => cursor = Some(next),
                Some(_) if !enough => {
                    report.partial = true;
                    break;
                }
                _ => break,
            }
        }
    }
    Ok(report)
}
