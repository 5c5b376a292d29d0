//! Memory that a guest takes and gives back in blocks: an area of guest addresses above all RAM, of which the blocks that
//! are plugged are memory.
//!
//! ```text
//!   RAM ... │ ▒▒▒▒░░▒▒░░░░░░░░ │      ▒ plugged: a memory slot of KVM each      ░ not: nobody answers there
//!           area.start          area.start + area.bytes
//! ```
//! A block that is not plugged has no memory slot: what the guest reads there is all ones, what it writes is lost, as on an
//! empty bus. Its pages belong to the host. The mapping behind the whole area stays, so devices that a guest points there
//! read zeroes and write into pages that nobody else sees; they are given back when the block is next unplugged.

use super::{HOLE_END, Memory, Slot, give_back};
use crate::gate::lock;
use kvm_bindings::KVM_MEM_LOG_DIRTY_PAGES;
use kvm_ioctls::VmFd;
use std::sync::{Arc, Mutex};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// First memory slot of KVM for blocks; RAM has the first ones.
const FIRST_SLOT: u32 = 64;
/// Most blocks: each is a memory slot of KVM, which has 32764 at most.
pub const BLOCKS_MAX: u32 = 16_384;
/// The area begins at a multiple of this, far enough for the sections that kernels handle memory in.
const ALIGN: u64 = 2 << 30;
const PAGE: u64 = 4096;

/// Where the area lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// First address.
    pub start: u64,
    /// All of it.
    pub bytes: u64,
    /// Of one block.
    pub block: u64,
}

/// Where it lies above so much RAM. Never where RAM begins above the devices, so that the two cannot be confused.
pub fn start(ram: u64) -> u64 {
    let end = super::ranges(ram).last().map_or(0, |(start, bytes)| start + bytes);
    end.max(HOLE_END + 1).next_multiple_of(ALIGN)
}

/// Whether a region of guest memory is RAM, not the area.
pub fn is_ram(start: GuestAddress) -> bool {
    start.raw_value() == 0 || start.raw_value() == HOLE_END
}

/// State of a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All blocks are.
    Plugged,
    /// None is.
    Unplugged,
    /// Some are.
    Mixed,
}

struct Blocks {
    plugged: Vec<bool>,
    logged: bool,
}

/// The area of a machine.
pub struct Hot {
    area: Area,
    memory: Memory,
    /// None in tests of what needs no machine.
    vm: Option<Arc<VmFd>>,
    blocks: Mutex<Blocks>,
}

impl Hot {
    /// With no block plugged.
    pub fn new(vm: Option<Arc<VmFd>>, memory: Memory, area: Area) -> Hot {
        let plugged = vec![false; (area.bytes / area.block) as usize];
        Hot { area, memory, vm, blocks: Mutex::new(Blocks { plugged, logged: false }) }
    }

    /// Where it is.
    pub fn area(&self) -> Area {
        self.area
    }

    /// The numbers of the blocks of a stretch, where it is one.
    fn range(&self, start: u64, count: u64) -> Option<std::ops::Range<usize>> {
        let offset = start.checked_sub(self.area.start)?;
        let (first, all) = (offset / self.area.block, self.area.bytes / self.area.block);
        let end = first.checked_add(count).filter(|end| *end <= all)?;
        (count > 0 && offset.is_multiple_of(self.area.block)).then_some(first as usize..end as usize)
    }

    /// None: it is no stretch of whole blocks of the area.
    pub fn state(&self, start: u64, count: u64) -> Option<State> {
        let range = self.range(start, count)?;
        let blocks = lock(&self.blocks);
        let plugged = blocks.plugged[range].iter().filter(|plugged| **plugged).count() as u64;
        Some(match plugged {
            0 => State::Unplugged,
            all if all == count => State::Plugged,
            _ => State::Mixed,
        })
    }

    /// Bytes of all that are plugged.
    pub fn plugged_bytes(&self) -> u64 {
        lock(&self.blocks).plugged.iter().filter(|plugged| **plugged).count() as u64 * self.area.block
    }

