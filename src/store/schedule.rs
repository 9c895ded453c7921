//! Wake-ups: `due` and `leased`, moved by scripts on Redis TIME, so that every replica may do the work and none does
//! it twice at once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::FromRedisValue;
use tokio::time::Instant;

use super::drill::{DRILL, DrillId};
use super::keys::Keys;
use super::reply::array;
use super::{Store, StoreError, millis};
use crate::decision::{Incident, IncidentId, PromptName, Severity, Timestamp};

/// Kinds of work, done by separate workers: one that hangs never delays another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Deadlines, observations, queries.
    Act,
    /// Telling people in Slack.
    Slack,
    /// Coordinating many prompts that fail together.
    Mass,
    /// Telling them each week what a dry run would have done.
    Report,
    /// Looking at versions that soak.
    Soak,
}

impl Work {
    fn suffix(self) -> &'static str {
        match self {
            Work::Act => "|act",
            Work::Slack => "|slack",
            Work::Mass => "|mass",
            Work::Report => "|report",
            Work::Soak => "|soak",
        }
    }

    /// Where its wake-ups wait, and where they are while claimed.
    fn sets(self, keys: &Keys) -> [String; 2] {
        match self {
            Work::Soak => [keys.soaks(), keys.soaks_leased()],
            Work::Act | Work::Slack | Work::Mass | Work::Report => [keys.due(), keys.leased()],
        }
    }

    fn of(member: &str) -> Self {
        if member.ends_with(Work::Soak.suffix()) { Work::Soak } else { Work::Act }
    }

    /// The member of the sorted sets.
    pub fn member(self, incident: &IncidentId) -> String {
        format!("{incident}{}", self.suffix())
    }

    /// Of what is due for a prompt itself. No incident's id begins like that.
    pub fn member_of(self, prompt: &PromptName) -> String {
        format!("{PROMPT}{prompt}{}", self.suffix())
    }
}

const PROMPT: char = '@';

/// Longest wait that Slack may ask for. It asks for half a minute as a rule; who asks too early is told so again.
pub const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// When Slack is to be told of an incident: at once, but the backlog of an outage goes by severity, then by time.
pub fn slack_turn(incident: &Incident) -> Timestamp {
    const RANK: Duration = Duration::from_secs(365 * 24 * 3_600);
    let ranks = match incident.severity {
        Severity::Critical => 2,
        Severity::High => 1,
        Severity::Medium => 0,
    };
    incident.opened_at.minus(RANK * ranks)
}

/// A wake-up that is ours until the lease expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub incident: IncidentId,
    pub(super) member: String,
    pub(super) token: String,
}

impl Claim {
    /// The prompt that this is about, if it is about no incident.
    pub fn prompt(&self) -> Option<PromptName> {
        PromptName::parse(self.incident.0.strip_prefix(PROMPT)?).ok()
    }

    /// The drill that this is about, if it is about one.
    pub fn drill(&self) -> Option<DrillId> {
        DrillId::parse(self.incident.0.strip_prefix(DRILL)?)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// When this was.
    pub now: Timestamp,
    pub claims: Vec<Claim>,
    /// How long until the next wake-up may be due; `None` when nothing waits.
    pub next: Option<Duration>,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    Done,
    /// The record changed meanwhile: due again at once.
    Again,
    /// It failed and will be tried again.
    Retried,
    /// It failed too often and is set aside.
    Parked,
    /// The lease was lost; another worker has it.
    Lost,
}

/// How a claim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done {
        rev: Option<i64>,
        next: Option<Timestamp>,
    },
    Failed,
    /// It is a newer receiver's, which finds it due soon.
    Left,
    /// Slack has all that there was to say at this moment.
    Sent(Timestamp),
    /// Slack is to be told the rest at `next`. It has all from before `since`, if that is known.
    Unsent {
        next: Timestamp,
        since: Option<Timestamp>,
    },
}

impl End {
    /// What failed is tried again for a while; what this receiver does not understand is left to others.
    pub fn after(error: &StoreError) -> Self {
        match error {
            StoreError::NewerRecord { .. } => Self::Left,
            _ => Self::Failed,
        }
    }
}

