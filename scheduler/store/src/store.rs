//! The store itself: opens an engine by URL and hands each call to it.
use crate::{
    Change, Error, Followed, Group, Guard, Holding, KindSpec, Lease, Listen, Query, Record, Sole, Stats, Stored, Tx,
    feed, follow,
    fresh::Fresh,
    kind::Kinds,
    lease::{self, Take},
    postgres::Postgres,
    read,
    session::Session,
    sqlite::{self, Command, Job, Readers, Work, Writer},
    stats::{Counters, add},
    work::{self, Reading, Transaction},
};
use futures::future::BoxFuture;
use parking_lot::RwLock;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{oneshot, watch};

/// Changes forgotten in one transaction.
const COMPACT_CHUNK: i64 = 5_000;

tokio::task_local! {
    /// Set while the closure of a transaction runs.
    pub(crate) static IN_TRANSACTION: ();
}

enum Backend {
    Sqlite { writer: Writer, readers: Option<Readers>, path: Option<PathBuf> },
    Postgres(Arc<Postgres>),
}

struct Inner {
    kinds: Arc<Kinds>,
    counters: Arc<Counters>,
    head: watch::Sender<i64>,
    fresh: Fresh,
    author: RwLock<Option<Author>>,
    backend: Backend,
}

/// The scheduler whose process this is, where records must say who works on them.
#[derive(Debug, Clone)]
pub struct Author {
    pub id: Arc<str>,
    /// Refused once the scheduler was declared dead.
    pub guard: Guard,
}

/// An open store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let engine = match &self.inner.backend {
            Backend::Sqlite { path: Some(path), .. } => path.display().to_string(),
            Backend::Sqlite { .. } => "memory".to_owned(),
            Backend::Postgres(_) => "postgres".to_owned(),
        };
        f.debug_tuple("Store").field(&engine).finish()
    }
}

