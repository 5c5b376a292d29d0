//! QEMU as a runtime: firmware, foreign systems, and hosts whose KVM cannot run ordinary guests.
//!
//! ```text
//! start:   spawn (own session, no agent needed from here on) -> QMP answers -> running
//! powered off by the guest: QEMU stays, stopped (-no-shutdown), so that the agent sees why the
//!          guest ended even if it was away, and reads the rest of the console first
//! suspend: stop -> migrate into a file -> end;  start(restore) reads that file
//! ```
//! After a restart of the agent the process is recalled by its record and the control socket is
//! connected again. Console output waits in a ring inside QEMU and is fetched from there.
pub mod command;
mod qmp;

use super::{Guest, Kind, Machine, Run, Runtime, RuntimeError, Status};
use crate::{durable, process};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use command::Host;
use qmp::{Qmp, QmpError};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;

/// How long QEMU may take until its control socket answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long saving or loading a guest may take.
const STATE_LIMIT: Duration = Duration::from_secs(600);
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

/// The QEMU runtime.
#[derive(Debug)]
pub struct Qemu {
    host: Host,
    connections: std::sync::Mutex<HashMap<String, Slot>>,
}

impl Qemu {
    /// A runtime with these host decisions.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { host, connections: std::sync::Mutex::default() }
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
        // A path through the open folder is short, however deep the state directory lies.
        let folder = File::open(&guest.dir)?;
        let path = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), command::SOCKET);
        let qmp = Arc::new(Qmp::connect(&PathBuf::from(path)).await?);
        *held = Some(qmp.clone());
        Ok(qmp)
    }

    fn forget(&self, guest: &Guest) {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.remove(&guest.id);
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
            if process::recall(&guest.dir).is_none() {
                // Its exit status is written behind its last words.
                tokio::time::sleep(Duration::from_millis(100)).await;
                let said = process::output(&guest.dir);
                return Err(RuntimeError::Failed(format!("qemu ended: {said}")));
            }
        }
    }

    async fn spawn(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        self.forget(guest);
        durable::remove(&guest.dir.join(command::SOCKET)).map_err(io("old control socket"))?;
        let argv = command::arguments(&self.host, guest, &machine);
        let mut fds: Vec<OwnedFd> = Vec::new();
        if machine.restore {
            let state = File::open(guest.saved_state()).map_err(io("saved state"))?;
            fds.push(state.into());
        }
        fds.extend(machine.nics.into_iter().flat_map(|nic| nic.taps));
        process::spawn(&guest.dir, &argv, fds).map_err(io("qemu"))?;
        Ok(())
    }

    /// Lets a guest go on that has been read from its saved state.
    async fn loaded(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let deadline = tokio::time::Instant::now() + STATE_LIMIT;
        while self.answered(guest).await? == "inmigrate" {
            if tokio::time::Instant::now() > deadline {
                return Err(RuntimeError::Failed("reading the saved state took too long".into()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.resume(guest).await
    }

    async fn save_state(&self, qmp: &Qmp, fresh: &PathBuf) -> Result<(), RuntimeError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(fresh)
            .map_err(io("saved state"))?;
        let copy = file.try_clone().map_err(io("saved state"))?;
        qmp.give_fd("state", copy.into()).await?;
        // A file takes all that comes: the default limit for networks would only slow it.
        let fast = json!({"max-bandwidth": 1_u64 << 40});
        qmp.execute("migrate-set-parameters", fast).await?;
        qmp.execute("migrate", json!({"uri": "fd:state"})).await?;
        let deadline = tokio::time::Instant::now() + STATE_LIMIT;
        loop {
            let answer = qmp.execute("query-migrate", json!({})).await?;
            match answer.get("status").and_then(Value::as_str) {
                Some("completed") => break,
                Some("failed" | "cancelled") => {
                    let why = answer.get("error-desc").and_then(Value::as_str);
                    let why = why.unwrap_or("no reason given");
                    return Err(RuntimeError::Failed(format!("saving the guest: {why}")));
                }
                _ if tokio::time::Instant::now() > deadline => {
                    return Err(RuntimeError::Failed("saving the guest took too long".into()));
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        let synced = tokio::task::spawn_blocking(move || file.sync_all()).await;
        synced.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(io("saved state"))
    }
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
        let folder = guest.dir.clone();
        let found = tokio::task::spawn_blocking(move || process::find(&folder)).await;
        match found.ok().and_then(|found| found.into_iter().next()) {
            Some(found) => process::record(&guest.dir, &found).map_err(io("process record"))?,
            None => self.spawn(guest, machine).await?,
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
        let run = match state.as_str() {
            "shutdown" => Run::PoweredOff,
            "internal-error" => Run::Broken,
            "paused" | "prelaunch" | "postmigrate" | "finish-migrate" | "save-vm" | "io-error" => Run::Paused,
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
        durable::remove(&guest.dir.join(command::SOCKET)).map_err(io("control socket"))
    }

    async fn pause(&self, guest: &Guest) -> Result<(), RuntimeError> {
        self.qmp(guest).await?.execute("stop", json!({})).await?;
        Ok(())
    }

    async fn resume(&self, guest: &Guest) -> Result<(), RuntimeError> {
        self.qmp(guest).await?.execute("cont", json!({})).await?;
        Ok(())
    }

    async fn suspend(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let qmp = self.qmp(guest).await?;
        qmp.execute("stop", json!({})).await?;
        // An agent that died in the middle may have left one under way.
        qmp.execute("migrate_cancel", json!({})).await?;
        let fresh = guest.dir.join("saved-state.new");
        self.save_state(&qmp, &fresh).await?;
        std::fs::rename(&fresh, guest.saved_state()).map_err(io("saved state"))?;
        self.kill(guest).await
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
