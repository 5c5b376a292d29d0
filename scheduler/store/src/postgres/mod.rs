//! PostgreSQL, or an engine that speaks its wire protocol.
//!
//! ```text
//!  write: BEGIN SERIALIZABLE · closure · changes into store_pending · COMMIT ──► sequencer woken
//!           ▲          │ 40001, 40P01
//!           └─ back-off ┘ (at most ATTEMPTS times, one at a time in this process)
//!  sequencer: one at a time, by the lock on store_feed's row: store_pending ──► store_change, numbered
//! ```
//!
//! Numbers are given after the commit: a counter inside the transactions would make any two of them conflict.
mod client;
mod sequence;
mod tls;

pub(crate) use client::Client;

use crate::{
    Error, Tx, Value,
    feed::Pending,
    kind::Kinds,
    schema,
    session::{Engine, Session},
    sqlite::{now_us, panic_text},
    stats::{Counters, add},
    store::IN_TRANSACTION,
    work::{Outcome, Reading, Transaction},
};
use client::Pool;
use futures::FutureExt;
use rand::Rng;
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, Notify, watch};

/// Runs of one transaction at most.
const ATTEMPTS: u32 = 30;
/// Rows of `store_pending` in one statement.
const PENDING_ROWS: usize = 32;
/// Attempts to make the lock table while other processes do the same.
const LOCK_ATTEMPTS: u32 = 20;

pub(crate) struct Postgres {
    pool: Pool,
    kinds: Arc<Kinds>,
    counters: Arc<Counters>,
    last_us: AtomicI64,
    /// Only one sequencing at a time in this process; others would only wait for the database's lock.
    sequencing: Mutex<()>,
    /// Transactions that were made void run again one after the other: those that meet on one row would otherwise make
    /// each other void over and over, and every round lets only one of them through.
    again: Mutex<()>,
    committed: Notify,
    head: watch::Sender<i64>,
}

impl Postgres {
    pub async fn open(
        url: &str,
        kinds: Arc<Kinds>,
        counters: Arc<Counters>,
        head: watch::Sender<i64>,
    ) -> Result<Arc<Self>, Error> {
        let postgres = Arc::new(Postgres {
            pool: Pool::new(url)?,
            kinds,
            counters,
            last_us: AtomicI64::new(0),
            sequencing: Mutex::new(()),
            again: Mutex::new(()),
            committed: Notify::new(),
            head,
        });
        // New tables and columns lock old ones: transactions of other schedulers may make that void.
        let mut attempt = 1;
        while let Err(error) = postgres.migrate().await {
            if error != Error::Serialization || attempt >= ATTEMPTS {
                return Err(error);
            }
            back_off(attempt).await;
            attempt += 1;
        }
        postgres.sequence().await?;
        tokio::spawn(sequence::run(Arc::downgrade(&postgres)));
        Ok(postgres)
    }

