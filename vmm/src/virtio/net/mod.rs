//! virtio-net: a network card on a tap.
//!
//! ```text
//!   guest ── queue 1 ──► one frame with its virtio header ──► tap        at most BUDGET frames a turn
//!   guest ◄── queue 0 ── one frame, over as many buffers as it needs ◄── tap, only while buffers are there
//! ```
//! Frames pass through a bounce buffer each way, so a guest that changes a frame under our hands changes only its own copy. Of
//! large frames to the tap only the header does: the kernel copies the rest once, out of guest memory.
//! Checksum and segmentation offloads are passed through to the host's kernel, which does them once, or never when the
//! other end is a guest too. Frames that the tap has no room for are dropped and counted, as a wire would.

pub mod tap;

use super::chain::{self, Chain, SavedChain};
use super::counters::{Counters, add, count};
use super::limit::{Limiter, Setting};
use super::{Broken, Device, Served, copy_config};
use crate::memory::{Memory, Slice};
use crate::snapshot::{self, SnapshotError};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use virtio_bindings::virtio_net as abi;
use virtio_queue::Queue;

const QUEUE_SIZE: u16 = 256;
/// Frames between two passes of the gate, each way.
const BUDGET: usize = 128;
/// The virtio header before every frame.
pub const HEADER: usize = 12;
/// Largest frame: 64 KiB of payload when segmentation is left to the other end, with header and link layer.
const FRAME_BYTES_MAX: usize = HEADER + 65_536 + 18;
/// Chains that are kept for their room.
const SPARE_MAX: usize = 64;
/// Frames from here on are not copied here before the kernel copies them.
const DIRECT_BYTES_MIN: u64 = 4096;
/// Least frame that has both addresses and a type.
const FRAME_BYTES_MIN: usize = HEADER + 14;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// The host's end of the wire.
pub trait Wire: Send {
    /// Takes a frame. `WouldBlock` when there is none.
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize>;
    /// Gives a frame away, whole or not at all.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;
    /// Gives a frame away whose virtio header is here, and whose rest lies in guest memory.
    fn send_rest(&mut self, header: &[u8; HEADER], rest: &[Slice<'_>]) -> io::Result<()> {
        let mut frame = header.to_vec();
        for slice in rest {
            let start = frame.len();
            frame.resize(start + slice.len(), 0);
            slice.copy_to(&mut frame[start..]);
        }
        self.send(&frame)
    }
    /// Becomes readable when there is a frame.
    fn descriptor(&self) -> RawFd;
    /// Tells which offloads the guest understands in frames that it receives.
    fn set_offloads(&mut self, features: u64);
}

/// A network card.
pub struct Net {
    wire: Box<dyn Wire>,
    mac: [u8; 6],
    mtu: u16,
    counters: Arc<Counters>,
    /// A frame on its way to the guest.
    buffer: Vec<u8>,
    /// A frame on its way to the wire.
    outgoing: Vec<u8>,
    /// Length of a received frame that still waits in the buffer.
    pending: usize,
    /// Buffers taken from the guest for it, not yet enough.
    held: Vec<Chain>,
    /// Chains whose room is used again.
    spare: Vec<Chain>,
    mergeable: bool,
    starved: bool,
    /// What is sent, and what is received, a second.
    limits: (Limiter, Limiter),
    /// The wire waits for the receiving limit.
    throttled: bool,
}

impl Net {
    /// A card with this address; `limits` are for sent and for received frames.
    pub fn new(
        wire: Box<dyn Wire>,
        mac: [u8; 6],
        mtu: u16,
        limits: (Arc<Setting>, Arc<Setting>),
        counters: Arc<Counters>,
    ) -> Net {
        let buffer = vec![0; FRAME_BYTES_MAX];
        let outgoing = buffer.clone();
        Net {
            wire,
            mac,
            mtu,
            counters,
            buffer,
            outgoing,
            pending: 0,
            held: Vec::new(),
            spare: Vec::new(),
            mergeable: false,
            starved: false,
            limits: (Limiter::new(limits.0), Limiter::new(limits.1)),
            throttled: false,
        }
    }

