//! Slack's Web API: one typed result for each operation. The caller decides when, how fast and how often to call.
//!
//! Requests use the library's types. Answers are parsed into the few fields that are needed: the library's answers hold
//! whole messages and fail on unknown blocks, and a message that was posted must not look as if it was not.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use http_body_util::Full;
use hyper::{Request, Uri};
use serde::Deserialize;
use slack_morphism::prelude::{
    SlackApiChatPostEphemeralRequest, SlackApiChatPostMessageRequest, SlackApiChatUpdateRequest, SlackBlock,
    SlackMessageContent, SlackMessageMetadata,
};

use super::render::Message;
use crate::config;
use crate::http_client::{Access, BaseUrl, Outgoing, OutgoingError, Proxies};

mod answers;
mod call;
mod error;
mod probe;
#[cfg(test)]
mod tests;

pub(super) use call::{Api, within};
pub use error::{LONGEST_WAIT, SlackError};

use answers::{Channel, Channels, ListedMessage, Members, MessageAddress, Messages, Nothing, Permalink};
use call::{MAX_ANSWER, TIMEOUT};

/// Tells the receiver's messages apart from those of other apps.
const EVENT_TYPE: &str = "prompt_rollback";
/// How much Redis' clock, which says when a message may have been posted, and Slack's may differ. A larger value only
/// makes searches read more messages; a smaller one could post a message twice.
const SKEW_MS: i64 = 24 * 3_600_000;
/// Pages read in search of a message or a channel.
const PAGES: usize = 20;
const MESSAGES_PER_PAGE: &str = "200";
const CHANNELS_PER_PAGE: &str = "999";

/// The bot's access to a workspace.
pub struct Slack {
    bot: Api,
    app: Option<Api>,
    /// Proxies for uploads of files, for which Slack names another host.
    proxies: Proxies,
    /// Ids of channels, by name; needed for searches, because a post resolves the name itself. `None`: requested
    /// in vain.
    ids: Mutex<HashMap<String, Option<String>>>,
}

impl fmt::Debug for Slack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slack").field("api_url", &self.bot.url).finish_non_exhaustive()
    }
}

/// Where Slack put a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Id of the channel.
    pub channel: String,
    pub ts: String,
}

/// Where to post a message.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its id, or `#name`.
    pub channel: &'a str,
    /// The root of the thread in it.
    pub thread: Option<&'a str>,
    /// A reply that the channel shows as well.
    pub broadcast: bool,
}

impl<'a> Place<'a> {
    pub fn channel(channel: &'a str) -> Self {
        Self { channel, thread: None, broadcast: false }
    }

    pub fn thread(channel: &'a str, root: &'a str) -> Self {
        Self { thread: Some(root), ..Self::channel(channel) }
    }
}

/// A file for people.
#[derive(Debug, Clone)]
pub struct Upload {
    pub name: String,
    pub title: String,
    pub content: Vec<u8>,
}

/// Where to upload a file.
#[derive(Deserialize)]
struct UploadPlace {
    upload_url: String,
    file_id: String,
}

impl UploadPlace {
    fn uri(&self) -> Uri {
        self.upload_url.parse().unwrap_or_default()
    }

    fn base(&self) -> Option<BaseUrl> {
        let uri = self.uri();
        format!("{}://{}", uri.scheme_str()?, uri.authority()?).parse().ok()
    }

    fn path(&self) -> String {
        self.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
    }
}

/// Metadata that identifies a message for a search. People do not see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageTag {
    pub incident: String,
    /// `root`, `overview`, `reply-3`.
    pub what: String,
}

impl MessageTag {
    fn metadata(&self) -> SlackMessageMetadata {
        let payload = [("incident", &self.incident), ("what", &self.what)];
        let payload = payload.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        SlackMessageMetadata::new(EVENT_TYPE.to_owned()).with_event_payload(payload)
    }

    fn is_on(&self, message: &ListedMessage) -> bool {
        let Some(metadata) = &message.metadata else { return false };
        let payload = &metadata["event_payload"];
        metadata["event_type"] == EVENT_TYPE && payload["incident"] == *self.incident && payload["what"] == *self.what
    }
}

impl Slack {
    /// `None` without `slack.bot_token`.
    pub fn new(config: &config::SlackConfig) -> Result<Option<Self>, SlackError> {
        let Some(token) = &config.bot_token else { return Ok(None) };
        let bot = Api::new(config, token)?;
        let proxies = Proxies::of(config.proxy_url.as_ref());
        Ok(Some(Self { bot, app: Api::of_app(config)?, proxies, ids: Mutex::default() }))
    }

    /// After [`SlackError::Retry`] the message may have arrived: [`find`](Self::find) tells.
    pub async fn post(&self, place: Place<'_>, message: &Message, mark: &MessageTag) -> Result<Posted, SlackError> {
        let blocks = (!message.blocks.is_empty()).then(|| message.blocks.clone());
        self.post_content(place, content(&message.text, blocks), mark).await
    }

