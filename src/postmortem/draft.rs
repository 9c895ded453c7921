//! The post-mortem draft, in Markdown.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::diff::diff;
use super::samples::{SampleSeries, Samples};
use super::text::{code, count, escaped, link, moment, took};
use super::timeline::{in_service_since, timeline};
use super::{PostmortemFacts, chart, steps};
use crate::decision::alert::AlertRecord;
use crate::decision::note::{Note, NoteKind};
use crate::decision::switch::Switch;
use crate::decision::{Action, Guard, Incident, PhaseKind, RollbackFailure, SwitchMode};
use crate::visible::shown;
use crate::wording::change;

const MAX_ALERTS: usize = 10;
/// Characters that would end an address in Markdown early, or be read as part of it.
const IN_DATA: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'#').add(b'%').add(b'&').add(b'(').add(b')').add(b'\'');

/// Deterministic: the same facts give the same text.
pub fn draft(facts: &PostmortemFacts<'_>) -> String {
    let incident = facts.incident;
    let mut text =
        format!("# Post-mortem: {} {}\n\n", escaped(&shown(&incident.prompt)), escaped(incident.version.as_str()));
    text.push_str(&format!("Draft for incident `{}`, severity {}. ", incident.id, incident.severity));
    text.push_str("Measured facts are filled in. People answer the questions at the end.\n");
    let picture = facts.samples.and_then(|samples| chart::svg(samples, incident.switch.as_ref().map(|f| f.at)).ok());
    let mut section = |title: &str, body: String| text.push_str(&format!("\n## {title}\n\n{body}"));
    section("Summary", summary(facts));
    section("Impact", impact(facts, picture.is_some()));
    section("Durations", steps::table(facts));
    section("Decision", decision(facts));
    section(&format!("After the {}", change(incident)), after(facts));
    section("Timeline", timeline(facts));
    section("Alerts", alerts(incident));
    section("What changed in the prompt", changes(facts));
    section("Questions", questions(facts));
    // last, because it is long; a reference keeps it out of the text
    if let Some(svg) = picture {
        let data = utf8_percent_encode(svg.trim_end(), IN_DATA);
        text.push_str(&format!("\n[picture]: data:image/svg+xml;charset=utf-8,{data}\n"));
    }
    text
}

fn summary(facts: &PostmortemFacts<'_>) -> String {
    let incident = facts.incident;
    let mut text = match (&incident.switch, facts.earlier_rollback()) {
        (Some(switch), earlier) => rolled_back(incident, switch, earlier),
        (None, Some(earlier)) => format!("{}.", rolled_back_before(incident, earlier)),
        (None, None) => format!("`{}` of `{}` was not rolled back.", incident.version, shown(&incident.prompt)),
    };
    text.push_str(&format!(" {}\n", outcome(facts)));
    let trouble = escaped(incident.summary());
    if !trouble.is_empty() {
        text.push_str(&format!("\nReason: {trouble}\n"));
    }
    text
}

fn rolled_back_before(incident: &Incident, note: &Note) -> String {
    format!("`{}` was rolled back at {} ({})", shown(&incident.prompt), moment(note.at), escaped(&note.text))
}

fn rolled_back(incident: &Incident, switch: &Switch, earlier: Option<&Note>) -> String {
    let Switch { at, from, to, mode, operator, .. } = switch;
    if *mode == SwitchMode::Shipped {
        let (operator, at) = (escaped(operator.as_str()), moment(*at));
        return match earlier {
            Some(note) => {
                let before = rolled_back_before(incident, note);
                format!("{before}; {operator} then replaced `{from}` with `{to}` at {at}.")
            }
            None => {
                let prompt = shown(&incident.prompt);
                format!("`{prompt}` was not rolled back: {operator} replaced `{from}` with `{to}` at {at}.")
            }
        };
    }
    let how = match mode {
        SwitchMode::Auto => "automatically".to_owned(),
        SwitchMode::Approved => format!("after {} approved it", escaped(operator.as_str())),
        SwitchMode::Manual => format!("by {}", escaped(operator.as_str())),
        SwitchMode::Gradual | SwitchMode::Shipped => {
            format!("gradually, as requested by {},", escaped(operator.as_str()))
        }
    };
    format!("`{}` was rolled back from `{from}` to `{to}` {how} at {}.", shown(&incident.prompt), moment(*at))
}

