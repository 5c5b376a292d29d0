//! Disks and cards of a fake guest: a list in its folder, as long as its process is meant to be.
use super::io;
use crate::durable;
use crate::runtime::{Device, Leave, Machine, RuntimeError, places};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

const FILE: &str = "fake-devices";
const PLACES: u8 = 64;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    devices: Vec<(String, u8, Option<u64>)>,
    /// It does not let go of anything but this one.
    clings: Option<String>,
}

fn load(dir: &Path) -> Result<Kept, RuntimeError> {
    match std::fs::read(dir.join(FILE)) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| RuntimeError::Failed(e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(e) => Err(io("list of devices")(e)),
    }
}

fn store(dir: &Path, kept: &Kept) -> Result<(), RuntimeError> {
    let text = serde_json::to_vec(kept).map_err(|e| RuntimeError::Failed(e.to_string()))?;
    durable::save_plain(&dir.join(FILE), &text).map_err(io("list of devices"))
}

pub(super) fn begin(dir: &Path, machine: &Machine) -> Result<(), RuntimeError> {
    let places = places::assign(machine, PLACES).map_err(RuntimeError::Failed)?;
    let disks = machine.disks.iter().map(|disk| (&disk.id, disk.path.metadata().ok().map(|meta| meta.len())));
    let all = disks.chain(machine.nics.iter().map(|nic| (&nic.id, None)));
    let devices = all.zip(places).map(|((id, bytes), place)| (id.clone(), place, bytes)).collect();
    store(dir, &Kept { devices, clings: machine.properties.get("fake:clings").cloned() })
}

pub(super) fn forget(dir: &Path) -> Result<(), RuntimeError> {
    durable::remove(&dir.join(FILE)).map_err(io("list of devices"))
}

pub(super) fn list(dir: &Path) -> Result<Vec<Device>, RuntimeError> {
    let device = |(id, place, bytes)| Device { id, place, bytes };
    Ok(load(dir)?.devices.into_iter().map(device).collect())
}

pub(super) fn plug(dir: &Path, id: String, bytes: Option<u64>) -> Result<(), RuntimeError> {
    let mut kept = load(dir)?;
    if kept.devices.iter().any(|(other, ..)| *other == id) {
        return Ok(());
    }
    let taken: BTreeSet<u8> = kept.devices.iter().map(|(_, place, _)| *place).collect();
    let place = places::free(&taken, PLACES).ok_or_else(|| RuntimeError::Failed("no place is free".into()))?;
    kept.devices.push((id, place, bytes));
    store(dir, &kept)
}

pub(super) fn unplug(dir: &Path, id: &str) -> Result<Leave, RuntimeError> {
    let mut kept = load(dir)?;
    let there = kept.devices.iter().any(|(other, ..)| other == id);
    if there && kept.clings.as_ref().is_some_and(|but| but != id) {
        return Ok(Leave::Asked);
    }
    kept.devices.retain(|(other, ..)| other != id);
    store(dir, &kept)?;
    Ok(Leave::Gone)
}

pub(super) fn resize(dir: &Path, id: &str, bytes: u64) -> Result<(), RuntimeError> {
    let mut kept = load(dir)?;
    let disk = kept.devices.iter_mut().find(|(other, ..)| other == id);
    disk.ok_or_else(|| RuntimeError::Failed(format!("the machine has no disk {id}")))?.2 = Some(bytes);
    store(dir, &kept)
}
