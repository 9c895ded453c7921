//! Imports only go down. Reads every path in `src/` and fails where a layer looks up, or at one it may not know. Cargo
//! itself keeps `crates/decision` from looking up: it is a crate without dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A layer sees those below it, but for `blind`. `never` are crates, with all whose names begin with theirs and `_`.
struct Layer {
    name: &'static str,
    modules: &'static [&'static str],
    blind: &'static [&'static str],
    never: &'static [&'static str],
}

const fn layer(
    name: &'static str,
    modules: &'static [&'static str],
    blind: &'static [&'static str],
    never: &'static [&'static str],
) -> Layer {
    Layer { name, modules, blind, never }
}

/// From top to bottom. A module belongs where its longest prefix stands.
const LAYERS: &[Layer] = &[
    layer("main", &["main"], &[], &[]),
    layer("lib", &[""], &[], &[]),
    layer("cli", &["cli"], &[], &[]),
    layer("app", &["app"], &[], &[]),
    // The request path touches Redis only.
    layer("http", &["http"], &["reconciler", "clients", "outgoing"], &["redis"]),
    layer("reconciler", &["reconciler", "notify"], &[], &["redis", "hyper"]),
    layer(
        "engine",
        &["engine", "clicks", "coordinate", "drafts", "drills", "reports"],
        &["clients", "outgoing"],
        &["redis", "hyper", "tower"],
    ),
    layer("live", &["live"], &["metrics", "store"], &["redis", "hyper", "tower"]),
    layer("metrics", &["metrics"], &["clients", "outgoing"], &["redis", "hyper", "tower", "tokio"]),
    layer("store", &["store"], &["clients", "outgoing"], &["hyper", "tower", "prometheus_client"]),
    layer(
        "clients",
        &[
            "alertmanager::client",
            "prometheus",
            "baseline",
            "slack::client",
            "slack::socket",
            "slack::payload::tests",
            "notify::webhook::client",
            "notify::webhook::signature",
        ],
        &[],
        &["redis", "prometheus_client"],
    ),
    layer("outgoing", &["outgoing"], &["payloads"], &["redis", "prometheus_client"]),
    layer(
        "payloads",
        &["comparison", "alertmanager", "deployed", "slack", "postmortem", "report"],
        &[],
        &["redis", "hyper", "tower", "tokio"],
    ),
    layer("config", &["config"], &[], &["hyper_util", "tower", "tokio"]),
    layer("events", &["events"], &[], &["redis", "hyper", "tower", "tokio", "prometheus_client"]),
    layer("elsewhere", &["elsewhere"], &[], &["redis", "hyper", "tower", "serde", "prometheus_client"]),
    layer("tls", &["tls"], &[], &["redis", "hyper", "hyper_util", "tower", "tokio", "serde"]),
    layer("visible", &["visible"], &[], &["redis", "hyper", "tower", "tokio"]),
    // For prompt servers: of no use to the receiver, and without a use for it.
    layer("reader", &["reader"], &["decision"], &["hyper", "tower", "serde", "prometheus_client"]),
    // `crates/decision`, under the name that `src/lib.rs` gives it.
    layer("decision", &["decision"], &[], &[]),
];

/// Where a module stands in `LAYERS`.
fn place(module: &[String]) -> Option<usize> {
    let path = module.join("::");
    let length = |prefix: &&str| {
        let below = path.strip_prefix(*prefix)?;
        // Only the crate's root itself is "", not all that lies below it.
        (below.is_empty() || !prefix.is_empty() && below.starts_with("::")).then_some(prefix.len())
    };
    let longest = |layer: &Layer| layer.modules.iter().filter_map(length).max();
    let fits = LAYERS.iter().enumerate().filter_map(|(index, layer)| Some((longest(layer)?, index)));
    fits.max().map(|(_, index)| index)
}

/// `src/http/api.rs` is the module `http::api`.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module == ["lib"] || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// What is wrong with this file, one line each.
fn faults(file: &str, text: &str, crates: &BTreeSet<String>) -> Vec<String> {
    let module = module_of(file);
    let Some(own) = place(&module) else {
        return vec![format!("{file}: has no layer; give it one in tests/layers.rs")];
    };
    let layer = &LAYERS[own];
    let mut faults = BTreeSet::new();
    for path in source::paths(text, &module) {
        let shown = path.written.join("::");
        let Some(target) = path.target else {
            let name = &path.written[0];
            let forbidden = layer.never.iter().any(|one| name == one || name.starts_with(&format!("{one}_")));
            if crates.contains(name) && forbidden {
                faults.insert(format!("{file}: {} may not use the crate {name} ({shown})", layer.name));
            }
            continue;
        };
        match place(&target) {
            None => drop(faults.insert(format!("{file}: {shown} leads to no layer"))),
            Some(below) if below < own => {
                faults.insert(format!("{file}: {} looks up at {} ({shown})", layer.name, LAYERS[below].name));
            }
            Some(below) if layer.blind.contains(&LAYERS[below].name) => {
                faults.insert(format!("{file}: {} may not know {} ({shown})", layer.name, LAYERS[below].name));
            }
            Some(_) => {}
        }
    }
    faults.into_iter().collect()
}

