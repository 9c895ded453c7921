//! Parses requests: names, times and texts of bounded length. Each error names its field.

use std::collections::HashMap;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, HeaderMap};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::config::parse_prometheus_duration;
use crate::decision::{IncidentId, PromptName, Timestamp, VersionName};
use crate::elsewhere;
use crate::visible::is_hidden;

pub type ApiResult<T> = std::result::Result<T, ApiError>;

/// The default and the maximal number of entries of one page.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;
/// Longest text that people may send.
pub const MAX_TEXT: usize = 500;

/// Refuses a body that is declared as compressed.
pub fn uncompressed(headers: &HeaderMap) -> ApiResult<()> {
    for value in headers.get_all(CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes());
        if let Some(encoding) =
            value.split(',').map(str::trim).find(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
        {
            let encoding: String = encoding.chars().take(40).flat_map(char::escape_debug).collect();
            let message = format!("Content-Encoding: {encoding} is not supported, send the body uncompressed");
            return Err(ApiError::bad_request(message));
        }
    }
    Ok(())
}

/// Returns the body without a byte order mark. Names the encoding of a body whose first bytes cannot be UTF-8 text.
pub fn utf8(bytes: Bytes) -> ApiResult<Bytes> {
    let found = match bytes[..] {
        [0xef, 0xbb, 0xbf, ..] => return Ok(bytes.slice(3..)),
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => "zlib (deflate)",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, ..] | [_, 0, ..] => "UTF-16 or UTF-32",
        _ => return Ok(bytes),
    };
    Err(ApiError::bad_request(format!("body: expected uncompressed UTF-8 text, found {found}")))
}

/// Parses a JSON body; the error names the field. A large body is parsed on another thread.
pub async fn body<T: DeserializeOwned + Send + 'static>(bytes: &Bytes) -> ApiResult<T> {
    let bytes = bytes.clone();
    elsewhere::run_sized(bytes.len(), move || read(&bytes)).await
}

/// An error of serde without Rust's names of types.
fn in_words(error: String) -> String {
    let ranges = [("expected u8", u64::from(u8::MAX)), ("expected u32", u64::from(u32::MAX))];
    ranges
        .into_iter()
        .fold(error, |text, (name, max)| text.replace(name, &format!("expected a number from 0 to {max}")))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    // serde would also read the fields of a list, in the order of their declaration
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(ApiError::bad_request("body: expected a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let cut = |text: String| text.chars().take(MAX_TEXT).collect::<String>();
        let path = cut(error.path().to_string());
        let message = cut(in_words(error.inner().to_string()));
        ApiError::bad_request(if path == "." || path == "?" {
            format!("body: {message}")
        } else {
            format!("{path}: {message}")
        })
    })?;
    deserializer.end().map_err(|error| ApiError::bad_request(format!("body: {error}")))?;
    Ok(value)
}

/// The name of a prompt, or its encoded form.
pub fn prompt_name(text: &str) -> ApiResult<PromptName> {
    PromptName::written(text).map_err(|error| ApiError::bad_request(format!("prompt: {error}")))
}

pub fn version(field: &str, text: &str) -> ApiResult<VersionName> {
    VersionName::parse(text).map_err(|error| ApiError::bad_request(format!("{field}: {error}")))
}

pub fn optional_version(field: &str, text: Option<&String>) -> ApiResult<Option<VersionName>> {
    text.map(|text| version(field, text)).transpose()
}

/// A text for people, of bounded length, on one line.
pub fn line(field: &str, text: Option<String>, default: &str) -> ApiResult<String> {
    let mut text = text.unwrap_or_default();
    // invisible characters are pasted by accident, or meant to change the direction of the line
    text.retain(|c| c.is_control() || !is_hidden(c));
    if text.trim().is_empty() {
        text = default.to_owned();
    }
    if text.chars().count() > MAX_TEXT || text.chars().any(char::is_control) {
        return Err(ApiError::bad_request(format!("{field}: expected one line of at most {MAX_TEXT} characters")));
    }
    Ok(text)
}

pub fn time(field: &str, text: Option<&String>) -> ApiResult<Option<Timestamp>> {
    text.map(|text| {
        let at: jiff::Timestamp = text
            .parse()
            .map_err(|_| ApiError::bad_request(format!("{field}: expected a time as 2026-11-21T00:38:12Z")))?;
        Ok(Timestamp(at.as_millisecond()))
    })
    .transpose()
}

/// The text that a part of a query string encodes.
fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// Why a query parameter of this name is refused.
fn fault(name: &str, before: &HashMap<String, String>, known: &[&str]) -> Option<String> {
    match known {
        _ if before.contains_key(name) => Some("given twice in the query".to_owned()),
        known if known.contains(&name) => None,
        [] => Some("unknown query parameter, this path takes none".to_owned()),
        known => Some(format!("unknown query parameter, expected {}", known.join(", "))),
    }
}

/// The query string, decoded.
pub struct Query(HashMap<String, String>);

