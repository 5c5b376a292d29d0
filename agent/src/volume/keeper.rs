//! The task of one volume: looks, plans, acts, tells, until the volume is gone.
//!
//! ```text
//! look -> plan (pure) -> step -> look -> ... -> settled --wanted changed, upload moved on--> look
//!                          '--trouble--> told, tried again after a pause
//! ```
use super::doc::{Doc, Taken};
use super::plan::{Found, Step, plan};
use super::{data, hold, snapshot};
use crate::error::Trouble;
use crate::image::Cached;
use crate::instance::Context;
use crate::ledger::SnapshotEnd;
use crate::mailbox::{Pause, Target};
use crate::snapshot::{self as images, Flight, SnapshotStep};
use crate::{disk, durable};
use pilvi_agent_api::v1::{
    ObservedVolume, ObservedVolumeSnapshot, Volume, VolumeSource, volume_source::From as Source,
};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

struct Keeper {
    context: Arc<Context>,
    id: String,
    folder: PathBuf,
    doc: Doc,
    flight: Option<Flight>,
}

/// Keeps one volume as its target says until it is gone.
pub async fn run(context: Arc<Context>, id: String, mut mailbox: watch::Receiver<Target<Volume>>) {
    let Ok(folder) = context.volumes.folder(&id) else { return };
    let mut keeper: Option<Keeper> = None;
    let mut pause = Pause::default();
    loop {
        let target = mailbox.borrow_and_update().clone();
        let wanted = match &target {
            Target::Wanted(wanted) => Some(wanted.as_ref()),
            Target::Gone => None,
            Target::Unknown => {
                if mailbox.changed().await.is_err() {
                    return;
                }
                continue;
            }
        };
        let done = match (&mut keeper, wanted) {
            (None, wanted) => match Keeper::take_up(&context, &id, &folder, wanted) {
                Ok(fresh) => {
                    keeper = Some(fresh);
                    continue;
                }
                Err(error) => Err(format!("its document: {error}").into()),
            },
            (Some(keeper), Some(wanted)) => keeper.pass(wanted).await,
            (Some(keeper), None) => keeper.remove().await,
        };
        match (done, wanted) {
            (Ok(()), None) => {
                context.volumes.set_ready(&id, None);
                context.board.remove_volume(&id);
                if *mailbox.borrow() == Target::Gone {
                    return;
                }
                keeper = None;
            }
            (Ok(()), Some(_)) => {
                pause = Pause::default();
                let moved = keeper.as_ref();
                let told = tokio::select! {
                    told = mailbox.changed() => told,
                    () = upload_moved(moved) => Ok(()),
                };
                if told.is_err() {
                    return;
                }
            }
            (Err(trouble), wanted) => {
                tracing::warn!(volume = id, %trouble, "volume is not as wanted");
                if let Some(wanted) = wanted {
                    tell_trouble(&context, keeper.as_ref(), wanted, &trouble);
                }
                if pause.sleep(&mut mailbox).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn upload_moved(keeper: Option<&Keeper>) {
    match keeper.and_then(|keeper| keeper.flight.as_ref()) {
        Some(flight) => flight.moved_from(flight.stage()).await,
        None => std::future::pending().await,
    }
}

fn tell_trouble(context: &Context, keeper: Option<&Keeper>, wanted: &Volume, trouble: &Trouble) {
    let mut seen = keeper.map(|keeper| keeper.seen(wanted)).unwrap_or_default();
    seen.id.clone_from(&wanted.id);
    seen.generation = wanted.generation;
    if trouble.passing {
        // It is only not done yet.
        seen.step = "waiting".into();
    } else {
        (seen.settled, seen.error) = (true, trouble.text.clone());
        if seen.bytes == 0 {
            context.volumes.set_ready(&wanted.id, Some(Err(trouble.text.clone())));
        }
    }
    context.board.set_volume(seen);
}

impl Keeper {
    /// Counters that are wanted of a volume without a document count as done: nothing is reverted twice.
    fn take_up(
        context: &Arc<Context>,
        id: &str,
        folder: &std::path::Path,
        wanted: Option<&Volume>,
    ) -> io::Result<Self> {
        let doc = match Doc::load(folder) {
            Ok(Some(doc)) => doc,
            Ok(None) => Doc {
                reverts: wanted.map_or(0, |wanted| wanted.reverts),
                reimages: wanted.map_or(0, |wanted| wanted.reimages),
                ..Doc::default()
            },
            // What shall go needs no document.
            Err(_) if wanted.is_none() => Doc::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { context: context.clone(), id: id.to_owned(), folder: folder.to_owned(), doc, flight: None })
    }

    fn save(&mut self, change: impl FnOnce(&mut Doc)) -> Result<(), Trouble> {
        let mut doc = self.doc.clone();
        change(&mut doc);
        doc.save(&self.folder).map_err(|e| format!("its document: {e}"))?;
        self.doc = doc;
        Ok(())
    }

    fn bytes(&self) -> Option<u64> {
        data(&self.folder).metadata().ok().map(|meta| meta.len())
    }

    fn look(&self, wanted: &Volume) -> Found {
        let (ended, flight) = (self.doc.upload.as_ref(), self.flight.as_ref());
        let upload = images::next(wanted.upload.as_ref(), ended, flight, &self.upload_dir());
        Found { doc: self.doc.clone(), bytes: self.bytes(), upload }
    }

    /// Plans and acts until nothing is left to do.
    async fn pass(&mut self, wanted: &Volume) -> Result<(), Trouble> {
        loop {
            let there = self.doc.made && self.bytes().is_some();
            self.context.volumes.set_ready(&self.id, Some(Ok(there)));
            let step = plan(wanted, &self.look(wanted));
            let mut seen = self.seen(wanted);
            seen.settled = step.is_none();
            seen.step = step.as_ref().map_or("", Step::word).into();
            self.context.board.set_volume(seen);
            let Some(step) = step else { return Ok(()) };
            tracing::info!(volume = self.id, ?step, generation = wanted.generation, "step");
            self.step(step, wanted).await?;
        }
    }

    async fn step(&mut self, step: Step, wanted: &Volume) -> Result<(), Trouble> {
        match step {
            Step::Make => {
                self.fill(wanted).await?;
                self.save(|doc| doc.made = true)
            }
            Step::Lost => Err("its file is gone from this host".into()),
            Step::Reimage => {
                self.unused().await?;
                // Until it is whole again it is as if it had never been made.
                let done = wanted.reimages;
                self.save(|doc| doc.made = false)?;
                durable::remove(&data(&self.folder)).map_err(|e| e.to_string())?;
                self.fill(wanted).await?;
                self.save(|doc| (doc.made, doc.reimages) = (true, done))
            }
            Step::Revert => {
                self.unused().await?;
                let from = snapshot(&self.folder, &wanted.revert_to)?;
                let back = self.folder.join("back");
                let (to, size) = (data(&self.folder), self.bytes().unwrap_or(0));
                self.copy(move || {
                    durable::remove(&back)?;
                    let whole = Cached { size: from.metadata()?.len(), path: from };
                    disk::make(&back, Some(&whole), size)?;
                    std::fs::rename(&back, &to)
                })
                .await?;
                self.save(|doc| doc.reverts = wanted.reverts)
            }
            Step::Grow => {
                let (path, size) = (data(&self.folder), wanted.size_gib << 30);
                self.copy(move || disk::make(&path, None, size)).await
            }
            Step::Take(id) => self.take(id).await,
            Step::Drop(id) => {
                let path = snapshot(&self.folder, &id)?;
                durable::remove(&path).map_err(|e| format!("snapshot {id}: {e}"))?;
                self.save(|doc| drop(doc.snapshots.remove(&id)))
            }
            Step::Image(step) => self.upload(step, wanted).await,
        }
    }

    /// Makes the file of what the volume is made of.
    async fn fill(&self, wanted: &Volume) -> Result<(), Trouble> {
        let size = wanted.size_gib << 30;
        let path = data(&self.folder);
        let from = match wanted.source.as_ref().and_then(|source| source.from.as_ref()) {
            None => None,
            Some(Source::Image(image)) => Some(self.context.images.get(image, size).await?),
            Some(Source::SnapshotId(id)) => {
                let of = wanted.source.as_ref().map_or("", |source: &VolumeSource| source.of_volume.as_str());
                let from = snapshot(&self.context.volumes.folder(of)?, id)?;
                let size = from.metadata().map_err(|e| format!("snapshot {id}: {e}"))?.len();
                Some(Cached { path: from, size })
            }
            Some(Source::VolumeId(id)) => {
                let from = self.context.volumes.file(id)?;
                let from = Cached { size: from.metadata().map_err(|e| format!("volume {id}: {e}"))?.len(), path: from };
                let _slot = self.slot().await?;
                return Ok(hold::held(&self.context, id, move || disk::make(&path, Some(&from), size)).await?);
            }
        };
        self.copy(move || disk::make(&path, from.as_ref(), size)).await
    }

    async fn slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Trouble> {
        self.context.volumes.copies.acquire().await.map_err(|e| e.to_string().into())
    }

    /// Does blocking work, a few at a time.
    async fn copy(&self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Trouble> {
        let _slot = self.slot().await?;
        let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)));
        Ok(done.map_err(|e| e.to_string())?)
    }

    async fn unused(&self) -> Result<(), Trouble> {
        match hold::in_use(&self.context, &self.id).await? {
            false => Ok(()),
            true => Err(Trouble::passing("a guest uses it")),
        }
    }

    /// That a snapshot cannot be taken is no fault of the volume's: it is said of the snapshot, and not tried again.
    async fn take(&mut self, id: String) -> Result<(), Trouble> {
        let (from, to) = (data(&self.folder), snapshot(&self.folder, &id)?);
        let size = self.bytes().unwrap_or(0);
        let taken = {
            let _slot = self.slot().await?;
            let whole = Cached { path: from, size };
            hold::held(&self.context, &self.id, move || disk::make(&to, Some(&whole), 0)).await
        };
        let taken = match taken {
            Ok(()) => Taken { error: String::new(), bytes: size },
            Err(error) => Taken { error, bytes: 0 },
        };
        self.save(|doc| drop(doc.snapshots.insert(id, taken)))
    }

    async fn remove(&mut self) -> Result<(), Trouble> {
        self.flight = None;
        self.unused().await?;
        let folder = self.folder.clone();
        self.copy(move || durable::remove(&folder)).await
    }

    // ------------------------------------------------------------ becoming an image

    fn upload_dir(&self) -> PathBuf {
        self.folder.join("upload")
    }

    async fn upload(&mut self, step: SnapshotStep, wanted: &Volume) -> Result<(), Trouble> {
        let image = images::image_of(wanted.upload.as_ref()).unwrap_or_default().to_owned();
        match step {
            SnapshotStep::Copy => {
                let (root, dir, name) = (data(&self.folder), self.upload_dir(), image.clone());
                let copied = {
                    let _slot = self.slot().await?;
                    hold::held(&self.context, &self.id, move || images::copy(&root, &dir, &name)).await
                };
                match copied {
                    Ok(()) => Ok(()),
                    Err(error) => self.upload_ended(SnapshotEnd { image_id: image, gone: false, error }),
                }
            }
            SnapshotStep::Upload => {
                self.flight = Some(Flight::begin(self.context.uploads.clone(), self.upload_dir(), image));
                Ok(())
            }
            SnapshotStep::Uploaded => match &self.flight {
                Some(flight) => self.upload_ended(flight.end()),
                None => Ok(()),
            },
            SnapshotStep::Sweep => {
                self.flight = None;
                let dir = self.upload_dir();
                self.copy(move || durable::remove(&dir)).await
            }
        }
    }

    fn upload_ended(&mut self, end: SnapshotEnd) -> Result<(), Trouble> {
        tracing::info!(volume = self.id, image = end.image_id, error = end.error, "upload ended");
        self.save(|doc| doc.upload = Some(end))?;
        self.flight = None;
        Ok(())
    }

    // ------------------------------------------------------------ telling

    fn seen(&self, wanted: &Volume) -> ObservedVolume {
        let bytes = if self.doc.made { self.bytes().unwrap_or(0) } else { 0 };
        let snapshots = self.doc.snapshots.iter().map(|(id, taken)| ObservedVolumeSnapshot {
            id: id.clone(),
            error: taken.error.clone(),
            bytes: taken.bytes,
        });
        ObservedVolume {
            id: self.id.clone(),
            generation: wanted.generation,
            settled: false,
            error: String::new(),
            step: String::new(),
            bytes,
            snapshots: snapshots.collect(),
            reverts: self.doc.reverts,
            reimages: self.doc.reimages,
            upload: images::seen(self.flight.as_ref(), self.doc.upload.as_ref()),
        }
    }
}
