//! When the page is live, when it says that it is not, and what it holds open.

use anyhow::{Result, ensure};
use prompt_rollback_testkit::eventually;
use serde_json::json;

use super::{LIVE, Person, TOKENS, ops};
use crate::common::{SOON, World, ship};

/// What a browser tells a page that somebody leaves for another tab, or returns to.
fn is_now(state: &str) -> String {
    format!(
        "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }}); \
         document.dispatchEvent(new Event('visibilitychange'))",
        state == "hidden"
    )
}

/// The streams that the receiver serves.
async fn streams(world: &World, expected: &str) -> Result<()> {
    let expected = format!("prompt_rollback_event_streams {expected}");
    eventually(&expected, SOON, async || {
        let metrics = world.http().get("/metrics").await.ok()?.text();
        metrics.lines().any(|line| line == expected).then_some(())
    })
    .await
}

/// Browsers allow six connections to one address, for all tabs together.
#[tokio::test]
async fn a_tab_in_the_background_leaves_its_connection_to_others() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    streams(&world, "1").await?;
    maya.browser.eval(&is_now("hidden")).await?;
    streams(&world, "0").await?;
    ship(&ops(&world), "p").await?;
    ensure!(!maya.text().await?.contains("v2"));
    maya.browser.eval(&is_now("visible")).await?;
    maya.sees_served("v2").await?;
    maya.is_live().await?;
    streams(&world, "1").await?;
    maya.is_clean()
}

/// A stream that the test ends, fills and keeps silent, and a clock that runs a hundred times as fast.
const STAGED: &str = "
    window.streams = [];
    window.EventSource = class extends EventTarget {
        constructor() { super(); this.readyState = 1; streams.push(this); }
        close() { this.readyState = 2; }
        hear(name) { this.dispatchEvent(new Event(name)); }
    };
    const later = window.setTimeout;
    window.setTimeout = (then, time) => later(then, time / 100);
    true";
const STATE: &str = "document.querySelector('#live').textContent";

#[tokio::test]
async fn the_page_is_live_only_while_it_hears_something() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.browser.eval(&is_now("hidden")).await?;
    maya.browser.eval(STAGED).await?;
    maya.browser.eval(&is_now("visible")).await?;
    // a proxy that buffers passes the head of the answer on, and nothing of its body
    maya.browser.eval("streams.at(-1).hear('open')").await?;
    assert_eq!(maya.browser.eval(STATE).await?, "Not live");
    maya.browser.until("another attempt", SOON, "streams.length > 2").await?;
    assert_eq!(maya.browser.eval("streams.filter(stream => stream.readyState === 1).length").await?, 1);
    // its content is read without news
    ship(&ops(&world), "p").await?;
    maya.sees_served("v2").await?;
    assert_eq!(maya.browser.eval(STATE).await?, "Not live");

    // the state right after each event, before the next timer
    for (heard, state) in [
        ("resync", "Live"),
        ("stale", "Redis cannot be reached"),
        ("keep-alive", "Redis cannot be reached"),
        ("resync", "Live"),
        ("keep-alive", "Live"),
    ] {
        let after = format!("streams.at(-1).hear('{heard}'); {STATE}");
        assert_eq!(maya.browser.eval(&after).await?, state, "{heard}");
    }
    maya.browser.until("silence is noticed", SOON, &format!("{STATE} === 'Not live'")).await?;
    ensure!(maya.browser.eval(LIVE).await? == json!(false));
    maya.is_clean()
}

/// What concerns all prompts is read once a second, for all pages: perhaps just before the news.
#[tokio::test]
async fn a_pause_of_all_prompts_appears_although_somebody_has_just_looked() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.sees_served("v2").await?;
    for round in 0..3 {
        for (path, is_paused) in [("/api/pause", true), ("/api/resume", false)] {
            ensure!(ops(&world).get("/").await?.status == 200);
            let answer = ops(&world).post_json(path, &json!({"operator": "dana"})).await?;
            ensure!(answer.status == 200, "{}", answer.text());
            let shown =
                format!("document.body.innerText.includes('Automation is paused for all prompts') === {is_paused}");
            maya.browser.until(&format!("{path} {round}"), SOON, &shown).await?;
        }
    }
    maya.is_clean()
}

