//! The weekly report of a dry run: one message a week, posted by any replica.

use std::time::Duration;

use super::posting::{ThreadProgress, posting};
use super::{Halt, SlackNotifier};
use crate::config::Weekly;
use crate::decision::Timestamp;
use crate::service::reports;
use crate::slack::client::Place;
use crate::slack::render;
use crate::store::StoreError;
use crate::store::schedule::{Claim, End, LEASE, Work, WorkItem};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How often to check whether it is due.
pub(super) const EVERY: Duration = Duration::from_secs(5);
/// While Slack does not accept it.
const RETRY: Duration = Duration::from_secs(60);

impl SlackNotifier {
    /// Posts the report if it is due.
    pub(super) async fn notify_weekly(&self, token: &str) -> Result<(), StoreError> {
        let Some(weekly) = self.weekly else { return Ok(()) };
        let store = &self.engine.store;
        let next = last(weekly, store.now().await?).plus(WEEK);
        store.wake_by(Work::Report, &WorkItem::WeeklyReport, next).await?;
        for claim in store.claim(Work::Report, 1, LEASE, token).await?.claims {
            let now = store.now().await?;
            let slot = last(weekly, now);
            let end = match self.post_report(&claim, slot).await {
                Ok(()) | Err(Halt::Lost) => End::Done { rev: None, next: Some(slot.plus(WEEK)) },
                Err(Halt::Later(_) | Halt::GiveWay | Halt::Untaken) => {
                    End::Done { rev: None, next: Some(now.plus(RETRY)) }
                }
                Err(Halt::Store(error @ StoreError::Unavailable { .. })) => return Err(error),
                Err(Halt::Store(error)) => {
                    tracing::error!(%error, "cannot create the weekly report");
                    End::after(&error)
                }
            };
            store.finish(&claim, None, end).await?;
        }
        Ok(())
    }

    /// Posts the report of the week before `slot`, unless it was posted. An empty week without dry run is skipped.
    async fn post_report(&self, claim: &Claim, slot: Timestamp) -> Result<(), Halt> {
        let progress = &mut ThreadProgress::new(claim, self.engine.store.progress(claim).await?);
        // one of a week that has not begun was posted while Redis' clock was ahead
        let this_week = slot.0..=slot.plus(WEEK).0;
        let done =
            progress.get("reported").and_then(|at| at.parse().ok()).is_some_and(|at: i64| this_week.contains(&at));
        if done {
            return Ok(());
        }
        let report = reports::report(&self.engine, slot.minus(WEEK), slot).await?;
        let what = format!("report-{}", slot.0);
        if self.engine.policy.dry_run || !report.cases.is_empty() {
            let place = Place::channel(&self.incident_channel);
            // permanently rejected: logged; the next report follows next week
            let _ = self.post(progress, &what, place, &render::report(&report)).await?;
        }
        self.note(progress, &[("reported", &slot.0.to_string()), (&posting(&what), "")]).await
    }
}

/// The last such moment up to `now`. Weeks of the epoch begin on a Thursday.
fn last(weekly: Weekly, now: Timestamp) -> Timestamp {
    const DAY: i64 = 24 * 3_600_000;
    let day = (i64::from(weekly.day) + 4) % 7;
    let offset = day * DAY + i64::from(weekly.hour) * 3_600_000 + i64::from(weekly.minute) * 60_000;
    Timestamp(now.0 - (now.0 - offset).rem_euclid(7 * DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_such_moment_is_found_in_every_week() {
        let at = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().expect("a time").as_millisecond());
        let monday_nine = Weekly { day: 0, hour: 9, minute: 0 };
        // 2026-11-16 is a Monday
        for (now, expected) in [
            ("2026-11-16T09:00:00Z", "2026-11-16T09:00:00Z"),
            ("2026-11-16T08:59:59.999Z", "2026-11-09T09:00:00Z"),
            ("2026-11-21T08:38:12Z", "2026-11-16T09:00:00Z"),
            ("2026-11-22T23:59:59Z", "2026-11-16T09:00:00Z"),
        ] {
            assert_eq!(last(monday_nine, at(now)), at(expected), "{now}");
        }
        let sunday = Weekly { day: 6, hour: 23, minute: 30 };
        assert_eq!(last(sunday, at("2026-11-21T00:00:00Z")), at("2026-11-15T23:30:00Z"));
    }
}
