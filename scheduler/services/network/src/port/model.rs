//! A port: one interface on one network, with its addresses, its groups and the host that wires it.
//!
//! ```text
//! (created) -> DOWN --agent wired it--> ACTIVE
//!                ^----agent lost it / unbound----'
//! ```
use crate::dns::model::Words;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const ROUTER_INTERFACE: &str = "network:router_interface";
pub const ROUTER_GATEWAY: &str = "network:router_gateway";
pub const FLOATING: &str = "network:floatingip";
pub const LOCAL_IP: &str = "network:local_ip";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    Down,
    Active,
    /// Ports that only hold an address.
    #[serde(rename = "N/A")]
    NotApplicable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    pub subnet_id: String,
    pub ip_address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPair {
    pub ip_address: String,
    pub mac_address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpOption {
    pub opt_name: String,
    pub opt_value: String,
    pub ip_version: u8,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Port {
    pub id: String,
    /// "" for ports that the service made for itself (gateways, floating IPs).
    pub project_id: String,
    pub network_id: String,
    pub name: String,
    pub description: Option<String>,
    pub admin_state_up: bool,
    pub mac_address: String,
    pub fixed_ips: Vec<FixedIp>,
    pub device_id: String,
    pub device_owner: String,
    pub security_groups: Vec<String>,
    pub allowed_address_pairs: Vec<AddressPair>,
    pub extra_dhcp_opts: Vec<DhcpOption>,
    pub port_security_enabled: bool,
    pub status: Status,
    pub dns_name: String,
    /// "": its network's.
    #[serde(default)]
    pub dns_domain: String,
    /// Who made it, where its domain has keywords for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_words: Option<Words>,
    #[serde(rename = "binding:host_id")]
    pub host_id: String,
    /// A host that its guest is moving to: the device is there already, and carries nothing yet.
    #[serde(default)]
    pub also_on: String,
    /// What its binding there says.
    #[serde(default)]
    pub also_vnic_type: String,
    #[serde(default)]
    pub also_profile: Value,
    #[serde(rename = "binding:vnic_type")]
    pub vnic_type: String,
    #[serde(rename = "binding:profile")]
    pub profile: Value,
    /// For virtual functions; a tap has no uplink whose status it could follow.
    #[serde(default = "yes")]
    pub propagate_uplink_status: bool,
    /// What it is in a private network, and with whom.
    #[serde(default)]
    pub pvlan_type: Option<String>,
    #[serde(default)]
    pub pvlan_community: Option<String>,
    /// What watches the network from outside says of it.
    #[serde(default)]
    pub data_plane_status: Option<String>,
    /// For devices that sit at a processor; a tap sits at none.
    #[serde(default)]
    pub numa_affinity_policy: Option<String>,
    /// What an accelerator service would make ready behind it.
    #[serde(default)]
    pub device_profile: Option<String>,
    /// What its device should do by itself; no host here has devices that could.
    #[serde(default)]
    pub hardware_offload_type: Option<String>,
    #[serde(default)]
    pub qos_policy_id: Option<String>,
    /// It gets its addresses with its host.
    #[serde(default)]
    pub deferred: bool,
    #[serde(default)]
    pub tags: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Port {
    /// Is it wired on a host (and not only kept in the store, as the ports of routers are)?
    pub fn is_endpoint(&self) -> bool {
        !self.host_id.is_empty() && !self.device_owner.starts_with("network:") && self.hardware_offload_type.is_none()
    }
    /// When it gets, or got, its addresses.
    pub fn ip_allocation(&self) -> &'static str {
        match (self.deferred, self.fixed_ips.is_empty()) {
            (true, _) => "deferred",
            (false, true) => "none",
            (false, false) => "immediate",
        }
    }
    pub fn first_ipv4(&self) -> Option<&str> {
        self.fixed_ips.iter().map(|f| f.ip_address.as_str()).find(|a| !a.contains(':'))
    }
}
