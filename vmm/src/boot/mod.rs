//! Puts a kernel, its initial file system and its command line into guest memory, and says where to start.
//!
//! ```text
//!   file ── ELF ──┬─ PVH note ───► 32-bit entry, start info in EBX      (pvh.rs)
//!                 └─ no note ────► 64-bit entry, zero page in RSI       (linux.rs)
//!        └─ bzImage ─────────────► 64-bit entry at +0x200, the same     (linux.rs)
//! ```
//! A disk that is to boot by itself is looked through for these files first (`disk`). The image comes from a user: every number in it is taken as hostile, and the loader's refusals are errors here.

pub mod acpi;
pub mod disk;
pub mod linux;
pub mod mptable;
pub mod probe;
pub mod pvh;

use crate::config::numa::Domain;
use crate::memory::{HIGH_START, HOLE_START, LOW_END, Memory};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend};

/// Descriptor tables for the first instructions.
pub const GDT: u64 = 0x500;
/// An empty interrupt table.
pub const IDT: u64 = 0x520;
/// PVH start info, or the Linux zero page.
pub const BOOT_INFO: u64 = 0x7000;
/// First of three page tables for the 64-bit entries.
pub const PAGE_TABLES: u64 = 0x9000;
/// The command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Linux finds the MP table by searching this area.
pub const MP_TABLE: u64 = 0xf_0000;
/// Highest initramfs address for ELF kernels, which carry no header to say it.
const INITRAMFS_END_MAX: u64 = 0x3800_0000;
/// Page size of everything here.
const PAGE: u64 = 4096;

/// Why a kernel cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Neither ELF nor bzImage, or a damaged one.
    #[error("the kernel image is not usable: {0}")]
    Kernel(String),
    /// It has no 64-bit entry.
    #[error("the bzImage has no 64-bit entry point")]
    No64BitEntry,
    /// Kernel, initramfs and boot structures do not fit.
    #[error("{what} of {bytes} bytes does not fit into the guest's memory")]
    TooLarge {
        /// Kernel or initramfs.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// Longer than Linux takes, devices included.
    #[error("the command line has {0} bytes, at most {max} fit", max = crate::config::CMDLINE_BYTES_MAX)]
    CommandLine(usize),
    /// The file cannot be read.
    #[error("cannot read {what}: {source}")]
    Read {
        /// Kernel or initramfs.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A disk was to boot by itself.
    #[error(transparent)]
    Disk(#[from] disk::DiskBootError),
    /// What the firmware is to be told.
    #[error("the ACPI tables cannot be handed over: {0}")]
    Tables(String),
    /// Guest memory is too small for the fixed structures.
    #[error("boot structures do not fit: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// How the first processor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode without paging.
    Pvh {
        /// First instruction.
        rip: u64,
    },
    /// 64-bit mode, low memory mapped one to one.
    Linux64 {
        /// First instruction.
        rip: u64,
    },
}

/// What the tables for the kernel tell of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// Processors.
    pub vcpus: u16,
    /// Where processors can come and go, how many there can be.
    pub possible: Option<u16>,
    /// virtio devices in MMIO slots.
    pub slots: usize,
    /// There is a PCI bus.
    pub pci: bool,
    /// What is near what; nothing where all is.
    pub domains: Vec<Domain>,
}

/// An initramfs in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Initramfs {
    /// Guest physical address, page aligned.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// Loads everything for one start. Files are read from their beginning, so a restart can use the same ones.
pub fn load(
    memory: &Memory,
    kernel: &mut File,
    initramfs: Option<&mut File>,
    cmdline: &str,
    hardware: &Hardware,
) -> Result<Entry, BootError> {
    if cmdline.len() > crate::config::CMDLINE_BYTES_MAX {
        return Err(BootError::CommandLine(cmdline.len()));
    }
    let image = load_kernel(memory, kernel)?;
    let end_max = image.header.map_or(INITRAMFS_END_MAX, |h| u64::from(h.initrd_addr_max).saturating_add(1));
    let initramfs = initramfs.map(|file| load_initramfs(memory, file, image.end, end_max)).transpose()?;
    memory.write_slice(cmdline.as_bytes(), GuestAddress(CMDLINE))?;
    memory.write_slice(&[0], GuestAddress(CMDLINE + cmdline.len() as u64))?;
    mptable::write(memory, hardware.vcpus)?;
    acpi::write(memory, hardware)?;
    match image.entry {
        Entry::Pvh { .. } => pvh::write_start_info(memory, initramfs)?,
        Entry::Linux64 { .. } => {
            linux::write_zero_page(memory, image.header, initramfs, cmdline.len() as u32)?;
            linux::write_page_tables(memory)?;
        }
    }
    Ok(image.entry)
}

struct Image {
    entry: Entry,
    end: u64,
    header: Option<linux_loader::loader::bootparam::setup_header>,
}

fn load_kernel(memory: &Memory, file: &mut File) -> Result<Image, BootError> {
    let read = |source| BootError::Read { what: "the kernel", source };
    let mut magic = [0u8; 4];
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    file.read_exact(&mut magic).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    if size > HOLE_START {
        return Err(BootError::TooLarge { what: "the kernel", bytes: size });
    }
    let high = Some(GuestAddress(HIGH_START));
    if magic != *b"\x7fELF" {
        let loaded = BzImage::load(memory, None, file, high).map_err(|e| BootError::Kernel(e.to_string()))?;
        let header = loaded.setup_header.ok_or(BootError::No64BitEntry)?;
        if header.version < 0x20c || header.xloadflags & 1 == 0 {
            return Err(BootError::No64BitEntry);
        }
        let start = loaded.kernel_load.raw_value();
        let end = start.saturating_add(u64::from(header.init_size)).max(loaded.kernel_end);
        return Ok(Image { entry: Entry::Linux64 { rip: start.saturating_add(0x200) }, end, header: Some(header) });
    }
    let loaded = Elf::load(memory, None, file, high).map_err(|e| BootError::Kernel(e.to_string()))?;
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(rip) => Entry::Pvh { rip: rip.raw_value() },
        _ => Entry::Linux64 { rip: loaded.kernel_load.raw_value() },
    };
    Ok(Image { entry, end: loaded.kernel_end, header: None })
}

