//! What would happen if an alert fired now is what then happens, and asking changes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::encode;
use prompt_rollback_testkit::{Prometheus, eventually, shipped};
use serde_json::{Value, json};

use crate::common::{ROLLED_BACK, SOON, World, alert, assert_same, dump};

/// The states that a prompt is brought into.
const STATES: [&str; 13] = [
    "fresh",
    "cooldown",
    "paused",
    "no-target",
    "target-fails",
    "canary",
    "gradual",
    "open",
    "fires-already",
    "dismissed",
    "dismissed-before",
    "external",
    "deleted",
];

/// A Prometheus that has the shipped alert rules, and these.
fn prometheus(more: &str) -> Result<Prometheus> {
    Prometheus::builder("rule_files: ['rules/*.yml']\n")
        .file("rules/alerts.yml", shipped::text("alert-rules/alerts.yml")?)
        .file("rules/self.yml", shipped::text("alert-rules/self.yml")?)
        .file("rules/team.yml", more)
        .start()
}

/// Name, labels and annotations of each shipped rule, as Prometheus reads the file.
async fn shipped_rules() -> Result<Vec<Value>> {
    let prometheus = prometheus("")?;
    let answer = prometheus.http().get("/api/v1/rules?type=alert").await?.json()?;
    let groups = answer["data"]["groups"].as_array().context("groups")?;
    let all = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
    Ok(all.filter(|rule| !name(rule).starts_with("PromptRollback")).cloned().collect())
}

fn name(rule: &Value) -> &str {
    rule["name"].as_str().unwrap_or_default()
}

/// Lets a moment pass: times are in milliseconds, and what begins in the same one as the activation may be older.
fn a_moment_later(world: &World) {
    world.receiver.clock.advance(Duration::from_millis(5));
}

/// An alert of the rule that begins now, as Alertmanager delivers it.
async fn fires(world: &World, rule: &Value, prompt: &str, version: &str) -> Result<Value> {
    let now = jiff::Timestamp::from_millisecond(world.receiver.app.engine.store.now().await?.0)?;
    let mut alert = json!({
        "status": "firing",
        "labels": rule["labels"],
        "annotations": rule["annotations"],
        "startsAt": now.to_string(),
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": format!("{} {prompt} {version}", name(rule)),
    });
    let labels = &mut alert["labels"];
    (labels["alertname"], labels["prompt"]) = (rule["name"].clone(), prompt.into());
    (labels["version"], labels["provider"]) = (version.into(), "p1".into());
    Ok(alert)
}

async fn explain(world: &World, prompt: &str, alert: &str) -> Result<Vec<Value>> {
    let answer = world.get(&format!("/api/prompts/{}/explain?alert={alert}", encode(prompt))).await?;
    Ok(answer["alerts"].as_array().context("alerts")?.clone())
}

async fn done(world: &World, path: &str, body: Value) -> Result<Value> {
    let (status, answer) = world.post(path, body).await?;
    ensure!((200..300).contains(&status), "{path}: {status} {answer}");
    Ok(answer)
}

/// A prompt in one of the states.
struct Put {
    versions: Vec<&'static str>,
    /// The alert of the rule that fires already.
    firing: Option<Value>,
}

