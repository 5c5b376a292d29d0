//! virtio-mem: memory that comes and goes in blocks, as the monitor wants and the guest can.
//!
//! ```text
//!   monitor: requested size ─► guest hears ─► plug, unplug requests ─► blocks of the area (memory::hot)
//! ```
//! Requests are hostile: only whole blocks inside the area, and only from the one state to the other; never more than was
//! requested. A reset of the device changes no block, as the standard says; a machine that starts anew has none plugged. The
//! driver must not touch what is not plugged (`F_UNPLUGGED_INACCESSIBLE`); one that did not promise that plugs nothing.

use super::chain::{self, Chain};
use super::counters::{Counters, count};
use super::{Broken, Device, Served, copy_config};
use crate::memory::Memory;
use crate::memory::hot::{Hot, State};
use crate::snapshot::{self, SnapshotError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

/// The configuration says which node it is near, by the number that ACPI has for it.
const F_ACPI_PXM: u64 = 1;
const F_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;
const QUEUE_SIZE: u16 = 128;
/// Requests between two passes of the gate: each may plug many blocks.
const BUDGET: usize = 4;
const REQUEST_BYTES: usize = 24;
const ANSWER_BYTES: u64 = 10;

const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

const ACK: u16 = 0;
const NACK: u16 = 1;
const BUSY: u16 = 2;
const ERROR: u16 = 3;

/// What is wanted, and the area.
pub struct Wanted {
    /// Bytes that the guest is asked to have plugged.
    pub requested: AtomicU64,
    /// Where blocks are.
    pub hot: Arc<Hot>,
    /// Becomes readable when the guest has plugged or unplugged something.
    pub changed: EventFd,
}

/// The device.
pub struct MemoryDevice {
    wanted: Arc<Wanted>,
    counters: Arc<Counters>,
    /// The node that it is near, where there are several.
    node: Option<u16>,
    promised: bool,
}

impl MemoryDevice {
    /// With no block plugged.
    pub fn new(wanted: Arc<Wanted>, node: Option<u16>, counters: Arc<Counters>) -> MemoryDevice {
        MemoryDevice { wanted, counters, node, promised: false }
    }

    /// Serves up to a budget of requests.
    pub fn drain(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        chain::drain(queue, memory, &self.counters, BUDGET, |chain| self.request(chain, memory))
    }

    fn request(&self, chain: &Chain, memory: &Memory) -> Result<u32, Broken> {
        let mut bytes = [0u8; REQUEST_BYTES];
        let room = chain::length(&chain.writable) >= ANSWER_BYTES;
        if chain::length(&chain.readable) < REQUEST_BYTES as u64 || !room {
            count(&self.counters.bad_chains);
            return Ok(0);
        }
        chain::gather(memory, &chain.readable, &mut bytes)?;
        let [kind, count_of] = [0, 16].map(|at| u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let mut address = [0; 8];
        address.copy_from_slice(&bytes[8..16]);
        let (code, state) = self.answer(kind, u64::from_le_bytes(address), count_of.into());
        if code != ACK {
            count(&self.counters.errors);
        }
        let mut out = [0u8; ANSWER_BYTES as usize];
        out[..2].copy_from_slice(&code.to_le_bytes());
        out[8..].copy_from_slice(&state.to_le_bytes());
        Ok(chain::scatter(memory, &chain.writable, &out)? as u32)
    }

    fn answer(&self, kind: u16, address: u64, count: u64) -> (u16, u16) {
        let hot = &self.wanted.hot;
        if !self.promised {
            return (ERROR, 0);
        }
        let code = match (kind, hot.state(address, count)) {
            (STATE, Some(state)) => {
                let state = match state {
                    State::Plugged => 0,
                    State::Unplugged => 1,
                    State::Mixed => 2,
                };
                return (ACK, state);
            }
            (PLUG, Some(State::Unplugged)) => {
                let requested = self.wanted.requested.load(Ordering::Acquire);
                if hot.plugged_bytes() + count * hot.area().block > requested {
                    NACK
                } else if hot.plug(address, count) {
                    ACK
                } else {
                    BUSY
                }
            }
            (UNPLUG, Some(State::Plugged)) => if_done(hot.unplug(address, count)),
            (UNPLUG_ALL, _) => if_done(hot.unplug_all()),
            _ => ERROR,
        };
        let _ = self.wanted.changed.write(1);
        (code, 0)
    }

    fn space(&self) -> [u8; 56] {
        let (area, mut out) = (self.wanted.hot.area(), [0; 56]);
        let requested = self.wanted.requested.load(Ordering::Acquire);
        let values = [area.start, area.bytes, area.bytes, self.wanted.hot.plugged_bytes(), requested];
        out[..8].copy_from_slice(&area.block.to_le_bytes());
        out[8..10].copy_from_slice(&self.node.unwrap_or(0).to_le_bytes());
        // After padding.
        for (to, value) in out[16..].chunks_mut(8).zip(values) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        out
    }
}

fn if_done(done: bool) -> u16 {
    if done { ACK } else { BUSY }
}

impl Device for MemoryDevice {
    fn number(&self) -> u32 {
        super::MEMORY
    }

    fn features(&self) -> u64 {
        F_UNPLUGGED_INACCESSIBLE | self.node.map_or(0, |_| F_ACPI_PXM)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.space(), offset, data);
    }

    fn activate(&mut self, features: u64) {
        self.promised = features & F_UNPLUGGED_INACCESSIBLE != 0;
    }

    fn reset(&mut self) {
        self.promised = false;
    }

    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        snapshot::encode(&(self.wanted.requested.load(Ordering::Acquire), self.wanted.hot.save()))
    }

    fn restore(&mut self, saved: &[u8], _memory: &Memory) -> Result<(), SnapshotError> {
        let (requested, plugged): (u64, Vec<u8>) = snapshot::decode(saved)?;
        let area = self.wanted.hot.area();
        if requested > area.bytes || !requested.is_multiple_of(area.block) {
            return Err(SnapshotError::Malformed("a size was asked for that the area cannot have".into()));
        }
        if !self.wanted.hot.restore(&plugged) {
            return Err(SnapshotError::Mismatch("its memory that comes and goes has other blocks".into()));
        }
        self.wanted.requested.store(requested, Ordering::Release);
        Ok(())
    }

    fn serve(&mut self, _queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        self.drain(&mut queues[0], memory)
    }
}

#[cfg(test)]
mod tests;
