//! Readers that never get an answer from Redis.

use std::net::TcpListener;
use std::time::Duration;

use prompt_rollback_reader::{Mode, Problem, Reader, Settings};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// A server that takes connections and never answers, and a reader that asks it.
fn unanswered(runtime: &Runtime) -> (TcpListener, Reader) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", server.local_addr().unwrap());
    let reader = runtime.block_on(async { Reader::start(url, ["support"], Settings::default()) });
    (server, reader.unwrap())
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn until_redis_has_answered_the_error_says_so() {
    let runtime = runtime();
    let (_server, reader) = unanswered(&runtime);
    let prompt = reader.prompt("support").unwrap();
    let error = prompt.error();
    assert!(matches!(&error, Some(Problem::Away(why)) if why.contains("not answered yet")), "{error:?}");
    assert_eq!((reader.mode(), prompt.staleness(), prompt.versions()), (Mode::Away, None, vec![]));
}

#[test]
fn a_prompt_says_at_once_that_its_reader_was_dropped() {
    let runtime = runtime();
    let (_server, reader) = unanswered(&runtime);
    let prompt = reader.prompt("support").unwrap().clone();
    drop(reader);
    let error = prompt.error().unwrap().to_string();
    assert!(error.contains("the reader was dropped"), "{error}");
}

#[test]
fn waiting_for_a_reader_whose_runtime_has_ended_fails_at_once() {
    let first = runtime();
    let (_server, reader) = unanswered(&first);
    drop(first);
    let waited = runtime().block_on(async { timeout(Duration::from_secs(60), reader.ready()).await });
    let error = waited.expect("not after the whole timeout").unwrap_err();
    assert!(error.to_string().contains("its tokio runtime"), "{error}");
    assert_eq!(reader.prompt("support").unwrap().error(), Some(error));
}
