//! Each state of the page, judged by axe-core: `make accessibility`.

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::Redis;
use serde_json::{Value, json};

use super::{Person, TOKENS, opened, ops};
use crate::common::{SOON, World, alert, critical, deliver, ship};

/// What axe-core finds on the page as it is, from `serious` on.
async fn judged(person: &mut Person, axe: &str) -> Result<Vec<String>> {
    person.browser.eval(&format!("{axe}; true")).await?;
    let found = person
        .browser
        .eval(
            "axe.run().then(found => [found.passes.length, found.violations.flatMap(one => one.nodes.map(node => \
             [one.impact, one.id, one.help, node.target.join(' '), node.html.slice(0, 200)].join(' | ')))])",
        )
        .await?;
    ensure!(found[0].as_u64().is_some_and(|rules| rules > 15), "{found}: few rules apply");
    let found = found[1].as_array().context("a list")?.iter().filter_map(Value::as_str);
    let is_serious = |one: &&str| one.starts_with("serious") || one.starts_with("critical");
    let (serious, lesser): (Vec<&str>, Vec<&str>) = found.partition(is_serious);
    for one in lesser {
        eprintln!("{one}");
    }
    Ok(serious.into_iter().map(str::to_owned).collect())
}

#[tokio::test]
#[ignore = "needs axe-core: make accessibility"]
async fn axe_core_finds_nothing_serious_on_any_page() -> Result<()> {
    let axe = std::env::var("AXE_CORE").context("AXE_CORE: the path of axe.min.js")?;
    let axe = std::fs::read_to_string(&axe).with_context(|| axe.clone())?;
    let mut world = World::on(Redis::builder().appendonly().start()?, &TOKENS).await?;
    let ops = ops(&world);
    for prompt in ["asked", "flipped", "paused", "dismissed"] {
        ship(&ops, prompt).await?;
    }
    let asked = opened(&deliver(&ops, &[alert("asked", "v2", "high")]).await?)?;
    let flipped = opened(&deliver(&ops, &[critical("flipped")]).await?)?;
    let dismissed = opened(&deliver(&ops, &[alert("dismissed", "v2", "high")]).await?)?;
    for (path, body) in [
        (format!("/api/incidents/{dismissed}/decide"), json!({"decision": "dismiss", "operator": "pete"})),
        ("/api/pause".to_owned(), json!({"prompt": "paused", "operator": "dana", "reason": "launch"})),
        (
            "/api/prompts/canary/versions".to_owned(),
            json!({"version": "v1", "known_good": true, "content": "Be kind."}),
        ),
        ("/api/prompts/canary/activate".to_owned(), json!({"version": "v1"})),
        ("/api/prompts/canary/versions".to_owned(), json!({"version": "v2", "content": "Be kinder."})),
        ("/api/prompts/canary/activate".to_owned(), json!({"version": "v2", "canary": true, "operator": "mia"})),
    ] {
        let answer = ops.post_json(&path, &body).await?;
        ensure!(answer.status < 300, "{path}: {}", answer.text());
    }
    let mut wrong = Vec::new();
    let mut stranger = Person::at(&world, "/").await?;
    wrong.extend(judged(&mut stranger, &axe).await?.into_iter().map(|found| format!("sign-in: {found}")));
    stranger.browser.click("#token").await?;
    stranger.browser.type_text("wrong").await?;
    stranger.browser.click_label("Sign in").await?;
    stranger.browser.until("a fault", SOON, "document.querySelector('#fault')").await?;
    wrong.extend(judged(&mut stranger, &axe).await?.into_iter().map(|found| format!("refused: {found}")));
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    let incidents = [&asked, &flipped, &dismissed].map(|id| format!("/incidents/{id}?draft=true"));
    let fixed = [
        "/",
        "/?state=paused",
        "/?search=none",
        "/prompts/canary",
        "/prompts/asked",
        "/incidents",
        "/rollouts",
        "/nowhere",
    ];
    for (dark, width) in [(false, 1400), (true, 1400), (false, 390), (true, 390)] {
        maya.browser.prefer_dark(dark).await?;
        maya.browser.resize(width, 844, width < 500).await?;
        let look = format!("{} at {width}", if dark { "dark" } else { "light" });
        for path in fixed.into_iter().chain(incidents.iter().map(String::as_str)) {
            maya.goto(path).await?;
            wrong.extend(judged(&mut maya, &axe).await?.into_iter().map(|found| format!("{path}, {look}: {found}")));
        }
        maya.goto(&incidents[0]).await?;
        maya.browser.click_label("Mark a version").await?;
        wrong.extend(judged(&mut maya, &axe).await?.into_iter().map(|found| format!("marks, {look}: {found}")));
        maya.browser.click_label("Approve rollback").await?;
        maya.browser.until("the question", SOON, "document.querySelector('#question').open").await?;
        wrong.extend(judged(&mut maya, &axe).await?.into_iter().map(|found| format!("question, {look}: {found}")));
    }
    world.redis.stop()?;
    maya.goto("/").await?;
    maya.sees("Not available now").await?;
    wrong.extend(judged(&mut maya, &axe).await?.into_iter().map(|found| format!("without Redis: {found}")));
    wrong.sort();
    wrong.dedup();
    ensure!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}
