//! A log: whose decisions about which ports are written down. Pure.
use crate::port::model::Port;
use serde::{Deserialize, Serialize};

/// What can be logged.
pub const SECURITY_GROUP: &str = "security_group";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    #[serde(rename = "ACCEPT")]
    Accept,
    #[serde(rename = "DROP")]
    Drop,
    #[serde(rename = "ALL")]
    All,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlowLog {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub enabled: bool,
    pub event: Event,
    /// [`SECURITY_GROUP`]
    pub resource_type: String,
    /// One group; none: any.
    pub resource_id: Option<String>,
    /// One port; none: any.
    pub target_id: Option<String>,
}

impl FlowLog {
    /// Whether what the groups of this port decide is written down. A log that names neither a port nor a group means all
    /// ports of its project.
    pub fn means(&self, port: &Port) -> bool {
        let named = |id: &Option<String>, found: &dyn Fn(&String) -> bool| id.as_ref().is_none_or(found);
        let own = self.resource_id.is_some() || self.target_id.is_some() || port.project_id == self.project_id;
        self.enabled
            && port.port_security_enabled
            && own
            && named(&self.target_id, &|id| *id == port.id)
            && named(&self.resource_id, &|id| port.security_groups.contains(id))
    }
    pub fn accepts(&self) -> bool {
        self.event != Event::Drop
    }
    pub fn drops(&self) -> bool {
        self.event != Event::Accept
    }
}
