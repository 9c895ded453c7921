//! What Prometheus reports about a version.

use serde::{Deserialize, Serialize};

use super::encoding::words;
use super::time::Timestamp;

words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Verdict {
        Healthy = "healthy",
        Unhealthy = "unhealthy",
        /// Nothing was measured.
        NoData = "no_data",
        /// Prometheus cannot tell: it is unreachable, or the expression is wrong.
        Unknown = "unknown",
    }
}

/// A verdict with its figures, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub verdict: Verdict,
    pub text: String,
}

impl Finding {
    pub fn new(verdict: Verdict, text: impl Into<String>) -> Self {
        Self { verdict, text: text.into() }
    }

    /// Healthy if all findings are; otherwise what is wrong, or missing, or unknown. What is missing counts against a version
    /// that was healthy before, and a finding that is unknown must not hide it.
    pub fn all(findings: Vec<Self>) -> Self {
        const WORST_FIRST: [Verdict; 4] = [Verdict::Unhealthy, Verdict::NoData, Verdict::Unknown, Verdict::Healthy];
        let any = |verdict: &Verdict| findings.iter().any(|finding| finding.verdict == *verdict);
        let verdict = WORST_FIRST.into_iter().find(any).unwrap_or(Verdict::NoData);
        let texts: Vec<_> = findings.into_iter().map(|finding| finding.text).collect();
        Self { verdict, text: texts.join("; ") }
    }
}

/// One check of a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub at: Timestamp,
    pub finding: Finding,
}