    /// Sends up to a budget of frames.
    pub fn drain_transmit(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        let mut given_back = false;
        for _ in 0..BUDGET {
            if let Some(wait) = self.limits.0.wait() {
                let interrupt = given_back && chain::wants_interrupt(queue, memory)?;
                return Ok(Served { interrupt, later: Some(wait), ..Served::default() });
            }
            let mut chain = self.spare.pop().unwrap_or_default();
            let Some(next) = chain::pop_into(queue, memory, &mut chain)? else {
                self.spare.push(chain);
                let interrupt = given_back && chain::wants_interrupt(queue, memory)?;
                return Ok(Served { interrupt, quiet: chain::is_quiet(queue), ..Served::default() });
            };
            given_back = true;
            let head = match next {
                Ok(()) => {
                    self.transmit(&chain, memory)?;
                    chain.head
                }
                Err(bad) => {
                    count(&self.counters.bad_chains);
                    bad.head
                }
            };
            self.spare.push(chain);
            chain::give_back(queue, memory, head, 0)?;
        }
        Ok(Served { interrupt: chain::wants_interrupt(queue, memory)?, more: true, ..Served::default() })
    }

    fn transmit(&mut self, chain: &Chain, memory: &Memory) -> Result<(), Broken> {
        let length = chain::length(&chain.readable);
        if !chain.writable.is_empty() || length < FRAME_BYTES_MIN as u64 || length > FRAME_BYTES_MAX as u64 {
            count(&self.counters.bad_chains);
            return Ok(());
        }
        count(&self.counters.requests);
        self.limits.0.pay(length - HEADER as u64);
        let direct = length >= DIRECT_BYTES_MIN;
        let frame = &mut self.outgoing[..if direct { HEADER } else { length as usize }];
        chain::gather(memory, &chain.readable, frame)?;
        // num_buffers means nothing in this direction, and taps want it zero.
        frame[10..12].fill(0);
        let sent = match frame.first_chunk::<HEADER>() {
            Some(header) if direct => {
                let mut rest = Vec::with_capacity(chain.readable.len());
                let found = chain::slices(memory, &chain::after(&chain.readable, HEADER as u64), &mut rest);
                found.and_then(|()| self.wire.send_rest(header, &rest))
            }
            _ => self.wire.send(frame),
        };
        match sent {
            Ok(()) => add(&self.counters.bytes_out, length - HEADER as u64),
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => count(&self.counters.errors),
            Err(_) => count(&self.counters.dropped),
        }
        Ok(())
    }

    /// Receives up to a budget of frames, as long as the guest has buffers.
    pub fn drain_receive(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        let (mut given_back, mut more, mut later) = (false, true, None);
        self.throttled = false;
        for _ in 0..BUDGET {
            later = self.limits.1.wait();
            if later.is_some() {
                (self.throttled, more) = (true, false);
                break;
            }
            if self.pending == 0 {
                match self.wire.receive(&mut self.buffer) {
                    Ok(length) if length >= FRAME_BYTES_MIN => self.pending = length,
                    Ok(_) => {
                        count(&self.counters.dropped);
                        continue;
                    }
                    Err(_) => {
                        more = false;
                        break;
                    }
                }
            }
            match self.deliver(queue, memory)? {
                Delivered::Yes => given_back = true,
                Delivered::Dropped => {}
                Delivered::NoBuffers => {
                    // Look once more after asking for the notification, or a buffer could slip in unseen.
                    if !chain::ask_notification(queue, memory)? {
                        self.starved = true;
                        more = false;
                        break;
                    }
                }
            }
        }
        let interrupt = given_back && chain::wants_interrupt(queue, memory)?;
        Ok(Served { interrupt, more, later, ..Served::default() })
    }

