//! A guest's state goes into a file, and comes out of it.
//!
//! ```text
//! suspend: stop -> migrate into saved-state.new -> rename to saved-state -> the process ends
//! start:   spawn with that file -> inmigrate -> loaded -> cont
//! ```
use super::moving::{MaybeSaid, give_up};
use super::qmp::Qmp;
use super::{Qemu, io};
use crate::runtime::{Guest, Runtime, RuntimeError};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// How long saving or loading a guest may take.
const STATE_LIMIT: Duration = Duration::from_secs(600);

impl Qemu {
    pub(super) async fn suspend_guest(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let qmp = self.here(guest).await?;
        // On its way to another host it cannot be written to a file.
        give_up(&qmp, MaybeSaid(true)).await?;
        qmp.execute("stop", json!({})).await?;
        // An agent that died in the middle may have left one under way.
        qmp.execute("migrate_cancel", json!({})).await?;
        let fresh = guest.dir.join("saved-state.new");
        self.save_state(&qmp, &fresh).await?;
        std::fs::rename(&fresh, guest.saved_state()).map_err(io("saved state"))?;
        self.kill(guest).await
    }

    /// Lets a guest go on that has been read from its saved state.
    pub(super) async fn loaded(&self, guest: &Guest) -> Result<(), RuntimeError> {
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
