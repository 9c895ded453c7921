//! Clicks that are still being handled.

use tokio::sync::watch;

/// The clicks of which Slack was told that they are accepted, and that are still being handled. Outlives a reload.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged(watch::Sender<usize>);

impl Acknowledged {
    /// Counts the clicks of one request until the result is dropped.
    pub fn begin(&self) -> ClicksUnderWay {
        self.0.send_modify(|under_way| *under_way += 1);
        ClicksUnderWay(self.0.clone())
    }

    /// Completes when none is being handled.
    pub async fn handled(&self) {
        let _ = self.0.subscribe().wait_for(|under_way| *under_way == 0).await; // never closed: `self` holds it
    }
}

#[derive(Debug)]
pub struct ClicksUnderWay(watch::Sender<usize>);

impl Drop for ClicksUnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|under_way| *under_way -= 1);
    }
}
