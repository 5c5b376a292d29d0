//! A tap service is a port that looks; a tap flow is a port that is looked at. Pure.
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TapService {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub port_id: String,
    /// What copies from other hosts come by.
    pub vni: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Way {
    In,
    Out,
    Both,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TapFlow {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub tap_service_id: String,
    pub source_port: String,
    pub direction: Way,
}

impl TapFlow {
    /// What the port gets.
    pub fn ingress(&self) -> bool {
        self.direction != Way::Out
    }
    /// What it sends.
    pub fn egress(&self) -> bool {
        self.direction != Way::In
    }
}
