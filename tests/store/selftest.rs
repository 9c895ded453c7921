//! The self-test names what is missing.

use anyhow::Result;
use prompt_rollback::store::{SelfTest, StoreError};

use crate::common::Redis;
use crate::kit::{Kit, critical};

const USERS: &str = include_str!("../../config/users.acl");
/// Permitted for what is optional: without them the receiver works, and says less.
const OPTIONAL: [&str; 3] = ["config|get", "info", "role"];
/// Permitted for clients and later versions; this receiver does not send them, or Redis permits them to all.
const UNUSED: [&str; 8] = ["auth", "client|id", "client|setname", "eval", "exists", "expire", "hello", "subscribe"];

/// The rules of the shipped receiver user, without its name and password.
fn shipped_rules() -> Vec<&'static str> {
    let line = USERS.lines().find(|line| line.starts_with("user receiver ")).expect("the receiver's user");
    line.split_whitespace().skip(2).filter(|rule| !rule.starts_with('#')).collect()
}

/// A store whose user may do what `rules` say.
async fn store_of(kit: &Kit, rules: &[&str]) -> Result<Kit> {
    let mut command = vec!["ACL", "SETUSER", "receiver", "reset", "nopass"];
    command.extend(rules);
    kit.cmd::<()>(&command).await?;
    let url = format!("redis://receiver:any@{}", kit.redis.addr());
    // a Redis of its own would take longer: this one is only a name here
    Kit::with(Redis::start()?, &url, &[])
}

async fn tested(kit: &Kit, rules: &[&str]) -> Result<Result<SelfTest, StoreError>> {
    Ok(store_of(kit, rules).await?.store.selftest().await)
}

#[tokio::test]
async fn the_shipped_user_may_do_everything_and_the_self_test_leaves_nothing_behind() -> Result<()> {
    let kit = Kit::on(Redis::builder().acl("").start()?)?;
    let receiver = store_of(&kit, &shipped_rules()).await?;
    let test = receiver.store.selftest().await?;
    assert_eq!(test.problem(), None);
    assert!(test.findings.iter().any(|f| f.name == "maxmemory-policy" && f.detail == "noeviction"), "{test:?}");
    let expired = crate::common::eventually("scratch keys gone", crate::common::SOON, async || {
        kit.dump().await.ok()?.is_empty().then_some(())
    });
    expired.await?;
    receiver.ship("p").await?;
    receiver.does("p", critical("p")).await?;
    receiver.store.watch().await?;
    assert_eq!(kit.cmd::<String>(&["GET", "{prompts}:active:p"]).await?, "v1");
    Ok(())
}

#[tokio::test]
async fn each_missing_permission_is_named() -> Result<()> {
    let kit = Kit::on(Redis::builder().acl("").start()?)?;
    let rules = shipped_rules();
    let commands: Vec<&str> = rules.iter().filter_map(|rule| rule.strip_prefix('+')).collect();
    assert!(commands.len() > 30, "{commands:?}");
    for command in commands {
        let without: Vec<&str> = rules.iter().copied().filter(|rule| rule.strip_prefix('+') != Some(command)).collect();
        let test = tested(&kit, &without).await?.unwrap_or_else(|error| panic!("{command}: {error}"));
        if OPTIONAL.contains(&command) || UNUSED.contains(&command) || command == "unsubscribe" {
            assert_eq!(test.problem(), None, "{command} is not needed");
            continue;
        }
        let problem = test.problem().unwrap_or_else(|| panic!("{command}: not missed"));
        let named = problem.split([' ', ',', '\'']).any(|word| word == command);
        assert!(named && problem.contains("config/users.acl"), "{command}: {problem}");
    }
    Ok(())
}

#[tokio::test]
async fn missing_keys_and_channels_are_named_too() -> Result<()> {
    let kit = Kit::on(Redis::builder().acl("").start()?)?;
    for (rule, named) in [("&{prompts}:*", "publish"), ("~{prompts}:*", "set")] {
        let without: Vec<&str> = shipped_rules().into_iter().filter(|r| *r != rule).collect();
        let problem = tested(&kit, &without).await??.problem().unwrap_or_default();
        assert!(problem.contains(named), "{rule}: {problem}");
    }
    Ok(())
}

#[tokio::test]
async fn a_redis_that_evicts_is_not_fit() -> Result<()> {
    let kit = Kit::start()?;
    for policy in ["allkeys-lru", "volatile-ttl"] {
        kit.cmd::<()>(&["CONFIG", "SET", "maxmemory-policy", policy]).await?;
        let problem = kit.store.selftest().await?.problem().expect("a problem");
        assert!(problem.contains("maxmemory-policy") && problem.contains(policy), "{problem}");
    }
    kit.cmd::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
    assert_eq!(kit.store.selftest().await?.problem(), None);
    Ok(())
}

#[tokio::test]
async fn where_config_may_not_be_read_the_policy_is_said_to_be_unknown() -> Result<()> {
    let kit = Kit::on(Redis::builder().acl("").start()?)?;
    let without: Vec<&str> = shipped_rules().into_iter().filter(|rule| *rule != "+config|get").collect();
    let test = tested(&kit, &without).await??;
    assert_eq!(test.problem(), None);
    let finding = test.findings.iter().find(|f| f.name == "maxmemory-policy").expect("looked at");
    assert!(finding.detail.starts_with("unknown"), "{}", finding.detail);
    Ok(())
}
