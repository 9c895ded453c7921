//! The proxy's faults at the boundaries of commands.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback_testkit::{FaultProxy, Redis, Rng};

async fn ping(proxy: &FaultProxy) -> Result<String> {
    let client = redis::Client::open(Redis::ADMIN.url(proxy.addr()))?;
    let quick = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_millis(200)))
        .set_response_timeout(Some(Duration::from_millis(200)));
    let mut connection = client.get_multiplexed_async_connection_with_config(&quick).await?;
    Ok(redis::cmd("PING").query_async(&mut connection).await?)
}

#[tokio::test]
async fn a_plan_strikes_as_often_as_it_says_and_counts() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = FaultProxy::start(redis.addr()).await?;
    assert_eq!(ping(&proxy).await?, "PONG");
    assert!(proxy.struck().is_empty());

    proxy.strike(Rng::new(1), 1_000);
    let mut refused = 0;
    for _ in 0..100 {
        refused += u64::from(ping(&proxy).await.is_err());
    }
    let struck = proxy.struck();
    assert_eq!(struck.len(), 8, "each kind of fault: {struck:?}");
    assert!(struck.values().sum::<u64>() >= 100 && refused >= 50, "{refused} refused: {struck:?}");

    proxy.strike(Rng::new(1), 0);
    assert_eq!(ping(&proxy).await?, "PONG");
    assert_eq!(proxy.struck(), struck);
    Ok(())
}
