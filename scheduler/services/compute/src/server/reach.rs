//! Hosts that a server's networks reach. Where a network is routed, a host gives its guests the addresses of one segment, and
//! only hosts of a segment with addresses left will do.
use crate::{Compute, tables::Server};
use pilvi_kit::Fault;
use pilvi_network::segment::room::{self, Wish};
use pilvi_place::{Host, Reason};
use std::collections::{BTreeMap, BTreeSet};

const NO_HOST: &str = "No valid host was found. There are not enough hosts available.";
const NO_ADDRESS: &str = "No valid host was found. No host that has room for the server is connected to a segment of its routed networks with free \
     addresses.";

/// Is it the host that does not go with the addresses, so that another one may?
pub fn is_of_host(fault: &Fault) -> bool {
    let kinds = ["IpAddressGenerationFailure", "HostNotConnectedToAnySegment", "HostNotCompatibleWithFixedIps"];
    kinds.contains(&&*fault.kind)
}

/// Why no host is left. `lost`: what the last one that was tried refused.
pub fn no_host(refused: &BTreeMap<Reason, usize>, lost: Option<&Fault>) -> &'static str {
    let addresses = refused.contains_key(&Reason::Address) || lost.is_some_and(is_of_host);
    if addresses { NO_ADDRESS } else { NO_HOST }
}

/// Whose the server's ports are, as the network service calls it.
pub fn owner_of_ports(server: &Server) -> String {
    format!("compute:{}", server.zone.as_deref().unwrap_or("nova"))
}

impl Compute {
    /// Hosts where the server's networks have addresses for it, or where those that it has work; `None`: any.
    pub(crate) async fn reachable(&self, server: &Server, hosts: &[Host]) -> Result<Option<BTreeSet<String>>, Fault> {
        let owner = owner_of_ports(server);
        let has = server.ports.iter().map(|port| Wish { port: Some(&port.id), owner: &owner, ..Wish::default() });
        let asks = server.networks.iter().map(|wish| Wish {
            port: wish.port_id.as_deref(),
            network: wish.network_id.as_deref(),
            address: wish.fixed_ip.as_deref(),
            owner: &owner,
        });
        let wishes: Vec<Wish> = if server.host.is_some() { has.collect() } else { asks.collect() };
        room::hosts_for(&self.store, &wishes, hosts.iter().map(|host| host.name.as_str())).await
    }
}
