//! The PCI transport, driven as a driver would, and at random.

use super::super::chain::tests as ring;
use super::super::rng::Rng;
use super::*;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

fn device() -> Pci {
    let part = Part {
        name: "rng".into(),
        device: Box::new(Rng::new(Arc::default())),
        counters: Arc::default(),
        handle: Default::default(),
    };
    Pci::new(part, ring::memory(), 3, None).unwrap()
}

const BASE: u64 = WINDOW + 3 * BAR as u64;

fn write(device: &Pci, offset: u64, data: &[u8]) {
    assert!(device.memory_write(BASE + offset, data));
}

fn read(device: &Pci, offset: u64, bytes: usize) -> u64 {
    let mut data = [0; 8];
    assert!(device.memory_read(BASE + offset, &mut data[..bytes]));
    u64::from_le_bytes(data)
}

fn bring_up(device: &Pci) {
    device.config_write(4, &[6, 0]);
    for status in [0, 1, 3] {
        write(device, 20, &[status]);
    }
    write(device, 8, &1u32.to_le_bytes());
    write(device, 12, &1u32.to_le_bytes());
    write(device, 20, &[11]);
    write(device, 24, &8u16.to_le_bytes());
    for (offset, address) in [(32, ring::DESCRIPTORS), (40, ring::AVAILABLE), (48, ring::USED)] {
        write(device, offset, &address.to_le_bytes());
    }
    write(device, 16, &0u16.to_le_bytes());
    write(device, 26, &1u16.to_le_bytes());
    write(device, 28, &1u16.to_le_bytes());
    write(device, 20, &[15]);
}

#[test]
fn a_driver_finds_it_uses_it_and_is_interrupted() {
    let device = device();
    let mut id = [0; 4];
    device.config_read(0, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x1044_1af4);
    assert!(!device.memory_read(BASE, &mut id));
    bring_up(&device);
    assert_eq!((read(&device, 20, 1), read(&device, 26, 2), read(&device, 32, 4)), (15, 1, ring::DESCRIPTORS));
    // MSI-X on, vector 1 masked as after power-on: the interrupt waits.
    device.config_write(device.msix_at as u16 + 2, &[0, 0x80]);
    let memory = device.slot.transport().memory.clone();
    ring::descriptor(&memory, ring::DESCRIPTORS, 0, 0x8000, 32, ring::WRITE, 0);
    ring::offer(&memory, 8, &[0]);
    write(&device, NOTIFY, &[0, 0]);
    assert!(device.slot.turn(Some(0)).interrupt);
    assert_eq!((read(&device, PENDING, 8), read(&device, ISR, 1), read(&device, ISR, 1)), (2, 1, 0));
    write(&device, TABLE + 16 + 12, &0u32.to_le_bytes());
    assert_eq!(read(&device, PENDING, 8), 0);
    // A vector that is not there.
    write(&device, 26, &9u16.to_le_bytes());
    assert_eq!(read(&device, 26, 2), u64::from(NONE));
}

#[test]
fn it_moves_with_its_bar_and_into_another_process() {
    let first = device();
    bring_up(&first);
    let far = WINDOW + 0x40_0000;
    first.config_write(0x10, &(far as u32).to_le_bytes());
    assert!(!first.memory_read(BASE, &mut [0]) && first.memory_read(far + 20, &mut [0]));
    let second = device();
    second.restore(&first.save().unwrap()).unwrap();
    let mut status = [0];
    assert!(second.memory_read(far + 20, &mut status));
    assert_eq!(status, [15]);
    let mut other = first.save().unwrap();
    other.number = 4;
    assert!(device().restore(&other).is_err());
}

proptest! {
    #[test]
    fn any_accesses_are_survived(steps in proptest::collection::vec(
        (0u64..0x6000, proptest::collection::vec(any::<u8>(), 1..9), 0u8..5), 0..150)) {
        let device = device();
        device.config_write(4, &[6, 0]);
        for (offset, mut data, what) in steps {
            match what {
                0 => drop(device.memory_write(BASE + offset, &data)),
                1 => drop(device.memory_write(BASE + offset % 56, &data)),
                2 => drop(device.memory_read(BASE + offset, &mut data)),
                3 => device.config_write(offset as u16 & 0xff, &data),
                _ => drop(device.slot.turn(Some(0))),
            }
        }
        let state = device.save().unwrap();
        self::device().restore(&state).unwrap();
        let memory = device.slot.transport().memory.clone();
        let _: u8 = memory.read_obj(GuestAddress(0)).unwrap();
    }
}
