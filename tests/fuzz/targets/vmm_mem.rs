//! What lets a machine change its size: requests to the memory device, and registers of the processors' hot-plug controller.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::device::processors::{BYTES, FIRST, Processors};
use pilvi_vmm::memory::hot::{Area, Hot, start};
use pilvi_vmm::memory::{Backing, Size, map_sized};
use pilvi_vmm::virtio::memory::{MemoryDevice, Wanted};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vmm_sys_util::eventfd::EventFd;

mod rings;

const RAM: u64 = 1 << 20;
const BLOCK: u64 = 2 << 20;
const BLOCKS: u64 = 20;

/// EFD_NONBLOCK.
const NONBLOCK: i32 = 0o4000;

fn event() -> EventFd {
    EventFd::new(NONBLOCK).unwrap()
}

fn memory(requested: u8, data: &[u8]) {
    let memory = map_sized(Size { ram: RAM, hot: BLOCK * BLOCKS }, &Backing::default()).unwrap();
    let area = Area { start: start(RAM), bytes: BLOCK * BLOCKS, block: BLOCK };
    let hot = Arc::new(Hot::new(None, memory, area));
    let requested = BLOCK * (u64::from(requested) % (BLOCKS + 1));
    let wanted = Arc::new(Wanted { requested: AtomicU64::new(requested), hot: hot.clone(), changed: event() });
    rings::drive(&mut MemoryDevice::new(wanted.clone(), None, Default::default()), data);
    // A state that was made up may have plugged more than was ever asked for, and says what was; but no more than there is.
    assert!(wanted.requested.load(Ordering::Relaxed) <= area.bytes && hot.plugged_bytes() <= area.bytes);
    assert!(hot.unplug_all() && hot.plugged_bytes() == 0 && hot.is_empty(area.start, area.bytes));
}

fn processors(possible: u8, data: &[u8]) {
    let possible = u16::from(possible).clamp(1, 254);
    let mut processors = Processors::new(possible.div_ceil(2), possible, event());
    for step in data.chunks_exact(6) {
        let (port, bytes) = (FIRST + u16::from(step[0] & 0xf) % BYTES, usize::from(step[1] & 7).min(4));
        match step[0] >> 4 {
            0..=8 => processors.write(port, &step[2..2 + bytes]),
            9..=12 => processors.read(port, &mut [0; 4][..bytes]),
            13 => processors.came(step[2].into()),
            14 => processors.keep(step[2].into()),
            _ => assert!(processors.restore(processors.save())),
        }
        assert!(processors.presence().has(0) && processors.presence().count() <= possible);
        assert_eq!(processors.absent().count(), usize::from(possible - processors.presence().count()));
    }
}

fuzz_target!(|data: &[u8]| {
    let [which, size, data @ ..] = data else { return };
    match which & 1 {
        0 => memory(*size, data),
        _ => processors(*size, data),
    }
});
