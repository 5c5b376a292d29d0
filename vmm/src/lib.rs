//! pilvi-vmm: one guest on KVM, one process per guest.
//!
//! Why an own process: a guest that breaks out of its devices finds itself in an empty root with no capabilities and
//! a short list of system calls, and a restart of the agent leaves the guest alone. Why no async runtime: each thread
//! here has one blocking thing to do, and fewer moving parts stand between hostile bytes and the kernel.
//!
//! ```text
//!   agent ── unix socket ──► control (main thread) ── gate ──► vcpu-0 .. vcpu-n   KVM_RUN, port and MMIO exits
//!                                 │                                 │ mutex per device
//!                                 └── stop/reset ◄── stop event     ▼
//!                                                    disk-n, nic-n, rng           one worker thread each
//! ```
//!
//! Where things are: `machine` is the start as one readable function; `boot` puts a kernel into memory (or `firmware` looks for
//! one), `cpu` prepares
//! and runs the processors, `device` holds what sits on ports, `virtio` what sits on MMIO slots, `control` the socket,
//! `fault` memory that comes when it is touched, `sandbox` the jail, `gdb` what a debugger asks, `probe` tells a host with a usable KVM from one that only has the file,
//! `program` one build from another.
//! This crate knows nothing of clouds: it is told files, taps and sizes.
#![allow(unsafe_code)] // guest memory, ioctls and signal handlers; every block says why it holds

pub mod boot;
pub mod config;
pub mod control;
pub mod cpu;
pub mod device;
pub mod fault;
pub mod firmware;
pub mod gate;
pub mod gdb;
pub mod job;
pub mod journal;
pub mod machine;
pub mod memory;
pub mod migrate;
pub mod monitor;
pub mod pci;
pub mod probe;
pub mod program;
pub mod run;
pub mod sandbox;
pub mod snapshot;
pub mod state;
pub mod virtio;

pub use run::main_with;
