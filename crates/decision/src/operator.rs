//! Operators: who did something, whether prompt-rollback itself, someone who bypassed it, or a known person or program.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The operator that a log, thread or post-mortem names: `system`, `external`, or a name followed by what verifies it,
/// such as `maya (U0MAYA)` or `deploy (api)`. No chosen name can look like one of the first two.
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
    /// Someone who SETs `active` directly.
    pub const EXTERNAL: Self = Self(Cow::Borrowed("external"));
    /// Compared without case.
    pub const RESERVED: [&str; 5] = ["system", "external", "automatic", "auto", "prompt-rollback"];
    /// The verifier of callers that send `server.api_token`.
    pub const API: &str = "api";
    /// The verifier of people that a reverse proxy names.
    pub const PROXY: &str = "proxy";
    /// Longer names are cut.
    const MAX_NAME: usize = 200;

    /// A Slack user: Slack verifies the id, but the user chooses the name.
    pub fn slack(id: &str, name: &str) -> Self {
        if name == id { Self::proved("", id) } else { Self::proved(name, id) }
    }

    /// The holder of this API token. Only the token is verified; the client chooses the name.
    pub fn api(token: &str, name: Option<&str>) -> Result<Self, Reserved> {
        match name.map(str::trim).filter(|name| !name.is_empty()) {
            Some(name) if Self::is_reserved(name) => Err(Reserved),
            Some(name) if name != token => Ok(Self::proved(name, token)),
            _ => Ok(Self::proved("", token)),
        }
    }

    /// Reads the text of a record. Records of earlier releases hold a bare name.
    pub fn recorded(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// Parentheses mark the verification, so they are removed from names.
    fn proved(name: &str, proof: &str) -> Self {
        let name: String = name.chars().filter(|c| !matches!(c, '(' | ')')).take(Self::MAX_NAME).collect();
        let name = name.trim();
        Self(Cow::Owned(match name {
            "" if Self::is_reserved(proof) => format!("({proof})"),
            "" => proof.to_owned(),
            name => format!("{name} ({proof})"),
        }))
    }

    /// Whether prompt-rollback itself has this name.
    pub fn is_reserved(name: &str) -> bool {
        Self::RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
    }

    /// Whether prompt-rollback acted without a person.
    pub fn is_system(&self) -> bool {
        *self == Self::SYSTEM
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, and what verifies it, if both are known.
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
