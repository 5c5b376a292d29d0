//! A queue against a model of split rings (virtio 1.2, section 2.7): a driver that offers chains, good and bad, as fast and as late as it
//! may, in rings of any size whose indexes run over; a device that takes and gives back in any order. What comes off the ring is what
//! was put on it, in order; what is given back is what the driver finds; and both are woken when, and only when, the standard says so.

use super::tests::*;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

/// Where tables of indirect descriptors lie, one for each head, and what they and the others point to.
const TABLES: u64 = 0x1_0000;
const TABLE_BYTES: u64 = 0x800;
const DATA: u64 = 0x8_0000;
const MEMORY_END: u64 = 1 << 20;

/// What can be wrong with a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The last points to the first.
    Loop,
    /// The last points outside the table.
    Astray,
    /// A piece that ends outside memory, or is nothing.
    Outside,
    Empty,
    /// A readable piece after a writable one.
    Order,
    /// A table in a table, or one that is no number of descriptors.
    Nested,
    Uneven,
}

/// A chain to be: lengths of its readable and its writable pieces; how many are in the ring before those in a table of their own
/// (None: all).
#[derive(Debug, Clone)]
struct Spec {
    readable: Vec<u32>,
    writable: Vec<u32>,
    direct: Option<usize>,
    fault: Option<Fault>,
}

#[derive(Debug, Clone)]
enum Step {
    Offer(Spec),
    /// The device takes so many, and may put the last back.
    Take(usize, bool),
    /// One of those that it has, and how much it wrote.
    GiveBack(usize, u32),
    /// The driver looks at what was given back, and says from which on it wants to hear: so many after what it has seen.
    Look(u16),
    /// The device asks whether the driver wants an interrupt; whether it is to be notified.
    Interrupt,
    Notify,
    /// The driver's flag that it wants no interrupts.
    Flag(bool),
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    let faults = [Fault::Loop, Fault::Astray, Fault::Outside, Fault::Empty, Fault::Order, Fault::Nested, Fault::Uneven];
    prop_oneof![4 => Just(None), 1 => proptest::sample::select(faults.to_vec()).prop_map(Some)]
}

fn spec() -> impl Strategy<Value = Spec> {
    let lengths = || proptest::collection::vec(1u32..600, 0..4);
    let direct = prop_oneof![Just(None), (0usize..3).prop_map(Some)];
    (lengths(), lengths(), direct, fault())
        .prop_map(|(readable, writable, direct, fault)| Spec { readable, writable, direct, fault })
        .prop_filter("a chain has a piece", |spec| !spec.readable.is_empty() || !spec.writable.is_empty())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => spec().prop_map(Step::Offer),
        4 => (1usize..4, any::<bool>()).prop_map(|(count, back)| Step::Take(count, back)),
        5 => (any::<usize>(), 0u32..5000).prop_map(|(which, written)| Step::GiveBack(which, written)),
        2 => (0u16..4).prop_map(Step::Look),
        3 => Just(Step::Interrupt),
        2 => Just(Step::Notify),
        1 => any::<bool>().prop_map(Step::Flag),
    ]
}

/// A descriptor as it is written.
#[derive(Debug, Clone, Copy)]
struct Raw {
    address: u64,
    length: u32,
    flags: u16,
}

/// What the device is to find.
type Expected = Result<(Vec<(u64, u32)>, Vec<(u64, u32)>), ()>;

struct Driver {
    memory: Memory,
    size: u16,
    event_idx: bool,
    /// Running indexes: what was offered, what was seen of what was given back.
    offered: u16,
    seen: u16,
    free: Vec<u16>,
    /// Descriptors of a head that is out.
    out: BTreeMap<u16, Vec<u16>>,
    /// On the ring, not taken.
    waiting: VecDeque<(u16, Expected)>,
    used_event: u16,
    silent: bool,
}

impl Driver {
    /// Indexes begin somewhere; so they run over within a few steps where that is near the end.
    fn new(memory: Memory, size: u16, begin: u16, event_idx: bool) -> Driver {
        for at in [AVAILABLE, USED] {
            memory.write_obj(begin, GuestAddress(at + 2)).unwrap();
        }
        let free = (0..size).rev().collect();
        let (out, waiting) = Default::default();
        let driver = Driver {
            memory,
            size,
            event_idx,
            offered: begin,
            seen: begin,
            free,
            out,
            waiting,
            used_event: begin,
            silent: false,
        };
        driver.write_event(begin);
        driver
    }

    fn write_event(&self, index: u16) {
        self.memory.write_obj(index, GuestAddress(AVAILABLE + 4 + u64::from(self.size) * 2)).unwrap();
    }

