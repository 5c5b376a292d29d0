//! A bounded reader of qcow2 headers, for files that strangers send.
//!
//! It reads the first bytes only, follows no pointer, and says no to everything that would make a host
//! read another file or set aside memory that the file did not pay for: backing files, external data
//! files, encryption, tables outside of the file, disks of absurd size.

use super::Violation;

/// `QFI\xfb`
pub const MAGIC: &[u8; 4] = b"QFI\xfb";

const HEADER_V2: usize = 72;
const HEADER_V3: usize = 104;
/// Bytes of an L1 table at most, as elsewhere.
const L1_MAX: u64 = 32 << 20;
/// Bytes of a refcount table at most, as elsewhere.
const REFCOUNT_TABLE_MAX: u64 = 8 << 20;
const EXTENSIONS_MAX: usize = 64;

const INCOMPATIBLE_DIRTY: u64 = 1;
const INCOMPATIBLE_CORRUPT: u64 = 1 << 1;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;
const INCOMPATIBLE_COMPRESSION: u64 = 1 << 3;
const INCOMPATIBLE_EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_CRYPTO: u32 = 0x0537_be77;

/// Why a file is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the qcow2 header is cut off")]
    Short,
    #[error("this is not qcow2")]
    Magic,
    #[error("qcow2 version {0} is not known")]
    Version(u32),
    #[error("it names a backing file")]
    BackingFile,
    #[error("it names an external data file")]
    DataFile,
    #[error("it is encrypted")]
    Encrypted,
    #[error("it is marked corrupt")]
    Corrupt,
    #[error("it uses features that are not known here (incompatible features {0:#x})")]
    Features(u64),
    #[error("its compression is not zlib")]
    Compression,
    #[error("it holds internal snapshots: flatten it first")]
    Snapshots,
    #[error("the qcow2 header is malformed: {0}")]
    Malformed(&'static str),
    #[error("its disk of {found} bytes is larger than the {max} allowed")]
    TooLarge { found: u64, max: u64 },
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    /// Bytes of the disk.
    pub virtual_size: u64,
    pub cluster_bits: u32,
}

fn word(head: &[u8], at: usize) -> Result<u32, Refusal> {
    let bytes = head.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Refusal::Short)?;
    Ok(u32::from_be_bytes(bytes))
}

fn long(head: &[u8], at: usize) -> Result<u64, Refusal> {
    let bytes = head.get(at..at + 8).and_then(|b| b.try_into().ok()).ok_or(Refusal::Short)?;
    Ok(u64::from_be_bytes(bytes))
}

impl Refusal {
    /// The name of the check that it failed, as settings and other inspectors have it.
    fn check(&self) -> &'static str {
        match self {
            Refusal::BackingFile => "backing_file",
            Refusal::DataFile => "data_file",
            Refusal::Version(_) | Refusal::Features(_) | Refusal::Compression => "unknown_features",
            _ => "header",
        }
    }
}

/// Bytes of the disk in a file whose first bytes are `head`.
pub fn inspect(head: &[u8], file_size: u64) -> Result<u64, Violation> {
    match read(head, file_size, u64::MAX) {
        Ok(header) => Ok(header.virtual_size),
        Err(refusal) => Err(Violation::new(refusal.check(), refusal.to_string())),
    }
}

/// Reads the header in `head`, the first bytes of a file of `file_size` bytes.
pub fn read(head: &[u8], file_size: u64, virtual_max: u64) -> Result<Header, Refusal> {
    if head.get(..4).ok_or(Refusal::Short)? != MAGIC {
        return Err(Refusal::Magic);
    }
    let version = word(head, 4)?;
    if !(2..=3).contains(&version) {
        return Err(Refusal::Version(version));
    }
    if head.len() < HEADER_V2 {
        return Err(Refusal::Short);
    }
    if long(head, 8)? != 0 || word(head, 16)? != 0 {
        return Err(Refusal::BackingFile);
    }
    let cluster_bits = word(head, 20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(Refusal::Malformed("cluster size"));
    }
    let virtual_size = long(head, 24)?;
    if virtual_size > virtual_max {
        return Err(Refusal::TooLarge { found: virtual_size, max: virtual_max });
    }
    if word(head, 32)? != 0 {
        return Err(Refusal::Encrypted);
    }
    tables(head, file_size, virtual_size, cluster_bits)?;
    if word(head, 60)? != 0 {
        return Err(Refusal::Snapshots);
    }
    // Version 2 has no such field; a reader that looks for it anyway must not find it set.
    if long(head, 72).is_ok_and(|features| features & INCOMPATIBLE_DATA_FILE != 0) {
        return Err(Refusal::DataFile);
    }
    let header_length = if version == 3 { version_3(head, cluster_bits)? } else { HEADER_V2 };
    extensions(head, header_length, file_size, cluster_bits)?;
    Ok(Header { version, virtual_size, cluster_bits })
}