fn outcome(facts: &PostmortemFacts<'_>) -> String {
    let incident = facts.incident;
    let by = incident.decided_by.as_ref().map_or("someone".to_owned(), |by| escaped(by.as_str()));
    match (incident.phase.kind(), facts.recovered_at()) {
        (PhaseKind::Recovered, Some(at)) => format!("It recovered at {}.", moment(at)),
        (PhaseKind::Recovered, None) => "It recovered.".to_owned(),
        (PhaseKind::Unverified, _) => "Recovery could not be measured.".to_owned(),
        (PhaseKind::Escalated, _) if incident.failure() == Some(RollbackFailure::NotFollowed) => {
            let change = change(incident);
            format!(
                "Some prompt servers still serve the bad version: the incident stays open until they follow the {change}."
            )
        }
        (PhaseKind::Escalated, _) if incident.is_shipped() && !incident.is_measured_bad() => {
            "Recovery could not be measured: the incident is open and needs a person.".to_owned()
        }
        (PhaseKind::Escalated, _) => "The bad behavior continued: the incident is open and needs a person.".to_owned(),
        (PhaseKind::Dismissed, _) => format!("It was dismissed by {by}."),
        (PhaseKind::Resolved, _) if incident.asks_about_canary() => "The question about the canary ended.".to_owned(),
        (PhaseKind::Resolved, _) => "The alerts resolved without action.".to_owned(),
        (PhaseKind::Superseded, _) => "Another version was activated.".to_owned(),
        (phase, _) => format!("The incident is still open ({phase}): this draft is not final."),
    }
}

fn impact(facts: &PostmortemFacts<'_>, has_picture: bool) -> String {
    let Some(samples) = facts.samples else {
        let why = facts.unmeasured.map_or("no samples were stored for this incident".to_owned(), escaped);
        return format!("{}- Not measured: {why}.\n", exposure(facts));
    };
    let mut text = exposure(facts);
    let end = if facts.recovered_at().is_some() { "recovery" } else { "the end of the measurements" };
    let span = format!("between the first bad sample and {end}");
    match samples.bad_responses.and_then(count) {
        Some(number) => {
            text.push_str(&format!("- Bad responses of {} {span}: {number}.\n", code(&samples.bad.version)));
        }
        // for example bad throughout the time shown
        None if samples.first_bad().is_none() => {
            text.push_str("- The number of bad responses is unknown: the measurements do not show the first one.\n");
        }
        None => text.push_str(&format!("- The number of bad responses {span} could not be measured.\n")),
    }
    text.push_str(&extremes(samples));
    if has_picture {
        let (label, change) = (escaped(&samples.label), change(facts.incident));
        text.push_str(&format!("\n![{label} of both versions around the {change}][picture]\n"));
    }
    text
}

/// How long the version had traffic.
fn exposure(facts: &PostmortemFacts<'_>) -> String {
    let incident = facts.incident;
    let (Some(since), Some(left)) = (in_service_since(facts), facts.left_at()) else { return String::new() };
    let is_replaced = incident.is_shipped() && facts.earlier_rollback().is_none();
    let end = if is_replaced { "it was replaced" } else { "the rollback" };
    format!("- `{}` was in service for {} before {end}.\n", incident.version, took(left.since(since)))
}

