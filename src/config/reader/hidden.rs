//! Values that messages and logs omit, which may be in files of their own.

use secrecy::{ExposeSecret, SecretString};

use super::{ConfigReader, parsed_default};
use crate::config::key::env_name;
use crate::config::secret::{bare, decode, unfit};
use crate::config::value::Setting;

/// A text that messages omit.
struct Hidden(String);

impl Setting for Hidden {
    const SECRET: bool = true;

    fn expected() -> String {
        "a string".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl ConfigReader<'_> {
    /// A secret text; empty means that the key is not set.
    pub fn secret(&mut self, key: &str) -> Option<SecretString> {
        let text = self.hidden(key).map(|(_, text)| text);
        self.values.set_secret(key, text.clone().unwrap_or_default());
        text.map(SecretString::from)
    }

    /// A secret for a header. One that no header can carry would be refused as wrong for ever.
    pub fn token(&mut self, key: &str) -> Option<SecretString> {
        let found = self.hidden(key);
        self.values.set_secret(key, found.as_ref().map(|(_, text)| text.clone()).unwrap_or_default());
        let (key, text) = found?;
        if let Some(why) = unfit(&text)
            && !self.has_problem(&key)
        {
            self.problem(&key, why);
        }
        Some(SecretString::from(text))
    }

    /// A secret value of a key that a running receiver cannot change.
    pub fn get_fixed_hidden<T: Setting>(&mut self, key: &str, default: &str) -> T {
        let given = self.hidden(key).and_then(|(key, text)| {
            let value = T::from_text(&text);
            if value.is_none() {
                self.reject(&key, &T::expected());
            }
            value
        });
        let mut value = given.unwrap_or_else(|| parsed_default(default));
        // from a file that is watched for the part that may change
        let stays = self.pins.get(key).and_then(|text| T::from_text(text.expose_secret()));
        if let Some(stays) = stays.filter(|stays| stays.fixed_part() != value.fixed_part()) {
            value = stays;
        }
        self.values.set_fixed(key, &value);
        value
    }

    /// Reads `key`, or the file named by `key_file`, and returns which of the two it was. Either of them in the
    /// environment overrides both in the config file.
    fn hidden(&mut self, key: &str) -> Option<(String, String)> {
        let file_key = format!("{key}_file");
        if self.env.contains_key(&env_name(key)) || self.env.contains_key(&env_name(&file_key)) {
            self.file.remove(key);
            self.file.remove(&file_key);
        }
        let mut direct = self.get::<Hidden>(key, "").0;
        let path = self.get_path(&file_key);
        let from_file = path.is_some();
        if path.is_some() && self.pins.contains_key(key) {
            direct.clear(); // the earlier content of that file
        }
        let (key, text) = match path {
            None if direct.is_empty() => return None,
            None => (key.to_owned(), direct),
            Some(_) if !direct.is_empty() => {
                self.reject(&file_key, &format!("only one of {key} and {file_key}"));
                return None;
            }
            Some(path) => {
                let read = self.files.read(&path, &self.found).map_err(|error| error.to_string());
                match read.and_then(|bytes| Ok(decode(&bytes)?.to_owned())) {
                    Ok(text) => (file_key, text),
                    Err(error) => {
                        self.problem(&file_key, format!("cannot read {}: {error}", path.display()));
                        return None;
                    }
                }
            }
        };
        let text = bare(&text).to_owned();
        if text.is_empty() {
            if from_file {
                self.reject(&key, "a file that holds the secret, but that file is empty");
            } else {
                self.problem(&key, "found only blanks, expected a secret, or \"\" for none".into());
            }
        } else if text.chars().any(char::is_control) {
            self.problem(&key, "found a line break or control character inside, expected one line of text".into());
        }
        Some((key, text))
    }
}
