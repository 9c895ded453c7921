//! Concurrent events, at two receivers with one Redis.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::common::kept::{count, keys};
use crate::common::{
    DUPLICATE, ROLLED_BACK, Receiver, Redis, alert, assert_rolled_back_once, copy_prompt, critical,
    deliver_until_taken, incidents, ship,
};

async fn two_receivers(env: &[(&str, &str)]) -> Result<(Redis, [Receiver; 2])> {
    let redis = Redis::start()?;
    let url = redis.url();
    let receivers = [Receiver::ready(&url, env).await?, Receiver::ready(&url, env).await?];
    Ok((redis, receivers))
}

/// The same alert as the other Alertmanager of a cluster sends it.
fn of_the_other(mut alert: Value) -> Value {
    alert["startsAt"] = json!("2026-11-21T00:38:17.001Z");
    alert["annotations"]["summary"] = json!("v2 fails (9.3 %)");
    alert
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alert_sent_a_hundred_times_to_two_replicas_is_one_rollback() -> Result<()> {
    let (redis, receivers) = two_receivers(&[]).await?;
    ship(&receivers[0].http, "p").await?;
    let deliveries = (0..100).map(|n| {
        let alert = if n / 2 % 2 == 0 { critical("p") } else { of_the_other(critical("p")) };
        let http = &receivers[n % 2].http;
        async move { deliver_until_taken(http, &[alert]).await }
    });
    let (mut switched, mut in_vain) = (0, 0);
    for got in futures_util::future::join_all(deliveries).await {
        let (got, refused) = got?;
        ensure!(got == [ROLLED_BACK] || got == [DUPLICATE], "{got:?}");
        switched += usize::from(got == [ROLLED_BACK]);
        in_vain += refused;
    }
    // a request that was answered with 503 may have succeeded anyway
    assert!(switched == 1 || switched == 0 && in_vain > 0, "{switched} deliveries did it");
    assert_rolled_back_once(&redis, "p").await?;
    let alerts = incidents(&redis, "p").await?[0]["alerts"].as_array().map(Vec::len);
    assert_eq!(alerts, Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn high_and_critical_at_once_at_two_replicas_are_one_incident() -> Result<()> {
    let (redis, receivers) = two_receivers(&[("GUARDS__MAX_AUTO_ROLLBACKS", "1000")]).await?;
    for n in 0..40 {
        let name = format!("p-{n}");
        ship(&receivers[0].http, &name).await?;
        let high = [alert(&name, "v2", "high")];
        let critical = [critical(&name)];
        let (high, critical) = tokio::join!(receivers[n % 2].outcomes(&high), receivers[1 - n % 2].outcomes(&critical));
        assert_eq!(critical?, [ROLLED_BACK]);
        // in either order; an alert after the switch is about a version without traffic
        let high = high?.remove(0);
        assert!(["incident_opened{page}", "ignored{not_active}"].contains(&high.as_str()), "{high}");
        assert_rolled_back_once(&redis, &name).await?;
        assert_eq!(incidents(&redis, &name).await?[0]["phase"], "verifying");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_pause_has_answered_no_automatic_rollback_commits() -> Result<()> {
    const PROMPTS: usize = 600;
    let (redis, receivers) = two_receivers(&[("GUARDS__MAX_AUTO_ROLLBACKS", "100000")]).await?;
    ship(&receivers[0].http, "p-0").await?;
    let names: Vec<String> = (1..PROMPTS).map(|n| format!("p-{n}")).collect();
    copy_prompt(&redis, "p-0", &names).await?;
    let switched = async || -> Result<BTreeSet<usize>> {
        let keys: Vec<String> = (0..PROMPTS).map(|n| format!("{{prompts}}:active:p-{n}")).collect();
        let mut command = vec!["MGET"];
        command.extend(keys.iter().map(String::as_str));
        let active: Vec<String> = redis.cmd(&command).await?;
        Ok((0..PROMPTS).filter(|n| active[*n] == "v1").collect())
    };

    // at any moment, many prompts of a delivery are between load and commit
    let hammering = [0, 1].map(|replica| {
        let http = receivers[replica].http.clone();
        let alerts: Vec<Value> = (replica..PROMPTS).step_by(2).map(|n| critical(&format!("p-{n}"))).collect();
        tokio::spawn(async move { deliver_until_taken(&http, &alerts).await })
    });
    crate::common::eventually("some are rolled back", crate::common::SOON, async || {
        (count(&redis, &keys().automatic()).await.ok()? >= 20).then_some(())
    })
    .await?;
    let paused = receivers[0].http.post_json("/api/pause", &json!({"operator": "mia"})).await?;
    let at_pause = switched().await?;
    assert_eq!(paused.status, 200);

    let mut held = BTreeSet::new();
    for (replica, delivery) in hammering.into_iter().enumerate() {
        let (got, refused) = delivery.await??;
        for (got, n) in got.iter().zip((replica..PROMPTS).step_by(2)) {
            let again = refused > 0 && got == DUPLICATE;
            ensure!(got == ROLLED_BACK || got == "held{paused}" || again, "{got}");
            if got == "held{paused}" || again && !at_pause.contains(&n) {
                held.insert(n);
            }
        }
    }
    assert_eq!(switched().await?, at_pause, "rolled back after pause had answered");
    let both = (at_pause.len(), held.len());
    assert!(both.0 > 0 && both.1 > 0, "{} were rolled back, {} held: nothing was in flight", both.0, both.1);
    assert!(held.is_disjoint(&at_pause) && both.0 + both.1 == PROMPTS, "{held:?} {at_pause:?}");
    assert_eq!(count(&redis, &keys().open()).await?, PROMPTS, "each is known");

    // after resuming, the next delivery of each acts
    assert_eq!(receivers[1].http.post_json("/api/resume", &json!({})).await?.status, 200);
    let waiting = (0..PROMPTS).find(|n| !at_pause.contains(n)).expect("one is held");
    let name = format!("p-{waiting}");
    assert_eq!(receivers[1].outcomes(&[critical(&name)]).await?, [ROLLED_BACK]);
    assert_rolled_back_once(&redis, &name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_budget_holds_however_many_arrive_at_once() -> Result<()> {
    let (redis, receivers) = two_receivers(&[("GUARDS__MAX_AUTO_ROLLBACKS", "3")]).await?;
    ship(&receivers[0].http, "p-0").await?;
    let names: Vec<String> = (1..60).map(|n| format!("p-{n}")).collect();
    copy_prompt(&redis, "p-0", &names).await?;
    let half =
        |replica: usize| -> Vec<Value> { (replica..60).step_by(2).map(|n| critical(&format!("p-{n}"))).collect() };
    let (even, odd) = (half(0), half(1));
    let (even, odd) = tokio::join!(receivers[0].outcomes(&even), receivers[1].outcomes(&odd));
    let mut switched = 0;
    for got in even?.into_iter().chain(odd?) {
        ensure!(got == ROLLED_BACK || got == "held{budget}", "{got}");
        switched += usize::from(got == ROLLED_BACK);
    }
    assert_eq!(switched, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_by_ci_in_the_middle_of_a_rollback_is_never_overwritten() -> Result<()> {
    let (redis, receivers) = two_receivers(&[("GUARDS__MAX_AUTO_ROLLBACKS", "1000")]).await?;
    for n in 0..40 {
        let name = format!("p-{n}");
        ship(&receivers[0].http, &name).await?;
        let key = format!("{{prompts}}:active:{name}");
        let alerts = [critical(&name)];
        let set = ["SET", key.as_str(), "v3"];
        let (got, set) = tokio::join!(receivers[0].outcomes(&alerts), redis.cmd::<()>(&set));
        set?;
        let got = got?.remove(0);
        assert!([ROLLED_BACK, "ignored{not_active}"].contains(&got.as_str()), "{got}");
        // SET wins in either order: a switch after it would have seen v3
        assert_eq!(crate::common::active(&redis, &name).await?.as_deref(), Some("v3"), "{name}: {got}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_who_roll_back_at_once_do_it_once() -> Result<()> {
    let (redis, receivers) = two_receivers(&[]).await?;
    for n in 0..20 {
        let name = format!("p-{n}");
        ship(&receivers[0].http, &name).await?;
        let body = json!({"prompt": name, "target_version": "v1"});
        let (one, two) = tokio::join!(
            receivers[0].http.post_json("/api/rollback", &body),
            receivers[1].http.post_json("/api/rollback", &body)
        );
        let answers = [one?.json()?, two?.json()?];
        let unchanged = answers.iter().filter(|answer| answer["unchanged"] == true).count();
        assert!(answers.iter().all(|answer| answer["success"] == true) && unchanged == 1, "{answers:?}");
        assert_rolled_back_once(&redis, &name).await?;
    }
    Ok(())
}
