//! The clients of receivers: Alertmanagers, people with the API, a person who clicks, a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use prompt_rollback_testkit::Rng;
use prompt_rollback_testkit::alerts::{alert, deliver};
use prompt_rollback_testkit::http::{Answer, Http};
use prompt_rollback_testkit::slack::Slack;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::history::{Call, Got, Recorder, change, seen, text, understood};
use crate::servers::PATIENCE;

/// Prompts by purpose. `switch-*`: everything at once, with a checked history. `once-*`: one critical alert, from both
/// Alertmanagers. `ask-*`: questions with deadlines. `step-*`: a gradual rollback, and a canary.
pub const SWITCHES: [&str; 2] = ["flip-0", "flip-1"];
pub const ONCE: [&str; 3] = ["once-0", "once-1", "once-2"];
pub const ASKS: [&str; 3] = ["ask-0", "ask-1", "ask-2"];
pub const GRADUAL: &str = "step-0";
pub const CANARY: &str = "step-1";

/// A critical alert that was answered with 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub prompt: String,
    pub version: String,
    pub outcome: String,
    pub incident: Option<String>,
}

pub struct Clients {
    pub https: Vec<Http>,
    pub urls: Vec<String>,
    pub slack: Arc<Slack>,
    pub recorder: Recorder,
    pub accepted: Mutex<Vec<Accepted>>,
    /// The faults are over: no new requests.
    pub calm: AtomicBool,
    pub rng: Rng,
}

