//! The PCI transport, modern only (virtio 1.2, section 4.1): one function, one BAR.
//!
//! | offset in the BAR | what |
//! | --- | --- |
//! | 0x0000 | common configuration |
//! | 0x1000 | interrupt status (for drivers that poll: interrupts are MSI-X) |
//! | 0x2000 | device configuration |
//! | 0x3000 | notifications, four bytes a queue |
//! | 0x4000, 0x5000 | MSI-X table and pending bits |
//!
//! KVM takes notifications at the BAR's address; when the guest moves the BAR they move along. In between, and without
//! decoding, an access comes here or nowhere.

mod direct;

use super::counters::count;
use super::transport::{Interrupts, Part, Slot, TransportState};
use super::vhost::Calls;
use crate::gate::lock;
use crate::memory::Memory;
use crate::pci::config::Space;
use crate::pci::msix::{Message, Msix, MsixState, NONE};
use crate::pci::routes::Routes;
use crate::pci::{Function, WINDOW};
use crate::snapshot::SnapshotError;
use direct::Direct;
use kvm_ioctls::{IoEventAddress, VmFd};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use virtio_queue::QueueT;

/// Bytes of the BAR.
pub const BAR: u32 = 0x8000;
const VENDOR: u16 = 0x1af4;
/// Device ids of modern devices begin here.
const DEVICE: u16 = 0x1040;
const ISR: u64 = 0x1000;
const CONFIG: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const PENDING: u64 = 0x5000;
const CAPABILITY_VENDOR: u8 = 9;
const CAPABILITY_MSIX: u8 = 0x11;

/// What KVM does for functions: the machine, and its table of routes.
pub type Kvm = (Arc<VmFd>, Arc<Routes>);

/// Vectors that the driver has chosen, and the status for those that poll.
struct Vectors {
    msix: Msix,
    kvm: Option<Kvm>,
    /// Interrupts that another process raises.
    direct: OnceLock<Direct>,
    changed: AtomicU16,
    queues: Vec<AtomicU16>,
    status: AtomicU8,
}

impl Vectors {
    /// What this queue's vector stands for, when it may interrupt.
    fn message(&self, queue: usize) -> Option<Message> {
        self.msix.message(self.queues.get(queue)?.load(Ordering::Relaxed))
    }

    /// The driver has changed something.
    fn settle(&self) {
        if let Some(direct) = self.direct.get() {
            direct.settle(|queue| self.message(queue), |queue| self.raise(queue));
        }
    }

    /// Takes what another process has raised and nobody was listening to.
    fn gather(&self) {
        if let Some(direct) = self.direct.get() {
            direct.gather().into_iter().for_each(|queue| self.raise(queue));
        }
    }

    fn raise(&self, queue: usize) {
        self.status.fetch_or(1, Ordering::SeqCst);
        self.msix.raise(self.queues[queue].load(Ordering::Relaxed));
    }
}

impl Interrupts for Arc<Vectors> {
    fn used(&self, queue: usize) {
        self.raise(queue);
    }

    fn changed(&self) {
        self.status.fetch_or(2, Ordering::SeqCst);
        self.msix.raise(self.changed.load(Ordering::Relaxed));
    }

    fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.changed.store(NONE, Ordering::Relaxed);
        self.queues.iter().for_each(|vector| vector.store(NONE, Ordering::Relaxed));
        self.settle();
        self.msix.reset();
    }

    fn take_calls(&self, calls: Arc<Calls>) {
        let Some((vm, routes)) = self.kvm.clone() else { return };
        if let Some(direct) = Direct::new(vm, routes, calls.clone())
            && self.direct.set(direct).is_ok()
        {
            calls.taken();
        }
    }
}

/// A device behind a PCI function.
pub struct Pci {
    /// The device.
    pub slot: Arc<Slot>,
    /// Its device number on the bus.
    pub number: u8,
    vectors: Arc<Vectors>,
    space: Mutex<Space>,
    msix_at: usize,
    vm: Option<Arc<VmFd>>,
    /// Where KVM takes notifications now.
    notified_at: Mutex<Option<u64>>,
}

/// The same in a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PciState {
    number: u8,
    /// "": written by a version that told devices by their order.
    #[serde(default)]
    name: String,
    transport: TransportState,
    space: Vec<u8>,
    msix: MsixState,
    changed: u16,
    queues: Vec<u16>,
    status: u8,
}

impl PciState {
    /// The device's name, and how many queues it had.
    pub fn queues(&self) -> (&str, usize) {
        self.transport.queues()
    }

    /// Device number on the bus.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// These states in the order of the devices of these names. An error when they are not the same devices.
    pub fn in_order_of<'s>(states: &'s [PciState], names: &[&str]) -> Result<Vec<&'s PciState>, SnapshotError> {
        if states.len() != names.len() {
            let text = format!("it had {} PCI devices, this has {}", states.len(), names.len());
            return Err(SnapshotError::Mismatch(text));
        }
        if states.iter().any(|state| state.name.is_empty()) {
            return Ok(states.iter().collect());
        }
        let state_of = |name: &&str| {
            let found = states.iter().find(|state| state.name == **name);
            found.ok_or_else(|| SnapshotError::Mismatch(format!("it had no {name}")))
        };
        names.iter().map(state_of).collect()
    }
}

