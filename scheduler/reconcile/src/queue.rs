//! When to look at which key next: pure bookkeeping, no time of its own.
//!
//! ```text
//! absent --due--> waiting --take--> working --done(Settled)--> absent
//!                    ^                 |  done(Again / Err)
//!                    '-----------------'   (a wake-up while working makes it due at once after)
//! ```
use crate::{BACKOFF_FIRST, BACKOFF_MAX, Next, Status};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::time::Instant;

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    working: bool,
    failures: u32,
    error: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: HashMap<String, Entry>,
    /// Waiting and not working keys, by time.
    order: BTreeMap<(Instant, String), ()>,
    passes: u64,
    failures: u64,
}

impl Queue {
    /// Makes `key` due at `at`, or earlier if it already is.
    pub fn due(&mut self, key: String, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(old) = entry.due.replace(at)
            && !entry.working
        {
            self.order.remove(&(old, key.clone()));
        }
        if !entry.working {
            self.order.insert((at, key), ());
        }
    }

    /// The timer's wish: does not shorten a back-off.
    pub fn due_unless_waiting(&mut self, key: String, at: Instant) {
        if !self.entries.contains_key(&key) {
            self.due(key, at);
        }
    }

    /// A key that is due, or when the next one will be.
    pub fn take(&mut self, now: Instant) -> Result<String, Option<Instant>> {
        let Some(((due, key), ())) = self.order.first_key_value() else { return Err(None) };
        if *due > now {
            return Err(Some(*due));
        }
        let (due, key) = (*due, key.clone());
        self.order.remove(&(due, key.clone()));
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.due, entry.working) = (None, true);
        }
        Ok(key)
    }

    pub fn done(&mut self, key: &str, outcome: Result<Next, String>, now: Instant) {
        self.passes += 1;
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.working = false;
        let again = match outcome {
            Ok(next) => {
                (entry.failures, entry.error) = (0, None);
                match next {
                    Next::Settled => None,
                    Next::Again(after) => Some(now + after),
                }
            }
            Err(error) => {
                self.failures += 1;
                entry.failures = entry.failures.saturating_add(1);
                entry.error = Some(error);
                Some(now + backoff(entry.failures))
            }
        };
        // A wake-up during the pass wins over a later wish, but does not defeat a back-off.
        let due = match (entry.due.take(), again) {
            (Some(woken), Some(again)) if entry.failures == 0 => Some(woken.min(again)),
            (Some(_), Some(again)) => Some(again),
            (woken, again) => woken.or(again),
        };
        match due {
            Some(due) => {
                entry.due = Some(due);
                self.order.insert((due, key.to_owned()), ());
            }
            None => {
                self.entries.remove(key);
            }
        }
    }

    /// Forgets what waits; what is under work ends by itself.
    pub fn clear(&mut self) {
        self.order.clear();
        self.entries.retain(|_, entry| {
            entry.due = None;
            entry.working
        });
    }

    pub fn status(&self, reconciler: &'static str) -> Status {
        let failing = self.entries.iter().filter_map(|(k, e)| Some((k.clone(), e.error.clone()?))).take(20).collect();
        Status {
            reconciler,
            waiting: self.order.len(),
            working: self.entries.values().filter(|e| e.working).count(),
            passes: self.passes,
            failures: self.failures,
            failing,
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_worked_on_once_at_a_time_and_again_when_woken_meanwhile() {
        let (mut q, t) = (Queue::default(), Instant::now());
        q.due("a".into(), t);
        assert_eq!(q.take(t), Ok("a".into()));
        q.due("a".into(), t);
        assert_eq!(q.take(t), Err(None), "still working");
        q.done("a", Ok(Next::Settled), t);
        assert_eq!(q.take(t), Ok("a".into()));
        q.done("a", Ok(Next::Settled), t);
        assert_eq!(q.take(t), Err(None));
        assert!(q.entries.is_empty());
    }

    #[test]
    fn failures_back_off_and_success_forgets_them() {
        let (mut q, t) = (Queue::default(), Instant::now());
        q.due("a".into(), t);
        q.take(t).unwrap();
        q.done("a", Err("no".into()), t);
        assert_eq!(q.take(t), Err(Some(t + BACKOFF_FIRST)));
        q.take(t + BACKOFF_FIRST).unwrap();
        q.done("a", Err("no".into()), t);
        assert_eq!(q.take(t), Err(Some(t + BACKOFF_FIRST * 2)));
        assert_eq!(q.status("x").failing.len(), 1);
        q.take(t + BACKOFF_MAX).unwrap();
        q.done("a", Ok(Next::Again(Duration::from_secs(1))), t);
        assert!(q.status("x").failing.is_empty());
    }
}
