//! Schedulers that share a real PostgreSQL: one does each job, the other takes over in time, and what a dead or slow
//! one still does is refused. Where PostgreSQL is not installed the tests say so and pass.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]
use async_trait::async_trait;
use pilvi_reconcile::{Driver, Failure, Heir, Job, Member, Next, Peer, Reconcile, TTL};
use pilvi_store::{Change, Error, KindSpec, Query, Record, Store, testing::PostgresServer, under};
use serde::{Deserialize, Serialize};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Done {
    id: String,
    by: String,
}
impl Record for Done {
    const KIND: &'static str = "done";
    fn id(&self) -> &str {
        &self.id
    }
}

async fn note(store: &Store, id: &str, by: &str) -> Result<(), Error> {
    let done = Done { id: id.into(), by: by.into() };
    let written = store.write(move |tx| {
        let done = done.clone();
        Box::pin(async move { tx.insert(&done).await.map(drop) })
    });
    written.await
}

fn url() -> Option<String> {
    match PostgresServer::shared().unwrap() {
        Some(server) => Some(server.database().unwrap()),
        None => {
            println!("SKIPPED: PostgreSQL's server programs are not installed in /usr/lib/postgresql");
            None
        }
    }
}

async fn open(url: &str) -> Store {
    let mut kinds = pilvi_reconcile::kinds();
    kinds.push(KindSpec::of::<Done>());
    Store::open(url, kinds).await.unwrap()
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);
#[async_trait]
impl Heir for Heard {
    async fn inherit(&self, dead: &str) -> Result<(), Failure> {
        self.0.lock().unwrap().push(dead.to_owned());
        Ok(())
    }
}

