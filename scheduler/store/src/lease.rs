//! Leases: who does a job that only one process may do.
//!
//! ```text
//!  free ──acquire──► held by A, epoch 1 ──renew──► the same epoch
//!                        │ ttl passes, A releases, or B seizes it
//!                        └──acquire by B──► held by B, epoch 2 ──► Tx::fence(name, 1) = Fenced
//! ```
//!
//! The clock is the database's (PostgreSQL) or this machine's (SQLite, where all share it). Safety does not
//! rest on clocks: whoever acts under a lease checks its epoch in the same transaction, by [`Tx::fence`] or by
//! doing its work [`under`] it.
use crate::{
    Error, Tx, Value,
    session::Session,
    work::{Transaction, assert_transaction},
};
use std::{future::Future, sync::Arc, time::Duration};

/// A lease that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Grows with each change of holder; the token for [`Tx::fence`].
    pub epoch: i64,
    /// Microseconds since 1970, by the store's clock.
    pub expires_us: i64,
}

/// A lease as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub name: String,
    pub holder: String,
    pub epoch: i64,
    /// Its time had not passed when this was read.
    pub live: bool,
}

/// What a transaction must still hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub lease: Arc<str>,
    pub epoch: i64,
}

tokio::task_local! {
    static GUARDS: Arc<[Guard]>;
}

/// Runs `work` so that every transaction of it begins with a check of `guard`, and of those around it: once another has
/// taken the lease, none of its writes is kept. Tasks that `work` spawns are not covered.
pub async fn under<T>(guard: Guard, work: impl Future<Output = T>) -> T {
    let outer = guards();
    let all: Arc<[Guard]> = outer.iter().cloned().chain([guard]).collect();
    GUARDS.scope(all, work).await
}

/// The leases that the running task works under.
fn guards() -> Arc<[Guard]> {
    GUARDS.try_with(Clone::clone).unwrap_or_else(|_| Arc::from([]))
}

/// A transaction that begins with a check of them.
pub(crate) fn guarded(work: Transaction) -> Transaction {
    let guards = guards();
    if guards.is_empty() {
        return work;
    }
    Arc::new(assert_transaction(move |tx| {
        let (work, guards) = (work.clone(), guards.clone());
        Box::pin(async move {
            for guard in guards.iter() {
                tx.fence(&guard.lease, guard.epoch).await?;
            }
            work(tx).await
        })
    }))
}

const CLOCK: &str = "SELECT CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP) * 1000000 AS BIGINT)";

async fn clock(session: &mut Session, now_us: i64) -> Result<i64, Error> {
    if session.is_sqlite() {
        return Ok(now_us);
    }
    let rows = session.query(CLOCK, &[]).await?;
    Ok(rows.first().map(|row| row.int(0)).unwrap_or_default())
}

fn check(name: &str, holder: &str) -> Result<(), Error> {
    if name.is_empty() || holder.is_empty() || name.contains('\0') || holder.contains('\0') || name.len() > 256 {
        return Err(Error::query("a lease and its holder need a name"));
    }
    Ok(())
}

/// How far a lease may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// When it is free, or one's own.
    Free,
    /// Whoever holds it; its epoch grows even when that is oneself.
    Anyway,
}

fn end(now: i64, ttl: Duration) -> i64 {
    now.saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX))
}

pub(crate) async fn acquire(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    ttl: Duration,
    take: Take,
) -> Result<Option<Lease>, Error> {
    check(name, holder)?;
    let now = clock(&mut tx.session, tx.now_us).await?;
    let expires_us = end(now, ttl);
    let rows =
        tx.session.query("SELECT holder, epoch, expires FROM store_lease WHERE name = $1", &[name.into()]).await?;
    let Some(row) = rows.first() else {
        let params = [name.into(), holder.into(), Value::Int(expires_us)];
        let sql = "INSERT INTO store_lease (name, holder, epoch, expires) VALUES ($1, $2, 1, $3)";
        tx.session.execute(sql, &params).await?;
        return Ok(Some(Lease { epoch: 1, expires_us }));
    };
    let (held_by, mut epoch, expires) = (row.text(0), row.int(1), row.int(2));
    if held_by != holder && expires > now && take == Take::Free {
        return Ok(None);
    }
    if held_by != holder || take == Take::Anyway {
        epoch += 1;
    }
    let params = [holder.into(), Value::Int(epoch), Value::Int(expires_us), name.into()];
    tx.session.execute("UPDATE store_lease SET holder = $1, epoch = $2, expires = $3 WHERE name = $4", &params).await?;
    Ok(Some(Lease { epoch, expires_us }))
}

/// Prolongs what is held under this very epoch; `None` when it is not, or no more.
pub(crate) async fn renew(
    tx: &mut Tx,
    name: &str,
    holder: &str,
    epoch: i64,
    ttl: Duration,
) -> Result<Option<Lease>, Error> {
    check(name, holder)?;
    let expires_us = end(clock(&mut tx.session, tx.now_us).await?, ttl);
    let params = [Value::Int(expires_us), name.into(), holder.into(), Value::Int(epoch)];
    let sql = "UPDATE store_lease SET expires = $1 WHERE name = $2 AND holder = $3 AND epoch = $4";
    Ok((tx.session.execute(sql, &params).await? > 0).then_some(Lease { epoch, expires_us }))
}

pub(crate) async fn release(tx: &mut Tx, name: &str, holder: &str) -> Result<bool, Error> {
    check(name, holder)?;
    let params = [name.into(), holder.into()];
    let sql = "UPDATE store_lease SET holder = '', expires = 0 WHERE name = $1 AND holder = $2";
    Ok(tx.session.execute(sql, &params).await? > 0)
}

/// Leases whose names begin with `prefix` and that somebody holds or held last, by name.
pub(crate) async fn holdings(session: &mut Session, prefix: &str, now_us: i64) -> Result<Vec<Holding>, Error> {
    let now = clock(session, now_us).await?;
    // Names are plain text without the last code point, so this bounds the prefix from above.
    let params = [prefix.into(), format!("{prefix}\u{10ffff}").into()];
    let sql = "SELECT name, holder, epoch, expires FROM store_lease \
               WHERE name >= $1 AND name < $2 AND holder <> '' ORDER BY name";
    let rows = session.query(sql, &params).await?;
    let holding = |row: &crate::value::Row| Holding {
        name: row.text(0).to_owned(),
        holder: row.text(1).to_owned(),
        epoch: row.int(2),
        live: row.int(3) > now,
    };
    Ok(rows.iter().map(holding).collect())
}

/// Removes a lease for good: for names that are used once.
pub(crate) async fn forget(tx: &mut Tx, name: &str, holder: &str) -> Result<bool, Error> {
    check(name, holder)?;
    let sql = "DELETE FROM store_lease WHERE name = $1 AND holder = $2";
    Ok(tx.session.execute(sql, &[name.into(), holder.into()]).await? > 0)
}

impl Tx {
    /// Goes on only while `epoch` of the lease is the present one.
    pub async fn fence(&mut self, lease: &str, epoch: i64) -> Result<(), Error> {
        let fenced = || Error::Fenced { lease: lease.to_owned() };
        if lease.contains('\0') {
            return Err(fenced());
        }
        let sql = "SELECT epoch FROM store_lease WHERE name = $1 AND holder <> ''";
        let rows = self.session.query(sql, &[lease.into()]).await?;
        match rows.first() {
            Some(row) if row.int(0) == epoch => Ok(()),
            _ => Err(fenced()),
        }
    }
}
