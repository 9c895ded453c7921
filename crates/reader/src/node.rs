//! One connection to one node, and what the node reports about itself.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, ProtocolVersion,
    PushInfo, RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

use super::resolve::Resolved;

/// Longest wait for a connection, without resolving the name, and for each answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A node that answers for the keys.
pub(super) struct Node {
    pub redis: MultiplexedConnection,
    pub addr: ConnectionAddr,
    pub pushes: UnboundedReceiver<PushInfo>,
    /// Whether Redis announces changes; otherwise all keys are read regularly.
    pub tracking: bool,
    pub said: Said,
    /// Ends when the node's name resolves to another address.
    pub renamed: JoinSet<()>,
}

/// What a node reports about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub clustered: bool,
    pub replica: bool,
}

impl Node {
    /// Fails unless the node answers for `key`.
    pub async fn open(info: &ConnectionInfo, resolved: Resolved, key: &str) -> RedisResult<Self> {
        let (sender, pushes) = unbounded_channel();
        let config = patient().set_dns_resolver(resolved);
        let pushing = connect(info, ProtocolVersion::RESP3, config.clone().set_push_sender(sender)).await;
        let (mut redis, resp3) = match pushing {
            Ok(redis) => (redis, true),
            Err(error) if lacks_resp3(&error) => (connect(info, ProtocolVersion::RESP2, config).await?, false),
            Err(error) => return Err(error),
        };
        let tracking = resp3 && is_done(redis::cmd("CLIENT").arg("TRACKING").arg("ON").exec_async(&mut redis).await)?;
        let said = ask(&mut redis, key).await?;
        Ok(Self { redis, addr: info.addr().clone(), pushes, tracking, said, renamed: JoinSet::new() })
    }

    /// Asks whether it still answers for `key`, and for its current role.
    pub async fn ask(&mut self, key: &str) -> RedisResult<Said> {
        ask(&mut self.redis, key).await
    }

    /// The client addresses of all nodes of its cluster.
    pub async fn all_nodes(&mut self) -> RedisResult<Vec<ConnectionAddr>> {
        let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut self.redis).await?;
        let mut nodes = Vec::new();
        // [[from, to, [host, port, id, …], …], …]
        for node in items(&slots).iter().flat_map(|range| items(range).iter().skip(2)) {
            let [host, Value::Int(port), ..] = items(node) else { continue };
            let host = String::from_redis_value(host.clone()).unwrap_or_default();
            if let (false, Ok(port)) = (host == "?", u16::try_from(*port)) {
                nodes.push(at(&self.addr, &host, port));
            }
        }
        Ok(nodes)
    }

    /// A connection to the node that an ASK answer names.
    pub async fn open_asked(info: &ConnectionInfo) -> RedisResult<MultiplexedConnection> {
        connect(info, ProtocolVersion::RESP2, patient()).await
    }
}

fn patient() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE))
}

async fn connect(
    info: &ConnectionInfo,
    protocol: ProtocolVersion,
    config: AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let settings = info.redis_settings().clone().set_protocol(protocol);
    let client = Client::open(info.clone().set_redis_settings(settings))?;
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Whether `HELLO` itself was refused, by an old server or a proxy.
fn lacks_resp3(error: &RedisError) -> bool {
    let names_hello = error.detail().is_some_and(|detail| detail.to_ascii_uppercase().contains("HELLO"));
    error.kind() == ErrorKind::RESP3NotSupported || error.code() == Some("NOPROTO") || names_hello
}

/// Returns false if the server refuses the command.
fn is_done(answer: RedisResult<()>) -> RedisResult<bool> {
    match answer {
        Err(error) if error.code().is_none() => Err(error),
        answer => Ok(answer.is_ok()),
    }
}

async fn ask(redis: &mut MultiplexedConnection, key: &str) -> RedisResult<Said> {
    let mut both = redis::pipe();
    both.ignore_errors().cmd("HELLO").cmd("GET").arg(key);
    let answers: Vec<Value> = both.query_async(redis).await?;
    let mut answers = answers.into_iter();
    let (hello, value) = (answers.next().unwrap_or(Value::Nil), answers.next().unwrap_or(Value::Nil));
    if let Value::ServerError(error) = value {
        let error = RedisError::from(error);
        // ASK: the key has moved, but the slot is still here
        if error.code() != Some("WRONGTYPE") && error.kind() != ErrorKind::Server(ServerErrorKind::Ask) {
            return Err(error);
        }
    }
    // a proxy may not know HELLO
    let hello: HashMap<String, Value> = HashMap::from_redis_value(hello).unwrap_or_default();
    let is = |field: &str, value: &str| matches!(hello.get(field), Some(Value::BulkString(found)) if found == value.as_bytes());
    Ok(Said { clustered: is("mode", "cluster"), replica: is("role", "replica") })
}

fn items(value: &Value) -> &[Value] {
    if let Value::Array(items) = value { items } else { &[] }
}

/// The address of another node, of the same kind as `addr`; a node that does not know its own host omits it.
pub(super) fn at(addr: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    match addr {
        ConnectionAddr::TcpTls { host: same, insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: if host.is_empty() { same.clone() } else { host.to_owned() },
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        ConnectionAddr::Tcp(same, _) if host.is_empty() => ConnectionAddr::Tcp(same.clone(), port),
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}

/// Parses `host:port`; an IPv6 address may be in brackets.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

/// The address in a MOVED or ASK answer of the node at `addr`, if the error is of this `kind`.
pub(super) fn redirected(error: &RedisError, kind: ServerErrorKind, addr: &ConnectionAddr) -> Option<ConnectionAddr> {
    if error.kind() != ErrorKind::Server(kind) {
        return None;
    }
    let (host, port) = host_and_port(error.redirect_node()?.0)?;
    Some(at(addr, host, port))
}

/// Keeps the first of equal addresses.
pub(super) fn dedup(places: &mut Vec<ConnectionAddr>) {
    let mut seen: Vec<ConnectionAddr> = Vec::new();
    places.retain(|place| {
        let new = !seen.contains(place);
        if new {
            seen.push(place.clone());
        }
        new
    });
}
