//! The entries of the `paused` hash.

use serde::{Deserialize, Serialize};

use crate::decision::Operator;

#[derive(Debug, Serialize, Deserialize)]
pub struct StoredPause {
    #[serde(default)]
    pub operator: String,
    #[serde(default)]
    pub reason: String,
}

impl StoredPause {
    /// Reads an entry of the `paused` hash: also one that is damaged pauses.
    fn read(json: &str) -> Self {
        let mut pause = serde_json::from_str(json).unwrap_or(Self { operator: String::new(), reason: String::new() });
        if pause.operator.is_empty() {
            pause.operator = "someone".to_owned();
        }
        pause
    }
}

/// Describes an entry of the `paused` hash for people.
pub fn describe_pause(json: &str) -> String {
    let StoredPause { operator, reason } = StoredPause::read(json);
    if reason.is_empty() { format!("by {operator}") } else { format!("by {operator}: {reason}") }
}

/// Who holds all prompts, by the entry of the `paused` hash.
pub fn held_by(json: &str) -> String {
    StoredPause::read(json).operator
}

/// The entry of the `paused` hash for a hold of all prompts.
pub fn written_hold(by: &Operator) -> String {
    serde_json::json!({ "operator": by.as_str() }).to_string()
}
