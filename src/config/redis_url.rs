//! Where Redis is, and who connects to it.

use std::fmt;

use redis::IntoConnectionInfo;
use secrecy::SecretSlice;

use super::value::Setting;

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct RedisIdentity {
    pub cert: Vec<u8>,
    pub key: SecretSlice<u8>,
}

/// A Redis URL. It may contain a password, so it is shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The URL as written, for connecting only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn has_password(&self) -> bool {
        self.expose().into_connection_info().is_ok_and(|info| info.redis_settings().password().is_some())
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.starts_with("rediss://")
    }

    pub(super) fn is_tcp(&self) -> bool {
        !self.0.starts_with("redis+unix://")
    }

    pub(super) fn database(&self) -> i64 {
        self.expose().into_connection_info().map_or(0, |info| info.redis_settings().db())
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
        match rest.rsplit_once('@') {
            Some((_, host)) => write!(f, "{scheme}://***@{host}{query}"),
            None => write!(f, "{scheme}://{rest}{query}"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Setting for RedisUrl {
    fn expected() -> String {
        "redis://[user:password@]host:port, rediss://… (TLS) or redis+unix:///path".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let known = ["redis://", "rediss://", "redis+unix://"].iter().any(|scheme| text.starts_with(scheme));
        (known && text.into_connection_info().is_ok()).then(|| Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }

    fn shown(&self) -> Option<String> {
        Some(self.to_string())
    }

    /// Server and database; the credentials may change.
    fn fixed_part(&self) -> String {
        let scheme = self.0.split("://").next().unwrap_or_default();
        let insecure = self.0.ends_with("#insecure");
        let address = self.expose().into_connection_info().map(|info| info.addr().to_string()).unwrap_or_default();
        format!("{scheme} {address} {} {insecure}", self.database())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_login_of_a_redis_url_may_change() {
        let part = |url: &str| RedisUrl::from_text(url).expect(url).fixed_part();
        let at = part("redis://127.0.0.1:6379");
        for same in ["redis://a:b@127.0.0.1:6379", "redis://:b@127.0.0.1", "redis://127.0.0.1:6379/0"] {
            assert_eq!(part(same), at, "{same}");
        }
        for other in
            ["redis://127.0.0.1:6380", "redis://localhost:6379", "rediss://127.0.0.1:6379", "redis://127.0.0.1/1"]
        {
            assert_ne!(part(other), at, "{other}");
        }
        assert_ne!(part("rediss://a:1"), part("rediss://a:1#insecure"));
        let socket = part("redis+unix:///run/redis.sock");
        assert_eq!(part("redis+unix:///run/redis.sock?user=a&pass=b"), socket);
        assert_ne!(part("redis+unix:///run/redis.sock?db=1"), socket);
    }

    #[test]
    fn a_redis_url_shows_itself_without_password() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://user:p%40ss@redis.example:6380/2", "rediss://***@redis.example:6380/2"),
            ("redis+unix:///run/redis.sock?db=1&pass=hunter2", "redis+unix:///run/redis.sock?***"),
        ] {
            let parsed = RedisUrl::from_text(url).expect(url);
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), format!("\"{shown}\""));
            assert_eq!(parsed.expose(), url);
            assert_eq!(parsed.has_password(), url != shown, "{url}");
        }
        for url in ["", "127.0.0.1:6379", "http://127.0.0.1", "redis://", "redis://host:port"] {
            assert!(RedisUrl::from_text(url).is_none(), "{url}");
        }
    }
}
