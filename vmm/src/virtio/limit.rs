//! Token buckets: how many bytes and operations a second a device may do.
//!
//! ```text
//!   rate ──drip──► level ≤ burst       level ≥ 1: the next request goes, and is paid for afterwards
//!                    │                 level < 1: wait until the debt is paid
//! ```
//! A request's size is known only when it has been taken off the queue, where it cannot be put back. So it is paid for
//! afterwards, and the level may fall below zero: over time the rate holds exactly, whatever the size of requests.

use crate::gate::lock;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Limits as a person writes them; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rate {
    /// Bytes a second.
    pub bytes_per_s: u64,
    /// Bytes at once after a rest; 0: what a tenth of a second brings.
    pub bytes_burst: u64,
    /// Requests or frames a second.
    pub operations_per_s: u64,
    /// Requests or frames at once after a rest; 0: what a tenth of a second brings.
    pub operations_burst: u64,
}

/// A limit that can be changed while it holds.
#[derive(Debug, Default)]
pub struct Setting {
    version: AtomicU64,
    rate: Mutex<Rate>,
    /// Whether there is any.
    limits: AtomicBool,
}

impl Rate {
    fn limits(&self) -> bool {
        self.bytes_per_s > 0 || self.operations_per_s > 0
    }
}

impl Setting {
    /// A first rate.
    pub fn new(rate: Rate) -> Setting {
        Setting { version: AtomicU64::new(0), limits: AtomicBool::new(rate.limits()), rate: Mutex::new(rate) }
    }

    /// Another rate, from the next request on.
    pub fn set(&self, rate: Rate) {
        let mut held = lock(&self.rate);
        *held = rate;
        self.limits.store(rate.limits(), Ordering::Release);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The rate that holds.
    pub fn rate(&self) -> Rate {
        *lock(&self.rate)
    }
}

/// One bucket. Levels are in tokens, times count in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    per_s: u64,
    burst: u64,
    level: i128,
    filled: Instant,
}

const SECOND_NS: i128 = 1_000_000_000;

impl Bucket {
    fn new(per_s: u64, burst: u64, now: Instant) -> Bucket {
        let burst = if burst == 0 { (per_s / 10).max(1) } else { burst };
        Bucket { per_s, burst, level: i128::from(burst) * SECOND_NS, filled: now }
    }

    /// Fills up to now; how long until there is a token.
    fn wait(&mut self, now: Instant) -> Duration {
        if self.per_s == 0 {
            return Duration::ZERO;
        }
        let past = now.saturating_duration_since(self.filled).as_nanos().min(u128::from(u64::MAX)) as i128;
        self.filled = now;
        self.level = (self.level + past * i128::from(self.per_s)).min(i128::from(self.burst) * SECOND_NS);
        if self.level >= SECOND_NS {
            return Duration::ZERO;
        }
        let nanoseconds = (SECOND_NS - self.level).div_euclid(i128::from(self.per_s)) + 1;
        // Looked at again after a second at most, should the rate be changed meanwhile.
        Duration::from_nanos(nanoseconds.min(SECOND_NS) as u64)
    }

    fn pay(&mut self, tokens: u64) {
        if self.per_s > 0 {
            self.level -= i128::from(tokens) * SECOND_NS;
        }
    }
}

/// The device's side.
#[derive(Debug)]
pub struct Limiter {
    setting: std::sync::Arc<Setting>,
    seen: u64,
    bytes: Bucket,
    operations: Bucket,
}

impl Limiter {
    /// Full buckets.
    pub fn new(setting: std::sync::Arc<Setting>) -> Limiter {
        let (rate, seen, now) = (setting.rate(), setting.version.load(Ordering::Acquire), Instant::now());
        Limiter {
            setting,
            seen,
            bytes: Bucket::new(rate.bytes_per_s, rate.bytes_burst, now),
            operations: Bucket::new(rate.operations_per_s, rate.operations_burst, now),
        }
    }

    /// How long the next request has to wait; None when it may go.
    pub fn wait(&mut self) -> Option<Duration> {
        let version = self.setting.version.load(Ordering::Acquire);
        if version != self.seen {
            *self = Limiter::new(self.setting.clone());
        }
        if self.bytes.per_s == 0 && self.operations.per_s == 0 {
            return None;
        }
        let now = Instant::now();
        Some(self.bytes.wait(now).max(self.operations.wait(now))).filter(|wait| !wait.is_zero())
    }

    /// A request of that many bytes has gone.
    pub fn pay(&mut self, bytes: u64) {
        self.bytes.pay(bytes);
        self.operations.pay(1);
    }
}

