//! The self-test: whether this Redis is usable. Run for each new connection, and by `check --connect`.

use redis::{FromRedisValue, Pipeline, Value};

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

const PERMISSIONS: &str = "permissions";
const EVICTION: &str = "maxmemory-policy";
const DISCOVERY: &str = "unknown prompts";

impl Store {
    /// Tests on scratch keys whether every command is permitted, and whether data can get lost or anyone may write.
    pub async fn selftest(&self) -> Result<SelfTest, StoreError> {
        let denied = self.denied().await?;
        let permissions = if denied.is_empty() {
            SelfTestResult::ok(PERMISSIONS, "all required commands are permitted")
        } else {
            let detail = format!("not permitted to this user (see config/users.acl): {}", denied.join(", "));
            SelfTestResult::problem(PERMISSIONS, detail)
        };
        let memory = self.info(&["memory"]).await?;
        // from INFO, because a user with CONFIG GET may read passwords
        let eviction = match memory.as_deref().and_then(|info| info_field(info, "maxmemory_policy:")) {
            Some("noeviction") => SelfTestResult::ok(EVICTION, "noeviction"),
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

    /// Commands, keys and channels that this user lacks, in ACL syntax.
    async fn denied(&self) -> Result<Vec<String>, StoreError> {
        match self.link.connect().await {
            // refused while looking up the master; nothing else is known then
            Err(StoreError::Unavailable { kind: RedisFault::NoPerm, message }) => {
                return Ok(vec![quoted(&message).map_or(message.clone(), str::to_owned)]);
            }
            other => other?,
        }
        let scratch = ["string", "hash", "zset", "stream"].map(|what| self.keys.selftest(what));
        let mut call = self.scripts.selftest.call(&scratch);
        call.cmd.arg(self.keys.changes());
        let scripted = match self.link.read(&call).await {
            Ok(reply) => Vec::<String>::from_redis_value(reply).map_err(|_| StoreError::unexpected("the self-test"))?,
            Err(StoreError::Unavailable { kind: RedisFault::NoPerm, message }) => {
                vec![quoted(&message).unwrap_or("evalsha").to_owned(), message]
            }
            Err(error) => return Err(error),
        };
        let mut denied: Vec<String> = scripted.chunks_exact(2).map(|pair| self.lacks(&pair[0], &pair[1])).collect();

        // commands that scripts do not send; one at a time, so that each is named
        let [string, hash, zset, stream] = scratch;
        let plain: [(&str, Vec<&str>); 13] = [
            ("get", vec![&string]),
            ("set", vec![&string, "1", "PX", "1"]),
            ("hget", vec![&hash, "a"]),
            ("hset", vec![&hash, "a", "1"]),
            ("hdel", vec![&hash, "a"]),
            ("hgetall", vec![&hash]),
            ("zrange", vec![&zset, "0", "0"]),
            ("zcard", vec![&zset]),
            ("xrevrange", vec![&stream, "+", "-", "COUNT", "1"]),
            ("wait", vec!["0", "1"]),
            ("ping", vec![]),
            // used only after Redis has lost the scripts: test it now
            ("script|load", vec!["return 1"]),
            ("client|tracking", vec!["OFF"]),
        ];
        for (name, arguments) in plain {
            let mut pipeline = Pipeline::new();
            pipeline.cmd(name.split('|').next().unwrap_or(name));
            pipeline.arg(name.split('|').nth(1)).arg(arguments).ignore();
            match self.link.read::<Value>(&pipeline).await.map(drop) {
                Err(StoreError::Unavailable { kind: RedisFault::NoPerm, message }) => {
                    denied.push(self.lacks(name, &message))
                }
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        denied.extend(self.link.connector().denied().await);
        denied.sort();
        denied.dedup();
        Ok(denied)
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

/// The command in an ACL error: `… to run the 'script|load' command`.
fn quoted(message: &str) -> Option<&str> {
    message.split('\'').nth(1)
}
