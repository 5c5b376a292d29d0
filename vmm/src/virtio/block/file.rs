//! The bytes of a disk: positioned vector reads and writes between a file and guest memory, without a copy between.

use super::super::chain::{self, Piece};
use crate::memory::{Memory, Slice};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vm_memory::bitmap::Bitmap;

/// How long a disk is waited for that another process has.
const CLAIM_WAIT: Duration = Duration::from_secs(1);
/// Vectors in one call; more pieces take more calls.
const VECTORS_MAX: usize = 256;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the disk into guest memory.
    Read,
    /// From guest memory to the disk.
    Write,
}

/// One read or write.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Which way.
    pub way: Way,
    /// Where on the disk.
    pub offset: u64,
    /// Where in guest memory.
    pub pieces: Vec<Piece>,
}

/// Where a disk's bytes are. Offsets and lengths were checked against the disk's size.
pub trait Backing: Send {
    /// Does all transfers, in any order; on return none is under way any more. One result each.
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>>;
    /// Returns when everything written is durable.
    fn flush(&mut self) -> io::Result<()>;
    /// Gives the space of a range back (`discard`; fails where that cannot be done), or makes it read as zeroes.
    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()>;
    /// Where the bytes are cannot be reached. What failed with `NotConnected` is not answered but done once it can be;
    /// `renew`: a connection that has been handed over is taken into use first.
    fn is_away(&mut self, renew: bool) -> bool {
        let _ = renew;
        false
    }
    /// Whether there are connections to deal with.
    fn is_remote(&self) -> bool {
        false
    }
}

/// A raw file or block device. Clones are of the same descriptor.
#[derive(Debug, Clone)]
pub struct RawFile {
    file: Arc<File>,
}

impl RawFile {
    /// Uses the whole file.
    pub fn new(file: File) -> RawFile {
        RawFile { file: Arc::new(file) }
    }

    fn write_zeroes(&mut self, start: u64, bytes: u64) -> io::Result<()> {
        let zeroes = [0u8; 16 * 1024];
        let mut done = 0;
        while done < bytes {
            let part = (bytes - done).min(zeroes.len() as u64) as usize;
            self.write(start + done, &zeroes[..part])?;
            done += part as u64;
        }
        Ok(())
    }

    /// Writes bytes that come from elsewhere than guest memory.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// The descriptor.
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Does one transfer to its end.
    pub fn transfer(&self, transfer: &Transfer, memory: &Memory) -> io::Result<()> {
        let (way, mut offset) = (transfer.way, transfer.offset);
        let mut slices = slices(&transfer.pieces, memory)?;
        let mut first = 0;
        while first < slices.len() {
            let moved = call(&self.file, offset, &slices[first..], way)?;
            if matches!(way, Way::Read) {
                // The kernel writes past the bitmap. Marked afterwards: a page that is sent before is sent again.
                mark_written(&slices[first..slices.len().min(first + VECTORS_MAX)]);
            }
            if moved == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += moved as u64;
            first = advance(&mut slices, first, moved)?;
        }
        Ok(())
    }
}

/// The host's addresses of pieces of guest memory.
pub fn slices<'a>(pieces: &[Piece], memory: &'a Memory) -> io::Result<Vec<Slice<'a>>> {
    let mut slices = Vec::with_capacity(pieces.len());
    chain::slices(memory, pieces, &mut slices)?;
    Ok(slices)
}

