//! Queues side by side, against a model: every order of turns, resets, queues that are taken back and rings that break. Each step
//! is one under the locks, so these are the ways in which threads can meet; and the threads themselves, with a real disk.

use super::super::chain::{self, tests as ring};
use super::super::transport::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, Part};
use super::super::worker::{Share, Worker};
use super::super::{Device, F_EVENT_IDX, F_VERSION_1, copy_config};
use super::*;
use crate::gate::{Gate, Pass};
use crate::virtio::block::file::{Backing, RawFile, Transfer};
use crate::virtio::block::ring::Ring;
use crate::virtio::block::{Block, Geometry};
use crate::virtio::mmio::Mmio;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

const QUEUES: usize = 3;
const SIZE: u16 = 8;

/// Where the rings of a queue lie: table, available, used.
fn rings(queue: usize) -> [u64; 3] {
    [0x1000, 0x2000, 0x3000].map(|at| at + queue as u64 * 0x4000)
}

/// Gives back whatever comes, and counts it.
struct Counting(Arc<AtomicU64>);

impl Lane for Counting {
    fn serve(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken> {
        let mut interrupt = false;
        while let Some(next) = chain::pop(queue, memory)? {
            chain::give_back(queue, memory, next.map_or_else(|bad| bad.head, |chain| chain.head), 0)?;
            self.0.fetch_add(1, Ordering::Relaxed);
            interrupt = true;
        }
        Ok(Served { interrupt, ..Served::default() })
    }
}

struct Several(Vec<Arc<AtomicU64>>);

impl Device for Several {
    fn take_lanes(&mut self) -> Vec<Box<dyn Lane>> {
        self.0.iter().map(|served| Box::new(Counting(served.clone())) as Box<dyn Lane>).collect()
    }
    fn number(&self) -> u32 {
        4
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![SIZE; QUEUES]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&[], offset, data);
    }
    fn activate(&mut self, _features: u64) {}
    fn reset(&mut self) {}
    fn serve(&mut self, _queue: usize, _queues: &mut [Queue], _memory: &Memory) -> Result<Served, Broken> {
        Ok(Served::default())
    }
}

fn slot_of(device: Box<dyn Device>, memory: &Memory) -> Mmio {
    let part = Part { name: "many".into(), device, counters: Arc::default(), handle: Default::default() };
    Mmio::new(part, memory.clone(), EventFd::new(libc::EFD_NONBLOCK).unwrap()).unwrap()
}

fn several(memory: &Memory) -> (Mmio, Vec<Arc<AtomicU64>>) {
    let served: Vec<_> = (0..QUEUES).map(|_| Arc::default()).collect();
    (slot_of(Box::new(Several(served.clone())), memory), served)
}

fn write(slot: &Mmio, offset: u64, value: u32) {
    slot.write(offset, &value.to_le_bytes());
}

fn status(slot: &Mmio) -> u32 {
    let mut data = [0; 4];
    slot.read(0x70, &mut data);
    u32::from_le_bytes(data)
}

