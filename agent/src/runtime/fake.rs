//! A guest that is only a sleeping process: for simulated hosts and for tests of everything else.
//!
//! It is a real process with a real pid that outlives the agent, so all that is said of guests
//! (found again, never doubled, nothing left) can be shown with hundreds of them. Instance
//! properties make it fail in the ways real guests do:
//!
//! | property | effect |
//! | --- | --- |
//! | `fake:fail_start` | start fails with the value as its text |
//! | `fake:slow_ms` | start takes that long |
//! | `fake:power_off_ms` | the guest powers itself off after that time |
//! | `fake:crash_ms` | its process is gone after that time |
//! | `fake:deaf` | it does not power off when asked |
//! | `fake:move_ms` | a move to another host takes that long |
//! | `fake:clings` | it does not let go of disks and cards (all but those whose id the value is) |
mod devices;
mod moving;

use super::{Device, Guest, Kind, Leave, Machine, MachineDisk, MachineNic, Run, Runtime, RuntimeError, Status, Wires};
use crate::{durable, process};
use async_trait::async_trait;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The fake runtime.
#[derive(Debug, Default)]
pub struct Fake;

/// Longer than any test or demonstration, in seconds.
const FOREVER: &str = "2147483647";

fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> RuntimeError {
    move |e| RuntimeError::Io(what, e)
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since 1970 after which the guest counts as powered off; none when it crashes.
fn off_at(dir: &Path) -> Option<u64> {
    std::fs::read_to_string(dir.join("fake-off")).ok()?.parse().ok()
}

fn set_off_at(dir: &Path, at: Option<u64>) -> Result<(), RuntimeError> {
    let path = dir.join("fake-off");
    match at {
        Some(at) => durable::save_plain(&path, at.to_string().as_bytes()),
        None => durable::remove(&path),
    }
    .map_err(io("power-off mark"))
}

#[async_trait]
impl Runtime for Fake {
    fn kind(&self) -> Kind {
        Kind::Fake
    }

    async fn start(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        if let Some(found) = process::find(&guest.dir).first() {
            return process::record(&guest.dir, found).map_err(io("process record"));
        }
        let property = |name: &str| machine.properties.get(name);
        let millis = |name: &str| property(name).and_then(|text| text.parse::<u64>().ok());
        if let Some(text) = property("fake:fail_start") {
            return Err(RuntimeError::Failed(text.clone()));
        }
        if let Some(slow) = millis("fake:slow_ms") {
            tokio::time::sleep(Duration::from_millis(slow)).await;
        }
        if machine.restore && !guest.saved_state().exists() {
            return Err(RuntimeError::Failed("there is no saved state".into()));
        }
        let deaf = guest.dir.join("fake-deaf");
        match property("fake:deaf") {
            Some(_) => durable::save_plain(&deaf, b""),
            None => durable::remove(&deaf),
        }
        .map_err(io("deaf mark"))?;
        moving::set_slowness(&guest.dir, millis("fake:move_ms")).map_err(io("slowness"))?;
        devices::begin(&guest.dir, &machine)?;
        let power_off = millis("fake:power_off_ms");
        set_off_at(&guest.dir, power_off.map(|ms| now_ms() + ms))?;
        let life = power_off.or(millis("fake:crash_ms"));
        let life = life.map_or(FOREVER.into(), |ms| format!("{}.{:03}", ms / 1000, ms % 1000));
        process::spawn(&guest.dir, &["sleep".into(), life.into()], Vec::new()).map_err(io("sleep"))?;
        let line = if machine.restore { "fake guest resumed\n" } else { "fake guest started\n" };
        guest.console.append(line.as_bytes()).map_err(io("console log"))
    }

    async fn status(&self, guest: &Guest) -> Result<Status, RuntimeError> {
        let Some(found) = process::recall(&guest.dir) else {
            let off = off_at(&guest.dir).is_some_and(|at| at <= now_ms() + 5);
            let run = match off {
                _ if moving::has_moved(&guest.dir) => Run::Moved,
                true => Run::PoweredOff,
                false => Run::Absent,
            };
            return Ok(Status { run, pid: 0 });
        };
        if moving::is_awaited(&guest.dir) {
            return Ok(Status { run: Run::Arriving, pid: found.pid.unsigned_abs() });
        }
        let stopped = process::stat(found.pid).is_some_and(|s| s.state == 'T');
        Ok(Status { run: if stopped { Run::Paused } else { Run::Running }, pid: found.pid.unsigned_abs() })
    }

    async fn shutdown(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let Some(found) = process::recall(&guest.dir) else {
            return Ok(());
        };
        let paused = process::stat(found.pid).is_some_and(|s| s.state == 'T');
        if paused || guest.dir.join("fake-deaf").exists() {
            return Ok(());
        }
        set_off_at(&guest.dir, Some(now_ms()))?;
        found.signal(Signal::SIGTERM).map_err(io("signal"))
    }

    async fn kill(&self, guest: &Guest) -> Result<(), RuntimeError> {
        process::end(&guest.dir).await.map_err(io("kill"))?;
        moving::forget(&guest.dir).map_err(io("marks"))?;
        devices::forget(&guest.dir)?;
        set_off_at(&guest.dir, None)
    }

    async fn receive(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        moving::expect(&guest.dir)?;
        self.start(guest, machine).await
    }

    fn door(&self, guest: &Guest, name: &str) -> Option<PathBuf> {
        (name == "state").then(|| moving::door(&guest.dir))
    }

    async fn arrive(&self, guest: &Guest) -> Result<(), RuntimeError> {
        moving::arrive(guest).await
    }

    async fn send(&self, guest: &Guest, wires: &dyn Wires) -> Result<(), RuntimeError> {
        moving::send(guest, wires).await
    }

    async fn hurry_send(&self, guest: &Guest) -> Result<(), RuntimeError> {
        moving::set_slowness(&guest.dir, None).map_err(io("slowness"))
    }

    async fn cancel_send(&self, guest: &Guest) -> Result<(), RuntimeError> {
        // What an agent that was killed in between has stopped goes on.
        signal_and_see(guest, Signal::SIGCONT, false).await
    }

    async fn pause(&self, guest: &Guest) -> Result<(), RuntimeError> {
        signal_and_see(guest, Signal::SIGSTOP, true).await
    }

    async fn resume(&self, guest: &Guest) -> Result<(), RuntimeError> {
        signal_and_see(guest, Signal::SIGCONT, false).await
    }

    async fn suspend(&self, guest: &Guest) -> Result<(), RuntimeError> {
        if process::recall(&guest.dir).is_none() {
            return Err(RuntimeError::Failed("the guest does not run".into()));
        }
        durable::save_plain(&guest.saved_state(), b"fake").map_err(io("saved state"))?;
        self.kill(guest).await
    }

    async fn devices(&self, guest: &Guest) -> Result<Vec<Device>, RuntimeError> {
        devices::list(&guest.dir)
    }

    async fn plug_disk(
        &self,
        guest: &Guest,
        disk: MachineDisk,
        _properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let bytes = disk.path.metadata().map_err(io("disk"))?.len();
        devices::plug(&guest.dir, disk.id, Some(bytes))
    }

    async fn plug_nic(
        &self,
        guest: &Guest,
        nic: MachineNic,
        _properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        devices::plug(&guest.dir, nic.id, None)
    }

    async fn unplug(&self, guest: &Guest, id: &str) -> Result<Leave, RuntimeError> {
        devices::unplug(&guest.dir, id)
    }

    async fn resize_disk(&self, guest: &Guest, id: &str, bytes: u64) -> Result<(), RuntimeError> {
        devices::resize(&guest.dir, id, bytes)
    }

    async fn collect_console(&self, _guest: &Guest) -> Result<(), RuntimeError> {
        Ok(())
    }

    async fn diagnostics(&self, _guest: &Guest) -> Result<serde_json::Value, RuntimeError> {
        Ok(serde_json::json!({}))
    }

    async fn changed(&self, guest: &Guest) {
        let before = self.status(guest).await.ok();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.status(guest).await.ok() != before {
                return;
            }
        }
    }
}

/// Signals the process and waits until the kernel shows it stopped or not.
async fn signal_and_see(guest: &Guest, signal: Signal, want: bool) -> Result<(), RuntimeError> {
    let Some(found) = process::recall(&guest.dir) else {
        return Err(RuntimeError::Failed("the guest does not run".into()));
    };
    found.signal(signal).map_err(io("signal"))?;
    for _ in 0..200 {
        if process::stat(found.pid).is_none_or(|s| (s.state == 'T') == want) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(RuntimeError::Failed("the process did not take the signal".into()))
}
