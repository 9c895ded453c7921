//! Asks Prometheus about all versions, for pages and lists that somebody looks at. Requests never call Prometheus themselves.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::incidents::IncidentWorker;
use super::split_query::SplitQuery;
use crate::config::Labels;
use crate::decision::{PromptName, Timestamp};
use crate::elsewhere;
use crate::figures::{EVERY, FigureBook, FigureNews, Figures, POINTS, STEP, Signal};
use crate::live::Current;
use crate::prometheus::client::{Prometheus, PrometheusError, Series};
use crate::prometheus::figures::{Present, Quantity, read_hour};
use crate::service::updates::Updates;
use crate::store::Store;

/// What a version costs to read, in bytes of JSON.
const VERSION: usize = 256;

/// Runs while the process does. However many pages are open, Prometheus is asked at most every [`EVERY`]. Open pages are
/// told when the health of a version changes, or what is missing.
pub async fn run(workers: Current<Arc<IncidentWorker>>, book: FigureBook, updates: Updates) {
    let mut news = FigureNews::default();
    loop {
        if updates.open() == 0 {
            book.wanted().await;
        }
        let worker = workers.get();
        let figures = match &worker.verifier.prometheus {
            Some(prometheus) => Some(Arc::new(read(&worker, prometheus, &book).await)),
            None => None,
        };
        book.publish(figures.clone());
        let told;
        (news, told) = tell(news, figures.unwrap_or_default()).await;
        updates.health_changed(told).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// Adds the latest answer, and returns which prompts pages are told of. Those of many are compared on another thread.
async fn tell(mut news: FigureNews, figures: Arc<Figures>) -> (FigureNews, Option<BTreeSet<PromptName>>) {
    elsewhere::run_sized((figures.prompts() + news.prompts()) * VERSION, move || {
        let told = news.add(figures);
        (news, told)
    })
    .await
}

/// Reads an answer into `all`. An answer about many versions is read on another thread.
async fn taken<T: Send + 'static>(
    mut all: T,
    series: Vec<Series>,
    take: impl FnOnce(&mut T, &[Series]) + Send + 'static,
) -> T {
    elsewhere::run_sized(series.len() * VERSION, move || {
        take(&mut all, &series);
        all
    })
    .await
}

/// What is missing is named, and does not hide the rest.
async fn read(worker: &IncidentWorker, prometheus: &Prometheus, book: &FigureBook) -> Figures {
    let (labels, store) = (&worker.verifier.labels, &worker.engine.store);
    let inquiry = Inquiry { prometheus, store, labels };
    let (mut figures, mut present) = (Figures::default(), Present::default());
    let mut is_away = false;
    for quantity in Quantity::ALL {
        let (series, error) = inquiry.series(quantity, None).await;
        let labels = labels.clone();
        present = taken(present, series, move |present, series| present.read(&labels, quantity, series)).await;
        // counting servers takes longer than the rest
        is_away = matches!(error, Some(PrometheusError::NoAnswer(_))) && quantity != Quantity::Servers;
        match quantity {
            Quantity::Servers => figures.servers_fault = error.map(|error| error.to_string()),
            _ => figures.note(error),
        }
        if is_away {
            // none of the other queries would be answered
            break;
        }
    }
    // the lines of the last hour take longer
    let lines_awaited = !is_away && book.is_awaited();
    let (mut figures, partial) = elsewhere::run_sized(present.versions() * VERSION, move || {
        present.fill(&mut figures);
        let mut partial = lines_awaited.then(|| figures.clone());
        if let Some(partial) = &mut partial {
            partial.lines_awaited = true;
        }
        (figures, partial)
    })
    .await;
    if is_away {
        return figures;
    }
    if let Some(partial) = partial {
        book.publish(Some(Arc::new(partial)));
    }
    let now = match store.now().await {
        // both clocks are near enough for a line of an hour; whole seconds make a shorter answer
        Ok(now) => Timestamp(now.0 / 1_000 * 1_000),
        Err(error) => {
            figures.note(Some(error));
            return figures;
        }
    };
    let from = now.minus(STEP * u32::try_from(POINTS - 1).unwrap_or(u32::MAX));
    for signal in Signal::ALL {
        let (series, error) = inquiry.series(Quantity::Now(signal), Some((from, now))).await;
        let labels = labels.clone();
        figures = taken(figures, series, move |figures, series| read_hour(&labels, signal, series, now, figures)).await;
        figures.note(error);
    }
    figures
}

/// Whom to ask, and about what.
struct Inquiry<'a> {
    prometheus: &'a Prometheus,
    store: &'a Store,
    labels: &'a Labels,
}

impl Inquiry<'_> {
    /// What Prometheus has of all versions, now or over a time, and why some of it is missing. If the answer is too large, it is
    /// asked for in parts.
    async fn series(
        &self,
        quantity: Quantity,
        time: Option<(Timestamp, Timestamp)>,
    ) -> (Vec<Series>, Option<PrometheusError>) {
        let whole = match self.ask(&quantity.query(self.labels, None), time).await {
            Ok(series) => return (series, None),
            Err(error) => error,
        };
        if !matches!(whole, PrometheusError::TooLarge(_)) {
            return (Vec::new(), Some(whole));
        }
        let Ok(names) = self.store.prompt_names().await else { return (Vec::new(), Some(whole)) };
        let mut parts = SplitQuery::default();
        parts.answered(names.into_iter().collect(), Err(whole));
        while let Some(prompts) = parts.left.pop() {
            let answer = self.ask(&quantity.query(self.labels, Some(&prompts)), time).await;
            parts.answered(prompts, answer);
        }
        let (mut all, mut missing) = (Vec::new(), None);
        for (_, answer) in parts.answers {
            match answer {
                Ok(series) => all.extend(series),
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        (all, missing)
    }

    async fn ask(&self, query: &str, time: Option<(Timestamp, Timestamp)>) -> Result<Vec<Series>, PrometheusError> {
        match time {
            None => self.prometheus.instant(query).await,
            Some((from, to)) => self.prometheus.range(query, from, to, STEP).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn figures_of_many_versions_are_read_on_another_thread() {
        for (versions, expected) in [(10, false), (10_000, true)] {
            let labels = Config::default().labels;
            let one = |n| Series {
                labels: [("prompt", format!("p-{n}")), ("version", "v1".to_owned())]
                    .map(|(label, value)| (label.to_owned(), value))
                    .into(),
                points: vec![(Timestamp(0), 1.0)],
            };
            let answer: Vec<Series> = (0..versions).map(one).collect();
            let (mut present, mut figures) = (Present::default(), Figures::default());
            present.read(&labels, Quantity::Requests, &answer);
            assert_eq!(present.versions(), versions);
            present.fill(&mut figures);
            assert_eq!(figures.prompts(), versions);
            let read = move |present: &mut Present, series: &[Series]| {
                present.read(&labels, Quantity::Requests, series);
            };
            let found = [
                elsewhere::needs_another_thread(taken(Present::default(), answer, read)),
                elsewhere::needs_another_thread(tell(FigureNews::default(), Arc::new(figures))),
            ];
            assert_eq!(found, [expected; 2], "{versions} versions");
        }
    }
}