/// Tells the bitmap what the kernel has written.
pub fn mark_written(slices: &[Slice<'_>]) {
    slices.iter().for_each(|slice| slice.bitmap().mark_dirty(0, slice.len()));
}

/// One preadv or pwritev, repeated when a signal came.
fn call(file: &File, offset: u64, slices: &[Slice<'_>], way: Way) -> io::Result<usize> {
    let guards: Vec<_> = slices.iter().take(VECTORS_MAX).map(Slice::ptr_guard_mut).collect();
    let vectors: Vec<libc::iovec> =
        guards.iter().map(|g| libc::iovec { iov_base: g.as_ptr().cast(), iov_len: g.len() }).collect();
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    loop {
        let count = vectors.len() as libc::c_int;
        // SAFETY: each vector is a stretch of mapped guest memory (the guards live past the call). The guest may change
        // it at the same time, which is harmless: the kernel only copies bytes, and we hold no references into it.
        let moved = unsafe {
            match way {
                Way::Read => libc::preadv(file.as_raw_fd(), vectors.as_ptr(), count, offset),
                Way::Write => libc::pwritev(file.as_raw_fd(), vectors.as_ptr(), count, offset),
            }
        };
        match usize::try_from(moved) {
            Ok(moved) => return Ok(moved),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Drops what was moved from the front of the slices; returns the first that is left.
fn advance(slices: &mut [Slice<'_>], mut first: usize, mut moved: usize) -> io::Result<usize> {
    while let Some(slice) = slices.get_mut(first) {
        if moved < slice.len() {
            *slice = slice.offset(moved).map_err(io::Error::other)?;
            return Ok(first);
        }
        moved -= slice.len();
        first += 1;
    }
    Ok(first)
}

impl Backing for RawFile {
    fn run(&mut self, transfers: &[Transfer], memory: &Memory) -> Vec<io::Result<()>> {
        transfers.iter().map(|transfer| self.transfer(transfer, memory)).collect()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn zero(&mut self, offset: u64, bytes: u64, discard: bool) -> io::Result<()> {
        let start = offset;
        let how = if discard { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: fallocate takes no pointers.
        let code = unsafe { libc::fallocate(self.file.as_raw_fd(), how | libc::FALLOC_FL_KEEP_SIZE, offset, length) };
        match (code, discard) {
            (0, _) => Ok(()),
            (_, true) => Err(io::Error::last_os_error()),
            // Not every file system can; writing always can.
            (_, false) => self.write_zeroes(start, bytes),
        }
    }
}

/// Size of a file or block device in bytes.
pub fn size(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Takes the disk for this process: for itself alone when it writes. Refuses when another machine has it.
pub fn claim(file: &File, read_only: bool) -> io::Result<()> {
    let error = match set_lock(file, if read_only { libc::F_RDLCK } else { libc::F_WRLCK }) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Err(io::Error::new(error.kind(), "another process uses this disk")),
        _ => Err(error),
    }
}

/// As `claim`, waiting a moment for a process that has just ended: the kernel takes a ring apart after its process is
/// gone, and the ring holds the disk open until then.
pub fn claim_soon(file: &File, read_only: bool) -> io::Result<()> {
    let end = Instant::now() + CLAIM_WAIT;
    loop {
        match claim(file, read_only) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Lets another process take the disk.
pub fn release(file: &File) -> io::Result<()> {
    set_lock(file, libc::F_UNLCK)
}

fn set_lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    // SAFETY: an all-zero flock is a valid value (whole file from the start); the fields that matter are set.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    // SAFETY: the descriptor is open and the pointer is to a live flock; open file description locks go with the file.
    let code = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn many_pieces_and_short_files() {
        let memory = crate::memory::map(1 << 20, false).unwrap();
        let file = tempfile::tempfile().unwrap();
        let mut raw = RawFile::new(file.try_clone().unwrap());
        let go = |raw: &RawFile, way, offset, pieces: &[Piece]| {
            raw.transfer(&Transfer { way, offset, pieces: pieces.to_vec() }, &memory)
        };
        let pieces: Vec<Piece> = (0..600).map(|n| Piece { address: GuestAddress(n * 32), length: 16 }).collect();
        for n in 0..600u64 {
            memory.write_slice(&[n as u8; 16], GuestAddress(n * 32)).unwrap();
        }
        go(&raw, Way::Write, 64, &pieces).unwrap();
        raw.flush().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 64 + 9600);
        let there = [Piece { address: GuestAddress(0x8_0000), length: 9600 }];
        go(&raw, Way::Read, 64, &there).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x8_0000 + 9599)).unwrap(), 599u64 as u8);
        assert_eq!(go(&raw, Way::Read, 65, &there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn zeroes_come_by_either_way() {
        let file = tempfile::tempfile().unwrap();
        let mut raw = RawFile::new(file.try_clone().unwrap());
        for way in 0..2 {
            file.write_all_at(&[9; 100_000], 0).unwrap();
            match way {
                0 => raw.zero(512, 98_304, false).unwrap(),
                _ => raw.write_zeroes(512, 98_304).unwrap(),
            }
            let mut bytes = vec![1; 100_000];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes[512..98_816].iter().all(|b| *b == 0));
            assert_eq!((bytes[511], bytes[98_816], bytes.len()), (9, 9, 100_000));
        }
    }

    #[test]
    fn a_disk_has_one_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        std::fs::write(&path, b"x").unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        claim(&first, false).unwrap();
        assert!(claim(&second, false).unwrap_err().to_string().contains("another process"));
        assert!(claim(&second, true).is_err());
        drop(first);
        claim(&second, true).unwrap();
        claim(&open(), true).unwrap();
    }
}
