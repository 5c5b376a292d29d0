//! The control socket's language: one JSON object a line, one answer a line.
//!
//! `{"op":"status"}` → `{"reply":"status", ...}`. Console bytes travel as text of the characters U+0000 to U+00FF, one
//! per byte. After `console_attach` was answered with `done`, the client sends one empty line, and from then on the
//! connection is the raw console, both ways, until one side closes it.
//!
//! A request that needs files gets them open, as SCM_RIGHTS with its line: this process can open nothing.

pub mod client;
pub mod command;
pub mod server;

pub use client::{Client, ClientError};

use crate::migrate::{ProgressStatus, Terms};
use crate::state::{RunState, StopReason};
use crate::virtio::counters::Snapshot;
use crate::virtio::limit::Rate;
use serde::{Deserialize, Serialize};

/// Longest request line in bytes.
pub const LINE_BYTES_MAX: usize = 128 * 1024;
/// Longest piece of console output in one answer, in bytes.
pub const TAIL_BYTES_MAX: u32 = 256 * 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// State and counters.
    Status {},
    /// Stop all processors and devices between two instructions. Asking twice is no error.
    Pause {},
    /// Go on. Asking twice is no error.
    Resume {},
    /// Ask the guest to shut down: the ACPI power button, or Ctrl-Alt-Del on its keyboard where it does not listen to
    /// that. Most systems answer the keys with an orderly restart, so the machine powers off where the guest then
    /// resets. Refused when the guest listens to neither.
    PowerButton {},
    /// Ask the guest to restart: Ctrl-Alt-Del. Refused when it has no keyboard driver.
    SoftReset {},
    /// Hard reset.
    Reset {},
    /// End at once.
    Kill {},
    /// Write a snapshot of a paused machine into two files that come with this line (SCM_RIGHTS): state, then memory.
    /// Answered when both are durable; the machine stays paused. Refused when it is not paused.
    Snapshot {},
    /// Move the running machine over a stream that comes with this line (SCM_RIGHTS) to a process that waits for it
    /// (`incoming`). Answered when the target runs it, and then this process ends; or when it did not move.
    Migrate {
        /// How much the guest may be disturbed.
        #[serde(default)]
        terms: Terms,
        /// The disks' contents go over as well, into files of the target that are as large. Otherwise it has the same
        /// files. Those that are read-only never go over.
        #[serde(default)]
        disks: bool,
    },
    /// Move the running machine to a process on this host that waits for it, over a Unix stream socket that comes with this line
    /// (SCM_RIGHTS): its memory is handed over open, not copied. Refused where that is not shared. Answered as `migrate` is.
    HandOver {},
    /// Have the machine that moves switch over after the pass under way, however long it then stands still.
    HurryMigration {},
    /// Have the machine that moves run there before all of its memory has come. The pass under way ends where it is. Refused
    /// where the terms do not allow it, or the target cannot do it.
    PostcopyMigration {},
    /// The stream broke after the target was told to run the machine: another one comes with this line (SCM_RIGHTS), to the
    /// socket where the machine came in. Answered as `migrate` is.
    ReconnectMigration {},
    /// Do not move the machine after all. Refused when the target has been told to run it.
    CancelMigration {},
    /// A connection comes with this line to the server of a disk, or the backend of any device, that is away. It is used
    /// once the one before has broken.
    #[serde(alias = "reconnect")]
    ReconnectDisk {
        /// Its name in the status.
        device: String,
    },
    /// Put a disk on the PCI bus. Its open file comes with this line, or a socket at whose other end an NBD server or a
    /// vhost-user backend is.
    AddDisk {
        /// Refuse writes.
        #[serde(default)]
        read_only: bool,
        /// What the guest reads as its serial number, at most 20 ASCII characters.
        serial: String,
        /// Its name from here on; none: the next that is free of `disk0`, `disk1`, ...
        #[serde(default)]
        name: Option<String>,
        /// The export of an NBD server, where what comes is a socket.
        #[serde(default)]
        export: Option<String>,
        /// What comes is the socket of a vhost-user backend.
        #[serde(default)]
        vhost_user: bool,
    },
    /// Put a card on the PCI bus. Its tap comes with this line, or the socket of a vhost-user backend.
    AddNic {
        /// Address that the guest is told.
        mac: String,
        /// Largest frame payload.
        mtu: u16,
        /// Its name from here on; none: the next that is free of `nic0`, `nic1`, ...
        #[serde(default)]
        name: Option<String>,
        /// What comes is the socket of a vhost-user backend.
        #[serde(default)]
        vhost_user: bool,
    },
    /// Put a folder of the host on the PCI bus (virtio-fs). The socket of its vhost-user backend comes with this line.
    AddShare {
        /// What the guest mounts it by.
        tag: String,
        /// Its name from here on; none: the next that is free of `share0`, `share1`, ...
        #[serde(default)]
        name: Option<String>,
    },
    /// Take a disk, a card or a share off the PCI bus. A guest with ACPI is asked to let go of it, and the answer comes when it has;
    /// when it has not after eight seconds it may still do so, and this is refused until then. Where no guest listens it is
    /// refused while a driver uses the device.
    Remove {
        /// Its name in the status.
        device: String,
    },
    /// Another limit for a disk or a card, from its next request on.
    SetRate {
        /// Its name in the status.
        device: String,
        /// A disk has one limit for both.
        #[serde(default)]
        direction: Direction,
        /// The limit.
        rate: Rate,
    },
    /// A disk has grown, or is to grow: the guest is told its new length. A disk cannot become shorter.
    ResizeDisk {
        /// Its name in the status.
        device: String,
        /// A file is made so long first, when it is not; without, it has been made longer already, or is a block device.
        #[serde(default)]
        bytes: Option<u64>,
    },
    /// Have so many processors be there. The guest is told which came and is asked to let go of the highest; the answer comes
    /// when it has done so. When it has not after eight seconds it may still do so, and this is refused with how far it got.
    /// Refused where the configuration has no `max_vcpus`, and where the guest has no ACPI. A guest brings processors that
    /// it took to life as its own rules say.
    ResizeVcpus {
        /// From 1 to `max_vcpus`.
        count: u16,
    },
    /// Have so much memory be there, with what was there from the start. The guest is told, and takes or gives back blocks as it
    /// can; the answer comes as with `resize_vcpus`. Refused where the configuration has no `memory_hotplug`.
    ResizeMemory {
        /// MiB in all.
        mib: u32,
    },
    /// Ask the guest to give up this much memory in all. It does so as it can; the status shows how far it is.
    SetBalloon {
        /// MiB.
        mib: u32,
    },
    /// Type on the console.
    ConsoleWrite {
        /// One character per byte.
        data: String,
    },
    /// The newest output.
    ConsoleTail {
        /// How much at most, up to `TAIL_BYTES_MAX`.
        bytes: u32,
    },
    /// Turn this connection into the console.
    ConsoleAttach {},
}

