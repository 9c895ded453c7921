//! The post-mortem draft, from stored data.

use anyhow::{Context, Result};
use prompt_rollback::decision::{IncidentId, Measure, PromptName, VersionName};
use prompt_rollback::postmortem::{IncidentMetric, SampleSeries, Samples, Unit};
use prompt_rollback::prometheus::client::Prometheus as Client;
use prompt_rollback::prometheus::question::{Metric, errors_per_minute};
use prompt_rollback::store::{Clock, Store};
use prompt_rollback_testkit::{Prometheus, eventually};
use serde_json::json;

use crate::common::{SOON, World, config, critical, exchange, incidents};

/// `v1` and `v2` with content, and `v2` rolled back by an alert: the incident's id.
async fn rolled_back(world: &World) -> Result<String> {
    for (version, content) in [("v1", "Help.\nBe brief.\n"), ("v2", "Help.\nBe rude.\n")] {
        let body = json!({"version": version, "content": content, "known_good": version == "v1"});
        assert_eq!(world.post("/api/prompts/team%2Fp/versions", body).await?.0, 201);
        let body = json!({"version": version, "operator": "mia"});
        assert_eq!(world.post("/api/prompts/team%2Fp/activate", body).await?.0, 200);
    }
    world.receiver.outcomes(&[critical("team/p")]).await?;
    let incident = incidents(&world.redis, "team/p").await?.pop().context("an incident")?;
    Ok(incident["id"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_post_mortem_contains_what_the_receiver_stored() -> Result<()> {
    let world = World::start().await?;
    let id = rolled_back(&world).await?;
    let answer = world.http().get(&format!("/api/incidents/{id}/postmortem")).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    for expected in [
        "# Post-mortem: team/p v2\n",
        "was rolled back from `v2` to `v1` automatically at ",
        "deployment log: activate v1 → v2 by mia (api)",
        "rolled back: system rolled v2 back to v1",
        "-Be brief.\n+Be rude.\n",
        "of 2 min since the alert: met",
        "Not measured: no samples",
        "4. **How do we prevent this from happening again?**",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let request =
        format!("GET /api/incidents/{id}/postmortem HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let raw = exchange(world.receiver.app.address, request.as_bytes()).await?;
    assert!(raw.contains("content-type: text/markdown; charset=utf-8\r\n") && raw.ends_with(&text), "{raw}");
    assert_eq!(text.matches("rolled v2 back to v1").count(), 1, "once, not from the log again:\n{text}");
    Ok(())
}

#[tokio::test]
async fn samples_are_kept_as_long_as_the_incident_and_drawn() -> Result<()> {
    let world = World::start().await?;
    let id = rolled_back(&world).await?;
    let store = Store::new(&config(&world.redis.url(), &[]).redis, Clock::default())?;
    let samples = Samples {
        label: "error ratio".to_owned(),
        unit: Unit::Ratio,
        bad: SampleSeries::new("v2", [(1_795_221_492_000, 0.07), (1_795_221_497_000, f64::NAN)]),
        bad_responses: Some(1_234.0),
        ..Samples::default()
    };
    let measured = IncidentMetric::Samples(Box::new(samples));
    store.put_samples(&IncidentId(id.clone()), &measured).await?;
    assert_eq!(store.samples(&IncidentId(id.clone())).await?, Some(measured));
    let key = store.keys().samples(&IncidentId(id.clone()));
    let days = world.redis.cmd::<i64>(&["PTTL", &key]).await? / 86_400_000;
    assert!((179..=180).contains(&days), "{days} days");
    let path = format!("/api/incidents/{id}/postmortem");
    let text = world.http().get(&path).await?.text();
    assert!(text.contains("the end of the measurements: 1,234.") && text.contains("from 7 % to 7 %"), "{text}");
    assert!(text.contains("\n[picture]: data:image/svg+xml;charset=utf-8,%3Csvg"), "{text}");

    world.redis.cmd::<()>(&["SET", &key, "not json"]).await?;
    let answer = world.http().get(&path).await?;
    assert!(answer.status == 200 && answer.text().contains("Not measured"), "damaged samples do not hide the rest");
    Ok(())
}

/// Two clusters, of which one is measured by two Prometheus servers.
#[tokio::test]
async fn the_worst_cluster_is_drawn_and_the_errors_of_all_clusters_are_counted() -> Result<()> {
    let rules = [("eu", "", 0, 10), ("us", "a", 6, 10), ("us", "b", 5, 10)].map(|(cluster, replica, errors, all)| {
        let labels = json!({ "prompt": "p", "version": "v2", "cluster": cluster, "prometheus_replica": replica });
        [("request_errors", errors), ("requests", all)].map(|(name, value)| {
            let (record, expr) = (format!("prompt_version:{name}:increase1m"), format!("vector({value})"));
            json!({ "record": record, "expr": expr, "labels": labels })
        })
    });
    let groups = json!({ "groups": [{ "name": "clusters", "interval": "1s", "rules": rules.concat() }] });
    let server =
        Prometheus::builder("rule_files: ['clusters.yml']\n").file("clusters.yml", groups.to_string()).start()?;
    let config = config("redis://127.0.0.1:1", &[("PROMETHEUS__URL", &server.url())]);
    let client = Client::new(&config.prometheus)?.context("no url")?;
    let (prompt, version) = (PromptName::parse("p")?, VersionName::parse("v2")?);
    let drawn = Metric::of(&Measure::default()).expression(&config.labels, &prompt);
    let counted = errors_per_minute(&config.labels, &prompt, &version);
    for (query, expected) in [(drawn, 0.6), (counted, 6.0)] {
        let found = eventually(&format!("{query} is {expected}"), SOON, async || {
            let series = client.instant(&query).await.ok()?;
            series.first().is_some_and(|one| one.value() == expected).then_some(series)
        })
        .await?;
        assert_eq!((found.len(), found[0].label("version")), (1, "v2"), "{found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_incident_has_no_postmortem() -> Result<()> {
    let world = World::start().await?;
    for id in ["01KAHJ3Y3W8Q0000000000000A", "x", "%7Bprompts%7D"] {
        let answer = world.http().get(&format!("/api/incidents/{id}/postmortem")).await?;
        assert_eq!((answer.status, &answer.json()?["error"]["code"]), (404, &json!("unknown_incident")), "{id}");
    }
    Ok(())
}
