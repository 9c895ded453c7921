//! Commands that show what happens, decide about incidents, and operate the receiver.

use clap::builder::NonEmptyStringValueParser;
use clap::{Subcommand, ValueEnum};

use super::common::{OperatorArg, ReceiverArgs};

// no doc comment: it would become the description of the program
#[derive(Debug, Subcommand)]
pub enum OperationCommand {
    /// Show active versions and their rollback targets.
    #[command(after_help = "\
Examples:
  prompt-rollback status                    # all prompts
  prompt-rollback status --without-target   # those that cannot be rolled back
  prompt-rollback status customer-support   # one prompt with its versions
  prompt-rollback status --output json |
    jq -r '.prompts[] | [.prompt, .active] | @tsv'")]
    Status {
        /// Show one prompt, with its versions and open incidents.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: Option<String>,
        /// List only prompts without a rollback target.
        #[arg(long, conflicts_with = "prompt")]
        without_target: bool,
        /// Maximum number of prompts to list.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "prompt")]
        limit: u32,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Explain what would happen if an alert fired now; changes nothing.
    #[command(after_help = "\
Examples:
  prompt-rollback explain customer-support
  prompt-rollback explain customer-support --alert PromptErrorRateCritical
  prompt-rollback explain customer-support --output json |
    jq -r '.alerts[] | [.alert, .outcome, .reason] | @tsv'

The receiver decides about an alert of each rule as if Alertmanager had
delivered it, and commits nothing. It uses the rules that Prometheus has
loaded (prometheus.url) or, without Prometheus, the shipped rules.")]
    Explain {
        /// The prompt's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// Explain only this alert [default: all rules with a label action, decider or time_limit].
        #[arg(long, value_name = "NAME")]
        alert: Option<String>,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Show the deployment log of a prompt or of all prompts, newest first.
    #[command(after_help = "\
Examples:
  prompt-rollback log customer-support
  prompt-rollback log customer-support --limit 500 --output json
  prompt-rollback log --all --since 30d --output json    # for an audit

`external` entries are changes that were made in Redis without
prompt-rollback.")]
    Log {
        /// The prompt's name.
        #[arg(required_unless_present = "all", value_parser = NonEmptyStringValueParser::new())]
        prompt: Option<String>,
        /// Show the changes of all prompts.
        #[arg(long, conflicts_with = "prompt")]
        all: bool,
        /// With --all: a duration such as 7d, or a time such as 2026-11-21T00:38:12Z.
        #[arg(long, default_value = "7d", value_name = "DURATION|TIME", conflicts_with = "prompt")]
        since: String,
        /// Maximum number of entries to show [default: 20; with --all: no limit].
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// List incidents, newest first, or show one in full.
    #[command(after_help = "\
Examples:
  prompt-rollback incidents --open
  prompt-rollback incidents 01KAJ4B8N4GZQ6V9C2M7T5R3XW")]
    Incidents {
        /// Show one incident, with its alerts and timeline.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: Option<String>,
        /// List only open incidents.
        #[arg(long, conflicts_with = "id")]
        open: bool,
        /// Maximum number of incidents to list.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "id")]
        limit: u32,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Draft an incident's post-mortem, as Markdown.
    #[command(after_help = "\
Examples:
  prompt-rollback postmortem 01KAJ4B8N4GZQ6V9C2M7T5R3XW > postmortem.md

The draft contains the timeline, durations, impact and the prompt diff, as far
as they are known, and four questions for the team to answer.")]
    Postmortem {
        /// The incident's id, from `prompt-rollback incidents`.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        incident: String,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Report which rollbacks a dry run would have made, and whether they were right.
    #[command(after_help = "\
Examples:
  prompt-rollback report --since 7d
  prompt-rollback report --since 2026-11-01T00:00:00Z --output json

Right: a person made the same rollback later. Wrong: the alerts resolved
without a rollback, a person declined or undid it, or it did not help.
Everything else is unclear. Saved: how much earlier the right rollbacks would
have happened.")]
    Report {
        /// A duration such as 7d, or a time such as 2026-11-21T00:38:12Z.
        #[arg(long, default_value = "7d", value_name = "DURATION|TIME")]
        since: String,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Decide about an incident: approve, investigate, dismiss, or undo its rollback.
    #[command(after_help = "\
Examples:
  prompt-rollback decide 01KAJ4B8N4GZQ6V9C2M7T5R3XW approve
  prompt-rollback decide 01KAJ4B8N4GZQ6V9C2M7T5R3XW approve --to v1.8.2
  prompt-rollback decide 01KAJ4B8N4GZQ6V9C2M7T5R3XW dismiss

Dismiss silences the incident's alerts until they resolve or get worse. If
many prompts fail together, one coordinating incident covers them: approve
rolls back every prompt that waits, dismiss holds all prompts, release ends
the hold, undo reverts the automatic rollbacks made before.")]
    Decide {
        /// The incident's id, from `prompt-rollback incidents --open`.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        incident: String,
        /// What to do.
        #[arg(value_enum)]
        decision: DecisionArg,
        /// With approve: roll back to this version instead of the last known-good one. Not for a coordinating incident, where
        /// each prompt goes back to its own target.
        #[arg(long = "to", value_name = "VERSION")]
        target: Option<String>,
        /// Roll back even to a version that is quarantined or not known-good. Not for a coordinating incident.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Pause automatic rollbacks for one prompt or for all; people can still roll back.
    #[command(after_help = "\
Examples:
  prompt-rollback pause --reason 'provider outage, do not touch'
  prompt-rollback pause customer-support

As soon as this command succeeds, no automatic rollback happens until
`resume`.")]
    Pause {
        /// Pause only this prompt [default: all prompts].
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: Option<String>,
        /// Reason, shown with the prompt's status.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Resume automatic rollbacks.
    #[command(after_help = "\
Examples:
  prompt-rollback resume
  prompt-rollback resume customer-support

`pause` and `pause PROMPT` are independent: `resume` without a prompt leaves
paused prompts paused.")]
    Resume {
        /// Resume only this prompt [default: the pause of all prompts].
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: Option<String>,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Reload the receiver's config, secrets and certificates.
    #[command(after_help = "\
Examples:
  prompt-rollback reload
  prompt-rollback check --config prompt-rollback.toml &&
    prompt-rollback reload

Works like SIGHUP, for one receiver: run it once per replica. Exit 1: the
config is invalid and nothing has changed.")]
    Reload {
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Send a test alert end to end, from Alertmanager to Slack, without changing anything.
    #[command(after_help = "\
Examples:
  prompt-rollback drill customer-support
  prompt-rollback drill customer-support --wait 120 --output json

A critical alert, marked as a drill, passes through Alertmanager, the webhook
and Slack. The receiver decides it like a real alert and reports what it would
do, but rolls nothing back. Exit 1: a step did not finish in time.")]
    Drill {
        /// The prompt's name; the test alert names its active version.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// Give up after this many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
        wait: u64,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Exit 0 if the receiver is ready, for container health checks.
    #[command(after_help = "\
Examples:
  prompt-rollback healthcheck && echo ready
  healthcheck: { test: [CMD, prompt-rollback, healthcheck] } # in compose")]
    Healthcheck {
        #[command(flatten)]
        receiver: ReceiverArgs,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DecisionArg {
    /// Roll back now; finishes a gradual rollback at once.
    Approve,
    /// Roll back gradually; resumes a paused gradual rollback.
    ApproveGradual,
    /// Take the incident; the receiver asks again after the time limit.
    Investigate,
    /// Close the incident without a rollback and silence its alerts.
    Dismiss,
    /// Reactivate the version that was rolled back.
    Undo,
    /// End the hold of a coordinating incident.
    Release,
}
