//! `pilvi-vmm boots DISK`: whether a disk starts by itself, found out in the jail in which it would be read at the start.
//!
//! ```text
//!   open the disk ─► jail, filter, bounds on time and memory ─► look ─► one line of JSON
//! ```

use super::disk;
use crate::config::User;
use crate::sandbox::{self, SandboxError, Threads, jail, seccomp};
use crate::virtio::block::file;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::path::Path;

/// Processor time that a look may take, in seconds.
const SECONDS: u64 = 20;
/// Address space: the largest kernel, twice, and the program.
const SPACE: u64 = 1 << 30;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boots {
    /// It has a kernel that can be started without firmware.
    pub boots: bool,
    /// Its first sector is one that a BIOS would start.
    #[serde(default)]
    pub boot_sector: bool,
    /// The kernel, by its path.
    #[serde(default)]
    pub kernel: String,
    /// The kernel's command line.
    #[serde(default)]
    pub cmdline: String,
    /// Why it does not.
    #[serde(default)]
    pub reason: String,
}

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The disk.
    #[error("cannot open the disk: {0}")]
    Disk(#[from] io::Error),
    /// The jail.
    #[error(transparent)]
    Jail(#[from] SandboxError),
}

/// Looks at a disk. This process can do nothing else afterwards.
pub fn boots(path: &Path, user: Option<User>) -> Result<Boots, ProbeError> {
    let mut disk = File::open(path)?;
    let bytes = file::size(&mut disk)?;
    for (what, most) in [(libc::RLIMIT_CPU, SECONDS), (libc::RLIMIT_AS, SPACE)] {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the pointer is to a live structure.
        if unsafe { libc::setrlimit(what, &raw const limit) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    sandbox::quiet_allocator();
    seccomp::install_report()?;
    jail::close(user)?;
    Threads::filtered()?.confine_monitor()?;
    let boot_sector = disk::has_boot_sector(&disk);
    Ok(match disk::look(&disk, bytes) {
        Ok(looked) => {
            Boots { boots: true, boot_sector, kernel: looked.kernel, cmdline: looked.cmdline, reason: String::new() }
        }
        Err(error) => Boots { boot_sector, reason: error.to_string(), ..Boots::default() },
    })
}
