//! A copy of the namespace by DUMP and RESTORE, for a managed Redis whose RDB file is not accessible.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use redis::{FromRedisValue, Pipeline};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Store, StoreError, import};

/// Keys of one request.
const BATCH: usize = 100;
/// How often everything is read before the namespace counts as busy.
const PASSES: usize = 10;
/// Kinds of keys that matter for minutes alone, and change by themselves.
const PASSING: [&str; 8] = ["pace", "once", "handled", "heartbeat", "group", "fence", "selftest", RESTORING];
/// The key that holds the digest of a backup while it is restored.
const RESTORING: &str = "restoring";

/// A key, as a line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    /// Without the namespace.
    key: String,
    /// Unix time in ms; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    /// What DUMP returned, in base64.
    dump: String,
}

/// What DUMP and PEXPIRETIME return for each key.
type Collected = BTreeMap<String, (Vec<u8>, i64)>;
/// What PEXPIRETIME returns for a key that does not exist.
const GONE: i64 = -2;

/// Why nothing was restored, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("Redis already holds {0}: restore into an empty one, or into another database")]
    Occupied(String),
    #[error("{0} is not a key of a backup")]
    Unreadable(String),
    #[error("{done} of {all} keys are restored, run the same command again: {error}")]
    Interrupted { done: usize, all: usize, error: StoreError },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// All lasting keys as they were together at one moment. `None`: something changed during each pass.
    pub async fn backup(&self) -> Result<Option<Vec<StoredKey>>, StoreError> {
        let mut before = self.collect().await?;
        for _ in 0..PASSES {
            // what two passes agree on was so between them. When a key expires is not compared: claims prolong some keys
            // without a change of what they hold
            let now = self.collect().await?;
            let mut pairs = now.iter().zip(&before);
            if now.len() == before.len()
                && pairs.all(|((key, (dump, _)), (other, (was, _)))| key == other && dump == was)
            {
                let stored = |(key, (dump, expires)): (String, (Vec<u8>, i64))| StoredKey {
                    key,
                    expires_at_ms: (expires >= 0).then_some(expires),
                    dump: BASE64_STANDARD.encode(dump),
                };
                return Ok(Some(now.into_iter().map(stored).collect()));
            }
            before = now;
        }
        Ok(None)
    }

    /// Writes all keys of a backup. The namespace must be empty, or hold what an interrupted run has written of the same
    /// backup.
    pub async fn restore(&self, backup: &[StoredKey]) -> Result<(), RestoreError> {
        let mut dumps = Vec::new();
        let mut digest = Sha256::new();
        for StoredKey { key, dump, .. } in backup {
            let bytes = BASE64_STANDARD.decode(dump).map_err(|_| RestoreError::Unreadable(key.clone()))?;
            digest.update(format!("{key} {dump}\n"));
            dumps.push(bytes);
        }
        let (marker, digest) = (self.named(RESTORING), BASE64_STANDARD.encode(digest.finalize()));
        let mut command = redis::cmd("GET");
        let begun: Option<String> = self.link.read(&*command.arg(&marker)).await?;
        match begun {
            Some(begun) if begun == digest => {}
            Some(_) => return Err(RestoreError::Occupied(marker)),
            None => {
                if let Some(key) = self.lasting().await?.first() {
                    return Err(RestoreError::Occupied(self.named(key)));
                }
                let mut command = redis::cmd("SET");
                self.link.run::<redis::Value>(&*command.arg(&marker).arg(&digest)).await?;
            }
        }
        let all: Vec<_> = backup.iter().zip(&dumps).collect();
        for (batch, keys) in all.chunks(BATCH).enumerate() {
            let mut pipeline = Pipeline::new();
            for (StoredKey { key, expires_at_ms, .. }, dump) in keys {
                let expires = expires_at_ms.unwrap_or(0);
                pipeline.cmd("RESTORE").arg(self.named(key)).arg(expires).arg(dump.as_slice()).arg("REPLACE");
                if expires > 0 {
                    pipeline.arg("ABSTTL");
                }
                pipeline.ignore();
            }
            let (done, all) = (batch * BATCH, backup.len());
            if self.link.run::<redis::Value>(&pipeline).await.is_ok() {
                continue;
            }
            // one at a time: the error of a pipeline does not say what was refused
            for (StoredKey { key, expires_at_ms, .. }, dump) in keys {
                let expires = expires_at_ms.unwrap_or(0);
                let mut command = redis::cmd("RESTORE");
                command.arg(self.named(key)).arg(expires).arg(dump.as_slice()).arg("REPLACE");
                command.arg((expires > 0).then_some("ABSTTL"));
                let written = self.link.run::<redis::Value>(&command).await;
                written.map_err(|error| RestoreError::Interrupted { done, all, error })?;
            }
        }
        let mut command = redis::cmd("DEL");
        self.link.run::<redis::Value>(&*command.arg(&marker)).await?;
        Ok(())
    }

    fn named(&self, key: &str) -> String {
        format!("{}:{key}", self.keys.namespace())
    }

    /// All lasting keys, without the namespace.
    async fn lasting(&self) -> Result<Vec<String>, StoreError> {
        let prefix = self.named("");
        let pattern = format!("{}*", import::literal(&prefix));
        let stays = |key: &&str| !PASSING.contains(&key.split(':').next().unwrap_or_default());
        let (mut names, mut cursor) = (Vec::new(), 0);
        loop {
            let mut command = redis::cmd("SCAN");
            command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(1_000);
            let (next, page): (u64, Vec<Vec<u8>>) = self.link.read(&command).await?;
            // no receiver writes a name that is not UTF-8
            let ours = page.iter().filter_map(|key| std::str::from_utf8(key).ok()?.strip_prefix(&prefix));
            names.extend(ours.filter(stays).map(str::to_owned));
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // SCAN may return a key twice
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Reads all lasting keys once.
    async fn collect(&self) -> Result<Collected, StoreError> {
        let names = self.lasting().await?;
        // one at a time: the error of a pipeline does not say what was refused
        for name in ["DUMP", "PEXPIRETIME"] {
            let mut command = redis::cmd(name);
            self.link.read::<redis::Value>(&*command.arg(self.named(RESTORING))).await?;
        }
        let mut collected = Collected::new();
        for keys in names.chunks(BATCH) {
            match self.dump(keys, &mut collected).await {
                // large contents take longer than an answer may: one key at a time
                Err(StoreError::Unavailable { .. }) if keys.len() > 1 => {
                    for key in keys.chunks(1) {
                        self.dump(key, &mut collected).await?;
                    }
                }
                dumped => dumped?,
            }
        }
        Ok(collected)
    }

    async fn dump(&self, keys: &[String], collected: &mut Collected) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        for key in keys {
            pipeline.cmd("DUMP").arg(self.named(key));
            pipeline.cmd("PEXPIRETIME").arg(self.named(key));
        }
        let values: Vec<redis::Value> = self.link.read(&pipeline).await?;
        for (key, pair) in keys.iter().zip(values.chunks_exact(2)) {
            let [dump, expires] = pair else { continue };
            let read = (Option::<Vec<u8>>::from_redis_value_ref(dump), i64::from_redis_value_ref(expires));
            let (Ok(dump), Ok(expires)) = read else { return Err(StoreError::unexpected("DUMP")) };
            // a key may be gone by now, or have expired between the two commands
            collected.extend(dump.filter(|_| expires != GONE).map(|dump| (key.clone(), (dump, expires))));
        }
        Ok(())
    }
}
