//! Prompts, by the interfaces that outsiders rely on: the API, and the public keys of the default namespace.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Redis;
use crate::http::{Http, encode};

/// A prompt with `v1` to go back to, and `v2` active.
pub async fn ship(http: &Http, prompt: &str) -> Result<()> {
    let path = format!("/api/prompts/{}", encode(prompt));
    for (what, body, status) in [
        ("versions", json!({"version": "v1", "known_good": true}), 201),
        ("activate", json!({"version": "v1"}), 200),
        ("versions", json!({"version": "v2"}), 201),
        ("activate", json!({"version": "v2"}), 200),
    ] {
        let answer = http.post_json(&format!("{path}/{what}"), &body).await?;
        ensure!(answer.status == status, "{what} {body}: {} {}", answer.status, answer.text());
    }
    Ok(())
}

/// The version to serve now.
pub async fn active(redis: &Redis, prompt: &str) -> Result<Option<String>> {
    redis.cmd(&["GET", &format!("{{prompts}}:active:{prompt}")]).await
}

/// The deployment log, oldest entry first.
pub async fn log(redis: &Redis, prompt: &str) -> Result<Vec<HashMap<String, String>>> {
    let entries: Vec<(String, HashMap<String, String>)> =
        redis.cmd(&["XRANGE", &format!("{{prompts}}:log:{prompt}"), "-", "+"]).await?;
    Ok(entries.into_iter().map(|(_, fields)| fields).collect())
}

/// How often its log says that it was rolled back.
pub async fn rollbacks(redis: &Redis, prompt: &str) -> Result<usize> {
    Ok(log(redis, prompt).await?.iter().filter(|entry| entry["event"] == "rollback").count())
}
