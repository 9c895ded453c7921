//! The addresses that a DNS name resolves to.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use redis::io::AsyncDNSResolver;
use redis::{ConnectionAddr, ErrorKind, RedisError, RedisFuture, RedisResult};
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

/// Longest wait for resolving a name.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a name is resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(2);

/// Where a connection goes: one address of a name, or none for a Unix socket. It is looked up once, because a slow resolver
/// would delay each further lookup as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Resolved(Option<SocketAddr>);

impl Resolved {
    /// Resolves the host in `addr`.
    pub async fn all(addr: &ConnectionAddr) -> RedisResult<Vec<Self>> {
        match addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Self::by(lookup_host((host.as_str(), *port))).await
            }
            _ => Ok(vec![Self(None)]),
        }
    }

    async fn by<A: Iterator<Item = SocketAddr>>(lookup: impl Future<Output = io::Result<A>>) -> RedisResult<Vec<Self>> {
        let failed = |why| RedisError::from((ErrorKind::Io, why));
        let found = timeout(PATIENCE, lookup).await.map_err(|_| failed("the name was not resolved within a second"))?;
        Ok(found?.map(|found| Self(Some(found))).collect())
    }

    /// Waits until the name in `addr` no longer resolves to this address. A failover by DNS leaves the connections to the old
    /// master open. Some resolvers return a part of the addresses, so one lookup without it is not enough.
    pub async fn outdated(self, addr: ConnectionAddr) {
        let mut missing = 0;
        while missing < 2 {
            sleep(RESOLVE_EVERY).await;
            if let Ok(now) = Self::all(&addr).await {
                missing = if now.contains(&self) { 0 } else { missing + 1 };
            }
        }
    }
}

impl AsyncDNSResolver for Resolved {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        _: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        let found: Box<dyn Iterator<Item = SocketAddr> + Send + 'a> = Box::new(self.0.into_iter());
        Box::pin(async { Ok(found) })
    }
}

/// Whether `addr` contains a name, whose addresses can change.
pub(super) fn is_name(addr: &ConnectionAddr) -> bool {
    let (ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) = addr else { return false };
    host.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::vec;

    use redis::IntoConnectionInfo;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::node::Node;

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_hangs_is_given_up_after_a_second() {
        let begun = Instant::now();
        let found = Resolved::by(pending::<io::Result<vec::IntoIter<SocketAddr>>>()).await;
        assert!(found.is_err_and(|error| error.to_string().contains("not resolved within a second")));
        assert_eq!(begun.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_outdated_once_two_lookups_lack_it() {
        let begun = Instant::now();
        let elsewhere = Resolved(Some(([192, 0, 2, 1], 6379).into()));
        elsewhere.outdated(ConnectionAddr::Tcp("localhost".to_owned(), 6379)).await;
        assert_eq!(begun.elapsed(), 2 * RESOLVE_EVERY);
    }

    #[tokio::test]
    async fn a_connection_needs_no_second_lookup() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // this name does not resolve
        let info = "redis://redis.invalid:6379".into_connection_info().unwrap();
        let found = Resolved(Some(server.local_addr().unwrap()));
        tokio::select! {
            accepted = server.accept() => drop(accepted.unwrap()),
            opened = Node::open(&info, found, "key") => panic!("{:?}", opened.map(|_| ())),
        }
    }
}
