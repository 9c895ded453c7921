//! Connections to the Redis that takes writes.
//!
//! With several servers, the master is looked up for each new connection, and verified with ROLE. Code that keeps a
//! connection must check whether it still [leads to the master](Connector::is_current).

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind,
    TlsCertificates, Value,
};
use secrecy::ExposeSecret;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::cluster::Cluster;
use super::error::{RedisFault, StoreError, answered, is_demoted};
use super::sentinel::SentinelGroup;
use crate::config::{self, RedisIdentity, RedisMode};

/// Longest wait for a connection, and for its handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for one answer. A commit takes tens of microseconds, so a slower Redis counts as unreachable.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for a connection to a master that was looked up, including its ROLE. Shorter, because after a failover
/// the wait for the old master must end before the new one is asked.
const MASTER_TIMEOUT: Duration = Duration::from_millis(700);
/// Longest wait for a sentinel or node that knows the master.
pub const ASK_TIMEOUT: Duration = Duration::from_millis(500);

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort(pub String, pub u16);

impl HostPort {
    /// Parses `host:port`, which the config has validated; an IPv6 address is in brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self(host.to_owned(), port.parse().ok()?))
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.contains(':') { write!(f, "[{}]:{}", self.0, self.1) } else { write!(f, "{}:{}", self.0, self.1) }
    }
}

/// A vote on where the master is. An outdated one has a lower epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterVote {
    pub master: HostPort,
    pub epoch: u64,
}

/// The addresses, by the latest epoch first, then by number of votes.
pub fn by_epoch(all: Vec<MasterVote>) -> Vec<HostPort> {
    let mut by_epoch: Vec<(MasterVote, usize)> = Vec::new();
    for said in all {
        match by_epoch.iter_mut().find(|(known, _)| known.master == said.master) {
            Some((known, votes)) => {
                known.epoch = known.epoch.max(said.epoch);
                *votes += 1;
            }
            None => by_epoch.push((said, 1)),
        }
    }
    by_epoch.sort_by_key(|(said, votes)| std::cmp::Reverse((said.epoch, *votes)));
    by_epoch.into_iter().map(|(said, _)| said.master).collect()
}

#[derive(Debug)]
enum Topology {
    /// The address in `redis.url`.
    Fixed,
    Sentinel(SentinelGroup),
    Cluster(Cluster),
}

/// A connection, and the address it leads to.
#[derive(Debug, Clone)]
pub struct Connected {
    pub connection: MultiplexedConnection,
    pub to: Arc<str>,
}

/// How to reach Redis.
#[derive(Debug)]
pub struct Connector {
    client: Client,
    topology: Topology,
    /// The address of the master that was found last; empty before, and with a fixed address.
    master: Arc<watch::Sender<Arc<str>>>,
}

impl Connector {
    pub fn new(config: &config::RedisConfig) -> Result<Self, StoreError> {
        Self::with(config, Arc::new(watch::Sender::new(Arc::from(""))))
    }

    /// The same Redis with other settings.
    pub fn reconfigured(&self, config: &config::RedisConfig) -> Result<Self, StoreError> {
        Self::with(config, Arc::clone(&self.master))
    }

