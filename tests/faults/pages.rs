//! Web pages in an operator's browser, on the machine of a receiver without tokens.

use anyhow::Result;
use prompt_rollback_testkit::Redis;

use crate::common::{Receiver, World, assert_rolled_back_once, assert_same, critical, delivery, dump, exchange};

/// The status line and the body of a request as a browser or a program would send it.
async fn ask(receiver: &Receiver, method: &str, path: &str, headers: &str, body: &str) -> Result<(u16, String)> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(receiver.app.address, request.as_bytes()).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((head.split(' ').nth(1).unwrap_or_default().parse()?, body.to_owned()))
}

/// Requests that a page can make a browser send: a form's POST, a request from a script, an image, and all of these
/// after DNS rebinding.
fn pages(port: u16) -> Vec<String> {
    let foreign = ["null", "https://evil.example", "http://localhost:3000", "http://evil.example:8000"];
    let posts = foreign.map(|origin| format!("Host: localhost:{port}\r\nOrigin: {origin}\r\n"));
    let rebound = ["evil.example", "localhost.evil.example", "0.0.0.0", "10.0.0.1"];
    let rebound = rebound.map(|name| format!("Host: {name}:{port}\r\nOrigin: http://{name}:{port}\r\n"));
    let silent = [
        format!("Host: evil.example:{port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: image\r\n"),
    ];
    posts.into_iter().chain(rebound).chain(silent).collect()
}

const READS: [&str; 9] = [
    "/api/prompts",
    "/api/prompts/p",
    "/api/prompts/p/log",
    "/api/prompts/p/gates?version=v2",
    "/api/incidents",
    "/api/report",
    "/metrics",
    "/-/healthy",
    "/-/ready",
];

#[tokio::test]
async fn a_page_of_somebody_else_neither_acts_nor_reads() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let port = world.receiver.app.address.port();
    let before = dump(&world.redis).await?;
    let webhook = delivery(&[critical("p")]);
    let writes = [
        ("/webhooks/alertmanager", webhook.as_str()),
        ("/api/rollback", r#"{"prompt":"p"}"#),
        ("/api/prompts/p/versions", r#"{"version":"v3"}"#),
        ("/api/prompts/p/activate", r#"{"version":"v1"}"#),
        ("/api/import", "{}"),
        ("/api/drill", r#"{"prompt":"p"}"#),
        ("/api/pause", "{}"),
        ("/api/resume", "{}"),
        ("/api/incidents/01KAHJ3Y3W8Q0000000000000A/decide", r#"{"decision":"approve","operator":"mia"}"#),
    ];
    for page in pages(port) {
        for (path, body) in writes {
            let (status, answer) =
                ask(&world.receiver, "POST", path, &format!("{page}Content-Type: text/plain\r\n"), body).await?;
            assert_eq!(status, 403, "{path} {page}: {answer}");
            assert!(answer.contains("\"not_local\"") && answer.contains("_token is not set"), "{answer}");
        }
        for path in READS {
            let (status, answer) = ask(&world.receiver, "GET", path, &page, "").await?;
            assert_eq!(status, 403, "{path} {page}: {answer}");
            assert!(!answer.contains("v2"), "{answer}");
        }
    }
    assert_same(&before, &dump(&world.redis).await?, "pages of others");
    let counted = world.http().get("/metrics").await?.text();
    let refused = pages(port).len() * (writes.len() + READS.len());
    let series = format!("prompt_rollback_refused_requests_total{{reason=\"not_local\"}} {refused}\n");
    assert!(counted.contains(&series), "{series}{counted}");
    Ok(())
}

#[tokio::test]
async fn programs_of_this_machine_and_pages_of_our_own_need_no_token() -> Result<()> {
    let world = World::start().await?;
    let port = world.receiver.app.address.port();
    let names = ["localhost", "127.0.0.1", "[::1]", "LOCALHOST."];
    let hosts: Vec<String> = names.iter().flat_map(|name| [(*name).to_owned(), format!("{name}:{port}")]).collect();
    for (number, host) in hosts.iter().enumerate() {
        let prompt = format!("p-{number}");
        world.ship(&prompt).await?;
        let origin = format!("Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Dest: empty\r\n");
        for from in ["", &origin] {
            let headers = format!("Host: {host}\r\n{from}");
            for path in READS.iter().filter(|path| !path.contains("/p")) {
                let (status, answer) = ask(&world.receiver, "GET", path, &headers, "").await?;
                assert_eq!(status, 200, "{path} {headers}: {answer}");
            }
        }
        // as curl sends it without options
        let headers = format!(
            "Host: {host}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        );
        let (status, answer) =
            ask(&world.receiver, "POST", "/api/rollback", &headers, &format!(r#"{{"prompt":"{prompt}"}}"#)).await?;
        assert_eq!(status, 200, "{headers}: {answer}");
        assert_rolled_back_once(&world.redis, &prompt).await?;
    }
    let old = exchange(world.receiver.app.address, b"GET /-/ready HTTP/1.0\r\n\r\n").await?;
    assert!(old.starts_with("HTTP/1.0 200 "), "a load balancer's probe: {old}");
    Ok(())
}

#[tokio::test]
async fn a_token_counts_wherever_its_holder_is_and_each_route_has_its_own() -> Result<()> {
    let redis = Redis::start()?;
    let proxied = "Host: receiver.example\r\nOrigin: https://wiki.example\r\n";
    // the API has a token, the webhook has none
    let receiver = Receiver::ready(&redis.url(), &[("SERVER__API_TOKEN", "s3cret")]).await?;
    let with = format!("{proxied}Authorization: Bearer s3cret\r\n");
    assert_eq!(ask(&receiver, "GET", "/api/prompts", &with, "").await?.0, 200);
    assert_eq!(ask(&receiver, "GET", "/api/prompts", proxied, "").await?.0, 401);
    assert_eq!(ask(&receiver, "GET", "/metrics", proxied, "").await?.0, 200, "by design, once the API has a token");
    let body = delivery(&[]);
    let (status, answer) = ask(&receiver, "POST", "/webhooks/alertmanager", &with, &body).await?;
    assert!(status == 403 && answer.contains("server.webhook_token is not set"), "{answer}");
    // the reverse
    let receiver = Receiver::ready(&redis.url(), &[("SERVER__WEBHOOK_TOKEN", "s3cret")]).await?;
    assert_eq!(ask(&receiver, "POST", "/webhooks/alertmanager", &with, &body).await?.0, 200);
    assert_eq!(ask(&receiver, "GET", "/metrics", &with, "").await?.0, 403);
    assert_eq!(ask(&receiver, "GET", "/api/prompts", &with, "").await?.0, 403);
    // Slack signs its requests, through any tunnel
    let receiver =
        Receiver::ready(&redis.url(), &[("SLACK__SIGNING_SECRET", "x"), ("SLACK__BOT_TOKEN", "xoxb-1")]).await?;
    let (status, answer) =
        ask(&receiver, "POST", "/slack/interactions", "Host: tunnel.example\r\n", "payload=").await?;
    assert!(status == 401 && answer.contains("not signed"), "{answer}");
    Ok(())
}
