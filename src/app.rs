//! Builds all parts, runs them, and shuts them down in order.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::poll_fn;
use futures_util::{FutureExt, StreamExt};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::alertmanager::client::{AlertmanagerError, Alertmanagers};
use crate::config::{self, Config, LoadedConfig, LogLevel};
use crate::engine::{Engine, Readiness};
use crate::figures::FigureBook;
use crate::http::{self, Books, Site};
use crate::http_client::Proxies;
use crate::live::{Current, Live, Reloader};
use crate::notify::slack::{self, MESSAGE_INTERVAL, Schedule, SlackNotifier};
use crate::notify::{self, Notifiers};
use crate::prometheus::client::{Prometheus, PrometheusError};
use crate::reconciler::archive::files::ArchiveDirectory;
use crate::reconciler::archive::{self, Archive, Archiver};
use crate::reconciler::health::RedisHealth;
use crate::reconciler::incidents::{self, IncidentWorker};
use crate::reconciler::precheck::Precheck;
use crate::reconciler::verifier::Verifier;
use crate::reconciler::{canary, drift, figures, outage, page, rules, soak};
use crate::rules::RuleBook;
use crate::service::clicks::{Acknowledged, Clicks, EphemeralReply, handle_patiently};
use crate::service::updates::{self, Updates};
use crate::slack::client::{Slack, SlackError};
use crate::slack::payload::Interaction;
use crate::slack::socket;
use crate::store::link::LoginReader;
use crate::store::{Clock, Store, StoreError};
use otlp::{Exporter, Exporting};
use tasks::Tasks;

