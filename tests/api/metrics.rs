//! `/metrics`, `/-/healthy` and `/-/ready`.

use anyhow::Result;
use prompt_rollback_testkit::http::Http;
use serde_json::json;

use crate::common::{Redis, SOON, World, alert, critical, delivery, eventually, exchange};

#[tokio::test]
async fn every_metric_of_the_contract_is_there_from_the_start() -> Result<()> {
    let world = World::start().await?;
    let text = world.http().get("/metrics").await?.text();
    for series in [
        "prompt_rollback_rollbacks_total{mode=\"auto\",result=\"ok\"} 0",
        "prompt_rollback_rollbacks_total{mode=\"manual\",result=\"failed\"} 0",
        "prompt_rollback_webhook_duration_seconds_count 0",
        "prompt_rollback_alert_to_rollback_seconds_count 0",
        "prompt_rollback_ready 1",
        "prompt_rollback_paused 0",
        "prompt_rollback_dead_letter_tasks 0",
        "prompt_rollback_work_lag_seconds{work=\"act\"} 0.0",
        "prompt_rollback_work_lag_seconds{work=\"page\"} 0.0",
        "prompt_rollback_heartbeat_timestamp_seconds 0.0",
        "prompt_rollback_active_version_dropped 0",
        "prompt_rollback_incidents{phase=\"verifying\"} 0",
        concat!("prompt_rollback_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.contains(&format!("{series}\n")), "{series} is missing:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    Ok(())
}

#[tokio::test]
async fn a_rollback_shows_in_the_metrics() -> Result<()> {
    let world = World::start().await?;
    world.ship("a/b").await?;
    world.ship("q").await?;
    world.receiver.outcomes(&[critical("a/b"), alert("q", "v2", "high")]).await?;
    world.receiver.outcomes(&[critical("a/b")]).await?;
    world.post("/api/pause", json!({})).await?;
    let text = world.http().get("/metrics").await?.text();
    for series in [
        "prompt_rollback_alerts_total{severity=\"critical\",outcome=\"rolled_back\",reason=\"alert\"} 1",
        "prompt_rollback_alerts_total{severity=\"critical\",outcome=\"duplicate\",reason=\"duplicate\"} 1",
        "prompt_rollback_alerts_total{severity=\"high\",outcome=\"incident_opened\",reason=\"page\"} 1",
        "prompt_rollback_rollbacks_total{mode=\"auto\",result=\"ok\"} 1",
        "prompt_rollback_webhook_duration_seconds_count 2",
        "prompt_rollback_alert_to_rollback_seconds_count 1",
        "prompt_rollback_incidents{phase=\"verifying\"} 1",
        "prompt_rollback_incidents{phase=\"awaiting_decision\"} 1",
        "prompt_rollback_active_version_info{prompt=\"a/b\",version=\"v1\",previous=\"\"} 1",
        "prompt_rollback_active_version_info{prompt=\"q\",version=\"v2\",previous=\"v1\"} 1",
        "prompt_rollback_paused 1",
    ] {
        assert!(text.contains(&format!("{series}\n")), "{series} is missing:\n{text}");
    }
    let activated = "prompt_rollback_active_version_activated_timestamp_seconds{prompt=\"a/b\",version=\"v1\"} ";
    assert_eq!(text.matches(activated).count(), 1, "{text}");
    Ok(())
}

#[tokio::test]
async fn truncated_alerts_and_alerts_on_unknown_versions_are_counted() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let counted = async |series: &str| -> Result<bool> {
        let text = world.http().get("/metrics").await?.text();
        Ok(text.contains(&format!("{series}\n")))
    };
    let unknown = r#"prompt_rollback_alerts_total{severity="critical",outcome="ignored",reason="unknown_version"}"#;
    // a counter that starts above 0 is invisible to an alert rule
    assert!(counted(&format!("{unknown} 0")).await?);
    assert!(counted("prompt_rollback_truncated_alerts_total 0").await?);
    let outcomes = world.receiver.outcomes(&[alert("p", "2", "critical"), alert("p", "v1", "critical")]).await?;
    assert_eq!(outcomes, ["ignored{unknown_version}", "ignored{not_active}"]);
    assert!(counted(&format!("{unknown} 1")).await?);
    let body = delivery(&[critical("p")]).replace(r#""truncatedAlerts":0"#, r#""truncatedAlerts":7"#);
    let answer = world.http().post("/webhooks/alertmanager", body).await?.json()?;
    assert_eq!((&answer["truncated_alerts"], &answer["results"][0]["reason"]), (&json!(7), &json!("target_unhealthy")));
    assert!(counted("prompt_rollback_truncated_alerts_total 7").await?);
    Ok(())
}

#[tokio::test]
async fn a_delivery_that_is_not_done_in_time_is_measured_too() -> Result<()> {
    // far shorter than the timeout of Redis' answers
    let world = World::with(&[("SERVER__REQUEST_TIMEOUT", "250ms"), ("REDIS__WAIT_TIMEOUT", "100ms")]).await?;
    eventually("shipped", SOON, async || world.ship("p").await.ok()).await?;
    world.redis.cmd::<()>(&["CLIENT", "PAUSE", "60000", "WRITE"]).await?;
    let answer = world.receiver.deliver(&[critical("p")]).await?;
    world.redis.cmd::<()>(&["CLIENT", "UNPAUSE"]).await?;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("\"timeout\""), "{}", answer.text());
    let counted = async || {
        let text = world.http().get("/metrics").await.ok()?.text();
        text.contains("prompt_rollback_webhook_duration_seconds_count 1\n").then_some(())
    };
    eventually("the delivery is counted", SOON, counted).await
}

#[tokio::test]
async fn a_request_that_is_not_let_in_is_counted_by_what_it_lacks() -> Result<()> {
    let world = World::with(&[("SERVER__WEBHOOK_TOKEN", "hook-token"), ("SERVER__API_TOKEN", "api-token")]).await?;
    let wrong = world.http().clone().token("s3cret-guess");
    for _ in 0..3 {
        assert_eq!(wrong.get("/api/prompts").await?.status, 401);
    }
    assert_eq!(wrong.post("/webhooks/alertmanager", delivery(&[critical("p")])).await?.status, 401);
    assert_eq!(world.http().get("/api/prompts").await?.status, 401);
    let text = world.http().get("/metrics").await?.text();
    for series in [r#"{reason="wrong_token"} 4"#, r#"{reason="no_token"} 1"#, r#"{reason="wrong_signature"} 0"#] {
        assert!(text.contains(&format!("prompt_rollback_refused_requests_total{series}\n")), "{series}: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn the_number_of_version_series_is_bounded_and_the_overflow_counted() -> Result<()> {
    let world = World::with(&[("METRICS__MAX_PROMPTS", "2")]).await?;
    for name in ["a", "b", "c"] {
        world.ship(name).await?;
    }
    let text = world.http().get("/metrics").await?.text();
    assert_eq!(text.matches("prompt_rollback_active_version_info{").count(), 2);
    assert!(text.contains("prompt_rollback_active_version_dropped 1\n"), "{text}");
    Ok(())
}

/// How often the prompts' series were read.
async fn readings(redis: &Redis) -> Result<u64> {
    let stats: String = redis.cmd(&["INFO", "commandstats"]).await?;
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hgetall:calls="));
    Ok(calls.and_then(|calls| calls.split(',').next()).map_or(Ok(0), str::parse)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapers_share_one_reading_a_second_and_head_reads_nothing() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let before = readings(&world.redis).await?;
    let head = "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    for _ in 0..20 {
        let answer = exchange(world.receiver.app.address, head.as_bytes()).await?;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(readings(&world.redis).await?, before);
    let start = std::time::Instant::now();
    let scrapes = (0..100).map(|_| async { Ok::<_, anyhow::Error>(world.http().get("/metrics").await?.text()) });
    for text in futures_util::future::join_all(scrapes).await {
        let text = text?;
        assert!(
            text.contains("prompt_rollback_active_version_info{prompt=\"p\"") && text.ends_with("# EOF\n"),
            "{text}"
        );
    }
    let readings = readings(&world.redis).await? - before;
    assert!(readings <= 1 + start.elapsed().as_secs(), "{readings} in {:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn metrics_have_an_address_of_their_own_if_they_are_given_one() -> Result<()> {
    let world = World::with(&[("METRICS__LISTEN", "127.0.0.1:0"), ("SERVER__API_TOKEN", "s3cret")]).await?;
    let address = world.receiver.app.metrics_address.expect("an address");
    let scraped = Http::new(format!("http://{address}"));
    for (http, path, status) in [
        (&scraped, "/metrics", 200),
        (&scraped, "/-/healthy", 200),
        (&scraped, "/-/ready", 200),
        (&scraped, "/api/prompts", 404),
        (&scraped, "/nowhere", 404),
        (world.http(), "/metrics", 404),
        (world.http(), "/-/healthy", 200),
        (world.http(), "/-/ready", 200),
        (world.http(), "/api/prompts", 401),
    ] {
        let answer = http.get(path).await?;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    let webhook = scraped.post("/webhooks/alertmanager", delivery(&[critical("p")])).await?;
    assert!(webhook.status == 404 && webhook.text().contains("metrics.listen"), "{}", webhook.text());
    world.receiver.app.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it ends with the rest");
    Ok(())
}

/// A client of this machine that comes over IPv4 to an IPv6 socket.
#[tokio::test]
async fn a_foreign_web_page_does_not_read_metrics_at_an_address_of_both_kinds() -> Result<()> {
    let world = World::with(&[("METRICS__LISTEN", "[::]:0")]).await?;
    let port = world.receiver.app.metrics_address.expect("an address").port();
    for (host, status) in [("evil.example", "403"), ("localhost", "200")] {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = exchange(([127, 0, 0, 1], port).into(), request.as_bytes()).await?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
    Ok(())
}
