//! `chat.*`: post, edit, ephemeral messages, permalinks.

use crate::slack::api::{Args, Outcome, Refusal};
use crate::slack::blocks::{MAX_TEXT_OF_ALL_BLOCKS, Surface, problems, text_length};
use crate::slack::records::{Channel, Message};
use crate::slack::state::{Shared, State, complete_blocks};
use serde_json::{Value, json};

/// Slack shortens longer posts with a warning. Here that is an error, because it is never intended.
const MAX_POSTED_TEXT: usize = 40_000;
const MAX_EDITED_TEXT: usize = 4_000;
/// The limit is documented without its size; 8 kB is below what users report.
const MAX_METADATA: usize = 8_192;
/// What Slack shows in a notification of blocks without a text.
const NO_FALLBACK: &str = "This content can't be displayed.";

/// Validated text and blocks of a message.
#[derive(Debug)]
pub(crate) struct Content {
    pub text: String,
    /// `None`: none were given; an edit then keeps the old ones.
    pub blocks: Option<Vec<Value>>,
}

/// Parses and validates the content of a message.
pub(crate) fn content(state: &mut State, args: &Args, most: usize) -> Result<Content, Refusal> {
    let blocks = match args.structure("blocks") {
        Ok(None) => None,
        Ok(Some(Value::Array(blocks))) => Some(blocks),
        _ => return Err("invalid_blocks_format".into()),
    };
    let text = args.text("text").unwrap_or_default();
    let has_blocks = blocks.as_ref().is_some_and(|blocks| !blocks.is_empty());
    if text.trim().is_empty() && !has_blocks {
        return Err("no_text".into());
    }
    if text.chars().count() > most {
        return Err("msg_too_long".into());
    }
    let blocks = match blocks {
        None => None,
        Some(blocks) => {
            let messages = problems(&blocks, Surface::Message);
            if !messages.is_empty() {
                return Err(Refusal { error: "invalid_blocks".into(), messages, ..Refusal::default() });
            }
            if blocks.iter().map(text_length).sum::<usize>() > MAX_TEXT_OF_ALL_BLOCKS {
                return Err("msg_blocks_too_long".into());
            }
            Some(complete_blocks(state, blocks))
        }
    };
    let text = if text.is_empty() { NO_FALLBACK.to_owned() } else { text };
    Ok(Content { text, blocks })
}

/// `None`: not given. `Some(None)`: given empty, which removes it.
#[expect(clippy::option_option, reason = "an edit tells apart keeping and removing")]
fn metadata(args: &Args) -> Result<Option<Option<Value>>, Refusal> {
    let Some(metadata) = args.structure("metadata").map_err(|_| Refusal::from("invalid_metadata_format"))? else {
        return Ok(None);
    };
    if metadata.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(Some(None));
    }
    let named = metadata["event_type"].as_str().is_some_and(|name| !name.is_empty() && name.len() <= 255);
    if !named || !metadata["event_payload"].is_object() {
        return Err("invalid_metadata_format".into());
    }
    if metadata.to_string().len() > MAX_METADATA {
        return Err("metadata_too_large".into());
    }
    Ok(Some(Some(metadata)))
}

/// The channel to post to, by id or name; a user's id opens a direct message.
fn destination(state: &mut State, args: &Args) -> Result<Channel, Refusal> {
    let wanted = args.required("channel")?;
    if let Some(user) = state.users.get(&wanted) {
        let id = format!("D{}", user.id.trim_start_matches('U'));
        let (name, with) = (user.name.clone(), Some(user.id.clone()));
        let direct = Channel { id: id.clone(), name, private: true, archived: false, bot_is_member: true, with };
        return Ok(state.channels.entry(id).or_insert(direct).clone());
    }
    let channel = state.find_channel(&wanted).ok_or("channel_not_found")?;
    if channel.private && !channel.bot_is_member {
        return Err("channel_not_found".into());
    }
    if channel.archived {
        return Err("is_archived".into());
    }
    if !channel.bot_is_member && !state.scopes.contains("chat:write.public") {
        return Err("not_in_channel".into());
    }
    Ok(channel.clone())
}

