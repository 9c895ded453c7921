//! Retention of records, and what survives a rewrite.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback::decision::alert::AlertStatus;
use prompt_rollback::decision::{Action, Activation, Event, IncidentId, Needs, Operator, PhaseKind, Policy, Severity};
use prompt_rollback::store::record::read_incident;
use prompt_rollback::store::{INCIDENT_RETENTION, StoreError};
use serde_json::Value;

use super::kit::{Kit, activate, alert, critical, key, paging, prompt};
use crate::common::{Redis, config};

const DAY: i64 = 24 * 3_600 * 1_000;

impl Kit {
    async fn ttl(&self, id: &IncidentId) -> Result<i64> {
        self.cmd(&["PTTL", &key(&format!("incident:{id}"))]).await
    }

    /// The content of the incident's own key.
    async fn own(&self, id: &IncidentId) -> Result<String> {
        self.cmd(&["GET", &key(&format!("incident:{id}"))]).await
    }

    async fn members(&self, set: &str) -> Result<Vec<String>> {
        self.cmd(&["ZRANGE", &key(set), "0", "-1"]).await
    }

    async fn phase(&self, phase: &str) -> Result<i64> {
        Ok(self.cmd::<Option<i64>>(&["HGET", &key("phases"), phase]).await?.unwrap_or(0))
    }
}

/// The alert with this fingerprint, resolved.
fn ended_as(name: &str, fingerprint: &str) -> Event {
    let Event::Alerts(mut alerts) = ended(name) else { unreachable!("it is an alert") };
    alerts[0].fingerprint = fingerprint.to_owned();
    Event::Alerts(alerts)
}

fn ended(name: &str) -> Event {
    alert(name, Severity::High, Action::Page, AlertStatus::Resolved)
}

#[tokio::test]
async fn an_open_incident_never_expires_and_a_closed_one_does() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let id = kit.does("p", paging("p")).await?.incidents[0].incident.id.clone();
    assert_eq!(kit.ttl(&id).await?, -1);
    assert_eq!(kit.members("incidents:open").await?, [id.0.as_str()]);
    assert_eq!(kit.phase("awaiting_decision").await?, 1);

    kit.does("p", ended("p")).await?;
    kit.clock.advance(Policy::QUIET);
    kit.does("p", Event::Timer { incident: id.clone(), early: false }).await?;
    let left = kit.ttl(&id).await?;
    assert!((179 * DAY..=180 * DAY).contains(&left), "{left} ms");
    assert_eq!(kit.members("incidents:open").await?, Vec::<String>::new());
    assert_eq!(kit.members("incidents:closed").await?, [id.0.as_str()]);
    assert_eq!(kit.members("incidents").await?, [id.0.as_str()]);
    assert_eq!(kit.phase("awaiting_decision").await?, 0);

    // it fires again soon after: the same incident, open as long as needed
    kit.does("p", paging("p")).await?;
    assert_eq!(kit.ttl(&id).await?, -1);
    assert_eq!(kit.members("incidents:open").await?, [id.0.as_str()]);
    assert_eq!(kit.members("incidents:closed").await?, Vec::<String>::new());
    assert_eq!(kit.phase("awaiting_decision").await?, 1);
    Ok(())
}

