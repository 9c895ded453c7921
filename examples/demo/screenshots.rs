//! Screenshots of the receiver's page, for its documentation: `make screenshots`.

use crate::scene::Scene;
use crate::stack::PROMPT;
use crate::versions::{BAD, DULL};
use anyhow::{Context, Result};
use prompt_rollback_testkit::Browser;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// What the receiver measures for its page arrives within two looks.
const MEASURED: &str = "document.querySelector('#live')?.textContent === 'Live' \
                        && !document.querySelector('main [aria-busy=true]')";

struct Photographer<'a> {
    browser: Browser,
    base: String,
    folder: &'a Path,
}

impl<'a> Photographer<'a> {
    /// `None` unless `--screenshots` names a folder.
    async fn of(scene: &'a Scene<'_>) -> Result<Option<Self>> {
        let Some(folder) = &scene.args.screenshots else { return Ok(None) };
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let mut browser = Browser::open("about:blank").await?;
        browser.resize(1200, 800, false).await?;
        Ok(Some(Self { browser, base: scene.stack.receiver.url(), folder }))
    }

    async fn goto(&mut self, path: &str) -> Result<()> {
        self.browser.goto(&format!("{}{path}", self.base)).await?;
        self.browser.until("the page is live", SOON, MEASURED).await.map(drop)
    }

    async fn take(&mut self, name: &str) -> Result<()> {
        self.browser.screenshot(self.folder.join(format!("{name}.png"))).await
    }
}

/// While the second version waits for a decision.
pub async fn of_question(scene: &Scene<'_>) -> Result<()> {
    let Some(mut photographer) = Photographer::of(scene).await? else { return Ok(()) };
    photographer.browser.resize(1200, 450, false).await?;
    photographer.goto("/").await?;
    photographer.take("overview").await?;
    photographer.browser.prefer_dark(true).await?;
    photographer.take("overview-dark").await?;
    photographer.browser.prefer_dark(false).await?;
    photographer.browser.resize(390, 844, true).await?;
    photographer.goto("/").await?;
    photographer.take("overview-phone").await?;
    photographer.browser.resize(1200, 800, false).await?;
    photographer.goto(&format!("/prompts/{PROMPT}")).await?;
    photographer.take("prompt").await?;
    photographer.goto(&incident(scene, &DULL).await?).await?;
    photographer.take("question").await?;
    photographer.browser.click_label("Approve rollback").await?;
    photographer.browser.until("the confirmation", SOON, "document.querySelector('#question').open").await?;
    photographer.take("confirmation").await
}

/// Once the first version's rollback has been confirmed.
pub async fn of_recovery(scene: &Scene<'_>) -> Result<()> {
    let Some(mut photographer) = Photographer::of(scene).await? else { return Ok(()) };
    let path = incident(scene, &BAD).await?;
    photographer.goto(&path).await?;
    photographer.take("recovered").await?;
    photographer.browser.resize(1200, 1400, false).await?;
    photographer.goto(&format!("{path}#postmortem")).await?;
    photographer.take("post-mortem").await
}

async fn incident(scene: &Scene<'_>, version: &crate::versions::DemoVersion) -> Result<String> {
    let incident = scene.incident(version).await?;
    Ok(format!("/incidents/{}", incident["id"].as_str().context("an incident without an id")?))
}
