//! Alerts from several senders, each restricted to its prompts.

use anyhow::{Result, ensure};
use prompt_rollback_testkit::Dir;
use serde_json::{Value, json};

use crate::common::{DUPLICATE, ROLLED_BACK, Receiver, Redis, SOON, critical, deliver, outcomes, settings_of};

const CONFIG: &str = "
[server]
webhook_token = \"whole-token\"
[sources.a]
token_file = \"a\"
allowed_prompts = [\"team-a/*\"]
[sources.everything]
token = \"token-of-all\"
allowed_prompts = [\"*\"]
";

struct World {
    redis: Redis,
    receiver: Receiver,
    dir: Dir,
}

impl World {
    async fn start() -> Result<Self> {
        let (redis, dir) = (Redis::start()?, Dir::new("sources")?);
        dir.write("a", "token-of-a\n")?;
        let path = dir.write("prompt-rollback.toml", CONFIG)?;
        let receiver = Receiver::start_with(&settings_of(Some(&path), &redis.receiver_url(), &[])).await?;
        receiver.wait_ready(SOON).await?;
        for prompt in ["team-a/x", "team-b/y"] {
            crate::common::ship(&receiver.http, prompt).await?;
        }
        Ok(Self { redis, receiver, dir })
    }

    async fn deliver(&self, token: &str, alerts: &[Value]) -> Result<Vec<String>> {
        outcomes(&deliver(&self.receiver.http.clone().token(token), alerts).await?)
    }

    async fn active(&self, prompt: &str) -> Result<Option<String>> {
        crate::common::active(&self.redis, prompt).await
    }
}

#[tokio::test]
async fn a_source_raises_and_ends_alerts_of_its_own_prompts_only() -> Result<()> {
    let world = World::start().await?;
    let (own, others) = (critical("team-a/x"), critical("team-b/y"));
    let both = [others.clone(), own.clone()];
    let answer = deliver(&world.receiver.http.clone().token("token-of-a"), &both).await?;
    assert_eq!(outcomes(&answer)?, ["ignored{not_allowed}", ROLLED_BACK]);
    let first = &answer.json()?["results"][0];
    let message = first["message"].as_str().unwrap_or_default();
    ensure!(message.contains("source a") && message.contains("sources.a.allowed_prompts"), "{first}");
    assert_eq!((&first["prompt"], &first["version"]), (&json!("team-b/y"), &json!("v2")), "{first}");
    assert_eq!(world.active("team-a/x").await?.as_deref(), Some("v1"));
    assert_eq!(world.active("team-b/y").await?.as_deref(), Some("v2"));

    // nor does it end an alert of another sender
    assert_eq!(world.deliver("token-of-all", std::slice::from_ref(&others)).await?, [ROLLED_BACK]);
    let mut over = others.clone();
    over["status"] = "resolved".into();
    assert_eq!(world.deliver("token-of-a", std::slice::from_ref(&over)).await?, ["ignored{not_allowed}"]);
    assert_eq!(world.deliver("whole-token", &[others]).await?, [DUPLICATE], "it still fires");
    let counted = r#"prompt_rollback_alerts_total{severity="critical",outcome="ignored",reason="not_allowed"} 2"#;
    let metrics = world.receiver.http.get("/metrics").await?.text();
    ensure!(metrics.contains(&format!("{counted}\n")), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn a_heartbeat_counts_only_from_a_source_that_may_report_on_all() -> Result<()> {
    let world = World::start().await?;
    let mut beat = critical("team-a/x");
    beat["labels"]["alertname"] = "PromptRollbackHeartbeat".into();
    beat["annotations"]["evaluated_at"] = "1795221492".into();
    assert_eq!(world.deliver("token-of-a", &[beat.clone()]).await?, ["ignored{not_allowed}"]);
    assert!(world.receiver.app.engine.store.heartbeat().await?.is_none());
    assert_eq!(world.deliver("token-of-all", &[beat]).await?, ["ignored{heartbeat}"]);
    assert!(world.receiver.app.engine.store.heartbeat().await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_source_needs_its_token_and_may_change_its_file_and_prompts() -> Result<()> {
    let world = World::start().await?;
    for token in ["", "token-of-b", "token-of-a-"] {
        let answer = deliver(&world.receiver.http.clone().token(token), &[critical("team-a/x")]).await?;
        assert_eq!(answer.status, 401, "{token}: {}", answer.text());
    }
    assert_eq!(deliver(&world.receiver.http, &[critical("team-a/x")]).await?.status, 401, "no token");
    world.dir.write("a", "new-token-of-a\n")?;
    assert_eq!(world.deliver("new-token-of-a", &[critical("team-b/y")]).await?, ["ignored{not_allowed}"], "at once");
    world.dir.write("prompt-rollback.toml", CONFIG.replace("team-a/*", "team-*"))?;
    let reloaded = world.receiver.http.post("/-/reload", "").await?;
    ensure!(reloaded.status == 200 && reloaded.text().contains("sources.a.allowed_prompts"), "{}", reloaded.text());
    assert_eq!(world.deliver("new-token-of-a", &[critical("team-b/y")]).await?, [ROLLED_BACK]);
    Ok(())
}

#[tokio::test]
async fn a_drill_counts_only_from_a_source_that_may_report_on_its_prompt() -> Result<()> {
    let world = World::start().await?;
    let mut drill = critical("team-b/y");
    drill["labels"]["alertname"] = "PromptRollbackDrill".into();
    drill["labels"]["prompt_rollback_drill"] = "01KAHJ3Y3W8Q0000000000000A".into();
    assert_eq!(world.deliver("token-of-a", &[drill.clone()]).await?, ["ignored{not_allowed}"]);
    assert_eq!(world.deliver("token-of-all", &[drill]).await?, ["ignored{unknown_drill}"]);
    Ok(())
}
