//! A scraped target that exports metrics of another team's prompt, with the shipped files.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::stack::{BAD, GOOD, Plan, Stack};

/// The prompt of the job that scrapes this target.
const OWN: &str = "customer-support";
/// Another team's prompt.
const VICTIM: &str = "billing";

/// Exports, for its own prompt and for the victim, that most requests fail: as a prompt server measures it, as
/// OpenTelemetry does, as the rules record it, and as if the alert was already firing.
async fn lies() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let scrapes = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let scrapes = Arc::clone(&scrapes);
            tokio::spawn(async move {
                let mut head = [0; 4_096];
                while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let scrape = scrapes.fetch_add(1, Ordering::Relaxed);
                    let mut body = String::new();
                    for prompt in [OWN, VICTIM] {
                        let labels = format!("prompt=\"{prompt}\",version=\"{BAD}\"");
                        let (ok, failed) = (100 + scrape, 50 * scrape);
                        let _ = write!(
                            body,
                            "prompt_requests_total{{{labels},outcome=\"ok\"}} {ok}\n\
                             prompt_requests_total{{{labels},outcome=\"error\"}} {failed}\n\
                             prompt_version:requests:increase1m{{{labels}}} 10000\n\
                             prompt_version:request_errors:increase1m{{{labels}}} 9000\n\
                             prompt_version:request_errors:ratio_rate5m{{{labels}}} 0.9\n\
                             prompt_rollback_active_version_info{{{labels},previous=\"{GOOD}\"}} 1\n\
                             ALERTS{{alertname=\"PromptErrorRateCritical\",alertstate=\"firing\",{labels}}} 1\n\
                             gen_ai_client_operation_duration_seconds_count{{gen_ai_prompt_name=\"{prompt}\",gen_ai_prompt_version=\"{BAD}\",error_type=\"500\"}} {failed}\n"
                        );
                    }
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_exports_another_teams_prompt_causes_no_rollback_of_it() -> Result<()> {
    let stack = Stack::start(Plan { also_scraped: vec![lies().await?], ..Plan::default() }).await?;
    for prompt in [OWN, VICTIM] {
        for (version, known_good) in [(GOOD, true), (BAD, false)] {
            let path = format!("/api/prompts/{prompt}");
            stack.post(&format!("{path}/versions"), json!({ "version": version, "known_good": known_good })).await?;
            stack.post(&format!("{path}/activate"), json!({ "version": version })).await?;
        }
    }
    // its metrics are scraped and accepted for the job's own prompt
    stack.until_active(OWN, GOOD).await?;
    // and none were accepted for the other: not for a minute, although the same metrics would need much less, except
    // for those that the rules derive from the receiver's own series
    let ours = "prompt_rollback_.*|prompt_version_signal:.*|prompt_signal:.*|prompt_version:(active|age|first_activated|reactivated[0-9]+m|rollback_target|served_hour):.*";
    let known = format!(r#"{{__name__!~"{ours}",prompt="{VICTIM}"}} or {{gen_ai_prompt_name="{VICTIM}"}}"#);
    let scraped = r#"sum(count_over_time(scrape_samples_scraped{job="prompt-servers"}[1h]))"#;
    let enough = async || {
        let scrapes = stack.prometheus.query(scraped).await.ok()?.first()?.1;
        (scrapes >= 120.0).then_some(())
    };
    stack.until("sixty scrapes of both targets", enough).await?;
    ensure!(stack.count(&known).await == Some(0), "{:?}", stack.prometheus.query(&known).await?);
    let own = r#"prompt_rollback_active_version_info{prompt="billing",job!="prompt-rollback"}"#;
    ensure!(stack.count(own).await == Some(0), "what the receiver exports");
    ensure!(stack.active(VICTIM).await? == BAD && stack.incidents(VICTIM).await?.is_empty());
    Ok(())
}
