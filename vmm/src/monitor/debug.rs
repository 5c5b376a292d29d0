//! A debugger at its socket: what it says goes to its session, what it asks is done to the machine.
//!
//! ```text
//!   nobody ──connects──► the machine is paused ◄──► it goes on ──leaves, is lost──► it goes on as if nobody had been there
//! ```
//! One at a time. While it holds the machine, the control socket cannot resume it; and no snapshot is taken and nothing moves
//! while it is there, as instructions of its own may lie in guest memory.

use super::answer::refused;
use super::{GDB, Monitor, STOPS, watch};
use crate::control::Reply;
use crate::cpu::debug::{self, BREAKPOINT};
use crate::gate::lock;
use crate::gdb::command::{Point, PointKind};
use crate::gdb::packet::frame;
use crate::gdb::registers::Registers;
use crate::gdb::session::{Ended, Next, Session, Target, Why};
use crate::journal;
use crate::machine::Machine;
use crate::state::{RunState, StopReason};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress};

/// Bytes that are read at once.
const READ: usize = 4096;

/// The socket, and who is there.
pub struct Debugger {
    listener: UnixListener,
    /// The first instruction waits for somebody.
    awaited: bool,
    talk: Option<Talk>,
}

impl Debugger {
    /// Whether the guest is not to run before a debugger says so.
    pub fn is_awaited(&self) -> bool {
        self.awaited
    }
}

struct Talk {
    stream: UnixStream,
    session: Session,
    /// What it asked of the processors when they went on last.
    hardware: Vec<Point>,
    planted: bool,
}

/// The machine, as a debugger has it.
struct Held<'m> {
    monitor: &'m mut Monitor,
    /// To be remembered with the talk.
    went: Option<(Vec<Point>, bool)>,
}

impl Held<'_> {
    fn machine(&self) -> Option<&Machine> {
        self.monitor.machine.as_ref().filter(|_| self.monitor.state == RunState::Paused)
    }
}

impl Target for Held<'_> {
    fn processors(&self) -> usize {
        self.monitor.machine.as_ref().map_or(0, |machine| machine.seen.len())
    }

    fn is_there(&self, processor: usize) -> bool {
        let machine = self.monitor.machine.as_ref().filter(|machine| processor < machine.seen.len());
        machine.is_some_and(|machine| machine.bus.presence.has(processor as u16))
    }

    fn registers(&self, processor: usize) -> Option<Registers> {
        let fd = lock(self.machine()?.processor(processor)?);
        let (general, special) = (fd.get_regs().ok()?, fd.get_sregs().ok()?);
        Some(Registers { general, special, floating: fd.get_fpu().unwrap_or_default() })
    }

    fn set_registers(&mut self, processor: usize, registers: &Registers) -> bool {
        let Some(fd) = self.machine().and_then(|machine| machine.processor(processor)) else { return false };
        let fd = lock(fd);
        let done = fd.set_regs(&registers.general).is_ok() && fd.set_fpu(&registers.floating).is_ok();
        done && fd.set_sregs(&registers.special).is_ok()
    }

    fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        self.machine().is_some_and(|machine| machine.memory.read_slice(bytes, GuestAddress(address)).is_ok())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.machine().is_some_and(|machine| machine.memory.write_slice(bytes, GuestAddress(address)).is_ok())
    }

    fn go(&mut self, next: &[Next], hardware: &[Point], planted: &[u64]) -> bool {
        let Some(machine) = self.machine() else { return false };
        machine.stops.set_planted(planted);
        let set = |(number, next): (usize, &Next)| {
            machine.seen[number].held.store(*next == Next::Hold, Ordering::Release);
            let fd = machine.processor(number).map(|fd| lock(fd));
            fd.is_some_and(|fd| debug::set(&fd, *next, hardware, !planted.is_empty()).is_ok())
        };
        let all = next.iter().enumerate().take(machine.seen.len()).all(set);
        self.went = Some((hardware.to_vec(), !planted.is_empty()));
        all && matches!(self.monitor.go_on(), Reply::Done)
    }

    fn stop(&mut self) -> bool {
        matches!(self.monitor.pause(), Reply::Done)
    }
}

