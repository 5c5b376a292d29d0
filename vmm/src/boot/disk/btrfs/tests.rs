//! File systems made by btrfs' own tools and, where this process may mount, by the kernel; and damaged ones.

use super::super::reader_tests::{empty, pattern, ran, whole};
use super::super::tests::text;
use super::super::{Found, KERNEL_BYTES_MAX, Reader, find};
use super::*;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const BYTES: u64 = 256 << 20;
const GRUB: &str =
    "menuentry 'a' {\n linux /boot/vmlinuz-6.10 root=UUID=1 ro quiet\n initrd /boot/initrd-6.10\n}\nmenuentry b {\n}\n";

fn make(dir: &Path, options: &[&str]) -> Option<PathBuf> {
    let image = dir.join("btrfs");
    empty(&image, BYTES);
    let made = ran(Command::new("mkfs.btrfs").args(["-q", "-f"]).args(options).arg(&image).current_dir(dir));
    if !made {
        eprintln!("SKIPPED: mkfs.btrfs is missing (package btrfs-progs), or does not take {options:?}");
    }
    made.then_some(image)
}

/// A boot folder as Debian has it, and more names than one node keeps.
fn fill(folder: &Path, kernel: &[u8], count: usize) {
    let boot = folder.join("boot");
    std::fs::create_dir_all(&boot).unwrap();
    for n in 0..count {
        std::fs::write(boot.join(format!("config-with-a-name-that-is-long-{n}")), "x").unwrap();
    }
    std::fs::write(boot.join("vmlinuz-6.10"), kernel).unwrap();
    std::fs::write(boot.join("initrd-6.10"), "initramfs").unwrap();
    for (name, target) in
        [("vmlinuz", "/boot/./vmlinuz-6.10"), ("initrd.img", "boot/../boot/initrd-6.10"), ("endless", "endless")]
    {
        std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
    }
}

/// Mounted for as long as it lives.
struct Mounted(PathBuf);

impl Mounted {
    fn at(image: &Path, options: &str) -> Option<Mounted> {
        let place = image.with_extension("mounted");
        std::fs::create_dir_all(&place).unwrap();
        let options = format!("loop,{options}");
        let done = ran(Command::new("mount").args(["-t", "btrfs", "-o", &options]).arg(image).arg(&place));
        if !done {
            eprintln!("SKIPPED: cannot mount a btrfs image here");
        }
        done.then_some(Mounted(place))
    }

    fn subvolume(&self, name: &str) -> PathBuf {
        assert!(ran(Command::new("btrfs").args(["subvolume", "create"]).arg(self.0.join(name))));
        self.0.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(ran(Command::new("umount").arg(&self.0)));
    }
}

fn load(image: &Path) -> Result<Vec<Reader>, String> {
    let (disk, stretch) = whole(image);
    Reader::load(&disk, &stretch)
}

fn found(image: &Path) -> Found {
    find(&File::open(image).unwrap(), BYTES).unwrap_or_else(|e| panic!("{}: {e}", image.display()))
}

fn is_kernel(found: &Found, kernel: &[u8]) -> bool {
    let mut got = vec![0; kernel.len()];
    found.kernel.read_exact_at(&mut got, 0).unwrap();
    got == kernel && found.kernel.metadata().unwrap().len() == kernel.len() as u64
}

/// Bytes that can be packed: some much, some little.
fn lines(bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0u32.. {
        out.extend(format!("line {n} of {}\n", n.wrapping_mul(2_654_435_761)).bytes());
        if n % 50 == 0 {
            out.extend(vec![b'-'; 600 + (n as usize % 3000)]);
            out.extend(pattern(300 + n as usize % 700));
        }
        if out.len() >= bytes {
            out.truncate(bytes);
            break;
        }
    }
    out
}

