//! What Slack's refusals mean for the caller.

use std::time::Duration;

use slack_morphism::errors::SlackClientError;

/// A 429 without a word on how long to wait.
const DEFAULT_WAIT: Duration = Duration::from_secs(30);
/// No answer can silence us for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Codes that pass by themselves.
const PASSING: &[&str] = &[
    "external_channel_migrating",
    "fatal_error",
    "internal_error",
    "message_limit_exceeded",
    "org_login_required",
    "request_timeout",
    "service_unavailable",
    "team_added_to_org",
];
/// Codes that concern the channel, whatever is said in it.
const OF_CHANNEL: &[&str] = &[
    "channel_not_found",
    "channel_type_not_supported",
    "is_archived",
    "is_inactive",
    "messages_tab_disabled",
    "method_not_supported_for_channel_type",
    "not_in_channel",
    "restricted_action",
    "restricted_action_non_threadable_channel",
    "restricted_action_read_only_channel",
    "restricted_action_thread_locked",
    "restricted_action_thread_only_channel",
];
/// Codes for a message that is not there, or no longer ours to change.
const OF_PLACE: &[&str] = &[
    "cannot_reply_to_message",
    "cant_update_message",
    "edit_window_closed",
    "invalid_thread_ts",
    "message_not_found",
    "thread_not_found",
];
/// Codes that concern the app and its token, so every message alike.
const OF_APP: &[&str] = &[
    "access_denied",
    "accesslimited",
    "account_inactive",
    "app_access_denied",
    "deprecated_endpoint",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "invalid_auth",
    "method_deprecated",
    "missing_scope",
    "no_permission",
    "not_allowed_token_type",
    "not_authed",
    "team_access_not_granted",
    "token_expired",
    "token_revoked",
    "two_factor_setup_required",
    "unknown_method",
    "user_is_restricted",
];

/// Why a call brought nothing. Holds neither secrets nor the bodies of answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlackError {
    #[error("rate limited for {} s", retry_after.as_secs())]
    RateLimited { retry_after: Duration },
    /// Passes by itself. The call may have taken effect.
    #[error("{method}: {why}")]
    Retry { method: &'static str, why: String },
    /// No message can be posted to this channel.
    #[error("the channel takes no messages: {code}")]
    Channel { code: String },
    /// This message will never be taken as it is; others will.
    #[error("the message is refused: {code}")]
    Message { code: String },
    /// The message, or the root of the thread, is not there or can't be changed any more.
    #[error("the message is not there any more")]
    Missing,
    /// Concerns the app or its token: no message gets through until someone repairs it.
    #[error("{method}: {code}")]
    Refused { method: &'static str, code: String },
    /// Only from [`Slack::new`](super::Slack::new).
    #[error("{0}")]
    Config(String),
}

impl SlackError {
    /// As a metric label.
    pub fn kind(&self) -> &'static str {
        match self {
            SlackError::RateLimited { .. } => "rate_limited",
            SlackError::Retry { .. } => "retry",
            SlackError::Channel { .. } => "channel",
            SlackError::Message { .. } => "message",
            SlackError::Missing => "missing",
            SlackError::Refused { .. } => "refused",
            SlackError::Config(_) => "config",
        }
    }

    pub(crate) fn retry(method: &'static str, why: impl Into<String>) -> Self {
        SlackError::Retry { method, why: why.into() }
    }

    /// The meaning of `ok: false`.
    pub(super) fn from_code(method: &'static str, code: &str) -> Self {
        let is_code = (1..=64).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
        let code = if is_code { code } else { "unreadable_code" };
        let posts = matches!(method, "chat.postMessage" | "chat.update");
        match code {
            "ratelimited" | "rate_limited" => SlackError::RateLimited { retry_after: DEFAULT_WAIT },
            _ if PASSING.contains(&code) => SlackError::retry(method, code),
            _ if OF_CHANNEL.contains(&code) => SlackError::Channel { code: code.to_owned() },
            _ if OF_PLACE.contains(&code) => SlackError::Missing,
            // what is not known to concern the app concerns this message: one of them must never stop all others
            _ if posts && !OF_APP.contains(&code) => SlackError::Message { code: code.to_owned() },
            _ => SlackError::Refused { method, code: code.to_owned() },
        }
    }

    /// The library's own `Display` shows bodies, so nothing of it is kept but what is known to be harmless.
    pub(super) fn from_library(method: &'static str, error: SlackClientError) -> Self {
        let why = match error {
            SlackClientError::ApiError(error) => return Self::from_code(method, &error.code),
            SlackClientError::RateLimitError(error) => return Self::limited(error.retry_after),
            // Slack itself refuses with 200 and ok: false; anything else comes from what stands in between
            SlackClientError::HttpError(error) => format!("HTTP status {}", error.status_code.as_u16()),
            SlackClientError::HttpProtocolError(error) => match error.cause {
                Some(cause) => innermost(cause.as_ref()),
                None => "no connection".to_owned(),
            },
            _ => "the answer is not Slack's".to_owned(),
        };
        SlackError::Retry { method, why }
    }

    fn limited(wait: Option<Duration>) -> Self {
        let retry_after = wait.unwrap_or(DEFAULT_WAIT).clamp(Duration::from_secs(1), LONGEST_WAIT);
        SlackError::RateLimited { retry_after }
    }
}

/// The outer errors only say that it failed; the innermost says why.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stops_as_much_as_it_must() {
        let post = |code| SlackError::from_code("chat.postMessage", code);
        for (code, kind) in [
            ("ratelimited", "rate_limited"),
            ("internal_error", "retry"),
            ("service_unavailable", "retry"),
            ("channel_not_found", "channel"),
            ("not_in_channel", "channel"),
            ("is_archived", "channel"),
            ("invalid_blocks", "message"),
            ("msg_too_long", "message"),
            ("never_heard_of", "message"),
            ("thread_not_found", "missing"),
            ("cant_update_message", "missing"),
            ("invalid_auth", "refused"),
            ("missing_scope", "refused"),
            ("no_permission", "refused"),
        ] {
            assert_eq!(post(code).kind(), kind, "{code}");
        }
        // a question has no message to blame
        assert_eq!(SlackError::from_code("usergroups.users.list", "no_such_subteam").kind(), "refused");
    }

    #[test]
    fn a_code_is_a_code_or_nothing() {
        for text in ["", "<html>", "xoxb-1 leaked", "a\nb", &"x".repeat(65)] {
            let error = SlackError::from_code("chat.postMessage", text);
            assert_eq!(error.to_string(), "the message is refused: unreadable_code");
        }
    }

    #[test]
    fn a_wait_is_bounded() {
        let wait = |seconds| SlackError::limited(Some(Duration::from_secs(seconds)));
        assert_eq!(wait(0), SlackError::RateLimited { retry_after: Duration::from_secs(1) });
        assert_eq!(wait(7), SlackError::RateLimited { retry_after: Duration::from_secs(7) });
        assert_eq!(wait(u64::MAX), SlackError::RateLimited { retry_after: LONGEST_WAIT });
        assert_eq!(SlackError::limited(None), SlackError::RateLimited { retry_after: DEFAULT_WAIT });
    }
}
