//! Malformed alerts beside valid ones.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::common::{
    ROLLED_BACK, Redis, World, alert, assert_rolled_back_once, assert_same, copy_prompt, critical, deliver, dump,
    outcomes, process, resolved, ship,
};

/// A name, a change to a critical alert, and its outcome then.
type Change = (&'static str, fn(&mut Value), &'static str);

/// Changes that real senders make to alerts.
fn changes() -> Vec<Change> {
    vec![
        ("status in capitals", |alert| alert["status"] = json!("FIRING"), ROLLED_BACK),
        ("unknown status", |alert| alert["status"] = json!("alerting"), "ignored{malformed}"),
        ("status null", |alert| alert["status"] = Value::Null, "ignored{malformed}"),
        ("status a number", |alert| alert["status"] = json!(1), "ignored{malformed}"),
        ("no status", |alert| drop(alert.as_object_mut().unwrap().remove("status")), "ignored{malformed}"),
        ("version a fraction", |alert| alert["labels"]["version"] = json!(1.5), "ignored{malformed}"),
        ("version null", |alert| alert["labels"]["version"] = Value::Null, "ignored{invalid_name}"),
        ("prompt a list", |alert| alert["labels"]["prompt"] = json!(["p"]), "ignored{malformed}"),
        ("severity a number", |alert| alert["labels"]["severity"] = json!(1), "incident_opened{page}"),
        ("severity null", |alert| alert["labels"]["severity"] = Value::Null, "incident_opened{page}"),
        ("action a number", |alert| alert["labels"]["action"] = json!(1), "incident_opened{page}"),
        ("a label null", |alert| alert["labels"]["team"] = Value::Null, ROLLED_BACK),
        ("a label a number", |alert| alert["labels"]["team"] = json!(7), ROLLED_BACK),
        ("a label an object", |alert| alert["labels"]["team"] = json!({"name": "x"}), ROLLED_BACK),
        ("labels null", |alert| alert["labels"] = Value::Null, "ignored{invalid_name}"),
        ("labels a list", |alert| alert["labels"] = json!([]), "ignored{malformed}"),
        ("an annotation null", |alert| alert["annotations"]["summary"] = Value::Null, ROLLED_BACK),
        ("an annotation a number", |alert| alert["annotations"]["value"] = json!(0.07), ROLLED_BACK),
        ("annotations null", |alert| alert["annotations"] = Value::Null, ROLLED_BACK),
        ("annotations a list", |alert| alert["annotations"] = json!([1]), ROLLED_BACK),
        ("startsAt a number", |alert| alert["startsAt"] = json!(1_763_685_496), ROLLED_BACK),
        ("startsAt null", |alert| alert["startsAt"] = Value::Null, ROLLED_BACK),
        ("startsAt nonsense", |alert| alert["startsAt"] = json!("yesterday"), ROLLED_BACK),
        ("generatorURL null", |alert| alert["generatorURL"] = Value::Null, ROLLED_BACK),
        ("fingerprint a number", |alert| alert["fingerprint"] = json!(123), ROLLED_BACK),
        ("values null", |alert| alert["values"] = Value::Null, ROLLED_BACK),
        ("null", |alert| *alert = Value::Null, "ignored{malformed}"),
        ("a text", |alert| *alert = json!("firing"), "ignored{malformed}"),
        ("a list", |alert| *alert = json!([alert.clone()]), "ignored{malformed}"),
    ]
}

