//! Rings laid out by hand, good ones and bad ones. Other devices' tests build on the same helpers.

use super::*;
use proptest::prelude::*;

pub const DESCRIPTORS: u64 = 0x1000;
pub const AVAILABLE: u64 = 0x2000;
pub const USED: u64 = 0x3000;

pub fn memory() -> Memory {
    crate::memory::map(1 << 20, false).unwrap()
}

pub fn queue(size: u16) -> Queue {
    let mut queue = Queue::new(256).unwrap();
    queue.set_size(size);
    queue.set_desc_table_address(Some(DESCRIPTORS as u32), Some(0));
    queue.set_avail_ring_address(Some(AVAILABLE as u32), Some(0));
    queue.set_used_ring_address(Some(USED as u32), Some(0));
    queue.set_ready(true);
    queue
}

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub fn descriptor(memory: &Memory, table: u64, n: u16, address: u64, length: u32, flags: u16, next: u16) {
    let at = table + u64::from(n) * 16;
    memory.write_obj(address, GuestAddress(at)).unwrap();
    memory.write_obj(length, GuestAddress(at + 8)).unwrap();
    memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
    memory.write_obj(next, GuestAddress(at + 14)).unwrap();
}

/// Offers chain heads.
pub fn offer(memory: &Memory, size: u16, heads: &[u16]) {
    let index: u16 = memory.read_obj(GuestAddress(AVAILABLE + 2)).unwrap();
    for (n, head) in (0u16..).zip(heads) {
        let entry = u64::from(index.wrapping_add(n) % size);
        memory.write_obj(*head, GuestAddress(AVAILABLE + 4 + entry * 2)).unwrap();
    }
    memory.write_obj(index.wrapping_add(heads.len() as u16), GuestAddress(AVAILABLE + 2)).unwrap();
}

/// (index, [(head, length)]) of the used ring.
pub fn used(memory: &Memory, size: u16) -> Vec<(u32, u32)> {
    let index: u16 = memory.read_obj(GuestAddress(USED + 2)).unwrap();
    let entry = |n: u16| {
        let at = USED + 4 + u64::from(n % size) * 8;
        (memory.read_obj(GuestAddress(at)).unwrap(), memory.read_obj(GuestAddress(at + 4)).unwrap())
    };
    (0..index).map(entry).collect()
}

fn one(memory: &Memory, queue: &mut Queue) -> Result<Chain, BadChain> {
    pop(queue, memory).unwrap().unwrap()
}

#[test]
fn a_good_chain_comes_apart_into_its_pieces() {
    let (memory, mut queue) = (memory(), queue(8));
    descriptor(&memory, DESCRIPTORS, 3, 0x4000, 16, NEXT, 1);
    descriptor(&memory, DESCRIPTORS, 1, 0x5000, 512, NEXT | WRITE, 7);
    descriptor(&memory, DESCRIPTORS, 7, 0x6000, 1, WRITE, 0);
    offer(&memory, 8, &[3]);
    let chain = one(&memory, &mut queue).unwrap();
    assert_eq!((chain.head, length(&chain.readable), length(&chain.writable)), (3, 16, 513));
    assert_eq!(after(&chain.writable, 512), vec![Piece { address: GuestAddress(0x6000), length: 1 }]);
    assert_eq!(pop(&mut queue, &memory).unwrap(), None);
}

#[test]
fn a_quiet_queue_shows_what_comes_and_notifies_once_it_is_asked_to() {
    let (memory, mut queue) = (memory(), queue(8));
    assert!(!is_quiet(&queue), "without event indexes drivers notify unasked");
    queue.set_event_idx(true);
    assert!(is_quiet(&queue));
    let event = || memory.read_obj::<u16>(GuestAddress(USED + 4 + 8 * 8)).unwrap();
    descriptor(&memory, DESCRIPTORS, 0, 0x4000, 16, 0, 0);
    offer(&memory, 8, &[0]);
    assert!(is_waiting(&queue, &memory).unwrap());
    one(&memory, &mut queue).unwrap();
    assert!(!is_waiting(&queue, &memory).unwrap());
    assert_eq!(event(), 0, "nobody has asked");
    assert!(!ask_notification(&mut queue, &memory).unwrap());
    assert_eq!(event(), 1);
    offer(&memory, 8, &[0]);
    assert!(ask_notification(&mut queue, &memory).unwrap(), "it came before it was asked for");
    queue.set_ready(false);
    assert!(!is_quiet(&queue) && !is_waiting(&queue, &memory).unwrap());
}

