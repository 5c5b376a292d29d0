//! Turns: of all that want to do something with one named thing, one does it at a time.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OwnedMutexGuard;

/// Turns by name; a name that nobody uses takes no room.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for one's turn, which lasts until the guard is dropped.
    pub async fn take(&self, name: &str) -> OwnedMutexGuard<()> {
        self.of(name).lock_owned().await
    }

    fn of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
    }

    /// Whether somebody has, or waits for, a turn.
    #[must_use]
    pub fn busy(&self, name: &str) -> bool {
        let turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.get(name).is_some_and(|turn| turn.strong_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_by_name() {
        let turns = Arc::new(Turns::default());
        let first = turns.take("a").await;
        let other = turns.take("b").await;
        let waits = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take("a").await) }
        });
        tokio::task::yield_now().await;
        assert!(turns.busy("a") && !waits.is_finished());
        drop((first, other));
        waits.await.unwrap();
        assert!(!turns.busy("a"));
    }
}
