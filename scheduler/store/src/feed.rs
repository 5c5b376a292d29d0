//! The change feed: one row per change of a record, numbered in the order of the commits without gaps that
//! fill later, so that "everything after n" never misses anything.
//!
//! ```text
//!  SQLite      the writer thread numbers changes itself: commits are serial
//!  PostgreSQL  a transaction leaves its changes in store_pending; the sequencer moves what is committed to
//!              store_change and numbers it there. So no two transactions meet on a counter.
//! ```
use crate::{Error, Value, session::Session, value::Row};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    Insert,
    Update,
    Delete,
}

impl Op {
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Delete => "delete",
        }
    }
    pub(crate) fn of(text: &str) -> Self {
        match text {
            "insert" => Op::Insert,
            "delete" => Op::Delete,
            _ => Op::Update,
        }
    }
}

/// One change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Grows by one from change to change, over all kinds.
    pub seq: i64,
    pub kind: String,
    pub id: String,
    /// Of the record after the change; of a deleted record, the last one.
    pub rev: i64,
    pub op: Op,
    /// Microseconds since 1970.
    pub at_us: i64,
}

/// A change that has no number yet.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub kind: &'static str,
    pub id: String,
    pub rev: i64,
    pub op: Op,
}

/// Changes read at once at most.
const READ_MAX: usize = 10_000;

const ADD: &str = "INSERT INTO store_change (seq, kind, id, rev, op, at) VALUES ($1, $2, $3, $4, $5, $6)";

/// Numbers `changes` from `seq` + 1 on; returns the last number.
pub(crate) async fn append(
    session: &mut Session,
    mut seq: i64,
    now_us: i64,
    changes: &[Pending],
) -> Result<i64, Error> {
    for change in changes {
        seq += 1;
        let params = [
            Value::Int(seq),
            change.kind.into(),
            change.id.as_str().into(),
            Value::Int(change.rev),
            change.op.as_str().into(),
            Value::Int(now_us),
        ];
        session.execute(ADD, &params).await?;
    }
    Ok(seq)
}

/// (newest number, newest number that is no longer kept)
pub(crate) async fn bounds(session: &mut Session) -> Result<(i64, i64), Error> {
    let rows = session.query("SELECT seq, horizon FROM store_feed WHERE id = 1", &[]).await?;
    rows.first().map(|row| (row.int(0), row.int(1))).ok_or_else(|| Error::schema("store_feed has no row"))
}

pub(crate) async fn set_head(session: &mut Session, seq: i64) -> Result<(), Error> {
    session.execute("UPDATE store_feed SET seq = $1 WHERE id = 1", &[Value::Int(seq)]).await.map(drop)
}

pub(crate) async fn after(session: &mut Session, after: i64, limit: usize) -> Result<Vec<Change>, Error> {
    let limit = limit.min(READ_MAX);
    let rows = session
        .query(
            "SELECT seq, kind, id, rev, op, at FROM store_change WHERE seq > $1 ORDER BY seq LIMIT $2",
            &[Value::Int(after), limit.into()],
        )
        .await?;
    // Read after the changes: if they were cut meanwhile, this says so.
    let (_, horizon) = bounds(session).await?;
    if after < horizon {
        return Err(Error::FeedTruncated { horizon });
    }
    Ok(rows.iter().map(change).collect())
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

/// Forgets up to `chunk` of the oldest changes beyond the newest `keep`; true when there are more to forget.
pub(crate) async fn compact(session: &mut Session, keep: i64, chunk: i64) -> Result<bool, Error> {
    let (head, horizon) = bounds(session).await?;
    let goal = head.saturating_sub(keep.max(0));
    if goal <= horizon {
        return Ok(false);
    }
    let cut = goal.min(horizon.saturating_add(chunk));
    session.execute("UPDATE store_feed SET horizon = $1 WHERE id = 1", &[Value::Int(cut)]).await?;
    session.execute("DELETE FROM store_change WHERE seq <= $1", &[Value::Int(cut)]).await?;
    Ok(cut < goal)
}
