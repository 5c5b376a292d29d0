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
    fn batch(&mut self, transfers: &[Transfer], slices: &[Slice<'_>], ends: &[usize]) -> io::Result<Vec<i32>> {
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

impl Backing for Ring {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        let mut out = Vec::with_capacity(transfers.len());
        for transfers in transfers.chunks(ENTRIES as usize) {
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
                out.extend(self.file.run(transfers, memory));
                continue;
            };
            let mut start = 0;
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
        }
        out
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()> {
        self.file.zero(offset, bytes, discard)
    }
}