#[tokio::test]
async fn the_index_forgets_expired_incidents_a_few_at_a_time() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let fill = "for i = 10, 39 do
        redis.call('ZADD', KEYS[1], ARGV[1], 'old' .. i) redis.call('ZADD', KEYS[2], 0, 'old' .. i) end";
    let long_ago = (kit.now().await?.0 - INCIDENT_RETENTION.as_millis() as i64 - 1_000).to_string();
    kit.cmd::<()>(&["EVAL", fill, "2", &key("incidents:closed"), &key("incidents"), &long_ago]).await?;
    kit.cmd::<()>(&["ZADD", &key("incidents:closed"), &kit.now().await?.0.to_string(), "young"]).await?;
    kit.cmd::<()>(&["ZADD", &key("incidents"), "0", "young"]).await?;
    for left in [10, 0] {
        let id = kit.does("p", paging("p")).await?.incidents[0].incident.id.clone();
        let dismiss = Event::Decide(prompt_rollback::decision::Decide {
            incident: id,
            choice: prompt_rollback::decision::Choice::Dismiss,
            operator: Operator::recorded("mia"),
            target: None,
            force: false,
            question_number: None,
        });
        kit.does("p", dismiss).await?;
        kit.does("p", ended("p")).await?; // ends the silence
        for set in ["incidents", "incidents:closed"] {
            let members = kit.members(set).await?;
            assert_eq!(members.iter().filter(|id| id.starts_with("old")).count(), left, "{set}");
            assert!(members.contains(&"young".to_owned()), "{set}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn fields_of_a_later_receiver_survive_in_state_and_incident() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let id = kit.does("p", paging("p")).await?.incidents[0].incident.id.clone();
    let json: String = kit.cmd(&["HGET", &key("state:p"), "json"]).await?;
    let mut state: Value = serde_json::from_str(&json)?;
    state["colour"] = "blue".into();
    state["versions"][1]["model"] = "m-1".into();
    state["incidents"][0]["thread"] = serde_json::json!({"ts": "1.2"});
    kit.cmd::<()>(&["HSET", &key("state:p"), "json", &state.to_string()]).await?;

    kit.does("p", critical("p")).await?;
    let json: String = kit.cmd(&["HGET", &key("state:p"), "json"]).await?;
    let state: Value = serde_json::from_str(&json)?;
    assert_eq!(state["colour"], "blue");
    assert_eq!(state["versions"][1]["model"], "m-1");
    assert_eq!(state["serving"]["version"], "v1", "and what is known has changed");
    assert_eq!(state["incidents"][0]["thread"]["ts"], "1.2");
    assert_eq!(state["incidents"][0]["phase"], "verifying");

    // once it is closed, the record moves to its own key, with all fields
    kit.clock.advance(kit.policy.verification_deadline);
    kit.does("p", Event::Timer { incident: id.clone(), early: false }).await?;
    let incident: Value = serde_json::from_str(&kit.own(&id).await?)?;
    assert_eq!((&incident["schema"], &incident["phase"]), (&1.into(), &"unverified".into()));
    assert_eq!(incident["thread"]["ts"], "1.2");
    Ok(())
}

#[tokio::test]
async fn an_open_incident_is_kept_once_and_a_closed_one_at_its_own_key() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("a/b").await?;
    let id = kit.does("a/b", paging("a/b")).await?.incidents[0].incident.id.clone();
    let found = kit.store.incident(&id).await?.expect("it is open");
    assert_eq!(
        (&found, found.phase.kind()),
        (&kit.load("a/b").await?.snapshot.state.incidents[0], PhaseKind::AwaitingDecision)
    );
    assert_eq!(kit.own(&id).await?, r#"{"schema":2,"kept_by":"a/b"}"#);
    let listed = async |open| Ok::<_, StoreError>(kit.store.incidents(None, 10, open).await?.items);
    assert_eq!(listed(true).await?, std::slice::from_ref(&found));
    let needs = Needs { incident: Some(&id), content: None };
    let loaded = kit.store.load(&prompt("a/b"), kit.policy.budget_window, needs).await?;
    assert_eq!(loaded.snapshot.incident, Some(found));

    kit.does("a/b", ended("a/b")).await?;
    kit.clock.advance(Policy::QUIET);
    kit.does("a/b", Event::Timer { incident: id.clone(), early: false }).await?;
    let found = kit.store.incident(&id).await?.expect("it is closed");
    assert_eq!(found.phase.kind(), PhaseKind::Resolved);
    assert!(kit.own(&id).await?.contains(r#""phase":"resolved""#));
    assert_eq!((listed(true).await?, listed(false).await?), (vec![], vec![found]));

    // reopened, and stored in the prompt's state again
    kit.does("a/b", paging("a/b")).await?;
    assert_eq!(kit.own(&id).await?, r#"{"schema":2,"kept_by":"a/b"}"#);
    assert_eq!(kit.store.incident(&id).await?.map(|i| i.phase.kind()), Some(PhaseKind::AwaitingDecision));
    Ok(())
}

#[tokio::test]
async fn an_incident_missing_from_its_prompt_is_broken_and_hides_no_other() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let id = kit.does("p", paging("p")).await?.incidents[0].incident.id.clone();
    let lost = IncidentId("01KAHJ3Y3W8Q0000000000000A".to_owned());
    let record = key(&format!("incident:{lost}"));
    kit.cmd::<()>(&["SET", &record, r#"{"schema":2,"kept_by":"p"}"#]).await?;
    kit.cmd::<()>(&["ZADD", &key("incidents"), "0", &lost.0]).await?;
    let refused = kit.store.incident(&lost).await;
    assert!(matches!(&refused, Err(StoreError::Broken { key, .. }) if *key == record), "{refused:?}");
    let listed: Vec<_> = kit.store.incidents(None, 10, false).await?.items.into_iter().map(|i| i.id).collect();
    assert_eq!(listed, [id]);
    // written by a later receiver
    kit.cmd::<()>(&["SET", &record, r#"{"schema":2,"kept_at":"p"}"#]).await?;
    let refused = kit.store.incident(&lost).await;
    assert!(matches!(&refused, Err(StoreError::NewerRecord { found }) if found == "2"), "{refused:?}");
    Ok(())
}

/// What the previous release stored about a prompt that it had rolled back.
const OLD_STATE: &str = r#"{"serving":{"version":"v1","since":1795885907808,"by":"rollback"},"versions":[{"version":"v1","known_since":1795885902733,"registered":true,"first_active":1795885902741,"last_active":1795885907808,"traffic_since":1795885907808,"known_good":{"at":1795885902733,"marked":true}},{"version":"v2","known_since":1795885902746,"registered":true,"first_active":1795885902747,"last_active":1795885907808,"quarantine":{"at":1795885907808,"incident":"01M8HJ8FV0RTQSK8K74M439M47"}}],"moved_by":"01M8HJ8FV0JQ21N289TNBKT3H7","incidents":[OLD_INCIDENT],"last_rollback":1795885907808}"#;
const OLD_INCIDENT: &str = r#"{"id":"01M8HJ8FV0RTQSK8K74M439M47","prompt":"p","version":"v2","target":"v1","choices":["v1"],"phase":"verifying","opened_at":1795885907808,"updated_at":1795885907808,"severity":"critical","action":"rollback","decider":"on-call","time_limit":120000,"deadline":1795886207808,"flip":{"commit":"01M8HJ8FV0JQ21N289TNBKT3H7","at":1795885907808,"from":"v2","to":"v1","mode":"auto","operator":"system"},"alerts":[{"fingerprint":"00000000000000c7","alertname":"PromptErrorRateCritical","severity":"critical","action":"rollback","decider":"system","time_limit":120000,"firing":true,"starts_at":1795221492689,"first_seen":1795885907808,"last_seen":1795885907808,"summary":"Error rate of p v2 is 12.4%","value":"12.4%"}],"notes":[{"seq":0,"at":1795885907808,"kind":"opened","text":"PromptErrorRateCritical (critical): Error rate of p v2 is 12.4%"},{"seq":1,"at":1795885907808,"kind":"flipped","text":"system rolled v2 back to v1: PromptErrorRateCritical: Error rate of p v2 is 12.4%"}]}"#;

/// As the previous release writes an open incident: in the state and at its own key.
async fn as_before(kit: &Kit, incident: &str, commit: &str) -> Result<()> {
    let state = OLD_STATE.replace("OLD_INCIDENT", incident);
    let rev: i64 = kit.cmd(&["HINCRBY", &key("state:p"), "rev", "1"]).await?;
    let fields = ["schema", "1", "json", &state, "serving", "v1", "info", "v1 1795885902741 ", "commits", commit];
    kit.cmd::<()>(&[&["HSET", &key("state:p")], &fields[..]].concat()).await?;
    let own = incident.replacen('{', r#"{"schema":1,"#, 1);
    kit.cmd::<()>(&["SET", &key("incident:01M8HJ8FV0RTQSK8K74M439M47"), &own]).await?;
    if rev == 1 {
        let id = "01M8HJ8FV0RTQSK8K74M439M47";
        kit.cmd::<()>(&["SET", &key("active:p"), "v1"]).await?;
        kit.cmd::<()>(&["ZADD", &key("prompts"), "0", "p"]).await?;
        kit.cmd::<()>(&["ZADD", &key("incidents"), "0", id]).await?;
        kit.cmd::<()>(&["ZADD", &key("incidents:open"), "0", id]).await?;
        kit.cmd::<()>(&["HSET", &key("phases"), "verifying", "1"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn records_of_the_previous_version_are_read_and_it_may_write_on() -> Result<()> {
    let kit = Kit::start()?;
    let id = IncidentId("01M8HJ8FV0RTQSK8K74M439M47".to_owned());
    as_before(&kit, OLD_INCIDENT, "01M8HJ8FV0JQ21N289TNBKT3H7").await?;
    let found = kit.store.incident(&id).await?.expect("an open incident of the version before");
    assert_eq!((found.phase.kind(), found.notes.len()), (PhaseKind::Verifying, 2));
    assert_eq!(kit.store.incidents(None, 10, true).await?.items, std::slice::from_ref(&found));
    assert_eq!(kit.load("p").await?.snapshot.state.incidents, [found]);

    // this release continues: the copy, which would be outdated, is dropped
    kit.does("p", ended_as("p", "00000000000000c7")).await?;
    assert_eq!(kit.own(&id).await?, r#"{"schema":2,"kept_by":"p"}"#);
    let found = kit.store.incident(&id).await?.expect("it is open");
    assert!(!found.alerts[0].firing && found.notes.len() >= 2);

    // the previous release, which understands the state, writes on top; then this one closes it
    let noted = OLD_INCIDENT.replace("\"decider\":\"on-call\"", "\"decider\":\"product-pm\"");
    as_before(&kit, &noted, "01M8HJ8FV0JQ21N289TNBKT3H8").await?;
    assert_eq!(kit.store.incident(&id).await?.map(|i| i.decider), Some("product-pm".to_owned()));
    kit.does("p", Event::Timer { incident: id.clone(), early: false }).await?;
    let closed: Value = serde_json::from_str(&kit.own(&id).await?)?;
    assert_eq!((&closed["schema"], &closed["phase"]), (&1.into(), &"unverified".into()));
    assert_eq!(closed["decider"], "product-pm");
    assert_eq!(kit.members("incidents:open").await?, Vec::<String>::new());
    assert_eq!(kit.phase("verifying").await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_upgrade_also_keeps_open_incidents_where_the_old_version_looks() -> Result<()> {
    let redis = Redis::start()?;
    let url = redis.receiver_url();
    let kit = Kit::with(redis, &url, &[("REDIS__READABLE_BY_PREVIOUS", "true")])?;
    kit.ship("p").await?;
    let id = kit.does("p", paging("p")).await?.incidents[0].incident.id.clone();
    let in_state = async || Ok::<_, StoreError>(kit.load("p").await?.snapshot.state.incidents.remove(0));
    // all of it, with the schema that the previous release knows
    let own = kit.own(&id).await?;
    assert!(own.starts_with(r#"{"schema":1,"id":""#), "{own}");
    assert_eq!(read_incident(&own)?.0, in_state().await?);
    assert_eq!(kit.store.incident(&id).await?, Some(in_state().await?));
    // once all are upgraded, the next commit drops the copy
    let upgraded = kit.store.reconfigured(&config(&url, &[]).redis)?;
    let kit = Kit { store: upgraded, ..kit };
    kit.does("p", ended("p")).await?;
    assert_eq!(kit.own(&id).await?, r#"{"schema":2,"kept_by":"p"}"#);
    Ok(())
}

#[tokio::test]
async fn deciding_a_closed_incident_keeps_what_a_later_receiver_wrote() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let id = kit.does("p", critical("p")).await?.incidents[0].incident.id.clone();
    kit.clock.advance(kit.policy.verification_deadline);
    kit.does("p", Event::Timer { incident: id.clone(), early: false }).await?;
    let record = key(&format!("incident:{id}"));
    let mut incident: Value = serde_json::from_str(&kit.own(&id).await?)?;
    assert_eq!(incident["phase"], "unverified");
    incident["thread"] = "1.2".into();
    kit.cmd::<()>(&["SET", &record, &incident.to_string(), "KEEPTTL"]).await?;

    let undo = Event::Decide(prompt_rollback::decision::Decide {
        incident: id.clone(),
        choice: prompt_rollback::decision::Choice::Undo,
        operator: Operator::recorded("mia"),
        target: None,
        force: false,
        question_number: None,
    });
    kit.does("p", undo).await?;
    assert_eq!(kit.cmd::<String>(&["GET", &key("active:p")]).await?, "v2");
    let incident: Value = serde_json::from_str(&kit.own(&id).await?)?;
    assert_eq!((incident["phase"].as_str(), incident["thread"].as_str()), (Some("dismissed"), Some("1.2")));
    assert!(kit.ttl(&id).await? > 179 * DAY, "and its time to live");
    Ok(())
}

/// Ids of entries only increase: as if Redis' clock had been half an hour ahead before.
#[tokio::test]
async fn the_log_of_a_time_is_found_although_the_clock_went_back() -> Result<()> {
    const MINUTE: Duration = Duration::from_secs(60);
    let kit = Kit::start()?;
    kit.clock.go_back(30 * MINUTE);
    kit.ship("p").await?;
    let (then, name) = (kit.now().await?, prompt("p"));
    let found = kit.store.log_until(&name, then, 10).await?;
    assert_eq!(found.iter().map(|entry| entry.to.as_str()).collect::<Vec<_>>(), ["v2", "v1"]);
    assert_eq!(kit.store.log_until(&name, then, 1).await?, found[..1]);
    kit.clock.advance(30 * MINUTE);
    kit.does("p", critical("p")).await?;
    assert_eq!(kit.store.log_until(&name, then, 10).await?, found, "what came later is not of that time");
    let now = kit.now().await?;
    assert_eq!(kit.store.log_until(&name, now, 10).await?.len(), 3);
    let (page, _) = kit.store.log_of_all(None, now.minus(10 * MINUTE), 10, None).await?;
    let entries: Vec<_> = page.items.iter().map(|(_, entry)| &entry.fields[2].1).collect();
    assert_eq!(entries, ["v1"], "the rollback alone is of the last ten minutes");
    Ok(())
}

#[tokio::test]
async fn the_series_of_the_metrics_follow_what_is_served() -> Result<()> {
    let kit = Kit::start()?;
    for name in ["a", "b", "c"] {
        kit.ship(name).await?;
        kit.clock.advance(Duration::from_secs(1));
    }
    let activated = kit.store.series(10).await?.0.into_iter().find(|s| s.prompt.as_str() == "a").expect("a").activated;
    kit.does("a", critical("a")).await?;
    let (series, dropped) = kit.store.series(2).await?;
    let rows: Vec<_> = series.iter().map(|s| (s.prompt.as_str(), s.version.as_str(), s.previous.as_str())).collect();
    // the latest activity first; the rolled-back version is quarantined and no longer a target
    assert_eq!(rows, [("a", "v1", ""), ("c", "v2", "v1")]);
    assert_eq!(dropped, 1);
    assert!(series[0].activated < activated, "v1 was first activated before v2, and going back does not reset that");
    kit.does("a", activate_forced("v2")).await?;
    let again = kit.store.series(1).await?.0.remove(0);
    assert_eq!((again.version.as_str(), again.previous.as_str()), ("v2", "v1"));
    assert!(again.activated > activated, "shipped again after a rollback of it, v2 is new");
    Ok(())
}

fn activate_forced(version: &str) -> Event {
    match activate(version) {
        Event::Activate(request) => Event::Activate(Activation { force: true, ..request }),
        other => other,
    }
}
