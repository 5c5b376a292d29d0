//! What a host is told of an image that it fetches, and what it says of one that it makes.
use pilvi_agent_api::v1;
use serde::{Deserialize, Serialize};

/// What a host needs to fetch and check an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    pub id: String,
    pub sha512: String,
    pub size: u64,
    pub disk_format: String,
}

impl ImageFile {
    /// As agents are told of it.
    #[must_use]
    pub fn wire(&self) -> v1::ImageRef {
        v1::ImageRef {
            id: self.id.clone(),
            sha512: self.sha512.clone(),
            size: self.size,
            disk_format: self.disk_format.clone(),
        }
    }
}

/// How far a host is with an image that it makes of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenImage {
    pub image_id: String,
    pub stage: ImageStage,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageStage {
    Packing,
    Uploading,
    Done,
    /// The image was deleted meanwhile.
    Gone,
    Failed(String),
}

impl SeenImage {
    /// `None` where the host says nothing.
    #[must_use]
    pub fn of(said: &v1::ObservedSnapshot) -> Option<Self> {
        use v1::SnapshotStage as S;
        let stage = match said.stage() {
            S::SnapshotUnspecified => return None,
            S::SnapshotPacking => ImageStage::Packing,
            S::SnapshotUploading => ImageStage::Uploading,
            S::SnapshotDone => ImageStage::Done,
            S::SnapshotGone => ImageStage::Gone,
            S::SnapshotFailed => ImageStage::Failed(short(&said.error)),
        };
        Some(Self { image_id: said.image_id.clone(), stage })
    }
}

/// What of a host's words is kept.
#[must_use]
pub fn short(text: &str) -> String {
    const MOST: usize = 2000;
    text.chars().take(MOST).collect()
}
