//! One scheduler for one SQLite file: a lock beside the file, which the kernel frees when its holder ends, however.
use crate::Error;
use std::{
    fs::{File, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Held by the scheduler of a store; other programs may still read and write its records.
#[derive(Debug, Default)]
pub struct Sole {
    _file: Option<File>,
}

impl Sole {
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        let beside = path.with_added_extension("lock");
        let failed = |error: std::io::Error| Error::Url { reason: format!("{}: {error}", beside.display()) };
        let file =
            File::options().create(true).truncate(false).write(true).mode(0o600).open(&beside).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Sole { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { path: path.display().to_string() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}
