//! Leases: who does a job that only one process may do.
//!
//! ```text
//!  free ──acquire──► held by A, epoch 1 ──renew──► the same epoch
//!                        │ ttl passes, or A releases
//!                        └──acquire by B──► held by B, epoch 2 ──► Tx::fence(name, 1) = Fenced
//! ```
//!
//! The clock is the database's (PostgreSQL) or this machine's (SQLite, where all share it). Safety does not
//! rest on clocks: whoever acts under a lease checks its epoch by [`Tx::fence`] in the same transaction.
use crate::{Error, Tx, Value};
use std::time::Duration;

/// A lease that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Grows with each change of holder; the token for [`Tx::fence`].
    pub epoch: i64,
    /// Microseconds since 1970, by the store's clock.
    pub expires_us: i64,
}

async fn clock(tx: &mut Tx) -> Result<i64, Error> {
    if tx.session.is_sqlite() {
        return Ok(tx.now_us);
    }
    let sql = "SELECT CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP) * 1000000 AS BIGINT)";
    let rows = tx.session.query(sql, &[]).await?;
    Ok(rows.first().map(|row| row.int(0)).unwrap_or_default())
}

fn check(name: &str, holder: &str) -> Result<(), Error> {
    if name.is_empty() || holder.is_empty() || name.contains('\0') || holder.contains('\0') || name.len() > 256 {
        return Err(Error::query("a lease and its holder need a name"));
    }
    Ok(())
}

pub(crate) async fn acquire(tx: &mut Tx, name: &str, holder: &str, ttl: Duration) -> Result<Option<Lease>, Error> {
    check(name, holder)?;
    let now = clock(tx).await?;
    let expires_us = now.saturating_add(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX));
    let rows =
        tx.session.query("SELECT holder, epoch, expires FROM store_lease WHERE name = $1", &[name.into()]).await?;
    let Some(row) = rows.first() else {
        let params = [name.into(), holder.into(), Value::Int(expires_us)];
        let sql = "INSERT INTO store_lease (name, holder, epoch, expires) VALUES ($1, $2, 1, $3)";
        tx.session.execute(sql, &params).await?;
        return Ok(Some(Lease { epoch: 1, expires_us }));
    };
    let (held_by, mut epoch, expires) = (row.text(0), row.int(1), row.int(2));
    if held_by != holder {
        if expires > now {
            return Ok(None);
        }
        epoch += 1;
    }
    let params = [holder.into(), Value::Int(epoch), Value::Int(expires_us), name.into()];
    tx.session.execute("UPDATE store_lease SET holder = $1, epoch = $2, expires = $3 WHERE name = $4", &params).await?;
    Ok(Some(Lease { epoch, expires_us }))
}

pub(crate) async fn release(tx: &mut Tx, name: &str, holder: &str) -> Result<bool, Error> {
    check(name, holder)?;
    let params = [name.into(), holder.into()];
    let sql = "UPDATE store_lease SET holder = '', expires = 0 WHERE name = $1 AND holder = $2";
    Ok(tx.session.execute(sql, &params).await? > 0)
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
