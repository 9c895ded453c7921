//! The receiver's page in a real browser, as people use it.

mod accessibility;
mod buttons;
mod health;
mod live;
mod sign_in;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Browser, Redis};
use serde_json::json;

use crate::common::{Answer, Http, SOON, World, alert, critical, deliver, eventually, ship};

const TOKENS: [(&str, &str); 4] = [
    ("TOKENS__OPS__TOKEN", "token-of-ops"),
    ("TOKENS__OPS__ROLES", "deploy,decide"),
    ("TOKENS__WALL__TOKEN", "token-of-wall"),
    ("TOKENS__WALL__ROLES", "read"),
];
/// An open page takes a change over within a second or two.
const LIVE: &str = "document.querySelector('#live')?.textContent === 'Live'";

/// A person in front of a browser.
struct Person {
    browser: Browser,
    base: String,
}

impl Person {
    /// Opens a page of the receiver.
    async fn at(world: &World, path: &str) -> Result<Self> {
        let base = format!("http://{}", world.receiver.app.address);
        let mut person = Self { browser: Browser::open("about:blank").await?, base };
        person.goto(path).await?;
        Ok(person)
    }

    async fn goto(&mut self, path: &str) -> Result<()> {
        self.browser.goto(&format!("{}{path}", self.base)).await
    }

    /// Signs in with a token, and sees the overview.
    async fn signed_in(world: &World, token: &str, name: &str) -> Result<Self> {
        let mut person = Self::at(world, "/").await?;
        person.sign_in(token, name).await?;
        person.is_live().await?;
        Ok(person)
    }

    /// Ships `p`, has an alert ask about it, signs in and opens the incident.
    async fn asked(world: &World) -> Result<(Self, String)> {
        ship(&ops(world), "p").await?;
        let id = asks(world, "p").await?;
        let mut person = Self::signed_in(world, "token-of-ops", "maya").await?;
        person.goto(&format!("/incidents/{id}")).await?;
        person.is_live().await?;
        Ok((person, id))
    }

    async fn sign_in(&mut self, token: &str, name: &str) -> Result<()> {
        for (field, text) in [("#name", name), ("#token", token)] {
            self.browser.click(field).await?;
            self.browser.type_text(text).await?;
        }
        self.browser.click_label("Sign in").await
    }

    async fn is_live(&mut self) -> Result<()> {
        self.browser.until("the page is live", SOON, LIVE).await.map(drop)
    }

    /// Waits until the overview shows this version of `p` as the served one.
    async fn sees_served(&mut self, version: &str) -> Result<()> {
        let served = format!("document.querySelector('[data-key=p] td code')?.textContent === {}", json!(version));
        self.browser.until(&format!("{version} is served"), SOON, &served).await.map(drop)
    }

    /// Waits for a text on the page.
    async fn sees(&mut self, text: &str) -> Result<()> {
        let found = format!("document.body?.innerText.includes({})", json!(text));
        if let Err(error) = self.browser.until(text, SOON, &found).await {
            anyhow::bail!("{error}\n{}", self.text().await?);
        }
        Ok(())
    }

    async fn text(&mut self) -> Result<String> {
        Ok(self.browser.eval("document.body.innerText").await?.as_str().context("a text")?.to_owned())
    }

    /// The labels of the buttons that can be seen in the page's content.
    async fn buttons(&mut self) -> Result<String> {
        let labels = "[...document.querySelectorAll('main button, main summary')].filter(node => \
                      node.checkVisibility()).map(node => node.innerText.trim()).join()";
        Ok(self.browser.eval(labels).await?.as_str().context("a text")?.to_owned())
    }

    /// The console is silent, and nothing was loaded from another site.
    fn is_clean(&self) -> Result<()> {
        // the sign-in page itself is answered with 401
        let errors: Vec<_> = self.browser.errors().iter().filter(|error| !error.contains("401 (Unauth")).collect();
        ensure!(errors.is_empty(), "{errors:#?}");
        let elsewhere = |url: &&String| !url.starts_with(&self.base) && *url != "about:blank";
        let requests: Vec<_> = self.browser.requests().iter().filter(elsewhere).collect();
        ensure!(requests.is_empty(), "{requests:?}");
        Ok(())
    }
}

fn ops(world: &World) -> Http {
    world.http().clone().token("token-of-ops")
}

async fn asks(world: &World, prompt: &str) -> Result<String> {
    opened(&deliver(&ops(world), &[alert(prompt, "v2", "high")]).await?)
}

