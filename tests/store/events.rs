//! Events of prompts: stored by the commit that causes them, for targets that show events.

use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback::store::schedule::{End, Finished, LEASE, Shows, Subscription, Target, Work};
use prompt_rollback::store::{Committed, StoreError};
use ulid::Ulid;

use super::kit::{Kit, activate, critical, key, paging, prompt};
use crate::common::assert_same;

impl Kit {
    /// A target for events, and the first target.
    async fn with_events() -> Result<(Self, Work)> {
        let kit = Self::start()?;
        let audit = Target::named("webhook.audit");
        let targets = [
            Subscription { target: Target::FIRST, shows: Shows::Records },
            Subscription { target: audit, shows: Shows::Events },
        ];
        let kit = Self { store: kit.store.notifying(targets), ..kit };
        kit.ship("p").await?;
        Ok((kit, Work::Notify(audit)))
    }

    /// A commit with these events.
    async fn makes(&self, events: &[&str]) -> Result<()> {
        let version = if self.cmd::<String>(&["GET", &key("active:p")]).await? == "v1" { "v2" } else { "v1" };
        let (loaded, commit) = self.prepare("p", &activate(version)).await?;
        let events: Vec<String> = events.iter().map(|event| (*event).to_owned()).collect();
        let id = Ulid::generate().to_string();
        let done = self.store.commit_once(&id, &loaded, &commit, None, &events).await?;
        ensure!(matches!(done, Committed::Done { .. }), "{done:?}");
        Ok(())
    }

    async fn texts(&self, after: i64) -> Result<Vec<String>> {
        let events = self.store.events(&prompt("p"), after, 10).await?;
        Ok(events.items.into_iter().map(|(_, event)| event).collect())
    }
}

#[tokio::test]
async fn events_are_kept_in_the_order_of_the_commits_whatever_the_clock_does() -> Result<()> {
    let (kit, _) = Kit::with_events().await?;
    kit.makes(&["a", "b"]).await?;
    kit.clock.go_back(Duration::from_secs(3_600));
    kit.makes(&["c"]).await?;
    kit.clock.jump(Duration::from_secs(7_200));
    kit.makes(&["d"]).await?;
    assert_eq!(kit.texts(0).await?, ["a", "b", "c", "d"]);
    let places: Vec<i64> = kit.store.events(&prompt("p"), 0, 10).await?.items.into_iter().map(|(at, _)| at).collect();
    assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
    assert_eq!(kit.texts(places[1]).await?, ["c", "d"]);
    assert!(kit.cmd::<i64>(&["PTTL", &key("events:p")]).await? > 0, "they expire");
    Ok(())
}

#[tokio::test]
async fn a_commit_that_is_run_again_makes_no_event_twice() -> Result<()> {
    let (kit, _) = Kit::with_events().await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    let id = Ulid::generate().to_string();
    let events = ["a".to_owned(), "b".to_owned()];
    for _ in 0..2 {
        let done = kit.store.commit_once(&id, &loaded, &commit, None, &events).await?;
        assert!(matches!(done, Committed::Done { .. }), "{done:?}");
    }
    assert_eq!(kit.texts(0).await?, ["a", "b"]);
    Ok(())
}

