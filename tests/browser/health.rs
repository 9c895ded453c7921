//! Health on an open page.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback_testkit::lying_target::{LyingTarget, vector};

use super::Person;
use crate::common::{World, ship};

/// What a Prometheus has of `p v2`, by a part of the query.
const MEASURED: [(&str, &str); 6] = [
    ("count5m", "812"),
    ("ratio_rate5m", "0.001"),
    ("p99_5m", "1.3"),
    ("p99_baseline", "1.2"),
    ("mean15m", "0.91"),
    ("quality_score%3Abaseline", "0.9"),
];

/// Answers once `is_back`.
fn prometheus(is_back: &Arc<AtomicBool>) -> Result<LyingTarget> {
    let is_back = Arc::clone(is_back);
    LyingTarget::start(move |request| {
        while !is_back.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if request.contains("/query_range ") {
            let nothing = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
            return (200, nothing.to_owned());
        }
        let found = MEASURED.iter().find(|(part, _)| request.contains(part));
        let found = found.map(|(_, value)| (r#"{"prompt":"p","version":"v2"}"#, *value));
        (200, vector(found.as_slice()))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measurements_that_arrive_late_do_not_move_the_page() -> Result<()> {
    for (width, mobile) in [(390, true), (1400, false)] {
        let is_back = Arc::new(AtomicBool::new(false));
        let target = prometheus(&is_back)?;
        let world = World::with(&[("PROMETHEUS__URL", &target.url()), ("PROMETHEUS__TIMEOUT", "5s")]).await?;
        for prompt in ["p", "q"] {
            ship(world.http(), prompt).await?;
        }
        let mut reader = Person::at(&world, "/incidents").await?;
        reader.browser.resize(width, 844, mobile).await?;
        reader.goto("/").await?;
        reader.sees("asking Prometheus").await?;
        let watch = "window.jumps = 0; new PerformanceObserver(list => { for (const shift of list.getEntries()) \
                     window.jumps += shift.value; }).observe({ type: 'layout-shift', buffered: true }); true";
        reader.browser.eval(watch).await?;
        is_back.store(true, Ordering::Relaxed);
        reader.sees("1.1× the baseline").await?;
        let jumps = reader.browser.eval("window.jumps").await?;
        ensure!(jumps.as_f64().is_some_and(|jumps| jumps < 0.1), "{width}: {jumps}");
    }
    Ok(())
}
