//! `POST /-/reload`, and files that are replaced while the receiver runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use prompt_rollback_testkit::{Dir, eventually, free_port};
use serde_json::{Value, json};

use crate::common::{
    Answer, Http, ROLLED_BACK, Receiver, Redis, SOON, alert, copy_prompt, critical, deliver, outcomes, settings_of,
    ship,
};

/// A receiver with a config file.
struct World {
    dir: Dir,
    redis: Redis,
    receiver: Receiver,
}

impl World {
    async fn start(toml: &str, files: &[(&str, &str)]) -> Result<Self> {
        let redis = Redis::start()?;
        let url = redis.receiver_url();
        Self::with(redis, &url, toml, files).await
    }

    async fn with(redis: Redis, url: &str, toml: &str, files: &[(&str, &str)]) -> Result<Self> {
        let dir = Dir::new("reload")?;
        for (name, content) in files {
            dir.write(name, content)?;
        }
        let path = dir.write("prompt-rollback.toml", toml)?;
        let receiver = Receiver::start_with(&settings_of(Some(&path), url, &[])).await?;
        receiver.wait_ready(SOON).await?;
        Ok(Self { dir, redis, receiver })
    }

    fn http(&self) -> &Http {
        &self.receiver.http
    }

    async fn reload(&self, toml: &str) -> Result<Answer> {
        self.dir.write("prompt-rollback.toml", toml)?;
        self.http().post("/-/reload", "").await
    }

    /// Reloads, and expects 200.
    async fn reloaded(&self, toml: &str) -> Result<Value> {
        let answer = self.reload(toml).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        answer.json()
    }

    /// The value of a metric of the receiver without labels.
    async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.http().get("/metrics").await?.text();
        let line = text.lines().find(|line| line.starts_with(&format!("prompt_rollback_{name} ")));
        Ok(line.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("{name} in {text}"))?.parse()?)
    }

    async fn is_successful(&self) -> Result<bool> {
        Ok(self.metric("config_last_reload_successful").await? == 1.0)
    }
}

const DRY_RUN: &str = "[guards]\nmode = \"dry-run\"\n";
const HELD: &str = "held{dry_run}";

#[tokio::test]
async fn a_new_config_holds_from_the_next_alert_on_and_lists_its_changes() -> Result<()> {
    let world = World::start("", &[]).await?;
    for prompt in ["p", "q"] {
        ship(world.http(), prompt).await?;
    }
    let started = world.metric("config_last_reload_success_timestamp_seconds").await?;
    assert!(started > 1.7e9 && world.is_successful().await?);
    let nothing = json!({"success": true, "changed": [], "needs_restart": []});
    assert_eq!(world.reloaded("# a comment\n").await?, nothing);
    let answer = world.reloaded(DRY_RUN).await?;
    let mode = json!({"key": "guards.mode", "from": "armed", "to": "dry-run"});
    assert_eq!(answer, json!({"success": true, "changed": [mode], "needs_restart": []}));
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [HELD]);
    // an approver, an alias and another label: everything that is read from an alert
    let labels = "[labels]\nprompt = \"name\"\n[labels.severity_aliases]\np1 = \"critical\"\n";
    world.reloaded(labels).await?;
    let mut renamed = alert("q", "v2", "P1");
    renamed["labels"]["name"] = "q".into();
    assert_eq!(world.receiver.outcomes(&[critical("p"), renamed]).await?, ["ignored{invalid_name}", ROLLED_BACK]);
    assert!(world.metric("config_last_reload_success_timestamp_seconds").await? > started);
    Ok(())
}

#[tokio::test]
async fn a_bad_config_changes_nothing_and_the_answer_names_every_problem() -> Result<()> {
    let world = World::start(DRY_RUN, &[]).await?;
    ship(world.http(), "p").await?;
    let before = world.metric("config_last_reload_success_timestamp_seconds").await?;
    // nor are its valid parts applied
    let bad = "[guards]\nmode = \"armed\"\ncooldown = \"soon\"\n[server]\napi_token = [\"hunter2\"]\n[servr]\nx = 1\n";
    let answer = world.reload(bad).await?;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let error = answer.json()?["error"].clone();
    assert_eq!(error["code"], "bad_config");
    let message = error["message"].as_str().context("a message")?;
    assert_eq!(message.lines().count(), 3, "{message}");
    for part in ["prompt-rollback.toml:3: guards.cooldown", ":5: server.api_token", ":7: servr.x"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("hunter2"), "{message}");
    assert!(!world.is_successful().await?);
    assert_eq!(world.metric("config_last_reload_success_timestamp_seconds").await?, before);
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [HELD]);

    std::fs::remove_file(world.dir.path().join("prompt-rollback.toml"))?;
    let answer = world.http().post("/-/reload", "").await?;
    assert!(answer.status == 400 && answer.text().contains("cannot read the config file"), "{}", answer.text());
    assert!(!world.is_successful().await?);
    world.reloaded(DRY_RUN).await?;
    assert!(world.is_successful().await?);
    Ok(())
}

