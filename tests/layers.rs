//! Rules that Cargo cannot enforce: modules of a crate import only modules below them. And rules about what Cargo does
//! know: the dependencies of the reader and the core.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// From top to bottom. A module may import only modules of lower rows.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["app"],
    &["notify"],
    &["http", "reconciler"],
    &["service"],
    &["engine"],
    &["live", "metrics"],
    &["store"],
    &[
        "alertmanager::client",
        "notify::webhook::client",
        "notify::webhook::signature",
        "prometheus",
        "slack::client",
        "slack::socket",
    ],
    &["http_client"],
    &["alertmanager", "page", "slack"],
    &["postmortem", "report"],
    &["deployed", "figures", "rules", "wording"],
    &["config"],
    &["api", "events"],
    &["elsewhere", "re2", "tls", "trace", "visible", "yaml"],
    &["decision"],
];
/// Clients of other services, and the modules that may use them: a request uses Redis only.
const CLIENTS: &[&str] =
    &["alertmanager::client", "http_client", "notify::webhook::client", "prometheus", "slack::client", "slack::socket"];
const USERS_OF_CLIENTS: &[&str] = &["app", "cli", "notify", "reconciler"];
/// Crates that only a few modules may use.
const CRATES: &[(&str, &[&str])] = &[("redis", &["config", "store"]), ("prometheus_client", &["metrics"])];
/// Parts of std that would give the core a clock or I/O.
const IMPURE: &[&str] = &["env", "fs", "io", "net", "process", "thread", "time::Instant", "time::SystemTime"];

/// Row and name of the longest entry of `LAYERS` that is or contains `path`.
fn layer(path: &str) -> Option<(usize, &'static str)> {
    let entries = LAYERS.iter().enumerate().flat_map(|(row, names)| names.iter().map(move |name| (row, *name)));
    let lies_in = |name: &str| path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    entries.filter(|(_, name)| lies_in(name)).max_by_key(|(_, name)| name.len())
}

/// All paths below `root`: for `root::a::{b, c}` both `a::b` and `a::c`.
fn paths(text: &str, root: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{root}::")) {
        let rest = &code[at + root.len() + 2..];
        let (path, rest) = rest.split_at(rest.find(|c| !is_name(c) && c != ':').unwrap_or(rest.len()));
        if code[..at].ends_with(|c| is_name(c) || c == ':') {
            continue; // the end of another name
        }
        match rest.strip_prefix('{').and_then(|group| group.split_once('}')) {
            Some((group, _)) => found.extend(group.split(',').map(|name| format!("{path}{}", name.trim()))),
            None => drop(found.insert(path.to_owned())),
        }
    }
    found
}

/// The violations in a module's imports, one line each.
fn faults_of(module: &str, text: &str) -> Vec<String> {
    let Some((row, own)) = layer(module) else { return vec![format!("{module} is in no row of tests/layers.rs")] };
    let mut faults = Vec::new();
    for path in paths(text, "crate") {
        match layer(&path) {
            None => faults.push(format!("{module}: crate::{path} is in no row of tests/layers.rs")),
            Some((_, to)) if to == own => {}
            Some((below, to)) if below <= row => faults.push(format!("{module} is not above {to}")),
            Some((_, to)) if CLIENTS.contains(&to) && ![CLIENTS, USERS_OF_CLIENTS].concat().contains(&own) => {
                faults.push(format!("{module} may not use {to}"));
            }
            Some(_) => {}
        }
    }
    let barred = |(name, users): &&(&str, &[&str])| !users.contains(&own) && !paths(text, name).is_empty();
    faults.extend(CRATES.iter().filter(barred).map(|(name, _)| format!("{module} may not use the crate {name}")));
    faults
}

/// Module and text of each source file of a package, without its root and its tests.
fn sources(package: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(package).join("src");
    let (mut folders, mut files) = (vec![root.clone()], BTreeMap::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let module: PathBuf = path.strip_prefix(&root).expect("below the root").with_extension("");
            let module = module.iter().map(|part| part.to_str().expect("UTF-8")).collect::<Vec<_>>().join("::");
            let module = module.trim_end_matches("::mod").to_owned();
            if module.ends_with("tests") || ["lib", "main"].contains(&module.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                files.insert(module, fs::read_to_string(path).expect("a source file"));
            }
        }
    }
    assert!(files.len() > 10, "found only {:?}", files.keys());
    files
}

