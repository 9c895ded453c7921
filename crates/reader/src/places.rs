//! The possible addresses of Redis, and which of them answers for the keys.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::node::{Node, at, dedup, host_and_port, redirected};
use super::resolve::{Resolved, is_name};
use super::sentinel::SentinelPoller;
use super::{Settings, StartError, WITH_LOGIN, wrong};

/// After this time without an answer, the next address is tried as well.
const STAGGER: Duration = Duration::from_millis(100);
/// While one address hangs, the others are asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// While an address hangs, the others are asked again for this long.
const PATIENCE: Duration = Duration::from_secs(1);
/// A few nodes of a large cluster are enough: each of them knows who has the keys.
const MOST_LEARNED: usize = 16;

pub(super) struct Places {
    /// Credentials and TLS settings.
    info: ConnectionInfo,
    given: Vec<ConnectionAddr>,
    /// The nodes of the cluster.
    learned: Vec<ConnectionAddr>,
    /// If there are sentinels, only they name the master.
    sentinels: Option<SentinelPoller>,
}

impl Places {
    /// # Errors
    /// If a node in `settings` is not an address, or if there is a login for sentinels and no `sentinel_master`.
    pub fn new(info: ConnectionInfo, settings: &Settings) -> Result<Self, StartError> {
        let mut given = vec![info.addr().clone()];
        if settings.nodes_hold_login() {
            let why = format!("expected host:port, found {WITH_LOGIN}");
            return Err(wrong("Settings::nodes", why));
        }
        for node in &settings.nodes {
            let (host, port) = host_and_port(node)
                .filter(|(host, port)| !host.is_empty() && *port != 0)
                .filter(|(host, _)| !host.contains(|c: char| c == '/' || c == ',' || c.is_whitespace()))
                .ok_or_else(|| wrong("Settings::nodes", format!("expected host:port, found {node:?}")))?;
            given.push(at(info.addr(), host, port));
        }
        // as from an environment variable without a value
        let [username, password] = [&settings.sentinel_username, &settings.sentinel_password]
            .map(|text| text.as_ref().filter(|text| !text.is_empty()));
        let sentinels = match &settings.sentinel_master {
            Some(master) if master.is_empty() => {
                let why = "expected the master's name, found an empty text";
                return Err(wrong("Settings::sentinel_master", why.to_owned()));
            }
            Some(master) => {
                let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
                if let Some(username) = username {
                    login = login.set_username(username);
                }
                if let Some(password) = password {
                    login = login.set_password(password);
                }
                let sentinel = info.clone().set_redis_settings(login);
                // as in the receiver's config: if nodes are listed, the URL holds only credentials and TLS settings
                let listed = if given.len() > 1 { &given[1..] } else { &given[..] };
                Some(SentinelPoller::start(&sentinel, listed.to_vec(), master))
            }
            None if username.is_some() || password.is_some() => {
                let why = "expected the master's name, because a login for sentinels is given";
                return Err(wrong("Settings::sentinel_master", why.to_owned()));
            }
            None => None,
        };
        Ok(Self { info, given, learned: Vec::new(), sentinels })
    }

    /// The connection settings for the server at `addr`.
    pub fn info(&self, addr: &ConnectionAddr) -> ConnectionInfo {
        self.info.clone().set_addr(addr.clone())
    }

    /// Whether only one address is known.
    pub fn knows_one(&self) -> bool {
        self.learned.len() < 2
    }

    pub fn learn(&mut self, nodes: Vec<ConnectionAddr>) {
        self.learned = nodes;
        self.learned.truncate(MOST_LEARNED);
    }

    /// Connects to the server that answers for `key`, trying `first` first.
    pub async fn connect(&self, first: Option<ConnectionAddr>, key: &str) -> Result<Node, String> {
        match &self.sentinels {
            Some(sentinels) => self.connect_to_master(sentinels, key).await,
            None => self.connect_to_any(first, key).await,
        }
    }

