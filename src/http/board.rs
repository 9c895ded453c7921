//! What the page says about all prompts: which of them need a person, and in which order they are shown. Read from
//! Redis at most once a second, for all pages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio::try_join;

use crate::decision::{Incident, IncidentId, PhaseKind, PromptName, Timestamp};
use crate::elsewhere;
use crate::engine::Engine;
use crate::http::views::fault;
use crate::store::{ListedPrompt, OpenIncidents, StoreError, VersionSeries};

/// How long a reading is used, from its beginning: a page that got one from before a change asks again after this time.
const FRESH: Duration = Duration::from_secs(1);
/// Open incidents that are considered; the prompts of others are sorted by name.
const MOST_INCIDENTS: usize = 2_000;

/// Prompts that may be broken whose state is read for the order. If Redis has lost the keys of more, the others count as broken.
const MOST_LOADED: usize = 500;

/// How often prompts with traffic are searched for those that cannot be read: it takes long compared to a reading.
const SEARCH_EVERY: Duration = Duration::from_secs(10);

/// Prompts whose traffic is read: all. `metrics.max_prompts` limits metrics only.
const ALL: usize = u32::MAX as usize;

/// Why a prompt has its place in the list, the most urgent reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// A person must decide, if possible by this time.
    Question(Option<Timestamp>),
    Escalated,
    Pages,
    /// No version can be served: its key was deleted, or holds something else.
    Fault,
    Open,
    Rollout,
    Nothing,
}

impl Concern {
    fn of(incident: &Incident) -> Self {
        match incident.phase.kind() {
            PhaseKind::AwaitingDecision if incident.deadline().is_some() && !incident.is_held_back() => {
                // the deadline of an overdue question is its next escalation
                Concern::Question(
                    incident.deadline().map(|at| if incident.is_overdue() { incident.opened_at } else { at }),
                )
            }
            PhaseKind::Escalated => Concern::Escalated,
            _ if incident.pages() => Concern::Pages,
            PhaseKind::AwaitingDecision => Concern::Question(None),
            _ => Concern::Open,
        }
    }

    pub fn needs_person(self) -> bool {
        self <= Concern::Fault
    }

    /// Questions with a deadline come first, the earliest first; one without comes after all that is worse.
    fn place(self) -> (u8, i64) {
        match self {
            Concern::Question(Some(by)) => (0, by.0),
            Concern::Escalated => (1, 0),
            Concern::Pages => (2, 0),
            Concern::Fault => (3, 0),
            Concern::Question(None) => (4, 0),
            Concern::Open => (5, 0),
            Concern::Rollout => (6, 0),
            Concern::Nothing => (7, 0),
        }
    }
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub prompt: PromptName,
    pub concern: Concern,
    /// An incident of it is open.
    pub open: bool,
    /// Its traffic is split.
    pub rollout: bool,
    pub paused: bool,
}

/// All prompts, in the order in which they are shown.
#[derive(Debug, Default)]
pub struct Index {
    pub entries: Vec<Entry>,
    /// Prefixes of names before a `/`, in their encoded form, and how many prompts have them.
    pub groups: Vec<(String, usize)>,
    pub paused_for_all: Option<String>,
    pub outage: Option<IncidentId>,
    /// Whether there are more open incidents than were read.
    pub partial: bool,
}

/// The prompts that had traffic when they could last be read, and cannot be read now.
#[derive(Debug, Clone, Default)]
struct FaultSearch {
    /// When all were searched.
    at: Option<Instant>,
    found: Vec<PromptName>,
}

/// All prompts, when their reading began, and when it ended.
#[derive(Debug)]
struct IndexReading {
    index: Arc<Index>,
    search: FaultSearch,
    began: Instant,
    ended: Instant,
}

impl IndexReading {
    /// Whether it answers a request of `asked`, now: it is fresh, or the request has waited for it.
    fn serves(&self, asked: Instant, now: Instant) -> bool {
        now.duration_since(self.began) < FRESH || asked < self.ended
    }
}

/// The latest reading.
#[derive(Debug, Default)]
pub struct Board(Mutex<Option<IndexReading>>);

impl Board {
    /// The latest reading, or a new one, which all waiting requests share; and how long before the request it began, if
    /// it did.
    pub async fn index(&self, engine: &Engine) -> Result<(Arc<Index>, Option<Duration>), StoreError> {
        let asked = Instant::now();
        let mut latest = self.0.lock().await;
        let began = Instant::now();
        if let Some(reading) = latest.as_ref().filter(|reading| reading.serves(asked, began)) {
            return Ok((Arc::clone(&reading.index), asked.checked_duration_since(reading.began)));
        }
        let search = latest.as_ref().map(|reading| reading.search.clone()).unwrap_or_default();
        let (index, search) = read(engine, search).await?;
        let index = Arc::new(index);
        *latest = Some(IndexReading { index: Arc::clone(&index), search, began, ended: Instant::now() });
        Ok((index, None))
    }
}

