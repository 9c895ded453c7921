//! Which version a request gets. Pure, and the same in every language: `tests/fixtures/routing.json` of the repository has test vectors.

use std::fmt;
use std::sync::Arc;

/// Name of a version. A clone costs one reference count.
pub type Version = Arc<str>;

const BUCKETS: u32 = 100;

/// The versions that are served, and which keys get which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Sorted bytewise. Each version takes the buckets below its end that the previous ones left.
    shares: Vec<Share>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Share {
    version: Version,
    end: u32,
}

/// Why the fields of `routing` are not a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRouting(&'static str);

impl fmt::Display for InvalidRouting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidRouting {}

impl Split {
    /// Every key gets `active`.
    pub fn whole(active: &str) -> Self {
        Self { shares: vec![Share { version: active.into(), end: BUCKETS }] }
    }

    /// The split for the version in `active` and the fields of `routing`, in any order. If `active` is not one of the fields,
    /// or the fields are invalid, every key gets `active`.
    pub fn new<B: AsRef<[u8]>>(active: &str, routing: &[(B, B)]) -> Self {
        Self::routed(active, routing).ok().flatten().unwrap_or_else(|| Self::whole(active))
    }

    /// Like [`new`](Self::new), but reports why a routing is not followed: `None` if `active` is not one of its fields, as
    /// after a rollback whose `routing` was left behind.
    ///
    /// # Errors
    /// When a field is not a version or occurs twice, or the percentages are not numbers that sum to 100.
    pub fn routed<B: AsRef<[u8]>>(active: &str, routing: &[(B, B)]) -> Result<Option<Self>, InvalidRouting> {
        if !routing.iter().any(|(field, _)| trimmed(field.as_ref()) == active.as_bytes()) {
            return Ok(None);
        }
        let mut fields = Vec::with_capacity(routing.len());
        for (field, value) in routing {
            let version = version(field.as_ref()).ok_or(InvalidRouting("a field that is not a version"))?;
            let percent =
                percent(value.as_ref()).ok_or(InvalidRouting("a percentage that is not a number from 0 to 100"))?;
            fields.push((version, percent));
        }
        fields.sort_unstable();
        if fields.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(InvalidRouting("a version that is listed twice"));
        }
        let (mut shares, mut end) = (Vec::new(), 0);
        for (version, percent) in fields.into_iter().filter(|(_, percent)| *percent > 0) {
            end += percent;
            shares.push(Share { version: version.into(), end });
        }
        if end != BUCKETS {
            return Err(InvalidRouting("percentages that do not sum to 100"));
        }
        Ok(Some(Self { shares }))
    }

    /// The version for `key`: the id of a user, a conversation or a request. The same key gets the same version while the
    /// shares do not change.
    pub fn version(&self, key: impl AsRef<[u8]>) -> &Version {
        let [share] = self.shares.as_slice() else {
            let bucket = crc32fast::hash(key.as_ref()) % BUCKETS;
            let below = self.shares.partition_point(|share| share.end <= bucket);
            return &self.shares[below].version;
        };
        &share.version
    }

    /// All versions with a share above 0, sorted bytewise.
    pub fn versions(&self) -> impl Iterator<Item = &Version> {
        self.shares.iter().map(|share| &share.version)
    }
}

/// Returns the text if it is a version: `[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}`. Versions may become file names and metric
/// labels, so nothing else is returned.
pub(super) fn version(text: &[u8]) -> Option<&str> {
    let text = trimmed(text);
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:+-".contains(byte);
    let named = text.len() <= 64 && text.first()?.is_ascii_alphanumeric() && text.iter().all(allowed);
    std::str::from_utf8(text).ok().filter(|_| named)
}

/// Removes ASCII whitespace and NUL around a value, which a shell may add (`echo v2 | redis-cli -x SET …`).
fn trimmed(bytes: &[u8]) -> &[u8] {
    let pads = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | 0);
    let Some(start) = bytes.iter().position(|byte| !pads(byte)) else { return &[] };
    let end = bytes.iter().rposition(|byte| !pads(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// One to three ASCII digits: languages differ in what else they accept as a number.
fn percent(text: &[u8]) -> Option<u32> {
    let text = trimmed(text);
    let digits = (1..=3).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    let percent = std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()?;
    (percent <= BUCKETS).then_some(percent)
}
