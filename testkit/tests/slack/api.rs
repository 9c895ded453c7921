//! The Web API: tokens, scopes, arguments, and what each method answers.

use super::{Reply, SOON, call, call_as, form, plain, post_question, request, workspace};
use anyhow::Result;
use prompt_rollback_testkit::slack::Slack;
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

#[tokio::test]
async fn tokens_are_checked() -> Result<()> {
    let slack = workspace().start()?;
    let url = format!("{}/auth.test", slack.api_url());
    assert_eq!(request(&url, &[], "").await?.error(), "not_authed");
    assert_eq!(call_as(&slack, "xoxb-other", "auth.test", json!({})).await?.error(), "invalid_auth");
    assert_eq!(call_as(&slack, slack.app_token(), "auth.test", json!({})).await?.error(), "not_allowed_token_type");
    assert_eq!(call(&slack, "apps.connections.open", json!({})).await?.error(), "not_allowed_token_type");
    let answer = call(&slack, "auth.test", json!({})).await?.ok();
    assert_eq!(answer["user_id"], slack.bot_user());
    // in a form the token may be an argument; in JSON it may not
    let token = format!("token={}", slack.bot_token());
    request(&url, &[("content-type", "application/x-www-form-urlencoded")], token).await?.ok();
    let token = json!({"token": slack.bot_token()}).to_string();
    assert_eq!(request(&url, &[("content-type", "application/json")], token).await?.error(), "not_authed");
    slack.revoke(true);
    assert_eq!(call(&slack, "auth.test", json!({})).await?.error(), "token_revoked");
    Ok(())
}

#[tokio::test]
async fn scopes_are_checked() -> Result<()> {
    let slack = workspace().scopes(&["users:read"]).app_scopes(&[]).start()?;
    let refused = call(&slack, "chat.postMessage", json!({"channel": "C1", "text": "x"})).await?;
    assert_eq!(refused.error(), "missing_scope");
    assert_eq!((&refused.body["needed"], &refused.body["provided"]), (&json!("chat:write"), &json!("users:read")));
    assert_eq!(refused.headers["x-oauth-scopes"], "users:read");
    assert_eq!(form(&slack, "users.info", &[("user", "U1")]).await?.ok()["user"]["real_name"], "Maya Lind");
    let refused = call_as(&slack, slack.app_token(), "apps.connections.open", json!({})).await?;
    assert_eq!(refused.error(), "missing_scope");
    let slack = workspace().start()?;
    slack.remove_scope("usergroups:read");
    assert_eq!(form(&slack, "usergroups.list", &[]).await?.error(), "missing_scope");
    Ok(())
}

#[tokio::test]
async fn bodies_are_forms_or_json_where_slack_takes_json() -> Result<()> {
    let slack = workspace().start()?;
    let blocks = json!([{"type": "section", "text": plain("hello")}]).to_string();
    let posted = form(&slack, "chat.postMessage", &[("channel", "#on-call"), ("blocks", &blocks)]).await?.ok();
    assert_eq!(posted["channel"], "C1");
    assert_eq!(posted["message"]["blocks"][0]["text"]["text"], "hello");
    // JSON arguments are ignored for a method that does not accept JSON
    assert_eq!(call(&slack, "users.info", json!({"user": "U1"})).await?.error(), "invalid_arguments");
    let bearer = format!("Bearer {}", slack.bot_token());
    let url = format!("{}/chat.postMessage", slack.api_url());
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    assert_eq!(request(&url, &headers, "{").await?.error(), "invalid_json");
    assert_eq!(request(&url, &headers, "[]").await?.error(), "json_not_object");
    let warned = request(&url, &headers, json!({"channel": "C1", "text": "x"}).to_string()).await?.ok();
    assert_eq!(warned["warning"], "missing_charset");
    assert_eq!(call(&slack, "chat.shout", json!({})).await?.error(), "unknown_method");
    Ok(())
}

async fn post(slack: &Slack, args: Value) -> Result<Reply> {
    call(slack, "chat.postMessage", args).await
}

