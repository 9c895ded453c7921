//! What Prometheus measures about every version, for people who look at many prompts. A request reads the latest
//! answer and never waits for one: a worker asks Prometheus, and only while somebody looks.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::decision::{PromptName, words};

/// How often Prometheus is asked while somebody looks.
pub const EVERY: Duration = Duration::from_secs(15);
/// An older answer is not shown, because the worker asks only while somebody looks.
const EXPIRES: Duration = Duration::from_secs(60);
/// Points of a line, and the time between two of them: an hour together.
pub const POINTS: usize = 30;
pub const STEP: Duration = Duration::from_secs(120);

/// What is measured of each version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    Errors,
    P99,
    Quality,
}

impl Signal {
    pub const ALL: [Self; 3] = [Signal::Errors, Signal::P99, Signal::Quality];

    pub fn label(self) -> &'static str {
        match self {
            Signal::Errors => "Errors",
            Signal::P99 => "p99",
            Signal::Quality => "Quality",
        }
    }

    /// Its name in the recorded series.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Errors => "errors",
            Signal::P99 => "p99",
            Signal::Quality => "quality",
        }
    }

    /// Where the shipped rules begin to observe or ask, and where the most severe one begins: the error ratio, the p99
    /// as a multiple of its baseline, and the drop of quality against its baseline.
    pub fn limits(self) -> (f64, f64) {
        match self {
            Signal::Errors => (0.02, 0.05),
            Signal::P99 => (1.2, 2.0),
            Signal::Quality => (0.1, 0.2),
        }
    }
}

words! {
    /// Whether the alert rules can judge a signal of a version. In the order of their numbers in the recording rules.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Coverage {
        /// No rule about the signal can fire.
        Blind = "blind",
        /// Fewer requests or scores than any rule about the signal needs.
        TooLittle = "too_little",
        /// Scrapes are so far apart that only the five-minute window counts.
        Slow = "slow",
        /// There is nothing to compare with yet.
        NoBaseline = "no_baseline",
        Measured = "measured",
    }
}

impl Coverage {
    /// From the value of `prompt_version_signal:coverage:state`.
    pub fn of(value: f64) -> Option<Self> {
        (0_u8..).zip(Self::ALL).find_map(|(state, coverage)| (f64::from(state) == value).then_some(coverage))
    }
}

/// One signal of one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figure {
    /// `None`: not known, or the version is not active, or its prompt has no scores.
    pub coverage: Option<Coverage>,
    pub now: Option<f64>,
    /// What it is compared with.
    pub baseline: Option<f64>,
    /// The last hour, oldest first; NaN where nothing was measured.
    pub line: Vec<f64>,
}

/// How far a figure is from its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rating {
    Fine,
    /// Above the limit of a rule that asks people.
    Watch,
    Bad,
}

impl Figure {
    /// `None`: nothing is measured now, there is nothing to compare it with, or no rule could tell that it is not fine.
    pub fn rating(&self, signal: Signal) -> Option<Rating> {
        let (watch, bad) = signal.limits();
        Some(match self.excess(signal)? {
            excess if excess > bad => Rating::Bad,
            excess if excess > watch => Rating::Watch,
            _ if self.is_blind() => return None,
            _ => Rating::Fine,
        })
    }

    pub fn is_blind(&self) -> bool {
        self.coverage == Some(Coverage::Blind)
    }

    /// What is compared with the limits of the signal.
    pub fn excess(&self, signal: Signal) -> Option<f64> {
        let now = self.now.filter(|now| now.is_finite())?;
        let baseline = self.baseline.filter(|baseline| *baseline > 0.0);
        let excess = match signal {
            Signal::Errors => now,
            Signal::P99 => now / baseline?,
            Signal::Quality => 1.0 - now / baseline?,
        };
        // as the rules do: in floating point, a drop of exactly 10 % may exceed 0.1
        Some((excess * 1e6).round() / 1e6)
    }
}

/// What is measured of one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VersionFigures {
    /// Requests of the last five minutes.
    pub requests: Option<f64>,
    /// Prompt servers that have served it within the last minutes.
    pub servers: Option<f64>,
    pub figures: [Figure; 3],
}

/// Requests in five minutes below which no rule about errors fires.
pub const ENOUGH: f64 = 20.0;

