//! Catching up: what others have committed is known here before the next answer is given.
//!
//! Caches are emptied by the process that writes. Where several processes share a store (PostgreSQL), each asks it, at
//! the beginning of every request, what was committed since it last asked, and tells its listeners; so whoever was
//! answered by one scheduler finds at another what he was told, and a revoked token is dead everywhere at once.
//!
//! ```text
//!  request ─┐
//!  request ─┼─► wait for the statement that starts after they came ──► listeners ──► go on
//!  request ─┘   (one statement for all that wait: the busier, the cheaper each)
//! ```
//!
//! The one statement reads numbered changes behind the last known number and, since a commit is answered before it is
//! numbered, also those that wait for their number. A change may be told twice, never not at all.
use crate::{Change, Error, feed::Op, session::Session, value::Row};
use futures::future::BoxFuture;
use parking_lot::RwLock;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Mutex;

/// What a listener answers with.
pub type Told<'a> = BoxFuture<'a, Result<(), Error>>;

/// Who keeps something that changes of records make stale.
pub trait Listen: Send + Sync {
    /// Kinds of records whose changes are told.
    fn kinds(&self) -> Vec<&'static str>;
    /// Records of these kinds have changed, perhaps by this process itself, perhaps told before.
    fn changed<'a>(&'a self, changes: &'a [Change]) -> Told<'a>;
    /// Anything may have changed.
    fn lost(&self) -> Told<'_>;
}

#[derive(Default)]
struct Known {
    /// The newest number that listeners were told; `None` before the first time.
    seq: Option<i64>,
    /// Requests up to this number are served.
    covered: u64,
}

/// The meeting point of requests that want to catch up.
#[derive(Default)]
pub(crate) struct Fresh {
    listeners: RwLock<Vec<Arc<dyn Listen>>>,
    asked: AtomicU64,
    known: Mutex<Known>,
}

impl Fresh {
    pub fn listen(&self, listener: Arc<dyn Listen>) {
        self.listeners.write().push(listener);
    }

    pub fn is_idle(&self) -> bool {
        self.listeners.read().is_empty()
    }

    /// Kinds that somebody listens to, in order: the statement stays the same, so it stays prepared.
    fn kinds(&self) -> Vec<&'static str> {
        let all: BTreeSet<&str> = self.listeners.read().iter().flat_map(|l| l.kinds()).collect();
        all.into_iter().collect()
    }

    /// Returns when listeners know everything that was committed before the call. `ask` runs a function on a
    /// connection.
    pub async fn catch_up<'f, A>(&self, ask: A) -> Result<(), Error>
    where
        A: FnOnce(Question) -> BoxFuture<'f, Result<News, Error>> + Send,
    {
        let ticket = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut known = self.known.lock().await;
        if known.covered >= ticket {
            return Ok(());
        }
        // Whoever has a ticket by now came before the statement starts.
        let up_to = self.asked.load(Ordering::SeqCst);
        let news = ask(Question { after: known.seq, kinds: self.kinds() }).await?;
        let listeners = self.listeners.read().clone();
        for listener in listeners {
            if news.lost {
                listener.lost().await?;
                continue;
            }
            let kinds = listener.kinds();
            let told: Vec<Change> = news.changes.iter().filter(|c| kinds.contains(&c.kind.as_str())).cloned().collect();
            if !told.is_empty() {
                listener.changed(&told).await?;
            }
        }
        known.seq = Some(news.head);
        known.covered = up_to;
        Ok(())
    }
}

/// What is asked of the store.
pub(crate) struct Question {
    after: Option<i64>,
    kinds: Vec<&'static str>,
}

pub(crate) struct News {
    head: i64,
    changes: Vec<Change>,
    /// There was no earlier number, or changes behind it are no longer kept.
    lost: bool,
}

impl Question {
    pub async fn ask(self, session: &mut Session) -> Result<News, Error> {
        let after = self.after.unwrap_or(i64::MAX);
        let holes: Vec<String> = (2..self.kinds.len() + 2).map(|n| format!("${n}")).collect();
        let kinds = if holes.is_empty() { "''".to_owned() } else { holes.join(", ") };
        // One statement sees one moment: a row is waiting or numbered, never neither.
        let sql = format!(
            "SELECT seq, '' AS kind, '' AS id, horizon, '' AS op, 0 AS at FROM store_feed WHERE id = 1 \
             UNION ALL SELECT seq, kind, id, rev, op, at FROM store_change WHERE seq > $1 AND kind IN ({kinds}) \
             UNION ALL SELECT 0, kind, id, rev, op, at FROM store_pending WHERE kind IN ({kinds})"
        );
        let mut params = vec![crate::Value::Int(after)];
        params.extend(self.kinds.iter().map(|kind| (*kind).into()));
        let rows = session.query(&sql, &params).await?;
        let feed = rows.iter().find(|row| row.text(1).is_empty());
        let (head, horizon) =
            feed.map(|row| (row.int(0), row.int(3))).ok_or_else(|| Error::schema("store_feed has no row"))?;
        let lost = self.after.is_none_or(|after| after < horizon);
        Ok(News { head, lost, changes: rows.iter().filter(|row| !row.text(1).is_empty()).map(change).collect() })
    }
}

fn change(row: &Row) -> Change {
    Change {
        seq: row.int(0),
        kind: row.text(1).to_owned(),
        id: row.text(2).to_owned(),
        rev: row.int(3),
        op: Op::of(row.text(4)),
        at_us: row.int(5),
    }
}
