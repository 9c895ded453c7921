//! What is left of wrong tokens.

use anyhow::{Result, ensure};
use prompt_rollback_testkit::Receiver;

use crate::common::{Redis, SOON, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_leave_one_line_in_the_log_with_the_sender_and_without_the_token() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url())
        .env("PROMPT_ROLLBACK_SERVER__API_TOKEN", "the-right-token")
        .start()?;
    for n in 0..50 {
        let answer = receiver.http().token(format!("guess-{n}")).get("/api/prompts").await?;
        ensure!(answer.status == 401, "{}", answer.text());
    }
    let line = eventually("a line in the log", SOON, async || {
        receiver.log().lines().find(|line| line.contains("a request was refused")).map(str::to_owned)
    })
    .await?;
    ensure!(line.contains("wrong_token") && line.contains("127.0.0.1"), "{line}");
    let log = receiver.log();
    ensure!(log.matches("a request was refused").count() == 1 && !log.contains("guess-"), "{log}");
    let metrics = receiver.http().token("the-right-token").get("/metrics").await?.text();
    ensure!(metrics.contains("prompt_rollback_refused_requests_total{reason=\"wrong_token\"} 50\n"), "{metrics}");
    Ok(())
}
