//! The disk against rings laid out by hand, over each way to its bytes.

use super::super::chain::tests::*;
use super::file::Transfer;
use super::lane::{STATUS_ERROR, STATUS_OK, STATUS_UNSUPPORTED};
use super::*;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;
use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress};

fn disk(read_only: bool) -> (Requests, std::fs::File, Arc<Counters>) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(8 * SECTOR).unwrap();
    file.write_all_at(&[7; 512], 512).unwrap();
    let counters = Arc::new(Counters::default());
    let backing = Box::new(file::RawFile::new(file.try_clone().unwrap()));
    let geometry = Geometry { bytes: 8 * SECTOR + 3, read_only, serial: "serial-1".into(), block_size: 512 };
    (alone(Block::new(vec![backing], &geometry, Arc::default(), counters.clone())), file, counters)
}

/// The only queue of a disk.
fn alone(mut block: Block) -> Requests {
    block.lanes.remove(0)
}

/// Offers header, data and status as a chain; returns (status, used length).
fn ask(
    block: &mut Requests,
    memory: &Memory,
    queue: &mut Queue,
    kind: u32,
    sector: u64,
    data: u32,
    write: bool,
) -> (u8, u32) {
    memory.write_obj(kind, GuestAddress(0x8000)).unwrap();
    memory.write_obj(sector, GuestAddress(0x8008)).unwrap();
    memory.write_obj(0xaau8, GuestAddress(0x8100)).unwrap();
    descriptor(memory, DESCRIPTORS, 0, 0x8000, 16, NEXT, if data == 0 { 2 } else { 1 });
    descriptor(memory, DESCRIPTORS, 1, 0x9000, data, NEXT | if write { 0 } else { WRITE }, 2);
    descriptor(memory, DESCRIPTORS, 2, 0x8100, 1, WRITE, 0);
    offer(memory, 8, &[0]);
    assert!(block.drain(queue, memory).unwrap().interrupt);
    (memory.read_obj(GuestAddress(0x8100)).unwrap(), used(memory, 8).last().unwrap().1)
}

#[test]
fn reads_writes_and_names() {
    let (memory, mut queue) = (memory(), queue(8));
    let (mut block, file, counters) = disk(false);
    assert_eq!(ask(&mut block, &memory, &mut queue, 0, 1, 512, false), (STATUS_OK, 513));
    let mut got = [0u8; 512];
    memory.read_slice(&mut got, GuestAddress(0x9000)).unwrap();
    assert_eq!(got, [7; 512]);
    memory.write_slice(&[9; 1024], GuestAddress(0x9000)).unwrap();
    assert_eq!(ask(&mut block, &memory, &mut queue, 1, 6, 1024, true), (STATUS_OK, 1));
    file.read_exact_at(&mut got, 7 * 512).unwrap();
    assert_eq!(got, [9; 512]);
    assert_eq!(ask(&mut block, &memory, &mut queue, 4, 0, 0, true), (STATUS_OK, 1));
    assert_eq!(ask(&mut block, &memory, &mut queue, 8, 0, 20, false), (STATUS_OK, 21));
    let mut id = [0u8; 8];
    memory.read_slice(&mut id, GuestAddress(0x9000)).unwrap();
    assert_eq!(&id, b"serial-1");
    let c = counters.snapshot();
    assert_eq!((c.requests, c.bytes_in, c.bytes_out, c.errors), (4, 512, 1024, 0));
}

/// Counts flushes, which fail where they are meant to.
struct Flushed(file::RawFile, Arc<AtomicU64>, bool);

impl Backing for Flushed {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<std::io::Result<()>> {
        self.0.run(transfers, memory)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        if self.2 { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) }
    }
    fn zero(&mut self, _offset: u64, _bytes: u64, _discard: bool) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn writes_of_a_driver_that_knows_no_cache_are_durable_when_answered() {
    for (features, fails, flushes, answer) in
        [(1 << abi::VIRTIO_BLK_F_FLUSH, false, 0, STATUS_OK), (0, false, 1, STATUS_OK), (0, true, 1, STATUS_ERROR)]
    {
        let (memory, mut queue, file) = (memory(), queue(8), tempfile::tempfile().unwrap());
        file.set_len(8 * SECTOR).unwrap();
        let seen = Arc::new(AtomicU64::new(0));
        let backing = Box::new(Flushed(file::RawFile::new(file), seen.clone(), fails));
        let geometry = Geometry { bytes: 8 * SECTOR, read_only: false, serial: String::new(), block_size: 512 };
        let mut block = Block::new(vec![backing], &geometry, Arc::default(), Arc::default());
        block.activate(features);
        let mut block = alone(block);
        assert_eq!(ask(&mut block, &memory, &mut queue, 0, 1, 512, false).0, STATUS_OK);
        assert_eq!(seen.load(Ordering::Relaxed), 0, "reads need none");
        assert_eq!(ask(&mut block, &memory, &mut queue, 1, 6, 512, true).0, answer);
        assert_eq!(seen.load(Ordering::Relaxed), flushes);
    }
}

