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

/// Where a connection goes. It is looked up once, because a slow resolver would delay each further lookup as well.
#[derive(Clone, Default)]
pub(super) struct Resolved(Vec<SocketAddr>);

impl Resolved {
    /// Resolves the host in `addr`; a Unix socket has none.
    pub async fn of(addr: &ConnectionAddr) -> RedisResult<Self> {
        match addr {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Self::by(lookup_host((host.as_str(), *port))).await
            }
            _ => Ok(Self::default()),
        }
    }

    async fn by<A: Iterator<Item = SocketAddr>>(lookup: impl Future<Output = io::Result<A>>) -> RedisResult<Self> {
        let failed = |why| RedisError::from((ErrorKind::Io, why));
        let found = timeout(PATIENCE, lookup).await.map_err(|_| failed("the name was not resolved within a second"))?;
        let found: Vec<_> = found?.collect();
        if found.is_empty() { Err(failed("the name has no address")) } else { Ok(Self(found)) }
    }

    /// Waits until the name in `addr` resolves to none of these addresses. A failover by DNS leaves the connections to the old
    /// master open.
    pub async fn outdated(self, addr: ConnectionAddr) {
        loop {
            sleep(RESOLVE_EVERY).await;
            if let Ok(now) = Self::of(&addr).await
                && !now.0.iter().any(|found| self.0.contains(found))
            {
                return;
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
        let found: Box<dyn Iterator<Item = SocketAddr> + Send + 'a> = Box::new(self.0.iter().copied());
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

    #[tokio::test]
    async fn a_connection_needs_no_second_lookup() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // this name does not resolve
        let info = "redis://redis.invalid:6379".into_connection_info().unwrap();
        let found = Resolved(vec![server.local_addr().unwrap()]);
        tokio::select! {
            accepted = server.accept() => drop(accepted.unwrap()),
            opened = Node::open(&info, found, "key") => panic!("{:?}", opened.map(|_| ())),
        }
    }
}
