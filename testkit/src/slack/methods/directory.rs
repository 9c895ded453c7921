//! Reads channels and their messages, users and groups.

use crate::slack::api::{Args, Outcome, Refusal};
use crate::slack::records::{Channel, Group, Message};
use crate::slack::state::{Shared, State};
use serde_json::{Value, json};

/// A page of `items`, and the cursor of the next one.
fn page<T>(items: Vec<T>, args: &Args, most: usize) -> Result<(Vec<T>, String), Refusal> {
    let limit = match args.text("limit") {
        None => 100,
        Some(limit) => limit.parse().ok().filter(|limit| (1..=most).contains(limit)).ok_or("invalid_limit")?,
    };
    let start = match args.text("cursor").filter(|cursor| !cursor.is_empty()) {
        None => 0,
        Some(cursor) => {
            let place = cursor.strip_prefix("next:").and_then(|place| place.parse().ok());
            place.filter(|place| *place <= items.len()).ok_or("invalid_cursor")?
        }
    };
    let next = if start + limit < items.len() { format!("next:{}", start + limit) } else { String::new() };
    Ok((items.into_iter().skip(start).take(limit).collect(), next))
}

fn show(channel: &Channel) -> Value {
    let direct = channel.with.is_some();
    json!({
        "id": channel.id, "name": channel.name, "is_channel": !channel.private, "is_im": direct,
        "is_private": channel.private, "is_archived": channel.archived, "is_member": channel.bot_is_member,
        "user": channel.with,
    })
}

fn visible(channel: &Channel) -> bool {
    !channel.private || channel.bot_is_member
}

fn readable<'s>(state: &'s State, args: &Args) -> Result<&'s Channel, Refusal> {
    let id = args.required("channel")?;
    let channel = state.channel(&id).filter(|channel| visible(channel)).ok_or("channel_not_found")?;
    if channel.bot_is_member { Ok(channel) } else { Err("not_in_channel".into()) }
}

pub(super) fn list(_: &Shared, state: &mut State, args: &Args) -> Outcome {
    let types = args.text("types").unwrap_or_else(|| "public_channel".into());
    let archived = !args.flag("exclude_archived");
    let kind = |channel: &Channel| match (&channel.with, channel.private) {
        (Some(_), _) => "im",
        (None, true) => "private_channel",
        (None, false) => "public_channel",
    };
    let wanted = |channel: &&Channel| {
        visible(channel)
            && (archived || !channel.archived)
            && types.split(',').any(|wanted| wanted.trim() == kind(channel))
    };
    let (channels, next) = page(state.channels.values().filter(wanted).map(show).collect(), args, 1000)?;
    Ok(json!({"channels": channels, "response_metadata": {"next_cursor": next}}))
}

pub(super) fn info(_: &Shared, state: &mut State, args: &Args) -> Outcome {
    let id = args.required("channel")?;
    let channel = state.channel(&id).filter(|channel| visible(channel)).ok_or("channel_not_found")?;
    Ok(json!({"channel": show(channel)}))
}

pub(super) fn join(_: &Shared, state: &mut State, args: &Args) -> Outcome {
    let id = args.required("channel")?;
    let channel = state.channels.get_mut(&id).filter(|channel| visible(channel)).ok_or("channel_not_found")?;
    if channel.archived {
        return Err("is_archived".into());
    }
    if channel.private {
        return Err("method_not_supported_for_channel_type".into());
    }
    channel.bot_is_member = true;
    Ok(json!({"channel": show(channel)}))
}

