//! Guest memory: where it lies in the guest's address space, and the host memory behind it.
//!
//! ```text
//!   0 ........ 640 K   RAM      640 K .. 1 M   not offered (the MP table lies at 0xf0000)
//!   1 M ...... 3 G     RAM      3 G .... 4 G   devices: virtio slots at 0xd0000000, IOAPIC, LAPIC
//!   4 G ......         the rest of the RAM    above it, from a multiple of 2 G on: blocks that come and go (hot.rs)
//! ```

pub mod hot;

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use std::fs::File;
use std::io;
use vm_memory::bitmap::{AtomicBitmap, Bitmap, NewBitmap, RefSlice};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    VolatileSlice,
};

/// Guest memory as every part of this crate sees it. What this process writes is marked in a bitmap (a bit a page), for
/// migration; KVM keeps its own log of what the guest writes, when it is asked to.
pub type Memory = GuestMemoryMmap<AtomicBitmap>;

/// A stretch of it, for calls that read and write guest memory themselves.
pub type Slice<'a> = VolatileSlice<'a, RefSlice<'a, AtomicBitmap>>;

/// First address of the device hole.
pub const HOLE_START: u64 = 3 << 30;
/// First address after the device hole.
pub const HOLE_END: u64 = 4 << 30;
/// End of conventional memory.
pub const LOW_END: u64 = 0xa_0000;
/// Start of extended memory; kernels are loaded at or above it.
pub const HIGH_START: u64 = 0x10_0000;

/// Bytes of a huge page of the pool.
const HUGE_PAGE: u64 = 2 << 20;
/// Pages of that size, whatever the host's default is.
const HUGETLB: i32 = libc::MAP_HUGETLB | 21 << libc::MAP_HUGE_SHIFT;
/// Most NUMA nodes that a host has.
pub const NODES_MAX: u16 = 1024;

/// Why guest memory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has not enough address space or memory.
    #[error("cannot map {bytes} bytes of guest memory: {detail}")]
    Map {
        /// Size of the part.
        bytes: usize,
        /// What the system said.
        detail: String,
    },
    /// The host's pool has not enough huge pages.
    #[error("the host has not {wanted} free huge pages of 2 MiB ({detail}): see /proc/sys/vm/nr_hugepages")]
    HugePages {
        /// For one stretch.
        wanted: u64,
        /// What the system said.
        detail: String,
    },
    /// A NUMA node that the host does not have, or that this process may not use.
    #[error("guest memory cannot come from the host's node {node}: {source}")]
    Node {
        /// As configured.
        node: u16,
        /// What the system said.
        source: io::Error,
    },
    /// KVM keeps no log of memory that comes and goes.
    #[error("KVM keeps no log of what the guest writes to memory that comes and goes")]
    Log,
    /// KVM refused the slot.
    #[error("KVM refused guest memory: {0}")]
    Slot(#[from] kvm_ioctls::Error),
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// From the start.
    pub ram: u64,
    /// Of the area whose blocks come and go.
    pub hot: u64,
}

impl Size {
    /// In all.
    pub fn bytes(self) -> u64 {
        self.ram + self.hot
    }

    /// Address ranges (start, bytes): RAM, then the area.
    fn ranges(self) -> Vec<(u64, u64)> {
        let mut all = ranges(self.ram);
        if self.hot > 0 {
            all.push((hot::start(self.ram), self.hot));
        }
        all
    }
}

/// A part of memory that comes from one node of the host, as bytes from the first on, holes left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// First byte.
    pub start: u64,
    /// After its last byte.
    pub end: u64,
    /// The node.
    pub node: u16,
}

/// What host memory is behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backing {
    /// Transparent huge pages, where the host has some.
    pub huge_pages: bool,
    /// Pages of 2 MiB of the host's pool, all of them reserved now.
    pub hugetlb: bool,
    /// Of this NUMA node of the host only.
    pub host_node: Option<u16>,
    /// Parts of it of these nodes only.
    pub stretches: Vec<Stretch>,
}

/// Address ranges (start, bytes) of RAM for a size in bytes.
pub fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= HOLE_START { vec![(0, bytes)] } else { vec![(0, HOLE_START), (HOLE_END, bytes - HOLE_START)] }
}

/// Maps zeroed memory; pages are taken from the host at first touch.
pub fn map(bytes: u64, huge_pages: bool) -> Result<Memory, MemoryError> {
    map_sized(Size { ram: bytes, hot: 0 }, &Backing { huge_pages, ..Backing::default() })
}

/// The same, of host memory of this kind.
pub fn map_sized(size: Size, backing: &Backing) -> Result<Memory, MemoryError> {
    map_ranges(size, backing, None)
}

