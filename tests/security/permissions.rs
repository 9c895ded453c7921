//! Prompt servers have exactly the permissions that the readers and the guide need: each permission is removed in turn.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use prompt_rollback::reader::{Mode, Reader, Settings};

use super::kit::program;
use crate::common::{Receiver, Redis, SOON, eventually};
use prompt_rollback_testkit::connect;

const USERS: &str = include_str!("../../config/users.acl");

/// The rules of a shipped user, without its name and password.
fn rules(user: &str) -> Vec<&'static str> {
    let line = USERS.lines().find(|line| line.starts_with(&format!("user {user} "))).expect("the user");
    line.split_whitespace().skip(2).filter(|rule| !rule.starts_with('#')).collect()
}

async fn set_user(redis: &Redis, name: &str, rules: &[&str]) -> Result<String> {
    let user = ["ACL", "SETUSER", name, "reset", "on", "nopass"];
    redis.cmd::<()>(&[&user[..], rules].concat()).await?;
    Ok(format!("redis://{name}:any@{}", redis.addr()))
}

/// The Rust reader has the version, without errors.
async fn read_by_rust(url: &str) -> Result<()> {
    let reader = Reader::start(url, ["p"], Settings::default())?;
    let prompt = reader.prompt("p").expect("followed");
    let known = eventually("a version or an error of Redis", SOON, async || {
        let refused = prompt.error().is_some_and(|error| !error.to_string().contains("has not answered yet"));
        (refused || prompt.active_version("u").is_some()).then_some(())
    });
    known.await?;
    ensure!(prompt.error().is_none(), "{:?}", prompt.error());
    ensure!(reader.mode() == Mode::Pushed, "{}", reader.mode());
    Ok(())
}

/// What readers ask the nodes of a cluster, which this server is not: that is the only error.
async fn redirected(url: &str) -> Result<()> {
    let mut redis = connect(&redis::Client::open(url)?).await?;
    for words in [&["ASKING"][..], &["CLUSTER", "SLOTS"]] {
        let mut command = redis::Cmd::new();
        let answer = command.arg(words).exec_async(&mut redis).await;
        ensure!(answer.is_err_and(|error| error.to_string().contains("cluster support disabled")), "{words:?}");
    }
    Ok(())
}

/// The guide's plain GET, and reading the content.
async fn read_text(url: &str) -> Result<()> {
    let mut redis = connect(&redis::Client::open(url)?).await?;
    let version: String = redis::cmd("GET").arg("{prompts}:active:p").query_async(&mut redis).await?;
    let _: String = redis::cmd("GET").arg(format!("{{prompts}}:content:p:{version}")).query_async(&mut redis).await?;
    Ok(())
}

