//! Notices that a process was forked.

/// The process in which something was made. A fork copies what a reader knows, but not the task that updates it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    id: u32,
}

impl Default for Process {
    fn default() -> Self {
        Self { id: std::process::id() }
    }
}

impl Process {
    /// Whether this is another process.
    pub fn was_forked(self) -> bool {
        self.id != std::process::id()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::watch;

    use super::Process;
    use crate::{Mode, Problem, Reader, Settings, Split};

    /// Only unsafe code can fork, so the test changes what a fork changes: the id of the process.
    #[tokio::test]
    async fn a_forked_process_learns_at_once_that_its_reader_does_not_follow() {
        let mut reader = Reader::start("redis://127.0.0.1:1", ["support"], Settings::default()).unwrap();
        let (_pushed, mode) = watch::channel(Mode::Pushed);
        reader.mode = mode;
        let prompt = reader.prompts.get_mut("support").unwrap();
        prompt.answered(Instant::now(), Ok((Split::whole("v1"), None)));
        let in_parent = prompt.error();
        prompt.process = Process { id: 0 };
        let prompt = prompt.clone();
        assert_eq!((in_parent, reader.mode()), (None, Mode::Pushed));

        reader.process = Process { id: 0 };
        assert_eq!((prompt.error(), reader.mode()), (Some(Problem::Forked), Mode::Away));
        assert_eq!(reader.ready().await, Err(Problem::Forked));
        assert_eq!(Problem::Forked.to_string(), "this process was forked: start the reader after the fork");
        assert_eq!(prompt.active_version("any").as_deref(), Some("v1"));
    }
}
