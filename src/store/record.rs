//! Stored records: the JSON of a prompt's state and of an incident.
//!
//! Additions only: a field keeps its name and meaning. A new required field, a new word in an enumeration or a changed
//! meaning raises [`SCHEMA`], and older receivers leave such records alone. Fields that this release does not know
//! survive a rewrite.
//!
//! An open incident is stored once, in its prompt's state, and its own key names that prompt. After it is closed, its
//! own key holds the record.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::decision::{Incident, PromptName};

pub use unknown::Unknown;

mod unknown;

/// The record schema that this receiver writes. It reads this one and older ones.
pub const SCHEMA: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("damaged record: {0}")]
    Damaged(String),
    #[error("schema {0}")]
    Newer(u32),
}

/// The schema of a key that names the prompt of an incident: receivers that do not know it leave the incident alone.
const ELSEWHERE: u32 = 2;

/// The schema of an incident is in its record; that of other records is stored beside them.
#[derive(Deserialize)]
struct SchemaField {
    schema: Option<u32>,
}

/// The value at the key of an open incident.
#[derive(Serialize, Deserialize)]
struct Elsewhere {
    schema: u32,
    kept_by: PromptName,
}

/// The content of an incident's own key.
#[derive(Debug)]
pub enum StoredIncident {
    /// The record: the incident is closed, or a receiver that also stores open ones here wrote it last.
    Here(Box<Incident>, Unknown),
    /// The incident is open, and stored in the state of this prompt.
    Elsewhere(PromptName),
}

pub fn read_stored(json: &str) -> Result<StoredIncident, Unreadable> {
    match serde_json::from_str(json).map_err(|error| damaged::<SchemaField>(json, &error))? {
        SchemaField { schema: Some(ELSEWHERE) } => {
            let record: Elsewhere = serde_json::from_str(json).map_err(|_| Unreadable::Newer(ELSEWHERE))?;
            Ok(StoredIncident::Elsewhere(record.kept_by))
        }
        SchemaField { schema: Some(newer) } if newer > SCHEMA => Err(Unreadable::Newer(newer)),
        SchemaField { .. } => read(json).map(|(incident, unknown)| StoredIncident::Here(Box::new(incident), unknown)),
    }
}

pub fn read_incident(json: &str) -> Result<(Incident, Unknown), Unreadable> {
    match read_stored(json)? {
        StoredIncident::Here(incident, unknown) => Ok((*incident, unknown)),
        StoredIncident::Elsewhere(_) => Err(Unreadable::Newer(ELSEWHERE)),
    }
}

/// The value for the key of an open incident of this prompt.
pub fn write_elsewhere(prompt: &PromptName) -> String {
    write(&Elsewhere { schema: ELSEWHERE, kept_by: prompt.clone() }, &Unknown::default())
}

pub fn write_incident(incident: &Incident, unknown: &Unknown) -> String {
    let mut text = write(incident, unknown);
    text.insert_str(1, &format!("\"schema\":{SCHEMA},"));
    text
}

/// Reads the record of a prompt, an outage or a member. For an incident see [`read_incident`].
pub fn read<T: DeserializeOwned>(json: &str) -> Result<(T, Unknown), Unreadable> {
    // serde accepts a list as an object, and `[]` as an empty record
    if !json.trim_start().starts_with('{') {
        return Err(Unreadable::Damaged("expected an object".to_owned()));
    }
    let mut ignored = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = serde_ignored::deserialize(&mut deserializer, |path| ignored.push(unknown::steps(&path)))
        .and_then(|record| deserializer.end().map(|()| record));
    let record = read.map_err(|error| damaged::<T>(json, &error))?;
    ignored.retain(|steps| !unknown::is_schema(steps));
    // only records with unknown fields pay for keeping them
    let unknown = match ignored.as_slice() {
        [] => Unknown::default(),
        steps => Unknown::new(&serde_json::from_str(json).map_err(|error| damaged::<T>(json, &error))?, steps),
    };
    Ok((record, unknown))
}

/// Names the field that `error` is about.
fn damaged<T: DeserializeOwned>(json: &str, error: &serde_json::Error) -> Unreadable {
    let again: Result<T, _> = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json));
    let field = again.err().map(|error| error.path().to_string()).filter(|path| path != ".");
    Unreadable::Damaged(field.map(|field| format!("{field}: ")).unwrap_or_default() + &error.to_string())
}

