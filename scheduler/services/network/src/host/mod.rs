//! What one host is told of the network, and what it tells back.
//!
//! ```text
//!  local ports --> their networks --> routers there --> the routers' other networks --> remote ports
//!       |                                  '--> gateway: which host does source NAT (rendezvous hash)
//!       '--> security groups, floating IPs
//! ```
//! A host learns of nothing that its ports cannot reach. The view is computed from the store whenever a
//! record of [`crate::KINDS`] changes; it takes a fixed number of queries for each round of [`reach`].
mod message;
mod metadata;
mod names;
mod observe;
mod private;
mod quality;
mod reach;

pub use metadata::network_data;

use crate::Network;
use pilvi_agent_api::v1::HostNetwork;
use pilvi_kit::Fault;
use sha2::{Digest, Sha256};

/// A host as the fleet knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    pub name: String,
    /// Underlay address; "" on a single-node cloud.
    pub vtep: String,
    pub up: bool,
    /// Microseconds since 1970; 0 when not known.
    pub started_us: i64,
    pub heartbeat_us: i64,
}

/// The host that holds a router's way out: for each router the live host whose hash with it is the
/// greatest, so that a host that goes moves only its own routers. `None` when no host is up.
pub fn gateway_host<'h>(router_id: &str, hosts: impl Iterator<Item = &'h HostInfo>) -> Option<&'h HostInfo> {
    let weight = |host: &HostInfo| -> [u8; 32] { Sha256::digest(format!("{router_id}/{}", host.name)).into() };
    hosts.filter(|h| h.up).max_by_key(|h| weight(h))
}

impl Network {
    /// Everything the packet path of `host` needs. `hosts` are all hosts of the cloud.
    pub async fn host_network(&self, host: &str, hosts: &[HostInfo]) -> Result<HostNetwork, Fault> {
        self.remember(hosts);
        let reach = reach::Reach::gather(&self.store, host, hosts).await?;
        Ok(message::compose(&reach, host, hosts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_host_moves_only_its_own_routers() {
        let host = |n: usize, up| HostInfo { name: format!("h{n}"), up, ..HostInfo::default() };
        let all: Vec<HostInfo> = (0..4).map(|n| host(n, true)).collect();
        let mut less = all.clone();
        less[2].up = false;
        let mut moved = 0;
        for n in 0..200 {
            let id = format!("router-{n}");
            let (before, after) = (gateway_host(&id, all.iter()).unwrap(), gateway_host(&id, less.iter()).unwrap());
            if before.name == "h2" {
                moved += 1;
                assert_ne!(after.name, "h2");
            } else {
                assert_eq!(before.name, after.name);
            }
        }
        assert!(moved > 20, "the hash spreads routers");
        assert!(gateway_host("r", [].iter()).is_none());
    }
}
