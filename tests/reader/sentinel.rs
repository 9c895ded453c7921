//! Readers that use real sentinels.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback::reader::Settings;
use prompt_rollback_testkit::readers::{Both, pushed, set};
use prompt_rollback_testkit::sentinels::{FAILOVER, NAME, Sentinels, sentinel};
use prompt_rollback_testkit::shipped;

use crate::common::{Redis, SOON, eventually};

fn settings(world: &Sentinels) -> Settings {
    let nodes = world.sentinels.iter().map(Redis::addr).collect();
    Settings { nodes, sentinel_master: Some(NAME.to_owned()), ..pushed() }
}

/// Connects with TLS, and trusts the authority of `ca`.
async fn by_tls(ca: &Path, settings: Settings) -> Result<Both> {
    let url = Redis::PROMPT_SERVER.url("elsewhere.invalid").replace("redis://", "rediss://");
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(std::fs::read(ca)?) };
    let client = redis::Client::build_with_tls(url.as_str(), certificates)?;
    let by_python = format!("{url}?ssl_ca_certs={}", ca.display());
    Both::start_at(client.get_connection_info().clone(), by_python, settings).await
}

async fn started(world: &Sentinels) -> Result<Both> {
    set(&world.servers[0], "v1").await?;
    let both = Both::start("elsewhere.invalid", settings(world)).await?;
    both.serve("v1").await?;
    world.servers[0].wait_for_replicas(world.servers.len() - 1).await?;
    Ok(both)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_is_left_for_the_new_one() -> Result<()> {
    let mut world = Sentinels::start(2).await?;
    let both = started(&world).await?;
    let before = world.servers[0].addr();
    world.servers[0].kill9();
    both.lose_contact().await?;
    let (master, _) = world.wait_failed_over(&before).await?;
    set(master, "v2").await?;
    both.serve("v2").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_replaced_while_it_runs_is_left() -> Result<()> {
    let world = Sentinels::start(1).await?;
    let both = started(&world).await?;
    let before = world.servers[0].addr();
    // sentinels cannot tell the old master, which keeps answering as a master
    let deaf = ["ACL", "SETUSER", Redis::ADMIN.name, "-replicaof", "-slaveof"];
    world.servers[0].cmd::<()>(&deaf).await?;
    world.sentinels[0].cmd::<()>(&["SENTINEL", "FAILOVER", NAME]).await?;
    let (master, _) = world.wait_failed_over(&before).await?;
    set(master, "v2").await?;
    both.serve("v2").await?;
    eventually("no reader is at the old one", SOON, async || {
        let clients: String = world.servers[0].cmd(&["CLIENT", "LIST"]).await.ok()?;
        (!clients.contains("user=prompt-server")).then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_is_left_and_not_gone_back_to() -> Result<()> {
    let world = Sentinels::start(1).await?;
    let both = started(&world).await?;
    let before = world.servers[0].addr();
    world.servers[0].pause()?;
    both.lose_contact().await?;
    let (master, _) = world.wait_failed_over(&before).await?;
    set(master, "v2").await?;
    both.serve("v2").await?;
    // it continues with its old data, and is told that it is a replica
    world.servers[0].resume()?;
    master.wait_for_replicas(1).await?;
    set(master, "v3").await?;
    both.serve("v3").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_is_enough_and_an_outdated_one_is_not_believed() -> Result<()> {
    let world = Sentinels::start(1).await?;
    world.servers[0].wait_for_replicas(1).await?;
    // it knows neither of the failover nor of the others
    let elsewhere = Redis::start()?;
    set(&elsewhere, "v0").await?;
    let behind = sentinel(Redis::builder(), &elsewhere).start()?;
    world.sentinels[0].cmd::<()>(&["SENTINEL", "FAILOVER", NAME]).await?;
    let before = world.servers[0].addr();
    let (master, _) = world.wait_failed_over(&before).await?;
    set(master, "v2").await?;
    let mut settings = settings(&world);
    settings.nodes.push(behind.addr());
    let both = Both::start("elsewhere.invalid", settings).await?;
    both.serve("v2").await?;
    for sentinel in &world.sentinels[1..] {
        sentinel.pause()?;
    }
    set(master, "v3").await?;
    both.serve("v3").await?;
    // longer than it takes to notice that the only remaining sentinel names another master
    world.sentinels[0].pause()?;
    for number in 0..16 {
        if number % 4 == 0 {
            // a short interruption
            for kind in ["normal", "pubsub"] {
                master.cmd::<u32>(&["CLIENT", "KILL", "TYPE", kind, "USER", Redis::PROMPT_SERVER.name]).await?;
            }
        }
        let version = format!("v4.{number}");
        set(master, &version).await?;
        both.serve(&version).await?;
        tokio::time::sleep(Duration::from_millis(250)).await; // sentinels and readers go by the real clock
    }
    Ok(())
}

#[tokio::test]
async fn an_empty_login_for_sentinels_is_none() -> Result<()> {
    let world = Sentinels::start(0).await?;
    set(&world.servers[0], "v1").await?;
    let empty = || Some(String::new());
    let settings = Settings { sentinel_username: empty(), sentinel_password: empty(), ..settings(&world) };
    Both::start("elsewhere.invalid", settings).await?.serve("v1").await
}

#[tokio::test]
async fn a_master_that_no_sentinel_knows_is_named() -> Result<()> {
    let world = Sentinels::start(0).await?;
    let wrong = Settings { sentinel_master: Some("mian".to_owned()), ..settings(&world) };
    let both = Both::start("elsewhere.invalid", wrong).await?;
    both.lose_contact().await?;
    let says =
        async || both.prompt().ok()?.error().filter(|error| error.to_string().contains("no master named \"mian\""));
    eventually("the name is named", SOON, says).await.map(drop)
}

/// A user from the operations guide.
fn documented(name: &str, password: &str) -> Result<String> {
    const GUIDE: &str = include_str!("../../docs/prompt-servers.md");
    let line = GUIDE.lines().find(|line| line.starts_with(&format!("user {name} on >… ")));
    Ok(line.ok_or_else(|| anyhow::anyhow!("the guide has no user {name}"))?.replace('…', password))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_with_users_of_their_own_and_tls_everywhere() -> Result<()> {
    let users = shipped::users("any", Redis::PROMPT_SERVER.password)?;
    let master = Redis::builder().acl(&users).tls().conf("tls-replication yes").start()?;
    let replica = Redis::builder().acl(&users).tls_as(&master).replica_of(&master).start()?;
    master.wait_for_replicas(1).await?;
    set(&master, "v1").await?;
    let sentinel_users = format!("user default on nopass ~* &* +@all\n{}", documented("prompt-server", "s3ntinel")?);
    let build = || sentinel(Redis::builder().tls_as(&master).acl(&sentinel_users), &master).start();
    let sentinels = vec![build()?, build()?, build()?];
    let world = Sentinels { servers: vec![master, replica], sentinels };
    world.wait_known(1).await?;
    let nodes = world.sentinels.iter().map(|sentinel| sentinel.tls_url().replace("rediss://", "")).collect();
    let settings = Settings {
        nodes,
        sentinel_master: Some(NAME.to_owned()),
        sentinel_username: Some("prompt-server".to_owned()),
        sentinel_password: Some("s3ntinel".to_owned()),
        ..pushed()
    };
    ensure!(!format!("{settings:?}").contains("s3ntinel"));
    let both = by_tls(world.servers[0].ca_file(), settings.clone()).await?;
    both.serve("v1").await?;
    world.servers[0].wait_for_replicas(1).await?;
    world.sentinels[0].cmd::<()>(&["SENTINEL", "FAILOVER", NAME]).await?;
    // refused while it is still a replica
    eventually("the other is the master", FAILOVER, async || set(&world.servers[1], "v2").await.ok()).await?;
    both.serve("v2").await?;

    let wrong = Settings { sentinel_password: Some("guess".to_owned()), ..settings };
    let refused = by_tls(world.servers[0].ca_file(), wrong).await?;
    refused.lose_contact().await?;
    let prompt = refused.prompt()?;
    let says = async || prompt.error().map(|error| error.to_string()).filter(|error| error.contains("sentinel"));
    let error = eventually("the sentinels refuse", SOON, says).await?;
    ensure!(!error.contains("guess"), "{error}");
    Ok(())
}
