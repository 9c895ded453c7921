//! A real redis-server.

use crate::process::{Process, ProcessBuilder, retry};
use crate::{Dir, PATIENCE, Port, eventually, shipped, tls};
use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult};
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A user of a [`Redis`].
#[derive(Debug, Clone, Copy)]
pub struct User {
    pub name: &'static str,
    pub password: &'static str,
}

impl User {
    /// The URL of a Redis at `addr`, or of a proxy in front of one.
    pub fn url(self, addr: impl Display) -> String {
        format!("redis://{}:{}@{addr}", self.name, self.password)
    }
}

/// Options of a [`Redis`].
#[derive(Debug, Default, Clone)]
pub struct RedisBuilder {
    tls: bool,
    tls_files: Option<tls::Files>,
    sentinel: bool,
    unix: bool,
    appendonly: bool,
    acl: Option<String>,
    grants: String,
    namespace: Option<String>,
    base: Option<PathBuf>,
    conf: Vec<String>,
}

impl RedisBuilder {
    /// Listens with TLS too, on a second port, with a certificate signed by the authority in [`Redis::ca_file`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Listens on a unix socket too.
    pub fn unix_socket(mut self) -> Self {
        self.unix = true;
        self
    }

    /// Keeps its data over a restart: append-only file, synced after each command.
    pub fn appendonly(mut self) -> Self {
        self.appendonly = true;
        self
    }

    /// The text of an ACL file, instead of `config/users.acl`. [`Redis::ADMIN`] is added to it.
    pub fn acl(mut self, text: impl Into<String>) -> Self {
        self.acl = Some(text.into());
        self
    }

    /// Adds permissions for the receiver to the shipped ones, such as `+role`.
    pub fn receiver_may(mut self, rules: &str) -> Self {
        self.grants = format!("{} {rules}", self.grants);
        self
    }

    /// Binds the shipped users to this namespace instead of `{prompts}`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets a redis.conf to start from, instead of the testkit's defaults.
    pub(crate) fn base(mut self, file: PathBuf) -> Self {
        self.base = Some(file);
        self
    }

    /// Replicates `master`.
    pub fn replica_of(self, master: &Redis) -> Self {
        self.conf(format!("replicaof 127.0.0.1 {}", master.replication_port()))
    }

    /// Uses the certificate of `other`, and TLS only between servers.
    pub fn tls_as(mut self, other: &Redis) -> Self {
        self.tls_files = other.tls.as_ref().map(|(_, files)| files.clone());
        self.tls().conf("tls-replication yes")
    }

    /// Makes it a sentinel that watches `master` under `name`: `quorum` sentinels must find it down. It logs in as
    /// [`Redis::ADMIN`].
    pub fn sentinel(mut self, name: &str, master: &Redis, quorum: usize) -> Self {
        self.sentinel = true;
        let port = master.replication_port();
        let User { name: user, password } = Redis::ADMIN;
        self.conf(format!("sentinel monitor {name} 127.0.0.1 {port} {quorum}"))
            .conf(format!("sentinel auth-user {name} {user}\nsentinel auth-pass {name} {password}"))
    }

    /// Adds lines of redis.conf, which override the testkit's own.
    pub fn conf(mut self, lines: impl Into<String>) -> Self {
        self.conf.push(lines.into());
        self
    }

    /// Starts it and blocks until it answers.
    pub fn start(self) -> Result<Redis> {
        retry(|| self.try_start())
    }

