//! Signing in, and links of other sites that lead to the page.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{LIVE, Person, TOKENS, ops};
use crate::common::{SOON, World, ship};

/// Over plain HTTP, no header tells the receiver that a browser withheld its cookie.
#[tokio::test]
async fn a_link_of_another_site_leads_a_person_who_has_signed_in_to_its_page() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let port = world.receiver.app.address.port();
    let mut maya = Person::at(&world, "/").await?;
    maya.base = format!("http://receiver.test:{port}");
    maya.goto("/").await?;
    maya.sign_in("token-of-ops", "maya").await?;
    maya.is_live().await?;
    maya.browser.goto(&format!("http://wiki.test:{port}/")).await?;
    maya.sees("Sign in").await?;
    // later, because a page that is left answers no evaluation
    maya.browser.eval(&format!("setTimeout(() => {{ location.href = '{}/prompts/p?entries=7'; }})", maya.base)).await?;
    let there = format!("{LIVE} && location.pathname + location.search === '/prompts/p?entries=7'");
    maya.browser.until("the prompt", SOON, &there).await?;
    Ok(())
}

/// A session that ends, as it does by time or in another tab.
#[tokio::test]
async fn a_button_after_the_sign_in_has_ended_says_so_and_does_nothing() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let (mut maya, _) = Person::asked(&world).await?;
    let sign_out = "fetch('/logout', { method: 'POST', headers: { 'Content-Type': 'application/json', \
                    'X-CSRF-Token': document.querySelector('meta[name=csrf-token]').content }, body: '{}' }) \
                    .then(answer => answer.status)";
    assert_eq!(maya.browser.eval(sign_out).await?, 200);
    maya.browser.click_label("Investigate").await?;
    let said = "document.querySelector('#said.fault')?.textContent";
    let said = maya.browser.until("the refusal", SOON, said).await?;
    assert_eq!(said, "Nothing was done: your sign-in has ended. Sign in again.");
    maya.browser.until("the form", SOON, "document.querySelector('main .sign-in')").await?;
    maya.is_clean()
}

/// It leads to a sign-in elsewhere, or answers with a form of its own: a script can follow and show neither.
#[tokio::test]
async fn a_page_behind_a_proxy_whose_sign_in_has_ended_is_loaded_again() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let (mut maya, id) = Person::asked(&world).await?;
    let refused = "window.real = window.fetch; window.fetch = (path, options) => \
                   options.method ? real('/login', { redirect: options.redirect }) : real(path, options); true";
    maya.browser.eval(refused).await?;
    maya.browser.click_label("Investigate").await?;
    maya.sees("Nothing was done: your sign-in has ended.").await?;
    for (round, proxy) in [
        // this address redirects, as the proxy does
        "options.redirect === 'manual' ? real('/login', { redirect: 'manual' }) : Promise.reject(new TypeError('Failed to fetch'))",
        "new Response('<h1>Sign in with your company account</h1>', { status: 403 })",
    ]
    .into_iter()
    .enumerate()
    {
        maya.goto(&format!("/incidents/{id}?draft={}", round == 0)).await?;
        maya.is_live().await?;
        let staged = format!(
            "window.isSame = true; window.real = window.fetch; window.fetch = async (path, options) => {proxy}; true"
        );
        maya.browser.eval(&staged).await?;
        ship(&ops(&world), &format!("other-{round}")).await?;
        let again = format!("!window.isSame && {LIVE} && location.search === '?draft={}'", round == 0);
        maya.browser.until(&format!("loaded again: {round}"), SOON, &again).await?;
        ensure!(maya.browser.eval("window.real ?? null").await? == json!(null));
    }
    maya.is_clean()
}

#[tokio::test]
async fn a_mistyped_token_loses_neither_the_name_nor_the_way() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    ship(&ops(&world), "p").await?;
    let mut maya = Person::at(&world, "/prompts/p").await?;
    maya.sign_in("token-of-op", "maya").await?;
    maya.sees("This token is wrong.").await?;
    maya.browser.click("#token").await?;
    maya.browser.type_text("token-of-ops").await?;
    maya.browser.click_label("Sign in").await?;
    maya.browser.until("the prompt", SOON, &format!("{LIVE} && location.pathname === '/prompts/p'")).await?;
    maya.sees("maya").await?;
    // the address of the form is no page, but leads to one
    maya.browser.eval("setTimeout(() => { location.href = '/login'; })").await?;
    maya.browser.until("the overview", SOON, &format!("{LIVE} && location.pathname === '/'")).await?;
    maya.is_clean()
}

/// A proxy may name people by their address, which has no place to break.
#[tokio::test]
async fn a_long_name_stays_within_the_header_on_a_phone() -> Result<()> {
    let world = World::with(&TOKENS).await?;
    let name = "firstname.middlename.lastname@department.subsidiary.example";
    let mut maya = Person::signed_in(&world, "token-of-ops", name).await?;
    maya.browser.resize(390, 844, true).await?;
    maya.goto("/").await?;
    maya.is_live().await?;
    let outside = "[...document.querySelectorAll('header *')].map(node => node.getBoundingClientRect()) \
                   .filter(box => box.left < 0 || box.right > 390).length";
    assert_eq!(maya.browser.eval(outside).await?, 0);
    let height = maya.browser.eval("document.querySelector('.person button').offsetHeight").await?;
    ensure!(height.as_u64().is_some_and(|height| height < 45), "Sign out is on one line: {height}");
    maya.is_clean()
}
