//! Processors and memory that come and go while the machine runs.
//!
//! ```text
//!   resize ─► does the guest listen? ── no ──► refused
//!                   └─ yes ─► told what is wanted ─┬─► it has done so ─► done
//!                                                  ├─► it says that it will not ─► refused
//!                                                  └─► RESIZE_WAIT ─► refused, with how far it got; it may still come to it
//! ```
//! What is wanted stays so, across a reset too: a machine that starts anew has that size from the first instruction.

use super::answer::refused;
use super::{Monitor, RESIZED, watch};
use crate::control::Reply;
use crate::gate::lock;
use crate::machine::Machine;
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long somebody waits for a guest. Clients wait ten seconds for an answer.
const RESIZE_WAIT: Duration = Duration::from_secs(8);

/// Somebody waits for the machine to have this size.
pub(super) struct Resizing {
    requester: u64,
    processors: u16,
    until: Instant,
}

impl Monitor {
    /// Hears of what a new machine's guest says of its size, and knows what is wanted of it.
    pub(super) fn watch_size(&mut self, machine: &Machine) -> io::Result<()> {
        self.config.vcpus = machine.wanted_vcpus;
        watch(&self.epoll, lock(&machine.bus.processors).told.as_raw_fd(), RESIZED)
    }

    /// So many processors are to be there. None: the answer comes when they are.
    pub(super) fn resize_vcpus(&mut self, key: u64, count: u16) -> Option<Reply> {
        let Some(possible) = self.config.max_vcpus else {
            return Some(refused("this machine's processors stay: its configuration has no `max_vcpus`"));
        };
        if !(1..=possible).contains(&count) {
            return Some(refused(&format!("this machine has 1 to {possible} processors")));
        }
        if let Some(reply) = self.cannot_resize() {
            return Some(reply);
        }
        let Some(machine) = self.machine.as_mut().filter(|machine| machine.hears_of_processors()) else {
            return Some(refused("the guest does not hear of processors that come and go: it needs ACPI"));
        };
        let done = machine.resize_processors(count, possible, &self.threads);
        self.config.vcpus = count;
        if let Err(e) = done {
            return Some(refused(&e.to_string()));
        }
        self.resizing.push(Resizing { requester: key, processors: count, until: Instant::now() + RESIZE_WAIT });
        None
    }

    fn cannot_resize(&self) -> Option<Reply> {
        self.cannot_plug().map(refused).or_else(|| self.refused_for_debugger())
    }

    /// Who waits for a size, and has waited enough, or need not wait any more.
    pub(super) fn look_at_resizing(&mut self) {
        if let Some(machine) = &self.machine {
            let _ = lock(&machine.bus.processors).told.read();
            machine.park_absent();
        }
        for resizing in std::mem::take(&mut self.resizing) {
            match self.size_answer(&resizing) {
                Some(reply) => self.server.reply(resizing.requester, &reply),
                None => self.resizing.push(resizing),
            }
        }
    }

    fn size_answer(&self, resizing: &Resizing) -> Option<Reply> {
        let wanted = resizing.processors;
        if self.config.vcpus != wanted {
            return Some(refused("another number of processors was asked for meanwhile"));
        }
        let (there, refusal) = match &self.machine {
            Some(machine) => {
                let processors = lock(&machine.bus.processors);
                if processors.is_settled(wanted) {
                    return Some(Reply::Processors { there: wanted });
                }
                (machine.processors_there(), processors.is_refused())
            }
            None => (0, false),
        };
        let text = if refusal { "the guest will not let go of a processor" } else { "the guest has not done so yet" };
        (refusal || Instant::now() >= resizing.until)
            .then(|| refused(&format!("{text}: {there} are there, {wanted} are wanted")))
    }
}
