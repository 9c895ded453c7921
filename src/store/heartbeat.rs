//! The last heartbeat of the alert path, shared by all replicas.

use super::{Store, StoreError};
use crate::decision::{Heartbeat, Timestamp};

/// In the hash: a receiver of the previous release writes the first two only.
const FIELDS: [&str; 3] = ["heard_at", "evaluated_at", "gaps"];

impl Store {
    /// Records when rules were evaluated, by Prometheus' clock. A repeat of the last evaluation changes nothing.
    pub async fn beat(&self, evaluated_at: Timestamp) -> Result<(), StoreError> {
        let (last, now) = (self.heartbeat().await?, self.now().await?);
        let Some(Heartbeat { heard_at, evaluated_at, gaps }) = Heartbeat::after(last, now, evaluated_at) else {
            return Ok(());
        };
        let gaps = serde_json::to_string(&gaps).map_err(|_| StoreError::unexpected("heartbeat"))?;
        let values = [heard_at.0.to_string(), evaluated_at.0.to_string(), gaps];
        let mut command = redis::cmd("HSET");
        command.arg(self.keys.heartbeat());
        for (field, value) in FIELDS.iter().zip(values) {
            command.arg(field).arg(value);
        }
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    /// `None` if no heartbeat has arrived, or if what is recorded is damaged: the next one replaces it.
    pub async fn heartbeat(&self) -> Result<Option<Heartbeat>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.heartbeat()).arg(&FIELDS);
        let (heard_at, evaluated_at, gaps): (Option<i64>, Option<i64>, Option<String>) =
            self.link.read(&command).await?;
        let gaps = gaps.map_or(Ok(Vec::new()), |gaps| serde_json::from_str(&gaps)).ok();
        Ok(heard_at.zip(evaluated_at).zip(gaps).map(|((heard_at, evaluated_at), gaps)| Heartbeat {
            heard_at: Timestamp(heard_at),
            evaluated_at: Timestamp(evaluated_at),
            gaps,
        }))
    }
}
