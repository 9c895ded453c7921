//! `backup` and `restore-backup`: a copy of everything in Redis, as a file of lines of JSON.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::RedisConfig;
use crate::store::backup::StoredKey;
use crate::store::{Clock, Store};

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct BackupHeader {
    prompt_rollback_backup: u32,
    namespace: String,
    /// Lines that follow.
    keys: usize,
}

const FORMAT: u32 = 1;

/// Writes everything to a new file. Returns the number of keys.
pub async fn backup(config: &RedisConfig, file: &Path) -> Result<usize, String> {
    let keys = store(config)?.backup().await.map_err(|error| error.to_string())?;
    let keys = keys.ok_or("keys changed during every pass: try again, or stop the receivers for the backup")?;
    let heading =
        BackupHeader { prompt_rollback_backup: FORMAT, namespace: config.namespace.clone(), keys: keys.len() };
    write(file, &heading, &keys).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(keys.len())
}

fn write(file: &Path, heading: &BackupHeader, keys: &[StoredKey]) -> std::io::Result<()> {
    // it holds prompts
    let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    // a part of a backup would only be in the way of the next attempt
    fill(out, heading, keys).inspect_err(|_| drop(std::fs::remove_file(file)))
}

fn fill(mut out: File, heading: &BackupHeader, keys: &[StoredKey]) -> std::io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(heading)?)?;
    let mut lines = String::new();
    for key in keys {
        lines.push_str(&serde_json::to_string(key)?);
        lines.push('\n');
    }
    out.write_all(lines.as_bytes())?;
    out.sync_all()
}

/// Writes everything in the file to Redis. Returns the number of keys.
pub async fn restore(config: &RedisConfig, file: &Path) -> Result<usize, String> {
    let keys = read(config, file).map_err(|error| format!("{}: {error}", file.display()))?;
    store(config)?.restore(&keys).await.map_err(|error| error.to_string())?;
    Ok(keys.len())
}

fn read(config: &RedisConfig, file: &Path) -> Result<Vec<StoredKey>, String> {
    let mut lines = BufReader::new(File::open(file).map_err(|error| error.to_string())?).lines();
    let mut next = || lines.next().transpose().map_err(|error| error.to_string());
    let heading: Option<BackupHeader> = next()?.and_then(|line| serde_json::from_str(&line).ok());
    let heading = heading.filter(|heading| heading.prompt_rollback_backup == FORMAT);
    let heading = heading.ok_or("is not a backup from this version of prompt-rollback")?;
    if heading.namespace != config.namespace {
        return Err(format!(
            "is a backup of the namespace {}, but redis.namespace is {}",
            heading.namespace, config.namespace
        ));
    }
    let mut keys = Vec::new();
    while let Some(line) = next()? {
        let key = serde_json::from_str(&line).map_err(|error| format!("line {}: {error}", keys.len() + 2))?;
        keys.push(key);
    }
    let complete = keys.len() == heading.keys;
    complete.then_some(keys).ok_or_else(|| format!("is incomplete: expected {} keys", heading.keys))
}

fn store(config: &RedisConfig) -> Result<Store, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Store::new(config, Clock::default()).map_err(|error| error.to_string())
}
