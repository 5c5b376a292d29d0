//! What is opened once, before the jail closes, and handed to every machine that this process builds.

use super::{MachineError, kvm_step};
use crate::boot::disk::Found;
use crate::boot::{self, BootError};
use crate::config::{self, Config, Disk, Engine, Lazy, Nic, Restore, Share, Source, inherit};
use crate::control::server::listen;
use crate::device::console::Console;
use crate::fault::uffd::Uffd;
use crate::fault::{Pager, image};
use crate::firmware::Rom;
use crate::memory::{self, Memory};
use crate::migrate::disks::{Landing, Leaving, Leavings};
use crate::migrate::receive::{House, Incoming};
use crate::monitor::Signals;
use crate::snapshot::{self, MachineState, SnapshotError};
use crate::virtio::block::changes::Changes;
use crate::virtio::block::nbd::Link;
use crate::virtio::block::{file, qcow2};
use crate::virtio::net::tap::Tap;
use crate::virtio::vhost;
use crate::virtio::vhost::shape::{Kind, Shape};
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
    pub(super) store: Store,
    pub(super) bytes: u64,
    /// What the guest writes while the machine moves.
    pub(super) changes: Arc<Changes>,
}

/// Where a disk's bytes are.
pub enum Store {
    /// As they are.
    Raw(File),
    /// Behind the tables of an image.
    Qcow2(File),
    /// Behind a server, who alone says whose they are.
    Nbd(Arc<Link>),
    /// The same, and the queues are there, too.
    Vhost(Arc<vhost::Link>),
}

impl Store {
    /// The file that this process holds; none where it holds a connection.
    fn file(&self) -> Option<&File> {
        match self {
            Store::Raw(file) | Store::Qcow2(file) => Some(file),
            Store::Nbd(_) | Store::Vhost(_) => None,
        }
    }
}

/// The host's end of a card, with the card's name.
pub struct OpenTap {
    /// In status and logs.
    pub name: String,
    /// Open.
    pub end: CardEnd,
}

/// Who is at the other end of a card.
pub enum CardEnd {
    /// A tap.
    Tap(OwnedFd),
    /// A backend, which has the card's queues.
    Vhost(Arc<vhost::Link>),
}

/// Files of a snapshot to go on from.
pub struct OpenSnapshot {
    state: File,
    image: File,
    whole: bool,
    /// Pages are brought one by one.
    uffd: Option<Uffd>,
}

/// Everything that is opened once, before the jail closes.
pub struct Parts {
    /// `/dev/kvm`.
    pub kvm: Kvm,
    pub(super) kernel: Option<File>,
    pub(super) initramfs: Option<File>,
    pub(super) firmware: Option<Arc<Rom>>,
    /// In the order of the configuration.
    pub disks: Vec<OpenDisk>,
    /// In the order of the configuration.
    pub taps: Vec<OpenTap>,
    /// In the order of the configuration.
    pub shares: Vec<Arc<vhost::Link>>,
    /// Guest memory that backends have been given: it stays the same, emptied, when the machine starts again.
    pub(super) shared: Option<Memory>,
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
        let firmware = config.firmware.as_ref().map(|s| open("the firmware", s.open(false).and_then(Rom::read)));
        let firmware = firmware.transpose()?;
        let mut names = config.device_names().into_iter();
        let disks = config.disks.iter().zip(names.by_ref());
        let disks = disks.map(|(disk, name)| open(name.clone(), open_disk(name, disk, config.incoming.is_none())));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let mut taps = Vec::new();
        for (nic, name) in config.nics.iter().zip(names.by_ref()) {
            let what = if matches!(nic.tap, config::Tap::VhostUser(_)) { "backend" } else { "tap" };
            let end = open(format!("the {what} of {name}"), open_card(nic, &name, config.incoming.is_none()))?;
            taps.push(OpenTap { name, end });
        }
        let mut shares = Vec::new();
        for (share, name) in config.shares.iter().zip(names) {
            let link = connection(&share.socket).and_then(|socket| open_share(&name, socket, share));
            shares.push(open(format!("the backend of {name}"), link)?);
        }
        let restore = config.restore.as_ref().map(OpenSnapshot::of).transpose()?;
        let incoming = config.incoming.as_ref().map(|source| -> io::Result<Incoming> {
            // Without it the machine comes whole or not at all. Of shared memory others would see pages that are missing, of blocks
            // some are missing for good.
            let whole = config.shares_memory() || config.hugetlb || config.memory_hotplug.is_some();
            let uffd = Uffd::open().ok().filter(|_| !whole);
            Ok(Incoming { listener: listen(source)?, interrupt: signals.try_clone()?, uffd })
        });
        let incoming = open("the socket for a machine to move in", incoming.transpose())?;
        let vsock = config.vsock.as_ref().map(|vsock| listen(&vsock.socket)).transpose();
        let vsock = open("the vsock socket", vsock)?;
        let log = open("the console log", config.console.log.open_log())?;
        let console = Arc::new(open("the console log", Console::new(log, config.console.max_bytes))?);
        let shared = None;
        Ok(Parts { kvm, kernel, initramfs, firmware, disks, taps, shares, shared, vsock, restore, incoming, console })
    }
}

