//! The driver's part of guests that move into a newer program of their runtime, while they run.
//!
//! ```text
//!  observe: which program the guest is in, and which a start would take now
//!  another one, and an operator asks (a counter) or the host's settings say so --> Upgrade --> observe ...
//! ```
//! One guest of a host at a time. What does not work is no trouble of the instance, which runs on as it is: it is told beside
//! its program. By themselves guests are tried once for each newer program, and again after a while.
use super::Driver;
use super::machine::Taps;
use crate::config::Upgrade;
use crate::error::Trouble;
use crate::instance::plan::Due;
use crate::instance::plan::moving::Wish;
use crate::runtime::{Program, Run, Settled, places};
use pilvi_agent_api::v1::{Instance, ObservedInstance};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

/// How long it is believed that the program that is installed is what it was.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long one that did not move by itself is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(600);
/// How long images and ports that the new process needs may take.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What is known of the guest's program.
#[derive(Debug, Default)]
pub struct Upgrades {
    /// Of the process with this id, at this time.
    known: Option<(Option<Program>, u32, Instant)>,
    /// The newer program that was tried last, and when.
    tried: Option<(String, Instant)>,
    error: String,
    /// Held from when it is planned until it is done.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Upgrades {
    fn program(&self) -> Option<&Program> {
        self.known.as_ref()?.0.as_ref()
    }

    fn newer(&self) -> Option<&String> {
        self.program()?.newer.as_ref()
    }

    /// Puts what is known into the observation.
    pub fn tell(&self, seen: &mut ObservedInstance) {
        let Some(program) = self.program() else { return };
        seen.program.clone_from(&program.name);
        seen.newer_program = program.newer.clone().unwrap_or_default();
        seen.upgrade_error.clone_from(&self.error);
    }

    fn rests(&self) -> bool {
        self.tried.as_ref().is_some_and(|(to, at)| Some(to) == self.newer() && at.elapsed() < TRY_AGAIN)
    }
}

impl Driver {
    /// Looks which program the guest is in.
    pub(super) async fn observe_program(&mut self) {
        self.upgrades.turn = None;
        let runtime = self.runtime().filter(|_| matches!(self.last.run, Run::Running | Run::Paused));
        let Some(runtime) = runtime else {
            self.upgrades.known = None;
            return;
        };
        let pid = self.last.pid;
        if self.upgrades.known.as_ref().is_some_and(|(_, of, at)| *of == pid && at.elapsed() < LOOK_AGAIN) {
            return;
        }
        match runtime.program(&self.guest).await {
            Ok(program) => {
                if program.as_ref().is_none_or(|program| program.newer.is_none()) {
                    self.upgrades.error.clear();
                }
                self.upgrades.known = Some((program, pid, Instant::now()));
            }
            Err(error) => {
                tracing::debug!(instance = self.guest.id, %error, "the guest's program is not known");
                self.upgrades.known.take_if(|(_, of, _)| *of != pid);
            }
        }
    }

    /// Whether it is to move now. One that is planned has the host's turn.
    pub(super) fn upgrade_due(&mut self, wanted: &Instance) -> Due {
        let asked = wanted.upgrades > self.doc.done.upgrades;
        let due = match self.context.upgrade {
            Upgrade::Off => false,
            Upgrade::Asked => asked,
            Upgrade::On => asked || !self.upgrades.rests(),
        };
        if self.upgrades.newer().is_none() || !due {
            return Due::No;
        }
        if self.moves.wish.as_ref().is_some_and(|wish| *wish != Wish::Stay) || self.devices_open() {
            return Due::Later;
        }
        self.upgrades.turn = self.context.upgrading.clone().try_lock_owned().ok();
        if self.upgrades.turn.is_some() { Due::Now } else { Due::Later }
    }

    pub(super) async fn upgrade(&mut self, wanted: &Instance) -> Result<(), Trouble> {
        let to = self.upgrades.newer().cloned().unwrap_or_default();
        let moved = self.move_up(wanted).await;
        self.upgrades.turn = None;
        self.upgrades.known = None;
        self.upgrades.tried = Some((to.clone(), Instant::now()));
        match moved {
            Ok(()) => {
                tracing::info!(instance = self.guest.id, to, "the guest has moved into another program");
                self.upgrades.error.clear();
            }
            Err(trouble) => {
                tracing::warn!(instance = self.guest.id, to, %trouble, "the guest stays in its program");
                self.upgrades.error = trouble.text;
            }
        }
        let upgrades = wanted.upgrades;
        self.save(|doc| doc.done.upgrades = upgrades)
    }

    async fn move_up(&self, wanted: &Instance) -> Result<(), Trouble> {
        let runtime = self.needed()?;
        let places = places::of(&runtime.devices(&self.guest).await?);
        let machine = self.machine_with(wanted, runtime.kind(), places, Taps::Of(self.last.pid));
        let machine = tokio::time::timeout(READY_LIMIT, machine).await;
        let mut machine = machine.map_err(|_| "what the new process needs is not there")??;
        machine.restore = false;
        Ok(runtime.upgrade(&self.guest, machine).await?)
    }

    pub(super) async fn settle_upgrade(&mut self) -> Result<(), Trouble> {
        let settled = self.needed()?.settle_upgrade(&self.guest).await?;
        tracing::info!(instance = self.guest.id, ?settled, "an upgrade was settled");
        if settled == Settled::Stays {
            self.upgrades.error = "the host's agent was restarted".into();
        }
        Ok(())
    }
}
