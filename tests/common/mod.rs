//! A receiver in this process, with a Redis of its own.

pub mod half_minute;
pub mod kept;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
pub use kept::{copy_prompt, incidents};
use prompt_rollback::app::App;
use prompt_rollback::config::{Config, LoadedConfig};
use prompt_rollback::store::Clock;
use prompt_rollback::store::schedule::{Work, WorkItem};
pub use prompt_rollback_testkit::alerts::{
    DUPLICATE, ROLLED_BACK, again, alert, critical, deliver, deliver_until_taken, delivery, outcomes, resolved,
};
pub use prompt_rollback_testkit::http::{Answer, Http};
pub use prompt_rollback_testkit::prompts::{active, log, rollbacks, ship};
pub use prompt_rollback_testkit::{ReceiverBuilder, Redis, eventually};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a test waits for an automatic event: long, because only a failing test waits this long.
pub const SOON: Duration = Duration::from_secs(120);

/// For a receiver that waits for a replica: long enough for a busy machine, short enough for a refusal to be in time.
pub const REPLICATED: [(&str, &str); 2] = [("REDIS__MIN_REPLICAS_ACKED", "1"), ("REDIS__WAIT_TIMEOUT", "2500ms")];

/// The default config, except for Redis, a free port, canaries that advance by time alone, and `env` (keys without the
/// prefix). Logs in as the shipped receiver, unless the URL or `env` names another user.
pub fn config(redis_url: &str, env: &[(&str, &str)]) -> Config {
    settings(redis_url, env).config
}

/// The default config as [`config`] changes it, to start a receiver with.
pub fn settings(redis_url: &str, env: &[(&str, &str)]) -> LoadedConfig {
    settings_of(None, redis_url, env)
}

/// Like [`settings`], with a config file.
pub fn settings_of(file: Option<&Path>, redis_url: &str, env: &[(&str, &str)]) -> LoadedConfig {
    let own = [("REDIS__URL", redis_url), ("SERVER__LISTEN", "127.0.0.1:0"), ("CANARY__ANALYSIS", "off")];
    let elsewhere =
        redis_url.contains('@') || env.iter().any(|(key, _)| ["REDIS__USERNAME", "REDIS__PASSWORD"].contains(key));
    let login = [("REDIS__USERNAME", Redis::RECEIVER.name), ("REDIS__PASSWORD", Redis::RECEIVER.password)];
    let login = if elsewhere { &[] } else { &login[..] };
    let all = own.iter().chain(login).chain(env);
    let pairs = all.map(|(key, value)| (format!("PROMPT_ROLLBACK_{key}"), (*value).to_owned()));
    LoadedConfig::load(file, pairs.collect::<Vec<_>>().into_iter()).expect("a valid config")
}

/// A receiver as a process of its own, on `redis`.
pub fn process(redis: &Redis) -> ReceiverBuilder {
    prompt_rollback_testkit::Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
}

/// A receiver in this process.
pub struct Receiver {
    pub app: App,
    pub clock: Clock,
    pub http: Http,
}

impl Receiver {
    pub async fn start(redis_url: &str, env: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(&settings(redis_url, env)).await
    }

    pub async fn start_with(settings: &LoadedConfig) -> Result<Self> {
        let clock = Clock::default();
        let app = App::start(settings, clock.clone()).await?;
        let http = Http::new(format!("http://{}", app.address));
        Ok(Self { app, clock, http })
    }

    pub async fn ready(redis_url: &str, env: &[(&str, &str)]) -> Result<Self> {
        let receiver = Self::start(redis_url, env).await?;
        receiver.wait_ready(SOON).await?;
        Ok(receiver)
    }

    pub async fn wait_ready(&self, within: Duration) -> Result<()> {
        eventually("ready", within, async || self.http.get("/-/ready").await.ok().filter(|a| a.status == 200).map(drop))
            .await
    }

    /// Waits until `/-/ready` fails with `reason`.
    pub async fn wait_not_ready(&self, reason: &str, within: Duration) -> Result<()> {
        eventually(&format!("not ready because of {reason}"), within, async || {
            let answer = self.http.get("/-/ready").await.ok()?;
            (answer.status == 503 && answer.text().contains(reason)).then_some(())
        })
        .await
    }

    /// Waits until no task of these kinds is due by now or under way: by itself, nothing happens then until time passes.
    pub async fn settled(&self, redis: &Redis, works: &[Work]) -> Result<()> {
        eventually("nothing is due", SOON, async || self.is_settled(redis, works).await.ok()?.then_some(())).await
    }