    fn avail_event(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 4 + u64::from(self.size) * 8)).unwrap()
    }

    /// Lays a chain out and offers it. Nothing where the ring has no room.
    fn offer(&mut self, spec: &Spec) {
        let (mut at, mut pieces, mut expected) = (DATA, Vec::new(), (Vec::new(), Vec::new()));
        let ways = spec.readable.iter().map(|l| (l, 0)).chain(spec.writable.iter().map(|l| (l, WRITE)));
        for (length, flags) in ways {
            pieces.push(Raw { address: at, length: *length, flags });
            (if flags == 0 { &mut expected.0 } else { &mut expected.1 }).push((at, *length));
            at += 0x400;
        }
        // A fault that needs more than the chain has does not come.
        let last = pieces.len() - 1;
        let mut fault = spec.fault;
        match fault {
            Some(Fault::Outside) => pieces[last].address = MEMORY_END - u64::from(pieces[last].length) + 1,
            Some(Fault::Empty) => pieces[last].length = 0,
            Some(Fault::Order) if pieces[last].flags == WRITE => {
                pieces.push(Raw { address: at, length: 1, flags: 0 });
            }
            Some(Fault::Order) => fault = None,
            _ => {}
        }
        let direct = spec.direct.map_or(pieces.len(), |direct| direct.min(pieces.len()));
        let (ring, table) = pieces.split_at(direct);
        if table.is_empty() && matches!(fault, Some(Fault::Nested | Fault::Uneven)) {
            fault = None;
        }
        let needed = ring.len() + usize::from(!table.is_empty());
        if needed > self.free.len() {
            return;
        }
        let numbers = self.free.split_off(self.free.len() - needed);
        let head = numbers[0];
        let after = |place: usize, default: u16| numbers.get(place + 1).copied().unwrap_or(default);
        for (place, raw) in ring.iter().enumerate() {
            let ends = place + 1 == needed;
            let (next, flags) = match fault {
                Some(Fault::Loop) if ends => (head, raw.flags | NEXT),
                Some(Fault::Astray) if ends => (self.size, raw.flags | NEXT),
                _ if ends => (0, raw.flags),
                _ => (after(place, 0), raw.flags | NEXT),
            };
            descriptor(&self.memory, DESCRIPTORS, numbers[place], raw.address, raw.length, flags, next);
        }
        if !table.is_empty() {
            let (start, count) = (TABLES + u64::from(head) * TABLE_BYTES, table.len() as u16);
            for (place, raw) in (0u16..).zip(table) {
                let ends = place + 1 == count;
                let (next, mut flags) = match fault {
                    Some(Fault::Loop) if ends => (0, raw.flags | NEXT),
                    Some(Fault::Astray) if ends => (count, raw.flags | NEXT),
                    _ if ends => (0, raw.flags),
                    _ => (place + 1, raw.flags | NEXT),
                };
                if ends && fault == Some(Fault::Nested) {
                    flags |= INDIRECT;
                }
                descriptor(&self.memory, start, place, raw.address, raw.length, flags, next);
            }
            let odd = if fault == Some(Fault::Uneven) { 1 } else { 0 };
            let length = u32::from(count) * 16 + odd;
            descriptor(&self.memory, DESCRIPTORS, numbers[needed - 1], start, length, INDIRECT, 0);
        }
        // More descriptors than the queue has entries are too many, wherever they are.
        let bad = fault.is_some() || pieces.len() > usize::from(self.size);
        self.waiting.push_back((head, if bad { Err(()) } else { Ok(expected) }));
        self.out.insert(head, numbers);
        let entry = u64::from(self.offered % self.size);
        self.memory.write_obj(head, GuestAddress(AVAILABLE + 4 + entry * 2)).unwrap();
        self.offered = self.offered.wrapping_add(1);
        self.memory.write_obj(self.offered, GuestAddress(AVAILABLE + 2)).unwrap();
    }

    /// Takes what was given back off the ring.
    fn look(&mut self) -> Vec<(u16, u32)> {
        let (index, mut found): (u16, _) = (self.memory.read_obj(GuestAddress(USED + 2)).unwrap(), Vec::new());
        while self.seen != index {
            let at = USED + 4 + u64::from(self.seen % self.size) * 8;
            let [head, written] = [0, 4].map(|more| self.memory.read_obj::<u32>(GuestAddress(at + more)).unwrap());
            let numbers = self.out.remove(&(head as u16)).expect("a head that is out");
            self.free.extend(numbers);
            self.seen = self.seen.wrapping_add(1);
            found.push((head as u16, written));
        }
        found
    }
}