/// The crates that `Cargo.toml` depends on, as they are called in code.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("read Cargo.toml");
    let manifest: toml::Table = manifest.parse().expect("parse Cargo.toml");
    let table = manifest["dependencies"].as_table().expect("a table of dependencies");
    table.keys().map(|name| name.replace('-', "_")).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Name and text of each source file in `folder`.
fn sources_in(folder: &str) -> Vec<(String, String)> {
    let (mut folders, mut files) = (vec![root().join(folder)], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("list a folder") {
            let path = entry.expect("list a folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                files.push((name, fs::read_to_string(&path).expect("read a source file")));
            }
        }
    }
    files
}

fn sources() -> Vec<(String, String)> {
    sources_in("src")
}

#[test]
fn imports_only_go_down() {
    let crates = dependencies();
    let faults: Vec<_> = sources().iter().flat_map(|(file, text)| faults(file, text, &crates)).collect();
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_layer_has_a_file_and_imports_something() {
    let sources = sources();
    for (index, layer) in LAYERS.iter().enumerate().filter(|(_, layer)| layer.name != "decision") {
        let mut own = sources.iter().filter(|(file, _)| place(&module_of(file)) == Some(index)).peekable();
        assert!(own.peek().is_some(), "{} has no file", layer.name);
        // A reader of sources that finds no paths would let everything pass.
        let paths = own.map(|(file, text)| source::paths(text, &module_of(file)).len()).sum::<usize>();
        assert!(paths > 0 || layer.name == "lib", "no path found in {}", layer.name);
    }
}

#[test]
fn the_core_has_no_clock_and_no_way_out() {
    let forbidden = ["Instant", "SystemTime", "async", "await", "env", "fs", "net", "process", "thread", "println"];
    let core = sources_in("crates/decision/src");
    assert!(!core.is_empty());
    // its tests may read how many histories they are to run, and the tables that they keep true
    for (file, text) in core.into_iter().filter(|(file, _)| !file.contains("/tests/")) {
        let words = source::words(&text);
        let found: Vec<_> = forbidden.iter().filter(|word| words.contains(**word)).collect();
        assert!(found.is_empty(), "{file}: {found:?}");
    }
}

/// Each module of the core but `decide`, with the others that it imports.
fn imports_of_the_core() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    let files = sources_in("crates/decision/src").into_iter().filter(|(file, _)| !file.contains("/decide/"));
    for (file, text) in files.filter(|(file, _)| !file.contains("tests")) {
        let module = module_of(file.trim_start_matches("crates/decision/"));
        let Some(own) = module.first().filter(|own| *own != "decide") else { continue };
        let paths = source::paths(&text, &module).into_iter();
        let others: BTreeSet<_> = paths.filter_map(|path| path.target?.first().cloned()).collect();
        imports.insert(own.clone(), others);
    }
    let modules: BTreeSet<_> = imports.keys().cloned().collect();
    imports.iter_mut().for_each(|(own, others)| others.retain(|other| other != own && modules.contains(other)));
    imports
}

#[test]
fn the_types_of_the_core_import_each_other_in_no_circle() {
    let mut imports = imports_of_the_core();
    assert!(imports["incident"].contains("phase"), "no import found");
    while let Some(leaf) = imports.iter().find(|(_, others)| others.is_empty()).map(|(own, _)| own.clone()) {
        imports.remove(&leaf);
        for others in imports.values_mut() {
            others.remove(&leaf);
        }
    }
    assert!(imports.is_empty(), "a circle: {imports:?}");
}

#[test]
fn main_is_tiny() {
    let main = fs::read_to_string(root().join("src/main.rs")).expect("read main.rs");
    assert!(main.lines().count() < 30, "src/main.rs: {} lines", main.lines().count());
}

