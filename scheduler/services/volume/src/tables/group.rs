//! Groups of volumes, their types, and snapshots of all their volumes at once.
use pilvi_store::{Claim, Column, Record, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    /// UUID
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub group_type: String,
    /// Ids of the types that its volumes may have.
    pub volume_types: Vec<String>,
    pub zone: String,
    pub status: String,
    pub group_snapshot_id: Option<String>,
    pub source_group_id: Option<String>,
}

impl Record for Group {
    const KIND: &'static str = "volume_group";
    const COLUMNS: &'static [Column] = &[Column::text("group_type")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
    fn state(&self) -> Option<&str> {
        Some(&self.status)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.group_type.as_str().into()]
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupType {
    /// UUID
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub public: bool,
    pub specs: BTreeMap<String, String>,
    pub access: BTreeSet<String>,
}

impl Record for GroupType {
    const KIND: &'static str = "volume_group_type";
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new("volume_group_type", &self.name)]
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupSnapshot {
    /// UUID
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    pub group_id: String,
    pub group_type: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub status: String,
}

impl Record for GroupSnapshot {
    const KIND: &'static str = "volume_group_snapshot";
    const COLUMNS: &'static [Column] = &[Column::text("group_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
    fn state(&self) -> Option<&str> {
        Some(&self.status)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.group_id.as_str().into()]
    }
}
