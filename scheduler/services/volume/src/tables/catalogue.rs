//! What an operator offers: types of volumes, what is promised with them, and whose default they are.
use pilvi_store::{Claim, Column, Record, Value};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VolumeType {
    /// UUID
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub public: bool,
    pub extra_specs: BTreeMap<String, String>,
    /// Projects that may use it when it is not public.
    pub access: BTreeSet<String>,
    pub qos_id: Option<String>,
}

impl Record for VolumeType {
    const KIND: &'static str = "volume_type";
    const COLUMNS: &'static [Column] = &[Column::int("public"), Column::text("qos_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.public.into(), self.qos_id.clone().into()]
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new("volume_type", &self.name)]
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QosSpec {
    /// UUID
    pub id: String,
    pub name: String,
    /// `front-end`, `back-end` or `both`
    pub consumer: String,
    pub specs: BTreeMap<String, String>,
}

impl Record for QosSpec {
    const KIND: &'static str = "volume_qos_spec";
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
    fn claims(&self) -> Vec<Claim> {
        vec![Claim::new("volume_qos_spec", &self.name)]
    }
}

/// A project's own default type.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DefaultType {
    /// Of the project.
    pub id: String,
    pub volume_type: String,
}

impl Record for DefaultType {
    const KIND: &'static str = "volume_default_type";
    const COLUMNS: &'static [Column] = &[Column::text("volume_type")];
    fn id(&self) -> &str {
        &self.id
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.volume_type.as_str().into()]
    }
}