#[test]
fn kernels_are_found_whatever_the_sizes_and_profiles() {
    for (options, count) in [
        (&[][..], 0),
        (&["-n", "4096", "-m", "single"], 3000),
        (&["-n", "65536", "-m", "dup", "-d", "dup"], 900),
        (&["-M", "-n", "4096"], 40),
        (&["-O", "^no-holes,^skinny-metadata"], 40),
    ] {
        let (dir, kernel) = (tempfile::tempdir().unwrap(), pattern(700_001));
        fill(&dir.path().join("content"), &kernel, count);
        let options: Vec<&str> = ["--rootdir", "content"].into_iter().chain(options.iter().copied()).collect();
        let Some(image) = make(dir.path(), &options) else { continue };
        let mut found = found(&image);
        assert!(is_kernel(&found, &kernel), "{options:?}");
        assert_eq!(text(found.initramfs.as_mut().unwrap()), "initramfs\0\0\0");
        assert_eq!(found.cmdline, "root=/dev/vda ro");
        let reader = load(&image).unwrap().remove(0);
        assert_eq!((reader.name(), reader.names("/boot").len()), ("btrfs", (count + 2).min(1000)), "{options:?}");
        assert!(!reader.has("/endless") && !reader.has("/boot/vmlinuz-6.10/x") && reader.has("/../vmlinuz"));
        assert!(!reader.has("/boot/vmlinuz-6.1") && !reader.has("/none"));
    }
}

#[test]
fn packed_contents_are_unpacked() {
    for how in ["zlib", "lzo", "zstd"] {
        let (dir, kernel) = (tempfile::tempdir().unwrap(), lines(3_000_001));
        let content = dir.path().join("content");
        fill(&content, &kernel, 0);
        std::fs::create_dir(content.join("boot/grub")).unwrap();
        std::fs::write(content.join("boot/grub/grub.cfg"), GRUB.to_owned() + &"# more of the same\n".repeat(50))
            .unwrap();
        // Newer tools pack by themselves; for older ones the kernel does.
        let image = dir.path().join("btrfs");
        empty(&image, BYTES);
        let options = ["-q", "-f", "--rootdir", "content", "--compress", how];
        if !ran(Command::new("mkfs.btrfs").args(options).arg(&image).current_dir(dir.path())) {
            let Some(image) = make(dir.path(), &[]) else { return };
            let Some(mounted) = Mounted::at(&image, &format!("compress-force={how}")) else { return };
            assert!(ran(Command::new("cp").arg("-a").arg(content.join("boot")).arg(&mounted.0)));
        }
        let found = found(&image);
        assert!(is_kernel(&found, &kernel), "{how}");
        assert_eq!(found.cmdline, "root=UUID=1 ro quiet");
        // Packed it was, or this says nothing.
        let reader = load(&image).unwrap().remove(0);
        let Reader::Btrfs(btrfs) = &reader else { panic!("{}", reader.name()) };
        for path in ["/boot/vmlinuz-6.10", "/boot/grub/grub.cfg"] {
            let node = btrfs.find(path).unwrap();
            let wanted = ["zlib", "lzo", "zstd"].iter().position(|name| *name == how).unwrap() + 1;
            let item = btrfs.nodes.item(node.volume, Key::new(node.inode, 108, 0)).unwrap();
            assert_eq!(usize::from(item[16]), wanted, "{path}");
        }
    }
}

/// Pieces of all kinds: holes, room without contents, parts of packed extents that were written over.
#[test]
fn files_in_pieces_are_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let Some(image) = make(dir.path(), &[]) else { return };
    let Some(mounted) = Mounted::at(&image, "compress=zstd") else { return };
    let contents = lines(500 * 8192);
    let holes = File::create(mounted.0.join("holes")).unwrap();
    for (n, part) in contents.chunks(8192).enumerate() {
        holes.write_all_at(&part[..4096], n as u64 * 8192).unwrap();
    }
    let over = File::create(mounted.0.join("over")).unwrap();
    over.write_all_at(&contents[..1 << 20], 0).unwrap();
    over.sync_all().unwrap();
    for n in 0..16 {
        over.write_all_at(&[n; 4096], 20_480 + u64::from(n) * 65_536).unwrap();
    }
    let room = mounted.0.join("room");
    assert!(ran(Command::new("fallocate").args(["-l", "1M"]).arg(&room)));
    File::options().write(true).open(&room).unwrap().write_all_at(&contents[..8192], 65_536).unwrap();
    drop((holes, over, mounted));

    let reader = load(&image).unwrap().remove(0);
    let got = reader.read("/holes", KERNEL_BYTES_MAX).unwrap();
    assert_eq!(got.len(), contents.len() - 4096);
    for (n, part) in contents.chunks(8192).enumerate() {
        let at = n * 8192;
        assert!(got[at..at + 4096] == part[..4096] && got.iter().skip(at + 4096).take(4096).all(|byte| *byte == 0));
    }
    let mut wanted = contents[..1 << 20].to_vec();
    (0..16).for_each(|n| wanted[20_480 + n * 65_536..][..4096].fill(n as u8));
    assert!(reader.read("/over", KERNEL_BYTES_MAX).unwrap() == wanted);
    let mut wanted = vec![0; 1 << 20];
    wanted[65_536..][..8192].copy_from_slice(&contents[..8192]);
    assert!(reader.read("/room", KERNEL_BYTES_MAX).unwrap() == wanted);
    assert!(reader.read("/room", 1 << 19).unwrap_err().to_string().contains("more than"));
}