#[test]
fn each_way_to_look_up_is_found() {
    let cases = [
        ("src/engine.rs", "use crate::http::Context;", "engine looks up at http"),
        ("src/engine.rs", "use crate::{metrics::{Metrics}, reconciler::{act as a}};", "engine looks up at reconciler"),
        ("src/engine.rs", "fn f() { crate::app::serve(); }", "engine looks up at app"),
        ("src/store/mod.rs", "pub use super::engine::Engine as E;", "store looks up at engine"),
        ("src/store/record.rs", "mod tests { use super::super::super::http; }", "store looks up at http"),
        ("src/reconciler/act.rs", "use crate::http;", "reconciler looks up at http"),
        ("src/http/api.rs", "use crate::reconciler::act;", "http may not know reconciler"),
        ("src/http/api.rs", "use crate::alertmanager::client::Client;", "http may not know clients"),
        ("src/http/api.rs", "use crate::prometheus::Prometheus;", "http may not know clients"),
        ("src/http/api.rs", "fn f() { redis::cmd(\"GET\"); }", "http may not use the crate redis"),
        ("src/engine.rs", "use crate::slack::client;", "engine may not know clients"),
        ("src/alertmanager/mod.rs", "mod client; pub use client::Client;", "payloads looks up at clients"),
        ("src/alertmanager/payload.rs", "use crate::store::Store;", "payloads looks up at store"),
        ("src/config/mod.rs", "use crate::engine::Engine;", "config looks up at engine"),
        ("src/config/mod.rs", "use tokio::fs;", "config may not use the crate tokio"),
        ("src/reader/follow.rs", "use crate::decision::VersionName;", "reader may not know decision"),
        ("src/reader/split.rs", "use crate::store::Store;", "reader looks up at store"),
        ("src/tls.rs", "use crate::*;", "tls looks up at lib"),
        ("src/metrics.rs", "use hyper_util::rt;", "metrics may not use the crate hyper_util"),
        ("src/engine.rs", "use crate::nowhere::Thing;", "leads to no layer"),
        ("src/nowhere.rs", "", "has no layer"),
    ];
    let crates = dependencies();
    for (file, text, expected) in cases {
        let found = faults(file, text, &crates);
        assert!(found.len() == 1 && found[0].contains(expected), "{file}: {text}\nfound {found:?}");
    }
}

#[test]
fn what_is_allowed_passes() {
    let cases = [
        ("src/engine.rs", "use std::http; use crate::store::Store; // use crate::http;\n/* crate::app /* nested */ */"),
        (
            "src/engine.rs",
            "const S: &str = \"crate::http::x\"; const R: &str = r#\"\"crate::app\"\"#; const C: char = '\"';",
        ),
        ("src/metrics.rs", "mod tests { use super::*; } fn f<'a>(x: &'a str) { self::g() }"),
        ("src/store/record.rs", "macro_rules! m { ($m:ident) => { mod $m { use super::super::keys; } } }"),
        ("src/http/api.rs", "use super::reply; use crate::engine::Engine; use hyper::StatusCode;"),
        ("src/reconciler/act.rs", "use crate::alertmanager::client::Client; use crate::engine::Engine;"),
        ("src/http/mod.rs", "use std::time::Duration; mod reply; use reply::json;"),
        ("src/main.rs", "use prompt_rollback::cli::Cli;"),
    ];
    let crates = dependencies();
    for (file, text) in cases {
        assert_eq!(faults(file, text, &crates), Vec::<String>::new(), "{text}");
    }
}

/// As much of Rust's syntax as it takes to find paths.
mod source {
    use std::collections::BTreeSet;

    /// A path in code, and the module path in this crate that it leads to; none for another crate.
    pub struct Found {
        pub written: Vec<String>,
        pub target: Option<Vec<String>>,
    }

    #[derive(Debug, PartialEq, Clone)]
    enum Token {
        Word(String),
        /// `::`
        Colons,
        Mark(char),
    }
    use Token::{Colons, Mark, Word};

    /// All identifiers and keywords, those of comments and strings left out.
    pub fn words(text: &str) -> BTreeSet<String> {
        let word = |token| if let Word(word) = token { Some(word) } else { None };
        tokens(text).into_iter().filter_map(word).collect()
    }

