//! Answers of Prometheus.

use hyper::StatusCode;
use prompt_rollback::decision::{Checked, Event, PromptState};
use prompt_rollback::postmortem::{SampleSeries, Samples, Unit, chart};
use prompt_rollback::prometheus::ab_test::Comparison;
use prompt_rollback::prometheus::client::read_answer;
use prompt_rollback::prometheus::comparison;
use prompt_rollback::prometheus::exposure::{Recorded, judge, judge_stage};
use prompt_rollback::prometheus::question::{ratio_of, read_abort, read_others, read_ratio, read_soak, read_verify};
use prompt_rollback::store::record::read_incident;

use super::{CONFIG, prompt, version};

/// The corpus is about this prompt, whose `v2` was rolled back to `v1`.
const INCIDENT: &str = r#"{"id":"01","prompt":"p","version":"v2","phase":"verifying","opened_at":1763717000000,"updated_at":1763717000000,"severity":"critical","action":"rollback","decider":"on-call","time_limit":120000,"flip":{"at":1763717000000,"from":"v2","to":"v1","mode":"auto","operator":"system"},"verification":{"next":1763717005000}}"#;

/// The body of an answer, to any query.
pub fn answer(input: &[u8]) {
    let refused = read_answer(StatusCode::BAD_REQUEST, input).expect_err("refused").to_string();
    assert!(refused.chars().count() < 300 && !refused.contains(char::is_control), "{refused}");
    let answer = read_answer(StatusCode::OK, input);
    let (labels, name) = (&CONFIG.labels, prompt("p"));
    let [bad, good] = ["v2", "v1"].map(version);
    read_verify("PromptErrorRateHigh", &answer);
    read_abort(&answer);
    let _ = read_soak(&answer);
    let Ok(series) = answer else { return };
    let ratio = Ok(ratio_of(labels, &series, &name, &good));
    assert!(!read_ratio(&ratio, 0.01).text.is_empty());
    read_others(labels, &name, [&series, &series, &series]);
    let times = series.iter().flat_map(|one| one.points.iter().map(|(at, _)| *at));
    let began = times.clone().min().unwrap_or_default();
    let spans = comparison::spans(began, times.max().unwrap_or_default());
    let answers = vec![series.clone(); spans.len()];
    let compared = Comparison::of(&comparison::read(labels, &spans, &answers, [&bad, &good], began), 0.01);
    for e in [compared.better, compared.harmful] {
        assert!(e.is_finite() && e >= 0.0, "{compared:?}");
    }
    assert!(!compared.is_better().1.is_empty() && !compared.is_no_worse().1.is_empty());

    let (incident, _) = read_incident(INCIDENT).expect("a record");
    let switch = incident.switch.as_ref().expect("rolled back").at;
    let recorded = Recorded::new(labels, series.clone());
    let counters = recorded.of(labels, &name);
    let traffic = counters.since(switch, &bad, &good);
    let finding = judge(traffic.as_ref(), counters.limit(0.01, switch, &good), switch);
    let stage = judge_stage(&counters, switch, &good);
    assert!(!finding.text.is_empty() && !stage.text.is_empty());
    let checked =
        Checked { incident: incident.id.clone(), switched_at: switch, number: 0, finding, traffic, blame: None };
    let state = PromptState { incidents: vec![incident], ..PromptState::default() };
    super::told::happens(&state, &Event::Checked(checked));

    let Some(first) = series.iter().find(|one| one.points.len() > 1) else { return };
    let line = |at: i64| {
        SampleSeries::new("v2", first.points.iter().map(|(moment, value)| (moment.0.saturating_add(at), *value)))
    };
    let samples =
        Samples { unit: Unit::Ratio, step_ms: 1_000, bad: line(0), good: Some(line(60_000)), ..Samples::default() };
    if let Ok(svg) = chart::svg(&samples, Some(switch)) {
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