/// A file system with what `work` does to it mounted.
fn with(dir: &Path, work: impl FnOnce(&Mounted)) -> Option<PathBuf> {
    let image = make(dir, &[])?;
    work(&Mounted::at(&image, "noatime")?);
    Some(image)
}

fn kernel_and_cmdline(image: &Path) -> (String, String) {
    let mut found = found(image);
    (text(&mut found.kernel), found.cmdline)
}

fn pair(kernel: &str, cmdline: &str) -> (String, String) {
    (kernel.into(), cmdline.into())
}

/// Fedora: a subvolume for the root, one for the boot folder; entries name paths from the top, whatever the default is.
#[test]
fn entries_of_a_boot_subvolume_are_found() {
    for is_default in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let image = with(dir.path(), |mounted| {
            let (root, boot) = (mounted.subvolume("root"), mounted.subvolume("boot"));
            std::fs::create_dir(root.join("boot")).unwrap();
            std::fs::create_dir_all(boot.join("loader/entries")).unwrap();
            std::fs::write(boot.join("vmlinuz-6"), "fedora").unwrap();
            let entry = "linux /boot/vmlinuz-6\noptions root=UUID=1 rootflags=subvol=root\n";
            std::fs::write(boot.join("loader/entries/a-6.conf"), entry).unwrap();
            if is_default {
                assert!(ran(Command::new("btrfs").args(["subvolume", "set-default"]).arg(root)));
            }
        });
        let Some(image) = image else { return };
        assert_eq!(kernel_and_cmdline(&image), pair("fedora", "root=UUID=1 rootflags=subvol=root"));
        assert_eq!(load(&image).unwrap().len(), if is_default { 2 } else { 3 });
    }
}

/// Debian, Ubuntu, openSUSE: subvolumes that are the root. The default comes first, then by their names.
#[test]
fn kernels_of_a_root_subvolume_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let image = with(dir.path(), |mounted| fill(&mounted.subvolume("@rootfs"), b"debian", 0));
    let Some(image) = image else { return };
    assert_eq!(kernel_and_cmdline(&image), pair("debian", "root=/dev/vda ro rootflags=subvol=@rootfs"));
    let work = |work: &dyn Fn(&Mounted)| work(&Mounted::at(&image, "noatime").unwrap());
    // GRUB knows the path from the top.
    work(&|mounted| {
        let boot = mounted.subvolume("@").join("boot");
        std::fs::create_dir_all(boot.join("grub")).unwrap();
        std::fs::write(boot.join("vmlinuz-6"), "ubuntu").unwrap();
        let entry = "menuentry 'a' {\n linux /@/boot/vmlinuz-6 root=UUID=1 rootflags=subvol=@\n}\n";
        std::fs::write(boot.join("grub/grub.cfg"), entry).unwrap();
    });
    assert_eq!(kernel_and_cmdline(&image), pair("ubuntu", "root=UUID=1 rootflags=subvol=@"));
    // A snapshot, somewhere.
    work(&|mounted| {
        let snapshot = mounted.0.join("@/snapshot");
        let run = |words: &[&str], paths: &[&Path]| assert!(ran(Command::new("btrfs").args(words).args(paths)));
        run(&["subvolume", "snapshot"], &[&mounted.0.join("@rootfs"), &snapshot]);
        std::fs::remove_file(snapshot.join("boot/vmlinuz-6.10")).unwrap();
        std::fs::write(snapshot.join("boot/vmlinuz-6.10"), "suse").unwrap();
        run(&["subvolume", "set-default"], &[&snapshot]);
    });
    assert_eq!(kernel_and_cmdline(&image), pair("suse", "root=/dev/vda ro"));
    assert_eq!(load(&image).unwrap().len(), 3);
}