impl Clients {
    fn any<'a>(&'a self, rng: &mut Rng) -> &'a Http {
        rng.pick(&self.https)
    }

    fn goes_on(&self) -> bool {
        !self.calm.load(Ordering::Relaxed)
    }

    /// One Alertmanager of the cluster, which sends each alert until it is accepted.
    pub async fn alertmanager(self: Arc<Self>, name: &'static str) -> Result<()> {
        let mut rng = self.rng.fork(name);
        let mut queue: Vec<(&str, Value)> = Vec::new();
        queue.extend(ONCE.iter().map(|prompt| (*prompt, alert(prompt, "v2", "critical"))));
        for (prompt, severity, limit) in [(ASKS[0], "high", "1m"), (ASKS[1], "medium", "2m"), (ASKS[2], "high", "2m")] {
            let mut asked = alert(prompt, "v2", severity);
            asked["labels"]["time_limit"] = json!(limit);
            queue.push((prompt, asked));
        }
        for prompt in SWITCHES {
            queue
                .extend((0..5).map(|_| (prompt, alert(prompt, ["v1", "v2", "v3"][rng.below(3) as usize], "critical"))));
        }
        while !queue.is_empty() {
            let (prompt, mut alert) = queue.swap_remove(rng.below(queue.len() as u64) as usize);
            // the two of a cluster differ in this
            alert["startsAt"] = json!(format!("2026-11-21T00:38:16.{}Z", 100 + rng.below(900)));
            self.until_taken(name, &mut rng, prompt, &alert).await?;
            tokio::time::sleep(Duration::from_millis(rng.below(250))).await;
        }
        Ok(())
    }

    /// Sends firing alerts again after a while, whatever was answered before.
    pub async fn repeat(&self) -> Result<()> {
        let mut rng = self.rng.fork("repeat");
        for prompt in ONCE {
            self.until_taken("repeat", &mut rng, prompt, &alert(prompt, "v2", "critical")).await?;
        }
        Ok(())
    }

    async fn until_taken(&self, client: &str, rng: &mut Rng, prompt: &str, alert: &Value) -> Result<()> {
        let version = text(&alert["labels"]["version"]);
        let critical = alert["labels"]["severity"] == "critical";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = async {
                let answer = deliver(self.any(rng), std::slice::from_ref(alert)).await;
                understood(answer, |body| outcome(&version, &body["results"][0]))
            };
            let got = match critical {
                true => {
                    let call = Call::Critical { version: version.clone() };
                    self.recorder.record(client, prompt, call, request).await
                }
                false => request.await,
            };
            if got != Got::Unknown {
                if critical {
                    let (outcome, incident) = match &got {
                        Got::Changed { incident, .. } => ("rolled_back".to_owned(), incident.clone()),
                        Got::Noted { outcome, .. } => (outcome.clone(), None),
                        other => (format!("{other:?}"), None),
                    };
                    let accepted = Accepted { prompt: prompt.to_owned(), version, outcome, incident };
                    self.accepted.lock().await.push(accepted);
                }
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "{client}: {alert} was not taken within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(30 + rng.below(150))).await;
        }
    }

    /// A person with the API, in a hurry: unanswered requests are not repeated.
    pub async fn operator(self: Arc<Self>, name: &'static str) {
        let mut rng = self.rng.fork(name);
        for n in 0..14 {
            if !self.goes_on() {
                return;
            }
            let prompt = *rng.pick(&SWITCHES);
            self.act(&mut rng, name, prompt, format!("{name}/{n}")).await;
            tokio::time::sleep(Duration::from_millis(rng.below(350))).await;
        }
    }

    async fn act(&self, rng: &mut Rng, client: &str, prompt: &str, name: String) {
        // as in the log
        let operator = format!("{name} (api)");
        let http = self.any(rng).clone();
        let version = format!("v{}", 1 + rng.below(3));
        let api = format!("/api/prompts/{prompt}");
        let record = async |call, path: String, body: Value, read: fn(&Value) -> Option<Got>| {
            let request = async { understood(http.post_json(&path, &body).await, read) };
            self.recorder.record(client, prompt, call, request).await
        };
        match rng.below(10) {
            0..=3 => {
                let force = rng.chance(700);
                let body = json!({"version": version, "force": force, "operator": name});
                record(Call::Activate { version, force, operator }, format!("{api}/activate"), body, change).await;
            }
            4 | 5 => {
                let from = rng.chance(500).then(|| version.clone());
                let target = rng.chance(400).then(|| format!("v{}", 1 + rng.below(3)));
                let mut body = json!({"prompt": prompt, "operator": name});
                for (field, value) in [("from_version", &from), ("target_version", &target)] {
                    if let Some(value) = value {
                        body[field] = json!(value);
                    }
                }
                record(Call::Rollback { from, target, operator }, "/api/rollback".to_owned(), body, change).await;
            }
            6 | 7 => {
                let (call, path) = match rng.chance(400) {
                    true => (Call::Pause, "/api/pause"),
                    false => (Call::Resume, "/api/resume"),
                };
                let body = json!({"prompt": prompt, "operator": name});
                let read = |body: &Value| Some(Got::Switched { changed: body["changed"].as_bool()? });
                record(call, path.to_owned(), body, read).await;
            }
            _ => {
                let Ok(found) = http.get(&api).await else { return };
                let found = found.json().unwrap_or_default();
                let Some(incident) =
                    found["incidents"].as_array().filter(|all| !all.is_empty()).map(|all| rng.pick(all))
                else {
                    return;
                };
                let path = format!("/api/incidents/{}/decide", text(&incident["id"]));
                let (decision, call) = match (incident["flip"].is_null(), rng.chance(600)) {
                    (false, _) => ("undo", Call::Undo { operator: operator.clone() }),
                    (true, true) => ("approve", Call::Approve { operator: operator.clone() }),
                    (true, false) => ("dismiss", Call::Dismiss),
                };
                let read = |body: &Value| if body["phase"].is_string() { Some(Got::Done) } else { change(body) };
                record(call, path, json!({"decision": decision, "operator": name}), read).await;
            }
        }
    }

    /// Reads the active version repeatedly.
    pub async fn reader(self: Arc<Self>) {
        let mut rng = self.rng.fork("reader");
        while self.goes_on() {
            let prompt = *rng.pick(&SWITCHES);
            let http = self.any(&mut rng).clone();
            let request = async { understood(http.get(&format!("/api/prompts/{prompt}")).await, seen) };
            self.recorder.record("reader", prompt, Call::Look, request).await;
            tokio::time::sleep(Duration::from_millis(40 + rng.below(160))).await;
        }
    }

    /// Decides about questions in Slack now and then, at the receiver that asked.
    pub async fn clicker(self: Arc<Self>) {
        let mut rng = self.rng.fork("clicker");
        while self.goes_on() {
            tokio::time::sleep(Duration::from_millis(200 + rng.below(600))).await;
            let roots = self.slack.roots("on-call");
            let asks: Vec<_> = roots
                .iter()
                .filter(|root| ASKS.iter().any(|prompt| root.visible_text().contains(&format!("Prompt*\n`{prompt}`"))))
                .filter(|root| !root.action_ids().is_empty())
                .collect();
            if asks.is_empty() {
                continue;
            }
            let root = *rng.pick(&asks);
            let buttons = root.action_ids();
            let wanted: Vec<_> =
                buttons.iter().filter(|id| ["approve", "investigate", "dismiss"].contains(&id.as_str())).collect();
            if wanted.is_empty() {
                continue;
            }
            self.slack.set_request_url(format!("{}/slack/interactions", rng.pick(&self.urls)));
            let click = self.slack.click("U1", root, rng.pick(&wanted).as_str());
            // Slack sends a click once; some arrive twice
            let _ = if rng.chance(300) { click.send_times(2).await.map(drop) } else { click.send().await.map(drop) };
        }
    }

    /// Starts a gradual rollback and a canary, repeating each until it is known to be accepted.
    pub async fn stepper(self: Arc<Self>, lossy: bool) -> Result<()> {
        let mut rng = self.rng.fork("stepper");
        let gradual = json!({
            "prompt": GRADUAL, "from_version": "v2", "strategy": "gradual", "stages": [75, 50, 25, 0], "hold": "40s",
            "operator": "stepper/gradual",
        });
        let canary = json!({
            "version": "v2", "canary": true, "stages": [10, 50, 100], "hold": "50s", "operator": "stepper/canary",
        });
        tokio::time::sleep(Duration::from_millis(rng.below(1_500))).await;
        let path = format!("/api/prompts/{CANARY}/activate");
        for (path, body) in [("/api/rollback", gradual), (path.as_str(), canary)] {
            let deadline = Instant::now() + PATIENCE;
            let mut said = String::new();
            loop {
                if let Ok(answer) = self.any(&mut rng).post_json(path, &body).await {
                    // if commits may be lost, a refusal is an answer as well
                    if is_taken(&answer) || (lossy && answer.status < 500) {
                        break;
                    }
                    said = answer.text();
                }
                anyhow::ensure!(Instant::now() < deadline, "{path} was not taken: {body}: {said}");
                tokio::time::sleep(Duration::from_millis(100 + rng.below(200))).await;
            }
        }
        Ok(())
    }
}

/// Accepted now, or by an earlier attempt whose answer was lost.
fn is_taken(answer: &Answer) -> bool {
    let code = answer.json().map(|body| text(&body["error"]["code"])).unwrap_or_default();
    answer.status == 200 || ["split_under_way", "moved", "already_decided"].contains(&code.as_str())
}

/// The outcome of an alert. The log says where a rollback went; the answer only names the incident.
fn outcome(version: &str, result: &Value) -> Option<Got> {
    let incident = result["incident"].as_str().map(str::to_owned);
    Some(match result["outcome"].as_str()? {
        "rolled_back" => Got::Changed { from: Some(version.to_owned()), to: String::new(), incident },
        outcome => Got::Noted { outcome: outcome.to_owned(), reason: text(&result["reason"]) },
    })
}
