//! The web page: it shows what is there, and its clicks are interactions.

use crate::{App, call, post_question, request, workspace};
use anyhow::Result;
use prompt_rollback_testkit::http::Http;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn the_page_and_its_state_are_served() -> Result<()> {
    let slack = workspace().start()?;
    let http = Http::new(slack.url());
    let page = http.get("/").await?.text();
    assert!(page.contains("Content-Security-Policy"));
    for unsafe_way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!page.contains(unsafe_way), "{unsafe_way} lets messages inject markup");
    }
    let question = post_question(&slack).await?;
    let reply = json!({"channel": "C1", "text": "a reply", "thread_ts": question.ts});
    call(&slack, "chat.postMessage", reply).await?.ok();
    call(&slack, "chat.postEphemeral", json!({"channel": "C1", "user": "U2", "text": "psst"})).await?.ok();
    let state = http.get("/ui/state?since=-1").await?.json()?;
    let channel = state["channels"].as_array().unwrap().iter().find(|channel| channel["id"] == "C1").unwrap();
    assert_eq!(channel["messages"][0]["replies"][0]["text"], "a reply");
    assert_eq!(channel["ephemeral"][0]["ephemeral_to"], "U2");
    let unchanged = http.get(&format!("/ui/state?since={}", state["version"])).await?.json()?;
    assert_eq!(unchanged, json!({"version": state["version"]}));
    Ok(())
}

#[tokio::test]
async fn a_click_on_the_page_reaches_the_app() -> Result<()> {
    let app = App::start(200, Duration::ZERO).await?;
    let slack = workspace().request_url(&app.url).start()?;
    let question = post_question(&slack).await?;
    let url = format!("{}/ui/click", slack.url());
    let click = json!({"user": "U2", "channel": "C1", "ts": question.ts, "action_id": "other", "option": "v2"});
    let clicked = request(&url, &[("content-type", "application/json")], click.to_string()).await?;
    assert_eq!(clicked.body["acknowledged"], true, "{}", clicked.body);
    let payload = app.received()[0].payload();
    assert_eq!(
        (&payload["user"]["id"], &payload["actions"][0]["selected_option"]["value"]),
        (&json!("U2"), &json!("v2"))
    );
    // What a form on another site could send is refused.
    assert_eq!(request(&url, &[("content-type", "text/plain")], click.to_string()).await?.status, 415);
    slack.delete(&question);
    let late = request(&url, &[("content-type", "application/json")], click.to_string()).await?;
    assert_eq!(late.body["acknowledged"], false);
    assert_eq!(app.received().len(), 1);
    Ok(())
}
