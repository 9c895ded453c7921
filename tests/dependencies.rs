//! What is built in: only crates of the registry, under the licences that `deny.toml` allows.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The licences of `deny.toml`.
fn allowed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("read deny.toml");
    let deny: toml::Table = text.parse().expect("parse deny.toml");
    let allow = deny["licenses"]["allow"].as_array().expect("a list of licences");
    allow.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// What is built on this platform. Other platforms' crates need not be on this machine.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", &platform()]);
    let output = command.current_dir(root()).output().expect("run cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

fn platform() -> String {
    let output = Command::new("rustc").arg("-vV").current_dir(root()).output().expect("run rustc");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

/// Whether an SPDX expression can be satisfied. `/` is an old way to write OR; AND binds more tightly; an exception only
/// permits more.
fn permits(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let permitted = any(&words, &mut at, allowed);
    assert_eq!(at, words.len(), "{expression:?} is no expression that this test reads");
    permitted
}

fn any(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut permitted = all(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        permitted |= all(words, at, allowed);
    }
    permitted
}

fn all(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut permitted = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        permitted &= one(words, at, allowed);
    }
    permitted
}

fn one(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let word = words.get(*at).copied().unwrap_or_default();
    *at += 1;
    if word == "(" {
        let permitted = any(words, at, allowed);
        assert_eq!(words.get(*at), Some(&")"), "a bracket is not closed: {words:?}");
        *at += 1;
        return permitted;
    }
    if words.get(*at) == Some(&"WITH") {
        *at += 2;
    }
    allowed.contains(word)
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT", "ISC"].map(str::to_owned).into();
    for (expression, permitted) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("GPL-3.0-only/MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("MIT AND (GPL-3.0-only OR ISC)", true),
        ("(MIT OR ISC) AND GPL-3.0-only", false),
        ("MIT OR ISC AND GPL-3.0-only", true),
        ("MIT WITH LLVM-exception", true),
    ] {
        assert_eq!(permits(expression, &allowed), permitted, "{expression}");
    }
}

#[test]
fn every_dependency_of_every_platform_comes_from_the_registry() {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).expect("read Cargo.lock");
    let lock: toml::Table = text.parse().expect("parse Cargo.lock");
    let packages = lock["package"].as_array().expect("a list of packages");
    // only our own have no source
    let elsewhere =
        packages.iter().filter_map(|package| Some((package["name"].as_str()?, package.get("source")?.as_str()?)));
    let elsewhere: Vec<_> = elsewhere.filter(|(_, source)| *source != REGISTRY).collect();
    assert!(packages.len() > 100, "{} packages: is this all?", packages.len());
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

/// `deny.toml` says why each of them is not to come back.
#[test]
fn what_was_got_rid_of_stays_away() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).expect(name).parse::<toml::Table>().expect(name);
    let (deny, lock) = (read("deny.toml"), read("Cargo.lock"));
    let banned = deny["bans"]["deny"].as_array().expect("a list of crates");
    let banned: BTreeSet<&str> = banned.iter().filter_map(|one| one["crate"].as_str()).collect();
    assert!(!banned.is_empty());
    let names = lock["package"].as_array().expect("packages").iter().filter_map(|package| package["name"].as_str());
    let found: Vec<&str> = names.filter(|name| banned.contains(name)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn every_dependency_of_this_platform_has_an_allowed_licence() {
    let allowed = allowed();
    let mut faults = Vec::new();
    let packages = packages();
    for package in &packages {
        let name = format!("{} {}", package["name"], package["version"]);
        if package["source"].is_null() {
            if !package["publish"].as_array().is_some_and(Vec::is_empty) {
                faults.push(format!("{name} is a path, and not one of our own that are not published"));
            }
            continue;
        }
        match package["license"].as_str() {
            Some(licence) if permits(licence, &allowed) => {}
            licence => faults.push(format!("{name} has the licence {licence:?}")),
        }
    }
    assert!(packages.len() > 100, "{} packages: is this all?", packages.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
