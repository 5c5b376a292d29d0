//! The first sector of the disk: boot code and a partition table with two entries. Only numbers of sectors count
//! (the cylinder fields say "use the numbers"); the guest moves the end of the last entry when its disk is larger.

/// Bytes in a sector, for the table and for both file systems.
pub const SECTOR: u64 = 512;

/// One entry of the table.
pub struct Partition {
    pub bootable: bool,
    /// 0x0e FAT16 (LBA), 0x83 Linux.
    pub kind: u8,
    /// First sector and number of sectors.
    pub start: u32,
    pub count: u32,
}

/// The sector. `code` is the boot program (at most 440 bytes are used), `id` the disk signature.
pub fn sector(code: &[u8], id: u32, partitions: &[Partition; 2]) -> [u8; 512] {
    let mut out = [0u8; 512];
    let length = code.len().min(440);
    out[..length].copy_from_slice(&code[..length]);
    out[440..444].copy_from_slice(&id.to_le_bytes());
    for (entry, partition) in out[446..510].chunks_exact_mut(16).zip(partitions) {
        entry[0] = if partition.bootable { 0x80 } else { 0 };
        entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[4] = partition.kind;
        entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&partition.start.to_le_bytes());
        entry[12..16].copy_from_slice(&partition.count.to_le_bytes());
    }
    out[510] = 0x55;
    out[511] = 0xaa;
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn table() -> [u8; 512] {
        let first = Partition { bootable: true, kind: 0x0e, start: 2048, count: 4096 };
        let second = Partition { bootable: false, kind: 0x83, start: 6144, count: 10240 };
        sector(&[0x90; 500], 0x1234_abcd, &[first, second])
    }

    #[test]
    fn fields_are_where_firmware_looks() {
        let bytes = table();
        assert_eq!((bytes[439], bytes[510], bytes[511]), (0x90, 0x55, 0xaa));
        assert_eq!(bytes[440..446], [0xcd, 0xab, 0x34, 0x12, 0, 0]);
        assert_eq!((bytes[446], bytes[450], bytes[462], bytes[466]), (0x80, 0x0e, 0, 0x83));
        assert_eq!(bytes[470..478], [0, 24, 0, 0, 0, 40, 0, 0]);
        assert!(bytes[478..510].iter().all(|b| *b == 0));
    }

    #[test]
    fn another_program_reads_the_same_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, table()).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len((6144 + 10240) * SECTOR).unwrap();
        let (sfdisk, busybox) = (
            Command::new("sfdisk").arg("--dump").arg(&path).output(),
            Command::new("busybox").args(["fdisk", "-l", "-u"]).arg(&path).output(),
        );
        if let Ok(output) = sfdisk {
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("label-id: 0x1234abcd") && text.contains("size=       10240, type=83"), "{text}");
        } else if let Ok(output) = busybox {
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("6144") && text.contains("16383") && text.contains("83 Linux"), "{text}");
        } else {
            eprintln!("skipped: neither sfdisk nor busybox on this machine");
        }
    }
}