impl Pci {
    /// A device after power-on, at this number.
    pub fn new(part: Part, memory: Memory, number: u8, kvm: Option<Kvm>) -> std::io::Result<Pci> {
        let vm = kvm.as_ref().map(|(vm, _)| vm.clone());
        let kind = part.device.number() as u16;
        let queues = part.device.queue_sizes().len();
        let vectors = Arc::new(Vectors {
            msix: Msix::new(queues + 1, vm.clone()),
            kvm,
            direct: OnceLock::new(),
            changed: AtomicU16::new(NONE),
            queues: (0..queues).map(|_| AtomicU16::new(NONE)).collect(),
            status: AtomicU8::new(0),
        });
        let (space, msix_at) = space(kind, number, queues + 1).ok_or_else(|| std::io::Error::other("no room"))?;
        let slot = Arc::new(Slot::new(part, memory, Box::new(vectors.clone()))?);
        Ok(Pci { slot, number, vectors, space: Mutex::new(space), msix_at, vm, notified_at: Mutex::new(None) })
    }

    /// Has KVM take notifications where the BAR is now.
    fn remap(&self, space: &Space) {
        let (Some(vm), mut at) = (&self.vm, lock(&self.notified_at)) else { return };
        let now = space.memory();
        if *at == now {
            return;
        }
        for (n, event) in (0u32..).zip(&self.slot.notify) {
            let place = |bar: u64| IoEventAddress::Mmio(bar + NOTIFY + u64::from(n) * 4);
            // Failures leave the way through `memory_write`.
            if let Some(old) = *at {
                let _ = vm.unregister_ioevent(event, &place(old), n as u16);
            }
            if let Some(new) = now {
                let _ = vm.register_ioevent(event, &place(new), n as u16);
            }
        }
        *at = now;
    }

    /// Writes it down.
    pub fn save(&self) -> Result<PciState, SnapshotError> {
        let load = |vector: &AtomicU16| vector.load(Ordering::Relaxed);
        Ok(PciState {
            number: self.number,
            name: self.slot.name.clone(),
            transport: self.slot.save()?,
            space: lock(&self.space).written(),
            msix: self.vectors.msix.save(),
            changed: load(&self.vectors.changed),
            queues: self.vectors.queues.iter().map(load).collect(),
            status: self.vectors.status.load(Ordering::SeqCst),
        })
    }

    /// Takes it up. An interrupt may have been on its way, so all are given once more.
    pub fn restore(&self, state: &PciState) -> Result<(), SnapshotError> {
        let fits = state.number == self.number && state.queues.len() == self.vectors.queues.len();
        if !fits || !self.vectors.msix.restore(&state.msix) {
            return Err(SnapshotError::Mismatch(format!("another device was where {} is", self.slot.name)));
        }
        self.slot.restore(&state.transport)?;
        self.vectors.changed.store(state.changed, Ordering::Relaxed);
        for (vector, saved) in self.vectors.queues.iter().zip(&state.queues) {
            vector.store(*saved, Ordering::Relaxed);
        }
        self.vectors.status.store(state.status, Ordering::SeqCst);
        self.vectors.settle();
        let mut space = lock(&self.space);
        space.restore(&state.space);
        self.remap(&space);
        drop(space);
        (0..self.vectors.queues.len()).for_each(|queue| self.vectors.used(queue));
        Ok(())
    }

    /// Offset in the BAR, when the address is in it and decoded.
    fn offset(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(lock(&self.space).memory()?)?;
        (offset < u64::from(BAR)).then_some(offset)
    }

    fn read_common(&self, offset: u64) -> u64 {
        let transport = self.slot.transport();
        let queue = transport.queue();
        let select = transport.queue_select as usize;
        let address = |half: usize| transport.addresses.get(select).map_or(0, |a| u64::from(a[half]));
        match offset {
            0 => u64::from(transport.device_features_select),
            4 => u64::from(transport.device_features()),
            8 => u64::from(transport.driver_features_select),
            16 => u64::from(self.vectors.changed.load(Ordering::Relaxed)),
            18 => transport.queues.len() as u64,
            20 => u64::from(transport.status),
            21 => u64::from(transport.generation & 0xff),
            22 => u64::from(transport.queue_select),
            24 => queue.map_or(0, |queue| u64::from(queue.size())),
            26 => u64::from(self.vectors.queues.get(select).map_or(NONE, |v| v.load(Ordering::Relaxed))),
            28 => queue.map_or(0, |queue| u64::from(queue.ready())),
            30 => select as u64,
            32..56 if offset.is_multiple_of(4) => address((offset as usize - 32) / 4),
            _ => 0,
        }
    }

