//! `.ci/run` with a Makefile of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::Dir;

/// Runs the script in a directory whose `make test` runs `recipe`. Returns whether it succeeded, and what it printed.
fn run(dir: &Dir, recipe: &str) -> Result<(bool, String)> {
    let script = dir.write(".ci/run", fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run"))?)?;
    fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
    dir.write("Makefile", format!("test:\n\t{recipe}\n"))?;
    let output = Command::new("bash").arg(script).output().context("bash")?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// What is in `target`.
fn kept(dir: &Dir) -> Result<Vec<String>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir.path().join("target"))? {
        let entry = entry?;
        for file in fs::read_dir(entry.path())? {
            kept.push(format!("{}/{}", entry.file_name().display(), file?.file_name().display()));
        }
    }
    Ok(kept)
}

#[test]
fn ci_installs_the_tools_again_and_restores_those_that_were_there() -> Result<()> {
    const INSTALL: &str = "test ! -e target/tools && mkdir -p target/tools && touch target/tools/new";
    let dir = Dir::new("ci")?;
    let (succeeded, text) = run(&dir, INSTALL)?;
    ensure!(succeeded && kept(&dir)? == ["tools/new"], "on a new machine: {:?} {text}", kept(&dir)?);

    let dir = Dir::new("ci")?;
    dir.write("target/tools/old", "")?;
    for (recipe, succeeds) in [(INSTALL.to_owned(), true), (format!("{INSTALL} && false"), false)] {
        let (succeeded, text) = run(&dir, &recipe)?;
        ensure!(succeeded == succeeds && kept(&dir)? == ["tools/old"], "{recipe}: {:?} {text}", kept(&dir)?);
    }
    Ok(())
}
