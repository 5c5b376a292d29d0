//! An address scope: a set of subnet pools of one IP version whose blocks do not overlap.
use crate::subnet::model::Subnet;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddressScope {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub ip_version: u8,
    pub shared: bool,
    /// Projects that RBAC policies name.
    #[serde(default)]
    pub shared_with: Vec<String>,
}

impl AddressScope {
    pub fn is_open_to(&self, project: &str) -> bool {
        self.shared || self.project_id == project || self.shared_with.iter().any(|p| p == project)
    }
}

/// The scope that a network's subnets of one IP version are in, by their pools; all of them come from one pool.
pub fn of_network<'r>(
    subnets: impl Iterator<Item = &'r Subnet>,
    version: u8,
    pool: impl Fn(&str) -> Option<&'r str>,
) -> Option<&'r str> {
    let pools = subnets.filter(|s| s.ip_version == version).filter_map(|s| s.subnetpool_id.as_deref());
    pools.filter_map(pool).next()
}
