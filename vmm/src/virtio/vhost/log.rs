//! Where backends write down which pages of guest memory they have written, for a machine that moves: a bit a page in a
//! shared file, set by them, taken from here.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};
use vm_memory::{Address, FileOffset, GuestMemoryBackend, GuestMemoryRegion};

use crate::memory::{self, Memory};

/// Bytes of guest memory under a bit.
const PAGE: u64 = 4096;

/// The log of one device.
#[derive(Debug)]
pub struct Log {
    file: std::sync::Arc<File>,
    words: MmapRegion<()>,
}

impl Log {
    /// An empty log, for all of guest memory.
    pub fn new(memory: &Memory) -> io::Result<Log> {
        let end = memory.last_addr().raw_value() + 1;
        let bytes = end.div_ceil(PAGE * 64).next_multiple_of(512) * 8;
        let file = std::sync::Arc::new(memory::sealed_file("pilvi-dirty", bytes)?);
        let map = MmapRegionBuilder::new_with_bitmap(bytes as usize, ())
            .with_file_offset(FileOffset::from_arc(file.clone(), 0))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE);
        Ok(Log { file, words: map.build().map_err(io::Error::other)? })
    }

    /// The file that the backend gets.
    pub fn file(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.words.size() as u64
    }

    /// Takes the bits of the region that begins at `start` and adds them to `bits`.
    pub fn take(&self, start: u64, bits: &mut [u64]) {
        let first = (start / PAGE / 64) as usize;
        for (number, bits) in (first..self.words.size() / 8).zip(bits) {
            // SAFETY: within the mapping, whose start is that of a page and which lives as long as `self`. The backend
            // sets bits by atomic operations of its own; whatever else it does there, a word is a word.
            let word = unsafe { &*self.words.as_ptr().cast::<AtomicU64>().add(number) };
            if word.load(Ordering::Relaxed) != 0 {
                *bits |= word.swap(0, Ordering::AcqRel);
            }
        }
    }

    /// The same for all of memory, region by region.
    pub fn take_all(&self, memory: &Memory, regions: &mut [Vec<u64>]) {
        for (region, bits) in memory.iter().zip(regions) {
            self.take(region.start_addr().raw_value(), bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn bits_are_taken_once_and_by_region() {
        let memory = memory::map(memory::HOLE_START + (1 << 20), false).unwrap();
        let log = Log::new(&memory).unwrap();
        // Pages 9 and 66, and the second above the hole.
        let mut file = vec![0u8; log.bytes() as usize];
        (file[1], file[8], file[(memory::HOLE_END / PAGE / 8) as usize]) = (2, 4, 2);
        log.file.write_all_at(&file, 0).unwrap();
        let mut regions = vec![vec![1u64; 3], vec![0; 4]];
        log.take_all(&memory, &mut regions);
        assert_eq!(regions, [vec![1 | 1 << 9, 1 | 1 << 2, 1], vec![2, 0, 0, 0]]);
        log.take_all(&memory, &mut regions);
        assert_eq!(regions[1], [2, 0, 0, 0]);
        // Nobody makes it shorter under us.
        assert!(log.file.set_len(0).is_err());
    }
}
