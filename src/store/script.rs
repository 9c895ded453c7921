//! Lua scripts, called by hash.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, ServerErrorKind, Value};

/// The scripts, hashed once.
#[derive(Debug)]
pub struct Scripts {
    pub load: LuaScript,
    pub commit: LuaScript,
    pub outside: LuaScript,
    pub broken: LuaScript,
    pub claim: LuaScript,
    pub finish: LuaScript,
    pub selftest: LuaScript,
    pub sync: LuaScript,
    pub drill: LuaScript,
    pub outage: LuaScript,
    pub members: LuaScript,
    pub rate_limit: LuaScript,
}

#[derive(Debug)]
pub struct LuaScript {
    code: &'static str,
    hash: String,
}

impl LuaScript {
    fn new(code: &'static str) -> Self {
        Self { code, hash: Script::new(code).get_hash().to_owned() }
    }

    pub fn call(&self, keys: &[String]) -> Call<'_> {
        let mut call = self.sized(keys.len(), 8, 512);
        call.cmd.arg(keys);
        call
    }

    /// A call that takes `keys` keys first, with capacity for `args` more arguments and for `bytes` in total.
    pub fn sized(&self, keys: usize, args: usize, bytes: usize) -> Call<'_> {
        let mut cmd = Cmd::with_capacity(3 + keys + args, bytes);
        cmd.arg("EVALSHA").arg(&self.hash).arg(keys);
        Call { source: self, cmd }
    }

    /// A call of a plain command, for code that takes calls only.
    pub fn plain(&self, cmd: Cmd) -> Call<'_> {
        Call { source: self, cmd }
    }

    async fn load(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        redis::cmd("SCRIPT").arg("LOAD").arg(self.code).exec_async(connection).await
    }
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            load: LuaScript::new(include_str!("load.lua")),
            commit: LuaScript::new(include_str!("commit.lua")),
            outside: LuaScript::new(include_str!("outside.lua")),
            broken: LuaScript::new(include_str!("broken.lua")),
            claim: LuaScript::new(include_str!("claim.lua")),
            finish: LuaScript::new(include_str!("finish.lua")),
            selftest: LuaScript::new(include_str!("selftest.lua")),
            sync: LuaScript::new(include_str!("sync.lua")),
            drill: LuaScript::new(include_str!("drill.lua")),
            outage: LuaScript::new(include_str!("outage.lua")),
            members: LuaScript::new(include_str!("members.lua")),
            rate_limit: LuaScript::new(include_str!("rate_limit.lua")),
        }
    }
}

impl Default for Scripts {
    fn default() -> Self {
        Self::new()
    }
}

/// A call of a script.
#[derive(Debug)]
pub struct Call<'a> {
    source: &'a LuaScript,
    pub cmd: Cmd,
}

impl Call<'_> {
    /// Runs the script. A server that does not know it, because it restarted, gets it first. Safe for every script:
    /// reads change nothing, and a commit finds its own id.
    pub async fn run(&self, connection: &mut MultiplexedConnection) -> RedisResult<Value> {
        match self.cmd.query_async(connection).await {
            Err(error) if is_unknown(&error) => {
                self.source.load(connection).await?;
                self.cmd.query_async(connection).await
            }
            other => other,
        }
    }

    /// Runs the script, then waits on the same connection until `replicas` have the write, at most `timeout_ms`.
    pub async fn run_and_wait(
        &self,
        connection: &mut MultiplexedConnection,
        replicas: u32,
        timeout_ms: u64,
    ) -> RedisResult<(Value, u32)> {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(self.cmd.clone());
        pipeline.cmd("WAIT").arg(replicas).arg(timeout_ms);
        match pipeline.query_async(connection).await {
            Err(error) if is_unknown(&error) => {
                self.source.load(connection).await?;
                pipeline.query_async(connection).await
            }
            other => other,
        }
    }
}

fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) || error.code() == Some("NOSCRIPT")
}
