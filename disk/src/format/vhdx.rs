//! VHDX disks: a region table at 192 KiB says where the metadata is, and that says how large the disk is.
//!
//! Two hops through offsets of the file's own choosing: each is read with a fixed length and each count is
//! bounded as the format bounds it. Images with a parent are refused.
use super::{Source, Violation, field};
use std::io;

pub const MARK: &[u8] = b"vhdxfile";
pub const REGIONS_AT: u64 = 192 * 1024;
pub const TABLE: usize = 64 * 1024;
const ENTRIES_MAX: usize = 2047;
const ENTRY: usize = 32;

/// GUIDs as they lie in the file.
const METADATA: [u8; 16] =
    [0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e];
const DISK_SIZE: [u8; 16] =
    [0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8];
const FILE_PARAMETERS: [u8; 16] =
    [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b];
const PARENT_LOCATOR: [u8; 16] =
    [0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c];
const HAS_PARENT: u32 = 1 << 1;

fn malformed(why: &str) -> Violation {
    Violation::new("header", format!("the VHDX file is malformed: {why}"))
}

/// Bytes of the disk.
pub fn inspect(source: &dyn Source) -> io::Result<Result<u64, Violation>> {
    let regions = source.read(REGIONS_AT, TABLE)?;
    let metadata_at = match metadata_at(&regions) {
        Ok(at) => at,
        Err(violation) => return Ok(Err(violation)),
    };
    let table = source.read(metadata_at, TABLE)?;
    let items = match items(&table) {
        Ok(items) => items,
        Err(violation) => return Ok(Err(violation)),
    };
    let mut size = None;
    for (guid, offset) in items {
        let at = metadata_at.saturating_add(u64::from(offset));
        let value = match guid {
            PARENT_LOCATOR => return Ok(Err(Violation::new("backing_file", "it names a parent file"))),
            FILE_PARAMETERS | DISK_SIZE => source.read(at, 8)?,
            _ => continue,
        };
        let Some(value) = field::<8>(&value, 0) else { return Ok(Err(malformed("an item lies beyond the end"))) };
        if guid == DISK_SIZE {
            size = size.or(Some(u64::from_le_bytes(value)));
        } else if u64::from_le_bytes(value) >> 32 & u64::from(HAS_PARENT) != 0 {
            return Ok(Err(Violation::new("backing_file", "it is a difference to a parent file")));
        }
    }
    Ok(size.ok_or_else(|| malformed("it does not say how large the disk is")))
}

/// Where the metadata region begins.
pub fn metadata_at(regions: &[u8]) -> Result<u64, Violation> {
    if regions.len() < TABLE || !regions.starts_with(b"regi") {
        return Err(malformed("no region table"));
    }
    let count = u32::from_le_bytes(field(regions, 8).unwrap_or_default()) as usize;
    if count > ENTRIES_MAX {
        return Err(malformed("too many regions"));
    }
    let entry = |i: usize| regions.get(16 + i * ENTRY..16 + (i + 1) * ENTRY);
    (0..count)
        .filter_map(entry)
        .find(|entry| entry.starts_with(&METADATA))
        .and_then(|entry| Some(u64::from_le_bytes(field(entry, 16)?)))
        .ok_or_else(|| malformed("no metadata region"))
}

/// The items of the metadata region, by GUID, with their offsets in it.
fn items(table: &[u8]) -> Result<Vec<([u8; 16], u32)>, Violation> {
    if !table.starts_with(b"metadata") {
        return Err(malformed("no metadata table"));
    }
    let count = usize::from(u16::from_le_bytes(field(table, 10).unwrap_or_default()));
    if count > ENTRIES_MAX || table.len() < ENTRY * (count + 1) {
        return Err(malformed("too many metadata items"));
    }
    let item = |i: usize| {
        let at = ENTRY * (i + 1);
        Some((field(table, at)?, u32::from_le_bytes(field(table, at + 16)?)))
    };
    Ok((0..count).filter_map(item).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn image(size: u64, parent: bool) -> Vec<u8> {
        let (regions, metadata) = (REGIONS_AT as usize, 1 << 20);
        let mut file = vec![0; metadata + TABLE + 4096];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MARK);
        put(regions, b"regi");
        put(regions + 8, &1u32.to_le_bytes());
        put(regions + 16, &METADATA);
        put(regions + 32, &(metadata as u64).to_le_bytes());
        put(metadata, b"metadata");
        put(metadata + 10, &2u16.to_le_bytes());
        put(metadata + 32, &FILE_PARAMETERS);
        put(metadata + 48, &(TABLE as u32).to_le_bytes());
        put(metadata + 64, &DISK_SIZE);
        put(metadata + 80, &(TABLE as u32 + 8).to_le_bytes());
        put(metadata + 84, &8u32.to_le_bytes());
        put(metadata + TABLE + 4, &(u32::from(parent) * HAS_PARENT).to_le_bytes());
        put(metadata + TABLE + 8, &size.to_le_bytes());
        file
    }

    #[test]
    fn the_size_is_found_behind_two_tables() {
        let read = |file: &[u8]| inspect(&file).unwrap();
        let good = image(5 << 30, false);
        assert_eq!(read(&good), Ok(5 << 30));
        assert_eq!(read(&image(5 << 30, true)).unwrap_err().check, "backing_file");
        for (at, bytes) in [
            (REGIONS_AT as usize, &b"nope"[..]),
            (REGIONS_AT as usize + 8, &[0xff; 4]),
            (REGIONS_AT as usize + 32, &[0xff; 8]),
            (1 << 20, b"nothing!"),
            ((1 << 20) + 10, &[0xff; 2]),
            ((1 << 20) + 80, &[0xff; 4]),
        ] {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            assert!(read(&bad).is_err(), "{at}");
        }
        let mut parent = good;
        parent[(1 << 20) + 64..(1 << 20) + 80].copy_from_slice(&PARENT_LOCATOR);
        assert_eq!(read(&parent).unwrap_err().check, "backing_file");
    }

    proptest! {
        #[test]
        fn any_change_is_read_or_refused(changes in proptest::collection::vec((0usize..0x60, any::<u8>(), any::<bool>()), 1..8)) {
            let mut file = image(1 << 30, false);
            for (at, byte, meta) in changes { file[at + if meta { 1 << 20 } else { REGIONS_AT as usize }] = byte; }
            let _ = inspect(&file.as_slice()).unwrap();
        }
    }
}
