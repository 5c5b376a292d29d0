//! This scheduler among those that share a store: who lives, who does which job, who inherits.
//!
//! ```text
//!  enter --> living --renewed every second--> living
//!              |  not renewed for TTL, and another living one sees it twice
//!              v
//!            dead --the other takes its lease: all it still does is fenced--> heirs settle what it left
//!                 --> its jobs are free --> its lease and record go
//! ```
//! One lease a scheduler (`scheduler/<id>`) is renewed; leases of jobs (`job/<name>`) have no time of their own, they
//! fall with their holder. A scheduler that was only slow, and finds itself declared dead, goes on under a new id and
//! without jobs. After an outage of the database everybody has missed his time: nobody buries others before he has
//! himself been alive for a while again.
//!
//! A store of one process (SQLite) needs none of this: the lock of its file says that all others are dead.
use crate::{Failure, Job, Peer};
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use pilvi_store::{Author, Dir, Error, Guard, Holding, Query, Store};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// Silence after which a scheduler may be declared dead.
pub const TTL: Duration = Duration::from_millis(2500);
const RENEW: Duration = Duration::from_millis(700);
const TICK: Duration = Duration::from_millis(300);
/// For leases that fall with their holder.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// What settling a death may take before another tries.
const SETTLE: Duration = Duration::from_secs(30);

/// Settles what a dead scheduler left half done.
#[async_trait]
pub trait Heir: Send + Sync {
    /// `dead` is the id of a scheduler that will never write again. May be called more than once for the same.
    async fn inherit(&self, dead: &str) -> Result<(), Failure>;
}

/// Who we are just now.
#[derive(Debug, Clone)]
struct Me {
    id: Arc<str>,
    epoch: i64,
}

struct State {
    /// Asked for the time before the last renewal that succeeded.
    renewed: Instant,
    /// Alive without a gap since.
    since: Instant,
    /// Ids that looked dead at the last look.
    suspects: BTreeSet<String>,
}

/// This process as a member. Cheap to clone behind its `Arc`.
pub struct Member {
    store: Store,
    peer: Mutex<Peer>,
    me: watch::Sender<Me>,
    jobs: Mutex<BTreeMap<Arc<str>, watch::Sender<Option<i64>>>>,
    heirs: RwLock<Vec<Arc<dyn Heir>>>,
    state: Mutex<State>,
    /// There is a new job to take.
    wake: Notify,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Member({})", self.id())
    }
}

fn lease_of(id: &str) -> String {
    format!("{SCHEDULER}{id}")
}

const SCHEDULER: &str = "scheduler/";
const JOB: &str = "job/";

impl Member {
    /// Makes `peer`, whose id must be new, a member of its store.
    pub async fn enter(store: Store, peer: Peer) -> Result<Arc<Self>, Error> {
        let me = begin(&store, &peer).await?;
        store.set_author(author(&me));
        let now = Instant::now();
        Ok(Arc::new(Member {
            store,
            peer: Mutex::new(peer),
            me: watch::channel(me).0,
            jobs: Mutex::default(),
            heirs: RwLock::default(),
            state: Mutex::new(State { renewed: now, since: now, suspects: BTreeSet::new() }),
            wake: Notify::new(),
        }))
    }

    pub fn id(&self) -> Arc<str> {
        self.me.borrow().id.clone()
    }