    /// Plugs blocks that are not. False: the host cannot; then none of them is.
    pub fn plug(&self, start: u64, count: u64) -> bool {
        let Some(range) = self.range(start, count) else { return false };
        let mut blocks = lock(&self.blocks);
        for number in range.clone() {
            if !self.set_slot(number, true, blocks.logged) {
                for number in range.start..number {
                    self.set_slot(number, false, false);
                }
                return false;
            }
        }
        blocks.plugged[range].fill(true);
        true
    }

    /// Unplugs blocks; their pages go back to the host. False: it cannot; what is still plugged is.
    pub fn unplug(&self, start: u64, count: u64) -> bool {
        let Some(range) = self.range(start, count) else { return false };
        let mut blocks = lock(&self.blocks);
        range.into_iter().all(|number| self.drop_block(&mut blocks, number))
    }

    fn drop_block(&self, blocks: &mut Blocks, number: usize) -> bool {
        if blocks.plugged[number] && !self.set_slot(number, false, false) {
            return false;
        }
        blocks.plugged[number] = false;
        give_back(&self.memory, self.address(number), self.area.block)
    }

    /// Unplugs everything.
    pub fn unplug_all(&self) -> bool {
        let mut blocks = lock(&self.blocks);
        let plugged: Vec<usize> = (0..blocks.plugged.len()).filter(|number| blocks.plugged[*number]).collect();
        plugged.into_iter().all(|number| self.drop_block(&mut blocks, number))
    }

    fn address(&self, number: usize) -> u64 {
        self.area.start + number as u64 * self.area.block
    }

