//! Volumes, their snapshots and who uses them.
use crate::{attachment::model::AttachStatus, snapshot::model::SnapshotStatus, volume::model::Status};
use pilvi_fleet::{ImageFile, SeenImage};
use pilvi_store::{Column, Record, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// UUID
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    /// That its host has made true.
    pub size_gib: u64,
    pub status: Status,
    /// What it goes back to when what is being done with it ends.
    pub previous_status: Option<Status>,
    pub migration_status: Option<String>,
    pub bootable: bool,
    pub multiattach: bool,
    pub read_only: Option<bool>,
    /// Id of its type.
    pub volume_type: String,
    pub zone: String,
    /// The zone was asked for.
    pub zone_pinned: bool,
    /// Where its bytes lie, once that is decided.
    pub host: Option<String>,
    /// The only host that will do: where its source lies.
    pub pinned_host: Option<String>,
    /// Scheduler hints: ids of volumes whose hosts it shall have, or have not.
    pub same_host: Vec<String>,
    pub different_host: Vec<String>,
    pub snapshot_id: Option<String>,
    /// Of the snapshot that it is made of.
    pub snapshot_volume_id: Option<String>,
    pub source_volid: Option<String>,
    pub image: Option<ImageFile>,
    /// `volume_image_metadata`
    pub image_metadata: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub group_id: Option<String>,
    /// What the host shall make true.
    pub wanted: Wanted,
    /// What the host said last.
    pub seen: Option<Seen>,
    /// Its bytes have been there.
    pub made: bool,
    pub launched_us: Option<i64>,
    /// The newest request about it.
    pub request_id: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Grows with each change that concerns the host.
    pub generation: u64,
    pub size_gib: u64,
    pub reverts: u64,
    /// Id of the snapshot that the newest revert goes back to.
    pub revert_to: Option<String>,
    pub reimages: u64,
    /// Until it has ended, one way or the other.
    pub upload: Option<Upload>,
    /// The volume shall cease to be.
    pub delete: bool,
}

/// An image that the volume's bytes shall become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    pub image_id: String,
    /// It will not be: the image goes.
    pub failed: bool,
}

/// The last observation of the host, as far as decisions need it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub generation: u64,
    pub settled: bool,
    pub error: String,
    pub step: String,
    pub bytes: u64,
    pub snapshots: Vec<SeenSnapshot>,
    pub reverts: u64,
    pub reimages: u64,
    pub upload: Option<SeenImage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenSnapshot {
    pub id: String,
    pub error: String,
    pub bytes: u64,
}

impl Record for Volume {
    const KIND: &'static str = "volume_volume";
    const COLUMNS: &'static [Column] = &[
        Column::text("user_id"),
        Column::text("host"),
        Column::text("zone"),
        Column::text("volume_type"),
        Column::text("group_id"),
        Column::text("snapshot_id"),
        Column::text("source_volid"),
        Column::text("image_id"),
        Column::int("bootable"),
        Column::int("size"),
        Column::int("leaving"),
        Column::text("upload_image_id"),
        Column::text("awaited_host"),
    ];
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
            self.user_id.as_str().into(),
            self.host.clone().into(),
            self.zone.as_str().into(),
            self.volume_type.as_str().into(),
            self.group_id.clone().into(),
            self.snapshot_id.clone().into(),
            self.source_volid.clone().into(),
            self.image_metadata.get("image_id").cloned().into(),
            self.bootable.into(),
            self.wanted.size_gib.max(self.size_gib).into(),
            self.wanted.delete.into(),
            self.wanted.upload.as_ref().map(|u| u.image_id.clone()).into(),
            self.pinned_host.clone().filter(|_| self.host.is_none()).into(),
        ]
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// UUID
    pub id: String,
    pub project_id: String,
    pub user_id: String,
    pub volume_id: String,
    pub volume_type: String,
    /// Of the volume when it was taken, in GiB.
    pub size_gib: u64,
    pub name: Option<String>,
    pub description: Option<String>,
    pub status: SnapshotStatus,
    pub progress: String,
    pub metadata: BTreeMap<String, String>,
    /// Of the volume when it was taken.
    pub bootable: bool,
    pub image_metadata: BTreeMap<String, String>,
    pub group_snapshot_id: Option<String>,
    /// It shall cease to be.
    pub delete: bool,
    /// The volume's wanted generation that took it up, or let it go.
    pub generation: u64,
    pub request_id: String,
}

impl Record for Snapshot {
    const KIND: &'static str = "volume_snapshot";
    const COLUMNS: &'static [Column] = &[
        Column::text("volume_id"),
        Column::text("volume_type"),
        Column::text("user_id"),
        Column::text("group_snapshot_id"),
        Column::int("size"),
    ];
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
            self.volume_type.as_str().into(),
            self.user_id.as_str().into(),
            self.group_snapshot_id.clone().into(),
            self.size_gib.into(),
        ]
    }
}

/// One use of a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attachment {
    /// UUID
    pub id: String,
    pub project_id: String,
    pub volume_id: String,
    pub server_id: Option<String>,
    pub status: AttachStatus,
    /// `/dev/vdb`
    pub device: Option<String>,
    /// `rw`, `ro`, or `null` where nobody said.
    pub mode: String,
    /// Of whoever uses it.
    pub host: Option<String>,
    /// What a client said of itself.
    pub connector: serde_json::Value,
    pub attached_us: Option<i64>,
    /// Compute made it for a server of its own: nobody else ends it.
    pub managed: bool,
}

impl Record for Attachment {
    const KIND: &'static str = "volume_attachment";
    const COLUMNS: &'static [Column] = &[Column::text("volume_id"), Column::text("server_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn state(&self) -> Option<&str> {
        Some(self.status.as_str())
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.volume_id.as_str().into(), self.server_id.clone().into()]
    }
}
