//! A call of a method, with one token, within limits of time and size.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use slack_morphism::errors::SlackClientError;
use slack_morphism::prelude::{SlackApiToken, SlackClient, SlackClientHyperConnector};

use super::answers::OkResponse;
use super::error::SlackError;
use crate::config;
use crate::http_client::{self, Capped, Proxies, ProxyConnector};
use crate::tls::ClientTls;
use crate::trace;

/// For a whole operation: two of them take less than a lease. The library itself would wait for ever.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer. A page of a search holds 200 messages of other people, a few kB each.
pub(super) const MAX_ANSWER: usize = 4 << 20;

/// Calls with one token.
pub(in crate::slack) struct Api {
    client: SlackClient<SlackClientHyperConnector<Capped<ProxyConnector>>>,
    pub(super) token: SlackApiToken,
    pub(super) url: String,
    pub(in crate::slack) connector: ProxyConnector,
}

impl Api {
    pub(in crate::slack) fn new(config: &config::SlackConfig, token: &SecretString) -> Result<Self, SlackError> {
        let url = config.api_url.clone();
        let tls = http_client::tls_config(url.starts_with("https:"), &ClientTls::default());
        let proxies = Proxies::of(config.proxy_url.as_ref());
        let connector = ProxyConnector::new(tls.map_err(SlackError::Config)?, proxies);
        let capped = SlackClientHyperConnector::with_connector(capped(&connector)).with_slack_api_url(&url);
        let token = SlackApiToken::new(token.expose_secret().into());
        Ok(Self { client: SlackClient::new(capped), token, url, connector })
    }

    /// With the token for Socket Mode; `None` without one.
    pub(in crate::slack) fn of_app(config: &config::SlackConfig) -> Result<Option<Self>, SlackError> {
        config.app_token.as_ref().map(|token| Self::new(config, token)).transpose()
    }

    pub(in crate::slack) async fn post<A>(
        &self,
        method: &'static str,
        request: &(impl Serialize + Sync),
    ) -> Result<A, SlackError>
    where
        A: DeserializeOwned + Send,
    {
        let session = self.client.open_session(&self.token);
        let call = session.http_session_api.http_post(method, &request, None);
        self.checked(method, call).await
    }

    pub(in crate::slack) async fn get<A>(
        &self,
        method: &'static str,
        params: &[(&str, Option<&str>)],
    ) -> Result<A, SlackError>
    where
        A: DeserializeOwned + Send,
    {
        let session = self.client.open_session(&self.token);
        let params = params.to_vec();
        let call = session.http_session_api.http_get(method, &params, None);
        self.checked(method, call).await
    }

    async fn checked<A>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<OkResponse<A>, SlackClientError>>,
    ) -> Result<A, SlackError> {
        let call = async { call.await.map_err(|error| SlackError::from_library(method, error)) };
        let call = trace::call(trace::slack(method), within(method, call), SlackError::kind);
        let OkResponse { ok, answer } = call.await?;
        // the library goes by `error` alone, and reads a web page as {}
        if ok { Ok(answer) } else { Err(SlackError::retry(method, "neither ok nor an error")) }
    }
}

/// Runs `work`, at most for [`TIMEOUT`].
pub(in crate::slack) async fn within<T>(
    method: &'static str,
    work: impl Future<Output = Result<T, SlackError>>,
) -> Result<T, SlackError> {
    tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(SlackError::retry(method, format!("no answer within {} s", TIMEOUT.as_secs()))))
}

pub(super) fn capped(connector: &ProxyConnector) -> Capped<ProxyConnector> {
    Capped::new(connector.clone(), MAX_ANSWER)
}