#[tokio::test]
async fn what_needs_a_restart_is_named_each_time_and_the_rest_is_taken_over() -> Result<()> {
    let world = World::start("", &[]).await?;
    ship(world.http(), "p").await?;
    let namespace = json!({"key": "redis.namespace", "from": "{prompts}", "to": "{others}"});
    let written = format!("[redis]\nnamespace = \"{{others}}\"\n{DRY_RUN}");
    for changes in [1, 0] {
        let answer = world.reloaded(&written).await?;
        assert_eq!(answer["needs_restart"], json!([namespace]));
        assert_eq!(answer["changed"].as_array().map(Vec::len), Some(changes), "{answer}");
        assert!(world.is_successful().await?);
    }
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [HELD], "its state is where it was");
    Ok(())
}

#[tokio::test]
async fn a_new_token_in_a_file_is_never_refused() -> Result<()> {
    let toml = "[server]\napi_token_file = \"api\"\nwebhook_token_file = \"hook\"\n";
    let world = World::start(toml, &[("api", "api-1\n"), ("hook", "hook-1\n")]).await?;
    let status = async |token: &str| anyhow::Ok(world.http().clone().token(token).get("/api/prompts").await?.status);
    let delivered = async |token: &str| anyhow::Ok(deliver(&world.http().clone().token(token), &[]).await?.status);
    let browser = world.http().clone().header("sec-fetch-site", "same-origin");
    let signed_in = async |token: &str| anyhow::Ok(browser.post_form("/login", format!("token={token}")).await?.status);
    assert_eq!((status("api-1").await?, delivered("hook-1").await?), (200, 200));
    for n in 2..10 {
        // a form has the token in its body
        world.dir.write("api", format!("form-{n}"))?;
        assert_eq!(signed_in(&format!("form-{n}")).await?, 303, "{n}");
        assert_eq!(signed_in("wrong").await?, 401, "{n}");
        let (old, new) = (format!("api-{}", n - 1), format!("api-{n}"));
        world.dir.write("api", format!("{new}\n"))?;
        // requests that arrive while the file is being read wait for the same read
        let at_once = (0..40).map(async |k| {
            tokio::time::sleep(Duration::from_millis(5) * (k % 20)).await; // the load: spread over 100 ms
            status(&new).await
        });
        for status in join_all(at_once).await {
            assert_eq!(status?, 200, "{n}");
        }
        assert_eq!(status(&old).await?, 401, "{n}");
        world.dir.write("hook", format!("hook-{n}"))?;
        assert_eq!(delivered(&format!("hook-{n}")).await?, 200, "{n}");
    }
    // an unusable file changes nothing, and is reported
    for broken in ["", "\n", "two\nlines\n"] {
        world.dir.write("api", broken)?;
        eventually("it is noticed", SOON, async || (!world.is_successful().await.ok()?).then_some(())).await?;
        assert_eq!((status("api-9").await?, status("").await?, status("two").await?), (200, 401, 401), "{broken:?}");
        world.dir.write("api", "api-9\n")?;
        eventually("it works again", SOON, async || world.is_successful().await.ok()?.then_some(())).await?;
    }
    // without a request, the file is checked as well
    world.dir.write("api", "api-10")?;
    eventually("the old token is refused", SOON, async || (status("api-9").await.ok()? == 401).then_some(())).await?;
    let answer = world.http().clone().token("api-9").post("/-/reload", "").await?;
    assert_eq!(answer.status, 401);
    assert_eq!(world.http().clone().token("api-10").post("/-/reload", "").await?.status, 200);
    assert_eq!(world.http().clone().token("api-10").get("/-/reload").await?.status, 405);
    Ok(())
}

