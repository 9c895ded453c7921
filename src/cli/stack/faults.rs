//! What is wrong with something, and how bad that is.

use std::fmt::Display;

use crate::cli::check::Probe;
use crate::store::Level;

#[derive(Debug, Default)]
pub struct Faults(Vec<(Level, String)>);

impl<const N: usize> From<[(Level, String); N]> for Faults {
    fn from(faults: [(Level, String); N]) -> Self {
        Self(faults.into())
    }
}

impl Faults {
    pub fn add(&mut self, level: Level, text: impl Into<String>) {
        self.0.push((level, text.into()));
    }

    /// A setting that has the wrong value.
    pub fn setting(&mut self, level: Level, key: &str, found: impl Display, expected: &str, why: &str) {
        self.add(level, format!("{key}: found {found}, expected {expected}: {why}"));
    }

    fn of(&self, level: Level) -> usize {
        self.0.iter().filter(|(one, _)| *one == level).count()
    }

    /// How many failures, and how many faults at all.
    pub fn count(&self) -> (usize, usize) {
        (self.of(Level::Problem), self.0.len())
    }

    /// One line for all faults, with the level of the worst one.
    pub fn probe(self, name: String, detail: String) -> Probe {
        let worst = [Level::Problem, Level::Warning].into_iter().find(|level| self.of(*level) > 0);
        let texts: Vec<String> = self.0.into_iter().map(|(_, text)| text).collect();
        let colon = if texts.is_empty() { "" } else { ": " };
        Probe { name, level: worst.unwrap_or(Level::Ok), detail: format!("{detail}{colon}{}", texts.join("; ")) }
    }
}