mod logging;
#[cfg_attr(not(feature = "otlp"), path = "app/no_otlp.rs")]
mod otlp;
mod reload;
mod tasks;

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
/// Clicks handled concurrently.
const CLICKS_AT_ONCE: usize = 16;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("{key}: cannot listen on {address}: {error}")]
    Listen { key: &'static str, address: SocketAddr, error: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("slack: {0}")]
    Slack(#[from] SlackError),
    #[error(transparent)]
    Alertmanager(#[from] AlertmanagerError),
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
    #[error("{0}")]
    Notifiers(String),
    #[error("registry.precheck_url: {0}")]
    Precheck(String),
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Ended(#[from] TaskEnded),
    #[error("tracing.otlp_endpoint: {0}")]
    Tracing(String),
}

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
        settings.warn_of_renamed_keys();
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
    /// exported, all within `server.shutdown_timeout`, of which the last second is left for [`last_resort`]. What the workers had claimed is done by another replica once the lease expires.
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

/// The settings for Socket Mode.
type Workspace = Option<(Arc<Slack>, config::SlackConfig)>;

fn workspace(running: &Running) -> Workspace {
    running.slack.clone().map(|slack| (slack, running.settings.config.slack.clone()))
}

/// Keeps Socket Mode connected, also after its settings are replaced, until `stopped`. Closes the queue at its end.
async fn hear_clicks(
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
async fn handle_clicks(clicks: Current<Option<Arc<Clicks>>>, mut interactions: mpsc::Receiver<Interaction>) {
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

/// The signals that control the process. One that arrives before the process serves is kept, and does not kill it.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn listen() -> Result<Self, AppError> {
        let listen = |kind| signal(kind).map_err(AppError::Signals);
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Completes at SIGTERM or SIGINT.
    pub async fn ended(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs `prompt-rollback serve` until SIGTERM or SIGINT, and reloads at SIGHUP.
pub async fn serve(settings: &LoadedConfig, mut signals: Signals) -> Result<(), AppError> {
    let exporter = Exporter::new(&settings.config.tracing);
    let set_log_level = logging::init(&settings.config, exporter.as_ref());
    let mut app = App::start(settings, Clock::default()).await?;
    app.exporting = exporter.map(|exporter| exporter.start(app.tracing.clone(), &app.engine.metrics)).transpose()?;
    last_resort(app.shutdown_timeout.clone()).map_err(AppError::Signals)?;
    run(app, &mut signals, set_log_level).await
}

/// The end of the time for a shutdown: one that still goes on then hangs, and the process is ended.
const HANGS: Duration = Duration::from_secs(1);

/// How much of `limit` a shutdown that does not hang may take.
fn graceful(limit: Duration) -> Duration {
    limit - HANGS.min(limit / 2)
}

/// Starts a thread that ends the process at a second signal, or if the first one does not end it in time, even if the
/// serving thread hangs.
fn last_resort(limit: Current<Duration>) -> std::io::Result<()> {
    let watch = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AppError::Signals);
        let Err(error) = runtime.and_then(|runtime| runtime.block_on(insist(limit)));
        tracing::error!(%error, "the watchdog cannot run: a hanging shutdown would not be ended");
    };
    std::thread::Builder::new().name("last-resort".to_owned()).spawn(watch).map(drop)
}

/// Does not log before it exits: the process may hang because its log pipe is full.
async fn insist(limit: Current<Duration>) -> Result<Infallible, AppError> {
    let mut signals = Signals::listen()?;
    signals.ended().await;
    let _second = tokio::time::timeout(limit.get(), signals.ended()).await;
    std::process::exit(1)
}

/// Runs until a signal. If a task ends, the process ends as well, so that the service manager restarts it: a receiver
/// without one of its workers would look ready and leave work undone.
async fn run(mut app: App, signals: &mut Signals, set_log_level: impl Fn(LogLevel)) -> Result<(), AppError> {
    let ended = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            _ = signals.hangup.recv() => app.reloader.reload_soon("SIGHUP"),
            () = app.log_level.replaced() => set_log_level(app.log_level.get()),
            ended = app.tasks.ended() => break Err(ended),
        }
    };
    match &ended {
        Ok(()) => tracing::info!("shutting down"),
        Err(ended) => tracing::error!("{ended}; shutting down"),
    }
    app.shutdown().await;
    Ok(ended?)
}

/// Raises the limit of open files, whose soft value is often 1024, for this many connections, as many of the page if it
/// has its own address, and the receiver's own files. Returns the connections that the limit allows: without a free
/// descriptor, no new connection could be accepted to evict another.
fn within_open_files(connections: u32, page_apart: bool) -> u32 {
    const OURS: u64 = 256;
    let listeners = if page_apart { 2 } else { 1 };
    let limit = match rlimit::increase_nofile_limit(u64::from(connections) * listeners + OURS) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            return connections;
        }
    };
    let fit = u32::try_from(limit.saturating_sub(OURS).max(limit / 2) / listeners).unwrap_or(u32::MAX);
    if fit < connections {
        tracing::warn!(limit, connections = fit, "fewer than server.max_connections: raise the limit of open files");
    }
    connections.min(fit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadedConfig;

    /// Without Redis, because it does not wait for it.
    async fn app() -> App {
        let env =
            [("PROMPT_ROLLBACK_SERVER__LISTEN", "127.0.0.1:0"), ("PROMPT_ROLLBACK_REDIS__URL", "redis://127.0.0.1:1")];
        let env = env.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let settings = LoadedConfig::load(None, env.into_iter()).expect("a config");
        App::start(&settings, Clock::default()).await.expect("it starts")
    }

    #[tokio::test]
    async fn a_worker_that_ends_stops_the_receiver_with_a_reason() {
        let mut signals = Signals::listen().expect("signals");
        for (panics, said) in [(true, "the task act has panicked: boom"), (false, "the task act has ended")] {
            let mut app = app().await;
            let address = app.address;
            tokio::net::TcpStream::connect(address).await.expect("it serves");
            app.tasks.spawn("act", async move { assert!(!panics, "boom") });
            let error = run(app, &mut signals, |_| ()).await.expect_err("it must not go on").to_string();
            assert!(error.starts_with(said), "{error}");
            assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it serves no more");
        }
    }

    #[test]
    fn a_shutdown_leaves_time_to_end_one_that_hangs() {
        for (limit, expected) in [(10_000, 9_000), (2_000, 1_000), (1_000, 500), (1, 0)] {
            let (limit, expected) = (Duration::from_millis(limit), Duration::from_millis(expected));
            assert!(graceful(limit).abs_diff(expected) < Duration::from_millis(1), "{limit:?}");
        }
    }

    #[tokio::test]
    async fn no_task_ends_by_itself() {
        let mut app = app().await;
        let waited = tokio::time::timeout(std::time::Duration::from_secs(3), app.ended()).await;
        assert!(waited.is_err(), "{waited:?}");
        app.shutdown().await;
    }
}
