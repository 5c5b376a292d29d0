//! Sockets in folders that may lie deep: an address holds 107 bytes, so a path goes through the open folder, which is short.
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// A short path to a socket, good for as long as this is kept.
#[derive(Debug)]
pub struct Short {
    folder: File,
    name: PathBuf,
}

impl Short {
    /// To the socket of this name in a folder.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub fn to(folder: &Path, name: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self { folder: File::open(folder)?, name: name.into() })
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(&self.name)
    }
}
