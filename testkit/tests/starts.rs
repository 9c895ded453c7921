//! Each server starts, answers, and is gone when dropped.

use anyhow::Result;
use prompt_rollback_testkit::proxy::Mode;
use prompt_rollback_testkit::{
    Alertmanager, Dir, FaultProxy, ProcessBuilder, Prometheus, Redis, connect, eventually, free_port,
};
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn redis_restarts_with_its_data_on_its_port() -> Result<()> {
    let mut redis = Redis::builder().appendonly().start()?;
    redis.cmd::<()>(&["SET", "k", "v"]).await?;
    redis.kill9();
    assert!(redis.cmd::<String>(&["GET", "k"]).await.is_err());
    redis.restart()?;
    assert_eq!(redis.cmd::<String>(&["GET", "k"]).await?, "v");
    redis.stop()
}

#[tokio::test]
async fn redis_over_tls_and_unix_socket() -> Result<()> {
    let redis = Redis::builder().tls().unix_socket().start()?;
    let ca = std::fs::read(redis.ca_file())?;
    let certs = redis::TlsCertificates { client_tls: None, root_cert: Some(ca) };
    let login = |url: String| -> Result<redis::ConnectionInfo> {
        let info = redis::IntoConnectionInfo::into_connection_info(url)?;
        let settings = info.redis_settings().clone();
        let receiver = Redis::RECEIVER;
        Ok(info.set_redis_settings(settings.set_username(receiver.name).set_password(receiver.password)))
    };
    let tls = redis::Client::build_with_tls(login(redis.tls_url())?, certs)?;
    let unix = redis::Client::open(login(redis.unix_url())?)?;
    for client in [tls, unix] {
        let mut connection = connect(&client).await?;
        assert_eq!(redis::cmd("PING").query_async::<String>(&mut connection).await?, "PONG");
    }
    Ok(())
}

#[tokio::test]
async fn redis_enforces_the_users_that_ship_and_lets_the_testkit_itself_pass() -> Result<()> {
    let redis = Redis::start()?;
    let get = async |url: String, key: &str| -> Result<Option<String>> {
        let mut connection = connect(&redis::Client::open(url)?).await?;
        Ok(redis::cmd("GET").arg(key).query_async(&mut connection).await?)
    };
    let key = "{prompts}:active:p";
    redis.cmd::<()>(&["SET", key, "v1"]).await?;
    let stranger = get(redis.url(), key).await.unwrap_err().to_string();
    assert!(stranger.to_lowercase().contains("auth"), "{stranger}");
    for url in [redis.receiver_url(), redis.prompt_server_url()] {
        assert_eq!(get(url.clone(), key).await?.as_deref(), Some("v1"));
        let elsewhere = get(url, "k").await.unwrap_err().to_string();
        assert!(elsewhere.contains("no permissions"), "{elsewhere}");
    }
    redis.cmd::<()>(&["SET", "k", "v"]).await
}

