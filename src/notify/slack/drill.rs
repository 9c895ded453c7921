//! Shows a drill: one message, in the channel where a real question would be asked.

use std::time::Duration;

use super::posting::{Kept, ThreadProgress};
use super::{Halt, SlackNotifier};
use crate::service::drills;
use crate::slack::render;
use crate::store::DrillId;
use crate::store::drill::DrillProgress;

/// After an outage of Slack, old drills are not worth showing.
const OVER: Duration = Duration::from_secs(600);

impl SlackNotifier {
    pub(super) async fn notify_drill(&self, progress: &mut ThreadProgress<'_>, id: &DrillId) -> Result<(), Halt> {
        let store = &self.engine.store;
        let Some(drill) = store.drill(id).await? else { return Ok(()) };
        let Some(decision) = drills::decision(&drill) else { return Ok(()) };
        if drill.notified.is_some() || store.now().await?.since(drill.started) >= OVER {
            return Ok(());
        }
        let own =
            self.deciders.get(&self.engine.policy.fallback_decider).and_then(|decider| decider.channel.as_deref());
        let channel = own.unwrap_or(&self.incident_channel);
        let message = render::drill(&render::DrillMessage {
            id: id.as_str(),
            prompt: &drill.prompt,
            version: &drill.version,
            operator: &drill.operator,
            started: drill.started,
            dry_run: &decision.text,
        });
        match self.keep(progress, &Kept { what: "drill", channel }, &message).await {
            Ok(Ok(_)) => store.note_drill(id, DrillProgress::Notified(channel)).await?,
            Ok(Err(error)) => store.note_drill(id, DrillProgress::NotNotified(&format!("{channel}: {error}"))).await?,
            Err(halt @ (Halt::Untaken | Halt::Later(_))) => {
                let waits = matches!(halt, Halt::Later(_));
                let why = if waits { "Slack asks the app to wait" } else { "Slack does not accept it now" };
                store.note_drill(id, DrillProgress::NotNotified(why)).await?;
                return Err(halt);
            }
            Err(halt) => return Err(halt),
        };
        Ok(())
    }
}
