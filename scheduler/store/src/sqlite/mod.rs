//! The embedded engine: one writer thread that owns the only writing connection, a few reading ones.
//!
//! WAL with `synchronous=FULL`: COMMIT returns when the log is on the disk, so an answer is a promise.
//! A store in memory has one connection; its reads go through the writer too.
mod backup;
mod reader;
mod writer;

pub(crate) use backup::{backup, vacuum_into};
pub(crate) use reader::Readers;
pub use reader::wait_for_clients;
pub(crate) use writer::{Command, Job, Work, Writer, now_us, panic_text, spawn};

use crate::{
    Error,
    kind::Kinds,
    schema,
    session::{Engine, Session},
    stats::Counters,
};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::{
    future::Future,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Statements kept prepared per connection.
const STATEMENTS: usize = 512;
/// How long another process may hold the write lock (a backup, a second open).
const BUSY: Duration = Duration::from_secs(30);

/// Runs a future that may not wait: with SQLite only foreign ones would.
pub(crate) fn at_once<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(Error::ForeignAwait),
    }
}

pub(crate) fn open_writer(path: Option<&Path>) -> Result<Connection, Error> {
    let conn = match path {
        None => Connection::open_in_memory()?,
        Some(path) => {
            create_private(path)?;
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?
        }
    };
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    if path.is_some() {
        let mode = write_ahead(&conn)?;
        if mode != "wal" {
            return Err(Error::schema(format!("the file system of the store refuses WAL (journal mode {mode})")));
        }
    }
    conn.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;
         PRAGMA cache_size = -8192; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(conn)
}

/// Of several that change the mode of a new file at once, all but one are told that it is locked, whatever their time-out:
/// they ask again.
#[expect(clippy::disallowed_methods, reason = "files are opened on a thread that may wait")]
fn write_ahead(conn: &Connection) -> Result<String, Error> {
    let started = Instant::now();
    loop {
        match conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && started.elapsed() < BUSY => {
                std::thread::sleep(Duration::from_millis(5));
            }
            mode => return Ok(mode?),
        }
    }
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, Error> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch(
        "PRAGMA query_only = ON; PRAGMA cache_size = -4096; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(conn)
}

/// Documents hold secrets: the file (and the log beside it, which takes its mode) is its owner's only.
/// The new name is on the disk before anything is promised.
pub(crate) fn create_private(path: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::Url { reason: format!("{}: {error}", path.display()) };
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Opens the writing connection and migrates; returns it with the feed's head.
pub(crate) fn prepare(
    path: Option<&Path>,
    kinds: &Kinds,
    counters: &Arc<Counters>,
    now_us: i64,
) -> Result<(Connection, i64), Error> {
    let conn = open_writer(path)?;
    let mut session = Session::new(Engine::Sqlite(conn), counters.clone());
    let migrated = at_once(async {
        session.script("BEGIN IMMEDIATE").await?;
        schema::migrate(&mut session, kinds, now_us).await?;
        let (head, _) = crate::feed::bounds(&mut session).await?;
        session.script("COMMIT").await?;
        // Statistics for the planner: another process that writes just now is no reason not to start.
        if let Err(error) = session.script("PRAGMA optimize = 0x10002").await {
            tracing::debug!(%error, "the store's statistics are as they were");
            session.failed = None;
        }
        Ok::<_, Error>(head)
    });
    let head = migrated??;
    match session.engine {
        Engine::Sqlite(conn) => Ok((conn, head)),
        Engine::Postgres(_) => Err(Error::Closed),
    }
}

#[cfg(test)]
mod tests {
    use super::{open_reader, open_writer};

    /// A kill cannot show that COMMIT waits for the disk, since the kernel keeps what was written.
    #[test]
    fn a_commit_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let conn = open_writer(Some(&path)).unwrap();
        let mode: String = conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        let synchronous: i64 = conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
        assert!(open_reader(&path).unwrap().execute_batch("CREATE TABLE t (x)").is_err());
    }
}
