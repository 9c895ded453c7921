//! The self-test: whether this Redis is usable. Run for each new connection, and by `check --connect`.

use redis::{FromRedisValue, Value};

use super::query::info_field;
use super::{RedisFault, Store, StoreError};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Ok,
    /// The receiver works, but commits may get lost, or anyone may write.
    Warning,
    /// The receiver does not work, or must not.
    Problem,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTestResult {
    pub name: &'static str,
    pub level: Level,
    /// What was found, or how to fix it.
    pub detail: String,
}

impl SelfTestResult {
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, detail: detail.into() }
    }

    pub(super) fn warning(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Warning, detail: detail.into() }
    }

    fn problem(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, level: Level::Problem, detail: detail.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    pub findings: Vec<SelfTestResult>,
}

impl SelfTest {
    /// Why this Redis must not be used.
    pub fn problem(&self) -> Option<String> {
        let problems: Vec<_> = self.at(Level::Problem).collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// What should be fixed, although this Redis can be used.
    pub fn warnings(&self) -> Vec<String> {
        self.at(Level::Warning).collect()
    }

    fn at(&self, level: Level) -> impl Iterator<Item = String> {
        let found = self.findings.iter().filter(move |finding| finding.level == level);
        found.map(|finding| format!("{}: {}", finding.name, finding.detail))
    }
}

/// What Redis may evict if it evicts only keys that expire.
pub const EVICTED: &str = "when memory is full, Redis may evict closed incidents, measurements, drills, the progress \
                           of notifications and receipts of clicks, so that a message or event is sent twice or not \
                           at all; never versions, shares, content, logs or open incidents";

/// What the receiver needs and does not have, as ACL rules name it.
#[derive(Debug, Default)]
struct Lacking {
    /// This user may not do it.
    denied: Vec<String>,
    /// The server does not have it, or not for anyone.
    unknown: Vec<String>,
}

const PERMISSIONS: &str = "permissions";
const EVICTION: &str = "maxmemory-policy";
const DISCOVERY: &str = "unknown prompts";

impl Store {
    /// Tests on scratch keys whether every command is permitted, and whether data can get lost or anyone may write.
    pub async fn selftest(&self) -> Result<SelfTest, StoreError> {
        let Lacking { mut denied, mut unknown } = self.lacking().await?;
        let mut lacking = Vec::new();
        for (why, commands) in [
            ("this server does not have", &mut unknown),
            ("not permitted to this user (see config/users.acl)", &mut denied),
        ] {
            commands.sort();
            commands.dedup();
            if !commands.is_empty() {
                lacking.push(format!("{why}: {}", commands.join(", ")));
            }
        }
        let permissions = if lacking.is_empty() {
            SelfTestResult::ok(PERMISSIONS, "all required commands are permitted")
        } else {
            SelfTestResult::problem(PERMISSIONS, lacking.join("; "))
        };
        let memory = self.info(&["memory"]).await?;
        // from INFO, because a user with CONFIG GET may read passwords
        let eviction = match memory.as_deref().and_then(|info| info_field(info, "maxmemory_policy:")) {
            Some("noeviction") => SelfTestResult::ok(EVICTION, "noeviction"),
            Some(policy) if policy.starts_with("volatile-") => {
                SelfTestResult::warning(EVICTION, format!("is {policy}: {EVICTED}. With noeviction nothing is lost"))
            }
            Some(policy) => SelfTestResult::problem(
                EVICTION,
                format!("is {policy}, which may evict the active key: set it to noeviction"),
            ),
            None => SelfTestResult::ok(EVICTION, "unknown (INFO is not permitted): make sure that it is noeviction"),
        };
        let discovery = match self.scan_active(0).await? {
            Some(_) => "SCAN is permitted: prompts that were never registered are found by their keys",
            None => {
                "SCAN is not permitted: a prompt whose key is SET for the first time while no receiver is connected \
                 is noticed at its next change or alert"
            }
        };
        let mut findings = vec![permissions, eviction, SelfTestResult::ok(DISCOVERY, discovery)];
        findings.extend(self.durability().await?);
        Ok(SelfTest { findings })
    }

