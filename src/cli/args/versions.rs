//! Commands that change which versions there are, and which of them is served.

use std::path::PathBuf;

use clap::Subcommand;
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser, TypedValueParser};

use super::common::{OperatorArg, ReceiverArgs};
use crate::decision::Steer;

// no doc comment: it would become the description of the program
#[derive(Debug, Subcommand)]
pub enum VersionCommand {
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
receiver's Redis user needs permission for them; in Redis Cluster, only keys
on the node of the namespace are found. Running import again changes nothing.")]
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
}
