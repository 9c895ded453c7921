//! The command line as a user types it.

use std::path::PathBuf;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::client::{BaseUrl, Token};
use crate::decision::Steer;

/// Rolls a misbehaving LLM prompt back to its last known-good version.
///
/// `serve` runs the receiver, which accepts alerts from Alertmanager and switches the active version in Redis.
/// `init` writes the receiver's files, `check` checks its config, and `backup` and `restore-backup` use the Redis that the
/// config names. Every other command calls the receiver's HTTP API.
#[derive(Debug, Parser)]
#[command(
    name = "prompt-rollback",
    version,
    after_help = "\
A first session:
  prompt-rollback serve &                         # Redis on 127.0.0.1:6379
  prompt-rollback register customer-support v1.9.0 --known-good
  prompt-rollback activate customer-support v1.9.0
  prompt-rollback register customer-support v2.0.0
  prompt-rollback activate customer-support v2.0.0 # an alert can roll it back
  prompt-rollback rollback customer-support --reason 'too many refusals'
  prompt-rollback status

Exit codes: 0 success, 1 refused or failed, 2 invalid usage or config."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the receiver: Alertmanager webhook, HTTP API and metrics.
    #[command(after_help = "\
Examples:
  prompt-rollback serve
  prompt-rollback serve --config /etc/prompt-rollback/prompt-rollback.toml
  PROMPT_ROLLBACK_REDIS__URL=redis://redis:6379 prompt-rollback serve

Each config key can also be set by an environment variable: [guards] cooldown
is PROMPT_ROLLBACK_GUARDS__COOLDOWN. SIGHUP reloads the config, secrets and
certificates. SIGTERM shuts down after requests in flight have finished.")]
    Serve(ConfigFile),

    /// Validate the config, and with --connect test every connection in it.
    #[command(after_help = "\
Examples:
  prompt-rollback check --config prompt-rollback.toml
  prompt-rollback check --config prompt-rollback.toml --connect
  prompt-rollback check --config prompt-rollback.toml \\
    --alertmanager-config alertmanager.yml --prometheus-config prometheus.yml
  prompt-rollback check --alertmanager-config alertmanager.yml \\
    --receiver-url http://receiver:8000 | patch alertmanager.yml
  prompt-rollback check --alertmanager-config alertmanager.yml \\
    --alert-label namespace=prompts

--connect tests Redis (permissions, memory policy), Prometheus, each
Alertmanager, Slack, webhooks and on-call schedules, and prints one line for
each. It warns if Redis can lose data or accepts writes from anyone, and lists
the prompts that have no rollback target.
--alertmanager-config follows every alert of the shipped rules through your
routes and inhibit rules, and prints the missing lines as a patch.
--receiver-url is the address in that patch. Alerts carry the labels of
--alert-label and, with --prometheus-config, those of its rule files.
--prometheus-config checks scrapes, rule files and labels.
Exit 2: the config or a file is invalid. Exit 1: a test failed.")]
    #[command(group = clap::ArgGroup::new("stack").multiple(true).args(["alertmanager_config", "prometheus_config"]))]
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Connect to every service in the config.
        #[arg(long)]
        connect: bool,
        /// Check that this Alertmanager config delivers our alerts, and print the missing lines.
        #[arg(long, value_name = "FILE")]
        alertmanager_config: Option<PathBuf>,
        /// Address at which Alertmanager reaches the receiver, for the missing lines [default: from server.listen].
        #[arg(long, value_name = "URL", requires = "alertmanager_config")]
        receiver_url: Option<BaseUrl>,
        /// Label that all alerts carry, such as namespace=prompts from the Prometheus operator; repeatable.
        #[arg(long, value_name = "NAME=VALUE", value_parser = label, requires = "stack")]
        alert_label: Vec<(String, String)>,
        /// Check that this Prometheus config measures prompts and loads the rules.
        #[arg(long, value_name = "FILE")]
        prometheus_config: Option<PathBuf>,
        /// Scrape job of prompt servers; repeatable [default: jobs that look like one].
        #[arg(long, value_name = "JOB", requires = "prometheus_config")]
        prompt_job: Vec<String>,
        #[command(flatten)]
        format: Format,
    },

    /// Copy the data in Redis to a new file, without CONFIG or access to Redis' files.
    #[command(after_help = "\
