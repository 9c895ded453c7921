//! A config that can be read again: as a whole, or only the files that it names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Config;
use super::error::{ConfigError, ConfigProblem, Origin};
use super::files::{FileContents, is_stream};
use super::reader::{ConfigFindings, ConfigReader, RenamedKey};
use super::values::{ConfigChange, Values};

/// A config, and its origin.
#[derive(Clone)]
pub struct LoadedConfig {
    pub config: Config,
    /// Keys that are set by an earlier name.
    pub renamed: Vec<RenamedKey>,
    /// Values that are accepted although they have no effect.
    pub ineffective: Vec<ConfigProblem>,
    values: Values,
    files: FileContents,
    path: Option<PathBuf>,
    env: Vec<(String, String)>,
    /// The text of the config file.
    text: String,
}

/// Omits the text, which may contain secrets.
impl fmt::Debug for LoadedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.fmt(f)
    }
}

/// The content of a config file, and of the files that it names.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigSources {
    text: Result<String, ConfigError>,
    files: FileContents,
}

impl ConfigSources {
    /// Reads the files that the config names again.
    #[must_use]
    pub fn look_at_files(&self) -> Self {
        Self { files: self.files.look(), ..self.clone() }
    }

    /// Whether the config file has the same text in both.
    pub fn has_text_of(&self, other: &Self) -> bool {
        self.text == other.text
    }

    /// Whether there are files to watch.
    pub fn has_files(&self) -> bool {
        !self.files.is_empty()
    }
}

/// Omits the contents.
impl fmt::Debug for ConfigSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("files", &self.files).finish_non_exhaustive()
    }
}

/// A config that was read again, and its differences.
#[derive(Debug, Clone)]
pub struct Reread {
    /// The settings to put in force: with the old values of keys that need a restart.
    pub settings: LoadedConfig,
    pub changed: Vec<ConfigChange>,
    /// Changes that take effect only after a restart.
    pub needs_restart: Vec<ConfigChange>,
}

impl LoadedConfig {
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let path = path.map(Path::to_owned);
        let (text, env) = (read(path.as_deref())?, env.collect::<Vec<_>>());
        let reader = ConfigReader::new(path.as_deref(), &text, env.iter().cloned());
        let (config, ConfigFindings { values, files, renamed, ineffective }) = Config::read_from(reader)?;
        Ok(Self { config, renamed, ineffective, values, files, path, env, text })
    }

    /// Logs which keys to rename before their earlier names are unknown, and which values have no effect.
    pub fn log_warnings(&self) {
        for key in &self.renamed {
            tracing::warn!(%key, "a config key was renamed: the next release does not accept the earlier name");
        }
        for value in &self.ineffective {
            tracing::warn!(%value, "a value of the config has no effect");
        }
    }

    /// The same warnings, for people.
    pub fn warnings(&self) -> Vec<String> {
        let renamed = self.renamed.iter().map(ToString::to_string);
        renamed.chain(self.ineffective.iter().map(ToString::to_string)).collect()
    }

    /// The source of these settings.
    pub fn source(&self) -> ConfigSources {
        ConfigSources { text: Ok(self.text.clone()), files: self.files.clone() }
    }

    /// Reads everything from the disk.
    pub fn look(&self) -> ConfigSources {
        let text = match self.path.as_deref() {
            // an empty file would be a valid config
            Some(path) if is_stream(path) => Err(unreadable(path, "it is a pipe, which can be read only once")),
            path => read(path),
        };
        ConfigSources { text, files: self.files.look() }
    }

    /// Whether a file was written this recently: it may be incomplete.
    pub fn was_written_within(&self, time: Duration) -> bool {
        let fresh = |path: &Path| {
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
            modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < time))
        };
        self.path.iter().map(PathBuf::as_path).chain(self.files.paths()).any(fresh)
    }

    /// Creates settings from this source. Reports all errors, like [`Config::load`].
    pub fn reread(&self, found: ConfigSources) -> Result<Reread, ConfigError> {
        let ConfigSources { text, files: found } = found;
        let text = text?;
        let reader = || ConfigReader::new(self.path.as_deref(), &text, self.env.iter().cloned());
        let all = reader().with(Default::default(), found.clone());
        let (mut config, mut findings) = Config::read_from(all)?;
        let pins = self.values.pins(&findings.values);
        let mut needs_restart = Vec::new();
        if !pins.is_empty() {
            let written = findings.values;
            let keys: Vec<String> = pins.keys().cloned().collect();
            // what stays and what is new have to fit together, too
            (config, findings) = Config::read_from(reader().with(pins, found))?;
            needs_restart = findings.values.changes(&written);
            needs_restart.retain(|change| keys.contains(&change.key));
        }
        let changed = self.values.changes(&findings.values);
        let ConfigFindings { values, files, renamed, ineffective } = findings;
        let (path, env) = (self.path.clone(), self.env.clone());
        let settings = Self { config, renamed, ineffective, values, files, path, env, text };
        Ok(Reread { settings, changed, needs_restart })
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
