//! Clients, and how they are connected.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// A TLS connection is closed after this time, after the current response: the certificates of its handshake may have
/// expired. A stream of events ends by then.
pub const LONGEST: Duration = Duration::from_secs(3_600);

/// The purpose of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    Main,
    Metrics,
    Page,
}

/// How a client connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Plain,
    /// With which certificate of the receiver, and with which authority for client certificates, if any.
    Tls {
        certificate: u64,
        authority: Option<u64>,
    },
}

impl Door {
    pub fn authority(self) -> Option<u64> {
        match self {
            Door::Plain => None,
            Door::Tls { authority, .. } => authority,
        }
    }
}

/// The peer of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub site: Site,
    pub door: Door,
    pub since: Instant,
    /// Whether it presented a client certificate, which then was verified.
    pub certified: bool,
    pub address: IpAddr,
}

impl Peer {
    pub fn has_stayed_long(&self) -> bool {
        self.door != Door::Plain && self.since.elapsed() >= LONGEST
    }
}
