//! Finds the master through Redis Sentinel. Each sentinel is asked every 400 ms, and the first to report a failover
//! is believed, because its epoch is higher than the others'. Later, a lower epoch is believed only if a majority
//! answers, as after all sentinels were set up again. Until then, the master is the one that was named last.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisResult};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::node::{at, dedup};

const ASK_EVERY: Duration = Duration::from_millis(400);
/// Longest wait for one sentinel, and for all of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// The answer of one sentinel: the master's address and epoch, or why it is unknown.
type MasterReply = Result<(ConnectionAddr, u64), String>;

#[derive(Default)]
struct MasterReplies {
    /// The answer of each sentinel; `None` before its first answer.
    of_each: Vec<Option<MasterReply>>,
    latest_epoch: u64,
    /// The master that was believed last.
    master: Option<ConnectionAddr>,
}

pub(super) struct SentinelPoller {
    answers: watch::Receiver<MasterReplies>,
    _asking: JoinSet<()>,
}

impl SentinelPoller {
    /// Asks until dropped. `login` holds the credentials. A sentinel that is listed twice has one vote.
    pub fn start(login: &ConnectionInfo, mut sentinels: Vec<ConnectionAddr>, master: &str) -> Self {
        dedup(&mut sentinels);
        let of_each = vec![None; sentinels.len()];
        let (sender, answers) = watch::channel(MasterReplies { of_each, ..MasterReplies::default() });
        let mut asking = JoinSet::new();
        for (index, addr) in sentinels.into_iter().enumerate() {
            let sentinel = login.clone().set_addr(addr);
            let (sender, master) = (sender.clone(), master.to_owned());
            let tell = move |answer: MasterReply| {
                sender.send_if_modified(|answers| answers.heard(index, answer));
            };
            asking.spawn(async move {
                loop {
                    let error = match keep_asking(&sentinel, &master, &tell).await {
                        Err(error) => error.to_string(),
                        Ok(()) => format!("knows no master named {master:?}"),
                    };
                    tell(Err(format!("the sentinel {}: {error}", sentinel.addr())));
                    sleep(ASK_EVERY).await;
                }
            });
        }
        Self { answers, _asking: asking }
    }

    /// Returns the master. Waits for the first answers of a majority.
    pub async fn master(&self) -> Result<ConnectionAddr, String> {
        let mut answers = self.answers.clone();
        let told = |answers: &MasterReplies| {
            is_majority(answers.named().count(), answers) || answers.of_each.iter().all(Option::is_some)
        };
        drop(timeout(PATIENCE, answers.wait_for(told)).await);
        let answers = self.answers.borrow();
        let why = || answers.of_each.iter().flatten().find_map(|answer| answer.as_ref().err()).cloned();
        answers.master.clone().ok_or_else(|| why().unwrap_or_else(|| "no sentinel answers".to_owned()))
    }

    /// Waits until the master is another than the one at `addr`.
    pub async fn another(&self, addr: &ConnectionAddr) {
        let mut answers = self.answers.clone();
        loop {
            let master = answers.borrow_and_update().master.clone();
            match master {
                Some(master) if master != *addr => return,
                _ => drop(answers.changed().await),
            }
        }
    }

    /// Waits until a sentinel's answer changes.
    pub async fn news(&self) {
        let mut answers = self.answers.clone();
        answers.mark_unchanged();
        drop(answers.changed().await);
    }
}

impl MasterReplies {
    /// Records the answer of one sentinel. Returns whether it is a new one.
    fn heard(&mut self, index: usize, answer: MasterReply) -> bool {
        let changed = self.of_each[index].as_ref() != Some(&answer);
        if let Ok((_, epoch)) = &answer {
            self.latest_epoch = self.latest_epoch.max(*epoch);
        }
        self.of_each[index] = Some(answer);
        self.master = self.best().or(self.master.take());
        changed
    }

    fn named(&self) -> impl Iterator<Item = &(ConnectionAddr, u64)> {
        self.of_each.iter().flatten().filter_map(|answer| answer.as_ref().ok())
    }

    /// The master of the latest epoch that most sentinels name.
    fn best(&self) -> Option<ConnectionAddr> {
        let latest = self.named().map(|(_, epoch)| *epoch).max()?;
        if latest < self.latest_epoch && !is_majority(self.named().count(), self) {
            return None;
        }
        let latest: Vec<_> = self.named().filter(|(_, epoch)| *epoch == latest).map(|(addr, _)| addr).collect();
        let votes = |addr: &ConnectionAddr| latest.iter().filter(|other| **other == addr).count();
        latest.iter().max_by_key(|addr| votes(addr)).map(|addr| (*addr).clone())
    }
}

fn is_majority(count: usize, of: &MasterReplies) -> bool {
    2 * count > of.of_each.len()
}

