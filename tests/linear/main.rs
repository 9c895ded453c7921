//! External input costs no more per part, however many parts there are: twice as much costs at most 2.3 times as much,
//! on average over five doublings.

mod bodies;
mod crowded;
mod pieces;

use std::time::Duration;

use hyper::StatusCode;
use prompt_rollback::alertmanager::client::read_list;
use prompt_rollback::alertmanager::payload::{self, Delivered};
use prompt_rollback::config::Labels;
use prompt_rollback::decision::decide::Active;
use prompt_rollback::decision::{
    Activation, Alert, Answer, CommitId, Event, IncidentId, Operator, Outcome, Policy, PromptName, PromptState,
    Register, Snapshot, Timestamp, TrafficShare, VersionName, decide,
};
use prompt_rollback::metrics::ScrapeData;
use prompt_rollback::prometheus::client::{Series, read_answer};
use prompt_rollback::prometheus::comparison::{self, QueryRange};
use prompt_rollback::rules;
use prompt_rollback::slack;
use prompt_rollback::store::VersionSeries;
use prompt_rollback_testkit::{least, linear};

fn now() -> Timestamp {
    Timestamp(1_800_000_000_000)
}

fn version(text: &str) -> VersionName {
    VersionName::parse(text).expect("a version")
}

/// A delivery of alerts with the labels that `labels` returns for each number.
fn delivery(alerts: usize, alert: impl Fn(usize) -> String) -> Vec<u8> {
    let all: Vec<String> = (0..alerts).map(alert).collect();
    format!(r#"{{"version":"4","status":"firing","alerts":[{}]}}"#, all.join(",")).into_bytes()
}

fn alert(fingerprint: usize, status: &str, prompt: &str, version: &str) -> String {
    format!(
        r#"{{"status":"{status}","labels":{{"alertname":"Row","prompt":"{prompt}","version":"{version}","severity":"critical"}},
        "annotations":{{"summary":"it fails"}},"startsAt":"2026-11-21T00:38:16Z","endsAt":"2026-11-21T00:48:16Z","fingerprint":"{fingerprint:016x}"}}"#
    )
}

fn labels() -> Labels {
    prompt_rollback::config::Config::default().labels
}

fn read(body: &[u8]) -> Vec<Delivered> {
    payload::parse(body, &labels(), &Policy::default()).expect("a delivery").alerts
}

fn alerts(body: &[u8]) -> Vec<Alert> {
    let alert = |delivered| match delivered {
        Delivered::Alert(alert) => *alert,
        other => panic!("{other:?}"),
    };
    read(body).into_iter().map(alert).collect()
}

fn snapshot(state: PromptState, ids: usize) -> Snapshot {
    let active = state.serving.as_ref().map_or(Active::Absent, |serving| Active::Version(serving.version.clone()));
    Snapshot {
        prompt: PromptName::parse("p").expect("a name"),
        active,
        routing: Vec::new(),
        state,
        paused: None,
        recent_auto: 0,
        outage_hold: None,
        incident: None,
        content: None,
        commit: CommitId("commit".to_owned()),
        fresh_ids: (0..ids + 2).map(|n| IncidentId(format!("{n:026}"))).collect(),
    }
}

/// v1 is known-good and v2 active.
fn shipped() -> PromptState {
    let activate = |name: &str| {
        let (share, operator, reason) = (TrafficShare::All, Operator::recorded("ci"), None);
        Event::Activate(Activation { version: version(name), share, operator, force: false, reason })
    };
    let register = |name: &str, known_good| {
        let (content, contact, staged_at) = (None, None, None);
        Event::Register(Register { version: version(name), content, contact, staged_at, known_good })
    };
    let mut state = PromptState::default();
    for event in [register("v1", true), activate("v1"), register("v2", false), activate("v2")] {
        let decision = decide(&Policy::default(), &snapshot(state, 1), &event, Timestamp(now().0 - 3_600_000));
        state = decision.commit.expect("a commit").state;
    }
    state
}