/// Streams that the test fills, and how long each named timer waits. The others are left out: on a busy machine, a page
/// that heard nothing for seconds would also look.
const RECORDED: &str = "
    window.streams = [];
    window.EventSource = class extends EventTarget {
        constructor() { super(); this.readyState = 1; streams.push(this); }
        close() { this.readyState = 2; }
    };
    const [later, cancel, timers] = [window.setTimeout, window.clearTimeout, new Map()];
    window.setTimeout = (then, wait) => {
        if (!then.name) return 0;
        const id = later(() => { timers.delete(id); then(); }, wait);
        timers.set(id, [then.name, Date.now() + wait]);
        return id;
    };
    window.clearTimeout = (id) => { timers.delete(id); cancel(id); };
    window.hear = (name, data) => {
        streams.at(-1).dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) }));
        return [...timers.values()].map(([name, due]) => [name, due - Date.now()]);
    };
    window.looks = 0;
    const ask = window.fetch;
    window.fetch = async (...args) => { const answer = await ask(...args); looks += 1; return answer; };
    Math.random = () => 0.5;
    true";

impl Person {
    /// Leaves the page and returns, which makes it look.
    async fn has_looked(&mut self) -> Result<()> {
        self.browser.eval(&is_now("hidden")).await?;
        self.browser.eval("looks = 0").await?;
        self.browser.eval(&is_now("visible")).await?;
        self.browser.until("it has looked", SOON, "looks > 0").await.map(drop)
    }

    /// How long the timers of `name` wait, in ms, after an event.
    async fn waits(&mut self, name: &str, event: &str, data: &str) -> Result<Vec<f64>> {
        let timers = self.browser.eval(&format!("hear('{event}', {data})")).await?;
        let timers: Vec<(String, f64)> = serde_json::from_value(timers)?;
        Ok(timers.into_iter().filter(|(of, _)| of == name).map(|(_, wait)| wait).collect())
    }
}

/// A person at the live page of a prompt whose timers are recorded.
async fn recorded(world: &World) -> Result<Person> {
    ship(&ops(world), "p").await?;
    let mut maya = Person::signed_in(world, "token-of-ops", "maya").await?;
    maya.goto("/prompts/p").await?;
    maya.is_live().await?;
    maya.browser.eval(RECORDED).await?;
    maya.has_looked().await?;
    Ok(maya)
}

#[tokio::test]
async fn a_page_looks_at_once_and_for_the_changes_of_other_prompts_later() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let mut maya = recorded(&world).await?;
    let other = maya.waits("look", "change", "{prompt: 'q'}").await?;
    ensure!(other.len() == 1 && other[0] > 29_000.0, "{other:?}");
    for (event, data) in [("change", "{prompt: 'p'}"), ("resync", "{}")] {
        maya.has_looked().await?;
        let own = maya.waits("look", event, data).await?;
        ensure!(own.len() == 1 && own[0] <= 1_000.0, "{event}: {own:?}");
    }
    maya.has_looked().await?;
    let spread = maya.waits("look", "change", "{prompt: 'p', spread: 8000}").await?;
    ensure!(spread.len() == 1 && (4_000.0..=8_000.0).contains(&spread[0]), "{spread:?}");
    maya.has_looked().await?;
    maya.browser.eval("window.real = Date.now; Date.now = () => real() + 60000; true").await?;
    let quiet = maya.waits("look", "change", "{prompt: 'p'}").await?;
    ensure!(quiet.len() == 1 && quiet[0] <= 0.0, "nothing has changed for long: {quiet:?}");
    maya.is_clean()
}

/// A proxy that does not reach one of two receivers, while the other one serves the stream.
#[tokio::test]
async fn a_page_that_got_the_error_of_a_proxy_looks_again() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let mut maya = recorded(&world).await?;
    let staged = "window.real = fetch; window.fetch = async () => { window.fetch = real; looks += 1; \
                  return new Response('<h1>502 Bad Gateway</h1>', { status: 502 }); }; looks = 0; true";
    maya.browser.eval(staged).await?;
    maya.waits("look", "change", "{prompt: 'p'}").await?;
    maya.browser.until("a look that reaches the receiver", SOON, "looks > 1").await?;
    maya.is_clean()
}

/// What concerns all prompts is read once a second, for all pages.
#[tokio::test]
async fn the_list_of_prompts_looks_again_if_its_order_is_older_than_the_news() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.browser.eval(RECORDED).await?;
    maya.has_looked().await?;
    // the order of the next answer was read long before
    let aged = "window.isAged = true; window.real = fetch; window.fetch = async (...args) => { \
                const text = (await (await real(...args)).text()).replace(/ data-age=\"[0-9]+\"/, ''); \
                const shown = isAged ? text.replace('<body', '<body data-age=\"5000\"') : text; isAged = false; \
                return new Response(shown, { status: 200 }); }; looks = 0; true";
    maya.browser.eval(aged).await?;
    let first = maya.waits("look", "change", "{prompt: 'q'}").await?;
    ensure!(first.len() == 1 && first[0] <= 1_000.0, "{first:?}");
    maya.browser.until("a second look", SOON, "looks >= 2").await?;
    maya.is_clean()
}

