//! The server itself, and the keys that it holds.

use std::time::Duration;

use redis::Value;

use crate::decision::PromptName;
use crate::store::{RedisFault, Store, StoreError, import};

impl Store {
    /// One round trip.
    pub async fn ping(&self) -> Result<Duration, StoreError> {
        let start = tokio::time::Instant::now();
        self.link.read::<Value>(&redis::cmd("PING")).await?;
        Ok(start.elapsed())
    }

    /// Tests whether Redis can be written to. A replica, a full and a loading Redis answer PING as well.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let mut command = redis::cmd("SET");
        command.arg(self.keys.wait_for_replicas()).arg(1);
        self.link.read::<Value>(&command).await.map(drop)
    }

    /// The text of these INFO sections, if permitted.
    pub(in crate::store) async fn info(&self, sections: &[&str]) -> Result<Option<String>, StoreError> {
        let mut command = redis::cmd("INFO");
        command.arg(sections);
        if_permitted(self.link.run(&command).await)
    }

    /// The server version, from INFO if permitted.
    pub async fn server_version(&self) -> Result<Option<String>, StoreError> {
        let Some(info) = self.info(&["server"]).await? else { return Ok(None) };
        let field = |name: &str| info_field(&info, name);
        // Valkey reports the Redis version that it is compatible with here
        let valkey = field("valkey_version:").map(|valkey| format!(", Valkey {valkey}")).unwrap_or_default();
        Ok(field("redis_version:").map(|version| format!("{version}{valkey}")))
    }

    /// Some prompts that have an `active` key, from `cursor` on; a cursor of 0 ends the scan. `None`: this user may not
    /// list keys. ACLs cannot limit SCAN to some keys, so it is not required where [`Store::known`] is enough.
    pub async fn scan_active(&self, cursor: u64) -> Result<Option<(u64, Vec<PromptName>)>, StoreError> {
        let pattern = format!("{}*", import::literal(&self.keys.active_prefix()));
        let Some((next, keys)) = self.scan_keys(cursor, &pattern, 500).await? else { return Ok(None) };
        Ok(Some((next, keys.iter().filter_map(|key| self.prompt_of_active(key)).collect())))
    }

    /// One SCAN; `None` if it is not permitted, or not there.
    pub(in crate::store) async fn scan_keys(
        &self,
        cursor: u64,
        pattern: &str,
        count: usize,
    ) -> Result<Option<(u64, Vec<Vec<u8>>)>, StoreError> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count);
        if_permitted(self.link.read(&command).await)
    }

    /// The prompt of an `active` key; `None` if the key is of another kind, or the name is invalid.
    pub fn prompt_of_active(&self, key: &[u8]) -> Option<PromptName> {
        prompt_named(key.strip_prefix(self.keys.active_prefix().as_bytes())?)
    }
}

/// The prompt of this name; `None` if the name is invalid.
pub(in crate::store) fn prompt_named(name: &[u8]) -> Option<PromptName> {
    PromptName::parse(std::str::from_utf8(name).ok()?).ok()
}

/// The value of the INFO line that begins with `name`, which ends with a colon.
pub(in crate::store) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// `None` if the user, or the provider of this Redis, does not permit the command.
pub(in crate::store) fn if_permitted<T>(answer: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Unavailable { kind: RedisFault::NoPerm | RedisFault::Other, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
