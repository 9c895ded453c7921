//! `claim.lua` and `finish.lua`: no wake-up is lost, and none is processed twice at once.

use std::time::{Duration, Instant};

use anyhow::Result;
use prompt_rollback::decision::{IncidentId, Timestamp};
use prompt_rollback::store::schedule::{Claim, End, Finished, Target, Work, WorkItem};

use super::kit::{Kit, critical, key, prompt, register};

const LEASE: Duration = Duration::from_secs(30);
const DONE: End = End::Done { rev: None, next: None };

fn item(n: u32) -> WorkItem {
    WorkItem::Incident(IncidentId(format!("01KAHJ3Y3W8Q{n:014}")))
}

fn items(claims: &[Claim]) -> Vec<String> {
    claims.iter().map(|claim| claim.item.to_string()).collect()
}

impl Kit {
    /// Schedules incident `n`, `ahead` ms from now.
    async fn due(&self, n: u32, ahead: i64) -> Result<()> {
        let at = (self.now().await?.0 + ahead).to_string();
        self.cmd(&["ZADD", &key("due"), "LT", &at, &Work::Incident.member(&item(n))]).await
    }

    async fn claims(&self, token: &str) -> Result<Vec<Claim>> {
        Ok(self.store.claim(Work::Incident, 100, LEASE, token).await?.claims)
    }

    async fn claim(&self, token: &str) -> Result<Option<Claim>> {
        Ok(self.claims(token).await?.into_iter().next())
    }

    async fn score(&self, set: &str, n: u32) -> Result<Option<i64>> {
        self.score_of(set, &Work::Incident.member(&item(n))).await
    }

    async fn score_of(&self, set: &str, member: &str) -> Result<Option<i64>> {
        let score: Option<f64> = self.cmd(&["ZSCORE", &key(set), member]).await?;
        Ok(score.map(|score| score as i64))
    }

    /// No claim is left.
    async fn assert_idle(&self) -> Result<()> {
        let keys = self.store.keys();
        let works = Work::OWN.into_iter().chain([Work::Notify(Target::FIRST)]);
        let sets = works.flat_map(|work| [keys.due(work), keys.leased(work)]);
        for set in sets.chain(["tokens", "attempts"].map(key)) {
            assert!(!self.cmd::<bool>(&["EXISTS", &set]).await?, "{set}");
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_wake_up_is_claimed_when_it_is_due_and_by_one_worker() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, 60_000).await?;
    let early = kit.store.claim(Work::Incident, 100, LEASE, "a").await?;
    assert!(early.claims.is_empty());
    let wait = early.next.expect("something waits");
    assert!((55..=60).contains(&wait.as_secs()), "{wait:?}");
    kit.clock.advance(Duration::from_secs(60));
    let claim = kit.claim("a").await?.expect("due now");
    assert_eq!(claim.item, item(1));
    assert_eq!(kit.claim("b").await?, None);
    assert_eq!(kit.store.finish(&claim, None, DONE).await?, Finished::Done);
    kit.assert_idle().await?;
    assert_eq!(kit.store.claim(Work::Incident, 100, LEASE, "a").await?.next, None);
    Ok(())
}

#[tokio::test]
async fn a_wake_up_that_comes_during_the_work_waits_for_its_end() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    let first = kit.claim("a").await?.expect("due");
    kit.due(1, -5).await?; // a commit meanwhile
    assert_eq!(kit.claim("b").await?, None, "one at a time");
    assert_eq!(kit.store.finish(&first, None, DONE).await?, Finished::Done);
    let second = kit.claim("b").await?.expect("the one that came meanwhile");
    assert_eq!(kit.store.finish(&second, None, DONE).await?, Finished::Done);
    kit.assert_idle().await
}

