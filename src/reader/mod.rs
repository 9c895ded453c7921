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
//! holds what is no version, the last known version stays, [`Prompt::staleness`] grows and [`Prompt::error`] says why.
//!
//! The reader follows the master: to another node of a Redis Cluster, after a failover by Redis Sentinel
//! ([`Settings::sentinel_master`]), and where a DNS name leads to another address. Twice a second it makes sure that it is
//! connected to a node that has the prompts' keys.
//!
//! This module uses nothing else of the crate.

mod follow;
mod node;
mod places;
mod sentinel;
mod split;

pub use split::{NotARouting, Split, Version};

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Client, ErrorKind, IntoConnectionInfo, RedisError, RedisResult};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is seldom changed.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// As in the receiver's config, `redis.namespace`. In a cluster it holds a hash tag, as the default does: all its keys are
    /// in one slot.
    pub namespace: String,
    /// Everything is read again after this long, even if no change was heard of: more than 0, at most a day.
    pub refresh: Duration,
    /// As `redis.nodes`, each `host:port`: more nodes of a cluster, or all sentinels. Any one that answers is enough.
    pub nodes: Vec<String>,
    /// As `redis.sentinel_master`: the name under which sentinels know the master. `nodes` are the sentinels then, or the
    /// address in the URL is one where `nodes` is empty.
    pub sentinel_master: Option<String>,
    /// The sentinels' own user, if they have one.
    pub sentinel_username: Option<String>,
    /// That user's password, or the default user's.
    pub sentinel_password: Option<String>,
}

impl Settings {
    const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 60 * 60);
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: "{prompts}".to_owned(),
            refresh: Duration::from_secs(2),
            nodes: Vec::new(),
            sentinel_master: None,
            sentinel_username: None,
            sentinel_password: None,
        }
    }
}

/// All but the password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("namespace", &self.namespace)
            .field("refresh", &self.refresh)
            .field("nodes", &self.nodes)
            .field("sentinel_master", &self.sentinel_master)
            .field("sentinel_username", &self.sentinel_username)
            .finish_non_exhaustive()
    }
}

/// How a reader learns of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Redis tells of each.
    Pushed,
    /// By reading everything again after [`Settings::refresh`]: the server or a proxy knows no RESP3, or the user may not
    /// use `CLIENT TRACKING`.
    Polling,
    /// Not at all: no server is in reach.
    Away,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pushed => "pushed",
            Self::Polling => "polling",
            Self::Away => "away",
        })
    }
}

/// Follows some prompts until it is dropped; the [`Prompt`]s it gave out then keep what they know.
#[derive(Debug)]
pub struct Reader {
    prompts: HashMap<String, Prompt>,
    mode: watch::Receiver<Mode>,
    following: JoinHandle<()>,
}

impl Reader {
    /// Follows `prompts` in the background of the current tokio runtime. Redis may be away; that is no error.
    ///
    /// `redis` is a URL, or a [`redis::ConnectionInfo`] with credentials and TLS certificates, which count for each node
    /// of a cluster. Whatever protocol it names, the reader speaks RESP3 where the server does.
    ///
    /// # Errors
    /// When `redis` is no address, or a setting cannot work; names it.
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
            return Err(wrong("Settings::refresh", why));
        }
        let info = redis.into_connection_info()?;
        let login = info.redis_settings().clone().set_skip_set_lib_name();
        // what is no address or no certificate fails here
        let info = Client::open(info.set_redis_settings(login))?.get_connection_info().clone();
        let places = places::Places::new(info, &settings)?;
        let prompts: HashMap<_, _> = prompts.into_iter().map(|name| (name.into(), Prompt::default())).collect();
        let (mode, watched) = watch::channel(Mode::Away);
        let following = tokio::spawn(follow::Follower::new(places, &prompts, &settings, mode).run());
        Ok(Self { prompts, mode: watched, following })
    }

    /// How it learns of changes just now.
    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
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

fn wrong(setting: &'static str, why: String) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, setting, why))
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

    /// For how long the version has not been confirmed by Redis; none if it never was. Below two seconds while all is well
    /// and changes are [pushed](Mode::Pushed), else a second more than [`Settings::refresh`].
    pub fn staleness(&self) -> Option<Duration> {
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

    /// What was answered last still counted at `asked`.
    fn confirmed(&self, asked: Instant) {
        self.0.send_if_modified(|known| {
            if matches!(known.problem, None | Some(Problem::Routing(_))) && known.split.is_some() {
                known.asked = Some(asked);
            }
            false
        });
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
