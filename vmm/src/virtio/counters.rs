//! What happened on a device, counted without locks: for the status, and so that a flood of bad chains is a number and
//! not a log.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Live counters of one device.
#[derive(Debug, Default)]
pub struct Counters {
    /// Chains that were served, well or with an error answer.
    pub requests: AtomicU64,
    /// Bytes from the guest to the host.
    pub bytes_out: AtomicU64,
    /// Bytes from the host to the guest.
    pub bytes_in: AtomicU64,
    /// Chains that broke the rules and were given back unused.
    pub bad_chains: AtomicU64,
    /// Requests that were answered with an error (outside the disk, host error, unknown kind).
    pub errors: AtomicU64,
    /// Frames that had nowhere to go.
    pub dropped: AtomicU64,
    /// Times that the device had to ask for a reset.
    pub needs_reset: AtomicU64,
    /// Register accesses that the state of the transport does not allow.
    pub bad_accesses: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Snapshot {
    pub requests: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
    pub bad_chains: u64,
    pub errors: u64,
    pub dropped: u64,
    pub needs_reset: u64,
    pub bad_accesses: u64,
}

impl Counters {
    /// Reads all counters.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            requests: self.requests.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bad_chains: self.bad_chains.load(Relaxed),
            errors: self.errors.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            needs_reset: self.needs_reset.load(Relaxed),
            bad_accesses: self.bad_accesses.load(Relaxed),
        }
    }
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// That many more.
pub fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Relaxed);
}
