//! Watches changes of keys by anyone: RESP3 tracking on a connection of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::connect::Connected;
use super::query::prompt_named;
use super::{Store, StoreError};
use crate::decision::PromptName;

/// A tracking connection.
#[derive(Debug)]
pub struct KeyWatch {
    connected: Connected,
    /// What precedes the prompt in the keys of prompts.
    prefix: String,
    /// The master's address: a replaced master may fall silent without closing the connection.
    master: tokio::sync::watch::Receiver<Arc<str>>,
    pushes: UnboundedReceiver<PushInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// These prompts may have changed.
    Prompts(Vec<PromptName>),
    /// Anything may have changed: FLUSHALL, or a key that concerns all prompts.
    Everything,
    /// The connection was lost.
    Lost,
}

impl KeyWatch {
    /// Returns the content of the next push.
    pub async fn hear(&mut self) -> WatchEvent {
        loop {
            let push = tokio::select! {
                push = self.pushes.recv() => push,
                _ = self.master.wait_for(|master| *master != self.connected.to) => None,
            };
            let Some(push) = push else { return WatchEvent::Lost };
            match push.kind {
                PushKind::Disconnection => return WatchEvent::Lost,
                PushKind::Invalidate => match push.data.into_iter().next() {
                    Some(Value::Array(keys)) => return self.changed(&keys),
                    _ => return WatchEvent::Everything,
                },
                _ => {}
            }
        }
    }

    /// What a change of these `keys` means.
    fn changed(&self, keys: &[Value]) -> WatchEvent {
        let mut prompts = Vec::with_capacity(keys.len());
        for key in keys {
            let Value::BulkString(key) = key else { continue };
            let Some(name) = key.strip_prefix(self.prefix.as_bytes()) else { return WatchEvent::Everything };
            prompts.extend(prompt_named(name));
        }
        WatchEvent::Prompts(prompts)
    }

    /// A half-open connection is silent for ever: a request shows it.
    pub async fn is_alive(&mut self) -> bool {
        redis::cmd("PING").exec_async(&mut self.connected.connection).await.is_ok()
    }
}

impl Store {
    /// Watches `active` keys. Changes without a connection are found by a scan.
    pub async fn watch(&self) -> Result<KeyWatch, StoreError> {
        let watch = self.track(self.keys.active_prefix(), &[]).await?;
        self.forget_own_writes();
        Ok(watch)
    }

    /// Forgets this process' own writes, because their announcements may have been lost: an external SET of the same
    /// version would be taken for one of them. The writes since are checked.
    pub fn forget_own_writes(&self) {
        self.written.clear();
    }

    /// Watches the commits of all receivers: each writes the state of its prompt. Pauses and coordinating incidents are
    /// written without a prompt.
    pub async fn watch_commits(&self) -> Result<KeyWatch, StoreError> {
        self.track(self.keys.state_prefix(), &[self.keys.paused(), self.keys.outage()]).await
    }

    /// Watches the keys of prompts with `prefix`, and all keys with one of the prefixes `others`.
    async fn track(&self, prefix: String, others: &[String]) -> Result<KeyWatch, StoreError> {
        let (sender, pushes) = unbounded_channel();
        let mut connected = self.link.connector().connect_pushed(sender).await?;
        let mut command = redis::cmd("CLIENT");
        // BCAST: announces every key with a prefix, and Redis needs no table of what was read
        command.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(&prefix);
        for other in others {
            command.arg("PREFIX").arg(other);
        }
        command.exec_async(&mut connected.connection).await?;
        Ok(KeyWatch { connected, prefix, master: self.link.connector().subscribe(), pushes })
    }

    /// Of the announced `prompts`, those whose `active` is not what this process just wrote.
    pub async fn not_as_written(&self, prompts: BTreeSet<PromptName>) -> Vec<PromptName> {
        /// Keys read by one pipeline, and the pause before the next: rollbacks go first.
        const AT_ONCE: usize = 25;
        const BREATH: Duration = Duration::from_millis(1);
        let (mut others, mut ours) = (Vec::new(), Vec::new());
        for prompt in prompts {
            match self.written.take(&prompt) {
                Some(version) => ours.push((prompt, version)),
                None => others.push(prompt),
            }
        }
        for (at, batch) in ours.chunks(AT_ONCE).enumerate() {
            if at > 0 {
                tokio::time::sleep(BREATH).await;
            }
            let mut pipeline = Pipeline::with_capacity(batch.len());
            for (prompt, _) in batch {
                pipeline.cmd("GET").arg(self.keys.active(prompt));
            }
            // an unreadable key needs the full check
            let found: Vec<Option<Vec<u8>>> = self.link.read(&pipeline).await.unwrap_or_default();
            let mut found = found.into_iter();
            for (prompt, version) in batch {
                if found.next().flatten().as_deref() != Some(version.as_str().as_bytes()) {
                    others.push(prompt.clone());
                }
            }
        }
        others
    }
}
