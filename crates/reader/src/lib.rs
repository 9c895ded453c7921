#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![cfg_attr(not(test), warn(clippy::expect_used, clippy::unwrap_used))]

mod follow;
mod names;
mod node;
mod places;
mod process;
mod resolve;
mod sentinel;
mod split;

pub use names::{InvalidPromptName, key_of};
pub use redis;
pub use split::{InvalidRouting, Split, Version};

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Client, IntoConnectionInfo, RedisError};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use process::Process;

/// Settings of a reader, besides the address of Redis, which [`Reader::start`] takes.
///
/// More fields may follow, so begin with the default:
///
/// ```
/// # use prompt_rollback_reader::Settings;
/// let settings = Settings { sentinel_master: Some("prompts".to_owned()), ..Settings::default() };
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Prefix of all keys: `redis.namespace` of the receiver's config. In a Redis Cluster it must contain a hash tag, as the
    /// default `{prompts}` does, so that all keys are in one slot.
    pub namespace: String,
    /// Interval at which all prompts are read again, even if no change was announced. More than 0, at most a day;
    /// 2 seconds by default.
    pub refresh: Duration,
    /// More addresses, `host:port` each: cluster nodes, possible masters, or all sentinels. One that answers is enough.
    pub nodes: Vec<String>,
    /// Name under which Redis Sentinel knows the master. [`nodes`](Self::nodes) are then the sentinels; if there are none, the
    /// address given to [`Reader::start`] is the sentinel.
    pub sentinel_master: Option<String>,
    /// User name on the sentinels; `None` or empty: their default user.
    pub sentinel_username: Option<String>,
    /// Password of that user on the sentinels; `None` or empty: no password.
    pub sentinel_password: Option<String>,
    // `#[non_exhaustive]` would forbid `..Settings::default()`, too
    #[doc(hidden)]
    pub more_may_follow: (),
}

impl Settings {
    const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 60 * 60);

    /// Whether a password may stand in `nodes`, which have no place for one.
    fn nodes_hold_login(&self) -> bool {
        self.nodes.iter().any(|node| node.contains('@'))
    }
}

/// Shown instead of such nodes.
const WITH_LOGIN: &str = "an address with a login";

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: "{prompts}".to_owned(),
            refresh: Duration::from_secs(2),
            nodes: Vec::new(),
            sentinel_master: None,
            sentinel_username: None,
            sentinel_password: None,
            more_may_follow: (),
        }
    }
}

/// Leaves out the password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: &dyn fmt::Debug = if self.nodes_hold_login() { &WITH_LOGIN } else { &self.nodes };
        f.debug_struct("Settings")
            .field("namespace", &self.namespace)
            .field("refresh", &self.refresh)
            .field("nodes", nodes)
            .field("sentinel_master", &self.sentinel_master)
            .field("sentinel_username", &self.sentinel_username)
            .finish_non_exhaustive()
    }
}

/// How a reader learns of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Redis announces each change (`CLIENT TRACKING`).
    Pushed,
    /// The reader reads everything every [`Settings::refresh`], because the server or a proxy does not support RESP3, or the user
    /// may not use `CLIENT TRACKING`.
    Polling,
    /// No server can be reached, or this process was forked. The last known versions are served.
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

