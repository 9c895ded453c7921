use super::*;
use crate::config::Config;

const BEGAN: Timestamp = Timestamp(1_800_000);
const STEP: Duration = Duration::from_secs(15);

fn labels() -> Labels {
    Config::default().labels
}

fn after(seconds: u64) -> Timestamp {
    BEGAN.plus(Duration::from_secs(seconds))
}

fn version(name: &str) -> VersionName {
    VersionName::parse(name).expect("a version")
}

/// Points at the ends of the first slices.
fn series(name: &str, version: &str, instance: &str, values: &[f64]) -> Series {
    let labels = [("__name__", name), ("prompt", "p"), ("version", version), ("instance", instance)];
    Series {
        labels: labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into(),
        points: values.iter().zip(0..).map(|(value, i)| (after(i * STEP.as_secs()), *value)).collect(),
    }
}

fn read_first(series: Vec<Series>) -> ComparisonSamples {
    let spans = [QueryRange { from: BEGAN, to: after(60), step: STEP }];
    let [new, old] = ["v2", "v1"].map(version);
    read(&labels(), &spans, &[series], [&new, &old], BEGAN)
}

fn all(slices: &[Slice]) -> Vec<[f64; 4]> {
    slices.iter().map(|Slice { new, old }| [new.all, new.failed, old.all, old.failed]).collect()
}

#[test]
fn each_look_sees_the_slices_of_the_look_before() {
    let ends = |now: u64| -> Vec<Timestamp> {
        let steps = |span: QueryRange| {
            let many = span.to.since(span.from).as_secs() / span.step.as_secs();
            (1..=many).map(move |i| span.from.plus(span.step * u32::try_from(i).expect("few")))
        };
        spans(BEGAN, after(now)).into_iter().flat_map(steps).collect()
    };
    let mut before = Vec::new();
    for now in (0..8 * 24 * 3_600).step_by(617) {
        let ends = ends(now);
        assert!(ends.starts_with(&before), "at {now}");
        assert!(ends.is_sorted_by(|a, b| a < b) && ends.last().is_none_or(|last| *last <= after(now)));
        before = ends;
    }
    assert!(before.len() < 800, "{} slices in a week", before.len());
    assert_eq!(before.last(), Some(&after(7 * 24 * 3_600)));
    assert!(spans(after(600), BEGAN).is_empty(), "a clock that went back");
}

#[test]
fn slices_are_where_a_cache_before_the_database_would_move_them_to() {
    for began in [1_800_000, 1_800_000_017_123] {
        for seconds in [60, 700, 3_700, 100_000, 700_000] {
            for span in spans(Timestamp(began), Timestamp(began).plus(Duration::from_secs(seconds))) {
                let step = i64::try_from(span.step.as_millis()).expect("short");
                assert_eq!((span.from.0 % step, span.to.0 % step), (0, 0), "{span:?}");
                assert!(span.from >= Timestamp(began) && span.from < span.to, "{span:?}");
            }
        }
    }
}

#[test]
fn the_halves_of_a_query_have_its_slices() {
    assert_eq!(QueryRange { from: BEGAN, to: after(15), step: STEP }.halves(), None);
    for slices in 2..300 {
        let all = QueryRange { from: BEGAN, to: after(slices * STEP.as_secs()), step: STEP };
        let [first, second] = all.halves().expect("several slices");
        assert_eq!((first.from, first.to, second.to), (all.from, second.from, all.to), "{slices}");
        assert_eq!(first.to, after(slices / 2 * STEP.as_secs()), "{slices}");
    }
}

