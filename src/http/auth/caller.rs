//! Who sends an API request or looks at the page, and what they may do.

use std::time::Duration;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, StatusCode};
use secrecy::SecretString;

use super::session::{self, Session};
use super::{bearer, is_same, is_same_site, local, no_token, unauthorized, wrong};
use crate::config::{Config, ProxyConfig, Role, allows, allows_all};
use crate::decision::{Incident, IncidentId, Operator, PromptName};
use crate::http::error::{ApiError, no_incident};
use crate::http::input::{ApiResult, line};
use crate::http::peer::{Door, Peer};
use crate::metrics::Denial;
use crate::visible::shown;

/// Longest name of a person.
const MAX_NAME: usize = 200;
/// How far the clock of the replica that signed a session may be ahead.
const CLOCKS: Duration = Duration::from_secs(300);

/// The credentials and proxies that the API and the page accept.
#[derive(Debug)]
pub struct Admission {
    /// `server.api_token` and the named tokens.
    tokens: Vec<Credential>,
    proxy: ProxyConfig,
    /// How long a sign-in lasts; `None` if the page is off.
    session: Option<Duration>,
}

#[derive(Debug)]
struct Credential {
    name: String,
    token: SecretString,
    roles: Vec<Role>,
    prompts: Vec<String>,
}

/// The sender of a request that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The name of the token, or of what else verifies the person.
    proof: String,
    /// The person, if a sign-in or a proxy names one.
    person: Option<String>,
    roles: Vec<Role>,
    prompts: Vec<String>,
    /// The value that each action of the page must carry.
    pub csrf: Option<String>,
}

impl Admission {
    pub fn new(config: &Config) -> Self {
        let named = config.tokens.iter().filter_map(|(name, of)| {
            let token = of.token.clone()?;
            Some(Credential { name: name.clone(), token, roles: of.roles.clone(), prompts: of.prompts.clone() })
        });
        let whole = config.server.api_token.clone().map(|token| Credential {
            name: Operator::API.to_owned(),
            token,
            roles: vec![Role::Admin],
            prompts: vec!["*".to_owned()],
        });
        let tokens = whole.into_iter().chain(named).collect();
        Self { tokens, proxy: config.proxy.clone(), session: config.page.enabled.then_some(config.page.session) }
    }

    /// Whether no token is needed, because the receiver listens on loopback addresses only.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns who sends this request: by a token, by the proxy that signed them in, or by the page's cookie.
    pub fn caller(&self, head: &Parts, peer: &Peer, now: u64) -> Result<Caller, ApiError> {
        let given = head.headers.get(AUTHORIZATION).and_then(bearer);
        if let Some(given) = given.filter(|_| !self.is_open()) {
            return self.by_token(given).map(Credential::caller).ok_or_else(wrong);
        }
        if let Some(person) = self.signed_in_by_proxy(&head.headers, peer)? {
            same_site(head, true)?;
            // the config has a token if it has a proxy
            let csrf = self.tokens.first().map(|first| session::csrf_of_person(&person, &first.token));
            from_page(head, csrf.as_deref())?;
            let ProxyConfig { roles, prompts, .. } = self.proxy.clone();
            let proof = Operator::PROXY.to_owned();
            return Ok(Caller { proof, person: Some(person), roles, prompts, csrf });
        }
        if let Some((session, csrf)) = self.session(head, peer, now) {
            same_site(head, self.is_trusted(peer))?;
            from_page(head, Some(&csrf))?;
            let credential = self.tokens.iter().find(|credential| credential.name == session.token);
            let caller = credential.map(Credential::caller).ok_or_else(wrong)?;
            return Ok(Caller { person: session.person, csrf: Some(csrf), ..caller });
        }
        if self.is_open() {
            local(head, "server.api_token")?;
            return Ok(Caller::on_this_machine());
        }
        Err(no_token())
    }

    /// All tokens are compared, so that the time does not reveal which one matches.
    fn by_token(&self, given: &[u8]) -> Option<&Credential> {
        self.tokens.iter().fold(None, |found, of| if is_same(given, &of.token) { Some(of) } else { found })
    }