/// The incident that a delivery of one alert opened.
fn opened(answer: &Answer) -> Result<String> {
    let answer = answer.json()?;
    Ok(answer["results"][0]["incident"].as_str().with_context(|| format!("{answer}"))?.to_owned())
}

async fn serves(world: &World, prompt: &str, version: &str) -> Result<()> {
    eventually(&format!("{prompt} serves {version}"), SOON, async || {
        (world.active(prompt).await.ok()?.as_deref() == Some(version)).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_person_signs_in_sees_a_question_appear_approves_it_and_undoes_it() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.sees("There are no prompts yet.").await?;
    // a page that was loaded again would have lost this
    maya.browser.eval("window.isSame = true").await?;
    ship(&ops(&world), "team-a/support bot").await?;
    maya.sees("team-a/support bot").await?;
    asks(&world, "team-a/support bot").await?;
    maya.sees("Decision needed").await?;
    ensure!(maya.browser.eval("window.isSame").await? == true, "the page was loaded again");

    maya.browser.click("main a[href^='/incidents/']").await?;
    maya.browser.until("the incident is live", SOON, &format!("{LIVE} && location.pathname !== '/'")).await?;
    assert_eq!(
        maya.buttons().await?,
        "Approve rollback,Approve gradually,Investigate,Dismiss,Mark a version,Pause automation",
        "{}",
        maya.text().await?
    );
    // nothing happens until it is confirmed
    maya.browser.click_label("Approve rollback").await?;
    for part in ["Roll back team-a/support bot?", "From v2 back to v1."] {
        maya.sees(part).await?;
    }
    let focused = maya.browser.eval("document.activeElement.innerText.trim()").await?;
    assert_eq!(focused, "Not now", "the harmless button has the focus");
    maya.browser.press("Escape").await?;
    maya.browser.until("the question is closed", SOON, "!document.querySelector('#question').open").await?;
    serves(&world, "team-a/support%20bot", "v2").await?;

    maya.browser.click_label("Approve rollback").await?;
    maya.browser.click_label("Yes, do it").await?;
    serves(&world, "team-a/support%20bot", "v1").await?;
    maya.sees("maya (ops) rolled v2 back to v1").await?;
    maya.browser.click_label("Undo (re-activate v2)").await?;
    maya.browser.click_label("Yes, do it").await?;
    serves(&world, "team-a/support%20bot", "v2").await?;
    maya.sees("maya (ops)").await?;
    maya.is_clean()
}

#[tokio::test]
async fn a_question_that_is_asked_again_at_once_can_be_answered() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let (mut maya, _) = Person::asked(&world).await?;
    // the browser tells the page that a dialog has closed after it ran what is here
    let twice = "(() => { const button = [...document.querySelectorAll('main button')].find(button => \
                 button.innerText === 'Approve rollback'); button.click(); \
                 document.querySelector('#question').close(); button.click(); return true; })()";
    maya.browser.eval(twice).await?;
    maya.browser.click_label("Yes, do it").await?;
    serves(&world, "p", "v1").await?;
    maya.sees("maya (ops) rolled v2 back to v1").await?;
    maya.is_clean()
}

#[tokio::test]
async fn enter_in_the_reason_confirms_and_the_focus_stays_on_its_version() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let (mut maya, _) = Person::asked(&world).await?;
    // the buttons of two versions differ in their path alone
    maya.browser.eval("document.querySelectorAll('main details').forEach((one) => { one.open = true })").await?;
    let focused = "document.activeElement.dataset.path || ''";
    maya.browser.eval("document.querySelector('button[data-path$=\"/versions/v1/mark\"]').focus()").await?;
    let before = maya.browser.eval(focused).await?;
    for (path, shown) in [("/api/pause", "Resume automation"), ("/api/resume", "Pause automation")] {
        ensure!(ops(&world).post_json(path, &json!({"prompt": "p"})).await?.status == 200);
        maya.sees(shown).await?;
        assert_eq!(maya.browser.eval(focused).await?, before);
    }

    maya.browser.click_label("Pause automation").await?;
    maya.sees("Pause automation of").await?;
    maya.browser.type_text("provider outage").await?;
    maya.browser.press("Enter").await?;
    maya.sees("Resume automation").await?;
    maya.is_clean()
}

