//! Who may ask: bearer tokens, client certificates and, without a token, programs of this machine.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::reply::Failure;

/// Lets the request pass if it carries `token`, the value of the config key `key`. Without a token the receiver listens on a
/// loopback address: programs of this machine pass, foreign web pages in a browser on it do not.
pub fn check(head: &Parts, token: Option<&SecretString>, key: &str) -> Result<(), Failure> {
    match token {
        Some(token) => bearer(&head.headers, token),
        None => local(head).map_err(|found| {
            let message = format!("{key} is not set, so only programs of this machine may ask: {found}");
            Failure::new(StatusCode::FORBIDDEN, "not_local", message)
        }),
    }
}

fn bearer(headers: &HeaderMap, token: &SecretString) -> Result<(), Failure> {
    let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| match value.split_at_checked(7) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") => Some(given),
        _ => None,
    });
    let right = given.is_some_and(|given| given.ct_eq(token.expose_secret().as_bytes()).into());
    if right {
        return Ok(());
    }
    let message =
        if given.is_some() { "wrong bearer token" } else { "expected the header Authorization: Bearer TOKEN" };
    Err(Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message))
}

/// Refuses what a foreign web page in a browser on this machine may have sent; the error says which header shows it.
/// - `Host` is the name in the request's URL. DNS rebinding makes a foreign name lead here, and the browser still sends that name.
/// - `Origin` is the site of the page that sends the request: with each POST, and with a GET whose answer the page wants to read.
/// - `Sec-Fetch-Site` says the same of a GET whose answer the page cannot read (an image, a frame): a GET, too, causes work.
///   A person who follows a link from another site is let through.
///
/// Programs other than browsers send no `Origin`, and HTTP/1.0 needs no `Host`.
fn local(head: &Parts) -> Result<(), String> {
    let hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let hosts: Vec<&[u8]> = hosts.chain(head.uri.authority().map(|target| target.as_str().as_bytes())).collect();
    if let Some(foreign) = hosts.iter().find(|host| !is_loopback(host)) {
        return Err(format!("expected localhost or a loopback address in the header Host, found {}", shown(foreign)));
    }
    for origin in head.headers.get_all(ORIGIN) {
        let origin = origin.as_bytes();
        let site = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        if !site.is_some_and(|site| hosts.iter().any(|host| host.eq_ignore_ascii_case(site))) {
            return Err(format!("the header Origin says that a web page of {} sent this", shown(origin)));
        }
    }
    let site = head.headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none");
    let link = head.method == Method::GET && head.headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    if site || link {
        Ok(())
    } else {
        Err("the header Sec-Fetch-Site says that a page of another site sent this".to_owned())
    }
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

/// Lets the request of Alertmanager pass where its client certificate was verified, or none is asked for.
pub fn check_certificate(fits: bool) -> Result<(), Failure> {
    let message =
        "expected a client certificate signed by server.tls_client_ca_file (Alertmanager: http_config.tls_config)";
    if fits { Ok(()) } else { Err(Failure::new(StatusCode::FORBIDDEN, "client_certificate_required", message)) }
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
        let with = |value: &str| check(&head("POST", "/", &[("authorization", value)]), Some(&token), "key").is_ok();
        assert!(with("Bearer s3cret"));
        assert!(with("bearer s3cret"));
        for wrong in
            ["", "s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer S3CRET"]
        {
            assert!(!with(wrong), "{wrong:?}");
        }
        let failure = check(&head("POST", "/", &[]), Some(&token), "key").unwrap_err();
        assert_eq!(failure.status, StatusCode::UNAUTHORIZED);
        // whoever has the token may be anywhere
        let far =
            [("authorization", "Bearer s3cret"), ("host", "receiver.example"), ("origin", "https://wiki.example")];
        assert!(check(&head("POST", "/", &far), Some(&token), "key").is_ok());
    }

    fn passes(method: &str, target: &str, headers: &[(&str, &str)]) -> bool {
        match check(&head(method, target, headers), None, "server.api_token") {
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
