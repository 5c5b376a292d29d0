//! Disks that are to boot by themselves: partitions, file system, entries. Found or refused.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::boot::disk;
use std::io::Write;

const BYTES: u64 = 256 * 1024;

fuzz_target!(|data: &[u8]| {
    let mut image = tempfile::tempfile().unwrap();
    image.write_all(data).unwrap();
    image.set_len(BYTES).unwrap();
    let _ = disk::look(&image, BYTES);
    let _ = disk::find(&image, BYTES);
});
