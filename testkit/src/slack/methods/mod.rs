//! The methods of the Web API that the double knows.

mod chat;
mod directory;
mod files;

pub(super) use chat::{Content, content, whisper};

use super::api::{Args, Outcome, Refusal};
use super::state::{Shared, State, Trigger};
use serde_json::{Value, json};
use std::time::Duration;

/// Which of the app's two tokens a method accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Bot,
    App,
}

pub(super) struct Method {
    pub name: &'static str,
    pub token: Token,
    /// One of these is sufficient; none means that any token will do.
    pub scopes: &'static [&'static str],
    pub takes_json: bool,
    pub post_only: bool,
    pub run: fn(&Shared, &mut State, &Args) -> Outcome,
}

type Run = fn(&Shared, &mut State, &Args) -> Outcome;

const fn method(name: &'static str, scopes: &'static [&'static str], takes_json: bool, run: Run) -> Method {
    Method { name, token: Token::Bot, scopes, takes_json, post_only: false, run }
}

const WRITE: &[&str] = &["chat:write"];
const READ: &[&str] = &["channels:read", "groups:read"];
const HISTORY: &[&str] = &["channels:history", "groups:history"];
const FILES: &[&str] = &["files:write"];

/// Slack decides for each method whether it accepts JSON.
static METHODS: [Method; 17] = [
    method("auth.test", &[], true, auth_test),
    method("chat.postMessage", WRITE, true, chat::post_message),
    method("chat.update", WRITE, true, chat::update),
    method("chat.postEphemeral", WRITE, true, chat::post_ephemeral),
    method("chat.getPermalink", &[], false, chat::permalink),
    method("conversations.list", READ, false, directory::list),
    method("conversations.info", READ, false, directory::info),
    method("conversations.history", HISTORY, true, directory::history),
    method("conversations.replies", HISTORY, false, directory::replies),
    method("conversations.join", &["channels:join"], true, directory::join),
    method("usergroups.list", &["usergroups:read"], false, directory::groups),
    method("usergroups.users.list", &["usergroups:read"], false, directory::group_users),
    method("users.info", &["users:read"], false, directory::user),
    method("views.open", &[], true, open_view),
    method("files.getUploadURLExternal", FILES, false, files::upload_url),
    method("files.completeUploadExternal", FILES, true, files::complete),
    Method {
        name: "apps.connections.open",
        token: Token::App,
        scopes: &["connections:write"],
        takes_json: true,
        post_only: true,
        run: open_connection,
    },
];

pub(super) fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

fn auth_test(shared: &Shared, _: &mut State, _: &Args) -> Outcome {
    let setup = &shared.setup;
    Ok(json!({
        "url": format!("{}/", setup.base), "team": setup.team_name, "user": setup.bot_name, "team_id": setup.team,
        "user_id": setup.bot_user, "bot_id": setup.bot_id, "is_enterprise_install": false,
    }))
}

fn open_connection(shared: &Shared, state: &mut State, _: &Args) -> Outcome {
    let ticket = state.next_id("ticket");
    state.sockets.tickets.insert(ticket.clone());
    let host = shared.setup.base.replacen("http", "ws", 1);
    Ok(json!({"url": format!("{host}/link/?ticket={ticket}&app_id={}", shared.setup.app_id)}))
}

/// How long after the click a modal can be opened.
const TRIGGER_LIFE: Duration = Duration::from_secs(3);
const MAX_VIEW: usize = 250_000;

fn open_view(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let id = args.required("trigger_id")?;
    let view = args.structure("view").ok().flatten().ok_or_else(|| Refusal::missing("view"))?;
    let now = shared.clock.since_epoch();
    let trigger: &mut Trigger = state.triggers.get_mut(&id).ok_or("invalid_trigger_id")?;
    if trigger.used {
        return Err("exchanged_trigger_id".into());
    }
    if now.saturating_sub(trigger.since_epoch) > TRIGGER_LIFE {
        return Err("expired_trigger_id".into());
    }
    if view.to_string().len() > MAX_VIEW {
        return Err("view_too_large".into());
    }
    check_view(&view)?;
    trigger.used = true;
    let mut view = view;
    view["id"] = state.next_id("V").into();
    view["team_id"] = shared.setup.team.clone().into();
    view["app_id"] = shared.setup.app_id.clone().into();
    state.views.push(view.clone());
    Ok(json!({"view": view}))
}

fn check_view(view: &Value) -> Result<(), Refusal> {
    let mut messages = Vec::new();
    if view["type"] != "modal" {
        messages.push("unsupported type [json-pointer:/view/type]".to_owned());
    }
    for (field, needed) in [("title", true), ("submit", false), ("close", false)] {
        match view[field]["text"].as_str() {
            Some(text) if (1..=24).contains(&text.chars().count()) => (),
            None if !needed && view.get(field).is_none() => (),
            _ => messages.push(format!("must be a text of less than 25 characters [json-pointer:/view/{field}]")),
        }
    }
    match view["blocks"].as_array() {
        Some(blocks) => messages.extend(super::blocks::problems(blocks, super::blocks::Surface::Modal)),
        None => messages.push("missing required field: blocks [json-pointer:/view]".to_owned()),
    }
    if messages.is_empty() {
        return Ok(());
    }
    Err(Refusal { error: "invalid_arguments".into(), messages, ..Refusal::default() })
}