    /// Told each time this scheduler had to begin anew under another id.
    pub fn reborn(&self) -> impl Future<Output = ()> + use<> {
        let mut me = self.me.subscribe();
        async move {
            if me.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Work that others inherit when this scheduler dies is done under this.
    pub fn guard(&self) -> Guard {
        author(&self.me.borrow()).guard
    }

    /// Has our time not passed? Says so without asking the store, so it may be too hopeful, never for longer than the
    /// moment between looking and acting.
    pub fn is_current(&self) -> bool {
        !self.store.is_shared() || self.state.lock().renewed.elapsed() < TTL
    }

    /// Asked to settle what dead schedulers leave. Before [`Member::run`].
    pub fn add_heir(&self, heir: Arc<dyn Heir>) {
        self.heirs.write().push(heir);
    }

    /// A job of this name, wherever it is done at present.
    pub fn job(&self, name: &str) -> Job {
        let lease: Arc<str> = format!("{JOB}{name}").into();
        let mut jobs = self.jobs.lock();
        let sender = jobs.entry(lease.clone()).or_insert_with(|| watch::channel(None).0);
        self.wake.notify_one();
        Job::new(lease, sender.subscribe())
    }

    /// Members whose time has not passed, this one included.
    pub async fn living(&self) -> Result<Vec<Peer>, Error> {
        living(&self.store, Some(&self.id())).await
    }

    /// Ids of all schedulers but this one that are not yet known to be dead.
    pub async fn others(&self) -> Result<BTreeSet<String>, Error> {
        let me = self.id();
        Ok(self.schedulers().await?.into_iter().map(id_of).filter(|id| **id != *me).collect())
    }

    async fn schedulers(&self) -> Result<Vec<Holding>, Error> {
        self.store.holdings(SCHEDULER).await
    }

    /// Settles the deaths that are certain at a start: with one process a store all others are dead; else the one that
    /// ran before under `former`, whose place nobody but us can have.
    pub async fn settle_at_start(&self, former: Option<&str>) -> Result<(), Failure> {
        for holding in self.schedulers().await? {
            let id = id_of(holding);
            if *id != *self.id() && (!self.store.is_shared() || Some(id.as_str()) == former) {
                self.store.seize(&lease_of(&id), &self.id(), SETTLE).await?;
                self.settle(&id).await?;
            }
        }
        Ok(())
    }

    /// Renews, looks after the others, and takes free jobs, until `stop` turns true; then gives everything back.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            if let Err(error) = self.tick().await {
                tracing::warn!(%error, "the store does not tell who lives");
                self.mind_the_time();
            }
            let pause = if self.store.is_shared() { TICK } else { Duration::from_secs(3600) };
            tokio::select! {
                _ = stop.wait_for(|s| *s) => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, "the leases could not be given back: they run out by themselves");
        }
    }

    /// One look around.
    async fn tick(self: &Arc<Self>) -> Result<(), Failure> {
        if self.store.is_shared() {
            self.renew().await?;
        }
        let schedulers = self.schedulers().await?;
        self.take_jobs(&schedulers).await?;
        for dead in self.certainly_dead(&schedulers) {
            if self.store.lease(&lease_of(&dead), &self.id(), SETTLE).await?.is_some() {
                tracing::warn!(scheduler = dead, "another scheduler is dead; this one takes over");
                let member = self.clone();
                // Beside the loop: settling may take longer than our own lease.
                tokio::spawn(async move {
                    if let Err(error) = member.settle(&dead).await {
                        tracing::error!(scheduler = dead, %error, "what it left is not settled; it is tried again");
                    }
                });
            }
        }
        Ok(())
    }

    async fn renew(&self) -> Result<(), Error> {
        let asked = Instant::now();
        if self.state.lock().renewed + RENEW > asked {
            return Ok(());
        }
        let me = self.me.borrow().clone();
        if self.store.renew(&lease_of(&me.id), &me.id, me.epoch, TTL).await?.is_none() {
            return self.begin_anew().await;
        }
        let mut state = self.state.lock();
        if state.renewed + TTL < asked {
            state.since = asked;
        }
        state.renewed = asked;
        Ok(())
    }

    /// Others think that we are dead, and have settled it.
    async fn begin_anew(&self) -> Result<(), Error> {
        let old = self.id();
        self.give_up_jobs();
        let mut peer = self.peer.lock().clone();
        // The name of the start stays readable: `<start>.2`, `<start>.3`, ...
        let (start, count) = match old.rsplit_once('.') {
            Some((start, count)) => (start, count.parse::<u32>().unwrap_or(1)),
            None => (&*old, 1),
        };
        peer.id = format!("{start}.{}", count.saturating_add(1));
        let me = begin(&self.store, &peer).await?;
        tracing::warn!(was = %old, now = %me.id, "this scheduler was declared dead while it was slow, and begins anew");
        *self.peer.lock() = peer;
        let now = Instant::now();
        *self.state.lock() = State { renewed: now, since: now, suspects: BTreeSet::new() };
        self.store.set_author(author(&me));
        self.me.send_replace(me);
        Ok(())
    }

    fn give_up_jobs(&self) {
        self.jobs.lock().values().for_each(|job| {
            job.send_if_modified(|epoch| epoch.take().is_some());
        });
    }

    /// Without the store nobody can take our jobs, but nobody can be sure that they are ours either.
    fn mind_the_time(&self) {
        if !self.is_current() {
            self.give_up_jobs();
        }
    }

    async fn take_jobs(&self, schedulers: &[Holding]) -> Result<(), Error> {
        let me = self.id();
        let known: BTreeSet<&str> = schedulers.iter().filter_map(|h| h.name.strip_prefix(SCHEDULER)).collect();
        let held: BTreeMap<String, Holding> =
            self.store.holdings(JOB).await?.into_iter().map(|h| (h.name.clone(), h)).collect();
        let names: Vec<Arc<str>> = self.jobs.lock().keys().cloned().collect();
        for name in names {
            let epoch = match held.get(&*name) {
                Some(holding) if holding.holder == *me => Some(holding.epoch),
                Some(holding) if known.contains(holding.holder.as_str()) => None,
                other => {
                    if let Some(left) = other {
                        self.store.release(&name, &left.holder).await?;
                    }
                    self.store.lease(&name, &me, FOREVER).await?.map(|lease| lease.epoch)
                }
            };
            if let Some(job) = self.jobs.lock().get(&name) {
                job.send_if_modified(|now| std::mem::replace(now, epoch) != epoch);
            }
        }
        Ok(())
    }

    /// Those that looked dead at two looks, if we ourselves have been alive for long enough to judge.
    fn certainly_dead(&self, schedulers: &[Holding]) -> Vec<String> {
        let me = self.id();
        let dead = schedulers.iter().filter(|h| !h.live).map(|h| id_of(h.clone())).filter(|id| **id != *me);
        let dead: BTreeSet<String> = dead.collect();
        let mut state = self.state.lock();
        let may_judge = self.store.is_shared() && state.since.elapsed() > TTL && state.renewed.elapsed() < TTL;
        let certain = if may_judge { dead.intersection(&state.suspects).cloned().collect() } else { Vec::new() };
        state.suspects = dead;
        certain
    }

    /// The lease of `dead` is ours: nothing it still does under it is kept.
    async fn settle(&self, dead: &str) -> Result<(), Failure> {
        let heirs = self.heirs.read().clone();
        for heir in heirs {
            heir.inherit(dead).await?;
        }
        for holding in self.store.holdings(JOB).await?.into_iter().filter(|h| h.holder == dead) {
            self.store.release(&holding.name, dead).await?;
        }
        self.remove(dead).await?;
        Ok(self.store.forget_lease(&lease_of(dead), &self.id()).await.map(drop)?)
    }

    async fn remove(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        let gone = self.store.write(move |tx| {
            let id = id.clone();
            Box::pin(async move { tx.delete::<Peer>(&id).await })
        });
        gone.await.map(drop)
    }

    /// An orderly end: the others need not wait.
    async fn leave(&self) -> Result<(), Error> {
        let me = self.id();
        let jobs: Vec<Arc<str>> = self.jobs.lock().keys().cloned().collect();
        self.give_up_jobs();
        for job in jobs {
            self.store.release(&job, &me).await?;
        }
        // What is still under way is inherited as after a crash, but at once.
        let lease = lease_of(&me);
        let epoch = self.me.borrow().epoch;
        self.store.renew(&lease, &me, epoch, Duration::ZERO).await.map(drop)
    }
}

