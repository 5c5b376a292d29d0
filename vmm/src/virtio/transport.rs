//! What every transport has in common: the life of a device as its driver leads it, and the queues (virtio 1.2, chapter 3).
//!
//! ```text
//!   reset ──ACKNOWLEDGE|DRIVER──► features ──FEATURES_OK──► queues ──DRIVER_OK──► live ──► needs reset
//!     ▲                                                                            │          │
//!     └────────────────────────────── status = 0 ◄─────────────────────────────────┴──────────┘
//! ```
//! Registers are written in this order or not at all: a queue can be changed only between FEATURES_OK and DRIVER_OK.
//! `mmio` and `pci` are the two register layouts in front of it; how an interrupt reaches the guest is theirs
//! (`Interrupts`), and lies outside the lock, so that a guest's interrupt handler never waits for disk work.

use super::chain;
use super::counters::{Counters, count};
use super::handle::Handle;
use super::lane::{Broke, Lanes};
use super::vhost::Calls;
use super::vhost::log::Log;
use super::{Broken, Device, F_EVENT_IDX, F_VERSION_1, Served};
use crate::gate::lock;
use crate::memory::Memory;
use crate::snapshot::SnapshotError;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

pub(super) const ACKNOWLEDGE: u32 = 1;
pub(super) const DRIVER: u32 = 2;
pub(super) const DRIVER_OK: u32 = 4;
pub(super) const FEATURES_OK: u32 = 8;
pub(super) const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

/// How a device interrupts its driver.
pub trait Interrupts: Send + Sync {
    /// Buffers of this queue were used.
    fn used(&self, queue: usize);
    /// The configuration space, or the device's state, changed.
    fn changed(&self);
    /// The driver reset the device.
    fn reset(&self);
    /// The device is served elsewhere, where these events interrupt: who can, passes them on by himself.
    fn take_calls(&self, _calls: Arc<Calls>) {}
}

/// Device and transport state.
pub struct Transport {
    /// The device.
    pub device: Box<dyn Device>,
    pub(super) queues: Vec<Queue>,
    pub(super) memory: Memory,
    pub(super) status: u32,
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    pub(super) driver_features: u64,
    pub(super) queue_select: u32,
    pub(super) addresses: Vec<[u32; 6]>,
    pub(super) generation: u32,
    live: bool,
    /// Where queues are while the device lives that are served side by side.
    lanes: Arc<Lanes>,
    /// Counts the resets: which life of the device this is.
    life: u64,
}

/// The same in a snapshot. The fields are those of `Transport`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TransportState {
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
    generation: u32,
    device: Vec<u8>,
}

impl TransportState {
    /// The device's name, and how many queues it had.
    pub fn queues(&self) -> (&str, usize) {
        (&self.name, self.queues.len())
    }
}

/// `QueueState` of the queue crate in a form that can be written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct QueueFields {
    size: u16,
    next_avail: u16,
    next_used: u16,
    event_idx: bool,
    ready: bool,
    rings: [u64; 3],
}

