//! No delivery delays another sender's critical alert.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Redis, eventually, http::Http};
use serde_json::{Value, json};

use crate::common::{ROLLED_BACK, SOON, World, alert, critical, deliver, outcomes, process, ship};

/// Scripts that Redis has run.
async fn scripts(redis: &Redis) -> Result<usize> {
    let stats: String = redis.cmd(&["INFO", "commandstats"]).await?;
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or("0");
    Ok(line.split(',').next().context("a count")?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_critical_alert_overtakes_what_waits_in_other_deliveries() -> Result<()> {
    // of the other prompts, while it loads, decides and commits: those in progress, each time, and a few of the workers
    const MOST: usize = 200;
    let world = World::with(&[("SERVER__REQUEST_TIMEOUT", "4900ms")]).await?;
    let mut seen = Vec::new();
    for attempt in 0..5 {
        let prompt = format!("p-{attempt}");
        world.ship(&prompt).await?;
        let others = (0..12).map(|sender| {
            let http = Http::new(format!("http://{}", world.receiver.app.address));
            let alerts: Vec<Value> =
                (0..500).map(|n| alert(&format!("{attempt}/{sender}/{n}"), "v1", "high")).collect();
            tokio::spawn(async move { deliver(&http, &alerts).await })
        });
        let others: Vec<_> = others.collect();
        let start = scripts(&world.redis).await?;
        eventually("work is under way", SOON, async || {
            (scripts(&world.redis).await.ok()? >= start + 500).then_some(())
        })
        .await?;
        let before = scripts(&world.redis).await?;
        let answer = world.receiver.deliver(&[critical(&prompt)]).await?;
        let meanwhile = scripts(&world.redis).await? - before;
        let busy = others.iter().filter(|other| !other.is_finished()).count();
        for other in others {
            other.await??;
        }
        ensure!(outcomes(&answer)? == [ROLLED_BACK], "{}", answer.text());
        seen.push((meanwhile, busy));
        if busy > 6 && meanwhile <= MOST {
            return Ok(());
        }
    }
    anyhow::bail!("scripts that ran meanwhile, and deliveries under way then: {seen:?}")
}

/// Eight senders of 1.5 MB each: criticals in a body of 150 kB, which is read on another thread as well, do not wait for them all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn criticals_in_a_large_body_overtake_the_huge_bodies_of_others() -> Result<()> {
    let redis = Redis::start()?;
    // a process of its own: it shares the other thread with no other test
    let receiver = process(&redis).env("PROMPT_ROLLBACK_SERVER__REQUEST_TIMEOUT", "4900ms").start()?;
    ship(&receiver.http(), "p").await?;
    let mut criticals = vec![critical("p"); 100];
    for (n, alert) in criticals.iter_mut().enumerate() {
        alert["fingerprint"] = format!("{n:016x}").into();
        alert["annotations"]["description"] = "x".repeat(1_000).into();
    }
    let nameless = json!({"status": "firing", "labels": {"alertname": "Row"}});
    let huge = json!({"version": "4", "alerts": vec![nameless; 30_000]}).to_string();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let others = (0..8).map(|_| {
            let (http, huge) = (receiver.http(), huge.clone());
            tokio::spawn(async move { http.post("/webhooks/alertmanager", huge).await })
        });
        let others: Vec<_> = others.collect();
        tokio::time::sleep(Duration::from_millis(100)).await; // the load: they have begun
        let answer = deliver(&receiver.http(), &criticals).await?;
        let busy = others.iter().filter(|other| !other.is_finished()).count();
        for other in others {
            other.await??;
        }
        ensure!(answer.status == 200, "{:.300}", answer.text());
        seen.push(busy);
        if busy > 4 {
            return Ok(());
        }
    }
    anyhow::bail!("huge deliveries that were under way when the criticals were answered: {seen:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_of_forty_thousand_versions_delays_no_other_answer() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = process(&redis).start()?;
    ship(&receiver.http(), "p").await?;
    ship(&receiver.http(), "q").await?;
    // a debug build may take longer than server.request_timeout: what matters is that others are answered
    let alerts: Vec<Value> = (0..40_000).map(|n| alert("p", &format!("w{n}"), "critical")).collect();
    let http = receiver.http();
    let large = tokio::spawn(async move { deliver(&http, &alerts).await });
    let http = receiver.http();
    let (mut slowest, mut polls) = (Duration::ZERO, 0);
    let start = Instant::now();
    while !large.is_finished() || polls < 20 {
        let asked = Instant::now();
        ensure!(http.get("/-/healthy").await?.status == 200);
        slowest = slowest.max(asked.elapsed());
        polls += 1;
        if polls == 10 {
            assert_eq!(outcomes(&deliver(&http, &[critical("q")]).await?)?, [ROLLED_BACK]);
        }
        tokio::time::sleep(Duration::from_millis(2)).await; // the load: 500 polls a second at most
    }
    let took = start.elapsed();
    let status = large.await??.status;
    ensure!([200, 503].contains(&status), "{status}");
    eprintln!("{took:?} for 40,000 alerts, {polls} others meanwhile, the slowest took {slowest:?}");
    // on the serving thread it was 17.9 s in an optimized build
    assert!(slowest < Duration::from_secs(1), "{slowest:?} of {took:?}");
    Ok(())
}
