//! A service flavor and the profiles behind it.
//!
//! A flavor is what users choose, a profile is what an operator says of how it is provided: a driver, or words
//! for his own tools. A router of a flavor is of the kind that its first profile's driver stands for:
//!
//! ```text
//! router --flavor--> first profile --driver--> `distributed` and `ha` as the driver has them (one of Neutron's four), or as
//!                                              everywhere else (ours, or none)
//! ```
use serde::{Deserialize, Serialize};

/// Kinds of services that flavors are for.
pub const SERVICE_TYPES: [&str; 2] = ["L3_ROUTER_NAT", "FLAVORS"];
/// The kind whose flavors routers have.
pub const L3: &str = "L3_ROUTER_NAT";

/// What may provide routers.
#[derive(Debug, Clone, Copy)]
pub struct Provider {
    pub name: &'static str,
    pub driver: &'static str,
    /// Whether its routers are distributed and have a spare one; `None`: as each router says.
    pub kind: Option<(bool, bool)>,
}

/// The usual one is first. The others are called as Neutron's, so that profiles which name those mean here what they
/// mean there.
pub const PROVIDERS: [Provider; 5] = [
    Provider { name: "pilvi.distributed_router", driver: "pilvi.distributed_router", kind: None },
    neutrons("dvrha", "neutron.services.l3_router.service_providers.dvrha.DvrHaDriver", (true, true)),
    neutrons("dvr", "neutron.services.l3_router.service_providers.dvr.DvrDriver", (true, false)),
    neutrons("ha", "neutron.services.l3_router.service_providers.ha.HaDriver", (false, true)),
    neutrons(
        "single_node",
        "neutron.services.l3_router.service_providers.single_node.SingleNodeDriver",
        (false, false),
    ),
];

const fn neutrons(name: &'static str, driver: &'static str, kind: (bool, bool)) -> Provider {
    Provider { name, driver, kind: Some(kind) }
}

pub fn provider(driver: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().find(|p| p.driver == driver)
}

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
