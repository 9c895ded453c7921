//! Signed outgoing webhooks, to a program that verifies them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use prompt_rollback::events::Kind;
use prompt_rollback::store::schedule::{Target, Work};
use prompt_rollback_testkit::webhook::{Delivery, Does, Webhook};
use prompt_rollback_testkit::{Dir, Redis, Rng, eventually};
use serde_json::{Value, json};

use crate::common::{ROLLED_BACK, Receiver, SOON, World, alert, critical, kept, resolved, settings_of};

const SECRET: &str = "the secret of the audit log";
/// The events of a prompt that is shipped and rolled back.
const ROLLBACK: [&str; 4] = ["version.activated", "version.activated", "incident.opened", "rollback.done"];

fn env<'a>(url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let own =
        [("WEBHOOKS__AUDIT__URL", url), ("WEBHOOKS__AUDIT__SECRET", SECRET), ("GUARDS__MAX_AUTO_ROLLBACKS", "50")];
    own.into_iter().chain(more.iter().copied()).collect()
}

/// Lets time pass, so that a back-off ends, unless something is being sent or due to be.
async fn pass(redis: &Redis, receivers: &[&Receiver], time: Duration) -> Result<()> {
    let targets = ["webhook.audit", "webhook.slow"].map(|name| Work::Notify(Target::named(name)));
    if receivers[0].is_settled(redis, &targets).await? {
        receivers.iter().for_each(|receiver| receiver.clock.advance(time));
    }
    Ok(())
}

/// Waits until these events about a prompt were accepted, in this order. Time passes meanwhile, so that back-offs end.
async fn arrive(hook: &Webhook, world: Option<&World>, subject: &str, expected: &[&str]) -> Result<()> {
    let what = format!("events about {subject}");
    let arrived = eventually(&what, SOON, async || {
        if let Some(world) = world {
            pass(&world.redis, &[&world.receiver], Duration::from_secs(2)).await.ok()?;
        }
        (hook.kinds(subject).len() >= expected.len()).then_some(())
    });
    arrived.await.with_context(|| format!("{:?} {:?}", hook.kinds(subject), hook.problems()))?;
    ensure!(hook.kinds(subject) == expected, "{subject}: {:?}", hook.kinds(subject));
    Ok(())
}

/// The stored events of a prompt.
async fn made(redis: &Redis, prompt: &str) -> Result<Vec<String>> {
    let events = kept::store(redis)?.events(&kept::prompt(prompt), 0, 10_000).await?;
    Ok(events.items.into_iter().map(|(_, event)| event).collect())
}

/// No id has two contents, and the accepted events of each prompt are all its events, in order.
async fn is_whole(hook: &Webhook, redis: &Redis, prompts: &[String]) -> Result<()> {
    let mut contents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Delivery { id, body, .. } in hook.deliveries() {
        contents.entry(id).or_default().insert(body);
    }
    let two: Vec<_> = contents.iter().filter(|(_, bodies)| bodies.len() > 1).collect();
    ensure!(two.is_empty(), "ids with two contents: {two:?}");
    for prompt in prompts {
        let taken: Vec<String> =
            hook.taken().into_iter().filter(|event| event.subject() == prompt).map(|event| event.body).collect();
        ensure!(taken == made(redis, prompt).await?, "{prompt}: {taken:#?}");
    }
    ensure!(hook.problems().is_empty(), "{:?}", hook.problems());
    Ok(())
}

