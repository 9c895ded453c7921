//! Prompt servers may do what the readers and the guide need, and nothing else: each permission is taken away in turn.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use prompt_rollback::reader::{Reader, Settings};

use crate::common::{Receiver, Redis, SOON, eventually};
use crate::kit::program;

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

/// The reader in Rust has the version, and nothing to complain about.
async fn read_by_rust(url: &str) -> Result<()> {
    let reader = Reader::start(url, ["p"], Settings::default())?;
    let prompt = reader.prompt("p").expect("followed");
    let known = eventually("a version or an error", SOON, async || {
        (prompt.active_version("u").is_some() || prompt.error().is_some()).then_some(())
    });
    known.await?;
    ensure!(prompt.error().is_none(), "{:?}", prompt.error());
    Ok(())
}

/// What the guide calls a plain GET, and the text that it leads to.
async fn read_text(url: &str) -> Result<()> {
    let mut redis = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let version: String = redis::cmd("GET").arg("{prompts}:active:p").query_async(&mut redis).await?;
    let _: String = redis::cmd("GET").arg(format!("{{prompts}}:content:p:{version}")).query_async(&mut redis).await?;
    Ok(())
}

/// The reader in Python listens to the channel of changes, and finds its other end alive, twice.
async fn read_by_python(url: &str) -> Result<()> {
    const FOLLOW: &str = "
import sys, time, prompt_reader
reader = prompt_reader.Reader(sys.argv[1], ['p'], refresh=0.5)
reader.wait_ready(5)
until = time.monotonic() + 1.5
while time.monotonic() < until and not reader.error('p'):
    time.sleep(0.02)
sys.exit(reader.error('p'))
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
async fn a_receiver_that_lacks_a_permission_is_not_ready_and_says_which_as_does_check() -> Result<()> {
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
