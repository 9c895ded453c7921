//! What Slack's errors mean for the caller.
//!
//! Slack adds codes without notice, and a proxy may answer anything. So only the codes listed here are final; after any
//! other answer the call is repeated.

use std::time::Duration;

use slack_morphism::errors::{SlackClientError, SlackClientSystemError};

use crate::http_client::innermost;

/// The wait after a 429 without `Retry-After`.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// Longest wait that is accepted. Slack asks for about 30 s; a call that comes too early is only told to wait again.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Codes about the channel, whatever the message.
const OF_CHANNEL: &[&str] = &[
    "channel_not_found",
    "channel_type_not_supported",
    "invalid_channel",
    "is_archived",
    "is_inactive",
    "messages_tab_disabled",
    "method_not_supported_for_channel_type",
    "not_in_channel",
    "posting_to_channel_denied",
    "restricted_action",
    "restricted_action_non_threadable_channel",
    "restricted_action_read_only_channel",
    "restricted_action_thread_locked",
    "restricted_action_thread_only_channel",
];
/// Codes for a message, or the root of a thread, that does not exist.
const OF_PLACE: &[&str] = &["invalid_thread_ts", "message_not_found", "thread_not_found"];
/// Codes for a message that exists and can no longer be edited.
const OF_EDIT: &[&str] =
    &["block_mismatch", "cant_update_message", "edit_window_closed", "no_dual_broadcast_content_update"];
/// Codes about the content of a message, or the arguments of another call.
const OF_CONTENT: &[&str] = &[
    "as_user_not_supported",
    "attachment_payload_limit_exceeded",
    "cannot_reply_to_message",
    "cant_broadcast_message",
    "invalid_arguments",
    "invalid_attachments",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_metadata_format",
    "invalid_metadata_schema",
    "markdown_text_conflict",
    "metadata_must_be_sent_from_app",
    "metadata_too_large",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_text",
    "slack_connect_file_link_sharing_blocked",
    "too_many_attachments",
    "too_many_contact_cards",
];
/// Codes about the person, user group or file that a call is about.
const OF_SUBJECT: &[&str] = &[
    "blocked_file_type",
    "file_upload_size_restricted",
    "file_uploads_disabled",
    "file_uploads_except_images_disabled",
    "is_bot",
    "no_such_subteam",
    "slack_connect_blocked_file_type",
    "slack_connect_file_upload_sharing_blocked",
    "storage_limit_reached",
    "user_not_found",
    "user_not_in_channel",
];
/// Codes about the token, and so about every call.
const OF_TOKEN: &[&str] = &[
    "accesslimited",
    "account_inactive",
    "app_access_denied",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "invalid_auth",
    "not_authed",
    "team_access_not_granted",
    "token_expired",
    "token_revoked",
    "two_factor_setup_required",
    "user_is_restricted",
];
/// Codes about the app's permission to call a method.
const OF_METHOD: &[&str] = &[
    "access_denied",
    "deprecated_endpoint",
    "method_deprecated",
    "missing_scope",
    "no_permission",
    "not_allowed_token_type",
    "unknown_method",
];

