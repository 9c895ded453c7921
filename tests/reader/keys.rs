//! Names of other registries: the receiver and the readers of both languages call a prompt the same.

use std::io::Write;
use std::process::{Command, Stdio};

use prompt_rollback::decision::PromptName;
use prompt_rollback::reader::key_of;
use prompt_rollback_testkit::readers::{python, python_examples};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    names: Vec<Case>,
    too_long: Vec<String>,
    not_encoded: Vec<String>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    encoded: String,
}

#[test]
fn the_vectors_of_names_that_all_languages_share() {
    let vectors: Vectors = serde_json::from_str(include_str!("../fixtures/names.json")).expect("vectors");
    for Case { name, encoded } in &vectors.names {
        assert_eq!(key_of(name).as_ref(), Ok(encoded), "{name:?}");
        let prompt = PromptName::of(name).expect(name);
        assert_eq!((prompt.as_str(), &*prompt.name()), (encoded.as_str(), name.as_str()));
        assert_eq!(PromptName::parse(encoded), Ok(prompt), "{name:?}");
    }
    for name in &vectors.too_long {
        assert!(key_of(name).is_err_and(|error| error.to_string().contains("at most 128 bytes")), "{name:?}");
        assert!(PromptName::of(name).is_err_and(|error| error.to_string().contains("at most 128 bytes")), "{name:?}");
    }
    for text in &vectors.not_encoded {
        assert!(PromptName::parse(text).is_err(), "{text:?}");
    }
    assert!(vectors.names.len() > 30 && vectors.too_long.len() > 3 && vectors.not_encoded.len() > 10);
}

#[test]
fn random_names_are_called_the_same_by_the_receiver_and_by_both_readers() {
    let mut runner = TestRunner::default();
    let name = prop_oneof![any::<String>(), "[ -~]{1,60}", "[%{}. /~_a-c\\n\u{202e}ä🙂-]{1,30}"];
    let names: Vec<String> = (0..2_000).map(|_| name.new_tree(&mut runner).expect("a name").current()).collect();
    let program = "
import json, sys
from prompt_reader import key_of
def called(name):
    try:
        return key_of(name)
    except ValueError:
        return None
json.dump([called(name) for name in json.load(sys.stdin)], sys.stdout)
";
    let mut child = Command::new(python().expect("a python3"))
        .args(["-B", "-c", program])
        .env("PYTHONPATH", python_examples())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run python3");
    let sent = serde_json::to_vec(&names).expect("JSON");
    let mut stdin = child.stdin.take().expect("a pipe");
    // the program reads everything before it writes
    stdin.write_all(&sent).expect("sent");
    drop(stdin);
    let output = child.wait_with_output().expect("an end");
    let told: Vec<Option<String>> = serde_json::from_slice(&output.stdout).expect("a list");
    let mut encoded = 0;
    for (name, python) in names.iter().zip(told) {
        let receiver = PromptName::of(name).ok().map(|prompt| prompt.to_string());
        assert_eq!((key_of(name).ok(), &python), (receiver.clone(), &receiver), "{name:?}");
        encoded += usize::from(receiver.is_some_and(|receiver| receiver != *name));
    }
    assert!(encoded > 300, "only {encoded} names needed an encoded form");
}
