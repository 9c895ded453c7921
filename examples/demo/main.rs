//! Ships bad prompt versions to real services, and shows their rollback and how its success is confirmed: `make demo`.
//!
//! Redis, Prometheus, Alertmanager and the receiver run with the files of `config/` and `alert-rules/`; two prompt
//! servers, one in Rust and one in Python, answer requests. Only Slack is a double, with a web page on which the user
//! decides. Everything listens on loopback and uses temporary directories. No process outlives this program, however it
//! ends.

mod critical;
mod people;
mod postmortem;
mod progress;
mod proof;
mod quality;
mod report;
mod scene;
mod screenshots;
mod stack;
mod traffic;
mod versions;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum, builder::FalseyValueParser};
use report::DemoOutput;
use scene::Scene;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use versions::{BAD, DULL};

/// Ships bad versions of a prompt: one is rolled back automatically, one by you, on a page that simulates Slack.
#[derive(Parser)]
struct DemoArgs {
    /// How often Prometheus scrapes and evaluates: every 5 s, as shipped, or every second.
    #[arg(long, env = "PROFILE", default_value = "shipped")]
    profile: Profile,
    /// At the end, print the addresses and keep everything running until Ctrl-C.
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
    /// Click without waiting for a person, as in CI and without a terminal.
    #[arg(long, short)]
    yes: bool,
    /// Measure only the automatic rollback: repeat it this often, each time from scratch, and print percentiles.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Write pictures of the receiver's page to this folder; needs Chromium.
    #[arg(long, value_name = "FOLDER")]
    screenshots: Option<PathBuf>,
    /// Requests per second to each prompt server.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rps: u32,
    /// Fraction of its requests that the bad version fails: above 0.05, where the rule fires.
    #[arg(long, default_value_t = 0.3, value_parser = share)]
    error_ratio: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.05 && *share <= 1.0);
    share.ok_or_else(|| "expected a number above 0.05, up to 1".to_owned())
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    Shipped,
    Fast,
}

impl Profile {
    /// Scrape and evaluation interval.
    fn interval(self) -> Duration {
        match self {
            Self::Shipped => Duration::from_secs(5),
            Self::Fast => Duration::from_secs(1),
        }
    }

    /// The limit for the p90 of first bad response → last bad version served.
    fn promise(self) -> Duration {
        match self {
            Self::Shipped => Duration::from_secs(15),
            Self::Fast => Duration::from_secs(4),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = DemoArgs::parse();
    // however it ends, the stack and all its processes are dropped before the process exits
    let result = tokio::select! {
        // in this order: a demo that runs until Ctrl-C succeeds when that comes
        biased;
        result = demo(&args) => result,
        name = stopped() => {
            eprintln!("\nThe demo was {name}; everything that it started has been stopped.");
            return ExitCode::from(130);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &DemoArgs) -> Result<()> {
    let report = &DemoOutput::new();
    if let Some(runs) = args.runs {
        return measure(args, runs, report).await;
    }
    let slack = people::workspace()?;
    let scene = Scene::set(args, slack, report).await?;
    let [page, slack] = [scene.stack.receiver.url(), scene.stack.slack.url().to_owned()];
    report.invite(&format!("Open {page} in a browser: the receiver's page, which follows live"));
    report.invite(&format!("Open {slack} as well: a page that simulates Slack, where you are Maya"));
    tell(&scene).await.map_err(|error| scene.blame(error))?;
    if args.keep {
        report.addresses(&scene.stack);
    }
    report.next(args.keep);
    if args.keep {
        stopped().await;
    } else if people::somebody(args) {
        report.invite("\nLook around on both pages; Enter ends the demo. (KEEP=1 makes it stay.)");
        people::enter(Duration::from_secs(120)).await;
    }
    Ok(())
}

/// The whole demo: both scenes, and the post-mortem of the first.
async fn tell(scene: &Scene<'_>) -> Result<()> {
    let report = scene.report;
    report.heading("1. A critical regression is rolled back automatically");
    let hops = critical::ship(scene).await?;
    let thread = critical::thread(scene, &hops).await?;
    report.table("since bad", &hops.rows());
    report.harm(&hops);
    proof::show(scene, &BAD, &[]).await?;

    report.heading("2. A person decides about a quality drop");
    if let Some(decision) = quality::ask(scene).await? {
        report.table("since click", &decision.rows());
        proof::show(scene, &DULL, &proof::scores(scene, &DULL).await?).await?;
    }

    screenshots::of_recovery(scene).await?;
    report.heading("3. The post-mortem draft of the first incident");
    postmortem::show(scene, &BAD, &thread).await
}

/// Only the automatic rollback, `runs` times.
async fn measure(args: &DemoArgs, runs: u32, report: &DemoOutput) -> Result<()> {
    let mut all = Vec::new();
    for run in 1..=runs {
        report.heading(&format!("run {run} of {runs}"));
        let scene = Scene::set(args, people::workspace()?, report).await?;
        let hops = critical::ship(&scene).await.map_err(|error| scene.blame(error))?;
        report.table("since bad", &hops.rows());
        all.push(hops);
        if args.keep && run == runs {
            report.addresses(&scene.stack);
            stopped().await;
        }
    }
    report.percentiles(&all);
    let p90 = report::percentile(all.iter().map(critical::Hops::total).collect(), 90);
    if p90 > args.profile.promise() {
        bail!("p90 of {p90:.1?} is above the promised {:?}", args.profile.promise());
    }
    Ok(())
}

/// Waits for a signal that ends the demo.
async fn stopped() -> &'static str {
    let listen = |kind| signal(kind).context("listen for signals").expect("signals can be listened for");
    let mut terminate = listen(SignalKind::terminate());
    let mut hangup = listen(SignalKind::hangup());
    let mut interrupt = listen(SignalKind::interrupt());
    tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
        _ = hangup.recv() => "hung up",
    }
}
