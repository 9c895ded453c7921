//! Errors that are answered to clients.

use hyper::{Method, StatusCode};

use crate::decision::{IncidentId, PromptName, Refusal};
use crate::engine::EngineError;
use crate::metrics::Denial;
use crate::store::StoreError;
use crate::visible::shown;

/// An error, `{"error":{"code","message"}}`. Alertmanager retries 5xx and drops 4xx, so the status says whether a retry
/// helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// The metric label for why access was refused; `None` for other errors.
    pub refused: Option<Denial>,
    /// The methods that the path has, if that is what is wrong.
    pub allow: Option<&'static str>,
    /// In how many seconds to try again, where the client cannot know.
    pub retry_after: Option<&'static str>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), refused: None, allow: None, retry_after: None }
    }

    /// Marks the request as refused.
    #[must_use]
    pub fn refused(self, denial: Denial) -> Self {
        Self { refused: Some(denial), ..self }
    }

    /// Says in how many seconds to try again.
    #[must_use]
    pub fn retry_after(self, seconds: &'static str) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub fn method_not_allowed(expected: &Method) -> Self {
        let allow = if expected == Method::GET { "GET, HEAD" } else { "POST" };
        let message = format!("expected {expected}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
    }

    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            code if code.is_bad_input() => StatusCode::BAD_REQUEST,
            code if code.is_not_found() => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.code.as_str(), refusal.message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Unavailable { .. } => "redis_unavailable",
            StoreError::NotReplicated { .. } => "not_replicated",
            StoreError::NewerRecord { .. } => "newer_record",
            StoreError::Broken { .. } => {
                return Self::new(StatusCode::CONFLICT, "broken_state", error.to_string());
            }
            StoreError::Config(_) => "misconfigured",
        };
        Self::unavailable(code, error.to_string())
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Contended => Self::unavailable("contended", error.to_string()),
        }
    }
}

pub fn no_incident(id: &IncidentId) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown_incident", format!("no incident {id}: it may have expired"))
}

pub fn no_prompt(prompt: &PromptName) -> ApiError {
    let message = format!("no prompt {} is registered or active", shown(prompt));
    ApiError::new(StatusCode::NOT_FOUND, "unknown_prompt", message)
}

pub fn unexpected() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "unexpected answer of the decision core")
}
