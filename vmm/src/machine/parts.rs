//! What is opened once, before the jail closes, and handed to every machine that this process builds.

use super::{MachineError, kvm_step};
use crate::boot::disk::Found;
use crate::boot::{self, BootError};
use crate::config::{Config, Disk, Engine, Restore};
use crate::control::server::listen;
use crate::device::console::Console;
use crate::memory::{self, Memory};
use crate::migrate::disks::{Landing, Leaving, Leavings};
use crate::migrate::receive::Incoming;
use crate::monitor::Signals;
use crate::snapshot::{self, MachineState, SnapshotError};
use crate::virtio::block::changes::Changes;
use crate::virtio::block::{file, qcow2};
use crate::virtio::net::tap::Tap;
use kvm_ioctls::Kvm;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

fn open<T>(what: impl Into<String>, result: io::Result<T>) -> Result<T, MachineError> {
    result.map_err(|source| MachineError::Open { what: what.into(), source })
}

/// A disk's file with its size.
pub struct OpenDisk {
    /// In status and logs.
    pub name: String,
    pub(super) file: File,
    pub(super) bytes: u64,
    /// It lies in an image, behind tables.
    qcow2: bool,
    /// What the guest writes while the machine moves.
    pub(super) changes: Arc<Changes>,
}

/// A tap with the name of its card.
pub struct OpenTap {
    /// In status and logs.
    pub name: String,
    /// Open.
    pub tap: OwnedFd,
}

/// Files of a snapshot to go on from.
pub struct OpenSnapshot {
    state: File,
    image: File,
    whole: bool,
}

/// Everything that is opened once, before the jail closes.
pub struct Parts {
    /// `/dev/kvm`.
    pub kvm: Kvm,
    pub(super) kernel: Option<File>,
    pub(super) initramfs: Option<File>,
    /// In the order of the configuration.
    pub disks: Vec<OpenDisk>,
    /// In the order of the configuration.
    pub taps: Vec<OpenTap>,
    pub(super) vsock: Option<UnixListener>,
    /// Where the first start goes on from; a reset begins at the kernel.
    pub(super) restore: Option<OpenSnapshot>,
    /// Where the first start's machine comes from, when it moves in.
    pub(super) incoming: Option<Incoming>,
    /// Log and watchers.
    pub console: Arc<Console>,
}

impl Parts {
    /// Opens what the configuration names.
    pub fn open(config: &Config, signals: &Signals) -> Result<Parts, MachineError> {
        let kvm = Kvm::new().map_err(kvm_step("be opened"))?;
        let kernel = config.kernel.as_ref().map(|s| open("the kernel", s.open(false))).transpose()?;
        let initramfs = config.initramfs.as_ref().map(|s| open("the initramfs", s.open(false))).transpose()?;
        let mut names = config.device_names().into_iter();
        let disks = config.disks.iter().zip(names.by_ref());
        let disks = disks.map(|(disk, name)| open(name.clone(), open_disk(name, disk, config.incoming.is_none())));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let mut taps = Vec::new();
        for (nic, name) in config.nics.iter().zip(names) {
            let tap = open(format!("the tap of {name}"), Tap::open(&nic.tap))?.into_fd();
            taps.push(OpenTap { name, tap });
        }
        let restore = config.restore.as_ref().map(OpenSnapshot::of).transpose()?;
        let incoming = config.incoming.as_ref().map(|source| -> io::Result<Incoming> {
            Ok(Incoming { listener: listen(source)?, interrupt: signals.try_clone()? })
        });
        let incoming = open("the socket for a machine to move in", incoming.transpose())?;
        let vsock = config.vsock.as_ref().map(|vsock| listen(&vsock.socket)).transpose();
        let vsock = open("the vsock socket", vsock)?;
        let log = open("the console log", config.console.log.open_log())?;
        let console = Arc::new(open("the console log", Console::new(log, config.console.max_bytes))?);
        Ok(Parts { kvm, kernel, initramfs, disks, taps, vsock, restore, incoming, console })
    }
}

impl Parts {
    /// Lets go of the disks, everything written being durable: the machine moves.
    pub fn release_disks(&self) -> io::Result<()> {
        self.disks.iter().try_for_each(|disk| {
            disk.file.sync_data()?;
            disk.release()
        })
    }

    /// The disks that can be written, for a machine that takes them with it.
    pub fn leave_disks(&self, config: &Config) -> io::Result<Leavings> {
        let disks = (0..).zip(self.disks.iter().zip(&config.disks)).filter(|(_, (_, disk))| !disk.read_only);
        let leaving = disks.map(|(number, (open, _))| {
            if open.qcow2 {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "a qcow2 image does not go over with its machine",
                ));
            }
            let (name, file) = (open.name.clone(), open.file.try_clone()?);
            Ok((number, Leaving { name, file, bytes: open.bytes, changes: open.changes.clone() }))
        });
        leaving.collect::<io::Result<_>>().map(Leavings::watch)
    }

    /// The disks, for a machine that brings their contents.
    pub(super) fn land_disks(&self) -> io::Result<Vec<Landing>> {
        self.disks.iter().map(|disk| Landing::new(&disk.name, &disk.file, disk.bytes)).collect()
    }

    /// Takes the disks. Fails while another process has one.
    pub fn claim_disks(&self, config: &Config) -> io::Result<()> {
        let mut disks = self.disks.iter().zip(&config.disks);
        disks.try_for_each(|(open, disk)| file::claim_soon(&open.file, disk.read_only))
    }
}

