use std::time::{Duration, Instant};

use prompt_rollback_testkit::slack::{self as double, Fault};
use prompt_rollback_testkit::{Flood, least, linear};
use serde_json::json;
use slack_morphism::prelude::{SlackBlockMarkDownText, SlackSectionBlock};

use super::answers::OkResponse;
use super::*;
use crate::config::Config;

fn workspace() -> double::Slack {
    double::Slack::builder()
        .user("U1", "maya", "Maya Lind")
        .group("S1", "on-call", &["U1", "U2"])
        .channel("C1", "on-call")
        .channel("C2", "incidents")
        .start()
        .expect("a workspace")
}

fn config(workspace: &double::Slack, more: &[(&str, &str)]) -> Config {
    let api_url = workspace.api_url();
    let base = [("API_URL", api_url.as_str()), ("BOT_TOKEN", workspace.bot_token()), ("SIGNING_SECRET", "s")];
    let slack = base.map(|(key, value)| (format!("SLACK__{key}"), value));
    let more = more.iter().map(|(key, value)| ((*key).to_owned(), *value));
    let env = slack.into_iter().chain(more).map(|(key, value)| (format!("PROMPT_ROLLBACK_{key}"), value.to_owned()));
    Config::load(None, env).expect("a config")
}

fn client(workspace: &double::Slack) -> Slack {
    Slack::new(&config(workspace, &[]).slack).expect("a client").expect("a token")
}

fn message(text: &str) -> Message {
    let block = SlackSectionBlock::new().with_text(SlackBlockMarkDownText::new(text.to_owned()).into());
    Message { text: text.to_owned(), blocks: vec![block.into()] }
}

fn mark(what: &str) -> MessageTag {
    MessageTag { incident: "01J".to_owned(), what: what.to_owned() }
}

#[tokio::test]
async fn a_message_is_posted_answered_and_edited() {
    let workspace = workspace();
    let slack = client(&workspace);
    let root = slack.post(Place::channel("#on-call"), &message("v2 fails"), &mark("root")).await.expect("posted");
    assert_eq!(root.channel, "C1", "the id, though a name was given");
    slack.post(Place::thread("C1", &root.ts), &message("worse"), &mark("reply-1")).await.expect("posted");
    slack.post_plain(Place::thread("on-call", &root.ts), "plain", &mark("reply-2")).await.expect("posted");
    slack.update(&root.channel, &root.ts, &message("v2 was rolled back")).await.expect("updated");

    let shown = workspace.roots("C1").remove(0);
    assert_eq!((shown.text.as_str(), shown.visible_text().as_str()), ("v2 was rolled back", "v2 was rolled back"));
    assert!(!shown.unfurl_links && !shown.unfurl_media);
    let payload = json!({"event_type": "prompt_rollback", "event_payload": {"incident": "01J", "what": "root"}});
    assert_eq!(shown.metadata, Some(payload), "also after an edit");
    let replies: Vec<_> = workspace.replies(&shown).into_iter().map(|reply| reply.visible_text()).collect();
    assert_eq!(replies, ["worse", "plain"]);

    let plain = Message { text: "only text".to_owned(), blocks: Vec::new() };
    slack.update(&root.channel, &root.ts, &plain).await.expect("updated");
    assert_eq!(workspace.roots("C1")[0].visible_text(), "only text", "the old blocks are gone");

    let link = slack.permalink(&root.channel, &root.ts).await.expect("a link");
    assert!(link.starts_with("http") && link.contains("C1"), "{link}");
}

#[tokio::test]
async fn a_reply_is_shown_in_the_channel_only_if_asked_for() {
    let workspace = workspace();
    let (slack, before) = (client(&workspace), jiff::Timestamp::now().as_millisecond());
    let root = slack.post(Place::channel("C1"), &message("v2 fails"), &mark("root")).await.expect("posted");
    for (broadcast, what) in [(false, "reply-1"), (true, "reply-2")] {
        let place = Place { broadcast, ..Place::thread("C1", &root.ts) };
        let reply = slack.post(place, &message("overdue"), &mark(what)).await.expect("posted");
        assert_eq!(workspace.message("C1", &reply.ts).expect("kept").broadcast, broadcast);
        assert_eq!(slack.find("C1", Some(&root.ts), &mark(what), before).await, Ok(Some(reply)));
    }
}