    fn try_start(&self) -> Result<Redis> {
        let dir = Dir::new("redis")?;
        let port = Port::claim();
        let mut conf = match &self.base {
            Some(file) => vec![format!("include {}", file.display())],
            None => vec!["save \"\"".to_owned(), "maxmemory-policy noeviction".to_owned()],
        };
        conf.extend([
            "bind 127.0.0.1".to_owned(),
            format!("port {}", port.number()),
            format!("dir {}", dir.path().display()),
            "daemonize no".to_owned(),
            // a replica in a test need not wait for other replicas to share a snapshot
            "repl-diskless-sync-delay 0".to_owned(),
        ]);
        if self.appendonly {
            conf.extend(["appendonly yes".to_owned(), "appendfsync always".to_owned()]);
        }
        if self.unix {
            conf.push(format!("unixsocket {}", dir.path().join("redis.sock").display()));
        }
        let users = self.users()?;
        let has_users = users.is_some();
        if let Some(users) = users {
            conf.push(format!("aclfile {}", dir.write(ACL_FILE, with_admin(&users))?.display()));
        }
        if !self.sentinel {
            // any of them may become a replica
            let User { name, password } = Redis::ADMIN;
            conf.push(format!("masteruser {name}\nmasterauth {password}"));
        }
        let mut tls = None;
        if self.tls {
            let files = self.tls_files.clone().map_or_else(|| tls::generate(&dir), Ok)?;
            let port = Port::claim();
            conf.push(format!("tls-port {}", port.number()));
            conf.push(format!("tls-cert-file {}", files.cert.display()));
            conf.push(format!("tls-key-file {}", files.key.display()));
            conf.push(format!("tls-ca-cert-file {}", files.ca.display()));
            conf.push("tls-auth-clients no".to_owned());
            tls = Some((port, files));
        }
        conf.extend(self.conf.iter().cloned());
        let file = dir.write("redis.conf", conf.join("\n"))?;
        let mut command = ProcessBuilder::new(program(), dir.path()).arg(file);
        if self.sentinel {
            command = command.arg("--sentinel");
        }
        let process = start_ready(&command, port.number())?;
        let tls_only = self.conf.iter().any(|line| line == "tls-replication yes");
        Ok(Redis { process, command, port, tls, tls_only, has_users, unix: self.unix, dir })
    }

    /// The shipped users, unless others are given; a sentinel has none, because it needs others.
    fn users(&self) -> Result<Option<String>> {
        let mut users = match &self.acl {
            Some(text) => text.clone(),
            None if self.sentinel => return Ok(None),
            None => shipped::users(Redis::RECEIVER.password, Redis::PROMPT_SERVER.password)?,
        };
        if !self.grants.is_empty() {
            let of = |name| users.lines().find(|line| line.starts_with(&format!("user {name} "))).map(str::to_owned);
            let receiver = of(Redis::RECEIVER.name).context("the ACL file has no receiver")?;
            users = shipped::replace(&users, &receiver, &format!("{receiver}{}", self.grants))?;
        }
        if let Some(namespace) = &self.namespace {
            users = shipped::replace(&users, "{prompts}", namespace)?;
        }
        Ok(Some(users))
    }
}

const ACL_FILE: &str = "users.acl";

fn with_admin(users: &str) -> String {
    format!("{users}\nuser {} on nopass ~* &* +@all\n", Redis::ADMIN.name)
}

/// The server's program. `REDIS_SERVER` selects another one, such as Valkey.
fn program() -> OsString {
    std::env::var_os("REDIS_SERVER").filter(|name| !name.is_empty()).unwrap_or_else(|| "redis-server".into())
}

fn start_ready(command: &ProcessBuilder, port: u16) -> Result<Process> {
    command.spawn_until(|| is_ready(port))
}

/// Whether PING gets any answer but `LOADING`, which only logged-in clients get. Without users, the login is refused,
/// and PING is answered anyway.
fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let User { name, password } = Redis::ADMIN;
        stream.write_all(format!("AUTH {name} {password}\r\nPING\r\n").as_bytes())?;
        let mut answers = BufReader::new(stream).lines();
        answers.next().transpose()?;
        Ok(answers.next().transpose()?.is_some_and(|answer| !answer.starts_with("-LOADING")))
    };
    ask().unwrap_or(false)
}

/// A running redis-server, killed when dropped.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    command: ProcessBuilder,
    port: Port,
    tls: Option<(Port, tls::Files)>,
    tls_only: bool,
    has_users: bool,
    unix: bool,
    dir: Dir,
}

impl Redis {
    /// The receiver of `config/users.acl`, with exactly the permissions that a receiver needs.
    pub const RECEIVER: User = User { name: "receiver", password: "receiver" };
    /// The prompt servers of `config/users.acl`.
    pub const PROMPT_SERVER: User = User { name: "prompt-server", password: "prompt-server" };
    /// The testkit's own user, with all permissions.
    pub const ADMIN: User = User { name: "testkit", password: "any" };