    fn is_trusted(&self, peer: &Peer) -> bool {
        self.proxy.addresses.iter().any(|network| network.contains(peer.address))
    }

    /// The person whom a trusted proxy names.
    fn signed_in_by_proxy(&self, headers: &HeaderMap, peer: &Peer) -> Result<Option<String>, ApiError> {
        if !self.is_trusted(peer) {
            return Ok(None);
        }
        let mut names = headers.get_all(self.proxy.user_header.as_str()).iter();
        let (Some(name), more) = (names.next(), names.next()) else { return Ok(None) };
        if !self.is_own_host(headers) {
            return Err(cross_site(
                "the Host header is not listed in proxy.hosts: a page of another site may have sent this",
            ));
        }
        let name = name.to_str().ok().map(str::trim).filter(|name| !name.is_empty() && name.len() <= MAX_NAME);
        match name {
            Some(name) if more.is_none() && !Operator::is_reserved(name) => Ok(Some(name.to_owned())),
            _ => Err(unauthorized(&format!(
                "expected one name of a person in the header {}, at most {MAX_NAME} visible ASCII characters long",
                self.proxy.user_header
            ))
            .refused(Denial::WrongName)),
        }
    }

    /// Whether the proxy's request is for a name of the receiver. A page of another site can make its own name lead here.
    fn is_own_host(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        host.is_some_and(|host| self.proxy.hosts.iter().any(|own| own.eq_ignore_ascii_case(host.host())))
    }

    /// The session of a request's cookie, if it has not ended, with the value that its actions must carry.
    fn session(&self, head: &Parts, peer: &Peer, now: u64) -> Option<(Session, String)> {
        let cookie = session::cookie(&head.headers, session::cookie_name(is_encrypted(head, peer)))?;
        let key = |name: &str| self.tokens.iter().find(|credential| credential.name == name).map(|of| &of.token);
        let session = session::verify(cookie, key, now).filter(|session| self.would_sign(session, now))?;
        let csrf = session::csrf(cookie, key(&session.token)?);
        Some((session, csrf))
    }

    /// Whether a sign-in can have created this session. The holder of a token can sign any other contents with it.
    fn would_sign(&self, session: &Session, now: u64) -> bool {
        let named = session.person.clone().is_none_or(|person| {
            line("name", Some(person.clone()), "").is_ok_and(|same| same == person) && !Operator::is_reserved(&person)
        });
        let longest = self.session.map(|session| session + CLOCKS);
        named && longest.is_some_and(|longest| session.until <= now.saturating_add(longest.as_secs()))
    }

    /// The cookie of a new session, signed in with this token. `person`: the name that was entered.
    pub fn sign_in(&self, token: &str, person: Option<String>, until: u64) -> Result<String, ApiError> {
        let credential = self.by_token(token.as_bytes()).ok_or_else(wrong)?;
        // verifies the name, too
        Operator::api(&credential.name, person.as_deref())
            .map_err(|error| ApiError::bad_request(format!("name: {error}")))?;
        let session = Session { token: credential.name.clone(), person, until };
        Ok(session::sign(&session, &credential.token))
    }

    /// Refuses a form that the receiver's own page cannot have sent.
    pub fn check_form(&self, head: &Parts, peer: &Peer) -> Result<(), ApiError> {
        if self.is_open() {
            local(head, "server.api_token")?;
        }
        same_site(head, self.is_trusted(peer))
    }
}

impl Credential {
    fn caller(&self) -> Caller {
        let Self { name, roles, prompts, .. } = self;
        Caller { proof: name.clone(), person: None, roles: roles.clone(), prompts: prompts.clone(), csrf: None }
    }
}

/// Whether the browser's connection is encrypted, to the receiver or to a proxy before it.
pub fn is_encrypted(head: &Parts, peer: &Peer) -> bool {
    let by_proxy = head.headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    by_proxy || peer.door != Door::Plain
}

