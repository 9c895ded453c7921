//! Clicks: the payload, its signature, and what the app may answer.

use super::{App, actions, button, call, plain, post_question, request, workspace};
use anyhow::Result;
use prompt_rollback_testkit::slack::Signature;
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

#[tokio::test]
async fn a_click_is_a_signed_form_with_the_whole_payload() -> Result<()> {
    let app = App::start(200, Duration::ZERO).await?;
    let slack = workspace().request_url(&app.url).start()?;
    let question = post_question(&slack).await?;
    let delivery = slack.click("U1", &question, "approve").send().await?;
    assert!(delivery.acknowledged);
    assert_eq!((delivery.status, delivery.body.as_str()), (200, "noted"));
    let received = app.received().remove(0);
    assert_eq!(received.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert!(received.header("x-slack-signature").is_some_and(|signature| signature.starts_with("v0=")));
    let payload = received.payload();
    assert_eq!(payload["type"], "block_actions");
    assert_eq!(payload["user"]["id"], "U1");
    assert_eq!(payload["team"]["id"], payload["user"]["team_id"]);
    assert_eq!(payload["channel"], json!({"id": "C1", "name": "on-call"}));
    assert_eq!(
        (&payload["message"]["ts"], &payload["container"]["message_ts"]),
        (&json!(question.ts), &json!(question.ts))
    );
    assert_eq!(payload["message"]["blocks"], Value::from(question.blocks));
    assert_eq!(payload["actions"][0]["action_id"], "approve");
    assert_eq!(payload["actions"][0]["value"], "value of approve");
    assert_eq!(payload["actions"][0]["block_id"], payload["message"]["blocks"][0]["block_id"]);
    Ok(())
}

/// The example of Slack's own documentation of signatures.
#[tokio::test]
async fn the_signature_is_slacks() -> Result<()> {
    let app = App::start(200, Duration::ZERO).await?;
    let secret = "8f742231b10e8888abcd99yyyzzz85a5";
    let slack = workspace().request_url(&app.url).signing_secret(secret).start()?;
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
        &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
        &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let at = UNIX_EPOCH + Duration::from_secs(1_531_420_618);
    slack.post_interaction(body, Signature::At(at)).await?;
    let received = app.received().remove(0);
    assert_eq!(received.header("x-slack-request-timestamp"), Some("1531420618"));
    let expected = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    assert_eq!((received.header("x-slack-signature"), received.body.as_str()), (Some(expected), body));
    Ok(())
}

#[tokio::test]
async fn signatures_can_be_wrong_old_or_absent() -> Result<()> {
    let app = App::start(401, Duration::ZERO).await?;
    let slack = workspace().request_url(&app.url).frozen_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000)).start()?;
    let question = post_question(&slack).await?;
    let old = UNIX_EPOCH + Duration::from_secs(1_800_000_000 - 301);
    for signature in [Signature::Valid, Signature::Wrong, Signature::At(old), Signature::Missing] {
        let delivery = slack.click("U1", &question, "approve").signature(signature).send().await?;
        assert_eq!((delivery.acknowledged, delivery.status), (false, 401));
    }
    let received = app.received();
    let of = |index: usize, name: &str| received[index].header(name).map(str::to_owned);
    assert_eq!(of(0, "x-slack-request-timestamp").as_deref(), Some("1800000000"));
    assert_eq!(of(2, "x-slack-request-timestamp").as_deref(), Some("1799999699"));
    assert_eq!(of(3, "x-slack-signature"), None);
    let signatures: std::collections::HashSet<_> = (0..3).map(|index| of(index, "x-slack-signature")).collect();
    assert_eq!(signatures.len(), 3);
    Ok(())
}

#[tokio::test]
async fn payloads_vary_as_slacks_do() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let click = || slack.click("U1", &question, "approve");
    let org_wide = click().org_wide().payload()?;
    assert!(org_wide["team"].is_null() && org_wide["is_enterprise_install"] == true);
    assert_eq!(click().without_message().payload()?.get("message"), None);
    let extended = click().field("brand_new", json!([1])).field("user", Value::Null).payload()?;
    assert_eq!((&extended["brand_new"], &extended["user"]), (&json!([1]), &Value::Null));
    let chosen = slack.click("U1", &question, "other").option("v2").payload()?;
    assert_eq!(chosen["actions"][0]["selected_option"]["value"], "v2");
    let block = question.blocks[0]["block_id"].as_str().unwrap();
    assert_eq!(chosen["state"]["values"][block]["other"]["selected_option"]["value"], "v2");
    assert!(slack.click("U1", &question, "other").option("v9").payload().is_err());
    assert!(slack.click("U1", &question, "other").payload().is_err(), "a menu wants an option");
    assert!(slack.click("U1", &question, "missing").payload().is_err());
    assert!(slack.click("U9", &question, "approve").payload().is_err());
    // an ephemeral message is not in the payload
    let whisper = json!({"channel": "C1", "user": "U1", "text": "?", "blocks": [actions(&[button("b")])]});
    call(&slack, "chat.postEphemeral", whisper).await?.ok();
    let payload = slack.click("U1", &slack.ephemeral("U1")[0], "b").payload()?;
    assert!(payload.get("message").is_none() && payload["container"]["is_ephemeral"] == true);
    Ok(())
}

