//! Memory out of a snapshot's image, a MiB at a time, each checked against its checksum when the first of its pages is
//! touched.
//!
//! ```text
//!   touched ─► is its MiB here? ─┬─ yes ─► zeroes: the page was given back to the host since
//!                                └─ no ──► read, checked, put into its place ──(cannot)──► the machine crashes, and says why
//! ```
//! Beside a private mapping of the image (`restore`'s other way) this costs a copy of what is touched and around it; it
//! checks all that the guest sees without reading the rest, ends in a sentence where the mapping ends in SIGBUS, and the
//! image may be on a file system that cannot map.

use super::uffd::{Uffd, wait};
use super::{Missing, PAGE, Pager, Seen};
use crate::journal;
use crate::machine::Stop;
use crate::memory::Memory;
use crate::migrate::receive::House;
use crate::sandbox::Threads;
use crate::snapshot::SnapshotError;
use crate::snapshot::memory::{CHUNK, Digest};
use crate::state::StopReason;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

const ZEROES: [u8; PAGE as usize] = [0; PAGE as usize];

struct Image {
    id: String,
    file: File,
    digest: Digest,
    memory: Memory,
    uffd: Uffd,
    missing: Missing,
    seen: Arc<Seen>,
    stop: Arc<Stop>,
}

/// From here on memory is brought out of this image.
pub fn start(uffd: Uffd, memory: &Memory, file: File, digest: Digest, house: &House) -> Result<Pager, SnapshotError> {
    let all = memory.iter().map(|region| vec![u64::MAX; (region.len() / PAGE).div_ceil(64) as usize]).collect();
    let missing = Missing::new(memory, all);
    let failed = SnapshotError::file("watch guest memory");
    let seen = match uffd.watch(memory).and_then(|()| Seen::new(missing.left(), false)) {
        Ok(seen) => Arc::new(seen),
        Err(e) => return Err(failed(e)),
    };
    let (id, memory, stop) = (house.id.to_owned(), memory.clone(), house.stop.clone());
    let image = Image { id, file, digest, memory, uffd, missing, seen: seen.clone(), stop };
    let thread = house.threads.spawn("pages", Threads::PAGER, house.stop.clone(), move || image.run());
    Ok(Pager::new(seen, vec![thread.map_err(SnapshotError::file("start a thread for the image"))?]))
}

impl Image {
    fn run(mut self) {
        let mut buffer = vec![0; CHUNK];
        while let Ok([_, false]) = wait([self.uffd.as_raw_fd(), self.seen.stop.as_raw_fd()]) {
            while let Ok(Some(host)) = self.uffd.next() {
                self.seen.faults.fetch_add(1, Ordering::Relaxed);
                if let Err(e) = self.bring(host, &mut buffer) {
                    return self.fail(&e);
                }
            }
            self.seen.left.store(self.missing.left(), Ordering::Release);
            if self.missing.left() == 0 {
                self.uffd.forget(&self.memory);
                return;
            }
        }
    }

    fn bring(&mut self, host: u64, buffer: &mut [u8]) -> Result<(), SnapshotError> {
        let Some(page) = self.missing.guest_page(host) else { return Ok(()) };
        let failed = |e| SnapshotError::File { what: "put a page into guest memory", source: e };
        if !self.missing.is_due(page) {
            return self.uffd.zero(host, PAGE).map_err(failed);
        }
        let Some((start, offset)) = self.chunk(page) else { return Ok(()) };
        let part = &mut buffer[..(self.digest.bytes - offset).min(CHUNK as u64) as usize];
        self.file.read_exact_at(part, offset).map_err(SnapshotError::file("read the memory image"))?;
        let number = (offset / CHUNK as u64) as usize;
        if self.digest.chunks.get(number) != Some(&crc32fast::hash(part)) {
            return Err(SnapshotError::Altered(format!("memory image (MiB {number})")));
        }
        let Some(to) = self.missing.host(start) else { return Ok(()) };
        let kinds: Vec<bool> = part.chunks(PAGE as usize).map(|page| page == ZEROES).collect();
        let mut first = 0;
        while first < kinds.len() {
            let count = kinds[first..].iter().take_while(|zero| **zero == kinds[first]).count();
            let (at, bytes) = (first * PAGE as usize, count * PAGE as usize);
            let put = match kinds[first] {
                true => self.uffd.zero(to + at as u64, bytes as u64),
                false => self.uffd.copy(to + at as u64, &part[at..at + bytes]),
            };
            put.map_err(failed)?;
            first += count;
        }
        for page in (0..part.len() as u64).step_by(PAGE as usize) {
            self.missing.arrived(start + page);
        }
        Ok(())
    }

    /// Where the MiB with this page begins in the guest, and in the image, in which the ranges lie one after the other.
    fn chunk(&self, page: u64) -> Option<(u64, u64)> {
        let mut before = 0;
        for region in self.memory.iter() {
            let start = region.start_addr().raw_value();
            if page >= start && page - start < region.len() {
                let at = (page - start) / CHUNK as u64 * CHUNK as u64;
                return Some((start + at, before + at));
            }
            before += region.len();
        }
        None
    }

    fn fail(&self, error: &SnapshotError) {
        self.seen.stuck.store(true, Ordering::Release);
        journal::line(&self.id, format_args!("memory cannot be brought: {error}"));
        self.stop.set(StopReason::Crashed { detail: format!("memory cannot be brought: {error}") });
        if !self.seen.began.load(Ordering::Acquire) {
            // The gate will not open any more, so whoever builds the machine may go on with zeroes: nobody acts on them.
            self.seen.stuck.store(false, Ordering::Release);
            self.uffd.forget(&self.memory);
        }
    }
}
