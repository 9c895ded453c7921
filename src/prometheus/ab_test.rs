//! Compares a new version with the old one: better, worse, or no worse. Uses only the time in which both served, and
//! stays valid at any moment, however often it is evaluated.
//!
//! Each claim is tested by an e-process: a wager against the opposite of the claim that is fair, or loses, while the
//! opposite is true. By Ville's inequality it then ever reaches 1/α with a probability of at most α, however often it
//! is evaluated. So `1 / e` is a p-value that stays valid under continuous monitoring (Johari, Koomen, Pekelis and
//! Walsh, "Always Valid Inference", Operations Research 70(3), 2022; a mixture of sequential probability ratio tests,
//! as Robbins proposed in 1970).
//!
//! Time is cut into slices, which are the strata of a Mantel-Haenszel test: within a slice, the new version is compared
//! with the old one in the same seconds. A slice in which only one of them served does not count, so a good week of the
//! old version is never compared with a bad hour of the new one.

use super::durations::{DurationComparison, DurationSlice};

/// The probability of accepting a false claim, over all looks together.
pub const FALSE_PASS: f64 = 0.05;
/// The probability of stopping a harmless version for harm.
pub const FALSE_ALARM: f64 = 0.01;
/// The largest tolerated loss of mean quality, on its scale from 0 to 1.
const QUALITY_MARGIN: f64 = 0.05;

/// By how much a mean score may exceed 1: the sum of the scores may be scraped a moment after their number.
const SCALE_TOLERANCE: f64 = 0.01;

/// Requests of one version, and how many of them failed. Or scores, and their differences from 1: negative in total if they are on
/// another scale.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    pub all: f64,
    pub failed: f64,
}

impl Counts {
    pub fn add(&mut self, more: Counts) {
        self.all += more.all;
        self.failed += more.failed;
    }

    fn usable(&self) -> bool {
        self.all.is_finite() && self.all > 0.0 && (0.0..=self.all).contains(&self.failed)
    }

    pub(super) fn ratio(&self) -> f64 {
        self.failed / self.all
    }
}

/// The counts of both versions in the same seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Slice {
    pub new: Counts,
    pub old: Counts,
}

/// Measurements of two versions while both had traffic, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ComparisonSamples {
    pub errors: Vec<Slice>,
    pub quality: Vec<Slice>,
    /// `None` if neither version has a histogram of durations.
    pub durations: Option<Vec<DurationSlice>>,
}

/// A claim about the new version's failure ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Hypothesis {
    Lower,
    Higher,
    /// Higher by less than this.
    NotHigherBy(f64),
}

/// An e-process for one claim.
///
/// In each slice it wagers on the likelihood of some alternatives against the likeliest pair of ratios for which the claim is
/// false, given that alternative: its reverse information projection. For the null hypotheses here, which are convex, this is
/// an e-variable whatever the true ratios are, exactly and for blocks of any size (Turner, Ly and Grünwald, "Generic
/// E-variables for exact sequential k-sample tests that allow for optional stopping", JSPI 230, 2024; with a margin: Turner and
/// Grünwald, "Exact anytime-valid confidence intervals for contingency tables and beyond", Statistics & Probability Letters
/// 198, 2023). An alternative is chosen by slices that are past. The ratios may differ from slice to slice.
///
/// Counts may be fractions, as those of scores between 0 and 1 are: by the inequality of arithmetic and geometric means
/// the wager then wins less than the exact one would, so the promise holds.
#[derive(Debug, Clone, PartialEq)]
pub struct EProcess {
    claim: Hypothesis,
    /// The logarithm of each alternative's wager.
    wagers: Vec<f64>,
    /// The old version's counts in past slices.
    past: Counts,
}

/// How far ratios are kept from 0 and 1.
const EDGE: f64 = 1e-9;

impl EProcess {
    /// By how much more a harmful version may fail: the alternatives.
    const HARM: [f64; 7] = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32];
    /// The fraction of failures that a better version may have left: the alternatives.
    const LEFT: [f64; 5] = [0.9, 0.75, 0.5, 0.25, 0.05];
    /// Where a version that is no worse may be between the old version's ratio (0) and the margin (1): the
    /// alternatives.
    const WITHIN: [f64; 3] = [-0.5, 0.0, 0.5];

    pub fn new(claim: Hypothesis) -> Self {
        let alternatives = match claim {
            Hypothesis::Lower => Self::LEFT.len(),
            Hypothesis::Higher => Self::HARM.len(),
            Hypothesis::NotHigherBy(_) => Self::WITHIN.len(),
        };
        Self { claim, wagers: vec![0.0; alternatives], past: Counts::default() }
    }

    pub fn of(claim: Hypothesis, slices: &[Slice]) -> Self {
        let mut process = Self::new(claim);
        slices.iter().for_each(|slice| process.add(slice));
        process
    }

    pub fn add(&mut self, slice: &Slice) {
        if !slice.old.usable() {
            return;
        }
        if slice.new.usable() && self.past.all > 0.0 {
            self.wager(self.claim, self.past, slice);
        }
        self.past.add(slice.old);
    }

    /// Wagers on a claim of the same kind. Claim and `past` must not depend on this slice.
    pub(super) fn wager(&mut self, claim: Hypothesis, past: Counts, slice: &Slice) {
        let Slice { new, old } = slice;
        let base = ((past.failed + 0.5) / (past.all + 1.0)).clamp(EDGE, 1.0 - EDGE);
        for (index, wager) in self.wagers.iter_mut().enumerate() {
            let (alternative, margin) = alternative(claim, base, index);
            let (null_new, null_old) = projection((alternative, base), (new.all, old.all), margin);
            *wager += log_likelihood_ratio(new, alternative, null_new) + log_likelihood_ratio(old, base, null_old);
        }
    }

    /// The evidence for the claim: the value of 1, wagered on the alternatives in equal parts.
    pub fn e(&self) -> f64 {
        let most = self.wagers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let parts: f64 = self.wagers.iter().map(|wager| (wager - most).exp()).sum();
        (most.min(700.0) + (parts / self.wagers.len() as f64).ln()).exp()
    }

    /// The p-value, valid at any time.
    pub fn p(&self) -> f64 {
        (1.0 / self.e()).min(1.0)
    }
}

