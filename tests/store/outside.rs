//! `outside.lua` and `broken.lua`: external changes, and the scan for them.

use std::collections::BTreeSet;

use anyhow::Result;
use prompt_rollback::decision::{Event, PromptName};
use prompt_rollback::engine::Engine;
use prompt_rollback::reconciler::drift;
use prompt_rollback::store::StoreError;

use super::kit::{Kit, key, prompt};
use crate::common::{Redis, log};

async fn scanned(kit: &Kit) -> Result<BTreeSet<PromptName>> {
    let (mut cursor, mut found) = (0, BTreeSet::new());
    loop {
        let (next, prompts) = kit.store.scan_active(cursor).await?.expect("permitted");
        found.extend(prompts);
        if next == 0 {
            return Ok(found);
        }
        cursor = next;
    }
}

#[tokio::test]
async fn only_prompts_whose_active_was_set_by_someone_else_are_named() -> Result<()> {
    let kit = Kit::start()?;
    let names = ["same", "set", "deleted", "new", "unknown", "broken"];
    for name in &names[..3] {
        kit.ship(name).await?;
    }
    kit.cmd::<()>(&["SET", &key("active:set"), "v9"]).await?;
    kit.cmd::<()>(&["DEL", &key("active:deleted")]).await?;
    kit.cmd::<()>(&["SET", &key("active:new"), "v1"]).await?;
    kit.cmd::<()>(&["SADD", &key("active:broken"), "v1"]).await?;
    let prompts = names.map(prompt);
    let changed = kit.store.drifted(&prompts).await?;
    assert_eq!(changed, ["set", "deleted", "new", "broken"].map(prompt));

    for name in ["set", "deleted", "new"] {
        kit.does(name, Event::CheckDrift).await?;
        let entry = log(&kit.redis, name).await?.pop().expect("an entry");
        assert_eq!((entry["event"].as_str(), entry["operator"].as_str()), ("external", "external"), "{name}");
    }
    assert_eq!(kit.store.drifted(&prompts).await?, [prompt("broken")]);
    Ok(())
}

#[tokio::test]
async fn prompts_that_may_serve_nothing_are_found_among_hundreds() -> Result<()> {
    let kit = Kit::start()?;
    let names = ["deleted", "unusable", "wrong-key", "wrong-state", "newer", "damaged", "serving"];
    for name in names {
        kit.ship(name).await?;
    }
    kit.cmd::<()>(&["DEL", &key("active:deleted")]).await?;
    kit.cmd::<()>(&["SET", &key("active:unusable"), "{oops}"]).await?;
    for name in ["deleted", "unusable"] {
        kit.does(name, Event::CheckDrift).await?;
    }
    kit.cmd::<()>(&["DEL", &key("active:wrong-key"), &key("state:wrong-state"), &key("active:damaged")]).await?;
    kit.cmd::<()>(&["SADD", &key("active:wrong-key"), "v1"]).await?;
    kit.cmd::<()>(&["SADD", &key("state:wrong-state"), "v1"]).await?;
    kit.cmd::<()>(&["HSET", &key("state:newer"), "schema", "9999"]).await?;
    kit.cmd::<()>(&["HSET", &key("state:damaged"), "json", "[]"]).await?;
    let unknown: Vec<String> = (0..300).map(|number| format!("unknown-{number}")).collect();
    let (first, last) = names.split_at(3);
    let names = first.iter().copied().chain(unknown.iter().map(String::as_str)).chain(last.iter().copied());
    let prompts: Vec<PromptName> = names.map(prompt).collect();
    let expected = ["deleted", "unusable", "wrong-key", "wrong-state", "newer", "damaged"];
    assert_eq!(kit.store.broken(&prompts).await?, expected.map(prompt));
    Ok(())
}

#[tokio::test]
async fn a_scan_finds_every_active_key_of_the_namespace_and_nothing_else() -> Result<()> {
    let kit = Kit::on(Redis::start()?)?;
    let fill = "for i = 1, 3000 do redis.call('SET', '{prompts}:active:p' .. i, 'v1')
        redis.call('SET', 'session:' .. i, 'x') end";
    kit.cmd::<()>(&["EVAL", fill, "0"]).await?;
    for stranger in [key("active:a b"), key("active:"), "{other}:active:p".to_owned(), key("activex:p")] {
        kit.cmd::<()>(&["SET", &stranger, "v1"]).await?;
    }
    let expected: BTreeSet<PromptName> = (1..=3_000).map(|n| prompt(&format!("p{n}"))).collect();
    assert_eq!(scanned(&kit).await?, expected);
    Ok(())
}