fn extremes(samples: &Samples) -> String {
    let Samples { label, unit, threshold, .. } = samples;
    let range = |series: &SampleSeries| {
        let values = series.points().iter().filter_map(|(_, value)| *value);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        match low <= high {
            true => format!("from {} to {}", unit.format(low), unit.format(high)),
            false => "no data".to_owned(),
        }
    };
    let said: Vec<_> = samples.series().map(|s| format!("{}: {}", escaped(&s.version), range(s))).collect();
    let mut text = format!("- Measured {}, {}", escaped(label), said.join("; "));
    if let Some(threshold) = threshold.filter(|value| value.is_finite()) {
        text.push_str(&format!(" (threshold {})", unit.format(threshold)));
    }
    format!("{text}.\n- Expression: {}\n", code(&samples.expression))
}

fn decision(facts: &PostmortemFacts<'_>) -> String {
    let incident = facts.incident;
    let text = match (&incident.switch, incident.decided_by.as_ref().map(|by| escaped(by.as_str()))) {
        (Some(_), _) if facts.ended_canary() => {
            "The system ended the canary, as for any alert of severity high or critical.".to_owned()
        }
        (Some(switch), _) if switch.mode == SwitchMode::Auto => {
            "The system decided automatically, as the alert requested.".to_owned()
        }
        (Some(switch), _) if switch.mode == SwitchMode::Manual => {
            format!("{} started the rollback manually.", escaped(switch.operator.as_str()))
        }
        (Some(switch), _) if switch.mode == SwitchMode::Shipped => {
            let (operator, from, to) = (escaped(switch.operator.as_str()), &switch.from, &switch.to);
            match facts.earlier_rollback() {
                Some(_) => format!("A replacement followed the rollback: {operator} replaced `{from}` with `{to}`."),
                None => format!("{operator} replaced the version instead of rolling it back."),
            }
        }
        (Some(switch), _) => {
            format!("{} approved. The decider was `{}`.", escaped(switch.operator.as_str()), escaped(&incident.decider))
        }
        (None, Some(by)) => format!("{by} decided. The decider was `{}`.", escaped(&incident.decider)),
        (None, None) if incident.phase.is_open() => {
            format!("No decision yet. The decider is `{}`.", escaped(&incident.decider))
        }
        (None, None) => "No one decided.".to_owned(),
    };
    let escalated = match incident.escalations {
        0 => String::new(),
        1 => " It was escalated once.".to_owned(),
        times => format!(" It was escalated {times} times."),
    };
    format!("{text}{escalated}\n\n{}", guards(facts))
}

fn guards(facts: &PostmortemFacts<'_>) -> String {
    let incident = facts.incident;
    let told = incident.notes.iter().filter(|note| note.kind == NoteKind::Held);
    let mut held: Vec<_> = told.map(|note| format!("- {} {}\n", moment(note.at), escaped(&note.text))).collect();
    if let (true, Some(now)) = (held.is_empty(), &incident.held) {
        held.push(format!("- held ({}): {}\n", now.guard.as_str(), escaped(&now.detail)));
    }
    let automatic = incident.switch.as_ref().is_some_and(|switch| switch.mode == SwitchMode::Auto);
    let is_requested = incident.alerts.iter().any(|alert| alert.action == Action::Rollback);
    match (held.is_empty(), automatic) {
        (false, _) => format!("Guards held the automatic rollback:\n\n{}", held.concat()),
        (true, true) if facts.ended_canary() => {
            "It ended a canary: only `paused`, `dry_run` and `predates_activation` apply, and they passed.\n".to_owned()
        }
        (true, true) => {
            // the notes say whether Prometheus was asked again
            let all = Guard::ALL.iter().filter(|guard| **guard != Guard::Unconfirmed);
            let all: Vec<_> = all.map(|guard| format!("`{}`", guard.as_str())).collect();
            format!("All guards passed: {}.\n", all.join(", "))
        }
        (true, false) if is_requested => "No guard held the automatic rollback.\n".to_owned(),
        (true, false) => "Guards were not checked: no alert requested an automatic rollback.\n".to_owned(),
    }
}

