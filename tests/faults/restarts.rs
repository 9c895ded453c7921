//! Receivers that are replaced one after another while requests arrive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use prompt_rollback::store::schedule::{Work, WorkItem};
use prompt_rollback_testkit::http::Http;
use prompt_rollback_testkit::{Receiver, Redis, eventually};
use serde_json::json;
use tokio::sync::watch;

use crate::common::kept::{count, incident_id, keys};
use crate::common::{ROLLED_BACK, SOON, active, copy_prompt, critical, deliver, outcomes, process, rollbacks, ship};

const PROMPTS: usize = 240;
const CLIENTS: usize = 4;

/// Like a load balancer and Alertmanager: to the next receiver after anything but an answer, and again after 503.
async fn until_answered(receivers: &[Http], turn: usize, prompt: &str, by_hand: bool) -> Result<bool> {
    for attempt in 0.. {
        let http = &receivers[(turn + attempt) % receivers.len()];
        let answer = match by_hand {
            true => http.post_json("/api/rollback", &json!({"prompt": prompt, "from_version": "v2"})).await,
            false => deliver(http, &[critical(prompt)]).await,
        };
        match answer {
            Ok(answer) if by_hand && answer.status == 200 => return Ok(true),
            Ok(answer) if !by_hand && answer.status == 200 => return Ok(outcomes(&answer)? == [ROLLED_BACK]),
            // its receiver died before answering: the change was made
            Ok(answer) if by_hand && answer.status == 409 => return Ok(false),
            Ok(answer) => ensure!(answer.status == 503, "{} {}", answer.status, answer.text()),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(5)).await; // the pause of a client between two tries
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_loses_nothing_and_does_nothing_twice() -> Result<()> {
    let redis = Redis::start()?;
    let start = || process(&redis).env("PROMPT_ROLLBACK_GUARDS__MAX_AUTO_ROLLBACKS", "100000").start();
    let mut receivers = [start()?, start()?];
    ship(&receivers[0].http(), "p-0").await?;
    let names: Vec<String> = (1..PROMPTS).map(|n| format!("p-{n}")).collect();
    copy_prompt(&redis, "p-0", &names).await?;

    let https: Arc<[Http]> = receivers.iter().map(Receiver::http).collect();
    let sent = Arc::new(AtomicUsize::new(0));
    let (are_restarted, restarted) = watch::channel(false);
    let clients = (0..CLIENTS).map(|client| {
        let (https, sent, mut restarted) = (https.clone(), sent.clone(), restarted.clone());
        tokio::spawn(async move {
            let mut answered = 0;
            for n in (client..PROMPTS).step_by(CLIENTS) {
                // some are left for after the restarts, however fast this is
                if n > PROMPTS / 2 {
                    restarted.wait_for(|restarted| *restarted).await?;
                }
                answered += usize::from(until_answered(&https, n, &format!("p-{n}"), n % 3 == 0).await?);
                sent.fetch_add(1, Ordering::Release);
            }
            anyhow::Ok(answered)
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut wanted = PROMPTS / 8;
    for receiver in &mut receivers {
        eventually("work comes in", SOON, async || (sent.load(Ordering::Acquire) >= wanted).then_some(())).await?;
        wanted += PROMPTS / 8;
        let status = tokio::task::block_in_place(|| receiver.sigterm())?;
        assert_eq!(status.code(), Some(0), "{}", receiver.log());
        tokio::task::block_in_place(|| receiver.restart())?;
    }
    are_restarted.send_replace(true);
    let mut answered = 0;
    for client in join_all(clients).await {
        answered += client??;
    }
    for n in 0..PROMPTS {
        let prompt = format!("p-{n}");
        assert_eq!(active(&redis, &prompt).await?.as_deref(), Some("v1"), "{prompt}");
        assert_eq!(rollbacks(&redis, &prompt).await?, 1, "{prompt}: entries in the log");
    }
    assert_eq!(count(&redis, &keys().incidents()).await?, PROMPTS);
    // a graceful shutdown answers all accepted requests: almost none had to be repeated
    assert!(answered >= PROMPTS - CLIENTS, "only {answered} of {PROMPTS} were told what they did");
    Ok(())
}

#[tokio::test]
async fn tasks_become_due_once_redis_is_there() -> Result<()> {
    let mut redis = Redis::builder().appendonly().start()?;
    let (due, task) = (keys().due(Work::Incident), Work::Incident.member(&WorkItem::Incident(incident_id("none"))));
    let time: Vec<i64> = redis.cmd(&["TIME"]).await?;
    redis.cmd::<()>(&["ZADD", &due, &((time[0] + 3_600) * 1_000).to_string(), &task]).await?;
    redis.stop()?;
    let receiver = crate::common::Receiver::start(&redis.receiver_url(), &[]).await?;
    receiver.wait_not_ready("connection", SOON).await?;
    redis.restart()?;
    eventually("the task is claimed", SOON, async || {
        let score: Option<f64> = redis.cmd(&["ZSCORE", &due, &task]).await.ok()?;
        score.is_none().then_some(())
    })
    .await
}
