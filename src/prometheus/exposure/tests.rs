use hyper::StatusCode;

use super::follows::is_proof;
use super::*;
use crate::config::Config;
use crate::prometheus::client::PrometheusError;

const SWITCH: i64 = 1_800_000_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp(SWITCH + seconds * 1_000)
}

fn v(name: &str) -> VersionName {
    VersionName::parse(name).expect("a version")
}

fn prompt() -> PromptName {
    PromptName::parse("p").expect("a prompt")
}

fn labels() -> Labels {
    Config::default().labels
}

fn series(name: &str, version: &str, instance: &str, points: Vec<(Timestamp, f64)>) -> Series {
    let labels = [("__name__", name), ("prompt", "p"), ("version", version), ("instance", instance)];
    Series { labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), points }
}

/// What one instance counted for one version: requests and failures at each second, and the seconds at which it
/// existed.
struct InstanceCounts<'a> {
    version: &'a str,
    instance: &'a str,
    from: i64,
    until: i64,
    count: &'a dyn Fn(i64) -> (f64, f64),
}

/// Recorded every 5 s from scrapes every `scrape` s, until `now`.
fn recorded(scrape: i64, now: i64, all: &[InstanceCounts<'_>]) -> Vec<Series> {
    let mut found = Vec::new();
    for InstanceCounts { version, instance, from, until, count } in all {
        let [mut requests, mut failures, mut scraped] = [Vec::new(), Vec::new(), Vec::new()];
        for second in (-300..=now).step_by(5) {
            let last = second.div_euclid(scrape) * scrape;
            if last < *from || last > *until {
                continue;
            }
            let (served, failed) = count(last);
            requests.push((at(second), served));
            failures.push((at(second), failed));
            scraped.push((at(second), at(last).0 as f64 / 1e3));
        }
        found.push(series(REQUESTS, version, instance, requests));
        found.push(series(FAILURES, version, instance, failures));
        found.push(series(SCRAPED, version, instance, scraped));
    }
    found
}

/// Serves `rate` a second until `end`.
fn until(end: i64, rate: f64) -> impl Fn(i64) -> (f64, f64) {
    move |second| ((second.min(end) + 1_000) as f64 * rate, 0.0)
}

/// Serves `rate` a second from `start` on, of which one in `fails` fails.
fn from(start: i64, rate: f64, fails: f64) -> impl Fn(i64) -> (f64, f64) {
    move |second| {
        let served = (second - start).max(0) as f64 * rate;
        (served, (served / fails).floor())
    }
}

fn always<'a>(version: &'a str, instance: &'a str, count: &'a dyn Fn(i64) -> (f64, f64)) -> InstanceCounts<'a> {
    InstanceCounts { version, instance, from: -300, until: 10_000, count }
}

fn recorded_of(series: &[Series]) -> Recorded {
    Recorded::new(&labels(), series.to_vec())
}

fn traffic(series: &[Series]) -> Traffic {
    recorded_of(series).of(&labels(), &prompt()).since(at(0), &v("v2"), &v("v1")).expect("requests are counted")
}

#[test]
fn a_pod_on_the_bad_version_never_counts_as_following() {
    for scrape in [1, 5, 15, 60] {
        let (bad, stuck, good) = (until(1, 10.0), until(10_000, 10.0), from(1, 10.0, f64::INFINITY));
        for now in (5..600).step_by(5) {
            let all = [
                always("v2", "a", &bad),
                always("v1", "a", &good),
                always("v2", "b", &stuck),
                always("v1", "b", &|_| (0.0, 0.0)),
            ];
            let traffic = traffic(&recorded(scrape, now, &all));
            let named = traffic.still.names.iter().chain(&traffic.unknown.names).any(|name| name == "b");
            assert!(named, "{scrape} s, {now} s after the switch: {traffic:?}");
            if now > 45 + 3 * scrape {
                assert_eq!(traffic.still.names, ["b"], "{scrape} s, {now} s after the switch");
                assert_eq!((traffic.following, traffic.bad_percent), (1, 50), "{scrape} s, {now} s");
            }
        }
    }
}

#[test]
fn pods_that_follow_are_known_to_after_a_few_scrapes() {
    for scrape in [1, 5, 15, 60] {
        let (bad, good) = (until(1, 2.0), from(1, 2.0, f64::INFINITY));
        let names: Vec<_> = (0..10).map(|i| format!("pod-{i}")).collect();
        let all = names.iter().flat_map(|name| [always("v2", name, &bad), always("v1", name, &good)]);
        let all: Vec<_> = all.collect();
        let traffic = traffic(&recorded(scrape, 15.max(3 * scrape + 5), &all));
        assert!(traffic.all_follow(), "{scrape} s: {traffic:?}");
        assert_eq!(traffic.followers(), "10 of 10 instances follow");
        assert_eq!(traffic.bad_percent, 0);
    }
}

