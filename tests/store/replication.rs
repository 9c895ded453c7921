//! `redis.min_replicas_acked` with a real replica.

use anyhow::{Context, Result};
use prompt_rollback::decision::outage::{Member, Outage, OutageAction};
use prompt_rollback::decision::{IncidentId, Operator, Policy};
use prompt_rollback::engine::{Engine, EngineError};
use prompt_rollback::service::coordinate;
use prompt_rollback::store::outage::{Coordinated, WriteOutcome};
use prompt_rollback::store::{Committed, RedisFault, StoreError};
use ulid::Ulid;

use prompt_rollback_testkit::FaultProxy;

use super::kit::{Kit, critical, key};
use crate::common::{REPLICATED, Redis, SOON, assert_same, eventually};

async fn start() -> Result<(Kit, Redis)> {
    let master = Redis::start()?;
    let replica = Redis::builder().replica_of(&master).start()?;
    master.wait_for_replicas(1).await?;
    let url = master.url();
    Ok((Kit::with(master, &url, &REPLICATED)?, replica))
}

fn not_replicated<T: std::fmt::Debug>(result: Result<T, StoreError>) {
    assert!(matches!(result, Err(StoreError::NotReplicated { acked: 0, wanted: 1 })), "{result:?}");
}

#[tokio::test]
async fn a_commit_is_acknowledged_once_a_replica_has_it() -> Result<()> {
    let (kit, replica) = start().await?;
    kit.ship("p").await?;
    kit.does("p", critical("p")).await?;
    assert_eq!(replica.cmd::<String>(&["GET", &key("active:p")]).await?, "v1");
    kit.store.wait_for_replicas(&kit.store.master().await?).await?;
    Ok(())
}

#[tokio::test]
async fn without_the_replica_no_commit_repeat_or_fence_is_acknowledged() -> Result<()> {
    let (kit, replica) = start().await?;
    kit.ship("p").await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    replica.pause()?;
    let id = Ulid::generate().to_string();
    not_replicated(kit.store.commit(&id, &loaded, &commit).await);
    assert_eq!(kit.cmd::<String>(&["GET", &key("active:p")]).await?, "v1", "the master has it");
    not_replicated(kit.store.commit(&id, &loaded, &commit).await);
    not_replicated(kit.store.wait_for_replicas(&kit.store.master().await?).await);

    replica.resume()?;
    let before = kit.dump().await?;
    let done = eventually("acknowledged", SOON, async || kit.store.commit(&id, &loaded, &commit).await.ok()).await?;
    assert_eq!(done, Committed::Done { rev: 5 });
    assert_same(&before, &kit.dump().await?, "committed once");
    Ok(())
}

#[tokio::test]
async fn a_commit_is_not_acknowledged_by_a_connection_that_wrote_nothing() -> Result<()> {
    let master = Redis::start()?;
    let replica = Redis::builder().replica_of(&master).start()?;
    master.wait_for_replicas(1).await?;
    let proxy = FaultProxy::start(master.addr()).await?;
    let url = proxy.url();
    let kit = Kit::with(master, &url, &REPLICATED)?;
    kit.ship("p").await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    replica.pause()?;
    proxy.lose_next_reply_matching("incidents:open");
    let id = Ulid::generate().to_string();
    let lost = kit.store.commit(&id, &loaded, &commit).await;
    assert!(matches!(lost, Err(StoreError::Unavailable { kind: RedisFault::Connection, .. })), "{lost:?}");
    // WAIT counts the writes of its own connection only, and a new one has none
    not_replicated(kit.store.commit(&id, &loaded, &commit).await);
    replica.resume()?;
    eventually("acknowledged", SOON, async || kit.store.commit(&id, &loaded, &commit).await.ok().map(drop)).await?;
    Ok(())
}

#[tokio::test]
async fn connections_that_a_restart_left_behind_are_all_dropped_at_once() -> Result<()> {
    let (kit, _replica) = start().await?;
    // eight connections wait at the same time
    let master = kit.store.master().await?;
    let fences = (0..8).map(|_| kit.store.wait_for_replicas(&master));
    for wait_for_replicas in futures_util::future::join_all(fences).await {
        wait_for_replicas?;
    }
    kit.cmd::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    kit.store.ping().await?; // the shared connection is used all the time
    // the first one finds out; the next attempt takes none of the others
    kit.store.wait_for_replicas(&master).await?;
    Ok(())
}

/// As `timeout` in redis.conf closes them.
#[tokio::test]
async fn a_pause_is_acknowledged_although_redis_has_closed_idle_connections() -> Result<()> {
    let (kit, _replica) = start().await?;
    let mia = Operator::recorded("mia");
    assert!(kit.store.pause(None, &mia, "").await?);
    kit.cmd::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    kit.store.ping().await?; // the shared connection is used all the time
    assert!(kit.store.resume(None).await?);
    Ok(())
}

/// As when a proxy leads to another server: the new connection says nothing about the writes on the lost ones.
#[tokio::test]
async fn no_other_connection_acknowledges_what_a_lost_one_wrote() -> Result<()> {
    let (kit, _replica) = start().await?;
    let master = kit.store.master().await?;
    kit.store.wait_for_replicas(&master).await?;
    kit.cmd::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    let waited = kit.store.wait_for_replicas(&master).await;
    assert!(matches!(waited, Err(StoreError::Unavailable { kind: RedisFault::ReadOnly, .. })), "{waited:?}");
    Ok(())
}

#[tokio::test]
async fn a_decision_about_all_prompts_is_acknowledged_once_a_replica_has_it() -> Result<()> {
    let (mut kit, replica) = start().await?;
    kit.policy = Policy { max_auto_rollbacks: 1, ..kit.policy };
    for name in ["a", "p"] {
        kit.ship(name).await?;
    }
    kit.does("a", critical("a")).await?;
    let held = kit.does("p", critical("p")).await?.incidents[0].incident.id.clone();
    let (id, now) = (IncidentId("01KAJ4B8N4GZQ6V9C2M7T5R3XW".to_owned()), kit.now().await?);
    let mut found = Coordinated::new(Outage::open(id.clone(), &kit.policy, now));
    found.members.push(Member::new(&kit.store.incident(&held).await?.context("the incident")?, false, now));
    assert_eq!(kit.store.write_outage(&mut found, now).await?, WriteOutcome::Done);
    let engine = Engine::new(kit.store.clone(), kit.policy.clone());
    replica.pause()?;
    let maya = Operator::recorded("maya");
    for _ in 0..2 {
        // also if it was stored before
        let decided = coordinate::decide(&engine, &id, OutageAction::RollBack, &maya, None, None).await;
        let refused = matches!(decided, Err(EngineError::Store(StoreError::NotReplicated { acked: 0, wanted: 1 })));
        assert!(refused, "{decided:?}");
    }
    replica.resume()?;
    Ok(())
}
