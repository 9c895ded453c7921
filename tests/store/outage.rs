//! Coordinating incidents: records, fencing, and which incidents they cover.

use std::time::Duration;

use anyhow::{Context, Result};
use prompt_rollback::decision::outage::{Member, Outage, OutageAction};
use prompt_rollback::decision::{IncidentId, Operator, Policy};
use prompt_rollback::engine::Engine;
use prompt_rollback::service::coordinate;
use prompt_rollback::store::outage::{Coordinated, Speaks, WriteOutcome};
use prompt_rollback::store::schedule::{End, LEASE, Work};
use prompt_rollback::store::{Committed, ListedIncident, Store, StoreError};
use prompt_rollback_testkit::FaultProxy;

use super::kit::{Kit, critical, key, prompt};
use crate::common::config;

const ID: &str = "01KAJ4B8N4GZQ6V9C2M7T5R3XW";

fn id() -> IncidentId {
    IncidentId(ID.to_owned())
}

/// A kit whose budget is spent, so that `p` is held; with its incident.
async fn held() -> Result<(Kit, IncidentId)> {
    let mut kit = Kit::start()?;
    kit.policy = Policy { max_auto_rollbacks: 1, ..kit.policy };
    for name in ["a", "p"] {
        kit.ship(name).await?;
    }
    kit.does("a", critical("a")).await?;
    let commit = kit.does("p", critical("p")).await?;
    Ok((kit, commit.incidents[0].incident.id.clone()))
}

async fn opened(kit: &Kit, member: &IncidentId) -> Result<Coordinated> {
    let now = kit.now().await?;
    let mut found = Coordinated::new(Outage::open(id(), &kit.policy, now));
    let incident = kit.store.incident(member).await?.context("the incident")?;
    found.members.push(Member::new(&incident, false, now));
    assert_eq!(kit.store.write_outage(&mut found, now).await?, WriteOutcome::Done);
    kit.store.outage(&id()).await?.context("what was written")
}

#[tokio::test]
async fn a_commit_that_the_budget_holds_reports_itself_in_the_same_script() -> Result<()> {
    let (kit, incident) = held().await?;
    let due: Vec<String> = kit.cmd(&["ZRANGE", &key("due:mass"), "0", "-1"]).await?;
    assert!(due.contains(&format!("{incident}|mass")), "{due:?}");
    assert_eq!(due.len(), 1, "a rolled-back incident is no member");
    Ok(())
}

