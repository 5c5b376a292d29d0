//! Kernels and what stands beside them: loaded or refused.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::{boot, memory};
use std::io::Write;

const HARDWARE: boot::Hardware = boot::Hardware { vcpus: 2, possible: None, slots: 3, pci: true };

fuzz_target!(|data: &[u8]| {
    let memory = memory::map(16 << 20, false).unwrap();
    let mut kernel = tempfile::tempfile().unwrap();
    kernel.write_all(data).unwrap();
    let _ = boot::load(&memory, &mut kernel, None, "a=b", &HARDWARE);
    // The same behind the magic numbers, where the loaders really begin.
    for (at, magic) in [(0, &b"\x7fELF\x02\x01\x01"[..]), (0x202, b"HdrS")] {
        let mut bytes = data.to_vec();
        bytes.resize(bytes.len().max(0x400), 0);
        bytes[at..at + magic.len()].copy_from_slice(magic);
        let mut kernel = tempfile::tempfile().unwrap();
        kernel.write_all(&bytes).unwrap();
        let _ = boot::load(&memory, &mut kernel, None, "a=b", &HARDWARE);
    }
});