impl Put {
    fn serving(versions: &[&'static str]) -> Result<Self> {
        Ok(Self { versions: versions.to_vec(), firing: None })
    }
}

/// Brings a new prompt into this state, in which `rule` may have fired before.
async fn put(world: &World, state: &str, prompt: &str, rule: &Value) -> Result<Put> {
    let path = format!("/api/prompts/{prompt}");
    if state == "no-target" {
        done(world, &format!("{path}/versions"), json!({ "version": "v2" })).await?;
        done(world, &format!("{path}/activate"), json!({ "version": "v2" })).await?;
        return Put::serving(&["v2"]);
    }
    world.ship(prompt).await?;
    a_moment_later(world);
    let first = fires(world, rule, prompt, "v2").await?;
    match state {
        "cooldown" | "canary" => {
            done(world, &format!("{path}/versions"), json!({ "version": "v3" })).await?;
            let activation = json!({ "version": "v3", "canary": state == "canary" });
            done(world, &format!("{path}/activate"), activation).await?;
            if state == "canary" {
                return Put::serving(&["v2", "v3"]);
            }
            done(world, "/api/rollback", json!({ "prompt": prompt, "target_version": "v2", "force": true })).await?;
        }
        "paused" => {
            done(world, "/api/pause", json!({ "prompt": prompt, "operator": "dana", "reason": "launch" })).await?;
        }
        "target-fails" => drop(world.receiver.outcomes(&[alert(prompt, "v1", "high")]).await?),
        "gradual" => {
            let rollback = json!({ "prompt": prompt, "strategy": "gradual", "stages": [50, 0], "hold": "1h" });
            done(world, "/api/rollback", rollback).await?;
            return Put::serving(&["v2", "v1"]);
        }
        "open" => drop(world.receiver.outcomes(&[alert(prompt, "v2", "medium")]).await?),
        "fires-already" => {
            let outcomes = world.receiver.outcomes(std::slice::from_ref(&first)).await?;
            return match outcomes == [ROLLED_BACK] {
                true => Put::serving(&["v1"]),
                false => Ok(Put { firing: Some(first), ..Put::serving(&["v2"])? }),
            };
        }
        "dismissed" | "dismissed-before" => {
            done(world, "/api/pause", json!({ "prompt": prompt })).await?;
            let answer = world.receiver.deliver(std::slice::from_ref(&first)).await?.json()?;
            done(world, "/api/resume", json!({ "prompt": prompt })).await?;
            let incident = answer["results"][0]["incident"].as_str().context("an incident")?;
            let decision = json!({ "decision": "dismiss", "operator": "dana" });
            done(world, &format!("/api/incidents/{incident}/decide"), decision).await?;
            if state == "dismissed" {
                return Ok(Put { firing: Some(first), ..Put::serving(&["v2"])? });
            }
            a_moment_later(world);
            let mut resolved = first;
            resolved["status"] = "resolved".into();
            resolved["endsAt"] = fires(world, rule, prompt, "v2").await?["startsAt"].take();
            world.receiver.outcomes(&[resolved]).await?;
        }
        "external" => {
            world.redis.cmd::<()>(&["SET", &format!("{{prompts}}:active:{prompt}"), "v9"]).await?;
            return Put::serving(&["v9"]);
        }
        "deleted" => world.redis.cmd::<()>(&["DEL", &format!("{{prompts}}:active:{prompt}")]).await?,
        _ => {}
    }
    Put::serving(&["v2"])
}

/// Brings a new prompt into the state `what`, asks, delivers, and compares. Returns what happened.
async fn foretold(world: &World, what: &str, prompt: &str, version: &str, rule: &Value) -> Result<String> {
    let put = put(world, what, prompt, rule).await?;
    a_moment_later(world);
    let what = format!("{what}, {} on {version}", name(rule));
    let all = explain(world, prompt, name(rule)).await?;
    let mut of_version = all.iter().filter(|one| one["version"] == version);
    let told = of_version.next().with_context(|| format!("{what}: {all:?}"))?;
    ensure!(of_version.next().is_none(), "{what}: told twice: {all:?}");
    let alert = match put.firing {
        Some(alert) => alert,
        None => fires(world, rule, prompt, version).await?,
    };
    let delivered = world.receiver.deliver(&[alert]).await?.json()?;
    let result = &delivered["results"][0];
    for field in ["outcome", "reason"] {
        ensure!(told[field] == result[field], "{what}: {field}: {told} but {result}");
    }
    let said = format!("{}{{{}}}", result["outcome"].as_str().unwrap_or("?"), result["reason"].as_str().unwrap_or("?"));
    let target = &told["target"]["version"];
    if result["outcome"] == "rolled_back" {
        let active = world.active(prompt).await?;
        ensure!(target.as_str() == active.as_deref(), "{what}: {told}, but {active:?} is active");
        ensure!(told["guards"] == json!([]), "{what}: {told}");
    }
    let Some(id) = result["incident"].as_str() else { return Ok(said) };
    ensure!(told["incident"] == result["incident"] || told["incident"].is_null(), "{what}: {told} but {result}");
    let incident = world.get(&format!("/api/incidents/{id}")).await?;
    ensure!(*target == incident["target"], "{what}: target: {told} but {incident}");
    // a worker may have looked at other phases since
    if ["awaiting_decision", "observing", "investigating"].iter().any(|phase| told["phase"] == *phase) {
        for (field, of_incident) in [("phase", "phase"), ("decider", "decider")] {
            ensure!(told[field] == incident[of_incident], "{what}: {field}: {told} but {incident}");
        }
    }
    if result["outcome"] == "held" {
        ensure!(told["guards"][0]["reason"] == result["reason"], "{what}: {told} but {result}");
        ensure!(told["guards"][0]["detail"] == incident["guard"]["detail"], "{what}: {told} but {incident}");
    }
    Ok(said)
}

async fn all_foretold(world: &World, states: &[&str]) -> Result<BTreeSet<String>> {
    let mut happened = BTreeSet::new();
    for rule in &shipped_rules().await? {
        for state in states {
            let probe = format!("{state}-{}", name(rule));
            for version in put(world, state, &probe, rule).await?.versions {
                // a delivery changes the state: one prompt for each
                let prompt = format!("{probe}-{version}");
                happened.insert(foretold(world, state, &prompt, version, rule).await?);
            }
        }
    }
    Ok(happened)
}

/// Several kinds of outcomes must have happened, so that the comparison means something.
fn includes(happened: &BTreeSet<String>, expected: &[&str]) {
    let missing: Vec<_> = expected.iter().filter(|one| !happened.contains(**one)).collect();
    assert!(missing.is_empty(), "{missing:?} never happened, only {happened:?}");
}

#[tokio::test]
async fn what_is_foretold_is_what_happens() -> Result<()> {
    // more rollbacks than the budget of a real outage
    let world = World::with(&[("GUARDS__MAX_AUTO_ROLLBACKS", "1000")]).await?;
    let happened = all_foretold(&world, &STATES).await?;
    let expected = [
        "rolled_back{alert}",
        "held{cooldown}",
        "held{paused}",
        "held{no_known_good}",
        "held{target_unhealthy}",
        "held{key_deleted}",
        "incident_opened{page}",
        "incident_opened{recommend}",
        "incident_opened{observe}",
        "incident_updated{joined}",
        "incident_updated{target_unhealthy}",
        "duplicate{duplicate}",
        "ignored{dismissed}",
    ];
    includes(&happened, &expected);
    Ok(())
}

#[tokio::test]
async fn what_is_foretold_without_automation_is_what_happens() -> Result<()> {
    let world = World::with(&[("GUARDS__MODE", "dry-run")]).await?;
    includes(
        &all_foretold(&world, &["fresh", "canary", "gradual"]).await?,
        &["held{dry_run}", "incident_opened{page}"],
    );

    let world = World::with(&[("GUARDS__MAX_AUTO_ROLLBACKS", "1")]).await?;
    world.ship("first").await?;
    assert_eq!(world.receiver.outcomes(&[crate::common::critical("first")]).await?, ["rolled_back{alert}"]);
    includes(&all_foretold(&world, &["fresh", "cooldown"]).await?, &["held{budget}", "held{cooldown}"]);
    Ok(())
}

#[tokio::test]
async fn each_guard_that_holds_is_listed_with_what_is_left_of_it() -> Result<()> {
    let world = World::start().await?;
    put(&world, "cooldown", "p", &Value::Null).await?;
    done(&world, "/api/pause", json!({ "prompt": "p", "operator": "dana", "reason": "launch" })).await?;
    world.receiver.clock.advance(Duration::from_secs(18 * 60));
    let all = explain(&world, "p", "PromptErrorRateCritical").await?;
    let guards = all[0]["guards"].as_array().context("guards")?;
    let reasons: Vec<_> = guards.iter().map(|guard| guard["reason"].as_str().unwrap_or_default()).collect();
    assert_eq!(reasons, ["paused", "cooldown"]);
    assert_eq!(guards[0]["detail"], "automation is paused (by dana (api): launch)");
    assert_eq!(guards[1]["detail"], "v2 was activated by a rollback 18 min ago (cooldown 30 min)");
    let left = guards[1]["left_seconds"].as_u64().context("left")?;
    assert!((11 * 60..=12 * 60).contains(&left), "{left} s left");
    let text = "be held by the guard paused: automation is paused (by dana (api): launch), and ask on-call to decide within 2 min";
    assert_eq!((&all[0]["text"], &all[0]["decider"]), (&json!(text), &json!("on-call")));
    assert_eq!(all[0]["target"]["version"], "v1");
    assert_eq!(all[0]["target"]["known_good_by"], "mark");
    assert!(all[0]["target"]["known_good_at"].is_string(), "{}", all[0]);
    Ok(())
}

/// A version that someone has just SET is known before the alert is decided about, as when it is delivered.
#[tokio::test]
async fn a_version_that_was_set_a_moment_ago_is_foretold_as_it_will_be_decided() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    for version in ["v3", "v4", "v5"] {
        world.redis.cmd::<()>(&["SET", "{prompts}:active:p", version]).await?;
        let all = explain(&world, "p", "PromptErrorRateCritical").await?;
        assert_eq!((&all[0]["version"], &all[0]["outcome"]), (&json!(version), &json!("rolled_back")), "{all:?}");
    }
    Ok(())
}

