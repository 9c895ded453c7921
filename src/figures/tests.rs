use futures_util::FutureExt;

use super::*;

#[test]
fn pages_are_told_of_a_change_of_health_and_not_of_each_figure() {
    let with = |errors: Option<f64>| {
        let mut figures = Figures::default();
        for (prompt, now) in [("calm", Some(0.0)), ("worse", errors)] {
            let prompt = PromptName::parse(prompt).expect("a name");
            figures.entry(&prompt, "v1").of_mut(Signal::Errors).now = now;
        }
        figures
    };
    let changed = |now, before| with(now).changed_since(&with(before));
    let worse = [PromptName::parse("worse").expect("a name")];
    assert_eq!(changed(Some(0.4), Some(0.001)), worse);
    assert_eq!(changed(None, Some(0.001)), worse, "blind");
    assert_eq!(changed(Some(0.002), Some(0.001)), []);
    assert_eq!(Figures::default().changed_since(&with(Some(0.0))).len(), 2, "Prometheus is away");
}

#[test]
fn pages_are_told_while_servers_change_to_another_version() {
    let with = |servers: [Option<f64>; 2]| {
        let mut figures = Figures::default();
        let prompt = PromptName::parse("p").expect("a name");
        for (version, servers) in ["v1", "v2"].into_iter().zip(servers) {
            figures.entry(&prompt, version).servers = servers;
        }
        figures
    };
    let told = |now, before| !with(now).changed_since(&with(before)).is_empty();
    assert!(told([Some(3.0), Some(3.0)], [Some(3.0), None]));
    assert!(told([None, Some(3.0)], [Some(3.0), Some(3.0)]), "the last one has followed");
    assert!(!told([Some(3.0), None], [Some(2.0), None]), "one more server");
    assert!(!told([None; 2], [Some(2.0), None]), "no request came for two minutes");
}

#[test]
fn a_change_is_told_until_other_receivers_have_asked_too() {
    let with = |errors| {
        let mut figures = Figures::default();
        figures.entry(&PromptName::parse("p").expect("a name"), "v1").of_mut(Signal::Errors).now = Some(errors);
        Arc::new(figures)
    };
    let mut news = FigureNews::default();
    let told = [0.0, 0.001, 0.0, 0.0, 0.4, 0.4, 0.4, 0.4].map(|errors| news.add(with(errors)).map(|all| all.len()));
    assert_eq!(told, [1, 1, 1, 0, 1, 1, 1, 0].map(Some));
}

#[test]
fn all_pages_are_told_when_values_are_missing_and_when_no_longer() {
    let (mut without_health, mut without_servers) = (Figures::default(), Figures::default());
    without_health.fault = Some("no answer".to_owned());
    without_servers.servers_fault = Some("no answer".to_owned());
    for missing in [without_health, without_servers].map(Arc::new) {
        let (complete, mut news) = (Arc::default(), FigureNews::default());
        let told = [&complete, &missing, &missing, &missing, &missing, &complete]
            .map(|figures| news.add(Arc::clone(figures)).map(|all| all.len()));
        assert_eq!(told, [Some(0), None, None, None, Some(0), None]);
    }
}

fn figure(now: f64, baseline: Option<f64>) -> Figure {
    Figure { now: Some(now), baseline, ..Figure::default() }
}

#[test]
fn a_figure_is_judged_by_the_limits_of_the_shipped_rules() {
    let rating = |signal, now, baseline| figure(now, baseline).rating(signal);
    assert_eq!(rating(Signal::Errors, 0.02, None), Some(Rating::Fine), "a limit is not exceeded by itself");
    assert_eq!(rating(Signal::Errors, 0.021, None), Some(Rating::Watch));
    assert_eq!(rating(Signal::Errors, 0.3, None), Some(Rating::Bad));
    assert_eq!(rating(Signal::P99, 1.1, Some(1.0)), Some(Rating::Fine));
    assert_eq!(rating(Signal::P99, 2.1, Some(1.0)), Some(Rating::Bad));
    assert_eq!(rating(Signal::P99, 2.1, None), None, "nothing to compare it with");
    assert_eq!(rating(Signal::Quality, 0.85, Some(1.0)), Some(Rating::Watch));
    assert_eq!(rating(Signal::Quality, 0.9, Some(0.8)), Some(Rating::Fine), "better than before");
    assert_eq!(rating(Signal::Quality, 0.0009, Some(0.001)), Some(Rating::Fine), "exactly 10 %");
    assert_eq!(rating(Signal::Quality, 0.64, Some(0.8)), Some(Rating::Watch), "exactly 20 %");
    assert_eq!(rating(Signal::Errors, f64::NAN, None), None);
}

