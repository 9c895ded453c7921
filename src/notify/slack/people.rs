//! User groups, and messages to people about refused clicks.

use std::time::Duration;

use super::{SlackNotifier, backoff};
use crate::service::clicks::{EphemeralReply, is_group};
use crate::slack::client::SlackError;
use crate::slack::render;
use crate::store::StoreError;

/// How often user groups are resolved; they are cached a little longer.
pub(super) const GROUPS_EVERY: Duration = Duration::from_secs(60);
const GROUPS_KNOWN: Duration = Duration::from_secs(300);
/// Attempts to notify one person.
const REPLY_TRIES: u32 = 4;

impl SlackNotifier {
    /// Resolves the user groups that may decide, so that a click need not wait for Slack. Returns when to do so again,
    /// after `failures` in a row.
    pub(super) async fn refresh_groups(&self, failures: &mut u32) -> Duration {
        let groups = self.deciders.values().flat_map(|d| &d.approvers).filter(|approver| is_group(approver));
        let mut wait = GROUPS_EVERY;
        for group in groups {
            let refreshed = self.refresh_group(group).await;
            // the health check reports Redis; unresolved users may not decide
            wait = wait.min(refreshed.unwrap_or(Some(Duration::ZERO)).unwrap_or(GROUPS_EVERY));
        }
        *failures = if wait == GROUPS_EVERY { 0 } else { *failures + 1 };
        if *failures == 0 { wait } else { wait.max(backoff(*failures)) }
    }

    /// `Some`: Slack did not list the members, and may after this time.
    async fn refresh_group(&self, group: &str) -> Result<Option<Duration>, StoreError> {
        let store = &self.engine.store;
        let once = format!("group:{group}");
        if !store.claim_once(&once, GROUPS_EVERY / 2).await? {
            return Ok(None); // another replica has just done it
        }
        let error = match self.count("usergroups.users.list", self.slack.group_members(group).await) {
            Ok(members) => return store.set_group(group, &members, GROUPS_KNOWN).await.map(|()| None),
            Err(error) => error,
        };
        tracing::warn!(group, %error, "cannot resolve a user group: members not resolved before may not decide");
        if error.is_final() {
            return Ok(None);
        }
        store.release_once(&once).await?;
        Ok(Some(match error {
            SlackError::RateLimited { retry_after } => retry_after,
            _ => Duration::ZERO,
        }))
    }

    /// Notifies one person, as long as they may still be waiting.
    pub(super) async fn reply_to_click(&self, reply: &EphemeralReply) {
        let text = render::ephemeral(&reply.text);
        for tries in 1..=REPLY_TRIES {
            let notified = self.slack.post_ephemeral(&reply.channel, reply.thread.as_deref(), &reply.user, &text).await;
            let Err(error) = self.count("chat.postEphemeral", notified) else { return };
            if tries == REPLY_TRIES || error.is_final() {
                return tracing::warn!(%error, "could not tell a user why their click had no effect");
            }
            tokio::time::sleep(match error {
                SlackError::RateLimited { retry_after } => retry_after,
                _ => backoff(tries),
            })
            .await;
        }
    }
}
