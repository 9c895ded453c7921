//! A config that can be read again: all of it, or only the files that it names.

use std::path::{Path, PathBuf};

use super::Config;
use super::error::{ConfigError, Origin, Problem};
use super::files::{Files, is_stream};
use super::reader::Reader;
use super::values::{Change, Values};

/// A config, and where it comes from.
#[derive(Clone)]
pub struct Settings {
    pub config: Config,
    values: Values,
    files: Files,
    path: Option<PathBuf>,
    env: Vec<(String, String)>,
    /// Of the config file.
    text: String,
}

/// Without the text, which may hold secrets.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.config.fmt(f)
    }
}

/// A config that was read again, and how it differs.
#[derive(Debug, Clone)]
pub struct Reread {
    /// What is to be in force: with the old values of what needs a restart.
    pub settings: Settings,
    pub changed: Vec<Change>,
    /// What is written and is not in force before a restart.
    pub needs_restart: Vec<Change>,
}

impl Settings {
    pub fn load(path: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let path = path.map(Path::to_owned);
        let (text, env) = (read(path.as_deref())?, env.collect::<Vec<_>>());
        let reader = Reader::new(path.as_deref(), &text, env.iter().cloned());
        let (config, values, files) = Config::read_from(reader)?;
        Ok(Self { config, values, files, path, env, text })
    }

    /// The files that the config names, as they were read.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Reads everything again. What is wrong is all reported, as by [`Config::load`].
    pub fn reread(&self) -> Result<Reread, ConfigError> {
        // a pipe holds nothing any more, which would be a valid config
        if let Some(path) = self.path.as_deref().filter(|path| is_stream(path)) {
            return Err(unreadable(path, "it is a pipe, which can be read only once"));
        }
        self.reread_as(read(self.path.as_deref())?, self.files.look())
    }

    /// Takes over what the files that the config names hold now. The config file stays as it was read.
    pub fn reread_files(&self, files: Files) -> Result<Reread, ConfigError> {
        self.reread_as(self.text.clone(), files)
    }

    fn reread_as(&self, text: String, found: Files) -> Result<Reread, ConfigError> {
        let reader = || Reader::new(self.path.as_deref(), &text, self.env.iter().cloned());
        let all = reader().with(Default::default(), found.clone());
        let (mut config, mut values, mut files) = Config::read_from(all)?;
        let pins = self.values.pins(&values);
        let mut needs_restart = Vec::new();
        if !pins.is_empty() {
            let written = values;
            let keys: Vec<String> = pins.keys().cloned().collect();
            // what stays and what is new have to fit together, too
            (config, values, files) = Config::read_from(reader().with(pins, found))?;
            needs_restart = values.changes(&written);
            needs_restart.retain(|change| keys.contains(&change.key));
        }
        let changed = self.values.changes(&values);
        let (path, env) = (self.path.clone(), self.env.clone());
        Ok(Reread { settings: Self { config, values, files, path, env, text }, changed, needs_restart })
    }
}

fn read(path: Option<&Path>) -> Result<String, ConfigError> {
    let Some(path) = path else { return Ok(String::new()) };
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error.to_string()))
}

fn unreadable(path: &Path, why: &str) -> ConfigError {
    let origin = Origin::File { path: path.to_owned(), line: None };
    let message = format!("cannot read the config file: {why}");
    ConfigError { problems: vec![Problem { origin, key: String::new(), message }] }
}
