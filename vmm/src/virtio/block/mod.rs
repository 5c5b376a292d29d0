//! virtio-blk: a raw file, block device or qcow2 image as a disk.
//!
//! ```text
//!   queue 0 ─► lane.rs: requests ─► batch of reads and writes ─► ring.rs (io_uring) │ pool.rs (threads) │ file.rs, qcow2.rs (one
//!                              └─► anything else, after the batch before it                                        by one)
//!   queue 1 ─► another lane, its own thread and ring
//! ```
//! A ring is a queue's own, a pool the disk's; the queues of a qcow2 image take turns (`shared.rs`). A server (NBD) has one queue.
//! Bytes go straight between the file and guest memory. A batch is done when its turn ends: at the gate nothing is under
//! way, so a snapshot needs no more than the queues. A request outside the disk, of odd length, or a write to a read-only
//! disk is answered with an error and counted. What cannot be asked because the disk's server is away is held and asked again.

pub mod changes;
pub mod file;
mod held;
pub mod lane;
pub mod nbd;
pub mod pool;
pub mod qcow2;
pub mod ring;
pub mod shared;

use super::counters::Counters;
use super::lane::Lane;
use super::limit::{Setting, Shared};
use super::{Broken, Device, Served, copy_config};
use crate::memory::Memory;
use crate::snapshot::{self, SnapshotError};
use file::Backing;
use lane::{Requests, ZERO_SECTORS_MAX};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use virtio_bindings::virtio_blk as abi;
use virtio_queue::Queue;

/// The unit of lengths and places.
pub const SECTOR: u64 = 512;
const QUEUE_SIZE: u16 = 256;
/// Pieces of data in one request: one less for each of header and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// What a disk is, beside its bytes.
#[derive(Debug, Clone)]
pub struct Geometry {
    /// What lies beyond the last whole sector is not offered.
    pub bytes: u64,
    /// Refuse writes.
    pub read_only: bool,
    /// What the guest reads as its serial number.
    pub serial: String,
    /// What the guest takes for a sector: 512 or 4096 bytes.
    pub block_size: u32,
}

/// What all queues of a disk share.
pub(super) struct Disk {
    read_only: bool,
    sectors: Arc<AtomicU64>,
    serial: [u8; 20],
    limiter: Shared,
    counters: Arc<Counters>,
    /// The driver knows of no cache: what is written is durable before it is answered.
    write_through: AtomicBool,
}

impl Disk {
    fn sectors(&self) -> u64 {
        self.sectors.load(Ordering::Acquire)
    }
}

/// A disk.
pub struct Block {
    disk: Arc<Disk>,
    queues: u16,
    block_size: u32,
    remote: bool,
    /// Until they are taken to threads of their own.
    lanes: Vec<Requests>,
}

impl Block {
    /// A disk whose bytes are reached in as many ways as it has queues, one each.
    pub fn new(
        backings: Vec<Box<dyn Backing>>,
        geometry: &Geometry,
        rate: Arc<Setting>,
        counters: Arc<Counters>,
    ) -> Block {
        let mut serial = [0u8; 20];
        let count = geometry.serial.len().min(serial.len());
        serial[..count].copy_from_slice(&geometry.serial.as_bytes()[..count]);
        let disk = Arc::new(Disk {
            read_only: geometry.read_only,
            sectors: Arc::new(AtomicU64::new(geometry.bytes / SECTOR)),
            serial,
            limiter: Shared::new(rate),
            counters,
            write_through: AtomicBool::new(false),
        });
        let remote = backings.iter().any(|backing| backing.is_remote());
        let lane = |backing| Requests { disk: disk.clone(), backing, held: Vec::new() };
        let lanes: Vec<_> = backings.into_iter().map(lane).collect();
        Block { queues: lanes.len() as u16, disk, block_size: geometry.block_size, remote, lanes }
    }

    /// Its length in sectors, which may grow while it is used: then the driver is to be told.
    pub fn length(&self) -> Arc<AtomicU64> {
        self.disk.sectors.clone()
    }
}

impl Device for Block {
    fn number(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        let zeroes = 1 << abi::VIRTIO_BLK_F_DISCARD | 1 << abi::VIRTIO_BLK_F_WRITE_ZEROES;
        let writing = if self.disk.read_only { 1 << abi::VIRTIO_BLK_F_RO } else { zeroes };
        let many = if self.queues > 1 { 1 << abi::VIRTIO_BLK_F_MQ } else { 0 };
        writing | many | 1 << abi::VIRTIO_BLK_F_FLUSH | 1 << abi::VIRTIO_BLK_F_SEG_MAX | 1 << abi::VIRTIO_BLK_F_BLK_SIZE
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; usize::from(self.queues)]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0u8; 60];
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        // Words by offset: segments, block size; discard: most sectors, ranges, alignment; zeroes: sectors, ranges.
        let words = [
            (12, SEGMENTS_MAX),
            (20, self.block_size),
            (36, ZERO_SECTORS_MAX),
            (40, 1),
            (44, 8),
            (48, ZERO_SECTORS_MAX),
            (52, 1),
        ];
        for (offset, value) in words {
            config[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        config[34..36].copy_from_slice(&self.queues.to_le_bytes());
        config[56] = 1; // zeroing may give space back
        copy_config(&config, offset, data);
    }

    fn activate(&mut self, features: u64) {
        self.disk.write_through.store(features & 1 << abi::VIRTIO_BLK_F_FLUSH == 0, Ordering::Release);
    }

    fn reset(&mut self) {
        self.lanes.iter_mut().for_each(Lane::stopped);
    }

    fn take_lanes(&mut self) -> Vec<Box<dyn Lane>> {
        self.lanes.drain(..).map(|lane| Box::new(lane) as Box<dyn Lane>).collect()
    }

    fn has_connections(&self) -> bool {
        self.remote
    }

    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        self.lanes.iter().try_for_each(Lane::can_save)?;
        snapshot::encode(&(self.disk.sectors(), self.disk.read_only))
    }

    /// Nothing is in flight while the worker stands at the gate; the disk itself must be the same.
    fn restore(&mut self, saved: &[u8], _memory: &Memory) -> Result<(), SnapshotError> {
        let (sectors, read_only): (u64, bool) = snapshot::decode(saved)?;
        if (sectors, read_only) == (self.disk.sectors(), self.disk.read_only) {
            return Ok(());
        }
        let (here, ways) =
            (self.disk.sectors(), [read_only, self.disk.read_only].map(|r| if r { "read-only" } else { "writable" }));
        let text = format!("a disk had {sectors} sectors, {}; this has {here}, {}", ways[0], ways[1]);
        Err(SnapshotError::Mismatch(text))
    }

    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        match (self.lanes.get_mut(queue), queues.get_mut(queue)) {
            (Some(lane), Some(queue)) => lane.serve(queue, memory),
            _ => Ok(Served::default()),
        }
    }
}

#[cfg(test)]
mod tests;
