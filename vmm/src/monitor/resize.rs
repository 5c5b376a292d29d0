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
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long somebody waits for a guest. Clients wait ten seconds for an answer.
const RESIZE_WAIT: Duration = Duration::from_secs(8);

/// Somebody waits for the machine to have this size.
pub(super) struct Resizing {
    requester: u64,
    size: Size,
    until: Instant,
}

enum Size {
    Processors(u16),
    /// Bytes that are plugged.
    Memory(u64),
}

impl Monitor {
    /// Hears of what a new machine's guest says of its size, and knows what is wanted of it.
    pub(super) fn watch_size(&mut self, machine: &Machine) -> io::Result<()> {
        self.config.vcpus = machine.wanted_vcpus;
        watch(&self.epoll, lock(&machine.bus.processors).told.as_raw_fd(), RESIZED)?;
        if let (Some((_, wanted)), Some(memory)) = (machine.memory_wanted(), &mut self.config.memory_hotplug) {
            memory.requested_mib = (wanted.requested.load(Ordering::Acquire) >> 20) as u32;
            watch(&self.epoll, wanted.changed.as_raw_fd(), RESIZED)?;
        }
        Ok(())
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
        self.wait_for_size(key, Size::Processors(count));
        None
    }

    /// So much memory is to be there in all. None: the answer comes when it is.
    pub(super) fn resize_memory(&mut self, key: u64, mib: u32) -> Option<Reply> {
        if let Some(reply) = self.cannot_resize() {
            return Some(reply);
        }
        let least = self.config.memory_mib;
        let found = self.machine.as_ref().and_then(Machine::memory_wanted);
        let (Some((slot, wanted)), Some(memory)) = (found, &mut self.config.memory_hotplug) else {
            return Some(refused("this machine's memory stays: its configuration has no `memory_hotplug`"));
        };
        let block = memory.block_mib();
        let Some(more) = mib.checked_sub(least).filter(|more| *more <= memory.max_mib && more.is_multiple_of(block))
        else {
            let most = u64::from(least) + u64::from(memory.max_mib);
            return Some(refused(&format!("this machine has {least} to {most} MiB of memory, in steps of {block}")));
        };
        memory.requested_mib = more;
        wanted.requested.store(u64::from(more) << 20, Ordering::Release);
        slot.config_changed();
        self.wait_for_size(key, Size::Memory(u64::from(more) << 20));
        None
    }

    fn wait_for_size(&mut self, requester: u64, size: Size) {
        self.resizing.push(Resizing { requester, size, until: Instant::now() + RESIZE_WAIT });
    }

    fn cannot_resize(&self) -> Option<Reply> {
        self.cannot_plug().map(refused).or_else(|| self.refused_for_debugger())
    }

    /// Who waits for a size, and has waited enough, or need not wait any more.
    pub(super) fn look_at_resizing(&mut self) {
        if let Some(machine) = &self.machine {
            let _ = lock(&machine.bus.processors).told.read();
            let _ = machine.memory_wanted().map(|(_, wanted)| wanted.changed.read());
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
        match resizing.size {
            Size::Processors(wanted) => self.processors_answer(wanted, resizing.until),
            Size::Memory(wanted) => self.memory_answer(wanted, resizing.until),
        }
    }

    fn memory_answer(&self, bytes: u64, until: Instant) -> Option<Reply> {
        let requested = self.config.memory_hotplug.map_or(0, |memory| u64::from(memory.requested_mib) << 20);
        if requested != bytes {
            return Some(refused("another size was asked for meanwhile"));
        }
        let plugged = self.machine.as_ref().and_then(|machine| machine.hot.as_ref()).map(|hot| hot.plugged_bytes());
        let all = |more: u64| u64::from(self.config.memory_mib) + (more >> 20);
        if plugged == Some(bytes) {
            return Some(Reply::Memory { mib: all(bytes) });
        }
        (Instant::now() >= until).then(|| {
            let (there, wanted) = (all(plugged.unwrap_or(0)), all(bytes));
            refused(&format!("the guest has not done so yet: {there} MiB are there, {wanted} are wanted"))
        })
    }

    fn processors_answer(&self, wanted: u16, until: Instant) -> Option<Reply> {
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
        let untold = if there == wanted { " (it has not said that it took all)" } else { "" };
        (refusal || Instant::now() >= until)
            .then(|| refused(&format!("{text}: {there} are there{untold}, {wanted} are wanted")))
    }
}
