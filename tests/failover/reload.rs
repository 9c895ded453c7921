//! Reloading the addresses of Redis, and a failover after that.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback_testkit::Dir;
use prompt_rollback_testkit::sentinels::{FAILOVER, Sentinels, receiver_env, sentinel};

use super::sentinel::until_taken;
use crate::common::{Receiver, Redis, SOON, eventually, settings_of, ship};

const USER: &str = "prompt-rollback";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_and_the_list_of_sentinels_are_replaced_before_a_failover() -> Result<()> {
    let build = || Redis::builder().receiver_may("+role");
    let master = build().start()?;
    let replica = build().replica_of(&master).start()?;
    master.wait_for_replicas(1).await?;
    let user = format!("user {USER} on >one resetchannels &+switch-master +@all");
    let start = |_| sentinel(Redis::builder().conf(&user), &master).start();
    let sentinels = (0..3).map(start).collect::<Result<Vec<_>>>()?;
    let mut world = Sentinels { servers: vec![master, replica], sentinels };
    world.wait_known(1).await?;

    // first through one sentinel, which is gone when it matters
    let dir = Dir::new("failover-reload")?;
    let nodes = |nodes: &str| {
        format!("[redis]\nnodes = [\"{}\"]\nsentinel_password_file = \"password\"\n", nodes.replace(',', "\",\""))
    };
    dir.write("password", "one")?;
    let path = dir.write("prompt-rollback.toml", nodes(&world.sentinels[0].addr()))?;
    let mut env = receiver_env("", &[("REDIS__SENTINEL_USERNAME", USER)]);
    env.retain(|(key, _)| *key != "REDIS__NODES");
    let settings = settings_of(Some(&path), "redis://elsewhere.invalid", &env);
    let receiver = Receiver::start_with(&settings).await?;
    receiver.wait_ready(SOON).await?;
    ship(&receiver.http, "p").await?;

    for sentinel in &world.sentinels {
        sentinel.cmd::<()>(&["ACL", "SETUSER", USER, "resetpass", ">two"]).await?;
    }
    dir.write("password", "two")?;
    dir.write("prompt-rollback.toml", nodes(&world.nodes()))?;
    let answer = receiver.http.post("/-/reload", "").await?;
    let text = answer.text();
    assert!(answer.status == 200 && text.contains("redis.nodes") && text.contains("sentinel_password"), "{text}");

    world.servers[0].wait_for_replicas(1).await?;
    let before = world.servers[0].addr();
    world.servers[0].kill9();
    world.wait_failed_over(&before).await?;
    world.sentinels[0].kill9();
    until_taken(&receiver, "p").await?;
    eventually("ready", FAILOVER, async || {
        let answer = receiver.http.clone().timeout(Duration::from_secs(2)).get("/-/ready").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await
}
