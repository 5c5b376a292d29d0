//! The state file: a header that says what it is and how long, then the state.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | `PILVISNP` |
//! | 8..12 | format version, little endian as all numbers |
//! | 12..16 | CRC-32 of the state |
//! | 16..24 | bytes of the state |
//! | 24.. | the state in MessagePack, and then the file ends |
//!
//! The same envelope carries the state in a migration's stream.

use super::{Snapshot, SnapshotError, decode, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

/// Of this format. A change that an older program would misread makes it one more.
pub const VERSION: u32 = 1;
/// Largest state that is read: 254 processors and 31 devices need a few MiB.
pub const BYTES_MAX: u64 = 64 << 20;
/// Bytes of the header.
pub const HEADER: usize = 24;
const MAGIC: &[u8; 8] = b"PILVISNP";
const WHAT: &str = "state file";

/// Header and state.
pub fn seal<T: Serialize>(state: &T) -> Result<Vec<u8>, SnapshotError> {
    let state = encode(state)?;
    let mut out = Vec::with_capacity(HEADER + state.len());
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(crc32fast::hash(&state).to_le_bytes());
    out.extend((state.len() as u64).to_le_bytes());
    out.extend(state);
    Ok(out)
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}

/// Bytes that follow this header.
pub fn length(header: &[u8]) -> Result<u64, SnapshotError> {
    if header.len() < HEADER || !header.starts_with(MAGIC) {
        return Err(SnapshotError::Foreign(WHAT));
    }
    let version = u32::from_le_bytes(word(header, 8));
    if version != VERSION {
        return Err(SnapshotError::Version { found: version });
    }
    let length = u64::from_le_bytes(word(header, 16));
    if length > BYTES_MAX {
        return Err(SnapshotError::Malformed(format!("it claims {length} bytes")));
    }
    Ok(length)
}

/// The other way; every byte is checked.
pub fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, SnapshotError> {
    let wanted = length(bytes)?;
    let state = &bytes[HEADER..];
    if state.len() as u64 != wanted {
        return Err(SnapshotError::Length { what: WHAT, wanted, found: state.len() as u64 });
    }
    if crc32fast::hash(state) != u32::from_le_bytes(word(bytes, 12)) {
        return Err(SnapshotError::Altered(WHAT.into()));
    }
    decode(state)
}

/// Reads a state file.
pub fn read(file: &mut File) -> Result<Snapshot, SnapshotError> {
    let mut bytes = Vec::new();
    let read = file.take(BYTES_MAX + HEADER as u64 + 1).read_to_end(&mut bytes);
    read.map_err(SnapshotError::file("read the state file"))?;
    open(&bytes)
}

/// Writes a state file and waits until it is durable. It comes last, so that its presence means a whole snapshot.
pub fn write(file: &File, snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let failed = |e| SnapshotError::File { what: "write the state file", source: e };
    file.set_len(0).map_err(failed)?;
    file.write_all_at(&seal(snapshot)?, 0).map_err(failed)?;
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_sealed_opens_and_every_cut_or_changed_byte_is_seen() {
        let state: Vec<u32> = (0..300).collect();
        let sealed = seal(&state).unwrap();
        assert_eq!(open::<Vec<u32>>(&sealed).unwrap(), state);
        for end in 0..sealed.len() {
            assert!(open::<Vec<u32>>(&sealed[..end]).is_err(), "{end}");
        }
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 0x40;
            assert!(open::<Vec<u32>>(&altered).is_err(), "{at}");
        }
        let mut longer = sealed;
        longer.push(0);
        assert!(matches!(open::<Vec<u32>>(&longer), Err(SnapshotError::Length { .. })));
    }

    #[test]
    fn other_versions_say_so() {
        let mut sealed = seal(&1u8).unwrap();
        sealed[8] = 9;
        assert!(open::<u8>(&sealed).unwrap_err().to_string().contains("version 9"));
    }

    proptest! {
        #[test]
        fn any_state_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut sealed = seal(&()).unwrap();
            sealed.truncate(HEADER);
            sealed[12..16].copy_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            sealed[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            sealed.extend(&bytes);
            let _ = open::<Snapshot>(&sealed);
        }
    }
}