/// One scheduler: a store of its own, as another process has.
struct Scheduler {
    store: Store,
    member: Arc<Member>,
    heard: Arc<Heard>,
    job: Job,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

async fn scheduler(url: &str, id: &str) -> Scheduler {
    let store = open(url).await;
    let peer = Peer {
        id: id.into(),
        name: "s".into(),
        version: "1".into(),
        address: "https://127.0.0.1:1".into(),
        images: String::new(),
        started_us: 0,
    };
    let member = Member::enter(store.clone(), peer).await.unwrap();
    let heard = Arc::new(Heard::default());
    member.add_heir(heard.clone());
    let job = member.job("test");
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(member.clone().run(stopped));
    Scheduler { store, member, heard, job, stop, task }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_passes_to_the_other_when_its_holder_dies() {
    let Some(url) = url() else { return };
    let a = scheduler(&url, "a").await;
    until("a has the job", || a.job.held()).await;
    let b = scheduler(&url, "b").await;
    tokio::time::sleep(TTL * 2).await;
    assert!(a.job.held() && !b.job.held(), "a job does not move while its holder lives");
    let ids = |peers: Vec<Peer>| peers.into_iter().map(|p| p.id).collect::<Vec<_>>();
    assert_eq!(ids(b.member.living().await.unwrap()), ["a", "b"]);
    let (old, dead) = (a.job.guard().unwrap(), a.member.guard());
    // As kill -9 does: nothing is given back.
    a.task.abort();
    let took = until("b has the job", || b.job.held()).await;
    println!("fail-over of a job: {} ms", took.as_millis());
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(*b.heard.0.lock().unwrap(), ["a"]);
    assert_eq!(ids(b.member.living().await.unwrap()), ["b"]);
    for (id, guard) in [("1", old), ("2", dead)] {
        let refused = under(guard, note(&a.store, id, "a")).await;
        assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    }
    under(b.job.guard().unwrap(), note(&b.store, "3", "b")).await.unwrap();
    assert_eq!(b.store.count::<Done>(Query::all()).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_orderly_end_hands_over_at_once() {
    let Some(url) = url() else { return };
    let a = scheduler(&url, "a").await;
    until("a has the job", || a.job.held()).await;
    let b = scheduler(&url, "b").await;
    // Long enough alive to settle a's end.
    tokio::time::sleep(TTL + Duration::from_millis(500)).await;
    a.stop.send_replace(true);
    a.task.await.unwrap();
    let took = until("b has the job", || b.job.held()).await;
    assert!(took < TTL, "{took:?}");
    until("a is settled", || *b.heard.0.lock().unwrap() == ["a"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_was_declared_dead_begins_anew_without_jobs() {
    let Some(url) = url() else { return };
    let a = scheduler(&url, "a").await;
    until("a has the job", || a.job.held()).await;
    let (old, reborn) = (a.member.guard(), a.member.reborn());
    let judge = open(&url).await;
    judge.seize("scheduler/a", "judge", Duration::from_secs(30)).await.unwrap();
    reborn.await;
    assert_eq!(&*a.member.id(), "a.2");
    assert!(!a.job.held(), "another may have the jobs by now");
    let refused = under(old, note(&a.store, "1", "a")).await;
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    under(a.member.guard(), note(&a.store, "2", "a.2")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_start_settles_its_own_former_life_and_no_other() {
    let Some(url) = url() else { return };
    let (a, b) = (scheduler(&url, "a").await, scheduler(&url, "b").await);
    a.task.abort();
    let peer = a.member.living().await.unwrap().remove(0);
    let again = Member::enter(open(&url).await, Peer { id: "a-again".into(), ..peer }).await.unwrap();
    let heard = Arc::new(Heard::default());
    again.add_heir(heard.clone());
    again.settle_at_start(Some("a")).await.unwrap();
    assert_eq!(*heard.0.lock().unwrap(), ["a"]);
    let living: Vec<String> = again.living().await.unwrap().into_iter().map(|p| p.id).collect();
    assert_eq!(living, ["a-again", "b"]);
    b.task.abort();
}

struct Notes {
    store: Store,
    by: &'static str,
}
#[async_trait]
impl Reconcile for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }
    async fn keys_of(&self, _change: &Change) -> Vec<String> {
        vec![]
    }
    async fn all(&self) -> Result<Vec<String>, Failure> {
        Ok(vec![format!("of-{}", self.by)])
    }
    async fn reconcile(&self, key: &str) -> Result<Next, Failure> {
        note(&self.store, key, self.by).await?;
        Ok(Next::Settled)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn passes_run_where_the_job_is() {
    let Some(url) = url() else { return };
    let a = scheduler(&url, "a").await;
    until("a has the job", || a.job.held()).await;
    let b = scheduler(&url, "b").await;
    let (_stop, stopped) = watch::channel(false);
    for (scheduler, by) in [(&a, "a"), (&b, "b")] {
        let driver = Driver::new(Arc::new(Notes { store: scheduler.store.clone(), by }));
        driver.set_job(scheduler.member.job("test"));
        tokio::spawn(driver.run(scheduler.store.clone(), stopped.clone()));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(b.store.get::<Done>("of-a").await.unwrap().is_some());
    assert!(b.store.get::<Done>("of-b").await.unwrap().is_none());
    a.task.abort();
    until("b has the job", || b.job.held()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(b.store.get::<Done>("of-b").await.unwrap().is_some(), "whoever wins a job looks at everything");
}

#[tokio::test]
async fn alone_a_member_has_every_job_at_once() {
    let mut kinds = pilvi_reconcile::kinds();
    kinds.push(KindSpec::of::<Done>());
    let store = Store::open("sqlite::memory:", kinds).await.unwrap();
    let peer = |id: &str| Peer {
        id: id.into(),
        name: "s".into(),
        version: "1".into(),
        address: String::new(),
        images: String::new(),
        started_us: 0,
    };
    let former = Member::enter(store.clone(), peer("former")).await.unwrap();
    let member = Member::enter(store, peer("now")).await.unwrap();
    let heard = Arc::new(Heard::default());
    member.add_heir(heard.clone());
    member.settle_at_start(None).await.unwrap();
    assert_eq!(*heard.0.lock().unwrap(), ["former"]);
    let job = member.job("test");
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(member.clone().run(stopped));
    until("it has the job", || job.held()).await;
    assert_eq!(member.living().await.unwrap().len(), 1);
    stop.send_replace(true);
    running.await.unwrap();
    drop(former);
}
