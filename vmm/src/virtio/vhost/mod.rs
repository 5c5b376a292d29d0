//! Devices whose queues another process serves (vhost-user): disks of a storage daemon, cards of a software switch, file
//! systems of the host (virtio-fs).
//!
//! ```text
//!   guest ──notification (KVM, eventfd)──► backend ──interrupt (eventfd)──► MSI-X: KVM (pci/direct.rs) ─► guest
//!                                                                          line: worker ─► guest
//!     └────────── queues and buffers in memory that both map ─────┘
//!
//!   away ──a connection is handed over──► connected ──driver ready──► running ──gate shuts──► resting
//!    ▲                                        ▲                        │   ▲                     │
//!    └───────it breaks, or is silent──────────┼──driver resets─────────┘   └────gate opens───────┘
//! ```
//! Nobody here looks into the queues. While the backend is away the guest waits: the next one goes on where the used ring
//! says, with the notes of its predecessor about requests under way where it keeps such (`inflight`), else with what both
//! rings tell (`recover`). At the gate all queues are taken back, so a snapshot needs no more than how far they were read;
//! what a share's backend knows of open files cannot be written down, so a machine that uses one is neither written down
//! nor moved.
//!
//! A backend has the guest's memory, so it is trusted with that, and with nothing else: every wait for it ends, what it
//! says is bounded and checked, and it learns no address of this process.

pub mod backend;
mod calls;
pub mod link;
pub mod log;
pub mod message;
mod recover;
pub mod shape;
pub mod wire;

use super::counters::{Counters, count};
use super::{Broken, Device, Served, copy_config};
use crate::gate::lock;
use crate::memory::Memory;
use crate::snapshot::{self, SnapshotError};
use backend::{Backend, Inflight, Start};
pub use calls::Calls;
pub use link::Link;
use log::Log;
use message::CONFIG_CHANGED;
use shape::Kind;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// Between two looks whether a queue that was stopped has settled.
const SETTLING: Duration = Duration::from_millis(1);
/// For requests that are under way before a disk is stopped; and looks in a row that show none.
const DRAINING: Duration = Duration::from_secs(2);
const QUIET: u32 = 10;
const WAKE: u64 = u64::MAX;
const SOCKET: u64 = u64::MAX - 1;
const CHANNEL: u64 = u64::MAX - 2;

/// A device with a backend.
pub struct VhostUser {
    link: Arc<Link>,
    backend: Option<Backend>,
    /// The backend's part of the configuration space, and the whole.
    theirs: Vec<u8>,
    space: Vec<u8>,
    /// The driver has not been told of the newest.
    changed: bool,
    /// What is waited for: interrupts, the end of the connection, word from the monitor.
    epoll: Epoll,
    calls: Arc<Calls>,
    /// Queues, a bit each, whose events are waited for here.
    watched: u64,
    kicks: Vec<EventFd>,
    /// The driver is ready, and agreed to this.
    wanted: Option<u64>,
    /// The backend has queues.
    running: bool,
    /// Which, by bit; and which it had when it was lost.
    started: u64,
    lost: u64,
    /// Where the rings of these lie: available, used.
    memory: Option<Memory>,
    rings: Vec<[u64; 2]>,
    resting: bool,
    /// How long queues may take to stop.
    pub patience: Duration,
    inflight: Option<Inflight>,
    log: Option<Arc<Log>>,
    counters: Arc<Counters>,
}

impl VhostUser {
    /// A device over this link; there is one at a time.
    pub fn new(link: Arc<Link>, counters: Arc<Counters>) -> io::Result<VhostUser> {
        let epoll = Epoll::new()?;
        let calls = Calls::new(link.shape.queue_sizes().len(), &link.wake)?;
        watch(&epoll, link.wake.as_raw_fd(), WAKE)?;
        let mut device = VhostUser {
            backend: None,
            theirs: Vec::new(),
            space: Vec::new(),
            changed: false,
            epoll,
            calls,
            watched: 0,
            kicks: Vec::new(),
            wanted: None,
            running: false,
            started: 0,
            lost: 0,
            memory: None,
            rings: Vec::new(),
            resting: false,
            patience: backend::STOP_PATIENCE,
            inflight: None,
            log: None,
            counters,
            link,
        };
        let idle = lock(&device.link.idle).take();
        if let Some((backend, config)) = idle {
            device.adopt(backend, config)?;
        }
        device.see_space();
        device.changed = false;
        Ok(device)
    }