#[test]
fn a_pod_with_few_requests_is_unknown_until_chance_is_excluded() {
    // one request in 20 s; seven are expected in 140 s
    let (bad, idle) = (until(0, 0.05), |_| (0.0, 0.0));
    let quiet = |now| traffic(&recorded(5, now, &[always("v2", "a", &bad), always("v1", "a", &idle)]));
    assert_eq!(quiet(120).unknown.names, ["a"]);
    assert!(quiet(180).all_follow());
    let good = from(0, 0.05, f64::INFINITY);
    let serves = traffic(&recorded(5, 60, &[always("v2", "a", &bad), always("v1", "a", &good)]));
    assert!(serves.all_follow() && serves.following == 1, "{serves:?}");
}

#[test]
fn a_pod_that_leaves_the_bad_version_for_a_third_one_does_not_follow() {
    let (bad, third, idle) = (until(1, 10.0), from(1, 10.0, f64::INFINITY), |_| (0.0, 0.0));
    for now in [15, 20, 60, 120, 300, 600] {
        let all = [always("v2", "a", &bad), always("v0", "a", &third), always("v1", "a", &idle)];
        let traffic = traffic(&recorded(5, now, &all));
        assert_eq!((traffic.following, &traffic.unknown.names[..]), (0, &["a".to_owned()][..]), "{now} s: {traffic:?}");
    }
    // some users of it are given another version on purpose
    let (target, few) = (from(1, 10.0, f64::INFINITY), from(1, 0.1, f64::INFINITY));
    let pinned = [always("v2", "a", &bad), always("v0", "a", &few), always("v1", "a", &target)];
    assert!(traffic(&recorded(5, 300, &pinned)).all_follow());
}

#[test]
fn a_pod_that_serves_neither_version_does_not_follow() {
    // v3 is shipped instead of v1, the target of the rollback from v2, which one pod still serves
    let (before, good, stuck) = (until(1, 10.0), from(1, 10.0, f64::INFINITY), until(10_000, 10.0));
    let all = [always("v2", "a", &before), always("v1", "a", &good), always("v0", "b", &stuck)];
    for now in [20, 120] {
        assert_eq!(traffic(&recorded(5, now, &all)).unknown.names, ["b"], "{now} s");
    }
}

#[test]
fn a_request_that_was_under_way_is_no_sign_of_a_pod_that_does_not_follow() {
    let (bad, good) = (until(30, 1.0), from(1, 5.0, f64::INFINITY));
    let all = [always("v2", "a", &bad), always("v1", "a", &good)];
    assert_eq!(traffic(&recorded(5, 30, &all)).unknown.names, ["a"], "it was seen to serve it just now");
    let later = traffic(&recorded(5, 60, &all));
    assert!(later.all_follow(), "{later:?}");
    assert_eq!(later.bad_last_seen, Some(at(30)));
}

#[test]
fn a_pod_with_one_worker_on_the_bad_version_is_not_following() {
    // one request in eight seconds, among a hundred a second
    let stuck =
        |second: i64| if second < 1 { (second + 1_000) as f64 * 100.0 } else { 100_100.0 + (second / 8) as f64 };
    let (bad, good) = (move |second: i64| (stuck(second), 0.0), from(1, 100.0, f64::INFINITY));
    let steady = move |second: i64| ((second + 1_000) as f64 * 300.0, 0.0);
    for target in [&good as &dyn Fn(i64) -> (f64, f64), &steady] {
        for now in (5..300).step_by(5) {
            let traffic = traffic(&recorded(5, now, &[always("v2", "a", &bad), always("v1", "a", target)]));
            assert!(!traffic.all_follow(), "{now} s after the switch: {traffic:?}");
        }
    }
}

#[test]
fn only_what_was_served_since_the_switch_counts() {
    // as a canary, it had served v1 before, and failed half of the time
    let before =
        |second: i64| if second < 0 { (500.0, 250.0) } else { (500.0 + second as f64 * 4.0, 250.0 + second as f64) };
    let traffic = traffic(&recorded(5, 100, &[always("v1", "a", &before)]));
    assert_eq!((traffic.target, traffic.failures), (400, 100));
    // an interval that began before the switch is left out as a whole
    let steady = |second: i64| ((second + 1_000) as f64, 0.0);
    let rarely = self::traffic(&recorded(60, 100, &[always("v1", "a", &steady)]));
    assert_eq!(rarely.target, 60);
}

#[test]
fn a_counter_that_falls_counts_again_from_the_next_scrape() {
    let restarts = |second: i64| if second < 50 { (second as f64 + 1_000.0, 9.0) } else { ((second - 50) as f64, 3.0) };
    let traffic = traffic(&recorded(5, 100, &[always("v1", "a", &restarts)]));
    assert_eq!((traffic.target, traffic.failures), (45 + 50, 0), "the interval of the reset is not known");
}

/// The sums of an instance: requests, failures, and how many series of successes are summed up.
fn summed(version: &str, instance: &str, now: i64, count: impl Fn(i64) -> [f64; 3]) -> Vec<Series> {
    let [mut requests, mut failures, mut summed, mut scraped] = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for second in (-300..=now).step_by(5) {
        let [all, failed, series] = count(second);
        requests.push((at(second), all));
        failures.push((at(second), failed));
        summed.push((at(second), series));
        scraped.push((at(second), at(second).0 as f64 / 1e3));
    }
    [(REQUESTS, requests), (FAILURES, failures), (SUMMED, summed), (SCRAPED, scraped)]
        .into_iter()
        .map(|(name, points)| series(name, version, instance, points))
        .collect()
}

