//! Interrupts of devices that another process serves: from its events straight to the guest, by KVM.
//!
//! ```text
//!   held ──vector chosen, MSI-X on, nothing masked──► direct (irqfd, with a route to the vector's message)
//!    ▲  what came meanwhile is given first                │  the guest writes the vector's message: another route
//!    └────────vector masked, taken away, reset────────────┘
//!   worker   what KVM does not take: the device's worker hears of it, and interrupts as for other devices
//! ```
//! While an event is held nobody listens to it: it counts by itself, and is read when the guest asks what is pending, and before it
//! is direct again. So a masked vector costs its device's backend nothing and this process no wake-up.

use crate::gate::lock;
use crate::pci::msix::Message;
use crate::pci::routes::Routes;
use crate::virtio::vhost::Calls;
use kvm_ioctls::VmFd;
use std::io;
use std::sync::{Arc, Mutex};

/// Where an event leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Held,
    Direct(Message),
    Worker,
}

#[derive(Debug)]
struct Line {
    number: u32,
    way: Way,
}

/// The events of one device.
pub struct Direct {
    vm: Arc<VmFd>,
    routes: Arc<Routes>,
    calls: Arc<Calls>,
    lines: Mutex<Vec<Line>>,
}

impl Direct {
    /// All of them held. None: there are not enough numbers left.
    pub fn new(vm: Arc<VmFd>, routes: Arc<Routes>, calls: Arc<Calls>) -> Option<Direct> {
        let direct = Direct { vm, routes, calls, lines: Mutex::default() };
        for _ in 0..direct.calls.count() {
            let number = direct.routes.take()?;
            lock(&direct.lines).push(Line { number, way: Way::Held });
        }
        Some(direct)
    }

    /// The guest has changed something: has each event lead where its queue's vector does now. `raise` gives a queue's interrupt
    /// that has waited.
    pub fn settle(&self, wanted: impl Fn(usize) -> Option<Message>, raise: impl Fn(usize)) {
        for (queue, line) in lock(&self.lines).iter_mut().enumerate() {
            let way = match (line.way, wanted(queue)) {
                (Way::Worker, _) | (Way::Held, None) => continue,
                (Way::Direct(message), Some(now)) if message == now => continue,
                (way, Some(message)) => {
                    let led = self.routes.lead(&self.vm, line.number, message);
                    match led.and_then(|()| self.listen(queue, line.number, way, &raise)) {
                        Ok(()) => Way::Direct(message),
                        Err(_) => {
                            self.leave(queue, line);
                            self.calls.send_to_worker(queue);
                            Way::Worker
                        }
                    }
                }
                (Way::Direct(_), None) => {
                    self.leave(queue, line);
                    Way::Held
                }
            };
            line.way = way;
        }
    }

    /// Has KVM take the event, if it does not yet. Between reading it and that it may come again: KVM looks, too.
    fn listen(&self, queue: usize, number: u32, way: Way, raise: &impl Fn(usize)) -> io::Result<()> {
        let (Way::Held, Some(event)) = (way, self.calls.event(queue)) else { return Ok(()) };
        if event.read().is_ok() {
            raise(queue);
        }
        self.vm.register_irqfd(event, number).map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }

    /// KVM leaves the event alone. What was on its way has arrived when this returns.
    fn leave(&self, queue: usize, line: &Line) {
        if let (Way::Direct(_), Some(event)) = (line.way, self.calls.event(queue)) {
            // It fails only for what it does not have.
            let _ = self.vm.unregister_irqfd(event, line.number);
        }
        self.routes.forget(line.number);
    }

    /// Queues whose events have come while they were held.
    pub fn gather(&self) -> Vec<usize> {
        let lines = lock(&self.lines);
        let held = lines.iter().enumerate().filter(|(_, line)| line.way == Way::Held);
        let came = held.filter(|(queue, _)| self.calls.event(*queue).is_some_and(|event| event.read().is_ok()));
        came.map(|(queue, _)| queue).collect()
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut *lock(&self.lines));
        for (queue, line) in lines.iter().enumerate() {
            self.leave(queue, line);
            self.routes.give_back(line.number);
        }
    }
}
