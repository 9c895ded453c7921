//! The cost of Slack: a real receiver, built for release, a real redis-server, and the double of Slack, over loopback.
//!
//! `cargo bench --bench slack [-- --quick]`
//!
//! Ratios compare two things that are measured in turns in the same run. Fails if a target is missed.

#[path = "../shared/figures.rs"]
mod figures;
#[allow(dead_code, reason = "shared with the other bench")]
#[path = "../shared/wire.rs"]
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::decision::{IncidentId, VersionName};
use prompt_rollback::slack::render::{Button, action};
use prompt_rollback_testkit::http::encode;
use prompt_rollback_testkit::slack::{Fault, Slack};
use prompt_rollback_testkit::{Receiver, Redis};
use serde_json::{Value, json};

use figures::{Figure, Times, ms, table};
use wire::{Wire, http_length};

const APPROVER: &str = "U1";

fn workspace() -> Result<Slack> {
    Slack::builder().user(APPROVER, "maya", "Maya Lind").channel("C1", "on-call").channel("C2", "incidents").start()
}

/// A receiver; without a double, one that does not use Slack.
fn receiver(redis: &Redis, slack: Option<&Slack>) -> Result<Receiver> {
    let mut builder = Receiver::builder(env!("CARGO_BIN_EXE_prompt-rollback"))
        .config("[guards]\nmax_auto_rollbacks = 1000000000\n")
        .env("PROMPT_ROLLBACK_REDIS__URL", redis.receiver_url());
    if let Some(slack) = slack {
        for (key, value) in [
            ("SLACK__BOT_TOKEN", slack.bot_token().to_owned()),
            ("SLACK__SIGNING_SECRET", slack.signing_secret().to_owned()),
            ("SLACK__API_URL", slack.api_url()),
            ("DECIDERS__ON_CALL__CHANNEL", "#on-call".to_owned()),
            ("DECIDERS__ON_CALL__APPROVERS", APPROVER.to_owned()),
        ] {
            builder = builder.env(format!("PROMPT_ROLLBACK_{key}"), value);
        }
    }
    builder.start()
}

