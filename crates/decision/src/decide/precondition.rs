//! Preconditions of people's requests. Each refusal says what to do instead.

use super::transaction::Transaction;
use crate::gates::closed;
use crate::{Gate, IncidentId, OrRefusal, Pending, Refusal, RefusalCode, Switch, TrafficSplit, VersionName};

pub(super) fn must_be_known(tx: &Transaction<'_>) -> OrRefusal<()> {
    if tx.state.versions.is_empty() && tx.served_text().is_none() {
        let prompt = tx.snapshot.prompt.name();
        return Err(Refusal::new(RefusalCode::UnknownPrompt, format!("no prompt {prompt} is registered or active")));
    }
    Ok(())
}

pub(super) fn unknown_version(tx: &Transaction<'_>, version: &VersionName) -> Refusal {
    let prompt = tx.snapshot.prompt.name();
    Refusal::new(
        RefusalCode::UnknownVersion,
        format!("{version} is not a registered version of {prompt}: register it first"),
    )
}

/// `target` may be served again instead of `from` if it is known-good and not quarantined, the default target, or forced. It
/// must be registered.
pub(super) fn must_be_allowed(
    tx: &Transaction<'_>,
    from: Option<&VersionName>,
    target: &VersionName,
    force: bool,
) -> OrRefusal<()> {
    let Some(record) = tx.state.version(target) else {
        return Err(unknown_version(tx, target));
    };
    let named_or_not = || tx.state.target(from, tx.policy, tx.now) == Some(target);
    if force || record.is_target(tx.policy, tx.now) || named_or_not() {
        return Ok(());
    }
    must_not_be_bad(tx, target, force)?;
    let why = match (&record.quarantine, &record.fled) {
        (Some(_), _) => "was rolled back and is quarantined".to_owned(),
        (None, Some(fled)) => fled.spoken(tx.now),
        (None, None) => "is not known-good".to_owned(),
    };
    Err(Refusal::new(RefusalCode::NeedsForce, format!("{target} {why}: use force to activate it anyway")))
}

pub(super) fn no_known_good(tx: &Transaction<'_>, from: Option<&VersionName>) -> Refusal {
    let prompt = tx.snapshot.prompt.name();
    let fled = tx.fled_text(from).map(|text| format!(" ({text})")).unwrap_or_default();
    let message =
        format!("{prompt} has no other known-good version{fled}: name a target_version, or mark one as known-good");
    Refusal::new(RefusalCode::NoKnownGood, message)
}

/// Refuses to undo or continue a switch that another change followed.
pub(super) fn must_be_last_move(tx: &Transaction<'_>, switch: &Switch) -> OrRefusal<()> {
    if tx.state.is_last_move(switch) && tx.has_traffic(&switch.to) {
        return Ok(());
    }
    let to = &switch.to;
    let message = match tx.served_text() {
        None => format!("the traffic has changed since this rollback to {to}: nothing is active now"),
        Some(active) if active == to.as_str() => format!(
            "the traffic has changed since this rollback to {to}, which is active again or was shared: use `prompt-rollback rollback` or `prompt-rollback activate`"
        ),
        Some(active) => format!("the traffic has changed since this rollback to {to}: {active} is active now"),
    };
    Err(Refusal::new(RefusalCode::Moved, message))
}

/// Refuses to overwrite an `active` that holds no version, unless an earlier commit has recorded that: people have then been told.
pub(super) fn must_be_seen(tx: &Transaction<'_>, force: bool) -> OrRefusal<()> {
    match tx.state.lapsed.as_ref().filter(|_| !force && tx.snapshot.state.lapsed != tx.state.lapsed) {
        None => Ok(()),
        Some(lapsed) => {
            Err(Refusal::new(RefusalCode::Moved, format!("{}: check it, and repeat the request", lapsed.fault())))
        }
    }
}

/// Refuses a switch to a version that is marked as bad, unless forced.
pub(super) fn must_not_be_bad(tx: &Transaction<'_>, version: &VersionName, force: bool) -> OrRefusal<()> {
    match tx.state.marked_bad(version).filter(|_| !force) {
        None => Ok(()),
        Some(mark) => {
            let message = format!("{version} is {mark}: use force to activate it anyway");
            Err(Refusal::new(RefusalCode::NeedsForce, message))
        }
    }
}

/// Refuses a second split, also while another one waits for an answer to begin, except that of incident `own`.
pub(super) fn must_be_free(tx: &Transaction<'_>, own: Option<&IncidentId>) -> OrRefusal<()> {
    let refusal = |message| Err(Refusal::new(RefusalCode::SplitUnderWay, message));
    if let Some(split) = tx.state.split() {
        let what = if tx.state.running_canary().is_some() { "a canary" } else { "a gradual rollback" };
        let TrafficSplit { leaving, arriving, operator, .. } = split;
        let percent = split.percent();
        return refusal(format!(
            "{what} from {leaving} to {arriving} is under way ({percent} % on {arriving}, by {operator})"
        ));
    }
    if let Some(lapsed) = &tx.state.lapsed {
        let message = format!("{}: a version can be activated, but not with a share of the traffic", lapsed.fault());
        return Err(Refusal::new(RefusalCode::Moved, message));
    }
    let others = tx.state.open_incidents().filter(|incident| Some(&incident.id) != own);
    let mut pending = others.filter_map(|incident| incident.pending());
    match pending.find(|pending| pending.gradual.is_some()) {
        Some(Pending { from, to, operator, .. }) => {
            refusal(format!("a gradual rollback from {from} to {to} is about to begin (requested by {operator})"))
        }
        None => Ok(()),
    }
}

/// Checks that the gates let `version` have a share of the traffic, or all of it (`all`). Force with a reason overrides
/// a closed gate; returns what to log of that.
pub(super) fn must_be_open(
    tx: &Transaction<'_>,
    version: &VersionName,
    all: bool,
    force: bool,
    reason: Option<&str>,
) -> OrRefusal<Option<String>> {
    let Some(Gate { name, text, .. }) = closed(tx.policy, &tx.state, version, all, tx.now) else {
        return Ok(None);
    };
    let refuse = |hint: &str| {
        Err(Refusal::new(RefusalCode::GateClosed, format!("{version} has not passed the gate {name}: {text}. {hint}")))
    };
    match (force, reason) {
        (true, Some(reason)) => Ok(Some(format!("gate {name} overridden: {reason} ({text})"))),
        (true, None) => refuse("Give a reason, for the deployment log"),
        (false, _) => refuse("Use force with a reason to activate it anyway"),
    }
}

impl Transaction<'_> {
    /// Refuses to activate a version without its content, unless its content is known to be lost and the request is
    /// forced.
    pub(super) fn must_have_content(&self, version: &VersionName, force: bool) -> OrRefusal<()> {
        let archived = self.state.version(version).filter(|r| r.has_content).and_then(|r| r.archived.as_ref());
        let Some(archived) = archived.filter(|archived| !(force && archived.fault.is_some())) else { return Ok(()) };
        let prompt = &self.snapshot.prompt;
        let message = match &archived.fault {
            None => format!(
                "the content of {version} is in the archive: restore it first, with `prompt-rollback restore {prompt} {version}`"
            ),
            Some(fault) => {
                format!(
                    "the content of {version} is in the archive: {fault}; use force to activate the version without its content"
                )
            }
        };
        Err(Refusal::new(RefusalCode::Archived, message))
    }
}
