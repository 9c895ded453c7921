//! `make demo` completes, and leaves nothing behind. The build differs, the program is the same.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Dir, Process, ProcessBuilder, eventually};

/// For its unit tests, because examples have no test program.
#[path = "../../examples/demo/progress.rs"]
#[allow(dead_code, reason = "what uses it is the demo")]
mod progress;

/// It takes a minute on an idle machine.
const STORY: Duration = Duration::from_secs(600);
const BUSY: Duration = Duration::from_secs(120);

struct Demo {
    process: Process,
    /// Everything that it starts works below this directory.
    dir: Dir,
}

impl Demo {
    fn start() -> Result<Self> {
        let own = std::env::current_exe()?;
        let program = own.ancestors().nth(2).context("the folder of the profile")?.join("examples/demo");
        // `cargo test` builds examples, `cargo test --test integration` does not
        let build = "cargo build -p prompt-rollback-examples --examples";
        ensure!(program.exists(), "{} is missing: run {build}", program.display());
        let dir = Dir::new("demo")?;
        let process = ProcessBuilder::new(program, dir.path())
            .env("TMPDIR", dir.path())
            .env("PROFILE", "fast")
            .without_env("KEEP")
            .arg("--yes")
            .spawn()?;
        Ok(Self { process, dir })
    }

    async fn until_it_says(&self, text: &str) -> Result<()> {
        let said = eventually(text, BUSY, async || self.process.log().contains(text).then_some(())).await;
        said.with_context(|| self.process.log())
    }

    /// The command lines of all processes below its directory.
    fn running(&self) -> Vec<String> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
        let ours = processes.filter(|process| {
            let place = fs::read_link(process.join("cwd"));
            place.is_ok_and(|place| place.starts_with(self.dir.path()))
        });
        ours.map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
    }

    async fn leaves_nothing(&self) -> Result<()> {
        let gone = eventually("nothing runs", BUSY, async || self.running().is_empty().then_some(())).await;
        gone.with_context(|| self.running().join("\n"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_tells_its_whole_story() -> Result<()> {
    let mut demo = Demo::start()?;
    let ended = eventually("the end of the demo", STORY, async || demo.process.exited().ok().flatten()).await;
    let told = demo.process.log();
    ensure!(ended.is_ok_and(|status| status.success()), "{told}");

    let mut rest = told.as_str();
    for part in [
        "v2.0.0 is shipped",
        "rule fired: PromptErrorRateCritical",
        "committed: v2.0.0 → v1.9.0",
        "Recovered: ",
        "(0.00 %, at most 0.",
        "2 of 2",
        "v2.1.0 is shipped",
        "rule fired: PromptQualityDropHigh",
        "committed: v2.1.0 → v1.9.0",
        "Recovered: ",
        "healthy by the verify expression of PromptQualityDropHigh",
        "2 of 2",
        "# Post-mortem: customer-support v2.0.0",
        "error ratio\" and \"Draft of the post-mortem\"",
        "What to try next",
    ] {
        let at = rest.find(part);
        ensure!(at.is_some(), "{part:?} is missing, or not in its place:\n{told}");
        rest = &rest[at.unwrap_or_default() + part.len()..];
    }
    // the output is not a terminal
    ensure!(!told.contains(['\x1b', '\r']), "{told:?}");
    ensure!(told.lines().count() < 150, "{told}");
    demo.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_is_killed_halfway_leaves_nothing_running() -> Result<()> {
    let mut demo = Demo::start()?;
    demo.until_it_says("v2.0.0 is shipped").await?;
    // six parts, and the demo itself
    ensure!(demo.running().len() == 7, "{:#?}", demo.running());
    demo.process.kill();
    demo.leaves_nothing().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_is_interrupted_cleans_up() -> Result<()> {
    let mut demo = Demo::start()?;
    demo.until_it_says("v2.0.0 is shipped").await?;
    let status = demo.process.terminate()?;
    ensure!(status.code() == Some(130), "{status}: {}", demo.process.log());
    demo.leaves_nothing().await?;
    let files: Vec<_> = fs::read_dir(demo.dir.path())?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(files == ["log"], "{files:?}");
    Ok(())
}