#[test]
fn a_stage_that_begins_late_is_compared_by_itself() {
    assert_eq!([0, 1, 22].map(|hours| began(BEGAN, after(hours * 3_600))), [BEGAN; 3]);
    let two_minutes_before_a_day = 24 * 60 - 2;
    for minutes in [0, 60, 22 * 60, two_minutes_before_a_day, 25 * 60, 4 * 24 * 60, 8 * 24 * 60, 30 * 24 * 60] {
        let stage = after(minutes * 60);
        // ten minutes, with one request a second
        let spans = spans(began(BEGAN, stage), stage.plus(Duration::from_secs(615)));
        let answer = |span: &QueryRange| {
            let ends = (0..).map(|i| span.from.plus(span.step * i)).take_while(|end| *end <= span.to);
            let points: Vec<_> = ends.map(|end| (end, end.since(BEGAN).as_secs_f64())).collect();
            let none = points.iter().map(|(end, _)| (*end, 0.0)).collect();
            let of = |name, points| Series { points, ..series(name, "v2", "a", &[]) };
            vec![of(REQUESTS, points), of(FAILURES, none)]
        };
        let answers: Vec<_> = spans.iter().map(answer).collect();
        let requests = requests_since(&labels(), &spans, &answers, &version("v2"), stage);
        assert!((300.0..=600.0).contains(&requests), "{minutes}: {requests} in {spans:?}");
    }
}

#[test]
fn growth_is_counted_by_instance() {
    let measured = read_first(vec![
        series(REQUESTS, "v1", "a", &[1_000.0, 1_010.0, 1_030.0, 5.0, 6.0]),
        series(FAILURES, "v1", "a", &[100.0, 101.0, 101.0, 1.0, 1.0]),
        series(REQUESTS, "v1", "b", &[70.0, 75.0, 80.0]),
        series(FAILURES, "v1", "b", &[0.0, 0.0, 5.0]),
        series(REQUESTS, "v2", "a", &[0.0, 3.0, f64::NAN, 9.0, 10.0]),
        series(FAILURES, "v2", "a", &[0.0, 1.0, 1.0, 2.0, 2.0]),
    ]);
    assert_eq!(
        all(&measured.errors),
        [[3.0, 1.0, 15.0, 1.0], [0.0, 0.0, 25.0, 5.0], [1.0, 0.0, 1.0, 0.0]],
        "a reset, an instance that ended, a sample that is no number"
    );
}

#[test]
fn an_instance_whose_sum_fell_or_has_other_series_is_no_evidence() {
    // the server was restarted, one of two summed series went away, another one with a long life came
    let requests = [1_000.0, 50.0, 60.0, 55.0, 1_065.0, 1_070.0];
    let failures = [5.0, 20.0, 21.0, 21.0, 40.0, 42.0];
    let answer = |summed: &[f64]| {
        let mut all = vec![series(REQUESTS, "v2", "a", &requests), series(FAILURES, "v2", "a", &failures)];
        all.extend((!summed.is_empty()).then(|| series(SUMMED, "v2", "a", summed)));
        all
    };
    let spans = [QueryRange { from: BEGAN, to: after(75), step: STEP }];
    let [new, old] = ["v2", "v1"].map(version);
    let measured = |summed: &[f64]| read(&labels(), &spans, &[answer(summed)], [&new, &old], BEGAN).errors;
    assert_eq!(all(&measured(&[2.0, 2.0, 2.0, 1.0, 2.0, 2.0])), [[10.0, 1.0, 0.0, 0.0], [5.0, 2.0, 0.0, 0.0]]);
    let earlier_rules = [[10.0, 1.0, 0.0, 0.0], [1_010.0, 19.0, 0.0, 0.0], [5.0, 2.0, 0.0, 0.0]];
    assert_eq!(all(&measured(&[])), earlier_rules, "what falls is seen without a count of the series");
}

#[test]
fn instances_of_the_same_name_in_two_clusters_are_two() {
    let labelled = |mut one: Series, label: &str, value: &str| {
        one.labels.insert(label.to_owned(), value.to_owned());
        one
    };
    for (label, expected) in
        [("cluster", [30.0, 3.0, 0.0, 0.0]), ("replica", [10.0, 1.0, 0.0, 0.0]), ("job", [10.0, 1.0, 0.0, 0.0])]
    {
        let measured = read_first(vec![
            labelled(series(REQUESTS, "v2", "a", &[0.0, 10.0]), label, "a"),
            labelled(series(FAILURES, "v2", "a", &[0.0, 1.0]), label, "a"),
            labelled(series(REQUESTS, "v2", "a", &[0.0, 20.0]), label, "b"),
            labelled(series(FAILURES, "v2", "a", &[0.0, 2.0]), label, "b"),
        ]);
        assert_eq!(all(&measured.errors), [expected]);
    }
}

