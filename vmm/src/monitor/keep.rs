//! Snapshots and migrations: what takes longer than an answer may is done by a job, and the client hears when it is done.
//!
//! ```text
//!   snapshot   paused ── state taken here ─► job writes memory and state ─► answer
//!   migrate    running ─► job: passes ─► pause, state taken here ─► job: hands over ─┬─► moved: this process ends
//!                                                                                   ├─► failed: goes on
//!                                                                                   ├─► unknown: stays paused
//!                                                                                   └─► torn: stays paused, keeps what
//!                                                                                       is missing there ─► reconnect
//! ```

use super::answer::refused;
use super::{JOB, Monitor, watch};
use crate::control::Reply;
use crate::job::{Job, Outcome, Torn};
use crate::journal;
use crate::machine::Machine;
use crate::memory;
use crate::migrate::send::{Handover, Sending, Source};
use crate::migrate::{MigrateError, Progress, Terms};
use crate::snapshot::{self, Snapshot, SnapshotError};
use crate::state::{RunState, StopReason};

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vmm_sys_util::epoll::{ControlOperation, EpollEvent};

impl Monitor {
    pub(super) fn snapshot(&mut self, key: u64) -> Option<Reply> {
        let files = <[std::fs::File; 2]>::try_from(self.server.take_files(key));
        let Ok([state_file, memory_file]) = files else {
            return Some(refused("a snapshot needs two open files with the request: state, memory"));
        };
        let machine = match &self.machine {
            Some(machine) if self.state == RunState::Paused => machine,
            _ => return Some(refused("only a paused machine can be written down: pause it first")),
        };
        if self.job.is_some() {
            return Some(refused("a snapshot or a migration is under way"));
        }
        if let Some(reply) = self.refused_for_debugger() {
            return Some(reply);
        }
        let state = match machine.capture(&self.parts.kvm, &self.config) {
            Ok(state) => state,
            Err(e) => return Some(refused(&e.to_string())),
        };
        let (memory, hot) = (machine.memory.clone(), machine.hot.clone());
        let job = Job::start(&self.threads, "snapshot", key, machine.stop.clone(), move |cancelled| {
            let digest = snapshot::memory::write(&memory, hot.as_deref(), &memory_file, cancelled)?;
            snapshot::file::write(&state_file, &Snapshot { machine: state, memory: digest })?;
            Ok::<_, SnapshotError>(Outcome::Written)
        });
        self.keep_job(job)
    }

    /// Memory goes over as it is, to a process on this host.
    pub(super) fn hand_over_all(&mut self, key: u64) -> Option<Reply> {
        let shared = self.machine.as_ref().is_some_and(|machine| memory::is_shared(&machine.memory));
        if !shared {
            return Some(refused("its memory is not shared (`shared_memory` in the configuration): migrate it"));
        }
        self.leave(key, Terms::default(), false, true)
    }

    pub(super) fn migrate(&mut self, key: u64, terms: Terms, disks: bool) -> Option<Reply> {
        self.leave(key, terms, disks, false)
    }

