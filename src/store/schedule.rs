//! Wake-ups. Each kind of work has a set of due tasks and a set of leased ones, moved by scripts on Redis TIME, so that
//! every replica may do the work and no task is done twice at once.

mod pulse;
mod work;

use std::time::Duration;

use super::reply::array;
use super::{INCIDENT_RETENTION, Store, StoreError, millis};
use crate::decision::{Incident, IncidentId, PromptName, Severity, Timestamp};
use redis::FromRedisValue;
use tokio::time::Instant;

use pulse::ClockStep;
pub(super) use pulse::Pulse;
pub use work::{Claim, Shows, Subscription, Target, Work, WorkItem};

/// Longest pause that a target may request. Half a minute is usual; a call that comes too early gets another pause.
pub const LONGEST_HOLD: Duration = Duration::from_secs(60);

/// When a notification is due: at once, but a backlog goes by severity, then by time.
pub fn notify_priority(incident: &Incident) -> Timestamp {
    const RANK: Duration = Duration::from_secs(365 * 24 * 3_600);
    let ranks = match incident.severity {
        Severity::Critical => 2,
        Severity::High => 1,
        Severity::Medium => 0,
    };
    incident.opened_at.minus(RANK * ranks)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The time of the claim.
    pub now: Timestamp,
    pub claims: Vec<Claim>,
    /// Whether the claim returned the maximum: there may be more.
    pub full: bool,
    /// The time until the next wake-up may be due; `None` if nothing is scheduled.
    pub next: Option<Duration>,
}

/// The result of returning a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    Done,
    /// The record changed meanwhile: due again at once.
    Again,
    /// It failed and will be tried again.
    Retried,
    /// It failed too often and became a dead letter.
    DeadLettered,
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
    /// Left to a newer receiver, which finds it due soon.
    Left,
    /// The target has shown everything up to this moment.
    Sent(Timestamp),
    /// The target shows the rest at `next`. It has shown everything from before `since`, if that is known.
    Unsent {
        next: Timestamp,
        since: Option<Timestamp>,
    },
}

impl End {
    /// A failed task is retried for a while; a task that this receiver does not understand is left to others.
    pub fn after(error: &StoreError) -> Self {
        match error {
            StoreError::NewerRecord { .. } => Self::Left,
            _ => Self::Failed,
        }
    }
}

/// At least twice the longest external call, which takes 10 s.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often workers look for work at least: another replica may have scheduled something earlier.
pub const IDLE: Duration = Duration::from_secs(1);
/// Attempts before a wake-up becomes a dead letter.
const TRIES: u32 = 10;
/// The first back-off. It doubles each time, so ten attempts take about eight minutes.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest back-off of a notification.
const LAST_BACKOFF: Duration = Duration::from_secs(1 << (TRIES - 2));
/// Wake-ups examined by one command.
const PAGE: usize = 1_000;

