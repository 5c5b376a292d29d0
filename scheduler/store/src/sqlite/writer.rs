//! The writer thread: group commit.
//!
//! ```text
//!  queue ──► first job ──► BEGIN IMMEDIATE
//!              │  SAVEPOINT · closure · changes to the feed · RELEASE   (failed: ROLLBACK TO, that job alone)
//!              │  …next jobs, while there are any, up to BATCH_MAX or BATCH_TIME
//!              └► COMMIT (one fsync) ──► answers, watchers      (COMMIT failed: every job gets the error)
//! ```
//!
//! While the disk syncs, the next jobs gather; so the batch grows with the load by itself, and a lone writer
//! waits for nobody.
use super::{at_once, vacuum_into};
use crate::{
    Error, Tx, feed,
    kind::Kinds,
    session::{Engine, Session},
    stats::{Counters, add},
    store::IN_TRANSACTION,
    work::{Outcome, Reading, Transaction},
};
use rusqlite::Connection;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{mpsc, oneshot, watch};

/// Transactions in one COMMIT at most.
const BATCH_MAX: usize = 256;
/// Work before a COMMIT at most, as long as single transactions are short.
const BATCH_TIME: Duration = Duration::from_millis(5);
/// Jobs that wait at most; further callers wait for a place.
const QUEUE: usize = 1024;

pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}

/// What a job does.
pub(crate) enum Work {
    Write(Transaction),
    /// Reads of a store in memory come here too.
    Read(Option<Reading>),
}

/// A piece of work with somebody who waits for it.
pub(crate) struct Job {
    work: Work,
    /// `None`: it has not run.
    outcome: Option<Outcome>,
    answer: oneshot::Sender<Result<(), Error>>,
}

impl Job {
    pub fn new(work: Work) -> (Self, oneshot::Receiver<Result<(), Error>>) {
        let (answer, answered) = oneshot::channel();
        (Job { work, outcome: None, answer }, answered)
    }

    fn is_write(&self) -> bool {
        matches!(self.work, Work::Write(_))
    }

    /// True when what it did shall be kept.
    fn run(&mut self, tx: &mut Tx) -> bool {
        let work = &mut self.work;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let future = match work {
                Work::Write(work) => work(tx),
                Work::Read(work) => work.take().ok_or(Error::Closed)?(&mut tx.session),
            };
            at_once(IN_TRANSACTION.scope((), future))?
        }));
        let outcome = ran.unwrap_or_else(|panic| Err(Error::Panicked { reason: panic_text(&*panic) }));
        let kept = outcome == Ok(true);
        self.outcome = Some(outcome);
        kept
    }

    /// Its result becomes `error`, unless it failed already.
    fn fail(&mut self, error: Error) {
        if matches!(self.outcome, None | Some(Ok(true))) {
            self.outcome = Some(Err(error));
        }
    }

    fn answer(self) {
        // The caller may have gone; the transaction stands all the same.
        let _ = self.answer.send(self.outcome.unwrap_or(Err(Error::Closed)).map(drop));
    }
}

pub(crate) enum Command {
    Run(Job),
    /// A copy of a store in memory.
    Copy(PathBuf, oneshot::Sender<Result<(), Error>>),
    Close(oneshot::Sender<()>),
}

pub(crate) type Writer = mpsc::Sender<Command>;

struct Thread {
    tx: Tx,
    counters: Arc<Counters>,
    head: watch::Sender<i64>,
    last_us: i64,
}

/// Starts the thread; it ends when the last sender is gone.
pub(crate) fn spawn(
    conn: Connection,
    kinds: Arc<Kinds>,
    counters: Arc<Counters>,
    head: watch::Sender<i64>,
) -> Result<Writer, Error> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let session = Session::new(Engine::Sqlite(conn), counters.clone());
    let mut thread = Thread { tx: Tx::new(session, kinds), counters, head, last_us: 0 };
    std::thread::Builder::new()
        .name("store-writer".into())
        .spawn(move || thread.run(receiver))
        .map_err(Error::engine)?;
    Ok(sender)
}

impl Thread {
    fn run(&mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.blocking_recv() {
            let after = match command {
                Command::Run(job) => self.batch(job, &mut queue),
                other => Some(other),
            };
            match after {
                None => {}
                Some(Command::Copy(path, answer)) => {
                    let Engine::Sqlite(conn) = &self.tx.session.engine else { return };
                    let _ = answer.send(vacuum_into(conn, &path));
                }
                Some(Command::Close(answer)) => {
                    queue.close();
                    while let Ok(Command::Run(mut job)) = queue.try_recv() {
                        job.fail(Error::Closed);
                        job.answer();
                    }
                    self.close();
                    let _ = answer.send(());
                    return;
                }
                Some(Command::Run(_)) => {}
            }
        }
    }

