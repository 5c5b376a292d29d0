//! The rings of a queue whose backend has gone without a word: how far it came, and what the next has to do.
//!
//! ```text
//!   available   a  b  c  d  e │ f            used  a  c  d │        b, e, f are not answered, but the next would
//!               └─ used to here ┘ begin       ─────────────┘        begin at the fourth: d, e, f
//!   available   a  b  c  b  e   f            so its places get what is not answered
//! ```
//! A backend that keeps notes (`inflight`) knows that itself. For others both rings together say it, as far back as they
//! reach: nobody but the backend reads those places any more. Requests are done twice where one was done and not yet
//! answered, which reads and writes can bear.

use crate::memory::Memory;
use std::sync::atomic::Ordering;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Rings begin with flags and index.
const HEAD: u64 = 4;

/// How far a ring is filled: both have their index at the same place.
pub fn used(memory: &Memory, used_ring: u64) -> Option<u16> {
    memory.load(GuestAddress(used_ring.checked_add(2)?), Ordering::Acquire).ok()
}

/// Has the queue go on where the used ring ends; where `arrange` says so, with what was not answered in these places.
pub fn resume(queue: &mut Queue, memory: &Memory, arrange: bool) {
    let Some(used) = used(memory, queue.used_ring()) else { return };
    queue.set_next_avail(used);
    if let Some(heads) = unanswered(queue, memory, used).filter(|_| arrange) {
        for (n, head) in (0u16..).zip(heads) {
            let _ = memory.write_obj(head, available(queue, used.wrapping_add(n)));
        }
    }
}

fn available(queue: &Queue, index: u16) -> GuestAddress {
    GuestAddress(queue.avail_ring() + HEAD + 2 * u64::from(index % queue.size()))
}

/// Heads that are available and not used, in the order in which they came. None: the rings do not say.
fn unanswered(queue: &Queue, memory: &Memory, used: u16) -> Option<Vec<u16>> {
    let size = queue.size();
    let end = queue.avail_idx(memory, Ordering::Acquire).ok()?.0;
    let count = end.wrapping_sub(used);
    let begin = end.wrapping_sub(size);
    if size == 0 || count > size {
        return None;
    }
    let mut open = vec![0i32; usize::from(size)];
    let mut heads = Vec::with_capacity(usize::from(size));
    for n in 0..size {
        let head: u16 = memory.read_obj(available(queue, begin.wrapping_add(n))).ok()?;
        *open.get_mut(usize::from(head))? += 1;
        heads.push(head);
    }
    for n in 0..size - count {
        let index = begin.wrapping_add(n) % size;
        let at = GuestAddress(queue.used_ring() + HEAD + 8 * u64::from(index));
        let head: u32 = memory.read_obj(at).ok()?;
        *open.get_mut(head as usize)? -= 1;
    }
    // The newest of each that is open; more than one at once cannot be.
    let mut found: Vec<u16> = Vec::new();
    for head in heads.into_iter().rev() {
        let open = &mut open[usize::from(head)];
        match *open {
            0 => {}
            1 => {
                *open = 0;
                found.push(head);
            }
            _ => return None,
        }
    }
    found.reverse();
    (found.len() == usize::from(count)).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue of eight with these heads, oldest first, ending at `end`.
    fn rings(memory: &Memory, available: &[u16], used: &[u32], end: u16) -> Queue {
        let mut queue = Queue::new(8).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(0x1000)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(0x2000)).unwrap();
        queue.try_set_desc_table_address(GuestAddress(0x3000)).unwrap();
        let begin = end.wrapping_sub(available.len() as u16);
        for (n, head) in (0u16..).zip(available) {
            memory.write_obj(*head, super::available(&queue, begin.wrapping_add(n))).unwrap();
        }
        for (n, head) in (0u16..).zip(used) {
            let index = u64::from(begin.wrapping_add(n) % 8);
            memory.write_obj(*head, GuestAddress(0x2000 + HEAD + 8 * index)).unwrap();
        }
        memory.write_obj(end, GuestAddress(0x1002)).unwrap();
        memory.write_obj(begin.wrapping_add(used.len() as u16), GuestAddress(0x2002)).unwrap();
        queue
    }

    fn next(queue: &Queue, memory: &Memory, count: u16) -> Vec<u16> {
        let place = |n| available(queue, queue.next_avail().wrapping_add(n));
        (0..count).map(|n| memory.read_obj(place(n)).unwrap()).collect()
    }

    #[test]
    fn what_was_answered_out_of_order_is_not_done_again_and_nothing_is_lost() {
        let memory = crate::memory::map(1 << 20, false).unwrap();
        // Around the end of the index; 1 has come twice and was answered once.
        let mut queue = rings(&memory, &[0, 1, 2, 3, 4, 1, 5, 6], &[0, 2, 1, 4, 6], 3);
        resume(&mut queue, &memory, true);
        assert_eq!((queue.next_avail(), next(&queue, &memory, 3)), (0, vec![3, 1, 5]));
        // In order: everything stays.
        let mut queue = rings(&memory, &[0, 1, 2, 3, 4, 5, 6, 7], &[0, 1, 2, 3, 4], 100);
        resume(&mut queue, &memory, true);
        assert_eq!((queue.next_avail(), next(&queue, &memory, 3)), (97, vec![5, 6, 7]));
        // Just begun: what is older is zeroes on both sides.
        let memory = crate::memory::map(1 << 20, false).unwrap();
        let mut queue = rings(&memory, &[3, 4, 5], &[5], 3);
        resume(&mut queue, &memory, true);
        assert_eq!((queue.next_avail(), next(&queue, &memory, 2)), (1, vec![3, 4]));
    }

    #[test]
    fn rings_that_make_no_sense_stay_as_they_are() {
        let memory = crate::memory::map(1 << 20, false).unwrap();
        for (available, used) in [([9u16; 8], [0u32; 3]), ([1; 8], [1; 3]), ([0, 1, 2, 3, 4, 5, 6, 7], [70_000; 3])] {
            let mut queue = rings(&memory, &available, &used, 50);
            resume(&mut queue, &memory, true);
            assert_eq!((queue.next_avail(), next(&queue, &memory, 5)), (45, available[3..].to_vec()));
        }
        let mut queue = rings(&memory, &[0, 1, 2, 3, 4, 5, 6, 7], &[], 50);
        memory.write_obj(400u16, GuestAddress(0x1002)).unwrap();
        resume(&mut queue, &memory, true);
        assert_eq!(queue.next_avail(), 42);
    }
}