/// The same in a file that has no name, which processes that serve devices (vhost-user) are given and map as well.
pub fn map_shared(bytes: u64, huge_pages: bool) -> Result<Memory, MemoryError> {
    let total = ranges(bytes).iter().map(|(_, size)| size).sum();
    let file = sealed_file("pilvi-memory", total)
        .map_err(|e| MemoryError::Map { bytes: total as usize, detail: e.to_string() })?;
    map_ranges(
        Size { ram: bytes, hot: 0 },
        &Backing { huge_pages, ..Backing::default() },
        Some((file, libc::MAP_SHARED)),
    )
}

/// Makes shared memory all zeroes again, for the next machine.
pub fn clear(memory: &Memory) -> io::Result<()> {
    for region in memory.iter() {
        // SAFETY: the range is the region's own mapping, which stays as it is but for its contents; no machine runs in it.
        let code = unsafe { libc::madvise(region.as_ptr().cast(), region.len() as usize, libc::MADV_REMOVE) };
        if code < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether other processes can be given this memory.
pub fn is_shared(memory: &Memory) -> bool {
    memory.iter().all(|region| region.flags() & libc::MAP_SHARED != 0)
}

/// A file without a name of this length, which nobody can make shorter under whoever maps it.
pub fn sealed_file(name: &str, bytes: u64) -> io::Result<File> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the name is a live string; the descriptor is new and nobody else owns it.
    let file = unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        <File as std::os::fd::FromRawFd>::from_raw_fd(fd)
    };
    file.set_len(bytes)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: fcntl without a pointer on a descriptor that `file` keeps open.
    if unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// Maps memory that another process hands over, as a file from `map_shared`. Its contents are whatever they are; that it cannot
/// become shorter under this process is checked.
pub fn map_handed(bytes: u64, file: File) -> Result<Memory, MemoryError> {
    let failed = |detail: String| MemoryError::Map { bytes: bytes as usize, detail };
    let length = file.metadata().map_err(|e| failed(e.to_string()))?.len();
    // SAFETY: fcntl without a pointer on a descriptor that `file` keeps open.
    let seals = unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&file), libc::F_GET_SEALS) };
    if length != bytes || seals < 0 || seals & libc::F_SEAL_SHRINK == 0 || seals & libc::F_SEAL_WRITE != 0 {
        return Err(failed(format!(
            "what was handed over is no memory of this machine ({length} bytes, seals {seals:#x})"
        )));
    }
    map_ranges(Size { ram: bytes, hot: 0 }, &Backing::default(), Some((file, libc::MAP_SHARED)))
}

/// The file behind memory that is shared.
pub fn shared_file(memory: &Memory) -> Option<&File> {
    let region = memory.iter().next().filter(|_| is_shared(memory))?;
    region.file_offset().map(FileOffset::file)
}

/// Copies an image of memory into memory that is shared: it cannot be mapped there.
pub fn copy_image(memory: &Memory, image: &File) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    use vm_memory::Bytes;
    let mut buffer = vec![0u8; 1 << 20];
    let mut offset = 0;
    for region in memory.iter() {
        let mut at = 0;
        while at < region.len() {
            let part = &mut buffer[..(region.len() - at).min(1 << 20) as usize];
            image.read_exact_at(part, offset + at)?;
            // Pages of zeroes stay unused.
            if part.iter().any(|byte| *byte != 0) {
                let to = region.start_addr().unchecked_add(at);
                memory.write_slice(part, to).map_err(io::Error::other)?;
            }
            at += part.len() as u64;
        }
        offset += region.len();
    }
    Ok(())
}

/// Maps a file of that size privately: a page is read at first touch, and what is written stays in this process.
pub fn map_image(bytes: u64, image: File) -> Result<Memory, MemoryError> {
    map_image_sized(Size { ram: bytes, hot: 0 }, Backing::default(), image)
}

/// The same with an area whose blocks come and go. What is written stays on the NUMA nodes that are named.
pub fn map_image_sized(size: Size, backing: Backing, image: File) -> Result<Memory, MemoryError> {
    let backing = Backing { huge_pages: false, hugetlb: false, ..backing };
    map_ranges(size, &backing, Some((image, libc::MAP_PRIVATE)))
}