fn open_disk(name: String, disk: &Disk, claim: bool) -> io::Result<OpenDisk> {
    let file = disk.source.open(!disk.read_only)?;
    let mut open = OpenDisk::of(name, file, disk.read_only, claim)?;
    if disk.engine == Engine::Qcow2 {
        (open.bytes, open.qcow2) = (qcow2::length(&open.file)?, true);
    }
    Ok(open)
}

impl OpenDisk {
    /// Makes a file so long, where that is asked for, and looks how long it is now. A disk never becomes shorter: its
    /// guest would lose what lies there.
    pub fn grow(&mut self, bytes: Option<u64>) -> io::Result<u64> {
        let shorter = |now: u64| {
            let text = format!("the disk has {} bytes and cannot become shorter ({now})", self.bytes);
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        if self.qcow2 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "a qcow2 image does not grow here"));
        }
        if let Some(bytes) = bytes {
            if bytes < self.bytes {
                return Err(shorter(bytes));
            }
            // A block device is as long as it is.
            if self.file.metadata()?.is_file() && bytes > file::size(&mut self.file)? {
                self.file.set_len(bytes)?;
            }
        }
        let now = file::size(&mut self.file)?;
        if now < self.bytes || bytes.is_some_and(|bytes| now < bytes) {
            return Err(shorter(now));
        }
        self.bytes = now;
        self.changes.grow(now);
        Ok(now)
    }

    /// Lets another process take it.
    pub fn release(&self) -> io::Result<()> {
        file::release(&self.file)
    }

    /// The kernel that the disk would start by itself.
    pub(super) fn find_kernel(&self) -> Result<Found, BootError> {
        match self.qcow2 {
            true => Err(BootError::Kernel("it is not looked for in a qcow2 image".into())),
            false => Ok(boot::disk::find(&self.file, self.bytes)?),
        }
    }

    /// What the guest is to take for a sector.
    pub(super) fn block_size(&self) -> u32 {
        if self.qcow2 { 512 } else { boot::disk::block_size(&self.file) }
    }

    /// Looks whether an open file can be a disk, and takes it.
    pub fn of(name: String, mut file: File, read_only: bool, claim: bool) -> io::Result<OpenDisk> {
        let kind = file.metadata()?.file_type();
        if !(kind.is_file() || std::os::unix::fs::FileTypeExt::is_block_device(&kind)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a block device"));
        }
        // SAFETY: fcntl without a pointer on a descriptor that `file` keeps open.
        let mode = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) } & libc::O_ACCMODE;
        if !read_only && mode != libc::O_RDWR {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the descriptor is not writable"));
        }
        if claim {
            file::claim_soon(&file, read_only)?;
        }
        let bytes = file::size(&mut file)?;
        Ok(OpenDisk { name, file, bytes, qcow2: false, changes: Changes::new(bytes) })
    }
}

impl OpenSnapshot {
    fn of(from: &Restore) -> Result<OpenSnapshot, MachineError> {
        let state = open("the state file", from.state.open(false))?;
        let image = open("the memory image", from.memory.open(false))?;
        Ok(OpenSnapshot { state, image, whole: from.verify })
    }

    /// Checks both files and maps the image.
    pub(super) fn open(mut self, bytes: u64) -> Result<(Memory, MachineState), MachineError> {
        let snapshot = snapshot::file::read(&mut self.state)?;
        if u64::from(snapshot.machine.memory_mib) << 20 != bytes {
            let text = format!("it had {} MiB of memory, this has {}", snapshot.machine.memory_mib, bytes >> 20);
            return Err(SnapshotError::Mismatch(text).into());
        }
        snapshot::memory::check(&self.image, &snapshot.memory, bytes, self.whole)?;
        Ok((memory::map_image(bytes, self.image)?, snapshot.machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_grows_and_never_shrinks() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mut disk = OpenDisk::of("disk0".into(), file.try_clone().unwrap(), false, false).unwrap();
        assert_eq!(disk.grow(Some(8192)).unwrap(), 8192);
        assert!(disk.grow(Some(4096)).is_err());
        file.set_len(16_384).unwrap();
        assert_eq!(disk.grow(None).unwrap(), 16_384);
        // Longer already than asked for.
        file.set_len(20_480).unwrap();
        assert_eq!(disk.grow(Some(16_384)).unwrap(), 20_480);
        file.set_len(512).unwrap();
        assert!(disk.grow(None).unwrap_err().to_string().contains("shorter"));
        assert_eq!(disk.bytes, 20_480);
    }
}