#[tokio::test]
async fn an_alert_is_handled_whatever_stands_beside_it() -> Result<()> {
    let world = World::with(&[("GUARDS__MAX_AUTO_ROLLBACKS", "1000")]).await?;
    world.ship("p").await?;
    let changes = changes();
    let names: Vec<String> = (0..changes.len()).flat_map(|n| [format!("odd-{n}"), format!("good-{n}")]).collect();
    copy_prompt(&world.redis, "p", &names).await?;
    for (number, (what, change, expected)) in changes.iter().enumerate() {
        let (odd, good) = (format!("odd-{number}"), format!("good-{number}"));
        let mut changed = critical(&odd);
        change(&mut changed);
        // the malformed one first, last, and in between
        let mut alerts = vec![critical(&good), alert(&good, "v7", "high")];
        alerts.insert(number % 3, changed);
        let mut all = vec![ROLLED_BACK, "ignored{unknown_version}"];
        all.insert(number % 3, expected);
        assert_eq!(world.receiver.outcomes(&alerts).await?, all, "{what}");
        assert_rolled_back_once(&world.redis, &good).await.with_context(|| (*what).to_owned())?;
        let served = if *expected == ROLLED_BACK { "v1" } else { "v2" };
        assert_eq!(world.active(&odd).await?.as_deref(), Some(served), "{what}");
    }
    // all of them at once
    let names: Vec<String> = (0..changes.len()).flat_map(|n| [format!("odder-{n}"), format!("better-{n}")]).collect();
    copy_prompt(&world.redis, "p", &names).await?;
    let alerts = changes.iter().enumerate().flat_map(|(number, (_, change, _))| {
        let mut changed = critical(&format!("odder-{number}"));
        change(&mut changed);
        [changed, critical(&format!("better-{number}"))]
    });
    let expected: Vec<_> = changes.iter().flat_map(|(_, _, expected)| [*expected, ROLLED_BACK]).collect();
    assert_eq!(world.receiver.outcomes(&alerts.collect::<Vec<_>>()).await?, expected);
    let malformed = 2 * changes.iter().filter(|(_, _, expected)| *expected == "ignored{malformed}").count();
    let metrics = world.http().get("/metrics").await?.text();
    let counted: usize = metrics
        .lines()
        .filter(|line| line.starts_with("prompt_rollback_alerts_total") && line.contains("reason=\"malformed\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum();
    assert_eq!(counted, malformed, "{metrics}");
    Ok(())
}

#[tokio::test]
async fn an_alert_whose_status_cannot_be_read_is_not_over() -> Result<()> {
    let world = World::start().await?;
    world.ship("p").await?;
    let firing = alert("p", "v2", "high");
    assert_eq!(world.receiver.outcomes(std::slice::from_ref(&firing)).await?, ["incident_opened{page}"]);
    let before = dump(&world.redis).await?;
    for status in [json!("resolved "), json!("ok"), json!(["resolved"]), json!(0), json!(false), Value::Null] {
        let mut unreadable = firing.clone();
        unreadable["status"] = status.clone();
        assert_eq!(world.receiver.outcomes(&[unreadable]).await?, ["ignored{malformed}"], "{status}");
    }
    assert_same(&before, &dump(&world.redis).await?, "malformed alerts");
    let mut over = resolved(firing);
    over["status"] = json!("RESOLVED");
    assert_eq!(world.receiver.outcomes(&[over]).await?, ["resolved{resolved}"]);
    Ok(())
}

#[tokio::test]
async fn the_sender_and_the_log_are_told_what_is_wrong_and_where() -> Result<()> {
    let redis = Redis::start()?;
    let receiver = process(&redis).start()?;
    ship(&receiver.http(), "p").await?;
    let mut hostile = critical("p\nx");
    hostile["status"] = json!("fi\u{1b}[31m\nring");
    hostile["labels"]["prompt"] = json!("q");
    hostile["fingerprint"] = json!("a\r\nb");
    let answer = deliver(&receiver.http(), &[critical("p"), hostile, json!(5)]).await?;
    assert_eq!(outcomes(&answer)?, [ROLLED_BACK, "ignored{malformed}", "ignored{malformed}"]);
    let results = &answer.json()?["results"];
    assert!(results[0].get("message").is_none(), "{results}");
    let status = r#"status: expected "firing" or "resolved", found "fi\u{1b}[31m\nring""#;
    assert_eq!((&results[1]["message"], &results[1]["fingerprint"]), (&json!(status), &json!("a\r\nb")));
    assert_eq!((&results[1]["prompt"], &results[1]["version"]), (&json!("q"), &json!("v2")));
    assert_eq!(results[2]["message"], "alert: expected an object, found a number");
    assert!(results[2]["fingerprint"].as_str().is_some_and(|text| text.starts_with("alert-")), "{results}");
    assert_eq!((&results[2]["prompt"], &results[2]["version"]), (&Value::Null, &Value::Null));
    let log = receiver.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("malformed")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains("alerts[1]") && lines[0].contains("status: expected") && lines[0].contains(r"a\r\nb"),
        "{log}"
    );
    assert!(lines[1].contains("alerts[2]") && lines[1].contains("expected an object, found a number"), "{log}");
    assert!(!lines.concat().contains('\u{1b}') || std::env::var_os("FORCE_COLOR").is_some(), "{log}");
    Ok(())
}