/// Over a file (and how that is shared), or over nothing.
fn map_ranges(size: Size, backing: &Backing, file: Option<(File, i32)>) -> Result<Memory, MemoryError> {
    let file = file.map(|(file, sharing)| (std::sync::Arc::new(file), sharing));
    let (mut regions, mut offset) = (Vec::new(), 0);
    for (start, size) in size.ranges() {
        let len = usize::try_from(size).map_err(|e| MemoryError::Map { bytes: usize::MAX, detail: e.to_string() })?;
        let failed = |detail: String| MemoryError::Map { bytes: len, detail };
        // Huge pages of the pool are reserved: without one the first touch would kill the process.
        let mut flags = if backing.hugetlb { HUGETLB } else { libc::MAP_NORESERVE };
        let mut builder = MmapRegionBuilder::new_with_bitmap(len, AtomicBitmap::with_len(len))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
        match &file {
            Some((file, sharing)) => {
                builder = builder.with_file_offset(FileOffset::from_arc(file.clone(), offset));
                flags |= sharing;
            }
            None => flags |= libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        }
        let mapping = builder.with_mmap_flags(flags).build().map_err(|e| match backing.hugetlb {
            true => MemoryError::HugePages { wanted: size.div_ceil(HUGE_PAGE), detail: e.to_string() },
            false => failed(e.to_string()),
        })?;
        // SAFETY: the range is the mapping just made; both pieces of advice only change how its pages are provided and
        // whether they enter a core file.
        unsafe {
            if backing.huge_pages {
                libc::madvise(mapping.as_ptr().cast(), len, libc::MADV_HUGEPAGE);
            }
            libc::madvise(mapping.as_ptr().cast(), len, libc::MADV_DONTDUMP);
        }
        if let Some(node) = backing.host_node {
            bind(mapping.as_ptr().cast(), len, node).map_err(|source| MemoryError::Node { node, source })?;
        }
        for stretch in &backing.stretches {
            let (from, to) = (stretch.start.max(offset), stretch.end.min(offset + size));
            if from < to {
                // Inside the mapping: from is not before its first byte, to not after its last.
                let at = mapping.as_ptr().wrapping_add((from - offset) as usize);
                let bound = bind(at.cast(), (to - from) as usize, stretch.node);
                bound.map_err(|source| MemoryError::Node { node: stretch.node, source })?;
            }
        }
        let region = GuestRegionMmap::new(mapping, GuestAddress(start));
        regions.push(region.ok_or_else(|| failed("address overflow".into()))?);
        offset += size;
    }
    Memory::from_regions(regions).map_err(|e| MemoryError::Map { bytes: 0, detail: e.to_string() })
}

