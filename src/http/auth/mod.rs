//! Authentication: bearer tokens, sessions of the page, people whom a proxy signs in, client certificates and, without a
//! token, requests from this machine.

mod caller;
mod session;

pub use caller::{Admission, Caller, is_encrypted};
pub use session::cookie_name;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hyper::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::error::ApiError;
use crate::config::{SourceConfig, bare};
use crate::metrics::Denial;

pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The local time, by which sessions are signed and end.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the source of a delivery and the prompts that it may send alerts for. `None`: `server.webhook_token`, or a
/// program of this machine if no token is set, which may send all alerts.
pub fn sender<'a>(
    head: &Parts,
    token: Option<&SecretString>,
    sources: &'a BTreeMap<String, SourceConfig>,
) -> Result<Option<(&'a str, &'a SourceConfig)>, ApiError> {
    if token.is_none() && sources.is_empty() {
        return local(head, "server.webhook_token").map(|()| None);
    }
    let given = head.headers.get(AUTHORIZATION).and_then(bearer).ok_or_else(no_token)?;
    let whole = token.is_some_and(|token| is_same(given, token));
    // all tokens are compared, so that the time does not reveal which one matches
    let of = |found: Option<_>, (name, source): (&'a String, &'a SourceConfig)| {
        let fits = source.token.as_ref().is_some_and(|token| is_same(given, token));
        if fits { Some((name.as_str(), source)) } else { found }
    };
    match (whole, sources.iter().fold(None, of)) {
        (true, _) => Ok(None),
        (false, Some(source)) => Ok(Some(source)),
        (false, None) => Err(wrong()),
    }
}

/// The token of a header `Authorization: Bearer TOKEN`, without what [`bare`] removes: Alertmanager sends the file of its
/// token with a byte order mark, if it has one.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    let token = std::str::from_utf8(token).map_or(token, |text| bare(text).as_bytes());
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

fn no_token() -> ApiError {
    unauthorized("expected the header Authorization: Bearer TOKEN").refused(Denial::NoToken)
}

fn is_same(given: &[u8], token: &SecretString) -> bool {
    given.ct_eq(token.expose_secret().as_bytes()).into()
}

fn wrong() -> ApiError {
    unauthorized("wrong bearer token").refused(Denial::WrongToken)
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

/// Logs what anyone may cause, each reason at most once in a while, so that guessing tokens does not fill the log.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<&'static str, (Instant, u64)>>);

impl Refusals {
    const EVERY: Duration = Duration::from_secs(10);

    /// Whether to log this one, and how many were not logged since the last.
    pub fn should_log(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match logged.get_mut(reason) {
            Some((last, not_logged)) if now.duration_since(*last) < Self::EVERY => {
                *not_logged += 1;
                None
            }
            other => {
                let not_logged = other.map_or(0, |(_, not_logged)| *not_logged);
                logged.insert(reason, (now, 0));
                Some(not_logged)
            }
        }
    }
}

/// Accepts a program of this machine, because no token is set and the receiver listens on a loopback address. `key` is the
/// config key of the token.
fn local(head: &Parts, key: &str) -> Result<(), ApiError> {
    from_this_machine(head).map_err(|found| {
        let message = format!("{key} is not set, so only requests from this machine are accepted: {found}");
        ApiError::new(StatusCode::FORBIDDEN, "not_local", message).refused(Denial::NotLocal)
    })
}

/// Refuses requests that a foreign web page in a local browser may have sent. The error names the header that shows it.
/// - `Host` is the name in the request's URL. With DNS rebinding a foreign name resolves to this machine, and the
///   browser still sends that name.
/// - `Origin` is the site of the page that sends the request: sent with each POST, and with a GET whose response the
///   page wants to read.
/// - `Sec-Fetch-Site` tells the same about a GET whose response the page cannot read (an image, a frame): a GET causes
///   work as well. A person who follows a link from another site is accepted.
///
/// Programs other than browsers send no `Origin`, and HTTP/1.0 needs no `Host`.
fn from_this_machine(head: &Parts) -> Result<(), String> {
    let hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let hosts: Vec<&[u8]> = hosts.chain(head.uri.authority().map(|target| target.as_str().as_bytes())).collect();
    if let Some(foreign) = hosts.iter().find(|host| !is_loopback(host)) {
        return Err(format!("expected localhost or a loopback address in the header Host, found {}", shown(foreign)));
    }
    for origin in head.headers.get_all(ORIGIN) {
        let origin = origin.as_bytes();
        if !is_one_of(origin, &hosts) {
            return Err(format!("the header Origin says that a web page of {} sent this", shown(origin)));
        }
    }
    let site = head.headers.get(SEC_FETCH_SITE).is_none_or(|site| site == "same-origin" || site == "none");
    let link = head.method == Method::GET && head.headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    if site || link {
        Ok(())
    } else {
        Err("the header Sec-Fetch-Site says that a page of another site sent this".to_owned())
    }
}

/// Whether the origin of a web page is one of these hosts.
fn is_one_of(origin: &[u8], hosts: &[&[u8]]) -> bool {
    let site = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    site.is_some_and(|site| hosts.iter().any(|host| host.eq_ignore_ascii_case(site)))
}

/// Whether the receiver's own page sent this, as a browser says: every browser sends `Origin` or `Sec-Fetch-Site` with a
/// POST. `behind_proxy`: the host's name may be in `X-Forwarded-Host`.
fn is_same_site(head: &Parts, behind_proxy: bool) -> bool {
    let mut sites = head.headers.get_all(SEC_FETCH_SITE).iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| site == "same-origin");
    }
    let forwarded = behind_proxy.then(|| head.headers.get("x-forwarded-host")).flatten();
    let hosts = head.headers.get(HOST).into_iter().chain(forwarded).map(HeaderValue::as_bytes);
    let hosts: Vec<&[u8]> = hosts.collect();
    let mut origins = head.headers.get_all(ORIGIN).iter().peekable();
    origins.peek().is_some() && origins.all(|origin| is_one_of(origin.as_bytes(), &hosts))
}

