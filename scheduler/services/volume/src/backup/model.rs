//! The states of a backup. Pure.
use crate::volume::model::names;
use serde::{Deserialize, Serialize};

names! {
    /// As Cinder spells `status`.
    BackupStatus {
        Creating = "creating", Available = "available", Deleting = "deleting", Restoring = "restoring", Error = "error",
        ErrorDeleting = "error_deleting",
    }
}

/// States that an operator may set.
pub fn settable(text: &str) -> Option<BackupStatus> {
    BackupStatus::parse(&text.to_lowercase()).filter(|s| matches!(s, BackupStatus::Available | BackupStatus::Error))
}
