//! Bearer tokens, and whether a client certificate is needed.

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::reply::Failure;

/// Lets the request pass if it carries `token`. No token is configured only on a loopback address: all may pass.
pub fn check(headers: &HeaderMap, token: Option<&SecretString>) -> Result<(), Failure> {
    let Some(token) = token else { return Ok(()) };
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

/// Lets the request of Alertmanager pass where its client certificate was verified, or none is asked for.
pub fn check_certificate(fits: bool) -> Result<(), Failure> {
    let message =
        "expected a client certificate signed by server.tls_client_ca_file (Alertmanager: http_config.tls_config)";
    if fits { Ok(()) } else { Err(Failure::new(StatusCode::FORBIDDEN, "client_certificate_required", message)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_passes() {
        let token = SecretString::from("s3cret");
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            check(&headers, Some(&token)).is_ok()
        };
        assert!(with("Bearer s3cret"));
        assert!(with("bearer s3cret"));
        for wrong in
            ["", "s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer S3CRET"]
        {
            assert!(!with(wrong), "{wrong:?}");
        }
        assert!(check(&HeaderMap::new(), Some(&token)).is_err());
        assert!(check(&HeaderMap::new(), None).is_ok());
    }
}
