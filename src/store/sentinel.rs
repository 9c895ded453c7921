//! Finds the master through Redis Sentinel.
//!
//! A sentinel may hang, lag behind or not know the master. A failover needs the votes of a majority, so a majority is
//! asked, and the latest epoch counts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{
    Client, ConnectionInfo, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisConnectionInfo, RedisResult,
    ServerErrorKind, Value,
};
use secrecy::ExposeSecret;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::connect::{ASK_TIMEOUT, HostPort, MasterVote, ask_at, at, by_epoch, pushed, resp3};
use super::error::{RedisFault, StoreError};
use crate::config;

const SWITCHED: &str = "+switch-master";
/// Messages can get lost, so each sentinel is also asked this often.
const ASK_EVERY: Duration = Duration::from_secs(1);
const RECONNECT: Duration = Duration::from_secs(1);

type KnownMaster = watch::Receiver<Arc<str>>;

#[derive(Debug)]
pub struct SentinelGroup {
    name: String,
    sentinels: Vec<ConnectionInfo>,
}

impl std::fmt::Display for SentinelGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "is {:?}, by Sentinel", self.name)
    }
}

impl SentinelGroup {
    /// `redis` holds the TLS settings; sentinels have users of their own.
    pub fn new(config: &config::RedisConfig, redis: &ConnectionInfo) -> Self {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(username) = &config.sentinel_username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &config.sentinel_password {
            settings = settings.set_password(password.expose_secret());
        }
        let redis = redis.clone().set_redis_settings(settings);
        // one that is listed twice has one vote
        let mut addresses: Vec<HostPort> = Vec::new();
        for address in config.nodes.iter().filter_map(|node| HostPort::parse(node)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Self {
            name: config.sentinel_master.clone(),
            sentinels: addresses.iter().map(|address| at(&redis, address)).collect(),
        }
    }

    /// The possible masters, the most likely first.
    pub async fn ask(&self) -> Result<Vec<HostPort>, StoreError> {
        let mut asked: FuturesUnordered<_> = self.sentinels.iter().map(|sentinel| self.ask_one(sentinel)).collect();
        let majority = self.sentinels.len() / 2 + 1;
        let (mut all, mut strangers, mut fault) = (Vec::new(), 0, None);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(Some(said)) => all.push(said),
                Ok(None) => strangers += 1,
                Err(error) => fault = Some(error),
            }
            if all.len() >= majority {
                break;
            }
        }
        if !all.is_empty() {
            return Ok(by_epoch(all));
        }
        let message = match fault {
            _ if strangers > 0 => format!("redis.sentinel_master: no sentinel knows a master named {:?}", self.name),
            fault => format!("redis.nodes: no sentinel answers ({})", fault.unwrap_or_default()),
        };
        Err(StoreError::Unavailable { kind: RedisFault::NoMaster, message })
    }

    /// Returns `None` if the sentinel does not know the master.
    async fn ask_one(&self, sentinel: &ConnectionInfo) -> Result<Option<MasterVote>, String> {
        let asked = async {
            let mut connection = ask_at(sentinel).await?;
            let Some(master) = self.master(&mut connection).await? else { return Ok(None) };
            let mut command = redis::cmd("SENTINEL");
            command.arg("MASTER").arg(&self.name);
            let fields: HashMap<String, String> = command.query_async(&mut connection).await?;
            let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or_default();
            RedisResult::Ok(Some(MasterVote { master, epoch }))
        };
        let name = sentinel.addr();
        match timeout(ASK_TIMEOUT, asked).await {
            Ok(answer) => answer.map_err(|error| format!("{name}: {}", StoreError::from(error))),
            Err(_) => Err(format!("{name}: no answer within {ASK_TIMEOUT:?}")),
        }
    }

    async fn master(&self, connection: &mut MultiplexedConnection) -> RedisResult<Option<HostPort>> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let address: Option<(String, u16)> = command.query_async(connection).await?;
        Ok(address.map(|(host, port)| HostPort(host, port)))
    }

    /// Permissions that the user lacks at the reachable sentinels.
    pub async fn denied(&self) -> Vec<String> {
        let asked = self.sentinels.iter().map(|sentinel| async move {
            let denied = timeout(ASK_TIMEOUT, self.denied_by(sentinel)).await;
            let denied = denied.unwrap_or(Ok(Vec::new())).unwrap_or_default();
            denied.into_iter().map(|what| format!("{what} (by the sentinel {})", sentinel.addr())).collect::<Vec<_>>()
        });
        futures_util::future::join_all(asked).await.concat()
    }

    async fn denied_by(&self, sentinel: &ConnectionInfo) -> RedisResult<Vec<String>> {
        let (sender, _pushes) = unbounded_channel();
        let client = Client::open(resp3(sentinel))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&pushed(sender)).await?;
        let mut denied = Vec::new();
        for (what, words) in [
            ("sentinel|get-master-addr-by-name", ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.name].as_slice()),
            ("sentinel|master", &["SENTINEL", "MASTER", &self.name]),
            ("subscribe", &["SUBSCRIBE", SWITCHED]),
        ] {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            if let Err(error) = command.exec_async(&mut connection).await
                && error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
            {
                let channel = error.to_string().contains(" channel");
                denied.push(if channel { format!("&{SWITCHED}") } else { what.to_owned() });
            }
        }
        Ok(denied)
    }

    /// Notifies `doubted` whenever a sentinel names another master than `known`. All sentinels are watched, because one
    /// of them learns of a failover first.
    pub async fn follow(&self, known: KnownMaster, doubted: &Notify) {
        let followed = self.sentinels.iter().map(|sentinel| self.follow_one(sentinel, known.clone(), doubted));
        futures_util::future::join_all(followed).await;
    }

    async fn follow_one(&self, sentinel: &ConnectionInfo, known: KnownMaster, doubted: &Notify) {
        loop {
            if let Err(error) = self.listen(sentinel, &known, doubted).await {
                tracing::debug!(sentinel = %sentinel.addr(), error = %StoreError::from(error), "a sentinel is away");
            }
            sleep(RECONNECT).await;
        }
    }

    async fn listen(&self, sentinel: &ConnectionInfo, known: &KnownMaster, doubted: &Notify) -> RedisResult<()> {
        let (sender, mut pushes) = unbounded_channel();
        let client = Client::open(resp3(sentinel))?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&pushed(sender)).await?;
        connection.subscribe(SWITCHED).await?;
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let named = tokio::select! {
                push = pushes.recv() => match push {
                    None | Some(PushInfo { kind: PushKind::Disconnection, .. }) => return Ok(()),
                    Some(push) => self.switched(push),
                },
                _ = ask.tick() => self.master(&mut connection).await?,
            };
            let known = known.borrow();
            if named.is_some_and(|named| !known.is_empty() && named.to_string() != **known) {
                doubted.notify_one();
            }
        }
    }

    /// The new master, if the message says that the known one was replaced: `name old-ip old-port new-ip new-port`.
    fn switched(&self, push: PushInfo) -> Option<HostPort> {
        let payload = match (push.kind, push.data.into_iter().nth(1)) {
            (PushKind::Message, Some(payload @ (Value::BulkString(_) | Value::SimpleString(_)))) => payload,
            _ => return None,
        };
        let payload = String::from_redis_value(payload).ok()?;
        let mut words = payload.split(' ');
        (words.next()? == self.name).then_some(())?;
        Some(HostPort(words.nth(2)?.to_owned(), words.next()?.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo;

    use super::*;

    #[test]
    fn a_sentinel_that_is_listed_twice_has_one_vote() {
        let nodes = ["10.0.0.1:26379", "10.0.0.2:26379", "10.0.0.1:26379"].map(str::to_owned).to_vec();
        let config = config::RedisConfig { nodes, ..config::Config::default().redis };
        let redis = "redis://127.0.0.1".into_connection_info().expect("an address");
        assert_eq!(SentinelGroup::new(&config, &redis).sentinels.len(), 2);
    }

    #[test]
    fn only_switch_master_messages_about_our_master_count() {
        let sentinels = SentinelGroup { name: "main".to_owned(), sentinels: Vec::new() };
        let push = |kind, payload: &str| PushInfo {
            kind,
            data: vec![Value::BulkString(SWITCHED.into()), Value::BulkString(payload.into())],
        };
        let switched = sentinels.switched(push(PushKind::Message, "main 10.0.0.1 6379 10.0.0.2 6380"));
        assert_eq!(switched, Some(HostPort("10.0.0.2".to_owned(), 6380)));
        assert_eq!(sentinels.switched(push(PushKind::Message, "other 10.0.0.1 6379 10.0.0.2 6380")), None);
        assert_eq!(sentinels.switched(push(PushKind::Message, "main 10.0.0.1 6379")), None);
        assert_eq!(sentinels.switched(push(PushKind::Subscribe, "main 10.0.0.1 6379 10.0.0.2 6380")), None);
    }
}
