//! What can end the agent as a whole, or keep it from starting.
//!
//! Trouble with one instance, port or image never becomes one of these: it is text in the
//! observation of that thing, and tried again.
use std::io;
use std::path::{Path, PathBuf};

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong; the text says which field and what is expected.
    #[error("configuration: {0}")]
    Config(String),
    /// A file or folder below the state directory cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another agent runs on this state directory.
    #[error("{}: another agent is using this state directory", .0.display())]
    Locked(PathBuf),
    /// Joining the cloud failed in a way that trying again cannot mend.
    #[error("join: {0}")]
    Join(String),
    /// The packet path cannot be opened.
    #[error("packet path: {0}")]
    Network(String),
    /// A key or certificate cannot be used.
    #[error("TLS: {0}")]
    Tls(String),
}

impl Error {
    /// Names the path that an I/O error is about.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Why an instance is not as wanted: text for its observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// For whoever reads the server's fault.
    pub text: String,
    /// It is expected to pass by itself (the scheduler is away): told only when it lasts.
    pub passing: bool,
}

impl Trouble {
    /// Trouble that is expected to pass.
    pub fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), passing: true }
    }
}
impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self { text, passing: false }
    }
}
impl From<&str> for Trouble {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}
impl From<crate::runtime::RuntimeError> for Trouble {
    fn from(error: crate::runtime::RuntimeError) -> Self {
        error.to_string().into()
    }
}
impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
