//! Signing in, and links of other sites that lead to the page.

use anyhow::Result;

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
    maya.browser.eval(&format!("location.href = '{}/prompts/p?entries=7'", maya.base)).await?;
    let there = format!("{LIVE} && location.pathname + location.search === '/prompts/p?entries=7'");
    maya.browser.until("the prompt", SOON, &there).await?;
    Ok(())
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
    maya.browser.eval("location.href = '/login'").await?;
    maya.browser.until("the overview", SOON, &format!("{LIVE} && location.pathname === '/'")).await?;
    maya.is_clean()
}
