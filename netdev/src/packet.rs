//! Packet sockets of the node namespace: one that takes the DHCP requests which the programs hand over, and
//! what the agent itself sends, marked so that the programs let it pass.
use crate::ask6::{self, Binding6};
use crate::bfd;
use crate::device::device_of;
use crate::dhcp::{self, Binding};
use crate::error::{Result, Step};
use crate::ra;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socket, sockopt};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// `MARK_AGENT` of `bpf/frame.h`.
const MARK: u32 = 0x7069_6c76;
const ETH_P_ALL: u16 = 0x0003;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];
/// How often routers say that they are there.
const SAY_EVERY: Duration = Duration::from_secs(300);
/// Milliseconds between looks at the time.
const TICK: u16 = 10_000;
/// Bytes of a frame that are read; a DHCP request is far shorter.
const FRAME_MAX: usize = 2048;

/// What ports are told, by interface index.
#[derive(Default)]
pub(crate) struct Told {
    pub v4: RwLock<HashMap<u32, Arc<Binding>>>,
    pub v6: RwLock<HashMap<u32, Arc<Binding6>>>,
    /// Who asks on tagged wires, by network.
    pub wires: RwLock<HashMap<u32, crate::wire::Asker>>,
    /// How things are called.
    pub names: crate::resolver::Shelf,
    /// Who speaks with next hops.
    pub bfd: Arc<crate::bfd::Desk>,
    /// Who asks for prefixes on the edge link.
    pub delegations: Arc<crate::delegation::Desk>,
}

pub(crate) type Bindings = Arc<Told>;

/// A socket in the calling thread's namespace that only sends, on any device.
pub(crate) fn sender() -> Result<OwnedFd> {
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).step("open packet socket")?;
    setsockopt(&fd, sockopt::Mark, &MARK).step("mark packet socket")?;
    Ok(fd)
}

/// A socket that takes one protocol's frames from a device of the calling thread's namespace, and sends as the agent.
pub(crate) fn packet_socket(ifindex: u32, protocol: u16) -> Result<OwnedFd> {
    let fd = sender()?;
    let address = link_address(ifindex, protocol);
    // SAFETY: the address lives across the call and is passed with its own size.
    let bound = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(bound).step("bind packet socket")?;
    Ok(fd)
}

fn link_address(ifindex: u32, protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll is plain old data for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex.cast_signed();
    address
}

/// Sends a frame out of a device, as the agent.
pub(crate) fn send(fd: &impl AsFd, ifindex: u32, frame: &[u8]) -> std::io::Result<()> {
    let (ifindex, header) = device_of(ifindex);
    let tagged = header.map(|header| tag(frame, header));
    let frame = tagged.as_deref().unwrap_or(frame);
    let kind = frame.get(12..).and_then(|f| f.first_chunk()).map_or(ETH_P_IP, |k| u16::from_be_bytes(*k));
    let address = link_address(ifindex, kind);
    // SAFETY: the buffer and the address live across the call and are passed with their own sizes.
    let sent = unsafe {
        libc::sendto(
            fd.as_fd().as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The frame as it stands on a device that carries several networks.
fn tag(frame: &[u8], header: [u8; 4]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(frame.len().min(12));
    [macs, &header, rest].concat()
}

/// Says on the edge link that `ip` is at `mac` now, so that others forget where it was.
pub(crate) fn announce(fd: &impl AsFd, ifindex: u32, ip: Ipv4Addr, mac: [u8; 6]) -> std::io::Result<()> {
    let mut frame = [&[0xff; 6][..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &ip.octets()].concat();
    frame.extend([0; 6]);
    frame.extend(ip.octets());
    frame.resize(60, 0);
    send(fd, ifindex, &frame)
}

/// The thread that answers DHCP; it ends with this value.
pub(crate) struct DhcpService {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl DhcpService {
    /// Listens on `punt` of the calling thread's namespace.
    pub fn start(punt: u32, bindings: Bindings) -> Result<Self> {
        let fd = packet_socket(punt, ETH_P_ALL)?;
        let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC).step("open eventfd")?);
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("dhcp".into())
            .spawn(move || serve(&fd, &stopped, &bindings))
            .step("start the DHCP thread")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for DhcpService {
    fn drop(&mut self) {
        if self.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

fn serve(fd: &OwnedFd, stop: &EventFd, bindings: &Bindings) {
    let mut buffer = vec![0u8; FRAME_MAX];
    let mut said = Instant::now();
    loop {
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            let all: Vec<_> = bindings.v6.read().iter().map(|(i, b)| (*i, b.clone())).collect();
            all.iter().for_each(|(ifindex, binding)| advertise(fd, *ifindex, binding, ra::LIFETIME));
        }
        let mut wait = [PollFd::new(fd.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wait, PollTimeout::from(TICK)) {
            Err(Errno::EINTR) => continue,
            Err(e) => return tracing::error!(error = %e, "DHCP service ends"),
            Ok(_) => {}
        }
        if wait[1].any() == Some(true) {
            return;
        }
        let Ok(length) = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) else { continue };
        let frame = &buffer[..length.min(FRAME_MAX)];
        if bfd::frame::is_one(frame) {
            bindings.bfd.hear(frame);
            continue;
        }
        let Some(ifindex) = dhcp::source_of(frame) else { continue };
        if ifindex == bindings.delegations.edge() {
            bindings.delegations.hear(frame);
            continue;
        }
        let reply = if frame.get(12..14) == Some(&ETH_P_IPV6) {
            let binding = bindings.v6.read().get(&ifindex).cloned();
            binding.and_then(|b| ask6::answer(&b, frame))
        } else {
            let binding = bindings.v4.read().get(&ifindex).cloned();
            binding.and_then(|b| dhcp::answer(&b, dhcp::payload(frame)?))
        };
        let Some(reply) = reply else { continue };
        if let Err(e) = send(fd, ifindex, &reply) {
            tracing::debug!(ifindex, error = %e, "answer not sent");
        }
    }
}

/// Says behind one port which router is there, for so many seconds.
pub(crate) fn advertise(fd: &impl AsFd, ifindex: u32, binding: &Binding6, lifetime: u16) {
    let Some(ra) = &binding.ra else { return };
    if let Err(e) = send(fd, ifindex, &ra.frame(lifetime)) {
        tracing::debug!(port = %binding.port, error = %e, "router not advertised");
    }
}
