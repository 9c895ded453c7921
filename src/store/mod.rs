//! Redis: keys, records, scripts and connections. Knows how things are stored, never why they change.

pub mod backup;
mod cluster;
mod commit;
mod connect;
mod deployed;
pub mod drill;
mod durability;
mod error;
mod events;
mod heartbeat;
mod ids;
mod import;
pub mod keys;
pub mod link;
pub mod outage;
mod overview;
mod own_writes;
mod pause_entry;
mod query;
pub mod receipt;
pub mod record;
mod reply;
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

use redis::Value;
use tokio::sync::Semaphore;

use crate::config;
use crate::decision::decide::Active;
use crate::decision::names::trimmed;
use crate::decision::{CommitId, Needs, PromptName, PromptState, Snapshot, Timestamp, VersionName};
use crate::trace;
use connect::{Connected, Connector};
use keys::Keys;
use link::{Link, LoginReader};
use own_writes::OwnWrites;
use pause_entry::{describe_pause, held_by};
use record::{SCHEMA, StoredIncident, Unknown};
use reply::{ReplyItems, pairs};
use schedule::{Shows, Subscription};
use script::{Call, Scripts};

pub use crate::events::rfc3339;
pub use commit::Committed;
pub use error::{RedisFault, StoreError};
pub use events::Events;
pub use ids::{DrillId, fresh_ulid};
pub use import::{FoundKey, ImportedValue, Layout};
pub use overview::OpenIncidents;
pub use query::{ListedIncident, ListedPrompt, LogCursor, LoggedChange, Page, VersionSeries, Visible, is_entry};
pub use selftest::{Level, SelfTest, SelfTestResult};

/// How long a closed incident is kept.
pub const INCIDENT_RETENTION: Duration = Duration::from_secs(180 * 24 * 3_600);
/// Connections for WAIT: each call needs its own.
const WAITERS: usize = 8;

/// A loaded prompt, with what a commit compares.
#[derive(Debug)]
pub struct Loaded {
    pub snapshot: Snapshot,
    pub now: Timestamp,
    /// Revision and last commit.
    stamp: String,
    raw_active: Option<Vec<u8>>,
    raw_routing: Vec<(Vec<u8>, Vec<u8>)>,
    unknown: Unknown,
}

impl Loaded {
    /// The revision that the next commit creates.
    fn next_rev(&self) -> i64 {
        let rev: Option<i64> = self.stamp.split(' ').next().and_then(|rev| rev.parse().ok());
        rev.unwrap_or_default() + 1
    }
}

/// The store: one namespace of one Redis. Clones, and stores with other settings, share the connections.
#[derive(Debug, Clone)]
pub struct Store {
    link: Arc<Link>,
    /// The connector for these settings: used once they are in force.
    connector: Arc<Connector>,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
    replica_waits: Option<Arc<ReplicaWaits>>,
    clock: Clock,
    /// The notification targets that commits wake.
    targets: Arc<[Subscription]>,
    /// Whether open incidents are also written at their own keys, where receivers of the previous release look for
    /// them.
    readable_by_previous: bool,
    written: Arc<OwnWrites>,
    pulse: Arc<schedule::Pulse>,
}

/// Redis TIME, which every decision and wake-up uses, plus an offset of zero. Tests move the offset to let time pass.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Moved>);

/// In milliseconds.
#[derive(Debug, Default)]
struct Moved {
    /// The time that has passed.
    passed: AtomicI64,
    /// By how much the clock itself was set.
    set: AtomicI64,
}

impl Clock {
    pub fn advance(&self, by: Duration) {
        self.0.passed.fetch_add(millis(by).cast_signed(), Ordering::Relaxed);
    }

    /// Sets the clock back, like a new master's clock that is behind.
    pub fn go_back(&self, by: Duration) {
        self.0.set.fetch_sub(millis(by).cast_signed(), Ordering::Relaxed);
    }

    /// Sets the clock ahead, while no time passes.
    pub fn jump(&self, by: Duration) {
        self.0.set.fetch_add(millis(by).cast_signed(), Ordering::Relaxed);
    }

    fn ahead(&self) -> i64 {
        self.passed() + self.0.set.load(Ordering::Relaxed)
    }

