//! Registering, activating and listing versions.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::common::kept::copy_prompt;
use crate::common::{SOON, World, critical, eventually};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().map(|object| object.keys().map(String::as_str).collect()).unwrap_or_default()
}

fn is_time(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.len() == 24 && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok())
}

#[tokio::test]
async fn a_version_is_registered_once_and_never_changes() -> Result<()> {
    let world = World::start().await?;
    let path = "/api/prompts/team%2Fgreeting/versions";
    let full = json!({
        "version": "v1", "content": "Say hello.", "contact": "mia", "staged_at": "2026-11-21T09:30:00Z", "known_good": true,
    });
    let (status, body) = world.post(path, full.clone()).await?;
    assert_eq!(
        (status, &body),
        (201, &json!({"prompt": "team/greeting", "version": "v1", "created": true, "known_good": true}))
    );
    let (status, body) = world.post(path, full.clone()).await?;
    assert_eq!((status, &body["created"]), (200, &json!(false)));
    let (status, _) = world.post(path, json!({"version": "v1"})).await?;
    assert_eq!(status, 200, "what is not said does not differ");
    for (field, other) in
        [("content", json!("Say hi.")), ("contact", json!("bo")), ("staged_at", json!("2026-11-22T09:30:00Z"))]
    {
        let mut differs = full.clone();
        differs[field] = other;
        let (status, body) = world.post(path, differs).await?;
        assert_eq!((status, &body["error"]["code"]), (409, &json!("differs")), "{field}");
        assert!(body["error"]["message"].as_str().is_some_and(|m| m.contains(field)), "{body}");
    }
    let stored: String = world.redis.cmd(&["GET", "{prompts}:content:team/greeting:v1"]).await?;
    assert_eq!(stored, "Say hello.");
    let shown = world.get("/api/prompts/team%2Fgreeting").await?;
    let version = &shown["versions"][0];
    assert_eq!(
        keys(version),
        [
            "active",
            "archive_fault",
            "archived_at",
            "contact",
            "first_activated_at",
            "has_content",
            "known_good",
            "known_good_at",
            "known_good_by",
            "last_active_at",
            "left_at",
            "left_with_incident",
            "mark",
            "quarantined_at",
            "registered_at",
            "soak_ends_at",
            "soak_limit_at",
            "soak_note",
            "staged_at",
            "version"
        ]
    );
    for (field, value) in [
        ("contact", json!("mia")),
        ("staged_at", json!("2026-11-21T09:30:00.000Z")),
        ("known_good_by", json!("mark")),
        ("has_content", json!(true)),
        ("active", json!(false)),
        ("first_activated_at", Value::Null),
    ] {
        assert_eq!(version[field], value, "{field}");
    }
    Ok(())
}

#[tokio::test]
async fn a_version_is_activated_and_activating_it_again_changes_nothing() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let (status, body) = world.post("/api/prompts/p/activate", json!({"version": "v1", "operator": "mia"})).await?;
    assert_eq!(status, 200);
    assert_eq!(keys(&body), ["from_version", "incident", "prompt", "success", "timestamp", "to_version"]);
    assert_eq!(
        (&body["success"], &body["from_version"], &body["to_version"]),
        (&json!(true), &json!("v2"), &json!("v1"))
    );
    assert!(is_time(&body["timestamp"]), "{body}");
    let entries = world.log("p").await?.len();
    let (status, body) = world.post("/api/prompts/p/activate", json!({"version": "v1", "percent": 100})).await?;
    assert_eq!((status, &body["unchanged"]), (200, &json!(true)));
    assert_eq!(world.log("p").await?.len(), entries);

    let (status, body) = world.post("/api/prompts/p/activate", json!({"version": "v9"})).await?;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("unknown_version")));
    let (status, body) = world.post("/api/prompts/nobody/activate", json!({"version": "v1"})).await?;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("unknown_prompt")));
    assert_eq!(world.active("nobody").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_version_that_was_rolled_back_is_activated_only_with_force() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    let (status, body) = world.post("/api/prompts/p/activate", json!({"version": "v2"})).await?;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("needs_force")));
    assert!(world.get("/api/prompts/p").await?["versions"][1]["quarantined_at"].is_string());
    let (status, _) = world.post("/api/prompts/p/activate", json!({"version": "v2", "force": true})).await?;
    assert_eq!((status, world.active("p").await?.as_deref()), (200, Some("v2")));
    assert_eq!(world.get("/api/prompts/p").await?["versions"][1]["quarantined_at"], Value::Null);
    Ok(())
}