#[tokio::test]
async fn a_file_that_a_reload_refused_needs_no_other_reload() -> Result<()> {
    let world = World::start("[server]\napi_token_file = \"api\"\n", &[("api", "api-1")]).await?;
    let http = world.http().clone().token("api-1");
    for fixed in ["api-1", "api-2"] {
        world.dir.write("api", "")?;
        let answer = http.post("/-/reload", "").await?;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(!world.is_successful().await?);
        world.dir.write("api", fixed)?;
        eventually("it works again", SOON, async || world.is_successful().await.ok()?.then_some(())).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_password_of_redis_is_replaced_while_it_is_refused() -> Result<()> {
    let redis = Redis::start()?;
    let url = format!("redis://receiver@{}", redis.addr());
    let toml = "[redis]\npassword_file = \"password\"\n";
    let world = World::with(redis, &url, toml, &[("password", "receiver")]).await?;
    ship(world.http(), "p").await?;
    let set = async |password: &str| {
        let password = format!(">{password}");
        world.redis.cmd::<()>(&["ACL", "SETUSER", "receiver", "resetpass", &password]).await?;
        world.redis.cmd::<i64>(&["CLIENT", "KILL", "USER", "receiver"]).await
    };
    set("second").await?;
    world.receiver.wait_not_ready("auth", SOON).await?;
    world.dir.write("password", "second\n")?;
    world.receiver.wait_ready(SOON).await?;
    // the reverse change goes unnoticed as well
    world.dir.write("password", "third")?;
    eventually("it is taken over", SOON, async || {
        let text = world.http().get("/metrics").await.ok()?.text();
        text.contains("config_last_reload_successful 1").then_some(())
    })
    .await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    set("third").await?;
    world.receiver.wait_ready(SOON).await
}

/// A program beside the receiver writes the next password just before the old one ends.
#[tokio::test]
async fn no_alert_is_refused_while_the_password_of_redis_is_renewed() -> Result<()> {
    let redis = Redis::start()?;
    let url = format!("redis://receiver@{}", redis.addr());
    let toml = "[redis]\npassword_file = \"password\"\n";
    let world = World::with(redis, &url, toml, &[("password", "receiver")]).await?;
    let prompts = ["a", "b", "c", "d"];
    for prompt in prompts {
        ship(world.http(), prompt).await?;
    }
    for (number, prompt) in prompts.into_iter().enumerate() {
        let password = format!("renewed-{number}");
        world.dir.write("password", &password)?;
        world.redis.cmd::<()>(&["ACL", "SETUSER", "receiver", "resetpass", &format!(">{password}")]).await?;
        world.redis.cmd::<i64>(&["CLIENT", "KILL", "USER", "receiver"]).await?;
        // sooner than the receiver looks at its files by itself
        assert_eq!(world.receiver.outcomes(&[critical(prompt)]).await?, [ROLLED_BACK], "{prompt}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_delivery_is_judged_by_one_whole_config() -> Result<()> {
    const DELIVERIES: usize = 400;
    const ALERTS: usize = 8;
    // they differ in what is read from an alert, and in what it causes
    const ARMED: &str = "[labels]\nprompt = \"prompt\"\n[guards]\nmode = \"armed\"\nmax_auto_rollbacks = 1000000\n";
    const HOLDING: &str = "[labels]\nprompt = \"other\"\n[guards]\nmode = \"dry-run\"\nmax_auto_rollbacks = 1000000\n";
    let world = World::start(ARMED, &[]).await?;
    ship(world.http(), "p").await?;
    let name = |config: &str, n: usize| format!("{config}-{n:05}");
    let names: Vec<_> =
        ["armed", "holding"].iter().flat_map(|c| (0..DELIVERIES * ALERTS).map(move |n| name(c, n))).collect();
    copy_prompt(&world.redis, "p", &names).await?;

    for (name, config) in [("armed.toml", ARMED), ("holding.toml", HOLDING)] {
        let path = world.dir.write(name, config)?;
        std::fs::File::options().append(true).open(path)?.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
    }
    let over = AtomicBool::new(false);
    let reloading = async {
        let mut reloads = 0;
        while !over.load(Ordering::Relaxed) {
            // old files, so that the receiver need not wait for a writer to finish
            let link = world.dir.path().join("link");
            std::os::unix::fs::symlink(["holding.toml", "armed.toml"][reloads % 2], &link)?;
            std::fs::rename(link, world.dir.path().join("prompt-rollback.toml"))?;
            let answer = world.http().post("/-/reload", "").await?;
            ensure!(answer.status == 200, "{}", answer.text());
            reloads += 1;
        }
        anyhow::Ok(reloads)
    };
    let deliver_all = async {
        let each = (0..4).map(async |worker| {
            let mut armed = 0;
            for delivery in (worker..DELIVERIES).step_by(4) {
                let alerts = (delivery * ALERTS..(delivery + 1) * ALERTS).map(|n| {
                    let mut alert = critical(&name("armed", n));
                    alert["labels"]["other"] = name("holding", n).into();
                    alert
                });
                let alerts: Vec<_> = alerts.collect();
                let answer = deliver(world.http(), &alerts).await?;
                let judged = outcomes(&answer)?;
                let prompts = answer.json()?["results"].clone();
                let of = |config: &str| {
                    prompts.as_array().is_some_and(|all| {
                        all.iter().all(|one| one["prompt"].as_str().is_some_and(|prompt| prompt.starts_with(config)))
                    })
                };
                let all = |outcome: &str| judged.iter().all(|one| one == outcome);
                let whole = (of("armed") && all(ROLLED_BACK)) || (of("holding") && all(HELD));
                ensure!(whole, "half of one config and half of the other: {prompts}");
                armed += usize::from(of("armed"));
            }
            Ok(armed)
        });
        let armed = try_join_all(each).await;
        over.store(true, Ordering::Relaxed);
        armed
    };
    let (reloads, armed) = tokio::try_join!(reloading, deliver_all)?;
    let armed: usize = armed.iter().sum();
    assert!(reloads > 20 && (20..DELIVERIES - 20).contains(&armed), "{reloads} reloads, {armed} by the first config");
    Ok(())
}

#[tokio::test]
async fn another_alertmanager_gets_our_alerts_from_then_on() -> Result<()> {
    let world = World::start("", &[]).await?;
    ship(world.http(), "p").await?;
    let drill = async || world.http().post_json("/api/drill", &json!({"prompt": "p"})).await;
    assert_eq!(drill().await?.status, 409);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    world.reloaded(&format!("[alertmanager]\nurls = [\"http://{}\"]\n", listener.local_addr()?)).await?;
    assert_eq!(drill().await?.status, 201);
    let posted = async {
        let (mut stream, _) = listener.accept().await?;
        let mut head = [0; 25];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head).await?;
        anyhow::Ok(String::from_utf8_lossy(&head).into_owned())
    };
    assert_eq!(tokio::time::timeout(SOON, posted).await??, "POST /api/v2/alerts HTTP/");
    Ok(())
}

#[tokio::test]
async fn a_page_with_an_address_of_its_own_can_be_switched_on() -> Result<()> {
    let port = free_port();
    let page = |enabled: bool| format!("[page]\nenabled = {enabled}\nlisten = \"127.0.0.1:{port}\"\n");
    let world = World::start(&page(false), &[]).await?;
    let own = Http::new(format!("http://127.0.0.1:{port}"));
    let statuses = async || anyhow::Ok((own.get("/").await?.status, world.http().get("/").await?.status));
    assert_eq!(statuses().await?, (404, 404));
    let answer = world.reloaded(&page(true)).await?;
    assert_eq!(answer["changed"], json!([{"key": "page.enabled", "from": "false", "to": "true"}]));
    assert_eq!(statuses().await?, (200, 404));
    world.reloaded(&page(false)).await?;
    assert_eq!(statuses().await?, (404, 404));
    Ok(())
}

#[tokio::test]
async fn reloads_at_once_are_done_one_after_the_other() -> Result<()> {
    let world = World::start("", &[]).await?;
    world.dir.write("prompt-rollback.toml", DRY_RUN)?;
    let answers = try_join_all((0..20).map(|_| world.http().post("/-/reload", ""))).await?;
    let mut changes = 0;
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        changes += answer.json()?["changed"].as_array().context("changes")?.len();
    }
    assert_eq!(changes, 1, "one of them found it changed");
    Ok(())
}

#[tokio::test]
async fn fewer_connections_and_shorter_bodies_hold_at_once() -> Result<()> {
    let world = World::start("", &[]).await?;
    let mut idle = Vec::new();
    for _ in 0..30 {
        idle.push(tokio::net::TcpStream::connect(world.receiver.app.address).await?);
    }
    world.reloaded("[server]\nmax_connections = 4\nmax_body_bytes = 100\n").await?;
    let large = world.http().post("/webhooks/alertmanager", "x".repeat(101)).await?;
    assert_eq!(large.status, 413);
    let _one_more = tokio::net::TcpStream::connect(world.receiver.app.address).await?;
    eventually("the rest is closed", SOON, async || {
        let mut open = 0;
        for stream in &idle {
            open += usize::from(stream.try_read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
        }
        (open <= 4).then_some(())
    })
    .await?;
    assert_eq!(world.http().get("/-/ready").await?.status, 200);
    tokio::time::pause(); // so that a busy machine does not matter
    tokio::time::timeout(Duration::from_secs(5), world.receiver.app.shutdown()).await?;
    Ok(())
}
