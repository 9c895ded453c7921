//! Validates what says how a server is reached.

use std::path::PathBuf;

use hyper::header::AUTHORIZATION;
use secrecy::ExposeSecret;

use super::forms::is_proxy;
use super::http_target::{HttpTarget, headers};
use super::reader::ConfigReader;
use crate::tls::{ClientFiles, ClientTls, File};

/// Headers that say how a request is transferred, or what is in it.
const OF_THE_CONNECTION: [&str; 6] =
    ["connection", "content-length", "content-type", "proxy-authorization", "transfer-encoding", "upgrade"];

pub(super) const PROXY: &str = "http://[user:password@]host:port, or \"off\" for no proxy";

/// The credentials, certificates, proxy and timeout of the server at the addresses of `urls`. Also reads the certificates.
pub(super) fn validate_target(
    section: &str,
    urls: &str,
    encrypted: bool,
    target: &mut HttpTarget,
    r: &mut ConfigReader<'_>,
) {
    let key = |name: &str| format!("{section}.{name}");
    let both = target.username.is_some() == target.password.is_some();
    let user = format!("the user of {section}.password");
    r.check(&key("username"), both || target.username.is_some(), &user);
    let known = both || target.password.is_some() || r.has_problem(&key("password_file"));
    r.check(&key("password"), known, &format!("the password of {section}.username"));
    let fits = target.username.as_ref().is_none_or(|name| !name.contains(':'));
    r.check(&key("username"), fits, "a name without a colon");
    let one = target.username.is_none() || target.bearer_token.is_none();
    let token = r.source_of(&key("bearer_token"));
    r.check(&token, one, &format!("no token, because {section}.username is set as well"));
    let given = target.headers.as_ref().map(|text| headers(text.expose_secret()));
    let source = r.source_of(&key("headers"));
    let fits = given.as_ref().is_none_or(Option::is_some);
    r.check(&source, fits, "headers such as \"X-Scope-OrgID=team-a,X-Api-Key=a%2Cb\"");
    let given = given.flatten().unwrap_or_default();
    let framing = given.keys().find(|name| OF_THE_CONNECTION.contains(&name.as_str()));
    r.check(&source, framing.is_none(), &format!("other headers than {}", OF_THE_CONNECTION.join(", ")));
    let login = target.username.is_some() || target.bearer_token.is_some();
    let one = !(login && given.contains_key(AUTHORIZATION));
    r.check(&source, one, &format!("no header Authorization, because {section} has other credentials as well"));
    let is_proxied = target.proxy_url.as_ref().is_none_or(is_proxy);
    let source = r.source_of(&key("proxy_url"));
    r.check(&source, is_proxied, PROXY);
    let fits = !target.timeout.is_zero() && target.timeout <= HttpTarget::LONGEST;
    r.check(&key("timeout"), fits, "more than 0 and at most 5s");
    let files = (&target.tls_ca_file, &target.tls_cert_file, &target.tls_key_file);
    if let Some(tls) = client_tls(section, urls, encrypted, files, r) {
        target.tls = tls;
    }
}

/// Reads the certificates of a client; `None` if there are problems.
pub(super) fn client_tls(
    section: &str,
    urls: &str,
    encrypted: bool,
    (ca, cert, own_key): (&Option<PathBuf>, &Option<PathBuf>, &Option<PathBuf>),
    r: &mut ConfigReader<'_>,
) -> Option<ClientTls> {
    let key = |name: &str| format!("{section}.{name}");
    let both = cert.is_some() == own_key.is_some();
    r.check(&key("tls_cert_file"), both || cert.is_some(), &format!("the certificate of {section}.tls_key_file"));
    r.check(&key("tls_key_file"), both || own_key.is_some(), &format!("the key of {section}.tls_cert_file"));
    let schemes = if section == "redis" { "rediss://…" } else { "https://…" };
    for (name, file) in [("tls_ca_file", ca), ("tls_cert_file", cert)] {
        r.check(&key(name), file.is_none() || encrypted, &format!("{urls} to be {schemes}"));
    }
    let files = ClientFiles { ca: ca.clone(), identity: cert.clone().zip(own_key.clone()) };
    let name = |file| match file {
        File::Cert => key("tls_cert_file"),
        File::Key => key("tls_key_file"),
        File::Ca | File::ClientCa => key("tls_ca_file"),
    };
    match files.load(|file, path| r.content(&name(file), path)) {
        Ok(tls) => Some(tls),
        Err(error) => {
            let key = name(error.file);
            if !r.has_problem(&key) {
                r.problem(&key, error.message);
            }
            None
        }
    }
}
