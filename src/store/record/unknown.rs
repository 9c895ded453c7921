//! Fields of a record that this release does not know: written by a later receiver, and kept for it.

use std::collections::BTreeMap;

use serde_ignored::Path;
use serde_json::Value;
use serde_json::map::Entry;

use crate::decision::IncidentId;

const SCHEMA: &str = "schema";
const INCIDENTS: &str = "incidents";

/// The unknown fields of a record; usually none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unknown(Option<Box<UnknownFields>>);

/// The unknown fields of one value, and of the values inside it.
#[derive(Debug, Clone, Default, PartialEq)]
struct UnknownFields {
    /// Fields that are unknown as a whole.
    whole: BTreeMap<String, Value>,
    fields: BTreeMap<String, UnknownFields>,
    items: Vec<Item>,
}

/// An item of a list, identified by some of its fields.
#[derive(Debug, Clone, Default, PartialEq)]
struct Item {
    name: Name,
    part: UnknownFields,
}

type Name = Vec<Option<Value>>;

/// A step from a value to one inside it.
#[derive(Debug)]
pub(super) enum PathStep {
    Key(String),
    Index(usize),
}

/// The path to a value that serde ignored.
pub(super) fn steps(path: &Path<'_>) -> Vec<PathStep> {
    let (parent, step) = match path {
        Path::Root => return Vec::new(),
        Path::Seq { parent, index } => (parent, Some(PathStep::Index(*index))),
        Path::Map { parent, key } => (parent, Some(PathStep::Key(key.clone()))),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => (parent, None),
    };
    let mut steps = steps(parent);
    steps.extend(step);
    steps
}

/// Whether this is the schema number of the whole record, which is written anew.
pub(super) fn is_schema(steps: &[PathStep]) -> bool {
    matches!(steps, [PathStep::Key(key)] if key == SCHEMA)
}

impl Unknown {
    /// Takes the values at `paths` out of a record.
    pub(super) fn new(record: &Value, paths: &[Vec<PathStep>]) -> Self {
        let mut part = UnknownFields::default();
        for path in paths {
            part.add(record, path);
        }
        part.name_items(record);
        Self(Some(Box::new(part)))
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Puts the fields back where they were, except in values that are gone. Returns whether there were others.
    pub(super) fn put_into(&self, record: &mut Value) -> bool {
        self.0.as_ref().is_some_and(|part| part.put_into(record))
    }

    /// The unknown fields of an incident in a state.
    pub fn of_incident(&self, id: &IncidentId) -> Unknown {
        let incidents = self.0.as_ref().and_then(|part| part.fields.get(INCIDENTS));
        let Some(item) = incidents.and_then(|part| part.items.iter().find(|item| item.is(id))) else {
            return Self::default();
        };
        let mut part = item.part.clone();
        part.whole.remove(SCHEMA); // a record of its own already has one
        Self(Some(Box::new(part)))
    }

    /// Adds the unknown fields of an incident that is open again: they move with the incident.
    pub(in crate::store) fn adopt(&mut self, id: &IncidentId, of: Unknown) {
        let Some(part) = of.0 else { return };
        let items = &mut self.0.get_or_insert_default().fields.entry(INCIDENTS.to_owned()).or_default().items;
        if !items.iter().any(|item| item.is(id)) {
            items.push(Item { name: vec![Some(Value::from(id.0.as_str()))], part: *part });
        }
    }
}

impl Item {
    fn is(&self, id: &IncidentId) -> bool {
        self.name.first().is_some_and(|name| name.as_ref().and_then(Value::as_str) == Some(&id.0))
    }
}

impl UnknownFields {
    fn add(&mut self, value: &Value, path: &[PathStep]) {
        match path {
            [] => {}
            [PathStep::Key(key)] => {
                if let Some(value) = value.get(key) {
                    self.whole.insert(key.clone(), value.clone());
                }
            }
            [PathStep::Key(key), rest @ ..] => {
                if let Some(value) = value.get(key) {
                    self.fields.entry(key.clone()).or_default().add(value, rest);
                }
            }
            [PathStep::Index(index), rest @ ..] => {
                let Some(items) = value.as_array() else { return };
                let Some(value) = items.get(*index) else { return };
                // all items, so that two items with the same name each find their own
                if self.items.is_empty() {
                    self.items = items.iter().map(|_| Item::default()).collect();
                }
                self.items[*index].part.add(value, rest);
            }
        }
    }

    /// Identifies the items by their known fields, once it is known which these are.
    fn name_items(&mut self, value: &Value) {
        for (key, part) in &mut self.fields {
            part.name_items(&value[key.as_str()]);
        }
        for (at, Item { name, part }) in self.items.iter_mut().enumerate() {
            *name = name_of(&value[at], &part.whole);
            part.name_items(&value[at]);
        }
    }

    fn put_into(&self, value: &mut Value) -> bool {
        let mut any = false;
        match value {
            Value::Object(fields) => {
                for (key, part) in &self.fields {
                    any |= fields.get_mut(key).is_some_and(|field| part.put_into(field));
                }
                for (key, value) in &self.whole {
                    if let Entry::Vacant(entry) = fields.entry(key) {
                        entry.insert(value.clone());
                        any = true;
                    }
                }
            }
            Value::Array(items) => {
                let mut left: Vec<&Item> = self.items.iter().collect();
                for item in items {
                    let name = name_of(item, &BTreeMap::new());
                    if let Some(at) = left.iter().position(|one| one.name == name) {
                        any |= left.remove(at).part.put_into(item);
                    }
                }
            }
            _ => {}
        }
        any
    }
}

/// The fields that identify an item of a list and never change: its id, or else all of these that it has.
fn name_of(item: &Value, unknown: &BTreeMap<String, Value>) -> Name {
    let known = |name: &str| item.get(name).filter(|_| !unknown.contains_key(name)).cloned();
    match known("id") {
        Some(id) => vec![Some(id)],
        None => ["fingerprint", "version", "seq"].iter().map(|name| known(name)).collect(),
    }
}
