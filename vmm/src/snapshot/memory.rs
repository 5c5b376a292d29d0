//! The image of guest memory: one sparse file, ranges of RAM one after the other, then one page that names the snapshot.
//!
//! Pages of zeroes are holes. Each MiB has a CRC-32 in the state file. The last page lets an image that was cut off or
//! belongs to another snapshot be told without reading it, so that a restore that trusts its storage need not.

use super::SnapshotError;
use crate::memory::Memory;
use crate::memory::hot::Hot;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_memory::{Address, Bytes, GuestMemoryBackend, GuestMemoryRegion};

/// Bytes under one checksum.
pub const CHUNK: usize = 1 << 20;
const PAGE: usize = 4096;
const MAGIC: &[u8; 8] = b"PILVIMEM";
const WHAT: &str = "memory image";

/// What an image must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Guest memory.
    pub bytes: u64,
    /// Made up for this snapshot.
    pub identity: [u8; 16],
    /// CRC-32 of each MiB.
    pub chunks: Vec<u32>,
}

fn identity() -> [u8; 16] {
    let mut bytes = [0; 16];
    // SAFETY: pointer and length are of one live array. A kernel without randomness leaves zeroes, which are as good:
    // the identity guards against mistakes only.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    bytes
}

fn last_page(identity: [u8; 16]) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page[..8].copy_from_slice(MAGIC);
    page[8..24].copy_from_slice(&identity);
    page
}

/// Writes the image of a machine at rest, durably. Blocks that are not plugged are not looked at. `cancelled` is looked at every MiB.
pub fn write(memory: &Memory, hot: Option<&Hot>, file: &File, cancelled: &AtomicBool) -> Result<Digest, SnapshotError> {
    let failed = |e| SnapshotError::File { what: "write the memory image", source: e };
    file.set_len(0).map_err(failed)?;
    let zeroes = vec![0u8; CHUNK];
    let empty = crc32fast::hash(&zeroes);
    let mut buffer = vec![0u8; CHUNK];
    let (mut offset, mut chunks) = (0u64, Vec::new());
    for region in memory.iter() {
        let mut at = 0;
        while at < region.len() {
            if cancelled.load(Ordering::Acquire) {
                return Err(failed(io::Error::new(io::ErrorKind::Interrupted, "the machine is ending")));
            }
            // Ranges are whole MiB, as the configuration is.
            let part = &mut buffer[..(region.len() - at).min(CHUNK as u64) as usize];
            let address = region.start_addr().unchecked_add(at);
            if hot.is_some_and(|hot| hot.is_empty(address.raw_value(), part.len() as u64)) {
                chunks.push(empty);
                at += part.len() as u64;
                offset += part.len() as u64;
                continue;
            }
            memory.read_slice(part, address).map_err(|e| failed(io::Error::other(e)))?;
            chunks.push(crc32fast::hash(part));
            for (n, page) in (0u64..).zip(part.chunks(PAGE)) {
                if *page != zeroes[..page.len()] {
                    file.write_all_at(page, offset + n * PAGE as u64).map_err(failed)?;
                }
            }
            at += part.len() as u64;
            offset += part.len() as u64;
        }
    }
    let identity = identity();
    file.write_all_at(&last_page(identity), offset).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(Digest { bytes: offset, identity, chunks })
}

/// Where the file has data from `at` on; None: only holes follow. Where nobody knows, everything is data.
fn next_data(file: &File, at: u64) -> Option<u64> {
    let start = libc::off_t::try_from(at).ok()?;
    // SAFETY: lseek takes no pointer; the file's position means nothing here.
    let found = unsafe { libc::lseek(file.as_raw_fd(), start, libc::SEEK_DATA) };
    match u64::try_from(found) {
        Ok(found) => Some(found),
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => None,
        Err(_) => Some(at),
    }
}