#[tokio::test]
async fn a_version_becomes_known_good_by_soaking() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let before = world.get("/api/prompts/p").await?;
    let version = &before["versions"][1];
    assert_eq!((&version["known_good"], &version["known_good_by"]), (&json!(false), &Value::Null));
    let ends: jiff::Timestamp = version["soak_ends_at"].as_str().expect("a time").parse()?;
    let started: jiff::Timestamp = version["first_activated_at"].as_str().expect("a time").parse()?;
    assert_eq!(ends.as_millisecond() - started.as_millisecond(), 3_600_000);
    world.receiver.clock.advance(Duration::from_secs(3_590));
    assert_eq!(world.get("/api/prompts/p").await?["versions"][1]["known_good"], json!(false));
    world.receiver.clock.advance(Duration::from_secs(10));
    let version = world.get("/api/prompts/p").await?["versions"][1].clone();
    assert_eq!((&version["known_good"], &version["known_good_by"]), (&json!(true), &json!("time")));
    assert_eq!((&version["soak_ends_at"], &version["known_good_at"]), (&Value::Null, &json!(ends_text(ends))));

    // it is the rollback target of the next one
    world.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
    world.post("/api/prompts/p/activate", json!({"version": "v3"})).await?;
    assert_eq!(world.get("/api/prompts/p").await?["rollback_target"], "v2");
    Ok(())
}

/// The lines of `prompt-rollback status PROMPT` about one version.
async fn status(world: &World, version: &str) -> Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
    command.args(["status", "p", "--url"]).arg(format!("http://{}", world.receiver.app.address));
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().find(|line| line.starts_with(version)).unwrap_or_default().to_owned())
}

async fn says(world: &World, version: &str, words: &str) -> Result<()> {
    let mut last = String::new();
    let said = eventually(words, SOON, async || {
        last = status(world, version).await.ok()?;
        last.contains(words).then_some(())
    })
    .await;
    said.with_context(|| last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_what_a_soak_waits_for_and_what_time_alone_has_earned() -> Result<()> {
    // nothing listens there
    let world = World::with(&[("PROMETHEUS__URL", "http://127.0.0.1:9")]).await?;
    world.ship("p").await?;
    says(&world, "v1", "known-good (mark)").await?;
    says(&world, "v2", "soaks until 20").await?;
    world.receiver.clock.advance(Duration::from_secs(3_600));
    says(&world, "v2", "soak time is over, waiting for evidence (prometheus: ").await?;
    says(&world, "v2", ", known-good by time only from 20").await?;
    world.receiver.clock.advance(Duration::from_secs(23 * 3_600));
    says(&world, "v2", "active, known-good by time only").await?;
    let soaked = world.log("p").await?.into_iter().find(|entry| entry["event"] == "soaked").context("an entry")?;
    assert_eq!((soaked["from"].as_str(), soaked["to"].as_str(), soaked["operator"].as_str()), ("", "v2", "system"));
    assert!(soaked["reason"].starts_with("known-good by time only: served for 1 d, and prometheus: "), "{soaked:?}");
    Ok(())
}

#[tokio::test]
async fn status_and_a_refusal_say_why_a_version_is_no_target_that_people_left() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.clock.advance(Duration::from_secs(3_600));
    assert_eq!(world.receiver.outcomes(&[crate::common::alert("p", "v2", "high")]).await?, ["incident_opened{page}"]);
    let incident = world.get("/api/incidents").await?["incidents"][0]["id"].as_str().expect("an id").to_owned();
    world.redis.cmd::<()>(&["SET", "{prompts}:active:p", "v3"]).await?;
    world.receiver.clock.advance(Duration::from_secs(300));
    says(&world, "v2", &format!("not a target: incident {incident} was open")).await?;
    assert_eq!(world.get("/api/prompts/p").await?["rollback_target"], "v1");
    let (status, body) = world.post("/api/rollback", json!({"prompt": "p", "target_version": "v2"})).await?;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("needs_force")));
    let message = body["error"]["message"].as_str().expect("a message");
    assert!(message.starts_with("v2 lost its traffic ") && message.contains(&incident), "{message}");
    let forced = json!({"prompt": "p", "target_version": "v2", "force": true});
    assert_eq!(world.post("/api/rollback", forced).await?.0, 200);
    Ok(())
}

fn ends_text(at: jiff::Timestamp) -> String {
    format!("{at:.3}")
}

