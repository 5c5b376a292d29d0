//! Gives committed changes their numbers.
//!
//! Whoever holds the lock on store_feed's row marks what it sees in `store_pending` as its batch, copies the
//! batch with numbers, and deletes it. A row is numbered only when it is visible, so no number below the head
//! appears later. Within a batch, changes stand in the order of their transactions' clocks.
use super::{Postgres, back_off};
use crate::{Error, Value, feed, session::Session};
use rand::Rng;
use std::{sync::Weak, time::Duration};

/// How late commits of other processes are seen at most; the question is two look-ups.
const POLL: Duration = Duration::from_millis(100);
/// After an error of the database.
const PAUSE: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 20;

/// Runs until the store is gone.
pub(super) async fn run(postgres: Weak<Postgres>) {
    loop {
        let Some(store) = postgres.upgrade() else { return };
        // Bounded, so that the strong reference is given up ten times a second.
        let _ = tokio::time::timeout(POLL, store.committed.notified()).await;
        if let Err(error) = store.sequence().await {
            tracing::warn!(%error, "numbering changes failed");
            drop(store);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Postgres {
    /// When this returns, everything that was committed before the call has its number.
    pub async fn sequence(&self) -> Result<(), Error> {
        let _one = self.sequencing.lock().await;
        for attempt in 1..=ATTEMPTS {
            let mut session = self.session().await?;
            match pass(&mut session).await {
                Ok(head) => {
                    self.put(session);
                    self.head.send_if_modified(|known| {
                        let newer = head > *known;
                        *known = head.max(*known);
                        newer
                    });
                    return Ok(());
                }
                Err(Error::Serialization) => back_off(attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contention { attempts: ATTEMPTS })
    }
}

/// Returns the head. On an error the connection is in a transaction and must be dropped.
async fn pass(session: &mut Session) -> Result<i64, Error> {
    let waiting = session.query("SELECT ord FROM store_pending LIMIT 1", &[]).await?;
    if waiting.is_empty() {
        return Ok(feed::bounds(session).await?.0);
    }
    session.script("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let rows = session.query("UPDATE store_feed SET seq = seq WHERE id = 1 RETURNING seq", &[]).await?;
    let mut head = rows.first().map(|row| row.int(0)).ok_or_else(|| Error::schema("store_feed has no row"))?;
    let batch = Value::Text(format!("{:032x}", rand::rng().random::<u128>()));
    let mark = "UPDATE store_pending SET batch = $1 WHERE batch IS NULL";
    if session.execute(mark, std::slice::from_ref(&batch)).await? > 0 {
        let copy = "INSERT INTO store_change (seq, kind, id, rev, op, at) \
                    SELECT $1 + ROW_NUMBER() OVER (ORDER BY at, tx, ord), kind, id, rev, op, at \
                    FROM store_pending WHERE batch = $2";
        let copied = session.execute(copy, &[Value::Int(head), batch.clone()]).await?;
        session.execute("DELETE FROM store_pending WHERE batch = $1", &[batch]).await?;
        head += i64::try_from(copied).unwrap_or_default();
        feed::set_head(session, head).await?;
    }
    session.script("COMMIT").await?;
    Ok(head)
}
