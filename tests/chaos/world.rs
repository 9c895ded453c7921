//! One run: a world from a seed, its events and faults, and the state after all faults.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prompt_rollback::store::keys::Keys;
use prompt_rollback::store::schedule::{Target, Work};
use prompt_rollback_testkit::prompts::ship;
use prompt_rollback_testkit::proxy::Mode;
use prompt_rollback_testkit::slack::{Fault, Slack};
use prompt_rollback_testkit::{FaultProxy, Redis, Rng};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::check::{Start, linearizable};
use crate::clients::{ASKS, CANARY, Clients, GRADUAL, ONCE, SWITCHES};
use crate::history::{Call, Entry, Recorder, text};
use crate::invariants::{Facts, LATE_MS, PromptFacts, Told, broken, doubled, millis};
use crate::node::{Node, Time, faketime};
use crate::servers::{Kind, MASTER, PATIENCE, Servers};

/// How far time advances in one step, and in total after all faults: past every deadline in the world, and its repeat.
const STEP: Duration = Duration::from_secs(5);
const HORIZON: Duration = Duration::from_secs(7 * 60);
/// A claim that its worker has not returned by then must wait for its lease.
const ORPHANED: Duration = Duration::from_millis(2_500);

pub struct World {
    kind: Kind,
    rng: Rng,
    servers: Servers,
    /// One proxy in front of Redis for each receiver; none with Sentinel, which names the servers.
    proxies: Vec<FaultProxy>,
    nodes: Vec<Node>,
    slack: Arc<Slack>,
    time: Time,
    faults: BTreeMap<&'static str, u64>,
    may_double: bool,
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub broken: Vec<String>,
    pub lost: Vec<String>,
    pub faults: BTreeMap<&'static str, u64>,
    pub requests: usize,
    pub unanswered: usize,
    pub switches: usize,
    /// Messages in Slack, and how many of them were posted twice.
    pub told: usize,
    pub doubled: usize,
    /// The receivers' logs, if a property is violated.
    pub logs: String,
}

/// Runs this seed.
pub async fn run(seed: u64) -> Result<Report> {
    let kind = Kind::of(seed);
    let mut world = World::start(seed, kind).await.context("the world does not start")?;
    let result = world.live().await;
    let logs = || world.nodes.iter().map(|node| format!("--- {}\n{}\n", node.name, node.log())).collect::<String>();
    match result {
        Ok(mut report) => {
            if !report.broken.is_empty() {
                report.logs = logs();
            }
            Ok(report)
        }
        Err(error) => Ok(Report { broken: vec![format!("{error:#}")], logs: logs(), ..Report::default() }),
    }
}

