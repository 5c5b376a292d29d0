//! Carries out the steps of one instance's plan.
//!
//! ```text
//! observe -> plan (pure) -> run step, run step, ... -> observe -> ... -> nothing left to do
//! ```
//! What cannot be seen afterwards (that a start was under way, that a reboot is the one that was
//! asked for) is written to the ledger before or after the step, so that it can be repeated.
mod devices;
mod machine;
mod marks;
mod moving;
mod snapshot;
mod upgrade;

use super::Context;
use super::plan::{Due, Found, Goal, Step, moving::Wish};
use crate::error::Trouble;
use crate::ledger::{Counters, Doc};
use crate::runtime::choose::Choice;
use crate::runtime::{Guest, Kind, Run, Runtime, Status, stop_kindly};
use crate::snapshot::Flight;
use crate::{configdrive, disk, durable, process, uefi};
use pilvi_agent_api::v1::{Disk, ImageRef, Instance, ObservedInstance, Power};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// Name of the config drive's file in the instance's folder.
const CONFIG_DRIVE: &str = "config-drive";
/// Its id among the machine's devices, and what the guest reads as its serial number.
const CONFIG_DRIVE_ID: &str = "config-2";

/// One instance of this host.
pub struct Driver {
    pub context: Arc<Context>,
    pub guest: Guest,
    doc: Doc,
    last: Status,
    flight: Option<Flight>,
    moves: moving::Moves,
    /// Of the wanted disks that are there, in their order.
    disk_bytes: Vec<u64>,
    devices: devices::Devices,
    upgrades: upgrade::Upgrades,
    /// Held while it acts; given up while it waits for volumes, whose copies may need the guest held.
    pub(super) turn: Option<OwnedMutexGuard<()>>,
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Trouble {
    move |e| format!("{what}: {e}").into()
}

/// What the plan needs to know of a wanted instance.
#[must_use]
pub fn goal(instance: &Instance) -> Goal {
    Goal { generation: instance.generation, power: Power::from_wire(instance.power), counters: counters(instance) }
}

fn counters(instance: &Instance) -> Counters {
    let Instance { hard_reboots, soft_reboots, rebuilds, upgrades, .. } = *instance;
    Counters { hard_reboots, soft_reboots, rebuilds, upgrades }
}

/// Disks that are made for the instance and go with it.
fn own_disks(wanted: &Instance) -> impl Iterator<Item = &Disk> {
    wanted.disks.iter().filter(|disk| disk.volume.is_none())
}

impl Driver {
    /// Takes up an instance: from its document, or as a new one. For a new one (and for one whose
    /// document was lost) the wanted counters count as done: nothing is rebooted or rebuilt twice.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub fn take_up(context: Arc<Context>, guest: Guest, wanted: Option<&Instance>) -> Result<Self, Trouble> {
        let known = context.ledger.load_doc(&guest.id).map_err(io("ledger"))?;
        let doc = match (known, wanted) {
            (Some(doc), _) => doc,
            (None, wanted) => {
                let runtime = std::fs::read_to_string(guest.dir.join("runtime")).ok();
                let doc = Doc {
                    runtime: runtime.and_then(|word| Kind::from_word(&word)),
                    done: wanted.map(counters).unwrap_or_default(),
                    ..Doc::default()
                };
                if wanted.is_some() {
                    context.ledger.save_doc(&guest.id, &doc).map_err(io("ledger"))?;
                }
                doc
            }
        };
        Ok(Self {
            context,
            guest,
            doc,
            last: Status::default(),
            flight: None,
            moves: moving::Moves::default(),
            disk_bytes: Vec::new(),
            devices: devices::Devices::default(),
            upgrades: upgrade::Upgrades::default(),
            turn: None,
        })
    }

    fn save(&mut self, change: impl FnOnce(&mut Doc)) -> Result<(), Trouble> {
        let mut doc = self.doc.clone();
        change(&mut doc);
        let saved = self.context.ledger.save_doc(&self.guest.id, &doc);
        saved.map_err(io("ledger"))?;
        self.doc = doc;
        Ok(())
    }

