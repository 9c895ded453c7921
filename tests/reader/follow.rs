//! A reader on a real Redis that changes, goes away, hangs, and holds invalid values.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::reader::{Problem, Prompt, Reader, Settings};
use prompt_rollback_testkit::proxy::{FaultProxy, Mode};
use prompt_rollback_testkit::{Redis, eventually, shipped};

const ACTIVE: &str = "{prompts}:active:support";
const ROUTING: &str = "{prompts}:routing:support";
/// A limit for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(120);

/// Reads again only after an announcement, during a test.
fn pushed() -> Settings {
    Settings { refresh: Duration::from_secs(60), ..Settings::default() }
}

fn often() -> Settings {
    Settings { refresh: Duration::from_millis(50), ..Settings::default() }
}

async fn follow(url: &str, settings: Settings) -> Result<(Reader, Prompt)> {
    let reader = Reader::start(url, ["support"], settings)?;
    let prompt = reader.prompt("support").context("the one followed")?.clone();
    Ok((reader, prompt))
}

async fn ready(reader: &Reader) -> Result<()> {
    tokio::time::timeout(SOON, reader.ready()).await.context("ready")??;
    Ok(())
}

/// Sets `active` and `routing` at once, as the receiver commits them.
async fn commit(redis: &Redis, active: &str, routing: &[(&str, &str)]) -> Result<()> {
    let script = "redis.call('SET', KEYS[1], ARGV[1]) redis.call('DEL', KEYS[2]) \
        for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end";
    let mut args = vec!["EVAL", script, "2", ACTIVE, ROUTING, active];
    args.extend(routing.iter().flat_map(|(version, percent)| [*version, *percent]));
    redis.cmd(&args).await
}

fn names(prompt: &Prompt) -> Vec<String> {
    prompt.versions().iter().map(ToString::to_string).collect()
}

async fn serves(prompt: &Prompt, versions: &[&str]) -> Result<()> {
    let found = eventually(&format!("{versions:?}"), SOON, async || (names(prompt) == versions).then_some(())).await;
    found.with_context(|| format!("serves {:?}, {:?}", names(prompt), prompt.error()))
}

async fn says(prompt: &Prompt, problem: impl Fn(Option<Problem>) -> bool) -> Result<()> {
    let found = eventually("the expected error", SOON, async || problem(prompt.error()).then_some(())).await;
    found.with_context(|| format!("serves {:?}, {:?}", names(prompt), prompt.error()))
}