    /// Starts a plain server: the users of `config/users.acl`, no persistence, TCP only.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// One with options.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:port`.
    pub fn addr(&self) -> String {
        self.port.addr()
    }

    /// `redis://127.0.0.1:port`, without a login: the shipped users permit nothing without one.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// As [`Redis::RECEIVER`].
    pub fn receiver_url(&self) -> String {
        Self::RECEIVER.url(self.addr())
    }

    /// As [`Redis::PROMPT_SERVER`].
    pub fn prompt_server_url(&self) -> String {
        Self::PROMPT_SERVER.url(self.addr())
    }

    /// As [`Redis::ADMIN`].
    pub fn admin_url(&self) -> String {
        if self.has_users { Self::ADMIN.url(self.addr()) } else { self.url() }
    }

    /// `redis+unix:///…/redis.sock`, without a login.
    ///
    /// # Panics
    /// Without [`RedisBuilder::unix_socket`].
    pub fn unix_url(&self) -> String {
        assert!(self.unix, "started without a unix socket");
        format!("redis+unix://{}", self.dir().join("redis.sock").display())
    }

    /// `rediss://127.0.0.1:port`, without a login.
    ///
    /// # Panics
    /// Without [`RedisBuilder::tls`].
    pub fn tls_url(&self) -> String {
        let (port, _) = self.tls.as_ref().expect("started without TLS");
        format!("rediss://{}", port.addr())
    }

    /// The certificate authority to trust, PEM.
    ///
    /// # Panics
    /// Without [`RedisBuilder::tls`].
    pub fn ca_file(&self) -> &Path {
        &self.tls.as_ref().expect("started without TLS").1.ca
    }

    /// A client's certificate and key that this authority signed, PEM.
    ///
    /// # Panics
    /// Without [`RedisBuilder::tls`].
    pub fn client_files(&self) -> (&Path, &Path) {
        let (_, files) = self.tls.as_ref().expect("started without TLS");
        (&files.client_cert, &files.client_key)
    }

    /// The port that replicas and sentinels use.
    fn replication_port(&self) -> u16 {
        self.tls.as_ref().filter(|_| self.tls_only).map_or(self.port(), |(port, _)| port.number())
    }

    /// Its directory, with redis.conf and its data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Shuts down cleanly (SIGTERM): the append-only file is complete.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate().map(drop)
    }

    /// SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// Starts it again, on the same port and in the same directory; stops it first if it is running.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = start_ready(&self.command, self.port())?;
        Ok(())
    }

    /// Replaces the ACL file; the next start reads it.
    pub fn set_users(&self, users: &str) -> Result<()> {
        self.dir.write(ACL_FILE, with_admin(users)).map(drop)
    }

    /// Sends SIGSTOP: it accepts connections, because the kernel does, but answers nothing.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// A connection as [`Redis::ADMIN`].
    pub async fn connection(&self) -> Result<MultiplexedConnection> {
        connect(&redis::Client::open(self.admin_url())?).await.context("connect to redis")
    }

    /// Runs one command on a new connection.
    pub async fn cmd<T: FromRedisValue>(&self, args: &[&str]) -> Result<T> {
        let mut command = redis::Cmd::new();
        command.arg(args);
        let result = command.query_async(&mut self.connection().await?).await;
        result.with_context(|| format!("redis: {}", args.join(" ")))
    }

    /// Waits until `count` replicas are online and have all of this master's writes.
    pub async fn wait_for_replicas(&self, count: usize) -> Result<()> {
        let what = format!("{count} replicas in sync with {}", self.addr());
        eventually(&what, PATIENCE, async || {
            let info: String = self.cmd(&["INFO", "replication"]).await.ok()?;
            let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
            let offset = format!("offset={},", field("master_repl_offset:")?);
            let synced =
                |line: &&str| line.starts_with("slave") && line.contains("state=online") && line.contains(&offset);
            (info.lines().filter(synced).count() >= count).then_some(())
        })
        .await
    }
}

/// A connection that waits longer than the crate's own limits, a second for the log-in and half a second for an answer: these
/// are too short on a machine that compiles at the same time.
pub async fn connect(client: &redis::Client) -> RedisResult<MultiplexedConnection> {
    let patient =
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&patient).await
}