#[allow(clippy::expect_used, reason = "our records hold strings, numbers and lists: these always serialize")]
pub fn write<T: Serialize>(record: &T, unknown: &Unknown) -> String {
    if !unknown.is_nothing() {
        let mut json = serde_json::to_value(record).expect("a record serializes");
        if unknown.put_into(&mut json) {
            return json.to_string();
        }
    }
    // enough for most records, which would otherwise be copied with each doubling
    let mut text = Vec::with_capacity(4 << 10);
    serde_json::to_writer(&mut text, record).expect("a record serializes");
    String::from_utf8(text).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::decision::phase::{Objection, ObjectionKind, Pending};
    use crate::decision::soak::{Earned, Soak};
    use crate::decision::switch::SwitchMode;
    use crate::decision::{Mark, Operator, PhaseKind, PromptState, Recheck, Timestamp, VersionName};

    fn read_state(json: &str) -> Result<(PromptState, Unknown), Unreadable> {
        read(json)
    }

    const STATE: &str = r#"{"serving":{"version":"v2","since":5,"by":"external"},"versions":[{"version":"v2","known_since":5,"first_active":5,"soak_from":5}],"incidents":[{"id":"01","prompt":"p","version":"v2","phase":"verifying","opened_at":1,"updated_at":2,"severity":"critical","action":"rollback","decider":"on-call","time_limit":120000,"deadline":2,"alerts":[{"fingerprint":"f","alertname":"A","severity":"critical","action":"rollback","decider":"system","time_limit":120000,"firing":true,"first_seen":1,"last_seen":1}],"notes":[{"seq":0,"at":1,"kind":"opened","text":"A"}]}]}"#;

    #[test]
    fn a_record_survives_reading_and_writing_to_the_byte() {
        let (state, unknown) = read_state(STATE).unwrap();
        assert_eq!(unknown, Unknown::default());
        assert_eq!(write(&state, &unknown), STATE);
    }

    #[test]
    fn what_older_receivers_wrote_of_soaks_and_trust_is_read() {
        let old = r#"{"versions":[
            {"version":"v1","known_since":5,"soak_from":7},
            {"version":"v2","known_since":5,"known_good":{"at":6}},
            {"version":"v3","known_since":5,"known_good":{"at":6,"marked":true}},
            {"version":"v4","known_since":5,"soak_watch":{"seen":8,"next":9}},
            {"version":"v5","known_since":5,"known_good":{"at":9},"fled":{"at":8,"incident":"01"}}]}"#;
        let (state, _) = read_state(old).unwrap();
        let [soaks, by_time, marked, ended, trusted] = state.versions.as_slice() else { panic!("five versions") };
        assert_eq!(soaks.soak, Some(Soak { from: Timestamp(7), watch: None }));
        assert_eq!(by_time.known_good.map(|good| good.by), Some(Earned::Time));
        assert_eq!(marked.known_good.map(|good| good.by), Some(Earned::Mark));
        assert_eq!(ended.soak, None, "an older receiver ended it");
        assert_eq!(trusted.fled, None, "an older receiver trusted it since");
    }

    #[test]
    fn how_a_version_came_to_be_trusted_or_not_survives() {
        let now = r#"{"versions":[{"version":"v1","known_since":5,"soak_from":5,"soak_watch":{"seen":6,"next":7,"last":"3 of 20"}},{"version":"v2","known_since":5,"known_good":{"at":6,"evidence":true}},{"version":"v3","known_since":5,"fled":{"at":6,"incident":"01"}}]}"#;
        let (state, unknown) = read_state(now).unwrap();
        assert_eq!(unknown, Unknown::default());
        assert_eq!(write(&state, &unknown), now);
    }

    #[test]
    fn a_key_without_a_version_and_alerts_that_ended_are_kept() {
        let later = r#""lapsed":{"since":7,"holds":"{oops}","versions":["v2"]},"ended":[{"version":"v2","fingerprint":"f","starts_at":1,"ends_at":2,"at":3}]"#;
        let text = STATE.replacen(r#""serving":{"version":"v2","since":5,"by":"external"},"#, "", 1);
        let text = format!("{},{later}}}", &text[..text.len() - 1]);
        let (state, unknown) = read_state(&text).unwrap();
        assert_eq!(write(&state, &unknown), text);
        let lapsed = state.lapsed.unwrap();
        assert_eq!((lapsed.since, lapsed.holds.as_deref(), lapsed.versions.len()), (Timestamp(7), Some("{oops}"), 1));
        assert_eq!(state.ended[0].ends_at, Some(Timestamp(2)));
        // a record of the previous release
        let (state, _) = read_state(STATE).unwrap();
        assert_eq!((state.lapsed, state.ended), (None, vec![]));
    }

    #[test]
    fn the_trace_of_a_request_is_kept_and_an_older_record_has_none() {
        let (before, _) = read_state(STATE).unwrap();
        assert_eq!(before.incidents[0].trace, None);
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for state in ["", r#","state":"vendor=abc""#] {
            let trace = format!(r#""kind":"opened","text":"A"}}],"trace":{{"parent":"{parent}"{state},"at":7}}"#);
            let traced = STATE.replace(r#""kind":"opened","text":"A"}]"#, &trace);
            let (state, unknown) = read_state(&traced).unwrap();
            assert_eq!(
                state.incidents[0].trace.as_ref().map(|trace| (&*trace.parent, trace.at)),
                Some((parent, Timestamp(7)))
            );
            assert_eq!(write(&state, &unknown), traced);
        }
    }

    #[test]
    fn a_mark_is_kept_and_a_record_from_before_marks_has_none() {
        let (before, _) = read_state(STATE).unwrap();
        assert!(before.versions[0].mark.is_none() && before.incidents[0].never.is_empty());
        let mark = r#""mark":{"kind":"bad","at":7,"operator":"dana","reason":"leaks a name"},"#;
        let never = r#""never":[{"version":"v1","operator":"dana","reason":"leaks a name"}],"#;
        let marked = STATE
            .replace(r#""soak_from":5"#, &format!(r#""soak_from":5,{}"#, mark.trim_end_matches(',')))
            .replace(r#""phase":"verifying","#, &format!(r#"{never}"phase":"verifying","#));
        let (state, unknown) = read_state(&marked).unwrap();
        assert_eq!(
            state.versions[0].marked_bad().map(Mark::to_string).unwrap(),
            "marked as bad by dana (leaks a name)"
        );
        assert_eq!(state.incidents[0].never[0].reason, "leaks a name");
        assert_eq!(write(&state, &unknown), marked);
        assert!(read_state(&marked.replace(r#""kind":"bad""#, r#""kind":"ugly""#)).is_err());
    }

    #[test]
    fn fields_of_a_later_receiver_survive_a_rewrite_at_every_level() {
        let later = STATE
            .replacen('{', r#"{"colour":"blue","#, 1)
            .replace(r#""fingerprint":"f","#, r#""fingerprint":"f","model":{"name":"m"},"#);
        let (mut state, unknown) = read_state(&later).unwrap();
        state.incidents[0].notes.clear();
        state.incidents[0].alerts[0].summary = "new".to_owned();
        state.serving = None;
        let written: Value = serde_json::from_str(&write(&state, &unknown)).unwrap();
        assert_eq!(written["colour"], "blue");
        assert_eq!(written["incidents"][0]["alerts"][0]["model"]["name"], "m");
        assert_eq!(written["incidents"][0]["alerts"][0]["summary"], "new");
        assert!(written.get("serving").is_none(), "a field emptied on purpose does not come back");
        assert!(written["incidents"][0].get("notes").is_none());
    }

    #[test]
    fn a_field_that_is_known_elsewhere_survives_where_it_is_not() {
        let later = STATE
            .replacen('{', r#"{"fault":"disk","paused":{"by":"mia"},"#, 1)
            .replace(r#""fingerprint":"f","#, r#""fingerprint":"f","healthy":7,"#);
        let (state, unknown) = read_state(&later).unwrap();
        let written: Value = serde_json::from_str(&write(&state, &unknown)).unwrap();
        assert_eq!(written, serde_json::from_str::<Value>(&later).unwrap());
    }

    #[test]
    fn unknown_fields_stay_with_their_item_among_equal_fingerprints() {
        let strays = r#"{"strays":[
            {"version":"v1","fingerprint":"f","alertname":"A","severity":"high","last_seen":1,"colour":"blue"},
            {"version":"v2","fingerprint":"f","alertname":"A","severity":"high","last_seen":1,"shape":"round"},
            {"version":"v2","fingerprint":"f","alertname":"B","severity":"high","last_seen":1,"size":5}]}"#;
        let (mut state, unknown) = read_state(strays).unwrap();
        let mut expected: Value = serde_json::from_str(strays).unwrap();
        let written = |state: &PromptState| {
            let mut written: Value = serde_json::from_str(&write(state, &unknown)).unwrap();
            for stray in written["strays"].as_array_mut().unwrap() {
                stray.as_object_mut().unwrap().remove("alert"); // the previous release did not write it
            }
            written
        };
        assert_eq!(written(&state), expected);
        // a value that identifies items, but is not understood here, identifies nothing
        let named = r#"{"versions":[{"version":"v1","known_since":1,"id":"01","fingerprint":"f","seq":1}]}"#;
        let (versions, kept) = read_state(named).unwrap();
        let named_again: Value = serde_json::from_str(&write(&versions, &kept)).unwrap();
        assert_eq!(named_again, serde_json::from_str::<Value>(named).unwrap());
        state.inactive_alerts.remove(0);
        expected["strays"].as_array_mut().unwrap().remove(0);
        assert_eq!(written(&state), expected);
    }

    /// Records as the previous release wrote them, when an incident's phase was only a name.
    #[test]
    fn a_phase_of_the_version_before_is_read_with_what_stands_beside_it() {
        let pending = r#""pending":{"by":"approved","from":"v2","to":"v1","operator":"maya","reason":"A","at":7}"#;
        let gradual = r#""gradual":{"leaving":"v2","arriving":"v1","plan":{"stages":[25,100],"holds":[600000]},"since":7,"operator":"maya","reason":"A","tie_to_arriving":true}"#;
        let read = |phase: &str, beside: &str| {
            let record = STATE.replace("verifying", phase).replace(r#""deadline":2"#, beside);
            read_state(&record).unwrap().0.incidents.remove(0)
        };
        let confirming = read("confirming", &format!(r#""deadline":9,{pending}"#));
        assert_eq!(confirming.pending().map(|pending| pending.operator.as_str()), Some("maya"));
        assert_eq!(confirming.deadline(), Some(Timestamp(9)));
        let rolling = read("rolling_back", gradual);
        assert_eq!(rolling.gradual().map(|split| (split.percent(), split.began)), Some((25, Timestamp(7))));
        let held = read("awaiting_decision", r#""hold":"maya","objection":{"baseline":true,"text":"it fails"}"#);
        assert_eq!(held.hold().map(Operator::as_str), Some("maya"));
        let text = "it fails".to_owned();
        assert_eq!(held.objection(), Some(&Objection { kind: ObjectionKind::TargetFails, to: None, text }));
        // a missing field makes it a question to people, which can be answered
        for phase in ["confirming", "rolling_back"] {
            let asked = read(phase, r#""deadline":9"#);
            assert_eq!((asked.phase.kind(), asked.deadline()), (PhaseKind::AwaitingDecision, Some(Timestamp(9))));
        }
        let superseded = read("superseded", r#""closed_at":9,"successor":"v3""#);
        assert!(matches!(superseded.phase, crate::decision::Phase::Superseded { by: Some(by) } if by.as_str() == "v3"));
        let escalated = STATE.replace("\"opened\"", "\"escalated\"");
        assert!(read_state(&escalated).unwrap().0.incidents[0].paged, "whoever was paged is told of the end");
    }

    #[test]
    fn what_belongs_to_a_phase_survives_reading_and_writing() {
        let (mut state, unknown) = read_state(STATE).unwrap();
        let (from, to) = (VersionName::parse("v2").unwrap(), VersionName::parse("v1").unwrap());
        let (operator, reason, by) = (Operator::recorded("maya"), "A".to_owned(), SwitchMode::Approved);
        let pending =
            Pending { by, from, to, operator, reason, gradual: None, skip_confirmation: false, at: Timestamp(7) };
        let question = crate::decision::Question {
            deadline: Some(Timestamp(9)),
            overdue: true,
            recheck: Some(Recheck { since: Timestamp(3), next: Timestamp(4) }),
            hold: Some(Operator::recorded("bo")),
            objection: Some(Objection {
                kind: ObjectionKind::Changed,
                to: VersionName::parse("v1").ok(),
                text: "why".to_owned(),
            }),
        };
        let incident = &mut state.incidents[0];
        incident.phase = crate::decision::Phase::AwaitingDecision(question);
        let asked = state.clone();
        state.incidents[0].confirm(pending, Timestamp(17));
        for state in [asked, state] {
            assert_eq!(read_state(&write(&state, &unknown)).unwrap().0, state);
        }
    }

    #[test]
    fn a_damaged_record_is_an_error_and_never_a_panic() {
        for end in 0..STATE.len() {
            assert!(read_state(&STATE[..end]).is_err());
        }
        for (from, to) in [("\"v2\"", "\"v{2\""), ("verifying", "flying"), (":5", ":\"5\""), ("[", "{")] {
            assert!(read_state(&STATE.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(read_state("{}").is_ok());
        assert!(read_state("[]").is_err());
        for (percent, damaged) in [(100, false), (101, true)] {
            let split =
                r#"{"leaving":"v1","arriving":"v2","plan":{"stages":[5,%]},"since":5,"operator":"mia","reason":""}"#;
            let state =
                format!(r#"{{"canary":{{"id":"01","split":{split},"started":5}}}}"#).replace('%', &percent.to_string());
            assert_eq!(read_state(&state).is_err(), damaged, "{state}");
        }
    }
}
