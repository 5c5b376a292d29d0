//! Registers of both transports: any sequence of reads and writes, with turns of the worker between, and a snapshot of what
//! came of it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::pci::{Function, WINDOW};
use pilvi_vmm::virtio::mmio::Mmio;
use pilvi_vmm::virtio::pci::{BAR, Pci};
use pilvi_vmm::virtio::rng::Rng;
use pilvi_vmm::virtio::transport::Part;
use vmm_sys_util::eventfd::EventFd;

mod rings;

fn part() -> Part {
    let device = Box::new(Rng::new(Default::default()));
    Part { name: "rng".into(), device, counters: Default::default(), handle: Default::default() }
}

fn on_pci(data: &[u8]) {
    let memory = rings::memory();
    let pci = Pci::new(part(), memory.clone(), 1, None).unwrap();
    pci.config_write(4, &[6, 0]);
    for step in data.chunks_exact(6) {
        let offset = u64::from(u16::from_le_bytes([step[0], step[1]]));
        let address = WINDOW + u64::from(BAR) + (offset >> 3);
        match step[0] & 7 {
            0 | 1 => drop(pci.memory_write(address & !3, &step[2..6])),
            2 => drop(pci.memory_write(address, &step[2..2 + usize::from(step[2] & 3)])),
            3 => drop(pci.memory_write(WINDOW + u64::from(BAR) + offset % 56, &step[2..4])),
            4 => drop(pci.memory_read(address, &mut [0; 8])),
            5 => pci.config_write(step[1].into(), &step[2..6]),
            6 => pci.config_read(step[1].into(), &mut [0; 4]),
            _ => drop(pci.slot.turn(Some(usize::from(step[2] & 1)))),
        }
    }
    let state = pci.save().unwrap();
    Pci::new(part(), memory, 1, None).unwrap().restore(&state).unwrap();
}

fn device(memory: pilvi_vmm::memory::Memory) -> Mmio {
    Mmio::new(part(), memory, EventFd::new(0).unwrap()).unwrap()
}

fuzz_target!(|data: &[u8]| {
    let memory = rings::memory();
    let mmio = device(memory.clone());
    for step in data.chunks_exact(6) {
        let offset = u64::from(u16::from_le_bytes([step[0], step[1]]) & 0x1ff);
        match step[0] & 3 {
            0 => mmio.write(offset & !3, &step[2..6]),
            1 => mmio.write(offset, &step[2..2 + usize::from(step[2] & 3)]),
            2 => mmio.read(offset, &mut [0; 4]),
            _ => drop(mmio.slot.turn(Some(usize::from(step[2] & 1)))),
        }
    }
    let state = mmio.save().unwrap();
    device(memory).restore(&state).unwrap();
    on_pci(data);
});
