//! What runs a guest: one trait, one contract suite, several implementations.
//!
//! ```text
//!            start                shutdown (asked) / guest powers off
//! Absent ------------> Running ------------------------------> PoweredOff --kill--> Absent
//!    ^    (restore)     |   ^                                  (process kept until its end
//!    |                  |   | resume                            has been seen)
//!    |   suspend   pause v   |
//!    +---(state file)-- Paused
//!
//!  another host:   Running --send--> Moved (only waits to be killed)
//!                      | streams
//!  this one:        Absent --receive--> Arriving --arrive--> Running
//!
//!  upgrade:         Running --> Switching (two processes, one of them has the guest) --> Running
//! ```
//! A runtime keeps nothing that it could not find again: the process is recorded in the instance's
//! folder, its control socket lies beside it. Every verb may be repeated.
pub mod choose;
pub mod fake;
pub mod kvm;
pub mod places;
pub mod qemu;
pub mod set;
mod stop;

pub use stop::stop_kindly;

use crate::console::Log;
use crate::uefi::Uefi;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Which implementation runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// pilvi-vmm on KVM.
    Kvm,
    /// QEMU, with KVM where it is real, else emulated.
    Qemu,
    /// A sleeping process: simulated hosts and tests.
    Fake,
}

impl Kind {
    /// As the API spells it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
            Self::Fake => "fake",
        }
    }

    /// The runtime of that name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Kvm, Self::Qemu, Self::Fake].into_iter().find(|kind| kind.word() == word)
    }
}
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a verb did not work.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// This runtime cannot do that at all.
    #[error("the {0} runtime cannot {1}")]
    Unsupported(Kind, &'static str),
    /// The guest, its process or its control channel did not do what was asked.
    #[error("{0}")]
    Failed(String),
    /// The kernel said no.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
}

/// Which guest a verb is about.
#[derive(Debug, Clone)]
pub struct Guest {
    /// UUID of the instance.
    pub id: String,
    /// Its folder: process record, control socket, saved state, console.
    pub dir: PathBuf,
    /// Its console log.
    pub console: Log,
}

impl Guest {
    /// Where a suspended guest's state lies.
    #[must_use]
    pub fn saved_state(&self) -> PathBuf {
        self.dir.join("saved-state")
    }
}

/// How a disk's file is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskFormat {
    /// Sector n at byte 512 n.
    Raw,
    /// A qcow2 file of ours whose holes show the raw file at this path.
    Overlay(PathBuf),
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineDisk {
    /// By which it is found again; unique among the machine's disks and cards, and fit for a file name.
    pub id: String,
    /// The backing file.
    pub path: PathBuf,
    pub format: DiskFormat,
    pub read_only: bool,
    /// What the guest sees as the serial number; at most 20 bytes of it.
    pub serial: String,
}

/// A network interface.
#[derive(Debug)]
pub struct MachineNic {
    /// As of a disk.
    pub id: String,
    pub mac: String,
    /// Bytes; 0 leaves it to the guest.
    pub mtu: u16,
    /// One descriptor for each queue; none: a card without a cable.
    pub taps: Vec<OwnedFd>,
}

/// A kernel that is started without firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectBoot {
    pub kernel: PathBuf,
    pub ramdisk: Option<PathBuf>,
    pub cmdline: String,
}

/// What to start.
#[derive(Debug, Default)]
pub struct Machine {
    pub vcpus: u32,
    pub memory_mib: u64,
    /// The first is the one to boot from.
    pub disks: Vec<MachineDisk>,
    pub nics: Vec<MachineNic>,
    pub boot: Option<DirectBoot>,
    /// Its firmware, if that is not the runtime's own.
    pub uefi: Option<Uefi>,
    /// `hw_*`, `fake:*`: each runtime takes those it knows.
    pub properties: BTreeMap<String, String>,
    /// Where disks and cards are that the guest knows from before, by their ids. The others come to the first free places.
    pub places: BTreeMap<String, u8>,
    /// Go on from [`Guest::saved_state`].
    pub restore: bool,
}

