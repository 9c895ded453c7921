//! Tables whose names the user chooses.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::{ConfigReader, Leaf};
use crate::config::error::{ConfigProblem, Origin};
use crate::config::key::{env_name, env_word, quote, unquote};
use crate::config::shown::{show, show_text};
use crate::config::value::Setting;

impl ConfigReader<'_> {
    /// A table whose names the user chooses; `default` if it is empty. A variable of one entry adds that entry.
    pub fn get_table<T: Setting>(&mut self, key: &str, default: &str) -> BTreeMap<String, T> {
        let mut table = self.get_entries(key, default);
        let prefix = format!("{}__", env_name(key));
        let variables: Vec<String> = self.env.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
        for variable in variables {
            let Some(text) = self.env.remove(&variable) else { continue };
            let word = &variable[prefix.len()..];
            let known = table.keys().find(|name| env_word(name) == word).cloned();
            let name = known.unwrap_or_else(|| word.to_lowercase());
            let (entry, shown) = (format!("{key}.{}", quote(&name)), show_text(&text));
            let origin = Origin::Env(variable);
            if let Some(value) = T::from_text(&text) {
                self.known.insert(entry, (origin, shown));
                self.known.insert(key.to_owned(), (self.in_file(None), "a table".into()));
                table.insert(name, value);
            } else {
                let message = format!("found {shown}, expected {}", T::expected());
                self.problems.push(ConfigProblem { origin, key: entry, message });
            }
        }
        self.values.set(key, &table);
        table
    }

    /// The table of the file, or that of the variable of the whole table.
    fn get_entries<T: Setting>(&mut self, key: &str, default: &str) -> BTreeMap<String, T> {
        let prefix = format!("{key}.");
        let names: Vec<String> = self.file.keys().filter_map(|k| k.strip_prefix(&prefix)).map(str::to_owned).collect();
        let emptied = matches!(self.file.get(key), Some(Leaf { value: DeValue::Table(_), .. }));
        if emptied {
            self.file.remove(key);
        }
        if (names.is_empty() && !emptied) || self.env.contains_key(&env_name(key)) {
            self.file.retain(|k, _| !k.starts_with(&prefix));
            return self.get(key, default);
        }
        let mut table = BTreeMap::new();
        for name in names {
            let Some(leaf) = self.file.remove(&format!("{prefix}{name}")) else { continue };
            match T::from_toml(&leaf.value) {
                Some(value) => {
                    self.known.insert(format!("{prefix}{name}"), (self.in_file(Some(leaf.line)), show(&leaf.value)));
                    table.insert(unquote(&name), value);
                }
                None => {
                    let message = format!("found {}, expected {}", show(&leaf.value), T::expected());
                    let origin = self.in_file(Some(leaf.line));
                    self.problems.push(ConfigProblem { origin, key: format!("{prefix}{name}"), message });
                }
            }
        }
        self.known.insert(key.to_owned(), (self.in_file(None), "a table".into()));
        table
    }
}