#[tokio::test]
async fn an_automatic_rollback_appears_in_an_open_page() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut wall = Person::signed_in(&world, "token-of-wall", "").await?;
    wall.sees("nothing").await?;
    deliver(&ops(&world), &[critical("p")]).await?;
    wall.sees_served("v1").await?;
    // a token that only reads sees no buttons
    assert_eq!(wall.buttons().await?, "");
    wall.browser.click("main a[href^='/incidents/']").await?;
    wall.sees("system rolled v2 back to v1").await?;
    assert_eq!(wall.buttons().await?, "");
    wall.is_clean()
}

#[tokio::test]
async fn a_decision_that_came_first_refuses_the_later_one_with_its_reason() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let (mut maya, id) = Person::asked(&world).await?;
    // while she reads the question, someone else decides
    maya.browser.click_label("Approve rollback").await?;
    maya.sees("From v2 back to v1.").await?;
    let dismiss = json!({"decision": "dismiss", "operator": "pete"});
    let answer = ops(&world).post_json(&format!("/api/incidents/{id}/decide"), &dismiss).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    maya.browser.click_label("Yes, do it").await?;
    maya.browser.until("the refusal", SOON, "document.querySelector('#said.fault')?.innerText").await?;
    maya.sees("pete (ops) dismissed this").await?;
    assert_eq!(maya.buttons().await?, "");
    serves(&world, "p", "v2").await
}

