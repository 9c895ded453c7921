//! `load.lua`.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback::decision::decide::Active;
use prompt_rollback::decision::{Event, IncidentId, Needs, Operator, PromptState};
use prompt_rollback::store::{Committed, StoreError};

use super::kit::{Kit, activate, critical, key, prompt, register, version};
use crate::common::assert_same;

#[tokio::test]
async fn of_an_unknown_prompt_everything_is_absent() -> Result<()> {
    let kit = Kit::start()?;
    let id = IncidentId("01KAHJ3Y3W8Q0000000000000A".to_owned());
    let needs = Needs { incident: Some(&id), content: Some(&version("v1")) };
    let loaded = kit.store.load(&prompt("p"), kit.policy.budget_window, needs).await?;
    let snapshot = loaded.snapshot;
    assert_eq!(snapshot.active, Active::Absent);
    assert_eq!(snapshot.state, PromptState::default());
    assert!(snapshot.routing.is_empty() && snapshot.paused.is_none() && snapshot.incident.is_none());
    assert!(snapshot.content.is_none() && snapshot.recent_auto == 0);
    let [seconds, _]: [i64; 2] = kit.cmd::<Vec<i64>>(&["TIME"]).await?.try_into().expect("two numbers");
    assert!((seconds - loaded.now.0 / 1_000).abs() <= 2, "{seconds} {:?}", loaded.now);
    assert!(kit.dump().await?.is_empty(), "loading writes nothing");
    Ok(())
}

#[tokio::test]
async fn all_of_a_prompt_comes_in_one_load() -> Result<()> {
    let kit = Kit::start()?;
    kit.does("p", register("v1", true, Some("Be kind."))).await?;
    kit.does("p", activate("v1")).await?;
    kit.does("p", register("v2", false, None)).await?;
    kit.does("p", activate("v2")).await?;
    let id = kit.does("p", critical("p")).await?.incidents[0].incident.id.clone();
    kit.cmd::<()>(&["HSET", &key("routing:p"), "v1", "100"]).await?;
    kit.store.pause(Some(&prompt("p")), &Operator::recorded("mia"), "release night").await?;
    let needs = Needs { incident: Some(&id), content: Some(&version("v1")) };
    let snapshot = kit.store.load(&prompt("p"), kit.policy.budget_window, needs).await?.snapshot;
    assert_eq!(snapshot.active, Active::Version(version("v1")));
    assert_eq!(snapshot.routing, [("v1".to_owned(), "100".to_owned())]);
    assert_eq!(snapshot.state.versions.len(), 2);
    assert_eq!(snapshot.paused.as_deref(), Some("by mia: release night"));
    assert_eq!(snapshot.incident.map(|i| i.id), Some(id));
    assert_eq!(snapshot.content.as_deref(), Some("Be kind."));
    assert_eq!(snapshot.recent_auto, 0, "its own rollback is not counted");
    assert_eq!(kit.load("q").await?.snapshot.recent_auto, 1);
    assert_eq!(kit.load("q").await?.snapshot.paused, None);
    kit.store.pause(None, &Operator::recorded("bo"), "").await?;
    assert_eq!(kit.load("q").await?.snapshot.paused.as_deref(), Some("by bo"));
    Ok(())
}

#[tokio::test]
async fn a_key_of_the_wrong_type_is_named() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let id = IncidentId("01KAHJ3Y3W8Q0000000000000A".to_owned());
    let (incident, v1) = (format!("incident:{id}"), version("v1"));
    let needs = Needs { incident: Some(&id), content: Some(&v1) };
    for name in ["active:p", "routing:p", "state:p", "paused", "automatic", incident.as_str(), "content:p:v1"] {
        kit.while_broken(name, async |broken| {
            match kit.store.load(&prompt("p"), kit.policy.budget_window, needs).await {
                Err(StoreError::Broken { key, .. }) => assert_eq!(key, broken),
                other => panic!("{broken}: {other:?}"),
            }
            Ok(())
        })
        .await?;
    }
    assert!(kit.store.load(&prompt("p"), kit.policy.budget_window, needs).await.is_ok(), "with all repaired");
    Ok(())
}

#[tokio::test]
async fn a_damaged_record_is_named() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    for (field, value) in [("json", "{"), ("json", r#"{"versions":[{}]}"#), ("json", "\u{1}")] {
        kit.cmd::<()>(&["HSET", &key("state:p"), field, value]).await?;
        match kit.load("p").await {
            Err(StoreError::Broken { key: named, .. }) => assert_eq!(named, key("state:p")),
            other => panic!("{value}: {other:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_version_is_read_as_such_and_compared_byte_by_byte() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let mut connection = kit.redis.connection().await?;
    for foreign in [&b"two words"[..], b"", b"\xff\xfe\x00", &[b'x'; 20_000]] {
        redis::cmd("SET").arg(key("active:p")).arg(foreign).exec_async(&mut connection).await?;
        let (loaded, commit) = kit.prepare("p", &Event::CheckDrift).await?;
        let Active::Foreign(text) = &loaded.snapshot.active else { panic!("{:?}", loaded.snapshot.active) };
        assert!(text.chars().count() <= 64, "shortened for people");
        // someone sets other bytes that look alike for people
        redis::cmd("APPEND").arg(key("active:p")).arg(b"\xff").exec_async(&mut connection).await?;
        let before = kit.dump().await?;
        assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Moved);
        assert_same(&before, &kit.dump().await?, "a foreign value");
        kit.cmd::<()>(&["SET", &key("active:p"), "v2"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn time_is_that_of_redis_and_tests_move_it_ahead() -> Result<()> {
    let kit = Kit::start()?;
    let before = kit.now().await?;
    kit.clock.advance(Duration::from_secs(3_600));
    let ahead = kit.now().await?.since(before);
    assert!((3_600..3_610).contains(&ahead.as_secs()), "{ahead:?}");
    Ok(())
}
