//! A router: joins subnets and, through its gateways, external networks.
use crate::{host::HostInfo, port::model::FixedIp, spare::model::Candidate, subnet::model::Route};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    pub network_id: String,
    pub enable_snat: bool,
    pub external_fixed_ips: Vec<FixedIp>,
    #[serde(default)]
    pub qos_policy_id: Option<String>,
}

/// A way out beside the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherGateway {
    pub port_id: String,
    pub network_id: String,
    pub external_fixed_ips: Vec<FixedIp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Router {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub admin_state_up: bool,
    pub distributed: bool,
    /// It keeps spare ways.
    pub ha: bool,
    /// Hosts that stand by for its way out, the one first that holds it while it lives.
    #[serde(default)]
    pub candidates: Vec<Candidate>,
    /// The port that says which host does the source NAT of a distributed router that keeps spare ways.
    #[serde(default)]
    pub centre_port_id: Option<String>,
    pub routes: Vec<Route>,
    pub external_gateway_info: Option<Gateway>,
    /// The port that holds the gateway's addresses.
    pub gw_port_id: Option<String>,
    #[serde(default)]
    pub further: Vec<FurtherGateway>,
    /// What goes out is spread over all ways out, flow by flow.
    #[serde(default)]
    pub enable_default_route_ecmp: bool,
    /// Next hops of its ways out are watched: a default route holds while its next hop answers.
    #[serde(default)]
    pub enable_default_route_bfd: bool,
    /// The physical network of its first way out: hosts that are not connected to it do not hold the way.
    #[serde(default)]
    pub wire: Option<String>,
    #[serde(default)]
    pub flavor_id: Option<String>,
    pub availability_zone_hints: Vec<String>,
    #[serde(default)]
    pub tags: Vec<String>,
    /// Answers for addresses with a proxy alone, and lets nothing else of IPv6 in.
    #[serde(default)]
    pub enable_ndp_proxy: bool,
}

impl Router {
    /// May this host hold its way out, where nobody has said so or otherwise? It is on the wire, and in a zone that is wished for.
    pub fn fits(&self, host: &HostInfo) -> bool {
        host.is_connected(self.wire.as_deref()) && host.is_in(&self.availability_zone_hints)
    }
}

#[cfg(test)]
mod tests {
    use super::Router;

    impl Router {
        /// One that is as plain as can be.
        pub(crate) fn plain(id: &str) -> Self {
            let document = serde_json::json!({"id": id, "project_id": "p", "name": "", "description": null, "admin_state_up": true,
                "distributed": false, "ha": false, "routes": [], "external_gateway_info": null, "gw_port_id": null,
                "availability_zone_hints": []});
            serde_json::from_value(document).unwrap()
        }
    }
}
