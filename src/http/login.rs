//! `POST /login` and `POST /logout`: begins and ends a session of the page.

use bytes::Bytes;
use hyper::header::{HeaderValue, LOCATION, SET_COOKIE};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};

use super::auth::{cookie_name, is_encrypted};
use super::context::Context;
use super::error::ApiError;
use super::input::{MAX_TEXT, line};
use super::peer::Peer;
use super::reply::{Reply, ResponseBody, answer};
use crate::config::bare;

/// Largest form.
pub const MAX_BODY: usize = 4 << 10;
/// Longest path to which a sign-in leads. In the form, which anyone gets, escaping makes it up to six times as long.
const MAX_NEXT: usize = 768;

/// What a person sends to sign in.
#[derive(Debug)]
pub struct SignInForm {
    token: String,
    pub name: String,
    /// The path to go to afterwards.
    pub next: String,
}

impl SignInForm {
    pub fn read(bytes: &Bytes) -> Self {
        let field = |name: &str| {
            let mut fields = form_urlencoded::parse(bytes);
            fields.find(|(key, _)| key == name).map(|(_, value)| bare(&value).to_owned()).unwrap_or_default()
        };
        // the form shows the name again: one character too many is refused just as all of them are
        let name = field("name").chars().take(MAX_TEXT + 1).collect();
        Self { token: field("token"), name, next: destination(&field("next")).to_owned() }
    }
}

pub fn login(context: &Context, head: &Parts, peer: &Peer, form: &SignInForm, now: u64) -> Result<Reply, ApiError> {
    let person = line("name", Some(form.name.clone()), "")?;
    let person = (!person.is_empty()).then_some(person);
    let length = context.session.as_secs();
    let cookie = context.admission.sign_in(&form.token, person, now + length)?;
    redirect(&form.next, Some(&set_cookie(&cookie, length, is_encrypted(head, peer))))
}

/// The address of the form is no page: a browser that reloads it, or keeps it as a bookmark, sees the overview.
pub fn to_overview() -> Result<Reply, ApiError> {
    redirect("/", None)
}

/// The page sends this by its script, and then loads itself again.
pub fn logout(head: &Parts, peer: &Peer) -> Result<Reply, ApiError> {
    let cookie = set_cookie("", 0, is_encrypted(head, peer));
    let mut reply = answer(StatusCode::OK, &serde_json::json!({ "success": true }));
    reply.headers_mut().insert(SET_COOKIE, header(&cookie)?);
    Ok(reply)
}

/// A browser sends the cookie to the receiver's own pages only, over TLS if it came over TLS, and no script can read it.
fn set_cookie(value: &str, seconds: u64, is_encrypted: bool) -> String {
    let (name, secure) = (cookie_name(is_encrypted), if is_encrypted { "; Secure" } else { "" });
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Where a sign-in leads that was asked for at `path`: to the overview, unless a browser that is sent to `path` stays here.
/// `//host` and `/\host` lead elsewhere.
pub fn destination(path: &str) -> &str {
    let is_own = path.len() <= MAX_NEXT
        && path.starts_with('/')
        && !path[1..].starts_with(['/', '\\'])
        && path.bytes().all(|byte| byte.is_ascii_graphic());
    if is_own { path } else { "/" }
}

fn redirect(to: &str, cookie: Option<&str>) -> Result<Reply, ApiError> {
    let mut reply = Response::new(ResponseBody::whole(Bytes::new()));
    *reply.status_mut() = StatusCode::SEE_OTHER;
    reply.headers_mut().insert(LOCATION, header(to)?);
    if let Some(cookie) = cookie {
        reply.headers_mut().insert(SET_COOKIE, header(cookie)?);
    }
    Ok(reply)
}

fn header(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|_| ApiError::bad_request("next: expected a path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_to_no_other_site() {
        for own in ["/", "/prompts/a%2Fb", "/?state=held&q=x", "/a//b"] {
            assert_eq!(destination(own), own);
        }
        for other in
            ["", "//evil.example", "/\\evil.example", "https://evil.example", "evil", "/\t/evil", "/a b", "/\u{e9}"]
        {
            assert_eq!(destination(other), "/", "{other}");
        }
    }
}
