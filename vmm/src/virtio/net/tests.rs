//! The card against a wire that is two lists.

use super::super::chain::tests::*;
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Mutex;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

#[derive(Default)]
struct Lists {
    incoming: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    full: bool,
}

#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Lists>>);

impl Wire for Pipe {
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize> {
        let next = self.0.lock().unwrap().incoming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        frame[..next.len()].copy_from_slice(&next);
        Ok(next.len())
    }
    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut lists = self.0.lock().unwrap();
        if lists.full {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        lists.sent.push(frame.to_vec());
        Ok(())
    }
    fn descriptor(&self) -> RawFd {
        -1
    }
    fn set_offloads(&mut self, _features: u64) {}
}

fn card() -> (Net, Pipe, Arc<Counters>) {
    let (pipe, counters) = (Pipe::default(), Arc::new(Counters::default()));
    (Net::new(Box::new(pipe.clone()), [2, 0, 0, 0, 0, 1], 1500, Default::default(), counters.clone()), pipe, counters)
}

fn frame(bytes: usize) -> Vec<u8> {
    (0..HEADER + bytes).map(|n| (n % 251) as u8).collect()
}

#[test]
fn a_frame_over_several_pieces_is_sent_whole() {
    let (memory, mut queue, (mut net, pipe, _)) = (memory(), queue(8), card());
    memory.write_slice(&frame(100), GuestAddress(0x8000)).unwrap();
    descriptor(&memory, DESCRIPTORS, 0, 0x8000, 12, NEXT, 1);
    descriptor(&memory, DESCRIPTORS, 1, 0x800c, 100, 0, 0);
    offer(&memory, 8, &[0]);
    assert!(net.drain_transmit(&mut queue, &memory).unwrap().interrupt);
    let sent = pipe.0.lock().unwrap().sent.clone();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][HEADER..], frame(100)[HEADER..]);
    assert_eq!(sent[0][10..12], [0, 0]);
}

#[test]
fn short_long_and_unsendable_frames_are_counted() {
    let (memory, mut queue, (mut net, pipe, counters)) = (memory(), queue(8), card());
    descriptor(&memory, DESCRIPTORS, 0, 0x8000, 20, 0, 0);
    descriptor(&memory, DESCRIPTORS, 1, 0x8000, 70_000, 0, 0);
    descriptor(&memory, DESCRIPTORS, 2, 0x8000, 100, WRITE, 0);
    descriptor(&memory, DESCRIPTORS, 3, 0x8000, 100, 0, 0);
    pipe.0.lock().unwrap().full = true;
    offer(&memory, 8, &[0, 1, 2, 3]);
    net.drain_transmit(&mut queue, &memory).unwrap();
    let c = counters.snapshot();
    assert_eq!((c.bad_chains, c.dropped, c.bytes_out), (3, 1, 0));
    assert_eq!(used(&memory, 8).len(), 4);
}

#[test]
fn a_large_frame_spans_buffers_only_when_they_may_be_merged() {
    let (memory, mut queue, (mut net, pipe, counters)) = (memory(), queue(8), card());
    for n in 0..4u16 {
        descriptor(&memory, DESCRIPTORS, n, 0x8000 + u64::from(n) * 0x1000, 1000, WRITE, 0);
    }
    pipe.0.lock().unwrap().incoming.push_back(frame(2500));
    pipe.0.lock().unwrap().incoming.push_back(frame(2500));
    offer(&memory, 8, &[0, 1, 2, 3]);
    net.drain_receive(&mut queue, &memory).unwrap();
    assert_eq!((counters.snapshot().dropped, used(&memory, 8).len()), (2, 0));

    net.mergeable = true;
    pipe.0.lock().unwrap().incoming.push_back(frame(2500));
    pipe.0.lock().unwrap().incoming.push_back(frame(2500));
    let served = net.drain_receive(&mut queue, &memory).unwrap();
    assert!(served.interrupt && !served.more);
    assert_eq!(used(&memory, 8), [(0, 1000), (1, 1000), (2, 512)]);
    assert_eq!(memory.read_obj::<u16>(GuestAddress(0x800a)).unwrap(), 3);
    // The second frame waits; buffers that come later take it.
    assert!(!net.wants_host());
    offer(&memory, 8, &[0, 1]);
    let mut queues = [queue, super::super::chain::tests::queue(8)];
    net.serve(RECEIVE, &mut queues, &memory).unwrap();
    assert_eq!(used(&memory, 8).len(), 6);
    assert!(net.wants_host());
    assert_eq!(counters.snapshot().bytes_in, 5000);
}

#[test]
fn limits_hold_frames_back_each_way() {
    let (memory, mut queue, (mut net, pipe, counters)) = (memory(), queue(8), card());
    let slow = || Arc::new(Setting::new(super::super::limit::Rate { operations_per_s: 1, ..Default::default() }));
    net.limits = (Limiter::new(slow()), Limiter::new(slow()));
    memory.write_slice(&frame(100), GuestAddress(0x8000)).unwrap();
    descriptor(&memory, DESCRIPTORS, 0, 0x8000, 112, 0, 0);
    offer(&memory, 8, &[0, 0, 0]);
    let served = net.drain_transmit(&mut queue, &memory).unwrap();
    assert!(served.interrupt && served.later.unwrap() > std::time::Duration::from_millis(500));
    assert_eq!(pipe.0.lock().unwrap().sent.len(), 1);
    let mut queue = super::super::chain::tests::queue(8);
    descriptor(&memory, DESCRIPTORS, 0, 0x9000, 2000, WRITE, 0);
    memory.write_slice(&[0; 0x2000], GuestAddress(AVAILABLE)).unwrap();
    offer(&memory, 8, &[0, 0]);
    (0..2).for_each(|_| pipe.0.lock().unwrap().incoming.push_back(frame(60)));
    let served = net.drain_receive(&mut queue, &memory).unwrap();
    assert!(served.later.is_some() && !net.wants_host());
    assert_eq!((used(&memory, 8).len(), counters.snapshot().dropped), (1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn hostile_rings_never_break_the_card(
        table in proptest::collection::vec((0u64..0x12_0000, prop_oneof![0u32..3000, any::<u32>()], 0u16..8, 0u16..10), 8),
        heads in proptest::collection::vec(0u16..10, 1..8),
        mergeable in any::<bool>(), event_idx in any::<bool>(), receive in any::<bool>(),
    ) {
        let (memory, mut queue, (mut net, pipe, counters)) = (memory(), queue(8), card());
        net.mergeable = mergeable;
        queue.set_event_idx(event_idx);
        for (n, (address, length, flags, next)) in (0u16..).zip(&table) {
            descriptor(&memory, DESCRIPTORS, n, *address, *length, *flags, *next);
        }
        offer(&memory, 8, &heads);
        for bytes in [14, 60, 1500, 9000, 65_000] {
            pipe.0.lock().unwrap().incoming.push_back(frame(bytes));
        }
        for _ in 0..3 {
            let _ = if receive { net.drain_receive(&mut queue, &memory) } else { net.drain_transmit(&mut queue, &memory) };
        }
        let c = counters.snapshot();
        prop_assert!(c.requests + c.bad_chains <= 40);
        for sent in &pipe.0.lock().unwrap().sent {
            prop_assert!((FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&sent.len()));
        }
    }
}