impl Store {
    /// Claims up to `most` due wake-ups of this kind. `token` identifies the claimer.
    pub async fn claim(&self, work: Work, most: usize, lease: Duration, token: &str) -> Result<Claimed, StoreError> {
        let keys = &self.keys;
        let mixed = [keys.due(Work::Incident), keys.leased(Work::Incident)];
        let mut names = vec![keys.due(work), keys.leased(work), keys.tokens(), self.unsent_of(work)];
        names.extend(mixed);
        let sorts = if work == Work::Incident { Work::ONCE_MIXED.as_slice() } else { &[] };
        names.extend(sorts.iter().map(|other| keys.due(*other)));
        let mut call = self.scripts.claim.call(&names);
        let passed = self.clock.passed();
        call.cmd.arg(work.suffix()).arg(most).arg(millis(lease)).arg(token).arg(self.clock.ahead());
        match work {
            Work::Notify(_) => call.cmd.arg(millis(LAST_BACKOFF.max(LONGEST_HOLD))),
            _ => call.cmd.arg(""),
        };
        // wake-ups of targets that are no longer configured stay
        match work {
            Work::Notify(target) if target != Target::FIRST => call.cmd.arg(millis(INCIDENT_RETENTION)),
            _ => call.cmd.arg(""),
        };
        for other in sorts {
            call.cmd.arg(other.suffix());
        }
        let reply = self.link.run(&call).await?;
        let at = Instant::now();
        let unexpected = || StoreError::unexpected("claim");
        let mut items = array(reply).ok_or_else(unexpected)?.into_iter();
        let mut number = || items.next().and_then(|v| i64::from_redis_value(v).ok()).ok_or_else(unexpected);
        let (now, shortened, wait) = (Timestamp(number()?), number()?, number()?);
        if shortened > 0 {
            tracing::warn!(
                shortened,
                "leases or wake-ups were too far in the future (did Redis' clock go back?): shortened"
            );
        }
        let clock = Timestamp(now.0 - passed);
        match self.pulse.step(at, clock) {
            None => self.pulse.beat(at, clock),
            Some(ClockStep::Back(by)) => {
                let hurried = self.hurry().await.inspect(|_| self.pulse.went_back(at, clock));
                tracing::warn!(?by, ?hurried, "Redis' clock moved backwards: pending tasks are due now");
            }
            Some(ClockStep::Ahead(by)) => {
                self.pulse.jumped(at, clock, now);
                tracing::warn!(
                    ?by,
                    "Redis' clock jumped ahead: running stages, soaks and checks end later by the same amount"
                );
            }
        }
        let claims: Vec<Claim> = items
            .filter_map(|member| String::from_redis_value(member).ok())
            .map(|member| Claim { work, item: work.item(&member), token: token.to_owned() })
            .collect();
        let full = claims.len() == most;
        Ok(Claimed { now, claims, full, next: u64::try_from(wait).ok().map(Duration::from_millis) })
    }

    /// Makes a wake-up due at `at` or earlier.
    pub async fn wake_by(&self, work: Work, item: &WorkItem, at: Timestamp) -> Result<(), StoreError> {
        self.wake(work, "LT", item, at).await
    }

    /// Makes a wake-up due at `at`, unless one is scheduled.
    pub async fn wake_unless_scheduled(&self, work: Work, item: &WorkItem, at: Timestamp) -> Result<(), StoreError> {
        self.wake(work, "NX", item, at).await
    }

