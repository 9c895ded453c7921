//! Answers of Slack that are not known to be final. For every incident and any finite sequence of such answers, at any
//! calls: once Slack works again, the root shows the current state, and every note was posted exactly once and in
//! order.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prompt_rollback::decision::note::NoteKind;
use prompt_rollback::decision::{Choice, Decide, Event, Incident, Operator};
use prompt_rollback::notify::slack::MESSAGE_INTERVAL;
use prompt_rollback::slack::render::{self, View};
use prompt_rollback::store::schedule::WorkItem;
use prompt_rollback_testkit::slack::{Fault, Message, Slack};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::kit::{INCIDENTS, MENTION, ON_CALL, SLACK_SOON, slack};
use super::office::Office;
use crate::common::kept::{SLACK, progress};
use crate::common::{again, alert, copy_prompt, critical, resolved};

const POST: &str = "chat.postMessage";
const UPDATE: &str = "chat.update";
/// Longer than any back-off.
const A_WHILE: Duration = Duration::from_secs(31);

async fn office() -> Result<Office> {
    // however many prompts are rolled back, each has its own thread
    Office::start(slack()?, MESSAGE_INTERVAL / 1_000, &[("GUARDS__MAX_AUTO_ROLLBACKS", "1000")]).await
}

/// Answers that are not known to be final.
fn bad_answers() -> Vec<Fault> {
    let mut faults: Vec<_> = [
        "update_failed",
        "fatal_error",
        "internal_error",
        "service_unavailable",
        "request_timeout",
        "team_added_to_org",
        "org_login_required",
        "a_code_of_next_year",
        "",
    ]
    .map(Fault::error)
    .into();
    faults.extend([408, 429, 500, 502, 503].map(Fault::status));
    faults.extend([200, 403, 502].map(Fault::html));
    faults.extend(["{\"ok\":false}", "{}", "{\"ok\":tr", "[]", "null"].map(Fault::body));
    faults.extend([Fault::drop_connection(), Fault::rate_limited(20)]);
    faults
}

/// The content of a message, without Slack's additions.
fn shown(message: &Value) -> Value {
    match message {
        Value::Object(fields) => {
            let added = ["block_id", "emoji", "verbatim"];
            let kept = fields.iter().filter(|(name, _)| !added.contains(&name.as_str()));
            kept.map(|(name, value)| (name.clone(), shown(value))).collect()
        }
        Value::Array(items) => items.iter().map(shown).collect(),
        other => other.clone(),
    }
}

/// The messages of `incident` in `channel`, by their marks, in the order in which they were posted.
fn marked(slack: &Slack, channel: &str, incident: &Incident) -> Vec<(String, Message)> {
    let of_incident = |message: Message| {
        let payload = message.metadata.as_ref()?["event_payload"].clone();
        (payload["incident"] == incident.id.0)
            .then(|| (payload["what"].as_str().unwrap_or_default().to_owned(), message))
    };
    slack.messages(channel).into_iter().filter_map(of_incident).collect()
}

/// Each message exists at most once, and replies are in the order of their notes.
fn once_and_in_order(slack: &Slack, incident: &Incident) -> Result<()> {
    for channel in [ON_CALL, INCIDENTS] {
        let mut times: HashMap<String, usize> = HashMap::new();
        let mut last = 0;
        for (what, _) in marked(slack, channel, incident) {
            let number = times.entry(what.clone()).or_default();
            *number += 1;
            ensure!(*number == 1, "{what} is in {channel} twice");
            if let Some(seq) = what.strip_prefix("reply-") {
                let seq: usize = seq.parse()?;
                ensure!(seq == last + 1, "{what} follows reply-{last}");
                last = seq;
            }
        }
    }
    Ok(())
}

