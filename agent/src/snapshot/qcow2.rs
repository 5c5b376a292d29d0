//! A raw disk as a qcow2 file that holds only what is not zero.
//!
//! ```text
//! cluster 0 header | data, data, ... | L2 tables | L1 table | refcount blocks | refcount table
//! ```
//! One pass: data first, the tables that point to it behind, the header last. The file is ours from the first byte
//! to the last, and names no other.
use crate::disk::next_data;
use crate::durable;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const CLUSTER_BITS: u32 = 16;
/// Bytes of a cluster.
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of an L2 table.
const L2_ENTRIES: u64 = CLUSTER / 8;
/// Entries of a refcount block, 16 bits each.
const REFCOUNTS: u64 = CLUSTER / 2;
const HEADER_LENGTH: u32 = 104;
/// The one user of a cluster is the active disk.
const COPIED: u64 = 1 << 63;
/// Largest disk, in bytes: 16 TiB, as for images that are fetched.
const LARGEST: u64 = 16 << 40;

/// Writes the raw file `from` as the new qcow2 file `to`. Blocks.
///
/// # Errors
/// Whatever the file system says; then there is nothing at `to`.
pub fn pack(from: &Path, to: &Path) -> io::Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let fresh = to.with_file_name(format!("{name}.new"));
    let packed = File::open(from).and_then(|raw| {
        let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        Packer::new(out).run(&raw)
    });
    if let Err(error) = packed.and_then(|()| std::fs::rename(&fresh, to)) {
        let _ = durable::remove(&fresh);
        return Err(error);
    }
    Ok(())
}

struct Packer {
    out: File,
    /// The next free cluster.
    next: u64,
    /// (which L2 table, its entries), in order; only tables that point to data.
    tables: Vec<(u64, Vec<u64>)>,
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_be_bytes()).collect()
}

impl Packer {
    fn new(out: File) -> Self {
        Self { out, next: 1, tables: Vec::new() }
    }

    fn run(mut self, raw: &File) -> io::Result<()> {
        let size = raw.metadata()?.len();
        if size > LARGEST {
            return Err(io::Error::other("the disk is too large for an image"));
        }
        self.data(raw, size)?;
        let mut l1 = vec![0; usize::try_from(size.div_ceil(CLUSTER * L2_ENTRIES)).map_err(io::Error::other)?];
        for (which, entries) in std::mem::take(&mut self.tables) {
            let at = self.append(&big_endian(&entries))?;
            let slot = usize::try_from(which).ok().and_then(|which| l1.get_mut(which));
            *slot.ok_or_else(|| io::Error::other("a table beyond the disk"))? = at | COPIED;
        }
        let l1_at = self.append(&big_endian(&l1))?;
        let (table_at, table_clusters) = self.refcounts()?;
        let l1_size = u32::try_from(l1.len()).map_err(io::Error::other)?;
        self.out.write_all_at(&header(size, l1_size, l1_at, table_at, table_clusters), 0)?;
        // The last table may be shorter than its cluster.
        self.out.set_len(self.next * CLUSTER)?;
        self.out.sync_all()
    }