impl Monitor {
    /// Lets debuggers in there; the first instruction waits for one if it is `awaited`.
    pub fn debug_by(&mut self, listener: UnixListener, awaited: bool) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        watch(&self.epoll, listener.as_raw_fd(), super::GDB_LISTENER)?;
        self.debugger = Some(Debugger { listener, awaited, talk: None });
        Ok(())
    }

    /// Whether a debugger is there; and whether it has stopped the guest.
    pub(super) fn is_debugged(&self) -> bool {
        self.debugger.as_ref().is_some_and(|debugger| debugger.talk.is_some())
    }

    pub(super) fn is_held(&self) -> bool {
        let talk = self.debugger.as_ref().and_then(|debugger| debugger.talk.as_ref());
        talk.is_some_and(|talk| !talk.session.is_running())
    }

    pub(super) fn debugger_comes(&mut self) {
        let Some(debugger) = &self.debugger else { return };
        let Ok((stream, _)) = debugger.listener.accept() else { return };
        // One at a time; and a machine that is being written down, or is not wholly here, has no time for it.
        let busy = debugger.talk.is_some() || self.job.is_some();
        if busy || self.is_arriving() || stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.state != RunState::Paused && !matches!(self.pause(), Reply::Done) {
            return;
        }
        if watch(&self.epoll, stream.as_raw_fd(), GDB).is_err() {
            self.go_on();
            return;
        }
        journal::line(&self.config.id, format_args!("a debugger is there"));
        if let Some(debugger) = &mut self.debugger {
            let (session, hardware) = (Session::default(), Vec::new());
            (debugger.awaited, debugger.talk) = (false, Some(Talk { stream, session, hardware, planted: false }));
        }
    }

    fn take_talk(&mut self) -> Option<Talk> {
        self.debugger.as_mut()?.talk.take()
    }

    fn keep_talk(&mut self, talk: Talk) {
        if let Some(debugger) = &mut self.debugger {
            debugger.talk = Some(talk);
        }
    }

    pub(super) fn debugger_says(&mut self) {
        let Some(mut talk) = self.take_talk() else { return };
        let mut bytes = [0; READ];
        let count = match talk.stream.read(&mut bytes) {
            Ok(0) => return self.debugger_leaves(talk),
            Ok(count) => count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return self.keep_talk(talk);
            }
            Err(_) => return self.debugger_leaves(talk),
        };
        let mut held = Held { monitor: self, went: None };
        let (out, ended) = talk.session.take(&bytes[..count], &mut held);
        if let Some((hardware, planted)) = held.went {
            (talk.hardware, talk.planted) = (hardware, planted);
        }
        // Who does not read what was asked for is gone.
        let heard = talk.stream.write_all(&out).is_ok();
        match ended {
            None if heard => self.keep_talk(talk),
            None | Some(Ended::Detached) => self.debugger_leaves(talk),
            Some(Ended::Killed) => {
                self.stop(StopReason::Killed);
                self.debugger_leaves(talk);
            }
        }
    }

    /// The guest goes on as if nobody had been there.
    fn debugger_leaves(&mut self, mut talk: Talk) {
        journal::line(&self.config.id, format_args!("the debugger is gone"));
        if self.machine.is_none() {
            return;
        }
        let paused = self.state == RunState::Paused || matches!(self.pause(), Reply::Done);
        let mut held = Held { monitor: self, went: None };
        talk.session.clear(&mut held);
        if let Some(machine) = &self.machine {
            machine.stops.set_planted(&[]);
            machine.stops.take();
            for (number, seen) in machine.seen.iter().enumerate().filter(|_| paused) {
                seen.held.store(false, Ordering::Release);
                if let Some(fd) = machine.processor(number) {
                    let _ = debug::unset(&lock(fd));
                }
            }
        }
        self.go_on();
    }

    /// The machine ends under the debugger.
    pub(super) fn debugger_is_left(&mut self) {
        if let Some(mut talk) = self.take_talk() {
            // It may have gone already.
            let _ = talk.stream.write_all(&frame(b"W00"));
        }
    }

    /// Processors have stopped, and shut the gate.
    pub(super) fn processors_stopped(&mut self) {
        let Some(events) = self.machine.as_ref().map(|machine| machine.stops.take()) else { return };
        let Some(first) = events.first().copied() else { return };
        let Some(mut talk) = self.take_talk() else {
            if self.state == RunState::Running {
                self.go_on();
            }
            return;
        };
        if !matches!(self.pause(), Reply::Done) {
            return self.keep_talk(talk);
        }
        let number = usize::from(first.processor);
        let why = match debug::hit(first.dr6).and_then(|n| talk.hardware.get(n)) {
            _ if first.exception == BREAKPOINT => talk.session.planted(first.pc).then_some(Why::Software),
            Some(point) if point.kind == PointKind::Hardware => Some(Why::Hardware),
            Some(point) => Some(Why::Watched(point.address, point.kind)),
            None => Some(Why::Stepped),
        };
        match why {
            Some(why) => {
                let out = talk.session.stopped(number, why);
                let heard = talk.stream.write_all(&out).is_ok();
                if heard { self.keep_talk(talk) } else { self.debugger_leaves(talk) }
            }
            // The guest's own.
            None => {
                if let Some(fd) = self.machine.as_ref().and_then(|machine| machine.processor(number)) {
                    let _ = debug::give(&lock(fd), first.exception, talk.planted);
                }
                self.keep_talk(talk);
                self.go_on();
            }
        }
    }

    /// Why a request cannot be done while a debugger is there.
    pub(super) fn refused_for_debugger(&self) -> Option<Reply> {
        self.is_debugged().then(|| refused("a debugger is there"))
    }

    /// Watches what a new machine's processors tell.
    pub(super) fn watch_stops(&self, machine: &Machine) -> io::Result<()> {
        if self.debugger.is_some() {
            watch(&self.epoll, machine.stops.event.as_raw_fd(), STOPS)?;
        }
        Ok(())
    }
}
