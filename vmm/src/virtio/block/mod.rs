//! virtio-blk: a raw file or block device as a disk.
//!
//! Requests are served in order by the worker, straight between the file and guest memory (`file.rs`). A request
//! outside the disk, of odd length, or a write to a read-only disk is answered with an error and counted.

pub mod file;

use super::chain::{self, Chain, Piece};
use super::counters::{Counters, add, count};
use super::{Broken, Device, Served, copy_config};
use crate::memory::Memory;
use crate::snapshot::{self, SnapshotError};
use file::Backing;
use std::sync::Arc;
use virtio_bindings::virtio_blk as abi;
use virtio_queue::Queue;

const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 256;
/// Requests between two passes of the gate.
const BUDGET: usize = 64;
/// Largest single request in bytes; Linux asks for at most 1.25 MiB.
const REQUEST_BYTES_MAX: u64 = 32 << 20;
/// Pieces of data in one request: one less for each of header and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// Sectors that one request may discard or zero: 64 MiB, for where they have to be written.
const ZERO_SECTORS_MAX: u32 = 1 << 17;

const STATUS_OK: u8 = abi::VIRTIO_BLK_S_OK as u8;
const STATUS_ERROR: u8 = abi::VIRTIO_BLK_S_IOERR as u8;
const STATUS_UNSUPPORTED: u8 = abi::VIRTIO_BLK_S_UNSUPP as u8;

/// A disk.
pub struct Block {
    backing: Box<dyn Backing>,
    read_only: bool,
    sectors: u64,
    serial: [u8; 20],
    counters: Arc<Counters>,
}

impl Block {
    /// `bytes` beyond the last whole sector are not offered.
    pub fn new(backing: Box<dyn Backing>, bytes: u64, read_only: bool, serial: &str, counters: Arc<Counters>) -> Block {
        let mut id = [0u8; 20];
        let count = serial.len().min(id.len());
        id[..count].copy_from_slice(&serial.as_bytes()[..count]);
        Block { backing, read_only, sectors: bytes / SECTOR, serial: id, counters }
    }

    /// Serves up to a budget of requests. Pure but for the backing and the counters, so that a fuzzer can drive it.
    pub fn drain(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        let mut given_back = false;
        for _ in 0..BUDGET {
            let Some(next) = chain::pop(queue, memory)? else {
                let interrupt = given_back && chain::wants_interrupt(queue, memory)?;
                return Ok(Served { interrupt, more: chain::ask_notification(queue, memory)? });
            };
            given_back = true;
            match next {
                Ok(chain) => {
                    let written = self.request(&chain, memory)?;
                    chain::give_back(queue, memory, chain.head, written)?;
                }
                Err(bad) => {
                    count(&self.counters.bad_chains);
                    chain::give_back(queue, memory, bad.head, 0)?;
                }
            }
        }
        Ok(Served { interrupt: chain::wants_interrupt(queue, memory)?, more: true })
    }

