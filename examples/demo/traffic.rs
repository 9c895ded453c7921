//! Users: a steady stream of requests to each prompt server, and the responses.

use crate::stack::{PROMPT, ServerProcess};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// The responses of one server by one version.
#[derive(Clone, Debug, Default)]
pub struct VersionCounts {
    pub answers: u64,
    pub failed: u64,
    pub first: Option<Timestamp>,
    pub first_failed: Option<Timestamp>,
    pub last: Option<Timestamp>,
}

#[derive(Default)]
struct Watched {
    versions: Mutex<BTreeMap<String, VersionCounts>>,
}

/// Requests to all servers; stops when dropped.
pub struct LoadGenerator {
    servers: Vec<(&'static str, Arc<Watched>)>,
    _tasks: JoinSet<()>,
}

impl LoadGenerator {
    /// Sends `rps` requests per second to each server.
    pub fn start(servers: &[ServerProcess], rps: u32) -> Self {
        let mut tasks = JoinSet::new();
        let mut watched = Vec::new();
        for server in servers {
            let seen = Arc::new(Watched::default());
            watched.push((server.name, seen.clone()));
            tasks.spawn(ask(server.http(), seen, rps));
        }
        Self { servers: watched, _tasks: tasks }
    }

    /// Each server's responses by `version` so far.
    pub fn of(&self, version: &str) -> Vec<(&'static str, VersionCounts)> {
        let served = |seen: &Watched| seen.lock().get(version).cloned().unwrap_or_default();
        self.servers.iter().map(|(name, seen)| (*name, served(seen))).collect()
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VersionCounts>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, version: &str, ok: bool) {
        let now = Timestamp::now();
        let mut versions = self.lock();
        let served = versions.entry(version.to_owned()).or_default();
        served.answers += 1;
        served.first.get_or_insert(now);
        served.last = Some(now);
        if !ok {
            served.failed += 1;
            served.first_failed.get_or_insert(now);
        }
    }
}

async fn ask(http: prompt_rollback_testkit::http::Http, seen: Arc<Watched>, rps: u32) {
    let mut due = interval(Duration::from_secs(1) / rps);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut requests = JoinSet::new();
    loop {
        due.tick().await;
        while requests.try_join_next().is_some() {}
        let (http, seen) = (http.clone(), seen.clone());
        requests.spawn(async move {
            let path = format!("/?prompt={PROMPT}&input=hello");
            // a server that does not answer serves no version; the scene notices the missing responses
            let Ok(answer) = http.get(&path).await else {
                return;
            };
            let Ok(body) = answer.json() else { return };
            if let Some(version) = body["version"].as_str() {
                seen.answered(version, answer.status == 200);
            }
        });
    }
}