impl Store {
    /// Opens `sqlite:/path/file.db` (made when missing, its directory not), `sqlite::memory:` or
    /// `postgres://user:password@host/database?sslmode=require&sslrootcert=/path`, and brings its tables to
    /// what `kinds` declare.
    pub async fn open(url: &str, kinds: Vec<KindSpec>) -> Result<Store, Error> {
        let kinds = Arc::new(Kinds::new(&kinds)?);
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Store::open_postgres(url, kinds).await;
        }
        let Some(place) = url.strip_prefix("sqlite:") else {
            return Err(Error::Url { reason: "expected sqlite:/path, sqlite::memory: or postgres://…".into() });
        };
        let path = match place {
            ":memory:" => None,
            "" => return Err(Error::Url { reason: "sqlite: needs a path".into() }),
            path => Some(PathBuf::from(path.strip_prefix("//").unwrap_or(path))),
        };
        let counters = Arc::new(Counters::default());
        let (sender, _) = watch::channel(0);
        let (file, shared, counted, watched) = (path.clone(), kinds.clone(), counters.clone(), sender.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let (conn, head) = sqlite::prepare(file.as_deref(), &shared, &counted, sqlite::now_us())?;
            watched.send_replace(head);
            sqlite::spawn(conn, shared, counted, watched)
        });
        let writer = opened.await.map_err(Error::of_task)??;
        let readers = path.clone().map(|path| Readers::new(path, counters.clone()));
        let backend = Backend::Sqlite { writer, readers, path };
        Ok(Store {
            inner: Arc::new(Inner {
                kinds,
                counters,
                head: sender,
                fresh: Fresh::default(),
                author: RwLock::default(),
                backend,
            }),
        })
    }

    async fn open_postgres(url: &str, kinds: Arc<Kinds>) -> Result<Store, Error> {
        let counters = Arc::new(Counters::default());
        let (head, _) = watch::channel(0);
        let postgres = Postgres::open(url, kinds.clone(), counters.clone(), head.clone()).await?;
        let backend = Backend::Postgres(postgres);
        Ok(Store {
            inner: Arc::new(Inner {
                kinds,
                counters,
                head,
                fresh: Fresh::default(),
                author: RwLock::default(),
                backend,
            }),
        })
    }

    async fn read<T, F>(&self, f: F) -> Result<T, Error>
    where
        F: for<'a> FnOnce(&'a mut Session) -> BoxFuture<'a, Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        let (work, slot) = work::reading(f);
        slot.take(self.run_reading(work, false).await)
    }

    /// `snapshot`: all statements see the same state.
    fn run_reading(&self, work: Reading, snapshot: bool) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            outside_a_transaction()?;
            add(&self.inner.counters.reads, 1);
            match &self.inner.backend {
                Backend::Sqlite { readers: Some(readers), .. } => readers.run(work).await,
                Backend::Sqlite { writer, .. } => self.queue(writer, Work::Read(Some(work))).await,
                Backend::Postgres(postgres) if snapshot => postgres.snapshot(work).await,
                Backend::Postgres(postgres) => postgres.read(work).await,
            }
        })
    }

    async fn queue(&self, writer: &Writer, work: Work) -> Result<(), Error> {
        let (job, answered) = Job::new(work);
        let depth = &self.inner.counters.queue_depth;
        let place = writer.reserve().await.map_err(|_| Error::Closed)?;
        depth.fetch_add(1, Ordering::Relaxed);
        place.send(Command::Run(job));
        answered.await.unwrap_or(Err(Error::Closed))
    }

    pub async fn get<R: Record>(&self, id: &str) -> Result<Option<Stored<R>>, Error> {
        let (kind, id) = (self.inner.kinds.of::<R>()?, id.to_owned());
        self.read(move |session| Box::pin(async move { read::get(session, &kind, &id).await })).await
    }

    pub async fn list<R: Record>(&self, query: Query) -> Result<Vec<Stored<R>>, Error> {
        let kind = self.inner.kinds.of::<R>()?;
        self.read(move |session| Box::pin(async move { read::list(session, &kind, &query).await })).await
    }

    /// Ignores marker, order and limit.
    pub async fn count<R: Record>(&self, query: Query) -> Result<u64, Error> {
        let kind = self.inner.kinds.of::<R>()?;
        self.read(move |session| Box::pin(async move { read::count(session, &kind, &query).await })).await
    }

    /// Sum of an integer column; 0 of nothing.
    pub async fn sum<R: Record>(&self, column: &str, query: Query) -> Result<i64, Error> {
        let (kind, column) = (self.inner.kinds.of::<R>()?, column.to_owned());
        self.read(move |session| Box::pin(async move { read::sum(session, &kind, &column, &query).await })).await
    }

    /// Counts and sums by the values of the columns `by`, in their order.
    pub async fn group<R: Record>(&self, by: &[&str], sums: &[&str], query: Query) -> Result<Vec<Group>, Error> {
        let kind = self.inner.kinds.of::<R>()?;
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<String>>();
        let (by, sums) = (own(by), own(sums));
        self.read(move |session| {
            Box::pin(async move {
                let by: Vec<&str> = by.iter().map(String::as_str).collect();
                let sums: Vec<&str> = sums.iter().map(String::as_str).collect();
                read::group(session, &kind, &query, &by, &sums).await
            })
        })
        .await
    }

    /// Runs `f` in one serialisable transaction; it is durable when this returns `Ok`, and nothing of it is
    /// kept on `Err`. `f` may be run several times, so it must have no effects of its own, and it may await
    /// nothing but its `Tx` (`ForeignAwait`). When the caller stops waiting, the transaction may happen or not.
    pub async fn write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        F: for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Result<T, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (work, slot) = work::transaction(f);
        slot.take(self.run_transaction(work).await)
    }

    fn run_transaction(&self, work: Transaction) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            outside_a_transaction()?;
            let work = lease::guarded(work);
            match &self.inner.backend {
                Backend::Sqlite { writer, .. } => self.queue(writer, Work::Write(work)).await,
                Backend::Postgres(postgres) => postgres.write(&work).await,
            }
        })
    }

    /// Changes after number `after`, oldest first; `FeedTruncated` when some of them are no longer kept.
    pub async fn changes(&self, after: i64, limit: usize) -> Result<Vec<Change>, Error> {
        self.settle().await?;
        self.read(move |session| Box::pin(feed::after(session, after, limit))).await
    }

    /// What became of the records of one kind after change number `after` (`None`: from the beginning), as of now: it
    /// has everything that was committed before the call, by any process.
    pub async fn follow<R: Record>(&self, after: Option<i64>) -> Result<Followed<R>, Error> {
        let kind = self.inner.kinds.of::<R>()?;
        let (work, slot) =
            work::reading(move |session| Box::pin(async move { follow::follow(session, &kind, after).await }));
        slot.take(self.run_reading(work, true).await)
    }

    /// Number of the newest change.
    pub async fn head(&self) -> Result<i64, Error> {
        self.settle().await?;
        self.read(|session| Box::pin(async move { Ok(feed::bounds(session).await?.0) })).await
    }

    /// What was committed has its number.
    async fn settle(&self) -> Result<(), Error> {
        outside_a_transaction()?;
        match &self.inner.backend {
            Backend::Sqlite { .. } => Ok(()),
            Backend::Postgres(postgres) => postgres.sequence().await,
        }
    }

    /// The newest change's number, each time it has grown. Commits of other processes are seen within a tenth of
    /// a second (PostgreSQL).
    pub fn watch(&self) -> watch::Receiver<i64> {
        self.inner.head.subscribe()
    }

    /// Says which scheduler this process is.
    pub fn set_author(&self, author: Author) {
        *self.inner.author.write() = Some(author);
    }

    pub fn author(&self) -> Option<Author> {
        self.inner.author.read().clone()
    }

    /// Can other processes use the same store at the same time?
    pub fn is_shared(&self) -> bool {
        matches!(self.inner.backend, Backend::Postgres(_))
    }

    /// Keeps other schedulers off a SQLite file for as long as the result lives; `InUse` when one has it. With
    /// PostgreSQL there is nothing to keep.
    pub fn sole(&self) -> Result<Sole, Error> {
        match &self.inner.backend {
            Backend::Sqlite { path: Some(path), .. } => Sole::take(path),
            _ => Ok(Sole::default()),
        }
    }

    /// From now on `listener` is told what changes; see [`Store::catch_up`].
    pub fn listen(&self, listener: Arc<dyn Listen>) {
        self.inner.fresh.listen(listener);
    }

    /// Returns when listeners know of everything that any process committed before the call. With SQLite there is one
    /// process, which tells its caches itself: nothing is asked.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let Backend::Postgres(postgres) = &self.inner.backend else { return Ok(()) };
        outside_a_transaction()?;
        if self.inner.fresh.is_idle() {
            return Ok(());
        }
        let ask = |question: crate::fresh::Question| -> BoxFuture<'_, _> {
            add(&self.inner.counters.catch_ups, 1);
            let (work, slot) = work::reading(move |session| Box::pin(question.ask(session)));
            Box::pin(async move { slot.take(postgres.read(work).await) })
        };
        self.inner.fresh.catch_up(ask).await
    }

    /// Takes or renews a lease for `ttl`; `None` while another holds it. `holder` must be new with each start
    /// of a process, else the epoch does not tell the two apart.
    pub async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Option<Lease>, Error> {
        self.take(name, holder, ttl, Take::Free).await
    }

    /// Takes a lease whoever holds it: from now on he is fenced, also when that was `holder` himself.
    pub async fn seize(&self, name: &str, holder: &str, ttl: Duration) -> Result<Lease, Error> {
        let taken = self.take(name, holder, ttl, Take::Anyway).await?;
        taken.ok_or_else(|| Error::Fenced { lease: name.to_owned() })
    }

    async fn take(&self, name: &str, holder: &str, ttl: Duration, take: Take) -> Result<Option<Lease>, Error> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write(move |tx| {
            let (name, holder) = (name.clone(), holder.clone());
            Box::pin(async move { lease::acquire(tx, &name, &holder, ttl, take).await })
        })
        .await
    }

    /// Prolongs a lease that is still held under `epoch`, even if its time has passed; `None` when it was lost.
    pub async fn renew(&self, name: &str, holder: &str, epoch: i64, ttl: Duration) -> Result<Option<Lease>, Error> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write(move |tx| {
            let (name, holder) = (name.clone(), holder.clone());
            Box::pin(async move { lease::renew(tx, &name, &holder, epoch, ttl).await })
        })
        .await
    }

    /// Who holds leases whose names begin with `prefix`, by name; released ones are not among them.
    pub async fn holdings(&self, prefix: &str) -> Result<Vec<Holding>, Error> {
        let (prefix, now) = (prefix.to_owned(), sqlite::now_us());
        self.read(move |session| Box::pin(async move { lease::holdings(session, &prefix, now).await })).await
    }

    /// Removes a lease for good. Its epochs begin anew if the name is used again, so only for names that are not.
    pub async fn forget_lease(&self, name: &str, holder: &str) -> Result<bool, Error> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write(move |tx| {
            let (name, holder) = (name.clone(), holder.clone());
            Box::pin(async move { lease::forget(tx, &name, &holder).await })
        })
        .await
    }

    /// Gives a lease back; false when `holder` does not hold it.
    pub async fn release(&self, name: &str, holder: &str) -> Result<bool, Error> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.write(move |tx| {
            let (name, holder) = (name.clone(), holder.clone());
            Box::pin(async move { lease::release(tx, &name, &holder).await })
        })
        .await
    }

    /// Forgets all changes but the newest `keep`.
    pub async fn compact_changes(&self, keep: i64) -> Result<(), Error> {
        self.settle().await?;
        while self.write(move |tx| Box::pin(feed::compact(&mut tx.session, keep, COMPACT_CHUNK))).await? {}
        Ok(())
    }

    /// Writes a consistent copy of a SQLite store to `path`, which must not exist, while it is in use.
    pub async fn backup_to(&self, path: &Path) -> Result<(), Error> {
        match &self.inner.backend {
            Backend::Sqlite { path: Some(from), .. } => sqlite::backup(from.clone(), path.to_owned()).await,
            Backend::Sqlite { writer, .. } => {
                let (answer, answered) = oneshot::channel();
                writer.send(Command::Copy(path.to_owned(), answer)).await.map_err(|_| Error::Closed)?;
                answered.await.map_err(|_| Error::Closed)?
            }
            Backend::Postgres(_) => Err(Error::Unsupported { reason: "back up PostgreSQL with its own tools" }),
        }
    }

    /// Ends writing in an orderly way: what was queued before is done, later writes are `Closed`.
    pub async fn close(&self) {
        if let Backend::Sqlite { writer, .. } = &self.inner.backend {
            let (answer, answered) = oneshot::channel();
            if writer.send(Command::Close(answer)).await.is_ok() {
                let _ = answered.await;
            }
        }
    }

    /// Statements that take longer than this are logged (target `slow`: the statement without its values, time, rows) and
    /// counted. 100 ms unless set; zero logs all.
    pub fn log_slow_statements(&self, from: Duration) {
        let us = u64::try_from(from.as_micros()).unwrap_or(u64::MAX);
        self.inner.counters.slow_us.store(us, Ordering::Relaxed);
    }

    pub fn stats(&self) -> Stats {
        self.inner.counters.read()
    }
}

/// A closure that waits for another call of its store would wait for itself.
fn outside_a_transaction() -> Result<(), Error> {
    if IN_TRANSACTION.try_with(|()| ()).is_ok() { Err(Error::ForeignAwait) } else { Ok(()) }
}
