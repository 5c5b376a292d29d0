//! virtio-rng: random bytes from the host kernel.

use super::chain;
use super::counters::{Counters, add, count};
use super::{Broken, Device, Served};
use crate::memory::Memory;
use std::sync::Arc;
use virtio_queue::Queue;

/// Bytes per chain: enough for any seed, too little to make the host busy.
const CHAIN_BYTES_MAX: usize = 4096;
/// Chains between two passes of the gate.
const BUDGET: usize = 16;

/// The random number source.
pub struct Rng {
    counters: Arc<Counters>,
}

impl Rng {
    /// A source that counts into `counters`.
    pub fn new(counters: Arc<Counters>) -> Rng {
        Rng { counters }
    }

    /// Serves up to a budget of chains.
    pub fn drain(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        chain::drain(queue, memory, &self.counters, BUDGET, |chain| {
            if chain.writable.is_empty() {
                count(&self.counters.bad_chains);
                return Ok(0);
            }
            let bytes = random(chain::length(&chain.writable).min(CHAIN_BYTES_MAX as u64) as usize);
            add(&self.counters.bytes_in, bytes.len() as u64);
            Ok(chain::scatter(memory, &chain.writable, &bytes)? as u32)
        })
    }
}

/// Up to `count` random bytes; fewer only when the kernel refuses.
fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0u8; count];
    // SAFETY: the pointer and length are of one live buffer.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    bytes.truncate(usize::try_from(got).unwrap_or(0));
    bytes
}

impl Device for Rng {
    fn number(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![64]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _features: u64) {}

    fn reset(&mut self) {}

    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        self.drain(&mut queues[queue], memory)
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::*;
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn it_fills_what_it_is_given_within_bounds() {
        let (memory, mut queue) = (memory(), queue(8));
        let counters = Arc::new(Counters::default());
        let mut rng = Rng::new(counters.clone());
        descriptor(&memory, DESCRIPTORS, 0, 0x4000, 64, WRITE, 0);
        descriptor(&memory, DESCRIPTORS, 1, 0x1_0000, 0x8_0000, WRITE, 0);
        descriptor(&memory, DESCRIPTORS, 2, 0x4000, 64, 0, 0);
        offer(&memory, 8, &[0, 1, 2]);
        assert!(rng.drain(&mut queue, &memory).unwrap().interrupt);
        assert_eq!(used(&memory, 8), [(0, 64), (1, 4096), (2, 0)]);
        let mut got = [0u8; 64];
        memory.read_slice(&mut got, GuestAddress(0x4000)).unwrap();
        assert_ne!(got, [0; 64]);
        assert_eq!(counters.snapshot().bad_chains, 1);
    }
}
