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

/// A device that another process serves; the test is that process.
struct Elsewhere(Arc<Calls>);

impl crate::virtio::Device for Elsewhere {
    fn number(&self) -> u32 {
        4
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![8; self.0.count()]
    }
    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}
    fn activate(&mut self, _features: u64) {}
    fn reset(&mut self) {}
    fn serve(
        &mut self,
        _queue: usize,
        _queues: &mut [virtio_queue::Queue],
        _memory: &Memory,
    ) -> Result<crate::virtio::Served, crate::virtio::Broken> {
        Ok(Default::default())
    }
    fn is_served_elsewhere(&self) -> bool {
        true
    }
    fn calls(&self) -> Option<Arc<Calls>> {
        Some(self.0.clone())
    }
}

/// A processor whose local APIC takes interrupts, and never runs.
struct Apic(kvm_ioctls::VcpuFd);

impl Apic {
    const REQUESTED: usize = 0x200;

    fn on(vm: &VmFd) -> Apic {
        let apic = Apic(vm.create_vcpu(0).unwrap());
        let mut state = apic.0.get_lapic().unwrap();
        // Spurious vector 0xff, and on.
        state.regs[0xf0] = 0xffu8 as i8;
        state.regs[0xf1] = 1;
        apic.0.set_lapic(&state).unwrap();
        apic
    }

    fn has(&self, vector: usize) -> bool {
        let byte = self.0.get_lapic().unwrap().regs[Apic::REQUESTED + vector / 32 * 16 + vector % 32 / 8];
        byte as u8 & 1 << (vector % 8) != 0
    }

    /// KVM may give it on a thread of its own.
    fn gets(&self, vector: usize) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !self.has(vector) {
            assert!(std::time::Instant::now() < end, "vector {vector:#x} does not come");
            std::thread::yield_now();
        }
    }
}

#[test]
fn interrupts_of_another_process_go_straight_to_the_guest_and_wait_while_they_are_masked() {
    let Ok(kvm) = kvm_ioctls::Kvm::new() else { return eprintln!("SKIPPED: no KVM here") };
    let vm = Arc::new(kvm.create_vm().unwrap());
    vm.create_irq_chip().unwrap();
    let apic = Apic::on(&vm);
    let routes = Arc::<Routes>::default();
    let wake = vmm_sys_util::eventfd::EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let calls = Calls::new(2, &wake).unwrap();
    let part = Part {
        name: "far".into(),
        device: Box::new(Elsewhere(calls.clone())),
        counters: Arc::default(),
        handle: Default::default(),
    };
    let device = Pci::new(part, ring::memory(), 3, Some((vm.clone(), routes.clone()))).unwrap();
    assert_eq!(calls.of_worker(), 0, "the worker need not listen");
    let call = calls.event(0).unwrap();
    let interrupt = || call.write(1).unwrap();
    let control = msix_control(&device);
    bring_up(&device);

    // Without MSI-X a driver asks for the status.
    interrupt();
    assert_eq!([read(&device, ISR, 1), read(&device, ISR, 1)], [1, 0]);

    set_vector(&device, 1, 0x41, 0);
    device.config_write(control, &[0, 0x80]);
    interrupt();
    apic.gets(0x41);
    assert!(call.read().is_err(), "KVM has taken it");
    // Another word, by another route.
    set_vector(&device, 1, 0x42, 0);
    interrupt();
    apic.gets(0x42);
    // Another vector.
    set_vector(&device, 2, 0x43, 0);
    write(&device, 26, &2u16.to_le_bytes());
    interrupt();
    apic.gets(0x43);

    // Masked: it is pending, and comes afterwards; whether somebody has looked or not.
    for (data, look) in [(0x44, true), (0x45, false)] {
        set_vector(&device, 2, data, 1);
        interrupt();
        if look {
            assert_eq!(read(&device, PENDING, 8), 1 << 2);
        }
        assert!(!apic.has(data as usize));
        write(&device, TABLE + 2 * 16 + 12, &0u32.to_le_bytes());
        apic.gets(data as usize);
        assert_eq!(read(&device, PENDING, 8), 0);
    }
    // The whole function.
    set_vector(&device, 2, 0x46, 0);
    device.config_write(control, &[0, 0xc0]);
    interrupt();
    assert!(!apic.has(0x46));
    device.config_write(control, &[0, 0x80]);
    apic.gets(0x46);

    // The chips have kept their pins: line 4 requests at the first PIC.
    vm.set_irq_line(4, true).unwrap();
    let mut chip = kvm_bindings::kvm_irqchip { chip_id: kvm_bindings::KVM_IRQCHIP_PIC_MASTER, ..Default::default() };
    vm.get_irqchip(&mut chip).unwrap();
    // SAFETY: KVM has filled in the PIC that was asked for.
    assert_ne!(unsafe { chip.chip.pic.irr } & 1 << 4, 0);

    // A snapshot in which it waits, taken up by another device.
    set_vector(&device, 2, 0x47, 1);
    device.slot.wake();
    device.vectors.used(0);
    let state = device.save().unwrap();
    device.unplugged();
    interrupt();
    assert!(!apic.has(0x47));
    drop(device);
    assert_eq!(routes.take(), Some(24), "its numbers are free again");
    let part = Part {
        name: "far".into(),
        device: Box::new(Elsewhere(calls.clone())),
        counters: Arc::default(),
        handle: Default::default(),
    };
    call.read().unwrap();
    let device = Pci::new(part, ring::memory(), 3, Some((vm, routes))).unwrap();
    device.restore(&state).unwrap();
    assert!(!apic.has(0x47));
    write(&device, TABLE + 2 * 16 + 12, &0u32.to_le_bytes());
    apic.gets(0x47);
    set_vector(&device, 2, 0x48, 0);
    interrupt();
    apic.gets(0x48);
}

/// Where the word of control of MSI-X lies.
fn msix_control(device: &Pci) -> u16 {
    device.msix_at as u16 + 2
}

/// Address, word and mask of an entry.
fn set_vector(device: &Pci, entry: u64, data: u32, control: u32) {
    write(device, TABLE + entry * 16, &0xfee0_0000u64.to_le_bytes());
    write(device, TABLE + entry * 16 + 8, &[data.to_le_bytes(), control.to_le_bytes()].concat());
}
