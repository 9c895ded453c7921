//! Content of versions: what leaves Redis, where it goes, and how it is restored.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::config::Config;
use prompt_rollback::store::schedule::Work;
use serde_json::{Value, json};

use crate::common::{Receiver, Redis, SOON, World, critical, eventually, process};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A directory that is removed at the end.
struct Archive(PathBuf);

impl Archive {
    fn new() -> Result<Self> {
        use std::hash::{BuildHasher, RandomState};
        let name = format!("prompt-rollback-archive-{}-{:x}", std::process::id(), RandomState::new().hash_one(0));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of text")
    }

    fn file(&self, version: &str) -> PathBuf {
        self.0.join("team%2Fp").join(format!("{version}.txt"))
    }

    /// Simulates an unmount; `put_back` mounts it again.
    fn take_away(&self) -> Result<()> {
        Ok(std::fs::rename(&self.0, self.aside())?)
    }

    fn put_back(&self) -> Result<()> {
        Ok(std::fs::rename(self.aside(), &self.0)?)
    }

    fn aside(&self) -> PathBuf {
        self.0.with_extension("aside")
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        let _ = std::fs::remove_dir_all(self.aside());
    }
}

fn text(version: &str) -> String {
    format!("You answer as {version} does.\n")
}

impl World {
    async fn release(&self, version: &str) -> Result<()> {
        let body = json!({"version": version, "content": text(version), "known_good": true});
        let (status, answer) = self.post("/api/prompts/team%2Fp/versions", body).await?;
        ensure!(status == 201, "{answer}");
        let (status, answer) = self.post("/api/prompts/team%2Fp/activate", json!({"version": version})).await?;
        ensure!(status == 200, "{answer}");
        self.receiver.clock.advance(HOUR);
        Ok(())
    }

    async fn in_redis(&self) -> Result<BTreeSet<String>> {
        let keys: Vec<String> = self.redis.cmd(&["KEYS", "{prompts}:content:team/p:*"]).await?;
        Ok(keys.iter().filter_map(|key| key.rsplit(':').next().map(str::to_owned)).collect())
    }

    async fn until_in_redis(&self, versions: &[&str]) -> Result<()> {
        let wanted: BTreeSet<String> = versions.iter().map(|version| (*version).to_owned()).collect();
        let seen = eventually("texts", SOON, async || (self.in_redis().await.ok()? == wanted).then_some(())).await;
        let found = self.in_redis().await?;
        seen.with_context(|| format!("wanted {wanted:?}, found {found:?}"))
    }

    async fn version(&self, name: &str) -> Result<Value> {
        let prompt = self.get("/api/prompts/team%2Fp").await?;
        let versions = prompt["versions"].as_array().context("versions")?;
        versions.iter().find(|version| version["version"] == name).cloned().context("a version")
    }

    async fn restore(&self, version: &str) -> Result<(u16, Value)> {
        self.post(&format!("/api/prompts/team%2Fp/versions/{version}/restore"), json!({})).await
    }

    async fn roll_back(&self, version: &str, force: bool) -> Result<(u16, Value)> {
        let body = json!({"prompt": "team/p", "target_version": version, "force": force});
        loop {
            let (status, answer) = self.post("/api/rollback", body.clone()).await?;
            if status != 202 {
                return Ok((status, answer));
            }
            // on a busy machine the answer takes more than three seconds: ask again once it is there
            let path = format!("/api/incidents/{}", answer["incident"].as_str().context("an incident")?);
            eventually("the archive has answered", SOON, async || {
                (self.get(&path).await.ok()?["phase"] != "confirming").then_some(())
            })
            .await?;
        }
    }
}

/// v1 … v5, each known-good; v5 serves, and v1 and v2 are archived.
async fn archived(archive: &Archive) -> Result<World> {
    archived_with(archive, &[]).await
}

async fn archived_with(archive: &Archive, env: &[(&str, &str)]) -> Result<World> {
    let world = World::with(&[&[("RETENTION__ARCHIVE", archive.path())], env].concat()).await?;
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        world.release(version).await?;
    }
    world.until_in_redis(&["v3", "v4", "v5"]).await?;
    Ok(world)
}