    /// The commands, keys and channels that are missing.
    async fn lacking(&self) -> Result<Lacking, StoreError> {
        let mut lacking = Lacking::default();
        // refused while looking up the master; nothing else is known then
        if let Err(error) = self.link.connect().await {
            return lacking.add(error, |message| quoted(message).unwrap_or(message).to_lowercase());
        }
        let scratch = ["string", "hash", "zset", "stream"].map(|what| self.keys.selftest(what));
        let mut call = self.scripts.selftest.call(&scratch);
        call.cmd.arg(self.keys.changes());
        match self.link.read(&call).await {
            Ok(reply) => {
                let scripted =
                    Vec::<String>::from_redis_value(reply).map_err(|_| StoreError::unexpected("the self-test"))?;
                for pair in scripted.chunks_exact(2) {
                    if is_unknown(&pair[1]) {
                        lacking.unknown.push(pair[0].to_lowercase());
                    } else {
                        lacking.denied.push(self.lacks(&pair[0], &pair[1]));
                    }
                }
            }
            Err(error) => {
                let named = |message: &str| self.lacks(quoted(message).unwrap_or("evalsha"), message);
                lacking = lacking.add(error, named)?;
            }
        }

        // commands that scripts do not send; one at a time, so that each is named
        let [string, hash, zset, stream] = scratch;
        let plain: [(&str, Vec<&str>); 12] = [
            ("get", vec![&string]),
            ("set", vec![&string, "1", "PX", "1"]),
            ("hget", vec![&hash, "a"]),
            ("hset", vec![&hash, "a", "1"]),
            ("hdel", vec![&hash, "a"]),
            ("hgetall", vec![&hash]),
            ("zrange", vec![&zset, "0", "0"]),
            ("zcard", vec![&zset]),
            ("xrevrange", vec![&stream, "+", "-", "COUNT", "1"]),
            ("ping", vec![]),
            // used only after Redis has lost the scripts: test it now
            ("script|load", vec!["return 1"]),
            ("client|tracking", vec!["OFF"]),
        ];
        let waits = self.replica_waits.is_some().then(|| ("wait", vec!["0", "1"]));
        for (name, arguments) in plain.into_iter().chain(waits) {
            let (first, second) = name.split_once('|').map_or((name, None), |(first, second)| (first, Some(second)));
            let mut command = redis::cmd(first);
            command.arg(second).arg(arguments);
            if let Err(error) = self.link.read::<Value>(&command).await {
                lacking = lacking.add(error, |message| self.lacks(name, message))?;
            }
        }
        lacking.denied.extend(self.link.connector().denied().await);
        Ok(lacking)
    }

    /// What is missing if `command` was denied: the command, or its key or channel.
    pub(super) fn lacks(&self, command: &str, why: &str) -> String {
        if why.contains(" channel") {
            format!("&{}", self.keys.changes())
        } else if why.contains(" key") {
            format!("~{}", self.keys.pattern())
        } else {
            command.to_lowercase()
        }
    }
}

impl Lacking {
    /// Notes what is missing, by this name, if that is why there is an error.
    fn add(mut self, error: StoreError, named: impl Fn(&str) -> String) -> Result<Self, StoreError> {
        match &error {
            StoreError::Unavailable { kind: RedisFault::NoPerm, message } => self.denied.push(named(message)),
            StoreError::Unavailable { message, .. } if is_unknown(message) => self.unknown.push(named(message)),
            _ => return Err(error),
        }
        Ok(self)
    }
}

/// Whether a server, or what is in front of it, says that it does not know a command: services remove or rename some.
fn is_unknown(message: &str) -> bool {
    let message = message.to_lowercase();
    ["unknown command", "unknown redis command", "unknown subcommand", "command is not allowed", "unsupported command"]
        .iter()
        .any(|says| message.contains(says))
}

/// The command in an ACL error: `… to run the 'script|load' command`.
fn quoted(message: &str) -> Option<&str> {
    message.split('\'').nth(1)
}
