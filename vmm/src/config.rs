//! What one machine is made of: a JSON file, checked once, then trusted.
//!
//! Files, sockets and taps may be named or handed over as inherited descriptor numbers; the second form lets the
//! process start in a jail that cannot open anything.

pub mod numa;

use crate::memory::hot::{self, Area, BLOCKS_MAX};
use crate::memory::{Backing, NODES_MAX, Size};
use crate::virtio::limit::Rate;
use crate::virtio::vhost::shape::TAG_MAX;
use numa::NumaNode;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most virtual processors of one machine: the MP table names APIC ids below 255.
pub const VCPUS_MAX: u16 = 254;
/// Least memory that can hold a kernel and its boot structures.
pub const MEMORY_MIB_MIN: u32 = 16;
/// Most memory of one machine.
pub const MEMORY_MIB_MAX: u32 = 4 * 1024 * 1024;
/// Least block of memory that comes and goes.
const BLOCK_MIB_MIN: u32 = 2;
/// Most queues of a disk.
pub const DISK_QUEUES_MAX: u16 = 16;
/// Most queues of a disk that was not told how many.
const DISK_QUEUES_USUAL: u16 = 8;
/// Longest name of an NBD export, by the protocol.
const EXPORT_MAX: usize = 4096;
/// Longest name of a device.
pub const NAME_MAX: usize = 80;
/// Longest command line that Linux on x86 takes.
pub const CMDLINE_BYTES_MAX: usize = 2047;
/// Largest configuration file that is read.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not JSON, a wrong type, an unknown or a missing field.
    #[error("the configuration is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Well-formed, but a value is out of its range.
    #[error("the configuration's `{field}` {problem}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A file by path, or an inherited descriptor by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Opened before the jail closes.
    Path(PathBuf),
    /// Inherited; owned (and closed) by this process from then on.
    Fd(i32),
}

impl Source {
    /// Opens for reading, and for writing where `write` says so. A path is never followed into a FIFO wait.
    pub fn open(&self, write: bool) -> io::Result<File> {
        match self {
            Source::Path(path) => {
                OpenOptions::new().read(true).write(write).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
            }
            Source::Fd(fd) => Ok(File::from(inherit(*fd)?)),
        }
    }

    /// Opens for appending text, making the file with mode 0600 when it is not there.
    pub fn open_log(&self) -> io::Result<File> {
        match self {
            Source::Path(path) => OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
                .open(path),
            Source::Fd(fd) => Ok(File::from(inherit(*fd)?)),
        }
    }
}

/// Takes over an inherited descriptor. Standard streams are refused, as are numbers that are not open.
pub fn inherit(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD only changes a flag of the number it is given; a bad number is an error return.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {fd} is not an inherited file")));
    }
    // SAFETY: the number is open (fcntl succeeded), and `validate` made sure that no other field names it too.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A disk image or block device, raw unless its engine says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Where the bytes are.
    pub source: Source,
    /// Refuse writes, and say so to the guest.
    #[serde(default)]
    pub read_only: bool,
    /// In status and requests, default `diskN`. A snapshot's and a migration's devices are known again by it.
    #[serde(default)]
    pub name: Option<String>,
    /// What the guest reads as the disk's serial number, at most 20 bytes; default `diskN`.
    #[serde(default)]
    pub serial: Option<String>,
    /// Queues, 1 to 16, each with a worker of its own. By itself as many as there can be processors, 8 at most, on PCI; one on
    /// MMIO, where all would share an interrupt, for images that only one can change at a time, and where others serve the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Limit on reads and writes together.
    #[serde(default)]
    pub rate: Rate,
    /// How several requests are served at once.
    #[serde(default)]
    pub engine: Engine,
    /// Of an NBD server, the name of its export.
    #[serde(default)]
    pub export: String,
}

/// A door for debuggers. Whoever can open it can do anything to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gdb {
    /// Path to bind (mode 0600), or an inherited listening socket.
    pub socket: Source,
    /// The first instruction waits for a debugger.
    #[serde(default)]
    pub wait: bool,
}

/// How a disk's requests reach its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// io_uring, or threads where that cannot be had.
    #[default]
    Auto,
    /// Threads.
    Threads,
    /// One after the other.
    Plain,
    /// The same, through the tables of a qcow2 image that needs no other file. What a file is, is never guessed.
    Qcow2,
    /// The source is a connected socket, or the path of one to connect to: behind it an NBD server serves the disk.
    Nbd,
    /// The same with a vhost-user backend, which has the queues themselves: it sets serial number and limits.
    VhostUser,
}

