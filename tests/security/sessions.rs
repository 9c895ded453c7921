//! Signing in to the page: what a session may do, what ends it, and what other sites cannot do with it.

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::http::{Answer, Http};
use serde_json::json;

use crate::common::{Redis, SOON, World, critical, eventually, process, ship};

const TOKENS: [(&str, &str); 6] = [
    ("TOKENS__OPS__TOKEN", "token-of-ops"),
    ("TOKENS__OPS__ROLES", "deploy,decide"),
    ("TOKENS__WALL__TOKEN", "token-of-wall"),
    ("TOKENS__WALL__ROLES", "read"),
    ("TOKENS__WALL__PROMPTS", "team-a/*"),
    ("GUARDS__MODE", "dry-run"),
];

/// As a browser sends the form of the receiver's own page.
async fn sign_in(http: &Http, form: &str) -> Result<Answer> {
    http.clone().header("sec-fetch-site", "same-origin").post_form("/login", form.to_owned()).await
}

/// The cookie that a browser then sends.
fn cookie(answer: &Answer) -> Result<String> {
    ensure!(answer.status == 303, "{} {}", answer.status, answer.text());
    Ok(answer.header("set-cookie").split(';').next().context("a cookie")?.to_owned())
}

async fn session(http: &Http, form: &str) -> Result<Http> {
    Ok(http.clone().header("cookie", cookie(&sign_in(http, form).await?)?))
}