#[test]
fn what_a_sum_gains_or_loses_with_one_of_its_series_is_no_evidence() {
    // the target fails one in five since the switch; another series with a long life goes away, and comes back
    let served = |second: i64| [100_000.0 + 10.0 * second.max(0) as f64, 2.0 * second.max(0) as f64, 1.0];
    let with_idle = move |second: i64| match second {
        15..30 => served(second),
        _ => {
            let [all, failed, series] = served(second);
            [all + 60_000.0, failed + 30.0, series + 1.0]
        }
    };
    let all = summed("v1", "a", 60, with_idle);
    let counted = traffic(&all);
    assert_eq!((counted.target, counted.failures), (60 * 10 - 2 * 50, 60 * 2 - 2 * 10), "two intervals are not known");
    // rules of an earlier release do not count the series: what falls is seen, what comes back is not
    let earlier: Vec<_> = all.into_iter().filter(|one| one.label("__name__") != SUMMED).collect();
    assert_eq!(traffic(&earlier).target, 60 * 10 - 50 + 60_000);
    // of the bad version, too
    let idle = |second: i64| [if second < 20 { 7_000.0 } else { 5_000.0 }, 0.0, if second < 40 { 2.0 } else { 3.0 }];
    let [bad, good] = [summed("v2", "a", 60, idle), summed("v1", "a", 60, served)];
    let traffic = traffic(&[bad, good].concat());
    assert_eq!((traffic.bad, traffic.bad_last_seen), (0, None), "{traffic:?}");
}

#[test]
fn the_first_failure_of_a_kind_counts() {
    // OpenTelemetry has a series for each kind of error, which begins with its first failure
    let served = |second: i64| [10.0 * second.max(0) as f64, if second < 30 { 0.0 } else { 4.0 }, 1.0];
    let traffic = traffic(&summed("v1", "a", 60, served));
    assert_eq!((traffic.target, traffic.failures), (600, 4));
}

#[test]
fn a_time_without_comparable_sums_is_no_silence() {
    // it serves the bad version all along, and its sums fall at each scrape
    let falls = |second: i64| [1e6 - second as f64, 0.0, 1.0];
    let before = |second: i64| if second < 0 { [second as f64 + 300.0, 0.0, 1.0] } else { falls(second) };
    let idle = |_: i64| [0.0, 0.0, 1.0];
    let all = [summed("v2", "a", 300, before), summed("v1", "a", 300, idle)].concat();
    assert_eq!(traffic(&all).unknown.names, ["a"]);
}

#[test]
fn a_counter_born_above_zero_counts_from_the_next_scrape() {
    let bad = until(0, 5.0);
    let good = |second: i64| ((second - 18) as f64 * 10.0, 2.0);
    let born = InstanceCounts { from: 20, ..always("v1", "a", &good) };
    let known = traffic(&recorded(5, 60, &[always("v2", "a", &bad), InstanceCounts { ..born }]));
    assert_eq!((known.target, known.failures), (400, 0));
    assert!(known.all_follow() && known.following == 1, "{known:?}");
    // a server that exposes only the version that it serves, not since its start but since the switch
    let lifetime = |second: i64| (1e5 + second as f64, (second as f64 / 5.0).floor());
    let shown = InstanceCounts { from: 12, ..always("v1", "a", &lifetime) };
    let shown = traffic(&recorded(5, 60, &[InstanceCounts { until: 12, ..always("v2", "a", &bad) }, shown]));
    assert_eq!((shown.target, shown.failures), (45, 9));
    let old = |second: i64| (1e6 + second as f64, 5e4);
    let new = traffic(&recorded(5, 60, &[InstanceCounts { from: 20, ..always("v1", "b", &old) }]));
    assert_eq!((new.target, new.failures), (40, 0));
}

#[test]
fn a_vanished_instance_is_waited_for_one_minute() {
    let (bad, good) = (until(10_000, 5.0), from(0, 5.0, f64::INFINITY));
    let gone = |now| {
        let all = [InstanceCounts { until: 50, ..always("v2", "a", &bad) }, always("v1", "b", &good)];
        traffic(&recorded(5, now, &all))
    };
    assert!(!gone(60).all_follow());
    let later = gone(120);
    assert!(later.all_follow() && later.bad == 250, "{later:?}");
    // but not while Prometheus scrapes no instance
    assert!(!traffic(&recorded(5, 50, &[always("v2", "a", &bad)])).all_follow());
}