    fn leave(&mut self, key: u64, terms: Terms, disks: bool, handed: bool) -> Option<Reply> {
        let Ok([stream]) = <[std::fs::File; 1]>::try_from(self.server.take_files(key)) else {
            return Some(refused("a migration needs one connected stream with the request"));
        };
        let machine = match &self.machine {
            Some(machine) if self.state == RunState::Running => machine,
            _ => return Some(refused("only a running machine can move: resume it first")),
        };
        if self.job.is_some() {
            return Some(refused("a snapshot or a migration is under way"));
        }
        if let Some(reply) = self.refused_for_debugger() {
            return Some(reply);
        }
        if let Some(reason) = machine.slots().iter().find_map(|slot| slot.can_move().err()) {
            return Some(refused(&reason));
        }
        let disks = match disks.then(|| self.parts.leave_disks(&self.config)).transpose() {
            Ok(disks) => disks,
            Err(e) => return Some(refused(&format!("the disks cannot be read: {e}"))),
        };
        if !handed && let Err(e) = machine.log_writes(true) {
            return Some(refused(&e.to_string()));
        }
        let logs = match machine.slots().iter().map(|slot| slot.log_writes(true)).collect::<Result<Vec<_>, _>>() {
            Ok(logs) => logs.into_iter().flatten().collect(),
            Err(reason) => {
                self.stay();
                return Some(refused(&reason));
            }
        };
        let progress = Arc::new(Progress::default());
        let source = Source {
            id: self.config.id.clone(),
            memory: machine.memory.clone(),
            hot: machine.hot.clone(),
            vm: machine.vm.clone(),
            throttle: machine.throttle.clone(),
            logs,
        };
        let sending = Sending::new(stream, source, terms, progress.clone());
        let mut sending = match sending {
            Ok(sending) => sending,
            Err(e) => return Some(refused(&format!("the stream cannot be used: {e}"))),
        };
        if let Some(disks) = disks {
            sending.take_along(disks);
        }
        if handed {
            sending.hand();
        }
        self.progress = Some(progress);
        let job = Job::start(&self.threads, "migrate", key, machine.stop.clone(), move |cancelled| {
            sending.pre_copy(cancelled).map(|()| Outcome::PreCopied(Box::new(sending)))
        });
        self.keep_job(job)
    }

    pub(super) fn cancel_migration(&mut self) -> Reply {
        match &self.job {
            Some(_) if self.progress.as_ref().is_some_and(|progress| progress.told.load(Ordering::Acquire)) => {
                refused("the target has been told to run the machine")
            }
            Some(job) if self.progress.is_some() => {
                job.cancel();
                Reply::Done
            }
            _ => refused("no migration is under way"),
        }
    }

    pub(super) fn hurry_migration(&mut self) -> Reply {
        match &self.progress {
            Some(progress) => {
                progress.hurry.store(true, Ordering::Release);
                Reply::Done
            }
            None => refused("no migration is under way"),
        }
    }

    /// The machine shall run there before all of its memory has come.
    pub(super) fn postcopy_migration(&mut self) -> Reply {
        match &self.progress {
            Some(progress) if progress.can_post_copy.load(Ordering::Acquire) => {
                progress.post_copy.store(true, Ordering::Release);
                Reply::Done
            }
            Some(_) => refused("this migration's terms or its target do not allow it, or it is too late for that"),
            None => refused("no migration is under way"),
        }
    }

    /// Another stream for a machine that is on both sides.
    pub(super) fn reconnect_migration(&mut self, key: u64) -> Option<Reply> {
        let Ok([stream]) = <[std::fs::File; 1]>::try_from(self.server.take_files(key)) else {
            return Some(refused("it needs one connected stream with the request"));
        };
        let (Some(machine), Some(mut torn)) = (&self.machine, self.torn.take()) else {
            return Some(refused("no migration has lost its stream after the target was told to run the machine"));
        };
        if let Err(e) = torn.sending.reconnect(stream) {
            self.torn = Some(torn);
            return Some(refused(&format!("the stream cannot be used: {e}")));
        }
        let mut sending = torn.sending;
        let job = Job::start(&self.threads, "migrate", key, machine.stop.clone(), move |_| {
            let handover = sending.go_on();
            Ok::<_, MigrateError>(Outcome::of(handover, sending))
        });
        self.keep_job(job)
    }

    /// It runs elsewhere, and some of its memory is only here.
    fn tear(&mut self, key: u64, torn: Torn) {
        let text = if torn.ran {
            "it runs at the target, but the stream broke before it had all memory: what is missing there is kept here,              reconnect the two"
        } else {
            "the target was told to run the machine and did not answer; it stays paused here: resume it only when it does              not run there"
        };
        journal::line(&self.config.id, format_args!("{text} ({})", torn.reason));
        self.server.reply(key, &refused(&format!("{text} ({})", torn.reason)));
        self.torn = Some(torn);
    }

