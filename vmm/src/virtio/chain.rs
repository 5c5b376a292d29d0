//! From a descriptor chain in guest memory to checked pieces.
//!
//! The chain is read once; what the guest changes afterwards has no effect. Refused: loops, indexes outside the table,
//! nested or oddly sized indirect tables, more descriptors than the queue has entries, readable after writable, pieces
//! outside guest memory, more than 4 GiB.

use super::counters::{Counters, count};
use super::{Broken, Served};
use crate::memory::{Memory, Slice};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::Ordering;
use virtio_queue::{Error as QueueError, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// A stretch of guest memory, known to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Guest physical address.
    pub address: GuestAddress,
    /// Bytes.
    pub length: u32,
}

/// A chain that was taken off a queue and not yet given back, as a snapshot keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedChain {
    head: u16,
    readable: Vec<(u64, u32)>,
    writable: Vec<(u64, u32)>,
}

impl SavedChain {
    /// Writes a chain down.
    pub fn of(chain: &Chain) -> SavedChain {
        let plain = |pieces: &[Piece]| pieces.iter().map(|p| (p.address.0, p.length)).collect();
        SavedChain { head: chain.head, readable: plain(&chain.readable), writable: plain(&chain.writable) }
    }

    /// The chain again; None where it names memory that does not exist. A snapshot is no more to be trusted than a ring.
    pub fn chain(&self, memory: &Memory) -> Option<Chain> {
        let pieces = |plain: &[(u64, u32)]| -> Option<Vec<Piece>> {
            let exists = |(address, length): &(u64, u32)| {
                let address = GuestAddress(*address);
                let inside = GuestMemoryBackend::check_range(memory, address, *length as usize);
                (inside && *length > 0).then_some(Piece { address, length: *length })
            };
            plain.iter().map(exists).collect()
        };
        Some(Chain { head: self.head, readable: pieces(&self.readable)?, writable: pieces(&self.writable)? })
    }
}

/// A whole chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// What to give back to the driver.
    pub head: u16,
    /// From driver to device, in order.
    pub readable: Vec<Piece>,
    /// From device to driver, in order.
    pub writable: Vec<Piece>,
}

/// A chain that breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadChain {
    /// What to give back to the driver.
    pub head: u16,
    /// Which rule.
    pub why: &'static str,
}

/// Bytes in all pieces.
pub fn length(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|p| u64::from(p.length)).sum()
}

/// The piece as one stretch of the host's memory, as nearly all are: found faster than several, which only one that reaches
/// from one region of guest memory into the next has.
fn whole(memory: &Memory, address: GuestAddress, length: usize) -> Option<Slice<'_>> {
    GuestMemoryBackend::get_slice(memory, address, length).ok()
}

fn exists(memory: &Memory, piece: Piece) -> bool {
    let length = piece.length as usize;
    whole(memory, piece.address, length).is_some() || GuestMemoryBackend::check_range(memory, piece.address, length)
}

/// Takes the next available chain off the queue. None: the queue is empty, or not in use.
pub fn pop(queue: &mut Queue, memory: &Memory) -> Result<Option<Result<Chain, BadChain>>, Broken> {
    let mut chain = Chain::default();
    Ok(pop_into(queue, memory, &mut chain)?.map(|found| found.map(|()| chain)))
}

/// The same into a chain whose room was allocated before.
pub fn pop_into(queue: &mut Queue, memory: &Memory, chain: &mut Chain) -> Result<Option<Result<(), BadChain>>, Broken> {
    if !queue.ready() {
        return Ok(None);
    }
    let size = queue.size();
    let mut available = queue.iter(memory).map_err(|e| match e {
        QueueError::InvalidAvailRingIndex => Broken("the available index jumped"),
        _ => Broken("the available ring is not readable"),
    })?;
    let Some(descriptors) = available.next() else { return Ok(None) };
    let head = descriptors.head_index();
    chain.head = head;
    chain.readable.clear();
    chain.writable.clear();
    let bad = |why| Ok(Some(Err(BadChain { head, why })));
    let (mut count, mut unfinished) = (0u16, true);
    for descriptor in descriptors {
        count += 1;
        unfinished = descriptor.has_next();
        if count > size {
            return bad("more descriptors than the queue has entries");
        }
        let piece = Piece { address: descriptor.addr(), length: descriptor.len() };
        if !exists(memory, piece) || piece.length == 0 {
            return bad("a piece outside guest memory, or empty");
        }
        if descriptor.is_write_only() {
            chain.writable.push(piece);
        } else if chain.writable.is_empty() {
            chain.readable.push(piece);
        } else {
            return bad("a readable piece after a writable one");
        }
    }
    if unfinished {
        return bad("a loop, or an index outside the table");
    }
    Ok(Some(Ok(())))
}

/// Puts the chain that was taken last back to where it was: nothing came of it.
pub fn put_back(queue: &mut Queue) {
    queue.set_next_avail(queue.next_avail().wrapping_sub(1));
}

