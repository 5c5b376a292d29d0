//! Many transfers at once through io_uring. The ring is restricted before it is used: it can read and write the disk's
//! own descriptor and nothing else, so that whoever takes the worker over cannot do through the ring what its filter
//! forbids.

use super::super::chain;
use super::file::{self, Backing, RawFile, Transfer, Way};
use crate::memory::{Memory, Slice};
use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use std::io;
use vm_memory::volatile_memory::PtrGuardMut;

/// Entries; a batch is never larger.
const ENTRIES: u32 = 128;
/// The unit of the page cache.
const PAGE: u64 = 4096;
/// The disk's place in the ring's table of files.
const DISK: types::Fixed = types::Fixed(0);

/// A file behind a ring.
pub struct Ring {
    file: RawFile,
    ring: IoUring,
}

impl Ring {
    /// Fails where the kernel, or whoever confined this process, does not allow io_uring.
    pub fn new(file: RawFile) -> io::Result<Ring> {
        let ring = IoUring::builder().setup_r_disabled().build(ENTRIES)?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.descriptor()])?;
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_flags_required(squeue::Flags::FIXED_FILE.bits()),
        ])?;
        submitter.register_enable_rings()?;
        Ok(Ring { file, ring })
    }

    /// Submits one batch and waits for all of it; how many bytes each has moved, or an error number below zero. The slices
    /// are those of all transfers, in order; `ends` has where those of each end.
    fn batch(&mut self, transfers: &[&Transfer], slices: &[Slice<'_>], ends: &[usize]) -> io::Result<Vec<i32>> {
        let guards: Vec<_> = slices.iter().map(Slice::ptr_guard_mut).collect();
        let vector = |guard: &PtrGuardMut| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() };
        let vectors: Vec<libc::iovec> = guards.iter().map(vector).collect();
        let mut start = 0;
        for (n, (transfer, end)) in (0u64..).zip(transfers.iter().zip(ends)) {
            let vectors = &vectors[start..*end];
            start = *end;
            let (at, count) = (vectors.as_ptr(), vectors.len() as u32);
            let entry = match transfer.way {
                Way::Read => opcode::Readv::new(DISK, at, count).offset(transfer.offset).build(),
                Way::Write => opcode::Writev::new(DISK, at, count).offset(transfer.offset).build(),
            };
            // SAFETY: vectors and guest memory stay where they are until every completion has been taken, below. The
            // guest may change that memory meanwhile, which is harmless: the kernel only copies bytes.
            unsafe { self.ring.submission().push(&entry.user_data(n)) }.map_err(io::Error::other)?;
        }
        let mut results = vec![-libc::EIO; transfers.len()];
        let mut left = transfers.len();
        while left > 0 {
            match self.ring.submit_and_wait(left) {
                Ok(_) => {}
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                // The kernel may still be writing into guest memory: no way back but this process's end.
                Err(_) => std::process::abort(),
            }
            for completion in self.ring.completion() {
                if let Some(result) = results.get_mut(completion.user_data() as usize) {
                    *result = completion.result();
                }
                left = left.saturating_sub(1);
            }
        }
        Ok(results)
    }
}

/// Whole pages into the page cache: no wait for the disk, and by the ring it would often be another thread's work.
fn is_plain(transfer: &Transfer) -> bool {
    let bytes = chain::length(&transfer.pieces);
    transfer.way == Way::Write && transfer.offset.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE)
}

impl Ring {
    /// One result each, in order.
    fn chunk(&mut self, transfers: &[&Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        let (mut slices, mut ends) = (Vec::with_capacity(transfers.len()), Vec::with_capacity(transfers.len()));
        let found = transfers.iter().try_for_each(|transfer| {
            chain::slices(memory, &transfer.pieces, &mut slices)?;
            ends.push(slices.len());
            Ok::<(), io::Error>(())
        });
        // One alone is served faster by one plain call.
        let moved = match (found, transfers.len()) {
            (Ok(()), 2..) => self.batch(transfers, &slices, &ends),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let Ok(moved) = moved else {
            return transfers.iter().map(|transfer| self.file.transfer(transfer, memory)).collect();
        };
        let (mut start, mut out) = (0, Vec::with_capacity(transfers.len()));
        for ((transfer, end), moved) in transfers.iter().zip(&ends).zip(moved) {
            let slices = &slices[start..*end];
            start = *end;
            let wanted: usize = slices.iter().map(Slice::len).sum();
            if transfer.way == Way::Read {
                file::mark_written(slices);
            }
            // Short or refused: once more in the plain way, which goes on to the end or has the right error.
            let whole = usize::try_from(moved) == Ok(wanted);
            out.push(if whole { Ok(()) } else { self.file.transfer(transfer, memory) });
        }
        out
    }
}

impl Backing for Ring {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        let ringed: Vec<&Transfer> = transfers.iter().filter(|transfer| !is_plain(transfer)).collect();
        let mut done = Vec::with_capacity(ringed.len());
        for chunk in ringed.chunks(ENTRIES as usize) {
            done.extend(self.chunk(chunk, memory));
        }
        let mut done = done.into_iter();
        let result = |transfer: &Transfer| match is_plain(transfer) {
            true => self.file.transfer(transfer, memory),
            false => done.next().unwrap_or_else(|| Err(io::ErrorKind::Other.into())),
        };
        transfers.iter().map(result).collect()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()> {
        self.file.zero(offset, bytes, discard)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::chain::Piece;
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn whole_pages_odd_pieces_and_reads_in_one_batch_come_out_in_order() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 * PAGE).unwrap();
        let mut ring = match Ring::new(RawFile::new(file)) {
            Ok(ring) => ring,
            Err(e) => return eprintln!("SKIPPED: no io_uring here: {e}"),
        };
        let memory = crate::memory::map(1 << 20, false).unwrap();
        for n in 0..8u64 {
            memory.write_slice(&[n as u8 + 1; 4096], GuestAddress(n * PAGE)).unwrap();
        }
        let one = |way, page: u64, length: u64, at: u64| Transfer {
            way,
            offset: page * PAGE,
            pieces: vec![Piece { address: GuestAddress(at), length: length as u32 }],
        };
        // Pages to even places, sectors to odd ones, and one write beyond any file in the middle.
        let mut writes: Vec<_> =
            (0..8).map(|n| one(Way::Write, n, if n % 2 == 0 { PAGE } else { 512 }, n * PAGE)).collect();
        writes.insert(4, one(Way::Write, u64::MAX / PAGE / 2, PAGE, 0));
        let failed: Vec<_> = ring.run(&writes, &memory).iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, false, false, false, true, false, false, false, false]);
        let reads: Vec<_> = (0..8).map(|n| one(Way::Read, n, PAGE, (n + 16) * PAGE)).collect();
        assert!(ring.run(&reads, &memory).iter().all(Result::is_ok));
        for n in 0..8u64 {
            let at = |offset| memory.read_obj::<u8>(GuestAddress((n + 16) * PAGE + offset)).unwrap();
            assert_eq!((at(0), at(4095)), (n as u8 + 1, if n % 2 == 0 { n as u8 + 1 } else { 0 }));
        }
    }
}
