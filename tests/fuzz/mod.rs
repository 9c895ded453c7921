//! Short fuzzing of all external input: the corpus in `fuzz/corpus`, and seeded mutations of it. `make fuzz` runs
//! longer, guided by coverage.
//!
//! `FUZZ_SEED=… cargo test --test integration fuzz::` repeats a run; `FUZZ_CASES` makes it longer.

mod mutate;
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// The limit for one input. `make fuzz` allows a second; here other tests run as well, and all are debug builds.
const HANGS: Duration = Duration::from_secs(10);
/// Mutations of each target, unless `FUZZ_CASES` says otherwise.
const CASES: u32 = 1_500;

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(root().join("corpus").join(target)).expect("a corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a file of the corpus")).collect()
}

/// The corpus unchanged, then mutations of it.
fn fuzz(target: &str, run: fn(&[u8])) {
    let corpus = corpus(target);
    corpus.iter().for_each(|input| run(input));

    let seed = number("FUZZ_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        now.as_secs()
    });
    let cases = number("FUZZ_CASES").map_or(CASES, |cases| u32::try_from(cases).expect("FUZZ_CASES"));
    let config = Config { cases, failure_persistence: None, max_shrink_time: 10_000, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let inputs = mutate::inputs(corpus, mutate::tokens(&root().join("tokens.dict"))).prop_map(|input| input.to_vec());
    let result = runner.run(&inputs, |input| {
        let began = Instant::now();
        catch_unwind(AssertUnwindSafe(|| run(&input))).map_err(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            TestCaseError::fail(
                said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default(),
            )
        })?;
        let took = began.elapsed();
        if took > HANGS { Err(TestCaseError::fail(format!("took {took:?}"))) } else { Ok(()) }
    });
    if let Err(TestError::Fail(why, input)) = result {
        panic!("{target}, FUZZ_SEED={seed}: {why}\ninput: {}", input.escape_ascii());
    }
    result.expect("the inputs can be made");
}

#[test]
fn webhook_bodies() {
    fuzz("webhook", targets::webhook);
}

#[test]
fn slack_interactions() {
    fuzz("interaction", targets::interaction);
}

#[test]
fn envelopes_of_socket_mode() {
    fuzz("envelope", targets::envelope);
}

#[test]
fn config_files() {
    fuzz("config", targets::config);
}

#[test]
fn config_files_of_alertmanager_and_prometheus() {
    fuzz("stack", targets::stack);
}

#[test]
fn stored_records() {
    fuzz("record", targets::record);
}

#[test]
fn answers_of_prometheus() {
    fuzz("answer", targets::answer);
}