    /// All paths of a file that is the module `module`.
    pub fn paths(text: &str, module: &[String]) -> Vec<Found> {
        let tokens = tokens(text);
        let children = declared_modules(&tokens);
        let mut found = Vec::new();
        // Inline modules that are open, each with the depth of braces around it.
        let (mut inline, mut depth): (Vec<(String, usize)>, usize) = (Vec::new(), 0);
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                Mark('{') => depth += 1,
                Mark('}') => {
                    depth = depth.saturating_sub(1);
                    if inline.last().is_some_and(|(_, outside)| *outside == depth) {
                        inline.pop();
                    }
                }
                Word(word) if word == "mod" => {
                    // In a macro the name is `$name`.
                    let name_at = at + 1 + usize::from(tokens.get(at + 1) == Some(&Mark('$')));
                    if let (Some(Word(name)), Some(Mark('{'))) = (tokens.get(name_at), tokens.get(name_at + 1)) {
                        inline.push((name.clone(), depth));
                    }
                }
                Word(word) if word != "use" => {
                    let imported = at > 0 && tokens[at - 1] == Word("use".to_owned());
                    let mut written = Vec::new();
                    let end = read_path(&tokens, at, &mut Vec::new(), &mut written);
                    let here: Vec<String> =
                        module.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect();
                    for path in written.into_iter().filter(|path| imported || path.len() > 1) {
                        found.push(Found { target: resolve(&path, &here, &children), written: path });
                    }
                    at = end;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        found
    }

    /// Where a path leads in this crate, seen from the module `here`.
    fn resolve(path: &[String], here: &[String], children: &BTreeSet<String>) -> Option<Vec<String>> {
        let (mut base, mut rest) = match path[0].as_str() {
            "crate" | "prompt_rollback" => (Vec::new(), &path[1..]),
            "self" => (here.to_vec(), &path[1..]),
            "super" => (here.to_vec(), path),
            child if children.contains(child) => (here.to_vec(), path),
            _ => return None,
        };
        while rest.first().is_some_and(|word| word == "super") {
            base.pop();
            rest = &rest[1..];
        }
        base.extend(rest.iter().filter(|word| *word != "*" && *word != "self").cloned());
        Some(base)
    }

    /// `mod name;`
    fn declared_modules(tokens: &[Token]) -> BTreeSet<String> {
        let declared = |window: &[Token]| match window {
            [Word(keyword), Word(name), Mark(';')] if keyword == "mod" => Some(name.clone()),
            _ => None,
        };
        tokens.windows(3).filter_map(declared).collect()
    }

    /// Reads a path, or a tree of them as in `use a::{b, c::*}`; gives where it ends.
    fn read_path(tokens: &[Token], mut at: usize, prefix: &mut Vec<String>, out: &mut Vec<Vec<String>>) -> usize {
        let outside = prefix.len();
        loop {
            match tokens.get(at) {
                Some(Word(word)) => prefix.push(word.clone()),
                Some(Mark('*')) => prefix.push("*".to_owned()),
                Some(Mark('{')) => {
                    at += 1;
                    while !matches!(tokens.get(at), None | Some(Mark('}'))) {
                        at = match &tokens[at] {
                            Mark(',') => at + 1,
                            Word(word) if word == "as" => at + 2,
                            _ => read_path(tokens, at, prefix, out).max(at + 1),
                        };
                    }
                    prefix.truncate(outside);
                    return at + 1;
                }
                _ => break,
            }
            at += 1;
            if tokens.get(at) != Some(&Colons) {
                break;
            }
            at += 1;
        }
        if prefix.len() > outside {
            out.push(prefix.clone());
        }
        prefix.truncate(outside);
        at
    }

    fn tokens(text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if rest.starts_with("//") {
                rest = rest.split_once('\n').map_or("", |(_, after)| after);
            } else if rest.starts_with("/*") {
                rest = after_block_comment(rest);
            } else if rest.starts_with("::") {
                tokens.push(Colons);
                rest = &rest[2..];
            } else if let Some(after) = after_raw_string(rest) {
                rest = after;
            } else if first == '"' {
                rest = after_quoted(&rest[1..], '"');
            } else if first == '\'' {
                rest = after_quote_mark(&rest[1..]);
            } else if first.is_alphanumeric() || first == '_' {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                tokens.push(Word(rest[..end].to_owned()));
                rest = &rest[end..];
            } else {
                if !first.is_whitespace() {
                    tokens.push(Mark(first));
                }
                rest = &rest[first.len_utf8()..];
            }
        }
        tokens
    }

    fn after_block_comment(text: &str) -> &str {
        let (mut rest, mut depth) = (&text[2..], 1);
        while depth > 0 {
            let Some(at) = rest.find("/*").into_iter().chain(rest.find("*/")).min() else { return "" };
            depth = if rest[at..].starts_with("/*") { depth + 1 } else { depth - 1 };
            rest = &rest[at + 2..];
        }
        rest
    }

    /// `r"…"`, `r#"…"#`, `br"…"`
    fn after_raw_string(text: &str) -> Option<&str> {
        let text = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
        let hashes = text.len() - text.trim_start_matches('#').len();
        let body = text[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        Some(body.split_once(&end).map_or("", |(_, after)| after))
    }

    fn after_quoted(text: &str, mark: char) -> &str {
        let mut escaped = false;
        for (at, c) in text.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                c if c == mark => return &text[at + c.len_utf8()..],
                _ => {}
            }
        }
        ""
    }

    /// After a `'`: a character, or the name of a lifetime.
    fn after_quote_mark(text: &str) -> &str {
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some('\\'), _) | (Some(_), Some('\'')) => after_quoted(text, '\''),
            _ => text,
        }
    }
}
