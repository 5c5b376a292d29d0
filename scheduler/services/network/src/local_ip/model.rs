//! A local IP and the ports that stand behind it. Pure.
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The guest gets packets with its own address.
    Translate,
    /// The guest has the local IP as an address of its own.
    Passthrough,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LocalIp {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    /// Holds the address.
    pub local_port_id: String,
    pub network_id: String,
    pub local_ip_address: String,
    pub ip_mode: Mode,
}

/// A port that is meant where it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Association {
    pub id: String,
    pub project_id: String,
    pub local_ip_id: String,
    pub fixed_port_id: String,
    pub fixed_ip: String,
}

impl Association {
    /// A port stands behind a local IP once.
    pub fn key(local_ip: &str, port: &str) -> String {
        format!("{local_ip}/{port}")
    }
}