    /// Ends the connection: the log is moved into the file.
    fn close(&mut self) {
        let Ok(empty) = Connection::open_in_memory() else { return };
        self.tx.session.engine = Engine::Sqlite(empty);
    }

    fn execute(&mut self, sql: &str) -> Result<(), Error> {
        at_once(self.tx.session.execute(sql, &[]))?.map(drop)
    }

    fn is_open(&self) -> bool {
        matches!(&self.tx.session.engine, Engine::Sqlite(conn) if !conn.is_autocommit())
    }

    /// Runs jobs until the batch is full or the queue empty; hands back what is not a job.
    fn batch(&mut self, first: Job, queue: &mut mpsc::Receiver<Command>) -> Option<Command> {
        let started = Instant::now();
        let begun = self.begin();
        let mut jobs = Vec::new();
        let mut next = Some(first);
        let mut after = None;
        let mut outcome = begun.as_ref().map(drop).map_err(Error::clone);
        let before = begun.unwrap_or_default();
        let mut seq = before;
        while let Some(mut job) = next.take() {
            match &outcome {
                Ok(()) => match self.one(&mut job, seq) {
                    Ok(now) => seq = now,
                    Err(error) => outcome = Err(error),
                },
                Err(error) => job.fail(error.clone()),
            }
            jobs.push(job);
            if outcome.is_err() || jobs.len() >= BATCH_MAX || started.elapsed() >= BATCH_TIME {
                break;
            }
            match queue.try_recv() {
                Ok(Command::Run(job)) => next = Some(job),
                Ok(other) => after = Some(other),
                Err(_) => {}
            }
        }
        let outcome = outcome.and_then(|()| self.commit(before, seq));
        self.finish(jobs, outcome, seq);
        after
    }

    fn begin(&mut self) -> Result<i64, Error> {
        self.execute("BEGIN IMMEDIATE")?;
        Ok(at_once(feed::bounds(&mut self.tx.session))??.0)
    }

    fn commit(&mut self, before: i64, seq: i64) -> Result<(), Error> {
        if seq != before {
            at_once(feed::set_head(&mut self.tx.session, seq))??;
        }
        self.execute("COMMIT")
    }

    fn finish(&mut self, mut jobs: Vec<Job>, outcome: Result<(), Error>, seq: i64) {
        self.counters.queue_depth.fetch_sub(jobs.len() as u64, Ordering::Relaxed);
        match outcome {
            Ok(()) => {
                add(&self.counters.commits, 1);
                self.counters.batch_max.fetch_max(jobs.len() as u64, Ordering::Relaxed);
                self.head.send_if_modified(|head| {
                    let newer = seq > *head;
                    *head = seq.max(*head);
                    newer
                });
            }
            Err(error) => {
                tracing::error!(%error, transactions = jobs.len(), "a batch of transactions was lost");
                if self.is_open() {
                    let _ = self.execute("ROLLBACK");
                }
                jobs.iter_mut().for_each(|job| job.fail(error.clone()));
            }
        }
        jobs.into_iter().for_each(Job::answer);
    }

    /// One job in its savepoint: the feed's new head, or why the whole batch is lost.
    fn one(&mut self, job: &mut Job, seq: i64) -> Result<i64, Error> {
        self.execute("SAVEPOINT job")?;
        self.last_us = now_us().max(self.last_us + 1);
        self.tx.now_us = self.last_us;
        self.tx.changes.clear();
        self.tx.session.failed = None;
        let mut kept = job.run(&mut self.tx);
        let mut now = seq;
        if kept {
            let changes = std::mem::take(&mut self.tx.changes);
            let appended = match self.tx.session.failed.take() {
                Some(error) => Err(error),
                None => at_once(feed::append(&mut self.tx.session, seq, self.last_us, &changes)).and_then(|done| done),
            };
            match appended {
                Ok(head) => now = head,
                Err(error) => {
                    job.fail(error);
                    kept = false;
                }
            }
        }
        // Some failures (a full disk) make SQLite roll everything back by itself.
        if !self.is_open() {
            let error = Error::engine("the database rolled the batch back");
            job.fail(error.clone());
            return Err(error);
        }
        if !kept {
            self.execute("ROLLBACK TO job")?;
        }
        if job.is_write() {
            add(if kept { &self.counters.writes } else { &self.counters.failed_writes }, 1);
        }
        self.execute("RELEASE job")?;
        Ok(now)
    }
}

#[cfg(test)]
mod tests;
