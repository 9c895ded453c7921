//! Incidents that were opened or changed while Slack was not configured: their commits scheduled no notification.

use super::SlackNotifier;
use crate::decision::Timestamp;
use crate::store::StoreError;
use crate::store::schedule::notify_priority;

/// Incidents read at once.
const PAGE: usize = 100;

impl SlackNotifier {
    /// Schedules all open incidents. A message that shows the current state is not sent again.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let store = &self.engine.store;
        if let Some(outage) = store.open_outage().await? {
            store.notify_again(&outage, Timestamp(0)).await?;
        }
        let mut cursor = None;
        loop {
            let page = store.incidents(cursor.as_deref(), PAGE, true).await?;
            for incident in &page.items {
                store.notify_again(&incident.id, notify_priority(incident)).await?;
            }
            if page.next.is_none() {
                break;
            }
            cursor = page.next;
        }
        self.engine.notifications_due.send_replace(());
        Ok(())
    }
}