/// What a guest is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Run {
    /// There is no process.
    #[default]
    Absent,
    Running,
    Paused,
    /// The guest powered itself off (or was asked to); its process waits to be ended.
    PoweredOff,
    /// The guest died of an internal error; its process waits to be ended.
    Broken,
    /// A process waits for the guest to come over from another host; nothing of the guest runs in it.
    Arriving,
    /// The guest runs on another host; what is left of it here waits to be ended.
    Moved,
    /// An upgrade was begun: which of two processes has the guest, and what is to become of the other, is to be settled.
    Switching,
}

/// What a runtime knows of a guest at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status {
    pub run: Run,
    /// 0 when there is no process.
    pub pid: u32,
}

/// The program that a guest runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name, version and build.
    pub name: String,
    /// What a guest that starts now would run in, where that is another one.
    pub newer: Option<String>,
}

/// What became of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The guest runs on in its former process, and there is no other.
    Stays,
    /// It runs in the newer one, and there is no other.
    Switched,
    /// It has ended meanwhile; the status tells how.
    Ended,
}

/// Bytes of a guest that moves. What changes meanwhile goes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gone {
    pub total: u64,
    pub processed: u64,
    pub remaining: u64,
}

/// How much of a guest that moves has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Going {
    pub memory: Gone,
    pub disks: Gone,
}

/// A disk or a card that a machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub id: String,
    /// Where it is on the machine's bus.
    pub place: u8,
    /// Of a disk, its length as the guest sees it, if that is known.
    pub bytes: Option<u64>,
}

/// Said of a guest that an agent started which did not name devices by their ids: they are left as they are.
const NAMELESS: &str = "its devices were named by an earlier agent: they come and go with its next start";

/// What became of the wish to take a device out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    Gone,
    /// The guest was asked to let go of it and has not done so yet. It still may.
    Asked,
}

/// Streams to the other host of a move, one for each call.
#[async_trait]
pub trait Wires: Send + Sync {
    /// A stream that ends at the socket which the other side's runtime has for `door` ([`Runtime::door`]).
    async fn open(&self, door: &str) -> io::Result<UnixStream>;
}

