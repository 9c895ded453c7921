//! A restart replays the writes of scripts with the permissions of the user `default`, so it must have all of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::kit::{Kit, key};
use crate::common::Redis;

/// Every file below `src/store` with this extension.
fn sources(extension: &str) -> Result<Vec<(String, String)>> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.push((name, std::fs::read_to_string(&path)?));
            }
        }
    }
    Ok(found)
}

/// Words in capitals between these quotes, without comments: commands, and their options.
fn words(text: &str, quote: char, comment: &str) -> BTreeSet<String> {
    let code = text.lines().map(|line| line.split(comment).next().unwrap_or_default());
    let quoted = code.flat_map(|line| line.split(quote).skip(1).step_by(2));
    let words = quoted.filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase()));
    words.map(str::to_lowercase).collect()
}

/// Of these words, the commands that write, according to Redis.
async fn writes(redis: &Redis, words: BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut command = vec!["COMMAND", "INFO"];
    command.extend(words.iter().map(String::as_str));
    let known: Vec<Option<Vec<redis::Value>>> = redis.cmd(&command).await?;
    let writes =
        |info: &Option<Vec<redis::Value>>| format!("{:?}", info.as_ref().map(|info| &info[2])).contains("write");
    Ok(words.into_iter().zip(&known).filter(|(_, info)| writes(info)).map(|(word, _)| word).collect())
}

#[tokio::test]
async fn the_self_test_writes_with_every_command_that_the_store_writes_with() -> Result<()> {
    let redis = Redis::start()?;
    let (mut ours, mut tried) = (BTreeSet::new(), BTreeSet::new());
    for (name, text) in sources("lua")? {
        let found = writes(&redis, words(&text, '\'', "--")).await?;
        if name == "selftest.lua" { &mut tried } else { &mut ours }.extend(found);
    }
    // a backup has a Redis user of its own
    for (_, text) in sources("rs")?.iter().filter(|(name, _)| name != "backup.rs") {
        ours.extend(writes(&redis, words(text, '"', "//")).await?);
    }
    assert!(ours.len() >= 10 && ours.contains("xadd") && ours.contains("zremrangebyscore"), "{ours:?}");
    let missing: Vec<_> = ours.difference(&tried).collect();
    assert!(missing.is_empty(), "try these in selftest.lua, and see that config/users.acl has them: {missing:?}");
    Ok(())
}

/// The names of the commands in the append-only file, without MULTI and EXEC, which are not checked.
fn replayed(redis: &Redis) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(redis.dir().join("appendonlydir"))? {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(".incr.aof") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
        let mut lines = text.split("\r\n");
        while let Some(line) = lines.next() {
            // `*COUNT`, then `$LENGTH` and the text of each argument: no argument here contains a line break
            let Some(count) = line.strip_prefix('*') else { continue };
            let arguments = lines.by_ref().take(2 * count.parse::<usize>()?).skip(1).step_by(2);
            names.extend(arguments.take(1).map(str::to_lowercase).next());
        }
    }
    names.retain(|name| !["multi", "exec"].contains(&name.as_str()));
    Ok(names)
}

#[tokio::test]
async fn the_default_user_may_run_just_what_the_append_only_file_holds() -> Result<()> {
    let kit = Kit::on(Redis::builder().appendonly().start()?)?;
    assert_eq!(kit.store.selftest().await?.problem(), None);
    // an expired key is unlinked if memory is freed in the background
    kit.cmd::<()>(&["CONFIG", "SET", "lazyfree-lazy-expire", "yes"]).await?;
    kit.cmd::<()>(&["SET", &key("expired"), "1", "PX", "1"]).await?;
    tokio::time::sleep(Duration::from_millis(5)).await; // Redis expires a key by the real clock
    kit.cmd::<()>(&["EVAL", "redis.call('SET', KEYS[1], '2')", "1", &key("expired")]).await?;

    let users: Vec<String> = kit.cmd(&["ACL", "LIST"]).await?;
    let default = users.iter().find(|user| user.starts_with("user default ")).context("the user default")?;
    assert!(default.contains(" off ") && default.contains(" ~{prompts}:* "), "{default}");
    let granted: BTreeSet<String> =
        default.split(' ').filter_map(|rule| rule.strip_prefix('+')).map(str::to_owned).collect();
    assert_eq!(granted, replayed(&kit.redis)?);
    Ok(())
}
