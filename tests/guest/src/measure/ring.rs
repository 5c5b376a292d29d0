//! A split virtqueue as lean as can be, so that what is measured is the other side: chains of fixed descriptors, event
//! indexes where both have them, no interrupts.

use crate::hal::Direct;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering, fence};
use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Hal};

/// Entries of every queue.
pub const SIZE: u16 = 256;
const F_EVENT_IDX: u64 = 1 << 29;
const F_VERSION_1: u64 = 1 << 32;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const AVAILABLE: usize = 4096;
const USED: usize = 8192;

/// One stretch of memory.
#[derive(Clone, Copy)]
pub struct Piece {
    /// Where.
    pub address: usize,
    /// Bytes.
    pub length: u32,
    /// The device writes it.
    pub writable: bool,
}

/// A queue.
pub struct Ring {
    base: usize,
    number: u16,
    event_index: bool,
    added: u16,
    told: u16,
    seen: u16,
}

/// Begins with a device: the features that both have, of these.
pub fn begin(transport: &mut impl Transport, wanted: u64) -> u64 {
    transport.set_status(DeviceStatus::empty());
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    let features = transport.read_device_features() & (wanted | F_EVENT_IDX | F_VERSION_1);
    transport.write_driver_features(features);
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK);
    features
}

impl Ring {
    /// Lays a queue out. Its memory is never given back.
    pub fn new(transport: &mut impl Transport, number: u16, features: u64) -> Ring {
        let (address, memory) = Direct::dma_alloc(3, BufferDirection::Both);
        let at = |offset: usize| address + offset as u64;
        transport.queue_set(number, u32::from(SIZE), at(0), at(AVAILABLE), at(USED));
        let event_index = features & F_EVENT_IDX != 0;
        let ring = Ring { base: memory.as_ptr() as usize, number, event_index, added: 0, told: 0, seen: 0 };
        // With event indexes: the used event stays far from where the device is (see `next`).
        ring.word(AVAILABLE).store(1, Ordering::Relaxed);
        ring
    }

    fn word(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: offsets are even and inside the three pages, which are zeroed and live for ever.
        unsafe { NonNull::new_unchecked((self.base + offset) as *mut AtomicU16).as_ref() }
    }

    /// Lays out the descriptors `first..` as one chain. What they say stays until they are laid out anew.
    pub fn lay(&self, first: u16, pieces: &[Piece]) {
        for (n, piece) in pieces.iter().enumerate() {
            let more = if n + 1 < pieces.len() { NEXT } else { 0 };
            let write = if piece.writable { WRITE } else { 0 };
            let place = first + n as u16;
            let at = (self.base + usize::from(place) * 16) as *mut u64;
            let rest = u64::from(piece.length) | u64::from(more | write) << 32 | u64::from(place + 1) << 48;
            // SAFETY: callers name descriptors below SIZE, which lie in the first page.
            unsafe {
                at.write_volatile(piece.address as u64);
                at.add(1).write_volatile(rest);
            }
        }
    }

    /// Gives a chain to the device; it sees it at once, and hears of it by `notify`.
    pub fn add(&mut self, first: u16) {
        self.word(AVAILABLE + 4 + usize::from(self.added % SIZE) * 2).store(first, Ordering::Relaxed);
        self.added = self.added.wrapping_add(1);
        self.word(AVAILABLE + 2).store(self.added, Ordering::Release);
    }

    /// Tells the device of what was added, when it wants to hear.
    pub fn notify(&mut self, transport: &mut impl Transport) {
        let (old, new) = (self.told, self.added);
        if old == new {
            return;
        }
        self.told = new;
        fence(Ordering::SeqCst);
        let wanted = if self.event_index {
            let event = self.word(USED + 4 + usize::from(SIZE) * 8).load(Ordering::Acquire);
            new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
        } else {
            self.word(USED).load(Ordering::Acquire) & 1 == 0
        };
        if wanted {
            transport.notify(self.number);
        }
    }

    /// The next chain that came back, and how much was written.
    pub fn next(&mut self) -> Option<(u16, u32)> {
        if self.word(USED + 2).load(Ordering::Acquire) == self.seen {
            return None;
        }
        let at = (self.base + USED + 4 + usize::from(self.seen % SIZE) * 8) as *const u32;
        // SAFETY: inside the third page.
        let (first, written) = unsafe { (at.read_volatile() as u16, at.add(1).read_volatile()) };
        self.seen = self.seen.wrapping_add(1);
        if self.event_index {
            // The index that the device has passed last: it wants to say so again only a whole round later.
            self.word(AVAILABLE + 4 + usize::from(SIZE) * 2).store(self.seen.wrapping_sub(1), Ordering::Release);
        }
        Some((first, written))
    }
}