#[test]
fn the_limits_are_those_of_the_shipped_rules() {
    let rules = include_str!("../../alert-rules/alerts.yml");
    let thresholds = |metric: &str| -> Vec<f64> {
        let of_rule = |rule: &str| {
            let field = |name: &str| {
                let line = rule.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
                line.map(|value| value.trim_matches('\'').to_owned()).unwrap_or_default()
            };
            field("metric").contains(metric).then(|| field("threshold").parse().ok()).flatten()
        };
        rules.split("- alert: ").skip(1).filter_map(of_rule).collect()
    };
    for (signal, metric) in
        [(Signal::Errors, "request_errors"), (Signal::P99, "p99_growth"), (Signal::Quality, "quality_score:drop")]
    {
        let found = thresholds(metric);
        let (watch, bad) = signal.limits();
        assert!(found.contains(&watch) && found.contains(&bad), "{metric}: {found:?}");
        assert!(found.iter().all(|one| *one <= bad), "{metric}: {found:?}");
    }
}

#[test]
fn health_says_what_is_missing() {
    let mut version = VersionFigures::default();
    assert_eq!(version.health(), Health::Blind);
    version.requests = Some(3.0);
    assert_eq!(version.health(), Health::TooLittle);
    version.requests = Some(100.0);
    assert_eq!(version.health(), Health::Blind, "enough requests, and their ratios are missing");
    version.of_mut(Signal::Errors).coverage = Some(Coverage::TooLittle);
    assert_eq!(version.health(), Health::TooLittle, "the rules know better what they need");
    *version.of_mut(Signal::Errors) = figure(0.001, None);
    assert_eq!(version.health(), Health::Measured(Rating::Fine));
    *version.of_mut(Signal::Quality) = figure(0.7, Some(0.9));
    assert_eq!(version.health(), Health::Measured(Rating::Bad), "the worst signal counts");
}

#[test]
fn what_no_rule_can_judge_is_not_fine() {
    let blind = |now| Figure { coverage: Some(Coverage::Blind), ..figure(now, None) };
    // servers that count failures as outcome="failed"
    let mut version = VersionFigures { requests: Some(100.0), ..VersionFigures::default() };
    *version.of_mut(Signal::Errors) = blind(0.0);
    assert_eq!(version.of(Signal::Errors).rating(Signal::Errors), None);
    assert_eq!(version.health(), Health::Blind);
    *version.of_mut(Signal::P99) = figure(1.0, Some(1.0));
    version.of_mut(Signal::Quality).coverage = Some(Coverage::TooLittle);
    assert_eq!(version.health(), Health::Blind);
    *version.of_mut(Signal::P99) = figure(3.0, Some(1.0));
    assert_eq!(version.health(), Health::Measured(Rating::Bad));
    *version.of_mut(Signal::Errors) = blind(0.3);
    assert_eq!(version.of(Signal::Errors).rating(Signal::Errors), Some(Rating::Bad));
}

#[tokio::test(start_paused = true)]
async fn prometheus_is_asked_only_while_somebody_looks_and_an_answer_expires() {
    let book = FigureBook::default();
    assert!(book.wanted().now_or_never().is_none());
    assert!(matches!(book.look(), Known::Awaited));
    assert!(book.wanted().now_or_never().is_some(), "somebody looked");
    book.publish(Some(Arc::default()));
    assert!(matches!(book.look(), Known::Since(..)));
    assert!(book.wanted().now_or_never().is_none(), "it is fresh");
    tokio::time::sleep(EVERY).await;
    assert!(matches!(book.look(), Known::Since(..)));
    assert!(book.wanted().now_or_never().is_some());
    tokio::time::sleep(EXPIRES).await;
    assert!(matches!(book.look(), Known::Awaited));
    book.publish(None);
    assert!(matches!(book.look(), Known::NotMeasured));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_waited_for_and_not_longer_than_asked() {
    let book = FigureBook::default();
    let started = Instant::now();
    assert!(matches!(book.within(STEP).await, Known::Awaited));
    assert_eq!(started.elapsed(), STEP);
    let publish = async {
        tokio::time::sleep(EVERY).await;
        book.publish(Some(Arc::default()));
    };
    let (known, ()) = tokio::join!(book.within(STEP), publish);
    assert!(matches!(known, Known::Since(..)));
    assert_eq!(started.elapsed(), STEP + EVERY);
}
