//! For prompt servers: the version to serve, pushed by Redis, at hand without asking.
//!
//! ```no_run
//! # async fn example() -> redis::RedisResult<()> {
//! use prompt_rollback::reader::{Reader, Settings};
//! let reader = Reader::start("redis://127.0.0.1:6379", ["customer-support"], Settings::default())?;
//! reader.ready().await;
//! let support = reader.prompt("customer-support").expect("one of those named above");
//! let version = support.active_version("user-4711"); // no network, tens of nanoseconds
//! # drop(version);
//! # Ok(()) }
//! ```
//!
//! One connection with `CLIENT TRACKING` follows all prompts of a reader: a change is read again as soon as Redis says
//! that there is one, and everything every two seconds in case the connection is half dead. While Redis is away, or
//! holds what is no version, the last known version stays, [`Prompt::age`] grows and [`Prompt::error`] says why.
//!
//! This module uses nothing else of the crate.

mod follow;
mod split;

pub use split::{NotARouting, Split, Version};

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is seldom changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// As in the receiver's config, `redis.namespace`.
    pub namespace: String,
    /// Everything is read again after this long, even if no change was heard of: more than 0, at most a day.
    pub refresh: Duration,
}

impl Settings {
    const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 60 * 60);
}

impl Default for Settings {
    fn default() -> Self {
        Self { namespace: "{prompts}".to_owned(), refresh: Duration::from_secs(2) }
    }
}

/// Follows some prompts until it is dropped; the [`Prompt`]s it gave out then keep what they know.
#[derive(Debug)]
pub struct Reader {
    prompts: HashMap<String, Prompt>,
    following: JoinHandle<()>,
}

impl Reader {
    /// Follows `prompts` in the background of the current tokio runtime. Redis may be away; that is no error.
    ///
    /// `redis` is a URL, or a [`redis::ConnectionInfo`] with credentials and TLS certificates. Its protocol is always RESP3,
    /// whatever it says: nothing is pushed with RESP2.
    ///
    /// # Errors
    /// When `redis` is no address, or `settings.refresh` is 0 or longer than a day.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start<N: Into<String>>(
        redis: impl IntoConnectionInfo,
        prompts: impl IntoIterator<Item = N>,
        settings: Settings,
    ) -> RedisResult<Self> {
        if settings.refresh.is_zero() || settings.refresh > Settings::LONGEST_REFRESH {
            let why = format!("expected more than 0 and at most a day, found {:?}", settings.refresh);
            return Err(RedisError::from((ErrorKind::InvalidClientConfig, "Settings::refresh", why)));
        }
        let address = redis.into_connection_info()?;
        let pushing = address.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(address.set_redis_settings(pushing))?;
        let prompts: HashMap<_, _> = prompts.into_iter().map(|name| (name.into(), Prompt::default())).collect();
        let following = tokio::spawn(follow::Follower::new(client, &prompts, &settings).run());
        Ok(Self { prompts, following })
    }

    /// One of the prompts that it follows.
    pub fn prompt(&self, name: &str) -> Option<&Prompt> {
        self.prompts.get(name)
    }

    /// All prompts that it follows, by name.
    pub fn prompts(&self) -> impl Iterator<Item = (&str, &Prompt)> {
        self.prompts.iter().map(|(name, prompt)| (name.as_str(), prompt))
    }

    /// Waits until each prompt has a version; as long as that takes.
    pub async fn ready(&self) {
        for prompt in self.prompts.values() {
            prompt.changes().next().await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// What is known of one prompt. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub struct Prompt(Arc<watch::Sender<Known>>);

#[derive(Debug, Default)]
struct Known {
    split: Option<Split>,
    /// When the question was sent whose answer this is.
    asked: Option<Instant>,
    problem: Option<Problem>,
}

impl Prompt {
    /// The version to serve to the request or user `key`, the last known one while Redis is away; none only if there
    /// has never been one. The same key stays with the same version, and changes it at most once while a split moves.
    /// A key is text or bytes: a number or a UUID counts as its `to_string()`.
    pub fn active_version(&self, key: impl AsRef<[u8]>) -> Option<Version> {
        self.0.borrow().split.as_ref().map(|split| split.version(key).clone())
    }

    /// All versions that are served now: one, or those of a split.
    pub fn versions(&self) -> Vec<Version> {
        self.0.borrow().split.iter().flat_map(Split::versions).cloned().collect()
    }

    /// How long ago Redis was asked and confirmed the version; none if it never was. Below three seconds while all
    /// is well.
    pub fn age(&self) -> Option<Duration> {
        self.0.borrow().asked.map(|asked| asked.elapsed())
    }

    /// Why the version is not confirmed, or the split not followed; none while all is well.
    pub fn error(&self) -> Option<Problem> {
        self.0.borrow().problem.clone()
    }

    /// Tells of each change from now on, and first of what is served already.
    pub fn changes(&self) -> Changes {
        let mut receiver = self.0.subscribe();
        if receiver.borrow().split.is_some() {
            receiver.mark_changed();
        }
        Changes(receiver)
    }

    /// An answer of Redis to a question sent at `asked`.
    fn answered(&self, asked: Instant, answer: Result<(Split, Option<Problem>), Problem>) {
        self.0.send_if_modified(|known| {
            let (split, problem) = match answer {
                Ok((split, problem)) => (split, problem),
                Err(problem) => {
                    known.problem = Some(problem);
                    return false;
                }
            };
            (known.asked, known.problem) = (Some(asked), problem);
            let changed = known.split.as_ref() != Some(&split);
            known.split = Some(split);
            changed
        });
    }
}

/// Changes of a prompt, none of them missed but those that were followed by another.
#[derive(Debug)]
pub struct Changes(watch::Receiver<Known>);

impl Changes {
    /// Waits for a change: the versions that are served from then on, or nothing once the prompt is gone.
    pub async fn next(&mut self) -> Option<Vec<Version>> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().split.iter().flat_map(Split::versions).cloned().collect())
    }
}

/// Why something is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Redis can't be asked.
    Away(String),
    /// Nobody has made a version active, or the key was deleted.
    Missing,
    /// `active` holds what is no version.
    Active(String),
    /// `routing` holds what is no split: `active` is served to everybody.
    Routing(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) => write!(f, "redis can't be asked: {why}"),
            Self::Missing => f.write_str("no version is active"),
            Self::Active(why) => write!(f, "the active version can't be used: {why}"),
            Self::Routing(why) => write!(f, "the routing can't be used, all get the active version: {why}"),
        }
    }
}

impl std::error::Error for Problem {}
