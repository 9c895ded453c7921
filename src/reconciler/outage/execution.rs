//! Carries out what a person decided about all members.

use std::collections::HashMap;
use std::convert::Infallible;

use futures_util::future::join_all;

use super::{Coordinator, MemberUpdate};
use crate::decision::outage::{Done, Execution, Member, OutageAction};
use crate::decision::{Answer, Event, Incident, Operator, RefusalCode};
use crate::engine::EngineError;
use crate::service::coordinate::update;
use crate::store::StoreError;
use crate::store::outage::Coordinated;

/// Prompts changed at once, of those of one round.
const AT_ONCE: usize = 16;

impl Coordinator {
    /// Carries out `execution` on the next members. `None`: the coordinating incident is gone.
    pub(super) async fn execute(
        &self,
        found: Coordinated,
        execution: &Execution,
        most: usize,
    ) -> Result<Option<(Coordinated, Vec<MemberUpdate>)>, EngineError> {
        // the number of the answered question is stored first, so that a repetition after a crash overrules no
        // objection
        let due: Vec<_> = found.members.iter().filter(|m| m.is_due(execution)).take(most).cloned().collect();
        let mut asked = HashMap::new();
        let incidents = join_all(due.iter().map(|member| self.incident(&member.incident))).await;
        for (member, incident) in due.iter().zip(incidents) {
            let question_number = match member.asked {
                Some((at, question_number)) if at == execution.at => question_number,
                _ => incident?.map_or(member.question_number, |incident| incident.question_number),
            };
            asked.insert(member.incident.clone(), question_number);
        }
        let write = update(&self.engine, found, |found, _| {
            for member in &mut found.members {
                if let Some(question_number) = asked.get(&member.incident) {
                    member.asked = Some((execution.at, *question_number));
                }
            }
            Ok::<_, Infallible>(())
        });
        let Some((found, _)) = write.await? else { return Ok(None) };
        let mut changes = Vec::new();
        for some in due.chunks(AT_ONCE) {
            let acts =
                some.iter().map(|member| self.execute_one(member, execution, asked.get(&member.incident).copied()));
            for result in join_all(acts).await {
                match result {
                    Ok(change) => changes.push(change),
                    Err(EngineError::Contended) => {} // retried next time
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Some((found, changes)))
    }

    async fn execute_one(
        &self,
        member: &Member,
        execution: &Execution,
        question_number: Option<u32>,
    ) -> Result<MemberUpdate, EngineError> {
        let done = self.decide(member, execution, question_number).await?;
        let now = self.incident(&member.incident).await?;
        Ok(MemberUpdate { done: Some(done), now, ..MemberUpdate::of(member) })
    }

    /// Decides about one prompt like the button of its own incident.
    async fn decide(
        &self,
        member: &Member,
        execution: &Execution,
        question_number: Option<u32>,
    ) -> Result<Done, EngineError> {
        let event = Event::Decide(member.decision(execution, question_number));
        let done = |failed, text: String| Ok(Done { execution: execution.at, failed, text });
        let answer = match self.engine.handle(&member.prompt, &event).await {
            Ok(handled) => handled.answer,
            Err(EngineError::Store(error @ (StoreError::Broken { .. } | StoreError::NewerRecord { .. }))) => {
                return done(true, error.to_string());
            }
            Err(error) => return Err(error),
        };
        match answer {
            Answer::Changed { to, .. } => done(false, format!("{to} is served")),
            Answer::Confirming { .. } => done(false, "being confirmed".to_owned()),
            Answer::Refused(refusal) => {
                let now = self.incident(&member.incident).await?;
                // it was already done, before a crash
                let ours = refusal.code == RefusalCode::AlreadyDecided && now.is_some_and(|now| did(&now, execution));
                done(!ours, if ours { "done".to_owned() } else { refusal.message })
            }
            _ => done(false, "done".to_owned()),
        }
    }
}

/// Whether `incident` was decided by `execution`.
fn did(incident: &Incident, execution: &Execution) -> bool {
    let by = |operator: &Operator| *operator == execution.by;
    match execution.what {
        OutageAction::Undo => {
            incident.decided_by.as_ref().is_some_and(by) && incident.closed_at.is_some_and(|at| at >= execution.at)
        }
        _ => {
            incident.switch.as_ref().is_some_and(|switch| by(&switch.operator) && switch.at >= execution.at)
                || incident.pending().is_some_and(|pending| by(&pending.operator) && pending.at >= execution.at)
        }
    }
}
