//! The shipped `verify` expressions, as the receiver sends them, evaluated by promtool with the shipped rules: their
//! verdict about a version, and how much traffic they need since the rollback.
//!
//! In most tests v1 serves until 300 s, v2 until the rollback at 602 s, and v1 from then on. No time is equal to that
//! of a scrape, because Prometheus 2 and 3 disagree about a sample at the border of a range.

use std::fmt::Write;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::decision::{PromptName, Timestamp, VersionName};
use prompt_rollback::prometheus::question::{self, Verify};
use prompt_rollback::store::record::read_incident;
use prompt_rollback_testkit::{Dir, shipped};

const ROWS: [&str; 6] = [
    "PromptQualityDropHigh",
    "PromptQualityDropNewVersion",
    "PromptQualityDrop",
    "PromptLatencyP99Doubled",
    "PromptLatencyP99NewVersion",
    "PromptLatencyP99Elevated",
];

/// Values of one version that a rule judges, as mean score or as the bucket of all its requests.
#[derive(Clone, Copy)]
struct Figures {
    /// Fires on v2, against `usual`.
    bad: f64,
    /// The value of v1 while it is healthy.
    usual: f64,
    /// A little worse than usual, but within the limit of `verify`.
    fair: f64,
    /// Beyond that limit.
    poor: f64,
    /// Better by so much that `usual` is beyond the limit in comparison.
    better: f64,
    /// Worse by so much that it is beyond the limit in comparison with `usual`.
    worse: f64,
}

/// Bounds of the latency histogram: all values of `Figures` but `bad`, which counts what is slower than its row's bound.
const BOUNDS: [f64; 5] = [0.5, 1.0, 1.15, 1.4, 3.0];

fn figures(row: &str) -> Figures {
    let quality = Figures { bad: 0.64, usual: 0.8, fair: 0.73, poor: 0.7, better: 1.0, worse: 0.6 };
    let latency = Figures { bad: 1.9, usual: 1.0, fair: 1.15, poor: 1.4, better: 0.5, worse: 3.0 };
    match row {
        "PromptQualityDropHigh" => Figures { bad: 0.56, ..quality },
        "PromptQualityDropNewVersion" => Figures { fair: 0.77, poor: 0.75, ..quality },
        "PromptQualityDrop" => quality,
        "PromptLatencyP99Doubled" => Figures { bad: 3.5, ..latency },
        "PromptLatencyP99NewVersion" => Figures { fair: 1.0, poor: 1.15, ..latency },
        _ => latency,
    }
}

/// Serves from one second to another, this many requests per 5 s, with this value.
type Leg = (u64, u64, u32, f64);