#[tokio::test]
async fn asking_writes_nothing() -> Result<()> {
    let world = World::start().await?;
    let rule = &shipped_rules().await?[0];
    for state in STATES {
        put(&world, state, state, rule).await?;
    }
    let user = prompt_rollback_testkit::Redis::RECEIVER.name;
    // Redis itself refuses every write from now on, in scripts too
    world.redis.cmd::<()>(&["ACL", "SETUSER", user, "-@write", "-publish"]).await?;
    // so no commit can notice this version
    world.redis.cmd::<()>(&["SET", "{prompts}:active:fresh", "v10"]).await?;
    let before = dump(&world.redis).await?;
    for state in STATES {
        let answer = world.get(&format!("/api/prompts/{state}/explain")).await?;
        let told = answer["alerts"].as_array().context("alerts")?;
        assert!(!told.is_empty() && told.len().is_multiple_of(9), "{state}: {answer}");
        assert_eq!(answer["rules"], "shipped");
        assert!(state != "fresh" || told.iter().all(|one| one["version"] == "v10"), "{answer}");
    }
    assert_same(&before, &dump(&world.redis).await?, "explain");
    let (status, refused) = world.post("/api/pause", json!({ "prompt": "fresh" })).await?;
    assert_eq!(status, 503, "{refused}: a request that writes must fail here");
    Ok(())
}

