//! Faults at the boundaries of commands, chosen from a seed.

use crate::Rng;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

/// What happens to one command and its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boundary {
    /// No fault.
    Pass,
    /// The command arrives this much later.
    Delay(Duration),
    /// The command never arrives; the connection closes.
    Cut,
    /// Half of the command arrives; the connection closes.
    CutInside,
    /// The command is run; its reply is dropped, and the connection closes.
    LoseReply,
    /// The command is run; this connection stays open, but answers nothing any more.
    Silence,
    /// This many bytes of the reply arrive; the connection closes.
    CutReply(usize),
    /// The command is run, like all that follow; the client reads the end of the stream instead of replies.
    HalfCloseClient,
    /// The command is run, and answered if that is quick; the server then reads the end of the stream.
    HalfCloseServer,
}

impl Boundary {
    fn name(self) -> &'static str {
        match self {
            Boundary::Pass => "passed",
            Boundary::Delay(_) => "delayed",
            Boundary::Cut => "cut before a command",
            Boundary::CutInside => "cut inside a command",
            Boundary::LoseReply => "reply swallowed, then cut",
            Boundary::Silence => "reply swallowed, then silence",
            Boundary::CutReply(_) => "cut inside a reply",
            Boundary::HalfCloseClient => "half-closed to the client",
            Boundary::HalfCloseServer => "half-closed to the server",
        }
    }
}

/// Disturbs this many commands in a thousand, and counts the faults.
#[derive(Debug)]
pub(super) struct Plan {
    per_mille: u64,
    rng: Mutex<Rng>,
}

impl Plan {
    pub(super) fn new(rng: Rng, per_mille: u64) -> Self {
        Self { per_mille, rng: Mutex::new(rng) }
    }

    pub(super) fn draw(&self) -> Boundary {
        let mut rng = self.rng.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !rng.chance(self.per_mille) {
            return Boundary::Pass;
        }
        match rng.below(12) {
            0..=2 => Boundary::Delay(Duration::from_millis(1 + rng.below(120))),
            3 => Boundary::Cut,
            4 => Boundary::CutInside,
            5..=7 => Boundary::LoseReply,
            8 => Boundary::Silence,
            9 => Boundary::CutReply(rng.below(24) as usize),
            10 => Boundary::HalfCloseClient,
            _ => Boundary::HalfCloseServer,
        }
    }
}

/// How often each fault occurred, by name.
#[derive(Debug, Default)]
pub(super) struct Struck(Mutex<BTreeMap<&'static str, u64>>);

impl Struck {
    pub(super) fn note(&self, boundary: Boundary) {
        *self.lock().entry(boundary.name()).or_default() += 1;
    }

    pub(super) fn all(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.lock().clone();
        all.remove(Boundary::Pass.name());
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
