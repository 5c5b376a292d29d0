//! What a guest's firmware does at its ports: items and files, requests in memory, resets, its log; and a snapshot of what
//! came of it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::boot::Hardware;
use pilvi_vmm::config::Config;
use pilvi_vmm::firmware::{Firmware, Rom};
use pilvi_vmm::memory::Memory;
use std::cell::OnceCell;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

mod rings;

/// Ports from which on something lies.
const PORTS: [u16; 4] = [0x510, 0x514, 0x518, 0x92];
/// Where requests are written.
const REQUEST: u64 = 0x1000;

thread_local! {
    static ROM: OnceCell<Arc<Rom>> = const { OnceCell::new() };
}

fn firmware(memory: &Memory) -> Firmware {
    let config = br#"{"id": "f", "vcpus": 2, "memory_mib": 16, "firmware": {"path": "f"}, "transport": "pci",
        "control_socket": {"path": "c"}, "console": {"log": {"path": "l"}}}"#;
    let rom = ROM.with(|rom| {
        let read = || {
            let file = tempfile::tempfile().unwrap();
            file.set_len(64 << 10).unwrap();
            Rom::read(file).unwrap()
        };
        rom.get_or_init(read).clone()
    });
    let hardware = Hardware { vcpus: 2, possible: None, slots: 0, pci: true };
    Firmware::new(&Config::parse(config).unwrap(), &hardware, rom, memory).unwrap()
}

fuzz_target!(|data: &[u8]| {
    let memory = rings::memory();
    let guest = firmware(&memory);
    for step in data.chunks_exact(17) {
        let port = PORTS[usize::from(step[0] >> 4 & 3)] + u16::from(step[0] & 3);
        match step[0] >> 6 {
            0 => drop(guest.write(port, &step[1..1 + usize::from(step[1] % 9)])),
            1 => drop(guest.read(port, &mut [0; 8][..usize::from(step[1] % 9)])),
            2 => drop(guest.write(0x510, &step[1..3])),
            _ => {
                // Control, length and address as they come, but small ones more often.
                let mut request = [0; 16];
                request.copy_from_slice(&step[1..]);
                if step[0] & 1 == 0 {
                    request[4..6].fill(0);
                    request[8..13].fill(0);
                }
                let _ = memory.write_slice(&request, GuestAddress(REQUEST));
                guest.write(0x514, &[0; 4]);
                guest.write(0x518, &(REQUEST as u32).to_be_bytes());
            }
        }
    }
    let state = guest.save();
    firmware(&memory).restore(&state);
});