/// A prompt server may serve on while the scrapes of its metrics fail.
#[test]
fn an_unscraped_instance_is_unknown_unless_it_had_followed() {
    let (bad, good) = (until(10_000, 5.0), from(0, 5.0, f64::INFINITY));
    for until in [-10, 30, 100] {
        let all = [
            InstanceCounts { until, ..always("v2", "a:9", &bad) },
            always("v1", "b", &good),
            InstanceCounts { until: 40, ..always("v1", "c", &good) },
        ];
        let mut recorded = recorded_of(&recorded(5, 200, &all));
        assert_eq!(recorded.vanished(&labels(), at(200)).into_iter().collect::<Vec<_>>(), ["a:9", "c"]);
        let traffic = |recorded: &Recorded| recorded.of(&labels(), &prompt()).since(at(0), &v("v2"), &v("v1")).unwrap();
        assert!(traffic(&recorded).all_follow(), "gone: {until}");
        let up = |instance: &str| Series { points: vec![(at(200), 0.0)], ..series("up", "", instance, Vec::new()) };
        recorded.know(ScrapeTargets::Known { up: ["a:9", "c", "b"].map(up).into(), evaluated: at(200) });
        let Traffic { unknown, still, following, bad_percent, .. } = traffic(&recorded);
        assert_eq!((unknown.names, still.names, following), (vec!["a:9".to_owned()], vec![], 2), "{until}");
        assert_eq!(bad_percent, 0, "of the latest requests that were counted");
        recorded.know(ScrapeTargets::Unknown);
        assert!(!traffic(&recorded).all_follow(), "{until}");
    }
}

#[test]
fn an_unscraped_server_is_not_one_of_the_same_name_elsewhere() {
    let in_cluster = |cluster: &str| {
        let mut one = series("up", "", "a", vec![(at(0), 0.0)]);
        one.labels.insert("cluster".to_owned(), cluster.to_owned());
        one
    };
    let (here, there) = (in_cluster("eu"), in_cluster("us"));
    let targets = ScrapeTargets::Known { up: vec![here.clone()], evaluated: at(100) };
    let is_gone = |up| targets.is_gone(&Server::of(&labels(), up), at(0), at(100), Duration::ZERO);
    assert!(!is_gone(&here) && is_gone(&there));
    let asked = ScrapeTargets::question(["10.0.0.1:9100", "b"]);
    assert_eq!(
        asked,
        "up{instance=~\"10[.]0[.]0[.]1:9100|b\"} or max(prompt_rollback:rules_evaluated:timestamp_seconds)"
    );
}

#[test]
fn no_server_is_gone_if_prometheus_does_not_list_its_targets() {
    let up = series("up", "", "a", Vec::new());
    let refused = |status| Some(Err(PrometheusError::Refused { status, message: String::new() }));
    let is_gone =
        |answer| ScrapeTargets::read(answer).is_gone(&Server::of(&labels(), &up), at(0), at(100), Duration::ZERO);
    for status in [400, 401, 422, 429, 503] {
        assert!(!is_gone(refused(StatusCode::from_u16(status).unwrap())), "{status}");
    }
    let down = Series { points: vec![(at(100), 0.0)], ..up.clone() };
    assert!(!is_gone(None) && !is_gone(Some(Err(PrometheusError::Unreadable))) && !is_gone(Some(Ok(vec![down]))));
    // a proxy that permits only queries about its tenant never answers
    assert!(is_gone(Some(Ok(Vec::new()))) && is_gone(refused(StatusCode::FORBIDDEN)));
}

#[test]
fn the_last_server_has_gone_when_prometheus_no_longer_knows_it() {
    let bad = until(10_000, 5.0);
    let series = recorded(5, 300, &[InstanceCounts { until: 100, ..always("v2", "a", &bad) }]);
    let evaluated =
        |seconds: i64| Series { labels: BTreeMap::new(), points: vec![(at(300), at(seconds).0 as f64 / 1e3)] };
    let up = |value: f64| self::series("up", "", "a", vec![(at(300), value)]);
    for (answer, still) in [
        (Some(Ok(vec![evaluated(300)])), 0),
        // no rules are evaluated, Prometheus scrapes the server, or only fails to; or it does not say
        (Some(Ok(Vec::new())), 1),
        (Some(Ok(vec![evaluated(110)])), 1),
        (Some(Ok(vec![evaluated(300), up(1.0)])), 1),
        (Some(Ok(vec![evaluated(300), up(0.0)])), 1),
        (Some(Err(PrometheusError::Unreadable)), 1),
        (None, 1),
    ] {
        let mut recorded = recorded_of(&series);
        assert!(recorded.vanished(&labels(), at(130)).is_empty());
        assert_eq!(recorded.vanished(&labels(), at(300)), ["a".to_owned()].into());
        recorded.know(ScrapeTargets::read(answer.clone()));
        let traffic = recorded.of(&labels(), &prompt()).since(at(0), &v("v2"), &v("v1")).unwrap();
        assert_eq!((traffic.still.count, traffic.following), (still, 0), "{answer:?}");
    }
}

#[test]
fn an_instance_that_serves_neither_version_is_none() {
    let traffic =
        traffic(&recorded(5, 60, &[always("v2", "a", &|_| (7.0, 0.0)), always("v1", "b", &from(0, 1.0, 9.0))]));
    assert_eq!(traffic.followers(), "1 of 1 instances follow");
}