/// Asks over one connection, until it fails or the sentinel does not know the master.
async fn keep_asking(sentinel: &ConnectionInfo, master: &str, tell: &impl Fn(MasterReply)) -> RedisResult<()> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    let mut redis = Client::open(sentinel.clone())?.get_multiplexed_async_connection_with_config(&config).await?;
    loop {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let named: Option<(String, u16)> = command.query_async(&mut redis).await?;
        let Some((host, port)) = named else { return Ok(()) };
        // also of the same master: it may have been replaced, and be the master again in a later epoch
        let epoch = epoch(&mut redis, master).await?;
        tell(Ok((at(sentinel.addr(), &host, port), epoch)));
        sleep(ASK_EVERY).await;
    }
}

async fn epoch(redis: &mut MultiplexedConnection, master: &str) -> RedisResult<u64> {
    let fields: HashMap<String, String> = redis::cmd("SENTINEL").arg("MASTER").arg(master).query_async(redis).await?;
    Ok(fields.get("config-epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use redis::IntoConnectionInfo;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn the_latest_epoch_counts_more_than_votes() {
        let answer = |port: u16, epoch| Some(Ok((ConnectionAddr::Tcp("h".to_owned(), port), epoch)));
        let away = || Some(Err("away".to_owned()));
        let best = |latest_epoch, of_each: Vec<Option<MasterReply>>| {
            MasterReplies { of_each, latest_epoch, master: None }.best().map(|addr| addr.to_string())
        };
        let (one, two) = (Some("h:1".to_owned()), Some("h:2".to_owned()));
        assert_eq!(best(4, vec![answer(1, 3), answer(1, 3), answer(2, 4), None]), two);
        assert_eq!(best(4, vec![answer(1, 4), answer(2, 4), answer(2, 4)]), two);
        assert_eq!(best(4, vec![answer(2, 4), answer(2, 4), answer(1, 4)]), two);
        assert_eq!(best(0, vec![None, away()]), None);
        // one sentinel is behind, and all were set up again
        assert_eq!(best(4, vec![answer(1, 3), away(), away()]), None);
        assert_eq!(best(4, vec![answer(1, 1), answer(1, 1), away()]), one);
    }

    #[tokio::test]
    async fn a_sentinel_that_is_listed_twice_has_one_vote() {
        let login = "redis://127.0.0.1".into_connection_info().unwrap();
        let listed = [1, 2, 1].map(|port| ConnectionAddr::Tcp("127.0.0.1".to_owned(), port));
        let poller = SentinelPoller::start(&login, listed.into(), "main");
        assert_eq!(poller.answers.borrow().of_each.len(), 2);
    }

    /// A server that names the same master each time, in a later epoch.
    #[tokio::test]
    async fn a_master_that_is_the_master_again_has_a_later_epoch() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = server.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let (mut asked, mut epoch) = ([0; 4096], 0);
            while let Ok(read @ 1..) = stream.read(&mut asked) {
                let is_named = String::from_utf8_lossy(&asked[..read]).contains("GET-MASTER-ADDR-BY-NAME");
                epoch += i32::from(!is_named);
                let later = epoch.to_string();
                let fields: [&str; 2] = if is_named { ["h", "1"] } else { ["config-epoch", later.as_str()] };
                let [name, value] = fields.map(|field| format!("${}\r\n{field}\r\n", field.len()));
                stream.write_all(format!("*2\r\n{name}{value}").as_bytes()).unwrap();
            }
        });
        let sentinel = format!("redis://{addr}").into_connection_info().unwrap();
        let login = sentinel.redis_settings().clone().set_skip_set_lib_name();
        let sentinel = sentinel.set_redis_settings(login);
        let (sender, mut told) = unbounded_channel();
        let tell = |answer: MasterReply| drop(sender.send(answer.map(|(_, epoch)| epoch)));
        let two = async { [told.recv().await, told.recv().await] };
        tokio::select! {
            epochs = timeout(Duration::from_secs(10), two) => assert_eq!(epochs, Ok([Some(Ok(1)), Some(Ok(2))])),
            ended = keep_asking(&sentinel, "main", &tell) => panic!("{ended:?}"),
        }
    }

    #[test]
    fn without_a_majority_the_master_stays() {
        let named = |port, epoch| Ok((ConnectionAddr::Tcp("h".to_owned(), port), epoch));
        let mut answers = MasterReplies { of_each: vec![None; 3], ..MasterReplies::default() };
        for (sentinel, answer, master) in [
            (0, named(1, 3), "h:1"),
            (1, named(2, 4), "h:2"),
            (1, Err("away".to_owned()), "h:2"),
            (0, Err("away".to_owned()), "h:2"),
            (0, named(1, 3), "h:2"),
            (2, named(1, 3), "h:1"),
        ] {
            answers.heard(sentinel, answer);
            assert_eq!(answers.master.as_ref().map(ToString::to_string).as_deref(), Some(master));
        }
    }
}
