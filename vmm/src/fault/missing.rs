//! Which pages of guest memory are missing, a bit each, by region; and for which of them somebody waits.

use super::PAGE;
use crate::memory::Memory;
use std::collections::BTreeSet;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

/// A bit a page, for each region.
pub type Bits = Vec<Vec<u64>>;

/// A region of guest memory.
struct Region {
    guest: u64,
    host: u64,
    pages: u64,
    due: Vec<u64>,
}

/// The pages that are missing.
pub struct Missing {
    regions: Vec<Region>,
    left: u64,
    asked: BTreeSet<u64>,
}

/// Words of the bitmaps of a memory, by region.
pub fn words(memory: &Memory) -> impl Iterator<Item = usize> {
    memory.iter().map(|region| (region.len() / PAGE).div_ceil(64) as usize)
}

impl Missing {
    /// The pages of these bits; what lies behind the end of a region is not looked at.
    pub fn new(memory: &Memory, mut bits: Bits) -> Missing {
        let mut regions = Vec::new();
        bits.resize(memory.num_regions(), Vec::new());
        for (region, (mut due, words)) in memory.iter().zip(bits.into_iter().zip(words(memory))) {
            let pages = region.len() / PAGE;
            due.resize(words, 0);
            if let Some(last) = due.last_mut().filter(|_| !pages.is_multiple_of(64)) {
                *last &= (1 << (pages % 64)) - 1;
            }
            let (guest, host) = (region.start_addr().raw_value(), region.as_ptr() as u64);
            regions.push(Region { guest, host, pages, due });
        }
        let left = regions.iter().flat_map(|region| &region.due).map(|word| u64::from(word.count_ones())).sum();
        Missing { regions, left, asked: BTreeSet::new() }
    }

    /// How many are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The bits.
    pub fn bits(&self) -> Bits {
        self.regions.iter().map(|region| region.due.clone()).collect()
    }

    fn place(&self, guest: u64) -> Option<(usize, u64)> {
        let at = self.regions.iter().position(|r| guest >= r.guest && guest - r.guest < r.pages * PAGE)?;
        Some((at, (guest - self.regions[at].guest) / PAGE))
    }

    /// The guest's address of the page at this address of this process.
    pub fn guest_page(&self, host: u64) -> Option<u64> {
        let region = self.regions.iter().find(|r| host >= r.host && host - r.host < r.pages * PAGE)?;
        Some(region.guest + (host - region.host) / PAGE * PAGE)
    }

    /// The address in this process of a page of the guest.
    pub fn host(&self, guest: u64) -> Option<u64> {
        self.place(guest).map(|(at, page)| self.regions[at].host + page * PAGE)
    }

    /// Whether the page at this address of the guest is missing.
    pub fn is_due(&self, guest: u64) -> bool {
        self.place(guest).is_some_and(|(at, page)| self.regions[at].is_due(page))
    }

    /// It is there. False: it was before.
    pub fn arrived(&mut self, guest: u64) -> bool {
        let Some((at, page)) = self.place(guest).filter(|(at, page)| self.regions[*at].is_due(*page)) else {
            return false;
        };
        self.regions[at].due[(page / 64) as usize] &= !(1 << (page % 64));
        self.left -= 1;
        self.asked.remove(&guest);
        true
    }

    /// Somebody waits for it. False: others did before.
    pub fn ask(&mut self, guest: u64) -> bool {
        self.asked.insert(guest)
    }

    /// All for which somebody waits.
    pub fn asked(&self) -> Vec<u64> {
        self.asked.iter().copied().collect()
    }

    /// The next run of missing pages at or after this address of the guest, at most so long; from the beginning when
    /// there is none. Address and pages; None: nothing is missing.
    pub fn next_run(&self, from: u64, most: u64) -> Option<(u64, u64)> {
        if self.left == 0 {
            return None;
        }
        let after = self.regions.iter().filter(|r| r.guest + r.pages * PAGE > from).find_map(|region| {
            let first = from.saturating_sub(region.guest).div_ceil(PAGE);
            region.run(first, most)
        });
        after.or_else(|| self.regions.iter().find_map(|region| region.run(0, most)))
    }

    /// All runs of missing pages: addresses in this process, and bytes.
    pub fn holes(&self) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        for region in &self.regions {
            let mut page = 0;
            while let Some((start, pages)) = region.run(page, u64::MAX) {
                let at = start - region.guest;
                out.push((region.host + at, pages * PAGE));
                page = at / PAGE + pages;
            }
        }
        out
    }
}

impl Region {
    fn is_due(&self, page: u64) -> bool {
        self.due.get((page / 64) as usize).is_some_and(|word| word >> (page % 64) & 1 != 0)
    }

    fn run(&self, mut page: u64, most: u64) -> Option<(u64, u64)> {
        while page < self.pages && !self.is_due(page) {
            // Most of the map is empty in the end.
            page += if self.due[(page / 64) as usize] >> (page % 64) == 0 { 64 - page % 64 } else { 1 };
        }
        if page >= self.pages {
            return None;
        }
        let count = (page..self.pages.min(page.saturating_add(most))).take_while(|page| self.is_due(*page)).count();
        Some((self.guest + page * PAGE, count as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runs_are_found_in_turn_and_bits_behind_the_end_do_not_count() {
        let memory = crate::memory::map(1 << 20, false).unwrap();
        let mut missing = Missing::new(&memory, vec![vec![0b1011, 0, 0, 1 << 63, u64::MAX], vec![1]]);
        assert_eq!(missing.left(), 4);
        assert_eq!(missing.next_run(0, 9), Some((0, 2)));
        assert_eq!(missing.next_run(0, 1), Some((0, 1)));
        assert_eq!(missing.next_run(0x2000, 9), Some((0x3000, 1)));
        assert_eq!(missing.next_run(0x4000, 9), Some((0xff000, 1)));
        assert!(missing.arrived(0xff000) && !missing.arrived(0xff000) && !missing.arrived(0x10_0000));
        assert_eq!(missing.next_run(0x4000, 9), Some((0, 2)));
        assert!(missing.ask(0x1000) && !missing.ask(0x1000));
        assert!([0, 0x1000, 0x3000].into_iter().all(|page| missing.arrived(page)));
        assert_eq!((missing.next_run(0, 9), missing.asked().len(), missing.left()), (None, 0, 0));
    }

    proptest! {
        #[test]
        fn every_page_comes_once(words in proptest::collection::vec(any::<u64>(), 4), from in 0u64..0x20_0000, most in 1u64..70) {
            let memory = crate::memory::map(1 << 20, false).unwrap();
            let mut missing = Missing::new(&memory, vec![words.clone()]);
            let (mut at, mut count) = (from / PAGE * PAGE, 0);
            let holes: u64 = missing.holes().iter().map(|(_, bytes)| bytes / PAGE).sum();
            while let Some((start, pages)) = missing.next_run(at, most) {
                prop_assert!(pages >= 1 && pages <= most);
                for page in 0..pages {
                    prop_assert!(missing.arrived(start + page * PAGE));
                }
                count += pages;
                at = start + pages * PAGE;
            }
            prop_assert_eq!(count, words.iter().map(|word| u64::from(word.count_ones())).sum::<u64>());
            prop_assert_eq!((count, missing.left()), (holes, 0));
        }
    }
}
