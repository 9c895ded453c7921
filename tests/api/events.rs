//! `GET /events`: open pages are told what has changed, by whichever receiver.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prompt_rollback_testkit::{Dir, Redis, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::common::{
    Http, ROLLED_BACK, Receiver, SOON, World, alert, critical, deliver, outcomes, process, settings_of, ship,
};

/// A page in a browser, as far as it follows changes.
struct Page {
    status: u16,
    head: String,
    stream: BufReader<TcpStream>,
}

impl Page {
    async fn open(address: SocketAddr) -> Result<Self> {
        Self::open_with(address, "").await
    }

    /// With more headers. Like many a proxy it speaks HTTP/1.0.
    async fn open_with(address: SocketAddr, headers: &str) -> Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        let request = format!("GET /events HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = tokio::time::timeout(SOON, stream.read_line(&mut head)).await??;
            ensure!(read > 0, "the connection was closed: {head}");
        }
        let status = head.split(' ').nth(1).context("a status")?.parse()?;
        Ok(Self { status, head, stream })
    }

    /// One that hears of changes.
    async fn live(address: SocketAddr) -> Result<Self> {
        let mut page = Self::open(address).await?;
        ensure!(page.status == 200, "{}", page.head);
        page.until("resync", &json!({})).await?;
        Ok(page)
    }

    /// The name and the data of the next event; `None` at the end.
    async fn next(&mut self) -> Result<Option<(String, Value)>> {
        let (mut event, mut data) = (None, None);
        loop {
            let mut line = String::new();
            let read = tokio::time::timeout(SOON, self.stream.read_line(&mut line)).await;
            if read.context("no event")?.unwrap_or(0) == 0 {
                return Ok(None); // also if it was reset
            }
            match line.trim_end().split_once(": ") {
                Some(("event", name)) => event = Some(name.to_owned()),
                Some(("data", json)) => data = Some(serde_json::from_str(json)?),
                _ => {}
            }
            if line == "\n"
                && let (Some(event), Some(data)) = (event.take(), data.take())
            {
                return Ok(Some((event, data)));
            }
        }
    }

    /// Waits for this event.
    async fn until(&mut self, event: &str, data: &Value) -> Result<()> {
        let wanted = (event.to_owned(), data.clone());
        let mut before = Vec::new();
        while let Some((name, mut found)) = self.next().await? {
            // depends on how many pages are open
            found.as_object_mut().and_then(|found| found.remove("spread"));
            let next = (name, found);
            if next == wanted {
                return Ok(());
            }
            before.push(next);
        }
        bail!("the stream ended without {wanted:?}: {before:?}")
    }

    async fn hears_of(&mut self, prompt: &str) -> Result<()> {
        self.until("change", &json!({"prompt": prompt})).await
    }

    /// Reads what was committed so far, so that it is not taken for what comes next.
    async fn drain(&mut self, http: &Http, marker: u32) -> Result<()> {
        // named last in the same batch
        let prompt = format!("z-{marker}");
        let version = json!({"version": "v1"});
        let answer = http.post_json(&format!("/api/prompts/{prompt}/versions"), &version).await?;
        ensure!(answer.status == 201, "{}", answer.text());
        self.hears_of(&prompt).await
    }

    /// Waits for the end.
    async fn ends(&mut self) -> Result<()> {
        let ends = async {
            while self.next().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(SOON, ends).await.context("it goes on")?
    }
}

/// How many connections announce changes to a receiver.
async fn tracking(redis: &Redis) -> Option<usize> {
    let clients: String = redis.cmd(&["CLIENT", "LIST"]).await.ok()?;
    let tracks = |line: &&str| line.split(' ').any(|word| word.starts_with("flags=") && word.contains('B'));
    Some(clients.lines().filter(tracks).count())
}