    /// Like [`post`](Self::post), but without blocks. The text is mrkdwn, so external text must be escaped.
    pub async fn post_plain(&self, place: Place<'_>, text: &str, mark: &MessageTag) -> Result<Posted, SlackError> {
        self.post_content(place, content(text, None), mark).await
    }

    async fn post_content(
        &self,
        place: Place<'_>,
        content: SlackMessageContent,
        mark: &MessageTag,
    ) -> Result<Posted, SlackError> {
        let Place { channel, thread, broadcast } = place;
        let request = SlackApiChatPostMessageRequest::new(channel.into(), content.with_metadata(mark.metadata()))
            .opt_thread_ts(thread.map(Into::into))
            .opt_reply_broadcast(broadcast.then_some(true))
            .with_unfurl_links(false)
            .with_unfurl_media(false);
        let posted: MessageAddress = self.bot.post("chat.postMessage", &request).await?;
        self.ids().insert(name_of(channel).to_owned(), Some(posted.channel.clone()));
        Ok(Posted { channel: posted.channel, ts: posted.ts })
    }

    /// Uploads files and shares them in a thread, as one message. After [`SlackError::Retry`] it may exist:
    /// [`find_file`](Self::find_file) tells.
    pub async fn upload(&self, root: &Posted, text: &str, files: Vec<Upload>) -> Result<(), SlackError> {
        within("files.completeUploadExternal", self.upload_all(root, text, files)).await
    }

    /// Three calls, of which only the last has a visible effect.
    async fn upload_all(&self, root: &Posted, text: &str, files: Vec<Upload>) -> Result<(), SlackError> {
        const METHOD: &str = "files.getUploadURLExternal";
        let mut shared = Vec::new();
        for Upload { name, title, content } in files {
            let length = content.len().to_string();
            let place: UploadPlace =
                self.bot.get(METHOD, &[("filename", Some(&name)), ("length", Some(&length))]).await?;
            let request = Request::post(place.path()).body(Full::from(content));
            let request = request.map_err(|_| SlackError::retry(METHOD, "an invalid upload address"))?;
            let base = place.base().ok_or_else(|| SlackError::retry(METHOD, "an invalid upload address"))?;
            let access = Access { proxies: self.proxies.clone(), ..Access::open(TIMEOUT) };
            let http = Outgoing::with(base, access).map_err(|error| SlackError::retry(METHOD, error.to_string()))?;
            let (status, _) = http.send(request, MAX_ANSWER).await.map_err(|error| match error {
                OutgoingError::TooLarge { .. } => SlackError::retry(METHOD, error.to_string()),
                _ => SlackError::retry(METHOD, "no answer to an upload"),
            })?;
            if !status.is_success() {
                return Err(SlackError::retry(METHOD, format!("an upload was answered {status}")));
            }
            shared.push(serde_json::json!({ "id": place.file_id, "title": title }));
        }
        let request = serde_json::json!({
            "files": shared, "channel_id": root.channel, "thread_ts": root.ts, "initial_comment": text,
        });
        self.bot.post("files.completeUploadExternal", &request).await.map(|Nothing {}| ())
    }

    /// Replaces text and blocks of a message. Its metadata stays.
    pub async fn update(&self, channel_id: &str, ts: &str, message: &Message) -> Result<(), SlackError> {
        // an empty list removes the old blocks; without a list they would stay
        let content = content(&message.text, Some(message.blocks.clone()));
        let request = SlackApiChatUpdateRequest::new(channel_id.into(), content, ts.into());
        self.bot.post("chat.update", &request).await.map(|Nothing {}| ())
    }

    /// Sends a message that only one person sees, if they are in the channel now. The text is mrkdwn.
    pub async fn post_ephemeral(
        &self,
        channel_id: &str,
        thread: Option<&str>,
        user: &str,
        text: &str,
    ) -> Result<(), SlackError> {
        let request = SlackApiChatPostEphemeralRequest::new(channel_id.into(), user.into(), content(text, None))
            .opt_thread_ts(thread.map(Into::into));
        self.bot.post("chat.postEphemeral", &request).await.map(|Nothing {}| ())
    }

    /// The address of a message for people.
    pub async fn permalink(&self, channel_id: &str, ts: &str) -> Result<String, SlackError> {
        let params = [("channel", Some(channel_id)), ("message_ts", Some(ts))];
        let link: Permalink = self.bot.get("chat.getPermalink", &params).await?;
        Ok(link.permalink)
    }

    /// Searches for the message with this mark among those posted since `oldest_ms` (Unix time), the newest first.
    pub async fn find(
        &self,
        channel: &str,
        thread: Option<&str>,
        mark: &MessageTag,
        oldest_ms: i64,
    ) -> Result<Option<Posted>, SlackError> {
        self.search(channel, thread, oldest_ms, |message| mark.is_on(message)).await
    }

    /// Searches for a message that shares a file of this name: such a message has no mark.
    pub async fn find_file(&self, root: &Posted, name: &str, oldest_ms: i64) -> Result<Option<Posted>, SlackError> {
        let shares =
            |message: &ListedMessage| message.files.iter().flatten().any(|file| file.name.as_deref() == Some(name));
        self.search(&root.channel, Some(&root.ts), oldest_ms, shares).await
    }

