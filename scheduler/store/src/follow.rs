//! Following one kind: what became of its records since a number of the feed, read in one snapshot of the database.
//!
//! For copies in memory that must never be older than a commit their user knows of: each use follows first, which is
//! two small queries when nothing has changed. On PostgreSQL the changes that have no number yet count as well, so
//! the copy does not wait for the sequencer.
use crate::{Error, Query, Record, Stored, Value, feed, kind::Kind, read, session::Session};

/// Beyond this many changes of all kinds, everything is read anew.
const BEHIND_MAX: i64 = 200_000;
/// Records that are read one by one at most; beyond that, everything is read anew.
const CHANGED_MAX: usize = 10_000;

/// What became of a kind.
#[derive(Debug, Clone)]
pub struct Followed<R> {
    /// Follow on from here.
    pub head: i64,
    /// `changed` is all there is; what is not in it is gone.
    pub whole: bool,
    pub changed: Vec<Stored<R>>,
    /// Ids of records that are no more.
    pub gone: Vec<String>,
}

/// `session` reads one snapshot.
pub(crate) async fn follow<R: Record>(
    session: &mut Session,
    kind: &Kind,
    after: Option<i64>,
) -> Result<Followed<R>, Error> {
    let (head, horizon) = feed::bounds(session).await?;
    let after = after.filter(|after| *after >= horizon && *after <= head && head - *after <= BEHIND_MAX);
    let ids = match after {
        Some(after) => changed(session, kind.spec.name, after, head).await?,
        None => None,
    };
    let Some(ids) = ids else {
        let changed = read::list(session, kind, &Query::all()).await?;
        return Ok(Followed { head, whole: true, changed, gone: vec![] });
    };
    if ids.is_empty() {
        return Ok(Followed { head, whole: false, changed: vec![], gone: vec![] });
    }
    let changed: Vec<Stored<R>> = read::list(session, kind, &Query::all().ids(ids.iter().map(String::as_str))).await?;
    let there: std::collections::HashSet<&str> = changed.iter().map(|stored| stored.record.id()).collect();
    let gone = ids.iter().filter(|id| !there.contains(id.as_str())).cloned().collect();
    Ok(Followed { head, whole: false, changed, gone })
}

/// Ids of what changed; `None` when there are too many to read one by one.
async fn changed(
    session: &mut Session,
    kind: &'static str,
    after: i64,
    head: i64,
) -> Result<Option<Vec<String>>, Error> {
    let most = CHANGED_MAX + 1;
    let mut rows = vec![];
    // Within a batch of SQLite's writer there are changes beyond the head; they are read again later.
    if after < head || session.is_sqlite() {
        let sql = "SELECT DISTINCT id FROM store_change WHERE seq > $1 AND kind = $2 LIMIT $3";
        rows = session.query(sql, &[Value::Int(after), kind.into(), most.into()]).await?;
    }
    if !session.is_sqlite() {
        let sql = "SELECT DISTINCT id FROM store_pending WHERE kind = $1 LIMIT $2";
        rows.extend(session.query(sql, &[kind.into(), most.into()]).await?);
    }
    if rows.len() >= most {
        return Ok(None);
    }
    let mut ids: Vec<String> = rows.iter().map(|row| row.text(0).to_owned()).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(Some(ids))
}
