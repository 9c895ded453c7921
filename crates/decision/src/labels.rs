//! Where a prompt runs, by the labels of its alerts.

use serde::{Deserialize, Serialize};

/// What an alert's labels say of where a prompt runs. Empty: no such label.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLabels {
    pub model: String,
    pub provider: String,
    pub group: String,
}

impl GroupLabels {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Label and value, as far as there is one.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("model", self.model.as_str()), ("provider", &self.provider), ("group", &self.group)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
    }
}
