//! Failovers of Redis: the new master lacks the latest commits of the old one.

use super::*;

/// What the store held before a commit.
#[derive(Clone)]
pub(super) struct Before {
    state: PromptState,
    active: Active,
    routing: Vec<(String, String)>,
    paused: Option<String>,
    outage_hold: Option<String>,
    recent_auto: u32,
    heartbeat: Option<Heartbeat>,
    /// Of those that the commit wrote.
    incidents: Vec<(IncidentId, Option<Incident>)>,
    logged: usize,
    wakes: BTreeMap<IncidentId, Timestamp>,
    canary_wake: Option<Timestamp>,
    soak_wake: Option<Timestamp>,
    contents: BTreeMap<VersionName, String>,
    ledger: Ledger,
}

impl Before {
    fn of(world: &World, commit: &Commit) -> Self {
        let written = commit.incidents.iter().map(|write| &write.incident.id);
        Self {
            state: world.state.clone(),
            active: world.active.clone(),
            routing: world.routing.clone(),
            paused: world.paused.clone(),
            outage_hold: world.outage_hold.clone(),
            recent_auto: world.recent_auto,
            heartbeat: world.heartbeat.clone(),
            incidents: written.map(|id| (id.clone(), world.incidents.get(id).cloned())).collect(),
            logged: world.log.len(),
            wakes: world.wakes.clone(),
            canary_wake: world.canary_wake,
            soak_wake: world.soak_wake,
            contents: world.contents.clone(),
            ledger: world.ledger.clone(),
        }
    }
}

impl World {
    /// The most commits that a failover can lose.
    pub const LOST: usize = 8;

    /// Remembers what `commit` replaces.
    pub(super) fn remember(&mut self, commit: &Commit) {
        if self.past.len() == Self::LOST {
            self.past.pop_front();
        }
        let before = Before::of(self, commit);
        self.past.push_back(Rc::new(before));
        self.revision += 1;
    }

    /// No failover loses what has happened so far.
    pub fn replicate(&mut self) {
        self.past.clear();
    }

    /// The new master lacks the last `lost` commits. Time, ids and what is outside of Redis go on.
    pub fn fail_over(&mut self, lost: usize) {
        for _ in 0..lost {
            let Some(before) = self.past.pop_back() else { return };
            self.restore(Rc::unwrap_or_clone(before));
        }
    }

    fn restore(&mut self, before: Before) {
        let Before { state, active, routing, paused, outage_hold, recent_auto, heartbeat, incidents, .. } = before;
        (self.state, self.active, self.routing) = (state, active, routing);
        (self.paused, self.outage_hold, self.recent_auto) = (paused, outage_hold, recent_auto);
        (self.heartbeat, self.contents) = (heartbeat, before.contents);
        (self.wakes, self.canary_wake, self.soak_wake) = (before.wakes, before.canary_wake, before.soak_wake);
        for (id, incident) in incidents {
            match incident {
                Some(incident) => self.incidents.insert(id, incident),
                None => self.incidents.remove(&id),
            };
        }
        self.log.truncate(before.logged);
        self.ledger.rewind(before.ledger);
        self.woken = None;
        self.revision -= 1;
    }
}