/// Everything is shown, in its current state.
async fn told(office: &Office, incident: &Incident) -> Result<()> {
    let slack = &office.slack;
    once_and_in_order(slack, incident)?;
    let here = marked(slack, ON_CALL, incident);
    let root = &here.iter().find(|(what, _)| what == "root").context("a root")?.1;
    let item = WorkItem::Incident(incident.id.clone());
    let kept = progress(&office.redis, SLACK, &item, "deployed").await?;
    let deployed = serde_json::from_str(&kept.context("what was deployed")?)?;
    let view = View { incident, mention: Some(MENTION), deployed: Some(&deployed) };
    let message = render::root(&view);
    ensure!(root.text == message.text, "the root says {:?} and should {:?}", root.text, message.text);
    let (is, should) = (shown(&json!(root.blocks)), shown(&serde_json::to_value(&message.blocks)?));
    ensure!(is == should, "the root shows {is:#} and should {should:#}");
    let replies = here.iter().filter(|(what, _)| what.starts_with("reply-")).count();
    ensure!(replies == incident.notes.len() - 1, "{replies} replies for {} notes", incident.notes.len());
    let there = marked(slack, INCIDENTS, incident);
    let overview = &there.iter().find(|(what, _)| what == "overview").context("an overview")?.1;
    ensure!(overview.text == message.text, "the overview says {:?}", overview.text);
    ensure!(overview.visible_text().contains("/archives/"), "no link: {}", overview.visible_text());
    let files = slack.replies(root).into_iter().filter(|reply| !reply.files.is_empty()).count();
    let known = ["recovered", "escalated", "unverified"].contains(&incident.phase.as_str());
    let switches = incident.notes.iter().filter(|note| note.kind == NoteKind::Switched).count();
    let needed = usize::from(known && incident.switch.is_some());
    ensure!((needed..=switches).contains(&files), "{files} messages with files for {switches} rollbacks");
    Ok(())
}

fn choose(incident: &Incident, choice: Choice) -> Event {
    let (incident, operator) = (incident.id.clone(), Operator::recorded("maya"));
    Event::Decide(Decide { incident, choice, operator, target: None, force: false, question_number: None })
}

