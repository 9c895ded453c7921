//! The requests about one prompt, with times and answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Instant;

use prompt_rollback_testkit::http::Answer;
use serde_json::Value;

/// A client's request. Each request has its own operator, so that the log identifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A firing alert that asks for a rollback of `version`.
    Critical {
        version: String,
    },
    Rollback {
        from: Option<String>,
        target: Option<String>,
        operator: String,
    },
    Activate {
        version: String,
        force: bool,
        operator: String,
    },
    Pause,
    Resume,
    /// A person undoes a rollback.
    Undo {
        operator: String,
    },
    /// A person approves a held rollback.
    Approve {
        operator: String,
    },
    Dismiss,
    /// Reads the prompt.
    Look,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// It changed the active version.
    Changed {
        from: Option<String>,
        to: String,
        incident: Option<String>,
    },
    /// The version is already active.
    Unchanged {
        active: String,
    },
    /// The outcome and reason of an alert that changed nothing.
    Noted {
        outcome: String,
        reason: String,
    },
    /// Permanently refused, with this code.
    Refused(String),
    Switched {
        changed: bool,
    },
    Seen {
        active: Option<String>,
        quarantined: BTreeSet<String>,
        paused: bool,
    },
    Done,
    /// No answer, or one that allows a retry: it may have happened, and may still happen.
    Unknown,
}

/// One request, with times in microseconds since the world began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub client: String,
    pub call: Call,
    pub start: u64,
    /// When it was answered; never, if that is unknown.
    pub end: u64,
    pub got: Got,
}

/// An entry of the deployment log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub event: String,
    pub from: String,
    pub to: String,
    pub operator: String,
    pub reason: String,
    pub incident: String,
    pub at: String,
}

impl Entry {
    pub fn read(fields: &HashMap<String, String>) -> Self {
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        Self {
            event: field("event"),
            from: field("from"),
            to: field("to"),
            operator: field("operator"),
            reason: field("reason"),
            incident: field("incident"),
            at: field("at"),
        }
    }
}

/// All requests, by prompt.
pub struct Recorder {
    begun: Instant,
    ops: Mutex<BTreeMap<String, Vec<Op>>>,
}

impl Recorder {
    pub fn start() -> Self {
        Self { begun: Instant::now(), ops: Mutex::default() }
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    /// Runs a request, and records its start, its end and its answer.
    pub async fn record(&self, client: &str, prompt: &str, call: Call, request: impl Future<Output = Got>) -> Got {
        let start = self.now();
        let got = request.await;
        let end = if got == Got::Unknown { u64::MAX } else { self.now() };
        let op = Op { client: client.to_owned(), call, start, end, got: got.clone() };
        self.lock().entry(prompt.to_owned()).or_default().push(op);
        got
    }

    pub fn of(&self, prompt: &str) -> Vec<Op> {
        let mut ops = self.lock().get(prompt).cloned().unwrap_or_default();
        ops.sort_by_key(|op| op.start);
        ops
    }

    /// The number of all requests, and of those without a known outcome.
    pub fn count(&self) -> (usize, usize) {
        let all = self.lock();
        let unknown = all.values().flatten().filter(|op| op.got == Got::Unknown).count();
        (all.values().map(Vec::len).sum(), unknown)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Op>>> {
        self.ops.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The meaning of an API response; `read` reads the body of a 200.
pub fn understood(answer: anyhow::Result<Answer>, read: impl FnOnce(&Value) -> Option<Got>) -> Got {
    let Ok(answer) = answer else { return Got::Unknown };
    let body = answer.json().unwrap_or_default();
    match answer.status {
        200 | 201 => read(&body).unwrap_or_else(|| Got::Refused(format!("not understood: {body}"))),
        202 | 500.. => Got::Unknown,
        _ => Got::Refused(text(&body["error"]["code"])),
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The answer to a change of the active version.
pub fn change(body: &Value) -> Option<Got> {
    let to = body["to_version"].as_str()?.to_owned();
    if body["unchanged"] == true {
        return Some(Got::Unchanged { active: to });
    }
    let field = |name: &str| body[name].as_str().map(str::to_owned);
    Some(Got::Changed { from: field("from_version"), to, incident: field("incident") })
}

/// The answer to a GET of the prompt.
pub fn seen(body: &Value) -> Option<Got> {
    let versions = body["versions"].as_array()?.iter();
    let quarantined = versions.filter(|v| !v["quarantined_at"].is_null()).map(|v| text(&v["version"]));
    Some(Got::Seen {
        active: body["active"].as_str().map(str::to_owned),
        quarantined: quarantined.collect(),
        paused: body["paused"].as_bool()?,
    })
}
