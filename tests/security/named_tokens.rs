//! Named tokens: what each may do and see, and whom the log names. People whom a proxy has signed in.

use anyhow::{Result, ensure};
use prompt_rollback_testkit::http::{Answer, Http, encode};
use serde_json::{Value, json};

use super::sessions::csrf;
use crate::common::{World, critical, ship};

const TOKENS: [(&str, &str); 10] = [
    ("SERVER__API_TOKEN", "whole-token"),
    ("TOKENS__CI__TOKEN", "token-of-ci"),
    ("TOKENS__CI__ROLES", "deploy"),
    ("TOKENS__CI__PROMPTS", "team-a/*"),
    ("TOKENS__OPS__TOKEN", "token-of-ops"),
    ("TOKENS__OPS__ROLES", "deploy,decide"),
    ("TOKENS__WALL__TOKEN", "token-of-wall"),
    ("TOKENS__WALL__ROLES", "read"),
    ("TOKENS__BOSS__TOKEN", "token-of-boss"),
    ("TOKENS__BOSS__ROLES", "admin"),
];

fn with(world: &World, token: &str) -> Http {
    world.http().clone().token(token)
}

fn code(answer: &Answer) -> String {
    let body: Value = answer.json().unwrap_or_default();
    format!("{} {}", answer.status, body["error"]["code"].as_str().unwrap_or_default())
}

