//! The main thread after the start: waits for the control socket, for signals, and for the machine's end.
//!
//! Once a second it also looks whether a guest has halted for good: a processor that used no time at all since the last
//! look is kicked out and asked whether an interrupt could ever wake it. An idle guest that takes timer interrupts is
//! left alone.
//!
//! `answer` says what each request does, `keep` what takes longer than an answer may, `plug` how
//! devices come and go, `resize` how processors and memory do, `debug` who looks into the machine.

mod answer;
mod debug;
mod keep;
mod plug;
mod resize;

use crate::config::{Config, OnReset};
use crate::control::server::{Input, Server};
use crate::control::{Reply, Request};
use crate::cpu::run_loop::Seen;
use crate::cpu::throttle::SLICE;
use crate::gate::lock;
use crate::job::Job;
use crate::journal;
use crate::machine::{Machine, MachineError, Parts};
use crate::migrate::Progress;
use crate::sandbox::Threads;
use crate::state::{RunState, StopReason};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const LISTENER: u64 = u64::MAX;
const SIGNAL: u64 = u64::MAX - 1;
const STOP: u64 = u64::MAX - 2;
const JOB: u64 = u64::MAX - 3;
const LET_GO: u64 = u64::MAX - 4;
const GDB_LISTENER: u64 = u64::MAX - 5;
const GDB: u64 = u64::MAX - 6;
const STOPS: u64 = u64::MAX - 7;
const RESIZED: u64 = u64::MAX - 8;
/// Between two looks for a guest that has halted for good.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait for processors and workers to come to the gate.
const GATE_WAIT: Duration = Duration::from_secs(5);
/// Least time between two starts, so that a guest that resets at once does not make the host spin.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// Signals that end the machine in order. Blocked in every thread, read here.
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks SIGTERM and SIGINT for this thread and those it will start, ignores SIGHUP.
    pub fn block() -> io::Result<Signals> {
        // SAFETY: a zeroed set is initialised by sigemptyset; all pointers are to it; errors are checked.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            if libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl Signals {
    /// For whoever waits for something else as well.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// One guest from start to end.
pub struct Monitor {
    config: Config,
    /// Of this program, which cannot be looked at from the jail.
    build: String,
    parts: Parts,
    threads: Threads,
    server: Server,
    _signals: Signals,
    epoll: Epoll,
    machine: Option<Machine>,
    state: RunState,
    began: Instant,
    started: Instant,
    resets: u64,
    stop_reason: Option<StopReason>,
    /// The guest was asked to shut down: its next reset is the end.
    closing: bool,
    /// Processor time at the last look, by processor.
    looked: Vec<u64>,
    /// When the watchdog was last looked at.
    watched: Option<Instant>,
    /// What is done beside the machine; it bars resuming and another of its kind.
    job: Option<Job>,
    /// Of a migration.
    progress: Option<Arc<Progress>>,
    /// It moved, and not all of it.
    torn: Option<crate::job::Torn>,
    /// Who waits for devices to go.
    leaving: Vec<plug::Leaving>,
    /// Who waits for the machine to have another size.
    resizing: Vec<resize::Resizing>,
    /// Who may look into the machine.
    debugger: Option<debug::Debugger>,
}

fn watch(epoll: &Epoll, fd: RawFd, key: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, key))
}

/// A machine whose threads never come home cannot be built anew.
fn stuck_reason(reason: StopReason) -> StopReason {
    match reason {
        StopReason::Reset => StopReason::Crashed { detail: "it reset while memory could not be brought".into() },
        other => other,
    }
}

impl Monitor {
    /// Takes what was opened.
    pub fn new(
        config: Config,
        build: String,
        parts: Parts,
        threads: Threads,
        server: Server,
        signals: Signals,
    ) -> io::Result<Monitor> {
        let epoll = Epoll::new()?;
        watch(&epoll, server.listener(), LISTENER)?;
        watch(&epoll, signals.0.as_raw_fd(), SIGNAL)?;
        let now = Instant::now();
        Ok(Monitor {
            config,
            build,
            parts,
            threads,
            server,
            _signals: signals,
            epoll,
            machine: None,
            state: RunState::Starting,
            began: now,
            started: now,
            resets: 0,
            stop_reason: None,
            closing: false,
            looked: Vec::new(),
            watched: None,
            job: None,
            progress: None,
            torn: None,
            leaving: Vec::new(),
            resizing: Vec::new(),
            debugger: None,
        })
    }

