//! Keeps the known state of prompts equal to Redis, over one connection after another.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{ConnectionAddr, ErrorKind, Pipeline, PushInfo, PushKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

use super::node::{Node, redirected};
use super::places::Places;
use super::split::version;
use super::{ENDED, Mode, Problem, Prompt, Settings, Split};

/// The pause before the first attempt to reconnect; it doubles for each further attempt. After a failover, the next
/// attempt finds the new master.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How often a node is asked whether it still serves: a node that hangs, was demoted or gave the slot away does not
/// announce it.
const BEAT: Duration = Duration::from_millis(500);
/// How often the nodes of a cluster are listed again. They change seldom, and a new replica is not listed at once.
const LEARN_EVERY: Duration = Duration::from_secs(10);
/// How many prompts are read at once: Redis does nothing else meanwhile.
const READ_AT_ONCE: usize = 100;

pub(super) struct Follower {
    places: Places,
    followed: Vec<Followed>,
    /// Maps each key to its index in `followed`.
    of_key: HashMap<Vec<u8>, usize>,
    /// A node that answers for this key has all keys.
    probe: String,
    refresh: Duration,
    /// Whether all keys are in one slot. Without a hash tag, each key is in a slot of its own.
    one_slot: bool,
    mode: watch::Sender<Mode>,
}

struct Followed {
    prompt: Prompt,
    active: String,
    routing: String,
}

/// Why a connection is no longer followed.
enum FollowEnd {
    Lost(RedisError),
    /// Another node is the master now.
    Elsewhere,
}

impl From<RedisError> for FollowEnd {
    fn from(error: RedisError) -> Self {
        Self::Lost(error)
    }
}

impl Follower {
    pub fn new(
        places: Places,
        prompts: &HashMap<String, Prompt>,
        settings: &Settings,
        mode: watch::Sender<Mode>,
    ) -> Self {
        let (mut followed, mut of_key) = (Vec::new(), HashMap::new());
        for (name, prompt) in prompts {
            let [active, routing] = ["active", "routing"].map(|kind| format!("{}:{kind}:{name}", settings.namespace));
            of_key.insert(active.clone().into_bytes(), followed.len());
            of_key.insert(routing.clone().into_bytes(), followed.len());
            followed.push(Followed { prompt: prompt.clone(), active, routing });
        }
        let probe =
            followed.first().map_or_else(|| format!("{}:active:", settings.namespace), |one| one.active.clone());
        let one_slot = settings.namespace.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let one_slot = one_slot.is_some_and(|(tag, _)| !tag.is_empty());
        Self { places, followed, of_key, probe, refresh: settings.refresh, one_slot, mode }
    }

