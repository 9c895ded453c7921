//! `init`: writes the files with which a receiver joins a Redis, a Prometheus and an Alertmanager that exist already.

mod files;
mod next_steps;
mod questions;

use std::{fs, io, path};

use super::args::InitArgs;
use super::terminal::CommandError;
use files::{MODE, SECRET_MODE, SECRETS, existing, outputs, secrets, write};

/// Asks what no flag says, writes the files, and returns the next steps.
pub fn run(args: &InitArgs) -> Result<String, CommandError> {
    let answers = questions::ask(args)?;
    let existing = existing(args)?;
    let secrets = secrets(&args.dir)?;
    let outputs = outputs(&answers, &secrets);
    let create = |error: io::Error| CommandError::Failed(format!("cannot create {}: {error}", args.dir.display()));
    fs::create_dir_all(&args.dir).map_err(create)?;
    let mut written = Vec::new();
    for (name, secret) in SECRETS.iter().zip(&secrets) {
        if !existing.contains(name) {
            // without a line feed: some programs, and Kubernetes' Secrets, do not trim it
            write(&args.dir.join(name), secret, SECRET_MODE)?;
            written.push(*name);
        }
    }
    for output in &outputs {
        write(&args.dir.join(output.name), &output.text, MODE)?;
        written.push(output.name);
    }
    // some of the next steps run in a checkout of the repository, and not where `init` ran
    let dir = path::absolute(&args.dir).unwrap_or_else(|_| args.dir.clone());
    Ok(format!("Wrote {} to {}.\n{}", written.join(", "), args.dir.display(), next_steps::steps(&answers, &dir)))
}

/// A string in TOML, and in YAML.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
