//! Disks made by the tools that make real ones, where they are installed; and damaged ones.

use super::*;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Command;

const START: u64 = 1 << 20;
const BYTES: u64 = 24 << 20;

/// An image with one partition (or none) whose file system has these files; None where mkfs is missing.
fn image(dir: &Path, table: &str, files: &[(&str, &[u8])]) -> Option<PathBuf> {
    let (content, image) = (dir.join("content"), dir.join("image"));
    for (name, bytes) in files {
        let path = content.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let file = File::create_new(&image).unwrap();
    file.set_len(BYTES).unwrap();
    let offset = if table == "none" { 0 } else { START };
    let blocks = ((BYTES - offset - (offset.min(1) << 20)) / 1024).to_string();
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-b", "1024", "-E", &format!("offset={offset}"), "-d"]).arg(&content).arg(&image).arg(blocks);
    if !mkfs.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: mkfs.ext4 is missing");
        return None;
    }
    match table {
        "mbr" => {
            let mut sector = [0u8; 512];
            file.read_at(&mut sector, 0).unwrap_or(0);
            sector[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
            sector[450] = 0x83;
            sector[454..458].copy_from_slice(&((START / 512) as u32).to_le_bytes());
            sector[458..462].copy_from_slice(&(((BYTES - 2 * START) / 512) as u32).to_le_bytes());
            sector[510..].copy_from_slice(&[0x55, 0xaa]);
            file.write_all_at(&sector, 0).unwrap();
        }
        "gpt" => {
            let mut disk = File::options().read(true).write(true).open(&image).unwrap();
            gpt::mbr::ProtectiveMBR::with_lb_size((BYTES / 512 - 1) as u32).overwrite_lba0(&mut disk).unwrap();
            let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb512);
            let mut table = config.create_from_device(disk, None).unwrap();
            let (first, count) = (START / 512, (BYTES - 2 * START) / 512);
            table.add_partition_at("root", 1, first, count, gpt::partition_types::LINUX_FS, 0).unwrap();
            table.write().unwrap();
        }
        _ => {}
    }
    Some(image)
}

pub(super) fn text(file: &mut File) -> String {
    let mut out = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut out).unwrap();
    out
}

const GRUB: &[u8] = b"menuentry 'a' {\n linux /boot/vmlinuz-1 root=/dev/vda1 quiet\n initrd /boot/initrd-1\n}\n";

#[test]
fn kernels_are_found_behind_every_table() {
    for table in ["none", "mbr", "gpt"] {
        let dir = tempfile::tempdir().unwrap();
        let files = [("boot/grub/grub.cfg", GRUB), ("boot/vmlinuz-1", b"kernel"), ("boot/initrd-1", b"initramfs")];
        let Some(path) = image(dir.path(), table, &files) else { return };
        let disk = File::open(path).unwrap();
        let mut found = find(&disk, BYTES).unwrap_or_else(|e| panic!("{table}: {e}"));
        assert_eq!(text(&mut found.kernel), "kernel");
        assert_eq!(text(found.initramfs.as_mut().unwrap()), "initramfs\0\0\0");
        assert_eq!(found.cmdline, "root=/dev/vda1 quiet");
    }
}

#[test]
fn entries_of_a_boot_partition_and_bare_links_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (b"linux /k-6.9\noptions old\n", b"linux /k-6.10\noptions $kernelopts new\n");
    let files: [(&str, &[u8]); 5] = [
        ("loader/entries/x-6.9.conf", old),
        ("loader/entries/x-6.10.conf", new),
        ("grub2/grubenv", b"# GRUB Environment Block\nkernelopts=root=UUID=7 ro\n"),
        ("k-6.9", b"old"),
        ("k-6.10", b"new"),
    ];
    let Some(path) = image(dir.path(), "mbr", &files) else { return };
    let mut found = find(&File::open(path).unwrap(), BYTES).unwrap();
    assert_eq!((text(&mut found.kernel).as_str(), found.cmdline.as_str()), ("new", "root=UUID=7 ro new"));
    assert!(found.initramfs.is_none());

    let dir = tempfile::tempdir().unwrap();
    let Some(path) = image(dir.path(), "mbr", &[("vmlinuz", b"kernel")]) else { return };
    assert_eq!(find(&File::open(path).unwrap(), BYTES).unwrap().cmdline, "root=PARTUUID=12345678-01 ro");
}

#[test]
fn disks_without_a_kernel_say_what_was_seen() {
    let dir = tempfile::tempdir().unwrap();
    let Some(path) = image(dir.path(), "mbr", &[("boot/grub/grub.cfg", GRUB)]) else { return };
    let error = find(&File::open(path).unwrap(), BYTES).unwrap_err().to_string();
    assert!(error.contains("partition 1: ext4 without a boot entry"), "{error}");
    let empty = tempfile::tempfile().unwrap();
    empty.set_len(BYTES).unwrap();
    assert!(find(&empty, BYTES).unwrap_err().to_string().contains("the whole disk"));
}

#[test]
fn damaged_disks_are_survived() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("boot/grub/grub.cfg", GRUB), ("boot/vmlinuz-1", b"kernel"), ("boot/initrd-1", b"initramfs")];
    let Some(path) = image(dir.path(), "gpt", &files) else { return };
    let disk = File::options().read(true).write(true).open(path).unwrap();
    // Table, superblock, group descriptors, inodes: one word of nonsense each time.
    let mut random = 0x5eed_u64;
    for _ in 0..300 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = if random >> 63 == 0 { random >> 20 & 0x7fff } else { START + (random >> 20 & 0xf_ffff) };
        let mut old = [0; 4];
        disk.read_exact_at(&mut old, at).unwrap();
        disk.write_all_at(&(random as u32).to_le_bytes(), at).unwrap();
        let _ = find(&disk, BYTES);
        disk.write_all_at(&old, at).unwrap();
    }
    find(&disk, BYTES).unwrap();
}

/// A superblock alone, with these blocks and so many in a group.
fn superblock(blocks: u32, in_group: u32) -> File {
    let mut bytes = vec![0; 1 << 20];
    bytes[1024 + 0x4..1024 + 0x8].copy_from_slice(&blocks.to_le_bytes());
    bytes[1024 + 0x20..1024 + 0x24].copy_from_slice(&in_group.to_le_bytes());
    bytes[1024 + 0x38..1024 + 0x3a].copy_from_slice(&[0x53, 0xef]);
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file
}

#[test]
fn an_ext4_that_would_take_all_memory_is_refused() {
    for (blocks, in_group, why) in [
        (u32::MAX, 1, "larger than its partition"),
        (1025, 8, "larger than its partition"),
        (1024, 0, "too many block groups"),
    ] {
        let error = find(&superblock(blocks, in_group), 1 << 20).err().unwrap().to_string();
        assert!(error.contains(why), "{blocks} {in_group}: {error}");
    }
}
