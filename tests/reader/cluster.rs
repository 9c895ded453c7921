//! Readers on a real Redis Cluster whose slot moves between nodes.

use anyhow::{Context, Result, ensure};
use prompt_rollback::reader::{Reader, Settings, Split};
use prompt_rollback_testkit::cluster::{Moving, Node, cluster, master_and_replica, seize, take_over};
use prompt_rollback_testkit::readers::{ACTIVE, Both, pushed, set};

use crate::common::{Redis, SOON, eventually};

const ROUTING: &str = "{prompts}:routing:support";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_is_followed_and_back_again() -> Result<()> {
    let [master, replica] = master_and_replica().await?;
    set(&master.redis, "v1").await?;
    // one node is enough, whichever it is
    let both = Both::start(&replica.redis.addr(), pushed()).await?;
    both.serve("v1").await?;
    master.redis.wait_for_replicas(1).await?;
    take_over(&replica.redis).await?;
    set(&replica.redis, "v2").await?;
    both.serve("v2").await?;
    replica.redis.wait_for_replicas(1).await?;
    take_over(&master.redis).await?;
    set(&master.redis, "v3").await?;
    both.serve("v3").await
}

/// How often the nodes of the cluster were listed.
async fn asked_for_nodes(redis: &Redis) -> Result<usize> {
    let stats: String = redis.cmd(&["INFO", "commandstats"]).await?;
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_cluster|slots:calls="));
    Ok(calls.and_then(|calls| calls.split(',').next()).map_or(Ok(0), str::parse)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_is_left_by_who_was_told_of_it_alone() -> Result<()> {
    let [mut master, replica] = master_and_replica().await?;
    set(&master.redis, "v1").await?;
    // a master lists a replica once it knows its offset
    eventually("the replica is listed", SOON, async || {
        let slots: Vec<Vec<redis::Value>> = master.redis.cmd(&["CLUSTER", "SLOTS"]).await.ok()?;
        slots.iter().all(|range| range.len() > 3).then_some(())
    })
    .await?;
    let before = asked_for_nodes(&master.redis).await?;
    let both = Both::start(&master.redis.addr(), pushed()).await?;
    both.serve("v1").await?;
    // once by each, and again ten seconds later
    let learned = async || (asked_for_nodes(&master.redis).await.ok()? >= before + 2).then_some(());
    eventually("both have learned of the replica", SOON, learned).await?;
    master.redis.wait_for_replicas(1).await?;
    master.redis.kill9();
    both.lose_contact().await?;
    ensure!(both.prompt()?.active_version("u").as_deref() == Some("v1"));
    seize(&replica.redis).await?;
    set(&replica.redis, "v2").await?;
    both.serve("v2").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_is_left_and_not_gone_back_to() -> Result<()> {
    let [master, replica] = master_and_replica().await?;
    set(&master.redis, "v1").await?;
    let nodes = vec![replica.redis.addr()];
    let both = Both::start(&master.redis.addr(), Settings { nodes, ..pushed() }).await?;
    both.serve("v1").await?;
    master.redis.wait_for_replicas(1).await?;
    master.redis.pause()?;
    both.lose_contact().await?;
    seize(&replica.redis).await?;
    set(&replica.redis, "v2").await?;
    both.serve("v2").await?;
    // it continues with its old data, and learns that it is a replica
    master.redis.resume()?;
    replica.redis.wait_for_replicas(1).await?;
    set(&replica.redis, "v3").await?;
    both.serve("v3").await
}

async fn set_asking(node: &Node, version: &str) -> Result<()> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("ASKING").ignore().cmd("SET").arg(ACTIVE).arg(version).ignore();
    Ok(pipeline.exec_async(&mut node.redis.connection().await?).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_followed_while_it_moves_and_afterwards() -> Result<()> {
    let [from, to] = cluster().await?;
    set(&from.redis, "v1").await?;
    let both = Both::start(&from.redis.addr(), pushed()).await?;
    both.serve("v1").await?;
    let moving = Moving::begin(&from, &to).await?;
    // the key is still here, and a missing one may be there
    set(&from.redis, "v2").await?;
    both.serve("v2").await?;
    ensure!(moving.keys("100").await? == 1);
    set_asking(&to, "v3").await?;
    both.serve("v3").await?;
    set_asking(&to, "v4").await?;
    both.serve("v4").await?;
    moving.finish().await?;
    set(&to.redis, "v5").await?;
    both.serve("v5").await?;
    ensure!(from.redis.cmd::<()>(&["GET", ACTIVE]).await.is_err_and(|error| format!("{error:#}").contains("Moved")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_stays_while_the_next_node_of_its_slot_refuses() -> Result<()> {
    let [from, to] = cluster().await?;
    from.redis.cmd::<()>(&["HSET", ROUTING, "v1", "51", "v2", "49"]).await?;
    set(&from.redis, "v1").await?;
    let both = Both::start(&from.redis.addr(), pushed()).await?;
    let split = Split::new("v1", &[("v1", "51"), ("v2", "49")]);
    let of_user = split.version("u");
    ensure!(&**of_user == "v2", "not the active version, which is served without the split as well");
    both.serve(of_user).await?;
    to.redis.cmd::<()>(&["ACL", "SETUSER", Redis::PROMPT_SERVER.name, "-asking"]).await?;
    let moving = Moving::begin(&from, &to).await?;
    moving.key(ROUTING).await?;
    both.lose_contact().await?;
    let prompt = both.prompt()?;
    ensure!(prompt.versions().len() == 2, "{:?}", prompt.versions());
    let error = prompt.error().map(|error| error.to_string()).unwrap_or_default();
    ensure!(error.contains(&to.redis.addr()), "{error}");
    to.redis.cmd::<()>(&["ACL", "SETUSER", Redis::PROMPT_SERVER.name, "+asking"]).await?;
    both.serve(of_user).await?;
    moving.finish().await?;
    both.serve(of_user).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_whose_keys_are_in_many_slots_is_an_error() -> Result<()> {
    let [first, _second] = cluster().await?;
    let grants = ["%R~*prompts*"];
    first.redis.cmd::<()>(&[&["ACL", "SETUSER", "prompt-server"][..], &grants].concat()).await?;
    for namespace in ["prompts", "{}prompts", "prompts{"] {
        let settings = Settings { namespace: namespace.to_owned(), ..pushed() };
        let reader = Reader::start(first.redis.prompt_server_url(), ["support"], settings)?;
        let prompt = reader.prompt("support").context("the one followed")?;
        let says = async || prompt.error().filter(|error| error.to_string().contains("no hash tag")).map(drop);
        let said = eventually("the error", SOON, says).await;
        said.with_context(|| format!("{namespace}: {:?}", prompt.error()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_start_in_the_middle_of_a_failover_wait_for_its_end() -> Result<()> {
    let [mut master, replica] = master_and_replica().await?;
    set(&master.redis, "v1").await?;
    master.redis.wait_for_replicas(1).await?;
    master.redis.kill9();
    // the first address is dead, the second redirects all
    let nodes = vec![replica.redis.addr()];
    let both = Both::start(&master.redis.addr(), Settings { nodes, ..pushed() }).await?;
    both.lose_contact().await?;
    let (prompt, dead) = (both.prompt()?, master.redis.addr());
    let named = async || prompt.error().filter(|error| error.to_string().contains(&dead)).map(drop);
    eventually("an error that names the dead master", SOON, named).await?;
    seize(&replica.redis).await?;
    both.serve("v1").await
}
