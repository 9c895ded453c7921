//! How a server is reached over HTTP.

use std::path::PathBuf;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::reader::ConfigReader;
use crate::tls::ClientTls;

/// The same keys in each section that names a server.
#[derive(Debug, Clone)]
pub struct HttpTarget {
    /// User name for basic authentication.
    pub username: Option<String>,
    pub password: Option<SecretString>,
    pub bearer_token: Option<SecretString>,
    /// Sent with each request, as `NAME=VALUE,NAME=VALUE`.
    pub headers: Option<SecretString>,
    /// PEM file of the authority that signed the server's certificate; `None`: the system's authorities.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM files of the certificate that the server asks for, and of its key.
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    /// An address, or [`NO_PROXY`](Self::NO_PROXY); `None`: the proxies of the environment.
    pub proxy_url: Option<SecretString>,
    /// Timeout of one request.
    pub timeout: Duration,
    /// The TLS settings from these files.
    pub tls: ClientTls,
}

impl HttpTarget {
    /// The value of `proxy_url` for no proxy.
    pub const NO_PROXY: &str = "off";
    /// Longest timeout: the outside answers of one task come within half of its lease.
    pub(super) const LONGEST: Duration = Duration::from_secs(5);

    fn read(r: &mut ConfigReader<'_>, section: &str, timeout: &str) -> Self {
        let key = |name: &str| format!("{section}.{name}");
        Self {
            username: r.get(&key("username"), ""),
            password: r.secret(&key("password")),
            bearer_token: r.token(&key("bearer_token")),
            headers: r.secret(&key("headers")),
            tls_ca_file: r.get_path(&key("tls_ca_file")),
            tls_cert_file: r.get_path(&key("tls_cert_file")),
            tls_key_file: r.get_path(&key("tls_key_file")),
            proxy_url: r.secret(&key("proxy_url")),
            timeout: r.get(&key("timeout"), timeout),
            tls: ClientTls::default(),
        }
    }

    /// The configured headers and the credentials, as a valid config has them.
    pub fn all_headers(&self) -> HeaderMap {
        let mut all = self.headers.as_ref().and_then(|text| headers(text.expose_secret())).unwrap_or_default();
        let basic = self.username.as_ref().zip(self.password.as_ref()).map(|(name, password)| {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{}", password.expose_secret())))
        });
        let bearer = || self.bearer_token.as_ref().map(|token| format!("Bearer {}", token.expose_secret()));
        if let Some(mut value) = basic.or_else(bearer).and_then(|login| HeaderValue::try_from(login).ok()) {
            value.set_sensitive(true);
            all.insert(AUTHORIZATION, value);
        }
        all
    }
}

/// Reads `NAME=VALUE,NAME=VALUE`, where values are percent-encoded as OpenTelemetry has them.
pub(super) fn headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        headers.append(HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value);
    }
    Some(headers)
}

impl ConfigReader<'_> {
    /// The keys of [`HttpTarget`] beside `key`, which itself is none.
    pub(super) fn http_target(&mut self, key: &str, timeout: &str) -> HttpTarget {
        HttpTarget::read(self, key.rsplit_once('.').map_or(key, |(section, _)| section), timeout)
    }
}
