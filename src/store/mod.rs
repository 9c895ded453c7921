//! Redis: keys, records, scripts and connections. Knows how things are kept, never why they change.

mod cluster;
mod connect;
pub mod drill;
mod ids;
mod import;
pub mod keys;
pub mod link;
pub mod mass;
mod query;
pub mod record;
mod samples;
pub mod schedule;
mod script;
mod selftest;
mod sentinel;
pub mod sync;
pub mod watch;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::Semaphore;

use crate::config;
use crate::decision::decide::{Active, LogEntry};
use crate::decision::{Commit, IncidentId, PromptName, Routing, Snapshot, Timestamp, VersionName};
use connect::{Connected, Connector};
use keys::Keys;
use link::Link;
use record::{SCHEMA, Unknown, Unreadable};
use script::{Call, Scripts};

pub use ids::fresh_ulid;
pub use import::{Layout, Read};
pub use query::{Listed, LoggedChange, Page, PromptRow, Series, rfc3339};
pub use selftest::{Finding, SelfTest};

/// How long a closed incident is kept.
pub const INCIDENT_RETENTION: Duration = Duration::from_secs(180 * 24 * 3_600);
/// Connections that WAIT: each waits alone.
const WAITERS: usize = 8;

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Redis can't do it now and may be able to later.
    #[error("redis is not available ({kind}): {message}")]
    Unavailable { kind: &'static str, message: String },
    /// Committed on the master only.
    #[error("replicated to {acked} of {wanted} replicas: not acknowledged")]
    NotReplicated { acked: u32, wanted: u32 },
    /// A key holds what we never write there. Stays until someone repairs it.
    #[error("{key} is broken: {detail}")]
    Broken { key: String, detail: String },
    /// Written by a newer receiver than this one.
    #[error("a record of this prompt has schema {found}; this receiver knows up to {SCHEMA}")]
    NewerRecord { found: String },
    #[error("{0}")]
    Config(String),
}

impl StoreError {
    /// What [`StoreError::Unavailable`] may be, as metric label.
    pub const KINDS: [&'static str; 18] = [
        "timeout",
        "connection",
        "auth",
        "loading",
        "readonly",
        "masterdown",
        "noperm",
        "oom",
        "misconf",
        "noreplicas",
        "maxclients",
        "protocol",
        "not_replicated",
        "nomaster",
        "moved",
        "moving",
        "clusterdown",
        "error",
    ];

    /// The metric label of a fault of Redis; `None` for what is no fault of Redis.
    pub fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Unavailable { kind, .. } => Some(kind),
            Self::NotReplicated { .. } => Some("not_replicated"),
            Self::Broken { .. } | Self::NewerRecord { .. } | Self::Config(_) => None,
        }
    }

    fn unreadable(key: &str, error: Unreadable) -> Self {
        match error {
            Unreadable::Damaged(_) => Self::Broken { key: key.to_owned(), detail: error.to_string() },
            Unreadable::Newer(schema) => Self::NewerRecord { found: schema.to_string() },
        }
    }

    fn unexpected(what: &str) -> Self {
        Self::Unavailable { kind: "protocol", message: format!("unexpected answer to {what}") }
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        if error.code() == Some("WRONGTYPE") {
            return Self::Broken { key: "a key".to_owned(), detail: "holds the wrong type".to_owned() };
        }
        let kind = match error.kind() {
            _ if error.is_timeout() => "timeout",
            ErrorKind::Io => "connection",
            _ if error.is_connection_dropped() => "connection",
            ErrorKind::AuthenticationFailed => "auth",
            ErrorKind::Server(ServerErrorKind::BusyLoading) => "loading",
            _ if connect::is_demoted(&error) => "readonly",
            ErrorKind::Server(ServerErrorKind::Moved) => "moved",
            // the slot is on its way: a script runs where all its keys are
            ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain) => "moving",
            ErrorKind::Server(ServerErrorKind::ClusterDown) => "clusterdown",
            ErrorKind::Server(ServerErrorKind::MasterDown) => "masterdown",
            ErrorKind::Server(ServerErrorKind::NoPerm) => "noperm",
            _ => match error.code() {
                Some("OOM") => "oom",
                Some("MISCONF") => "misconf",
                Some("NOREPLICAS") => "noreplicas",
                Some("WRONGPASS" | "NOAUTH") => "auth",
                _ if error.to_string().contains("max number of clients") => "maxclients",
                _ => "error",
            },
        };
        // the server's words; the library's own wording holds neither address nor password
        let message = error.detail().unwrap_or(error.category()).chars().take(200).collect();
        Self::Unavailable { kind, message }
    }
}

