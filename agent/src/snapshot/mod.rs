//! A disk on its way to becoming an image.
//!
//! ```text
//! root disk --copy: shared extents, holes kept--> <image>.copy   guest held
//! <image>.copy --clusters that hold something--> <image>.qcow2   from here on the guest runs
//! <image>.qcow2 --UploadImage--> scheduler                       from the start again until it arrives whole
//! ```
//! Each file has its name only when it is whole, so whoever comes after a crash goes on with what is there.
pub mod qcow2;
pub mod upload;

use crate::disk;
use crate::image::Cached;
use crate::ledger::{SnapshotEnd, safe_name};
use pilvi_agent_api::v1::{ObservedSnapshot, Snapshot, SnapshotStage};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use upload::{Sink, UploadError};

/// Snapshots of one host that are packed and sent at the same time; others wait.
const UPLOADS: usize = 2;

/// Where snapshots go.
pub struct Uploads {
    sink: Arc<dyn Sink>,
    slots: Semaphore,
}

impl Uploads {
    /// Uploads to `sink`, a few at a time.
    #[must_use]
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, slots: Semaphore::new(UPLOADS) }
    }
}

/// How far a copy has come on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    Packing,
    Uploading,
    Done,
    /// The image was deleted meanwhile.
    Gone,
    Failed(String),
}

impl Stage {
    /// Nothing comes after it.
    #[must_use]
    pub fn ended(&self) -> bool {
        !matches!(self, Self::Packing | Self::Uploading)
    }
}

/// One thing to do for a disk that shall become an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotStep {
    /// The disk is copied while the guest is held.
    Copy,
    /// The copy's way to the scheduler begins; it goes on beside everything else.
    Upload,
    /// How that ended is written down.
    Uploaded,
    /// Files of snapshots that are not wanted, or have ended, are removed.
    Sweep,
}

/// The image that is wanted.
#[must_use]
pub fn image_of(wanted: Option<&Snapshot>) -> Option<&str> {
    wanted.map(|snapshot| snapshot.image_id.as_str()).filter(|id| safe_name(id))
}

/// What the disk needs next to become the wanted image; `dir` is where its copies are. The image's id tells one from the
/// next; one that has ended is never begun again.
#[must_use]
pub fn next(
    wanted: Option<&Snapshot>,
    ended: Option<&SnapshotEnd>,
    flight: Option<&Flight>,
    dir: &Path,
) -> Option<SnapshotStep> {
    let ended = ended.map(|ended| ended.image_id.as_str());
    let Some(image) = image_of(wanted).filter(|image| ended != Some(image)) else {
        return (flight.is_some() || dir.exists()).then_some(SnapshotStep::Sweep);
    };
    match flight {
        Some(flight) if flight.image != image => Some(SnapshotStep::Sweep),
        Some(flight) => flight.stage().ended().then_some(SnapshotStep::Uploaded),
        None if copied(dir, image) => Some(SnapshotStep::Upload),
        None => Some(SnapshotStep::Copy),
    }
}

/// The newest one, for the observation.
#[must_use]
pub fn seen(flight: Option<&Flight>, ended: Option<&SnapshotEnd>) -> Option<ObservedSnapshot> {
    if let Some(flight) = flight {
        // Its end counts once it is written down.
        let packing = flight.stage() == Stage::Packing;
        let stage = if packing { SnapshotStage::SnapshotPacking } else { SnapshotStage::SnapshotUploading };
        return Some(ObservedSnapshot { image_id: flight.image.clone(), stage: stage.into(), error: String::new() });
    }
    let ended = ended?;
    let stage = match ended {
        SnapshotEnd { gone: true, .. } => SnapshotStage::SnapshotGone,
        SnapshotEnd { error, .. } if !error.is_empty() => SnapshotStage::SnapshotFailed,
        _ => SnapshotStage::SnapshotDone,
    };
    Some(ObservedSnapshot { image_id: ended.image_id.clone(), stage: stage.into(), error: ended.error.clone() })
}

/// A copy on its way; dropping it ends that.
#[derive(Debug)]
pub struct Flight {
    pub image: String,
    stage: watch::Receiver<Stage>,
    task: tokio::task::JoinHandle<()>,
}

impl Flight {
    /// Sends the copy in `dir` off.
    #[must_use]
    pub fn begin(uploads: Arc<Uploads>, dir: PathBuf, image: String) -> Self {
        let (tell, stage) = watch::channel(Stage::Packing);
        let id = image.clone();
        let task = tokio::spawn(async move {
            let end = match fly(&uploads, &dir, &id, &tell).await {
                Ok(()) => Stage::Done,
                Err(UploadError::Gone) => Stage::Gone,
                Err(error) => Stage::Failed(error.to_string()),
            };
            tell.send_replace(end);
        });
        Self { image, stage, task }
    }

    /// How far it has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        let stage = self.stage.borrow().clone();
        if !stage.ended() && self.task.is_finished() && !self.stage.borrow().ended() {
            return Stage::Failed("the upload broke off".into());
        }
        stage
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> SnapshotEnd {
        let image_id = self.image.clone();
        match self.stage() {
            Stage::Gone => SnapshotEnd { image_id, gone: true, error: String::new() },
            Stage::Failed(error) => SnapshotEnd { image_id, gone: false, error },
            _ => SnapshotEnd { image_id, ..SnapshotEnd::default() },
        }
    }

    /// Returns when it is at another stage than `known`.
    pub async fn moved_from(&self, known: Stage) {
        // An error means that the task is gone, which is an end too.
        let _ = self.stage.clone().wait_for(|stage| *stage != known).await;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn copy_path(dir: &Path, image: &str) -> PathBuf {
    dir.join(format!("{image}.copy"))
}

fn packed_path(dir: &Path, image: &str) -> PathBuf {
    dir.join(format!("{image}.qcow2"))
}

/// Whether the disk needs no more be looked at for this image.
#[must_use]
pub fn copied(dir: &Path, image: &str) -> bool {
    copy_path(dir, image).exists() || packed_path(dir, image).exists()
}

/// Copies the disk at `root`. Blocks. `image` must be fit for a file name.
///
/// # Errors
/// Whatever the file system says; then nothing half-made is left.
pub fn copy(root: &Path, dir: &Path, image: &str) -> io::Result<()> {
    let disk = Cached { path: root.to_owned(), size: root.metadata()?.len() };
    disk::make(&copy_path(dir, image), Some(&disk), 0)
}

async fn fly(uploads: &Uploads, dir: &Path, image: &str, tell: &watch::Sender<Stage>) -> Result<(), UploadError> {
    let _slot = uploads.slots.acquire().await.map_err(|e| UploadError::Refused(e.to_string()))?;
    let (from, to) = (copy_path(dir, image), packed_path(dir, image));
    let packed = to.clone();
    let done = tokio::task::spawn_blocking(move || if to.exists() { Ok(()) } else { qcow2::pack(&from, &to) }).await;
    let done = done.unwrap_or_else(|e| Err(io::Error::other(e)));
    done.map_err(|e| UploadError::Refused(format!("the copy could not be packed: {e}")))?;
    tell.send_replace(Stage::Uploading);
    upload::send(uploads.sink.as_ref(), image, &packed).await
}
