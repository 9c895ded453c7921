//! Replies that are lost after the script ran, and receivers that die.

use anyhow::Result;
use prompt_rollback_testkit::FaultProxy;
use serde_json::json;

use crate::common::kept::{count, keys};
use crate::common::{
    DUPLICATE, REPLICATED, ROLLED_BACK, Receiver, Redis, SOON, active, assert_rolled_back_once, critical, eventually,
    log, outcomes, process, ship,
};

/// Only a commit contains this key.
fn commit() -> String {
    keys().closed()
}

async fn behind_a_proxy(env: &[(&str, &str)]) -> Result<(Redis, FaultProxy, Receiver)> {
    let redis = Redis::start()?;
    let proxy = FaultProxy::start(redis.addr()).await?;
    let receiver = Receiver::ready(&proxy.url(), env).await?;
    ship(&receiver.http, "p").await?;
    Ok((redis, proxy, receiver))
}

#[tokio::test]
async fn a_commit_whose_reply_is_lost_gives_its_outcome_and_acts_once() -> Result<()> {
    let (redis, proxy, receiver) = behind_a_proxy(&[]).await?;
    proxy.lose_next_reply_matching(commit());
    assert_eq!(receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert!(!proxy.loss_pending(), "the reply was lost");
    assert_rolled_back_once(&redis, "p").await?;
    assert_eq!(receiver.outcomes(&[critical("p")]).await?, [DUPLICATE]);
    let metrics = receiver.http.get("/metrics").await?.text();
    assert!(metrics.contains("prompt_rollback_rollbacks_total{mode=\"auto\",result=\"ok\"} 1\n"), "counted once");
    Ok(())
}

#[tokio::test]
async fn a_lost_reply_of_a_person_s_request_gives_the_original_answer() -> Result<()> {
    let (redis, proxy, receiver) = behind_a_proxy(&[]).await?;
    proxy.lose_next_reply_matching(commit());
    let answer = receiver.http.post_json("/api/rollback", &json!({"prompt": "p"})).await?;
    assert!(!proxy.loss_pending());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json()?;
    assert_eq!((&body["from_version"], &body["to_version"]), (&json!("v2"), &json!("v1")));
    assert_eq!(body.get("unchanged"), None, "it was this request that changed it");
    assert_rolled_back_once(&redis, "p").await?;

    proxy.lose_next_reply_matching(commit());
    let answer = receiver.http.post_json("/api/prompts/p/versions", &json!({"version": "v3"})).await?;
    assert_eq!((answer.status, &answer.json()?["created"]), (201, &json!(true)));
    Ok(())
}

#[tokio::test]
async fn a_lost_reply_of_the_kill_switch_is_said_and_not_asked_for_again() -> Result<()> {
    let (redis, proxy, receiver) = behind_a_proxy(&[]).await?;
    proxy.lose_next_reply_matching(r#""operator":"mia (api)""#);
    let pause = json!({"prompt": "p", "operator": "mia"});
    let answer = receiver.http.post_json("/api/pause", &pause).await?;
    assert!(!proxy.loss_pending());
    // a retry would answer that nothing changed, or pause what someone has resumed since
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(receiver.outcomes(&[critical("p")]).await?, ["held{paused}"]);
    let answer = receiver.http.post_json("/api/pause", &pause).await?;
    assert_eq!((answer.status, &answer.json()?["changed"]), (200, &json!(false)));
    assert_eq!(active(&redis, "p").await?.as_deref(), Some("v2"));
    Ok(())
}

#[tokio::test]
async fn a_lost_reply_of_a_load_is_asked_for_again() -> Result<()> {
    let (redis, proxy, receiver) = behind_a_proxy(&[]).await?;
    proxy.lose_next_reply_matching(keys().automatic()); // only a load begins with it
    assert_eq!(receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert!(!proxy.loss_pending());
    assert_rolled_back_once(&redis, "p").await
}

#[tokio::test]
async fn a_lost_reply_while_replicas_must_have_it() -> Result<()> {
    let redis = Redis::start()?;
    let replica = Redis::builder().replica_of(&redis).start()?;
    redis.wait_for_replicas(1).await?;
    let proxy = FaultProxy::start(redis.addr()).await?;
    let receiver = Receiver::ready(&proxy.url(), &REPLICATED).await?;
    ship(&receiver.http, "p").await?;
    proxy.lose_next_reply_matching(commit());
    assert_eq!(receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    assert!(!proxy.loss_pending());
    assert_rolled_back_once(&redis, "p").await?;
    assert_eq!(active(&replica, "p").await?.as_deref(), Some("v1"));
    Ok(())
}

#[tokio::test]
async fn each_reply_lost_in_turn_never_switches_twice() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = FaultProxy::start(redis.addr()).await?;
    let receiver = Receiver::ready(&proxy.url(), &[("GUARDS__MAX_AUTO_ROLLBACKS", "100")]).await?;
    for n in 0..12 {
        let name = format!("p-{n}");
        ship(&receiver.http, &name).await?;
        proxy.lose_reply_after(n, "");
        let got = eventually("answered", SOON, async || {
            receiver.deliver(&[critical(&name)]).await.ok().filter(|answer| answer.status == 200)
        })
        .await?;
        assert!([ROLLED_BACK, DUPLICATE].contains(&outcomes(&got)?[0].as_str()), "{}", got.text());
        assert_rolled_back_once(&redis, &name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_receiver_killed_at_any_moment_leaves_all_or_nothing() -> Result<()> {
    let redis = Redis::start()?;
    let mut process = process(&redis).env("PROMPT_ROLLBACK_GUARDS__MAX_AUTO_ROLLBACKS", "1000").start()?;
    ship(&process.http(), "p-0").await?;
    let names: Vec<String> = (1..300).map(|n| format!("p-{n}")).collect();
    crate::common::copy_prompt(&redis, "p-0", &names).await?;
    let alerts: Vec<_> = (0..300).map(|n| critical(&format!("p-{n}"))).collect();
    let http = process.http();
    let sent = alerts.clone();
    let delivery = tokio::spawn(async move { crate::common::deliver(&http, &sent).await });
    eventually("some are rolled back", SOON, async || {
        (count(&redis, &keys().automatic()).await.ok()? > 0).then_some(())
    })
    .await?;
    process.kill9();
    let _ = delivery.await;
    for n in 0..300 {
        let name = format!("p-{n}");
        let switched = active(&redis, &name).await?.as_deref() == Some("v1");
        let entries = log(&redis, &name).await?.iter().filter(|entry| entry["event"] == "rollback").count();
        assert_eq!(entries, usize::from(switched), "{name}");
    }
    process.restart()?;
    // as Alertmanager: a busy machine may need longer than one request may take
    let (got, _) = crate::common::deliver_until_taken(&process.http(), &alerts).await?;
    assert!(got.iter().all(|outcome| [ROLLED_BACK, DUPLICATE].contains(&outcome.as_str())), "{got:?}");
    for n in [0, 150, 299] {
        assert_rolled_back_once(&redis, &format!("p-{n}")).await?;
    }
    assert_eq!(count(&redis, &keys().incidents()).await?, 300);
    Ok(())
}
