//! Ships a bad prompt version on real parts and watches it being rolled back: `make demo`.
//!
//! Redis, Prometheus, Alertmanager and the receiver run with the files of `config/` and `alert-rules/`; two prompt
//! servers, one in Rust and one in Python, answer requests. All of it listens on loopback, lives in temporary
//! directories, and is gone when this program ends, however it ends.

mod report;
mod scenario;
mod stack;
mod traffic;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum, builder::FalseyValueParser};
use report::Report;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Ships a bad prompt version on real parts and watches it being rolled back.
#[derive(Parser)]
struct Args {
    /// Scrape and evaluation interval: 5 s as shipped, or 1 s.
    #[arg(long, env = "PROFILE", default_value = "shipped")]
    profile: Profile,
    /// Leave it running at the end, with the addresses printed, until Ctrl-C.
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
    /// Do it so many times, each from scratch, and print percentiles.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Requests a second to each prompt server.
    #[arg(long, default_value_t = 20)]
    rps: u32,
    /// Share of its requests that the bad version fails.
    #[arg(long, default_value_t = 0.3)]
    error_ratio: f64,
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

    /// What the p90 of first bad response → last bad version served is to stay below.
    fn promise(self) -> Duration {
        match self {
            Self::Shipped => Duration::from_secs(15),
            Self::Fast => Duration::from_secs(4),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    // Whichever way it ends, the stack is dropped before the process exits, and with it all that was started.
    let result = tokio::select! {
        // In this order: a demo that was to stay until Ctrl-C has succeeded when it comes.
        biased;
        result = demo(&args) => result,
        name = stopped() => {
            eprintln!("\n{name}: cleaned up");
            return ExitCode::from(130);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ndemo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(args: &Args) -> Result<()> {
    let report = Report::new();
    let mut runs = Vec::new();
    for run in 1..=args.runs {
        if args.runs > 1 {
            report.heading(&format!("run {run} of {}", args.runs));
        }
        let (mut stack, traffic) = scenario::start(args, &report).await?;
        let hops = scenario::ship_bad_version(args, &stack, &traffic, &report).await;
        let hops = hops.map_err(|error| match stack.ended() {
            Some(part) => error.context(part),
            None => error,
        })?;
        report.table(&hops);
        runs.push(hops);
        if args.keep && run == args.runs {
            report.addresses(&stack);
            stopped().await;
        }
    }
    if args.runs > 1 {
        report.percentiles(&runs);
        let p90 = report::percentile(runs.iter().map(scenario::Hops::total).collect(), 90);
        if p90 > args.profile.promise() {
            bail!("p90 of {p90:.1?} is above the promised {:?}", args.profile.promise());
        }
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