#[tokio::test]
async fn one_person_is_told() {
    let workspace = workspace();
    let slack = client(&workspace);
    let root = slack.post(Place::channel("C1"), &message("v2 fails"), &mark("root")).await.expect("posted");
    slack.post_ephemeral("C1", Some(&root.ts), "U1", "only approvers may").await.expect("told");
    let whisper = workspace.ephemeral("U1").remove(0);
    assert_eq!((whisper.text.as_str(), whisper.thread_ts), ("only approvers may", Some(root.ts)));
}

#[tokio::test]
async fn a_message_is_found_by_its_mark() {
    let workspace = workspace();
    let slack = client(&workspace);
    let now = jiff::Timestamp::now().as_millisecond();
    let root = slack.post(Place::channel("#on-call"), &message("v2 fails"), &mark("root")).await.expect("posted");
    let reply = slack.post(Place::thread("C1", &root.ts), &message("worse"), &mark("reply-1")).await.expect("posted");
    // more than one page, so that the older ones are on a later page
    for n in 0..210 {
        slack.post_plain(Place::channel("C1"), "chatter", &mark(&format!("other-{n}"))).await.expect("posted");
    }
    let fresh = client(&workspace); // as after a crash: knows no ids
    assert_eq!(fresh.find("#on-call", None, &mark("root"), now).await, Ok(Some(root.clone())));
    assert_eq!(fresh.find("C1", Some(&root.ts), &mark("reply-1"), now).await, Ok(Some(reply)));
    assert_eq!(fresh.find("C1", None, &mark("reply-1"), now).await, Ok(None), "replies are in their thread");
    assert_eq!(fresh.find("C1", Some(&root.ts), &mark("reply-2"), now).await, Ok(None));
    assert_eq!(fresh.find("C2", None, &mark("root"), now).await, Ok(None));
    let hour = 3_600_000;
    let ahead = fresh.find("C1", None, &mark("root"), now + hour).await;
    assert_eq!(ahead, Ok(Some(root.clone())), "Redis' clock may be ahead of Slack's");
    let later = now + 48 * hour;
    assert_eq!(fresh.find("C1", None, &mark("root"), later).await, Ok(None), "older than asked for");
    let stranger = MessageTag { incident: "01K".to_owned(), what: "root".to_owned() };
    assert_eq!(fresh.find("C1", None, &stranger, now).await, Ok(None));
    let nowhere = fresh.find("#nowhere", None, &mark("root"), now).await;
    assert_eq!(nowhere, Err(SlackError::Channel { code: "channel_not_found".to_owned() }));
    let gone = fresh.find("C1", Some("1700000000.000100"), &mark("reply-1"), now).await;
    assert_eq!(gone, Err(SlackError::Missing));
}

#[tokio::test]
async fn each_fault_has_one_meaning() {
    let workspace = workspace();
    let slack = client(&workspace);
    let seven = SlackError::RateLimited { retry_after: Duration::from_secs(7) };
    for (fault, kind) in [
        (Fault::rate_limited(7), "rate_limited"),
        (Fault::status(500), "retry"),
        (Fault::status(503), "retry"),
        (Fault::status(404), "retry"),
        (Fault::html(200), "retry"),
        (Fault::html(502), "retry"),
        (Fault::drop_connection(), "retry"),
        (Fault::status(408), "retry"),
        (Fault::body("{\"ok\":false}"), "retry"),
        (Fault::body("{\"ok\":true,\"chan"), "retry"),
        (Fault::error("internal_error"), "retry"),
        (Fault::error("update_failed"), "retry"),
        (Fault::error("a_code_of_next_year"), "retry"),
        (Fault::error(""), "retry"),
        (Fault::error("not_in_channel"), "channel"),
        (Fault::error("invalid_blocks"), "message"),
        (Fault::error("message_not_found"), "missing"),
        (Fault::error("invalid_auth"), "refused"),
    ] {
        workspace.heal();
        workspace.inject(fault.clone());
        let post = slack.post(Place::channel("C1"), &message("v2 fails"), &mark("root")).await.expect_err("a fault");
        assert_eq!(post.kind(), kind, "{fault:?}");
        let update = slack.update("C1", "1700000000.000100", &message("x")).await.expect_err("a fault");
        assert_eq!(update.kind(), kind, "{fault:?}");
        let whisper = slack.post_ephemeral("C1", None, "U1", "x").await.expect_err("a fault");
        assert_eq!(whisper.kind(), if kind == "message" { "refused" } else { kind }, "{fault:?}");
        assert!(kind != "rate_limited" || post == seven);
        for error in [post, update, whisper] {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("Server Error") && !shown.contains("upstream"), "a body shows: {shown}");
        }
    }
    assert!(workspace.messages("C1").is_empty());
    let workspace_gone = {
        let url = workspace.api_url();
        drop(workspace);
        url
    };
    let error = slack.post(Place::channel("C1"), &message("x"), &mark("root")).await.expect_err("nothing listens");
    assert!(matches!(error, SlackError::Retry { .. }), "{error:?} at {workspace_gone}");
}