    fn adopt(&mut self, backend: Backend, config: Vec<u8>) -> io::Result<()> {
        watch(&self.epoll, backend.as_raw_fd(), SOCKET)?;
        if let Some(channel) = &backend.channel {
            watch(&self.epoll, channel.as_raw_fd(), CHANNEL)?;
        }
        self.theirs = config;
        self.backend = Some(backend);
        self.link.connected.store(true, Ordering::Release);
        Ok(())
    }

    /// The space as it is now; a driver is told when it is another.
    fn see_space(&mut self) {
        let space = self.link.shape.space(&self.theirs, self.backend.is_some());
        if let Some(sectors) = self.link.shape.sectors(&space) {
            self.link.sectors.store(sectors, Ordering::Release);
        }
        self.changed |= space != self.space;
        self.space = space;
    }

    /// Nothing can be said to the backend any more.
    fn lose(&mut self) {
        if self.backend.take().is_some() {
            count(&self.counters.errors);
            self.lost |= self.started;
            (self.running, self.started) = (false, 0);
            self.link.connected.store(false, Ordering::Release);
            self.see_space();
            // On whatever thread this is: the worker tells the driver, and looks for the next connection.
            let _ = self.link.wake.write(1);
        }
    }

    /// Takes the connection that has been handed over, when there is none.
    fn connect(&mut self) {
        if self.backend.is_some() {
            return;
        }
        let Some(socket) = self.link.take_next() else { return };
        let opened = Backend::open(socket, &self.link.shape).and_then(|(backend, config)| {
            let missing = self.features() & !self.link.shape.features(backend.features)
                | self.ring_features() & !self.link.shape.ring_features(backend.features);
            let shorter = self.link.shape.sectors(&config) < self.link.shape.sectors(&self.theirs);
            if missing != 0 || shorter || self.log.is_some() && !backend.can_log() {
                return Err(io::Error::other("this backend can do less, or has less, than the one before"));
            }
            self.adopt(backend, config)
        });
        match opened {
            Ok(()) => self.see_space(),
            Err(_) => count(&self.counters.errors),
        }
    }

    /// Has the backend run, when there is one and a driver.
    fn go(&mut self, queues: &mut [Queue], memory: &Memory) {
        if self.running || self.resting || self.backend.is_none() {
            return;
        }
        let Some(features) = self.wanted else { return };
        if self.start(features, queues, memory).is_err() {
            self.lose();
        }
    }

    fn start(&mut self, features: u64, queues: &mut [Queue], memory: &Memory) -> io::Result<()> {
        let Some(backend) = &self.backend else { return Ok(()) };
        let count = queues.len() as u16;
        let size = queues.iter().map(QueueT::size).max().unwrap_or(0);
        if self.inflight.is_none() {
            self.inflight = backend.inflight(count, size)?;
        }
        let inflight = self.inflight.as_ref().map(|notes| (notes, count, size));
        backend.prepare(features, memory, inflight, self.log.as_deref())?;
        let lost = std::mem::take(&mut self.lost);
        for (_, queue) in queues.iter_mut().enumerate().filter(|(number, _)| lost & 1 << number != 0) {
            recover::resume(queue, memory, self.inflight.is_none());
        }
        self.rings = queues.iter().map(|queue| [queue.avail_ring(), queue.used_ring()]).collect();
        self.memory = Some(memory.clone());
        let ready = (0u32..).zip(queues.iter()).zip(self.kicks.iter().zip(self.calls.events()));
        let ready = ready.filter(|((_, queue), _)| queue.ready());
        let starts: Vec<_> = ready.map(|((number, queue), (kick, call))| Start { number, queue, kick, call }).collect();
        // Before the first of them: one that was started must be taken back, whatever comes after it.
        self.started = starts.iter().fold(0, |mask, start| mask | 1 << start.number);
        backend.start(&starts, self.log.is_some())?;
        self.running = true;
        // Buffers may lie in the queues already.
        starts.iter().for_each(|start| drop(start.kick.write(1)));
        Ok(())
    }

    /// Takes queues back; what is known then of each is given to `read`.
    fn stop(&mut self, which: u64, mut read: impl FnMut(usize, u16)) {
        self.drain(which);
        let Some(backend) = &self.backend else { return };
        let (end, due, mut failed) = (Instant::now() + self.patience, self.started & which, false);
        for number in (0..self.calls.count()).filter(|number| due & 1 << number != 0) {
            match backend.stop(number as u32, end) {
                Ok(base) if self.settles(number, base, end) => read(number, base),
                _ => {
                    failed = true;
                    break;
                }
            }
            self.started &= !(1 << number);
        }
        if failed {
            return self.lose();
        }
        self.running = self.started != 0;
    }