/// The driver begins with empty rings, in all queues of the mask.
fn bring_up(slot: &Mmio, memory: &Memory, mask: u64, features: u64) {
    write(slot, 0x70, 0);
    write(slot, 0x70, ACKNOWLEDGE);
    write(slot, 0x70, ACKNOWLEDGE | DRIVER);
    for half in 0..2 {
        write(slot, 0x24, half);
        write(slot, 0x20, ((features | F_VERSION_1) >> (half * 32)) as u32);
    }
    write(slot, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    for queue in (0..QUEUES).filter(|queue| mask & 1 << queue != 0) {
        let at = rings(queue);
        memory.write_slice(&[0; 0x3000], GuestAddress(at[0])).unwrap();
        write(slot, 0x30, queue as u32);
        write(slot, 0x38, SIZE.into());
        for (low, address) in [0x80, 0x90, 0xa0].into_iter().zip(at) {
            write(slot, low, address as u32);
            write(slot, low + 4, 0);
        }
        write(slot, 0x44, 1);
    }
    write(slot, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

fn index(memory: &Memory, ring: u64) -> u16 {
    memory.read_obj(GuestAddress(ring + 2)).unwrap()
}

/// Offers so many chains of a byte.
fn offer(memory: &Memory, queue: usize, count: u16) {
    let [table, available, _] = rings(queue);
    ring::descriptor(memory, table, 0, 0xf000, 1, 0, 0);
    memory.write_obj(index(memory, available).wrapping_add(count), GuestAddress(available + 2)).unwrap();
}

/// What can happen, in the order in which threads get the locks.
#[derive(Debug, Clone)]
enum Step {
    Offer(usize),
    Turn(usize),
    /// An index that jumps: the queue is broken when it is next looked at.
    Jump(usize),
    TakeBack(usize),
    Begin(u64),
    Fail,
    Reset,
    SaveAndRestore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..QUEUES).prop_map(Step::Offer),
        6 => (0..QUEUES).prop_map(Step::Turn),
        1 => (0..QUEUES).prop_map(Step::Jump),
        1 => (0..QUEUES).prop_map(Step::TakeBack),
        2 => (0u64..1 << QUEUES).prop_map(Step::Begin),
        1 => Just(Step::Fail),
        1 => Just(Step::Reset),
        1 => Just(Step::SaveAndRestore),
    ]
}

/// What must be so.
#[derive(Default)]
struct Model {
    live: bool,
    broken: bool,
    ready: [bool; QUEUES],
    waiting: [u64; QUEUES],
    jumped: [bool; QUEUES],
    served: [u64; QUEUES],
}

impl Model {
    fn turn(&mut self, queue: usize) {
        if !self.live || !self.ready[queue] {
            return;
        }
        if self.jumped[queue] {
            (self.live, self.broken) = (false, true);
            return;
        }
        self.served[queue] += std::mem::take(&mut self.waiting[queue]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn queues_side_by_side_do_what_one_after_the_other_would(steps in proptest::collection::vec(step(), 1..120)) {
        let memory = ring::memory();
        let (mut slot, mut served) = several(&memory);
        let mut model = Model::default();
        for step in steps {
            match step {
                // As many as fit, so that only a jump breaks a queue.
                Step::Offer(queue) if model.ready[queue] && model.waiting[queue] < u64::from(SIZE) => {
                    offer(&memory, queue, 1);
                    model.waiting[queue] += 1;
                }
                Step::Offer(_) => {}
                Step::Turn(queue) => {
                    slot.slot.turn(Some(queue));
                    model.turn(queue);
                }
                Step::Jump(queue) if model.ready[queue] => {
                    offer(&memory, queue, SIZE + 1);
                    model.jumped[queue] = true;
                }
                Step::Jump(_) => {}
                Step::TakeBack(queue) => {
                    write(&slot, 0x30, queue as u32);
                    write(&slot, 0x44, 0);
                    model.ready[queue] = false;
                }
                Step::Begin(mask) => {
                    bring_up(&slot, &memory, mask, 0);
                    model = Model { live: true, served: model.served, ..Model::default() };
                    (0..QUEUES).for_each(|queue| model.ready[queue] = mask & 1 << queue != 0);
                }
                Step::Fail => {
                    let before = status(&slot);
                    write(&slot, 0x70, before | 128);
                    model.live = false;
                }
                Step::Reset => {
                    write(&slot, 0x70, 0);
                    model = Model { served: model.served, ..Model::default() };
                }
                Step::SaveAndRestore => {
                    let state = slot.save().unwrap();
                    let (next, counts) = several(&memory);
                    next.restore(&state).unwrap();
                    for (new, old) in counts.iter().zip(&served) {
                        new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                    (slot, served) = (next, counts);
                }
            }
            let counts: Vec<u64> = served.iter().map(|served| served.load(Ordering::Relaxed)).collect();
            prop_assert_eq!(&counts[..], &model.served[..]);
            prop_assert_eq!(status(&slot) & NEEDS_RESET != 0, model.broken);
            prop_assert_eq!(slot.slot.driver_state().0, model.live);
        }
    }
}

#[test]
fn a_queue_that_broke_in_a_former_life_leaves_the_next_alone() {
    let memory = ring::memory();
    let (slot, served) = several(&memory);
    bring_up(&slot, &memory, 7, 0);
    offer(&memory, 1, SIZE + 1);
    // The worker has found it, and is not yet to say so when the driver begins anew.
    let broke = slot.slot.turn_of_lane(1).unwrap_err();
    bring_up(&slot, &memory, 7, 0);
    slot.slot.broke(broke);
    assert_eq!(status(&slot) & NEEDS_RESET, 0);
    offer(&memory, 1, 1);
    assert!(slot.slot.turn(Some(1)).interrupt);
    assert_eq!(served[1].load(Ordering::Relaxed), 1);
    // In its own life it counts, for all queues.
    offer(&memory, 1, SIZE + 1);
    slot.slot.turn(Some(1));
    assert_eq!(status(&slot) & NEEDS_RESET, NEEDS_RESET);
    offer(&memory, 0, 1);
    assert_eq!(slot.slot.turn(Some(0)), Served::default());
    assert_eq!(served[0].load(Ordering::Relaxed), 0);
}

/// A driver of one queue of a disk, with one request at a time: writes a sector that says which it is, reads it back.
struct Driver {
    queue: usize,
    asked: u16,
}

impl Driver {
    fn ask(&mut self, slot: &Mmio, memory: &Memory, kind: u32, sector: u64) -> Option<u8> {
        let [table, available, used] = rings(self.queue);
        let (header, status, data) = (table + 0x800, table + 0x880, table + 0x900);
        memory.write_obj(kind, GuestAddress(header)).unwrap();
        memory.write_obj(sector, GuestAddress(header + 8)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(status)).unwrap();
        let way = if kind == 0 { ring::WRITE } else { 0 };
        ring::descriptor(memory, table, 0, header, 16, ring::NEXT, 1);
        ring::descriptor(memory, table, 1, data, 512, ring::NEXT | way, 2);
        ring::descriptor(memory, table, 2, status, 1, ring::WRITE, 0);
        self.asked = self.asked.wrapping_add(1);
        memory.store(self.asked, GuestAddress(available + 2), Ordering::SeqCst).unwrap();
        write(slot, super::super::mmio::QUEUE_NOTIFY, self.queue as u32);
        let end = Instant::now() + Duration::from_secs(60);
        while memory.load::<u16>(GuestAddress(used + 2), Ordering::SeqCst).unwrap() != self.asked {
            assert!(Instant::now() < end, "queue {} waits in vain", self.queue);
            std::thread::park_timeout(Duration::from_micros(20));
        }
        Some(memory.read_obj(GuestAddress(status)).unwrap())
    }

    fn data(&self) -> GuestAddress {
        GuestAddress(rings(self.queue)[0] + 0x900)
    }
}

#[test]
fn threads_on_one_disk_lose_nothing_while_the_gate_shuts_and_opens() {
    const SECTORS: u64 = 3 * 32;
    let memory = ring::memory();
    let file = tempfile::tempfile().unwrap();
    file.set_len(SECTORS * 512).unwrap();
    let raw = RawFile::new(file.try_clone().unwrap());
    let backing = |_| match Ring::new(raw.clone()) {
        Ok(ring) => Box::new(ring) as Box<dyn Backing>,
        Err(_) => Box::new(raw.clone()),
    };
    let geometry = Geometry { bytes: SECTORS * 512, read_only: false, serial: String::new(), block_size: 512 };
    let rate = Arc::new(crate::virtio::limit::Setting::default());
    let counters = Arc::<crate::virtio::counters::Counters>::default();
    let block = Block::new((0..QUEUES).map(backing).collect(), &geometry, rate.clone(), counters.clone());
    let slot = Arc::new(slot_of(Box::new(block), &memory));
    assert_eq!(slot.slot.lanes(), QUEUES);
    let gate = Arc::new(Gate::new_shut());
    let wakes: Vec<_> = (0..QUEUES).map(|_| EventFd::new(libc::EFD_NONBLOCK).unwrap()).collect();
    let workers: Vec<_> = wakes
        .iter()
        .enumerate()
        .map(|(queue, wake)| {
            let wake = wake.try_clone().unwrap();
            let worker = Worker::new(slot.slot.clone(), Share::Queue(queue), gate.clone(), wake).unwrap();
            std::thread::spawn(move || worker.run())
        })
        .collect();
    let kick = || wakes.iter().for_each(|wake| drop(wake.write(1)));
    let patience = Duration::from_secs(60);
    assert!(gate.wait_for(QUEUES, patience));
    gate.open();
    for features in [0, F_EVENT_IDX] {
        bring_up(&slot, &memory, 7, features);
        std::thread::scope(|scope| {
            let drivers: Vec<_> = (0..QUEUES)
                .map(|queue| {
                    let (slot, memory) = (slot.clone(), memory.clone());
                    scope.spawn(move || {
                        let mut driver = Driver { queue, asked: 0 };
                        for round in 0..200u64 {
                            // Every queue has sectors between those of the others.
                            let sector = round % 32 * 3 + queue as u64;
                            let stamp = [round as u8, queue as u8, 0x5a, 7].repeat(128);
                            memory.write_slice(&stamp, driver.data()).unwrap();
                            assert_eq!(driver.ask(&slot, &memory, 1, sector), Some(0));
                            if round % 16 == 0 {
                                assert_eq!(driver.ask(&slot, &memory, 4, 0), Some(0));
                            }
                            memory.write_slice(&[0; 512], driver.data()).unwrap();
                            assert_eq!(driver.ask(&slot, &memory, 0, sector), Some(0));
                            let mut seen = vec![0; 512];
                            memory.read_slice(&mut seen, driver.data()).unwrap();
                            assert!(seen == stamp, "queue {queue}, round {round}");
                        }
                    })
                })
                .collect();
            let mut shut = 0;
            while drivers.iter().any(|driver| !driver.is_finished()) {
                gate.shut();
                kick();
                assert!(gate.wait_for(QUEUES, patience));
                // Nothing is under way: what is written down now is what there is.
                let before = format!("{:?}", slot.save().unwrap());
                std::thread::park_timeout(Duration::from_millis(1));
                assert_eq!(before, format!("{:?}", slot.save().unwrap()));
                rate.set(crate::virtio::limit::Rate { operations_per_s: shut % 2 * 100_000, ..Default::default() });
                shut += 1;
                gate.open();
                std::thread::park_timeout(Duration::from_millis(2));
            }
            rate.set(Default::default());
        });
    }
    // Two rounds of features; a write, a read and now and then a flush each.
    let counted = counters.snapshot();
    assert_eq!((counted.requests, counted.errors), (2 * QUEUES as u64 * (400 + 13), 0));
    gate.quit();
    kick();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(gate.pass(), Pass::Quit);
}

/// Bytes that do not come until they are let.
struct Slow(RawFile, Arc<Gate>);

impl Backing for Slow {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<std::io::Result<()>> {
        self.1.pass();
        self.0.run(transfers, memory)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> std::io::Result<()> {
        self.0.zero(offset, bytes, discard)
    }
}

#[test]
fn a_slow_queue_holds_up_no_other_nor_the_registers_and_a_reset_waits_for_it() {
    let memory = ring::memory();
    let file = tempfile::tempfile().unwrap();
    file.set_len(3 * 512).unwrap();
    let (raw, slow) = (RawFile::new(file), Arc::new(Gate::new_shut()));
    let backings: Vec<Box<dyn Backing>> =
        vec![Box::new(Slow(raw.clone(), slow.clone())), Box::new(raw.clone()), Box::new(raw)];
    let geometry = Geometry { bytes: 3 * 512, read_only: false, serial: String::new(), block_size: 512 };
    let slot = slot_of(Box::new(Block::new(backings, &geometry, Arc::default(), Arc::default())), &memory);
    bring_up(&slot, &memory, 7, 0);
    let patience = Duration::from_secs(60);
    let used = |queue: usize| index(&memory, rings(queue)[2]);
    let read = |queue: usize| {
        let [table, available, _] = rings(queue);
        memory.write_slice(&[0; 16], GuestAddress(table + 0x800)).unwrap();
        ring::descriptor(&memory, table, 0, table + 0x800, 16, ring::NEXT, 1);
        ring::descriptor(&memory, table, 1, table + 0x900, 512, ring::NEXT | ring::WRITE, 2);
        ring::descriptor(&memory, table, 2, table + 0x880, 1, ring::WRITE, 0);
        memory.write_obj(1u16, GuestAddress(available + 2)).unwrap();
    };
    (0..QUEUES).for_each(read);
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| slot.slot.turn(Some(0)));
        assert!(slow.wait_for(1, patience), "the first queue is at its disk");
        for queue in 1..QUEUES {
            slot.slot.turn(Some(queue));
            assert_eq!(used(queue), 1);
        }
        assert_eq!(status(&slot), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        let reset = scope.spawn(|| write(&slot, 0x70, 0));
        std::thread::park_timeout(Duration::from_millis(20));
        assert!(!reset.is_finished() && !stuck.is_finished(), "what is under way is waited for");
        slow.open();
        assert!(stuck.join().unwrap().interrupt);
        reset.join().unwrap();
    });
    assert_eq!((used(0), status(&slot)), (1, 0));
    // Nothing of the queue is touched afterwards.
    memory.write_obj(2u16, GuestAddress(rings(0)[1] + 2)).unwrap();
    slot.slot.turn(Some(0));
    assert_eq!(used(0), 1);
}