#[tokio::test]
async fn a_lost_answer_leaves_a_message_that_is_found() {
    let workspace = workspace();
    let slack = client(&workspace);
    workspace.inject(Fault::lose_reply().on("chat.postMessage").times(1));
    let before = jiff::Timestamp::now().as_millisecond();
    let error = slack.post(Place::channel("#on-call"), &message("v2 fails"), &mark("root")).await.expect_err("lost");
    assert_eq!(error.kind(), "retry");
    let found = slack.find("#on-call", None, &mark("root"), before).await.expect("looked").expect("found");
    let roots = workspace.roots("C1");
    assert_eq!((roots.len(), roots[0].ts.as_str()), (1, found.ts.as_str()), "posted once");
}

#[tokio::test]
async fn files_are_found_in_the_thread_that_they_were_shared_in() {
    let workspace = workspace();
    let (slack, before) = (client(&workspace), jiff::Timestamp::now().as_millisecond());
    let root = slack.post(Place::channel("C1"), &message("v2 fails"), &mark("root")).await.expect("posted");
    let upload = || Upload { name: "a.md".to_owned(), title: "A draft".to_owned(), content: b"# A".to_vec() };
    assert_eq!(slack.find_file(&root, "a.md", before).await, Ok(None));
    workspace.inject(Fault::error("internal_error").applied().on("files.completeUploadExternal").times(1));
    let error = slack.upload(&root, "read this", vec![upload()]).await.expect_err("it may not be there");
    assert_eq!((error.kind(), error.is_final()), ("retry", false));
    let found = slack.find_file(&root, "a.md", before).await.expect("looked").expect("found");
    let shared = workspace.message("C1", &found.ts).expect("there");
    assert_eq!((shared.text.as_str(), shared.files.len()), ("read this", 1));
    assert_eq!(slack.find_file(&root, "b.md", before).await, Ok(None));
}

#[tokio::test]
async fn a_ping_says_whether_slack_takes_the_token() {
    let workspace = workspace();
    let slack = client(&workspace);
    assert_eq!(slack.ping().await, Ok(()));
    workspace.revoke(true);
    assert_eq!(slack.ping().await.map_err(|error| (error.kind(), error.is_final())), Err(("refused", false)));
    workspace.inject(Fault::html(200));
    assert_eq!(slack.ping().await.map_err(|error| error.kind()), Err("retry"));
}

#[tokio::test]
async fn a_hanging_slack_is_given_up() {
    let workspace = workspace();
    let slack = client(&workspace);
    workspace.inject(Fault::hang(Duration::from_secs(60)));
    let start = Instant::now();
    let error = slack.post(Place::channel("C1"), &message("x"), &mark("root")).await.expect_err("it hangs");
    assert_eq!(error, SlackError::retry("chat.postMessage", "no answer within 10 s"));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test]