Examples:
  prompt-rollback backup prompts.backup --config backup.toml

The section [redis] of backup.toml names the Redis user for backups.

Reads all keys until two passes agree, so that the copy is consistent.
Receivers may run, unless they write continuously. The Redis user needs +scan
+dump +pexpiretime, which the receiver's own user lacks. The file contains
prompts, so its mode is 0600.")]
    Backup {
        /// The file, which must not exist.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },

    /// Write a backup to an empty Redis.
    #[command(after_help = "\
Examples:
  prompt-rollback restore-backup prompts.backup --config backup.toml

The section [redis] of backup.toml names the Redis user for backups.

Stop all receivers first. Keys of other namespaces do not change. If the
command is interrupted, run it again. The Redis user needs +scan +get +set
+del +restore. Redis must have the version of the backed-up Redis, or a newer
one.")]
    RestoreBackup {
        /// The file that `backup` wrote.
        file: PathBuf,
        #[command(flatten)]
        config: ConfigFile,
    },

    /// Write the files that connect a receiver to your Redis, Prometheus and Alertmanager.
    #[command(after_help = "\
Examples:
  prompt-rollback init                              # asks five questions
  prompt-rollback init --dir receiver --platform systemd \\
    --redis-url redis://127.0.0.1:6379 \\
    --prometheus-url http://127.0.0.1:9090 \\
    --alertmanager-url http://127.0.0.1:9093 \\
    --receiver-url http://127.0.0.1:8000

Writes a config with only the settings that you need, new tokens and
passwords, the Redis users, the routes and the receiver for Alertmanager, and
a systemd unit or values for the Helm chart. Then prints the next steps in
order. The command opens no connections and overwrites no files. Only you can
read the files with secrets. With all five flags, it asks no questions.
Without a terminal, all five flags are required.")]
    Init(InitArgs),

    /// Register a version, optionally with its content, without activating it.
    #[command(after_help = "\
Examples:
  prompt-rollback register customer-support v2.0.0 \\
    --content-file prompt.txt --contact mia
  git show HEAD:prompt.txt |
    prompt-rollback register customer-support v2.0.0 --content-file -
  prompt-rollback register customer-support v1.9.0 --known-good
  prompt-rollback register customer-support v1.9.0 --known-good --first

With --known-good, the version can be a rollback target at once. With --first,
it also becomes active if the prompt is new.

Registering a version again changes nothing. Different content for a
registered version is refused.")]
    Register {
        /// The prompt's name, such as team/greeting.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// The version's name, such as v2.0.0.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        version: String,
        /// File with the prompt's content; `-` reads standard input.
        #[arg(long, value_name = "FILE|-")]
        content_file: Option<PathBuf>,
        /// Contact for this version, shown in its incidents.
        #[arg(long)]
        contact: Option<String>,
        /// When the version went to staging, such as 2026-11-21T09:30:00Z.
        #[arg(long, value_name = "TIME")]
        staged_at: Option<jiff::Timestamp>,
        /// Mark the version as known-good without a soak.
        #[arg(long)]
        known_good: bool,
        /// Activate the version as well; do nothing if the prompt already has an active version.
        #[arg(long)]
        first: bool,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Import prompts that are already being served.
    #[command(after_help = "\
Examples:
  prompt-rollback import --dry-run        # show what would change
  prompt-rollback import --known-good     # mark active versions as known-good
  prompt-rollback import --pattern 'team-a/*'
  prompt-rollback import --pattern 'myapp:prompt:{prompt}:version'

The last example reads keys of another layout.

Import activates a version found in Redis only if the prompt has no active
version; it never overwrites one. To read keys of another layout, the
receiver's Redis user needs permission for them. Running import again changes
nothing.")]
    Import {
        /// Glob for prompt names, or the pattern of a key that holds the version, with {prompt} in it.
        #[arg(long, default_value = "*")]
        pattern: String,
        /// Mark the active versions as known-good without a soak.
        #[arg(long)]
        known_good: bool,
        /// Show what would change, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Activate a registered version.
    #[command(after_help = "\
Examples:
  prompt-rollback activate customer-support v2.0.0
  prompt-rollback activate customer-support v2.0.0 --canary  # 1, 5, 25, 100 %
  prompt-rollback activate customer-support v2.0.0 --canary \\
    --stages 10,50,100 --hold 30m
  prompt-rollback activate customer-support v2.0.0 --percent 20
  prompt-rollback activate customer-support v2.0.0 --force
  prompt-rollback activate customer-support v2.0.0 --force --reason hotfix

A high or critical alert on the new version ends a canary. A percentage stays
until you change it; 0 ends it. --force with --reason overrides closed gates.
A version that was rolled back is quarantined and needs --force.")]
    Activate {
        /// The prompt's name, such as team/greeting.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// The version's name, such as v2.0.0.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        version: String,
        /// Increase its traffic in stages; a high or critical alert on it ends the canary.
        #[arg(long)]
        canary: bool,
        /// Percent of traffic on the new version in each stage, ending with 100 [default: canary.stages of the
        /// receiver].
        #[arg(long, value_name = "PERCENTS", value_delimiter = ',', requires = "canary")]
        stages: Option<Vec<u8>>,
        /// Duration of each stage, such as 10m, or one duration per stage, such as 10m,30m.
        #[arg(long, value_name = "DURATIONS", value_delimiter = ',', requires = "canary")]
        hold: Option<Vec<String>>,
        /// How long a stage waits for enough traffic before people are asked, such as 2h [default: canary.hold_limit
        /// of the receiver].
        #[arg(long, value_name = "DURATION", requires = "canary")]
        hold_limit: Option<String>,
        /// Send this percentage of traffic to the version until you change it.
        #[arg(long, value_name = "PERCENT", conflicts_with = "canary")]
        percent: Option<u8>,
        /// Activate a quarantined version; with --reason, also while a promotion gate is closed.
        #[arg(long)]
        force: bool,
        /// Reason, for the deployment log.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Control a running canary.
    #[command(after_help = "\
Examples:
  prompt-rollback canary customer-support pause    # stay here until `resume`
  prompt-rollback canary customer-support skip     # go to the next stage now
  prompt-rollback canary customer-support hold     # keep this share
  prompt-rollback canary customer-support promote  # send it all traffic now
  prompt-rollback canary customer-support abort    # back, without quarantine

`prompt-rollback status PROMPT` shows the canary, its measurements, and why it
waits.")]
    Canary {
        /// The prompt's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// What to do.
        #[arg(value_parser = PossibleValuesParser::new(Steer::ALL.map(Steer::as_str)).try_map(|word| Steer::parse(&word).ok_or("no such word")))]
        action: Steer,
        /// Override a bad mark; with --reason, also a closed promotion gate.
        #[arg(long)]
        force: bool,
        /// Reason, for the deployment log.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Show the promotion gates of a version.
    #[command(after_help = "\
Examples:
  prompt-rollback gates customer-support v2.0.0

Prints each promotion gate with its measurements. [gates] in the receiver's
config enables gates. Exit 1: an enabled gate is closed.")]
    Gates {
        /// The prompt's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// The version's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        version: String,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Roll back to the last known-good version, or to a version that you name.
    #[command(after_help = "\
Examples:
  prompt-rollback rollback customer-support
  prompt-rollback rollback customer-support --to v1.9.0 --reason 'wrong tone'
  prompt-rollback rollback customer-support --from v2.0.0
  prompt-rollback rollback customer-support --gradual # leaves 75, 50, 25, 0 %
  prompt-rollback rollback customer-support --gradual --stages 50,0 --hold 5m

With --from, the rollback happens only while that version is active, so a
script does not roll back again if someone else has just rolled back.")]
    Rollback {
        /// The prompt's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// The version to roll back to [default: the newest known-good version].
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
        /// The version to roll back from; refused if another version is active.
        #[arg(long, value_name = "VERSION")]
        from: Option<String>,
        /// Reason, for the deployment log.
        #[arg(long)]
        reason: Option<String>,
        /// Move traffic in stages; stops if the target is unhealthy.
        #[arg(long)]
        gradual: bool,
        /// Percent of traffic left on the bad version after each stage, ending with 0 [default: gradual.stages of the
        /// receiver].
        #[arg(long, value_name = "PERCENTS", value_delimiter = ',', requires = "gradual")]
        stages: Option<Vec<u8>>,
        /// Duration of each stage, such as 10m, or one duration per stage, such as 10m,30m.
        #[arg(long, value_name = "DURATIONS", value_delimiter = ',', requires = "gradual")]
        hold: Option<Vec<String>>,
        /// Roll back even to a version that is quarantined or not known-good.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Mark a version as bad (never a rollback target) or good (known-good).
    #[command(after_help = "\
Examples:
  prompt-rollback mark customer-support v1.8.2 --bad \\
    --reason 'lacks the safety fix'
  prompt-rollback mark customer-support v1.9.0 --good \\
    --reason 'in production for a month'

--bad: neither an automatic rollback nor a Slack button goes to this version;
a person needs --force.
--good: the version is known-good at once; this also removes a bad mark and a
quarantine.

A mark changes no traffic.")]
    #[command(group = clap::ArgGroup::new("mark").required(true).args(["bad", "good"]))]
    Mark {
        /// The prompt's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// The version's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        version: String,
        /// Never roll back to this version, for example because it lacks a safety fix.
        #[arg(long)]
        bad: bool,
        /// Mark the version as known-good without a soak.
        #[arg(long)]
        good: bool,
        /// Reason, shown with the version's status.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        operator: OperatorArg,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

    /// Restore a version's content from the archive.
    #[command(after_help = "\
Examples:
  prompt-rollback restore customer-support v1.8.2

A rollback to an archived version restores its content first. Restored content
stays in Redis for a week.")]
    Restore {
        /// The prompt's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        prompt: String,
        /// The version's name.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        version: String,
        #[command(flatten)]
        receiver: ReceiverArgs,
    },

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

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as namespace=prompts".to_owned()),
    }
}

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// Config file (TOML) [default: built-in defaults and PROMPT_ROLLBACK_SECTION__KEY variables].
    #[arg(long, value_name = "FILE", env = "PROMPT_ROLLBACK_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// What runs the receiver.
    #[arg(long, value_enum)]
    pub platform: Option<Platform>,
    /// Address at which the receiver reaches Redis, without user and password, such as redis://127.0.0.1:6379.
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,
    /// Address at which the receiver reaches Prometheus, such as http://127.0.0.1:9090.
    #[arg(long, value_name = "URL")]
    pub prometheus_url: Option<String>,
    /// Address at which the receiver reaches Alertmanager; for several Alertmanagers, all addresses, comma-separated.
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub alertmanager_url: Option<Vec<String>>,
    /// Address at which Alertmanager reaches the receiver: http://127.0.0.1:8000 on the same machine, otherwise with a
    /// host name, such as http://receiver:8000.
    #[arg(long, value_name = "URL")]
    pub receiver_url: Option<String>,
    /// Directory to write to; the command creates it.
    #[arg(long, value_name = "DIR", default_value = "prompt-rollback")]
    pub dir: PathBuf,
    /// Overwrite existing files, except secrets, which are kept.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Platform {
    /// A service on a host.
    Systemd,
    /// A Deployment, from the Helm chart.
    Kubernetes,
}

#[derive(Debug, Args)]
pub struct OperatorArg {
    /// Your name, for the deployment log.
    #[arg(long, value_name = "NAME", env = "USER", hide_env = true)]
    operator: Option<String>,
}

impl OperatorArg {
    /// `None` also for an empty name, because the variable may be empty.
    pub fn name(self) -> Option<String> {
        self.operator.filter(|name| !name.trim().is_empty())
    }
}

/// How to reach the receiver.
#[derive(Debug, Args)]
pub struct ReceiverArgs {
    /// The receiver's address.
    // parsed later: an error of the argument parser would show a password in it
    #[arg(long, env = "PROMPT_ROLLBACK_URL", hide_env_values = true, default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// API token (server.api_token) [env: PROMPT_ROLLBACK_TOKEN]. Prefer --token-file or the variable: other users can
    /// see arguments.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub token: Token,
    /// File that holds the API token [default: the file in PROMPT_ROLLBACK_TOKEN_FILE].
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the CA to trust for https:// instead of the system's.
    #[arg(long, value_name = "FILE", env = "PROMPT_ROLLBACK_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Format {
    /// Output format.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}
