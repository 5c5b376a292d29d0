//! What can go wrong on the packet path. One port's trouble is a line in [`crate::Applied`]; an
//! `Error` means that the whole call did not happen.
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused; `what` names the step.
    #[error("{what}: {source}")]
    System { what: String, source: io::Error },
    /// The programs could not be loaded or attached.
    #[error("{what}: {message}")]
    Program { what: &'static str, message: String },
    /// Another process holds this prefix's packet path.
    #[error("{0} is locked: another process runs this packet path")]
    Locked(PathBuf),
    #[error("invalid configuration: {0}")]
    Config(String),
    #[error("no port {0}")]
    NoPort(String),
    /// The thread that works inside the namespace is gone.
    #[error("the packet path is closed")]
    Closed,
}

pub type Result<T> = std::result::Result<T, Error>;

/// Names the step that an `io::Error` stopped.
pub(crate) trait Step<T> {
    fn step(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::System { what: what.into(), source })
    }
}

impl<T> Step<T> for nix::Result<T> {
    fn step(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::System { what: what.into(), source: e.into() })
    }
}
