//! `commit.lua`: every return code, and what each writes.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use prompt_rollback::decision::{Action, AlertStatus, Commit, Event, Operator, PhaseKind, Policy, Severity, Wake};
use prompt_rollback::store::{Committed, Loaded, StoreError};
use serde_json::Value;
use ulid::Ulid;

use super::kit::{Kit, activate, critical, key, paging, register, version};
use crate::common::{assert_same, log};

#[tokio::test]
async fn a_switch_writes_all_that_belongs_to_it() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    kit.cmd::<()>(&["HSET", &key("routing:p"), "v2", "90", "v1", "10"]).await?;
    let client = redis::Client::open(kit.redis.prompt_server_url())?;
    let mut changes = client.get_async_pubsub().await?;
    changes.subscribe(key("changes")).await?;

    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    let id = commit.incidents[0].incident.id.to_string();
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Done { rev: 5 });

    assert_eq!(kit.cmd::<String>(&["GET", &key("active:p")]).await?, "v1");
    assert!(!kit.cmd::<bool>(&["EXISTS", &key("routing:p")]).await?, "the split has ended");
    let state: HashMap<String, String> = kit.cmd(&["HGETALL", &key("state:p")]).await?;
    assert_eq!((state["rev"].as_str(), state["schema"].as_str(), state["serving"].as_str()), ("5", "1", "v1"));
    let entry = log(&kit.redis, "p").await?.pop().expect("an entry");
    for (field, value) in
        [("event", "rollback"), ("from", "v2"), ("to", "v1"), ("operator", "system"), ("incident", &id)]
    {
        assert_eq!(entry[field], value, "{field}");
    }
    assert_eq!(entry["reason"], "PromptErrorRate: v2 fails");
    assert!(entry["at"].ends_with('Z'), "{}", entry["at"]);
    let message = changes.on_message().next().await.expect("a message").get_payload::<String>()?;
    let message: Value = serde_json::from_str(&message)?;
    let entry_at = Value::String(entry["at"].clone());
    assert_eq!(
        (&message["prompt"], &message["from"], &message["to"], &message["at"], &message["routing"]),
        (&"p".into(), &"v2".into(), &"v1".into(), &entry_at, &Value::Null)
    );
    assert_eq!(message["reason"], "PromptErrorRate: v2 fails");
    let open: Vec<String> = kit.cmd(&["ZRANGE", &key("incidents:open"), "0", "-1"]).await?;
    assert_eq!(open, [id.as_str()]);
    assert_eq!(kit.cmd::<HashMap<String, i64>>(&["HGETALL", &key("phases")]).await?, [("verifying".into(), 1)].into());
    let due: Vec<String> = kit.cmd(&["ZRANGE", &key("due"), "0", "-1"]).await?;
    assert_eq!(due, [format!("{id}|act")]);
    assert_eq!(kit.cmd::<Vec<String>>(&["ZRANGE", &key("automatic"), "0", "-1"]).await?, ["p"]);
    Ok(())
}

#[tokio::test]
async fn the_first_commit_lists_the_prompt() -> Result<()> {
    let kit = Kit::start()?;
    let (loaded, commit) = kit.prepare("a/b", &register("v1", false, None)).await?;
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Done { rev: 1 });
    assert_eq!(kit.cmd::<Vec<String>>(&["ZRANGE", &key("prompts"), "0", "-1"]).await?, ["a/b"]);
    assert_eq!(kit.cmd::<Vec<String>>(&["ZRANGE", &key("activity"), "0", "-1"]).await?, ["a/b"]);
    assert!(!kit.cmd::<bool>(&["EXISTS", &key("active:a/b")]).await?, "registering activates nothing");
    Ok(())
}

#[tokio::test]
async fn a_commit_that_is_run_again_finds_its_own_id_and_writes_nothing_twice() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    let id = Ulid::generate().to_string();
    assert_eq!(kit.store.commit(&id, &loaded, &commit).await?, Committed::Done { rev: 5 });
    let before = kit.dump().await?;
    assert_eq!(kit.store.commit(&id, &loaded, &commit).await?, Committed::Done { rev: 5 });
    assert_same(&before, &kit.dump().await?, "the same commit again");

    // another receiver committed in between: it is still the same commit
    for n in 0..14 {
        kit.does("p", register(&format!("w{n}"), false, None)).await?;
    }
    let before = kit.dump().await?;
    assert!(matches!(kit.store.commit(&id, &loaded, &commit).await?, Committed::Done { .. }));
    assert_same(&before, &kit.dump().await?, "the same commit, later");
    Ok(())
}

