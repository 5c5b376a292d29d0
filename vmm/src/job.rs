//! One long piece of work beside a machine, on a thread of its own, so that the control socket goes on answering.

use crate::gate::lock;
use crate::machine::Stop;
use crate::migrate::send::{Handover, Sending};
use crate::sandbox::Threads;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use vmm_sys_util::eventfd::EventFd;

/// What is there when it has gone well.
pub enum Outcome {
    /// A whole snapshot.
    Written,
    /// A target that has most of the memory.
    PreCopied(Box<Sending>),
    /// A target that was told to run the machine.
    HandedOver(Handover),
    /// A target that was told to run it, and a stream that broke before it had all memory.
    Torn(Torn),
}

/// A machine that is on both sides.
pub struct Torn {
    /// Has the pages that are missing there.
    pub sending: Box<Sending>,
    /// The target has said that it runs.
    pub ran: bool,
    /// How the stream broke.
    pub reason: String,
}

impl Outcome {
    /// Of the last step of a move.
    pub fn of(handover: Handover, sending: Box<Sending>) -> Outcome {
        match handover {
            Handover::Torn { ran, reason } => Outcome::Torn(Torn { sending, ran, reason: reason.to_string() }),
            other => Outcome::HandedOver(other),
        }
    }
}

/// How it ended; None while it has not.
type Ending = Arc<Mutex<Option<Result<Outcome, String>>>>;

/// The work.
pub struct Job {
    /// Connection that asked for it.
    pub requester: u64,
    /// Becomes readable at its end.
    pub done: EventFd,
    outcome: Ending,
    cancelled: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Job {
    /// Starts it. `body` looks at the flag that it is given, and stops early when that is set.
    pub fn start<E: std::fmt::Display>(
        threads: &Threads,
        name: &str,
        requester: u64,
        stop: Arc<Stop>,
        body: impl FnOnce(&Arc<AtomicBool>) -> Result<Outcome, E> + Send + 'static,
    ) -> io::Result<Job> {
        let done = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
        let (outcome, cancelled) = (Ending::default(), Arc::new(AtomicBool::new(false)));
        let (tell, told, flag) = (done.try_clone()?, outcome.clone(), cancelled.clone());
        let thread = threads.spawn(name, Threads::JOB, stop, move || {
            let result = body(&flag).map_err(|e| e.to_string());
            *lock(&told) = Some(result);
            let _ = tell.write(1);
        })?;
        Ok(Job { requester, done, outcome, cancelled, thread })
    }

    /// Asks it to stop early.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    /// Whether somebody has asked it to stop; it may have ended before it saw that.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether its thread has gone home.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    pub fn end(self) -> Result<Outcome, String> {
        let ended = self.thread.join();
        let outcome = lock(&self.outcome).take();
        outcome.unwrap_or_else(|| Err(if ended.is_err() { "it panicked" } else { "it was not started" }.into()))
    }
}