fn plain(pieces: &[Piece]) -> Vec<(u64, u32)> {
    pieces.iter().map(|piece| (piece.address.0, piece.length)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn a_queue_does_what_a_model_of_split_rings_does(
        bits in 0u32..6,
        begin in prop_oneof![Just(0u16), 65_500u16..=65_535, any::<u16>()],
        event_idx in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let (memory, size) = (memory(), 1u16 << bits);
        let mut queue = queue(size);
        queue.set_event_idx(event_idx);
        queue.set_next_avail(begin);
        queue.set_next_used(begin);
        let mut driver = Driver::new(memory.clone(), size, begin, event_idx);
        // What the device has, what it gave back that the driver has not seen, and where the ring stood when it last asked whether
        // an interrupt is wanted.
        let (mut taken, mut given) = (Vec::new(), Vec::new());
        let (mut used, mut asked) = (begin, begin);
        for step in steps {
            match step {
                Step::Offer(spec) => driver.offer(&spec),
                Step::Take(count, back) => {
                    for turn in 0..count {
                        let waits = !driver.waiting.is_empty();
                        prop_assert_eq!(is_waiting(&queue, &memory).unwrap(), waits);
                        let Some(found) = pop(&mut queue, &memory).unwrap() else {
                            prop_assert!(!waits, "one is left on the ring");
                            break;
                        };
                        let (head, expected) = driver.waiting.pop_front().expect("nothing was offered");
                        match (&found, &expected) {
                            (Ok(chain), Ok((readable, writable))) => {
                                prop_assert_eq!(chain.head, head);
                                prop_assert_eq!(&plain(&chain.readable), readable);
                                prop_assert_eq!(&plain(&chain.writable), writable);
                                let saved = SavedChain::of(chain).chain(&memory);
                                prop_assert_eq!(saved.as_ref(), Some(chain));
                            }
                            (Err(bad), Err(())) => prop_assert_eq!(bad.head, head),
                            (found, expected) => prop_assert!(false, "{found:?} is not {expected:?}"),
                        }
                        if back && turn + 1 == count {
                            put_back(&mut queue);
                            driver.waiting.push_front((head, expected));
                        } else {
                            taken.push(head);
                        }
                    }
                }
                Step::GiveBack(which, written) if !taken.is_empty() => {
                    let head = taken.remove(which % taken.len());
                    give_back(&mut queue, &memory, head, written).unwrap();
                    used = used.wrapping_add(1);
                    given.push((head, written));
                }
                Step::GiveBack(..) => {}
                Step::Look(more) => {
                    prop_assert_eq!(driver.look(), std::mem::take(&mut given));
                    driver.used_event = driver.seen.wrapping_add(more);
                    driver.write_event(driver.used_event);
                }
                Step::Interrupt => {
                    // With event indexes: whether the entry that the driver named is among those since the last question.
                    let mut entries = std::iter::successors(Some(asked), |index| Some(index.wrapping_add(1)));
                    let named = entries.by_ref().take_while(|index| *index != used).any(|index| index == driver.used_event);
                    let wanted = if driver.event_idx { named } else { !driver.silent };
                    prop_assert_eq!(wants_interrupt(&mut queue, &memory).unwrap(), wanted);
                    asked = used;
                }
                Step::Notify => {
                    let more = ask_notification(&mut queue, &memory).unwrap();
                    prop_assert_eq!(more, driver.event_idx && !driver.waiting.is_empty());
                    if driver.event_idx {
                        // The next that is offered is the one to be notified of.
                        let waiting = driver.waiting.len() as u16;
                        prop_assert_eq!(driver.avail_event(), driver.offered.wrapping_sub(waiting));
                    }
                }
                Step::Flag(silent) => {
                    driver.silent = silent;
                    memory.write_obj(u16::from(silent), GuestAddress(AVAILABLE)).unwrap();
                }
            }
        }
        prop_assert_eq!(driver.look(), given);
        prop_assert_eq!(driver.out.len(), taken.len() + driver.waiting.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The ring's size is a power of two up to the largest there is: an index runs over whatever it is.
    #[test]
    fn indexes_run_over_in_rings_of_every_size(bits in 0u32..9, begin in 65_000u16..=65_535, event_idx in any::<bool>()) {
        let (memory, size) = (memory(), 1u16 << bits);
        let mut queue = queue(size);
        queue.set_event_idx(event_idx);
        queue.set_next_avail(begin);
        queue.set_next_used(begin);
        let mut driver = Driver::new(memory.clone(), size, begin, event_idx);
        let spec = Spec { readable: vec![16], writable: Vec::new(), direct: None, fault: None };
        // Until both indexes have gone once past their end, the ring full each time.
        let mut count = 0;
        while count <= 1024 {
            (0..size).for_each(|_| driver.offer(&spec));
            let mut heads = Vec::new();
            while let Some(chain) = pop(&mut queue, &memory).unwrap() {
                heads.push(chain.unwrap().head);
            }
            prop_assert_eq!(heads.len(), usize::from(size));
            heads.iter().rev().for_each(|head| give_back(&mut queue, &memory, *head, 1).unwrap());
            let seen: Vec<u16> = driver.look().into_iter().map(|(head, _)| head).collect();
            prop_assert!(seen.iter().rev().eq(&heads));
            driver.waiting.clear();
            count += usize::from(size);
        }
        prop_assert!(driver.offered < begin);
    }
}