#[test]
fn imports_only_go_down() {
    let faults: Vec<_> = sources(".").iter().flat_map(|(module, text)| faults_of(module, text)).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    for (module, text, expected) in [
        ("engine", "use crate::http::Context;", "engine is not above http"),
        ("store::link", "fn f() { crate::app::serve(); }", "store::link is not above app"),
        ("slack::render", "use crate::slack::{blocks, client};", "slack::render is not above slack::client"),
        ("reconciler::act", "use crate::http;", "reconciler::act is not above http"),
        ("http::api", "use crate::{engine, prometheus::Prometheus};", "http::api may not use prometheus"),
        ("http::api", "fn f() { redis::cmd(\"GET\"); }", "http::api may not use the crate redis"),
        ("engine", "use crate::nowhere::Thing;", "engine: crate::nowhere::Thing is in no row of tests/layers.rs"),
        ("nowhere", "", "nowhere is in no row of tests/layers.rs"),
        ("engine", "use crate::store::{Store, keys}; // crate::http\nuse other_crate::http;", ""),
        ("reconciler::act", "use crate::alertmanager::client::Client;", ""),
    ] {
        assert_eq!(faults_of(module, text).join("; "), expected, "{module}: {text}");
    }
}

#[test]
fn the_core_has_no_clock_and_no_way_out() {
    for (module, text) in sources("crates/decision") {
        let impure: Vec<_> =
            paths(&text, "std").into_iter().filter(|path| IMPURE.iter().any(|one| path.starts_with(one))).collect();
        assert!(impure.is_empty() && !text.contains("async "), "{module}: {impure:?}");
    }
}

/// The file of the core that `path` leads to, written in a file of `folder`.
fn leads_to<'f>(files: &'f BTreeMap<String, String>, folder: &str, path: &str) -> Option<&'f str> {
    let full = format!("{folder}::{path}");
    let mut rest = full.trim_start_matches("::");
    while !rest.is_empty() && !files.contains_key(rest) {
        rest = rest.rsplit_once("::").map_or("", |(shorter, _)| shorter);
    }
    files.get_key_value(rest).map(|(module, _)| module.as_str())
}

#[test]
fn the_files_of_the_core_import_each_other_in_no_circle() {
    let files = sources("crates/decision");
    // the records of a type are a part of its file
    let whole = |module: &str| match module.split_once("::") {
        Some((folder, _)) if folder != "decide" => folder.to_owned(),
        _ => module.to_owned(),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/decision/src/lib.rs");
    let root = fs::read_to_string(root).expect("the root of the core");
    let mut at_root = BTreeMap::new();
    for offered in root.split("pub use ").skip(1) {
        let path = offered.split(';').next().and_then(|path| path.split_once("::"));
        let Some((module, names)) = path else { continue };
        let names = names.split(['{', '}', ',']).map(str::trim).filter(|name| !name.is_empty());
        at_root.extend(names.map(|name| (name, module)));
    }
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in &files {
        assert!(!text.contains("super::super::"), "{module}: write crate:: instead");
        let module = module.as_str();
        let folder = module.rsplit_once("::").map_or("", |(folder, _)| folder);
        let leads_to = |folder: &str, path: &String| {
            let path = at_root.get(path.as_str()).filter(|_| folder.is_empty()).copied().unwrap_or(path.as_str());
            leads_to(&files, folder, path)
        };
        let (near, far) = (paths(text, "super"), paths(text, "crate"));
        let near = near.iter().filter_map(|path| leads_to(folder, path));
        let others = near.chain(far.iter().filter_map(|path| leads_to("", path)));
        let others = others.map(whole).filter(|other| *other != whole(module));
        imports.entry(whole(module)).or_default().extend(others);
    }
    let parts: Vec<String> = imports.keys().filter(|module| module.starts_with("decide::")).cloned().collect();
    imports.entry("decide".to_owned()).or_default().extend(parts);
    assert!(
        imports["incident"].contains("phase") && imports["decide::response"].contains("decide::question"),
        "{imports:?}"
    );
    while !imports.is_empty() {
        let free =
            |others: &BTreeSet<String>, all: &BTreeMap<String, _>| !others.iter().any(|other| all.contains_key(other));
        let leaf = imports.iter().find(|(_, others)| free(others, &imports)).map(|(leaf, _)| leaf.clone());
        imports.remove(&leaf.unwrap_or_else(|| panic!("a circle: {imports:?}")));
    }
}

/// The text of each Rust file below `folder`, by its path from the root.
fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut files) = (vec![root.join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                files.push((path.strip_prefix(root).expect("below the root").to_owned(), text));
            }
        }
    }
    files
}

/// The kinds of keys that a text names in the default namespace: `state` of `{prompts}:state:p`.
fn kinds_of_keys(text: &str) -> BTreeSet<&str> {
    let behind = text.split("prompts}").skip(1).filter_map(|rest| rest.trim_start_matches('}').strip_prefix(':'));
    behind.map(|kind| &kind[..kind.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(kind.len())]).collect()
}