async fn calls_that_slack_refuses_are_errors_of_the_right_kind() {
    let workspace = workspace();
    workspace.change_channel("C2", |channel| channel.bot_is_member = false).expect("changed");
    let slack = client(&workspace);
    let kind = async |channel: &str, message: &Message| match slack
        .post(Place::channel(channel), message, &mark("root"))
        .await
    {
        Ok(_) => "ok",
        Err(error) => error.kind(),
    };
    assert_eq!(kind("#nowhere", &message("x")).await, "channel");
    assert_eq!(kind("C2", &message("x")).await, "channel");
    assert_eq!(kind("C1", &message(&"x".repeat(3_001))).await, "message");
    assert_eq!(kind("C1", &message("x")).await, "ok");
    assert_eq!(slack.group_members("S1").await, Ok(vec!["U1".to_owned(), "U2".to_owned()]));
    assert_eq!(slack.group_members("S9").await.map_err(|error| error.kind()), Err("refused"));
    workspace.revoke(true);
    assert_eq!(kind("C1", &message("x")).await, "refused");
}

#[tokio::test]
async fn secrets_do_not_show() {
    let workspace = workspace();
    let slack = client(&workspace);
    assert!(!format!("{slack:?}").contains("xoxb"), "{slack:?}");
    assert!(Slack::new(&Config::default().slack).expect("a config").is_none(), "without a token");
}

fn judged(findings: &[(String, bool, String)]) -> Vec<(&str, bool)> {
    findings.iter().map(|(name, ok, _)| (name.as_str(), *ok)).collect()
}

#[tokio::test]
async fn a_probe_sees_what_is_well() {
    let workspace = workspace();
    let decider = ("DECIDERS__ON_CALL__CHANNEL", "C1");
    let approvers = ("DECIDERS__ON_CALL__APPROVERS", "U1,S1");
    let config = config(&workspace, &[decider, approvers, ("SLACK__APP_TOKEN", workspace.app_token())]);
    let slack = Slack::new(&config.slack).expect("a client").expect("a token");
    let findings = slack.probe(&config).await;
    let expected = [
        "slack token",
        "slack scopes",
        "slack channel #incidents",
        "slack channel C1",
        "slack user group S1",
        "slack app token",
    ];
    assert_eq!(judged(&findings), expected.map(|name| (name, true)), "{findings:?}");
    assert_eq!(findings[4].2, "members: 2");
    assert!(workspace.messages("C1").is_empty() && workspace.messages("C2").is_empty());
    assert!(workspace.calls_of("apps.connections.open").len() == 1 && workspace.sockets() == 0);
}

#[tokio::test]
async fn a_probe_sees_what_is_missing() {
    let workspace = workspace();
    let channels = [("DECIDERS__ON_CALL__CHANNEL", "#nowhere"), ("DECIDERS__PRODUCT_PM__CHANNEL", "C1")];
    let config = config(&workspace, &[channels[0], channels[1], ("DECIDERS__ON_CALL__APPROVERS", "S9")]);
    let slack = Slack::new(&config.slack).expect("a client").expect("a token");
    workspace.remove_scope("groups:history");
    workspace.change_channel("C1", |channel| channel.bot_is_member = false).expect("changed");
    workspace.change_channel("C2", |channel| channel.archived = true).expect("changed");
    let findings = slack.probe(&config).await;
    let expected = [
        ("slack token", true),
        ("slack scopes", false),
        ("slack channel #incidents", false),
        ("slack channel #nowhere", false),
        ("slack channel C1", false),
        ("slack user group S9", false),
    ];
    assert_eq!(judged(&findings), expected, "{findings:?}");
    assert!(findings[1].2.contains("groups:history") && !findings[1].2.contains("chat:write"), "{findings:?}");
    assert!(findings[2].2.contains("archived") && findings[4].2.contains("/invite"), "{findings:?}");
    workspace.revoke(true);
    assert_eq!(judged(&slack.probe(&config).await), [("slack token", false)]);
    workspace.inject(Fault::html(200));
    assert_eq!(judged(&slack.probe(&config).await), [("slack token", false)]);
}

#[test]
fn the_manifest_asks_for_what_is_used() {
    let manifest = include_str!("../../../config/slack-manifest.yaml");
    let bot = manifest.split_once("bot:\n").expect("scopes of the bot").1;
    let scopes = bot.lines().map_while(|line| line.trim().strip_prefix("- "));
    let scopes: Vec<_> = scopes.map(|line| line.split('#').next().unwrap_or_default().trim()).collect();
    assert_eq!(scopes, probe::SCOPES);
}

