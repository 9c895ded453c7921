//! Changes of someone's YAML file, shown as a patch: whole lines are added, and single values are replaced.

use similar::TextDiff;

use crate::yaml::{Position, YamlError, YamlNode};

/// Changes of a text. They do not overlap.
pub struct Edits {
    /// With a line break at its end, which `patch` adds too.
    text: String,
    /// From where, to where (in bytes), and by what.
    changes: Vec<(usize, usize, String)>,
    /// What must be done by hand, because that part of the file is in flow style.
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

    fn not_in_flow_style(&mut self, node: &YamlNode<'_>, lines: &[String]) {
        let (path, line, lines) = (&node.path, node.line(), lines.join("\n"));
        self.by_hand.push(format!("Add to {path} (line {line}), which is in flow style:\n{lines}"));
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

    /// Adds an entry to a table; `lines` begins with its key.
    pub fn add_entry(&mut self, table: &YamlNode<'_>, lines: &[String]) -> Result<(), YamlError> {
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
            _ => self.not_in_flow_style(table, lines),
        }
        Ok(())
    }

    /// Adds items before those of a list in block style; `lines` begins with a dash.
    pub fn add_items(&mut self, list: &YamlNode<'_>, lines: &[String]) {
        let after = list.key.map_or(list.line(), |key| key.line);
        let following =
            self.text.lines().skip(after).find(|line| !matches!(line.trim().chars().next(), None | Some('#')));
        match following.map(|line| line.len() - line.trim_start().len()) {
            Some(columns) if !list.yaml.flow && following.is_some_and(|line| line.trim().starts_with('-')) => {
                self.add_lines(after + 1, columns, lines);
            }
            _ => self.not_in_flow_style(list, lines),
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
            None => self.add_entry(table, &[format!("{key}: {value}")]),
        }
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
