//! Reads one key after another from the environment, the file and the defaults, and collects all errors instead of
//! stopping at the first.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigProblem, Origin};
use super::files::FileContents;
use super::key::{ENV_PREFIX, env_name, env_word, quote, section_of, split_name};
use super::shown::{show, show_text};
use super::value::Setting;
use super::values::Values;

mod hidden;
mod renamed;
mod table;

pub use renamed::RenamedKey;

/// A value of the file that is not a table, or an empty table.
struct Leaf<'a> {
    value: DeValue<'a>,
    line: usize,
}

pub(super) struct ConfigReader<'a> {
    path: Option<&'a Path>,
    /// Values that were not read yet, by dotted key.
    file: BTreeMap<String, Leaf<'a>>,
    /// Variables that were not read yet, by full name.
    env: BTreeMap<String, String>,
    /// Names of variables that name no section.
    others: BTreeSet<String>,
    /// All keys that were read, with the origin of the value and its text for messages.
    known: BTreeMap<String, (Origin, String)>,
    /// Values that override everything else.
    pins: BTreeMap<String, SecretString>,
    /// Contents of files that are already known.
    found: FileContents,
    /// The values that were read.
    pub values: Values,
    pub files: FileContents,
    /// Keys that are set by an earlier name.
    pub renamed: Vec<RenamedKey>,
    /// Values that are accepted although they have no effect.
    ineffective: Vec<ConfigProblem>,
    is_toml: bool,
    problems: Vec<ConfigProblem>,
}

/// What was read beside the settings.
pub(super) struct ConfigFindings {
    pub values: Values,
    pub files: FileContents,
    pub renamed: Vec<RenamedKey>,
    pub ineffective: Vec<ConfigProblem>,
}

impl<'a> ConfigReader<'a> {
    pub fn new(path: Option<&'a Path>, text: &'a str, env: impl Iterator<Item = (String, String)>) -> Self {
        // Kubernetes sets PROMPT_ROLLBACK_PORT and the like for a service of that name, and the command line has
        // variables of its own: only names with a section belong to the config.
        let ours = env.filter(|(name, _)| name.starts_with(ENV_PREFIX));
        let (env, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            ours.partition(|(name, _)| name[ENV_PREFIX.len()..].contains("__"));
        let mut reader = Self {
            path,
            file: BTreeMap::new(),
            env,
            others: others.into_keys().collect(),
            known: BTreeMap::new(),
            pins: BTreeMap::new(),
            found: FileContents::default(),
            values: Values::default(),
            files: FileContents::default(),
            renamed: Vec::new(),
            ineffective: Vec::new(),
            is_toml: true,
            problems: Vec::new(),
        };
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line_of = |offset: usize| 1 + ends.partition_point(|end| *end < offset);
        let (table, errors) = DeTable::parse_recoverable(text);
        reader.is_toml = errors.is_empty();
        for error in &errors {
            let origin = reader.in_file(error.span().map(|span| line_of(span.start)));
            reader.problems.push(ConfigProblem { origin, key: String::new(), message: error.message().to_owned() });
        }
        if errors.is_empty() {
            flatten(table.into_inner(), "", &line_of, &mut reader.file);
        }
        reader.take_earlier_names();
        reader
    }

    /// Takes these values whatever is written, and these contents of files instead of looking.
    #[must_use]
    pub fn with(self, pins: BTreeMap<String, SecretString>, found: FileContents) -> Self {
        Self { pins, found, ..self }
    }

    /// Whether the file is valid TOML.
    pub fn is_readable(&self) -> bool {
        self.is_toml
    }

    /// Reads a dotted key; the default has the syntax of the environment.
    pub fn get<T: Setting>(&mut self, key: &str, default: &str) -> T {
        let or_default = || parsed_default(default);
        let hide = |shown: String| {
            if T::SECRET && shown != "\"\"" { "a value that is not shown here".into() } else { shown }
        };
        let pinned = self.pins.get(key).map(|text| text.expose_secret().to_owned());
        let (origin, shown, value) = if let Some(text) = pinned {
            self.take_env(key);
            self.file.remove(key);
            (Origin::InForce, hide(show_text(&text)), T::from_text(&text))
        } else if let Some((origin, text)) = self.take_env(key) {
            (origin, hide(show_text(&text)), T::from_text(&text))
        } else if let Some(leaf) = self.file.remove(key) {
            (self.in_file(Some(leaf.line)), hide(show(&leaf.value)), T::from_toml(&leaf.value))
        } else {
            let shown = if default.is_empty() { "nothing".into() } else { format!("the default {default:?}") };
            (self.in_file(None), shown, Some(or_default()))
        };
        self.known.insert(key.to_owned(), (origin, shown));
        let value = value.unwrap_or_else(|| {
            self.reject(key, &T::expected());
            or_default()
        });
        self.values.set(key, &value);
        value
    }

    /// Like [`Reader::get`], for a key that a running receiver cannot change.
    pub fn get_fixed<T: Setting>(&mut self, key: &str, default: &str) -> T {
        let value = self.get(key, default);
        self.values.set_fixed(key, &value);
        value
    }

    /// Like [`Reader::get`]; an empty text means that the key is not set.
    pub fn get_path(&mut self, key: &str) -> Option<PathBuf> {
        let path: PathBuf = self.get(key, "");
        if path.as_os_str().is_empty() {
            return None;
        }
        let path = self.beside_config(key, path);
        self.values.set(key, &path);
        Some(path)
    }

    /// A base URL, without a trailing slash.
    pub fn base_url(&mut self, key: &str, default: &str) -> String {
        let url: String = self.get(key, default);
        url.trim_end_matches('/').to_owned()
    }

    pub fn maybe_url(&mut self, key: &str, default: &str) -> Option<String> {
        Some(self.base_url(key, default)).filter(|url| !url.is_empty())
    }

    pub fn base_urls(&mut self, key: &str, default: &str) -> Vec<String> {
        let urls: Vec<String> = self.get(key, default);
        urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect()
    }

    /// Not a key: a value that is created after the files that other keys name were read.
    pub fn later<T>(&mut self, _: &str) -> Option<T> {
        None
    }

    /// The content of the file that `key` names; it becomes part of the key's value.
    pub fn content(&mut self, key: &str, path: &Path) -> io::Result<Vec<u8>> {
        let content = self.files.read(path, &self.found)?;
        self.values.add_content(key, &content);
        Ok(content)
    }

    /// Reports the value of a key that `get` has read, unless `ok`.
    pub fn check(&mut self, key: &str, ok: bool, expected: &str) {
        debug_assert!(self.known.contains_key(key), "{key} is no key");
        // a value that could not be read was reported already
        if !ok && !self.has_problem(key) {
            self.reject(key, expected);
        }
    }

    /// The key that gave a secret: its own, or that of its file.
    pub fn source_of(&self, key: &str) -> String {
        let file = format!("{key}_file");
        let by_file = self.known.get(&file).is_some_and(|(_, shown)| shown != "nothing");
        if by_file { file } else { key.to_owned() }
    }

    /// The key of an entry of a table, or that of the table if the entry has none, as in the environment.
    pub fn entry(&self, table: &str, name: &str) -> String {
        let key = format!("{table}.{}", quote(name));
        if self.known.contains_key(&key) { key } else { table.to_owned() }
    }

    pub fn has_problem(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key == key)
    }