    async fn connect_to_master(&self, sentinels: &SentinelPoller, key: &str) -> Result<Node, String> {
        loop {
            let master = sentinels.master().await?;
            let info = self.info(&master);
            tokio::select! {
                opened = open(&info, key) => return match opened {
                    Ok(node) if node.said.replica => Err(format!("{master}: it is a replica")),
                    opened => opened.map_err(|error| format!("{master}: {error}")),
                },
                // the old master may hang
                () = sentinels.another(&master) => {}
            }
        }
    }

    async fn connect_to_any(&self, first: Option<ConnectionAddr>, key: &str) -> Result<Node, String> {
        let mut places: Vec<ConnectionAddr> = first.iter().chain(&self.given).chain(&self.learned).cloned().collect();
        dedup(&mut places);
        // Of several addresses, one may be a replica that has lost its master. A replica that is given alone is wanted.
        let masters_only = places.len() > 1;
        let mut waiting: VecDeque<ConnectionAddr> = places.iter().cloned().collect();
        let (mut tries, mut failed, mut fault) = (JoinSet::new(), Vec::new(), None);
        let begun = Instant::now();
        loop {
            if let Some(addr) = waiting.pop_front() {
                let (info, key) = (self.info(&addr), key.to_owned());
                tries.spawn(async move { (open(&info, &key).await, addr) });
            }
            tokio::select! {
                Some(tried) = tries.join_next() => match tried {
                    Ok((Ok(node), addr)) if node.said.replica && masters_only => {
                        fault.get_or_insert(format!("{addr}: it is a replica"));
                        failed.push(addr);
                    }
                    Ok((Ok(node), _)) => return Ok(node),
                    Ok((Err(error), addr)) => {
                        match self.moved(&error, &addr) {
                            Some(to) if !places.contains(&to) => {
                                places.push(to.clone());
                                waiting.push_front(to);
                            }
                            Some(_) => {}
                            None => drop(fault.get_or_insert(format!("{addr}: {error}"))),
                        }
                        failed.push(addr);
                    }
                    Err(_) => {}
                },
                () = sleep(STAGGER), if !waiting.is_empty() => {}
                // one hangs, and another may have taken over meanwhile
                () = sleep(ASK_AGAIN), if waiting.is_empty() && !tries.is_empty() && begun.elapsed() < PATIENCE => {
                    waiting.extend(failed.drain(..));
                }
                else => return Err(fault.unwrap_or_else(|| "no node has the prompts' slot".to_owned())),
            }
        }
    }

    /// The address in a MOVED answer of the node at `addr`.
    pub fn moved(&self, error: &RedisError, addr: &ConnectionAddr) -> Option<ConnectionAddr> {
        redirected(error, ServerErrorKind::Moved, addr)
    }

    /// Waits until the sentinels name another master than the one at `addr`.
    pub async fn elsewhere(&self, addr: &ConnectionAddr) {
        match &self.sentinels {
            Some(sentinels) => sentinels.another(addr).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for news that make an earlier attempt worthwhile.
    pub async fn news(&self) {
        match &self.sentinels {
            Some(sentinels) => sentinels.news().await,
            None => std::future::pending().await,
        }
    }
}

/// Connects to the first address of the name that answers for `key`.
async fn open(info: &ConnectionInfo, key: &str) -> RedisResult<Node> {
    let mut tries: JoinSet<RedisResult<Node>> = JoinSet::new();
    for resolved in Resolved::all(info.addr()).await? {
        let (info, key) = (info.clone(), key.to_owned());
        tries.spawn(async move {
            let mut node = Node::open(&info, resolved, &key).await?;
            if is_name(info.addr()) {
                node.renamed.spawn(resolved.outdated(info.addr().clone()));
            }
            Ok(node)
        });
    }
    let mut fault = None;
    while let Some(tried) = tries.join_next().await {
        match tried {
            // MOVED says where to go on, while another address may hang
            Ok(Err(error)) if error.kind() != ErrorKind::Server(ServerErrorKind::Moved) => {
                fault = fault.or(Some(error))
            }
            Ok(ended) => return ended,
            Err(_) => {}
        }
    }
    Err(fault.unwrap_or_else(|| RedisError::from((ErrorKind::Io, "the name has no address"))))
}
