//! The driver's part of disks and cards that come and go while the guest runs.
//!
//! ```text
//!  observe: what the machine has <-- runtime (it alone knows, an agent that comes later asks it as well)
//!  differs from what is wanted --> Plug | Grow | Unplug --> observe ...
//! ```
//! What cannot be done is no trouble of the instance, which runs on as it is: it is told beside its devices.
use super::machine::Taps;
use super::{CONFIG_DRIVE_ID, Driver};
use crate::error::Trouble;
use crate::instance::plan::devices::{Change, DeviceStep, Tries, Want, changes};
use crate::runtime::{Device, Leave, Run, Runtime, RuntimeError, places};
use pilvi_agent_api::v1::{DevicePlace, DeviceTrouble, Instance, ObservedInstance, Power};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long it is believed that a machine has what it had: a guest may give a device away by itself.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What is known of the machine's devices.
#[derive(Debug, Default)]
pub struct Devices {
    /// Of the process with this id, at this time.
    known: Option<(Vec<Device>, u32, Instant)>,
    changes: Vec<Change>,
    tries: Tries,
}

impl Devices {
    fn list(&self) -> &[Device] {
        self.known.as_ref().map_or(&[], |(devices, ..)| devices)
    }

    /// Steps that are due.
    pub fn due(&self) -> Vec<DeviceStep> {
        let due = self.tries.due(&self.changes, Instant::now());
        [DeviceStep::Plug, DeviceStep::Grow, DeviceStep::Unplug]
            .into_iter()
            .filter(|step| due.iter().any(|change| change.step() == *step))
            .collect()
    }

    /// Whether a difference is being worked on.
    pub fn are_open(&self) -> bool {
        self.tries.are_open(&self.changes)
    }

    /// Puts what is known into the observation.
    pub fn tell(&self, seen: &mut ObservedInstance) {
        let place = |device: &Device| DevicePlace { id: device.id.clone(), place: device.place.into() };
        seen.places = self.list().iter().map(place).collect();
        let ids = self.list().iter().map(|device| device.id.clone());
        seen.devices = ids.filter(|id| id != CONFIG_DRIVE_ID).collect();
        let trouble = |(change, error): (&Change, &str)| DeviceTrouble {
            id: change.id().to_owned(),
            error: error.to_owned(),
            leaving: matches!(change, Change::Unplug(_)),
        };
        seen.device_troubles = self.tries.troubles().map(trouble).collect();
    }
}

impl Driver {
    /// Looks which devices the machine has, and how that differs from what is wanted.
    pub(super) async fn observe_devices(&mut self, wanted: Option<&Instance>) {
        let runtime = self.runtime().filter(|_| matches!(self.last.run, Run::Running | Run::Paused));
        let Some(runtime) = runtime else {
            self.devices = Devices::default();
            return;
        };
        let pid = self.last.pid;
        let fresh = |(_, of, at): &(Vec<Device>, u32, Instant)| *of == pid && at.elapsed() < LOOK_AGAIN;
        if !self.devices.known.as_ref().is_some_and(fresh) || !self.devices.changes.is_empty() {
            match runtime.devices(&self.guest).await {
                Ok(devices) => self.devices.known = Some((devices, pid, Instant::now())),
                Err(error) => {
                    tracing::debug!(instance = self.guest.id, %error, "the machine's devices are not known");
                    self.devices.known.take_if(|(_, of, _)| *of != pid);
                }
            }
        }
        if self.devices.known.is_some() {
            let ids = self.devices.list().iter().map(|device| device.id.clone()).collect();
            self.context.plane.uses(&self.guest.id, ids);
        }
        self.devices.changes = match wanted.filter(|wanted| self.may_change(wanted)) {
            Some(wanted) => changes(&self.wanted_devices(wanted, &*runtime), self.devices.list(), &[CONFIG_DRIVE_ID]),
            None => Vec::new(),
        };
        self.devices.tries.keep(&self.devices.changes);
    }

    /// Only what runs and shall run, and is on no way, gets and gives devices.
    fn may_change(&self, wanted: &Instance) -> bool {
        let runs = matches!(Power::from_wire(wanted.power), Power::Running | Power::Unspecified);
        runs && self.last.run == Run::Running && wanted.departure.is_none() && self.devices.known.is_some()
    }

    fn wanted_devices(&self, wanted: &Instance, runtime: &dyn Runtime) -> Vec<Want> {
        let disks = wanted.disks.iter().map(|disk| Want { id: disk.id.clone(), bytes: self.disk_size(disk) });
        // A card that can be nothing but a tap's end is not missed where there are no taps.
        let cards = self.context.plane.network.has_taps() || runtime.has_cards_without_taps();
        let nics = wanted.nics.iter().filter(|_| cards).map(|nic| Want { id: nic.port_id.clone(), bytes: None });
        disks.chain(nics).collect()
    }

    pub(super) async fn run_devices(&mut self, step: DeviceStep, wanted: &Instance) -> Result<(), Trouble> {
        let due = self.devices.tries.due(&self.devices.changes, Instant::now());
        for change in due.into_iter().filter(|change| change.step() == step) {
            let done = match &change {
                Change::Plug(id) => self.plug(id, wanted).await,
                Change::Grow(id, bytes) => {
                    let grown = self.needed()?.resize_disk(&self.guest, id, *bytes).await;
                    grown.map_err(Trouble::from)
                }
                Change::Unplug(id) => self.unplug(id).await,
            };
            match done {
                Ok(()) => tracing::info!(instance = self.guest.id, ?change, "device"),
                Err(trouble) => {
                    tracing::warn!(instance = self.guest.id, ?change, %trouble, "device is not as wanted");
                    self.devices.tries.failed(&change, trouble.text, Instant::now());
                }
            }
        }
        Ok(())
    }

    async fn plug(&mut self, id: &str, wanted: &Instance) -> Result<(), Trouble> {
        let (runtime, guest) = (self.needed()?, self.guest.clone());
        let properties = wanted.properties.clone();
        if let Some(disk) = wanted.disks.iter().find(|disk| disk.id == id) {
            self.disks(wanted).await?;
            self.volumes(std::slice::from_ref(disk)).await?;
            let disk = self.machine_disk(disk)?;
            return whole(async move { runtime.plug_disk(&guest, disk, &properties).await }).await;
        }
        let Some(nic) = wanted.nics.iter().find(|nic| nic.port_id == id) else { return Ok(()) };
        self.context.plane.wired(&[id.to_owned()]).await?;
        let nic = self.machine_nic(nic, Taps::New).await?;
        whole(async move { runtime.plug_nic(&guest, nic, &properties).await }).await
    }

    async fn unplug(&self, id: &str) -> Result<(), Trouble> {
        let (runtime, guest, id): (Arc<dyn Runtime>, _, _) = (self.needed()?, self.guest.clone(), id.to_owned());
        match whole(async move { runtime.unplug(&guest, &id).await }).await? {
            Leave::Gone => Ok(()),
            Leave::Asked => Err("the guest does not let go of it".into()),
        }
    }

    /// Writes down where the devices of a machine are that is about to be saved.
    pub(super) async fn note_places(&mut self) -> Result<(), Trouble> {
        let places = places::of(&self.needed()?.devices(&self.guest).await?);
        self.save(|doc| doc.places = places)
    }
}

/// Lets a step come to its end also when the pass is given up meanwhile: half a device is worse than one too many.
async fn whole<T: Send + 'static>(
    step: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Result<T, Trouble> {
    let done = tokio::spawn(step).await;
    Ok(done.unwrap_or_else(|e| Err(RuntimeError::Failed(e.to_string())))?)
}
