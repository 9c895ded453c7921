//! Errors of Redis, and of the data in it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::record::{SCHEMA, Unreadable};
use crate::decision::words;

words! {
    /// Why Redis can't do it, as metrics and messages name it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum RedisFault {
        Timeout = "timeout",
        /// The connection failed or broke.
        Connection = "connection",
        /// The password is wrong, or missing.
        Auth = "auth",
        Loading = "loading",
        /// It is a replica.
        ReadOnly = "readonly",
        MasterDown = "masterdown",
        /// The ACL does not permit it.
        NoPerm = "noperm",
        Oom = "oom",
        Misconf = "misconf",
        NoReplicas = "noreplicas",
        MaxClients = "maxclients",
        /// Its reply has an unexpected form.
        Protocol = "protocol",
        NotReplicated = "not_replicated",
        /// No master was found.
        NoMaster = "nomaster",
        /// Another node has the slot.
        Moved = "moved",
        /// The slot is on its way to another node.
        Moving = "moving",
        ClusterDown = "clusterdown",
        Other = "error",
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Redis cannot do it now, but may be able to later.
    #[error("redis is not available ({kind}): {message}")]
    Unavailable { kind: RedisFault, message: String },
    /// Committed on the master only.
    #[error("replicated to {acked} of {wanted} replicas: not acknowledged")]
    NotReplicated { acked: u32, wanted: u32 },
    /// A key holds a value that the receiver never writes. Lasts until someone repairs it.
    #[error("{key} is broken: {detail}")]
    Broken { key: String, detail: String },
    /// A newer receiver wrote it.
    #[error("a record of this prompt has schema {found}; this receiver knows up to {SCHEMA}")]
    NewerRecord { found: String },
    #[error("{0}")]
    Config(String),
}

impl StoreError {
    /// The metric label of a fault of Redis; `None` for other errors.
    pub fn kind(&self) -> Option<RedisFault> {
        match self {
            Self::Unavailable { kind, .. } => Some(*kind),
            Self::NotReplicated { .. } => Some(RedisFault::NotReplicated),
            Self::Broken { .. } | Self::NewerRecord { .. } | Self::Config(_) => None,
        }
    }

    /// Whether another user or password may help. A Sentinel's refusal is known only as a master that was not found.
    pub(super) fn refuses_login(&self) -> bool {
        matches!(self.kind(), Some(RedisFault::Auth | RedisFault::NoPerm | RedisFault::NoMaster))
    }

    /// What went wrong, in one word.
    pub(super) fn fault(&self) -> &'static str {
        self.kind().map_or("broken", RedisFault::as_str)
    }

    pub(super) fn unreadable(key: &str, error: Unreadable) -> Self {
        match error {
            Unreadable::Damaged(_) => Self::Broken { key: key.to_owned(), detail: error.to_string() },
            Unreadable::Newer(schema) => Self::NewerRecord { found: schema.to_string() },
        }
    }

    pub(super) fn unexpected(what: &str) -> Self {
        Self::Unavailable { kind: RedisFault::Protocol, message: format!("unexpected answer to {what}") }
    }
}

/// Whether the server was the master when the connection was opened, and is not any more. UNBLOCKED ends a WAIT at that
/// moment.
pub(super) fn is_demoted(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) || error.code() == Some("UNBLOCKED")
}

