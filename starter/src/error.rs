//! What can go wrong while the starter image is made. Every message says what failed and what to do about it,
//! because the person who reads it has typed one command and knows nothing of apt, ext4 or boot loaders.

use std::path::{Path, PathBuf};

/// A failed build. Nothing half-made is left in the target folder when one of these comes back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program of the host is not installed.
    #[error("the program {program} is missing on this machine; install the Debian package {package}")]
    MissingProgram { program: &'static str, package: &'static str },
    /// A file that a host package carries is not there.
    #[error("{} is missing on this machine; install the Debian package {package}", path.display())]
    MissingFile { path: PathBuf, package: &'static str },
    /// The image is made of amd64 programs, some of which run while it is made.
    #[error(
        "the starter image can only be made on x86_64 Linux; copy starter.img and starter.json from such a machine"
    )]
    WrongMachine,
    /// A program ran and failed; the end of what it said is kept.
    #[error("{program} failed ({status}): {said}")]
    Program { program: String, status: String, said: String },
    /// apt could not say where a package is, or could not fetch it.
    #[error("{what}; check the network, or the proxy in /etc/apt/apt.conf.d, and run the command again")]
    Fetch { what: String },
    /// A package file is not the one that the signed package list names.
    #[error("{} does not match the signed package list (wanted sha256 {wanted}, found {found}); delete it and run the command again", path.display())]
    BadPackage { path: PathBuf, wanted: String, found: String },
    /// Something that the recipe needs is not in the packages of this release.
    #[error("the recipe needs {what}, which the downloaded packages do not hold; report this as a bug of the recipe")]
    Recipe { what: String },
    /// A binary of a package cannot be read as what it should be.
    #[error("{} is not readable as an ELF file: {why}", path.display())]
    Elf { path: PathBuf, why: &'static str },
    /// The image would be larger than what the project promises.
    #[error("{what} needs {need} bytes but {have} are set aside; report this as a bug of the recipe")]
    TooLarge { what: &'static str, need: u64, have: u64 },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// The manifest could not be written or read.
    #[error("starter.json is not readable: {0}")]
    Manifest(#[from] serde_json::Error),
}

impl Error {
    /// For `map_err`: names the file and what was being done to it.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_path_buf();
        move |source| Error::Io { doing, path, source }
    }
}
