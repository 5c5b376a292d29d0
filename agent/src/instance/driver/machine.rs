//! From a wanted instance to the machine that a runtime starts.
use super::{CONFIG_DRIVE, CONFIG_DRIVE_ID, Driver};
use crate::error::Trouble;
use crate::runtime::choose::{Choice, Start, firmware_devices};
use crate::runtime::{DirectBoot, DiskFormat, Kind, Machine, MachineDisk, MachineNic};
use pilvi_agent_api::v1::{Disk, ImageRef, Instance, Nic};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The kernel's command line; without one, what finds the root disk and shows the console.
fn cmdline(wanted: &Instance) -> String {
    match wanted.cmdline.as_str() {
        "" => "root=/dev/vda console=tty0 console=ttyS0".into(),
        said => said.to_owned(),
    }
}

/// Where the devices of the machine on the other host are.
fn places_there(wanted: &Instance) -> BTreeMap<String, u8> {
    let places = wanted.arrival.iter().flat_map(|arrival| &arrival.places);
    places.filter_map(|at| Some((at.id.clone(), u8::try_from(at.place).ok()?))).collect()
}

/// Where a machine's taps come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taps {
    /// Nobody has them open.
    New,
    /// The process with this id has, and they are shared with it.
    Of(u32),
}

impl Driver {
    /// Which runtime starts the instance. One that goes on from a saved state stays with its own, and one that has begun
    /// with firmware keeps it, whatever is on its disk by now.
    pub(super) async fn choose(&self, wanted: &Instance) -> Result<Choice, Trouble> {
        let same = |kind| Choice { kind, note: self.doc.runtime_note.clone() };
        let runtimes = &self.context.runtimes;
        match self.doc.runtime {
            Some(kind) if self.doc.suspended => return Ok(same(kind)),
            Some(Kind::Qemu) if wanted.kernel.is_none() && wanted.runtime.is_empty() => {
                let choice = runtimes.choose(Kind::Qemu.word(), &Start::Firmware(String::new()));
                if let Ok(choice) = choice {
                    return Ok(same(choice.kind));
                }
            }
            _ => {}
        }
        let start = match wanted.kernel {
            Some(_) => Start::Kernel,
            None if runtimes.asks_for_disk(&wanted.runtime) => self.look_at_disk(wanted).await,
            None => Start::Firmware("this host does not look at disks".into()),
        };
        let choice = runtimes.choose(&wanted.runtime, &start)?;
        if !choice.note.is_empty() {
            tracing::info!(instance = self.guest.id, runtime = %choice.kind, note = choice.note, "runtime chosen");
        }
        Ok(choice)
    }

    async fn look_at_disk(&self, wanted: &Instance) -> Start {
        if let Some(asked) = firmware_devices(&wanted.properties) {
            return Start::Firmware(asked);
        }
        let looked = async {
            let disk = wanted.disks.first().ok_or("it has no disk")?;
            let kvm = self.context.runtimes.get(Kind::Kvm).ok_or("there is no kvm runtime")?;
            kvm.boots(&self.disk_path(disk)?, &wanted.properties).await.map_err(|e| e.to_string())
        };
        match looked.await {
            Ok(()) => Start::Disk,
            Err(why) => Start::Firmware(why),
        }
    }

    pub(super) fn machine_disk(&self, wanted: &Disk) -> Result<MachineDisk, Trouble> {
        Ok(MachineDisk {
            id: wanted.id.clone(),
            path: self.disk_path(wanted)?,
            format: DiskFormat::Raw,
            read_only: wanted.read_only,
            serial: wanted.id.clone(),
        })
    }

    pub(super) async fn machine_nic(&self, wanted: &Nic, taps: Taps) -> Result<MachineNic, Trouble> {
        let network = &self.context.plane.network;
        Ok(MachineNic {
            id: wanted.port_id.clone(),
            mac: wanted.mac.clone(),
            mtu: u16::try_from(wanted.mtu).unwrap_or(0),
            taps: match taps {
                Taps::New => network.open_taps(&wanted.port_id).await?,
                Taps::Of(pid) => network.taps_of(&wanted.port_id, pid).await?,
            },
        })
    }

    /// The machine to start: as wanted; or, where a guest goes on that knows one already, with the devices of that one.
    pub(super) async fn machine(&self, wanted: &Instance, kind: Kind) -> Result<Machine, Trouble> {
        let places = if self.doc.suspended { self.doc.places.clone() } else { places_there(wanted) };
        self.machine_with(wanted, kind, places, Taps::New).await
    }

    /// The machine as wanted, with the devices at these places; without any, with all.
    pub(super) async fn machine_with(
        &self,
        wanted: &Instance,
        kind: Kind,
        places: BTreeMap<String, u8>,
        taps: Taps,
    ) -> Result<Machine, Trouble> {
        let knows = |id: &str| places.is_empty() || places.contains_key(id);
        let mut disks = Vec::new();
        for wanted in wanted.disks.iter().filter(|disk| knows(&disk.id)) {
            disks.push(self.machine_disk(wanted)?);
        }
        let config_drive = self.guest.dir.join(CONFIG_DRIVE);
        if config_drive.exists() && knows(CONFIG_DRIVE_ID) {
            disks.push(MachineDisk {
                id: CONFIG_DRIVE_ID.into(),
                path: config_drive,
                format: DiskFormat::Raw,
                read_only: true,
                serial: CONFIG_DRIVE_ID.into(),
            });
        }
        let mut nics = Vec::new();
        for nic in wanted.nics.iter().filter(|nic| knows(&nic.port_id)) {
            nics.push(self.machine_nic(nic, taps).await?);
        }
        let there = |id: &str| disks.iter().any(|disk| disk.id == id) || nics.iter().any(|nic| nic.id == id);
        if let Some(lost) = places.keys().find(|id| !there(id)) {
            return Err(format!("the guest goes on with {lost}, which its server has no more: reboot it hard").into());
        }
        let boot = match &wanted.kernel {
            Some(kernel) => Some(DirectBoot {
                kernel: self.boot_file(kernel).await?,
                ramdisk: match &wanted.ramdisk {
                    Some(ramdisk) => Some(self.boot_file(ramdisk).await?),
                    None => None,
                },
                cmdline: cmdline(wanted),
            }),
            None => None,
        };
        let uefi = match kind {
            Kind::Qemu => self.context.uefi.of(&wanted.properties, &self.guest.dir, self.doc.suspended)?,
            Kind::Kvm | Kind::Fake => None,
        };
        Ok(Machine {
            vcpus: wanted.vcpus,
            memory_mib: wanted.memory_mib,
            disks,
            nics,
            boot,
            uefi,
            properties: wanted.properties.clone(),
            places,
            restore: self.doc.suspended,
        })
    }

    async fn boot_file(&self, image: &ImageRef) -> Result<PathBuf, Trouble> {
        Ok(self.image(image, 0).await?.path)
    }
}
