//! Severities and actions of alerts.

use std::time::Duration;

use super::encoding::words;

words! {
    /// The severity. Ordered: `Medium < High < Critical`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Severity {
        Medium = "medium",
        High = "high",
        Critical = "critical",
    }
}

words! {
    /// What an alert asks for. Ordered by strength: the strongest action of the firing alerts wins.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Action {
        Observe = "observe",
        Recommend = "recommend",
        Page = "page",
        Rollback = "rollback",
    }
}

impl Action {
    /// The time limit if the alert has none.
    pub fn default_time_limit(self) -> Duration {
        Duration::from_secs(match self {
            Action::Rollback => 2 * 60,
            Action::Page => 5 * 60,
            Action::Recommend => 30 * 60,
            Action::Observe => 60 * 60,
        })
    }
}
