//! Random route trees: our routing agrees with `amtool config routes test`.

use std::process::Command;

use prompt_rollback::alertmanager::config::AlertmanagerFile;
use prompt_rollback::alertmanager::matchers::{LabelSet, Matcher};
use prompt_rollback_testkit::Dir;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// Label sets for each tree: each costs a run of amtool.
const ALERTS: usize = 4;

const NAMES: &[&str] = &["severity", "prompt", "version", "team"];
const VALUES: &[&str] = &[
    "",
    "critical",
    "Critical",
    "high",
    "v2.0",
    "team/a b",
    "ü",
    "x\"y",
    "a,b",
    "back\\slash",
    "two\nlines",
    "{a}",
    "١",
];
const EXPRESSIONS: &[&str] = &[
    "critical|high",
    "c",
    "critical",
    ".*",
    ".+",
    "",
    "c.*l",
    "(?i:CRITICAL)",
    "(?i)ü|critical",
    "[a-z]+",
    "\\d+",
    "v\\d\\.\\d",
    "^critical$",
    "critical|",
    "[^c]*",
    "[^\\w]+",
    "\\w+",
    "\\W",
    "\\S+",
    "\\bback\\b.*",
    "\\p{L}+",
    "[[:alpha:]]+",
    "x\"y",
    "a,b",
    "team/a b",
    "a{1,2},b",
    "{a}",
    "[[a{}]+",
    "[a&&b,]+",
    "[a-c,-]+",
    "two.lines",
    "(?s)two.lines",
    "back\\\\slash",
    "\\Qv2.0\\E",
    "high)|(v2.0",
    "\\x{fc}",
    ".",
];

/// A text of one matcher, in one of the spellings that Alertmanager has.
fn matcher(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let equal = (select(&["=", "!="][..]), select(VALUES));
    let regex = (select(&["=~", "!~"][..]), select(EXPRESSIONS));
    let spelling = (select(&["", " "][..]), any::<bool>());
    (select(names), prop_oneof![equal, regex], spelling).prop_map(|(name, (operator, value), (gap, bare))| {
        let plain =
            |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/|".contains(c));
        let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let quoted_name = if plain(name) { name.to_string() } else { format!("\"{name}\"") };
        // amtool of 0.25 reads it in the older syntax, in which a value may stand without quotes
        let value = if bare && plain(value) { value.to_owned() } else { format!("\"{escaped}\"") };
        format!("{quoted_name}{gap}{operator}{gap}{value}")
    })
}

/// A route as Alertmanager's file has it; JSON is YAML.
fn route(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let matchers =
        prop::collection::vec(prop::collection::vec(matcher(names), 1..3).prop_map(|all| all.join(",")), 0..3);
    let old = prop::option::weighted(0.3, (select(NAMES), select(VALUES)));
    let old_regex = prop::option::weighted(0.3, (select(NAMES), select(EXPRESSIONS)));
    let own = (matchers, old, old_regex, prop::option::of(0..6_u8), any::<bool>());
    let leaf = own.prop_map(|(matchers, old, old_regex, receiver, continues)| {
        let mut route = json!({ "matchers": matchers, "continue": continues });
        if let Some((name, value)) = old {
            route["match"] = json!({ name: value });
        }
        if let Some((name, value)) = old_regex {
            route["match_re"] = json!({ name: value });
        }
        if let Some(receiver) = receiver {
            route["receiver"] = format!("r{receiver}").into();
        }
        route
    });
    leaf.prop_recursive(3, 16, 4, |inner| {
        (inner.clone(), prop::collection::vec(inner, 0..4)).prop_map(|(mut route, routes)| {
            route["routes"] = routes.into();
            route
        })
    })
}

fn amtool(arguments: &[String]) -> (bool, String) {
    let output = Command::new("amtool").args(arguments).output().expect("amtool");
    let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    (output.status.success(), text.trim().to_owned())
}

/// Whether amtool knows label names of any characters.
fn knows_any_name() -> bool {
    let (_, version) = amtool(&["--version".to_owned()]);
    let version = version.split("version ").nth(1).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(0), Some(27))
}

#[test]
fn routes_agree_with_amtool_on_random_trees() {
    const MORE_NAMES: &[&str] = &["severity", "prompt", "version", "team", "ü", "a b", "a.b"];
    let names = if knows_any_name() { MORE_NAMES } else { NAMES };
    let dir = Dir::new("amtool").expect("a folder");
    let alert = prop::collection::btree_map(select(names), select(VALUES), 0..5);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40);
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() });
    let given = (prop::collection::vec(route(names), 1..5), prop::collection::vec(alert, ALERTS));
    let valid = std::cell::Cell::new(0);
    let result = runner.run(&given, |(routes, alerts)| {
        let receivers: Vec<Value> = (0..6).map(|number| json!({ "name": format!("r{number}") })).collect();
        let config = json!({ "route": { "receiver": "r0", "routes": routes }, "receivers": receivers });
        let text = format!("{config:#}");
        let file = dir.write("alertmanager.yml", &text).expect("written");
        let parsed = AlertmanagerFile::parse(&text);
        for alert in alerts {
            let mut arguments = vec!["config".to_owned(), "routes".to_owned(), "test".to_owned()];
            arguments.push(format!("--config.file={}", file.display()));
            let labels: LabelSet =
                alert.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            arguments.extend(labels.iter().map(|(name, value)| {
                // as a matcher, which is how amtool reads a label
                let shown = Matcher::equal(name, value).to_string();
                if NAMES.contains(&name.as_str()) {
                    shown
                } else {
                    shown.replacen(name.as_str(), &format!("{name:?}"), 1)
                }
            }));
            let (known, theirs) = amtool(&arguments);
            match &parsed {
                Ok(file) => {
                    valid.set(valid.get() + 1);
                    let ours: Vec<&str> = file.routes(&labels).iter().map(|route| route.receiver.as_str()).collect();
                    prop_assert_eq!((known, theirs), (true, ours.join(",")), "{:?} in\n{}", labels, text);
                }
                Err(error) => prop_assert!(!known, "amtool reads it, and finds {theirs}; {error}:\n{text}"),
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(valid.get() > cases, "only {} alerts were routed", valid.get());
}
