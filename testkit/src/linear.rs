//! Checks that the cost of an operation grows linearly with its size.

use std::hint::black_box;
use std::time::Duration;

use crate::computed;

/// The number of sizes that are compared.
const SIZES: u32 = 6;
/// Each time is the lowest of this many.
const TRIES: usize = 5;
const MOST: f64 = 2.3;

/// The lowest CPU time of `work` on this thread. Its result is freed afterwards.
pub fn least<T>(mut work: impl FnMut() -> T) -> Duration {
    let once = |_| {
        let start = computed();
        let given = black_box(work());
        let took = computed() - start;
        drop(given);
        took
    };
    (0..TRIES).map(once).min().unwrap_or_default()
}

/// Fails unless each doubling of `smallest`, five times over, costs on average at most 2.3 times as much. A single
/// ratio means little on a busy machine; over five doublings, a quadratic operation costs 1,024 times as much and a
/// linear one 32 times.
pub fn linear(what: &str, smallest: usize, mut cost: impl FnMut(usize) -> Duration) {
    let mut measured = || -> Vec<Duration> { (0..SIZES).map(|double| cost(smallest << double)).collect() };
    let mean = |costs: &[Duration]| {
        let all = costs[costs.len() - 1].as_secs_f64() / costs[0].as_secs_f64().max(1e-6);
        all.powf(1.0 / f64::from(SIZES - 1))
    };
    let costs = measured();
    // a disturbance of one measurement rarely affects a second one
    let costs = if mean(&costs) > MOST { measured() } else { costs };
    let mean = mean(&costs);
    eprintln!("{what}: {mean:.2} for each doubling, {costs:?} for {smallest} and its doubles");
    assert!(mean <= MOST, "{what}: {mean:.2} for each doubling, {costs:?} for {smallest} and its doubles");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_with_its_square_is_told_from_what_does_not() {
        let micros = |count: usize| Duration::from_micros(count as u64);
        linear("nothing but the parts", 100, micros);
        linear("with some to start with", 100, |size| micros(size + 10_000));
        let square = std::panic::catch_unwind(|| linear("each with each", 100, |size| micros(size * size)));
        assert!(square.is_err());
    }
}