/// Checks an image against its digest; with `whole`, every byte of it.
pub fn check(file: &File, digest: &Digest, bytes: u64, whole: bool) -> Result<(), SnapshotError> {
    if digest.bytes != bytes || digest.chunks.len() as u64 != bytes.div_ceil(CHUNK as u64) {
        return Err(SnapshotError::Malformed("memory and its checksums differ in size".into()));
    }
    let found = file.metadata().map_err(SnapshotError::file("look at the memory image"))?.len();
    let wanted = bytes + PAGE as u64;
    if found != wanted {
        return Err(SnapshotError::Length { what: WHAT, wanted, found });
    }
    let read = |e| SnapshotError::File { what: "read the memory image", source: e };
    let mut page = [0; PAGE];
    file.read_exact_at(&mut page, bytes).map_err(read)?;
    if !page.starts_with(MAGIC) {
        return Err(SnapshotError::Foreign(WHAT));
    }
    if page != last_page(digest.identity) {
        return Err(SnapshotError::Strangers);
    }
    if !whole {
        return Ok(());
    }
    let mut buffer = vec![0u8; CHUNK];
    let empty = crc32fast::hash(&buffer);
    let mut data = next_data(file, 0);
    for (n, wanted) in (0u64..).zip(&digest.chunks) {
        let (start, end) = (n * CHUNK as u64, (n + 1) * CHUNK as u64);
        if data.is_some_and(|at| at < start) {
            data = next_data(file, start);
        }
        let is_hole = data.is_none_or(|at| at >= end) && end <= bytes;
        let found = if is_hole {
            empty
        } else {
            let part = &mut buffer[..(bytes - start).min(CHUNK as u64) as usize];
            file.read_exact_at(part, start).map_err(read)?;
            crc32fast::hash(part)
        };
        if found != *wanted {
            return Err(SnapshotError::Altered(format!("{WHAT} (MiB {n})")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    const BYTES: u64 = 4 << 20;

    fn saved() -> (File, Digest) {
        let memory = crate::memory::map(BYTES, false).unwrap();
        memory.write_slice(b"low", GuestAddress(0)).unwrap();
        memory.write_slice(&[7; 5000], GuestAddress(0x20_0ff0)).unwrap();
        let file = tempfile::tempfile().unwrap();
        let digest = write(&memory, None, &file, &AtomicBool::new(false)).unwrap();
        (file, digest)
    }

    #[test]
    fn an_image_is_sparse_and_maps_back() {
        use std::os::unix::fs::MetadataExt;
        let (file, digest) = saved();
        check(&file, &digest, BYTES, true).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 < 64 * 1024);
        let memory = crate::memory::map_image(BYTES, file.try_clone().unwrap()).unwrap();
        let mut bytes = [0; 5002];
        memory.read_slice(&mut bytes, GuestAddress(0x20_0fef)).unwrap();
        assert_eq!((bytes[0], bytes[1], bytes[5000], bytes[5001]), (0, 7, 7, 0));
        // What a guest writes is its own.
        memory.write_slice(&[1; 4096], GuestAddress(0)).unwrap();
        check(&file, &digest, BYTES, true).unwrap();
    }

    #[test]
    fn images_cut_at_every_page_are_refused() {
        let (file, digest) = saved();
        let mut length = file.metadata().unwrap().len();
        while length > 0 {
            length -= PAGE as u64;
            file.set_len(length).unwrap();
            assert!(matches!(check(&file, &digest, BYTES, false), Err(SnapshotError::Length { .. })));
        }
    }

    #[test]
    fn altered_and_strange_images_are_refused() {
        let (file, digest) = saved();
        for at in [1, 0x20_1000, 0x35_0000] {
            let mut old = [0];
            file.read_exact_at(&mut old, at).unwrap();
            file.write_all_at(&[old[0] ^ 1], at).unwrap();
            assert!(matches!(check(&file, &digest, BYTES, true), Err(SnapshotError::Altered(_))), "{at:#x}");
            file.write_all_at(&old, at).unwrap();
        }
        let (other, _) = saved();
        assert!(matches!(check(&other, &digest, BYTES, false), Err(SnapshotError::Strangers)));
        other.write_all_at(b"x", BYTES).unwrap();
        assert!(matches!(check(&other, &digest, BYTES, false), Err(SnapshotError::Foreign(_))));
        assert!(matches!(check(&file, &digest, 2 * BYTES, false), Err(SnapshotError::Malformed(_))));
    }

    #[test]
    fn a_full_disk_and_an_ending_machine_are_errors() {
        let memory = crate::memory::map(BYTES, false).unwrap();
        memory.write_slice(b"x", GuestAddress(0)).unwrap();
        assert!(write(&memory, None, &tempfile::tempfile().unwrap(), &AtomicBool::new(true)).is_err());
        let full = File::options().write(true).open("/dev/full").unwrap();
        assert!(write(&memory, None, &full, &AtomicBool::new(false)).is_err());
    }
}
