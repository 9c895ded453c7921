//! Figures with their targets, and measured times.

use std::process::ExitCode;
use std::time::Instant;

#[derive(Debug)]
pub struct Figure {
    pub what: &'static str,
    pub found: String,
    pub target: &'static str,
    pub met: bool,
}

/// Prints a table, and fails if a target is missed.
pub fn table(figures: &[Figure]) -> ExitCode {
    println!("| figure | measured | target | |\n|---|---|---|---|");
    for Figure { what, found, target, met } in figures {
        println!("| {what} | {found} | {target} | {} |", if *met { "met" } else { "MISSED" });
    }
    if figures.iter().all(|figure| figure.met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Durations in seconds.
#[derive(Debug, Default)]
pub struct Times(pub Vec<f64>);

impl Times {
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0.push(start.elapsed().as_secs_f64());
        result
    }

    pub fn quantile(&mut self, share: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        self.0[((self.0.len() - 1) as f64 * share).round() as usize]
    }
}

pub fn ms(seconds: f64) -> String {
    format!("{:.3} ms", seconds * 1e3)
}
