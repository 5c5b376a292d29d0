//! Disks and cards that come to and go from a running QEMU.
//!
//! ```text
//!  plug    what is left of a former one on that place is cleared -> descriptor given -> backend added -> device added
//!  unplug  device_del -> the guest lets go, the device is gone -> backend removed
//!            '---- LET_GO_WAIT: it has not; it still may, and is asked again by the next call
//! ```
//! Files and taps come as descriptors: QEMU itself has given up the right to open them. Nothing is kept here: which devices
//! there are QEMU says, and their names tell ids and places ([`super::device`]).
use super::device::{self, Board, Kind, PLACES};
use super::moving::sending;
use super::qmp::{Qmp, QmpError};
use super::{Qemu, io};
use crate::runtime::{Device, DiskFormat, Guest, Leave, MachineDisk, MachineNic, NAMELESS, RuntimeError, places};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::time::{Duration, Instant};

/// How long somebody waits for a guest to let go of a device. QEMU forgets five seconds after it was asked.
const LET_GO_WAIT: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(100);

/// A device and what it is.
type Found = (Kind, u8, String);

impl Qemu {
    pub(super) async fn list_devices(&self, guest: &Guest) -> Result<Vec<Device>, RuntimeError> {
        let qmp = self.here(guest).await?;
        let found = peripherals(&qmp).await?.0;
        let answer = qmp.execute("query-named-block-nodes", json!({ "flat": true })).await?;
        let length =
            |node: &Value| Some((node["node-name"].as_str()?.to_owned(), node["image"]["virtual-size"].as_u64()?));
        let lengths: BTreeMap<String, u64> = answer.as_array().into_iter().flatten().filter_map(length).collect();
        let device = |(kind, place, id): Found| {
            let bytes = lengths.get(&device::node_name(place)).copied().filter(|_| kind == Kind::Disk);
            Device { id, place, bytes }
        };
        Ok(found.into_iter().map(device).collect())
    }

    pub(super) async fn add_disk(
        &self,
        guest: &Guest,
        disk: &MachineDisk,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let Some((qmp, board, place)) = self.room_for(guest, &disk.id).await? else { return Ok(()) };
        if disk.format != DiskFormat::Raw {
            return Err(RuntimeError::Failed("only raw files come to a running guest".into()));
        }
        let file = OpenOptions::new().read(true).write(!disk.read_only).open(&disk.path).map_err(io("disk"))?;
        qmp.give_set(place, file.into()).await?;
        let node = device::node(place, disk, &format!("/dev/fdset/{place}"));
        let added = async {
            qmp.execute("blockdev-add", node).await?;
            qmp.execute("device_add", device::disk(board, place, disk, properties, None)).await
        };
        self.added(&qmp, place, added.await).await
    }

    pub(super) async fn add_nic(
        &self,
        guest: &Guest,
        nic: MachineNic,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let Some((qmp, board, place)) = self.room_for(guest, &nic.id).await? else { return Ok(()) };
        let device = device::nic(board, place, &nic, properties);
        let mut names = Vec::new();
        for (queue, tap) in nic.taps.into_iter().enumerate() {
            let name = format!("tap{place}.{queue}");
            qmp.give_fd(&name, tap).await?;
            names.push(name);
        }
        let added = async {
            if !names.is_empty() {
                let word = if names.len() == 1 { "fd" } else { "fds" };
                let id = device::net_name(place);
                let net = json!({"type": "tap", "id": id, word: names.join(":"), "vhost": false});
                qmp.execute("netdev_add", net).await?;
            }
            qmp.execute("device_add", device).await
        };
        self.added(&qmp, place, added.await).await
    }