/// Why a reader could not be started. Never contains a password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError {
    /// The address of Redis is invalid, or its certificates are.
    Address(String),
    /// A setting is invalid.
    #[non_exhaustive]
    Setting {
        /// The field, such as `Settings::refresh`.
        name: &'static str,
        /// What was expected, and what was found.
        message: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(message) => write!(f, "Redis address: {message}"),
            Self::Setting { name, message } => write!(f, "{name}: {message}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Follows some prompts until it is dropped. The [`Prompt`]s that it gave out then keep the last known version.
#[derive(Debug)]
pub struct Reader {
    process: Process,
    prompts: HashMap<String, Prompt>,
    mode: watch::Receiver<Mode>,
    following: JoinHandle<()>,
}

impl Reader {
    /// Starts to follow `prompts` in the background of the current tokio runtime. Succeeds while Redis is unreachable: the
    /// reader then keeps trying to connect.
    ///
    /// `redis` is a URL, or a [`redis::ConnectionInfo`] with credentials and TLS certificates, which apply to each node of
    /// a cluster. The reader speaks RESP3 where the server does, whatever protocol `redis` names.
    ///
    /// With a certificate authority of your own (feature `tls`):
    ///
    #[cfg_attr(feature = "tls", doc = "```no_run")]
    #[cfg_attr(not(feature = "tls"), doc = "```ignore")]
    /// # use prompt_rollback_reader::{Reader, Settings};
    /// use prompt_rollback_reader::redis::{Client, TlsCertificates};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let certificates = TlsCertificates { client_tls: None, root_cert: Some(std::fs::read("ca.pem")?) };
    /// let client = Client::build_with_tls("rediss://redis:6380", certificates)?;
    /// let reader = Reader::start(client.get_connection_info().clone(), ["customer-support"], Settings::default())?;
    /// # drop(reader); Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When `redis` is not a valid address, or a setting is invalid.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start<N: Into<String>>(
        redis: impl IntoConnectionInfo,
        prompts: impl IntoIterator<Item = N>,
        settings: Settings,
    ) -> Result<Self, StartError> {
        if settings.refresh.is_zero() || settings.refresh > Settings::LONGEST_REFRESH {
            let why = format!("expected more than 0 and at most a day, found {:?}", settings.refresh);
            return Err(wrong("Settings::refresh", why));
        }
        let refused = |error: RedisError| StartError::Address(error.to_string());
        let info = redis.into_connection_info().map_err(refused)?;
        #[cfg(feature = "tls")]
        provide_cryptography(&info);
        let login = info.redis_settings().clone().set_skip_set_lib_name();
        // an invalid address or certificate fails here
        let client = Client::open(info.set_redis_settings(login)).map_err(refused)?;
        let info = client.get_connection_info().clone();
        let places = places::Places::new(info, &settings)?;
        let prompts: HashMap<_, _> = prompts.into_iter().map(|name| (name.into(), Prompt::default())).collect();
        let (mode, watched) = watch::channel(Mode::Away);
        let following = tokio::spawn(follow::Follower::new(places, &prompts, &settings, mode).run());
        Ok(Self { process: Process::default(), prompts, mode: watched, following })
    }

    /// How the reader currently learns of changes.
    pub fn mode(&self) -> Mode {
        if self.process.was_forked() { Mode::Away } else { *self.mode.borrow() }
    }

    /// A prompt that the reader follows; `None` if `name` was not among those given to [`start`](Self::start).
    pub fn prompt(&self, name: &str) -> Option<&Prompt> {
        self.prompts.get(name)
    }

    /// All prompts that the reader follows, with their names, in no particular order.
    pub fn prompts(&self) -> impl Iterator<Item = (&str, &Prompt)> {
        self.prompts.iter().map(|(name, prompt)| (name.as_str(), prompt))
    }

    /// Waits until each prompt has a version. Waits without limit, so put a timeout around it.
    ///
    /// # Errors
    /// When prompts are no longer updated, because the tokio runtime in which the reader was started has ended, or because this
    /// process was forked since.
    pub async fn ready(&self) -> Result<(), Problem> {
        if self.process.was_forked() {
            return Err(Problem::Forked);
        }
        let all = async {
            for prompt in self.prompts.values() {
                prompt.changes().next().await;
            }
        };
        let mut mode = self.mode.clone();
        let ended = async { while mode.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            () = all => Ok(()),
            () = ended => Err(Problem::Away(ENDED.to_owned())),
        }
    }
}

/// Why prompts are no longer updated.
const ENDED: &str = "the reader was dropped, or its tokio runtime was";

fn wrong(name: &'static str, message: String) -> StartError {
    StartError::Setting { name, message }
}

/// Where several providers of cryptography are compiled in, rustls chooses none of them and panics.
#[cfg(feature = "tls")]
fn provide_cryptography(info: &redis::ConnectionInfo) {
    use rustls::crypto::{CryptoProvider, ring};

    if matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) && CryptoProvider::get_default().is_none() {
        // fails where another thread has just installed one, which is as good
        drop(ring::default_provider().install_default());
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.following.abort();
        // the task itself may end later
        self.prompts.values().for_each(|prompt| prompt.away(ENDED));
    }
}

/// The last known state of one prompt: a handle that is cheap to clone and to keep. All clones see each change.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    known: Arc<watch::Sender<LastKnown>>,
    // not in `LastKnown`, whose lock another thread may have held during the fork: the copy of that lock is never released
    process: Process,
}

