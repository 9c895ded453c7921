//! `/api/report`: what a dry run would have done, and whether that would have been right.

use hyper::StatusCode;

use super::auth::Caller;
use super::context::Context;
use super::error::ApiError;
use super::input::Query;
use super::reply::{Reply, answer};
use crate::api;
use crate::report::{Case, DryRunReport, Tally};
use crate::service::reports;
use crate::store::rfc3339;

const DEFAULT: &str = "7d";

pub async fn report(context: &Context, caller: &Caller, query: &Query) -> Result<Reply, ApiError> {
    caller.require_all_prompts()?;
    let now = context.engine.store.now().await?;
    let since = query.since(DEFAULT, now)?;
    let report = reports::report(&context.engine, since, now).await?;
    Ok(answer(StatusCode::OK, &view(&report, context.engine.policy.dry_run)))
}

fn view(report: &DryRunReport, dry_run: bool) -> api::DryRunReportView {
    let triggers = report.triggers.iter();
    api::DryRunReportView {
        since: rfc3339(report.since),
        until: rfc3339(report.until),
        dry_run,
        total: tally(&report.total()),
        triggers: triggers
            .map(|(name, counted)| api::TriggerTally { trigger: name.clone(), tally: tally(counted) })
            .collect(),
        cases: report.cases.iter().map(case).collect(),
        left_out: report.left_out,
        partial: report.partial,
    }
}

fn tally(tally: &Tally) -> api::TallyView {
    let Tally { right, wrong, unclear, .. } = *tally;
    api::TallyView { right, wrong, unclear, minutes_saved: tally.minutes_saved() }
}

fn case(case: &Case) -> api::CaseView {
    api::CaseView {
        incident: case.incident.to_string(),
        prompt: case.prompt.to_string(),
        from: case.dry_run.from.to_string(),
        to: case.dry_run.to.to_string(),
        at: rfc3339(case.dry_run.at),
        trigger: case.dry_run.trigger.clone(),
        verdict: case.verdict().as_str().to_owned(),
        instead: case.instead.as_str().to_owned(),
        text: case.instead.words().to_owned(),
        after_seconds: case.after.map(|after| after.as_secs()),
    }
}
