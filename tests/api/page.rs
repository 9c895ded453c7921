//! The page of a real receiver on a real Redis.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use prompt_rollback::decision::IncidentId;
use prompt_rollback::postmortem::{IncidentMetric, SampleSeries, Samples, Unit};
use prompt_rollback::store::schedule::Work;
use prompt_rollback_testkit::{Prometheus, Redis, eventually};
use serde_json::{Value, json};

use crate::common::kept::{self, copy_prompt};
use crate::common::{Receiver, SOON, World, alert, assert_same, critical, dump, exchange, incidents};

/// Status, headers and body, as a browser sees them.
struct Got {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn get(receiver: &Receiver, path: &str, more: &str) -> Result<Got> {
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n{more}\r\n");
    let text = exchange(receiver.app.address, head.as_bytes()).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("a head")?;
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status")?.parse()?;
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Ok(Got { status, headers, body: body.to_owned() })
}

/// A page with everything that each page has.
async fn page(world: &World, path: &str) -> Result<String> {
    let got = get(&world.receiver, path, "").await?;
    ensure!(got.status == 200, "{path}: {} {}", got.status, got.body);
    is_page(path, &got)?;
    Ok(got.body)
}

fn is_page(path: &str, got: &Got) -> Result<()> {
    let expected = [
        ("content-type", "text/html; charset=utf-8"),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in expected {
        ensure!(got.headers.get(name).is_some_and(|found| found == value), "{path}: {name}: {:?}", got.headers);
    }
    for landmark in ["<!DOCTYPE html>", "<header>", "<main id=\"main\"", "<h1", "aria-live=\"polite\""] {
        ensure!(got.body.matches(landmark).count() == 1, "{path}: {landmark}\n{}", got.body);
    }
    ensure!(!got.body.contains(" style=") && got.body.matches("<script").count() == 1, "{path}: something is inline");
    Ok(())
}

/// The actions on a page: path and body of each button.
fn actions(page: &str) -> Vec<(String, Value)> {
    let attribute = |rest: &str, name: &str| {
        let value = rest.split_once(&format!(" {name}=\""))?.1.split('"').next()?;
        Some(value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    };
    let buttons = page.split("<button ").skip(1).filter_map(|rest| rest.split('>').next());
    buttons
        .filter_map(|rest| {
            let body = serde_json::from_str(&attribute(&format!(" {rest}"), "data-body")?).ok()?;
            Some((attribute(&format!(" {rest}"), "data-path")?, body))
        })
        .collect()
}

/// The incident that an alert on the version opened, which waits for a decision.
async fn asked(world: &World, prompt: &str) -> Result<String> {
    world.ship(prompt).await?;
    world.receiver.outcomes(&[alert(prompt, "v2", "high")]).await?;
    let incident = incidents(&world.redis, prompt).await?.pop().context("an incident")?;
    Ok(incident["id"].as_str().context("an id")?.to_owned())
}

#[tokio::test]
async fn the_overview_shows_first_what_needs_a_person() -> Result<()> {
    let world = World::start().await?;
    let empty = page(&world, "/").await?;
    assert!(empty.contains("There are no prompts yet."), "{empty}");
    for prompt in ["a/calm", "a/paused"] {
        world.ship(prompt).await?;
    }
    world.post("/api/pause", json!({"prompt": "a/paused", "operator": "dana", "reason": "launch"})).await?;
    let id = asked(&world, "z/asked").await?;
    let shown = eventually("the new incident is in the order", SOON, async || {
        page(&world, "/").await.ok().filter(|page| page.contains("3 prompts") && page.contains("Decision needed"))
    })
    .await?;
    let places = ["z%2Fasked", "a%2Fcalm", "a%2Fpaused"].map(|name| shown.find(&format!("href=\"/prompts/{name}\"")));
    assert!(places.is_sorted() && places[0].is_some(), "{places:?}\n{shown}");
    for expected in [
        format!("href=\"/incidents/{id}\""),
        "Decide by".to_owned(),
        "by dana (api): launch".to_owned(),
        "<span class=\"badge fine\">armed</span>".to_owned(),
        "not measured: no Prometheus is configured".to_owned(),
        "Needs a person (1)".to_owned(),
        "Automation paused (1)".to_owned(),
    ] {
        assert!(shown.contains(&expected), "{expected}\n{shown}");
    }
    // search by the name, not by its encoded form; filter and group
    world.ship("Team A/Grüße").await?;
    eventually("the new prompt is in the order", SOON, async || {
        page(&world, "/").await.ok().filter(|page| page.contains("4 prompts"))
    })
    .await?;
    for (query, found) in [
        ("search=PAUS", vec!["a/paused"]),
        ("search=nothing", vec![]),
        ("search=gr%C3%BC%C3%9Fe", vec!["Team%20A/Gr%C3%BC%C3%9Fe"]),
        ("search=team%20a/", vec!["Team%20A/Gr%C3%BC%C3%9Fe"]),
        ("search=gr%25c3", vec!["Team%20A/Gr%C3%BC%C3%9Fe"]),
        ("group=Team%20A", vec!["Team%20A/Gr%C3%BC%C3%9Fe"]),
        ("state=needs-person", vec!["z/asked"]),
        ("state=paused", vec!["a/paused"]),
        ("group=a", vec!["a/calm", "a/paused"]),
        ("group=a&search=calm&state=all&page=7", vec!["a/calm"]),
    ] {
        let shown = page(&world, &format!("/?{query}")).await?;
        let keys: Vec<&str> = shown.split("<tr data-key=\"").skip(1).filter_map(|row| row.split('"').next()).collect();
        assert_eq!(keys, found, "{query}");
    }
    for (query, said) in
        [("state=sad", "state: expected one of all, needs-person"), ("page=x", "page: expected a number")]
    {
        let got = get(&world.receiver, &format!("/?{query}"), "").await?;
        is_page(query, &got)?;
        assert!(got.status == 400 && got.body.contains(said), "{query}: {} {}", got.status, got.body);
    }
    Ok(())
}

#[tokio::test]
async fn the_overview_tells_how_the_active_version_came_to_serve() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let serving = async || -> Result<String> {
        let page = page(&world, "/").await?;
        let row = page.split("href=\"/prompts/p\"").nth(1).context("no row")?;
        Ok(row.split("data-label=\"Health\"").next().unwrap_or_default().to_owned())
    };
    eventually("the prompt is listed", SOON, async || serving().await.ok()).await?;
    let time = |row: &str| row.split("<time datetime=\"").nth(1).map(|rest| rest[..24].to_owned());
    let before = serving().await?;
    let activate = "/api/prompts/p/activate";
    for share in [10, 0] {
        let body = json!({"version": "v3", "percent": share, "operator": "maya"});
        world.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
        ensure!(world.post(activate, body).await?.0 == 200);
    }
    // a canary that came and went changes nothing about its base
    let after = serving().await?;
    assert_eq!((time(&after), after.contains("by maya")), (time(&before), false), "{before}\n{after}");
    // who gave a version all traffic is named, not who gave it the first five percent
    for (share, operator) in [(5, "cara"), (100, "maya")] {
        let body = json!({"version": "v3", "percent": share, "operator": operator, "force": true});
        ensure!(world.post(activate, body).await?.0 == 200);
    }
    let promoted = serving().await?;
    ensure!(promoted.contains("activated") && promoted.contains("by maya") && !promoted.contains("cara"), "{promoted}");
    let shown = page(&world, "/prompts/p").await?;
    let lead = shown.split("id=\"automation\"").next().unwrap_or_default();
    ensure!(lead.contains("by maya") && !lead.contains("cara"), "{lead}");
    Ok(())
}

/// Whether an alert fires or not, nothing can be served.
#[tokio::test]
async fn a_prompt_whose_key_is_broken_needs_a_person_and_would_be_held() -> Result<()> {
    let world = World::start().await?;
    for prompt in ["a", "deleted", "unusable"] {
        world.ship(prompt).await?;
    }
    world.redis.cmd::<()>(&["DEL", "{prompts}:active:deleted"]).await?;
    world.redis.cmd::<()>(&["SET", "{prompts}:active:unusable", "{oops}"]).await?;
    let shown = eventually("both are noticed", SOON, async || {
        page(&world, "/?state=needs-person").await.ok().filter(|page| page.contains("Needs a person (2)"))
    })
    .await?;
    let keys: Vec<&str> = shown.split("<tr data-key=\"").skip(1).filter_map(|row| row.split('"').next()).collect();
    assert_eq!(keys, ["deleted", "unusable"], "{shown}");
    let open = page(&world, "/?state=open").await?;
    assert!(open.contains("Open incident (0)") && !open.contains("<tr data-key="), "{open}");
    for (prompt, guard) in [("deleted", "key_deleted"), ("unusable", "foreign_value")] {
        let held = format!("<span class=\"badge watch\">held</span> <span class=\"quiet\"><code>{guard}</code>");
        for path in ["/?search=".to_owned() + prompt, format!("/prompts/{prompt}")] {
            let shown = page(&world, &path).await?;
            assert!(shown.contains(&held), "{path}: {held}\n{shown}");
        }
        let outcomes = world.receiver.outcomes(&[critical(prompt)]).await?;
        assert_eq!(outcomes, [format!("held{{{guard}}}")]);
    }
    eventually("both incidents are in the list", SOON, async || {
        page(&world, "/?state=open").await.ok().filter(|page| page.contains("Open incident (2)"))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_key_of_another_type_needs_a_person_until_it_is_repaired() -> Result<()> {
    let world = World::start().await?;
    for prompt in ["a", "zz"] {
        world.ship(prompt).await?;
    }
    let (active, aside) = ("{prompts}:active:zz", "{prompts}:aside");
    world.redis.cmd::<()>(&["SADD", aside, "x"]).await?;
    world.redis.cmd::<()>(&["RENAME", aside, active]).await?;
    let shown = eventually("it is noticed", SOON, async || {
        page(&world, "/?state=needs-person").await.ok().filter(|page| page.contains("Needs a person (1)"))
    })
    .await?;
    assert!(shown.contains("<tr data-key=\"zz\"") && shown.contains("holds the wrong type"), "{shown}");
    world.redis.cmd::<()>(&["SET", active, "v2"]).await?;
    eventually("it is repaired", SOON, async || {
        page(&world, "/?state=needs-person").await.ok().filter(|page| page.contains("Needs a person (0)"))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_deleted_key_is_found_behind_hundreds_of_prompts_that_never_served() -> Result<()> {
    let world = World::start().await?;
    for number in 0..=500 {
        let (status, answer) =
            world.post(&format!("/api/prompts/a{number:03}/versions"), json!({"version": "v1"})).await?;
        ensure!(status == 201, "{status} {answer}");
    }
    world.ship("zz").await?;
    world.redis.cmd::<()>(&["DEL", "{prompts}:active:zz"]).await?;
    let shown = eventually("it is noticed", SOON, async || {
        page(&world, "/?state=needs-person").await.ok().filter(|page| page.contains("Needs a person (1)"))
    })
    .await?;
    assert!(shown.contains("<tr data-key=\"zz\"") && shown.contains("the key active was deleted"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_prompt_that_no_rule_is_about_still_has_traffic() -> Result<()> {
    let rules = "groups:\n  - name: team\n    rules:\n      - alert: OnlyOfGreeting\n        expr: vector(1) > 2\n        \
                 labels: {severity: critical, action: rollback, prompt: greeting}\n";
    let prometheus =
        Prometheus::builder("rule_files: ['rules/*.yml']\n").file("rules/team.yml", rules.to_owned()).start()?;
    let world = World::with(&[("PROMETHEUS__URL", &prometheus.url())]).await?;
    world.ship("p").await?;
    let shown = eventually("the rules of Prometheus", SOON, async || {
        page(&world, "/prompts/p").await.ok().filter(|page| page.contains("The rules are those of your Prometheus."))
    })
    .await?;
    assert!(shown.contains("Serving <code>v2</code>") && shown.contains("No alert rule is about"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_pause_of_all_prompts_is_a_pause_of_each() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.post("/api/pause", json!({"operator": "dana", "reason": "provider outage"})).await?;
    let shown = eventually("the pause is in the order", SOON, async || {
        page(&world, "/?state=paused").await.ok().filter(|page| page.contains("Automation is paused for all"))
    })
    .await?;
    assert!(shown.contains("Automation paused (1)") && shown.contains("data-key=\"p\""), "{shown}");
    // ending the prompt's own pause would not arm it
    world.post("/api/pause", json!({"prompt": "p", "operator": "dana"})).await?;
    let shown = page(&world, "/prompts/p").await?;
    assert!(shown.contains("Automatic rollbacks stay off: automation is paused for all prompts."), "{shown}");
    assert!(!shown.contains("Critical alerts roll back automatically again."), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_rollback_says_that_it_ends_the_canary() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
    let canary = json!({"version": "v3", "canary": true, "stages": [10, 100]});
    ensure!(world.post("/api/prompts/p/activate", canary).await?.0 == 200);
    let shown = page(&world, "/prompts/p").await?;
    assert!(shown.contains("From v2 back to v1. This ends the canary of v3, too. All prompt servers"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn an_incident_is_decided_with_the_buttons_of_its_page() -> Result<()> {
    let world = World::start().await?;
    let id = asked(&world, "p").await?;
    let path = format!("/incidents/{id}");
    let shown = page(&world, &path).await?;
    let decide = format!("/api/incidents/{id}/decide");
    let words = |page: &str| -> Vec<String> {
        let decisions = actions(page).into_iter().filter(|(path, _)| *path == decide);
        decisions.filter_map(|(_, body)| body["decision"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(words(&shown), ["approve", "approve_gradual", "investigate", "dismiss"]);
    for expected in
        ["Roll back p?", "From v2 back to v1. All prompt servers follow at once.", "id=\"timeline\"", "id=\"guards\""]
    {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    let body = |page: &str, word: &str| actions(page).into_iter().find(|(_, body)| body["decision"] == word);
    let investigate = body(&shown, "investigate").context("investigate")?.1;
    assert_eq!(world.post(&decide, investigate).await?.0, 200);
    let shown = page(&world, &path).await?;
    assert_eq!(words(&shown), ["approve", "approve_gradual", "dismiss"]);
    let approve = body(&shown, "approve").context("approve")?.1;
    let (status, answer) = world.post(&decide, approve).await?;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(world.active("p").await?.as_deref(), Some("v1"));

    let shown = page(&world, &path).await?;
    assert!(shown.contains("api approved: rolled back from v2 to v1"), "{shown}");
    let undo = body(&shown, "undo").with_context(|| shown.clone())?.1;
    // a page that is out of date names another version than the undo would serve again by now
    assert_eq!(undo["target_version"], "v2", "{undo}");
    let mut earlier = undo.clone();
    earlier["target_version"] = "v3".into();
    let (status, answer) = world.post(&decide, earlier).await?;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("stale")), "{answer}");
    assert_eq!(world.active("p").await?.as_deref(), Some("v1"));
    assert_eq!(world.post(&decide, undo).await?.0, 200);
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    Ok(())
}

#[tokio::test]
async fn a_button_of_an_earlier_question_is_refused() -> Result<()> {
    let world = World::start().await?;
    let id = asked(&world, "p").await?;
    let decide = format!("/api/incidents/{id}/decide");
    let shown = page(&world, &format!("/incidents/{id}")).await?;
    let approve = actions(&shown).into_iter().find(|(_, body)| body["decision"] == "approve").context("approve")?.1;
    let question = approve["question"].as_u64().context("a number")?;
    let earlier = json!({"decision": "approve", "operator": "dana", "question": question - 1});
    let (status, answer) = world.post(&decide, earlier).await?;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("stale")), "{answer}");
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    assert_eq!(world.post(&decide, approve).await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn a_canary_is_steered_with_the_buttons_of_the_rollouts() -> Result<()> {
    let world = World::start().await?;
    assert!(page(&world, "/rollouts").await?.contains("No canary or gradual rollback is in progress."));
    world.ship("p").await?;
    world.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
    let (status, answer) = world
        .post("/api/prompts/p/activate", json!({"version": "v3", "canary": true, "stages": [10, 50, 100]}))
        .await?;
    assert_eq!(status, 200, "{answer}");
    let rollouts = async || page(&world, "/rollouts").await.ok().filter(|page| page.contains("class=\"rollout\""));
    let shown = eventually("the canary is shown", SOON, rollouts).await?;
    assert!(shown.contains("<li class=\"now\" aria-current=\"step\"><strong>10 %</strong>"), "{shown}");
    let steer = |page: &str, word: &str| actions(page).into_iter().find(|(_, body)| body["action"] == word);
    let (path, skip) = steer(&shown, "skip").context("skip")?;
    assert_eq!(path, "/api/prompts/p/canary");
    assert_eq!(world.post(&path, skip.clone()).await?.0, 200);
    // the stage that the button was about is over
    let (status, answer) = world.post(&path, skip).await?;
    assert_eq!(status, 409, "{answer}");
    let shown = page(&world, "/prompts/p").await?;
    assert!(shown.contains("<li class=\"now\" aria-current=\"step\"><strong>50 %</strong>"), "{shown}");
    let half = json!({"action": "hold", "stage": 1});
    assert_eq!(world.post(&path, half).await?.0, 400);
    Ok(())
}

#[tokio::test]
async fn a_limit_of_metrics_hides_no_rollout() -> Result<()> {
    let world = World::with(&[("METRICS__MAX_PROMPTS", "0")]).await?;
    world.ship("p").await?;
    world.post("/api/prompts/p/versions", json!({"version": "v3"})).await?;
    let (status, answer) = world.post("/api/prompts/p/activate", json!({"version": "v3", "canary": true})).await?;
    assert_eq!(status, 200, "{answer}");
    eventually("the rollout is in the order", SOON, async || {
        page(&world, "/?state=rollout").await.ok().filter(|page| page.contains("Rollout (1)"))
    })
    .await?;
    assert!(page(&world, "/rollouts").await?.contains("class=\"rollout\""));
    Ok(())
}

#[tokio::test]
async fn a_prompt_shows_its_versions_its_log_and_what_would_happen_if() -> Result<()> {
    let world = World::start().await?;
    world.ship("team/p").await?;
    let path = "/prompts/team%2Fp";
    let shown = page(&world, path).await?;
    for expected in [
        "<h1>team/p</h1>",
        "Serving <code>v2</code>; a rollback would go to <code>v1</code>",
        "PromptErrorRateCritical",
        "roll back v2 → v1",
        "The rules are the shipped ones",
        "<td data-label=\"What\">activate</td>",
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    let mark = actions(&shown).into_iter().find(|(path, body)| path.ends_with("/v2/mark") && body["mark"] == "bad");
    let (mark_path, mut mark) = mark.context("a mark")?;
    assert_eq!(world.post(&mark_path, mark.clone()).await?.0, 400, "a mark needs a reason");
    mark["reason"] = "leaks names".into();
    assert_eq!(world.post(&mark_path, mark).await?.0, 200);
    let pause = actions(&shown).into_iter().find(|(path, _)| path == "/api/pause").context("pause")?.1;
    assert_eq!(world.post("/api/pause", pause).await?.0, 200);
    let back = actions(&shown).into_iter().find(|(path, _)| path == "/api/rollback").context("roll back")?.1;
    let (status, answer) = world.post("/api/rollback", back).await?;
    assert_eq!((status, &answer["to_version"]), (200, &json!("v1")), "{answer}");
    let shown = page(&world, path).await?;
    for expected in ["marked as bad", "leaks names", "Resume automation", "quarantined"] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    let more = page(&world, &format!("{path}?entries=1000")).await?;
    assert!(more.contains("id=\"log\""));
    Ok(())
}

#[tokio::test]
async fn reading_pages_writes_nothing_to_redis() -> Result<()> {
    let world = World::start().await?;
    let id = asked(&world, "p").await?;
    world.settled(&[Work::Incident]).await?;
    let before = dump(&world.redis).await?;
    for path in
        ["/", "/incidents", "/incidents?open=false", "/rollouts", "/prompts/p", &format!("/incidents/{id}?draft=true")]
    {
        page(&world, path).await?;
    }
    // the reader's own probe of whether Redis can be written to
    let own = |dump: &BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
        let fence = kept::keys().wait_for_replicas();
        dump.iter().filter(|(key, _)| **key != fence).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    assert_same(&own(&before), &own(&dump(&world.redis).await?), "pages");
    Ok(())
}

#[tokio::test]
async fn a_closed_incident_has_its_picture_and_its_post_mortem() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    let incident = incidents(&world.redis, "p").await?.pop().context("an incident")?;
    let id = incident["id"].as_str().context("an id")?;
    let path = format!("/incidents/{id}");
    let missing = get(&world.receiver, &format!("{path}/picture.svg"), "").await?;
    assert_eq!(missing.status, 404, "{}", missing.body);
    let samples = Samples {
        label: "error ratio".to_owned(),
        unit: Unit::Ratio,
        bad: SampleSeries::new("v2", [(1_795_221_492_000, 0.07), (1_795_221_497_000, 0.08)]),
        ..Samples::default()
    };
    let measured = IncidentMetric::Samples(Box::new(samples));
    kept::store(&world.redis)?.put_samples(&IncidentId(id.to_owned()), &measured).await?;
    let shown = page(&world, &format!("{path}?draft=true")).await?;
    for expected in [
        format!("src=\"{path}/picture.svg?of="),
        "<h3>Post-mortem: p v2</h3>".to_owned(),
        format!("href=\"/api{path}/postmortem\" download"),
        "Rolled back automatically from v2 to v1".to_owned(),
    ] {
        assert!(shown.contains(&expected), "{expected}\n{shown}");
    }
    assert!(!shown.contains("data:image"), "the policy allows no such picture");
    let picture = get(&world.receiver, &format!("{path}/picture.svg"), "").await?;
    assert_eq!((picture.status, picture.headers["content-type"].as_str()), (200, "image/svg+xml"));
    assert!(picture.body.starts_with("<svg") && picture.headers.contains_key("content-security-policy"));
    Ok(())
}

/// A browser keeps a picture for a minute, and an open page shows it again.
#[tokio::test]
async fn other_measurements_are_another_picture() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    let incident = incidents(&world.redis, "p").await?.pop().context("an incident")?;
    let id = incident["id"].as_str().context("an id")?;
    let mut pictures = Vec::new();
    for value in [0.07, 0.08, 0.08] {
        let bad = SampleSeries::new("v2", [(1_795_221_492_000, 0.07), (1_795_221_497_000, value)]);
        let samples = Samples { label: "error ratio".to_owned(), unit: Unit::Ratio, bad, ..Samples::default() };
        let measured = IncidentMetric::Samples(Box::new(samples));
        kept::store(&world.redis)?.put_samples(&IncidentId(id.to_owned()), &measured).await?;
        let shown = page(&world, &format!("/incidents/{id}")).await?;
        let found = shown.split_once("<img class=\"picture\" src=\"").and_then(|(_, rest)| rest.split('"').next());
        let path = found.with_context(|| shown.clone())?;
        ensure!(get(&world.receiver, path, "").await?.status == 200, "{path}");
        pictures.push(path.to_owned());
    }
    assert!(pictures[0] != pictures[1] && pictures[1] == pictures[2], "{pictures:?}");
    Ok(())
}

#[tokio::test]
async fn assets_are_small_and_kept_for_good_and_need_no_token() -> Result<()> {
    let redis = Redis::start()?;
    let tokens = [("SERVER__API_TOKEN", "api-token-for-tests"), ("SERVER__WEBHOOK_TOKEN", "webhook-token-for-tests")];
    let receiver = Receiver::ready(&redis.receiver_url(), &tokens).await?;
    let refused = get(&receiver, "/", "").await?;
    is_page("/", &refused)?;
    assert_eq!(refused.status, 401);
    assert!(refused.body.contains("Sign in") && !refused.body.contains("<nav"), "{}", refused.body);
    let own = get(&receiver, "/", "Authorization: Bearer api-token-for-tests\r\n").await?;
    assert_eq!(own.status, 200, "{}", own.body);
    let named = |attribute: &str| -> Vec<String> {
        let start = format!("{attribute}=\"/assets/");
        let all = refused.body.split(&start).skip(1);
        all.filter_map(|rest| rest.split('"').next()).map(|name| format!("/assets/{name}")).collect()
    };
    let assets = [named("href"), named("src")].concat();
    assert_eq!(assets.len(), 3, "{}", refused.body);
    for path in assets {
        let got = get(&receiver, &path, "").await?;
        assert_eq!(got.status, 200, "{path}");
        assert!(got.body.len() < 15_000, "{path}: {} bytes", got.body.len());
        assert_eq!(got.headers["cache-control"], "public, max-age=31536000, immutable", "{path}");
        assert_eq!(got.headers["x-content-type-options"], "nosniff", "{path}");
    }
    assert_eq!(get(&receiver, "/assets/page.css", "").await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn errors_are_pages_for_browsers_and_json_for_programs() -> Result<()> {
    let world = World::start().await?;
    for (path, said) in [
        ("/prompts/nobody", "no prompt nobody is registered or active"),
        ("/incidents/01KAHJ3Y3W8Q0000000000000A", "it may have expired"),
        ("/nowhere", "no such path"),
    ] {
        let got = get(&world.receiver, path, "").await?;
        is_page(path, &got)?;
        assert!(got.status == 404 && got.body.contains(said), "{path}: {} {}", got.status, got.body);
    }
    let answer = world.http().get("/nowhere").await?;
    assert_eq!((answer.status, &answer.json()?["error"]["code"]), (404, &json!("not_found")));
    let answer = world.http().get("/api/prompts/nobody").await?;
    assert_eq!((answer.status, &answer.json()?["error"]["code"]), (404, &json!("unknown_prompt")));
    let answer = world.http().post_json("/", &json!({})).await?;
    assert_eq!(answer.status, 405);
    Ok(())
}

#[tokio::test]
async fn without_redis_the_page_says_so_and_comes_back() -> Result<()> {
    let mut redis = Redis::start()?;
    let receiver = Receiver::ready(&redis.receiver_url(), &[]).await?;
    redis.stop()?;
    for path in ["/", "/rollouts", "/incidents", "/prompts/p"] {
        let got = get(&receiver, path, "").await?;
        is_page(path, &got)?;
        assert_eq!(got.status, 503, "{path}: {}", got.body);
        assert!(got.body.contains("Redis cannot be reached") && got.body.contains("data-again=\"2\""), "{}", got.body);
    }
    redis.restart()?;
    let is_back = async || get(&receiver, "/", "").await.ok().filter(|got| got.status == 200);
    eventually("the page is back", SOON, is_back).await?;
    Ok(())
}

#[tokio::test]
async fn health_comes_from_prometheus_in_a_few_queries_for_all_pages() -> Result<()> {
    let labelled = |series: &str, version: &str, value: f64| {
        format!(
            "      - record: {series}\n        expr: vector({value})\n        labels: \
             {{prompt: p, version: {version}}}\n"
        )
    };
    let rules: String = [
        labelled("prompt_version:requests:count5m", "v2", 400.0),
        labelled("prompt_version:request_errors:ratio_rate5m", "v2", 0.0731),
        labelled("prompt_version:request_duration_seconds:p99_5m", "v2", 2.5),
        labelled("prompt_version:request_duration_seconds:p99_baseline", "v2", 1.25),
    ]
    .concat();
    // each server has a counter that grows; two Prometheus servers recorded the same one
    let counter = |version: &str, instance: &str, replica: &str| {
        let labels = format!("{{prompt: p, version: {version}, instance: {instance}, replica: {replica}}}");
        format!(
            "      - record: prompt_version_instance:requests:sum\n        expr: vector(time())\n        labels: {labels}\n"
        )
    };
    let counters = [("v2", "a", "r1"), ("v2", "a", "r2"), ("v2", "b", "r1"), ("v1", "c", "r1")];
    let rules = rules + &counters.map(|(version, instance, replica)| counter(version, instance, replica)).concat();
    let rules = format!("groups:\n  - name: figures\n    interval: 1s\n    rules:\n{rules}");
    let config = "global: {evaluation_interval: 1s}\nrule_files: ['rules/*.yml']\n";
    let prometheus = Prometheus::builder(config).file("rules/figures.yml", rules).start()?;
    let world = World::with(&[("PROMETHEUS__URL", &prometheus.url())]).await?;
    world.ship("p").await?;
    world.ship("unseen").await?;
    let shown = eventually("figures", SOON, async || {
        page(&world, "/")
            .await
            .ok()
            .filter(|page| page.contains("Served in the last") && page.contains("<tr data-key=\"unseen\""))
    })
    .await?;
    let servers = "Served in the last 2 min: v2 by 2 servers, v1 by 1 server";
    let unseen = "Prometheus has no series of this version";
    for expected in ["7.31 %", "2.50 s", "2.0× the baseline", "figure bad", unseen, servers] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn ten_thousand_prompts_are_paged() -> Result<()> {
    let world = World::start().await?;
    world.ship("model").await?;
    let names: Vec<String> = (0..10_000).map(|number| format!("team-{}/p{number:05}", number % 7)).collect();
    copy_prompt(&world.redis, "model", &names).await?;
    let id = asked(&world, "zz/last").await?;
    let shown = eventually("all of them", SOON, async || {
        page(&world, "/").await.ok().filter(|page| page.contains("10002 prompts") && page.contains(&id))
    })
    .await?;
    let keys: Vec<&str> = shown.split("<tr data-key=\"").skip(1).filter_map(|row| row.split('"').next()).collect();
    assert_eq!((keys.len(), keys[0], keys[1]), (100, "zz/last", "model"), "{keys:?}");
    assert!(shown.contains("Page 1 of 101") && shown.contains("team-3/ (1429)"), "{shown}");
    let last = page(&world, "/?page=101").await?;
    assert_eq!(last.matches("<tr data-key=").count(), 2);
    Ok(())
}