    async fn search(
        &self,
        channel: &str,
        thread: Option<&str>,
        oldest_ms: i64,
        is_it: impl Fn(&ListedMessage) -> bool + Send,
    ) -> Result<Option<Posted>, SlackError> {
        let method = search_method(thread);
        within(method, async {
            let channel = self.channel_id(channel).await?;
            let oldest = slack_time(oldest_ms.saturating_sub(SKEW_MS));
            let mut cursor = None;
            for _ in 0..PAGES {
                // the library's request for replies cannot ask for metadata, so both are written out here
                let page: Messages = self
                    .bot
                    .get(
                        method,
                        &[
                            ("channel", Some(&channel)),
                            ("ts", thread),
                            ("oldest", Some(&oldest)),
                            ("include_all_metadata", Some("true")),
                            ("limit", Some(MESSAGES_PER_PAGE)),
                            ("cursor", cursor.as_deref()),
                        ],
                    )
                    .await?;
                if let Some(found) = page.messages.into_iter().find(&is_it) {
                    return Ok(Some(Posted { channel, ts: found.ts }));
                }
                cursor = page.more.next();
                if cursor.is_none() {
                    break;
                }
            }
            Ok(None)
        })
        .await
    }

    /// Whether Slack is reachable and accepts the token. Changes nothing.
    pub async fn ping(&self) -> Result<(), SlackError> {
        self.bot.post("auth.test", &serde_json::json!({})).await.map(|Nothing {}| ())
    }

    /// The ids of a user group's members.
    pub async fn group_members(&self, group: &str) -> Result<Vec<String>, SlackError> {
        let members: Members = self.bot.get("usergroups.users.list", &[("usergroup", Some(group))]).await?;
        Ok(members.users)
    }

    /// The channel's id if it is known, otherwise its name, without `#`.
    pub fn known_id(&self, channel: &str) -> String {
        let name = name_of(channel);
        self.ids().get(name).cloned().flatten().unwrap_or_else(|| name.to_owned())
    }

    /// Requests the id of a channel that is given by name, so that [`known_id`](Self::known_id) returns it.
    pub async fn learn_id(&self, channel: &str) -> Result<(), SlackError> {
        let learned = within("conversations.list", self.channel_id(channel)).await;
        if learned.is_err() {
            self.ids().entry(name_of(channel).to_owned()).or_default();
        }
        learned.map(drop)
    }

    /// Whether the channel's id is known, or was requested in vain.
    pub fn has_asked_for_id(&self, channel: &str) -> bool {
        is_id(channel) || self.ids().contains_key(name_of(channel))
    }

    async fn channel_id(&self, channel: &str) -> Result<String, SlackError> {
        if is_id(channel) {
            return Ok(channel.to_owned());
        }
        let name = name_of(channel);
        let known = self.ids().get(name).cloned().flatten();
        if let Some(id) = known {
            return Ok(id);
        }
        let unknown = || SlackError::Channel { code: "channel_not_found".to_owned() };
        let id = self.list_channels(&[name]).await?.pop().ok_or_else(unknown)?.id;
        self.ids().insert(name.to_owned(), Some(id.clone()));
        Ok(id)
    }

    /// The channels with one of these names. Private ones only if the bot is a member.
    async fn list_channels(&self, names: &[&str]) -> Result<Vec<Channel>, SlackError> {
        let mut found: Vec<Channel> = Vec::new();
        let mut cursor = None;
        for _ in 0..PAGES {
            let params = [
                ("types", Some("public_channel,private_channel")),
                ("limit", Some(CHANNELS_PER_PAGE)),
                ("cursor", cursor.as_deref()),
            ];
            let page: Channels = self.bot.get("conversations.list", &params).await?;
            found.extend(page.channels.into_iter().filter(|channel| names.contains(&channel.name.as_str())));
            cursor = page.more.next();
            if cursor.is_none() || names.iter().all(|name| found.iter().any(|channel| channel.name == *name)) {
                break;
            }
        }
        Ok(found)
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, HashMap<String, Option<String>>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The method that searches messages.
pub fn search_method(thread: Option<&str>) -> &'static str {
    if thread.is_some() { "conversations.replies" } else { "conversations.history" }
}

fn content(text: &str, blocks: Option<Vec<SlackBlock>>) -> SlackMessageContent {
    SlackMessageContent::new().with_text(text.to_owned()).opt_blocks(blocks)
}

/// Whether this is an id such as `C012AB3CD`; names of channels are lower case.
pub fn is_id(channel: &str) -> bool {
    channel.starts_with(['C', 'D', 'G']) && channel.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn name_of(channel: &str) -> &str {
    channel.strip_prefix('#').unwrap_or(channel)
}

/// Slack writes times as seconds with six decimals.
fn slack_time(ms: i64) -> String {
    let ms = ms.max(0);
    format!("{}.{:03}000", ms / 1000, ms % 1000)
}
