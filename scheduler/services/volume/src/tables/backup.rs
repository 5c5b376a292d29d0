//! Backups of volumes.
use crate::backup::model::BackupStatus;
use pilvi_fleet::ImageFile;
use pilvi_store::{Column, Record, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Backup {
    /// UUID
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    pub volume_id: String,
    /// Of the volume, in GiB.
    pub size_gib: u64,
    pub name: Option<String>,
    pub description: Option<String>,
    pub status: BackupStatus,
    pub fail_reason: Option<String>,
    pub container: Option<String>,
    pub zone: String,
    pub metadata: BTreeMap<String, String>,
    /// The image that its bytes are.
    pub image_id: String,
    /// Once they are all there.
    pub file: Option<ImageFile>,
    /// Microseconds since 1970 of what is in it.
    pub data_us: i64,
    /// What restored volumes have of the one that was backed up.
    pub bootable: bool,
    pub image_metadata: BTreeMap<String, String>,
    pub volume_metadata: BTreeMap<String, String>,
    /// The volume that is being restored from it.
    pub restoring: Option<String>,
}

impl Record for Backup {
    const KIND: &'static str = "volume_backup";
    const COLUMNS: &'static [Column] =
        &[Column::text("volume_id"), Column::text("image_id"), Column::text("restoring"), Column::int("size")];
    const INDEXES: &'static [&'static [&'static str]] = &[&["project", "created"]];
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
        Some(self.status.as_str())
    }
    fn columns(&self) -> Vec<Value> {
        vec![
            self.volume_id.as_str().into(),
            self.image_id.as_str().into(),
            self.restoring.clone().into(),
            self.size_gib.into(),
        ]
    }
}