/// One way to run guests.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> Kind;

    /// Starts the guest, or takes up the one that an earlier call (maybe of an earlier agent)
    /// started. On return it runs.
    async fn start(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError>;

    /// Looks whether this runtime can start a guest from the raw disk in this file, with nothing beside it, in the way
    /// that `properties` ask for.
    ///
    /// # Errors
    /// Why not.
    async fn boots(&self, disk: &Path, properties: &BTreeMap<String, String>) -> Result<(), RuntimeError> {
        let _ = (disk, properties);
        Ok(())
    }

    /// What the guest is doing. Never changes anything.
    async fn status(&self, guest: &Guest) -> Result<Status, RuntimeError>;

    /// Asks the guest to power off. Whether it does is its own business.
    async fn shutdown(&self, guest: &Guest) -> Result<(), RuntimeError>;

    /// Ends the guest and every process of it; on return it is [`Run::Absent`].
    async fn kill(&self, guest: &Guest) -> Result<(), RuntimeError>;

    /// Stops the guest's processors.
    async fn pause(&self, guest: &Guest) -> Result<(), RuntimeError>;

    /// Lets a paused guest go on.
    async fn resume(&self, guest: &Guest) -> Result<(), RuntimeError>;

    /// Saves the guest to [`Guest::saved_state`] and ends its process.
    async fn suspend(&self, guest: &Guest) -> Result<(), RuntimeError>;

    /// Starts a process in which the guest can arrive from another host ([`Run::Arriving`]). `machine` is as it is
    /// there, but its disks are empty files of the same sizes: they come over as well. May be repeated.
    async fn receive(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        let _ = (guest, machine);
        Err(RuntimeError::Unsupported(self.kind(), "take a guest from another host"))
    }

    /// The socket at which a waiting process takes the streams of this name; none where it has no such.
    fn door(&self, guest: &Guest, name: &str) -> Option<PathBuf> {
        let _ = (guest, name);
        None
    }

    /// Waits until the guest has arrived, and lets it run. After an error it has not run here and will not.
    async fn arrive(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let _ = guest;
        Err(RuntimeError::Unsupported(self.kind(), "take a guest from another host"))
    }

    /// Sends the running guest, disks and all, to the process that waits for it at the other end of `wires`. On return
    /// it is there ([`Run::Moved`]). After an error the status tells: it runs here as if nothing had been, or it is
    /// [`Run::Paused`], because the other side was told to run it and only that side knows whether it does.
    async fn send(&self, guest: &Guest, wires: &dyn Wires) -> Result<(), RuntimeError> {
        let _ = (guest, wires);
        Err(RuntimeError::Unsupported(self.kind(), "send a guest to another host"))
    }

    /// How much has gone of a guest that is on its way. None where that is not known (any more).
    async fn going(&self, guest: &Guest) -> Result<Option<Going>, RuntimeError> {
        let _ = guest;
        Ok(None)
    }

    /// Has a send that is under way switch over as soon as it can, however long the guest then stands still. May be repeated.
    async fn hurry_send(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let _ = guest;
        Err(RuntimeError::Unsupported(self.kind(), "hurry a guest that moves"))
    }

    /// Gives up a send that may be under way, also one of an earlier agent: the guest goes on here.
    async fn cancel_send(&self, guest: &Guest) -> Result<(), RuntimeError> {
        let _ = guest;
        Err(RuntimeError::Unsupported(self.kind(), "send a guest to another host"))
    }

    /// The disks and cards of a machine whose guest runs or is paused.
    async fn devices(&self, guest: &Guest) -> Result<Vec<Device>, RuntimeError> {
        let _ = guest;
        Err(RuntimeError::Unsupported(self.kind(), "tell which devices a machine has"))
    }

    /// Gives the running guest one more disk. `properties` as at the start.
    async fn plug_disk(
        &self,
        guest: &Guest,
        disk: MachineDisk,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let _ = (guest, disk, properties);
        Err(RuntimeError::Unsupported(self.kind(), "give a running guest a disk"))
    }

    /// Gives the running guest one more card.
    async fn plug_nic(
        &self,
        guest: &Guest,
        nic: MachineNic,
        properties: &BTreeMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let _ = (guest, nic, properties);
        Err(RuntimeError::Unsupported(self.kind(), "give a running guest a card"))
    }

    /// Asks the running guest to let go of a disk or a card, waits some seconds, and takes it out when the guest has. May be
    /// repeated until then, and is done when there is no such device.
    async fn unplug(&self, guest: &Guest, id: &str) -> Result<Leave, RuntimeError> {
        let _ = (guest, id);
        Err(RuntimeError::Unsupported(self.kind(), "take a device from a running guest"))
    }

    /// Tells the running guest how long a disk is whose file has grown to `bytes`.
    async fn resize_disk(&self, guest: &Guest, id: &str, bytes: u64) -> Result<(), RuntimeError> {
        let _ = (guest, id, bytes);
        Err(RuntimeError::Unsupported(self.kind(), "let a disk grow under a running guest"))
    }

    /// The program that the running guest is in, where it outlives the file that it was started from.
    async fn program(&self, guest: &Guest) -> Result<Option<Program>, RuntimeError> {
        let _ = guest;
        Ok(None)
    }

    /// Moves the running guest into a new process of the program that would be started now. `machine` is as it is, with
    /// the taps that it has. On return that one runs it. After an error it runs on where it was, unless it is still
    /// [`Run::Switching`].
    async fn upgrade(&self, guest: &Guest, machine: Machine) -> Result<(), RuntimeError> {
        let _ = (guest, machine);
        Err(RuntimeError::Unsupported(self.kind(), "hand a guest to another process"))
    }

    /// Brings an upgrade to its end that was begun, maybe by an earlier agent.
    async fn settle_upgrade(&self, guest: &Guest) -> Result<Settled, RuntimeError> {
        let _ = guest;
        Err(RuntimeError::Unsupported(self.kind(), "hand a guest to another process"))
    }

    /// Whether a guest can have a card that no tap belongs to.
    fn has_cards_without_taps(&self) -> bool {
        true
    }

    /// Moves fresh console output into the guest's log.
    async fn collect_console(&self, guest: &Guest) -> Result<(), RuntimeError>;

    /// What the runtime can tell beyond the process' figures, as a JSON object.
    async fn diagnostics(&self, guest: &Guest) -> Result<serde_json::Value, RuntimeError>;

    /// Returns when the status may have changed; a hint, it may never return.
    async fn changed(&self, guest: &Guest);
}
