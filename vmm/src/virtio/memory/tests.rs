//! Requests of drivers, right and hostile.

use super::super::chain::tests::*;
use super::*;
use crate::memory::hot::{Area, start};
use crate::memory::{Backing, Size, map_sized};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

const RAM: u64 = 4 << 20;
const BLOCK: u64 = 2 << 20;

struct Rig {
    memory: Memory,
    device: MemoryDevice,
}

fn rig(requested: u64) -> Rig {
    let memory = map_sized(Size { ram: RAM, hot: 8 * BLOCK }, &Backing::default()).unwrap();
    let area = Area { start: start(RAM), bytes: 8 * BLOCK, block: BLOCK };
    let changed = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let hot = Arc::new(Hot::new(None, memory.clone(), area));
    let wanted = Arc::new(Wanted { requested: AtomicU64::new(requested), hot, changed });
    let mut device = MemoryDevice::new(wanted, None, Arc::default());
    device.activate(F_UNPLUGGED_INACCESSIBLE);
    Rig { memory, device }
}

impl Rig {
    fn at(&self, block: u64) -> u64 {
        self.device.wanted.hot.area().start + block * BLOCK
    }

    /// What is answered: code and state.
    fn ask(&mut self, kind: u16, address: u64, count: u16) -> (u16, u16) {
        let mut request = [0; REQUEST_BYTES];
        request[..2].copy_from_slice(&kind.to_le_bytes());
        request[8..16].copy_from_slice(&address.to_le_bytes());
        request[16..18].copy_from_slice(&count.to_le_bytes());
        let mut queue = queue(8);
        self.memory.write_slice(&request, GuestAddress(0x8000)).unwrap();
        self.memory.write_slice(&[9; 16], GuestAddress(0x9000)).unwrap();
        descriptor(&self.memory, DESCRIPTORS, 0, 0x8000, REQUEST_BYTES as u32, NEXT, 1);
        descriptor(&self.memory, DESCRIPTORS, 1, 0x9000, 16, WRITE, 0);
        self.memory.write_obj(0u16, GuestAddress(AVAILABLE + 2)).unwrap();
        offer(&self.memory, 8, &[0]);
        self.device.drain(&mut queue, &self.memory).unwrap();
        let [code, state] = [0x9000, 0x9008].map(|at| self.memory.read_obj::<u16>(GuestAddress(at)).unwrap());
        (code, state)
    }
}

#[test]
fn blocks_are_plugged_up_to_what_is_requested_and_states_are_told() {
    let mut rig = rig(3 * BLOCK);
    assert_eq!(rig.ask(STATE, rig.at(0), 8), (ACK, 1));
    assert_eq!(rig.ask(PLUG, rig.at(1), 2), (ACK, 0));
    assert_eq!([rig.ask(STATE, rig.at(1), 2), rig.ask(STATE, rig.at(0), 2)], [(ACK, 0), (ACK, 2)]);
    assert_eq!(rig.ask(PLUG, rig.at(4), 2), (NACK, 0));
    assert_eq!(rig.ask(PLUG, rig.at(4), 1), (ACK, 0));
    let mut space = [0; 56];
    rig.device.read_config(0, &mut space);
    let word = |at: usize| u64::from_le_bytes(space[at..at + 8].try_into().unwrap());
    assert_eq!([0, 16, 24, 32, 40, 48].map(word), [BLOCK, rig.at(0), 8 * BLOCK, 8 * BLOCK, 3 * BLOCK, 3 * BLOCK]);
    // Written down, taken up, and nothing of it lost by a reset of the device.
    let saved = rig.device.save().unwrap();
    rig.device.reset();
    let mut other = self::rig(0);
    other.device.restore(&saved, &other.memory).unwrap();
    for device in [&rig.device, &other.device] {
        assert_eq!(device.wanted.hot.plugged_bytes(), 3 * BLOCK);
    }
    assert_eq!(other.device.wanted.requested.load(Ordering::Acquire), 3 * BLOCK);
    assert_eq!(other.ask(UNPLUG, other.at(1), 2), (ACK, 0));
    assert_eq!(other.ask(UNPLUG_ALL, 0, 0), (ACK, 0));
    assert_eq!(other.device.wanted.hot.plugged_bytes(), 0);
    assert!(other.device.wanted.changed.read().is_ok());
}

#[test]
fn what_makes_no_sense_is_an_error_and_changes_nothing() {
    let mut rig = rig(8 * BLOCK);
    assert_eq!(rig.ask(PLUG, rig.at(0), 2), (ACK, 0));
    let (start, last) = (rig.at(0), rig.at(7));
    for (kind, address, count) in [
        (PLUG, start, 1),
        (PLUG, start + BLOCK, 2),
        (PLUG, last, 2),
        (PLUG, last, 0),
        (PLUG, last + 4096, 1),
        (PLUG, 0, 1),
        (PLUG, u64::MAX, u16::MAX),
        (UNPLUG, start + BLOCK, 2),
        (UNPLUG, last, 1),
        (STATE, start, 9),
        (4, start, 1),
    ] {
        assert_eq!(rig.ask(kind, address, count), (ERROR, 0), "{kind} {address:#x} {count}");
    }
    assert_eq!(rig.device.wanted.hot.plugged_bytes(), 2 * BLOCK);
    // One that did not promise to leave the rest alone.
    rig.device.activate(0);
    assert_eq!(rig.ask(PLUG, rig.at(3), 1), (ERROR, 0));
    for saved in [&(BLOCK + 1, vec![0u8; 1]), &(9 * BLOCK, vec![0; 1]), &(BLOCK, vec![0; 2]), &(0, vec![])] {
        let saved = snapshot::encode(saved).unwrap();
        assert!(rig.device.restore(&saved, &rig.memory).is_err());
    }
}

proptest! {
    #[test]
    fn any_requests_are_survived(
        requests in proptest::collection::vec((0u16..6, prop_oneof![0u64..9, any::<u64>()], 0u16..10), 1..40),
        requested in 0u64..9,
    ) {
        let mut rig = rig(requested * BLOCK);
        for (kind, block, count) in requests {
            let address = rig.at(0).wrapping_add(block.wrapping_mul(BLOCK));
            rig.ask(kind, address, count);
            let plugged = rig.device.wanted.hot.plugged_bytes();
            prop_assert!(plugged <= requested * BLOCK);
        }
    }
}

#[test]
fn a_node_is_said_where_there_are_several() {
    let rig = rig(0);
    let device = |node| MemoryDevice::new(rig.device.wanted.clone(), node, Arc::default());
    let said = |device: &MemoryDevice| {
        let mut node = [9; 2];
        device.read_config(8, &mut node);
        (device.features() & F_ACPI_PXM, u16::from_le_bytes(node))
    };
    assert_eq!([None, Some(0), Some(3)].map(|node| said(&device(node))), [(0, 0), (1, 0), (1, 3)]);
}