/// What the actions of this page must carry.
pub fn csrf(page: &str) -> Result<String> {
    let rest = page.split_once("name=\"csrf-token\" content=\"").context("a token")?.1;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_signs_in_acts_by_name_and_other_sites_cannot_act() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let ops = world.http().clone().token("token-of-ops");
    ship(&ops, "team-a/p").await?;
    let refused = world.http().get("/prompts/team-a%2Fp?x=1").await?;
    ensure!(refused.status == 401 && refused.text().contains("action=\"/login\""), "{}", refused.text());
    ensure!(refused.text().contains("value=\"/prompts/team-a%2Fp?x=1\""), "{}", refused.text());
    ensure!(!refused.text().contains("v2"), "{}", refused.text());
    ensure!(refused.header("content-security-policy").contains("frame-ancestors 'none'"));

    let form = "token=token-of-ops&name=maya&next=%2Fprompts%2Fteam-a%252Fp";
    let answer = sign_in(world.http(), form).await?;
    assert_eq!((answer.status, answer.header("location")), (303, "/prompts/team-a%2Fp"));
    let set = answer.header("set-cookie");
    ensure!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Max-Age=43200"), "{set}");
    ensure!(!set.contains("token-of-ops"), "{set}");
    let maya = world.http().clone().header("cookie", cookie(&answer)?);
    let page = maya.get("/prompts/team-a%2Fp").await?;
    ensure!(page.status == 200 && page.text().contains("maya"), "{}", page.text());
    let csrf = csrf(&page.text())?;

    let pause = json!({ "prompt": "team-a/p", "operator": "somebody else" });
    let own = || maya.clone().header("sec-fetch-site", "same-origin");
    for (what, http) in [
        ("no CSRF token", own()),
        ("another CSRF token", own().header("x-csrf-token", "x")),
        ("another site", maya.clone().header("x-csrf-token", csrf.clone()).header("sec-fetch-site", "cross-site")),
        (
            "an older browser on another site",
            maya.clone().header("x-csrf-token", csrf.clone()).header("origin", "null"),
        ),
        ("no browser", maya.clone().header("x-csrf-token", csrf.clone())),
    ] {
        let answer = http.post_json("/api/pause", &pause).await?;
        ensure!(answer.status == 403 && answer.text().contains("cross_site"), "{what}: {}", answer.text());
    }
    let answer = own().header("x-csrf-token", csrf.clone()).post_json("/api/pause", &pause).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let rollback = json!({ "prompt": "team-a/p", "force": true, "operator": "somebody else" });
    let answer = own().header("x-csrf-token", csrf).post_json("/api/rollback", &rollback).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let log = world.log("team-a/p").await?;
    let operator = log.last().and_then(|entry| entry.get("operator")).map(String::as_str);
    assert_eq!(operator, Some("maya (ops)"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_a_cookie_of_another_site_of_the_domain_is_no_session() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let encrypted = world.http().clone().header("x-forwarded-proto", "https");
    let answer = sign_in(&encrypted, "token=token-of-ops&name=maya").await?;
    let set = answer.header("set-cookie");
    ensure!(set.starts_with("__Host-prompt_rollback_session=") && set.contains("; Path=/;"), "{set}");
    ensure!(set.ends_with("; Secure") && !set.contains("Domain"), "{set}");
    let own = cookie(&answer)?;
    let planted = own.replace("__Host-", "");
    for (given, status) in [(own, 200), (planted, 401)] {
        let answer = encrypted.clone().header("cookie", given.clone()).get("/").await?;
        ensure!(answer.status == status, "{given}: {}", answer.status);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_its_prompts_and_no_buttons() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let ops = world.http().clone().token("token-of-ops");
    for prompt in ["team-a/p", "team-b/q"] {
        ship(&ops, prompt).await?;
    }
    let opened = world.receiver.deliver(&[critical("team-a/p"), critical("team-b/q")]).await?.json()?;
    let incident = |at: usize| format!("/incidents/{}", opened["results"][at]["incident"].as_str().unwrap_or_default());
    let wall = session(world.http(), "token=token-of-wall&name=").await?;
    let boss = session(world.http(), "token=token-of-ops&name=").await?;
    for path in ["/", "/incidents", "/rollouts"] {
        let page = wall.get(path).await?;
        ensure!(page.status == 200 && !page.text().contains("team-b"), "{path}: {}", page.text());
    }
    ensure!(wall.get("/").await?.text().contains("team-a/p") && boss.get("/").await?.text().contains("team-b/q"));
    for path in ["/prompts/team-b%2Fq".to_owned(), incident(1), format!("{}/picture.svg", incident(1))] {
        let page = wall.get(&path).await?;
        ensure!(
            [403, 404].contains(&page.status) && !page.text().contains("v2"),
            "{path}: {} {}",
            page.status,
            page.text()
        );
    }
    for path in ["/prompts/team-a%2Fp".to_owned(), incident(0)] {
        let (reader, decider) = (wall.get(&path).await?.text(), boss.get(&path).await?.text());
        // but for signing out
        ensure!(reader.matches("data-method").count() == 1, "{path}: {reader}");
        ensure!(decider.matches("data-method").count() > 1, "{path}: {decider}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_right_token_signs_in_and_leads_nowhere_else() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    for form in ["", "token=", "token=wrong", "token=token-of-op", "name=token-of-ops", "token=token-of-ops%00"] {
        let answer = sign_in(world.http(), form).await?;
        ensure!(answer.status == 401 && answer.header("set-cookie").is_empty(), "{form}: {}", answer.text());
        ensure!(answer.text().contains("action=\"/login\""), "{form}: {}", answer.text());
    }
    // what was typed and where it should lead are still there; the token is not
    let again = sign_in(world.http(), "token=wr0ng&name=maya&next=%2Fprompts%2Fp%3Fx%3D1").await?;
    let form = again.text();
    ensure!(form.contains("value=\"maya\"") && form.contains("value=\"/prompts/p?x=1\""), "{form}");
    ensure!(!form.contains("wr0ng"), "{form}");
    let address = world.http().get("/login").await?;
    assert_eq!((address.status, address.header("location")), (303, "/"));
    let named = sign_in(world.http(), "token=token-of-ops&name=system").await?;
    ensure!(named.status == 400 && named.header("set-cookie").is_empty(), "{}", named.text());
    for next in ["//evil.example", "https://evil.example", "/%5Cevil.example", "%2F%2Fevil.example", ""] {
        let answer = sign_in(world.http(), &format!("token=token-of-ops&next={next}")).await?;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{next}");
    }
    let foreign = world.http().clone().header("origin", "https://evil.example");
    ensure!(foreign.post_form("/login", "token=token-of-ops").await?.status == 403, "another site's form");
    let large = format!("token=token-of-ops&next=/{}", "x".repeat(5_000));
    ensure!(sign_in(world.http(), &large).await?.status == 413);
    // a browser sends no cookie with a link of another site, and asks again by itself
    let linked = world.http().clone().header("sec-fetch-site", "cross-site").get("/incidents").await?;
    assert_eq!((linked.status, linked.header("refresh")), (401, "0"));
    assert_eq!(world.http().get("/incidents").await?.header("refresh"), "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_when_its_token_is_replaced_or_somebody_signs_out() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = process(&redis)
        .file("ops-token", "token-of-ops")
        .config("[tokens.ops]\ntoken_file = \"ops-token\"\nroles = [\"decide\"]\n")
        .start()?;
    let maya = session(&receiver.http(), "token=token-of-ops&name=maya").await?;
    ensure!(maya.get("/").await?.status == 200);
    let answer = maya.clone().header("sec-fetch-site", "same-origin").post("/logout", "{}").await?;
    ensure!(answer.status == 200 && answer.header("set-cookie").contains("Max-Age=0"), "{}", answer.text());
    let foreign = maya.clone().header("sec-fetch-site", "cross-site").post("/logout", "{}").await?;
    ensure!(foreign.status == 403, "{}", foreign.text());
    std::fs::write(receiver.dir().join("ops-token"), "another-token")?;
    eventually("the session has ended", SOON, async || (maya.get("/").await.ok()?.status == 401).then_some(())).await?;
    ensure!(session(&receiver.http(), "token=another-token&name=maya").await?.get("/").await?.status == 200);
    ensure!(!receiver.log().contains("token-of-ops") && !receiver.log().contains("another-token"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_can_be_switched_off_or_have_an_address_of_its_own() -> Result<()> {
    let off = World::with(&[("PAGE__ENABLED", "false")]).await?;
    let described = off.http().get("/openapi.json").await?.json()?;
    let is_described = |path: &str| {
        let of_path = described["paths"][path].as_object();
        of_path.is_some_and(|methods| methods.values().all(|method| method["responses"]["404"].is_object()))
    };
    for path in ["/", "/incidents", "/events", "/assets/page.css"] {
        ensure!(off.http().get(path).await?.status == 404, "{path}");
    }
    ensure!(is_described("/events"));
    ensure!(off.http().get("/api/prompts").await?.status == 200);

    let redis = Redis::start()?;
    let port = prompt_rollback_testkit::free_port();
    let receiver = process(&redis).env("PROMPT_ROLLBACK_PAGE__LISTEN", format!("127.0.0.1:{port}")).start()?;
    let page = Http::new(format!("http://127.0.0.1:{port}"));
    for path in ["/", "/incidents"] {
        let expected = (page.get(path).await?.status, receiver.http().get(path).await?.status);
        assert_eq!(expected, (200, 404), "{path}");
    }
    ensure!(page.get("/api/prompts").await?.status == 200, "its buttons use the API");
    for path in ["/metrics", "/webhooks/alertmanager", "/slack/interactions"] {
        ensure!(page.get(path).await?.status == 404 && is_described(path), "{path}");
    }
    Ok(())
}
