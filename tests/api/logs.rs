//! `GET /api/log` and `prompt-rollback log --all`: the logs of all prompts, a page at a time.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::common::World;

/// Number of entries of each prompt: more than fit into one read, into one page, and none.
const PROMPTS: [(&str, usize); 5] = [("a", 3), ("b/c", 130), ("d", 1), ("e", 12), ("f", 101)];

async fn deploy(world: &World) -> Result<()> {
    for (prompt, changes) in PROMPTS {
        let path = prompt.replace('/', "%2F");
        for version in ["v1", "v2"] {
            world
                .post(&format!("/api/prompts/{path}/versions"), json!({"version": version, "known_good": true}))
                .await?;
        }
        for at in 0..changes {
            let version = if at % 2 == 0 { "v1" } else { "v2" };
            let body = json!({"version": version, "force": true, "operator": format!("op-{at}")});
            let (status, answer) = world.post(&format!("/api/prompts/{path}/activate"), body).await?;
            ensure!(status == 200, "{answer}");
        }
    }
    Ok(())
}

fn key(entry: &Value) -> String {
    format!("{} {}", entry["prompt"].as_str().unwrap_or_default(), entry["id"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_any_size_show_each_entry_once() -> Result<()> {
    let world = World::start().await?;
    deploy(&world).await?;
    let mut expected = BTreeSet::new();
    for (prompt, changes) in PROMPTS {
        let log = world.get(&format!("/api/prompts/{}/log?limit=1000", prompt.replace('/', "%2F"))).await?;
        let entries = log["entries"].as_array().cloned().unwrap_or_default();
        ensure!(entries.len() >= changes, "{prompt}: {}", entries.len());
        expected.extend(entries.iter().map(key));
    }
    for limit in [1, 7, 100, 1_000] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = world.get(&format!("/api/log?since=1h&limit={limit}{cursor}")).await?;
            let entries = page["entries"].as_array().cloned().unwrap_or_default();
            ensure!(entries.len() <= limit, "{limit}: {}", entries.len());
            found.extend(entries.iter().map(key));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={}", next.replace('/', "%2F").replace('@', "%40").replace('+', "%2B"));
        }
        let distinct: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(found.len(), distinct.len(), "limit {limit}: an entry came twice");
        assert_eq!(distinct, expected, "limit {limit}");
    }
    for (query, field) in [("since=x", "since"), ("cursor=x", "cursor"), ("cursor=p@x", "cursor"), ("limit=0", "limit")]
    {
        let answer = world.http().get(&format!("/api/log?{query}")).await?;
        ensure!(answer.status == 400 && answer.text().contains(field), "{query}: {}", answer.text());
    }
    // Redis takes no negative time
    for long_ago in ["100y", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z"] {
        let all = world.get(&format!("/api/log?since={long_ago}")).await?;
        ensure!(all["entries"].as_array().is_some_and(|entries| !entries.is_empty()), "{long_ago}: {all}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_exports_who_changed_what() -> Result<()> {
    let world = World::start().await?;
    deploy(&world).await?;
    let url = format!("http://{}", world.receiver.app.address);
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
        command.args(arguments).args(["--url", &url]);
        async move { anyhow::Ok(tokio::task::spawn_blocking(move || command.output()).await??) }
    };
    let exported = run(&["log", "--all", "--since", "1h", "--output", "json"]).await?;
    let exported: Value = serde_json::from_slice(&exported.stdout)?;
    let entries = exported["entries"].as_array().cloned().unwrap_or_default();
    ensure!(entries.len() >= PROMPTS.iter().map(|(_, changes)| changes).sum(), "{}", entries.len());
    let times: Vec<&str> = entries.iter().filter_map(|entry| entry["at"].as_str()).collect();
    ensure!(times.len() == entries.len() && times.is_sorted_by(|a, b| a >= b), "the latest first");
    let shown = run(&["log", "--all", "--limit", "5"]).await?;
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(text.lines().count() == 7 && text.contains("PROMPT") && text.contains("op-100 (api)"), "{text}");
    ensure!(text.ends_with("there are more; use --limit to show them\n"), "{text}");
    ensure!(exported["truncated"] == false, "{exported}");
    for wrong in [&["log"][..], &["log", "p", "--all"], &["log", "p", "--since", "1h"]] {
        assert_eq!(run(wrong).await?.status.code(), Some(2), "{wrong:?}");
    }
    Ok(())
}
