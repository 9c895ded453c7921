//! What is kept for how long, and what survives a rewrite.

use std::time::Duration;

use anyhow::Result;
use prompt_rollback::decision::alert::AlertStatus;
use prompt_rollback::decision::{Action, Activation, Event, IncidentId, Policy, Severity};
use prompt_rollback::store::INCIDENT_RETENTION;
use serde_json::Value;

use crate::kit::{Kit, activate, alert, critical, key, paging};

const DAY: i64 = 24 * 3_600 * 1_000;

impl Kit {
    async fn ttl(&self, id: &IncidentId) -> Result<i64> {
        self.cmd(&["PTTL", &key(&format!("incident:{id}"))]).await
    }

    async fn members(&self, set: &str) -> Result<Vec<String>> {
        self.cmd(&["ZRANGE", &key(set), "0", "-1"]).await
    }

    async fn phase(&self, phase: &str) -> Result<i64> {
        Ok(self.cmd::<Option<i64>>(&["HGET", &key("phases"), phase]).await?.unwrap_or(0))
    }
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
    kit.does("p", Event::Timer { incident: id.clone() }).await?;
    let left = kit.ttl(&id).await?;
    assert!((179 * DAY..=180 * DAY).contains(&left), "{left} ms");
    assert_eq!(kit.members("incidents:open").await?, Vec::<String>::new());
    assert_eq!(kit.members("incidents:closed").await?, [id.0.as_str()]);
    assert_eq!(kit.members("incidents").await?, [id.0.as_str()]);
    assert_eq!(kit.phase("awaiting_decision").await?, 0);

    // it fires again soon after: the same incident, open for as long as it takes
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
            operator: "mia".to_owned(),
            target: None,
            force: false,
            ask: None,
        });
        kit.does("p", dismiss).await?;
        kit.does("p", ended("p")).await?; // ends the suppression
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
    let json: String = kit.cmd(&["GET", &key(&format!("incident:{id}"))]).await?;
    let incident: Value = serde_json::from_str(&json)?;
    assert_eq!(incident["thread"]["ts"], "1.2");
    assert_eq!(incident["phase"], "verifying");
    Ok(())
}

#[tokio::test]
async fn a_closed_incident_keeps_what_a_later_receiver_wrote_when_it_is_decided() -> Result<()> {
    let kit = Kit::start()?;
    kit.ship("p").await?;
    let id = kit.does("p", critical("p")).await?.incidents[0].incident.id.clone();
    kit.clock.advance(kit.policy.verification_deadline);
    kit.does("p", Event::Timer { incident: id.clone() }).await?;
    let record = key(&format!("incident:{id}"));
    let mut incident: Value = serde_json::from_str(&kit.cmd::<String>(&["GET", &record]).await?)?;
    assert_eq!(incident["phase"], "unverified");
    incident["thread"] = "1.2".into();
    kit.cmd::<()>(&["SET", &record, &incident.to_string(), "KEEPTTL"]).await?;

    let undo = Event::Decide(prompt_rollback::decision::Decide {
        incident: id.clone(),
        choice: prompt_rollback::decision::Choice::Undo,
        operator: "mia".to_owned(),
        target: None,
        force: false,
        ask: None,
    });
    kit.does("p", undo).await?;
    assert_eq!(kit.cmd::<String>(&["GET", &key("active:p")]).await?, "v2");
    let incident: Value = serde_json::from_str(&kit.cmd::<String>(&["GET", &record]).await?)?;
    assert_eq!((incident["phase"].as_str(), incident["thread"].as_str()), (Some("dismissed"), Some("1.2")));
    assert!(kit.ttl(&id).await? > 179 * DAY, "and its time to live");
    Ok(())
}

#[tokio::test]
async fn the_series_of_the_metrics_follow_what_is_served() -> Result<()> {
    let kit = Kit::start()?;
    for name in ["a", "b", "c"] {
        kit.ship(name).await?;
        kit.clock.advance(Duration::from_secs(1));
    }
    let activated = kit.store.series(10).await?.0.into_iter().find(|s| s.prompt == "a").expect("a").activated;
    kit.does("a", critical("a")).await?;
    let (series, dropped) = kit.store.series(2).await?;
    let rows: Vec<_> = series.iter().map(|s| (s.prompt.as_str(), s.version.as_str(), s.previous.as_str())).collect();
    // the latest activity first; the version rolled back is quarantined and no target any more
    assert_eq!(rows, [("a", "v1", ""), ("c", "v2", "v1")]);
    assert_eq!(dropped, 1);
    assert!(series[0].activated < activated, "v1 was first activated before v2, and going back does not reset that");
    kit.does("a", activate_forced("v2")).await?;
    let again = kit.store.series(1).await?.0.remove(0);
    assert_eq!((again.version.as_str(), again.previous.as_str(), again.activated), ("v2", "v1", activated));
    Ok(())
}

fn activate_forced(version: &str) -> Event {
    match activate(version) {
        Event::Activate(request) => Event::Activate(Activation { force: true, ..request }),
        other => other,
    }
}
