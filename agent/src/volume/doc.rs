//! How far one volume has come: what cannot be seen from its files.
use crate::durable::{self, Loaded};
use crate::ledger::SnapshotEnd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// A snapshot that was taken, or could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Taken {
    /// Why it is not there; "" when it is.
    pub error: String,
    pub bytes: u64,
}

/// Written before and after each thing that cannot be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Doc {
    /// It was whole once: from then on its bytes are somebody's.
    pub made: bool,
    pub snapshots: BTreeMap<String, Taken>,
    /// Counters done.
    pub reverts: u64,
    pub reimages: u64,
    /// The newest way to an image that has ended.
    pub upload: Option<SnapshotEnd>,
}

impl Doc {
    /// The document in the volume's folder; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is damaged. What it said decides whether bytes are somebody's, so nothing is done to
    /// the volume then.
    pub fn load(folder: &Path) -> io::Result<Option<Self>> {
        match durable::load(&folder.join("doc"))? {
            Loaded::Missing => Ok(None),
            Loaded::Sound(body) => serde_json::from_slice(&body).map(Some).map_err(io::Error::other),
            Loaded::Damaged(why) => Err(io::Error::other(format!("its document is damaged: {why}"))),
        }
    }

    /// Keeps it; makes the folder.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        durable::save(&folder.join("doc"), &serde_json::to_vec(self).map_err(io::Error::other)?)
    }
}
