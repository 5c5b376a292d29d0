//! One line per event on standard error, which whoever starts the process keeps in a file.
//!
//! Guests can cause events without end, so what a guest causes is counted (see `virtio::counters`) and written here
//! once at most; only the monitor's own doings get a line each time.

use std::io::Write;

/// Writes one line. Failure is ignored: a full disk for logs must not stop a guest.
pub fn line(id: &str, text: std::fmt::Arguments<'_>) {
    let whole = format!("pilvi-vmm[{id}]: {text}\n");
    let _ = std::io::stderr().write_all(whole.as_bytes());
}
