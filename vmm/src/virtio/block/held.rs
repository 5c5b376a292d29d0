//! Requests that were taken from the queue and cannot be asked: where the disk's bytes are is away. They are done in their
//! order once it is back; until then nothing more is taken.

use super::lane::{Requests, Waiting};
use crate::memory::Memory;
use crate::virtio::Broken;
use crate::virtio::chain::{self, Chain};
use virtio_queue::Queue;

/// A request that is not answered yet.
pub(super) enum Held {
    Transfer(Waiting),
    /// Chain, its room, and the kind of request.
    Other(Chain, u64, u32),
}

impl Requests {
    /// Does what is held, in its order, as far as that goes.
    pub(super) fn go_on(&mut self, queue: &mut Queue, memory: &Memory) -> Result<(), Broken> {
        let (mut batch, mut held) = (Vec::new(), std::mem::take(&mut self.held).into_iter());
        while let Some(next) = held.next() {
            match next {
                Held::Transfer(waiting) => batch.push(waiting),
                Held::Other(chain, room, kind) => {
                    match self.after_batch(kind, chain, room, &mut batch, queue, memory)? {
                        Some((head, written)) => chain::give_back(queue, memory, head, written)?,
                        None => {
                            self.held.extend(held);
                            return Ok(());
                        }
                    }
                }
            }
        }
        self.run(&mut batch, queue, memory)
    }

    /// Does the batch, then a request that is no transfer: head of its chain and bytes written; none when it is held.
    pub(super) fn after_batch(
        &mut self,
        kind: u32,
        chain: Chain,
        room: u64,
        batch: &mut Vec<Waiting>,
        queue: &mut Queue,
        memory: &Memory,
    ) -> Result<Option<(u16, u32)>, Broken> {
        self.run(batch, queue, memory)?;
        if self.held.is_empty() {
            let (status, written) = self.other(kind, &chain, room, memory)?;
            if !self.backing.is_away(false) {
                return Ok(Some((chain.head, self.finish(&chain, room, status, written, memory)?)));
            }
        }
        self.held.push(Held::Other(chain, room, kind));
        Ok(None)
    }
}