fn thread(state: &State, channel: &str, args: &Args) -> Result<Option<String>, Refusal> {
    let Some(ts) = args.text("thread_ts").filter(|ts| !ts.is_empty()) else {
        return Ok(None);
    };
    match state.message(channel, &ts) {
        None => Err("thread_not_found".into()),
        Some(root) if root.thread_ts.is_some() => Err("cannot_reply_to_message".into()),
        Some(_) => Ok(Some(ts)),
    }
}

pub(super) fn post_message(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let channel = destination(state, args)?;
    let thread_ts = thread(state, &channel.id, args)?;
    let Content { text, blocks } = content(state, args, MAX_POSTED_TEXT)?;
    let metadata = metadata(args)?.flatten();
    let ts = state.next_ts(&shared.clock);
    let message = Message {
        broadcast: thread_ts.is_some() && args.flag("reply_broadcast"),
        thread_ts,
        blocks: blocks.unwrap_or_default(),
        metadata,
        unfurl_links: args.flag("unfurl_links"),
        unfurl_media: args.text("unfurl_media").is_none() || args.flag("unfurl_media"),
        ..Message::new(&channel.id, &ts, &shared.setup.bot_user, &text)
    };
    let shown = state.show(&message, &shared.setup);
    let answer = json!({"channel": channel.id, "ts": message.ts, "message": shown});
    state.keep(message);
    Ok(answer)
}

pub(super) fn update(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let id = args.required("channel")?;
    let ts = args.required("ts")?;
    // unlike a post, an edit accepts only the channel's id
    let channel = state.channel(&id).filter(|channel| !channel.private || channel.bot_is_member);
    if channel.ok_or("channel_not_found")?.archived {
        return Err("is_inactive".into());
    }
    let message = state.message(&id, &ts).ok_or("message_not_found")?;
    if message.user != shared.setup.bot_user {
        return Err("cant_update_message".into());
    }
    let Content { text, blocks } = content(state, args, MAX_EDITED_TEXT)?;
    let metadata = metadata(args)?;
    let edited = state.next_ts(&shared.clock);
    let message = state.message_mut(&id, &ts).ok_or("message_not_found")?;
    message.history.push(message.version());
    message.text = text;
    message.edited = Some(edited);
    if let Some(blocks) = blocks {
        message.blocks = blocks;
    }
    if let Some(metadata) = metadata {
        message.metadata = metadata;
    }
    let message = message.clone();
    state.version += 1;
    Ok(json!({"channel": id, "ts": ts, "text": message.text, "message": state.show(&message, &shared.setup)}))
}

pub(super) fn post_ephemeral(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let user = args.required("user")?;
    let channel = destination(state, args)?;
    // in the double, every user is a member of every channel
    if !state.users.contains_key(&user) {
        return Err("user_not_in_channel".into());
    }
    let thread_ts = args.text("thread_ts").filter(|ts| !ts.is_empty());
    let Content { text, blocks } = content(state, args, MAX_POSTED_TEXT)?;
    let ts = whisper(shared, state, &channel.id, thread_ts, &user, text, blocks.unwrap_or_default());
    Ok(json!({"message_ts": ts}))
}

/// Stores a message that only one person sees.
pub(crate) fn whisper(
    shared: &Shared,
    state: &mut State,
    channel: &str,
    thread_ts: Option<String>,
    user: &str,
    text: String,
    blocks: Vec<Value>,
) -> String {
    let ts = state.next_ts(&shared.clock);
    let message = Message::new(channel, &ts, &shared.setup.bot_user, &text);
    state.keep(Message { thread_ts, blocks, ephemeral_to: Some(user.to_owned()), ..message });
    ts
}

pub(super) fn permalink(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let id = args.required("channel")?;
    let ts = args.required("message_ts")?;
    state.channel(&id).ok_or("channel_not_found")?;
    let message = state.message(&id, &ts).ok_or("message_not_found")?;
    let mut link = format!("{}/archives/{id}/p{}", shared.setup.base, ts.replace('.', ""));
    if let Some(root) = &message.thread_ts {
        link.push_str(&format!("?thread_ts={root}&cid={id}"));
    }
    Ok(json!({"channel": id, "permalink": link}))
}
