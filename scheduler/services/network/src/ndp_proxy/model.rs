//! A proxy: one address of one port, behind one router. Pure.
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NdpProxy {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub router_id: String,
    pub port_id: String,
    pub ip_address: String,
}