    /// Runs for ever: connects, follows, and after a failure waits and reconnects.
    pub async fn run(mut self) {
        let (mut pause, mut first) = (FIRST_PAUSE, None);
        loop {
            match self.places.connect(first.take(), &self.probe).await {
                Err(error) => self.away(&error),
                Ok(mut node) => {
                    let Err(ended) = self.follow(&mut node, &mut pause).await;
                    match ended {
                        FollowEnd::Lost(error) => match self.places.moved(&error, &node.addr) {
                            // no loss of contact, unless the new master does not answer
                            Some(to) => first = Some(to),
                            None => self.away(&format!("{}: {error}", node.addr)),
                        },
                        FollowEnd::Elsewhere => {}
                    }
                }
            }
            // so that prompt servers do not reconnect all at once
            let share = f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX);
            tokio::select! {
                () = sleep(pause.mul_f64(0.5 + share / 2.0)) => {}
                () = self.places.news() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn away(&self, why: &str) {
        self.mode.send_replace(Mode::Away);
        for Followed { prompt, .. } in &self.followed {
            prompt.away(why);
        }
    }

    /// Follows over one connection, until it fails or no longer leads to the right node.
    async fn follow(&mut self, node: &mut Node, pause: &mut Duration) -> Result<Infallible, FollowEnd> {
        if node.said.clustered && !self.one_slot {
            let why =
                "the namespace has no hash tag such as {prompts}: in a cluster, its keys are spread over several nodes";
            return Err(RedisError::from((ErrorKind::InvalidClientConfig, why)).into());
        }
        let all: Vec<usize> = (0..self.followed.len()).collect();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut asked, mut learn_at) = (None, Instant::now());
        loop {
            let mut scattered = self.read(node, &mut asked, &all).await?;
            // after the read: one that takes long must not stop the checks below
            let again_at = tokio::time::Instant::now() + self.refresh;
            *pause = FIRST_PAUSE;
            self.mode.send_replace(if node.tracking { Mode::Pushed } else { Mode::Polling });
            // one prompt that changes constantly must not delay the others
            while tokio::time::Instant::now() < again_at {
                tokio::select! {
                    changed = self.changed(&mut node.pushes), if node.tracking => {
                        scattered |= self.read(node, &mut asked, &changed?).await?;
                    }
                    _ = beat.tick() => {
                        let at = Instant::now();
                        let said = node.ask(&self.probe).await?;
                        if said.replica && !node.said.replica {
                            return Err(FollowEnd::Elsewhere);
                        }
                        if scattered {
                            break; // no changes are announced for keys at the slot's next node
                        }
                        if node.tracking && node.pushes.is_empty() {
                            self.followed.iter().for_each(|one| one.prompt.confirmed(at));
                        }
                        if said.clustered && (at >= learn_at || self.places.knows_one()) {
                            learn_at = at + LEARN_EVERY;
                            // without permission, only the given nodes and MOVED are known
                            match node.all_nodes().await {
                                Ok(nodes) => self.places.learn(nodes),
                                Err(error) if error.code().is_some() => {}
                                Err(error) => return Err(error.into()),
                            }
                        }
                    }
                    () = self.places.elsewhere(&node.addr) => return Err(FollowEnd::Elsewhere),
                    Some(_) = node.renamed.join_next() => return Err(FollowEnd::Elsewhere),
                    () = sleep_until(again_at) => break,
                }
            }
        }
    }

    /// Waits until some of `followed` may have changed.
    async fn changed(&self, pushes: &mut UnboundedReceiver<PushInfo>) -> RedisResult<Vec<usize>> {
        // bounded by the number of followed keys: Redis announces a key once until it is read again
        let mut changed = Vec::new();
        let mut next = pushes.recv().await;
        loop {
            match next {
                Some(push) if push.kind == PushKind::Invalidate => match push.data.first() {
                    Some(Value::Array(keys)) => changed.extend(keys.iter().filter_map(|key| self.owner(key))),
                    // FLUSHALL: all keys
                    _ => changed.extend(0..self.followed.len()),
                },
                Some(push) if push.kind != PushKind::Disconnection => {}
                _ => return Err(RedisError::from((ErrorKind::Io, "the connection was closed"))),
            }
            next = match pushes.try_recv() {
                Ok(push) => Some(push),
                Err(_) if changed.is_empty() => pushes.recv().await,
                Err(_) => break,
            };
        }
        changed.sort_unstable();
        changed.dedup();
        Ok(changed)
    }

    fn owner(&self, key: &Value) -> Option<usize> {
        let Value::BulkString(key) = key else { return None };
        self.of_key.get(key).copied()
    }

    /// Reads these prompts. Returns whether some keys were at the node that the slot is migrating to.
    async fn read(&self, node: &mut Node, asked: &mut Option<ImportingNode>, which: &[usize]) -> RedisResult<bool> {
        let mut scattered = false;
        for some in which.chunks(READ_AT_ONCE) {
            let at = Instant::now();
            // not `atomic()`, which hides the node that answered MOVED, and panics if MULTI is refused (redis 1.8)
            let mut both = redis::pipe();
            both.ignore_errors().cmd("MULTI");
            for question in self.questions(some).cmd_iter() {
                both.add_command(question.clone());
            }
            let mut answers: Vec<Value> = both.cmd("EXEC").query_async(&mut node.redis).await?;
            let executed = answers.pop();
            let answers = match executed {
                Some(Value::Array(answers)) => answers,
                _ if is_scattered(&answers) => {
                    scattered = true;
                    self.read_scattered(node, asked, some).await?
                }
                executed => return Err(refused(answers.into_iter().chain(executed))),
            };
            if answers.len() != 2 * some.len() {
                return Err(RedisError::from((ErrorKind::UnexpectedReturnType, "an unexpected number of replies")));
            }
            for (index, answer) in some.iter().zip(answers.chunks_exact(2)) {
                self.followed[*index].prompt.answered(at, understand(&answer[0], &answer[1]));
            }
        }
        Ok(scattered)
    }

    fn questions(&self, which: &[usize]) -> Pipeline {
        let mut both = redis::pipe();
        both.ignore_errors();
        for Followed { active, routing, .. } in which.iter().map(|index| &self.followed[*index]) {
            both.cmd("GET").arg(active).cmd("HGETALL").arg(routing);
        }
        both
    }

    /// Reads each key separately: while a slot migrates, no node has all keys of a transaction.
    async fn read_scattered(
        &self,
        node: &mut Node,
        asked: &mut Option<ImportingNode>,
        which: &[usize],
    ) -> RedisResult<Vec<Value>> {
        let questions = self.questions(which);
        let mut answers: Vec<Value> = questions.query_async(&mut node.redis).await?;
        let (mut there, mut to) = (Vec::new(), None);
        for (index, answer) in answers.iter().enumerate() {
            let Value::ServerError(error) = answer else { continue };
            let error = RedisError::from(error.clone());
            match redirected(&error, ServerErrorKind::Ask, &node.addr) {
                Some(addr) => {
                    there.push(index);
                    to = Some(addr);
                }
                None if error.code() == Some("WRONGTYPE") => {}
                None => return Err(error),
            }
        }
        let Some(to) = to else { return Ok(answers) };
        // names the node; a plain MOVED would count as an answer of the node that is followed
        let failed = |error: RedisError| {
            let why = "the node that the slot migrates to gives no value";
            RedisError::from((ErrorKind::UnexpectedReturnType, why, format!("{to}: {error}")))
        };
        let mut redis = match asked.take() {
            Some(asked) if asked.addr == to => asked.redis,
            _ => Node::open_asked(&self.places.info(&to)).await.map_err(failed)?,
        };
        let mut again = redis::pipe();
        again.ignore_errors();
        for (_, question) in questions.cmd_iter().enumerate().filter(|(index, _)| there.contains(index)) {
            again.cmd("ASKING").ignore().add_command(question.clone());
        }
        let found: Vec<Value> = again.query_async(&mut redis).await.map_err(failed)?;
        for (index, value) in there.into_iter().zip(found) {
            if let Value::ServerError(error) = &value
                && error.code() != "WRONGTYPE"
            {
                return Err(failed(error.clone().into()));
            }
            answers[index] = value;
        }
        *asked = Some(ImportingNode { addr: to, redis });
        Ok(answers)
    }
}

/// A connection to the node that the slot is migrating to.
struct ImportingNode {
    addr: ConnectionAddr,
    redis: MultiplexedConnection,
}

/// Whether a transaction was refused because its keys are at two nodes.
fn is_scattered(queued: &[Value]) -> bool {
    let kind = |answer: &Value| if let Value::ServerError(error) = answer { Some(error.kind()) } else { None };
    let mut kinds = queued.iter().filter_map(kind).peekable();
    kinds.peek().is_some() && kinds.all(|kind| matches!(kind, Some(ServerErrorKind::Ask | ServerErrorKind::TryAgain)))
}

/// The first error among answers.
fn refused(answers: impl Iterator<Item = Value>) -> RedisError {
    let mut errors = answers.filter_map(|answer| answer.extract_error().err());
    errors
        .next()
        .unwrap_or_else(|| RedisError::from((ErrorKind::UnexpectedReturnType, "an unexpected number of replies")))
}

/// The prompts outlive the reader, but must report that they are no longer updated.
impl Drop for Follower {
    fn drop(&mut self) {
        self.away(ENDED);
    }
}

/// Name and value.
type Field<'a> = (&'a [u8], &'a [u8]);

/// Parses `active` and `routing`, which may hold anything.
fn understand(active: &Value, routing: &Value) -> Result<(Split, Option<Problem>), Problem> {
    let active = match active {
        Value::BulkString(bytes) => version(bytes).ok_or_else(|| Problem::Active("not a version name".to_owned()))?,
        Value::Nil => return Err(Problem::Missing),
        other => return Err(Problem::Active(unexpected(other))),
    };
    let split = fields(routing).and_then(|fields| Split::routed(active, &fields).map_err(|error| error.to_string()));
    Ok(match split {
        Ok(split) => (split.unwrap_or_else(|| Split::whole(active)), None),
        Err(why) => (Split::whole(active), Some(Problem::Routing(why))),
    })
}

fn fields(hash: &Value) -> Result<Vec<Field<'_>>, String> {
    match hash {
        Value::Map(pairs) => pairs.iter().map(|(field, value)| Ok((bytes(field)?, bytes(value)?))).collect(),
        // without RESP3
        Value::Array(items) => items.chunks_exact(2).map(|pair| Ok((bytes(&pair[0])?, bytes(&pair[1])?))).collect(),
        other => Err(unexpected(other)),
    }
}

fn bytes(value: &Value) -> Result<&[u8], String> {
    if let Value::BulkString(bytes) = value { Ok(bytes) } else { Err(unexpected(value)) }
}

fn unexpected(value: &Value) -> String {
    match value {
        Value::ServerError(error) => error.to_string(),
        _ => "a reply of an unexpected type".to_owned(),
    }
}