    /// Whether it is so now.
    pub async fn is_settled(&self, redis: &Redis, works: &[Work]) -> Result<bool> {
        let now = self.app.engine.store.now().await?;
        Ok(kept::unfinished(redis, works, now).await? == 0)
    }

    /// Waits until a worker has looked for work, and so at the clock, since this was called.
    pub async fn has_looked(&self, redis: &Redis) -> Result<()> {
        let store = &self.app.engine.store;
        let nothing = WorkItem::Incident(kept::incident_id("none"));
        store.wake_by(Work::Incident, &nothing, store.now().await?).await?;
        self.settled(redis, &[Work::Incident]).await
    }

    /// One delivery.
    pub async fn deliver(&self, alerts: &[Value]) -> Result<Answer> {
        deliver(&self.http, alerts).await
    }

    /// One delivery that is answered with 200: outcome and reason of each alert.
    pub async fn outcomes(&self, alerts: &[Value]) -> Result<Vec<String>> {
        outcomes(&self.deliver(alerts).await?)
    }
}

/// Redis, with a receiver that is ready.
pub struct World {
    pub redis: Redis,
    pub receiver: Receiver,
}

impl World {
    pub async fn start() -> Result<Self> {
        Self::with(&[]).await
    }

    /// With the shipped permissions: the tests need no others.
    pub async fn with(env: &[(&str, &str)]) -> Result<Self> {
        Self::on(Redis::start()?, env).await
    }

    pub async fn on(redis: Redis, env: &[(&str, &str)]) -> Result<Self> {
        let receiver = Receiver::ready(&redis.receiver_url(), env).await?;
        Ok(Self { redis, receiver })
    }

    pub fn http(&self) -> &Http {
        &self.receiver.http
    }

    /// Waits until a worker has looked at the clock.
    pub async fn has_looked(&self) -> Result<()> {
        self.receiver.has_looked(&self.redis).await
    }

    /// Waits until the workers have done all that is due by now.
    pub async fn settled(&self, works: &[Work]) -> Result<()> {
        self.receiver.settled(&self.redis, works).await
    }

    pub async fn ship(&self, prompt: &str) -> Result<()> {
        ship(self.http(), prompt).await
    }

    pub async fn active(&self, prompt: &str) -> Result<Option<String>> {
        active(&self.redis, prompt).await
    }

    pub async fn log(&self, prompt: &str) -> Result<Vec<HashMap<String, String>>> {
        log(&self.redis, prompt).await
    }

    /// GET of JSON with status 200.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.http().get(path).await?;
        ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// POST of JSON: status and body.
    pub async fn post(&self, path: &str, body: Value) -> Result<(u16, Value)> {
        let answer = self.http().post_json(path, &body).await?;
        Ok((answer.status, answer.json()?))
    }
}

/// Exactly one switch from `v2` to `v1`, with one log entry and one incident.
pub async fn assert_rolled_back_once(redis: &Redis, prompt: &str) -> Result<()> {
    assert_eq!(active(redis, prompt).await?.as_deref(), Some("v1"), "{prompt}");
    assert_eq!(rollbacks(redis, prompt).await?, 1, "{prompt}: entries in the log");
    assert_eq!(incidents(redis, prompt).await?.len(), 1, "{prompt}: incidents");
    Ok(())
}

/// All keys with their values: equal before and after means that nothing was written.
pub async fn dump(redis: &Redis) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut connection = redis.connection().await?;
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await?;
    keys.sort();
    let mut dump = BTreeMap::new();
    for key in keys {
        // a key may expire in between
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await?;
        // the order of a large hash's fields changes as Redis rehashes it
        let value: Option<Vec<u8>> = if kind == "hash" {
            let fields: BTreeMap<Vec<u8>, Vec<u8>> =
                redis::cmd("HGETALL").arg(&key).query_async(&mut connection).await?;
            (!fields.is_empty()).then(|| format!("{fields:?}").into_bytes())
        } else {
            redis::cmd("DUMP").arg(&key).query_async(&mut connection).await?
        };
        dump.extend(value.map(|value| (key, value)));
    }
    Ok(dump)
}

/// Names the keys that differ, because whole dumps are unreadable.
pub fn assert_same(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>, what: &str) {
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|key| before.get(*key) != after.get(*key))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    assert!(changed.is_empty(), "{what}: written to {changed:?}");
}

/// Sends raw bytes, and reads until the server closes the connection.
pub async fn exchange(address: std::net::SocketAddr, request: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    ensure!(read.is_ok(), "the connection was not closed within {SOON:?}: {text}");
    Ok(text)
}
