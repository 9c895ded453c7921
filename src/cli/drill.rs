//! `drill`: starts a drill, and prints each step as it completes.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::args::{Output, ReceiverArgs};
use super::client::encode;
use super::receiver::{body, connect, recognize};
use super::terminal::{CommandError, print, print_json};
use crate::api::{self, DrillStepView, DrillView};
use crate::cli::table::clean;
use crate::visible::shown_name;

const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Describes a completed step. Without control characters, because some of the text is external.
fn said_of(hop: &DrillStepView) -> String {
    let or = |text: Option<Option<String>>| clean(text.flatten().as_deref().unwrap_or("?"));
    match hop.hop.as_str() {
        "alertmanager" => format!("posted to Alertmanager {}", or(hop.url.clone())),
        "webhook" => "delivered by its webhook".to_owned(),
        "decided" => {
            let decision =
                hop.decision.as_ref().map(|decision| decision.as_ref().map(|decision| decision.text.clone()));
            format!("decided: a critical alert would {}", or(decision))
        }
        "committed" => "written to Redis".to_owned(),
        "slack" => format!("shown in Slack, {}", or(hop.channel.clone())),
        other => clean(other),
    }
}

/// Describes why a step is missing, and what to check.
fn missing(hop: &DrillStepView) -> String {
    let why = hop.error.as_deref().map(|error| format!(": {}", clean(error))).unwrap_or_default();
    let url = hop.url.clone().flatten().map(|url| format!(" {}", clean(&url))).unwrap_or_default();
    let (what, look) = match hop.hop.as_str() {
        "alertmanager" if url.is_empty() => (
            "no receiver has posted the alert".to_owned(),
            "the receivers' logs, the alert PromptRollbackDeadLetters, and whether all receivers support drills",
        ),
        "alertmanager" => (
            format!("Alertmanager{url} did not accept the alert{why}"),
            "alertmanager.urls, and `prompt-rollback check --config FILE --connect`",
        ),
        "webhook" => (
            "the alert did not arrive at the webhook".to_owned(),
            "`amtool config routes test` with the labels of the alert, the webhook's address, token and certificates \
             in alertmanager.yml, silences, and the log of Alertmanager. Its first route must let PromptRollbackDrill \
             pass, as the one of config/alertmanager.yml does",
        ),
        "decided" => (
            "the receiver got the alert, but did not decide about it".to_owned(),
            "the receiver's log and its /-/ready: most likely Redis",
        ),
        "committed" => (
            "Redis has not confirmed that the decision is replicated".to_owned(),
            "redis.min_replicas_acked, the replicas of Redis, and the receiver's log",
        ),
        "slack" => (
            format!("Slack does not show it{why}"),
            "`prompt-rollback check --config FILE --connect`, and prompt_rollback_slack_requests_total",
        ),
        other => (
            format!("the step {} is missing", clean(other)),
            "whether the receiver and the command line have the same version",
        ),
    };
    format!("{what}\ncheck: {look}")
}

/// Seconds between two moments, by Redis TIME.
fn since(started: &str, at: &str) -> f64 {
    let moment = |text: &str| text.parse::<jiff::Timestamp>().unwrap_or_default();
    moment(at).duration_since(moment(started)).as_secs_f64()
}

/// The completed steps in the order in which an alert takes them, and when each was completed. Alertmanager may deliver
/// the alert before its answer to the post is recorded: until the drill is `over`, later steps wait for that answer.
fn completed(drill: &DrillView, over: bool) -> Vec<(&DrillStepView, &str)> {
    let accepted = drill.hops.iter().any(|hop| hop.hop == "alertmanager" && hop.at.is_some());
    let is_next = |hop: &&DrillStepView| over || accepted || hop.hop == "alertmanager";
    drill.hops.iter().filter(is_next).filter_map(|hop| Some((hop, hop.at.as_deref()?))).collect()
}

pub async fn run(
    prompt: &str,
    wait: u64,
    operator: Option<String>,
    receiver: &ReceiverArgs,
) -> Result<(), CommandError> {
    let client = connect(receiver)?;
    let patience = Instant::now() + Duration::from_secs(wait);
    let request = body(&api::DrillRequest { prompt: prompt.to_owned(), operator });
    let mut answer = client.post("/api/drill", &request).await?;
    let text = receiver.format.output == Output::Text;
    let drill = read(receiver, &answer)?;
    if text {
        print(&format!(
            "{}\n",
            clean(&format!("drill {} of {} {}", drill.id, shown_name(&drill.prompt), drill.version))
        ))?;
    }
    let mut said: Vec<String> = Vec::new();
    loop {
        let drill = read(receiver, &answer)?;
        let over = drill.done || Instant::now() >= patience;
        for (hop, at) in completed(&drill, over) {
            let line = said_of(hop);
            if !said.contains(&line) {
                if text {
                    print(&format!("{:7.3} s  {line}\n", since(&drill.started_at, at)))?;
                }
                said.push(line);
            }
        }
        if over {
            if !text {
                print_json(&answer)?;
            }
            return end(&drill, text, wait);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        // a restart of the receiver is part of a game day: retry until the time is over
        match client.get(&format!("/api/drill/{}", encode(&drill.id))).await {
            Ok(next) => answer = next,
            Err(error) if Instant::now() >= patience => return Err(error.into()),
            Err(_) => {}
        }
    }
}

fn read(receiver: &ReceiverArgs, answer: &Value) -> Result<DrillView, CommandError> {
    // without steps, none would be missing
    recognize(receiver, answer, &["id", "hops"])?;
    DrillView::deserialize(answer)
        .map_err(|error| CommandError::Failed(format!("cannot parse the answer of {}: {error}", receiver.url)))
}

fn end(drill: &DrillView, text: bool, wait: u64) -> Result<(), CommandError> {
    if let Some(hop) = drill.hops.iter().find(|hop| hop.at.is_none()) {
        return Err(CommandError::Failed(format!("stopped after {wait} s: {}", missing(hop))));
    }
    if text {
        let slack = if drill.slack { "" } else { "; Slack is not configured" };
        print(&format!("the test alert arrived end to end{slack}. Nothing was changed\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_come_in_the_order_of_the_alert() {
        let drill = |posted: Option<&str>| {
            let hop = |name: &str, at: Option<&str>| serde_json::json!({"hop": name, "at": at});
            let hops =
                [hop("alertmanager", posted), hop("webhook", Some("2026-01-01T00:00:01Z")), hop("decided", None)];
            DrillView::deserialize(serde_json::json!({
                "id": "01", "prompt": "p", "version": "v2", "operator": "mia", "started_at": "2026-01-01T00:00:00Z",
                "slack": false, "done": false, "hops": hops,
            }))
            .unwrap()
        };
        let names =
            |drill: &DrillView, over| completed(drill, over).iter().map(|(hop, _)| hop.hop.clone()).collect::<Vec<_>>();
        let unanswered = drill(None);
        assert!(names(&unanswered, false).is_empty());
        assert_eq!(names(&unanswered, true), ["webhook"]);
        assert_eq!(names(&drill(Some("2026-01-01T00:00:02Z")), false), ["alertmanager", "webhook"]);
    }
}