fn of(flood: &Flood) -> Slack {
    let env = [("SLACK__API_URL", flood.url()), ("SLACK__BOT_TOKEN", "xoxb-1".to_owned())];
    let env = env.into_iter().map(|(key, value)| (format!("PROMPT_ROLLBACK_{key}"), value));
    let config = Config::load(None, env).expect("a config");
    Slack::new(&config.slack).expect("a client").expect("a token")
}

#[tokio::test]
async fn a_slack_that_answers_too_much_or_without_end_is_given_up() {
    const POSTED: &str = r#"{"ok":true,"channel":"C1","ts":"1700000000.000100"}"#;
    // including its head it is still within the limit
    let flood = Flood::start(POSTED, Some(MAX_ANSWER - 1_000)).await.expect("a server");
    let posted = of(&flood).post(Place::channel("C1"), &message("x"), &mark("root")).await.expect("posted");
    assert_eq!(posted.channel, "C1");
    let again = of(&flood).post(Place::channel("C1"), &message("x"), &mark("root")).await;
    assert!(again.is_ok(), "each answer counts for itself: {again:?}");
    for length in [Some(MAX_ANSWER + 1), None] {
        let flood = Flood::start(POSTED, length).await.expect("a server");
        let too_large = |method| SlackError::retry(method, "the answer is larger than 4194304 bytes");
        let slack = of(&flood);
        let error = slack.post(Place::channel("C1"), &message("x"), &mark("root")).await.expect_err("too much");
        assert_eq!(error, too_large("chat.postMessage"));
        let error = slack.find("C1", None, &mark("root"), 0).await.expect_err("too much");
        assert_eq!(error, too_large("conversations.history"));
    }
}

#[tokio::test]
async fn an_upload_that_is_answered_with_too_much_is_given_up() {
    let (workspace, flood) = (workspace(), Flood::start("OK", None).await.expect("a server"));
    let slack = client(&workspace);
    let root = slack.post(Place::channel("C1"), &message("v2 fails"), &mark("root")).await.expect("posted");
    let place = json!({"ok": true, "upload_url": format!("{}/secret", flood.url()), "file_id": "F1"});
    workspace.inject(Fault::body(place.to_string()).on("files.getUploadURLExternal"));
    let upload = Upload { name: "a.md".to_owned(), title: "A draft".to_owned(), content: b"# A".to_vec() };
    let error = slack.upload(&root, "read this", vec![upload]).await.expect_err("too much").to_string();
    assert!(error.ends_with("is larger than 4194304 bytes") && !error.contains("secret"), "{error}");
}

#[test]
fn what_slack_answers_is_read_in_time_that_grows_with_its_size_alone() {
    let message = r#"{"type":"message","ts":"1700000000.000100","text":"v2 fails","blocks":[{"type":"section"}],
        "metadata":{"event_type":"prompt_rollback","event_payload":{"incident":"01J","what":"root"}},"files":[{"name":"a"}]}"#;
    linear("messages of a page", 50, |many| {
        let body = format!(r#"{{"ok":true,"messages":[{}]}}"#, vec![message; many].join(","));
        least(|| serde_json::from_str::<OkResponse<Messages>>(&body).expect("a page").answer.messages)
    });
    linear("channels of a page", 200, |many| {
        let channel = r#"{"id":"C1","name":"on-call","is_member":true,"topic":{"value":"who is on call"}}"#;
        let body = format!(r#"{{"ok":true,"channels":[{}]}}"#, vec![channel; many].join(","));
        least(|| serde_json::from_str::<OkResponse<Channels>>(&body).expect("a page").answer.channels)
    });
    linear("fields of a message", 500, |many| {
        let fields: Vec<String> = (0..many).map(|n| format!(r#""f{n}":"{n}""#)).collect();
        let body = format!(r#"{{"ok":true,"channel":"C1","ts":"1.0",{}}}"#, fields.join(","));
        least(|| serde_json::from_str::<OkResponse<MessageAddress>>(&body).expect("a place").answer.ts)
    });
}
