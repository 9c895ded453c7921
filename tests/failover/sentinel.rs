//! Redis Sentinel: the receiver follows a failover, and never switches twice because of it.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use prompt_rollback::decision::Operator;
use prompt_rollback::store::{Clock, Store};
use prompt_rollback_testkit::proxy::Mode;
use prompt_rollback_testkit::sentinels::{FAILOVER, NAME, Sentinels, receiver_env, sentinel};
use prompt_rollback_testkit::{FaultProxy, shipped};

use super::{NOWHERE, receiver};
use crate::common::kept::{keys, prompt};
use crate::common::{
    DUPLICATE, ROLLED_BACK, Receiver, Redis, SOON, active, assert_rolled_back_once, config, copy_prompt, critical,
    eventually, log, ship,
};

/// Delivers until it is accepted; returns when, and after how many refusals.
pub async fn until_taken(receiver: &Receiver, prompt: &str) -> Result<(Instant, usize)> {
    let mut refused = 0;
    let answer = eventually("taken", FAILOVER, async || match receiver.deliver(&[critical(prompt)]).await {
        Ok(answer) if answer.status == 503 => {
            refused += 1;
            None
        }
        answer => Some(answer),
    });
    let answer = answer.await??;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok((Instant::now(), refused))
}

/// The new master is used for everything: alerts, external changes, readiness.
async fn moved(receiver: &Receiver, master: &Redis) -> Result<()> {
    receiver.wait_ready(SOON).await?;
    assert_eq!(receiver.outcomes(&[critical("p")]).await?, [DUPLICATE]);
    assert_rolled_back_once(master, "p").await?;
    ship(&receiver.http, "outside").await?;
    master.cmd::<()>(&["SET", "{prompts}:active:outside", "v9"]).await?;
    eventually("a change made outside is followed", SOON, async || {
        let last = log(master, "outside").await.ok()?.pop()?;
        (last["event"] == "external" && last["to"] == "v9").then_some(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_killed_costs_its_failover() -> Result<()> {
    let mut world = Sentinels::start(2).await?;
    let receiver = receiver(&world, &[]).await?;
    ship(&receiver.http, "p").await?;
    world.servers[0].wait_for_replicas(2).await?;
    let before = world.servers[0].addr();
    world.servers[0].kill9();
    let (taken, failed_over) = tokio::join!(until_taken(&receiver, "p"), world.wait_failed_over(&before));
    let ((at, refused), (master, promoted)) = (taken?, failed_over?);
    println!("taken {:?} after the failover, refused {refused} times before", at.saturating_duration_since(promoted));
    assert!(refused > 0, "there was an outage");
    moved(&receiver, master).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_replaced_while_it_runs_is_left_at_once() -> Result<()> {
    let world = Sentinels::start(1).await?;
    let receiver = receiver(&world, &[]).await?;
    ship(&receiver.http, "p").await?;
    world.servers[0].wait_for_replicas(1).await?;
    let before = world.servers[0].addr();
    world.sentinels[0].cmd::<()>(&["SENTINEL", "FAILOVER", NAME]).await?;
    let (master, _) = world.wait_failed_over(&before).await?;
    // the old master takes writes for eight more seconds, and loses them
    eventually("the receiver has left the old one", SOON, async || {
        let clients: String = world.servers[0].cmd(&["CLIENT", "LIST"]).await.ok()?;
        (!clients.contains("user=receiver")).then_some(())
    })
    .await?;
    assert_eq!(
        world.servers[0].cmd::<Vec<redis::Value>>(&["ROLE"]).await?[0],
        redis::Value::BulkString("master".into())
    );
    until_taken(&receiver, "p").await?;
    assert_eq!(active(&world.servers[0], "p").await?.as_deref(), Some("v2"), "the old one was told nothing");
    moved(&receiver, master).await
}

/// Delivers alerts before `fail`, and one every 20 ms from then on until another master is named; each until it is
/// accepted, and never again: everything acknowledged is on the new master, once.
async fn nothing_acknowledged_is_lost(
    mut world: Sentinels,
    fail: impl AsyncFnOnce(&mut Sentinels) -> Result<()>,
) -> Result<()> {
    const BEFORE: usize = 20;
    let env = [("REDIS__MIN_REPLICAS_ACKED", "1"), ("GUARDS__MAX_AUTO_ROLLBACKS", "1000")];
    let receiver = receiver(&world, &env).await?;
    ship(&receiver.http, "p-0").await?;
    let names: Vec<String> = (0..400).map(|n| format!("p-{n}")).collect();
    copy_prompt(&world.servers[0], "p-0", &names[1..]).await?;
    world.servers[0].wait_for_replicas(world.servers.len() - 1).await?;
    let before = world.servers[0].addr();
    let over = AtomicBool::new(false);
    let deliver = async |name: &String| anyhow::Ok((name.clone(), until_taken(&receiver, name).await?.1));
    let mut taken: Vec<(String, usize)> =
        join_all(names[..BEFORE].iter().map(&deliver)).await.into_iter().collect::<Result<_>>()?;
    let deliveries = join_all(names[BEFORE..].iter().zip(0u32..).map(async |(name, n)| {
        tokio::time::sleep(Duration::from_millis(20) * n).await; // the load: one delivery every 20 ms
        if over.load(Ordering::Relaxed) { Ok(None) } else { deliver(name).await.map(Some) }
    }));
    let failing = async {
        fail(&mut world).await?;
        world.wait_failed_over(&before).await?;
        over.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (during, failed) = tokio::join!(deliveries, failing);
    failed?;
    taken.extend(during.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>>>()?);
    let refused = taken.iter().filter(|(_, refused)| *refused > 0).count();
    println!("{} taken at once, {refused} after refusals", taken.len() - refused);
    assert!(refused > 0 && refused < taken.len(), "it happened in the middle: {refused} of {}", taken.len());
    let (master, _) = world.wait_failed_over(&before).await?;
    for (name, _) in &taken {
        assert_rolled_back_once(master, name).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_switch_that_a_replica_has_is_lost_when_the_master_is_killed() -> Result<()> {
    let kill = async |world: &mut Sentinels| {
        world.servers[0].kill9();
        Ok(())
    };
    nothing_acknowledged_is_lost(Sentinels::start(2).await?, kill).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_switch_that_the_replica_has_is_lost_when_the_master_is_replaced() -> Result<()> {
    let replace = async |world: &mut Sentinels| world.sentinels[0].cmd(&["SENTINEL", "FAILOVER", NAME]).await;
    nothing_acknowledged_is_lost(Sentinels::start(1).await?, replace).await
}

/// The replicas lose their master before the failover. Eight pauses wait for them until the old master is replaced, and
/// a ninth waits for its turn: the new master has replicas, but not this pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_only_the_old_master_has_is_not_acknowledged() -> Result<()> {
    const WAITERS: usize = 8;
    let world = Sentinels::start(2).await?;
    let (master, replicas) = world.servers.split_first().context("a master")?;
    let env = [("REDIS__MIN_REPLICAS_ACKED", "1")];
    let mut config = config(NOWHERE, &receiver_env(&world.nodes(), &env)).redis;
    config.wait_timeout = SOON; // longer than the failover
    let store = Store::new(&config, Clock::default())?;
    for sentinel in &world.sentinels {
        // a replica that lost its master not long before may be promoted
        sentinel.cmd::<()>(&["SENTINEL", "SET", NAME, "down-after-milliseconds", "60000"]).await?;
    }
    let log_in_as = async |user: &str| {
        for replica in replicas {
            replica.cmd::<()>(&["CONFIG", "SET", "masteruser", user]).await?;
        }
        anyhow::Ok(())
    };
    log_in_as("stranger").await?;
    master.cmd::<()>(&["CLIENT", "KILL", "TYPE", "replica"]).await?;
    let pauses: Vec<_> = (0..=WAITERS)
        .map(|n| {
            let (store, prompt) = (store.clone(), prompt(&format!("p-{n}")));
            tokio::spawn(async move { store.pause(Some(&prompt), &Operator::recorded("maya"), "").await })
        })
        .collect();
    eventually("all are written, and all but one wait", SOON, async || {
        let info: String = master.cmd(&["INFO"]).await.ok()?;
        let written: usize = master.cmd(&["HLEN", &keys().paused()]).await.ok()?;
        let wait = info.contains(&format!("\nblocked_clients:{WAITERS}\r")) && info.contains("\nconnected_slaves:0\r");
        (wait && written == pauses.len()).then_some(())
    })
    .await?;

    let before = master.addr();
    world.sentinels[0].cmd::<()>(&["SENTINEL", "FAILOVER", NAME]).await?;
    let (promoted, _) = world.wait_failed_over(&before).await?;
    log_in_as(Redis::ADMIN.name).await?;
    for (n, pause) in pauses.into_iter().enumerate() {
        let answer = pause.await?;
        let has_it: bool = promoted.cmd(&["HEXISTS", &keys().paused(), &format!("p-{n}")]).await?;
        assert!(answer.is_err() || has_it, "p-{n} was acknowledged, and is lost");
    }
    Ok(())
}

#[tokio::test]
async fn sentinels_that_hang_or_lie_are_passed_over() -> Result<()> {
    let world = Sentinels::start(1).await?;
    let replica = world.servers[1].port().to_string();
    let lying_target = FaultProxy::start(world.servers[1].addr()).await?;
    let lie = format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{replica}\r\n", replica.len());
    lying_target.set(Mode::Answer(lie.into_bytes()));
    world.sentinels[1].pause()?;
    let nodes = format!("{},{},{}", world.sentinels[1].addr(), lying_target.addr(), world.sentinels[0].addr());
    let receiver = Receiver::ready(NOWHERE, &receiver_env(&nodes, &[])).await?;
    ship(&receiver.http, "p").await?;
    assert_eq!(receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert_rolled_back_once(&world.servers[0], "p").await?;

    // alone, the wrong sentinel is not believed
    let fooled = Receiver::start(NOWHERE, &receiver_env(lying_target.addr(), &[])).await?;
    fooled.wait_not_ready("is none: its ROLE is \"slave\"", SOON).await?;
    assert_eq!(fooled.deliver(&[critical("p")]).await?.status, 503);
    Ok(())
}

#[tokio::test]
async fn sentinels_that_are_all_away_or_know_no_such_master_are_named() -> Result<()> {
    let world = Sentinels::start(0).await?;
    let wrong = [("REDIS__SENTINEL_MASTER", "mian")];
    let receiver = Receiver::start(NOWHERE, &receiver_env(&world.nodes(), &wrong)).await?;
    receiver.wait_not_ready("redis.sentinel_master: no sentinel knows a master named", SOON).await?;
    receiver.wait_not_ready("mian", SOON).await?;
    for sentinel in &world.sentinels {
        sentinel.pause()?;
    }
    let receiver = Receiver::start(NOWHERE, &receiver_env(&world.nodes(), &[])).await?;
    receiver.wait_not_ready("redis.nodes: no sentinel answers", SOON).await?;
    for sentinel in &world.sentinels {
        sentinel.resume()?;
    }
    receiver.wait_ready(SOON).await
}

/// A user from the operations guide.
fn documented(name: &str, password: &str) -> Result<String> {
    const GUIDE: &str = include_str!("../../docs/operations.md");
    let line = GUIDE.lines().find(|line| line.starts_with(&format!("user {name} on >… ")));
    Ok(line.with_context(|| format!("the guide has no user {name}"))?.replace('…', password))
}

#[tokio::test]
async fn users_and_tls_of_redis_and_of_sentinels() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let users = shipped::users("r3dis", "any")?;
    let users = format!("{users}\n{}\n{}", documented("replica", "r3plica")?, documented("sentinel", "w4tch")?);
    let build = || {
        let builder = Redis::builder().acl(&users).receiver_may("+role");
        builder.conf("masteruser replica\nmasterauth r3plica")
    };
    let master = build().tls().conf("tls-replication yes").start()?;
    let replica = build().tls_as(&master).replica_of(&master).start()?;
    master.wait_for_replicas(1).await?;
    let sentinel_users = format!("user default on nopass ~* &* +@all\n{}", documented("prompt-rollback", "s3ntinel")?);
    let build = || {
        let watch = format!("sentinel auth-user {NAME} sentinel\nsentinel auth-pass {NAME} w4tch");
        sentinel(Redis::builder().tls_as(&master).acl(&sentinel_users), &master).conf(watch).start()
    };
    let sentinels = [build()?, build()?, build()?];
    let nodes: Vec<String> =
        sentinels.iter().map(|sentinel| sentinel.tls_url().trim_start_matches("rediss://").to_owned()).collect();
    let (nodes, ca) = (nodes.join(","), master.ca_file().to_str().context("text")?.to_owned());
    let env = [
        ("REDIS__USERNAME", "receiver"),
        ("REDIS__PASSWORD", "r3dis"),
        ("REDIS__SENTINEL_USERNAME", "prompt-rollback"),
        ("REDIS__SENTINEL_PASSWORD", "s3ntinel"),
        ("REDIS__TLS_CA_FILE", &ca),
    ];
    let receiver = Receiver::ready("rediss://elsewhere.invalid", &receiver_env(&nodes, &env)).await?;
    ship(&receiver.http, "p").await?;
    eventually("the receiver subscribes to failovers", SOON, async || {
        let clients: String = sentinels[0].cmd(&["CLIENT", "LIST"]).await.ok()?;
        clients.lines().any(|line| line.contains("user=prompt-rollback") && line.contains("sub=1")).then_some(())
    })
    .await?;

    let wrong = [env[0], env[1], env[2], ("REDIS__SENTINEL_PASSWORD", "guess"), env[4]];
    let refused = Receiver::start("rediss://elsewhere.invalid", &receiver_env(&nodes, &wrong)).await?;
    refused.wait_not_ready("no sentinel answers", SOON).await?;
    let reason = refused.http.get("/-/ready").await?.text();
    assert!(reason.contains("auth") && !reason.contains("guess"), "{reason}");

    master.wait_for_replicas(1).await?;
    let world = Sentinels { servers: vec![replica], sentinels: sentinels.into() };
    world.wait_known(1).await?;
    drop(master);
    let (_, refused) = until_taken(&receiver, "p").await?;
    assert!(refused > 0, "there was an outage");
    assert_rolled_back_once(&world.servers[0], "p").await
}

#[tokio::test]
async fn check_names_the_master_that_was_found() -> Result<()> {
    let world = Sentinels::start(1).await?;
    let mut check = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
    check.args(["check", "--connect"]);
    for (key, value) in receiver_env(&world.nodes(), &[("REDIS__URL", &Redis::RECEIVER.url("elsewhere.invalid"))]) {
        check.env(format!("PROMPT_ROLLBACK_{key}"), value);
    }
    let output = tokio::task::spawn_blocking(move || check.output()).await??;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("redis master")).context(format!("in {text}"))?;
    assert!(line.contains(&world.servers[0].addr()) && line.contains("is \"main\", by Sentinel"), "{line}");
    assert!(output.status.success(), "{text}");
    Ok(())
}