/// The host's end of a network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tap {
    /// An inherited descriptor of a tap opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
    Fd(i32),
    /// An interface of this network namespace, opened before the jail closes.
    Name(String),
    /// No tap but the socket of a vhost-user backend, connected or to connect to: it has the card's queues, and sets limits.
    VhostUser(Source),
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// The host's end.
    pub tap: Tap,
    /// In status and requests, default `nicN`.
    #[serde(default)]
    pub name: Option<String>,
    /// Address that the guest is told, `02:00:00:00:00:01`.
    pub mac: String,
    /// Largest frame payload in bytes that the guest is told.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Limit on what the guest sends.
    #[serde(default)]
    pub transmit: Rate,
    /// Limit on what it receives.
    #[serde(default)]
    pub receive: Rate,
}

impl Nic {
    /// The address as bytes. Multicast and the zero address are refused.
    pub fn mac_bytes(&self) -> Option<[u8; 6]> {
        let mut bytes = [0u8; 6];
        let mut parts = self.mac.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(bytes)
    }
}

/// A folder of the host (virtio-fs), which a vhost-user backend serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// What the guest mounts it by, at most 36 bytes.
    pub tag: String,
    /// The backend's socket: connected, or the path of one to connect to.
    pub socket: Source,
    /// In status and requests, default `shareN`.
    #[serde(default)]
    pub name: Option<String>,
    /// Queues for requests, 1 to 16. Another is for what must not wait.
    #[serde(default = "one")]
    pub queues: u16,
}

/// Memory that the guest can give back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// The guest gives memory back by itself when it is free.
    #[serde(default = "yes")]
    pub reporting: bool,
}

/// Memory that comes and goes beside what is there from the start (virtio-mem).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryHotplug {
    /// Most of it, in whole blocks.
    pub max_mib: u32,
    /// What comes and goes at once: a power of two from 2 on. By itself the least with which there are no more than 16384.
    #[serde(default)]
    pub block_mib: Option<u32>,
    /// As much as the guest is asked to take at first.
    #[serde(default)]
    pub requested_mib: u32,
    /// The node of the guest (`numa`) that it is near.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub node: u16,
}

impl MemoryHotplug {
    /// MiB of a block.
    pub fn block_mib(&self) -> u32 {
        let least = || self.max_mib.div_ceil(BLOCKS_MAX).next_power_of_two().max(BLOCK_MIB_MIN);
        self.block_mib.unwrap_or_else(least)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let block = self.block_mib();
        if !block.is_power_of_two() || block < BLOCK_MIB_MIN {
            return Err(refuse("memory_hotplug", "has a block_mib that is no power of two from 2 on"));
        }
        if !(1..=MEMORY_MIB_MAX).contains(&self.max_mib) || !self.max_mib.is_multiple_of(block) {
            let text = format!("has a max_mib that is no number of blocks of {block} up to {MEMORY_MIB_MAX}");
            return Err(refuse("memory_hotplug", text));
        }
        if self.max_mib / block > BLOCKS_MAX {
            return Err(refuse("memory_hotplug", format!("has more than {BLOCKS_MAX} blocks")));
        }
        if self.requested_mib > self.max_mib || !self.requested_mib.is_multiple_of(block) {
            let text = format!("has a requested_mib that is no number of blocks of {block} up to its max_mib");
            return Err(refuse("memory_hotplug", text));
        }
        Ok(())
    }
}

/// Connections between host programs and the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// The guest's address, from 3 on.
    pub cid: u32,
    /// Path to bind (mode 0600), or an inherited listening socket: where host programs come in.
    pub socket: Source,
}

/// The serial console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// Everything the guest writes, the newest `max_bytes` of it.
    pub log: Source,
    /// Bound of the log in bytes. When it is reached the older half goes.
    #[serde(default = "default_console_bytes")]
    pub max_bytes: u64,
}

/// Whom to become before guest code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Not 0.
    pub uid: u32,
    /// Not 0.
    pub gid: u32,
}

/// How virtio devices are reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A page of registers and an interrupt line each: lean, fixed, at most 16.
    #[default]
    Mmio,
    /// PCI functions with MSI-X: at most 31, and they can come and go while the machine runs.
    Pci,
}

