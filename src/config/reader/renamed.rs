//! Keys that were renamed.

use std::collections::btree_map::Entry;
use std::fmt;

use super::ConfigReader;
use crate::config::error::{ConfigProblem, Origin};
use crate::config::key::env_name;

/// Keys that were renamed, and their earlier names, which are accepted for one release.
const RENAMED: [(&str, &str); 5] = [
    ("registry.precheck_url", "registry.baseline_url"),
    ("guards.max_auto_rollbacks_window", "guards.max_auto_rollbacks_within"),
    ("incidents.alert_resolve_timeout", "incidents.forget_after"),
    ("verification.fast_checks", "verification.checks"),
    ("gradual.hold", "gradual.stage_hold"),
];

/// A key that is set by its earlier name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenamedKey {
    pub origin: Origin,
    pub earlier: &'static str,
    pub key: &'static str,
}

impl fmt::Display for RenamedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, earlier, key } = self;
        match origin {
            Origin::Env(_) => write!(f, "{origin}: {earlier} is deprecated, use {key} ({})", env_name(key)),
            _ => write!(f, "{origin}: {earlier} is deprecated, use {key}"),
        }
    }
}

impl ConfigReader<'_> {
    /// Values under an earlier name become those of the key. The file and the environment are separate: a variable beats the
    /// file, whichever name each of them uses.
    pub(super) fn take_earlier_names(&mut self) {
        for (key, earlier) in RENAMED {
            if let Some(leaf) = self.file.remove(earlier) {
                let origin = self.in_file(Some(leaf.line));
                match self.file.entry(key.to_owned()) {
                    Entry::Occupied(_) => self.problems.push(both_names(origin, key, earlier)),
                    Entry::Vacant(entry) => {
                        entry.insert(leaf);
                        self.renamed.push(RenamedKey { origin, earlier, key });
                    }
                }
            }
            if let Some(text) = self.env.remove(&env_name(earlier)) {
                let origin = Origin::Env(env_name(earlier));
                match self.env.entry(env_name(key)) {
                    Entry::Occupied(_) => self.problems.push(both_names(origin, key, earlier)),
                    Entry::Vacant(entry) => {
                        entry.insert(text);
                        self.renamed.push(RenamedKey { origin, earlier, key });
                    }
                }
            }
        }
    }
}

fn both_names(origin: Origin, key: &str, earlier: &str) -> ConfigProblem {
    let message = format!("expected only {key}: {earlier} is its earlier name, and both are set");
    ConfigProblem { origin, key: earlier.to_owned(), message }
}
