//! Where on a disk file systems may be: its partitions, or all of it.

use gpt::disk::LogicalBlockSize;
use std::fs::File;
use std::os::unix::fs::FileExt;

const SECTOR: u64 = 512;
/// Entries of a GPT that are looked at; 128 is what everybody writes.
const ENTRIES_MAX: u32 = 1024;
const GPT_ENTRY: u32 = 128;
const PROTECTIVE: u8 = 0xee;

/// A part of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// For people: `partition 1`, `the whole disk`.
    pub name: String,
    /// As a kernel can find it again: `PARTUUID=...`, or a device name.
    pub root: String,
    /// Byte offset.
    pub start: u64,
    /// Bytes.
    pub bytes: u64,
}

/// All partitions inside the disk, in order; a disk without any is one stretch.
pub fn list(disk: &File, bytes: u64) -> Vec<Stretch> {
    let mut first = [0; SECTOR as usize];
    let has_table = disk.read_exact_at(&mut first, 0).is_ok() && first[510..] == [0x55, 0xaa];
    let mut found = if has_table { mbr(&first) } else { Vec::new() };
    if has_table && first[450] == PROTECTIVE {
        // Sectors of 512 bytes are tried first: of 4096 the second half of the table's first block says nothing.
        found =
            [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096].into_iter().flat_map(|size| gpt(disk, size)).collect();
    }
    let inside = |s: &Stretch| s.bytes > 0 && s.start.checked_add(s.bytes).is_some_and(|end| end <= bytes);
    found.retain(inside);
    if found.is_empty() {
        found.push(Stretch { name: "the whole disk".into(), root: "/dev/vda".into(), start: 0, bytes });
    }
    found
}

/// The four primary partitions.
fn mbr(sector: &[u8; SECTOR as usize]) -> Vec<Stretch> {
    let word = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
    let one = |n: usize| {
        let (start, count) = (word(446 + n * 16 + 8), word(446 + n * 16 + 12));
        Stretch {
            name: format!("partition {}", n + 1),
            root: format!("PARTUUID={:08x}-{:02}", word(440), n + 1),
            start: u64::from(start) * SECTOR,
            bytes: u64::from(count) * SECTOR,
        }
    };
    (0..4).map(one).collect()
}

fn gpt(disk: &File, size: LogicalBlockSize) -> Vec<Stretch> {
    let sector = size.as_u64();
    // The reader trusts the counts of a header whose checksum is right; anybody can make that.
    let mut counts = [0; 8];
    if disk.read_exact_at(&mut counts, sector + 80).is_err() {
        return Vec::new();
    }
    let count = |at: usize| u32::from_le_bytes([counts[at], counts[at + 1], counts[at + 2], counts[at + 3]]);
    if count(0) > ENTRIES_MAX || count(4) != GPT_ENTRY {
        return Vec::new();
    }
    let Ok(disk) = disk.try_clone() else { return Vec::new() };
    let config = gpt::GptConfig::new().writable(false).logical_block_size(size);
    let Ok(table) = config.only_valid_headers(true).open_from_device(disk) else { return Vec::new() };
    let used = table.partitions().iter().filter(|(_, part)| part.last_lba >= part.first_lba);
    used.filter_map(|(number, part)| {
        Some(Stretch {
            name: format!("partition {number}"),
            root: format!("PARTUUID={}", part.part_guid),
            start: part.first_lba.checked_mul(sector)?,
            bytes: (part.last_lba - part.first_lba).checked_add(1)?.checked_mul(sector)?,
        })
    })
    .collect()
}
