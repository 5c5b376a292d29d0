//! The readers of our own against file systems made by their own tools, where those are installed; and damaged ones.

use super::tests::text;
use super::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(super) fn ran(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

pub(super) fn empty(path: &Path, bytes: u64) {
    File::create(path).unwrap().set_len(bytes).unwrap();
}

pub(super) fn whole(path: &Path) -> (File, Stretch) {
    let disk = File::open(path).unwrap();
    let bytes = disk.metadata().unwrap().len();
    (disk, Stretch { name: "all".into(), root: "/dev/vda".into(), start: 0, bytes })
}

/// Something that is not the same in any two blocks.
pub(super) fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// An EFI system partition as systemd-boot has it. `kind` is the bits of the FAT.
fn esp(dir: &Path, kind: &str, bytes: u64, sector: &str, kernel: &[u8]) -> Option<PathBuf> {
    let (image, content) = (dir.join(format!("esp{kind}-{sector}")), dir.join("esp"));
    empty(&image, bytes);
    std::fs::create_dir_all(content.join("loader/entries")).unwrap();
    std::fs::create_dir_all(content.join("0123456789abcdef/6.10-generic-with-a-long-name")).unwrap();
    let entry = "title x\nlinux /0123456789ABCDEF/6.10-generic-with-a-long-name/Linux\noptions root=UUID=1 quiet\n";
    std::fs::write(content.join("loader/entries/name with spaces and more than eight.conf"), entry).unwrap();
    std::fs::write(content.join("0123456789abcdef/6.10-generic-with-a-long-name/linux"), kernel).unwrap();
    let made = ran(Command::new("mkfs.fat").args(["-F", kind, "-S", sector, "-s", "1"]).arg(&image))
        && ran(Command::new("mcopy")
            .args(["-s", "-i"])
            .arg(&image)
            .args(["loader", "0123456789abcdef"])
            .arg("::/")
            .current_dir(content));
    if !made {
        eprintln!("SKIPPED: mkfs.fat or mcopy is missing (packages dosfstools, mtools)");
    }
    made.then_some(image)
}

#[test]
fn entries_of_an_efi_partition_are_found_whatever_its_fat() {
    let kernel = pattern(300_001);
    for (kind, bytes, sector) in
        [("12", 1 << 20, "512"), ("16", 8 << 20, "512"), ("32", 40 << 20, "512"), ("32", 300 << 20, "4096")]
    {
        let dir = tempfile::tempdir().unwrap();
        let Some(image) = esp(dir.path(), kind, bytes, sector, &kernel) else { return };
        let found = find(&File::open(image).unwrap(), bytes).unwrap_or_else(|e| panic!("FAT{kind}: {e}"));
        let mut got = vec![0; kernel.len()];
        found.kernel.read_exact_at(&mut got, 0).unwrap();
        assert!(got == kernel && found.cmdline == "root=UUID=1 quiet", "FAT{kind}");
        assert_eq!(found.kernel.metadata().unwrap().len(), kernel.len() as u64);
    }
}

/// `files` are names with contents, `links` names with targets; below a `boot` directory.
fn xfs(dir: &Path, options: &[&str], files: &[(String, Vec<u8>)], links: &[(&str, &str)]) -> Option<PathBuf> {
    let (image, recipe) = (dir.join("xfs"), dir.join("recipe"));
    empty(&image, 320 << 20);
    let mut text = String::from("/none\n0 0\nd--755 0 0\nboot d--755 0 0\n");
    for (n, (name, contents)) in files.iter().enumerate() {
        let path = dir.join(format!("content{n}"));
        std::fs::write(&path, contents).unwrap();
        text += &format!("{name} ---644 0 0 {}\n", path.display());
    }
    text += "$\n";
    links.iter().for_each(|(name, target)| text += &format!("{name} l--777 0 0 {target}\n"));
    std::fs::write(&recipe, text + "$\n").unwrap();
    let made = ran(Command::new("mkfs.xfs").args(["-q", "-f", "-p"]).arg(&recipe).args(options).arg(&image));
    if !made {
        eprintln!("SKIPPED: mkfs.xfs is missing (package xfsprogs), or does not take {options:?}");
    }
    made.then_some(image)
}

#[test]
fn kernels_of_an_xfs_are_found_through_links_and_directories_of_every_form() {
    // By the number of names a directory is in its inode, one block, several blocks, or has a tree for its index.
    for (options, count) in [
        (&["-m", "crc=1"][..], 0),
        (&["-m", "crc=1"], 40),
        (&["-m", "crc=1", "-i", "size=1024", "-n", "size=8192"], 3000),
        (&["-b", "size=1024"], 400),
        (&["-m", "crc=0", "-n", "ftype=0"], 40),
    ] {
        let (dir, kernel) = (tempfile::tempdir().unwrap(), pattern(700_001));
        let mut files: Vec<(String, Vec<u8>)> =
            (0..count).map(|n| (format!("config-with-a-name-that-is-long-{n}"), vec![1])).collect();
        files.push(("vmlinuz-6.10".into(), kernel.clone()));
        files.push(("initrd-6.10".into(), b"initramfs".to_vec()));
        let links =
            [("vmlinuz", "/boot/./vmlinuz-6.10"), ("initrd.img", "boot/../boot/initrd-6.10"), ("endless", "endless")];
        let Some(image) = xfs(dir.path(), options, &files, &links) else { continue };
        let (disk, stretch) = whole(&image);
        let found = find(&disk, stretch.bytes).unwrap_or_else(|e| panic!("{options:?}: {e}"));
        let mut got = vec![0; kernel.len()];
        found.kernel.read_exact_at(&mut got, 0).unwrap();
        assert!(got == kernel, "{options:?}");
        assert_eq!(text(&mut found.initramfs.unwrap()), "initramfs\0\0\0");
        assert_eq!(found.cmdline, "root=/dev/vda ro");
        let reader = Reader::load(&disk, &stretch).unwrap().remove(0);
        assert_eq!((reader.name(), reader.names("/boot").len()), ("xfs", (count + 2).min(1000)), "{options:?}");
        assert!(!reader.has("/endless") && !reader.has("/boot/vmlinuz-6.10/x") && reader.has("/../vmlinuz"));
    }
}

/// A file in thousands of pieces has a tree for its extents; only a kernel can make one, where this process may mount.
#[test]
fn a_file_in_pieces_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = xfs(dir.path(), &["-m", "crc=1"], &[], &[]) else { return };
    let mounted = dir.path().join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    if !ran(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted)) {
        eprintln!("SKIPPED: cannot mount an xfs image here");
        return;
    }
    let (file, contents) = (File::create(mounted.join("vmlinuz")).unwrap(), pattern(500 * 8192));
    // Every other block is a hole.
    let written =
        contents.chunks(8192).enumerate().try_for_each(|(n, part)| file.write_all_at(&part[..4096], n as u64 * 8192));
    drop(file);
    assert!(ran(Command::new("umount").arg(&mounted)));
    written.unwrap();
    let (disk, stretch) = whole(&image);
    let got = Reader::load(&disk, &stretch).unwrap()[0].read("/vmlinuz", KERNEL_BYTES_MAX).unwrap();
    assert_eq!(got.len(), contents.len() - 4096);
    for (n, part) in contents.chunks(8192).enumerate() {
        let at = n * 8192;
        assert!(got[at..at + 4096] == part[..4096] && got.iter().skip(at + 4096).take(4096).all(|byte| *byte == 0));
    }
}

