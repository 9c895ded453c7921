//! Sessions of the page: a cookie that names a token and a person, signed with that token. Each replica can verify it, and
//! replacing the token ends its sessions.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{COOKIE, HeaderMap};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use subtle::ConstantTimeEq;

const CSRF_HEADER: &str = "x-csrf-token";
/// Longest cookie that is read: there is room for the longest name.
const MAX_COOKIE: usize = 3_072;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The name of the token.
    pub token: String,
    /// As the person calls themselves.
    pub person: Option<String>,
    /// When it ends, in Unix seconds.
    pub until: u64,
}

/// The value of the session's cookie.
pub fn sign(session: &Session, key: &SecretString) -> String {
    // a struct of texts and numbers
    let content = serde_json::to_vec(session).unwrap_or_default();
    let content = BASE64_URL_SAFE_NO_PAD.encode(content);
    let signature = signed(key, "session", &content);
    format!("{content}.{signature}")
}

/// Returns the session of a cookie whose signature is valid and that has not ended. `key`: the token of a name.
pub fn verify<'k>(cookie: &str, key: impl Fn(&str) -> Option<&'k SecretString>, now: u64) -> Option<Session> {
    let (content, signature) = cookie.split_once('.').filter(|_| cookie.len() <= MAX_COOKIE)?;
    let session: Session = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(content).ok()?).ok()?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
    mac(key(&session.token)?, "session", content).verify_slice(&signature).ok()?;
    (now < session.until).then_some(session)
}

/// What an action of the page must carry besides the cookie: a page of another site cannot read it.
pub fn csrf(cookie: &str, key: &SecretString) -> String {
    signed(key, "csrf", cookie)
}

/// What an action of a person whom a proxy has signed in must carry: there is no cookie of ours.
pub fn csrf_of_person(person: &str, key: &SecretString) -> String {
    signed(key, "proxy-csrf", person)
}

fn signed(key: &SecretString, purpose: &str, content: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(mac(key, purpose, content).finalize().into_bytes())
}

pub fn is_csrf(headers: &HeaderMap, expected: &str) -> bool {
    headers.get(CSRF_HEADER).is_some_and(|given| given.as_bytes().ct_eq(expected.as_bytes()).into())
}

/// The name of the session's cookie. Over TLS it has a prefix with which browsers accept it from this host alone, so that
/// another site of the domain cannot set it.
pub fn cookie_name(is_encrypted: bool) -> &'static str {
    if is_encrypted { "__Host-prompt_rollback_session" } else { "prompt_rollback_session" }
}

/// The value of the only cookie of this name in a request.
pub fn cookie<'h>(headers: &'h HeaderMap, own_name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut own = pairs.filter(|(name, _)| *name == own_name).map(|(_, value)| value);
    // two of them: another site of the domain may have set one
    own.next().filter(|_| own.next().is_none())
}

#[allow(clippy::expect_used, reason = "a fact about the library: HMAC takes keys of any length")]
fn mac(key: &SecretString, purpose: &str, text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()).expect("a key of any length");
    mac.update(format!("prompt-rollback {purpose}\0").as_bytes());
    mac.update(text.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::input::MAX_TEXT;

    const NOW: u64 = 1_764_400_000;

    fn session() -> Session {
        Session { token: "ops".to_owned(), person: Some("maya \u{e9}".to_owned()), until: NOW + 60 }
    }

    #[test]
    fn a_session_ends_in_time_and_with_its_token() {
        let (key, replaced) = (SecretString::from("ops-token"), SecretString::from("ops-token-2"));
        let cookie = sign(&session(), &key);
        let with = |key, now| verify(&cookie, |name| (name == "ops").then_some(key), now);
        assert_eq!(with(&key, NOW), Some(session()));
        assert_eq!(with(&key, NOW + 59), Some(session()));
        assert_eq!(with(&key, NOW + 60), None);
        assert_eq!(with(&replaced, NOW), None, "the token was replaced");
        assert_eq!(verify(&cookie, |_| None, NOW), None, "the token was removed");
    }

    #[test]
    fn the_longest_name_that_may_be_entered_fits_into_a_cookie() {
        let key = SecretString::from("ops-token");
        for letter in ["\u{1f600}", "\""] {
            let session = Session { token: "t".repeat(64), person: Some(letter.repeat(MAX_TEXT)), until: u64::MAX };
            assert_eq!(verify(&sign(&session, &key), |_| Some(&key), NOW), Some(session), "{letter}");
        }
    }

    #[test]
    fn a_changed_cookie_is_no_session() {
        let key = SecretString::from("ops-token");
        let cookie = sign(&session(), &key);
        let valid = |cookie: &str| verify(cookie, |_| Some(&key), NOW).is_some();
        assert!(valid(&cookie));
        for at in 0..cookie.len() {
            let mut changed = cookie.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed == cookie || !valid(&changed), "{changed}");
        }
        let forged = Session { token: "api".to_owned(), ..session() };
        let content = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&forged).unwrap());
        assert!(!valid(&format!("{content}.{}", cookie.split_once('.').unwrap().1)), "the signature of another");
        assert!(!valid(&format!("{cookie}{}", "A".repeat(MAX_COOKIE))));
        for wrong in ["", ".", "a.b", "=", &cookie[1..], cookie.split_once('.').unwrap().0] {
            assert!(!valid(wrong), "{wrong:?}");
        }
        assert_ne!(csrf(&cookie, &key), cookie.split_once('.').unwrap().1, "each signature has one purpose");
        assert_ne!(csrf(&cookie, &key), csrf_of_person(&cookie, &key), "a person may have any name");
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let of = |value: &str| {
            let headers = HeaderMap::from_iter([(COOKIE, value.parse().unwrap())]);
            cookie(&headers, cookie_name(false)).map(str::to_owned)
        };
        assert_eq!(of("a=b; prompt_rollback_session=x.y; c=d").as_deref(), Some("x.y"));
        assert_eq!(of("prompt_rollback_session=x.y").as_deref(), Some("x.y"));
        assert_eq!(of("__Host-prompt_rollback_session=x.y"), None, "it is for TLS");
        assert_eq!(of("xprompt_rollback_session=x.y; prompt_rollback_session2=z"), None);
        assert_eq!(of(""), None);
        assert_eq!(of("prompt_rollback_session=x.y; prompt_rollback_session=z.y"), None);
    }
}
