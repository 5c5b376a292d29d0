//! Guests of pilvi-vmm on their way: to another host, or into a file and back.
//!
//! ```text
//!  receive  spawn with an incoming socket, mark "arriving" -> arrive: it answers, so it runs -> mark removed
//!  send     one stream with disks, memory and state; the VMM has the last word
//!  suspend  pause -> two files, the state's name comes last -> the process is ended
//! ```
//! A VMM that waits for its guest answers nobody: until then the mark says what its process is for.
use super::{Kvm, START_LIMIT, ask, ended, failed, io, report};
use crate::runtime::{Going, Gone, Guest, Machine, Run, Runtime, RuntimeError, Wires};
use crate::{durable, process};
use pilvi_vmm::control::{Client, Request};
use pilvi_vmm::migrate::wire::PAGE;
use pilvi_vmm::migrate::{ProgressStatus, Terms};
use pilvi_vmm::state::RunState;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the socket at which a guest comes in; relative, as the control socket.
pub(super) const INCOMING: &str = "incoming";
const ARRIVING: &str = "arriving";
const LOOK: Duration = Duration::from_millis(20);

/// Whether the process in this folder is there for a guest that has not come.
pub(super) fn is_awaited(dir: &Path) -> bool {
    dir.join(ARRIVING).exists()
}

/// What is left in the folder when the process is gone.
pub(super) fn forget(dir: &Path) -> std::io::Result<()> {
    [INCOMING, ARRIVING].iter().try_for_each(|name| durable::remove(&dir.join(name)))
}

/// The memory that belongs to a saved state.
pub(super) fn saved_memory(guest: &Guest) -> PathBuf {
    guest.saved_state().with_extension("memory")
}

/// The VMM counts pages of disks among those of memory, and knows what is left of the memory from its first pass on: disks go before.
fn gone(memory: u64, progress: &ProgressStatus) -> Going {
    let ProgressStatus { passes, pages, left, disk_bytes, disk_sent, disk_left, .. } = *progress;
    let remaining = if passes == 0 { memory } else { (left * PAGE).min(memory) };
    let processed = (pages * PAGE).saturating_sub(disk_sent);
    let disks = Gone { total: disk_bytes, processed: disk_sent, remaining: disk_left };
    Going { memory: Gone { total: memory, processed, remaining }, disks }
}

impl Kvm {
    pub(super) async fn begin_receiving(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        if is_awaited(&guest.dir)
            && let Some(found) = process::find(&guest.dir).into_iter().next()
        {
            return process::record(&guest.dir, &found).map_err(io("process record"));
        }
        self.kill(guest).await?;
        durable::save_plain(&guest.dir.join(ARRIVING), b"").map_err(io("mark"))?;
        self.spawn(guest, machine)?;
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        while !guest.dir.join(INCOMING).exists() {
            if process::recall(&guest.dir).is_none() || tokio::time::Instant::now() > deadline {
                return Err(failed(format!("pilvi-vmm does not wait for a guest: {}", process::output(&guest.dir))));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    pub(super) async fn await_arrival(&self, guest: &Guest) -> Result<(), RuntimeError> {
        loop {
            // Answered once the guest has come; each question waits for that as long as a client may.
            let state = ask(guest, Client::status).await.map(|status| status.state);
            if matches!(state, Ok(RunState::Running | RunState::Paused)) {
                return durable::remove(&guest.dir.join(ARRIVING)).map_err(io("mark"));
            }
            if process::recall(&guest.dir).is_none() {
                // One that has run and ended leaves a report.
                return match report(guest) {
                    Some(_) => durable::remove(&guest.dir.join(ARRIVING)).map_err(io("mark")),
                    None => Err(failed(format!("the guest did not arrive: {}", process::output(&guest.dir)))),
                };
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn send_away(&self, guest: &Guest, wires: &dyn Wires) -> Result<(), RuntimeError> {
        let stream = wires.open("state").await.map_err(io("the other host"))?;
        let sent = ask(guest, move |client| client.migrate_with_disks(stream.as_raw_fd(), Terms::default())).await;
        // The process goes with its guest; whoever asks next shall see that.
        for _ in 0..100 {
            if sent.is_err() || ended(guest) == Run::Moved {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        sent
    }

    pub(super) async fn how_far(&self, guest: &Guest) -> Result<Option<Going>, RuntimeError> {
        let status = ask(guest, Client::status).await?;
        Ok(status.migration.map(|progress| gone(u64::from(status.memory_mib) << 20, &progress)))
    }

    pub(super) async fn call_back(&self, guest: &Guest) -> Result<(), RuntimeError> {
        if ask(guest, Client::status).await?.migration.is_some() {
            // Refused when it has just ended: then there is nothing to give up.
            let _ = ask(guest, |client| client.done(&Request::CancelMigration {})).await;
        }
        Ok(())
    }

    pub(super) async fn save(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let (state, memory) = (guest.saved_state(), saved_memory(guest));
        let fresh = state.with_extension("new");
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path).map_err(io("saved state"))
        };
        let files: (File, File) = (open(&fresh)?, open(&memory)?);
        ask(guest, move |client| {
            client.pause()?;
            client.snapshot(&files.0, &files.1)
        })
        .await?;
        // The state under its name is the promise that both are whole.
        std::fs::rename(&fresh, &state).map_err(io("saved state"))?;
        File::open(&guest.dir).and_then(|folder| folder.sync_all()).map_err(io("saved state"))?;
        self.kill(guest).await
    }
}
