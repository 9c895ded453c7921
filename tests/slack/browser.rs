//! A person decides in Slack: in a browser, on the page of the double, with a receiver on a real Redis.

use anyhow::Result;
use prompt_rollback_testkit::Browser;

use super::kit::{INCIDENTS, MAYA, PETE, SLACK_SOON, Workspace};
use crate::common::{alert, assert_rolled_back_once};

/// The text of an element, as the page shows it.
fn text(selector: &str) -> String {
    format!("document.querySelector(\"{selector}\")?.innerText")
}

/// The buttons and menus of the displayed messages, by action id.
const BUTTONS: &str =
    "[...document.querySelectorAll('#thread-messages [data-action-id]')].map(node => node.dataset.actionId).join()";

#[tokio::test]
async fn an_approval_in_the_browser_rolls_back() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
    // the page redraws with each message: a click at that moment would miss
    workspace.quiet().await?;

    let page = format!("{}/?me={MAYA}#{}/{}", workspace.slack.url(), root.channel, root.ts);
    let mut browser = Browser::open(&page).await?;
    browser
        .until("the buttons", SLACK_SOON, &format!("{BUTTONS} === 'approve,approve_gradual,investigate,dismiss,mark'"))
        .await?;

    // the dialog names both versions, and nothing happens until it is confirmed
    let approve = "#thread-messages [data-action-id=approve]";
    browser.click(approve).await?;
    let dialog = browser.until("the dialog", SLACK_SOON, &text("#confirm[open]")).await?.to_string();
    for part in ["Roll back p?", "From v2 back to v1.", "Yes, do it"] {
        assert!(dialog.contains(part), "{part} is missing in {dialog}");
    }
    browser.click("#confirm-no").await?;
    browser.until("the dialog to close", SLACK_SOON, "!document.querySelector('#confirm').open").await?;
    workspace.serves("v2").await?;

    browser.click(approve).await?;
    browser.click("#confirm-yes").await?;
    let acknowledged = format!("{}.includes('acknowledged')", text("#toast"));
    browser.until("the acknowledgement", SLACK_SOON, &acknowledged).await?;
    workspace.serves("v1").await?;

    // visible without a reload: the root, the reply, and no button but Undo
    let thread = text("#thread-messages");
    for part in ["maya (U1) approved: rolled back from v2 to v1", "maya (U1) rolled v2 back to v1"] {
        browser.until(part, SLACK_SOON, &format!("{thread}.includes('{part}')")).await?;
    }
    assert_eq!(browser.eval(BUTTONS).await?, "undo,mark");
    assert_rolled_back_once(&workspace.redis, "p").await
}

#[tokio::test]
async fn who_may_not_decide_is_told_so_on_the_page() -> Result<()> {
    let workspace = Workspace::start().await?;
    let root = workspace.thread(alert("p", "v2", "high")).await?;
    workspace.root_in(INCIDENTS, "an overview", |_| true).await?;
    workspace.quiet().await?;

    // by the permalink this time, as from the overview
    let permalink = format!("/archives/{}/p{}", root.channel, root.ts.replace('.', ""));
    let mut browser = Browser::open(&format!("{}{permalink}?me={PETE}", workspace.slack.url())).await?;
    browser.click("#thread-messages [data-action-id=approve]").await?;
    browser.click("#confirm-yes").await?;
    let told = "[...document.querySelectorAll('.ephemeral')].map(node => node.innerText).join()";
    let told = browser.until("a word to the clicker", SLACK_SOON, told).await?.to_string();
    assert!(told.contains("on-call"), "{told}");
    workspace.serves("v2").await?;
    assert_eq!(browser.eval(BUTTONS).await?, "approve,approve_gradual,investigate,dismiss,mark");
    Ok(())
}
