//! Records of prompts as the previous release wrote them: they are read and written as the same bytes.

use std::collections::BTreeSet;

use prompt_rollback::decision::outage::{Member, Outage};
use prompt_rollback::decision::{Incident, PromptState};
use prompt_rollback::store::record::{read, read_incident, write, write_incident};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// From histories that the properties of the core generated: each field, each word and each phase occurs in one of
/// them.
const STATES: &str = include_str!("written.jsonl");

const OUTAGE: &str = r#"{"id":"01M","decider":"on-call","opened_at":1,"updated_at":4,"closed_at":null,"hold":{"by":"maya","at":3},"order":{"what":"roll_back","by":"maya","at":4},"resumed":true,"ask":2,"notes":[{"seq":0,"at":1,"kind":"opened","text":"A"}]}"#;
const MEMBERS: [&str; 2] = [
    r#"{"incident":"01","prompt":"p","version":"v2","target":"v1","phase":"awaiting_decision","ask":1,"began":1,"joined":2,"before":false,"hold":true,"objection":"it fails","shares":{"model":"","provider":"acme","group":""},"asked":[4,1],"done":{"order":4,"failed":true,"text":"healthy"},"tried":5}"#,
    r#"{"incident":"01","prompt":"p","version":"v2","target":null,"phase":"recovered","ask":0,"began":1,"joined":2,"before":true,"hold":false,"objection":null,"shares":{"model":"","provider":"","group":""},"asked":null,"done":null,"tried":null}"#,
];

fn again<T: DeserializeOwned + Serialize>(json: &str) -> String {
    let (record, unknown) = read::<T>(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    write(&record, &unknown)
}

fn parsed(json: &str) -> Value {
    serde_json::from_str(json).expect("JSON")
}

#[test]
fn records_of_the_version_before_are_written_back_to_the_byte() {
    for state in STATES.lines() {
        assert_eq!(again::<PromptState>(state), state);
        let (record, _) = read::<PromptState>(state).expect("read above");
        for incident in &record.incidents {
            let written = write_incident(incident, &Default::default());
            let (read, unknown) = read_incident(&written).expect("just written");
            assert_eq!((&read, write_incident(&read, &unknown)), (incident, written));
        }
    }
    assert_eq!(again::<Outage>(OUTAGE), OUTAGE);
    for member in MEMBERS {
        assert_eq!(again::<Member>(member), member);
    }
}

/// Every object, with a field that a later receiver may add.
fn with_more(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(with_more);
            fields.insert("added_later".to_owned(), json!({ "x": [1] }));
        }
        Value::Array(items) => items.iter_mut().for_each(with_more),
        _ => {}
    }
}

#[test]
fn what_a_later_receiver_adds_anywhere_is_kept() {
    fn kept<T: DeserializeOwned + Serialize>(json: &str) {
        let mut later = parsed(json);
        with_more(&mut later);
        assert_eq!(parsed(&again::<T>(&later.to_string())), later);
    }
    STATES.lines().for_each(kept::<PromptState>);
    kept::<Outage>(OUTAGE);
    MEMBERS.into_iter().for_each(kept::<Member>);
}

/// The path of each value that is neither an object nor a list, without indexes of lists.
fn leaves(value: &Value, path: &str, all: &mut Vec<(String, String)>, pointer: &str) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(value, &format!("{path}.{name}"), all, &format!("{pointer}/{name}"));
            }
        }
        Value::Array(items) => {
            for (at, value) in items.iter().enumerate() {
                leaves(value, path, all, &format!("{pointer}/{at}"));
            }
        }
        _ => all.push((path.to_owned(), pointer.to_owned())),
    }
}

#[test]
fn a_value_of_the_wrong_type_is_an_error_that_names_its_field() {
    fn named<T: DeserializeOwned + std::fmt::Debug>(json: &str, tried: &mut BTreeSet<String>) {
        let mut all = Vec::new();
        leaves(&parsed(json), "", &mut all, "");
        for (path, pointer) in all {
            if !tried.insert(path.clone()) {
                continue;
            }
            let mut broken = parsed(json);
            *broken.pointer_mut(&pointer).expect("a value") = json!({ "of": "another type" });
            let error = read::<T>(&broken.to_string()).expect_err(&path).to_string();
            let field = path.rsplit('.').next().expect("a name");
            let named = error.split(": ").nth(1).expect("a path");
            assert!(named.split(['.', '[']).any(|part| part == field), "{path}: {error}");
        }
    }
    let mut tried = BTreeSet::new();
    STATES.lines().for_each(|state| named::<PromptState>(state, &mut tried));
    assert!(tried.len() > 150, "{}", tried.len());
    named::<Outage>(OUTAGE, &mut BTreeSet::new());
    MEMBERS.into_iter().for_each(|member| named::<Member>(member, &mut BTreeSet::new()));
}

#[test]
fn a_record_without_a_required_field_is_an_error_that_names_it() {
    fn needs<T: DeserializeOwned + std::fmt::Debug>(json: &str, fields: &[&str]) {
        for field in fields {
            let mut without = parsed(json);
            let (place, name) = field.rsplit_once('/').expect("a pointer");
            without.pointer_mut(place).and_then(Value::as_object_mut).expect("an object").remove(name).expect(field);
            let error = read::<T>(&without.to_string()).expect_err(field).to_string();
            assert!(error.contains(&format!("missing field `{name}`")), "{error}");
        }
    }
    let state = STATES.lines().last().expect("a state");
    needs::<PromptState>(
        state,
        &["/serving/by", "/incidents/0/phase", "/incidents/0/time_limit", "/incidents/0/flip/to"],
    );
    needs::<Outage>(OUTAGE, &["/closed_at", "/hold", "/order", "/resumed", "/ask"]);
    needs::<Member>(MEMBERS[0], &["/target", "/asked", "/done", "/tried", "/shares/group", "/phase"]);
}

#[test]
fn an_incident_of_a_later_schema_is_left_alone() {
    let (state, _) = read::<PromptState>(STATES.lines().last().expect("a state")).expect("a state");
    let incident: &Incident = &state.incidents[0];
    let written = write_incident(incident, &Default::default());
    let later = written.replacen("\"schema\":1", "\"schema\":3", 1);
    assert_eq!(read_incident(&later).expect_err("a later schema").to_string(), "schema 3");
}
