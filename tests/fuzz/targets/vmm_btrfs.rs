//! Disks with a btrfs, whose parts are far from each other: a case is pieces, each with its place. Read or refused.
//!
//! A piece is the number of its block of 4096 bytes, its place there, its length (two bytes each, little endian) and its
//! bytes. Blocks get their checksum afterwards, for without it nothing behind them would be reached; those of contents,
//! marked by the highest bit of the place, are left as they are.
#![no_main]
use libfuzzer_sys::fuzz_target;
use pilvi_vmm::boot::disk;
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

const BLOCK: usize = 4096;
const BYTES: u64 = 256 << 20;
const CONTENTS: usize = 1 << 15;

fn checksum(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

fuzz_target!(|data: &[u8]| {
    let mut blocks: BTreeMap<u64, ([u8; BLOCK], bool)> = BTreeMap::new();
    let mut rest = data;
    while let Some((header, after)) = rest.split_first_chunk::<6>() {
        let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let (at, length) = (word(2) % BLOCK, word(4).min(after.len()));
        let (bytes, next) = after.split_at(length);
        let block = blocks.entry(word(0) as u64).or_insert(([0; BLOCK], true));
        let length = length.min(BLOCK - at);
        block.0[at..at + length].copy_from_slice(&bytes[..length]);
        block.1 = word(2) & CONTENTS == 0;
        rest = next;
    }
    let mut image = tempfile::tempfile().unwrap();
    image.set_len(BYTES).unwrap();
    for (number, (mut block, is_sealed)) in blocks {
        if is_sealed {
            let sum = checksum(&block[32..]);
            block[..4].copy_from_slice(&sum.to_le_bytes());
        }
        image.seek(SeekFrom::Start(number * BLOCK as u64)).unwrap();
        image.write_all(&block).unwrap();
    }
    let _ = disk::look(&image, BYTES);
    let _ = disk::find(&image, BYTES);
});
