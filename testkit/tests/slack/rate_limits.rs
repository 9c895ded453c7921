//! Rate limits, on a clock that the test moves.

use super::{call, form, workspace};
use anyhow::Result;
use prompt_rollback_testkit::slack::{RateLimits, Slack};
use serde_json::json;
use std::time::{Duration, UNIX_EPOCH};

fn rate_limited() -> Result<Slack> {
    workspace().frozen_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000)).rate_limited(true).start()
}

async fn post(slack: &Slack, channel: &str) -> Result<Option<u64>> {
    let answer = call(slack, "chat.postMessage", json!({"channel": channel, "text": "x"})).await?;
    if answer.status == 200 {
        answer.ok();
        return Ok(None);
    }
    assert_eq!((answer.status, answer.error()), (429, "ratelimited"));
    Ok(Some(answer.headers["retry-after"].to_str()?.parse()?))
}

#[tokio::test]
async fn a_channel_takes_a_burst_and_then_one_post_a_second() -> Result<()> {
    let slack = rate_limited()?;
    for _ in 0..3 {
        assert_eq!(post(&slack, "C1").await?, None);
    }
    assert_eq!(post(&slack, "C1").await?, Some(1));
    assert_eq!(post(&slack, "#on-call").await?, Some(1), "the same channel by name");
    assert_eq!(post(&slack, "C2").await?, None, "another channel");
    slack.clock().advance(Duration::from_millis(900));
    assert_eq!(post(&slack, "C1").await?, Some(1));
    slack.clock().advance(Duration::from_millis(100));
    assert_eq!(post(&slack, "C1").await?, None);
    assert_eq!(post(&slack, "C1").await?, Some(1));
    slack.clock().advance(Duration::from_secs(60));
    for _ in 0..3 {
        assert_eq!(post(&slack, "C1").await?, None, "the burst is back");
    }
    assert_eq!(post(&slack, "C1").await?, Some(1));
    Ok(())
}

#[tokio::test]
async fn the_other_methods_have_their_tiers() -> Result<()> {
    let slack = rate_limited()?;
    for _ in 0..20 {
        form(&slack, "usergroups.list", &[]).await?.ok();
    }
    let limited = form(&slack, "usergroups.list", &[]).await?;
    assert_eq!((limited.status, limited.headers["retry-after"].to_str()?), (429, "3"));
    slack.set_rate_limits(Some(RateLimits { tiers: false, ..RateLimits::default() }));
    form(&slack, "usergroups.list", &[]).await?.ok();
    slack.set_rate_limits(None);
    for _ in 0..10 {
        assert_eq!(post(&slack, "C1").await?, None);
    }
    Ok(())
}