#[tokio::test]
async fn posts_are_refused_as_slack_does() -> Result<()> {
    let slack = workspace().start()?;
    let error = async |args: Value| Ok::<_, anyhow::Error>(post(&slack, args).await?.error().to_owned());
    assert_eq!(error(json!({"text": "x"})).await?, "invalid_arguments");
    assert_eq!(error(json!({"channel": "C9", "text": "x"})).await?, "channel_not_found");
    assert_eq!(error(json!({"channel": "C3", "text": "x"})).await?, "is_archived");
    assert_eq!(error(json!({"channel": "#elsewhere", "text": "x"})).await?, "not_in_channel");
    assert_eq!(error(json!({"channel": "C5", "text": "x"})).await?, "channel_not_found");
    assert_eq!(error(json!({"channel": "C1"})).await?, "no_text");
    assert_eq!(error(json!({"channel": "C1", "text": " ", "blocks": []})).await?, "no_text");
    assert_eq!(error(json!({"channel": "C1", "text": "x".repeat(40_001)})).await?, "msg_too_long");
    assert_eq!(error(json!({"channel": "C1", "text": "x", "thread_ts": "1.000000"})).await?, "thread_not_found");
    assert_eq!(error(json!({"channel": "C1", "blocks": {"blocks": []}})).await?, "invalid_blocks_format");
    assert_eq!(error(json!({"channel": "C1", "blocks": "[{"})).await?, "invalid_blocks_format");
    let metadata = |metadata: Value| json!({"channel": "C1", "text": "x", "metadata": metadata});
    assert_eq!(error(metadata(json!({"event_type": "incident"}))).await?, "invalid_metadata_format");
    let payload = json!({"long": "x".repeat(9_000)});
    let long = json!({"event_type": "incident", "event_payload": payload});
    assert_eq!(error(metadata(long)).await?, "metadata_too_large");
    assert!(slack.messages("C1").is_empty(), "a refused post leaves nothing");
    post(&slack, json!({"channel": "C1", "text": "x".repeat(40_000)})).await?.ok();
    Ok(())
}