async fn open_streams(http: &Http) -> Result<u32> {
    let text = http.get("/metrics").await?.text();
    let found = text.lines().find_map(|line| line.strip_prefix("prompt_rollback_event_streams "));
    Ok(found.with_context(|| text.clone())?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_hears_of_everything_that_another_receiver_commits() -> Result<()> {
    let redis = Redis::start()?;
    let (ours, other) =
        (Receiver::ready(&redis.receiver_url(), &[]).await?, Receiver::ready(&redis.receiver_url(), &[]).await?);
    let mut page = Page::live(ours.app.address).await?;
    for header in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
        assert!(page.head.contains(&format!("{header}\r\n")), "{header}: {}", page.head);
    }
    ship(&other.http, "team/p").await?;
    page.hears_of("team/p").await?;
    ship(&other.http, "q").await?;
    page.hears_of("q").await?;
    // a switch, an incident that moves no traffic, and a decision about it
    page.drain(&other.http, 1).await?;
    assert_eq!(other.outcomes(&[critical("team/p")]).await?, [ROLLED_BACK]);
    page.hears_of("team/p").await?;
    page.drain(&other.http, 2).await?;
    let opened = other.deliver(&[alert("q", "v2", "high")]).await?.json()?;
    page.hears_of("q").await?;
    page.drain(&other.http, 3).await?;
    let id = opened["results"][0]["incident"].as_str().context("an incident")?.to_owned();
    let dismissed = json!({"decision": "dismiss", "operator": "alice"});
    let answer = other.http.post_json(&format!("/api/incidents/{id}/decide"), &dismissed).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    page.hears_of("q").await?;
    // what concerns all prompts
    let answer = other.http.post_json("/api/pause", &json!({"operator": "alice", "reason": "a test"})).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    page.until("resync", &json!({})).await?;
    page.drain(&other.http, 4).await?;
    // somebody's own SET, once a receiver has taken it over
    redis.cmd::<()>(&["SET", "{prompts}:active:q", "v3"]).await?;
    page.hears_of("q").await
}

/// Everything that a page needs from Redis is open only while there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_page_nothing_listens() -> Result<()> {
    let world = World::start().await?;
    let tracking = async |count: usize| {
        eventually(&format!("{count} connections that track"), SOON, async || {
            (tracking(&world.redis).await? == count).then_some(())
        })
        .await
    };
    tracking(1).await?; // for external changes
    let pages = [Page::live(world.receiver.app.address).await?, Page::live(world.receiver.app.address).await?];
    tracking(2).await?;
    assert_eq!(open_streams(world.http()).await?, 2);
    drop(pages);
    tracking(1).await?;
    assert_eq!(open_streams(world.http()).await?, 0);
    // and it begins again
    let mut page = Page::live(world.receiver.app.address).await?;
    world.ship("p").await?;
    page.hears_of("p").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_knows_that_redis_was_killed_and_what_to_do_once_it_is_back() -> Result<()> {
    let mut world = World::start().await?;
    let mut page = Page::live(world.receiver.app.address).await?;
    world.redis.kill9();
    page.until("stale", &json!({})).await?;
    let mut late = Page::open(world.receiver.app.address).await?;
    late.until("stale", &json!({})).await?;
    world.redis.restart()?;
    for page in [&mut page, &mut late] {
        page.until("resync", &json!({})).await?;
    }
    world.receiver.wait_ready(SOON).await?;
    world.ship("p").await?;
    for page in [&mut page, &mut late] {
        page.hears_of("p").await?;
    }
    Ok(())
}

/// A Redis that hangs, and so closes no connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_knows_that_redis_hangs() -> Result<()> {
    let world = World::start().await?;
    let mut page = Page::live(world.receiver.app.address).await?;
    world.redis.pause()?;
    page.until("stale", &json!({})).await?;
    world.redis.resume()?;
    page.until("resync", &json!({})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_pages_do_not_hold_up_a_shutdown() -> Result<()> {
    let redis = Redis::start()?;
    let mut receiver = process(&redis).env("PROMPT_ROLLBACK_SERVER__SHUTDOWN_TIMEOUT", "5m").start()?;
    let address = receiver.addr().parse()?;
    let mut pages = Vec::new();
    for _ in 0..20 {
        pages.push(Page::live(address).await?);
    }
    let start = Instant::now();
    let exit = tokio::task::spawn_blocking(move || receiver.sigterm().map(|status| (status, receiver)));
    for page in &mut pages {
        page.ends().await?;
    }
    let (status, receiver) = exit.await??;
    assert_eq!(status.code(), Some(0));
    // a busy machine may take a while, but far less than the timeout
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let log = receiver.log();
    assert!(!log.contains("did not finish in time"), "{log}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_reload_that_replaces_the_token_ends_a_stream() -> Result<()> {
    let (redis, dir) = (Redis::start()?, Dir::new("events")?);
    let config = |token: &str, cooldown: &str| {
        format!("[server]\napi_token = \"{token}\"\n[guards]\ncooldown = \"{cooldown}\"\n")
    };
    let path = dir.write("prompt-rollback.toml", config("first", "30m"))?;
    let receiver = Receiver::start_with(&settings_of(Some(&path), &redis.receiver_url(), &[])).await?;
    receiver.wait_ready(SOON).await?;
    let address = receiver.app.address;
    let reload = async |token: &str, text: String| {
        dir.write("prompt-rollback.toml", text)?;
        let answer = receiver.http.clone().token(token).post("/-/reload", "").await?;
        ensure!(answer.status == 200, "{}", answer.text());
        anyhow::Ok(())
    };
    assert_eq!(Page::open(address).await?.status, 401);
    let mut page = Page::open_with(address, "Authorization: Bearer first\r\n").await?;
    page.until("resync", &json!({})).await?;
    reload("first", config("first", "31m")).await?;
    tokio::time::timeout(SOON, page.until("resync", &json!({}))).await.context("it does not know of the reload")??;
    ship(&receiver.http.clone().token("first"), "p").await?;
    page.hears_of("p").await?;
    reload("first", config("second", "31m")).await?;
    page.ends().await?;
    assert_eq!(Page::open_with(address, "Authorization: Bearer first\r\n").await?.status, 401);
    let mut page = Page::open_with(address, "Authorization: Bearer second\r\n").await?;
    page.until("resync", &json!({})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_disables_the_page_ends_its_streams() -> Result<()> {
    let (redis, dir) = (Redis::start()?, Dir::new("events")?);
    let config = |enabled: bool| format!("[server]\napi_token = \"first\"\n[page]\nenabled = {enabled}\n");
    let path = dir.write("prompt-rollback.toml", config(true))?;
    let receiver = Receiver::start_with(&settings_of(Some(&path), &redis.receiver_url(), &[])).await?;
    receiver.wait_ready(SOON).await?;
    let open = || Page::open_with(receiver.app.address, "Authorization: Bearer first\r\n");
    let mut page = open().await?;
    page.until("resync", &json!({})).await?;
    dir.write("prompt-rollback.toml", config(false))?;
    let answer = receiver.http.clone().token("first").post("/-/reload", "").await?;
    ensure!(answer.status == 200, "{}", answer.text());
    page.ends().await?;
    assert_eq!(open().await?.status, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_limited_to_half_of_all_connections() -> Result<()> {
    for env in [[("PAGE__MAX_STREAMS", "3")], [("SERVER__MAX_CONNECTIONS", "6")]] {
        let world = World::with(&env).await?;
        let address = world.receiver.app.address;
        let mut pages = Vec::new();
        for _ in 0..3 {
            pages.push(Page::live(address).await?);
        }
        let refused = Page::open(address).await?;
        assert_eq!(refused.status, 503, "{env:?}");
        assert!(refused.head.contains("retry-after: 30\r\n"), "{}", refused.head);
        drop(pages.pop());
        eventually("a place is free", SOON, async || (Page::open(address).await.ok()?.status == 200).then_some(()))
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_takes_the_place_of_a_stream_if_all_connections_are_taken() -> Result<()> {
    let world = World::with(&[("SERVER__MAX_CONNECTIONS", "8")]).await?;
    world.ship("p").await?;
    let address = world.receiver.app.address;
    let mut pages = Vec::new();
    for _ in 0..4 {
        pages.push(Page::live(address).await?);
    }
    // these stay, so each further connection is one too many
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut client = BufReader::new(TcpStream::connect(address).await?);
        client.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        let mut line = String::new();
        client.read_line(&mut line).await?;
        ensure!(line.contains("200"), "{line}");
        idle.push(client);
    }
    let fresh = Http::new(format!("http://{address}"));
    assert_eq!(outcomes(&deliver(&fresh, &[critical("p")]).await?)?, [ROLLED_BACK]);
    // the one that was opened first gave way, and comes back
    pages[0].ends().await?;
    let mut again = Page::live(address).await?;
    world.ship("q").await?;
    again.hears_of("q").await
}

#[tokio::test]
async fn head_opens_no_stream() -> Result<()> {
    let world = World::start().await?;
    let request = b"HEAD /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = crate::common::exchange(world.receiver.app.address, request).await?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("text/event-stream"), "{answer}");
    assert_eq!(open_streams(world.http()).await?, 0);
    Ok(())
}
