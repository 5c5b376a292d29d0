//! The panic device (pvpanic): how a guest's kernel says that it has crashed, on the port where kernels look for it.
//!
//! Bit 0: it panicked and does not go on: the machine ends as crashed. Bit 1: it panicked and its crash kernel now runs:
//! the machine goes on, so that the dump can be written, and the status shows it.

use std::sync::atomic::{AtomicU64, Ordering};

/// The port.
pub const PORT: u16 = 0x505;
const PANICKED: u8 = 1;
const CRASH_LOADED: u8 = 2;

/// The device.
#[derive(Debug, Default)]
pub struct Panic {
    dumps: AtomicU64,
}

impl Panic {
    /// What it understands.
    pub fn read(&self) -> u8 {
        PANICKED | CRASH_LOADED
    }

    /// True: the guest has panicked for good.
    pub fn write(&self, value: u8) -> bool {
        if value & CRASH_LOADED != 0 {
            self.dumps.fetch_add(1, Ordering::Relaxed);
        }
        value & PANICKED != 0 && value & CRASH_LOADED == 0
    }

    /// How often a crash kernel was started.
    pub fn dumps(&self) -> u64 {
        self.dumps.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_machine_and_a_crash_kernel_goes_on() {
        let panic = Panic::default();
        assert_eq!((panic.read(), panic.write(0), panic.write(2), panic.write(3)), (3, false, false, false));
        assert_eq!(panic.dumps(), 2);
        assert!(panic.write(1));
    }
}