    /// Where a device of this id can go; none when it is there already.
    async fn room_for(
        &self,
        guest: &Guest,
        id: &str,
    ) -> Result<Option<(std::sync::Arc<Qmp>, Board, u8)>, RuntimeError> {
        let qmp = self.here(guest).await?;
        if sending(&qmp).await? {
            return Err(RuntimeError::Failed("the guest is on its way to another host".into()));
        }
        let (found, board) = peripherals(&qmp).await?;
        if found.iter().any(|(_, _, other)| other == id) {
            return Ok(None);
        }
        let taken: BTreeSet<u8> = found.iter().map(|(_, place, _)| *place).collect();
        let place = places::free(&taken, PLACES);
        let place = place.ok_or_else(|| RuntimeError::Failed("the machine has no room for another device".into()))?;
        clear(&qmp, place).await?;
        Ok(Some((qmp, board, place)))
    }

    /// What could not be added whole leaves nothing.
    async fn added(&self, qmp: &Qmp, place: u8, added: Result<Value, QmpError>) -> Result<(), RuntimeError> {
        if let Err(error) = added {
            clear(qmp, place).await?;
            return Err(error.into());
        }
        Ok(())
    }

    pub(super) async fn take_out(&self, guest: &Guest, id: &str) -> Result<Leave, RuntimeError> {
        let qmp = self.here(guest).await?;
        let Some((kind, place, _)) = find(&qmp, id).await? else { return Ok(Leave::Gone) };
        match qmp.execute("device_del", json!({"id": device::name(kind, place, id)})).await {
            Ok(_) => {}
            Err(QmpError::Refused(_, reason)) if reason.contains("in the process of unplug") => {}
            // It went in this moment.
            Err(QmpError::Refused(..)) if find(&qmp, id).await?.is_none() => {}
            Err(error) => return Err(error.into()),
        }
        let end = Instant::now() + LET_GO_WAIT;
        while find(&qmp, id).await?.is_some() {
            if Instant::now() > end {
                return Ok(Leave::Asked);
            }
            qmp.event_within(LOOK).await;
        }
        clear(&qmp, place).await?;
        Ok(Leave::Gone)
    }

    pub(super) async fn grow_disk(&self, guest: &Guest, id: &str, bytes: u64) -> Result<(), RuntimeError> {
        let qmp = self.here(guest).await?;
        let Some((Kind::Disk, place, _)) = find(&qmp, id).await? else {
            return Err(RuntimeError::Failed(format!("the machine has no disk {id}")));
        };
        let node = json!({"node-name": device::node_name(place), "size": bytes});
        qmp.execute("block_resize", node).await?;
        Ok(())
    }
}

/// The disks and cards that there are, and on which board.
async fn peripherals(qmp: &Qmp) -> Result<(Vec<Found>, Board), RuntimeError> {
    let answer = qmp.execute("qom-list", json!({"path": "/machine/peripheral"})).await?;
    let names: Vec<&str> = answer.as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect();
    if names.iter().any(|name| device::is_nameless(name)) {
        return Err(RuntimeError::Failed(NAMELESS.into()));
    }
    let board = if names.contains(&device::port_name(0).as_str()) { Board::Q35 } else { Board::Pc };
    let found = names.into_iter().filter_map(device::parse);
    Ok((found.map(|(kind, place, id)| (kind, place, id.to_owned())).collect(), board))
}

async fn find(qmp: &Qmp, id: &str) -> Result<Option<Found>, RuntimeError> {
    Ok(peripherals(qmp).await?.0.into_iter().find(|(_, _, other)| other == id))
}

/// Removes what is behind a place on which no device is; a refusal means that there is nothing.
async fn clear(qmp: &Qmp, place: u8) -> Result<(), QmpError> {
    let steps = [
        ("blockdev-del", json!({"node-name": device::node_name(place)})),
        ("netdev_del", json!({"id": device::net_name(place)})),
        ("remove-fd", json!({"fdset-id": place})),
    ];
    let end = Instant::now() + LET_GO_WAIT;
    for (step, arguments) in steps {
        loop {
            match qmp.execute(step, arguments.clone()).await {
                // A device loses its name a moment before it lets go of what is behind it.
                Err(QmpError::Refused(_, reason)) if reason.contains("in use") && Instant::now() < end => {
                    tokio::time::sleep(LOOK).await;
                }
                Ok(_) | Err(QmpError::Refused(..)) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