/// Whether a message is within `oldest` and `latest`. A `ts` can be compared as text, because its width is fixed.
fn range(args: &Args) -> Result<impl Fn(&str) -> bool + use<>, Refusal> {
    let bound = |name: &str, error: &'static str| match args.text(name).filter(|ts| !ts.is_empty() && ts != "0") {
        None => Ok(None),
        Some(ts) if ts.parse::<f64>().is_ok() => {
            let (seconds, micros) = ts.split_once('.').unwrap_or((&ts, ""));
            Ok(Some(format!("{seconds}.{micros:0<6}")))
        }
        Some(_) => Err(Refusal::from(error)),
    };
    let oldest = bound("oldest", "invalid_ts_oldest")?;
    let latest = bound("latest", "invalid_ts_latest")?;
    let inclusive = args.flag("inclusive");
    Ok(move |ts: &str| {
        let after = oldest.as_deref().is_none_or(|oldest| ts > oldest || (inclusive && ts == oldest));
        let before = latest.as_deref().is_none_or(|latest| ts < latest || (inclusive && ts == latest));
        after && before
    })
}

/// Payloads of metadata are shown on request only.
fn with_metadata(shared: &Shared, state: &State, message: &Message, all: bool) -> Value {
    let mut shown = state.show(message, &shared.setup);
    if let Some(metadata) = &message.metadata {
        let part = if all { metadata.clone() } else { json!({"event_type": metadata["event_type"]}) };
        shown["metadata"] = part;
    }
    shown
}

pub(super) fn history(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let channel = readable(state, args)?;
    let within = range(args)?;
    let all = args.flag("include_all_metadata");
    let roots = state.in_channel(&channel.id).rev().filter(|message| message.thread_ts.is_none() || message.broadcast);
    let (messages, next) = page(roots.filter(|message| within(&message.ts)).collect(), args, 999)?;
    let messages: Vec<_> = messages.into_iter().map(|message| with_metadata(shared, state, message, all)).collect();
    let more = !next.is_empty();
    Ok(json!({"messages": messages, "has_more": more, "response_metadata": {"next_cursor": next}}))
}

pub(super) fn replies(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let channel = readable(state, args)?;
    let ts = args.required("ts")?;
    let within = range(args)?;
    let all = args.flag("include_all_metadata");
    let asked = state.message(&channel.id, &ts).ok_or("thread_not_found")?;
    let root = state.message(&channel.id, asked.thread_ts.as_deref().unwrap_or(&ts)).ok_or("thread_not_found")?;
    let later = state.replies(&channel.id, &root.ts).filter(|reply| within(&reply.ts));
    let (messages, next) = page(std::iter::once(root).chain(later).collect(), args, 999)?;
    let messages: Vec<_> = messages.into_iter().map(|message| with_metadata(shared, state, message, all)).collect();
    let more = !next.is_empty();
    Ok(json!({"messages": messages, "has_more": more, "response_metadata": {"next_cursor": next}}))
}

fn is_listed(group: &Group, args: &Args) -> bool {
    !group.disabled || args.flag("include_disabled")
}

pub(super) fn groups(_: &Shared, state: &mut State, args: &Args) -> Outcome {
    let show = |group: &Group| {
        let mut shown = json!({
            "id": group.id, "handle": group.handle, "name": group.handle, "is_usergroup": true,
            "date_delete": u8::from(group.disabled), "user_count": group.members.len(),
        });
        if args.flag("include_users") {
            shown["users"] = group.members.clone().into();
        }
        shown
    };
    let groups: Vec<_> = state.groups.values().filter(|group| is_listed(group, args)).map(show).collect();
    Ok(json!({"usergroups": groups}))
}

pub(super) fn group_users(_: &Shared, state: &mut State, args: &Args) -> Outcome {
    let id = args.required("usergroup")?;
    let group = state.groups.get(&id).filter(|group| is_listed(group, args)).ok_or("no_such_subteam")?;
    Ok(json!({"users": group.members}))
}

pub(super) fn user(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let id = args.required("user")?;
    let user = state.users.get(&id).ok_or("user_not_found")?;
    Ok(json!({"user": {
        "id": user.id, "team_id": shared.setup.team, "name": user.name, "real_name": user.real_name,
        "deleted": false, "is_bot": false, "tz": "Etc/UTC",
        "profile": {"real_name": user.real_name, "display_name": user.name},
    }}))
}
