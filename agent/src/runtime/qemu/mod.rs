//! QEMU as a runtime: firmware, foreign systems, and hosts whose KVM cannot run ordinary guests.
//!
//! ```text
//! start:   spawn (own session, no agent needed from here on) -> QMP answers -> running
//! powered off by the guest: QEMU stays, stopped (-no-shutdown), so that the agent sees why the
//!          guest ended even if it was away, and reads the rest of the console first
//! suspend: stop -> migrate into a file -> end;  start(restore) reads that file
//! send:    running -> Moved, receive: Arriving -> running: moving/
//! ```
//! After a restart of the agent the process is recalled by its record and the control socket is
//! connected again. Console output waits in a ring inside QEMU and is fetched from there.
pub mod command;
mod device;
mod moving;
mod plug;
mod qmp;
mod saving;

use super::{
    Device, Going, Guest, Kind, Leave, Machine, MachineDisk, MachineNic, Run, Runtime, RuntimeError, Status, Wires,
};
use crate::socket::Short;
use crate::{durable, process};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use command::{Begin, Host};
use moving::{Gate, Stage};
use qmp::{Qmp, QmpError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// How long QEMU may take until its control socket answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a process that no longer answers may take to be gone: looks, and the time between them.
const DYING_LOOKS: u32 = 25;
const DYING_LOOK: Duration = Duration::from_millis(20);

impl From<QmpError> for RuntimeError {
    fn from(error: QmpError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> RuntimeError {
    move |e| RuntimeError::Io(what, e)
}

/// One guest's connection: connecting to one that hangs must not hold up the others.
type Slot = Arc<Mutex<Option<Arc<Qmp>>>>;

/// One guest's way to another host: held while it is sent, and what stops that.
type Way = (Arc<Mutex<()>>, CancellationToken);

/// The QEMU runtime.
#[derive(Debug)]
pub struct Qemu {
    host: Host,
    connections: std::sync::Mutex<HashMap<String, Slot>>,
    /// Where guests that arrive are told to run.
    gates: std::sync::Mutex<HashMap<String, Arc<Gate>>>,
    ways: std::sync::Mutex<HashMap<String, Way>>,
}

impl Qemu {
    /// A runtime with these host decisions.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self {
            host,
            connections: std::sync::Mutex::default(),
            gates: std::sync::Mutex::default(),
            ways: std::sync::Mutex::default(),
        }
    }

    fn slot(&self, guest: &Guest) -> Slot {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.entry(guest.id.clone()).or_default().clone()
    }

    /// The connection to a guest's QEMU, made when there is none.
    async fn qmp(&self, guest: &Guest) -> Result<Arc<Qmp>, QmpError> {
        let slot = self.slot(guest);
        let mut held = slot.lock().await;
        if let Some(qmp) = held.as_ref().filter(|qmp| qmp.open()) {
            return Ok(qmp.clone());
        }
        *held = None;
        let socket = Short::to(&guest.dir, command::SOCKET)?;
        let qmp = Arc::new(Qmp::connect(&socket.path()).await?);
        *held = Some(qmp.clone());
        Ok(qmp)
    }

    fn forget(&self, guest: &Guest) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.remove(&guest.id);
    }

    /// The connection to a guest that runs here, or would, rather than one that arrives or is gone.
    async fn here(&self, guest: &Guest) -> Result<Arc<Qmp>, RuntimeError> {
        match Stage::of(guest) {
            Stage::Arriving => Err(RuntimeError::Failed("the guest has not arrived from another host".into())),
            Stage::Moved => Err(RuntimeError::Failed("the guest has moved to another host".into())),
            Stage::Settled | Stage::Told => Ok(self.qmp(guest).await?),
        }
    }

    async fn run_state(&self, guest: &Guest) -> Result<String, QmpError> {
        let qmp = self.qmp(guest).await?;
        let answer = qmp.execute("query-status", json!({})).await?;
        let status = answer.get("status").and_then(Value::as_str);
        Ok(status.unwrap_or_default().to_owned())
    }

    /// Waits until the control socket answers.
    async fn answered(&self, guest: &Guest) -> Result<String, RuntimeError> {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            match self.run_state(guest).await {
                Ok(state) => return Ok(state),
                Err(error) if tokio::time::Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            self.alive(guest).await?;
        }
    }

    /// An error that says why when the process has ended.
    async fn alive(&self, guest: &Guest) -> Result<(), RuntimeError> {
        if process::recall(&guest.dir).is_some() {
            return Ok(());
        }
        // Its exit status is written behind its last words.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let said = process::output(&guest.dir);
        Err(RuntimeError::Failed(format!("qemu ended: {said}")))
    }

    fn spawn(&self, guest: &Guest, machine: Machine, begin: Begin) -> Result<(), RuntimeError> {
        self.forget(guest);
        durable::remove(&guest.dir.join(command::SOCKET)).map_err(io("old control socket"))?;
        moving::clear(guest).map_err(io("old move"))?;
        let argv = command::arguments(&self.host, guest, &machine, begin).map_err(RuntimeError::Failed)?;
        let mut fds: Vec<OwnedFd> = Vec::new();
        if begin == Begin::Elsewhere {
            moving::note_arriving(guest).map_err(io("note of an arrival"))?;
        } else if begin == Begin::Saved {
            let state = File::open(guest.saved_state()).map_err(io("saved state"))?;
            fds.push(state.into());
        }
        fds.extend(machine.nics.into_iter().flat_map(|nic| nic.taps));
        process::spawn(&guest.dir, &argv, fds).map_err(io("qemu"))?;
        Ok(())
    }
}

