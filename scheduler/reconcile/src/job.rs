//! A job that one scheduler does at a time, and whether that is this one.
use pilvi_store::Guard;
use std::sync::Arc;
use tokio::sync::watch;

/// Handed out by [`Member::job`](crate::Member::job).
#[derive(Debug, Clone)]
pub struct Job {
    lease: Arc<str>,
    epoch: watch::Receiver<Option<i64>>,
}

impl Job {
    pub(crate) fn new(lease: Arc<str>, epoch: watch::Receiver<Option<i64>>) -> Self {
        Job { lease, epoch }
    }

    /// What the work must be done under; `None` while another does it.
    pub fn guard(&self) -> Option<Guard> {
        let epoch = *self.epoch.borrow();
        epoch.map(|epoch| Guard { lease: self.lease.clone(), epoch })
    }

    pub fn held(&self) -> bool {
        self.epoch.borrow().is_some()
    }

    /// Returns when the job was won or lost since the last call.
    pub async fn changed(&mut self) {
        if self.epoch.changed().await.is_err() {
            // The member is gone; nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}