impl Parts {
    /// Lets go of the disks, everything written being durable: the machine moves.
    pub fn release_disks(&self) -> io::Result<()> {
        self.disks.iter().try_for_each(|disk| {
            disk.store.file().map_or(Ok(()), File::sync_data)?;
            disk.release()
        })
    }

    /// The disks that can be written, for a machine that takes them with it.
    pub fn leave_disks(&self, config: &Config) -> io::Result<Leavings> {
        let disks = (0..).zip(self.disks.iter().zip(&config.disks)).filter(|(_, (_, disk))| !disk.read_only);
        // What a server has stays there: the target has a connection of its own.
        let disks = disks.filter(|(_, (open, _))| open.store.file().is_some());
        let leaving = disks.map(|(number, (open, _))| {
            let Store::Raw(file) = &open.store else {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "a qcow2 image does not go over with its machine",
                ));
            };
            let (name, file) = (open.name.clone(), file.try_clone()?);
            Ok((number, Leaving { name, file, bytes: open.bytes, changes: open.changes.clone() }))
        });
        leaving.collect::<io::Result<_>>().map(Leavings::watch)
    }

    /// The disks, for a machine that brings their contents.
    pub(super) fn land_disks(&self) -> io::Result<Vec<Landing>> {
        let land = |disk: &OpenDisk| Some(Landing::new(&disk.name, disk.store.file()?, disk.bytes));
        self.disks.iter().filter_map(land).collect()
    }

    /// Memory of zeroes for the next machine.
    pub(super) fn memory(&mut self, config: &Config) -> Result<Memory, MachineError> {
        let size = config.memory_size();
        if !config.shares_memory() {
            return Ok(memory::map_sized(size, &config.memory_backing())?);
        }
        if let Some(memory) = &self.shared {
            memory::clear(memory)?;
            return Ok(memory.clone());
        }
        Ok(memory::map_shared(size.ram, config.huge_pages)?)
    }

    /// The backend of a device, if it has one.
    pub fn backend(&self, name: &str) -> Option<&Arc<vhost::Link>> {
        let disks = self.disks.iter().filter_map(OpenDisk::backend);
        let cards = self.taps.iter().filter_map(|tap| match &tap.end {
            CardEnd::Vhost(link) => Some(link),
            CardEnd::Tap(_) => None,
        });
        disks.chain(cards).chain(&self.shares).find(|link| link.name == name)
    }

    /// Takes the disks. Fails while another process has one.
    pub fn claim_disks(&self, config: &Config) -> io::Result<()> {
        let mut disks = self.disks.iter().zip(&config.disks);
        disks.try_for_each(|(open, disk)| match open.store.file() {
            Some(file) => file::claim_soon(file, disk.read_only),
            None => Ok(()),
        })
    }
}

