//! What was asked of one prompt, when, and what was answered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::Instant;

use prompt_rollback_testkit::http::Answer;
use serde_json::Value;

/// What a client asks for. An operator's name belongs to one request, so that the log says whose a change was.
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
    /// A person takes a rollback back.
    Undo {
        operator: String,
    },
    /// A person has what was held rolled back.
    Approve {
        operator: String,
    },
    Dismiss,
    /// Reads the prompt.
    Look,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// It changed what is served.
    Changed {
        from: Option<String>,
        to: String,
        incident: Option<String>,
    },
    /// That is served already.
    Unchanged {
        active: String,
    },
    /// Of an alert that changed nothing: outcome and reason.
    Noted {
        outcome: String,
        reason: String,
    },
    /// Refused for good, with this code.
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
    /// No answer, or one that says that it may succeed later: it may have happened, and may still happen.
    Unknown,
}

/// One request, in microseconds since the world began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    pub client: String,
    pub call: Call,
    pub start: u64,
    /// When it was answered; never, if that is not known.
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

/// All that was asked, by prompt.
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

    /// Runs a request and writes down when it began, when it ended, and what was answered.
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

    /// All requests, and how many of them had no answer that says what became of them.
    pub fn count(&self) -> (usize, usize) {
        let all = self.lock();
        let unknown = all.values().flatten().filter(|op| op.got == Got::Unknown).count();
        (all.values().map(Vec::len).sum(), unknown)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Op>>> {
        self.ops.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What an answer of the API means; `read` reads the body of a 200.
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

/// The answer to a change of what is served.
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