#[tokio::test]
async fn threads_hold_their_replies_in_order() -> Result<()> {
    let slack = workspace().start()?;
    let root = post(&slack, json!({"channel": "on-call", "text": "root"})).await?.ok();
    for text in ["first", "second"] {
        post(&slack, json!({"channel": "C1", "text": text, "thread_ts": root["ts"]})).await?.ok();
    }
    let roots = slack.roots("#on-call");
    assert_eq!(roots.iter().map(|root| root.text.as_str()).collect::<Vec<_>>(), ["root"]);
    let replies = slack.replies(&roots[0]);
    assert_eq!(replies.iter().map(|reply| reply.text.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    let nested = post(&slack, json!({"channel": "C1", "text": "x", "thread_ts": replies[0].ts})).await?;
    assert_eq!(nested.error(), "cannot_reply_to_message");
    let args = [("channel", "C1"), ("ts", &roots[0].ts)];
    let listed = form(&slack, "conversations.replies", &args).await?.ok();
    assert_eq!(listed["messages"].as_array().unwrap().len(), 3);
    assert_eq!((&listed["messages"][0]["reply_count"], &listed["messages"][2]["text"]), (&json!(2), &json!("second")));
    let missing = form(&slack, "conversations.replies", &[("channel", "C1"), ("ts", "1.000000")]).await?;
    assert_eq!(missing.error(), "thread_not_found");
    let args = [("channel", "C1"), ("message_ts", &replies[0].ts)];
    let link = form(&slack, "chat.getPermalink", &args).await?.ok()["permalink"].to_string();
    assert!(link.contains(&roots[0].ts), "{link}");
    Ok(())
}

#[tokio::test]
async fn edits_keep_what_they_do_not_name() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let metadata = json!({"event_type": "incident", "event_payload": {"seq": 1}});
    let edit = json!({"channel": "C1", "ts": question.ts, "text": "decided", "metadata": metadata});
    call(&slack, "chat.update", edit).await?.ok();
    let edited = slack.message("C1", &question.ts).unwrap();
    assert_eq!((edited.text.as_str(), &edited.blocks), ("decided", &question.blocks));
    assert!(edited.edited.is_some());
    assert_eq!(edited.history[0]["text"], "?");
    let edit = json!({"channel": "C1", "ts": question.ts, "text": "decided", "blocks": []});
    call(&slack, "chat.update", edit).await?.ok();
    let edited = slack.message("C1", &question.ts).unwrap();
    assert!(edited.blocks.is_empty());
    assert_eq!(edited.metadata, Some(metadata));
    assert_eq!(edited.history.len(), 2);
    Ok(())
}

#[tokio::test]
async fn edits_are_refused_as_slack_does() -> Result<()> {
    let slack = workspace().start()?;
    let question = post_question(&slack).await?;
    let update = async |channel: &str, ts: &str, text: &str| {
        let edit = json!({"channel": channel, "ts": ts, "text": text});
        Ok::<_, anyhow::Error>(call(&slack, "chat.update", edit).await?.error().to_owned())
    };
    // a post accepts a name; an edit needs the id that the post returned
    assert_eq!(update("#on-call", &question.ts, "x").await?, "channel_not_found");
    assert_eq!(update("C2", &question.ts, "x").await?, "message_not_found");
    assert_eq!(update("C1", &question.ts, &"x".repeat(4_001)).await?, "msg_too_long");
    assert_eq!(update("C1", &question.ts, "").await?, "no_text");
    slack.change_channel("C1", |channel| channel.archived = true)?;
    assert_eq!(update("C1", &question.ts, "x").await?, "is_inactive");
    slack.change_channel("C1", |channel| channel.archived = false)?;
    slack.delete(&question);
    assert_eq!(update("C1", &question.ts, "x").await?, "message_not_found");
    Ok(())
}

#[tokio::test]
async fn someone_elses_message_cannot_be_edited() -> Result<()> {
    let slack = workspace().start()?;
    let theirs = slack.say("U1", "on-call", "I am on it", None)?;
    let edit = json!({"channel": "C1", "ts": theirs.ts, "text": "x"});
    assert_eq!(call(&slack, "chat.update", edit).await?.error(), "cant_update_message");
    Ok(())
}

#[tokio::test]
async fn an_ephemeral_message_reaches_one_person() -> Result<()> {
    let slack = workspace().start()?;
    let whisper = |user: &str| json!({"channel": "C1", "user": user, "text": "You may not decide this."});
    call(&slack, "chat.postEphemeral", whisper("U1")).await?.ok();
    assert_eq!(call(&slack, "chat.postEphemeral", whisper("U9")).await?.error(), "user_not_in_channel");
    assert_eq!(slack.ephemeral("U1").len(), 1);
    assert!(slack.ephemeral("U2").is_empty() && slack.messages("C1").is_empty());
    let edit = json!({"channel": "C1", "ts": slack.ephemeral("U1")[0].ts, "text": "x"});
    assert_eq!(call(&slack, "chat.update", edit).await?.error(), "message_not_found");
    Ok(())
}

#[tokio::test]
async fn history_is_paged_bounded_and_hides_metadata() -> Result<()> {
    let slack = workspace().frozen_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000)).start()?;
    for seq in 0..5 {
        let metadata = json!({"event_type": "incident", "event_payload": {"seq": seq}});
        post(&slack, json!({"channel": "C1", "text": format!("{seq}"), "metadata": metadata})).await?.ok();
        slack.clock().advance(Duration::from_secs(10));
    }
    let first = form(&slack, "conversations.history", &[("channel", "C1"), ("limit", "3")]).await?.ok();
    let texts =
        |page: &Value| page["messages"].as_array().unwrap().iter().map(|m| m["text"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(&first), ["4", "3", "2"]);
    assert_eq!(first["has_more"], true);
    assert_eq!(first["messages"][0]["metadata"], json!({"event_type": "incident"}));
    let cursor = first["response_metadata"]["next_cursor"].as_str().unwrap();
    let args = [("channel", "C1"), ("limit", "3"), ("cursor", cursor), ("include_all_metadata", "true")];
    let second = form(&slack, "conversations.history", &args).await?.ok();
    assert_eq!(texts(&second), ["1", "0"]);
    assert_eq!(second["messages"][1]["metadata"]["event_payload"]["seq"], 0);
    assert_eq!(second["response_metadata"]["next_cursor"], "");
    let since = call(&slack, "conversations.history", json!({"channel": "C1", "oldest": "1800000030"})).await?.ok();
    assert_eq!(texts(&since), ["4"], "the bound itself is left out");
    let bad = [("channel", "C1"), ("cursor", "?")];
    assert_eq!(form(&slack, "conversations.history", &bad).await?.error(), "invalid_cursor");
    assert_eq!(form(&slack, "conversations.history", &[("channel", "C4")]).await?.error(), "not_in_channel");
    assert_eq!(form(&slack, "conversations.history", &[("channel", "C5")]).await?.error(), "channel_not_found");
    Ok(())
}