/// As high as the kernel allows, so that it does not lie in the way of what the kernel unpacks.
fn load_initramfs(memory: &Memory, file: &mut File, kernel_end: u64, end_max: u64) -> Result<Initramfs, BootError> {
    let read = |source| BootError::Read { what: "the initramfs", source };
    let size = file.seek(SeekFrom::End(0)).map_err(read)?;
    file.seek(SeekFrom::Start(0)).map_err(read)?;
    let too_large = BootError::TooLarge { what: "the initramfs", bytes: size };
    let low = memory.iter().next().map_or(0, vm_memory::GuestMemoryRegion::len);
    let ram_end = low.min(HOLE_START);
    let Some(address) = ram_end.min(end_max).checked_sub(size).map(|a| a & !(PAGE - 1)) else {
        return Err(too_large);
    };
    if address < kernel_end.max(HIGH_START) {
        return Err(too_large);
    }
    let count = usize::try_from(size).map_err(|_| BootError::TooLarge { what: "the initramfs", bytes: size })?;
    memory.read_exact_volatile_from(GuestAddress(address), file, count)?;
    Ok(Initramfs { address, size })
}

/// RAM as a kernel is told about it: (start, bytes), all usable.
pub fn usable(memory: &Memory) -> Vec<(u64, u64)> {
    use vm_memory::GuestMemoryRegion;
    let mut map = vec![(0, LOW_END.min(0x9_fc00))];
    for region in memory.iter().filter(|region| crate::memory::hot::is_ram(region.start_addr())) {
        let (start, len) = (region.start_addr().raw_value(), region.len());
        map.push(if start == 0 { (HIGH_START, len - HIGH_START) } else { (start, len) });
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const HARDWARE: Hardware = Hardware { vcpus: 1, possible: None, slots: 2, pci: true, domains: Vec::new() };

    pub(super) fn memory(mib: u64) -> Memory {
        crate::memory::map(mib << 20, false).unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// A 64-bit ELF with one loadable segment of four bytes at `address`, and a PVH note when asked.
    pub(super) fn elf(address: u64, pvh: Option<u32>) -> Vec<u8> {
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(16, 0);
        out.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        out.extend(address.to_le_bytes());
        out.extend(64u64.to_le_bytes());
        out.extend([0u8; 12]);
        out.extend([64, 0, 56, 0, if pvh.is_some() { 2 } else { 1 }, 0, 0, 0, 0, 0, 0, 0]);
        let segment = |kind: u32, offset: u64, at: u64, size: u64| {
            let mut s = Vec::new();
            s.extend(kind.to_le_bytes());
            s.extend(7u32.to_le_bytes());
            for v in [offset, at, at, size, size, 4] {
                s.extend(v.to_le_bytes());
            }
            s
        };
        out.extend(segment(1, 256, address, 4));
        if pvh.is_some() {
            out.extend(segment(4, 264, 0, 20));
        }
        out.resize(256, 0);
        out.extend([0xf4, 0xeb, 0xfd, 0x90, 0, 0, 0, 0]);
        if let Some(entry) = pvh {
            for v in [4u32, 4, 18] {
                out.extend(v.to_le_bytes());
            }
            out.extend(b"Xen\0");
            out.extend(entry.to_le_bytes());
        }
        out
    }

    #[test]
    fn a_pvh_note_wins_over_the_64_bit_entry() {
        let memory = memory(16);
        let entry = load(&memory, &mut file(&elf(0x20_0000, Some(0x20_0000))), None, "a=b", &HARDWARE).unwrap();
        assert_eq!(entry, Entry::Pvh { rip: 0x20_0000 });
        let entry = load(&memory, &mut file(&elf(0x20_0000, None)), None, "a=b", &HARDWARE).unwrap();
        assert_eq!(entry, Entry::Linux64 { rip: 0x20_0000 });
        let mut text = [0u8; 4];
        memory.read_slice(&mut text, GuestAddress(CMDLINE)).unwrap();
        assert_eq!(&text, b"a=b\0");
    }

    #[test]
    fn an_initramfs_lies_at_the_end_and_never_over_the_kernel() {
        let memory = memory(16);
        let placed = load_initramfs(&memory, &mut file(&[7; 5000]), 0x20_0000, u64::MAX).unwrap();
        assert_eq!(placed, Initramfs { address: (16 << 20) - 8192, size: 5000 });
        assert!(load_initramfs(&memory, &mut file(&[7; 5000]), (16 << 20) - 4096, u64::MAX).is_err());
        let huge = tempfile::tempfile().unwrap();
        huge.set_len(1 << 40).unwrap();
        assert!(load_initramfs(&memory, &mut huge.try_clone().unwrap(), 0, u64::MAX).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let memory = memory(16);
        for bytes in [&b""[..], b"\x7fELF", b"MZ and more than four bytes"] {
            assert!(load(&memory, &mut file(bytes), None, "", &HARDWARE).is_err());
        }
        let far = elf(1 << 40, None);
        assert!(load(&memory, &mut file(&far), None, "", &HARDWARE).is_err());
        let long = "x".repeat(3000);
        assert!(matches!(load(&memory, &mut file(&far), None, &long, &HARDWARE), Err(BootError::CommandLine(3000))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_kernels_never_panic(at in 0usize..280, value in any::<u64>()) {
            let memory = memory(16);
            let mut bytes = elf(0x20_0000, Some(0x20_0000));
            let end = (at + 8).min(bytes.len());
            let part = &value.to_le_bytes()[..end - at];
            bytes[at..end].copy_from_slice(part);
            let _ = load(&memory, &mut file(&bytes), None, "", &HARDWARE);
        }

        #[test]
        fn damaged_bzimages_never_panic(header in proptest::collection::vec(any::<u8>(), 0x80), size in 0x300usize..4096) {
            let memory = memory(16);
            let mut bytes = vec![0u8; size];
            bytes[0x1f1..0x1f1 + 0x80].copy_from_slice(&header);
            bytes[0x202..0x206].copy_from_slice(b"HdrS");
            let _ = load(&memory, &mut file(&bytes), None, "", &HARDWARE);
        }
    }
}
