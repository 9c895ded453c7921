//! What a command has changed.

use super::{arrow, name, version};
use crate::api::{
    ChangeResponse, DecideResponse, KeyChange, MarkResponse, PauseResponse, RegisterResponse, ReloadResponse,
    RestoreResponse,
};
use crate::cli::table::{clean, time};
use crate::config;
use crate::decision::MarkKind;

pub fn registered(r: &RegisterResponse) -> String {
    let what = if r.created { "is registered" } else { "was already registered" };
    let good = if r.known_good { ", known-good" } else { "" };
    format!("{} {} {what}{good}\n", name(&r.prompt), clean(&r.version))
}

pub fn marked(m: &MarkResponse) -> String {
    let (name, version) = (name(&m.prompt), clean(&m.version));
    let already = if m.unchanged { " already" } else { "" };
    let follows = match MarkKind::parse(&m.mark) {
        Some(MarkKind::Bad) => ": it is no longer a rollback target",
        Some(MarkKind::Good) => ": it is known-good",
        None => "",
    };
    let mut out = format!("{name}: {version} is marked as {}{already}{follows}\n", clean(&m.mark));
    out.push_str(&m.message.as_deref().map(|message| format!("{}\n", clean(message))).unwrap_or_default());
    out
}

pub fn restored(r: &RestoreResponse) -> String {
    let what = match r {
        RestoreResponse { unchanged: true, .. } => "was not archived",
        RestoreResponse { restored: true, .. } => "is restored from the archive",
        _ => "is not restored yet: the archive does not respond; the receiver keeps retrying",
    };
    format!("the content of {} {} {what}\n", name(&r.prompt), clean(&r.version))
}

/// Describes a split that begins, in one line.
fn shared(c: &ChangeResponse, percent: u8) -> String {
    let (to, from) = (clean(&c.to_version), version(c.from_version.as_deref()));
    format!("{}: {to} has {percent} % of the traffic, {from} the rest\n", name(&c.prompt))
}

pub fn activated(c: &ChangeResponse) -> String {
    let (name, to) = (name(&c.prompt), clean(&c.to_version));
    if let Some(percent) = c.percent {
        return shared(c, percent);
    }
    if c.unchanged {
        return format!("{name}: {to} is already active\n");
    }
    let before = c.from_version.as_deref().map(|from| format!(", it was {}", clean(from))).unwrap_or_default();
    format!("{name}: active is now {to}{before}\n")
}

pub fn rolled_back(c: &ChangeResponse) -> String {
    let (name, to) = (name(&c.prompt), clean(&c.to_version));
    let incident = incident_of(c);
    if c.unchanged {
        return format!("{name}: {to} is already active, nothing to do\n");
    }
    if !c.success {
        return confirming(c);
    }
    if let Some(percent) = c.percent {
        return format!("{}{incident}\n", shared(c, percent).trim_end());
    }
    let at = c.timestamp.as_deref().map(|at| format!(" at {}", time(at))).unwrap_or_default();
    format!("{name}: rolled back {}{at}{incident}\n", arrow(c.from_version.as_deref(), Some(&c.to_version)))
}

/// Nothing has changed yet.
fn confirming(c: &ChangeResponse) -> String {
    let (name, incident, prompt) = (name(&c.prompt), incident_of(c), clean(&c.prompt));
    format!("{name}: accepted and still being confirmed{incident}; see `prompt-rollback status {prompt}`\n")
}

fn incident_of(c: &ChangeResponse) -> String {
    c.incident.as_deref().map(|id| format!(", incident {}", clean(id))).unwrap_or_default()
}

pub fn decided(d: &DecideResponse) -> String {
    match d {
        DecideResponse::Changed(changed) if !changed.success => confirming(changed),
        DecideResponse::Changed(changed) => match changed.percent {
            Some(percent) => shared(changed, percent),
            None => format!("{}: active is now {}\n", name(&changed.prompt), clean(&changed.to_version)),
        },
        DecideResponse::Answered(answered) => match answered.prompts {
            Some(prompts) => format!("decided about {prompts} prompts: now being carried out one by one\n"),
            None => format!("the incident is now: {}\n", clean(&answered.phase)),
        },
    }
}

pub fn paused(p: &PauseResponse) -> String {
    let whose = p.prompt.as_deref().map_or("all prompts".into(), name);
    match (p.paused, p.changed, p.message.as_deref().map(clean)) {
        (true, true, _) => {
            format!("automatic rollbacks are paused for {whose}; people can still roll back\n")
        }
        (true, false, _) => format!("automatic rollbacks were already paused for {whose}\n"),
        (false, true, None) => format!("automatic rollbacks are resumed for {whose}\n"),
        (false, false, None) => format!("automatic rollbacks were not paused for {whose}\n"),
        (false, true, Some(message)) => format!("the pause of {whose} has ended. {message}\n"),
        (false, false, Some(message)) => format!("there was no pause of {whose}. {message}\n"),
    }
}

pub fn reloaded(r: &ReloadResponse) -> String {
    let mut out = String::new();
    for (changes, what) in [
        (&r.changed, "reloaded; what has changed:"),
        (&r.needs_restart, "needs a restart; until then the old value stays in force:"),
    ] {
        if !changes.is_empty() {
            out.push_str(&format!("{what}\n"));
        }
        for KeyChange { key, from, to } in changes {
            let change = config::ConfigChange { key: key.clone(), values: from.clone().zip(to.clone()) };
            out.push_str(&format!("  {}\n", clean(&change.to_string())));
        }
    }
    if r.changed.is_empty() {
        out.insert_str(0, "reloaded; nothing has changed\n");
    }
    out
}
