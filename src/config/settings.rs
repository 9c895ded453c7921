//! A config that can be read again: all of it, or only the files that it names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Config;
use super::error::{ConfigError, ConfigProblem, Origin};
use super::files::{FileContents, is_stream};
use super::reader::{ConfigReader, RenamedKey};
use super::values::{ConfigChange, Values};

/// A config, and where it comes from.
#[derive(Clone)]
pub struct LoadedConfig {
    pub config: Config,
    /// Keys that are set by an earlier name.
    pub renamed: Vec<RenamedKey>,
    values: Values,
    files: FileContents,
    path: Option<PathBuf>,
    env: Vec<(String, String)>,
    /// Of the config file.
    text: String,
}

/// Without the text, which may hold secrets.
impl fmt::Debug for LoadedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

/// What a config file holds, and the files that it names.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigSources {
    text: Result<String, ConfigError>,
    files: FileContents,
}

impl ConfigSources {
    /// The same with the files that the config names as they are now.
    #[must_use]
    pub fn look_at_files(&self) -> Self {
        Self { files: self.files.look(), ..self.clone() }
    }

    /// Whether there is anything to look at.
    pub fn has_files(&self) -> bool {
        !self.files.is_empty()
    }
}

/// Without what they hold.
impl fmt::Debug for ConfigSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("files", &self.files).finish_non_exhaustive()
    }
}

/// A config that was read again, and how it differs.
#[derive(Debug, Clone)]
pub struct Reread {
    /// What is to be in force: with the old values of what needs a restart.
    pub settings: LoadedConfig,
    pub changed: Vec<ConfigChange>,
    /// What is written and is not in force before a restart.
    pub needs_restart: Vec<ConfigChange>,
}

impl LoadedConfig {
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let path = path.map(Path::to_owned);
        let (text, env) = (read(path.as_deref())?, env.collect::<Vec<_>>());
        let reader = ConfigReader::new(path.as_deref(), &text, env.iter().cloned());
        let (config, values, files, renamed) = Config::read_from(reader)?;
        Ok(Self { config, renamed, values, files, path, env, text })
    }

    /// Logs which keys to rename before their earlier names are unknown.
    pub fn warn_of_renamed_keys(&self) {
        for key in &self.renamed {
            tracing::warn!(%key, "a config key has another name now: the next release does not accept the earlier one");
        }
    }

    /// What these settings were read from.
    pub fn source(&self) -> ConfigSources {
        ConfigSources { text: Ok(self.text.clone()), files: self.files.clone() }
    }

    /// All that is on the disk now.
    pub fn look(&self) -> ConfigSources {
        let text = match self.path.as_deref() {
            // which would be a valid config
            Some(path) if is_stream(path) => Err(unreadable(path, "it is a pipe, which can be read only once")),
            path => read(path),
        };
        ConfigSources { text, files: self.files.look() }
    }

    /// Whether a file on the disk was written so short a time ago: it may be half of what it is to be.
    pub fn was_written_within(&self, time: Duration) -> bool {
        let fresh = |path: &Path| {
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
            modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < time))
        };
        self.path.iter().map(PathBuf::as_path).chain(self.files.paths()).any(fresh)
    }

    /// Makes settings of what was found. What is wrong is all reported, as by [`Config::load`].
    pub fn reread(&self, found: ConfigSources) -> Result<Reread, ConfigError> {
        let ConfigSources { text, files: found } = found;
        let text = text?;
        let reader = || ConfigReader::new(self.path.as_deref(), &text, self.env.iter().cloned());
        let all = reader().with(Default::default(), found.clone());
        let (mut config, mut values, mut files, renamed) = Config::read_from(all)?;
        let pins = self.values.pins(&values);
        let mut needs_restart = Vec::new();
        if !pins.is_empty() {
            let written = values;
            let keys: Vec<String> = pins.keys().cloned().collect();
            // what stays and what is new have to fit together, too
            (config, values, files, _) = Config::read_from(reader().with(pins, found))?;
            needs_restart = values.changes(&written);
            needs_restart.retain(|change| keys.contains(&change.key));
        }
        let changed = self.values.changes(&values);
        let (path, env) = (self.path.clone(), self.env.clone());
        Ok(Reread { settings: Self { config, renamed, values, files, path, env, text }, changed, needs_restart })
    }
}

fn read(path: Option<&Path>) -> Result<String, ConfigError> {
    let Some(path) = path else { return Ok(String::new()) };
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error.to_string()))
}

fn unreadable(path: &Path, why: &str) -> ConfigError {
    let origin = Origin::File { path: path.to_owned(), line: None };
    let message = format!("cannot read the config file: {why}");
    ConfigError { problems: vec![ConfigProblem { origin, key: String::new(), message }] }
}