/// The L1 and refcount tables must lie in the file and be as long as the disk needs, not longer than sense.
fn tables(head: &[u8], file_size: u64, virtual_size: u64, cluster_bits: u32) -> Result<(), Refusal> {
    let cluster = 1u64 << cluster_bits;
    let (l1_size, l1_offset) = (u64::from(word(head, 36)?) * 8, long(head, 40)?);
    // One L1 entry maps a cluster full of 8-byte L2 entries, each of which maps a cluster.
    let needed = virtual_size.div_ceil(cluster * (cluster / 8)).saturating_mul(8);
    if l1_size > L1_MAX || l1_size < needed {
        return Err(Refusal::Malformed("L1 table size"));
    }
    inside(l1_offset, l1_size, cluster, file_size).ok_or(Refusal::Malformed("L1 table offset"))?;
    let (offset, size) = (long(head, 48)?, u64::from(word(head, 56)?).saturating_mul(cluster));
    if size == 0 || size > REFCOUNT_TABLE_MAX.max(cluster) {
        return Err(Refusal::Malformed("refcount table size"));
    }
    inside(offset, 1, cluster, file_size).ok_or(Refusal::Malformed("refcount table offset"))
}

/// Aligned, not in the header's cluster, and not beyond the end.
fn inside(offset: u64, size: u64, cluster: u64, file_size: u64) -> Option<()> {
    if size == 0 {
        return Some(());
    }
    let end = offset.checked_add(size)?;
    (offset.is_multiple_of(cluster) && offset >= cluster && end <= file_size).then_some(())
}

/// The members that version 3 adds; gives the header's length.
fn version_3(head: &[u8], cluster_bits: u32) -> Result<usize, Refusal> {
    if head.len() < HEADER_V3 {
        return Err(Refusal::Short);
    }
    let incompatible = long(head, 72)?;
    if incompatible & INCOMPATIBLE_DATA_FILE != 0 {
        return Err(Refusal::DataFile);
    }
    if incompatible & INCOMPATIBLE_CORRUPT != 0 {
        return Err(Refusal::Corrupt);
    }
    let unknown = incompatible & !(INCOMPATIBLE_DIRTY | INCOMPATIBLE_COMPRESSION);
    if unknown != 0 || incompatible & INCOMPATIBLE_EXTENDED_L2 != 0 {
        return Err(Refusal::Features(incompatible));
    }
    if word(head, 96)? > 6 {
        return Err(Refusal::Malformed("refcount width"));
    }
    let length = word(head, 100)? as usize;
    if length < HEADER_V3 || !length.is_multiple_of(8) || length > 1 << cluster_bits {
        return Err(Refusal::Malformed("header length"));
    }
    let compression = if length > HEADER_V3 { *head.get(HEADER_V3).ok_or(Refusal::Short)? } else { 0 };
    if compression != 0 || incompatible & INCOMPATIBLE_COMPRESSION != 0 {
        return Err(Refusal::Compression);
    }
    Ok(length)
}