async fn read(engine: &Engine, search: FaultSearch) -> Result<(Index, FaultSearch), StoreError> {
    let store = &engine.store;
    let reads = try_join!(
        store.prompt_names(),
        store.open_incidents(MOST_INCIDENTS),
        store.paused_prompts(),
        store.paused_by(None),
        store.open_outage(),
        store.series(ALL),
    );
    let (names, open, paused, paused_for_all, outage, (series, _)) = reads?;
    let mut faults = faults(engine, &names, &series).await?;
    let search = search_served(engine, &names, &series, search).await?;
    faults.extend(search.found.iter().map(ToString::to_string));
    let index = elsewhere::run(move || build(names, &open, &paused, &series, &faults)).await;
    Ok((Index { paused_for_all, outage, ..index }, search))
}

/// Those without traffic whose key was deleted or holds no version, or whose state cannot be read.
async fn faults(
    engine: &Engine,
    names: &[PromptName],
    series: &[VersionSeries],
) -> Result<BTreeSet<String>, StoreError> {
    let served: BTreeSet<&str> = series.iter().map(|served| served.prompt.as_str()).collect();
    let idle: Vec<PromptName> = names.iter().filter(|name| !served.contains(name.as_str())).cloned().collect();
    let mut broken = engine.store.broken(&idle).await?;
    let others = broken.split_off(broken.len().min(MOST_LOADED));
    let listed = engine.store.rows(broken, engine.policy.budget_window).await?;
    let is_fault = |one: &ListedPrompt| one.loaded.as_ref().map_or(true, |loaded| fault(&loaded.snapshot).is_some());
    let loaded = listed.into_iter().filter(is_fault).map(|one| one.prompt);
    Ok(loaded.chain(others).map(|prompt| prompt.to_string()).collect())
}

/// Those with traffic that cannot be read: while a key is of another type, nothing is stored about a prompt, so its
/// last known traffic stays. Those that were found before are read again.
async fn search_served(
    engine: &Engine,
    names: &[PromptName],
    series: &[VersionSeries],
    search: FaultSearch,
) -> Result<FaultSearch, StoreError> {
    let now = Instant::now();
    let (at, mut suspects) = if search.at.is_none_or(|at| now.duration_since(at) >= SEARCH_EVERY) {
        let served: BTreeSet<&str> = series.iter().map(|served| served.prompt.as_str()).collect();
        let served: Vec<PromptName> = names.iter().filter(|name| served.contains(name.as_str())).cloned().collect();
        (Some(now), engine.store.broken(&served).await?)
    } else {
        (search.at, search.found)
    };
    suspects.truncate(MOST_LOADED);
    let listed = engine.store.rows(suspects, engine.policy.budget_window).await?;
    // what a newer receiver wrote is no fault
    let is_broken = |one: &ListedPrompt| matches!(one.loaded, Err(StoreError::Broken { .. }));
    Ok(FaultSearch { at, found: listed.into_iter().filter(is_broken).map(|one| one.prompt).collect() })
}

/// The prefix of a name before a `/`, in its encoded form.
pub fn group(prompt: &PromptName) -> Option<PromptName> {
    PromptName::of(prompt.name().split_once('/')?.0).ok()
}

/// The groups of these prompts, and how many prompts each has.
pub fn groups<'a>(names: impl Iterator<Item = &'a PromptName>) -> Vec<(String, usize)> {
    let mut groups: BTreeMap<String, usize> = BTreeMap::new();
    for group in names.filter_map(group) {
        *groups.entry(group.to_string()).or_default() += 1;
    }
    groups.into_iter().collect()
}