const TEAM: &str = r#"
groups:
  - name: team
    rules:
      - alert: OurRefusals
        expr: vector(1) > 2
        labels: {severity: high, action: page, decider: product-pm, time_limit: 10m}
      - alert: OnlyOfGreeting
        expr: vector(1) > 2
        labels: {severity: critical, action: rollback, prompt: greeting}
      - alert: SeverityByPrompt
        expr: vector(1) > 2
        labels: {severity: '{{ $labels.severity }}', action: page}
      - alert: NodeDown
        expr: vector(1) > 2
        labels: {severity: critical}
"#;

#[tokio::test]
async fn the_rules_are_those_of_prometheus_and_else_those_that_ship() -> Result<()> {
    let prometheus = prometheus(TEAM)?;
    let world = World::with(&[("PROMETHEUS__URL", &prometheus.url())]).await?;
    world.ship("p").await?;
    let named = |answer: &Value| -> BTreeSet<String> {
        let alerts = answer["alerts"].as_array().into_iter().flatten();
        alerts.filter_map(|alert| alert["alert"].as_str().map(ToOwned::to_owned)).collect()
    };
    let all = world.get("/api/prompts/p/explain").await?;
    assert_eq!((&all["rules"], &all["rules_fault"], &all["left_out"]), (&json!("prometheus"), &Value::Null, &json!(0)));
    let mut expected: BTreeSet<String> = shipped_rules().await?.iter().map(|rule| name(rule).to_owned()).collect();
    let shipped = expected.clone();
    expected.extend(["OurRefusals", "SeverityByPrompt"].map(ToOwned::to_owned));
    assert_eq!(named(&all), expected, "neither rules about other things, nor about another prompt, nor our own");
    let one = |name: &'static str| {
        let world = &world;
        async move { Ok::<_, anyhow::Error>(explain(world, "p", name).await?.remove(0)) }
    };
    let ours = one("OurRefusals").await?;
    assert_eq!((&ours["decider"], &ours["outcome"]), (&json!("product-pm"), &json!("incident_opened")));
    let unknown = one("SeverityByPrompt").await?;
    let remark = unknown["remarks"][0].as_str().unwrap_or_default();
    assert!(remark.starts_with("severity is a template") && unknown["severity"] == "high", "{unknown}");
    assert_eq!(one("NodeDown").await?["outcome"], "rolled_back", "by name, any rule");

    drop(prometheus);
    let fallen = eventually("the shipped rules", SOON, async || {
        let answer = world.get("/api/prompts/p/explain").await.ok()?;
        (answer["rules"] == "shipped").then_some(answer)
    })
    .await?;
    assert_eq!(named(&fallen), shipped);
    let fault = fallen["rules_fault"].as_str().unwrap_or_default();
    assert!(fault.starts_with("prometheus: "), "{fallen}");
    Ok(())
}