    fn set_slot(&self, number: usize, plugged: bool, logged: bool) -> bool {
        let Some(vm) = &self.vm else { return true };
        let flags = if logged { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        let bytes = if plugged { self.area.block } else { 0 };
        let slot = Slot { number: FIRST_SLOT + number as u32, flags, start: self.address(number), bytes };
        slot.set(vm, &self.memory).is_ok()
    }

    /// Has KVM note which pages the guest writes, or no longer. False: it cannot.
    pub fn log_writes(&self, on: bool) -> bool {
        let mut blocks = lock(&self.blocks);
        blocks.logged = on;
        let plugged = blocks.plugged.iter().enumerate().filter(|(_, plugged)| **plugged);
        plugged.into_iter().all(|(number, _)| self.set_slot(number, true, on))
    }

    /// A bit a page of the area: takes away what is not plugged.
    pub fn only_plugged(&self, bits: &mut [u64]) {
        self.each_block(bits, |_, plugged, bits| {
            if !plugged {
                bits.fill(0)
            }
        });
    }

    /// Adds what the guest has written since the last question, and takes away what is not plugged.
    pub fn changed(&self, bits: &mut [u64]) -> Result<(), kvm_ioctls::Error> {
        let mut failed = None;
        self.each_block(bits, |number, plugged, bits| {
            let log = self.vm.as_ref().filter(|_| plugged);
            match log.map(|vm| vm.get_dirty_log(FIRST_SLOT + number as u32, self.area.block as usize)) {
                Some(Ok(log)) => bits.iter_mut().zip(log).for_each(|(bits, log)| *bits |= log),
                Some(Err(e)) => failed = Some(e),
                None => bits.fill(0),
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// Blocks are whole words of bits: two MiB at least.
    fn each_block(&self, bits: &mut [u64], mut each: impl FnMut(usize, bool, &mut [u64])) {
        let blocks = lock(&self.blocks);
        let words = (self.area.block / PAGE / 64) as usize;
        for ((number, bits), plugged) in bits.chunks_mut(words.max(1)).enumerate().zip(&blocks.plugged) {
            each(number, *plugged, bits);
        }
    }

    /// Whether nothing is plugged in a stretch of guest addresses, so that there is nothing to be read.
    pub fn is_empty(&self, start: u64, bytes: u64) -> bool {
        let Some(offset) = start.checked_sub(self.area.start) else { return false };
        let (first, end) = (offset / self.area.block, (offset + bytes).div_ceil(self.area.block));
        let blocks = lock(&self.blocks);
        (first..end).all(|number| blocks.plugged.get(number as usize) == Some(&false))
    }

    /// Writes down which blocks are plugged.
    pub fn save(&self) -> Vec<u8> {
        let blocks = lock(&self.blocks);
        let byte = |bits: &[bool]| bits.iter().enumerate().fold(0, |byte, (n, bit)| byte | u8::from(*bit) << n);
        blocks.plugged.chunks(8).map(byte).collect()
    }

    /// Plugs what was, in a machine that has not run. What came along of other blocks is given back. False: there are other
    /// blocks here, or KVM refuses one.
    pub fn restore(&self, saved: &[u8]) -> bool {
        let all = lock(&self.blocks).plugged.len();
        if saved.len() != all.div_ceil(8) {
            return false;
        }
        let was = |number: usize| saved[number / 8] >> (number % 8) & 1 != 0;
        let from_image = self.memory.find_region(GuestAddress(self.area.start));
        let from_image = from_image.is_some_and(|region| region.file_offset().is_some());
        (0..all).all(|number| match was(number) {
            true => self.plug(self.address(number), 1),
            // An image has holes there, which are as good.
            false => from_image || give_back(&self.memory, self.address(number), self.area.block),
        }) && (all..saved.len() * 8).all(|number| !was(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Backing, Size, map_sized};
    use vm_memory::Bytes;

    const MIB: u64 = 1 << 20;
    const BLOCK: u64 = 2 * MIB;

    fn hot() -> (Hot, Memory) {
        let memory = map_sized(Size { ram: 4 * MIB, hot: 16 * MIB }, &Backing::default()).unwrap();
        let area = Area { start: start(4 * MIB), bytes: 16 * MIB, block: BLOCK };
        (Hot::new(None, memory.clone(), area), memory)
    }

    #[test]
    fn the_area_lies_above_all_ram_and_never_where_ram_could() {
        for ram in [16 * MIB, 3 << 30, (3 << 30) + MIB, 7 << 30, (7 << 30) + MIB, 1 << 40] {
            let start = start(ram);
            let end = crate::memory::ranges(ram).last().map(|(start, bytes)| start + bytes).unwrap();
            assert!(start >= end && start.is_multiple_of(ALIGN) && !is_ram(GuestAddress(start)), "{ram:#x}");
        }
    }

    #[test]
    fn blocks_are_plugged_and_come_back_empty() {
        let (hot, memory) = hot();
        let at = |block: u64| hot.area.start + block * BLOCK;
        assert_eq!((hot.state(at(0), 8), hot.plugged_bytes()), (Some(State::Unplugged), 0));
        assert!(hot.plug(at(1), 2) && hot.plug(at(7), 1));
        assert_eq!(
            [hot.state(at(1), 2), hot.state(at(0), 2), hot.state(at(3), 4)],
            [Some(State::Plugged), Some(State::Mixed), Some(State::Unplugged)]
        );
        memory.write_slice(&[7; 8192], GuestAddress(at(2))).unwrap();
        assert_eq!(hot.save(), [0b1000_0110]);
        assert!(hot.is_empty(at(3), MIB) && !hot.is_empty(at(3) - 1, 2) && !hot.is_empty(0, MIB));
        assert!(hot.unplug(at(2), 1));
        assert_eq!((memory.read_obj::<u8>(GuestAddress(at(2))).unwrap(), hot.plugged_bytes()), (0, 2 * BLOCK));
        assert!(hot.unplug_all());
        assert_eq!(hot.plugged_bytes(), 0);
        for (start, count) in [(at(0), 0), (at(0) + MIB, 1), (at(7), 2), (0, 1), (u64::MAX, 1), (at(0), u64::MAX)] {
            assert!(hot.state(start, count).is_none() && !hot.plug(start, count) && !hot.unplug(start, count));
        }
    }

    #[test]
    fn what_is_written_down_comes_back_and_nonsense_does_not() {
        let (hot, _) = hot();
        assert!(hot.restore(&[0b101]) && hot.plugged_bytes() == 2 * BLOCK);
        assert!(!hot.restore(&[]) && !hot.restore(&[1, 0]));
        let mut bits = vec![u64::MAX; (16 * MIB / PAGE / 64) as usize];
        hot.only_plugged(&mut bits);
        let count: u64 = bits.iter().map(|word| u64::from(word.count_ones())).sum();
        assert_eq!((count, bits[0], bits[8], bits[16]), (2 * BLOCK / PAGE, u64::MAX, 0, u64::MAX));
    }
}
