//! Slowing processors down, so that a guest changes memory no faster than it goes over to another host.
//!
//! ```text
//!   percent ─► a processor that has run for SLICE rests until it has rested that share of the time
//!   the monitor takes processors out of the guest once a SLICE, so that they can see it
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a slowed processor runs between two rests.
pub const SLICE: Duration = Duration::from_millis(10);
/// Never slower: the guest must go on.
pub const PERCENT_MAX: u32 = 99;

/// One for all processors of a machine.
#[derive(Debug, Default)]
pub struct Throttle {
    percent: AtomicU32,
}

impl Throttle {
    /// This share of its time each processor rests; 0: none.
    pub fn set(&self, percent: u32) {
        self.percent.store(percent.min(PERCENT_MAX), Ordering::Relaxed);
    }

    /// The share.
    pub fn percent(&self) -> u32 {
        self.percent.load(Ordering::Relaxed)
    }

    /// How long a processor is to rest that ran so long; None: it need not.
    pub fn rest_after(&self, ran: Duration) -> Option<Duration> {
        let percent = self.percent();
        // One that ran for long has been outside its slices, and does not pay for that.
        (percent > 0 && ran >= SLICE).then(|| ran.min(SLICE * 2) * percent / (100 - percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_are_the_share_that_was_asked_for() {
        let throttle = Throttle::default();
        assert_eq!(throttle.rest_after(SLICE * 100), None);
        throttle.set(50);
        assert_eq!(throttle.rest_after(SLICE), Some(SLICE));
        assert_eq!(throttle.rest_after(SLICE - Duration::from_millis(1)), None);
        throttle.set(200);
        assert_eq!((throttle.percent(), throttle.rest_after(SLICE * 100)), (99, Some(SLICE * 2 * 99)));
    }
}
