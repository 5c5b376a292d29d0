//! Disks and cards that come to and go from a running pilvi-vmm.
//!
//! ```text
//!  disk.<id>, nic.<id>   names in the VMM: whoever comes later reads the ids there, and a saved or moved machine's
//!                        devices are known again by them
//!  unplug                asked -> let go -> gone;  not let go within the VMM's patience -> asked again by the next call
//! ```
use super::{Kvm, ask, failed, io};
use crate::runtime::{Device, DiskFormat, Guest, Kind, Leave, MachineDisk, MachineNic, NAMELESS, RuntimeError};
use pilvi_vmm::control::{Client, ClientError, Reply, Request};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;

pub(super) fn disk_name(id: &str) -> String {
    format!("disk.{id}")
}

pub(super) fn nic_name(id: &str) -> String {
    format!("nic.{id}")
}

fn id_of(name: &str) -> Option<&str> {
    name.strip_prefix("disk.").or_else(|| name.strip_prefix("nic."))
}

/// As the VMM itself calls disks and cards: the guest was started by an agent that gave no names.
fn is_nameless(name: &str) -> bool {
    let number = name.strip_prefix("disk").or_else(|| name.strip_prefix("nic"));
    number.is_some_and(|number| number.parse::<u8>().is_ok())
}

impl Kvm {
    pub(super) async fn list_devices(&self, guest: &Guest) -> Result<Vec<Device>, RuntimeError> {
        let status = ask(guest, Client::status).await?;
        if status.devices.iter().any(|device| is_nameless(&device.name)) {
            return Err(failed(NAMELESS));
        }
        let device = |(at, device): (u8, &pilvi_vmm::control::DeviceStatus)| {
            let id = id_of(&device.name)?.to_owned();
            Some(Device { id, place: device.number.unwrap_or(at), bytes: device.bytes })
        };
        Ok((0..).zip(&status.devices).filter_map(device).collect())
    }

    async fn has(&self, guest: &Guest, id: &str) -> Result<Option<String>, RuntimeError> {
        let status = ask(guest, Client::status).await?;
        Ok(status.devices.into_iter().map(|device| device.name).find(|name| id_of(name) == Some(id)))
    }

    pub(super) async fn add_disk(&self, guest: &Guest, disk: MachineDisk) -> Result<(), RuntimeError> {
        if self.has(guest, &disk.id).await?.is_some() {
            return Ok(());
        }
        if disk.format != DiskFormat::Raw {
            return Err(RuntimeError::Unsupported(Kind::Kvm, "use overlays"));
        }
        let file = OpenOptions::new().read(true).write(!disk.read_only).open(&disk.path).map_err(io("disk"))?;
        let request = Request::AddDisk {
            read_only: disk.read_only,
            serial: disk.serial.chars().take(20).collect(),
            name: Some(disk_name(&disk.id)),
            export: None,
            vhost_user: false,
        };
        ask(guest, move |client| added(client.ask_with(&request, &[file.as_raw_fd()])?)).await
    }

    pub(super) async fn add_nic(&self, guest: &Guest, nic: MachineNic) -> Result<(), RuntimeError> {
        if self.has(guest, &nic.id).await?.is_some() {
            return Ok(());
        }
        // One queue for each card, as at a start.
        let tap = nic.taps.into_iter().next().ok_or_else(|| failed("a card needs a tap"))?;
        let mtu = if nic.mtu == 0 { 1500 } else { nic.mtu };
        let request = Request::AddNic { mac: nic.mac, mtu, name: Some(nic_name(&nic.id)), vhost_user: false };
        ask(guest, move |client| added(client.ask_with(&request, &[tap.as_raw_fd()])?)).await
    }

    pub(super) async fn take_out(&self, guest: &Guest, id: &str) -> Result<Leave, RuntimeError> {
        let Some(device) = self.has(guest, id).await? else { return Ok(Leave::Gone) };
        let removed = ask(guest, move |client| match client.done(&Request::Remove { device }) {
            // Whether it was not let go of yet or is used by a guest that does not listen: it is tried again.
            Err(ClientError::Refused(reason)) => Ok(Some(reason)),
            done => done.map(|()| None),
        });
        let Some(reason) = removed.await? else { return Ok(Leave::Gone) };
        match self.has(guest, id).await? {
            None => Ok(Leave::Gone),
            Some(_) if reason.contains("let go") => Ok(Leave::Asked),
            Some(_) => Err(failed(reason)),
        }
    }

    pub(super) async fn grow_disk(&self, guest: &Guest, id: &str, bytes: u64) -> Result<(), RuntimeError> {
        let device = disk_name(id);
        ask(guest, move |client| match client.ask(&Request::ResizeDisk { device, bytes: Some(bytes) })? {
            Reply::Resized { .. } => Ok(()),
            _ => Err(ClientError::Unexpected),
        })
        .await
    }
}

fn added(reply: Reply) -> Result<(), ClientError> {
    match reply {
        Reply::Added { .. } => Ok(()),
        _ => Err(ClientError::Unexpected),
    }
}
