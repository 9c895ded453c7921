//! The settings and the shared state of requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::auth::{Admission, Refusals};
use super::board::Board;
use super::budget::{Budget, ParsedBudget};
use super::error::ApiError;
use super::exposition::Exposition;
use super::input::Query;
use super::lanes::{HUGE_AT_ONCE, Lanes, ROWS_AT_ONCE};
use super::peer::{Door, Site};
use super::route::{PageKind, Route, Routes};
use crate::config::{Config, Labels, SourceConfig};
use crate::engine::{Engine, Readiness};
use crate::figures::FigureBook;
use crate::live::Reloader;
use crate::rules::RuleBook;
use crate::service::clicks::Clicks;
use crate::service::updates::Updates;
use crate::tls::ServerTls;

/// Memory for all bodies that anyone may send: interactions whose signature is not verified yet, and sign-ins. Each is a few kB.
const UNSIGNED_BUDGET: usize = 2 << 20;

/// The settings and state that requests use. A request keeps its context, even if a reload replaces it meanwhile.
#[derive(Debug)]
pub struct Context {
    pub(super) engine: Arc<Engine>,
    pub(super) reloader: Reloader,
    pub(super) routes: Routes,
    pub(super) tls: Option<ServerTls>,
    pub(super) max_connections: usize,
    pub(super) labels: Arc<Labels>,
    pub(super) webhook_token: Option<SecretString>,
    pub(super) sources: BTreeMap<String, SourceConfig>,
    pub(super) refusals: Refusals,
    /// Whether a client certificate is required besides the token.
    pub(super) webhook_certificate: bool,
    pub(super) admission: Admission,
    pub(super) max_body_bytes: usize,
    pub(super) request_timeout: Duration,
    /// For bodies and responses.
    pub(super) budget: Budget,
    pub(super) parsed: ParsedBudget,
    pub(super) unsigned_budget: Budget,
    /// How long a sign-in lasts.
    pub(super) session: Duration,
    pub(super) lanes: Lanes,
    /// Limits concurrent huge deliveries.
    pub(super) huge: Semaphore,
    /// Limits the rows of lists in memory.
    rows: Semaphore,
    pub(super) max_prompts: usize,
    pub(super) exposition: Arc<Exposition>,
    /// Whether metrics have an address of their own.
    pub(super) metrics_apart: bool,
    pub(super) shows_page: bool,
    /// Whether the page has an address of its own.
    pub(super) page_apart: bool,
    pub(super) shutdown_timeout: Duration,
    pub(super) readiness: watch::Receiver<Readiness>,
    pub(super) slack: Option<SlackClicks>,
    /// Whether there is an Alertmanager for the receiver's own alerts.
    pub(super) posts_alerts: bool,
    pub(super) books: Books,
    pub(super) board: Board,
    /// For streams of events.
    pub(super) updates: Updates,
    pub(super) max_streams: usize,
}

/// What workers read from Prometheus for requests, which never call it themselves.
#[derive(Debug, Clone)]
pub struct Books {
    pub rules: RuleBook,
    pub figures: FigureBook,
}

/// Interactions over HTTP, if `slack.signing_secret` is configured.
#[derive(Debug)]
pub(super) struct SlackClicks {
    pub(super) signing_secret: SecretString,
    pub(super) clicks: Arc<Clicks>,
}

impl Context {
    /// Creates a server for `max_connections` connections at once.
    pub fn new(
        config: &Config,
        max_connections: u32,
        engine: Arc<Engine>,
        readiness: watch::Receiver<Readiness>,
        reloader: Reloader,
        clicks: Option<Arc<Clicks>>,
        books: Books,
    ) -> Self {
        let slack = config.slack.signing_secret.clone().zip(clicks);
        let buffered = config.server.max_buffered_bytes.max(config.server.max_body_bytes);
        Self {
            engine,
            reloader,
            routes: Routes::new(),
            tls: config.server.tls.clone(),
            max_connections: max_connections as usize,
            labels: Arc::new(config.labels.clone()),
            webhook_token: config.server.webhook_token.clone(),
            sources: config.sources.clone(),
            refusals: Refusals::default(),
            webhook_certificate: config.server.tls_client_ca_file.is_some(),
            admission: Admission::new(config),
            max_body_bytes: config.server.max_body_bytes,
            request_timeout: config.server.request_timeout,
            budget: Budget::new(buffered),
            parsed: ParsedBudget::new(buffered),
            unsigned_budget: Budget::unsigned(UNSIGNED_BUDGET),
            session: config.page.session,
            lanes: Lanes::new(),
            huge: Semaphore::new(HUGE_AT_ONCE),
            rows: Semaphore::new(ROWS_AT_ONCE),
            max_prompts: config.metrics.max_prompts as usize,
            exposition: Arc::default(),
            metrics_apart: config.metrics.listen.is_some(),
            shows_page: config.page.enabled,
            page_apart: config.page.listen.is_some(),
            shutdown_timeout: config.server.shutdown_timeout,
            readiness,
            posts_alerts: !config.alertmanager.urls.is_empty(),
            books,
            board: Board::default(),
            updates: Updates::default(),
            max_streams: config.page.max_streams as usize,
            slack: slack.map(|(signing_secret, clicks)| SlackClicks { signing_secret, clicks }),
        }
    }

    /// Streams these updates to open pages.
    #[must_use]
    pub fn showing(self, updates: Updates) -> Self {
        Self { updates, ..self }
    }

    /// The settings for new connections.
    pub(super) fn door(&self) -> Door {
        match &self.tls {
            None => Door::Plain,
            Some(tls) => Door::Tls { certificate: tls.certificate, authority: tls.authority },
        }
    }

    /// Waits until the rows of a list fit beside those of others. They are in memory until the list is written.
    pub(super) async fn room_for(&self, route: Route, query: &Query) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
        let rows = match route {
            Route::Prompts | Route::Logs | Route::Log | Route::Incidents | Route::Page(PageKind::Incidents) => {
                query.limit()?
            }
            // its handler refuses what is no number
            Route::Page(PageKind::Prompt) => query.text("entries").and_then(|text| text.parse().ok()).unwrap_or(0),
            _ => return Ok(None),
        };
        let rows = u32::try_from(rows.min(ROWS_AT_ONCE)).unwrap_or(u32::MAX);
        Ok(self.rows.acquire_many(rows).await.ok()) // fails only if the semaphore is closed, which never happens
    }

    /// Metrics may have an address of their own, which serves nothing else but health checks. So may the page, with the API
    /// that it uses.
    pub(super) fn serves(&self, site: Site, route: Route) -> bool {
        match (site, route) {
            (_, Route::Healthy | Route::Ready) => true,
            (Site::Main, Route::Metrics) => !self.metrics_apart,
            (Site::Metrics, Route::Metrics) => true,
            (Site::Metrics, _) => false,
            (Site::Page, Route::Webhook | Route::Slack | Route::Metrics | Route::Reload | Route::Import) => false,
            (Site::Page, _) if !self.shows_page => false,
            (Site::Main, Route::Page(_) | Route::Events | Route::Login | Route::Logout) => {
                self.shows_page && !self.page_apart
            }
            (Site::Main | Site::Page, _) => true,
        }
    }
}
