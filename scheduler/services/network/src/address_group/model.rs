//! An address group: blocks of addresses under one name. A rule that names it means whatever is in it now.
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddressGroup {
    pub id: String,
    pub project_id: String,
    pub name: String,
    pub description: Option<String>,
    /// Blocks without host bits, none twice.
    pub addresses: Vec<String>,
    #[serde(default)]
    pub shared: bool,
    /// Projects that RBAC policies name.
    #[serde(default)]
    pub shared_with: Vec<String>,
}

impl AddressGroup {
    pub fn is_open_to(&self, project: &str) -> bool {
        self.shared || self.project_id == project || self.shared_with.iter().any(|p| p == project)
    }
}
