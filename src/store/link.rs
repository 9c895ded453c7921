//! Connections to Redis that reconnect.
//!
//! The client library neither reconnects nor abandons a socket that accepts and never answers. Here, a connection error
//! drops the connection and the next caller opens a new one; while Redis is unreachable, callers fail fast.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connect::{Connected, Connector, RESPONSE_TIMEOUT};
use super::error::{RedisFault, StoreError};
use super::script::Call;

/// After a failed attempt to connect, other callers fail at once for this time, instead of queueing.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A request that can be sent.
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

/// Reads the files of the config again, and completes when a new login is in force.
pub struct LoginReader(Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>);

impl LoginReader {
    pub fn new(read: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self(Box::new(read))
    }
}

impl fmt::Debug for LoginReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginReader").finish_non_exhaustive()
    }
}

/// A shared, multiplexed connection that reconnects.
#[derive(Debug)]
pub struct Link {
    connector: watch::Sender<Arc<Connector>>,
    current: Mutex<Option<(u64, Connected)>>,
    connecting: tokio::sync::Mutex<Option<(Instant, StoreError)>>,
    generation: AtomicU64,
    login: OnceLock<LoginReader>,
}

impl Link {
    pub fn new(connector: Arc<Connector>) -> Self {
        Self {
            connector: watch::Sender::new(connector),
            current: Mutex::new(None),
            connecting: tokio::sync::Mutex::new(None),
            generation: AtomicU64::new(0),
            login: OnceLock::new(),
        }
    }

    /// Sets how the login is read again when Redis refuses it.
    pub fn read_login_by(&self, reader: LoginReader) {
        let _ = self.login.set(reader); // the first one stays
    }

    /// Opens a connection. If Redis refuses the login, a replaced password is read and tried at once: a password that
    /// another program renews may have expired just now.
    async fn open(&self) -> Result<Connected, StoreError> {
        let connector = self.connector();
        let opened = connector.connect(RESPONSE_TIMEOUT).await;
        match &opened {
            Err(error) if error.refuses_login() && self.has_new_login(&connector).await => {
                self.connector().connect(RESPONSE_TIMEOUT).await
            }
            _ => opened,
        }
    }

    /// Reads the login again, and returns whether it differs from that of `connector`.
    async fn has_new_login(&self, connector: &Arc<Connector>) -> bool {
        let Some(login) = self.login.get() else { return false };
        login.0().await;
        !Arc::ptr_eq(&self.connector(), connector)
    }

    pub fn connector(&self) -> Arc<Connector> {
        Arc::clone(&self.connector.borrow())
    }

    /// The connector, whenever it is replaced.
    pub fn connectors(&self) -> watch::Receiver<Arc<Connector>> {
        self.connector.subscribe()
    }

    /// Uses `connector` for new connections; existing ones stay.
    pub fn connect_by(&self, connector: &Arc<Connector>) {
        self.connector.send_if_modified(|current| {
            let another = !Arc::ptr_eq(current, connector);
            current.clone_from(connector);
            another
        });
    }

    /// Counts the connections opened. A new one may lead to another server with other settings.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The current connection, unless it leads to a replaced master.
    fn current(&self) -> Option<(u64, Connected)> {
        let current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        current.filter(|(_, connected)| self.connector.borrow().is_current(&connected.to))
    }

    async fn get(&self) -> Result<(u64, Connected), StoreError> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let mut failed = self.connecting.lock().await;
        if let Some(current) = self.current() {
            return Ok(current); // another caller opened it while this one waited
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| at.elapsed() < RETRY_AFTER) {
            return Err(error.clone());
        }
        match self.open().await {
            Ok(connected) => {
                *failed = None;
                let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
                let current = (generation, connected);
                *self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(current.clone());
                Ok(current)
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Opens a connection, unless there is one.
    pub async fn connect(&self) -> Result<(), StoreError> {
        self.get().await.map(drop)
    }

    /// Where the current connection leads to.
    pub async fn master(&self) -> Result<Arc<str>, StoreError> {
        self.get().await.map(|(_, connected)| connected.to)
    }

    fn drop_broken(&self, generation: u64) {
        let mut current = self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if current.as_ref().is_some_and(|(g, _)| *g == generation) {
            *current = None;
        }
    }

    /// Runs `request` once on the shared connection; again elsewhere if it was redirected, because then it did not run.
    pub async fn run<'a, T: FromRedisValue>(&self, request: impl Into<Request<'a>>) -> Result<T, StoreError> {
        let request = request.into();
        let connector = self.connector();
        match self.try_run(request).await {
            Err(StoreError::Unavailable { kind: RedisFault::Moved, .. }) => self.try_run(request).await,
            // a server that wants a login since a moment ago says so to a command, which did not run either
            Err(StoreError::Unavailable { kind: RedisFault::Auth, .. }) if self.has_new_login(&connector).await => {
                self.try_run(request).await
            }
            other => other,
        }
    }

    async fn try_run<T: FromRedisValue>(&self, request: Request<'_>) -> Result<T, StoreError> {
        let (generation, Connected { mut connection, .. }) = self.get().await?;
        let reply = match request {
            Request::Cmd(cmd) => cmd.query_async(&mut connection).await,
            Request::Pipeline(pipeline) => pipeline.query_async(&mut connection).await,
            Request::Call(call) => call.run(&mut connection).await,
        };
        let read = reply.and_then(|value| Ok(T::from_redis_value(value)?));
        read.map_err(|error| {
            if self.connector.borrow().ends(&error) {
                self.drop_broken(generation);
            }
            StoreError::from(error)
        })
    }

    /// Runs `request`, which must be harmless to repeat, again if the connection turns out to be dead, perhaps for
    /// hours.
    pub async fn read<'a, T: FromRedisValue>(&self, request: impl Into<Request<'a>>) -> Result<T, StoreError> {
        let request = request.into();
        match self.run(request).await {
            Err(StoreError::Unavailable { kind: RedisFault::Connection, .. }) => self.run(request).await,
            other => other,
        }
    }

    /// The answers to commands that read different keys. A key of the wrong type, or with a value that is not text, is
    /// [`StoreError::Broken`] by itself: it must not hide the others.
    pub async fn read_each<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
    ) -> Result<Vec<Result<T, StoreError>>, StoreError> {
        let answers: Vec<RedisResult<Value>> = match self.read::<Vec<Value>>(pipeline).await {
            Err(StoreError::Broken { .. }) => {
                let mut each = pipeline.clone();
                each.ignore_errors();
                self.read(&each).await?
            }
            all => all?.into_iter().map(Ok).collect(),
        };
        let not_text = |_| StoreError::Broken { key: "a key".to_owned(), detail: "holds no text".to_owned() };
        let answer = |answer: RedisResult<Value>| match answer.map_err(StoreError::from) {
            Ok(value) => Ok(T::from_redis_value(value).map_err(not_text)),
            Err(error @ StoreError::Unavailable { .. }) => Err(error),
            Err(broken) => Ok(Err(broken)),
        };
        answers.into_iter().map(answer).collect()
    }
}
