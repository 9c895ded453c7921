//! A store, and the decisions for it.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback::decision::alert::{Alert, AlertStatus};
use prompt_rollback::decision::event::Register;
use prompt_rollback::decision::{
    Action, Activation, Commit, Event, IncidentId, Needs, Operator, Policy, PromptName, Severity, Timestamp,
    TrafficShare, Trigger, VersionName, decide,
};
use prompt_rollback::store::{Clock, Committed, Loaded, Store, StoreError};
use ulid::Ulid;

use crate::common::{Redis, config};

pub fn prompt(name: &str) -> PromptName {
    PromptName::parse(name).expect("a prompt name")
}

pub fn version(name: &str) -> VersionName {
    VersionName::parse(name).expect("a version")
}

/// A key of the default namespace.
pub fn key(rest: &str) -> String {
    format!("{{prompts}}:{rest}")
}

pub struct Kit {
    pub redis: Redis,
    pub store: Store,
    pub clock: Clock,
    pub policy: Policy,
}

impl Kit {
    pub fn start() -> Result<Self> {
        Self::on(Redis::start()?)
    }

    /// With the shipped permissions.
    pub fn on(redis: Redis) -> Result<Self> {
        let url = redis.receiver_url();
        Self::with(redis, &url, &[])
    }

    pub fn with(redis: Redis, url: &str, env: &[(&str, &str)]) -> Result<Self> {
        let clock = Clock::default();
        let store = Store::new(&config(url, env).redis, clock.clone())?;
        Ok(Self { redis, store, clock, policy: Policy::default() })
    }

    pub async fn load(&self, name: &str) -> Result<Loaded, StoreError> {
        self.store.load(&prompt(name), self.policy.budget_window, Needs::default()).await
    }

    /// Loads, and decides what is to be committed.
    pub async fn prepare(&self, name: &str, event: &Event) -> Result<(Loaded, Commit)> {
        let mut loaded = self.store.load(&prompt(name), self.policy.budget_window, event.needs()).await?;
        let id = || IncidentId(Ulid::generate().to_string());
        loaded.snapshot.fresh_ids = vec![id(), id()];
        let decision = decide(&self.policy, &loaded.snapshot, event, loaded.now);
        let commit = decision.commit.ok_or_else(|| anyhow::anyhow!("nothing to commit: {:?}", decision.answer))?;
        Ok((loaded, commit))
    }

    /// Loads, decides and commits.
    pub async fn does(&self, name: &str, event: Event) -> Result<Written> {
        let (loaded, commit) = self.prepare(name, &event).await?;
        let done = self.commit(&loaded, &commit).await?;
        anyhow::ensure!(matches!(done, Committed::Done { .. }), "{event:?}: {done:?}");
        Ok(Written(commit))
    }

    pub async fn commit(&self, loaded: &Loaded, commit: &Commit) -> Result<Committed, StoreError> {
        self.store.commit(&Ulid::generate().to_string(), loaded, commit).await
    }

    /// Runs `looks` while the key holds a set, which no key of the receiver may hold.
    pub async fn while_broken(&self, name: &str, looks: impl AsyncFnOnce(&str) -> Result<()>) -> Result<()> {
        let (broken, backup) = (key(name), key("backup"));
        let existed: bool = self.cmd(&["EXISTS", &broken]).await?;
        if existed {
            self.cmd::<()>(&["RENAME", &broken, &backup]).await?;
        }
        self.cmd::<()>(&["SADD", &broken, "x"]).await?;
        looks(&broken).await?;
        self.cmd::<()>(&["DEL", &broken]).await?;
        if existed {
            self.cmd::<()>(&["RENAME", &backup, &broken]).await?;
        }
        Ok(())
    }

    pub async fn ship(&self, name: &str) -> Result<()> {
        self.does(name, register("v1", true, None)).await?;
        self.does(name, activate("v1")).await?;
        self.does(name, register("v2", false, None)).await?;
        self.does(name, activate("v2")).await?;
        Ok(())
    }

    pub async fn now(&self) -> Result<Timestamp> {
        Ok(self.load("any").await?.now)
    }

    pub async fn cmd<T: redis::FromRedisValue>(&self, args: &[&str]) -> Result<T> {
        self.redis.cmd(args).await
    }

    pub async fn dump(&self) -> Result<std::collections::BTreeMap<String, Vec<u8>>> {
        crate::common::dump(&self.redis).await
    }
}

pub fn register(name: &str, known_good: bool, content: Option<&str>) -> Event {
    Event::Register(Register {
        version: version(name),
        content: content.map(str::to_owned),
        contact: None,
        staged_at: None,
        known_good,
    })
}

pub fn activate(name: &str) -> Event {
    Event::Activate(Activation {
        version: version(name),
        share: TrafficShare::All,
        operator: Operator::recorded("mia"),
        force: false,
        reason: None,
    })
}

/// One alert on `name`, version `v2`.
pub fn alert(name: &str, severity: Severity, action: Action, status: AlertStatus) -> Event {
    Event::Alerts(vec![Alert {
        fingerprint: format!("{name} {severity}"),
        alertname: "PromptErrorRate".to_owned(),
        prompt: prompt(name),
        version: version("v2"),
        status,
        trigger: Trigger {
            severity,
            action,
            decider: "on-call".to_owned(),
            time_limit: Duration::from_secs(120),
            remarks: Vec::new(),
        },
        starts_at: None,
        ends_at: None,
        summary: "v2 fails".to_owned(),
        description: String::new(),
        value: "9 %".to_owned(),
        verify: String::new(),
        runbook_url: String::new(),
        measure: Default::default(),
        dashboard_url: String::new(),
        generator_url: String::new(),
        alertmanager_url: String::new(),
        group_labels: Default::default(),
    }])
}

pub fn critical(name: &str) -> Event {
    alert(name, Severity::Critical, Action::Rollback, AlertStatus::Firing)
}

pub fn paging(name: &str) -> Event {
    alert(name, Severity::High, Action::Page, AlertStatus::Firing)
}

/// A commit that Redis holds.
pub struct Written(pub Commit);

impl std::ops::Deref for Written {
    type Target = Commit;

    fn deref(&self) -> &Commit {
        &self.0
    }
}