/// The health of a version, as far as it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// Prometheus does not answer, has no series of this version, or counts its requests and measures nothing of them; or no rule
    /// can judge its errors.
    Blind,
    /// Fewer requests than a rule needs.
    TooLittle,
    Measured(Rating),
}

impl VersionFigures {
    pub fn of(&self, signal: Signal) -> &Figure {
        &self.figures[signal as usize]
    }

    pub fn of_mut(&mut self, signal: Signal) -> &mut Figure {
        &mut self.figures[signal as usize]
    }

    pub fn health(&self) -> Health {
        let worst = Signal::ALL.into_iter().filter_map(|signal| self.of(signal).rating(signal)).max();
        match (worst, self.requests) {
            (None | Some(Rating::Fine), _) if self.of(Signal::Errors).is_blind() => Health::Blind,
            (Some(rating), _) => Health::Measured(rating),
            (None, Some(requests)) if self.has_too_little(requests) => Health::TooLittle,
            (None, _) => Health::Blind,
        }
    }

    /// As the rules say, or by the number of requests where they say nothing.
    fn has_too_little(&self, requests: f64) -> bool {
        let said: Vec<Coverage> = self.figures.iter().filter_map(|figure| figure.coverage).collect();
        if said.is_empty() { requests < ENOUGH } else { said.contains(&Coverage::TooLittle) }
    }
}

/// One answer about all versions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// By the encoded form of the prompt's name.
    versions: HashMap<String, HashMap<String, VersionFigures>>,
    /// Why some of it is missing.
    pub fault: Option<String>,
    /// Why the servers of each version are not counted.
    pub servers_fault: Option<String>,
    /// Whether the lines of the last hour are still being read.
    pub lines_awaited: bool,
}

impl Figures {
    /// How many prompts there are.
    pub fn prompts(&self) -> usize {
        self.versions.len()
    }

    /// By the encoded form of the prompt's name.
    pub fn of(&self, prompt: &str, version: &str) -> Option<&VersionFigures> {
        self.versions.get(prompt)?.get(version)
    }

    /// The versions of a prompt that servers have served within the last minutes, and how many servers: the most first.
    pub fn servers(&self, prompt: &str) -> Vec<(&str, f64)> {
        let versions = self.versions.get(prompt).into_iter().flatten();
        let served = versions.filter_map(|(version, figures)| Some((version.as_str(), figures.servers?)));
        let mut served: Vec<_> = served.filter(|(_, servers)| *servers > 0.0).collect();
        served.sort_by(|(one, fewer), (other, more)| more.total_cmp(fewer).then(one.cmp(other)));
        served
    }

    /// The prompts of which a version's health differs from `before`, or whose servers serve several versions and did not, or no
    /// longer do.
    pub fn changed_since(&self, before: &Self) -> Vec<PromptName> {
        let health = |of: &Self, prompt: &str, version: &str| of.of(prompt, version).map(VersionFigures::health);
        let differs = |prompt: &str, versions: &HashMap<String, VersionFigures>| {
            versions.keys().any(|version| health(self, prompt, version) != health(before, prompt, version))
                || self.served_together(prompt) != before.served_together(prompt)
        };
        let each = [self, before].into_iter().flat_map(|figures| &figures.versions);
        let changed = each.filter(|&(prompt, versions)| differs(prompt, versions));
        let prompts: BTreeSet<&String> = changed.map(|(prompt, _)| prompt).collect();
        prompts.into_iter().filter_map(|prompt| PromptName::parse(prompt).ok()).collect()
    }

    /// The versions that servers serve while a change spreads. None if all serve one: with little traffic, it comes and goes.
    fn served_together(&self, prompt: &str) -> BTreeSet<&str> {
        let served: BTreeSet<&str> = self.servers(prompt).into_iter().map(|(version, _)| version).collect();
        if served.len() > 1 { served } else { BTreeSet::new() }
    }

    /// Whether values of health are missing, and numbers of servers.
    fn missing(&self) -> [bool; 2] {
        [self.fault.is_some(), self.servers_fault.is_some()]
    }

    /// Notes why some of it is missing. The first reason is shown.
    pub fn note(&mut self, error: Option<impl ToString>) {
        if self.fault.is_none() {
            self.fault = error.map(|error| error.to_string());
        }
    }

