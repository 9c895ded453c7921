//! Builds all parts, runs them, and shuts them down in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::alertmanager::client::Alertmanagers;
use crate::config::{self, Config, LoadedConfig, LogLevel};
use crate::engine::{Engine, Readiness};
use crate::figures::FigureBook;
use crate::http::{self, Books, Site};
use crate::http_client::Proxies;
use crate::live::{Current, Live, Reloader};
use crate::notify::slack::{self, MESSAGE_INTERVAL, Schedule, SlackNotifier};
use crate::notify::{self, Notifiers};
use crate::prometheus::client::Prometheus;
use crate::reconciler::archive::files::ArchiveDirectory;
use crate::reconciler::archive::{self, Archive, Archiver};
use crate::reconciler::health::RedisHealth;
use crate::reconciler::incidents::{self, IncidentWorker};
use crate::reconciler::precheck::Precheck;
use crate::reconciler::verifier::Verifier;
use crate::reconciler::{canary, drift, figures, outage, page, rules, soak};
use crate::rules::RuleBook;
use crate::service::clicks::{Acknowledged, Clicks, EphemeralReply};
use crate::service::updates::{self, Updates};
use crate::slack::client::Slack;
use crate::store::link::LoginReader;
use crate::store::{Clock, Store};
use clicks::{handle_clicks, hear_clicks, workspace};
use otlp::Exporting;
use process::{graceful, within_open_files};
use tasks::Tasks;

mod clicks;
mod error;
mod logging;
#[cfg_attr(not(feature = "otlp"), path = "app/no_otlp.rs")]
mod otlp;
mod process;
mod reload;
mod tasks;

pub use error::AppError;
pub use process::{Signals, serve};
pub use tasks::TaskEnded;

/// Most refusals waiting for Slack, and most clicks waiting for Redis.
const EPHEMERAL_REPLIES: usize = 256;
const CLICKS: usize = 256;
/// Workers for due tasks.
const INCIDENT_WORKERS: usize = 4;
/// The tasks that serve HTTP.
const SERVER: &str = "server";
const SCRAPED: &str = "metrics";
const PAGE: &str = "page server";
/// The task that handles clicks of Socket Mode.
const CLICKED: &str = "clicks";

/// The parts built from one config. A reload builds them again and replaces them as a whole.
#[derive(Debug, Clone)]
struct Running {
    settings: LoadedConfig,
    engine: Arc<Engine>,
    slack: Option<Arc<Slack>>,
    clicks: Option<Arc<Clicks>>,
    context: Arc<http::Context>,
    incident_worker: Arc<IncidentWorker>,
    archiver: Arc<Archiver>,
    slack_notifier: Option<Arc<SlackNotifier>>,
    notifiers: Notifiers,
}

/// The parts that outlive every config.
#[derive(Debug, Clone)]
struct LongLived {
    readiness: watch::Receiver<Readiness>,
    reloader: Reloader,
    replies: mpsc::Sender<EphemeralReply>,
    acknowledged: Acknowledged,
    books: Books,
    updates: Updates,
}

impl Running {
    fn new(settings: LoadedConfig, clock: Clock, shared: &LongLived) -> Result<Self, AppError> {
        for problem in Proxies::invalid_variables() {
            tracing::warn!("{problem}");
        }
        let store = Store::new(&settings.config.redis, clock)?;
        let reloader = shared.reloader.clone();
        store.read_login_by(LoginReader::new(move || {
            let reloader = reloader.clone();
            async move { reloader.look().await }.boxed()
        }));
        let slack = Slack::new(&settings.config.slack)?.map(Arc::new);
        let store = store.notifying(notify::subscriptions(&settings.config));
        let engine = Engine::new(store, settings.config.policy());
        let archive = Self::archive(&settings.config);
        Self::with(settings, engine, slack, archive, shared)
    }

    fn archive(config: &Config) -> Option<Arc<Archive>> {
        config.retention.archive.as_deref().map(|folder| Arc::new(Archive::new(ArchiveDirectory::new(folder))))
    }

    /// The parts for other settings; `touched` tells whether a key with this prefix has changed.
    fn reconfigured(
        &self,
        settings: LoadedConfig,
        touched: impl Fn(&str) -> bool,
        shared: &LongLived,
    ) -> Result<Self, AppError> {
        let config = &settings.config;
        let store =
            if touched("redis.") { self.engine.store.reconfigured(&config.redis)? } else { self.engine.store.clone() };
        // the client knows ids of channels by now, and Socket Mode uses it
        let slack =
            if ["slack.bot_token", "slack.app_token", "slack.api_url", "slack.proxy_url"].into_iter().any(&touched) {
                Slack::new(&config.slack)?.map(Arc::new)
            } else {
                self.slack.clone()
            };
        let engine = self.engine.reconfigured(store.notifying(notify::subscriptions(config)), config.policy());
        // a failing archive keeps its back-off, whatever else changes
        let archive = if touched("retention.archive") {
            engine.metrics.archive_replaced();
            Self::archive(config)
        } else {
            self.archiver.archive.clone()
        };
        Self::with(settings, engine, slack, archive, shared)
    }

