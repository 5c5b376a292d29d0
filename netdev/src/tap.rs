//! Taps: a guest's interface as a file. They are persistent, so that a VMM that dies leaves the device, its
//! programs and its flows in place for the next one.
use crate::error::{Result, Step};
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;

const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;

nix::ioctl_write_int!(tun_set_iff, b'T', 202);
nix::ioctl_write_int!(tun_set_persist, b'T', 203);

/// Opens the tap `name` in the calling thread's namespace, making it if it is not there.
///
/// The descriptor carries frames behind a `virtio_net_hdr` (10 bytes unless the reader sets another size).
pub fn open(name: &str) -> Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").step("open /dev/net/tun")?;
    // SAFETY: ifreq is plain old data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    let fd = OwnedFd::from(file);
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives across the call.
    unsafe { tun_set_iff(std::os::fd::AsRawFd::as_raw_fd(&fd), std::ptr::from_mut(&mut request) as libc::c_ulong) }
        .step(format!("open tap {name}"))?;
    Ok(fd)
}

/// Makes the tap `name` if it is not there, and lets it outlive its descriptors once `mark` says whose it is: who
/// dies in between leaves no device that nobody owns up to.
pub fn create(name: &str, mark: impl FnOnce() -> Result<()>) -> Result<()> {
    let fd = open(name)?;
    mark()?;
    // SAFETY: TUNSETPERSIST takes a plain integer.
    unsafe { tun_set_persist(std::os::fd::AsRawFd::as_raw_fd(&fd), 1) }.step(format!("keep tap {name}"))?;
    Ok(())
}