#[tokio::test]
async fn whatever_moves_between_load_and_commit_refuses_it() -> Result<()> {
    let kit = Kit::start()?;
    let (active, routing, paused) = (key("active:p"), key("routing:p"), key("paused"));
    let state = key("state:p");
    kit.ship("p").await?;
    kit.cmd::<()>(&["HSET", &routing, "v2", "90", "v1", "10"]).await?;
    let commits: String = kit.cmd(&["HGET", &state, "commits"]).await?;
    let moves: [(&str, &[&str], &[&str]); 10] = [
        ("the revision", &["HINCRBY", &state, "rev", "1"], &["HINCRBY", &state, "rev", "-1"]),
        // a failover lost one commit, and another one took its number
        ("the last commit", &["HSET", &state, "commits", "01OTHER"], &["HSET", &state, "commits", &commits]),
        ("active", &["SET", &active, "v3"], &["SET", &active, "v2"]),
        ("active, gone", &["DEL", &active], &["SET", &active, "v2"]),
        ("active, to what begins alike", &["SET", &active, "v2 "], &["SET", &active, "v2"]),
        ("a percent", &["HSET", &routing, "v1", "11"], &["HSET", &routing, "v1", "10"]),
        ("a new field of routing", &["HSET", &routing, "v3", "0"], &["HDEL", &routing, "v3"]),
        ("a lost field of routing", &["HDEL", &routing, "v1"], &["HSET", &routing, "v1", "10"]),
        ("pause of the prompt", &["HSET", &paused, "p", "{}"], &["HDEL", &paused, "p"]),
        ("pause of all", &["HSET", &paused, "*", "{}"], &["HDEL", &paused, "*"]),
    ];
    for (what, change, back) in moves {
        let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
        kit.cmd::<()>(change).await?;
        let before = kit.dump().await?;
        assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Moved, "{what}");
        assert_same(&before, &kit.dump().await?, what);
        kit.cmd::<()>(back).await?;
    }
    // resuming changes it too: a decision made while paused may be different now
    kit.cmd::<()>(&["HSET", &paused, "p", "{}"]).await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    kit.cmd::<()>(&["DEL", &paused]).await?;
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Moved);
    // with everything restored, it commits
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Done { rev: 5 });
    Ok(())
}

#[tokio::test]
async fn a_prompt_that_appears_between_load_and_commit_refuses_it() -> Result<()> {
    let kit = Kit::start()?;
    let (loaded, commit) = kit.prepare("p", &register("v1", false, None)).await?;
    let (other, same) = kit.prepare("p", &register("v1", false, None)).await?;
    assert_eq!(kit.commit(&other, &same).await?, Committed::Done { rev: 1 });
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Moved);
    Ok(())
}

#[tokio::test]
async fn the_budget_is_spent_by_other_prompts_only_and_within_its_window_only() -> Result<()> {
    let mut kit = Kit::start()?;
    kit.policy.max_auto_rollbacks = 2;
    for name in ["p", "q", "r", "s"] {
        kit.ship(name).await?;
    }
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    kit.does("q", critical("q")).await?;
    let (other, more) = kit.prepare("r", &critical("r")).await?;
    assert!(matches!(kit.commit(&other, &more).await?, Committed::Done { .. }), "two are allowed");
    let before = kit.dump().await?;
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::BudgetSpent);
    assert_same(&before, &kit.dump().await?, "beyond the budget");
    assert_eq!(kit.load("p").await?.snapshot.recent_auto, 2);

    // its own recent rollback does not count as another prompt's
    kit.cmd::<()>(&["ZREM", &key("automatic"), "q"]).await?;
    kit.cmd::<()>(&["ZADD", &key("automatic"), &loaded.now.0.to_string(), "p"]).await?;
    assert_eq!(kit.load("p").await?.snapshot.recent_auto, 1);
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    assert!(matches!(kit.commit(&loaded, &commit).await?, Committed::Done { .. }));

    // earlier ones are forgotten
    kit.clock.advance(kit.policy.budget_window + Duration::from_secs(1));
    assert_eq!(kit.load("s").await?.snapshot.recent_auto, 0);
    kit.does("s", critical("s")).await?;
    assert_eq!(kit.cmd::<Vec<String>>(&["ZRANGE", &key("automatic"), "0", "-1"]).await?, ["s"]);
    Ok(())
}

