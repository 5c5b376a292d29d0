//! Requests to a disk.

use super::ring::{Piece, Ring};
use super::{DATA, Task, Until};
use crate::say;
use virtio_drivers::transport::{SomeTransport, Transport};

const SECTOR: u64 = 512;
/// The disk may answer writes before they are durable.
const F_FLUSH: u64 = 1 << 9;
/// It may have several queues, and says in its configuration space how many.
const F_MQ: u64 = 1 << 12;
const QUEUES: usize = 34;
/// Most queues that are used.
const QUEUES_MAX: u16 = 4;
/// Most requests at once: three descriptors each.
const DEPTH_MAX: u16 = 64;
/// Room for each request's data.
const ROOM: usize = 1 << 20;
/// Where headers and status bytes lie, before the data.
const HEADS: usize = DATA - 4096;

/// A disk.
pub struct Disk {
    transport: SomeTransport<'static>,
    /// The first is used alone by all tasks but one.
    rings: alloc::vec::Vec<Ring>,
    sectors: u64,
    random: u64,
}

impl Disk {
    /// Takes it into use.
    pub fn new(mut transport: SomeTransport<'static>) -> Disk {
        let features = super::ring::begin(&mut transport, F_FLUSH | F_MQ);
        let queues = if features & F_MQ != 0 { transport.read_config_space::<u16>(QUEUES).unwrap_or(1) } else { 1 };
        let queues = 0..queues.clamp(1, QUEUES_MAX);
        let rings = queues.map(|number| Ring::new(&mut transport, number, features)).collect();
        transport.finish_init();
        let half = |offset| u64::from(transport.read_config_space::<u32>(offset).unwrap_or(0));
        let sectors = half(0) | half(4) << 32;
        Disk { transport, rings, sectors, random: 0x9e37_79b9_7f4a_7c15 }
    }

    fn somewhere(&mut self, bytes: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let step = bytes / SECTOR;
        self.random % (self.sectors / step) * step
    }

    /// Does a task; how many requests came back well.
    pub fn run(&mut self, task: &Task<'_>) -> u64 {
        let (bytes, depth) = (task.bytes.min(ROOM as u32), task.depth.clamp(1, DEPTH_MAX));
        let writes = task.what == "write";
        let rings = if task.what == "spread" { self.rings.len() } else { 1 };
        for n in 0..depth {
            let head = HEADS + usize::from(n) * 32;
            let data = Piece { address: DATA + usize::from(n) * ROOM, length: bytes, writable: !writes };
            let header = Piece { address: head, length: 16, writable: false };
            self.rings[usize::from(n) % rings]
                .lay(n * 3, &[header, data, Piece { address: head + 16, length: 1, writable: true }]);
        }
        let (until, streams) = (Until::after(task.ms), task.what == "stream");
        let (mut place, mut done, mut under_way, mut over) = (0u64, 0u64, 0u16, false);
        let mut free: alloc::vec::Vec<u16> = (0..depth).collect();
        while !over || under_way > 0 {
            over = over || until.is_over();
            while let (false, Some(n)) = (over, free.pop()) {
                let sector = if streams { place } else { self.somewhere(u64::from(bytes)) };
                place += u64::from(bytes) / SECTOR;
                if place + u64::from(bytes) / SECTOR > self.sectors {
                    place = 0;
                }
                let head = (HEADS + usize::from(n) * 32) as *mut u64;
                // SAFETY: memory that nothing else of this guest lies in, mapped one to one.
                unsafe {
                    head.write_volatile(u64::from(writes));
                    head.add(1).write_volatile(sector);
                    head.add(2).write_volatile(0xff);
                }
                self.rings[usize::from(n) % rings].add(n * 3);
                under_way += 1;
            }
            self.rings[..rings].iter_mut().for_each(|ring| ring.notify(&mut self.transport));
            while let Some((first, _)) = self.rings[..rings].iter_mut().find_map(Ring::next) {
                let n = first / 3;
                // SAFETY: as above.
                let status = unsafe { ((HEADS + usize::from(n) * 32 + 16) as *const u8).read_volatile() };
                if status != 0 {
                    say!("disk status {status}");
                }
                done += u64::from(status == 0);
                under_way -= 1;
                free.push(n);
            }
            core::hint::spin_loop();
        }
        done
    }
}