#[test]
fn what_is_not_read_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let second = dir.path().join("second");
    empty(&second, BYTES);
    for (options, why) in [
        (&["-m", "raid1", "-d", "raid0", "second"][..], "over several devices"),
        (&["--csum", "xxhash"], "checksums other than crc32c"),
    ] {
        let Some(image) = make(dir.path(), options) else { continue };
        let said = find(&File::open(image).unwrap(), BYTES).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
    for profile in [0x8u64, 0x10, 0x40, 0x80, 0x100, 0x200, 0x400] {
        let mut item = vec![0; 48 + 32];
        (item[0], item[44], item[48]) = (1, 1, 1);
        let mut chunks = chunks::Chunks::default();
        chunks.add(0, &item, 1).unwrap();
        item[24..32].copy_from_slice(&(profile | 1).to_le_bytes());
        let said = chunks.add(0, &item, 1).unwrap_err().to_string();
        assert!(said.contains("RAID"), "{profile:#x}: {said}");
    }
    for (how, said) in [(4, "in a way that is not read"), (1, "zlib"), (2, "cut off"), (3, "zstd")] {
        let e = unpack::unpack(how, &[0xff; 64], 4096, 4096).unwrap_err().to_string();
        assert!(e.contains(said), "{how}: {e}");
    }
}

/// Places of all nodes: what has a right checksum over this many bytes.
fn nodes(disk: &File, size: usize) -> Vec<u64> {
    let is_node = |place: &u64| {
        let mut node = vec![0; size];
        disk.read_exact_at(&mut node, *place).is_ok()
            && node[..4] != [0; 4]
            && u32_at(&node, 0).unwrap() == checksum(&node[superblock::CHECKSUM..])
    };
    (1 << 20..BYTES).step_by(size).filter(is_node).collect()
}

#[test]
fn copies_stand_in_for_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("content"), b"kernel", 0);
    let Some(image) = make(dir.path(), &["--rootdir", "content", "-m", "dup"]) else { return };
    let disk = File::options().read(true).write(true).open(&image).unwrap();
    disk.write_all_at(b"x", (64 << 10) + 100).unwrap();
    assert!(is_kernel(&found(&image), b"kernel"));
    let superblock = Superblock::load(&super::super::Window::of(&disk, &whole(&image).1).unwrap()).unwrap();
    let (window, mut copies) = (super::super::Window::of(&disk, &whole(&image).1).unwrap(), Vec::new());
    for place in nodes(&disk, superblock.node) {
        let mut address = [0; 8];
        disk.read_exact_at(&mut address, place + 48).unwrap();
        if u64::from_le_bytes(address) == superblock.root {
            copies.push(place);
        }
    }
    assert_eq!(copies.len(), 2);
    disk.write_all_at(&[0xff; 64], copies[0] + 500).unwrap();
    assert!(is_kernel(&found(&image), b"kernel"));
    disk.write_all_at(&[0xff; 64], copies[1] + 500).unwrap();
    let said = views(window).unwrap_err().to_string();
    assert!(said.contains("damaged"), "{said}");
    disk.write_all_at(b"x", (64 << 20) + 100).unwrap();
    let said = load(&image).err().unwrap();
    assert!(said.contains("whose superblock is damaged"), "{said}");
    disk.write_all_at(b"x", (64 << 10) + 64).unwrap();
    assert!(!load(&image).err().unwrap().contains("btrfs"));
}

