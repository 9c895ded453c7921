//! Buttons under the mouse, the keyboard and live changes.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Person, TOKENS, asks, opened, ops, serves};
use crate::common::{SOON, World, alert, deliver, ship};

const FOCUSED: &str = "document.activeElement.innerText.trim()";

/// The button that takes the place of another one is not what the second click of a hasty person means.
#[tokio::test]
async fn a_second_click_at_the_same_place_does_nothing_else() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let (mut maya, _) = Person::asked(&world).await?;
    let gone = "![...document.querySelectorAll('main button')].some(button => button.innerText === 'Investigate')";
    for (prompt, clicks) in [("p", 2), ("q", 1)] {
        if prompt == "q" {
            ship(&ops(&world), "q").await?;
            let id = asks(&world, "q").await?;
            maya.goto(&format!("/incidents/{id}")).await?;
            maya.is_live().await?;
        }
        maya.browser.click_label_twice("Investigate", gone, clicks).await?;
        assert_eq!(maya.browser.eval("document.querySelector('#said').textContent").await?, "Done.", "{clicks}");
        // a dismissed question could not be approved
        maya.browser.click_label("Approve rollback").await?;
        maya.browser.click_label("Yes, do it").await?;
        maya.sees("maya (ops) rolled v2 back to v1").await?;
    }
    maya.is_clean()
}

#[tokio::test]
async fn the_focus_stays_and_nothing_moves_after_an_action() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let (mut maya, _) = Person::asked(&world).await?;
    let focus = |label: &str| {
        format!("[...document.querySelectorAll('main button')].find(button => button.innerText === '{label}').focus()")
    };
    let top = "document.querySelector('main h1').getBoundingClientRect().top";
    let before = maya.browser.eval(top).await?;
    // a request that hangs, as with six open tabs of an older release
    maya.browser
        .eval(
            "window.real = [fetch, AbortSignal.timeout]; \
             AbortSignal.timeout = () => real[1].call(AbortSignal, 50); \
             window.fetch = (path, { signal }) => new Promise((_, refuse) => \
             signal?.addEventListener('abort', () => refuse(signal.reason))); true",
        )
        .await?;
    maya.browser.eval(&focus("Investigate")).await?;
    maya.browser.press("Enter").await?;
    maya.sees("The receiver did not answer.").await?;
    assert_eq!(maya.browser.eval(FOCUSED).await?, "Investigate");
    assert_eq!(maya.browser.eval(top).await?, before, "the message moves nothing");

    maya.browser.eval("[window.fetch, AbortSignal.timeout] = real; true").await?;
    maya.browser.press("Enter").await?;
    maya.sees("Done.").await?;
    maya.browser
        .until("the button is gone", SOON, "!document.querySelector('main').innerText.includes('Investigate')")
        .await?;
    assert_eq!(maya.browser.eval("document.activeElement.id").await?, "main");
    assert_eq!(maya.browser.eval(top).await?, before);
    maya.is_clean()
}

/// A person who presses Enter twice, or holds it, has not read the question.
#[tokio::test]
async fn a_second_enter_moves_no_traffic() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.goto("/prompts/p").await?;
    maya.is_live().await?;
    maya.browser.eval("document.querySelector('main button[data-path=\"/api/rollback\"]').focus()").await?;
    maya.browser.press("Enter").await?;
    maya.sees("Roll back p?").await?;
    assert_eq!(maya.browser.eval(FOCUSED).await?, "Not now");
    maya.browser.press("Enter").await?;
    maya.browser.until("the question is closed", SOON, "!document.querySelector('#question').open").await?;
    assert_eq!(world.active("p").await?.as_deref(), Some("v2"));
    // in the reason, Enter is meant
    maya.browser.click_label("Roll back").await?;
    maya.browser.click("#question input").await?;
    maya.browser.type_text("too slow").await?;
    maya.browser.press("Enter").await?;
    serves(&world, "p", "v1").await?;
    maya.sees("too slow").await?;
    maya.is_clean()
}

#[tokio::test]
async fn a_reason_stays_until_the_receiver_has_accepted_it() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let (mut maya, _) = Person::asked(&world).await?;
    let reason = "document.querySelector('#question input').value";
    let asked = "Pause automation of p?";
    let away = "window.real = fetch; window.fetch = () => Promise.reject(new TypeError('away')); true";
    maya.browser.eval(away).await?;
    maya.browser.click_label("Pause automation").await?;
    maya.sees(asked).await?;
    maya.browser.type_text("provider outage").await?;
    maya.browser.press("Enter").await?;
    maya.sees("The receiver did not answer.").await?;
    maya.browser.eval("window.fetch = real; true").await?;
    maya.browser.click_label("Pause automation").await?;
    maya.sees(asked).await?;
    assert_eq!(maya.browser.eval(reason).await?, "provider outage");
    maya.browser.press("Enter").await?;
    maya.sees("Resume automation").await?;

    ensure!(ops(&world).post_json("/api/resume", &json!({"prompt": "p"})).await?.status == 200);
    maya.browser.click_label("Pause automation").await?;
    maya.sees(asked).await?;
    assert_eq!(maya.browser.eval(reason).await?, "", "it was sent");
    maya.is_clean()
}