/// Gives a chain back. A head that the queue does not have is ignored: the driver made it up.
pub fn give_back(queue: &mut Queue, memory: &Memory, head: u16, written: u32) -> Result<(), Broken> {
    if head >= queue.size() {
        return Ok(());
    }
    queue.add_used(memory, head, written).map_err(|_| Broken("the used ring is not writable"))
}

/// Whether the driver wants an interrupt for what was given back.
pub fn wants_interrupt(queue: &mut Queue, memory: &Memory) -> Result<bool, Broken> {
    if !queue.event_idx_enabled() {
        // Bit 0 of the available ring's flags: the driver polls.
        let flags: u16 = memory
            .read_obj(GuestAddress(queue.avail_ring()))
            .map_err(|_| Broken("the available ring is not readable"))?;
        return Ok(u16::from_le(flags) & 1 == 0);
    }
    queue.needs_notification(memory).map_err(|_| Broken("the available ring is not readable"))
}

/// Asks for the next notification, where the driver and we agreed to ask at all. True: chains came in meanwhile.
pub fn ask_notification(queue: &mut Queue, memory: &Memory) -> Result<bool, Broken> {
    if !queue.ready() || !queue.event_idx_enabled() {
        return Ok(false);
    }
    queue.enable_notification(memory).map_err(|_| Broken("the used ring is not writable"))
}

/// Whether the driver says nothing before it is asked to (`ask_notification`), so that one can look instead.
pub fn is_quiet(queue: &Queue) -> bool {
    queue.ready() && queue.event_idx_enabled()
}

/// Whether chains wait in the queue.
pub fn is_waiting(queue: &Queue, memory: &Memory) -> Result<bool, Broken> {
    if !queue.ready() {
        return Ok(false);
    }
    let index = queue.avail_idx(memory, Ordering::Acquire).map_err(|_| Broken("the available ring is not readable"))?;
    Ok(index.0 != queue.next_avail())
}

/// Serves up to a budget of chains, each by `serve`, which returns how much it wrote to guest memory.
pub fn drain(
    queue: &mut Queue,
    memory: &Memory,
    counters: &Counters,
    budget: usize,
    mut serve: impl FnMut(&Chain) -> Result<u32, Broken>,
) -> Result<Served, Broken> {
    let mut given_back = false;
    for _ in 0..budget {
        let Some(next) = pop(queue, memory)? else {
            let interrupt = given_back && wants_interrupt(queue, memory)?;
            return Ok(Served { interrupt, more: ask_notification(queue, memory)?, ..Served::default() });
        };
        given_back = true;
        let (head, written) = match next {
            Ok(chain) => {
                count(&counters.requests);
                (chain.head, serve(&chain)?)
            }
            Err(bad) => {
                count(&counters.bad_chains);
                (bad.head, 0)
            }
        };
        give_back(queue, memory, head, written)?;
    }
    Ok(Served { interrupt: wants_interrupt(queue, memory)?, more: true, ..Served::default() })
}

/// Copies the pieces into `out`, up to its length. Returns how much was copied.
pub fn gather(memory: &Memory, pieces: &[Piece], out: &mut [u8]) -> Result<usize, Broken> {
    let mut done = 0;
    for piece in pieces {
        let count = (piece.length as usize).min(out.len() - done);
        let part = &mut out[done..done + count];
        let read = match whole(memory, piece.address, count) {
            Some(slice) => slice.read_slice(part, 0).is_ok(),
            None => memory.read_slice(part, piece.address).is_ok(),
        };
        if !read {
            return Err(Broken("guest memory is not readable"));
        }
        done += count;
    }
    Ok(done)
}

/// Copies `bytes` into the pieces, as far as they reach. Returns how much was copied.
pub fn scatter(memory: &Memory, pieces: &[Piece], bytes: &[u8]) -> Result<usize, Broken> {
    let mut done = 0;
    for piece in pieces {
        let count = (piece.length as usize).min(bytes.len() - done);
        let part = &bytes[done..done + count];
        let written = match whole(memory, piece.address, count) {
            Some(slice) => slice.write_slice(part, 0).is_ok(),
            None => memory.write_slice(part, piece.address).is_ok(),
        };
        if !written {
            return Err(Broken("guest memory is not writable"));
        }
        done += count;
    }
    Ok(done)
}

/// The host's addresses of pieces of guest memory, after those that are there already.
pub fn slices<'a>(memory: &'a Memory, pieces: &[Piece], out: &mut Vec<Slice<'a>>) -> io::Result<()> {
    for piece in pieces {
        match whole(memory, piece.address, piece.length as usize) {
            Some(slice) => out.push(slice),
            None => {
                for slice in GuestMemoryBackend::get_slices(memory, piece.address, piece.length as usize) {
                    out.push(slice.map_err(io::Error::other)?);
                }
            }
        }
    }
    Ok(())
}

/// The pieces without their first `skip` bytes.
pub fn after(pieces: &[Piece], mut skip: u64) -> Vec<Piece> {
    let mut out = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let cut = skip.min(u64::from(piece.length));
        skip -= cut;
        if cut < u64::from(piece.length) {
            out.push(Piece { address: GuestAddress(piece.address.0 + cut), length: piece.length - cut as u32 });
        }
    }
    out
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
pub mod tests;
