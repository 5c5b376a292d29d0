//! The agents of other hosts: what moves from host to host goes over streams between the two agents.
//!
//! ```text
//!  this host                                      the other host
//!  runtime --UnixStream--> Calls ==TLS==> Doorman --unix socket--> its runtime, or whoever takes its disks
//!                          "move door"    is this move expected, from this node?
//! ```
//! Both sides show the certificate that the scheduler gave them when they joined, and each knows from its wanted state
//! which node it deals with: no other is let in or talked to. Nobody listens until a guest is expected.
mod call;
mod doorman;
mod proof;

pub use call::Calls;
pub use doorman::{Doorman, Doors, Expecting, own_address};
pub use proof::Proof;

use std::time::Duration;

/// How long either side waits for the other to say who it is and what it wants.
const GREETING: Duration = Duration::from_secs(10);
/// Longest first line: a move, a blank, a door.
const LINE_MAX: usize = 200;
/// What the doorman says when the stream is through.
const OPEN: u8 = b'+';