#[test]
fn batches_come_out_the_same_over_ring_and_pool() {
    let stop = crate::machine::Stop::alone().unwrap();
    let threads = crate::sandbox::Threads::free();
    for way in ["file", "ring", "pool"] {
        let (memory, mut queue) = (memory(), queue(256));
        let (_, file, _) = disk(false);
        let raw = file::RawFile::new(file.try_clone().unwrap());
        let backing: Box<dyn Backing> = match way {
            "ring" => match ring::Ring::new(raw) {
                Ok(ring) => Box::new(ring),
                Err(e) => {
                    eprintln!("SKIPPED: no io_uring here: {e}");
                    continue;
                }
            },
            "pool" => Box::new(pool::Pool::new(raw, "test", &threads, &stop).unwrap()),
            _ => Box::new(raw),
        };
        let geometry = Geometry { bytes: 8 * SECTOR, read_only: false, serial: String::new(), block_size: 512 };
        let mut block = alone(Block::new(vec![backing], &geometry, Arc::default(), Arc::default()));
        // Six requests: sectors written, one of them over two pieces, a flush, all read back, one past the end of the
        // file though not of the disk.
        file.set_len(7 * SECTOR).unwrap();
        let put = |n: u16, kind: u32, sector: u64, address: u64, length: u32| {
            let header = 0x8000 + u64::from(n) * 32;
            memory.write_obj(kind, GuestAddress(header)).unwrap();
            memory.write_obj(sector, GuestAddress(header + 8)).unwrap();
            let (table, data) = (n * 4, if kind == 0 { WRITE } else { 0 });
            descriptor(&memory, DESCRIPTORS, table, header, 16, NEXT, if length == 0 { table + 3 } else { table + 1 });
            descriptor(&memory, DESCRIPTORS, table + 1, address, length / 2, NEXT | data, table + 2);
            descriptor(&memory, DESCRIPTORS, table + 2, address + 0x2000, length / 2, NEXT | data, table + 3);
            descriptor(&memory, DESCRIPTORS, table + 3, 0xf000 + u64::from(n), 1, WRITE, 0);
        };
        memory.write_slice(&[1; 512], GuestAddress(0x1_0000)).unwrap();
        memory.write_slice(&[2; 512], GuestAddress(0x1_2000)).unwrap();
        put(0, 1, 0, 0x1_0000, 1024);
        put(1, 1, 4, 0x1_0000, 512);
        put(2, 4, 0, 0, 0);
        put(3, 0, 0, 0x2_0000, 1024);
        put(4, 0, 4, 0x3_0000, 512);
        put(5, 0, 7, 0x4_0000, 512);
        offer(&memory, 256, &[0, 4, 8, 12, 16, 20]);
        block.drain(&mut queue, &memory).unwrap();
        let mut status = [9u8; 6];
        memory.read_slice(&mut status, GuestAddress(0xf000)).unwrap();
        assert_eq!(status, [0, 0, 0, 0, 0, STATUS_ERROR], "{way}");
        let at = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([0x2_01ff, 0x2_2000, 0x3_00ff, 0x3_2000].map(at), [1, 2, 1, 2], "{way}");
        assert_eq!(used(&memory, 256).len(), 6);
    }
}

