//! Faults of Slack on demand: which calls, how often, and what happens instead.

use std::time::Duration;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    RateLimited(u64),
    Status(u16),
    Html(u16),
    Error(String),
    Body(String),
    Hang(Duration),
    SlowReply(Duration),
    Drop,
}

/// A fault, and the calls that it affects: all, unless narrowed by [`on`](Fault::on) and
/// [`in_channel`](Fault::in_channel).
///
/// Lasts until healed, unless limited by [`times`](Fault::times). The first fault that matches applies.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(super) kind: Kind,
    method: Option<String>,
    channel: Option<String>,
    skip: usize,
    left: Option<usize>,
    applied: bool,
}

impl Fault {
    fn of(kind: Kind) -> Self {
        Self { kind, method: None, channel: None, skip: 0, left: None, applied: false }
    }

    /// 429 with `Retry-After` of this many seconds. Nothing is applied.
    pub fn rate_limited(retry_after: u64) -> Self {
        Self::of(Kind::RateLimited(retry_after))
    }

    /// This HTTP status with a short text. Nothing is applied.
    pub fn status(status: u16) -> Self {
        Self::of(Kind::Status(status))
    }

    /// A web page instead of JSON, with this HTTP status. Nothing is applied.
    pub fn html(status: u16) -> Self {
        Self::of(Kind::Html(status))
    }

    /// `ok: false` with this error. Nothing is applied.
    pub fn error(error: impl Into<String>) -> Self {
        Self::of(Kind::Error(error.into()))
    }

    /// This JSON, whole or not, with status 200. Nothing is applied.
    pub fn body(json: impl Into<String>) -> Self {
        Self::of(Kind::Body(json.into()))
    }

    /// Waits this long, then handles the call, unless the client has disconnected.
    pub fn hang(wait: Duration) -> Self {
        Self::of(Kind::Hang(wait))
    }

    /// Handles the call at once, but answers this much later.
    pub fn slow_reply(wait: Duration) -> Self {
        Self::of(Kind::SlowReply(wait))
    }

    /// Closes the connection. Nothing is applied.
    pub fn drop_connection() -> Self {
        Self::of(Kind::Drop)
    }

    /// Handles the call, then closes the connection instead of answering.
    pub fn lose_reply() -> Self {
        Self::drop_connection().applied()
    }

    /// Handles the call first: after an `internal_error` a part may have succeeded, as Slack documents, and a proxy may
    /// give up on a call that continues behind it.
    pub fn applied(mut self) -> Self {
        self.applied = true;
        self
    }

    /// Affects this method only (`response_url` for replies to interactions, `upload` for file bytes).
    pub fn on(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Affects calls for this channel id only.
    pub fn in_channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = Some(channel.into());
        self
    }

    /// Applies this often, then never again.
    pub fn times(mut self, times: usize) -> Self {
        self.left = Some(times);
        self
    }

    /// Lets this many matching calls succeed first.
    pub fn after(mut self, calls: usize) -> Self {
        self.skip = calls;
        self
    }

    pub(super) fn is_on(&self, method: &str) -> bool {
        self.method.as_deref() == Some(method)
    }

    fn strikes(&mut self, method: &str, channel: &str) -> bool {
        let matches = self.method.as_deref().is_none_or(|own| own == method)
            && self.channel.as_deref().is_none_or(|own| own == channel)
            && self.left != Some(0);
        if !matches || self.skip > 0 {
            self.skip -= usize::from(matches);
            return false;
        }
        self.left = self.left.map(|left| left - 1);
        true
    }
}

/// The fault that affects this call, if any.
pub(super) fn strike(faults: &mut [Fault], method: &str, channel: &str) -> Option<Struck> {
    let struck = |fault: &Fault| Struck { kind: fault.kind.clone(), applied: fault.applied };
    faults.iter_mut().find_map(|fault| fault.strikes(method, channel).then(|| struck(fault)))
}

/// What happens to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Struck {
    pub kind: Kind,
    /// Whether the call is handled before the faulty answer.
    pub applied: bool,
}
