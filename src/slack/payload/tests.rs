use std::time::{Duration, SystemTime};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prompt_rollback_testkit::slack::{Signature, Slack};
use proptest::prelude::*;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn approve() -> Value {
    json!({
        "type": "block_actions",
        "team": null,
        "user": {"id": "U1", "name": "maya", "username": "maya.lind", "team_id": "T1"},
        "channel": {"id": "C1", "name": "on-call"},
        "container": {"type": "message", "message_ts": "1700000001.000200", "channel_id": "C1"},
        "message": {"ts": "1700000001.000200", "blocks": [{"type": "new_in_2031"}]},
        "actions": [{"type": "button", "action_id": "approve", "value": "01J|v2|v1|1", "action_ts": "1700000009.5"}],
        "response_url": "https://hooks.example/1",
        "new_in_2031": [1, {"a": null}],
    })
}

fn only(payload: &Value) -> Click {
    match read(payload) {
        Ok(Interaction::Clicks(mut clicks)) if clicks.len() == 1 => clicks.remove(0),
        other => panic!("not one click: {other:?}"),
    }
}

/// The payload with one of its fields changed or, with `None`, removed.
fn with(path: &[&str], value: Option<Value>) -> Value {
    let mut payload = approve();
    let (last, parents) = path.split_last().expect("a path");
    let parent = parents.iter().fold(&mut payload, |value, key| &mut value[*key]);
    match value {
        Some(value) => parent[*last] = value,
        None => drop(parent.as_object_mut().map(|map| map.remove(*last))),
    }
    payload
}

#[test]
fn a_click_is_read() {
    let click = only(&approve());
    let expected = Click {
        user: "U1".into(),
        name: "maya".into(),
        channel: Some("C1".into()),
        thread: Some("1700000001.000200".into()),
        action_id: "approve".into(),
        value: "01J|v2|v1|1".into(),
        action_ts: "1700000009.5".into(),
        response_url: Some("https://hooks.example/1".into()),
        team: None,
        app: None,
    };
    assert_eq!(click, expected);
}

#[test]
fn a_click_says_which_workspace_and_app_it_comes_from() {
    let mut payload = with(&["team"], Some(json!({"id": "T1"})));
    payload["api_app_id"] = "A1".into();
    let click = only(&payload);
    assert_eq!((click.team.as_deref(), click.app.as_deref()), (Some("T1"), Some("A1")));
    assert_eq!(click.operator().as_str(), "maya (U1)");
}

#[test]
fn what_is_not_needed_may_be_absent_or_null() {
    for field in ["team", "message", "response_url", "new_in_2031", "container", "channel"] {
        for value in [None, Some(Value::Null)] {
            let click = only(&with(&[field], value));
            assert_eq!((click.user.as_str(), click.action_id.as_str()), ("U1", "approve"), "{field}");
        }
    }
    let click = only(&with(&["message"], None));
    assert_eq!(click.thread.as_deref(), Some("1700000001.000200"), "the container knows");
    let click = only(&with(&["channel"], None));
    assert_eq!(click.channel.as_deref(), Some("C1"), "the container knows");
}

#[test]
fn a_reply_is_traced_to_its_root() {
    let in_reply = with(&["message", "thread_ts"], Some("1700000000.000100".into()));
    assert_eq!(only(&in_reply).thread.as_deref(), Some("1700000000.000100"));
    let mut without_message = with(&["container", "thread_ts"], Some("1700000000.000100".into()));
    without_message["message"] = Value::Null;
    assert_eq!(only(&without_message).thread.as_deref(), Some("1700000000.000100"));
}

#[test]
fn a_user_without_a_name_is_called_by_id_and_long_names_are_cut() {
    let name = |user| only(&with(&["user"], Some(user))).name;
    assert_eq!(name(json!({"id": "U1", "username": "maya.lind"})), "maya.lind");
    assert_eq!(name(json!({"id": "U1", "name": "", "username": null})), "U1");
    assert_eq!(name(json!({"id": "U1", "name": "Maya\nLind\u{7}"})), "MayaLind");
    assert_eq!(name(json!({"id": "U1", "name": "é".repeat(100_000)})), "é".repeat(80));
}

#[test]
fn a_choice_is_a_value() {
    let option = json!({"type": "static_select", "action_id": "other_version", "action_ts": "1.2",
        "selected_option": {"text": {"type": "plain_text", "text": "v0"}, "value": "01J|v2|v0|1"}});
    let link = json!({"type": "button", "action_id": "runbook", "action_ts": "1.3", "url": "https://x.example"});
    let Ok(Interaction::Clicks(clicks)) = read(&with(&["actions"], Some(json!([option, link])))) else {
        panic!("no clicks");
    };
    let values: Vec<_> = clicks.iter().map(|click| (click.action_id.as_str(), click.value.as_str())).collect();
    assert_eq!(values, [("other_version", "01J|v2|v0|1"), ("runbook", "")]);
}

