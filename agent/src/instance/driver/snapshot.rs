//! The driver's part of a snapshot: the one moment in which the guest is held, and how it ended.
//!
//! ```text
//! Copy (guest held) -> Upload -> ... in the background ... -> Uploaded -> Sweep
//! ```
//! An agent that dies while the guest is held finds it paused although it shall run, and lets it go on.
use super::{Driver, io};
use crate::durable;
use crate::error::Trouble;
use crate::ledger::SnapshotEnd;
use crate::runtime::Run;
use crate::snapshot::{self, Flight, SnapshotStep, Stage};
use pilvi_agent_api::v1::{Instance, ObservedSnapshot, SnapshotStage};
use std::path::PathBuf;

impl Driver {
    fn snapshot_dir(&self) -> PathBuf {
        self.guest.dir.join("snapshot")
    }

    /// What a snapshot needs next.
    pub(super) fn snapshot_step(&self, wanted: &Instance) -> Option<SnapshotStep> {
        let (ended, flight) = (self.doc.snapshot.as_ref(), self.flight.as_ref());
        snapshot::next(wanted.snapshot.as_ref(), ended, flight, &self.snapshot_dir())
    }

    /// The newest snapshot, for the observation.
    pub(super) fn snapshot_seen(&self) -> Option<ObservedSnapshot> {
        snapshot::seen(self.flight.as_ref(), self.doc.snapshot.as_ref())
    }

    /// Returns when there is news of the snapshot that is under way.
    pub(crate) async fn snapshot_moved(&self) {
        let told = self.context.board.instance(&self.guest.id).and_then(|seen| seen.snapshot);
        let uploading = told.is_some_and(|told| told.stage() == SnapshotStage::SnapshotUploading);
        match &self.flight {
            Some(flight) => flight.moved_from(if uploading { Stage::Uploading } else { Stage::Packing }).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn snapshot(&mut self, step: SnapshotStep, wanted: &Instance) -> Result<(), Trouble> {
        let image = snapshot::image_of(wanted.snapshot.as_ref()).unwrap_or_default().to_owned();
        match step {
            SnapshotStep::Copy => self.copy_root(wanted, &image).await,
            SnapshotStep::Upload => {
                tracing::info!(instance = self.guest.id, image, "snapshot taken");
                self.flight = Some(Flight::begin(self.context.uploads.clone(), self.snapshot_dir(), image));
                Ok(())
            }
            SnapshotStep::Uploaded => match &self.flight {
                Some(flight) => self.snapshot_ended(flight.end()),
                None => Ok(()),
            },
            SnapshotStep::Sweep => {
                self.flight = None;
                let dir = self.snapshot_dir();
                let swept = tokio::task::spawn_blocking(move || durable::remove(&dir)).await;
                swept.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(io("snapshot"))
            }
        }
    }

    fn snapshot_ended(&mut self, end: SnapshotEnd) -> Result<(), Trouble> {
        tracing::info!(instance = self.guest.id, image = end.image_id, error = end.error, "snapshot ended");
        self.save(|doc| doc.snapshot = Some(end))?;
        self.flight = None;
        Ok(())
    }

    /// Copies the root disk while the guest stands still. That this does not work is no fault of the instance's.
    async fn copy_root(&mut self, wanted: &Instance, image: &str) -> Result<(), Trouble> {
        let copied = match wanted.disks.first() {
            Some(root) => self.copy_held(self.disk_path(root)?, image).await?,
            None => Err("the instance has no disk".into()),
        };
        match copied {
            Ok(()) => Ok(()),
            Err(error) => self.snapshot_ended(SnapshotEnd { image_id: image.to_owned(), gone: false, error }),
        }
    }

    async fn copy_held(&mut self, root: PathBuf, image: &str) -> Result<Result<(), String>, Trouble> {
        let held = self.last.run == Run::Running;
        if held && let Err(error) = self.needed()?.pause(&self.guest).await {
            return Ok(Err(format!("the guest could not be held: {error}")));
        }
        let (dir, image) = (self.snapshot_dir(), image.to_owned());
        let copied = tokio::task::spawn_blocking(move || snapshot::copy(&root, &dir, &image)).await;
        if held {
            self.needed()?.resume(&self.guest).await?;
        }
        let copied = copied.unwrap_or_else(|e| Err(std::io::Error::other(e)));
        Ok(copied.map_err(|e| format!("the disk could not be copied: {e}")))
    }
}
