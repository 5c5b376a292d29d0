//! The three ways into a kernel, with one guest that has them all.

use crate::rig::{Running, Setup, guest, kvm_is_here};
use serde_json::json;

/// The guest's file without its PVH note: a kernel that has only a 64-bit entry.
fn without_note() -> Vec<u8> {
    let mut bytes = std::fs::read(guest()).unwrap();
    let note: Vec<u8> = [4u32, 4, 18].iter().flat_map(|v| v.to_le_bytes()).chain(*b"Xen\0").collect();
    let at = bytes.windows(note.len()).position(|w| w == note).unwrap();
    bytes[at + 8] = 0;
    bytes
}

/// Offset, address, bytes in the file and in memory of the first loadable segment.
fn segment(elf: &[u8]) -> (usize, u64, usize, u64) {
    let word = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
    let table = word(32) as usize;
    let count = usize::from(u16::from_le_bytes([elf[56], elf[57]]));
    let headers = (0..count).map(|n| table + n * 56);
    let load = headers.into_iter().find(|at| elf[*at..*at + 4] == [1, 0, 0, 0]).unwrap();
    (word(load + 8) as usize, word(load + 24), word(load + 32) as usize, word(load + 40))
}

/// The same code in Linux's file format.
fn as_bzimage() -> Vec<u8> {
    let elf = without_note();
    let (offset, address, in_file, in_memory) = segment(&elf);
    let mut image = vec![0u8; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // one sector of setup code
    put(0x1fe, &[0x55, 0xaa]);
    put(0x202, b"HdrS");
    put(0x206, &0x20fu16.to_le_bytes());
    put(0x211, &[1]); // loaded high
    put(0x214, &(address as u32).to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x236, &1u16.to_le_bytes()); // 64-bit entry
    put(0x238, &2047u32.to_le_bytes());
    put(0x260, &(in_memory as u32).to_le_bytes());
    image.extend_from_slice(&elf[offset..offset + in_file]);
    image
}

#[test]
fn every_kernel_format_boots_to_a_working_disk() {
    if !kvm_is_here() {
        return;
    }
    let kernels = [("pvh", std::fs::read(guest()).unwrap()), ("linux64", without_note()), ("linux64", as_bzimage())];
    for (entry, kernel) in kernels {
        let mut setup = Setup::new("disk");
        setup.with_disk(false);
        std::fs::write(setup.path("kernel"), kernel).unwrap();
        setup.config["kernel"] = json!({"path": setup.path("kernel")});
        // Something to carry along, so that its placement is exercised on every way.
        std::fs::write(setup.path("initramfs"), vec![0x5a; 100_000]).unwrap();
        setup.config["initramfs"] = json!({"path": setup.path("initramfs")});
        let mut guest = setup.start();
        guest.ends_with(0);
        let console = guest.console();
        assert!(console.contains(&format!("up by {entry}")) && console.contains("disk verified"), "{console}");
    }
}

/// What `boots` says of a disk, as nobody where that can be.
pub fn looked_at(disk: &std::path::Path) -> pilvi_vmm::boot::probe::Boots {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pilvi-vmm"));
    command.arg("boots").arg(disk);
    // SAFETY: a plain query.
    if unsafe { libc::geteuid() } == 0 {
        command.args(["65534", "65534"]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is found on the disk is what then runs.
fn boots_by_itself(mut setup: Setup, image: &std::path::Path) -> Running {
    let looked = looked_at(image);
    assert!(looked.boots && looked.kernel == "/boot/vmlinuz" && looked.cmdline == "rng", "{looked:?}");
    setup.config["kernel"] = json!(null);
    setup.config["disks"] = json!([{"source": {"path": image}}]);
    let mut guest = setup.start();
    guest.expect("idle");
    assert!(guest.console().contains("rng 16 ["), "{}", guest.console());
    guest
}

#[test]
fn a_disk_boots_by_itself_again_after_a_reset() {
    if !kvm_is_here() {
        return;
    }
    let setup = Setup::new("idle");
    let (content, image) = (setup.path("content"), setup.path("boots.raw"));
    std::fs::create_dir_all(content.join("boot/grub")).unwrap();
    std::fs::copy(guest(), content.join("boot/vmlinuz")).unwrap();
    std::fs::write(content.join("boot/grub/grub.cfg"), "menuentry 'x' {\nlinux /boot/vmlinuz rng\n}\n").unwrap();
    std::fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let made = std::process::Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&content).arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: mkfs.ext4 is missing (package e2fsprogs)");
        return;
    }
    let mut guest = boots_by_itself(setup, &image);
    guest.client().reset().unwrap();
    crate::rig::until("the second start", crate::rig::PATIENCE, || guest.console().matches("rng 16 [").count() == 2);
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut empty = Setup::new("");
    empty.with_disk(false);
    empty.config["kernel"] = json!(null);
    let looked = looked_at(&empty.path("disk.raw"));
    assert!(!looked.boots && looked.reason.contains("no partition"), "{looked:?}");
    // A file of that name that is no kernel.
    std::fs::write(content.join("boot/vmlinuz"), "not a kernel").unwrap();
    let other = empty.path("other.raw");
    std::fs::File::create(&other).unwrap().set_len(16 << 20).unwrap();
    std::process::Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&content).arg(&other).status().unwrap();
    let looked = looked_at(&other);
    assert!(!looked.boots && looked.reason.contains("is no kernel"), "{looked:?}");
    let mut empty = empty.start();
    empty.ends_with(1);
    assert!(empty.stderr().contains("no partition of the disk has a kernel"), "{}", empty.stderr());
}

/// The same from a btrfs, in the jail.
#[test]
fn a_disk_of_btrfs_boots_by_itself() {
    if !kvm_is_here() {
        return;
    }
    let setup = Setup::new("idle");
    let (content, image) = (setup.path("content"), setup.path("btrfs.raw"));
    std::fs::create_dir_all(content.join("boot/grub2")).unwrap();
    std::fs::copy(guest(), content.join("boot/vmlinuz")).unwrap();
    std::fs::write(content.join("boot/grub2/grub.cfg"), "menuentry 'x' {\nlinux /boot/vmlinuz rng\n}\n").unwrap();
    std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    let made = std::process::Command::new("mkfs.btrfs").args(["-q", "--rootdir"]).arg(&content).arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: mkfs.btrfs is missing (package btrfs-progs)");
        return;
    }
    let mut guest = boots_by_itself(setup, &image);
    guest.client().kill().unwrap();
    guest.ends_with(5);
}