#[test]
fn a_disk_that_has_grown_says_so_and_takes_more() {
    let (memory, mut queue) = (memory(), queue(8));
    let (_, file, _) = disk(false);
    let geometry = Geometry { bytes: 8 * SECTOR, read_only: false, serial: String::new(), block_size: 512 };
    let raw = Box::new(file::RawFile::new(file.try_clone().unwrap()));
    let mut device = Block::new(vec![raw], &geometry, Arc::default(), Arc::default());
    let length = |device: &Block| {
        let mut sectors = [0; 8];
        device.read_config(0, &mut sectors);
        u64::from_le_bytes(sectors)
    };
    let mut block = device.lanes.remove(0);
    assert_eq!(length(&device), 8);
    assert_eq!(ask(&mut block, &memory, &mut queue, 1, 8, 512, true).0, STATUS_ERROR);
    file.set_len(16 * SECTOR).unwrap();
    device.length().store(16, Ordering::Release);
    assert_eq!((length(&device), ask(&mut block, &memory, &mut queue, 1, 15, 512, true).0), (16, STATUS_OK));
    assert_eq!(ask(&mut block, &memory, &mut queue, 1, 16, 512, true).0, STATUS_ERROR);
}

#[test]
fn a_limit_holds_requests_back() {
    let (memory, mut queue) = (memory(), queue(8));
    let (mut block, _, counters) = disk(false);
    let rate = super::super::limit::Rate { operations_per_s: 1, ..Default::default() };
    Arc::get_mut(&mut block.disk).unwrap().limiter = Shared::new(Arc::new(Setting::new(rate)));
    descriptor(&memory, DESCRIPTORS, 0, 0x8000, 16, NEXT, 1);
    descriptor(&memory, DESCRIPTORS, 1, 0x9000, 513, WRITE, 0);
    offer(&memory, 8, &[0, 0, 0]);
    let served = block.drain(&mut queue, &memory).unwrap();
    assert!(served.interrupt && !served.more && served.later.is_some());
    assert_eq!(counters.snapshot().requests, 1);
}

#[test]
fn ranges_are_zeroed_and_discarded_within_the_disk() {
    let (memory, mut queue) = (memory(), queue(8));
    let (mut block, file, _) = disk(false);
    let mut ask = |kind: u32, sector: u64, count: u32, flags: u32| {
        memory.write_obj(sector, GuestAddress(0x9000)).unwrap();
        memory.write_obj(count, GuestAddress(0x9008)).unwrap();
        memory.write_obj(flags, GuestAddress(0x900c)).unwrap();
        ask(&mut block, &memory, &mut queue, kind, 0, 16, true).0
    };
    file.write_all_at(&[5; 8 * 512], 0).unwrap();
    assert_eq!(ask(11, 1, 2, 0), STATUS_OK);
    assert_eq!(ask(13, 4, 1, 1), STATUS_OK);
    for (kind, sector, count, flags) in [(11, 7, 2, 0), (11, u64::MAX, 2, 0), (13, 0, 0, 0), (13, 0, u32::MAX, 0)] {
        assert_eq!(ask(kind, sector, count, flags), STATUS_ERROR);
    }
    assert_eq!([ask(11, 0, 1, 1), ask(13, 0, 1, 2)], [STATUS_UNSUPPORTED; 2]);
    let mut bytes = vec![0; 8 * 512];
    file.read_exact_at(&mut bytes, 0).unwrap();
    // Discarding may leave the old bytes; what was not named must stay.
    assert_eq!((bytes[4 * 512], bytes[0], bytes[3 * 512], bytes[5 * 512]), (0, 5, 5, 5));
    assert_eq!(file.metadata().unwrap().len(), 8 * SECTOR);
}

#[test]
fn what_lies_outside_or_is_forbidden_is_an_error() {
    let (memory, mut queue) = (memory(), queue(8));
    let (mut block, file, counters) = disk(true);
    let mut ask = |kind, sector, data, write| ask(&mut block, &memory, &mut queue, kind, sector, data, write).0;
    assert_eq!(ask(0, 8, 512, false), STATUS_ERROR);
    assert_eq!(ask(0, u64::MAX, 512, false), STATUS_ERROR);
    assert_eq!(ask(0, 7, 1024, false), STATUS_ERROR);
    assert_eq!(ask(0, 0, 100, false), STATUS_ERROR);
    assert_eq!(ask(1, 0, 512, true), STATUS_ERROR);
    assert_eq!(ask(99, 0, 512, true), STATUS_UNSUPPORTED);
    assert_eq!(counters.snapshot().errors, 6);
    assert_eq!(file.metadata().unwrap().len(), 8 * SECTOR);
}

