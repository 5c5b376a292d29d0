//! 169.254.169.254 without a proxy for each network.
//!
//! ```text
//!   guest 10.0.0.5:p -> 169.254.169.254:80
//!     from_guest: source := 100.64.0.0/10 with the tap's index -> agent0 -> the node's TCP stack
//!   listener: peer 100.64.0.9 -> interface 9 -> port id
//!     from_agent: destination := 10.0.0.5 -> tap
//! ```
//! The source address is written by the program and cannot be forged from a guest, so it says which port
//! asked even where tenants' addresses overlap. It works on networks without a router: the address is
//! answered by ARP on every network, and DHCP gives a route to it.
//!
//! By IPv6 the same happens with `fe80::a9fe:a9fe`: a guest asks from the link-local address that follows from its hardware
//! address, which becomes `fe80::7069:6c76:<index>`.
use crate::error::{Result, Step};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// Where the listener is bound, inside the node namespace.
pub const METADATA_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
/// The same for IPv6, on the link to the guests.
pub const METADATA_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe);
/// The upper 96 bits of an address that names a port.
const BASE6: u128 = 0xfe80_0000_0000_0000_7069_6c76;
const BASE: u32 = 0x6440_0000;
const MASK: u32 = 0xffc0_0000;

/// Port ids by interface index.
pub(crate) type PortNames = Arc<RwLock<HashMap<u32, String>>>;

/// Where the host listens.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub v4: std::net::TcpListener,
    pub v6: Option<std::net::TcpListener>,
}

/// Where it listens for IPv6, on the interface of that index.
pub(crate) fn address6(interface: u32) -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(METADATA_ADDRESS6, 80, 0, interface))
}

/// Accepts the guests' connections to the metadata address.
#[derive(Debug)]
pub struct MetadataListener {
    listener: TcpListener,
    /// Where the kernel has IPv6.
    listener6: Option<TcpListener>,
    ports: PortNames,
}

impl MetadataListener {
    pub(crate) fn new(listener: Sockets, ports: PortNames) -> Result<Self> {
        let made = |l: std::net::TcpListener| {
            l.set_nonblocking(true).step("metadata listener")?;
            TcpListener::from_std(l).step("metadata listener")
        };
        Ok(Self { listener: made(listener.v4)?, listener6: listener.v6.map(made).transpose()?, ports })
    }

    async fn next(&self) -> std::io::Result<(TcpStream, SocketAddr)> {
        let Some(listener6) = &self.listener6 else { return self.listener.accept().await };
        tokio::select! {
            v4 = self.listener.accept() => v4,
            v6 = listener6.accept() => v6,
        }
    }

    /// The next connection and the id of the port that made it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The listener is broken. A connection from a port that is gone is closed and not returned.
    pub async fn accept(&self) -> Result<(TcpStream, String)> {
        loop {
            let (stream, peer) = self.next().await.step("accept metadata connection")?;
            let port = interface_of(peer.ip()).and_then(|i| self.ports.read().get(&i).cloned());
            if let Some(port) = port {
                return Ok((stream, port));
            }
        }
    }
}

/// The interface index in a rewritten source address.
pub(crate) fn interface_of(ip: IpAddr) -> Option<u32> {
    match ip {
        IpAddr::V4(ip) => {
            let bits = u32::from(ip);
            (bits & MASK == BASE).then_some(bits & !MASK)
        }
        IpAddr::V6(ip) => {
            let bits = u128::from(ip);
            (bits >> 32 == BASE6).then(|| u32::try_from(bits & 0xffff_ffff).ok()).flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rewritten_addresses_name_a_port() {
        assert_eq!(interface_of("100.64.0.9".parse().unwrap()), Some(9));
        assert_eq!(interface_of("100.127.255.255".parse().unwrap()), Some((1 << 22) - 1));
        assert_eq!(interface_of("100.128.0.9".parse().unwrap()), None);
        assert_eq!(interface_of("10.0.0.9".parse().unwrap()), None);
        assert_eq!(interface_of("::1".parse().unwrap()), None);
        assert_eq!(interface_of("fe80::7069:6c76:4000:9".parse().unwrap()), Some(0x4000_0009));
        assert_eq!(interface_of("fe80::7069:6c77:0:9".parse().unwrap()), None);
    }
}
