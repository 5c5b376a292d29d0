//! Registers: any sequence of reads and writes, with turns of the worker between, and a snapshot of what came of it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::virtio::mmio::Mmio;
use pilvi_vmm::virtio::rng::Rng;
use pilvi_vmm::virtio::transport::Part;
use vmm_sys_util::eventfd::EventFd;

mod rings;

fn device(memory: pilvi_vmm::memory::Memory) -> Mmio {
    let device = Box::new(Rng::new(Default::default()));
    let part = Part { name: "rng".into(), device, counters: Default::default(), handle: Default::default() };
    Mmio::new(part, memory, EventFd::new(0).unwrap()).unwrap()
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
});