    fn reject(&mut self, key: &str, expected: &str) {
        let found = self.known.get(key).map_or("nothing", |(_, shown)| shown);
        self.problem(key, format!("found {found}, expected {expected}"));
    }

    pub fn problem(&mut self, key: &str, mut message: String) {
        let origin = self.origin(key);
        if let Some(renamed) = self.renamed.iter().find(|renamed| renamed.key == key && renamed.origin == origin) {
            message.push_str(&format!(" ({} is the earlier name of this key)", renamed.earlier));
        }
        self.problems.push(ConfigProblem { origin, key: key.to_owned(), message });
    }

    /// Reports a value that is accepted although it has no effect: a receiver that refused it could not be restarted.
    pub fn warn(&mut self, key: &str, message: String) {
        let origin = self.origin(key);
        self.ineffective.push(ConfigProblem { origin, key: key.to_owned(), message });
    }

    /// Where a key was set or, for a table, the first of its keys that was set.
    fn origin(&self, key: &str) -> Origin {
        let inside = format!("{key}.");
        let of_table = self.known.iter().filter(|(known, _)| known.starts_with(&inside)).map(|(_, known)| known);
        let mut origins = self.known.get(key).into_iter().chain(of_table).map(|(origin, _)| origin);
        let any = origins.clone().next();
        let set = origins.find(|origin| matches!(origin, Origin::Env(_) | Origin::File { line: Some(_), .. }));
        set.or(any).cloned().unwrap_or(Origin::Default)
    }

    /// The names below `section`, which the user chooses, as in `section.NAME.key`.
    pub fn names(&mut self, section: &str, built_in: &[&str]) -> Vec<String> {
        if self.file.get(section).is_some_and(|leaf| matches!(leaf.value, DeValue::Table(_))) {
            self.file.remove(section); // an empty table
        }
        let mut names: Vec<String> = built_in.iter().map(|name| name.to_string()).collect();
        let prefix = format!("{section}.");
        for key in self.file.keys() {
            if let Some((name, _)) = key.strip_prefix(&prefix).and_then(split_name) {
                names.push(name.to_owned());
            } else if let Some(name) = key.strip_prefix(&prefix)
                && matches!(self.file[key].value, DeValue::Table(_))
            {
                names.push(name.to_owned());
            }
        }
        let env_prefix = format!("{}__", env_name(section));
        for variable in self.env.keys() {
            if let Some((name, _)) = variable.strip_prefix(&env_prefix).and_then(|rest| rest.split_once("__"))
                && !names.iter().any(|known| env_word(known) == name)
            {
                names.push(name.to_lowercase().replace('_', "-"));
            }
        }
        names.sort();
        names.dedup();
        names
    }