/// The guest's process, recorded or not.
async fn found(guest: &Guest) -> Option<process::Identity> {
    let folder = guest.dir.clone();
    let found = tokio::task::spawn_blocking(move || process::find(&folder)).await;
    found.ok().and_then(|found| found.into_iter().next())
}

/// Is the process gone, or about to be?
async fn ends_soon(found: &process::Identity) -> bool {
    for _ in 0..DYING_LOOKS {
        if !found.alive() {
            return true;
        }
        tokio::time::sleep(DYING_LOOK).await;
    }
    !found.alive()
}

#[async_trait]
impl Runtime for Qemu {
    fn kind(&self) -> Kind {
        Kind::Qemu
    }

    async fn start(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        let restore = machine.restore;
        match found(guest).await {
            Some(found) => {
                process::record(&guest.dir, &found).map_err(io("process record"))?;
                self.here(guest).await?;
            }
            None => self.spawn(guest, machine, if restore { Begin::Saved } else { Begin::Fresh })?,
        }
        let started = async {
            self.answered(guest).await?;
            if restore { self.loaded(guest).await } else { Ok(()) }
        };
        let started = started.await;
        if started.is_err() {
            // A half-started QEMU would hold the disks.
            self.kill(guest).await?;
        }
        started
    }

    async fn status(&self, guest: &Guest) -> Result<Status, RuntimeError> {
        let Some(found) = process::recall(&guest.dir) else {
            self.forget(guest);
            return Ok(Status::default());
        };
        let state = match self.run_state(guest).await {
            Ok(state) => state,
            // It may have ended between the two looks; a dying process closes its socket before it is gone.
            Err(error) => {
                return if ends_soon(&found).await { Ok(Status::default()) } else { Err(error.into()) };
            }
        };
        let run = match (state.as_str(), Stage::of(guest)) {
            (_, Stage::Moved) => Run::Moved,
            // Between its last instruction and the note that it has arrived.
            ("running", _) => Run::Running,
            (_, Stage::Arriving | Stage::Told) => Run::Arriving,
            ("shutdown", _) => Run::PoweredOff,
            ("internal-error", _) => Run::Broken,
            // At the end of a send it stands still for a moment, which is nobody's wish.
            ("postmigrate", _) if self.on_its_way(guest) => Run::Running,
            ("finish-migrate", _) if moving::sending(&*self.qmp(guest).await?).await? => Run::Running,
            ("paused" | "prelaunch" | "postmigrate" | "finish-migrate" | "save-vm" | "io-error", _) => Run::Paused,
            _ => Run::Running,
        };
        Ok(Status { run, pid: found.pid.unsigned_abs() })
    }

    async fn shutdown(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let qmp = self.qmp(guest).await?;
        qmp.execute("system_powerdown", json!({})).await?;
        Ok(())
    }

    async fn kill(&self, guest: &Guest) -> Result<(), RuntimeError> {
        if process::recall(&guest.dir).is_some() {
            // What the guest said last is what its owner wants to read.
            if let Err(error) = self.collect_console(guest).await {
                tracing::debug!(instance = guest.id, %error, "last console output");
            }
        }
        process::end(&guest.dir).await.map_err(io("kill"))?;
        self.forget(guest);
        self.shut(guest);
        self.new_way(guest);
        moving::clear(guest).map_err(io("doors of a move"))?;
        durable::remove(&guest.dir.join(command::SOCKET)).map_err(io("control socket"))
    }

