//! virtio-console: a terminal without an exit for each byte. Output goes into the same log as the serial line's, input
//! comes from the same control socket, for whoever of the two listens.

use super::chain;
use super::counters::{Counters, add};
use super::{Broken, Device, Served};
use crate::device::console::Console;
use crate::gate::lock;
use crate::memory::Memory;
use crate::snapshot::{self, SnapshotError};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

const QUEUE_SIZE: u16 = 64;
/// Chains between two passes of the gate, each way.
const BUDGET: usize = 32;
/// Bytes of one chain that are looked at.
const CHAIN_BYTES_MAX: usize = 64 * 1024;
/// Most input bytes that wait for the guest.
const INPUT_BYTES_MAX: usize = 64 * 1024;

const RECEIVE: usize = 0;

/// What was typed and not yet read.
pub struct Input {
    bytes: Mutex<VecDeque<u8>>,
    /// Becomes readable with the first byte.
    event: EventFd,
    /// A driver listens.
    live: AtomicBool,
}

impl Input {
    /// Nothing yet.
    pub fn new() -> std::io::Result<Input> {
        let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        Ok(Input { bytes: Mutex::default(), event, live: AtomicBool::new(false) })
    }

    /// How many bytes were taken; None when no driver listens.
    pub fn type_in(&self, bytes: &[u8]) -> Option<usize> {
        if !self.live.load(Ordering::Acquire) {
            return None;
        }
        let mut waiting = lock(&self.bytes);
        let taken = bytes.len().min(INPUT_BYTES_MAX - waiting.len());
        waiting.extend(&bytes[..taken]);
        let _ = self.event.write(1);
        Some(taken)
    }
}

/// The terminal.
pub struct Terminal {
    input: Arc<Input>,
    output: Arc<Console>,
    counters: Arc<Counters>,
    /// The guest has no buffers for input.
    starved: bool,
}

impl Terminal {
    /// Between that input and that output.
    pub fn new(input: Arc<Input>, output: Arc<Console>, counters: Arc<Counters>) -> Terminal {
        Terminal { input, output, counters, starved: false }
    }

    fn drain_output(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        chain::drain(queue, memory, &self.counters, BUDGET, |chain| {
            let mut bytes = vec![0; chain::length(&chain.readable).min(CHAIN_BYTES_MAX as u64) as usize];
            chain::gather(memory, &chain.readable, &mut bytes)?;
            add(&self.counters.bytes_out, bytes.len() as u64);
            self.output.put(&bytes);
            Ok(0)
        })
    }

    fn drain_input(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        let mut waiting = lock(&self.input.bytes);
        let _ = self.input.event.read();
        let mut given_back = false;
        self.starved = false;
        while !waiting.is_empty() {
            let Some(next) = chain::pop(queue, memory)? else {
                if chain::ask_notification(queue, memory)? {
                    continue;
                }
                self.starved = true;
                break;
            };
            given_back = true;
            let (head, written) = match next {
                Ok(chain) => {
                    let count = waiting.len().min(chain::length(&chain.writable).min(CHAIN_BYTES_MAX as u64) as usize);
                    let bytes: Vec<u8> = waiting.drain(..count).collect();
                    (chain.head, chain::scatter(memory, &chain.writable, &bytes)? as u32)
                }
                Err(bad) => {
                    super::counters::count(&self.counters.bad_chains);
                    (bad.head, 0)
                }
            };
            add(&self.counters.bytes_in, u64::from(written));
            chain::give_back(queue, memory, head, written)?;
        }
        Ok(Served { interrupt: given_back && chain::wants_interrupt(queue, memory)?, ..Served::default() })
    }
}

impl Device for Terminal {
    fn number(&self) -> u32 {
        3
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, _features: u64) {
        self.starved = false;
        self.input.live.store(true, Ordering::Release);
    }

    fn reset(&mut self) {
        self.input.live.store(false, Ordering::Release);
        lock(&self.input.bytes).clear();
    }

    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        snapshot::encode(&lock(&self.input.bytes).iter().copied().collect::<Vec<u8>>())
    }

    fn restore(&mut self, saved: &[u8], _memory: &Memory) -> Result<(), SnapshotError> {
        let bytes: Vec<u8> = snapshot::decode(saved)?;
        *lock(&self.input.bytes) = bytes.into_iter().take(INPUT_BYTES_MAX).collect();
        Ok(())
    }

    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        match queue {
            RECEIVE => self.drain_input(&mut queues[queue], memory),
            _ => self.drain_output(&mut queues[queue], memory),
        }
    }

    fn host_end(&self) -> Option<RawFd> {
        Some(self.input.event.as_raw_fd())
    }

    fn host_ready(&mut self, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        self.drain_input(&mut queues[RECEIVE], memory)
    }

    fn wants_host(&self) -> bool {
        !self.starved
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::*;
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn bytes_go_both_ways_and_wait_for_buffers() {
        let (memory, input) = (memory(), Arc::new(Input::new().unwrap()));
        let output = Arc::new(Console::new(tempfile::tempfile().unwrap(), 4096).unwrap());
        let mut terminal = Terminal::new(input.clone(), output.clone(), Arc::default());
        assert_eq!(input.type_in(b"x"), None);
        terminal.activate(0);
        let mut queue = queue(8);
        memory.write_slice(b"hello", GuestAddress(0x4000)).unwrap();
        descriptor(&memory, DESCRIPTORS, 0, 0x4000, 5, 0, 0);
        offer(&memory, 8, &[0]);
        assert!(terminal.drain_output(&mut queue, &memory).unwrap().interrupt);
        assert_eq!(output.tail(9).unwrap(), b"hello");
        assert_eq!(input.type_in(b"world"), Some(5));
        terminal.drain_input(&mut queue, &memory).unwrap();
        assert!(!terminal.wants_host());
        descriptor(&memory, DESCRIPTORS, 1, 0x5000, 3, WRITE, 0);
        descriptor(&memory, DESCRIPTORS, 2, 0x5003, 30, WRITE, 0);
        offer(&memory, 8, &[1, 2]);
        terminal.drain_input(&mut queue, &memory).unwrap();
        let mut got = [0; 5];
        memory.read_slice(&mut got, GuestAddress(0x5000)).unwrap();
        assert_eq!(&got, b"world");
        assert_eq!(used(&memory, 8)[1..], [(1, 3), (2, 2)]);
        assert_eq!(input.type_in(&vec![0; 1 << 20]), Some(INPUT_BYTES_MAX));
    }
}