    /// Serves one request. Returns the bytes written to guest memory.
    fn request(&mut self, chain: &Chain, memory: &Memory) -> Result<u32, Broken> {
        let mut header = [0u8; 16];
        let room = chain::length(&chain.writable);
        if chain::gather(memory, &chain.readable, &mut header)? < header.len() || room == 0 {
            count(&self.counters.bad_chains);
            return Ok(0);
        }
        count(&self.counters.requests);
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let mut sector = [0u8; 8];
        sector.copy_from_slice(&header[8..]);
        let sector = u64::from_le_bytes(sector);
        // The status is the last writable byte; what lies before it is the room for data.
        let (status, written) = match kind {
            abi::VIRTIO_BLK_T_IN => self.read(sector, &chain.writable, room - 1, memory),
            abi::VIRTIO_BLK_T_OUT => (self.write(sector, &chain::after(&chain.readable, 16), memory), 0),
            abi::VIRTIO_BLK_T_FLUSH => (if self.backing.flush().is_ok() { STATUS_OK } else { STATUS_ERROR }, 0),
            abi::VIRTIO_BLK_T_DISCARD | abi::VIRTIO_BLK_T_WRITE_ZEROES => {
                let ranges = chain::after(&chain.readable, 16);
                (self.zero(&ranges, kind == abi::VIRTIO_BLK_T_DISCARD, memory)?, 0)
            }
            abi::VIRTIO_BLK_T_GET_ID => {
                let bytes = &self.serial[..(room - 1).min(20) as usize];
                (STATUS_OK, chain::scatter(memory, &chain.writable, bytes)? as u32)
            }
            _ => (STATUS_UNSUPPORTED, 0),
        };
        if status != STATUS_OK {
            count(&self.counters.errors);
        }
        chain::scatter(memory, &chain::after(&chain.writable, room - 1), &[status])?;
        Ok(written.saturating_add(1))
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
        let inside = sector.checked_add(u64::from(count)).is_some_and(|end| end <= self.sectors);
        if self.read_only || !inside || count == 0 || count > ZERO_SECTORS_MAX {
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
        (whole && end <= self.sectors).then(|| sector * SECTOR)
    }

    fn read(&mut self, sector: u64, writable: &[Piece], bytes: u64, memory: &Memory) -> (u8, u32) {
        let Some(offset) = self.offset(sector, bytes) else { return (STATUS_ERROR, 0) };
        match self.backing.read(offset, &cut(writable, bytes), memory) {
            Ok(()) => {
                add(&self.counters.bytes_in, bytes);
                (STATUS_OK, bytes as u32)
            }
            Err(_) => (STATUS_ERROR, 0),
        }
    }

    fn write(&mut self, sector: u64, readable: &[Piece], memory: &Memory) -> u8 {
        let bytes = chain::length(readable);
        let Some(offset) = self.offset(sector, bytes).filter(|_| !self.read_only) else { return STATUS_ERROR };
        match self.backing.write(offset, readable, memory) {
            Ok(()) => {
                add(&self.counters.bytes_out, bytes);
                STATUS_OK
            }
            Err(_) => STATUS_ERROR,
        }
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

impl Device for Block {
    fn number(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        let zeroes = 1 << abi::VIRTIO_BLK_F_DISCARD | 1 << abi::VIRTIO_BLK_F_WRITE_ZEROES;
        let writing = if self.read_only { 1 << abi::VIRTIO_BLK_F_RO } else { zeroes };
        writing | 1 << abi::VIRTIO_BLK_F_FLUSH | 1 << abi::VIRTIO_BLK_F_SEG_MAX | 1 << abi::VIRTIO_BLK_F_BLK_SIZE
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0u8; 60];
        config[..8].copy_from_slice(&self.sectors.to_le_bytes());
        // Words by offset: segments, block size; discard: most sectors, ranges, alignment; zeroes: sectors, ranges.
        let words =
            [(12, SEGMENTS_MAX), (20, 512), (36, ZERO_SECTORS_MAX), (40, 1), (44, 8), (48, ZERO_SECTORS_MAX), (52, 1)];
        for (offset, value) in words {
            config[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        config[56] = 1; // zeroing may give space back
        copy_config(&config, offset, data);
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {}

    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        snapshot::encode(&(self.sectors, self.read_only))
    }

    /// Nothing is in flight while the worker stands at the gate; the disk itself must be the same.
    fn restore(&mut self, saved: &[u8], _memory: &Memory) -> Result<(), SnapshotError> {
        let (sectors, read_only): (u64, bool) = snapshot::decode(saved)?;
        if (sectors, read_only) == (self.sectors, self.read_only) {
            return Ok(());
        }
        let (here, ways) =
            (self.sectors, [read_only, self.read_only].map(|r| if r { "read-only" } else { "writable" }));
        let text = format!("a disk had {sectors} sectors, {}; this has {here}, {}", ways[0], ways[1]);
        Err(SnapshotError::Mismatch(text))
    }

    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        self.drain(&mut queues[queue], memory)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::*;
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;
    use virtio_queue::QueueT;
    use vm_memory::{Bytes, GuestAddress};

    fn disk(read_only: bool) -> (Block, std::fs::File, Arc<Counters>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * SECTOR).unwrap();
        file.write_all_at(&[7; 512], 512).unwrap();
        let counters = Arc::new(Counters::default());
        let backing = Box::new(file::RawFile::new(file.try_clone().unwrap()));
        (Block::new(backing, 8 * SECTOR + 3, read_only, "serial-1", counters.clone()), file, counters)
    }

    /// Offers header, data and status as a chain; returns (status, used length).
    fn ask(
        block: &mut Block,
        memory: &Memory,
        queue: &mut Queue,
        kind: u32,
        sector: u64,
        data: u32,
        write: bool,
    ) -> (u8, u32) {
        memory.write_obj(kind, GuestAddress(0x8000)).unwrap();
        memory.write_obj(sector, GuestAddress(0x8008)).unwrap();
        memory.write_obj(0xaau8, GuestAddress(0x8100)).unwrap();
        descriptor(memory, DESCRIPTORS, 0, 0x8000, 16, NEXT, if data == 0 { 2 } else { 1 });
        descriptor(memory, DESCRIPTORS, 1, 0x9000, data, NEXT | if write { 0 } else { WRITE }, 2);
        descriptor(memory, DESCRIPTORS, 2, 0x8100, 1, WRITE, 0);
        offer(memory, 8, &[0]);
        assert!(block.drain(queue, memory).unwrap().interrupt);
        (memory.read_obj(GuestAddress(0x8100)).unwrap(), used(memory, 8).last().unwrap().1)
    }

    #[test]
    fn reads_writes_and_names() {
        let (memory, mut queue) = (memory(), queue(8));
        let (mut block, file, counters) = disk(false);
        assert_eq!(ask(&mut block, &memory, &mut queue, 0, 1, 512, false), (STATUS_OK, 513));
        let mut got = [0u8; 512];
        memory.read_slice(&mut got, GuestAddress(0x9000)).unwrap();
        assert_eq!(got, [7; 512]);
        memory.write_slice(&[9; 1024], GuestAddress(0x9000)).unwrap();
        assert_eq!(ask(&mut block, &memory, &mut queue, 1, 6, 1024, true), (STATUS_OK, 1));
        file.read_exact_at(&mut got, 7 * 512).unwrap();
        assert_eq!(got, [9; 512]);
        assert_eq!(ask(&mut block, &memory, &mut queue, 4, 0, 0, true), (STATUS_OK, 1));
        assert_eq!(ask(&mut block, &memory, &mut queue, 8, 0, 20, false), (STATUS_OK, 21));
        let mut id = [0u8; 8];
        memory.read_slice(&mut id, GuestAddress(0x9000)).unwrap();
        assert_eq!(&id, b"serial-1");
        let c = counters.snapshot();
        assert_eq!((c.requests, c.bytes_in, c.bytes_out, c.errors), (4, 512, 1024, 0));
    }

    #[test]
    fn ranges_are_zeroed_and_discarded_within_the_disk() {
        let (memory, mut queue) = (memory(), queue(8));
        let (mut block, file, _) = disk(false);
        let mut ask = |kind: u32, sector: u64, count: u32, flags: u32| {
            memory.write_obj(sector, GuestAddress(0x9000)).unwrap();
            memory.write_obj(count, GuestAddress(0x9008)).unwrap();
            memory.write_obj(flags, GuestAddress(0x900c)).unwrap();
            ask(&mut block, &memory, &mut queue, kind, 0, 16, true).0
        };
        file.write_all_at(&[5; 8 * 512], 0).unwrap();
        assert_eq!(ask(11, 1, 2, 0), STATUS_OK);
        assert_eq!(ask(13, 4, 1, 1), STATUS_OK);
        for (kind, sector, count, flags) in [(11, 7, 2, 0), (11, u64::MAX, 2, 0), (13, 0, 0, 0), (13, 0, u32::MAX, 0)] {
            assert_eq!(ask(kind, sector, count, flags), STATUS_ERROR);
        }
        assert_eq!([ask(11, 0, 1, 1), ask(13, 0, 1, 2)], [STATUS_UNSUPPORTED; 2]);
        let mut bytes = vec![0; 8 * 512];
        file.read_exact_at(&mut bytes, 0).unwrap();
        // Discarding may leave the old bytes; what was not named must stay.
        assert_eq!((bytes[4 * 512], bytes[0], bytes[3 * 512], bytes[5 * 512]), (0, 5, 5, 5));
        assert_eq!(file.metadata().unwrap().len(), 8 * SECTOR);
    }

    #[test]
    fn what_lies_outside_or_is_forbidden_is_an_error() {
        let (memory, mut queue) = (memory(), queue(8));
        let (mut block, file, counters) = disk(true);
        let mut ask = |kind, sector, data, write| ask(&mut block, &memory, &mut queue, kind, sector, data, write).0;
        assert_eq!(ask(0, 8, 512, false), STATUS_ERROR);
        assert_eq!(ask(0, u64::MAX, 512, false), STATUS_ERROR);
        assert_eq!(ask(0, 7, 1024, false), STATUS_ERROR);
        assert_eq!(ask(0, 0, 100, false), STATUS_ERROR);
        assert_eq!(ask(1, 0, 512, true), STATUS_ERROR);
        assert_eq!(ask(99, 0, 512, true), STATUS_UNSUPPORTED);
        assert_eq!(counters.snapshot().errors, 6);
        assert_eq!(file.metadata().unwrap().len(), 8 * SECTOR);
    }

    #[test]
    fn chains_without_header_or_status_are_counted() {
        let (memory, mut queue) = (memory(), queue(8));
        let (mut block, _, counters) = disk(false);
        descriptor(&memory, DESCRIPTORS, 0, 0x8000, 15, NEXT, 1);
        descriptor(&memory, DESCRIPTORS, 1, 0x8100, 1, WRITE, 0);
        descriptor(&memory, DESCRIPTORS, 2, 0x8000, 16, 0, 0);
        descriptor(&memory, DESCRIPTORS, 3, 0x8000, 16, NEXT, 3);
        offer(&memory, 8, &[0, 2, 3]);
        block.drain(&mut queue, &memory).unwrap();
        assert_eq!(counters.snapshot().bad_chains, 3);
        assert_eq!(used(&memory, 8), [(0, 0), (2, 0), (3, 0)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn hostile_requests_never_reach_beyond_the_disk(
            table in proptest::collection::vec((0u64..0x12_0000, prop_oneof![0u32..4096, any::<u32>()], 0u16..8, 0u16..10), 8),
            heads in proptest::collection::vec(0u16..10, 1..8),
            header in (0u32..16, prop_oneof![0u64..10, any::<u64>()]),
            event_idx in any::<bool>(),
        ) {
            let (memory, mut queue) = (memory(), queue(8));
            queue.set_event_idx(event_idx);
            let (mut block, file, _) = disk(false);
            for at in (0..0x10_0000u64).step_by(0x800) {
                if !(DESCRIPTORS..USED + 0x1000).contains(&at) {
                    memory.write_obj(header.0, GuestAddress(at)).unwrap();
                    memory.write_obj(header.1, GuestAddress(at + 8)).unwrap();
                }
            }
            for (n, (address, length, flags, next)) in (0u16..).zip(&table) {
                descriptor(&memory, DESCRIPTORS, n, address & !0x7ff, *length, *flags, *next);
            }
            offer(&memory, 8, &heads);
            let _ = block.drain(&mut queue, &memory);
            prop_assert_eq!(file.metadata().unwrap().len(), 8 * SECTOR);
        }
    }
}