#[test]
fn only_tests_of_the_store_name_private_keys() {
    const PUBLIC: [&str; 5] = ["active", "changes", "content", "log", "routing"];
    let keys = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/keys.rs")).expect("the keys");
    let all = keys.split("self.key(\"").skip(1).filter_map(|rest| rest.split([':', '"']).next());
    let private: BTreeSet<&str> = all.filter(|kind| !PUBLIC.contains(kind)).collect();
    assert!(private.len() > 20 && private.contains("state"), "{private:?}");
    assert_eq!(kinds_of_keys("\"{prompts}:due:page\", \"{{prompts}}:log:{p}\""), BTreeSet::from(["due", "log"]));
    for (path, text) in [rust_files("tests"), rust_files("testkit")].concat() {
        if path.starts_with("tests/store") || path.ends_with("layers.rs") {
            continue;
        }
        let named: Vec<_> = kinds_of_keys(&text).intersection(&private).copied().collect();
        assert!(named.is_empty(), "{}: {named:?}: use `common::kept` and `Keys`", path.display());
    }
}

/// The name of the type that a line declares. An indented `type` belongs to a trait.
fn declared(line: &str) -> Option<&str> {
    let item = line.trim_start();
    let item = match item.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(')')?.1,
        Some(rest) => rest,
        None => item,
    };
    let item = item.trim_start();
    let named = ["struct ", "enum ", "trait "].iter().find_map(|kind| item.strip_prefix(kind));
    let named = named.or_else(|| item.strip_prefix("type ").filter(|_| !line.starts_with(' ')))?;
    // of a macro, the name is its argument
    named.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}

#[test]
fn no_two_types_have_the_same_name() {
    assert_eq!(declared("pub(in crate::store) struct Link<'a> {"), Some("Link"));
    assert_eq!(declared("    pub enum Denial {"), Some("Denial"));
    assert_eq!((declared("    type Error = CutOff;"), declared("type Reply = Body;")), (None, Some("Reply")));
    let mut declarations: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (path, text) in [rust_files("src"), rust_files("crates")].concat() {
        // a build has either `otlp` or `no_otlp`
        if path.iter().any(|part| part == "tests") || path.ends_with("tests.rs") || path.ends_with("no_otlp.rs") {
            continue;
        }
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for name in product.lines().filter_map(declared) {
            let earlier = declarations.insert(name.to_owned(), path.clone());
            assert_eq!(earlier, None, "{name} is declared in {} as well", path.display());
        }
    }
    assert!(declarations.len() > 400, "found only {}", declarations.len());
}

#[test]
fn names_of_functions_have_fewer_than_70_characters() {
    for folder in ["src", "crates", "tests", "testkit", "examples", "benches", "packaging"] {
        for (path, text) in rust_files(folder) {
            let rests = text.split("fn ").skip(1);
            let names = rests.filter_map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next());
            let long: Vec<_> = names.filter(|name| name.len() >= 70).collect();
            assert!(long.is_empty(), "{}: {long:?}", path.display());
        }
    }
}

/// Name and version of all crates that a package is built from on this platform, including itself.
fn built_from(package: &str, features: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["tree", "--locked", "--offline", "--edges=normal", "--prefix=none", "--format={p}"]);
    cargo.args(["--package", package, "--features", features]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().expect("run cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let crates = String::from_utf8(output.stdout).expect("UTF-8");
    crates.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

fn names(crates: &BTreeSet<String>) -> BTreeSet<&str> {
    crates.iter().filter_map(|one| one.split(' ').next()).collect()
}

#[test]
fn a_prompt_server_builds_few_crates_for_the_reader() {
    for (features, most) in [("", 64), ("tls", 78)] {
        let crates = built_from("prompt-rollback-reader", features);
        assert!((20..=most).contains(&crates.len()), "{features:?}: {} crates: {crates:?}", crates.len());
        let receivers =
            ["anyhow", "clap", "hyper", "prometheus-client", "prompt-rollback-decision", "serde", "slack-morphism"];
        let found: Vec<_> = receivers.into_iter().filter(|name| names(&crates).contains(name)).collect();
        assert!(found.is_empty(), "{features:?}: {found:?}");
    }
}

#[test]
fn the_core_is_built_from_serde_alone() {
    let crates = built_from("prompt-rollback-decision", "");
    let serde = ["proc-macro2", "quote", "serde", "serde_core", "serde_derive", "syn", "unicode-ident"];
    let others: Vec<_> = names(&crates).into_iter().filter(|name| !serde.contains(name)).collect();
    assert_eq!(others, ["prompt-rollback-decision"]);
}