    /// The runtime that this instance was last started with.
    #[must_use]
    pub fn runtime(&self) -> Option<Arc<dyn Runtime>> {
        self.context.runtimes.get(self.doc.runtime?)
    }

    /// Looks at the instance.
    ///
    /// # Errors
    /// When its runtime cannot tell: then nothing may be done to it.
    pub async fn observe(&mut self, wanted: Option<&Instance>) -> Result<Found, Trouble> {
        self.last = match (self.runtime(), self.doc.runtime) {
            (Some(runtime), _) => runtime.status(&self.guest).await?,
            (None, Some(kind)) if process::recall(&self.guest.dir).is_some() => {
                return Err(format!("its guest runs on {kind}, which is switched off here").into());
            }
            (None, _) => Status::default(),
        };
        // A start that was under way when the agent died may have come as far as a process without its record: it
        // holds the taps, so a second start could not.
        let may_run = self.doc.starting || self.doc.started == self.context.boot;
        if self.last.run == Run::Absent && may_run && self.recovered().await? {
            let runtime = self.needed()?;
            self.last = runtime.status(&self.guest).await?;
        }
        self.observe_devices(wanted).await;
        self.observe_program().await;
        self.observe_way().await;
        let disks = wanted.map_or(&[][..], |wanted| &wanted.disks);
        let sizes: Vec<Option<u64>> = disks.iter().map(|wanted| self.disk_size(wanted)).collect();
        let mut all = disks.iter().zip(&sizes);
        let there = all.all(|(wanted, size)| size.is_some_and(|size| size >= wanted.size_gib << 30));
        self.disk_bytes = sizes.into_iter().map_while(|size| size).collect();
        Ok(Found {
            run: self.last.run,
            doc: self.doc.clone(),
            saved: self.guest.saved_state().exists(),
            disks: there,
            boot: self.context.boot.clone(),
            snapshot: wanted.and_then(|wanted| self.snapshot_step(wanted)),
            wish: wanted.map_or(Wish::Stay, |wanted| self.wish(wanted)),
            devices: self.devices.due(),
            upgrade: wanted.map_or(Due::No, |wanted| self.upgrade_due(wanted)),
        })
    }