    /// All keys that were read so far.
    pub fn known_keys(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// Keys that were not read are unknown keys.
    pub fn finish(mut self) -> Result<ConfigFindings, ConfigError> {
        for (key, leaf) in std::mem::take(&mut self.file) {
            let is_section = self.known.keys().any(|known| known.starts_with(&format!("{key}.")));
            let message = match (&leaf.value, is_section) {
                (DeValue::Table(_), true) => continue,
                (value, true) => format!("found {}, expected a table", show(value)),
                (_, false) => self.siblings(&key),
            };
            let origin = self.in_file(Some(leaf.line));
            self.problems.push(ConfigProblem { origin, key, message });
        }
        if self.known.is_empty() {
            self.env.clear(); // the file could not be parsed, so no key was read
        }
        for name in std::mem::take(&mut self.env).into_keys() {
            let key = name[ENV_PREFIX.len()..].to_lowercase().replace("__", ".");
            let message = self.siblings(&key);
            self.problems.push(ConfigProblem { origin: Origin::Env(name), key, message });
        }
        for key in self.known.keys() {
            let name = env_name(key);
            let misspelt = name.replace("__", "_");
            if self.others.contains(&misspelt) {
                let message = format!("expected the name {name}, with two underscores after the section");
                self.problems.push(ConfigProblem { origin: Origin::Env(misspelt), key: key.clone(), message });
            }
        }
        if self.problems.is_empty() {
            let Self { values, files, renamed, ineffective, .. } = self;
            return Ok(ConfigFindings { values, files, renamed, ineffective });
        }
        for key in self.pins.into_keys() {
            let stays = self.known.get(&key).map_or("its value", |(_, shown)| shown);
            let message = format!("{stays}, which does not fit the rest of the config: restart to change both");
            self.problems.push(ConfigProblem { origin: Origin::InForce, key, message });
        }
        Err(ConfigError { problems: self.problems })
    }

    fn siblings(&self, key: &str) -> String {
        let inside = |section: &str| -> Vec<&str> {
            let prefix = format!("{section}.");
            self.known
                .keys()
                .filter_map(|known| known.strip_prefix(&prefix))
                .filter(|rest| !rest.contains('.'))
                .collect()
        };
        let mut section = section_of(key);
        while let Some(name) = section {
            let keys = inside(name);
            if !keys.is_empty() {
                return format!("unknown key, [{name}] has {}", keys.join(", "));
            }
            section = section_of(name);
        }
        let mut sections: Vec<&str> = self.known.keys().filter_map(|known| Some(known.split_once('.')?.0)).collect();
        sections.dedup();
        format!("unknown section, expected one of {}", sections.join(", "))
    }

    fn take_env(&mut self, key: &str) -> Option<(Origin, String)> {
        let name = env_name(key);
        let text = self.env.remove(&name)?;
        self.file.remove(key);
        let of_env = |renamed: &&RenamedKey| renamed.key == key && matches!(renamed.origin, Origin::Env(_));
        let earlier = self.renamed.iter().find(of_env).map(|renamed| renamed.origin.clone());
        Some((earlier.unwrap_or(Origin::Env(name)), text))
    }

    fn in_file(&self, line: Option<usize>) -> Origin {
        self.path.map_or(Origin::Default, |path| Origin::File { path: path.to_owned(), line })
    }

    /// Resolves a relative path from the file's own directory.
    fn beside_config(&self, key: &str, path: PathBuf) -> PathBuf {
        match (&self.known[key].0, self.path.and_then(Path::parent)) {
            (Origin::File { .. }, Some(dir)) => dir.join(path),
            _ => path,
        }
    }
}

fn flatten<'a>(
    table: DeTable<'a>,
    prefix: &str,
    line_of: &impl Fn(usize) -> usize,
    into: &mut BTreeMap<String, Leaf<'a>>,
) {
    for (name, value) in table {
        let line = line_of(name.span().start);
        let key = format!("{prefix}{}", quote(name.get_ref()));
        match value.into_inner() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(inner, &format!("{key}."), line_of, into),
            value => drop(into.insert(key, Leaf { value, line })),
        }
    }
}

#[allow(clippy::expect_used, reason = "defaults are written in this crate, and a test reads all of them")]
fn parsed_default<T: Setting>(text: &str) -> T {
    T::from_text(text).expect("a default is valid")
}