/// A browser closes the menu of an element that is replaced.
#[tokio::test]
async fn a_list_to_choose_from_stays_open_while_news_arrive() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.sees("nothing").await?;
    for event in ["pointerdown", "keydown"] {
        let prompt = format!("by-{event}");
        let open = format!(
            "{{ window.list = document.querySelector('#state'); list.focus(); window.heard = 0; \
             list.dispatchEvent(new Event('{event}', {{ bubbles: true }})); }} true"
        );
        maya.browser.eval(&open).await?;
        let count = format!(
            "window.real ??= window.fetch; window.fetch = async (path, options) => {{ \
             const answer = await real(path, options); \
             heard += (await answer.clone().text()).includes('{prompt}'); return answer; }}; true"
        );
        maya.browser.eval(&count).await?;
        ship(&ops(&world), &prompt).await?;
        // the second answer comes after the page had the first one
        maya.browser.until("the news", SOON, "heard > 1 || !list.isConnected").await?;
        ensure!(maya.browser.eval("list.isConnected").await? == json!(true), "{event}: the list was replaced");
        ensure!(!maya.text().await?.contains(&prompt), "{event}");
        // something is chosen, or the focus goes elsewhere
        let over = if event == "keydown" { "list.blur()" } else { "list.dispatchEvent(new Event('change'))" };
        let over = over.replace("('change')", "('change', { bubbles: true })");
        maya.browser.eval(&format!("{over}; true")).await?;
        maya.sees(&prompt).await?;
    }
    maya.is_clean()
}

/// What replaces the field ends the input method's word, as Chinese and Japanese are typed.
#[tokio::test]
async fn a_word_is_searched_for_when_its_composition_has_ended() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.sees_served("v2").await?;
    let composes = "window.field = document.querySelector('#search'); field.focus(); field.value = 'n'; \
                    field.dispatchEvent(new InputEvent('input', { bubbles: true, isComposing: true })); \
                    window.heard = 0; window.real = fetch; window.fetch = async (path, options) => { \
                    const answer = await real(path, options); \
                    heard += (await answer.clone().text()).includes('news'); return answer; }; true";
    maya.browser.eval(composes).await?;
    ship(&ops(&world), "news").await?;
    // the second answer comes after the page had the first one
    maya.browser.until("the news", SOON, "heard > 1 || !field.isConnected").await?;
    assert_eq!(maya.browser.eval("field.isConnected && location.search === ''").await?, json!(true));
    let ends = "field.value = 'ne'; field.dispatchEvent(new CompositionEvent('compositionend', { bubbles: true }))";
    maya.browser.eval(ends).await?;
    let found = "location.search === '?search=ne' && document.querySelectorAll('main tbody tr').length === 1";
    maya.browser.until("the search", SOON, found).await?;
    maya.is_clean()
}

#[tokio::test]
async fn an_open_menu_and_the_focus_stay_with_their_prompt() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let mut ids = Vec::new();
    for prompt in ["a", "b", "c"] {
        ship(&ops(&world), prompt).await?;
        let id = opened(&deliver(&ops(&world), &[alert(prompt, "v2", "high")]).await?)?;
        let approve = json!({"decision": "approve_gradual", "operator": "pete"});
        let answer = ops(&world).post_json(&format!("/api/incidents/{id}/decide"), &approve).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        ids.push(id);
    }
    let mut maya = Person::signed_in(&world, "token-of-ops", "maya").await?;
    maya.goto("/rollouts").await?;
    maya.is_live().await?;
    maya.browser.until("all three", SOON, "document.querySelectorAll('.rollout').length === 3").await?;
    let menu = "const own = [...document.querySelectorAll('.rollout')].find(section => \
                section.querySelector('h2').innerText.includes(' b ')).querySelector('details');";
    maya.browser.eval(&format!("{{ {menu} own.open = true; own.querySelector('summary').focus(); }} true")).await?;
    let undo = json!({"decision": "undo", "operator": "pete"});
    let answer = ops(&world).post_json(&format!("/api/incidents/{}/decide", ids[2]), &undo).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    maya.browser.until("two are left", SOON, "document.querySelectorAll('.rollout').length === 2").await?;
    let kept = format!(
        "(() => {{ {menu} return own.open && document.querySelectorAll('details[open]').length === 1 && \
         document.activeElement === own.querySelector('summary'); }})()"
    );
    assert_eq!(maya.browser.eval(&kept).await?, json!(true));
    maya.is_clean()
}
