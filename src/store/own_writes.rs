//! What this process wrote itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::decision::{PromptName, VersionName};

/// This process' own writes to `active` keys that were not announced yet. They are not external changes: a `GET`
/// instead of a full check keeps a burst of rollbacks fast.
#[derive(Debug, Default)]
pub struct OwnWrites(Mutex<HashMap<PromptName, VersionName>>);

impl OwnWrites {
    /// Limits the memory if nothing is announced; forgotten keys are checked.
    const MOST: usize = 10_000;

    pub fn insert(&self, prompt: &PromptName, version: &VersionName) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() >= Self::MOST {
            written.clear();
        }
        written.insert(prompt.clone(), version.clone());
    }

    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub fn take(&self, prompt: &PromptName) -> Option<VersionName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(prompt)
    }
}
