//! The superblock: where the trees begin, and whether all of it is what we read.
//!
//! It has copies further on. They count only when the first one is a btrfs's and broken: what was overwritten by another
//! file system may have a sound copy left.

use super::super::Window;
use super::super::tree::nonsense;
use super::{checksum, part, u16_at, u32_at, u64_at};
use std::io;

const PLACE: u64 = 64 << 10;
const COPIES: [u64; 2] = [64 << 20, 256 << 30];
const BYTES: usize = 4096;
const MAGIC: &[u8] = b"_BHRfS_M";
/// A checksum's room, before what it is over.
pub(super) const CHECKSUM: usize = 32;
const CRC32C: u16 = 0;

/// Features that change nothing of what is read here: other references, mixed groups, packed contents, large nodes, no
/// holes, an identity of the metadata, quotas. Not among them: zones, a second kind of extent tree, a tree of stripes.
const FEATURES: u64 = 0x1_0fff;

/// What is needed of it.
#[derive(Debug)]
pub(super) struct Superblock {
    pub root: u64,
    pub root_level: u8,
    pub chunks: u64,
    pub chunks_level: u8,
    pub sector: usize,
    pub node: usize,
    /// The number of this device.
    pub device: u64,
    /// Chunks that the tree of chunks lies in.
    pub system: Vec<u8>,
}

/// Whether there is a btrfs, sound or not.
pub(super) fn is_there(window: &Window) -> bool {
    let mut magic = [0; MAGIC.len()];
    window.read_at(PLACE + 64, &mut magic).is_ok() && magic == *MAGIC
}

impl Superblock {
    /// The first one, or the newest of its copies.
    pub(super) fn load(window: &Window) -> io::Result<Superblock> {
        if !is_there(window) {
            return Err(nonsense("no btrfs"));
        }
        let first = sound(window, PLACE);
        let copies = || COPIES.iter().filter_map(|place| sound(window, *place).ok());
        let bytes = first.or_else(|e| copies().max_by_key(|bytes| u64_at(bytes, 72).unwrap_or(0)).ok_or(e))?;
        Superblock::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> io::Result<Superblock> {
        if u64_at(bytes, 136)? != 1 {
            return Err(nonsense("a btrfs over several devices"));
        }
        if u64_at(bytes, 188)? & !FEATURES != 0 {
            return Err(nonsense("a btrfs with features that are not read"));
        }
        let (sector, node) = (u32_at(bytes, 144)?, u32_at(bytes, 148)?);
        let size = |size: u32| size.is_power_of_two() && (4096..=65_536).contains(&size);
        if !size(sector) || !size(node) || node < sector {
            return Err(nonsense("a btrfs of another kind"));
        }
        let system = part(bytes, 811, (u32_at(bytes, 160)? as usize).min(2048))?.to_vec();
        Ok(Superblock {
            root: u64_at(bytes, 80)?,
            root_level: bytes[198],
            chunks: u64_at(bytes, 88)?,
            chunks_level: bytes[199],
            sector: sector as usize,
            node: node as usize,
            device: u64_at(bytes, 201)?,
            system,
        })
    }
}

/// The bytes of a superblock that is one and whole.
fn sound(window: &Window, place: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; BYTES];
    window.read_at(place, &mut bytes)?;
    if part(&bytes, 64, MAGIC.len())? != MAGIC || u64_at(&bytes, 48)? != place {
        return Err(nonsense("no superblock of a btrfs"));
    }
    if u16_at(&bytes, 196)? != CRC32C {
        return Err(nonsense("a btrfs with checksums other than crc32c"));
    }
    match u32_at(&bytes, 0)? == checksum(&bytes[CHECKSUM..]) {
        true => Ok(bytes),
        false => Err(nonsense("a btrfs whose superblock is damaged")),
    }
}