/// A lease outlives every outside call (10 s at most) twice.
pub const LEASE: Duration = Duration::from_secs(30);
/// Workers look again at least this often: another replica may have scheduled something earlier.
pub const IDLE: Duration = Duration::from_secs(1);
/// Tries before a wake-up is parked.
const TRIES: u32 = 10;
/// The first back-off; each doubles, so ten tries take about eight minutes.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The last one: nothing that is to be told in Slack is put off for longer.
const LAST_BACKOFF: Duration = Duration::from_secs(1 << (TRIES - 2));
/// Wake-ups looked at by one command.
const PAGE: usize = 1_000;

impl Store {
    /// Claims up to `most` due wake-ups of this kind. `token` names the claimer.
    pub async fn claim(&self, work: Work, most: usize, lease: Duration, token: &str) -> Result<Claimed, StoreError> {
        let keys = &self.keys;
        let [due, leased] = work.sets(keys);
        let names = [due, leased, keys.tokens(), keys.unsent()];
        let mut call = self.scripts.claim.call(&names);
        call.cmd.arg(work.suffix()).arg(most).arg(millis(lease)).arg(token).arg(self.clock.ahead());
        match work {
            Work::Slack => call.cmd.arg(millis(LAST_BACKOFF.max(LONGEST_HOLD))),
            _ => call.cmd.arg(""),
        };
        let reply = self.link.run(&call).await?;
        let unexpected = || StoreError::unexpected("claim");
        let mut items = array(reply).ok_or_else(unexpected)?.into_iter();
        let mut number = || items.next().and_then(|v| i64::from_redis_value(v).ok()).ok_or_else(unexpected);
        let (now, shortened, wait) = (Timestamp(number()?), number()?, number()?);
        if shortened > 0 {
            tracing::warn!(shortened, "leases or wake-ups lay too far ahead (did Redis' clock go back?): shortened");
        }
        if self.pulse.went_back(now) {
            let hurried = self.hurry().await.inspect(|_| self.pulse.beat(now));
            tracing::warn!(?hurried, "redis' clock went back: what waits by it is looked at now");
        }
        let claims = items
            .filter_map(|member| String::from_redis_value(member).ok())
            .map(|member| Claim {
                incident: IncidentId(member.strip_suffix(work.suffix()).unwrap_or(&member).to_owned()),
                member,
                token: token.to_owned(),
            })
            .collect();
        Ok(Claimed { now, claims, next: u64::try_from(wait).ok().map(Duration::from_millis) })
    }

    /// Makes a wake-up due at `at` at the latest.
    pub async fn wake_by(&self, work: Work, name: &IncidentId, at: Timestamp) -> Result<(), StoreError> {
        self.wake(work.member(name), at).await
    }

    /// What hangs on the prompt itself is due now.
    pub async fn wake_prompt(&self, prompt: &PromptName) -> Result<(), StoreError> {
        self.wake(Work::Act.member_of(prompt), Timestamp(0)).await
    }

