//! The thread of a device, or of one of its queues: waits for notifications, for the host's end and for limits, and does the work
//! in bounded turns.
//!
//! ```text
//!   asleep ──notified──► turns ──queue empty──► looking (poll.rs) ──patience ends──► listening: asks to be notified ──► asleep
//!                          ▲                       │ something came                    │ something came meanwhile
//!                          └───────────────────────┴──────────────────────────────────┘
//! ```
//! A queue that is looked at when the gate shuts is so afterwards; whoever is restored from there begins with a notification.

use super::Served;
use super::poll::Patience;
use super::transport::Slot;
use crate::gate::{Gate, Pass};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

const HOST: u64 = 1 << 32;
const WAKE: u64 = 1 << 33;
/// Turns of a device without a host's end between two looks at what else there is.
const TURNS_UNSEEN: u32 = 16;
/// Looks at the queues between two looks at the host's end.
const LOOKS: u32 = 16;

/// Which queues a worker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// All, and the host's end.
    All,
    /// This one; the others have workers of their own.
    Queue(usize),
}

/// What the thread works with.
pub struct Worker {
    slot: Arc<Slot>,
    gate: Arc<Gate>,
    epoll: Epoll,
    wake: EventFd,
    /// Another process serves the queues.
    elsewhere: bool,
    has_host: bool,
    watching_host: bool,
    host_gone: bool,
    /// When a limit lets the queue of that number go on; the last is the host's end.
    held_until: Vec<Option<Instant>>,
    /// Queues that were empty and are looked at.
    quiet: u64,
    patience: Patience,
    /// Rounds since the last look at the events.
    unseen: u32,
}

