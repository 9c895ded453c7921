//! No wait that is read from Redis is longer than intended: a new master's clock may be behind by an hour, and anyone
//! may have used EXPIRE, PERSIST or ZADD.

use std::time::Duration;

use anyhow::{Result, ensure};
use prompt_rollback::decision::alert::AlertStatus;
use prompt_rollback::decision::{Action, IncidentId, Severity, Timestamp};
use prompt_rollback::store::schedule::{
    End, Finished, LEASE, LONGEST_HOLD, Shows, Subscription, Target, Work, WorkItem,
};
use prompt_rollback::store::{Committed, StoreError};

use super::kit::{Kit, alert, critical, key, paging};
use crate::common::assert_same;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const SLACK: Subscription = Subscription { target: Target::FIRST, shows: Shows::Records };

/// Commands that make a wait longer than intended.
const SPOILT: [&[&str]; 4] =
    [&["PEXPIRE", "KEY", "3600000"], &["PERSIST", "KEY"], &["SET", "KEY", "x"], &["SET", "KEY", "1", "PX", "3600000"]];

impl Kit {
    async fn spoil(&self, command: &[&str], name: &str) -> Result<()> {
        let name = key(name);
        let command: Vec<&str> = command.iter().map(|word| if *word == "KEY" { &name } else { *word }).collect();
        self.cmd::<redis::Value>(&command).await.map(drop)
    }

    async fn waits_at(&self, set: &str, member: &str) -> Result<Option<i64>> {
        Ok(self.cmd::<Option<f64>>(&["ZSCORE", &key(set), member]).await?.map(|score| score as i64))
    }

    /// A kit that notifies Slack.
    async fn shipped() -> Result<Self> {
        let kit = Self::start()?;
        let kit = Self { store: kit.store.notifying([SLACK]), ..kit };
        kit.ship("p").await?;
        Ok(kit)
    }

    /// As [`Kit::shipped`], with an incident to be shown.
    async fn announcing() -> Result<(Self, WorkItem, String)> {
        let kit = Self::shipped().await?;
        let item = WorkItem::Incident(kit.does("p", paging("p")).await?.incidents[0].incident.id.clone());
        let member = Work::Notify(Target::FIRST).member(&item);
        Ok((kit, item, member))
    }

    async fn lag(&self) -> Result<u64> {
        Ok(self.store.notification_lag(Target::FIRST).await?.as_secs())
    }
}

