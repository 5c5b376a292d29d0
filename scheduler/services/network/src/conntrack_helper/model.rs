//! A helper: a protocol that is looked at, on one port of what a router's guests send out. Pure.
use serde::{Deserialize, Serialize};

/// What the packet path can do, and over which protocols.
pub const OFFERED: [(&str, &[&str]); 1] = [("tftp", &["udp"])];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackHelper {
    pub id: String,
    pub project_id: String,
    pub router_id: String,
    pub protocol: String,
    pub port: u16,
    pub helper: String,
}
