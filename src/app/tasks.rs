//! The tasks of a receiver, by name. None ends before the receiver does: if one does, because of a panic or another
//! bug, the receiver must not continue without it.

use std::collections::HashMap;

use tokio::task::{Id, JoinError, JoinSet};

/// A task that ended too early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskEnded {
    #[error("the task {0} has panicked: {1} (a bug, please report it)")]
    Panicked(&'static str, String),
    #[error("the task {0} has ended (a bug, please report it)")]
    Returned(&'static str),
}

#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Completes when a task has ended. Cancel-safe.
    pub async fn ended(&mut self) -> TaskEnded {
        let ended = self.set.join_next_with_id().await;
        let mut name = |id| self.names.remove(&id).unwrap_or("unknown");
        match ended {
            Some(Ok((id, ()))) => TaskEnded::Returned(name(id)),
            Some(Err(error)) => TaskEnded::Panicked(name(error.id()), message(error)),
            None => TaskEnded::Returned("main"), // there are no tasks: nothing works
        }
    }

    /// Waits for the tasks with these `names`, however long that takes.
    pub async fn finish(&mut self, names: &[&str]) {
        while self.names.values().any(|name| names.contains(name)) {
            let Some(ended) = self.set.join_next_with_id().await else { return };
            let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
            self.names.remove(&id);
        }
    }

    pub async fn stop(mut self) {
        self.set.shutdown().await;
    }
}

fn message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        }
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks() -> Tasks {
        let mut tasks = Tasks::default();
        tasks.spawn("lasts", std::future::pending());
        tasks
    }

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_named() {
        let mut ending = tasks();
        ending.spawn("page", async {});
        assert_eq!(ending.ended().await, TaskEnded::Returned("page"));
        for (task, said) in [("a text", "at 7 of 3"), ("formatted", "at 7 of 3")] {
            let mut panicking = tasks();
            panicking.spawn("act", async move {
                match task {
                    "a text" => std::panic::panic_any("at 7 of 3"),
                    _ => panic!("at {} of 3", 7),
                }
            });
            assert_eq!(panicking.ended().await, TaskEnded::Panicked("act", said.to_owned()), "{task}");
        }
    }

    #[tokio::test]
    async fn only_the_one_that_is_waited_for_is_waited_for() {
        let mut tasks = tasks();
        tasks.spawn("other", async {});
        tasks.spawn("server", async { tokio::task::yield_now().await });
        tasks.spawn("metrics", async {});
        tasks.finish(&["server", "metrics", "nowhere"]).await;
        tasks.stop().await;
    }

    #[tokio::test]
    async fn a_shutdown_does_not_wait_for_a_task_that_has_ended() {
        let mut tasks = tasks();
        tasks.spawn("server", async {});
        tasks.ended().await;
        tasks.finish(&["server"]).await;
        tasks.stop().await;
    }
}
