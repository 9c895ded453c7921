//! What metrics show.

use redis::Pipeline;

use crate::decision::{Commit, PromptName, Served, Timestamp, VersionName};
use crate::store::{Store, StoreError};

/// The metric labels of one version with traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSeries {
    pub prompt: PromptName,
    pub version: String,
    pub previous: String,
    /// See [`Served::new_since`].
    pub activated: Timestamp,
}

/// The `info` field of a state: one line for each version with traffic.
pub(in crate::store) fn info_line(commit: &Commit) -> String {
    let line = |served: &Served| {
        let previous = served.previous.as_ref().map_or("", VersionName::as_str);
        format!("{} {} {}", served.version, served.new_since.0, previous)
    };
    commit.served.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn read_info(prompt: &PromptName, info: &str) -> Vec<VersionSeries> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        Some(VersionSeries {
            prompt: prompt.clone(),
            version: words.next().filter(|v| !v.is_empty())?.to_owned(),
            activated: Timestamp(words.next()?.parse().ok()?),
            previous: words.next().unwrap_or_default().to_owned(),
        })
    };
    info.lines().filter_map(line).collect()
}

impl Store {
    /// The versions with traffic of the `most` prompts with the latest activity, and the number of prompts left out.
    pub async fn series(&self, most: usize) -> Result<(Vec<VersionSeries>, usize), StoreError> {
        const CHUNK: usize = 500;
        let key = self.keys.activity();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("ZCARD").arg(&key).cmd("ZRANGE").arg(&key).arg(0).arg(most.saturating_sub(1)).arg("REV");
        let (all, mut prompts): (usize, Vec<String>) = self.link.read(&pipeline).await?;
        prompts.truncate(most);
        let mut series = Vec::with_capacity(prompts.len());
        for chunk in prompts.chunks(CHUNK) {
            let names: Vec<PromptName> = chunk.iter().filter_map(|p| PromptName::parse(p).ok()).collect();
            let mut pipeline = Pipeline::new();
            for prompt in &names {
                pipeline.cmd("HGET").arg(self.keys.state(prompt)).arg("info");
            }
            let infos = self.link.read_each::<Option<String>>(&pipeline).await?;
            for (prompt, info) in names.iter().zip(infos) {
                series.extend(read_info(prompt, info.ok().flatten().as_deref().unwrap_or_default()));
            }
        }
        Ok((series, all.saturating_sub(most)))
    }

    /// The open incidents by phase, and the number of dead letters.
    pub async fn counts(&self) -> Result<(Vec<(String, i64)>, u64), StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("HGETALL").arg(self.keys.phases()).cmd("ZCARD").arg(self.keys.dead_letters());
        self.link.read(&pipeline).await
    }
}
