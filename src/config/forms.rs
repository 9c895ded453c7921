//! Which texts are addresses, names and keys.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use secrecy::{ExposeSecret, SecretString};

use super::http_target::HttpTarget;

/// The shortest signing key, in bytes.
const MIN_KEY: usize = 16;

pub(super) fn is_proxy(url: &SecretString) -> bool {
    let url = url.expose_secret();
    // in a password these three would end up in the host, which is shown: they must be percent-encoded
    let plain = url.matches('@').count() <= 1 && !url.contains(['?', '#']);
    let fits = |uri: hyper::Uri| uri.scheme_str() == Some("http") && uri.port().is_some() && uri.path() == "/";
    let is_bare = |url: &str| url.parse().is_ok_and(|uri: hyper::Uri| is_server(&uri) && fits(uri));
    let bare = url.split_once('@').map_or(url.to_owned(), |(_, server)| format!("http://{server}"));
    url == HttpTarget::NO_PROXY || (plain && url.starts_with("http://") && is_bare(&bare))
}

pub(super) fn is_namespace(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._:/-{}".contains(c);
    let mut braces = name.match_indices(['{', '}']);
    name.chars().all(fine)
        && matches!((braces.next(), braces.next(), braces.next()), (Some((open, "{")), Some((close, "}")), None) if close > open + 1)
}

pub(super) fn is_host_and_port(node: &str) -> bool {
    let Some((host, port)) = node.rsplit_once(':') else {
        return false;
    };
    let is_host = |c: char| !matches!(c, '/' | '@' | ',') && !c.is_whitespace();
    !host.is_empty() && host.chars().all(is_host) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Optionally with a path and a query.
pub(super) fn is_address(url: &str) -> bool {
    let (base, _) = url.split_once('?').unwrap_or((url, ""));
    is_base_url(base) && url.parse::<hyper::Uri>().is_ok()
}

/// Whether the key is hard to guess.
pub(super) fn is_strong(secret: &str) -> bool {
    match secret.strip_prefix("whsec_") {
        Some(encoded) => BASE64_STANDARD.decode(encoded).is_ok_and(|key| key.len() >= MIN_KEY),
        None => secret.len() >= MIN_KEY,
    }
}

pub(super) fn is_base_url(url: &str) -> bool {
    let fits = |uri: hyper::Uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && is_server(&uri) && uri.query().is_none()
    };
    !url.contains('#') && url.parse().is_ok_and(fits)
}

/// Whether the address names a host, perhaps a port, and no credentials. The library takes any text for a port, such as a
/// password before a `#`.
pub(crate) fn is_server(uri: &hyper::Uri) -> bool {
    let Some(authority) = uri.authority() else { return false };
    let port = authority.as_str().strip_prefix(authority.host()).and_then(|rest| match rest.strip_prefix(':') {
        Some(port) => port.parse::<u16>().ok(),
        None => rest.is_empty().then_some(0),
    });
    !authority.host().is_empty() && port.is_some()
}

/// Whether Slack gives such ids to users (`U…`, `W…`) or user groups (`S…`).
pub(super) fn is_slack_id(id: &str) -> bool {
    id.len() > 1 && id.starts_with(['U', 'W', 'S']) && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// Whether Slack notifies anybody of this text: of `<@U…>`, `<!subteam^S…>`, `<!here>`, `<!channel>` or `<!everyone>`.
pub(super) fn mentions_somebody(text: &str) -> bool {
    let is_mention = |part: &str| {
        let Some((inside, _)) = part.split_once('>') else { return false };
        let name = inside.split('|').next().unwrap_or_default();
        let user = name.strip_prefix('@').is_some_and(|id| is_slack_id(id) && !id.starts_with('S'));
        let group = name.strip_prefix("!subteam^").is_some_and(|id| is_slack_id(id) && id.starts_with('S'));
        user || group || matches!(name, "!here" | "!channel" | "!everyone")
    };
    text.split('<').skip(1).any(is_mention)
}

pub(super) fn is_label_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

pub(super) fn is_plain_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