fn open_disk(name: String, disk: &Disk, claim: bool) -> io::Result<OpenDisk> {
    if disk.engine == Engine::Nbd {
        return OpenDisk::behind(name, connection(&disk.source)?, &disk.export, disk.read_only);
    }
    if disk.engine == Engine::VhostUser {
        return OpenDisk::elsewhere(name, connection(&disk.source)?, disk);
    }
    let file = disk.source.open(!disk.read_only)?;
    let mut open = OpenDisk::of(name, file, disk.read_only, claim)?;
    if let (Engine::Qcow2, Store::Raw(file)) = (disk.engine, &open.store) {
        (open.bytes, open.store) = (qcow2::length(file)?, Store::Qcow2(file.try_clone()?));
    }
    Ok(open)
}

/// The host's end of a card.
fn open_card(nic: &Nic, name: &str, fresh: bool) -> io::Result<CardEnd> {
    match &nic.tap {
        config::Tap::VhostUser(socket) => CardEnd::backend(name, connection(socket)?, nic),
        _ => Tap::open(&nic.tap, fresh).map(|tap| CardEnd::Tap(tap.into_fd())),
    }
}

impl CardEnd {
    /// A card whose backend is at the other end of this socket.
    pub fn backend(name: &str, socket: OwnedFd, nic: &Nic) -> io::Result<CardEnd> {
        let mac = nic.mac_bytes().unwrap_or([2, 0, 0, 0, 0, 1]);
        let shape = Shape { kind: Kind::Card { mac, mtu: nic.mtu }, queues: 1 };
        vhost::Link::open(name, socket, shape).map(CardEnd::Vhost)
    }
}

/// A folder whose backend is at the other end of this socket.
pub fn open_share(name: &str, socket: OwnedFd, share: &Share) -> io::Result<Arc<vhost::Link>> {
    vhost::Link::open(name, socket, Shape { kind: Kind::Share { tag: share.tag.clone() }, queues: share.queues })
}

/// A connection to a server: inherited, or made now.
fn connection(source: &Source) -> io::Result<OwnedFd> {
    match source {
        Source::Fd(fd) => inherit(*fd),
        Source::Path(path) => std::os::unix::net::UnixStream::connect(path).map(OwnedFd::from),
    }
}

impl OpenDisk {
    /// A disk that a server has, at the other end of this socket.
    pub fn behind(name: String, socket: OwnedFd, export: &str, read_only: bool) -> io::Result<OpenDisk> {
        let link = Link::open(socket, export, read_only)?;
        let bytes = link.bytes();
        Ok(OpenDisk { name, store: Store::Nbd(link), bytes, changes: Changes::new(bytes) })
    }

    /// A disk whose queues a backend serves, at the other end of this socket.
    pub fn elsewhere(name: String, socket: OwnedFd, disk: &Disk) -> io::Result<OpenDisk> {
        let shape = Shape { kind: Kind::Disk { read_only: disk.read_only }, queues: disk.queues.unwrap_or(1) };
        let link = vhost::Link::open(&name, socket, shape)?;
        let bytes = link.bytes().unwrap_or(0);
        Ok(OpenDisk { name, store: Store::Vhost(link), bytes, changes: Changes::new(bytes) })
    }

    /// Its backend, if it has one.
    pub fn backend(&self) -> Option<&Arc<vhost::Link>> {
        match &self.store {
            Store::Vhost(link) => Some(link),
            _ => None,
        }
    }

    /// Its link to a server, if it has one.
    pub fn link(&self) -> Option<&Arc<Link>> {
        match &self.store {
            Store::Nbd(link) => Some(link),
            _ => None,
        }
    }