/// Why a call failed. Contains neither secrets nor bodies of answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlackError {
    #[error("rate limited for {} s", retry_after.as_secs())]
    RateLimited { retry_after: Duration },
    /// Perhaps temporary. The call may have taken effect.
    #[error("{method}: {why}")]
    Retry { method: &'static str, why: String },
    /// No message can be posted to this channel.
    #[error("the channel accepts no messages: {code}")]
    Channel { code: String },
    /// This message will never be accepted; others will.
    #[error("the message was rejected: {code}")]
    Message { code: String },
    /// The message, or the root of the thread, does not exist.
    #[error("the message no longer exists")]
    Missing,
    /// The message exists and cannot be edited.
    #[error("the message cannot be edited: {code}")]
    Uneditable { code: String },
    /// About the app or its token, until someone repairs it, or about the subject of the call.
    #[error("{method}: {code}")]
    Refused { method: &'static str, code: String },
    /// Only from [`Slack::new`](super::Slack::new).
    #[error("{0}")]
    Config(String),
}

impl SlackError {
    /// All values of [`kind`](Self::kind) that a call can have.
    pub const KINDS: [&'static str; 7] =
        ["rate_limited", "retry", "channel", "message", "missing", "uneditable", "refused"];

    /// The metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            SlackError::RateLimited { .. } => "rate_limited",
            SlackError::Retry { .. } => "retry",
            SlackError::Channel { .. } => "channel",
            SlackError::Message { .. } => "message",
            SlackError::Missing => "missing",
            SlackError::Uneditable { .. } => "uneditable",
            SlackError::Refused { .. } => "refused",
            SlackError::Config(_) => "config",
        }
    }

    pub(crate) fn retry(method: &'static str, why: impl Into<String>) -> Self {
        SlackError::Retry { method, why: why.into() }
    }

    /// Whether repeating the call is useless. Messages wait until someone repairs the app or its token; optional calls
    /// are skipped if the app lacks permission.
    pub fn is_final(&self) -> bool {
        match self {
            SlackError::RateLimited { .. } | SlackError::Retry { .. } => false,
            SlackError::Refused { method, code } => !is_message(method) && !OF_TOKEN.contains(&code.as_str()),
            _ => true,
        }
    }

    /// The meaning of `ok: false`.
    pub(super) fn from_code(method: &'static str, code: &str) -> Self {
        let is_code = (1..=64).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
        let code = if is_code { code } else { "unreadable_code" };
        let of = |codes: &[&str]| codes.contains(&code);
        let owned = || code.to_owned();
        match code {
            "ratelimited" | "rate_limited" => SlackError::RateLimited { retry_after: DEFAULT_WAIT },
            _ if of(OF_TOKEN) || of(OF_METHOD) => SlackError::Refused { method, code: owned() },
            _ if of(OF_CHANNEL) => SlackError::Channel { code: owned() },
            _ if of(OF_PLACE) => SlackError::Missing,
            _ if method == "chat.update" && of(OF_EDIT) => SlackError::Uneditable { code: owned() },
            _ if is_message(method) && of(OF_CONTENT) => SlackError::Message { code: owned() },
            _ if !is_message(method) && (of(OF_CONTENT) || of(OF_SUBJECT)) => {
                SlackError::Refused { method, code: owned() }
            }
            _ => SlackError::retry(method, code),
        }
    }

    /// The library's `Display` shows bodies, so only parts that are known to be harmless are kept.
    pub(super) fn from_library(method: &'static str, error: SlackClientError) -> Self {
        let why = match error {
            SlackClientError::ApiError(error) => return Self::from_code(method, &error.code),
            SlackClientError::RateLimitError(error) => return Self::limited(error.retry_after),
            // Slack itself refuses with 200 and ok: false; other answers come from something in between
            SlackClientError::HttpError(error) => format!("HTTP status {}", error.status_code.as_u16()),
            SlackClientError::HttpProtocolError(error) => match error.cause {
                Some(cause) => innermost(cause.as_ref()),
                None => "no connection".to_owned(),
            },
            // the answer was cut off, or too long
            SlackClientError::SystemError(SlackClientSystemError { cause: Some(cause), .. }) => {
                innermost(cause.as_ref())
            }
            _ => "the answer is not from Slack".to_owned(),
        };
        SlackError::Retry { method, why }
    }

    fn limited(wait: Option<Duration>) -> Self {
        let asked = wait.unwrap_or(DEFAULT_WAIT);
        let retry_after = asked.clamp(Duration::from_secs(1), LONGEST_WAIT);
        if asked > LONGEST_WAIT {
            tracing::warn!(
                "Slack asks the app to wait {} s: it waits at most {} s",
                asked.as_secs(),
                LONGEST_WAIT.as_secs()
            );
        }
        SlackError::RateLimited { retry_after }
    }
}

