//! All providers in memory: what searches read instead of the store.
//!
//! ```text
//!  search ──► fresh(): store.follow(head) ──► Index (under a lock) ──► read
//!                        └─ one read of the feed for all who wait
//! ```
//! Never staler than its reader: before each use the store is asked what has changed since, so a search sees
//! everything that was committed before it began, by this scheduler or by another on the same database. What it
//! finds may be taken a moment later; only the claim, in its own transaction, decides. Memory: about a kilobyte for
//! each provider.
pub mod index;

use crate::provider::model::Provider;
use index::Index;
use parking_lot::RwLock;
use pilvi_kit::Fault;
use pilvi_store::Store;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

#[derive(Debug, Default)]
struct Copy {
    index: Index,
    /// Number of the newest change in it.
    head: Option<i64>,
}

#[derive(Debug, Default)]
pub struct Snapshot {
    copy: RwLock<Copy>,
    /// How often the store has been asked.
    begun: AtomicU64,
    /// Number of the last question that was answered.
    following: Mutex<u64>,
}

impl Snapshot {
    /// Brings the copy up to now. Those who wait together share one question, which is asked after the last of them
    /// came.
    pub async fn refresh(&self, store: &Store) -> Result<(), Fault> {
        let seen = self.begun.load(Ordering::Acquire);
        let mut done = self.following.lock().await;
        if *done > seen {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let after = {
            let copy = self.copy.read();
            if copy.index.is_worn() { None } else { copy.head }
        };
        let followed = store.follow::<Provider>(after).await?;
        if followed.whole || !followed.changed.is_empty() || !followed.gone.is_empty() || after != Some(followed.head) {
            let mut copy = self.copy.write();
            copy.index.apply(&followed);
            copy.head = Some(followed.head);
        }
        *done = number;
        Ok(())
    }

    /// Reads it as it is: for a moment only, since nobody can bring it up to date meanwhile.
    pub fn read<T>(&self, f: impl FnOnce(&Index) -> T) -> T {
        f(&self.copy.read().index)
    }
}
