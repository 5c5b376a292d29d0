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

/// Maps a file of that size privately: a page is read at first touch, and what is written stays in this process.
pub fn map_image(bytes: u64, image: File) -> Result<Memory, MemoryError> {
    map_ranges(bytes, false, Some(image))
}

fn map_ranges(bytes: u64, huge_pages: bool, image: Option<File>) -> Result<Memory, MemoryError> {
    let image = image.map(std::sync::Arc::new);
    let (mut regions, mut offset) = (Vec::new(), 0);
    for (start, size) in ranges(bytes) {
        let len = usize::try_from(size).map_err(|e| MemoryError::Map { bytes: usize::MAX, detail: e.to_string() })?;
        let failed = |detail: String| MemoryError::Map { bytes: len, detail };
        let mut flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
        let mut builder = MmapRegionBuilder::new_with_bitmap(len, AtomicBitmap::with_len(len))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE);
        match &image {
            Some(image) => builder = builder.with_file_offset(FileOffset::from_arc(image.clone(), offset)),
            None => flags |= libc::MAP_ANONYMOUS,
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
    // this as with any write to their memory. Over a file the range becomes anonymous memory instead: dropping its pages
    // would bring the file's back.
    let code = unsafe {
        let at = region.as_ptr().add(offset).cast::<libc::c_void>();
        if region.file_offset().is_none() {
            libc::madvise(at, length, libc::MADV_DONTNEED)
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
    fn the_hole_cannot_be_touched() {
        let memory = map((3 << 30) + (1 << 20), false).unwrap();
        assert!(memory.write_slice(&[1], GuestAddress(HOLE_START)).is_err());
        memory.write_slice(&[1], GuestAddress(HOLE_END)).unwrap();
        assert!(memory.write_slice(&[0; 2], GuestAddress(HOLE_START - 1)).is_err());
    }
}
