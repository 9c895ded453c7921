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
        match self.link.run::<redis::Value>(&command).await {
            Err(StoreError::Broken { .. }) => {
                let mut delete = redis::cmd("DEL");
                delete.arg(self.keys.heartbeat());
                self.link.run::<redis::Value>(&delete).await?;
                self.link.run::<redis::Value>(&command).await.map(drop)
            }
            written => written.map(drop),
        }
    }

    /// `None` if no heartbeat has arrived, or if what is recorded is damaged: the next one replaces it.
    pub async fn heartbeat(&self) -> Result<Option<Heartbeat>, StoreError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.heartbeat()).arg(&FIELDS);
        let [heard_at, evaluated_at, gaps]: [Option<Vec<u8>>; 3] = match self.link.read(&command).await {
            Err(StoreError::Broken { .. }) => return Ok(None),
            fields => fields?,
        };
        let moment = |field: Option<Vec<u8>>| Some(Timestamp(String::from_utf8(field?).ok()?.parse().ok()?));
        let gaps = gaps.map_or(Ok(Vec::new()), |gaps| serde_json::from_slice(&gaps)).ok();
        let moments = moment(heard_at).zip(moment(evaluated_at)).zip(gaps);
        Ok(moments.map(|((heard_at, evaluated_at), gaps)| Heartbeat { heard_at, evaluated_at, gaps }))
    }
}
