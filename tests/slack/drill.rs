//! Drills, through a real Alertmanager with the shipped config: all steps are shown, nothing is changed, and a missing
//! step is named.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::slack::{Fault, Slack};
use prompt_rollback_testkit::{Alertmanager, Port, eventually, shipped};
use serde_json::{Value, json};

use super::kit::{ON_CALL, Workspace, slack};
use crate::common::{Receiver, active, alert, assert_same, critical, dump, incidents, log, outcomes};

const SOON: Duration = Duration::from_secs(120);

struct Drills {
    workspace: Workspace,
    alertmanager: Option<Alertmanager>,
    url: String,
    _port: Port,
}

/// An Alertmanager that delivers to the receiver, with its config changed.
async fn start(slack: Slack, change: impl Fn(&str) -> Result<String>, more: &[(&str, &str)]) -> Result<Drills> {
    let port = Port::claim();
    let config = change(&shipped::alertmanager(&port.addr())?)?;
    let alertmanager = Alertmanager::builder(config).file("webhook_token", "unused").start()?;
    let (url, listen) = (alertmanager.url(), port.addr());
    let mut env = vec![("ALERTMANAGER__URLS", url.as_str()), ("SERVER__LISTEN", listen.as_str())];
    env.extend(more);
    let workspace = Workspace::with(slack, &env).await?;
    Ok(Drills { workspace, alertmanager: Some(alertmanager), url, _port: port })
}

fn as_shipped(config: &str) -> Result<String> {
    Ok(config.to_owned())
}

impl Drills {
    async fn drill(&self) -> Result<Value> {
        let (status, drill) = self.workspace.post("/api/drill", json!({"prompt": "p", "operator": "mia"})).await?;
        ensure!(status == 201, "{status} {drill}");
        Ok(drill)
    }

    async fn come(&self, drill: &Value, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let path = format!("/api/drill/{}", drill["id"].as_str().context("an id")?);
        eventually(what, SOON, async || self.workspace.get(&path).await.ok().filter(&is)).await
    }

    /// Runs the command against this receiver.
    async fn command(&self, wait: &str) -> Result<Output> {
        let url = format!("http://{}", self.workspace.receiver.app.address);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
        command.args(["drill", "p", "--wait", wait, "--operator", "mia"]).env("PROMPT_ROLLBACK_URL", url);
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    /// Nothing changed that a prompt server or a person would notice, except the message.
    async fn nothing_changed(&self, entries: usize) -> Result<()> {
        let redis = &self.workspace.redis;
        assert_eq!(active(redis, "p").await?.as_deref(), Some("v2"));
        assert_eq!(log(redis, "p").await?.len(), entries, "entries of the log");
        assert_eq!(incidents(redis, "p").await?.len(), 0, "incidents");
        Ok(())
    }
}

fn hop<'a>(drill: &'a Value, name: &str) -> &'a Value {
    drill["hops"].as_array().into_iter().flatten().find(|hop| hop["hop"] == name).unwrap_or(&Value::Null)
}

