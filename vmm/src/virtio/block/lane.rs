//! One queue of a disk: its requests, as they come off the ring, in batches. Every queue has one of these on a thread of its own;
//! what they share of the disk (`Disk`) is atomic or behind a lock of its own. Nothing is promised about the order of requests of
//! different queues, as nothing is in hardware: a flush makes durable what was answered before it, whichever queue that was in.

use super::file::{Backing, Transfer, Way};
use super::held::Held;
use super::{Disk, SECTOR};
use crate::memory::Memory;
use crate::snapshot::SnapshotError;
use crate::virtio::chain::{self, Chain, Piece};
use crate::virtio::counters::{add, count};
use crate::virtio::lane::Lane;
use crate::virtio::{Broken, Served};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use virtio_bindings::virtio_blk as abi;
use virtio_queue::Queue;

/// How often a disk whose server is away looks for another connection.
const AWAY_LOOK: Duration = Duration::from_millis(100);
/// Requests between two passes of the gate.
const BUDGET: usize = 64;
/// Largest single request in bytes; Linux asks for at most 1.25 MiB.
const REQUEST_BYTES_MAX: u64 = 32 << 20;

/// Sectors that one request may discard or zero: 64 MiB, for where they have to be written.
pub(super) const ZERO_SECTORS_MAX: u32 = 1 << 17;

pub(super) const STATUS_OK: u8 = abi::VIRTIO_BLK_S_OK as u8;
pub(super) const STATUS_ERROR: u8 = abi::VIRTIO_BLK_S_IOERR as u8;
pub(super) const STATUS_UNSUPPORTED: u8 = abi::VIRTIO_BLK_S_UNSUPP as u8;

/// What serves one queue.
pub struct Requests {
    pub(super) disk: Arc<Disk>,
    pub(super) backing: Box<dyn Backing>,
    /// Taken from the queue, and not answered: where the bytes are is away.
    pub(super) held: Vec<Held>,
}

/// A request that waits in a batch.
pub(super) struct Waiting {
    chain: Chain,
    room: u64,
    transfer: Transfer,
}

/// What becomes of a request.
enum Step {
    /// Served, or never will be: bytes written to guest memory.
    Done(u32),
    /// It goes into the batch.
    Transfer(Transfer),
    /// It is held.
    Held,
}

impl Requests {
    /// Serves up to a budget of requests. Pure but for the backing and the counters, so that a fuzzer can drive it.
    pub fn drain(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        let (mut batch, mut given_back) = (Vec::new(), false);
        let mut served = Served { more: true, ..Served::default() };
        let away = Served { later: Some(AWAY_LOOK), ..Served::default() };
        if self.backing.is_away(true) {
            return Ok(away);
        }
        if !self.held.is_empty() {
            given_back = true;
            self.go_on(queue, memory)?;
        }
        for _ in 0..BUDGET {
            if !self.held.is_empty() {
                served = away;
                break;
            }
            if let Some(wait) = self.disk.limiter.wait() {
                served = Served { later: Some(wait), ..Served::default() };
                break;
            }
            let Some(next) = chain::pop(queue, memory)? else {
                (served.more, served.quiet) = (false, chain::is_quiet(queue));
                break;
            };
            given_back = true;
            match next {
                Ok(chain) => {
                    let room = chain::length(&chain.writable);
                    match self.request(&chain, room, &mut batch, queue, memory)? {
                        Step::Transfer(transfer) => batch.push(Waiting { chain, room, transfer }),
                        Step::Done(written) => chain::give_back(queue, memory, chain.head, written)?,
                        Step::Held => {}
                    }
                }
                Err(bad) => {
                    count(&self.disk.counters.bad_chains);
                    chain::give_back(queue, memory, bad.head, 0)?;
                }
            }
        }
        self.run(&mut batch, queue, memory)?;
        if !self.held.is_empty() {
            served = away;
        }
        served.interrupt = given_back && chain::wants_interrupt(queue, memory)?;
        Ok(served)
    }