#[tokio::test]
async fn old_texts_move_to_files_and_come_back_on_demand() -> Result<()> {
    let archive = Archive::new()?;
    let world = archived(&archive).await?;
    for version in ["v1", "v2"] {
        assert_eq!(std::fs::read_to_string(archive.file(version))?, text(version));
        let view = world.version(version).await?;
        ensure!(view["has_content"] == true && view["archived_at"].is_string(), "{view}");
    }
    ensure!(!archive.file("v3").exists() && world.version("v3").await?["archived_at"].is_null());
    let metrics = world.http().get("/metrics").await?.text().to_owned();
    // a disk that takes more than three seconds makes it fail first, and it is retried
    ensure!(metrics.contains(r#"archive_operations_total{operation="archive",result="ok"} 2"#), "{metrics}");

    let (status, answer) = world.restore("v1").await?;
    assert_eq!((status, &answer), (200, &json!({"prompt": "team/p", "version": "v1", "restored": true})));
    let content: String = world.redis.cmd(&["GET", "{prompts}:content:team/p:v1"]).await?;
    assert_eq!(content, text("v1"));
    let (status, answer) = world.restore("v1").await?;
    ensure!(status == 200 && answer["unchanged"] == true, "{answer}");
    for (version, status, code) in
        [("v9", 409, "unknown_version"), ("%20", 400, "bad_request"), ("..%2Fv1", 400, "bad_request")]
    {
        let (found, answer) = world.restore(version).await?;
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{version}");
    }
    world.receiver.clock.advance(8 * DAY);
    world.until_in_redis(&["v3", "v4", "v5"]).await
}

#[tokio::test]
async fn archived_content_is_deleted_after_keep_unless_it_is_needed() -> Result<()> {
    let archive = Archive::new()?;
    let world = archived(&archive).await?;
    world.receiver.clock.advance(179 * DAY);
    ensure!(world.restore("v9").await?.0 == 409);
    ensure!(archive.file("v1").exists());
    world.receiver.clock.advance(2 * DAY);
    eventually("the files are gone", SOON, async || {
        (!archive.file("v1").exists() && !archive.file("v2").exists()).then_some(())
    })
    .await?;
    assert_eq!(world.version("v1").await?["has_content"], false);
    let (status, answer) = world.restore("v1").await?;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("no_text")));
    world.until_in_redis(&["v3", "v4", "v5"]).await
}

/// A busy prompt: its content is never old enough to be forgotten, but its record holds 64 versions.
#[tokio::test]
async fn the_file_of_a_version_without_a_record_goes_when_another_is_archived() -> Result<()> {
    let archive = Archive::new()?;
    let world = archived(&archive).await?;
    std::fs::write(archive.file("v0"), text("v0"))?;
    let file = std::fs::File::options().append(true).open(archive.file("v0"))?;
    file.set_modified(std::time::SystemTime::now() - 181 * DAY)?;
    world.release("v6").await?;
    eventually("the file is gone", SOON, async || (!archive.file("v0").exists()).then_some(())).await?;
    for version in ["v1", "v2", "v3"] {
        ensure!(archive.file(version).exists(), "{version}");
    }
    Ok(())
}

#[tokio::test]
async fn without_an_archive_texts_stay_for_their_time() -> Result<()> {
    let world = World::start().await?;
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        world.release(version).await?;
    }
    world.receiver.clock.advance(170 * DAY);
    world.settled(&[Work::Archive]).await?;
    assert_eq!(world.in_redis().await?.len(), 5);
    world.receiver.clock.advance(11 * DAY);
    world.until_in_redis(&["v3", "v4", "v5"]).await
}

