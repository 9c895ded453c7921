//! The guards: what holds an automatic rollback, in the order in which they are checked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::encoding::words;
use super::names::VersionName;
use super::operator::Operator;
use super::policy::Policy;
use super::serving::Lapsed;
use super::time::spoken;

words! {
    /// Why a rollback waits for a person. The first guard that applies is named.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Guard {
        /// A person paused automation, for this prompt or for all prompts.
        Paused = "paused",
        /// `guards.mode = "dry-run"`.
        DryRun = "dry_run",
        /// Someone SET `active` to a value that is not a version.
        ForeignValue = "foreign_value",
        /// Someone deleted `active`.
        KeyDeleted = "key_deleted",
        /// There is no rollback target.
        NoKnownGood = "no_known_good",
        /// An alert fires on the rollback target.
        TargetUnhealthy = "target_unhealthy",
        /// The version was activated by a recent rollback.
        Cooldown = "cooldown",
        /// Many prompts were rolled back recently, which suggests a provider outage, or a person has put all prompts on
        /// hold because of one.
        Budget = "budget",
        /// Someone reactivated it after each of several rollbacks: they want it to serve.
        KeepsReturning = "keeps_returning",
        /// The alert began before the version was activated, so it may be about something else.
        PredatesActivation = "predates_activation",
        /// The version has been healthy for a long time, so the cause is more likely the model, the provider or a tool
        /// than the prompt. It comes after the budget, so that one incident covers many such prompts that fail
        /// together.
        ServedLong = "served_long",
        /// Prometheus was asked again and did not confirm the alert. Known only after the answer, so it is not checked
        /// here.
        Unconfirmed = "unconfirmed",
    }
}

/// The guard that holds a rollback, with the figures that people need to decide.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub guard: Guard,
    pub detail: String,
}

/// A guard that holds now, as a rehearsal shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldingGuard {
    pub held: Held,
    /// How long it still holds, if time alone ends it.
    pub left: Option<Duration>,
}

/// The facts that the guards need about a rollback from `from`.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub from: &'a VersionName,
    /// Who paused automation, and why.
    pub paused: Option<&'a str>,
    /// Set while `active` holds no version.
    pub lapsed: Option<&'a Lapsed>,
    pub target: Option<&'a VersionName>,
    /// Which version is not a target because people moved away from it while an incident was open.
    pub fled: Option<String>,
    /// Why the target may be no better.
    pub target_trouble: Option<String>,
    /// How long ago a rollback activated `from`.
    pub put_there: Option<Duration>,
    /// How many other prompts were rolled back automatically within the budget's window.
    pub recent_auto: u32,
    /// Who put all prompts on hold because of an outage.
    pub outage_hold: Option<&'a str>,
    /// Who keeps reactivating `from`, and how often.
    pub returns: Option<(&'a Operator, usize)>,
    /// By how much the alerts began before `from` got its traffic.
    pub predates: Option<Duration>,
    /// How long `from` has had traffic, if it serves alone, has the larger share, or is the base of a canary.
    pub served_for: Option<Duration>,
    /// The version with which it shares the traffic.
    pub beside: Option<&'a VersionName>,
}

impl Guard {
    /// Whether a person turned automation off, whatever the state of the prompt.
    pub fn is_off(self) -> bool {
        matches!(self, Guard::Paused | Guard::DryRun)
    }

    /// Whether only a new event or a person ends the hold, and a repeat of the alert does not.
    pub fn waits_for_news(self) -> bool {
        matches!(self, Guard::Unconfirmed | Guard::KeepsReturning)
    }

    /// How long this guard still holds, if time alone ends it.
    fn left(self, facts: &Facts<'_>, policy: &Policy) -> Option<Duration> {
        let age = facts.put_there.filter(|_| self == Guard::Cooldown)?;
        policy.cooldown.checked_sub(age)
    }

    /// Returns why this guard holds the rollback, if it does.
    fn holds(self, facts: &Facts<'_>, policy: &Policy) -> Option<String> {
        let Facts {
            from,
            paused,
            lapsed,
            target,
            target_trouble,
            fled,
            put_there,
            recent_auto,
            outage_hold,
            returns,
            predates,
            served_for,
            beside,
        } = facts;
        match self {
            Guard::Paused => paused.map(|who| format!("automation is paused ({who})")),
            Guard::DryRun => policy.dry_run.then(|| "dry run: no automatic rollbacks".to_owned()),
            Guard::ForeignValue => lapsed.filter(|lapsed| lapsed.holds.is_some()).map(Lapsed::fault),
            Guard::KeyDeleted => lapsed.filter(|lapsed| lapsed.holds.is_none()).map(Lapsed::fault),
            Guard::NoKnownGood => target.is_none().then(|| {
                let fled = fled.as_ref().map(|fled| format!("; {fled}")).unwrap_or_default();
                format!("no known-good version other than {from} exists{fled}")
            }),
            Guard::TargetUnhealthy => target_trouble.clone(),
            Guard::Cooldown => put_there.filter(|age| *age < policy.cooldown).map(|age| {
                let (age, cooldown) = (spoken(age), spoken(policy.cooldown));
                format!("{from} was activated by a rollback {age} ago (cooldown {cooldown})")
            }),
            Guard::Budget if policy.max_auto_rollbacks == 0 => {
                Some("automatic rollbacks are off (max_auto_rollbacks = 0)".to_owned())
            }
            // with the budget, so that the prompt joins the outage, and is put on hold with the others
            Guard::Budget => match outage_hold {
                Some(who) => Some(format!("{who} has put all prompts on hold: provider outage")),
                None => (*recent_auto >= policy.max_auto_rollbacks).then(|| {
                    let (window, max) = (spoken(policy.budget_window), policy.max_auto_rollbacks);
                    format!(
                        "{recent_auto} other prompts were rolled back within {window} (at most {max}): \
                         this looks like a provider outage"
                    )
                }),
            },
            Guard::KeepsReturning => returns.map(|(operator, times)| {
                let window = spoken(Policy::RETURN_WINDOW);
                format!("{operator} has reactivated {from} {times} times within {window} after rollbacks")
            }),
            Guard::PredatesActivation => predates.map(|by| {
                let by = spoken(by);
                format!("the alert began {by} before {from} got traffic: it may be about another version or an earlier fault")
            }),
            Guard::ServedLong => {
                let longest = policy.ask_when_active_for_longer_than?;
                let served = served_for.filter(|served| *served > longest)?;
                let changed = match beside {
                    None => "nothing about the prompt has changed".to_owned(),
                    Some(other) => format!("the only other change is {other}"),
                };
                Some(format!("{from} has served for {}; {changed}", in_days(served)))
            }
            Guard::Unconfirmed => None,
        }
    }
}

/// Formats a long duration in days.
fn in_days(time: Duration) -> String {
    match time.as_secs() / 86_400 {
        0 => spoken(time),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

impl Facts<'_> {
    /// The first of these guards that holds the rollback.
    pub fn held(&self, policy: &Policy, asked: fn(Guard) -> bool) -> Option<Held> {
        self.holding(policy, asked).next().map(|holding| holding.held)
    }

    /// All of these guards that hold the rollback.
    pub fn holding(&self, policy: &Policy, asked: fn(Guard) -> bool) -> impl Iterator<Item = HoldingGuard> {
        Guard::ALL.into_iter().filter(move |guard| asked(*guard)).filter_map(move |guard| {
            let held = Held { guard, detail: guard.holds(self, policy)? };
            Some(HoldingGuard { held, left: guard.left(self, policy) })
        })
    }
}