/// Whether the method changes nothing.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Refuses an action that a browser sends from a page of another site: it carries the person's cookies, too.
fn same_site(head: &Parts, behind_proxy: bool) -> Result<(), ApiError> {
    if is_safe(&head.method) || is_same_site(head, behind_proxy) {
        return Ok(());
    }
    Err(cross_site("the headers Sec-Fetch-Site, Origin and Host do not show that the receiver's own page sent this"))
}

/// Refuses an action without the value that only the receiver's own page contains.
fn from_page(head: &Parts, csrf: Option<&str>) -> Result<(), ApiError> {
    if is_safe(&head.method) || csrf.is_some_and(|csrf| session::is_csrf(&head.headers, csrf)) {
        return Ok(());
    }
    Err(cross_site("expected the header X-CSRF-Token with the value that the page contains: reload the page"))
}

fn cross_site(message: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "cross_site", message).refused(Denial::CrossSite)
}

impl Caller {
    /// A program of this machine, where no token is needed.
    fn on_this_machine() -> Self {
        let (proof, prompts) = (Operator::API.to_owned(), vec!["*".to_owned()]);
        Self { proof, person: None, roles: vec![Role::Admin], prompts, csrf: None }
    }

    pub fn has(&self, role: Role) -> bool {
        role == Role::Read || self.roles.iter().any(|own| *own == role || *own == Role::Admin)
    }

    pub fn require(&self, role: Role) -> Result<(), ApiError> {
        if self.has(role) {
            return Ok(());
        }
        let roles: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
        Err(not_allowed(format!(
            "{} has the role {}, and this requires {}",
            self.name(),
            roles.join(", "),
            role.as_str()
        )))
    }

    pub fn sees(&self, prompt: &PromptName) -> bool {
        allows(&self.prompts, prompt)
    }

    /// Like [`sees`](Self::sees), from the encoded form of a name.
    pub fn may_see(&self, prompt: &str) -> bool {
        self.sees_all() || PromptName::parse(prompt).is_ok_and(|prompt| self.sees(&prompt))
    }

    pub fn sees_all(&self) -> bool {
        allows_all(&self.prompts)
    }

    pub fn require_prompt(&self, prompt: &PromptName) -> Result<(), ApiError> {
        if self.sees(prompt) {
            return Ok(());
        }
        Err(not_allowed(format!(
            "{} may not see {}: its prompts are {}",
            self.name(),
            shown(prompt),
            self.prompts.join(", ")
        )))
    }

    /// An incident of a prompt that the caller may not see is answered like one that does not exist.
    pub fn require_incident(&self, incident: &Incident) -> Result<(), ApiError> {
        if self.sees(&incident.prompt) { Ok(()) } else { Err(no_incident(&incident.id)) }
    }

    /// Like [`require_incident`](Self::require_incident), for an id that no prompt's incident has.
    pub fn require_outage(&self, id: &IncidentId) -> Result<(), ApiError> {
        if self.sees_all() { Ok(()) } else { Err(no_incident(id)) }
    }

    /// For what concerns every prompt.
    pub fn require_all_prompts(&self) -> Result<(), ApiError> {
        if self.sees_all() {
            return Ok(());
        }
        let prompts = self.prompts.join(", ");
        Err(not_allowed(format!("this concerns every prompt, and {} may see only {prompts}", self.name())))
    }

    /// Who acts. A client that is not a person's session may name the person.
    pub fn operator(&self, named: Option<String>) -> ApiResult<Operator> {
        let name = match &self.person {
            Some(person) => Some(person.clone()),
            None => Some(line("operator", named, "")?),
        };
        let operator = Operator::api(&self.proof, name.as_deref());
        operator.map_err(|error| ApiError::bad_request(format!("operator: {error}")))
    }

    /// The operator of a decision. The shared token identifies no person, so its holder must give a name.
    pub fn decider(&self, named: String) -> ApiResult<Operator> {
        let named = line("operator", Some(named), "")?;
        if self.person.is_none() && self.proof == Operator::API && named.is_empty() {
            return Err(ApiError::bad_request("operator: expected the name of the person who decides"));
        }
        self.operator(Some(named))
    }

