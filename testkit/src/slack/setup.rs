//! The builder of a workspace.

use super::clock::Clock;
use super::rate_limits::Buckets;
use super::records::{Channel, Group, User};
use super::state::{Setup, Shared, State};
use super::{Slack, server};
use crate::Port;
use anyhow::{Context, Result};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::oneshot;

/// The default scopes of the bot's token.
const SCOPES: [&str; 9] = [
    "chat:write",
    "channels:read",
    "groups:read",
    "channels:history",
    "groups:history",
    "channels:join",
    "usergroups:read",
    "users:read",
    "files:write",
];

/// A workspace that is not started yet.
#[derive(Debug)]
#[must_use]
pub struct SlackBuilder {
    state: State,
    port: Option<u16>,
    clock: Clock,
    redeliveries: u32,
    bot_name: String,
    bot_token: String,
    app_token: String,
    signing_secret: String,
}

impl Default for SlackBuilder {
    fn default() -> Self {
        let mut state = State::default();
        state.scopes = SCOPES.iter().map(|&scope| scope.to_owned()).collect();
        state.app_scopes = ["connections:write".to_owned()].into();
        Self {
            state,
            port: None,
            clock: Clock::running(),
            redeliveries: 0,
            bot_name: "prompt-rollback".into(),
            bot_token: "xoxb-0000000000-double".into(),
            app_token: "xapp-1-A0DOUBLE-double".into(),
            signing_secret: "signing-secret-of-the-double".into(),
        }
    }
}

impl SlackBuilder {
    /// Adds a user: id (`U…`), handle, name.
    pub fn user(mut self, id: &str, name: &str, real_name: &str) -> Self {
        let user = User { id: id.into(), name: name.into(), real_name: real_name.into() };
        self.state.users.insert(id.into(), user);
        self
    }

    /// Adds a user group: id (`S…`), handle, members.
    pub fn group(mut self, id: &str, handle: &str, members: &[&str]) -> Self {
        let members = members.iter().map(|&member| member.to_owned()).collect();
        let group = Group { id: id.into(), handle: handle.into(), members, disabled: false };
        self.state.groups.insert(id.into(), group);
        self
    }

    /// Adds a public channel with the bot as a member: id (`C…`), name without `#`.
    pub fn channel(self, id: &str, name: &str) -> Self {
        self.channel_with(id, name, |_| ())
    }

    /// Adds a channel that differs: private, archived, without the bot.
    pub fn channel_with(mut self, id: &str, name: &str, change: impl FnOnce(&mut Channel)) -> Self {
        let (id, name) = (id.to_owned(), name.to_owned());
        let mut channel = Channel { id, name, private: false, archived: false, bot_is_member: true, with: None };
        change(&mut channel);
        self.state.channels.insert(channel.id.clone(), channel);
        self
    }

    /// Sets the scopes of the bot's token.
    pub fn scopes(mut self, scopes: &[&str]) -> Self {
        self.state.scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        self
    }

    /// Sets the scopes of the app's token.
    pub fn app_scopes(mut self, scopes: &[&str]) -> Self {
        self.state.app_scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        self
    }

    /// Turns Slack's rate limits on; they are off by default.
    pub fn rate_limited(mut self, rate_limited: bool) -> Self {
        self.state.rate_limits = rate_limited.then(Buckets::default);
        self
    }

    /// Sets a clock that moves only by [`Clock::advance`].
    pub fn frozen_at(mut self, at: SystemTime) -> Self {
        self.clock = Clock::frozen(at);
        self
    }

    /// Sets the URL for interactions over HTTP.
    pub fn request_url(mut self, url: impl Into<String>) -> Self {
        self.state.request_url = Some(url.into());
        self
    }

    /// Sends an envelope again this often, if it is not acknowledged in time or its socket closes.
    pub fn redeliveries(mut self, times: u32) -> Self {
        self.redeliveries = times;
        self
    }

    /// Sets the port; by default a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets the tokens: bot, app.
    pub fn tokens(mut self, bot: impl Into<String>, app: impl Into<String>) -> Self {
        (self.bot_token, self.app_token) = (bot.into(), app.into());
        self
    }

    /// Sets the signing secret.
    pub fn signing_secret(mut self, secret: impl Into<String>) -> Self {
        self.signing_secret = secret.into();
        self
    }

    /// Sets the name of the bot.
    pub fn bot_name(mut self, name: impl Into<String>) -> Self {
        self.bot_name = name.into();
        self
    }

    /// Starts it.
    pub fn start(self) -> Result<Slack> {
        let claimed = self.port.is_none().then(Port::claim);
        let port = self.port.or(claimed.as_ref().map(Port::number)).unwrap_or_default();
        let listener = TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("listen on port {port}"))?;
        listener.set_nonblocking(true)?;
        let setup = Setup {
            base: format!("http://127.0.0.1:{port}"),
            team: "T0DOUBLE".into(),
            team_name: "double".into(),
            app_id: "A0DOUBLE".into(),
            bot_id: "B0DOUBLE".into(),
            bot_user: "U0BOT".into(),
            bot_name: self.bot_name,
            bot_token: self.bot_token,
            app_token: self.app_token,
            signing_secret: self.signing_secret,
            redeliveries: self.redeliveries,
        };
        let shared = Arc::new(Shared::new(setup, self.clock, self.state));
        // on another thread: a test that blocks its runtime must not keep Slack from answering
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = shared.clone();
        let thread = std::thread::Builder::new().name("slack-double".into()).spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = server::serve(served, listener) => (),
                    _ = stopped => (),
                }
            });
        })?;
        Ok(Slack { shared, runtime: handle, stop: Some(stop), thread: Some(thread), _port: claimed })
    }
}
