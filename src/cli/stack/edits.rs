//! Changes of someone's YAML file, shown as a patch: whole lines are added, and single values are replaced.

use similar::TextDiff;

use crate::yaml::{Position, YamlError, YamlNode};

/// Changes of a text. They do not overlap.
pub struct Edits {
    /// The text, with a line break at its end, because `patch` adds one as well.
    text: String,
    /// The changes: start and end in bytes, and the new text.
    changes: Vec<(usize, usize, String)>,
    /// Changes that a person must make, because that part of the file is in flow style.
    pub by_hand: Vec<String>,
}

impl Edits {
    pub fn new(text: &str) -> Self {
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        Self { text: format!("{text}{end}"), changes: Vec::new(), by_hand: Vec::new() }
    }

    /// The same change twice is that of a value that is used twice, by its anchor.
    fn change(&mut self, from: usize, to: usize, by: String) {
        let change = (from, to, by);
        if !self.changes.contains(&change) {
            self.changes.push(change);
        }
    }

    fn add_by_hand(&mut self, node: &YamlNode<'_>, lines: &[String]) {
        let (path, line, lines) = (&node.path, node.line(), lines.join("\n"));
        let why = if node.yaml.flow { ", which is in flow style" } else { "" };
        self.by_hand.push(format!("Add to {path} (line {line}){why}:\n{lines}"));
    }

    fn line(&self, line: usize) -> &str {
        self.text.split_inclusive('\n').nth(line.saturating_sub(1)).unwrap_or_default()
    }

    /// The byte at which a line begins; the end of the text for the line after the last.
    fn line_start(&self, line: usize) -> usize {
        self.text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum()
    }

    fn byte(&self, place: Position) -> usize {
        let line = self.line(place.line);
        let column = line.char_indices().nth(place.column).map_or(line.len(), |(at, _)| at);
        self.line_start(place.line) + column
    }

    /// Adds lines before a line, indented by `columns`.
    fn add_lines(&mut self, before: usize, columns: usize, lines: &[String]) {
        let at = self.line_start(before);
        self.change(at, at, lines.iter().map(|line| format!("{:columns$}{line}\n", "")).collect());
    }

    /// Puts lines below a key of a table, which may have the key already, without a value or with an empty one.
    pub fn put(&mut self, table: &YamlNode<'_>, key: &str, below: &[String]) -> Result<(), YamlError> {
        let lines: Vec<String> =
            std::iter::once(format!("{key}:")).chain(below.iter().map(|line| format!("  {line}"))).collect();
        let Some(place) = table.key(key) else { return self.add_entries(table, &lines) };
        match self.empty_value(table, key, place) {
            Some((from, to)) => {
                if from < to {
                    self.change(from, to, String::new());
                }
                self.add_lines(place.line + 1, place.column + 2, below);
            }
            None => {
                let lines = lines.join("\n");
                self.by_hand.push(format!("Replace {key} of {} (line {}) by:\n{lines}", shown(table), place.line));
            }
        }
        Ok(())
    }

    /// What stands for an empty value after a key on its line, with the blanks before it, in bytes. `None` if there is
    /// something else, such as an anchor.
    fn empty_value(&self, table: &YamlNode<'_>, key: &str, place: Position) -> Option<(usize, usize)> {
        let at = self.byte(place);
        let line = self.line(place.line);
        // a merged table has it elsewhere
        let is_here = (table.yaml.start..=table.yaml.end).contains(&place);
        let rest = line.get(at - self.line_start(place.line)..).filter(|_| is_here && !table.yaml.flow)?;
        let quoted = ['\'', '"'].map(|mark| format!("{mark}{key}{mark}"));
        let name = [key, &quoted[0], &quoted[1]].into_iter().find(|name| rest.starts_with(*name))?;
        let value = rest[name.len()..].trim_start().strip_prefix(':')?;
        let from = at + rest.len() - value.len();
        let bare = value.trim_start();
        let blanks = value.len() - bare.len();
        let bare = bare.trim_end();
        let empty = ["null", "Null", "NULL", "~", "[]", "{}"].into_iter().find(|empty| bare.starts_with(empty));
        let length = empty.map_or(0, str::len);
        let follows = bare[length..].trim_start();
        (follows.is_empty() || follows.starts_with('#'))
            .then_some((from, if length == 0 { from } else { from + blanks + length }))
    }

    /// Adds entries to a table that has none of these keys.
    pub fn add_entries(&mut self, table: &YamlNode<'_>, lines: &[String]) -> Result<(), YamlError> {
        let within = |place: &Position| (table.yaml.start..=table.yaml.end).contains(place);
        let entries = table.entries()?;
        let mut own = entries.iter().filter_map(|(_, node)| Some((node.key.filter(within)?, node.yaml.end)));
        let first = own.next();
        let alone = |place: &Position| self.line(place.line).chars().take(place.column).all(|c| c == ' ');
        let place = first.into_iter().chain(own).map(|(key, _)| key).find(alone);
        match (table.yaml.flow, place, first) {
            (false, Some(place), _) => self.add_lines(place.line, place.column, lines),
            // the table has one entry, beside the dash of its list
            (false, None, Some((key, end))) => {
                let next = if end.column == 0 { end.line } else { end.line + 1 };
                self.add_lines(next.max(key.line + 1), key.column, lines);
            }
            _ => self.add_by_hand(table, lines),
        }
        Ok(())
    }

