//! The agent as a whole, seen from outside: one binary, so that it is linked once.
//!
//! `contract` asks the same of every runtime, `moving` of those whose guests can go to another host; `life` drives agents through a scheduler that these
//! tests play themselves; `crash` kills the real program at any moment, `upgrade` while it moves guests into another build. What needs QEMU says
//! plainly that it is skipped where there is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)] // as in any test
mod contract;
mod crash;
mod disk_boot;
mod encrypted;
mod guest;
mod lent;
mod life;
mod moving;
mod plug;
mod scheduler;
mod snapshot;
mod uefi;
mod upgrade;
mod volume;
mod wired;
