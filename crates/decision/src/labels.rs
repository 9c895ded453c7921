//! Where a prompt runs, by the labels of its alerts.

use serde::{Deserialize, Serialize};

/// Where a prompt runs, as far as an alert's labels say so. A label that is missing is empty.
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

    /// Name and value of each label that is present.
    pub fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("model", self.model.as_str()), ("provider", &self.provider), ("group", &self.group)]
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
    }
}
