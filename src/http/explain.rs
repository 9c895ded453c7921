//! `/api/prompts/{prompt}/explain`: what would happen if alerts fired now.

use std::time::Duration;

use hyper::StatusCode;

use super::context::Context;
use super::error::{ApiError, no_prompt};
use super::input::{ApiResult, Query, prompt_name};
use super::reply::{Reply, answer};
use super::wait::patience;
use crate::api;
use crate::decision::{Event, HoldingGuard, PromptName, RehearsedTarget};
use crate::rules::{AlertRule, RuleSource, Rules};
use crate::service::explain::{self, ForeseenAlert};
use crate::store::rfc3339;

/// How long an answer waits for the rules of Prometheus, whose query may take 2 s.
const RULES: Duration = Duration::from_secs(3);
/// Rules of one answer; an alert of each is decided about.
const MAX_RULES: usize = 100;
/// Longest name of an alert rule, in characters.
const MAX_NAME: usize = 200;

pub async fn explain(context: &Context, prompt: &str, query: &Query) -> ApiResult<Reply> {
    let prompt = prompt_name(prompt)?;
    let named = query.text("alert");
    if named.is_some_and(|name| name.is_empty() || name.chars().count() > MAX_NAME) {
        let message = format!("alert: expected the name of an alert rule, at most {MAX_NAME} characters long");
        return Err(ApiError::bad_request(message));
    }
    // notices what someone has just SET, as the receiver will have done when an alert arrives; while Redis refuses writes,
    // the answer is about what was noticed before
    let _ = context.engine.handle(&prompt, &Event::CheckDrift).await;
    let rules = context.books.rules.rules(patience(RULES, context.request_timeout)).await;
    Ok(answer(StatusCode::OK, &view(context, &prompt, named, rules).await?))
}

/// What alerts of `rules` would do, or only the alert that is `named`.
pub(super) async fn view(
    context: &Context,
    prompt: &PromptName,
    named: Option<&str>,
    rules: Rules,
) -> ApiResult<api::ExplainView> {
    let Rules { all, from } = rules;
    let apply: Vec<&AlertRule> = all.iter().filter(|rule| explain::applies(rule, &context.labels, prompt)).collect();
    let is_asked = |rule: &&&AlertRule| named.map_or(rule.is_trigger(), |name| rule.name == name);
    let mut asked: Vec<&AlertRule> = apply.iter().filter(is_asked).copied().collect();
    let left_out = asked.len().saturating_sub(MAX_RULES);
    asked.truncate(MAX_RULES);
    // a prompt that does not exist is named first, whatever the alert
    let explained = explain::explain(&context.engine, &context.labels, prompt, &asked).await?;
    let explained = explained.ok_or_else(|| no_prompt(prompt))?;
    if asked.is_empty() && named.is_some() {
        return Err(unknown_alert(&apply));
    }
    let (rules, rules_fault) = match from {
        RuleSource::Prometheus => ("prometheus", None),
        RuleSource::Shipped(fault) => ("shipped", fault),
    };
    Ok(api::ExplainView {
        prompt: prompt.to_string(),
        at: rfc3339(explained.now),
        rules: rules.to_owned(),
        rules_fault,
        left_out,
        dismissed: explained.dismissed,
        alerts: explained.alerts.into_iter().map(foreseen).collect(),
    })
}

/// Names the rules that there are.
fn unknown_alert(rules: &[&AlertRule]) -> ApiError {
    let mut names: Vec<&str> = rules.iter().filter(|rule| rule.is_trigger()).map(|rule| rule.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let more = if names.len() > MAX_RULES { ", …" } else { "" };
    names.truncate(MAX_RULES);
    let message = format!("alert: no alert rule has this name. Rules: {}{more}", names.join(", "));
    ApiError::new(StatusCode::NOT_FOUND, "unknown_alert", message)
}

fn foreseen(ForeseenAlert { name, version, percent, trigger, rehearsed }: ForeseenAlert) -> api::ForeseenAlertView {
    api::ForeseenAlertView {
        alert: name,
        version: version.to_string(),
        percent,
        severity: trigger.as_ref().map(|trigger| trigger.severity.to_string()),
        action: trigger.as_ref().map(|trigger| trigger.action.to_string()),
        remarks: trigger.map(|trigger| trigger.remarks).unwrap_or_default(),
        outcome: rehearsed.outcome.to_string(),
        reason: rehearsed.reason.to_string(),
        text: rehearsed.text,
        target: rehearsed.target.map(target),
        guards: rehearsed.guards.into_iter().map(guard).collect(),
        incident: rehearsed.incident.map(|id| id.to_string()),
        phase: rehearsed.phase.map(|phase| phase.to_string()),
        decider: rehearsed.decider,
        deadline_at: rehearsed.deadline.map(rfc3339),
    }
}

fn target(RehearsedTarget { version, known_good }: RehearsedTarget) -> api::ForeseenTargetView {
    api::ForeseenTargetView {
        version: version.to_string(),
        known_good_at: known_good.map(|good| rfc3339(good.at)),
        known_good_by: known_good.map(|good| good.by.to_string()),
    }
}

fn guard(HoldingGuard { held, left }: HoldingGuard) -> api::ForeseenGuardView {
    api::ForeseenGuardView {
        reason: held.guard.to_string(),
        detail: held.detail,
        left_seconds: left.map(|left| left.as_secs()),
    }
}