#[tokio::test]
async fn a_person_needs_no_budget() -> Result<()> {
    let mut kit = Kit::start()?;
    kit.ship("p").await?;
    kit.policy.max_auto_rollbacks = 0;
    let rollback = Event::Rollback(prompt_rollback::decision::Rollback {
        target: None,
        from: None,
        reason: "tone".to_owned(),
        operator: Operator::recorded("mia"),
        force: false,
        gradual: None,
    });
    kit.does("p", rollback).await?;
    assert_eq!(kit.cmd::<String>(&["GET", &key("active:p")]).await?, "v1");
    assert!(!kit.cmd::<bool>(&["EXISTS", &key("automatic")]).await?);
    Ok(())
}

#[tokio::test]
async fn a_key_of_the_wrong_type_is_named_and_nothing_is_written() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let (loaded, mut commit) = kit.prepare("p", &critical("p")).await?;
    commit.content.push((version("v2"), Some("text".to_owned())));
    let incident = format!("incident:{}", commit.incidents[0].incident.id);
    let written = [
        "active:p",
        "routing:p",
        "state:p",
        "log:p",
        "paused",
        "automatic",
        "due",
        "activity",
        "incidents",
        "incidents:open",
        "phases",
        "content:p:v2",
    ];
    for name in written.into_iter().chain([incident.as_str()]) {
        broken_is_named(&kit, name, &loaded, &commit).await?;
    }
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Done { rev: 5 }, "with all repaired");

    let (loaded, new) = kit.prepare("new", &register("v1", true, None)).await?;
    broken_is_named(&kit, "prompts", &loaded, &new).await?;
    kit.does("p", register("v3", true, None)).await?;
    let (loaded, mut commit) = kit.prepare("p", &activate("v3")).await?;
    assert!(commit.incidents.iter().all(|write| !write.incident.phase.is_open()), "it ends the incident");
    commit.wakes.push(Wake {
        incident: commit.incidents[0].incident.id.clone(),
        at: loaded.now.plus(Duration::from_secs(86_400)),
    });
    for name in ["incidents:open", "incidents:closed", "phases", "due", "activity", &incident] {
        broken_is_named(&kit, name, &loaded, &commit).await?;
    }
    assert!(matches!(kit.commit(&loaded, &commit).await?, Committed::Done { .. }), "with all repaired");
    Ok(())
}

/// Each write before the last one that may fail is undone: also that of a closed incident that is reopened, with the
/// time that its record had left.
#[tokio::test]
async fn an_incident_that_could_not_be_reopened_is_as_it_was() -> Result<()> {
    let kit = Kit::start()?;
    for name in ["p", "q"] {
        kit.ship(name).await?;
        kit.does(name, paging(name)).await?;
    }
    let over = super::kit::alert("p", Severity::High, Action::Page, AlertStatus::Resolved);
    let id = kit.does("p", over).await?.incidents[0].incident.id.clone();
    kit.clock.advance(Policy::QUIET);
    kit.does("p", Event::Timer { incident: id.clone(), early: false }).await?;
    let (loaded, mut commit) = kit.prepare("p", &paging("p")).await?;
    assert_eq!(commit.incidents[0].was, Some(PhaseKind::Resolved));
    commit.content.push((version("v2"), Some("text".to_owned())));
    let record = format!("incident:{id}");
    for name in ["incidents", "incidents:open", "incidents:closed", "phases", "due", "content:p:v2", record.as_str()] {
        broken_is_named(&kit, name, &loaded, &commit).await?;
        let left: i64 = kit.cmd(&["PTTL", &key(&record)]).await?;
        assert!(left > 0, "{name}: the record still expires, in {left} ms");
    }
    // no wrong type, but a write fails
    let counter = ["HSET", &key("phases"), "awaiting_decision", "many"];
    kit.cmd::<()>(&counter).await?;
    let before = kit.dump().await?;
    let refused = kit.commit(&loaded, &commit).await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable { message, .. }) if message.contains("integer")),
        "{refused:?}"
    );
    assert_same(&before, &kit.dump().await?, "a count that is no number");
    kit.cmd::<()>(&["HSET", &key("phases"), "awaiting_decision", "1"]).await?;
    assert!(matches!(kit.commit(&loaded, &commit).await?, Committed::Done { .. }), "with all repaired");
    Ok(())
}

