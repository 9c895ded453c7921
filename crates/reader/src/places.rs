//! Where Redis may be, and which of these places answers for our keys.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::node::{Node, at, host_and_port, redirected};
use super::sentinel::SentinelPoller;
use super::{Settings, StartError, wrong};

/// After this long without an answer the next place is tried as well.
const STAGGER: Duration = Duration::from_millis(100);
/// While one place hangs, the others are asked again after this long.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Longest wait for a place that hangs, and for the addresses of a name.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a name is resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(2);
/// Of a large cluster a few nodes are enough: each of them knows who has our keys.
const MOST_LEARNED: usize = 16;

pub(super) struct Places {
    /// How to log in, and whether to speak TLS.
    info: ConnectionInfo,
    given: Vec<ConnectionAddr>,
    /// The nodes of the cluster.
    learned: Vec<ConnectionAddr>,
    /// Where there are some, only they say who the master is.
    sentinels: Option<SentinelPoller>,
}

impl Places {
    /// # Errors
    /// When `settings` name no addresses, or sentinels' logins without sentinels.
    pub fn new(info: ConnectionInfo, settings: &Settings) -> Result<Self, StartError> {
        let mut given = vec![info.addr().clone()];
        for node in &settings.nodes {
            let (host, port) = host_and_port(node)
                .filter(|(host, _)| !host.is_empty())
                .ok_or_else(|| wrong("Settings::nodes", format!("expected host:port, found {node:?}")))?;
            given.push(at(info.addr(), host, port));
        }
        let sentinels = match &settings.sentinel_master {
            Some(master) if master.is_empty() => {
                let why = "expected the master's name, found an empty text";
                return Err(wrong("Settings::sentinel_master", why.to_owned()));
            }
            Some(master) => {
                let mut login = RedisConnectionInfo::default().set_skip_set_lib_name();
                if let Some(username) = &settings.sentinel_username {
                    login = login.set_username(username);
                }
                if let Some(password) = &settings.sentinel_password {
                    login = login.set_password(password);
                }
                let sentinel = info.clone().set_redis_settings(login);
                // as in the receiver's config: where they are listed, the URL only says how to log in to Redis
                let listed = if given.len() > 1 { &given[1..] } else { &given[..] };
                let sentinels = listed.iter().map(|addr| sentinel.clone().set_addr(addr.clone())).collect();
                Some(SentinelPoller::start(sentinels, master))
            }
            None if settings.sentinel_username.is_some() || settings.sentinel_password.is_some() => {
                let why = "expected the master's name, because a login for sentinels is given";
                return Err(wrong("Settings::sentinel_master", why.to_owned()));
            }
            None => None,
        };
        Ok(Self { info, given, learned: Vec::new(), sentinels })
    }

    /// How the place at `addr` is reached.
    pub fn info(&self, addr: &ConnectionAddr) -> ConnectionInfo {
        self.info.clone().set_addr(addr.clone())
    }

    /// Whether the loss of one node leaves none.
    pub fn knows_one(&self) -> bool {
        self.learned.len() < 2
    }

    pub fn learn(&mut self, nodes: Vec<ConnectionAddr>) {
        self.learned = nodes;
        self.learned.truncate(MOST_LEARNED);
    }

    /// A connection to whoever answers for `key`, looked for at `first` first.
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
                // the old one may hang
                () = sentinels.another(&master) => {}
            }
        }
    }

    async fn connect_to_any(&self, first: Option<ConnectionAddr>, key: &str) -> Result<Node, String> {
        let mut places: Vec<ConnectionAddr> = first.iter().chain(&self.given).chain(&self.learned).cloned().collect();
        dedup(&mut places);
        // One of several may be a replica that has lost its master. Who gives the address of a replica alone wants it.
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

    /// Where the answer MOVED of the node at `addr` points to.
    pub fn moved(&self, error: &RedisError, addr: &ConnectionAddr) -> Option<ConnectionAddr> {
        redirected(error, ServerErrorKind::Moved, addr)
    }

    /// Waits until sentinels name another master than the one at `addr`.
    pub async fn elsewhere(&self, addr: &ConnectionAddr) {
        match &self.sentinels {
            Some(sentinels) => sentinels.another(addr).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for what makes another attempt worthwhile before its time.
    pub async fn news(&self) {
        match &self.sentinels {
            Some(sentinels) => sentinels.news().await,
            None => std::future::pending().await,
        }
    }
}

async fn open(info: &ConnectionInfo, key: &str) -> RedisResult<Node> {
    let before = resolve(info.addr()).await;
    let mut node = Node::open(info, key).await?;
    if !before.is_empty() {
        node.renamed.spawn(renamed(info.addr().clone(), before));
    }
    Ok(node)
}

fn dedup(places: &mut Vec<ConnectionAddr>) {
    let mut seen: Vec<ConnectionAddr> = Vec::new();
    places.retain(|place| {
        let new = !seen.contains(place);
        if new {
            seen.push(place.clone());
        }
        new
    });
}

/// The addresses that the name in `addr` leads to; none if it is none, or the resolver is away.
async fn resolve(addr: &ConnectionAddr) -> Vec<IpAddr> {
    let (ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. }) = addr else { return Vec::new() };
    if host.parse::<IpAddr>().is_ok() {
        return Vec::new();
    }
    let found = timeout(PATIENCE, tokio::net::lookup_host((host.as_str(), *port))).await;
    found.ok().and_then(Result::ok).into_iter().flatten().map(|found| found.ip()).collect()
}

/// Waits until the name in `addr` leads to none of the addresses that it led to. A failover by DNS leaves the connections
/// to the old master open.
async fn renamed(addr: ConnectionAddr, before: Vec<IpAddr>) {
    loop {
        sleep(RESOLVE_EVERY).await;
        let now = resolve(&addr).await;
        if !now.is_empty() && !now.iter().any(|ip| before.contains(ip)) {
            return;
        }
    }
}