    fn passed(&self) -> i64 {
        self.0.passed.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct ReplicaWaits {
    replicas: u32,
    timeout: Duration,
    permits: Semaphore,
    idle: std::sync::Mutex<Vec<Connected>>,
}

/// The reply to a call, and how many replicas of the master have it.
#[derive(Debug)]
struct Waited {
    reply: Value,
    acked: u32,
    /// The master.
    to: Arc<str>,
}

impl ReplicaWaits {
    fn new(config: &config::RedisConfig) -> Option<Arc<Self>> {
        (config.min_replicas_acked > 0).then(|| {
            Arc::new(Self {
                replicas: config.min_replicas_acked,
                timeout: config.wait_timeout,
                permits: Semaphore::new(WAITERS),
                idle: std::sync::Mutex::default(),
            })
        })
    }
}

impl Store {
    pub fn new(config: &config::RedisConfig, clock: Clock) -> Result<Self, StoreError> {
        let connector = Arc::new(Connector::new(config)?);
        Ok(Self {
            link: Arc::new(Link::new(Arc::clone(&connector))),
            connector,
            keys: Arc::new(Keys::new(&config.namespace)),
            scripts: Arc::new(Scripts::new()),
            replica_waits: ReplicaWaits::new(config),
            clock,
            targets: Arc::new([]),
            readable_by_previous: config.readable_by_previous,
            written: Arc::default(),
            pulse: Arc::default(),
        })
    }

    /// The same namespace of the same Redis with other settings.
    pub fn reconfigured(&self, config: &config::RedisConfig) -> Result<Self, StoreError> {
        let connector = Arc::new(self.connector.reconfigured(config)?);
        let readable_by_previous = config.readable_by_previous;
        Ok(Self { connector, replica_waits: ReplicaWaits::new(config), readable_by_previous, ..self.clone() })
    }

    /// Puts this store's settings in force: all clones make new connections with them.
    pub fn in_force(&self) {
        self.link.connect_by(&self.connector);
    }

    /// Sets how the login is read again when Redis refuses it, for all clones.
    pub fn read_login_by(&self, reader: LoginReader) {
        self.link.read_login_by(reader);
    }

    /// Sets the notification targets that commits wake.
    #[must_use]
    pub fn notifying(self, targets: impl Into<Arc<[Subscription]>>) -> Self {
        Self { targets: targets.into(), ..self }
    }

    /// Whether commits must store events, because a target shows them.
    pub fn keeps_events(&self) -> bool {
        self.subscriptions(Shows::Events).next().is_some()
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Counts the connections opened.
    pub fn generation(&self) -> u64 {
        self.link.generation()
    }

    /// Watches for failovers while the process runs.
    pub async fn follow_master(&self) {
        let mut connectors = self.link.connectors();
        loop {
            let connector = Arc::clone(&connectors.borrow_and_update());
            let follow = async {
                connector.follow().await;
                std::future::pending().await // nothing to watch
            };
            tokio::select! {
                () = follow => {}
                replaced = connectors.changed() => if replaced.is_err() { return },
            }
        }
    }

    /// Where the master was found, unless `redis.url` names it.
    pub fn located(&self) -> Option<String> {
        self.link.connector().located()
    }

    async fn read_script(&self, call: &Call<'_>) -> Result<Value, StoreError> {
        self.link.read(call).await
    }

    /// Reads the whole state of one prompt in one round trip. `window` is the budget's window.
    pub async fn load(&self, prompt: &PromptName, window: Duration, needs: Needs<'_>) -> Result<Loaded, StoreError> {
        let keys = &self.keys;
        let mut names =
            vec![keys.active(prompt), keys.routing(prompt), keys.state(prompt), keys.paused(), keys.automatic()];
        names.extend(needs.incident.map(|id| keys.incident(id)));
        names.extend(needs.content.map(|version| keys.content(prompt, version)));
        let mut call = self.scripts.load.call(&names);
        call.cmd.arg(prompt.as_str()).arg(millis(window)).arg(self.clock.ahead());
        let reply = trace::call(trace::redis("load"), self.read_script(&call), StoreError::fault).await?;
        self.read_loaded(prompt, reply, needs)
    }

    fn read_loaded(&self, prompt: &PromptName, reply: Value, needs: Needs<'_>) -> Result<Loaded, StoreError> {
        let unexpected = || StoreError::unexpected("load");
        let mut fields = ReplyItems::of(reply).ok_or_else(unexpected)?;
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
        let stamp = fields.text();
        let schema = fields.text();
        let json = fields.text();
        let paused = [fields.text(), fields.text()].into_iter().flatten().next();
        let outage_hold = fields.text();
        let recent_auto: u32 = fields.number().ok_or_else(unexpected)?;
        let incident = needs.incident.and_then(|_| fields.text());
        let content = needs.content.and_then(|_| fields.text());
        let (state, mut unknown) = self.read_state(&self.keys.state(prompt), (schema, json))?;
        let incident = match (incident, needs.incident) {
            (Some(json), Some(id)) => match self.read_stored(id, &json)? {
                // an id from outside may be that of another prompt's incident
                StoredIncident::Here(incident, _) if incident.prompt != *prompt => None,
                StoredIncident::Here(incident, of_incident) => {
                    unknown.adopt(id, of_incident);
                    Some(*incident)
                }
                StoredIncident::Elsewhere(_) => state.incidents.iter().find(|incident| incident.id == *id).cloned(),
            },
            _ => None,
        };
        let snapshot = Snapshot {
            prompt: prompt.clone(),
            active: Active::read(raw_active.as_deref()),
            routing: raw_routing.iter().map(|(field, percent)| (lossy(field), lossy(percent))).collect(),
            state,
            paused: paused.map(|json| describe_pause(&json)),
            recent_auto,
            outage_hold: outage_hold.map(|json| held_by(&json)),
            incident,
            content,
            commit: CommitId(ids::fresh_ulid(now)),
            fresh_ids: Vec::new(),
        };
        Ok(Loaded { snapshot, now, stamp: stamp.unwrap_or_else(|| "0".to_owned()), raw_active, raw_routing, unknown })
    }

    /// Reads the record of a prompt, from the fields `schema` and `json` of this key.
    fn read_state(
        &self,
        key: &str,
        (schema, json): (Option<String>, Option<String>),
    ) -> Result<(PromptState, Unknown), StoreError> {
        if let Some(found) = schema.filter(|s| s.parse::<u32>().map_or(true, |s| s > SCHEMA)) {
            return Err(StoreError::NewerRecord { found });
        }
        let read = json.map(|json| record::read(&json)).transpose();
        Ok(read.map_err(|error| StoreError::unreadable(key, error))?.unwrap_or_default())
    }

    /// The master that answers now; empty with a fixed address. Call it before the reads and writes that
    /// [`Store::wait_for_replicas`] is about.
    pub async fn master(&self) -> Result<Arc<str>, StoreError> {
        if self.replica_waits.is_some() { self.link.master().await } else { Ok(Arc::default()) }
    }

    /// Waits until the replicas of `master` have all its earlier writes: an answer without a write depends on writes
    /// whose own answers may not have been sent. Fails if it was replaced: the new master may not have them.
    pub async fn wait_for_replicas(&self, master: &Arc<str>) -> Result<(), StoreError> {
        let Some(replica_waits) = &self.replica_waits else { return Ok(()) };
        // WAIT counts only for writes of its own connection
        let mut write = redis::cmd("SET");
        write.arg(self.keys.wait_for_replicas()).arg(1);
        let call = self.scripts.commit.plain(write);
        let generation = self.generation();
        let waited = match self.on_waiter(replica_waits, &call, Some(master)).await {
            // harmless to repeat: the connection may have been dead for hours
            Err(StoreError::Unavailable { kind: RedisFault::Connection, .. }) => {
                let waited = self.on_waiter(replica_waits, &call, Some(master)).await?;
                // or a fixed address leads to another server now: then the connection that wrote is dead as well
                self.ping().await?;
                if self.generation() != generation {
                    return Err(replaced());
                }
                waited
            }
            waited => waited?,
        };
        let (acked, wanted) = (waited.acked, replica_waits.replicas);
        if acked < wanted { Err(StoreError::NotReplicated { acked, wanted }) } else { Ok(()) }
    }

    /// Runs `call` and WAITs on a connection of its own, to `master` if that matters: WAIT blocks everything behind it.
    async fn on_waiter(
        &self,
        replica_waits: &ReplicaWaits,
        call: &Call<'_>,
        master: Option<&Arc<str>>,
    ) -> Result<Waited, StoreError> {
        let _permit = replica_waits.permits.acquire().await.map_err(|_| StoreError::unexpected("WAIT"))?;
        let connector = self.link.connector();
        let idle = {
            let mut idle = replica_waits.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|connected| connector.is_current(&connected.to));
            idle.pop()
        };
        let mut connected = match idle {
            Some(connected) => connected,
            None => connector.connect(replica_waits.timeout + Duration::from_secs(1)).await?,
        };
        let to = Arc::clone(&connected.to);
        if master.is_some_and(|master| *master != to) {
            replica_waits.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connected);
            return Err(replaced());
        }
        let timeout = millis(replica_waits.timeout);
        let result = call.run_and_wait(&mut connected.connection, replica_waits.replicas, timeout).await;
        let mut idle = replica_waits.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if result.as_ref().is_err_and(|error| connector.ends(error)) {
            idle.clear(); // what ended this one ended them all; each would cost a request
        } else {
            idle.push(connected);
        }
        let (reply, acked) = result?;
        Ok(Waited { reply, acked, to })
    }
}

fn replaced() -> StoreError {
    let message = "the master was replaced meanwhile".to_owned();
    StoreError::Unavailable { kind: RedisFault::ReadOnly, message }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Converts a field or value of `routing`, and trims it like a value of `active`.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(trimmed(bytes)).chars().take(VersionName::MAX).collect()
}
