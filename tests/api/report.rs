//! What a dry run would have done.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::common::{World, alert, critical, resolved};

const MINUTE: Duration = Duration::from_secs(60);

async fn rehearsing() -> Result<World> {
    World::with(&[("GUARDS__MODE", "dry-run")]).await
}

fn row(case: &Value) -> String {
    let text = |key: &str| case[key].as_str().unwrap_or_default();
    let after = case["after_seconds"].as_u64().map_or("-".to_owned(), |s| (s / 60).to_string());
    let [prompt, from, to] = ["prompt", "from", "to"].map(text);
    format!("{prompt} {from}>{to} {} {} {} {after}", text("trigger"), text("verdict"), text("instead"))
}

#[tokio::test]
async fn a_dry_run_is_judged_by_what_happened_instead() -> Result<()> {
    let world = rehearsing().await?;
    for prompt in ["a", "b", "c", "d", "e"] {
        world.ship(prompt).await?;
        world.receiver.outcomes(&[critical(prompt)]).await?;
    }
    // no rollback would have happened
    world.ship("f").await?;
    world.receiver.outcomes(&[alert("f", "v2", "high")]).await?;

    world.receiver.clock.advance(3 * MINUTE);
    world.receiver.outcomes(&[resolved(critical("b"))]).await?;
    world.receiver.clock.advance(4 * MINUTE);
    let (status, answer) = world.post("/api/rollback", json!({ "prompt": "a", "operator": "maya" })).await?;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = world.post("/api/prompts/c/activate", json!({ "version": "v1" })).await?;
    assert_eq!(status, 200, "{answer}");
    world.redis.cmd::<()>(&["SET", "{prompts}:active:d", "v3"]).await?;
    world.get("/api/prompts/d").await?;
    // resolved after a quiet minute
    prompt_rollback_testkit::eventually("b is resolved", crate::common::SOON, async || {
        let list = world.get("/api/incidents").await.ok()?;
        let all = list["incidents"].as_array()?.clone();
        all.iter().any(|one| one["prompt"] == "b" && one["phase"] == "resolved").then_some(())
    })
    .await?;

    let report = world.get("/api/report?since=1h").await?;
    let mut rows: Vec<_> = report["cases"].as_array().expect("cases").iter().map(row).collect();
    rows.sort();
    assert_eq!(
        rows,
        [
            "a v2>v1 PromptErrorRate right rolled_back_by_person 7",
            "b v2>v1 PromptErrorRate wrong resolved_by_itself 3",
            "c v2>v1 PromptErrorRate right put_back_by_hand 7",
            "d v2>v1 PromptErrorRate unclear other_version 7",
            "e v2>v1 PromptErrorRate unclear undecided -",
        ]
    );
    let count = json!({ "trigger": "PromptErrorRate", "right": 2, "wrong": 1, "unclear": 2, "minutes_saved": 14 });
    assert_eq!(report["triggers"], json!([count]));
    assert_eq!((&report["dry_run"], &report["partial"], &report["left_out"]), (&json!(true), &json!(false), &json!(0)));

    let later = world.get("/api/report?since=1m").await?;
    assert_eq!(later["cases"], json!([]), "{later}");
    Ok(())
}

#[tokio::test]
async fn what_another_guard_would_have_held_is_not_what_would_have_been_done() -> Result<()> {
    let world = rehearsing().await?;
    let body = json!({ "version": "v2" });
    world.post("/api/prompts/p/versions", body.clone()).await?;
    world.post("/api/prompts/p/activate", body).await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, ["held{dry_run}"]);
    let report = world.get("/api/report").await?;
    assert_eq!(report["cases"], json!([]), "there is no rollback target");
    Ok(())
}

#[tokio::test]
async fn since_must_be_understood() -> Result<()> {
    let world = rehearsing().await?;
    for since in ["yesterday", "-7d", "2126-01-01T00:00:00Z", "0s"] {
        let answer = world.http().get(&format!("/api/report?since={since}")).await?;
        assert_eq!(answer.status, 400, "{since}: {}", answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn an_old_incident_counts_also_after_it_has_ended() -> Result<()> {
    let world = rehearsing().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    world.receiver.clock.advance(3 * 60 * MINUTE);
    world.receiver.outcomes(&[critical("p")]).await?;
    let list = world.get("/api/incidents").await?;
    let id = list["incidents"][0]["id"].as_str().unwrap_or_default();
    let body = json!({ "decision": "dismiss", "operator": "maya" });
    let (status, answer) = world.post(&format!("/api/incidents/{id}/decide"), body).await?;
    assert_eq!(status, 200, "{answer}");
    let report = world.get("/api/report?since=1h").await?;
    let rows: Vec<_> = report["cases"].as_array().expect("cases").iter().map(row).collect();
    assert_eq!(rows, ["p v2>v1 PromptErrorRate wrong dismissed 0"], "{report}");
    Ok(())
}

#[tokio::test]
async fn an_old_open_incident_counts_once_it_would_be_rolled_back() -> Result<()> {
    let world = rehearsing().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[alert("p", "v2", "high")]).await?;
    world.receiver.clock.advance(3 * 60 * MINUTE);
    world.receiver.outcomes(&[critical("p")]).await?;
    let report = world.get("/api/report?since=1h").await?;
    assert_eq!(report["cases"].as_array().map(Vec::len), Some(1), "{report}");
    Ok(())
}
