//! Hears of changes to `active` keys, whoever makes them: RESP3 tracking on a connection of its own.

use std::sync::Arc;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::connect::Connected;
use super::{Store, StoreError};
use crate::decision::PromptName;

/// A tracking connection. What happened while there was none is for a scan to find.
#[derive(Debug)]
pub struct Watch {
    connected: Connected,
    /// Where the master is: one that was replaced may stay silent without closing.
    master: tokio::sync::watch::Receiver<Arc<str>>,
    pushes: UnboundedReceiver<PushInfo>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// These may have been changed.
    Prompts(Vec<PromptName>),
    /// Anything may have changed (FLUSHALL).
    Everything,
    /// The connection is gone.
    Lost,
}

impl Watch {
    /// A half-open connection is silent for ever; asking finds out.
    pub async fn is_alive(&mut self) -> bool {
        redis::cmd("PING").exec_async(&mut self.connected.connection).await.is_ok()
    }
}

impl Store {
    pub async fn watch(&self) -> Result<Watch, StoreError> {
        let (sender, pushes) = unbounded_channel();
        let mut connected = self.link.connector().connect_pushed(sender).await?;
        let mut command = redis::cmd("CLIENT");
        // BCAST: hears of every key with the prefix, without Redis keeping a table of what was read
        command.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(self.keys.active_prefix());
        command.exec_async(&mut connected.connection).await?;
        Ok(Watch { connected, master: self.link.connector().subscribe(), pushes })
    }

    /// What the next push says.
    pub async fn hear(&self, watch: &mut Watch) -> Heard {
        loop {
            let push = tokio::select! {
                push = watch.pushes.recv() => push,
                _ = watch.master.wait_for(|master| *master != watch.connected.to) => None,
            };
            let Some(push) = push else { return Heard::Lost };
            match push.kind {
                PushKind::Disconnection => return Heard::Lost,
                PushKind::Invalidate => match push.data.into_iter().next() {
                    Some(Value::Array(keys)) => {
                        let name = |key: &Value| match key {
                            Value::BulkString(key) => self.prompt_of_active(key),
                            _ => None,
                        };
                        return Heard::Prompts(keys.iter().filter_map(name).collect());
                    }
                    _ => return Heard::Everything,
                },
                _ => {}
            }
        }
    }
}
