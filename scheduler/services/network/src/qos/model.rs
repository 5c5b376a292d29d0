//! A policy and its rules. Pure.
use crate::attribute::Resource;
use serde::{Deserialize, Serialize};
use std::{fmt::Debug, marker::PhantomData};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QosPolicy {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    /// New networks of its project get it.
    pub is_default: bool,
    pub shared: bool,
    /// Projects that RBAC policies name.
    #[serde(default)]
    pub shared_with: Vec<String>,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl QosPolicy {
    pub fn is_open_to(&self, project: &str) -> bool {
        self.shared || self.project_id == project || self.shared_with.iter().any(|p| p == project)
    }
}

/// A kind of rules: one collection below a policy.
pub trait Kind: Debug + Clone + Send + Sync + 'static {
    const RECORD: &'static str;
    /// `bandwidth_limit`
    const TYPE: &'static str;
    const RESOURCE: &'static Resource;
    /// What servers hold in placement follows from it.
    const CLAIMED: bool = false;
}

#[derive(Debug, Clone)]
pub struct Bandwidth;
#[derive(Debug, Clone)]
pub struct PacketRate;
#[derive(Debug, Clone)]
pub struct Dscp;
/// What placement keeps free for a port: kilobits a second.
#[derive(Debug, Clone)]
pub struct LeastBandwidth;
/// The same of packets: thousands a second.
#[derive(Debug, Clone)]
pub struct LeastPacketRate;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    Ingress,
    Egress,
    /// Both together; of packet rates that are kept free alone.
    Any,
}

/// A rule of one kind; the members of other kinds are not there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct QosRule<K: Kind> {
    pub id: String,
    /// The policy's.
    pub project_id: String,
    pub policy_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Way>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_kbps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_burst_kbps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_kpps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_burst_kpps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp_mark: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_kbps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_kpps: Option<u64>,
    #[serde(skip)]
    pub kind: PhantomData<fn() -> K>,
}

impl<K: Kind> QosRule<K> {
    /// A policy has one rule of a kind for each direction, or one for both.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = [self.direction, other.direction].contains(&Some(Way::Any));
        self.id != other.id && self.policy_id == other.policy_id && (any || self.direction == other.direction)
    }
}

/// Marks that are in use: class selectors, assured and expedited forwarding (RFC 2474, 2597, 3246, 5865).
pub const MARKS: [u8; 22] = [0, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 44, 46, 48, 56];
