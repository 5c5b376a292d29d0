//! Guest memory: where it lies in the guest's address space, and the host memory behind it.
//!
//! ```text
//!   0 ........ 640 K   RAM      640 K .. 1 M   not offered (the MP table lies at 0xf0000)
//!   1 M ...... 3 G     RAM      3 G .... 4 G   devices: virtio slots at 0xd0000000, IOAPIC, LAPIC
//!   4 G ......         the rest of the RAM
//! ```

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
    /// KVM refused the slot.
    #[error("KVM refused guest memory: {0}")]
    Slot(#[from] kvm_ioctls::Error),
}

/// Address ranges (start, bytes) of RAM for a size in bytes.
pub fn ranges(bytes: u64) -> Vec<(u64, u64)> {
    if bytes <= HOLE_START { vec![(0, bytes)] } else { vec![(0, HOLE_START), (HOLE_END, bytes - HOLE_START)] }
}

/// Maps zeroed memory; pages are taken from the host at first touch.
pub fn map(bytes: u64, huge_pages: bool) -> Result<Memory, MemoryError> {
    map_ranges(bytes, huge_pages, None)
}

/// The same in a file that has no name, which processes that serve devices (vhost-user) are given and map as well.
pub fn map_shared(bytes: u64, huge_pages: bool) -> Result<Memory, MemoryError> {
    let total = ranges(bytes).iter().map(|(_, size)| size).sum();
    let file = sealed_file("pilvi-memory", total)
        .map_err(|e| MemoryError::Map { bytes: total as usize, detail: e.to_string() })?;
    map_ranges(bytes, huge_pages, Some((file, libc::MAP_SHARED)))
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
    map_ranges(bytes, false, Some((image, libc::MAP_PRIVATE)))
}

/// Over a file (and how that is shared), or over nothing.
fn map_ranges(bytes: u64, huge_pages: bool, file: Option<(File, i32)>) -> Result<Memory, MemoryError> {
    let file = file.map(|(file, sharing)| (std::sync::Arc::new(file), sharing));
    let (mut regions, mut offset) = (Vec::new(), 0);
    for (start, size) in ranges(bytes) {
        let len = usize::try_from(size).map_err(|e| MemoryError::Map { bytes: usize::MAX, detail: e.to_string() })?;
        let failed = |detail: String| MemoryError::Map { bytes: len, detail };
        let mut flags = libc::MAP_NORESERVE;
        let mut builder = MmapRegionBuilder::new_with_bitmap(len, AtomicBitmap::with_len(len))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
        match &file {
            Some((file, sharing)) => {
                builder = builder.with_file_offset(FileOffset::from_arc(file.clone(), offset));
                flags |= sharing;
            }
            None => flags |= libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        }
        let mapping = builder.with_mmap_flags(flags).build().map_err(|e| failed(e.to_string()))?;
        // SAFETY: the range is the mapping just made; both pieces of advice only change how its pages are provided and
        // whether they enter a core file.
        unsafe {
            if huge_pages {
                libc::madvise(mapping.as_ptr().cast(), len, libc::MADV_HUGEPAGE);
            }
            libc::madvise(mapping.as_ptr().cast(), len, libc::MADV_DONTDUMP);
        }
        let region = GuestRegionMmap::new(mapping, GuestAddress(start));
        regions.push(region.ok_or_else(|| failed("address overflow".into()))?);
        offset += size;
    }
    Memory::from_regions(regions).map_err(|e| MemoryError::Map { bytes: 0, detail: e.to_string() })
}

/// Gives the memory to a machine, one slot per range.
pub fn attach(vm: &VmFd, memory: &Memory) -> Result<(), MemoryError> {
    set_slots(vm, memory, 0)
}

/// Has KVM note which pages the guest writes from now on, or no longer.
pub fn log_writes(vm: &VmFd, memory: &Memory, on: bool) -> Result<(), MemoryError> {
    set_slots(vm, memory, if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 })
}

fn set_slots(vm: &VmFd, memory: &Memory, flags: u32) -> Result<(), MemoryError> {
    for (slot, region) in (0u32..).zip(memory.iter()) {
        let host = memory
            .get_host_address(region.start_addr())
            .map_err(|e| MemoryError::Map { bytes: 0, detail: io::Error::other(e.to_string()).to_string() })?;
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the host range is mapped as long as `memory` lives, and the machine owner keeps it until the last
        // vCPU thread has ended and the VM descriptor is closed.
        unsafe { vm.set_user_memory_region(region)? };
    }
    Ok(())
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