    /// Makes a file so long, where that is asked for, and looks how long it is now. A disk never becomes shorter: its
    /// guest would lose what lies there.
    pub fn grow(&mut self, bytes: Option<u64>) -> io::Result<u64> {
        let had = self.bytes;
        let shorter = |now: u64| {
            let text = format!("the disk has {had} bytes and cannot become shorter ({now})");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        };
        if let Store::Nbd(link) = &self.store {
            let now = link.bytes();
            if bytes.is_some_and(|bytes| now < bytes) {
                let text = format!("the server has {now} bytes of this disk: it grows there, and is connected again");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            (self.bytes, _) = (now, self.changes.grow(now));
            return Ok(now);
        }
        let Store::Raw(file) = &mut self.store else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "images do not grow here"));
        };
        if let Some(bytes) = bytes {
            if bytes < self.bytes {
                return Err(shorter(bytes));
            }
            // A block device is as long as it is.
            if file.metadata()?.is_file() && bytes > file::size(file)? {
                file.set_len(bytes)?;
            }
        }
        let now = file::size(file)?;
        if now < self.bytes || bytes.is_some_and(|bytes| now < bytes) {
            return Err(shorter(now));
        }
        self.bytes = now;
        self.changes.grow(now);
        Ok(now)
    }

    /// Lets another process take it.
    pub fn release(&self) -> io::Result<()> {
        self.store.file().map_or(Ok(()), file::release)
    }

    /// The kernel that the disk would start by itself.
    pub(super) fn find_kernel(&self) -> Result<Found, BootError> {
        match &self.store {
            Store::Raw(file) => Ok(boot::disk::find(file, self.bytes)?),
            _ => Err(BootError::Kernel("it is looked for on raw disks alone".into())),
        }
    }

    /// What the guest is to take for a sector.
    pub(super) fn block_size(&self) -> u32 {
        if let Store::Raw(file) = &self.store { boot::disk::block_size(file) } else { 512 }
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
        Ok(OpenDisk { name, store: Store::Raw(file), bytes, changes: Changes::new(bytes) })
    }
}

impl OpenSnapshot {
    fn of(from: &Restore) -> Result<OpenSnapshot, MachineError> {
        let state = open("the state file", from.state.open(false))?;
        let image = open("the memory image", from.memory.open(false))?;
        let uffd = (from.lazy == Lazy::Fault).then(Uffd::open).transpose();
        let uffd = open("userfaultfd, for a lazy restore by faults", uffd)?;
        Ok(OpenSnapshot { state, image, whole: from.verify && uffd.is_none(), uffd })
    }

    /// Checks both files and maps the image, or has it brought as it is touched.
    pub(super) fn open(
        mut self,
        config: &Config,
        house: &House,
    ) -> Result<(Memory, MachineState, Option<Pager>), MachineError> {
        let size = config.memory_size();
        let snapshot = snapshot::file::read(&mut self.state)?;
        for (what, had, has) in [
            ("memory", snapshot.machine.memory_mib, size.ram >> 20),
            ("memory that comes and goes", snapshot.machine.max_hot_mib, size.hot >> 20),
        ] {
            if u64::from(had) != has {
                let text = format!("it had {had} MiB of {what}, this has {has}");
                return Err(SnapshotError::Mismatch(text).into());
            }
        }
        snapshot::memory::check(&self.image, &snapshot.memory, size.bytes(), self.whole)?;
        let Some(uffd) = self.uffd else {
            let memory = match config.shares_memory() {
                true => {
                    let memory = memory::map_shared(size.ram, config.huge_pages)?;
                    memory::copy_image(&memory, &self.image).map_err(SnapshotError::file("read the memory image"))?;
                    memory
                }
                false => memory::map_image_sized(size, config.memory_backing(), self.image)?,
            };
            return Ok((memory, snapshot.machine, None));
        };
        let memory = memory::map(size.ram, false)?;
        let pager = image::start(uffd, &memory, self.image, snapshot.memory, house)?;
        Ok((memory, snapshot.machine, Some(pager)))
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
