//! The words that are values of some keys.

use super::value::Setting;

/// Implements an enum whose variants are words in the config.
macro_rules! words {
    ($($(#[$doc:meta])* pub enum $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// The word in the config.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl Setting for $name {
            fn expected() -> String {
                format!("one of {}", [$(concat!("\"", $word, "\"")),+].join(", "))
            }

            fn from_text(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)+ _ => None }
            }

            fn to_text(&self) -> String {
                self.as_str().to_owned()
            }
        }
    )+};
}

words! {
    /// What the holder of a token may do besides reading.
    pub enum Role {
        /// Nothing.
        Read = "read",
        /// Register and activate versions, and steer canaries.
        Deploy = "deploy",
        /// Decide about incidents, roll back, mark versions, pause and resume automation.
        Decide = "decide",
        /// All of it, and import prompts, start drills and reload the config.
        Admin = "admin",
    }

    /// How Redis is deployed.
    pub enum RedisMode {
        /// One server, with or without replicas.
        Standalone = "standalone",
        /// A master found through Sentinel.
        Sentinel = "sentinel",
        /// Redis Cluster.
        Cluster = "cluster",
    }

    /// Whether rollbacks may be automatic.
    pub enum GuardMode {
        /// Automatic rollbacks happen.
        Armed = "armed",
        /// Automatic rollbacks are only reported.
        DryRun = "dry-run",
    }

    /// What an automatic rollback requires.
    pub enum Confirm {
        /// Only the alert.
        Alert = "alert",
        /// An answer of Prometheus as well.
        Requery = "requery",
    }

    /// What a stage of a canary requires besides time.
    pub enum Analysis {
        /// Measurements that allow it, and an alert path that works.
        On = "on",
        /// Nothing.
        Off = "off",
    }

    /// The format of log lines.
    pub enum LogFormat {
        Text = "text",
        Json = "json",
    }

    /// The lowest level of log lines.
    pub enum LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}
