//! Deployments, for several pages.

use maud::{Markup, html};

use super::layout::headings;
use super::parts::{Text, how, prompt_link, time, who};
use crate::decision::Timestamp;
use crate::deployed::{Deployed, DeploymentEntry};

/// Entries of a deployment log.
pub fn entries(log: &[DeploymentEntry]) -> Markup {
    html! {
        table class="wide" {
            caption class="hidden" { "The latest entry first" }
            (headings(&["When", "What", "From", "To", "By", "Why"]))
            tbody {
                @for entry in log {
                    tr {
                        td data-label="When" { (time(entry.at)) }
                        td data-label="What" { (Text(&entry.event)) }
                        td data-label="From" { @if entry.from.is_empty() { "–" } @else { (Text(&entry.from)) } }
                        td data-label="To" { @if entry.to.is_empty() { "–" } @else { (Text(&entry.to)) } }
                        td data-label="By" { (who(&entry.operator)) }
                        td data-label="Why" { (Text(&entry.reason)) }
                    }
                }
            }
        }
    }
}

/// Versions in service, and what else changed shortly before.
pub fn deployed(deployed: &Deployed) -> Markup {
    html! {
        ul {
            @for placed in &deployed.in_service {
                li {
                    code { (Text(&placed.version)) } " in service"
                    @if let Some(since) = placed.since() { " since " (time(since)) }
                    @if !placed.operator.is_empty() { " by " (who(&placed.operator)) }
                }
            }
            @for other in &deployed.others {
                li {
                    "Also changed: " (prompt_link(&other.prompt)) " " (how(&other.event)) " "
                    @if !other.from.is_empty() { (Text(&other.from)) " → " }
                    (Text(&other.to)) ", " (time(Timestamp(other.at))) " by " (who(&other.operator))
                    @if other.same_group { " (same group)" }
                }
            }
            @if deployed.more > 0 {
                li {
                    @if deployed.at_least { "At least " } (deployed.more) " more prompts changed within the hour before"
                }
            }
        }
    }
}
