//! Clicks from Socket Mode.

use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;

use super::Running;
use crate::config;
use crate::live::Current;
use crate::service::clicks::{Clicks, handle_patiently};
use crate::slack::client::Slack;
use crate::slack::payload::Interaction;
use crate::slack::socket;

/// Clicks handled concurrently.
const CLICKS_AT_ONCE: usize = 16;

/// The settings for Socket Mode.
pub(super) type Workspace = Option<(Arc<Slack>, config::SlackConfig)>;

pub(super) fn workspace(running: &Running) -> Workspace {
    running.slack.clone().map(|slack| (slack, running.settings.config.slack.clone()))
}

/// Keeps Socket Mode connected, also after its settings are replaced, until `stopped`. Closes the queue at its end.
pub(super) async fn hear_clicks(
    mut workspaces: Current<Workspace>,
    clicks: mpsc::Sender<Interaction>,
    stopped: impl Future<Output = ()>,
) {
    let mut stopped = pin!(stopped);
    loop {
        let now = workspaces.get();
        let listen = async {
            if let Some((_, config)) = &now {
                socket::run(config.clone(), clicks.clone()).await;
            }
            std::future::pending().await // Socket Mode is not configured
        };
        let replaced = async {
            let client = |workspace: &Workspace| workspace.as_ref().map(|(slack, _)| Arc::as_ptr(slack));
            loop {
                workspaces.replaced().await;
                if client(&workspaces.get()) != client(&now) {
                    return;
                }
            }
        };
        tokio::select! {
            () = listen => {}
            () = replaced => {}
            () = &mut stopped => return,
        }
    }
}

/// Handles clicks from Socket Mode until their queue is closed. They are acknowledged already, so each waits for a
/// fault to end, without delaying others.
pub(super) async fn handle_clicks(clicks: Current<Option<Arc<Clicks>>>, mut interactions: mpsc::Receiver<Interaction>) {
    let clicks = &clicks;
    let heard = poll_fn(|context| interactions.poll_recv(context));
    heard
        .for_each_concurrent(CLICKS_AT_ONCE, async |interaction| {
            let Interaction::Clicks(all) = interaction else { return };
            for click in &all {
                handle_patiently(|| clicks.get(), click, None).await;
            }
        })
        .await;
}