    fn with(config: &config::RedisConfig, master: Arc<watch::Sender<Arc<str>>>) -> Result<Self, StoreError> {
        let wrong = |error: RedisError| StoreError::Config(format!("redis.url: {}", error.category()));
        let info = config.url.expose().into_connection_info().map_err(wrong)?;
        let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(username) = &config.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &config.password {
            settings = settings.set_password(password.expose_secret());
        }
        // small commands that wait for each other: Nagle's algorithm would add 40 ms
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true)).set_redis_settings(settings);
        let identity = config.tls_identity.as_ref().map(|RedisIdentity { cert, key }| ClientTlsConfig {
            client_cert: cert.clone(),
            client_key: key.expose_secret().to_vec(),
        });
        let client = if config.tls_ca.is_none() && identity.is_none() {
            Client::open(info).map_err(wrong)?
        } else {
            let certificates = TlsCertificates { client_tls: identity, root_cert: config.tls_ca.clone() };
            Client::build_with_tls(info, certificates).map_err(wrong)?
        };
        let topology = match config.mode {
            RedisMode::Standalone => Topology::Fixed,
            RedisMode::Sentinel => Topology::Sentinel(SentinelGroup::new(config, client.get_connection_info())),
            RedisMode::Cluster => Topology::Cluster(Cluster::new(config, client.get_connection_info())),
        };
        Ok(Self { client, topology, master })
    }

    /// Opens a new connection. `response_timeout` limits each of its commands.
    pub async fn connect(&self, response_timeout: Duration) -> Result<Connected, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(1_024);
        self.open(self.client.get_connection_info().clone(), &config).await
    }

    /// Opens a RESP3 connection whose pushes arrive at `sender`.
    pub async fn connect_pushed(&self, sender: UnboundedSender<PushInfo>) -> Result<Connected, StoreError> {
        self.open(resp3(self.client.get_connection_info()), &pushed(sender)).await
    }

    /// Opens a connection without a user or password.
    pub async fn connect_without_login(&self) -> Result<MultiplexedConnection, StoreError> {
        let info = self.client.get_connection_info();
        let info = match HostPort::parse(&self.master.borrow()) {
            Some(master) => at(info, &master),
            None => info.clone(),
        };
        Ok(ask_at(&info.set_redis_settings(RedisConnectionInfo::default())).await?)
    }

    async fn open(&self, info: ConnectionInfo, config: &AsyncConnectionConfig) -> Result<Connected, StoreError> {
        let candidates = match &self.topology {
            Topology::Fixed => {
                // another client made from the info keeps its TLS roots, which are part of the address
                let connection = Client::open(info)?.get_multiplexed_async_connection_with_config(config).await?;
                return Ok(Connected { connection, to: Arc::from("") });
            }
            Topology::Sentinel(sentinels) => sentinels.ask().await?,
            Topology::Cluster(cluster) => cluster.ask().await?,
        };
        let mut refused = None;
        for address in candidates {
            match timeout(MASTER_TIMEOUT, open_master(at(&info, &address), config)).await {
                Ok(Ok(connection)) => {
                    let to: Arc<str> = Arc::from(address.to_string());
                    self.found(&to);
                    return Ok(Connected { connection, to });
                }
                // the most likely master has the best error message
                Ok(Err(error)) => refused = refused.or(Some((address, error))),
                Err(_) => {
                    let message = format!("no answer within {MASTER_TIMEOUT:?}");
                    refused =
                        refused.or(Some((address, StoreError::Unavailable { kind: RedisFault::Timeout, message })));
                }
            }
        }
        Err(match refused {
            Some((address, StoreError::Unavailable { kind, message })) => {
                StoreError::Unavailable { kind, message: format!("the master {address}: {message}") }
            }
            Some((_, error)) => error,
            None => {
                StoreError::Unavailable { kind: RedisFault::NoMaster, message: "no node reports a master".to_owned() }
            }
        })
    }

    pub fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// Permissions that sentinels or cluster nodes do not grant.
    pub async fn denied(&self) -> Vec<String> {
        if let Topology::Sentinel(sentinels) = &self.topology { sentinels.denied().await } else { Vec::new() }
    }

    fn found(&self, address: &Arc<str>) {
        self.master.send_if_modified(|known| {
            let another = known != address;
            if another {
                tracing::info!(master = %address, before = %known, "found the Redis master");
                known.clone_from(address);
            }
            another
        });
    }

    /// Whether a connection to `to` leads to the current master, as far as is known.
    pub fn is_current(&self, to: &Arc<str>) -> bool {
        *self.master.borrow() == *to
    }

    /// The master's address, whenever it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<str>> {
        self.master.subscribe()
    }

    /// The address of the master that was found last, and how it was found; `None` with a fixed address.
    pub fn located(&self) -> Option<String> {
        let master = self.master.borrow();
        let known = (!master.is_empty()).then_some(master);
        known
            .zip(match &self.topology {
                Topology::Fixed => None,
                Topology::Sentinel(sentinels) => Some(sentinels.to_string()),
                Topology::Cluster(cluster) => Some(cluster.to_string()),
            })
            .map(|(master, how)| format!("{} {how}", *master))
    }

    /// Whether `error` ends the connection: it is dead, stalled, or leads to a server that is not the master now.
    pub fn ends(&self, error: &RedisError) -> bool {
        let error = &answered(error.clone());
        if let (Topology::Cluster(cluster), ErrorKind::Server(ServerErrorKind::Moved)) = (&self.topology, error.kind())
        {
            cluster.moved(error.redirect_node().and_then(|(address, _)| HostPort::parse(address)));
            return true;
        }
        error.is_timeout()
            || error.is_io_error()
            || error.is_connection_dropped()
            || error.is_unrecoverable_error()
            || is_logged_out(error)
            || is_demoted(error)
            || matches!(
                error.kind(),
                ErrorKind::Server(
                    ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading | ServerErrorKind::ClusterDown
                )
            )
    }

    /// Watches for failovers while the process runs: a replaced master may answer for seconds, and loses what is
    /// written to it.
    pub async fn follow(&self) {
        let Topology::Sentinel(sentinels) = &self.topology else { return };
        let doubted = Notify::new();
        let look = async {
            loop {
                doubted.notified().await;
                // a connection to another master makes all others stale
                if let Err(error) = self.connect(RESPONSE_TIMEOUT).await {
                    tracing::debug!(%error, "no new Redis master yet");
                }
            }
        };
        tokio::join!(sentinels.follow(self.subscribe(), &doubted), look);
    }
}