#[tokio::test]
async fn what_happens_to_a_prompt_arrives_signed_once_and_in_order() -> Result<()> {
    let hook = Webhook::start(SECRET).await?;
    let url = hook.url();
    let world = World::with(&env(&url, &[])).await?;
    world.ship("p").await?;
    assert_eq!(world.receiver.outcomes(&[critical("p")]).await?, [ROLLED_BACK]);
    arrive(&hook, None, "p", &ROLLBACK).await?;
    let id = world.get("/api/incidents").await?["incidents"][0]["id"].as_str().context("an id")?.to_owned();
    let undo = json!({"decision": "undo", "operator": "mia"});
    assert_eq!(world.post(&format!("/api/incidents/{id}/decide"), undo).await?.0, 200);
    let all = [&ROLLBACK[..], &["decision.made", "version.activated", "incident.closed"]].concat();
    arrive(&hook, None, "p", &all).await?;

    let taken = hook.taken();
    assert_eq!(taken.len(), hook.deliveries().len(), "each once");
    let event = |kind: &str| taken.iter().rfind(|event| event.kind() == kind).expect(kind).event.clone();
    let done = event("rollback.done");
    for (field, value) in [
        ("specversion", "1.0"),
        ("type", "io.prompt-rollback.rollback.done"),
        ("source", "/prompt-rollback/%7Bprompts%7D"),
        ("subject", "p"),
        ("datacontenttype", "application/json"),
    ] {
        assert_eq!(done[field], value, "{field}");
    }
    assert!(done["time"].as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()), "{done}");
    let data = &done["data"];
    for (field, value) in [
        ("prompt", "p"),
        ("from", "v2"),
        ("to", "v1"),
        ("active", "v1"),
        ("event", "rollback"),
        ("mode", "auto"),
        ("operator", "system"),
        ("text", "PromptErrorRate: v2 fails"),
    ] {
        assert_eq!(data[field], value, "{field}");
    }
    assert_eq!(data["automation"], json!({"mode": "armed", "paused": null}));
    let incident = &data["incident"];
    assert_eq!((&incident["id"], &incident["severity"]), (&json!(id), &json!("critical")));
    assert_eq!(incident["runbook_url"], "https://runbooks.example/errors");
    let made = event("decision.made");
    assert_eq!((&made["data"]["decision"], &made["data"]["operator"]), (&json!("undo"), &json!("mia (api)")));
    assert_eq!(event("version.activated")["data"]["active"], "v2");
    assert_eq!(event("incident.closed")["data"]["incident"]["phase"], "dismissed");
    assert!(taken.iter().all(|event| event.content_type == "application/cloudevents+json; charset=utf-8"));
    is_whole(&hook, &world.redis, &["p".to_owned()]).await
}

#[tokio::test]
async fn questions_to_people_and_held_rollbacks_are_events() -> Result<()> {
    let hook = Webhook::start(SECRET).await?;
    let url = hook.url();
    let world = World::with(&env(&url, &[("GUARDS__MODE", "dry-run")])).await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    let asked = [&ROLLBACK[..2], &["incident.opened", "rollback.held", "decision.requested"]].concat();
    arrive(&hook, None, "p", &asked).await?;
    let held = hook.taken()[3].event["data"].clone();
    assert_eq!((&held["guard"], &held["automation"]["mode"]), (&json!("dry_run"), &json!("dry-run")));
    let asked_for = hook.taken()[4].event["data"]["incident"].clone();
    assert_eq!((&asked_for["decider"], &asked_for["choices"]), (&json!("on-call"), &json!(["v1"])), "{asked_for}");
    assert!(asked_for["deadline"].is_string(), "{asked_for}");

    assert_eq!(world.post("/api/pause", json!({"operator": "mia", "reason": "a launch"})).await?.0, 200);
    world.receiver.clock.advance(Duration::from_secs(120));
    let escalated = [&asked[..], &["incident.escalated"]].concat();
    arrive(&hook, None, "p", &escalated).await?;
    let paused = hook.taken()[5].event["data"]["automation"]["paused"].clone();
    assert!(paused.as_str().is_some_and(|paused| paused.contains("a launch")), "{paused}");
    Ok(())
}

/// `quick` works, `slow` hangs and then rejects, and the receiver dies in between.
#[tokio::test]
async fn a_target_that_is_down_delays_no_other_and_later_gets_all_in_order() -> Result<()> {
    let (quick, slow) = (Webhook::start(SECRET).await?, Webhook::start("the secret of the slow one").await?);
    slow.does(|_, _| Does::Hang);
    let (url, slow_url) = (quick.url(), slow.url());
    let env =
        env(&url, &[("WEBHOOKS__SLOW__URL", &slow_url), ("WEBHOOKS__SLOW__SECRET", "the secret of the slow one")]);
    let mut world = World::with(&env).await?;
    let prompts: Vec<String> = (0..6).map(|n| format!("p{n}")).collect();
    for prompt in &prompts {
        world.ship(prompt).await?;
        assert_eq!(world.receiver.outcomes(&[critical(prompt)]).await?, [ROLLED_BACK], "{prompt}");
    }
    for prompt in &prompts {
        arrive(&quick, None, prompt, &ROLLBACK).await?;
    }
    assert!(slow.taken().is_empty());
    let lag = async |target: &str| -> Result<f64> {
        let text = world.receiver.http.get("/metrics").await?.text();
        let series = format!("prompt_rollback_notification_lag_seconds{{target=\"{target}\"}} ");
        Ok(text.lines().find_map(|line| line.strip_prefix(&series)).with_context(|| text.clone())?.parse()?)
    };
    eventually("slow lags", SOON, async || lag("webhook.slow").await.ok().filter(|lag| *lag > 0.0)).await?;
    eventually("quick does not", SOON, async || lag("webhook.audit").await.ok().filter(|lag| *lag == 0.0)).await?;

    slow.does(|_, _| Does::Answer(503));
    let next = Receiver::ready(&world.redis.receiver_url(), &env).await?;
    std::mem::replace(&mut world.receiver, next).app.shutdown().await;
    world.receiver.clock.advance(Duration::from_secs(31)); // its leases expire
    for prompt in &prompts {
        world.receiver.outcomes(&[resolved(critical(prompt))]).await?;
    }
    eventually("it is tried again", SOON, async || {
        world.receiver.clock.advance(Duration::from_secs(1));
        slow.deliveries().iter().any(|delivery| !delivery.taken).then_some(())
    })
    .await?;
    slow.does(|_, _| Does::Answer(200));
    for prompt in &prompts {
        arrive(&slow, Some(&world), prompt, &ROLLBACK).await?;
    }
    is_whole(&slow, &world.redis, &prompts).await?;
    is_whole(&quick, &world.redis, &prompts).await
}

