//! The health of Redis, for `/-/ready`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::engine::{Engine, Readiness};
use crate::live::Current;
use crate::store::StoreError;

/// How soon the receiver reports that Redis is back.
const EVERY: Duration = Duration::from_millis(500);
/// How often Redis is tested again, because the settings of a running Redis may change.
const RETEST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct RedisHealth {
    sender: watch::Sender<Readiness>,
    tested: Option<(u64, tokio::time::Instant, Option<String>)>,
    /// The warnings of the last self-test.
    warned: Vec<String>,
}

impl RedisHealth {
    pub fn new() -> (Self, watch::Receiver<Readiness>) {
        let (sender, receiver) = watch::channel(Err("starting".to_owned()));
        (Self { sender, tested: None, warned: Vec::new() }, receiver)
    }

    /// Checks once.
    pub async fn look(&mut self, engine: &Engine) {
        let readiness = self.probe(engine).await;
        engine.metrics.ready(readiness.is_ok());
        self.sender.send_if_modified(|before| {
            if *before == readiness {
                return false;
            }
            match &readiness {
                Ok(()) => tracing::info!("ready"),
                Err(reason) => tracing::warn!(reason, "not ready"),
            }
            *before = readiness;
            true
        });
    }

    async fn probe(&mut self, engine: &Engine) -> Readiness {
        let explain = |error: StoreError| {
            engine.metrics.redis_error(&error);
            error.to_string()
        };
        engine.store.probe().await.map_err(&explain)?;
        let generation = engine.store.generation();
        let fresh = |(g, at, problem): &&(u64, tokio::time::Instant, Option<String>)| {
            *g == generation && at.elapsed() < if problem.is_some() { EVERY * 4 } else { RETEST }
        };
        let problem = match self.tested.as_ref().filter(fresh) {
            Some((_, _, problem)) => problem.clone(),
            None => {
                let test = engine.store.selftest().await.map_err(&explain)?;
                let problem = test.problem();
                self.tested = Some((generation, tokio::time::Instant::now(), problem.clone()));
                self.warn(test.warnings());
                problem
            }
        };
        problem.map_or(Ok(()), |problem| Err(format!("redis is not usable: {problem}")))
    }

    /// Logs each warning once, as long as it lasts.
    fn warn(&mut self, warnings: Vec<String>) {
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            tracing::warn!("redis {warning}");
        }
        self.warned = warnings;
    }

    /// Runs while the process does.
    pub async fn run(mut self, engines: Current<Arc<Engine>>) {
        loop {
            self.look(&engines.get()).await;
            tokio::time::sleep(EVERY).await;
        }
    }
}