    /// Lets a disk answer what was asked before it is stopped: QEMU's storage daemon may break the connection otherwise.
    /// The processors come to rest at the same time, so nothing new is asked; who does not wait for that waits in vain.
    fn drain(&self, which: u64) {
        let (Some(memory), Kind::Disk { .. }) = (&self.memory, &self.link.shape.kind) else { return };
        let due = self.rings.iter().enumerate().filter(|(number, _)| self.started & which & 1 << number != 0);
        let due: Vec<[u64; 2]> = due.map(|(_, rings)| *rings).collect();
        let end = Instant::now() + DRAINING;
        let (mut quiet, mut before) = (0, Vec::new());
        while quiet < QUIET && !due.is_empty() && Instant::now() < end {
            let now: Vec<_> = due.iter().map(|rings| rings.map(|ring| recover::used(memory, ring))).collect();
            let answered = now.iter().all(|[asked, answered]| asked == answered);
            quiet = if answered && now == before { quiet + 1 } else { 0 };
            before = now;
            std::thread::park_timeout(SETTLING);
        }
    }

    /// Waits until everything that was read of the queue is answered: some backends stop reading and say so before.
    fn settles(&self, number: usize, base: u16, end: Instant) -> bool {
        let (Some(memory), Some([_, ring])) = (&self.memory, self.rings.get(number)) else { return true };
        loop {
            match recover::used(memory, *ring) {
                Some(used) if used == base => return true,
                None => return true,
                Some(_) if Instant::now() > end => return false,
                Some(_) => std::thread::park_timeout(SETTLING),
            }
        }
    }

    /// Interrupts that the backend has sent.
    fn called(&self) -> u64 {
        let calls = self.calls.events().iter().enumerate();
        calls.filter(|(_, call)| call.read().is_ok()).fold(0, |mask, (number, _)| mask | 1 << number)
    }

    /// Waits for the events that are the worker's. One that cannot be waited for is looked at by nobody, so its device is lost.
    fn follow(&mut self) {
        let due = self.calls.of_worker() & !self.watched;
        for (number, call) in (0u64..).zip(self.calls.events()).filter(|(number, _)| due & 1 << number != 0) {
            if watch(&self.epoll, call.as_raw_fd(), number).is_err() {
                return self.lose();
            }
            self.watched |= 1 << number;
        }
    }

    /// The backend's own requests.
    fn hear(&mut self) {
        let Some(channel) = self.backend.as_mut().and_then(|backend| backend.channel.as_mut()) else { return };
        match channel.take() {
            Ok(heads) if heads.iter().any(|head| head.request == CONFIG_CHANGED) => self.read_space(),
            Ok(_) => {}
            Err(_) => self.lose(),
        }
    }

    fn read_space(&mut self) {
        let config = self.backend.as_ref().map(|backend| backend.config(self.link.shape.asks()));
        match config {
            Some(Ok(config)) => {
                self.theirs = config;
                self.see_space();
            }
            Some(Err(_)) => self.lose(),
            None => {}
        }
    }

    fn told(&mut self, used: u64) -> Served {
        Served { used, changed: std::mem::take(&mut self.changed), ..Served::default() }
    }
}

fn watch(epoll: &Epoll, fd: RawFd, data: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN | EventSet::READ_HANG_UP, data))
}

impl Device for VhostUser {
    fn number(&self) -> u32 {
        self.link.shape.number()
    }

    fn features(&self) -> u64 {
        self.link.shape.features(self.link.features)
    }

