//! Records that Redis and other releases may hold.

use prompt_rollback::decision::outage::{Member, Outage};
use prompt_rollback::decision::{IncidentId, PromptState, Timestamp};
use prompt_rollback::postmortem::{IncidentMetric, chart};
use prompt_rollback::store::record::{self, Unknown, Unreadable};
use serde_json::Value;

use super::{POLICY, told};

/// JSON of a record: of a prompt, an incident, a coordinating incident, its member, or of samples.
pub fn record(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(state) = kept::<PromptState>(text, record::read, record::write) {
        told::state(&state);
    }
    if let Some(incident) = kept(text, record::read_incident, record::write_incident) {
        told::incident(&incident);
    }
    if let Some(outage) = kept::<Outage>(text, record::read, record::write) {
        told::outage(&outage, &[]);
    }
    if let Some(member) = kept::<Member>(text, record::read, record::write) {
        let outage = Outage::open(IncidentId("01J".to_owned()), &POLICY, Timestamp(0));
        told::outage(&outage, &[member]);
    }
    if let Ok(IncidentMetric::Samples(samples)) = serde_json::from_str::<IncidentMetric>(text) {
        let again = serde_json::to_string(&samples).expect("written");
        assert_eq!(
            serde_json::from_str::<IncidentMetric>(&again)
                .ok()
                .map(|read| serde_json::to_string(&read).expect("written")),
            Some(again)
        );
        let _ = chart::svg(&samples, Some(Timestamp(samples.switched_at)));
    }
}

/// Reads and writes it: the written record reads the same, and unknown fields are still there.
fn kept<T: PartialEq + std::fmt::Debug>(
    text: &str,
    read: fn(&str) -> Result<(T, Unknown), Unreadable>,
    write: fn(&T, &Unknown) -> String,
) -> Option<T> {
    let (record, unknown) = read(text).ok()?;
    let written = write(&record, &unknown);
    let (again, unknown) = read(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(again, record, "{written}");
    assert_eq!(write(&again, &unknown), written);
    let json = |text: &str| serde_json::from_str::<Value>(text).expect("a record is JSON");
    if let Some(lost) = lost(&json(text), &json(&written), "") {
        panic!("{lost} is lost in {written}");
    }
    Some(record)
}

/// Fields of a phase, which are dropped if the record names another phase.
const OF_A_PHASE: [&str; 9] =
    ["deadline", "pending", "before", "gradual", "hold", "objection", "recheck", "successor", "verification"];

/// The path of a value that is missing in `after`. Empty values may be missing.
fn lost(before: &Value, after: &Value, path: &str) -> Option<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(key, value)| {
            if path.is_empty() && key == "schema" {
                return None; // written anew
            }
            let path = format!("{path}.{key}");
            match after.get(key) {
                Some(after) => lost(value, after, &path),
                // the fields of a group are dropped together if none of them is known
                None => {
                    // an objection has one reason; no receiver writes both flags
                    let other_reason = key == "baseline" && after.contains_key("text_missing");
                    let goes = key == "shares" || other_reason || OF_A_PHASE.contains(&key.as_str());
                    (!is_empty(value) && !goes).then_some(path)
                }
            }
        }),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let mut pairs = before.iter().zip(after).enumerate();
            pairs.find_map(|(at, (before, after))| lost(before, after, &format!("{path}[{at}]")))
        }
        // fields as a list in their order: serde accepts that as an object
        (Value::Array(_), Value::Object(_)) => None,
        _ => (before != after && !becomes_a_question(before, after, path)).then(|| path.to_owned()),
    }
}

/// A phase without its fields becomes a question to people.
fn becomes_a_question(before: &Value, after: &Value, path: &str) -> bool {
    let lacks = before == "rolling_back" || before == "confirming";
    path.ends_with(".phase") && lacks && after == "awaiting_decision"
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}
