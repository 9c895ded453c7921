//! Checks whether commits survive a restart of Redis, and whether writing requires a login.

use redis::Pipeline;

use super::query::{if_permitted, info_field};
use super::selftest::SelfTestResult;
use super::{RedisFault, Store, StoreError};

const PERSISTENCE: &str = "persistence";
const REPLAY: &str = "replay";
const LOGIN: &str = "default user";

/// The commands of scripts as the append-only file holds them: PEXPIRE becomes PEXPIREAT, an expired key is unlinked
/// first, and SELECT precedes the first write after a rewrite. `KEY` stands for a key of the namespace.
const REPLAYED: [(&str, &[&str]); 12] = [
    ("select", &["0"]),
    ("set", &["KEY", "1"]),
    ("del", &["KEY"]),
    ("unlink", &["KEY"]),
    ("pexpireat", &["KEY", "1"]),
    ("hset", &["KEY", "a", "1"]),
    ("hdel", &["KEY", "a"]),
    ("hincrby", &["KEY", "a", "1"]),
    ("zadd", &["KEY", "1", "a"]),
    ("zrem", &["KEY", "a"]),
    ("zremrangebyscore", &["KEY", "0", "0"]),
    ("xadd", &["KEY", "*", "a", "1"]),
];

/// What INFO reports about the server.
#[derive(Debug)]
struct ServerInfo {
    /// For example `Redis 7.0.15`.
    name: String,
    /// Whether a replay of scripts ignores the permissions of the user `default`: redis issue 14541 is fixed. Of the
    /// versions that were tested, these are the first with the fix; an older one may have it as well.
    replays_all: bool,
    append_only: bool,
}

impl ServerInfo {
    fn read(info: &str) -> Option<Self> {
        let field = |name: &str| info_field(info, name);
        // Valkey reports the Redis version that it is compatible with as redis_version
        let (name, version, fixed) = match field("valkey_version:") {
            Some(version) => ("Valkey", version, [9, 1, 2]),
            None => ("Redis", field("redis_version:")?, [8, 6, 3]),
        };
        let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
        Some(Self {
            name: format!("{name} {version}"),
            replays_all: numbers.as_slice() >= fixed.as_slice(),
            append_only: field("aof_enabled:")? == "1",
        })
    }
}

impl Store {
    /// Nothing here prevents the receiver from working, so the worst finding is a warning.
    pub(super) async fn durability(&self) -> Result<Vec<SelfTestResult>, StoreError> {
        let info = self.info(&["server", "persistence"]).await?;
        let server = info.as_deref().and_then(ServerInfo::read);
        let mut findings = vec![self.default_user().await, Self::persistence(server.as_ref())];
        if server.as_ref().is_none_or(|server| server.append_only) {
            findings.push(self.replay(server.as_ref()).await?);
        }
        Ok(findings)
    }

    /// Tries to write without a login: the answer shows whether the user `default` is on and may write, without ACL
    /// commands.
    async fn default_user(&self) -> SelfTestResult {
        let mut write = redis::cmd("SET");
        write.arg(self.keys.selftest("open")).arg("1").arg("PX").arg("1");
        let tried = match self.link.connector().connect_without_login().await {
            Ok(mut connection) => write.exec_async(&mut connection).await.map_err(StoreError::from),
            Err(error) => Err(error),
        };
        match tried {
            Ok(()) => SelfTestResult::warning(
                LOGIN,
                format!(
                    "is on and has no password: anyone who reaches Redis can write {} and so choose the active version. Turn \
                     it off (see config/users.acl)",
                    self.keys.pattern()
                ),
            ),
            // a user that is off, or has a password, is refused before its permissions are checked
            Err(StoreError::Unavailable { kind: RedisFault::NoPerm, .. }) => SelfTestResult::warning(
                LOGIN,
                format!(
                    "is on and has no password: anyone who reaches Redis can connect, although not write {}. Turn it off (see \
                     config/users.acl)",
                    self.keys.pattern()
                ),
            ),
            Err(StoreError::Unavailable { kind: RedisFault::Auth, .. }) => {
                SelfTestResult::ok(LOGIN, "a client that does not log in can do nothing")
            }
            Err(error) => SelfTestResult::ok(LOGIN, format!("unknown: {error}")),
        }
    }

    fn persistence(server: Option<&ServerInfo>) -> SelfTestResult {
        match server.map(|server| server.append_only) {
            None => {
                SelfTestResult::ok(PERSISTENCE, "unknown (INFO is not permitted): make sure that appendonly is yes")
            }
            Some(true) => SelfTestResult::ok(PERSISTENCE, "append-only file"),
            // only CONFIG GET shows whether there are snapshots at all
            Some(false) => SelfTestResult::warning(
                PERSISTENCE,
                "the append-only file is off: a crash of Redis loses all changes since the last snapshot or, without one, \
                 every prompt's version and incidents; set appendonly to yes (see config/redis.conf)",
            ),
        }
    }

