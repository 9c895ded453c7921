use super::process::run;
use super::*;
use crate::config::LoadedConfig;

/// Without Redis, because it does not wait for it.
async fn app() -> App {
    let env =
        [("PROMPT_ROLLBACK_SERVER__LISTEN", "127.0.0.1:0"), ("PROMPT_ROLLBACK_REDIS__URL", "redis://127.0.0.1:1")];
    let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let settings = LoadedConfig::load(None, env.into_iter()).expect("a config");
    App::start(&settings, Clock::default()).await.expect("it starts")
}

#[tokio::test]
async fn a_worker_that_ends_stops_the_receiver_with_a_reason() {
    let mut signals = Signals::listen().expect("signals");
    for (panics, said) in [(true, "the task act has panicked: boom"), (false, "the task act has ended")] {
        let mut app = app().await;
        let address = app.address;
        tokio::net::TcpStream::connect(address).await.expect("it serves");
        app.tasks.spawn("act", async move { assert!(!panics, "boom") });
        let error = run(app, &mut signals, |_| ()).await.expect_err("it must not go on").to_string();
        assert!(error.starts_with(said), "{error}");
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it serves no more");
    }
}

#[test]
fn a_shutdown_leaves_time_to_end_one_that_hangs() {
    for (limit, expected) in [(10_000, 9_000), (2_000, 1_000), (1_000, 500), (1, 0)] {
        let (limit, expected) = (Duration::from_millis(limit), Duration::from_millis(expected));
        assert!(graceful(limit).abs_diff(expected) < Duration::from_millis(1), "{limit:?}");
    }
}

#[tokio::test]
async fn no_task_ends_by_itself() {
    let mut app = app().await;
    let waited = tokio::time::timeout(std::time::Duration::from_secs(3), app.ended()).await;
    assert!(waited.is_err(), "{waited:?}");
    app.shutdown().await;
}