#[tokio::test]
async fn without_redis_the_page_says_so_and_comes_back_live() -> Result<()> {
    let mut world = World::on(Redis::builder().appendonly().start()?, &TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.sees("v2").await?;
    world.redis.stop()?;
    maya.sees("Redis cannot be reached").await?;
    // a page that is opened meanwhile becomes a whole one, too
    let mut late = Person::at(&world, "/").await?;
    late.sees("Sign in").await?;
    late.sign_in("token-of-ops", "dana").await?;
    late.sees("Not available now").await?;
    world.redis.restart()?;
    for person in [&mut maya, &mut late] {
        person.sees("v2").await?;
        person.is_live().await?;
    }
    deliver(&ops(&world), &[critical("p")]).await?;
    for person in [&mut maya, &mut late] {
        person.sees_served("v1").await?;
        ensure!(person.browser.eval("document.querySelectorAll('header nav a').length").await? == 3);
    }
    Ok(())
}

#[tokio::test]
async fn everything_can_be_read_without_scripts_and_with_the_keyboard() -> Result<()> {
    let world = World::start().await?;
    ship(world.http(), "p").await?;
    deliver(world.http(), &[alert("p", "v2", "high")]).await?;
    let mut reader = Person::at(&world, "/").await?;
    reader.is_live().await?;
    // the first stop leads past the navigation
    reader.browser.press("Tab").await?;
    assert_eq!(reader.browser.eval("document.activeElement.textContent").await?, "Skip to the content");
    reader.browser.press("Enter").await?;
    assert_eq!(reader.browser.eval("document.activeElement.id").await?, "main");
    // a prompt, its page and the way back need no mouse
    let on_prompt = "document.activeElement.getAttribute('href') === '/prompts/p'";
    for _ in 0..30 {
        reader.browser.press("Tab").await?;
        if reader.browser.eval(on_prompt).await? == true {
            break;
        }
    }
    assert_eq!(reader.browser.eval(on_prompt).await?, true, "Tab comes to the prompt");
    reader.browser.press("Enter").await?;
    reader.browser.until("the prompt's page", SOON, "location.pathname === '/prompts/p'").await?;

    reader.browser.set_zone("Asia/Tokyo").await?;
    reader.goto("/incidents").await?;
    let times =
        "[...document.querySelectorAll('main time')].map(time => [time.textContent, time.title].join('|')).join()";
    let local = reader.browser.eval(times).await?;
    reader.browser.run_scripts(false).await?;
    for (path, text) in [("/", "Decision needed"), ("/prompts/p", "v2"), ("/incidents", "p"), ("/rollouts", "Rollouts")]
    {
        reader.goto(path).await?;
        reader.sees(text).await?;
        // the form works without scripts
        let expected = if path == "/" { "Show" } else { "" };
        assert_eq!(reader.buttons().await?, expected, "a button of {path} does nothing without scripts");
    }
    reader.goto("/incidents").await?;
    let plain = reader.browser.eval(times).await?;
    assert_ne!(local, plain, "with scripts, times are in the reader's zone");
    assert!(plain.as_str().is_some_and(|times| times.contains("UTC")), "{plain}");
    reader.is_clean()
}

#[tokio::test]
async fn no_page_is_wider_than_a_phone_or_jumps_when_it_is_read_again() -> Result<()> {
    let world = World::start().await?;
    let long = "a-team-with-a-very-long-name/a-prompt-with-a-very-long-name-that-does-not-fit-on-a-phone";
    for prompt in ["p", long] {
        ship(world.http(), prompt).await?;
    }
    let id = opened(&deliver(world.http(), &[alert(long, "v2", "high")]).await?)?;
    let mut reader = Person::at(&world, "/").await?;
    for (width, mobile) in [(390, true), (1400, false)] {
        reader.browser.resize(width, 844, mobile).await?;
        let prompt = format!("/prompts/{}", long.replace('/', "%2F"));
        let of_incident = format!("/incidents/{id}?draft=true");
        for path in ["/", &prompt, "/incidents", &of_incident, "/rollouts", "/nowhere"] {
            reader.goto(path).await?;
            let wide = reader.browser.eval("document.documentElement.scrollWidth").await?;
            ensure!(wide.as_u64().is_some_and(|wide| wide <= u64::from(width)), "{path}: {wide} of {width}");
        }
        // an open page that is read again moves nothing
        reader.goto("/").await?;
        reader.is_live().await?;
        reader
            .browser
            .eval(
                "window.jumps = 0; new PerformanceObserver(list => { for (const shift of list.getEntries()) \
                 window.jumps += shift.value; }).observe({ type: 'layout-shift', buffered: true }); true",
            )
            .await?;
        let pause = json!({"prompt": "p", "operator": "dana", "reason": format!("launch {width}")});
        world.post("/api/pause", pause).await?;
        reader.sees(&format!("launch {width}")).await?;
        let jumps = reader.browser.eval("window.jumps").await?;
        ensure!(jumps.as_f64().is_some_and(|jumps| jumps < 0.1), "{width}: {jumps}");
    }
    ensure!(reader.browser.errors().iter().all(|error| error.contains("/nowhere")), "{:?}", reader.browser.errors());
    Ok(())
}

#[tokio::test]
async fn a_button_that_is_pressed_while_news_arrive_is_clicked() -> Result<()> {
    let world = World::start().await?;
    ship(world.http(), "p").await?;
    let mut maya = Person::at(&world, "/prompts/p").await?;
    maya.is_live().await?;
    let button = "main button[data-path='/api/rollback']";
    maya.browser.press_mouse(button).await?;
    let pause = json!({"prompt": "p", "operator": "dana", "reason": "launch"});
    world.post("/api/pause", pause).await?;
    maya.browser
        .until(
            "the news",
            SOON,
            "performance.getEntriesByType('resource').some(entry => \
        entry.initiatorType === 'fetch' && entry.responseEnd > 0)",
        )
        .await?;
    maya.browser.release_mouse(button).await?;
    maya.sees("Roll back p?").await?;
    maya.browser.press("Escape").await?;
    maya.sees("launch").await?;
    maya.is_clean()
}

/// Whatever a name, a reason or a summary holds, it is text.
#[tokio::test]
async fn texts_from_outside_stay_text() -> Result<()> {
    let world = World::start().await?;
    let hostile = "<img src=x onerror=\"window.hurt=1\"><script>window.hurt=1</script>";
    let prompt = "<b>bold</b>";
    ship(world.http(), prompt).await?;
    let mut firing = alert(prompt, "v2", "high");
    firing["annotations"]["summary"] = hostile.into();
    let id = opened(&deliver(world.http(), &[firing]).await?)?;
    let pause = json!({"prompt": prompt, "operator": hostile, "reason": hostile});
    ensure!(world.post("/api/pause", pause).await?.0 == 200);
    let mut reader = Person::at(&world, "/").await?;
    let of_incident = format!("/incidents/{id}?draft=true");
    for path in ["/", "/prompts/%3Cb%3Ebold%3C%2Fb%3E", "/incidents", &of_incident] {
        reader.goto(path).await?;
        reader.sees("<b>bold</b>").await?;
        assert_eq!(reader.browser.eval("window.hurt ?? null").await?, serde_json::Value::Null, "{path}");
        assert_eq!(reader.browser.eval("document.querySelectorAll('main b, main script').length").await?, 0, "{path}");
    }
    reader.is_clean()
}
