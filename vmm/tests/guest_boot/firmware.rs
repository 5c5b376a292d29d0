//! Machines that SeaBIOS starts, where Debian's package has put it: boot sectors of our own, and GRUB.

use crate::rig::{PATIENCE, Running, Setup, guest, kvm_is_here, until};
use crate::{bzimage, entry, linux, migrate, snapshot};
use pilvi_vmm::migrate::Terms;
use serde_json::json;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";
/// GRUB unpacks itself with the processor: a quarter of a minute where KVM emulates, and ten times that on a loaded machine.
const GRUB: Duration = Duration::from_secs(480);
const SECTOR: u64 = 512;

/// Says that it is there, whether RAM lies above 4 GiB, and waits for a key: `r` resets, any other has it read sector 5
/// and say that, and power off.
const BOOT_SECTOR: &[u8] = b"\
\x31\xc0\x8e\xd8\x8e\xc0\x8e\xd0\xbc\x00\x7c\xfc\xfb\x88\x16\xfc\x7d\
\xbe\x9b\x7c\xe8\x68\x00\
\x66\x31\xdb\
\x66\xb8\x20\xe8\0\0\x66\xba\x50\x41\x4d\x53\x66\xb9\x14\0\0\0\xbf\0\x90\xcd\x15\x72\x19\
\x80\x3e\x10\x90\x01\x75\x0d\x83\x3e\x04\x90\0\x74\x06\xbe\xa8\x7c\xe8\x38\0\
\x66\x85\xdb\x75\xce\
\xbe\xb6\x7c\xe8\x2d\0\x31\xc0\xcd\x16\
\x3c\x72\x75\x07\xba\xf9\x0c\xb0\x06\xee\xf4\
\xb4\x42\x8a\x16\xfc\x7d\xbe\x8b\x7c\xcd\x13\xbe\0\x80\x73\x03\xbe\xc1\x7c\xe8\x08\0\
\xba\x04\x06\xb8\0\x34\xef\xf4\
\xba\xf8\x03\xac\x84\xc0\x74\x03\xee\xeb\xf8\xc3\
\x10\0\x01\0\0\x80\0\0\x05\0\0\0\0\0\0\0\
boot sector\n\0memory above\n\0which key\n\0cannot read\n\0";
// In its order: segments and stack, the drive's number kept at 7dfch, the first line; INT 15h E820h until its end, the
// type of each entry at 9010h and the upper half of its start at 9004h looked at; the question and INT 16h; port cf9h;
// INT 13h 42h with the packet after the code; port 604h; a loop that says a text on COM1.

/// False, with a line that says so, where something is missing.
fn is_here() -> bool {
    if !Path::new(SEABIOS).exists() {
        eprintln!("SKIPPED: {SEABIOS} is missing (package seabios)");
        return false;
    }
    kvm_is_here()
}

fn setup(disk: &dyn Fn(&Setup) -> PathBuf) -> Setup {
    let mut setup = Setup::new("");
    let disk = disk(&setup);
    for (field, value) in [
        ("kernel", json!(null)),
        ("firmware", json!({"path": SEABIOS})),
        ("transport", json!("pci")),
        ("memory_mib", json!(64)),
        ("disks", json!([{"source": {"path": disk}}])),
        ("cpu_mask", json!(pilvi_vmm::probe::probe().cpu_mask())),
    ] {
        setup.config[field] = value;
    }
    setup
}