#[tokio::test]
async fn a_record_survives_with_its_members_and_what_a_later_receiver_added() -> Result<()> {
    let (kit, incident) = held().await?;
    opened(&kit, &incident).await?;
    let (record, members) = (key(&format!("mass:{ID}")), key(&format!("mass:members:{ID}")));
    for (key, field) in [(&record, "json"), (&members, incident.0.as_str())] {
        let json: String = kit.cmd(&["HGET", key, field]).await?;
        kit.cmd::<()>(&["HSET", key, field, &json.replacen('{', r#"{"colour":"blue","#, 1)]).await?;
    }
    let mut found = kit.store.outage(&id()).await?.context("still there")?;
    let now = kit.now().await?;
    let members_before = found.members.clone();
    found.outage.decide(&found.members, OutageAction::Hold, &Operator::recorded("maya"), None, now).expect("decided");
    found.members[0].tried = Some(now);
    assert_eq!(kit.store.write_outage(&mut found, now).await?, WriteOutcome::Done);
    for (key, field) in [(&record, "json"), (&members, incident.0.as_str())] {
        let json: String = kit.cmd(&["HGET", key, field]).await?;
        assert!(json.contains(r#""colour":"blue""#), "{json}");
    }
    let again = kit.store.outage(&id()).await?.context("still there")?;
    assert_eq!(again.outage, found.outage);
    assert_eq!(again.members, [Member { tried: Some(now), ..members_before[0].clone() }]);
    Ok(())
}

#[tokio::test]
async fn a_hold_is_found_by_each_load_and_moves_each_commit() -> Result<()> {
    let (kit, incident) = held().await?;
    let mut found = opened(&kit, &incident).await?;
    kit.ship("f").await?;
    let holds = async || anyhow::Ok(kit.load("f").await?.snapshot.outage_hold);
    let (now, maya) = (kit.now().await?, Operator::recorded("maya"));
    let (loaded, commit) = kit.prepare("f", &critical("f")).await?;
    found.outage.decide(&found.members, OutageAction::Hold, &maya, None, now).expect("decided");
    assert_eq!(kit.store.write_outage(&mut found, now).await?, WriteOutcome::Done);
    assert_eq!(kit.commit(&loaded, &commit).await?, Committed::Moved, "decided before the hold");
    assert_eq!((holds().await?.as_deref(), found.hold_differs()), (Some("maya"), false));
    assert!(kit.store.paused_prompts().await?.is_empty(), "no prompt is paused");
    assert_eq!(kit.load("f").await?.snapshot.paused, None);

    // an earlier receiver writes the record alone
    kit.cmd::<()>(&["HDEL", &key("paused"), "*outage"]).await?;
    let mut again = kit.store.outage(&id()).await?.context("the record")?;
    assert!(again.hold_differs());
    assert_eq!(kit.store.write_outage(&mut again, now).await?, WriteOutcome::Done);
    assert_eq!(holds().await?.as_deref(), Some("maya"));

    again.outage.decide(&again.members, OutageAction::Release, &maya, None, now).expect("decided");
    assert_eq!(kit.store.write_outage(&mut again, now).await?, WriteOutcome::Done);
    assert_eq!(holds().await?, None);
    again.outage.decide(&again.members, OutageAction::Hold, &maya, None, now).expect("decided");
    assert_eq!(kit.store.write_outage(&mut again, now).await?, WriteOutcome::Done);
    assert_eq!(holds().await?.as_deref(), Some("maya"));
    (again.outage.hold, again.outage.closed_at) = (None, Some(now));
    assert_eq!(kit.store.write_outage(&mut again, now).await?, WriteOutcome::Done);
    assert_eq!(holds().await?, None, "it ends with the outage");
    Ok(())
}

#[tokio::test]
async fn a_hold_without_an_open_incident_is_forgotten() -> Result<()> {
    let (kit, incident) = held().await?;
    let holds = async || anyhow::Ok(kit.load("p").await?.snapshot.outage_hold);
    let leave = async || kit.cmd::<()>(&["HSET", &key("paused"), "*outage", r#"{"operator":"maya"}"#]).await;
    // an earlier receiver has closed the incident
    leave().await?;
    kit.store.forget_stray_hold().await?;
    assert_eq!(holds().await?, None);
    leave().await?;
    let mut found = opened(&kit, &incident).await?;
    let now = kit.now().await?;
    let maya = Operator::recorded("maya");
    found.outage.decide(&found.members, OutageAction::Hold, &maya, None, now).expect("decided");
    assert_eq!(kit.store.write_outage(&mut found, now).await?, WriteOutcome::Done);
    kit.store.forget_stray_hold().await?;
    assert_eq!(holds().await?.as_deref(), Some("maya"));
    Ok(())
}

#[tokio::test]
async fn of_two_writers_one_learns_that_the_record_moved_and_writes_nothing() -> Result<()> {
    let (kit, incident) = held().await?;
    let mut first = opened(&kit, &incident).await?;
    let mut second = kit.store.outage(&id()).await?.context("the record")?;
    let now = kit.now().await?;
    first
        .outage
        .decide(&first.members, OutageAction::RollBack, &Operator::recorded("maya"), None, now)
        .expect("decided");
    second.outage.decide(&second.members, OutageAction::Hold, &Operator::recorded("omar"), None, now).expect("decided");
    assert_eq!(kit.store.write_outage(&mut first, now).await?, WriteOutcome::Done);
    let before = kit.dump().await?;
    assert_eq!(kit.store.write_outage(&mut second, now).await?, WriteOutcome::Moved);
    crate::common::assert_same(&before, &kit.dump().await?, "a write that lost");

    // nor is a second one opened
    let other = IncidentId(ID.replace("01", "02"));
    let mut new = Coordinated::new(Outage::open(other, &kit.policy, now));
    assert_eq!(kit.store.write_outage(&mut new, now).await?, WriteOutcome::Moved);
    crate::common::assert_same(&before, &kit.dump().await?, "a second one");
    Ok(())
}

#[tokio::test]
async fn a_decision_about_all_prompts_whose_reply_is_lost_gives_its_outcome() -> Result<()> {
    let (kit, incident) = held().await?;
    opened(&kit, &incident).await?;
    let proxy = FaultProxy::start(kit.redis.addr()).await?;
    let store = Store::new(&config(&proxy.url(), &[]).redis, kit.clock.clone())?;
    let (engine, maya) = (Engine::new(store, kit.policy.clone()), Operator::recorded("maya"));
    proxy.lose_next_reply_matching(key("due:mass")); // only a write names it
    let decided = coordinate::decide(&engine, &id(), OutageAction::Hold, &maya, None, None).await?;
    assert!(!proxy.loss_pending(), "the reply was lost");
    let mut found = decided.context("the record")?.expect("it was this decision");
    assert_eq!(found.outage.hold.as_ref().map(|hold| &hold.by), Some(&maya));
    let again = kit.store.outage(&id()).await?.context("the record")?;
    assert_eq!(again.outage, found.outage, "written once");
    // and the next write compares with it
    let now = kit.now().await?;
    found.outage.decide(&found.members, OutageAction::Release, &maya, None, now).expect("decided");
    assert_eq!(kit.store.write_outage(&mut found, now).await?, WriteOutcome::Done);
    Ok(())
}

#[tokio::test]
async fn a_newer_or_damaged_record_is_left_alone() -> Result<()> {
    let (kit, incident) = held().await?;
    opened(&kit, &incident).await?;
    let record = key(&format!("mass:{ID}"));
    kit.cmd::<()>(&["HSET", &record, "schema", "99"]).await?;
    assert!(matches!(kit.store.outage(&id()).await, Err(StoreError::NewerRecord { .. })));
    kit.cmd::<()>(&["HSET", &record, "schema", "1", "json", "{"]).await?;
    assert!(matches!(kit.store.outage(&id()).await, Err(StoreError::Broken { .. })));
    Ok(())
}

#[tokio::test]
async fn a_page_of_one_lists_the_open_outage_first_and_each_incident_once() -> Result<()> {
    let (kit, incident) = held().await?;
    opened(&kit, &incident).await?;
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = kit.store.listed(cursor.as_deref(), 1, false, None).await?;
        assert!(page.items.len() <= 1, "{:?}", page.items);
        seen.extend(page.items.iter().map(|listed| match listed {
            ListedIncident::One(incident) => incident.prompt.to_string(),
            ListedIncident::Outage(_) => "outage".to_owned(),
        }));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    // both were opened within a moment
    seen[1..].sort();
    assert_eq!(seen, ["outage", "a", "p"]);
    Ok(())
}

#[tokio::test]
async fn it_speaks_for_its_members_from_their_first_commit_until_it_closes() -> Result<()> {
    let (kit, incident) = held().await?;
    assert_eq!(kit.store.speaks_for(&incident).await?, Speaks::Soon, "reported, not yet processed");
    let claims = kit.store.claim(Work::Outage, 10, LEASE, "me").await?.claims;
    assert_eq!(kit.store.speaks_for(&incident).await?, Speaks::Soon, "being processed");
    let mut found = opened(&kit, &incident).await?;
    for claim in &claims {
        kit.store.finish(claim, None, End::Done { rev: None, next: None }).await?;
    }
    assert_eq!(kit.store.speaks_for(&incident).await?, Speaks::Yes, "a member");
    assert_eq!(kit.store.speaks_for(&IncidentId("other".to_owned())).await?, Speaks::No);
    assert_eq!(kit.store.open_outage().await?, Some(id()));
    let now = kit.now().await?;
    found.outage.closed_at = Some(now);
    assert_eq!(kit.store.write_outage(&mut found, now).await?, WriteOutcome::Done);
    assert_eq!(kit.store.open_outage().await?, None);
    assert_eq!(kit.store.speaks_for(&incident).await?, Speaks::No);
    let open: Vec<String> = kit.cmd(&["ZRANGE", &key("incidents:open"), "0", "-1"]).await?;
    assert!(!open.contains(&ID.to_owned()), "{open:?}");
    for name in [format!("mass:{ID}"), format!("mass:members:{ID}")] {
        assert!(kit.cmd::<i64>(&["PTTL", &key(&name)]).await? > 0, "{name} expires");
    }
    Ok(())
}

#[tokio::test]
async fn prompts_of_a_group_are_listed_for_a_month() -> Result<()> {
    let kit = Kit::start()?;
    let (group, now) = (prompt("checkout"), kit.now().await?);
    for (seconds, name) in [(0, "old"), (1, "refunds"), (2, "returns")] {
        kit.store.relate(&group, &prompt(name), now.plus(Duration::from_secs(seconds))).await?;
    }
    assert_eq!(kit.store.related(&group, 2).await?, (vec![prompt("returns"), prompt("refunds")], 3));
    let month = now.plus(Duration::from_secs(30 * 24 * 3_600));
    kit.store.relate(&group, &prompt("refunds"), month).await?;
    assert_eq!(kit.store.related(&group, 9).await?.0, [prompt("refunds"), prompt("returns")]);
    Ok(())
}