    async fn wake(&self, member: String, at: Timestamp) -> Result<(), StoreError> {
        let mut command = redis::cmd("ZADD");
        command.arg(self.keys.due()).arg("LT").arg(at.0).arg(member);
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    /// Has people told of what came to be known of an incident besides its record.
    pub async fn announce(&self, incident: &Incident) -> Result<(), StoreError> {
        if !self.announces {
            return Ok(());
        }
        let mut command = redis::cmd("ZADD");
        let member = Work::Slack.member(&incident.id);
        command.arg(self.keys.unsent()).arg("NX").arg(self.now().await?.0).arg(member);
        self.link.run::<redis::Value>(&command).await?;
        self.wake_by(Work::Slack, &incident.id, slack_turn(incident)).await
    }

    /// Makes due now whatever waits for minutes at most: a wake-up that comes too early works out anew when it is due. After
    /// Redis' clock went back they would be late by as much. What waits for days by the config (stages of canaries, texts, the
    /// weekly report) is left alone.
    pub async fn hurry(&self) -> Result<usize, StoreError> {
        Ok(self.hurry_in(&self.keys.due()).await? + self.hurry_in(&self.keys.soaks()).await?)
    }

    async fn hurry_in(&self, due: &str) -> Result<usize, StoreError> {
        let now = self.now().await?;
        let (mut left, mut hurried) = (0, 0);
        loop {
            let mut command = redis::cmd("ZRANGEBYSCORE");
            command.arg(due).arg(format!("({}", now.0)).arg("+inf").arg("LIMIT").arg(left).arg(PAGE);
            let page: Vec<String> = self.link.read(&command).await?;
            let soaks = |member: &String| member.ends_with(Work::Soak.suffix());
            let waits = |member: &&String| {
                (member.starts_with(PROMPT) && !soaks(member)) || member.ends_with(Work::Report.suffix())
            };
            let (stay, go): (Vec<_>, Vec<_>) = page.iter().partition(waits);
            if !go.is_empty() {
                let mut command = redis::cmd("ZADD");
                command.arg(due).arg("LT");
                for member in &go {
                    command.arg(now.0).arg(member);
                }
                self.link.run::<redis::Value>(&command).await?;
            }
            left += stay.len();
            hurried += go.len();
            if page.len() < PAGE {
                return Ok(hurried);
            }
        }
    }

    /// For how long the oldest of what Slack is to be told has been waiting.
    pub async fn slack_lag(&self) -> Result<Duration, StoreError> {
        if !self.announces {
            return Ok(Duration::ZERO);
        }
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.keys.unsent()).arg(0).arg(0).arg("WITHSCORES");
        let oldest: Vec<(String, i64)> = self.link.read(&command).await?;
        let Some((_, since)) = oldest.first() else { return Ok(Duration::ZERO) };
        Ok(self.now().await?.since(Timestamp(*since)))
    }

    /// Gives a claim back. `prompt` is the incident's, whose revision tells whether the record changed.
    pub async fn finish(&self, claim: &Claim, prompt: Option<&PromptName>, end: End) -> Result<Finished, StoreError> {
        let keys = &self.keys;
        let state = prompt.map_or_else(|| keys.fence(), |prompt| keys.state(prompt));
        let [due, leased] = Work::of(&claim.member).sets(keys);
        let names = [due, leased, keys.tokens(), keys.attempts(), keys.parked(), state, keys.unsent()];
        let mut call = self.scripts.finish.call(&names);
        let text = |number: Option<i64>| number.map_or_else(String::new, |n| n.to_string());
        call.cmd.arg(&claim.member).arg(&claim.token);
        let (rev, how, next, sent) = match end {
            End::Done { rev, next } => (prompt.and(rev), "done", next, None),
            End::Failed => (None, "failed", None, None),
            End::Left => (None, "left", None, None),
            End::Sent(as_of) => (None, "sent", None, Some(as_of)),
            End::Unsent { next, since } => (None, "unsent", Some(next), since),
        };
        call.cmd.arg(text(rev)).arg(how).arg(text(next.map(|at| at.0)));
        call.cmd.arg(TRIES).arg(millis(FIRST_BACKOFF)).arg(self.clock.ahead()).arg(text(sent.map(|at| at.0)));
        let reply = self.link.run(&call).await?;
        match i64::from_redis_value(reply) {
            Ok(1) => Ok(Finished::Done),
            Ok(2) => Ok(Finished::Again),
            Ok(3) => Ok(Finished::Retried),
            Ok(4) => Ok(Finished::Parked),
            Ok(0) => Ok(Finished::Lost),
            _ => Err(StoreError::unexpected("finish")),
        }
    }
}

/// What Redis TIME was at the last claim, by the process' own clock.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Option<(Instant, Timestamp)>>);

impl Pulse {
    /// A new master's clock may differ by a little, and answers take a moment.
    const TOLERANCE: Duration = Duration::from_secs(5);

    /// Whether Redis' clock went back since [`beat`](Self::beat); if not, this is one.
    fn went_back(&self, now: Timestamp) -> bool {
        let last = *self.last();
        let back = last.is_some_and(|(at, then)| now.plus(Self::TOLERANCE) < then.plus(at.elapsed()));
        if !back {
            self.beat(now);
        }
        back
    }

    fn beat(&self, now: Timestamp) {
        *self.last() = Some((Instant::now(), now));
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, Timestamp)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
