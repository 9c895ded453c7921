//! Twice as much costs about twice as much, however much there is.

use std::hint::black_box;
use std::time::Duration;

use crate::computed;

/// Sizes that are compared with one another.
const SIZES: u32 = 6;
/// Each time is the least of so many.
const TRIES: usize = 5;
const MOST: f64 = 2.3;

/// The least time that `work` computes on this thread. What it gives is freed outside of it.
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

/// Fails unless each doubling of `smallest`, five times over, costs on average at most 2.3 times as much.
/// A single ratio says little on a busy machine; over five doublings, what is quadratic costs 1,024 times as much and what is linear 32 times.
pub fn linear(what: &str, smallest: usize, mut cost: impl FnMut(usize) -> Duration) {
    let mut measured = || -> Vec<Duration> { (0..SIZES).map(|double| cost(smallest << double)).collect() };
    let mean = |costs: &[Duration]| {
        let all = costs[costs.len() - 1].as_secs_f64() / costs[0].as_secs_f64().max(1e-6);
        all.powf(1.0 / f64::from(SIZES - 1))
    };
    let costs = measured();
    // what disturbs one measurement seldom disturbs a second
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
