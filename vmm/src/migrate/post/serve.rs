//! The source of a machine that runs elsewhere: sends pages that are asked for, and the others behind them.

use super::super::send::{Handover, Sending};
use super::super::stream::LOOK_MS;
use super::super::wire::{self as base, PAGE, READY, RUNNING, number};
use super::super::{MigrateError, stream::Stream};
use super::wire::{self, ASK, CAN, CANNOT, COMPLETE, Identity, MISSING};
use crate::fault::{Bits, Missing};
use crate::journal;
use crate::snapshot::MachineState;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// How long what a target has said last is looked for.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Pages that are sent unasked between two looks for questions.
const CHUNK: u64 = 16;

/// What the target does not have, and what of that it wants first.
pub struct Served {
    identity: Identity,
    missing: Missing,
    wanted: VecDeque<u64>,
    /// Where the next page that is sent unasked lies.
    cursor: u64,
    /// The target has said that it runs the machine.
    ran: bool,
}

/// What is waited for.
#[derive(PartialEq, Eq)]
enum Until {
    Ready,
    Complete,
}

impl Sending {
    /// First words; where post-copy is allowed, the target says whether it can.
    pub(in super::super) fn greet(&mut self) -> Result<(), MigrateError> {
        base::greet(&mut self.stream, &self.memory, self.terms.post_copy)?;
        if !self.terms.post_copy {
            return Ok(());
        }
        self.stream.flush()?;
        match number::<1>(self.stream.get_mut()) {
            Ok([CAN]) => self.progress.can_post_copy.store(true, Ordering::Release),
            Ok([CANNOT]) => {}
            Ok(_) => return Err(MigrateError::Nonsense("an answer out of turn")),
            Err(MigrateError::Stream(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(MigrateError::Older);
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The state, while the machine stands still; then pages until the target has all. An error: the target has not been
    /// told to run it.
    pub(in super::super) fn post_copy(
        &mut self,
        state: &MachineState,
        left: Bits,
        cancelled: &Arc<AtomicBool>,
    ) -> Result<Handover, MigrateError> {
        self.cancellable(cancelled, |sending| {
            let mut bits = sending.changed()?;
            for (bits, left) in bits.iter_mut().zip(&left) {
                bits.resize(bits.len().max(left.len()), 0);
                bits.iter_mut().zip(left).for_each(|(all, left)| *all |= left);
            }
            sending.send_parts(cancelled)?;
            let (identity, missing) = (wire::identity()?, Missing::new(&sending.memory, bits));
            wire::send_missing(&mut sending.stream, &identity, &missing.bits())?;
            base::send_state(&mut sending.stream, state)?;
            sending.stream.flush()?;
            let mut served = Served { identity, missing, wanted: VecDeque::new(), cursor: 0, ran: false };
            let ready = sending.serve(&mut served, &Until::Ready);
            sending.served = Some(served);
            ready?;
            if cancelled.load(Ordering::Acquire) { Err(MigrateError::Cancelled) } else { Ok(()) }
        })?;
        self.progress.told.store(true, Ordering::Release);
        // From here on only the end of this process ends it.
        self.stream.get_mut().cancelled = self.progress.ending.clone();
        let told = self.stream.write_all(&[base::GO]).and_then(|()| self.stream.flush());
        Ok(self.serve_all(told.map_err(MigrateError::from)))
    }

    fn serve_all(&mut self, begun: Result<(), MigrateError>) -> Handover {
        let Some(mut served) = self.served.take() else { return Handover::Moved };
        let mut result = begun.and_then(|()| self.serve(&mut served, &Until::Complete));
        if result.is_err() && self.was_complete() {
            result = Ok(());
        }
        let ran = served.ran;
        self.served = Some(served);
        match result {
            Ok(()) => Handover::Moved,
            Err(e) => Handover::Torn { ran, reason: e },
        }
    }

    /// A target whose machine has ended takes no more pages, but has said so.
    fn was_complete(&mut self) -> bool {
        let input = self.stream.get_mut();
        input.limit(LAST_WORD);
        loop {
            match number::<1>(input) {
                Ok([COMPLETE]) => return true,
                Ok([RUNNING]) => {}
                Ok([ASK]) if number::<8>(input).is_ok() => {}
                _ => return false,
            }
        }
    }

    /// Another stream to where the target listens.
    pub fn reconnect(&mut self, stream: File) -> io::Result<()> {
        let mut stream = Stream::new(stream)?;
        stream.cancelled = self.progress.ending.clone();
        let fresh = BufWriter::with_capacity(super::super::send::BUFFER, stream);
        // What was not sent over the stream before is not sent at all.
        drop(std::mem::replace(&mut self.stream, fresh).into_parts());
        Ok(())
    }

    /// Goes on over it: the target says what it still misses.
    pub fn go_on(&mut self) -> Handover {
        let heard = self.ask_again();
        self.serve_all(heard)
    }

    fn ask_again(&mut self) -> Result<(), MigrateError> {
        let Some(served) = &mut self.served else { return Ok(()) };
        wire::greet_again(&mut self.stream, &served.identity)?;
        self.stream.flush()?;
        let input = self.stream.get_mut();
        if number::<1>(input)? != [MISSING] {
            return Err(MigrateError::Nonsense("an answer out of turn"));
        }
        let (identity, bits) = wire::take_missing(input, &self.memory)?;
        if identity != served.identity {
            return Err(MigrateError::Nonsense("it is the target of another machine"));
        }
        (served.missing, served.ran) = (Missing::new(&self.memory, bits), true);
        served.wanted.clear();
        Ok(())
    }

    /// Questions come first, then what was asked for, then the rest.
    fn serve(&mut self, served: &mut Served, until: &Until) -> Result<(), MigrateError> {
        let mut buffer = vec![0; (CHUNK * PAGE) as usize];
        loop {
            self.progress.left.store(served.missing.left(), Ordering::Relaxed);
            let rests = served.wanted.is_empty() && (!served.ran || served.missing.left() == 0);
            if self.stream.get_ref().is_readable(if rests { LOOK_MS } else { 0 })? {
                match (number::<1>(self.stream.get_mut())?, until) {
                    ([ASK], _) => {
                        let page = u64::from_le_bytes(number(self.stream.get_mut())?);
                        // What it has been sent is on its way.
                        if served.missing.is_due(page) && served.missing.ask(page) {
                            served.wanted.push_back(page);
                        }
                    }
                    ([READY], Until::Ready) | ([COMPLETE], Until::Complete) => return Ok(()),
                    ([RUNNING], Until::Complete) => self.runs(served),
                    _ => return Err(MigrateError::Nonsense("an answer out of turn")),
                }
                continue;
            }
            let run = match served.wanted.pop_front() {
                Some(page) => served.missing.is_due(page).then_some((page, 1)),
                None if served.ran => served.missing.next_run(served.cursor, CHUNK),
                None => None,
            };
            let Some((address, pages)) = run else { continue };
            let part = &mut buffer[..(pages * PAGE) as usize];
            self.memory.read_slice(part, GuestAddress(address))?;
            self.send_run(address, part)?;
            self.stream.flush()?;
            served.cursor = address + pages * PAGE;
            for page in 0..pages {
                served.missing.arrived(address + page * PAGE);
            }
        }
    }

    fn runs(&self, served: &mut Served) {
        served.ran = true;
        let (still, left) = (self.still.elapsed().as_secs_f64() * 1e3, served.missing.left());
        journal::line(&self.id, format_args!("it runs there after {still:.1} ms; {left} pages follow"));
    }
}
