//! The MMIO transport: one page of registers per device (virtio 1.2, section 4.2.2).
//!
//! ```text
//!   reset ──ACKNOWLEDGE|DRIVER──► features ──FEATURES_OK──► queues ──DRIVER_OK──► live ──► needs reset
//!     ▲                                                                            │          │
//!     └────────────────────────────── status = 0 ◄─────────────────────────────────┴──────────┘
//! ```
//! Registers are written in this order or not at all: a queue can be changed only between FEATURES_OK and DRIVER_OK.
//! The interrupt status lies outside the lock, so that a guest's interrupt handler never waits for disk work.

use super::counters::{Counters, count};
use super::{Broken, Device, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1, Served};
use crate::gate::lock;
use crate::memory::Memory;
use crate::snapshot::SnapshotError;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use virtio_queue::{Queue, QueueState, QueueT};
use vmm_sys_util::eventfd::EventFd;

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const VENDOR: u32 = 0x5649_4c50;
const CONFIG: u64 = 0x100;
/// Register that the guest notifies a queue with.
pub const QUEUE_NOTIFY: u64 = 0x50;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

const INTERRUPT_USED: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

/// Interrupt line and status of a device.
pub struct Interrupt {
    status: AtomicU32,
    line: EventFd,
}

impl Interrupt {
    /// Nothing pending. Writing `line` raises the interrupt.
    pub fn new(line: EventFd) -> Interrupt {
        Interrupt { status: AtomicU32::new(0), line }
    }

    fn raise(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::SeqCst);
        let _ = self.line.write(1);
    }
}

/// Device and transport state.
pub struct Transport {
    /// The device.
    pub device: Box<dyn Device>,
    queues: Vec<Queue>,
    memory: Memory,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    addresses: Vec<[u32; 6]>,
    live: bool,
}

/// A slot in a snapshot. The fields are those of `Transport`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SlotState {
    name: String,
    number: u32,
    features: u64,
    queues: Vec<QueueFields>,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    addresses: Vec<[u32; 6]>,
    live: bool,
    interrupt: u32,
    device: Vec<u8>,
}

/// `QueueState` of the queue crate in a form that can be written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct QueueFields {
    size: u16,
    next_avail: u16,
    next_used: u16,
    event_idx: bool,
    ready: bool,
    rings: [u64; 3],
}

impl QueueFields {
    fn of(queue: &Queue) -> QueueFields {
        let state = queue.state();
        QueueFields {
            size: state.size,
            next_avail: state.next_avail,
            next_used: state.next_used,
            event_idx: state.event_idx_enabled,
            ready: state.ready,
            rings: [state.desc_table, state.avail_ring, state.used_ring],
        }
    }

    fn queue(&self, max_size: u16) -> Result<Queue, virtio_queue::Error> {
        Queue::try_from(QueueState {
            max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: self.event_idx,
            size: self.size,
            ready: self.ready,
            desc_table: self.rings[0],
            avail_ring: self.rings[1],
            used_ring: self.rings[2],
        })
    }
}

/// A slot with its device, shared by the processors and the device's worker.
pub struct Slot {
    /// Name in status and logs: `disk0`, `nic0`, `rng`.
    pub name: String,
    /// What happened here.
    pub counters: Arc<Counters>,
    /// One event per queue; KVM writes it when the guest notifies.
    pub notify: Vec<EventFd>,
    interrupt: Interrupt,
    transport: Mutex<Transport>,
}

impl Slot {
    /// A device after power-on.
    pub fn new(
        name: String,
        device: Box<dyn Device>,
        counters: Arc<Counters>,
        memory: Memory,
        line: EventFd,
    ) -> std::io::Result<Slot> {
        let sizes = device.queue_sizes();
        let new_event = |_: &u16| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let notify = sizes.iter().map(new_event).collect::<std::io::Result<Vec<_>>>()?;
        let queues = sizes.iter().map(|size| Queue::new(*size).map_err(std::io::Error::other));
        let transport = Transport {
            queues: queues.collect::<std::io::Result<Vec<_>>>()?,
            addresses: vec![[0; 6]; sizes.len()],
            device,
            memory,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            live: false,
        };
        Ok(Slot { name, counters, notify, interrupt: Interrupt::new(line), transport: Mutex::new(transport) })
    }