#[derive(Debug)]
struct LastKnown {
    split: Option<Split>,
    /// When the question was sent whose answer this is.
    asked: Option<Instant>,
    problem: Option<Problem>,
}

impl Default for LastKnown {
    fn default() -> Self {
        let problem = Problem::Away("it has not answered yet".to_owned());
        Self { split: None, asked: None, problem: Some(problem) }
    }
}

impl Prompt {
    /// The version to serve to `key`, without a network call: the last known one while Redis is unreachable. `None` only
    /// if no version was ever known.
    ///
    /// `key` is the id of the user, the conversation or the request, as text or bytes; a number or a UUID counts as its
    /// `to_string()`. While traffic is split, the same key gets the same version on every server, and moves to another version
    /// at most once while the split shifts in one direction.
    pub fn active_version(&self, key: impl AsRef<[u8]>) -> Option<Version> {
        self.known.borrow().split.as_ref().map(|split| split.version(key).clone())
    }

    /// All versions that are served at present: one, or several while traffic is split. Empty if no version was ever known.
    pub fn versions(&self) -> Vec<Version> {
        self.known.borrow().split.iter().flat_map(Split::versions).cloned().collect()
    }

    /// Time since Redis last confirmed the version; `None` if it never did. In normal operation it stays below two seconds if
    /// changes are [pushed](Mode::Pushed), and below [`Settings::refresh`] plus one second otherwise.
    pub fn staleness(&self) -> Option<Duration> {
        self.known.borrow().asked.map(|asked| asked.elapsed())
    }

    /// Why Redis does not confirm the version, or why the split is not followed; before the first answer, that Redis has not
    /// answered yet; after a fork, that this process must start its own reader. `None` if there is no problem.
    pub fn error(&self) -> Option<Problem> {
        if self.process.was_forked() {
            return Some(Problem::Forked);
        }
        self.known.borrow().problem.clone()
    }

    /// Changes from now on. The first [`next`](Changes::next) returns at once if a version is known already.
    pub fn changes(&self) -> Changes {
        let mut receiver = self.known.subscribe();
        if receiver.borrow().split.is_some() {
            receiver.mark_changed();
        }
        Changes(receiver)
    }

    /// Redis has said nothing else since its last answer, and was there at `asked`.
    fn confirmed(&self, asked: Instant) {
        self.known.send_if_modified(|known| {
            if matches!(known.problem, None | Some(Problem::Routing(_))) && known.split.is_some() {
                known.asked = Some(asked);
            }
            false
        });
    }

    fn away(&self, why: &str) {
        self.answered(Instant::now(), Err(Problem::Away(why.to_owned())));
    }

    /// An answer of Redis to a question sent at `asked`.
    fn answered(&self, asked: Instant, answer: Result<(Split, Option<Problem>), Problem>) {
        self.known.send_if_modified(|known| {
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

/// Changes of a prompt. Changes that follow each other quickly are delivered as one.
#[derive(Debug)]
pub struct Changes(watch::Receiver<LastKnown>);

impl Changes {
    /// Waits for a change and returns the versions that are served from then on. `None` once the reader and all handles to the
    /// prompt are dropped.
    pub async fn next(&mut self) -> Option<Vec<Version>> {
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().split.iter().flat_map(Split::versions).cloned().collect())
    }
}

/// Why Redis does not confirm a version, or why a split is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Redis is unreachable. The text says why.
    Away(String),
    /// The key does not exist: no version was activated, or the key was deleted.
    Missing,
    /// `active` does not hold a valid version. The text says what is wrong with it.
    Active(String),
    /// `routing` does not hold a valid split. The text says what is wrong with it. Every request gets the active version.
    Routing(String),
    /// This process was forked after the reader was started, and nothing updates the version here.
    Forked,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away(why) => write!(f, "redis is unreachable: {why}"),
            Self::Missing => f.write_str("no version is active"),
            Self::Active(why) => write!(f, "the active version is invalid: {why}"),
            Self::Routing(why) => write!(f, "the routing is invalid, every request gets the active version: {why}"),
            Self::Forked => f.write_str("this process was forked: start the reader after the fork"),
        }
    }
}

impl std::error::Error for Problem {}