#[test]
fn without_the_times_of_scrapes_only_what_changes_is_one() {
    let (bad, good, idle) = (until(1, 10.0), from(1, 10.0, f64::INFINITY), |_| (0.0, 0.0));
    let without = |all: &[InstanceCounts<'_>]| {
        let all = recorded(15, 200, all).into_iter().filter(|one| one.label("__name__") != SCRAPED);
        traffic(&all.collect::<Vec<_>>())
    };
    let follows = without(&[always("v2", "a", &bad), always("v1", "a", &good)]);
    assert!(follows.all_follow() && follows.following == 1, "{follows:?}");
    let silent = without(&[always("v2", "a", &bad), always("v1", "a", &idle)]);
    assert_eq!(silent.unknown.names, ["a"], "whether it was scraped is unknown");
}

#[test]
fn values_that_are_no_numbers_are_left_out() {
    let mut all = recorded(5, 60, &[always("v1", "a", &from(0, 1.0, 2.0))]);
    for one in &mut all {
        for (place, (_, value)) in one.points.iter_mut().enumerate() {
            if place % 3 == 0 && one.labels["__name__"] != SCRAPED {
                *value = if place % 2 == 0 { f64::NAN } else { f64::INFINITY };
            }
        }
    }
    let traffic = traffic(&all);
    assert!((50..=60).contains(&traffic.target), "{traffic:?}");
}

#[test]
fn a_prompt_without_counters_is_unknown() {
    assert_eq!(recorded_of(&[]).of(&labels(), &prompt()).since(at(0), &v("v2"), &v("v1")), None);
    assert_eq!(judge(None, 0.01, at(0)).verdict, Verdict::Unknown);
    let all = recorded(5, 300, &[always("v1", "a", &from(0, 100.0, f64::INFINITY))]);
    let all: Vec<_> = all.into_iter().filter(|one| one.label("__name__") != FAILURES).collect();
    let finding = judge(Some(&traffic(&all)), 0.01, at(0));
    assert_eq!(finding.verdict, Verdict::Unknown);
    assert!(finding.text.contains(FAILURES), "{}", finding.text);
}

#[test]
fn a_version_is_healthy_or_bad_only_where_the_whole_bound_says_so() {
    let judged = |failures, target| judge(Some(&Traffic { target, failures, ..Traffic::default() }), 0.01, at(131));
    for (failures, requests, verdict) in [
        (0, 19, Verdict::NoData),
        (19, 19, Verdict::NoData),
        (0, 20, Verdict::NoData),
        (1, 20, Verdict::NoData),
        (0, 1_000, Verdict::Healthy),
        (12, 4_310, Verdict::Healthy),
        (9, 1_000, Verdict::NoData),
        (50, 1_000, Verdict::Unhealthy),
        (15, 20, Verdict::Unhealthy),
    ] {
        assert_eq!(judged(failures, requests).verdict, verdict, "{failures} of {requests}");
    }
    assert_eq!(judged(12, 4_310).text, "12 failures in 4,310 requests since 08:02:11 UTC (0.28 %, at most 0.77 %)");
}

#[test]
fn a_stage_is_judged_by_what_its_target_fails_and_has_always_failed() {
    let judged = |all: &[Series]| judge_stage(&recorded_of(all).of(&labels(), &prompt()), at(0), &v("v1"));
    let failing = |one_in| recorded(5, 300, &[always("v1", "a", &from(0, 100.0, one_in))]);
    let usual = || series(REFERENCE, "v1", "", vec![(at(-240), 0.03)]);
    assert_eq!(judged(&[]).verdict, Verdict::NoData);
    for (one_in, reference, verdict) in [
        (f64::INFINITY, None, Verdict::Healthy),
        (100.0, None, Verdict::Healthy),
        (33.0, None, Verdict::Unhealthy),
        (33.0, Some(usual()), Verdict::Healthy),
        (10.0, Some(usual()), Verdict::Unhealthy),
    ] {
        let all: Vec<_> = failing(one_in).into_iter().chain(reference).collect();
        assert_eq!(judged(&all).verdict, verdict, "one in {one_in}");
    }
    let uncounted: Vec<_> = failing(10.0).into_iter().filter(|one| one.label("__name__") != FAILURES).collect();
    assert_eq!(judged(&uncounted), judge(Some(&traffic(&uncounted)), 0.02, at(0)));
    assert_eq!(judged(&uncounted).verdict, Verdict::Unknown);
}