    /// A guest read. Registers answer to aligned 32-bit accesses, configuration space to any.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            data.fill(0);
            return lock(&self.transport).device.read_config(offset - CONFIG, data);
        }
        let Ok(register) = <&mut [u8; 4]>::try_from(data) else {
            return count(&self.counters.bad_accesses);
        };
        let value = if offset == 0x60 {
            self.interrupt.status.load(Ordering::SeqCst)
        } else {
            lock(&self.transport).read(offset)
        };
        *register = value.to_le_bytes();
    }

    /// A guest write.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return count(&self.counters.bad_accesses);
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x64 => {
                self.interrupt.status.fetch_and(!value, Ordering::SeqCst);
            }
            // KVM takes notifications; one that arrives here names a queue that does not exist, or KVM has no ioeventfd.
            QUEUE_NOTIFY => match self.notify.get(value as usize) {
                Some(event) => drop(event.write(1)),
                None => count(&self.counters.bad_accesses),
            },
            0x70 if value == 0 => self.reset(),
            0x70 => self.set_status(value),
            _ => {
                if !lock(&self.transport).write(offset, value) {
                    count(&self.counters.bad_accesses);
                }
            }
        }
    }

    /// Back to power-on. Waits for work in progress, so that afterwards the device touches no guest memory.
    fn reset(&self) {
        let mut transport = lock(&self.transport);
        transport.device.reset();
        transport.queues.iter_mut().for_each(Queue::reset);
        transport.addresses.iter_mut().for_each(|a| *a = [0; 6]);
        transport.status = 0;
        transport.driver_features = 0;
        transport.live = false;
        self.interrupt.status.store(0, Ordering::SeqCst);
    }

    fn set_status(&self, value: u32) {
        let mut transport = lock(&self.transport);
        match transport.set_status(value) {
            Ok(false) => {}
            // Buffers may lie in the queues already: let the worker look.
            Ok(true) => self.notify.iter().for_each(|event| drop(event.write(1))),
            Err(broken) => self.break_device(&mut transport, broken),
        }
    }

    fn break_device(&self, transport: &mut Transport, _why: Broken) {
        if transport.status & NEEDS_RESET == 0 {
            transport.status |= NEEDS_RESET;
            transport.live = false;
            count(&self.counters.needs_reset);
            self.interrupt.raise(INTERRUPT_CONFIG);
        }
    }

    /// Does a turn of work on a queue (or, without a number, on the host's end). Called by the worker.
    pub fn turn(&self, queue: Option<usize>) -> Served {
        let mut guard = lock(&self.transport);
        let transport = &mut *guard;
        if !transport.live || queue.is_some_and(|q| transport.queues.get(q).is_none_or(|queue| !queue.ready())) {
            return Served::default();
        }
        let (device, queues, memory) = (&mut transport.device, &mut transport.queues, &transport.memory);
        let result = match queue {
            Some(number) => device.serve(number, queues, memory),
            None => device.host_ready(queues, memory),
        };
        match result {
            Ok(served) => {
                if served.interrupt {
                    self.interrupt.raise(INTERRUPT_USED);
                }
                served
            }
            Err(broken) => {
                self.break_device(transport, broken);
                Served::default()
            }
        }
    }

    /// Writes the slot down. The worker stands still.
    pub fn save(&self) -> Result<SlotState, SnapshotError> {
        let transport = lock(&self.transport);
        Ok(SlotState {
            name: self.name.clone(),
            number: transport.device.number(),
            features: transport.offered(),
            queues: transport.queues.iter().map(QueueFields::of).collect(),
            status: transport.status,
            device_features_select: transport.device_features_select,
            driver_features_select: transport.driver_features_select,
            driver_features: transport.driver_features,
            queue_select: transport.queue_select,
            addresses: transport.addresses.clone(),
            live: transport.live,
            interrupt: self.interrupt.status.load(Ordering::SeqCst),
            device: transport.device.save()?,
        })
    }

    /// Takes up a saved state, before the worker has begun. A notification or an interrupt may have been on its way when
    /// the state was saved, so all of them are given once more: drivers and devices take one too many for none.
    pub fn restore(&self, state: &SlotState) -> Result<(), SnapshotError> {
        let mut transport = lock(&self.transport);
        transport.restore(&self.name, state)?;
        self.interrupt.status.store(state.interrupt, Ordering::SeqCst);
        if state.interrupt != 0 {
            self.interrupt.raise(0);
        }
        self.notify.iter().for_each(|event| drop(event.write(1)));
        Ok(())
    }

    /// The host's end and whether to watch it now.
    pub fn host_end(&self) -> Option<(std::os::fd::RawFd, bool)> {
        let transport = lock(&self.transport);
        transport.device.host_end().map(|fd| (fd, transport.live && transport.device.wants_host()))
    }

    /// Whether a driver uses the device, and whether the device waits for a reset.
    pub fn driver_state(&self) -> (bool, bool) {
        let transport = lock(&self.transport);
        (transport.live, transport.status & NEEDS_RESET != 0)
    }
}

impl Transport {
    fn offered(&self) -> u64 {
        self.device.features() | F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX
    }

