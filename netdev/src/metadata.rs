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
use crate::error::{Result, Step};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};

/// Where the listener is bound, inside the node namespace.
pub const METADATA_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
const BASE: u32 = 0x6440_0000;
const MASK: u32 = 0xffc0_0000;

/// Port ids by interface index.
pub(crate) type PortNames = Arc<RwLock<HashMap<u32, String>>>;

/// Accepts the guests' connections to the metadata address.
#[derive(Debug)]
pub struct MetadataListener {
    listener: TcpListener,
    ports: PortNames,
}

impl MetadataListener {
    pub(crate) fn new(listener: std::net::TcpListener, ports: PortNames) -> Result<Self> {
        listener.set_nonblocking(true).step("metadata listener")?;
        Ok(Self { listener: TcpListener::from_std(listener).step("metadata listener")?, ports })
    }

    /// The next connection and the id of the port that made it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The listener is broken. A connection from a port that is gone is closed and not returned.
    pub async fn accept(&self) -> Result<(TcpStream, String)> {
        loop {
            let (stream, peer) = self.listener.accept().await.step("accept metadata connection")?;
            let port = interface_of(peer.ip()).and_then(|i| self.ports.read().get(&i).cloned());
            if let Some(port) = port {
                return Ok((stream, port));
            }
        }
    }
}

/// The interface index in a rewritten source address.
fn interface_of(ip: IpAddr) -> Option<u32> {
    let IpAddr::V4(ip) = ip else { return None };
    let bits = u32::from(ip);
    (bits & MASK == BASE).then_some(bits & !MASK)
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
    }
}