/// Its own attempts are further and further apart.
#[tokio::test]
async fn an_event_that_fails_again_and_again_delays_no_other_prompt() -> Result<()> {
    let hook = Webhook::start(SECRET).await?;
    hook.does(|event, _| Does::Answer(if event["subject"] == "bad" { 500 } else { 200 }));
    let url = hook.url();
    let world = World::with(&env(&url, &[])).await?;
    world.ship("bad").await?;
    eventually("four attempts", SOON, async || {
        pass(&world.redis, &[&world.receiver], Duration::from_secs(1)).await.ok()?;
        (hook.deliveries().len() >= 4).then_some(())
    })
    .await?;
    world.ship("good").await?;
    arrive(&hook, None, "good", &ROLLBACK[..2]).await?;
    let attempts = hook.deliveries().iter().filter(|delivery| delivery.subject() == "bad").count();
    ensure!(attempts == 4, "the other prompt's events waited for attempt {attempts}");
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_unavailable_is_asked_again_when_it_says() -> Result<()> {
    let hook = Webhook::start(SECRET).await?;
    hook.does(|event, before| match (event["subject"].as_str(), before) {
        (Some("p"), 0) => Does::AnswerWith(503, "retry-after", "40".to_owned()),
        _ => Does::Answer(200),
    });
    let url = hook.url();
    let world = World::with(&env(&url, &[("WEBHOOKS__AUDIT__EVENTS", "rollback.done")])).await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    let asked = async |times: usize| {
        eventually("it is asked", SOON, async || (hook.deliveries().len() >= times).then_some(())).await
    };
    asked(1).await?;
    world.settled(&[Work::Notify(Target::named("webhook.audit"))]).await?;
    world.receiver.clock.advance(Duration::from_secs(25));
    world.ship("q").await?; // also other prompts wait
    let wanted = json!({"prompt": "q", "operator": "mia", "reason": "tone"});
    ensure!(world.post("/api/rollback", wanted).await?.0 == 200);
    world.settled(&[Work::Notify(Target::named("webhook.audit"))]).await?;
    ensure!(hook.deliveries().len() == 1, "it is asked too early");
    // Redis expires keys by its own time
    for held in world.redis.cmd::<Vec<String>>(&["KEYS", &kept::keys().rate_limit("*")]).await? {
        world.redis.cmd::<()>(&["DEL", &held]).await?;
    }
    world.receiver.clock.advance(Duration::from_secs(16));
    asked(2).await?;
    arrive(&hook, None, "p", &ROLLBACK[3..]).await
}

/// Random histories of several prompts, through two receivers, to a target that fails and loses answers.
#[tokio::test]
async fn whatever_happens_each_event_arrives_with_one_content_and_in_order() -> Result<()> {
    let seed = RandomState::new().hash_one("seed");
    let mut rng = Rng::new(seed);
    let hook = Webhook::start(SECRET).await?;
    hook.does(|event, before| {
        let sum: usize = event["id"].as_str().unwrap_or_default().bytes().map(usize::from).sum();
        match (sum % 5, before) {
            (0, 0) => Does::Answer(500),
            (1, 0) => Does::LoseAnswer,
            (2, 0) => Does::AnswerWith(429, "retry-after", "1".to_owned()),
            _ => Does::Answer(202),
        }
    });
    let url = hook.url();
    let env = env(&url, &[]);
    let world = World::with(&env).await?;
    let other = Receiver::ready(&world.redis.receiver_url(), &env).await?;
    let prompts: Vec<String> = (0..3).map(|n| format!("p{n}")).collect();
    for prompt in &prompts {
        world.ship(prompt).await?;
    }
    for _ in 0..25 {
        let prompt = &prompts[rng.below(3) as usize];
        let receiver = if rng.below(2) == 0 { &world.receiver } else { &other };
        let version = ["v1", "v2"][rng.below(2) as usize];
        match rng.below(5) {
            0 => drop(receiver.deliver(&[critical(prompt)]).await?),
            1 => drop(receiver.deliver(&[alert(prompt, version, "high")]).await?),
            2 => drop(receiver.deliver(&[resolved(critical(prompt))]).await?),
            3 => {
                let body = json!({"version": version, "force": true, "reason": "tried"});
                drop(receiver.http.post_json(&format!("/api/prompts/{prompt}/activate"), &body).await?);
            }
            _ => {
                let body = json!({"prompt": prompt, "operator": "mia", "reason": "tone"});
                drop(receiver.http.post_json("/api/rollback", &body).await?);
            }
        }
    }
    // time makes further events meanwhile
    let arrived = eventually("all events", SOON, async || {
        pass(&world.redis, &[&world.receiver, &other], Duration::from_secs(1)).await.ok()?;
        is_whole(&hook, &world.redis, &prompts).await.ok()
    });
    match arrived.await {
        Ok(()) => Ok(()),
        Err(_) => is_whole(&hook, &world.redis, &prompts).await.with_context(|| format!("seed {seed}")),
    }
}

#[tokio::test]
async fn an_event_refused_ten_times_is_given_up_and_no_redirect_is_followed() -> Result<()> {
    let (hook, stranger) = (Webhook::start(SECRET).await?, Webhook::start(SECRET).await?);
    let elsewhere = stranger.url();
    hook.does(move |event, before| match event["type"].as_str() {
        Some("io.prompt-rollback.incident.opened") if before % 2 == 0 => Does::Answer(400),
        Some("io.prompt-rollback.incident.opened") => Does::AnswerWith(307, "location", elsewhere.clone()),
        _ => Does::Answer(200),
    });
    let url = hook.url();
    let world = World::with(&env(&url, &[])).await?;
    world.ship("p").await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    eventually("the event behind it", SOON, async || {
        pass(&world.redis, &[&world.receiver], Duration::from_secs(10)).await.ok()?;
        hook.kinds("p").iter().any(|kind| kind == "rollback.done").then_some(())
    })
    .await
    .with_context(|| format!("{:?}", hook.deliveries().iter().map(Delivery::kind).collect::<Vec<_>>()))?;
    let tried = hook.deliveries().into_iter().filter(|delivery| delivery.kind() == "incident.opened");
    assert_eq!(tried.count(), 10);
    assert!(stranger.deliveries().is_empty() && stranger.problems().is_empty());
    let metrics = world.receiver.http.get("/metrics").await?.text();
    for (result, count) in [("client_error", 5), ("redirect", 5), ("given_up", 1), ("server_error", 0)] {
        let series =
            format!("prompt_rollback_notifications_total{{target=\"webhook.audit\",result=\"{result}\"}} {count}");
        assert!(metrics.lines().any(|line| line == series), "{series} in\n{metrics}");
    }
    assert!(
        metrics.contains("prompt_rollback_notifications_total{target=\"webhook.audit\",result=\"ok\"} "),
        "{metrics}"
    );
    assert!(!metrics.contains("secret"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn a_webhook_that_a_reload_adds_gets_what_it_asks_for_from_then_on() -> Result<()> {
    let hook = Webhook::start(SECRET).await?;
    let dir = Dir::new("webhooks")?;
    let path = dir.write("prompt-rollback.toml", "")?;
    dir.write("secret", "an earlier secret of it")?;
    let redis = Redis::start()?;
    let receiver = Receiver::start_with(&settings_of(Some(&path), &redis.receiver_url(), &[])).await?;
    receiver.wait_ready(SOON).await?;
    let world = World { redis, receiver };
    world.ship("p").await?;
    world.ship("q").await?;
    assert!(made(&world.redis, "p").await?.is_empty(), "no target subscribes to them");
    let reload = async |toml: &str| -> Result<Value> {
        dir.write("prompt-rollback.toml", toml)?;
        let answer = world.http().post("/-/reload", "").await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        ensure!(
            !answer.text().contains("secret of it") && !answer.text().contains("query-secret"),
            "{}",
            answer.text()
        );
        answer.json()
    };
    let with = |events: &str| {
        format!("[webhooks.late]\nurl = \"{}\"\nsecret_file = \"secret\"\nevents = {events}\n", hook.url())
    };
    reload(&with("[\"rollback.done\", \"io.prompt-rollback.version.activated\"]")).await?;
    world.receiver.outcomes(&[critical("p")]).await?;
    eventually("a signature with another secret", SOON, async || (!hook.problems().is_empty()).then_some(())).await?;
    dir.write("secret", SECRET)?; // noticed without a reload
    arrive(&hook, None, "p", &["rollback.done"]).await?;

    reload("").await?;
    world.receiver.outcomes(&[critical("q")]).await?;
    assert!(made(&world.redis, "q").await?.is_empty());
    reload(&with("[]")).await?;
    let again = json!({"version": "v2", "force": true, "reason": "tried"});
    assert_eq!(world.post("/api/prompts/q/activate", again).await?.0, 200);
    eventually("what happens from now on", SOON, async || (!hook.kinds("q").is_empty()).then_some(())).await?;
    assert!(hook.kinds("q").iter().all(|kind| kind != "rollback.done"), "{:?}", hook.kinds("q"));

    dir.write("prompt-rollback.toml", with("[\"incident.oponed\"]"))?;
    let answer = world.http().post("/-/reload", "").await?;
    let text = answer.text();
    assert_eq!(answer.status, 400, "{text}");
    assert!(text.contains("webhooks.late.events") && text.contains("incident.opened"), "{text}");
    Ok(())
}

/// The code in `docs/webhooks.md`.
fn documented(docs: &str) -> Result<&str> {
    let (_, rest) = docs.split_once("```python\n").context("code")?;
    Ok(rest.split_once("```").context("its end")?.0)
}

#[tokio::test]
async fn the_documented_receiver_believes_what_is_sent_and_nothing_else() -> Result<()> {
    const RUN: &str = "
import sys
case = json.load(sys.stdin)
try:
    print(verify(case['secret'], case['headers'], case['body'].encode())['id'])
except ValueError as error:
    print(error)
";
    let docs = prompt_rollback_testkit::shipped::text("docs/webhooks.md")?;
    for kind in Kind::ALL {
        assert!(docs.contains(&format!("`{}`", kind.as_str())), "docs/webhooks.md does not tell of {}", kind.as_str());
    }
    let hook = Webhook::start(SECRET).await?;
    let url = hook.url();
    let world = World::with(&env(&url, &[])).await?;
    world.ship("p").await?;
    arrive(&hook, None, "p", &ROLLBACK[..2]).await?;
    let sent = hook.taken().remove(0);
    let header = |name: &str| sent.header(name).to_owned();
    let headers: BTreeMap<&str, String> =
        ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| (name, header(name))).into();
    let program = format!("{}{RUN}", documented(&docs)?);
    let run = |secret: &str, headers: &BTreeMap<&str, String>, body: &str| -> Result<String> {
        let mut python =
            Command::new("python3").args(["-c", &program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let case = json!({"secret": secret, "headers": headers, "body": body});
        python.stdin.take().context("stdin")?.write_all(case.to_string().as_bytes())?;
        Ok(String::from_utf8(python.wait_with_output()?.stdout)?.trim().to_owned())
    };
    assert_eq!(run(SECRET, &headers, &sent.body)?, sent.id);
    let encoded = format!("whsec_{}", base64::prelude::BASE64_STANDARD.encode(SECRET));
    assert_eq!(run(&encoded, &headers, &sent.body)?, sent.id);
    assert_eq!(run("another secret than that", &headers, &sent.body)?, "wrong signature");
    assert_eq!(run(SECRET, &headers, &sent.body.replace("v1", "v3"))?, "wrong signature");
    let with = |name: &'static str, value: String| {
        let mut headers = headers.clone();
        headers.insert(name, value);
        headers
    };
    assert_eq!(run(SECRET, &with("webhook-id", "other".to_owned()), &sent.body)?, "wrong signature");
    let signed_at: i64 = header("webhook-timestamp").parse()?;
    let old = with("webhook-timestamp", (signed_at - 400).to_string());
    assert_eq!(run(SECRET, &old, &sent.body)?, "signed too long ago");
    Ok(())
}
