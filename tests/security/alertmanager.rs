//! An Alertmanager with a password: it refuses alerts without it.

use anyhow::{Result, ensure};
use futures_util::StreamExt;
use prompt_rollback::alertmanager::client::{Alertmanagers, OwnAlert};
use prompt_rollback_testkit::Alertmanager;

use super::kit::program;
use crate::common::{Redis, config};

const CONFIG: &str = "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n";
/// Of `s3cret-of-alerts`, by bcrypt.
const HASH: &str = "$2b$04$AAZt0lSRE7rZ9VX5vYTmBuEYZTzC490N1iGg1cFJobzmJHzf.0i0i";
const PASSWORD: &str = "s3cret-of-alerts";

fn alert() -> OwnAlert {
    OwnAlert {
        labels: [("alertname", "PromptRollbackDrill"), ("prompt", "p")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        annotations: Vec::new(),
        starts_at: "2026-11-21T00:38:12Z".to_owned(),
        ends_at: "2036-11-21T00:38:12Z".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_reach_an_alertmanager_only_with_its_password() -> Result<()> {
    let alertmanager = Alertmanager::builder(CONFIG)
        .file("web.yml", format!("basic_auth_users:\n  alerts: {HASH}\n"))
        .flag("--web.config.file=web.yml")
        .start()?;
    let (redis, url) = (Redis::start()?, alertmanager.url());
    let with = |password: &'static str| {
        let login = [("ALERTMANAGER__USERNAME", "alerts"), ("ALERTMANAGER__PASSWORD", password)];
        let login = if password.is_empty() { &[][..] } else { &login[..] };
        Alertmanagers::new(
            &config(&redis.url(), &[&[("ALERTMANAGER__URLS", url.as_str())], login].concat()).alertmanager,
        )
    };
    for password in ["", "wrong"] {
        let sent: Vec<_> = with(password)?.post_each(&alert()).collect().await;
        let error = sent[0].1.as_ref().expect_err("refused").to_string();
        ensure!(error.contains("401") && !error.contains("wrong"), "{error}");
    }
    let own = with(PASSWORD)?;
    let sent: Vec<_> = own.post_each(&alert()).collect().await;
    ensure!(sent[0].1.is_ok(), "{sent:?}");
    ensure!(own.fingerprints("prompt", "p").await?.len() == 1);

    for (password, well) in [(PASSWORD, true), ("wrong", false)] {
        let redis_url = redis.receiver_url();
        let env = [
            ("PROMPT_ROLLBACK_REDIS__URL", redis_url.as_str()),
            ("PROMPT_ROLLBACK_ALERTMANAGER__URLS", url.as_str()),
            ("PROMPT_ROLLBACK_ALERTMANAGER__USERNAME", "alerts"),
            ("PROMPT_ROLLBACK_ALERTMANAGER__PASSWORD", password),
        ];
        let output = program(&["check", "--connect"], &env).await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success() == well && text.contains("is ready, version") == well, "{text}");
    }
    Ok(())
}
