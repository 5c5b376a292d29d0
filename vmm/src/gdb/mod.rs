//! A stub for gdb: a debugger that connects to a socket looks into the guest, stops it and steps it.
//!
//! ```text
//!   socket ──bytes──► packet ──► command ──► session ──► Target: the machine (`monitor::debug`)
//!                     framing    meaning     who asks      registers (`registers`), memory by the guest's tables (`walk`)
//! ```
//! There is none unless the configuration names a socket. Whoever can open it can do anything to the guest, as at the control
//! socket, and is trusted as little to be sane: packets, points and answers are bounded. Everything here but the machine is pure.
pub mod command;
pub mod packet;
pub mod registers;
pub mod session;
pub mod walk;
