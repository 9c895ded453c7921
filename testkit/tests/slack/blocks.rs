//! The limits of Block Kit: blocks at the limit pass, blocks above it are rejected, and the error names the place.

use super::{actions, button, call, plain, workspace};
use anyhow::Result;
use prompt_rollback_testkit::slack::Slack;
use serde_json::{Value, json};

/// The errors of a post with these blocks; none if it was accepted.
async fn errors(slack: &Slack, blocks: &[Value]) -> Result<Vec<String>> {
    let answer = call(slack, "chat.postMessage", json!({"channel": "C1", "text": "x", "blocks": blocks})).await?;
    if answer.body["ok"] == true {
        return Ok(Vec::new());
    }
    assert_eq!(answer.error(), "invalid_blocks");
    let errors: Vec<String> = serde_json::from_value(answer.body["errors"].clone())?;
    let messages: Vec<String> = serde_json::from_value(answer.body["response_metadata"]["messages"].clone())?;
    assert_eq!(messages, errors.iter().map(|error| format!("[ERROR] {error}")).collect::<Vec<_>>());
    Ok(errors)
}

fn section(text: &str) -> Value {
    json!({"type": "section", "text": {"type": "mrkdwn", "text": text}})
}

fn with(mut element: Value, key: &str, value: Value) -> Value {
    element[key] = value;
    element
}

fn select(options: usize, text: usize, value: usize) -> Value {
    let option = |n: usize| json!({"text": plain(&"t".repeat(text)), "value": format!("{n:0>value$}")});
    let options: Vec<_> = (0..options).map(option).collect();
    json!({"type": "static_select", "action_id": "s", "options": options})
}

fn confirm(title: usize, text: usize, yes: usize, no: usize) -> Value {
    let text = json!({"type": "mrkdwn", "text": "x".repeat(text)});
    let plain = |length: usize| plain(&"x".repeat(length));
    with(button("b"), "confirm", json!({"title": plain(title), "text": text, "confirm": plain(yes), "deny": plain(no)}))
}

/// Each limit: blocks at it, blocks above it, and the place in the error.
fn limits() -> Vec<(&'static str, Vec<Value>, Vec<Value>, &'static str)> {
    let x = |length: usize| "x".repeat(length);
    let header = |length: usize| vec![json!({"type": "header", "text": plain(&x(length))})];
    let fields =
        |count: usize, length: usize| vec![json!({"type": "section", "fields": vec![plain(&x(length)); count]})];
    let buttons = |count: usize| vec![actions(&(0..count).map(|n| button(&format!("b{n}"))).collect::<Vec<_>>())];
    let context = |count: usize| vec![json!({"type": "context", "elements": vec![plain("x"); count]})];
    let image = |url: usize, alt: usize| vec![json!({"type": "image", "image_url": x(url), "alt_text": x(alt)})];
    let one = |element: Value| vec![actions(&[element])];
    let id = |length: usize| vec![with(section("x"), "block_id", x(length).into())];
    let placeholder = |length: usize| one(with(select(1, 1, 1), "placeholder", plain(&x(length))));
    vec![
        ("blocks", vec![json!({"type": "divider"}); 50], vec![json!({"type": "divider"}); 51], "/blocks"),
        ("section text", vec![section(&x(3000))], vec![section(&x(3001))], "/blocks/0/text/text"),
        (
            "section text, in characters",
            vec![section(&"é".repeat(3000))],
            vec![section(&"é".repeat(3001))],
            "/blocks/0/text/text",
        ),
        ("empty text", vec![section("x")], vec![section("")], "/blocks/0/text/text"),
        ("header", header(150), header(151), "/blocks/0/text/text"),
        ("fields", fields(10, 5), fields(11, 5), "/blocks/0/fields"),
        ("field", fields(1, 2000), fields(1, 2001), "/blocks/0/fields/0/text"),
        ("actions", buttons(25), buttons(26), "/blocks/0/elements"),
        ("no actions", buttons(1), buttons(0), "/blocks/0/elements"),
        ("context", context(10), context(11), "/blocks/0/elements"),
        ("image url", image(3000, 1), image(3001, 1), "/blocks/0/image_url"),
        ("image alt", image(1, 2000), image(1, 2001), "/blocks/0/alt_text"),
        ("block id", id(255), id(256), "/blocks/0/block_id"),
        (
            "button text",
            one(with(button("b"), "text", plain(&x(75)))),
            one(with(button("b"), "text", plain(&x(76)))),
            "/blocks/0/elements/0/text/text",
        ),
        (
            "button value",
            one(with(button("b"), "value", x(2000).into())),
            one(with(button("b"), "value", x(2001).into())),
            "/blocks/0/elements/0/value",
        ),
        (
            "button url",
            one(with(button("b"), "url", x(3000).into())),
            one(with(button("b"), "url", x(3001).into())),
            "/blocks/0/elements/0/url",
        ),
        (
            "action id",
            one(with(button("b"), "action_id", x(255).into())),
            one(with(button("b"), "action_id", x(256).into())),
            "/blocks/0/elements/0/action_id",
        ),
        (
            "style",
            one(with(button("b"), "style", "danger".into())),
            one(with(button("b"), "style", "warning".into())),
            "/blocks/0/elements/0/style",
        ),
        (
            "confirm title",
            one(confirm(100, 1, 1, 1)),
            one(confirm(101, 1, 1, 1)),
            "/blocks/0/elements/0/confirm/title/text",
        ),
        (
            "confirm text",
            one(confirm(1, 300, 1, 1)),
            one(confirm(1, 301, 1, 1)),
            "/blocks/0/elements/0/confirm/text/text",
        ),
        (
            "confirm yes",
            one(confirm(1, 1, 30, 1)),
            one(confirm(1, 1, 31, 1)),
            "/blocks/0/elements/0/confirm/confirm/text",
        ),
        ("confirm no", one(confirm(1, 1, 1, 30)), one(confirm(1, 1, 1, 31)), "/blocks/0/elements/0/confirm/deny/text"),
        ("options", one(select(100, 1, 3)), one(select(101, 1, 3)), "/blocks/0/elements/0/options"),
        ("no options", one(select(1, 1, 1)), one(select(0, 1, 1)), "/blocks/0/elements/0/options"),
        ("option text", one(select(1, 75, 1)), one(select(1, 76, 1)), "/blocks/0/elements/0/options/0/text/text"),
        ("option value", one(select(1, 1, 150)), one(select(1, 1, 151)), "/blocks/0/elements/0/options/0/value"),
        ("placeholder", placeholder(150), placeholder(151), "/blocks/0/elements/0/placeholder/text"),
    ]
}