    /// Builds the machine with every thread at its gate; no guest instruction has run.
    pub fn build(&mut self) -> Result<(), MachineError> {
        let machine = Machine::build(&self.config, &mut self.parts, &self.threads)?;
        watch(&self.epoll, machine.stop.event.as_raw_fd(), STOP)?;
        self.watch_stops(&machine)?;
        if let Some(root) = &machine.bus.pci {
            watch(&self.epoll, lock(&root.hotplug).let_go.as_raw_fd(), LET_GO)?;
        }
        self.watch_size(&machine)?;
        self.machine = Some(machine);
        Ok(())
    }

    /// Puts this thread under its filter, now that the first threads run under theirs.
    pub fn confine(&self) -> Result<(), crate::sandbox::SandboxError> {
        self.threads.confine_monitor()
    }

    /// Opens the gate and serves until the end. Returns why, and how many resets there were.
    pub fn run(mut self) -> Result<(StopReason, u64), MachineError> {
        self.start()?;
        let mut events = [EpollEvent::default(); 16];
        loop {
            let count = match self.epoll.wait(self.timeout_ms(), &mut events) {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                Err(e) => return Err(e.into()),
            };
            for event in &events[..count] {
                match event.data() {
                    LISTENER => self.accept(),
                    SIGNAL => self.stop(StopReason::Killed),
                    // Looked at below.
                    STOP | LET_GO | RESIZED => {}
                    JOB => self.job_done(),
                    GDB_LISTENER => self.debugger_comes(),
                    GDB => self.debugger_says(),
                    STOPS => self.processors_stopped(),
                    key => self.serve(key),
                }
            }
            if let Some(reason) = self.ended() {
                let reason = if self.is_stuck() { stuck_reason(reason) } else { reason };
                self.end_machine();
                if reason != StopReason::Reset || self.config.on_reset == OnReset::Exit {
                    // Whoever hears of the end may start the next at once.
                    for disk in &self.parts.disks {
                        let _ = disk.release();
                    }
                    return Ok((reason, self.resets));
                }
                self.resets += 1;
                self.state = RunState::Starting;
            }
            if self.machine.is_none() && self.started.elapsed() >= RESTART_DELAY {
                self.build()?;
                self.start()?;
            }
            self.look_at_leaving();
            self.look_at_resizing();
            self.slow_down();
            self.look_for_halt();
            self.look_at_watchdog();
        }
    }

    fn start(&mut self) -> Result<(), MachineError> {
        self.started = Instant::now();
        self.looked.clear();
        let Some(machine) = &mut self.machine else { return Ok(()) };
        machine.gate.wait_for(machine.threads(), GATE_WAIT);
        let mut arrival = machine.arrival.take();
        if let Some(arrival) = &mut arrival {
            // The source has let go of the disks; it takes them back when this fails.
            self.parts.claim_disks(&self.config)?;
            // One on this host may have gone on writing to the same log.
            self.parts.console.catch_up()?;
            arrival.ready()?;
        }
        if arrival.is_none() && self.debugger.as_ref().is_some_and(debug::Debugger::is_awaited) {
            self.state = RunState::Paused;
            return Ok(());
        }
        machine.may_begin();
        machine.gate.open();
        self.state = RunState::Running;
        if let Some(arrival) = arrival {
            arrival.running();
            journal::line(&self.config.id, format_args!("moved in"));
        }
        Ok(())
    }

    fn timeout_ms(&self) -> i32 {
        let slowed = self.machine.as_ref().is_some_and(|machine| machine.throttle.percent() > 0);
        let next = match &self.machine {
            None => RESTART_DELAY,
            Some(_) if slowed => SLICE,
            Some(_) => LOOK,
        };
        let past = if self.machine.is_none() { self.started.elapsed() } else { Duration::ZERO };
        next.saturating_sub(past).as_millis() as i32 + 1
    }

    fn ended(&mut self) -> Option<StopReason> {
        // A kill that came between two starts has no machine to stop.
        let reason = self.stop_reason.take().or_else(|| self.machine.as_ref()?.stop.reason())?;
        Some(if self.closing && reason == StopReason::Reset { StopReason::PoweredOff } else { reason })
    }