    /// Puts the waiting frame into buffers of the guest.
    fn deliver(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Delivered, Broken> {
        let most = if self.mergeable { usize::from(QUEUE_SIZE) } else { 1 };
        let room = |held: &[Chain]| held.iter().map(|chain| chain::length(&chain.writable)).sum::<u64>();
        while room(&self.held) < self.pending as u64 && self.held.len() < most {
            let mut chain = self.spare.pop().unwrap_or_default();
            match chain::pop_into(queue, memory, &mut chain)? {
                Some(Ok(())) if chain.readable.is_empty() && chain::length(&chain.writable) >= HEADER as u64 => {
                    self.held.push(chain);
                }
                Some(unusable) => {
                    count(&self.counters.bad_chains);
                    let head = unusable.map_or_else(|bad| bad.head, |()| chain.head);
                    chain::give_back(queue, memory, head, 0)?;
                }
                None => return Ok(Delivered::NoBuffers),
            }
        }
        let length = std::mem::take(&mut self.pending);
        if room(&self.held) < length as u64 {
            // The guest's buffers are too small for this frame. A cut frame would be believed, so none is given.
            count(&self.counters.dropped);
            return Ok(Delivered::Dropped);
        }
        let buffers = if self.mergeable { self.held.len() as u16 } else { 1 };
        self.buffer[10..12].copy_from_slice(&buffers.to_le_bytes());
        let mut done = 0;
        for chain in self.held.drain(..) {
            let part = chain::scatter(memory, &chain.writable, &self.buffer[done..length])?;
            done += part;
            chain::give_back(queue, memory, chain.head, part as u32)?;
            if self.spare.len() < SPARE_MAX {
                self.spare.push(chain);
            }
        }
        count(&self.counters.requests);
        self.limits.1.pay((length - HEADER) as u64);
        add(&self.counters.bytes_in, (length - HEADER) as u64);
        Ok(Delivered::Yes)
    }
}

/// A frame that was taken from the wire is lost nowhere else than on a wire.
#[derive(Serialize, Deserialize)]
struct Saved {
    frame: Vec<u8>,
    held: Vec<SavedChain>,
    starved: bool,
}

enum Delivered {
    Yes,
    Dropped,
    NoBuffers,
}

/// Feature bits that stand for offloads in received frames.
const GUEST_OFFLOADS: [u32; 3] =
    [abi::VIRTIO_NET_F_GUEST_CSUM, abi::VIRTIO_NET_F_GUEST_TSO4, abi::VIRTIO_NET_F_GUEST_TSO6];
/// Feature bits that stand for offloads in sent frames, and for what the configuration space has.
const OTHERS: [u32; 6] = [
    abi::VIRTIO_NET_F_CSUM,
    abi::VIRTIO_NET_F_HOST_TSO4,
    abi::VIRTIO_NET_F_HOST_TSO6,
    abi::VIRTIO_NET_F_MRG_RXBUF,
    abi::VIRTIO_NET_F_MAC,
    abi::VIRTIO_NET_F_MTU,
];

impl Device for Net {
    fn number(&self) -> u32 {
        1
    }

    fn features(&self) -> u64 {
        GUEST_OFFLOADS.iter().chain(&OTHERS).fold(0, |bits, bit| bits | 1 << bit)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0u8; 12];
        config[..6].copy_from_slice(&self.mac);
        config[6] = 1; // link up
        config[8] = 1; // one pair of queues
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        copy_config(&config, offset, data);
    }

    fn activate(&mut self, features: u64) {
        self.mergeable = features & (1 << abi::VIRTIO_NET_F_MRG_RXBUF) != 0;
        self.starved = false;
        self.wire.set_offloads(features);
    }

    fn reset(&mut self) {
        self.pending = 0;
        self.held.clear();
        self.mergeable = false;
        self.wire.set_offloads(0);
    }

    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        snapshot::encode(&Saved {
            frame: self.buffer[..self.pending].to_vec(),
            held: self.held.iter().map(SavedChain::of).collect(),
            starved: self.starved,
        })
    }

    fn restore(&mut self, saved: &[u8], memory: &Memory) -> Result<(), SnapshotError> {
        let saved: Saved = snapshot::decode(saved)?;
        let held: Option<Vec<Chain>> = saved.held.iter().map(|chain| chain.chain(memory)).collect();
        let fits = saved.frame.is_empty() || (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&saved.frame.len());
        let (Some(held), true) = (held, fits && saved.held.len() <= usize::from(QUEUE_SIZE)) else {
            return Err(SnapshotError::Malformed("a card holds what it cannot".into()));
        };
        self.pending = saved.frame.len();
        self.buffer[..self.pending].copy_from_slice(&saved.frame);
        (self.held, self.starved) = (held, saved.starved);
        Ok(())
    }

    fn queue_stopped(&mut self, queue: usize) {
        if queue == RECEIVE {
            self.held.clear();
        }
    }

    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        if queue == TRANSMIT {
            return self.drain_transmit(&mut queues[TRANSMIT], memory);
        }
        self.starved = false;
        self.drain_receive(&mut queues[RECEIVE], memory)
    }

    fn host_end(&self) -> Option<RawFd> {
        Some(self.wire.descriptor())
    }

    fn host_ready(&mut self, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        self.drain_receive(&mut queues[RECEIVE], memory)
    }

    fn wants_host(&self) -> bool {
        !self.starved && !self.throttled
    }
}

#[cfg(test)]
mod tests;