/// One limit for all who do the work of a device side by side: what one pays, all have paid. Each can have let one request go on
/// credit, so there may be as many debts as workers; over time the rate holds as before. Nobody has a turn of his own: whoever
/// asks first after the debt is paid goes.
#[derive(Debug)]
pub struct Shared {
    setting: std::sync::Arc<Setting>,
    limiter: Mutex<Limiter>,
}

impl Shared {
    /// Full buckets.
    pub fn new(setting: std::sync::Arc<Setting>) -> Shared {
        Shared { limiter: Mutex::new(Limiter::new(setting.clone())), setting }
    }

    /// How long the next request has to wait; None when it may go. Without a limit nobody waits for anybody's lock.
    pub fn wait(&self) -> Option<Duration> {
        if self.setting.limits.load(Ordering::Acquire) { lock(&self.limiter).wait() } else { None }
    }

    /// A request of that many bytes has gone.
    pub fn pay(&self, bytes: u64) {
        if self.setting.limits.load(Ordering::Acquire) {
            lock(&self.limiter).pay(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    #[test]
    fn workers_side_by_side_have_one_limit() {
        // What goes is the burst, what a slow machine earns meanwhile, and a request on credit for each worker at most.
        let rate = Rate { operations_per_s: 1, operations_burst: 1000, ..Rate::default() };
        let (setting, start) = (Arc::new(Setting::new(rate)), Instant::now());
        let shared = Shared::new(setting.clone());
        let gone = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while shared.wait().is_none() {
                        shared.pay(512);
                        gone.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let earned = start.elapsed().as_secs() + 1;
        let gone = gone.load(Ordering::Relaxed);
        assert!((1000..=1000 + earned + 4).contains(&gone), "{gone}");
        setting.set(Rate::default());
        assert_eq!(shared.wait(), None);
        setting.set(Rate { operations_per_s: 1, operations_burst: 1, ..Rate::default() });
        assert_eq!(shared.wait(), None, "a change begins with full buckets");
        shared.pay(0);
        assert!(shared.wait().is_some());
    }

    #[test]
    fn no_rate_never_waits_and_a_change_holds_at_once() {
        let setting = Arc::new(Setting::default());
        let mut limiter = Limiter::new(setting.clone());
        limiter.pay(1 << 40);
        assert_eq!(limiter.wait(), None);
        setting.set(Rate { bytes_per_s: 1000, ..Rate::default() });
        assert_eq!(limiter.wait(), None);
        limiter.pay(100_000);
        assert!(limiter.wait().unwrap() >= Duration::from_millis(500));
        setting.set(Rate::default());
        assert_eq!(limiter.wait(), None);
    }

    proptest! {
        /// Workers that ask and pay in any order: no more than burst, rate, and a request on credit for each.
        #[test]
        fn over_time_the_rate_holds_for_all_workers_together(
            per_s in 1u64..1_000_000, burst in 0u64..1_000_000,
            steps in proptest::collection::vec((0usize..4, 0u64..200_000, 0u64..500_000_000), 1..400),
        ) {
            let start = Instant::now();
            let (mut bucket, mut now, mut total, mut largest) = (Bucket::new(per_s, burst, start), start, 0u64, 0);
            // Who was let go and has not paid yet.
            let mut owing = [None; 4];
            for (worker, size, pause_ns) in steps {
                now += Duration::from_nanos(pause_ns);
                match owing[worker].take() {
                    Some(size) => bucket.pay(size),
                    None if bucket.wait(now).is_zero() => {
                        owing[worker] = Some(size);
                        (total, largest) = (total + size, largest.max(size));
                    }
                    None => {}
                }
            }
            let earned = now.duration_since(start).as_secs_f64() * per_s as f64;
            prop_assert!(total as f64 <= earned + bucket.burst as f64 + 4.0 * largest as f64 + 1.0);
        }

        /// Whatever the sizes: no more than the burst, the rate, and the last request that was let go on credit.
        #[test]
        fn over_time_the_rate_holds(
            per_s in 1u64..1_000_000, burst in 0u64..1_000_000,
            requests in proptest::collection::vec((0u64..200_000, 0u64..2_000_000_000), 1..200),
        ) {
            let start = Instant::now();
            let (mut bucket, mut now, mut total, mut last) = (Bucket::new(per_s, burst, start), start, 0u64, 0);
            for (size, pause_ns) in requests {
                now += Duration::from_nanos(pause_ns);
                let wait = bucket.wait(now);
                if wait.is_zero() {
                    bucket.pay(size);
                    total += size;
                    last = size;
                } else if wait < Duration::from_secs(1) {
                    // The promised time is enough.
                    prop_assert!(bucket.wait(now + wait).is_zero());
                    now += wait;
                }
            }
            let earned = now.duration_since(start).as_secs_f64() * per_s as f64;
            prop_assert!(total as f64 <= earned + bucket.burst as f64 + last as f64 + 1.0);
        }
    }
}