    /// False when the register cannot be written now.
    fn write_common(&self, offset: u64, value: u32) -> bool {
        if offset == 20 {
            self.slot.set_status(value & 0xff);
            return true;
        }
        let mut transport = self.slot.transport();
        match offset {
            0 => transport.device_features_select = value,
            8 => transport.driver_features_select = value,
            12 => return transport.accept_features(value),
            16 => return self.choose(&self.vectors.changed, value),
            22 => transport.queue_select = value & 0xffff,
            24 => return transport.set_queue_size(value as u16),
            26 => {
                let vector = self.vectors.queues.get(transport.queue_select as usize);
                return vector.is_some_and(|vector| self.choose(vector, value));
            }
            28 => return transport.set_queue_ready(value == 1),
            32..56 if offset.is_multiple_of(4) => {
                return transport.set_queue_address((offset as usize - 32) / 4, value);
            }
            _ => return false,
        }
        true
    }

    /// A vector that does not exist becomes none, which the driver reads back.
    fn choose(&self, place: &AtomicU16, value: u32) -> bool {
        let wanted = value as u16;
        let there = wanted == NONE || self.vectors.msix.has(wanted);
        place.store(if there { wanted } else { NONE }, Ordering::Relaxed);
        self.vectors.settle();
        there
    }
}

/// A virtio capability: kind, offset and length in BAR 0.
fn capability(kind: u8, offset: u64, length: u32, more: &[u8]) -> Vec<u8> {
    let mut body = vec![16 + more.len() as u8, kind, 0, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(more);
    body
}

fn space(kind: u16, number: u8, vectors: usize) -> Option<(Space, usize)> {
    let mut space = Space::default();
    let class = match kind {
        1 => 0x02_0000,
        2 | 26 => 0x01_8000,
        _ => 0xff_0000,
    };
    space.identify(VENDOR, DEVICE + kind, class, kind);
    space.memory_bar((WINDOW + u64::from(number) * u64::from(BAR)) as u32, BAR);
    for (kind, offset, length, more) in
        [(1, 0, 56, &[][..]), (2, NOTIFY, 0x1000, &4u32.to_le_bytes()), (3, ISR, 1, &[]), (4, CONFIG, 0x1000, &[])]
    {
        space.capability(CAPABILITY_VENDOR, &capability(kind, offset, length, more))?;
    }
    let mut msix = (vectors as u16 - 1).to_le_bytes().to_vec();
    msix.extend((TABLE as u32).to_le_bytes());
    msix.extend((PENDING as u32).to_le_bytes());
    let at = space.capability(CAPABILITY_MSIX, &msix)?;
    space.allow(at + 3, 0xc0);
    Some((space, at))
}

fn put(value: u64, data: &mut [u8]) {
    let bytes = value.to_le_bytes();
    for (to, from) in data.iter_mut().zip(bytes) {
        *to = from;
    }
}

impl Function for Pci {
    fn config_read(&self, offset: u16, data: &mut [u8]) {
        lock(&self.space).read(offset, data);
    }

    fn config_write(&self, offset: u16, data: &[u8]) {
        let mut space = lock(&self.space);
        space.write(offset, data);
        self.remap(&space);
        let control = space.byte(self.msix_at + 3);
        self.vectors.msix.switch(control & 0x80 != 0, control & 0x40 != 0);
        self.vectors.settle();
    }

    fn memory_read(&self, address: u64, data: &mut [u8]) -> bool {
        let Some(offset) = self.offset(address) else { return false };
        data.fill(0);
        match offset {
            0..56 => put(self.read_common(offset), data),
            ISR => {
                self.vectors.gather();
                put(u64::from(self.vectors.status.swap(0, Ordering::SeqCst)), data);
            }
            CONFIG..NOTIFY => self.slot.transport().device.read_config(offset - CONFIG, data),
            TABLE..PENDING => self.vectors.msix.read_table((offset - TABLE) as usize, data),
            PENDING => {
                self.vectors.gather();
                put(self.vectors.msix.pending(), data);
            }
            _ => {}
        }
        true
    }

    fn memory_write(&self, address: u64, data: &[u8]) -> bool {
        let Some(offset) = self.offset(address) else { return false };
        match offset {
            0..56 => {
                // Wider than its register: Linux writes addresses by halves, others whole.
                for (n, part) in (0u64..).zip(data.chunks(4)) {
                    let mut word = [0; 4];
                    word[..part.len()].copy_from_slice(part);
                    if !self.write_common(offset + n * 4, u32::from_le_bytes(word)) {
                        count(&self.slot.counters.bad_accesses);
                    }
                }
            }
            CONFIG..NOTIFY => self.slot.transport().device.write_config(offset - CONFIG, data),
            NOTIFY..TABLE => self.slot.notified(((offset - NOTIFY) / 4) as usize),
            TABLE..PENDING => {
                self.vectors.msix.write_table((offset - TABLE) as usize, data);
                self.vectors.settle();
            }
            _ => count(&self.slot.counters.bad_accesses),
        }
        true
    }

    fn unplugged(&self) {
        let mut space = lock(&self.space);
        space.write(4, &[0, 0]);
        self.remap(&space);
        drop(space);
        self.slot.reset();
    }
}

#[cfg(test)]
mod tests;
