//! The transport, through its MMIO registers, against a device that does nothing, by good drivers and by bad ones.

use super::super::chain::tests as ring;
use super::*;
use crate::virtio::mmio::{Mmio, QUEUE_NOTIFY};
use proptest::prelude::*;

struct Echo;
impl Device for Echo {
    fn number(&self) -> u32 {
        4
    }
    fn features(&self) -> u64 {
        2
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![8]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        super::super::copy_config(&[1, 2, 3, 4], offset, data);
    }
    fn activate(&mut self, _features: u64) {}
    fn reset(&mut self) {}
    fn serve(&mut self, queue: usize, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        let queue = &mut queues[queue];
        while let Some(chain) = super::super::chain::pop(queue, memory)? {
            let head = chain.map_or_else(|bad| bad.head, |chain| chain.head);
            super::super::chain::give_back(queue, memory, head, 0)?;
        }
        Ok(Served { interrupt: true, ..Served::default() })
    }
}

fn slot() -> Mmio {
    let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let part =
        Part { name: "echo".into(), device: Box::new(Echo), counters: Arc::default(), handle: Handle::default() };
    Mmio::new(part, ring::memory(), line).unwrap()
}

fn read(slot: &Mmio, offset: u64) -> u32 {
    let mut data = [0; 4];
    slot.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(slot: &Mmio, offset: u64, value: u32) {
    slot.write(offset, &value.to_le_bytes());
}

fn bring_up(slot: &Mmio, used: u32) {
    write(slot, 0x70, 0);
    write(slot, 0x70, ACKNOWLEDGE);
    write(slot, 0x70, ACKNOWLEDGE | DRIVER);
    write(slot, 0x24, 1);
    write(slot, 0x20, 1);
    write(slot, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
    write(slot, 0x30, 0);
    write(slot, 0x38, 8);
    for (low, address) in [(0x80, ring::DESCRIPTORS as u32), (0x90, ring::AVAILABLE as u32), (0xa0, used)] {
        write(slot, low, address);
        write(slot, low + 4, 0);
    }
    write(slot, 0x44, 1);
    write(slot, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
}

#[test]
fn the_life_of_a_device() {
    let slot = slot();
    assert_eq!([read(&slot, 0), read(&slot, 4), read(&slot, 8)], [0x7472_6976, 2, 4]);
    assert_eq!(slot.slot.turn(Some(0)), Served::default());
    bring_up(&slot, ring::USED as u32);
    assert_eq!(read(&slot, 0x70), 15);
    assert!(slot.slot.turn(Some(0)).interrupt);
    assert_eq!(read(&slot, 0x60), 1);
    write(&slot, 0x64, 1);
    assert_eq!(read(&slot, 0x60), 0);
    write(&slot, 0x70, 0);
    assert_eq!((read(&slot, 0x70), read(&slot, 0x44)), (0, 0));
}

#[test]
fn rings_outside_memory_and_jumping_indexes_ask_for_a_reset() {
    let slot = slot();
    bring_up(&slot, 0x7fff_0000);
    assert_eq!(read(&slot, 0x70) & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(read(&slot, 0x60), 2);
    assert_eq!(slot.slot.turn(Some(0)), Served::default());
    bring_up(&slot, ring::USED as u32);
    {
        use vm_memory::Bytes;
        let transport = slot.slot.transport();
        transport.memory.write_obj(500u16, vm_memory::GuestAddress(ring::AVAILABLE + 2)).unwrap();
    }
    slot.slot.turn(Some(0));
    assert_eq!(read(&slot, 0x70) & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(slot.slot.counters.snapshot().needs_reset, 2);
}

#[test]
fn unoffered_features_and_legacy_drivers_are_refused() {
    let slot = slot();
    for (low, high) in [(0, 0), (1, 1)] {
        write(&slot, 0x70, 0);
        write(&slot, 0x70, ACKNOWLEDGE | DRIVER);
        write(&slot, 0x24, 0);
        write(&slot, 0x20, low);
        write(&slot, 0x24, 1);
        write(&slot, 0x20, high);
        write(&slot, 0x70, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert_eq!(read(&slot, 0x70) & FEATURES_OK, 0);
    }
}

#[test]
fn odd_accesses_are_counted() {
    let slot = slot();
    slot.write(0x70, &[1]);
    slot.read(0x70, &mut [0; 2]);
    write(&slot, 0x38, 8);
    write(&slot, QUEUE_NOTIFY, 9);
    assert_eq!(slot.slot.counters.snapshot().bad_accesses, 4);
    let mut byte = [9];
    slot.read(0x100 + 2, &mut byte);
    assert_eq!(byte, [3]);
    slot.read(0x100 + 4000, &mut byte);
    assert_eq!(byte, [0]);
}

#[test]
fn a_saved_device_goes_on_in_another_and_nonsense_is_refused() {
    let (first, second) = (slot(), slot());
    bring_up(&first, ring::USED as u32);
    first.slot.turn(Some(0));
    let state = first.save().unwrap();
    second.restore(&state).unwrap();
    assert_eq!((read(&second, 0x70), read(&second, 0x60), read(&second, 0x44)), (15, 1, 1));
    assert!(second.slot.turn(Some(0)).interrupt);
    let text = serde_json::to_value(&state).unwrap();
    for (field, value) in [("number", 9u64), ("features", 1), ("driver_features", 1u64 << 40)] {
        let mut other = text.clone();
        other["transport"][field] = value.into();
        assert!(slot().restore(&serde_json::from_value(other).unwrap()).is_err(), "{field}");
    }
    for (field, value) in [("rings", serde_json::json!([1, 2, 3])), ("size", 3.into()), ("size", 64.into())] {
        let mut other = text.clone();
        other["transport"]["queues"][0][field] = value;
        assert!(slot().restore(&serde_json::from_value(other).unwrap()).is_err(), "{field}");
    }
}

proptest! {
    #[test]
    fn any_register_sequence_is_survived(accesses in proptest::collection::vec(
        (prop_oneof![Just(0x70u64), Just(0x20), Just(0x24), Just(0x30), Just(0x38), Just(0x44), 0u64..0x1000],
         prop_oneof![Just(0u32), Just(1), Just(3), Just(11), Just(15), any::<u32>()], any::<bool>()), 0..200)) {
        let slot = slot();
        for (offset, value, is_write) in accesses {
            if is_write { write(&slot, offset, value) } else { read(&slot, offset); }
            slot.slot.turn(Some(0));
        }
    }
}
