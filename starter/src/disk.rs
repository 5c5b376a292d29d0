//! Puts the disk together: partition table, boot partition, root partition. Blocks of zeros become holes, so the
//! file takes about half of its size on the host.
//!
//! ```text
//! 0        1 MiB              23 MiB                      63 MiB
//! | MBR ... | FAT16, SYSLINUX  | ext4 "pilvi-root" (grows) |
//! ```

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::Error;
use crate::mbr::{self, Partition, SECTOR};
use crate::recipe::{BOOT_SIZE, MAX_IMAGE, MIB, ROOT_SIZE};

/// Disk signature ("pilv"), also the stem of PARTUUIDs.
const SIGNATURE: u32 = 0x7069_6c76;
/// Where the boot partition starts (bytes).
pub const BOOT_START: u64 = MIB;
const ROOT_START: u64 = BOOT_START + BOOT_SIZE;

/// Writes the disk to `path`. `code` is SYSLINUX's boot program for the first sector.
pub fn make(path: &Path, code: &[u8], boot: &Path, root: &Path, root_size: u64) -> Result<(), Error> {
    let size = ROOT_START + root_size;
    if root_size == ROOT_SIZE && size > MAX_IMAGE {
        return Err(Error::TooLarge { what: "the image", need: size, have: MAX_IMAGE });
    }
    let disk = File::create(path).map_err(Error::io("create", path))?;
    disk.set_len(size).map_err(Error::io("size", path))?;
    let entry = |bootable, kind, start: u64, length: u64| Partition {
        bootable,
        kind,
        start: (start / SECTOR) as u32,
        count: (length / SECTOR) as u32,
    };
    let table = [entry(true, 0x0e, BOOT_START, BOOT_SIZE), entry(false, 0x83, ROOT_START, root_size)];
    disk.write_all_at(&mbr::sector(code, SIGNATURE, &table), 0).map_err(Error::io("write", path))?;
    for (source, start, limit) in [(boot, BOOT_START, BOOT_SIZE), (root, ROOT_START, root_size)] {
        copy(source, &disk, path, start, limit)?;
    }
    disk.sync_all().map_err(Error::io("write", path))
}

fn copy(source: &Path, disk: &File, path: &Path, start: u64, limit: u64) -> Result<(), Error> {
    let mut file = File::open(source).map_err(Error::io("read", source))?.take(limit);
    let (mut block, mut at) = (vec![0u8; 1 << 16], start);
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match file.read(&mut block[filled..]).map_err(Error::io("read", source))? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            return Ok(());
        }
        for page in block[..filled].chunks(4096) {
            if page.iter().any(|b| *b != 0) {
                disk.write_all_at(page, at).map_err(Error::io("write", path))?;
            }
            at += page.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn parts_land_in_place_and_zeros_take_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("boot"), vec![1u8; 8192]).unwrap();
        let mut root = vec![0u8; 1 << 20];
        root[4096..8192].fill(2);
        std::fs::write(file("root"), root).unwrap();
        make(&file("disk"), &[0xeb; 440], &file("boot"), &file("root"), ROOT_SIZE).unwrap();
        let disk = std::fs::read(file("disk")).unwrap();
        assert_eq!(disk.len() as u64, ROOT_START + ROOT_SIZE);
        assert_eq!((disk[0], disk[510], disk[511]), (0xeb, 0x55, 0xaa));
        assert_eq!((disk[BOOT_START as usize], disk[ROOT_START as usize], disk[ROOT_START as usize + 4096]), (1, 0, 2));
        assert!(std::fs::metadata(file("disk")).unwrap().blocks() * 512 < MIB);
    }
}