/// A decision about all of them.
fn decided(what: &str, smallest: usize, alert: impl Fn(usize) -> String) {
    linear(what, smallest, |many| {
        let event = Event::Alerts(alerts(&delivery(many, &alert)));
        let snapshot = snapshot(shipped(), many);
        let policy = Policy::default();
        least(|| decide(&policy, &snapshot, &event, now()))
    });
}

#[test]
fn a_delivery_about_ever_more_versions_of_one_prompt_is_decided() {
    decided("versions that never were", 500, |n| alert(n, "firing", "p", &format!("w{n}")));
    decided("ends of alerts on versions that never were", 500, |n| alert(n, "resolved", "p", &format!("w{n}")));
    decided("half of it firing", 500, |n| {
        alert(n, if n % 2 == 0 { "firing" } else { "resolved" }, "p", &format!("w{}", n / 3))
    });
}

#[test]
fn a_delivery_of_ever_more_alerts_on_one_version_is_decided() {
    decided("alerts on what serves", 500, |n| alert(n, "firing", "p", "v2"));
    decided("alerts on the rollback target", 500, |n| alert(n, "firing", "p", "v1"));
    decided("ends of alerts on what serves", 500, |n| alert(n, "resolved", "p", "v2"));
}

#[test]
fn a_critical_among_very_many_versions_is_acted_upon() {
    let body =
        delivery(20_000, |n| alert(n, "firing", "p", &if n == 9_999 { "v2".to_owned() } else { format!("w{n}") }));
    let event = Event::Alerts(alerts(&body));
    let decision = decide(&Policy::default(), &snapshot(shipped(), 20_000), &event, now());
    let Answer::Alerts(outcomes) = decision.answer else { panic!("{:?}", decision.answer) };
    let of = |outcome: Outcome| outcomes.iter().filter(|one| one.outcome == outcome).count();
    assert_eq!((of(Outcome::RolledBack), of(Outcome::Ignored)), (1, 19_999));
    assert_eq!(outcomes[9_999].outcome, Outcome::RolledBack);
    let commit = decision.commit.expect("a switch");
    assert_eq!(commit.active, Some(version("v1")));
    assert!(commit.state.inactive_alerts.len() <= Policy::MAX_INACTIVE_ALERTS && commit.state.versions.len() == 2);
}

#[test]
fn a_delivery_is_read() {
    for (what, alert) in [
        ("alerts of one prompt", (|n| alert(n, "firing", "p", "v2")) as fn(usize) -> String),
        ("alerts of many prompts", |n| alert(n, "firing", &format!("p{n}"), "v2")),
        ("alerts that are none", |_| "null".to_owned()),
        ("alerts that lack everything", |_| "{}".to_owned()),
    ] {
        linear(what, 100, |many| {
            let body = delivery(many, alert);
            least(|| read(&body))
        });
    }
}

