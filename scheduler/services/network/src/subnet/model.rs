//! A subnet: an address block of one network, and what DHCP tells about it.
use crate::address::Pool;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: String,
    pub nexthop: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subnet {
    pub id: String,
    pub project_id: String,
    pub network_id: String,
    pub name: String,
    pub description: Option<String>,
    pub ip_version: u8,
    pub cidr: String,
    pub gateway_ip: Option<String>,
    pub allocation_pools: Vec<Pool>,
    pub dns_nameservers: Vec<String>,
    pub host_routes: Vec<Route>,
    pub enable_dhcp: bool,
    pub ipv6_ra_mode: Option<String>,
    pub ipv6_address_mode: Option<String>,
    pub subnetpool_id: Option<String>,
    #[serde(default)]
    pub segment_id: Option<String>,
    pub service_types: Vec<String>,
    pub dns_publish_fixed_ip: bool,
    /// The provider is told where it is, and routers do not hide it.
    #[serde(default)]
    pub leak_routes: bool,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl Subnet {
    /// The block; the store holds only readable ones.
    pub fn net(&self) -> Option<IpNet> {
        self.cidr.parse().ok()
    }
    /// Do hosts here make their own address from their MAC?
    pub fn is_auto_address(&self) -> bool {
        matches!(self.ipv6_address_mode.as_deref(), Some("slaac" | "dhcpv6-stateless"))
    }
    /// Are there addresses of this family here to choose from, for devices of this owner?
    pub fn gives(&self, version: u8, owner: &str) -> bool {
        self.ip_version == version && !self.is_auto_address() && self.serves(owner)
    }
    /// Subnets with service types serve only devices of those types.
    pub fn serves(&self, owner: &str) -> bool {
        self.service_types.is_empty() || self.service_types.iter().any(|t| owner.starts_with(t.as_str()))
    }
    /// Do hosts here ask DHCPv6 for anything?
    pub fn asks_dhcp(&self) -> bool {
        matches!(self.ipv6_address_mode.as_deref(), Some("dhcpv6-stateful" | "dhcpv6-stateless"))
    }
    /// The address that answers DHCP: the gateway's, or the first of the block where there is none.
    ///
    /// There is no DHCP port: every host answers its own guests, so the server's address never has to
    /// be reachable, only to look familiar.
    pub fn dhcp_server(&self) -> String {
        let first = || self.net().and_then(|n| crate::address::default_gateway(&n)).map(|ip| ip.to_string());
        self.gateway_ip.clone().or_else(first).unwrap_or_default()
    }
}
