//! The web page: it shows the workspace, and its clicks are interactions.

use super::{App, actions, button, call, plain, post_question, request, workspace};
use anyhow::Result;
use prompt_rollback_testkit::Browser;
use prompt_rollback_testkit::Dir;
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
    let posted = question.posted_at().duration_since(std::time::UNIX_EPOCH)?;
    assert_eq!(format!("{}.{:06}", posted.as_secs(), posted.subsec_micros()), question.ts);
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
    // a request that a form on another site could send is refused
    assert_eq!(request(&url, &[("content-type", "text/plain")], click.to_string()).await?.status, 415);
    slack.delete(&question);
    let late = request(&url, &[("content-type", "application/json")], click.to_string()).await?;
    assert_eq!(late.body["acknowledged"], false);
    assert_eq!(app.received().len(), 1);
    let clicks: Vec<_> = slack.clicks().into_iter().map(|click| (click.user, click.action_id)).collect();
    assert_eq!(clicks, [("U2".to_owned(), "other".to_owned())]);
    Ok(())
}

/// A limit for a browser on a busy machine.
const BROWSER_SOON: Duration = Duration::from_secs(120);

/// What a malicious annotation may contain; each part must be shown as text.
const NASTY: &str = "&lt;script&gt;document.title='owned'&lt;/script&gt; <img src=x onerror=document.title='owned'> \
    <javascript:document.title='owned'|click> *bold* `code` &lt;!channel&gt; <@U1>";

#[tokio::test]
async fn a_person_decides_in_the_browser() -> Result<()> {
    let app = App::start(200, Duration::ZERO).await?;
    let slack = workspace().request_url(&app.url).start()?;
    let confirm = json!({
        "title": plain("Roll back?"), "text": {"type": "mrkdwn", "text": "From *v2* to *v1*."},
        "confirm": plain("Roll back"), "deny": plain("Cancel"), "style": "danger",
    });
    let mut approve = button("approve");
    approve["confirm"] = confirm;
    let option = json!({"text": plain("v1"), "value": "v1"});
    let menu = json!({"type": "static_select", "action_id": "other", "options": [option]});
    let text = json!({"type": "section", "text": {"type": "mrkdwn", "text": NASTY}});
    let blocks = json!([text, actions(&[approve, button("dismiss"), menu])]);
    let posted = call(&slack, "chat.postMessage", json!({"channel": "C1", "text": "?", "blocks": blocks})).await?.ok();
    let ts = posted["ts"].as_str().unwrap();

    let mut browser = Browser::open(&format!("{}/?me=U2#C1/{ts}", slack.url())).await?;
    let body = format!("#messages article[data-ts='{ts}'] .section");
    let read = format!("document.querySelector(\"{body}\")?.innerText");
    let shown = browser.until("the message", BROWSER_SOON, &read).await?;
    let shown = shown.as_str().unwrap();
    for part in ["<script>document.title='owned'</script>", "<!channel>", "bold", "@Maya Lind", "click"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(browser.eval("document.title").await?, "Slack double");
    assert_eq!(browser.eval(&format!("document.querySelectorAll(\"{body} :is(img, script, a)\").length")).await?, 0);

    // cancelled in the dialog: nothing is sent
    let approve = "#messages [data-action-id=approve]";
    browser.click(approve).await?;
    assert_eq!(browser.eval("document.querySelector('#confirm-text').innerText").await?, "From v2 to v1.");
    browser.click("#confirm-no").await?;
    browser.until("the dialog to close", BROWSER_SOON, "!document.querySelector('#confirm').open").await?;
    assert!(app.received().is_empty());

    browser.click(approve).await?;
    browser.click("#confirm-yes").await?;
    browser
        .until(
            "the acknowledgement",
            BROWSER_SOON,
            "document.querySelector('#toast').innerText.includes('acknowledged')",
        )
        .await?;
    let payload = app.received()[0].payload();
    assert_eq!((&payload["user"]["id"], &payload["actions"][0]["action_id"]), (&json!("U2"), &json!("approve")));
    browser.choose("#messages [data-action-id=other]", "v1").await?;
    slack.wait_for("the choice", BROWSER_SOON, |_| (app.received().len() == 2).then_some(())).await?;
    assert_eq!(app.received()[1].payload()["actions"][0]["selected_option"]["value"], "v1");

    // changes by the app appear without a reload
    let reply = json!({"channel": "C1", "thread_ts": ts, "text": "Rolled back by <@U2>."});
    call(&slack, "chat.postMessage", reply).await?.ok();
    let edit = json!({"channel": "C1", "ts": ts, "text": "done", "blocks": []});
    call(&slack, "chat.update", edit).await?.ok();
    call(&slack, "chat.postEphemeral", json!({"channel": "C1", "user": "U1", "text": "for Maya only"})).await?.ok();
    call(&slack, "chat.postEphemeral", json!({"channel": "C1", "user": "U2", "text": "for Omar only"})).await?.ok();
    let thread = "document.querySelector('#thread-messages').innerText.includes('Rolled back by @Omar Haddad.')";
    browser.until("the reply in the thread", BROWSER_SOON, thread).await?;
    browser
        .until("the whisper", BROWSER_SOON, "document.querySelector('#messages').innerText.includes('for Omar only')")
        .await?;
    let page = browser.eval("document.body.innerText").await?;
    assert!(!page.as_str().unwrap().contains("for Maya only"));
    assert_eq!(browser.eval("document.querySelectorAll('[data-action-id]').length").await?, 0, "the buttons are gone");
    let picture = Dir::new("picture")?;
    browser.screenshot(picture.path().join("page.png")).await?;
    assert!(std::fs::read(picture.path().join("page.png"))?.starts_with(b"\x89PNG"));
    Ok(())
}