    /// Does the batch and gives its chains back.
    pub(super) fn run(&mut self, batch: &mut Vec<Waiting>, queue: &mut Queue, memory: &Memory) -> Result<(), Broken> {
        if batch.is_empty() {
            return Ok(());
        }
        let waiting = std::mem::take(batch);
        let (chains, transfers): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|w| ((w.chain, w.room), w.transfer)).unzip();
        let mut results = self.backing.run(&transfers, memory);
        if self.disk.write_through.load(Ordering::Acquire) && transfers.iter().any(|t| t.way == Way::Write) {
            self.make_durable(&transfers, &mut results);
        }
        for (((chain, room), transfer), result) in chains.into_iter().zip(transfers).zip(results) {
            if result.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::NotConnected) {
                self.held.push(Held::Transfer(Waiting { chain, room, transfer }));
                continue;
            }
            let bytes = chain::length(&transfer.pieces);
            let (counter, written) = match transfer.way {
                Way::Read => (&self.disk.counters.bytes_in, bytes as u32),
                Way::Write => (&self.disk.counters.bytes_out, 0),
            };
            let (status, written) = match result {
                Ok(()) => {
                    add(counter, bytes);
                    (STATUS_OK, written)
                }
                Err(_) => (STATUS_ERROR, 0),
            };
            let written = self.finish(&chain, room, status, written, memory)?;
            chain::give_back(queue, memory, chain.head, written)?;
        }
        Ok(())
    }

    /// Flushes; where that fails, the writes have failed in the same way.
    fn make_durable(&mut self, transfers: &[Transfer], results: &mut [std::io::Result<()>]) {
        let Err(error) = self.backing.flush() else { return };
        let writes = results.iter_mut().zip(transfers).filter(|(result, t)| result.is_ok() && t.way == Way::Write);
        writes.for_each(|(result, _)| *result = Err(error.kind().into()));
    }

    /// Writes the status, the last writable byte. Returns the bytes written to guest memory.
    pub(super) fn finish(
        &self,
        chain: &Chain,
        room: u64,
        status: u8,
        written: u32,
        memory: &Memory,
    ) -> Result<u32, Broken> {
        if status != STATUS_OK {
            count(&self.disk.counters.errors);
        }
        chain::scatter(memory, &chain::after(&chain.writable, room - 1), &[status])?;
        Ok(written.saturating_add(1))
    }

    /// Looks at one request; what is no read or write is done at once, after the batch.
    fn request(
        &mut self,
        chain: &Chain,
        room: u64,
        batch: &mut Vec<Waiting>,
        queue: &mut Queue,
        memory: &Memory,
    ) -> Result<Step, Broken> {
        let mut header = [0u8; 16];
        if chain::gather(memory, &chain.readable, &mut header)? < header.len() || room == 0 {
            count(&self.disk.counters.bad_chains);
            return Ok(Step::Done(0));
        }
        count(&self.disk.counters.requests);
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let mut sector = [0u8; 8];
        sector.copy_from_slice(&header[8..]);
        // What lies before the status is the room for data.
        let (way, pieces) = match kind {
            abi::VIRTIO_BLK_T_IN => (Way::Read, cut(&chain.writable, room - 1)),
            abi::VIRTIO_BLK_T_OUT => (Way::Write, chain::after(&chain.readable, 16)),
            _ => {
                self.disk.limiter.pay(0);
                let done = self.after_batch(kind, chain.clone(), room, batch, queue, memory)?;
                return Ok(done.map_or(Step::Held, |(_, written)| Step::Done(written)));
            }
        };
        let bytes = chain::length(&pieces);
        self.disk.limiter.pay(bytes);
        let forbidden = way == Way::Write && self.disk.read_only;
        match self.offset(u64::from_le_bytes(sector), bytes).filter(|_| !forbidden) {
            Some(offset) => Ok(Step::Transfer(Transfer { way, offset, pieces })),
            None => Ok(Step::Done(self.finish(chain, room, STATUS_ERROR, 0, memory)?)),
        }
    }

    /// Flush, discard, zeroes, serial number: status, and bytes written.
    pub(super) fn other(&mut self, kind: u32, chain: &Chain, room: u64, memory: &Memory) -> Result<(u8, u32), Broken> {
        Ok(match kind {
            abi::VIRTIO_BLK_T_FLUSH => (if self.backing.flush().is_ok() { STATUS_OK } else { STATUS_ERROR }, 0),
            abi::VIRTIO_BLK_T_DISCARD | abi::VIRTIO_BLK_T_WRITE_ZEROES => {
                let ranges = chain::after(&chain.readable, 16);
                (self.zero(&ranges, kind == abi::VIRTIO_BLK_T_DISCARD, memory)?, 0)
            }
            abi::VIRTIO_BLK_T_GET_ID => {
                let bytes = &self.disk.serial[..(room - 1).min(20) as usize];
                (STATUS_OK, chain::scatter(memory, &chain.writable, bytes)? as u32)
            }
            _ => (STATUS_UNSUPPORTED, 0),
        })
    }

    /// Discards or zeroes the one range that the configuration space allows in a request. Discarding is advice: where
    /// the file system cannot, nothing happens and that is well. Zeroes must come, so there an error is an error.
    fn zero(&mut self, ranges: &[Piece], discard: bool, memory: &Memory) -> Result<u8, Broken> {
        let mut range = [0u8; 16];
        if chain::length(ranges) != 16 || chain::gather(memory, ranges, &mut range)? != 16 {
            return Ok(STATUS_UNSUPPORTED);
        }
        let (mut sector, mut count, mut flags) = ([0u8; 8], [0u8; 4], [0u8; 4]);
        sector.copy_from_slice(&range[..8]);
        count.copy_from_slice(&range[8..12]);
        flags.copy_from_slice(&range[12..]);
        let (sector, count, flags) = (u64::from_le_bytes(sector), u32::from_le_bytes(count), u32::from_le_bytes(flags));
        // Bit 0 is "may unmap", which discard does by itself and must not carry.
        if flags & !1 != 0 || (discard && flags != 0) {
            return Ok(STATUS_UNSUPPORTED);
        }
        let inside = sector.checked_add(u64::from(count)).is_some_and(|end| end <= self.disk.sectors());
        if self.disk.read_only || !inside || count == 0 || count > ZERO_SECTORS_MAX {
            return Ok(STATUS_ERROR);
        }
        let (offset, bytes) = (sector * SECTOR, u64::from(count) * SECTOR);
        let unmapped = (discard || flags == 1) && self.backing.zero(offset, bytes, true).is_ok();
        let done = discard || unmapped || self.backing.zero(offset, bytes, false).is_ok();
        Ok(if done { STATUS_OK } else { STATUS_ERROR })
    }

    /// Byte offset of a transfer, when it lies within the disk.
    fn offset(&self, sector: u64, bytes: u64) -> Option<u64> {
        let whole = bytes.is_multiple_of(SECTOR) && bytes <= REQUEST_BYTES_MAX;
        let end = sector.checked_add(bytes / SECTOR)?;
        (whole && end <= self.disk.sectors()).then(|| sector * SECTOR)
    }
}

/// The first `bytes` of the pieces.
fn cut(pieces: &[Piece], mut bytes: u64) -> Vec<Piece> {
    let mut out = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let length = bytes.min(u64::from(piece.length)) as u32;
        if length > 0 {
            out.push(Piece { address: piece.address, length });
        }
        bytes -= u64::from(length);
    }
    out
}

impl Lane for Requests {
    fn serve(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        self.drain(queue, memory)
    }

    fn stopped(&mut self) {
        self.held.clear();
    }

    fn can_save(&self) -> Result<(), SnapshotError> {
        match self.held.is_empty() {
            true => Ok(()),
            false => {
                let text = "the server of a disk is away, and what was asked of it is not answered";
                Err(SnapshotError::Mismatch(text.into()))
            }
        }
    }
}
