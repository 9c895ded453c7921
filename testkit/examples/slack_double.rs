//! Runs the double of Slack until interrupted: a workspace with a web page.
//!
//! `cargo run -p prompt-rollback-testkit --example slack_double [PORT] [REQUEST_URL]`
//!
//! It prints the settings with which a receiver connects to it. Without a request URL, interactions go over Socket
//! Mode.

use anyhow::{Context, Result};
use prompt_rollback_testkit::slack::Slack;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut slack = Slack::builder()
        .user("U0MAYA", "maya", "Maya Lind")
        .user("U0OMAR", "omar", "Omar Haddad")
        .user("U0PETRA", "petra", "Petra Novak")
        .group("S0ONCALL", "on-call", &["U0MAYA", "U0OMAR"])
        .group("S0PRODUCT", "product-pm", &["U0PETRA"])
        .channel("C0INCIDENTS", "incidents")
        .channel("C0ONCALL", "on-call")
        .channel("C0PRODUCT", "product")
        .rate_limited(true);
    if let Some(port) = args.next() {
        slack = slack.port(port.parse().with_context(|| format!("{port}: not a port"))?);
    }
    if let Some(url) = args.next() {
        slack = slack.request_url(url);
    }
    let slack = slack.start()?;
    println!("open {} in a browser", slack.url());
    for (key, value) in [
        ("API_URL", slack.api_url()),
        ("BOT_TOKEN", slack.bot_token().to_owned()),
        ("SIGNING_SECRET", slack.signing_secret().to_owned()),
        ("APP_TOKEN", slack.app_token().to_owned()),
    ] {
        println!("export PROMPT_ROLLBACK_SLACK__{key}={value}");
    }
    loop {
        std::thread::park();
    }
}