#[tokio::test]
async fn a_prometheus_that_is_silent_leaves_time_for_the_answer() -> Result<()> {
    // the kernel accepts the connections
    let silent = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", silent.local_addr()?);
    let slow = [("PROMETHEUS__URL", url.as_str()), ("PROMETHEUS__TIMEOUT", "5s"), ("SERVER__REQUEST_TIMEOUT", "2s")];
    let world = World::with(&slow).await?;
    world.ship("p").await?;
    let answer = world.http().get("/api/prompts/p/explain").await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json()?;
    assert_eq!(told["rules"], "shipped");
    assert_eq!(told["rules_fault"], "the rules of Prometheus were not read within 1s");
    Ok(())
}

#[tokio::test]
async fn the_shipped_rules_are_read_as_prometheus_reads_them() -> Result<()> {
    let read = prompt_rollback::rules::Rules::shipped(None);
    let read: Vec<_> = read.all.iter().map(|rule| json!({ "name": rule.name, "labels": rule.labels })).collect();
    let of_prometheus = shipped_rules().await?;
    let expected: Vec<_> =
        of_prometheus.iter().map(|rule| json!({ "name": rule["name"], "labels": rule["labels"] })).collect();
    assert_eq!(read, expected);
    Ok(())
}

#[tokio::test]
async fn explain_names_an_unknown_prompt_or_alert() -> Result<()> {
    let world = World::start().await?;
    world.ship("team/greeting").await?;
    let long = "x".repeat(201);
    for (path, status, code, said) in [
        ("p/explain", 404, "unknown_prompt", "no prompt p is registered or active"),
        ("p/explain?alert=Nonsense", 404, "unknown_prompt", "no prompt p is registered or active"),
        ("p%252f/explain", 400, "bad_request", "prompt: "),
        ("team%2Fgreeting/explain?alert=", 400, "bad_request", "alert: expected the name of an alert rule"),
        (&format!("team%2Fgreeting/explain?alert={long}"), 400, "bad_request", "at most 200 characters"),
        ("team%2Fgreeting/explain?alert=Nonsense", 404, "unknown_alert", "Rules: PromptErrorRateCritical, PromptErr"),
        ("team%2Fgreeting/explain?alert=%ff%00", 404, "unknown_alert", "PromptQualityDropNewVersion"),
        (
            "team%2Fgreeting/explain?alert=PromptRollbackDown",
            404,
            "unknown_alert",
            "alert: no alert rule has this name",
        ),
    ] {
        let answer = world.http().get(&format!("/api/prompts/{path}")).await?;
        let error = &answer.json()?["error"];
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{path}: {error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains(said)), "{path}: {error}");
    }
    Ok(())
}
