//! The command line as a user types it.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::client::{BaseUrl, Token};
use crate::decision::Steer;

/// Puts a misbehaving LLM prompt back to its last known-good version.
///
/// One process receives alerts and flips the active version in Redis (`serve`); every other command
/// but `check` talks to that process over HTTP.
#[derive(Debug, Parser)]
#[command(
    name = "prompt-rollback",
    version,
    after_help = "\
A first session:
  prompt-rollback serve &                                            # Redis on 127.0.0.1:6379
  prompt-rollback register customer-support v1.9.0 --known-good
  prompt-rollback activate customer-support v1.9.0
  prompt-rollback register customer-support v2.0.0
  prompt-rollback activate customer-support v2.0.0                   # ship; alerts may undo it
  prompt-rollback rollback customer-support --reason 'too many refusals'
  prompt-rollback status

Exit codes: 0 done, 1 refused or failed, 2 wrong usage or config."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the receiver: Alertmanager's webhook, the HTTP API and the metrics.
    #[command(after_help = "\
Examples:
  prompt-rollback serve
  prompt-rollback serve --config /etc/prompt-rollback/prompt-rollback.toml
  PROMPT_ROLLBACK_REDIS__URL=redis://redis:6379 prompt-rollback serve

Every key of the config is also a variable: [guards] cooldown is PROMPT_ROLLBACK_GUARDS__COOLDOWN.
SIGHUP reads the config, secrets and certificates again. SIGTERM lets requests in flight finish.")]
    Serve(ConfigFile),

    /// Say whether the config is right, and with --connect whether it works.
    #[command(after_help = "\
Examples:
  prompt-rollback check --config prompt-rollback.toml
  prompt-rollback check --config prompt-rollback.toml --connect

--connect proves Redis, its permissions and its memory policy, Prometheus and each Alertmanager, one
line each, warns of a Redis that may lose data or that anyone can write to, and lists the prompts that
have no version to go back to. Exit 2: the config is wrong; exit 1: something does not work.")]
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Connect to all that the config names.
        #[arg(long)]
        connect: bool,
        #[command(flatten)]
        format: Format,
    },

    /// Make a version known, perhaps with its text, without serving it.
    #[command(after_help = "\
Examples:
  prompt-rollback register customer-support v2.0.0 --content-file prompt.txt --contact mia
  git show HEAD:prompt.txt | prompt-rollback register customer-support v2.0.0 --content-file -
  prompt-rollback register customer-support v1.9.0 --known-good      # trusted: may be gone back to
  prompt-rollback register customer-support v1.9.0 --known-good --first    # and served, if the prompt is new