/// A reader's clock may be wrong.
#[tokio::test]
async fn distances_follow_the_clock_of_the_receiver() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.sees_served("v2").await?;
    maya.browser.eval("window.real = Date.now; Date.now = () => real() + 600000; true").await?;
    ship(&ops(&world), "q").await?;
    let told = "document.querySelector('[data-key=q] [data-at]')?.textContent";
    let told = maya.browser.until("the new prompt", SOON, told).await?;
    ensure!(told.as_str().is_some_and(|told| told.ends_with(" s ago")), "{told}");
    maya.is_clean()
}

#[tokio::test]
async fn a_page_of_another_release_reloads_at_most_once_a_minute() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    for selector in ["head script", "link[rel=stylesheet]"] {
        let other = format!(
            "window.isSame = true; document.querySelector('{selector}').setAttribute('data-release', 'another'); true"
        );
        maya.browser.eval(&other).await?;
        let prompt = if selector == "head script" { "p" } else { "q" };
        ship(&ops(&world), prompt).await?;
        maya.sees(prompt).await?;
        ensure!(maya.browser.eval("window.isSame").await? == json!(true), "{selector}: the minute is not over");
        maya.browser.eval("performance.now = () => 61000; true").await?;
        ship(&ops(&world), &format!("{prompt}-2")).await?;
        maya.browser.until(&format!("{selector}: loaded again"), SOON, &format!("!window.isSame && {LIVE}")).await?;
    }
    maya.is_clean()
}

/// Nothing is committed when a cooldown ends.
#[tokio::test]
async fn a_hold_that_ends_by_time_ends_on_an_open_page() -> Result<()> {
    let world = World::with(&[TOKENS.as_slice(), &[("GUARDS__COOLDOWN", "5s")]].concat()).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    for (path, body) in [
        ("/api/prompts/p/versions", json!({"version": "v3"})),
        ("/api/prompts/p/activate", json!({"version": "v3"})),
        ("/api/rollback", json!({"prompt": "p", "target_version": "v2", "force": true})),
    ] {
        let answer = ops(&world).post_json(path, &body).await?;
        ensure!(answer.status < 300, "{path}: {}", answer.text());
    }
    maya.sees("cooldown").await?;
    let over = "!document.querySelector('main').innerText.includes('cooldown')";
    maya.browser.until("the hold is over", SOON, over).await?;
    maya.is_clean()
}

#[tokio::test]
async fn a_search_starts_no_second_round_and_a_hidden_tab_asks_for_nothing() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.sees_served("v2").await?;
    // each answer asks to look again in 3 s
    let asks = "window.real = fetch; window.heard = 0; window.fetch = async (path, options) => { heard += 1; \
                const text = (await (await real(path, options)).text()).replace('<main', '<main data-again=\"3\"'); \
                return new Response(text, { status: 200 }); }; true";
    maya.browser.eval(asks).await?;
    let edit = "document.querySelector('form[data-filter] input').dispatchEvent(new Event('input', { bubbles: true }))";
    for looked in 1..5 {
        maya.browser.eval(edit).await?;
        maya.browser.until("it has looked", SOON, &format!("heard >= {looked}")).await?;
    }
    // how many timers renew themselves, which are set for 3 s later
    let timers = "window.timers = 0; window.later = setTimeout; window.setTimeout = (run, wait) => { \
                  if (wait > 2000) timers += 1; return later(run, wait); }; heard = 0; true";
    maya.browser.eval(timers).await?;
    maya.browser.until("three rounds", SOON, "heard >= 3").await?;
    let planned = maya.browser.eval("timers").await?.as_u64().unwrap_or_default();
    ensure!(planned <= 4, "{planned} timers in three rounds");
    maya.browser.eval(&is_now("hidden")).await?;
    maya.browser.eval("timers = 0; heard = 0; later(() => { window.over = true; }, 7000); true").await?;
    maya.browser.until("seven seconds", SOON, "window.over").await?;
    let heard = maya.browser.eval("heard").await?;
    ensure!(heard.as_u64().is_some_and(|heard| heard <= 1), "a hidden tab asks: {heard}");
    Ok(())
}
