//! The description of the API, tried against a receiver by schemathesis.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Dir, Receiver, Redis};
use serde_json::Value;

use crate::common::{critical, deliver, ship};

#[tokio::test]
async fn the_description_of_the_api_needs_no_token() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = start(&redis, "[server]\napi_token = \"hunter22\"\n")?;
    let described = receiver.http().get("/openapi.json").await?;
    ensure!(described.status == 200, "{described:?}");
    let described: Value = serde_json::from_slice(&described.body)?;
    ensure!(described["openapi"] == "3.1.0" && described["paths"]["/api/rollback"]["post"].is_object());
    Ok(())
}

fn start(redis: &Redis, config: &str) -> Result<Receiver> {
    Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .config(config)
        .start()
}

/// Requests that the description allows and requests that it forbids: no answer is a 5xx, or has a status or a shape that is
/// not described.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receiver_answers_as_its_description_says() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = start(&redis, "")?;
    let http = receiver.http();
    for prompt in ["p", "q"] {
        ship(&http, prompt).await?;
    }
    deliver(&http, &[critical("p")]).await?;
    let schemathesis = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/api/bin/schemathesis");
    let dir = Dir::new("schemathesis")?;
    let url = format!("http://{}", receiver.addr());
    let run = Command::new(&schemathesis)
        .current_dir(dir.path())
        .args(["run", &format!("{url}/openapi.json"), "--url", &url])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_schema_conformance,allow_header_conformance"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1", "--no-color"])
        // a stream ends after an hour, and schemathesis waits for the end of each answer
        .args(["--exclude-path", "/events"])
        .args(["--suppress-health-check", "all", "--continue-on-failure"])
        .output()
        .with_context(|| format!("{}: run scripts/install-deps test", schemathesis.display()))?;
    ensure!(run.status.success(), "{}\n{}", String::from_utf8_lossy(&run.stdout), receiver.log());
    Ok(())
}
