//! The webhook body: bytes → alerts. Pure.
//!
//! Unknown fields are normal (newer Alertmanagers and Grafana send more) and are passed over; what is read must have
//! its type. The delivery's own `status` is not read: it can say `resolved` while truncated alerts still fire.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::{Labels, parse_prometheus_duration};
use crate::decision::mass::Shares;
use crate::decision::{
    Alert, AlertStatus, Policy, PromptName, Severity, Timestamp, Trigger, TriggerLabels, VersionName,
};

/// Deeper than any sender nests, shallow enough for any stack.
const MAX_DEPTH: usize = 64;
/// Longest texts that are kept; the rest of an annotation can be read in Alertmanager.
const SHORT: usize = 500;
const LONG: usize = 2_000;
/// Longest label that tells what prompts share.
const MAX_SHARED: usize = 100;

/// What the alert of a drill is called. A receiver that knows no drills ignores it, as it does all alerts so called.
pub const DRILL_ALERT: &str = "PromptRollbackDrill";
/// The label that names the drill.
pub const DRILL_LABEL: &str = "prompt_rollback_drill";

/// The body can't be read; the message names the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPayload(String);

/// One alert of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    Alert(Box<Alert>),
    /// Says that it belongs to this drill; whether it does is not known here.
    Drill {
        id: String,
        alert: Box<Alert>,
    },
    /// Not to be acted upon, whatever the state of its prompt.
    Ignored(Ignored),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    pub fingerprint: String,
    /// As delivered, shortened; hostile until escaped.
    pub prompt: Option<String>,
    pub version: Option<String>,
    pub severity: Severity,
    pub reason: &'static str,
}

#[derive(Deserialize)]
struct Payload {
    alerts: Vec<RawAlert>,
    #[serde(rename = "externalURL")]
    external_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAlert {
    status: RawStatus,
    labels: HashMap<String, String>,
    annotations: Option<HashMap<String, String>>,
    starts_at: Option<String>,
    #[serde(rename = "generatorURL")]
    generator_url: Option<String>,
    fingerprint: Option<String>,
    /// Only Grafana sends it; null where nothing was measured.
    #[serde(default, rename = "values", deserialize_with = "is_null")]
    values_null: bool,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RawStatus {
    Firing,
    Resolved,
}

fn is_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<IgnoredAny>::deserialize(deserializer)?.is_none())
}

/// Reads a delivery.
pub fn parse(body: &[u8], names: &Labels, policy: &Policy) -> Result<Vec<Delivered>, BadPayload> {
    limit_depth(body)?;
    let payload: Payload = match serde_json::from_slice(body) {
        Ok(payload) => payload,
        Err(error) => return Err(explain(body, &error)),
    };
    let alertmanager_url = shorten(payload.external_url.as_deref().unwrap_or_default(), SHORT);
    Ok(payload.alerts.into_iter().map(|alert| read(alert, &alertmanager_url, names, policy)).collect())
}

/// serde_json would read deep nesting in an unknown field without complaint, at the cost of time.
fn limit_depth(body: &[u8]) -> Result<(), BadPayload> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, byte) in body.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(BadPayload(format!("nested deeper than {MAX_DEPTH} levels at byte {at}")));
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Reads once more to learn the place; only bad bodies pay for it.
fn explain(body: &[u8], error: &serde_json::Error) -> BadPayload {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let place = match serde_path_to_error::deserialize::<_, Payload>(&mut deserializer) {
        Err(error) => error.path().to_string(),
        Ok(_) => ".".to_owned(),
    };
    let message: String = error.to_string().chars().take(SHORT).collect();
    if place == "." { BadPayload(format!("body: {message}")) } else { BadPayload(format!("{place}: {message}")) }
}

