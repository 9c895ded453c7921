//! The Slack workspace: its members, the approvers, and whether a person is present.

use crate::DemoArgs;
use anyhow::Result;
use prompt_rollback_testkit::slack::Slack;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::sync::oneshot;

/// May decide everything; the page shows her view first.
pub const MAYA: &str = "U0MAYA";
/// The channel for questions about quality.
pub const PRODUCT: &str = "product";
/// The channel for everything else.
pub const ON_CALL: &str = "on-call";

/// A double of Slack with Slack's rate limits.
pub fn workspace() -> Result<Slack> {
    Slack::builder()
        .user(MAYA, "maya", "Maya Lind")
        .user("U0OMAR", "omar", "Omar Haddad")
        .user("U0PETRA", "petra", "Petra Novak")
        .group("S0ONCALL", "on-call", &[MAYA, "U0OMAR"])
        .group("S0PRODUCT", "product-pm", &[MAYA, "U0PETRA"])
        .channel("C0INCIDENTS", "incidents")
        .channel("C0ONCALL", ON_CALL)
        .channel("C0PRODUCT", PRODUCT)
        .rate_limited(true)
        .start()
}

/// The receiver's settings for this workspace.
pub fn config(slack: &Slack) -> Vec<(&'static str, String)> {
    vec![
        ("SLACK__API_URL", slack.api_url()),
        ("SLACK__BOT_TOKEN", slack.bot_token().to_owned()),
        ("SLACK__SIGNING_SECRET", slack.signing_secret().to_owned()),
        ("DECIDERS__ON_CALL__CHANNEL", format!("#{ON_CALL}")),
        ("DECIDERS__ON_CALL__MENTION", "<!subteam^S0ONCALL>".to_owned()),
        ("DECIDERS__ON_CALL__APPROVERS", "S0ONCALL".to_owned()),
        ("DECIDERS__PRODUCT_PM__CHANNEL", format!("#{PRODUCT}")),
        ("DECIDERS__PRODUCT_PM__MENTION", "<!subteam^S0PRODUCT>".to_owned()),
        ("DECIDERS__PRODUCT_PM__APPROVERS", "S0PRODUCT".to_owned()),
    ]
}

/// Whether a person is there to click.
pub fn somebody(args: &DemoArgs) -> bool {
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    !args.yes && !in_ci && std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Waits for Enter, with a time limit.
pub async fn enter(at_most: Duration) {
    let (pressed, enter) = oneshot::channel();
    // on another thread that is never joined: a runtime would not end before the read does
    std::thread::spawn(move || {
        std::io::stdin().read_line(&mut String::new()).ok();
        pressed.send(()).ok();
    });
    tokio::time::timeout(at_most, enter).await.ok();
}