Registering the same again changes nothing; another text for a known version is refused.")]
    Register {
        /// The prompt's name, such as team/greeting.
        prompt: String,
        /// The version's name, such as v2.0.0.
        version: String,
        /// The prompt's text; `-` reads it from standard input.
        #[arg(long, value_name = "FILE|-")]
        content_file: Option<PathBuf>,
        /// Whom to ask about this version, as incidents will show it.
        #[arg(long)]
        contact: Option<String>,
        /// When it went to staging, as 2026-11-21T09:30:00Z.
        #[arg(long, value_name = "TIME")]
        staged_at: Option<jiff::Timestamp>,
        /// Trust it without waiting for it to soak.
        #[arg(long)]
        known_good: bool,
        /// Serve it too; do nothing at all if the prompt has an active version.
        #[arg(long)]
        first: bool,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Take over the prompts that are served already.
    #[command(after_help = "\
Examples:
  prompt-rollback import --dry-run                                   # what would be done
  prompt-rollback import --known-good                                # trust what serves now
  prompt-rollback import --pattern 'team-a/*'
  prompt-rollback import --pattern 'myapp:prompt:{prompt}:version'   # keys of another layout

A version that others have put into Redis becomes active where nothing is; what is active already is never
overwritten. The receiver's Redis user must be permitted to read keys of another layout. Running it again changes
nothing.")]
    Import {
        /// A glob on prompt names, or a key with {prompt} in it that holds the version.
        #[arg(long, default_value = "*")]
        pattern: String,
        /// Trust what serves now without waiting for it to soak.
        #[arg(long)]
        known_good: bool,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Serve a registered version from now on.
    #[command(after_help = "\
Examples:
  prompt-rollback activate customer-support v2.0.0
  prompt-rollback activate customer-support v2.0.0 --canary          # 1, 5, 25, 100 %; back at its first alert
  prompt-rollback activate customer-support v2.0.0 --canary --stages 10,50,100 --hold 30m
  prompt-rollback activate customer-support v2.0.0 --percent 20      # until you change it; 0 takes it back
  prompt-rollback activate customer-support v2.0.0 --force           # although it was rolled back
  prompt-rollback activate customer-support v2.0.0 --force --reason hotfix   # although a gate is closed

A version that was rolled back is quarantined: --force says that you mean it.")]
    Activate {
        /// The prompt's name, such as team/greeting.
        prompt: String,
        /// The version's name, such as v2.0.0.
        version: String,
        /// Step by step, back to nothing at its first alert.
        #[arg(long)]
        canary: bool,
        /// Percent on the new version in each step, ending with 100; the receiver's config by default.
        #[arg(long, value_name = "PERCENTS", value_delimiter = ',', requires = "canary")]
        stages: Option<Vec<u8>>,
        /// How long each step lasts, such as 10m; several for several steps.
        #[arg(long, value_name = "DURATIONS", value_delimiter = ',', requires = "canary")]
        hold: Option<Vec<String>>,
        /// How long a step waits for figures before people are asked, such as 2h; the receiver's config by default.
        #[arg(long, value_name = "DURATION", requires = "canary")]
        hold_limit: Option<String>,
        /// Give it so much of the traffic until you change it.
        #[arg(long, value_name = "PERCENT", conflicts_with = "canary")]
        percent: Option<u8>,
        /// Even if the version is quarantined, or with --reason, if a promotion gate is closed.
        #[arg(long)]
        force: bool,
        /// Why, for the deployment log.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Steer the canary that is under way.
    #[command(after_help = "\
Examples:
  prompt-rollback canary customer-support pause      # stay at this step until `resume`
  prompt-rollback canary customer-support skip       # the next step now, whatever was measured
  prompt-rollback canary customer-support hold       # keep this share for good, until you change it
  prompt-rollback canary customer-support promote    # all traffic now
  prompt-rollback canary customer-support abort      # back to the version before; nothing is said against the new one

`prompt-rollback status PROMPT` shows the canary, what it waits for and the figures.")]
    Canary {
        /// The prompt's name.
        prompt: String,
        /// What to do.
        #[arg(value_parser = PossibleValuesParser::new(Steer::ALL.map(Steer::as_str)).try_map(|word| Steer::parse(&word).ok_or("no such word")))]
        action: Steer,
        /// With --reason: even if a promotion gate is closed; alone: even if the version is marked as bad.
        #[arg(long)]
        force: bool,
        /// Why, for the deployment log.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Show what a version still has to prove before it gets all traffic.
    #[command(after_help = "\
Examples:
  prompt-rollback gates customer-support v2.0.0

Each promotion gate with its figures; [gates] in the receiver's config turns them on. Exit 1: one that is on
is closed.")]
    Gates {
        /// The prompt's name.
        prompt: String,
        /// The version's name.
        version: String,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Go back to the last known-good version, or to one that you name.
    #[command(after_help = "\
Examples:
  prompt-rollback rollback customer-support
  prompt-rollback rollback customer-support --to v1.9.0 --reason 'wrong tone'
  prompt-rollback rollback customer-support --from v2.0.0            # only while v2.0.0 is active
  prompt-rollback rollback customer-support --gradual                # 75, 50, 25, 0 % left on it
  prompt-rollback rollback customer-support --gradual --stages 50,0 --hold 5m

Naming --from makes a script safe against a rollback that someone else has just made.")]
    Rollback {
        /// The prompt's name.
        prompt: String,
        /// The version to go back to; by default the newest known-good one.
        #[arg(long, value_name = "VERSION")]
        to: Option<String>,
        /// The version to leave; refused if another one is active.
        #[arg(long, value_name = "VERSION")]
        from: Option<String>,
        /// Why, for the deployment log.
        #[arg(long)]
        reason: Option<String>,
        /// Step by step, as long as the version gone back to serves well.
        #[arg(long)]
        gradual: bool,
        /// Percent left on the bad version after each step, ending with 0; the receiver's config by default.
        #[arg(long, value_name = "PERCENTS", value_delimiter = ',', requires = "gradual")]
        stages: Option<Vec<u8>>,
        /// How long each step lasts, such as 10m; several for several steps.
        #[arg(long, value_name = "DURATIONS", value_delimiter = ',', requires = "gradual")]
        hold: Option<Vec<String>>,
        /// Even to a version that never soaked or is quarantined.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Say of a version that no rollback must lead to it, or that it is trusted.
    #[command(after_help = "\
Examples:
  prompt-rollback mark customer-support v1.8.2 --bad --reason 'answers without the safety fix'
  prompt-rollback mark customer-support v1.9.0 --good --reason 'served for a month before we came'

Bad: no rollback leads to it, by itself or by a button; a person who means it says --force. Good: known-good at once,
whatever was said or done before: it lifts a bad mark and a quarantine. A mark moves no traffic.")]
    #[command(group = clap::ArgGroup::new("mark").required(true).args(["bad", "good"]))]
    Mark {
        /// The prompt's name.
        prompt: String,
        /// The version's name.
        version: String,
        /// Never go back to it: it lacks a safety fix, or its output has another schema.
        #[arg(long)]
        bad: bool,
        /// Trust it without waiting for it to soak.
        #[arg(long)]
        good: bool,
        /// Why, for those who wonder later.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Bring the text of a version back from the archive.
    #[command(after_help = "\
Examples:
  prompt-rollback restore customer-support v1.8.2

A rollback to an archived version does so by itself, before it flips. What is brought back stays at hand for a week.")]
    Restore {
        /// The prompt's name.
        prompt: String,
        /// The version's name.
        version: String,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Show what is active and what a rollback would go back to.
    #[command(after_help = "\
Examples:
  prompt-rollback status                       # all prompts
  prompt-rollback status --without-target      # those that cannot be rolled back, and what to do
  prompt-rollback status customer-support      # one prompt with its versions
  prompt-rollback status --output json | jq -r '.prompts[] | [.prompt, .active] | @tsv'")]
    Status {
        /// One prompt, with its versions and open incidents.
        prompt: Option<String>,
        /// Only prompts that have no rollback target.
        #[arg(long, conflicts_with = "prompt")]
        without_target: bool,
        /// Most prompts to list.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "prompt")]
        limit: u32,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Show a prompt's deployment log, newest first.
    #[command(after_help = "\
Examples:
  prompt-rollback log customer-support
  prompt-rollback log customer-support --limit 500 --output json

`external` entries are changes that somebody made in Redis directly.")]
    Log {
        /// The prompt's name.
        prompt: String,
        /// Most entries to show.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Show incidents, newest first, or one of them in full.
    #[command(after_help = "\
Examples:
  prompt-rollback incidents --open
  prompt-rollback incidents 01KAJ4B8N4GZQ6V9C2M7T5R3XW")]
    Incidents {
        /// One incident, with its alerts and what happened.
        id: Option<String>,
        /// Only those that are not closed.
        #[arg(long, conflicts_with = "id")]
        open: bool,
        /// Most incidents to list.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "id")]
        limit: u32,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Draft an incident's post-mortem, as Markdown.
    #[command(after_help = "\
Examples:
  prompt-rollback postmortem 01KAJ4B8N4GZQ6V9C2M7T5R3XW > postmortem.md

Timeline, durations, impact and what changed in the prompt are filled in as far as they are known;
four questions are left for people.")]
    Postmortem {
        /// The incident, as `prompt-rollback incidents` shows it.
        incident: String,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Tell what a dry run would have done, and whether that would have been right.
    #[command(after_help = "\
Examples:
  prompt-rollback report --since 7d
  prompt-rollback report --since 2026-11-01T00:00:00Z --output json

Right: a person did the same later. Wrong: the alerts ended by themselves, a person said no or undid it,
or it did not help. All else is unclear. Saved is how much sooner the right ones would have been done.")]
    Report {
        /// A duration such as 7d, or a time as 2026-11-21T00:38:12Z.
        #[arg(long, default_value = "7d", value_name = "DURATION|TIME")]
        since: String,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Answer an incident's question: roll back, look into it, dismiss it, or undo a rollback.
    #[command(after_help = "\
Examples:
  prompt-rollback decide 01KAJ4B8N4GZQ6V9C2M7T5R3XW approve
  prompt-rollback decide 01KAJ4B8N4GZQ6V9C2M7T5R3XW approve --to v1.8.2
  prompt-rollback decide 01KAJ4B8N4GZQ6V9C2M7T5R3XW dismiss       # its alerts stay silent until they end or get worse

Where many prompts fail together, one incident coordinates them: approve rolls back all that wait,
dismiss holds all back, release ends that, undo serves again what was rolled back before.")]
    Decide {
        /// The incident, as `prompt-rollback incidents --open` shows it.
        incident: String,
        #[arg(value_enum)]
        decision: Decision,
        /// Approve: roll back to this version instead of the last known-good one.
        #[arg(long = "to", value_name = "VERSION")]
        target: Option<String>,
        /// Also to a version that is not known-good or was rolled back itself.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Stop automatic rollbacks, of one prompt or of all; people still can roll back.
    #[command(after_help = "\
Examples:
  prompt-rollback pause --reason 'provider outage, do not touch'
  prompt-rollback pause customer-support

Once this has answered, no automatic rollback happens until `resume`.")]
    Pause {
        /// Only this prompt; without it, all of them.
        prompt: Option<String>,
        /// Why, for those who wonder later.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Allow automatic rollbacks again.
    #[command(after_help = "\
Examples:
  prompt-rollback resume
  prompt-rollback resume customer-support

Prompt by prompt and all together are two switches: `resume` alone leaves single prompts paused.")]
    Resume {
        /// Only this prompt; without it, the switch for all of them.
        prompt: Option<String>,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Have the receiver read its config again, with all secrets and certificates.
    #[command(after_help = "\
Examples:
  prompt-rollback reload
  prompt-rollback check --config prompt-rollback.toml && prompt-rollback reload

Does what SIGHUP does, for one receiver: run it for each. Exit 1: the config is wrong, and nothing has changed.")]
    Reload {
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Try the whole way of an alert, from Alertmanager to Slack, without changing anything.
    #[command(after_help = "\
Examples:
  prompt-rollback drill customer-support
  prompt-rollback drill customer-support --wait 120 --output json

A critical alert, marked as a drill, goes through the real Alertmanager, its webhook and Slack. It is decided like a
real one; what would be done is said, and nothing is rolled back. Exit 1: it did not get to the end in time.")]
    Drill {
        /// The prompt's name; the alert is about its active version.
        prompt: String,
        /// Give up after so many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
        wait: u64,
        #[command(flatten)]
        operator: Operator,
        #[command(flatten)]
        receiver: Receiver,
    },

    /// Exit 0 if the receiver is ready: a health check for containers.
    #[command(after_help = "\
Examples:
  prompt-rollback healthcheck && echo ready
  healthcheck: { test: [CMD, prompt-rollback, healthcheck] }         # in a compose file")]
    Healthcheck {
        #[command(flatten)]
        receiver: Receiver,
    },
}

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The config, in TOML; without one, the defaults and PROMPT_ROLLBACK_SECTION__KEY variables.
    #[arg(long, value_name = "FILE", env = "PROMPT_ROLLBACK_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Operator {
    /// Who does it, for the deployment log.
    #[arg(long, value_name = "NAME", env = "USER", hide_env = true)]
    pub operator: Option<String>,
}

/// Where the receiver is and how to talk to it.
#[derive(Debug, Args)]
pub struct Receiver {
    /// The receiver's address.
    #[arg(long, env = "PROMPT_ROLLBACK_URL", default_value = "http://127.0.0.1:8000")]
    pub url: BaseUrl,
    /// The receiver's server.api_token; prefer a file or the variable, arguments are visible to others.
    #[arg(long, env = "PROMPT_ROLLBACK_TOKEN", hide_env_values = true, default_value = "", hide_default_value = true)]
    pub token: Token,
    /// A file that holds the token. Without it, and without a token: the file that PROMPT_ROLLBACK_TOKEN_FILE names.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// For https://: the PEM file of your own certificate authority, trusted instead of the system's.
    #[arg(long, value_name = "FILE", env = "PROMPT_ROLLBACK_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct Format {
    /// Text for people or JSON for scripts.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Decision {
    /// Roll back now; a gradual rollback: all the way.
    Approve,
    /// Roll back step by step; a paused gradual rollback: go on.
    ApproveGradual,
    /// Stop the deadline; asked again after the time limit.
    Investigate,
    Dismiss,
    /// Serve the version again that was rolled back.
    Undo,
    /// Many prompts: no longer hold them back.
    Release,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}