/// A disk with the sector above, and something to read in sector 5.
fn disk(setup: &Setup) -> PathBuf {
    let path = setup.path("boots.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(BOOT_SECTOR, 0).unwrap();
    file.write_all_at(&[0x55, 0xaa], SECTOR - 2).unwrap();
    file.write_all_at(b"sector five\n\0", 5 * SECTOR).unwrap();
    path
}

fn times(guest: &Running, text: &str) -> usize {
    guest.console().matches(text).count()
}

#[test]
fn seabios_finds_processors_memory_and_a_boot_sector_and_does_so_again_after_a_reset() {
    if !is_here() {
        return;
    }
    let mut setup = setup(&disk);
    assert!(entry::looked_at(&setup.path("boots.raw")).boot_sector);
    setup.config["vcpus"] = json!(2);
    // Nothing touches most of it.
    setup.config["memory_mib"] = json!(4096);
    setup.config["firmware_debug"] = json!(true);
    let mut guest = setup.start();
    let begin = Instant::now();
    guest.expect("which key");
    eprintln!("exec to the boot sector's question: {:.1} s", begin.elapsed().as_secs_f64());
    assert_eq!(times(&guest, "memory above"), 1, "{}", guest.console());
    for line in ["Found 2 cpu(s) max supported 2 cpu(s)", "found virtio-blk at 00:01.0", "ACPI: parse DSDT"] {
        assert!(guest.stderr().contains(line), "no {line:?} in {}", guest.stderr());
    }
    guest.client().console_write(b"r").unwrap();
    until("the question after the reset", PATIENCE, || times(&guest, "which key") == 2);
    assert_eq!(guest.client().status().unwrap().resets, 1);
    guest.client().console_write(b"x").unwrap();
    guest.ends_with(0);
    assert!(guest.console().contains("sector five"), "{}", guest.console());
}

#[test]
fn what_a_firmware_has_started_goes_on_in_other_processes() {
    if !is_here() {
        return;
    }
    let mut first = setup(&disk).start();
    first.expect("which key");
    let (state, memory) = snapshot::save(&mut first);
    first.client().kill().unwrap();
    first.ends_with(5);
    // One without a firmware cannot go on with it.
    let mut other = snapshot::restored(&first, &state, &memory, true);
    other.config["firmware"] = json!(null);
    let mut other = other.start();
    other.ends_with(1);
    assert!(other.stderr().contains("it was started by a firmware, this has none"), "{}", other.stderr());
    let mut moving = snapshot::restored(&first, &state, &memory, true).start();
    let mut target = migrate::target(&moving);
    moving.client().migrate(migrate::stream(&target).as_raw_fd(), Terms::default()).unwrap();
    moving.ends_with(7);
    target.client().console_write(b"x").unwrap();
    target.ends_with(0);
    assert_eq!((times(&target, "sector five"), times(&target, "SeaBIOS")), (1, 0), "{}", target.console());
}

#[test]
fn a_kernel_on_the_disk_can_go_before_the_firmware() {
    if !is_here() {
        return;
    }
    let with_kernel = |setup: &Setup| {
        let (content, image) = (setup.path("content"), disk(setup));
        std::fs::create_dir_all(content.join("boot")).unwrap();
        std::fs::copy(guest(), content.join("vmlinuz")).unwrap();
        std::fs::File::options().write(true).open(&image).unwrap().set_len(16 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-d"]).arg(&content).arg(&image).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4 is missing (package e2fsprogs)");
        // Its maker cleared the first sector, which is not a part of the file system.
        let file = std::fs::File::options().write(true).open(&image).unwrap();
        file.write_all_at(BOOT_SECTOR, 0).unwrap();
        file.write_all_at(&[0x55, 0xaa], SECTOR - 2).unwrap();
        image
    };
    for (first, said) in [(true, "PILVI-GUEST up"), (false, "which key")] {
        let mut setup = setup(&with_kernel);
        setup.config["kernel_first"] = json!(first);
        let mut guest = setup.start();
        guest.expect(said);
        assert_eq!(guest.console().contains("SeaBIOS"), !first, "{}", guest.console());
    }
    // Where there is none, the firmware looks.
    let mut setup = setup(&disk);
    setup.config["kernel_first"] = json!(true);
    setup.start().expect("which key");
}

#[test]
fn nothing_to_start_is_said_and_no_firmware_is_refused() {
    if !is_here() {
        return;
    }
    let empty = |setup: &Setup| {
        let path = setup.path("empty.raw");
        std::fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
        path
    };
    let mut guest = setup(&empty).start();
    guest.expect("No bootable device.");
    guest.client().kill().unwrap();
    guest.ends_with(5);
    let mut setup = setup(&empty);
    setup.config["firmware"] = json!({"path": setup.path("empty.raw")});
    let mut refused = setup.start();
    refused.ends_with(1);
    assert!(refused.stderr().contains("cannot open the firmware: a BIOS image has"), "{}", refused.stderr());
}

/// A disk as an installer leaves it: GRUB in the first sector and behind the table, its configuration on ext4.
fn grub_disk(setup: &Setup, config: &str, files: &[(&str, &Path)]) -> Option<PathBuf> {
    const PARTITION: u64 = 2048;
    const MIB: u64 = 60;
    let (content, core, path) = (setup.path("content"), setup.path("core"), setup.path("grub.raw"));
    std::fs::create_dir_all(content.join("boot/grub")).unwrap();
    std::fs::write(content.join("boot/grub/grub.cfg"), config).unwrap();
    for (name, file) in files {
        std::fs::copy(file, content.join("boot").join(name)).unwrap();
    }
    let modules = "biosdisk part_msdos ext2 normal serial echo linux lsmmap lsacpi iorw";
    let made = Command::new("grub-mkimage")
        .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o"])
        .arg(&core)
        .args(modules.split(' '))
        .status();
    let first = std::fs::read("/usr/lib/grub/i386-pc/boot.img");
    let (true, Ok(mut first)) = (made.is_ok_and(|status| status.success()), first) else {
        eprintln!("SKIPPED: GRUB is missing (packages grub-common, grub-pc-bin)");
        return None;
    };
    let file = std::fs::File::create(&path).unwrap();
    file.set_len((MIB + 2) << 20).unwrap();
    let offset = format!("offset={}", PARTITION * SECTOR);
    let mut make = Command::new("mkfs.ext4");
    let make = make.args(["-q", "-O", "^has_journal,^metadata_csum_seed", "-E", &offset, "-d"]);
    let made = make.arg(&content).arg(&path).arg(format!("{MIB}M")).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4 is missing (package e2fsprogs)");
    // One active partition of Linux.
    let mut table = [0; 64];
    table[..8].copy_from_slice(&[0x80, 0, 2, 0, 0x83, 0xff, 0xff, 0xff]);
    table[8..12].copy_from_slice(&(PARTITION as u32).to_le_bytes());
    table[12..16].copy_from_slice(&((MIB << 20) as u32 / SECTOR as u32).to_le_bytes());
    first[446..510].copy_from_slice(&table);
    file.write_all_at(&first[..SECTOR as usize], 0).unwrap();
    file.write_all_at(&std::fs::read(core).unwrap(), SECTOR).unwrap();
    Some(path)
}

/// A machine that starts such a disk.
fn grub_setup(config: &str, files: &[(&str, &Path)]) -> Option<Setup> {
    let made = Setup::new("");
    let made_disk = grub_disk(&made, config, files)?;
    Some(setup(&|setup| {
        let disk = setup.path("grub.raw");
        std::fs::rename(&made_disk, &disk).unwrap();
        disk
    }))
}

/// GRUB reads its configuration from ext4 through INT 13h, and finds the ACPI tables and the memory map whole.
#[test]
fn grub_reads_its_disk_and_finds_tables_and_memory() {
    if !is_here() {
        return;
    }
    let config = "serial --unit=0 --speed=115200\nterminal_output serial\necho grub is up\nlsmmap\nlsacpi\n\
                  echo that is all\noutb 0xf4 0\n";
    let Some(mut guest) = grub_setup(config, &[]) else { return };
    guest.config["vcpus"] = json!(2);
    let begin = Instant::now();
    let mut guest = guest.start();
    guest.expect_within("that is all", GRUB);
    eprintln!("exec to the end of GRUB's configuration: {:.1} s", begin.elapsed().as_secs_f64());
    guest.ends_with(0);
    let console = guest.console();
    let found =
        ["grub is up", "base_addr = 0x100000, length = 0x3efc000, available RAM", "RSDPv2", "FACP", "ACPI_ID=01"];
    for text in found {
        assert!(console.contains(text), "no {text} in {console}");
    }
    // Of the root pointer, once for each of its two sums' ranges, and of three tables.
    assert_eq!((console.matches("(valid)").count(), console.contains("invalid")), (5, false), "{console}");
}

/// As an ordinary image is started: firmware, boot loader, kernel, initial file system. GRUB copies the kernel byte by byte,
/// so this takes minutes where KVM emulates.
#[test]
fn grub_starts_linux_which_finds_the_firmwares_tables_and_its_disk() {
    let Some(kernel) = linux::kernel_with_acpi() else { return };
    if !is_here() {
        return;
    }
    if pilvi_vmm::probe::probe().emulated && std::env::var_os("PILVI_TEST_SLOW").is_none() {
        eprintln!("SKIPPED: takes minutes where KVM emulates: set PILVI_TEST_SLOW");
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let (packed, initramfs) = (files.path().join("vmlinuz"), files.path().join("initrd"));
    std::fs::write(&packed, bzimage::of(&std::fs::read(kernel).unwrap())).unwrap();
    std::fs::write(&initramfs, linux::smallest_initramfs("init is up\n")).unwrap();
    let line = linux::COMMAND_LINE.split_whitespace().collect::<Vec<_>>().join(" ");
    let config = format!(
        "serial --unit=0 --speed=115200\nterminal_output serial\necho grub is up\n\
         linux /boot/vmlinuz {line} no-kvmclock loglevel=7\ninitrd /boot/initrd\nboot\n"
    );
    let Some(mut guest) = grub_setup(&config, &[("vmlinuz", &packed), ("initrd", &initramfs)]) else { return };
    guest.config["memory_mib"] = json!(128);
    let mut guest = guest.start();
    let begin = Instant::now();
    guest.expect_within("grub is up", GRUB);
    guest.expect_within("Linux version", GRUB * 3);
    eprintln!("exec to Linux' first line: {:.1} s", begin.elapsed().as_secs_f64());
    guest.expect_within("init is up", GRUB);
    eprintln!("exec to its /init: {:.1} s", begin.elapsed().as_secs_f64());
    let console = guest.console();
    for text in ["ACPI: RSDP 0x", "ACPI: DSDT 0x", "vda: vda1", "ACPI: PCI Root Bridge [PCI0]"] {
        assert!(console.contains(text), "no {text} in {console}");
    }
    guest.client().kill().unwrap();
    guest.ends_with(5);
}
