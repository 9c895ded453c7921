//! Inhibit rules: what a real Alertmanager inhibits, the check names; what it says is no danger, no alert inhibits.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback_testkit::{Alertmanager, Dir, eventually};
use serde_json::{Value, json};

use super::stub::{program, stdout};

const SOON: Duration = Duration::from_secs(20);

/// More labels of an alert.
type More = &'static [(&'static str, &'static str)];

/// A rule, an alert of somebody else that is meant to be its source, and whether the rule can keep back `PromptErrorRateHigh`.
const RULES: &[(&str, More, bool)] = &[
    ("{source_matchers: [severity=critical], target_matchers: ['severity=~\"high|medium\"']}", &[], true),
    ("{source_matchers: [severity=critical], target_matchers: ['severity=~\"hig|medium\"']}", &[], false),
    ("{source_matchers: [severity=critical], target_matchers: [severity=high], equal: [alertname]}", &[], false),
    ("{source_matchers: [severity=critical], target_matchers: [severity=high], equal: [cluster]}", &[], true),
    ("{source_matchers: [severity=critical], target_matchers: [severity=high], equal: [severity]}", &[], false),
    ("{source_matchers: [severity=critical], target_matchers: [severity=high, 'prompt=\"\"']}", &[], false),
    ("{source_matchers: [severity=~\"critical|high\"], target_matchers: [severity=high]}", &[], true),
    ("{source_matchers: [severity=high], target_matchers: [severity=high]}", &[("severity", "high")], false),
    (
        "{source_matchers: [prompt=~.+], target_matchers: [prompt=~.+], equal: [prompt]}",
        &[("prompt", "customer-support")],
        false,
    ),
    (
        "{source_match: {severity: critical}, target_match_re: {severity: high|medium}, equal: [prompt]}",
        &[("prompt", "customer-support")],
        true,
    ),
    ("{source_match_re: {team: '.+'}, target_match: {alertname: PromptErrorRateHigh}}", &[("team", "db")], true),
    ("{target_matchers: [alertname!=NodeDown], equal: [severity]}", &[("severity", "high")], true),
];

fn labels(more: More, name: &str, severity: &str) -> Value {
    let mut labels = json!({ "alertname": name, "severity": severity });
    for (name, value) in more {
        labels[*name] = (*value).into();
    }
    labels
}

#[tokio::test]
async fn the_check_knows_what_alertmanager_inhibits() -> Result<()> {
    let dir = Dir::new("inhibition")?;
    for (rule, source, inhibits) in RULES {
        let control = "{source_matchers: [alertname=NodeDown], target_matchers: [alertname=Control]}";
        let config = format!(
            "route: {{receiver: nobody}}\nreceivers: [{{name: nobody}}]\ninhibit_rules:\n- {rule}\n- {control}\n"
        );
        let file = dir.write("alertmanager.yml", &config)?;
        let arguments = ["check", "--output", "json", "--alertmanager-config", file.to_str().context("UTF-8")?];
        let found: Value = serde_json::from_str(&stdout(&program(&arguments).output()?))?;
        let alerts = found["alertmanager"]["alerts"].as_array().context("alerts")?;
        let row = alerts.iter().find(|alert| alert["alert"] == "PromptErrorRateHigh").context("the row")?;
        let expected = if *inhibits { json!(["inhibit_rules[0]"]) } else { json!([]) };
        ensure!(row["inhibited_by"] == expected, "{rule}: {}", row["inhibited_by"]);

        let alertmanager = Alertmanager::builder(&config).start()?;
        let posted = [labels(source, "NodeDown", "critical"), row["labels"].clone(), labels(&[], "Control", "low")];
        let posted: Vec<Value> = posted.iter().map(|labels| json!({ "labels": labels })).collect();
        alertmanager.post_alerts(&posted.into()).await?;
        let inhibited = async |name: &str| {
            let found = alertmanager.http().get(&format!("/api/v2/alerts?filter=alertname%3D{name}")).await.ok()?;
            let found = found.json().ok()?;
            Some(!found[0]["status"]["inhibitedBy"].as_array()?.is_empty())
        };
        // both rules learn of the source at once
        eventually("the control is inhibited", SOON, async || inhibited("Control").await.filter(|it| *it)).await?;
        let really = inhibited("PromptErrorRateHigh").await.context("the alert")?;
        ensure!(really == *inhibits, "{rule}: inhibited by Alertmanager: {really}");
    }
    Ok(())
}