    fn read(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.queue_select as usize);
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device.number(),
            0x0c => VENDOR,
            0x10 => match self.device_features_select {
                0 => self.offered() as u32,
                1 => (self.offered() >> 32) as u32,
                _ => 0,
            },
            0x34 => queue.map_or(0, |q| u32::from(q.max_size())),
            0x44 => queue.map_or(0, |q| u32::from(q.ready())),
            0x70 => self.status,
            // No shared memory regions: the length reads as all ones. No change of configuration: generation 0.
            0xb0 | 0xb4 | 0xb8 | 0xbc => u32::MAX,
            _ => 0,
        }
    }

    /// False when the register cannot be written now.
    fn write(&mut self, offset: u64, value: u32) -> bool {
        match offset {
            0x14 => self.device_features_select = value,
            0x24 => self.driver_features_select = value,
            0x30 => self.queue_select = value,
            0x20 if self.status & (DRIVER | FEATURES_OK) == DRIVER => {
                let half = match self.driver_features_select {
                    0 => 0,
                    1 => 32,
                    _ => return value == 0,
                };
                self.driver_features = (self.driver_features & !(0xffff_ffff << half)) | (u64::from(value) << half);
            }
            // A driver may take a queue back while the device lives.
            0x44 if value == 0 && self.status & DRIVER_OK != 0 => {
                let select = self.queue_select as usize;
                let Some(queue) = self.queues.get_mut(select) else { return false };
                queue.set_ready(false);
                self.device.queue_stopped(select);
            }
            0x38 | 0x44 | 0x80..=0xa4 if self.status & (FEATURES_OK | DRIVER_OK) == FEATURES_OK => {
                return self.write_queue(offset, value);
            }
            _ => return false,
        }
        true
    }

    fn write_queue(&mut self, offset: u64, value: u32) -> bool {
        let select = self.queue_select as usize;
        let (Some(queue), Some(addresses)) = (self.queues.get_mut(select), self.addresses.get_mut(select)) else {
            return false;
        };
        let field = match offset {
            0x38 => {
                let size = u16::try_from(value).unwrap_or(0);
                return queue.try_set_size(size).is_ok();
            }
            0x44 => {
                if value == 1 {
                    let at = |low: usize| {
                        vm_memory::GuestAddress(u64::from(addresses[low]) | u64::from(addresses[low + 1]) << 32)
                    };
                    let set = queue.try_set_desc_table_address(at(0)).is_ok()
                        && queue.try_set_avail_ring_address(at(2)).is_ok()
                        && queue.try_set_used_ring_address(at(4)).is_ok();
                    queue.set_ready(set);
                    return set;
                }
                queue.set_ready(false);
                return true;
            }
            0x80 => 0,
            0x84 => 1,
            0x90 => 2,
            0x94 => 3,
            0xa0 => 4,
            0xa4 => 5,
            _ => return false,
        };
        addresses[field] = value;
        true
    }

    fn restore(&mut self, name: &str, state: &SlotState) -> Result<(), SnapshotError> {
        let mismatch =
            |what: &str| Err(SnapshotError::Mismatch(format!("{} was, {name} is: other {what}", state.name)));
        if state.number != self.device.number() {
            return mismatch("kinds of device");
        }
        if state.features != self.offered() || state.driver_features & !state.features != 0 {
            return mismatch("features");
        }
        if state.queues.len() != self.queues.len() || state.addresses.len() != self.queues.len() {
            return mismatch("queues");
        }
        for (queue, saved) in self.queues.iter_mut().zip(&state.queues) {
            *queue = saved.queue(queue.max_size()).map_err(|e| SnapshotError::Malformed(e.to_string()))?;
            if state.live && queue.ready() && !queue.is_valid(&self.memory) {
                return Err(SnapshotError::Malformed(format!("{name} has a ring outside guest memory")));
            }
        }
        self.status = state.status;
        self.device_features_select = state.device_features_select;
        self.driver_features_select = state.driver_features_select;
        self.driver_features = state.driver_features;
        self.queue_select = state.queue_select;
        self.addresses.clone_from(&state.addresses);
        self.live = state.live && state.status & DRIVER_OK != 0;
        if self.live {
            self.device.activate(self.driver_features);
        }
        self.device.restore(&state.device, &self.memory)
    }

    /// True when the device became live.
    fn set_status(&mut self, value: u32) -> Result<bool, Broken> {
        let added = value & !self.status;
        if value & FAILED != 0 || self.status & NEEDS_RESET != 0 {
            self.status |= value & FAILED;
            self.live = false;
            return Ok(false);
        }
        self.status |= added & (ACKNOWLEDGE | DRIVER);
        if added & FEATURES_OK != 0 && self.status & DRIVER != 0 {
            let wanted = self.driver_features;
            if wanted & !self.offered() == 0 && wanted & F_VERSION_1 != 0 {
                self.status |= FEATURES_OK;
            }
        }
        if added & DRIVER_OK == 0 || self.status & FEATURES_OK == 0 {
            return Ok(false);
        }
        self.status |= DRIVER_OK;
        for queue in self.queues.iter_mut() {
            queue.set_event_idx(self.driver_features & F_EVENT_IDX != 0);
            if queue.ready() && !queue.is_valid(&self.memory) {
                return Err(Broken("a ring lies outside guest memory"));
            }
        }
        self.device.activate(self.driver_features);
        self.live = true;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