/// The series of the Prometheus server `replica`, of which the first points are `missing`.
fn measured_by(replica: &str, missing: usize, mut one: Series) -> Series {
    one.labels.insert("prometheus_replica".to_owned(), replica.to_owned());
    one.points.drain(..missing);
    one
}

#[test]
fn slices_continue_on_the_other_prometheus_of_a_pair() {
    let counts = |replica: &str, missing, points| {
        let each = [(REQUESTS, 10.0), (FAILURES, 1.0)].map(|(name, rate)| {
            let values: Vec<f64> = (0..points).map(|i| f64::from(i) * rate).collect();
            measured_by(replica, missing, series(name, "v2", "a", &values))
        });
        Vec::from(each)
    };
    for (a, b) in [((0, 2), (0, 4)), ((0, 4), (0, 2)), ((2, 4), (0, 3)), ((0, 4), (0, 4))] {
        let measured = read_first([counts("a", a.0, a.1), counts("b", b.0, b.1)].concat());
        assert_eq!(all(&measured.errors), [[10.0, 1.0, 0.0, 0.0]; 3], "{a:?} {b:?}: each slice once");
    }
}

#[test]
fn windows_continue_on_the_other_prometheus_of_a_pair() {
    let until = |replica: &str, seconds: u64| {
        let each = [("1", 90.0), ("+Inf", 100.0)].map(|(le, observations)| bucket("v2", le, observations));
        let flat = |one: Series| {
            let points = (0..=seconds / 15).map(|i| (after(i * 15), one.points[0].1)).collect();
            measured_by(replica, 0, Series { points, ..one })
        };
        each.into_iter().chain([series(COVERED, "v2", "", &[0.9])]).map(flat).collect::<Vec<_>>()
    };
    let whole = Histogram::new(vec![(1.0, 81.0), (f64::INFINITY, 90.0)]);
    for (a, b) in [(390, 690), (690, 390), (690, 690)] {
        let spans = [QueryRange { from: BEGAN, to: after(690), step: STEP }];
        let answers = [[until("a", a), until("b", b)].concat()];
        let [new, old] = ["v2", "v1"].map(version);
        let durations = read(&labels(), &spans, &answers, [&new, &old], BEGAN).durations.expect("durations");
        let of_new: Vec<_> = durations.into_iter().map(|slice| slice.new).collect();
        assert_eq!(of_new, [whole.clone(), whole.clone()], "{a} {b}");
    }
}

#[test]
fn requests_without_a_counter_of_failures_are_not_counted() {
    let measured = read_first(vec![
        series(REQUESTS, "v1", "a", &[0.0, 10.0]),
        series(FAILURES, "v1", "b", &[0.0, 1.0]),
        series(REQUESTS, "v2", "a", &[0.0, 10.0]),
    ]);
    assert_eq!(measured.errors, []);
}

#[test]
fn gaps_and_births_are_not_counted() {
    let mut gap = series(REQUESTS, "v1", "a", &[0.0, 10.0, 20.0, 30.0]);
    let failed = series(FAILURES, "v1", "a", &[0.0, 0.0, 0.0, 0.0]);
    gap.points.remove(1);
    let mut born = series(REQUESTS, "v2", "a", &[0.0, 500.0, 507.0, 509.0]);
    born.points.remove(0);
    let measured = read_first(vec![gap, failed, born, series(FAILURES, "v2", "a", &[0.0, 0.0, 1.0, 1.0])]);
    assert_eq!(all(&measured.errors), [[7.0, 1.0, 0.0, 0.0], [2.0, 0.0, 10.0, 0.0]]);
}

