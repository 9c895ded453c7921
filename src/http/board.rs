//! What the page says about all prompts: which of them need a person, and in which order they are shown. Read from
//! Redis at most once a second, for all pages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::decision::{Incident, IncidentId, PhaseKind, PromptName, Timestamp};
use crate::elsewhere;
use crate::engine::Engine;
use crate::store::{OpenIncidents, StoreError, VersionSeries};

/// How long a reading is used.
const FRESH: Duration = Duration::from_secs(1);
/// Open incidents that are considered; the prompts of others are sorted by name.
const MOST_INCIDENTS: usize = 2_000;

/// Why a prompt is shown where it is: the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// A person must decide, if possible by this time.
    Question(Option<Timestamp>),
    Escalated,
    Pages,
    Open,
    Rollout,
    Nothing,
}

impl Concern {
    fn of(incident: &Incident) -> Self {
        match incident.phase.kind() {
            PhaseKind::AwaitingDecision if incident.deadline().is_some() && !incident.is_held_back() => {
                Concern::Question(incident.deadline())
            }
            PhaseKind::Escalated => Concern::Escalated,
            _ if incident.pages() => Concern::Pages,
            PhaseKind::AwaitingDecision => Concern::Question(None),
            _ => Concern::Open,
        }
    }

    pub fn needs_person(self) -> bool {
        self <= Concern::Pages
    }

    /// Questions with a deadline come first, the earliest first; one without comes after all that is worse.
    fn place(self) -> (u8, i64) {
        match self {
            Concern::Question(Some(by)) => (0, by.0),
            Concern::Escalated => (1, 0),
            Concern::Pages => (2, 0),
            Concern::Question(None) => (3, 0),
            Concern::Open => (4, 0),
            Concern::Rollout => (5, 0),
            Concern::Nothing => (6, 0),
        }
    }
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub prompt: PromptName,
    pub concern: Concern,
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

/// The latest reading.
#[derive(Debug, Default)]
pub struct Board(Mutex<Option<(Instant, Arc<Index>)>>);

impl Board {
    /// The latest reading, or a new one, which all waiting requests share.
    pub async fn index(&self, engine: &Engine, max_prompts: usize) -> Result<Arc<Index>, StoreError> {
        let mut latest = self.0.lock().await;
        if let Some((at, index)) = &*latest
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(index));
        }
        let index = Arc::new(read(engine, max_prompts).await?);
        *latest = Some((Instant::now(), Arc::clone(&index)));
        Ok(index)
    }
}

async fn read(engine: &Engine, max_prompts: usize) -> Result<Index, StoreError> {
    let store = &engine.store;
    let names = store.prompt_names().await?;
    let open = store.open_incidents(MOST_INCIDENTS).await?;
    let paused = store.paused_prompts().await?;
    let paused_for_all = store.paused_by(None).await?;
    let outage = store.open_outage().await?;
    let (series, _) = store.series(max_prompts).await?;
    let index = elsewhere::run(move || build(names, &open, &paused, &series)).await;
    Ok(Index { paused_for_all, outage, ..index })
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
        let calm = if rollout { Concern::Rollout } else { Concern::Nothing };
        let concern = concerns.get(prompt.as_str()).copied().unwrap_or(calm);
        let paused = paused.contains_key(prompt.as_str());
        Entry { prompt, concern, rollout, paused }
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
    fn what_needs_a_person_comes_first() {
        let by = |at| Phase::AwaitingDecision(Question::until(Timestamp(at)));
        let asked_for_good = Phase::AwaitingDecision(Question::default());
        let failed = Phase::Escalated { until: None, reason: RollbackFailure::NotRecovered };
        let mut paging = incident("paging", asked_for_good.clone());
        paging.escalations = 4;
        let incidents = vec![
            incident("late", by(9)),
            incident("soon", by(5)),
            incident("watched", Phase::Observing { until: None }),
            incident("failed", failed),
            incident("open-question", asked_for_good),
            paging,
            incident("two", Phase::Observing { until: None }),
            incident("two", by(7)),
        ];
        let names =
            ["calm/a", "calm/b", "failed", "late", "open-question", "paging", "rolls :)", "soon", "two", "watched"];
        let paused = BTreeMap::from([("calm/b".to_owned(), "by dana".to_owned())]);
        let open = OpenIncidents { incidents, partial: true };
        let series = ["calm/a", "rolls :)", "rolls :)", "soon"].map(series);
        let index = build(names.map(name).into(), &open, &paused, &series);
        let order: Vec<_> = index.entries.iter().map(|entry| entry.prompt.name()).collect();
        let expected =
            ["soon", "two", "late", "failed", "paging", "open-question", "watched", "rolls :)", "calm/a", "calm/b"];
        assert_eq!(order, expected);
        assert_eq!(index.groups, [("calm".to_owned(), 2)]);
        assert!(index.partial && index.entries[9].paused && index.entries[7].rollout);
        assert_eq!(index.entries.iter().filter(|entry| entry.concern.needs_person()).count(), 6);
    }
}
