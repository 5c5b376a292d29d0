//! Chunks: which part of the device a stretch of the file system's own addresses is.

use super::super::tree::nonsense;
use super::nodes::{KEY, Key};
use super::{part, u16_at, u64_at};
use std::collections::BTreeMap;
use std::io;

/// Chunks have a gigabyte on large disks: this is 64 TiB.
const MOST: usize = 1 << 16;
pub(super) const CHUNK: u8 = 228;
/// All chunks are of this object.
pub(super) const OBJECT: u64 = 256;
const STRIPE: usize = 32;
const STRIPES: usize = 48;
/// What a chunk is for, and that it is kept twice on the same device. Any other bit is a profile of several devices.
const USES: u64 = 7;
const TWICE: u64 = 0x20;

#[derive(Debug)]
struct Chunk {
    bytes: u64,
    /// Its first byte on the device, once or twice.
    places: Vec<u64>,
}

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct Chunks(BTreeMap<u64, Chunk>);

impl Chunks {
    /// Those of the superblock: key after key, each with its chunk.
    pub(super) fn system(array: &[u8], device: u64) -> io::Result<Chunks> {
        let (mut chunks, mut at) = (Chunks::default(), 0);
        while at < array.len() {
            let key = Key::read(array, at)?;
            let length = STRIPES + STRIPE * usize::from(u16_at(array, at + KEY + 44)?);
            if key.kind != CHUNK {
                return Err(nonsense("no chunk among the superblock's"));
            }
            chunks.add(key.offset, part(array, at + KEY, length)?, device)?;
            at += KEY + length;
        }
        Ok(chunks)
    }

    pub(super) fn add(&mut self, start: u64, item: &[u8], device: u64) -> io::Result<()> {
        let (bytes, profile, count) = (u64_at(item, 0)?, u64_at(item, 24)?, usize::from(u16_at(item, 44)?));
        if profile & !(USES | TWICE) != 0 {
            return Err(nonsense("a btrfs with a profile of several devices (RAID)"));
        }
        let wanted = if profile & TWICE == 0 { 1 } else { 2 };
        if count != wanted || bytes == 0 || start.checked_add(bytes).is_none() || self.0.len() >= MOST {
            return Err(nonsense("a chunk that makes no sense"));
        }
        let mut places = Vec::with_capacity(count);
        for n in 0..count {
            if u64_at(item, STRIPES + n * STRIPE)? != device {
                return Err(nonsense("a chunk on another device"));
            }
            places.push(u64_at(item, STRIPES + n * STRIPE + 8)?);
        }
        self.0.insert(start, Chunk { bytes, places });
        Ok(())
    }

    /// Where an address is on the device, in its first or second copy, and how many bytes are there together.
    pub(super) fn place(&self, address: u64, copy: usize) -> io::Result<(u64, u64)> {
        let lost = || nonsense("an address in no chunk");
        let (start, chunk) = self.0.range(..=address).next_back().ok_or_else(lost)?;
        let within = address - start;
        let left = chunk.bytes.checked_sub(within).filter(|left| *left > 0).ok_or_else(lost)?;
        let place = chunk.places.get(copy).and_then(|place| place.checked_add(within)).ok_or_else(lost)?;
        Ok((place, left))
    }
}