/// Header extensions: one of them could name a data file.
fn extensions(head: &[u8], from: usize, file_size: u64, cluster_bits: u32) -> Result<(), Refusal> {
    let area = (1u64 << cluster_bits).min(file_size);
    let mut at = from;
    for _ in 0..EXTENSIONS_MAX {
        if at as u64 + 8 > area {
            return Ok(());
        }
        let (kind, length) = (word(head, at)?, word(head, at + 4)? as usize);
        match kind {
            EXTENSION_END => return Ok(()),
            EXTENSION_BACKING_FORMAT => return Err(Refusal::BackingFile),
            EXTENSION_DATA_FILE => return Err(Refusal::DataFile),
            EXTENSION_CRYPTO => return Err(Refusal::Encrypted),
            _ => {}
        }
        at = at.saturating_add(8).saturating_add(length.div_ceil(8).saturating_mul(8));
    }
    Err(Refusal::Malformed("too many header extensions"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: u64 = 1 << 44;

    pub(crate) use crate::samples::qcow2 as image;

    fn with(at: usize, bytes: &[u8]) -> Result<Header, Refusal> {
        let mut file = image(1 << 30);
        file[at..at + bytes.len()].copy_from_slice(bytes);
        read(&file[..65536], file.len() as u64, MAX)
    }

    #[test]
    fn a_good_header_is_read() {
        assert_eq!(with(0, MAGIC), Ok(Header { version: 3, virtual_size: 1 << 30, cluster_bits: 16 }));
        let version_2 = with(4, &2u32.to_be_bytes()).unwrap();
        assert_eq!(version_2.version, 2);
    }

    #[test]
    fn whatever_reaches_outside_is_refused() {
        assert_eq!(with(8, &112u64.to_be_bytes()), Err(Refusal::BackingFile));
        assert_eq!(with(16, &1u32.to_be_bytes()), Err(Refusal::BackingFile));
        assert_eq!(with(79, &[4]), Err(Refusal::DataFile));
        assert_eq!(with(112, &EXTENSION_DATA_FILE.to_be_bytes()), Err(Refusal::DataFile));
        assert_eq!(with(112, &EXTENSION_BACKING_FORMAT.to_be_bytes()), Err(Refusal::BackingFile));
        assert_eq!(with(112, &EXTENSION_CRYPTO.to_be_bytes()), Err(Refusal::Encrypted));
        assert_eq!(with(32, &1u32.to_be_bytes()), Err(Refusal::Encrypted));
        // Behind an unknown extension, too.
        let mut two = 0x1234_5678u32.to_be_bytes().to_vec();
        two.extend(3u32.to_be_bytes());
        two.extend([0; 8]);
        two.extend(EXTENSION_DATA_FILE.to_be_bytes());
        assert_eq!(with(112, &two), Err(Refusal::DataFile));
    }

    #[test]
    fn bombs_and_broken_tables_are_refused() {
        assert!(matches!(with(24, &(1u64 << 60).to_be_bytes()), Err(Refusal::TooLarge { .. })));
        assert_eq!(with(36, &u32::MAX.to_be_bytes()), Err(Refusal::Malformed("L1 table size")));
        assert_eq!(with(36, &1u32.to_be_bytes()), Err(Refusal::Malformed("L1 table size")), "too short for the disk");
        assert_eq!(with(40, &(1u64 << 40).to_be_bytes()), Err(Refusal::Malformed("L1 table offset")));
        assert_eq!(with(40, &u64::MAX.to_be_bytes()), Err(Refusal::Malformed("L1 table offset")));
        assert_eq!(with(48, &7u64.to_be_bytes()), Err(Refusal::Malformed("refcount table offset")));
        assert_eq!(with(56, &u32::MAX.to_be_bytes()), Err(Refusal::Malformed("refcount table size")));
        assert_eq!(with(20, &63u32.to_be_bytes()), Err(Refusal::Malformed("cluster size")));
        assert_eq!(with(60, &1u32.to_be_bytes()), Err(Refusal::Snapshots));
        assert_eq!(with(79, &[2]), Err(Refusal::Corrupt));
        assert_eq!(with(79, &[16]), Err(Refusal::Features(16)));
        assert_eq!(with(104, &[1]), Err(Refusal::Compression));
        assert_eq!(
            with(100, &4096u32.to_be_bytes()),
            Ok(Header { version: 3, virtual_size: 1 << 30, cluster_bits: 16 })
        );
        assert_eq!(with(100, &u32::MAX.to_be_bytes()), Err(Refusal::Malformed("header length")));
        assert_eq!(with(4, &4u32.to_be_bytes()), Err(Refusal::Version(4)));
        assert_eq!(read(&image(1)[..50], 50, MAX), Err(Refusal::Short));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut head in proptest::collection::vec(any::<u8>(), 0..400), size in any::<u64>()) {
            let _ = read(&head, size, MAX);
            if head.len() > 8 {
                head[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
                let _ = read(&head, size, MAX);
            }
        }

        #[test]
        fn a_good_header_with_any_change_never_reaches_outside(changes in proptest::collection::vec((8usize..160, any::<u8>()), 1..6)) {
            let mut file = image(1 << 30);
            for (at, byte) in changes { file[at] = byte; }
            if let Ok(header) = read(&file[..65536], file.len() as u64, MAX) {
                prop_assert!(header.virtual_size <= MAX);
                prop_assert!(file[8..20].iter().all(|b| *b == 0), "no backing file");
                prop_assert!(header.version == 2 || file[79] & 4 == 0, "no data file");
            }
        }
    }
}