    fn with(
        settings: LoadedConfig,
        engine: Engine,
        slack: Option<Arc<Slack>>,
        archive: Option<Arc<Archive>>,
        shared: &LongLived,
    ) -> Result<Self, AppError> {
        let (config, engine) = (&settings.config, Arc::new(engine));
        let clicks = slack.is_some().then(|| {
            let LongLived { replies, acknowledged, .. } = shared;
            let clicks =
                Clicks::new(Arc::clone(&engine), config.deciders.clone(), replies.clone(), acknowledged.clone());
            Arc::new(clicks.only_from(config.slack.team_id.as_deref(), config.slack.expected_app()))
        });
        let context = http::Context::new(
            config,
            within_open_files(config.server.max_connections, config.page.listen.is_some()),
            Arc::clone(&engine),
            shared.readiness.clone(),
            shared.reloader.clone(),
            clicks.clone(),
            shared.books.clone(),
        )
        .showing(shared.updates.clone());
        let precheck = config.registry.precheck_url.as_deref().map(Precheck::new).transpose();
        let archiver = Arc::new(Archiver { engine: Arc::clone(&engine), archive });
        let worker = IncidentWorker {
            engine: Arc::clone(&engine),
            alertmanagers: Alertmanagers::new(&config.alertmanager)?,
            verifier: Verifier {
                engine: Arc::clone(&engine),
                prometheus: Prometheus::new(&config.prometheus)?,
                precheck: precheck.map_err(AppError::Precheck)?,
                labels: config.labels.clone(),
                abort_query: config.gradual.abort_query.clone(),
            },
            archiver: Arc::clone(&archiver),
            prompt_label: config.labels.prompt.clone(),
        };
        let schedules = config.deciders.iter().filter_map(|(name, decider)| Schedule::of(name, decider).transpose());
        let schedules: Vec<Schedule> = schedules.collect::<Result<_, _>>().map_err(AppError::Notifiers)?;
        let slack_notifier = slack.clone().map(|slack| {
            Arc::new(SlackNotifier {
                engine: Arc::clone(&engine),
                slack,
                deciders: config.deciders.clone(),
                schedules,
                incident_channel: config.slack.incident_channel.clone(),
                weekly: config.report.weekly,
                message_interval: MESSAGE_INTERVAL,
            })
        });
        let notifiers = notify::all(config, &engine, slack_notifier.clone()).map_err(AppError::Notifiers)?;
        let (context, worker) = (Arc::new(context), Arc::new(worker));
        Ok(Self {
            context,
            archiver,
            incident_worker: worker,
            slack_notifier,
            notifiers,
            clicks,
            slack,
            engine,
            settings,
        })
    }
}

/// A running receiver.
#[derive(Debug)]
pub struct App {
    pub address: SocketAddr,
    /// The address of `/metrics`, if it has its own.
    pub metrics_address: Option<SocketAddr>,
    /// Has the policy of the start; everything else is shared with later engines.
    pub engine: Arc<Engine>,
    reloader: Reloader,
    log_level: Current<LogLevel>,
    shutdown_timeout: Current<Duration>,
    tracing: Current<config::TracingConfig>,
    /// Where spans are exported.
    exporting: Option<Exporting>,
    acknowledged: Acknowledged,
    stop: watch::Sender<()>,
    tasks: Tasks,
}

