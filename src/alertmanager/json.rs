//! JSON that is parsed only as deep as its fields are used, so that a bad value affects nothing else. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The fields of a JSON object, with unparsed values.
#[derive(Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// The object has this field twice: parsers disagree on which one counts.
pub struct Repeated;

impl<'a> Object<'a> {
    /// Returns `None` if `value` is not an object.
    pub fn new(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok()
    }

    /// Returns a field. `null` counts as absent.
    pub fn get(&self, name: &str) -> Result<Option<&'a RawValue>, Repeated> {
        let mut found = self.0.iter().filter(|(field, _)| field == name).map(|(_, value)| *value);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(Repeated),
            (value, None) => Ok(value.filter(|value| !is_null(value))),
        }
    }

    /// All fields except those that are `null`.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().filter(|(_, value)| !is_null(value)).map(|(name, value)| (&**name, *value))
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((LossyText(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// The fields of an alert, and of its labels and annotations.
#[derive(Default)]
pub struct Sections<'a> {
    pub own: Object<'a>,
    pub labels: Option<Object<'a>>,
    pub annotations: Option<Object<'a>>,
}

impl<'de> Deserialize<'de> for Sections<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SectionsVisitor;
        impl<'de> Visitor<'de> for SectionsVisitor {
            type Value = Sections<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut sections = Sections::default();
                while let Some(LossyText(name)) = map.next_key()? {
                    let section = match &*name {
                        "labels" => &mut sections.labels,
                        "annotations" => &mut sections.annotations,
                        _ => {
                            sections.own.0.push((name, map.next_value()?));
                            continue;
                        }
                    };
                    if section.replace(map.next_value()?).is_some() {
                        return Err(A::Error::custom("the field twice"));
                    }
                }
                Ok(sections)
            }
        }
        deserializer.deserialize_map(SectionsVisitor)
    }
}

/// Converts one item of a list; `None` if it cannot.
type Make<'m, 'a, T> = dyn FnMut(Sections<'a>) -> Option<T> + 'm;

/// Parses an object in one pass: the items of its field `list`, converted by `make`, and its other fields. Returns
/// `None` if anything is invalid, without saying what.
pub fn in_one_pass<'a, T>(
    json: &'a str,
    list: &str,
    most: usize,
    make: &mut Make<'_, 'a, T>,
) -> Option<(Vec<T>, Object<'a>)> {
    struct Whole<'r, 'm, 'a, T>(&'r str, ItemsSeed<'r, 'm, 'a, T>);
    struct ItemsSeed<'r, 'm, 'a, T>(usize, &'r mut Make<'m, 'a, T>);

    impl<'a, T> Visitor<'a> for Whole<'_, '_, 'a, T> {
        type Value = (Vec<T>, Object<'a>);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let (mut items, mut rest, mut other) = (None, Some(self.1), Object::default());
            while let Some(LossyText(name)) = map.next_key()? {
                if name == self.0 {
                    let seed = rest.take().ok_or_else(|| A::Error::custom("the field twice"))?;
                    items = Some(map.next_value_seed(seed)?);
                } else {
                    other.0.push((name, map.next_value()?));
                }
            }
            Ok((items.ok_or_else(|| A::Error::custom("no such field"))?, other))
        }
    }

    impl<'a, T> DeserializeSeed<'a> for ItemsSeed<'_, '_, 'a, T> {
        type Value = Vec<T>;

        fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_seq(self)
        }
    }

    impl<'a, T> Visitor<'a> for ItemsSeed<'_, '_, 'a, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let ItemsSeed(most, make) = self;
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                let made = if items.len() < most { make(item) } else { None };
                items.push(made.ok_or_else(|| A::Error::custom("an item"))?);
            }
            items.shrink_to_fit(); // they are kept until the answer
            Ok(items)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = deserializer.deserialize_map(Whole(list, ItemsSeed(most, make))).ok()?;
    deserializer.end().ok()?;
    Some(read)
}

/// The unparsed items of a JSON list; `None` if `value` is not a list, or has more than `most` items.
pub fn list(value: &RawValue, most: usize) -> Option<Vec<&RawValue>> {
    struct ListVisitor(usize);
    impl<'de> Visitor<'de> for ListVisitor {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while items.len() < self.0
                && let Some(item) = seq.next_element()?
            {
                items.push(item);
            }
            Ok(items) // trailing text is an error
        }
    }
    serde_json::Deserializer::from_str(value.get()).deserialize_seq(ListVisitor(most)).ok()
}

/// The text of a JSON string; `None` for another value. Half of a surrogate pair becomes U+FFFD, as in most languages.
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(value.get()).ok().map(|LossyText(text)| text)
}

/// The text of a JSON string, or the source of any other value.
pub fn written(value: &RawValue) -> Cow<'_, str> {
    text(value).unwrap_or(Cow::Borrowed(value.get()))
}

/// `String::from_utf8_lossy`, in a third of the time for valid UTF-8.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The type, for messages.
pub fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'n') => "null",
        Some(b't' | b'f') => "true or false",
        Some(b'"') => "a text",
        Some(b'[') => "a list",
        Some(b'{') => "an object",
        _ => "a number",
    }
}

fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// A string that need not be valid Unicode after unescaping.
struct LossyText<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for LossyText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> Visitor<'de> for Bytes {
            type Value = LossyText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(LossyText(lossy(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(LossyText(Cow::Owned(lossy(bytes).into_owned())))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