/// Whether the server wants a new login on a connection that had one.
fn is_logged_out(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"))
}

async fn open_master(
    info: ConnectionInfo,
    config: &AsyncConnectionConfig,
) -> Result<MultiplexedConnection, StoreError> {
    let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(config).await?;
    let reply: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
    let role = reply.into_iter().next().and_then(|role| String::from_redis_value(role).ok()).unwrap_or_default();
    if role == "master" {
        return Ok(connection);
    }
    Err(StoreError::Unavailable { kind: RedisFault::ReadOnly, message: format!("is none: its ROLE is {role:?}") })
}

/// The same settings for another address.
pub fn at(info: &ConnectionInfo, HostPort(host, port): &HostPort) -> ConnectionInfo {
    let addr = match info.addr().clone() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure, tls_params }
        }
        _ => ConnectionAddr::Tcp(host.clone(), *port),
    };
    info.clone().set_addr(addr)
}

pub fn resp3(info: &ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    info.clone().set_redis_settings(settings)
}

pub fn pushed(sender: UnboundedSender<PushInfo>) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_push_sender(sender)
}

/// Opens a connection for one question to a server that may hang.
pub async fn ask_at(info: &ConnectionInfo) -> RedisResult<MultiplexedConnection> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(ASK_TIMEOUT)).set_response_timeout(Some(ASK_TIMEOUT));
    Client::open(info.clone())?.get_multiplexed_async_connection_with_config(&config).await
}

#[cfg(test)]
mod tests {
    use super::{HostPort, MasterVote, by_epoch};

    fn said(port: u16, epoch: u64) -> MasterVote {
        MasterVote { master: HostPort("h".to_owned(), port), epoch }
    }

    #[test]
    fn the_latest_epoch_counts_more_than_votes() {
        let all = vec![said(1, 3), said(1, 3), said(2, 4), said(3, 3)];
        assert_eq!(by_epoch(all), [HostPort("h".into(), 2), HostPort("h".into(), 1), HostPort("h".into(), 3)]);
        assert_eq!(by_epoch(Vec::new()), []);
    }

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for (text, host) in [("redis-1:26379", "redis-1"), ("10.0.0.1:26379", "10.0.0.1"), ("[::1]:26379", "::1")] {
            let address = HostPort::parse(text).expect(text);
            assert_eq!(address, HostPort(host.to_owned(), 26_379));
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(HostPort::parse("redis-1"), None);
        assert_eq!(HostPort::parse("redis-1:x"), None);
    }
}
