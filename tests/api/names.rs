//! Prompts and versions of other registries: names with any characters, and versions that are numbers or hashes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::alertmanager::client::Alertmanagers;
use prompt_rollback::decision::{PromptName, VersionName};
use prompt_rollback::prometheus::client::Prometheus as Client;
use prompt_rollback::prometheus::question;
use prompt_rollback_testkit::http::encode;
use prompt_rollback_testkit::{Alertmanager, Port, Prometheus, eventually, shipped};
use serde_json::{Value, json};

use crate::common::{ROLLED_BACK, Receiver, Redis, SOON, World, alert, config, critical, dump, ship};

const NAME: &str = "Support bot: v2@eu";
const ENCODED: &str = "Support%20bot%3A%20v2%40eu";

/// Names that would end a string, a matcher or an expression if they were not escaped.
const HOSTILE: [&str; 9] = [
    NAME,
    "plain/name.v2",
    r#"it's "quoted" `here` \ there"#,
    r#"x"} or vector(1) #"#,
    ".*|b+(c)[d]^e$",
    "$version and {{braces}}",
    "line\nbreak\ttab",
    "ü 用户 🙂 \u{fffd}",
    "100%20",
];

#[tokio::test]
async fn a_path_that_is_no_utf8_is_bad_input_not_a_path_that_does_not_exist() -> Result<()> {
    let world = World::start().await?;
    for (path, status, code) in [
        ("/api/prompts/%FF", 400, "bad_request"),
        ("/api/prompts/p%C3/log", 400, "bad_request"),
        ("/api/incidents/%FF", 400, "bad_request"),
        ("/api/nowhere/%FF", 404, "not_found"),
    ] {
        let answer = world.http().get(path).await?;
        assert_eq!((answer.status, &answer.json()?["error"]["code"]), (status, &json!(code)), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn an_encoded_prompt_is_used_by_its_name_or_its_encoded_form() -> Result<()> {
    let world = World::start().await?;
    world.ship(NAME).await?;
    let answer = world.receiver.deliver(&[critical(NAME)]).await?;
    assert_eq!(crate::common::outcomes(&answer)?, [ROLLED_BACK]);
    assert_eq!(answer.json()?["results"][0]["prompt"], ENCODED);
    assert_eq!(world.active(ENCODED).await?.as_deref(), Some("v1"));
    assert_eq!(world.log(ENCODED).await?.len(), 3);
    for form in [NAME, ENCODED] {
        let prompt = world.get(&format!("/api/prompts/{}", encode(form))).await?;
        assert_eq!((&prompt["prompt"], &prompt["active"]), (&json!(ENCODED), &json!("v1")), "{form}");
    }
    let (status, paused) = world.post("/api/pause", json!({ "prompt": NAME })).await?;
    assert_eq!((status, &paused["prompt"]), (200, &json!(ENCODED)), "{paused}");
    assert_eq!(world.get(&format!("/api/prompts/{}", encode(ENCODED))).await?["paused"], true);
    let (_, resumed) = world.post("/api/resume", json!({ "prompt": ENCODED })).await?;
    assert_eq!(resumed["changed"], true, "{resumed}");
    let (status, rolled) =
        world.post("/api/rollback", json!({ "prompt": ENCODED, "target_version": "v2", "force": true })).await?;
    assert_eq!((status, &rolled["to_version"]), (200, &json!("v2")), "{rolled}");
    // the text of a person is one prompt or none, never another one
    for other in ["support bot: v2@eu", "Support bot:  v2@eu"] {
        assert_eq!(world.http().get(&format!("/api/prompts/{}", encode(other))).await?.status, 404, "{other}");
    }
    for third in ["Support%20bot%3a%20v2%40eu", "Support%20bot: v2@eu", "%53upport%20bot%3A%20v2%40eu"] {
        assert_eq!(world.http().get(&format!("/api/prompts/{}", encode(third))).await?.status, 400, "{third}");
    }
    let (status, all) = world.post("/api/pause", json!({ "prompt": "*" })).await?;
    ensure!(status == 400 && all["error"]["message"].to_string().contains("leave it out for all prompts"), "{all}");

    let metrics = world.http().get("/metrics").await?.text();
    ensure!(metrics.contains(&format!("active_version_info{{prompt=\"{NAME}\",version=\"v2\"")), "{metrics}");
    // not that of the rollback by a person, which has another version
    let id = answer.json()?["results"][0]["incident"].as_str().context("an id")?.to_owned();
    let draft = world.http().get(&format!("/api/incidents/{id}/postmortem")).await?.text();
    ensure!(
        draft.starts_with(&format!("# Post-mortem: {NAME} v2\n")) && draft.contains(&format!("`{NAME}`")),
        "{draft}"
    );
    Ok(())
}

#[tokio::test]
async fn hostile_names_stay_inside_their_keys() -> Result<()> {
    let world = World::with(&[("GUARDS__MAX_AUTO_ROLLBACKS", "1000")]).await?;
    for name in HOSTILE {
        // to the API, a name in which each % begins an escape is an encoded one
        let encoded = PromptName::of(name)?;
        world.ship(encoded.as_str()).await?;
        let path = format!("/api/prompts/{}/explain?alert=PromptErrorRateCritical", encode(encoded.as_str()));
        let explained = world.get(&path).await?;
        assert_eq!(explained["alerts"][0]["outcome"], "rolled_back", "{name}: {explained}");
        assert_eq!(world.receiver.outcomes(&[critical(name)]).await?, [ROLLED_BACK], "{name}");
        assert_eq!(world.active(encoded.as_str()).await?.as_deref(), Some("v1"), "{name}");
    }
    let keys = dump(&world.redis).await?;
    for key in keys.keys() {
        let rest = key.strip_prefix("{prompts}:").with_context(|| key.clone())?;
        ensure!(!rest.contains(|c: char| "{}".contains(c) || c.is_whitespace() || !c.is_ascii_graphic()), "{key}");
    }
    ensure!(keys.keys().filter(|key| key.contains(":active:")).count() == HOSTILE.len(), "{:?}", keys.keys());
    Ok(())
}

#[tokio::test]
async fn a_version_may_be_a_number_or_a_hash() -> Result<()> {
    let hash = "9d2f04f1f0d6b9fbe2fe9a45f4c7a1c1d7a2e0b3";
    let world = World::start().await?;
    for (prompt, good, bad) in [("numbers", json!(2), json!(3)), ("hashes", json!(&hash[..7]), json!(hash))] {
        let path = format!("/api/prompts/{prompt}");
        for (what, body) in [
            ("versions", json!({ "version": good, "known_good": true })),
            ("activate", json!({ "version": good })),
            ("versions", json!({ "version": bad })),
            ("activate", json!({ "version": bad })),
        ] {
            let (status, answer) = world.post(&format!("{path}/{what}"), body).await?;
            ensure!(status < 300, "{what}: {answer}");
        }
        let mut fires = alert(prompt, "", "critical");
        fires["labels"]["version"] = bad.clone();
        assert_eq!(world.receiver.outcomes(&[fires]).await?, [ROLLED_BACK], "{prompt}");
        let text = good.as_str().map_or_else(|| good.to_string(), str::to_owned);
        assert_eq!(world.active(prompt).await?, Some(text), "{prompt}");
        let (status, answer) = world
            .post(
                "/api/rollback",
                json!({ "prompt": prompt, "target_version": bad, "from_version": good, "force": true }),
            )
            .await?;
        ensure!(status == 200 && answer["success"] == true, "{answer}");
    }
    Ok(())
}

/// The queries name the prompt as the metrics do, and nothing in a name changes their meaning.
#[tokio::test]
async fn queries_find_the_series_of_any_name_and_no_other() -> Result<()> {
    let records = ["prompt_version:request_errors:increase1m", "prompt_version:request_errors:ratio_rate5m"];
    let rules = HOSTILE.iter().enumerate().flat_map(|(number, name)| {
        let labels = json!({ "prompt": name, "version": "v1" });
        records.map(|record| json!({ "record": record, "expr": format!("vector({})", number + 1), "labels": labels }))
    });
    let groups = json!({ "groups": [{ "name": "names", "interval": "1s", "rules": rules.collect::<Vec<_>>() }] });
    let server = Prometheus::builder("rule_files: ['names.yml']\n").file("names.yml", groups.to_string()).start()?;
    let config = config("redis://127.0.0.1:1", &[("PROMETHEUS__URL", &server.url())]);
    let client = Client::new(&config.prometheus)?.context("no url")?;
    let (labels, version) = (config.labels, VersionName::parse("v1")?);
    eventually("the rules are evaluated", SOON, async || {
        let series = client.instant(&format!("count({})", records[1])).await.ok()?;
        series.first().filter(|count| count.value() == HOSTILE.len() as f64).map(drop)
    })
    .await?;
    for (number, name) in HOSTILE.iter().enumerate() {
        let prompt = PromptName::of(name)?;
        let [_, _, own] = question::all_prompts(&labels, [&prompt]);
        let about = |expression: &str| question::about(expression, &prompt, &version, Duration::from_secs(60));
        for query in [
            question::errors_per_minute(&labels, &prompt, &version),
            own,
            about("prompt_version:request_errors:increase1m{prompt=\"$prompt\",version=\"$version\"}"),
            about("prompt_version:request_errors:increase1m{prompt='$prompt',version='$version'}"),
        ] {
            let found = client.instant(&query).await.with_context(|| query.clone())?;
            ensure!(found.len() == 1, "{name}: {query} finds {found:?}");
            assert_eq!((found[0].label("prompt"), found[0].value()), (*name, (number + 1) as f64), "{query}");
        }
        let ratios = client.instant(&question::ratios(&labels, [&prompt])).await?;
        assert_eq!(question::ratio_of(&labels, &ratios, &prompt, &version), Some((number + 1) as f64), "{name}");
    }
    let all: Vec<PromptName> = HOSTILE.into_iter().map(PromptName::of).collect::<Result<_, _>>()?;
    assert_eq!(client.instant(&question::ratios(&labels, &all)).await?.len(), HOSTILE.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alertmanager_lists_and_delivers_alerts_of_any_name() -> Result<()> {
    let (redis, port) = (Redis::start()?, Port::claim());
    let alertmanager =
        Alertmanager::builder(shipped::alertmanager(&port.addr())?).file("webhook_token", "unused").start()?;
    let url = alertmanager.url();
    let env = [("ALERTMANAGER__URLS", url.as_str()), ("SERVER__LISTEN", &port.addr())];
    let receiver = Receiver::ready(&redis.url(), &env).await?;
    let clients = Alertmanagers::new(&config("redis://127.0.0.1:1", &env).alertmanager)?;
    for name in HOSTILE {
        alertmanager.post_alerts(&json!([{ "labels": { "alertname": "A", "prompt": name } }])).await?;
    }
    for name in HOSTILE {
        let listed = eventually("the alert is listed", SOON, async || {
            clients.fingerprints("prompt", name).await.ok().filter(|listed| !listed.is_empty())
        })
        .await
        .with_context(|| name.to_owned())?;
        assert_eq!(listed.len(), 1, "{name}");
    }
    for name in [NAME, HOSTILE[2], HOSTILE[7]] {
        ship(&receiver.http, name).await?;
        let started = receiver.http.post_json("/api/drill", &json!({ "prompt": name })).await?;
        let id = started.json()?["id"].as_str().context("an id")?.to_owned();
        let drill: Value = eventually("the drill makes the whole way", SOON, async || {
            let answer = receiver.http.get(&format!("/api/drill/{id}")).await.ok()?.json().ok()?;
            Some(answer).filter(|drill: &Value| drill["done"] == true)
        })
        .await
        .with_context(|| name.to_owned())?;
        let decided = drill["hops"].as_array().into_iter().flatten().find(|hop| hop["hop"] == "decided");
        ensure!(decided.is_some_and(|hop| hop["decision"]["outcome"] == "rolled_back"), "{name}: {drill}");
    }
    Ok(())
}
