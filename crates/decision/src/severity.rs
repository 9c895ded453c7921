//! How bad an alert is, and what it asks for.

use std::fmt;
use std::time::Duration;

/// How bad. Ordered: `Medium < High < Critical`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Medium,
    High,
    Critical,
}

/// What to do. Ordered by strength: the strongest action of the firing alerts wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    Observe,
    Recommend,
    Page,
    Rollback,
}

impl Severity {
    pub const ALL: [Severity; 3] = [Severity::Medium, Severity::High, Severity::Critical];

    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl Action {
    pub const ALL: [Action; 4] = [Action::Observe, Action::Recommend, Action::Page, Action::Rollback];

    pub fn as_str(self) -> &'static str {
        match self {
            Action::Observe => "observe",
            Action::Recommend => "recommend",
            Action::Page => "page",
            Action::Rollback => "rollback",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == text)
    }

    /// The time limit where the alert names none.
    pub fn default_time_limit(self) -> Duration {
        Duration::from_secs(match self {
            Action::Rollback => 2 * 60,
            Action::Page => 5 * 60,
            Action::Recommend => 30 * 60,
            Action::Observe => 60 * 60,
        })
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
