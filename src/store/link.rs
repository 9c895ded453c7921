//! Connections to Redis that heal.
//!
//! The client library neither reconnects nor leaves a socket that accepts and never answers, so this does: an error
//! of the connection drops it, the next caller makes a new one, and while Redis is away callers fail fast.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisError, RedisResult, ServerErrorKind, TlsCertificates,
};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::StoreError;
use super::script::Call;
use crate::config;

/// Longest wait for a connection and for its handshake, each.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for one answer. A commit takes tens of microseconds; beyond this Redis is as good as away.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// After a failed attempt to connect others fail at once for this long, instead of queueing up.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// How to reach Redis.
#[derive(Debug)]
pub struct Connector {
    client: Client,
}

impl Connector {
    pub fn new(config: &config::Redis) -> Result<Self, StoreError> {
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
        let client = match &config.tls_ca_file {
            None => Client::open(info).map_err(wrong)?,
            Some(path) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(read(path)?) };
                Client::build_with_tls(info, certificates).map_err(wrong)?
            }
        };
        Ok(Self { client })
    }

    /// A new connection of its own; `response_timeout` bounds each of its commands.
    pub async fn connect(&self, response_timeout: Duration) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout))
            .set_pipeline_buffer_size(1_024);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// A RESP3 connection whose pushes arrive at `sender`.
    pub async fn connect_pushed(
        &self,
        sender: tokio::sync::mpsc::UnboundedSender<redis::PushInfo>,
    ) -> RedisResult<MultiplexedConnection> {
        let info = self.client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_push_sender(sender);
        // a client made from the info again keeps its TLS roots: they are part of the address
        let client = Client::open(info.set_redis_settings(settings))?;
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(path).map_err(|error| StoreError::Config(format!("redis.tls_ca_file: {}: {error}", path.display())))
}

/// What can be sent.
#[derive(Clone, Copy)]
pub enum Request<'a> {
    Cmd(&'a Cmd),
    Pipeline(&'a Pipeline),
    Call(&'a Call<'a>),
}

impl<'a> From<&'a Cmd> for Request<'a> {
    fn from(cmd: &'a Cmd) -> Self {
        Request::Cmd(cmd)
    }
}

impl<'a> From<&'a Pipeline> for Request<'a> {
    fn from(pipeline: &'a Pipeline) -> Self {
        Request::Pipeline(pipeline)
    }
}

impl<'a> From<&'a Call<'a>> for Request<'a> {
    fn from(call: &'a Call<'a>) -> Self {
        Request::Call(call)
    }
}

/// One shared, multiplexed connection that heals.
#[derive(Debug)]
pub struct Link {
    connector: Connector,
    current: Mutex<Option<(u64, MultiplexedConnection)>>,
    connecting: tokio::sync::Mutex<Option<(Instant, RedisError)>>,
    generation: AtomicU64,
}

impl Link {
    pub fn new(connector: Connector) -> Self {
        Self {
            connector,
            current: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(None),
            generation: AtomicU64::new(0),
        }
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Counts connections made; a new one may be another server with other settings.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn current(&self) -> Option<(u64, MultiplexedConnection)> {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    async fn get(&self) -> Result<(u64, MultiplexedConnection), StoreError> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let mut failed = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current); // another caller made it while this one waited
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| at.elapsed() < RETRY_AFTER) {
            return Err(StoreError::from(error.clone()));
        }
        match self.connector.connect(RESPONSE_TIMEOUT).await {
            Ok(connection) => {
                *failed = None;
                let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
                let current = (generation, connection);
                *self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(current.clone());
                Ok(current)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(StoreError::from(error))
            }
        }
    }

    fn drop_broken(&self, generation: u64) {
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.as_ref().is_some_and(|(g, _)| *g == generation) {
            *current = None;
        }
    }

    /// Runs `request` once on the shared connection.
    pub async fn run<T: FromRedisValue>(&self, request: impl Into<Request<'_>>) -> Result<T, StoreError> {
        let (generation, mut connection) = self.get().await?;
        let reply = match request.into() {
            Request::Cmd(cmd) => cmd.query_async(&mut connection).await,
            Request::Pipeline(pipeline) => pipeline.query_async(&mut connection).await,
            Request::Call(call) => call.run(&mut connection).await,
        };
        let read = reply.and_then(|value| Ok(T::from_redis_value(value)?));
        read.map_err(|error| {
            if leaves(&error) {
                self.drop_broken(generation);
            }
            StoreError::from(error)
        })
    }

    /// Runs `request`, which is harmless to repeat, again if the connection turns out to be dead: it may have been
    /// for hours.
    pub async fn read<'a, T: FromRedisValue>(&self, request: impl Into<Request<'a>>) -> Result<T, StoreError> {
        let request = request.into();
        match self.run(request).await {
            Err(StoreError::Unavailable { kind: "connection", .. }) => self.run(request).await,
            other => other,
        }
    }
}

/// The connection is of no use any more: dead, stalled, or to a server that is not the master now.
pub(super) fn leaves(error: &RedisError) -> bool {
    error.is_timeout()
        || error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown | ServerErrorKind::BusyLoading)
        )
}
