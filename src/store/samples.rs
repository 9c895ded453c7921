//! The data of a post-mortem, besides the incident and the log.

use redis::Pipeline;

use super::{INCIDENT_RETENTION, Store, StoreError, millis};
use crate::decision::{IncidentId, PromptName, VersionName};
use crate::postmortem::IncidentMetric;

impl Store {
    /// Stores Prometheus' measurements for an incident, or why there are none, as long as a closed incident is kept.
    pub async fn put_samples(&self, incident: &IncidentId, samples: &IncidentMetric) -> Result<(), StoreError> {
        let json = serde_json::to_string(samples).map_err(|_| StoreError::unexpected("samples"))?;
        let mut command = redis::cmd("SET");
        command.arg(self.keys.samples(incident)).arg(json).arg("PX").arg(millis(INCIDENT_RETENTION));
        self.link.run::<redis::Value>(&command).await.map(drop)
    }

    /// The samples, if they exist and are readable: a post-mortem is useful without them.
    pub async fn samples(&self, incident: &IncidentId) -> Result<Option<IncidentMetric>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.samples(incident));
        let json: Option<Vec<u8>> = self.link.read(&command).await?;
        Ok(json.and_then(|json| {
            serde_json::from_slice(&json).inspect_err(|error| tracing::warn!(%incident, %error, "samples")).ok()
        }))
    }

    /// The stored content of a version.
    pub async fn content(&self, prompt: &PromptName, version: &VersionName) -> Result<Option<Vec<u8>>, StoreError> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.content(prompt, version));
        self.link.read(&command).await
    }

    /// The content of these versions, if they were registered with one.
    pub async fn contents(
        &self,
        prompt: &PromptName,
        versions: &[&VersionName],
    ) -> Result<Vec<Option<String>>, StoreError> {
        if versions.is_empty() {
            return Ok(Vec::new()); // an empty pipeline is an error
        }
        let mut pipeline = Pipeline::new();
        for version in versions {
            pipeline.cmd("GET").arg(self.keys.content(prompt, version));
        }
        let contents: Vec<Option<Vec<u8>>> = self.link.read(&pipeline).await?;
        Ok(contents.into_iter().map(|text| text.map(|text| String::from_utf8_lossy(&text).into_owned())).collect())
    }
}
