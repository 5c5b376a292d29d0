//! A floating IP: an address of an external network that a router translates to a fixed one.
//!
//! ```text
//! DOWN --associated, port wired or not--> ACTIVE --disassociated or port deleted--> DOWN
//! ```
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloatingIp {
    pub id: String,
    pub project_id: String,
    pub description: Option<String>,
    pub floating_ip_address: String,
    pub floating_network_id: String,
    /// The port that holds the address on the external network.
    pub floating_port_id: String,
    /// MAC that answers for it.
    pub mac: String,
    pub port_id: Option<String>,
    pub fixed_ip_address: Option<String>,
    pub router_id: Option<String>,
    /// Its router has a leg in the external network, and no gateway there: only who is in that network reaches it.
    #[serde(default)]
    pub by_leg: bool,
    pub dns_name: String,
    pub dns_domain: String,
    #[serde(default)]
    pub qos_policy_id: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl FloatingIp {
    /// As the API spells it.
    pub fn status(&self) -> &'static str {
        if self.router_id.is_some() { "ACTIVE" } else { "DOWN" }
    }
}