#[test]
fn damaged_file_systems_are_survived() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("vmlinuz-6".to_owned(), pattern(50_000))];
    let images = [
        esp(dir.path(), "16", 8 << 20, "512", &pattern(50_000)),
        xfs(dir.path(), &["-m", "crc=1"], &files, &[("vmlinuz", "boot/vmlinuz-6")]),
    ];
    for path in images.into_iter().flatten() {
        let disk = File::options().read(true).write(true).open(path).unwrap();
        let bytes = disk.metadata().unwrap().len();
        find(&disk, bytes).unwrap();
        let mut random = 0x5eed_u64;
        for _ in 0..400 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Superblock or boot sector every other time; else tables, inodes, directories.
            let at = if random >> 63 == 0 { random >> 20 & 0xff } else { random >> 20 & 0x1_ffff };
            let mut old = [0; 4];
            disk.read_exact_at(&mut old, at).unwrap();
            disk.write_all_at(&(random as u32).to_le_bytes(), at).unwrap();
            let _ = find(&disk, bytes);
            disk.write_all_at(&old, at).unwrap();
        }
        find(&disk, bytes).unwrap();
    }
}

#[test]
fn a_table_of_large_sectors_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let Some(esp) = esp(dir.path(), "32", 300 << 20, "4096", b"kernel") else { return };
    let (path, bytes) = (dir.path().join("disk"), 304u64 << 20);
    empty(&path, bytes);
    let disk = || File::options().read(true).write(true).open(&path).unwrap();
    let mut first = disk();
    gpt::mbr::ProtectiveMBR::with_lb_size((bytes / 4096 - 1) as u32).overwrite_lba0(&mut first).unwrap();
    let config = gpt::GptConfig::new().writable(true).logical_block_size(gpt::disk::LogicalBlockSize::Lb4096);
    let mut table = config.create_from_device(first, None).unwrap();
    table.add_partition_at("esp", 1, 256, (300 << 20) / 4096, gpt::partition_types::EFI, 0).unwrap();
    table.write().unwrap();
    disk().write_all_at(&std::fs::read(esp).unwrap(), 256 * 4096).unwrap();
    let mut found = find(&disk(), bytes).unwrap();
    assert_eq!((text(&mut found.kernel).as_str(), block_size(&disk())), ("kernel", 4096));
    disk().write_all_at(b"EFI PART", 512).unwrap();
    assert_eq!(block_size(&disk()), 512);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 4096), which in 0..4) {
        match which {
            0 => bytes[..4].copy_from_slice(b"XFSB"),
            1 => {
                (bytes[0], bytes[16]) = (0xeb, 2);
                bytes[11..13].copy_from_slice(&[0, 2]);
                bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            }
            // Its superblock, where that is looked for: without a right checksum there is no way on.
            2 => bytes[64..72].copy_from_slice(b"_BHRfS_M"),
            _ => {}
        }
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, if which == 2 { 64 << 10 } else { 0 }).unwrap();
        file.set_len(1 << 20).unwrap();
        let _ = find(&file, 1 << 20);
    }
}