#[test]
fn scores_are_read() {
    let measured = read_first(vec![
        series(SCORES, "v1", "a", &[0.0, 10.0]),
        series(SCORE_SUM, "v1", "a", &[0.0, 9.0]),
        series(SCORES, "v2", "a", &[0.0, 4.0]),
        series(SCORE_SUM, "v2", "a", &[0.0, 3.0]),
    ]);
    assert_eq!(all(&measured.quality), [[4.0, 1.0, 10.0, 1.0]]);
    let of_ten = read_first(vec![series(SCORES, "v2", "a", &[0.0, 10.0]), series(SCORE_SUM, "v2", "a", &[0.0, 40.0])]);
    assert_eq!(all(&of_ten.quality), [[10.0, -30.0, 0.0, 0.0]], "of 10, not of 1");
    assert_eq!(measured.durations, None);
}

/// What is read of the first half hour of a comparison whose stage began at `stage`, if each version always has these buckets.
fn half_hour(stage: Timestamp, buckets: impl Fn(&str) -> Vec<Series>) -> ComparisonSamples {
    let spans = spans(BEGAN, after(1_800 + 15));
    let answer = |span: &QueryRange| -> Vec<Series> {
        let ends = (0..).map(|i| span.from.plus(span.step * i)).take_while(|end| *end <= span.to);
        let ends: Vec<Timestamp> = ends.collect();
        let flat = |mut one: Series| {
            let value = one.points[0].1;
            one.points = ends.iter().map(|end| (*end, value)).collect();
            one
        };
        let of = |version| buckets(version).into_iter().chain([series(COVERED, version, "", &[0.9])]);
        ["v1", "v2"].into_iter().flat_map(of).map(flat).collect()
    };
    let answers: Vec<Vec<Series>> = spans.iter().map(answer).collect();
    let [new, old] = ["v2", "v1"].map(version);
    read(&labels(), &spans, &answers, [&new, &old], stage)
}

fn bucket(version: &str, le: &str, observations: f64) -> Series {
    let mut one = series(BUCKETS, version, "", &[observations]);
    one.labels.insert("le".to_owned(), le.to_owned());
    one
}

#[test]
fn durations_are_read_by_windows_of_the_stage_that_do_not_overlap() {
    let buckets = |version: &str| vec![bucket(version, "1", 90.0), bucket(version, "+Inf", 100.0)];
    let histogram = Histogram::new(vec![(1.0, 81.0), (f64::INFINITY, 90.0)]);
    let expected = DurationSlice { new: histogram.clone(), old: histogram };
    let measured = half_hour(BEGAN, buckets);
    assert_eq!(measured.durations, Some(vec![expected.clone(); 5]), "what increase() extrapolates does not count");
    assert_eq!(half_hour(after(600), buckets).durations, Some(vec![expected; 3]));
    assert_eq!(half_hour(after(1_700), buckets).durations, Some(Vec::new()), "none of this stage yet");
    for stage in [BEGAN, after(3_001)] {
        for now in (0..8 * 24 * 3_600).step_by(617) {
            let ends = windows(&spans(BEGAN, after(now)), stage);
            assert!(ends.first().is_none_or(|first| first.since(stage) >= Duration::from_secs(315)), "{ends:?}");
            assert!(ends.windows(2).all(|pair| pair[1].since(pair[0]) >= WINDOW), "{ends:?}");
            let later = windows(&spans(BEGAN, after(now + 3_600)), stage);
            assert!(later.starts_with(&ends), "a later look sees the same windows");
        }
    }
}

#[test]
fn durations_count_once_per_pair_of_servers_and_once_per_cluster() {
    let labelled = |mut one: Series, label: &str, value: &str| {
        one.labels.insert(label.to_owned(), value.to_owned());
        one
    };
    let all = |label: &str| {
        let of = |version: &str, value: &str, share: f64| {
            let each =
                [bucket(version, "1", 90.0), bucket(version, "+Inf", 100.0), series(COVERED, version, "", &[share])];
            each.map(|one| labelled(one, label, value))
        };
        let answer = [of("v1", "0", 0.9), of("v1", "1", 0.5), of("v2", "0", 0.9), of("v2", "1", 0.5)].concat();
        let flat = |mut one: Series| {
            let value = one.points[0].1;
            one.points = (0..=40).map(|i| (after(i * 15), value)).collect();
            one
        };
        let spans = [QueryRange { from: BEGAN, to: after(600), step: STEP }];
        let answers = [answer.into_iter().map(flat).collect()];
        let [new, old] = ["v2", "v1"].map(version);
        read(&labels(), &spans, &answers, [&new, &old], BEGAN).durations.expect("durations")[0].new.clone()
    };
    assert_eq!(all("prometheus_replica"), Histogram::new(vec![(1.0, 81.0), (f64::INFINITY, 90.0)]));
    assert_eq!(all("cluster"), Histogram::new(vec![(1.0, 126.0), (f64::INFINITY, 140.0)]), "each by its own share");
}