impl QueueFields {
    pub(super) fn of(queue: &Queue) -> QueueFields {
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

/// A device with its transport state, shared by the processors and the device's worker.
pub struct Slot {
    /// Name in status and logs: `disk0`, `nic0`, `rng`.
    pub name: String,
    /// What happened here.
    pub counters: Arc<Counters>,
    /// What the monitor can change while it runs.
    pub handle: Handle,
    /// One event per queue; KVM writes it when the guest notifies.
    pub notify: Vec<EventFd>,
    interrupts: Box<dyn Interrupts>,
    transport: Mutex<Transport>,
    lanes: Arc<Lanes>,
    /// It was taken out: its worker goes home.
    retired: AtomicBool,
}

/// A device that is to become a slot.
pub struct Part {
    /// Name in status and logs.
    pub name: String,
    /// The device.
    pub device: Box<dyn Device>,
    /// What it counts into.
    pub counters: Arc<Counters>,
    /// What can be changed while it runs.
    pub handle: Handle,
}

impl Slot {
    /// A device after power-on.
    pub fn new(mut part: Part, memory: Memory, interrupts: Box<dyn Interrupts>) -> std::io::Result<Slot> {
        let sizes = part.device.queue_sizes();
        let new_event = |_: &u16| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let notify = sizes.iter().map(new_event).collect::<std::io::Result<Vec<_>>>()?;
        if part.device.is_served_elsewhere() {
            part.device.take_kicks(notify.iter().map(EventFd::try_clone).collect::<std::io::Result<_>>()?);
            part.device.calls().into_iter().for_each(|calls| interrupts.take_calls(calls));
        }
        let queues = sizes.iter().map(|size| Queue::new(*size).map_err(std::io::Error::other));
        let lanes = Arc::new(Lanes::new(part.device.take_lanes(), memory.clone()));
        let transport = Transport {
            queues: queues.collect::<std::io::Result<Vec<_>>>()?,
            addresses: vec![[0; 6]; sizes.len()],
            device: part.device,
            memory,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            generation: 0,
            live: false,
            lanes: lanes.clone(),
            life: 0,
        };
        let (name, counters, handle) = (part.name, part.counters, part.handle);
        Ok(Slot {
            name,
            counters,
            handle,
            notify,
            interrupts,
            transport: Mutex::new(transport),
            lanes,
            retired: AtomicBool::new(false),
        })
    }

    pub(super) fn transport(&self) -> MutexGuard<'_, Transport> {
        lock(&self.transport)
    }

    /// A notification that KVM did not take: it names a queue that does not exist, or KVM has no ioeventfd.
    pub(super) fn notified(&self, queue: usize) {
        match self.notify.get(queue) {
            Some(event) => drop(event.write(1)),
            None => count(&self.counters.bad_accesses),
        }
    }

    /// Back to power-on. Waits for work in progress, so that afterwards the device touches no guest memory.
    pub fn reset(&self) {
        let mut transport = lock(&self.transport);
        transport.lanes.clear();
        transport.life += 1;
        transport.device.reset();
        transport.queues.iter_mut().for_each(Queue::reset);
        transport.addresses.iter_mut().for_each(|a| *a = [0; 6]);
        transport.status = 0;
        transport.driver_features = 0;
        transport.live = false;
        self.interrupts.reset();
    }

    /// The driver writes the status register.
    pub(super) fn set_status(&self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let mut transport = lock(&self.transport);
        match transport.set_status(value) {
            Ok(false) => {}
            // Buffers may lie in the queues already: let the worker look.
            Ok(true) => self.wake(),
            Err(broken) => self.break_device(&mut transport, broken),
        }
    }

    fn break_device(&self, transport: &mut Transport, _why: Broken) {
        if transport.status & NEEDS_RESET == 0 {
            transport.status |= NEEDS_RESET;
            transport.live = false;
            transport.lanes.clear();
            count(&self.counters.needs_reset);
            self.interrupts.changed();
        }
    }

    /// The same from a lane, which found it in that life of the device.
    pub(super) fn broke(&self, Broke(life): Broke) {
        let mut transport = lock(&self.transport);
        if transport.life == life && transport.live {
            self.break_device(&mut transport, Broken("a queue that is served by itself"));
        }
    }

    /// How many workers serve its queues side by side, one each; 0: one serves them all.
    pub fn lanes(&self) -> usize {
        self.lanes.count()
    }

    /// Sends the workers home, once they are woken.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether the device was taken out.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Has the worker look at every queue.
    pub fn wake(&self) {
        self.notify.iter().for_each(|event| drop(event.write(1)));
    }

    /// The device's configuration space has changed (through its handle): the driver is told.
    pub fn config_changed(&self) {
        let mut transport = lock(&self.transport);
        transport.generation = transport.generation.wrapping_add(1);
        if transport.live {
            self.interrupts.changed();
        }
        self.wake();
    }

    pub(super) fn turn_of_lane(&self, number: usize) -> Result<Served, Broke> {
        self.lanes.turn(number, || self.interrupts.used(number))
    }

    /// Does a turn of work on a queue (or, without a number, on the host's end). Called by the worker.
    pub fn turn(&self, queue: Option<usize>) -> Served {
        if let Some(number) = queue.filter(|number| *number < self.lanes.count()) {
            return self.turn_of_lane(number).unwrap_or_else(|broke| {
                self.broke(broke);
                Served::default()
            });
        }
        let mut guard = lock(&self.transport);
        let transport = &mut *guard;
        if queue.is_none() && transport.device.is_served_elsewhere() {
            let served = transport.device.host_ready(&mut transport.queues, &transport.memory).unwrap_or_default();
            self.pass_on(transport, served);
            return served;
        }
        if !transport.live || queue.is_some_and(|q| transport.queues.get(q).is_none_or(|queue| !queue.ready())) {
            return Served::default();
        }
        let (device, queues, memory) = (&mut transport.device, &mut transport.queues, &transport.memory);
        let (number, result) = match queue {
            Some(number) => (number, device.serve(number, queues, memory)),
            None => (device.host_queue(), device.host_ready(queues, memory)),
        };
        match result {
            Ok(served) => {
                if served.interrupt {
                    self.interrupts.used(number);
                }
                served
            }
            Err(broken) => {
                self.break_device(transport, broken);
                Served::default()
            }
        }
    }

    /// What another process has done is told to the driver.
    fn pass_on(&self, transport: &mut Transport, served: Served) {
        if served.changed {
            transport.generation = transport.generation.wrapping_add(1);
        }
        if transport.live {
            let used = (0..transport.queues.len()).filter(|queue| served.used & 1 << queue != 0);
            used.for_each(|queue| self.interrupts.used(queue));
            if served.changed {
                self.interrupts.changed();
            }
        }
    }

    /// Whether another process serves the queues.
    pub fn is_served_elsewhere(&self) -> bool {
        lock(&self.transport).device.is_served_elsewhere()
    }

    /// The gate shuts: whoever serves the queues elsewhere gives them back.
    pub fn rest(&self) {
        let mut guard = lock(&self.transport);
        let transport = &mut *guard;
        let served = transport.device.rest(&mut transport.queues);
        self.pass_on(transport, served);
    }

    /// The gate has opened.
    pub fn go_on(&self) {
        lock(&self.transport).device.go_on();
    }

    /// Why the machine cannot move with this device, where that is so.
    pub fn can_move(&self) -> Result<(), String> {
        lock(&self.transport).device.can_move()
    }

    /// Has another process note which pages it writes, or no longer. None: nobody else writes here.
    pub fn log_writes(&self, on: bool) -> Result<Option<Arc<Log>>, String> {
        let mut guard = lock(&self.transport);
        let transport = &mut *guard;
        if !transport.device.is_served_elsewhere() {
            return Ok(None);
        }
        let log = on.then(|| Log::new(&transport.memory).map(Arc::new)).transpose().map_err(|e| e.to_string())?;
        transport.device.log_writes(&transport.queues, log.clone()).map(|()| log)
    }

    /// Whether chains wait in one of these queues: the mask of those that have some. Nothing is done with them.
    pub fn waiting(&self, queues: u64) -> u64 {
        self.each_quiet(queues, |queue, memory| chain::is_waiting(queue, memory))
    }

    /// Has the driver notify these queues again; the mask of those that something came to meanwhile.
    pub fn listen(&self, queues: u64) -> u64 {
        self.each_quiet(queues, chain::ask_notification)
    }

    fn each_quiet(&self, mask: u64, look: impl Fn(&mut Queue, &Memory) -> Result<bool, Broken>) -> u64 {
        if self.lanes.count() > 0 {
            return self.lanes.each(mask, look).unwrap_or_else(|broke| {
                self.broke(broke);
                0
            });
        }
        let mut guard = lock(&self.transport);
        let transport = &mut *guard;
        if !transport.live {
            return 0;
        }
        let mut found = 0;
        for (number, queue) in transport.queues.iter_mut().enumerate().filter(|(n, _)| mask & 1 << n != 0) {
            match look(queue, &transport.memory) {
                Ok(true) => found |= 1 << number,
                Ok(false) => {}
                Err(broken) => {
                    self.break_device(transport, broken);
                    return 0;
                }
            }
        }
        found
    }

    /// Writes the device down. Its workers stand still.
    pub fn save(&self) -> Result<TransportState, SnapshotError> {
        let transport = lock(&self.transport);
        let queues = transport.queues.iter().enumerate().map(|(number, queue)| {
            let held = transport.lanes.fields(number)?;
            Ok(held.unwrap_or_else(|| QueueFields::of(queue)))
        });
        Ok(TransportState {
            name: self.name.clone(),
            number: transport.device.number(),
            features: transport.offered(),
            queues: queues.collect::<Result<_, SnapshotError>>()?,
            status: transport.status,
            device_features_select: transport.device_features_select,
            driver_features_select: transport.driver_features_select,
            driver_features: transport.driver_features,
            queue_select: transport.queue_select,
            addresses: transport.addresses.clone(),
            live: transport.live,
            generation: transport.generation,
            device: transport.device.save()?,
        })
    }

    /// Takes up a saved state, before the worker has begun. A notification may have been on its way when the state was
    /// saved, so all of them are given once more: devices take one too many for none.
    pub fn restore(&self, state: &TransportState) -> Result<(), SnapshotError> {
        lock(&self.transport).restore(&self.name, state)?;
        self.wake();
        Ok(())
    }

    /// The host's end and whether to watch it now.
    pub fn host_end(&self) -> Option<(std::os::fd::RawFd, bool)> {
        let transport = lock(&self.transport);
        let elsewhere = transport.device.is_served_elsewhere();
        let wanted = (transport.live || elsewhere) && transport.device.wants_host();
        transport.device.host_end().map(|fd| (fd, wanted))
    }

    /// Whether its worker deals with connections, and needs the calls for that.
    pub fn has_connections(&self) -> bool {
        lock(&self.transport).device.has_connections()
    }

    /// Whether a driver uses the device, and whether the device waits for a reset.
    pub fn driver_state(&self) -> (bool, bool) {
        let transport = lock(&self.transport);
        (transport.live, transport.status & NEEDS_RESET != 0)
    }
}

impl Transport {
    pub(super) fn offered(&self) -> u64 {
        self.device.features() | self.device.ring_features()
    }

