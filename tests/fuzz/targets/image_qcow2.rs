//! qcow2 headers: what is taken names no other file and has a disk no larger than allowed.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_disk::format::qcow2;

const MAX: u64 = 1 << 44;

fuzz_target!(|data: &[u8]| {
    let Some((size, head)) = data.split_first_chunk::<8>() else { return };
    if let Ok(header) = qcow2::read(head, u64::from_le_bytes(*size), MAX) {
        assert!(header.virtual_size <= MAX);
        assert!(head[8..20].iter().all(|byte| *byte == 0), "a backing file");
        assert!(head.get(79).is_none_or(|byte| byte & 4 == 0), "a data file");
    }
});