#[tokio::test]
async fn a_slot_is_never_further_away_than_the_rate_limit() -> Result<()> {
    let kit = Kit::start()?;
    for command in SPOILT {
        assert_eq!(kit.store.acquire("C1", SECOND).await?, None);
        kit.spoil(command, "pace:C1").await?;
        let wait = kit.store.acquire("C1", SECOND).await?.expect("the slot is taken");
        ensure!(wait <= SECOND, "{command:?}: {wait:?}");
        let left: i64 = kit.cmd(&["PTTL", &key("pace:C1")]).await?;
        ensure!((1..=1_000).contains(&left), "{command:?}: shortened for all replicas, {left} ms");
        kit.cmd::<()>(&["DEL", &key("pace:C1")]).await?;
    }
    kit.while_broken("pace:C1", async |_| {
        ensure!(kit.store.acquire("C1", SECOND).await?.is_some_and(|wait| wait <= SECOND));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_hold_is_never_longer_than_slack_may_ask_for() -> Result<()> {
    let kit = Kit::start()?;
    kit.store.hold("chat.update", 20 * SECOND).await?;
    assert_eq!(kit.store.acquire("C1", SECOND).await?, None, "it holds nothing else");
    for wait in
        [kit.store.held("chat.update").await?, kit.store.acquire_unless_held("chat.update", "edit:C1", SECOND).await?]
    {
        let wait = wait.expect("on hold");
        ensure!(wait > 18 * SECOND && wait <= 20 * SECOND, "{wait:?}");
    }
    ensure!(!kit.cmd::<bool>(&["EXISTS", &key("pace:edit:C1")]).await?, "no slot was taken");
    kit.spoil(SPOILT[0], "pace:chat.update").await?;
    let wait = kit.store.held("chat.update").await?.expect("on hold");
    ensure!(wait > 18 * SECOND && wait <= 20 * SECOND, "it was to last 20 s: {wait:?}");
    kit.store.hold("chat.update", HOUR).await?;
    let wait = kit.store.held("chat.update").await?.expect("on hold");
    ensure!(wait <= LONGEST_HOLD && wait > LONGEST_HOLD - 2 * SECOND, "{wait:?}");
    kit.spoil(SPOILT[1], "pace:chat.update").await?;
    let wait = kit.store.held("chat.update").await?.expect("on hold");
    ensure!(wait <= LONGEST_HOLD, "{wait:?}");
    kit.cmd::<()>(&["DEL", &key("pace:chat.update")]).await?;
    assert_eq!(kit.store.held("chat.update").await?, None);
    assert_eq!(kit.store.acquire_unless_held("chat.update", "edit:C1", SECOND).await?, None);
    ensure!(kit.store.acquire_unless_held("chat.update", "edit:C1", SECOND).await?.is_some(), "the slot is taken");
    Ok(())
}

#[tokio::test]
async fn an_action_done_once_may_repeat_after_its_time_whatever_its_expiry() -> Result<()> {
    let kit = Kit::start()?;
    let short = Duration::from_millis(200);
    for command in SPOILT {
        ensure!(kit.store.claim_once("it", short).await?);
        kit.spoil(command, "once:it").await?;
        ensure!(!kit.store.claim_once("it", short).await?, "{command:?}");
        let left: i64 = kit.cmd(&["PTTL", &key("once:it")]).await?;
        ensure!((1..=200).contains(&left), "{command:?}: {left} ms");
        kit.store.release_once("it").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_lease_ends_in_time_whatever_the_clock_does() -> Result<()> {
    let kit = Kit::start()?;
    let item = WorkItem::Incident(IncidentId("01K".to_owned()));
    kit.store.wake_by(Work::Incident, &item, Timestamp(0)).await?;
    let claimed = kit.store.claim(Work::Incident, 1, LEASE, "dies").await?;
    assert_eq!(claimed.claims.len(), 1);
    kit.clock.go_back(HOUR);
    let claimed = kit.store.claim(Work::Incident, 1, LEASE, "other").await?;
    ensure!(claimed.claims.is_empty() && claimed.next.is_some_and(|next| next <= LEASE), "{claimed:?}");
    kit.clock.advance(LEASE);
    assert_eq!(kit.store.claim(Work::Incident, 1, LEASE, "other").await?.claims.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_clock_set_back_makes_waits_of_minutes_due_but_not_waits_of_days() -> Result<()> {
    let kit = Kit::start()?;
    let soon = kit.now().await?.plus(60 * SECOND).0.to_string();
    let days = kit.now().await?.plus(72 * HOUR).0.to_string();
    let waits = [
        ("due", "01K1|act"),
        ("due:mass", "01K1|mass"),
        ("due:slack", "01K1|slack"),
        ("due:slack", "@p|slack"),
        ("due:page", "01K1|page"),
        ("due:page", "drill:01K2|page"),
        ("soaks", "@p|soak"),
        ("due", "@p|act"),
        ("due:canary", "@p|canary"),
        ("due", "01K3|mass"), // where earlier receivers put it
    ];
    let stays = [("due:archive", "@p|archive"), ("due:report", "weekly|report")];
    for (set, member) in waits {
        kit.cmd::<()>(&["ZADD", &key(set), &soon, member]).await?;
    }
    for (set, member) in stays {
        kit.cmd::<()>(&["ZADD", &key(set), &days, member]).await?;
    }
    for _ in 0..3 {
        ensure!(kit.store.claim(Work::Incident, 10, LEASE, "a").await?.claims.is_empty(), "nothing is due yet");
    }
    kit.clock.go_back(HOUR);
    kit.store.claim(Work::Report, 1, LEASE, "a").await?; // a claim of any kind notices
    let now = kit.now().await?.0;
    for (set, member) in waits {
        let at = kit.waits_at(set, member).await?.expect("it waits");
        ensure!(at <= now, "{member} waits for {} s", (at - now) / 1_000);
    }
    for (set, member) in stays {
        assert_eq!(kit.waits_at(set, member).await?.map(|at| at.to_string()), Some(days.clone()), "{member}");
    }
    Ok(())
}

#[tokio::test]
async fn a_clock_that_goes_back_keeps_no_rollback_in_the_budget_for_longer() -> Result<()> {
    let kit = Kit::start()?;
    kit.store.claim(Work::Report, 1, LEASE, "a").await?;
    let (now, before) = (kit.now().await?, kit.now().await?.minus(60 * SECOND).0.to_string());
    for (prompt, at) in [("p", &now.0.to_string()), ("q", &before)] {
        kit.cmd::<()>(&["ZADD", &key("automatic"), at, prompt]).await?;
    }
    kit.clock.go_back(HOUR);
    kit.store.claim(Work::Report, 1, LEASE, "a").await?;
    let now = kit.now().await?;
    let counted = kit.store.automatic_since(now.minus(HOUR)).await?;
    assert_eq!(counted.len(), 2, "both still count");
    ensure!(counted.iter().all(|(_, at)| *at <= now), "{now:?}: {counted:?}");
    Ok(())
}

#[tokio::test]
async fn very_many_wake_ups_are_hurried() -> Result<()> {
    let kit = Kit::start()?;
    let fill = "for i = 1, 2500 do redis.call('ZADD', KEYS[1], ARGV[1] + i * 3, '@p' .. i .. '|act', ARGV[1] + i * 3 + 1, 'i' .. i .. '|act') end";
    let ahead = kit.now().await?.plus(HOUR).0.to_string();
    kit.cmd::<()>(&["EVAL", fill, "1", &key("due"), &ahead]).await?;
    assert_eq!(kit.store.hurry().await?, 5_000);
    let now = kit.now().await?.0.to_string();
    assert_eq!(kit.cmd::<usize>(&["ZCOUNT", &key("due"), "-inf", &now]).await?, 5_000);
    assert_eq!(kit.store.hurry().await?, 0);
    Ok(())
}

#[tokio::test]
async fn what_slack_is_to_be_told_is_never_far_off_nor_lost() -> Result<()> {
    let (kit, item, member) = Kit::announcing().await?;
    let far = kit.now().await?.plus(HOUR).0.to_string();
    let due = key("due:slack");
    for spoil in [&["ZADD", &due, &far, &member][..], &["ZREM", &due, &member], &["DEL", &due]] {
        kit.cmd::<()>(spoil).await?;
        let claims = kit.store.claim(Work::Notify(Target::FIRST), 1, LEASE, "a").await?.claims;
        assert_eq!(claims.first().map(|claim| &claim.item), Some(&item), "{spoil:?}");
        let end = End::Unsent { next: kit.now().await?.plus(30 * SECOND), since: None };
        assert_eq!(kit.store.finish(&claims[0], None, end).await?, Finished::Done);
        ensure!(
            kit.store.claim(Work::Notify(Target::FIRST), 1, LEASE, "a").await?.claims.is_empty(),
            "a back-off is one"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_lag_counts_from_when_there_was_something_to_say() -> Result<()> {
    let (kit, _, member) = Kit::announcing().await?;
    let claim = async || -> Result<_> {
        let claimed = kit.store.claim(Work::Notify(Target::FIRST), 1, LEASE, "a").await?;
        Ok((claimed.claims.into_iter().next().expect("due"), claimed.now))
    };
    kit.clock.advance(100 * SECOND);
    ensure!(kit.lag().await? >= 100);
    // postponed repeatedly
    for tries in 1..5 {
        let (claim, now) = claim().await?;
        let next = now.plus(30 * SECOND);
        kit.store.finish(&claim, None, End::Unsent { next, since: None }).await?;
        kit.clock.advance(30 * SECOND);
        ensure!(kit.lag().await? >= 100 + 30 * tries, "{}", kit.lag().await?);
    }
    // another notification does not make it younger
    kit.does("p", critical("p")).await?;
    ensure!(kit.lag().await? >= 220);
    // the older part was shown
    let (first, now) = claim().await?;
    kit.store.finish(&first, None, End::Unsent { next: now, since: Some(Timestamp(now.0 - 50_000)) }).await?;
    ensure!((50..60).contains(&kit.lag().await?), "{}", kit.lag().await?);
    // everything was shown except what came meanwhile
    let (second, now) = claim().await?;
    kit.clock.advance(10 * SECOND);
    kit.does("p", alert("p", Severity::High, Action::Page, AlertStatus::Resolved)).await?;
    kit.store.finish(&second, None, End::Sent(now)).await?;
    ensure!((10..20).contains(&kit.lag().await?), "{}", kit.lag().await?);
    let (third, now) = claim().await?;
    kit.store.finish(&third, None, End::Sent(now)).await?;
    assert_eq!(
        (kit.store.notification_lag(Target::FIRST).await?, kit.waits_at("unsent", &member).await?),
        (Duration::ZERO, None)
    );
    kit.clock.advance(HOUR);
    assert_eq!(kit.store.notification_lag(Target::FIRST).await?, Duration::ZERO, "nothing is left to say");
    Ok(())
}

#[tokio::test]
async fn dead_letters_are_counted_apart_and_hide_no_lag_of_others() -> Result<()> {
    let (kit, item, member) = Kit::announcing().await?;
    let claim = async || -> Result<_> {
        Ok(kit.store.claim(Work::Notify(Target::FIRST), 1, LEASE, "a").await?.claims.into_iter().next())
    };
    for tries in 1..=10 {
        ensure!(kit.store.counts().await?.1 == 0 && kit.lag().await? >= (tries - 1) * 3_600, "tried {tries} times");
        let claim = claim().await?.expect("due");
        kit.store.finish(&claim, None, End::Failed).await?;
        kit.clock.advance(HOUR);
    }
    ensure!(kit.waits_at("parked", &member).await?.is_some(), "given up");
    assert_eq!((kit.store.counts().await?.1, kit.lag().await?), (1, 0));
    ensure!(claim().await?.is_none(), "it stays a dead letter");
    kit.ship("q").await?;
    kit.does("q", paging("q")).await?;
    kit.clock.advance(100 * SECOND);
    ensure!((100..110).contains(&kit.lag().await?), "that of the other: {}", kit.lag().await?);
    let other = claim().await?.expect("due");
    assert_ne!(other.item, item);
    kit.store.finish(&other, None, End::Sent(kit.now().await?)).await?;

    // another notification wakes it; once it is shown, it is no longer a dead letter
    kit.does("p", critical("p")).await?;
    kit.clock.advance(100 * SECOND);
    ensure!((100..110).contains(&kit.lag().await?), "from the news on: {}", kit.lag().await?);
    let claim = claim().await?.expect("due");
    assert_eq!(claim.item, item);
    kit.store.finish(&claim, None, End::Sent(kit.now().await?)).await?;
    assert_eq!((kit.store.counts().await?.1, kit.lag().await?), (0, 0));
    Ok(())
}

#[tokio::test]
async fn however_many_dead_letters_there_are_what_got_lost_is_found_again() -> Result<()> {
    let (kit, item, member) = Kit::announcing().await?;
    let set = async |script: &str| kit.cmd::<()>(&["EVAL", script, "2", &key("parked"), &key("unsent")]).await;
    // given up an hour ago, by a receiver that left dead letters among the unsent
    set("for i = 1, 100 do redis.call('ZADD', KEYS[1], 1, i .. '|slack') redis.call('ZADD', KEYS[2], 1, i .. '|slack') end")
        .await?;
    let soon = kit.now().await?.plus(30 * SECOND).0;
    kit.cmd::<()>(&["ZREM", &key("due:slack"), &member]).await?;
    let backlog = format!(
        "for i = 101, 350 do redis.call('ZADD', KEYS[1], {soon}, i .. '|slack') redis.call('ZADD', KEYS[2], 1, i .. '|slack') end"
    );
    kit.cmd::<()>(&["EVAL", &backlog, "2", &key("due:slack"), &key("unsent")]).await?;
    crate::common::eventually("it is due again", crate::common::SOON, async || {
        let claims = kit.store.claim(Work::Notify(Target::FIRST), 1_000, LEASE, "a").await.ok()?.claims;
        claims.iter().any(|claim| claim.item == item).then_some(())
    })
    .await
}

#[tokio::test]
async fn what_slack_is_not_configured_for_does_not_lag() -> Result<()> {
    let (kit, ..) = Kit::announcing().await?;
    kit.clock.advance(HOUR);
    ensure!(kit.lag().await? >= 3_600);
    let silent = Kit { store: kit.store.notifying([]), ..kit };
    assert_eq!(silent.store.notification_lag(Target::FIRST).await?, Duration::ZERO);
    Ok(())
}

#[tokio::test]
async fn after_the_clock_went_back_the_lag_counts_on_from_then() -> Result<()> {
    let (kit, ..) = Kit::announcing().await?;
    kit.clock.go_back(HOUR);
    kit.store.claim(Work::Notify(Target::FIRST), 0, LEASE, "a").await?;
    kit.clock.advance(90 * SECOND);
    ensure!((90..100).contains(&kit.lag().await?), "{}", kit.lag().await?);
    Ok(())
}

#[tokio::test]
async fn a_commit_that_finds_the_list_of_the_unsent_broken_changes_nothing() -> Result<()> {
    let kit = Kit::shipped().await?;
    let (loaded, commit) = kit.prepare("p", &critical("p")).await?;
    kit.while_broken("unsent", async |broken| {
        let before = kit.dump().await?;
        match kit.commit(&loaded, &commit).await {
            Err(StoreError::Broken { key, .. }) => assert_eq!(key, broken),
            other => panic!("{other:?}"),
        }
        assert_same(&before, &kit.dump().await?, broken);
        Ok(())
    })
    .await?;
    ensure!(matches!(kit.commit(&loaded, &commit).await?, Committed::Done { .. }));
    Ok(())
}
