//! Finds the master of the namespace's slot in Redis Cluster. A namespace has one hash tag, so all its keys are in one
//! slot, and all connections lead to one node.

use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{ConnectionAddr, ConnectionInfo};
use tokio::time::timeout;

use super::connect::{ASK_TIMEOUT, HostPort, MasterVote, ask_at, at, by_epoch};
use super::error::{RedisFault, StoreError};
use crate::config;

const SLOTS: u16 = 16_384;

#[derive(Debug)]
pub struct Cluster {
    slot: u16,
    nodes: Vec<ConnectionInfo>,
    /// The address in the last MOVED answer: that node knows before the others do.
    moved: Mutex<Option<HostPort>>,
}

impl std::fmt::Display for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "has slot {}, by Redis Cluster", self.slot)
    }
}

impl Cluster {
    pub fn new(config: &config::RedisConfig, redis: &ConnectionInfo) -> Self {
        let addresses = config.nodes.iter().filter_map(|node| HostPort::parse(node));
        Self {
            slot: slot(&config.namespace),
            nodes: addresses.map(|address| at(redis, &address)).collect(),
            moved: Mutex::default(),
        }
    }

    pub fn moved(&self, to: Option<HostPort>) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    /// The nodes that may have the slot, the most likely first.
    pub async fn ask(&self) -> Result<Vec<HostPort>, StoreError> {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut asked: FuturesUnordered<_> = self.nodes.iter().map(|node| self.ask_one(node)).collect();
        let majority = self.nodes.len() / 2 + 1;
        let (mut all, mut homeless, mut fault) = (Vec::new(), false, None);
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(Some(said)) => all.push(said),
                Ok(None) => homeless = true,
                Err(error) => fault = Some(error),
            }
            if all.len() >= majority {
                break;
            }
        }
        all.extend(moved.map(|master| MasterVote { master, epoch: u64::MAX }));
        if !all.is_empty() {
            return Ok(by_epoch(all));
        }
        let message = match fault {
            _ if homeless => format!("no node of the cluster has slot {}", self.slot),
            fault => format!("redis.nodes: no node of the cluster answers ({})", fault.unwrap_or_default()),
        };
        Err(StoreError::Unavailable { kind: RedisFault::NoMaster, message })
    }

    async fn ask_one(&self, node: &ConnectionInfo) -> Result<Option<MasterVote>, String> {
        let asked = async {
            let mut connection = ask_at(node).await?;
            redis::cmd("CLUSTER").arg("NODES").query_async::<String>(&mut connection).await
        };
        let name = node.addr();
        match timeout(ASK_TIMEOUT, asked).await {
            Ok(Ok(nodes)) => Ok(owner(&nodes, self.slot, name)),
            Ok(Err(error)) => Err(format!("{name}: {}", StoreError::from(error))),
            Err(_) => Err(format!("{name}: no answer within {ASK_TIMEOUT:?}")),
        }
    }
}

/// Returns the node that has the slot, from the lines of CLUSTER NODES: `id host:port@bus[,hostname] flags master ping
/// pong epoch link slot from-to [slot->-id]…`. A node that does not know its own host omits it; that is the node that
/// was `asked`.
fn owner(nodes: &str, slot: u16, asked: &ConnectionAddr) -> Option<MasterVote> {
    let holds = |range: &&str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        matches!((from.parse::<u16>(), to.parse::<u16>()), (Ok(from), Ok(to)) if (from..=to).contains(&slot))
    };
    nodes.lines().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        words.get(8..)?.iter().find(|range| holds(range))?;
        let (address, names) = words.get(1)?.split_once('@')?;
        let (host, port) = address.rsplit_once(':')?;
        let host = match asked {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } if host_is_unknown(words[1]) => host,
            // certificates are issued for names
            ConnectionAddr::TcpTls { .. } => names.split(',').nth(1).filter(|name| is_host(name)).unwrap_or(host),
            _ => host,
        };
        let master = HostPort(host.to_owned(), port.parse().ok()?);
        Some(MasterVote { master, epoch: words.get(6)?.parse().ok()? })
    })
}

fn host_is_unknown(address: &str) -> bool {
    address.starts_with(':')
}

/// Fields such as `shard-id=…` may follow the host name.
fn is_host(name: &str) -> bool {
    !name.is_empty() && !name.contains('=')
}

/// The slot of the text between the braces, by the specification of Redis Cluster: CRC-16/XMODEM.
fn slot(namespace: &str) -> u16 {
    let tag = namespace.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or(namespace, |(tag, _)| tag);
    let crc = tag.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
07c3 10.0.0.1:30004@31004,redis-1.example slave e7d1 0 1426238317239 4 connected
67ed 10.0.0.2:30002@31002,redis-2.example master - 0 1426238316232 2 connected 5461-10922
292f 10.0.0.3:30003@31003 master - 0 1426238318243 3 connected 10923-16383
e7d1 :30001@31001,,shard-id=ab myself,master - 0 0 1 connected 0-5459 5460 [93-<-292f]
";

    #[test]
    fn the_slot_is_that_of_the_braces() {
        // the specification's example: the CRC of 123456789 is 31C3
        assert_eq!(slot("123456789"), 0x31C3 % SLOTS);
        assert_eq!(slot("{123456789}"), slot("team-a:{123456789}:x"));
        assert_ne!(slot("{prompts}"), slot("{other}"));
    }

    #[test]
    fn the_owner_of_a_slot_is_found_in_the_nodes() {
        let plain = ConnectionAddr::Tcp("10.0.0.9".to_owned(), 1);
        let tls = ConnectionAddr::TcpTls { host: "h".to_owned(), port: 1, insecure: false, tls_params: None };
        let said = |slot, asked| owner(NODES, slot, asked).map(|said| (said.master.to_string(), said.epoch));
        assert_eq!(said(5461, &plain), Some(("10.0.0.2:30002".to_owned(), 2)));
        assert_eq!(said(5461, &tls), Some(("redis-2.example:30002".to_owned(), 2)));
        assert_eq!(said(16_383, &tls), Some(("10.0.0.3:30003".to_owned(), 3)));
        assert_eq!(said(5460, &plain), Some(("10.0.0.9:30001".to_owned(), 1)));
        assert_eq!(said(93, &tls), Some(("h:30001".to_owned(), 1)), "not yet the importing one");
        assert_eq!(owner("", 1, &plain), None);
        assert_eq!(owner("garbage\n\n a b c d e f g h 1-2", 1, &plain), None);
    }
}