    pub fn entry(&mut self, prompt: &PromptName, version: &str) -> &mut VersionFigures {
        let prompt = prompt.as_str();
        // most entries are there: no names are copied for them
        if !self.versions.get(prompt).is_some_and(|versions| versions.contains_key(version)) {
            let versions = self.versions.entry(prompt.to_owned()).or_default();
            versions.insert(version.to_owned(), VersionFigures::default());
        }
        let versions = self.versions.entry(prompt.to_owned()).or_default();
        versions.entry(version.to_owned()).or_default()
    }
}

/// What open pages are told about the latest answers.
#[derive(Debug, Default)]
pub struct FigureNews {
    latest: Arc<Figures>,
    /// The prompts that each of the latest answers changed; `None`: all, because each page says what is missing.
    changed: VecDeque<Option<Vec<PromptName>>>,
}

impl FigureNews {
    /// Pages are told of a change with so many answers. What a page then reads may come from another receiver, whose latest answer
    /// is older, and which may ask for the next one only because of that page.
    const TELLS: usize = 3;

    /// The number of prompts in the latest answer.
    pub fn prompts(&self) -> usize {
        self.latest.prompts()
    }

    /// The prompts of which pages are told with this answer; `None`: all.
    pub fn add(&mut self, figures: Arc<Figures>) -> Option<BTreeSet<PromptName>> {
        let lacks_the_same = figures.missing() == self.latest.missing();
        let changed = lacks_the_same.then(|| figures.changed_since(&self.latest));
        self.latest = figures;
        self.changed.push_back(changed);
        if self.changed.len() > Self::TELLS {
            self.changed.pop_front();
        }
        self.changed.iter().try_fold(BTreeSet::new(), |mut all, changed| {
            all.extend(changed.as_ref()?.iter().cloned());
            Some(all)
        })
    }
}

/// What is known about all versions.
#[derive(Debug, Clone, Default)]
pub enum Known {
    /// No Prometheus is configured.
    #[default]
    NotMeasured,
    /// Prometheus is being asked.
    Awaited,
    Since(Instant, Arc<Figures>),
}

impl Known {
    /// Whether more will be known soon.
    pub fn is_awaited(&self) -> bool {
        match self {
            Known::NotMeasured => false,
            Known::Awaited => true,
            Known::Since(_, figures) => figures.lines_awaited,
        }
    }
}

/// The latest answer, and requests for the next one. Clones share both.
#[derive(Debug, Clone, Default)]
pub struct FigureBook(Arc<FigureState>);

#[derive(Debug, Default)]
struct FigureState {
    latest: RwLock<Option<(Instant, Option<Arc<Figures>>)>>,
    wanted: Notify,
    published: Notify,
}

impl FigureBook {
    /// What is known. Requests another answer if it is old.
    pub fn look(&self) -> Known {
        let latest = self.latest();
        let age = latest.as_ref().map(|(at, _)| at.elapsed());
        if age.is_none_or(|age| age >= EVERY) {
            self.0.wanted.notify_one();
        }
        match latest.filter(|(at, _)| at.elapsed() < EXPIRES) {
            None => Known::Awaited,
            Some((_, None)) => Known::NotMeasured,
            Some((at, Some(figures))) => Known::Since(at, figures),
        }
    }

    /// Whether somebody who looks has to wait.
    pub fn is_awaited(&self) -> bool {
        self.latest().is_none_or(|(at, _)| at.elapsed() >= EXPIRES)
    }

    fn latest(&self) -> Option<(Instant, Option<Arc<Figures>>)> {
        self.0.latest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is known after at most this long.
    pub async fn within(&self, patience: Duration) -> Known {
        let published = self.0.published.notified();
        match self.look() {
            Known::Awaited => {
                // without an answer in time nothing is known, as before
                let _ = timeout(patience, published).await;
                self.look()
            }
            known => known,
        }
    }

    /// Completes once somebody has looked at an old answer, or at none.
    pub async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    /// `None`: no Prometheus is configured.
    pub fn publish(&self, figures: Option<Arc<Figures>>) {
        let latest = Some((Instant::now(), figures));
        *self.0.latest.write().unwrap_or_else(PoisonError::into_inner) = latest;
        self.0.published.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