/// A long outage of Slack and Redis, and thousands of prompts that were imported together.
#[tokio::test]
async fn however_much_of_one_kind_waits_no_other_kind_waits_behind_it() -> Result<()> {
    const BACKLOG: usize = 100_000;
    const CHECKS: usize = 1_000;
    const BATCH: usize = 32;
    let kit = Kit::start()?;
    let long_ago = kit.now().await?.minus(Duration::from_secs(3_600)).0.to_string();
    let keys = kit.store.keys().clone();
    let fill = async |work: Work, prefix: &str, many: usize| {
        let script = "for i = 1, ARGV[3] do redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2] .. i .. ARGV[4]) end";
        let suffix = format!("|{}", work.as_str());
        kit.cmd::<()>(&["EVAL", script, "1", &keys.due(work), &long_ago, prefix, &many.to_string(), &suffix]).await
    };
    for backlog in [Work::Notify(Target::FIRST), Work::Outage, Work::Archive, Work::Soak, Work::Canary] {
        fill(backlog, if matches!(backlog, Work::Notify(Target::FIRST) | Work::Outage) { "i" } else { "@p" }, BACKLOG)
            .await?;
    }
    fill(Work::Incident, "i", CHECKS).await?;
    fill(Work::Page, "i", CHECKS).await?;
    for work in [Work::Incident, Work::Page] {
        let began = Instant::now();
        let mut done = 0;
        while done < CHECKS {
            let claims = kit.store.claim(work, BATCH, LEASE, "a").await?.claims;
            // each claim returns as many as requested
            assert_eq!(claims.len(), BATCH.min(CHECKS - done), "{work:?} after {done}");
            for claim in &claims {
                assert_eq!(kit.store.finish(claim, None, DONE).await?, Finished::Done);
            }
            done += claims.len();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{work:?}: {:?}", began.elapsed());
    }
    for backlog in [Work::Notify(Target::FIRST), Work::Outage, Work::Archive, Work::Soak, Work::Canary] {
        assert_eq!(kit.cmd::<usize>(&["ZCARD", &keys.due(backlog)]).await?, BACKLOG, "{backlog:?}");
        let claims = kit.store.claim(backlog, 3, LEASE, "b").await?.claims;
        assert_eq!(claims.len(), 3, "{backlog:?}");
        assert!(claims.iter().all(|claim| claim.work == backlog), "{claims:?}");
    }
    Ok(())
}

/// The previous release kept wake-ups of every kind in `due`, and an outage of Slack left many there.
#[tokio::test]
async fn work_that_an_earlier_receiver_mixed_is_done_kind_by_kind() -> Result<()> {
    const BACKLOG: usize = 100_000;
    let kit = Kit::start()?;
    let now = kit.now().await?.0;
    let old = [
        ("01KAHJ3Y3W8Q00000000000001|act", now - 5_000),
        ("01KAHJ3Y3W8Q00000000000001|mass", now - 4_000),
        ("weekly|report", now - 3_000),
        ("@p|act", now - 2_000),
        ("drill:01KAHJ3Y3W8Q00000000000003|act", now - 1_000),
        ("01KAHJ3Y3W8Q00000000000004|act", now + 600_000),
        ("01KAHJ3Y3W8Q00000000000004|mass", now + 600_000),
    ];
    for (member, at) in old {
        kit.cmd::<()>(&["ZADD", &key("due"), &at.to_string(), member]).await?;
    }
    // before all others: the backlog of Slack is sorted by severity
    let fill = "for i = 1, ARGV[1] do redis.call('ZADD', KEYS[1], i, 'i' .. i .. '|slack') end";
    kit.cmd::<()>(&["EVAL", fill, "1", &key("due"), &BACKLOG.to_string()]).await?;
    // one that the earlier receiver is processing, and one whose worker died
    for (member, until) in [("working|slack", now + 20_000), ("died|slack", now - 1)] {
        kit.cmd::<()>(&["ZADD", &key("leased"), &until.to_string(), member]).await?;
        kit.cmd::<()>(&["HSET", &key("tokens"), member, "earlier"]).await?;
    }
    kit.cmd::<()>(&["ZADD", &key("due:slack"), "0", "working|slack"]).await?; // another notification
    let mut acts = Vec::new();
    for round in 0.. {
        let claimed = kit.store.claim(Work::Incident, 32, LEASE, "a").await?;
        acts.extend(items(&claimed.claims));
        if claimed.next != Some(Duration::ZERO) {
            break;
        }
        assert!(round < 100, "it does not end");
    }
    assert_eq!(acts, ["01KAHJ3Y3W8Q00000000000001", "@p", "drill:01KAHJ3Y3W8Q00000000000003"]);
    for (work, expected) in [(Work::Outage, "01KAHJ3Y3W8Q00000000000001"), (Work::Report, "weekly")] {
        let claims = kit.store.claim(work, 32, LEASE, "a").await?.claims;
        assert_eq!(items(&claims), [expected]);
    }
    // in their original order
    let claims = kit.store.claim(Work::Notify(Target::FIRST), 3, LEASE, "a").await?.claims;
    assert_eq!(items(&claims), ["i1", "i2", "i3"]);
    let slack = async || kit.cmd::<usize>(&["ZCARD", &key("due:slack")]).await;
    assert_eq!(slack().await?, BACKLOG - 3 + 2, "with the two that the earlier receiver had claimed");
    assert!(kit.score_of("due:slack", "died|slack").await?.is_some());

    kit.clock.advance(Duration::from_secs(600));
    let claims = kit.claims("a").await?;
    assert!(claims.iter().any(|claim| claim.item == item(4)), "{claims:?}");
    assert!(kit.score_of("due:mass", "01KAHJ3Y3W8Q00000000000004|mass").await?.is_some(), "moved once it is due");
    let claims = kit.store.claim(Work::Notify(Target::FIRST), 1, LEASE, "b").await?.claims;
    assert_eq!(items(&claims), ["working"], "its lease has expired");
    Ok(())
}

/// A worker died: what it had claimed returns to its place.
#[tokio::test]
async fn a_look_at_a_soak_whose_worker_died_is_claimed_again() -> Result<()> {
    let kit = Kit::start()?;
    let now = kit.now().await?.0.to_string();
    kit.cmd::<()>(&["ZADD", &key("soaks"), &now, "@p|soak"]).await?;
    let lost = kit.store.claim(Work::Soak, 3, LEASE, "a").await?.claims.remove(0);
    assert!(kit.store.claim(Work::Soak, 3, LEASE, "b").await?.claims.is_empty());
    kit.clock.advance(LEASE);
    assert_eq!(kit.claim("c").await?, None, "it is none of the other worker's");
    assert_eq!(kit.store.claim(Work::Soak, 3, LEASE, "b").await?.claims.len(), 1);
    assert_eq!(kit.store.finish(&lost, None, DONE).await?, Finished::Lost);
    Ok(())
}

#[tokio::test]
async fn whoever_notes_progress_keeps_the_lease() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    let claim = kit.claim("a").await?.expect("due");
    for _ in 0..3 {
        kit.clock.advance(LEASE - Duration::from_secs(1));
        assert!(kit.store.note(&claim, &[("replied", "1")]).await?);
        assert_eq!(kit.claim("b").await?, None);
    }
    kit.clock.advance(LEASE);
    let other = kit.claim("b").await?.expect("it expired");
    assert!(!kit.store.note(&claim, &[]).await?, "lost");
    assert_eq!(kit.store.finish(&other, None, DONE).await?, Finished::Done);
    kit.assert_idle().await
}

