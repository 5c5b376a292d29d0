//! A watchdog: once armed, the guest must show life again and again, or the machine is reset.
//!
//! ```text
//!   off ──write 0x443 (timeout)──► armed ──time passes──► reset
//!    ▲                              │ ▲ write 0x443
//!    └─────────write 0x441──────────┘ └──┘
//! ```
//! The two ports of the IB700, which Linux drives by `ib700wdt` without being told. Time is counted only while the
//! machine runs: a paused guest cannot show life.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Port that disarms.
pub const STOP: u16 = 0x441;
/// Port that arms; its lower four bits choose the timeout.
pub const START: u16 = 0x443;

/// The device.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Watchdog {
    /// Time that is left; None while it is off.
    left: Option<Duration>,
}

impl Watchdog {
    /// Arms it, or shows life: 30 seconds for 0, two less for each more.
    pub fn start(&mut self, value: u8) {
        self.left = Some(Duration::from_secs(30 - 2 * u64::from(value & 0xf)));
    }

    /// Disarms it.
    pub fn stop(&mut self) {
        self.left = None;
    }

    /// Time passes for a running machine. True: it bites.
    pub fn pass(&mut self, time: Duration) -> bool {
        let Some(left) = self.left else { return false };
        match left.checked_sub(time) {
            Some(rest) if !rest.is_zero() => {
                self.left = Some(rest);
                false
            }
            _ => {
                self.left = None;
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_bites_only_who_shows_no_life() {
        let mut watchdog = Watchdog::default();
        let second = Duration::from_secs(1);
        assert!(!watchdog.pass(100 * second));
        watchdog.start(15);
        assert_eq!(watchdog.left, Some(Duration::ZERO));
        watchdog.start(0xf0 | 14);
        assert!(!watchdog.pass(second));
        watchdog.start(14);
        assert!(!watchdog.pass(second));
        assert!(watchdog.pass(second));
        assert!(!watchdog.pass(second));
        watchdog.start(0);
        watchdog.stop();
        assert!(!watchdog.pass(100 * second));
    }
}
