//! Drives reconcilers: each looks at one key (a server, a host), compares what is wanted with what is,
//! and takes the next step. Failure is another pass.
//!
//! ```text
//!  change feed --keys_of--> queue (key -> due time) --due--> reconcile(key), one at a time per key,
//!  timer ------all--------> ^                                   |  Settled: forget
//!  poke -------------------/                                    |  Again(after): due later
//!                          ^------ back-off, doubling ----------/  Err
//! ```
//!
//! A reconciler takes no input but the key: it reads everything itself, so a lost or doubled wake-up
//! does no harm, and a restart simply asks for all keys again.
//!
//! Where several schedulers share a store, a driver runs passes only while its [`Job`] is this scheduler's, and every
//! transaction of a pass is refused once it is not ([`member`](Member) says who does what).
mod feed;
mod job;
mod member;
mod peer;
mod queue;
mod status;

pub use feed::Feed;
pub use job::Job;
pub use member::{Heir, Member, TTL, living};
pub use peer::{Peer, kinds};
pub use status::Status;

use async_trait::async_trait;
use parking_lot::Mutex;
use pilvi_store::{Change, Guard, Store, under};
use queue::Queue;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

/// What one pass over a key came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// As wanted; woken again by a change.
    Settled,
    /// Look again after this time, change or not.
    Again(Duration),
}

/// Why a pass failed: logged, shown on the status page, retried with back-off.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

#[async_trait]
pub trait Reconcile: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// Keys to look at because of a change. Most changes concern no key.
    async fn keys_of(&self, change: &Change) -> Vec<String>;
    /// Every key that is not known to be settled: asked at start, on the timer and when the feed was cut.
    async fn all(&self) -> Result<Vec<String>, Failure>;
    async fn reconcile(&self, key: &str) -> Result<Next, Failure>;
}

/// Keys under work at once, per reconciler.
const CONCURRENCY: usize = 16;
const RESYNC: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A pass that takes longer is dropped and counted as failed.
const PASS_MAX: Duration = Duration::from_secs(120);

/// One running reconciler.
#[derive(Clone)]
pub struct Driver {
    reconciler: Arc<dyn Reconcile>,
    queue: Arc<Mutex<Queue>>,
    wake: Arc<Notify>,
    job: Arc<OnceLock<Job>>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver({})", self.reconciler.name())
    }
}

impl Driver {
    pub fn new(reconciler: Arc<dyn Reconcile>) -> Self {
        Driver { reconciler, queue: Arc::default(), wake: Arc::default(), job: Arc::default() }
    }

    /// From now on passes run only while `job` is this scheduler's. Before [`Driver::run`]; a second call does nothing.
    pub fn set_job(&self, job: Job) {
        let _ = self.job.set(job);
    }

    /// Look at `key` now, if the work is ours.
    pub fn poke(&self, key: &str) {
        if self.mandate().is_none() {
            return;
        }
        self.queue.lock().due(key.to_owned(), Instant::now());
        self.wake.notify_one();
    }

    /// For the status page.
    pub fn status(&self) -> Status {
        self.queue.lock().status(self.reconciler.name())
    }

    /// Runs until `stop` turns true. Passes under way are left to end by themselves.
    pub async fn run(self, store: Store, mut stop: watch::Receiver<bool>) {
        let mut feed = Feed::new(store).await;
        let mut passes: JoinSet<()> = JoinSet::new();
        let mut resync = tokio::time::interval(RESYNC);
        let mut job = self.job.get().cloned();
        loop {
            while passes.try_join_next().is_some() {}
            let due = self.start_due(&mut passes);
            tokio::select! {
                () = stopped(&mut stop) => break,
                () = won_or_lost(&mut job) => self.turn().await,
                _ = resync.tick() => self.ask_all().await,
                batch = feed.next() => match batch {
                    Some(changes) => self.take(&changes).await,
                    None => self.ask_all().await,
                },
                () = self.wake.notified() => {}
                () = sleep_until(due) => {}
            }
        }
        while passes.join_next().await.is_some() {}
    }

    /// Is the work ours, and under what?
    fn mandate(&self) -> Option<Option<Guard>> {
        match self.job.get() {
            None => Some(None),
            Some(job) => job.guard().map(Some),
        }
    }

    /// The job was won: all keys are looked at, for the former holder may have left any of them in the middle. Or lost:
    /// what waits is another's.
    async fn turn(&self) {
        self.queue.lock().clear();
        if self.mandate().is_some() {
            tracing::info!(reconciler = self.reconciler.name(), "reconciling here");
            self.ask_all().await;
        }
    }

    async fn take(&self, changes: &[Change]) {
        if self.mandate().is_none() {
            return;
        }
        for change in changes {
            for key in self.reconciler.keys_of(change).await {
                self.queue.lock().due(key, Instant::now());
            }
        }
    }

    async fn ask_all(&self) {
        if self.mandate().is_none() {
            return;
        }
        match self.reconciler.all().await {
            Ok(keys) => {
                let mut queue = self.queue.lock();
                for key in keys {
                    queue.due_unless_waiting(key, Instant::now());
                }
            }
            Err(error) => tracing::warn!(reconciler = self.reconciler.name(), %error, "listing keys failed"),
        }
    }

    /// Starts every due key that fits; says when the next one is due.
    fn start_due(&self, passes: &mut JoinSet<()>) -> Option<Instant> {
        let guard = self.mandate()?;
        while passes.len() < CONCURRENCY {
            let key = match self.queue.lock().take(Instant::now()) {
                Ok(key) => key,
                Err(due) => return due,
            };
            let (driver, guard) = (self.clone(), guard.clone());
            passes.spawn(async move { driver.pass(key, guard).await });
        }
        None
    }

    async fn pass(self, key: String, guard: Option<Guard>) {
        let pass = {
            let (reconciler, key) = (self.reconciler.clone(), key.clone());
            // Its own task, so that a panic in one pass is a failed pass.
            tokio::spawn(async move {
                let work = tokio::time::timeout(PASS_MAX, reconciler.reconcile(&key));
                match guard {
                    Some(guard) => under(guard, work).await,
                    None => work.await,
                }
            })
        };
        let outcome = match pass.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Failure::from("the pass took too long")),
            Err(error) => Err(Failure::from(format!("the pass panicked: {error}"))),
        };
        if let Err(error) = &outcome {
            tracing::warn!(reconciler = self.reconciler.name(), key, %error, "pass failed");
        }
        self.queue.lock().done(&key, outcome.map_err(|e| e.to_string()), Instant::now());
        self.wake.notify_one();
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}

async fn won_or_lost(job: &mut Option<Job>) {
    match job {
        Some(job) => job.changed().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
