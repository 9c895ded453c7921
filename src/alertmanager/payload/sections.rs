//! The fields of an alert as they are written. A field that is there twice is a fault.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{Why, shorten};
use crate::alertmanager::json::{Object, Repeated, kind, text, written};

/// An alert, its labels and its annotations.
pub(super) struct AlertSections<'a> {
    pub(super) alert: AlertSection<'a>,
    pub(super) labels: AlertSection<'a>,
    pub(super) annotations: AlertSection<'a>,
}

impl<'a> AlertSections<'a> {
    pub(super) fn new(alert: Object<'a>, labels: Object<'a>, annotations: Object<'a>) -> Self {
        Self {
            alert: AlertSection { path: "", fields: alert },
            labels: AlertSection { path: "labels.", fields: labels },
            annotations: AlertSection { path: "annotations.", fields: annotations },
        }
    }

    pub(super) fn of(raw: &'a RawValue) -> Result<Self, Why> {
        let object = |name, value| Object::new(value).ok_or_else(|| misread("", name, "an object", Some(value)));
        let alert = AlertSection { path: "", fields: object("alert", raw)? };
        let labels = alert.get("labels")?.map(|labels| object("labels", labels)).transpose()?;
        let annotations = alert.get("annotations")?.and_then(Object::new);
        Ok(Self::new(alert.fields, labels.unwrap_or_default(), annotations.unwrap_or_default()))
    }
}

/// An alert, or its labels or annotations.
pub(super) struct AlertSection<'a> {
    path: &'static str,
    pub(super) fields: Object<'a>,
}

impl<'a> AlertSection<'a> {
    pub(super) fn get(&self, name: &str) -> Result<Option<&'a RawValue>, Why> {
        let twice = |Repeated| Why::malformed(format!("{}{name}: expected one value, found two", self.path));
        self.fields.get(name).map_err(twice)
    }

    pub(super) fn written(&self, name: &str) -> Result<Option<Cow<'a, str>>, Why> {
        Ok(self.get(name)?.map(written))
    }

    /// A text, or a whole number, which programs write for a version such as 3.
    pub(super) fn name(&self, name: &str, value: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, Why> {
        let number = |value: &'a RawValue| {
            let digits = Some(value.get()).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            digits.map(Cow::Borrowed)
        };
        let expected = |value| text(value).or_else(|| number(value));
        let read =
            |value| expected(value).ok_or_else(|| misread(self.path, name, "a text or a whole number", Some(value)));
        value.map(read).transpose()
    }
}

pub(super) fn misread(path: &str, name: &str, expected: &str, found: Option<&RawValue>) -> Why {
    let found = match found.map(|value| (text(value), kind(value))) {
        None => Cow::Borrowed("nothing"),
        Some((Some(text), _)) => Cow::Owned(format!("{:?}", shorten(&text, 40))),
        Some((None, kind)) => Cow::Borrowed(kind),
    };
    Why::malformed(format!("{path}{name}: expected {expected}, found {found}"))
}