fn build(
    names: Vec<PromptName>,
    open: &OpenIncidents,
    paused: &BTreeMap<String, String>,
    series: &[VersionSeries],
    faults: &BTreeSet<String>,
) -> Index {
    let mut concerns: HashMap<&str, Concern> = HashMap::new();
    for incident in &open.incidents {
        let concern = Concern::of(incident);
        let known = concerns.entry(incident.prompt.as_str()).or_insert(concern);
        if concern.place() < known.place() {
            *known = concern;
        }
    }
    // the lines of one prompt follow one another
    let split: BTreeSet<&str> = series
        .windows(2)
        .filter_map(|pair| (pair[0].prompt == pair[1].prompt).then_some(pair[0].prompt.as_str()))
        .collect();
    let groups = groups(names.iter());
    let entry = |prompt: PromptName| {
        let rollout = split.contains(prompt.as_str());
        let incident = concerns.get(prompt.as_str()).copied();
        let open = incident.is_some();
        let concerns =
            [incident, faults.contains(prompt.as_str()).then_some(Concern::Fault), rollout.then_some(Concern::Rollout)];
        let concern = concerns.into_iter().flatten().min_by_key(|concern| concern.place()).unwrap_or(Concern::Nothing);
        let paused = paused.contains_key(prompt.as_str());
        Entry { prompt, concern, open, rollout, paused }
    };
    let mut entries: Vec<Entry> = names.into_iter().map(entry).collect();
    // names are sorted already, and the sort is stable
    entries.sort_by_key(|entry| entry.concern.place());
    Index { entries, groups, partial: open.partial, ..Index::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::phase::RollbackFailure;
    use crate::decision::{Phase, Question, VersionName};

    fn name(text: &str) -> PromptName {
        PromptName::of(text).expect("a name")
    }

    fn incident(prompt: &str, phase: Phase) -> Incident {
        let version = VersionName::parse("v2").expect("a version");
        let id = IncidentId("01JD0000000000000000000000".to_owned());
        Incident { phase, ..Incident::new(id, name(prompt), version, "on-call".to_owned(), Timestamp(0)) }
    }

    fn series(prompt: &str) -> VersionSeries {
        let prompt = name(prompt);
        VersionSeries { prompt, version: String::new(), previous: String::new(), activated: Timestamp(0) }
    }

    #[test]
    fn a_slow_reading_is_no_fresher_than_its_beginning() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let search = FaultSearch::default();
        let slow = |ended| IndexReading { index: Arc::default(), search: search.clone(), began, ended: at(ended) };
        for (ended, asked, now, serves) in [
            (10, 900, 900, true),
            // a page that heard of a change during the reading, and asks again
            (600, 1_100, 1_100, false),
            (1_500, 700, 1_500, true),
            (1_500, 1_501, 1_501, false),
        ] {
            assert_eq!(slow(ended).serves(at(asked), at(now)), serves, "{ended} {asked} {now}");
        }
    }

    #[test]
    fn what_needs_a_person_comes_first() {
        let by = |at| Phase::AwaitingDecision(Question::until(Timestamp(at)));
        let asked_for_good = Phase::AwaitingDecision(Question::default());
        let failed = Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered };
        let mut paging = incident("paging", asked_for_good.clone());
        paging.escalations = 4;
        let overdue = Question { overdue: true, ..Question::until(Timestamp(20)) };
        let overdue = Incident { escalations: 1, ..incident("overdue", Phase::AwaitingDecision(overdue)) };
        let incidents = vec![
            overdue,
            incident("late", by(9)),
            incident("soon", by(5)),
            incident("watched", Phase::Observing { until: None }),
            incident("failed", failed),
            incident("open-question", asked_for_good),
            paging,
            incident("two", Phase::Observing { until: None }),
            incident("two", by(7)),
        ];
        let names = [
            "calm/a",
            "calm/b",
            "deleted",
            "failed",
            "late",
            "open-question",
            "overdue",
            "paging",
            "rolls :)",
            "soon",
            "two",
            "watched",
        ];
        let paused = BTreeMap::from([("calm/b".to_owned(), "by dana".to_owned())]);
        let open = OpenIncidents { incidents, partial: true };
        let series = ["calm/a", "rolls :)", "rolls :)", "soon"].map(series);
        // of a prompt with an open incident too, the more urgent counts
        let faults = ["deleted", "soon", "watched"].map(str::to_owned).into();
        let index = build(names.map(name).into(), &open, &paused, &series, &faults);
        let order: Vec<_> = index.entries.iter().map(|entry| entry.prompt.name()).collect();
        let expected = [
            "overdue",
            "soon",
            "two",
            "late",
            "failed",
            "paging",
            "deleted",
            "watched",
            "open-question",
            "rolls :)",
            "calm/a",
            "calm/b",
        ];
        assert_eq!(order, expected);
        assert_eq!(index.groups, [("calm".to_owned(), 2)]);
        assert!(index.partial && index.entries[11].paused && index.entries[9].rollout);
        assert_eq!(index.entries.iter().filter(|entry| entry.concern.needs_person()).count(), 9);
    }
}