fn author(me: &Me) -> Author {
    Author { id: me.id.clone(), guard: Guard { lease: lease_of(&me.id).into(), epoch: me.epoch } }
}

/// Schedulers of a store whose time has not passed, by id; `me` is among them in any case.
pub async fn living(store: &Store, me: Option<&str>) -> Result<Vec<Peer>, Error> {
    let live: BTreeSet<String> = store.holdings(SCHEDULER).await?.into_iter().filter(|h| h.live).map(id_of).collect();
    let peers = store.list::<Peer>(Query::all().sort("id", Dir::Asc)).await?;
    Ok(peers.into_iter().map(|p| p.record).filter(|p| live.contains(&p.id) || Some(p.id.as_str()) == me).collect())
}

fn id_of(holding: Holding) -> String {
    holding.name.strip_prefix(SCHEDULER).unwrap_or(&holding.name).to_owned()
}

async fn begin(store: &Store, peer: &Peer) -> Result<Me, Error> {
    let ttl = if store.is_shared() { TTL } else { FOREVER };
    let lease = store.seize(&lease_of(&peer.id), &peer.id, ttl).await?;
    let record = peer.clone();
    let entered = store.write(move |tx| {
        let record = record.clone();
        Box::pin(async move { tx.insert(&record).await })
    });
    entered.await?;
    Ok(Me { id: peer.id.as_str().into(), epoch: lease.epoch })
}
