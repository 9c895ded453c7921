//! Is this Redis fit for us? Asked at each new connection, and by `check --connect`.

use redis::{FromRedisValue, Pipeline, Value};

use super::{Store, StoreError};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub name: &'static str,
    pub ok: bool,
    /// What was found, or what to do about it.
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfTest {
    pub findings: Vec<Finding>,
}

impl SelfTest {
    /// Why this Redis must not be used.
    pub fn problem(&self) -> Option<String> {
        let bad: Vec<_> = self.findings.iter().filter(|f| !f.ok).map(|f| format!("{}: {}", f.name, f.detail)).collect();
        (!bad.is_empty()).then(|| bad.join("; "))
    }
}

impl Store {
    /// Proves on scratch keys that every command is permitted and that nothing is evicted.
    pub async fn selftest(&self) -> Result<SelfTest, StoreError> {
        let denied = self.denied().await?;
        let permissions = if denied.is_empty() {
            Finding { name: "permissions", ok: true, detail: "all that is needed is permitted".to_owned() }
        } else {
            let detail = format!("not permitted to this user (see config/users.acl): {}", denied.join(", "));
            Finding { name: "permissions", ok: false, detail }
        };
        let eviction = match self.eviction_policy().await? {
            Some(policy) if policy == "noeviction" => Finding { name: "maxmemory-policy", ok: true, detail: policy },
            Some(policy) => Finding {
                name: "maxmemory-policy",
                ok: false,
                detail: format!("is {policy}, which may evict the active key: set it to noeviction"),
            },
            None => Finding {
                name: "maxmemory-policy",
                ok: true,
                detail: "unknown (CONFIG GET is not permitted): make sure that it is noeviction".to_owned(),
            },
        };
        Ok(SelfTest { findings: vec![permissions, eviction] })
    }

    /// Commands, keys and channels that this user lacks, as an ACL writes them.
    async fn denied(&self) -> Result<Vec<String>, StoreError> {
        match self.link.connect().await {
            // to find the master; all the rest is not known then
            Err(StoreError::Unavailable { kind: "noperm", message }) => {
                return Ok(vec![quoted(&message).map_or(message.clone(), str::to_owned)]);
            }
            other => other?,
        }
        let scratch = ["string", "hash", "zset", "stream"].map(|what| self.keys.selftest(what));
        let mut call = self.scripts.selftest.call(&scratch);
        call.cmd.arg(self.keys.changes());
        let scripted = match self.link.read(&call).await {
            Ok(reply) => Vec::<String>::from_redis_value(reply).map_err(|_| StoreError::unexpected("the self-test"))?,
            Err(StoreError::Unavailable { kind: "noperm", message }) => {
                vec![quoted(&message).unwrap_or("evalsha").to_owned(), message]
            }
            Err(error) => return Err(error),
        };
        let mut denied: Vec<String> = scripted.chunks_exact(2).map(|pair| self.lacks(&pair[0], &pair[1])).collect();

        // what is not sent from scripts; one at a time, so that each is named
        let [string, hash, zset, stream] = scratch;
        let plain: [(&str, Vec<&str>); 14] = [
            ("get", vec![&string]),
            ("set", vec![&string, "1", "PX", "1"]),
            ("hget", vec![&hash, "a"]),
            ("hset", vec![&hash, "a", "1"]),
            ("hdel", vec![&hash, "a"]),
            ("hgetall", vec![&hash]),
            ("zrange", vec![&zset, "0", "0"]),
            ("zcard", vec![&zset]),
            ("xrevrange", vec![&stream, "+", "-", "COUNT", "1"]),
            ("scan", vec!["0", "MATCH", &string, "COUNT", "1"]),
            ("wait", vec!["0", "1"]),
            ("ping", vec![]),
            // sent only when Redis has forgotten the scripts: found out now rather than then
            ("script|load", vec!["return 1"]),
            ("client|tracking", vec!["OFF"]),
        ];
        for (name, arguments) in plain {
            let mut pipeline = Pipeline::new();
            pipeline.cmd(name.split('|').next().unwrap_or(name));
            pipeline.arg(name.split('|').nth(1)).arg(arguments).ignore();
            match self.link.read::<Value>(&pipeline).await.map(drop) {
                Err(StoreError::Unavailable { kind: "noperm", message }) => denied.push(self.lacks(name, &message)),
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        denied.extend(self.link.connector().denied().await);
        denied.sort();
        denied.dedup();
        Ok(denied)
    }

    /// What was denied when `command` was: itself, or what it is about.
    fn lacks(&self, command: &str, why: &str) -> String {
        if why.contains(" channel") {
            format!("&{}", self.keys.changes())
        } else if why.contains(" key") {
            format!("~{}", self.keys.pattern())
        } else {
            command.to_lowercase()
        }
    }
}

/// The command that an ACL's refusal names: `… to run the 'script|load' command`.
fn quoted(message: &str) -> Option<&str> {
    message.split('\'').nth(1)
}