/// One prompt as loaded, with what a commit compares against.
#[derive(Debug)]
pub struct Loaded {
    pub snapshot: Snapshot,
    pub now: Timestamp,
    rev: String,
    raw_active: Option<Vec<u8>>,
    raw_routing: Vec<(Vec<u8>, Vec<u8>)>,
    unknown: Unknown,
    unknown_incident: Unknown,
}

/// What else to load besides the prompt.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    pub incident: Option<&'a IncidentId>,
    pub content: Option<&'a VersionName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// Now, or earlier by this very commit whose answer got lost.
    Done { rev: i64 },
    /// Someone else committed first: load and decide again.
    Moved,
    /// Other prompts have used up the budget of automatic rollbacks: load and decide again.
    BudgetSpent,
}

/// All that is kept, in one namespace of one Redis.
#[derive(Debug)]
pub struct Store {
    link: Link,
    keys: Keys,
    scripts: Scripts,
    waiters: Option<Waiters>,
    clock: Clock,
    /// Each commit that touches an incident wakes whoever tells Slack.
    announces: bool,
}

/// Redis TIME, which every decision and wake-up goes by, plus nothing. Tests let time pass by moving it ahead.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicI64>);

impl Clock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    fn ahead(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Waiters {
    replicas: u32,
    timeout: Duration,
    permits: Semaphore,
    idle: std::sync::Mutex<Vec<Connected>>,
}

impl Store {
    pub fn new(config: &config::Redis, clock: Clock) -> Result<Self, StoreError> {
        let waiters = (config.min_replicas_acked > 0).then(|| Waiters {
            replicas: config.min_replicas_acked,
            timeout: config.wait_timeout,
            permits: Semaphore::new(WAITERS),
            idle: std::sync::Mutex::default(),
        });
        Ok(Self {
            link: Link::new(Connector::new(config)?),
            keys: Keys::new(&config.namespace),
            scripts: Scripts::new(),
            waiters,
            clock,
            announces: false,
        })
    }

    /// Slack is configured: wake its worker, too.
    #[must_use]
    pub fn announcing(self, announces: bool) -> Self {
        Self { announces, ..self }
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Counts connections made.
    pub fn generation(&self) -> u64 {
        self.link.generation()
    }

    /// Hears of failovers for as long as the process runs.
    pub async fn follow_master(&self) {
        self.link.connector().follow().await;
    }

    /// Where the master was found, unless `redis.url` says where it is.
    pub fn located(&self) -> Option<String> {
        self.link.connector().located()
    }

    async fn read_script(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        self.link.read(call).await
    }

    /// Reads all of one prompt in one round trip. `window` is that of the budget.
    pub async fn load(&self, prompt: &PromptName, window: Duration, wanted: Wanted<'_>) -> Result<Loaded, StoreError> {
        let keys = &self.keys;
        let mut names =
            vec![keys.active(prompt), keys.routing(prompt), keys.state(prompt), keys.paused(), keys.automatic()];
        names.extend(wanted.incident.map(|id| keys.incident(id)));
        names.extend(wanted.content.map(|version| keys.content(prompt, version)));
        let mut call = self.scripts.load.call(&names);
        call.cmd.arg(prompt.as_str()).arg(millis(window)).arg(self.clock.ahead());
        let reply = self.read_script(&call).await?;
        self.read_loaded(prompt, reply, wanted)
    }

    fn read_loaded(&self, prompt: &PromptName, reply: Value, wanted: Wanted<'_>) -> Result<Loaded, StoreError> {
        let unexpected = || StoreError::unexpected("load");
        let mut fields = Fields(array(reply).ok_or_else(unexpected)?.into_iter());
        match fields.text().ok_or_else(unexpected)?.as_str() {
            "ok" => {}
            "wrong_type" => {
                let key = fields.text().unwrap_or_default();
                return Err(StoreError::Broken { key, detail: "holds the wrong type".to_owned() });
            }
            _ => return Err(unexpected()),
        }
        let now = Timestamp(fields.number().ok_or_else(unexpected)?);
        let raw_active = fields.bytes();
        let raw_routing = pairs(fields.next());
        let rev = fields.text();
        let schema = fields.text();
        let json = fields.text();
        let paused = [fields.text(), fields.text()].into_iter().flatten().next();
        let recent_auto: u32 = fields.number().ok_or_else(unexpected)?;
        let incident = wanted.incident.and_then(|_| fields.text());
        let content = wanted.content.and_then(|_| fields.text());
        if let Some(found) = schema.filter(|s| s.parse::<u32>().map_or(true, |s| s > SCHEMA)) {
            return Err(StoreError::NewerRecord { found });
        }
        let (state, unknown) = match json {
            None => Default::default(),
            Some(json) => {
                record::read_state(&json).map_err(|error| StoreError::unreadable(&self.keys.state(prompt), error))?
            }
        };
        let (incident, unknown_incident) = match (incident, wanted.incident) {
            (Some(json), Some(id)) => {
                let (incident, unknown) = record::read_incident(&json)
                    .map_err(|error| StoreError::unreadable(&self.keys.incident(id), error))?;
                (Some(incident), unknown)
            }
            _ => (None, Unknown::default()),
        };
        let snapshot = Snapshot {
            prompt: prompt.clone(),
            active: read_active(raw_active.as_deref()),
            routing: raw_routing.iter().map(|(field, percent)| (lossy(field), lossy(percent))).collect(),
            state,
            paused: paused.map(|json| query::describe_pause(&json)),
            recent_auto,
            incident,
            content,
            fresh_ids: Vec::new(),
        };
        Ok(Loaded {
            snapshot,
            now,
            rev: rev.unwrap_or_else(|| "0".to_owned()),
            raw_active,
            raw_routing,
            unknown,
            unknown_incident,
        })
    }

    /// Writes all of `commit`, or nothing. `id` is the commit's own: running it again with the same id is harmless.
    pub async fn commit(&self, id: &str, loaded: &Loaded, commit: &Commit) -> Result<Committed, StoreError> {
        let call = self.commit_call(id, loaded, commit);
        let reply = match &self.waiters {
            None => self.link.run(&call).await?,
            Some(waiters) => {
                let replicas = waiters.replicas;
                let timeout = millis(waiters.timeout);
                let (reply, acked) = self.on_waiter(waiters, &call, timeout).await?;
                let (code, _) = read_code(&reply)?;
                if code > 0 && acked < replicas {
                    return Err(StoreError::NotReplicated { acked, wanted: replicas });
                }
                reply
            }
        };
        let (code, mut detail) = read_code(&reply)?;
        match code {
            1 => Ok(Committed::Done { rev: detail.number().unwrap_or_default() }),
            2 => {
                // written by another connection: the WAIT of this one did not count it
                self.fence().await?;
                Ok(Committed::Done { rev: detail.number().unwrap_or_default() })
            }
            -1 => Ok(Committed::Moved),
            -3 => Ok(Committed::BudgetSpent),
            -4 => Err(StoreError::Broken {
                key: detail.text().unwrap_or_default(),
                detail: "holds the wrong type".to_owned(),
            }),
            -5 => Err(StoreError::NewerRecord { found: detail.text().unwrap_or_default() }),
            _ => Err(StoreError::unexpected("commit")),
        }
    }

    /// The script call of a commit; see `commit.lua` for its arguments.
    fn commit_call(&self, id: &str, loaded: &Loaded, commit: &Commit) -> Call<'_> {
        let keys = &self.keys;
        let prompt = &loaded.snapshot.prompt;
        let now = loaded.now;
        let mut names = vec![
            keys.active(prompt),
            keys.routing(prompt),
            keys.state(prompt),
            keys.log(prompt),
            keys.paused(),
            keys.automatic(),
            keys.due(),
            keys.prompts(),
            keys.activity(),
            keys.incidents(),
            keys.open(),
            keys.closed(),
            keys.phases(),
        ];
        names.extend(commit.incidents.iter().map(|w| keys.incident(&w.incident.id)));
        names.extend(commit.content.iter().map(|(version, _)| keys.content(prompt, version)));
        let mut call = self.scripts.commit.call(&names);
        let cmd = &mut call.cmd;
        cmd.arg(id).arg(now.0).arg(prompt.as_str()).arg(&loaded.rev);
        match &loaded.raw_active {
            None => cmd.arg("-"),
            Some(active) => cmd.arg([b"=", active.as_slice()].concat()),
        };
        cmd.arg(u8::from(loaded.snapshot.paused.is_some()));
        match commit.automatic {
            None => cmd.arg("").arg(0),
            Some(automatic) => cmd.arg(automatic.max).arg(now.minus(automatic.window).0),
        };
        let serving = commit.state.serving.as_ref().map_or("", |s| s.version.as_str());
        cmd.arg(commit.active.as_ref().map_or("", VersionName::as_str))
            .arg(match commit.routing {
                Routing::Keep => "keep",
                Routing::Drop => "drop",
                Routing::Set(_) => "set",
            })
            .arg(record::write_state(&commit.state, &loaded.unknown))
            .arg(SCHEMA)
            .arg(serving)
            .arg(query::info_line(commit))
            .arg(keys.changes())
            .arg(millis(INCIDENT_RETENTION));
        cmd.arg(loaded.raw_routing.len());
        for (field, percent) in &loaded.raw_routing {
            cmd.arg(field).arg(percent);
        }
        match &commit.routing {
            Routing::Set(shares) => {
                cmd.arg(shares.len());
                for (version, percent) in shares {
                    cmd.arg(version.as_str()).arg(*percent);
                }
            }
            Routing::Keep | Routing::Drop => {
                cmd.arg(0);
            }
        }
        cmd.arg(commit.incidents.len());
        for write in &commit.incidents {
            let unknown = loaded.unknown.of_incident(&write.incident.id);
            let open = |phase: crate::decision::Phase| if phase.is_open() { phase.as_str() } else { "" };
            cmd.arg(&write.incident.id.0)
                .arg(record::write_incident(&write.incident, unknown.as_ref().unwrap_or(&loaded.unknown_incident)))
                .arg(write.was.map_or("-", open))
                .arg(open(write.incident.phase));
        }
        cmd.arg(commit.log.len());
        let at = query::rfc3339(now);
        for LogEntry { event, from, to, reason, operator, incident } in &commit.log {
            cmd.arg(event.as_str())
                .arg(from.as_deref().unwrap_or_default())
                .arg(to.as_deref().unwrap_or_default())
                .arg(reason)
                .arg(operator)
                .arg(&at)
                .arg(incident.as_ref().map_or("", |id| &id.0));
        }
        let routing: Option<serde_json::Map<_, _>> = match &commit.routing {
            Routing::Set(shares) => {
                Some(shares.iter().map(|(version, percent)| (version.to_string(), (*percent).into())).collect())
            }
            Routing::Keep | Routing::Drop => None,
        };
        cmd.arg(commit.changes.len());
        for change in &commit.changes {
            let message = serde_json::json!({
                "prompt": prompt.as_str(), "from": change.from, "to": change.to,
                "routing": routing, "at": at, "reason": change.reason,
            });
            cmd.arg(message.to_string());
        }
        let told = if self.announces { commit.incidents.as_slice() } else { &[] };
        let canary_told = self.announces && commit.canary.changed;
        let coordinated = || commit.incidents.iter().filter(|write| write.coordinate);
        let own = [commit.canary.wake, commit.chores].into_iter().flatten().min();
        let canary = usize::from(canary_told) + usize::from(own.is_some());
        cmd.arg(commit.wakes.len() + told.len() + canary + coordinated().count());
        for write in coordinated() {
            cmd.arg(schedule::Work::Mass.member(&write.incident.id)).arg(now.0);
        }
        if let Some(at) = own {
            cmd.arg(schedule::Work::Act.member_of(prompt)).arg(at.0);
        }
        if canary_told {
            cmd.arg(schedule::Work::Slack.member_of(prompt)).arg(now.0);
        }
        for wake in &commit.wakes {
            cmd.arg(schedule::Work::Act.member(&wake.incident)).arg(wake.at.0);
        }
        for write in told {
            cmd.arg(schedule::Work::Slack.member(&write.incident.id)).arg(schedule::slack_turn(&write.incident).0);
        }
        cmd.arg(commit.content.len());
        for (_, content) in &commit.content {
            match content {
                Some(text) => cmd.arg("keep").arg(text),
                None => cmd.arg("drop").arg(""),
            };
        }
        call
    }

    /// Waits until the replicas have all that was written before: an answer that wrote nothing rests on writes
    /// whose own answer may never have been sent.
    pub async fn fence(&self) -> Result<(), StoreError> {
        let Some(waiters) = &self.waiters else { return Ok(()) };
        // WAIT counts only for writes of its own connection
        let mut write = redis::cmd("SET");
        write.arg(self.keys.fence()).arg(1);
        let (_, acked) = self.on_waiter(waiters, &self.scripts.commit.plain(write), millis(waiters.timeout)).await?;
        let wanted = waiters.replicas;
        if acked < wanted { Err(StoreError::NotReplicated { acked, wanted }) } else { Ok(()) }
    }

    /// Runs `call` and WAITs on a connection that nobody else uses: WAIT blocks everything behind it.
    async fn on_waiter(&self, waiters: &Waiters, call: &Call<'_>, timeout: u64) -> Result<(Value, u32), StoreError> {
        let _permit = waiters.permits.acquire().await.map_err(|_| StoreError::unexpected("WAIT"))?;
        let connector = self.link.connector();
        let idle = {
            let mut idle = waiters.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|connected| connector.is_current(&connected.to));
            idle.pop()
        };
        let mut connected = match idle {
            Some(connected) => connected,
            None => connector.connect(waiters.timeout + Duration::from_secs(1)).await?,
        };
        let result = call.run_and_wait(&mut connected.connection, waiters.replicas, timeout).await;
        let mut idle = waiters.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if result.as_ref().is_err_and(|error| connector.ends(error)) {
            idle.clear(); // what ended this one has ended them all; each would cost a request
        } else {
            idle.push(connected);
        }
        Ok(result?)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(VersionName::MAX).collect()
}

fn read_active(raw: Option<&[u8]>) -> Active {
    let Some(raw) = raw else { return Active::Absent };
    match std::str::from_utf8(raw).ok().and_then(|text| VersionName::parse(text).ok()) {
        Some(version) => Active::Version(version),
        None => Active::Foreign(lossy(raw)),
    }
}

fn read_code(reply: &Value) -> Result<(i64, Fields), StoreError> {
    let unexpected = || StoreError::unexpected("a script");
    let mut fields = Fields(array(reply.clone()).ok_or_else(unexpected)?.into_iter());
    Ok((fields.number().ok_or_else(unexpected)?, fields))
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

fn pairs(value: Option<Value>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields = Fields(value.and_then(array).unwrap_or_default().into_iter());
    let mut pairs = Vec::new();
    while let (Some(field), Some(value)) = (fields.bytes(), fields.bytes()) {
        pairs.push((field, value));
    }
    pairs.sort();
    pairs
}

/// The items of a reply, one after the other. Text that is no UTF-8 was not written by us.
struct Fields(std::vec::IntoIter<Value>);

impl Fields {
    fn next(&mut self) -> Option<Value> {
        self.0.next()
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.into_bytes()),
            Value::Int(number) => Some(number.to_string().into_bytes()),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        self.bytes().map(|bytes| {
            String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
        })
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }
}