/// The new version's ratio under the alternative `index`, and the margin of the claim.
fn alternative(claim: Hypothesis, base: f64, index: usize) -> (f64, f64) {
    let (ratio, margin) = match claim {
        Hypothesis::Lower => (base * EProcess::LEFT[index], 0.0),
        Hypothesis::Higher => (base + EProcess::HARM[index], 0.0),
        Hypothesis::NotHigherBy(margin) => {
            let within = EProcess::WITHIN[index];
            (if within < 0.0 { base * (1.0 + within) } else { base + margin * within }, margin)
        }
    };
    (ratio.clamp(EDGE, 1.0 - EDGE), margin)
}

/// The pair of ratios, `margin` apart, that is closest to the alternative in Kullback-Leibler divergence.
fn projection((new, old): (f64, f64), (new_all, old_all): (f64, f64), margin: f64) -> (f64, f64) {
    if margin == 0.0 {
        let pooled = (new_all * new + old_all * old) / (new_all + old_all);
        return (pooled, pooled);
    }
    // the divergence is convex: its slope crosses 0 once
    let slope = |old_null: f64| {
        let pull = |all: f64, null: f64, ratio: f64| all * (null - ratio) / (null * (1.0 - null));
        pull(new_all, old_null + margin, new) + pull(old_all, old_null, old)
    };
    let (mut low, mut high) = (EDGE / 2.0, 1.0 - margin - EDGE / 2.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if slope(middle) < 0.0 { low = middle } else { high = middle }
    }
    (low + margin, low)
}

fn log_likelihood_ratio(counts: &Counts, ratio: f64, null: f64) -> f64 {
    counts.failed * (ratio / null).ln() + (counts.all - counts.failed) * ((1.0 - ratio) / (1.0 - null)).ln()
}

/// The result of comparing the new version with the old one.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub new: Counts,
    pub old: Counts,
    /// By how much its failure ratio is higher (Mantel-Haenszel risk difference); `None`: both served in no slice.
    pub difference: Option<f64>,
    /// Evidence that it fails less often.
    pub better: f64,
    /// Evidence that it fails more often, or that its quality is lower.
    pub harmful: f64,
    /// Problems with its quality and p99, or why these cannot be judged.
    pub problems: Vec<String>,
    /// Evidence that it fails more often by less than the margin.
    no_worse: f64,
    margin: f64,
    figures: String,
}

impl Comparison {
    /// `margin`: of the failure ratio.
    pub fn of(measured: &ComparisonSamples, margin: f64) -> Self {
        let shared = |slice: &&Slice| slice.new.usable() && slice.old.usable();
        let errors: Vec<Slice> = measured.errors.iter().filter(shared).copied().collect();
        let (new_scores, old_scores) = sums(&measured.quality);
        let off_scale = [new_scores, old_scores].iter().any(|scores| scores.failed < -SCALE_TOLERANCE * scores.all);
        let on_scale = |counts: Counts| Counts { failed: counts.failed.max(0.0), ..counts };
        let scored: &[Slice] = if off_scale { &[] } else { &measured.quality };
        let quality = scored.iter().map(|slice| Slice { new: on_scale(slice.new), old: on_scale(slice.old) });
        let quality: Vec<Slice> = quality.filter(|slice| shared(&slice)).collect();
        let e = |claim, slices: &[Slice]| EProcess::of(claim, slices).e();
        let (new, old) = sums(&errors);
        let mut comparison = Self {
            new,
            old,
            difference: difference(&errors),
            better: e(Hypothesis::Lower, &errors),
            // two wagers, with half of the stake on each
            harmful: f64::midpoint(e(Hypothesis::Higher, &errors), e(Hypothesis::Higher, &quality)),
            no_worse: e(Hypothesis::NotHigherBy(margin), &errors),
            margin,
            problems: Vec::new(),
            figures: String::new(),
        };
        if off_scale {
            comparison.problems.push("its quality is not on a scale from 0 to 1".to_owned());
        } else {
            comparison.judge_quality(&quality, old_scores.all > 0.0);
        }
        if let Some(slices) = &measured.durations {
            comparison.judge_durations(slices);
        }
        comparison
    }

