//! What is asked of an ext4 superblock before its crate reads it: that crate reserves memory for as many block groups as the
//! superblock names, however many a hostile one names (found by fuzzing).
//!
//! Offsets are those of the kernel's documentation of ext4, "super block"; numbers are little endian.

use super::Window;
use super::tree::nonsense;
use std::io;

/// Where the superblock begins.
const PLACE: u64 = 1024;
const MAGIC: u16 = 0xef53;
/// Set where block numbers have 64 bits.
const INCOMPAT_64BIT: u32 = 0x80;
/// Most block groups: 128 TiB in blocks of 4096 bytes.
const GROUPS_MAX: u64 = 1 << 20;

/// Refuses what says it is ext4 and is larger than its partition, or in more groups than any disk has.
pub fn check(window: &Window) -> io::Result<()> {
    let mut block = [0; 1024];
    window.read_at(PLACE, &mut block)?;
    let word = |at: usize| u64::from(u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]));
    if u16::from_le_bytes([block[0x38], block[0x39]]) != MAGIC {
        // None: its crate says so.
        return Ok(());
    }
    let high = if word(0x60) & u64::from(INCOMPAT_64BIT) == 0 { 0 } else { word(0x150) };
    let (blocks, size, in_group) = (high << 32 | word(0x4), word(0x18), word(0x20));
    let bytes = 1024u64.checked_shl(u32::try_from(size).unwrap_or(u32::MAX)).and_then(|size| blocks.checked_mul(size));
    if size > 6 || bytes.is_none_or(|bytes| bytes > window.stretch.bytes) {
        return Err(nonsense("an ext4 larger than its partition"));
    }
    if in_group == 0 || blocks.div_ceil(in_group) > GROUPS_MAX {
        return Err(nonsense("an ext4 of too many block groups"));
    }
    Ok(())
}
