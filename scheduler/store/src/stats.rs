//! Counters of the store, for metrics.
use std::sync::atomic::{AtomicU64, Ordering};

/// A reading of the counters since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Transactions that callers asked for and that were kept.
    pub writes: u64,
    /// Transactions that failed and left nothing.
    pub failed_writes: u64,
    /// COMMITs of the engine; `writes / commits` is the mean batch on SQLite.
    pub commits: u64,
    /// Largest batch so far.
    pub batch_max: u64,
    /// Transactions waiting for the writer now.
    pub queue_depth: u64,
    /// Transactions run again after a conflict (PostgreSQL).
    pub retries: u64,
    pub reads: u64,
    /// Questions for other processes' commits (PostgreSQL); requests that come together share one.
    pub catch_ups: u64,
    /// Statements that took longer than the threshold ([`crate::Store::log_slow_statements`]).
    pub slow_statements: u64,
}

/// Statements that take longer are logged, unless the operator says otherwise.
const SLOW_US: u64 = 100_000;

#[derive(Debug)]
pub(crate) struct Counters {
    /// Microseconds from which a statement is slow.
    pub slow_us: AtomicU64,
    pub writes: AtomicU64,
    pub failed_writes: AtomicU64,
    pub commits: AtomicU64,
    pub batch_max: AtomicU64,
    pub queue_depth: AtomicU64,
    pub retries: AtomicU64,
    pub reads: AtomicU64,
    pub catch_ups: AtomicU64,
    pub slow_statements: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        let zero = AtomicU64::default;
        Counters {
            slow_us: AtomicU64::new(SLOW_US),
            writes: zero(),
            failed_writes: zero(),
            commits: zero(),
            batch_max: zero(),
            queue_depth: zero(),
            retries: zero(),
            reads: zero(),
            catch_ups: zero(),
            slow_statements: zero(),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub fn read(&self) -> Stats {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Stats {
            writes: get(&self.writes),
            failed_writes: get(&self.failed_writes),
            commits: get(&self.commits),
            batch_max: get(&self.batch_max),
            queue_depth: get(&self.queue_depth),
            retries: get(&self.retries),
            reads: get(&self.reads),
            catch_ups: get(&self.catch_ups),
            slow_statements: get(&self.slow_statements),
        }
    }
}
