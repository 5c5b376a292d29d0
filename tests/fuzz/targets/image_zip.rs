//! The directory of a zip archive: read, or refused.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_image::plugin::decompress;

fuzz_target!(|data: &[u8]| {
    let _ = decompress::detect(&data);
    let mut file = data.to_vec();
    let _ = decompress::entry(&file.as_slice());
    // An end that says that there is one file, and where.
    let at = u32::from(*data.first().unwrap_or(&0));
    file.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\0\0\0\0");
    file.extend_from_slice(&at.to_le_bytes());
    file.extend_from_slice(&[0, 0]);
    let _ = decompress::entry(&file.as_slice());
});