#[test]
fn a_histogram_without_observations_is_none() {
    let idle = |version: &str| vec![bucket(version, "1", 0.0), bucket(version, "+Inf", 0.0)];
    assert_eq!(half_hour(BEGAN, idle).durations, None);
    let one = |version: &str| vec![bucket(version, "+Inf", if version == "v1" { 9.0 } else { f64::NAN })];
    let durations = half_hour(BEGAN, one).durations.expect("v1 has one");
    assert!(durations.iter().all(|slice| slice.new.is_none() && slice.old.is_some()), "{durations:?}");
}

#[test]
fn histograms_that_cannot_be_are_not_known() {
    let inf = f64::INFINITY;
    for (buckets, known) in [
        (vec![(1.0, 3.0), (inf, 4.0)], true),
        (vec![(inf, 4.0), (1.0, 3.0), (0.5, 3.0)], true),
        (vec![(1.0, 1.0), (inf, 1.0), (1.0, 2.0), (inf, 3.0)], true),
        (vec![], false),
        (vec![(1.0, 3.0)], false),
        (vec![(1.0, 0.0), (inf, 0.0)], false),
        (vec![(0.05, 3.0), (0.075, 2.0), (inf, 9.0)], true),
        (vec![(1.0, -1.0), (inf, 2.0)], false),
        (vec![(1.0, f64::NAN), (inf, 2.0)], false),
        (vec![(f64::NAN, 1.0), (inf, 2.0)], false),
        (vec![(1.0, 1.0), (inf, inf)], false),
    ] {
        assert_eq!(Histogram::new(buckets.clone()).is_some(), known, "{buckets:?}");
    }
}

#[test]
fn requests_of_a_stage_are_those_after_it_began() {
    let answer =
        vec![series(REQUESTS, "v2", "a", &[0.0, 3.0, 8.0, 20.0]), series(FAILURES, "v2", "a", &[0.0, 1.0, 1.0, 2.0])];
    let spans = [QueryRange { from: BEGAN, to: after(45), step: STEP }];
    let requests = |since| requests_since(&labels(), &spans, std::slice::from_ref(&answer), &version("v2"), since);
    assert_eq!(
        [requests(BEGAN), requests(after(1)), requests(after(15)), requests(after(45))],
        [20.0, 17.0, 17.0, 0.0]
    );
}

#[test]
fn a_query_of_the_teams_own_says_1_or_it_is_not_passed() {
    let prompt = PromptName::parse("p").expect("a prompt");
    let query = own_query("f($prompt,$version,$base,$since)", &prompt, [&version("v2"), &version("v1")], STEP);
    assert_eq!(query, "f(p,v2,v1,15)");
    let value = |value| series("", "v2", "", &[value]);
    assert_eq!(read_own(&[value(1.0)]), Ok(()));
    for answer in [vec![], vec![value(0.0)], vec![value(f64::NAN)], vec![value(1.0), value(1.0)]] {
        assert!(read_own(&answer).is_err_and(|why| why.contains("canary.query")), "{answer:?}");
    }
}

#[test]
fn the_query_names_both_versions() {
    let (labels, prompt) = (labels(), PromptName::parse("a/b.c").expect("a prompt"));
    let query = query(&labels, &prompt, [&version("v2.0+x"), &version("v1")]);
    assert!(query.ends_with(r#"prompt="a/b.c",version=~"v2[.]0[+]x|v1"}"#), "{query}");
}