fn after(facts: &PostmortemFacts<'_>) -> String {
    if facts.incident.switch.is_none() && facts.earlier_rollback().is_none() {
        return "Nothing was rolled back.\n".to_owned();
    }
    let Some(verified) = &facts.verification else {
        return format!("No measurements after the {} were stored.\n", change(facts.incident));
    };
    let mut text = format!(
        "{} checks ran, and the last {} were healthy. Last finding: {}\n",
        verified.checks,
        verified.healthy_in_a_row,
        if verified.finding.is_empty() { "none".to_owned() } else { escaped(&verified.finding) }
    );
    if !verified.still_served_by.is_empty() {
        let instances: Vec<_> = verified.still_served_by.iter().take(20).map(|instance| escaped(instance)).collect();
        text.push_str(&format!("Instances that kept serving the bad version: {}\n", instances.join(", ")));
    }
    text
}

fn alerts(incident: &Incident) -> String {
    if incident.alerts.is_empty() {
        let why = if incident.asks_about_canary() {
            "a canary waited for a decision"
        } else {
            "a person started this rollback"
        };
        return format!("None: {why}.\n");
    }
    let mut alerts: Vec<_> = incident.alerts.iter().collect();
    alerts.sort_by_key(|alert| std::cmp::Reverse(alert.rank()));
    let mut text: String = alerts.iter().take(MAX_ALERTS).map(|alert| describe(alert)).collect();
    if alerts.len() > MAX_ALERTS {
        text.push_str(&format!("- and {} more\n", alerts.len() - MAX_ALERTS));
    }
    text
}

fn describe(alert: &AlertRecord) -> String {
    let AlertRecord { alertname, severity, action, decider, .. } = alert;
    let limit = took(alert.time_limit);
    let mut text =
        format!("- {} ({severity}): {action}, decided by {}, time limit {limit}", escaped(alertname), escaped(decider));
    let reference = ("compared with ", &alert.measure.reference);
    for (name, value) in [("", &alert.summary), ("measured ", &alert.value), reference, ("", &alert.description)] {
        if !value.is_empty() {
            text.push_str(&format!("\n  - {name}{}", escaped(value)));
        }
    }
    for (name, url) in [("runbook", &alert.runbook_url), ("dashboard", &alert.dashboard_url)] {
        if let Some(link) = link(url) {
            text.push_str(&format!("\n  - {name}: {link}"));
        }
    }
    text.push('\n');
    text
}

fn changes(facts: &PostmortemFacts<'_>) -> String {
    let incident = facts.incident;
    let bad = incident.version.as_str();
    let switch = incident.switch.as_ref();
    let Some(good) = switch.map(|switch| &switch.to).or(incident.target.as_ref()) else {
        return format!("There is no known version to compare `{bad}` with.\n");
    };
    match (facts.good_content, facts.bad_content) {
        (Some(old), Some(new)) => diff((good.as_str(), old), (bad, new)),
        (old, _) => {
            let missing = match old {
                None if facts.bad_content.is_none() => format!("`{good}` and of `{bad}`"),
                None => format!("`{good}`"),
                Some(_) => format!("`{bad}`"),
            };
            format!("Unknown: the content of {missing} is not registered.\n")
        }
    }
}

fn questions(facts: &PostmortemFacts<'_>) -> String {
    let version = &facts.incident.version;
    let ask = match facts.contact.map(escaped).filter(|contact| !contact.is_empty()) {
        Some(contact) => format!("Contact for `{version}`: {contact}\n\n"),
        None => format!("No contact for `{version}`: it was registered without one.\n\n"),
    };
    let questions = [
        format!("What changed in `{version}`, and why?"),
        format!("Did `{version}` pass its A/B test, and on what traffic?"),
        "Why was it not caught before it went into production?".to_owned(),
        "How do we prevent this from happening again?".to_owned(),
    ];
    let numbered = questions.iter().enumerate();
    let asked: String =
        numbered.map(|(at, question)| format!("{}. **{question}**\n\n   _To be answered._\n\n", at + 1)).collect();
    format!("{ask}{}\n", asked.trim_end())
}
