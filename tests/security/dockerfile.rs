//! Parses the tested parts of a Dockerfile.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub fn file(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).context(path.to_owned())
}

/// A stage, from one `FROM` to the next.
pub struct Stage {
    /// Its base, such as `rust:1.98.0-slim-trixie` or `scratch`.
    pub from: String,
    /// Name and arguments of each instruction.
    instructions: Vec<(String, String)>,
}

/// A `COPY` of files from the context.
pub struct Copy {
    pub sources: Vec<String>,
    pub destination: String,
    pub before_first_run: bool,
}

pub fn stages(path: &str) -> Result<Vec<Stage>> {
    let text = file(path)?;
    let text: String =
        text.lines().filter(|line| !line.trim_start().starts_with('#')).fold(String::new(), |all, line| {
            match line.trim().strip_suffix('\\') {
                Some(begun) => all + begun + " ",
                None => all + line.trim() + "\n",
            }
        });
    let mut stages: Vec<Stage> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (name, rest) = line.split_once(' ').with_context(|| format!("{path}: {line}"))?;
        if name == "FROM" {
            let from = rest.split(' ').next().unwrap_or_default().to_owned();
            stages.push(Stage { from, instructions: Vec::new() });
        } else {
            let stage = stages.last_mut().with_context(|| format!("{path}: {name} before FROM"))?;
            stage.instructions.push((name.to_owned(), rest.trim().to_owned()));
        }
    }
    Ok(stages)
}

impl Stage {
    /// All instructions of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.instructions.iter().filter(|(one, _)| one == name).map(|(_, rest)| rest.as_str()).collect()
    }

    /// The one instruction of this name.
    pub fn one(&self, name: &str) -> Result<&str> {
        let all = self.all(name);
        ensure!(all.len() == 1, "{name} stands {} times in the stage FROM {}", all.len(), self.from);
        Ok(all[0])
    }

    pub fn copies(&self) -> Result<Vec<Copy>> {
        let first_run = self.instructions.iter().position(|(name, _)| name == "RUN").unwrap_or(usize::MAX);
        let mut copies = Vec::new();
        for (at, (name, rest)) in self.instructions.iter().enumerate() {
            ensure!(name != "ADD", "ADD {rest}: COPY says what it does");
            if name != "COPY" || rest.starts_with("--from=") {
                continue;
            }
            ensure!(
                !rest.contains(['*', '?', '[', '$']) && !rest.starts_with("--"),
                "COPY {rest}: not read by this test"
            );
            let mut words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
            let destination = words.pop().context("a destination")?;
            copies.push(Copy { sources: words, destination, before_first_run: at < first_run });
        }
        Ok(copies)
    }
}
