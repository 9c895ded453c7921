//! Slack's rate limits: about one post per second per channel, and a quota per minute for each method.

use std::collections::HashMap;
use std::time::Duration;

/// An app's rate limits: a leaky bucket per method, and for posts per channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimits {
    /// The interval between two posts to one channel.
    pub post_every: Duration,
    /// How many posts may come at once before the interval applies.
    pub post_burst: u32,
    /// Whether the other methods have the quota of their tier (2: 20 a minute, 3: 50, 4: 100).
    pub tiers: bool,
}

/// The limits, and the calls so far.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    pub rate_limits: RateLimits,
    /// When each bucket will be empty, since the epoch.
    empty_at: HashMap<String, Duration>,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { post_every: Duration::from_secs(1), post_burst: 3, tiers: true }
    }
}

impl Buckets {
    pub fn of(rate_limits: RateLimits) -> Self {
        Self { rate_limits, ..Self::default() }
    }

    /// Takes one call from its bucket; `Err` holds the time to wait.
    pub fn take(&mut self, method: &str, channel: &str, now: Duration) -> Result<(), Duration> {
        let (bucket, every, burst) = match (method, tier(method)) {
            ("chat.postMessage", _) => {
                (format!("{method} {channel}"), self.rate_limits.post_every, self.rate_limits.post_burst)
            }
            (_, Some(a_minute)) if self.rate_limits.tiers => {
                (method.to_owned(), Duration::from_secs(60) / a_minute, a_minute)
            }
            _ => return Ok(()),
        };
        let empty_at = self.empty_at.entry(bucket).or_default();
        let full = (*empty_at).max(now) + every;
        let most = now + every * burst.max(1);
        if full > most {
            return Err(full - most);
        }
        *empty_at = full;
        Ok(())
    }
}

/// The quota per minute of the method's tier; `None` for methods with limits of their own.
fn tier(method: &str) -> Option<u32> {
    Some(match method {
        "usergroups.users.list" | "usergroups.list" | "conversations.list" => 20,
        "chat.update"
        | "conversations.info"
        | "conversations.history"
        | "conversations.replies"
        | "conversations.join"
        | "apps.connections.open" => 50,
        "chat.postEphemeral"
        | "users.info"
        | "views.open"
        | "files.getUploadURLExternal"
        | "files.completeUploadExternal" => 100,
        _ => return None,
    })
}