fn read(raw: RawAlert, alertmanager_url: &str, names: &Labels, policy: &Policy) -> Delivered {
    let label = |name: &str| raw.labels.get(name).map(String::as_str);
    let annotations = raw.annotations.as_ref();
    let annotation = |name: &str, most: usize| {
        annotations.and_then(|a| a.get(name)).map(|text| shorten(text, most)).unwrap_or_default()
    };
    let time_limit = label("time_limit")
        .map(|text| (text, parse_prometheus_duration(text).ok().filter(|limit| *limit > Duration::ZERO)));
    let trigger = Trigger::read(
        TriggerLabels { severity: label("severity"), action: label("action"), decider: label("decider"), time_limit },
        policy,
    );
    let fingerprint =
        raw.fingerprint.as_deref().filter(|f| !f.is_empty()).map_or_else(|| derived(&raw.labels), |f| shorten(f, 64));
    let alertname = shorten(label("alertname").unwrap_or("unnamed alert"), SHORT);
    let (prompt, version) = (label(&names.prompt), label(&names.version));
    let ignored = |reason| {
        Delivered::Ignored(Ignored {
            fingerprint: fingerprint.clone(),
            prompt: prompt.map(|p| shorten(p, PromptName::MAX)),
            version: version.map(|v| shorten(v, VersionName::MAX)),
            severity: trigger.severity,
            reason,
        })
    };
    // whatever names a drill is never acted upon
    let drill = label(DRILL_LABEL).filter(|id| !id.is_empty());
    match drill {
        None if alertname.starts_with("PromptRollback") => return ignored("own_alert"),
        Some(_) if alertname != DRILL_ALERT => return ignored("unknown_drill"),
        _ => {}
    }
    let parsed = (prompt.and_then(|p| PromptName::parse(p).ok()), version.and_then(|v| VersionName::parse(v).ok()));
    let (Some(prompt), Some(version)) = parsed else {
        return ignored(if drill.is_some() { "unknown_drill" } else { "invalid_name" });
    };
    let status = match raw.status {
        RawStatus::Firing => AlertStatus::Firing,
        RawStatus::Resolved => AlertStatus::Resolved,
    };
    if status == AlertStatus::Firing && !was_measured(&raw, &alertname) {
        return ignored("not_measured");
    }
    let shared = |name: &str| label(name).map(|text| shorten(text, MAX_SHARED)).unwrap_or_default();
    if drill.is_some() && status == AlertStatus::Resolved {
        return ignored("drill_over");
    }
    let drill = drill.map(str::to_owned);
    let alert = Box::new(Alert {
        fingerprint,
        prompt,
        version,
        status,
        trigger,
        starts_at: raw
            .starts_at
            .as_deref()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .map(|t| Timestamp(t.as_millisecond())),
        summary: annotation("summary", SHORT),
        description: annotation("description", LONG),
        value: annotation("value", 100),
        verify: annotation("verify", LONG),
        runbook_url: annotation("runbook_url", SHORT),
        dashboard_url: annotation("dashboard_url", SHORT),
        alertmanager_url: alertmanager_url.to_owned(),
        generator_url: raw.generator_url.as_deref().map(|url| shorten(url, LONG)).unwrap_or_default(),
        shares: Shares { model: shared("model"), provider: shared("provider"), group: shared("group") },
        alertname,
    });
    match drill {
        Some(id) => Delivered::Drill { id, alert },
        None => Delivered::Alert(alert),
    }
}

/// Grafana fires alerts with the rule's own labels when its data source failed: nothing was measured then.
fn was_measured(raw: &RawAlert, alertname: &str) -> bool {
    let state = raw.annotations.as_ref().and_then(|a| a.get("grafana_state_reason")).map(String::as_str);
    !(raw.values_null
        || matches!(alertname, "DatasourceError" | "DatasourceNoData")
        || matches!(state, Some("Error" | "NoData")))
}

fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// A stand-in for a sender that gives none: the same labels always give the same.
fn derived(labels: &HashMap<String, String>) -> String {
    let mut sorted: Vec<_> = labels.iter().collect();
    sorted.sort();
    // FNV-1a: stable between versions and machines, unlike the standard library's hasher
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in sorted.iter().flat_map(|(name, value)| [name.as_bytes(), b"\0", value.as_bytes(), b"\0"]).flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("labels-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Labels {
        let mut names = crate::config::Config::load(None, std::iter::empty()).unwrap().labels;
        names.version = "version".to_owned();
        names
    }

    fn parse_text(body: &str) -> Result<Vec<Delivered>, BadPayload> {
        parse(body.as_bytes(), &names(), &Policy::default())
    }

    fn body(labels: &str, more: &str) -> String {
        format!(r#"{{"version":"4","alerts":[{{"status":"firing","labels":{{{labels}}},"annotations":{{}}{more}}}]}}"#)
    }

    fn reason(labels: &str, more: &str) -> &'static str {
        match parse_text(&body(labels, more)).unwrap().remove(0) {
            Delivered::Ignored(ignored) => ignored.reason,
            Delivered::Alert(_) => "none",
            Delivered::Drill { .. } => "drill",
        }
    }

    const GOOD: &str = r#""alertname":"A","prompt":"p","version":"v2","severity":"critical""#;

    #[test]
    fn real_payloads_are_read() {
        let body = include_str!("../../tests/fixtures/payloads/group_mixed.json");
        let mut names = names();
        names.version = "prompt_version".to_owned();
        let alerts = parse(body.as_bytes(), &names, &Policy::default()).unwrap();
        let statuses: Vec<_> = alerts
            .iter()
            .map(|a| match a {
                Delivered::Alert(a) => (a.status, a.version.as_str(), a.trigger.severity),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            statuses,
            [
                (AlertStatus::Resolved, "v2.0.0", Severity::Critical),
                (AlertStatus::Firing, "v2.1.0", Severity::Critical)
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_place() {
        let deep = format!(r#"{{"alerts":[],"x":{}{}}}"#, "[".repeat(2_000), "]".repeat(2_000));
        let labels = r#"{"alerts":[{"status":"firing","labels":{"prompt":5}}]}"#;
        for (body, place) in [
            ("", "body: EOF"),
            ("not json", "body: expected ident at line 1 column 2"),
            (r#"{"alerts":[{"status":"firing""#, "alerts[0]"),
            (r#"{"alerts":{}}"#, "alerts: invalid type: map"),
            ("{}", "missing field `alerts`"),
            (labels, "alerts[0].labels.prompt: invalid type: integer `5`, expected a string"),
            (r#"{"alerts":[{"status":"on","labels":{}}]}"#, "alerts[0].status: unknown variant `on`"),
            (&deep, "nested deeper than 64 levels at byte"),
            (&"[".repeat(2_000), "nested deeper than 64 levels at byte 64"),
        ] {
            let error = parse_text(body).unwrap_err().to_string();
            assert!(error.contains(place), "{body:.60}: {error}");
        }
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        let text = "[{".repeat(100) + r#"\""#;
        assert_eq!(reason(GOOD, &format!(r#","silenceURL":"{text}""#)), "none");
    }

    #[test]
    fn names_outside_the_alphabet_are_ignored_and_stay_out_of_keys() {
        let long = "x".repeat(20_000);
        for bad in ["a{b}", "a\\r\\n", "a b", "a\\u0000", "🙂", "", &long] {
            assert_eq!(reason(&format!(r#""prompt":"{bad}","version":"v1""#), ""), "invalid_name", "{bad:.20}");
            assert_eq!(reason(&format!(r#""prompt":"p","version":"{bad}""#), ""), "invalid_name", "{bad:.20}");
        }
        assert_eq!(reason(r#""version":"v1""#, ""), "invalid_name");
        assert_eq!(reason(r#""prompt":"p""#, ""), "invalid_name");
    }

    #[test]
    fn our_own_alerts_come_before_every_other_reason() {
        assert_eq!(reason(r#""alertname":"PromptRollbackDown","prompt":"{""#, ""), "own_alert");
    }

    #[test]
    fn what_names_a_drill_is_never_a_real_alert() {
        let named = |name: &str, version: &str, id: &str| {
            format!(r#""alertname":"{name}","prompt":"p","version":"{version}","prompt_rollback_drill":"{id}" "#)
        };
        assert_eq!(reason(&named("PromptRollbackDrill", "v2", "x"), ""), "drill");
        assert_eq!(reason(&named("PromptErrorRate", "v2", "x"), ""), "unknown_drill");
        assert_eq!(reason(&named("PromptRollbackDrill", "{", "x"), ""), "unknown_drill");
        assert_eq!(reason(&named("PromptRollbackDrill", "v2", ""), ""), "own_alert");
        assert_eq!(reason(&named("PromptErrorRate", "v2", ""), ""), "none", "an empty label is none");
        let resolved = body(&named("PromptRollbackDrill", "v2", "x"), "").replace("firing", "resolved");
        let Delivered::Ignored(ignored) = parse_text(&resolved).unwrap().remove(0) else { panic!("{resolved}") };
        assert_eq!(ignored.reason, "drill_over");
    }

    #[test]
    fn alerts_without_a_measurement_are_not_acted_upon() {
        let nodata = GOOD.replace("\"A\"", "\"DatasourceNoData\"");
        assert_eq!(reason(&nodata, ""), "not_measured");
        assert_eq!(reason(&GOOD.replace("\"A\"", "\"DatasourceError\""), ""), "not_measured");
        assert_eq!(reason(GOOD, r#","values":null"#), "not_measured");
        assert_eq!(reason(GOOD, r#","values":{"A":0.3}"#), "none");
        assert_eq!(reason(GOOD, ""), "none");
    }

    #[test]
    fn a_missing_fingerprint_is_derived_from_the_labels() {
        let fingerprint = |labels: &str| match parse_text(&body(labels, "")).unwrap().remove(0) {
            Delivered::Alert(alert) | Delivered::Drill { alert, .. } => alert.fingerprint,
            Delivered::Ignored(ignored) => ignored.fingerprint,
        };
        assert_eq!(fingerprint(GOOD), fingerprint(GOOD));
        assert_ne!(fingerprint(GOOD), fingerprint(&GOOD.replace("v2", "v3")));
    }
}
