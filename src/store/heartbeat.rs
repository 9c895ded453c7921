//! The last heartbeat of the alert path, shared by all replicas.

use std::time::Duration;

use super::{Store, StoreError};
use crate::decision::{Heartbeat, Timestamp};

/// A time this far in the past is not a repeat: Prometheus' clock was wrong before.
const CLOCK_WAS_WRONG: Duration = Duration::from_secs(3_600);

impl Store {
    /// Records when rules were evaluated, by Prometheus' clock. A repeat of the last evaluation changes nothing.
    pub async fn beat(&self, evaluated_at: Timestamp) -> Result<(), StoreError> {
        let last = self.heartbeat().await?;
        if last.is_some_and(|last| !is_news(last.evaluated_at, evaluated_at)) {
            return Ok(());
        }
        let now = self.now().await?;
        let mut command = redis::cmd("HSET");
        command.arg(self.keys.heartbeat()).arg("heard_at").arg(now.0).arg("evaluated_at").arg(evaluated_at.0);
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    pub async fn heartbeat(&self) -> Result<Option<Heartbeat>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.heartbeat()).arg("heard_at").arg("evaluated_at");
        let (heard_at, evaluated_at): (Option<i64>, Option<i64>) = self.link.read(&command).await?;
        Ok(heard_at.zip(evaluated_at).map(|(heard_at, evaluated_at)| Heartbeat {
            heard_at: Timestamp(heard_at),
            evaluated_at: Timestamp(evaluated_at),
        }))
    }
}

fn is_news(last: Timestamp, evaluated_at: Timestamp) -> bool {
    evaluated_at > last || last.since(evaluated_at) > CLOCK_WAS_WRONG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_evaluation_is_news() {
        let hour = 3_600_000;
        for (last, now, news) in
            [(5, 6, true), (5, 5, false), (5, 4, false), (2 * hour, hour, false), (2 * hour, hour - 1, true)]
        {
            assert_eq!(is_news(Timestamp(last), Timestamp(now)), news, "{last} {now}");
        }
    }
}