    async fn wake(&self, work: Work, how: &str, item: &WorkItem, at: Timestamp) -> Result<(), StoreError> {
        let mut command = redis::cmd("ZADD");
        command.arg(self.keys.due(work)).arg(how).arg(at.0).arg(work.member(item));
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    /// Schedules notifications about an incident, or a coordinating one, that no commit schedules: its news are not in
    /// its record, or its last commit scheduled none.
    pub async fn notify_again(&self, id: &IncidentId, priority: Timestamp) -> Result<(), StoreError> {
        let item = WorkItem::Incident(id.clone());
        for subscription in self.subscriptions(Shows::Records) {
            let (target, work) = (subscription.target, subscription.work());
            let mut command = redis::cmd("ZADD");
            command.arg(self.keys.unsent(target)).arg("NX").arg(self.now().await?.0).arg(work.member(&item));
            self.link.run::<redis::Value>(&command).await?;
            self.wake_by(work, &item, priority).await?;
        }
        Ok(())
    }

    /// The targets that subscribe to this.
    pub(super) fn subscriptions(&self, shows: Shows) -> impl Iterator<Item = Subscription> {
        self.targets.iter().copied().filter(move |subscription| subscription.shows == shows)
    }

    /// The set that lists the pending updates of a target. For other kinds of work, a set that is not used.
    fn unsent_of(&self, work: Work) -> String {
        self.keys.unsent(match work {
            Work::Notify(target) => target,
            _ => Target::FIRST,
        })
    }

    /// Makes tasks due now, because after a step back of Redis' clock they would be late by as much. A task that is woken early
    /// computes its time again. Content and the weekly report may be late, so they are left alone.
    pub async fn hurry(&self) -> Result<usize, StoreError> {
        let mut hurried = 0;
        // also the first target's, because an earlier receiver, or one with other settings, may continue it
        let further = self.targets.iter().map(|to| to.work()).filter(|work| *work != Work::Notify(Target::FIRST));
        let all = Work::OWN.into_iter().chain([Work::Notify(Target::FIRST)]).chain(further);
        for work in all.filter(|work| !work.may_be_late()) {
            hurried += self.hurry_kind(work).await?;
        }
        self.rewind_budget().await?;
        Ok(hurried)
    }

    /// Gives automatic rollbacks with a time in the future the present time. After a step back of Redis' clock, they would
    /// otherwise count against the budget for longer, by as much.
    async fn rewind_budget(&self) -> Result<(), StoreError> {
        let now = self.now().await?;
        let later = self.automatic_since(now).await?;
        if later.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("ZADD");
        command.arg(self.keys.automatic()).arg("XX").arg("LT");
        for (prompt, _) in &later {
            command.arg(now.0).arg(prompt.as_str());
        }
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    async fn hurry_kind(&self, work: Work) -> Result<usize, StoreError> {
        let due = self.keys.due(work);
        let now = self.now().await?;
        let mut hurried = 0;
        loop {
            let mut command = redis::cmd("ZRANGEBYSCORE");
            command.arg(&due).arg(format!("({}", now.0)).arg("+inf").arg("LIMIT").arg(0).arg(PAGE);
            let page: Vec<String> = self.link.read(&command).await?;
            if page.is_empty() {
                return Ok(hurried);
            }
            let mut command = redis::cmd("ZADD");
            command.arg(&due).arg("LT");
            for member in &page {
                command.arg(now.0).arg(member);
            }
            self.link.run::<redis::Value>(&command).await?;
            hurried += page.len();
        }
    }

    /// When a wait really ends that began at `since` and is to end at `due`, if Redis' clock passed `due` only by a
    /// jump. `None`: it has ended, or is not due by the clock either.
    pub fn still_lasts(&self, since: Timestamp, due: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let over = due.plus(self.pulse.jumps_since(since));
        (due <= now && now < over).then_some(over)
    }

    /// How late the oldest wake-up of each of these kinds is.
    pub async fn work_lag(&self, works: &[Work]) -> Result<Vec<Duration>, StoreError> {
        let mut pipeline = redis::pipe();
        for work in works {
            pipeline.cmd("ZRANGE").arg(self.keys.due(*work)).arg(0).arg(0).arg("WITHSCORES");
        }
        let oldest: Vec<Vec<(String, i64)>> = self.link.read(&pipeline).await?;
        let now = self.now().await?;
        Ok(oldest
            .iter()
            .map(|found| found.first().map_or(Duration::ZERO, |(_, at)| now.since(Timestamp(*at))))
            .collect())
    }

    /// The age of the oldest pending update of each target.
    pub async fn notification_lags(&self) -> Result<Vec<(Target, Duration)>, StoreError> {
        if self.targets.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for Subscription { target, .. } in self.targets.iter() {
            pipeline.cmd("ZRANGE").arg(self.keys.unsent(*target)).arg(0).arg(0).arg("WITHSCORES");
        }
        let oldest: Vec<Vec<(String, i64)>> = self.link.read(&pipeline).await?;
        let now = self.now().await?;
        let lag =
            |found: &Vec<(String, i64)>| found.first().map_or(Duration::ZERO, |(_, at)| now.since(Timestamp(*at)));
        Ok(self.targets.iter().map(|subscription| subscription.target).zip(oldest.iter().map(lag)).collect())
    }

    /// The age of the oldest pending update of this target; `None` if it is not configured.
    pub async fn notification_lag(&self, target: Target) -> Result<Duration, StoreError> {
        let lags = self.notification_lags().await?.into_iter();
        Ok(lags.filter(|(of, _)| *of == target).map(|(_, lag)| lag).next().unwrap_or_default())
    }

    /// Returns a claim. `prompt` is the incident's prompt, whose revision shows whether the record changed.
    pub async fn finish(&self, claim: &Claim, prompt: Option<&PromptName>, end: End) -> Result<Finished, StoreError> {
        let keys = &self.keys;
        let state = prompt.map_or_else(|| keys.wait_for_replicas(), |prompt| keys.state(prompt));
        let [due, leased] = [keys.due(claim.work), keys.leased(claim.work)];
        let names =
            [due, leased, keys.tokens(), keys.attempts(), keys.dead_letters(), state, self.unsent_of(claim.work)];
        let mut call = self.scripts.finish.call(&names);
        let text = |number: Option<i64>| number.map_or_else(String::new, |n| n.to_string());
        call.cmd.arg(claim.member()).arg(&claim.token);
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
            Ok(4) => Ok(Finished::DeadLettered),
            Ok(0) => Ok(Finished::Lost),
            _ => Err(StoreError::unexpected("finish")),
        }
    }
}
