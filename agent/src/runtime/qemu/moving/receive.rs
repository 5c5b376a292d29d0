//! The side where a guest arrives.
//!
//! ```text
//! receive: spawn, waiting for the state -> disks served -> line of the word open        (arriving)
//! arrive:  state and word awaited -> told -> disks served no more -> cont -> "it runs"  (settled)
//!            '--- anything fails, or the line breaks before the word: the process is ended, it never ran
//! ```
//! QEMU binds the door of the state itself, before it changes to a user who cannot write to the folder. The door of the
//! disks is bound here and handed over. A later agent goes on from the notes in the folder.
use super::gate::Gate;
use super::{ARRIVING, DISKS_DOOR, LOOK, Stage, TOLD, clear, failed, listen};
use crate::process;
use crate::runtime::qemu::command::Begin;
use crate::runtime::qemu::device::PLACES;
use crate::runtime::qemu::qmp::{Qmp, QmpError};
use crate::runtime::qemu::{Qemu, found, io};
use crate::runtime::{Guest, Machine, Runtime, RuntimeError, places};
use serde_json::json;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long a guest whose state is there may wait for somebody who could say the word.
const LINE_LIMIT: Duration = Duration::from_secs(10);

impl Qemu {
    /// Starts a process that waits for the guest, or takes up the one that does.
    pub(in super::super) async fn receive_guest(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        let places = places::assign(&machine, PLACES).map_err(failed)?;
        let disks = machine.disks.iter().zip(places).filter(|(disk, _)| !disk.read_only);
        let disks: Vec<u8> = disks.map(|(_, place)| place).collect();
        match found(guest).await {
            Some(found) => process::record(&guest.dir, &found).map_err(io("process record"))?,
            None => self.spawn(guest, machine, Begin::Elsewhere)?,
        }
        let ready = async {
            if self.answered(guest).await? == "inmigrate" {
                self.open_doors(guest, &disks).await?;
            }
            Ok(())
        };
        let ready = ready.await;
        if ready.is_err() && Stage::of(guest) == Stage::Arriving {
            self.kill(guest).await?;
        }
        ready
    }

    async fn open_doors(&self, guest: &Guest, disks: &[u8]) -> Result<(), RuntimeError> {
        let qmp = self.qmp(guest).await?;
        let events = json!({"capabilities": [{"capability": "events", "state": true}]});
        qmp.execute("migrate-set-capabilities", events).await?;
        serve_disks(&qmp, guest, disks).await?;
        self.gate(guest).map(drop)
    }

