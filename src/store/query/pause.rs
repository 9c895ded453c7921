//! The pause switch.

use crate::decision::{Operator, PromptName};
use crate::store::keys::Keys;
use crate::store::pause_entry::{StoredPause, describe_pause};
use crate::store::{Store, StoreError};

impl Store {
    /// Pauses automation for `prompt`, or for all prompts. After this has returned, no automatic switch commits.
    /// Returns true if it was not paused before.
    pub async fn pause(
        &self,
        prompt: Option<&PromptName>,
        operator: &Operator,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let pause = StoredPause { operator: operator.to_string(), reason: reason.to_owned() };
        let json = serde_json::to_string(&pause).map_err(|_| StoreError::unexpected("pause"))?;
        let (key, field) = (self.keys.paused(), prompt.map_or(Keys::ALL, PromptName::as_str));
        let mut command = redis::cmd("HSET");
        command.arg(key).arg(field).arg(json);
        let master = self.master().await?;
        // not retried: a retry could pause again what was resumed since, or not recognize its own change
        let added: u32 = self.link.run(&command).await?;
        self.wait_for_replicas(&master).await?;
        Ok(added == 1)
    }

    /// Resumes automation. Returns true if it was paused before.
    pub async fn resume(&self, prompt: Option<&PromptName>) -> Result<bool, StoreError> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.paused()).arg(prompt.map_or(Keys::ALL, PromptName::as_str));
        let master = self.master().await?;
        let removed: u32 = self.link.run(&command).await?;
        self.wait_for_replicas(&master).await?;
        Ok(removed == 1)
    }

    /// Who paused automation for `prompt` by name, or for all prompts, if anyone.
    pub async fn paused_by(&self, prompt: Option<&PromptName>) -> Result<Option<String>, StoreError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.paused()).arg(prompt.map_or(Keys::ALL, PromptName::as_str));
        let json: Option<String> = self.link.read(&command).await?;
        Ok(json.map(|json| describe_pause(&json)))
    }
}