/// One prompt, and the queries about it.
struct Story {
    prompt: String,
    row: &'static str,
    /// When v2 was rolled back.
    switch: u64,
    served: Vec<(&'static str, Vec<Leg>)>,
    /// Version, its rollback target, from when, until when.
    targets: Vec<(&'static str, &'static str, u64, u64)>,
    /// When a series of v1 goes away that has counted for long, and no longer grows.
    idle_until: Option<u64>,
    /// The version, the time of its `verify` query, and the verdict.
    asks: Vec<(&'static str, u64, Option<u8>)>,
}

impl Story {
    /// v1, then v2, which is bad; then the legs that `served` adds.
    fn new(name: &str, row: &'static str) -> Self {
        let figures = figures(row);
        Self {
            prompt: format!("{name}-{row}"),
            row,
            switch: 602,
            served: vec![("v1", vec![(0, 300, 10, figures.usual)]), ("v2", vec![(300, 600, 10, figures.bad)])],
            targets: vec![("v2", "v1", 300, 600)],
            idle_until: None,
            asks: Vec::new(),
        }
    }

    fn serves(mut self, version: &'static str, leg: Leg) -> Self {
        match self.served.iter_mut().find(|(name, _)| *name == version) {
            Some((_, legs)) => legs.push(leg),
            None => self.served.push((version, vec![leg])),
        }
        self
    }

    fn says(mut self, version: &'static str, at: u64, what: Option<u8>) -> Self {
        self.asks.push((version, at, what));
        self
    }
}

/// The annotation of a rule, as in an alert about v2.
fn annotation(row: &str) -> Result<String> {
    let rules = shipped::text("alert-rules/alerts.yml")?;
    let (_, rule) = rules.split_once(&format!("- alert: {row}\n")).with_context(|| row.to_owned())?;
    let (_, text) = rule.split_once("verify: >-\n").with_context(|| format!("{row} has no verify"))?;
    let lines = text.lines().take_while(|line| line.starts_with(&" ".repeat(12)));
    let text = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    let text = text.replace("{{ $labels.version }}", "v2");
    ensure!(!text.contains("{{"), "a template that is not known here: {text}");
    Ok(text)
}

/// The receiver's query about `version`.
fn expression(story: &Story, version: &str, at: u64) -> Result<String> {
    let since = Duration::from_secs(if at > story.switch { at - story.switch } else { 300 });
    let name = |text: &str| VersionName::parse(text).ok().context("a version");
    let prompt = PromptName::parse(&story.prompt).ok().context("a prompt")?;
    Ok(question::about(&annotation(story.row)?, &prompt, &name(version)?, since))
}

/// A counter that grows during the legs, in promtool's notation; it exists from the first leg on.
fn counter(legs: &[Leg], until: u64, growth: impl Fn(u32, f64) -> f64) -> String {
    let (mut text, mut total) = (String::new(), 0.0);
    for at in (0..until).step_by(5) {
        if at < legs[0].0 {
            text.push_str("_ ");
            continue;
        }
        let _ = write!(text, "{total:.6} ");
        if let Some((_, _, many, figure)) = legs.iter().find(|(from, to, ..)| (*from..*to).contains(&at)) {
            total += growth(*many, *figure);
        }
    }
    text
}

fn series(story: &Story, until: u64) -> String {
    let mut text = String::new();
    let mut line = |series: String, values: &str| {
        let _ = writeln!(text, "      - {{series: '{series}', values: '{values}'}}");
    };
    let prompt = &story.prompt;
    for (version, legs) in &story.served {
        let labels = format!(r#"prompt="{prompt}",version="{version}",instance="a""#);
        let count = counter(legs, until, |many, _| f64::from(many));
        line(format!(r#"prompt_requests_total{{{labels},outcome="ok"}}"#), &count);
        if story.row.contains("Quality") {
            line(format!("prompt_quality_score_count{{{labels}}}"), &count);
            let sum = counter(legs, until, |many, figure| f64::from(many) * figure);
            line(format!("prompt_quality_score_sum{{{labels}}}"), &sum);
        } else {
            line(format!("prompt_request_duration_seconds_count{{{labels}}}"), &count);
            line(format!(r#"prompt_request_duration_seconds_bucket{{{labels},le="+Inf"}}"#), &count);
            for bound in BOUNDS {
                let within = |many, figure| if figure <= bound { f64::from(many) } else { 0.0 };
                let within = counter(legs, until, within);
                line(format!(r#"prompt_request_duration_seconds_bucket{{{labels},le="{bound}"}}"#), &within);
            }
        }
        if story.row.contains("NewVersion") {
            let since = (0..until).step_by(5).map(|_| legs[0].0.to_string()).collect::<Vec<_>>().join(" ");
            let name = "prompt_rollback_active_version_activated_timestamp_seconds";
            line(format!(r#"{name}{{prompt="{prompt}",version="{version}"}}"#), &since);
        }
    }
    if let Some(end) = story.idle_until {
        let idle = |total: u32| {
            let at_each = |at| {
                if at < end {
                    total.to_string()
                } else if at == end {
                    "stale".to_owned()
                } else {
                    "_".to_owned()
                }
            };
            (0..until).step_by(5).map(at_each).collect::<Vec<_>>().join(" ")
        };
        let labels = format!(r#"prompt="{prompt}",version="v1",instance="a",model="idle""#);
        for (name, total) in
            [("quality_score_count", 10_000), ("quality_score_sum", 8_000), ("request_duration_seconds_count", 10_000)]
        {
            line(format!("prompt_{name}{{{labels}}}"), &idle(total));
        }
    }
    for (version, previous, from, to) in &story.targets {
        let there = |at| if (*from..*to).contains(&at) { "1" } else { "_" };
        let mut values: Vec<&str> = (0..until).step_by(5).map(there).collect();
        if let Some(end) = values.get_mut(usize::try_from(*to / 5).unwrap_or(usize::MAX)) {
            *end = "stale";
        }
        let labels = format!(r#"prompt="{prompt}",version="{version}",previous="{previous}""#);
        line(format!("prompt_rollback_active_version_info{{{labels}}}"), &values.join(" "));
    }
    text
}

/// Evaluates all expressions with promtool.
fn test(stories: &[Story]) -> Result<()> {
    let asked = stories.iter().flat_map(|story| &story.asks).map(|(_, at, _)| *at);
    let until = asked.max().context("nothing is asked")? + 5;
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/alert-rules");
    let groups = ["native_critical", "native", "native_latency", "baselines", "critical", "latency", "triggers"];
    let mut yaml = format!(
        "rule_files: [{rules}/native.yml, {rules}/baselines.yml, {rules}/alerts.yml]\nevaluation_interval: 5s\n\
         group_eval_order: [{}]\ntests:\n  - interval: 5s\n    input_series:\n      - {{series: prompt_rollback_ready, values: '1x{}'}}\n",
        groups.map(|group| format!("prompt_rollback_{group}")).join(", "),
        until / 5,
    );
    for story in stories {
        yaml.push_str(&series(story, until));
    }
    yaml.push_str("    promql_expr_test:\n");
    for story in stories {
        for (version, at, says) in &story.asks {
            let labels = match *version {
                "v2" => format!(r#"{{prompt="{}",version="v2"}}"#, story.prompt),
                _ => "{}".to_owned(),
            };
            let says = says.map(|value| format!("{{labels: '{labels}', value: {value}}}")).unwrap_or_default();
            // the name of the test, where promtool prints the expression
            let expression =
                format!("# {}\n{}", story.prompt, expression(story, version, *at)?).replace('\n', "\n          ");
            let _ = write!(
                yaml,
                "      - expr: |\n          {expression}\n        eval_time: {at}s\n        exp_samples: [{says}]\n"
            );
        }
        for (version, at, says) in story.asks.iter().filter(|(version, ..)| *version == "v2") {
            let labels = format!(r#"prompt="{}",version="{version}",alertname="{}""#, story.prompt, story.row);
            let firing = u8::from(*says == Some(0));
            let _ = writeln!(
                yaml,
                "      - {{expr: 'count(ALERTS{{{labels},alertstate=\"firing\"}}) or vector(0)', eval_time: {at}s, \
                 exp_samples: [{{labels: '{{}}', value: {firing}}}]}}"
            );
        }
    }
    promtool(&yaml)
}

/// Runs rule tests.
pub fn promtool(yaml: &str) -> Result<()> {
    let dir = Dir::new("promtool")?;
    let path = dir.path().join("verify_test.yml");
    std::fs::write(&path, yaml)?;
    let output = Command::new("promtool").args(["test", "rules"]).arg(&path).output().context("promtool")?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

/// Tests that apply to every rule, each with its own values.
fn every_row(stories: impl Fn(&'static str, Figures) -> Vec<Story>) -> Result<()> {
    test(&ROWS.iter().flat_map(|row| stories(row, figures(row))).collect::<Vec<_>>())
}

#[test]
fn before_a_rollback_a_version_is_bad_while_its_row_fires() -> Result<()> {
    every_row(|row, _| vec![Story::new("bad", row).says("v2", 598, Some(0))])
}

#[test]
fn a_version_whose_row_has_ended_may_be_well_again() -> Result<()> {
    every_row(|row, figures| {
        let mut story = Story::new("again", row);
        story.targets = vec![("v2", "v1", 300, 2_000)];
        // long enough to fill the longest window
        vec![story.serves("v2", (600, 2_000, 10, figures.usual)).says("v2", 1_752, Some(1))]
    })
}

#[test]
fn a_target_is_compared_with_its_own_past_where_it_has_no_predecessor() -> Result<()> {
    every_row(|row, figures| {
        vec![
            Story::new("usual", row).serves("v1", (605, 1_000, 10, figures.usual)).says("v1", 662, Some(1)),
            Story::new("fair", row).serves("v1", (605, 1_000, 10, figures.fair)).says("v1", 662, Some(1)),
            // its good values from before do not help
            Story::new("poor", row).serves("v1", (605, 1_000, 10, figures.poor)).says("v1", 662, Some(0)),
            Story::new("poor-late", row).serves("v1", (605, 1_000, 10, figures.poor)).says("v1", 962, Some(0)),
        ]
    })
}

#[test]
fn what_a_sum_loses_with_one_of_its_series_makes_nothing_older_new() -> Result<()> {
    every_row(|row, figures| {
        let mut story = Story::new("idle", row).serves("v1", (605, 1_000, 10, figures.poor));
        story.idle_until = Some(615);
        vec![story.says("v1", 632, None)]
    })
}

#[test]
fn a_target_may_be_worse_than_its_predecessor() -> Result<()> {
    every_row(|row, figures| {
        let mut story = Story::new("accepted", row);
        story.served[0].1 = vec![(150, 300, 10, figures.usual)];
        story.targets.push(("v1", "v0", 600, 1_000));
        let story = story.serves("v0", (0, 150, 10, figures.better));
        vec![story.serves("v1", (605, 1_000, 10, figures.usual)).says("v1", 662, Some(1))]
    })
}

#[test]
fn an_older_version_is_compared_with_its_own_past() -> Result<()> {
    every_row(|row, figures| {
        let mut story = Story::new("older", row);
        story.served[0].1 = vec![(150, 300, 10, figures.usual)];
        let story = story.serves("v0", (0, 150, 10, figures.worse));
        vec![story.serves("v0", (605, 1_000, 10, figures.worse)).says("v0", 662, Some(1))]
    })
}

#[test]
fn a_version_without_history_is_compared_with_the_alerts_baseline() -> Result<()> {
    every_row(|row, figures| {
        vec![
            Story::new("unknown-fair", row).serves("v3", (605, 1_000, 10, figures.fair)).says("v3", 662, Some(1)),
            Story::new("unknown-poor", row).serves("v3", (605, 1_000, 10, figures.poor)).says("v3", 662, Some(0)),
        ]
    })
}

#[test]
fn without_anything_to_compare_with_there_is_no_answer() -> Result<()> {
    every_row(|row, figures| {
        let mut story = Story::new("alone", row);
        story.served.remove(0);
        story.targets.clear();
        vec![story.serves("v1", (605, 1_000, 10, figures.usual)).says("v1", 662, None)]
    })
}

#[test]
fn what_was_before_the_rollback_proves_nothing() -> Result<()> {
    every_row(|row, figures| {
        let few = if row.contains("Quality") { 1 } else { 6 };
        let mut busy = Story::new("busy", row);
        // it has served all along, as the other side of a canary does
        busy.served[0].1 = vec![(0, 600, 10, figures.usual)];
        vec![
            Story::new("none", row).says("v1", 662, None),
            // 15 scores, or 90 observations; four minutes later there are enough
            Story::new("few", row).serves("v1", (605, 1_000, few, figures.usual)).says("v1", 662 + 18, None).says(
                "v1",
                962,
                Some(1),
            ),
            busy.serves("v1", (600, 1_000, 10, figures.poor))
                .says("v1", 662, row.contains("Quality").then_some(0))
                .says("v1", 902, Some(0)),
        ]
    })
}

/// A p99 over five minutes says little about the last one of them.
#[test]
fn half_of_the_observations_behind_a_p99_are_newer_than_the_rollback() -> Result<()> {
    every_row(|row, figures| {
        if row.contains("Quality") {
            return Vec::new();
        }
        let mut story = Story::new("half", row);
        story.served = vec![("v1", vec![(0, 540, 10, figures.usual)]), ("v2", vec![(540, 600, 10, figures.bad)])];
        story.targets = vec![("v2", "v1", 540, 600)];
        let story = story.serves("v1", (605, 1_000, 10, figures.usual));
        vec![story.says("v1", 702, None).says("v1", 742, Some(1))]
    })
}

/// The p99 is recorded less often than the observations are counted: one from before the rollback is of the requests that
/// the target answered earlier.
#[test]
fn a_p99_from_before_the_rollback_proves_nothing() -> Result<()> {
    let mut yaml = "evaluation_interval: 5s\ntests:\n".to_owned();
    for row in ROWS.into_iter().filter(|row| !row.contains("Quality")) {
        let mut story = Story::new("stale", row);
        story.switch = 602;
        let labels = format!(r#"prompt="{}",version="v1""#, story.prompt);
        // 200 observations of the five minutes before, and ten a second since 602; the p99 is that of 600, then that of 630
        let recorded = |before: &str, since: &str| format!("{before}x120 _x5 {since}x10");
        let _ = writeln!(
            yaml,
            "  - interval: 5s\n    input_series:\n      \
             - {{series: 'prompt_version:request_duration_seconds:p99_5m{{{labels}}}', values: '{}'}}\n      \
             - {{series: 'prompt_version:request_duration_seconds:p99_reference{{{labels}}}', values: '1x150'}}\n      \
             - {{series: 'prompt_version:request_duration_observations:increase5m{{{labels}}}', values: '{}'}}\n      \
             - {{series: 'prompt_version_instance:request_duration_observations:sum{{{labels},instance=\"a\"}}', \
             values: '0x120 50+50x30'}}\n    promql_expr_test:",
            recorded("1", "1.4"),
            recorded("200", "450"),
        );
        for (at, says) in [(617, None), (627, None), (652, Some(0))] {
            let says = says.map(|value| format!("{{labels: '{{}}', value: {value}}}")).unwrap_or_default();
            let expression = expression(&story, "v1", at)?.replace('\n', "\n          ");
            let _ = writeln!(
                yaml,
                "      - expr: |\n          {expression}\n        eval_time: {at}s\n        exp_samples: [{says}]"
            );
        }
    }
    promtool(&yaml)
}

#[test]
fn a_score_that_is_no_number_proves_nothing() -> Result<()> {
    every_row(|row, _| {
        if !row.contains("Quality") {
            return Vec::new();
        }
        vec![Story::new("nan", row).serves("v1", (605, 1_000, 10, f64::NAN)).says("v1", 662, None)]
    })
}

/// v2 has no known rollback target, so its rule compares it with the prompt's day without the last hour. Then a person
/// names a version without a past of its own.
#[test]
fn a_trailing_day_is_used_where_the_alert_used_it() -> Result<()> {
    every_row(|row, figures| {
        if row.contains("NewVersion") || row == "PromptQualityDrop" || row == "PromptLatencyP99Elevated" {
            return Vec::new(); // an hour takes promtool long: one rule for each signal
        }
        [("day-fair", figures.fair, 1), ("day-poor", figures.poor, 0)]
            .map(|(name, figure, says)| {
                let mut story = Story::new(name, row);
                story.switch = 4_602;
                story.targets.clear();
                story.served = vec![
                    ("v0", vec![(0, 600, 10, figures.usual)]),
                    ("v2", vec![(4_300, 4_600, 10, figures.bad)]),
                    ("v3", vec![(4_605, 5_000, 10, figure)]),
                ];
                story.says("v2", 4_598, Some(0)).says("v3", 4_662, Some(says))
            })
            .into()
    })
}

#[test]
fn what_is_asked_names_the_version_and_counts_from_its_rollback() -> Result<()> {
    let record = r#"{"id":"01","prompt":"p","version":"v2","phase":"verifying","opened_at":0,"updated_at":0,"severity":"critical","action":"rollback","decider":"on-call","time_limit":120000,"flip":{"at":100000,"from":"v2","to":"v1","mode":"auto","operator":"system"},"alerts":[{"fingerprint":"f","alertname":"A","severity":"critical","action":"rollback","decider":"system","time_limit":120000,"firing":true,"first_seen":1,"last_seen":1,"verify":"x{p='$prompt',v='$version'}[$sinces]"}]}"#;
    let (incident, _) = read_incident(record)?;
    for (version, at, asked) in [
        ("v1", 157_900, "x{p='p',v='v1'}[57s]"),
        // PromQL refuses [0s]
        ("v1", 100_100, "x{p='p',v='v1'}[1s]"),
        // not activated by a rollback
        ("v2", 157_900, "x{p='p',v='v2'}[300s]"),
    ] {
        let version = VersionName::parse(version).ok().context("a version")?;
        let expected = [Verify { alertname: "A".to_owned(), expression: asked.to_owned() }];
        ensure!(Verify::of(&incident, &version, Timestamp(at)) == expected, "{version} at {at}");
    }
    Ok(())
}

/// The receiver cuts anything longer, and Prometheus would reject it.
#[test]
fn no_expression_is_too_long() -> Result<()> {
    const LONGEST: usize = 2_000;
    for row in ROWS {
        let longest = annotation(row)?.replace("v2", &"v".repeat(64));
        ensure!(longest.chars().count() <= LONGEST, "{row}: {}", longest.chars().count());
    }
    Ok(())
}
