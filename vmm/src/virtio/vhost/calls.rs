//! The events by which a backend interrupts, one a queue, and who listens to them: the device's worker, unless the transport has
//! taken them to pass them on by itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// All events of a device.
#[derive(Debug)]
pub struct Calls {
    events: Vec<EventFd>,
    /// Queues, a bit each, whose events are the worker's.
    workers: AtomicU64,
    /// Has the worker look.
    wake: EventFd,
}

impl Calls {
    /// So many, all of them the worker's.
    pub(in crate::virtio) fn new(queues: usize, wake: &EventFd) -> io::Result<Arc<Calls>> {
        let event = |_| EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let events = (0..queues).map(event).collect::<io::Result<_>>()?;
        Ok(Arc::new(Calls { events, workers: AtomicU64::new(u64::MAX), wake: wake.try_clone()? }))
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.events.len()
    }

    /// Of this queue.
    pub fn event(&self, queue: usize) -> Option<&EventFd> {
        self.events.get(queue)
    }

    /// All of them.
    pub(super) fn events(&self) -> &[EventFd] {
        &self.events
    }

    /// The transport has taken them.
    pub fn taken(&self) {
        self.workers.store(0, Ordering::Release);
    }

    /// The transport cannot pass this one on.
    pub fn send_to_worker(&self, queue: usize) {
        self.workers.fetch_or(1 << queue, Ordering::AcqRel);
        // Whatever thread this is: the worker takes it up.
        let _ = self.wake.write(1);
    }

    /// Those that are the worker's.
    pub(in crate::virtio) fn of_worker(&self) -> u64 {
        self.workers.load(Ordering::Acquire)
    }
}