    /// Where the word is awaited; opened when it is not.
    fn gate(&self, guest: &Guest) -> Result<Arc<Gate>, RuntimeError> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(&guest.id) {
            return Ok(gate.clone());
        }
        let gate = Arc::new(Gate::open(guest).map_err(io("door of the word"))?);
        gates.insert(guest.id.clone(), gate.clone());
        Ok(gate)
    }

    /// Waits for the guest and lets it run.
    pub(in super::super) async fn arrive_guest(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let stage = Stage::of(guest);
        if matches!(stage, Stage::Settled | Stage::Moved) {
            let there = process::recall(&guest.dir).is_some();
            return if there { Ok(()) } else { Err(failed("no process waits for the guest")) };
        }
        let gate = self.gate(guest)?;
        let mut may_have_run = stage == Stage::Told;
        let runs = async {
            if stage == Stage::Arriving {
                self.awaited(guest, &gate).await?;
                let note = std::fs::rename(guest.dir.join(ARRIVING), guest.dir.join(TOLD));
                note.map_err(io("note of an arrival"))?;
            }
            self.let_run(guest, &mut may_have_run).await
        };
        let runs = runs.await;
        if runs.is_ok() {
            gate.answer(true).await;
            self.shut(guest);
            return clear(guest).map_err(io("doors of an arrival"));
        }
        self.kill(guest).await?;
        if !may_have_run {
            gate.answer(false).await;
        }
        runs
    }

    /// Returns when the guest is all here, and was told to run here.
    async fn awaited(&self, guest: &Guest, gate: &Gate) -> Result<(), RuntimeError> {
        let mut word = std::pin::pin!(gate.word());
        let (mut said, mut all_here) = (false, None);
        loop {
            if self.state_of(guest).await? != "inmigrate" {
                let since = *all_here.get_or_insert_with(Instant::now);
                if said {
                    return Ok(());
                }
                if !gate.called() && since.elapsed() > LINE_LIMIT {
                    return Err(failed("the guest is here, but nobody can say whether it shall run here"));
                }
            }
            tokio::select! {
                heard = &mut word, if !said => {
                    heard.map_err(|e| failed(format!("the other host keeps the guest, or has lost it: {e}")))?;
                    said = true;
                }
                () = self.pulse(guest) => {}
            }
        }
    }

    /// What QEMU says that it does, for as long as its process lives.
    async fn state_of(&self, guest: &Guest) -> Result<String, RuntimeError> {
        loop {
            match self.run_state(guest).await {
                Ok(state) => return Ok(state),
                Err(error) => tracing::debug!(instance = guest.id, %error, "a guest that arrives"),
            }
            self.alive(guest).await?;
            tokio::time::sleep(LOOK / 5).await;
        }
    }

    async fn pulse(&self, guest: &Guest) {
        match self.qmp(guest).await {
            Ok(qmp) => qmp.event_within(LOOK).await,
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }

    /// Lets the guest go on; after an error `may_have_run` tells whether it may have for a moment.
    async fn let_run(&self, guest: &Guest, may_have_run: &mut bool) -> Result<(), RuntimeError> {
        loop {
            match self.state_of(guest).await?.as_str() {
                "inmigrate" => self.pulse(guest).await,
                "paused" | "prelaunch" => {
                    let gone_on = async {
                        let qmp = self.qmp(guest).await?;
                        // The guest's devices want the disks for themselves. Refused: there is no server any more.
                        match qmp.execute("nbd-server-stop", json!({})).await {
                            Ok(_) | Err(QmpError::Refused(..)) => {}
                            Err(error) => return Err(error),
                        }
                        qmp.execute("cont", json!({})).await
                    };
                    match gone_on.await {
                        Ok(_) => return Ok(()),
                        Err(error @ QmpError::Refused(..)) => return Err(error.into()),
                        Err(error) => {
                            *may_have_run = true;
                            tracing::warn!(instance = guest.id, %error, "a guest that shall run here");
                        }
                    }
                }
                // It runs, or it came here at its end.
                _ => return Ok(()),
            }
        }
    }

    /// Nobody says a word about the guest any more.
    pub(in super::super) fn shut(&self, guest: &Guest) {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).remove(&guest.id);
    }
}

/// Has QEMU serve these disks to the other host; does nothing when it does.
async fn serve_disks(qmp: &Qmp, guest: &Guest, disks: &[u8]) -> Result<(), RuntimeError> {
    let answer = qmp.execute("query-block-exports", json!({})).await?;
    let exported = answer.as_array().map_or(0, Vec::len);
    if exported == disks.len() {
        return Ok(());
    }
    if let Err(error @ (QmpError::Gone(_) | QmpError::Slow(_))) = qmp.execute("nbd-server-stop", json!({})).await {
        return Err(error.into());
    }
    let listener = listen(guest, DISKS_DOOR).map_err(io("door of the disks"))?;
    qmp.give_fd(DISKS_DOOR, listener.into()).await?;
    let address = json!({"addr": {"type": "fd", "data": {"str": DISKS_DOOR}}});
    qmp.execute("nbd-server-start", address).await?;
    for at in disks {
        let export = json!({
            "type": "nbd", "id": format!("disk{at}"), "name": format!("disk{at}"),
            "node-name": format!("node{at}"), "writable": true,
        });
        qmp.execute("block-export-add", export).await?;
    }
    Ok(())
}
