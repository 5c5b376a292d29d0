//! Real guests in real processes: the freestanding guest of `tests/guest`, and Linux where a kernel is at hand.
//!
//! Each test starts the `pilvi-vmm` program with its jail on, talks to it as the agent does, and looks at what the
//! guest says on its console. Where there is no usable `/dev/kvm` every test says so and passes.
#![allow(unsafe_code)] // namespaces and taps for the network tests; each block says why it holds
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)] // a test may

mod bzimage;
mod control;
mod cpio;
mod devices;
mod disk_linux;
mod entry;
mod firmware;
mod gdb;
mod grow;
mod handed;
mod hostile;
mod life;
mod linux;
mod linux_grow;
mod migrate;
mod nbd;
mod network;
mod numa_linux;
mod pci;
mod peer;
mod places;
mod postcopy;
mod rig;
mod snapshot;
mod vhost;
mod vhost_linux;
