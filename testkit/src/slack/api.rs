//! The Web API: arguments, tokens, scopes, rate limits and faults around the methods.

use super::faults::{Kind, Struck, strike};
use super::methods::{self, Method, Token};
use super::records::Call;
use super::server::{Answer, Closed};
use super::state::{Shared, State};
use hyper::{HeaderMap, header};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// An error (`ok: false`), and its further fields.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal {
    pub error: String,
    pub messages: Vec<String>,
    pub extra: Map<String, Value>,
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// `invalid_arguments`, because `field` is missing.
    pub fn missing(field: &str) -> Self {
        let messages = vec![format!("missing required field: {field}")];
        Self { error: "invalid_arguments".into(), messages, ..Self::default() }
    }

    fn rate_limited(seconds: u64) -> Self {
        Self { error: "ratelimited".into(), retry_after: Some(seconds), ..Self::default() }
    }

    fn body(&self) -> Value {
        let mut body = json!({"ok": false, "error": self.error});
        if !self.messages.is_empty() {
            body["errors"] = self.messages.clone().into();
            let messages: Vec<_> = self.messages.iter().map(|message| format!("[ERROR] {message}")).collect();
            body["response_metadata"] = json!({"messages": messages});
        }
        body.as_object_mut().into_iter().for_each(|body| body.extend(self.extra.clone()));
        body
    }
}

impl From<&str> for Refusal {
    fn from(error: &str) -> Self {
        Self { error: error.into(), ..Self::default() }
    }
}

/// An object to which `ok: true` is added.
pub(super) type Outcome = Result<Value, Refusal>;

/// The arguments of a call, from a form, a query or a JSON body.
#[derive(Debug, Default)]
pub(super) struct Args(pub Map<String, Value>);

impl Args {
    /// The text under `name`; numbers and booleans count as their text, `null` and nothing as absent.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }

    pub fn required(&self, name: &str) -> Result<String, Refusal> {
        self.text(name).filter(|text| !text.is_empty()).ok_or_else(|| Refusal::missing(name))
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name).as_deref(), Some("true" | "1" | "t"))
    }

    /// A structure: directly in JSON, or as JSON in a string of a form. `Err` if the string is not JSON.
    pub fn structure(&self, name: &str) -> Result<Option<Value>, serde_json::Error> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text).map(Some),
            Some(value) => Ok(Some(value.clone())),
        }
    }
}

/// A request to `/api/<method>`.
#[derive(Debug)]
pub(super) struct Request<'r> {
    pub method: &'r str,
    pub is_post: bool,
    pub query: &'r str,
    pub headers: &'r HeaderMap,
    pub body: &'r [u8],
}

impl Request<'_> {
    fn is_json(&self) -> bool {
        self.kind().starts_with("application/json")
    }

    fn kind(&self) -> &str {
        self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
    }

    /// A JSON body counts only for methods that take JSON; Slack ignores it for the others.
    fn args(&self, takes_json: bool) -> Result<Args, Refusal> {
        let mut args: Map<String, Value> =
            form_urlencoded::parse(self.query.as_bytes()).map(|(key, value)| (key.into(), value.into())).collect();
        if self.is_json() {
            if takes_json {
                match serde_json::from_slice(self.body).map_err(|_| Refusal::from("invalid_json"))? {
                    Value::Object(map) => args.extend(map),
                    _ => return Err("json_not_object".into()),
                }
            }
        } else {
            let form = form_urlencoded::parse(self.body);
            args.extend(form.map(|(key, value)| (String::from(key), Value::from(String::from(value)))));
        }
        Ok(Args(args))
    }

    fn token(&self, args: &Args) -> Option<String> {
        let header = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = header.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        // Slack ignores a token among JSON arguments
        bearer.or_else(|| args.text("token").filter(|_| !self.is_json()))
    }
}

/// Handles a call, faults included.
pub(super) async fn handle(shared: &Shared, request: Request<'_>) -> Result<Answer, Closed> {
    let found = methods::find(request.method);
    let args = request.args(found.is_none_or(|method| method.takes_json));
    let shown = args.as_ref().map(shown_args).unwrap_or_default();
    let channel = args.as_ref().ok().and_then(|args| args.text("channel").or_else(|| args.text("channel_id")));
    let channel = channel.unwrap_or_default();
    let answer = under_faults(shared, request.method, shown, &channel, || {
        let outcome = match (found, args) {
            (None, _) => Err("unknown_method".into()),
            (_, Err(refusal)) => Err(refusal),
            (Some(method), Ok(args)) => run(shared, &request, method, &args),
        };
        outcome.map_or_else(|refusal| refuse(&refusal), |result| succeed(&request, result))
    });
    let answer = answer.await?;
    let scopes = shared.lock().scopes.iter().cloned().collect::<Vec<_>>().join(",");
    Ok(answer.header("x-oauth-scopes", scopes))
}

