//! virtio-balloon: memory that the guest gives back to the host, because it was asked to (inflating) or because it has
//! no use for it just now (free page reporting).
//!
//! ```text
//!   queue 0  inflate    page numbers ─► ranges ─► given back to the host
//!   queue 1  deflate    page numbers, nothing to do: the next touch brings zeroes
//!   queue 2  reporting  ranges of free memory ─► given back to the host
//! ```
//! Page numbers are hostile: only whole pages inside guest memory are touched, and a chain costs work in proportion to
//! its length.

use super::chain::{self, Chain, Piece};
use super::counters::{Counters, add, count};
use super::{Broken, Device, Served, copy_config};
use crate::memory::{self, Memory};
use crate::snapshot::{self, SnapshotError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use virtio_queue::Queue;

const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_REPORTING: u64 = 1 << 5;
const PAGE: u64 = 4096;
const QUEUE_SIZE: u16 = 128;
/// Chains between two passes of the gate.
const BUDGET: usize = 32;
/// Page numbers of one chain: Linux sends 256.
const NUMBERS_MAX: usize = 16 * 1024;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;

/// Pages, as the monitor wants them and as the guest says it has given.
#[derive(Debug, Default)]
pub struct Target {
    /// Wanted.
    pub wanted_pages: AtomicU32,
    /// Given.
    pub actual_pages: AtomicU32,
}

/// The balloon.
pub struct Balloon {
    target: Arc<Target>,
    reporting: bool,
    counters: Arc<Counters>,
}

impl Balloon {
    /// An empty one.
    pub fn new(target: Arc<Target>, reporting: bool, counters: Arc<Counters>) -> Balloon {
        Balloon { target, reporting, counters }
    }

    fn drain(&mut self, number: usize, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        chain::drain(queue, memory, &self.counters, BUDGET, |chain| {
            match number {
                INFLATE => self.inflate(chain, memory)?,
                DEFLATE => {}
                _ => self.report(&chain.writable, memory),
            }
            Ok(0)
        })
    }

    fn inflate(&self, chain: &Chain, memory: &Memory) -> Result<(), Broken> {
        let bytes = chain::length(&chain.readable).min(NUMBERS_MAX as u64 * 4) as usize;
        let mut numbers = vec![0u8; bytes];
        chain::gather(memory, &chain.readable, &mut numbers)?;
        let numbers = numbers.chunks_exact(4).map(|n| u64::from(u32::from_le_bytes([n[0], n[1], n[2], n[3]])));
        let mut run: Option<(u64, u64)> = None;
        for number in numbers {
            run = match run {
                Some((first, end)) if number == end => Some((first, end + 1)),
                // Linux hands pages out from the top.
                Some((first, end)) if number + 1 == first => Some((number, end)),
                other => {
                    self.give(other, memory);
                    Some((number, number + 1))
                }
            };
        }
        self.give(run, memory);
        Ok(())
    }

    fn give(&self, run: Option<(u64, u64)>, memory: &Memory) {
        let Some((first, end)) = run else { return };
        let bytes = (end - first) * PAGE;
        match memory::give_back(memory, first * PAGE, bytes) {
            true => add(&self.counters.bytes_out, bytes),
            false => count(&self.counters.errors),
        }
    }

    /// Whole pages of the pieces; what they hold may be lost.
    fn report(&self, pieces: &[Piece], memory: &Memory) {
        for piece in pieces {
            let start = piece.address.0.next_multiple_of(PAGE);
            let end = (piece.address.0 + u64::from(piece.length)) / PAGE * PAGE;
            if start < end {
                self.give(Some((start / PAGE, end / PAGE)), memory);
            }
        }
    }
}

impl Device for Balloon {
    fn number(&self) -> u32 {
        5
    }

    fn features(&self) -> u64 {
        F_DEFLATE_ON_OOM | if self.reporting { F_REPORTING } else { 0 }
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; if self.reporting { 3 } else { 2 }]
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (wanted, actual) = (&self.target.wanted_pages, &self.target.actual_pages);
        let mut config = [0u8; 8];
        config[..4].copy_from_slice(&wanted.load(Ordering::Relaxed).to_le_bytes());
        config[4..].copy_from_slice(&actual.load(Ordering::Relaxed).to_le_bytes());
        copy_config(&config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (4, Ok(bytes)) = (offset, <[u8; 4]>::try_from(data)) {
            self.target.actual_pages.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {
        self.target.actual_pages.store(0, Ordering::Relaxed);
    }

    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        let pages = [&self.target.wanted_pages, &self.target.actual_pages].map(|p| p.load(Ordering::Relaxed));
        snapshot::encode(&pages)
    }

    fn restore(&mut self, saved: &[u8], _memory: &Memory) -> Result<(), SnapshotError> {
        let [wanted, actual]: [u32; 2] = snapshot::decode(saved)?;
        self.target.wanted_pages.store(wanted, Ordering::Relaxed);
        self.target.actual_pages.store(actual, Ordering::Relaxed);
        Ok(())
    }

    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        self.drain(queue, &mut queues[queue], memory)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::*;
    use super::*;
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};

    fn balloon() -> (Balloon, Arc<Counters>) {
        let counters = Arc::new(Counters::default());
        (Balloon::new(Arc::default(), true, counters.clone()), counters)
    }

    #[test]
    fn inflated_pages_come_back_as_zeroes_and_others_stay() {
        let (memory, mut queue, (mut balloon, counters)) = (memory(), queue(8), balloon());
        memory.write_slice(&[7; 0x4000], GuestAddress(0x2_0000)).unwrap();
        for (n, page) in (0u64..).zip([0x22u32, 0x21, 0x10_0000]) {
            memory.write_obj(page, GuestAddress(0x8000 + n * 4)).unwrap();
        }
        descriptor(&memory, DESCRIPTORS, 0, 0x8000, 12, 0, 0);
        offer(&memory, 8, &[0]);
        balloon.drain(INFLATE, &mut queue, &memory).unwrap();
        let at = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([0x2_0fff, 0x2_1000, 0x2_2fff, 0x2_3000].map(at), [7, 0, 0, 7]);
        let counters = counters.snapshot();
        assert_eq!((counters.bytes_out, counters.errors), (0x2000, 1));
    }

    #[test]
    fn only_whole_pages_of_a_report_go() {
        let (memory, mut queue, (mut balloon, _)) = (memory(), queue(8), balloon());
        memory.write_slice(&[7; 0x4000], GuestAddress(0x2_0000)).unwrap();
        descriptor(&memory, DESCRIPTORS, 0, 0x2_0800, 0x2000, WRITE, 0);
        offer(&memory, 8, &[0]);
        balloon.drain(2, &mut queue, &memory).unwrap();
        let at = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([0x2_0fff, 0x2_1000, 0x2_1fff, 0x2_2000].map(at), [7, 0, 0, 7]);
    }

    proptest! {
        #[test]
        fn any_page_numbers_are_survived(
            numbers in proptest::collection::vec(prop_oneof![any::<u32>(), 0u32..300], 1..64), number in 0usize..3,
        ) {
            let (memory, mut queue, (mut balloon, _)) = (memory(), queue(8), balloon());
            for (n, page) in (0u64..).zip(&numbers) {
                memory.write_obj(*page, GuestAddress(0x8000 + n * 4)).unwrap();
            }
            descriptor(&memory, DESCRIPTORS, 0, 0x8000, numbers.len() as u32 * 4, 0, 0);
            descriptor(&memory, DESCRIPTORS, 1, u64::from(numbers[0]), 0x3000, WRITE, 0);
            offer(&memory, 8, &[0, 1]);
            let _ = balloon.drain(number, &mut queue, &memory);
        }
    }
}