/// What a limit is on, seen from the guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Each, or a disk's reads and writes together.
    #[default]
    Both,
    /// What a card sends.
    Transmit,
    /// What a card receives.
    Receive,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To `status`.
    Status(Box<Status>),
    /// It was done.
    Done,
    /// To `console_write`: how many bytes found room.
    Taken {
        /// Bytes.
        bytes: usize,
    },
    /// To `add_disk`, `add_nic` and `add_share`: the device's name.
    Added {
        /// As in the status.
        device: String,
    },
    /// To `resize_disk`: its length now.
    Resized {
        /// Bytes.
        bytes: u64,
    },
    /// To `resize_vcpus`.
    Processors {
        /// How many are there.
        there: u16,
    },
    /// To `resize_memory`.
    Memory {
        /// MiB in all.
        mib: u64,
    },
    /// To `console_tail`.
    Console {
        /// One character per byte.
        data: String,
    },
    /// It was not done.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// State of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// From the configuration.
    pub id: String,
    /// Of this program.
    pub version: String,
    /// Which build of it ([`crate::program`]); "" where it is not known.
    #[serde(default)]
    pub build: String,
    /// Process id.
    pub pid: u32,
    /// Run state.
    pub state: RunState,
    /// When `state` is stopped.
    pub stop_reason: Option<StopReason>,
    /// Virtual processors that are there.
    pub vcpus: u16,
    /// That are to be there.
    #[serde(default)]
    pub wanted_vcpus: u16,
    /// That there can be.
    #[serde(default)]
    pub max_vcpus: u16,
    /// Guest memory in MiB, as it was from the start.
    pub memory_mib: u32,
    /// Memory beside that, where it comes and goes.
    #[serde(default)]
    pub memory_hotplug: Option<HotMemoryStatus>,
    /// Time since the process began, in milliseconds.
    pub uptime_ms: u64,
    /// Resets since then.
    pub resets: u64,
    /// Exits to this process per processor, since the last reset.
    pub exits: Vec<u64>,
    /// Port and memory accesses that no device answers.
    pub unclaimed_accesses: u64,
    /// virtio devices in slot order.
    pub devices: Vec<DeviceStatus>,
    /// Of a migration under way.
    pub migration: Option<ProgressStatus>,
    /// Memory that is not there yet.
    #[serde(default)]
    pub missing: Option<MissingStatus>,
    /// Memory that the guest has given up, where it can.
    pub balloon_mib: Option<u32>,
    /// The console.
    pub console: ConsoleStatus,
}

