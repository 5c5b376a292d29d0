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
use std::sync::atomic::{AtomicU64, Ordering};
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
}

impl Setting {
    /// A first rate.
    pub fn new(rate: Rate) -> Setting {
        Setting { version: AtomicU64::new(0), rate: Mutex::new(rate) }
    }

    /// Another rate, from the next request on.
    pub fn set(&self, rate: Rate) {
        *lock(&self.rate) = rate;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

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
