//! What a device leaves to hardware that it does not have: `ethtool`'s oldest question, asked by ioctl.
use crate::error::{Result, Step};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::io;
use std::os::fd::AsRawFd;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Whether the device's hardware writes checksums. Without that nothing may be cut there either.
const SET_TX_CHECKSUM: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// From now on the kernel cuts large frames and writes checksums before the device of the calling thread's namespace gets
/// a frame.
pub(crate) fn finish_frames(device: &str) -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .step("open a socket for ethtool")?;
    let mut value = Value { command: SET_TX_CHECKSUM, data: 0 };
    // SAFETY: all zeroes are a valid `ifreq`: it is plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(device.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(&mut value).cast();
    // SAFETY: the request and the value that it points to live through the call, and are as large as this command says.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, std::ptr::from_mut(&mut request)) };
    if done < 0 { Err(io::Error::last_os_error()).step(format!("switch offloads of {device} off")) } else { Ok(()) }
}