#[test]
fn what_a_version_has_always_failed_is_no_harm() {
    let all = [series(REFERENCE, "v1", "", vec![(at(-240), 0.015), (at(60), 0.5)])];
    let recorded = recorded_of(&all);
    let counters = recorded.of(&labels(), &prompt());
    assert!((counters.limit(0.01, at(0), &v("v1")) - 0.0225).abs() < 1e-12, "later records do not count");
    assert!((counters.limit(0.01, at(0), &v("v9")) - 0.01).abs() < 1e-12);
    // recorded every five minutes, of which one was missed; and by a rule that has failed for longer
    for (recorded, limit) in [(-400, 0.045), (-899, 0.045), (-901, 0.01)] {
        let all = [series(REFERENCE, "v1", "", vec![(at(recorded), 0.03)])];
        let found = recorded_of(&all).of(&labels(), &prompt()).limit(0.01, at(0), &v("v1"));
        assert!((found - limit).abs() < 1e-12, "{recorded} s: {found}");
    }
    for clusters in [[0.01, 0.03], [0.03, 0.01], [f64::NAN, 0.01]] {
        let all = clusters.map(|failing| series(REFERENCE, "v1", "", vec![(at(-240), failing)]));
        let found = recorded_of(&all).of(&labels(), &prompt()).limit(0.01, at(0), &v("v1"));
        assert!((found - 0.015).abs() < 1e-12, "the lowest of several clusters counts: {clusters:?} {found}");
    }
    for failing in [0.05, 0.6, 0.7] {
        let all = [series(REFERENCE, "v1", "", vec![(at(-240), failing)])];
        let limit = |least| recorded_of(&all).of(&labels(), &prompt()).limit(least, at(0), &v("v1"));
        assert_eq!((limit(0.01), limit(0.1)), (0.05, 0.1), "what fails that often is not healthy");
    }
    for wrong in [f64::NAN, -1.0, 7.0] {
        let all = [series(REFERENCE, "v1", "", vec![(at(-240), wrong)])];
        assert!((recorded_of(&all).of(&labels(), &prompt()).limit(0.01, at(0), &v("v1")) - 0.01).abs() < 1e-12);
    }
}

#[test]
fn what_is_asked_stays_within_bounds() {
    let asked = |seconds| question("prompt=~\"p\"", at(0), at(seconds), 180);
    assert!(asked(10).ends_with("[310s]"), "{}", asked(10));
    assert!(asked(600).ends_with("[900s]"), "{}", asked(600));
    assert!(asked(3_600).ends_with("[3900s:21s]"), "{}", asked(3_600));
    for (seconds, windows) in [(10, ["[310s:5s]", "[310s:15s]"]), (3_600, ["[3900s:65s]", "[3900s:195s]"])] {
        for (points, window) in POINTS[1..].iter().zip(windows) {
            let asked = question("", at(0), at(seconds), *points);
            assert!(asked.ends_with(window), "{asked}");
        }
    }
    let query = references("prompt=~\"p\"", at(0), at(10));
    assert_eq!(query, "prompt_version:request_errors:reference{prompt=~\"p\"}[910s]");
}

#[test]
fn names_of_instances_are_shown_without_hidden_characters() {
    assert_eq!(shown("10.0.0.1\u{202e}:8000\u{9b}2J"), "10.0.0.1:80002J");
    assert_eq!(shown(&"x".repeat(1_000)).len(), 100);
}

/// Requests and failures of a version until a second.
trait Counter: Fn(i64) -> (f64, f64) {}
impl<F: Fn(i64) -> (f64, f64)> Counter for F {}

/// Serves `rate` a second, of which the part `share` is of the bad version: until `end`, and then none.
fn split(rate: f64, share: f64, end: i64) -> (impl Counter, impl Counter) {
    let bad = move |second: i64| ((second.min(end) + 1_000) as f64 * rate * share).floor();
    (
        move |second: i64| (bad(second), 0.0),
        move |second: i64| (((second + 1_000) as f64 * rate - bad(second)).floor(), 0.0),
    )
}

#[test]
fn after_a_canary_a_pod_that_goes_on_splitting_never_counts_as_following() {
    for (rate, share, scrape) in [(1.0, 0.01, 5), (1.0, 0.05, 5), (10.0, 0.01, 15), (2.0, 0.25, 60)] {
        let (bad, good) = split(rate, share, 1);
        let (stuck_bad, stuck_good) = split(rate, share, 10_000);
        let names: Vec<_> = (0..9).map(|i| format!("pod-{i}")).collect();
        let all = names.iter().flat_map(|name| [always("v2", name, &bad), always("v1", name, &good)]);
        let mut all: Vec<_> = all.collect();
        all.extend([always("v2", "stuck", &stuck_bad), always("v1", "stuck", &stuck_good)]);
        for now in (5..1_800).step_by(35) {
            let traffic = traffic(&recorded(scrape, now, &all));
            let named = traffic.still.names.iter().chain(&traffic.unknown.names).any(|name| name == "stuck");
            assert!(named, "{rate}/s, {share}, {scrape} s, {now} s after the switch: {traffic:?}");
            // nine requests to the bad version were expected
            let proved = now as f64 > 9.0 / (rate * share) + 3.0 * scrape as f64;
            assert_eq!(traffic.following, if proved { 9 } else { traffic.following }, "{rate} {share} {scrape} {now}");
        }
    }
}