    /// Half of the offered features.
    pub(super) fn device_features(&self) -> u32 {
        match self.device_features_select {
            0 => self.offered() as u32,
            1 => (self.offered() >> 32) as u32,
            _ => 0,
        }
    }

    /// The driver accepts half of the features. False: not now.
    pub(super) fn accept_features(&mut self, value: u32) -> bool {
        let half = match self.driver_features_select {
            _ if self.status & (DRIVER | FEATURES_OK) != DRIVER => return false,
            0 => 0,
            1 => 32,
            _ => return value == 0,
        };
        self.driver_features = (self.driver_features & !(0xffff_ffff << half)) | (u64::from(value) << half);
        true
    }

    /// The selected queue.
    pub(super) fn queue(&self) -> Option<&Queue> {
        self.queues.get(self.queue_select as usize)
    }

    /// Whether queues can be laid out now.
    fn laying_out(&self) -> bool {
        self.status & (FEATURES_OK | DRIVER_OK) == FEATURES_OK
    }

    /// Sets the size of the selected queue. False: not now, or not that.
    pub(super) fn set_queue_size(&mut self, size: u16) -> bool {
        let ready = self.laying_out();
        self.queues.get_mut(self.queue_select as usize).is_some_and(|q| ready && q.try_set_size(size).is_ok())
    }