#[tokio::test]
async fn a_rollback_brings_the_text_back_first() -> Result<()> {
    let archive = Archive::new()?;
    let world = archived(&archive).await?;
    let (status, answer) = world.roll_back("v1", false).await?;
    ensure!(status == 200 && answer["to_version"] == "v1" && answer["success"] == true, "{answer}");
    ensure!(world.in_redis().await?.contains("v1"));
    let id = answer["incident"].as_str().context("an incident")?;
    let events = world.get(&format!("/api/incidents/{id}")).await?["events"].to_string();
    ensure!(events.contains("the content of v1 was restored from the archive"), "{events}");
    Ok(())
}

#[tokio::test]
async fn a_missing_or_damaged_file_is_an_objection() -> Result<()> {
    for (damage, says) in [(None, "missing"), (Some("other"), "damaged"), (Some("\u{fffd}"), "damaged")] {
        let archive = Archive::new()?;
        let world = archived(&archive).await?;
        match damage {
            None => std::fs::remove_file(archive.file("v1"))?,
            Some("other") => std::fs::write(archive.file("v1"), "You answer rudely.")?,
            Some(_) => std::fs::write(archive.file("v1"), [0xff, 0xfe])?,
        }
        let (status, answer) = world.roll_back("v1", false).await?;
        assert_eq!((status, &answer["error"]["code"]), (409, &json!("archived")), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        ensure!(message.contains("content of v1") && message.contains(says), "{message}");
        assert_eq!(world.active("team/p").await?.as_deref(), Some("v5"), "never silently");
        let (status, answer) = world.restore("v1").await?;
        assert_eq!((status, &answer["error"]["code"]), (409, &json!("archived")));
        ensure!(answer["error"]["message"].as_str().unwrap_or_default().contains(says), "{answer}");
        ensure!(world.version("v1").await?["archive_fault"].as_str().unwrap_or_default().contains(says));
        // whoever has the content registers it again
        let body = json!({"version": "v1", "content": text("v1")});
        ensure!(world.post("/api/prompts/team%2Fp/versions", body).await?.0 == 200);
        ensure!(world.in_redis().await?.contains("v1"));
        let (status, answer) = world.roll_back("v1", false).await?;
        ensure!(status == 200, "{answer}");
    }
    Ok(())
}

#[tokio::test]
async fn a_directory_that_is_away_drops_nothing_and_is_tried_again() -> Result<()> {
    let archive = Archive::new()?;
    let world = archived(&archive).await?;
    archive.take_away()?;
    world.release("v6").await?;
    eventually("it is said", SOON, async || {
        let text = world.http().get("/metrics").await.ok()?.text().to_owned();
        text.contains("prompt_rollback_archive_failing 1").then_some(())
    })
    .await?;
    assert_eq!(world.in_redis().await?.len(), 4, "v3 stays until it is safe elsewhere");
    let (status, answer) = world.roll_back("v1", false).await?;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("archived")), "{answer}");
    assert_eq!(world.active("team/p").await?.as_deref(), Some("v6"));
    let (status, answer) = world.restore("v2").await?;
    ensure!(status == 202 && answer["restored"] == false, "{answer}");
    ensure!(!Path::new(archive.path()).exists(), "what is not mounted is not made");

    archive.put_back()?;
    world.receiver.clock.advance(Duration::from_secs(700));
    eventually("the content is restored without another request", SOON, async || {
        world.in_redis().await.ok()?.contains("v2").then_some(())
    })
    .await?;
    eventually("v3 goes", SOON, async || archive.file("v3").exists().then_some(())).await?;
    ensure!(world.http().get("/metrics").await?.text().contains("prompt_rollback_archive_failing 0"));
    Ok(())
}

#[tokio::test]
async fn a_short_request_timeout_leaves_time_to_say_that_it_is_accepted() -> Result<()> {
    let archive = Archive::new()?;
    let world = archived_with(&archive, &[("SERVER__REQUEST_TIMEOUT", "2s")]).await?;
    archive.take_away()?;
    let (status, answer) = world.restore("v2").await?;
    ensure!(status == 202 && answer["restored"] == false, "{status} {answer}");
    Ok(())
}