    /// Checks whether a restart replays the whole append-only file. If EXEC checks permissions during the replay, it
    /// checks those of the user `default`, and drops commands that this user lacks.
    async fn replay(&self, server: Option<&ServerInfo>) -> Result<SelfTestResult, StoreError> {
        if server.is_some_and(|server| server.replays_all) {
            return Ok(SelfTestResult::ok(REPLAY, "a restart reads the whole append-only file"));
        }
        let name = server.map_or("this Redis", |server| &server.name);
        Ok(match self.default_user_lacks().await? {
            Some(lacking) if lacking.is_empty() => {
                SelfTestResult::ok(REPLAY, "a restart reads the whole append-only file")
            }
            Some(lacking) => SelfTestResult::warning(
                REPLAY,
                format!(
                    "at its next restart, {name} would lose all commits since the last rewrite of the append-only \
                     file (redis issue 14541), because the user default lacks {}. Grant it (see config/users.acl and \
                     docs/operations.md, Redis users)",
                    lacking.join(", ")
                ),
            ),
            None => SelfTestResult::warning(
                REPLAY,
                format!(
                    "unknown: at its next restart, {name} may lose all commits since the last rewrite of the \
                     append-only file (redis issue 14541). Grant +acl|dryrun to this user and look again, or see \
                     docs/operations.md, Redis users"
                ),
            ),
        })
    }

    /// The permissions that a replay needs and the user `default` lacks, in ACL syntax; `None` if this user may not
    /// ask.
    async fn default_user_lacks(&self) -> Result<Option<Vec<String>>, StoreError> {
        let key = self.keys.selftest("replay");
        let mut pipeline = Pipeline::new();
        for (name, arguments) in REPLAYED {
            let arguments = arguments.iter().map(|argument| if *argument == "KEY" { key.as_str() } else { *argument });
            pipeline.cmd("ACL").arg("DRYRUN").arg("default").arg(name).arg(arguments.collect::<Vec<_>>());
        }
        let Some(answers) = if_permitted(self.link.read::<Vec<String>>(&pipeline).await)? else { return Ok(None) };
        let refused = REPLAYED.iter().zip(&answers).filter(|(_, answer)| *answer != "OK");
        let mut lacking: Vec<String> = refused.map(|((name, _), answer)| self.lacks(name, answer)).collect();
        lacking.sort();
        lacking.dedup();
        Ok(Some(lacking))
    }
}

#[cfg(test)]
mod tests {
    use super::{REPLAYED, ServerInfo};

    fn server(version: &str) -> ServerInfo {
        let info = format!("# Server\r\n{version}\r\n# Persistence\r\naof_enabled:1\r\n");
        ServerInfo::read(&info).unwrap_or_else(|| panic!("{version}"))
    }

    #[test]
    fn versions_are_compared_by_number_and_by_server() {
        for (version, name, replays_all) in [
            ("redis_version:7.0.15", "Redis 7.0.15", false),
            ("redis_version:8.0.6", "Redis 8.0.6", false),
            ("redis_version:8.6.3", "Redis 8.6.3", true),
            ("redis_version:8.10.0", "Redis 8.10.0", true),
            ("redis_version:7.2.4\r\nvalkey_version:8.1.1", "Valkey 8.1.1", false),
            ("redis_version:7.2.4\r\nvalkey_version:9.1.2", "Valkey 9.1.2", true),
            ("redis_version:10.0", "Redis 10.0", true),
        ] {
            let server = server(version);
            assert_eq!((server.name.as_str(), server.replays_all), (name, replays_all));
        }
        assert!(ServerInfo::read("").is_none());
        assert!(ServerInfo::read("redis_version:7.0.15\r\n").is_none(), "whether there is a file is not said");
    }

    /// Checks the names of the granted commands; `tests/store/replay.rs` shows that they are those that are replayed.
    #[test]
    fn the_shipped_default_user_has_what_a_replay_needs_and_nothing_else() {
        let users = include_str!("../../config/users.acl");
        let default = users.lines().find(|line| line.starts_with("user default ")).expect("the user");
        let granted: Vec<&str> = default.split(' ').filter_map(|rule| rule.strip_prefix('+')).collect();
        assert_eq!(granted, REPLAYED.map(|(name, _)| name));
        for rule in ["off", "resetpass", "resetchannels", "~{prompts}:*", "-@all"] {
            assert!(default.split(' ').any(|other| other == rule), "{rule}");
        }
    }
}