#[test]
fn damage_with_right_checksums_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("content"), &pattern(50_000), 10);
    let Some(image) = make(dir.path(), &["--rootdir", "content", "-n", "4096", "-m", "single"]) else { return };
    let disk = File::options().read(true).write(true).open(&image).unwrap();
    // Of the trees that are read: roots, chunks, and the only subvolume.
    let mut places = nodes(&disk, 4096);
    places.retain(|place| {
        let mut owner = [0; 8];
        disk.read_exact_at(&mut owner, place + 88).unwrap();
        [1, 3, TOP].contains(&u64::from_le_bytes(owner))
    });
    assert!(places.len() > 2, "{places:?}");
    places.push(64 << 10);
    let (mut random, mut refused) = (0x5eed_u64, 0);
    for n in 0..600 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = places[n % places.len()];
        let mut old = vec![0; 4096];
        disk.read_exact_at(&mut old, place).unwrap();
        // Somewhere in what is in use.
        let used: Vec<usize> = (32..4092).filter(|at| old[*at] != 0).collect();
        let at = used[(random >> 40) as usize % used.len()];
        let mut new = old.clone();
        new[at..at + 4].copy_from_slice(&(random as u32).to_le_bytes());
        let sum = checksum(&new[32..]).to_le_bytes();
        new[..4].copy_from_slice(&sum);
        disk.write_all_at(&new, place).unwrap();
        refused += usize::from(find(&disk, BYTES).is_err());
        disk.write_all_at(&old, place).unwrap();
    }
    assert!(refused > 20, "{refused}");
    find(&disk, BYTES).unwrap();
}

/// All ways lead to one leaf, and keys say that each may have what is looked for: walks go them all, until it is enough.
#[test]
fn trees_without_end_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("content"), b"kernel", 3000);
    let Some(image) = make(dir.path(), &["--rootdir", "content", "-n", "4096", "-m", "single"]) else { return };
    let disk = File::options().read(true).write(true).open(&image).unwrap();
    let mut highest = 0;
    for place in nodes(&disk, 4096) {
        let mut node = vec![0; 4096];
        disk.read_exact_at(&mut node, place).unwrap();
        if u64_at(&node, 88).unwrap() != TOP {
            continue;
        }
        let count: u32 = if node[100] == 0 { 1 } else { 121 };
        if node[100] > 0 {
            let (first, rest) = node[101..].split_at_mut(33);
            for pointer in rest.chunks_exact_mut(33) {
                pointer.copy_from_slice(first);
                pointer[..8].fill(0xff);
            }
        }
        highest = highest.max(node[100]);
        node[96..100].copy_from_slice(&count.to_le_bytes());
        let sum = checksum(&node[32..]).to_le_bytes();
        node[..4].copy_from_slice(&sum);
        disk.write_all_at(&node, place).unwrap();
    }
    assert_eq!(highest, 2);
    let reader = load(&image).unwrap().remove(0);
    let said = || reader.read("/vmlinuz", 1).unwrap_err().to_string();
    assert!(!said().contains("without end"), "{}", said());
    let turns = (0..200).find(|_| said().contains("without end"));
    assert!(turns.is_some_and(|turns| turns > 5), "{turns:?}");
}

#[test]
fn checksums_are_as_published() {
    assert_eq!(checksum(b"123456789"), 0xe306_9283);
    assert_eq!(hash("default"), 0x8dbf_c2d2);
}

proptest! {
    #[test]
    fn anything_packed_is_survived(mut bytes in proptest::collection::vec(any::<u8>(), 8..600), how in 0u8..5, most in 0usize..9000) {
        if how == 2 {
            let length = (bytes.len() as u32).to_le_bytes();
            bytes[..4].copy_from_slice(&length);
            let first = (bytes.len() as u32 - 8).to_le_bytes();
            bytes[4..8].copy_from_slice(&first);
        }
        if let Ok(out) = unpack::unpack(how, &bytes, most, 4096) {
            prop_assert_eq!(out.len(), most);
        }
        if let Ok(out) = lzo::unpack(&bytes, most) {
            prop_assert!(out.len() <= most);
        }
    }
}