/// State of memory that comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotMemoryStatus {
    /// That the guest has.
    pub plugged_mib: u64,
    /// That it is asked to have.
    pub requested_mib: u32,
    /// That it can have.
    pub max_mib: u32,
    /// That comes or goes at once.
    pub block_mib: u32,
}

/// State of a virtio device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// As configured; else `disk0`, `nic0`, `rng`, ...
    pub name: String,
    /// Its device number, if it is on the PCI bus.
    #[serde(default)]
    pub number: Option<u8>,
    /// Of a disk, its length.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Of a disk behind a server, or a device with a backend, whether that is there.
    #[serde(default)]
    pub connected: Option<bool>,
    /// The driver has taken it into use.
    pub driver_ok: bool,
    /// The driver broke it; it does nothing until the driver resets it.
    pub needs_reset: bool,
    /// What happened on it since the last reset of the machine.
    pub counters: Snapshot,
}

/// Memory that is brought when it is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingStatus {
    /// Pages that have not come.
    pub pages: u64,
    /// Times that somebody waited for one.
    pub faults: u64,
    /// They cannot be brought just now: the source is lost, or the image cannot be read.
    pub stuck: bool,
}

/// State of the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleStatus {
    /// Bytes that the guest wrote.
    pub bytes: u64,
    /// Bytes that could not be logged.
    pub lost: u64,
    /// Attached clients that read too slowly.
    pub watchers_dropped: u64,
}

/// Bytes as text, one character each.
pub fn to_text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// The other way; None when a character is no byte.
pub fn to_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_look_as_documented() {
        let parse = |text: &str| serde_json::from_str::<Request>(text);
        assert_eq!(parse("{\"op\":\"status\"}").unwrap(), Request::Status {});
        assert_eq!(parse("{\"op\":\"console_tail\",\"bytes\":9}").unwrap(), Request::ConsoleTail { bytes: 9 });
        assert!(parse("{\"op\":\"status\",\"x\":1}").is_err());
        assert!(parse("{\"op\":\"explode\"}").is_err());
        assert!(parse("{\"op\":\"console_tail\",\"bytes\":-1}").is_err());
    }

    proptest! {
        #[test]
        fn console_bytes_survive_the_way(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let reply = Reply::Console { data: to_text(&bytes) };
            let line = serde_json::to_string(&reply).unwrap();
            prop_assert!(!line.contains('\n'));
            let Reply::Console { data } = serde_json::from_str(&line).unwrap() else { panic!() };
            prop_assert_eq!(to_bytes(&data).unwrap(), bytes);
        }
    }
}
