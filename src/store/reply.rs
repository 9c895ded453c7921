//! Replies of scripts.

use redis::Value;

use super::error::StoreError;

/// Returns the number at the start of the reply, and the rest.
pub(super) fn read_code(reply: Value) -> Result<(i64, ReplyItems), StoreError> {
    let unexpected = || StoreError::unexpected("a script");
    let mut fields = ReplyItems::of(reply).ok_or_else(unexpected)?;
    Ok((fields.number().ok_or_else(unexpected)?, fields))
}

pub(super) fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

/// The fields of a hash, sorted.
pub(super) fn pairs(value: Option<Value>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields = ReplyItems(value.and_then(array).unwrap_or_default().into_iter());
    let mut pairs = Vec::new();
    while let (Some(field), Some(value)) = (fields.bytes(), fields.bytes()) {
        pairs.push((field, value));
    }
    pairs.sort();
    pairs
}

/// Text. What is not UTF-8 was not written by the receiver, and its record is damaged.
pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Reads the items of a reply in order.
pub(super) struct ReplyItems(std::vec::IntoIter<Value>);

impl ReplyItems {
    pub fn of(reply: Value) -> Option<Self> {
        array(reply).map(|items| Self(items.into_iter()))
    }

    pub fn next(&mut self) -> Option<Value> {
        self.0.next()
    }

    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.into_bytes()),
            Value::Int(number) => Some(number.to_string().into_bytes()),
            _ => None,
        }
    }

    pub fn text(&mut self) -> Option<String> {
        self.bytes().map(text)
    }

    pub fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }
}