impl Query {
    /// Refuses parameters that are not `known`, or given twice. `None`: takes all, and the last of several.
    pub fn parse(text: Option<&str>, known: Option<&[&str]>) -> ApiResult<Self> {
        let mut query = HashMap::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name);
            if let Some(fault) = known.and_then(|known| fault(&name, &query, known)) {
                let name: String = name.chars().take(40).flat_map(char::escape_debug).collect();
                return Err(ApiError::bad_request(format!("{name}: {fault}")));
            }
            query.insert(name, decoded(value));
        }
        Ok(Self(query))
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub fn limit(&self) -> ApiResult<usize> {
        let Some(text) = self.0.get("limit") else { return Ok(PAGE) };
        let wrong = || ApiError::bad_request(format!("limit: expected a number from 1 to {MAX_PAGE}"));
        text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit)).ok_or_else(wrong)
    }

    pub fn flag(&self, name: &str) -> ApiResult<bool> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(_) => Err(ApiError::bad_request(format!("{name}: expected true or false"))),
        }
    }

    /// The parameter `since`: a time, or how long ago.
    pub fn since(&self, default: &str, now: Timestamp) -> ApiResult<Timestamp> {
        let text = self.text("since").unwrap_or(default);
        let at = match parse_prometheus_duration(text) {
            Ok(ago) => Some(now.minus(ago)),
            Err(_) => text.parse::<jiff::Timestamp>().ok().map(|at| Timestamp(at.as_millisecond())),
        };
        at.filter(|at| *at < now).ok_or_else(|| {
            ApiError::bad_request(
                "since: expected a duration such as 7d, or a time as 2026-11-21T00:38:12Z, in the past",
            )
        })
    }

    /// The cursor, if `is_ours` accepts it: Redis refuses anything else.
    pub fn cursor(&self, is_ours: impl Fn(&str) -> bool) -> ApiResult<Option<&str>> {
        let cursor = self.0.get("cursor").map(String::as_str).filter(|c| !c.is_empty());
        match cursor {
            Some(text) if !is_ours(text) => {
                Err(ApiError::bad_request("cursor: expected the value of next in an answer"))
            }
            cursor => Ok(cursor),
        }
    }
}

/// Whether `text` is a ULID; other text cannot name an incident, and must not become part of a key.
pub fn is_incident_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

pub fn incident_id(text: &str) -> ApiResult<IncidentId> {
    if is_incident_id(text) {
        Ok(IncidentId(text.to_ascii_uppercase()))
    } else {
        Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_incident", "no such incident"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_time_in_the_past() {
        let now = Timestamp(1_795_221_492_689);
        let table = [
            ("7d", Some(1_795_221_492_689 - 7 * 86_400_000)),
            ("90m", Some(1_795_221_492_689 - 5_400_000)),
            ("2026-11-21T00:38:12Z", Some(1_795_221_492_000)),
            ("2026-11-21T02:38:12%2B02:00", Some(1_795_221_492_000)),
            ("2026-11-22T00:00:00Z", None),
            ("0s", None),
            ("-7d", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, expected) in table {
            let since = Query::parse(Some(&format!("since={text}")), None).and_then(|query| query.since("1d", now));
            assert_eq!(since.ok().map(|at| at.0), expected, "{text:?}");
        }
        let none = Query::parse(None, None).expect("an empty query");
        assert_eq!(none.since("1d", now), Ok(now.minus(std::time::Duration::from_secs(86_400))));
    }

    #[test]
    fn a_parameter_that_is_not_known_or_not_clear_is_named() {
        let known: &[&str] = &["limit", "cursor"];
        let table = [
            ("limit=5&cursor=a%20b", known, Ok(())),
            ("", known, Ok(())),
            ("&limit=5&", known, Ok(())),
            ("limt=5", known, Err("limt: unknown query parameter, expected limit, cursor")),
            ("prompt=a", &[], Err("prompt: unknown query parameter, this path takes none")),
            ("limit=5&limit=6", known, Err("limit: given twice in the query")),
            ("limit=5&%6cimit=5", known, Err("limit: given twice in the query")),
            ("cursor=%ff", known, Ok(())),
            ("%ff=1", known, Err("\u{fffd}: unknown query parameter, expected limit, cursor")),
            ("%1b[2J=1", &[], Err("\\u{1b}[2J: unknown query parameter, this path takes none")),
        ];
        for (text, known, expected) in table {
            let read = Query::parse(Some(text), Some(known)).map(drop).map_err(|refused| refused.message);
            assert_eq!(read, expected.map_err(str::to_owned), "{text}");
        }
        assert!(Query::parse(Some("utm_source=mail&a=1&a=2&b=%ff"), None).is_ok());
    }

    #[test]
    fn what_nobody_sees_is_left_out_of_a_text() {
        let text = |text: &str| line("reason", Some(text.to_owned()), "none given");
        assert_eq!(text("a\u{202e}b\u{200b}\u{2028}c"), Ok("abc".to_owned()));
        assert_eq!(text("\u{2066}\u{feff}"), Ok("none given".to_owned()), "nothing is left of it");
        for control in ["a\nb", "a\u{9b}2Jb", "a\u{1b}[2J", "a\u{7f}"] {
            assert!(text(control).is_err_and(|failure| failure.status == StatusCode::BAD_REQUEST), "{control:?}");
        }
    }
}
