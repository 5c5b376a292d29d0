//! Direct boot: finds the kernel that a disk image would start by itself, without firmware and boot loader.
//!
//! ```text
//!   disk ─► partitions.rs (GPT, MBR, or none) ─► ext4 (crate ext4-view) ─► entries.rs ─► kernel, initramfs, command line
//!                                                  BLS entries │ grub.cfg │ /vmlinuz
//! ```
//! The image belongs to the guest and is read at every start, so a kernel that it has upgraded starts at the next reset.
//! Every number in it is hostile: this runs in the jail, the readers are memory safe, sizes are looked at before anything
//! is read. What is found is copied into memory files and goes the way of any kernel.

mod entries;
mod partitions;

use ext4_view::{Ext4, Ext4Read};
use partitions::Stretch;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

/// Largest kernel.
const KERNEL_BYTES_MAX: u64 = 256 << 20;
/// Largest initramfs.
const INITRAMFS_BYTES_MAX: u64 = 1 << 30;
/// Largest configuration file of a boot loader.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Why a disk does not boot by itself.
#[derive(Debug, thiserror::Error)]
pub enum DiskBootError {
    /// Nothing that we read.
    #[error("no partition of the disk has a kernel that can be started directly ({0})")]
    NoKernel(String),
    /// A file of the image.
    #[error("the disk's {path}: {problem}")]
    File {
        /// In the image.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The host.
    #[error("cannot keep the disk's kernel in memory: {0}")]
    Host(#[from] io::Error),
}

/// What the disk would start.
#[derive(Debug)]
pub struct Found {
    /// In a memory file.
    pub kernel: File,
    /// The same.
    pub initramfs: Option<File>,
    /// As the disk has it.
    pub cmdline: String,
}

/// A part of the disk as the file system reader wants it.
struct Window {
    disk: File,
    stretch: Stretch,
}

impl Ext4Read for Window {
    fn read(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let end = start.checked_add(bytes.len() as u64).filter(|end| *end <= self.stretch.bytes);
        let at = end.and_then(|_| start.checked_add(self.stretch.start)).ok_or("outside the partition")?;
        Ok(self.disk.read_exact_at(bytes, at)?)
    }
}

/// Looks through the disk's file systems for a kernel.
pub fn find(disk: &File, bytes: u64) -> Result<Found, DiskBootError> {
    let mut seen = Vec::new();
    for stretch in partitions::list(disk, bytes) {
        let window = Window { disk: disk.try_clone()?, stretch: stretch.clone() };
        let system = match Ext4::load(Box::new(window)) {
            Ok(system) => system,
            Err(e) => {
                seen.push(format!("{}: {e}", stretch.name));
                continue;
            }
        };
        let reader = Reader { system };
        match entries::choose(&reader, &stretch) {
            Some(entry) => return reader.load(&entry),
            None => seen.push(format!("{}: ext4 without a boot entry", stretch.name)),
        }
    }
    Err(DiskBootError::NoKernel(seen.join("; ")))
}

/// A file system with bounds on what is read from it.
pub struct Reader {
    system: Ext4,
}

impl Reader {
    fn read(&self, path: &str, most: u64) -> Result<Vec<u8>, DiskBootError> {
        let failed = |problem: String| DiskBootError::File { path: path.to_owned(), problem };
        let length = self.system.metadata(path).map_err(|e| failed(e.to_string()))?.len();
        if length > most {
            return Err(failed(format!("has {length} bytes, more than {most}")));
        }
        self.system.read(path).map_err(|e| failed(e.to_string()))
    }

    /// A small text; None where there is none.
    pub fn text(&self, path: &str) -> Option<String> {
        let bytes = self.read(path, TEXT_BYTES_MAX).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether there is such a file.
    pub fn has(&self, path: &str) -> bool {
        self.system.exists(path).unwrap_or(false)
    }

    /// Names in a folder, at most a thousand.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = self.system.read_dir(path).into_iter().flatten().take(1000);
        entries.filter_map(|entry| entry.ok()?.file_name().as_str().ok().map(str::to_owned)).collect()
    }

    fn load(&self, entry: &entries::Entry) -> Result<Found, DiskBootError> {
        let kernel = keep(&self.read(&entry.kernel, KERNEL_BYTES_MAX)?)?;
        let mut all = Vec::new();
        for path in &entry.initramfs {
            all.extend(self.read(path, INITRAMFS_BYTES_MAX - all.len() as u64)?);
            // Archives after one another begin at four bytes' bounds.
            all.resize(all.len().next_multiple_of(4), 0);
        }
        let initramfs = if all.is_empty() { None } else { Some(keep(&all)?) };
        Ok(Found { kernel, initramfs, cmdline: entry.cmdline.clone() })
    }
}

/// A file in memory: the jail has no other place.
fn keep(bytes: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a constant C string; the result is checked.
    let fd = unsafe { libc::memfd_create(c"boot".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
