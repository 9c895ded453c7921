//! SIGHUP, sent to the program.

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Receiver, Redis, Wait, eventually};

use crate::common::{ROLLED_BACK, SOON, critical, deliver, outcomes, process, ship};

fn start(redis: &Redis, config: &str) -> Result<Receiver> {
    process(redis).config(config).start()
}

/// Waits until `text` has been logged `times`.
async fn logged(receiver: &Receiver, text: &str, times: usize) -> Result<()> {
    let logged = eventually(text, SOON, async || (receiver.log().matches(text).count() >= times).then_some(())).await;
    logged.with_context(|| receiver.log())
}

#[tokio::test]
async fn a_hangup_reloads_and_the_log_says_what_has_changed_without_secrets() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = start(&redis, "[server]\napi_token = \"hunter1\"\n")?;
    let http = receiver.http();
    for prompt in ["p", "q"] {
        ship(&http.clone().token("hunter1"), prompt).await?;
    }
    receiver.write_config(
        "[server]\napi_token = \"hunter2\"\n[guards]\nmode = \"dry-run\"\n[log]\nlevel = \"debug\"\nformat = \"json\"\n",
    )?;
    receiver.hangup()?;
    logged(&receiver, "config reloaded", 1).await?;
    assert_eq!(outcomes(&deliver(&http, &[critical("p")]).await?)?, ["held{dry_run}"]);
    let log = receiver.log();
    for part in [
        "guards.mode: \"armed\" → \"dry-run\"",
        "server.api_token: changed",
        "log.level: \"info\" → \"debug\"",
        "needs a restart",
        "log.format: \"text\" → \"json\"",
        "SIGHUP",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(http.clone().token("hunter1").get("/api/prompts").await?.status, 401);
    assert_eq!(http.clone().token("hunter2").get("/api/prompts").await?.status, 200);

    receiver.write_config("[server]\napi_token = 5\n[guards]\nmode = \"hunter3\"\ncooldwn = \"1m\"\n")?;
    receiver.hangup()?;
    logged(&receiver, "config not reloaded", 3).await?;
    let log = receiver.log();
    for part in ["toml:2: server.api_token", "toml:4: guards.mode", "toml:5: guards.cooldwn"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(outcomes(&deliver(&http, &[critical("q")]).await?)?, ["held{dry_run}"], "the old one holds");
    assert!(!log.contains("hunter1") && !log.contains("hunter2"), "{log}");
    assert_eq!(receiver.sigterm()?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_log_level_is_taken_over_while_running() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = start(&redis, "[log]\nlevel = \"error\"\n")?;
    let http = receiver.http();
    ensure!(!receiver.log().contains("listening"), "{}", receiver.log());
    receiver.write_config("[log]\nlevel = \"info\"\n")?;
    assert_eq!(http.post("/-/reload", "").await?.status, 200);
    // logged once the level is in force
    eventually("info is logged", SOON, async || {
        http.post("/api/pause", "").await.ok()?;
        receiver.log().contains("automation switched").then_some(())
    })
    .await
}

/// The program first listens for signals; then it reads the config, here from a pipe that makes it wait.
#[tokio::test]
async fn a_hangup_before_it_serves_does_not_end_it() -> Result<()> {
    let redis = Redis::start()?;
    let dir = prompt_rollback_testkit::Dir::new("hangup")?;
    let pipe = dir.path().join("token");
    ensure!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success());
    let mut receiver = process(&redis)
        .env("PROMPT_ROLLBACK_SERVER__API_TOKEN_FILE", pipe.display().to_string())
        .wait(Wait::Nothing)
        .start()?;
    // completes when there is a reader
    let opened = tokio::task::spawn_blocking(move || std::fs::OpenOptions::new().write(true).open(pipe));
    let mut writer = tokio::time::timeout(SOON, opened).await???;
    for _ in 0..20 {
        receiver.hangup()?;
    }
    std::io::Write::write_all(&mut writer, b"t0ken\n")?;
    drop(writer);
    logged(&receiver, "config reloaded: nothing has changed", 1).await?;
    let ready = async || receiver.http().get("/-/ready").await.ok().filter(|answer| answer.status == 200).map(drop);
    eventually("ready", SOON, ready).await?;
    assert_eq!(receiver.http().token("t0ken").get("/api/prompts").await?.status, 200);
    assert_eq!(receiver.sigterm()?.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_storm_of_hangups_loses_no_alert() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = start(&redis, "")?;
    let http = receiver.http();
    let prompts: Vec<_> = (0..20).map(|n| format!("p{n}")).collect();
    for prompt in &prompts {
        ship(&http, prompt).await?;
    }
    let configs = ["[guards]\nmax_auto_rollbacks = 100\n", "[guards]\nmax_auto_rollbacks = 200\n", "[guards\n"];
    receiver.write_config(configs[0])?;
    assert_eq!(http.post("/-/reload", "").await?.status, 200);
    for (n, prompt) in prompts.iter().enumerate() {
        for hangup in 0..25 {
            receiver.write_config(configs[(n + hangup) % configs.len()])?;
            receiver.hangup()?;
        }
        assert_eq!(outcomes(&deliver(&http, &[critical(prompt)]).await?)?, [ROLLED_BACK], "{prompt}");
    }
    receiver.write_config(configs[1])?;
    assert_eq!(http.post("/-/reload", "").await?.status, 200);
    assert_eq!(receiver.sigterm()?.code(), Some(0));
    assert!(!receiver.log().contains("panicked"), "{}", receiver.log());
    Ok(())
}

#[tokio::test]
async fn an_earlier_name_of_a_key_is_warned_of_at_the_start_and_at_each_reload() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = start(&redis, "[gradual]\nstage_hold = \"5m\"\n[deciders.on-call]\napprovers = [\"maya\"]\n")?;
    let warning = "gradual.stage_hold is deprecated, use gradual.hold";
    logged(&receiver, "deciders.on-call.approvers: found \"maya\"", 1).await?;
    logged(&receiver, warning, 1).await?;
    receiver.hangup()?;
    logged(&receiver, warning, 2).await?;
    receiver.write_config("[gradual]\nhold = \"5m\"\n[deciders.on-call]\napprovers = [\"maya\"]\n")?;
    receiver.hangup()?;
    logged(&receiver, "config reloaded: nothing has changed", 2).await?;
    ensure!(receiver.log().matches(warning).count() == 2, "{}", receiver.log());
    ensure!(receiver.sigterm()?.code() == Some(0));
    Ok(())
}
