//! What passes between people: transfers and messages; and what an operator said of hosts.
use pilvi_store::{Column, Record, Value};
use serde::{Deserialize, Serialize};

/// A volume offered to whoever has the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transfer {
    /// UUID
    pub id: String,
    /// Of the project that gives.
    pub project_id: String,
    pub volume_id: String,
    pub name: Option<String>,
    /// Of the key; hex.
    pub salt: String,
    pub hash: String,
    pub no_snapshots: bool,
}

impl Record for Transfer {
    const KIND: &'static str = "volume_transfer";
    const COLUMNS: &'static [Column] = &[Column::text("volume_id")];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
    fn columns(&self) -> Vec<Value> {
        vec![self.volume_id.as_str().into()]
    }
}

/// What failed after the call about it had been answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// UUID
    pub id: String,
    pub project_id: String,
    pub request_id: String,
    pub resource_type: String,
    pub resource_id: String,
    /// `VOLUME_VOLUME_001_003`
    pub event_id: String,
    pub text: String,
    pub level: String,
    pub expires_us: i64,
}

impl Record for Message {
    const KIND: &'static str = "volume_message";
    const COLUMNS: &'static [Column] = &[
        Column::text("request_id"),
        Column::text("resource_type"),
        Column::text("resource_id"),
        Column::text("event_id"),
        Column::text("level"),
        Column::int("expires"),
    ];
    fn id(&self) -> &str {
        &self.id
    }
    fn project(&self) -> Option<&str> {
        Some(&self.project_id)
    }
    fn columns(&self) -> Vec<Value> {
        vec![
            self.request_id.as_str().into(),
            self.resource_type.as_str().into(),
            self.resource_id.as_str().into(),
            self.event_id.as_str().into(),
            self.level.as_str().into(),
            self.expires_us.into(),
        ]
    }
}

/// A host as an operator lets it take volumes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostService {
    /// The host's name.
    pub id: String,
    pub disabled: bool,
    pub reason: Option<String>,
    /// Nothing of it changes: no new volumes, none removed.
    pub frozen: bool,
}

impl Record for HostService {
    const KIND: &'static str = "volume_host";
    fn id(&self) -> &str {
        &self.id
    }
}
