//! The web page that shows the workspace, and its two requests.

use super::interact;
use super::records::{Click, Message};
use super::server::Answer;
use super::state::{Shared, State, show_file};
use hyper::{HeaderMap, header};
use serde_json::{Value, json};

pub(super) const HTML: &str = include_str!("page.html");

/// Older ones are not shown, so that polling stays cheap.
const MAX_ROOTS: usize = 200;

/// Everything that the page shows, or nothing if it is up to date.
pub(super) fn state(shared: &Shared, query: &str) -> Answer {
    let since = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "since");
    let state = shared.lock();
    if since.is_some_and(|(_, since)| since == state.version.to_string()) {
        return Answer::of_json(200, &json!({"version": state.version}));
    }
    let channels: Vec<Value> = state
        .channels
        .values()
        .map(|channel| {
            let whispers = state.ephemeral.iter().filter(|message| message.channel == channel.id);
            let roots = state.in_channel(&channel.id).filter(|message| message.thread_ts.is_none());
            let mut roots: Vec<Value> = roots
                .rev()
                .take(MAX_ROOTS)
                .map(|root| {
                    let mut shown = show(shared, &state, root);
                    let replies = state.replies(&channel.id, &root.ts).map(|reply| show(shared, &state, reply));
                    shown["replies"] = replies.collect();
                    shown
                })
                .collect();
            roots.reverse();
            let whispers: Vec<Value> = whispers.map(|message| show(shared, &state, message)).collect();
            json!({
                "id": channel.id, "name": channel.name, "private": channel.private, "archived": channel.archived,
                "member": channel.bot_is_member, "with": channel.with, "messages": roots, "ephemeral": whispers,
            })
        })
        .collect();
    let users: Vec<Value> = state
        .users
        .values()
        .map(|user| json!({"id": user.id, "name": user.name, "real_name": user.real_name}))
        .collect();
    let groups: Vec<Value> =
        state.groups.values().map(|group| json!({"id": group.id, "handle": group.handle})).collect();
    Answer::of_json(
        200,
        &json!({
            "version": state.version, "workspace": shared.setup.team_name, "channels": channels, "users": users,
            "groups": groups, "bot": {"id": shared.setup.bot_user, "name": shared.setup.bot_name},
        }),
    )
}

fn show(shared: &Shared, state: &State, message: &Message) -> Value {
    let files = message.files.iter().filter_map(|id| state.files.get(id)).map(|file| show_file(file, &shared.setup));
    json!({
        "channel": message.channel, "ts": message.ts, "thread_ts": message.thread_ts, "user": message.user,
        "text": message.text, "blocks": message.blocks, "edited": message.edited.is_some(),
        "files": files.collect::<Vec<_>>(), "ephemeral_to": message.ephemeral_to, "broadcast": message.broadcast,
    })
}

/// A click: `{"user","channel","ts","action_id","option"?}`.
pub(super) async fn click(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Answer {
    // a form on another site cannot send this type, so no other page in the browser can click here
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return Answer::text(415, "application/json only");
    }
    let Ok(click) = serde_json::from_slice::<Value>(body) else {
        return Answer::text(400, "not JSON");
    };
    let text = |name: &str| click[name].as_str().unwrap_or_default().to_owned();
    let (channel, ts) = (text("channel"), text("ts"));
    let message = {
        let state = shared.lock();
        let whispered = state.ephemeral.iter().find(|message| message.channel == channel && message.ts == ts);
        state.message(&channel, &ts).or(whispered).cloned()
    };
    let Some(message) = message else {
        return Answer::of_json(200, &json!({"acknowledged": false, "error": "this message is gone"}));
    };
    let option = click["option"].as_str().map(str::to_owned);
    let (user, action_id) = (text("user"), text("action_id"));
    let click = Click { at: shared.clock.now(), user: user.clone(), channel, ts, action_id: action_id.clone() };
    shared.lock().clicks.push(click);
    match interact::click(shared, &user, &message, &action_id, &option).await {
        Ok(delivery) => Answer::of_json(
            200,
            &json!({
                "acknowledged": delivery.acknowledged, "status": delivery.status,
                "latency_ms": delivery.latency.as_secs_f64() * 1e3,
                "error": if delivery.acknowledged { "" } else { &delivery.body },
            }),
        ),
        Err(error) => Answer::of_json(200, &json!({"acknowledged": false, "error": format!("{error:#}")})),
    }
}
