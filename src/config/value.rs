//! The syntax of each kind of value, in the file and in the environment.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::duration::{format_prometheus_duration, parse_prometheus_duration};
use crate::decision::Severity;
use crate::events::Kind;

/// A value of the config: text in the environment, and mostly also in the file.
pub(super) trait Setting: Sized {
    /// A value that may contain a password is never repeated in a message.
    const SECRET: bool = false;

    /// The valid syntax, for messages.
    fn expected() -> String;

    fn from_text(text: &str) -> Option<Self>;

    /// Reads a value of the file: a string, unless the kind overrides this.
    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        Self::from_text(value.as_str()?)
    }

    /// The value in the syntax of the environment.
    fn to_text(&self) -> String;

    /// The value for log lines; `None`: only that it changed.
    fn shown(&self) -> Option<String> {
        (!Self::SECRET).then(|| self.to_text())
    }

    /// The part that a running receiver cannot change, for a key that needs a restart.
    fn fixed_part(&self) -> String {
        self.to_text()
    }
}

impl Setting for String {
    fn expected() -> String {
        "a string".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }

    fn to_text(&self) -> String {
        self.clone()
    }
}

impl Setting for PathBuf {
    fn expected() -> String {
        "a path".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.into())
    }

    fn to_text(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for SocketAddr {
    fn expected() -> String {
        "an IP address and a port such as \"127.0.0.1:8000\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// Empty: not set.
impl Setting for Option<String> {
    fn expected() -> String {
        String::expected()
    }

    fn from_text(text: &str) -> Option<Self> {
        Some((!text.is_empty()).then(|| text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.clone().unwrap_or_default()
    }
}

/// The address of an additional listener; empty: none.
impl Setting for Option<SocketAddr> {
    fn expected() -> String {
        "an IP address and a port such as \"127.0.0.1:8001\", or nothing".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
    }

    fn to_text(&self) -> String {
        self.map(|address| address.to_string()).unwrap_or_default()
    }
}

impl Setting for Duration {
    fn expected() -> String {
        "a duration such as \"30s\", \"5m\" or \"1h30m\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        parse_prometheus_duration(text).ok()
    }

    fn to_text(&self) -> String {
        format_prometheus_duration(*self)
    }
}

impl Setting for u32 {
    fn expected() -> String {
        format!("a whole number from 0 to {}", u32::MAX)
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        integer(value)?.try_into().ok()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Setting for bool {
    fn expected() -> String {
        "true or false".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_bool()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// A percentage of the traffic.
impl Setting for u8 {
    fn expected() -> String {
        "a whole percentage from 0 to 100".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().filter(|percent| *percent <= 100)
    }

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        integer(value)?.try_into().ok().filter(|percent| *percent <= 100)
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

/// A number from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(pub f64);

impl Setting for Ratio {
    fn expected() -> String {
        "a number from 0 to 1 such as 0.1".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).map(Self)
    }

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::Float(number) => Self::from_text(number.as_str()),
            value => Self::from_text(&integer(value)?.to_string()),
        }
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

fn integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A moment of each week, in UTC: `mon 09:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weekly {
    /// Days since Monday.
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// `off`, or a moment.
impl Setting for Option<Weekly> {
    fn expected() -> String {
        "a day of the week and a time in UTC such as \"mon 09:00\", or \"off\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(None);
        }
        let (day, time) = text.split_once(' ')?;
        let (hour, minute) = time.split_once(':')?;
        let two = |digits: &str, below: u8| -> Option<u8> {
            let number = digits.parse().ok().filter(|number| *number < below)?;
            (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit())).then_some(number)
        };
        let day = u8::try_from(DAYS.iter().position(|name| *name == day)?).ok()?;
        Some(Some(Weekly { day, hour: two(hour, 24)?, minute: two(minute, 60)? }))
    }

    fn to_text(&self) -> String {
        self.map_or("off".into(), |Weekly { day, hour, minute }| {
            format!("{} {hour:02}:{minute:02}", DAYS[usize::from(day)])
        })
    }
}

/// `off`, or a duration.
impl Setting for Option<Duration> {
    fn expected() -> String {
        "a duration such as \"12h\" or \"7d\", or \"off\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        if text == "off" { Some(None) } else { Duration::from_text(text).map(Some) }
    }

    fn to_text(&self) -> String {
        self.map_or("off".into(), |duration| duration.to_text())
    }
}

/// A number of bytes: `1048576` or `"1MiB"`.
impl Setting for usize {
    fn expected() -> String {
        "a number of bytes such as 1048576, \"512KiB\" or \"16MiB\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (count, unit) = text.split_at(digits);
        let scale: usize = match unit.trim_start() {
            "" | "B" => 1,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        count.parse::<usize>().ok()?.checked_mul(scale)
    }

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        match value.as_str() {
            Some(text) => Self::from_text(text),
            None => integer(value)?.try_into().ok(),
        }
    }

    fn to_text(&self) -> String {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let unit = units.into_iter().find(|(_, size)| *self > 0 && self.is_multiple_of(*size));
        unit.map_or(self.to_string(), |(unit, size)| format!("{}{unit}", self / size))
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }

    fn from_text(text: &str) -> Option<Self> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(T::from_text).collect()
    }

    fn from_toml(value: &DeValue<'_>) -> Option<Self> {
        value.as_array()?.iter().map(|item| T::from_toml(item.get_ref())).collect()
    }

    fn to_text(&self) -> String {
        self.iter().map(T::to_text).collect::<Vec<_>>().join(",")
    }
}

/// An IP address, or a network such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// An IPv4 address that came over an IPv6 socket counts as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl Setting for Network {
    fn expected() -> String {
        "an IP address or a network such as \"10.0.0.0/8\"".into()
    }

    fn from_text(text: &str) -> Option<Self> {
        let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse::<IpNet>().ok().or_else(|| address(text)).map(Self)
    }

    fn to_text(&self) -> String {
        self.0.to_string()
    }
}

impl Setting for Kind {
    fn expected() -> String {
        format!("one of {}", Kind::ALL.map(Kind::as_str).join(", "))
    }

    fn from_text(text: &str) -> Option<Self> {
        Kind::parse(text)
    }

    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

/// A table with values of one kind; in the environment `name=value,name=value`.
impl<T: Setting> Setting for BTreeMap<String, T> {
    fn expected() -> String {
        format!("names, each with {}", T::expected())
    }

    fn from_text(text: &str) -> Option<Self> {
        let pairs: Vec<String> = Vec::from_text(text)?;
        pairs
            .iter()
            .map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((name.trim().to_owned(), T::from_text(value.trim())?))
            })
            .collect()
    }

    fn to_text(&self) -> String {
        self.iter().map(|(name, value)| format!("{name}={}", value.to_text())).collect::<Vec<_>>().join(",")
    }
}

impl Setting for Severity {
    fn expected() -> String {
        r#"one of "critical", "high", "medium""#.into()
    }

    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn to_text(&self) -> String {
        self.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests;