    /// For people.
    pub fn name(&self) -> &str {
        self.person.as_deref().unwrap_or(&self.proof)
    }

    /// Whether they have signed in here, and not at a proxy.
    pub fn has_session(&self) -> bool {
        self.csrf.is_some() && !self.is_proxied()
    }

    fn is_proxied(&self) -> bool {
        self.proof == Operator::PROXY
    }

    /// Whose the streams of this caller are: the person's, or the token's.
    pub fn owner(&self) -> String {
        // a name that somebody chose at signing in is no proof
        if self.is_proxied() { self.name().to_owned() } else { format!("({})", self.proof) }
    }
}

fn not_allowed(message: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "not_allowed", message).refused(Denial::NotAllowed)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use hyper::Request;
    use hyper::header::{COOKIE, ORIGIN};
    use tokio::time::Instant;

    use super::*;
    use crate::http::peer::Site;

    const NOW: u64 = 1_764_400_000;
    const SESSION: u64 = 12 * 3_600;

    fn admission() -> Admission {
        let env = [("TOKENS__OPS__TOKEN", "token-of-ops"), ("TOKENS__OPS__ROLES", "decide")];
        let env = env.map(|(key, value)| (format!("PROMPT_ROLLBACK_{key}"), value.to_owned()));
        Admission::new(&Config::load(None, env.into_iter()).expect("a config"))
    }

    fn peer() -> Peer {
        let (since, address) = (Instant::now(), IpAddr::from([127, 0, 0, 1]));
        Peer { site: Site::Main, door: Door::Plain, since, certified: false, address }
    }

    fn with_cookie(cookie: &str, now: u64) -> Result<Caller, ApiError> {
        let request =
            Request::get("/").header(COOKIE, format!("{}={cookie}", session::cookie_name(false))).body(()).unwrap();
        admission().caller(&request.into_parts().0, &peer(), now)
    }

    #[test]
    fn without_a_token_forms_come_from_this_machine_alone() {
        let open = Admission::new(&Config::default());
        for (host, origin, expected) in [
            ("localhost:8000", "http://localhost:8000", Ok(())),
            ("localhost:8000", "http://evil.example", Err("not_local")),
            // its name leads to this machine: DNS rebinding
            ("evil.example:8000", "http://evil.example:8000", Err("not_local")),
        ] {
            let request = Request::post("/logout").header(HOST, host).header(ORIGIN, origin).body(()).unwrap();
            let checked = open.check_form(&request.into_parts().0, &peer());
            assert_eq!(checked.map_err(|refused| refused.code), expected, "{host} {origin}");
        }
    }

    #[test]
    fn a_session_counts_on_replicas_whose_clocks_differ() {
        let cookie = admission().sign_in("token-of-ops", Some("maya".to_owned()), NOW + SESSION).unwrap();
        for now in [NOW - 300, NOW, NOW + SESSION - 1] {
            assert_eq!(with_cookie(&cookie, now).expect("it counts").name(), "maya", "{now}");
        }
        for now in [NOW - 301, NOW + SESSION, 0, u64::MAX] {
            assert_eq!(with_cookie(&cookie, now).unwrap_err().status, StatusCode::UNAUTHORIZED, "{now}");
        }
    }

    #[test]
    fn what_the_holder_of_a_token_signs_alone_is_no_sign_in() {
        let key = SecretString::from("token-of-ops");
        let signed = |person: &str, until| {
            session::sign(&Session { token: "ops".to_owned(), person: Some(person.to_owned()), until }, &key)
        };
        assert!(with_cookie(&signed("maya", NOW + SESSION), NOW).is_ok());
        assert!(with_cookie(&signed("maya", u64::MAX), NOW).is_err());
        for person in ["system", "External", "ma\nya", "ma\u{202e}ya"] {
            assert!(with_cookie(&signed(person, NOW + SESSION), NOW).is_err(), "{person:?}");
        }
    }
}