#[tokio::test]
async fn every_limit_holds_exactly() -> Result<()> {
    let slack = workspace().start()?;
    for (name, at, above, place) in limits() {
        assert_eq!(errors(&slack, &at).await?, Vec::<String>::new(), "{name}: at the limit");
        let found = errors(&slack, &above).await?;
        assert!(found.iter().any(|error| error.ends_with(&format!("[json-pointer:{place}]"))), "{name}: {found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn malformed_blocks_are_refused() -> Result<()> {
    let slack = workspace().start()?;
    let mut no_text = button("b");
    no_text.as_object_mut().unwrap().remove("text");
    let cases = [
        ("no type", json!({"text": plain("x")})),
        ("an unknown type", json!({"type": "marquee"})),
        ("not an object", json!("section")),
        ("an unknown field", with(section("x"), "colour", "red".into())),
        ("neither text nor fields", json!({"type": "section"})),
        ("a bare string as text", json!({"type": "section", "text": "x"})),
        ("mrkdwn in a header", json!({"type": "header", "text": {"type": "mrkdwn", "text": "x"}})),
        ("mrkdwn on a button", actions(&[with(button("b"), "text", json!({"type": "mrkdwn", "text": "x"}))])),
        ("a button without text", actions(&[no_text])),
        ("a number as value", actions(&[with(button("b"), "value", 7.into())])),
        ("a text among actions", actions(&[plain("x")])),
        ("a button in a context", json!({"type": "context", "elements": [button("b")]})),
        (
            "a url in an option",
            actions(&[with(select(1, 1, 1), "options", json!([{"text": plain("x"), "value": "x", "url": ""}]))]),
        ),
        (
            "an initial option from elsewhere",
            actions(&[with(select(1, 1, 1), "initial_option", json!({"text": plain("x"), "value": "x"}))]),
        ),
        (
            "an input outside of a modal",
            json!({"type": "input", "label": plain("x"), "element": {"type": "plain_text_input"}}),
        ),
    ];
    for (name, block) in cases {
        assert_ne!(errors(&slack, &[block]).await?, Vec::<String>::new(), "{name}");
    }
    assert!(slack.messages("C1").is_empty());
    Ok(())
}

#[tokio::test]
async fn ids_are_unique_in_a_message() -> Result<()> {
    let slack = workspace().start()?;
    let twice = [actions(&[button("b")]), actions(&[button("b")])];
    assert_eq!(errors(&slack, &twice).await?.len(), 1);
    let twice = vec![with(section("x"), "block_id", "same".into()); 2];
    assert_eq!(errors(&slack, &twice).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn all_texts_together_have_a_limit() -> Result<()> {
    let slack = workspace().start()?;
    let long = vec![section(&"x".repeat(2000)); 5];
    assert_eq!(errors(&slack, &long).await?, Vec::<String>::new());
    let longer = [long, vec![section("x")]].concat();
    let answer = call(&slack, "chat.postMessage", json!({"channel": "C1", "text": "x", "blocks": longer})).await?;
    assert_eq!(answer.error(), "msg_blocks_too_long");
    Ok(())
}

#[tokio::test]
async fn blocks_are_completed_before_they_are_kept() -> Result<()> {
    let slack = workspace().start()?;
    let mut anonymous = button("b");
    anonymous.as_object_mut().unwrap().remove("action_id");
    assert!(errors(&slack, &[section("x"), actions(&[anonymous])]).await?.is_empty());
    let kept = slack.messages("C1").remove(0);
    assert!(kept.blocks.iter().all(|block| block["block_id"].is_string()));
    assert_eq!(kept.blocks[0]["text"]["verbatim"], false);
    assert_eq!(kept.blocks[1]["elements"][0]["text"]["emoji"], true);
    assert_eq!(kept.action_ids().len(), 1);
    assert_eq!(kept.text, "x");
    assert_eq!(kept.visible_text(), "x\nb");
    Ok(())
}