#[test]
fn chains_without_header_or_status_are_counted() {
    let (memory, mut queue) = (memory(), queue(8));
    let (mut block, _, counters) = disk(false);
    descriptor(&memory, DESCRIPTORS, 0, 0x8000, 15, NEXT, 1);
    descriptor(&memory, DESCRIPTORS, 1, 0x8100, 1, WRITE, 0);
    descriptor(&memory, DESCRIPTORS, 2, 0x8000, 16, 0, 0);
    descriptor(&memory, DESCRIPTORS, 3, 0x8000, 16, NEXT, 3);
    offer(&memory, 8, &[0, 2, 3]);
    block.drain(&mut queue, &memory).unwrap();
    assert_eq!(counters.snapshot().bad_chains, 3);
    assert_eq!(used(&memory, 8), [(0, 0), (2, 0), (3, 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn hostile_requests_never_reach_beyond_the_disk(
        table in proptest::collection::vec((0u64..0x12_0000, prop_oneof![0u32..4096, any::<u32>()], 0u16..8, 0u16..10), 8),
        heads in proptest::collection::vec(0u16..10, 1..8),
        header in (0u32..16, prop_oneof![0u64..10, any::<u64>()]),
        event_idx in any::<bool>(),
    ) {
        let (memory, mut queue) = (memory(), queue(8));
        queue.set_event_idx(event_idx);
        let (mut block, file, _) = disk(false);
        for at in (0..0x10_0000u64).step_by(0x800) {
            if !(DESCRIPTORS..USED + 0x1000).contains(&at) {
                memory.write_obj(header.0, GuestAddress(at)).unwrap();
                memory.write_obj(header.1, GuestAddress(at + 8)).unwrap();
            }
        }
        for (n, (address, length, flags, next)) in (0u16..).zip(&table) {
            descriptor(&memory, DESCRIPTORS, n, address & !0x7ff, *length, *flags, *next);
        }
        offer(&memory, 8, &heads);
        let _ = block.drain(&mut queue, &memory);
        prop_assert_eq!(file.metadata().unwrap().len(), 8 * SECTOR);
    }
}

#[test]
fn a_full_disk_is_an_error_to_the_driver_whatever_the_way_and_reading_goes_on() {
    let stop = crate::machine::Stop::alone().unwrap();
    let threads = crate::sandbox::Threads::free();
    let open = || file::RawFile::new(std::fs::File::options().read(true).write(true).open("/dev/full").unwrap());
    let mut ways: Vec<(&str, Box<dyn Backing>)> = vec![
        ("file", Box::new(open())),
        ("pool", Box::new(pool::Pool::new(open(), "test", &threads, &stop).unwrap())),
        ("shared", Box::new(shared::Shared::new(open()))),
    ];
    match ring::Ring::new(open()) {
        Ok(ring) => ways.push(("ring", Box::new(ring))),
        Err(e) => eprintln!("SKIPPED: no io_uring here: {e}"),
    }
    for (way, backing) in ways {
        let (memory, mut queue, counters) = (memory(), queue(256), Arc::new(Counters::default()));
        let geometry = Geometry { bytes: 8 * SECTOR, read_only: false, serial: String::new(), block_size: 512 };
        let mut block = alone(Block::new(vec![backing], &geometry, Arc::default(), counters.clone()));
        // Several at once, so that none goes the way of one alone; then one.
        for heads in [3u16, 1] {
            for n in 0..heads {
                let header = 0x8000 + u64::from(n) * 32;
                memory.write_obj(1u32, GuestAddress(header)).unwrap();
                memory.write_obj(u64::from(n), GuestAddress(header + 8)).unwrap();
                memory.write_obj(0xaau8, GuestAddress(0xf000 + u64::from(n))).unwrap();
                descriptor(&memory, DESCRIPTORS, n * 3, header, 16, NEXT, n * 3 + 1);
                descriptor(&memory, DESCRIPTORS, n * 3 + 1, 0x1_0000, 512, NEXT, n * 3 + 2);
                descriptor(&memory, DESCRIPTORS, n * 3 + 2, 0xf000 + u64::from(n), 1, WRITE, 0);
            }
            offer(&memory, 256, &(0..heads).map(|n| n * 3).collect::<Vec<_>>());
            assert!(block.drain(&mut queue, &memory).unwrap().interrupt);
            for n in 0..u64::from(heads) {
                assert_eq!(memory.read_obj::<u8>(GuestAddress(0xf000 + n)).unwrap(), STATUS_ERROR, "{way}");
            }
        }
        assert_eq!(counters.snapshot().errors, 4, "{way}");
        assert_eq!(ask(&mut block, &memory, &mut queue, 0, 0, 512, false), (STATUS_OK, 513), "{way}");
    }
}
