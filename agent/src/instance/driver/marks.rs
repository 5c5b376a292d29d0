//! What the driver writes down: how far the instance has come, where that cannot be seen.
use super::{Driver, counters, io, moving};
use crate::durable;
use crate::error::Trouble;
use crate::instance::plan::Step;
use crate::ledger::Doc;
use pilvi_agent_api::v1::Instance;

impl Driver {
    /// Does a step that is only written down.
    pub(super) fn mark(&mut self, step: Step, wanted: &Instance) -> Result<(), Trouble> {
        let done = counters(wanted);
        match step {
            Step::MarkStarted => self.mark_started(),
            Step::Ending => self.save(|doc| doc.started.clear()),
            Step::MarkEnded(ended) => {
                tracing::warn!(instance = self.guest.id, crashed = ended.crashed, "the guest ended by itself");
                self.save(|doc| {
                    doc.started.clear();
                    doc.ended = Some(ended);
                })
            }
            Step::Rebooted => self.mark_off(|doc| {
                doc.done.hard_reboots = done.hard_reboots;
                doc.done.soft_reboots = done.soft_reboots;
            }),
            Step::Upgraded => self.save(|doc| doc.done.upgrades = done.upgrades),
            // Another image may be for another runtime.
            Step::Rebuilt => self.mark_off(|doc| (doc.done, doc.runtime) = (done, None)),
            Step::MarkSuspended => self.save(|doc| {
                doc.started.clear();
                (doc.starting, doc.suspended) = (false, true);
            }),
            Step::MarkRemoving => {
                self.flight = None;
                self.moves = moving::Moves::default();
                // A full disk must not keep it from being emptied.
                if let Err(trouble) = self.save(|doc| doc.removing = true) {
                    tracing::warn!(instance = self.guest.id, %trouble, "removal not written down");
                }
                Ok(())
            }
            Step::MarkOff => self.mark_off(|_| {}),
            // All others are done, not only noted.
            _ => Ok(()),
        }
    }

    pub(super) fn mark_started(&mut self) -> Result<(), Trouble> {
        let boot = self.context.boot.clone();
        // In this order: a state that is left over is never read again, see Start and Resume.
        durable::remove(&self.guest.saved_state()).map_err(io("saved state"))?;
        self.save(|doc| {
            doc.started = boot;
            (doc.starting, doc.ended, doc.suspended) = (false, None, false);
        })
    }

    fn mark_off(&mut self, change: impl FnOnce(&mut Doc)) -> Result<(), Trouble> {
        durable::remove(&self.guest.saved_state()).map_err(io("saved state"))?;
        self.save(|doc| {
            doc.started.clear();
            (doc.starting, doc.ended, doc.suspended) = (false, None, false);
            change(doc);
        })
    }
}