impl Worker {
    /// Prepares the waiting. `wake` brings the thread to the gate.
    pub fn new(slot: Arc<Slot>, share: Share, gate: Arc<Gate>, wake: EventFd) -> io::Result<Worker> {
        let epoll = Epoll::new()?;
        let elsewhere = slot.is_served_elsewhere();
        let mine = |n: u64| share == Share::All || share == Share::Queue(n as usize);
        for (n, event) in (0u64..).zip(&slot.notify).filter(|(n, _)| !elsewhere && mine(*n)) {
            // Each notification is an edge: what it counts need not be read.
            let edge = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, n);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), edge)?;
        }
        epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), EpollEvent::new(EventSet::IN, WAKE))?;
        let host = slot.host_end().filter(|_| share == Share::All);
        if let Some((fd, _)) = host {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::empty(), HOST))?;
        }
        let held_until = vec![None; slot.notify.len() + 1];
        Ok(Worker {
            slot,
            gate,
            epoll,
            wake,
            elsewhere,
            has_host: host.is_some(),
            watching_host: false,
            host_gone: false,
            held_until,
            quiet: 0,
            patience: Patience::default(),
            unseen: 0,
        })
    }

    /// Works until the gate says quit.
    pub fn run(mut self) {
        let mut events = [EpollEvent::default(); 8];
        let host_bit = 1u64 << self.slot.notify.len();
        let mut again = 0u64;
        loop {
            if self.pass() == Pass::Quit || self.slot.is_retired() {
                return;
            }
            let count = self.wait(&mut again, &mut events);
            let mut work = std::mem::take(&mut again) | self.released();
            for event in &events[..count] {
                match event.data() {
                    WAKE => drop(self.wake.read()),
                    HOST if event.event_set().intersects(EventSet::ERROR | EventSet::HANG_UP) => self.lose_host(),
                    HOST => work |= host_bit,
                    number => work |= 1 << (number & 31),
                }
            }
            // Woken in order to pause: what is pending stays pending until the gate opens.
            if self.gate.is_calling() {
                again = work;
                continue;
            }
            again |= self.turns(work);
            if again != 0 {
                // Nobody says when something comes to these, so they have their turn, too.
                again |= std::mem::take(&mut self.quiet);
            }
        }
    }

    /// Passes the gate. Nobody stands there whose queues are being served elsewhere.
    fn pass(&self) -> Pass {
        if !self.elsewhere {
            return self.gate.pass();
        }
        if !self.gate.is_calling() {
            return Pass::Go;
        }
        self.slot.rest();
        let pass = self.gate.pass();
        self.slot.go_on();
        pass
    }

    /// Waits for events as long as there is nothing else to do; `again` gets what quiet queues have.
    fn wait(&mut self, again: &mut u64, events: &mut [EpollEvent]) -> usize {
        if self.has_host {
            self.watch_host();
        }
        let mut looking = false;
        if *again == 0 && self.quiet != 0 {
            (*again, looking) = self.look();
        }
        if *again != 0 && self.unseen < TURNS_UNSEEN && !self.has_host {
            self.unseen += 1;
            return 0;
        }
        self.unseen = 0;
        let timeout = if looking { 0 } else { self.timeout_ms(*again) };
        let count = self.epoll.wait(timeout, events).unwrap_or(0);
        if looking && count > 0 {
            self.patience.rewarded();
        }
        count
    }

    /// Looks at the quiet queues, then listens. The mask of what they have, and whether the looking is to go on.
    fn look(&mut self) -> (u64, bool) {
        let mut looks = 0;
        while self.patience.lasts() {
            let found = self.slot.waiting(self.quiet);
            if found != 0 {
                self.quiet &= !found;
                self.patience.rewarded();
                return (found, false);
            }
            looks += 1;
            if self.gate.is_calling() || (self.has_host && looks == LOOKS) {
                return (0, true);
            }
            std::hint::spin_loop();
        }
        self.patience.ended();
        (self.slot.listen(std::mem::take(&mut self.quiet)), false)
    }

    /// A turn for each queue of the mask and for the host's end; the mask of what has more to do.
    fn turns(&mut self, mut work: u64) -> u64 {
        let queues = self.slot.notify.len();
        let mut again = 0;
        for number in 0..=queues {
            let bit = 1 << number;
            if work & bit == 0 || self.held_until[number].is_some() {
                continue;
            }
            let served = self.slot.turn((number < queues).then_some(number));
            if served.more && number < queues {
                again |= bit;
            }
            if served.quiet && number < queues {
                self.quiet |= bit;
            }
            if served.host {
                // The host's end comes last in this round; when it asks for itself, in the next.
                *(if number < queues { &mut work } else { &mut again }) |= 1 << queues;
            }
            self.hold(number, served);
        }
        again
    }

    fn hold(&mut self, number: usize, served: Served) {
        self.held_until[number] = served.later.map(|time| Instant::now() + time);
    }

    /// The mask of what a limit held back until now.
    fn released(&mut self) -> u64 {
        let mut mask = 0;
        if self.held_until.iter().any(Option::is_some) {
            let now = Instant::now();
            for (number, until) in self.held_until.iter_mut().enumerate() {
                if until.is_some_and(|until| until <= now) {
                    *until = None;
                    mask |= 1 << number;
                }
            }
        }
        mask
    }

    fn timeout_ms(&self, again: u64) -> i32 {
        if again != 0 {
            return 0;
        }
        let Some(next) = self.held_until.iter().flatten().min() else { return -1 };
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, or the last fraction of a millisecond would spin.
        left.as_millis().min(1000) as i32 + i32::from(!left.is_zero())
    }

    /// The tap was deleted under us. Its errors cannot be masked, so it leaves the set; the guest sees a dead link.
    fn lose_host(&mut self) {
        if let Some((fd, _)) = self.slot.host_end() {
            let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        }
        self.host_gone = true;
    }

    /// Watches the host's end only while the device can take something from it: a level-triggered event that nobody
    /// serves would spin.
    fn watch_host(&mut self) {
        let Some((fd, wanted)) = self.slot.host_end() else { return };
        if !self.host_gone && wanted != self.watching_host {
            let events = if wanted { EventSet::IN } else { EventSet::empty() };
            if self.epoll.ctl(ControlOperation::Modify, fd, EpollEvent::new(events, HOST)).is_ok() {
                self.watching_host = wanted;
            }
        }
    }
}
