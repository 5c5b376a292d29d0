//! A trunk: a parent port, and ports whose frames come tagged over its device. Pure.
//!
//! ```text
//! DOWN --parent wired, administratively up--> ACTIVE --parent lost, or down--> DOWN
//! ```
use crate::port::model::{Port, Status};
use serde::{Deserialize, Serialize};

/// `device_owner` of a subport.
pub const SUBPORT: &str = "trunk:subport";

/// What tells a subport's frames apart.
pub use crate::network::model::VLAN;
/// In requests: the tag that its network has on the wire.
pub const INHERIT: &str = "inherit";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubPort {
    pub port_id: String,
    /// `vlan`
    pub segmentation_type: String,
    pub segmentation_id: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trunk {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub admin_state_up: bool,
    pub port_id: String,
    pub sub_ports: Vec<SubPort>,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl Trunk {
    /// As the API spells it.
    pub fn status(&self, parent: Option<&Port>) -> &'static str {
        let wired = parent.is_some_and(|p| p.status == Status::Active && !p.host_id.is_empty());
        if self.admin_state_up && wired { "ACTIVE" } else { "DOWN" }
    }
    /// Its parent and its subports.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.port_id.as_str()).chain(self.sub_ports.iter().map(|s| s.port_id.as_str()))
    }
    /// The tag of a port.
    pub fn tag_of(&self, port_id: &str) -> Option<u16> {
        self.sub_ports.iter().find(|s| s.port_id == port_id).map(|s| s.segmentation_id)
    }
}