#[tokio::test]
async fn users_can_be_bound_to_a_namespace_and_the_receiver_may_do_more() -> Result<()> {
    let redis = Redis::builder().namespace("team:{a}").receiver_may("+role").start()?;
    let client = redis::Client::open(redis.receiver_url())?;
    let mut receiver = connect(&client).await?;
    redis::cmd("SET").arg("team:{a}:active:p").arg("v1").exec_async(&mut receiver).await?;
    redis::cmd("ROLE").exec_async(&mut receiver).await?;
    assert!(redis::cmd("GET").arg("{prompts}:active:p").exec_async(&mut receiver).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_redis_that_loads_is_not_ready() -> Result<()> {
    let mut redis = Redis::builder().appendonly().conf("key-load-delay 250").start()?;
    let fill = "for i = 1, 4000 do redis.call('SET', '{prompts}:x' .. i, '') end";
    redis.cmd::<()>(&["EVAL", fill, "0"]).await?;
    redis.restart()?;
    assert_eq!(redis.cmd::<usize>(&["DBSIZE"]).await?, 4_000);
    Ok(())
}

#[tokio::test]
async fn a_paused_redis_accepts_but_does_not_answer() -> Result<()> {
    let redis = Redis::start()?;
    redis.pause()?;
    let waiting = tokio::time::timeout(Duration::from_millis(300), redis.cmd::<String>(&["PING"])).await;
    assert!(waiting.is_err(), "answered while stopped: {waiting:?}");
    redis.resume()?;
    assert_eq!(redis.cmd::<String>(&["PING"]).await?, "PONG");
    Ok(())
}

#[tokio::test]
async fn a_replica_follows_its_master() -> Result<()> {
    let master = Redis::start()?;
    let replica = Redis::builder().replica_of(&master).start()?;
    master.cmd::<()>(&["SET", "k", "v"]).await?;
    master.wait_for_replicas(1).await?;
    assert_eq!(replica.cmd::<String>(&["GET", "k"]).await?, "v");
    let refused = format!("{:#}", replica.cmd::<()>(&["SET", "k", "w"]).await.unwrap_err());
    assert!(refused.contains("read only replica"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn an_alert_goes_from_prometheus_to_alertmanager() -> Result<()> {
    let alertmanager = Alertmanager::builder("route: {receiver: none}\nreceivers: [{name: none}]").start()?;
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: [rules/*.yml]\n\
         scrape_configs: [{{job_name: self, static_configs: [{{targets: ['$ADDR']}}]}}]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n",
        alertmanager.addr()
    );
    let rules = "groups: [{name: g, rules: [{alert: Up, expr: 'up{job=\"self\"} == 1'}]}]";
    let prometheus = Prometheus::builder(config).file("rules/up.yml", rules).start()?;
    eventually("the alert in Alertmanager", SOON, async || {
        let alerts = alertmanager.http().get("/api/v2/alerts").await.ok()?.json().ok()?;
        (alerts[0]["labels"]["alertname"] == "Up").then_some(())
    })
    .await?;
    assert_eq!(prometheus.query("up == 1").await?.len(), 1);
    assert_eq!(prometheus.alerts().await?[0]["state"], "firing");

    assert!(prometheus.reload("rules/up.yml", "groups: [{name: g, rules: [{alert: Up}]}]").await.is_err());
    prometheus.reload("rules/up.yml", "groups: []").await?;
    assert!(prometheus.alerts().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn two_alertmanagers_share_silences() -> Result<()> {
    let config = "route: {receiver: none}\nreceivers: [{name: none}]";
    let first = Alertmanager::builder(config).clustered().start()?;
    let second = Alertmanager::builder(config).peer(&first).start()?;
    eventually("both see two peers", SOON, async || {
        for one in [&first, &second] {
            let status = one.http().get("/api/v2/status").await.ok()?.json().ok()?;
            status["cluster"]["peers"].as_array().filter(|peers| peers.len() == 2)?;
        }
        Some(())
    })
    .await
}

#[tokio::test]
async fn a_dropped_process_takes_its_children_along() -> Result<()> {
    let dir = Dir::new("children")?;
    let process = ProcessBuilder::new("sh", dir.path()).args(["-c", "sleep 100 & echo $!; wait"]).spawn()?;
    let child = eventually("the child's id", SOON, async || process.log().trim().parse::<u32>().ok()).await?;
    assert!(exists(child) && exists(process.pid()));
    let pid = process.pid();
    drop(process);
    assert!(!exists(pid));
    // its parent is gone, so init reaps it, some time later
    eventually("the child gone", SOON, async || {
        let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z")).then_some(())
    })
    .await
}

#[test]
fn a_process_outlives_the_thread_that_started_it() -> Result<()> {
    let dir = Dir::new("thread")?;
    let path = dir.path().to_owned();
    let start = move || ProcessBuilder::new("sleep", &path).arg("100").spawn();
    let mut process = std::thread::spawn(start).join().expect("no panic")?;
    std::thread::sleep(Duration::from_millis(100)); // the kernel kills children of a thread when that ends, a moment later
    assert_eq!(process.exited()?, None);
    Ok(())
}

#[test]
fn a_failed_start_says_why() {
    let error = Redis::builder().conf("no-such-directive yes").start().unwrap_err().to_string();
    assert!(error.contains("no-such-directive"), "{error}");
}

#[test]
fn ports_are_handed_out_once() {
    let ports: std::collections::BTreeSet<_> = (0..200).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 200);
}

#[tokio::test]
async fn the_proxy_loses_the_reply_of_a_command_that_ran() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = FaultProxy::start(redis.addr()).await?;
    let client = redis::Client::open(Redis::ADMIN.url(proxy.addr()))?;
    let mut connection = connect(&client).await?;
    proxy.lose_reply_after(1, "INCR");
    let mut incr = redis::cmd("INCR");
    incr.arg("n");
    assert_eq!(incr.query_async::<i64>(&mut connection).await?, 1);
    assert!(incr.query_async::<i64>(&mut connection).await.is_err());
    assert!(!proxy.loss_pending());
    assert_eq!(redis.cmd::<i64>(&["GET", "n"]).await?, 2, "it ran, once");

    let mut again = connect(&client).await?;
    // larger than one read, so that it arrives in pieces
    let big = "x".repeat(1_000_000);
    proxy.lose_next_reply_matching("SET");
    assert!(redis::cmd("SET").arg("big").arg(&big).query_async::<()>(&mut again).await.is_err());
    assert_eq!(redis.cmd::<usize>(&["STRLEN", "big"]).await?, big.len());
    Ok(())
}

#[tokio::test]
async fn the_proxy_stalls_cuts_and_answers_itself() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = FaultProxy::start(redis.addr()).await?;
    let client = redis::Client::open(Redis::ADMIN.url(proxy.addr()))?;
    let mut connection = connect(&client).await?;

    proxy.set(Mode::Answer(b"-LOADING wait\r\n".to_vec()));
    let error = redis::cmd("PING").query_async::<String>(&mut connection).await.unwrap_err();
    assert_eq!(error.code(), Some("LOADING"));

    proxy.set(Mode::Stall);
    let get = redis::cmd("PING");
    let stalled = get.query_async::<String>(&mut connection);
    assert!(tokio::time::timeout(Duration::from_millis(200), stalled).await.is_err());

    proxy.set(Mode::Cut);
    assert!(get.query_async::<String>(&mut connection).await.is_err());
    assert!(connect(&client).await.is_err());

    proxy.set(Mode::Pass);
    let mut connection = connect(&client).await?;
    assert_eq!(get.query_async::<String>(&mut connection).await?, "PONG");
    Ok(())
}