#[tokio::test]
async fn a_text_that_can_not_be_written_stays_in_redis() -> Result<()> {
    let archive = Archive::new()?;
    std::fs::write(archive.0.join("team%2Fp"), "a file where the folder should be")?;
    let world = World::with(&[("RETENTION__ARCHIVE", archive.path())]).await?;
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        world.release(version).await?;
    }
    eventually("it is tried again", SOON, async || {
        world.receiver.clock.advance(Duration::from_secs(60));
        let text = world.http().get("/metrics").await.ok()?.text().to_owned();
        let failed = text.lines().find_map(|line| {
            line.strip_prefix(r#"prompt_rollback_archive_operations_total{operation="archive",result="failed"} "#)
        });
        (failed?.parse::<u32>().ok()? >= 3).then_some(())
    })
    .await?;
    assert_eq!(world.in_redis().await?.len(), 5);
    ensure!(
        world.http().get("/metrics").await?.text().contains("prompt_rollback_dead_letter_tasks 0"),
        "never given up"
    );
    std::fs::remove_file(archive.0.join("team%2Fp"))?;
    world.receiver.clock.advance(HOUR);
    world.until_in_redis(&["v3", "v4", "v5"]).await
}

#[tokio::test]
async fn a_text_that_becomes_a_target_is_brought_back_by_another_receiver_too() -> Result<()> {
    let archive = Archive::new()?;
    let world = archived(&archive).await?;
    let World { redis, receiver } = world;
    receiver.app.shutdown().await;
    let clock = receiver.clock;
    let receiver = Receiver::ready(&redis.url(), &[("RETENTION__ARCHIVE", archive.path())]).await?;
    receiver.clock.advance(5 * HOUR);
    drop(clock);
    let world = World { redis, receiver };
    let mut alert = critical("team/p");
    alert["labels"]["version"] = json!("v5");
    alert["fingerprint"] = json!("five");
    assert_eq!(world.receiver.outcomes(&[alert]).await?, ["rolled_back{alert}"]);
    world.until_in_redis(&["v2", "v3", "v4", "v5"]).await
}

#[tokio::test]
async fn turning_the_archive_on_later_moves_what_is_old() -> Result<()> {
    let archive = Archive::new()?;
    let redis = Redis::start()?;
    let receiver = Receiver::ready(&redis.url(), &[]).await?;
    let world = World { redis, receiver };
    for version in ["v1", "v2", "v3", "v4"] {
        world.release(version).await?;
    }
    let World { redis, receiver } = world;
    receiver.app.shutdown().await;
    let receiver = Receiver::ready(&redis.url(), &[("RETENTION__ARCHIVE", archive.path())]).await?;
    receiver.clock.advance(5 * HOUR);
    prompt_rollback::reconciler::archive::survey(&receiver.app.engine).await?;
    eventually("v1 is archived", SOON, async || archive.file("v1").exists().then_some(())).await?;
    ensure!(Config::default().retention.archive.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_hangs_does_not_hold_up_the_exit() -> Result<()> {
    let archive = Archive::new()?;
    let world = archived(&archive).await?;
    let World { redis, receiver } = world;
    receiver.app.shutdown().await;
    // opening a pipe waits for a writer
    std::fs::remove_file(archive.file("v1"))?;
    ensure!(std::process::Command::new("mkfifo").arg(archive.file("v1")).status()?.success());
    let mut receiver = process(&redis)
        .env("PROMPT_ROLLBACK_RETENTION__ARCHIVE", archive.path())
        .env("PROMPT_ROLLBACK_SERVER__SHUTDOWN_TIMEOUT", "2s")
        .start()?;
    let answer = receiver.http().post_json("/api/prompts/team%2Fp/versions/v1/restore", &json!({})).await?;
    ensure!(answer.status != 200, "{}", answer.text());
    eventually("the archive is asked", SOON, async || {
        receiver.log().contains("the content archive fails").then_some(())
    })
    .await?;
    let status = tokio::task::spawn_blocking(move || receiver.sigterm()).await??;
    assert_eq!(status.code(), Some(0));
    Ok(())
}
