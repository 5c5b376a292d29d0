//! Queues that are served side by side: each by a lane, on a thread of its own, under a lock of its own.
//!
//! ```text
//!   registers ─► Transport (its lock) ──driver ready: queue handed out──► Desk 0 (its lock): lane + queue ◄─ worker 0
//!                     │                                                  Desk 1 ...                       ◄─ worker 1
//!                     └──reset, queue taken back, device broken: queue taken away, once the turn under way has ended
//! ```
//! The transport's lock comes before a desk's, never after it. While a queue is on its desk, how far it was read is known there
//! alone. A lane that finds its queue broken lays it down and then breaks the device, which by that time may live another life: so
//! it names the one that it served (`life`).

use super::transport::QueueFields;
use super::{Broken, Served};
use crate::gate::lock;
use crate::memory::Memory;
use crate::snapshot::SnapshotError;
use std::sync::Mutex;
use virtio_queue::{Queue, QueueT};

/// What serves one queue of a device. All calls come under its desk's lock.
pub trait Lane: Send {
    /// The driver notified the queue.
    fn serve(&mut self, queue: &mut Queue, memory: &Memory) -> Result<Served, Broken>;
    /// The driver has gone, or took the queue back: its memory is no longer ours. Forget what was under way.
    fn stopped(&mut self) {}
    /// Why the device cannot be written down now, where that is so. Called while the worker stands still.
    fn can_save(&self) -> Result<(), SnapshotError> {
        Ok(())
    }
}

/// A lane with its queue, while the driver lets it have one.
struct Desk {
    lane: Box<dyn Lane>,
    queue: Option<Queue>,
    life: u64,
}

/// All desks of a device; none where one worker serves all queues.
pub(super) struct Lanes {
    desks: Vec<Mutex<Desk>>,
    memory: Memory,
}

/// A queue broke in this life of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broke(pub(super) u64);

impl Lanes {
    pub(super) fn new(lanes: Vec<Box<dyn Lane>>, memory: Memory) -> Lanes {
        let desk = |lane| Mutex::new(Desk { lane, queue: None, life: 0 });
        Lanes { desks: lanes.into_iter().map(desk).collect(), memory }
    }

    pub(super) fn count(&self) -> usize {
        self.desks.len()
    }

    /// The driver is ready.
    pub(super) fn hand_out(&self, queues: &[Queue], life: u64) {
        for (desk, queue) in self.desks.iter().zip(queues) {
            let mut desk = lock(desk);
            desk.life = life;
            desk.queue =
                Some(queue).filter(|queue| queue.ready()).and_then(|queue| Queue::try_from(queue.state()).ok());
        }
    }

    /// Takes one queue away: none of its memory is touched from here on.
    pub(super) fn take_back(&self, number: usize) {
        if let Some(desk) = self.desks.get(number) {
            let mut desk = lock(desk);
            desk.queue = None;
            desk.lane.stopped();
        }
    }

    /// Takes all queues away.
    pub(super) fn clear(&self) {
        (0..self.desks.len()).for_each(|number| self.take_back(number));
    }

    /// How a queue stands that is on its desk.
    pub(super) fn fields(&self, number: usize) -> Result<Option<QueueFields>, SnapshotError> {
        let Some(desk) = self.desks.get(number) else { return Ok(None) };
        let desk = lock(desk);
        desk.lane.can_save()?;
        Ok(desk.queue.as_ref().map(QueueFields::of))
    }
}

impl Lanes {
    /// A turn of work. Used buffers are told of by `tell` before the desk is free again: nothing comes after a reset.
    pub(super) fn turn(&self, number: usize, tell: impl FnOnce()) -> Result<Served, Broke> {
        let served = self.with(number, |lane, queue, memory| {
            let served = lane.serve(queue, memory)?;
            if served.interrupt {
                tell();
            }
            Ok(served)
        });
        served.map(Option::unwrap_or_default)
    }

    /// Looks at the queues of the mask that are on their desks; the mask of those where `look` finds something.
    pub(super) fn each(
        &self,
        mask: u64,
        look: impl Fn(&mut Queue, &Memory) -> Result<bool, Broken>,
    ) -> Result<u64, Broke> {
        let mut found = 0;
        for number in (0..self.desks.len()).filter(|number| mask & 1 << number != 0) {
            if self.with(number, |_, queue, memory| look(queue, memory))? == Some(true) {
                found |= 1 << number;
            }
        }
        Ok(found)
    }

    /// Does something with a queue that is on its desk. A queue that turns out to be broken is laid down.
    fn with<T>(
        &self,
        number: usize,
        work: impl FnOnce(&mut dyn Lane, &mut Queue, &Memory) -> Result<T, Broken>,
    ) -> Result<Option<T>, Broke> {
        let Some(desk) = self.desks.get(number) else { return Ok(None) };
        let mut desk = lock(desk);
        let Desk { lane, queue, life } = &mut *desk;
        let Some(held) = queue else { return Ok(None) };
        work(lane.as_mut(), held, &self.memory).map(Some).map_err(|_| {
            *queue = None;
            lane.stopped();
            Broke(*life)
        })
    }
}

#[cfg(test)]
mod tests;