    /// The target has nearly everything: the guest stands still from here on.
    fn hand_over(&mut self, key: u64, mut sending: Box<Sending>) -> Result<(), String> {
        if let Reply::Refused { reason } = self.pause() {
            return Err(reason);
        }
        sending.stands_still();
        let machine = self.machine.as_ref().ok_or("the machine has ended")?;
        let state = machine.capture(&self.parts.kvm, &self.config).map_err(|e| e.to_string())?;
        if !sending.takes_disks() {
            self.parts.release_disks().map_err(|e| format!("the disks cannot be let go of: {e}"))?;
        }
        let job = Job::start(&self.threads, "migrate", key, machine.stop.clone(), move |cancelled| {
            sending.hand_over(&state, cancelled).map(|handover| Outcome::of(handover, sending))
        });
        match self.keep_job(job) {
            Some(Reply::Refused { reason }) => Err(reason),
            _ => Ok(()),
        }
    }

    /// Somebody knows that the machine does not run at the target that was told to run it.
    pub(super) fn mend(&mut self) {
        if self.torn.take().is_some() {
            self.stay();
        }
    }

    /// The machine did not move: it goes on here.
    fn stay(&mut self) {
        self.progress = None;
        if let Some(machine) = &self.machine {
            machine.throttle.set(0);
            let _ = machine.log_writes(false);
            machine.slots().iter().for_each(|slot| drop(slot.log_writes(false)));
            if self.state == RunState::Paused
                && let Reply::Refused { reason } = self.resume()
            {
                journal::line(&self.config.id, format_args!("stays paused after a migration that failed: {reason}"));
            }
        }
    }

    fn keep_job(&mut self, job: std::io::Result<Job>) -> Option<Reply> {
        let watched = job.and_then(|job| watch(&self.epoll, job.done.as_raw_fd(), JOB).map(|()| job));
        match watched {
            Ok(job) => self.job = Some(job),
            Err(e) => return Some(refused(&format!("no thread for it: {e}"))),
        }
        None
    }

    /// The job has ended: whoever asked for it hears how.
    pub(super) fn job_done(&mut self) {
        let Some(job) = self.job.take() else { return };
        let _ = self.epoll.ctl(ControlOperation::Delete, job.done.as_raw_fd(), EpollEvent::default());
        let (key, cancelled) = (job.requester, job.is_cancelled());
        let result = match job.end() {
            // Asked for when the last page had just gone: the next job would not know of it.
            Ok(Outcome::PreCopied(_)) if cancelled => Err(MigrateError::Cancelled.to_string()),
            Ok(Outcome::PreCopied(sending)) => match self.hand_over(key, sending) {
                Ok(()) => return,
                Err(reason) => Err(reason),
            },
            Ok(Outcome::HandedOver(Handover::Unknown(e))) => {
                self.progress = None;
                let text = "the target was told to run the machine and did not answer; it stays paused here: resume it \
                            only when it does not run there";
                journal::line(&self.config.id, format_args!("{text} ({e})"));
                return self.server.reply(key, &refused(&format!("{text} ({e})")));
            }
            Ok(Outcome::Torn(torn)) => return self.tear(key, torn),
            // Is an outcome of its own.
            Ok(Outcome::HandedOver(Handover::Torn { reason, .. })) => Err(reason.to_string()),
            Ok(Outcome::HandedOver(Handover::Moved)) => {
                self.stop(StopReason::Moved);
                Ok(())
            }
            Ok(Outcome::Written) => Ok(()),
            Err(reason) => Err(reason),
        };
        if result.is_err() && self.progress.is_some() {
            self.stay();
        }
        let reply = result.map_or_else(|reason| refused(&reason), |()| Reply::Done);
        self.server.reply(key, &reply);
    }

    /// The machine ends under the job.
    pub(super) fn drop_job(&mut self, machine: &Machine) {
        if let Some(progress) = &self.progress {
            progress.ending.store(true, Ordering::Release);
        }
        self.torn = None;
        let Some(job) = &self.job else { return };
        job.cancel();
        while !job.is_finished() {
            if machine.is_stuck() {
                // It may wait for memory itself, and ends with the process.
                return std::mem::forget(self.job.take());
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.job_done();
    }
}