impl App {
    /// Starts everything. Does not wait for Redis: until it is reachable, `/-/ready` says so, and requests are answered
    /// with 503.
    pub async fn start(settings: &LoadedConfig, clock: Clock) -> Result<Self, AppError> {
        // the process' default TLS provider; a second start finds it installed
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (health, readiness) = RedisHealth::new();
        let (reloader, asked) = Reloader::new();
        let (replies, queued) = mpsc::channel(EPHEMERAL_REPLIES);
        let (rule_book, rule_requests) = RuleBook::new();
        let figure_book = FigureBook::default();
        let books = Books { rules: rule_book, figures: figure_book.clone() };
        let updates = Updates::default();
        let acknowledged = Acknowledged::default();
        let shared = LongLived {
            readiness,
            reloader: reloader.clone(),
            replies,
            acknowledged: acknowledged.clone(),
            books,
            updates: updates.clone(),
        };
        let running = Running::new(settings.clone(), clock, &shared)?;
        let (address, listener) = listen("server.listen", settings.config.server.listen).await?;
        let scraped = match settings.config.metrics.listen {
            Some(address) => Some(listen("metrics.listen", address).await?),
            None => None,
        };
        // also while the page is off: a reload may switch it on
        let page = match settings.config.page.listen {
            Some(address) => Some(listen("page.listen", address).await?),
            None => None,
        };
        let engine = Arc::clone(&running.engine);
        settings.log_warnings();
        engine.metrics.config_in_force(true);
        engine.metrics.config_loaded(SystemTime::now());
        let live = Live::new(running);
        let engines = live.part(|running| Arc::clone(&running.engine));
        let workers = live.part(|running| Arc::clone(&running.incident_worker));
        let contexts = live.part(|running| Arc::clone(&running.context));
        let (stop, stopped) = watch::channel(());
        let mut tasks = Tasks::default();
        let until = |mut stopped: watch::Receiver<()>| async move {
            let _ = stopped.changed().await;
        };
        let serve = |site, listener, stopped| http::serve(site, listener, contexts.clone(), until(stopped));
        let metrics_address = scraped.as_ref().map(|(address, _)| *address);
        if let Some((_, scraped)) = scraped {
            tasks.spawn(SCRAPED, serve(Site::Metrics, scraped, stopped.clone()));
        }
        let page_address = page.as_ref().map(|(address, _)| *address);
        if let Some((_, page)) = page {
            tasks.spawn(PAGE, serve(Site::Page, page, stopped.clone()));
        }
        tasks.spawn(SERVER, serve(Site::Main, listener, stopped.clone()));
        let follower = engine.store.clone();
        let (clicks, clicked) = mpsc::channel(CLICKS);
        tasks.spawn("health", health.run(engines.clone()));
        tasks.spawn("drift", drift::run(engines.clone()));
        tasks.spawn("master", async move { follower.follow_master().await });
        tasks.spawn("survey", archive::run(engines.clone()));
        tasks.spawn("updates", updates::run(updates.clone(), engines.clone()));
        tasks.spawn("outage", outage::run(engines));
        tasks.spawn("notify", notify::run(live.part(|running| Arc::clone(&running.notifiers))));
        tasks.spawn("slack", slack::run(live.part(|running| running.slack_notifier.clone()), queued));
        tasks.spawn("socket", hear_clicks(live.part(workspace), clicks, until(stopped)));
        tasks.spawn(CLICKED, handle_clicks(live.part(|running| running.clicks.clone()), clicked));
        tasks.spawn("soak", soak::run(workers.clone()));
        tasks.spawn("canary", canary::run(workers.clone()));
        tasks.spawn("rules", rules::run(workers.clone(), rule_requests));
        tasks.spawn("page", page::run(workers.clone()));
        tasks.spawn("figures", figures::run(workers.clone(), figure_book, updates));
        tasks.spawn("archive", archive::run_processing(live.part(|running| Arc::clone(&running.archiver))));
        for _ in 0..INCIDENT_WORKERS {
            tasks.spawn("incidents", incidents::run(workers.clone()));
        }
        let log_level = live.part(|running| running.settings.config.log.level);
        let shutdown_timeout = live.part(|running| running.settings.config.server.shutdown_timeout);
        let tracing = live.part(|running| running.settings.config.tracing.clone());
        tasks.spawn("reload", reload::run(live, shared, asked));
        tracing::info!(%address, ?metrics_address, ?page_address, tls = settings.config.server.tls.is_some(), "listening");
        let exporting = None;
        Ok(Self {
            address,
            metrics_address,
            engine,
            reloader,
            log_level,
            shutdown_timeout,
            tracing,
            exporting,
            acknowledged,
            stop,
            tasks,
        })
    }

    /// Completes when one of its tasks has ended, which is always a fault.
    pub async fn ended(&mut self) -> TaskEnded {
        self.tasks.ended().await
    }

    /// Ends it: no new connections, requests under way and accepted clicks finish, then the workers stop, and the last spans are
    /// exported, all within `server.shutdown_timeout`, of which the last second is left for `last_resort`. What the workers had claimed is done by another replica once the lease expires.
    pub async fn shutdown(mut self) {
        let until = Instant::now() + graceful(self.shutdown_timeout.get());
        let _ = self.stop.send(()); // fails only if the servers have ended
        if timeout_at(until, self.tasks.finish(&[SERVER, SCRAPED, PAGE])).await.is_err() {
            tracing::warn!("requests in flight did not finish in time");
        }
        let clicks = async {
            self.tasks.finish(&[CLICKED]).await;
            self.acknowledged.handled().await;
        };
        if timeout_at(until, clicks).await.is_err() {
            tracing::warn!("accepted clicks did not finish in time");
        }
        self.tasks.stop().await;
        if let Some(exporting) = self.exporting {
            exporting.finish(until).await;
        }
    }
}

/// Binds to the address of a config key.
async fn listen(key: &'static str, address: SocketAddr) -> Result<(SocketAddr, TcpListener), AppError> {
    let bind = async {
        let listener = http::bind(address).await?;
        Ok((listener.local_addr()?, listener))
    };
    bind.await.map_err(|error| AppError::Listen { key, address, error })
}

#[cfg(test)]
mod tests;
