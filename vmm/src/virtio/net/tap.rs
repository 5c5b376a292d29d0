//! The tap: opened by name here, or handed over open by whoever owns the network namespace.

use super::{HEADER, Wire};
use crate::config::{Tap as TapSource, inherit};
use crate::memory::Slice;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use virtio_bindings::virtio_net as abi;

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNGETIFF: libc::Ioctl = 0x8004_54d2;
/// Says which offloads the reader of the tap understands; the seccomp filter of a card names it too.
pub const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;

/// What is asked of an open tap.
pub const REQUESTS: [u64; 3] = [TUNGETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ];
const TUN_F_CSUM: u64 = 1;
const TUN_F_TSO4: u64 = 2;
const TUN_F_TSO6: u64 = 4;

const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// An open tap whose frames carry the virtio header.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

fn result(code: libc::c_int) -> io::Result<()> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Tap {
    /// Opens or takes over a tap and sets its header size. One that is not `fresh` may still be another process' of this
    /// host, from which a machine comes: its offloads are that machine's, and stay.
    pub fn open(source: &TapSource, fresh: bool) -> io::Result<Tap> {
        let file = match source {
            TapSource::Name(name) => Tap::attach(name)?,
            TapSource::Fd(fd) => Tap::check(File::from(inherit(*fd)?))?,
            TapSource::VhostUser(_) => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a backend is no tap")),
        };
        Tap::prepare(file, fresh)
    }

    /// Takes over an open tap.
    pub fn over(file: File) -> io::Result<Tap> {
        Tap::prepare(Tap::check(file)?, true)
    }

    fn prepare(file: File, fresh: bool) -> io::Result<Tap> {
        let size = HEADER as libc::c_int;
        // SAFETY: the descriptor is a tap and the ioctl reads one int; F_SETFL takes no pointer.
        unsafe {
            result(libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const size))?;
            result(libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK))?;
        }
        let mut tap = Tap { file };
        if fresh {
            tap.set_offloads(0);
        }
        Ok(tap)
    }

    /// A tap that `open` prepared before.
    pub fn from_fd(fd: OwnedFd) -> Tap {
        Tap { file: File::from(fd) }
    }

    /// The descriptor, to make more of it later.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    fn attach(name: &str) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        // SAFETY: all zeroes is a valid ifreq: an empty name and no flags.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The configuration bounds the name; the last byte stays zero.
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
        // SAFETY: the ioctl reads and writes one ifreq, which lives past the call.
        result(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
        Ok(file)
    }

    /// Refuses what is no tap, or a tap whose frames look otherwise.
    fn check(file: File) -> io::Result<File> {
        // SAFETY: as in `attach`; the ioctl fills it.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // SAFETY: the ioctl writes one ifreq, which lives past the call; on other files it fails.
        result(unsafe { libc::ioctl(file.as_raw_fd(), TUNGETIFF, &raw mut request) })
            .map_err(|e| io::Error::new(e.kind(), format!("the descriptor is no attached tap: {e}")))?;
        // SAFETY: TUNGETIFF fills the flags member.
        let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
        if flags & FLAGS != FLAGS {
            let text = "the tap was not opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(file)
    }
}

impl Wire for Tap {
    fn receive(&mut self, frame: &mut [u8]) -> io::Result<usize> {
        self.file.read(frame)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.file.write(frame).map(drop)
    }

    fn send_rest(&mut self, header: &[u8; HEADER], rest: &[Slice<'_>]) -> io::Result<()> {
        let guards: Vec<_> = rest.iter().map(Slice::ptr_guard).collect();
        let mut vectors = Vec::with_capacity(1 + guards.len());
        vectors.push(libc::iovec { iov_base: header.as_ptr().cast_mut().cast(), iov_len: header.len() });
        let rest = guards.iter().map(|g| libc::iovec { iov_base: g.as_ptr().cast_mut().cast(), iov_len: g.len() });
        vectors.extend(rest);
        // SAFETY: the first vector is the header, the others are stretches of mapped guest memory (the guards live past
        // the call); nothing is written to them. The guest may change its memory at the same time, which is harmless: the
        // kernel only copies bytes, and we hold no references into it.
        let moved = unsafe { libc::writev(self.file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
        if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    fn set_offloads(&mut self, features: u64) {
        let has = |bit: u32, flag: u64| if features & (1 << bit) != 0 { flag } else { 0 };
        let checksum = has(abi::VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM);
        let segments = has(abi::VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4) | has(abi::VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6);
        let flags = if checksum == 0 { 0 } else { checksum | segments };
        // SAFETY: the ioctl takes its argument by value. Failure leaves the offloads off, which is always correct.
        unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETOFFLOAD, flags) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn what_is_no_tap_is_refused() {
        let fd = tempfile::tempfile().unwrap().into_raw_fd();
        assert!(Tap::open(&TapSource::Fd(fd), true).unwrap_err().to_string().contains("no attached tap"));
    }
}
