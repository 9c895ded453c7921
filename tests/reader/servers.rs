//! Both example prompt servers, with the same users.

use anyhow::{Context, Result, ensure};
use prompt_rollback::reader::Split;
use prompt_rollback_testkit::readers::{ACTIVE, Server, python_server, rust_server, set};
use prompt_rollback_testkit::{Dir, ProcessBuilder, shipped};
use serde_json::json;

use crate::common::{SOON, eventually};

const ROUTING: &str = "{prompts}:routing:support";
const SPLIT: [(&str, &str); 2] = [("v1.9.0", "25"), ("v2.0.0", "75")];

async fn metrics(server: &Server) -> Result<String> {
    Ok(server.http().get("/metrics").await?.text())
}

#[tokio::test]
async fn the_example_servers_find_a_prompt_by_its_encoded_name() -> Result<()> {
    const NAME: &str = "Support bot: v2@eu";
    let redis = shipped::redis("receiver-password", "server-password")?.start()?;
    redis.cmd::<()>(&["SET", "{prompts}:active:Support%20bot%3A%20v2%40eu", "v1"]).await?;
    let env = [("REDIS_URL", format!("redis://prompt-server:server-password@{}", redis.addr()))];
    let rust = |dir: &Dir| Ok(ProcessBuilder::new(rust_server()?, dir.path()).args(["--prompt", NAME]));
    let python = |dir: &Dir| Ok(python_server(dir)?.args(["--prompt", NAME]));
    for server in [Server::start(&env, rust).await?, Server::start(&env, python).await?] {
        let served = eventually("it is served", SOON, async || {
            let answer = server.http().post_json("/complete", &json!({"prompt": NAME, "user": "u"})).await.ok()?;
            (answer.status == 200).then_some(answer)
        })
        .await?;
        ensure!(served.json()?["version"] == "v1", "{}", served.text());
        let text = metrics(&server).await?;
        ensure!(text.contains(&format!("prompt=\"{NAME}\"")) && !text.contains("%20"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn both_example_servers_choose_the_same_version_and_count_by_version() -> Result<()> {
    let redis = shipped::redis("receiver-password", "server-password")?.start()?;
    let [(first, share), (second, rest)] = SPLIT;
    redis.cmd::<()>(&["HSET", ROUTING, first, share, second, rest]).await?;
    redis.cmd::<()>(&["SET", ACTIVE, second]).await?;
    let env = [("REDIS_URL", format!("redis://prompt-server:server-password@{}", redis.addr()))];
    let servers = [
        Server::start(&env, |dir| Ok(ProcessBuilder::new(rust_server()?, dir.path()))).await?,
        Server::start(&env, python_server).await?,
    ];
    let split = Split::new(second, &SPLIT);
    for server in &servers {
        let at_zero = async || {
            let text = metrics(server).await.ok()?;
            SPLIT.iter().all(|(version, _)| text.contains(&format!("version=\"{version}\""))).then_some(())
        };
        eventually("both versions are exposed before anybody has asked", SOON, at_zero).await?;
        for number in 0..40 {
            let user = format!("user-{number}");
            ensure!(server.version(&user).await? == **split.version(&user), "{user}");
        }
        // without a user, requests are split instead of assigned to one version
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..40 {
            let body = server.http().get("/?prompt=support").await?.json()?;
            seen.insert(body["version"].as_str().context("a version")?.to_owned());
        }
        ensure!(seen.len() == 2, "{seen:?}");
        let user = format!("/?prompt=support&user={}", "user-7");
        let body = server.http().get(&user).await?.json()?;
        ensure!(body["version"] == **split.version("user-7"), "{body}");
    }
    // the end of the split: at once, not at the next read
    redis.cmd::<()>(&["DEL", ROUTING]).await?;
    set(&redis, first).await?;
    for server in &servers {
        eventually("all get the version that is active", SOON, async || {
            for number in 0..10 {
                if server.version(&format!("user-{number}")).await.ok()? != first {
                    return None;
                }
            }
            Some(())
        })
        .await?;
        let text = metrics(server).await?;
        let counted = |version: &str| {
            let line = |line: &&str| {
                line.starts_with("prompt_requests_total{")
                    && line.contains(&format!("version=\"{version}\""))
                    && line.contains("outcome=\"ok\"")
            };
            let line = text.lines().find(line)?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        ensure!(SPLIT.iter().all(|(version, _)| counted(version).is_some_and(|count| count > 0.0)), "{text}");
    }
    Ok(())
}