impl World {
    async fn start(seed: u64, kind: Kind) -> Result<Self> {
        let rng = Rng::new(seed);
        let servers = Servers::start(kind).await?;
        let slack = Slack::builder()
            .user("U1", "maya", "Maya Lind")
            .channel("C1", "on-call")
            .channel("C2", "incidents")
            .start()?;
        let time = Time::start().await?;
        let mut skews = rng.fork("skews");
        let many = 2 + skews.below(2) as usize;
        let (mut proxies, mut nodes) = (Vec::new(), Vec::new());
        let mut faults = BTreeMap::new();
        for n in 0..many {
            let mut env: Vec<(String, String)> = [
                ("GUARDS__MAX_AUTO_ROLLBACKS", "1000"),
                ("VERIFICATION__DEADLINE", "2m"),
                ("SLACK__BOT_TOKEN", slack.bot_token()),
                ("SLACK__SIGNING_SECRET", slack.signing_secret()),
                ("SLACK__API_URL", &slack.api_url()),
                ("DECIDERS__ON_CALL__CHANNEL", "#on-call"),
                ("DECIDERS__ON_CALL__APPROVERS", "U1"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
            let mut set = |key: &str, value: &str| env.push((key.to_owned(), value.to_owned()));
            if kind.fails_over() {
                set("REDIS__MODE", "sentinel");
                set("REDIS__SENTINEL_MASTER", MASTER);
                set("REDIS__NODES", &servers.nodes());
                set("REDIS__URL", &Redis::RECEIVER.url("elsewhere.invalid"));
                if kind == Kind::Failover {
                    set("REDIS__MIN_REPLICAS_ACKED", "1");
                }
            } else {
                let proxy = FaultProxy::start(servers.redis[0].addr()).await?;
                set("REDIS__URL", &Redis::RECEIVER.url(proxy.addr()));
                proxies.push(proxy);
            }
            // a click's signature is valid for five minutes
            let skew = format!("{}{}s", if skews.chance(500) { '+' } else { '-' }, 1 + skews.below(240));
            let skew = (n > 0 && skews.chance(700)).then_some(skew);
            if skew.is_some() && faketime().is_some() {
                *faults.entry("receivers with a wrong clock").or_default() += 1;
            }
            nodes.push(Node::start(format!("receiver-{n}"), &time, &env, skew.as_deref())?);
        }
        let mut world =
            Self { kind, rng, servers, proxies, nodes, slack: Arc::new(slack), time, faults, may_double: false };
        world.ready().await?;
        Ok(world)
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for node in &mut self.nodes {
            while !node.is_ready().await? {
                ensure!(Instant::now() < deadline, "{} not ready within {PATIENCE:?}: {}", node.name, node.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The versions before the run.
    async fn ship(&self) -> Result<()> {
        let http = &self.nodes[0].http;
        for prompt in ONCE.iter().chain(&ASKS).chain([&GRADUAL]) {
            ship(http, prompt).await?;
        }
        let post = async |path: String, body: Value| {
            let answer = http.post_json(&path, &body).await?;
            ensure!(answer.status < 300, "{path} {body}: {} {}", answer.status, answer.text());
            Ok(())
        };
        let register = async |prompt: &str, version: &str, good: bool| {
            post(format!("/api/prompts/{prompt}/versions"), json!({"version": version, "known_good": good})).await
        };
        let activate = async |prompt: &str, version: &str| {
            post(format!("/api/prompts/{prompt}/activate"), json!({"version": version})).await
        };
        for prompt in SWITCHES {
            for (version, good) in [("v1", true), ("v2", true), ("v3", false)] {
                register(prompt, version, good).await?;
                activate(prompt, version).await?;
            }
        }
        register(CANARY, "v1", true).await?;
        activate(CANARY, "v1").await?;
        register(CANARY, "v2", false).await
    }

    fn start_of_switches() -> Start {
        let names = ["v1", "v2", "v3"].map(str::to_owned);
        Start { active: "v3".to_owned(), good: names[..2].iter().cloned().collect(), recency: names.to_vec() }
    }

    async fn live(&mut self) -> Result<Report> {
        self.ship().await.context("shipping")?;
        if self.kind.fails_over() {
            self.servers.redis[0].wait_for_replicas(1).await?;
        }
        if self.kind.loses() {
            tokio::time::sleep(Duration::from_millis(1_200)).await; // the shipped versions are on disk
        }
        let shipped = self.logs().await?;
        let clients = Arc::new(Clients {
            https: self.nodes.iter().map(|node| node.http.clone()).collect(),
            urls: self.nodes.iter().map(Node::url).collect(),
            slack: Arc::clone(&self.slack),
            recorder: Recorder::start(),
            accepted: Mutex::default(),
            calm: AtomicBool::new(false),
            rng: self.rng.fork("clients"),
        });
        let mut stubborn = Vec::new();
        for name in ["am-0", "am-1"] {
            stubborn.push(tokio::spawn(Arc::clone(&clients).alertmanager(name)));
        }
        stubborn.push(tokio::spawn(Arc::clone(&clients).stepper(self.kind.loses())));
        let mut others = Vec::new();
        for name in ["api-0", "api-1"] {
            others.push(tokio::spawn(Arc::clone(&clients).operator(name)));
        }
        others.push(tokio::spawn(Arc::clone(&clients).reader()));
        others.push(tokio::spawn(Arc::clone(&clients).clicker()));

        self.hurt().await.context("while it is hurt")?;
        clients.calm.store(true, Ordering::Relaxed);
        self.heal().await.context("while it heals")?;
        for client in stubborn {
            client.await??;
        }
        for client in others {
            client.await?;
        }
        if self.kind.loses() {
            clients.repeat().await?;
        }
        let late = self.let_time_pass().await.context("while time passes")?;
        self.judge(&clients, &shipped, late).await.context("in the end")
    }

    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// About four seconds of faults.
    async fn hurt(&mut self) -> Result<()> {
        let mut rng = self.rng.fork("hurt");
        let rate = match self.kind {
            Kind::Wire => *rng.pick(&[10, 25, 50]),
            _ => *rng.pick(&[0, 5]),
        };
        for (n, proxy) in self.proxies.iter().enumerate() {
            proxy.strike(rng.fork(&format!("proxy-{n}")), rate);
        }
        let mut broken = 0;
        let until = Instant::now() + Duration::from_millis(3_500 + rng.below(1_000));
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100 + rng.below(400))).await;
            match rng.below(10) {
                0 | 1 => self.hurt_wire(&mut rng).await,
                2..=4 => self.hurt_slack(&mut rng),
                5 | 6 => self.hurt_node(&mut rng).await?,
                7 if rng.chance(300) => {
                    // leases expire, and workers that still run lose theirs
                    self.may_double = true;
                    self.time.advance(Duration::from_secs(31 + rng.below(20))).await;
                    self.count("leases run out under their workers");
                }
                _ if broken < 2 && !(self.kind == Kind::Wire && rng.chance(600)) => {
                    broken += 1;
                    let fault = self.servers.break_and_mend(self.kind, &mut rng).await?;
                    self.count(fault);
                }
                _ => {}
            }
        }
        if broken == 0 && self.kind != Kind::Wire {
            let fault = self.servers.break_and_mend(self.kind, &mut rng).await?;
            self.count(fault);
        }
        Ok(())
    }

    async fn hurt_wire(&mut self, rng: &mut Rng) {
        if self.proxies.is_empty() {
            return;
        }
        let proxy = rng.pick(&self.proxies);
        let (mode, fault, longest) = match rng.chance(500) {
            true => (Mode::Stall, "network stalls", 1_500),
            false => (Mode::Cut, "network is cut", 800),
        };
        proxy.set(mode);
        tokio::time::sleep(Duration::from_millis(50 + rng.below(longest))).await;
        proxy.set(Mode::Pass);
        self.count(fault);
    }

    fn hurt_slack(&mut self, rng: &mut Rng) {
        let (fault, name) = match rng.below(11) {
            0 => (Fault::rate_limited(1), "Slack answers 429"),
            1 | 2 => (Fault::status(500), "Slack answers 500"),
            3 => (Fault::html(502), "Slack answers with a web page"),
            4 => (Fault::hang(Duration::from_millis(300 + rng.below(1_200))), "Slack hangs"),
            5 => (Fault::slow_reply(Duration::from_millis(300 + rng.below(700))), "Slack answers late"),
            6 => (Fault::drop_connection(), "Slack closes the connection"),
            7 => (Fault::error("update_failed"), "Slack answers with a code that is not listed"),
            8 => (Fault::error("internal_error").applied(), "Slack does it and says that it failed"),
            9 => (Fault::html(403).on("chat.update"), "A proxy refuses edits"),
            _ => (Fault::lose_reply(), "Slack does it and does not say so"),
        };
        self.slack.inject(fault.times(1).after(rng.below(3) as usize));
        self.count(name);
    }

    async fn hurt_node(&mut self, rng: &mut Rng) -> Result<()> {
        let index = rng.below(self.nodes.len() as u64) as usize;
        let pause = Duration::from_millis(50 + rng.below(700));
        if rng.chance(600) {
            self.nodes[index].kill9();
            tokio::time::sleep(pause).await;
            self.nodes[index].restart()?;
            self.count("receiver killed (SIGKILL)");
        } else {
            self.nodes[index].pause()?;
            if rng.chance(400) {
                // it continues with leases that others have taken over
                self.may_double = true;
                self.time.advance_without(Duration::from_secs(31)).await;
                self.count("leases run out under their workers");
            }
            tokio::time::sleep(pause).await;
            self.nodes[index].resume()?;
            self.count("receiver stopped for a while (SIGSTOP)");
        }
        Ok(())
    }

    /// Ends all faults, and waits until everything runs.
    async fn heal(&mut self) -> Result<()> {
        for proxy in &self.proxies {
            proxy.strike(Rng::new(0), 0);
            proxy.set(Mode::Pass);
            for (name, times) in proxy.struck() {
                *self.faults.entry(name).or_default() += times;
            }
        }
        self.slack.heal();
        self.servers.whole().await?;
        self.ready().await?;
        // the longest wait for an answer that will not come
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        self.ready().await
    }

    /// Advances time past every deadline, no faster than the workers can follow. Returns what was late.
    async fn let_time_pass(&mut self) -> Result<Vec<String>> {
        let mut connection = self.servers.connection().await?;
        let mut late: BTreeMap<String, String> = BTreeMap::new();
        let mut orphans = HashSet::new();
        let healed = self.now(&mut connection).await?;
        let mut passed = Duration::ZERO;
        let mut backing_off = false;
        let begun = Instant::now();
        loop {
            self.settle(&mut connection, &mut orphans).await?;
            let now = self.now(&mut connection).await?;
            for (member, at) in due(&mut connection).await? {
                let waits = now - at.max(healed);
                if waits > LATE_MS && !member.ends_with("|slack") {
                    let text = format!("{member} was due at {at} and is not done {waits} ms later");
                    late.entry(member).or_insert(text);
                }
            }
            if passed >= HORIZON {
                let due = due(&mut connection).await?;
                let telling = due.iter().any(|(member, _)| member.ends_with("|slack"));
                backing_off = due.iter().any(|(member, at)| member.ends_with("|slack") && *at > now);
                if !telling && leased(&mut connection).await?.is_empty() {
                    return Ok(late.into_values().collect());
                }
                ensure!(begun.elapsed() < PATIENCE, "not quiet within {PATIENCE:?}: {due:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if passed < HORIZON || !orphans.is_empty() || backing_off {
                self.time.advance(STEP).await;
                passed += STEP;
            }
        }
    }

    /// Waits until the workers have done everything that is due, except what waits for Slack or for dead workers.
    async fn settle(&self, connection: &mut MultiplexedConnection, orphans: &mut HashSet<(String, i64)>) -> Result<()> {
        let mut before = None;
        let mut since = Instant::now();
        loop {
            let leased = leased(connection).await?;
            orphans.retain(|orphan| leased.contains(orphan));
            let now = self.now(connection).await?;
            let mut busy: Vec<_> = leased.iter().filter(|claim| !orphans.contains(claim)).cloned().collect();
            let due = due(connection).await?;
            busy.extend(due.into_iter().filter(|(member, at)| *at <= now && !member.ends_with("|slack")));
            if busy.is_empty() {
                return Ok(());
            }
            if before.as_ref() != Some(&busy) {
                since = Instant::now();
                before = Some(busy);
            } else if since.elapsed() > ORPHANED {
                orphans.extend(leased);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
    }

    async fn now(&self, connection: &mut MultiplexedConnection) -> Result<i64> {
        let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(connection).await?;
        Ok(seconds * 1_000 + micros / 1_000 + self.time.ahead() as i64)
    }

    async fn logs(&self) -> Result<BTreeMap<String, Vec<Entry>>> {
        let mut connection = self.servers.connection().await?;
        let mut logs = BTreeMap::new();
        for prompt in SWITCHES.iter().chain(&ONCE).chain(&ASKS).chain([&GRADUAL, &CANARY]) {
            let mut command = redis::cmd("XRANGE");
            command.arg(format!("{{prompts}}:log:{prompt}")).arg("-").arg("+");
            let entries: Vec<(String, HashMap<String, String>)> = command.query_async(&mut connection).await?;
            // a soaked version moves no traffic
            let changes = entries.iter().map(|(_, fields)| Entry::read(fields)).filter(|entry| entry.event != "soaked");
            logs.insert((*prompt).to_owned(), changes.collect());
        }
        Ok(logs)
    }

    async fn judge(
        &mut self,
        clients: &Clients,
        shipped: &BTreeMap<String, Vec<Entry>>,
        late: Vec<String>,
    ) -> Result<Report> {
        let facts = self.facts(clients, late).await?;
        let mut report = Report::default();
        report.broken = broken(&facts, &mut report.lost);
        for prompt in SWITCHES.iter().filter(|_| !self.kind.loses()) {
            let log = &facts.prompts[*prompt].log;
            let log = log.strip_prefix(shipped[*prompt].as_slice()).context("the log begins as it began")?;
            let mut ops = clients.recorder.of(prompt);
            if self.kind.fails_over() {
                // a replaced master answers readers for a moment; decisions are fenced
                ops.retain(|op| op.call != Call::Look);
            }
            if let Err(why) = linearizable(&Self::start_of_switches(), &ops, log) {
                report.broken.push(format!("{prompt}: {why}"));
            }
        }
        report.switches = facts.prompts.values().flat_map(|found| &found.log).filter(|e| e.event == "rollback").count();
        (report.told, report.doubled) = (facts.told.len(), doubled(&facts));
        (report.requests, report.unanswered) = clients.recorder.count();
        report.faults = std::mem::take(&mut self.faults);
        Ok(report)
    }

    async fn facts(&self, clients: &Clients, late: Vec<String>) -> Result<Facts> {
        let mut connection = self.servers.connection().await?;
        let mut prompts = BTreeMap::new();
        for (prompt, log) in self.logs().await? {
            let [active, routing] = ["active", "routing"].map(|kind| format!("{{prompts}}:{kind}:{prompt}"));
            let active = redis::cmd("GET").arg(active).query_async(&mut connection).await?;
            let routing = redis::cmd("HGETALL").arg(routing).query_async(&mut connection).await?;
            prompts.insert(prompt, PromptFacts { active, routing, log });
        }
        let http = &self.nodes[0].http;
        let get = async |path: String| http.get(&path).await?.json();
        let mut incidents = Vec::new();
        let rows = get("/api/incidents?limit=1000".to_owned()).await?;
        for row in rows["incidents"].as_array().context("incidents")? {
            incidents.push(get(format!("/api/incidents/{}", text(&row["id"]))).await?);
        }
        let names = |scores: Vec<(String, i64)>| scores.into_iter().map(|(member, _)| member).collect();
        Ok(Facts {
            prompts,
            accepted: clients.accepted.lock().await.clone(),
            once: ONCE.map(str::to_owned).into(),
            now: self.now(&mut connection).await?,
            due: due(&mut connection).await?,
            leased: names(leased(&mut connection).await?),
            dead_letters: names(scores(&mut connection, &keys().dead_letters()).await?),
            unsent: names(scores(&mut connection, &keys().unsent(Target::FIRST)).await?),
            phases: redis::cmd("HGETALL").arg(keys().phases()).query_async(&mut connection).await?,
            told: self.told(),
            late: late.into_iter().chain(overdue(&incidents, self.now(&mut connection).await?)).collect(),
            lossy: self.kind.loses(),
            may_double: self.may_double || self.kind.fails_over(),
            may_orphan: self.may_double && self.kind.fails_over(),
            incidents,
        })
    }

    fn told(&self) -> Vec<Told> {
        let mut told = Vec::new();
        for channel in ["on-call", "incidents"] {
            for message in self.slack.messages(channel) {
                let payload = message.metadata.as_ref().map(|metadata| &metadata["event_payload"]);
                let Some(payload) = payload else { continue };
                told.push(Told {
                    incident: text(&payload["incident"]),
                    what: text(&payload["what"]),
                    channel: channel.to_owned(),
                    ts: message.ts,
                    thread: message.thread_ts,
                });
            }
        }
        told.sort_by(|a, b| a.ts.cmp(&b.ts));
        told
    }
}

/// The keys of the receivers.
pub fn keys() -> Keys {
    Keys::new("{prompts}")
}

/// Open incidents with a missed deadline.
fn overdue(incidents: &[Value], now: i64) -> Vec<String> {
    let open = incidents.iter().filter(|incident| incident["closed_at"].is_null());
    let missed = open.filter(|incident| millis(&incident["deadline"]).is_some_and(|at| now - at > LATE_MS));
    missed.map(|incident| format!("the deadline of {incident} is past at {now}")).collect()
}

/// Wake-ups of every kind.
async fn due(connection: &mut MultiplexedConnection) -> Result<Vec<(String, i64)>> {
    of_all_kinds(connection, Keys::due).await
}

async fn leased(connection: &mut MultiplexedConnection) -> Result<Vec<(String, i64)>> {
    of_all_kinds(connection, Keys::leased).await
}

async fn of_all_kinds(
    connection: &mut MultiplexedConnection,
    set: fn(&Keys, Work) -> String,
) -> Result<Vec<(String, i64)>> {
    let mut all = Vec::new();
    let works = Work::OWN.into_iter().filter(|work| *work != Work::Soak).chain([Work::Notify(Target::FIRST)]);
    for work in works {
        all.extend(scores(connection, &set(&keys(), work)).await?);
    }
    Ok(all)
}

async fn scores(connection: &mut MultiplexedConnection, set: &str) -> Result<Vec<(String, i64)>> {
    let mut command = redis::cmd("ZRANGE");
    command.arg(set).arg(0).arg(-1).arg("WITHSCORES");
    let scores: Vec<(String, f64)> = command.query_async(connection).await?;
    Ok(scores.into_iter().map(|(member, score)| (member, score as i64)).collect())
}