#[tokio::test]
async fn a_late_click_is_what_an_old_screen_sends() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let edit = json!({"channel": "C1", "ts": question.ts, "text": "decided", "blocks": []});
    call(&slack, "chat.update", edit).await?.ok();
    let payload = slack.click("U1", &question, "approve").payload()?;
    assert_eq!(payload["actions"][0]["value"], "value of approve");
    assert_eq!(payload["message"]["text"], "decided");
    let current = slack.message("C1", &question.ts).unwrap();
    assert!(slack.click("U1", &current, "approve").payload().is_err());
    Ok(())
}

#[tokio::test]
async fn the_same_interaction_can_come_twice() -> Result<()> {
    let app = App::start(200, Duration::ZERO).await?;
    let slack = workspace().request_url(&app.url).start()?;
    let question = post_question(&slack).await?;
    let deliveries = slack.click("U1", &question, "approve").send_times(2).await?;
    assert_eq!(deliveries.len(), 2);
    let received = app.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].body, received[1].body);
    assert_eq!(received[0].header("x-slack-signature"), received[1].header("x-slack-signature"));
    Ok(())
}

#[tokio::test]
async fn an_app_that_is_away_or_too_slow_did_not_acknowledge() -> Result<()> {
    let app = App::start(200, Duration::from_secs(20)).await?;
    let slack = workspace().request_url(&app.url).start()?;
    let question = post_question(&slack).await?;
    let delivery = slack.click("U1", &question, "approve").send().await?;
    assert!(!delivery.acknowledged && delivery.status == 0);
    assert!(delivery.latency >= Duration::from_secs(3) && delivery.latency < Duration::from_secs(20));
    slack.set_request_url("http://127.0.0.1:9/");
    let delivery = slack.click("U1", &question, "approve").send().await?;
    assert!(!delivery.acknowledged && delivery.status == 0);
    Ok(())
}

#[tokio::test]
async fn response_urls_whisper_replace_and_delete() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let url = || {
        let payload = slack.click("U1", &question, "approve").payload().unwrap();
        payload["response_url"].as_str().unwrap().to_owned()
    };
    let kind = [("content-type", "application/json")];
    let reply = async |url: &str, body: Value| request(url, &kind, body.to_string()).await;
    reply(&url(), json!({"text": "Only you see this.", "thread_ts": question.ts})).await?.ok();
    let whisper = slack.ephemeral("U1").remove(0);
    assert_eq!((whisper.text.as_str(), whisper.thread_ts.as_deref()), ("Only you see this.", Some(&*question.ts)));
    reply(&url(), json!({"text": "All see this.", "response_type": "in_channel"})).await?.ok();
    assert_eq!(slack.roots("C1").last().unwrap().text, "All see this.");
    assert_eq!(slack.ephemeral("U1").len(), 1);
    reply(&url(), json!({"text": "Decided.", "replace_original": true})).await?.ok();
    let replaced = slack.message("C1", &question.ts).unwrap();
    assert_eq!((replaced.text.as_str(), replaced.action_ids().len(), replaced.history.len()), ("Decided.", 0, 1));
    let invalid = json!({"text": "x", "blocks": [{"type": "header", "text": plain(&"x".repeat(151))}]});
    assert_eq!(reply(&url(), invalid).await?.error(), "invalid_blocks");
    reply(&url(), json!({"delete_original": true})).await?.ok();
    assert_eq!(slack.message("C1", &question.ts), None);
    assert_eq!(slack.calls_of("response_url").len(), 5);
    Ok(())
}

#[tokio::test]
async fn response_urls_end_after_five_uses_or_half_an_hour() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let payload = slack.click("U1", &question, "approve").payload()?;
    let url = payload["response_url"].as_str().unwrap();
    let body = json!({"text": "x"}).to_string();
    for _ in 0..5 {
        request(url, &[], body.clone()).await?.ok();
    }
    assert_eq!(request(url, &[], body.clone()).await?.error(), "used_url");
    let payload = slack.click("U1", &question, "approve").payload()?;
    slack.clock().advance(Duration::from_secs(1801));
    assert_eq!(request(payload["response_url"].as_str().unwrap(), &[], body).await?.error(), "expired_url");
    Ok(())
}

#[tokio::test]
async fn a_trigger_opens_one_modal_within_three_seconds() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let trigger = || slack.click("U1", &question, "approve").payload().map(|payload| payload["trigger_id"].clone());
    let view = json!({"type": "modal", "title": plain("Why?"), "blocks": [{"type": "divider"}]});
    let open = async |trigger: &Value, view: &Value| {
        call(&slack, "views.open", json!({"trigger_id": trigger, "view": view})).await
    };
    let first = trigger()?;
    let long = json!({"type": "modal", "title": plain(&"x".repeat(25)), "blocks": []});
    assert_eq!(open(&first, &long).await?.error(), "invalid_arguments");
    open(&first, &view).await?.ok();
    assert_eq!(slack.views()[0]["title"]["text"], "Why?");
    assert_eq!(open(&first, &view).await?.error(), "exchanged_trigger_id");
    assert_eq!(open(&json!("1.2.3"), &view).await?.error(), "invalid_trigger_id");
    let second = trigger()?;
    slack.clock().advance(Duration::from_millis(3001));
    assert_eq!(open(&second, &view).await?.error(), "expired_trigger_id");
    Ok(())
}