#[derive(Debug, Clone)]
enum Step {
    Fires(&'static str),
    Ends(&'static str),
    Decides(Choice),
    /// Long enough for every deadline.
    TimePasses,
    Tells,
    Fault {
        answer: usize,
        applied: bool,
        method: Option<&'static str>,
        times: usize,
        after: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let severity = prop::sample::select(vec!["medium", "high", "critical"]);
    let methods = [
        POST,
        UPDATE,
        "chat.getPermalink",
        "conversations.history",
        "conversations.replies",
        "files.getUploadURLExternal",
        "upload",
        "files.completeUploadExternal",
    ];
    let method = prop::option::weighted(0.8, prop::sample::select(methods.to_vec()));
    let choice = prop::sample::select(vec![Choice::Approve, Choice::Investigate, Choice::Dismiss, Choice::Undo]);
    let fault = (0..bad_answers().len(), any::<bool>(), method, 1..4_usize, 0..3_usize)
        .prop_map(|(answer, applied, method, times, after)| Step::Fault { answer, applied, method, times, after });
    let step = prop_oneof![
        2 => severity.clone().prop_map(Step::Fires),
        1 => severity.prop_map(Step::Ends),
        1 => choice.prop_map(Step::Decides),
        1 => Just(Step::TimePasses),
        4 => Just(Step::Tells),
        5 => fault,
    ];
    prop::collection::vec(step, 1..30)
}

async fn take(office: &Office, prompt: &str, step: &Step) -> Result<()> {
    let of = |severity: &str| alert(prompt, "v2", severity);
    match step {
        Step::Fires(severity) => office.fires(prompt, again(of(severity))).await,
        Step::Ends(severity) => office.fires(prompt, resolved(of(severity))).await,
        Step::Decides(choice) => office.happens(prompt, &choose(&office.incident(prompt).await?, *choice)).await,
        Step::TimePasses => {
            office.pass(Duration::from_secs(301)).await?;
            let incident = office.incident(prompt).await?.id;
            office.happens(prompt, &Event::Timer { incident, early: false }).await
        }
        Step::Tells => {
            office.notify().await?;
            office.pass(A_WHILE).await
        }
        Step::Fault { answer, applied, method, times, after } => {
            let mut fault = bad_answers().swap_remove(*answer).times(*times).after(*after);
            if let Some(method) = method {
                fault = fault.on(*method);
            }
            office.slack.inject(if *applied { fault.applied() } else { fault });
            Ok(())
        }
    }
}

async fn is_told_after(office: &Office, prompt: &str, steps: &[Step]) -> Result<()> {
    copy_prompt(&office.redis, "p", &[prompt.to_owned()]).await?;
    office.fires(prompt, alert(prompt, "v2", "medium")).await?;
    for step in steps {
        take(office, prompt, step).await?;
        for incident in office.incidents(prompt).await? {
            once_and_in_order(&office.slack, &incident)?;
        }
    }
    office.slack.heal();
    office.notify_all().await?;
    for incident in office.incidents(prompt).await? {
        told(office, &incident).await.with_context(|| format!("{} {:?}", incident.id, incident.notes))?;
    }
    Ok(())
}

#[test]
fn after_any_bad_answers_each_thread_is_complete_without_duplicates() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let office = runtime.block_on(office())?;
    let number = Cell::new(0);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(64) });
    let result = runner.run(&steps(), |steps| {
        number.set(number.get() + 1);
        let prompt = format!("p-{}", number.get());
        let told = runtime.block_on(is_told_after(&office, &prompt, &steps));
        office.slack.heal();
        told.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    result.map_err(|error| anyhow::anyhow!("{error}"))
}

#[tokio::test]
async fn an_edit_that_fails_holds_back_neither_replies_nor_other_threads() -> Result<()> {
    let office = office().await?;
    for (n, answer) in bad_answers().into_iter().enumerate() {
        let (prompt, other) = (format!("p-{n}"), format!("q-{n}"));
        copy_prompt(&office.redis, "p", &[prompt.clone(), other.clone()]).await?;
        office.fires(&prompt, alert(&prompt, "v2", "high")).await?;
        office.notify_all().await?;
        office.slack.inject(answer.clone().on(UPDATE));
        let incident = office.incident(&prompt).await?;
        office.happens(&prompt, &choose(&incident, Choice::Approve)).await?;
        office.fires(&other, critical(&other)).await?;
        for _ in 0..4 {
            office.notify().await?; // no time passes
        }
        let incident = office.incident(&prompt).await?;
        once_and_in_order(&office.slack, &incident)?;
        let root = office.root_of(&prompt).context("a root")?;
        let replies: Vec<_> = office.slack.replies(&root).iter().map(Message::visible_text).collect();
        ensure!(replies.iter().any(|reply| reply.contains("rolled v2 back to v1")), "{answer:?}: {replies:?}");
        ensure!(root.text.contains("Decision needed"), "{answer:?}: {}", root.text);
        told(&office, &office.incident(&other).await?).await.with_context(|| format!("{answer:?}"))?;
        office.slack.heal();
        office.notify_all().await?;
        told(&office, &office.incident(&prompt).await?).await.with_context(|| format!("{answer:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_root_returns_to_an_earlier_state_after_a_lost_answer() -> Result<()> {
    let office = office().await?;
    let (medium, high) = (alert("p", "v2", "medium"), alert("p", "v2", "high"));
    office.fires("p", medium).await?;
    office.fires("p", high.clone()).await?;
    office.notify_all().await?;
    office.slack.inject(Fault::drop_connection().applied().on(UPDATE));
    office.fires("p", resolved(high.clone())).await?;
    office.notify().await?;
    let root = office.root_of("p").context("a root")?;
    ensure!(root.visible_text().contains("(resolved)"), "{}", root.visible_text());
    office.slack.heal();
    office.fires("p", again(high)).await?;
    office.pass(A_WHILE).await?;
    office.notify_all().await?;
    told(&office, &office.incident("p").await?).await
}

#[tokio::test]
async fn a_reply_that_fails_keeps_later_ones_behind_it_and_the_root_goes_on() -> Result<()> {
    let office = office().await?;
    for (n, answer) in bad_answers().into_iter().enumerate() {
        let prompt = format!("p-{n}");
        copy_prompt(&office.redis, "p", std::slice::from_ref(&prompt)).await?;
        office.fires(&prompt, alert(&prompt, "v2", "high")).await?;
        office.notify_all().await?;
        office.slack.inject(answer.clone().on(POST).in_channel(ON_CALL));
        for choice in [Choice::Investigate, Choice::Approve] {
            office.happens(&prompt, &choose(&office.incident(&prompt).await?, choice)).await?;
            office.notify().await?;
            office.pass(A_WHILE).await?;
        }
        let root = office.root_of(&prompt).context("a root")?;
        ensure!(root.text.contains("Rolled back"), "{answer:?}: {}", root.text);
        ensure!(office.slack.replies(&root).is_empty(), "{answer:?}");
        office.slack.heal();
        office.notify_all().await?;
        told(&office, &office.incident(&prompt).await?).await.with_context(|| format!("{answer:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_thread_that_slack_does_not_take_holds_up_no_other() -> Result<()> {
    let office = office().await?;
    // more than are processed at once, all of them more urgent
    let stuck: Vec<String> = (0..6).map(|n| format!("stuck-{n}")).collect();
    copy_prompt(&office.redis, "p", &stuck).await?;
    copy_prompt(&office.redis, "p", &["other".to_owned()]).await?;
    for answer in [Fault::html(403), Fault::error("a_code_of_next_year"), Fault::status(500)] {
        office.slack.inject(answer.clone().on(POST).in_channel(ON_CALL));
        for prompt in &stuck {
            let high = alert(prompt, "v2", "high");
            office.fires(prompt, again(high.clone())).await?;
            office.fires(prompt, resolved(high)).await?;
        }
        let mut product = alert("other", "v2", "medium");
        product["labels"]["decider"] = json!("product-pm"); // without a channel of its own: in the one of all incidents
        office.fires("other", again(product.clone())).await?;
        for _ in 0..12 {
            office.notify().await?;
        }
        let other = office.incident("other").await?;
        let there = marked(&office.slack, INCIDENTS, &other);
        ensure!(there.iter().any(|(what, _)| what == "root"), "{answer:?}: {there:?}");
        office.slack.heal();
        office.notify_all().await?;
        office.fires("other", resolved(product)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_rate_limit_on_messages_does_not_hold_edits_or_the_reverse() -> Result<()> {
    let office = office().await?;
    copy_prompt(&office.redis, "p", &["q".to_owned()]).await?;
    for prompt in ["p", "q"] {
        office.fires(prompt, alert(prompt, "v2", "high")).await?;
    }
    office.notify_all().await?;
    let decide = async |choice| -> Result<()> {
        for prompt in ["p", "q"] {
            office.happens(prompt, &choose(&office.incident(prompt).await?, choice)).await?;
        }
        office.notify().await
    };
    office.slack.inject(Fault::rate_limited(30).on(POST));
    decide(Choice::Investigate).await?;
    for prompt in ["p", "q"] {
        let root = office.root_of(prompt).context("a root")?;
        ensure!(root.text.contains("Under investigation"), "{}", root.text);
        ensure!(office.slack.replies(&root).is_empty(), "the channel waits");
    }
    office.slack.heal();
    office.pass(A_WHILE).await?;
    office.notify_all().await?;
    // edits are limited for the workspace: once that is known, no edit is attempted
    let edits = || office.slack.calls_of(UPDATE).len();
    office.slack.inject(Fault::rate_limited(30).on(UPDATE));
    decide(Choice::Approve).await?;
    let tried = edits();
    decide(Choice::Undo).await?;
    ensure!(edits() == tried, "{} edits while they are on hold", edits() - tried);
    for prompt in ["p", "q"] {
        let root = office.root_of(prompt).context("a root")?;
        let replies: Vec<_> = office.slack.replies(&root).iter().map(Message::visible_text).collect();
        ensure!(replies.len() == 3 && replies[1].contains("rolled v2 back"), "{replies:?}");
    }
    office.slack.heal();
    office.pass(A_WHILE).await?;
    office.notify_all().await?;
    for prompt in ["p", "q"] {
        told(&office, &office.incident(prompt).await?).await?;
    }
    Ok(())
}

#[tokio::test]
async fn whoever_asks_us_to_wait_for_an_hour_is_asked_again_after_a_minute() -> Result<()> {
    let office = office().await?;
    office.slack.inject(Fault::rate_limited(3_600).on(POST).in_channel(ON_CALL).times(1));
    office.fires("p", alert("p", "v2", "high")).await?;
    office.notify().await?;
    let left = office.engine.store.held("on-call").await?.context("on hold")?;
    ensure!((50..=60).contains(&left.as_secs()), "{left:?}");
    office.pass(Duration::from_secs(61)).await?;
    office.notify().await?;
    ensure!(office.root_of("p").is_some());
    Ok(())
}

#[tokio::test]
async fn an_outage_is_not_filled_with_tries_and_ends_with_the_worst_first() -> Result<()> {
    let office = office().await?.working();
    let prompts: Vec<String> = (0..12).map(|n| format!("p-{n}")).collect();
    copy_prompt(&office.redis, "p", &prompts).await?;
    copy_prompt(&office.redis, "p", &["worst".to_owned()]).await?;
    office.slack.inject(Fault::status(503));
    for prompt in &prompts {
        office.fires(prompt, alert(prompt, "v2", "high")).await?;
    }
    office.fires("worst", critical("worst")).await?;
    let before = office.slack.calls_of("auth.test").len();
    let asks = |slack: &Slack| (slack.calls_of("auth.test").len() >= before + 3).then_some(());
    office.slack.wait_for("three looks at Slack", SLACK_SOON, asks).await?;
    let tries = office.slack.calls().len();
    ensure!(tries < 20, "{tries} calls in the first seconds of an outage");
    office.slack.heal();
    let all = |slack: &Slack| Some(slack.roots(ON_CALL)).filter(|roots| roots.len() == prompts.len() + 1);
    let roots = office.slack.wait_for("all roots", SLACK_SOON, all).await?;
    ensure!(roots[0].visible_text().contains("`worst`"), "{}", roots[0].text);
    Ok(())
}