#[test]
fn a_payload_that_is_no_click_names_what_it_lacks() {
    assert_eq!(parse(br#"{"type":"view_submission"}"#), Ok(Interaction::Other("view_submission".into())));
    for (field, lacks) in [("type", "type"), ("user", "user"), ("actions", "actions")] {
        assert_eq!(read(&with(&[field], None)), Err(BadInteraction::Lacks(lacks)));
    }
    for field in ["action_id", "action_ts"] {
        let mut payload = approve();
        payload["actions"][0][field] = 7.into();
        assert_eq!(read(&payload), Err(BadInteraction::Lacks(field)));
    }
    for bad in [&b""[..], b"{", b"\xff\xfe", "[".repeat(100_000).as_bytes()] {
        assert_eq!(parse(bad), Err(BadInteraction::NotJson));
    }
    assert_eq!(parse(b"[]"), Err(BadInteraction::Lacks("type")));
    assert_eq!(parse_form(b"token=x&ssl_check=1"), Err(BadInteraction::NoPayload));
    assert_eq!(parse_form(b"payload=%7B"), Err(BadInteraction::NotJson));
}

#[test]
fn a_form_is_decoded() {
    let payload = with(&["user", "name"], Some("Maya + Lind & é 100%".into()));
    let encoded = utf8_percent_encode(&payload.to_string(), NON_ALPHANUMERIC).to_string();
    for form in [format!("payload={encoded}"), format!("a=b&payload={}&c=d", encoded.replace("%20", "+"))] {
        assert_eq!(parse_form(form.as_bytes()), read(&payload));
    }
    assert_eq!(only(&payload).name, "Maya + Lind & é 100%");
}

/// Signature, timestamp and body of a request from the double.
async fn signed(slack: &Slack, signature: Signature) -> (Option<String>, Option<String>, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    slack.set_request_url(format!("http://{}/", listener.local_addr().expect("an address")));
    let receive = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut received = Vec::new();
        loop {
            stream.read_buf(&mut received).await.expect("bytes");
            let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
            let header = |name: &str| {
                head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
            };
            let length: usize = header("content-length").and_then(|n| n.parse().ok()).expect("a length");
            if received.len() >= end + 4 + length {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("an answer");
                let (hash, at) = (header("x-slack-signature"), header("x-slack-request-timestamp"));
                return (hash, at, received[end + 4..].to_vec());
            }
        }
    };
    let (request, delivery) = tokio::join!(receive, slack.post_interaction("payload=%7B%7D", signature));
    assert!(delivery.expect("a delivery").acknowledged);
    request
}

#[tokio::test]
async fn only_slack_can_sign() {
    let slack = Slack::builder().start().expect("a workspace");
    let secret = SecretString::from(slack.signing_secret());
    let check = |secret: &SecretString, (hash, at, body): &(Option<String>, Option<String>, Vec<u8>)| {
        verify(secret, hash.as_deref(), at.as_deref(), body)
    };
    let good = signed(&slack, Signature::Valid).await;
    assert!(check(&secret, &good));
    assert!(!check(&SecretString::from("another"), &good));
    assert!(!check(&SecretString::from(""), &good));
    let (hash, at, body) = good.clone();
    assert!(!verify(&secret, None, at.as_deref(), &body));
    assert!(!verify(&secret, hash.as_deref(), None, &body));
    assert!(!verify(&secret, hash.as_deref(), Some("1700000000"), &body));
    assert!(!verify(&secret, hash.as_deref(), at.as_deref(), b"payload=%7B%7D "));
    assert!(!verify(&secret, hash.as_deref(), at.as_deref(), b"\xff"));
    assert!(!check(&secret, &signed(&slack, Signature::Wrong).await));
    assert!(!check(&secret, &signed(&slack, Signature::Missing).await));
    let now = SystemTime::now();
    assert!(check(&secret, &signed(&slack, Signature::At(now - Duration::from_secs(280))).await));
    assert!(!check(&secret, &signed(&slack, Signature::At(now - Duration::from_secs(310))).await));
    assert!(!check(&secret, &signed(&slack, Signature::At(now + Duration::from_secs(330))).await));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,9}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn hostile_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), text in any::<String>()) {
        let _ = parse(&bytes);
        let _ = parse_form(&bytes);
        let _ = parse_form(&[b"payload=", &bytes[..]].concat());
        prop_assert!(!verify(&SecretString::from("secret"), Some(&text), Some(&text), &bytes));
    }

    /// Whatever a field holds: an error, or a click that names its user and action.
    #[test]
    fn any_value_in_any_field_is_an_error_or_a_complete_click(
        path in prop::sample::select(vec![
            vec!["type"], vec!["user"], vec!["user", "id"], vec!["user", "name"], vec!["channel"], vec!["channel", "id"],
            vec!["container"], vec!["message"], vec!["message", "ts"], vec!["actions"], vec!["team"], vec!["response_url"],
        ]),
        value in any_json(),
    ) {
        if let Ok(Interaction::Clicks(clicks)) = read(&with(&path, Some(value))) {
            for click in clicks {
                prop_assert!(!click.user.is_empty() && !click.name.is_empty());
                prop_assert!(!click.action_id.is_empty() && !click.action_ts.is_empty());
                prop_assert!(click.name.chars().count() <= MAX_NAME || click.name == click.user);
            }
        }
    }
}

#[test]
fn what_people_call_themselves_has_no_hidden_characters() {
    let named = |name: &str| only(&with(&["user", "name"], Some(json!(name)))).operator().to_string();
    assert_eq!(named("ma\u{202e}ya\u{9b}2J\n"), "maya2J (U1)");
    assert_eq!(named("\u{200b}\u{2066}"), "U1", "nothing is left of the name");
}