/// Each route that changes something: its path, a body, and the role that it requires.
fn actions(incident: &str) -> Vec<(String, Value, &'static str)> {
    let prompt = |rest: &str| format!("/api/prompts/team-a%2Fp/{rest}");
    vec![
        (prompt("versions"), json!({"version": "v3"}), "deploy"),
        (prompt("activate"), json!({"version": "v1"}), "deploy"),
        (prompt("canary"), json!({"action": "hold"}), "deploy"),
        (prompt("versions/v1/restore"), json!({}), "deploy"),
        (prompt("versions/v1/mark"), json!({"mark": "good", "reason": "r"}), "decide"),
        ("/api/rollback".to_owned(), json!({"prompt": "team-a/p"}), "decide"),
        (format!("/api/incidents/{incident}/decide"), json!({"decision": "investigate"}), "decide"),
        ("/api/pause".to_owned(), json!({"prompt": "team-a/p"}), "decide"),
        ("/api/resume".to_owned(), json!({"prompt": "team-a/p"}), "decide"),
        ("/api/import".to_owned(), json!({"pattern": "team-a/p"}), "admin"),
        ("/api/drill".to_owned(), json!({"prompt": "team-a/p"}), "admin"),
        ("/-/reload".to_owned(), json!({}), "admin"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_token_may_do_what_its_roles_allow_and_no_more() -> Result<()> {
    let world = World::with(&[&TOKENS[..], &[("GUARDS__MODE", "dry-run")]].concat()).await?;
    let whole = with(&world, "whole-token");
    ship(&whole, "team-a/p").await?;
    let opened: Value = world.receiver.deliver(&[critical("team-a/p")]).await?.json()?;
    let incident = opened["results"][0]["incident"].as_str().unwrap_or_default().to_owned();
    ensure!(!incident.is_empty(), "{opened}");
    let roles = [("token-of-wall", &[][..]), ("token-of-ci", &["deploy"]), ("token-of-ops", &["deploy", "decide"])];
    for (token, roles) in roles {
        let http = with(&world, token);
        for path in ["/api/prompts", "/api/prompts/team-a%2Fp", "/api/prompts/team-a%2Fp/log", "/api/incidents"] {
            ensure!(http.get(path).await?.status == 200, "{token} reads {path}");
        }
        for (path, body, role) in actions(&incident) {
            let answer = http.post_json(&path, &body).await?;
            let allowed = roles.contains(&role);
            ensure!(
                (code(&answer) != "403 not_allowed") == allowed,
                "{token} {path}: {} {}",
                answer.status,
                answer.text()
            );
            ensure!(answer.status < 500, "{token} {path}: {}", answer.text());
        }
    }
    for (path, body, _) in actions(&incident) {
        let answer = with(&world, "token-of-boss").post_json(&path, &body).await?;
        ensure!(code(&answer) != "403 not_allowed", "{path}: {}", answer.text());
    }
    let refused = with(&world, "token-of-ci").post_json("/api/rollback", &json!({"prompt": "team-a/p"})).await?;
    let message = refused.text();
    ensure!(message.contains("ci has the role deploy, and this requires decide"), "{message}");
    ensure!(!message.contains("token-of"), "{message}");
    let metrics = world.http().get("/metrics").await?.text();
    ensure!(metrics.contains("prompt_rollback_refused_requests_total{reason=\"not_allowed\"}"), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_names_the_token_and_the_person_whom_it_names() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&with(&world, "whole-token"), "team-a/p").await?;
    let activate = |token: &str, version: &str, operator: Option<&str>| {
        let body = json!({"version": version, "operator": operator, "force": true});
        let http = with(&world, token);
        async move { http.post_json("/api/prompts/team-a%2Fp/activate", &body).await }
    };
    ensure!(activate("token-of-ci", "v1", None).await?.status == 200);
    ensure!(activate("token-of-ops", "v2", Some("maya")).await?.status == 200);
    ensure!(activate("whole-token", "v1", Some("maya")).await?.status == 200);
    let log = world.log("team-a/p").await?;
    let operators: Vec<&str> =
        log.iter().rev().take(3).rev().filter_map(|entry| Some(entry.get("operator")?.as_str())).collect();
    assert_eq!(operators, ["ci", "maya (ops)", "maya (api)"]);
    let decide = json!({"decision": "dismiss"});
    let unnamed =
        with(&world, "whole-token").post_json("/api/incidents/01ARZ3NDEKTSV4RRFFQ69G5FAV/decide", &decide).await?;
    ensure!(unnamed.status == 400 && unnamed.text().contains("operator"), "{}", unnamed.text());
    let named =
        with(&world, "token-of-ops").post_json("/api/incidents/01ARZ3NDEKTSV4RRFFQ69G5FAV/decide", &decide).await?;
    ensure!(named.status == 404, "a named token needs no operator: {}", named.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_sees_its_own_prompts_alone() -> Result<()> {
    let world = World::with(&[&TOKENS[..], &[("GUARDS__MODE", "dry-run")]].concat()).await?;
    let whole = with(&world, "whole-token");
    for prompt in ["team-a/p", "team-b/q"] {
        ship(&whole, prompt).await?;
    }
    let opened: Value = world.receiver.deliver(&[critical("team-a/p"), critical("team-b/q")]).await?.json()?;
    let incident = |at: usize| opened["results"][at]["incident"].as_str().unwrap_or_default().to_owned();
    let ci = with(&world, "token-of-ci");
    for path in ["/api/prompts", "/api/incidents"] {
        let (all, own) = (whole.get(path).await?.text(), ci.get(path).await?.text());
        ensure!(all.contains("team-b/q") && all.contains("team-a/p"), "{path}: {all}");
        ensure!(!own.contains("team-b") && own.contains("team-a/p"), "{path}: {own}");
    }
    let other = incident(1);
    for path in [
        "/api/prompts/team-b%2Fq".to_owned(),
        "/api/prompts/team-b%2Fq/log".to_owned(),
        "/api/prompts/team-b%2Fq/explain".to_owned(),
        "/api/prompts/team-b%2Fq/gates?version=v1".to_owned(),
        "/api/report".to_owned(),
    ] {
        let answer = ci.get(&path).await?;
        assert_eq!(code(&answer), "403 not_allowed", "{path}: {}", answer.text());
    }
    for path in [format!("/api/incidents/{other}"), format!("/api/incidents/{other}/postmortem")] {
        assert_eq!(code(&ci.get(&path).await?), "404 unknown_incident", "{path}");
    }
    // nothing tells a hidden incident from one that does not exist
    for path in ["/api/incidents/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/incidents/01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
        ensure!(ci.get(path).await?.status == 404, "{path}");
    }
    ensure!(ci.get(&format!("/api/incidents/{}", incident(0))).await?.status == 200);
    // nor by what a list leaves out, nor as the incident of a mark
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Value = ci.get(&format!("/api/log?limit=1&since=1h{cursor}")).await?.json()?;
        seen.push(page.to_string());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={}", encode(next));
    }
    seen.push(ci.get("/api/prompts?limit=1").await?.text());
    // a page is full, and its cursor is an incident that this token sees
    ship(&whole, "team-b/r").await?;
    world.receiver.deliver(&[critical("team-b/r")]).await?;
    let page: Value = ci.get("/api/incidents?limit=1").await?.json()?;
    let (found, own) = (&page["incidents"][0]["id"], json!(incident(0)));
    // whether an older one follows is not known yet: incidents of one delivery have no order
    ensure!(*found == own && (page["next"].is_null() || page["next"] == own), "{page}");
    seen.push(ci.get("/api/log?since=1h&limit=1&cursor=team-b%2Fq%40%2B").await?.text());
    ensure!(seen.iter().all(|page| !page.contains("team-b")), "{seen:?}");
    let mark = json!({"mark": "bad", "reason": "r", "incident": other});
    let answer = whole.post_json("/api/prompts/team-a%2Fp/versions/v1/mark", &mark).await?;
    assert_eq!(code(&answer), "404 unknown_incident");
    let answer = ci.post_json("/api/prompts/team-b%2Fq/activate", &json!({"version": "v1"})).await?;
    assert_eq!(code(&answer), "403 not_allowed");
    let everything = with(&world, "token-of-ops").post_json("/api/pause", &json!({})).await?;
    ensure!(everything.status == 200, "{}", everything.text());
    // both spellings of a name mean the same prompt
    let other = json!({"version": "v1", "known_good": true});
    ensure!(whole.post_json("/api/prompts/team-b%20%26%20c/versions", &other).await?.status == 201);
    for path in ["/api/prompts/team-b%20%26%20c", "/api/prompts/team-b%2520%2526%2520c", "/prompts/team-b%20%26%20c"] {
        ensure!(whole.get(path).await?.status == 200, "{path}");
        ensure!(ci.get(path).await?.status == 403, "{path}");
    }
    // another's change shortly before is not shown either
    let own = ci.get("/api/prompts/team-a%2Fp").await?.text();
    ensure!(!own.contains("team-b"), "{own}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_proxy_names_people_and_only_its_own_page_acts_for_them() -> Result<()> {
    let proxied = [
        ("PROXY__ADDRESSES", "127.0.0.0/8"),
        ("PROXY__HOSTS", "127.0.0.1"),
        ("PROXY__ROLES", "decide"),
        ("PROXY__PROMPTS", "team-a/*"),
    ];
    let world = World::with(&[&TOKENS[..], &proxied].concat()).await?;
    for prompt in ["team-a/p", "team-b/q"] {
        ship(&with(&world, "whole-token"), prompt).await?;
    }
    let maya = world.http().clone().header("x-forwarded-user", "maya@example.com");
    ensure!(maya.get("/api/prompts/team-a%2Fp").await?.status == 200);
    assert_eq!(code(&maya.get("/api/prompts/team-b%2Fq").await?), "403 not_allowed");
    let pause = json!({"prompt": "team-a/p", "operator": "somebody else"});
    assert_eq!(code(&maya.post_json("/api/pause", &pause).await?), "403 cross_site", "a browser names the origin");
    let foreign = maya.clone().header("origin", "https://evil.example");
    assert_eq!(code(&foreign.post_json("/api/pause", &pause).await?), "403 cross_site");
    let foreign = maya.clone().header("sec-fetch-site", "cross-site");
    assert_eq!(code(&foreign.post_json("/api/pause", &pause).await?), "403 cross_site");
    let own = maya.clone().header("sec-fetch-site", "same-origin");
    assert_eq!(code(&own.post_json("/api/pause", &pause).await?), "403 cross_site", "no token of the page");
    let of_pete = world.http().clone().header("x-forwarded-user", "pete@example.com").get("/").await?.text();
    let of_pete = own.clone().header("x-csrf-token", csrf(&of_pete)?);
    assert_eq!(code(&of_pete.post_json("/api/pause", &pause).await?), "403 cross_site", "the page of another person");
    let page = maya.get("/").await?.text();
    ensure!(!page.contains("Sign out"), "the proxy signs people out: {page}");
    let csrf = csrf(&page)?;
    ensure!(foreign.clone().header("x-csrf-token", csrf.clone()).post_json("/api/pause", &pause).await?.status == 403);
    let (maya, own) = (maya.header("x-csrf-token", csrf.clone()), own.header("x-csrf-token", csrf));
    ensure!(own.post_json("/api/pause", &pause).await?.status == 200);
    let behind =
        maya.clone().header("origin", "https://rollback.example").header("x-forwarded-host", "rollback.example");
    ensure!(behind.post_json("/api/resume", &json!({"prompt": "team-a/p"})).await?.status == 200);
    let rollback = json!({"prompt": "team-a/p", "target_version": "v1", "force": true, "operator": "somebody else"});
    let answer = own.post_json("/api/rollback", &rollback).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let log = world.log("team-a/p").await?;
    let operator = log.last().and_then(|entry| entry.get("operator")).map(String::as_str);
    assert_eq!(operator, Some("maya@example.com (proxy)"));
    for name in ["", "system", "External", "a\u{e9}"] {
        let answer = world.http().clone().header("x-forwarded-user", name).get("/api/prompts").await?;
        ensure!(answer.status == 401, "{name:?}: {}", answer.text());
        // a person cannot see what the proxy sends
        let page = world.http().clone().header("x-forwarded-user", name).get("/").await?.text();
        ensure!(page.contains("expected one name of a person in the header X-Forwarded-User"), "{name:?}: {page}");
    }

    let renamed = [("PROXY__ADDRESSES", "127.0.0.1"), ("PROXY__HOSTS", "rollback.example")];
    let renamed = World::with(&[&TOKENS[..], &renamed].concat()).await?;
    let answer = renamed.http().clone().header("x-forwarded-user", "maya").get("/api/prompts").await?;
    assert_eq!(code(&answer), "403 cross_site", "another name leads here");

    let elsewhere =
        World::with(&[&TOKENS[..], &[("PROXY__ADDRESSES", "192.0.2.1"), ("PROXY__HOSTS", "127.0.0.1")]].concat())
            .await?;
    let answer = elsewhere.http().clone().header("x-forwarded-user", "maya").get("/api/prompts").await?;
    ensure!(answer.status == 401, "{}", answer.text());
    Ok(())
}
