//! userfaultfd: the kernel's calls, and nothing of who brings pages.
//!
//! The descriptor is opened before the jail closes. It must see what the kernel touches as well (KVM, io_uring, reads into
//! guest memory), so one for user space's own accesses alone will not do: root has the other kind, and whoever may open
//! `/dev/userfaultfd`.

use crate::fault::PAGE;
use crate::memory::Memory;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

const API: u64 = 0xaa;
const UFFDIO_API: u64 = 0xc018_aa3f;
/// Has the kernel tell of faults in a range.
pub const UFFDIO_REGISTER: u64 = 0xc020_aa00;
/// And no longer.
pub const UFFDIO_UNREGISTER: u64 = 0x8010_aa01;
/// Has those go on who wait in a range.
pub const UFFDIO_WAKE: u64 = 0x8010_aa02;
/// Puts contents where nothing is.
pub const UFFDIO_COPY: u64 = 0xc028_aa03;
/// Puts zeroes where nothing is.
pub const UFFDIO_ZEROPAGE: u64 = 0xc020_aa04;
const USERFAULTFD_IOC_NEW: u64 = 0xaa00;
const MODE_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
/// Bytes of an event.
const MESSAGE: usize = 32;

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

/// The descriptor.
pub struct Uffd(File);

impl Uffd {
    /// Opens one that sees faults of the kernel, too.
    pub fn open() -> io::Result<Uffd> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: a call without pointers.
        let mut fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        if fd < 0 {
            let device = File::open("/dev/userfaultfd")?;
            // SAFETY: the request takes flags, no pointer; the device is open.
            fd = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) }.into();
        }
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        let uffd = Uffd(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }.into());
        // No features: missing pages of anonymous memory are what every kernel tells of.
        let mut api = [API, 0, 0];
        uffd.call(UFFDIO_API, &mut api)?;
        Ok(uffd)
    }

    fn call<T>(&self, request: u64, argument: &mut T) -> io::Result<()> {
        // SAFETY: each request is made with the structure that it takes, live and mutable for the time of the call.
        let code = unsafe { libc::ioctl(self.0.as_raw_fd(), request, std::ptr::from_mut(argument)) };
        if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// From here on, whoever touches a page of guest memory that is not there waits for it.
    pub fn watch(&self, memory: &Memory) -> io::Result<()> {
        for region in memory.iter() {
            let mut argument = (Range { start: region.as_ptr() as u64, len: region.len() }, MODE_MISSING, 0u64);
            self.call(UFFDIO_REGISTER, &mut argument)?;
        }
        Ok(())
    }

    /// No longer: what is missing now are zeroes, and whoever waits goes on.
    pub fn forget(&self, memory: &Memory) {
        for region in memory.iter() {
            // Fails where it was not watched.
            let _ = self.call(UFFDIO_UNREGISTER, &mut Range { start: region.as_ptr() as u64, len: region.len() });
        }
    }

    /// Address of the next page that somebody waits for; None: nobody does.
    pub fn next(&self) -> io::Result<Option<u64>> {
        let mut message = [0u8; MESSAGE];
        loop {
            match (&self.0).read(&mut message) {
                Ok(MESSAGE) if message[0] == EVENT_PAGEFAULT => {
                    let mut address = [0; 8];
                    address.copy_from_slice(&message[16..24]);
                    return Ok(Some(u64::from_le_bytes(address) / PAGE * PAGE));
                }
                Ok(MESSAGE) => {}
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Puts whole pages at this address of the process and wakes who waits for them. Pages that are there stay.
    pub fn copy(&self, to: u64, contents: &[u8]) -> io::Result<()> {
        self.fill(to, contents.len() as u64, |at, left| {
            let from = contents.as_ptr() as u64 + (at - to);
            let mut argument = [at, from, left, 0, 0];
            let done = self.call(UFFDIO_COPY, &mut argument);
            (argument[4] as i64, done)
        })
    }

    /// The same with zeroes.
    pub fn zero(&self, to: u64, bytes: u64) -> io::Result<()> {
        self.fill(to, bytes, |at, left| {
            let mut argument = (Range { start: at, len: left }, 0u64, 0i64);
            let done = self.call(UFFDIO_ZEROPAGE, &mut argument);
            (argument.2, done)
        })
    }

    /// Fills page by page where something is already there, and goes on after what was done.
    fn fill(&self, to: u64, bytes: u64, step: impl Fn(u64, u64) -> (i64, io::Result<()>)) -> io::Result<()> {
        let (mut at, end) = (to, to + bytes);
        while at < end {
            let (done, result) = step(at, end - at);
            if let Ok(done @ 1..) = u64::try_from(done) {
                at += done;
                continue;
            }
            match result.map_err(|e| (e.raw_os_error(), e)) {
                Ok(()) => return Ok(()),
                Err((Some(libc::EAGAIN), _)) => {}
                Err((Some(libc::EEXIST), _)) => {
                    // Who waits for a page that is there has missed its coming.
                    let _ = self.call(UFFDIO_WAKE, &mut Range { start: at, len: PAGE });
                    at += PAGE;
                }
                Err((_, e)) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Waits until one of these is readable: which are.
pub fn wait<const N: usize>(fds: [RawFd; N]) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    loop {
        // SAFETY: the pointer is to `N` live pollfds.
        if unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, -1) } >= 0 {
            return Ok(polled.map(|one| one.revents != 0));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl AsRawFd for Uffd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn who_touches_a_missing_page_waits_until_it_comes() {
        let Ok(uffd) = Uffd::open() else {
            eprintln!("SKIPPED: no userfaultfd that sees the kernel's faults");
            return;
        };
        let memory = crate::memory::map(1 << 20, true).unwrap();
        memory.write_slice(&[1; 4096], GuestAddress(0x3000)).unwrap();
        uffd.watch(&memory).unwrap();
        let host = memory.get_host_address(GuestAddress(0)).unwrap() as u64;
        std::thread::scope(|scope| {
            let touch = |at| {
                let memory = &memory;
                move || memory.read_obj::<u8>(GuestAddress(at)).unwrap()
            };
            let (first, second) = (scope.spawn(touch(0x2010)), scope.spawn(touch(0x5fff)));
            let mut seen = Vec::new();
            while seen.len() < 2 {
                wait([uffd.as_raw_fd()]).unwrap();
                seen.extend(uffd.next().unwrap().map(|at| at - host));
            }
            seen.sort_unstable();
            assert_eq!(seen, [0x2000, 0x5000]);
            uffd.zero(host + 0x5000, PAGE).unwrap();
            assert_eq!(second.join().unwrap(), 0);
            // What is there stays, before and behind it pages come.
            uffd.copy(host + 0x2000, &[7; 3 * 4096]).unwrap();
            assert_eq!(first.join().unwrap(), 7);
            // A read of the kernel's.
            let kernel = scope.spawn(|| {
                let slice = memory.get_slice(GuestAddress(0x8000), 16).unwrap();
                // SAFETY: the pointer is to 16 bytes of mapped guest memory.
                unsafe { libc::getrandom(slice.ptr_guard_mut().as_ptr().cast(), 16, 0) }
            });
            wait([uffd.as_raw_fd()]).unwrap();
            assert_eq!(uffd.next().unwrap(), Some(host + 0x8000));
            uffd.forget(&memory);
            assert_eq!(kernel.join().unwrap(), 16);
        });
        let at = |address| memory.read_obj::<u8>(GuestAddress(address)).unwrap();
        assert_eq!([0x2fff, 0x3000, 0x4000, 0x9000].map(at), [7, 1, 7, 0]);
        assert!(uffd.next().unwrap().is_none());
    }
}