/// Answer to a guest's reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReset {
    /// Start the machine anew inside this process.
    #[default]
    Restart,
    /// End with exit code 3.
    Exit,
}

/// A snapshot to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The state file.
    pub state: Source,
    /// The memory image. Pages are read from it as the guest needs them, so it must stay as it is.
    pub memory: Source,
    /// Read and check all of the image first. Without, only its size and its last page are looked at.
    #[serde(default = "yes")]
    pub verify: bool,
    /// How pages come out of the image.
    #[serde(default)]
    pub lazy: Lazy,
}

/// How the pages of a memory image reach a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lazy {
    /// The image is mapped: leanest, and guests share what they only read. A page that cannot be read kills the process.
    #[default]
    Map,
    /// Each MiB is read and checked when it is touched (userfaultfd), `verify` or not. What does not match crashes the machine
    /// with a reason.
    Fault,
}

/// Processor features that a machine can be told not to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuFeature {
    /// cmpxchg16b: missing from KVM's instruction emulator.
    Cx16,
    /// x2APIC.
    X2apic,
    /// APIC timer in TSC deadline mode.
    TscDeadline,
    /// Everything beyond the baseline x86-64-v2: the machine can move to any host of the vendor since 2008.
    #[serde(rename = "above_x86_64_v2")]
    AboveV2,
    /// Everything beyond the baseline x86-64-v3: since 2013.
    #[serde(rename = "above_x86_64_v3")]
    AboveV3,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name in logs, status and reports.
    pub id: String,
    /// Virtual processors.
    pub vcpus: u16,
    /// Processors can come and go, up to so many; without it those that are there stay.
    #[serde(default)]
    pub max_vcpus: Option<u16>,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// ELF (PVH note or 64-bit entry) or bzImage. Without one the first disk boots by itself: its kernel, initial file
    /// system and command line are looked up in it at every start.
    #[serde(default)]
    pub kernel: Option<Source>,
    /// The image of a BIOS that finds something to start by itself, SeaBIOS' `bios-256k.bin`; needs `transport` pci.
    #[serde(default)]
    pub firmware: Option<Source>,
    /// A kernel that is found on the first disk is started without it; it starts what has none.
    #[serde(default)]
    pub kernel_first: bool,
    /// What the firmware tells of its steps goes to the log. It takes a multiple of the time.
    #[serde(default)]
    pub firmware_debug: bool,
    /// Initial file system, handed to the kernel as it is.
    #[serde(default)]
    pub initramfs: Option<Source>,
    /// Kernel command line, after the disk's own where that boots; virtio-mmio devices are appended.
    #[serde(default)]
    pub cmdline: String,
    /// How virtio devices are reached.
    #[serde(default)]
    pub transport: Transport,
    /// In slot order.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// In slot order, after the disks.
    #[serde(default)]
    pub nics: Vec<Nic>,
    /// Folders of the host, in the last slots.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// Guest memory can be given to vhost-user backends, and handed to another process of this program on this host. So it is
    /// where the configuration has a backend; this is for those that come later.
    #[serde(default)]
    pub shared_memory: bool,
    /// A random number source in the slot after the cards.
    #[serde(default = "yes")]
    pub rng: bool,
    /// Memory that the guest can give back.
    #[serde(default)]
    pub balloon: Option<Balloon>,
    /// A terminal beside the serial line (`hvc0`).
    #[serde(default)]
    pub virtio_console: bool,
    /// Connections between host programs and the guest.
    #[serde(default)]
    pub vsock: Option<Vsock>,
    /// A watchdog that resets a guest which armed it and then shows no life.
    #[serde(default)]
    pub watchdog: bool,
    /// Path to bind (mode 0600), or an inherited listening socket.
    pub control_socket: Source,
    /// Where a debugger may look into the guest; without it none can.
    #[serde(default)]
    pub gdb: Option<Gdb>,
    /// The serial console.
    pub console: Console,
    /// Without it the process keeps its user (and loses its capabilities).
    #[serde(default)]
    pub user: Option<User>,
    /// Answer to a guest's reset.
    #[serde(default)]
    pub on_reset: OnReset,
    /// Features to hide from the guest.
    #[serde(default)]
    pub cpu_mask: Vec<CpuFeature>,
    /// Ask for transparent huge pages.
    #[serde(default = "yes")]
    pub huge_pages: bool,
    /// Take all memory from the host's pool of huge pages (2 MiB) at the start; refused when there are not enough. A machine that
    /// goes on from a snapshot has ordinary pages, as they come from the image.
    #[serde(default)]
    pub hugetlb: bool,
    /// Take all memory from this NUMA node of the host; refused where there is none of that number.
    #[serde(default)]
    pub host_node: Option<u16>,
    /// Memory that comes and goes while the machine runs.
    #[serde(default)]
    pub memory_hotplug: Option<MemoryHotplug>,
    /// Nodes of the guest: which processors and which memory are near each other. Guests need ACPI to hear of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numa: Vec<NumaNode>,
    /// Go on from a snapshot of a machine with this very configuration instead of starting the kernel.
    #[serde(default)]
    pub restore: Option<Restore>,
    /// Wait at this listening socket (a path to bind, or inherited) for a machine with this very configuration to move
    /// in, instead of starting the kernel. Disks are taken over when the source lets go of them.
    #[serde(default)]
    pub incoming: Option<Source>,
    /// Where to write a `state::Report` when the process ends.
    #[serde(default)]
    pub report: Option<Source>,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

