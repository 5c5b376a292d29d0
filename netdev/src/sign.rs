//! Signed TCP connections (RFC 2385): a socket is told the key of its connections to one address, and the kernel drops
//! whatever comes from there without the signature.
use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Of one key, as the kernel has it.
pub const KEY_MAX: usize = 80;
const TCP_MD5SIG: libc::c_int = 14;

/// The kernel's `struct tcp_md5sig`.
#[repr(C)]
struct Request {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix: u8,
    length: u16,
    ifindex: libc::c_int,
    key: [u8; KEY_MAX],
}

/// Has all segments of the socket's connections to `peer` signed with `key`. Before it connects, or listens.
///
/// # Errors
/// What the kernel says: `ENOPROTOOPT` from one that knows no signatures.
pub fn sign_tcp(socket: BorrowedFd<'_>, peer: IpAddr, key: &[u8]) -> io::Result<()> {
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a key has 1 to {KEY_MAX} bytes")));
    }
    // SAFETY: all zeroes are a valid value of both structures.
    let mut request: Request = unsafe { std::mem::zeroed() };
    request.length = key.len() as u16;
    request.key[..key.len()].copy_from_slice(key);
    let to = std::ptr::from_mut(&mut request.address);
    match peer {
        IpAddr::V4(address) => {
            // SAFETY: as above.
            let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            name.sin_family = libc::AF_INET as u16;
            name.sin_addr.s_addr = u32::from(address).to_be();
            // SAFETY: the storage is large enough and aligned for every kind of address.
            unsafe { to.cast::<libc::sockaddr_in>().write(name) };
        }
        IpAddr::V6(address) => {
            // SAFETY: as above.
            let mut name: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            name.sin6_family = libc::AF_INET6 as u16;
            name.sin6_addr.s6_addr = address.octets();
            // SAFETY: as above.
            unsafe { to.cast::<libc::sockaddr_in6>().write(name) };
        }
    }
    // SAFETY: the request lives across the call and is passed with its own size.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_MD5SIG,
            std::ptr::from_ref(&request).cast(),
            size_of::<Request>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        net::{Ipv4Addr, TcpListener, TcpStream},
        os::fd::AsFd,
    };

    #[test]
    fn a_listener_with_a_key_takes_no_stranger() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        match sign_tcp(listener.as_fd(), here, b"a key") {
            // There are kernels without.
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => return,
            other => other.unwrap(),
        }
        assert!(sign_tcp(listener.as_fd(), here, &[]).is_err());
        assert!(sign_tcp(listener.as_fd(), here, &[1; KEY_MAX + 1]).is_err());
        let to = listener.local_addr().unwrap();
        let stranger = TcpStream::connect_timeout(&to, std::time::Duration::from_millis(300));
        assert!(stranger.is_err(), "a connection without signatures came up");
        let kernel = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        );
        let signed = kernel.unwrap();
        sign_tcp(signed.as_fd(), here, b"a key").unwrap();
        let std::net::SocketAddr::V4(to) = to else { panic!("asked for IPv4") };
        nix::sys::socket::connect(signed.as_raw_fd(), &nix::sys::socket::SockaddrIn::from(to)).unwrap();
        let (mut taken, _) = listener.accept().unwrap();
        drop(signed);
        assert_eq!(taken.read(&mut [0]).unwrap(), 0, "and it is closed as any other");
    }
}