#[tokio::test]
async fn an_incident_keeps_a_version_from_soaking() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let alert = crate::common::alert("p", "v2", "high");
    assert_eq!(world.receiver.outcomes(&[alert]).await?, ["incident_opened{page}"]);
    world.receiver.clock.advance(Duration::from_secs(4 * 3_600));
    let version = world.get("/api/prompts/p").await?["versions"][1].clone();
    assert_eq!((&version["known_good"], &version["soak_ends_at"]), (&json!(false), &Value::Null));
    Ok(())
}

#[tokio::test]
async fn the_list_is_paged_and_shows_what_matters() -> Result<()> {
    let world = World::start().await?;
    let mut names: Vec<String> = (0..7).map(|n| format!("team/{n}")).collect();
    for name in &names {
        world.ship(name).await?;
    }
    world.post("/api/prompts/lonely/versions", json!({"version": "v1"})).await?;
    world.post("/api/prompts/lonely/activate", json!({"version": "v1"})).await?;
    names.insert(0, "lonely".to_owned());
    let (mut listed, mut path) = (Vec::new(), "/api/prompts?limit=3".to_owned());
    let mut pages = 0;
    loop {
        let page = world.get(&path).await?;
        let rows = page["prompts"].as_array().expect("rows").clone();
        assert!(rows.len() <= 3);
        listed.extend(rows);
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/prompts?limit=3&cursor={}", prompt_rollback_testkit::http::encode(next));
    }
    assert_eq!(
        (pages, listed.iter().map(|row| row["prompt"].as_str().unwrap_or("")).collect::<Vec<_>>()),
        (3, names.iter().map(String::as_str).collect())
    );
    let row = &listed[1];
    assert_eq!(
        keys(row),
        [
            "activated_at",
            "active",
            "active_fault",
            "canary",
            "coverage",
            "known_good",
            "known_good_by",
            "open_incidents",
            "paused",
            "prompt",
            "rollback_target",
            "soak_ends_at",
            "soak_limit_at"
        ]
    );
    assert_eq!(
        (&row["active"], &row["rollback_target"], &row["known_good"]),
        (&json!("v2"), &json!("v1"), &json!(false))
    );
    assert!(is_time(&row["activated_at"]) && is_time(&row["soak_ends_at"]), "{row}");

    let lonely = world.get("/api/prompts?without_target=true").await?;
    assert_eq!(lonely["prompts"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&lonely["prompts"][0]["prompt"], &lonely["prompts"][0]["rollback_target"]),
        (&json!("lonely"), &Value::Null)
    );
    for (wrong, why) in [
        ("limit=0", "limit: expected"),
        ("limit=1001", "limit: expected"),
        ("limit=x", "limit: expected"),
        ("limit=5&limit=6", "limit: given twice"),
        ("without_target=maybe", "without_target: expected"),
        ("without_targets", "without_targets: unknown query parameter, expected limit, cursor, without_target"),
    ] {
        let answer = world.http().get(&format!("/api/prompts?{wrong}")).await?;
        ensure!(answer.status == 400 && answer.text().contains(why), "{wrong}: {}", answer.text());
    }
    // it was meant for one prompt, and would pause all
    let answer = world.http().post_json("/api/pause?prompt=p", &json!({"operator": "mia"})).await?;
    ensure!(answer.status == 400 && answer.text().contains("prompt: unknown query parameter"), "{}", answer.text());
    assert_eq!(world.http().get("/-/healthy?from=balancer").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn the_check_names_every_prompt_without_a_target() -> Result<()> {
    let world = World::start().await?;
    for path in ["versions", "activate"] {
        let (status, body) = world.post(&format!("/api/prompts/p/{path}"), json!({"version": "v1"})).await?;
        ensure!(status < 300, "{body}");
    }
    let copies: Vec<String> = (0..149).map(|number| format!("p{number}")).collect();
    copy_prompt(&world.redis, "p", &copies).await?;
    let mut check = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
    check
        .args(["check", "--connect", "--output", "json"])
        .env("PROMPT_ROLLBACK_REDIS__URL", world.redis.receiver_url());
    let output = tokio::task::spawn_blocking(move || check.output()).await??;
    let said: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(said["without_target"].as_array().map(Vec::len), Some(150), "{said:#}");
    Ok(())
}

#[tokio::test]
async fn the_check_says_why_a_prompt_has_no_version() -> Result<()> {
    let world = World::start().await?;
    for path in ["versions", "activate"] {
        let (status, body) = world.post(&format!("/api/prompts/p/{path}"), json!({"version": "v1"})).await?;
        ensure!(status < 300, "{body}");
    }
    world.redis.cmd::<()>(&["DEL", "{prompts}:active:p"]).await?;
    eventually("the receiver notices it", SOON, async || {
        world.get("/api/prompts/p").await.ok().filter(|shown| !shown["active_fault"].is_null())
    })
    .await?;
    let mut check = Command::new(env!("CARGO_BIN_EXE_prompt-rollback"));
    check.args(["check", "--connect"]).env("PROMPT_ROLLBACK_REDIS__URL", world.redis.receiver_url());
    let output = tokio::task::spawn_blocking(move || check.output()).await??;
    let said = String::from_utf8(output.stdout)?;
    let hint = "  p: the key active was deleted";
    assert!(said.contains(hint) && !said.contains("nothing is active"), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_log_is_paged_newest_first() -> Result<()> {
    let world = World::start().await?;
    world.ship("a/b").await?;
    world.receiver.outcomes(&[critical("a/b")]).await?;
    let first = world.get("/api/prompts/a%2Fb/log?limit=2").await?;
    let second =
        world.get(&format!("/api/prompts/a%2Fb/log?limit=2&cursor={}", first["next"].as_str().expect("more"))).await?;
    assert_eq!(second["next"], Value::Null);
    let entries: Vec<Value> =
        [&first, &second].iter().flat_map(|page| page["entries"].as_array().expect("entries").clone()).collect();
    let changes: Vec<_> = entries.iter().map(|e| (e["event"].clone(), e["from"].clone(), e["to"].clone())).collect();
    assert_eq!(
        changes,
        [
            (json!("rollback"), json!("v2"), json!("v1")),
            (json!("activate"), json!("v1"), json!("v2")),
            (json!("activate"), Value::Null, json!("v1")),
        ]
    );
    assert_eq!(keys(&entries[0]), ["at", "event", "from", "id", "incident", "operator", "prompt", "reason", "to"]);
    assert!(is_time(&entries[0]["at"]) && entries[0]["incident"].is_string() && entries[1]["incident"].is_null());
    assert_eq!((&entries[0]["operator"], &entries[1]["operator"]), (&json!("system"), &json!("api")));
    assert_eq!(world.http().get("/api/prompts/a%2Fb/log?cursor=x").await?.status, 400);
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_may_not_be_done_405() -> Result<()> {
    let world = World::start().await?;
    for path in [
        "/api",
        "/api/prompts/",
        "/api/prompts/a/b",
        "/api/prompts/nobody",
        "/api/prompts/nobody/log",
        "/api/incidents/x",
    ] {
        let answer = world.http().get(path).await?;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()?["error"]["code"].is_string(), "{path}");
    }
    for path in ["/webhooks/alertmanager", "/api/rollback", "/api/pause"] {
        assert_eq!(world.http().get(path).await?.status, 405, "{path}");
    }
    assert_eq!(world.http().post("/api/prompts", "{}").await?.status, 405);
    Ok(())
}

#[tokio::test]
async fn a_cursor_that_no_answer_gave_is_400_and_not_a_fault_of_redis() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    for path in ["/api/prompts", "/api/prompts/p/log", "/api/incidents"] {
        // the last ones could be names of prompts
        for (cursor, a_name) in [
            ("%20", false),
            ("-", false),
            ("%2B", false),
            ("%5Ba", false),
            ("(a", false),
            ("%00", false),
            ("a%0D%0Ab", false),
            ("-0", false),
            ("%C3%A9", false),
            ("%FF", false),
            ("0-", true),
            ("1-1-1", true),
            ("18446744073709551616-0", true),
            ("01K", true),
        ] {
            let answer = world.http().get(&format!("{path}?cursor={cursor}")).await?;
            let expected = if a_name && path == "/api/prompts" { 200 } else { 400 };
            assert_eq!(answer.status, expected, "{path} {cursor}: {}", answer.text());
        }
    }
    for (path, cursor) in [
        ("/api/prompts", "p"),
        ("/api/prompts/p/log", "1764000000000-0"),
        ("/api/incidents", "01KB0000000000000000000000"),
    ] {
        assert_eq!(world.http().get(&format!("{path}?cursor={cursor}")).await?.status, 200, "{path} {cursor}");
    }
    Ok(())
}
