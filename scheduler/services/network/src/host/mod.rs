//! What one host is told of the network, and what it tells back.
//!
//! ```text
//!  local ports --> their networks --> routers there --> the routers' other networks --> their endpoints
//!       |                                  '--> gateway: which host does source NAT (a candidate, or by rendezvous hash)
//!       '--> security groups, floating IPs
//! ```
//! A host learns of nothing that its ports cannot reach. Its view is computed from the store whenever something that
//! it was made of changes ([`interest`]); it takes a fixed number of queries for each round of [`reach`]. Endpoints on
//! other hosts are no part of it: they are told by network, to all that reach it ([`neighbours`]).
mod delegations;
mod firewalls;
pub mod interest;
mod message;
mod metadata;
mod names;
pub mod neighbours;
mod observe;
mod private;
mod quality;
mod reach;
mod segments;
mod shift;
mod taps;
mod tunnels;

pub use metadata::network_data;

use crate::{
    Network,
    hosting::{self, model::holder},
    router::model::Router,
};
use pilvi_agent_api::v1::{HostNetwork, Wireguard};
use pilvi_kit::Fault;
use sha2::{Digest, Sha256};

/// A host as the fleet knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostInfo {
    pub name: String,
    /// Underlay address; "" on a single-node cloud.
    pub vtep: String,
    /// How it is spoken to if it encrypts what goes to other hosts.
    pub wireguard: Option<Wireguard>,
    /// Why guests of other hosts do not reach it; "" when they do.
    pub overlay_error: String,
    pub up: bool,
    /// Physical networks that it is connected to; `None`: it does not say, so any.
    pub physical: Option<Vec<String>>,
    /// Its availability zone; "" is [`crate::zone::COMMON`].
    pub zone: String,
    /// Microseconds since 1970; 0 when not known.
    pub started_us: i64,
    pub heartbeat_us: i64,
}

impl HostInfo {
    /// Does it reach this physical network? The overlay (`None`) reaches every host.
    pub fn is_connected(&self, physical: Option<&str>) -> bool {
        crate::segment::model::is_connected(self.physical.as_deref(), physical)
    }
}

/// The host that holds a router's way out: for each router the live host whose hash with it is the
/// greatest, so that a host that goes moves only its own routers. `None` when no host is up.
pub fn gateway_host<'h>(router_id: &str, hosts: impl Iterator<Item = &'h HostInfo>) -> Option<&'h HostInfo> {
    hosts.filter(|h| h.up).max_by_key(|h| weight(router_id, h))
}

fn weight(router_id: &str, host: &HostInfo) -> [u8; 32] {
    Sha256::digest(format!("{router_id}/{}", host.name)).into()
}

/// Hosts, the one first that [`gateway_host`] would name of them if all were up.
pub fn rank<'h>(router_id: &str, hosts: impl Iterator<Item = &'h HostInfo>) -> Vec<&'h HostInfo> {
    let mut hosts: Vec<&HostInfo> = hosts.collect();
    hosts.sort_by_cached_key(|h| std::cmp::Reverse(weight(router_id, h)));
    hosts
}

/// A host by its name, among all of them in the order of their names.
pub fn find_host<'h>(hosts: &'h [HostInfo], name: &str) -> Option<&'h HostInfo> {
    hosts.binary_search_by(|h| h.name.as_str().cmp(name)).ok().and_then(|at| hosts.get(at))
}

impl Network {
    /// Everything the packet path of `host` needs. `hosts` are all hosts of the cloud, in the order of their names.
    pub async fn host_network(&self, host: &str, hosts: &[HostInfo]) -> Result<HostNetwork, Fault> {
        self.remember(hosts);
        self.view_of(host, hosts).await
    }

    /// The same, of the hosts as they were told last. (Remembering what was read a moment ago could bring back what is over.)
    pub async fn host_network_now(&self, host: &str) -> Result<HostNetwork, Fault> {
        self.view_of(host, &self.hosts()).await
    }

    async fn view_of(&self, host: &str, hosts: &[HostInfo]) -> Result<HostNetwork, Fault> {
        let reach = reach::Reach::gather(&self.store, host, hosts).await?;
        self.interest.note(host, reach.keys());
        self.interest.note_ports(reach.local.values());
        Ok(message::compose(&reach, host, hosts))
    }

    /// The host that holds a router's way out.
    pub(crate) async fn holder_of(&self, router: &Router) -> Result<Option<String>, Fault> {
        let (wishes, hosts) = (hosting::ops::all(&self.store).await?, self.hosts());
        Ok(holder(&wishes, router, &hosts).map(|host| host.name.clone()))
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
