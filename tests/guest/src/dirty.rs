//! Memory that changes without end: what a migration must neither lose nor be outrun by.

use crate::{clock, say};

/// Free memory of the smallest machine that tests use.
const FIRST: usize = 16 << 20;
const PAGE: usize = 4096;
const PAGES: usize = 1024;
/// Microseconds between two pages: the rate is one of a busy guest, and much the same on every processor.
const REST: u64 = 100;

/// Counts in every page, one after the other. Each must be as the round before has left it.
pub fn run() -> ! {
    let mut round = 0u64;
    loop {
        for page in 0..PAGES {
            let at = (FIRST + page * PAGE) as *mut u64;
            // SAFETY: the range is RAM that nothing else of this guest lies in, mapped one to one.
            let seen = unsafe { at.read_volatile() };
            if seen != round {
                say!("LOST page {page}: {seen} in round {round}");
            }
            // SAFETY: as above.
            unsafe { at.write_volatile(round + 1) };
            clock::rest(REST);
        }
        round += 1;
        say!("round {round}");
    }
}
