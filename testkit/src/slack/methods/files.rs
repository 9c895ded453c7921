//! Uploads in three steps: ask for a URL, send the bytes there, share the file.

use crate::slack::api::{Args, Outcome, Refusal};
use crate::slack::records::{File, Message};
use crate::slack::state::{Shared, State, show_file};
use serde_json::{Value, json};

pub(super) fn upload_url(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let name = args.required("filename")?;
    let announced = args.required("length")?.parse().ok().filter(|length| *length > 0);
    let announced: usize = announced.ok_or_else(|| Refusal::missing("length"))?;
    let id = state.next_id("F");
    let file = File { id: id.clone(), title: name.clone(), name, content: None, shared: Vec::new(), announced };
    state.files.insert(id.clone(), file);
    Ok(json!({"upload_url": format!("{}/upload/{id}", shared.setup.base), "file_id": id}))
}

pub(super) fn complete(shared: &Shared, state: &mut State, args: &Args) -> Outcome {
    let files = args.structure("files").ok().flatten();
    let files = files.and_then(|files| files.as_array().cloned()).filter(|files| !files.is_empty());
    let files = files.ok_or_else(|| Refusal::missing("files"))?;
    let ids: Vec<String> = files.iter().filter_map(|file| file["id"].as_str().map(str::to_owned)).collect();
    let uploaded = |id: &String| state.files.get(id).is_some_and(|file| file.content.is_some());
    if ids.len() != files.len() || !ids.iter().all(uploaded) {
        return Err("file_not_found".into());
    }
    let channel = args.text("channel_id").filter(|id| !id.is_empty());
    if let Some(id) = &channel {
        let channel = state.channel(id).ok_or("channel_not_found")?;
        if !channel.bot_is_member {
            return Err("not_in_channel".into());
        }
        if channel.archived {
            return Err("posting_to_channel_denied".into());
        }
    }
    for (id, asked) in ids.iter().zip(&files) {
        if let (Some(file), Some(title)) = (state.files.get_mut(id), asked["title"].as_str()) {
            file.title = title.to_owned();
        }
    }
    if let Some(channel) = channel {
        share(shared, state, &channel, args, &ids)?;
    }
    let shown: Vec<Value> =
        ids.iter().filter_map(|id| state.files.get(id)).map(|file| show_file(file, &shared.setup)).collect();
    Ok(json!({"files": shown}))
}

fn share(shared: &Shared, state: &mut State, channel: &str, args: &Args, ids: &[String]) -> Result<(), Refusal> {
    let thread_ts = args.text("thread_ts").filter(|ts| !ts.is_empty());
    if let Some(root) = &thread_ts {
        state.message(channel, root).ok_or("thread_not_found")?;
    }
    let ts = state.next_ts(&shared.clock);
    for file in ids.iter().map(String::as_str) {
        if let Some(file) = state.files.get_mut(file) {
            file.shared.push((channel.to_owned(), ts.clone()));
        }
    }
    let text = args.text("initial_comment").unwrap_or_default();
    let message = Message::new(channel, &ts, &shared.setup.bot_user, &text);
    state.keep(Message { thread_ts, files: ids.to_vec(), ..message });
    Ok(())
}
