//! The thread of a device: waits for notifications and for the host's end, and does the work in bounded turns.

use super::mmio::Slot;
use crate::gate::{Gate, Pass};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

const HOST: u64 = 1 << 32;
const WAKE: u64 = 1 << 33;

/// What the thread works with.
pub struct Worker {
    slot: Arc<Slot>,
    gate: Arc<Gate>,
    epoll: Epoll,
    wake: EventFd,
    watching_host: bool,
    host_gone: bool,
}

impl Worker {
    /// Prepares the waiting. `wake` brings the thread to the gate.
    pub fn new(slot: Arc<Slot>, gate: Arc<Gate>, wake: EventFd) -> io::Result<Worker> {
        let epoll = Epoll::new()?;
        let add = |fd, data| epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, data));
        for (n, event) in (0u64..).zip(&slot.notify) {
            add(event.as_raw_fd(), n)?;
        }
        add(wake.as_raw_fd(), WAKE)?;
        if let Some((fd, _)) = slot.host_end() {
            epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::empty(), HOST))?;
        }
        Ok(Worker { slot, gate, epoll, wake, watching_host: false, host_gone: false })
    }

    /// Works until the gate says quit.
    pub fn run(mut self) {
        let mut events = [EpollEvent::default(); 8];
        let mut again = 0u64;
        loop {
            if self.gate.pass() == Pass::Quit {
                return;
            }
            self.watch_host();
            let timeout = if again == 0 { -1 } else { 0 };
            let count = self.epoll.wait(timeout, &mut events).unwrap_or(0);
            // Woken in order to pause: what is pending stays pending until the gate opens.
            let (mut queues, mut host) = (std::mem::take(&mut again), false);
            for event in &events[..count] {
                match event.data() {
                    WAKE => drop(self.wake.read()),
                    HOST if event.event_set().intersects(EventSet::ERROR | EventSet::HANG_UP) => self.lose_host(),
                    HOST => host = true,
                    number => {
                        let _ = self.slot.notify.get(number as usize).map(EventFd::read);
                        queues |= 1 << (number & 31);
                    }
                }
            }
            if self.gate.is_calling() {
                again = queues;
                continue;
            }
            if host {
                self.slot.turn(None);
            }
            for number in (0..self.slot.notify.len()).filter(|n| queues & (1 << n) != 0) {
                if self.slot.turn(Some(number)).more {
                    again |= 1 << number;
                }
            }
        }
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
