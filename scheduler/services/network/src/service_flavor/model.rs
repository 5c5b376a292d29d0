//! A service flavor and the profiles behind it.
//!
//! A flavor is what users choose, a profile is what an operator says of how it is provided: a driver, or words
//! for his own tools. There is one way to route here, so every flavor of routers gives the same router.
use serde::{Deserialize, Serialize};

/// Kinds of services that flavors are for.
pub const SERVICE_TYPES: [&str; 2] = ["L3_ROUTER_NAT", "FLAVORS"];
/// The kind whose flavors routers have.
pub const L3: &str = "L3_ROUTER_NAT";
/// The one driver of routers.
pub const DRIVER: &str = "pilvi.distributed_router";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Flavor {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub service_type: String,
    pub enabled: bool,
    #[serde(default)]
    pub service_profiles: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceProfile {
    pub id: String,
    pub description: Option<String>,
    pub driver: String,
    pub enabled: bool,
    pub metainfo: String,
}