fn is_message(method: &str) -> bool {
    matches!(method, "chat.postMessage" | "chat.update")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_listed_code_is_final_and_stops_as_much_as_it_must() {
        for (method, code, kind, is_final) in [
            ("chat.postMessage", "ratelimited", "rate_limited", false),
            ("chat.postMessage", "channel_not_found", "channel", true),
            ("chat.postMessage", "not_in_channel", "channel", true),
            ("chat.postMessage", "is_archived", "channel", true),
            ("chat.postMessage", "invalid_blocks", "message", true),
            ("chat.postMessage", "msg_too_long", "message", true),
            ("chat.postMessage", "thread_not_found", "missing", true),
            ("chat.update", "message_not_found", "missing", true),
            ("chat.update", "is_inactive", "channel", true),
            ("chat.update", "cant_update_message", "uneditable", true),
            ("chat.update", "edit_window_closed", "uneditable", true),
            // messages wait until someone has repaired these
            ("chat.postMessage", "invalid_auth", "refused", false),
            ("chat.update", "missing_scope", "refused", false),
            ("chat.postMessage", "no_permission", "refused", false),
            // files and questions are skipped, unless the token is the cause
            ("files.completeUploadExternal", "missing_scope", "refused", true),
            ("files.getUploadURLExternal", "file_uploads_disabled", "refused", true),
            ("files.completeUploadExternal", "token_revoked", "refused", false),
            ("conversations.history", "missing_scope", "refused", true),
            ("usergroups.users.list", "no_such_subteam", "refused", true),
            ("chat.postEphemeral", "user_not_in_channel", "refused", true),
            ("chat.postEphemeral", "msg_too_long", "refused", true),
            // a code of another method means nothing here
            ("chat.postMessage", "edit_window_closed", "retry", false),
            ("usergroups.users.list", "edit_window_closed", "retry", false),
        ] {
            let error = SlackError::from_code(method, code);
            assert_eq!((error.kind(), error.is_final()), (kind, is_final), "{method} {code}");
            assert!(SlackError::KINDS.contains(&kind), "{kind}");
        }
    }

    #[test]
    fn whatever_is_not_listed_may_pass_at_any_method() {
        for method in [
            "chat.postMessage",
            "chat.update",
            "chat.postEphemeral",
            "chat.getPermalink",
            "conversations.history",
            "conversations.replies",
            "files.getUploadURLExternal",
            "files.completeUploadExternal",
            "usergroups.users.list",
            "apps.connections.open",
        ] {
            for code in [
                "update_failed",
                "file_update_failed",
                "file_not_found",
                "fatal_error",
                "internal_error",
                "request_timeout",
                "service_unavailable",
                "team_added_to_org",
                "org_login_required",
                "external_channel_migrating",
                "message_limit_exceeded",
                "streaming_state_conflict",
                "never_heard_of",
                "",
                "<html>",
            ] {
                let error = SlackError::from_code(method, code);
                assert_eq!((error.kind(), error.is_final()), ("retry", false), "{method} {code}");
            }
        }
    }

    #[test]
    fn an_error_code_that_is_unreadable_is_not_shown() {
        for text in ["", "<html>", "xoxb-1 leaked", "a\nb", &"x".repeat(65)] {
            let error = SlackError::from_code("chat.postMessage", text);
            assert_eq!(error.to_string(), "chat.postMessage: unreadable_code");
        }
    }

    #[test]
    fn the_wait_after_a_429_is_at_least_1_s_and_bounded() {
        let wait = |seconds| SlackError::limited(Some(Duration::from_secs(seconds)));
        assert_eq!(wait(0), SlackError::RateLimited { retry_after: Duration::from_secs(1) });
        assert_eq!(wait(7), SlackError::RateLimited { retry_after: Duration::from_secs(7) });
        assert_eq!(wait(u64::MAX), SlackError::RateLimited { retry_after: LONGEST_WAIT });
        assert_eq!(SlackError::limited(None), SlackError::RateLimited { retry_after: DEFAULT_WAIT });
    }
}