#[tokio::test]
async fn an_expired_lease_goes_to_another_worker_and_the_first_can_do_no_harm() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    let lost = kit.claim("a").await?.expect("due");
    kit.clock.advance(LEASE - Duration::from_secs(1));
    assert_eq!(kit.claim("b").await?, None);
    kit.clock.advance(Duration::from_secs(2));
    let taken = kit.claim("b").await?.expect("the lease has expired");
    for end in [DONE, End::Failed, End::Done { rev: Some(1), next: Some(Timestamp(5)) }] {
        assert_eq!(kit.store.finish(&lost, None, end).await?, Finished::Lost);
    }
    assert_eq!((kit.score("due", 1).await?, kit.cmd::<bool>(&["EXISTS", &key("attempts")]).await?), (None, false));
    assert_eq!(kit.store.finish(&taken, None, DONE).await?, Finished::Done);
    kit.assert_idle().await
}

#[tokio::test]
async fn the_wait_ends_with_the_lease_of_a_dead_worker() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    kit.due(2, 600_000).await?;
    assert_eq!(kit.claims("a").await?.len(), 1);
    let wait = kit.store.claim(Work::Incident, 100, LEASE, "b").await?.next.expect("something waits");
    assert!((25..=30).contains(&wait.as_secs()), "{wait:?}");
    Ok(())
}

#[tokio::test]
async fn failures_back_off_by_themselves_until_the_task_is_a_dead_letter() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    for attempt in 0..9 {
        let claim = kit.claim("a").await?.unwrap_or_else(|| panic!("attempt {attempt}"));
        let before = kit.now().await?.0;
        assert_eq!(kit.store.finish(&claim, None, End::Failed).await?, Finished::Retried);
        let wait = kit.score("due", 1).await?.expect("due again") - before;
        let expected = 1_000 << attempt;
        assert!((expected..expected + 1_000).contains(&wait), "attempt {attempt}: {wait} ms");
        assert_eq!(kit.claim("a").await?, None, "not before its time");
        // it does not delay others
        kit.due(2, -10).await?;
        let other = kit.claim("a").await?.expect("the other");
        assert_eq!((&other.item, kit.store.finish(&other, None, DONE).await?), (&item(2), Finished::Done));
        kit.clock.advance(Duration::from_millis(wait as u64 + 1));
    }
    let claim = kit.claim("a").await?.expect("the tenth");
    assert_eq!(kit.store.finish(&claim, None, End::Failed).await?, Finished::DeadLettered);
    assert!(kit.score("parked", 1).await?.is_some());
    assert_eq!(kit.store.counts().await?.1, 1);
    kit.assert_idle().await
}