#[tokio::test]
async fn channels_groups_and_people_are_listed() -> Result<()> {
    let slack = workspace().start()?;
    let listed = form(&slack, "conversations.list", &[("exclude_archived", "true"), ("limit", "2")]).await?.ok();
    let names: Vec<_> = listed["channels"].as_array().unwrap().iter().map(|channel| &channel["name"]).collect();
    assert_eq!(names, ["on-call", "incidents"]);
    assert_ne!(listed["response_metadata"]["next_cursor"], "");
    assert_eq!(form(&slack, "conversations.info", &[("channel", "C5")]).await?.error(), "channel_not_found");
    let other = form(&slack, "conversations.info", &[("channel", "C4")]).await?.ok();
    assert_eq!(other["channel"]["is_member"], false);
    assert_eq!(call(&slack, "conversations.join", json!({"channel": "C3"})).await?.error(), "is_archived");
    call(&slack, "conversations.join", json!({"channel": "C4"})).await?.ok();
    post(&slack, json!({"channel": "C4", "text": "now I am in"})).await?.ok();
    assert_eq!(form(&slack, "usergroups.users.list", &[("usergroup", "S1")]).await?.ok()["users"], json!(["U1"]));
    slack.set_group_members("S1", &["U2"])?;
    assert_eq!(form(&slack, "usergroups.users.list", &[("usergroup", "S1")]).await?.ok()["users"], json!(["U2"]));
    assert_eq!(form(&slack, "usergroups.users.list", &[("usergroup", "S9")]).await?.error(), "no_such_subteam");
    assert_eq!(form(&slack, "usergroups.list", &[]).await?.ok()["usergroups"][0]["handle"], "on-call");
    assert_eq!(form(&slack, "users.info", &[("user", "U9")]).await?.error(), "user_not_found");
    Ok(())
}

#[tokio::test]
async fn a_users_id_opens_a_direct_message() -> Result<()> {
    let slack = workspace().start()?;
    let posted = post(&slack, json!({"channel": "U1", "text": "psst"})).await?.ok();
    let channel = posted["channel"].as_str().unwrap();
    assert!(channel.starts_with('D'));
    assert_eq!(slack.roots(channel)[0].text, "psst");
    Ok(())
}

#[tokio::test]
async fn files_are_announced_uploaded_and_shared() -> Result<()> {
    let slack = workspace().start()?;
    let announced = form(&slack, "files.getUploadURLExternal", &[("filename", "a.md"), ("length", "5")]).await?.ok();
    let complete = json!({"files": [{"id": announced["file_id"], "title": "A"}], "channel_id": "C1"});
    assert_eq!(call(&slack, "files.completeUploadExternal", complete.clone()).await?.error(), "file_not_found");
    let url = announced["upload_url"].as_str().unwrap();
    assert_eq!(request(url, &[], "12").await?.status, 400, "not the announced length");
    assert_eq!(request(url, &[], "12345").await?.status, 200);
    call(&slack, "files.completeUploadExternal", complete).await?.ok();
    let shared = slack.wait_for("the share", SOON, |slack| slack.roots("C1").pop()).await?;
    let file = slack.files().remove(0);
    assert_eq!((file.title.as_str(), file.content.as_deref()), ("A", Some(&b"12345"[..])));
    assert_eq!(shared.files, [file.id]);
    // the same bytes as the first part of a form
    let announced = form(&slack, "files.getUploadURLExternal", &[("filename", "b.md"), ("length", "5")]).await?.ok();
    let part = "--X\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n12345\r\n--X--\r\n";
    let kind = [("content-type", "multipart/form-data; boundary=X")];
    assert_eq!(request(announced["upload_url"].as_str().unwrap(), &kind, part).await?.status, 200);
    let none = form(&slack, "files.getUploadURLExternal", &[("filename", "a.md"), ("length", "0")]).await?;
    assert_eq!(none.error(), "invalid_arguments");
    Ok(())
}

#[tokio::test]
async fn calls_are_recorded() -> Result<()> {
    let slack = workspace().start()?;
    post(&slack, json!({"channel": "C1", "text": "x"})).await?.ok();
    post(&slack, json!({"channel": "C9", "text": "x"})).await?;
    let calls = slack.calls_of("chat.postMessage");
    assert_eq!(calls.iter().map(|call| call.applied).collect::<Vec<_>>(), [true, false]);
    let message = slack.messages("C1").remove(0);
    assert_eq!((message.unfurl_links, message.unfurl_media), (false, true));
    let args = json!({"channel": "C1", "text": "x", "unfurl_links": true, "unfurl_media": false});
    post(&slack, args).await?.ok();
    let message = slack.messages("C1").remove(1);
    assert_eq!((message.unfurl_links, message.unfurl_media), (true, false));
    assert_eq!((calls[0].status, &calls[0].args["channel"]), (200, &json!("C1")));
    assert_eq!(calls[1].result["error"], "channel_not_found");
    slack.forget_calls();
    assert!(slack.calls().is_empty());
    Ok(())
}
