//! virtio 1.2 devices.
//!
//! ```text
//!   vCPU thread                          worker thread of the device
//!   mmio.rs, pci.rs     ──┐            ┌── worker.rs  waits for queue events, the host's end, and time
//!                        ▼            ▼
//!        transport.rs: Slot (mutex): transport state + Box<dyn Device>
//!                                     │            or, for queues that are served side by side (disks), lane.rs: a
//!                                     │            mutex and a worker each
//!                     chain.rs: descriptor chain ─► checked pieces of guest memory
//! ```
//! Guests are hostile. Rules that hold for every device: a chain is walked once and checked before anything is done
//! with it; a bad chain is given back unused and counted; a queue that makes no sense (indexes that jump, rings outside
//! memory) puts the device into NEEDS_RESET, where it stays silent until the driver resets it; nothing a guest writes
//! makes this process panic, allocate without bound or work without bound between two passes of the gate.
//!
//! Each device folder has the same shape: `mod.rs` the device, and beside it what reaches the host (`file`, `tap`).

pub mod balloon;
pub mod block;
pub mod chain;
pub mod console;
pub mod counters;
pub mod handle;
pub mod lane;
pub mod limit;
pub mod memory;
pub mod mmio;
pub mod net;
pub mod pci;
pub mod poll;
pub mod rng;
pub mod transport;
pub mod vhost;
pub mod vsock;
pub mod worker;

use crate::memory::Memory;
use crate::snapshot::SnapshotError;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

/// Slots of a machine.
pub const SLOTS: usize = 16;
/// Guest physical address of the first slot.
pub const SLOTS_START: u64 = 0xd000_0000;
/// Address distance between slots.
pub const SLOT_BYTES: u64 = 0x1000;
/// Interrupt line of each slot; lines of the timer, keyboard, COM1, clock, ACPI and FPU are left out.
pub const SLOT_LINES: [u32; SLOTS] = [5, 6, 7, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

/// Number of the vsock device, the one whose worker accepts connections.
pub const VSOCK: u32 = 19;

/// Number of the memory device, the one whose worker changes what memory KVM knows.
pub const MEMORY: u32 = 24;

/// Feature bit: a device of virtio 1.0 or later.
pub const F_VERSION_1: u64 = 1 << 32;
/// Feature bit: indirect descriptors.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// Feature bit: event indexes instead of notification flags.
pub const F_EVENT_IDX: u64 = 1 << 29;

/// The driver broke the queue itself, so that no chain can be trusted: the device asks to be reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the driver broke a virtqueue: {0}")]
pub struct Broken(pub &'static str);

/// What one turn of work did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Used buffers were published and the driver wants to hear of it.
    pub interrupt: bool,
    /// The budget of a turn ended before the work did: come again.
    pub more: bool,
    /// The queue is empty, and its driver was not asked to notify what comes: look again, or have the slot listen.
    pub quiet: bool,
    /// The host's end has work now, though its descriptor does not say so.
    pub host: bool,
    /// A limit holds the rest back: come again after this time.
    pub later: Option<Duration>,
    /// Queues, a bit each, in which another process has used buffers.
    pub used: u64,
    /// The configuration space is another.
    pub changed: bool,
}

/// A device behind a transport. All calls come under the slot's lock.
pub trait Device: Send {
    /// What serves its queues side by side, one each: asked once. Without any, one worker serves all queues by `serve`.
    fn take_lanes(&mut self) -> Vec<Box<dyn lane::Lane>> {
        Vec::new()
    }
    /// virtio device number.
    fn number(&self) -> u32;
    /// Feature bits offered, without the transport's own.
    fn features(&self) -> u64;
    /// Which of the transport's own features it can do.
    fn ring_features(&self) -> u64 {
        F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX
    }
    /// Largest size of each queue.
    fn queue_sizes(&self) -> Vec<u16>;
    /// Reads configuration space; what lies outside stays as it is.
    fn read_config(&self, offset: u64, data: &mut [u8]);
    /// The driver writes configuration space. Most devices have nothing there that it may.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}
    /// The driver is ready, with these features.
    fn activate(&mut self, features: u64);
    /// The driver has gone; forget what belonged to it.
    fn reset(&mut self);
    /// The driver took this queue back: its memory is no longer ours.
    fn queue_stopped(&mut self, _queue: usize) {}
    /// The driver notified this queue.
    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken>;
    /// The host's end, when it can become ready by itself.
    fn host_end(&self) -> Option<RawFd> {
        None
    }
    /// The host's end has something.
    fn host_ready(&mut self, _queues: &mut [Queue], _memory: &Memory) -> Result<Served, Broken> {
        Ok(Served::default())
    }
    /// The queue that `host_ready` fills.
    fn host_queue(&self) -> usize {
        0
    }
    /// What the device holds beyond its configuration, written down. Called while its worker stands still.
    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        Ok(Vec::new())
    }
    /// Takes up what `save` wrote, after `activate` where the device was live. The bytes are not to be trusted.
    fn restore(&mut self, saved: &[u8], _memory: &Memory) -> Result<(), SnapshotError> {
        match saved {
            [] => Ok(()),
            _ => Err(SnapshotError::Malformed("a device without state has some".into())),
        }
    }
    /// Whether its worker deals with connections, and needs the calls for that.
    fn has_connections(&self) -> bool {
        false
    }
    /// Whether another process serves the queues (`vhost`): the worker leaves notifications to it, and calls `host_ready`
    /// whether a driver is there or not.
    fn is_served_elsewhere(&self) -> bool {
        false
    }
    /// The events by which the guest notifies, for whoever serves the queues.
    fn take_kicks(&mut self, _kicks: Vec<EventFd>) {}
    /// The events by which whoever serves the queues interrupts.
    fn calls(&self) -> Option<Arc<vhost::Calls>> {
        None
    }
    /// The gate shuts: whoever serves the queues elsewhere gives them back until `go_on`.
    fn rest(&mut self, _queues: &mut [Queue]) -> Served {
        Served::default()
    }
    /// The gate has opened.
    fn go_on(&mut self) {}
    /// Why the machine cannot move with this device, where that is so.
    fn can_move(&self) -> Result<(), String> {
        Ok(())
    }
    /// Guest memory that another process writes is to be noted, or no longer. An error: it is not.
    fn log_writes(&mut self, _queues: &[Queue], _log: Option<Arc<vhost::log::Log>>) -> Result<(), String> {
        Ok(())
    }
    /// Whether `host_ready` could do anything now. False stops watching the host's end until the next `serve`.
    fn wants_host(&self) -> bool {
        false
    }
}

/// Copies the part of `config` at `offset` into `data`.
pub fn copy_config(config: &[u8], offset: u64, data: &mut [u8]) {
    let Ok(start) = usize::try_from(offset) else { return };
    if let Some(part) = config.get(start..) {
        let count = part.len().min(data.len());
        data[..count].copy_from_slice(&part[..count]);
    }
}
