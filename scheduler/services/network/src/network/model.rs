//! A virtual network: one broadcast domain, numbered in the overlay by its VNI.
//!
//! Field names are the API's own, so that a view is the record and an update is an overlay of attributes.
use crate::rbac::model::{EVERYONE, covers};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// `provider:network_type` of an ordinary network.
pub const OVERLAY: &str = "vxlan";
/// `provider:network_type` of a network behind the hosts' external device.
pub const FLAT: &str = "flat";
/// The same, by a tag.
pub const VLAN: &str = "vlan";
/// What the overlay leaves of a packet of 1500.
pub const OVERLAY_MTU: u32 = 1450;
pub const PHYSICAL_MTU: u32 = 1500;
/// Largest network number of the overlay.
pub const VNI_MAX: u32 = (1 << 24) - 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VirtualNetwork {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub admin_state_up: bool,
    pub shared: bool,
    /// Projects that RBAC policies name, beside `shared`, which means all.
    #[serde(default)]
    pub shared_with: Vec<String>,
    #[serde(rename = "router:external")]
    pub external: bool,
    /// To whom it is external: projects, or `*`. Empty while it is: to all, since before there were policies.
    #[serde(default)]
    pub external_for: Vec<String>,
    pub is_default: bool,
    pub mtu: u32,
    pub port_security_enabled: bool,
    pub dns_domain: String,
    #[serde(rename = "provider:network_type")]
    pub network_type: String,
    #[serde(rename = "provider:physical_network")]
    pub physical_network: Option<String>,
    #[serde(rename = "provider:segmentation_id")]
    pub segmentation_id: Option<u32>,
    /// Number in the overlay, 1..2^24-1; flat and VLAN networks have one too, for the hosts' own tables.
    pub vni: u32,
    pub availability_zone_hints: Vec<String>,
    /// Guests may send frames with tags of their own to each other. `None`: made before that could be said.
    #[serde(default)]
    pub vlan_transparent: Option<bool>,
    /// The same, and its own tag on the wire is a service tag (802.1ad). `None`: nobody said.
    #[serde(default)]
    pub qinq: Option<bool>,
    /// Its ports see each other by what they are.
    #[serde(default)]
    pub pvlan: bool,
    /// Numbers of a private network's parts, by name.
    #[serde(default)]
    pub parts: BTreeMap<String, u32>,
    /// Numbers of the segments beside the first, by their ids, and of those that subnets are on.
    #[serde(default, rename = "further_segments")]
    pub segments: BTreeMap<String, u32>,
    #[serde(default)]
    pub segment_subnets: BTreeMap<String, u32>,
    #[serde(default)]
    pub qos_policy_id: Option<String>,
    /// The project whose routers with spare ways have the ports of their candidates on it.
    #[serde(default)]
    pub ha_for: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Bytes that encryption between hosts adds: those of an IP header (IPv6's, as WireGuard's tools reckon), UDP and WireGuard.
pub const ENCRYPTION_OVERHEAD: u32 = 40 + 8 + 32;

static ENCRYPTED: OnceLock<bool> = OnceLock::new();

/// Takes the operator's word, once, before any network is made: hosts encrypt what goes between them.
pub fn choose_encrypted(encrypted: bool) {
    // Who comes second in a process (a test) finds what the first has chosen.
    let _ = ENCRYPTED.set(encrypted);
}

/// Largest MTU of a kind of networks.
pub fn mtu_max(kind: &str) -> u32 {
    mtu_of(kind, ENCRYPTED.get().copied().unwrap_or_default())
}

fn mtu_of(kind: &str, encrypted: bool) -> u32 {
    match (kind == OVERLAY, encrypted) {
        (true, false) => OVERLAY_MTU,
        (true, true) => OVERLAY_MTU - ENCRYPTION_OVERHEAD,
        (false, _) => PHYSICAL_MTU,
    }
}

/// The tag on the wire that a network or segment has there; 0: none.
pub fn tag_of(kind: &str, number: Option<u32>) -> u32 {
    number.filter(|_| kind == VLAN).unwrap_or_default()
}

impl VirtualNetwork {
    /// Reached through the hosts' external device and not through the overlay?
    pub fn is_physical(&self) -> bool {
        self.physical_network.is_some()
    }
    /// May guests send frames with tags of their own to each other?
    pub fn takes_tags(&self) -> bool {
        self.vlan_transparent == Some(true) || self.qinq == Some(true)
    }
    /// Visible to every project?
    pub fn is_open(&self) -> bool {
        self.shared || (self.external && (self.external_for.is_empty() || covers(&self.external_for, EVERYONE)))
    }
    /// May guests of this project be on it?
    pub fn is_shared_with(&self, project: &str) -> bool {
        self.shared || covers(&self.shared_with, project)
    }
    /// May this project see it, or go out through it?
    pub fn is_open_to(&self, project: &str) -> bool {
        self.project_id == project
            || self.is_open()
            || self.is_shared_with(project)
            || (self.external && covers(&self.external_for, project))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_leave_room_for_what_is_around_their_packets() {
        assert_eq!((mtu_of(OVERLAY, false), mtu_of(OVERLAY, true)), (1450, 1370));
        assert_eq!((mtu_of(FLAT, true), mtu_of(VLAN, true)), (1500, 1500));
    }
}
