//! Unusable configs: exit 2, and one line with the place, the value and what was expected.

use anyhow::{Context, Result};
use prompt_rollback_testkit::{Receiver, ReceiverBuilder, Redis, Wait, eventually};

use crate::common::SOON;

fn receiver() -> ReceiverBuilder {
    Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback")).wait(Wait::Nothing)
}

/// Exit code and output of a start that is expected to fail.
fn refused(builder: ReceiverBuilder) -> Result<(Option<i32>, String)> {
    let mut receiver = builder.start()?;
    let status = receiver.process().wait()?;
    Ok((status.code(), receiver.log()))
}

#[test]
fn a_wrong_config_exits_2_and_names_file_key_and_expectation() -> Result<()> {
    let file = "prompt-rollback.toml";
    let cases: [(&str, &[&str]); 12] = [
        ("[server]\nlisten_on = \"x\"", &[file, "server.listen_on"]),
        ("[serve]\nlisten = \"127.0.0.1:0\"", &[file, "serve"]),
        ("[server]\nmax_body_bytes = \"lots\"", &[file, "server.max_body_bytes", "\"lots\"", "a number of bytes"]),
        ("[registry]\nsoak = 5", &[file, "registry.soak", "a duration such as"]),
        ("[guards]\nmode = \"maybe\"", &[file, "guards.mode", "armed", "dry-run"]),
        ("[guards]\nmax_auto_rollbacks = -1", &[file, "guards.max_auto_rollbacks", "a whole number"]),
        ("[redis]\nurl = \"http://localhost\"", &[file, "redis.url", "redis://"]),
        ("[redis]\nnamespace = \"prompts\"", &[file, "redis.namespace", "{prompts}"]),
        (
            "[redis]\npassword_file = \"nowhere/secret\"",
            &[file, "redis.password_file", "nowhere/secret", "No such file"],
        ),
        ("[server]\napi_token_file = \".\"", &[file, "server.api_token_file", "directory"]),
        (
            "[redis]\nurl = \"rediss://localhost\"\ntls_ca_file = \"none.pem\"",
            &[file, "redis.tls_ca_file", "none.pem", "No such file"],
        ),
        ("[server\nlisten = 1", &[file, ":1: unclosed table"]),
    ];
    for (config, named) in cases {
        let (code, log) = refused(receiver().config(config))?;
        assert_eq!(code, Some(2), "{config}: {log}");
        for part in named {
            assert!(log.contains(part), "{config}: {part} is not named: {log}");
        }
        assert_eq!(log.matches("error: ").count(), 1, "{config}: nothing else is wrong: {log}");
    }
    Ok(())
}

#[test]
fn an_address_that_others_can_reach_needs_both_tokens() -> Result<()> {
    let open = "PROMPT_ROLLBACK_SERVER__LISTEN";
    for (set, missing) in [("webhook_token", "server.api_token"), ("api_token", "server.webhook_token")] {
        let config = format!("[server]\n{set} = \"s3cret\"\n");
        let (code, log) = refused(receiver().config(config).env(open, "0.0.0.0:0"))?;
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(missing) && log.contains("not a loopback address"), "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
    Ok(())
}

#[test]
fn all_that_is_wrong_is_said_at_once() -> Result<()> {
    let config = "[server]\nfoo = 1\n[guards]\ncooldown = \"soon\"\n";
    let (code, log) = refused(receiver().config(config).env("PROMPT_ROLLBACK_REGISTRY__SOAK", "x"))?;
    assert_eq!(code, Some(2));
    for part in ["server.foo", "guards.cooldown", "PROMPT_ROLLBACK_REGISTRY__SOAK"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    Ok(())
}

#[test]
fn an_address_that_is_taken_is_a_failure_and_no_misuse() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let (code, log) = refused(receiver().env("PROMPT_ROLLBACK_SERVER__LISTEN", &address))?;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(&address) && log.contains("in use"), "{log}");
    Ok(())
}

/// Problems of Redis are reported once, and the receiver works anyway.
#[tokio::test]
async fn findings_about_redis_are_logged_once_and_stop_nothing() -> Result<()> {
    let open = "user default on nopass ~* &* +@all";
    let redis = Redis::builder().acl(open).start()?;
    let receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.url())
        .start()?;
    let warnings = |of: &str| receiver.log().lines().filter(|line| line.contains("WARN") && line.contains(of)).count();
    let both = || {
        (
            warnings("redis default user: is on and has no password"),
            warnings("redis persistence: the append-only file is off"),
        )
    };
    assert_eq!(both(), (1, 1), "{}", receiver.log());
    // each new connection is tested again
    for kind in ["normal", "pubsub"] {
        redis.cmd::<()>(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await?;
    }
    let tries = async || -> Option<u64> {
        let stats: String = redis.cmd(&["INFO", "commandstats"]).await.ok()?;
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_scan:calls="))?;
        calls.split(',').next()?.parse().ok()
    };
    let before = tries().await.context("the self-test scans")?;
    eventually("another self-test", SOON, async || tries().await.filter(|now| *now > before).map(drop)).await?;
    assert_eq!(both(), (1, 1), "{}", receiver.log());
    Ok(())
}