fn request(path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nhost: bench\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The body of a response that must be 2xx.
fn body(answer: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(answer)?;
    ensure!(text.starts_with("HTTP/1.1 2"), "{text}");
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(if body.is_empty() { Value::Null } else { serde_json::from_str(body)? })
}

/// Creates prompts with the rollback target `v1` and the active version `v2`.
fn ship(http: &mut Wire, prompts: &[String]) -> Result<()> {
    for prompt in prompts {
        for (what, body_) in [
            ("versions", json!({"version": "v1", "known_good": true})),
            ("activate", json!({"version": "v1"})),
            ("versions", json!({"version": "v2"})),
            ("activate", json!({"version": "v2"})),
        ] {
            let sent = request(&format!("/api/prompts/{prompt}/{what}"), "", &body_.to_string());
            body(http.ask(&sent, http_length)?)?;
        }
    }
    Ok(())
}

fn webhook(prompts: &[String], severity: &str) -> Vec<u8> {
    let alert = |prompt: &String| {
        json!({
            "status": "firing",
            "labels": {"alertname": "PromptErrorRate", "prompt": prompt, "version": "v2", "severity": severity},
            "annotations": {"summary": format!("{prompt} v2 fails")},
            "startsAt": jiff::Timestamp::now().to_string(),
            "endsAt": "0001-01-01T00:00:00Z",
            "fingerprint": format!("{prompt} {severity}"),
        })
    };
    let alerts: Vec<Value> = prompts.iter().map(alert).collect();
    let body = json!({"receiver": "r", "status": "firing", "version": "4", "groupKey": "{}", "alerts": alerts});
    request("/webhooks/alertmanager", "content-type: application/json\r\n", &body.to_string())
}

/// Opens an incident for each prompt, and returns their ids.
fn open(http: &mut Wire, prompts: &[String]) -> Result<Vec<String>> {
    let answer = body(http.ask(&webhook(prompts, "high"), http_length)?)?;
    let results = answer["results"].as_array().context("results")?;
    results.iter().map(|result| Ok(result["incident"].as_str().context("an incident")?.to_owned())).collect()
}

/// The request of a click on Approve.
fn click(slack: &Slack, incident: &str, number: usize) -> Result<Vec<u8>> {
    let [from, to] = ["v2", "v1"].map(VersionName::parse);
    let button =
        Button { incident: IncidentId(incident.to_owned()), from: Some(from?), to: Some(to?), question_number: 1 };
    let payload = json!({
        "type": "block_actions",
        "user": {"id": APPROVER, "username": "maya", "team_id": "T1"},
        "team": {"id": "T1"},
        "channel": {"id": "C1", "name": "on-call"},
        "container": {"type": "message", "message_ts": "1800000000.000100", "channel_id": "C1"},
        "actions": [{
            "type": "button", "block_id": "b", "action_id": action::APPROVE, "value": button.encode(),
            "action_ts": format!("1800000000.{number:06}"),
        }],
    });
    let form = format!("payload={}", encode(&payload.to_string()));
    let (seconds, signature) = slack.sign(&form);
    let headers = format!(
        "content-type: application/x-www-form-urlencoded\r\nx-slack-request-timestamp: {seconds}\r\nx-slack-signature: {signature}\r\n"
    );
    Ok(request("/slack/interactions", &headers, &form))
}

fn names(group: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{group}-{n:05}")).collect()
}

/// How many of these serve `v1`.
fn rolled_back(redis: &Redis, prompts: &[String]) -> Result<usize> {
    let mut connection = redis::Client::open(redis.admin_url())?.get_connection()?;
    let keys: Vec<String> = prompts.iter().map(|prompt| format!("{{prompts}}:active:{prompt}")).collect();
    let active: Vec<Option<String>> = redis::cmd("MGET").arg(keys).query(&mut connection)?;
    Ok(active.iter().filter(|version| version.as_deref() == Some("v1")).count())
}

/// Clicks while the double answers, and while each of its answers takes ten seconds. The response to a click follows
/// its commit, so its time includes the commit.
fn clicks(quick: bool) -> Result<Vec<Figure>> {
    let count = if quick { 300 } else { 1_000 };
    let mut measured = Vec::new();
    for hangs in [false, true] {
        let (slack, redis) = (workspace()?, Redis::start()?);
        let receiver = receiver(&redis, Some(&slack))?;
        if hangs {
            slack.inject(Fault::hang(Duration::from_secs(10)));
        }
        let mut http = Wire::connect(&receiver.addr())?;
        let prompts = names("click", count);
        ship(&mut http, &prompts)?;
        let incidents = open(&mut http, &prompts)?;
        let mut times = Times::default();
        for (number, incident) in incidents.iter().enumerate() {
            let request = click(&slack, incident, number)?;
            body(times.time(|| http.ask(&request, http_length))?)?;
        }
        ensure!(rolled_back(&redis, &prompts)? == count, "not every click was committed");
        if hangs {
            let hung = slack.calls().iter().any(|call| call.status == 0 && call.method.starts_with("chat."));
            ensure!(hung, "nothing hung");
        }
        measured.push(times);
    }
    let [mut calm, mut hanging] = <[Times; 2]>::try_from(measured).ok().context("two runs")?;
    let (p50, p99, worst) = (calm.quantile(0.5), calm.quantile(0.99), hanging.quantile(1.0));
    Ok(vec![
        Figure {
            what: "click to committed and acknowledged, p99",
            found: format!("{} (p50 {}, {count} clicks)", ms(p99), ms(p50)),
            target: "< 5 ms",
            met: p99 < 0.005,
        },
        Figure {
            what: "acknowledgement while Slack hangs, worst",
            found: format!("{} ({count} clicks)", ms(worst)),
            target: "< 1 s",
            met: worst < 1.0,
        },
    ])
}

/// Rollbacks, one at a time, in turns: on a receiver without Slack, and on one with a thousand pending incidents.
fn backlog(quick: bool) -> Result<Figure> {
    let (turns, each) = if quick { (6, 50) } else { (20, 50) };
    let slack = workspace()?;
    let [idle_redis, busy_redis] = [Redis::start()?, Redis::start()?];
    let receivers = [receiver(&idle_redis, None)?, receiver(&busy_redis, Some(&slack))?];
    let mut http = [Wire::connect(&receivers[0].addr())?, Wire::connect(&receivers[1].addr())?];
    let prompts = names("switch", turns * each);
    for http in &mut http {
        ship(http, &prompts)?;
    }
    let many = names("told", 1_000);
    ship(&mut http[1], &many)?;
    open(&mut http[1], &many)?;
    let mut times = [Times::default(), Times::default()];
    for turn in prompts.chunks(each) {
        for (http, times) in http.iter_mut().zip(&mut times) {
            for prompt in turn {
                let request = webhook(std::slice::from_ref(prompt), "critical");
                let answer = body(times.time(|| http.ask(&request, http_length))?)?;
                ensure!(answer["results"][0]["outcome"] == "rolled_back", "{answer}");
            }
        }
    }
    let told = slack.roots("C1").len();
    ensure!((1..500).contains(&told), "{told} incidents were told: nothing, or no backlog any more");
    let [idle, busy] = times.each_mut().map(|times| (times.quantile(0.5), times.quantile(0.99)));
    let ratio = busy.0 / idle.0;
    Ok(Figure {
        what: "a webhook's p50 with 1,000 incidents to tell / without Slack",
        found: format!("{ratio:.2} ({} of {}; p99 {} of {})", ms(busy.0), ms(idle.0), ms(busy.1), ms(idle.1)),
        target: "<= 2",
        met: ratio <= 2.0,
    })
}

fn main() -> Result<ExitCode> {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let mut figures = clicks(quick)?;
    figures.push(backlog(quick)?);
    Ok(table(&figures))
}