fn one() -> u16 {
    1
}

fn yes() -> bool {
    true
}

fn default_mtu() -> u16 {
    1500
}

fn default_console_bytes() -> u64 {
    1 << 20
}

fn refuse(field: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { field, problem: problem.into() }
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        use std::io::Read;
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = Vec::new();
        File::open(path).map_err(read)?.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut text).map_err(read)?;
        if text.len() as u64 > CONFIG_BYTES_MAX {
            return Err(read(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB")));
        }
        Config::parse(&text)
    }

    /// Parses and checks.
    pub fn parse(text: &[u8]) -> Result<Config, ConfigError> {
        let config: Config = serde_json::from_slice(text)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every bound. Called by `parse`; whoever builds a `Config` in code calls it too.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id.is_empty() || self.id.len() > 64 || !self.id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refuse("id", "must be 1 to 64 visible ASCII characters"));
        }
        if !(1..=VCPUS_MAX).contains(&self.vcpus) {
            return Err(refuse("vcpus", format!("must be 1 to {VCPUS_MAX}")));
        }
        if !(self.vcpus..=VCPUS_MAX).contains(&self.possible_vcpus()) {
            return Err(refuse("max_vcpus", format!("must be the number of processors to {VCPUS_MAX}")));
        }
        if !(MEMORY_MIB_MIN..=MEMORY_MIB_MAX).contains(&self.memory_mib) {
            return Err(refuse("memory_mib", format!("must be {MEMORY_MIB_MIN} to {MEMORY_MIB_MAX}")));
        }
        if self.cmdline.bytes().any(|b| !(0x20..0x7f).contains(&b)) {
            return Err(refuse("cmdline", "must be printable ASCII"));
        }
        self.validate_memory()?;
        let memory = self.memory_hotplug.is_some();
        let singles = [self.rng, self.balloon.is_some(), self.virtio_console, self.vsock.is_some(), memory];
        let slots =
            self.disks.len() + self.nics.len() + self.shares.len() + singles.into_iter().filter(|there| *there).count();
        let most = match self.transport {
            Transport::Mmio => crate::virtio::SLOTS,
            Transport::Pci => usize::from(crate::pci::DEVICES) - 1,
        };
        if slots > most {
            return Err(refuse("disks", format!("and nics need {slots} slots, there are {most}")));
        }
        if !(4096..=1 << 30).contains(&self.console.max_bytes) {
            return Err(refuse("console", "max_bytes must be 4096 to 1 GiB"));
        }
        if self.user.is_some_and(|u| u.uid == 0 || u.gid == 0) {
            return Err(refuse("user", "must not be root"));
        }
        if self.firmware.is_some() {
            if self.kernel.is_some() || self.initramfs.is_some() || !self.cmdline.is_empty() {
                return Err(refuse("firmware", "finds kernel, initial file system and command line by itself"));
            }
            if self.transport != Transport::Pci {
                return Err(refuse("firmware", "looks for disks on PCI: `transport` must be pci"));
            }
        } else if self.kernel_first {
            return Err(refuse("kernel_first", "means something only beside a firmware"));
        } else if self.kernel.is_none() && (self.disks.is_empty() || self.initramfs.is_some()) {
            return Err(refuse("kernel", "is missing, and there is no disk alone to boot from"));
        }
        let lazy = self.restore.as_ref().is_some_and(|restore| restore.lazy == Lazy::Fault);
        if lazy && (self.shares_memory() || self.hugetlb || self.memory_hotplug.is_some()) {
            return Err(refuse(
                "restore",
                "by faults is for memory that is not shared, not of the pool, and does not come and go",
            ));
        }
        if self.incoming.is_some() && self.restore.is_some() {
            return Err(refuse("incoming", "and `restore` exclude each other"));
        }
        self.validate_devices()?;
        self.validate_names()?;
        self.validate_descriptors()
    }

    /// As many processors as there can ever be.
    pub fn possible_vcpus(&self) -> u16 {
        self.max_vcpus.unwrap_or(self.vcpus)
    }

    /// How many queues a disk has.
    pub fn disk_queues(&self, disk: &Disk) -> u16 {
        let parallel = matches!(disk.engine, Engine::Auto | Engine::Threads | Engine::Plain);
        disk.queues.unwrap_or(match self.transport {
            Transport::Pci if parallel => self.possible_vcpus().clamp(1, DISK_QUEUES_USUAL),
            _ => 1,
        })
    }

    /// Most memory that can come beside what is there from the start.
    pub fn max_hot_mib(&self) -> u32 {
        self.memory_hotplug.map_or(0, |memory| memory.max_mib)
    }

    /// How much address space memory has.
    pub fn memory_size(&self) -> Size {
        Size { ram: u64::from(self.memory_mib) << 20, hot: u64::from(self.max_hot_mib()) << 20 }
    }

    /// Where memory comes from.
    pub fn memory_backing(&self) -> Backing {
        let (huge_pages, hugetlb, host_node) = (self.huge_pages, self.hugetlb, self.host_node);
        Backing { huge_pages, hugetlb, host_node, stretches: self.stretches() }
    }

    /// Where memory comes and goes.
    pub fn hot_area(&self) -> Option<Area> {
        let (size, block) = (self.memory_size(), u64::from(self.memory_hotplug?.block_mib()) << 20);
        Some(Area { start: hot::start(size.ram), bytes: size.hot, block })
    }

    fn validate_memory(&self) -> Result<(), ConfigError> {
        if self.hugetlb
            && (self.memory_hotplug.is_some() || self.balloon.is_some() || !self.memory_mib.is_multiple_of(2))
        {
            return Err(refuse(
                "hugetlb",
                "needs memory of whole huge pages that neither comes and goes nor is given back",
            ));
        }
        if self.shares_memory() && (self.hugetlb || self.memory_hotplug.is_some() || self.host_node.is_some()) {
            return Err(refuse(
                "shared_memory",
                "is not of the pool of huge pages, nor of one node, and does not come and go (backends need it)",
            ));
        }
        if self.host_node.is_some_and(|node| node >= NODES_MAX) {
            return Err(refuse("host_node", format!("must be 0 to {}", NODES_MAX - 1)));
        }
        self.memory_hotplug.map_or(Ok(()), |memory| memory.validate())?;
        self.validate_numa()
    }

    /// Whether guest memory is to be shared with other processes.
    pub fn shares_memory(&self) -> bool {
        let disk = |disk: &Disk| disk.engine == Engine::VhostUser;
        let card = |nic: &Nic| matches!(nic.tap, Tap::VhostUser(_));
        self.shared_memory || !self.shares.is_empty() || self.disks.iter().any(disk) || self.nics.iter().any(card)
    }

    /// Names of disks, cards and shares, given or by number.
    pub fn device_names(&self) -> Vec<String> {
        let name = |given: &Option<String>, kind: &str, n: usize| given.clone().unwrap_or_else(|| format!("{kind}{n}"));
        let disks = self.disks.iter().enumerate().map(|(n, disk)| name(&disk.name, "disk", n));
        let nics = self.nics.iter().enumerate().map(|(n, nic)| name(&nic.name, "nic", n));
        let shares = self.shares.iter().enumerate().map(|(n, share)| name(&share.name, "share", n));
        disks.chain(nics).chain(shares).collect()
    }

    fn validate_names(&self) -> Result<(), ConfigError> {
        let mut names = self.device_names();
        let spelled = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if names.iter().any(|name| !(1..=NAME_MAX).contains(&name.len()) || !name.bytes().all(spelled)) {
            return Err(refuse("name", format!("must be 1 to {NAME_MAX} letters, digits and -_.")));
        }
        names.extend(["rng", "balloon", "console", "vsock", "memory"].map(str::to_owned));
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(refuse("name", "is that of two devices"));
        }
        Ok(())
    }

    fn validate_devices(&self) -> Result<(), ConfigError> {
        for nic in &self.nics {
            if nic.mac_bytes().is_none() {
                return Err(refuse("nics", format!("has the mac `{}`, which is no unicast address", nic.mac)));
            }
            if !(68..=65521).contains(&nic.mtu) {
                return Err(refuse("nics", "has an mtu outside 68 to 65521"));
            }
            if let Tap::Name(name) = &nic.tap
                && (name.is_empty() || name.len() >= libc::IFNAMSIZ || !name.bytes().all(|b| b.is_ascii_graphic()))
            {
                return Err(refuse("nics", "has a tap name that is no interface name"));
            }
            if matches!(nic.tap, Tap::VhostUser(_)) && [nic.transmit, nic.receive] != [Rate::default(); 2] {
                return Err(refuse("nics", "of vhost-user backends have their limits set there"));
            }
        }
        self.validate_shares()?;
        for disk in &self.disks {
            if disk.serial.as_ref().is_some_and(|s| s.len() > 20 || !s.is_ascii()) {
                return Err(refuse("disks", "has a serial of more than 20 ASCII characters"));
            }
            if disk.queues.is_some_and(|queues| !(1..=DISK_QUEUES_MAX).contains(&queues)) {
                return Err(refuse("disks", format!("must have 1 to {DISK_QUEUES_MAX} queues")));
            }
            if disk.engine == Engine::VhostUser && disk.rate != Rate::default() {
                return Err(refuse("disks", "of vhost-user backends have their limits set there"));
            }
            if disk.engine == Engine::Nbd
                && (disk.queues.is_some_and(|queues| queues != 1) || disk.export.len() > EXPORT_MAX)
            {
                return Err(refuse(
                    "disks",
                    "of NBD servers have one queue, and exports with names of at most 4096 bytes",
                ));
            }
        }
        if self.vsock.as_ref().is_some_and(|vsock| vsock.cid < 3 || vsock.cid == u32::MAX) {
            return Err(refuse("vsock", "has a cid that is reserved: guests have 3 and above"));
        }
        Ok(())
    }

    fn validate_shares(&self) -> Result<(), ConfigError> {
        for share in &self.shares {
            if !(1..=TAG_MAX).contains(&share.tag.len()) || share.tag.contains('\0') {
                return Err(refuse("shares", format!("must have tags of 1 to {TAG_MAX} bytes")));
            }
            if !(1..=DISK_QUEUES_MAX).contains(&share.queues) {
                return Err(refuse("shares", format!("must have 1 to {DISK_QUEUES_MAX} queues")));
            }
        }
        let mut tags: Vec<&str> = self.shares.iter().map(|share| share.tag.as_str()).collect();
        tags.sort_unstable();
        match tags.windows(2).any(|pair| pair[0] == pair[1]) {
            true => Err(refuse("shares", "have the same tag twice")),
            false => Ok(()),
        }
    }

    /// No descriptor may be owned twice.
    fn validate_descriptors(&self) -> Result<(), ConfigError> {
        let mut numbers = Vec::new();
        let restore = self.restore.as_ref();
        let sources = [
            self.kernel.as_ref(),
            self.initramfs.as_ref(),
            self.firmware.as_ref(),
            Some(&self.control_socket),
            self.report.as_ref(),
            self.vsock.as_ref().map(|vsock| &vsock.socket),
            self.incoming.as_ref(),
            self.gdb.as_ref().map(|gdb| &gdb.socket),
            restore.map(|r| &r.state),
            restore.map(|r| &r.memory),
        ];
        let files =
            sources.into_iter().flatten().chain([&self.console.log]).chain(self.disks.iter().map(|d| &d.source));
        let cards =
            self.nics.iter().filter_map(|n| if let Tap::VhostUser(socket) = &n.tap { Some(socket) } else { None });
        let files = files.chain(cards).chain(self.shares.iter().map(|share| &share.socket));
        numbers.extend(files.filter_map(|s| if let Source::Fd(fd) = s { Some(*fd) } else { None }));
        numbers.extend(self.nics.iter().filter_map(|n| if let Tap::Fd(fd) = n.tap { Some(fd) } else { None }));
        numbers.sort_unstable();
        if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(refuse("fd", "names the same descriptor twice"));
        }
        if numbers.first().is_some_and(|fd| *fd <= 2) {
            return Err(refuse("fd", "must not name a standard stream"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