    fn ring_features(&self) -> u64 {
        self.link.shape.ring_features(self.link.features)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.link.shape.queue_sizes()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(&self.space, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if !self.link.shape.takes(offset, data) {
            return;
        }
        let Some(backend) = &self.backend else { return };
        match backend.write_config(offset as u32, data) {
            Ok(()) => self.read_space(),
            Err(_) => self.lose(),
        }
    }

    fn activate(&mut self, features: u64) {
        self.wanted = Some(features);
        let _ = self.link.wake.write(1);
    }

    fn reset(&mut self) {
        self.stop(u64::MAX, |_, _| {});
        if self.wanted.take().is_some() && self.backend.as_ref().is_some_and(|backend| backend.reset().is_err()) {
            self.lose();
        }
        (self.lost, self.inflight) = (0, None);
        self.called();
    }

    fn queue_stopped(&mut self, queue: usize) {
        self.stop(1 << queue.min(63), |_, _| {});
    }

    fn serve(&mut self, _queue: usize, _queues: &mut [Queue], _memory: &Memory) -> Result<Served, Broken> {
        Ok(Served::default())
    }

    fn is_served_elsewhere(&self) -> bool {
        true
    }

    fn take_kicks(&mut self, kicks: Vec<EventFd>) {
        self.kicks = kicks;
    }

    fn calls(&self) -> Option<Arc<Calls>> {
        Some(self.calls.clone())
    }

    fn host_end(&self) -> Option<RawFd> {
        Some(self.epoll.as_raw_fd())
    }

    fn wants_host(&self) -> bool {
        true
    }

    fn host_ready(&mut self, queues: &mut [Queue], memory: &Memory) -> Result<Served, Broken> {
        let mut events = [EpollEvent::default(); 16];
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        let mut used = 0;
        for event in &events[..count] {
            match event.data() {
                WAKE => drop(self.link.wake.read()),
                // Answers are waited for where they were asked for: anything else is the end.
                SOCKET => self.lose(),
                CHANNEL => self.hear(),
                number => {
                    if self.calls.event(number as usize).is_some_and(|call| call.read().is_ok()) {
                        used |= 1 << number;
                    }
                }
            }
        }
        self.follow();
        self.connect();
        self.go(queues, memory);
        Ok(self.told(used))
    }

    fn rest(&mut self, queues: &mut [Queue]) -> Served {
        self.resting = true;
        // What was answered after a queue had stopped was answered without a word.
        let started = self.started;
        self.stop(u64::MAX, |number, base| {
            if let Some(queue) = queues.get_mut(number) {
                queue.set_next_avail(base);
            }
        });
        let used = self.called();
        self.told(used | started)
    }

    fn go_on(&mut self) {
        self.resting = false;
        let _ = self.link.wake.write(1);
    }

    fn can_move(&self) -> Result<(), String> {
        let name = &self.link.name;
        if self.wanted.is_some() && matches!(self.link.shape.kind, Kind::Share { .. }) {
            return Err(format!("the guest uses {name}, and what its backend knows of open files stays there"));
        }
        match &self.backend {
            None => Err(format!("the backend of {name} is away")),
            Some(backend) if !backend.can_log() => Err(format!("the backend of {name} does not log what it writes")),
            Some(_) => Ok(()),
        }
    }

    fn log_writes(&mut self, queues: &[Queue], log: Option<Arc<Log>>) -> Result<(), String> {
        self.log = log;
        let (Some(backend), Some(features), true) = (&self.backend, self.wanted, self.running) else { return Ok(()) };
        let queues = (0u32..).zip(queues).filter(|(number, _)| self.started & 1 << number != 0);
        let queues: Vec<_> = queues.collect();
        backend.log(features, &queues, self.log.as_deref()).map_err(|e| {
            self.lose();
            format!("the backend of {}: {e}", self.link.name)
        })
    }

    fn save(&self) -> Result<Vec<u8>, SnapshotError> {
        let name = &self.link.name;
        if self.backend.is_none() {
            return Err(SnapshotError::Mismatch(format!("the backend of {name} is away")));
        }
        if self.wanted.is_some() && matches!(self.link.shape.kind, Kind::Share { .. }) {
            let text = format!("the guest uses {name}, and what its backend knows of open files stays there");
            return Err(SnapshotError::Mismatch(text));
        }
        snapshot::encode(&self.space)
    }

    fn restore(&mut self, saved: &[u8], _memory: &Memory) -> Result<(), SnapshotError> {
        let space: Vec<u8> = snapshot::decode(saved)?;
        match space == self.space {
            true => Ok(()),
            false => Err(SnapshotError::Mismatch(format!("{} was another device", self.link.name))),
        }
    }
}

impl Drop for VhostUser {
    /// Its machine has ended, and the queues have been taken back at the gate.
    fn drop(&mut self) {
        self.stop(u64::MAX, |_, _| {});
        if let Some(backend) = self.backend.take() {
            *lock(&self.link.idle) = Some((backend, std::mem::take(&mut self.theirs)));
        }
    }
}

#[cfg(test)]
mod tests;