#[tokio::test]
async fn the_latest_thousand_events_are_kept_and_a_gap_is_said() -> Result<()> {
    let (kit, _) = Kit::with_events().await?;
    let many: Vec<String> = (0..1_200).map(|n| format!("event {n}")).collect();
    for chunk in many.chunks(400) {
        kit.makes(&chunk.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    }
    assert_eq!(kit.cmd::<usize>(&["ZCARD", &key("events:p")]).await?, 1_000);
    let found = kit.store.events(&prompt("p"), 0, 1).await?;
    assert_eq!((found.items[0].1.as_str(), found.incomplete), ("event 200", true));
    let behind = kit.store.events(&prompt("p"), found.items[0].0, 1).await?;
    assert_eq!((behind.items[0].1.as_str(), behind.incomplete), ("event 201", false));
    Ok(())
}

#[tokio::test]
async fn where_no_pending_event_was_dropped_no_gap_is_said() -> Result<()> {
    let (kit, _) = Kit::with_events().await?;
    let many: Vec<String> = (0..1_000).map(|n| format!("event {n}")).collect();
    kit.makes(&many.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let all = kit.store.events(&prompt("p"), 0, 2).await?;
    assert_eq!((all.items[0].1.as_str(), all.incomplete), ("event 0", false), "all are kept");
    kit.makes(&["a", "b"]).await?;
    let [first, second] = [all.items[0].0, all.items[1].0];
    for (shown, incomplete) in [(0, true), (first, true), (second, false)] {
        let left = kit.store.events(&prompt("p"), shown, 1).await?;
        assert_eq!((left.items[0].1.as_str(), left.incomplete), ("event 2", incomplete), "after {shown}");
    }
    Ok(())
}

#[tokio::test]
async fn each_target_is_woken_for_what_it_shows_and_has_its_own_sets() -> Result<()> {
    let (kit, audit) = Kit::with_events().await?;
    let members = async |set: &str| kit.cmd::<Vec<String>>(&["ZRANGE", &key(set), "0", "-1"]).await;
    assert!(members("due:webhook.audit").await?.is_empty(), "commits without events wake no target");
    let (loaded, commit) = kit.prepare("p", &paging("p")).await?;
    let id = &commit.incidents[0].incident.id;
    let _ = kit.store.commit_once(&Ulid::generate().to_string(), &loaded, &commit, None, &["a".to_owned()]).await?;
    assert_eq!(members("due:slack").await?, [format!("{id}|slack")]);
    assert_eq!(members("unsent").await?, [format!("{id}|slack")]);
    assert_eq!(members("due:webhook.audit").await?, ["@p|webhook.audit"]);
    assert_eq!(members("unsent:webhook.audit").await?, ["@p|webhook.audit"]);
    let lags = kit.store.notification_lags().await?;
    assert_eq!(lags.iter().map(|(target, _)| target.name()).collect::<Vec<_>>(), ["slack", "webhook.audit"]);

    let claims = kit.store.claim(audit, 10, LEASE, "a").await?.claims;
    assert_eq!(claims[0].prompt(), Some(&prompt("p")));
    assert_eq!(kit.store.unsent_since(&claims[0]).await?, Some(loaded.now));
    assert!(kit.store.note(&claims[0], &[("shown", "7")]).await?);
    assert_eq!(kit.store.progress(&claims[0]).await?.get("shown"), Some("7"));
    assert!(!kit.cmd::<bool>(&["EXISTS", &key("sync:@p")]).await?, "that is the first target's");
    let end = End::Sent(loaded.now.plus(Duration::from_secs(1)));
    assert_eq!(kit.store.finish(&claims[0], None, end).await?, Finished::Done);
    assert!(members("unsent:webhook.audit").await?.is_empty());
    assert_eq!(members("unsent").await?.len(), 1, "the other target has shown nothing");
    Ok(())
}

/// No worker claims for a target that is no longer configured.
#[tokio::test]
async fn what_is_left_of_a_target_expires_and_the_sets_of_the_first_one_stay() -> Result<()> {
    let (kit, audit) = Kit::with_events().await?;
    let (loaded, commit) = kit.prepare("p", &paging("p")).await?;
    let _ = kit.store.commit_once(&Ulid::generate().to_string(), &loaded, &commit, None, &["a".to_owned()]).await?;
    for work in [audit, Work::Notify(Target::FIRST)] {
        kit.store.claim(work, 0, LEASE, "a").await?;
    }
    for set in ["due:webhook.audit", "unsent:webhook.audit"] {
        assert!(kit.cmd::<i64>(&["PTTL", &key(set)]).await? > 0, "{set}");
    }
    for set in ["due:slack", "unsent"] {
        assert_eq!(kit.cmd::<i64>(&["PTTL", &key(set)]).await?, -1, "{set}: an earlier receiver may continue it");
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_key_of_events_or_targets_is_named_and_nothing_is_written() -> Result<()> {
    let (kit, _) = Kit::with_events().await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    for name in ["events:p", "due:webhook.audit", "unsent:webhook.audit", "due:slack", "unsent"] {
        kit.while_broken(name, async |broken| {
            let before = kit.dump().await?;
            let id = Ulid::generate().to_string();
            match kit.store.commit_once(&id, &loaded, &commit, None, &["c".to_owned()]).await {
                Err(StoreError::Broken { key, .. }) => assert_eq!(key, broken),
                other => panic!("{broken}: {other:?}"),
            }
            assert_same(&before, &kit.dump().await?, broken);
            Ok(())
        })
        .await?;
    }
    Ok(())
}
