//! The time to draw the picture of an incident at its largest size. `--out=FOLDER` keeps the picture.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use prompt_rollback::decision::Timestamp;
use prompt_rollback::postmortem::{SampleSeries, Samples, Unit, chart};

const TARGET: Duration = Duration::from_millis(50);
const ROUNDS: usize = 50;
/// 2026-11-21T00:38:12Z
const SWITCH: i64 = 1_795_221_492_000;
const STEP: i64 = 2_000;

/// A ratio that fluctuates like real ones: 600 points of each version.
fn samples() -> Samples {
    let points = SampleSeries::MAX_POINTS as i64;
    let noise = |i: i64| ((i * 7_919) % 101) as f64 / 101.0;
    let series = |version: &str, value: &dyn Fn(i64) -> f64| {
        let times = (0..points).map(|i| (SWITCH + (i - points / 2) * STEP, value(i)));
        SampleSeries::new(version, times.collect::<Vec<_>>())
    };
    let bad = |i: i64| if i < points / 3 { 0.004 + 0.003 * noise(i) } else { 0.07 + 0.03 * noise(i) };
    Samples {
        expression: "prompt_version:error_ratio:rate1m".to_owned(),
        label: "error ratio".to_owned(),
        unit: Unit::Ratio,
        threshold: Some(0.05),
        step_ms: STEP,
        bad: series("v2.1.0", &bad),
        good: Some(series("v2.0.9", &|i| 0.003 + 0.004 * noise(i))),
        ..Samples::default()
    }
}

/// The slowest of many rounds, and the last drawing.
fn worst<T>(draw: impl Fn() -> Result<T, chart::ChartError>) -> Result<(Duration, T)> {
    let mut worst = Duration::ZERO;
    let mut last = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        last = Some(draw()?);
        worst = worst.max(start.elapsed());
    }
    Ok((worst, last.context("at least one round")?))
}

fn main() -> Result<ExitCode> {
    let (samples, switch) = (samples(), Some(Timestamp(SWITCH)));
    let (svg_time, svg) = worst(|| chart::svg(&samples, switch))?;
    let (png_time, png) = worst(|| chart::png(&samples, switch))?;
    println!("| figure | measured | target | |\n|---|---|---|---|");
    for (what, time, size) in [("SVG", svg_time, svg.len()), ("PNG", png_time, png.len())] {
        let met = if time < TARGET { "met" } else { "MISSED" };
        let found = format!("{:.1} ms, {} kB", time.as_secs_f64() * 1e3, size / 1_000);
        println!(
            "| picture as {what}, 2 × 600 points, worst of {ROUNDS} | {found} | < {} ms | {met} |",
            TARGET.as_millis()
        );
    }
    if let Some(folder) = std::env::args().find_map(|arg| arg.strip_prefix("--out=").map(str::to_owned)) {
        std::fs::write(format!("{folder}/chart.svg"), &svg)?;
        std::fs::write(format!("{folder}/chart.png"), &png)?;
    }
    Ok(if svg_time.max(png_time) < TARGET { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