/// The Python reader subscribes to the channel of changes, and checks its connection twice.
async fn read_by_python(url: &str) -> Result<()> {
    const FOLLOW: &str = "
import sys, time, prompt_reader
reader = prompt_reader.Reader(sys.argv[1], ['p'], refresh=0.5)
reader.wait_ready(5)
until = time.monotonic() + 1.5
while time.monotonic() < until and not reader.error('p'):
    time.sleep(0.02)
sys.exit(reader.error('p') or (reader.mode() != 'pushed' and reader.mode()))
";
    let has_modules = |program: &&str| {
        let probe = Command::new(program).args(["-c", "import redis"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_modules).expect("a python3 with redis-py");
    let mut command = Command::new(python);
    command.args(["-B", "-c", FOLLOW, url]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python"));
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn all_uses(url: &str) -> Result<()> {
    read_by_rust(url).await?;
    read_text(url).await?;
    redirected(url).await?;
    read_by_python(url).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_server_misses_each_permission_that_it_has() -> Result<()> {
    let redis = Redis::start()?;
    redis.cmd::<()>(&["SET", "{prompts}:active:p", "v1"]).await?;
    redis.cmd::<()>(&["SET", "{prompts}:content:p:v1", "Be kind."]).await?;
    redis.cmd::<()>(&["HSET", "{prompts}:routing:p", "v1", "60", "v2", "40"]).await?;
    let shipped = rules("prompt-server");
    all_uses(&set_user(&redis, "whole", &shipped).await?).await?;
    let taken: Vec<&str> = shipped.iter().copied().filter(|rule| rule.starts_with(['+', '&', '%', '~'])).collect();
    assert!(taken.len() > 8, "{taken:?}");
    let cases = taken.iter().enumerate().map(async |(at, rule)| {
        let less: Vec<&str> = shipped.iter().copied().filter(|other| other != rule).collect();
        let url = set_user(&redis, &format!("less-{at}"), &less).await?;
        ensure!(all_uses(&url).await.is_err(), "nothing needs {rule}");
        Ok(())
    });
    for result in futures_util::future::join_all(cases).await {
        result?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_and_check_name_a_permission_that_is_missing() -> Result<()> {
    let redis = Redis::start()?;
    let shipped = rules("receiver");
    let less: Vec<&str> = shipped.iter().copied().filter(|rule| *rule != "+zadd").collect();
    let url = set_user(&redis, "tested", &less).await?;
    let receiver = Receiver::start(&url, &[]).await?;
    receiver.wait_not_ready("(see config/users.acl): zadd", SOON).await?;
    let env = [("PROMPT_ROLLBACK_REDIS__URL", url.as_str())];
    let check = program(&["check", "--connect"], &env).await?;
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.code() == Some(1) && text.contains("(see config/users.acl): zadd"), "{text}");

    set_user(&redis, "tested", &shipped).await?;
    receiver.wait_ready(SOON).await?;
    let check = program(&["check", "--connect"], &env).await?;
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    Ok(())
}

/// All kinds of commands that change data, move it or run it.
const WRITES: [&str; 24] = [
    "SET {prompts}:active:p v2",
    "SETRANGE {prompts}:active:p 0 x",
    "APPEND {prompts}:active:p x",
    "GETSET {prompts}:active:p v2",
    "GETDEL {prompts}:active:p",
    "GETEX {prompts}:active:p EX 1",
    "MSET {prompts}:active:p v2",
    "DEL {prompts}:active:p",
    "UNLINK {prompts}:active:p",
    "EXPIRE {prompts}:active:p 1",
    "RENAME {prompts}:active:p {prompts}:active:q",
    "COPY {prompts}:active:p {prompts}:active:q",
    "RESTORE {prompts}:active:q 0 x",
    "HSET {prompts}:routing:p v1 100",
    "HDEL {prompts}:routing:p v1",
    "SADD {prompts}:active:q x",
    "XADD {prompts}:log:p * event rollback",
    "PUBLISH {prompts}:changes x",
    "SORT {prompts}:active:q STORE {prompts}:active:p",
    "EVAL return{redis.call('SET',KEYS[1],'v2')} 1 {prompts}:active:p",
    "FUNCTION FLUSH",
    "FLUSHALL",
    "MIGRATE 127.0.0.1 1 {prompts}:active:p 0 1",
    "REPLICAOF NO ONE",
];

#[tokio::test]
async fn a_prompt_server_can_write_nothing() -> Result<()> {
    let redis = Redis::start()?;
    redis.cmd::<()>(&["SET", "{prompts}:active:p", "v1"]).await?;
    redis.cmd::<()>(&["HSET", "{prompts}:routing:p", "v1", "60", "v2", "40"]).await?;
    let dump = async || -> Result<Vec<Vec<u8>>> {
        let mut dumps = Vec::new();
        let mut keys: Vec<String> = redis.cmd(&["KEYS", "*"]).await?;
        keys.sort();
        for key in &keys {
            dumps.push(redis.cmd(&["DUMP", key]).await?);
        }
        Ok(dumps)
    };
    let before = dump().await?;
    let client = redis::Client::open(redis.prompt_server_url())?;
    let mut connection = connect(&client).await?;
    for write in WRITES {
        for words in [write.to_owned(), format!("MULTI {write}")] {
            let mut commands = redis::pipe();
            commands.ignore_errors();
            if let Some(inside) = words.strip_prefix("MULTI ") {
                commands.cmd("MULTI").ignore().add_command(command(inside)).cmd("EXEC").ignore();
            } else {
                commands.add_command(command(&words));
            }
            let answers: Vec<redis::Value> = commands.query_async(&mut connection).await?;
            let refused =
                |value: &redis::Value| matches!(value, redis::Value::ServerError(error) if error.code() == "NOPERM");
            ensure!(answers.len() == 1 && answers.iter().all(refused), "{words}: {answers:?}");
        }
    }
    assert_eq!(dump().await?, before);
    Ok(())
}

/// Commands that no shipped user may run: reading the configuration and its passwords, learning what else this Redis
/// holds, reading or changing other data, changing users, stopping, slowing down or copying the server, running foreign
/// code.
const FORBIDDEN: [&str; 70] = [
    "CONFIG GET requirepass",
    "CONFIG GET masterauth",
    "CONFIG GET tls-key-file-pass",
    "CONFIG GET maxmemory-policy",
    "CONFIG GET *",
    "CONFIG SET dir /tmp",
    "CONFIG REWRITE",
    "CONFIG RESETSTAT",
    "ACL LIST",
    "ACL USERS",
    "ACL GETUSER receiver",
    "ACL SETUSER mallory on nopass allkeys +@all",
    "ACL DELUSER prompt-server",
    "ACL LOAD",
    "ACL SAVE",
    "ACL LOG",
    "KEYS *",
    "KEYS {prompts}:*",
    "RANDOMKEY",
    "DBSIZE",
    "SWAPDB 0 1",
    "MOVE {prompts}:active:p 1",
    "COPY {prompts}:active:p {prompts}:active:q",
    "RENAME {prompts}:active:p {prompts}:active:q",
    "DUMP {prompts}:active:p",
    "RESTORE {prompts}:active:q 0 x",
    "MIGRATE 127.0.0.1 1 {prompts}:active:p 0 1",
    "SORT {prompts}:active:p",
    "OBJECT ENCODING {prompts}:active:p",
    "MEMORY USAGE {prompts}:active:p",
    "GET app:session",
    "GET {other}:active:p",
    "SET {other}:active:p v1",
    "DEL app:session",
    "HGETALL {other}:state:p",
    "APPEND {prompts}:active:p x",
    "SETRANGE {prompts}:active:p 0 x",
    "GETDEL {prompts}:active:p",
    "PERSIST {prompts}:active:p",
    "LPUSH {prompts}:queue x",
    "SADD {prompts}:set x",
    "XTRIM {prompts}:log:p MAXLEN 0",
    "XDEL {prompts}:log:p 0-1",
    "FLUSHALL",
    "FLUSHDB",
    "EVAL return(1) 0",
    "EVAL_RO return(1) 0",
    "FUNCTION LOAD x",
    "FUNCTION FLUSH",
    "FUNCTION LIST",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "CLIENT NO-EVICT on",
    "MODULE LIST",
    "PUBLISH {other}:changes x",
    "PSUBSCRIBE *",
    "SUBSCRIBE {other}:changes",
    "MONITOR",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1000",
    "SLOWLOG GET",
    "LATENCY LATEST",
    "LATENCY RESET",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "SHUTDOWN NOSAVE",
    "REPLICAOF NO ONE",
    "FAILOVER",
];

#[tokio::test]
async fn none_of_the_users_that_ship_may_do_what_it_has_no_need_of() -> Result<()> {
    let redis = Redis::start()?;
    redis.cmd::<()>(&["SET", "{prompts}:active:p", "v1"]).await?;
    redis.cmd::<()>(&["SET", "app:session", "theirs"]).await?;
    for url in [redis.receiver_url(), redis.prompt_server_url()] {
        let mut connection = connect(&redis::Client::open(url.as_str())?).await?;
        for words in FORBIDDEN.into_iter().chain(["SELECT 1"]) {
            let answer = command(words).query_async::<redis::Value>(&mut connection).await;
            let refused = answer.as_ref().is_err_and(|error| error.code() == Some("NOPERM"));
            ensure!(refused, "{url}: {words}: {answer:?}");
        }
    }
    // no one can log in as `default`; a restart replays with its permissions
    for words in FORBIDDEN {
        let dry: String =
            redis.cmd(&[&["ACL", "DRYRUN", "default"][..], &words.split(' ').collect::<Vec<_>>()].concat()).await?;
        ensure!(dry.contains("no permissions"), "default: {words}: {dry}");
    }
    let stranger = connect(&redis::Client::open(format!("redis://{}", redis.addr()))?).await;
    if let Ok(mut stranger) = stranger {
        let answer = command("GET {prompts}:active:p").query_async::<redis::Value>(&mut stranger).await;
        ensure!(answer.is_err_and(|error| error.code() == Some("NOAUTH")), "without a login");
    }
    let left: (String, String) =
        (redis.cmd(&["GET", "{prompts}:active:p"]).await?, redis.cmd(&["GET", "app:session"]).await?);
    assert_eq!(left, ("v1".to_owned(), "theirs".to_owned()));
    Ok(())
}

/// Redis cannot limit CLIENT TRACKING to keys: docs/security.md says so, and what to do about it.
#[tokio::test]
async fn a_prompt_server_without_tracking_reads_by_polling() -> Result<()> {
    let redis = Redis::start()?;
    redis.cmd::<()>(&["SET", "{prompts}:active:p", "v1"]).await?;
    let less: Vec<&str> = rules("prompt-server").into_iter().filter(|rule| *rule != "+client|tracking").collect();
    let url = set_user(&redis, "blind", &less).await?;
    let reader = Reader::start(url.as_str(), ["p"], Settings::default())?;
    let prompt = reader.prompt("p").expect("followed");
    eventually("a version", SOON, async || prompt.active_version("u").filter(|version| &**version == "v1").map(drop))
        .await?;
    assert_eq!(reader.mode(), Mode::Polling);
    Ok(())
}

fn command(words: &str) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    command.arg(words.split(' ').collect::<Vec<_>>());
    command
}