async fn broken_is_named(kit: &Kit, name: &str, loaded: &Loaded, commit: &Commit) -> Result<()> {
    kit.while_broken(name, async |broken| {
        let before = kit.dump().await?;
        match kit.commit(loaded, commit).await {
            Err(StoreError::Broken { key, .. }) => assert_eq!(key, broken),
            other => panic!("{broken}: {other:?}"),
        }
        assert_same(&before, &kit.dump().await?, broken);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_record_of_a_newer_receiver_is_left_alone() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    kit.cmd::<()>(&["HSET", &key("state:p"), "schema", "99"]).await?;
    let before = kit.dump().await?;
    let refused = kit.commit(&loaded, &commit).await;
    assert!(matches!(&refused, Err(StoreError::NewerRecord { found }) if found == "99"), "{refused:?}");
    assert_same(&before, &kit.dump().await?, "a newer record");
    let refused = kit.load("p").await;
    assert!(matches!(&refused, Err(StoreError::NewerRecord { found }) if found == "99"), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn the_log_does_not_grow_without_bound() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let fill = "for i = 1, 12000 do redis.call('XADD', KEYS[1], '*', 'event', 'external') end";
    kit.cmd::<()>(&["EVAL", fill, "1", &key("log:p")]).await?;
    kit.does("p", critical("p")).await?;
    let length: usize = kit.cmd(&["XLEN", &key("log:p")]).await?;
    // trimmed in whole nodes of 100 entries
    assert!((10_000..10_200).contains(&length), "{length}");
    let newest: Vec<(String, HashMap<String, String>)> =
        kit.cmd(&["XREVRANGE", &key("log:p"), "+", "-", "COUNT", "1"]).await?;
    assert_eq!(newest[0].1["event"], "rollback");
    Ok(())
}

#[tokio::test]
async fn a_wake_up_only_moves_earlier() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let (loaded, mut commit) = kit.prepare("p", &paging("p")).await?;
    let incident = commit.incidents[0].incident.id.clone();
    let member = format!("{incident}|act");
    let commits: String = kit.cmd(&["HGET", &key("state:p"), "commits"]).await?;
    for (given, kept) in [(2_000.0, 1_000.0), (500.0, 500.0)] {
        kit.cmd::<()>(&["ZADD", &key("due"), "1000", &member]).await?;
        commit.wakes =
            vec![Wake { incident: incident.clone(), at: prompt_rollback::decision::Timestamp(given as i64) }];
        kit.cmd::<()>(&["HSET", &key("state:p"), "rev", "4", "commits", &commits]).await?;
        assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Done { rev: 5 });
        assert_eq!(kit.cmd::<f64>(&["ZSCORE", &key("due"), &member]).await?, kept);
    }
    Ok(())
}

#[tokio::test]
async fn content_is_kept_and_dropped_with_its_version() -> Result<()> {
    let kit = Kit::start()?;
    kit.does("p", register("v1", true, Some("Say \"hello\".\r\nÜmlaut\0"))).await?;
    let stored: String = kit.cmd(&["GET", &key("content:p:v1")]).await?;
    assert_eq!(stored, "Say \"hello\".\r\nÜmlaut\0");
    let (loaded, mut commit) = kit.prepare("p", &activate("v1")).await?;
    commit.content = vec![(version("v1"), None)];
    assert!(matches!(kit.commit(&loaded, &commit).await?, Committed::Done { .. }));
    assert!(!kit.cmd::<bool>(&["EXISTS", &key("content:p:v1")]).await?);
    Ok(())
}

#[tokio::test]
async fn a_script_that_redis_has_forgotten_is_sent_again() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    kit.cmd::<()>(&["SCRIPT", "FLUSH"]).await?;
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Done { rev: 5 });
    Ok(())
}
