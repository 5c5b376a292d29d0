//! An address scope: a set of subnet pools of one IP version whose blocks do not overlap.
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
