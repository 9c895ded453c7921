//! Keeps what is known of prompts as Redis has it, over one connection after the other.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::split::version;
use super::{Problem, Prompt, Settings, Split};

/// Longest wait for a connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Before the first attempt to connect again; twice as long before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Prompts read at once: Redis does nothing else meanwhile.
const READ_AT_ONCE: usize = 100;

pub(super) struct Follower {
    client: Client,
    followed: Vec<Followed>,
    /// Key → which of `followed` it belongs to.
    of_key: HashMap<Vec<u8>, usize>,
    refresh: Duration,
}

struct Followed {
    prompt: Prompt,
    active: String,
    routing: String,
}

impl Follower {
    pub fn new(client: Client, prompts: &HashMap<String, Prompt>, settings: &Settings) -> Self {
        let (mut followed, mut of_key) = (Vec::new(), HashMap::new());
        for (name, prompt) in prompts {
            let [active, routing] = ["active", "routing"].map(|kind| format!("{}:{kind}:{name}", settings.namespace));
            of_key.insert(active.clone().into_bytes(), followed.len());
            of_key.insert(routing.clone().into_bytes(), followed.len());
            followed.push(Followed { prompt: prompt.clone(), active, routing });
        }
        Self { client, followed, of_key, refresh: settings.refresh }
    }

    /// For ever: connects, follows, and after a failure waits and connects again.
    pub async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(error) = self.follow(&mut pause).await;
            for Followed { prompt, .. } in &self.followed {
                prompt.answered(Instant::now(), Err(Problem::Away(error.to_string())));
            }
            // not all prompt servers at once
            let share = f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX);
            tokio::time::sleep(pause.mul_f64(0.5 + share / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Over one connection, for as long as it lives.
    async fn follow(&self, pause: &mut Duration) -> Result<std::convert::Infallible, RedisError> {
        // Bounded by what is followed: Redis forgets a key when it has told of its change, until it is read again.
        let (sender, mut pushes) = unbounded_channel();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_push_sender(sender);
        let mut redis = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("CLIENT").arg("TRACKING").arg("ON").exec_async(&mut redis).await?;
        loop {
            let all: Vec<usize> = (0..self.followed.len()).collect();
            let again_at = tokio::time::Instant::now() + self.refresh;
            self.read(&mut redis, &all).await?;
            *pause = FIRST_PAUSE;
            // a prompt that changes without a pause is no reason to look at no other
            while tokio::time::Instant::now() < again_at {
                let Ok(changed) = tokio::time::timeout_at(again_at, self.changed(&mut pushes)).await else { break };
                self.read(&mut redis, &changed?).await?;
            }
        }
    }

    /// Waits until some of `followed` may have changed.
    async fn changed(&self, pushes: &mut UnboundedReceiver<PushInfo>) -> RedisResult<Vec<usize>> {
        let mut changed = Vec::new();
        let mut next = pushes.recv().await;
        loop {
            match next {
                Some(push) if push.kind == PushKind::Invalidate => match push.data.first() {
                    Some(Value::Array(keys)) => changed.extend(keys.iter().filter_map(|key| self.owner(key))),
                    // all of them: FLUSHALL
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

    async fn read(&self, redis: &mut MultiplexedConnection, which: &[usize]) -> RedisResult<()> {
        for some in which.chunks(READ_AT_ONCE) {
            let asked = Instant::now();
            let mut both = redis::pipe();
            both.atomic().ignore_errors();
            for Followed { active, routing, .. } in some.iter().map(|index| &self.followed[*index]) {
                both.cmd("GET").arg(active).cmd("HGETALL").arg(routing);
            }
            let answers: Vec<Value> = both.query_async(redis).await?;
            if answers.len() != 2 * some.len() {
                return Err(RedisError::from((ErrorKind::UnexpectedReturnType, "an answer to something else")));
            }
            for (index, answer) in some.iter().zip(answers.chunks_exact(2)) {
                self.followed[*index].prompt.answered(asked, understand(&answer[0], &answer[1]));
            }
        }
        Ok(())
    }
}

/// Name and value.
type Field<'a> = (&'a [u8], &'a [u8]);

/// What `active` and `routing` say, whatever someone may have put there.
fn understand(active: &Value, routing: &Value) -> Result<(Split, Option<Problem>), Problem> {
    let active = match active {
        Value::BulkString(bytes) => version(bytes).ok_or_else(|| Problem::Active("not a version's name".to_owned()))?,
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
    let Value::Map(pairs) = hash else { return Err(unexpected(hash)) };
    pairs.iter().map(|(field, value)| Ok((bytes(field)?, bytes(value)?))).collect()
}

fn bytes(value: &Value) -> Result<&[u8], String> {
    if let Value::BulkString(bytes) = value { Ok(bytes) } else { Err(unexpected(value)) }
}

fn unexpected(value: &Value) -> String {
    match value {
        Value::ServerError(error) => error.to_string(),
        _ => "an answer of another kind".to_owned(),
    }
}