#[tokio::test]
async fn what_is_left_to_a_newer_receiver_waits_a_second_and_is_no_dead_letter() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    for _ in 0..12 {
        let claim = kit.claim("old").await?.expect("due");
        let before = kit.now().await?.0;
        assert_eq!(kit.store.finish(&claim, None, End::Left).await?, Finished::Retried);
        let wait = kit.score("due", 1).await?.expect("due again") - before;
        assert!((1_000..2_000).contains(&wait), "{wait} ms");
        kit.clock.advance(Duration::from_millis(wait as u64 + 1));
    }
    let claim = kit.claim("new").await?.expect("due");
    assert_eq!(kit.store.finish(&claim, None, DONE).await?, Finished::Done);
    kit.assert_idle().await
}

#[tokio::test]
async fn a_success_resets_the_count_of_failures() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    let claim = kit.claim("a").await?.expect("due");
    assert_eq!(kit.store.finish(&claim, None, End::Failed).await?, Finished::Retried);
    kit.clock.advance(Duration::from_secs(2));
    let claim = kit.claim("a").await?.expect("again");
    assert_eq!(kit.store.finish(&claim, None, DONE).await?, Finished::Done);
    kit.assert_idle().await
}

#[tokio::test]
async fn a_record_that_changed_during_the_work_is_looked_at_again_at_once() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let seen = 4;
    kit.due(1, -10).await?;
    let claim = kit.claim("a").await?.expect("due");
    kit.does("p", register("v3", false, None)).await?;
    let next = Some(Timestamp(kit.now().await?.0 + 600_000));
    let end = End::Done { rev: Some(seen), next };
    assert_eq!(kit.store.finish(&claim, Some(&prompt("p")), end).await?, Finished::Again);
    let claim = kit.claim("b").await?.expect("due now");
    let end = End::Done { rev: Some(seen + 1), next };
    assert_eq!(kit.store.finish(&claim, Some(&prompt("p")), end).await?, Finished::Done);
    assert_eq!(kit.score("due", 1).await?, next.map(|at| at.0), "at the time that was asked for");
    Ok(())
}

#[tokio::test]
async fn an_earlier_wake_up_is_not_put_off_by_the_end_of_the_work() -> Result<()> {
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    let claim = kit.claim("a").await?.expect("due");
    kit.due(1, 5_000).await?;
    let earlier = kit.score("due", 1).await?;
    let end = End::Done { rev: None, next: Some(Timestamp(kit.now().await?.0 + 600_000)) };
    assert_eq!(kit.store.finish(&claim, None, end).await?, Finished::Done);
    assert_eq!(kit.score("due", 1).await?, earlier);
    Ok(())
}

#[tokio::test]
async fn at_most_so_many_are_claimed_as_asked_for_and_the_earliest_first() -> Result<()> {
    let kit = Kit::start()?;
    for n in 0..10 {
        kit.due(n, -1_000 + i64::from(n)).await?;
    }
    let claims = kit.store.claim(Work::Incident, 4, LEASE, "a").await?.claims;
    assert_eq!(items(&claims), [0, 1, 2, 3].map(|n| item(n).to_string()));
    assert_eq!(kit.claims("b").await?.len(), 6);
    Ok(())
}

#[tokio::test]
async fn waking_now_beats_a_later_time() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let incident = WorkItem::Incident(kit.does("p", critical("p")).await?.incidents[0].incident.id.clone());
    assert_eq!(kit.claim("a").await?, None, "its deadline is ahead");
    kit.store.wake_by(Work::Incident, &incident, Timestamp(0)).await?;
    assert_eq!(kit.claim("a").await?.map(|claim| claim.item), Some(incident));
    Ok(())
}

#[tokio::test]
async fn a_key_of_the_wrong_type_loses_no_wake_up() -> Result<()> {
    let late = LEASE + Duration::from_secs(1);
    for broken in ["attempts", "parked", "tokens"] {
        let kit = Kit::start()?;
        kit.due(1, -10).await?;
        let claim = kit.claim("a").await?.expect("due");
        let end = End::Done { rev: None, next: Some(kit.now().await?) };
        kit.while_broken(broken, async |_| {
            assert!(kit.store.finish(&claim, None, end).await.is_err(), "{broken}");
            Ok(())
        })
        .await?;
        kit.clock.advance(late);
        assert_eq!(items(&kit.claims("b").await?), [item(1).to_string()], "{broken}, finished");
    }
    let kit = Kit::start()?;
    kit.due(1, -10).await?;
    kit.while_broken("tokens", async |_| {
        for _ in 0..2 {
            assert!(kit.store.claim(Work::Incident, 100, LEASE, "a").await.is_err());
            kit.clock.advance(late);
        }
        Ok(())
    })
    .await?;
    kit.clock.advance(late);
    assert_eq!(items(&kit.claims("b").await?), [item(1).to_string()], "claimed");
    Ok(())
}