/// Calls `apply` unless a fault prevents it, records the call, and answers as the fault requires.
pub(super) async fn under_faults(
    shared: &Shared,
    method: &str,
    args: Value,
    channel: &str,
    apply: impl FnOnce() -> Answer,
) -> Result<Answer, Closed> {
    let fault = {
        let mut state = shared.lock();
        let id = state.find_channel(channel).map_or(channel.to_owned(), |channel| channel.id.clone());
        strike(&mut state.faults, method, &id)
    };
    let call = Call {
        at: shared.clock.now(),
        method: method.to_owned(),
        args,
        status: 0,
        result: Value::Null,
        applied: false,
    };
    let number = shared.arrived(call);
    let (fault, applies) = match fault {
        Some(Struck { kind, applied }) => (Some(kind), applied),
        None => (None, false),
    };
    if let Some(Kind::Hang(wait)) = fault {
        tokio::time::sleep(wait).await; // the fault itself
    }
    let spoiled = match &fault {
        Some(Kind::RateLimited(seconds)) => Some(Some(refuse(&Refusal::rate_limited(*seconds)))),
        Some(Kind::Error(error)) => Some(Some(refuse(&error.as_str().into()))),
        Some(Kind::Body(json)) => Some(Some(Answer::raw_json(200, json))),
        Some(Kind::Status(status)) => Some(Some(Answer::text(*status, "upstream connect error"))),
        Some(Kind::Html(status)) => {
            let page = "<!DOCTYPE html><title>Slack</title><h1>Server Error</h1>";
            Some(Some(Answer::html(*status, page)))
        }
        Some(Kind::Drop) => Some(None),
        Some(Kind::Hang(_) | Kind::SlowReply(_)) | None => None,
    };
    let handled = (spoiled.is_none() || applies).then(apply);
    let applied = handled.as_ref().is_some_and(|answer| answer.status == 200 && answer.json()["ok"] != false);
    let answer = spoiled.unwrap_or_else(|| handled.clone());
    let status = answer.as_ref().map_or(0, |answer| answer.status);
    let result = handled.as_ref().or(answer.as_ref()).map(Answer::json).unwrap_or_default();
    shared.answered(number, status, result, applied);
    if let Some(Kind::SlowReply(wait)) = fault {
        tokio::time::sleep(wait).await; // the fault itself
    }
    answer.ok_or(Closed)
}

fn run(shared: &Shared, request: &Request<'_>, method: &Method, args: &Args) -> Outcome {
    let mut state = shared.lock();
    authorize(shared, &state, request.token(args), method)?;
    if method.post_only && !request.is_post {
        return Err("insecure_request".into());
    }
    let channel = args.text("channel").unwrap_or_default();
    let bucket = state.find_channel(&channel).map_or(channel.clone(), |channel| channel.id.clone());
    if let Some(buckets) = &mut state.rate_limits {
        let wait = buckets.take(method.name, &bucket, shared.clock.since_epoch());
        wait.map_err(|wait| Refusal::rate_limited(whole_seconds(wait)))?;
    }
    (method.run)(shared, &mut state, args)
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn authorize(shared: &Shared, state: &State, token: Option<String>, method: &Method) -> Result<(), Refusal> {
    let token = token.ok_or("not_authed")?;
    let (kind, scopes) = match &token {
        _ if *token == shared.setup.bot_token => (Token::Bot, &state.scopes),
        _ if *token == shared.setup.app_token => (Token::App, &state.app_scopes),
        _ => return Err("invalid_auth".into()),
    };
    if state.revoked {
        return Err("token_revoked".into());
    }
    if kind != method.token {
        return Err("not_allowed_token_type".into());
    }
    if method.scopes.is_empty() || method.scopes.iter().any(|scope| scopes.contains(*scope)) {
        return Ok(());
    }
    let provided = scopes.iter().cloned().collect::<Vec<_>>().join(",");
    let extra = json!({"needed": method.scopes.join(","), "provided": provided});
    let extra = extra.as_object().cloned().unwrap_or_default();
    Err(Refusal { error: "missing_scope".into(), extra, ..Refusal::default() })
}

fn succeed(request: &Request<'_>, mut result: Value) -> Answer {
    result["ok"] = true.into();
    if request.is_json() && !request.kind().contains("charset") {
        result["warning"] = "missing_charset".into();
        result["response_metadata"]["warnings"] = json!(["missing_charset"]);
    }
    Answer::of_json(200, &result)
}

fn refuse(refusal: &Refusal) -> Answer {
    match refusal.retry_after {
        Some(seconds) => Answer::of_json(429, &refusal.body()).header("retry-after", seconds.to_string()),
        None => Answer::of_json(200, &refusal.body()),
    }
}

/// The arguments for the record: structures parsed, the token omitted.
fn shown_args(args: &Args) -> Value {
    let parse = |(key, value): (&String, &Value)| {
        let parsed = match value {
            Value::String(text) if text.starts_with(['[', '{']) => serde_json::from_str(text).ok(),
            _ => None,
        };
        (key.clone(), parsed.unwrap_or_else(|| value.clone()))
    };
    args.0.iter().filter(|(key, _)| *key != "token").map(parse).collect::<Map<_, _>>().into()
}
