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

/// The descriptors that a process has of the tap `name`, shared with it: both read and write the same queue.
pub fn of_process(pid: u32, name: &str) -> Result<Vec<OwnedFd>> {
    let folder = format!("/proc/{pid}/fdinfo");
    // SAFETY: a plain system call without pointers; the descriptor that it makes is nobody else's.
    let process = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let process = made(process).step(format!("open process {pid}"))?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).step(format!("read {folder}"))?.flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|number| number.parse::<libc::c_long>().ok()) else {
            continue;
        };
        // Gone in between: it was none of a tap.
        let told = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if !told.lines().any(|line| line.strip_prefix("iff:").is_some_and(|device| device.trim() == name)) {
            continue;
        }
        let of = std::os::fd::AsRawFd::as_raw_fd(&process);
        // SAFETY: as above.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, libc::c_long::from(of), number, 0) };
        found.push(made(copy).step(format!("share tap {name} of process {pid}"))?);
    }
    Ok(found)
}

fn made(fd: libc::c_long) -> std::io::Result<OwnedFd> {
    match i32::try_from(fd) {
        // SAFETY: a descriptor that the kernel has just made, which nobody else owns.
        Ok(fd @ 0..) => Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_tap_is_found_in_the_process_that_has_it() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: taps need root");
            return;
        }
        let name = format!("pt{}", std::process::id());
        let ours = open(&name).unwrap();
        assert!(open(&name).is_err(), "it is in use");
        let shared = of_process(std::process::id(), &name).unwrap();
        assert_eq!(shared.len(), 1);
        assert_ne!(shared[0].as_raw_fd(), ours.as_raw_fd());
        // It lives on with the second one.
        drop(ours);
        let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", shared[0].as_raw_fd())).unwrap();
        assert!(told.contains(&name), "{told}");
        let down = std::fs::File::from(shared.into_iter().next().unwrap()).write(&[0; 60]).unwrap_err();
        assert_eq!(down.raw_os_error(), Some(libc::EIO), "a tap that is down takes nothing");
        assert!(of_process(std::process::id(), &name).unwrap().is_empty());
        assert!(of_process(u32::MAX >> 1, &name).is_err());
    }
}
