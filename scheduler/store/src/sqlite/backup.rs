//! A consistent copy of a store in use.
use super::{create_private, open_writer};
use crate::Error;
use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// Copies the store at `from` to `to`, which must not exist. Writers go on meanwhile.
pub(crate) async fn backup(from: PathBuf, to: PathBuf) -> Result<(), Error> {
    let task = tokio::task::spawn_blocking(move || vacuum_into(&open_writer(Some(&from))?, &to));
    task.await.map_err(Error::of_task)?
}

/// The copy is on the disk when this returns.
pub(crate) fn vacuum_into(conn: &Connection, to: &Path) -> Result<(), Error> {
    let text = to.to_str().ok_or(Error::Unsupported { reason: "a path that is not UTF-8" })?;
    if to.exists() {
        return Err(Error::Url { reason: format!("{text} exists already") });
    }
    // SQLite takes an empty file for a missing one; ours has the right mode.
    create_private(to)?;
    let copied = conn.execute("VACUUM INTO ?1", [text]).map_err(Error::from).and_then(|_| {
        let synced = std::fs::File::open(to).and_then(|file| file.sync_all());
        synced.map_err(Error::engine)
    });
    if copied.is_err() {
        let _ = std::fs::remove_file(to);
    }
    copied
}