#[test]
fn where_both_were_served_before_a_few_requests_prove_nothing() {
    let (bad, good) = split(1.0, 0.05, 0);
    let follows = |now| traffic(&recorded(5, now, &[always("v2", "a", &bad), always("v1", "a", &good)]));
    assert_eq!(follows(100).unknown.names, ["a"]);
    assert!(follows(240).all_follow());
    // one that had no request to the bad version is judged by the share of the others, and so is a new one
    let few = |second: i64| (((second + 1_000) as f64 * 0.2).floor(), 0.0);
    let (many, none) = (|second: i64| ((second + 1_000) as f64, 0.0), |_: i64| (0.0, 0.0));
    let all = |now| {
        let new = InstanceCounts { from: 20, ..always("v1", "new", &many) };
        let known = [always("v2", "a", &bad), always("v1", "a", &good)];
        let others = [always("v2", "b", &none), always("v1", "b", &few), new];
        traffic(&recorded(5, now, &known.into_iter().chain(others).collect::<Vec<_>>()))
    };
    assert_eq!(all(100).unknown.names, ["a", "b", "new"]);
    assert_eq!((all(300).following, &all(300).unknown.names[..]), (2, &["b".to_owned()][..]));
    assert!(all(1_200).all_follow());
    // one that clearly took no part in the split has nothing to stop
    let apart = [always("v2", "a", &bad), always("v1", "a", &good), always("v1", "b", &many)];
    assert_eq!(traffic(&recorded(5, 30, &apart)).unknown.names, ["a"]);
}

#[test]
fn a_pod_with_fewer_of_the_bad_versions_users_is_judged_by_its_own_share() {
    let ((bad, good), (rarely, mostly)) = (split(10.0, 0.5, 0), split(10.0, 0.02, 0));
    let all =
        [always("v2", "a", &bad), always("v1", "a", &good), always("v2", "b", &rarely), always("v1", "b", &mostly)];
    let traffic = traffic(&recorded(5, 20, &all));
    assert_eq!((traffic.following, &traffic.unknown.names[..]), (1, &["b".to_owned()][..]), "{traffic:?}");
}

#[test]
fn a_version_that_was_shipped_a_moment_ago_is_no_split() {
    let before = |end: i64| move |second: i64| ((second.min(end) + 1_000) as f64 * 2.0, 0.0);
    let shipped = |second: i64| ((second.min(1) + 120).max(0) as f64 * 2.0, 0.0);
    let again = |second: i64| (before(-120)(second).0 + (second - 1).max(0) as f64 * 2.0, 0.0);
    let traffic = traffic(&recorded(5, 30, &[always("v2", "a", &shipped), always("v1", "a", &again)]));
    assert!(traffic.all_follow(), "{traffic:?}");
}

#[test]
fn few_requests_of_the_bad_version_prove_nothing_by_their_absence() {
    // one request in five minutes: that none comes in the next hour may be chance
    let (once, idle) = (|second: i64| (f64::from(u8::from(second >= -100)), 0.0), |_| (0.0, 0.0));
    let quiet = |now| traffic(&recorded(15, now, &[always("v2", "a", &once), always("v1", "a", &idle)]));
    assert_eq!(quiet(3_600).unknown.names, ["a"]);
    for (count, seen, silent, proved) in
        [(1.0, 1.0, 998.0, false), (1.0, 1.0, 1_000.0, true), (20.0, 100.0, 41.0, false), (20.0, 100.0, 42.0, true)]
    {
        assert_eq!(is_proof(count, seen, silent, 1), proved, "{count} in {seen}, none in {silent}");
    }
    assert!(!is_proof(0.0, 0.0, 100.0, 0) && !is_proof(5.0, 10.0, 0.0, 0) && is_proof(5.0, 0.0, 1.0, 0));
    assert!(!is_proof(20.0, 100.0, 42.0, 2), "the second silence of one that was seen again");
}

#[test]
fn a_pod_that_is_restarted_under_its_name_follows_by_what_it_serves_now() {
    let (bad, good, restarted) =
        (until(10_000, 5.0), from(0, 5.0, f64::INFINITY), |second: i64| ((second - 122).max(0) as f64 * 5.0, 0.0));
    let all = [
        InstanceCounts { until: 120, ..always("v2", "a", &bad) },
        InstanceCounts { from: 125, ..always("v1", "a", &restarted) },
        always("v1", "b", &good),
    ];
    for scrape in [5, 15] {
        assert_eq!(traffic(&recorded(scrape, 115, &all)).still.names, ["a"]);
        for now in [200, 300, 600] {
            let traffic = traffic(&recorded(scrape, now, &all));
            assert!(traffic.all_follow() && traffic.following == 2, "{scrape} s, {now} s: {traffic:?}");
        }
    }
}

#[test]
fn a_server_that_drops_the_bad_versions_series_follows() {
    let (bad, good) = (until(6, 5.0), from(6, 5.0, f64::INFINITY));
    for gone in [1, 6, 11, 16] {
        let all = [InstanceCounts { until: gone, ..always("v2", "a", &bad) }, always("v1", "a", &good)];
        for now in [60, 300] {
            let traffic = traffic(&recorded(5, now, &all));
            assert!(traffic.all_follow(), "{gone} s, {now} s: {traffic:?}");
        }
    }
}

#[test]
fn an_instance_that_appears_with_the_bad_version_is_unknown() {
    let (old, good) = (until(0, 50.0), from(1, 50.0, f64::INFINITY));
    let new = |second: i64| ((second - 20).max(0) as f64 * 10.0, 0.0);
    let known = |now, from| {
        let new = InstanceCounts { from, ..always("v2", "new", &new) };
        traffic(&recorded(60, now, &[always("v2", "a", &old), always("v1", "a", &good), new]))
    };
    assert_eq!(known(90, 60).unknown.names, ["new"]);
    assert_eq!(known(185, 60).still.names, ["new"]);
}