    /// Adds items before those of a list in block style; `lines` begins with a dash.
    pub fn add_items(&mut self, list: &YamlNode<'_>, lines: &[String]) {
        let after = list.key.map_or(list.line(), |key| key.line);
        let following =
            self.text.lines().skip(after).find(|line| !matches!(line.trim().chars().next(), None | Some('#')));
        // an alias: the list is elsewhere, and used by others too
        let is_here = list.key.is_none_or(|key| key < list.yaml.start);
        match following.map(|line| line.len() - line.trim_start().len()) {
            Some(columns)
                if is_here && !list.yaml.flow && following.is_some_and(|line| line.trim().starts_with('-')) =>
            {
                self.add_lines(after + 1, columns, lines);
            }
            _ => self.add_by_hand(list, lines),
        }
    }

    /// Adds a text to a list of texts, in the list's own style.
    pub fn add_text(&mut self, list: &YamlNode<'_>, text: &str) -> Result<(), YamlError> {
        match list.items()?.first() {
            Some(first) if list.yaml.flow => {
                let at = self.byte(first.yaml.start);
                self.change(at, at, format!("{text}, "));
            }
            _ => self.add_items(list, &[format!("- {text}")]),
        }
        Ok(())
    }

    /// Sets a value of a table.
    pub fn set(&mut self, table: &YamlNode<'_>, key: &str, value: &str) -> Result<(), YamlError> {
        match table.get(key)? {
            Some(old) if !table.yaml.flow && old.yaml.start.line == old.yaml.end.line => {
                self.change(self.byte(old.yaml.start), self.byte(old.yaml.end), value.to_owned());
                Ok(())
            }
            Some(old) => {
                self.by_hand.push(format!("Set {} (line {}) to {value}", old.path, old.line()));
                Ok(())
            }
            None if table.key(key).is_some() => {
                self.by_hand.push(format!("Set {key} of {} (line {}) to {value}", shown(table), table.line()));
                Ok(())
            }
            None => self.add_entries(table, &[format!("{key}: {value}")]),
        }
    }

    /// All changes, for a person who has to make them.
    pub fn all_by_hand(&self) -> Vec<String> {
        let line = |at: usize| self.text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        let told = |(from, to, by): &(usize, usize, String)| {
            let old = self.text.get(*from..*to).unwrap_or_default().trim();
            let new = by.trim_end();
            match (old, new) {
                ("", new) => format!("Add before line {}:\n{new}", line(*from)),
                (old, "") => format!("Remove {old} from line {}", line(*from)),
                (old, new) => format!("Replace {old} in line {} by {new}", line(*from)),
            }
        };
        self.by_hand.iter().cloned().chain(self.changes.iter().map(told)).collect()
    }

    pub fn applied(&self) -> String {
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by_key(|(from, _, _)| *from); // stable: what is added at one place stays in order
        let (mut text, mut done) = (String::new(), 0);
        for (from, to, by) in changes {
            text.push_str(self.text.get(done..*from).unwrap_or_default());
            text.push_str(by);
            done = (*to).max(done);
        }
        text.push_str(self.text.get(done..).unwrap_or_default());
        text
    }

    /// The changes in the format of `patch`, without other lines of the file, which may hold secrets.
    pub fn patch(&self, path: &str) -> String {
        let new = self.applied();
        let diff = TextDiff::from_lines(&self.text, &new);
        diff.unified_diff().context_radius(0).header(path, path).to_string()
    }
}

fn shown<'a>(node: &'a YamlNode<'_>) -> &'a str {
    if node.path.is_empty() { "the file" } else { &node.path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Yaml;

    fn edits(text: &str) -> Edits {
        let yaml = Yaml::parse(text).expect(text);
        let mut edits = Edits::new(text);
        edits.put(&YamlNode::root(&yaml), "b", &["- c".to_owned()]).expect(text);
        edits
    }

    #[test]
    fn an_empty_value_is_replaced_in_its_place() {
        for (text, expected) in [
            ("a: 1\n", "b:\n  - c\na: 1\n"),
            ("b:\na: 1", "b:\n  - c\na: 1\n"),
            ("b: [] # none\na: 1\n", "b: # none\n  - c\na: 1\n"),
            ("'b' : null\n", "'b' :\n  - c\n"),
            ("b: ~\n# more\n", "b:\n  - c\n# more\n"),
        ] {
            let edits = edits(text);
            assert_eq!((edits.applied().as_str(), edits.by_hand.len()), (expected, 0), "{text}");
        }
        for text in ["b: &x\na: 1\n", "b: [\n  ]\n", "{b: }\n", "<<: {b: }\n"] {
            let edits = edits(text);
            assert_eq!((edits.applied().as_str(), edits.by_hand.len()), (text, 1), "{text}");
        }
    }

    #[test]
    fn changes_that_are_no_patch_are_listed_in_full() {
        let told = edits("b: []\na: 1\n").all_by_hand();
        assert_eq!(told, ["Remove [] from line 1", "Add before line 2:\n  - c"]);
    }
}