    async fn pause(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let qmp = self.here(guest).await?;
        if Stage::of(guest) == Stage::Told && self.run_state(guest).await? == "running" {
            // An agent ended between letting it run and forgetting that it came.
            moving::clear(guest).map_err(io("doors of an arrival"))?;
        }
        // It would arrive running: that it was paused does not go with it.
        if moving::sending(&qmp).await? && self.run_state(guest).await? != "postmigrate" {
            return Err(RuntimeError::Failed("the guest is on its way to another host".into()));
        }
        qmp.execute("stop", json!({})).await?;
        Ok(())
    }

    async fn resume(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let qmp = self.here(guest).await?;
        let sent = self.run_state(guest).await? == "postmigrate";
        qmp.execute("cont", json!({})).await?;
        if sent {
            moving::settle(&qmp).await?;
        }
        Ok(())
    }

    async fn suspend(&self, guest: &Guest) -> Result<(), RuntimeError> {
        self.suspend_guest(guest).await
    }

    async fn receive(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        self.receive_guest(guest, machine).await
    }

    fn door(&self, guest: &Guest, name: &str) -> Option<PathBuf> {
        moving::door(guest, name)
    }

    async fn arrive(&self, guest: &Guest) -> Result<(), RuntimeError> {
        self.arrive_guest(guest).await
    }

    async fn send(&self, guest: &Guest, wires: &dyn Wires) -> Result<(), RuntimeError> {
        self.send_guest(guest, wires).await
    }

    async fn going(&self, guest: &Guest) -> Result<Option<Going>, RuntimeError> {
        if Stage::of(guest) == Stage::Moved {
            return Ok(None);
        }
        moving::going(&*self.qmp(guest).await?).await
    }

    async fn hurry_send(&self, guest: &Guest) -> Result<(), RuntimeError> {
        moving::hurry(&*self.qmp(guest).await?).await
    }

    async fn cancel_send(&self, guest: &Guest) -> Result<(), RuntimeError> {
        self.cancel_guest(guest).await
    }

    async fn devices(&self, guest: &Guest) -> Result<Vec<Device>, RuntimeError> {
        self.list_devices(guest).await
    }

    async fn plug_disk(
        &self,
        guest: &Guest,
        disk: MachineDisk,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        self.add_disk(guest, &disk, properties).await
    }

    async fn plug_nic(
        &self,
        guest: &Guest,
        nic: MachineNic,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        self.add_nic(guest, nic, properties).await
    }

    async fn unplug(&self, guest: &Guest, id: &str) -> Result<Leave, RuntimeError> {
        self.take_out(guest, id).await
    }

    async fn resize_disk(&self, guest: &Guest, id: &str, bytes: u64) -> Result<(), RuntimeError> {
        self.grow_disk(guest, id, bytes).await
    }

    async fn collect_console(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let qmp = self.qmp(guest).await?;
        loop {
            let ask = json!({"device": "console", "size": 64 << 10, "format": "base64"});
            let answer = qmp.execute("ringbuf-read", ask).await?;
            let text = answer.as_str().unwrap_or_default();
            let bytes = STANDARD.decode(text).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            guest.console.append(&bytes).map_err(io("console log"))?;
        }
    }

    async fn diagnostics(&self, guest: &Guest) -> Result<Value, RuntimeError> {
        let qmp = self.qmp(guest).await?;
        let disks = qmp.execute("query-blockstats", json!({})).await?;
        let disks: Vec<Value> = disks
            .as_array()
            .into_iter()
            .flatten()
            .map(|disk| {
                let stats = &disk["stats"];
                json!({
                    "read_bytes": stats["rd_bytes"], "read_requests": stats["rd_operations"],
                    "write_bytes": stats["wr_bytes"], "write_requests": stats["wr_operations"],
                })
            })
            .collect();
        Ok(json!({"disk_details": disks, "accelerator": if self.host.kvm { "kvm" } else { "tcg" }}))
    }

    async fn changed(&self, guest: &Guest) {
        match self.qmp(guest).await {
            Ok(qmp) => qmp.event().await,
            Err(_) => std::future::pending().await,
        }
    }
}
