//! The incident about many prompts that fail together.

use maud::html;

use super::layout::{NavItem, PageLayout, headings, page};
use super::parts::{Text, Tone, badge, incident_link, prompt_link, time, who};
use super::{Viewer, actions};
use crate::decision::outage::{Member, Outage, OutageAction, shared};

/// Members that are shown; all are stored.
const MEMBERS: usize = 500;

pub fn outage(outage: &Outage, members: &[Member], viewer: &Viewer) -> String {
    let waiting = members.iter().filter(|member| member.waits()).count();
    let mut order: Vec<&Member> = members.iter().collect();
    order.sort_by_key(|member| !member.waits());
    let main = html! {
        h1 { (members.len()) " prompts fail together" }
        p {
            @if outage.is_open() { (badge(Tone::Bad, "open")) } @else { (badge(Tone::Off, "closed")) }
            " " (waiting) " wait for a decision by " (Text(&outage.decider)) ". Opened " (time(outage.opened_at)) "."
        }
        @if let Some(hold) = &outage.hold {
            p { (who(hold.by.as_str())) " put all prompts on hold: no automatic rollbacks and no escalations." }
        }
        @if let Some(execution) = &outage.execution {
            @let left = members.iter().filter(|member| member.is_due(execution)).count();
            p {
                (who(execution.by.as_str()))
                @if execution.what == OutageAction::Undo { " is undoing the rollbacks: " } @else {
                    " is rolling back all: "
                }
                (left) " to go."
            }
        }
        @let common = shared(members);
        @if !common.is_empty() {
            p {
                "Shared labels: "
                @for (at, (label, value, count)) in common.iter().enumerate() {
                    @if at > 0 { ", " }
                    (label) " " (Text(value)) " (" (count) " of " (members.len()) ")"
                }
            }
        }
        (actions::of_outage(outage, members, viewer))
        section aria-labelledby="members" {
            h2 id="members" { "Prompts" }
            table class="wide" {
                caption class="hidden" { "Those that wait come first" }
                (headings(&["Prompt", "Version", "Would go back to", "State", "Note"]))
                tbody {
                    @for member in order.into_iter().take(MEMBERS) {
                        tr data-key=(member.incident.0) {
                            th scope="row" data-label="Prompt" { (prompt_link(member.prompt.as_str())) }
                            td data-label="Version" { (incident_link(&member.incident.0, member.version.as_str())) }
                            td data-label="Would go back to" {
                                @if let Some(to) = &member.target { (to.as_str()) } @else { "–" }
                            }
                            td data-label="State" {
                                (badge(if member.waits() { Tone::Bad } else { Tone::Info }, member.phase.as_str()))
                            }
                            td data-label="Note" {
                                @if let Some(why) = &member.objection { (Text(why)) }
                                @else if member.before { "rolled back before" }
                            }
                        }
                    }
                }
            }
            @if members.len() > MEMBERS { p class="quiet" { "and " (members.len() - MEMBERS) " more" } }
        }
        section aria-labelledby="timeline" {
            h2 id="timeline" { "Timeline" }
            ol class="timeline" { @for note in &outage.notes { li { (time(note.at)) " " (Text(&note.text)) } } }
        }
    };
    page(
        &PageLayout {
            title: "Many prompts",
            place: NavItem::Incidents,
            about: None,
            now: None,
            again: None,
            age: None,
            main,
        },
        Some(viewer),
    )
}