    /// Sets half of an address of the selected queue: 0 and 1 descriptors, 2 and 3 available, 4 and 5 used ring.
    pub(super) fn set_queue_address(&mut self, half: usize, value: u32) -> bool {
        let ready = self.laying_out();
        let slot = self.addresses.get_mut(self.queue_select as usize).and_then(|a| a.get_mut(half));
        slot.filter(|_| ready).map(|slot| *slot = value).is_some()
    }

    /// Takes the selected queue into use, or back: that is possible while the device lives, too.
    pub(super) fn set_queue_ready(&mut self, ready: bool) -> bool {
        let select = self.queue_select as usize;
        let laying_out = self.laying_out();
        let Some(queue) = self.queues.get_mut(select) else { return false };
        if !ready {
            if !laying_out && self.status & DRIVER_OK == 0 {
                return false;
            }
            queue.set_ready(false);
            self.lanes.take_back(select);
            self.device.queue_stopped(select);
            return true;
        }
        let addresses = self.addresses[select];
        let at = |low: usize| GuestAddress(u64::from(addresses[low]) | u64::from(addresses[low + 1]) << 32);
        let set = laying_out
            && queue.try_set_desc_table_address(at(0)).is_ok()
            && queue.try_set_avail_ring_address(at(2)).is_ok()
            && queue.try_set_used_ring_address(at(4)).is_ok();
        if laying_out {
            queue.set_ready(set);
        }
        set
    }

    fn restore(&mut self, name: &str, state: &TransportState) -> Result<(), SnapshotError> {
        let mismatch =
            |what: &str| Err(SnapshotError::Mismatch(format!("{} was, {name} is: other {what}", state.name)));
        if state.number != self.device.number() {
            return mismatch("kinds of device");
        }
        // Before FEATURES_OK a driver may have written anything; it has agreed to nothing.
        let agreed = if state.status & FEATURES_OK != 0 { state.driver_features } else { 0 };
        if state.features != self.offered() || agreed & !state.features != 0 {
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
        self.generation = state.generation;
        self.live = state.live && state.status & DRIVER_OK != 0;
        if self.live {
            self.device.activate(self.driver_features);
        }
        self.device.restore(&state.device, &self.memory)?;
        if self.live {
            self.lanes.hand_out(&self.queues, self.life);
        }
        Ok(())
    }

    /// True when the device became live.
    fn set_status(&mut self, value: u32) -> Result<bool, Broken> {
        let added = value & !self.status;
        if value & FAILED != 0 || self.status & NEEDS_RESET != 0 {
            self.status |= value & FAILED;
            self.live = false;
            self.lanes.clear();
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
        self.lanes.hand_out(&self.queues, self.life);
        self.live = true;
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