    /// Copies every cluster that is not zero; holes are passed over unread.
    fn data(&mut self, raw: &File, size: u64) -> io::Result<()> {
        let mut piece = vec![0; CLUSTER as usize];
        let mut at = 0;
        while let Some(stretch) = next_data(raw, at, size)? {
            at = stretch.start / CLUSTER * CLUSTER;
            while at < stretch.end {
                let length = usize::try_from((size - at).min(CLUSTER)).map_err(io::Error::other)?;
                piece[length..].fill(0);
                raw.read_exact_at(&mut piece[..length], at)?;
                if piece.iter().any(|byte| *byte != 0) {
                    let place = self.append(&piece)?;
                    self.point(at / CLUSTER, place);
                }
                at += CLUSTER;
            }
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let at = self.next * CLUSTER;
        self.out.write_all_at(bytes, at)?;
        self.next += (bytes.len() as u64).div_ceil(CLUSTER);
        Ok(at)
    }

    fn point(&mut self, cluster: u64, place: u64) {
        let (which, slot) = (cluster / L2_ENTRIES, cluster % L2_ENTRIES);
        if self.tables.last().is_none_or(|(last, _)| *last != which) {
            self.tables.push((which, vec![0; L2_ENTRIES as usize]));
        }
        if let Some((_, entries)) = self.tables.last_mut() {
            entries[slot as usize] = place | COPIED;
        }
    }

    /// Every cluster of the file is used once, those of the refcounts among them.
    fn refcounts(&mut self) -> io::Result<(u64, u32)> {
        let used = self.next;
        let (mut blocks, mut table) = (0, 0);
        loop {
            let need = (used + blocks + table).div_ceil(REFCOUNTS);
            let need_table = (need * 8).div_ceil(CLUSTER);
            if (need, need_table) == (blocks, table) {
                break;
            }
            (blocks, table) = (need, need_table);
        }
        let total = used + blocks + table;
        let mut places = Vec::new();
        for block in 0..blocks {
            let ones = usize::try_from((total - block * REFCOUNTS).min(REFCOUNTS)).map_err(io::Error::other)?;
            let mut bytes = 1_u16.to_be_bytes().repeat(ones);
            bytes.resize(CLUSTER as usize, 0);
            places.push(self.append(&bytes)?);
        }
        let at = self.append(&big_endian(&places))?;
        Ok((at, u32::try_from(table).map_err(io::Error::other)?))
    }
}

fn header(size: u64, l1_size: u32, l1_at: u64, table_at: u64, table_clusters: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(CLUSTER as usize);
    out.extend_from_slice(b"QFI\xfb");
    out.extend_from_slice(&3_u32.to_be_bytes());
    out.extend_from_slice(&[0; 12]); // no backing file
    out.extend_from_slice(&CLUSTER_BITS.to_be_bytes());
    // Guests see whole sectors.
    out.extend_from_slice(&size.next_multiple_of(512).to_be_bytes());
    out.extend_from_slice(&0_u32.to_be_bytes()); // not encrypted
    out.extend_from_slice(&l1_size.to_be_bytes());
    out.extend_from_slice(&l1_at.to_be_bytes());
    out.extend_from_slice(&table_at.to_be_bytes());
    out.extend_from_slice(&table_clusters.to_be_bytes());
    out.extend_from_slice(&[0; 12]); // no internal snapshots
    out.extend_from_slice(&[0; 24]); // no features
    out.extend_from_slice(&4_u32.to_be_bytes()); // refcounts of 16 bits
    out.extend_from_slice(&HEADER_LENGTH.to_be_bytes());
    out.resize(CLUSTER as usize, 0); // no extensions
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilvi_disk::samples::unpack;
    use proptest::prelude::*;

    /// Packs a disk with these pieces on it; gives the size of the packed file. What comes back is what went in.
    fn there_and_back(size: u64, pieces: &[(u64, u8)]) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let raw = File::options().read(true).write(true).create_new(true).open(at("raw")).unwrap();
        raw.set_len(size).unwrap();
        for (offset, byte) in pieces {
            raw.write_all_at(&[*byte; 512], offset / 512 * 512 % size).unwrap();
        }
        pack(&at("raw"), &at("packed")).unwrap();
        unpack(&at("packed"), &at("back")).unwrap();
        let back = File::open(at("back")).unwrap();
        assert_eq!(back.metadata().unwrap().len(), size);
        for (offset, _) in pieces {
            let (mut one, mut other) = ([0; 512], [0; 512]);
            raw.read_exact_at(&mut one, offset / 512 * 512 % size).unwrap();
            back.read_exact_at(&mut other, offset / 512 * 512 % size).unwrap();
            assert_eq!(one, other);
        }
        if size <= 8 << 20 {
            assert!(std::fs::read(at("raw")).unwrap() == std::fs::read(at("back")).unwrap());
        }
        let checked = std::process::Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(at("packed")).output();
        if let Ok(output) = checked {
            assert!(output.status.success(), "{output:?}");
        }
        std::fs::metadata(at("packed")).unwrap().len()
    }

    #[test]
    fn zeroes_take_no_room() {
        let written_zero = there_and_back(2 << 30, &[(5 << 20, 0), (0, 7), (1 << 30, 9), ((2 << 30) - 512, 1)]);
        assert!(written_zero < 1 << 20, "{written_zero}");
        assert!(there_and_back(1 << 30, &[]) < 1 << 19);
    }

    #[test]
    fn odd_sizes_and_more_than_one_refcount_block_are_fine() {
        there_and_back(512, &[(0, 1)]);
        there_and_back(CLUSTER + 512, &[(0, 1), (CLUSTER, 2)]);
    }

    #[test]
    fn nothing_half_made_is_left() {
        let dir = tempfile::tempdir().unwrap();
        assert!(pack(&dir.path().join("none"), &dir.path().join("packed")).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_disk_comes_back(sectors in 1_u64..4096, pieces in proptest::collection::vec((any::<u64>(), any::<u8>()), 0..20)) {
            there_and_back(sectors * 512, &pieces);
        }
    }
}
