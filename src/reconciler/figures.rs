//! Asks Prometheus about all versions, for pages and lists that somebody looks at. Requests never call Prometheus themselves.

use std::sync::Arc;

use super::incidents::IncidentWorker;
use crate::figures::{EVERY, FigureBook, Figures, POINTS, STEP, Signal};
use crate::live::Current;
use crate::prometheus::client::{Prometheus, PrometheusError};
use crate::prometheus::figures::{hour, present, read_hour, read_present};
use crate::service::updates::Updates;

/// Runs while the process does. However many pages are open, Prometheus is asked at most every [`EVERY`]. Open pages are
/// told when the health of a version changes.
pub async fn run(workers: Current<Arc<IncidentWorker>>, book: FigureBook, updates: Updates) {
    let mut shown = Arc::default();
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
        let figures = figures.unwrap_or_default();
        updates.health_changed(figures.changed_since(&shown)).await;
        shown = figures;
        tokio::time::sleep(EVERY).await;
    }
}

/// What is missing is named, and does not hide the rest.
async fn read(worker: &IncidentWorker, prometheus: &Prometheus, book: &FigureBook) -> Figures {
    let mut figures = Figures::default();
    if let Err(error) = fill(worker, prometheus, book, &mut figures).await {
        figures.fault = Some(error.to_string());
    }
    figures
}

async fn fill(
    worker: &IncidentWorker,
    prometheus: &Prometheus,
    book: &FigureBook,
    figures: &mut Figures,
) -> Result<(), PrometheusError> {
    let labels = &worker.verifier.labels;
    read_present(labels, &prometheus.instant(&present()).await?, figures);
    if book.is_awaited() {
        // the lines of the last hour take longer
        let mut partial = figures.clone();
        partial.lines_awaited = true;
        book.publish(Some(Arc::new(partial)));
    }
    // both clocks are near enough for a line of an hour
    let now = worker.engine.store.now().await.map_err(|error| PrometheusError::NoAnswer(error.to_string()))?;
    let from = now.minus(STEP * u32::try_from(POINTS - 1).unwrap_or(u32::MAX));
    for signal in Signal::ALL {
        read_hour(labels, signal, &prometheus.range(hour(signal), from, now, STEP).await?, now, figures);
    }
    Ok(())
}
