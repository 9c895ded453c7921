//! W3C Trace Context: which trace a caller's request belongs to.

use hyper::HeaderMap;

use crate::decision::{Timestamp, Trace};

pub const TRACEPARENT: &str = "traceparent";
pub const TRACESTATE: &str = "tracestate";

/// Bytes of a `traceparent` of version 00. Later versions may append fields.
const LENGTH: usize = 55;
/// Bytes of a `tracestate` that every participant must pass on.
const MAX_STATE: usize = 512;

/// A caller's position in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// A valid `traceparent` of version 00.
    parent: String,
    /// The `tracestate`; empty: none.
    state: String,
}

impl TraceContext {
    /// What the headers of a request say. A header that does not follow the standard is ignored, as the standard says.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?.to_str().ok()?;
        if parents.next().is_some() {
            return None;
        }
        let states: Option<Vec<&str>> = headers.get_all(TRACESTATE).iter().map(|state| state.to_str().ok()).collect();
        Self::read(parent, &states.unwrap_or_default().join(","))
    }

    pub fn read(parent: &str, state: &str) -> Option<Self> {
        let parent = parent.trim();
        let (known, rest) = (parent.get(..LENGTH)?, parent.get(LENGTH..)?);
        let mut fields = known.split('-');
        let is_hex = |field: &str| field.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let mut field = |length| fields.next().filter(|field| field.len() == length && is_hex(field));
        let (version, trace_id, span_id, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let is_complete = match version {
            "ff" => false,
            "00" => rest.is_empty(),
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        let is_zero = |id: &str| id.bytes().all(|byte| byte == b'0');
        if !is_complete || is_zero(trace_id) || is_zero(span_id) {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
        let state = state.trim();
        let fits = state.len() <= MAX_STATE && state.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let state = if fits { state.to_owned() } else { String::new() };
        Some(Self { parent: format!("00-{trace_id}-{span_id}-{sampled:02x}"), state })
    }

    pub fn parent(&self) -> &str {
        &self.parent
    }

    pub fn state(&self) -> &str {
        &self.state
    }

    pub fn trace_id(&self) -> &str {
        &self.parent[3..35]
    }

    pub fn span_id(&self) -> &str {
        &self.parent[36..52]
    }

    /// Whether the caller records this trace.
    pub fn is_sampled(&self) -> bool {
        self.parent.ends_with("01")
    }

    /// The part that an incident's record stores.
    pub fn to_record(&self, at: Timestamp) -> Trace {
        Trace { parent: self.parent.clone(), state: self.state.clone(), at }
    }

    pub fn of_record(trace: &Trace) -> Option<Self> {
        Self::read(&trace.parent, &trace.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn a_traceparent_of_the_standard_is_read() {
        let read = |parent: &str| TraceContext::read(parent, "").map(|context| context.parent);
        for (parent, as_00) in [
            (PARENT.to_owned(), PARENT),
            (format!(" {PARENT} "), PARENT),
            (PARENT.replace("-01", "-00"), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
            // flags that we do not know
            (PARENT.replace("-01", "-03"), PARENT),
            // later versions
            (PARENT.replacen("00", "cc", 1), PARENT),
            (format!("{}-what-comes-later", PARENT.replacen("00", "cc", 1)), PARENT),
        ] {
            assert_eq!(read(&parent).as_deref(), Some(as_00), "{parent}");
        }
        let context = TraceContext::read(PARENT, "").expect("valid");
        assert_eq!((context.trace_id(), context.span_id()), ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"));
        assert!(context.is_sampled());
        assert_eq!(TraceContext::of_record(&context.to_record(Timestamp(7))), Some(context));
    }

    #[test]
    fn a_malformed_traceparent_is_ignored() {
        for parent in [
            "",
            "00",
            "garbage",
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replacen("00", "0g", 1),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &PARENT.replace("00f067aa0ba902b7", "0000000000000000"),
            &PARENT.replace("-00f0", "_00f0"),
            &PARENT.replace("4bf9", "4bf"),
            &format!("{PARENT}-more"),
            &format!("{}x", PARENT.replacen("00", "cc", 1)),
            &PARENT.replace("4bf92f35", "4bf92fé"),
            &"é".repeat(40),
        ] {
            assert_eq!(TraceContext::read(parent, "a=b"), None, "{parent}");
        }
        assert_eq!(TraceContext::of(&headers(&[])), None);
        let twice = headers(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]);
        assert_eq!(TraceContext::of(&twice), None, "which of them?");
    }

    #[test]
    fn a_tracestate_is_kept_where_it_can_be_passed_on() {
        let state = |pairs: &[(&'static str, &str)]| {
            let pairs = [&[(TRACEPARENT, PARENT)], pairs].concat();
            TraceContext::of(&headers(&pairs)).expect("a trace").state
        };
        assert_eq!(state(&[]), "");
        assert_eq!(state(&[(TRACESTATE, "a=1"), (TRACESTATE, " b=2,c=3")]), "a=1, b=2,c=3");
        assert_eq!(state(&[(TRACESTATE, &"a".repeat(MAX_STATE + 1))]), "");
        assert_eq!(state(&[(TRACESTATE, "a=é")]), "");
    }
}
