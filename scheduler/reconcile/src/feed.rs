//! The change feed as a stream of batches that never loses its place.
use pilvi_store::{Change, Error, Store};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// Changes read at once.
const BATCH: usize = 1000;
const RETRY: Duration = Duration::from_millis(500);
/// A busy feed is read this often: what comes meanwhile is read together.
const GATHER: Duration = Duration::from_millis(5);

/// A reader of the feed, from the head at its creation on.
#[derive(Debug)]
pub struct Feed {
    store: Store,
    watch: watch::Receiver<i64>,
    after: i64,
    /// When it was read last.
    read: Instant,
}

impl Feed {
    /// Starts at the newest change: whoever reads must list the present state once himself.
    pub async fn new(store: Store) -> Self {
        let watch = store.watch();
        let after = loop {
            match store.head().await {
                Ok(head) => break head,
                Err(error) => {
                    tracing::warn!(%error, "reading the feed's head failed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        Feed { store, watch, after, read: Instant::now() }
    }

    /// The next changes, at least one; `None` when the feed was cut behind us and everything must be
    /// listed anew. Cancel-safe: a batch is skipped over only when it is returned.
    pub async fn next(&mut self) -> Option<Vec<Change>> {
        loop {
            tokio::time::sleep_until(self.read + GATHER).await;
            self.read = Instant::now();
            match self.store.changes(self.after, BATCH).await {
                Ok(changes) => {
                    if let Some(last) = changes.last() {
                        self.after = last.seq;
                        return Some(changes);
                    }
                    if self.watch.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Err(Error::FeedTruncated { .. }) => {
                    if let Ok(head) = self.store.head().await {
                        self.after = head;
                        return None;
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "reading the feed failed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}