    /// Whether a guest that seems to be gone runs after all, unrecorded. It may also just be going: a process between
    /// its end and its burial shows neither record nor mark, so the second look comes a moment later.
    async fn recovered(&self) -> Result<bool, Trouble> {
        for _ in 0..2 {
            let dir = self.guest.dir.clone();
            let looked = tokio::task::spawn_blocking(move || process::recover(&dir)).await;
            let found = looked.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(io("process record"))?;
            if let Some(found) = found {
                tracing::warn!(instance = self.guest.id, pid = found.pid, "guest found again without its record");
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(false)
    }

    /// The observation as it goes to the scheduler.
    #[must_use]
    pub fn seen(&self, generation: u64) -> ObservedInstance {
        let power = match self.last.run {
            Run::Running | Run::Switching => Power::Running,
            Run::Paused => Power::Paused,
            Run::Absent if self.doc.suspended => Power::Suspended,
            Run::Absent | Run::PoweredOff | Run::Broken | Run::Arriving | Run::Moved => Power::Stopped,
        };
        let mut seen = ObservedInstance {
            id: self.guest.id.clone(),
            generation,
            power: power.into(),
            runtime: self.doc.runtime.map_or("", Kind::word).to_owned(),
            runtime_note: self.doc.runtime_note.clone(),
            pid: self.last.pid,
            hard_reboots: self.doc.done.hard_reboots,
            soft_reboots: self.doc.done.soft_reboots,
            rebuilds: self.doc.done.rebuilds,
            upgrades: self.doc.done.upgrades,
            crashed: self.doc.ended.is_some_and(|ended| ended.crashed),
            snapshot: self.snapshot_seen(),
            disk_bytes: self.disk_bytes.clone(),
            r#move: self.move_seen(),
            ..ObservedInstance::default()
        };
        self.devices.tell(&mut seen);
        self.upgrades.tell(&mut seen);
        seen
    }

    /// Whether disks or cards are still on their way into the machine, or out of it.
    #[must_use]
    pub fn devices_open(&self) -> bool {
        self.devices.are_open()
    }

    /// Does one step. `wanted` is `None` only for the steps of a removal.
    ///
    /// # Errors
    /// Trouble for the observation; the step may be done again.
    pub async fn run(&mut self, step: Step, wanted: Option<&Instance>) -> Result<(), Trouble> {
        let none = Instance::default();
        let wanted = wanted.unwrap_or(&none);
        match step {
            Step::Fetch => self.fetch(wanted).await,
            Step::Disks => self.disks(wanted).await,
            Step::Ports => {
                let ports: Vec<String> = wanted.nics.iter().map(|n| n.port_id.clone()).collect();
                Ok(self.context.plane.wired(&ports).await?)
            }
            Step::ConfigDrive => self.config_drive(wanted),
            Step::Start => self.start(wanted).await,
            Step::Shutdown => self.shutdown().await,
            Step::Kill => self.kill().await,
            Step::RemoveRoot => self.remove_root(wanted),
            Step::Pause => Ok(self.needed()?.pause(&self.guest).await?),
            Step::Resume => {
                // A state saved earlier is not what this guest goes on from.
                durable::remove(&self.guest.saved_state()).map_err(io("saved state"))?;
                Ok(self.needed()?.resume(&self.guest).await?)
            }
            Step::Suspend => {
                self.note_places().await?;
                Ok(self.needed()?.suspend(&self.guest).await?)
            }
            Step::Snapshot(step) => self.snapshot(step, wanted).await,
            Step::Move(step) => self.run_move(step, wanted).await,
            Step::Device(step) => self.run_devices(step, wanted).await,
            Step::Upgrade => self.upgrade(wanted).await,
            Step::SettleUpgrade => self.settle_upgrade().await,
            Step::ReleasePorts => {
                self.context.plane.release(&self.guest.id);
                Ok(())
            }
            Step::RemoveFiles => self.remove_files().await,
            Step::MarkStarted
            | Step::Ending
            | Step::MarkEnded(_)
            | Step::MarkOff
            | Step::Rebooted
            | Step::Rebuilt
            | Step::Upgraded
            | Step::MarkSuspended
            | Step::MarkRemoving => self.mark(step, wanted),
        }
    }

    fn needed(&self) -> Result<Arc<dyn Runtime>, Trouble> {
        self.runtime().ok_or_else(|| "its runtime is not known".into())
    }

    /// The file of a disk, made or not.
    fn disk_path(&self, disk: &Disk) -> Result<PathBuf, String> {
        match &disk.volume {
            Some(volume) if volume.node_id.is_empty() => self.context.volumes.file(&volume.id),
            Some(volume) => Err(format!("volume {} is on another host", volume.id)),
            None => disk::path(&self.guest.dir, &disk.id),
        }
    }

    /// Bytes of a disk that is there.
    fn disk_size(&self, disk: &Disk) -> Option<u64> {
        let there = disk.volume.as_ref().is_none_or(|volume| self.context.volumes.ready(&volume.id));
        there.then(|| Some(self.disk_path(disk).ok()?.metadata().ok()?.len())).flatten()
    }

    /// Waits for the volumes among these disks.
    async fn volumes(&mut self, disks: &[Disk]) -> Result<(), Trouble> {
        self.turn = None;
        for volume in disks.iter().filter_map(|disk| disk.volume.as_ref()) {
            self.context.volumes.wait(&volume.id).await?;
        }
        self.turn = Some(self.context.turns.take(&self.guest.id).await);
        Ok(())
    }

    /// A root disk that is the instance's own goes; a volume stays what it is.
    fn remove_root(&self, wanted: &Instance) -> Result<(), Trouble> {
        match wanted.disks.first().filter(|root| root.volume.is_none()) {
            Some(root) => {
                let path = disk::path(&self.guest.dir, &root.id)?;
                durable::remove(&path).map_err(io("root disk"))?;
                // They tell what of the former system is to be started.
                durable::remove(&disk::path(&self.guest.dir, uefi::VARS)?).map_err(io("variables"))
            }
            None => Ok(()),
        }
    }

    async fn fetch(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        self.volumes(&wanted.disks).await?;
        for wanted in own_disks(wanted) {
            let path = disk::path(&self.guest.dir, &wanted.id)?;
            if let Some(image) = wanted.image.as_ref().filter(|_| !path.exists()) {
                self.image(image, wanted.size_gib << 30).await?;
            }
        }
        for image in [&wanted.kernel, &wanted.ramdisk].into_iter().flatten() {
            self.image(image, 0).await?;
        }
        Ok(())
    }

    /// An image's file. The fetch goes on even when this instance stops waiting for it.
    async fn image(&self, image: &ImageRef, limit: u64) -> Result<crate::image::Cached, Trouble> {
        let (images, image) = (self.context.images.clone(), image.clone());
        let fetch = tokio::spawn(async move { images.get(&image, limit).await });
        fetch.await.unwrap_or_else(|e| Err(e.to_string().into()))
    }

    async fn disks(&self, wanted: &Instance) -> Result<(), Trouble> {
        for wanted in own_disks(wanted) {
            let path = disk::path(&self.guest.dir, &wanted.id)?;
            let size = wanted.size_gib << 30;
            let image = match &wanted.image {
                Some(image) if !path.exists() => Some(self.image(image, size).await?),
                _ => None,
            };
            let make = move || disk::make(&path, image.as_ref(), size);
            let made = tokio::task::spawn_blocking(make).await;
            let made = made.unwrap_or_else(|e| Err(std::io::Error::other(e)));
            made.map_err(|e| format!("disk {}: {e}", wanted.id))?;
        }
        Ok(())
    }

    fn config_drive(&self, wanted: &Instance) -> Result<(), Trouble> {
        let path = self.guest.dir.join(CONFIG_DRIVE);
        match &wanted.metadata {
            Some(metadata) if wanted.config_drive => {
                let iso = configdrive::image(metadata)?;
                durable::save_plain(&path, &iso).map_err(io("config drive"))
            }
            _ => durable::remove(&path).map_err(io("config drive")),
        }
    }

    async fn start(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let Choice { kind, note } = self.choose(wanted).await?;
        if self.doc.runtime.is_some_and(|former| former != kind) {
            // A start with the former one may be half done.
            self.kill().await?;
        }
        let machine = self.machine(wanted, kind).await?;
        durable::save_plain(&self.guest.dir.join("runtime"), kind.word().as_bytes()).map_err(io("runtime mark"))?;
        if !machine.restore {
            durable::remove(&self.guest.saved_state()).map_err(io("saved state"))?;
        }
        self.context.plane.hold(&self.guest.id);
        self.save(|doc| {
            doc.runtime = Some(kind);
            doc.runtime_note = note;
            doc.starting = true;
        })?;
        self.needed()?.start(&self.guest, machine).await?;
        self.mark_started()
    }

    async fn shutdown(&self) -> Result<(), Trouble> {
        let Some(runtime) = self.runtime() else {
            return Ok(());
        };
        let went = stop_kindly(runtime.as_ref(), &self.guest, self.context.grace).await?;
        if !went {
            tracing::info!(instance = self.guest.id, "did not power off in time");
        }
        Ok(())
    }

    async fn kill(&self) -> Result<(), Trouble> {
        if let Some(runtime) = self.runtime() {
            runtime.kill(&self.guest).await?;
        }
        process::end(&self.guest.dir).await.map_err(io("its process"))
    }

    async fn remove_files(&self) -> Result<(), Trouble> {
        let dir = self.guest.dir.clone();
        let removed = tokio::task::spawn_blocking(move || durable::remove(&dir)).await;
        removed.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(io("its folder"))
    }
}
