//! Names of keys: dotted in the file, `PROMPT_ROLLBACK_SECTION__KEY` in the environment.

/// What the name of every variable begins with.
pub(super) const ENV_PREFIX: &str = "PROMPT_ROLLBACK_";

/// As TOML writes a key; so a dot inside a name never looks like a level.
pub(super) fn quote(name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { name.to_owned() } else { format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")) }
}

/// The first name of a dotted key, and the rest.
pub(super) fn split_name(key: &str) -> Option<(&str, &str)> {
    let dot = dots(key).next()?;
    Some((&key[..dot], &key[dot + 1..]))
}

/// All names of a dotted key but the last.
pub(super) fn section_of(key: &str) -> Option<&str> {
    Some(&key[..dots(key).last()?])
}

/// The positions of the dots that separate names; a quoted name may contain dots.
pub(super) fn dots(key: &str) -> impl Iterator<Item = usize> {
    let (mut quoted, mut escaped) = (false, false);
    let is_dot = move |byte: u8| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'.' => return !quoted,
            _ => {}
        }
        false
    };
    key.bytes().map(is_dot).enumerate().filter_map(|(at, is_dot)| is_dot.then_some(at))
}

/// The reverse of [`quote`].
pub(super) fn unquote(name: &str) -> String {
    let Some(quoted) = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return name.to_owned() };
    let (mut plain, mut rest) = (String::new(), quoted.chars());
    while let Some(c) = rest.next() {
        plain.extend(if c == '\\' { rest.next() } else { Some(c) });
    }
    plain
}

pub(super) fn env_word(word: &str) -> String {
    word.to_uppercase().replace('-', "_")
}

pub(super) fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.split('.').map(env_word).collect::<Vec<_>>().join("__"))
}