/// The first error that the server answered: the error of a pipeline has no message itself, and only some codes.
pub(super) fn answered(error: RedisError) -> RedisError {
    let first = error.clone().into_server_errors().and_then(|errors| Some(errors.first()?.1.clone()));
    first.map_or(error, RedisError::from)
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        let of_server = error.clone().into_server_errors();
        if of_server.is_some_and(|errors| errors.iter().all(|(_, error)| error.code() == "WRONGTYPE")) {
            return Self::Broken { key: "a key".to_owned(), detail: "holds the wrong type".to_owned() };
        }
        let error = answered(error);
        let kind = match error.kind() {
            _ if error.is_timeout() => RedisFault::Timeout,
            ErrorKind::Io => RedisFault::Connection,
            _ if error.is_connection_dropped() => RedisFault::Connection,
            ErrorKind::AuthenticationFailed => RedisFault::Auth,
            ErrorKind::Server(ServerErrorKind::BusyLoading) => RedisFault::Loading,
            _ if is_demoted(&error) => RedisFault::ReadOnly,
            ErrorKind::Server(ServerErrorKind::Moved) => RedisFault::Moved,
            // the slot is migrating: a script runs only where all its keys are
            ErrorKind::Server(ServerErrorKind::Ask | ServerErrorKind::TryAgain) => RedisFault::Moving,
            ErrorKind::Server(ServerErrorKind::ClusterDown) => RedisFault::ClusterDown,
            ErrorKind::Server(ServerErrorKind::MasterDown) => RedisFault::MasterDown,
            ErrorKind::Server(ServerErrorKind::NoPerm) => RedisFault::NoPerm,
            _ => match error.code() {
                Some("OOM") => RedisFault::Oom,
                Some("MISCONF") => RedisFault::Misconf,
                Some("NOREPLICAS") => RedisFault::NoReplicas,
                Some("WRONGPASS" | "NOAUTH") => RedisFault::Auth,
                _ if error.to_string().contains("max number of clients") => RedisFault::MaxClients,
                _ => RedisFault::Other,
            },
        };
        // the message of the server or of the system: neither contains address or password
        let of_system = if error.kind() == ErrorKind::Io { Some(error.to_string()) } else { None };
        let message = error.detail().or(of_system.as_deref()).unwrap_or(error.category()).chars().take(200).collect();
        Self::Unavailable { kind, message }
    }
}

#[cfg(test)]
mod tests {
    use redis::{RedisFuture, Value};

    use super::*;

    /// A server that answers a pipeline with these bytes.
    struct Answers(&'static [&'static str]);

    impl redis::aio::ConnectionLike for Answers {
        fn req_packed_command<'a>(&'a mut self, _: &'a redis::Cmd) -> RedisFuture<'a, Value> {
            unreachable!("a pipeline is sent")
        }

        fn req_packed_commands<'a>(
            &'a mut self,
            _: &'a redis::Pipeline,
            _: usize,
            _: usize,
        ) -> RedisFuture<'a, Vec<Value>> {
            let answers = self.0.iter().map(|answer| redis::parse_redis_value(answer.as_bytes()));
            let answers: redis::RedisResult<Vec<Value>> = answers.collect();
            Box::pin(std::future::ready(answers))
        }

        fn get_db(&self) -> i64 {
            0
        }
    }

    /// The error of a commit and the WAIT behind it.
    async fn refused(answers: &'static [&'static str]) -> RedisError {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVALSHA").cmd("WAIT");
        pipeline.query_async::<Vec<Value>>(&mut Answers(answers)).await.expect_err("refused")
    }

    #[tokio::test]
    async fn a_refused_pipeline_says_as_much_as_a_refused_command() {
        let cases: [(&'static [&'static str], RedisFault, &str); 6] = [
            (&["-OOM not allowed\r\n", ":0\r\n"], RedisFault::Oom, "not allowed"),
            (&["-MISCONF no disk\r\n", ":0\r\n"], RedisFault::Misconf, "no disk"),
            (&["-NOREPLICAS too few\r\n", ":0\r\n"], RedisFault::NoReplicas, "too few"),
            (&["-NOAUTH log in\r\n", "-NOAUTH log in\r\n"], RedisFault::Auth, "log in"),
            (&["-NOPERM no evalsha\r\n", ":0\r\n"], RedisFault::NoPerm, "no evalsha"),
            (&[":1\r\n", "-UNBLOCKED a replica now\r\n"], RedisFault::ReadOnly, "a replica now"),
        ];
        for (answers, kind, message) in cases {
            match StoreError::from(refused(answers).await) {
                StoreError::Unavailable { kind: found, message: said } => {
                    assert_eq!((found, said.as_str()), (kind, message))
                }
                other => panic!("{answers:?}: {other}"),
            }
        }
        let moved = answered(refused(&["-MOVED 7 10.0.0.2:6379\r\n", ":0\r\n"]).await);
        assert_eq!(moved.redirect_node(), Some(("10.0.0.2:6379", 7)));
    }

    #[tokio::test]
    async fn a_pipeline_is_broken_only_if_all_that_was_refused_has_the_wrong_type() {
        let broken = refused(&["-WRONGTYPE no string\r\n", ":0\r\n"]).await;
        assert!(matches!(StoreError::from(broken), StoreError::Broken { .. }));
        let both = refused(&["-OOM not allowed\r\n", "-WRONGTYPE no string\r\n"]).await;
        assert!(matches!(StoreError::from(both), StoreError::Unavailable { kind: RedisFault::Oom, .. }));
    }
}
