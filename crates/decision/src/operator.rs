//! Who did something: prompt-rollback itself, somebody past it, or a person or program that it knows.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What the log, a thread or a post-mortem names as the one who acted: `system`, `external`, or a name that people read with
/// what proves it behind, such as `maya (U0MAYA)` or `deploy (api)`. No name that somebody chooses can look like one of the
/// first two.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Operator(Cow<'static, str>);

/// The name is reserved for prompt-rollback itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved;

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Operator::RESERVED.join(", ");
        write!(f, "expected the name of a person or program; these are reserved for prompt-rollback itself: {names}")
    }
}

impl std::error::Error for Reserved {}

impl Operator {
    /// prompt-rollback itself.
    pub const SYSTEM: Self = Self(Cow::Borrowed("system"));
    /// Whoever SETs `active` past us.
    pub const EXTERNAL: Self = Self(Cow::Borrowed("external"));
    /// In any case of letters.
    pub const RESERVED: [&str; 5] = ["system", "external", "automatic", "auto", "prompt-rollback"];
    /// The token of the API, for as long as there is only one.
    pub const API: &str = "api";
    /// Characters of a name that are kept.
    const MAX_NAME: usize = 200;

    /// A user of Slack: Slack has proved the id, and the user chooses the name.
    pub fn slack(id: &str, name: &str) -> Self {
        if name == id { Self::proved("", id) } else { Self::proved(name, id) }
    }

    /// Whoever holds this token of the API. Only that is proved; the name is what they say.
    pub fn api(token: &str, name: Option<&str>) -> Result<Self, Reserved> {
        match name.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) if Self::is_reserved(name) => Err(Reserved),
            Some(name) if name != token => Ok(Self::proved(name, token)),
            _ => Ok(Self::proved("", token)),
        }
    }

    /// What a record says. A record that an earlier version wrote holds a bare name.
    pub fn recorded(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// Parentheses belong to the proof: a name that has them loses them.
    fn proved(name: &str, proof: &str) -> Self {
        let name: String = name.chars().filter(|c| !matches!(c, '(' | ')')).take(Self::MAX_NAME).collect();
        let name = name.trim();
        Self(Cow::Owned(match name {
            "" if Self::is_reserved(proof) => format!("({proof})"),
            "" => proof.to_owned(),
            name => format!("{name} ({proof})"),
        }))
    }

    fn is_reserved(name: &str) -> bool {
        Self::RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
    }

    /// prompt-rollback acted without a person.
    pub fn is_system(&self) -> bool {
        *self == Self::SYSTEM
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, and what proves it, if both are known.
    pub fn parts(&self) -> (&str, Option<&str>) {
        let split = self.0.strip_suffix(')').and_then(|text| text.rsplit_once(" ("));
        split.map_or((self.as_str(), None), |(name, proof)| (name, Some(proof)))
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proved_stands_behind_the_name() {
        assert_eq!(Operator::slack("U0MAYA", "maya").as_str(), "maya (U0MAYA)");
        assert_eq!(Operator::slack("U0MAYA", "U0MAYA").as_str(), "U0MAYA", "Slack gave no name");
        assert_eq!(Operator::api("api", Some("deploy")).unwrap().as_str(), "deploy (api)");
        assert_eq!(Operator::api("api", None).unwrap().as_str(), "api");
        assert_eq!(Operator::slack("U0MAYA", "maya").parts(), ("maya", Some("U0MAYA")));
        assert_eq!(Operator::recorded("maya").parts(), ("maya", None), "of an earlier version");
    }

    #[test]
    fn no_name_that_somebody_chooses_looks_automatic_or_like_anothers_proof() {
        let hostile = [
            "system",
            "System",
            " system ",
            "external",
            "prompt-rollback",
            "(system)",
            "sys(tem",
            ")system(",
            "",
            " ",
            "()",
            "maya (U0MAYA)",
            "maya (U0MAYA",
            "U0MAYA)",
            "a (b) (c)",
        ];
        for name in hostile {
            let given = [Some(Operator::slack("U666", name)), Operator::api("api", Some(name)).ok()];
            for operator in given.into_iter().flatten() {
                let text = operator.as_str();
                assert!(!operator.is_system() && operator != Operator::EXTERNAL, "{name:?}: {text}");
                assert!(!Operator::is_reserved(text), "{name:?}: {text}");
                let proof = operator.parts().1.unwrap_or(text);
                assert!(["U666", "api"].contains(&proof), "{name:?}: {text}");
                assert_eq!(text.matches('(').count(), usize::from(operator.parts().1.is_some()), "{name:?}: {text}");
            }
        }
        for name in Operator::RESERVED {
            assert_eq!(Operator::api("api", Some(name)), Err(Reserved));
            assert_eq!(Operator::api("api", Some(&name.to_uppercase())), Err(Reserved));
            assert_ne!(Operator::api(name, None).unwrap().as_str(), name, "a token of that name");
        }
    }
}
