//! State files: refused or read, never more; a device takes what it read or says what is wrong.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::snapshot::{Snapshot, decode, file};
use pilvi_vmm::virtio::mmio::{Mmio, MmioState};
use pilvi_vmm::virtio::rng::Rng;
use pilvi_vmm::virtio::transport::Part;
use vmm_sys_util::eventfd::EventFd;

mod rings;

fuzz_target!(|data: &[u8]| {
    let _ = file::open::<Snapshot>(data);
    let _ = decode::<Snapshot>(data);
    let _ = serde_json::from_slice::<MmioState>(data).map(restore);
    let _ = decode::<MmioState>(data).map(restore);
});

fn restore(state: MmioState) {
    let device = Box::new(Rng::new(Default::default()));
    let part = Part { name: "rng".into(), device, counters: Default::default(), handle: Default::default() };
    let mmio = Mmio::new(part, rings::memory(), EventFd::new(0).unwrap()).unwrap();
    if mmio.restore(&state).is_ok() {
        mmio.slot.turn(Some(0));
        mmio.slot.reset();
    }
}