#[test]
fn instances_of_the_same_name_in_two_clusters_are_two() {
    let (bad, stuck, good) = (until(1, 10.0), until(10_000, 10.0), from(1, 10.0, f64::INFINITY));
    let instance =
        |bad, good| recorded(5, 200, &[always("v2", "10.0.0.5:9100", bad), always("v1", "10.0.0.5:9100", good)]);
    let labelled = |mut all: Vec<Series>, label: &str, value: &str| {
        all.iter_mut().for_each(|one| drop(one.labels.insert(label.to_owned(), value.to_owned())));
        all
    };
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut all = labelled(instance(&stuck, &|_| (0.0, 0.0)), "cluster", first);
        all.extend(labelled(instance(&bad, &good), "cluster", second));
        let traffic = traffic(&all);
        assert_eq!((traffic.following, &traffic.still.names), (1, &vec![format!("10.0.0.5:9100 (cluster={first})")]));
    }
    // two Prometheus servers of a pair, or two of their jobs, measure the same instance
    let once = traffic(&instance(&bad, &good));
    let labels = Labels { replicas: vec!["monitor".to_owned()], ..labels() };
    for label in ["prometheus_replica", "job", "monitor"] {
        let mut pair = labelled(instance(&bad, &good), label, "0");
        pair.extend(labelled(instance(&bad, &good), label, "1"));
        let recorded = Recorded::new(&labels, pair);
        let twice = recorded.of(&labels, &prompt()).since(at(0), &v("v2"), &v("v1"));
        assert_eq!(twice, Some(once.clone()), "{label}");
    }
}

#[test]
fn an_instance_is_gone_only_if_others_of_its_prompt_are_scraped() {
    let (stuck, good) = (until(10_000, 10.0), from(1, 50.0, f64::INFINITY));
    let of_prompt = [
        InstanceCounts { until: 30, ..always("v1", "a", &good) },
        InstanceCounts { until: 30, ..always("v2", "b", &stuck) },
    ];
    let mut all = recorded(5, 120, &of_prompt);
    let mut other = recorded(5, 120, &[always("v1", "z", &good)]);
    other.iter_mut().for_each(|one| drop(one.labels.insert("prompt".to_owned(), "another".to_owned())));
    all.extend(other);
    all.push(series(REFERENCE, "v1", "", vec![(at(120), 0.01)]));
    assert!(!traffic(&all).all_follow(), "{:?}", traffic(&all));
}

/// Of an old rollback few points are asked for: the last one may be minutes old.
#[test]
fn a_server_is_not_gone_when_its_last_point_is_one_step_old() {
    let now = 6 * 3_600;
    let asked = question("prompt=~\"p\"", at(0), at(now), 180);
    let step: i64 = asked.trim_end_matches("s]").rsplit(':').next().and_then(|s| s.parse().ok()).expect("a step");
    let last = now - step + 5; // points are at multiples of the step
    let times: Vec<i64> = (0..180).rev().map(|i| last - i * step).collect();
    let points = |value: &dyn Fn(i64) -> f64| -> Vec<(Timestamp, f64)> {
        times.iter().map(|second| (at(*second), value(*second))).collect()
    };
    let all = [
        series(REQUESTS, "v2", "a", points(&|second| (second + 1_000) as f64)),
        series(FAILURES, "v2", "a", points(&|_| 0.0)),
        series(SCRAPED, "v2", "a", points(&|second| at(second).0 as f64 / 1e3)),
    ];
    let mut recorded = recorded_of(&all);
    recorded.know(ScrapeTargets::Known { up: Vec::new(), evaluated: at(now) });
    let traffic = recorded.of(&labels(), &prompt()).since(at(0), &v("v2"), &v("v1")).expect("counted");
    assert_eq!(traffic.still.names, ["a"], "{traffic:?}");
    assert!(!traffic.none_is_left());
}

#[test]
fn a_server_is_not_gone_for_a_scrape_that_failed_at_a_rare_point() {
    let (now, step) = (6 * 3_600, 121);
    let points = |missing: usize, value: &dyn Fn(i64) -> f64| -> Vec<(Timestamp, f64)> {
        let times = (0..180).rev().map(|point| now - point * step);
        times.take(180 - missing).map(|second| (at(second), value(second))).collect()
    };
    let served = |version: &str, instance: &str, missing: usize| {
        [
            series(REQUESTS, version, instance, points(missing, &|second| (second + 1_000) as f64)),
            series(FAILURES, version, instance, points(missing, &|_| 0.0)),
            series(SCRAPED, version, instance, points(missing, &|second| at(second).0 as f64 / 1e3)),
        ]
    };
    for (missing, gone) in [(0, false), (1, false), (2, false), (3, true)] {
        let traffic = traffic(&[served("v1", "a", 0), served("v2", "b", missing)].concat());
        assert_eq!((traffic.following, traffic.none_is_left()), (1, gone), "{missing} points: {traffic:?}");
    }
}