#[test]
fn rule_breakers_are_refused() {
    let (memory, mut queue) = (memory(), queue(8));
    // A loop, an index outside, memory outside, order, nested indirection, an empty piece.
    descriptor(&memory, DESCRIPTORS, 0, 0x4000, 16, NEXT, 0);
    descriptor(&memory, DESCRIPTORS, 1, 0x4000, 16, NEXT, 99);
    descriptor(&memory, DESCRIPTORS, 2, (1 << 20) - 8, 16, 0, 0);
    descriptor(&memory, DESCRIPTORS, 3, 0x4000, 16, WRITE | NEXT, 4);
    descriptor(&memory, DESCRIPTORS, 4, 0x4000, 16, 0, 0);
    descriptor(&memory, DESCRIPTORS, 5, 0x8000, 32, INDIRECT, 0);
    descriptor(&memory, 0x8000, 0, 0x8000, 32, INDIRECT, 0);
    descriptor(&memory, DESCRIPTORS, 6, 0x4000, 0, 0, 0);
    offer(&memory, 8, &[0, 1, 2, 3, 5, 6, 200]);
    for _ in 0..7 {
        one(&memory, &mut queue).unwrap_err();
    }
}

#[test]
fn a_jumping_index_breaks_the_queue() {
    let (memory, mut queue) = (memory(), queue(8));
    memory.write_obj(9u16, GuestAddress(AVAILABLE + 2)).unwrap();
    assert!(pop(&mut queue, &memory).is_err());
}

proptest! {
    #[test]
    fn any_memory_is_survived(
        words in proptest::collection::vec(any::<u64>(), 3 * 512),
        index in 0u16..20,
        size_bits in 0u32..9,
    ) {
        let (memory, mut queue) = (memory(), queue(1 << size_bits));
        for (n, word) in (0u64..).zip(&words) {
            memory.write_obj(*word, GuestAddress(DESCRIPTORS + n * 8)).unwrap();
        }
        memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
        let mut turns = 0;
        while let Ok(Some(chain)) = pop(&mut queue, &memory) {
            turns += 1;
            prop_assert!(turns <= 256);
            let head = match chain {
                Ok(chain) => {
                    for piece in chain.readable.iter().chain(&chain.writable) {
                        prop_assert!(piece.address.0 + u64::from(piece.length) <= 1 << 20);
                    }
                    chain.head
                }
                Err(bad) => bad.head,
            };
            give_back(&mut queue, &memory, head, 0).unwrap();
        }
    }

    /// Plausible chains: small indexes and addresses, so that most pass the first checks.
    #[test]
    fn plausible_chains_are_walked_within_bounds(
        table in proptest::collection::vec((0u64..0x12_0000, 0u32..0x2000, 0u16..8, 0u16..10), 8),
        heads in proptest::collection::vec(0u16..10, 1..8),
    ) {
        let (memory, mut queue) = (memory(), queue(8));
        for (n, (address, length, flags, next)) in (0u16..).zip(&table) {
            descriptor(&memory, DESCRIPTORS, n, *address, *length, *flags, *next);
        }
        offer(&memory, 8, &heads);
        for _ in 0..heads.len() {
            match pop(&mut queue, &memory).unwrap().unwrap() {
                Ok(chain) => prop_assert!(chain.readable.len() + chain.writable.len() <= 8),
                Err(bad) => prop_assert!(heads.contains(&bad.head)),
            }
        }
        prop_assert_eq!(pop(&mut queue, &memory).unwrap(), None);
    }
}