/// Has pages of a mapping come from this node of the host alone.
fn bind(at: *mut libc::c_void, bytes: usize, node: u16) -> io::Result<()> {
    let mut mask = [0u64; NODES_MAX as usize / 64];
    let word = mask.get_mut(usize::from(node / 64)).ok_or(io::ErrorKind::InvalidInput)?;
    *word |= 1 << (node % 64);
    // The kernel reads one bit less than it is told.
    let bits = u64::from(NODES_MAX) + 1;
    // SAFETY: the range is a mapping that was just made, and the mask is a live array of as many bits as are said; only where
    // its pages will come from changes.
    let code = unsafe { libc::syscall(libc::SYS_mbind, at, bytes, libc::MPOL_BIND, mask.as_ptr(), bits, 0) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the memory to a machine, one slot per range of RAM; the blocks of the area above it have theirs by themselves.
pub fn attach(vm: &VmFd, memory: &Memory) -> Result<(), MemoryError> {
    set_slots(vm, memory, 0)
}

/// Has KVM note which pages the guest writes from now on, or no longer.
pub fn log_writes(vm: &VmFd, memory: &Memory, on: bool) -> Result<(), MemoryError> {
    set_slots(vm, memory, if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 })
}

fn set_slots(vm: &VmFd, memory: &Memory, flags: u32) -> Result<(), MemoryError> {
    for (number, region) in (0u32..).zip(memory.iter().filter(|region| hot::is_ram(region.start_addr()))) {
        Slot { number, flags, start: region.start_addr().raw_value(), bytes: region.len() }.set(vm, memory)?;
    }
    Ok(())
}

/// A memory slot of KVM.
struct Slot {
    number: u32,
    flags: u32,
    /// In the guest, and how long; nothing: the slot goes.
    start: u64,
    bytes: u64,
}

impl Slot {
    fn set(&self, vm: &VmFd, memory: &Memory) -> Result<(), MemoryError> {
        let host = memory
            .get_host_address(GuestAddress(self.start))
            .map_err(|e| MemoryError::Map { bytes: 0, detail: io::Error::other(e.to_string()).to_string() })?;
        let region = kvm_userspace_memory_region {
            slot: self.number,
            flags: self.flags,
            guest_phys_addr: self.start,
            memory_size: self.bytes,
            userspace_addr: host as u64,
        };
        // SAFETY: the host range is mapped as long as `memory` lives, and the machine owner keeps it until the last
        // vCPU thread has ended and the VM descriptor is closed.
        unsafe { vm.set_user_memory_region(region)? };
        Ok(())
    }
}

/// Gives whole pages back to the host; they read as zeroes afterwards. False: not all of them are guest memory.
pub fn give_back(memory: &Memory, start: u64, bytes: u64) -> bool {
    let Some(region) = memory.find_region(GuestAddress(start)) else { return false };
    let offset = start - region.start_addr().raw_value();
    if offset.checked_add(bytes).is_none_or(|end| end > region.len()) || bytes == 0 {
        return false;
    }
    let (offset, length) = (offset as usize, bytes as usize);
    // SAFETY: the range lies inside the region's mapping, which stays as it is but for its contents. Guests race with
    // this as with any write to their memory. Over an image the range becomes anonymous memory instead: dropping its pages
    // would bring the image's back. Shared memory loses them for all who share it.
    let code = unsafe {
        let at = region.as_ptr().add(offset).cast::<libc::c_void>();
        if region.file_offset().is_none() {
            libc::madvise(at, length, libc::MADV_DONTNEED)
        } else if region.flags() & libc::MAP_SHARED != 0 {
            libc::madvise(at, length, libc::MADV_REMOVE)
        } else {
            let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let flags = flags | libc::MAP_FIXED | libc::MAP_NORESERVE;
            if libc::mmap(at, length, rights, flags, -1, 0) == libc::MAP_FAILED { -1 } else { 0 }
        }
    };
    region.bitmap().mark_dirty(offset, length);
    code == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn small_memory_is_one_range_and_large_memory_leaves_the_hole_free() {
        assert_eq!(ranges(64 << 20), vec![(0, 64 << 20)]);
        assert_eq!(ranges(3 << 30), vec![(0, 3 << 30)]);
        assert_eq!(ranges(5 << 30), vec![(0, 3 << 30), (4 << 30, 2 << 30)]);
    }

    #[test]
    fn memory_comes_from_the_pool_and_the_node_that_are_named_or_not_at_all() {
        let size = Size { ram: 4 << 20, hot: 0 };
        let pool =
            std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or_default();
        let mapped = map_sized(size, &Backing { hugetlb: true, ..Backing::default() });
        match pool.trim().parse().unwrap_or(0) {
            0 | 1 => assert!(mapped.unwrap_err().to_string().contains("huge pages of 2 MiB")),
            _ => mapped.unwrap().write_slice(&[1], GuestAddress(0)).unwrap(),
        }
        let on = |node| map_sized(size, &Backing { host_node: Some(node), ..Backing::default() });
        assert!(on(NODES_MAX).is_err());
        match on(0) {
            Ok(memory) => memory.write_slice(&[1], GuestAddress(0)).unwrap(),
            Err(e) => eprintln!("SKIPPED: {e}"),
        }
        assert!(on(NODES_MAX - 1).unwrap_err().to_string().contains("node 1023"));
        let part = |start, end, node| {
            map_sized(size, &Backing { stretches: vec![Stretch { start, end, node }], ..Backing::default() })
        };
        assert!(part(2 << 20, 4 << 20, NODES_MAX - 1).unwrap_err().to_string().contains("node 1023"));
        // What lies beyond all memory is of no mapping.
        assert!(part(4 << 20, 8 << 20, NODES_MAX - 1).is_ok());
        match part(1 << 20, 2 << 20, 0) {
            Ok(memory) => memory.write_slice(&[1], GuestAddress(1 << 20)).unwrap(),
            Err(e) => eprintln!("SKIPPED: {e}"),
        }
    }

    #[test]
    fn shared_memory_is_one_file_and_gives_pages_back() {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let memory = map_shared(4 << 20, false).unwrap();
        assert!(is_shared(&memory) && !is_shared(&map(4 << 20, false).unwrap()));
        let region = memory.iter().next().unwrap();
        let file = region.file_offset().unwrap().file();
        memory.write_slice(&[7; 8192], GuestAddress(0x3000)).unwrap();
        let mut seen = [0; 2];
        file.read_exact_at(&mut seen, 0x4000).unwrap();
        assert_eq!(seen, [7, 7]);
        let before = file.metadata().unwrap().blocks();
        assert!(give_back(&memory, 0x3000, 4096));
        assert!(file.metadata().unwrap().blocks() < before);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x3000)).unwrap(), 0);
        assert!(file.set_len(0).is_err());
        let copy = map_shared(4 << 20, false).unwrap();
        copy_image(&copy, file).unwrap();
        assert_eq!(copy.read_obj::<u8>(GuestAddress(0x4fff)).unwrap(), 7);
        clear(&copy).unwrap();
        assert_eq!(copy.read_obj::<u8>(GuestAddress(0x4fff)).unwrap(), 0);
    }

    #[test]
    fn the_hole_cannot_be_touched() {
        let memory = map((3 << 30) + (1 << 20), false).unwrap();
        assert!(memory.write_slice(&[1], GuestAddress(HOLE_START)).is_err());
        memory.write_slice(&[1], GuestAddress(HOLE_END)).unwrap();
        assert!(memory.write_slice(&[0; 2], GuestAddress(HOLE_START - 1)).is_err());
    }
}