#[test]
fn one_alert_with_ever_more_in_it_is_read() {
    let many = |part: &dyn Fn(usize) -> String, count: usize| (0..count).map(part).collect::<Vec<_>>().join(",");
    for (what, fields) in [
        ("labels", &(|n| format!(r#""labels":{{{}}}"#, n)) as &dyn Fn(String) -> String),
        ("annotations", &|n| format!(r#""labels":{{"prompt":"p","version":"v2"}},"annotations":{{{n}}}"#)),
        ("unknown fields", &|n| n),
    ] {
        linear(what, 500, |count| {
            let parts = many(&|n| format!(r#""l{n}":"{n}""#), count);
            let body = delivery(1, |_| format!(r#"{{"status":"firing",{}}}"#, fields(parts.clone())));
            least(|| read(&body))
        });
    }
    linear("the length of a text", 10_000, |length| {
        let body = delivery(1, |_| alert(0, "firing", "p", &"é\\n".repeat(length / 4)));
        least(|| read(&body))
    });
}

#[test]
fn a_click_in_slack_is_read() {
    linear("actions", 100, |many| {
        let action = r#"{"action_id":"approve","value":"x","action_ts":"1.0"}"#;
        let actions = vec![action; many].join(",");
        let payload = format!(r#"{{"type":"block_actions","user":{{"id":"U1"}},"actions":[{actions}]}}"#);
        let encoded: String = payload.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = format!("payload={encoded}").into_bytes();
        least(|| slack::payload::parse_form(&body))
    });
    linear("fields of the form", 20_000, |many| {
        let body = "a=b&".repeat(many).into_bytes();
        least(|| slack::payload::parse_form(&body))
    });
}

#[test]
fn a_message_of_socket_mode_is_read() {
    let envelope = |payload: &str| {
        let read = slack::payload::parse_envelope(&format!(
            r#"{{"type":"interactive","envelope_id":"e","accepts_response_payload":false,"payload":{payload}}}"#
        ));
        read.expect("an envelope")
    };
    linear("actions of an envelope", 100, |many| {
        let actions = vec![r#"{"action_id":"approve","value":"x","action_ts":"1.0"}"#; many].join(",");
        let payload = format!(r#"{{"type":"block_actions","user":{{"id":"U1"}},"actions":[{actions}]}}"#);
        least(|| envelope(&payload))
    });
    linear("blocks of the message in an envelope", 200, |many| {
        let blocks = vec![r#"{"type":"section","text":{"type":"mrkdwn","text":"v2 fails"}}"#; many].join(",");
        let payload = format!(
            r#"{{"type":"block_actions","user":{{"id":"U1"}},"message":{{"blocks":[{blocks}]}},"actions":[]}}"#
        );
        least(|| envelope(&payload))
    });
    linear("the length of a message that is no envelope", 20_000, |length| {
        let text = format!(r#"{{"type":"hello","text":"{}"}}"#, "é\\n".repeat(length / 4));
        least(|| slack::payload::parse_envelope(&text).expect("a message"))
    });
}

#[test]
fn the_rules_of_prometheus_are_read() {
    let rule =
        |labels: &str| format!(r#"{{"type":"alerting","name":"Row","query":"up","labels":{{{labels}}},"alerts":[]}}"#);
    let groups = |groups: Vec<Vec<String>>| {
        let groups = groups.into_iter().map(|rules| format!(r#"{{"name":"g","rules":[{}]}}"#, rules.join(",")));
        let groups = groups.collect::<Vec<_>>().join(",");
        format!(r#"{{"status":"success","data":{{"groups":[{groups}]}}}}"#).into_bytes()
    };
    let parse = |body: &[u8]| rules::parse(body).expect("rules");
    linear("rules of a group", 200, |many| {
        let body = groups(vec![vec![rule(r#""severity":"critical","action":"page""#); many]]);
        least(|| parse(&body))
    });
    linear("groups of rules", 200, |many| {
        let body = groups(vec![vec![rule(r#""action":"page""#)]; many]);
        least(|| parse(&body))
    });
    linear("labels of a rule", 500, |many| {
        let labels: Vec<String> = (0..many).map(|n| format!(r#""l{n}":"{n}""#)).collect();
        let body = groups(vec![vec![rule(&labels.join(","))]]);
        least(|| parse(&body))
    });
}

#[test]
fn metrics_are_written() {
    linear("prompts", 400, |many| {
        let series = |n| VersionSeries {
            prompt: PromptName::parse(&format!("team/prompt-{n}")).unwrap(),
            version: format!("v{n}"),
            previous: "v0".to_owned(),
            activated: now(),
        };
        let all: Vec<VersionSeries> = (0..many).map(series).collect();
        least(|| {
            let mut text = String::new();
            let stored = ScrapeData { series: all.clone(), ..ScrapeData::default() };
            stored.encode(&mut text).map(|()| text)
        })
    });
}

#[test]
fn what_prometheus_answers_is_read() {
    let series =
        |values: &str| format!(r#"{{"metric":{{"__name__":"up","prompt":"p","instance":"10.0.0.1:8000"}},{values}}}"#);
    let result = |kind: &str, items: Vec<String>| {
        let items = items.join(",");
        format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":[{items}]}}}}"#).into_bytes()
    };
    linear("series of a vector", 200, |many| {
        let body = result("vector", vec![series(r#""value":[1800000000.1,"0.02"]"#); many]);
        least(|| read_answer(StatusCode::OK, &body).expect("a vector"))
    });
    linear("points of a series", 1_000, |many| {
        let points = vec![r#"[1800000000.1,"0.02"]"#; many].join(",");
        let body = result("matrix", vec![series(&format!(r#""values":[{points}]"#))]);
        least(|| read_answer(StatusCode::OK, &body).expect("a matrix"))
    });
    linear("labels of a series", 500, |many| {
        let labels: Vec<String> = (0..many).map(|n| format!(r#""l{n}":"{n}""#)).collect();
        let labels = labels.join(",");
        let body = result("vector", vec![format!(r#"{{"metric":{{{labels}}},"value":[1,"1"]}}"#)]);
        least(|| read_answer(StatusCode::OK, &body).expect("a vector"))
    });
    linear("warnings", 1_000, |many| {
        let warnings = vec![r#""PromQL info: no histogram""#; many].join(",");
        let body =
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[]}},"warnings":[{warnings}]}}"#);
        least(|| read_answer(StatusCode::OK, body.as_bytes()).expect("a vector"))
    });
    linear("the length of an error", 20_000, |length| {
        let body = format!(r#"{{"status":"error","error":"{}"}}"#, "é\\n".repeat(length / 4));
        least(|| read_answer(StatusCode::BAD_REQUEST, body.as_bytes()).expect_err("refused"))
    });
}

#[test]
fn two_versions_are_compared_on_ever_more_servers() {
    let step = Duration::from_secs(15);
    let spans = [QueryRange { from: now(), to: now().plus(2 * step), step }];
    let [new, old] = ["v2", "v1"].map(version);
    let series = |name: &str, version: &str, server: usize, rate: f64| {
        let server = format!("10.0.0.1:{server}");
        let labels = [("__name__", name), ("prompt", "p"), ("version", version), ("instance", server.as_str())];
        Series {
            labels: labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into(),
            points: (0..3_u32).map(|i| (now().plus(step * i), rate * f64::from(i))).collect(),
        }
    };
    let counters = [("requests:sum", 10.0), ("request_errors:sum", 1.0), ("request_successes:count", 0.0)];
    linear("servers", 100, |servers| {
        let mut answer = Vec::new();
        for server in 0..servers {
            for version in ["v1", "v2"] {
                for (name, rate) in counters {
                    answer.push(series(&format!("prompt_version_instance:{name}"), version, server, rate));
                }
            }
        }
        let answers = [answer];
        let compared = || comparison::read(&labels(), &spans, &answers, [&new, &old], now());
        assert_eq!(compared().errors.len(), 2, "slices");
        least(compared)
    });
}

#[test]
fn what_alertmanager_lists_is_read() {
    linear("alerts", 200, |many| {
        let alert = r#"{"annotations":{"summary":"it fails"},"endsAt":"2026-11-21T00:48:16Z","fingerprint":"0123456789abcdef",
            "receivers":[{"name":"prompt-rollback"}],"status":{"inhibitedBy":[],"silencedBy":[],"state":"active"},
            "labels":{"alertname":"Row","prompt":"p","version":"v2"}}"#;
        let body = format!("[{}]", vec![alert; many].join(","));
        least(|| read_list(body.as_bytes()).expect("a list"))
    });
    linear("silences of one alert", 1_000, |many| {
        let silences = vec![r#""5e1b7f0a-8a0c-4d5e-9a53-1f2e3d4c5b6a""#; many].join(",");
        let body = format!(r#"[{{"fingerprint":"0123456789abcdef","status":{{"silencedBy":[{silences}]}}}}]"#);
        least(|| read_list(body.as_bytes()).expect("a list"))
    });
}
