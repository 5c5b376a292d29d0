//! Post-copy: the machine runs at the target before all of its memory is there, and what it touches is brought first.
//!
//! ```text
//!   source                                           target
//!   paused    which pages are missing, the state ──►  userfaultfd watches memory, the machine is built
//!      │      ◄───────────────────── ask for a page   (by whoever touches it)
//!      │      the page ────────────────────────────►
//!      │      ◄──────────────────────────── ready
//!      │      go ──────────────────────────────────►  opens the gate
//!      │      ◄────────────────────────── running
//!      │      pages asked for, and all others ──────►  ... until none is missing
//!   ends      ◄───────────────────────── complete
//! ```
//! It is allowed by the terms (`post_copy`) and begins after their passes, or when somebody says so; the pass under way then
//! ends where it is. Pages that are asked for go before those that are sent unasked, which go on from there; how long the
//! asker waits is decided by how much is in buffers between the two.
//!
//! From `go` on each side has a part of the machine. When the stream breaks the target's processors run until they touch
//! what is missing, and the source keeps its pages, paused: another stream to where the target listened is taken up
//! (`reconnect_migration`), and both go on. The target knows its source by a number that was told with the state. When
//! the source is gone for good, the guest is lost: the target can only be killed.

pub mod fetch;
mod serve;
pub mod wire;

pub use serve::Served;

#[cfg(test)]
mod tests;
