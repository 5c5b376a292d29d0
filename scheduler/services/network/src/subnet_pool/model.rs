//! A subnet pool: blocks from which subnets are cut.
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubnetPool {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    pub prefixes: Vec<String>,
    pub ip_version: u8,
    pub default_prefixlen: u8,
    pub min_prefixlen: u8,
    pub max_prefixlen: u8,
    pub default_quota: Option<u64>,
    pub is_default: bool,
    pub shared: bool,
    /// Projects that RBAC policies name.
    #[serde(default)]
    pub shared_with: Vec<String>,
    pub address_scope_id: Option<String>,
    #[serde(default)]
    pub tags: Vec<String>,
}

impl SubnetPool {
    pub fn is_open_to(&self, project: &str) -> bool {
        self.shared || self.project_id == project || self.shared_with.iter().any(|p| p == project)
    }
}