#[tokio::test]
async fn without_scan_every_known_prompt_is_paged_through() -> Result<()> {
    let kit = Kit::on(Redis::builder().receiver_may("-scan").start()?)?;
    assert_eq!(kit.store.scan_active(0).await?, None, "SCAN would show the keys of others");
    let names: Vec<String> = (0..1_203).map(|n| format!("p{n:04}")).collect();
    for name in &names {
        kit.cmd::<()>(&["ZADD", &key("prompts"), "0", name]).await?;
    }
    kit.cmd::<()>(&["ZADD", &key("prompts"), "0", "no name"]).await?;
    let (mut behind, mut known) = (None, Vec::new());
    loop {
        let page = kit.store.known(behind.as_deref()).await?;
        known.extend(page.items);
        let Some(next) = page.next else { break };
        behind = Some(next);
    }
    assert_eq!(known, names.iter().map(|name| prompt(name)).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_namespace_of_ones_own_is_kept_apart() -> Result<()> {
    let redis = Redis::builder().namespace("team/a:{llm}").start()?;
    let url = redis.url();
    let kit = Kit::with(redis, &url, &[("REDIS__NAMESPACE", "team/a:{llm}")])?;
    kit.ship("p").await?;
    kit.cmd::<()>(&["SET", &key("active:q"), "v1"]).await?;
    assert_eq!(kit.cmd::<String>(&["GET", "team/a:{llm}:active:p"]).await?, "v2");
    assert_eq!(scanned(&kit).await?, [prompt("p")].into());
    let inactive: Vec<String> = kit.dump().await?.into_keys().filter(|k| !k.starts_with("team/a:{llm}:")).collect();
    assert_eq!(inactive, [key("active:q")]);
    Ok(())
}

#[tokio::test]
async fn what_this_receiver_wrote_is_no_news_unless_changed_since() -> Result<()> {
    let kit = Kit::start()?;
    for name in ["ours", "changed", "deleted", "broken"] {
        kit.ship(name).await?;
    }
    kit.cmd::<()>(&["SET", &key("active:theirs"), "v1"]).await?;
    kit.cmd::<()>(&["SET", &key("active:changed"), "v1"]).await?;
    kit.cmd::<()>(&["DEL", &key("active:deleted"), &key("active:broken")]).await?;
    kit.cmd::<()>(&["SADD", &key("active:broken"), "x"]).await?;
    let heard: BTreeSet<_> = ["ours", "theirs", "changed", "deleted"].map(prompt).into();
    let mut news = kit.store.not_as_written(heard.clone()).await;
    news.sort();
    assert_eq!(news, ["changed", "deleted", "theirs"].map(prompt));
    assert_eq!(kit.store.not_as_written([prompt("broken")].into()).await, [prompt("broken")]);
    assert_eq!(kit.store.not_as_written(heard).await.len(), 4, "told once for each write");
    Ok(())
}

#[tokio::test]
async fn many_own_writes_are_looked_at_in_several_goes() -> Result<()> {
    let kit = Kit::start()?;
    let names: Vec<String> = (0..60).map(|n| format!("p-{n:02}")).collect();
    for name in &names {
        kit.ship(name).await?;
    }
    kit.cmd::<()>(&["SET", &key("active:p-59"), "v1"]).await?;
    let heard = names.iter().map(|name| prompt(name)).collect();
    assert_eq!(kit.store.not_as_written(heard).await, [prompt("p-59")]);
    Ok(())
}

#[tokio::test]
async fn an_own_write_that_was_never_announced_hides_no_later_set() -> Result<()> {
    let kit = Kit::start()?;
    let engine = Engine::new(kit.store.clone(), kit.policy.clone());
    kit.ship("p").await?; // while nothing watches
    kit.cmd::<()>(&["SET", &key("active:p"), "v1"]).await?;
    let _watch = kit.store.watch().await?;
    drift::look(&engine, &[prompt("p")]).await?;
    kit.cmd::<()>(&["SET", &key("active:p"), "v2"]).await?;
    assert_eq!(kit.store.not_as_written([prompt("p")].into()).await, [prompt("p")]);
    Ok(())
}

#[tokio::test]
async fn a_change_that_redis_does_not_take_now_is_an_error_and_hides_no_other() -> Result<()> {
    let kit = Kit::start()?;
    let engine = Engine::new(kit.store.clone(), kit.policy.clone());
    let prompts = ["p", "q"].map(prompt);
    for name in ["p", "q"] {
        kit.ship(name).await?;
        kit.cmd::<()>(&["SET", &key(&format!("active:{name}")), "v9"]).await?;
    }
    // Redis answers to a script that only reads, once it knows the script
    assert_eq!(kit.store.drifted(&prompts).await?, prompts);
    kit.cmd::<()>(&["CLIENT", "PAUSE", "60000", "WRITE"]).await?;
    let looked = drift::look(&engine, &prompts).await;
    assert!(matches!(looked, Err(StoreError::Unavailable { .. })), "{looked:?}");
    kit.cmd::<()>(&["CLIENT", "UNPAUSE"]).await?;
    // a fault that stays: it is logged, and the next one is handled
    for name in ["p", "q"] {
        kit.cmd::<()>(&["SET", &key(&format!("active:{name}")), "v8"]).await?;
    }
    kit.while_broken("log:p", async |_| Ok(drift::look(&engine, &prompts).await?)).await?;
    let entry = log(&kit.redis, "q").await?.pop().expect("an entry");
    assert_eq!((entry["event"].as_str(), entry["to"].as_str()), ("external", "v8"));
    Ok(())
}
