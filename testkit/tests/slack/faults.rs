//! Each fault has its documented effect, on the calls that it names, as often as configured.

use super::{SOON, call, post_question, request, workspace};
use anyhow::Result;
use prompt_rollback_testkit::slack::{Fault, Slack};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn text() -> Value {
    json!({"channel": "C1", "text": "x"})
}

async fn posts(slack: &Slack) -> Result<super::Reply> {
    call(slack, "chat.postMessage", text()).await
}

#[tokio::test]
async fn refusals_of_all_kinds_apply_nothing() -> Result<()> {
    let slack = workspace().start()?;
    slack.inject(Fault::rate_limited(30).times(1));
    let limited = posts(&slack).await?;
    assert_eq!((limited.status, limited.error()), (429, "ratelimited"));
    assert_eq!(limited.headers["retry-after"], "30");
    for status in [500, 503] {
        slack.inject(Fault::status(status).times(1));
        assert_eq!(posts(&slack).await?.status, status);
    }
    slack.inject(Fault::html(200).times(1));
    let page = posts(&slack).await?;
    assert!(page.headers["content-type"].to_str()?.starts_with("text/html") && page.body.is_string());
    slack.inject(Fault::error("internal_error").times(1));
    assert_eq!(posts(&slack).await?.error(), "internal_error");
    slack.inject(Fault::drop_connection().times(1));
    assert!(posts(&slack).await.is_err());
    assert!(slack.messages("C1").is_empty());
    posts(&slack).await?.ok();
    assert_eq!(slack.messages("C1").len(), 1);
    assert_eq!(slack.calls().iter().filter(|call| call.applied).count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_lost_reply_was_applied() -> Result<()> {
    let slack = workspace().start()?;
    slack.inject(Fault::lose_reply().on("chat.postMessage").times(1));
    assert!(posts(&slack).await.is_err());
    assert_eq!(slack.messages("C1").len(), 1);
    let call = slack.calls().remove(0);
    assert_eq!((call.applied, call.status, &call.result["ok"]), (true, 0, &json!(true)));
    Ok(())
}

#[tokio::test]
async fn a_bad_answer_may_follow_a_call_that_was_handled() -> Result<()> {
    let slack = workspace().start()?;
    for (fault, status) in
        [(Fault::error("internal_error"), 200), (Fault::html(502), 502), (Fault::body("{\"ok\":"), 200)]
    {
        let before = slack.messages("C1").len();
        slack.inject(fault.clone().on("chat.postMessage").times(1));
        assert_eq!((posts(&slack).await?.status, slack.messages("C1").len()), (status, before), "{fault:?}");
        slack.inject(fault.clone().applied().on("chat.postMessage").times(1));
        assert_eq!((posts(&slack).await?.status, slack.messages("C1").len()), (status, before + 1), "{fault:?}");
        let call = slack.calls().pop().unwrap();
        assert_eq!((call.applied, call.status, &call.result["ok"]), (true, status, &json!(true)), "{fault:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_double_answers_with_an_injected_body_unchanged() -> Result<()> {
    let slack = workspace().start()?;
    slack.inject(Fault::body("{\"ok\":false}").times(1));
    assert_eq!(posts(&slack).await?.body, json!({"ok": false}));
    slack.inject(Fault::body("{\"ok\":true,\"chan").times(1));
    let cut = posts(&slack).await?;
    assert!(cut.headers["content-type"].to_str()?.starts_with("application/json") && cut.body.is_string());
    assert!(slack.messages("C1").is_empty());
    Ok(())
}

#[tokio::test]
async fn faults_strike_only_what_they_name() -> Result<()> {
    let slack = workspace().start()?;
    slack.inject(Fault::status(500).on("chat.update"));
    slack.inject(Fault::status(503).on("chat.postMessage").in_channel("C2").after(1).times(1));
    posts(&slack).await?.ok();
    let other = json!({"channel": "#incidents", "text": "x"});
    call(&slack, "chat.postMessage", other.clone()).await?.ok();
    assert_eq!(call(&slack, "chat.postMessage", other.clone()).await?.status, 503);
    call(&slack, "chat.postMessage", other).await?.ok();
    assert_eq!(call(&slack, "chat.update", text()).await?.status, 500);
    slack.heal_method("chat.update");
    assert_eq!(call(&slack, "chat.update", text()).await?.error(), "invalid_arguments");
    slack.inject(Fault::status(500));
    slack.heal();
    posts(&slack).await?.ok();
    Ok(())
}

#[tokio::test]
async fn a_hanging_call_is_seen_and_left_out_if_the_caller_goes() -> Result<()> {
    let slack = workspace().start()?;
    slack.inject(Fault::hang(Duration::from_millis(300)).times(2));
    let start = Instant::now();
    posts(&slack).await?.ok();
    assert!(start.elapsed() >= Duration::from_millis(300));
    tokio::select! {
        _ = posts(&slack) => panic!("answered while it hangs"),
        recorded = slack.wait_for("the call", SOON, |slack| (slack.calls().len() == 2).then_some(())) => recorded?,
    }
    tokio::time::sleep(Duration::from_millis(400)).await; // a call that hangs takes effect after 300 ms, if it does
    assert_eq!(slack.messages("C1").len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_slow_reply_comes_after_the_effect() -> Result<()> {
    let slack = workspace().start()?;
    slack.inject(Fault::slow_reply(Duration::from_millis(500)));
    let start = Instant::now();
    let answered = async {
        posts(&slack).await?.ok();
        anyhow::Ok(start.elapsed())
    };
    let seen = async {
        slack.wait_for("the message", SOON, |slack| slack.messages("C1").pop()).await?;
        anyhow::Ok(start.elapsed())
    };
    let (answered, seen) = tokio::try_join!(answered, seen)?;
    assert!(seen < answered && answered >= Duration::from_millis(500), "{seen:?}, {answered:?}");
    Ok(())
}

#[tokio::test]
async fn uploads_and_replies_to_interactions_fail_too() -> Result<()> {
    let slack = workspace().start()?;
    slack.inject(Fault::status(500).on("upload"));
    assert_eq!(request(&format!("{}/upload/F1", slack.url()), &[], "x").await?.status, 500);
    slack.inject(Fault::lose_reply().on("response_url").in_channel("C1"));
    let question = post_question(&slack).await?;
    let payload = slack.click("U1", &question, "approve").payload()?;
    let url = payload["response_url"].as_str().unwrap();
    assert!(request(url, &[], json!({"text": "noted"}).to_string()).await.is_err());
    assert_eq!(slack.ephemeral("U1").len(), 1);
    Ok(())
}