    fn judge_quality(&mut self, shared: &[Slice], old_is_scored: bool) {
        let (new, old) = sums(shared);
        if !new.usable() || !old.usable() {
            if old_is_scored {
                self.problems.push("its quality is not measured".to_owned());
            }
            return;
        }
        self.figures.push_str(&format!("; quality {:.3} for {:.3}", 1.0 - new.ratio(), 1.0 - old.ratio()));
        let lost = difference(shared).unwrap_or(0.0);
        if EProcess::of(Hypothesis::NotHigherBy(QUALITY_MARGIN), shared).p() > FALSE_PASS {
            let problem = if lost > QUALITY_MARGIN { "its quality is worse" } else { "its quality may be worse" };
            self.problems.push(problem.to_owned());
        }
    }

    fn judge_durations(&mut self, slices: &[DurationSlice]) {
        let durations = DurationComparison::of(slices);
        if let Some((new, old)) = durations.p99 {
            self.figures.push_str(&format!("; p99 {new:.3} s for {old:.3} s"));
        }
        self.problems.extend(durations.problem);
    }

    /// Whether it is better than the old version, as the A/B gate requires, and the figures.
    pub fn is_better(&self) -> (bool, String) {
        let mut problems = Vec::new();
        if self.difference.is_none() {
            problems.push("the two versions have not had traffic at the same time yet".to_owned());
        } else if self.better < 1.0 / FALSE_PASS {
            let worse = self.difference.is_some_and(|difference| difference > 0.0);
            problems.push(match worse {
                true => "it fails more often".to_owned(),
                false => format!("the difference may be due to chance (p < {FALSE_PASS} wanted)"),
            });
        }
        problems.extend(self.problems.iter().cloned());
        let text = format!("{}; p = {:.4}{}", self.spoken(), (1.0 / self.better).min(1.0), self.figures);
        (problems.is_empty(), with_problems(&problems, &text))
    }

    /// Whether it is no worse than the old version, and the figures.
    pub fn is_no_worse(&self) -> (bool, String) {
        let mut problems = Vec::new();
        let margin = self.margin * 100.0;
        match self.difference {
            None => problems.push("the two versions have not had traffic at the same time yet".to_owned()),
            // the total says that it is worse, whatever the evidence in single slices
            Some(difference) if difference > self.margin => {
                problems.push(format!("it fails more often by more than {margin} points"));
            }
            Some(_) if self.no_worse < 1.0 / FALSE_PASS => {
                problems.push(format!("it may fail more often by {margin} points"));
            }
            Some(_) => {}
        }
        problems.extend(self.problems.iter().cloned());
        let p = (1.0 / self.no_worse).min(1.0);
        (problems.is_empty(), with_problems(&problems, &format!("{}; p = {p:.4}{}", self.spoken(), self.figures)))
    }

    /// The figures, if they prove harm.
    pub fn harm(&self) -> Option<String> {
        (self.harmful >= 1.0 / FALSE_ALARM).then(|| format!("{}{}", self.spoken(), self.figures))
    }

    /// The figures about requests.
    pub fn spoken(&self) -> String {
        let mut text = format!("{}, replacing {}", spoken(&self.new), spoken(&self.old));
        if let Some(difference) = self.difference {
            let direction = if difference > 0.0 { "more" } else { "fewer" };
            text.push_str(&format!("; at equal times {:.2} points {direction} failures", difference.abs() * 100.0));
        }
        text
    }
}

fn with_problems(problems: &[String], text: &str) -> String {
    if problems.is_empty() { text.to_owned() } else { format!("{}: {text}", problems.join(", ")) }
}

fn sums(slices: &[Slice]) -> (Counts, Counts) {
    let (mut new, mut old) = (Counts::default(), Counts::default());
    for slice in slices {
        new.add(slice.new);
        old.add(slice.old);
    }
    (new, old)
}

/// The Mantel-Haenszel risk difference: each slice has the weight `n m / (n + m)`.
fn difference(slices: &[Slice]) -> Option<f64> {
    let (mut sum, mut weights) = (0.0, 0.0);
    for Slice { new, old } in slices.iter().filter(|slice| slice.new.usable() && slice.old.usable()) {
        let weight = new.all * old.all / (new.all + old.all);
        sum += weight * (new.ratio() - old.ratio());
        weights += weight;
    }
    (weights > 0.0).then(|| sum / weights)
}

fn spoken(counts: &Counts) -> String {
    let rate = if counts.all > 0.0 { format!("{:.2} %", (1.0 - counts.ratio()) * 100.0) } else { "none".to_owned() };
    format!("success {rate} of {:.0} requests", counts.all.max(0.0))
}

#[cfg(test)]
mod tests;