fn is_loopback(host: &[u8]) -> bool {
    let Ok(host) = Authority::try_from(host) else { return false };
    if host.as_str().contains('@') {
        return false;
    }
    let name = host.host();
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn shown(value: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&value[..value.len().min(100)]))
}

/// Accepts Alertmanager's request if its client certificate was verified, or none is required.
pub fn check_certificate(fits: bool) -> Result<(), ApiError> {
    let message =
        "expected a client certificate signed by server.tls_client_ca_file (Alertmanager: http_config.tls_config)";
    let failure = || ApiError::new(StatusCode::FORBIDDEN, "client_certificate_required", message);
    if fits { Ok(()) } else { Err(failure().refused(Denial::NoCertificate)) }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_the_right_token_passes() {
        let token = SecretString::from("s3cret");
        let none = BTreeMap::new();
        let with = |value: &str| sender(&head("POST", "/", &[("authorization", value)]), Some(&token), &none).is_ok();
        assert!(with("Bearer s3cret"));
        assert!(with("bearer s3cret"));
        // what Alertmanager sends of a file that an editor has saved with a byte order mark
        let marked = HeaderValue::from_bytes("Bearer \u{feff}s3cret".as_bytes()).unwrap();
        assert_eq!(bearer(&marked), Some(&b"s3cret"[..]));
        for wrong in
            ["", "s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer S3CRET"]
        {
            assert!(!with(wrong), "{wrong:?}");
        }
        let failure = sender(&head("POST", "/", &[]), Some(&token), &none).unwrap_err();
        assert_eq!(failure.status, StatusCode::UNAUTHORIZED);
        // a client with the token may be anywhere
        let far =
            [("authorization", "Bearer s3cret"), ("host", "receiver.example"), ("origin", "https://wiki.example")];
        assert!(sender(&head("POST", "/", &far), Some(&token), &none).is_ok());
    }

    #[test]
    fn each_token_is_known_with_the_prompts_it_may_report_on() {
        let source = |token: &str, allowed: &str| SourceConfig {
            token: Some(SecretString::from(token)),
            allowed_prompts: allowed.split(',').map(str::to_owned).collect(),
        };
        let sources: BTreeMap<_, _> = [("a", source("token-a", "team-a/*,search")), ("all", source("token-all", "*"))]
            .map(|(name, source)| (name.to_owned(), source))
            .into();
        let whole = SecretString::from("whole");
        let with = |value: &str, token: Option<&SecretString>| {
            let found = sender(&head("POST", "/", &[("authorization", value)]), token, &sources);
            found.map(|source| source.map(|(name, _)| name.to_owned())).map_err(|failure| failure.refused)
        };
        assert_eq!(with("Bearer token-a", None), Ok(Some("a".to_owned())));
        assert_eq!(with("Bearer token-all", Some(&whole)), Ok(Some("all".to_owned())));
        assert_eq!(with("Bearer whole", Some(&whole)), Ok(None));
        assert_eq!(with("Bearer whole", None), Err(Some(Denial::WrongToken)));
        assert_eq!(with("Bearer ", Some(&whole)), Err(Some(Denial::WrongToken)));
        assert_eq!(with("Basic token-a", None), Err(Some(Denial::NoToken)), "on loopback, too");
        let may = |name: &str, prompt: &str| sources[name].allows(&crate::decision::PromptName::parse(prompt).unwrap());
        assert!(may("a", "team-a/x") && may("a", "search") && may("all", "team-b/x"));
        for other in ["team-b/x", "team-a", "xteam-a/x", "search2", "team-A/x"] {
            assert!(!may("a", other), "{other}");
        }
        assert!(sources["all"].allows_all() && !sources["a"].allows_all());
    }

    #[test]
    fn refusals_are_told_once_in_a_while_with_how_many_there_were() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert_eq!(refusals.should_log("wrong_token", now), Some(0));
        for seconds in 0..9 {
            assert_eq!(refusals.should_log("wrong_token", now + Duration::from_secs(seconds)), None);
        }
        assert_eq!(refusals.should_log("no_token", now), Some(0), "another reason");
        assert_eq!(refusals.should_log("wrong_token", now + Refusals::EVERY), Some(9));
    }

    fn passes(method: &str, target: &str, headers: &[(&str, &str)]) -> bool {
        match local(&head(method, target, headers), "server.api_token") {
            Ok(()) => true,
            Err(failure) => {
                assert_eq!((failure.status, failure.code), (StatusCode::FORBIDDEN, "not_local"));
                assert!(failure.message.starts_with("server.api_token is not set"), "{}", failure.message);
                false
            }
        }
    }

    #[test]
    fn without_a_token_the_name_asked_for_must_be_this_machine() {
        for host in [
            "localhost",
            "localhost:8000",
            "LocalHost:9000",
            "localhost.:8000",
            "127.0.0.1",
            "127.0.0.1:8000",
            "127.8.9.10:80",
            "[::1]",
            "[::1]:8000",
            "[::ffff:127.0.0.1]:8000",
        ] {
            assert!(passes("POST", "/", &[("host", host)]), "{host}");
            let absolute = format!("http://{host}/api/rollback");
            assert!(passes("POST", &absolute, &[("host", host)]), "{absolute}");
            assert!(!passes("POST", "http://evil.example/", &[("host", host)]), "absolute target, {host}");
        }
        for host in [
            "",
            "x",
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "evil.localhost",
            "localhost:8000@evil.example",
            "evil.example@localhost",
            "localhost, evil.example",
            "localhost evil.example",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "0.0.0.0:8000",
            "[::]:8000",
            "::1",
            "192.168.1.2",
            "\u{e9}",
        ] {
            assert!(!passes("GET", "/", &[("host", host)]), "{host}");
            assert!(!passes("POST", "/", &[("host", "localhost"), ("host", host)]), "two names, {host}");
        }
        assert!(passes("GET", "/", &[]), "HTTP/1.0; a browser always names a host");
    }

    #[test]
    fn without_a_token_pages_of_others_are_refused() {
        for host in ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "localhost"] {
            let with = |origin: &str| passes("POST", "/", &[("host", host), ("origin", origin)]);
            assert!(with(&format!("http://{host}")) && with(&format!("https://{host}")), "{host}");
            for origin in [
                "null",
                "",
                "https://evil.example",
                "http://localhost:3000",
                "http://localhost:80000",
                "http://localhost:8000.evil.example",
                "http://127.0.0.1",
                "http://evil.example#http://localhost:8000",
                "file://",
                "chrome-extension://localhost:8000",
                "localhost:8000",
                "localhost",
            ] {
                assert!(!with(origin), "{host} {origin}");
            }
            assert!(!passes("POST", "/", &[("host", host), ("origin", "null"), ("origin", &format!("http://{host}"))]));
        }
        assert!(!passes("POST", "/", &[("origin", "http://localhost:8000")]), "of no host");
        let from = |method: &str, site: &str, dest: &str| {
            passes(method, "/", &[("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-dest", dest)])
        };
        assert!(from("GET", "same-origin", "empty") && from("GET", "none", "document"));
        for site in ["cross-site", "same-site", "anything"] {
            assert!(from("GET", site, "document"), "a link");
            assert!(!from("GET", site, "image") && !from("GET", site, "iframe") && !from("POST", site, "document"));
            assert!(!passes("GET", "/", &[("host", "localhost"), ("sec-fetch-site", site)]));
        }
    }
}