    /// Threads of the machine may wait for memory that cannot be brought.
    pub(super) fn is_stuck(&self) -> bool {
        self.machine.as_ref().is_some_and(Machine::is_stuck)
    }

    /// Memory is on its way from another process, or cannot be brought: nobody here may wait for it.
    pub(super) fn is_arriving(&self) -> bool {
        let pager = self.machine.as_ref().and_then(|machine| machine.pager.as_ref());
        pager.is_some_and(|pager| pager.seen.is_arriving() || pager.seen.is_stuck())
    }

    fn end_machine(&mut self) {
        let Some(machine) = self.machine.take() else { return };
        self.drop_job(&machine);
        self.debugger_is_left();
        self.state = RunState::Stopped;
        let _ = self.epoll.ctl(ControlOperation::Delete, machine.stop.event.as_raw_fd(), EpollEvent::default());
        if let Some(StopReason::Crashed { detail }) = machine.stop.reason() {
            journal::line(&self.config.id, format_args!("the guest crashed: {detail}"));
        }
        machine.end();
    }

    fn stop(&mut self, reason: StopReason) {
        match &self.machine {
            Some(machine) => machine.stop.set(reason),
            None => self.stop_reason = Some(reason),
        }
    }

    fn accept(&mut self) {
        if let Some((key, fd)) = self.server.accept()
            && watch(&self.epoll, fd, key).is_err()
        {
            self.server.close(key);
        }
    }

    fn serve(&mut self, key: u64) {
        for input in self.server.read(key) {
            match input {
                Input::Request(Request::ConsoleAttach {}) => {
                    self.server.reply(key, &Reply::Done);
                    self.server.expect_attach(key);
                }
                Input::Request(request) => {
                    // None: the answer comes when the work is done.
                    if let Some(reply) = self.answer(key, request) {
                        self.server.reply(key, &reply);
                    }
                }
                Input::Attach => {
                    let watched = self.server.stream(key).map(|stream| self.parts.console.watch(key, stream));
                    if !matches!(watched, Some(Ok(()))) {
                        self.server.close(key);
                    }
                }
                Input::Console(bytes) => drop(self.type_in(&bytes)),
                Input::Gone => self.parts.console.unwatch(key),
                Input::Nonsense => {}
            }
        }
    }

    /// Has processors see that they are to rest.
    fn slow_down(&self) {
        if let Some(machine) = self.machine.as_ref().filter(|machine| machine.throttle.percent() > 0) {
            (0..machine.seen.len()).for_each(|number| machine.kick(number));
        }
    }

    /// Time passes for the guest's watchdog while the guest runs.
    fn look_at_watchdog(&mut self) {
        let passed = self.watched.replace(Instant::now()).map(|then| then.elapsed()).unwrap_or_default();
        let Some(machine) = self.machine.as_ref().filter(|_| self.state == RunState::Running) else { return };
        if machine.bus.watchdog.as_ref().is_some_and(|watchdog| lock(watchdog).pass(passed)) {
            journal::line(&self.config.id, format_args!("the watchdog resets a guest that shows no life"));
            machine.stop.set(StopReason::Reset);
        }
    }

    /// See the head of this file.
    fn look_for_halt(&mut self) {
        let Some(machine) = self.machine.as_ref().filter(|_| self.state == RunState::Running) else { return };
        // One that the guest has let go of wakes up by nothing that the guest does.
        let is_dead = |seen: &Seen| seen.dead.load(Ordering::Acquire) || seen.parked.load(Ordering::Acquire);
        let count = machine.seen.len();
        if count > 0 && machine.seen.iter().all(|seen| is_dead(seen)) {
            machine.stop.set(StopReason::Halted);
            return;
        }
        let times: Vec<u64> = (0..count).map(|n| machine.cpu_time_ns(n).unwrap_or(0)).collect();
        // A kick itself costs some time of the processor: less than this is taken for none.
        const NONE_NS: u64 = 2_000_000;
        let still =
            self.looked.len() == count && times.iter().zip(&self.looked).all(|(now, then)| now - then < NONE_NS);
        self.looked = times;
        for (n, seen) in machine.seen.iter().enumerate() {
            seen.dead.store(false, Ordering::Release);
            if still {
                seen.inspect.store(true, Ordering::Release);
                machine.kick(n);
            }
        }
    }
}
