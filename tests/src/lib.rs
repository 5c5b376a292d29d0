//! The project's own judges: [`tidy`](../tests/tidy.rs) holds the source to the invariants of the design,
//! the stories run the real programs with real guests. `tests/run` runs them all in order.
//!
//! This library is what the stories stand on:
//!
//! ```text
//!  Site     one cloud of a story: directory, port, programs; `finish` asserts that nothing is left
//!  Program  one running `pilvi`, with its output in a file and its signals
//!  Balancer a front for several schedulers
//!  Api      REST as one user, without a client library in between
//!  kernel   what /proc, mounts and namespaces say, whatever the programs claim
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // as in any test

pub mod api;
pub mod balancer;
pub mod kernel;
pub mod program;
pub mod site;

pub use api::Api;
pub use balancer::Balancer;
pub use program::Program;
pub use site::Site;

use std::time::{Duration, Instant};

/// Waits; the stories are ordinary threads, so nothing else is held up.
#[allow(clippy::disallowed_methods)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Asks until there is an answer; panics with `what` when `seconds` have passed.
pub fn until<T>(seconds: u64, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {seconds} s: {what}");
        pause(Duration::from_millis(100));
    }
}

/// Whether stories can run here; says plainly why not. With `PILVI_NO_SKIP` a reason to skip is a failure.
pub fn may_run(story: &str) -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        Some("not root")
    } else if !site::program_path().exists() {
        Some("there is no built pilvi: cargo build -p pilvi")
    } else {
        None
    };
    let Some(reason) = missing else { return true };
    assert!(std::env::var_os("PILVI_NO_SKIP").is_none(), "PILVI_NO_SKIP is set, but {story} cannot run: {reason}");
    println!("{story}: skipped: {reason}");
    false
}