#[tokio::test]
async fn a_refresh_that_cannot_work_is_refused_at_once() {
    for refresh in [Duration::ZERO, Duration::from_secs(86_401), Duration::MAX] {
        let settings = Settings { refresh, ..Settings::default() };
        let error = Reader::start("redis://127.0.0.1:1", ["support"], settings).unwrap_err().to_string();
        assert!(
            error.contains("Settings::refresh") && error.contains("expected more than 0 and at most a day"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_address_that_asks_for_another_protocol_is_pushed_to_all_the_same() -> Result<()> {
    let redis = Redis::start()?;
    commit(&redis, "v1", &[]).await?;
    let (reader, prompt) = follow(&format!("{}?protocol=resp2", redis.prompt_server_url()), pushed()).await?;
    ready(&reader).await?;
    commit(&redis, "v2", &[]).await?;
    serves(&prompt, &["v2"]).await
}

#[tokio::test]
async fn changes_are_pushed_and_a_split_is_respected() -> Result<()> {
    let redis = Redis::start()?;
    commit(&redis, "v1", &[]).await?;
    let (reader, prompt) = follow(&redis.prompt_server_url(), pushed()).await?;
    ready(&reader).await?;
    let mut changes = prompt.changes();
    for (active, routing, expected) in [
        ("v1", &[("v1", "75"), ("v2", "25")][..], &["v1", "v2"][..]),
        ("v2", &[("v1", "25"), ("v2", "75")], &["v1", "v2"]),
        ("v2", &[("v1", "0"), ("v2", "100")], &["v2"]),
        ("v3", &[], &["v3"]),
    ] {
        commit(&redis, active, routing).await?;
        let split = routing.first().map_or(0, |(_, percent)| percent.parse().unwrap_or(0));
        let share =
            || (0..1_000).filter(|n| prompt.active_version(format!("user-{n}")).as_deref() == Some("v1")).count();
        eventually("the split", SOON, async || (share().abs_diff(split * 10) < 60).then_some(())).await?;
        serves(&prompt, expected).await?;
    }
    // the served version is reported, too
    ensure!(tokio::time::timeout(SOON, changes.next()).await?.is_some());
    // a plain SET needs no message
    redis.cmd::<()>(&["SET", ACTIVE, "v4"]).await?;
    serves(&prompt, &["v4"]).await?;
    ensure!(prompt.error().is_none() && prompt.staleness().is_some_and(|age| age < SOON));
    Ok(())
}

#[tokio::test]
async fn a_version_stays_known_while_redis_is_away() -> Result<()> {
    let mut redis = Redis::start()?;
    commit(&redis, "v2", &[("v1", "25"), ("v2", "75")]).await?;
    let (reader, prompt) = follow(&redis.prompt_server_url(), often()).await?;
    ready(&reader).await?;
    redis.kill9();
    says(&prompt, |problem| matches!(problem, Some(Problem::Away(_)))).await?;
    let age = prompt.staleness().context("an age")?;
    let grown = async || prompt.staleness().filter(|now| *now > age + Duration::from_millis(200)).map(drop);
    eventually("the age grows", SOON, grown).await?;
    ensure!(names(&prompt) == ["v1", "v2"]);
    // it restarts, and has lost everything
    redis.restart()?;
    says(&prompt, |problem| problem == Some(Problem::Missing)).await?;
    ensure!(names(&prompt) == ["v1", "v2"] && prompt.staleness().is_some_and(|now| now > age));
    commit(&redis, "v1", &[]).await?;
    serves(&prompt, &["v1"]).await?;
    ensure!(prompt.error().is_none());
    // the last known version outlives the reader
    drop(reader);
    ensure!(prompt.active_version("user-1").as_deref() == Some("v1"));
    Ok(())
}

#[tokio::test]
async fn a_redis_that_is_not_there_yet_is_waited_for() -> Result<()> {
    let mut redis = Redis::builder().appendonly().start()?;
    commit(&redis, "v1", &[]).await?;
    redis.kill9();
    let (reader, prompt) = follow(&redis.prompt_server_url(), pushed()).await?;
    says(&prompt, |problem| matches!(problem, Some(Problem::Away(why)) if why.contains("refused"))).await?;
    ensure!(prompt.active_version("user-1").is_none() && prompt.staleness().is_none() && prompt.versions().is_empty());
    redis.restart()?;
    ready(&reader).await?;
    serves(&prompt, &["v1"]).await
}

#[tokio::test]
async fn a_connection_that_is_half_dead_is_left() -> Result<()> {
    let redis = Redis::start()?;
    let proxy = FaultProxy::start(redis.addr()).await?;
    commit(&redis, "v1", &[]).await?;
    let (reader, prompt) = follow(&Redis::PROMPT_SERVER.url(proxy.addr()), often()).await?;
    ready(&reader).await?;
    proxy.set(Mode::Stall);
    says(&prompt, |problem| matches!(problem, Some(Problem::Away(_)))).await?;
    commit(&redis, "v2", &[]).await?;
    ensure!(names(&prompt) == ["v1"]);
    proxy.set(Mode::Pass);
    serves(&prompt, &["v2"]).await?;
    proxy.set(Mode::Answer(b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()));
    says(&prompt, |problem| matches!(problem, Some(Problem::Away(_)))).await?;
    ensure!(names(&prompt) == ["v2"]);
    proxy.set(Mode::Pass);
    says(&prompt, |problem| problem.is_none()).await
}

#[tokio::test]
async fn what_is_no_version_changes_nothing() -> Result<()> {
    let redis = Redis::start()?;
    commit(&redis, "v1", &[]).await?;
    let (reader, prompt) = follow(&redis.prompt_server_url(), pushed()).await?;
    ready(&reader).await?;
    let long = "v".repeat(65);
    for value in ["", "\n", "../etc/passwd", "v2\nv3", "\"v2\"", "v\u{e4}", &long] {
        redis.cmd::<()>(&["SET", ACTIVE, value]).await?;
        says(&prompt, |problem| matches!(problem, Some(Problem::Active(why)) if why.contains("name"))).await?;
        ensure!(names(&prompt) == ["v1"], "{value:?}");
        redis.cmd::<()>(&["SET", ACTIVE, "v1"]).await?;
        says(&prompt, |problem| problem.is_none()).await?;
    }
    redis.cmd::<()>(&["EVAL", "redis.call('SET', KEYS[1], '\\255\\254')", "1", ACTIVE]).await?;
    says(&prompt, |problem| matches!(problem, Some(Problem::Active(_)))).await?;
    redis.cmd::<()>(&["DEL", ACTIVE]).await?;
    says(&prompt, |problem| problem == Some(Problem::Missing)).await?;
    redis.cmd::<()>(&["RPUSH", ACTIVE, "v2"]).await?;
    says(&prompt, |problem| matches!(problem, Some(Problem::Active(why)) if why.contains("WRONGTYPE"))).await?;
    redis.cmd::<()>(&["FLUSHALL"]).await?;
    says(&prompt, |problem| problem == Some(Problem::Missing)).await?;
    ensure!(names(&prompt) == ["v1"] && prompt.active_version("user-1").as_deref() == Some("v1"));
    Ok(())
}

#[tokio::test]
async fn what_a_shell_puts_around_a_version_is_not_part_of_it() -> Result<()> {
    let redis = Redis::start()?;
    commit(&redis, "v1", &[]).await?;
    let (reader, prompt) = follow(&redis.prompt_server_url(), pushed()).await?;
    ready(&reader).await?;
    for (value, version) in [("v2\n", "v2"), ("v3\r\n", "v3"), (" v4\0", "v4")] {
        redis.cmd::<()>(&["SET", ACTIVE, value]).await?;
        serves(&prompt, &[version]).await?;
        ensure!(prompt.error().is_none(), "{value:?}: {:?}", prompt.error());
    }
    commit(&redis, "v1\n", &[("v1", "50\n"), ("v2\n", "50")]).await?;
    serves(&prompt, &["v1", "v2"]).await
}

#[tokio::test]
async fn a_routing_that_is_none_leaves_everybody_with_the_active_version() -> Result<()> {
    let redis = Redis::start()?;
    commit(&redis, "v1", &[("v1", "50"), ("v2", "49")]).await?;
    let (reader, prompt) = follow(&redis.prompt_server_url(), pushed()).await?;
    ready(&reader).await?;
    ensure!(names(&prompt) == ["v1"] && matches!(prompt.error(), Some(Problem::Routing(_))), "{:?}", prompt.error());
    // an outdated split: someone SETs a version that it does not contain
    commit(&redis, "v1", &[("v1", "50"), ("v2", "50")]).await?;
    serves(&prompt, &["v1", "v2"]).await?;
    redis.cmd::<()>(&["SET", ACTIVE, "v3"]).await?;
    serves(&prompt, &["v3"]).await?;
    ensure!(prompt.error().is_none(), "{:?}", prompt.error());
    // of the wrong type: a rollback must still take effect
    commit(&redis, "v3", &[]).await?;
    redis.cmd::<()>(&["SET", ROUTING, "v3"]).await?;
    says(&prompt, |problem| matches!(problem, Some(Problem::Routing(why)) if why.contains("WRONGTYPE"))).await?;
    redis.cmd::<()>(&["SET", ACTIVE, "v1"]).await?;
    serves(&prompt, &["v1"]).await
}

#[tokio::test]
async fn the_prompt_server_user_suffices_and_one_reader_follows_many() -> Result<()> {
    let redis = shipped::redis("receiver-password", "server-password")?.start()?;
    let url = format!("redis://prompt-server:server-password@{}", redis.addr());
    let many: Vec<String> = (0..250).map(|number| format!("team/prompt.{number}")).collect();
    for name in &many {
        redis.cmd::<()>(&["SET", &format!("{{prompts}}:active:{name}"), "v1"]).await?;
    }
    let reader = Reader::start(url.as_str(), many.clone(), pushed())?;
    ready(&reader).await?;
    ensure!(reader.prompts().count() == many.len() && reader.prompt("another").is_none());
    let last = reader.prompt(&many[249]).context("the last one")?;
    redis.cmd::<()>(&["SET", &format!("{{prompts}}:active:{}", many[249]), "v2"]).await?;
    serves(last, &["v2"]).await?;
    serves(reader.prompt(&many[0]).context("the first one")?, &["v1"]).await?;
    ensure!(reader.prompts().all(|(_, prompt)| prompt.error().is_none()));
    // it may not read elsewhere, and reports that
    let settings = Settings { namespace: "{other}".to_owned(), ..Settings::default() };
    let (_reader, prompt) = follow(&url, settings).await?;
    says(&prompt, |problem| matches!(problem, Some(Problem::Away(why)) if why.contains("permission"))).await
}
