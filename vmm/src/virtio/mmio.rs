//! The MMIO transport: one page of registers per device (virtio 1.2, section 4.2.2). Lean: no bus to be found on, one
//! interrupt line each.

use super::counters::count;
use super::transport::{Interrupts, Part, Slot, TransportState};
use crate::memory::Memory;
use crate::snapshot::SnapshotError;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const VENDOR: u32 = 0x5649_4c50;
const CONFIG: u64 = 0x100;
/// Register that the guest notifies a queue with.
pub const QUEUE_NOTIFY: u64 = 0x50;

const INTERRUPT_USED: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

/// Interrupt line and status of a device.
pub struct Line {
    status: AtomicU32,
    event: EventFd,
}

impl Line {
    fn raise(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::SeqCst);
        let _ = self.event.write(1);
    }
}

impl Interrupts for Arc<Line> {
    fn used(&self, _queue: usize) {
        self.raise(INTERRUPT_USED);
    }

    fn changed(&self) {
        self.raise(INTERRUPT_CONFIG);
    }

    fn reset(&self) {
        self.status.store(0, Ordering::SeqCst);
    }
}

/// A device behind MMIO registers.
pub struct Mmio {
    /// The device.
    pub slot: Arc<Slot>,
    line: Arc<Line>,
}

/// The same in a snapshot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MmioState {
    transport: TransportState,
    interrupt: u32,
}

impl MmioState {
    /// The device's name, and how many queues it had.
    pub fn queues(&self) -> (&str, usize) {
        self.transport.queues()
    }
}

impl Mmio {
    /// A device after power-on. Writing `event` raises its interrupt.
    pub fn new(part: Part, memory: Memory, event: EventFd) -> std::io::Result<Mmio> {
        let line = Arc::new(Line { status: AtomicU32::new(0), event });
        Ok(Mmio { slot: Arc::new(Slot::new(part, memory, Box::new(line.clone()))?), line })
    }

    /// Writes it down.
    pub fn save(&self) -> Result<MmioState, SnapshotError> {
        Ok(MmioState { transport: self.slot.save()?, interrupt: self.line.status.load(Ordering::SeqCst) })
    }

    /// Takes it up. An interrupt may have been on its way, so it is given once more: drivers take one too many for none.
    pub fn restore(&self, state: &MmioState) -> Result<(), SnapshotError> {
        self.slot.restore(&state.transport)?;
        self.line.status.store(state.interrupt, Ordering::SeqCst);
        if state.interrupt != 0 {
            self.line.raise(0);
        }
        Ok(())
    }

    /// A guest read. Registers answer to aligned 32-bit accesses, configuration space to any.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            data.fill(0);
            return self.slot.transport().device.read_config(offset - CONFIG, data);
        }
        let Ok(register) = <&mut [u8; 4]>::try_from(data) else {
            return count(&self.slot.counters.bad_accesses);
        };
        *register = self.register(offset).to_le_bytes();
    }

    fn register(&self, offset: u64) -> u32 {
        if offset == 0x60 {
            return self.line.status.load(Ordering::SeqCst);
        }
        let transport = self.slot.transport();
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => transport.device.number(),
            0x0c => VENDOR,
            0x10 => transport.device_features(),
            0x34 => transport.queue().map_or(0, |q| u32::from(q.max_size())),
            0x44 => transport.queue().map_or(0, |q| u32::from(q.ready())),
            0x70 => transport.status,
            // No shared memory regions: the length reads as all ones.
            0xb0 | 0xb4 | 0xb8 | 0xbc => u32::MAX,
            0xfc => transport.generation,
            _ => 0,
        }
    }

    /// A guest write.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            return self.slot.transport().device.write_config(offset - CONFIG, data);
        }
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return count(&self.slot.counters.bad_accesses);
        };
        let value = u32::from_le_bytes(bytes);
        match offset {
            0x64 => drop(self.line.status.fetch_and(!value, Ordering::SeqCst)),
            QUEUE_NOTIFY => self.slot.notified(value as usize),
            0x70 => self.slot.set_status(value),
            _ => {
                if !self.set_register(offset, value) {
                    count(&self.slot.counters.bad_accesses);
                }
            }
        }
    }

    /// False when the register cannot be written now.
    fn set_register(&self, offset: u64, value: u32) -> bool {
        let mut transport = self.slot.transport();
        match offset {
            0x14 => transport.device_features_select = value,
            0x20 => return transport.accept_features(value),
            0x24 => transport.driver_features_select = value,
            0x30 => transport.queue_select = value,
            0x38 => return transport.set_queue_size(u16::try_from(value).unwrap_or(0)),
            0x44 => return transport.set_queue_ready(value == 1),
            0x80 | 0x84 => return transport.set_queue_address((offset as usize - 0x80) / 4, value),
            0x90 | 0x94 => return transport.set_queue_address((offset as usize - 0x90) / 4 + 2, value),
            0xa0 | 0xa4 => return transport.set_queue_address((offset as usize - 0xa0) / 4 + 4, value),
            _ => return false,
        }
        true
    }
}
