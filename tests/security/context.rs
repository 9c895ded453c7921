//! The build context of the images: the tree as .dockerignore leaves it, copied as the Dockerfiles copy it. Without an
//! engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::dockerfile::{self, Copy, file};

/// Copies what .dockerignore includes. Understands only the kinds of lines that the file has, and fails on others.
fn copy_context(ignore: &str, to: &Path) -> Result<()> {
    let mut patterns = ignore.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    ensure!(patterns.next() == Some("*"), ".dockerignore must begin with `*`, which leaves out everything");
    for pattern in patterns {
        let Some(kept) = pattern.strip_prefix('!').filter(|kept| !kept.contains(['*', '?', '[', '\\', '!'])) else {
            bail!(".dockerignore: {pattern}: after `*` this test reads only `!` and a path");
        };
        copy(&dockerfile::root().join(kept), &to.join(kept))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    fs::create_dir_all(to.parent().context("a folder")?)?;
    fs::copy(from, to).with_context(|| format!("copy {}", from.display())).map(drop)
}

/// Like `COPY`: a folder's contents, or a file, into a folder if the destination is one or ends with a slash.
fn carry_out(instruction: &Copy, context: &Path, workdir: &Path) -> Result<()> {
    for source in &instruction.sources {
        let (from, mut to) = (context.join(source), workdir.join(instruction.destination.trim_start_matches("./")));
        ensure!(from.exists(), "COPY {source}: .dockerignore leaves it out, or it is not there");
        if from.is_file() && (instruction.destination.ends_with('/') || to.is_dir()) {
            to.push(from.file_name().context("a name")?);
        }
        copy(&from, &to)?;
    }
    Ok(())
}

/// An empty folder of this name at a fixed place, so that Cargo can reuse what it has built there.
fn empty(name: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// What the Dockerfile builds.
const PROGRAM: &str = "--locked --features otlp --bin prompt-rollback";

/// With a separate target directory: these trees contain packages of the same names, and Cargo would confuse their
/// artifacts with those of this tree.
fn check(tree: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("context-target");
    let mut command = Command::new(cargo);
    command.arg("check").args(PROGRAM.split(' ')).current_dir(tree).env("CARGO_TARGET_DIR", target);
    // Cargo's variables about this test's crate: build scripts that read them would run again
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
            command.env_remove(name);
        }
    }
    let output = command.output().context("run cargo")?;
    ensure!(output.status.success(), "cargo check\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn the_receiver_compiles_from_what_its_image_is_built_from() -> Result<()> {
    let (context, dependencies, program) = (empty("context")?, empty("dependencies")?, empty("program")?);
    copy_context(&file(".dockerignore")?, &context)?;
    let stages = dockerfile::stages("Dockerfile")?;
    let (last, build) = stages.split_last().context("a stage")?;
    let build = build.first().context("a stage that builds")?;
    let builds = build.all("RUN").join(" && ").matches(&format!("cargo build --release {PROGRAM}")).count();
    assert_eq!(builds, 2, "the dependencies and the program are built with these arguments");

    // the layer of dependencies: what is copied before the first command, and its generated sources
    for tree in [&dependencies, &program] {
        for copy in build.copies()?.iter().filter(|copy| copy.before_first_run) {
            carry_out(copy, &context, tree)?;
        }
        for package in [".", "crates/decision", "crates/reader", "testkit"] {
            fs::create_dir_all(tree.join(package).join("src"))?;
            fs::write(tree.join(package).join("src/lib.rs"), "")?;
        }
        fs::write(tree.join("src/main.rs"), "fn main() {}")?;
    }
    check(&dependencies).context("the layer of dependencies")?;

    for copy in build.copies()?.iter().filter(|copy| !copy.before_first_run) {
        carry_out(copy, &context, &program)?;
    }
    check(&program).context("the program")?;

    let image = empty("last-stage")?;
    for copy in last.copies()? {
        carry_out(&copy, &context, &image)?;
    }
    Ok(())
}

#[test]
fn the_example_in_python_is_all_in_its_context() -> Result<()> {
    let folder = dockerfile::root().join("examples/python");
    ensure!(!folder.join(".dockerignore").exists(), "this test takes everything in {} for copied", folder.display());
    let image = empty("python")?;
    for stage in dockerfile::stages("examples/python/Dockerfile")? {
        for copy in stage.copies()? {
            carry_out(&copy, &folder, &image)?;
        }
    }
    for module in ["prompt_server.py", "prompt_reader.py"] {
        ensure!(image.join(module).exists(), "{module} is not copied");
    }
    Ok(())
}

#[test]
fn a_line_of_dockerignore_that_would_be_misread_is_a_failure() -> Result<()> {
    let to = empty("misread")?;
    for ignore in ["", "src", "*\n!src/**", "*\nsrc/store", "*\n!config/*.toml", "**"] {
        assert!(copy_context(ignore, &to).is_err(), "{ignore:?}");
    }
    Ok(())
}