    /// Under the lock of a row, so that processes that start together do it one after the other.
    async fn migrate(&self) -> Result<(), Error> {
        let mut session = self.session().await?;
        let lock = "CREATE TABLE IF NOT EXISTS store_lock (id BIGINT NOT NULL PRIMARY KEY);
                    INSERT INTO store_lock (id) VALUES (1) ON CONFLICT (id) DO NOTHING";
        // Two CREATE TABLE IF NOT EXISTS at once can fail in PostgreSQL.
        for attempt in 1.. {
            match session.script(lock).await {
                Ok(()) => break,
                Err(error) if attempt >= LOCK_ATTEMPTS => return Err(error),
                Err(_) => back_off(attempt).await,
            }
        }
        session.failed = None;
        session.script("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        // Another process may be migrating, and a large table takes its time.
        session.script("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        session.query("SELECT id FROM store_lock WHERE id = 1 FOR UPDATE", &[]).await?;
        schema::migrate(&mut session, &self.kinds, now_us()).await?;
        session.script("COMMIT").await?;
        let (head, _) = crate::feed::bounds(&mut session).await?;
        self.head.send_replace(head);
        self.put(session);
        Ok(())
    }

    async fn session(&self) -> Result<Session, Error> {
        Ok(Session::new(Engine::Postgres(self.pool.get().await?), self.counters.clone()))
    }

    /// Hands the connection back; the caller knows that it is in no transaction.
    fn put(&self, session: Session) {
        if let Engine::Postgres(client) = session.engine {
            self.pool.put(client);
        }
    }

    fn now_us(&self) -> i64 {
        let now = now_us();
        let last = self.last_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
        last.map_or(now, |last| now.max(last + 1))
    }

    pub async fn read(&self, work: Reading) -> Result<(), Error> {
        let mut session = self.session().await?;
        let outcome = work(&mut session).await;
        self.put(session);
        outcome.map(drop)
    }

    /// Like `read`, but all statements of `work` see the same state.
    pub async fn snapshot(&self, work: Reading) -> Result<(), Error> {
        let mut session = self.session().await?;
        if let Err(error) = session.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await {
            if !is_broken(&session) {
                return Err(error);
            }
            // A connection that broke while it was idle is replaced.
            session = self.session().await?;
            session.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        }
        let outcome = work(&mut session).await;
        // After an error the connection is dropped with its transaction.
        if outcome == Ok(true) {
            session.script("COMMIT").await?;
            self.put(session);
        }
        outcome.map(drop)
    }

    pub async fn write(&self, work: &Transaction) -> Result<(), Error> {
        for attempt in 1..=ATTEMPTS {
            let turn = if attempt > 1 { Some(self.again.lock().await) } else { None };
            let outcome = self.attempt(work).await;
            drop(turn);
            match outcome {
                Attempt::Done(outcome) => {
                    let kept = outcome == Ok(true);
                    add(if kept { &self.counters.writes } else { &self.counters.failed_writes }, 1);
                    return outcome.map(drop);
                }
                Attempt::Again => {
                    add(&self.counters.retries, 1);
                    back_off(attempt).await;
                }
            }
        }
        add(&self.counters.failed_writes, 1);
        Err(Error::Contention { attempts: ATTEMPTS })
    }

    /// Whenever this returns early, or is dropped, the connection is dropped with its transaction.
    async fn attempt(&self, work: &Transaction) -> Attempt {
        let mut session = match self.session().await {
            Ok(session) => session,
            Err(error) => return Attempt::Done(Err(error)),
        };
        if let Err(error) = session.script("BEGIN ISOLATION LEVEL SERIALIZABLE").await {
            // Nothing has happened yet: a connection that broke while it was idle is replaced.
            if is_broken(&session) {
                return Attempt::Again;
            }
            return Attempt::Done(Err(error));
        }
        let mut tx = Tx::new(session, self.kinds.clone());
        tx.now_us = self.now_us();
        let ran = AssertUnwindSafe(IN_TRANSACTION.scope((), work(&mut tx))).catch_unwind().await;
        let Tx { mut session, changes, now_us, .. } = tx;
        let outcome = match (ran, session.failed.take()) {
            (_, Some(Error::Serialization)) => {
                self.roll_back(session).await;
                return Attempt::Again;
            }
            (Err(panic), _) => Err(Error::Panicked { reason: panic_text(&*panic) }),
            (Ok(Ok(true)), Some(error)) => Err(error),
            (Ok(outcome), _) => outcome,
        };
        if outcome != Ok(true) {
            self.roll_back(session).await;
            return Attempt::Done(outcome);
        }
        match self.commit(session, now_us, &changes).await {
            Err(Error::Serialization) => Attempt::Again,
            committed => Attempt::Done(committed.map(|()| true)),
        }
    }

    async fn roll_back(&self, mut session: Session) {
        if session.script("ROLLBACK").await.is_ok() {
            self.put(session);
        }
    }

    async fn commit(&self, mut session: Session, now_us: i64, changes: &[Pending]) -> Result<(), Error> {
        let tx = format!("{:032x}", rand::rng().random::<u128>());
        let mut ord = 0_i64;
        for rows in changes.chunks(PENDING_ROWS) {
            if let Err(error) = leave(&mut session, &tx, &mut ord, now_us, rows).await {
                self.roll_back(session).await;
                return Err(error);
            }
        }
        if let Err(error) = session.script("COMMIT").await {
            // A connection that broke now leaves the outcome open; a refusal does not.
            return Err(if is_broken(&session) { Error::OutcomeUnknown { reason: error.to_string() } } else { error });
        }
        self.put(session);
        add(&self.counters.commits, 1);
        if !changes.is_empty() {
            self.committed.notify_one();
        }
        Ok(())
    }
}

fn is_broken(session: &Session) -> bool {
    matches!(&session.engine, Engine::Postgres(client) if client.is_closed())
}

enum Attempt {
    Done(Outcome),
    Again,
}

/// Full jitter, up to a quarter of a second.
async fn back_off(attempt: u32) {
    let most_us = (500_u64 << attempt.min(9)).min(250_000);
    let pause_us = rand::rng().random_range(0..=most_us);
    tokio::time::sleep(Duration::from_micros(pause_us)).await;
}

async fn leave(session: &mut Session, tx: &str, ord: &mut i64, now_us: i64, changes: &[Pending]) -> Result<(), Error> {
    let mut sql = "INSERT INTO store_pending (tx, ord, kind, id, rev, op, at) VALUES ".to_owned();
    let mut params: Vec<Value> = Vec::with_capacity(changes.len() * 7);
    for (at, change) in changes.iter().enumerate() {
        let n = at * 7;
        let comma = if at == 0 { "" } else { ", " };
        let holes: Vec<String> = (n + 1..=n + 7).map(|hole| format!("${hole}")).collect();
        sql.push_str(&format!("{comma}({})", holes.join(", ")));
        params.extend([tx.into(), Value::Int(*ord), change.kind.into(), change.id.as_str().into()]);
        params.extend([Value::Int(change.rev), change.op.as_str().into(), Value::Int(now_us)]);
        *ord += 1;
    }
    session.execute(&sql, &params).await.map(drop)
}