fn failed(output: &Output, with: &str) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && said.contains(with), "{with:?}: {output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_makes_the_whole_way_and_changes_nothing() -> Result<()> {
    let drills = start(slack()?, as_shipped, &[]).await?;
    let workspace = &drills.workspace;
    let entries = log(&workspace.redis, "p").await?.len();
    let state = |all: std::collections::BTreeMap<String, Vec<u8>>| -> std::collections::BTreeMap<_, _> {
        all.into_iter()
            .filter(|(key, _)| [":state:", ":active:", ":log:", ":incident"].iter().any(|k| key.contains(k)))
            .collect()
    };
    let before = state(dump(&workspace.redis).await?);
    let output = drills.command("40").await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{output:?}");
    let mut at = 0;
    for hop in [
        "posted to Alertmanager http://",
        "delivered by its webhook",
        "decided: a critical alert would roll back v2 → v1",
        "written to Redis",
        "shown in Slack, #on-call",
        "the test alert arrived end to end. Nothing was changed",
    ] {
        at += said[at..].find(hop).with_context(|| format!("{hop:?} after the previous step: {said}"))?;
    }
    drills.nothing_changed(entries).await?;
    assert_same(&before, &state(dump(&workspace.redis).await?), "the drill");
    let root = workspace.root("the drill's message", |_| true).await?;
    let text = root.visible_text();
    ensure!(text.contains("Drill: p v2") && text.contains("would roll back v2 → v1") && text.contains("mia"), "{text}");
    assert!(root.action_ids().is_empty(), "there is nothing to decide");
    // a real alert right after it acts as usual
    assert_eq!(workspace.receiver.outcomes(&[critical("p")]).await?, ["rolled_back{alert}"]);
    workspace.serves("v1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_would_hold_is_named_and_any_receiver_takes_any_hop() -> Result<()> {
    let drills = start(slack()?, as_shipped, &[]).await?;
    let entries = log(&drills.workspace.redis, "p").await?.len();
    // started at a receiver that Alertmanager does not deliver to
    let api = drills.workspace.slack.api_url();
    let more = [("ALERTMANAGER__URLS", drills.url.as_str())];
    let env = super::kit::env(&drills.workspace.slack, &api, &more);
    let other = Receiver::ready(&drills.workspace.redis.receiver_url(), &env).await?;
    drills.workspace.post("/api/pause", json!({"reason": "provider outage", "operator": "bo"})).await?;
    let started = other.http.post_json("/api/drill", &json!({"prompt": "p"})).await?;
    assert_eq!(started.status, 201, "{}", started.text());
    let drill = drills.come(&started.json()?, "the whole way", |drill| drill["done"] == true).await?;
    let decision = &hop(&drill, "decided")["decision"];
    assert_eq!((&decision["outcome"], &decision["reason"]), (&json!("held"), &json!("paused")), "{drill}");
    ensure!(decision["text"].as_str().unwrap_or_default().contains("provider outage"), "{decision}");
    drills.nothing_changed(entries).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alertmanager_that_is_away_is_named_and_tried_again() -> Result<()> {
    let mut drills = start(slack()?, as_shipped, &[]).await?;
    drills.alertmanager = None;
    let output = drills.command("6").await?;
    failed(&output, &format!("Alertmanager {} did not accept the alert: alertmanager: cannot reach", drills.url))?;
    ensure!(output.stdout.starts_with(b"drill 01"), "{output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_alertmanager_of_two_that_is_away_is_named() -> Result<()> {
    let gone = Port::claim();
    let port = Port::claim();
    let config = shipped::alertmanager(&port.addr())?;
    let alertmanager = Alertmanager::builder(config).file("webhook_token", "unused").start()?;
    let (both, listen) = (format!("{},http://{}", alertmanager.url(), gone.addr()), port.addr());
    let workspace = Workspace::with(slack()?, &[("ALERTMANAGER__URLS", &both), ("SERVER__LISTEN", &listen)]).await?;
    let url = alertmanager.url();
    let drills = Drills { workspace, alertmanager: Some(alertmanager), url, _port: port };
    let output = drills.command("8").await?;
    failed(&output, &format!("Alertmanager http://{} did not accept the alert", gone.addr()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said.contains(&format!("posted to Alertmanager {}", drills.url)), "{said}");
    ensure!(said.contains("shown in Slack"), "the path through the other one works: {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_does_not_lead_back_is_named() -> Result<()> {
    // configs from before there were drills
    let without = |config: &str| {
        shipped::replace(
            config,
            ", 'prompt_rollback_drill=\"\"']\n      receiver: pager\n      group_wait: 0s",
            "]\n      receiver: pager\n      group_wait: 0s",
        )
    };
    let drills = start(slack()?, without, &[]).await?;
    let output = drills.command("6").await?;
    failed(&output, "the alert did not arrive at the webhook")?;
    let hint = String::from_utf8_lossy(&output.stderr);
    ensure!(hint.contains("must let PromptRollbackDrill"), "{hint}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slack_that_is_away_is_named_and_told_when_it_is_back() -> Result<()> {
    let drills = start(slack()?, as_shipped, &[]).await?;
    let slack = &drills.workspace.slack;
    slack.inject(Fault::status(503).on("chat.postMessage"));
    failed(&drills.command("6").await?, "Slack does not show it: Slack does not accept it now")?;
    assert!(slack.roots(ON_CALL).is_empty());
    slack.heal();
    drills.workspace.root("the drill's message", |root| root.visible_text().contains("Drill: p v2")).await?;
    Ok(())
}

#[tokio::test]
async fn an_alert_that_names_no_drill_of_ours_is_ignored_and_writes_nothing() -> Result<()> {
    let drills = start(slack()?, as_shipped, &[]).await?;
    let workspace = &drills.workspace;
    workspace.ship("q").await?;
    let drill = drills.drill().await?;
    drills.come(&drill, "the whole way", |drill| drill["done"] == true).await?;
    workspace.quiet().await?;
    let named = |alertname: &str, prompt: &str, version: &str, id: &Value| {
        let mut alert = alert(prompt, version, "critical");
        alert["labels"]["alertname"] = alertname.into();
        alert["labels"]["prompt_rollback_drill"] = id.clone();
        alert
    };
    let (ours, id) = ("PromptRollbackDrill", &drill["id"]);
    let unknown = "01KAJ4B8N4GZQ6V9C2M7T5R3XW".into();
    let ignore = ["fence", "pace", "group", "once"];
    let kept = |all: std::collections::BTreeMap<String, Vec<u8>>| -> std::collections::BTreeMap<_, _> {
        all.into_iter().filter(|(key, _)| !ignore.iter().any(|kind| key.contains(&format!(":{kind}")))).collect()
    };
    let before = kept(dump(&workspace.redis).await?);
    let forged = [
        named(ours, "p", "v2", &unknown),
        named(ours, "p", "v2", &"}{prompts}:active:p".into()),
        named(ours, "q", "v2", id),
        named(ours, "p", "v1", id),
        named("PromptErrorRate", "p", "v2", id),
    ];
    for alert in forged {
        assert_eq!(
            workspace.receiver.outcomes(std::slice::from_ref(&alert)).await?,
            ["ignored{unknown_drill}"],
            "{alert}"
        );
    }
    // delivered again, for example by the other Alertmanager
    assert_eq!(workspace.receiver.outcomes(&[named(ours, "p", "v2", id)]).await?, ["ignored{drill}"]);
    assert_same(&before, &kept(dump(&workspace.redis).await?), "alerts that name a drill");
    // in one delivery with a real alert, each is handled as what it is
    let both = workspace.receiver.deliver(&[named(ours, "p", "v2", id), critical("p")]).await?;
    assert_eq!(outcomes(&both)?, ["ignored{drill}", "rolled_back{alert}"]);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_drilled_is_refused() -> Result<()> {
    let workspace = Workspace::start().await?;
    let refused = async |body: Value| -> Result<(u16, Value)> {
        let (status, answer) = workspace.post("/api/drill", body).await?;
        Ok((status, answer["error"]["code"].clone()))
    };
    assert_eq!(refused(json!({"prompt": "p"})).await?, (409, json!("no_alertmanager")));
    assert_eq!(refused(json!({"prompt": "a%2fb"})).await?, (400, json!("bad_request")));
    let answer = workspace.http().get("/api/drill/01KAJ4B8N4GZQ6V9C2M7T5R3XW").await?;
    assert_eq!((answer.status, answer.json()?["error"]["code"].clone()), (404, json!("unknown_drill")));
    let drills = start(slack()?, as_shipped, &[]).await?;
    let (status, answer) = drills.workspace.post("/api/drill", json!({"prompt": "nobody"})).await?;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("unknown_prompt")), "{answer}");
    Ok(())
}
